"""The client's rules on values alone, with an invented clock and an invented service."""

import json
from collections.abc import Generator, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TypeVar, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.client import (
    AuditClient,
    Event,
    Receipt,
    RefusedError,
    Rejected,
    UnavailableError,
    UnsendableEventError,
)
from audit_service.client.event import Prepared, complete, new_id, prepare
from audit_service.client.wire import (
    DELAY_FIRST_SECONDS,
    Failure,
    Patience,
    Post,
    Reply,
    attempt,
    chunks,
    delay_seconds,
    deliver,
    retry_after_seconds,
)
from tests.support.panel_network import KEY, QUICK, problem, receipts

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
T = TypeVar("T")


def prepared(number: int) -> Prepared:
    """A small event."""
    return Prepared(str(number), json.dumps({"id": str(number), "action": "x"}).encode())


# --- events ---


class Colour(Enum):
    """An enum that is no string."""

    RED = "red"


def test_an_event_is_written_once_with_its_id_and_time() -> None:
    row = {"at": NOW, "day": date(2026, 1, 2), "price": Decimal("1.50"), "key": UUID(int=1), "colour": Colour.RED}
    whole = complete({"action": "x", "before": row, "server_id": None})
    written = json.loads(prepare(whole).body)
    assert written["before"] == {
        "at": "2026-11-22T10:00:00+00:00", "day": "2026-01-02", "price": "1.50", "key": str(UUID(int=1)), "colour": "red",
    }  # fmt: skip
    assert sorted(written) == ["action", "before", "id", "occurred_at"]
    assert prepare(complete(whole)) == prepare(whole), "completing again changes nothing"


