"""API keys over HTTP: what each scope opens, how a key ends, and that nothing but its hash is kept."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import httpx
import pytest

from audit_service.api import schemas
from audit_service.core.api_key import SCOPES, is_well_formed
from tests.support.api import Api
from tests.support.apps import add_key, add_tenant, dump, open_api
from tests.support.postgres import BOOTSTRAP_KEY, Server, TestDatabase

# Each call, the scope that opens it, and what it answers then. Nothing is signed here.
CALLS: list[tuple[str, str, str, int]] = [
    ("POST", "/v1/events", "ingest", 201),
    ("GET", "/v1/events", "read", 200),
    ("GET", "/v1/events/known", "read", 200),
    ("GET", "/v1/events/known/revert", "read", 200),
    ("GET", "/v1/servers/s1/activity", "read", 200),
    ("GET", "/v1/facets", "read", 200),
    ("GET", "/v1/servers/s1/facets", "read", 200),
    ("GET", "/v1/timeline", "read", 200),
    ("GET", "/v1/sources", "read", 200),
    ("GET", "/v1/servers/s1/timeline", "read", 200),
    ("GET", "/v1/targets/a-type/an-id/history", "read", 200),
    ("GET", "/v1/export", "export", 200),
    ("GET", "/v1/chain", "verify", 200),
    ("GET", "/v1/chain/verify", "verify", 200),
    ("GET", "/v1/chain/checkpoint", "verify", 404),
    ("GET", "/v1/chain/checkpoints", "verify", 200),
    ("GET", "/v1/chain/inclusion?seq=0", "verify", 200),
    ("GET", "/v1/chain/consistency?from_size=1&to_size=1", "verify", 200),
    ("GET", "/v1/events/known/proof", "read", 409),
    ("GET", "/v1/evidence?from_seq=0&to_seq=1", "export", 409),
    ("GET", "/tlog/{log_key}/checkpoint", "verify", 404),
    ("GET", "/tlog/{log_key}/tile/{path}", "verify", 404),
    ("POST", "/v1/keys", "admin", 201),
    ("GET", "/v1/keys", "admin", 200),
    ("DELETE", "/v1/keys/{spare}", "admin", 204),
    ("POST", "/v1/viewer-tokens", "viewer", 403),  # without the scope `read` there is nothing to hand on
    ("GET", "/v1/viewer-tokens", "viewer", 200),
    ("POST", "/v1/viewer-tokens/no-token/renew", "viewer", 404),
    ("DELETE", "/v1/viewer-tokens/no-token", "viewer", 404),
    ("POST", "/v1/tenants", "admin", 403),  # not in this tenant
    ("GET", "/v1/tenants", "admin", 403),
    ("POST", "/v1/retention/requests", "admin", 200),
    ("GET", "/v1/retention/requests", "admin", 200),
    ("GET", "/v1/retention/requests/no-request", "admin", 404),
    ("POST", "/v1/erasures/requests", "admin", 200),
    ("GET", "/v1/erasures/requests", "admin", 200),
    ("GET", "/v1/erasures/requests/no-request", "admin", 404),
]

# Bodies that are good for a POST that takes no event.
BODIES: dict[str, dict[str, Any]] = {
    "/v1/keys": {"name": "x", "scopes": ["admin"]},
    "/v1/viewer-tokens": {"server_ids": "all"},
    "/v1/viewer-tokens/no-token/renew": {"expires_in_seconds": 60},
    "/v1/tenants": {"name": "another"},
    "/v1/retention/requests": {"action": "clear", "reason": "x", "dry_run": True},
    "/v1/erasures/requests": {"actor": {"id": "u1"}, "reason": "x", "dry_run": True},
}


async def call(api: Api, method: str, path: str, key: str | None) -> httpx.Response:
    """The call with a body that is good for it, under `key`."""
    body: dict[str, Any] | None = None
    if method == "POST":
        body = BODIES.get(path, {"action": "x"})
    request = api.client.build_request(method, path, json=body)
    del request.headers["authorization"]
    if key is not None:
        request.headers["authorization"] = f"Bearer {key}"
    return await api.client.send(request)


async def create(api: Api, scopes: list[str], **members: Any) -> dict[str, Any]:
    """A new key over HTTP."""
    response = await api.client.post("/v1/keys", json={"name": "test", "scopes": scopes, **members})
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    schemas.NewKeyAnswer.model_validate(answer)
    return answer


@pytest.fixture(scope="module")
async def single_scoped(shared_api: Api) -> dict[str, str]:
    """A key for each scope."""
    await shared_api.accept({"id": "known", "action": "x", "server_id": "s1"})
    return {scope: (await create(shared_api, [scope]))["key"] for scope in SCOPES}


# --- scopes ---


@pytest.mark.parametrize(("method", "path", "scope", "status"), CALLS)
async def test_each_call_is_open_to_its_scope_alone(
    shared_api: Api, single_scoped: dict[str, str], method: str, path: str, scope: str, status: int
) -> None:
    chain = (await shared_api.client.get("/v1/chain")).json()
    path = path.format(
        spare=(await create(shared_api, ["read"]))["key_id"], log_key=chain["origin"].split("/")[2], path="0/000.p/1"
    )
    assert (await call(shared_api, method, path, None)).status_code == 401
    for other, key in single_scoped.items():
        response = await call(shared_api, method, path, key)
        assert response.status_code == (status if other == scope else 403), other
        if other != scope:
            assert response.headers["content-type"] == "application/problem+json"
            assert scope in response.json()["detail"]


async def test_the_matrix_names_every_call_that_needs_a_key(shared_api: Api) -> None:
    document = (await shared_api.client.get("/openapi.json")).json()
    secured = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if operation.get("security")
    }
    templates = {
        "known": "{event_id}",
        "no-request": "{request_id}",
        "no-token": "{token_id}",
        "s1": "{server_id}",
        "{spare}": "{key_id}",
        "a-type": "{target_type}",
        "an-id": "{target_id}",
    }
    named = {
        (method, "/".join(templates.get(part, part) for part in path.partition("?")[0].split("/")))
        for method, path, _, _ in CALLS
    }
    assert secured == named


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"])
async def test_probes_and_documents_need_no_key(shared_api: Api, path: str) -> None:
    assert (await call(shared_api, "GET", path, None)).status_code == 200


async def test_a_refused_key_reads_no_body(shared_api: Api, single_scoped: dict[str, str]) -> None:
    """Who may not write is told so, whatever is wrong with the rest."""
    for key, status in (("nonsense", 401), (single_scoped["read"], 403)):
        response = await shared_api.client.post(
            "/v1/events", content=b"{broken", headers={"Authorization": f"Bearer {key}", "Content-Type": "text/plain"}
        )
        assert response.status_code == status


# --- what is no key ---


async def test_whatever_is_no_live_key_gets_the_same_answer(shared_api: Api, single_scoped: dict[str, str]) -> None:
    good = single_scoped["read"]
    flipped = good[:30] + ("A" if good[30] != "A" else "B") + good[31:]
    bad = [
        "aud_",
        "aud_" + "0" * 61,
        good[:-1],
        good + "x",
        flipped,
        good.upper(),
        "x" * 32,
        "x" * 300,
        BOOTSTRAP_KEY[:-1],
        "'; --",
    ]
    assert not is_well_formed(flipped)
    answers = {(await call(shared_api, "GET", "/v1/events", key)).content for key in bad}
    assert len(answers) == 1
    assert b'"status":401' in answers.pop()
    response = await call(shared_api, "GET", "/v1/events", flipped)
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "bearer\txyz", "Token {key}", "{key}", "Bearer  "]
)
async def test_other_schemes_are_told_what_to_send(shared_api: Api, single_scoped: dict[str, str], header: str) -> None:
    authorization = header.format(key=single_scoped["read"])
    response = await shared_api.client.get("/v1/events", headers={"Authorization": authorization})
    assert response.status_code == 401
    assert single_scoped["read"] not in response.text


async def test_the_scheme_may_be_spelled_in_any_case(shared_api: Api, single_scoped: dict[str, str]) -> None:
    for scheme in ("bearer", "BEARER", "Bearer "):
        headers = {"Authorization": f"{scheme} {single_scoped['read']}"}
        assert (await shared_api.client.get("/v1/events", headers=headers)).status_code == 200


async def test_bytes_that_are_no_text_are_no_key(shared_api: Api) -> None:
    response = await shared_api.client.get("/v1/events", headers=[(b"Authorization", b"Bearer \xff\xfe\xe9")])
    assert response.status_code == 401


# --- the end of a key ---


async def test_an_expired_key_is_refused(module_database: TestDatabase, shared_api: Api) -> None:
    log_id = await add_tenant(module_database, "expiring")
    past = await add_key(module_database, log_id, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    future = await add_key(module_database, log_id, expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert (await call(shared_api, "GET", "/v1/events", past)).status_code == 401
    assert (await call(shared_api, "GET", "/v1/events", future)).status_code == 200


async def test_a_key_expires_while_it_is_used(shared_api: Api) -> None:
    """The cache must not carry a key over its end by more than its second."""
    ends = datetime.now(UTC) + timedelta(seconds=0.6)
    key = (await create(shared_api, ["read"], expires_at=ends.isoformat()))["key"]
    assert (await call(shared_api, "GET", "/v1/events", key)).status_code == 200
    assert await refused_after(shared_api, key) < 2.0


async def test_a_revoked_key_is_refused_within_a_second_everywhere(
    module_database: TestDatabase, shared_api: Api
) -> None:
    async with open_api(module_database) as other_worker:
        created = await create(shared_api, ["read"])
        for api in (shared_api, other_worker):
            assert (await call(api, "GET", "/v1/events", created["key"])).status_code == 200
        assert (await shared_api.client.delete(f"/v1/keys/{created['key_id']}")).status_code == 204
        seconds = await asyncio.gather(*(refused_after(api, created["key"]) for api in (shared_api, other_worker)))
        assert max(seconds) < 1.5
        # Revoking again is no error, and does not change when it was.
        first = await shown(shared_api, created["key_id"])
        assert (await shared_api.client.delete(f"/v1/keys/{created['key_id']}")).status_code == 204
        assert await shown(shared_api, created["key_id"]) == first
        assert first["revoked_at"] is not None


async def refused_after(api: Api, key: str) -> float:
    """Seconds until the key is refused."""
    started = time.monotonic()
    while (await call(api, "GET", "/v1/events", key)).status_code == 200:
        assert time.monotonic() - started < 10
        await asyncio.sleep(0.02)
    return time.monotonic() - started


async def shown(api: Api, key_id: str) -> dict[str, Any]:
    """A key as the list shows it."""
    response = await api.client.get("/v1/keys")
    schemas.KeyList.model_validate(response.json())
    (found,) = [key for key in response.json()["keys"] if key["key_id"] == key_id]
    assert isinstance(found, dict)
    return found


# --- a database that does not answer ---


async def test_while_the_database_is_paused_every_call_is_told_to_come_again(shared_api: Api, server: Server) -> None:
    """Within five seconds. The key that asks is still known, so that it is the calls themselves that wait."""
    key_id = (await create(shared_api, ["read"]))["key_id"]
    with server.paused():
        started = time.monotonic()
        responses = await asyncio.gather(
            shared_api.client.post("/v1/keys", json={"name": "paused", "scopes": ["read"]}),
            shared_api.client.get("/v1/keys"),
            shared_api.client.delete(f"/v1/keys/{key_id}"),
        )
        seconds = time.monotonic() - started
    assert [(response.status_code, response.headers["retry-after"]) for response in responses] == [(503, "1")] * 3
    assert seconds < 5
    # What nobody was told of did not happen.
    listed = (await shared_api.client.get("/v1/keys")).json()["keys"]
    assert "paused" not in [key["name"] for key in listed]
    assert (await shown(shared_api, key_id))["revoked_at"] is None


# --- creating and listing ---


async def test_a_new_key_is_shown_once_and_listed_without_its_secret(shared_api: Api) -> None:
    created = await create(shared_api, ["verify", "read", "read"], expires_at="2099-01-01T01:00:00+01:00")
    assert is_well_formed(created["key"])
    assert created["scopes"] == ["read", "verify"]
    listed = await shown(shared_api, created["key_id"])
    assert listed | {"created_at": None} == {
        "key_id": created["key_id"], "tenant": "default", "name": "test", "scopes": ["read", "verify"], "created_at": None,
        "client": None, "limits": created["limits"],
        "expires_at": "2099-01-01T00:00:00.000000Z", "revoked_at": None, "last_used_at": None,
    }  # fmt: skip
    assert created["key"] not in (await shared_api.client.get("/v1/keys")).text
    await call(shared_api, "GET", "/v1/events", created["key"])
    assert (await shown(shared_api, created["key_id"]))["last_used_at"] is not None


BAD_KEYS: list[tuple[Any, int]] = [
    ({}, 422), ({"name": "x"}, 422), ({"name": "x", "scopes": []}, 422), ({"name": "x", "scopes": ["all"]}, 422),
    ({"name": "x", "scopes": "read"}, 422), ({"name": "", "scopes": ["read"]}, 422), ({"name": "x" * 201, "scopes": ["read"]}, 422),
    ({"name": 5, "scopes": ["read"]}, 422), ({"name": "a\0b", "scopes": ["read"]}, 422), ({"name": "\ud800", "scopes": ["read"]}, 422),
    ({"name": "x", "scopes": ["read"], "tenant": "other"}, 422), ({"name": "x", "scopes": ["read"], "expires_at": "2030-01-01"}, 422),
    ({"name": "x", "scopes": ["read"], "expires_at": "2030-01-01T00:00:00"}, 422), ([], 422), ("x", 422), (5, 422),
    ({"name": "x", "scopes": ["read"], "expires_at": 1900000000}, 422),
    ({"name": "x", "scopes": ["read"], "expires_at": "1900000000"}, 422),
    ({"name": "x", "scopes": ["read"], "expires_at": "9999-12-31T23:59:59-12:00"}, 422),
    ({"name": "x", "scopes": ["read"] * 17}, 422), ({"name": "x", "scopes": ["read"], "more": "x" * 300_000}, 413),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status"), BAD_KEYS)
async def test_a_bad_key_is_refused_with_its_place(shared_api: Api, body: Any, status: int) -> None:
    before = (await shared_api.client.get("/v1/keys")).json()
    response = await shared_api.client.post("/v1/keys", content=json.dumps(body))
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    schemas.Problem.model_validate(response.json())
    assert (await shared_api.client.get("/v1/keys")).json()["keys"] == before["keys"]


@pytest.mark.parametrize("body", [b"", b"{", b'{"name":"x","name":"y","scopes":["read"]}', b"\xff"])
async def test_a_malformed_key_is_refused(shared_api: Api, body: bytes) -> None:
    response = await shared_api.client.post("/v1/keys", content=body)
    assert response.status_code == 400


async def test_a_key_cannot_hand_out_what_it_does_not_have(shared_api: Api, single_scoped: dict[str, str]) -> None:
    for scopes, status in ((["admin", "read"], 403), (["ingest"], 403), (["admin"], 201)):
        request = shared_api.client.build_request("POST", "/v1/keys", json={"name": "x", "scopes": scopes})
        request.headers["authorization"] = f"Bearer {single_scoped['admin']}"
        assert (await shared_api.client.send(request)).status_code == status


# --- tenants ---


@pytest.fixture
async def neighbour(module_database: TestDatabase) -> AsyncIterator[Api]:
    """The app with an admin key of another tenant."""
    opened: AbstractAsyncContextManager[Api]
    name = f"neighbour-{time.monotonic_ns()}"
    opened = open_api(module_database, key=await add_key(module_database, await add_tenant(module_database, name)))
    async with opened as api:
        yield api


async def test_another_tenant_s_keys_are_neither_seen_nor_revoked(shared_api: Api, neighbour: Api) -> None:
    ours = await create(shared_api, ["read"])
    assert ours["key_id"] not in (await neighbour.client.get("/v1/keys")).text
    theirs = await neighbour.client.delete(f"/v1/keys/{ours['key_id']}")
    nobodys = await neighbour.client.delete("/v1/keys/000000000000")
    assert (theirs.status_code, theirs.content) == (404, nobodys.content)
    assert (await shown(shared_api, ours["key_id"]))["revoked_at"] is None
    assert (await call(shared_api, "GET", "/v1/events", ours["key"])).status_code == 200


async def test_a_key_made_by_a_tenant_is_that_tenant_s(shared_api: Api, neighbour: Api) -> None:
    created = await create(neighbour, ["ingest", "read"])
    posted = await call(shared_api, "POST", "/v1/events", created["key"])
    identifier = posted.json()["id"]
    assert (await neighbour.event(identifier))["id"] == identifier
    assert (await shared_api.client.get(f"/v1/events/{identifier}")).status_code == 404


@pytest.mark.parametrize("key_id", ["nothing", "%00", "%ff", "x" * 5000, "a'b", "%20"])
async def test_an_unknown_key_is_not_found(shared_api: Api, key_id: str) -> None:
    assert (await shared_api.client.delete(f"/v1/keys/{key_id}")).status_code == 404


# --- what is kept ---


async def test_only_the_hash_of_a_key_is_in_the_database(module_database: TestDatabase, shared_api: Api) -> None:
    created = await create(shared_api, ["read"])
    await call(shared_api, "GET", "/v1/events", created["key"])
    dumped = dump(module_database.owner_url)
    digest = sha256(created["key"].encode()).hexdigest().encode()
    assert digest in dumped
    assert created["key_id"].encode() in dumped
    assert created["key"].encode() not in dumped
    assert created["key"][16:59].encode() not in dumped
    assert BOOTSTRAP_KEY.encode() not in dumped


@pytest.mark.parametrize("path", ["/v1/events", "/v1/export", "/v1/chain", "/v1/keys", "/services/collector/event"])
async def test_two_authorization_headers_are_none(shared_api: Api, path: str) -> None:
    """Whoever stands before us may have looked at the other one."""
    good, method = f"Bearer {BOOTSTRAP_KEY}", "POST" if path.startswith("/services") else "GET"
    for pair in ((good, "Bearer nobody"), ("Bearer nobody", good), (good, good)):
        headers = [("Authorization", value) for value in pair]
        assert (await shared_api.client.request(method, path, headers=headers)).status_code == 401
    assert (await shared_api.client.request(method, path)).status_code != 401 or method == "POST"
