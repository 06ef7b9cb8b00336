"""Producers of a log: how many events each source.id has brought, which numbers (source.seq) are missing, which came twice.

Counted behind the log (decision 0015); what is not counted yet is read from the entries and laid over it, so an acknowledged event is
there at once. Nothing here reads the whole log, and what is brought has a limit however sparse the numbers are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, cast

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit_service.store.engine import bind, bound, driver
from audit_service.store.tables import bound_log, bound_source_progress

# Ranges of each kind that are listed of a source; all of them are counted.
RANGES_LIMIT = 100
# Entries not counted yet that a reader goes through: some 100 ms. There are more only while the counter is away or catches up.
TAIL_ENTRIES = 65_536
# So many entries wait before they are counted, and so many are counted in one transaction.
WAITING_ENTRIES, BATCH_ENTRIES = 2048, 16_384
_LARGEST = 2**63 - 1

# What is stored, without the ranges that the tail touches, and what becomes of those. `below` is compared with where a range ends:
# a hole ends where the next range seen begins. One more seen range than holes, and one more of each to know whether there are more.
_LIST = """
    WITH tail AS MATERIALIZED (SELECT * FROM audit.source_changes($1, $2, $3, $4)),
    page AS (
        (SELECT s.source_id FROM audit.bound_source AS s
            WHERE s.log_id = $1 AND s.source_id > $5 AND ($4::text[] IS NULL OR s.source_id = ANY ($4)) ORDER BY s.source_id LIMIT $6)
        UNION (SELECT t.source_id FROM tail AS t WHERE t.source_id > $5)
        ORDER BY source_id LIMIT $6
    )
    SELECT p.source_id, c.*, seen.ranges, repeated.ranges
    FROM page AS p
    LEFT JOIN LATERAL (SELECT * FROM audit.bound_source AS b WHERE b.log_id = $1 AND b.source_id = p.source_id) AS s ON true
    LEFT JOIN tail AS t ON t.source_id = p.source_id
    CROSS JOIN LATERAL (
        SELECT COALESCE(s.events, 0) + COALESCE(t.events, 0), COALESCE(s.numbered, 0) + COALESCE(t.numbered, 0),
            least(s.first_seq, t.first_seq), greatest(s.last_seq, t.last_seq),
            least(greatest(s.last_recorded_at, t.last_recorded_at), TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'),
            COALESCE(s.seen_ranges, 0) + COALESCE(t.seen_ranges, 0), COALESCE(s.seen_numbers, 0) + COALESCE(t.seen_numbers, 0),
            COALESCE(s.repeated_ranges, 0) + COALESCE(t.repeated_ranges, 0),
            COALESCE(s.repeated_numbers, 0) + COALESCE(t.repeated_numbers, 0)
    ) AS c
    CROSS JOIN LATERAL (
        SELECT array_agg(ARRAY[x.first_seq, x.last_seq] ORDER BY x.first_seq DESC) AS ranges FROM (
            (SELECT r.first_seq, r.last_seq FROM audit.bound_source_range AS r
                WHERE r.log_id = $1 AND r.source_id = p.source_id AND NOT r.repeated AND r.first_seq <= $7
                    AND NOT COALESCE(t.seen_before @> r.first_seq::numeric, false)
                ORDER BY r.first_seq DESC LIMIT $8 + 2)
            UNION ALL
            (SELECT lower(n)::bigint, (upper(n) - 1)::bigint FROM unnest(t.seen) AS n WHERE lower(n) <= $7 ORDER BY 1 DESC LIMIT $8 + 2)
            ORDER BY first_seq DESC LIMIT $8 + 2
        ) AS x
    ) AS seen
    CROSS JOIN LATERAL (
        SELECT array_agg(ARRAY[x.first_seq, x.last_seq] ORDER BY x.first_seq DESC) AS ranges FROM (
            (SELECT r.first_seq, r.last_seq FROM audit.bound_source_range AS r
                WHERE r.log_id = $1 AND r.source_id = p.source_id AND r.repeated AND r.first_seq <= $7 AND r.last_seq::numeric + 1 <= $9
                    AND NOT COALESCE(t.repeated_before @> r.first_seq::numeric, false)
                ORDER BY r.first_seq DESC LIMIT $8 + 1)
            UNION ALL
            (SELECT lower(n)::bigint, (upper(n) - 1)::bigint FROM unnest(t.repeated) AS n WHERE upper(n) <= $9 ORDER BY 1 DESC LIMIT $8 + 1)
            ORDER BY first_seq DESC LIMIT $8 + 1
        ) AS x
    ) AS repeated
    ORDER BY p.source_id"""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Ranges [start, end) of numbers, the highest first: at most RANGES_LIMIT of those that end at or below the number asked for, and
    whether there are `more`. `total` and `numbers`: how many ranges the source has in all, and how many numbers in them."""

    listed: Sequence[tuple[int, int]]
    more: bool
    total: int
    numbers: int


@dataclass(frozen=True, slots=True)
class Source:
    """What a log has of a producer. `numbered`: how many of its events have a number; none, then `first_seq` and `last_seq` are None.
    `holes`: numbers between those that no event has. `duplicates`: numbers that several events have."""

    id: str
    events: int
    numbered: int
    first_seq: int | None
    last_seq: int | None
    last_recorded_at: datetime
    holes: Ranges
    duplicates: Ranges


@dataclass(frozen=True, slots=True)
class SourcePage:
    """Sources in the order of their ids, and whether more follow. They take in the entries below `counted`: all `size` of them, unless the
    counter is more than TAIL_ENTRIES behind."""

    sources: Sequence[Source]
    more: bool
    counted: int
    size: int


async def list_sources(
    connection: AsyncConnection,
    log_id: int,
    ids: Sequence[str],
    *,
    after: str = "",
    below: int | None = None,
    limit: int,
) -> SourcePage:
    """The first `limit` producers whose id comes after `after`, of those in `ids`, or of all when it is empty; with their ranges of numbers
    that end at or below `below`. Run it within `bound(…, one_snapshot=True)`: its statements have to see the same log."""
    counted, size = await _progress(connection, log_id)
    end = min(size, counted + TAIL_ENTRIES)
    below = _LARGEST + 1 if below is None else below
    rows = await driver(connection).fetch(
        _LIST, log_id, counted, end, list(ids) or None, after, limit + 1, min(below, _LARGEST), RANGES_LIMIT, below
    )
    return SourcePage([_source(tuple(row)) for row in rows[:limit]], len(rows) > limit, end, size)


async def _progress(connection: AsyncConnection, log_id: int) -> tuple[int, int]:
    """How many entries are counted, and how many there are."""
    progress = bound_source_progress.c
    counted = select(progress.size).where(progress.log_id == log_id).scalar_subquery()
    query = select(func.coalesce(counted, 0), bound_log.c.size).where(bound_log.c.log_id == log_id)
    row = (await connection.execute(query)).first()
    return (0, 0) if row is None else (row[0], row[1])


def _source(row: tuple[Any, ...]) -> Source:
    identifier, events, numbered, first, last, recorded_at, *counts, seen, repeated = row
    seen_ranges, seen_numbers, repeated_ranges, repeated_numbers = cast("list[int]", counts)
    # Between two ranges seen, the highest first, lies a hole.
    holes = [(lower[1] + 1, upper[0]) for upper, lower in pairwise(seen or [])]
    twice = [(start, end + 1) for start, end in repeated or []]
    missing = 0 if first is None else last - first + 1 - seen_numbers
    return Source(
        identifier, events, numbered, first, last, recorded_at,
        Ranges(holes[:RANGES_LIMIT], len(holes) > RANGES_LIMIT, max(seen_ranges - 1, 0), missing),
        Ranges(twice[:RANGES_LIMIT], len(twice) > RANGES_LIMIT, repeated_ranges, repeated_numbers),
    )  # fmt: skip


async def count_waiting(reads: AsyncEngine, writes: AsyncEngine, log_id: int) -> int:
    """Count the next entries of a log if WAITING_ENTRIES or more are not counted yet; how many were. Whole or not at all."""
    async with bound(reads, log_id) as connection:
        counted, size = await _progress(connection, log_id)
    if size - counted < WAITING_ENTRIES:
        return 0
    async with writes.connect() as connection:
        await bind(connection, log_id)
        taken = await driver(connection).fetchval("SELECT audit.count_sources($1, $2)", log_id, BATCH_ENTRIES)
        await connection.commit()
    return cast("int", taken)
