"""Builds the search index of a seeded log, with every core: as the indexer does it, only several segments at once."""

import multiprocessing
import os
from collections.abc import Sequence

import uvloop

from audit_service.core.terms import SEGMENT_EVENTS
from audit_service.store.engine import open_database
from audit_service.store.segments import add_segment


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
            await add_segment(database.reads, database.writes, log_id, number)
    finally:
        await database.dispose()
