"""Who sees what, as one generated matrix: every endpoint that shows or counts events × every filter × cursors and exports × who asks.

Two tenants and three servers whose events share no word (`tests.support.yard`), so that a foreign word anywhere in an answer is a leak, and
a foreign count is a number where there should be none. Expired and revoked credentials, and those without the scope, get nowhere.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from audit_service.api import parameters
from audit_service.core.sight import EVERYTHING, Sight
from audit_service.indexer import index_all
from audit_service.store import engine, find, selection
from audit_service.store.limits import binding
from tests.api.test_keys import CALLS, call
from tests.support.api import Api
from tests.support.appends import owner
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.postgres import Server, TestDatabase, default_log_id
from tests.support.signing import TestSigner
from tests.support.yard import (
    GLOBAL,
    OF_FIRST,
    OF_SECOND,
    OTHER,
    OWN,
    PLACES,
    SHARED_SERVER,
    START,
    THIRD,
    Persona,
    Place,
    leaks,
    mixed,
)

READING = ("read", "export", "verify")
NO_FIELDS_HIDDEN = {"ips": True, "emails": True, "staff_as": None}
TOKENS: Mapping[str, tuple[dict[str, Any], tuple[Place, ...]]] = {
    "a token of one server": ({"server_ids": [SHARED_SERVER]}, (OWN, GLOBAL)),
    "a token of one server alone": ({"server_ids": [SHARED_SERVER], "global_events": False}, (OWN,)),
    "a token of two servers": ({"server_ids": [SHARED_SERVER, str(OTHER.server_id)]}, (OWN, OTHER, GLOBAL)),
    "a token of no server": ({"server_ids": []}, (GLOBAL,)),
    "a token of a category": ({"server_ids": "all", "categories": ["ownplace-category"]}, (OWN,)),
    "a token of own actions": ({"server_ids": "all", "own_actions_of": "ownplace-actor"}, (OWN,)),
    "a token without e-mails": ({"server_ids": [SHARED_SERVER], "emails": False}, (OWN, GLOBAL)),
    "a token with staff under one name": (
        {"server_ids": [SHARED_SERVER], "staff_as": "Support", "staff_types": ["ownplace-people", "otherplace-people"]},
        (OWN, GLOBAL),
    ),
    "a token of a type's own actions": (
        {"server_ids": "all", "own_actions_of": {"type": "ownplace-people", "id": "ownplace-actor"}},
        (OWN,),
    ),
}
KEYS: Mapping[str, tuple[dict[str, Any], tuple[Place, ...]]] = {
    "a key of one server": ({"server_ids": [SHARED_SERVER], "global_events": True}, (OWN, GLOBAL)),
    "a key of a category": ({"categories": ["ownplace-category"]}, (OWN,)),
}
WHOLE, SECOND = "a key of the tenant", "a key of the other tenant"
PERSONAS = (*TOKENS, *KEYS, WHOLE, SECOND)
LIMITED = (*TOKENS, *KEYS)


@dataclass(frozen=True, slots=True)
class Yard:
    """The app, and everybody who asks it."""

    api: Api
    personas: Mapping[str, Persona]
    indexed: bool


async def _issue(api: Api, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await api.client.post(path, json=body)
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def _sign(database: TestDatabase, log_id: int) -> None:
    async with owner(database) as admin:
        signer = TestSigner(admin, log_id)
        await signer.store_tiles()
        await signer.sign()


async def _personas(first: Api, second_key: str) -> AsyncIterator[Persona]:
    for name, (limits, places) in TOKENS.items():
        body = {**NO_FIELDS_HIDDEN, "export": True, "expires_in_seconds": 3600, **limits}
        yield Persona(name, first, (await _issue(first, "/v1/viewer-tokens", body))["token"], places)
    for name, (limits, places) in KEYS.items():
        body = {"name": name, "scopes": [*READING], **limits}
        yield Persona(name, first, (await _issue(first, "/v1/keys", body))["key"], places)
    whole = await _issue(first, "/v1/keys", {"name": "whole", "scopes": [*READING]})
    yield Persona(WHOLE, first, whole["key"], OF_FIRST)
    yield Persona(SECOND, first, second_key, OF_SECOND)


@pytest.fixture(scope="module", params=["no index", "all in the index"])
async def yard(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[Yard]:
    indexed = request.param == "all in the index"
    async with AsyncExitStack() as stack:
        if indexed:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr("audit_service.core.terms.SEGMENT_EVENTS", 8)
        database = await server.create()
        stack.push_async_callback(server.drop, database)
        first = await stack.enter_async_context(open_api(database, rate_limit_viewer_requests_per_second=0))
        log_id = await add_tenant(database, "second")
        second = await stack.enter_async_context(open_api(database, key=await add_key(database, log_id)))
        second_key = await add_key(database, log_id, READING)
        for api, places in ((first, OF_FIRST), (second, OF_SECOND)):
            await api.accept(*mixed(places))
        if indexed:
            await index_all(first.service.database)
        for one in (await default_log_id(database), log_id):
            await _sign(database, one)
        yield Yard(first, {persona.name: persona async for persona in _personas(first, second_key)}, indexed)
        for api in (first, second):
            assert (await api.verify())["status"] == "ok"


# --- what shows events or counts of them: path → how many events an answer speaks of ---


def _rows(response: httpx.Response) -> int:
    body = response.json()
    shown = sum(1 if (event.get("burst") or None) is None else event["burst"]["count"] for event in body["events"])
    return int(max(shown, body.get("count", 0)))


def _counted(response: httpx.Response) -> int:
    body = response.json()
    largest = [value["count"] for facet in body["facets"].values() for value in facet["values"]]
    return int(max([body["counted"], *largest]))


def _lines(response: httpx.Response) -> int:
    lines = response.text.splitlines()
    return len(lines) - 1  # a header, or a trailer


ENDPOINTS: Mapping[str, tuple[str, Callable[[httpx.Response], int]]] = {
    "list": ("/v1/events?limit=500&count=capped", _rows),
    "list by seq": ("/v1/events?limit=500&sort=seq", _rows),
    "bursts": ("/v1/events?fold=burst&limit=500", _rows),
    "activity": (f"/v1/servers/{SHARED_SERVER}/activity?limit=500&count=capped", _rows),
    "facets": ("/v1/facets", _counted),
    "server facets": (f"/v1/servers/{SHARED_SERVER}/facets", _counted),
    "timeline": ("/v1/timeline", lambda response: sum(one["count"] for one in response.json()["timeline"])),
    "server timeline": (
        f"/v1/servers/{SHARED_SERVER}/timeline", lambda response: sum(one["count"] for one in response.json()["timeline"])),
    "around": (f"/v1/servers/{SHARED_SERVER}/activity?around={START:%Y-%m-%dT%H:%M:%SZ}", lambda response: len(response.json()["events"])),
    "csv": ("/v1/export?format=csv", _lines),
    "json": ("/v1/export?format=json", lambda response: len(response.json()["events"])),
    "ndjson": ("/v1/export?format=ndjson", _lines),
}  # fmt: skip
OF_ONE_SERVER = {"activity", "server facets", "server timeline", "around"}
FILTERS = sorted({*OWN.asked(), *OWN.asked_once()})


def _sees_path(persona: Persona, endpoint: str) -> bool:
    """Whether the endpoint's server, if it has one, is one of theirs."""
    return endpoint not in OF_ONE_SERVER or any(place.server_id == SHARED_SERVER for place in persona.places)


