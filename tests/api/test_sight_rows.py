"""Rows that are not seen: nothing of them is in any answer, a foreign id is an unknown one, and the whole log is for who sees all of it."""

import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from audit_service import retention
from audit_service.app import create_app
from audit_service.core.control import SOURCE_ID
from audit_service.core.sight import EVERYTHING, Sight
from audit_service.settings import Settings
from tests.support.api import Api
from tests.support.appends import owner
from tests.support.apps import open_api
from tests.support.forgetting import AUTHOR, retention_pools
from tests.support.postgres import TestDatabase, default_log_id
from tests.support.sights import NOON, TARGET, Event, Reader, add_reader, canaries_in
from tests.support.signing import TestSigner

SERVER, ACTION, CANARY = "s1", "server.updated", "foreign-canary"
OWN_ACTIONS = "audit.drop"


def _event(name: str, seconds: int, server_id: str | None, actor_id: str, **more: Any) -> Event:
    return {
        "id": name, "occurred_at": (NOON - timedelta(seconds=600 - seconds)).isoformat(), "action": ACTION, "category": "server",
        "server_id": server_id, "actor": {"type": "user", "id": actor_id}, "target": TARGET,
        "changes": [{"path": "/ram", "op": "replace", "old": seconds, "new": seconds + 1}], **more,
    }  # fmt: skip


# What retention takes, then what is seen by one and all, then what no limited reader sees: of another server, category and actor.
GOING = [_event("gone-own", 1, SERVER, "u1"), _event("gone-foreign", 2, "s2", "u1")]
OWN = [
    _event("own-1", 100, SERVER, "u1"),
    _event("own-2", 110, SERVER, "u1", related=[{"type": "node", "id": "n1"}]),
    _event("own-3", 300, SERVER, "u1", action="server.viewed", changes=[]),
]
FOREIGN = [
    _event(
        name, seconds, "s2", f"{CANARY}-actor", category=CANARY, action=f"{CANARY}.done", description=CANARY,
        actor={"type": f"{CANARY}-type", "id": f"{CANARY}-actor", "name": CANARY, "role": f"{CANARY}-role"},
        target=TARGET, related=[{"type": "node", "id": "n1"}], source={"id": CANARY, "seq": seconds},
        changes=[{"path": f"/{CANARY}", "op": "replace", "old": 1, "new": 2}],
    )
    for name, seconds in (("foreign-1", 105), ("foreign-2", 350))
] + [
    _event(
        "foreign-3", 360, "s2", f"{CANARY}-actor", category=CANARY, action=f"{CANARY}.made",
        target={"type": f"{CANARY}-kind", "id": f"{CANARY}-target"},
    ),
]  # fmt: skip
GLOBAL = [_event("global-1", 200, None, "u1", action="role.edited", target={"type": "node", "id": "n1"})]
SIZE = len(GOING + OWN + FOREIGN + GLOBAL) + 1  # and what the service says of what it forgot
# Reader → what it may see, and the ids it does see.
LIMITED: Mapping[str, tuple[Sight, set[str]]] = {
    "servers": (Sight(server_ids=frozenset({SERVER, "s3"})), {"own-1", "own-2", "own-3", "global-1"}),
    "servers alone": (Sight(server_ids=frozenset({SERVER, "s3"}), global_events=False), {"own-1", "own-2", "own-3"}),
    "many servers": (
        Sight(server_ids=frozenset({SERVER, *(f"other-{number}" for number in range(100))})),
        {"own-1", "own-2", "own-3", "global-1"},
    ),
    "categories": (Sight(categories=frozenset({"server", "x"})), {"own-1", "own-2", "own-3", "global-1"}),
    "actor": (Sight(actor_id="u1"), {"own-1", "own-2", "own-3", "global-1"}),
    "servers and grant": (
        Sight(server_ids=frozenset({SERVER, "s3"}), own_entries=True, global_events=False),
        {"own-1", "own-2", "own-3"},
    ),
}
ACTIVITY, HISTORY = f"/v1/servers/{SERVER}/activity", "/v1/targets/server/77/history"
AROUND = f"{ACTIVITY}?around={NOON:%Y-%m-%dT%H:%M:%SZ}"
PATHS = [
    "/v1/events", "/v1/events?sort=seq&count=capped", "/v1/events?sort=occurred_at&limit=2", "/v1/events?q=web", "/v1/events?fold=burst",
    f"/v1/events?action=server.*&action={CANARY}.*", "/v1/events?category.not=server", "/v1/events?changed=/ram",
    "/v1/events?server_id=none", ACTIVITY, f"{ACTIVITY}?fold=burst", AROUND,
    "/v1/facets", "/v1/facets?verb=UPDATE", f"/v1/servers/{SERVER}/facets",
    "/v1/timeline?interval=hour", f"/v1/servers/{SERVER}/timeline", HISTORY, f"{HISTORY}?at={NOON:%Y-%m-%dT%H:%M:%SZ}",
    f"{HISTORY}?fold=burst",
    f"/v1/targets/{CANARY}-kind/{CANARY}-target/history", "/v1/targets/node/n1/history",
    "/v1/export?format=csv", "/v1/export?format=json", "/v1/export?format=ndjson",
    *(f"/v1/events/{name}{what}" for name in ("own-1", "own-2", "own-3") for what in ("", "/revert", "/proof")),
]  # fmt: skip
# What is asked for has the canary in it, and so may the link to the next page.
ECHOING = {f"/v1/events?action=server.*&action={CANARY}.*", f"/v1/targets/{CANARY}-kind/{CANARY}-target/history"}


