"""Canaries: made-up secrets, fresh for each run, in every place that may hold one, and the search for them afterwards.

A *plain* canary looks like nothing; only its name, or its place, says that it is secret. A *token* looks like a provider's, wherever it
stands. Whole secrets stand nowhere in this file: scanners would find them.
"""

import json
import secrets
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BASE62 = string.ascii_letters + string.digits
SECRET_NAMES = (
    "password", "db_password", "newPassword", "api_key", "apiKey", "x-api-key", "access_token", "token", "client_secret", "private_key",
    "authorization", "cookie", "dsn", "connection_string", "recovery_codes", "webhook_secret", "ssh_key", "passphrase", "otp", "pin", "cvv",
)  # fmt: skip


@dataclass
class Canaries:
    """Every canary made, by the place it was put in."""

    planted: dict[str, str] = field(default_factory=dict)

    def plain(self, place: str) -> str:
        """A word of letters: no pattern finds it."""
        return self._note(place, "canary" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(20)))

    def number(self, place: str) -> int:
        """An integer, which is no text to search for patterns."""
        return int(self._note(place, str(10**16 + secrets.randbelow(10**16))))

    def token(self, place: str) -> str:
        """A token in the format of a provider that is known everywhere."""
        return "gh" + "p_" + self._note(place, "".join(secrets.choice(BASE62) for _ in range(36)))

    def _note(self, place: str, core: str) -> str:
        assert place not in self.planted, place
        self.planted[place] = core
        return core

    def found_in(self, data: bytes) -> set[str]:
        """The places whose canaries stand in the data: as text in any case, or as the hexadecimal digits of a dumped byte string."""
        lowered = data.lower()
        return {
            place
            for place, core in self.planted.items()
            if core.lower().encode() in lowered or core.encode().hex().encode() in lowered
        }

    def found_under(self, folder: Path) -> dict[str, set[str]]:
        """The same for the bytes of every file below a folder, by file."""
        files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        found = {str(path.relative_to(folder)): self.found_in(path.read_bytes()) for path in files}
        return {name: places for name, places in found.items() if places}


def rows_with_names(canaries: Canaries, side: str) -> dict[str, Any]:
    """A row whose secrets show by their names alone: of every type, at several depths, in lists and in JSON text."""
    plain, number = canaries.plain, canaries.number
    row: dict[str, Any] = {name: plain(f"{side}/{name}") for name in SECRET_NAMES}
    return row | {
        "level": {"one": {"two": {"secret": plain(f"{side}/level/secret")}}},
        "list": [{"password": plain(f"{side}/list/0/password")}, 1, {"deep": [{"token": plain(f"{side}/list/2/token")}]}],
        "tokens": [plain(f"{side}/tokens/0"), plain(f"{side}/tokens/1")],
        "credentials": {"user": plain(f"{side}/credentials/user"), "any": [plain(f"{side}/credentials/any")]},
        "secret_number": number(f"{side}/secret_number"),
        "pin_codes": [number(f"{side}/pin_codes")],
        "env": [{"name": "DB_PASSWORD", "value": plain(f"{side}/env/value")}, {"name": "COLOUR", "value": "blue"}],
        "json": json.dumps({"settings": {"smtp_password": plain(f"{side}/json")}, "colour": "blue"}),
        "json_twice": json.dumps(json.dumps({"api_key": plain(f"{side}/json_twice")})),
        "dotenv": f"COLOUR=blue\nDB_PASSWORD={plain(f'{side}/dotenv')}\n",
        "url": f"postgres://panel:{plain(f'{side}/url')}@db.example.com/panel",
        "command": f"mysqldump --password={plain(f'{side}/command')} panel",
        "note": f"the old token was {canaries.token(f'{side}/note')}, now gone",
        canaries.token(f"{side}/key"): "a name that is itself a token",
    }  # fmt: skip


