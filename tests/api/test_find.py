"""The search index finds exactly what a naive filter finds: without an index, with all of it, and with a part (decision 0007).

Segments of eight entries, a walk of three and lists of three named entries, so that a log of a hundred has every shape that one of
millions has. FIND_EXAMPLES says how many random questions; every one is asked in three states of the index, of two tenants.
"""

import itertools
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from audit_service.core import terms
from audit_service.indexer import index_all
from audit_service.store import find, segments
from audit_service.store.engine import bound
from audit_service.store.selection import Position, base_conditions
from tests.support.api import Api
from tests.support.appends import owner
from tests.support.apps import PANEL_SCOPES, add_key, add_tenant, open_api
from tests.support.oracle import (
    ASKED,
    SORTS,
    START,
    VALUES,
    ZONES,
    Asked,
    Event,
    Stock,
    expected,
    fill,
    make_events,
    matches,
    ordered,
    queries,
    single,
    spelled,
    with_times,
)
from tests.support.postgres import Server, TestDatabase, default_log_id

EXAMPLES = int(os.environ.get("FIND_EXAMPLES", "300"))
SEGMENT, WALK, NAMED = 8, 3, 3
SIZES = (110, 43)
# A long form takes its time.
pytestmark = [pytest.mark.timeout(0)] if EXAMPLES > 300 else []
# How many segments are in the index; a log of 110 has thirteen full ones, a log of 43 five.
STATES = {"no index": 0, "a part": 4, "all": 13}


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[Counter[str]]:
    """Small segments, walks and lists; and counts of the ways that searches took."""
    ways: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terms, "SEGMENT_EVENTS", SEGMENT)
        patch.setattr(find, "WALK_ENTRIES", WALK)
        patch.setattr(find, "_NAMED_LIMIT", NAMED)
        patch.setattr(find, "_LISTED_LIMIT", NAMED)
        patch.setattr(find, "_BATCHES", (1, 2, 4))
        patch.setattr(find, "_EXPORT_SEGMENTS", 5)
        patch.setattr(segments, "_SLICE_ENTRIES", 3)
        _watch(patch, ways)
        yield ways


def _watch(patch: pytest.MonkeyPatch, ways: Counter[str]) -> None:
    """Count each way through the search, and leave it as it is."""
    wheres, batches, search = find._wheres, find._batches, find._Search

    def count_wheres(some: Sequence[Any], named: Mapping[int, BitMap]) -> Iterator[Any]:
        sizes = [len(positions) for positions in named.values()]
        ways["a dense segment"] += any(size > NAMED for size in sizes)
        ways["a segment with nothing named"] += 0 in sizes
        found = list(wheres(some, named))
        lists = sum(" = ANY " in str(where) for _, where in found)
        ways["a list"] += lists == 1
        ways["several lists"] += lists > 1
        return iter(found)

    def count_batches(some: Sequence[Any]) -> Iterator[Any]:
        for number, batch in enumerate(batches(some), start=1):
            ways[f"batch {number}"] += 1
            yield batch

    class Watched(search):  # type: ignore[valid-type, misc]
        async def find(self, after: Position | None, wanted: int) -> list[Position]:
            before = ways["segments"]
            found: list[Position] = await super().find(after, wanted)
            ways["the walk was enough"] += ways["segments"] == before
            return found

        async def _find_in_segments(self, after: Position, wanted: int) -> list[Position]:
            ways["segments"] += 1
            found: list[Position] = await super()._find_in_segments(after, wanted)
            return found

        async def _fetch(self, within: Sequence[Any], after: Position | None, wanted: int) -> list[Position]:
            found: list[Position] = await super()._fetch(within, after, wanted)
            if within and "seq >= " in str(within[0]) and " AND " not in str(within[0]):
                ways["found in the tail" if found else "nothing in the tail"] += 1
            return found

        async def _named_in(self, some: Sequence[Any]) -> dict[int, BitMap]:
            ways["looks into the index"] += 1
            found: dict[int, BitMap] = await super()._named_in(some)
            return found

        def _reaches(self, segment: Any, position: Position) -> bool:
            reaches = bool(super()._reaches(segment, position))
            ways["a further segment may hold something nearer" if reaches else "far enough"] += 1
            return reaches

        def _is_asked_for(self, segment: Any) -> bool:
            asked = bool(super()._is_asked_for(segment))
            ways["a segment out of the times asked for"] += not asked
            return asked

    patch.setattr(find, "_wheres", count_wheres)
    patch.setattr(find, "_batches", count_batches)
    patch.setattr(find, "_Search", Watched)


