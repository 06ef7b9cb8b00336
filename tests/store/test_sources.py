"""Counting producers: whole or not at all, once, by whoever is first; nothing at an append; and what was seen stays seen."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.indexer import count_all
from audit_service.store import sources
from audit_service.store.engine import Database, bound
from audit_service.store.sources import Source, list_sources
from tests.support.appends import TestLog, claim_size, existing_log, lock_waiters, make_log, owner, serving, wait_until
from tests.support.apps import add_tenant
from tests.support.postgres import Server, TestDatabase, default_log_id

BIND = "SELECT set_config('audit.log_id', $1, false)"
COUNT = "SELECT audit.count_sources($1, $2)"
TABLES = ("source_progress", "source", "source_range")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever waits is counted, seven entries at a time."""
    monkeypatch.setattr(sources, "WAITING_ENTRIES", 1)
    monkeypatch.setattr(sources, "BATCH_ENTRIES", 7)


def event(number: int) -> dict[str, Any]:
    """Of two producers; the second leaves every other number out, and begins anew after ten."""
    seq = number if number % 2 else number * 2 % 20
    return {"action": "x", "source": {"id": f"p{number % 2}", "seq": seq}}


@pytest.fixture
async def log(database: TestDatabase, pools: Database) -> TestLog:
    """Forty entries, none counted."""
    found = await existing_log(database, await default_log_id(database))
    await found.accept(pools, *(event(number) for number in range(40)))
    return found


async def stored(database: TestDatabase) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the tables."""
    async with owner(database) as connection:
        return {
            table: sorted(tuple(row) for row in await connection.fetch(f"SELECT * FROM audit.{table}"))
            for table in TABLES
        }


async def listed(pools: Database, log_id: int) -> list[Source]:
    """All producers."""
    async with bound(pools.reads, log_id, one_snapshot=True) as connection:
        return list((await list_sources(connection, log_id, [], limit=500)).sources)


# --- counting ---


async def test_an_append_counts_nothing(log: TestLog) -> None:
    """It knows nothing of producers: no row, and no index of the table more than it had."""
    assert await stored(log.database) == {table: [] for table in TABLES}
    async with owner(log.database) as connection:
        found = await connection.fetch(
            "SELECT indexname FROM pg_indexes WHERE tablename = 'entry' AND indexdef LIKE '%source%'"
        )
        triggers = await connection.fetch(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = 'audit.entry'::regclass AND NOT tgisinternal AND tgtype & 4 = 4"
        )
    assert (found, triggers) == ([], [])


async def test_only_enough_entries_are_worth_a_transaction(
    log: TestLog, pools: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "WAITING_ENTRIES", 41)
    assert await count_all(pools) == 0
    await log.accept(pools, event(40))
    assert await count_all(pools) == 7  # what is left is not enough again
    assert await count_all(pools) == 0


async def test_counting_changes_no_answer(log: TestLog, pools: Database) -> None:
    before = await listed(pools, log.log_id)
    assert await count_all(pools) == 40
    assert before == await listed(pools, log.log_id)
    await log.assert_intact(40)


async def test_stored_ranges_are_the_fewest_and_their_totals_add_up(log: TestLog, pools: Database) -> None:
    await count_all(pools)
    async with owner(log.database) as connection:
        for row in await connection.fetch("SELECT * FROM audit.source"):
            for repeated, name in ((False, "seen"), (True, "repeated")):
                ranges = await connection.fetch(
                    "SELECT first_seq, last_seq FROM audit.source_range WHERE source_id = $1 AND repeated = $2 ORDER BY 1",
                    row["source_id"],
                    repeated,
                )
                assert row[f"{name}_ranges"] == len(ranges)
                assert row[f"{name}_numbers"] == sum(last - first + 1 for first, last in ranges)
                assert all(one[1] + 1 < other[0] for one, other in pairwise(ranges))


async def test_counters_side_by_side_count_every_entry_once(log: TestLog, pools: Database) -> None:
    """On pools of their own, over two logs, while more is appended."""
    other = await existing_log(log.database, await add_tenant(log.database, "other"))
    await other.accept(pools, *(event(number) for number in range(30)))
    rivals = [log.database.open() for _ in range(4)]
    await asyncio.gather(*(count_all(rival) for rival in rivals), log.accept(pools, *(event(n) for n in range(40, 60))))
    for rival in rivals:
        await rival.dispose()
    await count_all(pools)
    progress = {row[0]: row[1] for row in (await stored(log.database))["source_progress"]}
    assert progress == {log.log_id: 60, other.log_id: 30}
    assert sum(source.events for source in await listed(pools, log.log_id)) == 60
    assert sum(source.events for source in await listed(pools, other.log_id)) == 30


@pytest.mark.parametrize("binding", [None, "", "other"])
async def test_only_the_bound_log_is_counted(log: TestLog, binding: str | None) -> None:
    other = (await make_log(log.database)).log_id
    async with serving(log.database) as connection:
        if binding is not None:
            await connection.execute(BIND, str(other) if binding else "")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="only the bound log is counted"):
            await connection.fetchval(COUNT, log.log_id, 100)
        assert await connection.fetch("SELECT * FROM audit.source_changes($1, 0, 100, NULL)", log.log_id) == []
    assert await stored(log.database) == {table: [] for table in TABLES}


async def test_what_is_damaged_stops_no_counter(log: TestLog, pools: Database) -> None:
    """Numbers that no event can have, and a time beyond the calendar."""
    async with owner(log.database) as connection:
        await connection.execute("ALTER TABLE audit.entry DISABLE TRIGGER ALL")
        await connection.execute("UPDATE audit.entry SET source_seq = -9223372036854775808 WHERE seq = 3")
        await connection.execute(
            "UPDATE audit.entry SET source_seq = 9223372036854775807, recorded_at = '200000-01-01' WHERE seq = 5"
        )
    for _ in range(2):
        second = (await listed(pools, log.log_id))[1]
        assert (second.first_seq, second.last_seq) == (-(2**63), 2**63 - 1)
        assert second.holes.total == 19
        assert second.holes.listed[0] == (40, 2**63 - 1)
        await count_all(pools)


# --- a counter that dies half-way ---

_COUNTER = """
import asyncio, sys
from audit_service.indexer import count_all
from audit_service.store import sources
from audit_service.store.engine import open_database
sources.WAITING_ENTRIES = 1
asyncio.run(count_all(open_database(sys.argv[1])))
"""

_COUNTERS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE '%count_sources%' AND pid <> pg_backend_pid()
"""


