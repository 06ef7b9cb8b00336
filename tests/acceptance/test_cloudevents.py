"""The official CloudEvents SDKs post to a running service, unchanged: Python and JavaScript, structured and binary."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cloudevents.core.bindings.http import HTTPMessage, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from tests.support.api import Api
from tests.support.apps import dump
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase
from tests.support.serving import Served, served

CANARY = "canary-8f2e1b7c4d"
ROWS: dict[str, Any] = {
    "actor": {"id": "7", "name": "Ana Gómez"},
    "before": {"name": "a", "password": CANARY},
    "after": {"name": "b", "password": CANARY + "2"},
}
CHANGES = [
    {"path": "/name", "op": "replace", "old": "a", "new": "b"},
    {"path": "/password", "op": "replace", "redacted": True},
]
TIME = datetime(2026, 11, 22, 2, 55, 27, 720000, UTC)
JAVASCRIPT_SDK = "cloudevents@10.0.0"
# Posts each line of its input, {mode, event}, with the SDK's own emitter; prints the statuses and answers.
JAVASCRIPT = """
const { CloudEvent, emitterFor, httpTransport, Mode } = require("cloudevents");
const [url, key, work] = process.argv.slice(2);
const authorized = (message, options) =>
  httpTransport(url)({ ...message, headers: { ...message.headers, authorization: "Bearer " + key } }, options);
