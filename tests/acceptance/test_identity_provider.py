"""The whole service with an identity provider: from the environment through the supervisor to a worker; refused when half configured."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.forgeries import FORGERIES
from tests.support.identity import AUDIENCE, MAPPING, Provider, running_provider
from tests.support.processes import start_service


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A provider on this host."""
    async with running_provider() as running:
        yield running


async def test_a_served_worker_accepts_the_provider_s_tokens(provider: Provider, tmp_path: Path) -> None:
    """And no forgery; and writes nothing of either to its log, but why it refused."""
    environment: dict[str, Any] = {
        "AUDIT_OIDC_ISSUER": provider.issuer,
        "AUDIT_OIDC_AUDIENCE": AUDIENCE,
        "AUDIT_OIDC_CLAIMS": json.dumps(MAPPING | {"servers": {"claim": "servers", "all": "*"}}),
        "AUDIT_OIDC_ALGORITHMS": "RS256, EdDSA",
        "AUDIT_LOG_LEVEL": "debug",
    }
    good = provider.token(roles=["reader"], servers=["*"])
    limited = provider.token(roles=["reader"], servers=["s1"])
    with start_service(tmp_path / "var", **environment) as service:
        async with httpx.AsyncClient(base_url=service.url, trust_env=False) as client:

            async def status(token: str, path: str = "/v1/events") -> int:
                response = await client.get(path, headers={"Authorization": f"Bearer {token}"})
                return response.status_code

            assert await status(good) == 200
            for server, found in (("s1", 200), ("s2", 404)):
                assert await status(limited, f"/v1/servers/{server}/activity") == found
                assert await status(good, f"/v1/servers/{server}/activity") == 200
            forged = [forgery.make(provider) for forgery in FORGERIES]
            assert {await status(token) for token in forged} == {401}
            assert await status(provider.token(roles=[], servers=["*"])) == 403
        assert service.stop() == 0
        service.wait_until_read()
        lines = "\n".join(service.lines)
    assert "signed with an algorithm that is not accepted" in lines
    assert '"key": "jwt:' in lines
    for part in {part for token in (good, limited, *forged) for part in token.split(".") if len(part) > 8}:
        assert part not in lines


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"AUDIT_OIDC_ISSUER": "http://id.example.com"}, "AUDIT_OIDC_ISSUER"),
        ({"AUDIT_OIDC_AUDIENCE": ""}, "AUDIT_OIDC_AUDIENCE"),
        ({"AUDIT_OIDC_ALGORITHMS": "RS256,none"}, "AUDIT_OIDC_ALGORITHMS"),
        ({"AUDIT_OIDC_CLAIMS": '{"tenant":{"default":"x"},"scopes":{"claim":"r","map":{"a":["all"]}}}'}, "AUDIT_OIDC_CLAIMS"),
    ],
)  # fmt: skip
def test_half_a_configuration_is_refused_before_anything_is_made(
    more: dict[str, str], named: str, tmp_path: Path
) -> None:
    """In one line that names the setting."""
    good: dict[str, Any] = {
        "AUDIT_OIDC_ISSUER": "https://id.example.com",
        "AUDIT_OIDC_AUDIENCE": AUDIENCE,
        "AUDIT_OIDC_CLAIMS": json.dumps(MAPPING),
    }
    with start_service(tmp_path / "var", wait=False, **good | more) as service:
        assert service.process.wait(20) == 2
        service.wait_until_read()
        (line,) = service.lines
        assert named in line
    assert not (tmp_path / "var").exists()
