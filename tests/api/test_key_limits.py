"""Limits of API keys over HTTP: what may be posted, from where a key may be used, and never more than its maker has."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from audit_service.app import create_app
from audit_service.settings import Settings
from tests.support.adapters import NAMES, sample
from tests.support.api import Api
from tests.support.apps import open_api
from tests.support.credentials import ask, create_key, places
from tests.support.postgres import TestDatabase

CANARY = "canary-7f3a9c0d"


@pytest.fixture(scope="module")
async def node(shared_api: Api) -> dict[str, Any]:
    """The key of a node: two servers, one category, one source."""
    return await create_key(
        shared_api,
        ["ingest"],
        server_ids=["s1", "s2"],
        global_events=False,
        categories=["server"],
        source_id="node-7",
    )


# --- what may be posted ---

REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"action": "server.x", "server_id": "s3"}, ["/server_id"]),
    ({"action": "server.x"}, ["/server_id"]),
    ({"action": "backup.x", "server_id": "s1"}, ["/category"]),
    ({"action": "server.x", "category": "backup", "server_id": "s1"}, ["/category"]),
    ({"action": "server.x", "server_id": "s1", "source": {"id": "node-8"}}, ["/source/id"]),
    ({"action": "x", "server_id": CANARY, "source": {"id": CANARY}}, ["/server_id", "/category", "/source/id"]),
]


@pytest.mark.parametrize(("event", "pointers"), REFUSED)
async def test_a_limited_key_posts_nothing_else(
    shared_api: Api, node: dict[str, Any], event: dict[str, Any], pointers: list[str]
) -> None:
    """403 with the places, and never a value, by itself and in every batch."""
    response = await ask(shared_api, "POST", "/v1/events", node["key"], event)
    assert (response.status_code, places(response)) == (403, pointers)
    assert response.headers["content-type"] == "application/problem+json"
    assert CANARY not in response.text
    good = {"action": "server.x", "server_id": "s1"}
    batch = await ask(shared_api, "POST", "/v1/events", node["key"], {"events": [good, event, good]})
    assert (batch.status_code, [result["status"] for result in batch.json()["results"]]) == (207, [201, 403, 201])
    assert [fault["pointer"] for fault in batch.json()["results"][1]["problem"]["errors"]] == pointers
    lines = "\n".join(json.dumps(one) for one in (good, event, good))
    headers = {"Authorization": f"Bearer {node['key']}", "Content-Type": "application/x-ndjson"}
    stream = await shared_api.client.post("/v1/events", content=lines, headers=headers)
    results = [json.loads(line) for line in stream.text.splitlines()]
    assert [result.get("status") for result in results] == [201, 403, 201, None]
    assert CANARY not in batch.text + stream.text


async def test_a_limited_key_posts_its_own_and_its_source_is_filled_in(shared_api: Api, node: dict[str, Any]) -> None:
    """A source without an id gets it, after the content was taken for its fingerprint: a retry is the same event by another key too, and
    one that names the source is not."""
    event = {"id": "limits:filled", "action": "server.x", "server_id": "s1", "source": {"seq": 4}}
    posted = await ask(shared_api, "POST", "/v1/events", node["key"], event)
    assert posted.status_code == 201
    assert (await shared_api.event("limits:filled"))["source"] == {"id": "node-7", "seq": 4}
    again = await ask(shared_api, "POST", "/v1/events", node["key"], event)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert (await shared_api.post(event)).status_code == 200
    named = event | {"source": {"id": "node-7", "seq": 4}}
    assert (await ask(shared_api, "POST", "/v1/events", node["key"], named)).status_code == 409
    bare = await ask(shared_api, "POST", "/v1/events", node["key"], {"action": "server.y", "server_id": "s2"})
    assert (await shared_api.event(bare.json()["id"]))["source"] == {"id": "node-7"}


async def test_a_cloud_event_is_held_to_the_limits(shared_api: Api, node: dict[str, Any]) -> None:
    """A CloudEvent's source becomes the event's, and is not the key's; nor has it a server."""
    headers = {
        "ce-specversion": "1.0", "ce-type": "server.x", "ce-source": "elsewhere", "ce-id": "1",
        "Authorization": f"Bearer {node['key']}",
    }  # fmt: skip
    response = await shared_api.client.post("/v1/events", json={"a": 1}, headers=headers)
    assert response.status_code == 403
    assert "/server_id" in places(response)


