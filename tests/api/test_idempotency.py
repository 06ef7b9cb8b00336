"""One id, one entry, for ever: replays get the first receipt, other content a conflict, whoever asks at the same time."""

import asyncio
import uuid
from typing import Any

import pytest

from tests.support.api import Api
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.postgres import TestDatabase

EVENT: dict[str, Any] = {
    "action": "server.updated",
    "actor": {"id": "u1", "name": "Ana"},
    "occurred_at": "2026-03-01T10:00:00Z",
    "before": {"a": 1, "password": "x"},
    "after": {"a": 2, "password": "y"},
    "metadata": {"k": [1, 2], "m": {"b": 1, "a": 2}},
}


def fresh(**members: Any) -> dict[str, Any]:
    """The event under an id nobody has used."""
    return {"id": str(uuid.uuid4()), **EVENT, **members}


async def size_of(api: Api) -> int:
    """Entries in the log."""
    return int((await api.client.get("/v1/chain")).json()["size"])


async def test_the_same_again_gets_the_first_receipt_and_no_second_entry(shared_api: Api) -> None:
    event = fresh()
    first = await shared_api.post(event)
    size = await size_of(shared_api)
    for _ in range(2):
        again = await shared_api.post(event)
        assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
        assert again.json() == first.json()
    assert (first.status_code, "idempotent-replayed" in first.headers) == (201, False)
    assert await size_of(shared_api) == size


SAME: list[dict[str, Any]] = [
    {"metadata": {"m": {"a": 2, "b": 1}, "k": [1, 2]}, "actor": {"name": "Ana", "id": "u1"}},
    {"actor": {"id": "u1", "name": "Ana", "email": None, "role": None}, "outcome": None, "changes": None, "related": None},
    {"occurred_at": "2026-03-01T11:00:00.000000+01:00"},
    {"before": {"a": 1.0, "password": "x"}},
    {"after": {"password": "y", "a": 2}},
    # What was redacted is not part of the content: nobody keeps it to compare.
    {"after": {"a": 2, "password": "z"}},
]  # fmt: skip


@pytest.mark.parametrize("members", SAME)
async def test_another_spelling_of_the_same_content_is_a_replay(shared_api: Api, members: dict[str, Any]) -> None:
    event = fresh()
    first = await shared_api.post(event)
    again = await shared_api.post(event | members)
    assert (again.status_code, again.json()) == (200, first.json())


OTHER: list[dict[str, Any]] = [
    {"action": "server.deleted"},
    {"actor": {"id": "u1", "name": "Ana "}},
    {"actor": None},
    {"occurred_at": "2026-03-01T10:00:00.000001Z"},
    {"occurred_at": None},
    {"after": {"a": 3, "password": "y"}},
    {"after": {"a": "2", "password": "y"}},
    {"metadata": {"k": [2, 1], "m": {"b": 1, "a": 2}}},
    {"metadata": {"k": [1, 2], "m": {"b": 1, "a": 2}, "n": None}},
    {"partial": "both"},
    {"verb": "UPDATE"},
    {"server_id": "s1"},
]


@pytest.mark.parametrize("members", OTHER)
async def test_other_content_under_a_used_id_is_a_conflict(shared_api: Api, members: dict[str, Any]) -> None:
    event = fresh()
    await shared_api.accept(event)
    size = await size_of(shared_api)
    response = await shared_api.post(event | members)
    assert (response.status_code, response.headers["content-type"]) == (409, "application/problem+json")
    assert event["id"] not in response.text
    assert await size_of(shared_api) == size
    assert (await shared_api.post(event)).status_code == 200


async def test_ready_made_changes_are_the_same_however_they_are_spelled(shared_api: Api) -> None:
    event = {"id": str(uuid.uuid4()), "action": "row.edit"}
    full = [{"path": "/a", "op": "replace", "old": 1, "new": 2}, {"path": "/b", "op": "add", "new": 3}]
    short = [{"path": "/b", "new": 3}, {"path": "/a", "new": 2, "old": 1}]
    first = await shared_api.post(event | {"changes": full})
    again = await shared_api.post(event | {"changes": short})
    assert (again.status_code, again.json()) == (200, first.json())
    assert (await shared_api.post(event | {"changes": short[:1]})).status_code == 409


