"""Each adapter's own protocol: captured requests of the real sender, its mapping, its mistakes, and the words it is answered in."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.adapters import CANARY, JSON, captures, newest, open_doors, post, sample, size_of
from tests.support.api import Api
from tests.support.apps import open_api
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase


@pytest.fixture(scope="module")
async def doors(module_database: TestDatabase) -> AsyncIterator[Api]:
    """The app on the module's database."""
    async with open_doors(module_database) as opened:
        yield opened


# --- OpenTelemetry ---


async def test_captured_exporters(doors: Api, shared: Path) -> None:
    file = shared / "data" / "client-captures" / "captures.ndjson"
    for path, count in (("/otel-py/v1/logs", 1), ("/otelcol-proto/v1/logs", 3), ("/otelcol-json/v1/logs", 3)):
        before = await size_of(doors)
        (capture,) = captures(file, path)
        for _ in range(2):
            response = await doors.client.post("/v1/logs", content=capture.body, headers=capture.headers)
            empty = b"" if "protobuf" in capture.headers["content-type"] else b"{}"
            assert (response.status_code, response.content) == (200, empty)
        assert await size_of(doors) == before + count
        event = (await newest(doors))[0]
        assert event["action"] == "UPDATE"
        if count == 3:
            assert event["changes"] == [
                {"path": "/name", "op": "replace", "old": "a", "new": "b"},
                {"path": "/password", "op": "replace", "redacted": True},
            ]
            assert event["metadata"]["attributes"] == {"log.file.name": "in.log"}
        else:
            assert (event["actor"]["name"], event["description"]) == ("admin", "server updated")


async def test_a_log_record_by_the_semantic_conventions(doors: Api) -> None:
    attributes = {
        "enduser.id": "u1",
        "user.email": "ana@example.com",
        "client.address": "203.0.113.9",
        "session.id": "sess-1",
        "k": [1],
    }
    record = {
        "timeUnixNano": "1795316100500000001", "severityText": "WARN", "eventName": "login.failed", "body": {"stringValue": "no"},
        "traceId": "a" * 32, "spanId": "b" * 16, "flags": 1,
        "attributes": [
            *({"key": key, "value": {"stringValue": value}} for key, value in attributes.items() if isinstance(value, str)),
            {"key": "k", "value": {"arrayValue": {"values": [{"intValue": "1"}]}}},
        ],
    }  # fmt: skip
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "billing"}}]}
    body: dict[str, Any] = {
        "resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": {"name": "auth"}, "logRecords": [record]}]}]
    }
    assert (await post(doors, "/v1/logs", body)).json() == {}
    (event,) = await newest(doors)
    assert (event["action"], event["occurred_at"]) == ("login.failed", "2026-11-22T02:55:00.500000Z")
    assert (event["actor"]["id"], event["actor"]["email"], event["context"]["ip"]) == (
        "u1",
        "ana@example.com",
        "203.0.113.9",
    )
    assert event["context"]["traceparent"] == f"00-{'a' * 32}-{'b' * 16}-01"
    assert event["context"]["session_id"] not in {None, "sess-1"}
    assert event["source"] == {"id": "billing", "seq": None} or event["source"]["id"] == "billing"
    assert event["metadata"]["attributes"] == {"k": [1]}
    assert (event["metadata"]["severity"], event["metadata"]["scope"]) == ("WARN", "auth")


@pytest.mark.parametrize("media_type", ["application/json", "application/x-protobuf"])
async def test_a_partial_success_says_how_many_were_refused(doors: Api, media_type: str) -> None:
    good = {"timeUnixNano": "1795316100500000000", "body": {"stringValue": media_type}}
    bad = {"body": {"stringValue": json.dumps({"action": "x", "changes": [7]})}}
    text = bad["body"]["stringValue"].encode()
    protobuf = {
        "good": b"\x09" + bytes(range(1, 9)) + b"\x2a\x04\x0a\x02hi",
        "bad": b"\x2a" + bytes([2 + len(text)]) + b"\x0a" + bytes([len(text)]) + text,
    }

    def request(*kinds: str) -> bytes:
        if media_type == "application/json":
            chosen = [{"good": good, "bad": bad}[kind] for kind in kinds]
            return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": chosen}]}]}).encode()
        scope_logs = b"".join(b"\x12" + bytes([len(protobuf[kind])]) + protobuf[kind] for kind in kinds)
        resource_logs = b"\x12" + bytes([len(scope_logs)]) + scope_logs
        return b"\x0a" + bytes([len(resource_logs)]) + resource_logs

    headers = {"Content-Type": media_type}
    mixed = await doors.client.post("/v1/logs", content=request("good", "bad"), headers=headers)
    assert (mixed.status_code, mixed.headers["content-type"]) == (200, media_type)
    if media_type == "application/json":
        assert mixed.json()["partialSuccess"]["rejectedLogRecords"] == "1"
    else:
        assert mixed.content[2:4] == b"\x08\x01"
    assert b"1 of 2 records were refused" in mixed.content
    refused = await doors.client.post("/v1/logs", content=request("bad"), headers=headers)
    assert (refused.status_code, refused.headers["content-type"]) == (400, media_type)


