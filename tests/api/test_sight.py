"""Hidden fields: what a credential is not shown occurs in no answer, and cannot be asked for.

Every rule at every endpoint that shows events or what is counted of them. Two controls: who sees everything finds the values there, and
with the mask switched off so does who should not.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import pytest

from audit_service import export, file_stream
from audit_service.api import schemas
from audit_service.core import history, terms, view
from audit_service.core.sight import EVERYTHING, Sight
from audit_service.indexer import index_all
from audit_service.store import find
from tests.support.api import Api
from tests.support.appends import owner
from tests.support.apps import open_api
from tests.support.postgres import Server, TestDatabase, default_log_id
from tests.support.sights import (
    CANARIES,
    NOON,
    RULES,
    STAFF_SESSION,
    Reader,
    add_reader,
    canaries_in,
    canary_events,
)
from tests.support.signing import TestSigner

EVENTS = [event["id"] for event in canary_events()]
SEGMENT = 2
ACTIVITY, HISTORY = "/v1/servers/s1/activity", "/v1/targets/server/77/history"
AROUND = f"{ACTIVITY}?around={NOON:%Y-%m-%dT%H:%M:%SZ}"
# Endpoint → the paths at which it may show something of an event.
ENDPOINTS: Mapping[str, list[str]] = {
    "list": ["/v1/events", "/v1/events?sort=seq"],
    "detail": [f"/v1/events/{name}" for name in EVENTS],
    "search": ["/v1/events?q=web", "/v1/events?actor=u1", "/v1/events?actor_type=admin"],
    "activity": [ACTIVITY],
    "facets": ["/v1/facets", "/v1/servers/s1/facets", "/v1/facets?actor_type=admin&actor_type=user"],
    "timeline": ["/v1/timeline", "/v1/servers/s1/timeline"],
    "csv": ["/v1/export?format=csv"],
    "json": ["/v1/export?format=json"],
    "ndjson": ["/v1/export?format=ndjson"],
    "history": [HISTORY, f"{HISTORY}?at={NOON:%Y-%m-%dT%H:%M:%SZ}"],
    "revert": [f"/v1/events/{name}/revert" for name in EVENTS],
    "around": [AROUND],
    "bursts": ["/v1/events?fold=burst", f"{ACTIVITY}?fold=burst&sort=occurred_at", f"{HISTORY}?fold=burst"],
    "proof": [f"/v1/events/{name}/proof" for name in EVENTS],
}
# What never shows who did it, whoever asks.
WITHOUT_PEOPLE = {"timeline", "revert", "proof"}


@dataclass(frozen=True, slots=True)
class Log:
    """A log of the canary events, signed, and those who read it."""

    api: Api
    whole: Reader
    readers: Mapping[str, Reader]
    session: str  # of staff, as the log has it


@asynccontextmanager
async def filled(database: TestDatabase) -> AsyncIterator[Log]:
    """A log of the canary events."""
    async with open_api(database) as api, owner(database) as admin:
        await api.accept(*canary_events())
        await _sign(admin, await default_log_id(database))
        whole = await add_reader(api, Sight())  # who sees what is noted of exports, too, would count that
        session = (await whole.json("/v1/events/by-staff"))["context"]["session_id"]
        yield Log(api, whole, {rule: await add_reader(api, sight) for rule, sight in RULES.items()}, session)
        await api.assert_intact(len(EVENTS))


@pytest.fixture(scope="module")
async def log(module_database: TestDatabase) -> AsyncIterator[Log]:
    """A log whose searches walk."""
    async with filled(module_database) as found:
        yield found


@pytest.fixture(scope="module")
async def indexed_log(server: Server) -> AsyncIterator[Log]:
    """A log with an index of segments of two entries; only good while `tiny_segments` are."""
    database = await server.create()
    async with filled(database) as found:
        with pytest.MonkeyPatch.context() as patch:
            tiny_segments(patch)
            assert await index_all(found.api.service.database) == len(EVENTS) // SEGMENT
        yield found
    await server.drop(database)


def tiny_segments(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(terms, "SEGMENT_EVENTS", SEGMENT)
    patch.setattr(find, "WALK_ENTRIES", 1)


@pytest.fixture(params=["walked", "indexed"])
def either(request: pytest.FixtureRequest, log: Log, indexed_log: Log, monkeypatch: pytest.MonkeyPatch) -> Log:
    """One or the other."""
    if request.param == "walked":
        return log
    tiny_segments(monkeypatch)
    return indexed_log


async def _sign(admin: asyncpg.Connection, log_id: int) -> None:
    signer = TestSigner(admin, log_id)
    await signer.store_tiles()
    await signer.sign()


def canaries_of(rule: str, log: Log) -> list[str]:
    return [*CANARIES[rule], *([log.session] if rule in {"staff", "all of them"} else [])]


async def answers(reader: Reader, endpoint: str) -> list[httpx.Response]:
    found = [await reader.get(path) for path in ENDPOINTS[endpoint]]
    assert {response.status_code for response in found} == {200}, [response.text for response in found]
    return found


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("rule", RULES)
async def test_what_is_hidden_occurs_in_no_answer(rule: str, endpoint: str, log: Log) -> None:
    for response in await answers(log.readers[rule], endpoint):
        assert canaries_in(response, canaries_of(rule, log)) == [], response.url.path


SHOWING = [
    (rule, endpoint)
    for rule in RULES
    for endpoint in ENDPOINTS
    if endpoint not in WITHOUT_PEOPLE and (rule, endpoint) != ("ips", "facets")
]


@pytest.mark.parametrize(("rule", "endpoint"), SHOWING)
async def test_who_sees_everything_finds_it_there(rule: str, endpoint: str, log: Log) -> None:
    found = [canaries_in(response, canaries_of(rule, log)) for response in await answers(log.whole, endpoint)]
    assert any(found)


@pytest.fixture
def unmasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask switched off, also for the process that formats exports."""
    for module in (view, history):
        monkeypatch.setattr(module, "mask_values", lambda _body, values, _sight: (values, []))
    stream = file_stream.stream_file

    def showing_all(writer: str, arguments: dict[str, Any], *rest: Any, **named: Any) -> Any:
        return stream(writer, arguments | {"sight": EVERYTHING}, *rest, **named)

    monkeypatch.setattr(export, "stream_file", showing_all)