@pytest.mark.parametrize("name", NAMES)
async def test_every_adapter_is_held_to_the_limits(shared_api: Api, name: str) -> None:
    """Servers, categories and source: every door leads through the same step. By the key's own source nothing passes for another's."""

    async def stored(mark: str, **limits: Any) -> list[dict[str, Any]]:
        key = (await create_key(shared_api, ["ingest"], **limits))["key"]
        newest = {event["seq"] for event in await shared_api.list(sort="-seq", limit=1)}
        sent = sample(name, mark)
        headers = sent.headers | {"Authorization": f"Bearer {key}"}
        response = await shared_api.client.post(sent.path, content=sent.body, headers=headers)
        assert response.status_code < 500, response.text
        assert CANARY not in response.text
        events = await shared_api.list(sort="-seq", limit=20)
        return [event for event in events if event["seq"] > max(newest) and not event["action"].startswith("audit.")]

    assert len(await stored(" free")) == sample(name).events
    assert await stored(" server", server_ids=["elsewhere"], global_events=False) == []
    assert await stored(" category", categories=["elsewhere"]) == []
    assert {event["source"]["id"] for event in await stored(" source", source_id="node-7")} <= {"node-7"}


async def test_the_control_an_unlimited_key_posts_all_of_it(shared_api: Api) -> None:
    """It is the limits that refuse."""
    key = (await create_key(shared_api, ["ingest"]))["key"]
    for event, _ in REFUSED:
        assert (await ask(shared_api, "POST", "/v1/events", key, event)).status_code == 201


async def test_a_server_whose_id_holds_a_secret_is_still_the_key_s(shared_api: Api) -> None:
    """Such an id is stored as a keyed hash; the limit is compared with that, and the secret is nowhere."""
    server = "srv-ghp_" + "a1B2" * 9
    created = await create_key(shared_api, ["ingest"], server_ids=[server], global_events=False)
    assert server not in json.dumps(created)
    posted = await ask(shared_api, "POST", "/v1/events", created["key"], {"action": "x", "server_id": server})
    assert posted.status_code == 201
    assert (await ask(shared_api, "POST", "/v1/events", created["key"], {"action": "x"})).status_code == 403


async def test_a_replay_shows_no_receipt_of_what_a_key_may_not_post(
    module_database: TestDatabase, shared_api: Api, node: dict[str, Any]
) -> None:
    """Under other redaction rules contents are not compared any more: whose entry it is has to be all the same."""
    own = {"action": "server.x", "server_id": "s1"}
    theirs: dict[str, dict[str, Any]] = {
        "server": {"action": "server.x", "server_id": "s3", "source": {"id": "node-7"}},
        "global": {"action": "server.x", "source": {"id": "node-7"}},
        "category": {"action": "backup.x", "server_id": "s1", "source": {"id": "node-7"}},
        "source": own | {"source": {"id": "node-8"}},
        "no source": own,
        "not kept": own | {"source": {"id": "node-7"}, "before": {"a": 1}, "after": {"a": 1}},
    }
    for name, event in theirs.items():
        assert (await shared_api.post(event | {"id": f"theirs:{name}"})).status_code in {200, 201}
    (first,) = (await ask(shared_api, "POST", "/v1/events", node["key"], [own | {"id": "own"}])).json()["results"]
    asked = [own | {"id": f"theirs:{name}", "reason": "other"} for name in theirs] + [own | {"id": "own"}]
    async with open_api(module_database, redact_words=("flurb",)) as upgraded:
        batch = await ask(upgraded, "POST", "/v1/events", node["key"], asked)
        results = batch.json()["results"]
        assert [result["status"] for result in results] == [409] * len(theirs) + [200]
        assert results[-1]["receipt"] == first["receipt"]
        alone = [await ask(upgraded, "POST", "/v1/events", node["key"], event) for event in asked]
        assert [answer.status_code for answer in alone] == [409] * len(theirs) + [200]
        assert not any("hash" in answer.text or "recorded_at" in answer.text for answer in alone[:-1])
        assert (await upgraded.post(asked[0])).status_code == 200  # a key without limits is told as before


# --- what is seen ---


async def test_a_limited_key_reads_its_own_rows(shared_api: Api) -> None:
    """`server_ids` of a key with the scope `read` are what it sees: through the real key, end to end."""
    await shared_api.accept(
        {"id": "seen:1", "action": "seen.x", "server_id": "seen-1", "context": {"ip": "192.0.2.1"}},
        {"id": "seen:2", "action": "seen.x", "server_id": "seen-2"},
        {"id": "seen:global", "action": "seen.x"},
    )
    limits = {"server_ids": ["seen-1"], "global_events": False, "ips": False}
    key = (await create_key(shared_api, ["read"], **limits))["key"]
    found = (await ask(shared_api, "GET", "/v1/events?category=seen", key)).json()["events"]
    assert [event["id"] for event in found] == ["seen:1"]
    assert "192.0.2.1" not in json.dumps(found)
    for other in ("seen:2", "seen:global"):
        assert (await ask(shared_api, "GET", f"/v1/events/{other}", key)).status_code == 404


