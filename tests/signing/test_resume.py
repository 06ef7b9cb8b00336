"""Going on after the loss of a signed tail: only by an operator's act, which names what is lost."""

import asyncio
import json

import pytest

from audit_service.core.chain import format_origin
from audit_service.core.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint, sign_checkpoint
from audit_service.core.note import format_note, parse_note
from audit_service.errors import InputError, SigningRefusedError
from audit_service.signing.folder import Signed, opened
from audit_service.signing.resume import _Expected, resume
from audit_service.store import signing as store
from tests.support.appends import owner
from tests.support.intact import naive_root
from tests.support.postgres import Server
from tests.support.signers import SignerLab, cut_tail, locked_out, signer_lab, unguarded
from tests.support.tampering import report_of


async def _lost(lab: SignerLab) -> None:
    """Signed at 4, 300 and 310; then everything from 302 on is lost."""
    for count in (4, 296, 10):
        await lab.append(count)
        await lab.sign(lab.life())
    await cut_tail(lab, 302)
    assert "shrunk" in await lab.refusal()


async def test_the_log_goes_on_in_the_next_epoch_and_says_what_was_lost(lab: SignerLab) -> None:
    await _lost(lab)
    before = await lab.hashes()
    done = await resume(lab.signing, lab.target, reason="restored a backup")
    (loss,) = done.losses
    assert (done.epoch, done.size, loss.epoch, loss.seq, loss.lost) == (2, 302, 1, 302, (300, 310))
    assert done.root == naive_root(before)
    assert opened(loss.last_good, lab.signing.keys()).checkpoint.size == 300
    async with owner(lab.log.database) as connection:
        row = await connection.fetchrow(
            "SELECT epoch, kind, body FROM audit.entry WHERE log_id = $1 AND seq = 302", lab.log.log_id
        )
    assert row is not None
    assert (row["epoch"], row["kind"]) == (2, "resume")
    details = json.loads(row["body"])["details"]
    assert (details["size"], details["root"], details["lost"]) == (302, done.root.hex(), [300, 310])
    await lab.append(20)
    life = lab.life()
    signed = await lab.sign(life)
    assert signed.origin.endswith("/2")
    await lab.assert_signed(signed)
    kept = lab.signing.folder.log(lab.target.log_key).read_kept(1, lab.signing.keys())
    assert kept is not None
    assert kept.checkpoint.size == 310
    key = lab.signing.keys().signing[0]
    assert open_checkpoint(parse_note((await lab.notes())[-1]), [key.verifier(signed.origin)]).checkpoint == signed
    await lab.append(1)
    await lab.sign(life)


async def test_where_nothing_signed_is_left_the_empty_log_is_the_last_good_checkpoint(lab: SignerLab) -> None:
    await lab.append(10)
    await lab.sign()
    await cut_tail(lab, 6)
    done = await resume(lab.signing, lab.target, reason="restored a backup")
    (loss,) = done.losses
    assert (loss.lost, parse_checkpoint(parse_note(loss.last_good).text).size) == ((0, 10), 0)
    await lab.assert_signed(await lab.sign())


async def test_a_log_that_has_all_that_was_signed_is_not_resumed(lab: SignerLab) -> None:
    await lab.append(4)
    await lab.sign()
    with pytest.raises(InputError, match="nothing to resume"):
        await resume(lab.signing, lab.target, reason="by mistake")
    await lab.append(1)
    assert (await lab.sign()).origin.endswith("/1")


async def test_a_log_that_does_not_lead_to_its_head_is_mended_and_not_resumed(lab: SignerLab) -> None:
    await _lost(lab)
    async with unguarded(lab.log.database) as admin:
        await admin.execute(
            "UPDATE audit.log SET frontier = overlay(frontier placing '\\x00' from 1) WHERE log_id = $1", lab.log.log_id
        )
    with pytest.raises(SigningRefusedError, match="the head row has"):
        await resume(lab.signing, lab.target, reason="restored a backup")


async def test_killed_before_the_log_knows_it_the_signer_refuses_until_it_is_run_again(
    lab: SignerLab,
) -> None:
    await _lost(lab)
    async with owner(lab.log.database) as admin, admin.transaction():
        # The raised epoch waits for the head row, and the command for it.
        await admin.execute("SELECT FROM audit.log WHERE log_id = $1 FOR UPDATE", lab.log.log_id)
        killed = asyncio.create_task(resume(lab.signing, lab.target, reason="restored a backup"))
        waiting = await locked_out(admin)
        await admin.execute("SELECT pg_terminate_backend($1, 5000)", waiting)
        await asyncio.gather(killed, return_exceptions=True)
    assert "has not begun: run `checkpoint resume` again" in await lab.refusal()
    await lab.append(3)
    done = await resume(lab.signing, lab.target, reason="restored a backup")
    assert (done.epoch, done.size, [loss.lost for loss in done.losses]) == (2, 305, [(300, 310)])
    await lab.assert_signed(await lab.sign())
    with pytest.raises(InputError, match="nothing to resume"):
        await resume(lab.signing, lab.target, reason="once more")


