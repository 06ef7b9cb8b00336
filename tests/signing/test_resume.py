"""Going on after the loss of a signed tail: only by an operator's act, which names what is lost."""

import asyncio
import json

import pytest

from audit_service.core.checkpoint import open_checkpoint, parse_checkpoint
from audit_service.core.note import parse_note
from audit_service.errors import InputError, SigningRefusedError
from audit_service.signing.folder import opened
from audit_service.signing.resume import resume
from audit_service.store import signing as store
from tests.support.appends import owner
from tests.support.intact import naive_root
from tests.support.signers import SignerLab, cut_tail, locked_out, unguarded


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
    assert (done.epoch, done.seq, done.size, done.lost) == (2, 302, 302, (300, 310))
    assert done.root == naive_root(before)
    assert opened(done.last_good, lab.signing.keys()).checkpoint.size == 300
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
    assert (done.lost, parse_checkpoint(parse_note(done.last_good).text).size) == ((0, 10), 0)
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
    assert (done.epoch, done.size, done.lost) == (2, 305, (300, 310))
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
    assert (done.epoch, done.lost[1]) == (3, signed.size)
    assert (await lab.sign()).origin.endswith("/3")
    head = await store.fetch_stored_head(lab.signing.database.reads, lab.log.log_id)
    assert head.epoch == 3
