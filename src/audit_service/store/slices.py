"""Reading entries in the order of seq, slice by slice, as fast as the driver can: what exports and evidence are made of.

Compiled once for a whole read and handed to asyncpg as it is. A row costs a third of what it costs by way of SQLAlchemy.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.sight import Sight
from audit_service.store.engine import bound, driver
from audit_service.store.find import candidates
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
) -> AsyncGenerator[Sequence[Any]]:
    """The matching entries with from_seq <= seq < to_seq, in slices of up to SLICE_ENTRIES rows and about BUDGET_BYTES, each read in a
    transaction of its own. A row has EVENT_COLUMNS, its size in bytes, and the bytes of the slice before it. Never empty."""
    where, sight, veil = conditions(log_id, selection), selection.sight, veil_of(selection)
    ranges, named = _Reader(engine, log_id, where, sight), _Reader(engine, log_id, where, sight, named=True)
    async for some in candidates(engine, log_id, selection, from_seq=from_seq, to_seq=to_seq):
        async for rows in _stream_some(ranges, named, some):
            left = rows if veil is None else [row for row in rows if veil.lets_through(row)]
            if left:
                yield left


async def _stream_some(ranges: "_Reader", named: "_Reader", some: Sequence[int]) -> AsyncGenerator[Sequence[Any]]:
    """The entries of a range, or of a list of seqs."""
    if isinstance(some, range):
        async for rows in ranges.stream(some.start, some.stop):
            yield rows
        return
    for start in range(0, len(some), SLICE_ENTRIES):
        seqs = some[start : start + SLICE_ENTRIES]
        async for rows in named.stream(seqs[0], seqs[-1] + 1, seqs):
            yield rows


async def stream_range(
    engine: AsyncEngine, log_id: int, from_seq: int, to_seq: int, *, only_controls: bool = False
) -> AsyncGenerator[Sequence[Any]]:
    """Every entry of a range, whatever its kind and whatever was forgotten of it, or the control entries among them; slices as above."""
    c = bound_entry.c
    where = [c.log_id == log_id, *([c.kind != "event"] if only_controls else [])]
    async for rows in _Reader(engine, log_id, where).stream(from_seq, to_seq):
        yield rows


class _Reader:
    """The statement of a slice: of a range, or of those of a range that are `named`; of what `sight` admits, or, without one, of every
    entry there is."""

    def __init__(
        self,
        engine: AsyncEngine,
        log_id: int,
        where: Sequence[ColumnElement[bool]],
        sight: Sight | None = None,
        *,
        named: bool = False,
    ) -> None:
        self._engine, self._log_id, self._sight = engine, log_id, sight
        of = bound_entry if sight is None else seen_entry
        self._compiled = _slice_query(where, of, named=named).compile(dialect=engine.dialect)

    async def stream(self, from_seq: int, to_seq: int, seqs: Sequence[int] = ()) -> AsyncIterator[Sequence[Any]]:
        """The slices of a range."""
        while from_seq < to_seq:
            rows = await self._fetch(from_seq, to_seq, seqs)
            if rows:
                yield rows
            if len(rows) < SLICE_ENTRIES and not (rows and rows[-1][BEFORE] + rows[-1][SIZE] >= BUDGET_BYTES):
                return
            from_seq = rows[-1]["seq"] + 1

    async def _fetch(self, from_seq: int, to_seq: int, seqs: Sequence[int]) -> Sequence[Any]:
        given = {"from_seq": from_seq, "to_seq": to_seq, "seqs": list(seqs)}
        values = {**self._compiled.params, **given}
        arguments = [values[name] for name in self._compiled.positiontup or ()]
        async with bound(self._engine, self._log_id, self._sight) as connection:
            rows: Sequence[Any] = await driver(connection).fetch(self._compiled.string, *arguments)
        return rows


def _slice_query(conditions_: Sequence[ColumnElement[bool]], of: Any, *, named: bool) -> Select[Any]:
    """The next rows, up to the one that fills the budget. Sizes are read from the rows' headers: what does not fit is never unpacked."""
    seq = of.c.seq
    where = [*conditions_, seq >= _number("from_seq"), seq < _number("to_seq")]
    if named:
        where.append(seq == any_(bindparam("seqs", type_=ARRAY(BIGINT))))
    rows = (
        select(*columns(EVENT_COLUMNS, of), size_of(of=of)).where(*where).order_by(seq).limit(SLICE_ENTRIES).subquery()
    )
    before = func.sum(rows.c.size_bytes).over(order_by=rows.c.seq, rows=(None, 0)) - rows.c.size_bytes
    counted = select(rows, before.label("bytes_before")).subquery()
    return select(counted).where(counted.c.bytes_before < BUDGET_BYTES).order_by(counted.c.seq)


def _number(name: str) -> Any:
    return bindparam(name, type_=BIGINT)
