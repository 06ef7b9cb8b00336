"""Group commit on the real database: who is committed together, what bounds it, and that one caller's misfortune is his alone."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service import ingest
from audit_service.errors import InvalidEventError, UnavailableError
from audit_service.store import group_commit
from audit_service.store.append import Appended, Candidate, append_entries
from audit_service.store.engine import Database
from audit_service.store.group_commit import GroupCommit
from tests.support.api import Api
from tests.support.appends import RULESET, TestLog, candidate, make_log, owner, wait_until
from tests.support.apps import open_api
from tests.support.postgres import TestDatabase
from tests.support.serving import served

WAIT_SECONDS = 20.0


@dataclass(slots=True)
class Calls:
    """What went to `append_entries`: the ids of each call. Calls wait at `gate` before they reach the database."""

    ids: list[list[str]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def append(
        self, engine: AsyncEngine, log_id: int, ruleset: str, candidates: Sequence[Candidate]
    ) -> list[Appended]:
        """As `append_entries`."""
        self.ids.append([one.id for one in candidates])
        self.begun.set()
        await self.gate.wait()
        return await append_entries(engine, log_id, ruleset, candidates)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The calls of every GroupCommit from here on; the gate is open."""
    noted = Calls()
    noted.gate.set()
    monkeypatch.setattr(group_commit, "append_entries", noted.append)
    return noted


@pytest.fixture
async def log(module_database: TestDatabase) -> TestLog:
    """A log of the test's own."""
    return await make_log(module_database)


@pytest.fixture
async def pools_(module_database: TestDatabase) -> AsyncIterator[Database]:
    """A worker's pools."""
    opened = module_database.open()
    yield opened
    await opened.dispose()


@pytest.fixture
def group(pools_: Database) -> GroupCommit:
    """A worker's group commit."""
    return GroupCommit(pools_.writes, RULESET, pending_limit_events=5_000)


