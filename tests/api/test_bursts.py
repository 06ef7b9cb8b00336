"""Folded lists over HTTP: a naive folding's rows, whatever the page size and however the log grows, and links to exactly their events."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from audit_service.api import schemas
from audit_service.core import terms
from audit_service.indexer import index_all
from audit_service.store import bursts, find, rows
from tests.support.api import Api
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.postgres import Server, TestDatabase
from tests.support.serving import served

Event = dict[str, Any]
Parameters = dict[str, Any]
START = datetime(2026, 3, 1, tzinfo=UTC)
COUNT = 200
# Folding, searching by prefix and the wire: the first four fold to the same key, the last are no good in a parameter.
PEOPLE: list[Event | None] = [
    {"type": "user", "id": "u1", "name": "Ana"},
    {"type": "client", "id": "u1"},
    {"type": "user", "id": "U1"},
    {"name": "u1"},
    {"id": "u1*", "email": "a+b@example.com"},
    {"name": "a & b/é?#%", "email": "x@example.com"},
    {"name": "\ufffd"},
    {"type": "system"},
    None,
]


def make_events(seed: int, count: int = COUNT, first: int = 0) -> list[Event]:
    """Runs of one person and one action, broken now and then, many at the same moment, not sent in order."""
    chance = random.Random(seed)  # noqa: S311 - test data, the same each run
    events: list[Event] = []
    at, actor, action = START, PEOPLE[0], "label.added"
    server: str | None = "s/1"
    for number in range(first, first + count):
        if chance.random() < 0.3:
            actor = chance.choice(PEOPLE)
        if chance.random() < 0.2:
            action = chance.choice(["label.added", "label.removed", "label"])
        if chance.random() < 0.2:
            server = chance.choice(["s/1", "s2", "none", None])
        at += timedelta(seconds=chance.choice([0, 0, 0, 1, 20, 60, 61]))
        target = chance.choice([None, {"type": "vm", "id": f"v{number % 3}"}, {"type": "vm", "name": "web"}])
        events.append({
            "id": f"e{number}", "occurred_at": at.isoformat(), "action": action, "actor": actor, "server_id": server, "target": target,
        })  # fmt: skip
    chance.shuffle(events)
    return events


@dataclass(frozen=True, slots=True)
class Panel:
    """A running service, and a tenant of it; the other tenant has the same events."""

    api: Api

    async def get(self, path: str, **parameters: Any) -> Event:
        """An answer."""
        response = await self.api.client.get(path, params=parameters)
        assert response.status_code == 200, response.text
        answer: Event = response.json()
        schemas.EventPage.model_validate(answer)
        return answer

    async def rows(self, path: str, **parameters: Any) -> list[Event]:
        """Every row of a list, page after page, along the Link header."""
        found: list[Event] = []
        response = await self.api.client.get(path, params=parameters or None)  # {} would take away the path's own
        for _ in range(10 * COUNT):
            assert response.status_code == 200, response.text
            found += response.json()["events"]
            following = response.links.get("next", {}).get("url")
            assert (following is not None) is (response.json()["next_cursor"] is not None)
            if following is None:
                return found
            response = await self.api.client.get(following)
        raise AssertionError("the pages never end")


@asynccontextmanager
async def filled(server: Server) -> AsyncIterator[Panel]:
    """Two tenants on one service with the same events, which the second got in another order."""
    database = await server.create()
    key = await add_key(database, await add_tenant(database, "other"))
    async with open_api(database) as api, open_api(database, key=key) as other:
        for one, events in ((api, make_events(1)), (other, make_events(1)[::-1])):
            assert (await one.client.post("/v1/events", json=events)).status_code == 201
        yield Panel(api)
        await other.assert_intact(COUNT)
        await api.assert_intact(COUNT)
    await server.drop(database)


@pytest.fixture(scope="module")
async def panel(server: Server) -> AsyncIterator[Panel]:
    """A service whose searches walk."""
    async with filled(server) as found:
        yield found


@pytest.fixture(scope="module")
async def indexed_panel(server: Server) -> AsyncIterator[Panel]:
    """A service with an index of many small segments; only good while `tiny_segments` are."""
    async with filled(server) as found:
        with pytest.MonkeyPatch.context() as patch:
            tiny_segments(patch)
            assert await index_all(found.api.service.database) == 2 * (COUNT // 8)
        yield found


def tiny_segments(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(terms, "SEGMENT_EVENTS", 8)
    patch.setattr(find, "WALK_ENTRIES", 3)
    patch.setattr(find, "_positions", lambda count: BitMap(range(count)))


@pytest.fixture(params=["walked", "indexed"])
def searched(
    request: pytest.FixtureRequest, panel: Panel, indexed_panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> Panel:
    """One or the other."""
    if request.param == "walked":
        return panel
    tiny_segments(monkeypatch)
    return indexed_panel


@pytest.fixture
def tiny_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that read twelve events at most, five at a time, so that most bursts go over a slice or a page."""
    monkeypatch.setattr(bursts, "READ_EVENTS", 12)
    monkeypatch.setattr(bursts, "_SLICE_EVENTS", 5)


