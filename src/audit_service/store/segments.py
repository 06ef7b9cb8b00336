"""The search index in the database: segments that were built, what is in them, and adding one (`core.terms`, decision 0007)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, repeat
from types import MappingProxyType
from typing import Any, cast

from pyroaring import BitMap
from sqlalchemy import func, not_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit_service.core import terms
from audit_service.core.entry import Projection
from audit_service.core.terms import NAMED, OWN, Indexed, Term, entry_terms
from audit_service.store.engine import bind, bound, driver
from audit_service.store.rows import among, columns
from audit_service.store.tables import bound_entry, bound_forgetting, bound_log, bound_segment, tenant

_c = bound_entry.c
# What terms are made of; see core.terms.Indexed.
_COLUMNS = (
    "seq", "occurred_at", "actor_id", "actor_type", "actor_role", "actor_keys", "action", "verb", "category", "outcome", "target_type",
    "target_id", "server_id", "ip", "session", "request_id", "paths", "search",
)  # fmt: skip
# Rows of one statement while a segment is read: each its own short transaction.
_SLICE_ENTRIES = 2048
TALLIED = [*sorted(NAMED), *(OWN + field for field in sorted(NAMED))]

# Values come as parallel arrays; a term's place says to which it belongs. Each is a short range of the key within a segment. OFFSET 0 keeps
# PostgreSQL from joining otherwise: for many words it read all terms of the log, and compared each with every word.
_FETCH = """
    SELECT n.number, t.place, p.positions
    FROM unnest($2::int[]) AS n(number)
    CROSS JOIN unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS t(field, low, high, place)
    CROSS JOIN LATERAL (
        SELECT b.positions FROM audit.bound_posting AS b
        WHERE b.log_id = $1 AND b.number = n.number AND b.field = t.field AND b.value >= t.low AND b.value < t.high
        OFFSET 0
    ) AS p"""
# The values of one field in a range of it, segment by segment.
_RANGE = """
    FROM unnest($2::int[]) AS n(number)
    CROSS JOIN LATERAL (
        SELECT b.value, b.events, b.positions FROM audit.bound_posting AS b
        WHERE b.log_id = $1 AND b.number = n.number AND b.field = $3 AND b.value >= $4 AND b.value < $5
        OFFSET 0
    ) AS p"""
_FETCH_VALUES = "SELECT n.number, p.value, p.positions" + _RANGE
_COUNT_VALUES = "SELECT p.value, sum(p.events)::bigint" + _RANGE + " GROUP BY p.value"
# Segments that are looked through for the newest entry of a value at a time: that of a frequent one is in the newest few.
_NEWEST_BATCHES = (4, 32, 256)
_ADD = "SELECT audit.add_segment($1, $2, $3, $4, $5, $6, $7::text[], $8::text[], $9::int[], $10::bytea[], $11::text[])"


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of the index: entries [16384 * number, 16384 * (number + 1)). Times are None when none of them is listed any more."""

    number: int
    events: int
    first_at: datetime | None
    last_at: datetime | None


async def list_logs(connection: AsyncConnection) -> Sequence[int]:
    """Every log there is."""
    return (await connection.execute(select(tenant.c.log_id).order_by(tenant.c.log_id))).scalars().all()


async def list_segments(connection: AsyncConnection, log_id: int) -> list[Segment]:
    """The segments in the index, in order."""
    s = bound_segment.c
    query = select(s.number, s.events, s.first_at, s.last_at).where(s.log_id == log_id).order_by(s.number)
    return [Segment(*row) for row in await connection.execute(query)]


async def next_segment(connection: AsyncConnection, log_id: int) -> int | None:
    """The number of the first segment that is full and not in the index yet, or None."""
    count = select(func.count()).where(bound_segment.c.log_id == log_id).scalar_subquery()
    query = select(count, bound_log.c.size).where(bound_log.c.log_id == log_id)
    row = (await connection.execute(query)).first()
    if row is None or row.size is None or (row[0] + 1) * terms.SEGMENT_EVENTS > row.size:
        return None
    return cast("int", row[0])


async def fetch_postings(
    connection: AsyncConnection, log_id: int, numbers: Sequence[int], terms: Sequence[Term]
) -> dict[int, dict[int, BitMap]]:
    """Segment number → place in `terms` → positions. What is not there has none."""
    if not terms or not numbers:
        return {}
    rows = await driver(connection).fetch(
        _FETCH, log_id, list(numbers), [t.field for t in terms], [t.low for t in terms], [t.high for t in terms]
    )
    found: dict[int, dict[int, BitMap]] = defaultdict(dict)
    for number, place, positions in rows:
        bitmap = BitMap.deserialize(positions)
        known = found[number].get(place - 1)
        found[number][place - 1] = bitmap if known is None else known | bitmap
    return found


async def fetch_values(
    connection: AsyncConnection, log_id: int, numbers: Sequence[int], term: Term
) -> list[tuple[int, str, BitMap]]:
    """(segment number, value, positions) of every value that the term takes in."""
    rows = await driver(connection).fetch(_FETCH_VALUES, log_id, list(numbers), *term)
    return [(number, value, BitMap.deserialize(positions)) for number, value, positions in rows]


async def count_values(connection: AsyncConnection, log_id: int, numbers: Sequence[int], term: Term) -> dict[str, int]:
    """How many entries of these segments together have each value that the term takes in."""
    return dict(await driver(connection).fetch(_COUNT_VALUES, log_id, list(numbers), *term))


