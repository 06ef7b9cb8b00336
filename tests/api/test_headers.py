"""What every answer says to browsers and caches, whatever it is an answer to."""

import base64
import re
from hashlib import sha256

import httpx
import pytest

from tests.support.api import Api
from tests.support.apps import open_api
from tests.support.postgres import TestDatabase
from tests.support.raw_http import ask, request, serving

METRICS_KEY = "metrics-" + "m" * 32
CLOSED = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
REQUESTS = [
    ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/nothing"),
    ("GET", "/"), ("POST", "/v1/events"), ("GET", "/v1/events"), ("GET", "/v1/events/x"), ("GET", "/v1/export"), ("GET", "/v1/facets"),
    ("GET", "/v1/evidence"), ("GET", "/v1/chain"), ("GET", "/v1/chain/verify"), ("GET", "/v1/keys"), ("DELETE", "/v1/keys/x"),
    ("PUT", "/v1/events"), ("OPTIONS", "/v1/events"), ("TRACE", "/v1/events"), ("POST", "/services/collector/event"),
]  # fmt: skip


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("method", "path"), REQUESTS)
async def test_every_answer_carries_the_safe_headers(shared_api: Api, method: str, path: str, known: bool) -> None:
    headers = {} if known else {"Authorization": "Bearer nobody"}
    answer = await shared_api.client.request(method, path, headers=headers)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    if path != "/docs":
        assert answer.headers["content-security-policy"] == CLOSED
    assert len(answer.headers.get_list("content-security-policy")) == 1
    assert "strict-transport-security" not in answer.headers
    assert not {"server", "x-powered-by", "set-cookie", "access-control-allow-origin"} & set(answer.headers)
    if answer.content:
        assert re.fullmatch(
            r"application/(json|problem\+json|x-ndjson)|text/(html|plain)(;.*)?; charset=utf-8(;.*)?",
            answer.headers["content-type"],
        )


async def test_nothing_but_our_own_headers_goes_over_the_wire(shared_api: Api) -> None:
    async with serving(shared_api.client._transport.app) as port:  # type: ignore[attr-defined]  # httpx's ASGI transport
        answer = await ask(port, request("GET", "/healthz"))
    assert answer is not None
    assert "server" not in answer.headers


async def test_answers_that_never_change_may_be_kept_by_a_private_cache(shared_api: Api) -> None:
    answer = await shared_api.client.get("/v1/chain/checkpoints")
    assert answer.headers.get_list("cache-control") == ["private, max-age=2"]


async def test_the_policy_of_the_documentation_lets_its_own_script_run_and_no_other(shared_api: Api) -> None:
    page = await shared_api.client.get("/docs")
    policy = page.headers["content-security-policy"]
    scripts = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    assert len(scripts) == 1
    assert f"'sha256-{base64.b64encode(sha256(scripts[0].encode()).digest()).decode()}'" in policy
    sources = re.findall(r'(?:src|href)="(https:[^"]+)"', page.text)
    assert len(sources) == 2
    assert all(source in policy for source in sources)
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    assert policy.startswith("default-src 'none'; ")


async def test_metrics_can_ask_for_a_key(module_database: TestDatabase) -> None:
    async with open_api(module_database, metrics_key=METRICS_KEY) as api:

        async def ask_with(authorization: str | None) -> httpx.Response:
            headers = {} if authorization is None else {b"Authorization": authorization.encode("latin-1")}
            api.client.headers.pop("authorization", None)
            return await api.client.get("/metrics", headers=headers)

        good = await ask_with(f"Bearer {METRICS_KEY}")
        assert good.status_code == 200
        assert METRICS_KEY not in good.text
        for wrong in (None, "Bearer x", METRICS_KEY, f"Bearer {METRICS_KEY}x", "Bearer \xff"):
            refused = await ask_with(wrong)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
