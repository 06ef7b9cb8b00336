"""The pure part of the client: what is posted, what an answer means, when to try again. No I/O and no waiting.

Both clients drive the same generators. A generator yields a `Post` (wait so long, then post this body) and is sent the
`Reply`, or the `Failure` to get one:

- `attempt` posts the events once. A batch that is refused as a whole for something one of its events holds is halved until
  that event stands alone, so one bad event never stops the others.
- `deliver` repeats `attempt`, with pauses, until every event has its result or the time is over.

An answer is about the **events** (400, 409 or 422 with a problem document of the service; 413): they are rejected, for good.
Or it is about **now** (no answer, 408, 425, 429, 5xx, an answer that cannot be understood): the same bytes are sent again.
An event that makes the service answer 5xx time and again holds up those behind it: order is kept, and nothing is given up.
Or it is about the **request** (401, 403, 404, a redirect, a 400 of somebody in between): no event is at fault, none is rejected.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from audit_service.client.event import (
    Event,
    Prepared,
    Receipt,
    RefusedError,
    Rejected,
    Result,
    UnavailableError,
    complete,
    prepare,
)

PROBLEM_PREFIX = "urn:audit-service:problem:"
DELAY_FIRST_SECONDS = 0.2
RETRY_AFTER_MAXIMUM_SECONDS = 300.0
_EVENTS_FAULT = frozenset({400, 409, 422})
_NOT_NOW = frozenset({408, 425, 429})


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
