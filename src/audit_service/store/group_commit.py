"""Group commit: concurrent appends to one log share one call, one lock and one fsync.

When a log is idle, an append is flushed at once; what arrives while a flush is in flight waits and goes together in the
next one. So there is no timer and no added latency, and the group grows by itself with the load. One flush at a time for
each log and worker: the head row's lock would only queue a second one inside the database.

Crash window: between a flush's commit and the answer to its callers the entries are durable but unacknowledged. A caller
that asks again with the same id gets the first receipt.

A value that PostgreSQL cannot store, although every check let it through, fails its own event only: the flush is tried again in
halves until the event stands alone. The halves are transactions of their own, in the order of their events.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.errors import AuditError, InvalidEventError, UnavailableError
from audit_service.store.append import Appended, Candidate, append_entries, fetch_bodies

# Within one call the lock is held for the whole group, so groups stay small enough for other workers to get their turn.
GROUP_LIMIT_EVENTS = 500
GROUP_LIMIT_BYTES = 4 * 1024 * 1024
# Both tries together: a database that is away, paused or blocked is told to the callers within five seconds.
APPEND_TIMEOUT_SECONDS = 4.0
# The limit is counted in looks so far apart. A loop that is merely busy is late for them, and what lies between two counts up to the
# second length, because a loop that stood still longer could not have seen an answer.
LOOK_SECONDS = 0.05
LOOK_LIMIT_SECONDS = 0.25
# SQLSTATE classes 22 and 54: the value is at fault, so the same event fails again. Any other unforeseen error may be the database's
# own (a missing right, a forged head), and must never make a sender drop a good event as invalid.
_REFUSED_VALUE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """One caller's candidates, which stay together, and where its answer goes."""

    candidates: Sequence[Candidate]
    size_bytes: int
    answer: asyncio.Future[list[Appended | InvalidEventError]]


