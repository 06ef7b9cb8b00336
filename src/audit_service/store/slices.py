"""Reading entries in the order of seq, slice by slice, as fast as the driver can: what exports and evidence are made of.

Compiled once for a whole read and handed to asyncpg as it is. A row costs a third of what it costs by way of SQLAlchemy.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.sight import Sight
from audit_service.store.engine import bound, driver, session_options
from audit_service.store.find import candidates
from audit_service.store.limits import binding
from audit_service.store.reading import Part, Rows, Session, SliceQuery
from audit_service.store.rows import BUDGET_BYTES, EVENT_COLUMNS, columns, size_of
from audit_service.store.selection import Selection, conditions
from audit_service.store.tables import bound_entry, seen_entry
from audit_service.store.veil import veil_of

# Two milliseconds of a worker, in which it answers nobody; larger ones are no faster.
SLICE_ENTRIES = 250
# Of a row: EVENT_COLUMNS, then these two.
SIZE, BEFORE = len(EVENT_COLUMNS), len(EVENT_COLUMNS) + 1


async def stream_slices(
    engine: AsyncEngine, log_id: int, selection: Selection, *, from_seq: int = 0, to_seq: int
) -> AsyncGenerator[Rows]:
    """The matching entries with from_seq <= seq < to_seq, in slices of up to SLICE_ENTRIES rows and about BUDGET_BYTES, each read in a
    transaction of its own. A row has EVENT_COLUMNS, its size in bytes, and the bytes of the slice before it. Never empty."""
    async for rows in stream_selected(engine, log_id, selection, from_seq=from_seq, to_seq=to_seq):
        assert not isinstance(rows, Part)  # noqa: S101 - none was asked for
        yield rows


async def stream_selected(
    engine: AsyncEngine,
    log_id: int,
    selection: Selection,
    *,
    from_seq: int = 0,
    to_seq: int,
    slices_here: int | None = None,
) -> AsyncGenerator[Rows | Part]:
    """The same; after `slices_here` of them, if so many are given, the parts of the log that hold the rest, for whoever reads them
    elsewhere. What has to be compared here is read here."""
    veil, session = veil_of(selection), _Bound(engine, log_id, selection.sight)
    ranges, named = _queries(engine, log_id, selection)
    read, here = 0, None if veil is not None else slices_here
    async for some in candidates(engine, log_id, selection, from_seq=from_seq, to_seq=to_seq):
        part = Part(some.start, some.stop) if isinstance(some, range) else Part(from_seq, to_seq, list(some))
        if here is not None and read >= here:
            yield part
            continue
        query = ranges if part.seqs is None else named
        async for rows in query.stream(session.fetch, part, SLICE_ENTRIES):
            left = rows if veil is None else [row for row in rows if veil.lets_through(row)]
            if left:
                yield left
            read += 1
            if here is not None and read >= here:
                rest = part.after(rows[-1][0])
                if rest.seqs or (rest.seqs is None and query.is_full(rows, SLICE_ENTRIES)):
                    yield rest
                break


def session_of(engine: AsyncEngine, log_id: int, selection: Selection) -> Session | None:
    """What another process needs for reading the parts of a selection; None where all of it is read here. The login is in it: hand it on
    where nobody else reads."""
    if veil_of(selection) is not None:
        return None
    bind = f"SET audit.log_id = '{log_id:d}'; {binding(selection.sight, 'SESSION')}"
    return Session(session_options(engine), bind, *_queries(engine, log_id, selection))


async def stream_range(
    engine: AsyncEngine, log_id: int, from_seq: int, to_seq: int, *, only_controls: bool = False
) -> AsyncGenerator[Rows]:
    """Every entry of a range, whatever its kind and whatever was forgotten of it, or the control entries among them; slices as above."""
    c = bound_entry.c
    where = [c.log_id == log_id, *([c.kind != "event"] if only_controls else [])]
    query = _query(engine, where, bound_entry)
    async for rows in query.stream(_Bound(engine, log_id).fetch, Part(from_seq, to_seq), SLICE_ENTRIES):
        yield rows


@dataclass(frozen=True, slots=True)
class _Bound:
    """Fetches rows in transactions that are bound to a log and, for what `seen_entry` shows, a sight."""

    engine: AsyncEngine
    log_id: int
    sight: Sight | None = None

    async def fetch(self, statement: str, *arguments: Any) -> Rows:
        async with bound(self.engine, self.log_id, self.sight) as connection:
            rows: Rows = await driver(connection).fetch(statement, *arguments)
        return rows


def _queries(engine: AsyncEngine, log_id: int, selection: Selection) -> tuple[SliceQuery, SliceQuery]:
    """Of a range, and of some seqs of one, what a selection matches."""
    where = conditions(log_id, selection)
    return _query(engine, where, seen_entry), _query(engine, where, seen_entry, named=True)


def _query(engine: AsyncEngine, where: Sequence[ColumnElement[bool]], of: Any, *, named: bool = False) -> SliceQuery:
    compiled = _slice_query(where, of, named=named).compile(dialect=engine.dialect)
    return SliceQuery(compiled.string, compiled.positiontup or (), compiled.params, BUDGET_BYTES, SIZE, BEFORE)


def _slice_query(conditions_: Sequence[ColumnElement[bool]], of: Any, *, named: bool) -> Select[Any]:
    """The next rows, up to the one that fills the budget. Sizes are read from the rows' headers: what does not fit is never unpacked."""
    seq = of.c.seq
    where = [*conditions_, seq >= _number("from_seq"), seq < _number("to_seq")]
    if named:
        where.append(seq == any_(bindparam("seqs", type_=ARRAY(BIGINT))))
    rows = (
        select(*columns(EVENT_COLUMNS, of), size_of(of=of))
        .where(*where)
        .order_by(seq)
        .limit(_number("entries"))
        .subquery()
    )
    before = func.sum(rows.c.size_bytes).over(order_by=rows.c.seq, rows=(None, 0)) - rows.c.size_bytes
    counted = select(rows, before.label("bytes_before")).subquery()
    return select(counted).where(counted.c.bytes_before < BUDGET_BYTES).order_by(counted.c.seq)


def _number(name: str) -> Any:
    return bindparam(name, type_=BIGINT)