@dataclass(frozen=True, slots=True)
class Log:
    """A log of events that some see and some do not, signed; and who reads it."""

    api: Api
    whole: Reader
    plain: Reader  # as an ordinary key: all that panels sent
    limited: Mapping[str, Reader]
    settings: Settings


@pytest.fixture(scope="module")
async def log(module_database: TestDatabase) -> AsyncIterator[Log]:
    log_id = await default_log_id(module_database)
    async with open_api(module_database) as api, owner(module_database) as admin:
        await api.accept(*GOING)
        async with retention_pools(module_database) as pools:
            await retention.clear(pools, log_id, AUTHOR)
        await api.accept(*FOREIGN, *OWN, *GLOBAL)
        signer = TestSigner(admin, log_id)
        await signer.store_tiles()
        await signer.sign()
        limited = {name: await add_reader(api, sight) for name, (sight, _) in LIMITED.items()}
        whole, plain = await add_reader(api, EVERYTHING), await add_reader(api, Sight())
        yield Log(api, whole, plain, limited, Settings(database_url=module_database.serving_url))
        await api.assert_intact(SIZE)


@pytest.mark.parametrize("name", LIMITED)
async def test_nothing_of_what_is_not_seen_is_in_any_answer(name: str, log: Log) -> None:
    for path in PATHS:
        response = await log.limited[name].get(path)
        assert response.status_code == 200, (path, response.text)
        assert path in ECHOING or canaries_in(response, [CANARY, "foreign-1", OWN_ACTIONS]) == [], path
        if path in ECHOING:
            assert all(event["id"] in LIMITED[name][1] for event in response.json()["events"])


async def test_who_sees_everything_finds_it_in_most_of_them(log: Log) -> None:
    """The control: at least in every kind of answer that shows any event."""
    found = {path: canaries_in(await log.whole.get(path), [CANARY, "foreign-1"]) != [] for path in PATHS}
    blind = {path.partition("?")[0] for path, finds in found.items() if not finds}
    showing = {path.partition("?")[0] for path, finds in found.items() if finds}
    assert showing == {
        "/v1/events", ACTIVITY, "/v1/facets", HISTORY, "/v1/export", f"/v1/targets/{CANARY}-kind/{CANARY}-target/history",
    }  # fmt: skip
    assert blind - showing == {
        f"/v1/servers/{SERVER}/facets", "/v1/timeline", f"/v1/servers/{SERVER}/timeline", "/v1/targets/node/n1/history",
        *(path for path in PATHS if path.startswith("/v1/events/own-")),
    }  # fmt: skip


