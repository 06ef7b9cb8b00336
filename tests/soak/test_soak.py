"""`make soak`: the durability harness at full length. SOAK_CYCLES says how many kills; without it everything here is skipped."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from tests.soak import controls
from tests.soak.disk import fill_disk, small_disk
from tests.soak.faults import names
from tests.soak.harness import Stack, embedded_stack, external_stack
from tests.soak.scenarios import WRITERS, cycle, race
from tests.soak.stream import stream
from tests.support.postgres import Server, TestDatabase

CYCLES = int(os.environ.get("SOAK_CYCLES", "0"))
SEED = int(os.environ.get("SOAK_SEED", "0")) or int.from_bytes(os.urandom(4), "big")
# A fresh service now and then: the whole comparison after each cycle reads the whole log.
CYCLES_PER_SERVICE = 10
EXTERNAL_ROUNDS = 5
STREAM_BYTES = 10**9
RACE_EVENTS = 100_000
DISK_FULL_SECONDS = 30.0

pytestmark = [
    pytest.mark.skipif(not CYCLES, reason="long: `make soak` runs it"),
    pytest.mark.timeout(0),
]


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """Chance that can be had again: SOAK_SEED is printed."""
    print(f"\nSOAK_SEED={SEED}")  # noqa: T201 - what a soak shows
    return Random(f"{SEED} {request.node.name}")  # noqa: S311 - load, no secret


def say(what: object) -> None:
    """A line of progress."""
    print(what, flush=True)  # noqa: T201 - what a soak shows


@pytest.mark.parametrize("first", range(0, CYCLES, CYCLES_PER_SERVICE))
async def test_nothing_acknowledged_is_lost_or_doubled_by_kills(first: int, tmp_path: Path, random: Random) -> None:
    async with embedded_stack(tmp_path / "var") as stack:
        fleet = stack.fleet(WRITERS, first)
        for number in range(first, min(first + CYCLES_PER_SERVICE, CYCLES)):
            name = names("kill")[number % len(names("kill"))]
            say(f"{number + 1}/{CYCLES} {await cycle(stack, fleet, name, random)}")


@pytest.fixture
async def external(own_server: Server, tmp_path: Path) -> AsyncIterator[Stack]:
    """A service with a database of the harness, which the test may kill."""
    database = await own_server.create()
    async with external_stack(tmp_path / "var", own_server, database) as stack:
        yield stack


@pytest.mark.parametrize("name", names("away", "rough"))
async def test_nothing_acknowledged_is_lost_or_doubled_when_the_database_is_away_or_connections_break(
    external: Stack, name: str, random: Random
) -> None:
    fleet = external.fleet(WRITERS, 1)
    for _ in range(EXTERNAL_ROUNDS):
        say(await cycle(external, fleet, name, random))


@pytest.mark.parametrize("crash", [False, True])
async def test_a_full_disk_loses_nothing(tmp_path: Path, random: Random, crash: bool) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with embedded_stack(disk / "var", workers=1) as stack:
            say(f"back in {await fill_disk(stack, disk, DISK_FULL_SECONDS, random, crash=crash):.2f} s")


async def test_two_workers_and_64_writers_make_one_chain(
    server: Server, database: TestDatabase, tmp_path: Path
) -> None:
    async with external_stack(tmp_path / "var", server, database) as stack:
        say(f"{await race(stack, writers=64, events=RACE_EVENTS, seed=SEED)} entries")


async def test_a_gigabyte_streams_in_through_bounded_memory(
    server: Server, database: TestDatabase, tmp_path: Path
) -> None:
    async with external_stack(tmp_path / "var", server, database, workers=1) as stack:
        say(await stream(stack, STREAM_BYTES))
        assert (await stack.verify())["status"] == "ok"


async def test_without_synchronous_commit_the_harness_finds_lost_events(tmp_path: Path, random: Random) -> None:
    assert (await controls.lose_events(tmp_path / "var", random)).lost != []


async def test_without_idempotency_the_harness_finds_duplicates(
    server: Server, database: TestDatabase, tmp_path: Path, random: Random
) -> None:
    assert (await controls.duplicate_events(server, database, tmp_path / "var", random)).duplicated != []


async def test_without_the_lock_the_harness_finds_forks(
    server: Server, database: TestDatabase, tmp_path: Path, random: Random
) -> None:
    async with external_stack(tmp_path / "var", server, database) as stack:
        assert await controls.fork_log(stack, random) > 0
        with pytest.raises(AssertionError):
            await stack.assert_nothing_lost()
        assert (await stack.verify())["status"] == "broken"
