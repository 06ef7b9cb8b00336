"""Counting the events of a selection: how many have each value of a field, and how many occurred in each quarter of an hour.

Nothing here reads the whole log (decision 0007). What the search index counts by itself is counted there, and the entries that are not in
the index yet one by one; any other selection is counted up to its newest COUNTED_LIMIT events, and the answer says so. Statements have to
see the same log, so run these within `bound(…, one_snapshot=True)`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pyroaring import BitMap
from sqlalchemy import (
    BIGINT,
    TEXT,
    ColumnElement,
    Select,
    case,
    cast,
    column,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
    values,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core import mask, terms
from audit_service.core.event import EARLIEST
from audit_service.core.sight import OWN_PREFIX, Sight
from audit_service.core.terms import NAMED, NO_SERVER, OWN, Term, after_prefix, quarter_of
from audit_service.core.timeline import LATEST, QUARTER, quarter_start
from audit_service.store import find
from audit_service.store.limits import holds_address, is_staff
from audit_service.store.rows import among
from audit_service.store.segments import (
    Segment,
    count_values,
    fetch_values,
    find_newest,
    list_segments,
)
from audit_service.store.selection import Selection, base_conditions, conditions
from audit_service.store.tables import bound_tally, seen_entry

_c = seen_entry.c
COUNTED_LIMIT = 10_000
# Entries named by the index that are looked at one by one: quicker, so far, than intersecting them with every quarter that there is.
_LOOKED_AT_LIMIT = 10_000
# Fields of a person that a sight may hide, all of them or of some.
_OF_ACTOR = {"actor_id", "role"}
# Segments whose quarters are fetched at a time: some thousands of short bitmaps.
_SEGMENTS_AT_ONCE = 64
# Facet → the field of the index with its values.
FACETS = {
    "actor": "actor_id", "role": "role", "action": "action", "category": "category", "target_type": "target_type",
    "server_id": "server_id", "verb": "verb", "outcome": "outcome", "actor_type": "actor_type",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value, at most its first VALUE_CHARACTERS, and how many events have it. None stands for global events, those without a server.
    `name`: the actor's, as the newest of these events has it."""

    value: str | None
    count: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Facet:
    """The most frequent values of a field, and whether there are more."""

    values: Sequence[FacetValue]
    more: bool


@dataclass(frozen=True, slots=True)
class Facets:
    """Facets by name; how many events were counted, and whether more are selected than that."""

    facets: Mapping[str, Facet]
    counted: int
    capped: bool


@dataclass(frozen=True, slots=True)
class Quarters:
    """Events by the quarter of an hour (its beginning, in UTC) when they occurred, of those that occurred from `since` on, if given, and
    before `until`, if given. `capped`: older ones are selected too, and `since` is when the oldest of those counted occurred."""

    counts: Mapping[datetime, int]
    since: datetime | None
    until: datetime | None
    capped: bool


async def count_facets(
    connection: AsyncConnection, log_id: int, selection: Selection, names: Sequence[str], limit: int
) -> Facets:
    """The `limit` most frequent values of each facet in `names`: exact for the whole log (an empty selection) and for up to COUNTED_LIMIT
    events; else of the newest COUNTED_LIMIT."""
    fields = [FACETS[name] for name in names]
    sight = selection.sight
    if selection.is_whole and sight.sees_every_row and not (sight.hides_fields and _OF_ACTOR & set(fields)):
        segments = await list_segments(connection, log_id)
        tail = [*base_conditions(log_id, selection), _behind(segments)]
        counted = await _count_listed(connection, log_id, sight, segments) + await _count(connection, tail)
        parts, capped = [_counted_in_index(log_id, sight, fields), _counted_in_log(fields, sight, tail)], False
    else:
        segments = []
        found = await find.newest(connection, log_id, selection, COUNTED_LIMIT + 1)
        seqs = [position.seq for position in found[:COUNTED_LIMIT]]
        counted, capped = len(seqs), len(found) > COUNTED_LIMIT
        parts = [_counted_in_log(fields, sight, [_c.log_id == log_id, among(seqs)])]
    rows: dict[str, list[Any]] = {field: [] for field in fields}
    for row in await connection.execute(_most_frequent(parts, limit + 1)):
        rows[row.field].append(row)
    of_actors = await _names(connection, log_id, sight, len(segments), rows.get("actor_id", [])[:limit])
    facets = {name: _facet(rows[field], limit, of_actors) for name, field in zip(names, fields, strict=True)}
    return Facets(facets, counted, capped)


def _facet(rows: Sequence[Any], limit: int, names: Mapping[str, str | None]) -> Facet:
    return Facet(
        [
            FacetValue(
                None if row.field == "server_id" and row.value == NO_SERVER else row.value,
                row.events,
                names.get(row.value) if row.field == "actor_id" else None,
            )
            for row in rows[:limit]
        ],
        len(rows) > limit,
    )


