"""A child process that does the heavy part of a reader's request, in what processor time the others leave.

Answering comes before exporting and verifying: on Linux the child runs under SCHED_IDLE (sched(7)), elsewhere at the lowest priority, and
from its first instruction on, for loading its modules is work like any other. `subprocess` starts it and not the event loop: uvloop
forks, which copies the page tables of the whole worker and stops it for ten milliseconds and more; `subprocess` uses vfork(2), and
stops it for half a millisecond.
"""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

LOWEST_PRIORITY = 19


class IdleProcess(NamedTuple):
    """A running child: `stdin.write` never waits, and keeps in memory what the child has not taken."""

    pid: int
    stdin: asyncio.WriteTransport
    stdout: asyncio.StreamReader


@asynccontextmanager
async def idle_process(command: Sequence[str], *, ahead_bytes: int = 64 * 1024) -> AsyncIterator[IdleProcess]:
    """Start a child, and end it, whatever it is doing; it is gone when this has ended. About `ahead_bytes` of its output wait at most for
    whoever reads. Raises OSError when it cannot be started."""
    loop = asyncio.get_running_loop()
    process = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: ASYNC220, S603 - see above; ours
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101
    try:
        give_way(process.pid)
        stdout = asyncio.StreamReader(limit=ahead_bytes)
        reading, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdout), process.stdout)
        writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, process.stdin)
        try:
            yield IdleProcess(process.pid, writing, stdout)
        finally:
            # asyncio's own transport closes itself when the child has ended, and cannot be told twice.
            if not writing.is_closing():
                writing.abort()
            reading.close()
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


def give_way(pid: int) -> None:
    """Let a process run when nobody else wants to, and not everywhere: one processor, if there are more, is left free of such. Where
    that is forbidden, it runs as it does."""
    with suppress(OSError):
        if hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
            first, *others = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(pid, others or [first])
        else:
            os.setpriority(os.PRIO_PROCESS, pid, LOWEST_PRIORITY)
