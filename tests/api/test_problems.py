"""Every way to fail answers with a problem document that tells the place and the rule, and never a value."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from audit_service import errors
from audit_service.api import problems, schemas
from audit_service.api.middleware import AccessLog
from audit_service.app import create_app
from audit_service.settings import Settings
from tests.support.api import Api

CANARY = "hunter2-canary-value"
JSON_TYPE = {"Content-Type": "application/json"}


def checked(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document, which is well-formed, fits the status, and does not repeat what was sent."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert CANARY not in response.text
    assert CANARY not in str(response.headers)
    document: dict[str, Any] = response.json()
    schemas.Problem.model_validate(document)
    assert document["status"] == status
    return document


REQUESTS: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", f"/v1/{CANARY}", {}, 404),
    ("GET", f"/{CANARY}", {}, 404),
    ("GET", f"/v1/events/{CANARY}", {}, 404),
    ("GET", f"/v1/servers/{CANARY}", {}, 404),
    ("GET", "/v1/events/", {}, 404),
    ("DELETE", f"/v1/events/{CANARY}", {}, 405),
    ("PUT", "/v1/events", {"content": CANARY}, 405),
    ("PATCH", "/healthz", {}, 405),
    ("DELETE", f"/v1/keys/{CANARY}", {}, 404),
    ("GET", f"/v1/events?actor.no={CANARY}", {}, 400),
    ("GET", f"/v1/events?cursor={CANARY}", {}, 400),
    ("GET", f"/v1/events?ip={CANARY}", {}, 400),
    ("GET", f"/v1/export?format={CANARY}", {}, 400),
    ("GET", f"/v1/chain/verify?from_seq={CANARY}", {}, 400),
    ("GET", "/v1/events", {"headers": {"Authorization": f"Bearer {CANARY}"}}, 401),
    ("GET", "/v1/events", {"headers": {"Authorization": f"{CANARY} x"}}, 401),
    ("POST", "/v1/events", {"content": f'{{"action": {CANARY}}}', "headers": JSON_TYPE}, 400),
    ("POST", "/v1/events", {"content": f'{{"{CANARY}":1,"{CANARY}":2}}', "headers": JSON_TYPE}, 400),
    ("POST", "/v1/events", {"content": CANARY, "headers": {"Content-Type": f"text/{CANARY}"}}, 415),
    ("POST", "/v1/events", {"content": "{}", "headers": JSON_TYPE | {"Content-Encoding": CANARY}}, 415),
    ("POST", "/v1/events", {"json": {"action": CANARY + " "}}, 422),
    ("POST", "/v1/events", {"json": {"action": "x", "verb": CANARY, "outcome": CANARY, "partial": CANARY}}, 422),
    ("POST", "/v1/events", {"json": {"action": "x", "occurred_at": CANARY, "context": {"ip": CANARY}}}, 422),
    ("POST", "/v1/events", {"json": {"action": "x", "actor": CANARY, "before": CANARY, "related": CANARY}}, 422),
    ("POST", "/v1/events", {"json": {"action": "x", "reason": CANARY * 1000}}, 422),
    ("POST", "/v1/events", {"json": {"action": "x", "changes": [{"path": CANARY, "new": CANARY}]}}, 422),
    ("POST", "/v1/events", {"json": {"events": CANARY}}, 422),
    ("POST", "/v1/events", {"json": {"action": "x"}, "headers": {"Idempotency-Key": CANARY * 20}}, 422),
    ("POST", "/v1/keys", {"json": {"name": "x", "scopes": [CANARY]}}, 422),
    ("POST", "/v1/keys", {"json": {"name": CANARY * 20, "scopes": ["read"], "expires_at": CANARY}}, 422),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "rest", "status"), REQUESTS)
async def test_every_failure_is_a_problem_document_without_the_value(
    shared_api: Api, method: str, path: str, rest: dict[str, Any], status: int
) -> None:
    response = await shared_api.client.request(method, path, **rest)
    document = checked(response, status)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert document["type"] == "about:blank" or document["type"].startswith("urn:audit-service:problem:")


async def test_a_conflict_says_so_without_the_id(shared_api: Api) -> None:
    used = f"used-{CANARY}"
    await shared_api.accept({"id": used, "action": "x"})
    document = checked(await shared_api.post({"id": used, "action": "y"}), 409)
    assert document["type"] == "urn:audit-service:problem:idempotency-conflict"


async def test_a_method_that_is_not_allowed_names_those_that_are(shared_api: Api) -> None:
    response = await shared_api.client.put("/v1/events")
    assert set(response.headers["allow"].replace(" ", "").split(",")) & {"GET", "POST"}


SECRET = "gh" + "p_" + "aB3dE6gH9" * 4


@pytest.mark.parametrize(
    "body",
    [
        {"action": "x", SECRET: 1},
        {"action": "x", "metadata": {SECRET: "\0"}},
        {"action": "x", "metadata": {"deep": {f"see https://ana:{SECRET}@host/path": "\0"}}},
        {"action": "x", "after": {"a" * 40 + " " + SECRET: 2**70}},
        {"action": "x", "before": {"password": {SECRET[4:20]: 2**70}}},
        {"action": "x", "after": {"p" * 50 + SECRET: "\0"}},
        {"action": "x", "actor": {SECRET: 1}},
        {"events": [], SECRET: 1},
    ],
)
async def test_a_name_that_is_a_secret_is_not_repeated_either(shared_api: Api, body: dict[str, Any]) -> None:
    for content, media_type in ((body, "application/json"), (body, "application/x-ndjson")):
        response = await shared_api.client.post(
            "/v1/events", content=json.dumps(content), headers={"Content-Type": media_type}
        )
        assert response.status_code == (422 if media_type == "application/json" else 200)
        assert '"pointer":"' in response.text
        for part in (SECRET[4:16], SECRET[-12:]):
            assert part not in response.text


async def test_the_name_above_a_lone_surrogate_is_not_repeated_when_it_is_a_secret(shared_api: Api) -> None:
    body = f'{{"action":"x","metadata":{{"{SECRET}":"\\ud800"}}}}'
    for media_type in ("application/json", "application/x-ndjson"):
        response = await shared_api.client.post("/v1/events", content=body, headers={"Content-Type": media_type})
        assert SECRET[4:16] not in response.text
        assert "lone surrogate" in response.text


async def test_an_unknown_member_of_a_key_is_not_repeated_when_it_is_a_secret(shared_api: Api) -> None:
    response = await shared_api.client.post("/v1/keys", json={"name": "x", "scopes": ["read"], SECRET: 1})
    checked(response, 422)
    assert SECRET[4:16] not in response.text


async def test_a_harmless_name_is_shown(shared_api: Api) -> None:
    response = await shared_api.post({"action": "x", "metadata": {"colour": {"a/b~c": "\0"}}})
    assert response.json()["errors"][0]["pointer"] == "/metadata/colour/a~1b~0c"


# --- unexpected errors ---


def test_only_what_is_the_service_s_own_fault_is_a_500() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AuditError)]
    statuses = {kind.__name__.removesuffix("Error"): problems.problem(_made(kind))["status"] for kind in kinds}
    assert statuses == {
        "Malformed": 400, "InvalidQuery": 400, "InvalidEvent": 422, "TooLarge": 413, "UnsupportedMedia": 415, "IdempotencyConflict": 409,
        "Unauthenticated": 401, "Forbidden": 403, "NotFound": 404, "Unavailable": 503, "Clock": 503,
        "InvalidToken": 401, "UngrantedToken": 403, "HiddenField": 403, "Provider": 503, "NotSigned": 409, "MovedOn": 503, "Gone": 410,
        "RateLimited": 429, "Conflict": 409, "BeyondLimits": 403,
        **dict.fromkeys(("Audit", "Input", "Credential", "Canonical", "Integrity", "Proof", "ChainBroken", "Held"), 500),
        **dict.fromkeys(("TreeDamaged", "SigningRefused"), 500),
        **dict.fromkeys(("MalformedNote", "TrustInput", "Signature", "InvalidSignature", "UnknownSigner", "Quorum"), 500),
    }  # fmt: skip


def _made(kind: type[errors.AuditError]) -> errors.AuditError:
    """An error of this kind, whatever it is made of."""
    error = kind.__new__(kind)
    error.__dict__.update(detail="x", faults=(), policy="requests")
    return error


@pytest.fixture
async def broken(app_settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The app with one more route, which fails as nobody planned."""
    app: FastAPI = create_app(app_settings)

    @app.get("/broken/{name}")
    async def fail(name: str) -> None:
        raise RuntimeError(f"secret {name}")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://audit.test") as client:
        yield client
    await app.state.service.database.dispose()


async def test_an_unexpected_error_tells_the_caller_nothing(
    broken: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    response = await broken.get(f"/broken/{CANARY}?q={CANARY}")
    document = checked(response, 500)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "RuntimeError" not in response.text
    assert "Traceback" not in response.text
    assert document["detail"] == "an unexpected error; see the log"
    logged = "".join(capsys.readouterr())
    assert CANARY not in logged


async def test_what_passes_the_access_log_without_being_http_is_left_alone() -> None:
    passed = []

    async def inner(scope: Any, _receive: Any, _send: Any) -> None:
        passed.append(scope["type"])

    await AccessLog(inner)({"type": "lifespan"}, None, None)
    assert passed == ["lifespan"]
