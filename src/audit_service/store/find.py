"""Finding the entries of a selection in order, however rare they are and however large the log (decision 0007).

A page is found in three steps, and each is tried only when the one before has not filled it:

1. *Direct.* What an index of the table answers by itself in the order asked for: everything, certain ids; in the order of time also a
   time, one server, one target. (By seq, PostgreSQL would look for what lies at the log's end from its beginning.)
2. *Walk.* The next WALK_ENTRIES entries in the order asked for, each compared. This fills the page for every value that is common there.
3. *Segments.* From where the walk ended, segment by segment of the search index, nearest first, a few at first and then more at a time.
   Only entries that the index names are looked at, and segments in which nothing is named cost next to nothing. Entries that are not in
   the index yet are compared one by one.

The index only ever narrows down; every entry found is compared in SQL with the selection. So it may know too many, and an entry is found
as soon as its append has returned.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial, reduce
from itertools import chain, repeat
from operator import and_, or_
from typing import Any

from pyroaring import BitMap
from sqlalchemy import ColumnElement, func, literal, select
from sqlalchemy import and_ as sql_and
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit_service.core import terms
from audit_service.core.folding import fold
from audit_service.core.sight import OWN_PREFIX, Sight
from audit_service.core.terms import (
    HASHED,
    NAMED,
    NO_SERVER,
    Term,
    bucket_terms,
    fragment_terms,
    line_terms,
    network_term,
    search_words,
    spelled_lines,
)
from audit_service.store.engine import bound
from audit_service.store.rows import (
    EVENT_COLUMNS,
    FIRST_TIME,
    LAST_TIME,
    among,
    columns,
    fetch_within_budget,
    readable,
    size_of,
)
from audit_service.store.segments import Segment, fetch_postings, list_segments
from audit_service.store.selection import (
    OF_ACTOR,
    Filter,
    Order,
    Position,
    Selection,
    Sort,
    conditions,
    is_direct,
    named_servers,
    names_ids,
    path_ranges,
    walk_conditions,
)
from audit_service.store.tables import bound_entry, seen_entry
from audit_service.store.veil import Veil, veil_of

_c = seen_entry.c
WALK_ENTRIES = 2000
# For thousands of matches a longer walk pays: it ends the search for every value that half of all entries have.
LONG_WALK_ENTRIES = 20_000
# Entries named by the index that one statement looks at by their seq. Where a segment has more, all of it is compared.
_NAMED_LIMIT = 4096
# And of several segments together: a page may be full before the others.
_LISTED_LIMIT = 512
# Entries that one statement looks at of which some have to be compared here.
_CHECKED_ENTRIES = 500
# Values that every segment is asked about; for more of them (a reader of many servers), only where the other clauses have left anything.
_LOOKED_UP_LIMIT = 32
# Segments asked about at a time: the page is mostly filled by the first few.
_BATCHES = (4, 16, 64, 256)
_EXPORT_SEGMENTS = 64
_NO_TIME = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one page and where the next begins; `next` is None at the end."""

    rows: Sequence[Any] = field(default_factory=tuple)
    next: Position | None = None


async def list_entries(
    connection: AsyncConnection,
    log_id: int,
    selection: Selection,
    *,
    sort: Sort = "-occurred_at",
    after: Position | None = None,
    limit: int = 50,
    names: Sequence[str] = EVENT_COLUMNS,
) -> Page:
    """One page of entries in `sort` order, those after `after`, with the columns of these names, `occurred_at` and `size_bytes`. The cost
    does not grow with the page's number.

    A damaged entry whose occurred_at is beyond the calendar has no place in the order of time; `seq` order and exports show it.
    """
    order = Order(sort)
    if _is_direct(selection, order):
        where = _direct(log_id, selection, order, after)
    else:
        found = await _Search(connection, log_id, selection, order).find(after, limit + 1)
        if not found:
            return Page()
        where = [_c.log_id == log_id, among([position.seq for position in found])]
    # The plain column, so that the index's order stays known to the planner.
    time = _c.occurred_at if order.by_time else readable(_c.occurred_at)
    query = select(*columns(names), size_of(), time).where(*where, *_in_calendar(order))
    brought = await fetch_within_budget(connection, order.apply(query), sort, limit)
    last = brought.rows[-1] if brought.more else None
    return Page(brought.rows, None if last is None else Position(last.occurred_at, last.seq))


