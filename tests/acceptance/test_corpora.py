"""Two public corpora through real HTTP and the real database: JSONTestSuite and the Big List of Naughty Strings.

No answer is a 5xx, none takes a second, what is taken comes back as it was sent, and the log verifies in the end.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from audit_service.api.parameters import FILTERS, NOT_SUFFIX, PAGING
from audit_service.core.terms import GRAM_CHARACTERS, search_words
from audit_service.http_protocol import HEADER_LIMIT_BYTES
from audit_service.store.selection import CONDITIONS
from tests.support.postgres import BOOTSTRAP_KEY
from tests.support.processes import start_service
from tests.support.raw_http import connected, request

LIMIT_SECONDS = 1.0
JSON_TYPE = {"Content-Type": "application/json"}
Client = httpx.AsyncClient


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A running service; its log is intact in the end, and it had no error that nobody planned for."""
    with start_service(tmp_path_factory.mktemp("corpora") / "var", AUDIT_BOOTSTRAP_KEY=BOOTSTRAP_KEY) as service:
        headers = {"Authorization": f"Bearer {BOOTSTRAP_KEY}"}
        workers = {worker.pid for worker in service.workers()}
        async with Client(base_url=service.url, headers=headers, trust_env=False, timeout=30) as opened:
            yield opened
            report = (await opened.get("/v1/chain/verify")).json()
            assert (report["status"], report["breaks"]) == ("ok", [])
        assert {worker.pid for worker in service.workers()} == workers
        assert "Traceback" not in service.output


async def answered(client: Client, method: str, path: str, **rest: Any) -> httpx.Response:
    """The answer, which is in time and neither a 5xx nor a redirect; a refusal is a problem document."""
    started = time.monotonic()
    response = await client.request(method, path, **rest)
    seconds = time.monotonic() - started
    if seconds > LIMIT_SECONDS:  # once more, as the machine may have been busy
        started = time.monotonic()
        await client.request(method, path, **rest)
        seconds = time.monotonic() - started
    assert seconds < LIMIT_SECONDS, (method, path)
    status = response.status_code
    assert 200 <= status < 300 or 400 <= status < 500, (status, method, path, rest)
    if status >= 400 and "results" not in response.json():  # a batch of which nothing was taken has results
        assert response.headers["content-type"] == "application/problem+json", (method, path, rest)
        assert response.json()["status"] == status
    return response


# --- JSONTestSuite ---


@pytest.fixture(scope="module")
def suite(shared: Path) -> list[tuple[str, bytes]]:
    """(name, bytes) of each file; the transform files have no verdict of their own, so they are `i_`."""
    folder = shared / "data" / "jsontestsuite"
    parsing = [(path.name, path.read_bytes()) for path in sorted((folder / "test_parsing").glob("*.json"))]
    transform = [(f"i_{path.name}", path.read_bytes()) for path in sorted((folder / "test_transform").glob("*.json"))]
    assert (len(parsing), len(transform)) == (318, 22)
    return parsing + transform


async def test_json_in_an_event_is_stored_as_it_was_or_refused(client: Client, suite: list[tuple[str, bytes]]) -> None:
    stored = 0
    for name, data in suite:
        body = b'{"id":"suite:%s","action":"suite","metadata":{"k":%s}}' % (name.encode(), data)
        response = await answered(client, "POST", "/v1/events", content=body, headers=JSON_TYPE)
        check_verdict(name, response)
        if response.status_code == 201 and name.startswith("y_"):
            stored += 1
            event = (await answered(client, "GET", f"/v1/events/suite:{quote(name)}")).json()
            assert event.get("metadata", {}).get("k") == json.loads(data), name
    assert stored > 80


async def test_json_as_the_whole_body_is_refused_or_an_empty_batch(
    client: Client, suite: list[tuple[str, bytes]]
) -> None:
    for name, data in suite:
        response = await answered(client, "POST", "/v1/events", content=data, headers=JSON_TYPE)
        check_verdict(name, response)
        assert response.status_code != 201 or response.json()["results"] == [], name


async def test_json_as_a_line_is_refused_alone(client: Client, suite: list[tuple[str, bytes]]) -> None:
    """As NDJSON each line has its own result, so what is broken must not reach the line after it."""
    last = b'{"action":"suite.last"}'
    for name, data in suite:
        body = data.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n" + last
        response = await answered(
            client, "POST", "/v1/events", content=body, headers={"Content-Type": "application/x-ndjson"}
        )
        *results, trailer = [json.loads(line) for line in response.text.splitlines()]
        assert (results[-1]["status"], trailer["complete"]) == (201, True), name
        assert all(result["status"] in {400, 422} for result in results[:-1]), name


