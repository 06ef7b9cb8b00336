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
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, INET, TEXT, TIMESTAMP
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core.entry import GROUPS
from audit_service.core.folding import fold
from audit_service.errors import UnavailableError
from audit_service.store.tables import bound_entry, bound_log, bound_receipt

Sort = Literal["-occurred_at", "occurred_at", "-seq", "seq"]
FilterValue = str | IPv4Network | IPv6Network
_c = bound_entry.c

# What is needed to show an event: the header, the body and the disclosures. Never the projections: they are for finding; but
# the id, by which an event whose body cannot be read is still known.
HEADER_COLUMNS = ("seq", "epoch", "recorded_at", "kind", "prev_hash", "body_hash", "hash")
EVENT_COLUMNS = (*HEADER_COLUMNS, "id", "body", *(f"d_{group}" for group in GROUPS))


# What one page or slice may hold of bodies, disclosures and search text: events may be megabytes each.
BUDGET_BYTES = 4 * 1024 * 1024
_SIZE_BYTES = sum(
    (func.coalesce(func.octet_length(_c[name]), 0) for name in ("body", "search", *(f"d_{group}" for group in GROUPS))),
    literal(0),
).label("size_bytes")

# PostgreSQL's calendar is longer than Python's, so a damaged time could not even be read. Such a one is brought as an infinity,
# which the driver gives as the calendar's end without a zone: equal to no time of ours.
_FIRST, _LAST, _NEVER, _FOREVER = (
    literal_column(f"TIMESTAMPTZ '{text}'", TIMESTAMP(timezone=True))
    for text in ("0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00", "-infinity", "infinity")
)


