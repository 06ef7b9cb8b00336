"""Posting one event: taken and read back, or refused with every place named and nothing stored."""

import json
import uuid
from typing import Any

import httpx

from audit_service.api import schemas
from tests.support.api import Api

JSON_TYPE = {"Content-Type": "application/json"}


async def send(api: Api, body: bytes, **headers: str) -> httpx.Response:
    """POST raw bytes as JSON."""
    return await api.client.post("/v1/events", content=body, headers=JSON_TYPE | headers)


def with_trailer(lines: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The results and the trailer of an answer to lines; the trailer counts the results."""
    *results, trailer = lines
    assert trailer["trailer"] is True
    assert (trailer["accepted"], trailer["rejected"]) == (
        sum("receipt" in result for result in results),
        sum("problem" in result for result in results),
    )
    return results, trailer


async def stored(api: Api, event: dict[str, Any]) -> dict[str, Any]:
    """Post an event under an id of its own, and read it back."""
    (receipt,) = await api.accept({"id": str(uuid.uuid4()), **event})
    return await api.event(receipt["id"])


async def refused(api: Api, body: Any, status: int, *pointers: str) -> dict[str, Any]:
    """Post what must be refused with `status`, naming exactly these places. The problem document."""
    size = (await api.client.get("/v1/chain")).json()["size"]
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await send(api, data)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    schemas.Problem.model_validate(problem)
    assert sorted(fault["pointer"] for fault in problem.get("errors", [])) == sorted(pointers)
    assert (await api.client.get("/v1/chain")).json()["size"] == size
    return problem
