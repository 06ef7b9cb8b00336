"""Legal holds, retention policies, and requests to forget: small tables beside the log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

import orjson
from sqlalchemy import func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit_service.core.control import Control
from audit_service.core.entry import JSONObject
from audit_service.store.engine import call
from audit_service.store.forgetting import Entered, enter
from audit_service.store.rows import HEADER_COLUMNS, columns
from audit_service.store.tables import bound_entry, bound_hold, bound_request, bound_retention_policy, request

RequestKind: TypeAlias = Literal["retention", "erasure"]
RequestStatus: TypeAlias = Literal["pending", "done", "refused"]
OTHERS = ""
"""The category that stands for all that have no policy of their own."""

_CONTROL = bound_entry.c.kind != literal_column("'event'")  # of the index of control entries
_SET_HOLD = "SELECT * FROM audit.set_hold($1, $2::jsonb)"
_LIFT_HOLD = "SELECT * FROM audit.lift_hold($1, $2::jsonb)"
_SET_POLICY = """
    INSERT INTO audit.retention_policy (log_id, category, days) VALUES ($1, $2, $3)
    ON CONFLICT (log_id, category) DO UPDATE SET days = EXCLUDED.days"""
_UNSET_POLICY = "DELETE FROM audit.retention_policy WHERE log_id = $1 AND category = $2 RETURNING days"
_ADD_REQUEST = "SELECT audit.add_request($1, $2, $3, $4, $5, $6::jsonb)"
_FINISH_REQUEST = """
    UPDATE audit.request SET status = $3, finished_at = clock_timestamp(), details = NULL, result = $4::jsonb
    WHERE log_id = $1 AND request_id = $2 AND status = 'pending' RETURNING request_id"""


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold in force: on the entries [from_seq, to_seq), or on all that are about a target."""

    hold_id: str
    set_at: datetime
    reason: str
    from_seq: int | None
    to_seq: int | None
    target_type: str | None
    target_id: str | None


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for. `details` say what to forget and are gone when it is finished; `result` says what was done."""

    request_id: str
    kind: RequestKind
    status: RequestStatus
    asked_at: datetime
    asked_by: str
    reason: str
    details: JSONObject | None
    finished_at: datetime | None
    result: JSONObject | None


async def list_holds(connection: AsyncConnection, log_id: int) -> list[Hold]:
    """The holds in force, oldest first."""
    h = bound_hold.c
    columns = (h.hold_id, h.set_at, h.reason, h.from_seq, h.to_seq, h.target_type, h.target_id)
    rows = await connection.execute(select(*columns).where(h.log_id == log_id).order_by(h.set_at, h.hold_id))
    return [Hold(*row) for row in rows]


async def list_hold_entries(connection: AsyncConnection, log_id: int) -> Sequence[Any]:
    """The `hold` entries of the log in the order of seq: header, body, and the disclosure `target`."""
    names = (*HEADER_COLUMNS, "body", "d_target")
    query = select(*columns(names, bound_entry)).where(bound_entry.c.log_id == log_id, bound_entry.c.kind == "hold")
    return (await connection.execute(query.where(_CONTROL).order_by(bound_entry.c.seq))).all()


async def set_hold(writes: AsyncEngine, log_id: int, entry: Control) -> Entered:
    """Put a hold in force. A drop that is under way ends first; none that begins later takes what is held."""
    return await enter(writes, _SET_HOLD, log_id, entry)


async def lift_hold(writes: AsyncEngine, log_id: int, entry: Control) -> Entered:
    """Lift a hold that is in force. Raises IntegrityError for one that is not."""
    return await enter(writes, _LIFT_HOLD, log_id, entry)


async def list_policies(connection: AsyncConnection, log_id: int) -> dict[str, int]:
    """Category → days, as set for this log."""
    p = bound_retention_policy.c
    rows = await connection.execute(select(p.category, p.days).where(p.log_id == log_id).order_by(p.category))
    return {row.category: row.days for row in rows}


async def set_policy(writes: AsyncEngine, log_id: int, category: str, days: int) -> None:
    """How many days entries of a category keep their content."""
    await call(writes, _SET_POLICY, log_id, category, days)


async def unset_policy(writes: AsyncEngine, log_id: int, category: str) -> bool:
    """Whether there was such a policy; now there is none."""
    return bool(await call(writes, _UNSET_POLICY, log_id, category))


async def add_request(
    writes: AsyncEngine,
    log_id: int,
    request_id: str,
    kind: RequestKind,
    asked_by: str,
    reason: str,
    details: Mapping[str, Any],
) -> None:
    """Ask for something to be forgotten."""
    # The function serves only the log that is bound, and a statement of one transaction can bind only before.
    statement = f"SET LOCAL audit.log_id = '{log_id:d}'"
    async with writes.connect() as connection:
        await connection.exec_driver_sql(statement)
        parameters = (log_id, request_id, kind, asked_by, reason, orjson.dumps(details).decode())
        await connection.exec_driver_sql(_ADD_REQUEST, parameters)
        await connection.commit()


_q = bound_request.c
_REQUEST = (
    _q.request_id, _q.kind, _q.status, _q.asked_at, _q.asked_by, _q.reason, _q.details, _q.finished_at, _q.result,
)  # fmt: skip


async def fetch_request(connection: AsyncConnection, log_id: int, request_id: str) -> Request | None:
    """One request."""
    query = select(*_REQUEST).where(_q.log_id == log_id, _q.request_id == request_id)
    row = (await connection.execute(query)).first()
    return None if row is None else Request(*row)


async def list_requests(
    connection: AsyncConnection, log_id: int, *, kind: RequestKind | None = None, limit: int = 500
) -> Sequence[Request]:
    """The latest requests, the latest first."""
    query = select(*_REQUEST).where(_q.log_id == log_id).order_by(_q.asked_at.desc(), _q.request_id).limit(limit)
    rows = await connection.execute(query if kind is None else query.where(_q.kind == kind))
    return [Request(*row) for row in rows]


async def list_asked_logs(connection: AsyncConnection) -> set[int]:
    """The logs of which something is asked for and not done. One look over all of them, for the retention role alone: a look into each of
    a thousand logs every few seconds would be a thousand."""
    rows = await connection.execute(select(request.c.log_id).where(request.c.status == "pending").distinct())
    return set(rows.scalars())


async def list_due_requests(connection: AsyncConnection, log_id: int, delay_seconds: int) -> Sequence[Request]:
    """The pending requests that were asked for at least `delay_seconds` ago, the oldest first."""
    due = _q.asked_at <= func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, delay_seconds)
    query = select(*_REQUEST).where(_q.log_id == log_id, _q.status == "pending", due).order_by(_q.asked_at)
    return [Request(*row) for row in await connection.execute(query)]


async def finish_request(
    writes: AsyncEngine, log_id: int, request_id: str, status: RequestStatus, result: Mapping[str, Any] | None
) -> bool:
    """Say what became of a pending request, and forget what it asked for; False when it is not pending."""
    answer = None if result is None else orjson.dumps(result).decode()
    return bool(await call(writes, _FINISH_REQUEST, log_id, request_id, status, answer))
