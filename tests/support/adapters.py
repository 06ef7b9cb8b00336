"""The service with the adapters' routes, and the captured requests of real senders."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from audit_service.app import create_app
from audit_service.settings import Settings
from tests.support.api import Api
from tests.support.postgres import BOOTSTRAP_KEY

# Of the captured headers those that say how to read the body; the rest belongs to the captured connection.
_TELLING = {"content-type", "x-hook-signature", "x-webhook-event", "user-agent", "accept", "idempotency-key"}


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
            headers = {name: value for name, value in request["headers"] if name.lower() in _TELLING}
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
    await app.state.service.database.dispose()
