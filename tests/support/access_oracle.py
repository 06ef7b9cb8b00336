"""Two tenants with three servers each, readers of both with credentials that HTTP gave out, and the law that holds for them: whatever is
asked, lists, pages, counts, facets, timelines and exports are what a naive reader of the events says.

Both tenants have the same ids of servers, persons and events, so that only the tenant tells them apart; a row is known by its hash, which
no other has. What the service notes about itself goes on growing while somebody asks, so readers of it ask for what was recorded before.
"""

import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import strategies as st

from audit_service.core.sight import EVERYTHING, STAFF_TYPES, Sight
from audit_service.store import segments
from audit_service.store.counts import FACETS
from tests.support.api import Api
from tests.support.apps import open_api
from tests.support.naive_sight import (
    KINDS,
    QUESTIONS,
    admitted,
    at,
    facet_value,
    make_events_of_persons,
    questions,
    seen,
    small_search,
)
from tests.support.oracle import NAIVE, SORTS, Asked, Event, ordered
from tests.support.postgres import BOOTSTRAP_KEY, Server

SERVERS = ("s1", "s10", "S1")
EVENTS, SEGMENT, INDEXED = 60, 8, 5
LIMITS = (1, 3, 500)
PEOPLE = ("u1", "12", "ana@example.com")


@dataclass(frozen=True, slots=True)
class Question:
    """What a reader asks: filters, perhaps within one server's feed, in an order, so many a page. `number`: who asks, by number. `pages`:
    to the last."""

    number: int
    asked: tuple[tuple[str, str], ...]
    server_id: str | None
    sort: str
    limit: int
    pages: bool


def _askable(value: str) -> str:
    """Over HTTP a word has three characters or more, or stands in a phrase."""
    return f'"{value}"' if value == "ana of example" else value


_SERVER_ASKED = (None, None, None, *SERVERS)
some_questions = st.builds(
    Question,
    number=st.integers(0, 999),
    asked=questions.map(lambda asked: tuple((name, _askable(value)) for name, value in asked)),
    server_id=st.sampled_from(_SERVER_ASKED),
    sort=st.sampled_from(SORTS),
    limit=st.sampled_from(LIMITS),
    pages=st.integers(0, 3).map(lambda n: n == 0),
)


def random_questions(seed: int, count: int) -> Iterator[Question]:
    """The same without hypothesis, for the controls."""
    chance = random.Random(seed)  # noqa: S311 - test data, the same each run
    for _ in range(count):
        names = chance.sample(sorted(NAIVE), chance.randrange(3))
        spelled = [(name + chance.choice(["", ".not"]), _askable(chance.choice(QUESTIONS[name]))) for name in names]
        server_id, sort, limit = chance.choice(_SERVER_ASKED), chance.choice(SORTS), chance.choice(LIMITS)
        yield Question(chance.randrange(1000), tuple(spelled), server_id, sort, limit, pages=False)


@dataclass(frozen=True, slots=True, repr=False)
class OracleReader:
    """Who asks: a key or a token as HTTP gave it out, what it was asked to show, and the events of its tenant."""

    api: Api
    key: str
    sight: Sight
    events: Sequence[Event]

    async def get(self, path: str, asked: Sequence[tuple[str, Any]]) -> httpx.Response:
        """GET with this credential."""
        return await self.api.client.get(path, params=[*asked], headers={"Authorization": f"Bearer {self.key}"})

    def filters(self, question: Question) -> Asked:
        """The filters of a question, as they can be asked. Who sees the service's own entries asks for those that were there."""
        asked = [pair for pair in question.asked if question.server_id is None or not pair[0].startswith("server_id")]
        if self.sight.own_entries:
            last = datetime.fromisoformat(self.events[-1]["recorded_at"])
            asked.append(("recorded_until", (last + timedelta(microseconds=1)).isoformat()))
        return asked

    def hashes(self) -> set[str]:
        """All rows that this reader may see."""
        return {event["hash"] for event in self.events if admitted(event, self.sight)}

    def wanted(self, question: Question) -> list[Event]:
        """What the list of a question has to show, on all its pages."""
        asked = self.filters(question)
        if question.server_id is not None:
            asked.append(("server_id", question.server_id))
        return ordered(seen([*self.events], self.sight, asked), question.sort)