(async () => {
  for (const { mode, event } of JSON.parse(work)) {
    const emit = emitterFor(authorized, { mode: mode === "binary" ? Mode.BINARY : Mode.STRUCTURED });
    console.log((await emit(new CloudEvent(event))).body);
  }
})();
"""


@pytest.fixture
async def service(database: TestDatabase) -> AsyncIterator[Served]:
    """The running service. In the end its log verifies, and the secret that every event carried is nowhere."""
    async with served(database) as running:
        yield running
        assert (await running.api.verify())["status"] == "ok"
    assert CANARY.encode() not in dump(database.owner_url)


def cloud_event(event_id: str, data: Any = None, **attributes: Any) -> CloudEvent:
    """An event as a panel makes it with the Python SDK."""
    required = {"id": event_id, "type": "com.example.server.updated", "source": "/panel/1", "time": TIME}
    return CloudEvent(attributes=required | attributes, data=data)


async def post(api: Api, message: HTTPMessage) -> httpx.Response:
    """Post what the SDK made, as it is."""
    return await api.client.post("/v1/events", content=message.body, headers=message.headers)


async def stored(api: Api, event_id: str) -> dict[str, Any]:
    """One event; these ids hold characters that a path does not."""
    return await api.event(quote(event_id, safe=""))


async def assert_row_event(api: Api, event_id: str) -> None:
    """The event that carried ROWS reads as it should."""
    event = await stored(api, event_id)
    assert (event["action"], event["verb"]) == ("com.example.server.updated", "UPDATE")
    assert event["occurred_at"] == "2026-11-22T02:55:27.720000Z"
    assert (event["actor"]["name"], event["target"]["id"]) == ("Ana Gómez", "servers/42")
    assert event["source"]["id"] == "/panel/1"
    assert event["changes"] == CHANGES
    assert event["metadata"] == {"cloudevents": {"region": "São Paulo 50%"}}


# --- Python


async def test_the_python_sdk_posts_in_both_modes(service: Served) -> None:
    """The second mode is a replay of the first: same source and id, same content."""
    event = cloud_event("py-1", ROWS, datacontenttype="application/json", subject="servers/42", region="São Paulo 50%")
    first = await post(service.api, to_structured(event, JSONFormat()))
    assert first.status_code == 201, first.text
    again = await post(service.api, to_binary(event, JSONFormat()))
    assert (again.status_code, again.json()) == (200, first.json())
    await assert_row_event(service.api, "/panel/1#py-1")
    other = cloud_event("py-1", {**ROWS, "reason": "r"}, datacontenttype="application/json", subject="servers/42")
    assert (await post(service.api, to_binary(other, JSONFormat()))).status_code == 409
    await service.api.assert_intact(1)


async def test_the_python_sdk_s_bytes_are_read_and_redacted(service: Served) -> None:
    """It sends bytes as base64, behind which a secret must not hide."""
    written = json.dumps(ROWS).encode()
    messages = [
        to_structured(cloud_event("bytes-1", written, datacontenttype="application/json"), JSONFormat()),
        to_binary(cloud_event("bytes-2", written, datacontenttype="application/json"), JSONFormat()),
        to_structured(
            cloud_event("bytes-3", f"password={CANARY}".encode(), datacontenttype="text/plain"), JSONFormat()
        ),
    ]
    assert b"data_base64" in messages[0].body
    assert [(await post(service.api, message)).status_code for message in messages] == [201] * 3
    assert [(await stored(service.api, f"/panel/1#bytes-{n}"))["changes"] for n in (1, 2)] == [CHANGES] * 2
    assert (await stored(service.api, "/panel/1#bytes-3"))["metadata"]["data"].startswith("password=")
    await service.api.assert_intact(3)


@pytest.mark.parametrize("data", [None, "hello", "[INFO] started", "{brace", "größer"])
async def test_the_python_sdk_s_text_is_kept_as_text(service: Served, data: str | None) -> None:
    event = cloud_event("text", data, datacontenttype="text/plain")
    first = await post(service.api, to_binary(event, JSONFormat()))
    assert first.status_code == 201, first.text
    assert (await post(service.api, to_structured(event, JSONFormat()))).status_code == 200
    event_stored = await stored(service.api, "/panel/1#text")
    assert event_stored["metadata"] == (None if data is None else {"data": data})
    await service.api.assert_intact(1)


# --- JavaScript


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the JavaScript SDK and the script; skips where it cannot be installed."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("javascript")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), JAVASCRIPT_SDK]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm could not fetch {JAVASCRIPT_SDK} in 60 seconds")
    if done.returncode:
        pytest.skip(f"npm could not install {JAVASCRIPT_SDK}")
    (folder / "post.js").write_text(JAVASCRIPT, encoding="utf-8")
    return folder


async def emit(folder: Path, port: int, *work: dict[str, Any]) -> list[dict[str, Any]]:
    """The service's answers to what the JavaScript SDK posts."""
    command = ["node", str(folder / "post.js"), f"http://127.0.0.1:{port}/v1/events", BOOTSTRAP_KEY, json.dumps(work)]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_the_javascript_sdk_posts_in_both_modes(service: Served, javascript: Path) -> None:
    """It sends chunked, without a length."""
    attributes = {
        "type": "com.example.server.updated", "source": "/panel/1", "time": "2026-11-22T02:55:27.720Z",
        "subject": "servers/42", "data": ROWS,
    }  # fmt: skip
    # The SDK writes attributes into headers as they are, so one that is no Latin-1 goes only into an envelope.
    work = [
        {"mode": "structured", "event": {**attributes, "id": "js-1", "region": "São Paulo 50%"}},
        {"mode": "binary", "event": {**attributes, "id": "js-2", "region": "São Paulo 50%"}},
        {"mode": "binary", "event": {**attributes, "id": "js-1", "region": "São Paulo 50%"}},
    ]
    receipts = await emit(javascript, service.port, *work)
    assert [receipt["id"] for receipt in receipts] == ["/panel/1#js-1", "/panel/1#js-2", "/panel/1#js-1"]
    assert receipts[2] == receipts[0]
    for event_id in ("/panel/1#js-1", "/panel/1#js-2"):
        await assert_row_event(service.api, event_id)
    await service.api.assert_intact(2)