# --- the networks ---


async def from_address(database: TestDatabase, address: str | None, key: str, method: str = "GET") -> httpx.Response:
    """A call from an address; None: over a socket that has none."""
    app = create_app(Settings(database_url=database.serving_url))
    # httpx types it as a pair; ASGI allows None.
    transport = httpx.ASGITransport(app, client=None if address is None else (address, 5000))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://audit.test") as client:
        body = {"json": {"action": "x"}} if method == "POST" else {}
        response = await client.request(method, "/v1/events", headers={"Authorization": f"Bearer {key}"}, **body)  # type: ignore[arg-type]
    await app.state.service.close()
    return response


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_key_is_good_in_its_networks_alone(module_database: TestDatabase, shared_api: Api, method: str) -> None:
    """Elsewhere the answer is that of an unknown key: whoever found it learns nothing."""
    networks = ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"]
    created = await create_key(shared_api, ["read", "ingest"], networks=networks)
    assert created["limits"]["networks"] == ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32"]
    unknown = await from_address(module_database, "203.0.113.1", created["key"][:-1] + "-", method)
    for address in ("203.0.113.1", "198.51.100.8", "2001:db9::1", "::1", None):
        response = await from_address(module_database, address, created["key"], method)
        assert (response.status_code, response.content) == (401, unknown.content), address
    for address in ("192.0.2.255", "2001:db8:ffff::1", "198.51.100.7", "::ffff:192.0.2.9"):
        assert (await from_address(module_database, address, created["key"], method)).status_code < 300, address


# --- two keys for each client ---


async def test_a_client_rotates_its_key_and_never_has_three(shared_api: Api) -> None:
    """Create the second, revoke the first; a third is refused while two live."""
    first = await create_key(shared_api, ["ingest"], client="rotating")
    second = await create_key(shared_api, ["ingest"], client="rotating")
    third = await ask(shared_api, "POST", "/v1/keys", None, {"name": "x", "scopes": ["ingest"], "client": "rotating"})
    assert (third.status_code, third.json()["type"]) == (409, "urn:audit-service:problem:conflict")
    assert "rotating" not in third.text
    await create_key(shared_api, ["ingest"], client="other")
    assert (await ask(shared_api, "DELETE", f"/v1/keys/{first['key_id']}")).status_code == 204
    await create_key(shared_api, ["ingest"], client="rotating")
    listed = (await ask(shared_api, "GET", "/v1/keys")).json()["keys"]
    live = [key for key in listed if key["client"] == "rotating" and key["revoked_at"] is None]
    assert len(live) == 2
    assert second["key_id"] in [key["key_id"] for key in live]


async def test_an_expired_key_makes_room(shared_api: Api) -> None:
    """Live means neither revoked nor expired."""
    soon = datetime.now(UTC) + timedelta(seconds=0.7)
    for _ in range(2):
        await create_key(shared_api, ["ingest"], client="expiring", expires_at=soon.isoformat())
    body = {"name": "x", "scopes": ["ingest"], "client": "expiring"}
    assert (await ask(shared_api, "POST", "/v1/keys", None, body)).status_code == 409
    async with asyncio.timeout(10):
        while (await ask(shared_api, "POST", "/v1/keys", None, body)).status_code != 201:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_of_many_at_once_two_are_made(module_database: TestDatabase, shared_api: Api) -> None:
    """Two workers, each asked ten times at once."""
    async with open_api(module_database) as other:
        body = {"name": "x", "scopes": ["read"], "client": "raced"}
        asked = [ask(api, "POST", "/v1/keys", None, body) for api in (shared_api, other) for _ in range(10)]
        statuses = sorted([response.status_code for response in await asyncio.gather(*asked)])
    assert statuses == [201, 201] + [409] * 18


# --- never more than the maker has ---

OWN = {
    "server_ids": ["s1", "s2"], "global_events": False, "categories": ["server"], "ips": False, "emails": False,
    "staff_as": "Support", "staff_types": ["admin"], "source_id": "node-7", "networks": ["127.0.0.0/8"],
}  # fmt: skip
BEYOND: dict[str, Any] = {
    "server_ids": ["s1", "s3"], "global_events": True, "categories": ["server", "auth"], "audit_entries": True, "ips": True,
    "emails": True, "staff_as": None, "staff_types": ["staff"], "source_id": "node-8", "networks": ["126.0.0.0/7"],
}  # fmt: skip