@pytest.mark.parametrize("name", LIMITED)
async def test_exactly_what_is_seen_is_listed_and_counted(name: str, log: Log) -> None:
    reader, seen = log.limited[name], LIMITED[name][1]
    page = await reader.json("/v1/events?count=capped")
    assert {event["id"] for event in page["events"]} == seen
    assert (page["count"], page["count_capped"]) == (len(seen), False)
    assert (await reader.json("/v1/facets"))["counted"] == len(seen)
    timeline = (await reader.json("/v1/timeline?interval=hour"))["timeline"]
    assert sum(bucket["count"] for bucket in timeline) == len(seen)
    lines = (await reader.get("/v1/export?format=csv")).text.splitlines()
    assert len(lines) == 1 + len(seen)


@pytest.mark.parametrize("name", LIMITED)
async def test_a_foreign_id_answers_as_an_unknown_one(name: str, log: Log) -> None:
    """Also when its content is gone, for nobody can say any more whose it was; who sees every entry is told so."""
    for what in ("", "/revert", "/proof"):
        unknown = await log.limited[name].get(f"/v1/events/never{what}")
        assert unknown.status_code == 404
        for event_id in ("foreign-1", "gone-foreign", "gone-own"):
            response = await log.limited[name].get(f"/v1/events/{event_id}{what}")
            assert (response.status_code, response.content) == (404, unknown.content), event_id
        assert (await log.plain.get(f"/v1/events/foreign-1{what}")).status_code == 200
        assert (await log.plain.get(f"/v1/events/gone-foreign{what}")).status_code == 410


@pytest.mark.parametrize("what", ["activity", "facets", "timeline"])
async def test_a_server_that_is_not_allowed_is_unknown_and_one_without_events_is_empty(what: str, log: Log) -> None:
    reader = log.limited["servers"]
    foreign = await reader.get(f"/v1/servers/s2/{what}")
    never = await reader.get(f"/v1/servers/never/{what}")
    assert foreign.status_code == 404
    assert foreign.content == never.content
    empty = await reader.json(f"/v1/servers/s3/{what}")
    assert empty.get("events", []) == []
    assert empty.get("timeline", []) == []
    assert empty.get("counted", 0) == 0
    assert (await log.plain.get(f"/v1/servers/s2/{what}")).status_code == 200


@pytest.mark.parametrize("server_id", ["s2", "never"])
async def test_a_filter_on_another_server_finds_and_counts_nothing(server_id: str, log: Log) -> None:
    reader = log.limited["servers"]
    page = await reader.json("/v1/events?count=capped", server_id=server_id)
    assert page == {"events": [], "next_cursor": None, "count": 0, "count_capped": False}
    facets = await reader.json("/v1/facets", server_id=server_id)
    assert facets["counted"] == 0
    assert all(facet == {"values": [], "more": False} for facet in facets["facets"].values())
    assert (await reader.json("/v1/timeline", server_id=server_id))["timeline"] == []
    assert len((await reader.get("/v1/export?format=csv", server_id=server_id)).text.splitlines()) == 1


async def test_a_history_of_what_is_seen_claims_no_more_than_that(log: Log) -> None:
    """What others did between reads as drift where it is not seen, and nobody knows what else they did."""
    state = (await log.limited["servers"].json(HISTORY))["state"]
    assert (state["exists"], state["complete"], state["drift"], state["drift_total"]) == (True, False, [], 0)
    assert state["fields"]["/ram"]["value"] == 111
    seen = (await log.whole.json(HISTORY))["state"]
    assert seen["drift_total"] > 0


# --- the service's entries about itself ---


