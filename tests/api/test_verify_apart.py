"""A long verification runs in a process of its own: the same report, and nothing left behind whatever ends it."""

import asyncio
import contextlib
import os
from typing import Any

import httpx
import psutil
import pytest

from audit_service import verify_apart
from audit_service.api.routes import chain
from tests.support.api import Api
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase
from tests.support.serving import PATIENCE_SECONDS, served

ENTRIES = 60


def children() -> list[psutil.Process]:
    """The living verifications of this process."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and "audit_service.verify_apart" in child.cmdline():
                found.append(child)
    return found


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short a verification is, it gets a process."""
    monkeypatch.setattr(chain, "ENTRIES_HERE", 0)


async def fill(api: Api) -> None:
    """A log of some entries."""
    assert (await api.post([{"action": "x", "metadata": {"n": n}} for n in range(ENTRIES)])).status_code == 201


def settled(report: dict[str, Any]) -> dict[str, Any]:
    """Without what a note of the verification before has changed: the end of the log."""
    ends = {"head", "root"} if report.get("checked", {}).get("to_seq", 0) >= ENTRIES else {"head"}
    told = {name: value for name, value in report.items() if name not in ends}
    if "root" in ends:
        told["checked"] = report["checked"]["from_seq"]
    return told


async def both(api: Api, monkeypatch: pytest.MonkeyPatch, **parameters: str) -> tuple[httpx.Response, httpx.Response]:
    """The answers of a verification here and of one apart."""
    here = await api.client.get("/v1/chain/verify", params=parameters)
    with monkeypatch.context() as patched:
        patched.setattr(chain, "ENTRIES_HERE", 0)
        there = await api.client.get("/v1/chain/verify", params=parameters)
    return here, there


@pytest.mark.parametrize(
    "parameters",
    [{}, {"depth": "chain"}, {"from_seq": "10", "to_seq": "20"}, {"incremental": "true"}, {"from_seq": "10", "to_seq": "5"},
     {"to_seq": "100000"}, {"checkpoint": "no note"}],
    ids=str,
)  # fmt: skip
async def test_the_answer_is_the_same(api: Api, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, str]) -> None:
    await fill(api)
    here, there = await both(api, monkeypatch, **parameters)
    assert (here.status_code, settled(here.json())) == (there.status_code, settled(there.json()))


async def test_what_is_broken_is_found_there_too(
    api: Api, database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(api)
    owner = await database.owner()
    await owner.execute("ALTER TABLE audit.entry DISABLE TRIGGER ALL")
    await owner.execute("UPDATE audit.entry SET action = 'y' WHERE seq = 7")
    await owner.close()
    here, there = await both(api, monkeypatch)
    assert there.json()["status"] == "broken"
    assert settled(here.json()) == settled(there.json())


@pytest.mark.usefixtures("apart")
async def test_a_process_that_is_killed_is_a_problem_and_gives_its_place_back(database: TestDatabase) -> None:
    async with served(database) as service:
        await fill(service.api)
        owner = await database.owner()
        async with owner.transaction(), service.wire() as wire:
            await owner.execute("LOCK TABLE audit.receipt IN ACCESS EXCLUSIVE MODE")  # it cannot end before its client
            request = f"GET /v1/chain/verify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {BOOTSTRAP_KEY}\r\n\r\n"
            await wire.send(request.encode())
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not children():  # noqa: ASYNC110 - nobody tells of a process that begins
                    await asyncio.sleep(0.02)
            (child,) = children()
            assert os.sched_getscheduler(child.pid) == os.SCHED_IDLE
            assert BOOTSTRAP_KEY not in " ".join(child.cmdline())
            assert "postgresql://" not in " ".join(child.cmdline()) + " ".join(child.environ().values())
            child.kill()
            answer = await wire.answer()
            assert (answer.status, answer.json()["detail"]) == (
                503,
                "the verification was broken off: its process has ended",
            )
        await owner.close()
        assert not children()
        assert service.api.service.verifies.taken == 0
        await service.api.assert_intact(ENTRIES)


async def test_a_child_whose_parent_is_gone_ends() -> None:
    process = await asyncio.create_subprocess_exec(*verify_apart.CHILD, stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await process.wait() == 0
