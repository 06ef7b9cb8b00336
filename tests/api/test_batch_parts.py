"""A large batch is appended part by part, while the next part is sealed: the answer is that of one call."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service import ingest
from audit_service.errors import UnavailableError
from audit_service.store import group_commit
from audit_service.store.append import Appended, Candidate, append_entries
from tests.api.test_group_commit import Calls, pending_is
from tests.support.api import Api
from tests.support.appends import wait_until
from tests.support.apps import open_api
from tests.support.postgres import TestDatabase

PART = ingest.PART_EVENTS
COUNT = 3 * PART + 7


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The calls of the append function from here on; the gate is open."""
    noted = Calls()
    noted.gate.set()
    monkeypatch.setattr(group_commit, "append_entries", noted.append)
    return noted


def events(prefix: str, count: int) -> list[dict[str, Any]]:
    """So many, each with an id."""
    return [{"id": f"{prefix}:{number}", "action": "row.touched"} for number in range(count)]


async def post(api: Api, batch: list[dict[str, Any]]) -> tuple[int, list[dict[str, Any]]]:
    """The status of a batch, and its results."""
    response = await api.client.post("/v1/events", json=batch)
    return response.status_code, response.json().get("results", [])


async def test_the_results_are_in_order_and_everything_is_appended_once(shared_api: Api, calls: Calls) -> None:
    batch = events("parts", COUNT)
    status, results = await post(shared_api, batch)
    assert (status, [one["receipt"]["id"] for one in results]) == (201, [one["id"] for one in batch])
    seqs = [one["receipt"]["seq"] for one in results]
    assert seqs == list(range(seqs[0], seqs[0] + COUNT))
    assert [len(one) for one in calls.ids] == [PART, PART, PART, 7]


async def test_a_part_is_sealed_while_the_one_before_commits(
    shared_api: Api, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only one: what is sealed waits in memory."""
    sealed: list[int] = []
    seal_all = ingest.seal_all

    async def noted(*arguments: Any) -> Any:
        found = await seal_all(*arguments)
        sealed.append(len(found))
        return found

    monkeypatch.setattr(ingest, "seal_all", noted)
    calls.gate.clear()
    batch = asyncio.create_task(post(shared_api, events("overlap", COUNT)))

    async def two() -> bool:
        return len(sealed) == 2 and calls.begun.is_set()

    await wait_until(two, "the second part being sealed")
    for _ in range(50):
        await asyncio.sleep(0)
    assert (sealed, len(calls.ids)) == ([PART, PART], 1)
    calls.gate.set()
    assert (await batch)[0] == 201


async def test_a_repeat_in_another_part_is_a_replay(shared_api: Api) -> None:
    batch = events("repeat", COUNT)
    batch[-1] = batch[0]
    batch[PART] = {**batch[1], "action": "other"}
    status, results = await post(shared_api, batch)
    assert (status, results[PART]["status"]) == (207, 409)
    assert (results[-1]["replayed"], results[-1]["receipt"]) == (True, results[0]["receipt"])


async def test_when_a_part_cannot_be_appended_the_whole_is_asked_again(
    module_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def fails_later(engine: AsyncEngine, log_id: int, ruleset: str, some: Sequence[Candidate]) -> list[Appended]:
        nonlocal asked
        asked += 1
        if 2 <= asked <= 3:  # group commit asks once more by itself
            raise UnavailableError("the database is away")
        return await append_entries(engine, log_id, ruleset, some)

    monkeypatch.setattr(group_commit, "append_entries", fails_later)
    async with open_api(module_database) as api:
        batch = events("again", COUNT)
        assert (await post(api, batch))[0] == 503
        assert await pending_is(api, 0)
        assert asked == 3  # no later part is appended behind the gap
        status, results = await post(api, batch)
        replayed = [one["replayed"] for one in results]
        assert (status, replayed) == (201, [True] * PART + [False] * (COUNT - PART))
        assert (await api.verify())["status"] == "ok"


async def test_a_batch_that_finds_no_room_leaves_nothing(module_database: TestDatabase, calls: Calls) -> None:
    """All of it is counted at the beginning, not part by part."""
    async with open_api(module_database, pending_limit_events=PART + 10) as api:
        await api.accept({"action": "warm.up"})
        calls.gate.clear()
        waiting = asyncio.create_task(api.post({"action": "x"}))
        await wait_until(lambda: pending_is(api, 1), "one event waiting for the database")
        before = len(calls.ids)
        assert (await post(api, events("no-room", COUNT)))[0] == 503
        calls.gate.set()
        assert (await waiting).status_code == 201
        assert len(calls.ids) <= before + 1
        assert (await api.client.get("/v1/events/no-room:0")).status_code == 404
        assert (await post(api, events("no-room", COUNT)))[0] == 201
        assert await pending_is(api, 0)