async def test_a_counter_that_is_killed_half_way_leaves_nothing(log: TestLog, pools: Database) -> None:
    """It has stored the ranges of a producer and waits for the row of the last: kill -9, and later all is counted once."""
    await count_all(pools)
    await log.accept(pools, *(event(number) for number in range(40, 60)))
    before, answer = await stored(log.database), await listed(pools, log.log_id)
    async with owner(log.database) as holding, owner(log.database) as watching:
        async with holding.transaction():
            await holding.execute("SELECT FROM audit.source WHERE source_id = 'p1' FOR UPDATE")
            killed = await asyncio.create_subprocess_exec(sys.executable, "-c", _COUNTER, log.database.serving_url)

            async def waits() -> bool:
                return len(await lock_waiters(watching)) == 1

            await wait_until(waits, "the counter at the lock")
            killed.kill()
            await killed.wait()

        async def gone() -> bool:
            return not await watching.fetch(_COUNTERS)

        await wait_until(gone, "the end of the killed counter's session")
    assert await stored(log.database) == before
    assert await listed(pools, log.log_id) == answer
    assert await count_all(pools) == 20
    assert await listed(pools, log.log_id) == answer


# --- what was seen stays seen ---

FORGET = """
    UPDATE audit.entry SET body = NULL, id = NULL, action = NULL, source_id = NULL, source_seq = NULL
    WHERE log_id = $1 AND seq = ANY ($2)
"""


async def forget(log: TestLog, seqs: list[int]) -> None:
    """As retention does: its role takes bodies and projections."""
    async with owner(log.database) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE audit_eraser")
        assert await connection.execute(FORGET, log.log_id, seqs) == f"UPDATE {len(seqs)}"


