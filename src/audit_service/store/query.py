"""Reading entries: filters, sort orders and keyset pages, compiled to SQL in one place.

Every statement names its log *and* runs inside `store.engine.bound`, so a forgotten WHERE leaks nothing (decision 0002).
A filter is a field name, the values it may have (any of them), and whether it is negated; `CONDITIONS` maps each field
to its SQL, and a new filter is one more line there. Values are always bound parameters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    any_,
    cast,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, INET, TEXT
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core.entry import GROUPS
from audit_service.core.folding import fold
from audit_service.store.tables import bound_entry, bound_log, bound_receipt

Sort = Literal["-occurred_at", "occurred_at", "-seq", "seq"]
FilterValue = str | IPv4Network | IPv6Network
_c = bound_entry.c

# What is needed to show an event: the header, the body and the disclosures. Never the projections: they are for finding.
HEADER_COLUMNS = ("seq", "epoch", "recorded_at", "kind", "prev_hash", "body_hash", "hash")
EVENT_COLUMNS = (*HEADER_COLUMNS, "body", *(f"d_{group}" for group in GROUPS))


# What one page or slice may hold of bodies, disclosures and search text: events may be megabytes each.
BUDGET_BYTES = 4 * 1024 * 1024
_SIZE_BYTES = sum(
    (func.coalesce(func.octet_length(_c[name]), 0) for name in ("body", "search", *(f"d_{group}" for group in GROUPS))),
    literal(0),
).label("size_bytes")


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: `field` has any of `values`, or none of them when negated."""

    field: str
    values: tuple[FilterValue, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """What a caller selects. `server_id` is the one server of an activity feed, whatever it is called. Time ranges are half-open: [since, until) on occurred_at, [recorded_…) on recorded_at."""

    filters: tuple[Filter, ...] = ()
    server_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    recorded_since: datetime | None = None
    recorded_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: the sort key of its last row."""

    occurred_at: datetime
    seq: int


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one page and where the next begins; `next` is None at the end."""

    rows: Sequence[Any] = field(default_factory=tuple)
    next: Position | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows, and whether there are more behind them."""

    rows: Sequence[Any]
    more: bool


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
    """A prefix as a range, which a plain index in C collation answers (LIKE would need another operator class).

    In C collation UTF-8 sorts by code point, so the end of the range is the prefix with its last code point raised.
    """
    if not text:
        return column.is_not(None)
    last = ord(text[-1])
    following = 0xE000 if last == 0xD7FF else last + 1  # no surrogates in UTF-8
    below = column < text[:-1] + chr(following) if following <= 0x10FFFF else literal(True)
    return and_(column >= text, below)


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


def _id(value: FilterValue) -> ColumnElement[bool]:
    # Ids are indexed once, where they are unique for ever: in the receipts.
    found: ColumnElement[bool] = _c.seq.in_(
        select(bound_receipt.c.seq).where(bound_receipt.c.id == value, bound_receipt.c.log_id == _c.log_id)
    )
    return found


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
    "id": _id,
    "session": _any_of(_c.session),
    "request_id": _any_of(_c.request_id),
}
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


def conditions(log_id: int, selection: Selection) -> list[ColumnElement[bool]]:
    """The WHERE of a selection. Entries whose body was dropped are in no list, so `occurred_at` is always asked for."""
    found: list[ColumnElement[bool]] = [_c.log_id == log_id, _c.occurred_at.is_not(None)]
    for column, low, high in (
        (_c.occurred_at, selection.since, selection.until),
        (_c.recorded_at, selection.recorded_since, selection.recorded_until),
    ):
        if low is not None:
            found.append(column >= low)
        if high is not None:
            found.append(column < high)
    if selection.server_id is not None:
        found.append(_c.server_id == selection.server_id)
    found.extend(_condition(item) for item in selection.filters)
    return found


def _condition(item: Filter) -> ColumnElement[bool]:
    if item.field in _PLAIN:
        column = _PLAIN[item.field]
        matches = (
            column == item.values[0] if len(item.values) == 1 else column == any_(cast(list(item.values), ARRAY(TEXT)))
        )
    else:
        matches = or_(false(), *(CONDITIONS[item.field](value) for value in item.values))
    # An entry without a value is not one of the values: NOT (NULL = x) would lose it.
    return not_(func.coalesce(matches, literal(False))) if item.negated else matches


def _ordered(query: Select[Any], sort: Sort, after: Position | None) -> Select[Any]:
    key: tuple[ColumnElement[Any], ...]
    position: tuple[Any, ...] = ()
    if sort in {"-occurred_at", "occurred_at"}:
        key = (_c.occurred_at, _c.seq)
        position = (after.occurred_at, after.seq) if after else ()
    else:
        key = (_c.seq,)
        position = (after.seq,) if after else ()
    descending = sort.startswith("-")
    if position:
        bound = tuple_(*(literal(value, type_=part.type) for value, part in zip(position, key, strict=True)))
        query = query.where(tuple_(*key) < bound if descending else tuple_(*key) > bound)
    return query.order_by(*(part.desc() if descending else part.asc() for part in key))


async def list_entries(
    connection: AsyncConnection,
    log_id: int,
    selection: Selection,
    *,
    sort: Sort = "-occurred_at",
    after: Position | None = None,
    limit: int = 50,
) -> Page:
    """One page of entries in `sort` order, those after `after`. The cost does not grow with the page's number."""
    query = select(*(bound_entry.c[name] for name in (*EVENT_COLUMNS, "occurred_at")), _SIZE_BYTES).where(
        *conditions(log_id, selection)
    )
    found = await _fetch_within_budget(connection, _ordered(query, sort, after), sort, limit)
    last = found.rows[-1] if found.more else None
    return Page(found.rows, None if last is None else Position(last.occurred_at, last.seq))


async def count_entries(
    connection: AsyncConnection, log_id: int, selection: Selection, *, cap: int = 10_000
) -> tuple[int, bool]:
    """(count, whether it was capped): exact up to `cap`, because an exact count of everything reads everything."""
    inner = select(literal(1)).select_from(bound_entry).where(*conditions(log_id, selection)).limit(cap + 1).subquery()
    count = (await connection.execute(select(func.count()).select_from(inner))).scalar_one()
    return min(count, cap), count > cap


async def find_entry(connection: AsyncConnection, log_id: int, event_id: str) -> Any | None:
    """The entry of an event id, or None: unknown, not kept, pruned, or another tenant's."""
    query = (
        select(*(bound_entry.c[name] for name in EVENT_COLUMNS))
        .join(bound_receipt, and_(bound_receipt.c.log_id == _c.log_id, bound_receipt.c.seq == _c.seq))
        .where(bound_receipt.c.log_id == log_id, bound_receipt.c.id == event_id, _c.log_id == log_id)
    )
    return (await connection.execute(query)).one_or_none()


async def fetch_head(connection: AsyncConnection, log_id: int) -> Any:
    """The head row of the bound log: service_name, log_key, epoch, size, last_hash, last_recorded_at, frontier."""
    return (await connection.execute(select(bound_log).where(bound_log.c.log_id == log_id))).one()


async def list_slice(
    connection: AsyncConnection,
    log_id: int,
    columns: Sequence[str],
    *,
    from_seq: int,
    to_seq: int,
    limit: int,
    selection: Selection | None = None,
) -> Slice:
    """Up to `limit` rows with from_seq <= seq < to_seq in seq order: the short slice that long reads are made of."""
    where = conditions(log_id, selection) if selection is not None else [_c.log_id == log_id]
    query = select(*(bound_entry.c[name] for name in columns), _SIZE_BYTES).where(
        *where, _c.seq >= from_seq, _c.seq < to_seq
    )
    return await _fetch_within_budget(connection, query.order_by(_c.seq), "seq", limit)


async def _fetch_within_budget(connection: AsyncConnection, query: Select[Any], sort: Sort, limit: int) -> Slice:
    """The first `limit` rows of an ordered query, or as many fewer as fit into BUDGET_BYTES, but at least one. Sizes are read
    from the rows' headers, so what does not fit is never unpacked."""
    rows = query.limit(limit + 1).subquery()
    key = [rows.c.seq] if sort in {"seq", "-seq"} else [rows.c.occurred_at, rows.c.seq]
    order = [part.desc() if sort.startswith("-") else part.asc() for part in key]
    counted = select(
        rows,
        (func.sum(rows.c.size_bytes).over(order_by=order, rows=(None, 0)) - rows.c.size_bytes).label("bytes_before"),
        func.row_number().over(order_by=order).label("place"),
        func.count().over().label("found"),
    ).subquery()
    outer = [part.desc() if sort.startswith("-") else part.asc() for part in (counted.c[part.name] for part in key)]
    fitting = select(counted).where(counted.c.place <= limit, counted.c.bytes_before < BUDGET_BYTES).order_by(*outer)
    fetched = (await connection.execute(fitting)).all()
    return Slice(fetched, bool(fetched) and fetched[0].found > len(fetched))
