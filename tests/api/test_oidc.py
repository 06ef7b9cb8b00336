"""Bearer JWTs over real HTTP, with the keys of a real provider: who is let in, who is not, and as whom."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from audit_service.api import schemas
from audit_service.app import create_app
from audit_service.provider_keys import RETRY_SECONDS
from audit_service.settings import Settings
from tests.support.api import Api
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.credentials import create_key
from tests.support.forgeries import ELSEWHERE, FORGERIES, Forgery, accepts
from tests.support.identity import (
    AUDIENCE,
    KEYS,
    MAPPING,
    PrivateKey,
    Provider,
    b64,
    ec_key,
    ed_key,
    jwk,
    rsa_key,
    running_provider,
    settings_for,
    signed,
)
from tests.support.postgres import TestDatabase
from tests.support.serving import served

# Keys that the provider lists too, each with what is wrong with it; `spare` is the control, good but for its name.
DOUBTFUL: dict[str, tuple[PrivateKey, dict[str, Any]]] = {
    "spare": (rsa_key("spare"), {}),
    "weak": (rsa_key("weak", 1024), {}),
    "encryption": (rsa_key("spare"), {"use": "enc"}),
    "signing only": (rsa_key("spare"), {"key_ops": ["sign"]}),
    "another algorithm": (rsa_key("spare"), {"alg": "PS256"}),
    "private": (rsa_key("spare"), {"d": "AQAB"}),
    "revoked": (rsa_key("spare"), {"revoked": {"revoked_at": 1}}),
    "expired": (rsa_key("spare"), {"exp": 1_700_000_000}),
    "not yet": (rsa_key("spare"), {"nbf": 1 << 40}),
}


@pytest.fixture(scope="module")
async def provider() -> AsyncIterator[Provider]:
    """The provider of all tests here; none of them changes it."""
    async with running_provider() as running:
        running.keys += [jwk(key, name, **more) for name, (key, more) in DOUBTFUL.items()]
        running.keys += [jwk(rsa_key("spare"), "twice"), jwk(rsa_key("other"), "twice")]
        running.keys += [{"kty": "oct", "kid": "shared", "k": b64(b"shared secret of 32 characters.."), "alg": "HS256"}]
        yield running


@pytest.fixture(scope="module")
async def api(module_database: TestDatabase, provider: Provider) -> AsyncIterator[Api]:
    """A service that accepts the provider's tokens. Whatever they asked for, the log verifies in the end."""
    async with served(module_database, **settings_for(provider)) as service:
        yield service.api
        assert (await service.api.verify())["breaks"] == []


async def ask(api: Api, token: str, path: str = "/v1/chain", method: str = "GET") -> httpx.Response:
    """The call with a token for its key."""
    return await api.client.request(method, path, headers={"Authorization": f"Bearer {token}"})


async def refused(api: Api, token: str, status: int = 401) -> None:
    """Refused with a sentence that is the same for every reason, and with nothing of the token."""
    response = await ask(api, token)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    schemas.Problem.model_validate(response.json())
    details = {401: {"the token is not valid", "the API key is not valid"}, 403: {"the token grants nothing here"}}
    assert response.json()["detail"] in details[status]
    assert response.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


# --- good tokens ---


@pytest.mark.parametrize(
    ("key_id", "algorithm", "key"), [("rsa", "RS256", rsa_key()), ("ec", "ES256", ec_key()), ("ed", "EdDSA", ed_key())]
)
async def test_a_token_of_the_provider_is_a_credential(
    api: Api, provider: Provider, key_id: str, algorithm: str, key: PrivateKey
) -> None:
    """Under each algorithm, also without a `kid` where there is one key only."""
    header = provider.header(alg=algorithm, kid=key_id)
    assert (await ask(api, signed(header, provider.claims(), key, algorithm))).status_code == 200
    nameless = await ask(api, signed(provider.header(alg=algorithm, kid=...), provider.claims(), key, algorithm))
    assert nameless.status_code == (401 if algorithm == "RS256" else 200)  # of RSA keys there are several


