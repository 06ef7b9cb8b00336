"""No false alarm: whatever was sent, however it was batched, and whoever appends meanwhile, a clean log verifies."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_service import verification as verifying
from audit_service.core.checker import Checker
from audit_service.core.tiles import TILE_WIDTH
from audit_service.ingest import Receipt
from audit_service.store import batches
from audit_service.store.batches import BatchReader
from audit_service.store.engine import Database
from audit_service.store.query import fetch_head
from audit_service.verify import TILES, Report, verify
from tests.support.appends import TestLog, existing_log, make_log, owner
from tests.support.intact import naive_root
from tests.support.postgres import TestDatabase
from tests.support.tampering import CONTENTS, in_batches_only, no_batch, report_of

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12)
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
ROW = st.dictionaries(TEXT, VALUE, max_size=4)
PERSON = st.fixed_dictionaries(
    {}, optional={"type": NAME, "id": NAME | st.integers(0, 10**9), "name": TEXT, "email": TEXT}
)
ADDRESS = st.ip_addresses().map(str) | st.ip_addresses(v=4).map(lambda ip: f"::ffff:{ip}") | st.just("fe80::1%eth0")
EVENT = st.fixed_dictionaries(
    {"action": st.sampled_from(["user.updated", "server:power.start", "UPDATE", "users"])},
    optional={
        "occurred_at": st.sampled_from(["2026-11-22T10:15:00.123456789+01:00", "2000-01-01T00:00:00Z"]),
        "actor": PERSON,
        "on_behalf_of": PERSON,
        "target": st.fixed_dictionaries({}, optional={"type": NAME, "id": NAME, "name": TEXT}),
        "related": st.lists(st.fixed_dictionaries({"type": NAME, "id": NAME}), max_size=3),
        "server_id": NAME,
        "outcome": st.sampled_from(["success", "failure", "unknown"]),
        "description": TEXT,
        "reason": TEXT,
        "context": st.fixed_dictionaries({}, optional={"ip": ADDRESS, "session_id": NAME, "user_agent": TEXT}),
        "before": ROW,
        "after": ROW,
        "partial": st.sampled_from(["none", "after", "before", "both"]),
        "metadata": ROW,
        "source": st.fixed_dictionaries({"id": NAME}, optional={"seq": st.integers(0, 2**63 - 1)}),
    },
)


@settings(max_examples=60)
@given(batches=st.lists(st.lists(EVENT, min_size=1, max_size=6), min_size=1, max_size=3))
async def test_whatever_is_sent_verifies(
    database: TestDatabase, pools: Database, batches: list[list[dict[str, Any]]]
) -> None:
    """Any accepted events: the verifier finds nothing, and neither does the independent re-derivation."""
    log = await make_log(database)
    kept = 0
    for batch in batches:
        outcomes = await log.send(pools, *batch)
        kept += sum(isinstance(outcome, Receipt) and outcome.kept for outcome in outcomes)
    with in_batches_only():
        report = await report_of(pools, log.log_id)
    assert (report.status, report.breaks, report.count) == ("ok", [], kept)
    assert len(report.not_checked) == 1
    await log.assert_intact(kept)


@pytest.fixture
async def log(database: TestDatabase, log_id: int) -> TestLog:
    """The log of the tenant `default`."""
    return await existing_log(database, log_id)


def events(name: str, count: int) -> list[dict[str, str]]:
    """Events with ids of their own."""
    return [{"id": f"{name}/{number}", "action": "user.login"} for number in range(count)]


async def test_an_empty_log_verifies(log: TestLog, pools: Database) -> None:
    """Nothing there, nothing wrong; the root is that of the empty tree."""
    report = await report_of(pools, log.log_id)
    assert (report.status, report.count) == ("ok", 0)
    assert report.root == naive_root([]).hex()


@pytest.mark.parametrize("slice_entries", [1, 4, 10, 11])
async def test_head_and_root_are_reported(
    log: TestLog, pools: Database, monkeypatch: pytest.MonkeyPatch, slice_entries: int
) -> None:
    """Those of the whole log, whatever the slices."""
    monkeypatch.setattr(verifying, "SLICE_ENTRIES", slice_entries)
    receipts = await log.accept(pools, *events("e", 10))
    report = await report_of(pools, log.log_id)
    hashes = [receipt.hash or b"" for receipt in receipts]
    assert (report.status, report.count, report.origin) == ("ok", 10, receipts[0].origin)
    assert (report.head, report.root) == (hashes[-1].hex(), naive_root(hashes).hex())


async def test_batches_shrink_until_they_fit(log: TestLog, pools: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large for a batch is checked row by row, and what comes after it in batches again."""
    monkeypatch.setattr(batches, "BUDGET_BYTES", 10_000)
    await log.accept(pools, *events("small", 20))
    await log.accept(pools, {"action": "note.added", "metadata": {"text": "x" * 20_000}})
    await log.accept(pools, *events("more", 20))
    rows: list[int] = []
    check = Checker.check

    def noted(self: Checker, row: Any) -> None:
        rows.append(row.seq)
        check(self, row)

    monkeypatch.setattr(verifying, "SLICE_ENTRIES", 10)
    monkeypatch.setattr(Checker, "check", noted)
    report = await report_of(pools, log.log_id)
    assert (report.status, report.count) == ("ok", 41)
    assert 20 in rows
    assert not {*range(10), 40} & {*rows}


