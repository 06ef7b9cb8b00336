"""The service with its doors for other people's protocols; the captured requests of real senders, and samples written after them."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from audit_service.app import create_app
from audit_service.settings import Settings
from tests.support.api import Api
from tests.support.apps import dump
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase

# Of the captured headers those that say how to read the body; the rest belongs to the captured connection.
_TELLING = {"content-type", "x-hook-signature", "x-webhook-event", "user-agent", "accept", "idempotency-key"}
CANARY = "hunter2-Canary-Value"
JSON = {"Content-Type": "application/json"}
NAMES = ("otlp", "elasticsearch", "splunk", "wings", "pelican", "netbox")


@dataclass(frozen=True, slots=True)
class Capture:
    """One request as a real client sent it, without its credential."""

    path: str
    headers: dict[str, str]
    body: bytes


def captures(file: Path, path: str) -> list[Capture]:
    """The captured requests to `path`, in order."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        request = json.loads(line)
        if request["path"] == path:
            headers = {name.lower(): value for name, value in request["headers"] if name.lower() in _TELLING}
            body = request["body"]
            raw = base64.b64decode(body) if request["body_kind"] == "base64" else body.encode()
            found.append(Capture(request["path"], headers, raw))
    assert found, f"no captured request to {path}"
    return found


@asynccontextmanager
async def open_adapters(settings: Settings, key: str = BOOTSTRAP_KEY) -> AsyncIterator[Api]:
    """The app, called in process."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://audit.test", headers=headers) as client:
        yield Api(client, app.state.service)
    await app.state.service.close()


@asynccontextmanager
async def open_doors(database: TestDatabase) -> AsyncIterator[Api]:
    """The app on a database that a module's tests share. Whatever they did to it, the log verifies in the end, and holds no secret."""
    async with open_adapters(Settings(database_url=database.serving_url)) as opened:
        yield opened
        report = await opened.verify()
        assert (report["status"], report["breaks"]) == ("ok", [])
    assert CANARY.encode() not in dump(database.owner_url)


@dataclass(frozen=True, slots=True)
class Sample:
    """A request with two events, or with one where the sender knows no more, and what may vary in it."""

    path: str
    body: bytes
    events: int
    action: str
    headers: dict[str, str]


def sample(name: str, mark: str = "") -> Sample:
    """A sample of an adapter; `mark` makes it another event."""
    at, ns = "2026-11-22T02:55:00.5Z", "1795316100500000000"
    row = {"name": "a" + mark, "password": CANARY}
    document = {
        "action": "server.updated",
        "timestamp": at,
        "old": {**row, "name": "b"},
        "new": row,
        "ip": "203.0.113.9",
    }
    line = {"message": f"login failed{mark} password={CANARY}", "timestamp": at, "severity": "notice", "host": "p1"}
    match name:
        case "otlp":
            attributes = [
                {"key": "db.password", "value": {"stringValue": CANARY}},
                {"key": "user.name", "value": {"stringValue": "Ana"}},
            ]
            plain = {
                "timeUnixNano": ns,
                "body": {"stringValue": "hello" + mark},
                "attributes": attributes,
                "eventName": "app.hello",
            }
            inner = {"observedTimeUnixNano": ns, "body": {"stringValue": json.dumps(document)}}
            body: Any = {"resourceLogs": [{"scopeLogs": [{"logRecords": [inner, plain]}]}]}
            return Sample("/v1/logs", json.dumps(body).encode(), 2, "server.updated", JSON)
        case "elasticsearch":
            lines = [{"index": {"_index": "audit"}}, document, {"create": {}}, line]
            return Sample(
                "/_bulk", "".join(json.dumps(one) + "\n" for one in lines).encode(), 2, "server.updated", JSON
            )
        case "splunk":
            texts = [
                {"event": document, "time": 1795316100.5, "host": "p1"},
                {"event": line["message"], "time": "1795316100.5"},
            ]
            return Sample(
                "/services/collector/event", "".join(map(json.dumps, texts)).encode(), 2, "server.updated", {}
            )
        case "wings":
            wings = {
                "user": "u-1",
                "server": "s-9" + mark,
                "event": "server:power.start",
                "metadata": {"password": CANARY},
                "ip": "",
                "timestamp": at,
            }
            body = {"data": [wings, {**wings, "user": None, "event": "server:console.command", "ip": "203.0.113.9"}]}
            return Sample("/api/remote/activity", json.dumps(body).encode(), 2, "server:power.start", JSON)
        case "pelican":
            body = {
                "event": "server:startup.edit", "description": "edited" + mark, "ip": "203.0.113.9", "timestamp": at,
                "actor": {"id": 7, "type": "user", "username": "ana"}, "subjects": [{"id": 9, "type": "server"}, {"id": 7, "type": "user"}],
                "properties": {"variable": "DB_PASSWORD", "old": CANARY, "new": CANARY + "2"},
            }  # fmt: skip
            return Sample("/adapters/pelican", json.dumps(body).encode(), 1, "server:startup.edit", JSON)
        case _:
            body = {
                "event": "updated", "timestamp": at, "object_type": "dcim.site", "data": {"id": 1, "display": "Paris" + mark},
                "request": {"id": "r-1", "user": "admin", "method": "PATCH", "path": "/api/dcim/sites/1/"},
                "snapshots": {"prechange": {"name": "b", "secret": CANARY}, "postchange": {"name": "a" + mark, "secret": CANARY + "2"}},
            }  # fmt: skip
            return Sample(
                "/adapters/netbox", json.dumps(body).encode(), 1, "dcim.site.updated", JSON | {"Idempotency-Key": "-1"}
            )


async def size_of(api: Api) -> int:
    """How many entries the log has."""
    return int((await api.client.get("/v1/chain")).json()["size"])


async def post(api: Api, path: str, body: Any, **headers: str) -> httpx.Response:
    """POST a body, as JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await api.client.post(
        path, content=content, headers=JSON | {k.replace("_", "-"): v for k, v in headers.items()}
    )


async def newest(api: Api, count: int = 1) -> list[dict[str, Any]]:
    """The last events of the log, in its order."""
    return (await api.list(sort="-seq", limit=count))[::-1]