# --- the naive folding ---


def actor_of(event: Event) -> Any:
    actor = event["actor"] or {}
    if actor.get("id") is not None:
        return (actor["type"], actor["id"])
    if actor.get("name") is None and actor.get("email") is None:
        return None
    return (actor["type"], actor["name"], actor["email"])


def naive(events: list[Event]) -> list[list[Event]]:
    """Neighbours joined, by the words of the README."""
    groups: list[list[Event]] = []
    for event in events:
        before = groups[-1][-1] if groups else None
        if (
            before is not None
            and actor_of(event) is not None
            and actor_of(event) == actor_of(before)
            and event["action"] == before["action"]
            and abs(moment(event) - moment(before)) <= timedelta(seconds=60)
        ):
            groups[-1].append(event)
        else:
            groups.append([event])
    return groups


def moment(event: Event) -> datetime:
    return datetime.fromisoformat(event["occurred_at"])


def told(group: list[Event]) -> Event:
    """The row of a group, without its link."""
    newest = max(group, key=lambda event: (moment(event), event["seq"]))
    if len(group) == 1:
        return {**newest, "burst": None}
    targets = {(event["target"]["type"], event["target"]["id"]) for event in group if event["target"]}
    times = sorted(event["occurred_at"] for event in group)
    burst = {"count": len(group), "from": times[0], "to": times[-1], "targets": len(targets), "more": False}
    return {**newest, "burst": burst}


def without_links(found: list[Event]) -> list[Event]:
    return [
        {**row, "burst": row["burst"] and {name: value for name, value in row["burst"].items() if name != "members"}}
        for row in found
    ]


async def members(panel: Panel, row: Event) -> list[int]:
    """The seqs of the events of a row, along its link."""
    if row["burst"] is None:
        return [row["seq"]]
    return [event["seq"] for event in await panel.rows(row["burst"]["members"])]


QUERIES: list[Parameters] = [
    {},
    {"actor": "u1"},
    {"actor": ["ana*", "u1*"]},
    {"actor.not": "u1"},
    {"action": "label*"},
    {"action": ["label.added", "label.removed"], "actor_type": ["user", "client"]},
    {"server_id": "s2"},
    {"server_id": "none"},
    {"target_type": "vm"},
    {"since": (START + timedelta(minutes=5)).isoformat(), "until": (START + timedelta(minutes=50)).isoformat()},
    {"date_from": "2026-03-01", "date_to": "2026-03-01", "tz": "Pacific/Kiritimati"},
    {"q": "ana"},
]


@pytest.mark.parametrize("sort", ["-occurred_at", "occurred_at"])
@pytest.mark.parametrize("query", QUERIES, ids=[" ".join(query) or "all" for query in QUERIES])
async def test_rows_are_those_of_a_naive_folding_and_links_lead_to_their_events(
    searched: Panel, query: Parameters, sort: str
) -> None:
    panel = searched
    groups = naive((await panel.get("/v1/events", **query, sort=sort, limit=500))["events"])
    assert any(len(group) > 1 for group in groups)
    for limit in (3, 50, 500):
        found = await panel.rows("/v1/events", **query, sort=sort, limit=limit, fold="burst")
        assert without_links(found) == [told(group) for group in groups]
    for row, group in zip(found, groups, strict=True):
        assert await members(panel, row) == [event["seq"] for event in group]


@pytest.mark.usefixtures("tiny_reads")
@settings(max_examples=12)
@given(
    query=st.sampled_from(QUERIES),
    sort=st.sampled_from(["-occurred_at", "occurred_at"]),
    limit=st.integers(1, 9),
)
async def test_bursts_over_pages_are_whole_unless_a_page_cannot_hold_them(
    panel: Panel, query: Parameters, sort: str, limit: int
) -> None:
    groups = naive((await panel.get("/v1/events", **query, sort=sort, limit=500))["events"])
    found = await panel.rows("/v1/events", **query, sort=sort, limit=limit, fold="burst")
    seqs = [await members(panel, row) for row in found]
    # A row that was cut goes on with the next one; nothing else is ever parted.
    joined: list[list[int]] = []
    goes_on = False
    for row, some in zip(found, seqs, strict=True):
        assert (row["burst"] or {"count": 1})["count"] == len(some)
        joined = [*joined[:-1], joined[-1] + some] if goes_on else [*joined, some]
        goes_on = bool(row["burst"] and row["burst"]["more"])
        assert not goes_on or len(some) == bursts.READ_EVENTS
    assert joined == [[event["seq"] for event in group] for group in groups]


