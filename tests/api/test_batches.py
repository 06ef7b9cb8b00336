"""Many events in one request: arrays, {"events": […]}, and streams of lines, each with its own result in its own place."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import uvicorn

from audit_service.api import schemas
from audit_service.app import create_app
from audit_service.settings import Settings
from tests.support.api import Api
from tests.support.apps import open_api
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase
from tests.support.posting import with_trailer
from tests.support.processes import free_port

NDJSON = {"Content-Type": "application/x-ndjson"}


def event(number: int, **members: Any) -> dict[str, Any]:
    """One of many events."""
    return {"action": "row.touched", "metadata": {"n": number}, **members}


async def post_batch(api: Api, body: Any, status: int, **headers: str) -> list[dict[str, Any]]:
    """POST a batch; its results, checked against the schema and the counts."""
    response = await api.client.post("/v1/events", json=body, headers=headers)
    assert response.status_code == status, response.text
    answer = response.json()
    schemas.BatchResults.model_validate(answer)
    results: list[dict[str, Any]] = answer["results"]
    accepted = sum("receipt" in result for result in results)
    assert (answer["accepted"], answer["rejected"]) == (accepted, len(results) - accepted)
    return results


async def post_lines(api: Api, body: bytes, **headers: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """POST lines; the result lines and the trailer."""
    response = await api.client.post("/v1/events", content=body, headers=NDJSON | headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    results, trailer = with_trailer([json.loads(line) for line in response.text.splitlines()])
    for result in results:
        schemas.Result.model_validate(result)
    return results, trailer


async def numbers(api: Api, results: list[dict[str, Any]]) -> list[int]:
    """metadata.n of the stored event of each accepted result."""
    found = [await api.event(result["receipt"]["id"]) for result in results if "receipt" in result]
    return [stored["metadata"]["n"] for stored in found]


# --- batches ---


@pytest.mark.parametrize("wrapped", [True, False])
async def test_a_batch_is_accepted_in_order(shared_api: Api, *, wrapped: bool) -> None:
    events = [event(n) for n in range(5)]
    results = await post_batch(shared_api, {"events": events} if wrapped else events, 201)
    assert await numbers(shared_api, results) == [0, 1, 2, 3, 4]
    seqs = [result["receipt"]["seq"] for result in results]
    assert seqs == list(range(seqs[0], seqs[0] + 5))
    hashes = [result["receipt"]["hash"] for result in results]
    assert [result["receipt"]["prev_hash"] for result in results][1:] == hashes[:-1]


@pytest.mark.parametrize("place", [0, 2, 4])
async def test_one_bad_event_does_not_sink_the_others(shared_api: Api, place: int) -> None:
    events: list[Any] = [event(n) for n in range(5)]
    events[place] = {"action": "x", "nonsense": 1}
    results = await post_batch(shared_api, events, 207)
    assert [result["status"] for result in results] == [422 if n == place else 201 for n in range(5)]
    assert results[place]["problem"]["errors"] == [{"pointer": "/nonsense", "detail": "is not a member of the event"}]
    assert await numbers(shared_api, results) == [n for n in range(5) if n != place]


async def test_items_of_every_kind_get_their_own_result(shared_api: Api) -> None:
    await shared_api.accept(event(0, id="kinds:known"))
    noop = {"action": "x", "before": {"a": 1}, "after": {"a": 1}}
    events = [
        event(1, id="kinds:new"), event(0, id="kinds:known"), event(9, id="kinds:known"), noop, 5, None, "x", [], {"action": "audit.x"},
    ]  # fmt: skip
    results = await post_batch(shared_api, events, 207)
    assert [result["status"] for result in results] == [201, 200, 409, 200, 422, 422, 422, 422, 422]
    assert [result.get("replayed") for result in results[:4]] == [False, True, None, False]
    assert results[3]["receipt"]["kept"] is False


async def test_a_batch_of_bad_events_only_is_422(shared_api: Api) -> None:
    results = await post_batch(shared_api, {"events": [{}, {"action": ""}]}, 422)
    assert [result["status"] for result in results] == [422, 422]


@pytest.mark.parametrize("body", [[], {"events": []}])
async def test_an_empty_batch_is_accepted_and_does_nothing(shared_api: Api, body: Any) -> None:
    assert await post_batch(shared_api, body, 200) == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({"events": {}}, "/events"), ({"events": None}, "/events"), ({"events": [], "more": 1}, "/more")],
)
async def test_a_batch_holds_events_and_nothing_else(shared_api: Api, body: Any, pointer: str) -> None:
    response = await shared_api.client.post("/v1/events", json=body)
    assert (response.status_code, [fault["pointer"] for fault in response.json()["errors"]]) == (422, [pointer])


async def test_events_beside_an_action_is_an_unknown_member_of_an_event(shared_api: Api) -> None:
    response = await shared_api.post({"action": "x", "events": []})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/events")


async def test_the_number_of_events_is_limited(module_database: TestDatabase) -> None:
    async with open_api(module_database, batch_limit_events=3) as api:
        await post_batch(api, [event(n) for n in range(3)], 201)
        response = await api.client.post("/v1/events", json=[event(n) for n in range(4)])
        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (413, "/events")


async def test_a_whole_batch_of_the_largest_size_is_accepted(shared_api: Api) -> None:
    results = await post_batch(shared_api, [event(n) for n in range(1000)], 201)
    assert [result["receipt"]["seq"] - results[0]["receipt"]["seq"] for result in results] == list(range(1000))


# --- lines ---


async def test_each_line_gets_a_result_line_and_then_comes_a_trailer(shared_api: Api) -> None:
    body = b"\n".join(json.dumps(event(n)).encode() for n in range(3))
    for ending in (b"", b"\n", b"\r\n", b"\n\n \n"):
        results, trailer = await post_lines(shared_api, body + ending)
        assert await numbers(shared_api, results) == [0, 1, 2]
        assert trailer == {"trailer": True, "accepted": 3, "rejected": 0, "complete": True}


@pytest.mark.parametrize(
    "media_type", ["application/ndjson", "application/jsonl", "application/x-ndjson; charset=utf-8"]
)
async def test_lines_have_more_than_one_name(shared_api: Api, media_type: str) -> None:
    results, _ = await post_lines(shared_api, b'{"action":"x"}\n', **{"Content-Type": media_type})
    assert [result["status"] for result in results] == [201]


async def test_no_lines_are_no_results(shared_api: Api) -> None:
    for body in (b"", b"\n\n", b" \r\n\t\n"):
        results, trailer = await post_lines(shared_api, body)
        assert (results, trailer["accepted"], trailer["complete"]) == ([], 0, True)


async def test_a_bad_line_fails_alone_and_blank_lines_do_not_count(shared_api: Api) -> None:
    lines = [
        json.dumps(event(0)), "", "{broken", "  ", '{"action":"x","action":"y"}', '{"action":"x","reason":"\\ud800"}', "[]",
        '{"events":[]}', json.dumps(event(1)), "\ufeff{}", json.dumps(event(2)),
    ]  # fmt: skip
    results, trailer = await post_lines(shared_api, "\n".join(lines).encode())
    assert [result["status"] for result in results] == [201, 400, 400, 422, 422, 422, 201, 400, 201]
    assert await numbers(shared_api, results) == [0, 1, 2]
    assert trailer["complete"] is True


@pytest.fixture(scope="module")
async def narrow_api(module_database: TestDatabase) -> AsyncIterator[Api]:
    """The app with small limits on a body (and so on a line) and on a stream."""
    async with open_api(module_database, body_limit_bytes=1024, stream_limit_bytes=20_000) as opened:
        yield opened


async def in_chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    """The body as a client that streams would send it."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("chunk", [7, 100, 1024, 100_000])
@pytest.mark.parametrize("long", [1024, 1025, 5_000])
async def test_a_line_that_is_too_long_fails_alone(narrow_api: Api, long: int, chunk: int) -> None:
    lines = [json.dumps(event(0)).encode(), json.dumps(event(1)).encode().ljust(long), json.dumps(event(2)).encode()]
    for order in ([0, 1, 2], [1, 0, 2], [0, 2, 1]):
        body = b"\n".join(lines[place] for place in order)
        content = in_chunks(body, chunk)
        response = await narrow_api.client.post("/v1/events", content=content, headers=NDJSON)
        *results, trailer = [json.loads(line) for line in response.text.splitlines()]
        refused = 1 if long > 1024 else None
        assert [result["status"] for result in results] == [413 if place == refused else 201 for place in order]
        assert trailer["complete"] is True
        assert await numbers(narrow_api, results) == [place for place in order if place != refused]


