"""Tenants over HTTP: made and listed by the service's own tenant alone, one log each, and nothing crosses."""

import asyncio
import secrets
from hashlib import sha256
from typing import Any

import pytest

from audit_service.api import schemas
from audit_service.core.api_key import SCOPES
from audit_service.core.chain import genesis_hash
from audit_service.errors import InvalidQueryError
from audit_service.store import credentials
from audit_service.store.credentials import DEFAULT_TENANT, SYSTEM_TENANT, check_tenant_name
from tests.support.api import Api
from tests.support.apps import add_key, dump, open_api
from tests.support.credentials import ask, places
from tests.support.identity import MAPPING, running_provider, settings_for
from tests.support.postgres import SERVICE_NAME, TestDatabase
from tests.support.serving import served

CANARY = "Canary-41728394"


@pytest.fixture(scope="module")
async def system(module_database: TestDatabase) -> str:
    """An admin key of the service's own tenant."""
    return await add_key(module_database, await log_id_of(module_database, SYSTEM_TENANT), ["admin"])


async def log_id_of(database: TestDatabase, tenant: str) -> int:
    """The log of a tenant."""
    engine = database.owner_engine()
    async with engine.connect() as connection:
        found = await credentials.find_tenant(connection, tenant)
    await engine.dispose()
    assert found is not None
    return int(found.log_id)


async def create(api: Api, key: str, name: str | None = None) -> dict[str, Any]:
    """A new tenant over HTTP."""
    response = await ask(api, "POST", "/v1/tenants", key, {"name": name or f"t-{secrets.token_hex(6)}"})
    assert (response.status_code, response.headers["cache-control"]) == (201, "no-store"), response.text
    answer: dict[str, Any] = response.json()
    schemas.NewTenantAnswer.model_validate(answer)
    return answer


async def test_a_new_tenant_has_a_log_and_a_key(module_database: TestDatabase, shared_api: Api, system: str) -> None:
    """From the first call on: post, read, verify, make a key."""
    made = await create(shared_api, system)
    assert made["origin"] == f"{SERVICE_NAME}/t/{made['log_key']}/1"
    assert (len(made["log_key"]), made["key"]["scopes"]) == (32, list(SCOPES))
    async with open_api(module_database, key=made["key"]["key"]) as theirs:
        (receipt,) = await theirs.accept({"id": "first", "action": "x"})
        assert (receipt["origin"], receipt["seq"]) == (made["origin"], 0)
        assert receipt["prev_hash"] == genesis_hash(made["origin"]).hex()
        assert [event["id"] for event in await theirs.list()] == ["first"]
        await theirs.assert_intact(1)
        assert (await ask(theirs, "POST", "/v1/keys", None, {"name": "x", "scopes": ["read"]})).status_code == 201


async def test_nothing_crosses(module_database: TestDatabase, shared_api: Api, system: str) -> None:
    """Two tenants made over HTTP, and the same ids in both."""
    made = [await create(shared_api, system) for _ in range(2)]
    assert len({one["log_key"] for one in made}) == 2
    for number, one in enumerate(made):
        async with open_api(module_database, key=one["key"]["key"]) as api:
            await api.accept({"id": "same", "action": f"t{number}.x"}, {"id": f"only-{number}", "action": "x"})
    for number, one in enumerate(made):
        async with open_api(module_database, key=one["key"]["key"]) as api:
            assert (await api.event("same"))["action"] == f"t{number}.x"
            assert sorted(event["id"] for event in await api.list()) == [f"only-{number}", "same"]
            assert (await ask(api, "GET", f"/v1/events/only-{1 - number}")).status_code == 404
            listed = (await ask(api, "GET", "/v1/keys")).json()["keys"]
            assert [key["key_id"] for key in listed] == [one["key"]["key_id"]]
            assert (await ask(api, "DELETE", f"/v1/keys/{made[1 - number]['key']['key_id']}")).status_code == 404


async def test_no_other_tenant_s_admin_makes_or_lists_tenants(
    module_database: TestDatabase, shared_api: Api, system: str
) -> None:
    """Neither of the tenant `default` nor of one that was just made; nor a key of `system` without `admin`."""
    made = await create(shared_api, system)
    reader = await add_key(module_database, await log_id_of(module_database, SYSTEM_TENANT), ["read", "viewer"])
    admin = await add_key(module_database, await log_id_of(module_database, DEFAULT_TENANT))
    for key in (admin, made["key"]["key"], reader):
        for method, body in (("GET", None), ("POST", {"name": "theirs"})):
            response = await ask(shared_api, method, "/v1/tenants", key, body)
            assert (response.status_code, response.headers["content-type"]) == (403, "application/problem+json")
            assert made["log_key"] not in response.text
    assert "theirs" not in (await ask(shared_api, "GET", "/v1/tenants", system)).text


