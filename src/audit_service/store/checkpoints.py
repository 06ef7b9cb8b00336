"""Checkpoints as the workers read them: the latest, one for each size, and how far the signer is behind."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.store.tables import bound_checkpoint, bound_log

_c = bound_checkpoint.c
# The members of a StoredCheckpoint, in their order.
STORED = (_c.size, _c.signed_at, _c.epoch, _c.note)


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A signed note as it was published."""

    size: int
    signed_at: datetime
    epoch: int
    note: str


async def fetch_latest_checkpoint(
    connection: AsyncConnection, log_id: int, size: int | None = None
) -> StoredCheckpoint | None:
    """The checkpoint signed last, of a size or of all; None when there is none."""
    query = select(*STORED).where(_c.log_id == log_id)
    if size is not None:
        query = query.where(_c.size == size)
    row = (await connection.execute(query.order_by(_c.signed_at.desc()).limit(1))).one_or_none()
    return None if row is None else StoredCheckpoint(*row)


async def list_checkpoints(
    connection: AsyncConnection, log_id: int, *, from_size: int, to_size: int | None, limit: int
) -> list[StoredCheckpoint]:
    """The first `limit` sizes with from_size <= size < to_size that were signed, smallest first; of each the note signed last."""
    sizes = select(_c.size, func.max(_c.signed_at).label("signed_at")).where(_c.log_id == log_id, _c.size >= from_size)
    if to_size is not None:
        sizes = sizes.where(_c.size < to_size)
    last = sizes.group_by(_c.size).order_by(_c.size).limit(limit).subquery()
    same = and_(_c.log_id == log_id, _c.size == last.c.size, _c.signed_at == last.c.signed_at)
    query = select(*STORED).join_from(last, bound_checkpoint, same).order_by(_c.size)
    return [StoredCheckpoint(*row) for row in await connection.execute(query)]


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the checkpoints of a log are behind it. `age_seconds`: since the last was signed; None before the first."""

    log_size: int
    checkpoint_size: int
    age_seconds: float | None


async def fetch_lag(connection: AsyncConnection, log_id: int) -> Lag:
    """The log's size, the size of its last checkpoint, and that one's age by the database's clock."""
    age = func.extract("epoch", func.clock_timestamp() - _c.signed_at)
    last = (
        select(_c.size, age.label("age")).where(_c.log_id == log_id).order_by(_c.signed_at.desc()).limit(1).subquery()
    )
    query = select(bound_log.c.size, last.c.size.label("signed"), last.c.age).outerjoin_from(bound_log, last, true())
    row = (await connection.execute(query.where(bound_log.c.log_id == log_id))).first()
    if row is None:
        return Lag(0, 0, None)
    return Lag(row.size or 0, row.signed or 0, None if row.age is None else float(row.age))