@pytest.fixture(scope="module")
async def limited_admin(shared_api: Api) -> str:
    """An admin key that is limited in everything, and cannot see what is noted of it only because it is said."""
    return str((await create_key(shared_api, ["admin", "read", "ingest"], **OWN))["key"])


@pytest.mark.parametrize("member", [name for name in BEYOND if name != "audit_entries"])
async def test_a_key_hands_out_no_more_than_it_has(shared_api: Api, limited_admin: str, member: str) -> None:
    """403 with the place, whichever limit it is."""
    body = {"name": "x", "scopes": ["read"], member: BEYOND[member]}
    if member == "server_ids":
        body["global_events"] = False
    response = await ask(shared_api, "POST", "/v1/keys", limited_admin, body)
    assert (response.status_code, places(response)) == (403, [f"/{member}"])
    assert (await ask(shared_api, "POST", "/v1/keys", None, body)).status_code == 201


async def test_what_is_not_said_is_as_the_maker_has_it(shared_api: Api, limited_admin: str) -> None:
    """So a key that was made without a thought is not wider than its maker."""
    made = await ask(shared_api, "POST", "/v1/keys", limited_admin, {"name": "x", "scopes": ["read"]})
    assert made.status_code == 201
    assert made.json()["limits"] == {**OWN, "actor_id": None, "actor_type": None, "audit_entries": False}
    narrower = {"server_ids": ["s2"], "global_events": False, "networks": ["127.0.0.1"]}
    made = await ask(shared_api, "POST", "/v1/keys", limited_admin, {"name": "x", "scopes": ["read"], **narrower})
    assert made.json()["limits"] == {
        **OWN,
        **narrower,
        "networks": ["127.0.0.1/32"],
        "actor_id": None,
        "actor_type": None,
        "audit_entries": False,
    }


async def test_scopes_are_handed_out_by_who_has_them(shared_api: Api, limited_admin: str) -> None:
    """With the place."""
    response = await ask(shared_api, "POST", "/v1/keys", limited_admin, {"name": "x", "scopes": ["read", "verify"]})
    assert (response.status_code, places(response)) == (403, ["/scopes"])


# --- bad input ---

SECRET = "ghp_" + "a1B2" * 9
BAD: list[tuple[dict[str, Any], str]] = [
    ({"server_ids": []}, "/server_ids"), ({"server_ids": "s1"}, "/server_ids"), ({"server_ids": ["s1"]}, "/global_events"),
    ({"server_ids": [""], "global_events": True}, "/server_ids/0"), ({"server_ids": [5], "global_events": True}, "/server_ids/0"),
    ({"server_ids": ["x" * 256], "global_events": True}, "/server_ids/0"),
    ({"server_ids": ["a\nb"], "global_events": True}, "/server_ids/0"),
    ({"server_ids": ["s"] * 1001, "global_events": True}, "/server_ids"), ({"global_events": "true"}, "/global_events"),
    ({"global_events": 1}, "/global_events"), ({"global_events": None}, "/global_events"), ({"categories": []}, "/categories"),
    ({"categories": [""]}, "/categories/0"), ({"categories": [SECRET]}, "/categories"), ({"categories": ["a"] * 101}, "/categories"),
    ({"source_id": ""}, "/source_id"), ({"source_id": 5}, "/source_id"), ({"source_id": SECRET}, "/source_id"),
    ({"networks": []}, "/networks"), ({"networks": [CANARY]}, "/networks/0"), ({"networks": ["192.0.2.1/24"]}, "/networks/0"),
    ({"networks": ["192.0.2.0/33"]}, "/networks/0"), ({"networks": [3221225985]}, "/networks/0"), ({"networks": ["0x7f.1"]}, "/networks/0"),
    ({"networks": ["fe80::1%eth0"]}, "/networks/0"), ({"networks": ["192.0.2.0/24"] * 101}, "/networks"),
    ({"ips": "no"}, "/ips"), ({"emails": 0}, "/emails"), ({"staff_as": ""}, "/staff_as"), ({"staff_as": SECRET}, "/staff_as"),
    ({"staff_as": "x" * 201}, "/staff_as"), ({"staff_types": []}, "/staff_types"), ({"staff_types": [5]}, "/staff_types/0"),
    ({"client": ""}, "/client"), ({"client": SECRET}, "/client"), ({"client": 5}, "/client"), ({"audit_entries": "x"}, "/audit_entries"),
    ({"scopes": ["read", CANARY]}, "/scopes/1"), ({"own_actions_of": "u1"}, "/own_actions_of"), ({"log_id": 5}, "/log_id"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "pointer"), BAD)