@pytest.mark.usefixtures("unmasked")
@pytest.mark.parametrize(("rule", "endpoint"), [pair for pair in SHOWING if pair[1] != "facets"])
async def test_without_the_mask_the_same_table_is_red(rule: str, endpoint: str, log: Log) -> None:
    found = [canaries_in(response, canaries_of(rule, log)) for response in await answers(log.readers[rule], endpoint)]
    assert any(found)


# --- what is shown instead ---


async def test_hidden_is_said_and_is_not_called_erased(log: Log) -> None:
    event = await log.readers["all of them"].json("/v1/events/by-user")
    schemas.EventView.model_validate(event)
    assert (event["hidden"], event["erased"]) == (["actor_email", "ip", "on_behalf_of"], [])
    assert event["actor"] == {"type": "user", "id": "u1", "name": "Ana", "email": None, "role": "owner"}
    assert event["on_behalf_of"] == {"type": "client", "id": "c2", "name": "Bo"}
    assert event["context"]["ip"] is None
    assert event["context"]["user_agent"] == "Firefox"
    seen = await log.whole.json("/v1/events/by-user")
    assert seen["hidden"] == []
    assert event["proof"] == seen["proof"]
    assert event["changes"] == seen["changes"]


async def test_staff_has_the_common_name(log: Log) -> None:
    event = await log.readers["staff"].json("/v1/events/by-staff")
    assert event["hidden"] == ["actor", "actor_email", "context", "ip", "on_behalf_of"]
    assert event["actor"] == {"type": "admin", "id": None, "name": "Support", "email": None, "role": None}
    assert (event["context"], event["on_behalf_of"]) == (None, None)
    assert event["summary"].startswith("Support suspended server web (77)")
    for_staff = await log.readers["staff"].json("/v1/events/for-staff")
    assert for_staff["on_behalf_of"] == {"type": "admin", "name": "Support"}
    assert for_staff["actor"]["name"] == "Ana"


