"""How large an event may be and how it may be wrapped: limits by their numbers, media types, encodings."""

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.api import Api
from tests.support.apps import open_api
from tests.support.postgres import TestDatabase
from tests.support.posting import JSON_TYPE, refused, send, stored

# --- limits ---


@pytest.fixture(scope="module")
async def narrow_api(module_database: TestDatabase) -> AsyncIterator[Api]:
    """The app with small limits."""
    limits: dict[str, Any] = {"depth_limit": 6, "string_limit_characters": 256, "keys_limit": 20, "changes_limit": 3}
    async with open_api(module_database, body_limit_bytes=4096, **limits) as opened:
        yield opened


def nested(levels: int) -> Any:
    """A value of that many levels."""
    value: Any = 1
    for _ in range(levels):
        value = {"k": value}
    return value


async def test_depth_is_limited(narrow_api: Api) -> None:
    # The event itself and metadata are levels too.
    await stored(narrow_api, {"action": "x", "metadata": nested(5)})
    await refused(narrow_api, {"action": "x", "metadata": nested(6)}, 422, "/metadata" + "/k" * 5)


@pytest.mark.parametrize("levels", [33, 150, 500, 900, 5_000, 100_000])
async def test_no_depth_is_a_server_error(shared_api: Api, levels: int) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"k":', b"}")):
        body = b'{"action":"x","metadata":{"k":' + opening * levels + b"1" + closing * levels + b"}}"
        assert (await send(shared_api, body)).status_code == 422


async def test_the_length_of_a_string_is_limited(narrow_api: Api) -> None:
    assert (await stored(narrow_api, {"action": "x", "metadata": {"k": "é" * 256}}))["metadata"] == {"k": "é" * 256}
    await refused(narrow_api, {"action": "x", "metadata": {"k": "é" * 257}}, 422, "/metadata/k")
    await refused(narrow_api, {"action": "x", "metadata": {"k" * 1025: 1}}, 422, "/metadata")


async def test_the_number_of_members_is_limited(narrow_api: Api) -> None:
    # action, metadata and id count as well
    row = {str(n): n for n in range(17)}
    await stored(narrow_api, {"action": "x", "metadata": row})
    await refused(narrow_api, {"id": "one too many", "action": "x", "metadata": row | {"more": 1}}, 422, "")
    await refused(narrow_api, {"action": "x", "metadata": {"k": [0] * 18}}, 422, "")


async def test_the_number_of_changes_is_limited(narrow_api: Api) -> None:
    row = {str(n): n for n in range(4)}
    changes = [{"path": f"/{n}", "new": n} for n in range(4)]
    assert len((await stored(narrow_api, {"action": "x", "after": dict(list(row.items())[:3])}))["changes"]) == 3
    assert len((await stored(narrow_api, {"action": "x", "changes": changes[:3]}))["changes"]) == 3
    await refused(narrow_api, {"action": "x", "after": row}, 422, "")
    await refused(narrow_api, {"action": "x", "changes": changes}, 422, "/changes")


async def test_the_body_is_limited_by_counted_bytes(narrow_api: Api) -> None:
    body = json.dumps({"action": "x"}).encode()
    assert (await send(narrow_api, body.ljust(4096))).status_code == 201
    await refused(narrow_api, body.ljust(4097), 413, "")

    async def chunks() -> AsyncIterator[bytes]:
        yield body
        for _ in range(5):
            yield b" " * 1000

    for headers in ({}, {"Content-Length": "10"}):
        response = await narrow_api.client.post("/v1/events", content=chunks(), headers=JSON_TYPE | headers)
        assert response.status_code == 413


# --- media types ---

TAKEN = ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"',
         "text/plain;charset=UTF-8", ""]  # fmt: skip
NOT_TAKEN = [
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/vnd.api+json", "*/*",
    "application/json; charset=utf-16", "application/json; charset=latin1", "application/xml",
]  # fmt: skip


@pytest.mark.parametrize("media_type", TAKEN)
async def test_json_is_taken(shared_api: Api, media_type: str) -> None:
    assert (await send(shared_api, b'{"action":"x"}', **{"Content-Type": media_type})).status_code == 201


@pytest.mark.parametrize("media_type", NOT_TAKEN)
async def test_another_media_type_is_told_which_header_to_send(shared_api: Api, media_type: str) -> None:
    response = await send(shared_api, b'{"action":"x"}', **{"Content-Type": media_type})
    assert response.status_code == 415
    assert response.headers["content-type"] == "application/problem+json"
    assert "Content-Type: application/json" in response.json()["detail"]


@pytest.mark.parametrize("media_type", [None, "text/plain"])
async def test_what_has_no_or_a_loose_type_is_taken_when_it_is_json(shared_api: Api, media_type: str | None) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    for body, status in ((b' {"action":"x"}', 201), (b'[{"action":"x"}]', 201), (b"action=x", 415), (b"<x/>", 415)):
        request = shared_api.client.build_request("POST", "/v1/events", content=body, headers=headers)
        assert request.headers.get("content-type") == media_type
        response = await shared_api.client.send(request)
        assert response.status_code == status
        assert status == 201 or "Content-Type: application/json" in response.json()["detail"]


@pytest.mark.parametrize("encoding", ["deflate", "br", "identity, gzip"])
async def test_another_encoding_is_refused_and_told_what_is_taken(shared_api: Api, encoding: str) -> None:
    response = await send(shared_api, b'{"action":"x"}', **{"Content-Encoding": encoding})
    assert (response.status_code, response.headers["accept-encoding"]) == (415, "gzip, identity")
    assert (await send(shared_api, b'{"action":"x"}', **{"Content-Encoding": "identity"})).status_code == 201


async def test_gzip_is_inflated_under_the_same_limit(narrow_api: Api) -> None:
    zipped = {"Content-Encoding": "gzip"}
    body = json.dumps({"action": "x"}).encode()
    assert (await send(narrow_api, gzip.compress(body.ljust(4096)), **zipped)).status_code == 201
    assert (await send(narrow_api, gzip.compress(body.ljust(4097)), **zipped)).status_code == 413
    assert (await send(narrow_api, gzip.compress(b" " * 50_000_000), **zipped)).status_code == 413
    for broken in (body, gzip.compress(body)[:-4], gzip.compress(body) + b"more", b"", b"\x1f\x8b"):
        response = await send(narrow_api, broken, **zipped)
        assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")
