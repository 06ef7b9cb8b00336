"""Proofs over HTTP against the naive tree, and what of them is refused: the wrong log, the wrong position, a damaged log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from sqlalchemy import event

from audit_service import proofs
from audit_service.core.merkle import check_consistency, check_inclusion
from audit_service.core.policy import policy_of_key
from audit_service.core.proof_file import open_proof_file, parse_proof_file
from audit_service.core.tiles import TILE_WIDTH
from audit_service.core.vkey import parse_vkey
from audit_service.offline import verify_file
from audit_service.store import tiles
from tests.support.api import Api
from tests.support.appends import owner
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.naive_merkle import NaiveTree
from tests.support.postgres import TestDatabase, default_log_id
from tests.support.signing import TestSigner, seed_headers

SMALL = 21
SIGNED = (13, 16)  # neither the log's size nor the only ones


class LeafTree(NaiveTree):
    """The naive tree over leaves that are given as their hashes."""

    def _hash(self, start: int, end: int) -> bytes:
        return self._data[start] if end - start == 1 else super()._hash(start, end)


@dataclass(frozen=True, slots=True)
class Proven:
    """A log with checkpoints, and the tree it should have."""

    api: Api
    signer: TestSigner
    admin: asyncpg.Connection
    database: TestDatabase
    leaves: list[bytes]
    naive: LeafTree

    async def get(self, path: str, status: int = 200, **parameters: Any) -> dict[str, Any]:
        """The JSON of a path below /v1/chain."""
        response = await self.api.client.get(f"/v1/chain/{path}", params=parameters)
        assert response.status_code == status, response.text
        body: dict[str, Any] = response.json()
        return body

    async def damage(self, statement: str, *args: object) -> None:
        """Change rows as a superuser with the guards off."""
        for table in ("entry", "checkpoint"):
            await self.admin.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER ALL")
        status = await self.admin.execute(statement, *args)
        assert not status.endswith(" 0"), "nothing was damaged"


async def _proven(database: TestDatabase, api: Api, admin: asyncpg.Connection) -> Proven:
    signer = TestSigner(admin, await default_log_id(database))
    leaves = await signer.leaves()
    return Proven(api, signer, admin, database, leaves, LeafTree(leaves))


@asynccontextmanager
async def _small(database: TestDatabase) -> AsyncIterator[Proven]:
    async with open_api(database) as api, owner(database) as admin:
        await api.accept(*({"id": f"e-{n}", "action": "x"} for n in range(SMALL)))
        proven = await _proven(database, api, admin)
        for size in SIGNED:
            await proven.signer.sign(size)
        yield proven


@pytest.fixture
async def small(database: TestDatabase) -> AsyncIterator[Proven]:
    """A log of SMALL events of which the sizes SIGNED are signed."""
    async with _small(database) as proven:
        yield proven


@pytest.fixture
async def large(database: TestDatabase) -> AsyncIterator[Proven]:
    """A log of three levels of tiles, full ones stored, signed."""
    async with open_api(database) as api, owner(database) as admin:
        await seed_headers(admin, await default_log_id(database), TILE_WIDTH**2 + 5 * TILE_WIDTH + 3)
        proven = await _proven(database, api, admin)
        assert await proven.signer.store_tiles() == 262
        await proven.signer.sign()
        yield proven


def unhex(proof: dict[str, Any]) -> list[bytes]:
    """The hashes of a proof."""
    return [bytes.fromhex(one) for one in proof["hashes"]]


async def test_every_inclusion_proof_is_that_of_the_naive_tree(small: Proven) -> None:
    for size in range(1, SMALL + 1):
        root = small.naive.root(0, size).hex()
        for seq in range(size):
            proof = await small.get("inclusion", seq=seq, size=size)
            assert unhex(proof) == small.naive.path(seq, 0, size), (seq, size)
            assert (proof["seq"], proof["size"], proof["leaf"]) == (seq, size, small.leaves[seq].hex())
            assert proof["root"] == root
            assert (proof["checkpoint"] is not None) == (size in SIGNED)


async def test_every_consistency_proof_is_that_of_the_naive_tree(small: Proven) -> None:
    for to_size in range(1, SMALL + 1):
        for from_size in range(1, to_size + 1):
            proof = await small.get("consistency", from_size=from_size, to_size=to_size)
            assert unhex(proof) == small.naive.proof(from_size, to_size), (from_size, to_size)
            assert proof["from_root"] == small.naive.root(0, from_size).hex()
            assert proof["to_root"] == small.naive.root(0, to_size).hex()
            assert (proof["checkpoint"] is not None) == (to_size in SIGNED)


async def test_the_latest_checkpoint_is_what_is_proven_against_when_no_size_is_given(small: Proven) -> None:
    note = await small.signer.sign(16)
    inclusion = await small.get("inclusion", seq=3)
    assert (inclusion["size"], inclusion["checkpoint"]) == (16, note)
    consistency = await small.get("consistency", from_size=5)
    assert (consistency["to_size"], consistency["checkpoint"]) == (16, note)


async def test_a_log_that_nobody_signed_is_proven_against_its_head(database: TestDatabase) -> None:
    async with open_api(database) as api:
        await api.accept({"action": "x"}, {"action": "x"})
        proof = (await api.client.get("/v1/chain/inclusion?seq=1")).json()
        assert (proof["size"], proof["checkpoint"]) == (2, None)
        leaf, root = bytes.fromhex(proof["leaf"]), bytes.fromhex(proof["root"])
        check_inclusion(leaf, 1, 2, [bytes.fromhex(one) for one in proof["hashes"]], root)


@pytest.mark.parametrize(
    ("query", "blamed"),
    [
        ("inclusion", "seq"),
        ("inclusion?seq=", "seq"),
        ("inclusion?seq=-1", "seq"),
        ("inclusion?seq=+1", "seq"),
        ("inclusion?seq=1.0", "seq"),
        ("inclusion?seq=١", "seq"),
        ("inclusion?seq=1&seq=1", "seq"),
        ("inclusion?seq=16", "seq"),
        ("inclusion?seq=9&size=9", "seq"),
        ("inclusion?seq=0&size=0", "seq"),
        ("inclusion?seq=1&size=2200", "size"),
        ("inclusion?seq=1&size=9223372036854775808", "size"),
        ("inclusion?seq=1&size=16&to_size=1", "to_size"),
        ("consistency", "from_size"),
        ("consistency?from_size=0", "from_size"),
        ("consistency?from_size=17", "from_size"),
        ("consistency?from_size=9&to_size=8", "from_size"),
        ("consistency?from_size=1&to_size=2200", "to_size"),
        ("consistency?from_size=1&to_size=x", "to_size"),
        ("consistency?from=1", "from"),
    ],
)
async def test_a_position_that_is_nowhere_is_refused_by_name(shared: Any, query: str, blamed: str) -> None:
    response = await shared.api.client.get(f"/v1/chain/{query}")
    assert response.status_code == 400, response.text
    assert blamed in {fault["parameter"] for fault in response.json()["errors"]}


@pytest.fixture(name="shared", scope="module")
async def _shared(module_database: TestDatabase) -> AsyncIterator[Proven]:
    """As `small`, for tests that only read."""
    async with _small(module_database) as proven:
        yield proven


@pytest.mark.parametrize("scopes", [["read"], ["export"], ["ingest"]])
async def test_proofs_of_the_chain_need_the_scope_verify(shared: Proven, scopes: list[str]) -> None:
    key = await add_key(shared.database, shared.signer.log_id, scopes)
    headers = {"Authorization": f"Bearer {key}"}
    for path in ("inclusion?seq=1", "consistency?from_size=1"):
        assert (await shared.api.client.get(f"/v1/chain/{path}", headers=headers)).status_code == 403
        assert (await shared.api.client.get(f"/v1/chain/{path}", headers={"Authorization": ""})).status_code == 401


async def test_proofs_in_a_large_log_hold(large: Proven) -> None:
    size = len(large.leaves)
    root = large.naive.root(0, size)
    for seq in (0, 1, 255, 256, 65_535, 65_536, 66_816, size - 1):
        proof = await large.get("inclusion", seq=seq)
        check_inclusion(large.leaves[seq], seq, size, unhex(proof), root)
        for smaller in (seq + 1, (seq + 1 + size) // 2):
            unsigned = await large.get("inclusion", seq=seq, size=smaller)
            assert unhex(unsigned) == large.naive.path(seq, 0, smaller)
    for from_size in (1, 255, 256, 257, 65_535, 65_536, 65_537, size):
        proof = await large.get("consistency", from_size=from_size)
        check_consistency(from_size, size, unhex(proof), large.naive.root(0, from_size), root)


async def test_a_log_without_tiles_is_proven_from_its_entries_as_long_as_they_are_few(
    large: Proven, monkeypatch: pytest.MonkeyPatch
) -> None:
    await large.damage("DELETE FROM audit.tile WHERE level > 0 OR number % 3 = 0")
    proof = await large.get("inclusion", seq=70)
    assert unhex(proof) == large.naive.path(70, 0, len(large.leaves))
    await large.damage("DELETE FROM audit.tile")
    large.api.service.tile_cache.forget(large.signer.log_id)
    await large.get("inclusion", seq=70)
    monkeypatch.setattr(tiles, "LEAVES_LIMIT", 60_000)
    large.api.service.tile_cache.forget(large.signer.log_id)
    response = await large.api.client.get("/v1/chain/inclusion?seq=70")
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) == tiles.RETRY_SECONDS
    assert "tiles" in response.json()["detail"]


async def test_a_worker_reads_the_tiles_below_the_border_once(large: Proven) -> None:
    await large.get("inclusion", seq=65_540)
    known = large.api.service.tile_cache.find_roots(large.signer.log_id, [(0, 256), (1, 0)])
    assert known[0, 256] == large.naive.root(65_536, 65_792)
    assert known[1, 0] == large.naive.root(0, 65_536)


def statements(large: Proven) -> list[Any]:
    """What is asked of the database by readers from now on: the driver's records, query and arguments."""
    asked: list[Any] = []

    def watch(connection: Any, *_: object) -> None:
        connection.driver_connection.add_query_logger(asked.append)

    event.listen(large.api.service.database.reads.sync_engine, "checkout", watch)
    return asked


