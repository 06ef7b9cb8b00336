"""How often the database is asked about a key: once a second for all who use it, whoever of them goes away."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from audit_service.api import dependencies
from tests.support.api import Api
from tests.support.appends import lock_waiters, wait_until
from tests.support.apps import open_api
from tests.support.credentials import create_key
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase

CALLERS = 24


@contextmanager
def questions(api: Api) -> Iterator[list[str]]:
    """The statements about keys that the database is asked meanwhile."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "api_key" in statement:
            found.append(statement)

    engine = api.service.database.reads.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


def ask(api: Api) -> asyncio.Task[httpx.Response]:
    """Someone with the key."""
    return asyncio.create_task(api.client.get("/v1/events", params={"limit": "1"}))


async def test_who_comes_together_is_looked_up_once(
    module_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependencies, "CREDENTIAL_CACHE_SECONDS", 60.0)
    async with open_api(module_database) as api:
        with questions(api) as asked:
            answers = await asyncio.gather(*(ask(api) for _ in range(CALLERS)))
            assert {answer.status_code for answer in answers} == {200}
            assert len(asked) == 1


async def test_nobody_joins_a_question_that_is_as_old_as_the_cache_may_be(
    module_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key may have been revoked since it was asked. Also the control of the test above: without the second, everybody asks."""
    monkeypatch.setattr(dependencies, "CREDENTIAL_CACHE_SECONDS", 0.0)
    async with open_api(module_database) as api:
        with questions(api) as asked:
            answers = await asyncio.gather(*(ask(api) for _ in range(CALLERS)))
            assert {answer.status_code for answer in answers} == {200}
            assert len(asked) == CALLERS


@pytest.mark.parametrize("leave", [1, 3])
async def test_others_are_answered_when_who_asked_first_goes_away(
    module_database: TestDatabase, monkeypatch: pytest.MonkeyPatch, leave: int
) -> None:
    monkeypatch.setattr(dependencies, "CREDENTIAL_CACHE_SECONDS", 60.0)
    # A transaction sees other sessions as they were when it first looked: somebody else looks.
    owner, watcher = await module_database.owner(), await module_database.owner()

    async def waiting() -> bool:
        return bool(await lock_waiters(watcher))

    async with open_api(module_database) as api:
        with questions(api) as asked:
            async with owner.transaction():
                await owner.execute("LOCK TABLE audit.api_key")
                callers = [ask(api) for _ in range(3)]
                await wait_until(waiting, "waiting for the keys")
                for caller in callers[:leave]:
                    caller.cancel()
            gone = await asyncio.gather(*callers[:leave], return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in gone)
            assert [(await caller).status_code for caller in callers[leave:]] == [200] * (3 - leave)
            assert (await ask(api)).status_code == 200
            assert len(asked) == 1
    await owner.close()
    await watcher.close()


async def test_a_key_that_is_none_is_asked_about_again(module_database: TestDatabase) -> None:
    """A refusal is not kept: a key may be made a moment later."""
    async with open_api(module_database, key=BOOTSTRAP_KEY[::-1]) as api:
        with questions(api) as asked:
            for _ in range(2):
                assert (await ask(api)).status_code == 401
            live = [statement for statement in asked if "revoked_at IS NULL" in statement]
            assert len(live) == 2
            assert len(asked) == 4  # and why it is none, for the log


async def test_a_key_of_another_network_is_asked_about_as_one_that_is_none(shared_api: Api) -> None:
    """So the time an answer takes does not tell that it is one; and it was not used. Not in the cache, nor when its holder is busy."""
    made = await create_key(shared_api, ["read"], networks=["198.51.100.0/24"])
    service = shared_api.service
    for warm in (False, True):
        for key, cached in (("aud_unknown", False), (made["key"], warm)):
            if cached:
                assert await service.credential(key) is not None
            with questions(shared_api) as asked:
                answer = await shared_api.client.get("/v1/events", headers={"Authorization": f"Bearer {key}"})
            assert (answer.status_code, answer.json()["detail"]) == (401, "the API key is not valid")
            assert len(asked) == 2, (key[:8], cached)
    listed = (await shared_api.client.get("/v1/keys")).json()["keys"]
    assert [key["last_used_at"] for key in listed if key["key_id"] == made["key_id"]] == [None]
