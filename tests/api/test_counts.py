"""Facets and timeline: every count against a naive one, whatever of the log is in the search index."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from ipaddress import IPv4Network
from itertools import chain, pairwise
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_service.api import schemas
from audit_service.api.routes import counts as routes
from audit_service.core import terms
from audit_service.core.sight import EVERYTHING
from audit_service.core.timeline import QUARTER, quarter_start
from audit_service.indexer import index_all
from audit_service.store import counts, find
from audit_service.store.counts import FACETS, count_facets, count_quarters
from audit_service.store.engine import bound
from audit_service.store.selection import Filter, Selection
from tests.support.api import Api
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.oracle import ASKED, NAIVE, Event, fill, filters, make_events, matches, ordered
from tests.support.postgres import Server, TestDatabase

SEGMENT_EVENTS = 8
# Around the days when clocks change: St. John's and Berlin in spring, Berlin and St. John's in autumn. The log follows them nearly.
ANCHORS = [datetime(2025, *day, tzinfo=UTC) for day in ((3, 8, 20), (3, 29, 12), (10, 25, 12), (11, 1, 20))]
ZONES = ["UTC", "Europe/Berlin", "Pacific/Kiritimati", "America/St_Johns", "Asia/Kolkata"]
INTERVALS = ["hour", "day", "month"]
KNOWN = ["action", "actor_type", "category", "outcome", "role", "server_id", "target_type", "verb"]
Parameters = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, repr=False)
class Stock:
    """Two tenants' events as posted, in seq order; so much of them is in the search index as `state` says."""

    state: str
    database: TestDatabase
    tenants: tuple[tuple[Api, list[Event]], ...]


