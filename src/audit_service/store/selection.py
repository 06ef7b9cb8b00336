"""Selections: filters, time ranges and sort orders, compiled to SQL in one place.

A filter is a field name, the values it may have (any of them), and whether it is negated; `CONDITIONS` maps each field to its SQL, and a
new filter is one more line there (and one in `store.find`, for the search index). Values are always bound parameters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    any_,
    case,
    cast,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, INET, TEXT

from audit_service.core.folding import fold
from audit_service.core.sight import NOTHING, Sight
from audit_service.core.terms import after_prefix, search_words, spelled_lines
from audit_service.store.limits import holds_address, is_staff, is_veiled, row_conditions, unsure
from audit_service.store.tables import bound_receipt, seen_entry

Sort = Literal["-occurred_at", "occurred_at", "-seq", "seq"]
FilterValue = str | IPv4Network | IPv6Network
_c = seen_entry.c


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: `field` has any of `values`, or none of them when negated."""

    field: str
    values: tuple[FilterValue, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """What a caller selects. `server_id` is the one server of an activity feed, whatever it is called. `sight`: what of the log the caller
    may see; without one, nothing.

    Time ranges are half-open: [since, until) on occurred_at, [recorded_…) on recorded_at. With the seqs it is a range of places in the
    order of time, ties and all: (since, since_seq) <= (occurred_at, seq) < (until, until_seq).
    """

    filters: tuple[Filter, ...] = ()
    server_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    recorded_since: datetime | None = None
    recorded_until: datetime | None = None
    since_seq: int | None = None
    until_seq: int | None = None
    sight: Sight = NOTHING

    @property
    def is_whole(self) -> bool:
        """Whether it selects all that its sight admits."""
        return self == Selection(sight=self.sight)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: the sort key of its last row."""

    occurred_at: datetime
    seq: int


def _any_of(column: ColumnElement[Any]) -> Callable[[FilterValue], ColumnElement[bool]]:
    return lambda value: column == value


def _none_or(column: ColumnElement[Any]) -> Callable[[FilterValue], ColumnElement[bool]]:
    """`none` asks for entries without a value (global events)."""
    return lambda value: column.is_(None) if value == "none" else column == value


def _exact_or_prefix(column: ColumnElement[Any]) -> Callable[[FilterValue], ColumnElement[bool]]:
    def condition(value: FilterValue) -> ColumnElement[bool]:
        text = str(value)
        return _prefix(column, text[:-1]) if text.endswith("*") else column == text

    return condition


def _prefix(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """A prefix as a range: in C collation UTF-8 sorts by code point."""
    return and_(column >= text, column < after_prefix(text)) if text else column.is_not(None)


def _actor(value: FilterValue) -> ColumnElement[bool]:
    if not str(value).endswith("*"):
        matches: ColumnElement[bool] = _c.actor_keys.contains(cast([fold(str(value))], ARRAY(TEXT)))
        return matches
    text = fold(str(value)[:-1])
    key = func.unnest(_c.actor_keys).table_valued("key").render_derived()
    return select(1).select_from(key).where(_prefix(key.c.key, text)).exists()


def _ip(value: FilterValue) -> ColumnElement[bool]:
    network = cast(str(value), INET)
    inside: ColumnElement[bool] = _c.ip.bool_op("<<=")(network)
    return inside


def _ids(values: Sequence[FilterValue], c: Any = _c) -> ColumnElement[bool]:
    # Ids are indexed once, where they are unique for ever: in the receipts. A forged receipt may name any entry, so the entry
    # must have one of the ids too. All in one comparison: of several, PostgreSQL would ask each entry of the log.
    ids = cast(list(values), ARRAY(TEXT))
    named = select(bound_receipt.c.seq).where(bound_receipt.c.id == any_(ids), bound_receipt.c.log_id == c.log_id)
    return and_(c.seq.in_(named), c.id == any_(ids))


def _text(value: FilterValue) -> ColumnElement[bool]:
    """Every word of a search stands somewhere in the search text."""
    return and_(*(func.strpos(_c.search, word) > 0 for word in search_words(str(value))))


def path_ranges(value: str) -> list[tuple[str, str]]:
    """The ranges [low, high) of paths that `changed=` asks for: a path and what lies below it; with `*` at the end what begins so."""
    if value.endswith("*"):
        return [(value[:-1], after_prefix(value[:-1]))]
    return [(value, value + "\x01"), (f"{value}/", after_prefix(f"{value}/"))]


def _changed(value: FilterValue) -> ColumnElement[bool]:
    path = func.unnest(_c.paths).table_valued("path").render_derived()
    ranges = (and_(path.c.path >= low, path.c.path < high) for low, high in path_ranges(str(value)))
    return select(1).select_from(path).where(or_(*ranges)).exists()


def _changes_match(
    paths: Sequence[FilterValue] | None, old: Sequence[FilterValue] | None, new: Sequence[FilterValue] | None
) -> ColumnElement[bool]:
    """One change has any of these paths, of these old and of these new values. Opening the changes is slow: only where the paths and the
    search text, which holds the values as lines, leave it possible."""
    ranges = None if paths is None else [range_ for path in paths for range_ in path_ranges(str(path))]
    possible = [or_(*(_has_line(str(value)) for value in values)) for values in (old, new) if values is not None]
    if paths is not None:
        possible.append(or_(*map(_changed, paths)))
    arrays = (
        None if ranges is None else [low for low, _ in ranges],
        None if ranges is None else [high for _, high in ranges],
        old,
        new,
    )
    matches = func.audit.changes_match(
        _c.d_changes,
        *(cast(None if values is None else [str(value) for value in values], ARRAY(TEXT)) for values in arrays),
    )
    return case((and_(*possible), matches), else_=False)


def _has_line(value: str) -> ColumnElement[bool]:
    """Whether the search text leaves it possible that a changed value is spelled so."""
    text = literal("\n") + _c.search + literal("\n")
    alternatives = ((func.strpos(text, f"\n{fold(line)}\n") > 0 for line in lines) for lines in spelled_lines(value))
    return or_(*(and_(true(), *all_of) for all_of in alternatives))


CONDITIONS: dict[str, Callable[[FilterValue], ColumnElement[bool]]] = {
    "actor": _actor,
    "actor_type": _any_of(_c.actor_type),
    "role": _any_of(_c.actor_role),
    "action": _exact_or_prefix(_c.action),
    "verb": _any_of(_c.verb),
    "category": _any_of(_c.category),
    "target_type": _any_of(_c.target_type),
    "target_id": _any_of(_c.target_id),
    "server_id": _none_or(_c.server_id),
    "ip": _ip,
    "outcome": _any_of(_c.outcome),
    "id": lambda value: _ids([value]),
    "session": _any_of(_c.session),
    "request_id": _any_of(_c.request_id),
    "changed": _changed,
    "old": lambda value: _changes_match(None, [value], None),
    "new": lambda value: _changes_match(None, None, [value]),
    "q": _text,
}
# What is said of who acted, and of their connection.
OF_ACTOR = ("actor", "role", "session", "ip", "request_id")
_OF_A_CHANGE = ("changed", "old", "new")
# Fields whose several values are one comparison with an array, which one index scan answers.
_PLAIN: dict[str, ColumnElement[Any]] = {
    name: getattr(_c, {"role": "actor_role"}.get(name, name))
    for name in (
        "actor_type",
        "role",
        "verb",
        "category",
        "target_type",
        "target_id",
        "outcome",
        "session",
        "request_id",
    )
}


def base_conditions(log_id: int, selection: Selection) -> list[ColumnElement[bool]]:
    """What can be said of a selection without its filters, save those that lead to one server or one target; and all that its sight
    says."""
    recorded = _between(_c.recorded_at, selection.recorded_since, selection.recorded_until)
    return [*walk_conditions(log_id, selection), *recorded, *sight_conditions(selection)]


def sight_conditions(selection: Selection) -> list[ColumnElement[bool]]:
    """What the sight of a selection says of an entry. A server that the selection names needs no comparison with many."""
    sight, named = selection.sight, named_servers(selection)
    if any(not sight.admits_server(server_id) for server_id in named):
        return [false()]
    return row_conditions(sight, server_named=bool(named))


def named_servers(selection: Selection) -> list[str | None]:
    """The server that a selection asks for alone, None for global events; empty when it asks for several, or any. (Two are no server.)"""
    named = [] if selection.server_id is None else [selection.server_id]
    filters = [item.values[0] for item in _base_filters(selection) if item.field == "server_id"]
    return [*named, *(None if value == "none" else str(value) for value in filters)]


def _between(column: ColumnElement[Any], low: datetime | None, high: datetime | None) -> list[ColumnElement[bool]]:
    return [*([] if low is None else [column >= low]), *([] if high is None else [column < high])]


def walk_conditions(log_id: int, selection: Selection, of: Any = seen_entry) -> list[ColumnElement[bool]]:
    """What of a selection an index of the table answers in the order of time: the log, when it occurred, and one server or one target.
    Entries whose body was dropped are in no list, so `occurred_at` is always asked for. What the sight says is no part of it."""
    c = of.c
    found: list[ColumnElement[bool]] = [c.log_id == log_id, c.occurred_at.is_not(None)]
    found += _between(c.occurred_at, selection.since, selection.until if selection.until_seq is None else None)
    by_time = Order("occurred_at", of)
    if selection.since is not None and selection.since_seq is not None:
        found.append(by_time.behind(Position(selection.since, selection.since_seq), inclusive=True))
    if selection.until is not None and selection.until_seq is not None:
        found.append(by_time.before(Position(selection.until, selection.until_seq)))
    if selection.server_id is not None:
        found.append(c.server_id == selection.server_id)
    found.extend(_base_condition(item, c) for item in _base_filters(selection))
    return found


def _base_condition(item: Filter, c: Any) -> ColumnElement[bool]:
    """One of `_base_filters`."""
    if item.field == "id":
        return _ids(item.values, c)
    column: ColumnElement[Any] = c[item.field]
    return (_none_or(column) if item.field == "server_id" else _any_of(column))(item.values[0])


def conditions(log_id: int, selection: Selection) -> list[ColumnElement[bool]]:
    """The whole WHERE of a selection."""
    base = _base_filters(selection)
    rest = [item for item in selection.filters if item not in base]
    # Asked for together, path and values are those of one change: who set this field from 30 to 7?
    wanted = {item.field: item.values for item in rest if item.field in _OF_A_CHANGE and not item.negated}
    if wanted.keys() & {"old", "new"}:
        together = [_changes_match(*(wanted.get(name) for name in _OF_A_CHANGE))]
        rest = [item for item in rest if item.negated or item.field not in _OF_A_CHANGE]
    else:
        together = []
    return [*base_conditions(log_id, selection), *together, *(_condition(item, selection.sight) for item in rest)]


def is_direct(selection: Selection) -> bool:
    """Whether an index of the table answers the whole selection in order of time, also what its sight says: all servers, or one that the
    selection names. (Of the service's own entries a server or target has few, and the log few among its others.)"""
    by_index = len(_base_filters(selection)) == len(selection.filters)
    by_time = selection.recorded_since is None and selection.recorded_until is None
    sight = selection.sight
    of_servers = bool(named_servers(selection)) or (sight.server_ids is None and sight.global_events)
    return (
        by_index
        and by_time
        and of_servers
        and sight.categories is None
        and (sight.actor_id, sight.actor_type) == (None, None)
    )


def names_ids(selection: Selection) -> bool:
    """Whether a selection is of certain ids: no more entries than a request can name, each found by itself."""
    return any(map(_is_of_ids, selection.filters))


def _is_of_ids(item: Filter) -> bool:
    return item.field == "id" and not item.negated


def _base_filters(selection: Selection) -> list[Filter]:
    """The filters that lead to one range of an index that goes on with time and seq. An id is one entry at most."""
    single = {item.field: item for item in selection.filters if not item.negated and len(item.values) == 1}
    names = {"server_id"} | ({"target_type", "target_id"} if {"target_type", "target_id"} <= single.keys() else set())
    return [*filter(_is_of_ids, selection.filters), *(single[name] for name in sorted(names & single.keys()))]


def _condition(item: Filter, sight: Sight) -> ColumnElement[bool]:
    """A filter, going by what the sight shows; of entries that are `unsure` it lets through too many rather than too few."""
    matches = _seen(item, _matches(item), sight)
    if not item.negated:
        return matches  # as it is: of a comparison wrapped into anything PostgreSQL would take half of all entries to be it
    # An entry without a value is not one of the values: NOT (NULL = x) would lose it.
    without = not_(func.coalesce(matches, false()))
    return or_(without, unsure(item.field, sight)) if is_veiled(item.field, sight) else without


def _matches(item: Filter) -> ColumnElement[bool]:
    """Whether an entry has one of the values."""
    if item.field in _PLAIN:
        column = _PLAIN[item.field]
        if len(item.values) == 1:
            return column == item.values[0]
        return column == any_(cast(list(item.values), ARRAY(TEXT)))
    if item.field == "id":
        return _ids(item.values)
    return or_(false(), *(CONDITIONS[item.field](value) for value in item.values))


def _seen(item: Filter, matches: ColumnElement[bool], sight: Sight) -> ColumnElement[bool]:
    """Whether an entry has one of the values where it is seen. What is hidden is not there."""
    if item.field == "ip" and not sight.ips:
        return false()
    parts = [matches]
    if not sight.emails and item.field == "role":
        parts.append(not_(holds_address(_c.actor_role)))
    if not sight.emails and item.field == "actor":
        parts.append(
            or_(*(_may_be(column, str(value)) for value in item.values for column in (_c.actor_id, _c.actor_name)))
        )
    if sight.staff_as is not None and item.field in OF_ACTOR:
        parts.append(not_(is_staff(sight)))
    return and_(*parts)


def _may_be(column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    """Whether an id or name may fold to a value of the filter `actor`. In these columns PostgreSQL lowers ASCII only, as folding does."""
    low = func.lower(column)
    same = _prefix(low, fold(value[:-1])) if value.endswith("*") else low == fold(value)
    return or_(func.octet_length(column) != func.char_length(column), same)


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a list, and where in it a row or a position stands. `of`: the view of entries that is put in order."""

    sort: Sort
    of: Any = seen_entry

    @property
    def by_time(self) -> bool:
        """Whether by occurred_at first; seq breaks ties."""
        return self.sort.endswith("occurred_at")

    @property
    def descending(self) -> bool:
        """Whether the newest come first."""
        return self.sort.startswith("-")

    @property
    def columns(self) -> tuple[ColumnElement[Any], ...]:
        """What is ordered by."""
        return (self.of.c.occurred_at, self.of.c.seq) if self.by_time else (self.of.c.seq,)

    def key(self, position: Position) -> tuple[Any, ...]:
        """A position as the columns spell it."""
        return (position.occurred_at, position.seq) if self.by_time else (position.seq,)

    def behind(self, position: Position, *, inclusive: bool = False) -> ColumnElement[bool]:
        """What stands behind a position, or also at it.

        In orders of time the moment is said by itself too: PostgreSQL ends a scan of the index at a comparison of rows only where no
        other bound of time is given beside it, and read the index to its far end else.
        """
        columns = tuple_(*self.columns)
        parts = zip(self.key(position), self.columns, strict=True)
        bound = tuple_(*(literal(value, type_=column.type) for value, column in parts))
        at, moment = self.columns[0], literal(self.key(position)[0], type_=self.columns[0].type)
        if self.descending:
            behind, within = columns <= bound if inclusive else columns < bound, at <= moment
        else:
            behind, within = columns >= bound if inclusive else columns > bound, at >= moment
        return and_(within, behind) if self.by_time else behind

    def before(self, position: Position) -> ColumnElement[bool]:
        """What stands before a position."""
        return self._reversed().behind(position)

    def up_to(self, position: Position) -> ColumnElement[bool]:
        """What stands before a position, and at it."""
        return self._reversed().behind(position, inclusive=True)

    def _reversed(self) -> "Order":
        return Order(self.sort[1:] if self.descending else f"-{self.sort}", self.of)  # type: ignore[arg-type]

    def apply(self, query: Select[Any]) -> Select[Any]:
        """The query in this order."""
        return query.order_by(*(column.desc() if self.descending else column.asc() for column in self.columns))
