"""Pruning: only behind an archive of exactly the range, only up to a signed cut, whatever is killed; readers and proofs go on."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from audit_service import evidence, prune, retention
from audit_service.core import control, terms
from audit_service.core.chain import entry_hash
from audit_service.core.checkpoint import Checkpoint, sign_checkpoint
from audit_service.core.merkle import Frontier
from audit_service.core.note import format_note
from audit_service.core.vkey import Signer, VerifierKey, format_vkey
from audit_service.errors import HeldError, InputError, NotSignedError
from audit_service.evidence import Wanted
from audit_service.indexer import index_all
from audit_service.offline import verify_file
from audit_service.store import pruning
from audit_service.store import retention as holds
from audit_service.store.engine import Database
from audit_service.store.tiles import TileCache
from audit_service.stored_tree import StoredTree
from tests.support.appends import TestLog, existing_log, owner
from tests.support.apps import open_api
from tests.support.forgetting import AUTHOR, retention_pools
from tests.support.forgotten import succession
from tests.support.postgres import TestDatabase, default_log_id
from tests.support.signing import SEED, TestSigner
from tests.support.tampering import report_of

SEGMENT = 64
SIZE = 600
SIGNED = (100, 300, 450)


@dataclass(frozen=True, slots=True)
class Prunable:
    """A log of 600 events, signed at some sizes and at its end, with its keys."""

    database: TestDatabase
    log: TestLog
    pools: Database
    keeping: Database
    keys: list[VerifierKey]
    folder: Path

    async def archive(self, from_seq: int, to_seq: int, name: str = "archive.zip") -> Path:
        """Evidence of a range, written as the command does."""
        origin = f"{self.log.log.service_name}/t/{self.log.log.log_key}"
        tree = StoredTree(self.pools.reads, self.log.log_id, origin, TileCache())
        plan = await evidence.plan_evidence(tree, Wanted(from_seq, to_seq))
        path = self.folder / name
        with path.open("wb") as file:
            async for piece in evidence.make_evidence(tree, plan):
                file.write(piece)
        return path

    async def prune(self, before: int, archive: Path) -> prune.Pruned:
        """Plan and prune."""
        planned = await prune.plan(self.keeping, self.log.log_id, before, self.keys)
        return await prune.prune(self.keeping, self.log.log_id, AUTHOR, planned, archive, self.keys)

    async def seqs(self) -> list[int]:
        """The entries that are there."""
        async with owner(self.database) as connection:
            rows = await connection.fetch("SELECT seq FROM audit.entry WHERE log_id = $1 ORDER BY seq", self.log.log_id)
        return [row["seq"] for row in rows]


def event(number: int) -> dict[str, Any]:
    """An event that says which entry it is to be."""
    return {"id": f"e{number}", "action": "x.y", "actor": {"id": f"u{number % 3}"}}


@pytest.fixture
async def prunable(
    database: TestDatabase, pools: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Prunable]:
    monkeypatch.setattr(terms, "SEGMENT_EVENTS", SEGMENT)
    monkeypatch.setattr(pruning, "_DELETED_AT_ONCE", 70)
    log = await existing_log(database, await default_log_id(database))
    async with owner(database) as connection, retention_pools(database) as keeping:
        await log.accept(pools, *map(event, range(100)))
        # Control entries below the cuts, which no drop takes: seqs 100 and 101.
        await holds.set_hold(keeping.writes, log.log_id, control.hold_range(AUTHOR.act(), "early", (0, 1)))
        await holds.lift_hold(keeping.writes, log.log_id, control.lift_hold(AUTHOR.act(), "early"))
        await log.accept(pools, *map(event, range(102, SIZE)))
        await index_all(pools)
        signer = TestSigner(connection, log.log_id)
        await signer.store_tiles()
        for size in SIGNED:
            await signer.sign(size)
        await signer.sign()
        keys = prune.parse_keys([await signer.vkey()])
        yield Prunable(database, log, pools, keeping, keys, tmp_path)


async def test_a_pruned_log_begins_at_its_cut(prunable: Prunable) -> None:
    async with owner(prunable.database) as connection:
        hashes = [row["hash"] for row in await connection.fetch("SELECT hash FROM audit.entry ORDER BY seq")]
    archive = await prunable.archive(0, 300)
    done = await prunable.prune(400, archive)
    assert (done.from_seq, done.cut, done.dropped.entries, done.deleted) == (0, 300, 298, 300)
    assert (await prunable.seqs())[0] == 300
    tree = Frontier()
    tree.extend(hashes[:300])
    async with open_api(prunable.database) as api:
        [entered] = await api.list(action="audit.prune")
        details = entered["details"]
        assert (details["cut"], details["count"], details["epoch"]) == (300, 300, 1)
        assert (details["root"], details["frontier"]) == (tree.root().hex(), tree.to_bytes().hex())
        assert details["prev_hash"] == hashes[299].hex()
        assert details["signers"] == [format_vkey(prunable.keys[0]).partition("+")[2]]
        assert (await api.client.get("/v1/events/e0")).status_code == 410
        assert (await api.client.get("/v1/events/e300")).status_code == 200
        page = (await api.client.get("/v1/events", params={"actor": "u1", "limit": 500, "count": "capped"})).json()
        assert page["count"] == 100
        facets = (await api.client.get("/v1/facets", params={"fields": "action,actor"})).json()
        assert facets["counted"] == 300 + 5 + 1  # five segments of drops, and the prune
        assert {value["value"]: value["count"] for value in facets["facets"]["action"]["values"]} == {
            "x.y": 300, "audit.drop": 5, "audit.prune": 1,
        }  # fmt: skip


async def test_the_next_prune_goes_on_at_the_cut(prunable: Prunable) -> None:
    await prunable.prune(300, await prunable.archive(0, 300))
    async with owner(prunable.database) as connection:
        # What was forgotten since the last checkpoint is in no evidence before the next.
        await _sign_on(prunable, connection)
    archive = await prunable.archive(300, 450, "second.zip")
    keys = [format_vkey(key) for key in prunable.keys]
    assert verify_file.verify(archive, keys).exit_code() == verify_file.EXIT_GOOD
    done = await prunable.prune(459, archive)
    assert (done.from_seq, done.cut, done.deleted) == (300, 450, 150)
    assert (await prunable.seqs())[0] == 450


async def test_behind_a_pruned_succession_the_first_key_still_leads_to_the_next(prunable: Prunable) -> None:
    """Rows below a cut go whole, `signer` entries too; the `prune` entry keeps what they said, and so does the next one. Else a lawful log
    were called bad by whoever pinned its first key."""
    async with owner(prunable.database) as connection:
        signer = TestSigner(connection, prunable.log.log_id)
        origin = await signer.origin()
        old, new = Signer.from_seed(origin, SEED), Signer.from_seed(origin, b"n" * 32)
        entry = succession(origin, "succeeded", old, new, SIZE)
        await connection.fetch(
            "SELECT audit.append_control($1, $2, $3::text::jsonb)", prunable.log.log_id, entry.kind, entry.argument()
        )
        await prunable.log.accept(prunable.pools, *map(event, range(SIZE + 1, 801)))
        await index_all(prunable.pools)
        await signer.store_tiles()
        await signer.sign(700)
        await signer.sign(750)
        await signer.sign()
        done = await prunable.prune(700, await prunable.archive(0, 700))
        assert done.cut == 700
        with pytest.raises(NotSignedError):  # no checkpoint covers what is left of the succession
            await prunable.archive(700, 800, "early.zip")
        head = await connection.fetchrow("SELECT size, frontier FROM audit.log WHERE log_id = $1", prunable.log.log_id)
        assert head is not None
        root = Frontier.from_bytes(head["size"], head["frontier"]).root()
        note = format_note(sign_checkpoint(Checkpoint(origin, head["size"], root), [new]))
        await connection.execute(
            "INSERT INTO audit.checkpoint (log_id, size, epoch, note) VALUES ($1, $2, 1, $3)",
            *(prunable.log.log_id, head["size"], note),
        )
    bundle = await prunable.archive(700, head["size"], "later.zip")
    assert verify_file.verify(bundle, [format_vkey(new.verifier())]).exit_code() == verify_file.EXIT_GOOD
    report = verify_file.verify(bundle, [format_vkey(old.verifier())])
    assert report.exit_code() == verify_file.EXIT_GOOD, report.as_json()["checks"]["checkpoint"]
    done = await prunable.prune(750, await prunable.archive(700, 750, "second.zip"))
    assert done.cut == 750
    recorded = await pruning.fetch_recorded(prunable.pools.reads, prunable.log.log_id)
    assert recorded.signers == []
    said: Any = recorded.prune
    assert [one["event"] for one in said["successions"]] == ["succeeded"]


async def _sign_on(prunable: Prunable, connection: Any) -> None:
    """Sign the whole log, of whose entries the first are gone."""
    head = await connection.fetchrow("SELECT size, frontier FROM audit.log WHERE log_id = $1", prunable.log.log_id)
    root = Frontier.from_bytes(head["size"], head["frontier"]).root()
    await TestSigner(connection, prunable.log.log_id).sign(head["size"], root=root)


@pytest.mark.parametrize("killed_after", ["recording", "some rows", "all rows"])
async def test_a_prune_that_was_killed_is_finished(
    prunable: Prunable, killed_after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = await prunable.archive(0, 300)

    class KilledError(Exception):
        """In place of a kill: nothing after this point is done."""

    async def die(*_: Any) -> Any:
        raise KilledError

    delete_some = pruning.delete_some
    left = {"recording": 0, "some rows": 2, "all rows": 1000}[killed_after]

    async def delete_few(*arguments: Any) -> int:
        nonlocal left
        if not left:
            raise KilledError
        left -= 1
        return await delete_some(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pruning, "delete_some", delete_few)
        if killed_after == "all rows":
            patch.setattr(pruning, "rebuild_segment", die)
        with pytest.raises(KilledError):
            await prunable.prune(300, archive)
    async with open_api(prunable.database) as api:
        assert (await api.client.get("/v1/events/e0")).status_code == 410
    await prune.finish(prunable.keeping, prunable.log.log_id)
    assert (await prunable.seqs())[0] == 300
    assert await pruning.list_stale_segments(prunable.keeping.reads, prunable.log.log_id) == []
    assert await prune.finish(prunable.keeping, prunable.log.log_id) == 0


async def test_what_is_under_hold_is_not_pruned(prunable: Prunable) -> None:
    archive = await prunable.archive(0, 300)
    await holds.set_hold(prunable.keeping.writes, prunable.log.log_id, control.hold_range(AUTHOR.act(), "h", (7, 8)))
    with pytest.raises(HeldError):
        await prunable.prune(300, archive)
    assert await prunable.seqs() == list(range(SIZE + 1))  # the hold's entry, and no `drop` entry
    await holds.lift_hold(prunable.keeping.writes, prunable.log.log_id, control.lift_hold(AUTHOR.act(), "h"))
    assert (await prunable.prune(300, archive)).deleted == 300


async def test_a_hold_on_headers_alone_keeps_the_rest_from_being_dropped(prunable: Prunable) -> None:
    """What is held has no content that a drop would take, and yet nothing can be pruned."""
    keeping, log_id = prunable.keeping, prunable.log.log_id
    archive = await prunable.archive(0, 300)
    first = await retention.clear(keeping, log_id, AUTHOR, to_seq=10)
    await holds.set_hold(keeping.writes, log_id, control.hold_range(AUTHOR.act(), "h", (5, 6)))
    with pytest.raises(HeldError):
        await prunable.prune(300, archive)
    async with owner(prunable.database) as connection:
        query = "SELECT count(*) FROM audit.entry WHERE kind = 'event' AND body IS NULL"
        assert await connection.fetchval(query) == first.entries == 10


async def test_dropped_headers_under_hold_stay(prunable: Prunable) -> None:
    """The hold came after the drop: there is no content to keep, and yet the headers are held."""
    archive = await prunable.archive(0, 300)
    await retention.clear(prunable.keeping, prunable.log.log_id, AUTHOR, to_seq=300)
    await holds.set_hold(prunable.keeping.writes, prunable.log.log_id, control.hold_range(AUTHOR.act(), "h", (7, 8)))
    with pytest.raises(HeldError):
        await prunable.prune(300, archive)
    assert (await prunable.seqs())[0] == 0


async def test_an_archive_that_is_not_the_range_is_refused(prunable: Prunable) -> None:
    for start, end in ((0, 299), (1, 300), (0, 450)):
        with pytest.raises(InputError, match=r"exactly \[0, 300\)"):
            await prunable.prune(300, await prunable.archive(start, end))
    assert await prunable.seqs() == list(range(SIZE))


async def test_an_archive_that_does_not_verify_is_refused(prunable: Prunable) -> None:
    archive = await prunable.archive(0, 300)
    planned = await prune.plan(prunable.keeping, prunable.log.log_id, 300, prunable.keys)
    changed = prunable.folder / "changed.zip"
    with ZipFile(archive) as old, ZipFile(changed, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            new.writestr(item.filename, data.replace(b"u1", b"u7") if item.filename == "entries.ndjson" else data)
    missing, text = prunable.folder / "missing.zip", prunable.folder / "text.zip"
    text.write_text("no archive")
    for bad in (changed, missing, text):
        with pytest.raises(InputError):
            await prune.prune(prunable.keeping, prunable.log.log_id, AUTHOR, planned, bad, prunable.keys)
    stranger = [VerifierKey(key.name, key.kind, bytes(32)) for key in prunable.keys]
    with pytest.raises(InputError):
        await prune.plan(prunable.keeping, prunable.log.log_id, 300, stranger)
    with pytest.raises(InputError):
        prune.check_archive(planned, archive, stranger)
    assert await prunable.seqs() == list(range(SIZE))


@pytest.mark.parametrize(
    ("before", "cut"), [(99, None), (100, 100), (299, 100), (300, 300), (449, 300), (450, 450), (10**6, 450)]
)
async def test_the_cut_is_the_greatest_signed_size_in_full_tiles(
    prunable: Prunable, before: int, cut: int | None
) -> None:
    """Not the whole log, though its end is signed: the last tile is not full."""
    if cut is None:
        with pytest.raises(InputError):
            await prune.plan(prunable.keeping, prunable.log.log_id, before, prunable.keys)
        return
    assert (await prune.plan(prunable.keeping, prunable.log.log_id, before, prunable.keys)).cut == cut


async def test_the_archive_s_lines_hash_to_what_was_there(prunable: Prunable) -> None:
    archive = await prunable.archive(0, 300)
    with ZipFile(archive) as bundle:
        headers = [json.loads(line)["header"] for line in bundle.read("entries.ndjson").splitlines()]
    async with owner(prunable.database) as connection:
        rows = await connection.fetch("SELECT hash FROM audit.entry WHERE seq < 300 ORDER BY seq")
    assert [entry_hash(header.encode()) for header in headers] == [row["hash"] for row in rows]


async def test_no_cut_is_at_a_checkpoint_that_a_resume_declared_lost(prunable: Prunable) -> None:
    """The greatest of them would be asked for, and no archive could ever be that range."""
    log_id = prunable.log.log_id
    async with owner(prunable.database) as connection:
        signer = TestSigner(connection, log_id)
        await signer.sign(400, root=b"l" * 32)  # what was there before the restore
        await connection.execute("ALTER TABLE audit.log DISABLE TRIGGER ALL")
        await connection.execute("UPDATE audit.log SET epoch = 2 WHERE log_id = $1", log_id)
        leaves = await signer.leaves()
        resumed = control.resume(
            AUTHOR.act(), checkpoint="the last good one\n", size=SIZE, root=bytes(32), lost=(300, 450)
        )
        entered = "SELECT audit.append_control($1, 'resume', $2::text::jsonb)"
        await connection.execute(entered, log_id, resumed.argument())
        assert len(await signer.leaves()) == len(leaves) + 1
    assert (await prune.plan(prunable.keeping, log_id, 10**6, prunable.keys)).cut == 300


async def test_a_checkpoint_from_before_the_cut_is_still_held_against_the_log(prunable: Prunable) -> None:
    """By the tiles, which outlive the entries; where these are damaged it cannot be told, and what was never so shows."""
    log_id = prunable.log.log_id
    async with owner(prunable.database) as connection:
        signer = TestSigner(connection, log_id)
        rows = await connection.fetch("SELECT note FROM audit.checkpoint WHERE log_id = $1 ORDER BY size", log_id)
        notes = [row["note"] for row in rows]
        never = await signer.sign(200, root=b"n" * 32)
        await signer.sign()  # the latest again
    await prunable.prune(300, await prunable.archive(0, 300))
    report = await report_of(prunable.pools, log_id, checkpoints=notes, trusted=prunable.keys)
    assert (report.status, report.from_seq) == ("ok", 300)
    assert [(one.checkpoint.size, one.status) for one in report.checkpoints] == [
        (size, "consistent") for size in (*SIGNED, SIZE)
    ]
    report = await report_of(prunable.pools, log_id, checkpoints=[never], trusted=prunable.keys)
    assert [(item.seq, item.kind) for item in report.breaks] == [(199, "root_mismatch")]
    async with owner(prunable.database) as connection:
        await connection.execute("ALTER TABLE audit.tile DISABLE TRIGGER ALL")
        await connection.execute(
            "UPDATE audit.tile SET hashes = set_byte(hashes, 0, get_byte(hashes, 0) # 1) WHERE log_id = $1 AND number = 0",
            log_id,
        )
    report = await report_of(prunable.pools, log_id, checkpoints=notes[:1], trusted=prunable.keys)
    assert (report.status, report.checkpoints[0].status, report.breaks) == ("incomplete", "none", [])


async def test_nothing_is_deleted_below_a_cut_that_no_entry_records(prunable: Prunable) -> None:
    """One column of the head row that somebody edited must not make the service destroy entries."""
    log_id = prunable.log.log_id
    await prunable.prune(100, await prunable.archive(0, 100))
    left = await prunable.seqs()
    async with owner(prunable.database) as connection:
        await connection.execute("ALTER TABLE audit.log DISABLE TRIGGER ALL")
        await connection.execute("UPDATE audit.log SET pruned_before = 200 WHERE log_id = $1", log_id)
    assert await prune.finish(prunable.keeping, log_id) == 0
    assert await prunable.seqs() == left
