"""A client for panels: record what happened and go on; the events arrive once, in order, even if the service is down for a while.

    audit = AuditClient("https://audit.example.com", key, spool=Path("/var/lib/panel/audit.spool"))
    audit.record("server.created", actor={"id": "u12"}, server_id="s9", after={"memory": 4096})

`record` queues and returns; `send` and `send_batch` wait for receipts. Every event gets its id and its time before the first try,
and every try sends the same bytes, so a retry never makes a second entry and the time is that of the act.

**What can be lost.** With `spool`, nothing that `record` returned for: it is on the disk, and survives `kill -9` of the panel and of the
service. Without, events wait in memory, and these are lost: those unsent when the process is killed, crashes hard or ends by `os._exit`
(as `multiprocessing` children do), and those still unsent `close_timeout_seconds` after its exit began. In both cases a full queue makes
`record` raise SpoolFullError; nothing is dropped silently.

A spool belongs to one service and one tenant; processes may share it, and one of them sends at a time. It holds events before the service
has redacted them, readable for its owner only. Put it on a local disk.

This package needs httpx and the standard library only.
"""

import asyncio
import os
import random
import ssl
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, Unpack, cast

import httpx

from audit_service.client.courier import PATH, Courier, Pace, drive, failure_of, reply_of
from audit_service.client.event import (
    Actor,
    Change,
    ClientError,
    ClosedError,
    Context,
    Event,
    Members,
    Prepared,
    Receipt,
    RefusedError,
    Rejected,
    RejectedError,
    Result,
    Row,
    Source,
    Target,
    UnavailableError,
    UnsendableEventError,
    complete,
    prepare,
)
from audit_service.client.spool import Memory, Spool, SpoolError, SpoolFullError
from audit_service.client.wire import Failure, Patience, Post, Reply, deliver

__all__ = [
    "Actor",
    "AsyncAuditClient",
    "AuditClient",
    "Change",
    "ClientError",
    "ClosedError",
    "Context",
    "Event",
    "Members",
    "Receipt",
    "RefusedError",
    "Rejected",
    "RejectedError",
    "Row",
    "Source",
    "SpoolError",
    "SpoolFullError",
    "Target",
    "UnavailableError",
    "UnsendableEventError",
]

_T = TypeVar("_T")