class GroupCommit:
    """The one way from a worker into `append_entries`. Lives on one event loop."""

    def __init__(
        self,
        engine: AsyncEngine,
        ruleset: str,
        *,
        pending_limit_events: int = 10_000,
        observe_seconds: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`observe_seconds` is told how long each flush took, until it was durable or had failed."""
        self._engine = engine
        self._ruleset = ruleset
        self._pending_limit_events = pending_limit_events
        self._observe_seconds = observe_seconds
        self._queues: dict[int, deque[_Waiting]] = {}
        self._flushers: set[asyncio.Task[None]] = set()
        self.pending_events = 0

    async def append(self, log_id: int, candidates: Sequence[Candidate]) -> list[Appended | InvalidEventError]:
        """Append to a log; what became of each candidate, in order. Durable when it returns.

        A candidate that PostgreSQL cannot store has an InvalidEventError in its place, and the others are appended. An id that
        stands twice, here or in what other callers append at the same moment, is new once and known from then on.
        Raises UnavailableError when the queue is full (nothing was appended) or the database is away, ClockError, NotFoundError.
        A cancelled caller may or may not have been appended.
        """
        if not candidates:
            return []
        with self.room(len(candidates)):
            return await self.append_in_room(log_id, candidates)

    @contextmanager
    def room(self, events: int) -> Iterator[None]:
        """Room for so many events among those that wait, for whoever appends them part by part. Raises UnavailableError when there is
        none."""
        # A batch larger than the whole limit still goes through when nothing else waits.
        if self.pending_events and self.pending_events + events > self._pending_limit_events:
            raise UnavailableError("too many events are waiting for the database")
        self.pending_events += events
        try:
            yield
        finally:
            self.pending_events -= events

    async def append_in_room(self, log_id: int, candidates: Sequence[Candidate]) -> list[Appended | InvalidEventError]:
        """`append` for whoever has taken room already."""
        if not candidates:
            return []
        answer: asyncio.Future[list[Appended | InvalidEventError]] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(candidates, sum(map(_size_bytes, candidates)), answer)
        queue = self._queues.get(log_id)
        if queue is None:
            self._queues[log_id] = deque([waiting])
            flusher = asyncio.create_task(self._drain(log_id))
            self._flushers.add(flusher)
            flusher.add_done_callback(self._flushers.discard)
        else:
            queue.append(waiting)
        return await answer

    async def fetch_bodies(self, log_id: int, seqs: Sequence[int]) -> dict[int, str]:
        """`store.append.fetch_bodies`, for whoever has to look at what a known id stands for."""
        return await fetch_bodies(self._engine, log_id, seqs)

    async def close(self) -> None:
        """Wait until everything that waits is flushed."""
        while self._flushers:
            await asyncio.wait(self._flushers)

    async def _drain(self, log_id: int) -> None:
        """Flush group after group until nobody waits. A queue exists exactly while its flusher runs."""
        queue = self._queues[log_id]
        try:
            while group := _take_group(queue):
                await self._flush(log_id, group)
        finally:
            del self._queues[log_id]
            for left in queue:  # only when we are cancelled at the end of the loop
                left.answer.cancel()

    async def _flush(self, log_id: int, group: list[_Waiting]) -> None:
        try:
            # One limit for all of it, however often it has to be divided: others wait behind.
            async with _turning(APPEND_TIMEOUT_SECONDS):
                answers = await self._append_storable(log_id, [c for waiting in group for c in waiting.candidates])
        except TimeoutError:
            # The loop was looking, so it is the database: whoever waits behind would wait as long again, and all are told now.
            queue = self._queues[log_id]
            for waiting in (*group, *queue):
                _fail(waiting, UnavailableError("the database does not answer"))
            queue.clear()
        except AuditError as error:
            for waiting in group:
                _fail(waiting, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes to the callers
            if len(group) == 1:
                _fail(group[0], error)
                return
            # What nobody foresaw in one caller's events must not fail the others: each by itself.
            for waiting in group:
                await self._flush(log_id, [waiting])
        else:
            position = 0
            for waiting in group:
                end = position + len(waiting.candidates)
                if not waiting.answer.done():
                    waiting.answer.set_result(answers[position:end])
                position = end

    async def _append_storable(
        self, log_id: int, candidates: Sequence[Candidate]
    ) -> list[Appended | InvalidEventError]:
        """One call, or two for the halves when a value is refused: then only the event that holds it fails."""
        try:
            return [*await self._append_distinct(log_id, candidates)]
        except _REFUSED_VALUE as error:
            if len(candidates) == 1:
                _log.error("an event passed every check and cannot be stored: %s", type(error).__name__)
                return [InvalidEventError("the event holds a value that cannot be stored")]
        middle = len(candidates) // 2
        first = await self._append_storable(log_id, candidates[:middle])
        return first + await self._append_storable(log_id, candidates[middle:])

    async def _append_distinct(self, log_id: int, candidates: Sequence[Candidate]) -> list[Appended]:
        """One call with each id once; a repeat is answered as known, with what the first one stored."""
        firsts: dict[str, Candidate] = {}
        for candidate in candidates:
            firsts.setdefault(candidate.id, candidate)
        appended = dict(zip(firsts, await self._append_again(log_id, list(firsts.values())), strict=True))
        return [
            appended[candidate.id]
            if firsts[candidate.id] is candidate or appended[candidate.id].known
            else self._as_known(appended[candidate.id], firsts[candidate.id])
            for candidate in candidates
        ]

    def _as_known(self, appended: Appended, first: Candidate) -> Appended:
        return appended._replace(known=True, salt=first.salt, fingerprint=first.fingerprint, ruleset=self._ruleset)

    async def _append_again(self, log_id: int, candidates: Sequence[Candidate]) -> Sequence[Appended]:
        """Append, and once more when the connection broke: a restarted database leaves dead connections in the pool. The ids make
        the second try safe even when the first one had committed."""
        started = time.perf_counter()
        try:
            return await append_entries(self._engine, log_id, self._ruleset, candidates)
        except UnavailableError:
            return await append_entries(self._engine, log_id, self._ruleset, candidates)
        finally:
            self._observe_seconds(time.perf_counter() - started)


@asynccontextmanager
async def _turning(seconds: float) -> AsyncIterator[None]:
    """As `asyncio.timeout`, of seconds in which the loop turned: while it stands still over one large event, the database may well have
    answered, and nobody has looked."""
    loop, left = asyncio.get_running_loop(), seconds
    looked_at = loop.time()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal left, looked_at, timer
        now = loop.time()
        left -= min(now - looked_at, LOOK_LIMIT_SECONDS)
        looked_at = now
        if left > 0:
            timer = loop.call_later(min(left, LOOK_SECONDS), look)
        else:  # takes effect a turn later, when whoever waits has seen what had come by now
            patience.reschedule(now)

    async with asyncio.timeout(None) as patience:
        timer = loop.call_later(LOOK_SECONDS, look)
        try:
            yield
        finally:
            timer.cancel()


def _take_group(queue: deque[_Waiting]) -> list[_Waiting]:
    """The callers at the front that fit into one call together; at least one."""
    group: list[_Waiting] = []
    events = size_bytes = 0
    while queue:
        waiting = queue[0]
        if waiting.answer.cancelled():  # its client has gone before we began: nothing is owed
            queue.popleft()
            continue
        events += len(waiting.candidates)
        size_bytes += waiting.size_bytes
        if group and (events > GROUP_LIMIT_EVENTS or size_bytes > GROUP_LIMIT_BYTES):
            break
        group.append(queue.popleft())
    return group


def _size_bytes(candidate: Candidate) -> int:
    prepared = candidate.prepared
    return len(prepared.body) + sum(map(len, prepared.disclosures.values()))


def _fail(waiting: _Waiting, error: BaseException) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
