"""Whoever sends to /v1/events, however: captured first requests, PHP's JSON, gzip, chunks, and `Expect: 100-continue`."""

import asyncio
import base64
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.api import Api
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase
from tests.support.posting import JSON_TYPE, send, stored
from tests.support.senders import lines
from tests.support.serving import Served, Wire, served

MEBIBYTE = 1024 * 1024
BODY_LIMIT_BYTES = 2 * MEBIBYTE
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
async def service(module_database: TestDatabase) -> AsyncIterator[Served]:
    """The service. Whatever the tests did to it, its log verifies in the end."""
    async with served(module_database, body_limit_bytes=BODY_LIMIT_BYTES) as running:
        yield running
        report = await running.api.verify()
        assert (report["status"], report["breaks"]) == ("ok", [])


# --- what real clients sent, captured, as a first request to us

# Its path in the capture, which names the client, and what it gets. A list: the status of each of its events.
ANSWERS: dict[str, int | list[int]] = {
    "/ce-js-binary": 201,
    "/ce-py-structured": 201,
    # The same event in the other mode: a replay.
    "/ce-js-structured": 200,
    "/ce-py-binary": 200,
    # The event is right but for the names of its members, and each of those is told.
    **dict.fromkeys(
        (
            "/curl-json", "/curl--json", "/php-guzzle-json", "/php-curl-json", "/php-stream", "/axios", "/node-fetch", "/got",
            "/standardwebhooks-js", "/winston", "/py-requests-json", "/py-httpx", "/auditlog/publisher/v1/project/dev/event",
            "/loki/api/v1/push", "/services/collector/event", "/otelcol-json/v1/logs",
        ),
        422,
    ),
    "/winston-batch": [422, 422],
    "/auditlog/publisher/v1/project/dev/event/bulk": [422, 422],
    "/syslog-ng-array": [422, 422, 422],
    "/curl-ndjson": [422],
    # Each line a syslog message, the event within as text.
    "/syslog-ng": [422, 422, 422],
    "/node-fetch-stream": [422],
    # No JSON at all: broken, cut by the capture, NaN, two documents in one.
    **dict.fromkeys(("/php-curl-json-1.5MB", "/py-requests-data-nan", "/_bulk"), 400),
    # Another media type, JSON within or not.
    **dict.fromkeys(
        (
            "/curl-default-d", "/php-guzzle-form", "/php-curl-postfields-array", "/py-urllib", "/py-logging-HTTPHandler",
            "/otel-py/v1/logs", "/otelcol-proto/v1/logs",
        ),
        415,
    ),
}  # fmt: skip
# Where members of the captured events belong here.
BELONGS = {
    "/old": "before",
    "/new": "after",
    "/ip": "context.ip",
    "/timestamp": "occurred_at",
    "/message": "description",
}


def captured(shared: Path) -> list[dict[str, Any]]:
    """The captured requests, one for each client."""
    found = list(lines(shared / "data" / "client-captures" / "captures.ndjson"))
    assert len(found) == 36
    return found


