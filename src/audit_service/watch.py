"""The log watches itself: what the service notes about itself goes through the same recipe as every event, into the log it concerns.

Three ways in, by what is promised of them:

- `note`: durable when it returns. For acts of administration: whoever makes a key or a token notes it between the act's own commit and
  the answer. A crash in between leaves a key that nobody was told of, never one that was handed out and is not in the log.
- `later`: written as soon as the database takes it, and off the caller's path. For what has already happened and cannot be refused any
  more: an export that was cut, something that was read.
- `refuse`: counted, and written by the minute. For failed authentication and denied access, of which there may be any number.

What waits is bounded and lives in this process: a kill loses up to a minute of counted refusals, and beyond the limit the newest are
dropped, which `dropped` is told. An end of the process that is asked for writes what waits first, but waits for no database for long.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import format_time
from audit_service.core.own_event import Actor, OwnEvent, Target
from audit_service.core.refusals import Refusal, Refusals, Refused
from audit_service.errors import AuditError, ClockError, UnavailableError
from audit_service.ingest import Log, Recipe, Sealed, append_sealed, new_id, seal_own
from audit_service.store import credentials
from audit_service.store.group_commit import GroupCommit

QUEUE_LIMIT_EVENTS = 1000
# Of one log, in one call.
GROUP_LIMIT_EVENTS = 100
WINDOW_SECONDS = 60.0
RETRY_SECONDS = 5.0
CLOSING_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """A log, as a credential names it."""

    log_id: int
    log_key: str


class Tools(NamedTuple):
    """What writing takes; had from the database at the first use. `system`: the service's own log, None where there is none yet."""

    recipe: Recipe
    appender: GroupCommit
    service_name: str
    system: Place | None

    def log(self, place: Place | None) -> Log:
        """The log at a place; the service's own for None. Raises UnavailableError where there is none."""
        found = place or self.system
        if found is None:
            raise UnavailableError("the database has no log of the service's own: `audit-service serve` makes it")
        return Log(found.log_id, self.service_name, found.log_key)


async def find_place(connection: AsyncConnection, tenant: str) -> Place | None:
    """The log of a tenant, None where there is no such tenant."""
    found = await credentials.find_tenant(connection, tenant)
    return None if found is None else Place(found.log_id, found.log_key)


class _Waiting(NamedTuple):
    place: Place | None
    event: OwnEvent


def own_event(
    action: str,
    actor: Actor | None,
    *,
    target: Target | None = None,
    outcome: Literal["success", "failure"] = "success",
    ip: str | None = None,
    reason: str | None = None,
    metadata: Mapping[str, JSONValue] | None = None,
) -> OwnEvent:
    """Something that happens now."""
    return OwnEvent(action, actor, new_id(), datetime.now(UTC), target, outcome, ip, reason, metadata or {})


