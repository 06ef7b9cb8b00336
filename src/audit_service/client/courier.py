"""The courier: one background thread that carries recorded events from the outbox to the service.

It sends the oldest events batch by batch and waits while there are none. After a failure it pauses, longer each time, and tries the
same events again, for ever: order is kept, nothing overtakes. It holds the right to send only while it is sending.

Both clients use it. A thread, not a task: it does not die with an event loop, and can still send at the exit of the interpreter.
A forked child gets a courier that begins afresh at its first event (servers that load the application and then fork).

Lock order: `_changed` before the outbox's own lock; the thread never takes `_changed` while it is inside the outbox.
"""

import atexit
import contextlib
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import httpx

from audit_service.client.event import ClosedError, Prepared, Rejected, Result
from audit_service.client.spool import Outbox, SpoolError, Waiting
from audit_service.client.wire import Attempt, Failure, Post, Reply, attempt, delay_seconds

PATH = "/v1/events"
IDLE_SECONDS = 2.0  # how soon events are seen that another process left in the spool
_FLUSH_LOOK_SECONDS = 0.1  # another process may be the one that sends
_log = logging.getLogger("audit_service.client")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is sent at once, and how long is waited."""

    batch_events: int
    batch_bytes: int
    flush_seconds: float
    delay_maximum_seconds: float
    close_timeout_seconds: float


def reply_of(response: httpx.Response) -> Reply:
    """What the pure part needs of a response."""
    return Reply(response.status_code, response.headers.get("retry-after"), response.content)


def failure_of(error: httpx.HTTPError) -> Failure:
    """A request that got no answer."""
    return Failure(f"{type(error).__name__}: {error}")


def drive(steps: Generator[Post, Reply | Failure, _T], exchange: Callable[[bytes], Reply | Failure]) -> _T:
    """Do what the generator asks for, and return its result."""
    try:
        post = next(steps)
        while True:
            time.sleep(post.delay_seconds)
            post = steps.send(exchange(post.body))
    except StopIteration as stop:
        result: _T = stop.value
        return result


class Courier:
    """Carries events from an outbox to the service until it is closed."""

    def __init__(
        self,
        outbox: Outbox,
        open_http: Callable[[], httpx.Client],
        pace: Pace,
        on_rejected: Callable[[Rejected], None] | None,
    ) -> None:
        self._outbox = outbox
        self._open_http = open_http
        self._pace = pace
        self._on_rejected = on_rejected
        self._begin()
        _couriers.add(self)
        atexit.register(self.close)
        if outbox.durable:
            with self._changed:
                self._ensure_started()  # an earlier process may have left events

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None  # while it runs
        self._http: httpx.Client | None = None
        self._recorded = 0  # since the thread last looked
        self._hurry = False  # somebody flushes: do not wait for more events, nor for the end of a pause
        self._deadline: float | None = None  # set when closing begins
        self._abandoned = False  # closed, but the thread still runs and must clean up itself
        self._settling = False  # results have come; the outbox and the caller's callback are being told
        self._failures = 0  # in a row, as far as the next pause is concerned
        self._said: str | None = None  # the kind of trouble last told, until it is over

    def after_fork(self) -> None:
        """In a forked child: the thread, the locks and the sockets belong to the parent."""
        was_closed = self._deadline
        _left_to_parent.append(self._http)
        self._begin()
        self._deadline = was_closed
        self._outbox.after_fork()

    @property
    def outbox(self) -> Outbox:
        """The outbox, while the client is open."""
        if self._deadline is not None:
            raise ClosedError("the client is closed")
        return self._outbox

    def record(self, event: Prepared) -> None:
        """Put the event into the outbox."""
        with self._changed:
            self.outbox.put(event)
            self._recorded += 1
            self._ensure_started()
            if self._recorded in {1, self._pace.batch_events}:
                self._changed.notify_all()

    def exchange(self, body: bytes) -> Reply | Failure:
        """Post once."""
        with self._changed:
            if self._http is None:
                self._http = self._open_http()
            http = self._http
        try:
            return reply_of(http.post(PATH, content=body))
        except httpx.HTTPError as error:
            return failure_of(error)
        except RuntimeError:
            if http.is_closed:
                raise ClosedError("the client was closed") from None
            raise

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until all that was recorded before is delivered or rejected. False when the time is over first."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            position = self.outbox.last_position()
            if not self._settling and self.outbox.is_past(position):
                return True
            self._ensure_started()
            self._hurry = True
            self._changed.notify_all()
            while self._settling or not self.outbox.is_past(position):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, _FLUSH_LOOK_SECONDS))
        return True

    def close(self, timeout_seconds: float | None = None) -> None:
        """Send what waits, within the time, and let go of everything. A second call does nothing."""
        seconds = self._pace.close_timeout_seconds if timeout_seconds is None else timeout_seconds
        with self._changed:
            if self._deadline is not None:
                return
            self._deadline = time.monotonic() + seconds
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)
        elif thread is None and not self._outbox.durable:
            self._run()  # the thread could not start, or nothing was recorded: then this returns at once
        atexit.unregister(self.close)
        with contextlib.suppress(SpoolError):
            self._tell_left(self._outbox.count())
        with self._changed:
            self._abandoned = self._thread is not None
        if not self._abandoned:
            self._let_go()

    def _let_go(self) -> None:
        self._outbox.close()
        if self._http is not None:
            self._http.close()

    def _tell_left(self, count: int) -> None:
        if count and self._outbox.durable:
            _log.info("%d events wait in the spool for the next start", count)
        elif count:
            _log.error("%d audit events had no receipt when the client was closed, and may be lost", count)

    # --- the thread ---

    def _ensure_started(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="audit-courier", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no thread now, or the interpreter is ending: the next event tries again, and close
                self._thread = None

    def _work(self) -> None:
        try:
            self._run()
        finally:
            with self._changed:
                self._thread = None  # so that the next event starts another, whatever ended this one
                abandoned = self._abandoned
            if abandoned:
                self._let_go()

    def _run(self) -> None:
        """Drain, then wait, until closed and done."""
        if not self._outbox.durable:
            with self._changed:
                self._rest()  # the first events may share a request too; those in a spool may have waited for long
        while not self._is_late():
            try:
                failure = self._drain()
            except SpoolError as error:
                failure = Failure(str(error))
            self._note(failure)
            with self._changed:
                self._changed.notify_all()
                if self._deadline is not None and (failure is None or self._outbox.durable):
                    return  # all is sent, or waits safely on the disk
                if failure is None:
                    self._rest()
                else:
                    self._pause(failure)

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _drain(self) -> Failure | None:
        """Send batches until none is left, or one fails."""
        try:
            while not self._is_late():
                taken = self._outbox.take(self._pace.batch_events, self._pace.batch_bytes)
                if not taken:
                    return None
                tried: Attempt = drive(attempt([item.event for item in taken]), self.exchange)
                # A crash here sends these again: replays, because their ids are in the bytes.
                self._settle(taken, tried.results)
                if tried.failure is not None:
                    return tried.failure
                self._note(None)
        finally:
            self._outbox.release()
        return None

    def _settle(self, taken: Sequence[Waiting], results: Sequence[Result | None]) -> None:
        self._settling = True
        try:
            self._outbox.settle(taken, results)
            self._report(results)
        finally:
            with self._changed:
                self._settling = False
                self._changed.notify_all()

    def _rest(self) -> None:
        """Wait for an event, and then a little for more to share its request."""
        idle = IDLE_SECONDS if self._outbox.durable else None
        self._changed.wait_for(lambda: self._is_urgent() or self._recorded > 0, idle)
        if self._recorded:
            self._changed.wait_for(
                lambda: self._is_urgent() or self._recorded >= self._pace.batch_events, self._pace.flush_seconds
            )
        self._recorded, self._hurry = 0, False

    def _is_urgent(self) -> bool:
        return self._hurry or self._deadline is not None

    def _pause(self, failure: Failure) -> None:
        """Wait before the next try. A flush ends it, unless the service itself named the time; closing always does, once."""
        asked = failure.retry_after_seconds
        delay = delay_seconds(self._failures, asked, self._pace.delay_maximum_seconds, random.random())  # noqa: S311 - jitter
        if self._deadline is not None:
            self._changed.wait(max(0.0, min(delay, self._deadline - time.monotonic())))
            return
        self._changed.wait_for(lambda: self._deadline is not None or (self._hurry and asked is None), delay)
        if self._is_urgent():
            self._failures = 0
        self._hurry = False

    def _note(self, failure: Failure | None) -> None:
        """Say when sending begins to fail and when it works again, once each. Never what an event holds."""
        if failure is None:
            if self._said is not None:
                _log.info("the audit service takes events again")
            self._failures, self._said = 0, None
            return
        self._failures += 1
        trouble = "away" if failure.refused_status is None else "refused"
        if trouble != self._said and trouble == "refused":
            _log.error("the audit service refuses our requests; events wait until that is mended: %s", failure.detail)
        elif trouble != self._said:
            _log.warning("the audit service takes no events now; they wait: %s", failure.detail)
        self._said = trouble

    def _report(self, results: Sequence[Result | None]) -> None:
        for result in results:
            if isinstance(result, Rejected):
                _log.error("event %s is rejected with %d: %s", result.id, result.status, result.detail)
                if self._on_rejected is not None:
                    try:
                        self._on_rejected(result)
                    except Exception:  # noqa: BLE001 - the caller's code; it must not stop the delivery of the rest
                        _log.exception("on_rejected failed")


_couriers: "weakref.WeakSet[Courier]" = weakref.WeakSet()
_left_to_parent: list[httpx.Client | None] = []  # closing it in the child would speak on the parent's sockets


def _after_fork() -> None:
    for courier in list(_couriers):
        courier.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