async def turns(count: int = 50) -> None:
    """Let everything that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def append(group: GroupCommit, log: TestLog, candidates: Sequence[Candidate]) -> list[Appended]:
    """Append candidates that can all be stored."""
    answers = await group.append(log.log_id, candidates)
    stored = [answer for answer in answers if isinstance(answer, Appended)]
    assert len(stored) == len(answers), answers
    return stored


async def in_flight(group: GroupCommit, log: TestLog, calls: Calls) -> asyncio.Task[list[Appended]]:
    """One append that has reached the gate and waits there, so that what comes next has to gather."""
    calls.gate.clear()
    calls.begun.clear()
    first = asyncio.create_task(append(group, log, [candidate("first")]))
    async with asyncio.timeout(WAIT_SECONDS):
        await calls.begun.wait()
    return first


def gather(group: GroupCommit, log: TestLog, names: Sequence[str]) -> list[asyncio.Task[list[Appended]]]:
    """A caller for each name."""
    return [asyncio.create_task(append(group, log, [candidate(name)])) for name in names]


def named(prefix: str, count: int) -> list[str]:
    """Ids."""
    return [f"{prefix}-{number}" for number in range(count)]


# --- who goes together


async def test_an_idle_log_is_flushed_at_once(group: GroupCommit, log: TestLog, calls: Calls) -> None:
    """No timer, no gathering: the call begins within a few turns of the loop, one for each lonely caller."""
    for number in range(3):
        calls.begun.clear()
        task = asyncio.create_task(append(group, log, [candidate(f"e-{number}")]))
        await turns(3)
        assert calls.begun.is_set()
        (appended,) = await task
        assert appended.seq == number
        await turns()  # the flusher ends a turn after its last answer
    assert calls.ids == [["e-0"], ["e-1"], ["e-2"]]
    await log.assert_intact(3)


async def test_what_comes_during_a_flush_goes_together_in_the_next(
    group: GroupCommit, log: TestLog, calls: Calls
) -> None:
    first = await in_flight(group, log, calls)
    waiting = gather(group, log, named("w", 100))
    await turns()
    assert (len(calls.ids), group.pending_events) == (1, 101)
    calls.gate.set()
    answers = await asyncio.gather(*waiting)
    assert [(await first)[0].seq, *(answer[0].seq for answer in answers)] == list(range(101))
    assert calls.ids == [["first"], named("w", 100)]
    # One call is one time: what was shared shows in the log itself.
    assert len({answer[0].recorded_at for answer in answers}) == 1
    assert group.pending_events == 0
    await log.assert_intact(101)


async def test_concurrent_posts_need_far_fewer_calls(module_database: TestDatabase, calls: Calls) -> None:
    """Over HTTP, nobody holding anything back: 300 single posts at once, all new, in fewer than a tenth as many calls."""
    async with served(module_database) as service:
        await service.api.accept({"action": "x"})
        calls.ids.clear()
        events = [{"id": f"herd-{number}", "action": "x"} for number in range(300)]
        responses = await asyncio.gather(*(service.api.post(event) for event in events))
        assert [response.status_code for response in responses] == [201] * 300
        assert [response.json()["id"] for response in responses] == [event["id"] for event in events]
        made = list(calls.ids)  # the verification is noted by a call of its own
        assert (await service.api.verify())["status"] == "ok"
    assert sorted(name for ids in made for name in ids) == sorted(event["id"] for event in events)
    assert len(made) < 100, len(made)


async def test_logs_do_not_wait_for_each_other(
    group: GroupCommit, log: TestLog, module_database: TestDatabase, calls: Calls
) -> None:
    other = await make_log(module_database)
    first = await in_flight(group, log, calls)
    second = asyncio.create_task(append(group, other, [candidate("other")]))
    await turns(3)
    assert calls.ids == [["first"], ["other"]]
    calls.gate.set()
    assert [(await first)[0].seq, (await second)[0].seq] == [0, 0]


async def test_the_same_id_from_several_callers_is_new_once(group: GroupCommit, log: TestLog, calls: Calls) -> None:
    first = await in_flight(group, log, calls)
    waiting = gather(group, log, ["same", "first", "same", "other", "same"])
    await turns()
    calls.gate.set()
    answers = [answer[0] for answer in await asyncio.gather(first, *waiting)]
    assert [(answer.seq, answer.known) for answer in answers] == [
        (0, False), (1, False), (0, True), (1, True), (2, False), (1, True),
    ]  # fmt: skip
    # A repeat within the flush is told the first one's content, so that a conflict is found.
    assert {answer.fingerprint for answer in (answers[3], answers[5])} == {candidate("same").fingerprint}
    await log.assert_intact(3)


# --- bounds


@pytest.mark.parametrize("extra", [-1, 0, 1])
async def test_a_group_is_bounded_in_events(group: GroupCommit, log: TestLog, calls: Calls, extra: int) -> None:
    count = group_commit.GROUP_LIMIT_EVENTS + extra
    first = await in_flight(group, log, calls)
    waiting = gather(group, log, named("n", count))
    await turns()
    calls.gate.set()
    await asyncio.gather(first, *waiting)
    assert [len(ids) for ids in calls.ids] == [1, min(count, group_commit.GROUP_LIMIT_EVENTS), *[1] * (extra > 0)]
    await log.assert_intact(count + 1)


@pytest.mark.parametrize("extra", [-1, 0, 1])
async def test_a_group_is_bounded_in_bytes(
    group: GroupCommit, log: TestLog, calls: Calls, monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    """Body and disclosures count."""
    monkeypatch.setattr(group_commit, "GROUP_LIMIT_BYTES", 3000)
    body = json.dumps({"v": "x" * 400})
    padding = (1000 - len(body)) * b"d"
    sized = [candidate(name, body, disclosures={"metadata": padding}) for name in "abc"]
    last = candidate("d", body, disclosures={"metadata": padding + b"d" * extra})
    first = await in_flight(group, log, calls)
    waiting = [asyncio.create_task(append(group, log, [one])) for one in [sized[0], sized[1], last, sized[2]]]
    await turns()
    calls.gate.set()
    await asyncio.gather(first, *waiting)
    expected = [["first"], ["a", "b"], ["d", "c"]] if extra > 0 else [["first"], ["a", "b", "d"], ["c"]]
    assert calls.ids == expected


async def test_one_caller_s_events_stay_together_even_over_the_bounds(
    group: GroupCommit, log: TestLog, calls: Calls
) -> None:
    """Half a batch must never be there."""
    first = await in_flight(group, log, calls)
    big = [candidate(name) for name in named("big", group_commit.GROUP_LIMIT_EVENTS + 100)]
    before, batch, after = (
        asyncio.create_task(append(group, log, part)) for part in ([candidate("b")], big, [candidate("a")])
    )
    await turns()
    calls.gate.set()
    await asyncio.gather(first, before, batch, after)
    assert [len(ids) for ids in calls.ids] == [1, 1, len(big), 1]
    await log.assert_intact(len(big) + 3)


async def test_no_candidates_are_no_call(group: GroupCommit, log: TestLog, calls: Calls) -> None:
    assert await append(group, log, []) == []
    assert calls.ids == []


# --- the bounded queue


async def test_a_full_queue_refuses_at_once_and_forgets_nothing(pools_: Database, log: TestLog, calls: Calls) -> None:
    group = GroupCommit(pools_.writes, RULESET, pending_limit_events=10)
    first = await in_flight(group, log, calls)
    waiting = gather(group, log, named("w", 9))
    await turns()
    for refused in ([candidate("over")], [candidate("over-1"), candidate("over-2")]):
        with pytest.raises(UnavailableError, match="waiting"):
            await append(group, log, refused)
    assert group.pending_events == 10
    calls.gate.set()
    await asyncio.gather(first, *waiting)
    assert group.pending_events == 0
    (appended,) = await append(group, log, [candidate("over")])
    assert (appended.seq, appended.known) == (10, False)
    await log.assert_intact(11)


async def test_a_batch_larger_than_the_queue_goes_through_when_nothing_waits(
    pools_: Database, log: TestLog, calls: Calls
) -> None:
    group = GroupCommit(pools_.writes, RULESET, pending_limit_events=10)
    batch = [candidate(name) for name in named("b", 11)]
    assert [one.seq for one in await append(group, log, batch)] == list(range(11))
    first = await in_flight(group, log, calls)
    with pytest.raises(UnavailableError):
        await append(group, log, [candidate(name) for name in named("c", 11)])
    calls.gate.set()
    await first


async def test_over_the_queue_s_limit_is_503_with_retry_after_and_counted(
    module_database: TestDatabase, calls: Calls
) -> None:
    async with open_api(module_database, pending_limit_events=2) as api:
        await api.accept({"action": "warm.up"})
        before = await refusals_of(api)
        calls.gate.clear()
        posts = [asyncio.create_task(api.post({"id": f"q-{number}", "action": "x"})) for number in range(2)]
        await wait_until(lambda: pending_is(api, 2), "two events waiting for the database")
        refused = await api.post({"id": "q-over", "action": "x"})
        batch = await api.client.post("/v1/events", json=[{"action": "x"}])
        stream = await api.client.post(
            "/v1/events", content=b'{"action":"x"}\n', headers={"Content-Type": "application/x-ndjson"}
        )
        for response in (refused, batch, stream):
            assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
            assert int(response.headers["retry-after"]) >= 1
        assert await refusals_of(api) == before + 3
        calls.gate.set()
        assert [response.status_code for response in await asyncio.gather(*posts)] == [201, 201]
        assert (await api.post({"id": "q-over", "action": "x"})).status_code == 201
        assert await pending_is(api, 0)
        assert (await api.verify())["status"] == "ok"


async def metric(api: Api, prefix: str) -> float:
    """The sum of the samples whose line begins so."""
    text = (await api.client.get("/metrics")).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(prefix))


async def refusals_of(api: Api) -> float:
    """How many posts were answered 503."""
    return await metric(api, 'audit_http_requests_total{method="POST",route="/v1/events",status="503"}')


async def pending_is(api: Api, count: int) -> bool:
    """Whether the metrics say that so many events wait."""
    return await metric(api, "audit_pending_events") == count


# --- one caller's misfortune


def poisoned(name: str) -> Candidate:
    """A candidate as no check ever lets through: PostgreSQL cannot store its NUL."""
    return candidate(name, '{"v":"\0"}')


@pytest.mark.parametrize("place", [0, 5, 9])
async def test_an_event_that_cannot_be_stored_fails_alone(
    group: GroupCommit, log: TestLog, calls: Calls, place: int
) -> None:
    """Its neighbours of the same flush are committed, once each and in their order."""
    first = await in_flight(group, log, calls)
    candidates = [poisoned(f"n-{n}") if n == place else candidate(f"n-{n}") for n in range(10)]
    waiting = [asyncio.create_task(group.append(log.log_id, [one])) for one in candidates]
    await turns()
    calls.gate.set()
    answers = [answer for (answer,) in await asyncio.gather(*waiting)]
    assert calls.ids[1] == named("n", 10)
    assert isinstance(answers.pop(place), InvalidEventError)
    assert [answer.seq for answer in answers if isinstance(answer, Appended)] == list(range(1, 10))
    await first
    await log.assert_intact(10)


@pytest.mark.parametrize("places", [{0}, {99}, {3, 4, 50}, set(range(100))])
async def test_of_a_batch_only_what_cannot_be_stored_fails(
    group: GroupCommit, log: TestLog, calls: Calls, places: set[int]
) -> None:
    """The rest is there in its order, whoever else shared the flush, and finding the bad ones takes few calls."""
    first = await in_flight(group, log, calls)
    batch = [poisoned(f"b-{n}") if n in places else candidate(f"b-{n}") for n in range(100)]
    waiting, good = (asyncio.create_task(group.append(log.log_id, part)) for part in (batch, [candidate("good")]))
    await turns()
    calls.gate.set()
    answers = await waiting
    assert {n for n, answer in enumerate(answers) if isinstance(answer, InvalidEventError)} == places
    taken = 100 - len(places)
    assert [answer.seq for answer in answers if isinstance(answer, Appended)] == list(range(1, 1 + taken))
    ((one,), (last,)) = await first, await good
    assert isinstance(last, Appended)
    assert (one.seq, last.seq) == (0, taken + 1)
    # The whole flush, and two halves for each refused part: seven times halved, a hundred are one.
    assert len(calls.ids) <= 2 + 2 * min(7 * len(places), 100)
    await log.assert_intact(2 + taken)


async def test_a_refused_call_does_not_cost_the_connection(group: GroupCommit, log: TestLog) -> None:
    """The server has answered: to connect anew for each refused part would take longer than to find it."""

    async def sessions() -> list[int]:
        async with owner(log.database) as connection:
            rows = await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'audit-service writes'"
            )
        return [row["pid"] for row in rows]

    await group.append(log.log_id, [candidate("good")])
    before = await sessions()
    await group.append(log.log_id, [poisoned("bad"), candidate("other")])
    assert before == await sessions()
    assert len(before) == 1


async def test_dividing_a_refused_flush_ends_in_time(
    group: GroupCommit, log: TestLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many parts: a slow database is told to the callers as for one call, those who wait behind included."""

    async def slow_refusal(*_: object) -> list[Appended]:
        await asyncio.sleep(0.05)  # the database's own time
        raise asyncpg.DataError

    monkeypatch.setattr(group_commit, "append_entries", slow_refusal)
    monkeypatch.setattr(group_commit, "APPEND_TIMEOUT_SECONDS", 0.2)
    parts = ([candidate(f"b-{n}") for n in range(64)], [candidate("behind")])
    callers = []
    for part in parts:
        callers.append(asyncio.create_task(group.append(log.log_id, part)))
        await turns()
    async with asyncio.timeout(2):  # one limit for each of the 127 calls would be six seconds
        for waiting in callers:
            with pytest.raises(UnavailableError):
                await waiting