async def list_positions(
    connection: AsyncConnection,
    log_id: int,
    selection: Selection,
    *,
    sort: Sort = "-occurred_at",
    after: Position | None = None,
    limit: int,
    walk_entries: int | None = None,
) -> list[Position]:
    """Where the first `limit` entries of a selection behind `after` stand, for who needs only little of many entries. A walk is
    WALK_ENTRIES long when not said otherwise."""
    order = Order(sort)
    if not _is_direct(selection, order):
        return await _Search(connection, log_id, selection, order).find(after, limit, walk_entries=walk_entries)
    where = [*_direct(log_id, selection, order, after), *_in_calendar(order)]
    return await _fetch_positions(connection, log_id, order, where, limit, veil_of(selection))


async def count_entries(
    connection: AsyncConnection, log_id: int, selection: Selection, *, cap: int = 10_000
) -> tuple[int, bool]:
    """(count, whether it was capped): exact up to `cap`, because an exact count of everything reads everything."""
    if (is_direct(selection) or names_ids(selection)) and veil_of(selection) is None:
        count = await _count(connection, conditions(log_id, selection), cap + 1)
    else:
        count = await _Search(connection, log_id, selection, Order("-seq")).count(cap + 1)
    return min(count, cap), count > cap


async def newest(connection: AsyncConnection, log_id: int, selection: Selection, limit: int) -> list[Position]:
    """Where the `limit` latest entries of a selection stand, the latest first."""
    return await list_positions(connection, log_id, selection, limit=limit, walk_entries=LONG_WALK_ENTRIES)


def is_known(selection: Selection) -> bool:
    """Whether the index answers all of a selection but its times of occurrence, without a look at the entries."""
    by_seq = selection.recorded_since is None and selection.recorded_until is None
    clauses = [
        *(_filter_clause(item, selection.sight) for item in selection.filters),
        *_sight_clauses(selection),
    ]
    return by_seq and selection.sight.sees_every_row and all(clause is not None and clause.exact for clause in clauses)


async def look_up(
    connection: AsyncConnection, log_id: int, selection: Selection, numbers: Sequence[int]
) -> dict[int, BitMap]:
    """What the index names of a selection in some segments, times aside; exactly what is selected where the selection `is_known`."""
    return await _Index(clauses_of(selection)).look(connection, log_id, numbers)


async def candidates(
    engine: AsyncEngine, log_id: int, selection: Selection, *, from_seq: int, to_seq: int
) -> AsyncIterator[Sequence[int]]:
    """Where in [from_seq, to_seq) entries of a selection may be, ascending: ranges to compare whole, none longer than a segment unless it
    is of certain ids, and lists of single seqs. Each look at the index is a transaction of its own, for whoever reads for a long time."""
    async with bound(engine, log_id) as connection:  # where, not what: nothing is shown of it
        low, high = await _first_recorded(connection, log_id, selection)
    start, end = max(from_seq, low or 0), to_seq if high is None else min(to_seq, high)
    if names_ids(selection):
        yield range(start, end)
        return
    clauses = clauses_of(selection)
    may_hold = partial(_may_be_in_time, selection=selection)
    async for some in candidates_of(engine, log_id, clauses, from_seq=start, to_seq=end, may_hold=may_hold):
        yield some