async def test_a_stream_over_its_limit_is_refused(narrow_api: Api) -> None:
    """Nothing was taken from it, so the whole request has a status of its own."""
    body = (json.dumps(event(0)).encode().ljust(999) + b"\n") * 21
    response = await narrow_api.client.post("/v1/events", content=in_chunks(body, 4096), headers=NDJSON)
    assert (response.status_code, response.headers["content-type"]) == (413, "application/problem+json")


async def test_a_stream_that_ends_badly_says_so_after_the_results_it_has(narrow_api: Api) -> None:
    """500 lines are taken before the limit is met; the sender resumes after them."""
    lines = b'{"action":"x"}\n' * 500
    body = lines + b'{"action":"x"}\n' * 2000
    response = await narrow_api.client.post("/v1/events", content=in_chunks(body, 100), headers=NDJSON)
    *results, trailer = [json.loads(line) for line in response.text.splitlines()]
    assert len(results) >= 500
    assert {result["status"] for result in results} == {201}
    assert (trailer["complete"], trailer["problem"]["status"]) == (False, 413)
    assert (trailer["accepted"], trailer["rejected"]) == (len(results), 0)


async def test_no_line_of_a_long_stream_is_lost(shared_api: Api) -> None:
    """The response begins while the body still arrives: whoever waits for a disconnect must not eat its chunks."""
    count = 2_300
    body = b"".join(json.dumps(event(n)).encode() + b"\n" for n in range(count))
    response = await shared_api.client.post("/v1/events", content=in_chunks(body, 1000), headers=NDJSON)
    *results, trailer = [json.loads(line) for line in response.text.splitlines()]
    assert (len(results), trailer["accepted"], trailer["complete"]) == (count, count, True)
    seqs = [result["receipt"]["seq"] for result in results]
    assert seqs == list(range(seqs[0], seqs[0] + count))


@pytest.fixture
async def served(module_database: TestDatabase) -> AsyncIterator[str]:
    """The app behind the real HTTP server of a worker, in this event loop. Its URL."""
    app = create_app(Settings(database_url=module_database.serving_url))
    port = free_port()
    config = uvicorn.Config(
        app, port=port, http="httptools", ws="none", lifespan="on", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    listening = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event for it
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await listening


async def test_no_line_is_lost_over_a_real_connection(served: str) -> None:
    count = 3_000
    body = b"".join(json.dumps(event(n)).encode() + b"\n" for n in range(count))
    headers = NDJSON | {"Authorization": f"Bearer {BOOTSTRAP_KEY}"}
    async with httpx.AsyncClient(base_url=served, headers=headers, trust_env=False, timeout=30) as client:
        response = await client.post("/v1/events", content=in_chunks(body, 10_000))
    *results, trailer = [json.loads(line) for line in response.text.splitlines()]
    assert (len(results), trailer["accepted"], trailer["complete"]) == (count, count, True)