async def find_newest(
    connection: AsyncConnection,
    log_id: int,
    segments: int,
    field: str,
    values: Sequence[str],
    without: Term | None = None,
) -> dict[str, int]:
    """Value → the highest seq that has it, among the first `segments` segments, of those that have not `without`. What is not there has
    none."""
    found: dict[str, int] = {}
    end = segments
    for size in chain(_NEWEST_BATCHES, repeat(_NEWEST_BATCHES[-1])):
        missing = [value for value in values if value not in found]
        if end <= 0 or not missing:
            break
        start = max(0, end - size)
        wanted = [Term.of(field, value) for value in missing] + ([] if without is None else [without])
        postings = await fetch_postings(connection, log_id, range(start, end), wanted)
        for number in sorted(postings):
            left_out = postings[number].pop(len(missing), BitMap())
            left = ((at, some - left_out) for at, some in postings[number].items())
            found |= {missing[at]: number * terms.SEGMENT_EVENTS + some.max() for at, some in left if some}
        end = start
    return found


@dataclass(frozen=True, slots=True)
class Built:
    """What goes into the index for a segment, as arguments of the functions that put it there: number, first and last time, events, then
    arrays with one element for each posting. `generation`: how often anything had been forgotten before the entries were read."""

    generation: int
    arguments: tuple[Any, ...]


async def build_segment(
    reads: AsyncEngine, log_id: int, number: int, left: Mapping[int, Projection | None] = MappingProxyType({})
) -> Built:
    """Read the entries of a segment, and work out what the index holds of them. `left`: seq → what will be left of an entry that is
    about to lose something, None when nothing will; these are not read."""
    postings: dict[tuple[str, str], list[int]] = defaultdict(list)
    times: list[datetime] = []
    start, end = number * terms.SEGMENT_EVENTS, (number + 1) * terms.SEGMENT_EVENTS
    async with bound(reads, log_id) as connection:
        generation = await fetch_generation(connection, log_id)
    for first in range(start, end, _SLICE_ENTRIES):
        known = [seq for seq in range(first, min(first + _SLICE_ENTRIES, end)) if seq in left]
        if len(known) < _SLICE_ENTRIES:
            async with bound(reads, log_id) as connection:
                rows = await _read_slice(connection, log_id, first, min(first + _SLICE_ENTRIES, end), known)
            collect(((row.seq - start, row) for row in rows), postings, times)
        remains = ((seq - start, cast("Indexed | None", left[seq])) for seq in known)
        collect(((at, entry) for at, entry in remains if entry is not None), postings, times)
    return Built(generation, segment_arguments(number, postings, times))


async def add_segment(reads: AsyncEngine, writes: AsyncEngine, log_id: int, number: int) -> bool:
    """Read the entries of a segment and put it into the index; False when another indexer was quicker, or anything was forgotten
    meanwhile. The segment must be full, and the next one."""
    return await add_built(writes, log_id, await build_segment(reads, log_id, number))


async def add_built(writes: AsyncEngine, log_id: int, built: Built) -> bool:
    """Put a segment into the index; see `add_segment`."""
    number, *rest = built.arguments
    async with writes.connect() as connection:
        await bind(connection, log_id)
        added = await driver(connection).fetchval(_ADD, log_id, number, built.generation, *rest)
        await connection.commit()
    return bool(added)


async def fetch_generation(connection: AsyncConnection, log_id: int) -> int:
    """How often anything of the log was forgotten: what was read before it rose may not be indexed any more."""
    query = select(bound_forgetting.c.generation).where(bound_forgetting.c.log_id == log_id)
    return (await connection.execute(query)).scalar() or 0


async def _read_slice(
    connection: AsyncConnection, log_id: int, first: int, end: int, without: Sequence[int]
) -> Sequence[Any]:
    query = select(*columns(_COLUMNS, bound_entry)).where(_c.log_id == log_id, _c.seq >= first, _c.seq < end)
    if without:
        query = query.where(not_(among(without, bound_entry)))
    return (await connection.execute(query)).all()


def collect(
    entries: Iterable[tuple[int, Indexed]], postings: dict[tuple[str, str], list[int]], times: list[datetime]
) -> None:
    """Add the terms of some entries to `postings`, and when they occurred to `times`. Each comes with its position in the segment."""
    for position, entry in entries:
        for term in set(entry_terms(entry)):
            postings[term].append(position)
        if entry.occurred_at is not None:
            # A damaged time beyond the calendar comes without a zone, as the calendar's end.
            times.append(entry.occurred_at if entry.occurred_at.tzinfo else entry.occurred_at.replace(tzinfo=UTC))


def segment_arguments(
    number: int, postings: dict[tuple[str, str], list[int]], times: list[datetime]
) -> tuple[Any, ...]:
    """What `collect` gathered of a segment, as the functions that put it into the index take it."""
    terms = sorted(postings)
    return (
        number,
        min(times, default=None),
        max(times, default=None),
        len(times),
        [field for field, _ in terms],
        [value for _, value in terms],
        [len(postings[term]) for term in terms],
        [_written(postings[term]) for term in terms],
        TALLIED,
    )


def _written(positions: list[int]) -> bytes:
    bitmap = BitMap(positions)
    bitmap.run_optimize()
    return bitmap.serialize()
