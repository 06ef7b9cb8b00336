"""Pages: the whole set once each, in every order, while the log grows; and cursors that are good for nothing else."""

import base64
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.support.api import Api
from tests.support.apps import PANEL_SCOPES, add_key, add_tenant, open_api
from tests.support.postgres import TestDatabase

SORTS = ["-occurred_at", "occurred_at", "-seq", "seq"]
START = datetime(2026, 3, 1, tzinfo=UTC)
COUNT = 60


def event(number: int) -> dict[str, Any]:
    """An event that shares its time with others: five times for sixty events, not in order."""
    return {
        "id": f"e{number}",
        "action": f"kind{number % 3}.touched",
        "occurred_at": (START + timedelta(seconds=number * 7 % 5)).isoformat(),
        "server_id": f"s{number % 2}",
    }


@pytest.fixture(scope="module")
async def paged_api(module_database: TestDatabase) -> AsyncIterator[Api]:
    """The app, with a tenant of its own that holds sixty events and no more."""
    key = await add_key(module_database, await add_tenant(module_database, "paged"), PANEL_SCOPES)
    async with open_api(module_database, key=key) as opened:
        response = await opened.client.post("/v1/events", json=[event(n) for n in range(COUNT)])
        assert response.status_code == 201
        yield opened
        await opened.assert_intact(COUNT)