async def resend(service: Served, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """The request's own headers and body on a connection of its own, with our key. Status, headers and body of the answer."""
    ours = {"host", "authorization", "content-length", "expect", "connection", "idempotency-key"}
    headers = {name.lower(): value for name, value in request["headers"] if name.lower() not in ours}
    data = base64.b64decode(request["body"]) if request["body_kind"] == "base64" else request["body"].encode()
    if headers.get("content-encoding") == "gzip":  # captured inflated
        data = gzip.compress(data)
    async with service.wire() as wire:
        given = [f"{name}: {value}" for name, value in headers.items()]
        if headers.get("transfer-encoding") == "chunked":
            await wire.begin(*given)
            await wire.chunk(data)
            await wire.chunk(b"")
        else:
            await wire.begin(*given, f"Content-Length: {len(data)}")
            await wire.send(data)
        answer = await wire.answer()
    return answer.status, dict(answer.headers), answer.body


async def test_a_client_s_first_request_is_taken_or_told_what_to_send(service: Served, shared: Path) -> None:
    requests = captured(shared)
    paths = {request["path"] for request in requests}
    assert ANSWERS.keys() == paths
    for request in requests:
        status, headers, data = await resend(service, request)
        path = request["path"]
        expected = ANSWERS.get(path)
        if isinstance(expected, list):
            *results, last = [json.loads(line) for line in data.splitlines()]
            results = results or last["results"]
            assert [result["status"] for result in results] == expected, path
            problems = [result["problem"] for result in results]
        else:
            assert status == expected, (path, data)
            problems = [json.loads(data)] if status >= 400 else []
            assert status < 400 or headers["content-type"] == "application/problem+json"
        for problem in problems:
            assert_tells(path, problem)


def assert_tells(path: str, problem: dict[str, Any]) -> None:
    """The problem says what to send instead, in words of this service; nothing that was sent is in it."""
    if problem["status"] == 415:
        assert "Content-Type: application/json" in problem["detail"], path
        return
    if problem["status"] == 400:
        assert "JSON" in problem["detail"], path
        return
    assert problem["errors"], path
    for fault in problem["errors"]:
        if fault["pointer"] in BELONGS:
            expected = f"is not a member of the event; send it as {BELONGS[fault['pointer']]}"
            assert fault["detail"] == expected, path
        assert "admin@example.com" not in fault["detail"], path


async def test_the_events_that_were_captured_are_taken_once_their_members_are_named_as_told(
    service: Served, shared: Path
) -> None:
    """Following the answer leads to an accepted event."""
    (request,) = [request for request in captured(shared) if request["path"] == "/php-guzzle-json"]
    event = json.loads(request["body"])
    renamed = {
        {"old": "before", "new": "after", "timestamp": "occurred_at"}.get(name, name): value
        for name, value in event.items()
        if name != "ip"
    } | {"context": {"ip": event["ip"]}}
    found = await stored(service.api, renamed)
    assert (found["actor"]["id"], found["context"]["ip"]) == ("7", "203.0.113.9")
    paths = {change["path"]: change for change in found["changes"]}
    assert paths["/price"]["old"] == 0.30000000000000004
    assert paths["/big"]["old"] == 9007199254740993
    assert paths["/name"]["old"] == "héllo/ü"


# --- JSON as PHP writes it


async def test_json_as_php_writes_it_is_read_as_it_is_meant(service: Served) -> None:
    """Escaped slashes and letters, numbers without their fraction, exponents, and maps that became lists."""
    body = (
        rb'{"id":"php:1","action":"server.updated","metadata":[],"actor":{"id":7,"name":"h\u00e9llo\/\u00fc"},'
        rb'"before":{"price":1,"big":1.0e+25,"n":9007199254740993,"tags":[],"same":[]},'
        rb'"after":{"price":1.0,"big":1.0e+26,"n":9007199254740992,"tags":{"a":1},"same":{}}}'
    )
    response = await send(service.api, body)
    assert response.status_code == 201, response.text
    event = await service.api.event("php:1")
    assert (event["actor"]["id"], event["actor"]["name"], event["metadata"]) == ("7", "héllo/ü", None)
    assert event["changes"] == [
        {"path": "/big", "op": "replace", "old": 1e25, "new": 1e26},
        {"path": "/n", "op": "replace", "old": 9007199254740993, "new": 9007199254740992},
        {"path": "/tags/a", "op": "add", "new": 1},
    ]


async def test_the_same_event_written_by_php_python_and_javascript_is_a_replay(service: Served) -> None:
    spelled = [
        '{"id":"same:1","action":"x","actor":{"id":7,"name":"é/"},"metadata":{"f":1.0,"big":1.0e+25,"none":null}}',
        r'{"id":"same:1","action":"x","actor":{"id":"7","name":"\u00e9\/"},"metadata":{"f":1,"big":1e25,"none":null}}',
        json.dumps({"metadata": {"none": None, "big": 1e25, "f": 1}, "actor": {"name": "é/", "id": 7}, "action": "x", "id": "same:1"}),
    ]  # fmt: skip
    responses = [await send(service.api, body.encode()) for body in spelled]
    assert [response.status_code for response in responses] == [201, 200, 200]
    assert len({response.text for response in responses}) == 1


# --- gzip


def bomb(inflated_bytes: int) -> bytes:
    """A gzip body of zeros, a thousandth as long; its parts are compressed once and repeated."""
    compress = zlib.compressobj(9, wbits=-15)
    part = compress.compress(bytes(MEBIBYTE)) + compress.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + part * (inflated_bytes // MEBIBYTE)


async def test_a_bomb_is_refused_before_it_is_in_memory(service: Served) -> None:
    """1 GiB of zeros in 1 MiB: 413, and never more in memory than the limit and what arrives."""
    data = bomb(1024 * MEBIBYTE)
    assert len(data) < 1.1 * MEBIBYTE < BODY_LIMIT_BYTES
    await service.api.accept({"action": "warm.up"})
    tracemalloc.start()
    try:
        response = await send(service.api, data, **{"Content-Encoding": "gzip"})
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (response.status_code, response.json()["errors"]) == (413, [{"pointer": "", "detail": "the whole body"}])
    assert peak_bytes < 4 * BODY_LIMIT_BYTES


async def test_a_body_that_inflates_to_nothing_for_ever_is_refused(service: Served) -> None:
    """Empty blocks meet no limit on inflated bytes; what arrives is counted as well."""
    empty_blocks = b"\x00\x00\x00\xff\xff" * 13_107
    async with service.wire() as wire:
        await wire.begin(JSON, CHUNKED, "Content-Encoding: gzip")
        await wire.chunk(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff")
        for _ in range(BODY_LIMIT_BYTES // len(empty_blocks) + 2):
            await wire.chunk(empty_blocks)
        assert (await wire.answer()).status == 413


@pytest.mark.parametrize("cut_at", ["the middle", "the limit", "a member's end"])
async def test_a_body_of_several_gzip_members_is_one_body(service: Served, cut_at: str) -> None:
    """RFC 1952 section 2.2: files one after another are the file of their contents. The limit counts all of them."""
    body = json.dumps({"action": "x", "metadata": {"k": cut_at}}).encode()
    to_the_limit = [body, b" " * (BODY_LIMIT_BYTES - len(body)), b""]
    parts = {"the middle": [body[:20], body[20:], b" \n"], "the limit": to_the_limit, "a member's end": [b"", body]}
    members = [gzip.compress(part) for part in parts[cut_at]]
    for chunks in ([b"".join(members)], members, [bytes([byte]) for byte in b"".join(members)]):
        async with service.wire() as wire:
            await wire.begin(JSON, CHUNKED, "Content-Encoding: gzip")
            for chunk in chunks:
                await wire.chunk(chunk)
            await wire.chunk(b"")
            answer = await wire.answer()
        assert answer.status == 201, answer.body
    over = b"".join([*members, gzip.compress(b" " * BODY_LIMIT_BYTES)])
    assert (await send(service.api, over, **{"Content-Encoding": "gzip"})).status_code == 413


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: data[:-1], "cut"), (lambda data: data[: len(data) // 2], "cut"), (lambda _: b"", "cut"),
        (lambda data: data + b"more", "gzip"), (lambda data: data + b"\x1f", "cut"), (lambda data: data + bytes(8), "gzip"),
        (lambda data: data + data[:-1], "cut"), (lambda data: data[:-6] + b"\x00" + data[-5:], "gzip"),
        (lambda _: gzip.compress(b"") * 1001, "members"), (lambda _: zlib.compress(b'{"action":"x"}'), "gzip"),
    ],
)  # fmt: skip
async def test_a_broken_gzip_body_is_malformed(service: Served, damage: Any, told: str) -> None:
    """Cut, followed by something, with another checksum, of countless parts, or no gzip at all: told as such, nothing taken."""
    before = (await service.api.client.get("/v1/chain")).json()["size"]
    data = damage(gzip.compress(b'{"action":"x"}'))
    response = await send(service.api, data, **{"Content-Encoding": "gzip"})
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")
    assert told in response.json()["detail"]
    assert (await service.api.client.get("/v1/chain")).json()["size"] == before


# --- chunks


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_a_body_in_chunks_is_a_body(service: Served, size: int) -> None:
    body = json.dumps({"id": f"chunks:{size}", "action": "x", "metadata": {"k": "é😀" * 20}}).encode()
    async with service.wire() as wire:
        await wire.begin(JSON, CHUNKED)
        for start in range(0, len(body), size):
            await wire.chunk(body[start : start + size])
        await wire.chunk(b"")
        assert (await wire.answer()).status == 201
    assert (await service.api.event(f"chunks:{size}"))["metadata"] == {"k": "é😀" * 20}


async def test_a_body_that_breaks_off_stores_nothing(service: Served) -> None:
    """Even when what came is whole JSON: only the end of the body says that it is all."""
    for framing in (CHUNKED, "Content-Length: 1000"):
        async with service.wire() as wire:
            await wire.begin(JSON, framing)
            whole = b'{"id":"broken-off","action":"x"}'
            await (wire.chunk(whole) if framing == CHUNKED else wire.send(whole))
            await asyncio.sleep(0)
            wire.abort()
    assert (await service.api.post({"action": "x"})).status_code == 201
    assert (await service.api.client.get("/v1/events/broken-off")).status_code == 404


# --- Expect: 100-continue


async def expecting(wire: Wire, length: int, *headers: str) -> None:
    """A head as PHP and libcurl send it before a large body."""
    await wire.begin(JSON, f"Content-Length: {length}", "Expect: 100-continue", *headers)


async def test_who_waits_for_100_continue_gets_it_and_then_the_answer(service: Served) -> None:
    body = json.dumps({"action": "x", "metadata": {"k": ["v" * 1000] * 1500}}).encode()
    assert len(body) > 1_500_000
    async with service.wire() as wire:
        for _ in range(2):  # on a connection that stays open
            await expecting(wire, len(body))
            assert (await wire.head())[0] == 100
            await wire.send(body)
            assert (await wire.answer()).status == 201


async def test_who_does_not_wait_for_it_is_answered_as_well(service: Served) -> None:
    """libcurl waits a second at most, then sends."""
    body = b'{"action":"x"}'
    async with service.wire() as wire:
        await expecting(wire, len(body))
        await wire.send(body)
        answer = await wire.answer()
        if answer.status == 100:
            answer = await wire.answer()
        assert answer.status == 201


@pytest.mark.parametrize(
    ("length", "header", "status"),
    [(BODY_LIMIT_BYTES + 1, "X: x", 413), (10, "Content-Encoding: br", 415), (10, "Idempotency-Key: é", 422)],
)
async def test_what_is_refused_by_its_head_is_told_without_its_body(
    service: Served, length: int, header: str, status: int
) -> None:
    """No 100 before the refusal, so the sender need not send a body for nothing."""
    async with service.wire() as wire:
        await expecting(wire, length, header)
        answer = await wire.answer()
    assert (answer.status, answer.json()["status"]) == (status, status)


async def test_a_sender_of_far_too_much_that_never_looks_is_told_all_the_same(service: Served) -> None:
    """Ten times the limit is sent before the answer is read: neither side waits for the other for ever."""
    body = b'{"action":"x"}'.ljust(10 * BODY_LIMIT_BYTES)
    async with service.wire(small=True) as wire:
        await wire.begin(JSON, f"Content-Length: {len(body)}")
        for start in range(0, len(body), 256 * 1024):
            await wire.send(body[start : start + 256 * 1024])
        assert (await wire.answer()).status == 413


# --- text/plain and no type: what they may hold is in test_limits.py, here is who else says so


async def test_a_string_that_fetch_sends_may_be_an_event_or_a_batch(service: Served) -> None:
    loose = {"Content-Type": "text/plain;charset=UTF-8"}
    for body, status in (('{"action":"x"}', 201), ('[{"action":"x"},{}]', 207), ("hello", 415), ('{"action":', 400)):
        response = await service.api.client.post("/v1/events", content=body, headers=loose)
        assert response.status_code == status, body


async def test_a_page_of_another_site_can_send_nothing_in_a_visitor_s_name(service: Served) -> None:
    """Why loose types are safe (decision 0006): browsers add no credential that we take, and are not allowed to send one of the page's."""
    foreign = {"Origin": "https://evil.example", "Content-Type": "text/plain;charset=UTF-8"}
    ambient = (
        {"Authorization": "Basic " + base64.b64encode(f"x:{BOOTSTRAP_KEY}".encode()).decode()},
        {"Cookie": BOOTSTRAP_KEY},
    )
    async with httpx.AsyncClient(base_url=service.api.client.base_url, trust_env=False) as visitor:
        for credential in ambient:
            refused = await visitor.post("/v1/events", content='{"action":"x"}', headers=foreign | credential)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        preflight = await visitor.options("/v1/events", headers=foreign | asked)
    answered = await service.api.client.post("/v1/events", content='{"action":"x"}', headers=foreign)
    assert (preflight.status_code, answered.status_code) == (405, 201)
    for response in (preflight, answered):
        assert not [name for name in response.headers if name.startswith("access-control") or name == "set-cookie"]


async def test_one_id_in_every_framing_is_one_event(service: Served) -> None:
    """Whoever sends it again may frame it otherwise: object, array, envelope, line, gzip, chunks, text."""
    event = {"id": "framed", "action": "x", "actor": {"id": "7"}}
    body = json.dumps(event).encode()
    framed: list[tuple[bytes, dict[str, str]]] = [
        (body, JSON_TYPE),
        (b"[" + body + b"]", JSON_TYPE),
        (json.dumps({"events": [event]}).encode(), JSON_TYPE),
        (body + b"\n", {"Content-Type": "application/x-ndjson"}),
        (gzip.compress(body), {**JSON_TYPE, "Content-Encoding": "gzip"}),
        (gzip.compress(body), {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}),
        (body, {"Content-Type": "text/plain"}),
        (body, {}),
    ]
    seen = {await seq_of(service.api, data, headers) for data, headers in framed}
    assert len(seen) == 1


async def seq_of(api: Api, data: bytes, headers: dict[str, str]) -> int:
    """The seq in the only receipt of the answer."""
    response = await api.client.post("/v1/events", content=data, headers=headers)
    assert response.status_code in {200, 201}, response.text
    answer = json.loads(response.text.splitlines()[0])
    answer = answer["results"][0] if "results" in answer else answer
    return int(answer.get("receipt", answer)["seq"])
