"""Reading events: every filter against a naive one, strict parameters, and nothing of anybody else's."""

from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_service.api import schemas
from audit_service.store.selection import CONDITIONS
from tests.support.api import Api
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.oracle import (
    ASKED,
    NAIVE,
    SORTS,
    ZONES,
    Asked,
    Stock,
    expected,
    fill,
    make_events,
    ordered,
    queries,
    same_actor,
    single,
    with_times,
)
from tests.support.postgres import TestDatabase


@pytest.fixture(scope="module")
async def stock(module_database: TestDatabase, shared_api: Api) -> AsyncIterator[Stock]:
    """Both tenants, filled."""
    key = await add_key(module_database, await add_tenant(module_database, "other"))
    async with open_api(module_database, key=key) as other:
        yield Stock(
            shared_api,
            other,
            await fill(shared_api, make_events(1, 110, "e")),
            await fill(other, make_events(2, 40, "e")),
        )
        await other.assert_intact(40)


@pytest.fixture(scope="module")
async def checked(module_database: TestDatabase) -> AsyncIterator[Api]:
    """A log to verify: each verification is noted in it, so it is not one that the oracle knows."""
    key = await add_key(module_database, await add_tenant(module_database, "checked"))
    async with open_api(module_database, key=key) as opened:
        await fill(opened, make_events(3, 40, "e"))
        yield opened


@settings(max_examples=400)
@given(queries, st.sampled_from(ZONES), st.sampled_from(SORTS))
async def test_filters_find_what_a_naive_filter_finds(stock: Stock, groups: list[Asked], zone: str, sort: str) -> None:
    for api, events in stock.tenants:
        asked = with_times(single(groups, zone), events)
        response = await api.client.get("/v1/events", params=[*asked, ("sort", sort), ("limit", "500")])
        assert response.status_code == 200, response.text
        assert [event["seq"] for event in response.json()["events"]] == expected(events, asked, sort)


def test_every_filter_is_asked_and_the_oracle_knows_it() -> None:
    assert set(NAIVE) == set(ASKED) == set(CONDITIONS)


@pytest.mark.parametrize("name", sorted(NAIVE))
async def test_each_filter_finds_some_and_not_all(stock: Stock, name: str) -> None:
    """The oracle's data say something: every filter, plain and negated, parts the events."""
    for spelled in (name, name + ".not"):
        counts = {
            len(await stock.api.list(**{spelled.replace(".", "__"): value, "limit": 500})) for value in ASKED[name]
        }
        assert any(0 < count < len(stock.events) for count in counts)


async def test_a_repeated_filter_is_any_of_its_values(stock: Stock) -> None:
    found = await stock.api.list(id=["e1", "e2", "e3", "nothing"], sort="seq")
    assert [event["id"] for event in found] == ["e1", "e2", "e3"]
    response = await stock.api.client.get("/v1/events", params={"id": [f"e{n}" for n in range(100)], "limit": 500})
    assert len(response.json()["events"]) == 100


async def test_a_plus_that_was_not_encoded_still_is_an_offset(stock: Stock) -> None:
    encoded = await stock.api.client.get("/v1/events?since=2026-03-29T12:00:00%2B02:00&limit=500")
    bare = await stock.api.client.get("/v1/events?since=2026-03-29T12:00:00+02:00&limit=500")
    assert bare.json() == encoded.json()
    assert 0 < len(bare.json()["events"]) < len(stock.events)


async def test_recorded_times_are_for_pulling_what_is_new(stock: Stock) -> None:
    cut = stock.events[60]["recorded_at"]
    newer = await stock.api.list(recorded_since=cut, sort="seq", limit=500)
    older = await stock.api.list(recorded_until=cut, sort="seq", limit=500)
    assert [event["seq"] for event in newer] == [e["seq"] for e in stock.events if e["recorded_at"] >= cut]
    assert [event["seq"] for event in older] == [e["seq"] for e in stock.events if e["recorded_at"] < cut]


# --- one server, one event ---


@pytest.mark.parametrize("name", ["s1", "s%", "a/b", "S1"])
async def test_a_server_s_activity_is_its_events(stock: Stock, name: str) -> None:
    response = await stock.api.client.get(f"/v1/servers/{quote(name, safe='')}/activity", params={"limit": 500})
    expected = ordered([event for event in stock.events if event["server_id"] == name], "-occurred_at")
    assert [event["seq"] for event in response.json()["events"]] == [event["seq"] for event in expected]
    assert expected


