"""A client that sends a body of any size and does not read its answer until all is sent: the worker must neither stop nor grow."""

import asyncio
import contextlib
import json
import time
from asyncio import StreamReader
from collections.abc import AsyncIterator
from dataclasses import dataclass

import psutil

from tests.soak.harness import Stack
from tests.support.postgres import BOOTSTRAP_KEY

MEBIBYTE = 1024 * 1024
EVENT_BYTES = 10_000
GROWTH_LIMIT_BYTES = 50 * MEBIBYTE
# What a worker needs once is not growth: buffers, caches, compiled patterns.
WARM_UP_BYTES = 4 * MEBIBYTE
STALL_SECONDS = 60.0
# The client's own buffer for what it does not read yet.
_UNREAD_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Streamed:
    """What came of one stream."""

    events: int
    grown_bytes: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.events} events in {self.seconds:.0f} s, RSS grew by {self.grown_bytes / MEBIBYTE:.1f} MiB"


async def stream(stack: Stack, body_bytes: int) -> Streamed:
    """Send, then read: every line acknowledged in order, and the memory of the only worker bounded all the while."""
    (worker,) = stack.service.workers()
    await _send_and_read(stack, "warm", WARM_UP_BYTES // EVENT_BYTES)
    base, began, events = worker.memory_info().rss, time.monotonic(), body_bytes // EVENT_BYTES
    async with _highest(worker) as highest:
        await _send_and_read(stack, "streamed", events)
    grown = max(highest) - base
    # A short body must not fit into what a long one may cost.
    assert grown < min(GROWTH_LIMIT_BYTES, body_bytes // 3), f"the worker grew by {grown} bytes"
    return Streamed(events, grown, time.monotonic() - began)


@contextlib.asynccontextmanager
async def _highest(worker: psutil.Process) -> AsyncIterator[list[int]]:
    """The worker's memory, looked at again and again inside the block."""
    sizes = [worker.memory_info().rss]

    async def look() -> None:
        while True:
            sizes.append(worker.memory_info().rss)
            await asyncio.sleep(0.05)

    looking = asyncio.create_task(look())
    try:
        yield sizes
    finally:
        looking.cancel()


async def _send_and_read(stack: Stack, name: str, events: int) -> None:
    lines = [_line(name, number) for number in range(min(events, 10))]
    length = sum(len(_line(name, number)) for number in range(events))
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.service_port, limit=_UNREAD_BYTES)
    try:
        writer.write(
            f"POST /v1/events HTTP/1.1\r\nHost: audit\r\nAuthorization: Bearer {BOOTSTRAP_KEY}\r\n"
            f"Content-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n".encode()
        )
        for number in range(events):
            writer.write(lines[number] if number < len(lines) else _line(name, number))
            async with asyncio.timeout(STALL_SECONDS):  # a deadlock would be a client that can not go on sending
                await writer.drain()
        async with asyncio.timeout(STALL_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        await _assert_results(reader, name, events)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _assert_results(reader: StreamReader, name: str, events: int) -> None:
    count, trailer = 0, None
    async for line in _lines(reader):
        result = json.loads(line)
        if result.get("trailer"):
            trailer = result
        else:
            assert (result["status"], result["receipt"]["id"]) == (201, f"{name}-{count}"), line
            count += 1
    assert count == events
    assert trailer == {"trailer": True, "accepted": events, "rejected": 0, "complete": True}


async def _lines(reader: StreamReader) -> AsyncIterator[bytes]:
    """The lines of a chunked body."""
    rest = b""
    while True:
        async with asyncio.timeout(STALL_SECONDS):
            size = int(await reader.readuntil(b"\r\n"), 16)
            data = (await reader.readexactly(size + 2))[:-2]
        if not size:
            break
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line
    assert rest == b"", "the answer broke off"


def _line(name: str, number: int) -> bytes:
    event = {
        "id": f"{name}-{number}",
        "action": "file.edited",
        "metadata": {"lines": ["some words of text " * 50] * 10},
    }
    line = json.dumps(event).encode()
    return line[:-1] + b" " * (EVENT_BYTES - len(line) - 1) + b"}\n"
