"""Real processes append to one log at once: no fork, no gap. The control, with the lock taken out of the function, goes red."""

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import asyncpg
import pytest

from audit_service.store.append import Candidate, append_entries
from audit_service.store.engine import Database, open_database
from tests.support.appends import RULESET, candidate, function_text, owner
from tests.support.intact import assert_log_intact
from tests.support.postgres import TestDatabase

PROCESSES = 8
CALLS = 1000
TASKS = 2
BATCH_EVENTS = 6
BATCH_EVERY_CALLS = 10
CONTROL_ROUNDS = 10

# The function without its lock, in a database without what would refuse the forks it makes.
BROKEN = """
    ALTER TABLE audit.entry DROP CONSTRAINT entry_pkey;
    DROP TRIGGER log_forward_only ON audit.log;
    ALTER TABLE audit.log DROP CONSTRAINT log_frontier;
    DROP FUNCTION audit.append_entries;
"""
UNLOCKED = function_text([("WHERE l.log_id = p_log_id FOR UPDATE;", "WHERE l.log_id = p_log_id;")])


def append_in_process(url: str, log_id: int, name: str, calls: int) -> list[int]:
    """One process: make its calls and return the seqs that were acknowledged."""
    return asyncio.run(_append(url, log_id, name, calls))


async def _append(url: str, log_id: int, name: str, calls: int) -> list[int]:
    pools = open_database(url, pool_connections=TASKS)
    try:
        shares = await asyncio.gather(
            *(_append_share(pools, log_id, f"{name}/{task}", calls // TASKS) for task in range(TASKS))
        )
    finally:
        await pools.dispose()
    return [seq for share in shares for seq in share]


async def _append_share(pools: Database, log_id: int, name: str, calls: int) -> list[int]:
    """Single events, and now and then a small batch."""
    acknowledged: list[int] = []
    for call in range(calls):
        events = BATCH_EVENTS if call % BATCH_EVERY_CALLS == 0 else 1
        candidates = [_candidate(f"{name}/{call}/{number}") for number in range(events)]
        appended = await append_entries(pools.writes, log_id, RULESET, candidates)
        acknowledged += [one.seq for one in appended if one.seq is not None]
    return acknowledged


def _candidate(event_id: str) -> Candidate:
    return candidate(event_id, '{"id":"%s","v":1}' % event_id)  # noqa: UP031 - braces belong to the JSON


async def race(database: TestDatabase, log_id: int, processes: int, calls: int, name: str = "") -> list[list[int]]:
    """All processes at once; the acknowledged seqs of each."""
    context = multiprocessing.get_context("spawn")
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        return await asyncio.gather(
            *(
                loop.run_in_executor(pool, append_in_process, database.serving_url, log_id, f"{name}/{number}", calls)
                for number in range(processes)
            )
        )


async def count_forked(connection: asyncpg.Connection, log_id: int) -> int:
    """How many rows share their predecessor with an earlier one."""
    found = await connection.fetchval(
        "SELECT count(*) - count(DISTINCT prev_hash) FROM audit.entry WHERE log_id = $1", log_id
    )
    return int(found)


def turns(shares: Sequence[Sequence[int]]) -> int:
    """How often, in seq order, the log passes from one process to another."""
    owners = {seq: number for number, share in enumerate(shares) for seq in share}
    return sum(owners[seq] != owners[seq + 1] for seq in range(len(owners) - 1))


async def test_eight_processes_make_one_chain(database: TestDatabase, log_id: int) -> None:
    """8 processes × 1,000 appends: every acknowledged seq once, 0 forks, 0 gaps, every byte as it must be."""
    events = PROCESSES * CALLS // BATCH_EVERY_CALLS * (BATCH_EVERY_CALLS - 1 + BATCH_EVENTS)
    shares = await race(database, log_id, PROCESSES, CALLS)
    assert sorted(seq for share in shares for seq in share) == list(range(events))
    async with owner(database) as connection:
        assert await count_forked(connection, log_id) == 0
        await assert_log_intact(connection, log_id, events)
    # Few turns would mean that one process ran after the other, and nothing was raced.
    assert turns(shares) > 10 * PROCESSES


async def test_without_the_lock_the_harness_finds_forks(database: TestDatabase, log_id: int) -> None:
    """The control: the same race through the function without FOR UPDATE must leave a log that is not intact."""
    async with owner(database) as connection:
        await connection.execute(BROKEN + UNLOCKED)
        await connection.execute("GRANT EXECUTE ON FUNCTION audit.append_entries TO audit_serving")
        for number in range(CONTROL_ROUNDS):
            await race(database, log_id, 2, 100, name=str(number))
            if await count_forked(connection, log_id):
                break
        else:
            pytest.fail("no fork without the lock: the race above proves nothing")
        size = await connection.fetchval("SELECT count(*) FROM audit.entry WHERE log_id = $1", log_id)
        with pytest.raises(AssertionError, match="seq is not dense"):
            await assert_log_intact(connection, log_id, size)