def check_verdict(name: str, response: httpx.Response) -> None:
    """What the first letter of the file's name asks for."""
    status = response.status_code
    if name.startswith("n_"):
        assert status in {400, 422}, (name, status)
    elif name.startswith("y_") and status >= 400:
        document = response.json()
        # Duplicate names are the one thing in valid JSON that is refused as not well-formed.
        twice = "twice" in document.get("detail", "")
        assert status == (400 if twice else 422), (name, document)
        assert twice or document.get("errors") or document["results"][0]["problem"]["errors"], (name, document)


# --- the Big List of Naughty Strings ---


@pytest.fixture(scope="module")
def naughty(shared: Path) -> list[str]:
    """The strings."""
    strings: list[str] = json.loads((shared / "data" / "blns" / "blns.json").read_text(encoding="utf-8"))
    assert len(strings) == 515
    return strings


Place = Callable[[str], dict[str, Any]]
# Any text is taken here, up to a length that every string of the list keeps.
FREE: dict[str, Place] = {
    "reason": lambda s: {"reason": s},
    "description": lambda s: {"description": s},
    "actor name": lambda s: {"actor": {"name": s}},
    "actor email": lambda s: {"actor": {"email": s}},
    "actor role": lambda s: {"actor": {"role": s}},
    "on behalf of": lambda s: {"on_behalf_of": {"name": s}},
    "target name": lambda s: {"target": {"name": s}},
    "user agent": lambda s: {"context": {"user_agent": s}},
    "traceparent": lambda s: {"context": {"traceparent": s}},
    "a value": lambda s: {"metadata": {"k": s}},
    "a value in a list": lambda s: {"metadata": {"k": [s, {"k": s}]}},
    "a name": lambda s: {"metadata": {s: 1}},
    "an old and a new row": lambda s: {"before": {"k": s}, "after": {"k": "x" + s}},
    "a column": lambda s: {"after": {s: 1}},
    "a change": lambda s: {"changes": [{"path": "/k", "old": 1, "new": s}]},
}
# Here it may be too long, empty, or no such thing.
STRICT: dict[str, Place] = {
    "id": lambda s: {"id": s},
    "action": lambda s: {"action": s},
    "verb": lambda s: {"verb": s},
    "category": lambda s: {"category": s},
    "occurred_at": lambda s: {"occurred_at": s},
    "outcome": lambda s: {"outcome": s},
    "partial": lambda s: {"partial": s},
    "server_id": lambda s: {"server_id": s},
    "actor type": lambda s: {"actor": {"type": s}},
    "actor id": lambda s: {"actor": {"id": s}},
    "target type": lambda s: {"target": {"type": s}},
    "target id": lambda s: {"target": {"id": s}},
    "related": lambda s: {"related": [{"type": s, "id": s, "name": s}]},
    "ip": lambda s: {"context": {"ip": s}},
    "session_id": lambda s: {"context": {"session_id": s}},
    "request_id": lambda s: {"context": {"request_id": s}},
    "source id": lambda s: {"source": {"id": s}},
    "a path": lambda s: {"changes": [{"path": s, "old": 1, "new": 2}]},
    "an op": lambda s: {"changes": [{"path": "/k", "op": s, "old": 1, "new": 2}]},
    "an unknown member": lambda s: {s: 1},
}


async def test_strings_in_every_field_are_stored_or_refused(client: Client, naughty: list[str]) -> None:
    for number, text in enumerate(naughty):
        batch = [
            {"action": "naughty", "id": f"free {number} {n}"} | place(text) for n, place in enumerate(FREE.values())
        ]
        batch += [{"action": "naughty"} | place(text) for place in STRICT.values()]
        response = await answered(client, "POST", "/v1/events", json=batch)
        results = response.json()["results"]
        assert [result["status"] for result in results[: len(FREE)]] == [201] * len(FREE), (text, results)
        assert {result["status"] for result in results[len(FREE) :]} <= {200, 201, 409, 422}, (text, results)


