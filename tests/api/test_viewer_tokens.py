"""Viewer tokens over HTTP: issued by a backend, used by a browser, renewed, ended, and never wider than the key that issued them."""

import asyncio
import json
import logging
import secrets
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from audit_service.api import schemas
from audit_service.core.api_key import is_well_formed, kind_of, public_id
from audit_service.store import veil
from tests.support.api import Api
from tests.support.apps import add_key, add_tenant, dump, open_api
from tests.support.credentials import ask, create_key, issue_token, places
from tests.support.postgres import TestDatabase

CANARY = "canary-5e6b4172"
SECRET = "ghp_" + "a1B2" * 9
LIMITS: dict[str, Any] = {
    "server_ids": None, "global_events": True, "categories": None, "actor_id": None, "actor_type": None,
    "audit_entries": False, "ips": False,
    "emails": False, "staff_as": "Staff", "staff_types": ["admin", "administrator", "employee", "staff", "support"],
    "source_id": None, "networks": None,
}  # fmt: skip


def ends_in(answer: dict[str, Any]) -> float:
    """Seconds from now until a token ends."""
    return (datetime.fromisoformat(answer["expires_at"]) - datetime.now(UTC)).total_seconds()


@pytest.fixture(scope="module")
async def backend(shared_api: Api) -> str:
    """The key of a panel's backend."""
    return str((await create_key(shared_api, ["viewer", "read"]))["key"])


@pytest.fixture(scope="module")
async def seen(shared_api: Api) -> Api:
    """The app with events of two servers, and one of none."""
    person = {"type": "admin", "id": "u1", "name": "Ana Gómez", "email": "ana@example.com"}
    await shared_api.accept(
        {"id": "v:1", "action": "view.x", "server_id": "v1", "actor": person, "context": {"ip": "192.0.2.77"}},
        {
            "id": "v:2",
            "action": "view.x",
            "server_id": "v2",
            "actor": {"type": "user", "id": "u2", "email": "u2@example.com"},
        },
        {"id": "v:global", "action": "role.x", "actor": person},
    )
    return shared_api


async def seen_by(api: Api, token: str, query: str = "") -> list[str]:
    """The ids of this module's events that a token shows, sorted."""
    response = await ask(api, "GET", f"/v1/events?limit=500{query}", token)
    assert response.status_code == 200, response.text
    return sorted(event["id"] for event in response.json()["events"] if event["id"].startswith("v:"))


# --- issued ---


async def test_a_token_is_short_narrow_and_whole(shared_api: Api, backend: str) -> None:
    """What it is when nothing is said: five minutes, no addresses, no e-mails, no names of staff, nothing but reading."""
    issued = await issue_token(shared_api, backend)
    assert (kind_of(issued["token"]), is_well_formed(issued["token"])) == ("viewer_token", True)
    assert (issued["token_id"], issued["key_id"]) == (public_id(issued["token"]), public_id(backend))
    assert (issued["scopes"], issued["limits"], issued["viewer"]) == (["read"], LIMITS, None)
    assert 290 < ends_in(issued) <= 300


async def test_every_member_reaches_the_token(shared_api: Api) -> None:
    """And is answered as it was granted."""
    key = (await create_key(shared_api, ["viewer", "read", "export"]))["key"]
    issued = await issue_token(
        shared_api, key, server_ids=["v2", "v1"], global_events=False, categories=["view"], own_actions_of="u1", ips=True,
        emails=True, staff_as="Support", staff_types=["admin"], export=True, expires_in_seconds=30, viewer="u1@panel",
    )  # fmt: skip
    assert issued["limits"] == {
        **LIMITS, "server_ids": ["v1", "v2"], "global_events": False, "categories": ["view"], "actor_id": "u1", "ips": True,
        "emails": True, "staff_as": "Support", "staff_types": ["admin"],
    }  # fmt: skip
    assert issued["scopes"] == ["read", "export"]
    assert 20 < ends_in(issued) <= 30
    assert "u1@panel" not in json.dumps(issued)
    again = await issue_token(shared_api, key, viewer="u1@panel")
    assert again["viewer"] == issued["viewer"] != (await issue_token(shared_api, key, viewer="u2@panel"))["viewer"]


