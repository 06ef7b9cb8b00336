"""How much one key, one viewer token and one address may ask for: three policies of token buckets, and turns for long reads.

`events`    events of one key; a batch is refused as a whole, an NDJSON stream is slowed
`requests`  everything else that one key asks for, or one viewer token: a limit of its own, for each token. What a browser asks for neither
            its key nor another viewer pays for
`address`   requests from one address (of IPv6: one /64) that bring no good credential: without any, with one that is refused, or with one
            that nobody asked for

Over a limit the answer is 429 with Retry-After; every answer that was counted says how much is left, in the fields RateLimit-Policy and
RateLimit of draft-ietf-httpapi-ratelimit-headers. Each worker has buckets of its own and grants its share, the limit divided by the
number of workers: all of them together never grant more, and a client that keeps to one connection gets one share.

Whoever has a good credential is never refused for what others at its address do: a key or token that was good before is looked up
whatever failed there. Only one that no worker has seen yet has to wait.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache

from audit_service.api.logs import App, Message, Receive, Scope, Send
from audit_service.api.peer import address_of
from audit_service.api.problems import respond
from audit_service.core.bucket import Buckets
from audit_service.errors import RateLimitedError
from audit_service.settings import Settings
from audit_service.store.credentials import Credential

BURST_SECONDS = 10
# Asked by orchestrators, and costs nothing.
UNLIMITED_PATHS = frozenset({"/healthz"})
TURN_PATIENCE_SECONDS = 5.0
# In a request's state: who is asking, the buckets and the key it was counted in, and whether its address was charged for it.
CREDENTIAL, RATE_STATE = "credential", "rate"
# And how often we began or ended to keep its sender waiting: odd while we do. For the watch on slow clients.
KEPT_WAITING = "kept_waiting"
_CHARGED = "address_charged"


class Rates:
    """The buckets of one worker. `clock` gives seconds and never goes back."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        workers = settings.workers
        self.clock = clock
        self.events = _buckets("events", settings.rate_limit_events_per_second, workers)
        self.requests = _buckets("requests", settings.rate_limit_requests_per_second, workers)
        self.viewer_requests = _buckets("requests", settings.rate_limit_viewer_requests_per_second, workers)
        self.address = _buckets("address", settings.rate_limit_address_per_second, workers)

    def admit(self, scope: Scope, credential: Credential, *, ingest: bool) -> None:
        """Count a request of a key or token: as one event or as one other request. Raises RateLimitedError."""
        requests = self.viewer_requests if credential.kind == "viewer_token" else self.requests
        self._take(scope, self.events if ingest else requests, _holder(credential), 1)

    def admit_batch(self, scope: Scope, credential: Credential, events: int) -> None:
        """Count the events of a batch, for which `admit` has counted one. Raises RateLimitedError before any of them is taken."""
        if self.events is not None and events > 1:
            holder = _holder(credential)
            self.events.give_back(holder, 1)  # all or nothing: a batch as large as a bucket needs a full one
            self._take(scope, self.events, holder, events)

    async def slow_down(self, scope: Scope, credential: Credential, events: int) -> None:
        """Count events of a stream, and wait for as long as they are too many. Meanwhile its sender owes us nothing."""
        wait = self.events.charge(_holder(credential), events, self.clock()) if self.events is not None else 0.0
        if not wait:
            return
        state = scope.setdefault("state", {})
        state[KEPT_WAITING] = state.get(KEPT_WAITING, 0) + 1
        try:
            await asyncio.sleep(wait)
        finally:
            state[KEPT_WAITING] += 1

    def check_address(self, scope: Scope) -> None:
        """Before a credential nobody knows is looked up. Raises RateLimitedError when too many from this address were no good."""
        if self.address is not None and not self.address.left(_place(scope), self.clock())[0]:
            raise _refused(self.address, 1.0 / self.address.per_second)

    def note_failure(self, scope: Scope) -> None:
        """Count a request without a good credential. Raises RateLimitedError, in place of what it was refused for."""
        state = scope.setdefault("state", {})
        if not state.get(_CHARGED):
            state[_CHARGED] = True
            self._take(scope, self.address, _place(scope), 1)

    def note_good(self, scope: Scope) -> None:
        """A request with a good secret that is no credential of a log: its address is not charged for it."""
        scope.setdefault("state", {})[_CHARGED] = True

    def note_answer(self, scope: Scope, status: int) -> None:
        """Count a request whose answer begins and that turned out to have no good credential. Raises RateLimitedError, in place of the
        answer. What failed for us (5xx) or was refused unread (429) may well have had one."""
        if CREDENTIAL not in scope.setdefault("state", {}) and status < 500 and status != 429:
            self.note_failure(scope)

    def _take(self, scope: Scope, buckets: Buckets | None, key: Hashable, tokens: int) -> None:
        if buckets is None:
            return
        now = self.clock()
        scope.setdefault("state", {})[RATE_STATE] = buckets, key, now
        wait = buckets.take(key, tokens, now)
        if wait:
            raise _refused(buckets, wait)


