"""Clients that send slowly, for ever, or wrongly framed: they are cut or refused, and nobody else feels it (decision 0003).

The worker's own protocol on real sockets; only its watch looks twice a second here instead of every ten seconds.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest
from pydantic import SecretStr
from starlette.types import Message, Receive, Scope, Send

from audit_service import http_protocol
from audit_service.app import create_app
from audit_service.http_protocol import HEADER_LIMIT_BYTES
from audit_service.settings import Settings
from audit_service.worker import _configuration  # the one place that says which protocol a worker speaks
from tests.support.appends import wait_until
from tests.support.postgres import TestDatabase
from tests.support.raw_http import (
    ANSWER_SECONDS,
    WATCH_SECONDS,
    Answer,
    Connection,
    ask,
    connected,
    event_request,
    request,
    serving,
)

EVENT = {"action": "slow.test"}
# The first look at which a client can be blamed is the second after it began; the rest is for a busy machine.
CUT_SECONDS = 2 * WATCH_SECONDS + 3
HONEST_SECONDS = 2.0
# What every answer of the application carries.
SAFE_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "x-frame-options": "DENY"}
DRIPPERS = 200


@pytest.fixture(scope="module")
async def port(module_database: TestDatabase) -> AsyncIterator[int]:
    """The service; whatever its clients did, its log verifies in the end."""
    async with serving(create_app(Settings(database_url=module_database.serving_url))) as opened:
        yield opened
        report = await ask(opened, request("GET", "/v1/chain/verify"))
        assert report is not None
        assert report.json()["status"] == "ok"


def is_problem(answer: Answer | None, status: int) -> None:
    """Assert a problem document of the protocol's own, and the end of the connection."""
    assert answer is not None
    assert answer.status == status, answer
    assert (answer.headers["content-type"], answer.headers["connection"]) == ("application/problem+json", "close")
    assert (answer.json()["status"], set(answer.json())) == (status, {"type", "title", "status", "detail"})
    assert {name: answer.headers.get(name) for name in SAFE_HEADERS} == SAFE_HEADERS


async def drip(connection: Connection, data: bytes, pause_seconds: float = 0.1) -> None:
    """Send a byte now and then, until told to stop."""
    for byte in data:
        await connection.send(bytes((byte,)))
        await asyncio.sleep(pause_seconds)


async def is_cut(connection: Connection, data: bytes, status: int | None = 408) -> float:
    """Drip until the server answers `status`, or nothing, and closes; the seconds that took."""
    started = time.monotonic()
    dripping = asyncio.create_task(drip(connection, data))
    try:
        if status is not None:
            is_problem(await connection.answer(CUT_SECONDS), status)
        await connection.wait_closed(CUT_SECONDS)
    finally:
        dripping.cancel()
        await asyncio.wait([dripping])
    return time.monotonic() - started


# --- clients that are too slow ---

HEAD = request("POST", "/v1/events", framing=b"Content-Length: 1000")
CHUNKED = request("POST", "/v1/events", framing=b"Transfer-Encoding: chunked")


@pytest.mark.parametrize(
    ("at_once", "dripped"),
    [
        (b"", b""),
        (b"", b"\r\n" * 200),
        (b"", HEAD),
        (b"GET / HTTP/1.1\r\n", b"x: " + b"y" * 400),
        (HEAD, b'{"action": "' + b"x" * 900),
        (HEAD[:-2], b"\r\n" + b" " * 400),
        (CHUNKED, b"1\r\n \r\n" * 100),
        (CHUNKED + b"ffff;", b"x" * 400),
    ],
    ids=["silence", "line breaks", "a request line", "a header", "a body", "the end of the headers", "chunks", "a chunk's extension"],
)  # fmt: skip
async def test_who_sends_too_slowly_is_told_and_cut(port: int, at_once: bytes, dripped: bytes) -> None:
    async with connected(port) as connection:
        await connection.send(at_once)
        seconds = await is_cut(connection, dripped)
    assert seconds > WATCH_SECONDS / 2  # not for another reason at once