async def test_another_media_type_is_refused_with_the_right_ones(doors: Api) -> None:
    response = await doors.client.post("/v1/logs", content=b"x", headers={"Content-Type": "text/csv"})
    assert response.status_code == 415
    assert "application/x-protobuf" in response.json()["message"]


# --- Elasticsearch ---


async def test_a_captured_bulk_request(doors: Api, shared: Path) -> None:
    (capture,) = captures(shared / "data" / "client-captures" / "captures.ndjson", "/_bulk")
    before = await size_of(doors)
    response = await doors.client.post("/_bulk", content=capture.body, headers=capture.headers)
    body = response.json()
    assert (response.status_code, body["errors"]) == (200, False)
    assert [item["index"]["status"] for item in body["items"]] == [201, 201, 201]
    # The same line three times, down to its time: one event.
    assert await size_of(doors) == before + 1
    (event,) = await newest(doors)
    assert event["context"]["ip"] == "203.0.113.9"
    assert [change["path"] for change in event["changes"]] == ["/name", "/password"]


async def test_a_mixed_bulk_request_answers_for_each_pair(doors: Api) -> None:
    lines = [
        b'{"index":{"_id":"bulk-1","_index":"a"}}', b'{"action":"one","timestamp":"2026-11-22T02:55:00Z"}',
        b'{"create":{"_id":"bulk-1"}}', b'{"action":"another"}',
        b'{"index":{}}', b"{broken", b'{"delete":{"_id":"bulk-1"}}', b'{"update":{"_id":"bulk-1"}}', b'{"doc":{}}',
        b'{"index":{}}', b"[]", b'{"index":{}}', b'{"event":{"action":"user.login"},"user":"ana"}', b'{"index":{}}',
    ]  # fmt: skip
    before = await size_of(doors)
    body = (await post(doors, "/_bulk", b"\n".join(lines))).json()
    assert body["errors"] is True
    answers = [next(iter(item.items())) for item in body["items"]]
    assert [(operation, item["status"]) for operation, item in answers] == [
        ("index", 201), ("create", 409), ("index", 400), ("delete", 400), ("update", 400), ("index", 400), ("index", 201), ("index", 400),
    ]  # fmt: skip
    assert (answers[0][1]["_id"], answers[0][1]["_index"]) == ("bulk-1", "a")
    assert answers[1][1]["error"]["type"] == "version_conflict_engine_exception"
    assert await size_of(doors) == before + 2
    assert (await newest(doors))[0]["action"] == "user.login"


async def test_a_syslog_line_becomes_a_message(doors: Api) -> None:
    line = {
        "@timestamp": "2026-11-22 02:55:00",
        "message": f"sshd: token=ghp_{'a1B2' * 9}",
        "host": "p1",
        "severity": "info",
    }
    await post(doors, "/_bulk", b'{"index":{}}\n' + json.dumps(line).encode())
    (event,) = await newest(doors)
    assert (event["action"], event["metadata"]["host"]) == ("syslog.message", "p1")
    assert "ghp_" not in event["description"]
    assert event["metadata"]["mapping_notes"] == ["@timestamp had no zone: taken for UTC"]


@pytest.mark.parametrize(
    "body", [b'{"action":"x"}\n{}', b'{"index":{},"create":{}}\n{}', b'{"upsert":{}}\n{}', b"x\n{}"]
)
async def test_an_action_line_that_is_none_refuses_the_request(doors: Api, body: bytes) -> None:
    response = await post(doors, "/_bulk", body)
    assert (response.status_code, response.json()["status"]) == (400, 400)
    assert response.json()["error"]["reason"]


# --- Splunk ---


async def test_a_captured_collector_request(doors: Api, shared: Path) -> None:
    (capture,) = captures(shared / "data" / "client-captures" / "captures.ndjson", "/services/collector/event")
    headers = {**capture.headers, "Authorization": f"Splunk {BOOTSTRAP_KEY}"}
    response = await doors.client.post("/services/collector/event", content=capture.body, headers=headers)
    assert (response.status_code, response.json()) == (200, {"text": "Success", "code": 0})
    (event,) = await newest(doors)
    assert (event["action"], event["actor"]["name"], event["occurred_at"]) == (
        "UPDATE",
        "admin",
        "2026-11-22T02:56:19.223322Z",
    )
    assert event["metadata"] == {"host": "p1", "log_level": "INFO", "source": "panel"}