async def _ask(persona: Persona, endpoint: str, **asked: Any) -> tuple[httpx.Response, int]:
    """The answer, and how many events it speaks of."""
    path, count = ENDPOINTS[endpoint]
    response = await persona.get(path, **asked)
    if not _sees_path(persona, endpoint):
        assert response.status_code == 404, response.text
        return response, 0
    assert response.status_code == 200, (persona.name, endpoint, asked, response.text)
    assert "log_size" not in response.text or persona.name not in LIMITED
    return response, count(response)


def _mine(persona: Persona, endpoint: str) -> int:
    """How many events they see there."""
    places = [place for place in persona.places if endpoint not in OF_ONE_SERVER or place.server_id == SHARED_SERVER]
    if endpoint == "around":
        places = [place for place in places if place is OWN]  # at its time
    return sum(len(place.events()) for place in places)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("name", PERSONAS)
async def test_an_answer_shows_and_counts_what_is_ones_own_and_nothing_else(
    yard: Yard, name: str, endpoint: str
) -> None:
    persona = yard.personas[name]
    response, count = await _ask(persona, endpoint)
    assert leaks(response, persona.foreign) == []
    assert count == _mine(persona, endpoint)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("name", PERSONAS)
async def test_a_filter_finds_nothing_foreign_and_says_nothing_of_it(yard: Yard, name: str, endpoint: str) -> None:
    """Asked for what only foreign events have, by every filter."""
    persona = yard.personas[name]
    if not yard.indexed and endpoint not in {"list", "timeline"}:
        return  # found without the index, the rows are the same for all
    for field, value in _foreign_values(persona, endpoint):
        response, count = await _ask(persona, endpoint, **{field: value})
        assert (count, leaks(response, persona.foreign)) == (0, []), (field, value)