class Watch:
    """What one process notes. Lives on one event loop; one background task, which runs only once there is something for it."""

    def __init__(
        self,
        tools: Callable[[], Awaitable[Tools]],
        *,
        dropped: Callable[[int], None] = lambda _: None,
        window_seconds: float = WINDOW_SECONDS,
        queue_limit_events: int = QUEUE_LIMIT_EVENTS,
    ) -> None:
        self._tools, self._dropped = tools, dropped
        self._queue_limit_events = queue_limit_events
        self._queue: deque[_Waiting] = deque()
        self._refusals = Refusals(window_seconds=window_seconds)
        self._places: dict[int, Place] = {}
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def note(self, place: Place | None, event: OwnEvent) -> None:
        """Append to a log (None: the service's own). Durable when it returns; raises UnavailableError, ClockError when it is not."""
        tools = await self._tools()
        log = tools.log(place)
        sealed = seal_own(tools.recipe, log, event.as_json(), event.at)
        (outcome,) = await append_sealed(tools.appender, tools.recipe, log, [sealed])
        if isinstance(outcome, AuditError):
            raise outcome

    async def note_or_later(self, place: Place | None, event: OwnEvent) -> None:
        """Append if it can be done now, else `later`: for the end of something that cannot be taken back."""
        try:
            await self.note(place, event)
        except (UnavailableError, ClockError):
            self.later(place, event)
        except Exception as error:  # noqa: BLE001 - what was done is done, whatever state its log is in
            self._give_up(1, type(error).__name__)

    def later(self, place: Place | None, event: OwnEvent) -> None:
        """Append when it can be done."""
        if len(self._queue) >= self._queue_limit_events:
            self._dropped(1)
            return
        self._queue.append(_Waiting(place, event))
        self._wake_up()

    def refuse(
        self,
        place: Place | None,
        action: Literal["audit.auth.failed", "audit.access.denied"],
        *,
        reason: str,
        route: str,
        ip: str | None,
        actor: Actor | None = None,
        count: int = 1,
    ) -> None:
        """Count a refused request, or `count` refused events of one. `reason` and `route` are of ours: few, and never what was sent."""
        if place is not None:
            self._places[place.log_id] = place
        refusal = Refusal(None if place is None else place.log_id, action, reason, ip, actor)
        idle = self._refusals.next_due is None
        if not self._refusals.add(refusal, route, now=time.monotonic(), at=datetime.now(UTC), count=count):
            self._dropped(1)
        if idle:  # else the task knows when the first window is over, and no flood keeps it awake
            self._wake_up()

    async def settle(self) -> None:
        """Write everything that waits, refusals whose minute is not over too. Raises UnavailableError, ClockError."""
        await self._write(None)

    async def close(self) -> None:
        """Write what waits, as far as the database takes it within CLOSING_SECONDS; the rest is dropped."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._queue or self._refusals.next_due is not None:
            with contextlib.suppress(TimeoutError, AuditError):
                async with asyncio.timeout(CLOSING_SECONDS):
                    await self.settle()
            self._give_up(len(self._queue), "the service ends")
            self._queue.clear()

    # -- the background task ---------------------------------------------------------------------------------

    def _wake_up(self) -> None:
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            due = self._refusals.next_due
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(due - time.monotonic(), 0.0)):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._write(time.monotonic())
            except AuditError:  # the database is away: what comes meanwhile waits too
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()

    async def _write(self, now: float | None) -> None:
        """Write the queue, and the refusals whose window is over (None: all). What is not written stays in the queue."""
        async with self._writing:
            for refused in self._refusals.take(now):
                self._enqueue(refused)
            while self._queue:
                group = _first_group(self._queue)
                try:
                    await self._append(group)
                except (UnavailableError, ClockError):
                    raise
                except Exception as error:  # noqa: BLE001 - one log's trouble must not keep the others' notes
                    self._give_up(len(group), type(error).__name__)
                for written in group:
                    self._queue.remove(written)

    def _enqueue(self, refused: Refused) -> None:
        if len(self._queue) >= self._queue_limit_events:
            self._dropped(1)
            return
        log_id = refused.refusal.log_id
        self._queue.append(_Waiting(None if log_id is None else self._places[log_id], _refusal_event(refused)))

    async def _append(self, group: Sequence[_Waiting]) -> None:
        tools = await self._tools()
        log = tools.log(group[0].place)
        sealed = [_sealed_or_error(tools.recipe, log, one.event) for one in group]
        outcomes = await append_sealed(tools.appender, tools.recipe, log, sealed)
        refused = sum(isinstance(outcome, AuditError) for outcome in outcomes)
        if refused:
            self._give_up(refused, "not accepted")

    def _give_up(self, count: int, why: str) -> None:
        if count:
            _log.error("%d notes of the service about itself were not written: %s", count, why)
            self._dropped(count)


def _first_group(queue: Sequence[_Waiting]) -> list[_Waiting]:
    """The oldest, and what else is for the same log."""
    return [one for one in queue if one.place == queue[0].place][:GROUP_LIMIT_EVENTS]


def _sealed_or_error(recipe: Recipe, log: Log, event: OwnEvent) -> Sealed | AuditError:
    try:
        return seal_own(recipe, log, event.as_json(), event.at)
    except AuditError as error:
        return error


def _refusal_event(refused: Refused) -> OwnEvent:
    refusal = refused.refusal
    metadata: dict[str, JSONValue] = {
        "count": refused.count,
        "first": format_time(refused.first),
        "last": format_time(refused.last),
        "routes": [*sorted(refused.routes)],
    }
    return OwnEvent(
        refusal.action, refusal.actor, new_id(), refused.last, None, "failure", refusal.ip, refusal.reason, metadata
    )
