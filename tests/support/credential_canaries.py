"""Canaries for the ways of credentials: keys, tokens and secret files that are real, and whatever somebody may send in their place.

Of a real key only a piece of its secret is searched for, so that half a key in a log line would be found as well. Its public id may be
shown.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from audit_service.core.api_key import ID_CHARACTERS, PREFIX_CHARACTERS, format_key
from tests.support.canaries import Canaries, Request
from tests.support.commands import command

_SECRET = slice(PREFIX_CHARACTERS + ID_CHARACTERS, PREFIX_CHARACTERS + ID_CHARACTERS + 16)


def plant_key(canaries: Canaries, place: str, key: str) -> str:
    """Search for this key or token too. The key."""
    assert place not in canaries.planted, place
    canaries.planted[place] = key[_SECRET]
    return key


def secret_files(canaries: Canaries, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(settings that name a file for a secret each, the secrets by setting)."""
    names = ("AUDIT_BOOTSTRAP_KEY", "AUDIT_METRICS_KEY", "AUDIT_NETBOX_SECRET")
    made = {name: f"{canaries.plain(name)}{canaries.plain(f'{name}, the rest')}" for name in names}
    settings: dict[str, Any] = {}
    for name, secret in made.items():
        path = folder / name.lower()
        path.touch(0o600)
        path.write_text(f"{secret}\n")
        settings |= {f"{name}_FILE": str(path), name: ""}
    return settings, made


def refused_logins(canaries: Canaries) -> Iterator[Request]:
    """Requests with no good credential: made up, mistyped, cut, of other kinds, and in places where credentials do not belong."""

    def planted(place: str, kind: Any = "api_key", shape: Callable[[str], str] = str) -> str:
        return shape(plant_key(canaries, place, format_key(os.urandom(48), kind)))

    for kind in ("api_key", "viewer_token"):
        bearers = {
            "made up": planted(f"{kind} made up", kind),
            "mistyped": planted(f"{kind} mistyped", kind, lambda key: key[:-1] + ("a" if key[-1] != "a" else "b")),
            "cut": planted(f"{kind} cut", kind, lambda key: key[:50]),
            "long": planted(f"{kind} long", kind, lambda key: key * 9),
        }
        for bearer in bearers.values():
            for method, path in (
                ("GET", "/v1/events"),
                ("POST", "/v1/events"),
                ("GET", "/v1/keys"),
                ("GET", "/metrics"),
            ):
                yield method, path, {"headers": {"Authorization": f"Bearer {bearer}"}}
        for scheme in ("Basic", "Token", "bearer:", ""):
            value = f"{scheme} {planted(f'{kind} as {scheme!r}', kind)}".strip()
            yield "GET", "/v1/events", {"headers": {"Authorization": value}}
        for name in ("token", "access_token", "api_key", "key"):
            value = planted(f"{kind} in ?{name}=", kind)
            yield "GET", "/v1/events", {"params": {name: value}}
            yield "GET", f"/v1/export?format=csv&{name}={value}", {}
        yield "GET", f"/v1/events/{planted(f'{kind} in a path', kind)}", {}
        yield "GET", "/v1/events", {"headers": {"Cookie": f"session={planted(f'{kind} in a cookie', kind)}"}}
        yield "GET", "/v1/events", {"headers": {"X-Api-Key": planted(f"{kind} in X-Api-Key", kind)}}
        yield (
            "GET",
            "/v1/events",
            {"headers": {"Referer": f"https://a.test/?t={planted(f'{kind} in a referer', kind)}"}},
        )
    yield (
        "GET",
        "/v1/events",
        {
            "headers": {
                "Authorization": f"Bearer eyJ{canaries.plain('head')}.{canaries.plain('claims')}.{canaries.plain('signature')}"
            }
        },
    )


def forwarded(canaries: Canaries) -> Iterator[dict[str, str]]:
    """Headers that a proxy writes, with what is no address in them."""
    for place in ("alone", "first", "last"):
        word = canaries.plain(f"X-Forwarded-For {place}")
        yield {"X-Forwarded-For": {"alone": word, "first": f"{word}, 192.0.2.1", "last": f"192.0.2.1, {word}"}[place]}
    yield {"Forwarded": f"for={canaries.plain('Forwarded')};by={canaries.token('Forwarded by')}"}
    yield {"X-Real-IP": canaries.plain("X-Real-IP"), "X-Forwarded-Host": canaries.token("X-Forwarded-Host")}


@dataclass(slots=True)
class Holder:
    """Who makes credentials over HTTP and at the command line, and keeps all answers without what each shows once."""

    canaries: Canaries
    client: httpx.Client
    data_dir: Path
    settings: dict[str, str]
    answers: dict[str, bytes] = field(default_factory=dict)

    def ask(
        self,
        what: str,
        method: str,
        path: str,
        *statuses: int,
        key: str | None = None,
        anonymous: bool = False,
        **rest: Any,
    ) -> httpx.Response:
        """A request by a key (default: the client's; `anonymous`: with its own headers alone), which must be answered with one of the
        statuses; its whole answer is kept."""
        headers = rest.pop("headers", {}) | ({} if key is None else {"Authorization": f"Bearer {key}"})
        request = self.client.build_request(method, path, headers=headers, **rest)
        if anonymous and "Authorization" not in headers:
            del request.headers["Authorization"]
        response = self.client.send(request)
        assert response.status_code in statuses, (what, response.status_code, response.text)
        self._keep(what, b"\n".join([response.content, *(b"%s: %s" % pair for pair in response.headers.raw)]))
        return response

    def make(self, what: str, path: str, name: str, body: dict[str, Any], *, key: str | None = None) -> dict[str, Any]:
        """A credential over HTTP, shown in a member of this name."""
        response = self.ask(what, "POST", path, 201, key=key, json=body)
        made: dict[str, Any] = response.json()
        shown = made["key"] if isinstance(made.get("key"), dict) else made
        self._shown_once(what, shown[name])
        return made

    def run(self, what: str, *arguments: str, shows: str | None = None, piped: str | None = None) -> str:
        """A command, with something piped in; with `shows`, the member of its JSON that it shows once. What it wrote to stdout."""
        done = command(self.data_dir, *arguments, piped=piped, **self.settings)
        assert done.returncode in (0, 1), (what, done.stderr)
        self._keep(what, (done.stdout + done.stderr).encode())
        if shows is not None:
            self._shown_once(what, orjson.loads(done.stdout)[shows])
        return done.stdout

    def _keep(self, what: str, answer: bytes) -> None:
        assert what not in self.answers, what
        self.answers[what] = answer

    def _shown_once(self, what: str, key: str) -> None:
        plant_key(self.canaries, what, key)
        answer = self.answers[what]
        assert answer.count(key.encode()) == 1
        self.answers[what] = answer.replace(key.encode(), b"")