@dataclass(frozen=True, slots=True, repr=False)
class Yard:
    """All readers, of both tenants, and the apps they ask."""

    readers: Sequence[OracleReader]
    apis: Sequence[Api]

    def reader_of(self, question: Question) -> OracleReader:
        """Who asks."""
        return self.readers[question.number % len(self.readers)]


# --- what is there ---


@asynccontextmanager
async def open_yard(server: Server, seed: int) -> AsyncIterator[Yard]:
    """Two tenants in a database of their own: events, readers and a part of the index. In the end both logs verify."""
    async with AsyncExitStack() as stack:
        small_search(stack.enter_context(pytest.MonkeyPatch.context()), SEGMENT)
        database = await server.create()
        stack.push_async_callback(server.drop, database)
        limits = ("requests", "viewer_requests", "address")
        unlimited: dict[str, Any] = {f"rate_limit_{name}_per_second": 0 for name in limits}
        first = await stack.enter_async_context(open_api(database, **unlimited))
        second_key = (await _create(first, "/v1/tenants", {"name": "second"}, "key"))["key"]
        second = await stack.enter_async_context(open_api(database, key=second_key, **unlimited))
        readers: list[OracleReader] = []
        for number, (api, key) in enumerate(((first, BOOTSTRAP_KEY), (second, second_key))):
            readers += await _furnish(api, key, random.Random(2 * seed + number))  # noqa: S311 - test data
        yield Yard(readers, (first, second))
        for api in (first, second):
            assert (await api.verify())["status"] == "ok"


async def _furnish(api: Api, own_key: str, chance: random.Random) -> list[OracleReader]:
    """A tenant's events and its readers, whose making the service notes in between; and the first segments of the index."""
    posted = {event["id"]: event for event in _tenant_events(chance.randrange(10**6))}
    waiting, given = list(posted.values()), []
    for part in range(4):
        response = await api.client.post("/v1/events", json=waiting[part * 15 : (part + 1) * 15])
        assert response.status_code == 201, response.text
        given += [await _give_key(api, chance), await _give_token(api, chance)]
    whole = await _create(api, "/v1/keys", {"name": "whole", "scopes": ["read", "export"]}, "key")
    credential = await api.service.credential(own_key)
    assert credential is not None
    pools = api.service.database
    for number in range(INDEXED):
        assert await segments.add_segment(pools.reads, pools.writes, credential.log_id, number)
    events = [_known(shown, posted) for shown in await api.list(sort="seq", limit=500)]
    everybody = [*given, (whole, Sight()), (own_key, EVERYTHING)]
    return [OracleReader(api, key, sight, events) for key, sight in everybody]


def _tenant_events(seed: int) -> list[Event]:
    events = make_events_of_persons(seed, EVENTS, "e")
    chance = random.Random(seed)  # noqa: S311 - test data
    return [event | {"server_id": chance.choice([None, *SERVERS])} for event in events]


def _known(shown: Event, posted: dict[str, Event]) -> Event:
    """An event as it was posted, or a note as it is shown to who sees everything; with what only the service knows."""
    event = posted.get(shown["id"], shown)
    known = {name: shown[name] for name in ("seq", "verb", "category", "changes", "recorded_at")}
    context = dict.fromkeys(("ip", "session_id", "request_id")) | (event["context"] or {})
    return {**event, **known, "context": context, "hash": shown["proof"]["hash"]}


async def _create(api: Api, path: str, body: dict[str, Any], name: str) -> Any:
    response = await api.client.post(path, json=body)
    assert response.status_code == 201, response.text
    return response.json()[name]


async def _give_key(api: Api, chance: random.Random) -> tuple[str, Sight]:
    """A limited key, and what it was asked to show."""
    body, sight = _limits(chance)
    servers = chance.choice([None, chance.sample(SERVERS, chance.choice([1, 1, 2]))])
    body |= {"name": "limited", "scopes": ["read", "export"], "server_ids": servers}
    return await _create(api, "/v1/keys", body, "key"), _sight(sight, servers, None)


