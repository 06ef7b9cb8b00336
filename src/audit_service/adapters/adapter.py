"""What an adapter is: a sender's protocol as plain functions, without HTTP, SQL, clock or settings.

    framing   `records`   the body → the records in it, each by itself or with its own error
    mapping   `event`     one record → a draft of our event
    answer    `answer`    what became of each record → a reply the sender understands
    refusal   `refuse`    the same for a request that was refused as a whole

`api/routes/adapters.py` makes a route of each adapter and leads its events through the one write path, `ingest`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

import orjson

from audit_service.adapters.authorization import bearer_keys
from audit_service.adapters.draft import Draft
from audit_service.core.event import EventLimits
from audit_service.errors import Fault, InputError, InvalidEventError, TooLargeError

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as an adapter sees it. Header names are in lower case; `secrets` are the shared secrets by adapter name."""

    body: bytes
    headers: Mapping[str, str]
    received_at: datetime
    limits: EventLimits = field(default_factory=EventLimits)
    limit_events: int = 10_000
    secrets: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def media_type(self) -> str:
        """The Content-Type without its parameters, in lower case; empty when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one record: 201 stored, 200 known or not kept, 4xx refused with a detail that holds no sent value."""

    status: int
    id: str | None = None
    detail: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the event is durable, or needs not be."""
        return self.detail is None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a whole request was refused, as the error's status says it. Never a sent value."""

    status: int
    detail: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply: status, body and its media type. `cut` breaks the connection off before the end of the body, for a sender that takes
    whatever is whole for final."""

    status: int
    body: bytes
    media_type: str = "application/json"
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Adapter(Generic[R]):
    """A sender's protocol. `refuse` is None where the sender reads nothing but the status: it gets a problem document.

    `keys` finds the API key in the Authorization header: candidates, the first that is a live key counts.
    `probes` are paths that the sender asks with GET before it sends, with their fixed answers.
    """

    name: str
    paths: tuple[str, ...]
    records: Callable[[Delivery], "Sequence[R | InputError]"]
    event: Callable[[R, Delivery], Draft]
    answer: Callable[[Delivery, "Sequence[R | InputError]", Sequence[Result]], Answer]
    refuse: Callable[[Delivery, Refusal], Answer] | None = None
    keys: Callable[[str], Sequence[str]] = bearer_keys
    probes: Mapping[str, Answer] = field(default_factory=dict)


def json_answer(status: int, body: object) -> Answer:
    """A JSON reply."""
    return Answer(status, orjson.dumps(body))


def counting_answer(_delivery: Delivery, _records: object, results: Sequence[Result]) -> Answer:
    """For senders that read only the status: 200 when anything was accepted, else the status of the first refusal."""
    refused = [
        {"index": index, "status": result.status, "detail": result.detail}
        for index, result in enumerate(results)
        if not result.accepted
    ]
    status = 200 if len(refused) < len(results) or not results else results[0].status
    return json_answer(status, {"accepted": len(results) - len(refused), "rejected": len(refused), "errors": refused})


def check_count(records: Sequence[R], delivery: Delivery) -> Sequence[R]:
    """The records, unless there are too many for one request. Raises TooLargeError."""
    if len(records) > delivery.limit_events:
        raise too_many(delivery)
    return records


def too_many(delivery: Delivery) -> TooLargeError:
    """The error for more records than one request may bring."""
    return TooLargeError(
        f"a request holds at most {delivery.limit_events} events", [Fault("holds too many events", "")]
    )


def not_an_object(what: str) -> InvalidEventError:
    """The error for a record that is not a JSON object."""
    return InvalidEventError(f"{what} must be a JSON object", [Fault("must be an object", "")])
