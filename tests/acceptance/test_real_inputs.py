"""What real panels and services sent, through the whole service: every diff right, every log intact, no secret kept.

Expectations come from the senders' own words (whole rows compared naively, documented old values), never from `core.diff`.
"""

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Api
from tests.support.apps import dump
from tests.support.canaries import Canaries
from tests.support.postgres import TestDatabase
from tests.support.senders import Event, from_cloudtrail, from_github, from_netbox, from_panther, github_sides, lines

REDACTED = "[redacted]"
SECRET_NAMES = ("password", "token")
IGNORED = ("updated_at", "last_updated", "modified_at")


async def post_in_batches(api: Api, events: list[Event]) -> list[dict[str, Any]]:
    """The results, in order."""
    results: list[dict[str, Any]] = []
    for start in range(0, len(events), 100):
        response = await api.client.post("/v1/events", json=events[start : start + 100])
        assert response.status_code in {201, 207}, response.text
        results += response.json()["results"]
    return results


async def all_events(api: Api) -> list[dict[str, Any]]:
    """Every stored event, from an export, in seq order."""
    response = await api.client.get("/v1/export", params={"format": "json"})
    events: list[dict[str, Any]] = response.json()["events"]
    return events


# --- NetBox ---


def spelled(name: str) -> str:
    """A name as a segment of a JSON Pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def without_values(value: Any) -> Any:
    """The value with what stands under the two secret names of the data taken out."""
    if isinstance(value, dict):
        return {k: REDACTED if k in SECRET_NAMES else without_values(v) for k, v in value.items()}
    return [without_values(item) for item in value] if isinstance(value, list) else value


def compared(old: Any, new: Any, path: str = "") -> list[dict[str, Any]]:
    """The changes between two whole rows, the obvious way."""
    found: list[dict[str, Any]] = []
    for name in sorted(set(old) | set(new)):
        here = f"{path}/{spelled(name)}"
        if name in IGNORED or (name in old and name in new and old[name] == new[name]):
            continue
        if isinstance(old.get(name), dict) and isinstance(new.get(name), dict):
            found += compared(old[name], new[name], here)
            continue
        op = "add" if name not in old else "remove" if name not in new else "replace"
        change: dict[str, Any] = {"path": here, "op": op}
        if name in SECRET_NAMES:
            change["redacted"] = True
        else:
            change |= {side: without_values(row[name]) for side, row in (("old", old), ("new", new)) if name in row}
        found.append(change)
    return sorted(found, key=lambda change: str(change["path"]))


async def test_twenty_requests_of_a_real_netbox(api: Api, database: TestDatabase, shared: Path) -> None:
    requests = [
        json.loads(request["body"]) for request in lines(shared / "data" / "netbox-webhooks" / "requests.ndjson")
    ]
    assert len(requests) == 20
    noops = 0
    for body in requests:
        old, new = (body["snapshots"][side] or {} for side in ("prechange", "postchange"))
        expected = compared(old, new)
        response = await api.post(from_netbox(body))
        receipt = response.json()
        assert (response.status_code, receipt["kept"]) == ((201, True) if expected else (200, False)), response.text
        if not expected:
            noops += 1
            continue
        event = await api.event(receipt["id"])
        assert event["changes"] == expected
        assert event["verb"] == {"created": "CREATE", "updated": "UPDATE", "deleted": "DELETE"}[body["event"]]
        assert (event["actor"]["name"], event["target"]["id"]) == (body["request"]["user"], str(body["data"]["id"]))
    assert noops == 1
    await api.assert_intact(19)
    # Sent again, as NetBox does when an answer was lost: nothing new.
    again = await post_in_batches(api, [from_netbox(body) for body in requests])
    assert [result["status"] for result in again] == [200] * 20
    await api.assert_intact(19)
    assert_nowhere(
        database, ["hunter2", "hunter3", "0123456789abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba9876543210"]
    )


async def test_the_header_that_netbox_sends_is_a_loud_conflict(api: Api, shared: Path) -> None:
    """All twenty carry `Idempotency-Key: -1`. Taken at its word, the second event is refused, never quietly dropped."""
    statuses = []
    for request in lines(shared / "data" / "netbox-webhooks" / "requests.ndjson"):
        (key,) = [value for name, value in request["headers"] if name == "Idempotency-Key"]
        event = {k: v for k, v in from_netbox(json.loads(request["body"])).items() if k != "id"}
        statuses.append((await api.post(event, **{"Idempotency-Key": key})).status_code)
    assert statuses == [201] + [409] * 19
    await api.assert_intact(1)


def assert_nowhere(database: TestDatabase, values: list[str]) -> None:
    """None of the values is in a dump, as text or as a dumped byte string."""
    canaries = Canaries({value: value for value in values})
    assert canaries.found_in(dump(database.owner_url)) == set()


# --- GitHub ---


def undone(new: Any, changes: list[dict[str, Any]]) -> Any:
    """The new object with every change taken back."""
    old = json.loads(json.dumps(new))
    for change in changes:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in change["path"].split("/")[1:]]
        place = old
        for name in parents:
            place = place[int(name)] if isinstance(place, list) else place[name]
        key: Any = int(last) if isinstance(place, list) else last
        if change["op"] == "add":
            del place[key]
        else:
            place[key] = change["old"]
    return old


async def test_the_github_webhooks_with_changes(api: Api, shared: Path) -> None:
    payloads = list(lines(shared / "data" / "github-webhooks-changes" / "with_changes.ndjson"))
    assert len(payloads) == 36
    kept = 0
    noops = []
    for number, item in enumerate(payloads):
        old, new = github_sides(item["event"], item["payload"])
        touched = {name: new[name] for name in old if name in new}
        differs = not old or old != touched
        event = {**from_github(item["event"], item["payload"]), "id": f"gh:{number}"}
        response = await api.post(event)
        assert (response.status_code, response.json()["kept"]) == ((201, True) if differs else (200, False)), (
            response.text
        )
        if not differs:
            noops.append(event["action"])
            continue
        kept += 1
        stored = await api.event(f"gh:{number}")
        assert {change["path"].split("/")[1] for change in stored["changes"]} <= set(old)
        assert not [change for change in stored["changes"] if change.get("redacted")]
        assert undone(touched, stored["changes"]) == old
    # In these examples the old value is the new one.
    assert noops == [
        "discussion_comment.edited",
        "organization.renamed",
        "projects_v2_item.reordered",
        "repository.renamed",
    ]
    assert kept == 32
    await api.assert_intact(kept)


# --- logs of other services ---


@pytest.mark.parametrize("order", ["as sent", "shuffled"])
async def test_cloudtrail_in_any_order_reads_the_same(api: Api, shared: Path, order: str) -> None:
    events = [
        from_cloudtrail(record) for record in lines(shared / "data" / "cloudtrail-invictus" / "records-500.ndjson")
    ]
    sent = random.Random(7).sample(events, len(events)) if order == "shuffled" else events  # noqa: S311 - the same each run
    assert sum(one["occurred_at"] > two["occurred_at"] for one, two in pairwise(sent)) >= 100
    results = await post_in_batches(api, sent)
    assert Counter(result["status"] for result in results) == {201: 500}
    stored = await all_events(api)
    assert [event["id"] for event in stored] == [event["id"] for event in sent]
    read: list[dict[str, Any]] = (
        await api.client.get("/v1/events", params={"sort": "occurred_at", "limit": 500})
    ).json()["events"]
    assert Counter(event["id"] for event in read) == Counter(event["id"] for event in events)
    times = [event["occurred_at"] for event in read]
    assert times == sorted(times)
    assert times == sorted(event["occurred_at"].replace("Z", ".000000Z") for event in events)
    failed = await api.client.get("/v1/events", params={"outcome": "failure", "count": "capped", "limit": 1})
    assert failed.json()["count"] == sum(event["outcome"] == "failure" for event in events) > 0
    await api.assert_intact(500)


async def test_audit_records_in_the_shapes_of_five_vendors(api: Api, shared: Path) -> None:
    records = list(lines(shared / "data" / "panther-samples" / "sample-400.ndjson"))
    events = [from_panther(record) for record in records]
    results = await post_in_batches(api, events)
    # 47 are there before; three carry the time 2024-12-17T00:00:00000000Z, which is none.
    assert len({json.dumps(record, sort_keys=True) for record in records}) == 400 - 47
    assert Counter(result["status"] for result in results) == {201: 350, 200: 47, 422: 3}
    faults = [fault for result in results for fault in result.get("problem", {}).get("errors", [])]
    assert faults == [{"pointer": "/occurred_at", "detail": "must be an RFC 3339 date-time with an offset"}] * 3
    accepted = [event for event, result in zip(events, results, strict=True) if result["status"] == 201]
    stored = await all_events(api)
    assert [event["id"] for event in stored] == [event["id"] for event in accepted]
    untouched = sum(event["metadata"] == sent["metadata"] for event, sent in zip(stored, accepted, strict=True))
    assert untouched >= 0.6 * len(accepted), untouched
    for event, sent in zip(stored, accepted, strict=True):
        assert_only_redacted(sent["metadata"], event["metadata"])
    await api.assert_intact(len(accepted))


def assert_only_redacted(sent: Any, kept: Any) -> None:
    """What is kept is what was sent, but for placeholders."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        assert len(sent) == len(kept)
        for name in sent.keys() & kept.keys():
            assert_only_redacted(sent[name], kept[name])
    elif isinstance(sent, list) and isinstance(kept, list):
        assert len(sent) == len(kept)
        for one, other in zip(sent, kept, strict=True):
            assert_only_redacted(one, other)
    elif sent != kept:
        assert isinstance(kept, str)
        assert REDACTED in kept
