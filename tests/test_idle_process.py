"""Children of a worker: they give way, they answer through pipes, and none is left."""

import asyncio
import os
import sys
from collections.abc import Iterator

import psutil
import pytest
import uvloop

from audit_service.idle_process import IdleProcess, idle_process

ECHO = (sys.executable, "-c", "import os\nwhile data := os.read(0, 10_000): os.write(1, data)")
ENDLESS = (sys.executable, "-c", "import sys\nwhile True: sys.stdout.write('x' * 1000)")
SLEEPER = (sys.executable, "-c", "import signal; signal.pause()")


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    before = {child.pid for child in psutil.Process().children()}
    yield
    assert {child.pid for child in psutil.Process().children()} <= before


async def echo(child: IdleProcess, data: bytes) -> bytes:
    child.stdin.write(data)
    return await child.stdout.readexactly(len(data))


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_it_is_written_to_and_read_from_on_either_loop(loop: object) -> None:
    async def run() -> None:
        async with idle_process(ECHO) as child:
            for data in (b"a", b"b" * 3_000_000):
                assert await echo(child, data) == data

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        runner.run(run())


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="sched(7) is Linux's")
async def test_it_gives_way_from_its_first_instruction_on() -> None:
    async with idle_process(SLEEPER) as child:
        assert os.sched_getscheduler(child.pid) == os.SCHED_IDLE


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="sched_setaffinity(2) is Linux's")
async def test_it_leaves_a_processor_free_where_there_is_another() -> None:
    ours = sorted(os.sched_getaffinity(0))
    async with idle_process(SLEEPER) as child:
        assert sorted(os.sched_getaffinity(child.pid)) == (ours[1:] or ours)


@pytest.mark.parametrize("command", [ENDLESS, SLEEPER], ids=["writing", "waiting"])
async def test_whatever_it_does_it_is_gone_afterwards(command: tuple[str, ...]) -> None:
    async with idle_process(command) as child:
        assert psutil.pid_exists(child.pid)
    assert not psutil.pid_exists(child.pid)


async def test_it_is_gone_after_an_error_and_a_cancellation() -> None:
    pids = []

    async def fail() -> None:
        async with idle_process(SLEEPER) as child:
            pids.append(child.pid)
            raise KeyError

    async def wait() -> None:
        async with idle_process(SLEEPER) as child:
            pids.append(child.pid)
            await child.stdout.read()

    with pytest.raises(KeyError):
        await fail()
    waiting = asyncio.create_task(wait())
    while len(pids) < 2:  # noqa: ASYNC110 - it begins within a few turns of the loop
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not any(map(psutil.pid_exists, pids))


async def test_what_nobody_reads_is_not_kept() -> None:
    """The child waits for whoever reads, who has a piece and no more in memory."""
    async with idle_process(ENDLESS, ahead_bytes=10_000) as child:
        await child.stdout.readexactly(1000)
        while psutil.Process(child.pid).status() != psutil.STATUS_SLEEPING:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        assert len(child.stdout._buffer) < 1_000_000  # type: ignore[attr-defined]


async def test_a_child_that_ends_ends_its_output() -> None:
    async with idle_process((sys.executable, "-c", "print('x', end='')")) as child:
        assert await child.stdout.read() == b"x"
        async with asyncio.timeout(20):
            while not child.stdin.is_closing():  # noqa: ASYNC110 - asyncio tells nobody
                await asyncio.sleep(0.01)


async def test_what_cannot_be_started_is_an_error() -> None:
    with pytest.raises(OSError, match="no-such-program"):
        async with idle_process(("/no-such-program",)):
            pass