async def test_a_proof_is_two_short_statements_in_one_transaction(large: Proven) -> None:
    """However large the log: what is new at its end is read once, then only the tile that the entry is in."""
    size = len(large.leaves)
    await large.get("inclusion", seq=0)
    asked = statements(large)
    for seq in (1_000, 40_000, 65_000):
        asked.clear()
        await large.get("inclusion", seq=seq)
        begin, _, tiles_read, commit = asked
        assert (begin.query.split()[0], commit.query) == ("BEGIN", "COMMIT")
        assert tiles_read.args[1:] == ([0], [seq // TILE_WIDTH])
        asked.clear()
        await large.get("inclusion", seq=seq)
        assert len(asked) == 3, "its tile is remembered"
    for from_size in (300, 50_000):
        asked.clear()
        await large.get("consistency", from_size=from_size)
        assert len(asked) <= 4
    asked.clear()
    await large.api.accept({"action": "x"})
    await large.signer.sign()
    asked.clear()
    await large.get("inclusion", seq=size)
    assert len(asked) == 5, "the entries at the end are read anew"
    (leaves,) = [one.args for one in asked if "string_agg" in one.query]
    assert leaves[2][0] - leaves[1][0] <= TILE_WIDTH


async def test_what_a_worker_remembers_of_trees_has_a_bound_and_a_tile_only_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiles, "_TILES_LIMIT", 3)
    cache = tiles.TileCache()
    cache.add_tiles(1, {(0, number): bytes(64) for number in range(3)})
    cache.add_tiles(1, {(0, 0): bytes(32)})
    assert cache.find_tile(1, (0, 0)) == bytes(64)
    cache.add_tiles(2, {(0, 0): bytes(32)})
    assert [len(cache.find_tile(1, (0, number))) for number in range(3)] == [64, 0, 64]
    cache.forget(1)
    assert (cache.find_tile(1, (0, 0)), cache.find_tile(2, (0, 0))) == (b"", bytes(32))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit.tile SET hashes = set_byte(hashes, 100, get_byte(hashes, 100) # 1) WHERE level = 0 AND number = 0",
        "UPDATE audit.tile SET hashes = set_byte(hashes, 100, get_byte(hashes, 100) # 1) WHERE level = 1",
        "UPDATE audit.entry SET recorded_at = recorded_at + interval '1 microsecond' WHERE seq = 7",
        "UPDATE audit.entry SET kind = NULL WHERE seq = 7",
        "UPDATE audit.entry SET recorded_at = 'infinity' WHERE seq = 7",
        "DELETE FROM audit.entry WHERE seq = 7",
        "UPDATE audit.checkpoint SET note = replace(note, 'a', 'b')",
        "UPDATE audit.checkpoint SET size = size - 1",
    ],
)
async def test_of_a_damaged_log_there_is_no_proof_but_a_problem_that_says_so(
    large: Proven, statement: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    await large.get("inclusion", seq=7)
    await large.admin.execute(
        "ALTER TABLE audit.entry ALTER COLUMN kind DROP NOT NULL, DROP CONSTRAINT IF EXISTS entry_times"
    )
    await large.damage(statement)
    large.api.service.tile_cache.forget(large.signer.log_id)
    problem = await large.get("inclusion", 500, seq=7)
    assert problem["type"].endswith(":tree-damaged")
    assert problem["title"] == "The stored log is damaged"
    # Printed, or logged where an earlier test has set logging up.
    assert "the stored log is damaged" in capsys.readouterr().out + caplog.text


async def test_a_log_that_is_not_what_was_signed_is_no_continuation_of_it(small: Proven) -> None:
    await small.damage(
        "UPDATE audit.checkpoint SET note = $1 WHERE size = 13", await small.signer.sign(13, root=bytes(32))
    )
    await small.get("consistency", 500, from_size=13, to_size=16)
    assert (await small.get("consistency", from_size=12, to_size=16))["to_size"] == 16


async def test_what_was_remembered_before_a_restore_does_no_harm(large: Proven) -> None:
    cache, log_id = large.api.service.tile_cache, large.signer.log_id
    cache.add_roots(log_id, {(0, 256): bytes(32), (1, 0): bytes(32)})
    proof = await large.get("inclusion", seq=7)
    assert unhex(proof) == large.naive.path(7, 0, len(large.leaves))
    for place in ((0, 0), (0, 261), (1, 1), (2, 0)):
        cache.forget(log_id)
        cache.add_tiles(log_id, {place: bytes(8192)})
        proof = await large.get("inclusion", seq=7)
        assert unhex(proof) == large.naive.path(7, 0, len(large.leaves)), place


async def test_another_tenant_gets_proofs_of_its_own_log_only(small: Proven) -> None:
    other = await add_tenant(small.database, "other")
    key = await add_key(small.database, other)
    async with open_api(small.database, key=key) as api:
        await api.accept({"id": "mine", "action": "x"})
        proof = (await api.client.get("/v1/chain/inclusion?seq=0")).json()
        assert proof["size"] == 1
        assert proof["leaf"] != small.leaves[0].hex()
        assert (await api.client.get("/v1/chain/inclusion?seq=3")).status_code == 400
        assert (await api.client.get("/v1/events/e-3/proof")).status_code == 404


async def test_proofs_hold_while_the_log_grows(small: Proven) -> None:
    async def grow() -> None:
        for _ in range(10):
            await small.api.accept({"action": "x"}, {"action": "x"})

    async def prove() -> list[dict[str, Any]]:
        found = []
        for _ in range(20):
            size = (await small.api.client.get("/v1/chain")).json()["size"]
            found.append(await small.get("inclusion", seq=size - 1, size=size))
        return found

    _, proofs = await asyncio.gather(grow(), prove())
    tree = LeafTree(await small.signer.leaves())
    for proof in proofs:
        assert unhex(proof) == tree.path(proof["seq"], 0, proof["size"])
        assert proof["root"] == tree.root(0, proof["size"]).hex()


# --- proof files ---


async def test_the_proof_of_an_event_is_a_file_that_anybody_with_the_key_can_check(
    small: Proven, tmp_path: Path
) -> None:
    await small.signer.sign()
    response = await small.api.client.get("/v1/events/e-5/proof")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="e-5.tlog-proof"'
    proof = parse_proof_file(response.content)
    assert proof.extra is not None
    policy = policy_of_key(parse_vkey(await small.signer.vkey()))
    opened = open_proof_file(proof, proof.extra, policy)
    assert (proof.index, opened.checkpoint.size) == (5, SMALL)
    path = tmp_path / "e-5.tlog-proof"
    path.write_bytes(response.content)
    report = verify_file.verify(path, [await small.signer.vkey()])
    assert report.exit_code() == verify_file.EXIT_GOOD, verify_file.format_report(report)
    receipt = (await small.api.event("e-5"))["proof"]
    assert proof.extra.split(b"\n")[5].decode() == receipt["prev_hash"]


async def test_an_event_that_is_not_covered_yet_is_waited_for_and_no_longer_than_asked(small: Proven) -> None:
    response = await small.api.client.get("/v1/events/e-20/proof")
    assert response.status_code == 409
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["type"].endswith(":not-signed")
    assert (await small.api.client.get("/v1/events/e-20/proof?wait=1")).status_code == 409
    assert (await small.api.client.get("/v1/events/e-20/proof?wait=11")).status_code == 400
    assert (await small.api.client.get("/v1/events/e-20/proof?wait=a")).status_code == 400


async def test_who_waits_gets_the_proof_as_soon_as_it_is_signed(small: Proven) -> None:
    waiting = asyncio.create_task(small.api.client.get("/v1/events/e-20/proof?wait=10"))
    engine: Any = small.api.service.database.reads
    async with asyncio.timeout(5):
        while not engine.pool.checkedin():  # noqa: ASYNC110 - it has looked once, and holds nothing
            await asyncio.sleep(0.01)
    await small.signer.sign()
    response = await waiting
    assert response.status_code == 200
    assert parse_proof_file(response.content).index == 20


@pytest.mark.parametrize(
    ("event_id", "filename"),
    [('a/b"c; d', "a_b_c__d"), ("é" * 200, "_" * 100), ("...", "event"), ("x/proof", "x_proof")],
)
async def test_ids_of_any_kind_have_a_proof(database: TestDatabase, event_id: str, filename: str) -> None:
    async with open_api(database) as api, owner(database) as admin:
        await api.accept({"id": event_id, "action": "x"})
        await TestSigner(admin, await default_log_id(database)).sign()
        response = await api.client.get(f"/v1/events/{quote(event_id, safe='')}/proof")
        assert response.status_code == 200, response.text
        assert response.headers["content-disposition"] == f'attachment; filename="{filename}.tlog-proof"'


async def test_an_event_whose_id_ends_in_proof_is_still_an_event(database: TestDatabase) -> None:
    async with open_api(database) as api:
        await api.accept({"id": "x/proof", "action": "x"})
        assert (await api.client.get("/v1/events/x%2Fproof")).json()["id"] == "x/proof"
        assert (await api.client.get("/v1/events/y%2Fproof")).status_code == 404
        assert (await api.client.get("/v1/events/x/proof")).status_code == 404


async def test_without_its_check_the_service_would_hand_out_a_wrong_proof(
    large: Proven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the damaged logs above: what is damaged there does end up in proofs."""
    await large.damage(
        "UPDATE audit.tile SET hashes = set_byte(hashes, 100, get_byte(hashes, 100) # 1) WHERE level = 0 AND number = 0"
    )
    for name in ("check_inclusion", "check_consistency"):
        monkeypatch.setattr(proofs, name, lambda *_: None)
    proof = await large.get("inclusion", seq=7)
    assert unhex(proof) != large.naive.path(7, 0, len(large.leaves))


# --- after a resume


@pytest.fixture
async def resumed(small: Proven) -> Proven:
    """The log after a restore that lost what was signed at 18 and at more than it has now, signed at 20 in the next epoch."""
    for size in (18, SMALL):
        await small.signer.sign(size, root=b"l" * 32)
    await small.admin.execute("ALTER TABLE audit.log DISABLE TRIGGER ALL")
    await small.admin.execute("UPDATE audit.log SET epoch = 2 WHERE log_id = $1", small.signer.log_id)
    await small.signer.sign(20)
    return small


@pytest.mark.parametrize(("size", "has_checkpoint"), [(16, True), (17, False), (18, False), (20, True), (SMALL, False)])
async def test_what_was_lost_stands_in_no_proof_s_way(resumed: Proven, size: int, *, has_checkpoint: bool) -> None:
    """Its checkpoints are of another tree; those of the earlier epoch that the log still leads to count as ever."""
    root = resumed.naive.root(0, size).hex()
    proof = await resumed.get("inclusion", seq=3, size=size)
    assert (proof["root"], proof["checkpoint"] is not None) == (root, has_checkpoint)
    assert unhex(proof) == resumed.naive.path(3, 0, size)
    proof = await resumed.get("consistency", from_size=size, to_size=SMALL)
    assert proof["from_root"] == root
    proof = await resumed.get("consistency", from_size=5, to_size=size)
    assert (proof["to_root"], proof["checkpoint"] is not None) == (root, has_checkpoint)


async def test_between_a_resume_and_the_next_checkpoint_proofs_are_to_be_asked_for_again(small: Proven) -> None:
    """What was signed last may be of entries that were lost: that is no damage, and is over with the first note of the new epoch."""
    await small.signer.sign(18, root=b"l" * 32)
    await small.get("inclusion", 500, seq=3)
    await small.admin.execute("ALTER TABLE audit.log DISABLE TRIGGER ALL")
    await small.admin.execute("UPDATE audit.log SET epoch = 2 WHERE log_id = $1", small.signer.log_id)
    for path, parameters in (("inclusion", {"seq": 3}), ("consistency", {"from_size": 5})):
        response = await small.api.client.get(f"/v1/chain/{path}", params=parameters)
        assert (response.status_code, response.json()["type"].rpartition(":")[2]) == (503, "unavailable")
        assert response.headers["retry-after"] == "5"
        assert "resumed" in response.json()["detail"]
    assert (await small.api.client.get("/v1/events/e-3/proof")).status_code == 503
    await small.signer.sign(20)
    assert (await small.get("inclusion", seq=3))["size"] == 20