async def test_the_writer_of_a_field_is_shown_under_the_common_name(log: Log) -> None:
    at = {"at": canary_events()[3]["occurred_at"]}
    hidden = (await log.readers["staff"].json(HISTORY, **at))["state"]["fields"]["/ram"]["set_by"]
    assert (hidden["actor"]["name"], hidden["event_id"]) == ("Support", "by-other-staff")
    shown = (await log.whole.json(HISTORY, **at))["state"]["fields"]["/ram"]["set_by"]
    assert (shown["actor"]["name"], shown["event_id"]) == ("Xaver Quux", "by-other-staff")


async def test_a_csv_keeps_the_columns_of_what_is_hidden(log: Log) -> None:
    hidden = (await log.readers["all of them"].get("/v1/export?format=csv")).text.splitlines()
    shown = (await log.whole.get("/v1/export?format=csv")).text.splitlines()
    assert hidden[0] == shown[0]
    assert len(hidden) == len(shown) == 1 + len(EVENTS)


async def test_staff_is_one_in_a_fold_and_its_events_are_found_by_the_link(log: Log) -> None:
    path = f"{ACTIVITY}?fold=burst"
    apart = [row for row in (await log.whole.json(path))["events"] if row["action"] == "server.suspended"]
    assert [row["burst"] for row in apart] == [None, None]
    (row,) = [row for row in (await log.readers["staff"].json(path))["events"] if row["action"] == "server.suspended"]
    assert row["burst"]["count"] == 2
    members = await log.readers["staff"].json(row["burst"]["members"])
    assert [event["id"] for event in members["events"]] == ["by-other-staff", "by-staff"]


async def test_facets_offer_nobody_who_is_hidden(either: Log) -> None:
    async def offered(reader: Reader, name: str) -> dict[str, int]:
        facets = (await reader.json("/v1/facets"))["facets"]
        return {value["value"]: value["count"] for value in facets[name]["values"]}

    assert await offered(either.whole, "actor") == {"u1": 2, "cleo@mail-canary.test": 1, "zelda-id": 1, "xaver-id": 1}
    assert await offered(either.readers["staff"], "actor") == {"u1": 2, "cleo@mail-canary.test": 1}
    assert await offered(either.readers["staff"], "role") == {"owner": 1}
    assert await offered(either.readers["emails"], "actor") == {"u1": 2, "zelda-id": 1, "xaver-id": 1}
    assert await offered(either.readers["staff"], "actor_type") == {"user": 3, "admin": 2}


# --- what can be asked for ---


def _lines(response: httpx.Response) -> int:
    return len(response.text.splitlines()) - 1