class _Client:
    """What both clients are made of."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        spool: Path | None = None,
        timeout_seconds: float = 10.0,
        retry_seconds: float = 30.0,
        retry_delay_maximum_seconds: float = 15.0,
        batch_events: int = 100,
        batch_bytes: int = 1024 * 1024,
        flush_seconds: float = 0.5,
        close_timeout_seconds: float = 5.0,
        queue_limit_events: int = 10_000,
        spool_limit_events: int = 100_000,
        on_rejected: Callable[[Rejected], None] | None = None,
        verify: ssl.SSLContext | bool = True,
        trust_env: bool = True,
    ) -> None:
        """A client of the service at `url` with an API key of scope `ingest`.

        `timeout_seconds` is for each network step of one try; `retry_seconds` for all tries of a request of `send` and `send_batch`;
        recorded events are tried for ever. A recorded event waits at most `flush_seconds` for others to share its request of up to
        `batch_events` and `batch_bytes`. `spool_limit_events` counts rejected events too. `on_rejected` is called in the background
        thread. `verify` and `trust_env` are httpx's.
        """
        if httpx.URL(url).scheme not in {"http", "https"} or not httpx.URL(url).host:
            raise ValueError("url must begin with http:// or https:// and name a host")
        if not key or not all("!" <= character <= "~" for character in key):
            raise ValueError("key must be visible ASCII characters")
        if batch_events < 1 or batch_bytes < 1 or queue_limit_events < 1 or spool_limit_events < 1:
            raise ValueError("limits must be at least 1")
        self._url, self._key, self._timeout_seconds, self._trust_env = url, key, timeout_seconds, trust_env
        self._tls = verify if isinstance(verify, ssl.SSLContext) else httpx.create_ssl_context(verify)
        self._pace = Pace(batch_events, batch_bytes, flush_seconds, retry_delay_maximum_seconds, close_timeout_seconds)
        self._patience = Patience(retry_seconds, retry_delay_maximum_seconds, time.monotonic, random.random)
        outbox = Memory(queue_limit_events) if spool is None else Spool(spool, spool_limit_events)
        self._courier = Courier(outbox, self._open_http, self._pace, on_rejected)

    def _open_http(self) -> httpx.Client:
        return httpx.Client(
            base_url=self._url, headers=self._headers(), timeout=self._timeout_seconds, verify=self._tls, trust_env=self._trust_env,
        )  # fmt: skip

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "User-Agent": "audit-service-client",
        }

    def _prepare(self, action: str, members: Members) -> Prepared:
        return prepare(complete(cast("Event", {**members, "action": action})))

    def _deliver(self, events: Sequence[Event]) -> Generator[Post, Reply | Failure, list[Result]]:
        self._courier.outbox  # noqa: B018 - raises ClosedError
        return deliver(events, self._pace.batch_events, self._pace.batch_bytes, self._patience)


def _receipt(results: Sequence[Result]) -> Receipt:
    (result,) = results
    if isinstance(result, Rejected):
        raise RejectedError(result)
    return result


class AuditClient(_Client):
    """The client for threads. Any number of them may share one; it may be made before a fork."""

    def record(self, action: str, **members: Unpack[Members]) -> None:
        """Queue an event; with a spool, on the disk when this returns.

        Raises SpoolFullError, SpoolError (disk full, file unreadable) or UnsendableEventError, never because the service is away.
        """
        self._courier.record(self._prepare(action, members))

    def send(self, event: Event) -> Receipt:
        """Send one event now and wait for its receipt. It does not wait for recorded ones.

        Raises RejectedError, RefusedError, UnavailableError or UnsendableEventError.
        """
        return _receipt(self.send_batch([event]))

    def send_batch(self, events: Sequence[Event]) -> list[Receipt | Rejected]:
        """Send events now; a result for each, in order. Raises RefusedError, UnavailableError or UnsendableEventError."""
        return drive(self._deliver(events), self._courier.exchange)

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until all recorded before is delivered or rejected; False when the time is over first."""
        return self._courier.flush(timeout_seconds)

    def pending(self) -> int:
        """How many recorded events wait (with a spool: of all who share it)."""
        return self._courier.outbox.count()

    def rejected(self) -> list[Rejected]:
        """Events the service will never take. A spool keeps them, with what was sent; memory keeps the last 1000 problems."""
        return self._courier.outbox.rejected()

    def drop_rejected(self, ids: Sequence[str]) -> int:
        """Forget these, once dealt with. Returns how many there were."""
        return self._courier.outbox.drop_rejected(ids)

    def close(self, timeout_seconds: float | None = None) -> None:
        """Send what waits, within `close_timeout_seconds` unless told otherwise. Also done at the exit of the interpreter."""
        self._courier.close(timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncAuditClient(_Client):
    """The same for asyncio. `send` runs on the event loop; the outbox and its thread are the other client's, so the disk never stops the
    loop, and events still go out when the loop has ended."""

    _http: httpx.AsyncClient | None = None
    _http_process = 0

    async def record(self, action: str, **members: Unpack[Members]) -> None:
        """As AuditClient.record."""
        event = self._prepare(action, members)  # here, while nobody changes the rows
        if self._courier.outbox.durable:
            await asyncio.to_thread(self._courier.record, event)
        else:
            self._courier.record(event)

    async def send(self, event: Event) -> Receipt:
        """As AuditClient.send."""
        return _receipt(await self.send_batch([event]))

    async def send_batch(self, events: Sequence[Event]) -> list[Receipt | Rejected]:
        """As AuditClient.send_batch."""
        return await self._drive(self._deliver(events))

    async def flush(self, timeout_seconds: float = 10.0) -> bool:
        """As AuditClient.flush."""
        return await asyncio.to_thread(self._courier.flush, timeout_seconds)

    async def pending(self) -> int:
        """As AuditClient.pending."""
        return await asyncio.to_thread(self._courier.outbox.count)

    async def rejected(self) -> list[Rejected]:
        """As AuditClient.rejected."""
        return await asyncio.to_thread(self._courier.outbox.rejected)

    async def drop_rejected(self, ids: Sequence[str]) -> int:
        """As AuditClient.drop_rejected."""
        return await asyncio.to_thread(self._courier.outbox.drop_rejected, ids)

    async def close(self, timeout_seconds: float | None = None) -> None:
        """As AuditClient.close."""
        await asyncio.to_thread(self._courier.close, timeout_seconds)
        if self._http is not None:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _drive(self, steps: Generator[Post, Reply | Failure, _T]) -> _T:
        """`drive`, awaiting."""
        try:
            post = next(steps)
            while True:
                await asyncio.sleep(post.delay_seconds)
                post = steps.send(await self._exchange(post.body))
        except StopIteration as stop:
            result: _T = stop.value
            return result

    async def _exchange(self, body: bytes) -> Reply | Failure:
        if self._http is None or self._http_process != os.getpid():
            self._http_process = os.getpid()
            self._http = httpx.AsyncClient(
                base_url=self._url, headers=self._headers(), timeout=self._timeout_seconds, verify=self._tls, trust_env=self._trust_env,
            )  # fmt: skip
        try:
            return reply_of(await self._http.post(PATH, content=body))
        except httpx.HTTPError as error:
            return failure_of(error)
