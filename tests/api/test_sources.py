"""`GET /v1/sources`: what a naive reading of the whole stream says, however much of it is counted already; and nobody else's."""

import secrets
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_service.api import schemas
from audit_service.core.event import EventLimits
from audit_service.core.redaction import compile_ruleset
from audit_service.indexer import count_all
from audit_service.ingest import Recipe
from audit_service.store import sources
from audit_service.store.engine import Database
from tests.support.api import Api
from tests.support.appends import TestLog, existing_log
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.postgres import TestDatabase, default_log_id

LISTED = 4
LARGEST = 2**63 - 1
Sent = tuple[str, int | None]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever waits is counted, five entries at a time, and few ranges are listed."""
    monkeypatch.setattr(sources, "WAITING_ENTRIES", 1)
    monkeypatch.setattr(sources, "BATCH_ENTRIES", 5)
    monkeypatch.setattr(sources, "RANGES_LIMIT", LISTED)


def event(name: str | None, number: int | None) -> dict[str, Any]:
    """An event of a producer, with its number."""
    said = {key: value for key, value in (("id", name), ("seq", number)) if value is not None}
    return {"action": "server.created", "source": said}


# --- the naive reading ---


def runs(numbers: Sequence[int]) -> list[list[int]]:
    """Half-open ranges of distinct numbers, the highest first."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number:
            found[-1][1] = number + 1
        else:
            found.append([number, number + 1])
    return found[::-1]


def told(ranges: list[list[int]], below: int | None) -> dict[str, Any]:
    """What is to be said of ranges."""
    asked = [one for one in ranges if below is None or one[1] <= below]
    return {
        "ranges": asked[:LISTED],
        "more": len(asked) > LISTED,
        "total": len(ranges),
        "numbers": sum(end - start for start, end in ranges),
    }


def naive(stream: Sequence[Sent], name: str, below: int | None = None) -> dict[str, Any]:
    """One producer, from everything it has sent, one by one."""
    events = [number for sender, number in stream if sender == name]
    numbers = [number for number in events if number is not None]
    seen = runs(numbers)
    return {
        "id": name,
        "events": len(events),
        "numbered": len(numbers),
        "first_seq": min(numbers, default=None),
        "last_seq": max(numbers, default=None),
        "holes": told([[low[1], high[0]] for high, low in pairwise(seen)], below),
        "duplicates": told(runs([number for number in numbers if numbers.count(number) > 1]), below),
    }


async def ask(api: Api, **parameters: Any) -> dict[str, Any]:
    """The answer, which is what the document says it is."""
    response = await api.client.get("/v1/sources", params=parameters)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    schemas.SourcePage.model_validate(answer)
    return answer


