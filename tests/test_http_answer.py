"""Answers on the wire: byte for byte those of uvicorn, in one write where they are whole."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from audit_service.http_answer import Answer
from audit_service.http_protocol import GuardedProtocol

Message = dict[str, Any]
JSON = (b"Content-Type", b"application/json")
GET = b"GET / HTTP/1.1\r\nHost: audit.test\r\n\r\n"


def start(status: int, *headers: tuple[bytes, bytes]) -> Message:
    """The head of an answer."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, *, more: bool = False) -> Message:
    """A piece of its body."""
    return {"type": "http.response.body", "body": data, "more_body": more}


def length(data: bytes) -> tuple[bytes, bytes]:
    """The header that says how long a body is."""
    return b"content-length", b"%d" % len(data)


class Transport(asyncio.Transport):
    """Keeps what is written, write by write."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        """Keep it."""
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        """Whether the server has closed."""
        return self.closed

    def close(self) -> None:
        """No more."""
        self.closed = True

    def resume_reading(self) -> None:
        """Nothing waits here."""

    def pause_reading(self) -> None:
        """Nothing comes here."""

    def get_write_buffer_size(self) -> int:
        """Everything is taken at once."""
        return 0


async def written(protocol_class: type[HttpToolsProtocol], app: ASGIApp, requests: bytes) -> tuple[list[bytes], bool]:
    """What a server writes for requests on one connection, without its clock, and whether it closes."""
    configuration = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    configuration.load()
    state, transport = ServerState(), Transport()
    state.default_headers = [(b"date", b"now"), (b"Server", b"audit")]
    protocol = protocol_class(config=configuration, server_state=state, app_state={})
    protocol.connection_made(transport)
    protocol.data_received(requests)
    while state.tasks:
        await asyncio.wait(set(state.tasks), timeout=10)
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    return transport.writes, transport.closed


def saying(messages: Sequence[Message]) -> ASGIApp:
    """An application that answers with these messages."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(dict(message))

    return app


WHOLE = [start(201, JSON, length(b"{}")), body(b"{}")]
CASES: dict[str, tuple[list[Message], bytes]] = {
    "whole": (WHOLE, GET),
    "empty": ([start(200, length(b"")), body(b"")], GET),
    "without a body member": ([start(200, length(b"")), {"type": "http.response.body"}], GET),
    "two requests at once": (WHOLE, GET + GET),
    "the connection ends": (WHOLE, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")),
    "HTTP/1.0": (WHOLE, GET.replace(b"1.1", b"1.0")),
    "HEAD": (WHOLE, GET.replace(b"GET", b"HEAD")),
    "no content": ([start(204), body(b"")], GET),
    "not modified": ([start(304, JSON), body(b"")], GET),
    "length unknown": ([start(200, JSON), body(b"{}")], GET),
    "a stream": ([start(200, JSON), body(b"{", more=True), body(b"}", more=True), body(b"")], GET),
    "pieces of a known length": ([start(200, length(b"{}")), body(b"{", more=True), body(b"}")], GET),
    "chunked by itself": ([start(200, (b"Transfer-Encoding", b"chunked")), body(b"{}")], GET),
    "closes by itself": ([start(200, length(b"{}"), (b"Connection", b"close")), body(b"{}")], GET),
    "a length in capitals": ([start(200, (b"Content-Length", b"2")), body(b"{}")], GET),
    "latin-1": ([start(200, length(b"{}"), (b"x-name", "Gómez".encode("latin-1"))), body(b"{}")], GET),
    "nothing": ([], GET),
    "a body first": ([body(b"{}")], GET),
    "too short": ([start(200, length(b"{}")), body(b"{")], GET),
    "too long": ([start(200, length(b"{}")), body(b"{ }")], GET),
    "two lengths": ([start(200, length(b"{}"), length(b"{}")), body(b"{}")], GET),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_the_bytes_are_those_of_uvicorn(case: str) -> None:
    messages, request = CASES[case]
    ours, theirs = [await written(one, saying(messages), request) for one in (GuardedProtocol, HttpToolsProtocol)]
    assert (b"".join(ours[0]), ours[1]) == (b"".join(theirs[0]), theirs[1])


async def test_a_whole_answer_is_one_write() -> None:
    """Uvicorn's are two, so the count can tell."""
    assert [len((await written(one, saying(WHOLE), GET))[0]) for one in (GuardedProtocol, HttpToolsProtocol)] == [1, 2]


@pytest.mark.parametrize(
    ("name", "value"), [(b"x-a", b"1\r\nx-b: 2"), (b"x-a\r\nx-b", b"1"), (b"x a", b"1"), (b"x", b"\0")]
)
async def test_no_header_becomes_two(name: bytes, value: bytes) -> None:
    messages = [start(200, length(b"{}"), (name, value)), body(b"{}")]
    writes, _ = await written(GuardedProtocol, saying(messages), GET)
    assert b"".join(writes).startswith(b"HTTP/1.1 500 ")
    assert b"x-b" not in b"".join(writes)


async def test_a_head_alone_is_an_error() -> None:
    """uvicorn has sent it by then, and can only cut the connection."""
    writes, _ = await written(GuardedProtocol, saying([start(200, length(b"{}"))]), GET)
    assert b"".join(writes).startswith(b"HTTP/1.1 500 ")


async def test_before_a_body_the_last_head_counts() -> None:
    """It is how uvicorn tells of an error after the first."""
    writes, _ = await written(GuardedProtocol, saying([start(200), *WHOLE]), GET)
    assert b"".join(writes).startswith(b"HTTP/1.1 201 ")


async def test_a_failure_after_the_head_is_told() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start(201, length(b"{}")))
        raise ValueError

    writes, _ = await written(GuardedProtocol, app, GET)
    assert b"".join(writes).startswith(b"HTTP/1.1 500 ")


async def test_the_protocol_answers_through_it() -> None:
    seen: list[type] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(type(send.__self__))  # type: ignore[attr-defined]
        for message in WHOLE:
            await send(dict(message))

    await written(GuardedProtocol, app, GET)
    assert seen == [Answer]