async def test_activity_takes_the_same_filters_but_the_server(stock: Stock) -> None:
    url = "/v1/servers/s1/activity"
    response = await stock.api.client.get(url, params={"actor": "ana*", "sort": "seq", "limit": 500})
    expected = [e for e in stock.events if e["server_id"] == "s1" and same_actor(e, "ana*")]
    assert [event["seq"] for event in response.json()["events"]] == [event["seq"] for event in expected]
    response = await stock.api.client.get(url, params={"server_id": "s10"})
    assert (response.status_code, response.json()["errors"][0]["parameter"]) == (400, "server_id")


async def test_a_server_without_events_has_an_empty_feed(stock: Stock) -> None:
    response = await stock.api.client.get("/v1/servers/never-seen/activity")
    assert (response.status_code, response.json()) == (200, {"events": [], "next_cursor": None})


async def test_an_event_looks_the_same_alone_and_in_a_list(stock: Stock) -> None:
    listed = {event["id"]: event for event in await stock.api.list(limit=500)}
    assert len(listed) == len(stock.events)
    for identifier in ("e0", "e7", "e109"):
        event = await stock.api.event(identifier)
        schemas.EventView.model_validate(event)
        assert event == listed[identifier]


async def test_a_page_is_what_the_schema_says(stock: Stock) -> None:
    response = await stock.api.client.get("/v1/events", params={"limit": 500, "count": "capped"})
    page = schemas.EventPage.model_validate(response.json())
    assert (page.count, page.count_capped, page.next_cursor) == (len(stock.events), False, None)


@pytest.mark.parametrize("identifier", ["a/b/c", "50%", "a?b#c", "ünïcode 1", "panel-7:evt-1", "a//b", "%2F"])
async def test_ids_with_slashes_and_signs_are_found(api: Api, identifier: str) -> None:
    await api.accept({"id": identifier, "action": "x"})
    found = await api.client.get(f"/v1/events/{quote(identifier, safe='')}")
    assert (found.status_code, found.json().get("id")) == (200, identifier)


@pytest.mark.parametrize("identifier", ["nothing", "e110", "E1", "e1%00", "%00", "x" * 300, "e1%20", "%ff"])
async def test_an_unknown_id_is_not_found(stock: Stock, identifier: str) -> None:
    response = await stock.other.client.get(f"/v1/events/{identifier}")
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


async def test_another_tenant_s_event_is_not_found_in_the_same_words(stock: Stock) -> None:
    theirs = await stock.other.client.get("/v1/events/e100")
    nobodys = await stock.other.client.get("/v1/events/nothing")
    assert (theirs.status_code, theirs.content) == (404, nobodys.content)
    assert (await stock.api.client.get("/v1/events/e100")).status_code == 200
    assert (await stock.other.event("e1"))["proof"] != (await stock.api.event("e1"))["proof"]


# --- strictness ---

CANARY = "hunter2-canary"
BAD: list[tuple[str, str]] = [
    (f"nonsense={CANARY}", "nonsense"), (f"Actor={CANARY}", "Actor"), (f"actor.NOT={CANARY}", "actor.NOT"),
    (f"since.not={CANARY}", "since.not"), (f"verb={CANARY}", "verb"), ("verb=create", "verb"),
    (f"outcome.not={CANARY}", "outcome.not"), (f"ip={CANARY}", "ip"), ("ip=1.2.3", "ip"),
    ("ip=010.0.0.1", "ip"), ("ip=1.2.3.4/33", "ip"), (f"since={CANARY}", "since"), ("since=2026-03-01T00:00:00", "since"),
    ("until=2026-03-01", "until"), ("since=1700000000", "since"), ("until=2026-13-01T00:00:00Z", "until"),
    ("recorded_since=now", "recorded_since"), ("date_from=2026-3-1", "date_from"), ("date_to=2026-02-30", "date_to"),
    ("date_to=9999-12-31", "date_to"), (f"tz={CANARY}", "tz"), ("tz=../../etc/passwd", "tz"), ("tz=/etc/localtime", "tz"), ("tz=", "tz"),
    ("tz=localtime", "tz"), ("ip=fe80::1%25eth0/64", "ip"),
    ("tz=Europe", "tz"), (f"sort={CANARY}", "sort"), ("sort=occurred_at;drop", "sort"), ("sort=seq desc", "sort"), ("sort=", "sort"),
    ("limit=0", "limit"), ("limit=-1", "limit"), ("limit=1e2", "limit"), ("limit=1e26", "limit"), ("limit=1_0", "limit"),
    ("limit=%2010", "limit"), ("limit=10%20", "limit"), ("limit=+10", "limit"), ("limit=1.0", "limit"), ("limit=", "limit"),
    ("limit=٣", "limit"), ("limit=" + "9" * 30, "limit"), ("limit=10&limit=10", "limit"), ("sort=seq&sort=seq", "sort"),
    ("since=2026-03-01T00:00:00Z&since=2026-03-01T00:00:00Z", "since"), ("count=exact", "count"), ("count=capped&count=capped", "count"),
    ("actor=", "actor"), ("action.not=", "action.not"), ("actor=%00", "actor"), ("actor=%ff", "actor"), ("actor=%ed%a0%80", "actor"),
    ("actor=" + "x" * 1025, "actor"), ("&".join(["id=x"] * 101), "id"), (f"cursor={CANARY}", "cursor"), ("cursor=", "cursor"),
    ("cursor=%00", "cursor"), ("cursor=é", "cursor"), ("cursor=' OR 1=1 --", "cursor"), ("cursor=" + "A" * 600, "cursor"),
    ("cursor=a&cursor=b", "cursor"), ("format=csv", "format"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "name"), BAD, ids=[f"{name}-{n}" for n, (_, name) in enumerate(BAD)])
