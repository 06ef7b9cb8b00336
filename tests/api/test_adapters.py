"""The adapters' doors: what holds for every one of them, whatever its protocol."""

import base64
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from audit_service.settings import Settings
from tests.support.adapters import CANARY, JSON, NAMES, newest, open_doors, post, sample, size_of
from tests.support.api import Api
from tests.support.apps import add_key, open_api, open_app
from tests.support.postgres import TestDatabase, default_log_id


@pytest.fixture(scope="module")
async def doors(module_database: TestDatabase) -> AsyncIterator[Api]:
    """The app on the module's database."""
    async with open_doors(module_database) as opened:
        yield opened


@pytest.mark.parametrize("name", NAMES)
async def test_a_delivery_is_stored_once_however_often_it_comes(doors: Api, name: str) -> None:
    sent = sample(name, " once")
    before = await size_of(doors)
    for _ in range(3):
        response = await doors.client.post(sent.path, content=sent.body, headers=sent.headers)
        assert response.status_code == 200, response.text
        assert CANARY not in response.text
    assert await size_of(doors) == before + sent.events
    first, *_ = await newest(doors, sent.events)
    assert first["action"] == sent.action
    assert first["id"].startswith(f"{name}:")
    assert first["occurred_at"].startswith("2026-11-22T02:55:00")
    other = sample(name, " other")
    assert (await doors.client.post(other.path, content=other.body, headers=other.headers)).status_code == 200
    assert await size_of(doors) == before + 2 * sent.events


@pytest.mark.parametrize("name", NAMES)
async def test_a_compressed_delivery_is_the_same(doors: Api, name: str) -> None:
    sent = sample(name, " gzip")
    before = await size_of(doors)
    packed = sent.headers | {"Content-Encoding": "gzip"}
    for body, headers in ((gzip.compress(sent.body), packed), (sent.body, sent.headers)):
        response = await doors.client.post(sent.path, content=body, headers=headers)
        assert response.status_code == 200, response.text
    assert await size_of(doors) == before + sent.events


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"7",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"a":1,"a":2}',
        b"[[[[",
        b'{"event":{}}\n{}',
        b'{"data":{}}',
    ],
)
async def test_whatever_comes_is_answered(doors: Api, name: str, body: bytes) -> None:
    """No answer of 5xx, and nothing stored that was not accepted."""
    path, before = sample(name).path, await size_of(doors)
    response = await doors.client.post(path, content=body, headers=JSON)
    assert response.status_code < 500, response.text
    accepted = await size_of(doors) - before
    if response.status_code >= 400:
        # The collector refuses a request for one bad event; the good ones are stored, and replays when it comes again.
        assert accepted == (1 if name == "splunk" and body.startswith(b'{"event"') else 0)
    else:
        assert accepted or name == "otlp" or b'"errors":true' in response.content or body == b'{"data":{}}'


@pytest.mark.parametrize("name", NAMES)
async def test_a_key_is_needed_and_the_right_one(doors: Api, module_database: TestDatabase, name: str) -> None:
    sent, before = sample(name, " unseen"), await size_of(doors)
    reader = await add_key(module_database, await default_log_id(module_database), ["read"])
    for value, status in (
        ("", 401),
        ("Bearer wrong", 401),
        ("Nonsense", 401),
        ("Basic !", 401),
        (f"Bearer {reader}", 403),
    ):
        response = await doors.client.post(
            sent.path, content=sent.body, headers={**sent.headers, "Authorization": value}
        )
        assert response.status_code == status, value
        assert ("www-authenticate" in response.headers) == (status == 401)
    assert await size_of(doors) == before


def basic(text: str) -> str:
    """Base64 of a text."""
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("splunk", "Splunk {key}"), ("splunk", "Basic {x:key}"), ("elasticsearch", "Basic {x:key}"), ("elasticsearch", "ApiKey {x:key}"),
        ("elasticsearch", "ApiKey {key}"), ("wings", "Bearer tokenid.{key}"), ("wings", "bearer {key}"), ("otlp", "Bearer {key}"),
    ],
)  # fmt: skip
async def test_each_sender_puts_the_key_where_it_does(
    doors: Api, module_database: TestDatabase, name: str, scheme: str
) -> None:
    key = await add_key(module_database, await default_log_id(module_database), ["ingest"])
    value = scheme.replace("{x:key}", basic(f"elastic:{key}")).replace("{key}", key)
    sent = sample(name, scheme[:9])
    response = await doors.client.post(sent.path, content=sent.body, headers={**sent.headers, "Authorization": value})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("name", NAMES)
async def test_without_its_database_every_door_says_to_come_back(name: str) -> None:
    sent = sample(name)
    async with open_app(Settings(database_url=SecretStr("postgresql://audit_serving:x@127.0.0.1:1/audit"))) as api:
        response = await api.client.post(sent.path, content=sent.body, headers=sent.headers)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert response.content


@pytest.mark.parametrize("name", ["otlp", "elasticsearch", "splunk", "wings"])
async def test_a_request_brings_so_many_events_and_no_more(module_database: TestDatabase, name: str) -> None:
    one = sample(name, " many")
    time = 1795316100
    rows = [{"event": f"e.{n}", "timestamp": time, "time": time, "server": name} for n in range(11)]

    def body(count: int) -> Any:
        if name == "otlp":
            logs = [{"eventName": row["event"], "timeUnixNano": f"{time}000000000"} for row in rows[:count]]
            return {"resourceLogs": [{"scopeLogs": [{"logRecords": logs}]}]}
        if name == "wings":
            return {"data": rows[:count]}
        return b"".join(
            (b"" if name == "splunk" else b'{"index":{}}\n') + json.dumps(row).encode() + b"\n" for row in rows[:count]
        )

    async with open_api(module_database, batch_limit_events=1) as api:
        before = await size_of(api)
        assert (await post(api, one.path, body(10))).status_code == 200
        assert await size_of(api) == before + 10
        assert (await post(api, one.path, body(11))).status_code == 413
        assert await size_of(api) == before + 10


async def test_a_large_request_goes_in_slices(doors: Api) -> None:
    before = await size_of(doors)
    rows = [{"event": "server:file.write", "timestamp": f"2026-11-22T01:00:00.{n:06}Z"} for n in range(450)]
    response = await post(doors, "/api/remote/activity", {"data": [*rows, 7]})
    assert (response.status_code, response.json()["accepted"], response.json()["rejected"]) == (200, 450, 1)
    assert [error["index"] for error in response.json()["errors"]] == [450]
    assert await size_of(doors) == before + 450


async def test_what_has_no_time_of_its_own_is_a_new_event_each_time(doors: Api) -> None:
    """Twice the same words without a time may well be two events; a sender that wants replays gives a time or an id."""
    before = await size_of(doors)
    for _ in range(2):
        assert (await post(doors, "/services/collector", {"event": "user logged in"})).status_code == 200
    assert await size_of(doors) == before + 2