@pytest.mark.parametrize("endpoint", ["list", "facets"])
@pytest.mark.parametrize("name", PERSONAS)
async def test_all_but_what_is_foreign_is_all(yard: Yard, name: str, endpoint: str) -> None:
    """The same filters negated."""
    persona = yard.personas[name]
    for field, value in _foreign_values(persona, endpoint):
        _, count = await _ask(persona, endpoint, **{f"{field}.not": value})
        assert count == _mine(persona, endpoint), (field, value)


def _foreign_values(persona: Persona, endpoint: str) -> Iterator[tuple[str, str]]:
    """Each filter with a value of another server, if one is foreign, and with one of another tenant."""
    foreign = [place for place in PLACES.values() if place not in persona.places]
    for place in {foreign[0].word: foreign[0], foreign[-1].word: foreign[-1]}.values():
        for field, value in {**place.asked(), **place.asked_once()}.items():
            if field != "server_id" or (endpoint not in OF_ONE_SERVER and value != SHARED_SERVER):
                yield field, value


@pytest.mark.parametrize("name", PERSONAS)
async def test_times_and_days_of_foreign_events_hold_nothing(yard: Yard, name: str) -> None:
    persona = yard.personas[name]
    for place in PLACES.values():
        if place in persona.places:
            continue
        hour = {"since": place.at(0).isoformat(), "until": (place.at(0) + timedelta(hours=1)).isoformat()}
        for endpoint in ("list", "facets", "timeline", "ndjson"):
            assert (await _ask(persona, endpoint, **hour))[1] == 0


def test_every_filter_of_values_is_in_the_matrix() -> None:
    """What is left out is common to all places."""
    times = {"since", "until", "recorded_since", "recorded_until", "date_from", "date_to", "tz"}
    assert set(parameters.FILTERS) - set(FILTERS) - times == {"verb", "outcome"}


# --- by id ---


@pytest.mark.parametrize("suffix", ["", "/revert", "/proof"])
@pytest.mark.parametrize("name", PERSONAS)
async def test_a_foreign_id_is_as_unknown_as_one_that_never_was(yard: Yard, name: str, suffix: str) -> None:
    persona = yard.personas[name]
    unknown = await persona.get(f"/v1/events/never-was{suffix}")
    assert unknown.status_code == 404
    for place in PLACES.values():
        response = await persona.get(f"/v1/events/{place.word}-1{suffix}")
        if place in persona.places:
            assert response.status_code == 200, response.text
            assert leaks(response, persona.foreign) == []
        else:
            assert (response.status_code, response.json()) == (404, unknown.json())