def timed(events: list[Event], seed: int) -> list[Event]:
    """The events at other times: most in the order of the log, some late; some on a whole quarter. And people change their names."""
    chance = random.Random(seed)  # noqa: S311 - test data, the same each run
    moved = []
    for number, event in enumerate(events):
        anchor = ANCHORS[number * len(ANCHORS) // len(events)] if chance.random() < 0.85 else chance.choice(ANCHORS)
        at = anchor + timedelta(seconds=chance.choice([900, 1]) * chance.randrange(120))
        at += timedelta(hours=chance.choice([0, 1, 13, 28]), microseconds=chance.choice([0, 1, 999_999]))
        actor = event["actor"]
        if actor is not None and chance.random() < 0.3:
            actor = actor | {"name": f"Name {number}"}
        moved.append(event | {"occurred_at": at.isoformat(), "actor": actor})
    return moved


EVENTS, OTHERS = timed(make_events(1, 128, "e"), 3), timed(make_events(2, 40, "e"), 4)


@pytest.fixture(scope="module")
def small_segments() -> Iterator[None]:
    """Every branch of the search with few events."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terms, "SEGMENT_EVENTS", SEGMENT_EVENTS)
        patch.setattr(find, "WALK_ENTRIES", 3)
        patch.setattr(find, "LONG_WALK_ENTRIES", 3)
        patch.setattr(find, "_NAMED_LIMIT", 4)
        patch.setattr(find, "_BATCHES", (1, 2))
        patch.setattr(counts, "_SEGMENTS_AT_ONCE", 3)
        patch.setattr(counts, "_LOOKED_AT_LIMIT", 10)
        yield


@pytest.fixture(scope="module", params=["no index", "some indexed", "all indexed"])
async def stock(request: pytest.FixtureRequest, server: Server, small_segments: None) -> AsyncIterator[Stock]:
    """Both tenants, filled, and indexed after none, half or all of their events."""
    del small_segments
    database = await server.create()
    key = await add_key(database, await add_tenant(database, "other"))
    async with open_api(database) as one, open_api(database, key=key) as other:
        tenants = []
        for api, events in ((one, EVENTS), (other, OTHERS)):
            noted = await fill(api, events[: len(events) // 2])
            if request.param == "some indexed":
                await index_all(api.service.database)
            noted += await fill(api, events[len(events) // 2 :])
            tenants.append((api, noted))
        if request.param == "all indexed":
            assert await index_all(one.service.database) == (len(EVENTS) + len(OTHERS)) // SEGMENT_EVENTS
        yield Stock(request.param, database, tuple(tenants))
        for api, events in tenants:
            await api.assert_intact(len(events))
    await server.drop(database)


async def ask(api: Api, path: str, parameters: Parameters) -> dict[str, Any]:
    """The answer, as its schema says."""
    response = await api.client.get(f"/v1/{path}", params=[*parameters])
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    model: type[schemas.Facets | schemas.Timeline] = schemas.Facets if "facets" in path else schemas.Timeline
    model.model_validate(answer)
    return answer


# --- naive counting ---


def value_of(event: Event, facet: str) -> str | None:
    """The value an event has for a filter menu, cut where it is too long for one."""
    actor, target = event["actor"] or {}, event["target"] or {}
    values = {
        "actor": actor.get("id"), "role": actor.get("role"), "actor_type": actor.get("type"), "target_type": target.get("type"),
    }  # fmt: skip
    found: str | None = values[facet] if facet in values else event[facet]
    return found and found[:256]


def naive_facet(events: list[Event], facet: str, limit: int = 50) -> dict[str, Any]:
    """The facet as the API should answer it; events are in the order of seq."""
    tally: Counter[str | None] = Counter()
    names: dict[str | None, str | None] = {}
    for event in events:
        value = value_of(event, facet)
        if value is not None or facet == "server_id":
            tally[value] += 1
            names[value] = (event["actor"] or {}).get("name")
    ranked = sorted(tally.items(), key=lambda item: (-item[1], item[0] or ""))
    values: list[dict[str, Any]] = [{"value": value, "count": count} for value, count in ranked[:limit]]
    if facet == "actor":
        values = [item | {"name": names[item["value"]]} for item in values]
    return {"values": values, "more": len(ranked) > limit}


def naive_facets(events: list[Event], capped: bool = False) -> dict[str, Any]:
    return {"facets": {facet: naive_facet(events, facet) for facet in FACETS}, "counted": len(events), "capped": capped}


def label(at: datetime, interval: str, zone: str) -> str:
    """What a clock and a calendar in the zone show. The hour that comes twice has two offsets."""
    local = at.astimezone(ZoneInfo(zone))
    if interval == "hour":
        return local.isoformat()[:13] + local.strftime("%z")
    return local.isoformat()[: 10 if interval == "day" else 7]


def occurred(event: Event) -> datetime:
    return datetime.fromisoformat(event["occurred_at"])


def check_timeline(answer: dict[str, Any], events: list[Event], asked: Parameters, interval: str, zone: str) -> None:
    """Each bucket counts what occurred in it, is one hour, day or month there, and none is left out from the first to the last."""
    given_ = dict(asked)
    buckets = [
        (datetime.fromisoformat(b["from"]), datetime.fromisoformat(b["to"]), b["count"]) for b in answer["timeline"]
    ]
    assert [count for *_, count in buckets] == [sum(a <= occurred(e) < b for e in events) for a, b, _ in buckets]
    shown = {label(start, interval, zone): count for start, _, count in buckets}
    assert len(shown) == len(buckets)
    assert {k: n for k, n in shown.items() if n} == dict(Counter(label(occurred(e), interval, zone) for e in events))
    assert all(one[1] == other[0] and one[0] < one[1] for one, other in pairwise(buckets))
    for start, stop, _ in buckets:  # the shortest of its kind is 23 hours, or 28 days
        length = {"hour": timedelta(hours=1), "day": timedelta(hours=25), "month": timedelta(days=31, hours=1)}[
            interval
        ]
        assert stop - start <= length
        assert label(stop - timedelta(microseconds=1), interval, zone) == label(start, interval, zone)
    if buckets and "since" in given_:
        assert buckets[0][0] == datetime.fromisoformat(given_["since"])
    elif buckets:
        assert label(buckets[0][0], interval, zone) == label(min(map(occurred, events)), interval, zone)
        assert label(buckets[0][0] - timedelta(microseconds=1), interval, zone) != label(buckets[0][0], interval, zone)
    if buckets and "until" in given_:
        assert buckets[-1][1] == datetime.fromisoformat(given_["until"])
    elif buckets:
        assert label(buckets[-1][1] - timedelta(microseconds=1), interval, zone) == label(
            max(map(occurred, events)), interval, zone
        )
        assert label(buckets[-1][1], interval, zone) != label(buckets[-1][0], interval, zone)


# Where counting may go wrong: when something occurred, just before and after, and at whole quarters.
moments = st.one_of(
    st.builds(
        lambda event, seconds: (occurred(event) + timedelta(seconds=seconds)).isoformat(),
        st.sampled_from(EVENTS),
        st.sampled_from([0, 0.000001, 1, -1, 420, -420, 900]),
    ),
    st.builds(
        lambda anchor, quarters: (anchor + quarters * QUARTER).isoformat(),
        st.sampled_from(ANCHORS),
        st.integers(0, 120),
    ),
)
ranges = st.one_of(moments.map(lambda at: [("since", at)]), moments.map(lambda at: [("until", at)]))
both = st.tuples(moments, moments).map(lambda pair: [("since", min(pair)), ("until", max(pair))])
of_columns = filters.filter(lambda group: group[0][0].removesuffix(".not") in KNOWN)


def single(groups: list[Parameters]) -> Parameters:
    """One group of each name: time ranges may stand once only."""
    return list(chain(*{group[0][0]: group for group in groups}.values()))


any_queries = st.lists(st.one_of(filters, filters, ranges), max_size=4).map(single)
known_queries = st.one_of(
    st.lists(st.one_of(of_columns, of_columns, ranges), max_size=4).map(single),
    st.builds(lambda times, filters_: [*times, *single(filters_)], both, st.lists(of_columns, max_size=2)),
)


# --- facets ---


@settings(max_examples=60)
@given(any_queries)
async def test_facets_count_what_naive_counting_counts(stock: Stock, asked: Parameters) -> None:
    for api, events in stock.tenants:
        assert await ask(api, "facets", asked) == naive_facets([event for event in events if matches(event, asked)])


async def test_facets_without_a_filter_are_those_of_the_whole_log(stock: Stock) -> None:
    for api, events in stock.tenants:
        assert await ask(api, "facets", []) == naive_facets(events)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 500])
async def test_a_facet_has_the_most_frequent_values(stock: Stock, limit: int) -> None:
    for api, events in stock.tenants:
        for asked in ([], [("category.not", "nothing")]):
            answer = await ask(
                api, "facets", [*asked, ("limit", str(limit)), ("fields", "actor,action"), ("fields", "verb")]
            )
            assert answer["facets"] == {name: naive_facet(events, name, limit) for name in ("actor", "action", "verb")}


@pytest.mark.parametrize("name", ["s1", "s%", "never-seen"])
async def test_a_server_s_facets_are_of_its_events(stock: Stock, name: str) -> None:
    for api, events in stock.tenants:
        answer = await ask(api, f"servers/{quote(name)}/facets", [("action", "server*")])
        fitting = [e for e in events if e["server_id"] == name and e["action"].startswith("server")]
        assert answer == naive_facets(fitting)


@pytest.mark.parametrize("asked", [[("outcome.not", "success")], [("server_id", "none")], [("q", "name")]])
async def test_over_the_limit_the_newest_are_counted(
    stock: Stock, monkeypatch: pytest.MonkeyPatch, asked: Parameters
) -> None:
    """At the limit, one more and one less than that."""
    for api, events in stock.tenants:
        fitting = [event for event in events if matches(event, asked)]
        newest = ordered(fitting, "-occurred_at")
        for limit in (7, len(fitting) - 1, len(fitting), len(fitting) + 1):
            monkeypatch.setattr(counts, "COUNTED_LIMIT", limit)
            counted = sorted(newest[:limit], key=lambda event: int(event["seq"]))
            assert await ask(api, "facets", asked) == naive_facets(counted, limit < len(fitting))


async def test_values_that_the_index_cuts_are_cut_everywhere(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a role can be so long. Nothing is taken for another: a filter by one of them counts just its own."""
    monkeypatch.setattr(terms, "SEGMENT_EVENTS", 2)
    monkeypatch.setattr(counts, "_LOOKED_AT_LIMIT", 0)
    short = "é" * terms.VALUE_CHARACTERS
    for roles in ((short, short + "1"), (short + "2",)):
        await api.accept(*({"action": "x", "actor": {"id": "u", "role": role}} for role in roles))
        await index_all(api.service.database)
    for asked in ([], [("verb.not", "LOGIN")]):
        answer = await ask(api, "facets", [*asked, ("fields", "role")])
        assert answer["facets"]["role"]["values"] == [{"value": short, "count": 3}]
    for role in (short, short + "1", short + "2"):
        for name, count in (("role", 1), ("role.not", 2)):
            answer = await ask(api, "timeline", [(name, role), ("interval", "month")])
            assert sum(bucket["count"] for bucket in answer["timeline"]) == count


async def test_an_actor_s_name_is_that_of_the_newest_entry(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever that is: in the newest segment, in one long ago, in none yet, and when the newest has no name."""
    monkeypatch.setattr(terms, "SEGMENT_EVENTS", 4)
    monkeypatch.setattr("audit_service.store.segments._NEWEST_BATCHES", (1, 2))
    people = [("old", "First"), ("old", "Second"), ("lost", "Named"), ("lost", None), ("often", "A"), ("tail", "A")]
    people += [("often", f"B{number}") for number in range(30)]
    expected = {"old": "Second", "lost": None, "often": "B29", "tail": "A"}
    await api.accept(*({"action": "x", "actor": {"id": i, **({"name": n} if n else {})}} for i, n in people))
    await index_all(api.service.database)
    await api.accept({"action": "x", "actor": {"id": "tail", "name": "T"}})
    answer = await ask(api, "facets", [("fields", "actor")])
    assert {v["value"]: v["name"] for v in answer["facets"]["actor"]["values"]} == expected | {"tail": "T"}


# --- timeline ---


@settings(max_examples=60)
@given(
    st.one_of(known_queries, known_queries, any_queries),
    st.sampled_from(ZONES),
    st.sampled_from(INTERVALS),
    st.sampled_from([0, 20, 10_000]),
)
async def test_a_timeline_counts_what_naive_counting_counts(
    stock: Stock, asked: Parameters, zone: str, interval: str, looked_at: int
) -> None:
    """By the quarters of the index, and by a look at what it names."""
    if interval == "hour":  # of the whole log it would be too many buckets
        since = datetime.fromisoformat(dict(asked).get("since", ANCHORS[2].isoformat()))
        until = since + timedelta(hours=60, seconds=7)
        asked = [*(pair for pair in asked if pair[0] not in {"since", "until"}), ("since", since.isoformat())]
        asked.append(("until", until.isoformat()))
    for api, events in stock.tenants:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(counts, "_LOOKED_AT_LIMIT", looked_at)
            answer = await ask(api, "timeline", [*asked, ("interval", interval), ("tz", zone)])
        assert (answer["interval"], answer["tz"], answer["capped"]) == (interval, zone, False)
        check_timeline(answer, [event for event in events if matches(event, asked)], asked, interval, zone)


@pytest.mark.parametrize("zone", ZONES)
async def test_the_days_when_clocks_change_are_whole(stock: Stock, zone: str) -> None:
    """Days asked for as dates of the zone, by the hour: 23, 24 or 25 buckets that together are that day of the list."""
    lengths = {"2025-03-30": 23, "2025-10-26": 25} if zone == "Europe/Berlin" else {}
    if zone == "America/St_Johns":
        lengths = {"2025-03-09": 23, "2025-11-02": 25}
    for api, events in stock.tenants:
        for day in ("2025-03-09", "2025-03-30", "2025-10-26", "2025-11-02"):
            asked = [("date_from", day), ("date_to", day), ("tz", zone)]
            answer = await ask(api, "timeline", [*asked, ("interval", "hour")])
            assert len(answer["timeline"]) == lengths.get(day, 24)
            fitting = [event for event in events if matches(event, asked)]
            assert sum(bucket["count"] for bucket in answer["timeline"]) == len(fitting)
            for bucket in answer["timeline"]:
                start, stop = (datetime.fromisoformat(bucket[name]) for name in ("from", "to"))
                assert bucket["count"] == sum(start <= occurred(event) < stop for event in fitting)
            whole = await ask(api, "timeline", asked)
            assert [b["count"] for b in whole["timeline"]] == [len(fitting)]


@pytest.mark.parametrize("asked", [[], [("verb.not", "LOGIN")], [("target_id.not", "s1")]])
async def test_the_first_and_last_quarter_of_a_segment_count(stock: Stock, asked: Parameters) -> None:
    """Times that begin or end with the very quarter of a segment's newest or oldest event."""
    api, events = stock.tenants[0]
    for start in range(0, len(events), SEGMENT_EVENTS):
        times = [occurred(event) for event in events[start : start + SEGMENT_EVENTS]]
        for at in (quarter_start(min(times)), quarter_start(max(times))):
            for limits in ([("since", at)], [("until", at + QUARTER)]):
                within = [*asked, *((name, limit.isoformat()) for name, limit in limits)]
                answer = await ask(api, "timeline", within)
                check_timeline(answer, [event for event in events if matches(event, within)], within, "day", "UTC")


async def test_a_bucket_is_what_a_list_of_its_time_shows(stock: Stock) -> None:
    api, _ = stock.tenants[0]
    asked = [("verb.not", "LOGIN"), ("since", "2025-03-29T12:07:00Z"), ("until", "2025-03-31T00:00:01Z")]
    answer = await ask(api, "timeline", [*asked, ("tz", "Asia/Kolkata"), ("interval", "hour")])
    for bucket in answer["timeline"]:
        listed = await api.list(verb__not="LOGIN", since=bucket["from"], until=bucket["to"], limit=500)
        assert len(listed) == bucket["count"]


async def test_a_server_s_timeline_is_of_its_events(stock: Stock) -> None:
    for api, events in stock.tenants:
        answer = await ask(api, "servers/s1/timeline", [("interval", "day"), ("action.not", "server")])
        fitting = [e for e in events if e["server_id"] == "s1" and e["action"] != "server"]
        check_timeline(answer, fitting, [], "day", "UTC")
        assert fitting
        assert await ask(api, "servers/never-seen/timeline", []) == {
            "timeline": [], "interval": "day", "tz": "UTC", "capped": False,
        }  # fmt: skip


@pytest.mark.parametrize(("asked", "capped"), [([("role.not", "Admin")], False), ([("target_id.not", "s1")], True)])
async def test_over_the_limit_the_newest_are_counted_in_time(
    stock: Stock, monkeypatch: pytest.MonkeyPatch, asked: Parameters, capped: bool
) -> None:
    """What the index knows by itself is never capped; else the timeline begins with the oldest event that was counted."""
    monkeypatch.setattr(counts, "COUNTED_LIMIT", 7)
    for api, events in stock.tenants:
        fitting = ordered([event for event in events if matches(event, asked)], "-occurred_at")
        for since in ([], [("since", "2025-01-01T00:00:00+00:00")]):
            answer = await ask(api, "timeline", [*asked, *since])
            assert answer["capped"] is capped
            if capped:
                fitting = fitting[:7]
                since = [("since", fitting[-1]["occurred_at"])]  # noqa: PLW2901 - what is counted begins there
            check_timeline(answer, fitting, since, "day", "UTC")


async def test_nothing_is_counted_in_a_time_that_is_none(stock: Stock) -> None:
    api, _ = stock.tenants[0]
    for since, until in (("2025-04-01T00:00:00Z", "2025-03-01T00:00:00Z"), ("2025-03-30T01:00:00Z",) * 2):
        answer = await ask(api, "timeline", [("since", since), ("until", until)])
        assert answer["timeline"] == []


async def test_an_empty_range_is_a_row_of_noughts(stock: Stock) -> None:
    api, _ = stock.tenants[0]
    answer = await ask(api, "timeline", [("date_from", "2024-02-01"), ("date_to", "2024-02-29")])
    assert [bucket["count"] for bucket in answer["timeline"]] == [0] * 29
    assert answer["timeline"][-1] == {"from": "2024-02-29T00:00:00Z", "to": "2024-03-01T00:00:00Z", "count": 0}


async def test_there_are_as_many_buckets_as_the_limit_and_no_more(stock: Stock) -> None:
    api, _ = stock.tenants[0]
    first = date(2020, 1, 1)
    for days, status in ((routes.BUCKETS_LIMIT, 200), (routes.BUCKETS_LIMIT + 1, 400)):
        asked = {"date_from": first.isoformat(), "date_to": (first + timedelta(days=days - 1)).isoformat()}
        asked |= {"interval": "day"}
        response = await api.client.get("/v1/timeline", params=asked)
        assert response.status_code == status
        if status == 200:
            assert len(response.json()["timeline"]) == days
        else:
            assert [fault["parameter"] for fault in response.json()["errors"]] == ["interval"]
    assert (await api.client.get("/v1/timeline", params=asked | {"interval": "month"})).status_code == 200
    del asked["interval"]
    response = await api.client.get("/v1/timeline", params=asked)
    assert (response.status_code, response.json()["interval"]) == (200, "month")


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"since": "0001-01-01T00:00:00Z", "interval": "month"}, 200),
        ({"since": "0001-01-01T00:00:00Z", "interval": "hour"}, 400),
        ({"until": "9999-12-31T23:59:59Z", "interval": "month"}, 400),
        ({"since": "9999-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z"}, 200),
        ({"since": "0001-01-01T00:00:00Z", "until": "1999-12-31T23:59:59Z"}, 200),
        ({"date_from": "1970-01-01", "date_to": "9000-12-31", "tz": "Pacific/Apia"}, 400),
    ],
)
async def test_far_times_are_answered_or_too_many_buckets(stock: Stock, asked: dict[str, str], status: int) -> None:
    api, _ = stock.tenants[0]
    for more in ({}, {"q": "name"}):
        assert (await api.client.get("/v1/timeline", params=asked | more)).status_code == status


