"""What changed before it broke: GET /v1/servers/{id}/activity?around= on two tenants."""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_service.api import schemas
from audit_service.store import around, rows
from tests.support.api import Api
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.postgres import TestDatabase
from tests.support.serving import served

Event = dict[str, Any]
AROUND = datetime(2026, 3, 1, 12, tzinfo=UTC)
COUNT = 160
MICROSECOND = timedelta(microseconds=1)


def at(**before: float) -> str:
    """A time before the moment."""
    return (AROUND - timedelta(**before)).isoformat()


async def ranked(api: Api, server_id: str = "s1", **parameters: Any) -> Event:
    """The answer near a moment, AROUND when none is given."""
    path = f"/v1/servers/{quote(server_id, safe='')}/activity"
    response = await api.client.get(path, params={"around": AROUND.isoformat()} | parameters)
    assert response.status_code == 200, response.text
    assert "link" not in response.headers
    answer: Event = response.json()
    schemas.RankedEvents.model_validate(answer)
    return answer


async def ids(api: Api, server_id: str = "s1", **parameters: Any) -> list[str]:
    return [event["id"] for event in (await ranked(api, server_id, **parameters))["events"]]


async def test_the_deletion_is_above_the_logins_and_says_why(database: TestDatabase) -> None:
    """The whole story, over the wire."""
    node = {"type": "node", "id": "n1", "name": "fra-1"}
    story: list[Event] = [
        {"id": "login", "action": "user.login", "occurred_at": at(minutes=2), "server_id": "s1"},
        {"id": "look", "action": "server.viewed", "occurred_at": at(minutes=1), "server_id": "s1"},
        {"id": "old", "action": "volume.deleted", "occurred_at": at(hours=23), "server_id": "s1"},
        {"id": "gone", "action": "volume.deleted", "occurred_at": at(minutes=10), "server_id": "s1",
         "target": {"type": "volume", "id": "v1"}},
        {"id": "moved", "action": "server.updated", "occurred_at": at(hours=3), "server_id": "s1", "related": [node],
         "changes": [{"path": "/node", "op": "replace", "old": "n0", "new": "n1"}]},
        {"id": "kernel", "action": "node.updated", "occurred_at": at(minutes=30), "target": node, "outcome": "failure",
         "changes": [{"path": f"/{name}", "op": "add", "new": 1} for name in ("kernel", "grub")]},
        {"id": "alert", "action": "alert.triggered", "occurred_at": at(seconds=-90), "server_id": "s1"},
    ]  # fmt: skip
    async with served(database) as running:
        await running.api.accept(*story)
        answer = await ranked(running.api)
        assert [event["id"] for event in answer["events"]] == [
            "gone",
            "kernel",
            "moved",
            "alert",
            "login",
            "look",
            "old",
        ]
        why = {event["id"]: event["why"] for event in answer["events"]}
        assert why["gone"] == ["10 min before", "a deletion", "one of 2 volume.deleted here in 24 h"]
        assert why["kernel"] == [
            "30 min before", "an update", "failed", "2 fields changed", "on node fra-1, which events of this server name",
        ]  # fmt: skip
        assert why["moved"] == ["3 h before", "an update", "1 field changed", "the only server.updated here in 24 h"]
        assert why["alert"] == ["1 min after", "a command", "the only alert.triggered here in 24 h"]
        assert why["login"] == ["2 min before", "a login"]
        scores = [event["score"] for event in answer["events"]]
        assert scores == sorted(scores, reverse=True)
        assert (answer["next_cursor"], answer["capped"]) == (None, False)
        shown = await running.api.event("gone")
        assert {name: answer["events"][0][name] for name in shown} == shown
        await running.api.assert_intact(len(story))


# --- which events are candidates ---


@dataclass(frozen=True, slots=True)
class Stock:
    """Two tenants with other events under the same names."""

    api: Api
    other: Api
    events: list[Event]


TARGETS: list[Event | None] = [
    None,
    {"type": "server", "id": "s1"},
    {"type": "server", "id": "s2"},
    {"type": "vm", "id": "s1"},
    {"type": "node", "id": "n1"},
    {"type": "node", "id": "n2"},
    {"type": "node"},
    {"id": "n1"},
    {"type": "disk", "id": "n1"},
]


