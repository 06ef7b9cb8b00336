"""Acknowledged means durable, once: the durability harness of `make soak`, scaled down. Each test ends in the whole comparison.

The control without the lock on the head is `tests/store/test_append_concurrency.py`; `make soak` runs it through two workers as well.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.soak import controls
from tests.soak.disk import fill_disk, small_disk
from tests.soak.faults import names
from tests.soak.harness import Stack, embedded_stack, external_stack
from tests.soak.scenarios import WRITERS, cycle, race
from tests.soak.stream import stream
from tests.support.postgres import Server, TestDatabase, running_server

KILLS = ("every process of the database", "a worker", "the whole service with its database")
# One of each way; `make soak` runs all.
OTHERS = (
    "the database paused",
    "the database refusing connections",
    "the database slow",
    "connections reset before the database",
    "connections stall before the database",
    "connections reset before the service",
)
RACE_EVENTS = 3_000
STREAM_BYTES = 40_000_000


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """The run's own chance (`-p randomly` prints its seed), another for each test."""
    seed = f"{request.config.getoption('randomly_seed', 0)} {request.node.name}"
    print(f"\nseed: {seed}")  # noqa: T201 - shown when the test fails
    return Random(seed)  # noqa: S311 - load, no secret


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A database server that tests may stop and pause; each leaves it running."""
    with running_server(tmp_path_factory.mktemp("durability") / "data") as running:
        yield running


@pytest.fixture(scope="module")
async def external(own_server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A service with proxies before it and before its database."""
    database = await own_server.create()
    async with external_stack(tmp_path_factory.mktemp("service") / "var", own_server, database) as stack:
        yield stack


async def test_kills_under_load_lose_and_double_nothing_and_the_service_comes_back_alone(
    tmp_path: Path, random: Random
) -> None:
    async with embedded_stack(tmp_path / "var") as stack:
        for number, name in enumerate(KILLS):
            print(await cycle(stack, stack.fleet(WRITERS, number), name, random))  # noqa: T201 - shown when it fails


@pytest.mark.parametrize("name", OTHERS)
async def test_a_database_away_and_broken_connections_lose_and_double_nothing(
    external: Stack, name: str, random: Random
) -> None:
    """While the database is away every call is a 503 with Retry-After within five seconds."""
    await cycle(external, external.fleet(WRITERS, OTHERS.index(name)), name, random)


async def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path, random: Random) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with embedded_stack(disk / "var", workers=1) as stack:
            await fill_disk(stack, disk, 1.0, random, crash=True)


async def test_two_workers_and_64_writers_make_one_chain(
    server: Server, database: TestDatabase, tmp_path: Path
) -> None:
    """No refusal, no deadlock, no fork, no gap."""
    async with external_stack(tmp_path / "var", server, database) as stack:
        await race(stack, writers=64, events=RACE_EVENTS, seed=1)


async def test_a_client_that_sends_without_reading_is_served_in_bounded_memory(
    server: Server, database: TestDatabase, tmp_path: Path
) -> None:
    async with external_stack(tmp_path / "var", server, database, workers=1) as stack:
        print(await stream(stack, STREAM_BYTES))  # noqa: T201 - shown when it fails
        assert (await stack.verify())["status"] == "ok"


async def test_without_synchronous_commit_the_harness_finds_lost_events(tmp_path: Path, random: Random) -> None:
    assert (await controls.lose_events(tmp_path / "var", random)).lost != []


async def test_without_idempotency_the_harness_finds_duplicates(
    server: Server, database: TestDatabase, tmp_path: Path, random: Random
) -> None:
    assert (await controls.duplicate_events(server, database, tmp_path / "var", random)).duplicated != []


def test_every_fault_tried_here_is_a_registered_one() -> None:
    """A renamed fault must not silently leave this file."""
    assert set(KILLS) <= set(names("kill"))
    assert set(OTHERS) <= set(names("away", "rough"))