async def test_a_token_shows_what_it_was_issued_for(seen: Api, backend: str) -> None:
    """Rows and fields, end to end; what each hides is tested with the masks."""
    every = (await issue_token(seen, backend, ips=True, emails=True, staff_as=None))["token"]
    assert await seen_by(seen, every) == ["v:1", "v:2", "v:global"]
    assert await seen_by(seen, (await issue_token(seen, backend, server_ids=["v1"]))["token"]) == ["v:1", "v:global"]
    none = await issue_token(seen, backend, server_ids=[], global_events=True)
    assert await seen_by(seen, none["token"]) == ["v:global"]
    narrow = (await issue_token(seen, backend, server_ids=["v1"], global_events=False))["token"]
    assert await seen_by(seen, narrow) == ["v:1"]
    own = (await issue_token(seen, backend, own_actions_of="u2"))["token"]
    assert await seen_by(seen, own) == ["v:2"]
    event = (await ask(seen, "GET", "/v1/events/v:1", narrow)).text
    assert "Staff" in event
    for hidden in ("Ana", "ana@example.com", "192.0.2.77"):
        assert hidden not in event
        assert hidden in (await ask(seen, "GET", "/v1/events/v:1", every)).text


@pytest.mark.parametrize(
    "path", ["/v1/export", "/v1/chain", "/v1/keys", "/v1/viewer-tokens", "/v1/tenants", "/v1/evidence"]
)
async def test_a_token_only_reads(shared_api: Api, path: str) -> None:
    """Whatever the key may: a token has `read`, and `export` where it was asked for."""
    token = (await issue_token(shared_api))["token"]
    assert (await ask(shared_api, "GET", path, token)).status_code == 403
    assert (await ask(shared_api, "POST", "/v1/events", token, {"action": "x"})).status_code == 403
    issued = await ask(shared_api, "POST", "/v1/viewer-tokens", token, {"server_ids": "all"})
    assert issued.status_code == 403


async def test_a_token_exports_where_it_was_asked_for(seen: Api) -> None:
    """And then only what it shows."""
    token = (await issue_token(seen, None, server_ids=["v2"], global_events=False, export=True))["token"]
    lines = [json.loads(line) for line in (await ask(seen, "GET", "/v1/export?format=ndjson", token)).text.splitlines()]
    assert [line["id"] for line in lines if "id" in line] == ["v:2"]


# --- never more than the key ---

OWN = {
    "server_ids": ["v1", "v2"], "global_events": False, "categories": ["view"], "ips": False, "emails": False,
    "staff_as": "Support", "staff_types": ["admin"],
}  # fmt: skip
BEYOND: list[tuple[dict[str, Any], str]] = [
    ({"server_ids": ["v1", "v3"]}, "/server_ids"), ({"global_events": True}, "/global_events"), ({"categories": ["role"]}, "/categories"),
    ({"categories": None}, "/categories"), ({"ips": True}, "/ips"), ({"emails": True}, "/emails"), ({"staff_as": None}, "/staff_as"),
    ({"staff_types": ["user"]}, "/staff_types"), ({"audit_entries": True}, "/audit_entries"),
]  # fmt: skip


@pytest.fixture(scope="module")
async def narrow_backend(shared_api: Api) -> str:
    """A backend's key that is limited in everything."""
    return str((await create_key(shared_api, ["viewer", "read"], **OWN))["key"])


@pytest.mark.parametrize(("members", "pointer"), BEYOND)
async def test_a_token_never_shows_more_than_its_key(
    shared_api: Api, narrow_backend: str, members: dict[str, Any], pointer: str
) -> None:
    """403 with the place."""
    response = await ask(shared_api, "POST", "/v1/viewer-tokens", narrow_backend, {"server_ids": "all", **members})
    assert (response.status_code, places(response)) == (403, [pointer])
    assert (
        await ask(shared_api, "POST", "/v1/viewer-tokens", None, {"server_ids": "all", **members})
    ).status_code == 201


