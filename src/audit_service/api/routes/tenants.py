"""Tenants over HTTP, for whoever runs the service: the admin of one tenant must not learn of another."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, ConfigDict

from audit_service.api import listing, parameters, schemas
from audit_service.api.body import read_body
from audit_service.api.dependencies import Admin, ServiceOf, documented_security, require_whole
from audit_service.api.new_credentials import BODY_LIMIT_BYTES, parse_body
from audit_service.api.noting import note
from audit_service.api.routes.keys import require_api_key
from audit_service.core.api_key import SCOPES
from audit_service.core.canonical import JSONValue
from audit_service.core.chain import format_origin
from audit_service.core.entry import format_time
from audit_service.core.own_event import Target
from audit_service.core.redaction import holds_token
from audit_service.errors import Fault, ForbiddenError, InputError, InvalidEventError
from audit_service.ingest import without_secrets
from audit_service.store import credentials
from audit_service.store.credentials import (
    SYSTEM_TENANT,
    TENANT_NAME,
    TENANT_NAME_RULE,
    Credential,
    TenantRecord,
    is_bootstrap,
)
from audit_service.store.engine import connected
from audit_service.store.failures import translated

router = APIRouter(tags=["tenants"], dependencies=documented_security)
FIRST_KEY_NAME = "first admin"


def _is_tenant_name(value: str) -> str:
    if not TENANT_NAME.fullmatch(value):
        raise ValueError(TENANT_NAME_RULE)
    return value


class NewTenant(BaseModel):
    """A tenant to be: it gets a log of its own."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "example-hosting"}]})
    name: Annotated[str, AfterValidator(_is_tenant_name)]


@router.post(
    "/v1/tenants",
    status_code=201,
    openapi_extra=schemas.TENANT_BODY,
    responses=schemas.TENANT_RESPONSES,
    response_model=None,
)
async def create_tenant(request: Request, service: ServiceOf, credential: Admin) -> Response:
    """Create a tenant with an empty log and a first key with every scope, which the answer alone ever shows. For the bootstrap key,
    and admin keys of the tenant `system` that see all of its log."""
    _require_operator(credential)
    data = await read_body(request, BODY_LIMIT_BYTES)
    installation, rules = await service.installation(), (await service.recipe()).rules
    try:
        name = parse_body(data, NewTenant, "the tenant").name
        if holds_token(name, rules):
            raise InvalidEventError("the tenant breaks its schema", [Fault("must not hold a secret", "/name")])
    except InputError as error:
        raise without_secrets(error, rules) from None
    async with translated(), connected(service.database.writes) as connection:
        record = await credentials.create_tenant(connection, name)
        key_id, key = await credentials.create_key(connection, record.log_id, FIRST_KEY_NAME, SCOPES)
        await connection.commit()
    body = created_view(record, installation.service_name, key_id, key)
    # Before anybody is told the key: an act that cannot be noted is not answered.
    await note(request, credential, "audit.tenant.created", target=Target("tenant", name), metadata=about_created(body))
    return listing.answer(body, status=201)


@router.get("/v1/tenants", responses=schemas.TENANTS_RESPONSES, response_model=None)
async def list_tenants(request: Request, service: ServiceOf, credential: Admin) -> Response:
    """Every tenant, by name. For the bootstrap key, and admin keys of the tenant `system` that see all of its log."""
    _require_operator(credential)
    parameters.Query(request.query_params.multi_items(), ()).finish()
    async with translated(), connected(service.database.reads) as connection:
        records = await credentials.list_tenants(connection)
    return listing.answer({"tenants": [tenant_view(record) for record in records]})


def _require_operator(credential: Credential) -> None:
    """Raises ForbiddenError for whoever does not run the service: its settings name the bootstrap key, and the first key of the tenant
    `system` is made by its command line. A new tenant's key has no limits and no end: not for a JWT, nor for a key that sees a part."""
    require_api_key(credential, "tenants are managed by API keys only")
    require_whole(credential)
    if credential.tenant != SYSTEM_TENANT and not is_bootstrap(credential.key_id):
        raise ForbiddenError(
            f"tenants are managed with the bootstrap key, or an admin key of the tenant {SYSTEM_TENANT}"
        )


def tenant_view(record: TenantRecord) -> dict[str, object]:
    """A tenant as JSON."""
    return {"name": record.name, "log_key": record.log_key, "created_at": format_time(record.created_at)}


def created_view(record: TenantRecord, service_name: str, key_id: str, key: str) -> dict[str, Any]:
    """A tenant that has just been made, with its first key."""
    origin = format_origin(service_name, record.log_key, 1)
    return {**tenant_view(record), "origin": origin, "key": {"key_id": key_id, "key": key, "scopes": list(SCOPES)}}


def about_created(view: dict[str, Any]) -> dict[str, JSONValue]:
    """What is noted of a tenant that has just been made; never its key."""
    return {"origin": view["origin"], "key_id": view["key"]["key_id"]}