async def test_on_a_connection_that_was_good_before_it_is_the_same(port: int) -> None:
    async with connected(port) as connection:
        await connection.send(event_request(EVENT))
        first = await connection.answer()
        assert first is not None
        assert first.status == 201
        await is_cut(connection, HEAD)


async def test_a_body_that_nobody_reads_holds_no_connection(port: int) -> None:
    """The answer is given, and the keep-alive timer, which each byte stops, does not start again."""
    refused = request("POST", "/v1/events", key="nobody", framing=b"Content-Length: 1000000")
    async with connected(port) as connection:
        await connection.send(refused)
        answer = await connection.answer()
        assert answer is not None
        assert answer.status == 401
        await is_cut(connection, b" " * 400, None)
    async with connected(port) as connection:
        await connection.send(event_request(EVENT))
        assert (await connection.answer()) is not None
        await is_cut(connection, b"\r\n" * 200, None)


async def test_a_stream_of_lines_that_stalls_keeps_the_results_it_has(port: int) -> None:
    head = request(
        "POST", "/v1/events", headers=[b"Content-Type: application/x-ndjson"], framing=b"Transfer-Encoding: chunked"
    )
    lines = json.dumps(EVENT).encode() + b"\n"
    async with connected(port) as connection:
        await connection.send(head + b"".join(b"%x\r\n%s\r\n" % (len(lines), lines) for _ in range(450)))
        got = await connection.reader.readuntil(b"\r\n\r\n")
        assert b" 200 OK" in got
        results = b""
        async with asyncio.timeout(CUT_SECONDS):
            while piece := await connection.reader.read(65536):
                results += piece
    assert results.count(b'"status":201') >= 200
    assert b'"trailer"' not in results


async def test_two_hundred_slow_clients_do_not_slow_an_honest_one(port: int) -> None:
    """Answers stay quick while they drip, and afterwards not one connection is left."""
    slow = [await Connection.open(port) for _ in range(DRIPPERS)]
    data = [HEAD + b'{"action":"' + b"x" * 400, b"GET / HTTP/1.1\r\nx: " + b"y" * 400, b""]
    tasks = [asyncio.create_task(is_cut(c, data[n % 3])) for n, c in enumerate(slow)]
    latencies = []
    async with connected(port) as honest:
        while not all(task.done() for task in tasks):
            started = time.monotonic()
            await honest.send(event_request(EVENT))
            answer = await honest.answer()
            latencies.append(time.monotonic() - started)
            assert answer is not None
            assert answer.status == 201
    await asyncio.gather(*tasks)
    # The clients have not closed: the server ends it for them. Both ends live in this process.
    assert await becomes(lambda: sum(end.laddr.port == port for end in open_ends()) <= 1)
    for connection in slow:
        await connection.close()
    assert len(latencies) >= 10
    assert sorted(latencies)[len(latencies) // 2] < 0.5
    assert max(latencies) < HONEST_SECONDS


def open_ends() -> list[Any]:
    """This process's ends of connections that are not over."""
    over = {"LISTEN", "TIME_WAIT", "CLOSE"}
    return [end for end in psutil.Process().net_connections("tcp") if end.status not in over]


# --- clients that are slow for a good reason ---


class Gate:
    """An application that reads when it is told to, and answers with the length of what it read."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        self.calls += 1
        await self.open.wait()
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message["body"])
            more = message["more_body"]
        body = b"%d" % size
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    for done in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{done}.complete"})


@pytest.mark.parametrize(
    ("data", "rest", "expected"),
    [
        (request("POST", "/", b"x" * 10), b"", b"10"),
        (request("POST", "/", framing=b"Content-Length: 3000000") + b"x" * 3_000_000, b"", b"3000000"),
        (request("POST", "/", framing=b"Content-Length: 10", headers=[b"Expect: 100-continue"]), b"x" * 10, b"10"),
    ],
    ids=["a slow answer", "a body we do not read yet", "waiting for 100-continue"],
)
async def test_nobody_is_blamed_for_what_we_keep_waiting(data: bytes, rest: bytes, expected: bytes) -> None:
    gate = Gate()
    async with serving(gate) as port, connected(port) as connection:
        sending = asyncio.create_task(connection.send(data))
        with pytest.raises(TimeoutError):  # not cut in four looks, and not answered
            await connection.answer(4 * WATCH_SECONDS)
        gate.open.set()
        if rest:
            proceed = await connection.answer()
            assert proceed is not None
            assert proceed.status == 100
            await connection.send(rest)
        answer = await connection.answer()
        await sending
        assert answer is not None
        assert (answer.status, answer.body) == (200, expected)


async def test_who_keeps_up_with_the_minimum_is_not_cut() -> None:
    gate = Gate()
    gate.open.set()
    size = 20 * 1024
    async with serving(gate) as port, connected(port) as connection:
        await connection.send(request("POST", "/", framing=b"Content-Length: %d" % size))
        for _ in range(20):
            await connection.send(b"x" * 1024)
            await asyncio.sleep(WATCH_SECONDS / 4)
        answer = await connection.answer()
        assert answer is not None
        assert answer.body == b"%d" % size


async def test_headers_just_before_a_look_and_a_body_just_after_are_no_slowness() -> None:
    """Client libraries write them apart, so every look falls between the two for somebody."""
    gate = Gate()
    gate.open.set()
    async with serving(gate) as port, connected(port) as connection:
        for _ in range(12):
            await connection.send(request("POST", "/", framing=b"Content-Length: 2"))
            await asyncio.sleep(WATCH_SECONDS * 0.4)
            await connection.send(b"{}")
            answer = await connection.answer()
            assert answer is not None
            assert answer.status == 200
    assert gate.calls == 12


class Flood:
    """An application that answers with more than the sockets hold, and says when its send came through."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        body = b"x" * 40_000_000
        start: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"40000000")]}
        await send(start)
        await send({"type": "http.response.body", "body": body})


