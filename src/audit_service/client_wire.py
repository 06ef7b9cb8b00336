"""The pure part of the client: what is posted, what an answer means, when to try again. No I/O and no waiting.

Both clients drive the same generators. A generator yields a `Post` (wait so long, then post this body) and is sent the
`Reply`, or the `Failure` to get one:

- `attempt` posts the events once. A batch that is refused as a whole for something one of its events holds is halved until
  that event stands alone, so one bad event never stops the others.
- `deliver` repeats `attempt`, with pauses, until every event has its result or the time is over.

An answer is about the **events** (400, 409 or 422 with a problem document of the service; 413): they are rejected, for good.
Or it is about **now** (no answer, 408, 425, 429, 5xx, an answer that cannot be understood): the same bytes are sent again.
Or it is about the **request** (401, 403, 404, a redirect, a 400 of somebody in between): no event is at fault, none is rejected.
"""

import json
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Literal, Required, TypeAlias, TypedDict
from uuid import UUID

JSONValue: TypeAlias = "bool | int | float | str | list[JSONValue] | dict[str, JSONValue] | None"
Row: TypeAlias = Mapping[str, object]

PROBLEM_PREFIX = "urn:audit-service:problem:"
DELAY_FIRST_SECONDS = 0.2
RETRY_AFTER_MAXIMUM_SECONDS = 300.0
_EVENTS_FAULT = frozenset({400, 409, 422})
_NOT_NOW = frozenset({408, 425, 429})


class ClientError(Exception):
    """The root of every error the client raises on purpose."""


class UnsendableEventError(ClientError, ValueError):
    """The event is no JSON, or its time has no offset. Nothing was queued or sent."""


class RefusedError(ClientError):
    """The service refuses the request, whatever the events (a wrong key, scope or URL). Nothing was stored by this try."""

    def __init__(self, detail: str, status: int) -> None:
        super().__init__(detail)
        self.status = status


class UnavailableError(ClientError):
    """No receipt in time; the events may or may not be stored.

    `events` are those given, now with their ids and times: sending exactly these again can make no second entry.
    """

    def __init__(self, detail: str, events: "Sequence[Event]") -> None:
        super().__init__(detail)
        self.events = tuple(events)


class ClosedError(ClientError):
    """The client is closed; the event was not recorded."""


class RejectedError(ClientError):
    """The service rejects this event for what it holds; `rejected` says why."""

    def __init__(self, rejected: "Rejected") -> None:
        super().__init__(f"event {rejected.id} is rejected with {rejected.status}: {rejected.detail}")
        self.rejected = rejected


class Actor(TypedDict, total=False):
    """Who did it, as they were then."""

    type: str | None
    id: str | int | None
    name: str | None
    email: str | None
    role: str | None


class Target(TypedDict, total=False):
    """What it was done to."""

    type: str | None
    id: str | int | None
    name: str | None


class Context(TypedDict, total=False):
    """From where."""

    ip: str | None
    user_agent: str | None
    session_id: str | None
    request_id: str | int | None
    traceparent: str | None


class Source(TypedDict, total=False):
    """The producer and its own count."""

    id: str | int | None
    seq: int | None


class Change(TypedDict, total=False):
    """A ready-made change, instead of rows."""

    path: Required[str]
    op: Required[Literal["add", "remove", "replace"]]
    old: object
    new: object


class Members(TypedDict, total=False):
    """An event's members besides `action`; None is the same as absent. The service's documentation says what each means.

    Inside `before`, `after`, `metadata` and changes, dates, times, decimals, UUIDs and enums are sent as text.
    """

    id: str | None
    occurred_at: datetime | str | None
    verb: str | None
    category: str | None
    actor: Actor | None
    on_behalf_of: Actor | None
    target: Target | None
    related: Sequence[Target] | None
    server_id: str | int | None
    outcome: Literal["success", "failure", "unknown"] | None
    reason: str | None
    description: str | None
    context: Context | None
    before: Row | None
    after: Row | None
    partial: Literal["none", "after", "before", "both"] | None
    changes: Sequence[Change] | None
    metadata: Mapping[str, object] | None
    source: Source | None


