"""A page of a list with its bursts folded (`core.bursts`)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core.bursts import Act, Burst, Folder
from audit_service.core.mask import mask_act
from audit_service.core.sight import Sight
from audit_service.store.find import list_positions
from audit_service.store.rows import EVENT_COLUMNS, fetch_in_order
from audit_service.store.selection import Position, Selection, Sort

# Events read for one page. A larger burst is cut there.
READ_EVENTS = 5000
_SLICE_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class BurstPage:
    """Bursts with the rows of their newest events, and where the next page begins; `next` is None at the end."""

    rows: Sequence[tuple[Any, Burst]] = field(default_factory=tuple)
    next: Position | None = None


async def list_bursts(
    connection: AsyncConnection,
    log_id: int,
    selection: Selection,
    *,
    sort: Sort,
    after: Position | None,
    limit: int,
) -> BurstPage:
    """Up to `limit` bursts behind `after`, in an order of time. Each is whole; only one that has more than READ_EVENTS events is cut there,
    and says so. A page has fewer rows than `limit` when they hold that many events together, or many bytes."""
    folder = Folder()
    found: list[Burst] = []
    reached, ended = after, False
    for size in _sizes(limit):
        positions = await list_positions(connection, log_id, selection, sort=sort, after=reached, limit=size)
        acts = await _fetch_acts(connection, log_id, positions, selection.sight)
        found += [burst for burst in map(folder.add, acts) if burst is not None]
        reached, ended = (positions[-1] if positions else reached), len(positions) < size
        if ended or len(found) >= limit:
            break
    # What is still open is whole at the end of the list. Before, the next page reads it again from its beginning; a burst that is
    # alone on its page would never get whole.
    if ended or not found:
        found += filter(None, [folder.end(more=not ended)])
    shown = found[:limit]
    if not shown:
        return BurstPage(next=None if ended else reached)
    return await _with_rows(connection, log_id, shown, complete=ended and len(found) <= limit)


def _sizes(limit: int) -> Iterator[int]:
    """Slices to read: where nothing is folded, one event beyond the page is enough."""
    left, size = READ_EVENTS, limit + 1
    while left > 0:
        yield min(size, left)
        left, size = left - size, _SLICE_EVENTS


async def _fetch_acts(
    connection: AsyncConnection, log_id: int, positions: Sequence[Position], sight: Sight
) -> list[Act]:
    if not positions:
        return []
    # The projections: to group by, as filters do. What is shown of an event comes from what is hashed.
    brought = await fetch_in_order(connection, log_id, [position.seq for position in positions], Act._fields)
    return [mask_act(Act(*row[: len(Act._fields)]), sight) for row in brought.rows]


async def _with_rows(connection: AsyncConnection, log_id: int, bursts: Sequence[Burst], *, complete: bool) -> BurstPage:
    """The page of some bursts, or of as many as fit. `complete`: nothing is behind them."""
    brought = await fetch_in_order(connection, log_id, [burst.newest.seq for burst in bursts], EVENT_COLUMNS)
    if brought.more:
        bursts = bursts[: brought.rows[-1].place]
    by_seq = {row.seq: row for row in brought.rows}
    rows = [(by_seq[burst.newest.seq], burst) for burst in bursts if burst.newest.seq in by_seq]
    last = bursts[-1].last
    return BurstPage(rows, None if complete and not brought.more else Position(last.occurred_at, last.seq))