def _readable(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A time as the driver can bring it; null stays null."""
    return case((column < _FIRST, _NEVER), (column > _LAST, _FOREVER), else_=column).label(column.key)


_TIMES = {name: _readable(_c[name]) for name in ("recorded_at", "occurred_at")}


def _columns(names: Sequence[str]) -> list[ColumnElement[Any]]:
    return [_TIMES.get(name, _c[name]) for name in names]


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: `field` has any of `values`, or none of them when negated."""

    field: str
    values: tuple[FilterValue, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """What a caller selects. `server_id` is the one server of an activity feed, whatever it is called.

    Time ranges are half-open: [since, until) on occurred_at, [recorded_…) on recorded_at.
    """

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
    # Ids are indexed once, where they are unique for ever: in the receipts. A forged receipt may name any entry, so the entry
    # must have the id too.
    named = select(bound_receipt.c.seq).where(bound_receipt.c.id == value, bound_receipt.c.log_id == _c.log_id)
    return and_(_c.seq.in_(named), _c.id == value)


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
    columns: Sequence[str] = EVENT_COLUMNS,
) -> Page:
    """One page of entries in `sort` order, those after `after`. The cost does not grow with the page's number. `occurred_at` and
    `size_bytes` come with any columns.

    A damaged entry whose occurred_at is beyond the calendar has no place in the order of time; `seq` order and exports show it.
    """
    query = select(*_columns(columns), _SIZE_BYTES).where(*conditions(log_id, selection))
    if sort in {"-occurred_at", "occurred_at"}:
        # The plain column, so that the index's order stays known to the planner.
        query = query.add_columns(_c.occurred_at).where(_c.occurred_at >= _FIRST, _c.occurred_at <= _LAST)
    else:
        query = query.add_columns(_TIMES["occurred_at"])
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
    """The entry of an event id, or None: unknown, not kept, pruned, or another tenant's. Receipt and entry must both have the id."""
    query = (
        select(*_columns(EVENT_COLUMNS))
        .join(bound_receipt, and_(bound_receipt.c.log_id == _c.log_id, bound_receipt.c.seq == _c.seq))
        .where(bound_receipt.c.log_id == log_id, bound_receipt.c.id == event_id)
        .where(_c.log_id == log_id, _c.id == event_id)
        .limit(1)  # where the keys that keep rows unique were dropped, there may be more
    )
    return (await connection.execute(query)).first()


async def fetch_head(connection: AsyncConnection, log_id: int) -> Any:
    """The head row of the bound log: service_name, log_key, epoch, size, last_hash, last_recorded_at, frontier. As it is: any
    of them may be null or nonsense in a damaged one, and a time beyond the calendar is an infinity. Raises NoResultFound,
    MultipleResultsFound."""
    columns = (_readable(column) if column.key == "last_recorded_at" else column for column in bound_log.c)
    return (await connection.execute(select(*columns).where(bound_log.c.log_id == log_id))).one()


async def fetch_sound_head(connection: AsyncConnection, log_id: int) -> Any:
    """The head row, when it can be read; whether it is true, `verify` says. Raises UnavailableError."""
    try:
        head = await fetch_head(connection, log_id)
    except (NoResultFound, MultipleResultsFound):
        raise UnavailableError("the log has no head row, or more than one: verify it, and restore it") from None
    if None in head or head.size < 0 or head.last_recorded_at.tzinfo is None:
        raise UnavailableError("the head row of the log is damaged: verify the log, and restore the row")
    return head


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
    query = select(*_columns(columns), _SIZE_BYTES).where(*where, _c.seq >= from_seq, _c.seq < to_seq)
    return await _fetch_within_budget(connection, query.order_by(_c.seq), "seq", limit)


async def count_at(connection: AsyncConnection, log_id: int, seq: int) -> int:
    """How many rows have this seq: one, unless the primary key was dropped."""
    query = select(func.count()).select_from(bound_entry).where(_c.log_id == log_id, _c.seq == seq)
    return (await connection.execute(query)).scalar_one()


# What a receipt repeats of its entry.
RECEIPT_COLUMNS = ("seq", "hash", "prev_hash", "epoch", "recorded_at")


async def list_receipt_faults(connection: AsyncConnection, log_id: int, from_seq: int, to_seq: int) -> dict[int, str]:
    """Seq → what does not hold, for events with from_seq <= seq < to_seq whose receipt is missing, doubled or says something else.

    An event without its id (its body was dropped) has no receipt to look for. LATERAL with an aggregate is a probe of the
    key for each entry, whatever the statistics say.
    """
    r = bound_receipt.c
    same = [func.bool_and(r[name].is_not_distinct_from(_c[name])).label(name) for name in RECEIPT_COLUMNS]
    probe = (
        select(func.count().label("found"), *same, func.bool_and(r.kept).label("kept"))
        .where(r.log_id == _c.log_id, r.id == _c.id)
        .lateral()
    )
    holds = and_(probe.c.found == 1, *(probe.c[name] for name in (*RECEIPT_COLUMNS, "kept")))
    query = (
        select(_c.seq.label("at"), probe)
        .select_from(bound_entry.join(probe, true()))
        .where(_c.log_id == log_id, _c.seq >= from_seq, _c.seq < to_seq, _c.kind == "event", _c.id.is_not(None))
        .where(holds.is_not(True))
    )
    return {row.at: _receipt_fault(row) for row in await connection.execute(query)}


def _receipt_fault(row: Any) -> str:
    if row.found != 1:
        return "one receipt of the entry's id"
    names = [name for name in (*RECEIPT_COLUMNS, "kept") if not getattr(row, name)]
    return f"{', '.join(names)} as in the entry"


@dataclass(frozen=True, slots=True)
class Receipts:
    """Some receipts in the order of their ids. `last_id`: None when there were none; `claims`: how many name a seq of the log;
    `outside`: the seqs that the log has not got yet, or never will."""

    last_id: str | None
    claims: int
    outside: Sequence[int]


async def count_receipts(
    connection: AsyncConnection, log_id: int, *, after_id: str | None, size: int, limit: int
) -> Receipts:
    """The next receipts after an id. `size` bounds `claims`; `outside` is judged by the head in the same snapshot, so an append
    meanwhile is no alarm."""
    some = _receipts_after(log_id, after_id, limit)
    head = select(func.greatest(func.max(bound_log.c.size), size)).where(bound_log.c.log_id == log_id).scalar_subquery()
    query = select(
        func.max(some.c.id).label("last_id"),
        func.count().filter(some.c.seq >= 0, some.c.seq < size).label("claims"),
        func.array_agg(some.c.seq).filter(or_(some.c.seq < 0, some.c.seq >= head)).label("outside"),
    )
    row = (await connection.execute(query)).one()
    return Receipts(row.last_id, row.claims, row.outside or [])


async def list_stray_receipts(
    connection: AsyncConnection, log_id: int, *, after_id: str | None, size: int, limit: int
) -> Sequence[int]:
    """Of the same receipts, the seqs below `size` that are not theirs: the entry there is no event, or has another id, or, when it
    has lost its id, another hash. (Where no entry is, that is a gap.)"""
    some = _receipts_after(log_id, after_id, limit)
    another = or_(_c.kind != "event", _c.id != some.c.id, and_(_c.id.is_(None), _c.hash.is_distinct_from(some.c.hash)))
    query = (
        select(some.c.seq)
        .join(bound_entry, and_(_c.log_id == log_id, _c.seq == some.c.seq))
        .where(some.c.seq < size, another)
        .order_by(some.c.seq)
    )
    return (await connection.execute(query)).scalars().all()


def _receipts_after(log_id: int, after_id: str | None, limit: int) -> Any:
    r = bound_receipt.c
    query = select(r.id, r.seq, r.hash).where(r.log_id == log_id).order_by(r.id).limit(limit)
    return (query if after_id is None else query.where(r.id > after_id)).subquery()


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
