"""Asking with other credentials than the app's own: keys and tokens made over HTTP, and what is refused of them."""

from typing import Any

import httpx

from audit_service.api import schemas
from tests.support.api import Api

# The one public entry of every refusal.
FAULT = ("pointer", "parameter")


async def create_key(api: Api, scopes: list[str], **members: Any) -> dict[str, Any]:
    """A new key over HTTP, made with the app's own."""
    response = await api.client.post("/v1/keys", json={"name": "test", "scopes": scopes, **members})
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    schemas.NewKeyAnswer.model_validate(answer)
    return answer


async def issue_token(api: Api, key: str | None = None, **members: Any) -> dict[str, Any]:
    """A new viewer token over HTTP, issued by `key` (default: the app's own)."""
    response = await ask(api, "POST", "/v1/viewer-tokens", key, {"server_ids": "all", **members})
    assert response.status_code == 201, response.text
    assert response.headers["cache-control"] == "no-store"
    answer: dict[str, Any] = response.json()
    schemas.NewTokenAnswer.model_validate(answer)
    return answer


async def ask(
    api: Api, method: str, path: str, key: str | None = None, body: Any = None, **options: Any
) -> httpx.Response:
    """A call under `key` (default: the app's own)."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    content = {} if body is None else {"json": body}
    return await api.client.request(method, path, headers=headers | options.pop("headers", {}), **content, **options)


def places(response: httpx.Response) -> list[str]:
    """The pointers and parameters that a problem names."""
    body = response.json()
    schemas.Problem.model_validate(body)
    return [next(fault[name] for name in FAULT if name in fault) for fault in body.get("errors", [])]