def make_events(seed: int) -> list[Event]:
    """Events over ten days before and after the moment, most within the last."""
    chance = random.Random(seed)  # noqa: S311 - test data, the same each run
    edges = [
        timedelta(hours=24),
        timedelta(hours=24) + MICROSECOND,
        -timedelta(minutes=5),
        MICROSECOND - timedelta(minutes=5),
    ]
    times = [
        *edges,
        *(timedelta(hours=chance.choice([1, 4, 24, 240]) * chance.random() - 0.1) for _ in range(COUNT - 4)),
    ]
    return [
        {
            "id": f"e{number}",
            "occurred_at": (AROUND - before).isoformat(),
            "action": chance.choice(["server.updated", "user.login", "node.deleted"]),
            "actor": chance.choice([None, {"id": "u1"}, {"id": "u2"}]),
            "server_id": "s1" if number < 4 else chance.choice([None, None, "s1", "s2", "s3"]),
            "target": chance.choice(TARGETS),
            "related": chance.choice([[], [], [{"type": "node", "id": f"n{number % 9}"}, {"name": "x"}]]),
        }
        for number, before in enumerate(times)
    ]


@pytest.fixture(scope="module")
async def stock(module_database: TestDatabase, shared_api: Api) -> AsyncIterator[Stock]:
    """Both tenants, filled."""
    key = await add_key(module_database, await add_tenant(module_database, "other"))
    events = make_events(1)
    async with open_api(module_database, key=key) as other:
        assert (await shared_api.client.post("/v1/events", json=events)).status_code == 201
        assert (await other.client.post("/v1/events", json=make_events(2))).status_code == 201
        yield Stock(shared_api, other, events)
        await other.assert_intact(COUNT)


def candidates(events: list[Event], server_id: str, moment: datetime, hours: int) -> list[Event]:
    """By the words of the README."""

    def pair(thing: Event | None) -> tuple[str, str] | None:
        return (thing["type"], thing["id"]) if thing and {"type", "id"} <= thing.keys() else None

    since, until = moment - timedelta(hours=hours), moment + timedelta(minutes=5)
    near = [event for event in events if since <= datetime.fromisoformat(event["occurred_at"]) < until]
    named = {("server", server_id)}
    for event in near:
        if event["server_id"] == server_id:
            named |= {found for thing in [event["target"], *event["related"]] if (found := pair(thing)) is not None}
    return [event for event in near if event["server_id"] == server_id or pair(event["target"]) in named]


FILTERS: list[tuple[dict[str, str], Any]] = [
    ({}, lambda _: True),
    ({"actor": "u1"}, lambda event: event["actor"] == {"id": "u1"}),
    ({"actor.not": "u1"}, lambda event: event["actor"] != {"id": "u1"}),
    ({"action": "server.*", "target_type": "node"},
     lambda event: event["action"] == "server.updated" and (event["target"] or {}).get("type") == "node"),
    ({"since": at(hours=2), "until": at(hours=1)}, lambda event: at(hours=2) <= event["occurred_at"] < at(hours=1)),
    ({"since": at(hours=900), "until": at(hours=-900)}, lambda _: True),
    ({"recorded_until": "2020-01-01T00:00:00Z"}, lambda _: False),
]  # fmt: skip


@settings(max_examples=60)
@given(
    server_id=st.sampled_from(["s1", "s2", "s3", "s4"]),
    hours_before=st.sampled_from([0, 2, 30, 200]),
    window=st.sampled_from([1, 24, 168]),
    chosen=st.sampled_from(FILTERS),
)
async def test_candidates_are_those_of_the_server_and_of_what_its_events_name(
    stock: Stock, server_id: str, hours_before: int, window: int, chosen: tuple[dict[str, str], Any]
) -> None:
    moment = AROUND - timedelta(hours=hours_before)
    asked, fits = chosen
    answer = await ranked(stock.api, server_id, around=moment.isoformat(), window=window, limit=500, **asked)
    expected = {event["id"] for event in candidates(stock.events, server_id, moment, window) if fits(event)}
    assert len(answer["events"]) == len(expected)
    assert {event["id"] for event in answer["events"]} == expected
    assert not answer["capped"]
    keys = [(event["score"], event["occurred_at"], event["seq"]) for event in answer["events"]]
    assert keys == sorted(keys, reverse=True)


async def test_the_edges_of_the_window_are_half_open(stock: Stock) -> None:
    found = set(await ids(stock.api, limit=500))
    assert [name in found for name in ("e0", "e1", "e2", "e3")] == [True, False, False, True]


async def test_another_tenant_s_events_are_never_near(stock: Stock) -> None:
    mine, theirs = [await ranked(api, limit=500) for api in (stock.api, stock.other)]
    hashes = [{event["proof"]["hash"] for event in answer["events"]} for answer in (mine, theirs)]
    assert hashes[0]
    assert hashes[1]
    assert not hashes[0] & hashes[1]
    for event in mine["events"]:
        assert (await stock.api.event(event["id"]))["proof"] == event["proof"]


async def test_a_server_that_nobody_knows_has_nothing(stock: Stock) -> None:
    assert await ranked(stock.api, "never-seen") == {"events": [], "next_cursor": None, "capped": False}


