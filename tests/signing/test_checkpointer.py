"""What is signed, what is refused, and that no crash and no second signer gives a size two roots."""

import asyncio
from hashlib import sha256
from pathlib import Path

import pytest

from audit_service.core.checkpoint import parse_checkpoint
from audit_service.core.note import parse_note
from audit_service.core.retrace import Retrace
from audit_service.core.tiles import BuiltTile
from audit_service.errors import UnavailableError
from audit_service.signing import tree
from audit_service.signing.lease import OtherKeyError, Signing
from audit_service.store.checkpoints import fetch_latest_checkpoint
from audit_service.store.engine import bound
from audit_service.store.signing import StoredHead, fetch_stored_head
from tests.support.appends import owner
from tests.support.apps import add_tenant
from tests.support.postgres import Server
from tests.support.signers import SignerLab, cut_tail, locked_out, signer_lab, signing_on, unguarded


async def test_a_log_is_signed_as_it_grows_and_the_signature_is_of_its_root(lab: SignerLab) -> None:
    life = lab.life()
    first = await lab.sign(life)
    assert (first.size, first.origin) == (0, f"audit.example.com/t/{lab.target.log_key}/1")
    for count in (1, 2, 300, 700):
        await lab.append(count)
        await lab.assert_signed(await lab.sign(life))
    assert [parse_checkpoint(parse_note(note).text).size for note in await lab.notes()] == [0, 1, 3, 303, 1003]
    assert list(lab.signing.folder.log(lab.target.log_key).history()) == await lab.notes()


async def test_what_did_not_grow_is_signed_again_at_the_heartbeat_only(lab: SignerLab) -> None:
    await lab.append(3)
    life = lab.life()
    await lab.sign(life)
    assert await life.round() is None
    life.heartbeat_seconds = 0.0
    again = await lab.sign(life)
    assert (again.size, len(await lab.notes()), len(set(await lab.notes()))) == (3, 2, 1)


async def test_a_clock_that_was_set_back_hides_no_checkpoint(lab: SignerLab) -> None:
    """The latest is the one signed last, also where one before it has a time that is still to come."""
    life = lab.life()
    await lab.append(1)
    await lab.sign(life)
    async with unguarded(lab.log.database) as admin:
        await admin.execute("UPDATE audit.checkpoint SET signed_at = signed_at + interval '1 hour'")
    for size in (2, 3):
        await lab.append(1)
        await lab.sign(life)
        async with bound(lab.pools.reads, lab.log.log_id) as connection:
            latest = await fetch_latest_checkpoint(connection, lab.log.log_id)
        assert latest is not None
        assert latest.size == size


async def test_full_tiles_are_stored_before_the_checkpoint_that_covers_them(lab: SignerLab) -> None:
    await lab.append(600)
    await lab.sign()
    hashes = await lab.hashes()
    async with owner(lab.log.database) as connection:
        rows = await connection.fetch("SELECT level, number, hashes FROM audit.tile ORDER BY level, number")
    assert [tuple(row) for row in rows] == [(0, 0, b"".join(hashes[:256])), (0, 1, b"".join(hashes[256:512]))]
    assert await tree.rebuild_tiles(lab.signing, lab.log.log_id) == (600, [])


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1003])
async def test_a_restarted_signer_goes_on_from_tiles_and_the_last_rows(lab: SignerLab, size: int) -> None:
    await lab.append(size)
    signed = await lab.sign()
    head = await _head(lab)
    restored = await tree.restored(lab.signing, lab.log.log_id, head, signed.size, signed.root)
    assert restored is not None, "a first pass would have to read the whole log again"
    await lab.append(2)
    await lab.assert_signed(await lab.sign(lab.life()))