ACCESS_TYPES = ["at+jwt", "AT+JWT", "application/at+jwt"]
OTHER_TYPES: list[Any] = [
    ..., "", "JWT", "jwt", "id_token", "logout+jwt", "dpop+jwt", "at+jwt+x", "application/application/at+jwt", "at+jwt ", None, 5,
    ["at+jwt"],
]  # fmt: skip


@pytest.mark.parametrize(("type_", "status"), [*((t, 200) for t in ACCESS_TYPES), *((t, 401) for t in OTHER_TYPES)])
async def test_only_an_access_token_is_accepted(api: Api, provider: Provider, type_: Any, status: int) -> None:
    """By its type: an ID token has the same issuer and the same keys."""
    assert (await ask(api, signed(provider.header(typ=type_), provider.claims(), rsa_key()))).status_code == status


UNTYPED: list[tuple[Any, dict[str, Any], int]] = [
    ("JWT", {}, 200), (..., {}, 200), ("at+jwt", {}, 200), ("logout+jwt", {}, 401), ("JWT", {"typ": "Bearer"}, 200), ("JWT",
    {"typ": "ID"}, 401),
    ("JWT", {"nonce": "x"}, 401),
    ("JWT", {"typ": "Refresh"}, 401), ("JWT", {"at_hash": "x"}, 401), ("JWT", {"events": {}}, 401), ("JWT", {"cnf": {"jkt": "x"}}, 401),
]  # fmt: skip


async def test_untyped_tokens_are_accepted_by_configuration(module_database: TestDatabase, provider: Provider) -> None:
    """And even then no ID token, no refresh token and none that is bound to its client's key."""
    async with open_api(module_database, **settings_for(provider, oidc_token_types=("at+jwt", "JWT"))) as lenient:
        for type_, more, status in UNTYPED:
            token = signed(provider.header(typ=type_), provider.claims(**more), rsa_key())
            assert (await ask(lenient, token)).status_code == status, (type_, more)


# --- forged tokens ---


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)
async def test_a_forgery_is_refused(api: Api, provider: Provider, forgery: Forgery) -> None:
    """Control: a verifier with the mistake that it counts on lets it in, and without any does not."""
    token = forgery.make(provider)
    assert (accepts(token, provider, forgery.mistake), accepts(token, provider)) == (True, False)
    await refused(api, token)


async def test_the_provider_s_keys_alone_are_asked_for(api: Api, provider: Provider) -> None:
    """Whatever URL a token names."""
    before = provider.asked[KEYS]
    for forgery in FORGERIES:
        if forgery.mistake == "linked keys":
            await refused(api, forgery.make(provider))
    assert provider.asked[ELSEWHERE] == 0
    assert provider.asked[KEYS] <= before + 1


async def test_made_up_names_of_keys_cost_the_provider_nothing(api: Api, provider: Provider) -> None:
    """200 of them are one question at most."""
    before, began = provider.asked[KEYS], time.monotonic()
    tokens = [signed(provider.header(kid=f"made-up-{n}"), provider.claims(), rsa_key("attacker")) for n in range(200)]
    for token in tokens:
        await refused(api, token)
    assert provider.asked[KEYS] - before <= 1 + (time.monotonic() - began) / RETRY_SECONDS


@pytest.mark.parametrize("name", DOUBTFUL)
async def test_a_key_in_doubt_signs_nothing(api: Api, provider: Provider, name: str) -> None:
    """Its signature is right; only the control's counts."""
    token = signed(provider.header(kid=name), provider.claims(), DOUBTFUL[name][0])
    if name == "spare":
        assert (await ask(api, token)).status_code == 200
    else:
        await refused(api, token)


async def test_keys_that_share_a_name_or_a_secret_sign_nothing(api: Api, provider: Provider) -> None:
    """Two of one name are no key; a listed shared secret makes no HS256."""
    for key in (rsa_key("spare"), rsa_key("other")):
        await refused(api, signed(provider.header(kid="twice"), provider.claims(), key))
    secret = b"shared secret of 32 characters.."
    await refused(api, signed(provider.header(kid="shared", alg="HS256"), provider.claims(), secret))