async def test_the_limit_keeps_the_first(stock: Stock) -> None:
    everything = await ids(stock.api, limit=500)
    assert len(everything) > 50
    assert await ids(stock.api, limit=7) == everything[:7]
    assert await ids(stock.api) == everything[:50]


# --- bounds ---


async def test_what_was_not_looked_at_is_said(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bound by itself, and the newest are what is looked at."""
    for name, value in (("SERVER_EVENTS", 5), ("RELATED_EVENTS", 5), ("RELATED_TARGETS", 1), ("TARGET_EVENTS", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(around, name, value)
            answer = await ranked(stock.api, limit=500)
            assert answer["capped"], name
            assert 0 < len(answer["events"]) < len(await ids_of_all(stock))
    monkeypatch.setattr(around, "SERVER_EVENTS", 5)
    newest = sorted(
        (event for event in candidates(stock.events, "s1", AROUND, 24) if event["server_id"] == "s1"),
        key=lambda event: datetime.fromisoformat(event["occurred_at"]),
    )[-5:]
    found = [event for event in (await ranked(stock.api, limit=500))["events"] if event["server_id"] == "s1"]
    assert {event["id"] for event in newest} <= {event["id"] for event in found}


async def ids_of_all(stock: Stock) -> list[str]:
    return [event["id"] for event in candidates(stock.events, "s1", AROUND, 24)]


async def test_a_rare_actor_is_found_behind_more_events_than_are_read(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own events are searched, not filtered out of the newest."""
    oldest = min(candidates(stock.events, "s1", AROUND, 24), key=lambda event: str(event["occurred_at"]))
    monkeypatch.setattr(around, "SERVER_EVENTS", 3)
    assert oldest["server_id"] == "s1"
    assert await ids(stock.api, id=oldest["id"]) == [oldest["id"]]


async def test_events_too_large_for_one_answer_are_left_out_from_the_end(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = await ids(stock.api, limit=500)
    with monkeypatch.context() as patch:
        patch.setattr(rows, "BUDGET_BYTES", 20_000)
        answer = await ranked(stock.api, limit=500)
    found = [event["id"] for event in answer["events"]]
    assert answer["capped"]
    assert 0 < len(found) < len(everything)


async def test_a_damaged_event_names_nothing_and_stops_nothing(api: Api, database: TestDatabase) -> None:
    node = {"type": "node", "id": "n1"}
    await api.accept(
        {"id": "a", "action": "x", "server_id": "s1", "related": [node], "occurred_at": at(minutes=1)},
        {"id": "b", "action": "x", "target": node, "occurred_at": at(minutes=2)},
    )
    assert await ids(api) == ["a", "b"]
    owner = await database.owner()
    await owner.execute("ALTER TABLE audit.entry DISABLE TRIGGER USER")
    for damage in (b"\0" * 40, b"\0" * 32 + b"[1]", b"\0" * 32 + b'{"related":[7,{"type":1,"id":2}]}', b""):
        await owner.execute("UPDATE audit.entry SET d_target = $1 WHERE id = 'a'", damage)
        assert await ids(api) == ["a"]
    await owner.close()


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
async def test_the_ends_of_the_calendar_are_asked_for_in_peace(stock: Stock, moment: str) -> None:
    assert await ids(stock.api, around=moment, window=168) == []


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("around=", "around"), ("around=now", "around"), ("around=2026-03-01T12:00:00", "around"), ("window=24", "window"),
        ("around=2026-03-01T12:00:00Z&around=2026-03-01T12:00:00Z", "around"), ("around=2026-03-01T12:00:00Z&window=0", "window"),
        ("around=2026-03-01T12:00:00Z&window=169", "window"), ("around=2026-03-01T12:00:00Z&window=1.5", "window"),
        ("around=2026-03-01T12:00:00Z&sort=seq", "sort"), ("around=2026-03-01T12:00:00Z&sort=-occurred_at", "sort"),
        ("around=2026-03-01T12:00:00Z&cursor=x", "cursor"), ("around=2026-03-01T12:00:00Z&count=capped", "count"),
        ("around=2026-03-01T12:00:00Z&fold=burst", "fold"), ("around=2026-03-01T12:00:00Z&limit=0", "limit"),
        ("around=2026-03-01T12:00:00Z&server_id=s2", "server_id"),
    ],
)  # fmt: skip
async def test_a_bad_parameter_is_named(stock: Stock, query: str, name: str) -> None:
    response = await stock.api.client.get(f"/v1/servers/s1/activity?{query}")
    assert response.status_code == 400, response.text
    assert {fault["parameter"] for fault in response.json()["errors"]} == {name}


async def test_only_a_server_s_activity_has_a_moment(stock: Stock) -> None:
    for path in ("/v1/events", "/v1/export"):
        response = await stock.api.client.get(path, params={"around": AROUND.isoformat()})
        assert (response.status_code, response.json()["errors"][0]["parameter"]) == (400, "around")