async def test_without_its_tiles_a_restarted_signer_reads_the_log_from_its_beginning(lab: SignerLab) -> None:
    await lab.append(700)
    await lab.sign()
    async with unguarded(lab.log.database) as admin:
        await admin.execute("DELETE FROM audit.tile")
    await lab.append(2)
    await lab.assert_signed(await lab.sign(lab.life()))
    async with owner(lab.log.database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM audit.tile") == 2, "what it read, it stores again"
    assert await tree.rebuild_tiles(lab.signing, lab.log.log_id) == (702, [])


async def test_a_damaged_tile_is_named_and_no_reason_to_stop(lab: SignerLab) -> None:
    await lab.append(700)
    await lab.sign()
    async with unguarded(lab.log.database) as admin:
        await admin.execute("UPDATE audit.tile SET hashes = overlay(hashes placing '\\x00' from 5) WHERE number = 1")
    _, differing = await tree.rebuild_tiles(lab.signing, lab.log.log_id)
    assert [(tile.level, tile.number) for tile in differing] == [(0, 1)]
    await lab.append(2)
    await lab.assert_signed(await lab.sign(lab.life()))


async def test_every_tenant_has_checkpoints_of_its_own(lab: SignerLab) -> None:
    other_id = await add_tenant(lab.log.database, "other")
    async with owner(lab.log.database) as connection:
        log_key = await connection.fetchval("SELECT log_key FROM audit.log WHERE log_id = $1", other_id)
    await lab.append(3)
    await lab.sign()
    assert lab.signing.folder.log(log_key).read_state(lab.signing.keys()) is None


# -- refused -------------------------------------------------------------------------------------------------


TAMPERINGS = {
    "a body": "body = replace(body, 'a.b', 'a.c')",
    "a time": "recorded_at = recorded_at + interval '1 second'",
    "a kind": "kind = 'drop'",
    "an epoch": "epoch = 2",
    "a link": "prev_hash = sha256('x')",
    "a stored hash": "hash = sha256('x')",
}


@pytest.mark.parametrize("tampering", TAMPERINGS.values(), ids=TAMPERINGS)
async def test_a_row_tampered_with_before_it_is_signed_is_refused(lab: SignerLab, tampering: str) -> None:
    life = lab.life()
    await lab.append(5)
    await lab.sign(life)
    await lab.append(5)
    await _edit(lab, 7, tampering)
    assert "seq 7: " in await lab.refusal(life)
    assert "seq 7: " in await lab.refusal(lab.life())
    assert len(await lab.notes()) == 1


async def test_the_control_a_signer_that_does_not_read_again_signs_the_tampered_row(
    lab: SignerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trusting(
        _signing: Signing, _log_id: int, retrace: Retrace, to_size: int, _how: tree.Pass
    ) -> list[BuiltTile]:
        """Takes the stored hashes for what they say."""
        hashes = (await lab.hashes())[retrace.place.size : to_size]
        retrace._builder.add(hashes)
        retrace._place = retrace.place._replace(size=to_size, last_hash=hashes[-1])
        return []

    await lab.append(5)
    await _edit(lab, 3, TAMPERINGS["a body"])
    monkeypatch.setattr("audit_service.signing.checkpointer.grow", trusting)
    assert (await lab.sign()).size == 5


async def test_a_cut_tail_is_refused_although_the_log_looks_whole(lab: SignerLab) -> None:
    life = lab.life()
    await lab.append(10)
    signed = await lab.sign(life)
    await cut_tail(lab, 6)
    await lab.log.assert_intact(6)
    for one in (life, lab.life()):
        said = await lab.refusal(one)
        assert "shrunk to size 6" in said
        assert f"root {signed.root.hex()} at size 10" in said
    # And when it has grown past what was signed, too.
    await lab.append(20)
    said = await lab.refusal(lab.life())
    assert f"root {signed.root.hex()} at size 10" in said
    assert "the log has root" in said
    assert len(await lab.notes()) == 1


async def test_a_refused_log_is_not_read_again_at_once(lab: SignerLab) -> None:
    await lab.append(5)
    await _edit(lab, 3, TAMPERINGS["a body"])
    life = lab.life()
    await lab.refusal(life)
    assert await life.round() is None


async def test_a_log_that_is_mended_is_signed_again(lab: SignerLab) -> None:
    await lab.append(5)
    await _edit(lab, 3, "body = replace(body, 'a.b', 'a.c')")
    await lab.refusal()
    await _edit(lab, 3, "body = replace(body, 'a.c', 'a.b')")
    await lab.assert_signed(await lab.sign())


async def test_a_head_rewritten_at_the_same_size_is_refused(lab: SignerLab) -> None:
    life = lab.life()
    await lab.append(4)
    await lab.sign(life)
    async with unguarded(lab.log.database) as admin:
        await admin.execute("UPDATE audit.log SET frontier = sha256('x') WHERE log_id = $1", lab.log.log_id)
    root = sha256(b"x").hexdigest()
    assert f"the head row has {root}" in await lab.refusal(life)


async def test_an_epoch_that_nobody_here_began_is_refused(lab: SignerLab) -> None:
    await lab.append(4)
    await lab.sign()
    async with unguarded(lab.log.database) as admin:
        await admin.execute("UPDATE audit.log SET epoch = 2 WHERE log_id = $1", lab.log.log_id)
    assert "epoch 2 was begun without" in await lab.refusal()


async def test_a_database_restored_from_an_older_copy_is_refused(lab: SignerLab, server: Server) -> None:
    await lab.append(300)
    await lab.sign()
    for pools in (lab.pools, lab.signing.database):
        await pools.dispose()  # a database with somebody connected is not copied
    old = await server.create(lab.log.database.name)
    await lab.append(10)
    signed = await lab.sign()
    async with signer_lab(old, lab.signing.folder.path) as restored:
        assert "shrunk to size 300" in await restored.refusal()
        await restored.append(40)
        assert f"root {signed.root.hex()} at size 310" in await restored.refusal()
    await server.drop(old)


async def test_a_signer_that_lost_its_state_is_held_to_the_databases_last_checkpoint(lab: SignerLab) -> None:
    await lab.append(10)
    await lab.sign()
    state = lab.signing.folder.log(lab.target.log_key).state_path
    state.unlink()
    await lab.append(1)
    assert (await lab.sign()).size == 11
    state.unlink()
    await cut_tail(lab, 6)
    assert "shrunk to size 6" in await lab.refusal()


@pytest.mark.parametrize("state", ["lost", "of an older copy"])
async def test_a_signer_without_its_newest_state_is_held_to_its_own_history(lab: SignerLab, state: str) -> None:
    """Also where the database's last checkpoint is an older one. A line that a crash cut says nothing."""
    folder = lab.signing.folder.log(lab.target.log_key)
    await lab.append(10)
    await lab.sign()
    older = folder.state_path.read_text()
    await lab.append(10)
    await lab.sign()
    with folder.state_path.with_name("checkpoints.ndjson").open("ab") as file:
        file.write(b'{"signed_at": "2026-')
    folder.state_path.unlink()
    if state != "lost":
        folder.write_state(older)
    await cut_tail(lab, 12)
    async with unguarded(lab.log.database) as admin:
        await admin.execute("DELETE FROM audit.checkpoint WHERE log_id = $1 AND size > 12", lab.log.log_id)
    assert "shrunk to size 12" in await lab.refusal()
    await lab.append(8)
    assert "at size 20" in await lab.refusal()


async def test_a_signer_whose_state_is_an_older_copy_goes_on_from_its_history(lab: SignerLab) -> None:
    folder = lab.signing.folder.log(lab.target.log_key)
    await lab.append(10)
    await lab.sign()
    older = folder.state_path.read_text()
    await lab.append(10)
    await lab.sign()
    folder.write_state(older)
    await lab.append(1)
    assert (await lab.sign()).size == 21
    assert list(folder.history()) == await lab.notes()


async def test_a_damaged_state_is_refused(lab: SignerLab) -> None:
    await lab.append(3)
    await lab.sign()
    state = lab.signing.folder.log(lab.target.log_key).state_path
    state.write_text(state.read_text().replace("\n3\n", "\n2\n"))
    assert "restore it from a backup" in await lab.refusal()


# -- crashes and others --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrives", [False, True], ids=["the publication is lost", "the publication still arrives"])
async def test_a_crash_after_the_state_loses_no_note_and_makes_no_second_root(lab: SignerLab, *, arrives: bool) -> None:
    await lab.append(3)
    await lab.sign()
    await lab.append(3)
    folder = lab.signing.folder.log(lab.target.log_key)
    async with owner(lab.log.database) as admin, admin.transaction():
        await admin.execute("LOCK TABLE audit.checkpoint IN EXCLUSIVE MODE")
        crashing = asyncio.create_task(lab.life().round())
        waiting = await locked_out(admin)
        signed = folder.read_state(lab.signing.keys())
        if not arrives:
            await admin.execute("SELECT pg_terminate_backend($1, 5000)", waiting)
        crashing.cancel()
        await asyncio.gather(crashing, return_exceptions=True)
    assert signed is not None
    assert signed.checkpoint.size == 6
    assert (signed.note in await lab.notes()) == arrives
    assert signed.note not in folder.history()
    await lab.append(4)
    assert (await lab.sign(lab.life())).size == 10
    assert [parse_checkpoint(parse_note(note).text).size for note in await lab.notes()] == [3, 6, 10]
    assert list(folder.history()) == await lab.notes()


async def test_a_history_whose_last_line_was_cut_goes_on(lab: SignerLab) -> None:
    await lab.append(3)
    await lab.sign()
    history = lab.signing.folder.log(lab.target.log_key)
    path = history.state_path.with_name("checkpoints.ndjson")
    path.write_bytes(path.read_bytes()[:-40])
    await lab.append(3)
    await lab.sign(lab.life())
    assert list(history.history()) == await lab.notes()


async def test_nothing_is_published_or_stored_without_the_lease(lab: SignerLab) -> None:
    await lab.append(300)
    with pytest.raises(UnavailableError, match="lease"):
        await lab.life().round()
    assert await lab.notes() == []


async def test_two_signers_of_one_key_take_turns_and_agree(lab: SignerLab, tmp_path: Path) -> None:
    await lab.append(3)
    await lab.sign()
    (tmp_path / "second").mkdir(mode=0o700)
    (tmp_path / "second" / "key.json").write_text(lab.signing.key_path.read_text())
    (tmp_path / "second" / "key.json").chmod(0o600)
    async with signing_on(lab.log.database, tmp_path / "second") as second:
        assert not await second.take_lease()
        async with owner(lab.log.database) as admin:
            await admin.execute("UPDATE audit.signer SET leased_until = clock_timestamp()")
        assert await second.take_lease()
        await lab.append(3)
        with pytest.raises(UnavailableError, match="lease"):
            await lab.life().round()
        other = SignerLab(lab.log, lab.pools, second)
        await lab.append(1)
        await other.assert_signed(await other.sign())
    checkpoints = [parse_checkpoint(parse_note(note).text) for note in await lab.notes()]
    assert [checkpoint.size for checkpoint in checkpoints] == [3, 7]
    for checkpoint in checkpoints:
        await lab.assert_signed(checkpoint)


async def test_a_host_with_another_key_is_refused(lab: SignerLab, tmp_path: Path) -> None:
    await lab.sign()
    async with signing_on(lab.log.database, tmp_path / "stranger") as stranger:
        with pytest.raises(OtherKeyError):
            await stranger.take_lease()


async def _edit(lab: SignerLab, seq: int, assignment: str) -> None:
    async with unguarded(lab.log.database) as admin:
        done = await admin.execute(
            f"UPDATE audit.entry SET {assignment} WHERE log_id = $1 AND seq = $2", lab.log.log_id, seq
        )
        assert done == "UPDATE 1"


async def _head(lab: SignerLab) -> StoredHead:
    return await fetch_stored_head(lab.signing.database.reads, lab.log.log_id)
