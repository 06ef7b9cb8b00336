"""The log watches itself: what the service notes of requests, where, and what it never notes."""

import json
import secrets
from collections.abc import AsyncIterator, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from audit_service import export as exporting
from audit_service import watch as watching
from audit_service.app import create_app
from audit_service.core.api_key import format_key
from audit_service.core.forgetting import Person, Target
from audit_service.core.refusals import KINDS_LIMIT
from audit_service.errors import UnavailableError
from audit_service.retention import erase
from audit_service.settings import Settings
from audit_service.store.credentials import SYSTEM_TENANT
from tests.support.api import Api
from tests.support.appends import owner, wait_until
from tests.support.apps import add_key, dump, open_api
from tests.support.credentials import create_key
from tests.support.forgetting import AUTHOR, REFERENCE, retention_pools
from tests.support.postgres import BOOTSTRAP_KEY, Server, TestDatabase, default_log_id, log_id_of

UNKNOWN_KEY = format_key(bytes(48))


@pytest.fixture
async def system(database: TestDatabase) -> AsyncIterator[Api]:
    """The service's own log, for somebody who may read it. An app of its own: what `api` counted, only `api` writes."""
    key = await add_key(database, await log_id_of(database, SYSTEM_TENANT))
    async with open_api(database, key=key) as opened:
        yield opened


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def try_key(api: Api, key: str, path: str = "/v1/events") -> int:
    """The status of a GET with another key."""
    return (await api.client.get(path, headers=bearer(key))).status_code


# --- acts of administration ---


async def test_a_key_that_is_made_and_one_that_is_revoked(api: Api) -> None:
    made = (await api.client.post("/v1/keys", json={"name": "panel", "scopes": ["read", "ingest"]})).json()
    assert (await api.client.delete(f"/v1/keys/{made['key_id']}")).status_code == 204
    revoked, created = await api.notes()
    assert [created["action"], revoked["action"]] == ["audit.key.created", "audit.key.revoked"]
    assert created["target"] == {"type": "api_key", "id": made["key_id"], "name": "panel", "url": None}
    assert revoked["target"]["id"] == made["key_id"]
    limits = (await api.client.get("/v1/keys")).json()["keys"][-1]["limits"]
    said = {"scopes": ["ingest", "read"], "client": None, "limits": limits, "expires_at": None}
    assert {name: created["metadata"].get(name) for name in said} == said
    assert created["actor"]["type"] == "api_key"
    assert created["actor"]["id"].startswith("bootstrap-")
    assert (created["context"]["ip"], created["source"], created["kind"]) == (
        "127.0.0.1",
        {"id": "audit-service"},
        "event",
    )
    assert (created["category"], created["verb"], created["outcome"]) == ("audit", "CREATE", "success")
    await api.assert_intact(0)


async def test_the_note_of_a_token_tells_whose_actions_it_shows_by_a_keyed_hash(api: Api) -> None:
    """An actor's id may be an e-mail address. The token itself keeps it, for it is what events are compared with."""
    person = "ana@example.com"
    issued = []
    for actor in (person, person, "ben@example.com"):
        answer = await api.client.post("/v1/viewer-tokens", json={"server_ids": "all", "own_actions_of": actor})
        assert (answer.status_code, answer.json()["limits"]["actor_id"]) == (201, actor)
        issued.append(answer.json()["token_id"])
    notes = {note["target"]["id"]: note for note in await api.notes() if note["action"] == "audit.viewer_token.issued"}
    assert "@example.com" not in json.dumps([*notes.values()])
    first, second, other = (notes[token_id]["metadata"]["limits"]["actor_id"] for token_id in issued)
    assert first == second != other
    await api.assert_intact(0)


