"""The app behind a worker's own HTTP server in the test's event loop, and a client that writes and reads single bytes of HTTP."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from audit_service.app import create_app
from audit_service.http_protocol import GuardedProtocol
from audit_service.settings import Settings
from tests.support.api import Api
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase
from tests.support.raw_http import Answer

NDJSON = "application/x-ndjson"
# No answer may take longer: a test that waits for ever says nothing.
PATIENCE_SECONDS = 20.0
# As small as the kernel allows, so that an unread answer soon fills every buffer on its way.
SMALL_BUFFER_BYTES = 4096


class Wire:
    """One connection to the service. Requests carry the admin key unless told; chunks, heads and answers are asked for one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._rest = b""

    async def begin(self, *headers: str, path: str = "/v1/events", key: str = BOOTSTRAP_KEY) -> None:
        """Send a head."""
        lines = [f"POST {path} HTTP/1.1", "Host: audit.test", f"Authorization: Bearer {key}", *headers]
        await self.send("".join(line + "\r\n" for line in lines).encode() + b"\r\n")

    async def begin_lines(self, *headers: str, key: str = BOOTSTRAP_KEY) -> None:
        """Send the head of a chunked NDJSON request."""
        await self.begin(f"Content-Type: {NDJSON}", "Transfer-Encoding: chunked", *headers, key=key)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            self.writer.write(data)
            await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        """Send one chunk; an empty one ends the body."""
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and headers of the next answer, also of an interim one."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), headers

    async def answer(self) -> Answer:
        """The next answer with its body."""
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, b"".join([line + b"\n" async for line in self.lines()]))
        async with asyncio.timeout(PATIENCE_SECONDS):
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(status, headers, body)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The chunks of an answer as they come, until its end. Raises IncompleteReadError when the service breaks it off."""
        while data := await self._chunk():
            yield data

    async def lines(self) -> AsyncIterator[bytes]:
        """The lines of a chunked answer as they come, until its end."""
        while data := await self._chunk():
            *whole, self._rest = (self._rest + data).split(b"\n")
            for line in whole:
                yield line
        assert self._rest == b"", "the answer broke off within a line"

    async def _chunk(self) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def ended(self) -> bytes:
        """What still comes until the service closes the connection."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""

    def abort(self) -> None:
        """Go away without a word."""
        self.writer.transport.abort()


@dataclass(frozen=True, slots=True)
class Served:
    """The running service: its port, and a client to look at it."""

    api: Api
    port: int

    @asynccontextmanager
    async def wire(self, *, small: bool = False) -> AsyncIterator[Wire]:
        """A connection; with `small` buffers, what is not read soon stops the service's sending."""
        raw = socket.socket()
        if small:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=raw, limit=1024 if small else 2**16)
        try:
            yield Wire(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def served(database: TestDatabase, **settings: Any) -> AsyncIterator[Served]:
    """The app on `database` with `settings`, behind the HTTP protocol of a worker. Its connections have small send buffers."""
    app = create_app(Settings(database_url=database.serving_url, **settings))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = uvicorn.Config(app, http=GuardedProtocol, ws="none", lifespan="on", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    listening = asyncio.create_task(server.serve(sockets=[listener]))
    headers = {"Authorization": f"Bearer {BOOTSTRAP_KEY}"}
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not server.started:  # noqa: ASYNC110 - uvicorn offers no event for it
                await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(
            base_url=url, headers=headers, trust_env=False, timeout=PATIENCE_SECONDS
        ) as client:
            yield Served(Api(client, app.state.service), port)
    finally:
        server.should_exit = True
        await listening
        listener.close()