def timeless(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The producers of an answer without when they were heard of last."""
    return [{key: value for key, value in one.items() if key != "last_recorded_at"} for one in answer["sources"]]


async def send(log: TestLog, pools: Database, stream: Sequence[Sent]) -> None:
    """Append them in this order."""
    await log.accept(pools, *(event(*one) for one in stream))


# Near one another, so that they meet: gaps, restarts, repetitions, several processes in turn; and at the end of what there is.
NUMBERS = st.one_of(
    st.none(), st.integers(0, 9), st.integers(0, 25), st.integers(LARGEST - 4, LARGEST), st.integers(0, LARGEST)
)
STREAMS = st.lists(st.tuples(st.sampled_from(["a", "b", "panel-7/boot 2"]), NUMBERS), min_size=1, max_size=40)
RUNS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 30), st.integers(1, 12), st.sampled_from([1, 1, 2, 7])),
    max_size=8,
).map(lambda found: [(name, first + step * n) for name, first, count, step in found for n in range(count)])


@settings(max_examples=30)
@given(
    stream=st.one_of(STREAMS, RUNS),
    cuts=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    below=st.one_of(st.none(), st.integers(0, 30), st.just(2**63)),
    batch=st.sampled_from([1, 2, 5, 1000]),
)
async def test_sources_are_what_naive_reading_finds(
    database: TestDatabase, pools: Database, stream: list[Sent], cuts: list[int], below: int | None, batch: int
) -> None:
    """Counted so far as each cut, in batches of any size, with the rest read as it is; asked after every one."""
    log_id = await add_tenant(database, secrets.token_hex(8))
    log = await existing_log(database, log_id)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BATCH_ENTRIES", batch)
        async with open_api(database, key=await add_key(database, log_id)) as api:
            sent: list[Sent] = []
            for cut in sorted({*(int(cut * len(stream)) for cut in cuts), len(stream)}):
                await send(log, pools, stream[len(sent) : cut])
                sent = stream[:cut]
                answer = await ask(api, **({} if below is None else {"below": below}))
                assert timeless(answer) == [naive(sent, name, below) for name in sorted({name for name, _ in sent})]
                assert (answer["counted"], answer["size"]) == (cut, cut)
                if cut < len(stream):
                    await count_all(pools)
            await count_all(pools)
            assert timeless(await ask(api)) == [naive(stream, name) for name in sorted({name for name, _ in stream})]


@pytest.mark.parametrize("counted", [0, 1, 2, 3])
async def test_every_order_of_a_few_numbers_comes_out_right(
    api: Api, database: TestDatabase, pools: Database, monkeypatch: pytest.MonkeyPatch, counted: int
) -> None:
    """Every sequence of four numbers below five, each a producer's: the first `counted` numbers of all are counted one by one."""
    log = await existing_log(database, await default_log_id(database))
    sequences = {"".join(map(str, numbers)): numbers for numbers in product(range(5), repeat=4)}
    monkeypatch.setattr(sources, "BATCH_ENTRIES", len(sequences))
    for place in range(4):
        await send(log, pools, [(name, numbers[place]) for name, numbers in sequences.items()])
        if place < counted:
            assert await count_all(pools) == len(sequences)
    parameters: dict[str, Any] = {"limit": 500}
    found: list[dict[str, Any]] = []
    for _ in range(2):
        answer = await ask(api, **parameters)
        found += timeless(answer)
        parameters["cursor"] = answer["next_cursor"]
    assert found == [naive([(name, number) for number in numbers], name) for name, numbers in sequences.items()]


async def test_control_a_number_that_is_lost_shows(api: Api, database: TestDatabase, pools: Database) -> None:
    """The oracle and the service each tell a stream from the same without one of its events."""
    stream = [("a", number) for number in range(20)]
    log = await existing_log(database, await default_log_id(database))
    await send(log, pools, stream[:7] + stream[8:])
    await count_all(pools)
    (found,) = timeless(await ask(api))
    assert found != naive(stream, "a")
    assert found["holes"] == {"ranges": [[7, 8]], "more": False, "total": 1, "numbers": 1}


@pytest.mark.parametrize("counted", [False, True])
async def test_every_hole_and_duplicate_can_be_walked_through(
    api: Api, database: TestDatabase, pools: Database, *, counted: bool
) -> None:
    """A producer of which every third number is there, each twice."""
    stream = [("a", number) for number in range(0, 60, 3) for _ in range(2)]
    log = await existing_log(database, await default_log_id(database))
    await send(log, pools, stream[:23])
    if counted:
        await count_all(pools)
    await send(log, pools, stream[23:])
    for kind, total in (("holes", 19), ("duplicates", 20)):
        walked: list[list[int]] = []
        below = 2**63
        more = True
        while more:
            (source,) = (await ask(api, below=below))["sources"]
            assert source[kind]["total"] == total
            walked += source[kind]["ranges"]
            below, more = walked[-1][0], source[kind]["more"]
        assert len(walked) == total
        assert walked == sorted(walked, reverse=True)


async def test_pages_bring_every_source_once_whatever_is_counted(
    api: Api, database: TestDatabase, pools: Database
) -> None:
    """Some counted, some not, some both; and events without a producer, or without a number."""
    log = await existing_log(database, await default_log_id(database))
    names = [f"process {number:02}" for number in range(11)]
    await send(log, pools, [(name, 1) for name in names[::2]])
    await count_all(pools)
    await send(log, pools, [(name, 3) for name in names[1::2] + names[:3]])
    await log.accept(pools, event("no numbers", None), event(None, 7), {"action": "x"})
    found: list[str] = []
    parameters: dict[str, Any] = {"limit": 3}
    while True:
        response = await api.client.get("/v1/sources", params=parameters)
        answer = response.json()
        found += [source["id"] for source in answer["sources"]]
        assert ("link" in response.headers) == (answer["next_cursor"] is not None)
        if answer["next_cursor"] is None:
            break
        parameters["cursor"] = answer["next_cursor"]
    assert found == ["no numbers", *names]
    (unnumbered,) = (await ask(api, source="no numbers"))["sources"]
    assert (unnumbered["events"], unnumbered["numbered"], unnumbered["first_seq"], unnumbered["last_seq"]) == (
        1,
        0,
        None,
        None,
    )


async def test_only_the_sources_asked_for_are_listed(api: Api, database: TestDatabase, pools: Database) -> None:
    log = await existing_log(database, await default_log_id(database))
    stream: list[Sent] = [("a", 1), ("b", 1), ("c", 1)]
    await send(log, pools, stream)
    await count_all(pools)
    await send(log, pools, [("c", 4), ("d", 2)])
    asked = timeless(await ask(api, source=["d", "c", "never", "c"]))
    assert asked == [naive([*stream, ("c", 4)], "c"), naive([("d", 2)], "d")]
    assert (await ask(api, source="never"))["sources"] == []


async def test_when_it_was_heard_of_last_is_when_its_newest_event_was_recorded(
    api: Api, database: TestDatabase, pools: Database
) -> None:
    log = await existing_log(database, await default_log_id(database))
    for number in range(2):
        await send(log, pools, [("a", number), ("b", number)])
        await send(log, pools, [("b", 9)])
        for _ in range(2):  # uncounted, and counted
            for source in (await ask(api))["sources"]:
                events = [one for one in await api.list(sort="-seq") if one["source"]["id"] == source["id"]]
                assert source["last_recorded_at"] == events[0]["recorded_at"]
            await count_all(pools)


async def test_a_replayed_event_is_no_duplicate(api: Api) -> None:
    """It is the same event, and in the log once."""
    sent = {"id": "e1", **event("a", 1)}
    assert [(await api.post(sent)).status_code for _ in range(3)] == [201, 200, 200]
    assert timeless(await ask(api)) == [naive([("a", 1)], "a")]


async def test_an_event_that_is_not_kept_leaves_a_hole(api: Api, database: TestDatabase, pools: Database) -> None:
    """As the document says: nothing of it is in the log. With AUDIT_KEEP_NOOP it is kept."""
    unchanged = {"before": {"a": 1}, "after": {"a": 1}}
    log = await existing_log(database, await default_log_id(database))
    await log.accept(pools, event("a", 1), event("a", 2) | unchanged, event("a", 3))
    assert (await ask(api))["sources"][0]["holes"]["ranges"] == [[2, 3]]
    keeping = Recipe(compile_ruleset(), EventLimits(), b"s" * 32, keep_noop=True)
    await log.accept(pools, event("a", 2) | unchanged, recipe=keeping)
    assert (await ask(api))["sources"][0]["holes"]["ranges"] == []


async def test_a_tenant_sees_its_own_producers_only(api: Api, database: TestDatabase, pools: Database) -> None:
    """Of the same name, counted and not."""
    own = await existing_log(database, await default_log_id(database))
    other = await existing_log(database, await add_tenant(database, "other"))
    for number in (1, 5):
        await send(own, pools, [("a", number)])
        await send(other, pools, [("a", number + 1), ("theirs", number)])
        assert [source["id"] for source in (await ask(api))["sources"]] == ["a"]
        await count_all(pools)
    assert timeless(await ask(api)) == [naive([("a", 1), ("a", 5)], "a")]
    async with open_api(database, key=await add_key(database, other.log_id)) as theirs:
        assert timeless(await ask(theirs, source="a")) == [naive([("a", 2), ("a", 6)], "a")]


async def test_what_a_reader_does_not_go_through_it_says(
    api: Api, database: TestDatabase, pools: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More waits than is read: the answer is about the first so many entries, and says how many."""
    monkeypatch.setattr(sources, "TAIL_ENTRIES", 6)
    log = await existing_log(database, await default_log_id(database))
    stream = [("a", number) for number in range(8)]
    await send(log, pools, stream)
    answer = await ask(api)
    assert (answer["counted"], answer["size"]) == (6, 8)
    assert timeless(answer) == [naive(stream[:6], "a")]
    await count_all(pools)
    assert timeless(await ask(api)) == [naive(stream, "a")]


async def test_a_cursor_belongs_to_what_was_asked(api: Api) -> None:
    await api.accept(*(event(name, 1) for name in "abc"))
    cursor = (await ask(api, limit=1))["next_cursor"]
    events_cursor = (await api.client.get("/v1/events", params={"limit": 1})).json()["next_cursor"]
    assert (await api.client.get("/v1/events", params={"limit": 1, "cursor": cursor})).status_code == 400
    for asked in (
        {"cursor": cursor, "source": "a"},
        {"cursor": cursor, "below": 3},
        {"cursor": cursor[:-1] + "_"},
        {"cursor": events_cursor},
        {"cursor": "x"},
    ):
        response = await api.client.get("/v1/sources", params={"limit": 1, **asked})
        assert response.status_code == 400, asked
        assert response.json()["errors"][0]["parameter"] == "cursor"


@pytest.mark.parametrize(
    "asked",
    [
        "below=-1",
        "below=9223372036854775809",
        "below=x",
        "below=1&below=2",
        "limit=0",
        "q=abc",
        "source.not=a",
        "source=%00",
    ],
)
async def test_a_bad_parameter_is_named(api: Api, asked: str) -> None:
    response = await api.client.get(f"/v1/sources?{asked}")
    assert response.status_code == 400
    assert response.json()["errors"][0]["parameter"] == asked.partition("=")[0]
