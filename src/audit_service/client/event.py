"""What a panel hands to the client and gets back: events, receipts, rejections, errors. No I/O.

An event becomes `Prepared` once: it gets its id and time there, and every try sends those bytes.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from enum import Enum
from typing import Literal, Required, TypeAlias, TypedDict
from uuid import UUID

JSONValue: TypeAlias = "bool | int | float | str | list[JSONValue] | dict[str, JSONValue] | None"
Row: TypeAlias = Mapping[str, object]


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