def _behind(segments: Sequence[Segment]) -> ColumnElement[bool]:
    """The entries that are not in the index yet."""
    behind: ColumnElement[bool] = _c.seq >= len(segments) * terms.SEGMENT_EVENTS
    return behind


async def _count(connection: AsyncConnection, where: Sequence[ColumnElement[bool]]) -> int:
    return (await connection.execute(select(func.count()).select_from(seen_entry).where(*where))).scalar_one()


async def _count_listed(connection: AsyncConnection, log_id: int, sight: Sight, segments: Sequence[Segment]) -> int:
    """The events of the index: each has a server or none."""
    listed = sum(segment.events for segment in segments)
    if sight.own_entries or not segments:
        return listed
    every_server = Term(f"{OWN}server_id", "", after_prefix(""))
    own = await count_values(connection, log_id, [segment.number for segment in segments], every_server)
    return listed - sum(own.values())


def _counted_in_index(log_id: int, sight: Sight, fields: Sequence[str]) -> Select[Any]:
    """(field, value, events, newest): what all segments together have. Which entry is the newest is not known there."""
    t = bound_tally.c
    named = [*fields, *(OWN + field for field in fields if sight.own_entries)]
    field = case((func.starts_with(t.field, OWN), func.substr(t.field, len(OWN) + 1)), else_=t.field)
    return select(field.label("field"), t.value, t.events, cast(null(), BIGINT).label("newest")).where(
        t.log_id == log_id, t.field.in_(named)
    )