async def test_a_token_over_the_limit_is_refused(api: Api, provider: Provider) -> None:
    """Though it is signed; beyond the limit on headers the server itself refuses."""
    assert (await ask(api, provider.token(more="x" * 5000))).status_code == 200
    await refused(api, provider.token(more="x" * 6000))
    assert (await ask(api, provider.token(more="x" * 20_000))).status_code == 431


async def test_encrypted_and_unfinished_tokens_are_refused(api: Api, provider: Provider) -> None:
    """Five parts, two, a nested token, the JSON form."""
    token = provider.token()
    header, payload, signature = token.split(".")
    nested = signed(provider.header(cty="JWT"), token.encode(), rsa_key())
    as_json = json.dumps({"protected": header, "payload": payload, "signature": signature})
    for text in (
        f"{header}.{payload}",
        f"{token}.{payload}.{signature}",
        token + ".",
        nested,
        as_json,
        b64(token.encode()),
    ):
        await refused(api, text)


# --- claims; each of them in tests/core/test_claims.py ---


BAD_CLAIMS: list[dict[str, Any]] = [
    {"exp": 1_700_000_000}, {"exp": ...}, {"exp": "4102444800"}, {"exp": 4_102_444_800}, {"nbf": 4_102_444_800}, {"iat": "now"},
    {"aud": "other"}, {"aud": ...}, {"aud": [AUDIENCE + "/"]}, {"aud": AUDIENCE[:-1]}, {"iss": ...}, {"iss": "https://id.example.com"},
    {"sub": ...}, {"sub": ""}, {"at_hash": "x"},
]  # fmt: skip


@pytest.mark.parametrize("changed", BAD_CLAIMS, ids=repr)
async def test_a_token_with_a_bad_claim_is_refused(api: Api, provider: Provider, changed: dict[str, Any]) -> None:
    """Its signature is right."""
    await refused(api, provider.token(**changed))


async def test_the_issuer_is_compared_to_the_letter(api: Api, provider: Provider) -> None:
    """No slash, no case, no other name of the same host."""
    for issuer in (
        provider.issuer + "/",
        provider.issuer.upper(),
        provider.issuer.replace("127.0.0.1", "localhost"),
        provider.issuer + "#",
    ):
        await refused(api, provider.token(iss=issuer))


UNGRANTED: list[dict[str, Any]] = [
    {"roles": ...}, {"roles": []}, {"roles": ["stranger"]}, {"roles": ["admin"]}, {"roles": ["root"]}, {"roles": 5}, {"roles": None},
    {"org": "nobody"}, {"org": None}, {"org": ["default"]}, {"org": ""}, {"org": "a\0b"}, {"org": "x" * 300}, {"org": "default' OR '1'='1"},
]  # fmt: skip


@pytest.mark.parametrize("changed", UNGRANTED, ids=lambda changed: repr(changed)[:40])
async def test_claims_that_are_mapped_to_nothing_grant_nothing(
    api: Api, provider: Provider, changed: dict[str, Any]
) -> None:
    """403: we know who it is. A tenant that does not exist is not told from a role that means nothing."""
    await refused(api, provider.token(**changed), 403)


async def test_scopes_open_their_calls_alone(api: Api, provider: Provider) -> None:
    """And `admin`, which the map grants, stays beyond the ceiling."""
    reader, auditor = provider.token(roles=["reader", "root"]), provider.token()
    for path, scope, of_reader in (
        ("/v1/events", "read", 200),
        ("/v1/chain", "verify", 403),
        ("/v1/export?format=csv", "export", 403),
        ("/v1/keys", "admin", 403),
    ):
        response = await ask(api, reader, path)
        assert response.status_code == of_reader, path
        assert of_reader == 200 or scope in response.json()["detail"]
        assert (await ask(api, auditor, path)).status_code == (403 if scope == "admin" else 200)
    posted = await api.client.post("/v1/events", json={"action": "x"}, headers={"Authorization": f"Bearer {auditor}"})
    assert posted.status_code == 403