@pytest.mark.usefixtures("tiny_reads")
async def test_a_burst_that_no_page_can_hold_is_cut_and_says_so(api: Api) -> None:
    """The odd one before it has a page of its own, so that the burst begins a page and is cut as seldom as can be."""
    one = {"action": "x", "actor": {"id": "u1"}, "occurred_at": START.isoformat()}
    assert (await api.client.post("/v1/events", json=[*[one] * 30, one | {"action": "y"}])).status_code == 201
    found = await Panel(api).rows("/v1/events", limit=9, fold="burst")
    assert [(row["seq"], row["burst"] and (row["burst"]["count"], row["burst"]["more"])) for row in found] == [
        (30, None), (29, (12, True)), (17, (12, True)), (5, (6, False)),
    ]  # fmt: skip
    assert [seq for row in found for seq in await members(Panel(api), row)] == list(range(30, -1, -1))
    await api.assert_intact(31)


@pytest.mark.usefixtures("tiny_reads")
@pytest.mark.parametrize("sort", ["-occurred_at", "occurred_at"])
@pytest.mark.parametrize("limit", [2, 5])
async def test_nothing_comes_twice_or_is_lost_while_the_log_grows(
    database: TestDatabase, sort: str, limit: int
) -> None:
    async with served(database) as running:
        panel = Panel(running.api)
        old = make_events(7, 80)
        assert (await panel.api.client.post("/v1/events", json=old)).status_code == 201
        chance = random.Random(limit)  # noqa: S311 - test data, the same each run
        later = make_events(8, 60, first=1000)
        chance.shuffle(later)
        seen: list[int] = []
        cursor: Parameters = {}
        while True:
            page = await panel.get("/v1/events", sort=sort, limit=limit, fold="burst", **cursor)
            for row in page["events"]:
                seen += await members(panel, row)
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
            await panel.api.accept(*later[:2])  # anywhere in time, by anybody
            del later[:2]
        assert len(seen) == len(set(seen))
        assert set(range(len(old))) <= set(seen)
        assert len(later) < 60
        await panel.api.assert_intact(len(old) + 60 - len(later))


