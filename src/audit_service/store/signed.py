"""What readers of proofs need beside the tree: the checkpoints that were signed, and the headers of entries."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.store.rows import HEADER_COLUMNS, columns
from audit_service.store.tables import bound_checkpoint, bound_entry

_c = bound_checkpoint.c


async def find_checkpoint(connection: AsyncConnection, log_id: int, size: int | None = None) -> Any | None:
    """The newest checkpoint of a size, or of the greatest size there is: (size, note). None when there is none."""
    query = _newest(log_id)
    if size is not None:
        query = query.where(_c.size == size)
    return (await connection.execute(query)).first()


async def list_headers(connection: AsyncConnection, log_id: int, from_seq: int, to_seq: int) -> Sequence[Any]:
    """HEADER_COLUMNS of the entries with from_seq <= seq < to_seq, in the order of seq. For ranges of a few hundred."""
    c = bound_entry.c
    query = select(*columns(HEADER_COLUMNS)).where(c.log_id == log_id, c.seq >= from_seq, c.seq < to_seq)
    return (await connection.execute(query.order_by(c.seq))).all()


def _newest(log_id: int) -> Select[Any]:
    order = (_c.size.desc(), _c.signed_at.desc())
    return select(_c.size, _c.note).where(_c.log_id == log_id).order_by(*order).limit(1)