async def test_a_second_resume_is_another_epoch(lab: SignerLab) -> None:
    await _lost(lab)
    await resume(lab.signing, lab.target, reason="restored a backup")
    await lab.append(10)
    signed = await lab.sign()
    await cut_tail(lab, 305)
    done = await resume(lab.signing, lab.target, reason="restored another")
    assert (done.epoch, done.losses[0].lost[1]) == (3, signed.size)
    assert (await lab.sign()).origin.endswith("/3")
    head = await store.fetch_stored_head(lab.signing.database.reads, lab.log.log_id)
    assert head.epoch == 3


async def test_a_backup_from_before_a_resume_begins_an_epoch_of_which_nothing_was_signed(
    lab: SignerLab, server: Server
) -> None:
    """The folder knows of an epoch that the backup does not: what was signed of it is lost too, and it never gets a second tree."""
    await lab.append(250)
    notes = [await _signed(lab)]
    for pools in (lab.pools, lab.signing.database):
        await pools.dispose()  # a database with somebody connected is not copied
    older = await server.create(lab.log.database.name)
    await lab.append(60)
    notes.append(await _signed(lab))
    await cut_tail(lab, 302)
    await resume(lab.signing, lab.target, reason="restored a backup")
    await lab.append(20)
    notes.append(await _signed(lab))
    async with signer_lab(older, lab.signing.folder.path) as restored:
        assert "shrunk" not in await restored.refusal()
        done = await resume(restored.signing, restored.target, reason="restored an older one")
        told = [(one.epoch, one.seq, one.lost, _size(one.last_good)) for one in done.losses]
        assert (done.epoch, told) == (3, [(1, 250, (250, 310), 250), (2, 251, (250, 323), 250)])
        await restored.append(200)
        notes.append(await _signed(restored))
        assert [(_origin(note)[-2:], _size(note)) for note in notes] == [
            ("/1", 250),
            ("/1", 310),
            ("/2", 323),
            ("/3", 452),
        ]
        keys = [key for note in notes for key in restored.signing.keys().verifiers(_origin(note))]
        report = await report_of(restored.pools, restored.log.log_id, checkpoints=notes, trusted=keys)
        assert {item.kind for item in report.breaks} == {"root_mismatch"}
        assert [one.status for one in report.checkpoints] == [
            "consistent",
            "inconsistent",
            "inconsistent",
            "consistent",
        ]
        assert "the resume entry at seq 250 says that [250, 310) was lost" in report.checkpoints[1].detail
        assert "the resume entry at seq 251 says that [250, 323) was lost" in report.checkpoints[2].detail
    await server.drop(older)


async def test_an_epoch_whose_log_is_lost_before_it_began_is_begun_only_by_the_same_log(lab: SignerLab) -> None:
    """Killed between the steps, and then an older backup is restored: the state that nobody was shown is not signed over."""
    await _lost(lab)
    folder, keys = lab.signing.folder.log(lab.target.log_key), lab.signing.keys()
    state = folder.read_state(keys)
    assert state is not None
    origin = state.checkpoint.origin.removesuffix("1") + "2"
    folder.keep_state(state)
    folder.write_state(format_note(sign_checkpoint(Checkpoint(origin, 302, bytes(32)), keys.signers(origin))))
    done = await resume(lab.signing, lab.target, reason="restored a backup")
    assert (done.epoch, [one.lost for one in done.losses]) == (3, [(300, 310), (300, 302)])
    assert (await lab.sign()).origin.endswith("/3")


async def test_nothing_larger_than_an_epoch_is_its_last_good_checkpoint(lab: SignerLab) -> None:
    """In a pruned log the sizes below the cut are never reached: an epoch that ended there has lost all of it, and not less than none."""
    keys, folder = lab.signing.keys(), lab.signing.folder.log(lab.target.log_key)
    origins = [format_origin("audit.example.com", lab.target.log_key, epoch) for epoch in (1, 2)]
    found = [Checkpoint(origins[0], 1200, bytes(32)), Checkpoint(origins[1], 800, bytes(32))]
    signed = {
        one.epoch: one
        for one in (Signed(each, format_note(sign_checkpoint(each, keys.signers(each.origin)))) for each in found)
    }
    expected = _Expected(folder, signed)
    for size in expected.sizes():
        if size >= 1000:
            expected.arrive(size, bytes(32))
    assert expected.last_good(1) == signed[1]
    assert expected.last_good(2) is None


async def _signed(lab: SignerLab) -> str:
    await lab.sign()
    return (await lab.notes())[-1]


def _size(note: str) -> int:
    return parse_checkpoint(parse_note(note).text).size


def _origin(note: str) -> str:
    return parse_checkpoint(parse_note(note).text).origin