async def test_the_service_s_entries_need_a_grant(log: Log) -> None:
    entries = (await log.whole.json("/v1/events?action=audit.*"))["events"]
    # Each export and verification so far was noted as well.
    (own_id,) = [entry["id"] for entry in entries if entry["action"] == "audit.drop"]
    for path in ("/v1/events?action=audit.*&count=capped", "/v1/events?category=audit&count=capped"):
        assert (await log.plain.json(path))["count"] == 0
        assert (await log.whole.json(path))["count"] == len(entries)
    for what in ("", "/revert", "/proof"):
        assert (await log.plain.get(f"/v1/events/{own_id}{what}")).status_code == 404
        assert (await log.whole.get(f"/v1/events/{own_id}{what}")).status_code == 200
    for path in ("/v1/events", "/v1/facets", "/v1/export?format=ndjson"):
        assert canaries_in(await log.plain.get(path), [OWN_ACTIONS]) == [], path
        assert canaries_in(await log.whole.get(path), [OWN_ACTIONS]) != [], path
    shown = len(OWN + FOREIGN + GLOBAL)
    assert (await log.plain.json("/v1/facets"))["counted"] == shown
    noted = (await log.whole.json("/v1/events?action=audit.*&count=capped"))["count"]
    assert (await log.whole.json("/v1/facets"))["counted"] == shown + noted


async def test_the_service_is_a_producer_for_who_sees_its_entries(log: Log) -> None:
    async def ids(reader: Reader, **asked: str) -> list[str]:
        return [source["id"] for source in (await reader.json("/v1/sources", **asked))["sources"]]

    assert await ids(log.whole) == [SOURCE_ID, CANARY] or await ids(log.whole) == [CANARY]
    assert SOURCE_ID not in await ids(log.plain)
    assert await ids(log.plain, source=SOURCE_ID) == []
    assert CANARY in await ids(log.plain)


# --- the whole log ---

SEEN = {
    "/v1/events", "/v1/events/{event_id}", "/v1/events/{event_id}/proof", "/v1/events/{event_id}/revert", "/v1/export",
    "/v1/facets", "/v1/servers/{server_id}/activity", "/v1/servers/{server_id}/facets", "/v1/servers/{server_id}/timeline",
    "/v1/targets/{target_type}/{target_id}/history", "/v1/timeline",
}  # fmt: skip
# Route → how it is asked for.
WHOLE: Mapping[str, str] = {
    "/v1/chain": "/v1/chain",
    "/v1/chain/verify": "/v1/chain/verify",
    "/v1/chain/checkpoint": "/v1/chain/checkpoint",
    "/v1/chain/checkpoints": "/v1/chain/checkpoints",
    "/v1/chain/inclusion": "/v1/chain/inclusion?seq=0",
    "/v1/chain/consistency": "/v1/chain/consistency?from_size=1",
    "/v1/evidence": "/v1/evidence?q=web",
    "/v1/sources": "/v1/sources",
    "/v1/retention/requests": "/v1/retention/requests",
    "/v1/retention/requests/{request_id}": "/v1/retention/requests/never",
    "/v1/erasures/requests": "/v1/erasures/requests",
    "/v1/erasures/requests/{request_id}": "/v1/erasures/requests/never",
    "/tlog/{log_key}/checkpoint": "/tlog/{log_key}/checkpoint",
    "/tlog/{log_key}/tile/{path}": "/tlog/{log_key}/tile/0/000.p/1",
}
# What gives nothing of the log away: keys and tokens are those of the tenant, and the rest is of the process.
BESIDE = {"/v1/keys", "/v1/tenants", "/v1/viewer-tokens", "/healthz", "/readyz", "/metrics"}
PARTS = {
    "servers": Sight(server_ids=frozenset({SERVER}), own_entries=True),
    "not global": Sight(global_events=False, own_entries=True),
    "category": Sight(categories=frozenset({"server"}), own_entries=True),
    "actor": Sight(actor_id="u1", own_entries=True),
    "no addresses": Sight(ips=False, own_entries=True),
    "no e-mails": Sight(emails=False, own_entries=True),
    "no staff": Sight(staff_as="Support", own_entries=True),
}
SCOPES = ("read", "export", "verify", "admin")


