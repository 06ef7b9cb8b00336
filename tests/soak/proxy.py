"""A TCP proxy that breaks connections: cut, reset or stalled at a random byte, slowed, or refused.

It stands between client and service, and between service and database, and runs on the test's own event loop. Bytes pass unchanged; what
it breaks, it breaks for good: a mended proxy passes new connections.
"""

import asyncio
import contextlib
import math
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal, Self

Action = Literal["cut", "reset", "stall"]
PIECE_BYTES = 64 * 1024
# Where a break may come: within the first byte, a head, a small body, or far into a stream or a pooled connection.
BREAK_LIMIT_BYTES = 20_000


@dataclass(slots=True, eq=False)
class _Link:
    """One connection through the proxy, and when it breaks: after `left_bytes` more in one direction."""

    near: StreamWriter
    far: StreamWriter
    left_bytes: int | None = None
    upward: bool = True
    stalled: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)
    pumps: list[asyncio.Task[None]] = field(default_factory=list)

    def allow(self, size: int, *, upward: bool) -> int:
        """How many of `size` bytes still pass; fewer than `size` when it breaks here. Nothing passes one that hangs."""
        if self.stalled:
            return 0
        if self.left_bytes is None or upward != self.upward:
            return size
        passed = min(size, self.left_bytes)
        self.left_bytes -= passed
        return passed

    def end(self, *, reset: bool = False) -> None:
        """Close both sides at once, dropping what is under way; `reset` tells the peers with RST instead of FIN."""
        for writer in (self.near, self.far):
            if reset:
                _reset_on_close(writer)
            writer.transport.abort()
        self.released.set()

    def close(self) -> None:
        """Close both sides after what is under way."""
        self.near.close()
        self.far.close()


def _reset_on_close(writer: StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    # A Unix socket knows no RST; there the end is the same as a cut.
    if raw is not None and raw.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # the peer was faster
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Proxy:
    """Listens on a port of its own on 127.0.0.1; `target` says, for each connection, the TCP port or Unix socket behind it."""

    def __init__(self, target: Callable[[], int | Path]) -> None:
        self.port = 0
        self.broken_connections = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._action: Action | None = None
        self._random = Random()  # noqa: S311 - replaced by the fault's own
        self._delay_seconds = 0.0

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    async def accept(self) -> None:
        """Listen, again on the same port after `refuse`."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=PIECE_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Stop listening and end every connection: the next one is refused by the kernel."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        tasks = [*self._connecting, *(pump for link in self._links for pump in link.pumps)]
        for link in [*self._links]:
            link.end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close at the loop's next turn

    def break_connections(self, action: Action, random: Random) -> None:
        """From now on every connection, open ones too, breaks at a random byte in a random direction."""
        self._action, self._random = action, random
        for link in self._links:
            self._aim(link)

    def mend(self) -> None:
        """Break and delay nothing any more; what hangs half broken is ended."""
        self._action, self._delay_seconds = None, 0.0
        for link in [*self._links]:
            link.left_bytes = None
            if link.stalled:
                link.end()

    def slow(self, delay_seconds: float) -> None:
        """Hold back each piece, in both directions, for so long."""
        self._delay_seconds = delay_seconds

    def _aim(self, link: _Link) -> None:
        # Even on a logarithmic scale, so that the first bytes of a connection are hit as often as the last.
        link.left_bytes = int(math.exp(self._random.uniform(0, math.log(BREAK_LIMIT_BYTES)))) - 1
        link.upward = self._random.random() < 0.5

    async def _connected(self, near_reader: StreamReader, near: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connecting.add(task)
        try:
            far_reader, far = await self._open()
        except OSError:
            near.transport.abort()
            return
        except asyncio.CancelledError:  # only by `refuse`
            near.transport.abort()
            return
        finally:
            self._connecting.discard(task)
        link = _Link(near, far)
        if self._action is not None:
            self._aim(link)
        self._links.add(link)
        link.pumps = [
            asyncio.create_task(self._pump(near_reader, far, link, upward=True)),
            asyncio.create_task(self._pump(far_reader, near, link, upward=False)),
        ]
        await asyncio.wait(link.pumps)
        self._links.discard(link)

    async def _open(self) -> tuple[StreamReader, StreamWriter]:
        target = self._target()
        if isinstance(target, int):
            return await asyncio.open_connection("127.0.0.1", target, limit=PIECE_BYTES)
        return await asyncio.open_unix_connection(target, limit=PIECE_BYTES)

    async def _pump(self, reader: StreamReader, writer: StreamWriter, link: _Link, *, upward: bool) -> None:
        """Pass what one side sends to the other until either ends or the connection breaks."""
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE_BYTES):
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                passed = link.allow(len(data), upward=upward)
                writer.write(data[:passed])
                await writer.drain()
                if passed < len(data):
                    await self._break(link)
                    return
        link.close()

    async def _break(self, link: _Link) -> None:
        self.broken_connections += not link.stalled
        if self._action == "stall" or link.stalled:
            # Both directions stop, and nobody is told until the fault is over.
            link.stalled = True
            await link.released.wait()
        elif self._action == "reset":
            link.end(reset=True)
        else:
            link.close()