async def test_no_jwt_and_no_key_of_a_part_makes_or_lists_tenants(module_database: TestDatabase) -> None:
    """Of the tenant `system` and with `admin`: what is made with a new tenant is a key without limits, which would outlive the token."""
    claims = {**MAPPING, "tenant": {"claim": "org", "map": {"operators": SYSTEM_TENANT}}}
    log_id = await log_id_of(module_database, SYSTEM_TENANT)
    async with (
        running_provider() as provider,
        served(module_database, **settings_for(provider, oidc_claims=claims, oidc_max_scopes="read,admin")) as service,
    ):
        token = provider.token(org="operators", roles=["root", "reader"])
        whole = await add_key(module_database, log_id, ["read", "admin"])
        limits = {"server_ids": ["s1"], "global_events": True}
        body = {"name": "part", "scopes": ["admin"], **limits}
        part = (await ask(service.api, "POST", "/v1/keys", whole, body)).json()["key"]
        for key, status in ((token, 403), (part, 403), (whole, 201)):
            made = await ask(service.api, "POST", "/v1/tenants", key, {"name": f"t-{secrets.token_hex(6)}"})
            assert (made.status_code, "key" in made.json()) == (status, status == 201)
            listed = await ask(service.api, "GET", "/v1/tenants", key)
            assert (listed.status_code, "tenants" in listed.json()) == (403 if status == 403 else 200, status == 201)


async def test_the_bootstrap_key_is_the_operator_s(shared_api: Api, system: str) -> None:
    name = f"bootstrapped-{secrets.token_hex(4)}"
    assert (await ask(shared_api, "POST", "/v1/tenants", None, {"name": name})).status_code == 201
    assert (await ask(shared_api, "GET", "/v1/tenants")).json() == (
        await ask(shared_api, "GET", "/v1/tenants", system)
    ).json()


async def test_tenants_are_listed_by_name(shared_api: Api, system: str) -> None:
    """The two from the first start among them; never a key."""
    made = await create(shared_api, system)
    response = await ask(shared_api, "GET", "/v1/tenants", system)
    schemas.TenantList.model_validate(response.json())
    names = [tenant["name"] for tenant in response.json()["tenants"]]
    assert {"default", "system", made["name"]} <= set(names)
    assert names == sorted(names)
    assert made["key"]["key"] not in response.text
    assert places(await ask(shared_api, "GET", "/v1/tenants?limit=5", system)) == ["limit"]


async def test_a_name_is_taken_once(module_database: TestDatabase, shared_api: Api, system: str) -> None:
    """409 for the second, also when all ask at once at two workers; nothing is left of those that lost."""
    name = f"raced-{secrets.token_hex(4)}"
    async with open_api(module_database) as other:
        asked = [
            ask(api, "POST", "/v1/tenants", system, {"name": name}) for api in (shared_api, other) for _ in range(6)
        ]
        responses = await asyncio.gather(*asked)
    assert sorted(response.status_code for response in responses) == [201] + [409] * 11
    for taken in ("default", SYSTEM_TENANT, name):
        response = await ask(shared_api, "POST", "/v1/tenants", system, {"name": taken})
        assert (response.status_code, name in response.text) == (409, False)
    owner = await module_database.owner()
    counted = await owner.fetchval(
        "SELECT count(*) FROM audit.log AS l LEFT JOIN audit.tenant AS t ON t.log_id = l.log_id WHERE t.name IS NULL"
    )
    await owner.close()
    assert counted == 0


BAD = ["", "A", CANARY, "a b", "-a", "a-", ".a", "a/b", "a\n", "é", "x" * 64, 5, None, ["a"], "a\0b", "\ud800"]


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_name_is_refused_with_its_place(shared_api: Api, system: str, name: Any) -> None:
    """Never with the value."""
    import json

    headers = {"Authorization": f"Bearer {system}"}
    response = await shared_api.client.post("/v1/tenants", content=json.dumps({"name": name}), headers=headers)
    assert (response.status_code, places(response), CANARY in response.text) == (422, ["/name"], False)


@pytest.mark.parametrize(("body", "pointer"), [({}, "/name"), ({"name": "a", "log_id": 5}, "/log_id"), ([], "")])
async def test_a_bad_body_is_refused_with_its_place(shared_api: Api, system: str, body: Any, pointer: str) -> None:
    """A log's identity is not for the caller to choose."""
    response = await ask(shared_api, "POST", "/v1/tenants", system, body)
    assert (response.status_code, places(response)) == (422, [pointer])


@pytest.mark.parametrize("name", ["a", "7", "a-b.c_d", "x" * 63])
def test_names_that_tenants_may_have(name: str) -> None:
    """And nothing about a path, a header or a file's name in them."""
    assert check_tenant_name(name) == name


@pytest.mark.parametrize("name", [name for name in BAD if isinstance(name, str)])
def test_the_command_line_refuses_the_same(name: str) -> None:
    """By the same rule."""
    with pytest.raises(InvalidQueryError):
        check_tenant_name(name)


async def test_a_worker_makes_tenants_through_the_function_alone(
    module_database: TestDatabase, shared_api: Api
) -> None:
    """It has no INSERT, and what the function makes is an empty log with an identity that nobody chose."""
    worker = await module_database.serving()
    for statement in (
        "INSERT INTO audit.tenant (name, log_id, log_key) VALUES ('forged', 1, 'x')",
        "INSERT INTO audit.log (log_id, service_name, log_key, last_hash) VALUES (1, 'x', 'x', 'x')",
        "UPDATE audit.tenant SET name = 'x'",
        "DELETE FROM audit.tenant",
    ):
        with pytest.raises(Exception, match="permission denied"):
            await worker.execute(statement)
    await worker.close()
    assert (await ask(shared_api, "GET", "/v1/chain")).status_code == 200


async def test_a_dump_holds_no_first_key(module_database: TestDatabase, shared_api: Api, system: str) -> None:
    """As of every key, only its hash."""
    made = await create(shared_api, system)
    dumped = dump(module_database.owner_url)
    assert sha256(made["key"]["key"].encode()).hexdigest().encode() in dumped
    assert made["key"]["key"][16:59].encode() not in dumped