class AddressLimit:
    """ASGI: counts what comes without any credential by its address, and refuses what is too much. What comes with an Authorization header
    counts when it is refused, at the latest when an answer begins for which nobody has looked at it: then the answer is 429 instead. So
    what costs something and asks for no credential counts itself (`open_to_all`)."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNLIMITED_PATHS:
            await self.app(scope, receive, send)
            return
        rates: Rates = scope["app"].state.service.rates
        if _has_credential(scope):
            await self.app(scope, receive, self._counted(rates, scope, receive, send))
            return
        try:
            rates.note_failure(scope)
        except RateLimitedError as error:
            await respond(error)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _counted(self, rates: Rates, scope: Scope, receive: Receive, send: Send) -> Send:
        replaced = False

        async def send_counted(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start":
                try:
                    rates.note_answer(scope, message["status"])
                except RateLimitedError as error:
                    replaced = True
                    await respond(error)(scope, receive, send)
            if not replaced:
                await send(message)

        return send_counted


@dataclass(slots=True)
class _Queue:
    turns: asyncio.Semaphore
    users: int = 0


class Turns:
    """At most `per_key` long reads of one key at a time; further ones wait. So the connections for reads are never all one key's."""

    def __init__(self, per_key: int, patience_seconds: float = TURN_PATIENCE_SECONDS) -> None:
        self._per_key, self._patience_seconds = per_key, patience_seconds
        self._queues: dict[Hashable, _Queue] = {}

    @asynccontextmanager
    async def take(self, key: Hashable) -> AsyncIterator[None]:
        """Hold a turn. Raises RateLimitedError when none came within the patience."""
        if not self._per_key:
            yield
            return
        queue = self._queues.setdefault(key, _Queue(asyncio.Semaphore(self._per_key)))
        queue.users += 1
        try:
            try:
                async with asyncio.timeout(self._patience_seconds):
                    await queue.turns.acquire()
            except TimeoutError:
                raise RateLimitedError("this credential has as many reads under way as it may", "reads") from None
            try:
                yield
            finally:
                queue.turns.release()
        finally:
            queue.users -= 1
            if not queue.users:
                del self._queues[key]


def _buckets(name: str, per_second: int, workers: int) -> Buckets | None:
    if not per_second:
        return None
    share = per_second / workers
    return Buckets(name, share, max(int(share * BURST_SECONDS), 1))


def rate_headers(buckets: Buckets, key: Hashable, now: float) -> list[tuple[bytes, bytes]]:
    """What an answer says of the limit that its request was counted in at `now`: at the state of the bucket since."""
    left, full = buckets.left(key, now)
    return [
        _policy(buckets.name, buckets.capacity),
        (b"ratelimit", b'"%s";r=%d;t=%d' % (buckets.name.encode(), left, full)),
    ]


@cache
def _policy(name: str, capacity: int) -> tuple[bytes, bytes]:
    return b"ratelimit-policy", b'"%s";q=%d;w=%d' % (name.encode(), capacity, BURST_SECONDS)


def _refused(buckets: Buckets, wait_seconds: float) -> RateLimitedError:
    whose = "from this address" if buckets.name == "address" else "with this credential"
    detail = f"too many {'requests' if buckets.name == 'address' else buckets.name} {whose}"
    return RateLimitedError(detail, buckets.name, max(math.ceil(wait_seconds - 1e-6), 1))


def _holder(credential: Credential) -> Hashable:
    return credential.log_id, credential.key_id


def _place(scope: Scope) -> Hashable:
    """The address, or what of it one subscriber has: a /64 of IPv6. What cannot be told counts as one place for each connection's end."""
    address = address_of(scope)
    if address is None:
        return (scope.get("client") or ("unknown",))[0]
    return int(address) >> 64 if address.version == 6 else address


def _has_credential(scope: Scope) -> bool:
    return any(name == b"authorization" for name, _ in scope["headers"])