def accepted_events(canaries: Canaries) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """(event, headers) of events that the service must take, with a canary in each place it has to look into."""
    token, plain = canaries.token, canaries.plain
    common = {"action": "canary.updated", "actor": {"name": "Ana"}}
    rows = {
        side: rows_with_names(canaries, side) for side in ("before", "after", "created", "deleted", "metadata", "patch")
    }
    yield {**common, "id": "c:rows", "before": rows["before"], "after": rows["after"]}, {}
    yield {**common, "id": "c:created", "after": rows["created"]}, {}
    yield {**common, "id": "c:deleted", "before": rows["deleted"]}, {}
    yield {**common, "id": "c:metadata", "metadata": rows["metadata"]}, {}
    yield {**common, "id": "c:patch", "before": {"name": "x"}, "after": rows["patch"], "partial": "after"}, {}
    # An old row that holds what the new one hides, and a secret under a new name.
    yield (
        {
            **common,
            "id": "c:hidden",
            "before": {"a": 1, "password_hash": plain("hidden")},
            "after": {"a": 2},
            "partial": "after",
        },
        {},
    )
    yield (
        {
            **common,
            "id": "c:renamed",
            "before": {"password": plain("renamed/old")},
            "after": {"pwd": plain("renamed/new")},
        },
        {},
    )
    changes = [
        {"path": "/password", "old": plain("changes/old"), "new": plain("changes/new")},
        {"path": "/deep/list/0/api_key", "new": plain("changes/deep")},
        {"path": "/user/tokens/3", "old": canaries.number("changes/number")},
        {"path": "/settings", "old": {"smtp": {"password": plain("changes/inside")}}, "new": None},
        {"path": "/note", "old": "x", "new": f"see {token('changes/text')}"},
        {"path": f"/keys/{token('changes/path')}/name", "old": 1, "new": 2},
        {"path": f"/secret/{plain('changes/below')}", "old": 1, "new": 2},
    ]
    yield {**common, "id": "c:changes", "changes": changes}, {}
    yield _texts(canaries), {}
    yield common | {"reason": "header"}, {"Idempotency-Key": token("idempotency key")}
    yield common | {"reason": "quoted header"}, {"Idempotency-Key": f'"q:{token("quoted idempotency key")}"'}


def _texts(canaries: Canaries) -> dict[str, Any]:
    token, plain = canaries.token, canaries.plain
    return {
        "id": f"c:texts:{token('id')}",
        "action": "canary.texts",
        "actor": {"type": f"t {token('actor.type')}", "id": f"u {token('actor.id')}", "name": f"n {token('actor.name')}",
                  "email": f"{token('actor.email')}@example.com", "role": f"r {token('actor.role')}"},
        "on_behalf_of": {"id": f"u {token('on_behalf_of.id')}", "name": f"n {token('on_behalf_of.name')}"},
        "target": {"type": f"t {token('target.type')}", "id": f"x {token('target.id')}", "name": f"n {token('target.name')}"},
        "related": [{"id": "1"}, {"type": "key", "id": f"x {token('related.id')}", "name": f"n {token('related.name')}"}],
        "server_id": f"s {token('server_id')}",
        "reason": f"used {token('reason')} and https://ana:{plain('reason/url')}@example.com/",
        "description": f"Authorization: Bearer {plain('description/bearer')}{secrets.randbelow(10)}\npassword={plain('description/named')}",
        "context": {
            "user_agent": f"curl/8 ({token('user_agent')})",
            "session_id": plain("session_id"),
            "request_id": f"r {token('request_id')}",
            "traceparent": f"00-{token('traceparent')}",
        },
        "source": {"id": f"panel {token('source.id')}", "seq": 1},
    }  # fmt: skip


Request = tuple[str, str, Mapping[str, Any]]