@pytest.mark.parametrize("counted", [0, 1, 6])
async def test_what_retention_takes_becomes_no_hole(log: TestLog, pools: Database, counted: int) -> None:
    """Whether it was counted, or only part of it, or nothing at all."""
    for _ in range(counted):
        await sources.count_waiting(pools.reads, pools.writes, log.log_id)
    before = await listed(pools, log.log_id)
    await forget(log, [*range(3, 12), 25, 39])
    assert await listed(pools, log.log_id) == before
    await log.accept(pools, event(40), event(41))
    await count_all(pools)
    even, odd = await listed(pools, log.log_id)
    assert (even.events, odd.events, odd.last_seq) == (21, 21, 41)
    assert odd.holes.listed == [(40, 41), *before[1].holes.listed]


async def test_control_without_the_trigger_what_retention_takes_is_lost(log: TestLog, pools: Database) -> None:
    before = await listed(pools, log.log_id)
    async with owner(log.database) as connection:
        await connection.execute("ALTER TABLE audit.entry DISABLE TRIGGER entry_keep_sources_of_update")
    await forget(log, [5])
    after = await listed(pools, log.log_id)
    assert after[1].events == before[1].events - 1
    assert after[1].holes.numbers == before[1].holes.numbers + 1


DROP = "SELECT * FROM audit.drop_entries($1, $2::text::jsonb, 0, 0, NULL, NULL, NULL, 0, '{}', '{}', '{}', '{}', '{}')"
PRUNE = "SELECT * FROM audit.prune_log($1, $2::text::jsonb)"


def control(kind: str, **details: Any) -> str:
    """A control entry as the functions take it."""
    action, source = f"audit.{kind}", "audit-service"
    body = {"v": 1, "id": kind, "action": action, "source": {"id": source}, "details": details}
    return json.dumps({"body": json.dumps(body), "id": kind, "action": action, "source_id": source})


@pytest.mark.parametrize("counted", [False, True])
async def test_entries_that_go_altogether_stay_counted(log: TestLog, pools: Database, *, counted: bool) -> None:
    """Dropped and pruned by the functions that retention has. Control entries are no producer's."""
    if counted:
        await count_all(pools)
    before = await listed(pools, log.log_id)
    async with owner(log.database) as connection:
        await connection.execute(
            "INSERT INTO audit.checkpoint (log_id, size, epoch, note) VALUES ($1, 17, 1, 'n')", log.log_id
        )
        await connection.execute("SET ROLE audit_retention")
        await connection.fetch(DROP, log.log_id, control("drop", ranges=[[0, 17]], count=17))
        assert await listed(pools, log.log_id) == before
        await connection.fetch(PRUNE, log.log_id, control("prune", cut=17, checkpoint="n"))
        assert await connection.fetchval("SELECT audit.delete_pruned($1, 100)", log.log_id) == 17
    assert await listed(pools, log.log_id) == before
    await count_all(pools)
    assert await listed(pools, log.log_id) == before


async def test_forgetting_leaves_the_session_s_binding_as_it_was(log: TestLog) -> None:
    async with owner(log.database) as connection, connection.transaction():
        await connection.execute("SET LOCAL audit.log_id = '77'")
        await connection.execute("SET LOCAL ROLE audit_eraser")
        await connection.execute(FORGET, log.log_id, [5])
        assert await connection.fetchval("SELECT current_setting('audit.log_id')") == "77"


async def test_an_erasure_that_leaves_the_number_counts_nothing(log: TestLog) -> None:
    """Only who loses a number pays for it."""
    async with owner(log.database) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE audit_eraser")
        await connection.execute("UPDATE audit.entry SET d_actor = NULL WHERE log_id = $1", log.log_id)
    assert await stored(log.database) == {table: [] for table in TABLES}


# --- what it costs ---