async def test_a_key_that_cannot_be_noted_is_told_to_nobody(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database goes away between the act and its note: 503, and what was made can be used by nobody."""

    async def unavailable(*_: object) -> None:
        raise UnavailableError("the database is not reachable")

    await api.accept({"action": "x"})  # what the appender needs is known from here on
    monkeypatch.setattr(watching, "append_sealed", unavailable)
    response = await api.client.post("/v1/keys", json={"name": "lost", "scopes": ["read"]})
    assert response.status_code == 503
    assert b"aud_" not in response.content
    spare = (await api.client.get("/v1/keys")).json()["keys"][-1]
    assert spare["name"] == "lost"
    assert (await api.client.delete(f"/v1/keys/{spare['key_id']}")).status_code == 503
    monkeypatch.undo()
    (found,) = [key for key in (await api.client.get("/v1/keys")).json()["keys"] if key["key_id"] == spare["key_id"]]
    assert found["revoked_at"] is not None  # a key that leaked must go, noted or not
    assert await api.notes() == []
    assert (await api.client.delete(f"/v1/keys/{spare['key_id']}")).status_code == 204
    assert [note["target"]["id"] for note in await api.notes()] == [spare["key_id"]]


async def test_a_request_to_forget_is_noted_and_a_dry_run_is_not(api: Api) -> None:
    asked = {"actor": {"id": "ana"}, "reason": "asked for", "reference": "case 7"}
    response = await api.client.post("/v1/erasures/requests", json={**asked, "dry_run": True})
    assert (response.status_code, await api.notes()) == (200, [])
    made = (await api.client.post("/v1/erasures/requests", json=asked)).json()
    (note,) = await api.notes()
    assert (note["action"], note["target"]["id"]) == ("audit.request.created", made["id"])
    assert note["metadata"] == {"kind": "erasure"}
    assert "ana" not in json.dumps(note)


# --- what ends ---


async def test_an_export_says_how_much_went_out_and_no_search_text(api: Api) -> None:
    await api.accept(*({"action": "x.y", "actor": {"name": "Ana Canary"}} for _ in range(3)), {"action": "z"})
    response = await api.client.get("/v1/export", params={"actor": "ana*", "action": "x.*", "format": "csv"})
    (note,) = await api.notes()
    assert (note["action"], note["outcome"]) == ("audit.export.finished", "success")
    size_bytes = len(response.content)
    assert note["metadata"] == {
        "format": "csv", "filters": ["action", "actor"], "entries": 3, "bytes": size_bytes, "ended": "complete"
    }  # fmt: skip
    assert "ana" not in json.dumps(note).lower()
    await api.assert_intact(4)


async def test_an_export_that_fails_is_noted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.accept({"action": "x"})

    async def broken(*_: object, **__: object) -> AsyncIterator[bytes]:
        yield b"first"
        raise UnavailableError("the database is not reachable")

    monkeypatch.setattr(exporting, "export", broken)
    assert (await api.client.get("/v1/export")).content == b"first"
    await api.service.watch.settle()
    (note,) = await api.notes()
    assert (note["outcome"], note["metadata"]["ended"], note["metadata"]["bytes"]) == ("failure", "failed", 5)


async def test_a_verification_is_noted_with_what_it_found(api: Api) -> None:
    await api.accept({"action": "x"}, {"action": "y"})
    await api.verify(from_seq=1)
    (note,) = await api.notes()
    assert (note["action"], note["outcome"]) == ("audit.verify.finished", "success")
    assert note["metadata"] == {
        "depth": "all", "from_seq": 1, "to_seq": 2, "entries": 1, "status": "ok", "breaks": 0, "ended": "complete"
    }  # fmt: skip
    report = await api.verify()
    assert (report["status"], report["checked"]["count"]) == ("ok", 3)


async def test_a_verification_that_was_asked_for_wrongly_is_none(api: Api) -> None:
    assert (await api.client.get("/v1/chain/verify?from_seq=9")).status_code == 400
    await api.service.watch.settle()
    assert await api.notes() == []


# --- 401 and 403 ---


async def test_a_key_that_never_was_is_told_to_the_service_alone(api: Api, system: Api) -> None:
    mistyped = UNKNOWN_KEY[:-1] + ("a" if UNKNOWN_KEY[-1] != "a" else "b")
    assert [await try_key(api, key) for key in (UNKNOWN_KEY, UNKNOWN_KEY, mistyped)] == [401] * 3
    assert (await api.client.post("/v1/events", json={}, headers={"Authorization": ""})).status_code == 401
    assert await system.notes() == []  # not before its minute is over
    await api.service.watch.settle()
    notes = {note["reason"]: note for note in await system.notes()}
    assert notes.keys() == {"an unknown key", "a mistyped key", "no credential"}
    note = notes["an unknown key"]
    assert (note["action"], note["outcome"], note["actor"], note["context"]["ip"]) == (
        *("audit.auth.failed", "failure", None, "127.0.0.1"),
    )
    counted = note["metadata"]
    assert (counted["count"], counted["routes"]) == (2, ["GET /v1/events"])
    assert counted["first"] < counted["last"] == note["occurred_at"]
    assert notes["no credential"]["metadata"]["routes"] == ["POST /v1/events"]
    assert await api.notes() == []


async def test_a_key_that_was_good_once_is_told_to_its_tenant(database: TestDatabase, api: Api, system: Api) -> None:
    log_id = await default_log_id(database)
    expired = await add_key(database, log_id, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    made = (await api.client.post("/v1/keys", json={"name": "x", "scopes": ["read"]})).json()
    await api.client.delete(f"/v1/keys/{made['key_id']}")
    assert [await try_key(api, key) for key in (expired, made["key"])] == [401, 401]
    await api.service.watch.settle()
    failed = {note["reason"]: note for note in await api.notes() if note["action"] == "audit.auth.failed"}
    assert failed.keys() == {"an expired key", "a revoked key"}
    assert failed["a revoked key"]["actor"] == {
        "type": "api_key", "id": made["key_id"], "name": None, "email": None, "role": None
    }  # fmt: skip
    assert await system.notes() == []


async def test_what_a_credential_may_not_is_told_to_its_tenant(database: TestDatabase, api: Api) -> None:
    key = await add_key(database, await default_log_id(database), ["ingest"])
    assert [await try_key(api, key, path) for path in ("/v1/events", "/v1/facets", "/v1/keys")] == [403] * 3
    await api.service.watch.settle()
    notes = {note["reason"]: note for note in await api.notes()}
    assert notes.keys() == {"without the scope read", "without the scope admin"}
    note = notes["without the scope read"]
    assert (note["action"], note["outcome"]) == ("audit.access.denied", "failure")
    assert note["metadata"]["routes"] == ["GET /v1/events", "GET /v1/facets"]
    assert note["actor"]["id"] == key[4:16]


async def test_each_event_beyond_the_limits_is_counted_whatever_it_came_in(api: Api) -> None:
    """By itself, in batches taken in part or not at all, in a stream, and by an adapter; nothing for what is only wrong."""
    node = await create_key(api, ["ingest"], server_ids=["s1"], global_events=False)
    good, beyond, wrong = {"action": "x", "server_id": "s1"}, {"action": "x", "server_id": "s2"}, {"server_id": "s1"}
    lines = "\n".join(json.dumps(one) for one in (good, beyond, wrong, beyond))
    ndjson, splunk = {"Content-Type": "application/x-ndjson"}, {"Authorization": f"Splunk {node['key']}"}
    records = "".join(json.dumps({"event": one, "time": 1763800000}) for one in (good, beyond))
    cases: list[tuple[int, str, dict[str, Any]]] = [
        (0, "/v1/events", {"json": [good, wrong]}),
        (1, "/v1/events", {"json": beyond}),
        (1, "/v1/events", {"json": [good, beyond]}),
        (3, "/v1/events", {"json": [beyond] * 3}),
        (2, "/v1/events", {"content": lines, "headers": ndjson}),
        (1, "/services/collector/event", {"content": records, "headers": splunk}),
    ]
    for count, path, options in cases:
        before = len(await api.notes())
        headers = bearer(node["key"]) | options.pop("headers", {})
        await api.client.post(path, headers=headers, **options)
        await api.service.watch.settle()
        notes = await api.notes()
        denied = notes[: len(notes) - before]
        assert [note["metadata"]["count"] for note in denied] == [count] * bool(count), (path, options)
        for note in denied:
            assert (note["action"], note["reason"]) == ("audit.access.denied", "not allowed")
            assert (note["actor"]["id"], note["metadata"]["routes"]) == (node["key_id"], [f"POST {path}"])


async def test_what_is_not_there_is_no_refusal(api: Api, system: Api) -> None:
    assert (await api.client.get("/v1/events/nothing")).status_code == 404
    await api.service.watch.settle()
    assert [*await api.notes(), *await system.notes()] == []


async def test_a_flood_makes_a_bounded_number_of_entries(database: TestDatabase, system: Api) -> None:
    """100,000 bad keys from 1,000 addresses, through the whole application."""
    app = create_app(Settings(database_url=database.serving_url))
    service = app.state.service
    bad = UNKNOWN_KEY[:-1] + ("a" if UNKNOWN_KEY[-1] != "a" else "b")

    async def ask(host: str) -> None:
        scope = {
            "type": "http", "method": "POST", "path": "/v1/events", "raw_path": b"/v1/events", "query_string": b"",
            "headers": [(b"authorization", b"Bearer " + bad.encode())], "client": (host, 1), "server": ("audit.test", 80),
            "scheme": "http", "http_version": "1.1",
        }  # fmt: skip
        statuses = []

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await app(scope, _nothing, send)
        assert statuses == [401]

    for number in range(100_000):
        await ask(f"10.0.{number % 1000 // 250}.{number % 250}")
    await service.close()
    notes = await system.notes()
    assert len(notes) <= 2 * (KINDS_LIMIT + 1)
    assert sum(note["metadata"]["count"] for note in notes) == 100_000
    await system.assert_intact(0)


async def _nothing() -> MutableMapping[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def test_a_database_that_is_away_makes_no_500_of_a_401(server: Server, database: TestDatabase, api: Api) -> None:
    key = await add_key(database, await default_log_id(database), ["ingest"])
    assert await try_key(api, key) == 403
    bad = UNKNOWN_KEY[:-1] + ("a" if UNKNOWN_KEY[-1] != "a" else "b")
    with server.paused():
        assert await try_key(api, bad) == 401
        assert await try_key(api, key) in {403, 503}  # who is remembered is refused, who is not cannot be looked up
        assert await try_key(api, UNKNOWN_KEY) == 503
    await api.service.watch.settle()
    assert [note["action"] for note in await api.notes()] == ["audit.access.denied"]


async def test_what_waits_is_written_when_the_service_ends(database: TestDatabase, system: Api) -> None:
    async with open_api(database) as api:
        assert await try_key(api, UNKNOWN_KEY) == 401
    assert [note["reason"] for note in await system.notes()] == ["an unknown key"]


async def test_a_count_is_written_when_its_minute_is_over(api: Api, system: Api) -> None:
    """With a shorter minute: the background task writes it, and nobody asks it to."""
    service = api.service
    service.watch = watching.Watch(service.watch_tools, window_seconds=0.2)
    assert await try_key(api, UNKNOWN_KEY) == 401

    async def is_written() -> bool:
        return bool(await system.notes())

    await wait_until(is_written, "the entry of a count")
    (note,) = await system.notes()
    assert note["metadata"]["count"] == 1


async def test_beyond_the_limit_the_newest_are_dropped_and_counted(api: Api) -> None:
    dropped: list[int] = []
    watch = watching.Watch(api.service.watch_tools, dropped=dropped.append, queue_limit_events=2)
    credential = await api.service.credential(BOOTSTRAP_KEY)
    assert credential is not None
    place = watching.Place(credential.log_id, credential.log_key)
    for number in range(5):
        watch.later(place, watching.own_event("audit.read", None, metadata={"route": f"/{number}"}))
    await watch.settle()
    assert (dropped, [note["metadata"]["route"] for note in await api.notes()]) == ([1, 1, 1], ["/1", "/0"])
    await watch.close()


async def test_a_note_is_written_once_however_often_it_is_tried(api: Api) -> None:
    credential = await api.service.credential(BOOTSTRAP_KEY)
    assert credential is not None
    place = watching.Place(credential.log_id, credential.log_key)
    event = watching.own_event("audit.key.revoked", None)
    for _ in range(3):
        await api.service.watch.note(place, event)
    assert len(await api.notes()) == 1


# --- reading ---


async def test_reading_is_not_noted_unless_asked_for(api: Api) -> None:
    await api.list()
    await api.service.watch.settle()
    assert await api.notes() == []


async def test_reading_is_noted_with_what_was_read_and_not_what_was_searched_for(database: TestDatabase) -> None:
    async with open_api(database, log_reads=True) as api:
        await api.accept({"id": "e1", "action": "x", "server_id": "s1"})
        await api.service.watch.settle()
        assert await api.notes() == []  # sending is not reading
        await api.client.get("/v1/events", params={"q": "canary", "actor.not": "ana", "limit": 5})
        await api.client.get("/v1/events/e1")
        await api.client.get("/v1/events/nothing")
        await api.client.get("/v1/servers/s1/activity")
        await api.client.get("/v1/chain")
        await api.service.watch.settle()
        activity, one, listed = [
            note for note in await api.notes() if note["metadata"]["filters"] != ["action", "limit", "sort"]
        ]
        assert listed["metadata"] == {"route": "/v1/events", "filters": ["actor.not", "limit", "q"]}
        assert (one["target"]["type"], one["target"]["id"]) == ("event", "e1")
        assert (activity["target"]["type"], activity["target"]["id"]) == ("server", "s1")
        assert {note["category"] for note in (activity, one, listed)} == {"audit-read"}
        assert "canary" not in json.dumps(listed)
        assert activity["server_id"] is None


# --- what is never in them ---


@pytest.mark.parametrize("subject", [Target("user", "canary-4711"), Person("canary-4711")])
async def test_whoever_is_erased_is_in_no_note_of_who_read_about_them(
    database: TestDatabase, subject: Target | Person
) -> None:
    """A path names the id; notes of other ids stay as they are."""
    async with open_api(database, log_reads=True) as api:
        for id_ in ("canary-4711", "canary-47"):
            await api.accept({"action": "a.b", "actor": {"id": id_}, "target": {"type": "user", "id": id_}})
            assert (await api.client.get(f"/v1/targets/user/{id_}/history")).status_code == 200
        await api.service.watch.settle()
    log_id = await default_log_id(database)
    async with retention_pools(database) as keeping, owner(database) as admin:
        done = await erase(keeping, log_id, AUTHOR, subject, reference=REFERENCE)
        rows = await admin.fetch("SELECT target_id FROM audit.entry WHERE action = 'audit.read' ORDER BY seq")
        texts = await admin.fetch(
            "SELECT 1 FROM audit.entry WHERE action = 'audit.read' AND search LIKE '%canary-4711%'"
        )
    assert done.entries == 2
    assert ([row["target_id"] for row in rows], texts) == ([None, "canary-47"], [])


async def test_no_key_and_no_secret_of_a_request_is_in_any_note(database: TestDatabase) -> None:
    """Every way to be noted, with canaries wherever a request can hold something; then the whole database is searched."""
    canaries = [secrets.token_hex(12) for _ in range(8)]
    header, query, name, agent, path, reference, typed, value = canaries
    async with open_api(database, log_reads=True) as api:
        made = (
            await api.client.post("/v1/keys", json={"name": f"password={name}", "scopes": ["admin", "read"]})
        ).json()
        api.client.headers["user-agent"] = agent
        for key in (header, f"aud_{typed}", format_key(secrets.token_bytes(48)), made["key"]):
            await api.client.get(f"/v1/export?actor={query}", headers=bearer(key))
            await api.client.get(f"/v1/events?q={query}&token={value}", headers=bearer(key))
        await api.client.get(f"/v1/export?actor={query}")
        await api.client.get(f"/v1/events?q={query}")
        await api.client.get(f"/v1/{path}")
        await api.client.delete(f"/v1/keys/{path}")
        await api.client.delete(f"/v1/keys/{made['key_id']}")
        await api.client.get("/v1/keys", headers=bearer(made["key"]))
        asked = {"actor": {"id": "u1"}, "reason": "x", "reference": reference, "dry_run": True}
        await api.client.post("/v1/erasures/requests", json=asked)
        await api.service.watch.settle()
        notes = await api.notes()
    assert {note["action"] for note in notes} >= {
        "audit.key.created", "audit.key.revoked", "audit.export.finished", "audit.access.denied", "audit.read"
    }  # fmt: skip
    dumped = dump(database.owner_url).decode().lower()
    assert [canary for canary in (*canaries, made["key"].lower()) if canary in dumped] == []
    # The search finds what is there: names of keys are kept, but for what looks like a secret in them.
    assert made["key_id"].lower() in dumped