async def test_all_servers_are_all_that_the_key_sees(seen: Api, narrow_backend: str) -> None:
    """`all`, and whatever is not said, are the key's own."""
    issued = await issue_token(seen, narrow_backend)
    assert issued["limits"] == {**LIMITS, **OWN}
    assert await seen_by(seen, issued["token"]) == ["v:1", "v:2"]


@pytest.mark.parametrize(("scopes", "body"), [(["viewer"], {}), (["viewer", "read"], {"export": True})])
async def test_nobody_hands_on_a_scope_they_lack(shared_api: Api, scopes: list[str], body: dict[str, Any]) -> None:
    """`viewer` alone issues nothing."""
    key = (await create_key(shared_api, scopes))["key"]
    response = await ask(shared_api, "POST", "/v1/viewer-tokens", key, {"server_ids": "all", **body})
    assert response.status_code == 403


# --- bad input ---

BAD: list[tuple[Any, str]] = [
    ({}, "/server_ids"), ({"server_ids": None}, "/server_ids"), ({"server_ids": CANARY}, "/server_ids"),
    ({"server_ids": "ALL"}, "/server_ids"),
    ({"server_ids": [5]}, "/server_ids/0"), ({"server_ids": [""]}, "/server_ids/0"), ({"server_ids": ["v"] * 1001}, "/server_ids"),
    ({"server_ids": ["a\0b"]}, "/server_ids/0"), ({"server_ids": {"a": CANARY}}, "/server_ids"), ([], ""), ("all", ""), (5, ""),
]  # fmt: skip
BAD += [
    ({"server_ids": "all", name: value}, place or f"/{name}")
    for name, value, place in [
        ("expires_in_seconds", 29, ""), ("expires_in_seconds", 3601, ""), ("expires_in_seconds", "300", ""),
        ("expires_in_seconds", 300.5, ""), ("expires_in_seconds", True, ""), ("expires_in_seconds", None, ""), ("ips", "true", ""),
        ("emails", 1, ""), ("export", "yes", ""), ("global_events", None, ""), ("categories", [], ""), ("categories", [SECRET], ""),
        ("own_actions_of", "", ""), ("own_actions_of", {"type": "x", "id": SECRET}, ""),
        ("own_actions_of", {"id": "7"}, ""), ("own_actions_of", {"type": "x", "id": "7", "name": "y"}, "/own_actions_of/name"),
        ("own_actions_of", SECRET, ""), ("staff_as", "", ""), ("staff_as", SECRET, ""), ("staff_as", 5, ""),
        ("staff_types", [], ""), ("staff_types", [""], "/staff_types/0"), ("viewer", "", ""), ("viewer", 5, ""), ("viewer", "x" * 1025, ""),
        ("audit_entries", "x", ""), ("scopes", ["admin"], ""), ("networks", ["0.0.0.0/0"], ""), ("tenant", "other", ""),
    ]
]  # fmt: skip


@pytest.mark.parametrize(("body", "pointer"), BAD)
async def test_a_bad_token_is_refused_with_its_place(shared_api: Api, backend: str, body: Any, pointer: str) -> None:
    """422, the place, and never the value."""
    response = await ask(shared_api, "POST", "/v1/viewer-tokens", backend, body)
    assert (response.status_code, places(response)) == (422, [pointer])
    assert CANARY not in response.text
    assert SECRET not in response.text


@pytest.mark.parametrize(
    ("content", "status"), [(b"", 400), (b"{", 400), (b"\xff", 400), (b'{"a":1,"a":2}', 400), (b" " * 300_000, 413)]
)
async def test_a_malformed_body_is_refused(shared_api: Api, backend: str, content: bytes, status: int) -> None:
    """Before anything is looked at."""
    headers = {"Authorization": f"Bearer {backend}"}
    assert (await shared_api.client.post("/v1/viewer-tokens", content=content, headers=headers)).status_code == status