async def test_a_page_of_large_events_ends_early_and_loses_none(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = naive((await panel.get("/v1/events", limit=500))["events"])
    monkeypatch.setattr(rows, "BUDGET_BYTES", 2000)
    first = await panel.get("/v1/events", limit=50, fold="burst")
    assert 0 < len(first["events"]) < 50
    assert first["next_cursor"] is not None
    found = await panel.rows("/v1/events", limit=50, fold="burst")
    assert sum((row["burst"] or {"count": 1})["count"] for row in found) == sum(map(len, groups))


@pytest.mark.parametrize("server_id", ["s/1", "s2", "none"])
async def test_an_activity_feed_folds_and_links_to_itself(panel: Panel, server_id: str) -> None:
    path = f"/v1/servers/{quote(server_id, safe='')}/activity"
    groups = naive((await panel.get(path, limit=500))["events"])
    found = await panel.rows(path, limit=3, fold="burst")
    assert without_links(found) == [told(group) for group in groups]
    assert any(len(group) > 1 for group in groups)
    for row, group in zip(found, groups, strict=True):
        assert row["burst"] is None or row["burst"]["members"].startswith(path + "?")
        assert await members(panel, row) == [event["seq"] for event in group]


async def test_events_of_the_same_moment_on_both_sides_of_another_s_are_two_bursts(api: Api) -> None:
    """What parts them has no time of its own, so only the seq can bound the links."""
    ana, bo = {"id": "u1"}, {"id": "u2"}
    at = START.isoformat()
    await api.accept(*({"action": "x", "actor": who, "occurred_at": at} for who in (ana, ana, bo, ana, ana)))
    response = await api.client.get("/v1/events", params={"fold": "burst"})
    found = response.json()["events"]
    assert [(row["seq"], row["burst"] and row["burst"]["count"]) for row in found] == [(4, 2), (2, None), (1, 2)]
    for row, expected in ((found[0], [4, 3]), (found[2], [1, 0])):
        listed = await api.client.get(row["burst"]["members"])
        assert [event["seq"] for event in listed.json()["events"]] == expected
    await api.assert_intact(5)


async def test_what_arrives_later_between_them_is_in_the_link_only_if_it_is_of_the_burst(api: Api) -> None:
    def at(second: int) -> str:
        return (START + timedelta(seconds=second)).isoformat()

    ana, bo = {"id": "u1", "type": "user"}, {"id": "u2"}
    await api.accept(*({"action": "x", "actor": ana, "occurred_at": at(10 * n)} for n in range(3)))
    (row,) = (await api.client.get("/v1/events", params={"fold": "burst"})).json()["events"]
    late: list[Event] = [
        {"actor": bo},
        {"actor": {"id": "u1", "type": "client"}},
        {"actor": ana, "action": "y"},
        {"actor": ana},
    ]
    await api.accept(*({"action": "x", "occurred_at": at(15)} | event for event in late))
    listed = await api.client.get(row["burst"]["members"])
    assert [event["seq"] for event in listed.json()["events"]] == [2, 6, 1, 0]
    await api.assert_intact(7)


async def test_a_cursor_of_the_folded_list_is_of_no_other(panel: Panel) -> None:
    for first, second in (({"fold": "burst"}, {}), ({}, {"fold": "burst"})):
        cursor = (await panel.get("/v1/events", limit=2, **first))["next_cursor"]
        response = await panel.api.client.get("/v1/events", params={"limit": 2, "cursor": cursor, **second})
        assert (response.status_code, response.json()["errors"][0]["parameter"]) == (400, "cursor")


async def test_a_count_is_of_events_folded_or_not(panel: Panel) -> None:
    page = await panel.get("/v1/events", fold="burst", limit=1, count="capped")
    assert (page["count"], page["count_capped"], len(page["events"])) == (COUNT, False, 1)


async def test_an_empty_list_folds_to_nothing(panel: Panel) -> None:
    assert await panel.get("/v1/events", fold="burst", actor="nobody") == {"events": [], "next_cursor": None}


async def test_without_fold_no_event_says_anything_of_bursts(panel: Panel) -> None:
    assert not any("burst" in event for event in (await panel.get("/v1/events"))["events"])


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("fold=", "fold"), ("fold=all", "fold"), ("fold=burst&fold=burst", "fold"), ("fold=burst&sort=seq", "fold"),
        ("fold=burst&sort=-seq", "fold"), ("since_seq=1", "since_seq"), ("until_seq=1", "until_seq"),
        ("since=2026-03-01T00:00:00Z&since_seq=-1", "since_seq"), ("until=2026-03-01T00:00:00Z&until_seq=x", "until_seq"),
        ("until=2026-03-01T00:00:00Z&since_seq=1", "since_seq"),
    ],
)  # fmt: skip
async def test_a_bad_parameter_is_named(panel: Panel, query: str, name: str) -> None:
    for path in ("/v1/events", "/v1/servers/s2/activity"):
        response = await panel.api.client.get(f"{path}?{query}")
        assert response.status_code == 400, response.text
        assert {fault["parameter"] for fault in response.json()["errors"]} == {name}
    response = await panel.api.client.get(f"/v1/export?{query}")
    assert response.status_code == 400
    assert name in {fault["parameter"] for fault in response.json()["errors"]}


# --- ranges of places ---


def places(events: list[Event]) -> Iterator[tuple[datetime, int]]:
    return ((moment(event), event["seq"]) for event in events)


@settings(max_examples=40)
@given(data=st.data())
async def test_a_range_of_places_is_exact_within_a_moment(searched: Panel, data: st.DataObject) -> None:
    panel = searched
    query = data.draw(st.sampled_from(QUERIES[:9]))
    everything = (await panel.get("/v1/events", sort="occurred_at", limit=500, **query))["events"]
    moments = sorted({event["occurred_at"] for event in everything})
    low, high = (data.draw(st.tuples(st.sampled_from(moments), st.integers(0, COUNT))) for _ in range(2))
    bounds = {"since": low[0], "since_seq": low[1], "until": high[0], "until_seq": high[1]}
    one_sided = data.draw(
        st.sampled_from([(), ("since_seq",), ("until_seq",), ("since", "since_seq"), ("until", "until_seq")])
    )
    bounds = {name: value for name, value in bounds.items() if name not in one_sided}
    sort = data.draw(st.sampled_from(["-occurred_at", "occurred_at", "seq", "-seq"]))
    first = (
        (datetime.fromisoformat(low[0]), bounds.get("since_seq", 0)) if "since" in bounds else (START - timedelta(1), 0)
    )
    end = (
        (datetime.fromisoformat(high[0]), bounds.get("until_seq", 0))
        if "until" in bounds
        else (START + timedelta(9), 0)
    )
    found = await panel.rows("/v1/events", sort=sort, limit=50, **query, **bounds)
    expected = [place[1] for place in places(everything) if first <= place < end]
    assert sorted(event["seq"] for event in found) == sorted(expected)
    counted = await panel.get("/v1/events", count="capped", limit=1, **query, **bounds)
    assert counted["count"] == len(expected)