async def test_a_token_sees_its_own_tenant_s_log_alone(
    api: Api, module_database: TestDatabase, provider: Provider
) -> None:
    """Named by its claim, never by the request."""
    name = f"tenant-{time.monotonic_ns()}"
    key = await add_key(module_database, await add_tenant(module_database, name))
    posted = await api.client.post(
        "/v1/events", json={"id": name, "action": "x"}, headers={"Authorization": f"Bearer {key}"}
    )
    assert posted.status_code == 201
    assert (await ask(api, provider.token(org=name), f"/v1/events/{name}")).status_code == 200
    for ours in (provider.token(), provider.token(org="default")):
        assert (await ask(api, ours, f"/v1/events/{name}?tenant={name}")).status_code in (400, 404)
        assert (await ask(api, ours, f"/v1/events/{name}")).status_code == 404


async def test_a_token_limited_to_servers_sees_those_and_global_events(
    module_database: TestDatabase, provider: Provider
) -> None:
    """Limited to none, it sees global ones alone. A limit that cannot be read, or is not there, grants nothing."""
    mapping = MAPPING | {"servers": {"claim": "servers", "all": "*"}}
    async with open_api(module_database, **settings_for(provider, oidc_claims=mapping)) as limited:
        servers_of = {"t-s1": "t1", "t-s2": "t2", "t-global": None}
        await limited.accept(*({"id": name, "action": "x", "server_id": server} for name, server in servers_of.items()))

        async def seen(servers: Any) -> set[str]:
            response = await ask(limited, provider.token(servers=servers), "/v1/events?limit=500")
            assert response.status_code == 200, response.text
            return {event["id"] for event in response.json()["events"]} & servers_of.keys()

        assert await seen(["t1"]) == {"t-s1", "t-global"}
        assert await seen(["t1", "t2"]) == await seen(["*"]) == servers_of.keys()
        assert await seen([]) == {"t-global"}
        for unread in ("*", ...):
            assert (await ask(limited, provider.token(servers=unread), "/v1/events")).status_code == 403
        one = provider.token(servers=["t1"])
        for path, status in (
            ("/v1/events/t-s1", 200), ("/v1/events/t-s2", 404), ("/v1/servers/t1/activity", 200), ("/v1/servers/t2/activity", 404),
            ("/v1/export?format=csv", 200), ("/v1/chain", 403), ("/v1/evidence", 403),
        ):  # fmt: skip
            assert (await ask(limited, one, path)).status_code == status, path
        assert (await ask(limited, provider.token(servers=["*"]), "/v1/chain")).status_code == 200


# --- time ---


async def test_a_token_is_refused_within_a_second_of_its_end(module_database: TestDatabase, provider: Provider) -> None:
    """However often it was used before: what is remembered of it does not outlast it."""
    async with open_api(module_database, **settings_for(provider, oidc_leeway_seconds=0)) as strict:
        token = provider.token(exp=int(time.time()) + 2)
        ends_at = int(time.time()) + 2
        while (await ask(strict, token)).status_code == 200:
            assert time.time() < ends_at + 1
            await asyncio.sleep(0.02)
        assert time.time() >= ends_at - 0.01


async def test_many_tokens_at_once_are_each_their_own(api: Api, provider: Provider) -> None:
    """What is remembered of one is never another's."""
    tokens = [
        (provider.token(sub=f"u{n}", roles=[role]), status)
        for n in range(40)
        for role, status in (("auditor", 200), ("reader", 403))
    ]
    responses = await asyncio.gather(*(ask(api, token) for token, _ in tokens * 2))
    assert [response.status_code for response in responses] == [status for _, status in tokens * 2]


# --- beside API keys ---


async def test_api_keys_are_as_good_as_before(api: Api, provider: Provider) -> None:
    """A token is no API key either: not where other protocols carry one."""
    assert (await api.client.get("/v1/keys")).status_code == 200
    for scheme in ("Basic", "Splunk", "ApiKey", "DPoP"):
        headers = {"Authorization": f"{scheme} {provider.token()}"}
        assert (await api.client.get("/v1/chain", headers=headers)).status_code == 401
    for path in ("/v1/logs", "/services/collector/event", "/_bulk"):
        assert (await ask(api, provider.token(), path, "POST")).status_code == 401