async def test_a_bad_parameter_is_named_and_its_value_is_not(stock: Stock, query: str, name: str) -> None:
    response = await stock.api.client.get(f"/v1/events?{query}")
    assert response.status_code == 400, response.text
    problem = response.json()
    schemas.Problem.model_validate(problem)
    assert {fault["parameter"] for fault in problem["errors"]} == {name}
    assert CANARY not in response.text


async def test_every_fault_is_named_at_once(stock: Stock) -> None:
    response = await stock.api.client.get("/v1/events?limit=x&sort=y&ip=z&what=ever")
    assert [fault["parameter"] for fault in response.json()["errors"]] == ["what", "ip", "sort", "limit"]


async def test_an_unknown_parameter_that_is_itself_a_secret_is_not_repeated(stock: Stock) -> None:
    secret = "gh" + "p_" + "a1B2" * 9
    response = await stock.api.client.get("/v1/events", params={secret: "1"})
    assert response.status_code == 400
    assert secret[:12] not in response.text


@pytest.mark.parametrize("query", ["limit=501", "limit=999999999999999999", "limit=0500"])
async def test_a_limit_over_the_maximum_is_the_maximum(stock: Stock, query: str) -> None:
    response = await stock.api.client.get(f"/v1/events?{query}")
    assert (response.status_code, len(response.json()["events"])) == (200, len(stock.events))


@pytest.mark.parametrize(
    "query", ["since=0001-01-01T00:00:00Z", "until=9999-12-31T23:59:59Z", "until=9999-12-31T23:59:59.123456789Z"]
)
async def test_far_times_are_asked_for_in_peace(stock: Stock, query: str) -> None:
    response = await stock.api.client.get(f"/v1/events?{query}&limit=500")
    assert (response.status_code, len(response.json()["events"])) == (200, len(stock.events))


async def test_a_single_event_and_the_chain_take_no_parameters(stock: Stock) -> None:
    for path in ("/v1/events/e1", "/v1/chain", "/v1/keys"):
        assert (await stock.api.client.get(f"{path}?x=1")).json()["errors"][0]["parameter"] == "x"


# --- the chain ---


async def test_the_report_is_what_the_schema_says(checked: Api) -> None:
    chain = (await checked.client.get("/v1/chain")).json()
    report = await checked.verify()
    schemas.VerifyReport.model_validate(report)
    schemas.Chain.model_validate(chain)
    assert (report["origin"], report["head"]) == (chain["origin"], chain["head"])
    assert report["checked"] == {"from_seq": 0, "to_seq": chain["size"], "count": chain["size"]}


async def test_a_range_can_be_verified(checked: Api) -> None:
    report = await checked.verify(from_seq=10, to_seq=20)
    assert (report["status"], report["checked"]) == ("ok", {"from_seq": 10, "to_seq": 20, "count": 10})


async def test_the_depth_of_a_verification_can_be_chosen(checked: Api) -> None:
    size = (await checked.client.get("/v1/chain")).json()["size"]
    report = await checked.verify(depth="chain")
    schemas.VerifyReport.model_validate(report)
    assert (report["status"], report["depth"], report["checked"]["count"]) == ("ok", "chain", size)
    assert report["not_checked"][0].startswith("disclosures, query columns and receipts")
    assert (await checked.verify())["depth"] == "all"
    assert (await checked.client.get("/v1/chain/verify?depth=deep")).status_code == 400


@pytest.mark.parametrize(
    "query", ["from_seq=4100", "to_seq=4100", "from_seq=5&to_seq=4", "from_seq=-1", "to_seq=x", "from_seq=1&from_seq=1"]
)
async def test_a_range_outside_the_log_is_refused(checked: Api, query: str) -> None:
    assert (await checked.client.get(f"/v1/chain/verify?{query}")).status_code == 400