async def page(api: Api, path: str = "/v1/events", **parameters: Any) -> dict[str, Any]:
    """One page."""
    response = await api.client.get(path, params=parameters)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def expected(sort: str) -> list[int]:
    """The seqs in that order; event n has seq n."""
    by_time = sort.endswith("occurred_at")
    return sorted(range(COUNT), key=lambda n: (n * 7 % 5 if by_time else 0, n), reverse=sort.startswith("-"))


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("limit", [1, 7, 59, 60, 61])
async def test_the_pages_together_are_the_whole_set_in_order(paged_api: Api, sort: str, limit: int) -> None:
    found: list[int] = []
    sizes: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await page(paged_api, sort=sort, limit=limit, **cursor)
        found += [shown["seq"] for shown in answer["events"]]
        sizes.append(len(answer["events"]))
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}
    assert found == expected(sort)
    assert sizes == [limit] * (COUNT // limit) + ([COUNT % limit] if COUNT % limit else [])


async def test_without_a_limit_a_page_has_fifty_newest_first(paged_api: Api) -> None:
    answer = await page(paged_api)
    assert [shown["seq"] for shown in answer["events"]] == expected("-occurred_at")[:50]


@pytest.mark.parametrize("sort", SORTS)
async def test_pages_stay_whole_while_the_log_grows(api: Api, sort: str) -> None:
    """Events that were there at the start come once each, whatever is appended before, between and after them."""
    await api.client.post("/v1/events", json=[event(n) for n in range(COUNT)])
    found: list[str] = []
    cursor: dict[str, str] = {}
    appended = 0
    while True:
        answer = await page(api, sort=sort, limit=7, **cursor)
        found += [shown["id"] for shown in answer["events"]]
        if answer["next_cursor"] is None or appended > 40:
            break
        cursor = {"cursor": answer["next_cursor"]}
        # One older, one newer than everything, one among the ties.
        for second in (-100, 2, 100):
            at = (START + timedelta(seconds=second)).isoformat()
            await api.accept({"id": str(uuid.uuid4()), "action": "later.touched", "occurred_at": at})
            appended += 1
    assert len(found) == len(set(found))
    assert [identifier for identifier in found if identifier.startswith("e") and len(identifier) < 4] == [
        f"e{n}" for n in expected(sort)
    ]
    await api.assert_intact(COUNT + appended)


async def test_following_the_link_header_is_following_the_cursor(paged_api: Api) -> None:
    found: list[int] = []
    url = "/v1/events?limit=25&action=kind0.*&action=kind1.touched&sort=seq&server_id=s1"
    while url:
        response = await paged_api.client.get(url)
        answer = response.json()
        found += [shown["seq"] for shown in answer["events"]]
        following = response.links.get("next", {}).get("url", "")
        assert bool(following) is (answer["next_cursor"] is not None)
        if following:
            query = parse_qs(urlsplit(following).query)
            assert query["cursor"] == [answer["next_cursor"]]
            assert query["action"] == ["kind0.*", "kind1.touched"]
        url = following
    assert found == [n for n in range(COUNT) if n % 3 != 2 and n % 2]


async def test_activity_has_pages_too(paged_api: Api) -> None:
    path = "/v1/servers/s1/activity"
    first = await page(paged_api, path, sort="seq", limit=29)
    second = await page(paged_api, path, sort="seq", limit=29, cursor=first["next_cursor"])
    seqs = [shown["seq"] for answer in (first, second) for shown in answer["events"]]
    assert (seqs, second["next_cursor"]) == ([n for n in range(COUNT) if n % 2], None)


async def test_another_limit_and_a_count_do_not_change_what_a_cursor_means(paged_api: Api) -> None:
    first = await page(paged_api, sort="seq", limit=10)
    second = await page(paged_api, sort="seq", limit=20, count="capped", cursor=first["next_cursor"])
    assert [shown["seq"] for shown in second["events"]] == list(range(10, 30))
    assert second["count"] == COUNT


# --- what a cursor is bound to ---


async def refused(api: Api, path: str, **parameters: Any) -> None:
    """The cursor is refused by name."""
    response = await api.client.get(path, params=parameters)
    assert response.status_code == 400, response.text
    assert [fault["parameter"] for fault in response.json()["errors"]] == ["cursor"]
    assert parameters["cursor"] not in response.text


@pytest.fixture(scope="module")
async def cursor(paged_api: Api) -> str:
    """A good cursor of the page sorted by seq with one filter."""
    answer = await page(paged_api, sort="seq", limit=5, server_id="s1")
    assert isinstance(answer["next_cursor"], str)
    return answer["next_cursor"]


@pytest.mark.parametrize(
    "other",
    [
        {"server_id": "s0"}, {"server_id": "none"}, {"server_id": ["s1", "s0"]}, {"server_id.not": "s1"}, {"action": "kind1.touched"},
        {"since": "2026-03-01T00:00:00Z"}, {"recorded_until": "2100-01-01T00:00:00Z"}, {"date_from": "2026-01-01"},
        {"sort": "-seq"}, {"sort": "occurred_at"}, {"sort": "-occurred_at"},
    ],
)  # fmt: skip
async def test_a_cursor_is_refused_with_other_filters_or_another_order(
    paged_api: Api, cursor: str, other: dict[str, Any]
) -> None:
    same = {"sort": "seq", "server_id": "s1"}
    await page(paged_api, **same, cursor=cursor)
    await refused(paged_api, "/v1/events", **same | other, cursor=cursor)


async def test_a_cursor_is_refused_without_its_filter(paged_api: Api, cursor: str) -> None:
    await refused(paged_api, "/v1/events", sort="seq", cursor=cursor)


async def test_a_cursor_is_refused_at_another_endpoint(paged_api: Api, cursor: str) -> None:
    await refused(paged_api, "/v1/servers/s1/activity", sort="seq", cursor=cursor)
    of_activity = (await page(paged_api, "/v1/servers/s1/activity", sort="seq", limit=5))["next_cursor"]
    await refused(paged_api, "/v1/events", sort="seq", server_id="s1", cursor=of_activity)
    await refused(paged_api, "/v1/servers/s0/activity", sort="seq", cursor=of_activity)


async def test_another_tenant_s_cursor_is_refused(module_database: TestDatabase, paged_api: Api, cursor: str) -> None:
    key = await add_key(module_database, await add_tenant(module_database, "curious"))
    async with open_api(module_database, key=key) as other:
        await other.client.post("/v1/events", json=[event(n) for n in range(20)])
        await refused(other, "/v1/events", sort="seq", server_id="s1", cursor=cursor)
        theirs = (await page(other, sort="seq", limit=5, server_id="s1"))["next_cursor"]
    await refused(paged_api, "/v1/events", sort="seq", server_id="s1", cursor=theirs)


async def test_a_second_key_of_the_tenant_may_go_on_with_a_cursor(
    module_database: TestDatabase, paged_api: Api, cursor: str
) -> None:
    """A cursor carries a place, no authority."""
    own = await paged_api.service.credential(paged_api.client.headers["authorization"].removeprefix("Bearer "))
    assert own is not None
    async with open_api(module_database, key=await add_key(module_database, own.log_id, ["read"])) as reader:
        answer = await page(reader, sort="seq", server_id="s1", limit=5, cursor=cursor)
    assert [shown["seq"] for shown in answer["events"]] == [11, 13, 15, 17, 19]


async def test_a_changed_cursor_is_refused_wherever_it_was_changed(paged_api: Api, cursor: str) -> None:
    same = {"sort": "seq", "server_id": "s1"}
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1
        spelled = base64.urlsafe_b64encode(changed).rstrip(b"=").decode()
        await refused(paged_api, "/v1/events", **same, cursor=spelled)
    for spelled in (
        cursor[:-1], cursor[1:], cursor + "A", cursor + "=", cursor + "==", cursor + "%00", cursor + "' OR 1=1", cursor[::-1],
        cursor.swapcase(), " " + cursor, cursor + "\n", base64.b64encode(b"").decode() or "AA", cursor * 2,
    ):  # fmt: skip
        await refused(paged_api, "/v1/events", **same, cursor=spelled)


async def test_spellings_that_decode_to_the_same_bytes_are_refused(paged_api: Api, cursor: str) -> None:
    """The last character carries bits that decoding drops: only the spelling we wrote counts."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    twins = [
        cursor[:-1] + c
        for c in alphabet
        if c != cursor[-1] and base64.urlsafe_b64decode(cursor[:-1] + c + "=" * (-len(cursor) % 4)) == raw
    ]
    for twin in twins:
        await refused(paged_api, "/v1/events", sort="seq", server_id="s1", cursor=twin)
    assert twins or len(raw) % 3 == 0


async def test_counts_are_of_everything_that_matches(paged_api: Api) -> None:
    answer = await page(paged_api, limit=1, count="capped", action="kind0.touched")
    assert (answer["count"], answer["count_capped"], len(answer["events"])) == (20, False, 1)
    assert "count" not in await page(paged_api, limit=1)


async def test_a_count_is_exact_up_to_ten_thousand(api: Api) -> None:
    bare = {"action": "x.counted"}
    for _ in range(10):
        assert (await api.client.post("/v1/events", json=[bare] * 1000)).status_code == 201
    answer = await page(api, limit=1, count="capped")
    assert (answer["count"], answer["count_capped"]) == (10_000, False)
    await api.accept(bare)
    answer = await page(api, limit=1, count="capped")
    assert (answer["count"], answer["count_capped"]) == (10_000, True)


@pytest.mark.parametrize("server_id", ["сервер", "a%2Fb", 'a>; rel="x', "a b", "é", "a/b", "a?b#c"])
async def test_the_link_leads_on_whatever_the_server_is_called(api: Api, server_id: str) -> None:
    """The Link header is ASCII, holds nothing that could end it early, and leads to the second page of the same feed."""
    await api.accept(*({"action": "x", "server_id": server_id, "description": str(n)} for n in range(2)))
    first = await api.client.get(f"/v1/servers/{quote(server_id, safe='')}/activity", params={"limit": "1"})
    assert first.status_code == 200
    link = first.headers["link"]
    assert link.isascii()
    target, _, rest = link.removeprefix("<").partition(">")
    assert rest == '; rel="next"'
    second = await api.client.get(target)
    assert second.status_code == 200
    seen = [event["description"] for page in (first, second) for event in page.json()["events"]]
    assert sorted(seen) == ["0", "1"]
