"""Reading the events of one target from the newest back, for `core.history`."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.find import list_entries
from audit_service.store.selection import Position, Selection
from audit_service.store.tables import bound_entry, bound_log

# The first slice is small: most histories are short, or end soon at the event that created the row.
FIRST_SLICE_ENTRIES = 50
SLICE_ENTRIES = 500
# Who wrote, and what: the groups that a state is made of, and no others.
STATE_GROUPS = ("actor", "actor_email", "on_behalf_of", "changes")
_COLUMNS = ("seq", "id", "body", *(f"d_{group}" for group in STATE_GROUPS))
_c = bound_entry.c


async def stream_newest(engine: AsyncEngine, log_id: int, selection: Selection) -> AsyncIterator[Sequence[Any]]:
    """The selected entries in slices, newest first by (occurred_at, seq), each its own transaction and within the store's byte
    budget. The caller stops when it has seen enough. Raises UnavailableError."""
    position: Position | None = None
    limit = FIRST_SLICE_ENTRIES
    while True:
        async with translated(), bound(engine, log_id, selection.sight) as connection:
            page = await list_entries(
                connection, log_id, selection, sort="-occurred_at", after=position, limit=limit, names=_COLUMNS
            )
        if page.rows:
            yield page.rows
        if page.next is None:
            return
        position, limit = page.next, SLICE_ENTRIES


async def is_dropped_after(connection: AsyncConnection, log_id: int, seq: int) -> bool:
    """Whether retention took the body of any event after `seq`, or pruned it: it may have been any target's. One probe of the index by
    time, in which entries without a time stand together, by seq."""
    dropped = select(_c.seq).where(_c.log_id == log_id, _c.occurred_at.is_(None), _c.seq > seq)
    dropped = dropped.where(_c.kind == "event", _c.body.is_(None))
    pruned = select(bound_log.c.log_id).where(bound_log.c.log_id == log_id, bound_log.c.pruned_before > seq + 1)
    return bool((await connection.execute(select(exists(dropped) | exists(pruned)))).scalar_one())


async def is_target_erased_after(connection: AsyncConnection, log_id: int, seq: int, target_type: str) -> bool:
    """Whether an event after `seq` about a target of this type lost the disclosure that names the target: it may have been any of them.
    Looks at the events of the type that name no target, and only where anything was erased since."""
    erasure = select(_c.seq).where(_c.log_id == log_id, _c.seq > seq, _c.kind != "event", _c.kind == "erase")
    if not (await connection.execute(select(exists(erasure)))).scalar_one():
        return False
    unnamed = select(_c.seq).where(_c.log_id == log_id, _c.target_id.is_(None), _c.target_type == target_type)
    # Within a string the quotes would be escaped: this is the commitment.
    erased = unnamed.where(_c.seq > seq, _c.d_target.is_(None), func.strpos(_c.body, '"target":"') > 0)
    return bool((await connection.execute(select(exists(erased)))).scalar_one())
