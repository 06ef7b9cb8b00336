"""Builds the search index of a seeded log, with every core: as the indexer does it, only several segments at once."""

import asyncio
import multiprocessing
import os
from collections.abc import Sequence

import asyncpg
import uvloop

from audit_service.core.terms import SEGMENT_EVENTS
from audit_service.store.engine import Database, open_database
from audit_service.store.segments import Built, add_built, build_segment

NOT_NEXT = "AU012"


def build_index(url: str, log_id: int, events: int) -> None:
    """Add every full segment of a log that nobody appends to."""
    processes = os.cpu_count() or 1
    numbers = range(events // SEGMENT_EVENTS)
    parts = [(url, log_id, numbers[start::processes]) for start in range(processes)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.starmap(_add_segments, parts)


def _add_segments(url: str, log_id: int, numbers: Sequence[int]) -> None:
    uvloop.run(_add(url, log_id, numbers))


async def _add(url: str, log_id: int, numbers: Sequence[int]) -> None:
    database = open_database(url, pool_connections=1)
    try:
        for number in numbers:
            built = await build_segment(database.reads, log_id, number)
            # Segments are added in order; the other processes build theirs meanwhile.
            while not await _added(database, log_id, built):  # noqa: ASYNC110 - what is waited for is another process
                await asyncio.sleep(0.005)
    finally:
        await database.dispose()


async def _added(database: Database, log_id: int, built: Built) -> bool:
    try:
        return await add_built(database.writes, log_id, built)
    except asyncpg.PostgresError as error:
        if error.sqlstate != NOT_NEXT:
            raise
        return False