async def _give_token(api: Api, chance: random.Random) -> tuple[str, Sight]:
    """A viewer token, and what it was asked to show."""
    body, sight = _limits(chance)
    servers = chance.choice(["all", chance.sample([*SERVERS, "no server"], chance.randrange(4))])
    actor_id = chance.choice([None, None, chance.choice(PEOPLE)])
    body |= {"server_ids": servers, "own_actions_of": actor_id, "export": True, "expires_in_seconds": 3600}
    key = await _create(api, "/v1/viewer-tokens", body, "token")
    return key, _sight(sight, None if servers == "all" else servers, actor_id)


def _limits(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """What keys and tokens have alike, as asked for, and as a sight calls it."""
    same = {name: chance.random() < 0.5 for name in ("ips", "emails")} | {"global_events": chance.random() < 0.7}
    categories = chance.choice([None, None, chance.sample(KINDS, chance.choice([1, 2, 3]))])
    own_entries = chance.random() < 0.4
    staff_as = chance.choice([None, "Support"])
    types = chance.choice([None, chance.sample(["user", "client", "system"], chance.choice([1, 2]))])
    body = {**same, "categories": categories, "audit_entries": own_entries, "staff_as": staff_as, "staff_types": types}
    sight = {
        **same,
        "categories": None if categories is None else frozenset(categories),
        "own_entries": own_entries,
        "staff_as": staff_as,
        "staff_types": STAFF_TYPES if types is None else frozenset(types),
    }
    return body, sight


def _sight(members: dict[str, Any], servers: Sequence[str] | None, actor_id: str | None) -> Sight:
    return Sight(server_ids=None if servers is None else frozenset(servers), actor_id=actor_id, **members)


# --- the law ---


async def check(reader: OracleReader, question: Question) -> None:
    """Every answer to the question is what the naive reader says. A filter on what is hidden is refused, a server that is not seen is
    unknown, wherever they are asked for."""
    asked = reader.filters(question)
    is_hidden = not reader.sight.ips and any(name in ("ip", "ip.not") for name, _ in asked)
    is_foreign = question.server_id is not None and not reader.sight.admits_server(question.server_id)
    if is_foreign or is_hidden:
        await _check_refused(reader, question, asked, 404 if is_foreign else 403)
    else:
        wanted = reader.wanted(question)
        await _check_list(reader, question, wanted)
        await _check_facets(reader, question, wanted)
        await _check_timeline(reader, question, wanted)
    if is_hidden:
        await _check_refusal(reader, "/v1/export", [*asked, ("format", "ndjson")], 403)
    else:
        await _check_export(reader, asked)


def _path(question: Question, what: str) -> str:
    return f"/v1/{what}" if question.server_id is None else f"/v1/servers/{question.server_id}/{what}"


def _list_path(question: Question) -> str:
    return _path(question, "events" if question.server_id is None else "activity")


async def listed(reader: OracleReader, question: Question) -> list[str] | None:
    """The hashes of the first page; None when it is refused."""
    paging = [("sort", question.sort), ("limit", question.limit)]
    response = await reader.get(_list_path(question), [*reader.filters(question), *paging])
    if response.status_code in (403, 404):
        return None
    assert response.status_code == 200, response.text
    return [row["proof"]["hash"] for row in response.json()["events"]]


async def _check_refused(reader: OracleReader, question: Question, asked: Asked, status: int) -> None:
    for path in (_list_path(question), _path(question, "facets"), _path(question, "timeline")):
        await _check_refusal(reader, path, asked, status)


async def _check_refusal(reader: OracleReader, path: str, asked: Asked, status: int) -> None:
    response = await reader.get(path, asked)
    assert response.status_code == status, (path, asked, response.text)
    problem = response.json()
    assert problem.keys() <= {"type", "title", "status", "detail", "errors"}
    if status == 403:
        assert {fault["parameter"] for fault in problem["errors"]} <= {"ip", "ip.not"}


async def _check_list(reader: OracleReader, question: Question, wanted: Sequence[Event]) -> None:
    """A page, its count, and the pages behind it."""
    hashes = [event["hash"] for event in wanted]
    paging: dict[str, Any] = {"sort": question.sort, "limit": question.limit, "count": "capped"}
    found: list[str] = []
    while True:
        page = await _json(reader, _list_path(question), [*reader.filters(question), *paging.items()])
        found += [row["proof"]["hash"] for row in page["events"]]
        for row in page["events"]:
            _check_hidden(row, reader.sight)
        assert found == hashes[: len(found)]
        assert len(page["events"]) == question.limit or len(found) == len(hashes)
        assert (page["next_cursor"] is None) is (len(found) == len(hashes))
        assert (page["count"], page["count_capped"]) == (len(hashes), False)
        if (
            page["next_cursor"] is None or not question.pages or question.limit == 1
        ):  # dozens of pages of one show no more
            return
        paging["cursor"] = page["next_cursor"]


def _check_hidden(row: Event, sight: Sight) -> None:
    """A row as shown has nothing that the sight hides, neither where it belongs nor in its sentence."""
    context = row["context"] or {}
    if not sight.ips:
        assert context.get("ip") is None
    if not sight.emails:
        assert "@" not in json.dumps([row["actor"], row["on_behalf_of"], row["summary"]])
    if sight.staff_as is not None and (row["actor"] or {}).get("type") in sight.staff_types:
        nameless = dict.fromkeys(("id", "email", "role"))
        assert row["actor"] == {"type": row["actor"]["type"], "name": sight.staff_as, **nameless}
        assert row["on_behalf_of"] is None
        assert not any(context.values())


async def _check_export(reader: OracleReader, asked: Asked) -> None:
    """An export has the selected rows in the order of the log, and says how many."""
    response = await reader.get("/v1/export", [*asked, ("format", "ndjson")])
    assert response.status_code == 200, response.text
    *rows, trailer = [json.loads(line) for line in response.text.splitlines()]
    wanted = seen([*reader.events], reader.sight, asked)
    assert [row["proof"]["hash"] for row in rows] == [event["hash"] for event in wanted]
    assert trailer["count"] == len(wanted)
    for row in rows:
        _check_hidden(row, reader.sight)


async def _check_facets(reader: OracleReader, question: Question, wanted: Sequence[Event]) -> None:
    """Every value that is seen, how often, and for persons a name that is seen."""
    answer = await _json(reader, _path(question, "facets"), [*reader.filters(question), ("limit", 500)])
    assert (answer["counted"], answer["capped"]) == (len(wanted), False)
    assert answer["facets"].keys() == FACETS.keys()
    for name, facet in answer["facets"].items():
        values = (facet_value(event, name) for event in wanted)
        counts = Counter(value for value in values if value is not None or name == "server_id")
        assert ({one["value"]: one["count"] for one in facet["values"]}, facet["more"]) == (counts, False), name
    for one in answer["facets"]["actor"]["values"]:
        same = [event["actor"] for event in wanted if facet_value(event, "actor") == one["value"]]
        assert one["name"] in {actor.get("name") for actor in same}


async def _check_timeline(reader: OracleReader, question: Question, wanted: Sequence[Event]) -> None:
    """Each bucket holds what occurred in it, and all buckets hold everything."""
    answer = await _json(reader, _path(question, "timeline"), reader.filters(question))
    buckets = [
        (datetime.fromisoformat(one["from"]), datetime.fromisoformat(one["to"]), one["count"])
        for one in answer["timeline"]
    ]
    moments = [at(event) for event in wanted]
    assert [count for *_, count in buckets] == [sum(start <= at_ < end for at_ in moments) for start, end, _ in buckets]
    assert (sum(count for *_, count in buckets), answer["capped"]) == (len(moments), False)


async def _json(reader: OracleReader, path: str, asked: Sequence[tuple[str, Any]]) -> Any:
    response = await reader.get(path, asked)
    assert response.status_code == 200, (path, asked, response.text)
    return response.json()