def rejected_requests(canaries: Canaries) -> Iterator[Request]:
    """(method, path, httpx arguments) of requests that must be refused, with canaries in them that nobody may repeat."""
    token, plain = canaries.token, canaries.plain
    json_type = {"Content-Type": "application/json"}
    both: Callable[[str], str] = lambda place: f"{token(place + ' (token)')} {plain(place + ' (plain)')}"  # noqa: E731

    def raw(body: str, **headers: str) -> Request:
        return "POST", "/v1/events", {"content": body, "headers": json_type | headers}

    def event(members: Mapping[str, Any]) -> Request:
        return "POST", "/v1/events", {"json": {"action": "x"} | dict(members)}

    yield raw(f'{{"action":"x","reason":"{both("broken json")}"')
    yield raw(f'{{"action": {both("bare word")}}}')
    yield raw(f'{{"{both("duplicate key")}":1,"a":1,"a":2}}')
    yield raw(f'{{"action":"x","metadata":{{"{token("surrogate key")}":"\\ud800 {both("surrogate")}"}}}}')
    yield raw(f'{{"action":"x","metadata":{{"password":{{"{plain("nul key below a secret")}":"\\u0000"}}}}}}')
    yield raw(f'{{"action":"x","metadata":{{"password":"{plain("nul")}\\u0000"}}}}')
    yield raw(both("no json at all"))
    yield event({token("unknown member"): 1})
    yield event({"password": both("unknown secret member")})
    yield event({"x" * 50 + " " + token("long unknown member"): 1})
    yield event({"actor": {token("unknown actor member"): 1}})
    yield event({"verb": both("verb"), "outcome": both("outcome"), "partial": both("partial")})
    yield event({"action": both("action")})
    yield event({"occurred_at": both("occurred_at"), "context": {"ip": both("ip")}})
    yield event(
        {"actor": both("actor"), "before": both("row"), "related": both("related list"), "source": {"seq": both("seq")}}
    )
    yield event({"reason": (both("long reason") + " ") * 400})
    yield event({"id": (both("long id") + " ") * 10})
    yield event({"metadata": {"k": (both("long value") + " ") * 2000}})
    yield event({"changes": [{"path": both("change path"), "new": 1}, {"path": "/a", both("change member"): 1}]})
    yield event({"metadata": {"k": [2**70, both("beside a large number")]}})
    yield event(
        {"changes": [{"path": "/a", "new": both("changes and rows")}], "before": {"a": both("rows and changes")}}
    )
    yield (
        "POST",
        "/v1/events",
        {"json": {"events": [{"action": "x y", "reason": both("batch item")}, {"x": both("batch member")}]}},
    )
    yield "POST", "/v1/events", {"json": {"events": [], token("member of a batch"): 1}}
    yield (
        "POST",
        "/v1/events",
        {"content": both("media type"), "headers": {"Content-Type": f"text/{token('named media type')}"}},
    )
    yield "POST", "/v1/events", {"json": {"action": "x"}, "headers": {"Content-Encoding": token("encoding")}}
    yield "POST", "/v1/events", {"json": {"action": "x"}, "headers": {"Idempotency-Key": token("long key") * 8}}
    for name in (
        "nonsense",
        "actor.no",
        "ip",
        "since",
        "date_from",
        "tz",
        "verb",
        "sort",
        "limit",
        "count",
        "cursor",
        "format",
    ):
        yield "GET", "/v1/events", {"params": {name: both(f"query {name}")}}
    yield "GET", "/v1/events", {"params": {token("query name"): "1"}}
    yield "GET", f"/v1/events/{token('path id')}", {}
    yield "GET", f"/v1/{token('path')}", {}
    yield "GET", "/v1/chain/verify", {"params": {"from_seq": both("from_seq")}}
    yield "GET", "/v1/export", {"params": {"format": both("format")}}
    yield "DELETE", f"/v1/keys/{token('key id')}", {}
    yield (
        "POST",
        "/v1/keys",
        {"json": {"name": "x", "scopes": [both("scope")], token("member of a key"): both("key member")}},
    )
    yield "GET", "/v1/events", {"headers": {"Authorization": f"Bearer {token('credential')}"}}
    yield "GET", "/v1/events", {"headers": {"Authorization": f"Bearer aud_{plain('our credential')}"}}
    yield "GET", "/v1/events", {"headers": {"Authorization": f"Basic {token('basic credential')}"}}
    yield "POST", "/v1/events", {"json": {"action": "x"}, "headers": {"Authorization": both("bare credential")}}
    yield "PUT", f"/v1/events?{token('method query')}=1", {"content": both("method body")}


def quiet_queries(canaries: Canaries) -> Iterator[dict[str, str]]:
    """Queries that are answered and find nothing: what was asked for must not show anywhere else."""
    for name in ("actor", "action", "server_id", "target_id", "id", "session", "request_id", "role", "category"):
        yield {name: f"{canaries.plain(f'asked {name}')}"}
        yield {name + ".not": canaries.token(f"asked {name}.not"), "limit": "1", "id": "nothing"}