@pytest.mark.parametrize("name", PERSONAS)
async def test_a_foreign_target_has_no_history(yard: Yard, name: str) -> None:
    persona = yard.personas[name]
    never = (await persona.get("/v1/targets/never/was/history", count="capped")).json()
    for place in PLACES.values():
        response = await persona.get(f"/v1/targets/{place.word}-kind/{place.word}-target/history", count="capped")
        assert response.status_code == 200
        body = response.json()
        assert leaks(response, persona.foreign) == []
        if place in persona.places:
            assert (body["count"], body["state"]["exists"]) == (len(place.events()), True)
        else:
            never["state"]["at"] = body["state"]["at"]
            assert body == never


@pytest.mark.parametrize("what", ["activity", "facets", "timeline"])
@pytest.mark.parametrize("name", LIMITED)
async def test_a_foreign_server_is_as_unknown_as_one_that_never_was(yard: Yard, name: str, what: str) -> None:
    persona = yard.personas[name]
    unknown = await persona.get(f"/v1/servers/never-was/{what}")
    for server_id in (OTHER.server_id, THIRD.server_id):
        if any(place.server_id == server_id for place in persona.places):
            continue
        response = await persona.get(f"/v1/servers/{server_id}/{what}")
        assert response.status_code == unknown.status_code
        assert leaks(response, persona.foreign) == []
        if response.status_code == 404:
            assert response.json() == unknown.json()
        elif what == "activity":
            assert response.json()["events"] == []


# --- cursors ---


@pytest.mark.parametrize("sort", ["-occurred_at", "seq"])
@pytest.mark.parametrize("name", PERSONAS)
async def test_pages_are_ones_own_to_the_end(yard: Yard, name: str, sort: str) -> None:
    persona = yard.personas[name]
    seen: list[str] = []
    asked: dict[str, Any] = {"limit": 2, "sort": sort}
    while True:
        page = (await persona.get("/v1/events", **asked)).json()
        seen += [event["id"] for event in page["events"]]
        if page["next_cursor"] is None:
            break
        asked["cursor"] = page["next_cursor"]
    assert sorted(seen) == sorted(event["id"] for place in persona.places for event in place.events())


@pytest.mark.parametrize("path", ["/v1/events", f"/v1/servers/{SHARED_SERVER}/activity"])
async def test_a_cursor_is_for_whom_it_was_made(yard: Yard, path: str) -> None:
    """Everybody's cursor, shown by everybody else."""
    cursors = {}
    for name, persona in yard.personas.items():
        response = await persona.get(path, limit=1)
        if response.status_code == 200:
            cursors[name] = response.json()["next_cursor"]
    alike = {"a token of one server", "a key of one server"}, {"a token of a category", "a key of a category"}
    for maker, cursor in cursors.items():
        for name, persona in yard.personas.items():
            if cursor is None or name not in cursors:
                continue
            response = await persona.get(path, limit=1, cursor=cursor)
            same = maker == name or any({maker, name} <= pair for pair in alike)
            assert response.status_code == (200 if same else 400), (maker, name)
            assert leaks(response, persona.foreign) == []


# --- what speaks of the whole log ---

WHOLE_LOG = (
    "/v1/chain", "/v1/chain/verify", "/v1/chain/checkpoint", "/v1/chain/checkpoints", "/v1/chain/inclusion?seq=1", "/v1/sources",
    "/v1/chain/consistency?from_size=1", "/v1/evidence?from_seq=0&to_seq=5", "/v1/evidence?server_id=a-server",
)  # fmt: skip


@pytest.mark.parametrize("path", WHOLE_LOG)
async def test_what_speaks_of_the_whole_log_is_for_who_sees_it(yard: Yard, path: str) -> None:
    assert (await yard.personas[WHOLE].get(path)).status_code == 200
    for name in LIMITED:
        response = await yard.personas[name].get(path)
        assert response.status_code == 403, name
        assert leaks(response, [*PLACES]) == []


# --- who gets nowhere ---


