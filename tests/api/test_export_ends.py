"""What ends an export before its time, that its reader can tell, and that nothing of it is left behind."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from audit_service.api import download
from audit_service.api.dependencies import Service
from tests.support.exports import exported
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase
from tests.support.serving import PATIENCE_SECONDS, Served, Wire, served


def formatters() -> list[psutil.Process]:
    """The living formatters of this process."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "audit_service.formatter" in child.cmdline()
    ]


async def is_quiet(service: Service) -> bool:
    """Whether no export runs: no slot, connection or process is taken, and the database works at nothing."""
    engine: Any = service.database.reads
    if service.exports.taken or formatters() or engine.pool.checkedout():
        return False
    async with engine.connect() as connection:
        busy = await connection.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'audit-service reads' AND state <> 'idle' "
                "AND pid <> pg_backend_pid() AND datname = current_database()"
            )
        )
    return bool(busy == 0)


async def becomes_quiet(service: Service) -> None:
    """Wait until it is; fails the test when it never is."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await is_quiet(service):  # noqa: ASYNC110 - nobody tells of what has ended
            await asyncio.sleep(0.02)


@pytest.fixture
async def large(database: TestDatabase) -> AsyncIterator[Served]:
    """The service on a socket, one export at a time, with a log far larger than every buffer between it and a client."""
    async with served(database, exports_limit=1) as opened:
        for start in range(0, 4000, 500):
            many = [{"action": "x", "description": f"{start + n} " * 200} for n in range(500)]
            assert (await opened.api.client.post("/v1/events", json=many)).status_code == 201
        yield opened
        await opened.api.assert_intact(4000)


async def ask(wire: Wire, query: str = "format=ndjson") -> None:
    """Ask for an export and read the head of the answer."""
    request = f"GET /v1/export?{query} HTTP/1.1\r\nHost: audit.test\r\nAuthorization: Bearer {BOOTSTRAP_KEY}\r\n\r\n"
    await wire.send(request.encode())
    status, _ = await wire.head()
    assert status == 200


async def test_a_client_that_goes_away_ends_the_export(large: Served) -> None:
    async with large.wire(small=True) as wire:
        await ask(wire)
        assert formatters()
        wire.abort()
        await becomes_quiet(large.api.service)
    assert json.loads((await exported(large.api, action="x")).text.splitlines()[-1])["count"] == 4000
    await large.api.service.watch.settle()
    noted = sorted((note["outcome"], note["metadata"]["ended"]) for note in await large.api.notes())
    assert noted == [("failure", "cut"), ("success", "complete")]


async def test_a_client_that_stops_reading_stops_the_reading_of_the_log(
    large: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first it is waited for, with no more formatted than fits between the processes; after STALL_SECONDS it is cut."""
    monkeypatch.setattr(download, "STALL_SECONDS", 2.0)
    async with large.wire(small=True) as wire:
        await ask(wire)
        await becomes_quiet(large.api.service)
        assert not (await wire.ended()).endswith(b"0\r\n\r\n")
    await large.api.service.watch.settle()
    (note,) = await large.api.notes()
    assert 0 < note["metadata"]["entries"] < 4000


async def test_an_export_whose_formatter_dies_is_cut(large: Served) -> None:
    async with large.wire(small=True) as wire:
        await ask(wire)
        for formatter in formatters():
            formatter.kill()
        assert not (await wire.ended()).endswith(b"0\r\n\r\n")
    await becomes_quiet(large.api.service)


async def test_one_export_too_many_is_asked_to_come_later(large: Served) -> None:
    async with large.wire(small=True) as wire:
        await ask(wire)
        refused = await large.api.client.get("/v1/export")
        assert refused.status_code == 503
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"] == "5"
    await becomes_quiet(large.api.service)
    assert (await large.api.client.get("/v1/export", params={"format": "csv"})).status_code == 200