WAYS = (
    "the walk was enough", "segments", "found in the tail", "nothing in the tail", "a dense segment", "a segment with nothing named",
    "a list", "several lists", "batch 1", "batch 2", "batch 3", "a further segment may hold something nearer", "far enough",
    "a segment out of the times asked for",
)  # fmt: skip


async def add_segments(api: Api, log_id: int, count: int) -> None:
    """Index the first segments of a log, as many of them as are full."""
    pools = api.service.database
    for _ in range(count):
        async with bound(pools.reads, log_id) as connection:
            number = await segments.next_segment(connection, log_id)
        if number is None:
            return
        assert await segments.add_segment(pools.reads, pools.writes, log_id, number)


@pytest.fixture(scope="module")
async def stocks(server: Server, small: Counter[str]) -> AsyncIterator[dict[str, Stock]]:
    """The same two tenants in every state of the index; each state in a database of its own."""
    del small
    async with AsyncExitStack() as stack:
        found = {}
        for state, count in STATES.items():
            database = await server.create()
            stack.push_async_callback(server.drop, database)
            found[state] = await _stock(stack, database, count)
        yield found
        for stock in found.values():
            for (api, _), size in zip(stock.tenants, SIZES, strict=True):
                await api.assert_intact(size)


async def _stock(stack: AsyncExitStack, database: TestDatabase, count: int) -> Stock:
    logs = [await default_log_id(database), await add_tenant(database, "other")]
    apis = [
        await stack.enter_async_context(open_api(database, key=await add_key(database, log, PANEL_SCOPES)))
        for log in logs
    ]
    events = []
    for seed, (api, log_id, size) in enumerate(zip(apis, logs, SIZES, strict=True), start=1):
        events.append(await fill(api, make_events(seed, size, "e")))
        await add_segments(api, log_id, count)
    return Stock(apis[0], apis[1], events[0], events[1])


async def answer(api: Api, asked: Asked, **paging: Any) -> Any:
    """One page, as JSON."""
    response = await api.client.get("/v1/events", params=[*asked, *paging.items()])
    assert response.status_code == 200, response.text
    return response.json()


async def walk(api: Api, asked: Asked, sort: str, limit: int) -> list[int]:
    """The seqs of all pages."""
    found: list[int] = []
    paging: dict[str, Any] = {"sort": sort, "limit": limit}
    while True:
        page = await answer(api, asked, **paging)
        found += [event["seq"] for event in page["events"]]
        assert len(page["events"]) == limit or page["next_cursor"] is None
        if page["next_cursor"] is None:
            return found
        paging["cursor"] = page["next_cursor"]


async def exported(api: Api, asked: Asked) -> list[int]:
    """The seqs of an export."""
    response = await api.client.get("/v1/export", params=[*asked, ("format", "ndjson")])
    assert response.status_code == 200, response.text
    *events, trailer = [json.loads(line) for line in response.text.splitlines()]
    assert trailer["count"] == len(events)
    return [event["seq"] for event in events]


async def assert_found(stocks: Mapping[str, Stock], asked: Asked, sort: str, limit: int) -> None:
    """List, count and export are what the naive filter says, in every state, for every tenant."""
    for state, stock in stocks.items():
        for api, events in stock.tenants:
            timed = with_times(asked, events)
            wanted = expected(events, timed, sort)
            page = await answer(api, timed, sort=sort, limit=limit, count="capped")
            assert [event["seq"] for event in page["events"]] == wanted[:limit], state
            assert (page["count"], page["count_capped"], page["next_cursor"] is None) == (
                len(wanted),
                False,
                len(wanted) <= limit,
            ), state


@settings(max_examples=EXAMPLES)
@given(queries, st.sampled_from(ZONES), st.sampled_from(SORTS), st.sampled_from([1, 2, 5, 500]))
async def test_every_state_of_the_index_finds_what_a_naive_filter_finds(
    stocks: dict[str, Stock], groups: list[Asked], zone: str, sort: str, limit: int
) -> None:
    await assert_found(stocks, single(groups, zone), sort, limit)