def test_every_route_that_reads_has_its_rule(log: Log) -> None:
    document = create_app(log.settings).openapi()
    reading = {path for path, methods in document["paths"].items() if "get" in methods}
    assert reading - BESIDE == SEEN | WHOLE.keys()


@pytest.mark.parametrize("part", PARTS)
async def test_the_whole_log_is_for_who_sees_all_of_it(part: str, log: Log) -> None:
    own = await log.api.service.credential(log.api.client.headers["authorization"].removeprefix("Bearer "))
    assert own is not None
    partly = await add_reader(log.api, PARTS[part], SCOPES)
    wholly = await add_reader(log.api, Sight(), SCOPES)
    for path in WHOLE.values():
        spelled = path.format(log_key=own.log_key)
        refused = await partly.get(spelled)
        assert (refused.status_code, refused.json()["detail"]) == (
            403, "this speaks of the whole log, and the credential sees a part of it",
        ), spelled  # fmt: skip
        answered = await wholly.get(spelled)
        assert answered.status_code == (404 if spelled.endswith("/never") else 200), (spelled, answered.text)


@pytest.mark.parametrize("path", ["/v1/retention/requests", "/v1/erasures/requests"])
async def test_nobody_asks_to_forget_what_they_do_not_see(path: str, log: Log) -> None:
    partly = await add_reader(log.api, PARTS["servers"], SCOPES)
    body = {"reason": "test", "dry_run": True, "action": "clear"}
    if "erasures" in path:
        body = {"reason": "test", "dry_run": True, "events": ["foreign-1"]}
    for key, status in ((partly.key, 403), (log.api.client.headers["authorization"].removeprefix("Bearer "), 200)):
        response = await log.api.client.post(path, json=body, headers={"Authorization": f"Bearer {key}"})
        assert response.status_code == status, response.text


async def test_who_sees_a_part_makes_no_key_that_sees_all(log: Log) -> None:
    partly = await add_reader(log.api, PARTS["servers"], SCOPES)
    headers = {"Authorization": f"Bearer {partly.key}"}
    more = {"name": "more", "scopes": ["read"]}
    beyond = more | {"server_ids": ["never-was"], "global_events": False}
    assert (await log.api.client.post("/v1/keys", json=beyond, headers=headers)).status_code == 403
    response = await log.api.client.post("/v1/keys", json=more, headers=headers)
    assert response.status_code == 201
    assert response.json()["limits"]["server_ids"] == sorted(PARTS["servers"].server_ids or ())


# --- cursors ---


async def test_a_cursor_is_bound_to_the_sight(log: Log) -> None:
    for path in ("/v1/events?limit=1", "/v1/events?limit=1&fold=burst", f"{ACTIVITY}?limit=1", f"{HISTORY}?limit=1"):
        cursor = (await log.limited["servers"].json(path))["next_cursor"]
        again = await add_reader(log.api, Sight(server_ids=frozenset({"s3", SERVER})))
        assert (await again.get(path, cursor=cursor)).status_code == 200
        hiding = await add_reader(log.api, replace(LIMITED["servers"][0], ips=False))
        for other in (log.whole, log.plain, log.limited["servers alone"], log.limited["many servers"], hiding):
            response = await other.get(path, cursor=cursor)
            assert response.status_code == 400
            assert response.json()["errors"][0]["parameter"] == "cursor"


def test_a_sight_is_spelled_the_same_in_every_process() -> None:
    """Sets have no order of their own, and another one in each process: a cursor would be good in one worker only."""
    program = (
        "from audit_service.core.sight import Sight; "
        "print(repr(Sight(server_ids=frozenset(map(str, range(50))), categories=frozenset('abc'))))"
    )
    spelled = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed, "PYTHONPATH": path}
        ).stdout
        for seed in ("1", "2", "3")
        for path in [":".join(sys.path)]
    }  # fmt: skip
    assert len(spelled) == 1
