"""Readers that see a part of a log, and events in which every field that can be hidden holds a value that occurs nowhere else."""

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import httpx

from audit_service.core.api_key import key_hash
from audit_service.core.sight import Sight
from tests.support.api import Api
from tests.support.postgres import BOOTSTRAP_KEY

Event = dict[str, Any]
READING = ("read", "export", "verify")


@dataclass(frozen=True, slots=True)
class Reader:
    """Who asks an app with a credential of their own."""

    api: Api
    key: str

    async def get(self, path: str, **parameters: Any) -> httpx.Response:
        """GET a path, with parameters beside those it has."""
        headers = {"Authorization": f"Bearer {self.key}"}
        url = httpx.URL(path).copy_merge_params(parameters) if parameters else path
        return await self.api.client.get(url, headers=headers)

    async def json(self, path: str, **parameters: Any) -> Any:
        """The body of a good answer."""
        response = await self.get(path, **parameters)
        assert response.status_code == 200, (path, response.text)
        return response.json()


async def add_reader(api: Api, sight: Sight, scopes: Sequence[str] = READING) -> Reader:
    """A credential of the tenant `default` that sees this much, as the app holds one that it has just looked up."""
    own = await api.service.credential(BOOTSTRAP_KEY)
    assert own is not None
    key = secrets.token_hex(20)
    credential = replace(own, key_id=f"reader-{key[:6]}", scopes=frozenset(scopes), sight=sight)
    api.service._credentials[key_hash(key)] = (math.inf, credential)  # any sight, also one that no key has
    return Reader(api, key)


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TARGET = {"type": "server", "id": "77", "name": "web"}
STAFF_SESSION = "session-of-zelda"


def _event(name: str, seconds: int, actor: Event, context: Event, behalf: Event | None = None, **more: Any) -> Event:
    return {
        "id": name, "occurred_at": (NOON - timedelta(seconds=600 - seconds)).isoformat(), "action": "server.updated",
        "server_id": "s1", "target": TARGET, "actor": actor, "context": context, "on_behalf_of": behalf,
        "changes": [{"path": "/ram", "op": "replace", "old": seconds, "new": seconds + 1}], **more,
    }  # fmt: skip


def canary_events() -> list[Event]:
    """Events of one server and one target: by a user, by one who is known by an e-mail alone, by two members of staff within a minute, and
    by a user for one of staff."""
    return [
        _event(
            "by-user", 1,
            {"type": "user", "id": "u1", "name": "Ana", "email": "ana@mail-canary.test", "role": "owner"},
            {"ip": "203.0.113.71", "user_agent": "Firefox"},
            {"type": "client", "id": "c2", "name": "Bo", "email": "bo@mail-canary.test"},
        ),
        _event(
            "by-mail", 100,
            {"type": "user", "id": "cleo@mail-canary.test", "name": "Cleo <cleo-2@mail-canary.test>"},
            {"ip": "2001:db8:71::5"},
        ),
        _event(
            "by-staff", 200,
            {"type": "admin", "id": "zelda-id", "name": "Zelda Quux", "email": "zelda@staff-canary.test", "role": "zelda-role"},
            {
                "ip": "198.51.100.71", "user_agent": "ZeldaAgent/9", "session_id": STAFF_SESSION, "request_id": "zelda-request",
                "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            },
            {"type": "user", "id": "zelda-for-id", "name": "Yorick Quux", "email": "yorick@staff-canary.test"},
            action="server.suspended",
        ),
        _event(
            "by-other-staff", 210,
            {"type": "admin", "id": "xaver-id", "name": "Xaver Quux", "role": "xaver-role"},
            {"ip": "198.51.100.72"},
            action="server.suspended",
        ),
        _event(
            "for-staff", 300, {"type": "user", "id": "u1", "name": "Ana"}, {},
            {"type": "admin", "id": "wanda-id", "name": "Wanda Quux", "email": "wanda@staff-canary.test"},
        ),
    ]  # fmt: skip


# Rule → who is shown less by it, and what they must not find anywhere.
RULES: Mapping[str, Sight] = {
    "ips": Sight(ips=False),
    "emails": Sight(emails=False),
    "staff": Sight(staff_as="Support"),
    "all of them": Sight(ips=False, emails=False, staff_as="Support"),
}
_ADDRESSES = ("203.0.113.71", "2001:db8:71::5", "198.51.100.71", "198.51.100.72")
_EMAILS = ("mail-canary", "staff-canary")
_STAFF = (
    "zelda", "xaver", "wanda", "quux", "staff-canary", "198.51.100.71", "198.51.100.72", "4bf92f3577b34da6a3ce929d0e0e4736",
)  # fmt: skip
CANARIES: Mapping[str, Sequence[str]] = {
    "ips": _ADDRESSES,
    "emails": _EMAILS,
    "staff": _STAFF,
    "all of them": tuple(dict.fromkeys((*_ADDRESSES, *_EMAILS, *_STAFF))),
}


def canaries_in(response: httpx.Response, canaries: Sequence[str]) -> list[str]:
    """Which of them an answer has, in its body or a header, percent-encoded or not."""
    text = "\n".join((response.text, *response.headers.values())).lower()
    return [canary for canary in canaries if canary in text or canary in unquote(text)]