@settings(max_examples=max(15, EXAMPLES // 20))
@given(queries, st.sampled_from(ZONES), st.sampled_from(SORTS), st.sampled_from([1, 3, 7]))
async def test_pages_and_exports_are_the_whole_selection(
    stocks: dict[str, Stock], groups: list[Asked], zone: str, sort: str, limit: int
) -> None:
    for stock in stocks.values():
        for api, events in stock.tenants:
            asked = with_times(single(groups, zone), events)
            assert await walk(api, asked, sort, limit) == expected(events, asked, sort)
            assert await exported(api, asked) == expected(events, asked, "seq")


@pytest.mark.parametrize("name", sorted(ASKED))
async def test_each_value_of_each_filter_alone(stocks: dict[str, Stock], name: str) -> None:
    """Plain and negated."""
    for spelling in (name, name + ".not"):
        for value in ASKED[name]:
            await assert_found(stocks, [(spelling, value)], "-occurred_at", 5)


async def test_every_way_through_the_search_is_taken(stocks: dict[str, Stock], small: Counter[str]) -> None:
    """The control of the sizes above: without it the oracle might never leave the walk."""
    small.clear()
    asked: list[Asked] = [
        [(name, value)]
        for name in ("server_id.not", "q", "target_type", "category")
        for value in ASKED[name.removesuffix(".not")]
    ]
    asked.append([("until", (START + timedelta(hours=5)).isoformat()), ("verb", "CREATE")])
    for one, (limit, sort) in zip(asked, itertools.cycle(itertools.product((1, 3), SORTS)), strict=False):
        await assert_found(stocks, one, sort, limit)
    assert {way for way in WAYS if not small[way]} == set()


async def test_the_index_is_asked_no_further_than_the_page_needs(stocks: dict[str, Stock], small: Counter[str]) -> None:
    """The first look fills the page: there is no second."""
    stock = stocks["all"]
    small.clear()
    assert len(await stock.api.list(category__not="never", sort="seq", limit=WALK + 1)) == WALK + 1
    assert small["looks into the index"] == 1


async def test_a_count_stops_at_its_cap(stocks: dict[str, Stock], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find.count_entries, "__kwdefaults__", {"cap": 7})
    for stock in stocks.values():
        for value in ("server", "user", "x"):
            matching = sum(event["category"] == value for event in stock.events)
            page = await answer(stock.api, [("category", value)], count="capped", limit=1)
            assert (page["count"], page["count_capped"]) == (min(matching, 7), matching > 7)


async def test_path_and_values_asked_together_are_those_of_one_change(api: Api) -> None:
    await api.accept(
        {"id": "one", "action": "x", "changes": [{"path": "/a", "old": 1, "new": 2}, {"path": "/b", "old": 3, "new": 4}]},
        {"id": "two", "action": "x", "changes": [{"path": "/a", "old": 3, "new": 2}, {"path": "/b", "old": 1, "new": 2}]},
    )  # fmt: skip
    assert [event["id"] for event in await api.list(changed="/a", old="1", new="2")] == ["one"]
    assert [event["id"] for event in await api.list(changed="/b", old="1")] == ["two"]
    assert [event["id"] for event in await api.list(changed="/a", new="2")] == ["two", "one"]
    assert await api.list(changed="/a", new="4") == []


@pytest.mark.parametrize("value", [value for value in VALUES if value != ""], ids=repr)
async def test_every_changed_value_is_found_as_json_writes_it(stocks: dict[str, Stock], value: Any) -> None:
    """Lists and objects too, of which the search text holds only the parts."""
    for stock in stocks.values():
        made = {s: [e["seq"] for e in stock.events if matches(e, [(s, spelled(value))])] for s in ("old", "new")}
        assert made["old"] or made["new"]
        for side, seqs in made.items():
            shown = await stock.api.list(**{side: spelled(value), "sort": "seq", "limit": 500})
            assert [event["seq"] for event in shown] == seqs


# --- while the log grows and is indexed ---


@pytest.mark.parametrize("sort", SORTS)
async def test_pages_are_whole_while_events_arrive_late_and_are_indexed(api: Api, sort: str) -> None:
    """What was there at the start comes once each, in order; between two pages come older and newer events, and whole segments change
    from the tail into the index. Five times for sixty events: most have the same time as others, also across segments."""
    database = api.service.database

    def event(number: int, at: int) -> Event:
        action = "kind.kept" if number % 3 else "kind.other"
        return {"id": f"e{number}", "action": action, "occurred_at": (START + timedelta(seconds=at)).isoformat()}

    first = await fill_plain(api, [event(number, number * 7 % 5) for number in range(60)])
    await index_all(database)
    found: list[str] = []
    paging: dict[str, Any] = {"sort": sort, "limit": 4}
    number = 60
    while True:
        page = await answer(api, [("action", "kind.kept")], **paging)
        found += [shown["id"] for shown in page["events"]]
        if page["next_cursor"] is None or number > 150:
            break
        paging["cursor"] = page["next_cursor"]
        await fill_plain(api, [event(number + step, at) for step, at in enumerate((-100, 0, 2, 4, 100))])
        number += 5
        await index_all(database)
    assert len(found) == len(set(found))
    old = {event["id"] for event in first}
    kept = [event for event in first if event["action"] == "kind.kept"]
    assert [identifier for identifier in found if identifier in old] == [event["id"] for event in ordered(kept, sort)]
    await api.assert_intact(number)


async def fill_plain(api: Api, events: list[Event]) -> list[Event]:
    """Post events in one call; with their seqs."""
    response = await api.client.post("/v1/events", json=events)
    assert response.status_code == 201, response.text
    return [
        event | {"seq": result["receipt"]["seq"]}
        for event, result in zip(events, response.json()["results"], strict=True)
    ]


# --- controls: an oracle that cannot fail says nothing ---


@pytest.fixture
async def indexed(server: Server) -> AsyncIterator[tuple[TestDatabase, dict[str, Stock]]]:
    """Two tenants with everything indexed, to be spoilt; they are found before that."""
    database = await server.create()
    async with AsyncExitStack() as stack:
        stock = {"all": await _stock(stack, database, STATES["all"])}
        await ask_each(stock)
        yield database, stock
    await server.drop(database)


async def ask_each(stocks: Mapping[str, Stock]) -> None:
    """Some values of some filters, in the order that the index is asked in."""
    for name in ("action", "q", "old", "changed", "session"):
        for value in ASKED[name]:
            await assert_found(stocks, [(name, value)], "occurred_at", 500)


Spoilable = tuple[TestDatabase, dict[str, Stock]]


async def test_control_an_index_that_lost_one_position_is_seen(indexed: Spoilable) -> None:
    database, stock = indexed
    async with owner(database) as connection:
        row = await connection.fetchrow(
            "SELECT log_id, number, value, positions FROM audit.posting WHERE log_id = $1 AND number = 6 AND field = 'action' "
            "AND value = 'server.created'",
            await default_log_id(database),
        )
        assert row is not None
        positions = BitMap.deserialize(row["positions"])
        lost = BitMap(list(positions)[:-1])
        await connection.execute(
            "UPDATE audit.posting SET positions = $1 WHERE log_id = $2 AND number = 6 AND field = 'action' AND value = $3",
            lost.serialize(),
            row["log_id"],
            row["value"],
        )
    with pytest.raises(AssertionError):
        await ask_each(stock)


async def test_control_an_index_of_the_other_tenant_s_positions_is_seen_and_shows_nothing_of_theirs(
    indexed: Spoilable,
) -> None:
    database, stock = indexed
    async with owner(database) as connection:
        mine = await default_log_id(database)
        await connection.execute("DELETE FROM audit.posting WHERE log_id = $1 AND number = 2", mine)
        await connection.execute(
            "INSERT INTO audit.posting SELECT $1::bigint, number, events, field, value, positions FROM audit.posting "
            "WHERE log_id <> $1 AND number = 2",
            mine,
        )
    with pytest.raises(AssertionError):
        await ask_each(stock)
    hashes = {event["proof"]["hash"] for event in await stock["all"].other.list(limit=500)}
    for value in ASKED["action"]:
        shown = await stock["all"].api.list(action=value, limit=500)
        assert not hashes & {event["proof"]["hash"] for event in shown}


async def test_control_a_search_that_believes_the_index_is_seen(
    indexed: Spoilable, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, stock = indexed
    monkeypatch.setattr(find, "conditions", base_conditions)
    with pytest.raises(AssertionError):
        await ask_each(stock)


@pytest.mark.parametrize("wrong", ["tail", "walk"])
async def test_control_a_search_without_its_tail_or_beginning_is_seen(
    stocks: dict[str, Stock], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """Each part of a search is needed."""
    fetch = find._Search._fetch

    async def lazy(self: Any, within: Sequence[Any], after: Position | None, wanted: int) -> list[Position]:
        text = str(within[0]) if within else ""
        is_tail, is_walk = "seq >= " in text and " AND " not in text, "(audit.seen_entry" in text
        return [] if (is_tail if wrong == "tail" else is_walk) else await fetch(self, within, after, wanted)

    monkeypatch.setattr(find._Search, "_fetch", lazy)
    with pytest.raises(AssertionError):
        await ask_each(stocks)
