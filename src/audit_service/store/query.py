"""Reading the log as it stands: its head, one entry, slices in the order of seq, and receipts. What a person looks for is in `find`.

Every statement names its log *and* runs inside `store.engine.bound`, so a forgotten WHERE leaks nothing (decision 0002).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, literal_column, or_, select, true
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core.sight import Sight
from audit_service.errors import UnavailableError
from audit_service.store.limits import row_conditions
from audit_service.store.rows import (
    EVENT_COLUMNS,
    HEADER_COLUMNS,
    Slice,
    columns,
    fetch_within_budget,
    readable,
    size_of,
)
from audit_service.store.tables import bound_entry, bound_log, bound_receipt, seen_entry

_c = bound_entry.c


async def find_entry(connection: AsyncConnection, log_id: int, event_id: str, sight: Sight) -> Any | None:
    """The entry of an event id, or None: unknown, not kept, pruned, another tenant's, or not for this sight. Receipt and entry must both
    have the id."""
    s = seen_entry.c
    query = (
        select(*columns(EVENT_COLUMNS))
        .join(bound_receipt, and_(bound_receipt.c.log_id == s.log_id, bound_receipt.c.seq == s.seq))
        .where(bound_receipt.c.log_id == log_id, bound_receipt.c.id == event_id)
        .where(s.log_id == log_id, s.id == event_id, *row_conditions(sight))
        .limit(1)  # where the keys that keep rows unique were dropped, there may be more
    )
    return (await connection.execute(query)).first()


async def is_forgotten(connection: AsyncConnection, log_id: int, event_id: str, sight: Sight) -> bool:
    """Whether the event of an id was taken in once, and its content dropped or its entry pruned since. Never for a sight that does not see
    every entry: whose it was is forgotten too."""
    if not sight.sees_every_row:
        return False
    r, s = bound_receipt.c, seen_entry.c
    cut = select(bound_log.c.pruned_before).where(bound_log.c.log_id == log_id).scalar_subquery()
    # Of a pruned entry there is nothing left that the view could judge: the sight that is bound has to be such a one too.
    pruned = and_(r.seq < cut, func.current_setting("audit.sight", True).in_(("every", "panels")))
    dropped = exists().where(s.log_id == log_id, s.seq == r.seq, s.body.is_(None), s.id.is_(None))
    query = select(r.seq).where(r.log_id == log_id, r.id == event_id, r.kept, or_(pruned, dropped))
    return (await connection.execute(query)).first() is not None


async def fetch_head(connection: AsyncConnection, log_id: int) -> Any:
    """The head row of the bound log: service_name, log_key, epoch, size, last_hash, last_recorded_at, frontier. As it is: any
    of them may be null or nonsense in a damaged one, and a time beyond the calendar is an infinity. Raises NoResultFound,
    MultipleResultsFound."""
    found = (readable(column) if column.key == "last_recorded_at" else column for column in bound_log.c)
    return (await connection.execute(select(*found).where(bound_log.c.log_id == log_id))).one()


async def fetch_size(connection: AsyncConnection, log_id: int) -> int:
    """How many entries the head says there are, however damaged it is; for what need not be right."""
    size = await connection.scalar(select(func.max(bound_log.c.size)).where(bound_log.c.log_id == log_id))
    return size or 0


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
    names: Sequence[str],
    *,
    from_seq: int,
    to_seq: int,
    limit: int,
) -> Slice:
    """Up to `limit` rows with from_seq <= seq < to_seq in seq order: the short slice that long reads are made of. `names` are those of
    the columns."""
    query = select(*columns(names, bound_entry), size_of(of=bound_entry)).where(
        _c.log_id == log_id, _c.seq >= from_seq, _c.seq < to_seq
    )
    return await fetch_within_budget(connection, query.order_by(_c.seq), "seq", limit)


async def list_headers(connection: AsyncConnection, log_id: int, from_seq: int, to_seq: int) -> Sequence[Any]:
    """HEADER_COLUMNS of the entries with from_seq <= seq < to_seq, in the order of seq. For ranges of a few hundred."""
    query = select(*columns(HEADER_COLUMNS, bound_entry)).where(
        _c.log_id == log_id, _c.seq >= from_seq, _c.seq < to_seq
    )
    return (await connection.execute(query.order_by(_c.seq))).all()


async def list_controls(
    connection: AsyncConnection, log_id: int, *, from_seq: int, to_seq: int, explaining_from: int, limit: int
) -> Slice:
    """Control entries with from_seq <= seq < to_seq in seq order, header and body, up to `limit`. Of those that explain what is gone only
    the ones after `explaining_from`: earlier ones explain nothing from there on."""
    query = (
        select(*columns((*HEADER_COLUMNS, "body"), bound_entry), size_of(of=bound_entry))
        .where(_c.log_id == log_id, _c.seq >= from_seq, _c.seq < to_seq, _c.kind != literal_column("'event'"))
        .where(or_(_c.seq > explaining_from, _c.kind.not_in(("drop", "erase"))))
        .order_by(_c.seq)
    )
    return await fetch_within_budget(connection, query, "seq", limit)


async def count_at(connection: AsyncConnection, log_id: int, seq: int) -> int:
    """How many rows have this seq: one, unless the primary key was dropped."""
    query = select(func.count()).select_from(bound_entry).where(_c.log_id == log_id, _c.seq == seq)
    return (await connection.execute(query)).scalar_one()


# What a receipt repeats of its entry.
RECEIPT_COLUMNS = ("seq", "hash", "prev_hash", "epoch", "recorded_at")


async def list_receipt_faults(connection: AsyncConnection, log_id: int, from_seq: int, to_seq: int) -> dict[int, str]:
    """Seq → what does not hold, for entries with from_seq <= seq < to_seq whose receipt is missing, doubled or says something else.

    An entry without its id (its body was dropped) has no receipt to look for. LATERAL with an aggregate is a probe of the
    key for each entry, whatever the statistics say.
    """
    probe, holds = _receipt_probe()
    query = (
        select(_c.seq.label("at"), probe)
        .select_from(bound_entry.join(probe, true()))
        .where(*_with_receipts(log_id, from_seq, to_seq), holds.is_not(True))
    )
    return {row.at: _receipt_fault(row) for row in await connection.execute(query)}


def holding_receipts(log_id: int, from_seq: Any, to_seq: Any) -> Select[int, int]:
    """How many entries of a range should have a receipt, and how many have one that holds: equal when `list_receipt_faults` has nothing
    to list."""
    probe, holds = _receipt_probe()
    return (
        select(func.count(), func.count().filter(holds))
        .select_from(bound_entry.join(probe, true()))
        .where(*_with_receipts(log_id, from_seq, to_seq))
    )


def _with_receipts(log_id: int, from_seq: Any, to_seq: Any) -> tuple[ColumnElement[bool], ...]:
    """The entries of a range that have an id: each must have a receipt."""
    return _c.log_id == log_id, _c.seq >= from_seq, _c.seq < to_seq, _c.id.is_not(None)


def _receipt_probe() -> tuple[Any, ColumnElement[bool]]:
    """What is found of an entry's receipt, and whether it is as it should be."""
    r = bound_receipt.c
    same = [func.bool_and(r[name].is_not_distinct_from(_c[name])).label(name) for name in RECEIPT_COLUMNS]
    probe = (
        select(func.count().label("found"), *same, func.bool_and(r.kept).label("kept"))
        .where(r.log_id == _c.log_id, r.id == _c.id)
        .lateral()
    )
    return probe, and_(probe.c.found == 1, *(probe.c[name] for name in (*RECEIPT_COLUMNS, "kept")))


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
    connection: AsyncConnection, log_id: int, *, after_id: str | None, from_seq: int, size: int, limit: int
) -> Receipts:
    """The next receipts after an id. `claims` are those from `from_seq` (entries before it were pruned) to `size`; `outside` is judged by
    the head in the same snapshot, so an append meanwhile is no alarm."""
    some = _receipts_after(log_id, after_id, limit)
    head = select(func.greatest(func.max(bound_log.c.size), size)).where(bound_log.c.log_id == log_id).scalar_subquery()
    query = select(
        func.max(some.c.id).label("last_id"),
        func.count().filter(some.c.seq >= from_seq, some.c.seq < size).label("claims"),
        func.array_agg(some.c.seq).filter(or_(some.c.seq < 0, some.c.seq >= head)).label("outside"),
    )
    row = (await connection.execute(query)).one()
    return Receipts(row.last_id, row.claims, row.outside or [])


async def list_stray_receipts(
    connection: AsyncConnection, log_id: int, *, after_id: str | None, size: int, limit: int
) -> Sequence[int]:
    """Of the same receipts, the seqs below `size` that are not theirs: the entry there has another id, or, when it has lost its id,
    another hash. (Where no entry is, it was pruned, or that is a gap.)"""
    some = _receipts_after(log_id, after_id, limit)
    another = or_(_c.id != some.c.id, and_(_c.id.is_(None), _c.hash.is_distinct_from(some.c.hash)))
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