@pytest.mark.parametrize("between", ["", "\n", " \r\n\t"])
async def test_events_stand_one_after_the_other(doors: Api, between: str) -> None:
    texts = [{"event": {"action": "a.b", "text": '"}{[\\'}, "time": 1}, {"event": f"x{between!r}", "time": 1795316100}]
    before = await size_of(doors)
    body = between.join(map(json.dumps, [*texts, texts])).encode()
    assert (await post(doors, "/services/collector/event/1.0", body)).json()["code"] == 0
    assert await size_of(doors) - before in {1, 2}
    (event,) = await newest(doors)
    assert event["description"] == f"x{between!r}" or event["action"] == "a.b"


@pytest.mark.parametrize(
    ("body", "code", "number"),
    [
        (b'{"event":"ok","time":1795316100}{"time":1}', 12, 1), (b'{"event":" "}', 13, 0), (b'{"event":"ok"', 6, 0), (b"7", 6, 0),
        (b'{"event":"ok","time":1795316100}}', 6, 1), (b'{"event":{"action":"x","changes":[7]}}', 6, 0), (b"   ", 5, None),
    ],
)  # fmt: skip
async def test_the_collectors_codes(doors: Api, body: bytes, code: int, number: int | None) -> None:
    response = await post(doors, "/services/collector/event", body)
    assert response.status_code == 400
    assert (response.json()["code"], response.json().get("invalid-event-number")) == (code, number)
    refused = await post(
        doors, "/services/collector/event", body, Authorization="Splunk 00000000-0000-0000-0000-000000000000"
    )
    assert (refused.status_code, refused.json()["code"]) == (401, 4)


async def test_the_collector_is_healthy(doors: Api) -> None:
    response = await doors.client.get("/services/collector/health", headers={"Authorization": ""})
    assert (response.status_code, response.json()) == (200, {"text": "HEC is healthy", "code": 17})


# --- Wings ---


async def test_wings_rows(doors: Api) -> None:
    sent = sample("wings", " rows")
    assert (await post(doors, sent.path, sent.body)).json() == {"accepted": 2, "rejected": 0, "errors": []}
    started, command = await newest(doors, 2)
    assert (started["actor"]["type"], started["actor"]["id"], started["context"]) == ("user", "u-1", None)
    assert (started["server_id"], started["target"]["type"], started["target"]["id"]) == (
        "s-9 rows",
        "server",
        "s-9 rows",
    )
    assert (started["verb"], started["metadata"]) == ("EXECUTE", {"password": "[redacted]"})
    assert (command["actor"]["type"], command["actor"]["id"], command["context"]["ip"]) == (
        "system",
        None,
        "203.0.113.9",
    )


@pytest.mark.parametrize(("rows", "status"), [([], 200), ([7], 422), ([7, None], 422)])
async def test_rows_that_are_none_are_refused(doors: Api, rows: list[Any], status: int) -> None:
    assert (await post(doors, "/api/remote/activity", {"data": rows})).status_code == status


async def test_every_event_of_pterodactyl_has_an_action_of_its_own(doors: Api, shared: Path) -> None:
    names = [
        line.split("\t")[0] for line in (shared / "data" / "pterodactyl" / "event-names.txt").read_text().splitlines()
    ]
    rows = [
        {"event": name, "timestamp": "2026-11-22T02:55:00Z", "metadata": None, "user": None, "ip": ""} for name in names
    ]
    assert (await post(doors, "/api/remote/activity", {"data": rows})).json()["accepted"] == len(names) == 80
    assert [event["action"] for event in await newest(doors, 80)] == names


# --- Pelican ---


async def test_pelicans_activity(doors: Api) -> None:
    sent = sample("pelican", " p")
    assert (await post(doors, sent.path, sent.body)).status_code == 200
    (event,) = await newest(doors)
    assert event["changes"] == [{"path": "/startup/DB_PASSWORD", "op": "replace", "redacted": True}]
    assert (event["actor"]["id"], event["actor"]["name"], event["server_id"]) == ("7", "ana", "9")
    assert (event["target"]["id"], [item["type"] for item in event["related"]]) == ("9", ["user"])
    assert "old" not in event["metadata"]


