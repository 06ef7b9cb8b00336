"""HTTP byte by byte: requests that no client library would send, and what really came back.

`Connection` writes and reads at its own pace; `ask` is one request on one connection. `serving` runs the app of a worker behind the
worker's own protocol in this event loop, with a watch that tests can wait for.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import uvicorn
from starlette.types import ASGIApp

from audit_service.http_protocol import GuardedProtocol
from tests.support.postgres import BOOTSTRAP_KEY
from tests.support.processes import free_port

WATCH_SECONDS = 0.5
# `serve` whose workers look that often, in processes of their own.
_IMPATIENT_WORKER = f"""
from audit_service.http_protocol import GuardedProtocol
from audit_service.worker import main
GuardedProtocol.watch_seconds = {WATCH_SECONDS}
main()
"""
_IMPATIENT_SERVE = f"""
import sys
import audit_service.supervisor as supervisor
from audit_service.settings import Settings
def command(child):
    worker = ("-c", {_IMPATIENT_WORKER!r}) if child.module == "audit_service.worker" else ("-m", child.module)
    return (sys.executable, "-P", *worker, *map(str, child.descriptors), child.module)
supervisor.Child.command = property(command)
raise SystemExit(supervisor.serve(Settings()))
"""
IMPATIENT_COMMAND = [sys.executable, "-P", "-c", _IMPATIENT_SERVE]
ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Its body as JSON."""
        return json.loads(self.body)


def request(
    method: str,
    target: str | bytes,
    body: bytes = b"",
    *,
    key: str = BOOTSTRAP_KEY,
    headers: Sequence[bytes] = (),
    framing: bytes | None = None,
) -> bytes:
    """The bytes of a request. `framing` replaces the Content-Length line."""
    target = target.encode() if isinstance(target, str) else target
    lines = [
        b"%s %s HTTP/1.1" % (method.encode(), target),
        b"Host: audit.test",
        b"Authorization: Bearer " + key.encode(),
    ]
    if framing is None and (body or method == "POST"):
        framing = b"Content-Length: %d" % len(body)
    if framing:
        lines.append(framing)
    if method == "POST" and not any(line.lower().startswith(b"content-type") for line in headers):
        lines.append(b"Content-Type: application/json")
    return b"\r\n".join([*lines, *headers]) + b"\r\n\r\n" + body


def event_request(event: Any, **options: Any) -> bytes:
    """A POST of one event, or of whatever JSON."""
    return request("POST", "/v1/events", json.dumps(event).encode(), **options)


class Connection:
    """One TCP connection to the service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        """Write; a server that has closed is no error here, its answer tells."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self, seconds: float = ANSWER_SECONDS, *, method: str = "POST") -> Answer | None:
        """The next response, or None when the server closes instead. Raises TimeoutError: nothing came, and nothing was closed."""
        async with asyncio.timeout(seconds):
            try:
                return await self._read(method)
            except (asyncio.IncompleteReadError, ConnectionError):
                return None

    async def _read(self, method: str) -> Answer:
        status_line, *lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
        status = int(status_line.split(b" ")[1])
        headers = {
            name.decode().lower(): value.strip().decode() for name, _, value in (x.partition(b":") for x in lines)
        }
        if status in {100, 204, 304} or method == "HEAD":
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") != "chunked":
            return Answer(status, headers, await self.reader.readexactly(int(headers["content-length"])))
        body = bytearray()
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return Answer(status, headers, bytes(body))

    async def wait_closed(self, seconds: float = ANSWER_SECONDS) -> None:
        """Wait until the server has closed. Raises TimeoutError when it does not."""
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65536):
                    pass

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """A connection that is closed at the end."""
    connection = await Connection.open(port)
    try:
        yield connection
    finally:
        await connection.close()


async def ask(port: int, data: bytes, seconds: float = ANSWER_SECONDS) -> Answer | None:
    """The answer to these bytes, sent on a connection of their own; None when the server just closes."""
    async with connected(port) as connection:
        await connection.send(data)
        answer = await connection.answer(seconds, method=data[:4].decode("latin-1").strip())
        return await connection.answer(seconds) if answer is not None and answer.status == 100 else answer


class ImpatientProtocol(GuardedProtocol):
    """The worker's protocol, looking twice a second."""

    watch_seconds = WATCH_SECONDS


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, protocol: type[GuardedProtocol] = ImpatientProtocol) -> AsyncIterator[int]:
    """`app` behind the protocol of a worker, in this event loop. Its port."""
    port = free_port()
    config = uvicorn.Config(
        app, port=port, http=protocol, ws="none", lifespan="on", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event for it
        await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        await running