async def candidates_of(
    engine: AsyncEngine,
    log_id: int,
    clauses: Sequence["Clause"],
    *,
    from_seq: int,
    to_seq: int,
    may_hold: Callable[[Segment], bool] = lambda _: True,
) -> AsyncIterator[Sequence[int]]:
    """The same of entries that fulfil every clause, in the segments that may hold any. None longer than a segment."""
    index = _Index(clauses)
    last = -(-to_seq // terms.SEGMENT_EVENTS)
    for first in range(from_seq // terms.SEGMENT_EVENTS, last, _EXPORT_SEGMENTS):
        numbers = range(first, min(first + _EXPORT_SEGMENTS, last))
        async with bound(engine, log_id) as connection:
            known = {segment.number: segment for segment in await list_segments(connection, log_id)}
            asked = [number for number in numbers if number not in known or may_hold(known[number])]
            named = await index.look(connection, log_id, [number for number in asked if number in known])
        for number in asked:
            positions, of_segment = named.get(number), number * terms.SEGMENT_EVENTS
            if positions is None or len(positions) > _NAMED_LIMIT:
                yield range(max(of_segment, from_seq), min(of_segment + terms.SEGMENT_EVENTS, to_seq))
            else:
                yield [of_segment + at for at in positions if from_seq <= of_segment + at < to_seq]


def _is_direct(selection: Selection, order: Order) -> bool:
    """Whether an index of the table answers a selection in this order."""
    if veil_of(selection) is not None:
        return False
    return names_ids(selection) or (is_direct(selection) and (order.by_time or selection.is_whole))


def _may_be_in_time(segment: Segment, selection: Selection) -> bool:
    """Whether the times of occurrence that are asked for leave anything of a segment."""
    since, until = selection.since, selection.until
    if since is None and until is None:
        return True
    if segment.first_at is None or segment.last_at is None:
        return False  # nothing in it has a place in time
    if since is not None and segment.last_at < since:
        return False
    # With a seq beside it, the moment of `until` is in the range too.
    at_end = selection.until_seq is not None and segment.first_at == until
    return until is None or segment.first_at < until or at_end


def _direct(log_id: int, selection: Selection, order: Order, after: Position | None) -> list[ColumnElement[bool]]:
    """The WHERE of what an index of the table answers by itself."""
    where = conditions(log_id, selection)
    return where if after is None else [*where, order.behind(after)]


async def _fetch_positions(
    connection: AsyncConnection,
    log_id: int,
    order: Order,
    where: Sequence[ColumnElement[bool]],
    wanted: int,
    veil: Veil | None,
) -> list[Position]:
    """The first `wanted` entries that the conditions, and the veil, let through."""
    columns = [_c.seq, *([_c.occurred_at] if order.by_time else [])]
    if veil is None:
        query = order.apply(select(*columns).where(*where)).limit(wanted)
        return [_position(row) for row in await connection.execute(query)]
    found: list[Position] = []
    behind: list[ColumnElement[bool]] = []
    while len(found) < wanted:
        query = order.apply(select(*columns, veil.unsure.label("unsure")).where(*where, *behind)).limit(
            _CHECKED_ENTRIES
        )
        rows = (await connection.execute(query)).all()
        passing = await veil.passing(connection, log_id, [row.seq for row in rows if row.unsure])
        found += [_position(row) for row in rows if not row.unsure or row.seq in passing]
        if len(rows) < _CHECKED_ENTRIES:
            break
        behind = [order.behind(_position(rows[-1]))]
    return found[:wanted]


def _in_calendar(order: Order) -> list[ColumnElement[bool]]:
    at = order.of.c.occurred_at
    return [at >= FIRST_TIME, at <= LAST_TIME] if order.by_time else []


async def _count(connection: AsyncConnection, where: Sequence[ColumnElement[bool]], cap: int) -> int:
    inner = select(literal(1)).select_from(seen_entry).where(*where).limit(cap).subquery()
    return (await connection.execute(select(func.count()).select_from(inner))).scalar_one()


# --- what the index knows of a selection ---


@dataclass(frozen=True, slots=True)
class Clause:
    """A filter as the index sees it: every entry it lets through has all terms of one of the alternatives. When negated, exactly the
    entries that it does not let through have them. `exact`: no other entries have them, so there is no need to look at each."""

    alternatives: tuple[tuple[Term, ...], ...]
    negated: bool = False
    exact: bool = True


def clauses_of(selection: Selection) -> list[Clause]:
    """What the index can say of a selection. A filter it knows too little about has no clause."""
    asked = (_filter_clause(item, selection.sight) for item in selection.filters)
    found = [clause for clause in asked if clause is not None]
    if selection.server_id is not None:
        found.append(_any_value("server_id", [selection.server_id]))
    return [*found, *_sight_clauses(selection)]


def _filter_clause(item: Filter, sight: Sight) -> Clause | None:
    to_terms = _ALTERNATIVES.get(item.field, _unknown)
    alternatives = tuple(all_of for value in item.values for all_of in to_terms(value))
    # Without terms an alternative may be anything; and a negated filter may only exclude what it surely does not let through.
    # Nor does the index know what is hidden from whom.
    exact = item.field in NAMED and not (sight.hides_fields and item.field in OF_ACTOR)
    exact = exact and all(term.exact for all_of in alternatives for term in all_of)
    if all(alternatives) and (exact or not item.negated):
        return Clause(alternatives, item.negated, exact)
    return None


def _sight_clauses(selection: Selection) -> list[Clause]:
    """What the index can say of a sight, but for what the selection says itself."""
    sight = selection.sight
    found = [] if sight.own_entries else [Clause(((Term.beginning("action", OWN_PREFIX),),), negated=True)]
    if sight.server_ids is not None and not named_servers(selection):
        servers = sight.server_ids - {NO_SERVER}
        found.append(_any_value("server_id", [*servers, *([NO_SERVER] if sight.global_events else [])]))
    elif not sight.global_events and not named_servers(selection):
        found.append(Clause(((Term.of("server_id", NO_SERVER),),), negated=True))
    if sight.categories is not None:
        found.append(_any_value("category", sight.categories))
    if sight.actor_id is not None:
        found.append(_any_value("actor_id", [sight.actor_id]))
    if sight.actor_type is not None:
        found.append(_any_value("actor_type", [sight.actor_type]))
    return found


def _any_value(field: str, values: Iterable[str]) -> Clause:
    """Any of these values of a named field."""
    asked = [Term.of(field, value) for value in sorted(values)]
    return Clause(tuple((term,) for term in asked), exact=all(term.exact for term in asked))


def _prefix_or(name: str, prefix: Callable[[str], str] = str) -> Callable[[str], list[tuple[Term, ...]]]:
    """A value, or with `*` at its end what begins so."""

    def to_terms(value: str) -> list[tuple[Term, ...]]:
        text = prefix(value)
        return [(Term.beginning(name, text[:-1]) if value.endswith("*") else Term.of(name, text),)]

    return to_terms


def _value_terms(value: str) -> list[tuple[Term, ...]]:
    """Of a changed value."""
    return [tuple(term for line in lines for term in line_terms(line)) for lines in spelled_lines(value)]


# What every entry with a value of a field has: all terms of one of these. No terms: the index cannot tell.
_ALTERNATIVES: dict[str, Callable[[Any], list[tuple[Term, ...]]]] = {
    **{name: lambda value, name=name: [(Term.of(name, value),)] for name in NAMED},  # type: ignore[misc]
    **{name: lambda value, name=name: [bucket_terms(name, value)] for name in HASHED},  # type: ignore[misc]
    "server_id": lambda value: [(Term.of("server_id", NO_SERVER if value == "none" else value),)],
    "action": _prefix_or("action"),
    "actor": _prefix_or("actor", fold),
    "ip": lambda value: [(network_term(value),)],
    "changed": lambda value: [(Term.between("path", low, high),) for low, high in path_ranges(value)],
    "old": _value_terms,
    "new": _value_terms,
    "q": lambda value: [tuple(term for word in search_words(value) for term in fragment_terms(word))],
}


@cache
def _positions(count: int) -> BitMap:
    return BitMap(range(count))


def every() -> BitMap:
    """All positions of a segment."""
    return _positions(terms.SEGMENT_EVENTS)


def _unknown(value: Any) -> list[tuple[Term, ...]]:
    """Of a field that is not in the index."""
    del value
    return [()]


class _Index:
    """Asks the index for the entries that fulfil some clauses."""

    def __init__(self, clauses: Sequence[Clause]) -> None:
        self._clauses = [clause for clause in clauses if len(clause.alternatives) <= _LOOKED_UP_LIMIT]
        self._wide = [clause for clause in clauses if len(clause.alternatives) > _LOOKED_UP_LIMIT]

    async def look(self, connection: AsyncConnection, log_id: int, numbers: Sequence[int]) -> dict[int, BitMap]:
        """Of each of these segments, the positions that fulfil every clause. Clauses of many values are asked for where the others left
        something."""
        named = await self._named(connection, log_id, numbers, self._clauses)
        left = [number for number in numbers if named[number]]
        if self._wide and left:
            wide = await self._named(connection, log_id, left, self._wide)
            named |= {number: named[number] & positions for number, positions in wide.items()}
        return named

    async def _named(
        self, connection: AsyncConnection, log_id: int, numbers: Sequence[int], clauses: Sequence[Clause]
    ) -> dict[int, BitMap]:
        terms = list({term: None for clause in clauses for all_of in clause.alternatives for term in all_of})
        postings = await fetch_postings(connection, log_id, numbers, terms)
        places = {term: place for place, term in enumerate(terms)}
        found = {}
        for number in numbers:
            of_segment = postings.get(number, {})
            of_terms = {term: of_segment[place] for term, place in places.items() if place in of_segment}
            found[number] = reduce(and_, (self._of_clause(clause, of_terms) for clause in clauses), every())
        return found

    @staticmethod
    def _of_clause(clause: Clause, postings: Mapping[Term, BitMap]) -> BitMap:
        nothing = BitMap()
        found = reduce(
            or_,
            (reduce(and_, (postings.get(term, nothing) for term in all_of)) for all_of in clause.alternatives),
            nothing,
        )
        return every() - found if clause.negated else found


# --- the search ---


class _Search:
    """One search: walks, then goes through the segments."""

    def __init__(self, connection: AsyncConnection, log_id: int, selection: Selection, order: Order) -> None:
        self._connection = connection
        self._log_id = log_id
        self._selection = selection
        self._order = order
        self._where = [*conditions(log_id, selection), *_in_calendar(order)]
        self._veil = veil_of(selection)
        self._index = _Index(clauses_of(selection))
        self._seqs = range(2**63 - 1)
        self._bounds: list[ColumnElement[bool]] = []

    async def find(self, after: Position | None, wanted: int, *, walk_entries: int | None = None) -> list[Position]:
        """The first `wanted` matching entries behind `after`. A walk is WALK_ENTRIES long when not said otherwise."""
        await self._narrow()
        end = await self._walk_end(after, walk_entries or WALK_ENTRIES)
        within = [] if end is None else [self._order.up_to(end)]
        found = await self._fetch(within, after, wanted)
        if end is None or len(found) >= wanted:
            return found
        return [*found, *await self._find_in_segments(end, wanted - len(found))]

    async def count(self, cap: int) -> int:
        """How many match, at most `cap`."""
        await self._narrow()
        segments = await list_segments(self._connection, self._log_id)
        total = await self._count([_c.seq >= len(segments) * terms.SEGMENT_EVENTS], cap)
        for some in _batches(list(filter(self._is_asked_for, segments[::-1]))):
            if total >= cap:
                break
            for _, where in _wheres(some, await self._named_in(some)):
                if total >= cap:
                    break
                total += await self._count([where], cap - total)
        return total

    async def _count(self, within: Sequence[ColumnElement[bool]], cap: int) -> int:
        where = [*self._where, *within]
        if self._veil is None:
            return await _count(self._connection, where, cap)
        return len(await _fetch_positions(self._connection, self._log_id, self._order, where, cap, self._veil))

    async def _narrow(self) -> None:
        """Times of recording as ranges of seq, which the log is in order of."""
        low, high = await _first_recorded(self._connection, self._log_id, self._selection)
        self._seqs = range(low or 0, self._seqs.stop if high is None else high)
        if not self._order.by_time:  # where it would tempt the planner away from the index by time
            self._bounds = self._seq_bounds(_c)

    def _seq_bounds(self, c: Any) -> list[ColumnElement[bool]]:
        return [c.seq >= self._seqs.start, c.seq < self._seqs.stop]

    async def _walk_end(self, after: Position | None, entries: int) -> Position | None:
        """Where a walk of so many entries ends; None when the log ends before. Seen or not, or a walk for what is seen of few would be one
        through the whole log: where it ends is shown to nobody."""
        order = Order(self._order.sort, bound_entry)
        # By seq, no index goes on with the seqs of a server or a time.
        walked = self._selection if order.by_time else Selection()
        columns = {column.key: column for column in (*order.columns, bound_entry.c.seq)}.values()
        where = [*walk_conditions(self._log_id, walked, bound_entry), *_in_calendar(order)]
        if not order.by_time:
            where += self._seq_bounds(bound_entry.c)
        if after is not None:
            where.append(order.behind(after))
        query = order.apply(select(*columns).where(*where)).offset(entries - 1).limit(1)
        row = (await self._connection.execute(query)).first()
        return None if row is None else _position(row)

    async def _fetch(
        self, within: Sequence[ColumnElement[bool]], after: Position | None, wanted: int
    ) -> list[Position]:
        behind = [] if after is None else [self._order.behind(after)]
        where = [*self._where, *self._bounds, *within, *behind]
        return await _fetch_positions(self._connection, self._log_id, self._order, where, wanted, self._veil)

    async def _find_in_segments(self, after: Position, wanted: int) -> list[Position]:
        segments = await list_segments(self._connection, self._log_id)
        # What is not in the index yet may be of any time: first of all.
        found = await self._fetch([_c.seq >= len(segments) * terms.SEGMENT_EVENTS], after, wanted)
        near = [segment for segment in segments if self._is_asked_for(segment) and self._is_behind(segment, after)]
        near.sort(key=self._nearest, reverse=self._order.descending)
        for some in _batches(near):
            if self._is_filled(found, wanted, some[0]):
                break
            for segment, where in _wheres(some, await self._named_in(some)):
                if self._is_filled(found, wanted, segment):
                    break
                found += await self._fetch([where], after, wanted)
                found = sorted(found, key=self._order.key, reverse=self._order.descending)[:wanted]
        return found

    def _is_filled(self, found: Sequence[Position], wanted: int, coming: Segment) -> bool:
        """Whether nothing from this segment on can stand among the first `wanted`."""
        return len(found) >= wanted and not self._reaches(coming, found[wanted - 1])

    async def _named_in(self, some: Sequence[Segment]) -> dict[int, BitMap]:
        """What the index names in some segments."""
        return await self._index.look(self._connection, self._log_id, [segment.number for segment in some])

    def _is_asked_for(self, segment: Segment) -> bool:
        """Whether the times asked for leave anything of a segment."""
        start = segment.number * terms.SEGMENT_EVENTS
        if start >= self._seqs.stop or start + terms.SEGMENT_EVENTS <= self._seqs.start:
            return False
        if self._order.by_time and (segment.first_at is None or segment.last_at is None):
            return False  # nothing in it has a place in time
        return _may_be_in_time(segment, self._selection)

    def _nearest(self, segment: Segment) -> Any:
        """What segments are gone through by: the time or number of their first entry in the order."""
        if not self._order.by_time:
            return segment.number
        return segment.last_at if self._order.descending else segment.first_at

    def _is_behind(self, segment: Segment, position: Position) -> bool:
        """Whether an entry of the segment may stand behind the position."""
        start = segment.number * terms.SEGMENT_EVENTS
        if not self._order.by_time:
            return start < position.seq if self._order.descending else start + terms.SEGMENT_EVENTS > position.seq
        assert segment.first_at is not None and segment.last_at is not None  # noqa: S101, PT018 - those without are not asked for
        if self._order.descending:
            return segment.first_at <= position.occurred_at
        return segment.last_at >= position.occurred_at

    def _reaches(self, segment: Segment, position: Position) -> bool:
        """Whether an entry of the segment may stand before the position."""
        if not self._order.by_time:
            last = (segment.number + 1) * terms.SEGMENT_EVENTS - 1
            return (
                last > position.seq if self._order.descending else segment.number * terms.SEGMENT_EVENTS < position.seq
            )
        nearest = self._nearest(segment)
        return bool(nearest >= position.occurred_at if self._order.descending else nearest <= position.occurred_at)


async def _first_recorded(
    connection: AsyncConnection, log_id: int, selection: Selection
) -> tuple[int | None, int | None]:
    """The seqs where the times of recording that are asked for begin and end."""
    found = []
    for at in (selection.recorded_since, selection.recorded_until):
        query = select(func.audit.first_recorded(log_id, at))
        found.append(None if at is None else (await connection.execute(query)).scalar_one())
    return found[0], found[1]


def _batches(segments: Sequence[Segment]) -> Iterator[Sequence[Segment]]:
    """The segments in their order, a few at first and then more at a time."""
    start = 0
    for size in chain(_BATCHES, repeat(_BATCHES[-1])):
        if start >= len(segments):
            return
        yield segments[start : start + size]
        start += size


def _wheres(segments: Sequence[Segment], named: Mapping[int, BitMap]) -> Iterator[tuple[Segment, ColumnElement[bool]]]:
    """The named entries of some segments, in their order: what to compare, and the first segment that it is in."""
    seqs: list[int] = []
    first = segments[0]
    for segment in segments:
        positions = named[segment.number]
        start = segment.number * terms.SEGMENT_EVENTS
        dense = len(positions) > _NAMED_LIMIT
        if seqs and (dense or len(seqs) + len(positions) > _LISTED_LIMIT):
            yield first, among(seqs)
            seqs = []
        if dense:
            # Its times too: by time, PostgreSQL would come to this segment from the end of the log.
            times = (
                ()
                if segment.first_at is None
                else (_c.occurred_at >= segment.first_at, _c.occurred_at <= segment.last_at)
            )
            yield segment, sql_and(_c.seq >= start, _c.seq < start + terms.SEGMENT_EVENTS, *times)
        elif positions:
            first = first if seqs else segment
            seqs += [start + position for position in positions]
    if seqs:
        yield first, among(seqs)


def _position(row: Any) -> Position:
    """Where a row stands. In the order of seq no time is needed, and a damaged one could not be read."""
    return Position(getattr(row, "occurred_at", _NO_TIME), row.seq)