@pytest.mark.parametrize("in_batches", [True, False])
async def test_the_depth_chain_leaves_out_contents_and_says_so(
    log: TestLog, pools: Database, monkeypatch: pytest.MonkeyPatch, *, in_batches: bool
) -> None:
    """Headers, bodies and links, head and root; what is left out is named."""
    if not in_batches:
        monkeypatch.setattr(BatchReader, "fetch", no_batch)
    receipts = await log.accept(pools, *events("e", 10))
    report = await report_of(pools, log.log_id, depth="chain")
    assert (report.status, report.depth, report.count) == ("ok", "chain", 10)
    assert report.root == naive_root([receipt.hash or b"" for receipt in receipts]).hex()
    assert report.not_checked[0] == CONTENTS


async def test_a_verification_that_is_given_up_leaves_no_transaction(
    log: TestLog, pools: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader went away while the next slice was being read."""
    monkeypatch.setattr(verifying, "SLICE_ENTRIES", 3)
    await log.accept(pools, *events("e", 10))
    steps = verify(pools.reads, log.log_id)
    await anext(steps)
    await steps.aclose()
    assert pools.reads.pool.status().endswith("Current Checked out connections: 0")


async def test_appends_between_slices_are_no_alarm(
    log: TestLog, pools: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size is fixed at the start; what comes later is neither checked nor missed."""
    monkeypatch.setattr(verifying, "SLICE_ENTRIES", 3)
    await log.accept(pools, *events("before", 10))
    slices = 0
    async for step in verify(pools.reads, log.log_id):
        if isinstance(step, Report):
            report = step
        else:
            slices += 1
            await log.accept(pools, *events(f"during/{slices}", 2))
    assert slices == 4
    assert (report.status, report.breaks, report.count) == ("ok", [], 10)
    await log.assert_intact(18)


async def test_an_append_between_the_last_two_reads_is_no_alarm(
    log: TestLog, pools: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end the table's last seq is compared with the head, in two statements: an append fits in between."""
    await log.accept(pools, *events("before", 3))
    heads = 0

    async def append_around(*arguments: Any) -> Any:
        nonlocal heads
        heads += 1
        await log.accept(pools, *events(f"ahead/{heads}", 1))
        found = await fetch_head(*arguments)
        await log.accept(pools, *events(f"behind/{heads}", 1))
        return found

    monkeypatch.setattr(verifying, "fetch_head", append_around)
    report = await report_of(pools, log.log_id)
    assert heads == 2
    assert (report.status, report.breaks, report.count) == ("ok", [], 4)


async def test_verifying_under_load_is_no_alarm(log: TestLog, pools: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers that never pause, and one verification after the other."""
    monkeypatch.setattr(verifying, "SLICE_ENTRIES", 100)
    done = asyncio.Event()

    async def write(name: str) -> int:
        written = 0
        while not done.is_set():
            written += len(await log.accept(pools, *events(f"{name}/{written}", 5)))
        return written

    writers = [asyncio.create_task(write(str(number))) for number in range(2)]
    counts: list[int] = []
    while len(counts) < 8:
        report = await report_of(pools, log.log_id)
        assert (report.status, report.breaks) == ("ok", [])
        counts.append(report.count)
    done.set()
    written = sum(await asyncio.gather(*writers))
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
    await log.assert_intact(written)


async def test_verifying_holds_no_snapshot(log: TestLog, pools: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between slices no transaction is open, so however slow the reader of the report is, nobody pays for it."""
    monkeypatch.setattr(verifying, "SLICE_ENTRIES", 3)
    await log.accept(pools, *events("e", 10))
    async with owner(log.database) as connection:
        async for _ in verify(pools.reads, log.log_id):
            open_transactions = await connection.fetchval("""
                SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()
                  AND backend_type = 'client backend' AND xact_start IS NOT NULL
            """)
            assert open_transactions == 0
    await log.assert_intact(10)


async def test_that_tiles_are_not_compared_is_said_as_soon_as_there_can_be_any(
    database: TestDatabase, pools: Database
) -> None:
    log = await make_log(database)
    for count, size in ((TILE_WIDTH - 1, TILE_WIDTH - 1), (1, TILE_WIDTH)):
        await log.accept(pools, *({"action": "a.b"} for _ in range(count)))
        report = await report_of(pools, log.log_id)
        assert (report.status, report.count) == ("ok", size)
        assert (TILES in report.not_checked) is (size == TILE_WIDTH)