# --- what is not there, and what is not theirs ---


async def test_an_empty_log_has_empty_counts(api: Api) -> None:
    assert await ask(api, "facets", []) == naive_facets([])
    assert (await ask(api, "timeline", []))["timeline"] == []
    assert await ask(api, "facets", [("actor", "ana")]) == naive_facets([])


async def test_dropped_events_are_not_counted(
    api: Api, database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropped before their segment was indexed, and among what is not indexed yet."""
    monkeypatch.setattr(terms, "SEGMENT_EVENTS", 4)
    events = timed(make_events(5, 10, "d"), 6)
    noted = await fill(api, events)
    owner = await database.owner()
    projections = [
        "body", "occurred_at", "action", "verb", "category", "outcome", "actor_type", "actor_id", "actor_name", "actor_role",
        "target_type", "server_id", "actor_keys", "search",
    ]  # fmt: skip
    await owner.execute("GRANT SELECT, UPDATE ON audit.entry TO audit_eraser; SET ROLE audit_eraser")
    nothing = ", ".join(f"{column} = NULL" for column in projections)
    assert await owner.execute(f"UPDATE audit.entry SET {nothing} WHERE seq IN (1, 2, 9)") == "UPDATE 3"
    await owner.close()
    left = [event for event in noted if event["seq"] not in {1, 2, 9}]
    for indexed in (0, 2):
        if indexed:
            assert await index_all(api.service.database) == indexed
        for asked in ([], [("verb.not", "nothing")][:0], [("server_id.not", "never-seen")]):
            assert await ask(api, "facets", asked) == naive_facets(left)
            check_timeline(await ask(api, "timeline", asked), left, [], "day", "UTC")


async def test_counts_take_the_scope_read(database: TestDatabase, log_id: int) -> None:
    for scopes, status in ((("ingest", "export", "verify", "admin"), 403), (("read",), 200)):
        async with open_api(database, key=await add_key(database, log_id, scopes)) as api:
            for path in ("facets", "timeline", "servers/s1/facets", "servers/s1/timeline"):
                assert (await api.client.get(f"/v1/{path}")).status_code == status
    async with open_api(database, key="aud_nobody") as api:
        assert (await api.client.get("/v1/facets")).status_code == 401


async def test_another_log_than_the_bound_one_has_no_counts(stock: Stock) -> None:
    """The second wall: the functions name another log than the transaction is bound to."""
    (api, _), (other, _) = stock.tenants
    mine, theirs = [(await one.service.credential(one.client.headers["Authorization"][7:])) for one in (api, other)]
    assert mine is not None
    assert theirs is not None
    for selection in (
        Selection(sight=EVERYTHING),
        Selection((Filter("verb", ("LOGIN", "OTHER")),), sight=EVERYTHING),
        Selection(server_id="s1", sight=EVERYTHING),
    ):
        async with bound(api.service.database.reads, mine.log_id, EVERYTHING, one_snapshot=True) as connection:
            facets = await count_facets(connection, theirs.log_id, selection, list(FACETS), 50)
            quarters = await count_quarters(connection, theirs.log_id, selection)
        assert (facets.counted, [list(facet.values) for facet in facets.facets.values()]) == (0, [[]] * len(FACETS))
        assert not quarters.counts


# --- while the log grows ---


async def test_counts_add_up_while_events_and_segments_are_added(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every event has a verb, an action and a server or none: their counts are the same at any moment, and never go back."""
    monkeypatch.setattr(terms, "SEGMENT_EVENTS", 8)
    posted = 0

    async def post() -> None:
        nonlocal posted
        for event in make_events(9, 240, "g"):
            await api.accept(event)
            posted += 1

    async def index(growing: asyncio.Task[None]) -> None:
        while not growing.done():
            await index_all(api.service.database)

    growing = asyncio.create_task(post())
    indexing = asyncio.create_task(index(growing))
    while not growing.done():
        before = posted
        facets, timeline = await ask(api, "facets", []), await ask(api, "timeline", [])
        totals = {
            name: sum(value["count"] for value in facets["facets"][name]["values"])
            for name in ("verb", "action", "server_id")
        }
        assert set(totals.values()) == {facets["counted"]}
        assert before <= facets["counted"]
        assert facets["counted"] <= sum(bucket["count"] for bucket in timeline["timeline"]) <= posted + 1
    await asyncio.gather(growing, indexing)
    assert (await ask(api, "facets", []))["counted"] == 240


async def test_a_segment_that_comes_between_two_statements_counts_once(
    api: Api, log_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "SEGMENT_EVENTS", 8)
    noted = await fill(api, timed(make_events(7, 20, "s"), 8))
    async with bound(api.service.database.reads, log_id, EVERYTHING, one_snapshot=True) as connection:
        before = await count_facets(connection, log_id, Selection(sight=EVERYTHING), list(FACETS), 50)
        assert await index_all(api.service.database) == 2
        after = await count_facets(connection, log_id, Selection(sight=EVERYTHING), list(FACETS), 50)
        quarters = await count_quarters(connection, log_id, Selection(sight=EVERYTHING))
    assert after == before
    assert sum(quarters.counts.values()) == before.counted == len(noted)


# --- strictness ---

CANARY = "hunter2-canary"
BAD = [
    ("facets", f"fields={CANARY}", "fields"), ("facets", "fields=", "fields"), ("facets", "fields=actor,", "fields"),
    ("facets", "fields=actor_id", "fields"), ("facets", "fields=actor,%20verb", "fields"), ("facets", "fields=target_id", "fields"),
    ("facets", "&".join(["fields=verb"] * 101), "fields"), ("facets", "fields.not=verb", "fields.not"),
    ("facets", "limit=0", "limit"), ("facets", f"limit={CANARY}", "limit"), ("facets", "limit=5&limit=5", "limit"),
    ("facets", "interval=day", "interval"), ("facets", "sort=seq", "sort"), ("facets", "cursor=x", "cursor"),
    ("facets", "count=capped", "count"),
    ("facets", "tz=Europe", "tz"), ("facets", f"ip={CANARY}", "ip"), ("facets", f"{CANARY}=1", ""), ("facets", "q=ab", "q"),
    ("timeline", f"interval={CANARY}", "interval"), ("timeline", "interval=", "interval"), ("timeline", "interval=Day", "interval"),
    ("timeline", "interval=day&interval=day", "interval"), ("timeline", "interval=minute", "interval"), ("timeline", "limit=5", "limit"),
    ("timeline", f"tz={CANARY}", "tz"), ("timeline", "tz=UTC&tz=UTC", "tz"), ("timeline", "tz=../../etc/passwd", "tz"),
    ("timeline", "fields=verb", "fields"), ("timeline", "since=2026-03-01", "since"), ("timeline", "date_to=2026-02-30", "date_to"),
    ("servers/s1/facets", "server_id=s1", "server_id"), ("servers/s1/timeline", "server_id.not=s1", "server_id.not"),
    ("servers/s1/timeline", "sort=seq", "sort"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "query", "name"), BAD, ids=[f"{path}-{name}-{n}" for n, (path, _, name) in enumerate(BAD)]
)
async def test_a_bad_parameter_is_named_and_its_value_is_not(api: Api, path: str, query: str, name: str) -> None:
    response = await api.client.get(f"/v1/{path}?{query}")
    assert response.status_code == 400, response.text
    problem = response.json()
    schemas.Problem.model_validate(problem)
    assert [fault["parameter"] for fault in problem["errors"]] == [name]
    assert CANARY not in response.text


@pytest.mark.parametrize("name", ["x" * 256, "%00", "a%00b"])
async def test_what_no_server_can_be_called_is_not_found(api: Api, name: str) -> None:
    for what in ("facets", "timeline", "activity"):
        assert (await api.client.get(f"/v1/servers/{name}/{what}")).status_code == 404


def test_the_oracle_knows_what_the_index_knows() -> None:
    """Every filter that the index answers by itself is among those generated, and every facet is counted."""
    values: dict[str, Any] = {"ip": IPv4Network("192.0.2.0/24")}
    known = {
        name for name in NAIVE if find.is_known(Selection((Filter(name, (values.get(name, "x"),)),), sight=EVERYTHING))
    }
    assert known == set(KNOWN)
    assert set(KNOWN) <= set(ASKED)
    assert set(FACETS.values()) == set(terms.NAMED)