async def test_a_bad_limit_is_refused_with_its_place(shared_api: Api, members: dict[str, Any], pointer: str) -> None:
    """422, the place, and never the value."""
    response = await ask(shared_api, "POST", "/v1/keys", None, {"name": "x", "scopes": ["read"], **members})
    assert (response.status_code, places(response)) == (422, [pointer])
    assert SECRET not in response.text
    assert CANARY not in response.text


# --- what workers may not do ---


async def test_a_worker_cannot_take_a_revocation_back(module_database: TestDatabase, shared_api: Api) -> None:
    """Not even by SQL: noting that a key was used, or anything else that writes to its row, never brings it back."""
    created = await create_key(shared_api, ["read"])
    assert (await ask(shared_api, "DELETE", f"/v1/keys/{created['key_id']}")).status_code == 204
    worker = await module_database.serving()
    try:
        for value in ("NULL", "now()", "revoked_at + interval '1 year'"):
            with pytest.raises(Exception, match="stays revoked"):
                await worker.execute(
                    f"UPDATE audit.api_key SET revoked_at = {value} WHERE key_id = $1", created["key_id"]
                )
        await worker.execute("UPDATE audit.api_key SET last_used_at = now() WHERE key_id = $1", created["key_id"])
        for member in ("limits = '{}'", "scopes = '{admin}'", "expires_at = NULL", "client = NULL", "log_id = 1"):
            with pytest.raises(Exception, match="permission denied"):
                await worker.execute(f"UPDATE audit.api_key SET {member} WHERE key_id = $1", created["key_id"])
    finally:
        await worker.close()
    assert (await ask(shared_api, "GET", "/v1/events", created["key"])).status_code == 401


# --- an admin of a part ---


@pytest.fixture
async def part(shared_api: Api) -> dict[str, str]:
    """The keys of an admin of one server and of others of theirs, and another's token."""
    own = {"server_ids": ["s1"], "global_events": False}
    admin = await create_key(shared_api, ["read", "admin", "viewer"], **own)
    theirs = await create_key(shared_api, ["read"], **own)
    other = await create_key(shared_api, ["read"], server_ids=["secret-server"], global_events=True)
    token = await ask(shared_api, "POST", "/v1/viewer-tokens", None, {"server_ids": ["secret-server"]})
    assert token.status_code == 201
    return {
        "admin": admin["key"],
        "theirs": theirs["key_id"],
        "other": other["key_id"],
        "token": token.json()["token_id"],
    }


async def test_an_admin_of_a_part_is_told_of_its_part_alone(shared_api: Api, part: dict[str, str]) -> None:
    listed = await ask(shared_api, "GET", "/v1/keys", part["admin"])
    assert part["theirs"] in listed.text
    assert part["other"] not in listed.text
    tokens = await ask(shared_api, "GET", "/v1/viewer-tokens", part["admin"])
    notes = await ask(shared_api, "GET", "/v1/events?action=audit.*", part["admin"])
    assert [answer.status_code for answer in (listed, tokens, notes)] == [200, 200, 200]
    assert all("secret-server" not in answer.text for answer in (listed, tokens, notes))
    assert notes.json()["events"] == []


async def test_an_admin_of_a_part_ends_and_renews_nothing_beyond_it(shared_api: Api, part: dict[str, str]) -> None:
    renewal = f"/v1/viewer-tokens/{part['token']}/renew"
    for method, path in (
        ("DELETE", f"/v1/keys/{part['other']}"),
        ("DELETE", f"/v1/viewer-tokens/{part['token']}"),
        ("POST", renewal),
    ):
        body = {"expires_in_seconds": 3600} if method == "POST" else None
        assert (await ask(shared_api, method, path, part["admin"], body)).status_code == 404
    assert (await ask(shared_api, "POST", renewal, None, {"expires_in_seconds": 600})).status_code == 200
    assert (await ask(shared_api, "DELETE", f"/v1/keys/{part['theirs']}", part["admin"])).status_code == 204


async def test_no_sender_passes_for_the_service(shared_api: Api) -> None:
    for name in ("audit-service", "Audit-Service"):
        answer = await shared_api.post({"action": "key.created", "source": {"id": name, "seq": 1}})
        assert (answer.status_code, places(answer)) == (422, ["/source/id"])
        key = await ask(shared_api, "POST", "/v1/keys", None, {"name": "x", "scopes": ["ingest"], "source_id": name})
        assert (key.status_code, places(key)) == (422, ["/source_id"])