# --- where a token may stand ---


@pytest.mark.parametrize(
    "path", ["/v1/events", "/v1/events/v:1", "/v1/facets", "/v1/timeline", "/v1/servers/v1/activity"]
)
@pytest.mark.parametrize("name", ["token", "access_token", "key", "authorization"])
async def test_a_token_in_the_query_string_is_not_read(seen: Api, backend: str, path: str, name: str) -> None:
    """Query strings are logged by every proxy: an unknown parameter, and no credential."""
    token = (await issue_token(seen, backend))["token"]
    response = await ask(seen, "GET", f"{path}?{name}={token}", token)
    assert (response.status_code, token in response.text) == (400, False)
    request = seen.client.build_request("GET", f"{path}?{name}={token}")
    del request.headers["authorization"]
    anonymous = await seen.client.send(request)
    assert (anonymous.status_code, token in anonymous.text) == (401, False)


async def test_no_key_and_no_token_is_in_the_log(
    seen: Api, backend: str, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    """Access log and errors, at the level that says most."""
    caplog.set_level(logging.DEBUG)
    token = (await issue_token(seen, backend))["token"]
    for path in (
        "/v1/events",
        f"/v1/events?token={token}",
        f"/v1/events/{token}",
        f"/v1/viewer-tokens/{token}",
        f"/{token}",
    ):
        for credential in (token, backend, token[:-1], f"{token} x"):
            await ask(seen, "GET", path, credential)
            await ask(seen, "DELETE", path, credential)
    # The client's own lines are not the service's.
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    written = "\n".join(ours) + "".join(capsys.readouterr())
    assert "route=/v1/events" in written
    assert public_id(token) in written
    for secret in (token[16:59], backend[16:59]):
        assert secret not in written


# --- the end of a token ---


async def refused_after(api: Api, token: str) -> float:
    """Seconds until it is refused."""
    started = time.monotonic()
    while (await ask(api, "GET", "/v1/events?limit=1", token)).status_code == 200:
        assert time.monotonic() - started < 10
        await asyncio.sleep(0.02)
    return time.monotonic() - started


async def test_a_revoked_token_is_refused_at_once_everywhere(
    module_database: TestDatabase, shared_api: Api, backend: str
) -> None:
    """Within the second that a worker believes its cache; revoking again is no error."""
    issued = await issue_token(shared_api, backend)
    async with open_api(module_database) as other:
        for api in (shared_api, other):
            assert (await ask(api, "GET", "/v1/events", issued["token"])).status_code == 200
        for _ in range(2):
            response = await ask(shared_api, "DELETE", f"/v1/viewer-tokens/{issued['token_id']}", backend)
            assert response.status_code == 204
        assert max(await asyncio.gather(*(refused_after(api, issued["token"]) for api in (shared_api, other)))) < 1.3
    listed = (await ask(shared_api, "GET", "/v1/viewer-tokens", backend)).json()
    assert issued["token_id"] not in [token["token_id"] for token in listed["tokens"]]


async def test_a_token_ends_with_the_key_that_issued_it(shared_api: Api) -> None:
    """Revoked: within the same second."""
    key = await create_key(shared_api, ["viewer", "read"])
    token = (await issue_token(shared_api, key["key"]))["token"]
    assert (await ask(shared_api, "GET", "/v1/events", token)).status_code == 200
    assert (await ask(shared_api, "DELETE", f"/v1/keys/{key['key_id']}")).status_code == 204
    assert await refused_after(shared_api, token) < 1.3


async def test_a_token_lasts_no_longer_than_its_key(shared_api: Api) -> None:
    """It says so when it is issued, and when it is renewed, and keeps to it within the second, cached or not."""
    ends = datetime.now(UTC) + timedelta(seconds=4)
    key = await create_key(shared_api, ["viewer", "read"], expires_at=ends.isoformat())
    issued = await issue_token(shared_api, key["key"])
    renewed = await ask(shared_api, "POST", f"/v1/viewer-tokens/{issued['token_id']}/renew", key["key"])
    for answer in (issued, renewed.json()):
        assert datetime.fromisoformat(answer["expires_at"]) == ends
    await refused_after(shared_api, issued["token"])
    assert abs((datetime.now(UTC) - ends).total_seconds()) < 0.9
    again = await ask(shared_api, "POST", f"/v1/viewer-tokens/{issued['token_id']}/renew")
    assert again.status_code == 409


async def shorten(database: TestDatabase, token_id: str, interval: str) -> None:
    """Let a token end sooner, as its database's owner."""
    owner = await database.owner()
    await owner.execute(
        f"UPDATE audit.viewer_token SET expires_at = clock_timestamp() + interval '{interval}' WHERE token_id = $1",
        token_id,
    )
    await owner.close()


async def test_a_token_expires_to_the_tenth_of_a_second(
    module_database: TestDatabase, shared_api: Api, backend: str
) -> None:
    """The cache never carries it over its end."""
    issued = await issue_token(shared_api, backend)
    await shorten(module_database, issued["token_id"], "1500 milliseconds")
    started = time.monotonic()
    await refused_after(shared_api, issued["token"])
    assert 1.0 < time.monotonic() - started < 2.0


# --- renewed ---


async def test_a_token_is_renewed_by_its_key_and_by_an_admin(shared_api: Api, backend: str) -> None:
    """From now, an hour at most, and never shorter than it was."""
    issued = await issue_token(shared_api, backend, expires_in_seconds=60)
    path = f"/v1/viewer-tokens/{issued['token_id']}/renew"
    for key, body, least in (
        (backend, {"expires_in_seconds": 3600}, 3590),
        (None, {"expires_in_seconds": 30}, 3590),
        (backend, None, 3590),
    ):
        response = await ask(shared_api, "POST", path, key, body)
        assert response.status_code == 200, response.text
        schemas.TokenView.model_validate(response.json())
        assert least < ends_in(response.json()) <= 3600
    other = await issue_token(shared_api, backend, expires_in_seconds=30)
    response = await ask(shared_api, "POST", f"/v1/viewer-tokens/{other['token_id']}/renew", backend)
    assert 290 < ends_in(response.json()) <= 300
    assert (await ask(shared_api, "GET", "/v1/events", issued["token"])).status_code == 200


async def test_what_has_ended_is_not_renewed(module_database: TestDatabase, shared_api: Api, backend: str) -> None:
    """Revoked or expired: the backend issues another."""
    revoked, expired = [await issue_token(shared_api, backend) for _ in range(2)]
    await ask(shared_api, "DELETE", f"/v1/viewer-tokens/{revoked['token_id']}", backend)
    await shorten(module_database, expired["token_id"], "-1 second")
    for issued in (revoked, expired):
        response = await ask(shared_api, "POST", f"/v1/viewer-tokens/{issued['token_id']}/renew", backend)
        assert (response.status_code, response.headers["content-type"]) == (409, "application/problem+json")
        assert (await ask(shared_api, "GET", "/v1/events", issued["token"])).status_code == 401


BAD_RENEWALS: list[tuple[Any, str]] = [
    ({"expires_in_seconds": 29}, "/expires_in_seconds"),
    ({"expires_in_seconds": 3601}, "/expires_in_seconds"),
    ({"server_ids": "all"}, "/server_ids"),
    ([], ""),
]


@pytest.mark.parametrize(("body", "pointer"), BAD_RENEWALS)
async def test_a_bad_renewal_is_refused_with_its_place(shared_api: Api, backend: str, body: Any, pointer: str) -> None:
    """Nothing but its time can change."""
    issued = await issue_token(shared_api, backend)
    response = await ask(shared_api, "POST", f"/v1/viewer-tokens/{issued['token_id']}/renew", backend, body)
    assert (response.status_code, places(response)) == (422, [pointer])


async def test_another_key_s_token_is_unknown(module_database: TestDatabase, shared_api: Api, backend: str) -> None:
    """To another backend and to another tenant alike; an admin of the tenant may end it."""
    issued = await issue_token(shared_api, backend)
    path = f"/v1/viewer-tokens/{issued['token_id']}"
    other = (await create_key(shared_api, ["viewer", "read"]))["key"]
    foreign = await add_key(module_database, await add_tenant(module_database, f"tokens-{time.monotonic_ns()}"))
    for key in (other, foreign):
        for method, suffix in (("POST", "/renew"), ("DELETE", "")):
            response = await ask(shared_api, method, path + suffix, key)
            nobodys = await ask(shared_api, method, f"/v1/viewer-tokens/000000000000{suffix}", key)
            assert (response.status_code, response.content) == (404, nobodys.content)
        assert issued["token_id"] not in (await ask(shared_api, "GET", "/v1/viewer-tokens", key)).text
    for key in (backend, None):
        listed = (await ask(shared_api, "GET", "/v1/viewer-tokens", key)).json()
        schemas.TokenList.model_validate(listed)
        (found,) = [token for token in listed["tokens"] if token["token_id"] == issued["token_id"]]
        assert found == {name: value for name, value in issued.items() if name != "token"}
    assert (await ask(shared_api, "DELETE", path)).status_code == 204


@pytest.mark.parametrize("token_id", ["nothing", "%00", "%ff", "x" * 5000, "a'b", "%20"])
async def test_an_unknown_token_is_not_found(shared_api: Api, token_id: str) -> None:
    """Whatever it is called."""
    assert (await ask(shared_api, "DELETE", f"/v1/viewer-tokens/{token_id}")).status_code == 404
    assert (await ask(shared_api, "POST", f"/v1/viewer-tokens/{token_id}/renew")).status_code == 404


# --- what is kept ---


async def test_tokens_that_are_over_are_swept(module_database: TestDatabase, shared_api: Api, backend: str) -> None:
    """Each issue removes more than it adds, of those that ended over an hour ago, and no other."""
    issued = [await issue_token(shared_api, backend) for _ in range(8)]
    live, just_over, *old = [token["token_id"] for token in issued]
    await shorten(module_database, just_over, "-30 minutes")
    for token_id in old:
        await shorten(module_database, token_id, "-2 hours")
    await issue_token(shared_api, backend)
    owner = await module_database.owner()
    left = [row["token_id"] for row in await owner.fetch("SELECT token_id FROM audit.viewer_token")]
    await owner.close()
    assert {live, just_over} <= set(left)
    assert not set(old) & set(left)


async def test_a_worker_can_neither_delete_nor_lengthen_tokens(
    module_database: TestDatabase, shared_api: Api, backend: str
) -> None:
    """Not even by SQL: only those that are over go, an hour is the most, and what has ended has ended."""
    issued, revoked = [await issue_token(shared_api, backend) for _ in range(2)]
    await ask(shared_api, "DELETE", f"/v1/viewer-tokens/{revoked['token_id']}", backend)
    worker = await module_database.serving()
    refused = [
        ("DELETE FROM audit.viewer_token", "permission denied"),
        ("UPDATE audit.viewer_token SET limits = '{}'", "permission denied"),
        (
            "UPDATE audit.viewer_token SET expires_at = now() + interval '2 hours' WHERE token_id = $1",
            "an hour at most",
        ),
        ("UPDATE audit.viewer_token SET expires_at = 'infinity' WHERE token_id = $1", "an hour at most"),
        ("UPDATE audit.viewer_token SET expires_at = now() + interval '59 minutes' WHERE token_id = $2", "has ended"),
        ("UPDATE audit.viewer_token SET revoked_at = NULL WHERE token_id = $2", "stays revoked"),
    ]
    for statement, message in refused:
        arguments = [one["token_id"] for one, place in ((issued, "$1"), (revoked, "$2")) if place in statement]
        with pytest.raises(Exception, match=message):
            await worker.execute(statement.replace("$2", "$1"), *arguments)
    assert await worker.fetchval("SELECT count(*) FROM audit.viewer_token WHERE token_id = $1", issued["token_id"]) == 1
    await worker.close()


async def test_only_the_hash_of_a_token_is_in_the_database(
    module_database: TestDatabase, shared_api: Api, backend: str
) -> None:
    """A dump yields no usable token, and nobody's name."""
    issued = await issue_token(shared_api, backend, viewer="viewer-" + CANARY)
    await ask(shared_api, "GET", "/v1/events", issued["token"])
    dumped = dump(module_database.owner_url)
    assert sha256(issued["token"].encode()).hexdigest().encode() in dumped
    assert issued["token_id"].encode() in dumped
    for hidden in (issued["token"], issued["token"][16:59], issued["token"][-6:], backend[16:59], CANARY):
        assert hidden.encode() not in dumped


async def test_own_actions_are_of_a_person_and_not_of_whoever_has_their_number(shared_api: Api) -> None:
    """Panels count clients and administrators apart: client 7 is not administrator 7. Without a type both are asked for."""
    kinds = ("client", "admin")
    target = {"type": "own-kind", "id": "1"}
    await shared_api.accept(
        *({"id": f"own:{kind}", "action": "own.x", "actor": {"type": kind, "id": "7"}, "target": target, "description": "own-words",
           "server_id": "own", "occurred_at": "2026-03-01T10:00:00Z", "changes": [{"path": "/a", "new": kind}]} for kind in kinds)
    )  # fmt: skip
    backend = (await create_key(shared_api, ["viewer", "read"]))["key"]
    for who, wanted in (("7", {"client", "admin"}), ({"type": "client", "id": "7"}, {"client"})):
        issued = await issue_token(shared_api, backend, own_actions_of=who)
        assert issued["limits"]["actor_type"] == (None if who == "7" else "client")
        for path in (
            "/v1/events?category=own",
            "/v1/events?q=own-words",
            "/v1/servers/own/activity?around=2026-03-01T10:00:00Z",
            "/v1/targets/own-kind/1/history",
        ):
            seen = (await ask(shared_api, "GET", path, issued["token"])).json()["events"]
            assert {event["actor"]["type"] for event in seen} == wanted, path
        facets = (await ask(shared_api, "GET", "/v1/facets?category=own", issued["token"])).json()
        assert {value["value"] for value in facets["facets"]["actor_type"]["values"]} == wanted
        timeline = (await ask(shared_api, "GET", "/v1/timeline?category=own", issued["token"])).json()["timeline"]
        assert sum(one["count"] for one in timeline) == len(wanted)


@pytest.mark.parametrize("asked", ["victim@alone.test", "nobody@alone.test"])
async def test_the_limit_of_a_search_does_not_tell_what_is_hidden(
    shared_api: Api, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """Beside a word that finds about as many events as may be compared, one that is there and one that is not are both refused at times."""
    category = f"limit-{asked.partition('@')[0]}"
    people = [*(f"one{number}@crowd.test" for number in range(14)), "victim@alone.test"]
    await shared_api.accept(
        *({"action": "limit.x", "category": category, "actor": {"type": "user", "email": person}} for person in people)
    )
    token = (await issue_token(shared_api, categories=[category]))["token"]
    monkeypatch.setattr(veil, "CHECKED_LIMIT", 16)  # 12 to 16
    statuses = []
    for draw in (lambda _: 0, lambda below: below - 1):
        monkeypatch.setattr(secrets, "randbelow", draw)
        answer = await ask(shared_api, "GET", f"/v1/events?q=crowd.test&q={asked}", token)
        statuses.append(answer.status_code)
    assert statuses == [200, 400]


def test_how_much_a_search_may_compare_is_chance() -> None:
    allowed = {veil.allowed_entries() for _ in range(100)}
    assert len(allowed) > 1
    assert all(15_000 <= one <= 20_000 for one in allowed)