async def test_the_javascript_sdk_is_told_what_is_wrong(service: Served, javascript: Path) -> None:
    event = {"type": "no action", "source": "/panel/1", "id": "bad", "data": {"password": CANARY}}
    answers = await emit(
        javascript, service.port, *({"mode": mode, "event": event} for mode in ("binary", "structured"))
    )
    for answer in answers:
        assert (answer["status"], [fault["pointer"] for fault in answer["errors"]]) == (422, ["/action"])
    await service.api.assert_intact(0)


# --- batched: no SDK writes it, so by hand from the specification


async def test_a_batch_has_a_result_for_each_envelope(service: Served) -> None:
    envelopes: list[Any] = [
        json.loads(
            to_structured(cloud_event(f"b-{n}", {"n": n}, datacontenttype="application/json"), JSONFormat()).body
        )
        for n in range(3)
    ]
    envelopes.insert(1, {"specversion": "1.0", "id": "b-9", "source": "/panel/1"})
    envelopes.append(envelopes[0])
    headers = {"Content-Type": "application/cloudevents-batch+json; charset=utf-8"}
    response = await service.api.client.post("/v1/events", json=envelopes, headers=headers)
    results = response.json()["results"]
    assert (response.status_code, [result["status"] for result in results]) == (207, [201, 422, 201, 201, 200])
    assert [fault["pointer"] for fault in results[1]["problem"]["errors"]] == ["/type"]
    assert [result["receipt"]["id"] for result in results if "receipt" in result] == [
        f"/panel/1#b-{n}" for n in (0, 1, 2, 0)
    ]
    assert (await stored(service.api, "/panel/1#b-2"))["metadata"] == {"data": {"n": 2}}
    await service.api.assert_intact(3)


async def test_an_empty_batch_is_accepted_and_one_that_is_no_array_is_refused(service: Served) -> None:
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    empty = await service.api.client.post("/v1/events", content=b"[]", headers=headers)
    assert (empty.is_success, empty.json()["results"]) == (True, [])
    for body, status in ((b"{}", 422), (b"[", 400), (b"", 400)):
        response = await service.api.client.post("/v1/events", content=body, headers=headers)
        assert response.status_code == status, response.text
    await service.api.assert_intact(0)


# --- which mode it is


async def test_the_media_type_of_an_envelope_goes_before_headers(service: Served) -> None:
    """A gateway may copy attributes into headers; the body is an envelope nevertheless."""
    event = cloud_event("both", {"k": 1}, datacontenttype="application/json")
    headers = {**to_binary(event, JSONFormat()).headers, "ce-id": "copied"}
    message = to_structured(event, JSONFormat())
    response = await post(service.api, HTTPMessage(headers | message.headers, message.body))
    assert (response.status_code, response.json()["id"]) == (201, "/panel/1#both")
    assert (await stored(service.api, "/panel/1#both"))["metadata"] == {"data": {"k": 1}}
    await service.api.assert_intact(1)


async def test_binary_data_may_be_lines(service: Served) -> None:
    """With attributes in the headers the body is one event's data, not a stream of events."""
    event = cloud_event("lines", '{"action":"x"}\n{"action":"y"}\n', datacontenttype="application/x-ndjson")
    response = await post(service.api, to_binary(event, JSONFormat()))
    assert (response.status_code, response.json()["id"]) == (201, "/panel/1#lines")
    assert (await stored(service.api, "/panel/1#lines"))["metadata"] == {"data": '{"action":"x"}\n{"action":"y"}\n'}
    await service.api.assert_intact(1)


async def test_what_cannot_be_kept_is_told(service: Served) -> None:
    """Data that is neither JSON nor text, and JSON that is broken."""
    for data, media_type, status in ((b"\x89PNG\xff", "image/png", 415), (b"{broken", "application/json", 400)):
        message = to_binary(cloud_event("bad", data, datacontenttype=media_type), JSONFormat())
        response = await post(service.api, message)
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
    await service.api.assert_intact(0)
