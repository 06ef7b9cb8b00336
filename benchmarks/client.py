"""A load generator for where `wrk` is not installed, run as a process of its own.

    python -m benchmarks.client < plan.json

Keep-alive connections, each with one request under way; requests are sent as the ready-made bytes they are. It answers with the same JSON
line as the Lua script for `wrk`. It is quick for Python (uvloop, no HTTP library), and still takes a good part of a core: on a small
machine what it measures is the service and itself.
"""

import asyncio
import itertools
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"


class Tally:
    """What all connections found together."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.bad = 0


class Connection(asyncio.Protocol):
    """Sends the next request when the answer to the last one is complete, until `deadline`."""

    def __init__(self, requests: Iterator[bytes], deadline: float, tally: Tally, done: Callable[[], None]) -> None:
        self._requests = requests
        self._deadline = deadline
        self._tally = tally
        self._done = done
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are of no common class
        self._send()

    def data_received(self, data: bytes) -> None:
        """A part of an answer, nearly always the whole."""
        self._buffer = data = self._buffer + data if self._buffer else data
        head_end = data.find(_HEAD_END)
        if head_end < 0:
            return
        length = _LENGTH.search(data, 0, head_end)
        if length is None:
            self._tally.bad += 1
            self._close()
        elif len(data) >= head_end + len(_HEAD_END) + int(length[1]):
            self._buffer = b""
            self._tally.seconds.append(time.perf_counter() - self._sent_at)
            if data[9:10] != b"2":
                self._tally.bad += 1
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Closed: by us at the deadline, or too early."""
        if error is not None or time.perf_counter() < self._deadline:
            self._tally.bad += 1
        self._done()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        if self._sent_at < self._deadline:
            self._transport.write(next(self._requests))
        else:
            self._close()

    def _close(self) -> None:
        assert self._transport is not None
        self._transport.close()


async def generate(host: str, port: int, connections: int, seconds: float, requests: list[bytes]) -> dict[str, float]:
    """Keep `connections` busy for `seconds`: requests answered, of these `bad`, and times in microseconds."""
    loop, tally, turns = asyncio.get_running_loop(), Tally(), itertools.cycle(requests)
    began = time.perf_counter()
    ends = [loop.create_future() for _ in range(connections)]
    for end in ends:

        def done(end: "asyncio.Future[None]" = end) -> None:
            end.set_result(None)

        await loop.create_connection(lambda done=done: Connection(turns, began + seconds, tally, done), host, port)  # type: ignore[misc]
    await asyncio.gather(*ends)
    elapsed = time.perf_counter() - began
    times = sorted(tally.seconds) or [0.0]
    return {
        "requests": len(tally.seconds),
        "bad": tally.bad,
        "duration_us": elapsed * 1e6,
        "mean_us": statistics.fmean(times) * 1e6,
        "p50_us": times[len(times) // 2] * 1e6,
        "p99_us": times[len(times) * 99 // 100] * 1e6,
    }


def main() -> None:
    """Read the plan, run it, print what came of it."""
    plan = json.load(sys.stdin)
    plan["requests"] = [request.encode("latin-1") for request in plan["requests"]]
    print(json.dumps(uvloop.run(generate(**plan))))


if __name__ == "__main__":
    main()
