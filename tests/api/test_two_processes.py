"""Two service processes on one database, asked for the same ids at once, and one that dies between commit and answer."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from tests.support.appends import existing_log, owner, wait_until
from tests.support.apps import open_api
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase
from tests.support.processes import free_port

WORKER = """
import os, signal, sys, uvicorn
from audit_service.app import create_app
from audit_service.settings import Settings
from audit_service.store import group_commit

append_entries = group_commit.append_entries

async def committed_and_gone(engine, log_id, ruleset, candidates):
    appended = await append_entries(engine, log_id, ruleset, candidates)
    if any(one.id.startswith("fatal") for one in candidates):
        os.kill(os.getpid(), signal.SIGKILL)
    return appended

group_commit.append_entries = committed_and_gone
app = create_app(Settings(database_url=os.environ["TEST_DATABASE"]))
uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", lifespan="on", ws="none")
"""


@contextmanager
def workers(database: TestDatabase, count: int) -> Iterator[list[httpx.AsyncClient]]:
    """Clients of as many service processes on one database. Each kills itself after the commit of an event called fatal…"""
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            port = free_port()
            environment = os.environ | {"TEST_DATABASE": database.serving_url}
            process = subprocess.Popen([sys.executable, "-c", WORKER, str(port)], env=environment)
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
            headers = {"Authorization": f"Bearer {BOOTSTRAP_KEY}"}
            clients.append(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False))
        yield clients


def answering(client: httpx.AsyncClient) -> Callable[[], Any]:
    """Whether it answers."""

    async def answers() -> bool:
        try:
            return (await client.get("/healthz")).status_code == 200
        except httpx.TransportError:
            return False

    return answers


async def test_one_id_at_two_processes_and_a_process_that_dies_after_the_commit(
    database: TestDatabase, log_id: int
) -> None:
    """Whoever is asked, and whatever became of the one asked first: one id is one entry with one receipt."""
    with workers(database, 2) as clients:
        for client in clients:
            await wait_until(answering(client), "a worker's answer")
        await race_for_ids(clients)
        mortal, other = clients
        event = {"id": "fatal-1", "action": "server.updated", "before": {"a": 1}, "after": {"a": 2}}
        with pytest.raises(httpx.TransportError):  # committed; its answer never came
            await mortal.post("/v1/events", json=event)
        again = await other.get("/v1/events/fatal-1")
        assert again.status_code == 200
        async with open_api(database) as api:
            replay = await api.post(event)
            assert (replay.status_code, replay.headers["idempotent-replayed"]) == (200, "true")
            assert replay.json()["hash"] == again.json()["proof"]["hash"]
            assert (await api.post({**event, "after": {"a": 3}})).status_code == 409
        for client in clients:
            await client.aclose()
    await (await existing_log(database, log_id)).assert_intact(31)
    async with owner(database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM audit.receipt WHERE id = 'fatal-1'") == 1


async def race_for_ids(clients: Sequence[httpx.AsyncClient]) -> None:
    """Each of 15 ids four times at once at both processes with one content, and 15 more with two contents."""
    for number in range(15):
        event = {"id": f"race-{number}", "action": "x"}
        posts = [client.post("/v1/events", json=event) for client in clients for _ in range(4)]
        responses = await asyncio.gather(*posts)
        assert sorted(response.status_code for response in responses) == [200] * 7 + [201]
        assert len({response.text for response in responses}) == 1
        event = {"id": f"clash-{number}", "action": "x"}
        posts = [client.post("/v1/events", json=event | {"reason": str(n)}) for n, client in enumerate(clients)]
        responses = await asyncio.gather(*posts)
        assert sorted(response.status_code for response in responses) == [201, 409]