def test_times_are_sent_in_utc_and_never_without_an_offset() -> None:
    local = datetime(2026, 11, 22, 11, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    assert complete({"action": "x", "occurred_at": local})["occurred_at"] == "2026-11-22T10:00:00.000005+00:00"
    with pytest.raises(UnsendableEventError, match="offset"):
        complete({"action": "x", "occurred_at": NOW.replace(tzinfo=None)})


@pytest.mark.parametrize(
    "value", [float("nan"), b"bytes", {1, 2}, object(), {(1, 2): 3}], ids=["nan", "bytes", "set", "object", "key"]
)
def test_what_json_cannot_hold_is_refused_before_anything_is_queued(value: object) -> None:
    with AuditClient("http://127.0.0.1:9", KEY, **QUICK) as client:
        with pytest.raises(UnsendableEventError):
            client.record("x", after={"value": value})
        assert client.pending() == 0


def test_ids_are_uuids_of_version_7_and_sort_by_time() -> None:
    at = 1_700_000_000_000_000_000
    made = [new_id(at + step * 1000, b"\xff" * 10) for step in range(3000)]
    assert made == sorted(set(made))
    first = UUID(made[0])
    assert (first.version, first.variant) == (7, UUID(int=1 << 63).variant)
    assert first.int >> 80 == at // 1_000_000


# --- pauses ---


@given(failures=st.integers(1, 10_000), maximum=st.floats(1, 600), jitter=st.floats(0, 1, exclude_max=True))
def test_a_pause_doubles_up_to_its_maximum_and_half_of_it_is_chance(
    failures: int, maximum: float, jitter: float
) -> None:
    delay = delay_seconds(failures, None, maximum, jitter)
    whole = min(maximum, DELAY_FIRST_SECONDS * 2 ** min(failures - 1, 60))
    assert whole / 2 <= delay <= whole
    assert delay_seconds(failures, 7.0, maximum, jitter) >= 7.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), ("3", 3.0), (" 120 ", 120.0), ("9" * 400, 300.0), ("-1", None), ("soon", None), ("", None),
     ("Sun, 22 Nov 2026 10:00:05 GMT", 5.0), ("Sun, 22 Nov 2026 09:00:00 GMT", 0.0), ("Mon, 23 Nov 2026 10:00:00 GMT", 300.0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(value: str | None, expected: float | None) -> None:
    assert expected == retry_after_seconds(value, NOW)


# --- batches ---


@given(sizes=st.lists(st.integers(1, 50)), limit_events=st.integers(1, 7), limit_bytes=st.integers(1, 120))
def test_chunks_keep_the_order_and_both_limits(sizes: list[int], limit_events: int, limit_bytes: int) -> None:
    events = [Prepared(str(index), b"x" * size) for index, size in enumerate(sizes)]
    cut = chunks(events, limit_events, limit_bytes)
    assert [event for chunk in cut for event in chunk] == events
    for chunk, following in zip(cut, [*cut[1:], []], strict=False):
        size = sum(len(event.body) for event in chunk)
        assert len(chunk) == 1 or (len(chunk) <= limit_events and size <= limit_bytes)
        assert len(chunk) == limit_events or not following or size + len(following[0].body) > limit_bytes


class FakeService:
    """Refuses a whole request that holds one of `poison`, with `refusal`; else accepts. Counts what it accepted."""

    def __init__(self, poison: set[str], refusal: Reply) -> None:
        self.accepted: list[str] = []
        self._poison, self._refusal = poison, refusal

    def answer(self, body: bytes) -> Reply:
        """The reply to one request."""
        events = json.loads(body)["events"]
        if self._poison & {event["id"] for event in events}:
            return self._refusal
        self.accepted += [event["id"] for event in events]
        return Reply(201, None, receipts(events))


def run(steps: Generator[Post, Reply | Failure, T], service: FakeService) -> T:
    """Drive a generator that never pauses."""
    try:
        post = next(steps)
        while True:
            post = steps.send(service.answer(post.body))
    except StopIteration as stop:
        return cast("T", stop.value)


REFUSALS = [Reply(400, None, problem("malformed", 400)), Reply(413, None, b"<html>too large</html>")]


@given(count=st.integers(1, 40), poison=st.sets(st.integers(0, 39)), refusal=st.sampled_from(REFUSALS))
def test_a_refused_batch_is_halved_until_the_bad_events_stand_alone(
    count: int, poison: set[int], refusal: Reply
) -> None:
    events = [prepared(number) for number in range(count)]
    service = FakeService({str(number) for number in poison}, refusal)
    tried = run(attempt(events), service)
    assert tried.failure is None
    assert [type(item) for item in tried.results] == [Rejected if n in poison else Receipt for n in range(count)]
    assert [item.id for item in tried.results if item] == [event.id for event in events]
    assert service.accepted == [str(number) for number in range(count) if number not in poison]


NOT_NOW = [Reply(status, None, b"") for status in (408, 425, 429, 500, 502, 503, 504)]
NOT_UNDERSTOOD = [
    Reply(200, None, b"<html>Welcome to the hotel</html>"),
    Reply(201, None, b'{"results": []}'),
    Reply(201, None, b'{"results": [5]}'),
    Reply(207, None, b'{"results": [{"status": "x"}]}'),
    Reply(204, None, b""),
    Reply(201, None, receipts([{"id": "another"}])),
    Reply(207, None, b'{"results": [{"status": 503, "problem": {}}]}'),
]


@pytest.mark.parametrize("reply", NOT_NOW + NOT_UNDERSTOOD, ids=lambda reply: f"{reply.status}-{reply.body[:24]!r}")
def test_an_answer_without_a_result_is_asked_for_again(reply: Reply) -> None:
    steps = attempt([prepared(1)])
    next(steps)
    with pytest.raises(StopIteration) as ended:
        steps.send(reply)
    tried = ended.value.value
    assert (list(tried.results), tried.failure is not None, tried.failure.refused_status) == ([None], True, None)


REFUSED = [Reply(status, None, b"") for status in (301, 401, 403, 404, 405, 415)]
NOT_BY_THE_SERVICE = [Reply(status, None, b"<html>no</html>") for status in (400, 409, 422)]


@pytest.mark.parametrize("reply", REFUSED + NOT_BY_THE_SERVICE, ids=lambda reply: str(reply.status))
def test_a_refusal_of_the_request_condemns_no_event(reply: Reply) -> None:
    events: list[Event] = [{"action": "x"}, {"action": "y"}]
    steps = deliver(events, 10, 1000, Patience(60, 1, lambda: 0.0, lambda: 0.0))
    next(steps)
    with pytest.raises(RefusedError) as raised:
        steps.send(reply)
    assert raised.value.status == reply.status


def pauses(replies: Sequence[Reply | Failure], retry_seconds: float) -> list[float]:
    """The pauses of a delivery of one event on a clock that only they move."""
    clock, found, receipt = 0.0, list[float](), list[Receipt | Rejected]()
    patience = Patience(retry_seconds, 1.0, lambda: clock, lambda: 0.0)
    steps = deliver([{"id": "1", "action": "x"}], 10, 1000, patience)
    post = next(steps)
    for reply in replies:
        try:
            post = steps.send(reply)
        except StopIteration as ended:
            receipt = ended.value
            break
        found.append(post.delay_seconds)
        clock += post.delay_seconds
    assert [item.id for item in receipt] == ["1"]
    return found


def test_tries_follow_the_service_and_else_the_doubling() -> None:
    away, asked = Failure("no route"), Reply(503, "4", b"")
    good = Reply(201, None, receipts([{"id": "1"}]))
    assert pauses([away, away, asked, away, away, good], 60) == [0.1, 0.2, 4.0, 0.5, 0.5]
    assert pauses([good], 60) == []
    with pytest.raises(UnavailableError, match="after 3 tries: no route"):
        pauses([away] * 9, 0.6)
    with pytest.raises(UnavailableError, match="after 1 tries"):
        pauses([asked, good], 4)  # no use in waiting for what comes too late


def test_only_the_first_request_of_a_try_waits() -> None:
    steps = attempt([prepared(1), prepared(2)], first_delay_seconds=5)
    delays = [next(steps).delay_seconds, steps.send(REFUSALS[0]).delay_seconds]
    delays.append(steps.send(Reply(201, None, receipts([{"id": "1"}]))).delay_seconds)
    assert delays == [5, 0, 0]