async def test_an_admin_s_token_makes_no_key(module_database: TestDatabase, provider: Provider) -> None:
    """A key would outlive the token, which cannot be revoked. Listing and revoking are as good as with a key, and a key makes keys."""
    settings = settings_for(provider, oidc_max_scopes="read,admin")
    wanted = {"name": "lasting", "scopes": ["read"]}
    async with served(module_database, **settings) as service:
        client = service.api.client
        admin = {"Authorization": f"Bearer {provider.token(roles=['root', 'reader'])}"}
        refused_ = await client.post("/v1/keys", json=wanted, headers=admin)
        assert (refused_.status_code, refused_.json()["detail"]) == (403, "keys are made by API keys only")
        listed = (await client.get("/v1/keys", headers=admin)).json()["keys"]
        assert "lasting" not in {key["name"] for key in listed}
        made = await client.post("/v1/keys", json=wanted)
        assert made.status_code == 201
        assert (await client.delete(f"/v1/keys/{made.json()['key_id']}", headers=admin)).status_code == 204


async def test_without_an_issuer_no_token_is_accepted(module_database: TestDatabase, provider: Provider) -> None:
    """It is a key that does not exist."""
    async with open_api(module_database) as plain:
        await refused(plain, provider.token())


async def test_while_the_provider_does_not_answer_tokens_are_told_to_come_again(
    module_database: TestDatabase, provider: Provider
) -> None:
    """503, never 401: the token may be good. API keys need no provider."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        issuer = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with open_api(module_database, **settings_for(provider, oidc_issuer=issuer)) as api:
            response = await ask(api, provider.token(iss=issuer))
            assert (response.status_code, response.headers["retry-after"]) == (503, str(RETRY_SECONDS))
            schemas.Problem.model_validate(response.json())
            assert (await api.client.get("/v1/chain")).status_code == 200


# --- settings ---


WRONG_SETTINGS: dict[str, list[Any]] = {
    "issuer": [
        "http://id.example.com", "id.example.com", "ftp://id.example.com", "https://", "https:///x", "https://user:pass@id.example.com",
        "https://id.example.com?x=1", "https://id.example.com#x", " https://id.example.com", "https://id.example.com\n", "http://10.0.0.1",
        "http://localhost.example.com", "http://127.0.0.1@id.example.com",
    ],
    "jwks_url": ["http://id.example.com/keys", "/keys", "file:///keys", "https://a@b/keys", "https://id.example.com/keys#x"],
    "audience": [None, ""],
    "algorithms": ["", "none", "None", "RS256,none", "HS256", "RS256,HS512", "rs256", "ES256K", "RS1", "*"],
    "token_types": [""],
    "claims": [{}, {"tenant": {"default": "x"}}],
    "max_scopes": ["", "all"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG_SETTINGS.items() for value in values]
)
def test_half_a_configuration_stops_the_start(name: str, value: Any) -> None:
    """Naming the setting."""
    good: dict[str, Any] = {"oidc_issuer": "https://id.example.com", "oidc_audience": AUDIENCE, "oidc_claims": MAPPING}
    create_app(Settings(database_url=SecretStr("postgresql://unused"), **good))
    with pytest.raises(ValueError, match=f"AUDIT_OIDC_{name.upper()}"):
        create_app(Settings(database_url=SecretStr("postgresql://unused"), **good | {f"oidc_{name}": value}))


async def test_a_token_of_some_servers_sees_no_notes_about_everybody(
    module_database: TestDatabase, provider: Provider
) -> None:
    """As an admin key of some servers: notes speak of all. One for all servers sees them, as such a key does."""
    claims = {**MAPPING, "servers": {"claim": "servers", "all": "*"}}
    settings = settings_for(provider, oidc_claims=claims, oidc_max_scopes="read,admin")
    async with open_api(module_database, **settings) as api:
        await create_key(api, ["read"])  # is noted
        some = (await create_key(api, ["read", "admin"], server_ids=["s1"], global_events=True))["key"]
        every = (await create_key(api, ["read", "admin"]))["key"]
        for key, servers, sees in ((some, ["s1"], False), (every, ["*"], True)):
            token = provider.token(roles=["root", "reader"], servers=servers)
            found = [(await ask(api, one, "/v1/events?action=audit.*")).json()["events"] for one in (key, token)]
            assert [bool(events) for events in found] == [sees, sees]