ENTRIES, TAIL = 60_000, 1500
# Rows made by the database in seconds; nobody verifies them. A dense producer, one that uses every other number only, and one in disorder.
_FILL = """
    INSERT INTO audit.entry (log_id, seq, recorded_at, occurred_at, epoch, kind, prev_hash, body_hash, hash, body, id, action,
        source_id, source_seq)
    SELECT $1, n, t, t, 1, 'event', h, h, h, '{}', 'e' || n, 'x', (ARRAY['dense', 'sparse', 'disorder'])[n % 3 + 1],
        CASE n % 3 WHEN 0 THEN n / 3 WHEN 1 THEN 2 * (n / 3) ELSE n / 3 * 7919 % 20011 END
    FROM generate_series(0, $2::bigint - 1) AS n,
        LATERAL (SELECT '2026-01-01'::timestamptz + n * interval '7 seconds' AS t, sha256(int8send(n)) AS h) AS x
"""


@pytest.fixture(scope="module")
async def filled(server: Server) -> AsyncIterator[tuple[TestDatabase, int]]:
    """60,000 entries, all but 1,500 of them counted, with the statistics there are."""
    database = await server.create()
    log_id = await default_log_id(database)
    async with owner(database) as connection:
        await connection.execute(_FILL, log_id, ENTRIES)
        await claim_size(connection, log_id, ENTRIES)
        await connection.execute(BIND, str(log_id))
        assert await connection.fetchval(COUNT, log_id, ENTRIES - TAIL) == ENTRIES - TAIL
        await connection.execute(
            "VACUUM (ANALYZE) audit.entry, audit.source, audit.source_range, audit.source_progress, audit.log"
        )
    yield database, log_id
    await server.drop(database)


# The table of producers is left out: there are three.
_READ = text("""
    SELECT sum(pg_stat_get_xact_tuples_returned(c.oid)), sum(pg_stat_get_xact_numscans(c.oid)) FILTER (WHERE c.relkind = 'r')
    FROM pg_class AS c LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
    WHERE COALESCE(i.indrelid, c.oid) IN (to_regclass('audit.entry'), to_regclass('audit.source_range'))
""")
# The tail, once; of each run of numbers in it two probes of each kind; and what is listed of three producers.
_READ_LIMIT = TAIL + 4 * TAIL + 3 * 4 * (sources.RANGES_LIMIT + 2)


async def read(connection: AsyncConnection) -> tuple[int, int]:
    """Rows of the tables that this transaction has looked at so far, in an index or not; and how often it read a table through."""
    rows, scans = (await connection.execute(_READ)).one()
    return int(rows), int(scans)


@pytest.mark.parametrize("ids", [[], ["dense"], ["sparse", "never"]])
@pytest.mark.parametrize("below", [None, 9000])
async def test_sources_are_listed_by_reading_little(
    filled: tuple[TestDatabase, int], ids: list[str], below: int | None
) -> None:
    """Nothing is read through, also once PostgreSQL has planned the statement often."""
    database, log_id = filled
    pools = database.open()
    async with bound(pools.reads, log_id, one_snapshot=True) as connection:
        for _ in range(7):
            before, _ = await read(connection)
            page = await list_sources(connection, log_id, ids, below=below, limit=50)
            rows, scans = await read(connection)
            assert (rows - before <= _READ_LIMIT, scans) == (True, 0), rows - before
    await pools.dispose()
    found = {source.id: source for source in page.sources}
    assert found.keys() == ({"dense", "sparse", "disorder"} if not ids else {*ids} - {"never"})
    assert all(source.events == ENTRIES // 3 for source in page.sources)
    if "sparse" in found:
        assert found["sparse"].holes.total == found["sparse"].holes.numbers == ENTRIES // 3 - 1
        assert len(found["sparse"].holes.listed) == sources.RANGES_LIMIT
        assert found["sparse"].holes.more


async def test_control_a_naive_query_reads_everything(filled: tuple[TestDatabase, int]) -> None:
    database, log_id = filled
    pools = database.open()
    async with bound(pools.reads, log_id, one_snapshot=True) as connection:
        naive = "SELECT source_id, count(*), min(source_seq), max(source_seq) FROM audit.bound_entry WHERE log_id = :log GROUP BY 1"
        assert len((await connection.execute(text(naive), {"log": log_id})).all()) == 3
        rows, _ = await read(connection)
    await pools.dispose()
    assert rows >= ENTRIES > _READ_LIMIT
