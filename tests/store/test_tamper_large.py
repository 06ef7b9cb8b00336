"""Events of megabytes each: read once each, in order, a few at a time; and nothing hides between slices of one row."""

import hashlib
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest

from audit_service import export
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import ENTROPY_BYTES, prepare
from audit_service.core.sight import EVERYTHING
from audit_service.core.writer import Format
from audit_service.store.append import Candidate, append_entries
from audit_service.store.engine import Database, bound
from audit_service.store.find import list_entries
from audit_service.store.rows import BUDGET_BYTES
from audit_service.store.selection import Selection, Sort
from tests.support.appends import RULESET, TestLog, existing_log, owner
from tests.support.postgres import Server, default_log_id
from tests.support.tampering import report_of

EVENTS = 30
EVENT_BYTES = 3_000_000
# A slice is the budget and the row that went over it, held twice while the driver puts it together.
READ_BYTES = 5 * BUDGET_BYTES
# orjson reserves (and hardly touches) twelve bytes for each one it parses, for one row at a time; the rest is its text, view and piece.
PEAK_BYTES = READ_BYTES + 12 * BUDGET_BYTES + 7 * BUDGET_BYTES


@pytest.fixture(scope="module")
async def large(server: Server) -> AsyncIterator[tuple[TestLog, Database]]:
    """A log of 90 MB in 30 events, one of them over the budget by itself."""
    database = await server.create()
    log = await existing_log(database, await default_log_id(database))
    pools = database.open()
    for number in range(EVENTS):
        size = BUDGET_BYTES + 1 if number == EVENTS // 2 else EVENT_BYTES
        await append_entries(pools.writes, log.log_id, RULESET, [candidate(number, size)])
    yield log, pools
    await log.assert_intact(EVENTS)
    await pools.dispose()
    await server.drop(database)


def candidate(number: int, size: int) -> Candidate:
    """An event with `size` bytes of metadata that hardly compress."""
    event_id = f"large-{number}"
    event: dict[str, JSONValue] = {
        "id": event_id,
        "action": "file.saved",
        "verb": "UPDATE",
        "category": "file",
        "occurred_at": f"2026-01-01T00:00:{number:02}.000000Z",
        "metadata": {"text": hashlib.shake_256(bytes([number])).hexdigest(size // 2)},
    }
    entropy = hashlib.shake_256(b"entropy" + bytes([number])).digest(ENTROPY_BYTES)
    return Candidate(event_id, True, b"s" * 16, b"f" * 32, prepare(event, [], [], entropy))


async def peak_bytes(work: Callable[[], Coroutine[None, None, None]]) -> int:
    """The most that Python had allocated at once while `work` ran, over what there was before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("format_", ["csv", "json", "ndjson"])
async def test_an_export_of_large_events_holds_few_of_them(large: tuple[TestLog, Database], format_: Format) -> None:
    log, pools = large
    seqs: list[int] = []
    pieces = 0

    async def work() -> None:
        nonlocal pieces
        async for piece in export.export(pools.reads, log.log_id, Selection(sight=EVERYTHING), format_, {}):
            pieces += 1
            assert len(piece) < 2 * BUDGET_BYTES
            if format_ == "ndjson" and not piece.startswith(b'{"trailer"'):
                seqs.extend(json.loads(line)["seq"] for line in piece.splitlines())

    assert await peak_bytes(work) < PEAK_BYTES
    assert pieces >= EVENTS + (format_ != "ndjson")
    if format_ == "ndjson":
        assert seqs == list(range(EVENTS))


async def test_a_verification_of_large_events_holds_few_of_them(large: tuple[TestLog, Database]) -> None:
    log, pools = large

    async def work() -> None:
        report = await report_of(pools, log.log_id)
        assert (report.status, report.breaks, report.count) == ("ok", [], EVENTS)

    assert await peak_bytes(work) < PEAK_BYTES


@pytest.mark.parametrize("sort", ["-occurred_at", "occurred_at", "-seq", "seq"])
@pytest.mark.parametrize("limit", [1, 7, 500])
async def test_a_walk_through_pages_of_large_events_is_whole(
    large: tuple[TestLog, Database], sort: Sort, limit: int
) -> None:
    """However few fit on a page, every event is on one of them, once and in order."""
    log, pools = large
    seqs: list[int] = []

    async def work() -> None:
        after = None
        while True:
            async with bound(pools.reads, log.log_id, EVERYTHING) as connection:
                page = await list_entries(
                    connection, log.log_id, Selection(sight=EVERYTHING), sort=sort, after=after, limit=limit
                )
            assert 1 <= len(page.rows) <= limit
            seqs.extend(row.seq for row in page.rows)
            after = page.next
            if after is None:
                return

    assert await peak_bytes(work) < READ_BYTES
    assert seqs == (list(range(EVENTS)) if not sort.startswith("-") else list(range(EVENTS))[::-1])


@pytest.mark.parametrize("seq", [0, 7, EVENTS // 2, EVENTS - 1])
@pytest.mark.parametrize("copies", [1, 2])
async def test_a_duplicate_of_a_large_row_shows(large: tuple[TestLog, Database], seq: int, copies: int) -> None:
    """Where each slice holds a single row, the copy is not in the slice of the first: it must not hide behind the slice's end."""
    log, pools = large
    key = "CONSTRAINT entry_pkey PRIMARY KEY (log_id, seq)"
    copied = "CREATE TEMP TABLE copied AS SELECT * FROM audit.entry WHERE log_id = $1 AND seq = $2"
    async with owner(log.database) as admin:
        await admin.execute("ALTER TABLE audit.entry DROP CONSTRAINT entry_pkey")
        await admin.execute(copied, log.log_id, seq)
        for _ in range(copies):
            await admin.execute("INSERT INTO audit.entry SELECT * FROM copied")
        report = await report_of(pools, log.log_id)
        await admin.execute("ALTER TABLE audit.entry DISABLE TRIGGER ALL")
        await admin.execute(
            "DELETE FROM audit.entry AS e WHERE e.log_id = $1 AND e.seq = $2 AND e.ctid <>"
            " (SELECT min(o.ctid) FROM audit.entry AS o WHERE o.log_id = $1 AND o.seq = $2)",
            *(log.log_id, seq),
        )
        await admin.execute("ALTER TABLE audit.entry ENABLE ALWAYS TRIGGER entry_no_delete")
        await admin.execute(f"ALTER TABLE audit.entry ADD {key}")
    assert report.status == "broken"
    assert [(item.seq, item.kind) for item in report.breaks] == [(seq, "duplicate")] * copies