async def test_a_worker_that_was_busy_itself_does_not_tell_that_the_database_is_away(
    group: GroupCommit, log: TestLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of a flush does not count the time in which our own loop stood still: what is committed is answered, and those who wait
    behind get their turn."""
    monkeypatch.setattr(group_commit, "APPEND_TIMEOUT_SECONDS", 0.5)
    await append(group, log, [candidate("connected")])
    appending = asyncio.create_task(append(group, log, [candidate("in flight")]))
    await turns(20)
    behind = asyncio.create_task(append(group, log, [candidate("behind")]))
    await turns(1)
    time.sleep(1)  # noqa: ASYNC251 - as sealing one large event does
    assert [(await task)[0].seq for task in (appending, behind)] == [1, 2]
    await log.assert_intact(3)


async def test_a_repeat_of_an_event_that_cannot_be_stored_is_judged_by_itself(group: GroupCommit, log: TestLog) -> None:
    """The first with the id fails, the second is good: it is new."""
    bad, good = await group.append(log.log_id, [poisoned("same"), candidate("same")])
    assert isinstance(bad, InvalidEventError)
    assert isinstance(good, Appended)
    assert (good.seq, good.known) == (0, False)
    await log.assert_intact(1)


async def test_a_database_that_takes_nothing_does_not_call_the_events_invalid(
    pools: Database, database: TestDatabase
) -> None:
    """A right that is missing is not the senders' fault: told that it was, they would drop good events."""
    group, log = GroupCommit(pools.writes, RULESET), await make_log(database)
    async with owner(database) as connection:
        await connection.execute("REVOKE EXECUTE ON FUNCTION audit.append_entries FROM audit_serving")
        answers = await asyncio.gather(*gather(group, log, named("f", 3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [asyncpg.InsufficientPrivilegeError] * 3
        await connection.execute("GRANT EXECUTE ON FUNCTION audit.append_entries TO audit_serving")
    assert [answer[0].seq for answer in await asyncio.gather(*gather(group, log, named("f", 3)))] == [0, 1, 2]
    await log.assert_intact(3)


async def test_an_event_that_cannot_be_stored_is_a_422_for_its_sender_only(
    module_database: TestDatabase, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same over HTTP; the answer tells nothing of the database, and the service goes on."""
    seal = ingest.seal

    def smuggling_seal(*arguments: Any) -> ingest.Sealed:
        sealed = seal(*arguments)
        poison = poisoned(sealed.candidate.id)
        return ingest.Sealed(poison, sealed.content) if sealed.candidate.id == "smuggled" else sealed

    monkeypatch.setattr(ingest, "seal", smuggling_seal)
    async with open_api(module_database) as api:
        names = ["s-0", "s-1", "smuggled", "s-2", "s-3"]
        calls.gate.clear()
        first = asyncio.create_task(api.post({"id": "s-first", "action": "x"}))
        async with asyncio.timeout(WAIT_SECONDS):
            await calls.begun.wait()
        posts = [asyncio.create_task(api.post({"id": name, "action": "x"})) for name in names]
        await wait_until(lambda: pending_is(api, 6), "one event at the gate and five that wait")
        calls.gate.set()
        responses = await asyncio.gather(*posts)
        assert (await first).status_code == 201
        assert sorted(calls.ids[1]) == sorted(names)  # the poison shared a flush
        assert [response.status_code for response in responses] == [201, 201, 422, 201, 201]
        assert responses[2].headers["content-type"] == "application/problem+json"
        assert "0x00" not in responses[2].text
        assert [(await api.client.get(f"/v1/events/{name}")).status_code for name in names] == [200, 200, 404, 200, 200]
        batch = await api.post([{"id": name, "action": "x"} for name in ("b-0", "smuggled", "b-1")])
        assert (batch.status_code, [result["status"] for result in batch.json()["results"]]) == (207, [201, 422, 201])
        assert (await api.verify())["status"] == "ok"


async def test_a_failed_flush_is_told_to_its_callers_and_forgotten(
    group: GroupCommit, log: TestLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> list[Appended]:
        raise UnavailableError("away")

    with monkeypatch.context() as patched:
        patched.setattr(group_commit, "append_entries", away)
        answers = await asyncio.gather(*gather(group, log, named("f", 5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [UnavailableError] * 5
    assert group.pending_events == 0
    assert [answer[0].seq for answer in await asyncio.gather(*gather(group, log, named("f", 5)))] == list(range(5))
    await log.assert_intact(5)


# --- callers that go away


async def test_cancelled_callers_owe_and_are_owed_nothing(group: GroupCommit, log: TestLog, calls: Calls) -> None:
    """Before the flush: not appended. During it: appended, their neighbours undisturbed."""
    first = await in_flight(group, log, calls)
    waiting = gather(group, log, named("w", 6))
    await turns()
    for task in (first, *waiting[::2]):
        task.cancel()
    await turns()
    assert group.pending_events == 3
    calls.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False] * 3
    assert calls.ids == [["first"], ["w-1", "w-3", "w-5"]]
    again = [(await append(group, log, [candidate(name)]))[0] for name in ("first", "w-0", "w-1")]
    assert [(one.seq, one.known) for one in again] == [(0, True), (4, False), (1, True)]
    await log.assert_intact(5)


async def test_closing_waits_for_everything_that_waits(group: GroupCommit, log: TestLog, calls: Calls) -> None:
    first = await in_flight(group, log, calls)
    waiting = gather(group, log, named("w", 20))
    await turns()
    closing = asyncio.create_task(group.close())
    await turns()
    assert not closing.done()
    calls.gate.set()
    await closing
    assert all(task.done() for task in (first, *waiting))
    await log.assert_intact(21)


async def test_a_client_that_leaves_before_its_answer_left_one_whole_event_or_none(
    module_database: TestDatabase, calls: Calls
) -> None:
    """One leaves within its body: nothing is there. One leaves while its event commits: it is there. Both may ask again."""
    body = json.dumps({"id": "left", "action": "x", "metadata": {"k": "v" * 500}}).encode()
    async with served(module_database) as service:
        async with service.wire() as wire:
            await wire.begin("Content-Type: application/json", f"Content-Length: {len(body)}")
            await wire.send(body[:-1])
            wire.abort()
        calls.gate.clear()
        async with service.wire() as wire:
            await wire.begin("Content-Type: application/json", f"Content-Length: {len(body)}")
            await wire.send(body)
            async with asyncio.timeout(WAIT_SECONDS):
                await calls.begun.wait()
            wire.abort()
        calls.gate.set()
        assert calls.ids == [["left"]]

        async def is_there() -> bool:
            return (await service.api.client.get("/v1/events/left")).status_code == 200

        await wait_until(is_there, "the event of the client that left")
        again = await service.api.client.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
        assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
        assert service.api.service.database.writes.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert (await service.api.verify())["status"] == "ok"