@pytest.fixture(scope="module")
async def refused(module_database: TestDatabase, shared_api: Api) -> dict[str, str]:
    """Credentials that are none any more, and how each ended."""
    log_id = await default_log_id(module_database)
    past = datetime.now(UTC) - timedelta(seconds=1)
    whole = {"server_ids": "all", "export": True}
    revoked, issuer = [
        await _issue(shared_api, "/v1/keys", {"name": "x", "scopes": ["read", "export", "viewer"]}) for _ in "ab"
    ]
    ended, expired = [await _issue(shared_api, "/v1/viewer-tokens", whole) for _ in "ab"]
    headers = {"Authorization": f"Bearer {issuer['key']}"}
    orphan = await shared_api.client.post("/v1/viewer-tokens", json=whole, headers=headers)
    assert orphan.status_code == 201
    for path in (
        f"/v1/keys/{revoked['key_id']}",
        f"/v1/viewer-tokens/{ended['token_id']}",
        f"/v1/keys/{issuer['key_id']}",
    ):
        assert (await shared_api.client.delete(path)).status_code == 204
    async with owner(module_database) as admin:
        done = await admin.execute(
            "UPDATE audit.viewer_token SET expires_at = $2 WHERE token_id = $1", expired["token_id"], past
        )
        assert done == "UPDATE 1"
    return {
        "an expired key": await add_key(module_database, log_id, expires_at=past),
        "a revoked key": revoked["key"],
        "a revoked token": ended["token"],
        "an expired token": expired["token"],
        "a token of a revoked key": orphan.json()["token"],
        "a key with a letter changed": revoked["key"][:-1] + ("a" if revoked["key"][-1] != "a" else "b"),
        "a key as it would be made": "aud_" + "0" * 61,
    }


CALLED = [*dict.fromkeys((method, path) for method, path, *_ in CALLS)]


@pytest.mark.parametrize(("method", "path"), CALLED)
async def test_what_is_no_credential_any_more_opens_nothing(
    refused: dict[str, str], shared_api: Api, method: str, path: str
) -> None:
    path = path.format(spare="some-key", log_key="0" * 32, path="0/000.p/1", tenant="default", token="some-token")
    answers = {name: await call(shared_api, method, path, key) for name, key in refused.items()}
    assert {name: response.status_code for name, response in answers.items()} == dict.fromkeys(refused, 401)
    assert len({response.text for response in answers.values()}) == 1  # how it ended is nobody's business


# --- the walls, and that the matrix would see them fall ---


@pytest.fixture
def first_wall_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every WHERE that a sight adds, forgotten; also by what the index counts."""
    monkeypatch.setattr(selection, "row_conditions", lambda *_, **__: [])
    monkeypatch.setattr(find, "_sight_clauses", lambda _: [])
    monkeypatch.setattr(Sight, "admits_server", lambda *_: True)


_CONTROLLED = [name for name in ENDPOINTS if name not in OF_ONE_SERVER]


@pytest.mark.usefixtures("first_wall_dropped")
@pytest.mark.parametrize("endpoint", _CONTROLLED)
@pytest.mark.parametrize("name", LIMITED)
async def test_with_the_first_wall_dropped_the_second_holds(yard: Yard, name: str, endpoint: str) -> None:
    persona = yard.personas[name]
    response, count = await _ask(persona, endpoint)
    assert leaks(response, persona.foreign) == []
    assert count == _mine(persona, endpoint)


@pytest.fixture
def both_walls_dropped(first_wall_dropped: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the database bound as for who sees everything."""
    del first_wall_dropped
    monkeypatch.setattr(engine, "binding", lambda _sight: binding(EVERYTHING))


@pytest.mark.usefixtures("both_walls_dropped")
@pytest.mark.parametrize(
    "endpoint", [name for name in _CONTROLLED if name in {"list", "list by seq", "bursts", "csv", "json", "ndjson"}]
)
@pytest.mark.parametrize("name", LIMITED)
async def test_with_both_walls_dropped_the_matrix_is_red(yard: Yard, name: str, endpoint: str) -> None:
    persona = yard.personas[name]
    before_notes = (START + timedelta(days=2)).isoformat()  # of exports so far, which would fill the page
    response, count = await _ask(persona, endpoint, until=before_notes)
    assert leaks(response, persona.foreign) != []
    assert count > _mine(persona, endpoint)