async def test_strings_come_back_as_they_were_sent(client: Client, naughty: list[str]) -> None:
    """In the list and in each export; a secret among them is replaced as a whole or in part, and says so."""
    events = [{"action": "back", "id": f"back {n}", "metadata": {"k": text}} for n, text in enumerate(naughty)]
    assert (await answered(client, "POST", "/v1/events", json=events)).status_code == 201
    redacted = 0
    response = await client.get("/v1/export", params={"action": "back", "format": "ndjson"})
    shown = {event["id"]: event for line in response.content.splitlines() if "id" in (event := json.loads(line))}
    for number, text in enumerate(naughty):
        back = shown[f"back {number}"]["metadata"]["k"]
        redacted += back != text
        assert back == text or "[redacted]" in back, (text, back)
    assert redacted <= 10
    for format_ in ("csv", "json"):
        whole = await client.get("/v1/export", params={"action": "back", "format": format_})
        assert whole.status_code == 200
        assert whole.content.decode().count("back 5") == 26  # back 5, 50 to 59 and 500 to 514


async def test_strings_in_paths_are_found_or_not(client: Client, naughty: list[str]) -> None:
    for number, text in enumerate(naughty):
        name = quote(text, safe="")
        paths = [("GET", f"/v1/events/{name}"), ("GET", f"/v1/servers/{name}/activity")]
        paths.append((("GET", f"/v1/events/{name}/revert"), ("GET", f"/v1/targets/{name}/{name}/history"))[number % 2])
        paths.append((("DELETE", f"/v1/keys/{name}"), ("GET", f"/{name}"))[number % 2])
        for method, path in paths:
            response = await answered(client, method, path)
            assert response.status_code in {200, 404, 405}, (method, path)


async def test_strings_in_parameters_select_or_are_refused(client: Client, naughty: list[str]) -> None:
    """All filters that take any text at once; and one parameter alone, another for each string in turn."""
    parameters = (*FILTERS, *(name + NOT_SUFFIX for name in CONDITIONS), *PAGING)
    free = {name for name in CONDITIONS if name not in {"ip", "verb", "outcome", "q"}}
    for number, text in enumerate(naughty):
        expected = (
            431 if len(quote(text)) * len(free) > HEADER_LIMIT_BYTES else 200 if text and "\ufffd" not in text else 400
        )
        response = await answered(client, "GET", "/v1/events", params=dict.fromkeys(sorted(free), text))
        assert response.status_code == expected, text
        response = await answered(client, "GET", "/v1/events", params={"q": text})
        words = search_words(text)
        asked = bool(words) and min(map(len, words)) >= GRAM_CHARACTERS and "\ufffd" not in text
        assert response.status_code == (200 if asked else 400), text
        name = parameters[number % len(parameters)]
        response = await answered(
            client, "GET", "/v1/events", params={name: text, "limit": "1"} if name != "limit" else {name: text}
        )
        assert response.status_code in {200, 400}
        await answered(client, "GET", "/v1/chain/verify", params={"from_seq": text, "to_seq": "1"})
        await answered(client, "GET", "/v1/export", params={"format": text, "id": "nothing"})
        await answered(client, "GET", "/v1/events", params={text: "x"})


HEADERS = (
    "Idempotency-Key", "Authorization", "Content-Type", "Content-Encoding", "Host", "Accept", "User-Agent", "X-Forwarded-For", "Expect",
    "Cookie", "ce-id", "ce-type", "ce-specversion", "Connection", "Upgrade", "If-None-Match", "Range", "Origin",
)  # fmt: skip


async def test_strings_in_headers_are_taken_or_refused(client: Client, naughty: list[str]) -> None:
    """As UTF-8, where a header can hold the bytes at all."""
    port = int(client.base_url.port or 0)
    bodies = [b'{"action":"naughty.header"}', b""]
    legal = [text.encode() for text in naughty if not any(c < " " or c == "\x7f" for c in text)]
    assert len(legal) > 450
    gate = asyncio.Semaphore(8)

    async def send(number: int, text: bytes) -> None:
        name = HEADERS[number % len(HEADERS)].encode()
        method = "POST" if number % 3 else "GET"
        data = request(method, "/v1/events?limit=1", bodies[method == "GET"], headers=[name + b": " + text])
        async with gate, connected(port) as connection:
            await connection.send(data)
            answer = await connection.answer()
            assert answer is not None, (name, text)
            assert 200 <= answer.status < 500, (name, text, answer)

    await asyncio.gather(*(send(n + shift, text) for n, text in enumerate(legal) for shift in range(4)))
