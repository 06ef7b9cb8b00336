"""API keys over HTTP: an admin key manages the keys of its own tenant."""

from datetime import UTC, datetime
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from audit_service.api import parameters, schemas
from audit_service.api.body import read_body, require_text
from audit_service.api.dependencies import ServiceOf, documented_security, scoped
from audit_service.api.noting import note
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import format_time
from audit_service.core.event import EventLimits, check_limits, faults_of, parse_json
from audit_service.core.own_event import Target
from audit_service.core.redaction import redact_text
from audit_service.errors import (
    Fault,
    ForbiddenError,
    InputError,
    InvalidEventError,
    InvalidQueryError,
    NotFoundError,
)
from audit_service.ingest import without_secrets
from audit_service.store import credentials
from audit_service.store.credentials import Credential, KeyRecord
from audit_service.store.engine import connected
from audit_service.store.failures import translated

router = APIRouter(tags=["keys"], dependencies=documented_security)
Admin = Annotated[Credential, Depends(scoped("admin"))]
BODY_LIMIT_BYTES = 16_384


def _is_written_out(value: object) -> object:
    # pydantic would also take a number, or text of digits, for seconds since the epoch.
    if value is not None and not (isinstance(value, str) and "T" in value.upper()):
        raise ValueError("must be an RFC 3339 date-time with an offset")
    return value


def _is_storable(value: datetime) -> datetime:
    # Near the ends of the calendar an offset leads out of it.
    if not 2000 <= value.year < 9999:
        raise ValueError("must be a year from 2000 to 9998")
    return value


Expiry = Annotated[AwareDatetime, BeforeValidator(_is_written_out), AfterValidator(_is_storable)]


class NewKey(BaseModel):
    """What a new key may do."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(min_length=1, max_length=200)]
    scopes: Annotated[list[str], Field(min_length=1, max_length=16)]
    expires_at: Expiry | None = None


@router.post(
    "/v1/keys",
    status_code=201,
    openapi_extra=schemas.KEY_BODY,
    responses=schemas.KEY_RESPONSES,
    response_model=None,
)
async def create_key(request: Request, service: ServiceOf, credential: Admin) -> Response:
    """Create an API key. The answer is the only place that ever shows it."""
    data = await read_body(request, BODY_LIMIT_BYTES)
    require_text(data)
    try:
        wanted, scopes = _parse_new_key(data)
    except InputError as error:
        raise without_secrets(error, (await service.recipe()).rules) from None
    beyond = set(scopes) - credential.scopes
    if beyond:
        raise ForbiddenError("a key cannot hand out scopes it does not have")
    if wanted.expires_at is not None and wanted.expires_at <= datetime.now(UTC):
        raise InvalidEventError("the key breaks its schema", [Fault("must be in the future", "/expires_at")])
    name = redact_text(wanted.name, (await service.recipe()).rules)
    async with translated(), connected(service.database.writes) as connection:
        key_id, key = await credentials.create_key(connection, credential.log_id, name, scopes, wanted.expires_at)
        await connection.commit()
    about: dict[str, JSONValue] = {
        "scopes": [*scopes],
        "expires_at": None if wanted.expires_at is None else format_time(wanted.expires_at),
    }
    # Before anybody is told the key. Where this fails, nobody holds it, and nobody can use it.
    await note(request, credential, "audit.key.created", target=Target("api_key", key_id, name), metadata=about)
    body = {"key_id": key_id, "key": key, "name": name, "scopes": scopes}
    return Response(orjson.dumps(body), 201, {"Cache-Control": "no-store"}, "application/json")


def _parse_new_key(data: bytes) -> tuple[NewKey, list[str]]:
    value = parse_json(data)
    check_limits(value, EventLimits())
    try:
        wanted = NewKey.model_validate(value)
        return wanted, credentials.check_scopes(wanted.scopes)
    except ValidationError as error:
        raise InvalidEventError("the key breaks its schema", faults_of(error)) from None
    except InvalidQueryError as error:
        raise InvalidEventError("the key breaks its schema", [Fault(error.detail, "/scopes")]) from None


@router.get("/v1/keys", responses=schemas.KEYS_RESPONSES, response_model=None)
async def list_keys(request: Request, service: ServiceOf, credential: Admin) -> Response:
    """Every key of the tenant, live and revoked; never a secret."""
    parameters.Query(request.query_params.multi_items(), ()).finish()
    async with translated(), connected(service.database.reads) as connection:
        records = await credentials.list_keys(connection, credential.log_id)
    return Response(orjson.dumps({"keys": [key_view(record) for record in records]}), media_type="application/json")


@router.delete("/v1/keys/{key_id}", status_code=204, responses=schemas.REVOKE_RESPONSES, response_model=None)
async def revoke_key(request: Request, key_id: str, service: ServiceOf, credential: Admin) -> Response:
    """Revoke a key. Every worker refuses it within a second."""
    if not key_id.isascii() or not key_id.isprintable():
        raise NotFoundError("no such key")
    async with translated(), connected(service.database.writes) as connection:
        await credentials.revoke_key(connection, key_id, credential.log_id)
        await connection.commit()
    # After it: a key that leaked must go although the log cannot be written. Who gets a 503 asks again.
    await note(request, credential, "audit.key.revoked", target=Target("api_key", key_id))
    return Response(status_code=204)


def key_view(record: KeyRecord) -> dict[str, object]:
    """A key as JSON."""
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    shown = {name: getattr(record, name) for name in times}
    return {
        "key_id": record.key_id,
        "tenant": record.tenant,
        "name": record.name,
        "scopes": list(record.scopes),
        **{name: None if at is None else format_time(at) for name, at in shown.items()},
    }