class Event(Members, total=False):
    """A whole event."""

    action: Required[str]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The service's proof that the event is stored. seq, hash and prev_hash are None when it was not kept (nothing changed)."""

    id: str
    origin: str
    seq: int | None
    recorded_at: datetime
    hash: str | None
    prev_hash: str | None
    kept: bool
    replayed: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event the service will never take, and its problem document, which holds no value of the event.

    `event` is the event as it was sent; only a spool keeps it, elsewhere it is None.
    """

    id: str
    status: int
    problem: Mapping[str, JSONValue]
    event: "dict[str, JSONValue] | None" = None

    @property
    def detail(self) -> str:
        """What is wrong where, in one line."""
        text = str(self.problem.get("detail") or self.problem.get("title") or "no reason given")
        faults = self.problem.get("errors")
        places = [item for item in faults if isinstance(item, dict)] if isinstance(faults, list) else []
        return "; ".join([text, *(f"{item.get('pointer', '')} {item.get('detail', '')}" for item in places)])


Result: TypeAlias = Receipt | Rejected


@dataclass(frozen=True, slots=True)
class Prepared:
    """An event in its final bytes: every try sends exactly these."""

    id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Post:
    """Wait `delay_seconds`, then post `body`."""

    body: bytes
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    retry_after: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no result. `refused_status` is set when trying again is useless until somebody mends the configuration."""

    detail: str
    retry_after_seconds: float | None = None
    refused_status: int | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one pass gave: a result for each event, or None where a `failure` left it without one."""

    results: Sequence[Result | None]
    failure: Failure | None


# --- events ---


def new_id(now_ns: int, entropy: bytes) -> str:
    """A UUIDv7 (RFC 9562) from the time and 10 random bytes; sub-millisecond time in `rand_a`, so ids sort as they were made."""
    milliseconds, rest = divmod(now_ns, 1_000_000)
    fraction = (rest << 12) // 1_000_000
    random = int.from_bytes(entropy, "big") & ((1 << 62) - 1)
    return str(UUID(int=(milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random))


def complete(event: Event) -> Event:
    """The event with an id and a time, made now where absent."""
    whole = event.copy()
    whole["id"] = new_id(time.time_ns(), os.urandom(10)) if event.get("id") is None else str(event["id"])
    at = event.get("occurred_at")
    whole["occurred_at"] = _written_time(datetime.now(UTC) if at is None else at)
    return whole


def prepare(event: Event) -> Prepared:
    """A complete event as bytes. Raises UnsendableEventError for what JSON cannot hold."""
    members = {name: value for name, value in event.items() if value is not None}
    try:
        # ASCII, so that a lone surrogate still travels: the service then names the place, and only this event is rejected.
        body = json.dumps(members, default=_jsonable, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsendableEventError(f"the event cannot be written as JSON: {error}") from None
    return Prepared(str(event["id"]), body)


def _written_time(at: datetime | str) -> str:
    if isinstance(at, str):
        return at
    if at.utcoffset() is None:
        raise UnsendableEventError("occurred_at must have an offset: datetime.now(UTC), not datetime.now()")
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _jsonable(value: object) -> object:
    """What rows of real panels hold beside JSON."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, datetime | date | time_of_day):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} is not JSON")


def batch_body(events: Sequence[Prepared]) -> bytes:
    """The request body for these events."""
    return b'{"events":[' + b",".join(event.body for event in events) + b"]}"


def chunks(events: Sequence[Prepared], limit_events: int, limit_bytes: int) -> list[Sequence[Prepared]]:
    """The events in order, cut so that no piece exceeds a limit unless it is a single event."""
    cut: list[Sequence[Prepared]] = []
    start = size = 0
    for index, event in enumerate(events):
        if index > start and (index - start == limit_events or size + len(event.body) > limit_bytes):
            cut.append(events[start:index])
            start, size = index, 0
        size += len(event.body)
    return [*cut, events[start:]] if events else []


# --- answers ---


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """A Retry-After header, seconds or an HTTP date, between 0 and RETRY_AFTER_MAXIMUM_SECONDS; None when absent or unreadable."""
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text) if text.isdecimal() else (parsedate_to_datetime(text) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAXIMUM_SECONDS)


def delay_seconds(failures: int, asked: float | None, maximum: float, jitter: float) -> float:
    """The pause after so many failures in a row: doubling up to `maximum`, half of it at random (`jitter` in [0, 1)), so that
    many panels do not come back at once. What the service asked for is never undercut."""
    doubled = min(maximum, DELAY_FIRST_SECONDS * 2.0 ** min(failures - 1, 60))
    if asked is not None:
        return asked + doubled * jitter / 2
    return doubled * (1 + jitter) / 2


def _retryable(status: int) -> bool:
    return status in _NOT_NOW or status >= 500


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _about_events(status: int, problem: Mapping[str, Any]) -> bool:
    """Whether what an event holds is at fault. Only the service itself may condemn an event, save for its size."""
    return status == 413 or (status in _EVENTS_FAULT and str(problem.get("type", "")).startswith(PROBLEM_PREFIX))


