"""Rows as they are brought: which columns, times that can be read, and no more bytes at once than a budget.

Where not said otherwise they are of `seen_entry`: what the reader of the transaction may see.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Label, Select, any_, case, cast, func, literal, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core.entry import GROUPS
from audit_service.store.selection import Sort
from audit_service.store.tables import seen_entry

# What is needed to show an event: the header, the body and the disclosures. Never the projections: they are for finding; but
# the id, by which an event whose body cannot be read is still known.
HEADER_COLUMNS = ("seq", "epoch", "recorded_at", "kind", "prev_hash", "body_hash", "hash")
EVENT_COLUMNS = (*HEADER_COLUMNS, "id", "body", *(f"d_{group}" for group in GROUPS))


# What one page or slice may hold of bodies, disclosures and search text: events may be megabytes each.
BUDGET_BYTES = 4 * 1024 * 1024
LARGE = ("body", "search", *(f"d_{group}" for group in GROUPS))


def size_of(names: Collection[str] = LARGE, of: Any = seen_entry) -> Label[int]:
    """How many bytes the large ones of these columns have in a row of a view of entries, as `size_bytes`."""
    sizes = (func.coalesce(func.octet_length(of.c[name]), 0) for name in LARGE if name in names)
    return sum(sizes, literal(0)).label("size_bytes")


# PostgreSQL's calendar is longer than Python's, so a damaged time could not even be read. Such a one is brought as an infinity,
# which the driver gives as the calendar's end without a zone: equal to no time of ours.
FIRST_TIME, LAST_TIME, _NEVER, _FOREVER = (
    literal_column(f"TIMESTAMPTZ '{text}'", TIMESTAMP(timezone=True))
    for text in ("0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00", "-infinity", "infinity")
)


def readable(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A time as the driver can bring it; null stays null."""
    return case((column < FIRST_TIME, _NEVER), (column > LAST_TIME, _FOREVER), else_=column).label(column.key)


TIMES = ("recorded_at", "occurred_at")


def columns(names: Sequence[str], of: Any = seen_entry) -> list[ColumnElement[Any]]:
    """Columns of a view of entries, with times that can be read."""
    return [readable(of.c[name]) if name in TIMES else of.c[name] for name in names]


def among(seqs: Sequence[int], of: Any = seen_entry) -> ColumnElement[bool]:
    """Whether an entry is one of these."""
    found: ColumnElement[bool] = of.c.seq == any_(cast(list(seqs), ARRAY(BIGINT)))
    return found


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows, and whether there are more behind them."""

    rows: Sequence[Any]
    more: bool


async def fetch_within_budget(connection: AsyncConnection, query: Select[Any], sort: Sort, limit: int) -> Slice:
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


async def fetch_in_order(connection: AsyncConnection, log_id: int, seqs: Sequence[int], names: Sequence[str]) -> Slice:
    """The entries with these seqs, in the order of the seqs given, as many as fit into BUDGET_BYTES, but at least one. What is not there
    is left out."""
    asked = (
        func.unnest(cast(list(seqs), ARRAY(BIGINT)))
        .table_valued("seq", with_ordinality="place")
        .render_derived("asked")
    )
    rows = (
        select(*columns(names), size_of(names), asked.c.place)
        .join_from(asked, seen_entry, (seen_entry.c.log_id == log_id) & (seen_entry.c.seq == asked.c.seq))
        .subquery()
    )
    before = func.sum(rows.c.size_bytes).over(order_by=rows.c.place, rows=(None, 0)) - rows.c.size_bytes
    counted = select(rows, before.label("bytes_before"), func.count().over().label("found")).subquery()
    query = select(counted).where(counted.c.bytes_before < BUDGET_BYTES).order_by(counted.c.place)
    fetched = (await connection.execute(query)).all()
    return Slice(fetched, bool(fetched) and fetched[0].found > len(fetched))
