"""The log in batches, as `core.batch` checks them: complete ranges, in as few objects a row as the driver can bring.

Compiled once for a whole verification and handed to asyncpg as it is, like `slices`. Each batch is a transaction of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BIGINT, ColumnElement, Select, and_, bindparam, case, func, select
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.entry import GROUPS, Projection
from audit_service.store.engine import bound, driver
from audit_service.store.query import holding_receipts
from audit_service.store.rows import BUDGET_BYTES, LARGE, columns, size_of
from audit_service.store.tables import bound_entry

_c = bound_entry.c
_HASHES = (_c.prev_hash, _c.body_hash, _c.hash)
_HASH_BYTES = 32
_FROM, _TO = bindparam("from_seq", type_=BIGINT), bindparam("to_seq", type_=BIGINT)


@dataclass(frozen=True, slots=True)
class Batch:
    """All entries of a range, as `core.batch` describes a row, and how many receipts of theirs were found right."""

    rows: Sequence[Any]
    receipts: int


class BatchReader:
    """Reads batches of one log. `whole`: disclosures, projections and receipts too, not only header and body."""

    def __init__(self, engine: AsyncEngine, log_id: int, *, whole: bool) -> None:
        self._engine, self._log_id = engine, log_id
        self._rows = _Statement(engine, _rows_query(log_id, whole=whole))
        self._receipts = _Statement(engine, holding_receipts(log_id, _FROM, _TO)) if whole else None

    async def fetch(self, from_seq: int, to_seq: int) -> Batch | None:
        """The entries with from_seq <= seq < to_seq; None unless each is there once, all fit into BUDGET_BYTES, and every receipt
        is right."""
        async with bound(self._engine, self._log_id) as connection:
            raw = driver(connection)
            rows = await self._rows.fetch(raw, from_seq, to_seq)
            if len(rows) != to_seq - from_seq:
                return None
            if self._receipts is None:
                return Batch(rows, 0)
            ((asked, right),) = await self._receipts.fetch(raw, from_seq, to_seq)
        return Batch(rows, right) if asked == right else None


class _Statement:
    """A query over a range, compiled once."""

    def __init__(self, engine: AsyncEngine, query: Select[*tuple[Any, ...]]) -> None:
        compiled = query.compile(dialect=engine.dialect)
        self._text, self._names, self._values = compiled.string, compiled.positiontup or (), compiled.params

    async def fetch(self, raw: Any, from_seq: int, to_seq: int) -> Sequence[Any]:
        values = {**self._values, "from_seq": from_seq, "to_seq": to_seq}
        rows: Sequence[Any] = await raw.fetch(self._text, *(values[name] for name in self._names))
        return rows


def _rows_query(log_id: int, *, whole: bool) -> Select[Any]:
    """Nothing at all when the range is not complete or too large: sizes are read from the rows' headers, so it is not unpacked then."""
    columns: list[ColumnElement[Any]] = [_header(), _c.kind, func.textsend(_c.body)]
    if whole:
        columns += [_c[f"d_{group}"] for group in GROUPS]
        columns += [_projected(name) for name in Projection._fields]
    within = (_c.log_id == log_id, _c.seq >= _FROM, _c.seq < _TO)
    size = size_of(LARGE if whole else ("body",), bound_entry)
    fits = select(and_(func.count() == _TO - _FROM, func.sum(size) < BUDGET_BYTES)).where(*within).scalar_subquery()
    return select(*columns).where(*within, fits).order_by(_c.seq)


def _header() -> ColumnElement[Any]:
    """The columns of `core.batch.HEADER` in one. Null when one is null, or a hash is not as wide as it must be: put together, a byte
    moved from one to the next would not show."""
    parts = (func.int8send(_c.seq), func.timestamptz_send(_c.recorded_at), func.int4send(_c.epoch), *_HASHES)
    joined: ColumnElement[Any] = parts[0]
    for part in parts[1:]:
        joined = joined.op("||", return_type=BYTEA())(part)
    return case((and_(*(func.octet_length(column) == _HASH_BYTES for column in _HASHES)), joined))


def _projected(name: str) -> ColumnElement[Any]:
    return func.inet_send(_c.ip) if name == "ip" else columns([name], bound_entry)[0]