async def test_an_answer_that_nobody_takes_holds_no_connection() -> None:
    """`Connection: close`: the server has closed, but what is unsent would keep the connection for ever."""
    async with serving(Flood()) as port, connected(port) as connection:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await connection.send(request("GET", "/", headers=[b"Connection: close"]))

        def is_open() -> bool:
            return any(end.laddr.port == port for end in open_ends())

        assert await becomes(is_open)
        assert await becomes(lambda: not is_open())


async def becomes(condition: Callable[[], bool], seconds: float = CUT_SECONDS) -> bool:
    """Poll until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


# --- requests that are framed badly, and well ---

SPLIT = HEADER_LIMIT_BYTES - 300
BAD_FRAMES = {
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "length and chunked": (request("POST", "/v1/events", b"{}", headers=[b"Transfer-Encoding: chunked"]), 400),
    "two lengths": (request("POST", "/v1/events", b"{}", headers=[b"Content-Length: 3"]), 400),
    "a negative length": (request("POST", "/v1/events", framing=b"Content-Length: -1"), 400),
    "a length beyond 64 bits": (request("POST", "/v1/events", framing=b"Content-Length: " + b"9" * 5000), 400),
    "a chunk size that is none": (CHUNKED + b"xyz\r\n", 400),
    "a coding before chunked": (request("POST", "/v1/events", framing=b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 400),
    "an unknown coding": (request("POST", "/v1/events", framing=b"Transfer-Encoding: gzip, x") + b"{}", 400),
    "a space before the colon": (request("GET", "/healthz", headers=[b"X : y"]), 400),
    "a folded header": (request("GET", "/healthz", headers=[b"X: y\r\n z"]), 400),
    "NUL in a header": (request("GET", "/healthz", headers=[b"X: \0"]), 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a tunnel": (b"CONNECT db:5432 HTTP/1.1\r\nHost: db\r\n\r\n", 400),
    "a header without end": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000, 431),
    "a header of 1 MB": (request("GET", "/healthz", headers=[b"X: " + b"y" * 1_000_000]), 431),
    "many headers": (request("GET", "/healthz", headers=[b"X%d: y" % n for n in range(5000)]), 431),
    "a path of 20 KB": (request("GET", "/" + "y" * 20_000), 431),
    "a query of 100 KB": (request("GET", "/v1/events?q=" + "y" * 100_000), 431),
    "trailers without end": (CHUNKED + b"0\r\nX: " + b"y" * 400_000, 431),
    "many trailers": (CHUNKED + b"0\r\n" + b"X: y\r\n" * 200_000, 431),
    "an extension without end": (CHUNKED + b"1;" + b"y" * 400_000, 431),
    "line breaks without end": (b"\r\n" * 200_000, 431),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BAD_FRAMES))
@pytest.mark.parametrize("reused", [False, True], ids=["new connection", "used connection"])
async def test_a_badly_framed_request_is_refused_and_the_connection_ends(port: int, name: str, *, reused: bool) -> None:
    data, status = BAD_FRAMES[name]
    async with connected(port) as connection:
        if reused:
            await connection.send(request("GET", "/healthz"))
            assert (await connection.answer()) is not None
        sending = asyncio.create_task(connection.send(data))
        answer = await connection.answer(2.0)
        if reused and name == "line breaks without end":
            assert answer is None  # no request has begun that it could be the answer to
        else:
            is_problem(answer, status)
        await connection.wait_closed()
        await sending


async def refusals(port: int) -> Counter[str]:
    """How many requests were refused, by the labels of the metric."""
    answer = await ask(port, request("GET", "/metrics"))
    assert answer is not None
    counted = re.findall(r'^audit_http_requests_total(\{.*status="4.."\}) (\S+)$', answer.body.decode(), re.MULTILINE)
    return Counter({labels: int(float(value)) for labels, value in counted})


@pytest.mark.parametrize(
    ("data", "method", "route", "status"),
    [
        (BAD_FRAMES["no HTTP"][0], "other", "unparsed", 400),
        (BAD_FRAMES["a header of 1 MB"][0], "other", "unparsed", 431),
        (HEAD[:-2], "other", "unparsed", 408),
        (HEAD, "POST", "/v1/events", 408),
        (BAD_FRAMES["a chunk size that is none"][0], "POST", "/v1/events", 400),
        (BAD_FRAMES["many trailers"][0], "POST", "/v1/events", 431),
    ],
    ids=["no HTTP", "a long header", "half of the headers", "half of a body", "a bad chunk", "many trailers"],
)
async def test_a_refusal_is_counted_once_with_its_route_when_it_has_one(
    port: int, data: bytes, method: str, route: str, status: int
) -> None:
    before = await refusals(port)
    async with connected(port) as connection:
        sending = asyncio.create_task(connection.send(data))
        is_problem(await connection.answer(CUT_SECONDS), status)
        await connection.wait_closed(CUT_SECONDS)
        await sending

    async def is_counted() -> bool:
        return await refusals(port) != before

    await wait_until(is_counted, "the refusal in the metrics")
    label = f'{{method="{method}",route="{route}",status="{status}"}}'
    assert await refusals(port) - before == Counter({label: 1})


async def test_headers_up_to_the_limit_pass_in_whatever_pieces(port: int) -> None:
    whole = request(
        "POST", "/v1/events", b'{"action":"x","metadata":{"k":"%s"}}' % (b"x" * 60_000), headers=[b"X: " + b"y" * SPLIT]
    )
    end = whole.index(b"\r\n\r\n")
    for cut in (10, end, end + 1, end + 2, end + 3, end + 4, end + 5, end + 20_000):
        async with connected(port) as connection:
            await connection.send(whole[:cut])
            await asyncio.sleep(0.02)
            await connection.send(whole[cut:])
            answer = await connection.answer()
            assert answer is not None
            assert answer.status == 201, cut
    over = await ask(port, request("GET", "/healthz", headers=[b"X: " + b"y" * HEADER_LIMIT_BYTES]))
    is_problem(over, 431)


async def test_trailers_are_not_headers(port: int) -> None:
    """They pass whatever checks headers on the way, so a credential or a key among them counts for nothing."""
    plain = request("POST", "/v1/events", framing=b"Transfer-Encoding: chunked")
    anonymous = b"".join(line + b"\r\n" for line in plain.split(b"\r\n")[:-2] if not line.startswith(b"Auth")) + b"\r\n"
    credential = next(line for line in plain.split(b"\r\n") if line.startswith(b"Auth"))
    body = b"10\r\n" + b'{"action": "x" }' + b"\r\n0\r\n"
    refused = await ask(port, anonymous + body + credential + b"\r\n\r\n")
    assert refused is not None
    assert refused.status == 401
    taken = await ask(port, plain + body + b"Idempotency-Key: \xff\r\n\r\n")
    assert taken is not None
    assert taken.status == 201


async def test_chunked_bodies_expectations_and_pipelines_work(port: int) -> None:
    event = json.dumps(EVENT).encode()
    chunks = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in event) + b"0\r\n\r\n"
    chunked = await ask(port, CHUNKED + chunks)
    assert chunked is not None
    assert chunked.status == 201
    async with connected(port) as connection:
        await connection.send(
            request("POST", "/v1/events", framing=b"Content-Length: %d" % len(event), headers=[b"Expect: 100-continue"])
        )
        proceed = await connection.answer()
        assert proceed is not None
        assert proceed.status == 100
        await connection.send(event)
        final = await connection.answer()
        assert final is not None
        assert final.status == 201
    async with connected(port) as connection:
        await connection.send(b"".join(event_request(EVENT | {"id": f"pipe-{n}"}) for n in range(50)))
        answers = [await connection.answer() for _ in range(50)]
        assert [answer.json()["id"] for answer in answers if answer is not None] == [f"pipe-{n}" for n in range(50)]


async def test_what_follows_a_good_request_does_not_take_its_answer(port: int) -> None:
    async with connected(port) as connection:
        await connection.send(event_request(EVENT | {"id": "before garbage"}) + b"\0\0\0\0")
        answer = await connection.answer()
        assert answer is not None
        assert (answer.status, answer.json()["id"]) == (201, "before garbage")
        await connection.wait_closed()


@pytest.mark.parametrize("off", [-1, 1, 7])
async def test_a_body_of_another_length_than_its_header_says_is_no_event(port: int, off: int) -> None:
    """What is beyond the length is no part of the body, and no request either; what is short of it is no body."""
    event_id = f"length:{off}"
    body = json.dumps(EVENT | {"id": event_id}).encode()
    async with connected(port) as connection:
        await connection.send(request("POST", "/v1/events", body, framing=b"Content-Length: %d" % (len(body) + off)))
        if off > 0:
            connection.writer.write_eof()
        answer = await connection.answer()
        assert (answer is None) if off > 0 else (answer is not None and answer.status == 400)
        await connection.wait_closed()
    found = await ask(port, request("GET", f"/v1/events/{event_id}"))
    assert found is not None
    assert found.status == 404


@pytest.mark.parametrize("pieces", [1, 2, 3])
async def test_an_offer_of_http2_is_declined_and_the_request_answered(port: int, pieces: int) -> None:
    """Java's client makes it with every request over http; the parser would lose the body."""
    offer = [
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    ]
    data = b"".join(event_request(EVENT | {"id": f"java-{pieces}-{n}"}, headers=offer) for n in range(3))
    data += request("GET", "/healthz", headers=[b"Connection: Upgrade", b"Upgrade: websocket"])
    async with connected(port) as connection:
        step = -(-len(data) // pieces)
        for start in range(0, len(data), step):
            await connection.send(data[start : start + step])
            await asyncio.sleep(0.02)
        answers = [await connection.answer() for _ in range(4)]
    assert [answer and answer.status for answer in answers] == [201, 201, 201, 200]


def test_a_worker_speaks_this_protocol_at_this_pace() -> None:
    settings = Settings(database_url=SecretStr("postgresql://unused"))
    assert _configuration(settings).http is http_protocol.GuardedProtocol
    assert http_protocol.GuardedProtocol.watch_seconds == http_protocol.WATCH_SECONDS == 10
    assert ANSWER_SECONDS > CUT_SECONDS