@pytest.mark.parametrize(
    ("name", "properties", "path"),
    [
        ("server:settings.rename", {"old": "a", "new": "b"}, "/name"),
        ("user:account.email-changed", {"old": "a", "new": "b"}, "/email"),
        (
            "server:allocation.notes",
            {"allocation": "1.2.3.4:5/6", "old": None, "new": "b"},
            "/allocations/1.2.3.4:5~16/notes",
        ),
        ("server:something.else", {"old": 1, "new": 2}, "/else"),
        ("server:startup.edit", {"old": "a", "new": "b"}, None),
        ("server:file.rename_other", {"files": [1, 2]}, None),
    ],
)
async def test_one_field_of_pelicans_is_a_change(
    doors: Api, name: str, properties: dict[str, Any], path: str | None
) -> None:
    body: dict[str, Any] = {
        "event": name,
        "properties": properties,
        "timestamp": "2026-11-22T02:55:00Z",
        "actor": None,
        "subjects": [],
    }
    assert (await post(doors, "/adapters/pelican", body)).status_code == 200
    (event,) = await newest(doors)
    assert [change["path"] for change in event["changes"]] == ([] if path is None else [path])
    assert (event["actor"]["type"], event["action"]) == ("system", name.removesuffix("_other"))


async def test_a_models_event_of_pelican(doors: Api) -> None:
    row = {"id": 3, "name": "srv", "daemon_token": CANARY, "created_at": "2026-11-22T02:55:00.000000Z"}
    await post(doors, "/adapters/pelican", row, X_Webhook_Event="eloquent.created: App\\Models\\DatabaseHost")
    (event,) = await newest(doors)
    assert (event["action"], event["target"]["id"], event["target"]["name"]) == ("database_host.created", "3", "srv")
    assert {change["path"] for change in event["changes"]} >= {"/id", "/name", "/daemon_token"}
    await post(doors, "/adapters/pelican", {**row, "event": "updated: Server"})
    (event,) = await newest(doors)
    assert (event["action"], event["changes"], event["metadata"]["row"]["name"]) == ("server.updated", [], "srv")


# --- NetBox ---


async def test_captured_netbox_webhooks(doors: Api, shared: Path) -> None:
    requests = captures(shared / "data" / "netbox-webhooks" / "requests.ndjson", "/netbox")
    before = await size_of(doors)
    for _ in range(2):
        for request in requests:
            response = await doors.client.post("/adapters/netbox", content=request.body, headers=request.headers)
            assert response.status_code == 200, response.text
    # One of the 20 changed nothing; all of them carry `Idempotency-Key: -1`.
    assert await size_of(doors) == before + 19
    events = await newest(doors, 19)
    assert events[0]["action"] == "tenancy.tenant.created"
    assert (events[0]["actor"]["name"], events[0]["target"]["name"]) == ("admin", "Acme Héberge")
    assert {event["verb"] for event in events} == {"CREATE", "UPDATE", "DELETE"}
    assert all(event["changes"] and event["context"]["request_id"] for event in events)


@pytest.mark.parametrize("given", [None, "", "00", "right", "RIGHT"])
async def test_netboxs_signature_is_checked_when_a_secret_is_set(
    module_database: TestDatabase, given: str | None
) -> None:
    sent = sample("netbox", f" signed {given}")
    right = hmac.new(b"s3cret", sent.body, hashlib.sha512).hexdigest()
    values = {"right": right, "RIGHT": right.upper()}
    headers = {} if given is None else {"X-Hook-Signature": values.get(given, given)}
    async with open_api(module_database, netbox_secret=SecretStr("s3cret")) as api:
        response = await api.client.post(sent.path, content=sent.body, headers=JSON | headers)
    assert response.status_code == (200 if given in values else 401)


async def test_netboxs_captured_signatures_fit(database: TestDatabase, shared: Path) -> None:
    requests = captures(shared / "data" / "netbox-webhooks" / "requests.ndjson", "/netbox")
    async with open_api(database, netbox_secret=SecretStr("s3cret")) as api:
        for request in requests:
            response = await api.client.post("/adapters/netbox", content=request.body, headers=request.headers)
            assert response.status_code == 200
            forged = request.body.replace(b"admin", b"nobody")
            assert (
                await api.client.post("/adapters/netbox", content=forged, headers=request.headers)
            ).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {"event": "updated"},
        {"object_type": "dcim.site"},
        {"event": 1, "object_type": "dcim.site"},
        {"text": "a body template"},
    ],
)
async def test_a_netbox_webhook_with_a_body_of_its_own_is_refused(doors: Api, body: Any) -> None:
    response = await post(doors, "/adapters/netbox", body)
    assert (response.status_code, response.json()["rejected"]) == (422, 1)


async def test_an_older_netbox_and_one_without_snapshots(doors: Api) -> None:
    body: dict[str, Any] = {
        "event": "created",
        "model": "site",
        "username": "admin",
        "request_id": "r-9",
        "timestamp": "2026-11-22 02:55:00",
        "data": {"id": 1, "name": "x"},
    }
    assert (await post(doors, "/adapters/netbox", body)).status_code == 200
    (event,) = await newest(doors)
    assert (event["action"], event["actor"]["name"], event["context"]["request_id"]) == ("site.created", "admin", "r-9")
    assert (event["changes"], event["metadata"]["data"]) == ([], {"id": 1, "name": "x"})