COUNTED: Mapping[str, tuple[str, Callable[[httpx.Response], int]]] = {
    "list": ("/v1/events", lambda response: len(response.json()["events"])),
    "count": ("/v1/events?count=capped&limit=1", lambda response: int(response.json()["count"])),
    "activity": (ACTIVITY, lambda response: len(response.json()["events"])),
    "bursts": (f"{ACTIVITY}?fold=burst", lambda response: sum(
        1 if row["burst"] is None else row["burst"]["count"] for row in response.json()["events"])),
    "around": (AROUND, lambda response: len(response.json()["events"])),
    "history": (HISTORY, lambda response: len(response.json()["events"])),
    "facets": ("/v1/facets", lambda response: int(response.json()["counted"])),
    "server facets": ("/v1/servers/s1/facets", lambda response: int(response.json()["counted"])),
    "timeline": ("/v1/timeline", lambda response: sum(one["count"] for one in response.json()["timeline"])),
    "server timeline": ("/v1/servers/s1/timeline", lambda response: sum(one["count"] for one in response.json()["timeline"])),
    "export": ("/v1/export?format=ndjson", _lines),
}  # fmt: skip
# Rule → filters whose values only hidden fields have.
ASKED: list[tuple[str, str, str]] = [
    ("emails", "actor", "ana@mail-canary.test"),
    ("emails", "actor", "ana@*"),
    ("emails", "actor", "cleo@mail-canary.test"),
    ("emails", "actor", "cleo <*"),
    ("emails", "q", "mail-canary"),
    ("emails", "q", "bo@mail-canary.test"),
    ("emails", "q", "cleo-2"),
    ("staff", "actor", "zelda-id"),
    ("staff", "actor", "Zelda Quux"),
    ("staff", "actor", "zelda*"),
    ("staff", "actor", "zelda@staff-canary.test"),
    ("staff", "role", "zelda-role"),
    ("staff", "session", STAFF_SESSION),
    ("staff", "request_id", "zelda-request"),
    ("staff", "ip", "198.51.100.71"),
    ("staff", "ip", "198.51.100.0/24"),
    ("staff", "q", "quux"),
    ("staff", "q", "zelda-for-id"),
    ("staff", "q", "wanda"),
]


@pytest.mark.parametrize(("rule", "name", "value"), ASKED)
async def test_what_is_hidden_finds_nothing_and_hides_nothing(rule: str, name: str, value: str, either: Log) -> None:
    async def counted(reader: Reader, **asked: str) -> dict[str, int]:
        return {endpoint: count(await reader.get(path, **asked)) for endpoint, (path, count) in COUNTED.items()}

    nothing, everything = dict.fromkeys(COUNTED, 0), dict.fromkeys(COUNTED, len(EVENTS))
    assert await counted(either.readers[rule], **{name: value}) == nothing
    assert await counted(either.readers[rule], **{f"{name}.not": value}) == everything
    found = len((await either.whole.json("/v1/events", **{name: value}))["events"])
    assert found > 0
    left = len((await either.whole.json("/v1/events", **{f"{name}.not": value}))["events"])
    assert left == len(EVENTS) - found


@pytest.mark.parametrize("rule", ["ips", "all of them"])
@pytest.mark.parametrize("name", ["ip", "ip.not"])
async def test_hidden_addresses_are_no_filter(name: str, rule: str, log: Log) -> None:
    values = ("203.0.113.71", "192.0.2.1", "no address")
    for path, value in ((path, value) for path, _ in COUNTED.values() for value in values):
        response = await log.readers[rule].get(path, **{name: value})
        assert response.status_code == 403
        problem = response.json()
        schemas.Problem.model_validate(problem)
        assert [error["parameter"] for error in problem["errors"]] == [name]
        assert value not in response.text


async def test_what_is_shown_can_be_asked_for(either: Log) -> None:
    both = either.readers["all of them"]
    for parameters, ids in (
        ({"actor": "u1"}, {"by-user", "for-staff"}),
        ({"actor": "an*"}, {"by-user", "for-staff"}),
        ({"role": "owner"}, {"by-user"}),
        ({"q": "ana"}, {"by-user", "for-staff"}),
        ({"actor_type": "admin"}, {"by-staff", "by-other-staff"}),
        ({"q": "web", "actor_type": "admin"}, {"by-staff", "by-other-staff"}),
    ):
        assert {event["id"] for event in (await both.json("/v1/events", **parameters))["events"]} == ids, parameters


async def test_a_sight_that_hides_nothing_is_asked_as_ever(log: Log) -> None:
    plain = await add_reader(log.api, Sight())
    assert [event["id"] for event in (await plain.json("/v1/events?ip=203.0.113.71"))["events"]] == ["by-user"]