async def test_without_an_id_every_request_is_an_event_of_its_own(shared_api: Api) -> None:
    first, second = await shared_api.accept(EVENT, EVENT)
    assert first["id"] != second["id"]
    assert {uuid.UUID(receipt["id"]).version for receipt in (first, second)} == {7}


async def test_a_not_kept_event_is_remembered_too(shared_api: Api) -> None:
    event = fresh(before={"a": 1}, after={"a": 1})
    first = await shared_api.post(event)
    again = await shared_api.post(event)
    assert (first.json()["kept"], again.status_code, again.json()) == (False, 200, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert (await shared_api.post(event | {"after": {"a": 2}})).status_code == 409


# --- the header ---


async def test_the_header_gives_an_event_its_id(shared_api: Api) -> None:
    for key, sent in (("k:1", "k:1"), ("k-2", '"k-2"'), ('k"3\\', '"k\\"3\\\\"'), ("k 4", "  k 4  ")):
        first = await shared_api.post(EVENT, **{"Idempotency-Key": sent})
        assert (first.status_code, first.json()["id"]) == (201, key)
        assert (await shared_api.post(EVENT, **{"Idempotency-Key": sent})).status_code == 200
        assert (await shared_api.post(EVENT | {"reason": "x"}, **{"Idempotency-Key": sent})).status_code == 409


async def test_an_event_s_own_id_goes_before_the_header(shared_api: Api) -> None:
    event = fresh()
    first = await shared_api.post(event, **{"Idempotency-Key": "not-used"})
    assert first.json()["id"] == event["id"]
    assert (await shared_api.client.get("/v1/events/not-used")).status_code == 404


async def test_in_a_batch_the_header_numbers_the_events(shared_api: Api) -> None:
    own = fresh()
    events = [EVENT, own, EVENT, {"nonsense": 1}, EVENT]
    headers = {"Idempotency-Key": "batch"}
    first = (await shared_api.client.post("/v1/events", json=events, headers=headers)).json()["results"]
    ids = [result["receipt"]["id"] for result in first if "receipt" in result]
    assert ids == ["batch/0", own["id"], "batch/2", "batch/4"]
    again = (await shared_api.client.post("/v1/events", json={"events": events}, headers=headers)).json()["results"]
    assert [result["status"] for result in again] == [200, 200, 200, 422, 200]
    assert [result.get("receipt") for result in again] == [result.get("receipt") for result in first]
    assert (await shared_api.event("batch/4"))["id"] == "batch/4"


async def test_in_a_stream_the_header_numbers_the_lines(shared_api: Api) -> None:
    headers = {"Idempotency-Key": "stream", "Content-Type": "application/x-ndjson"}
    body = b'{"action":"x"}\n' * 600 + b"\nbroken\n" + b'{"action":"x"}\n'
    first = await shared_api.client.post("/v1/events", content=body, headers=headers)
    assert (await shared_api.event("stream/599"))["id"] == "stream/599"
    assert (await shared_api.event("stream/601"))["id"] == "stream/601"
    size = await size_of(shared_api)
    again = await shared_api.client.post("/v1/events", content=body, headers=headers)
    assert first.text.count('"status":201') == again.text.count('"replayed":true') == 601
    assert await size_of(shared_api) == size


@pytest.mark.parametrize("key", ["", '""', "x" * 241, "a\tb", "é"])
async def test_a_bad_header_is_refused_by_name(shared_api: Api, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    response = await shared_api.client.post("/v1/events", json=EVENT, headers=headers)
    assert (response.status_code, response.json()["errors"][0]["parameter"]) == (422, "Idempotency-Key")


async def test_two_headers_are_refused(shared_api: Api) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    response = await shared_api.client.post("/v1/events", json=EVENT, headers=headers)
    assert response.status_code == 422


# --- within one request, and at the same time ---


async def test_an_id_twice_in_one_batch_is_one_entry(shared_api: Api) -> None:
    event = fresh()
    events = [event, event | {"reason": "other"}, event]
    size = await size_of(shared_api)
    results = (await shared_api.client.post("/v1/events", json=events)).json()["results"]
    assert [result["status"] for result in results] == [201, 409, 200]
    assert results[2]["replayed"] is True
    assert results[2]["receipt"] == results[0]["receipt"]
    assert await size_of(shared_api) == size + 1


async def test_a_refused_event_does_not_use_its_id_up(shared_api: Api) -> None:
    event = fresh()
    assert (await shared_api.post(event | {"verb": "nonsense"})).status_code == 422
    assert (await shared_api.post(event)).status_code == 201


async def test_many_at_once_with_one_id_make_one_entry(shared_api: Api) -> None:
    event = fresh()
    size = await size_of(shared_api)
    responses = await asyncio.gather(*(shared_api.post(event) for _ in range(20)))
    assert sorted(response.status_code for response in responses) == [200] * 19 + [201]
    assert {response.json()["hash"] for response in responses} == {responses[0].json()["hash"]}
    assert await size_of(shared_api) == size + 1


async def test_many_at_once_with_one_id_and_other_contents_make_one_entry(shared_api: Api) -> None:
    event = fresh()
    size = await size_of(shared_api)
    responses = await asyncio.gather(*(shared_api.post(event | {"reason": str(n)}) for n in range(20)))
    assert sorted(response.status_code for response in responses) == [201] + [409] * 19
    assert await size_of(shared_api) == size + 1


async def test_batches_that_share_ids_in_another_order_do_not_block_each_other(shared_api: Api) -> None:
    events = [fresh() for _ in range(30)]
    size = await size_of(shared_api)
    orders = [events, events[::-1], events[::2] + events[1::2]] * 3
    responses = await asyncio.gather(*(shared_api.client.post("/v1/events", json=order) for order in orders))
    assert [response.status_code for response in responses] == [201] * len(orders)
    receipts = [result["receipt"] for response in responses for result in response.json()["results"]]
    assert len({(receipt["id"], receipt["seq"]) for receipt in receipts}) == 30
    assert await size_of(shared_api) == size + 30


async def test_another_tenant_may_use_the_same_id(module_database: TestDatabase, shared_api: Api) -> None:
    event = fresh()
    (ours,) = await shared_api.accept(event)
    key = await add_key(module_database, await add_tenant(module_database, "other"))
    async with open_api(module_database, key=key) as other:
        (theirs,) = await other.accept(event | {"reason": "not the same"})
        assert (theirs["seq"], theirs["origin"] == ours["origin"], theirs["hash"] == ours["hash"]) == (0, False, False)
        assert (await other.event(event["id"]))["reason"] == "not the same"
        await other.assert_intact(1)
    assert (await shared_api.event(event["id"]))["reason"] is None


async def test_under_another_ruleset_a_replay_gets_the_receipt(module_database: TestDatabase, shared_api: Api) -> None:
    """What was redacted otherwise cannot be compared, and the sender only wants to know that it is there."""
    event = fresh()
    (first,) = await shared_api.accept(event)
    async with open_api(module_database, redact_words="colour") as stricter:
        again = await stricter.post(event | {"reason": "other"})
    assert (again.status_code, again.json()) == (200, first)


@pytest.mark.parametrize("place", ["member", "header"])
async def test_ids_that_are_secrets_stay_apart_and_are_not_stored(shared_api: Api, place: str) -> None:
    """Two tokens used as ids are two ids, a retry is still a replay, and neither token is in an answer."""
    tokens = ["ghp_" + uuid.uuid4().hex + letter * 4 for letter in "ab"]
    ids = []
    for token in tokens:
        event, headers = {**EVENT, "description": token[-1]}, {}
        if place == "member":
            event["id"] = token
        else:
            headers["Idempotency-Key"] = token
        first = await shared_api.post(event, **headers)
        again = await shared_api.post(event, **headers)
        assert (first.status_code, again.status_code) == (201, 200), first.text
        assert first.json() == again.json()
        assert token not in first.text
        ids.append(first.json()["id"])
    assert len(set(ids)) == 2