def _failure(reply: Reply, problem: Mapping[str, Any]) -> Failure:
    detail = f"status {reply.status}: {problem.get('detail') or problem.get('title') or 'no problem document'}"
    if _retryable(reply.status):
        return Failure(detail, retry_after_seconds(reply.retry_after, datetime.now(UTC)))
    return Failure(detail, refused_status=reply.status)


def _read_reply(reply: Reply | Failure, events: Sequence[Prepared]) -> Attempt | None:
    """What an answer to these events says; None when it refuses them together, so that they must be asked about apart."""
    if isinstance(reply, Failure):
        return Attempt([None] * len(events), reply)
    answer = _json_object(reply.body)
    items = answer.get("results")
    if isinstance(items, list) and (reply.status in {200, 201, 207, 422}):
        try:
            return _read_results(items, events)
        except (KeyError, TypeError, ValueError):
            return Attempt([None] * len(events), Failure("the answer does not fit the events that were sent"))
    if _about_events(reply.status, answer):
        return None if len(events) > 1 else Attempt([Rejected(events[0].id, reply.status, answer)], None)
    if 200 <= reply.status < 300:
        return Attempt([None] * len(events), Failure(f"status {reply.status}, but no results: is this the service?"))
    return Attempt([None] * len(events), _failure(reply, answer))


def _read_results(items: Sequence[Any], events: Sequence[Prepared]) -> Attempt:
    if len(items) != len(events):
        raise ValueError("as many results as events")
    results = [_read_item(item, event.id) for item, event in zip(items, events, strict=True)]
    return Attempt(results, Failure("the service could not take all events of a batch") if None in results else None)


def _read_item(item: Any, event_id: str) -> Result | None:
    if "receipt" not in item:
        return None if _retryable(item["status"]) else Rejected(event_id, item["status"], dict(item["problem"]))
    members = item["receipt"]
    if members["id"] != event_id:
        raise ValueError("a receipt for another event")
    return Receipt(
        event_id, str(members["origin"]), members["seq"], datetime.fromisoformat(members["recorded_at"]),
        members["hash"], members["prev_hash"], bool(members["kept"]), bool(item["replayed"]),
    )  # fmt: skip


# --- sending ---


def attempt(events: Sequence[Prepared], first_delay_seconds: float = 0.0) -> Generator[Post, Reply | Failure, Attempt]:
    """One pass over the events, in order, that ends at the first failure."""
    results: list[Result | None] = [None] * len(events)
    spans = [(0, len(events))]
    delay = first_delay_seconds
    while spans:
        start, end = spans.pop()
        asked = events[start:end]
        read = _read_reply((yield Post(batch_body(asked), delay)), asked)
        delay = 0.0
        if read is None:
            middle = (start + end) // 2
            spans += [(middle, end), (start, middle)]
            continue
        results[start:end] = read.results
        if read.failure is not None:
            return Attempt(results, read.failure)
    return Attempt(results, None)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long `deliver` goes on. `clock` counts seconds; `jitter` gives numbers in [0, 1)."""

    retry_seconds: float
    delay_maximum_seconds: float
    clock: Callable[[], float]
    jitter: Callable[[], float]


def deliver(
    events: Sequence[Event], limit_events: int, limit_bytes: int, patience: Patience
) -> Generator[Post, Reply | Failure, list[Result]]:
    """Attempts until each event has its result. Raises RefusedError at once, UnavailableError when the time is over, and
    UnsendableEventError before anything is posted."""
    whole = [complete(event) for event in events]
    results: list[Result] = []
    for chunk in chunks([prepare(event) for event in whole], limit_events, limit_bytes):
        try:
            results += yield from _deliver_chunk(chunk, patience)
        except _GaveUpError as error:
            raise UnavailableError(str(error), whole) from None
    return results


class _GaveUpError(Exception):
    pass


def _deliver_chunk(events: Sequence[Prepared], patience: Patience) -> Generator[Post, Reply | Failure, list[Result]]:
    results: list[Result | None] = [None] * len(events)
    left = list(range(len(events)))
    deadline = patience.clock() + patience.retry_seconds
    failures, delay = 0, 0.0
    while left:
        tried = yield from attempt([events[index] for index in left], delay)
        for index, result in zip(left, tried.results, strict=True):
            results[index] = result
        left = [index for index in left if results[index] is None]
        if tried.failure is None:
            break
        if tried.failure.refused_status is not None:
            raise RefusedError(tried.failure.detail, tried.failure.refused_status)
        failures += 1
        asked = tried.failure.retry_after_seconds
        delay = delay_seconds(failures, asked, patience.delay_maximum_seconds, patience.jitter())
        if patience.clock() + delay >= deadline:
            raise _GaveUpError(f"no receipt after {failures} tries: {tried.failure.detail}")
    return [result for result in results if result is not None]