def _counted_in_log(fields: Sequence[str], sight: Sight, where: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """(field, value, events, newest): one look at each entry for all fields."""
    each = (
        values(column("field", TEXT(collation="C")), column("value", TEXT(collation="C")), name="each")
        .data([(cast(literal(field), TEXT).collate("C"), _value(field, sight)) for field in fields])
        .lateral()
    )
    return (
        select(each.c.field, each.c.value, func.count().label("events"), func.max(_c.seq).label("newest"))
        .select_from(seen_entry.join(each, true()))
        .where(*where, each.c.value.is_not(None))
        .group_by(each.c.field, each.c.value)
    )


def _value(field: str, sight: Sight) -> ColumnElement[Any]:
    """As the index has it; null where it is hidden."""
    column = _c[NAMED[field]]
    stored = func.left(column, terms.VALUE_CHARACTERS)
    if field == "server_id":
        return func.coalesce(stored, NO_SERVER)
    hidden = []
    if field in _OF_ACTOR and not sight.emails:
        hidden.append(holds_address(column))
    if field in _OF_ACTOR and sight.staff_as is not None:
        hidden.append(is_staff(sight))
    return case((or_(*hidden), null()), else_=stored) if hidden else stored


def _most_frequent(parts: Sequence[Select[Any]], limit: int) -> Select[Any]:
    """(field, value, events, newest): the first `limit` values of each field when its parts are added up, in order."""
    part = union_all(*parts).subquery()
    events = func.sum(part.c.events)
    place = func.row_number().over(partition_by=part.c.field, order_by=(events.desc(), part.c.value))
    ranked = (
        select(
            part.c.field,
            part.c.value,
            cast(events, BIGINT).label("events"),
            func.max(part.c.newest).label("newest"),
            place.label("place"),
        )
        .group_by(part.c.field, part.c.value)
        .subquery()
    )
    return select(ranked).where(ranked.c.place <= limit).order_by(ranked.c.field, ranked.c.place)


async def _names(
    connection: AsyncConnection, log_id: int, sight: Sight, segments: int, rows: Sequence[Any]
) -> dict[str, str | None]:
    """Actor id → the name in the newest entry counted. Of an actor that only the index has counted, the index knows which that is."""
    newest = {row.value: row.newest for row in rows if row.newest is not None}
    elsewhere = [row.value for row in rows if row.newest is None]
    unseen = None if sight.own_entries else Term.beginning("action", OWN_PREFIX)
    newest |= await find_newest(connection, log_id, segments, "actor_id", elsewhere, unseen)
    query = select(_c.seq, _c.actor_name).where(_c.log_id == log_id, among(list(newest.values())))
    names = {row.seq: _shown(row.actor_name, sight) for row in await connection.execute(query)}
    return {value: names.get(seq) for value, seq in newest.items()}


def _shown(name: str | None, sight: Sight) -> str | None:
    return None if name is not None and not sight.emails and mask.holds_address(name) else name


# --- counts over time ---


async def count_quarters(connection: AsyncConnection, log_id: int, selection: Selection) -> Quarters:
    """When the events of a selection occurred: exact where the index knows all its filters and for up to COUNTED_LIMIT events; else of the
    newest COUNTED_LIMIT. Times before EARLIEST or behind LATEST, which only damaged entries have, are not counted."""
    within = replace(
        selection,
        since=max(selection.since or EARLIEST, EARLIEST),
        until=min(selection.until or LATEST, LATEST),
    )
    if find.is_known(selection):
        counts = await _count_all(connection, log_id, within)
        return Quarters(counts, selection.since and within.since, selection.until and within.until, capped=False)
    found = await find.newest(connection, log_id, within, COUNTED_LIMIT + 1)
    counted, capped = found[:COUNTED_LIMIT], len(found) > COUNTED_LIMIT
    since = counted[-1].occurred_at if capped else selection.since and within.since
    counts = Counter(quarter_start(position.occurred_at) for position in counted)
    return Quarters(counts, since, selection.until and within.until, capped)


async def _count_all(connection: AsyncConnection, log_id: int, selection: Selection) -> Counter[datetime]:
    """The indexed entries by their whole quarters, and one by one what the index cannot tell: those of quarters that the range cuts in
    two, and those that are not in the index yet."""
    assert selection.since is not None and selection.until is not None  # noqa: S101, PT018 - the caller fills them in
    segments = await list_segments(connection, log_id)
    first, end = _whole_quarters(selection.since, selection.until)
    counts = await _count_entries(connection, [*conditions(log_id, selection), _behind(segments)])
    if selection.filters or selection.server_id is not None:
        named = await _look_up(connection, log_id, selection, segments)
        if sum(map(len, named.values())) <= _LOOKED_AT_LIMIT:
            seqs = [number * terms.SEGMENT_EVENTS + at for number, positions in named.items() for at in positions]
            return counts + await _count_entries(connection, [*conditions(log_id, selection), among(seqs)])
        counts += await _count_named(connection, log_id, named, first, end)
    else:
        counts += await _count_indexed(connection, log_id, selection.sight, segments, first, end)
    for since, until in ((selection.since, first), (end, selection.until)):
        if segments and since < until:
            where = conditions(log_id, replace(selection, since=since, until=until))
            counts += await _count_entries(connection, [*where, ~_behind(segments)])
    return counts


def _whole_quarters(since: datetime, until: datetime) -> tuple[datetime, datetime]:
    """[first, end): the longest range of whole quarters in [since, until). Where there is none, both are `until`."""
    first, end = -(-(since - EARLIEST) // QUARTER) * QUARTER + EARLIEST, quarter_start(until)
    return (first, end) if first < end else (until, until)


async def _count_entries(connection: AsyncConnection, where: Sequence[ColumnElement[bool]]) -> Counter[datetime]:
    quarter = func.date_bin(literal_column("INTERVAL '15 minutes'"), _c.occurred_at, literal(EARLIEST))
    query = select(quarter, func.count()).where(*where).group_by(quarter)
    return Counter({row[0]: row[1] for row in await connection.execute(query)})


async def _count_indexed(
    connection: AsyncConnection, log_id: int, sight: Sight, segments: Sequence[Segment], first: datetime, end: datetime
) -> Counter[datetime]:
    """The entries of the quarters in [first, end), as the index has counted them."""
    numbers, quarters = _near(segments, first, end), _quarters(first, end)
    counts = _by_time(await count_values(connection, log_id, numbers, quarters))
    if sight.own_entries:
        return counts
    return counts - _by_time(
        await count_values(connection, log_id, numbers, quarters._replace(field=OWN + quarters.field))
    )


async def _look_up(
    connection: AsyncConnection, log_id: int, selection: Selection, segments: Sequence[Segment]
) -> dict[int, BitMap]:
    """What the index names of a selection, in all segments that have something of its time."""
    assert selection.since is not None and selection.until is not None  # noqa: S101, PT018 - the caller fills them in
    named: dict[int, BitMap] = {}
    for numbers in _batches(_near(segments, selection.since, selection.until)):
        some = await find.look_up(connection, log_id, selection, numbers)
        named |= {number: positions for number, positions in some.items() if positions}
    return named


async def _count_named(
    connection: AsyncConnection, log_id: int, named: Mapping[int, BitMap], first: datetime, end: datetime
) -> Counter[datetime]:
    """Those of the named entries that are in the quarters in [first, end)."""
    counts: Counter[str] = Counter()
    for numbers in _batches(list(named)):
        for number, value, positions in await fetch_values(connection, log_id, numbers, _quarters(first, end)):
            counts[value] += positions.intersection_cardinality(named[number])
    return _by_time(counts)


def _quarters(first: datetime, end: datetime) -> Term:
    return Term.between("quarter", quarter_of(first), quarter_of(end))


def _by_time(counts: Mapping[str, int]) -> Counter[datetime]:
    return Counter({datetime.fromisoformat(value).replace(tzinfo=UTC): count for value, count in counts.items()})


def _near(segments: Sequence[Segment], since: datetime, until: datetime) -> list[int]:
    """The numbers of the segments that have something in [since, until)."""
    return [
        segment.number
        for segment in segments
        if segment.first_at is not None
        and segment.last_at is not None
        and segment.first_at < until
        and segment.last_at >= since
    ]


def _batches(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """The numbers, some at a time."""
    for start in range(0, len(numbers), _SEGMENTS_AT_ONCE):
        yield numbers[start : start + _SEGMENTS_AT_ONCE]
