"""API keys over HTTP: an admin key manages the keys of its own tenant, and hands out no more than it has."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import Response

from audit_service.api import listing, parameters, schemas
from audit_service.api.body import read_body
from audit_service.api.dependencies import Admin, ServiceOf, documented_security
from audit_service.api.new_credentials import BODY_LIMIT_BYTES, NewKey, limits_of_key, parse_body
from audit_service.api.noting import note
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import format_time
from audit_service.core.key_limits import KeyLimits
from audit_service.core.own_event import Target
from audit_service.core.redaction import redact_text
from audit_service.errors import BeyondLimitsError, Fault, ForbiddenError, InputError, InvalidEventError, NotFoundError
from audit_service.ingest import without_secrets
from audit_service.store import credentials
from audit_service.store.credentials import Credential, KeyRecord
from audit_service.store.engine import connected
from audit_service.store.failures import translated

router = APIRouter(tags=["keys"], dependencies=documented_security)


@router.post(
    "/v1/keys",
    status_code=201,
    openapi_extra=schemas.KEY_BODY,
    responses=schemas.KEY_RESPONSES,
    response_model=None,
)
async def create_key(request: Request, service: ServiceOf, credential: Admin) -> Response:
    """Create an API key. The answer is the only place that ever shows it.

    A `client` has two live keys at most, so that one can replace the other: create the second, use it, revoke the first. A JWT makes
    none: the key would outlive it.
    """
    data = await read_body(request, BODY_LIMIT_BYTES)
    recipe, log = await service.recipe(), await service.log_of(credential)
    require_api_key(credential, "keys are made by API keys only")
    try:
        wanted = parse_body(data, NewKey, "the key")
        if not set(wanted.scopes) <= credential.scopes:
            detail = "holds a scope that the credential does not have"
            raise BeyondLimitsError("a credential cannot hand out more than it has", [Fault(detail, "/scopes")])
        if wanted.expires_at is not None and wanted.expires_at <= datetime.now(UTC):
            raise InvalidEventError("the key breaks its schema", [Fault("must be in the future", "/expires_at")])
        limits = limits_of_key(wanted, credential.limits, recipe, log)
    except InputError as error:
        raise without_secrets(error, recipe.rules) from None
    name = redact_text(wanted.name, recipe.rules)
    async with translated(), connected(service.database.writes) as connection:
        key_id, key = await credentials.create_key(
            connection, credential.log_id, name, wanted.scopes, wanted.expires_at, limits=limits, client=wanted.client
        )
        await connection.commit()
    about = about_created(wanted, limits, wanted.expires_at)
    # Before anybody is told the key. Where this fails, nobody holds it, and nobody can use it.
    await note(request, credential, "audit.key.created", target=Target("api_key", key_id, name), metadata=about)
    return listing.answer({"key_id": key_id, "key": key, "name": name, **about}, status=201)


@router.get("/v1/keys", responses=schemas.KEYS_RESPONSES, response_model=None)
async def list_keys(request: Request, service: ServiceOf, credential: Admin) -> Response:
    """Every key of the tenant, live and revoked; never a secret. For an admin key with limits, those that have no more than it."""
    parameters.Query(request.query_params.multi_items(), ()).finish()
    async with translated(), connected(service.database.reads) as connection:
        records = await credentials.list_keys(connection, credential.log_id)
    own = own_limits(credential)
    records = [record for record in records if own is None or not record.limits.beyond(own)]
    return listing.answer({"keys": [key_view(record) for record in records]})


@router.delete("/v1/keys/{key_id}", status_code=204, responses=schemas.REVOKE_RESPONSES, response_model=None)
async def revoke_key(request: Request, key_id: str, service: ServiceOf, credential: Admin) -> Response:
    """Revoke a key, and with it every viewer token that it issued. Every worker refuses them within a second."""
    require_id(key_id, "no such key")
    async with translated(), connected(service.database.writes) as connection:
        await credentials.revoke_key(connection, key_id, credential.log_id, within=own_limits(credential))
        await connection.commit()
    # After it: a key that leaked must go although the log cannot be written. Who gets a 503 asks again.
    await note(request, credential, "audit.key.revoked", target=Target("api_key", key_id))
    return Response(status_code=204)


def own_limits(credential: Credential) -> KeyLimits | None:
    """What a credential may be told of others' credentials and do with them: None for one that sees the whole log, all."""
    return None if credential.sight.is_whole else credential.limits


def require_api_key(credential: Credential, detail: str) -> None:
    """What is handed out ends with, or after, something that can be revoked. A JWT cannot be: a token of its would not end with it, and a
    key made with it would outlive it. Raises ForbiddenError with this detail."""
    if credential.kind != "api_key":
        raise ForbiddenError(detail)


def require_id(text: str, detail: str) -> None:
    """Raises NotFoundError for what no key or token can be called."""
    if not text.isascii() or not text.isprintable():
        raise NotFoundError(detail)


def about_created(wanted: NewKey, limits: KeyLimits, expires_at: datetime | None) -> dict[str, JSONValue]:
    """What is told, and noted, of a key that has just been made, besides its id and name; never the key."""
    return {
        "scopes": [*credentials.check_scopes(wanted.scopes)],
        "client": wanted.client,
        "limits": limits.as_json(),
        "expires_at": None if expires_at is None else format_time(expires_at.astimezone(UTC)),
    }


def key_view(record: KeyRecord) -> dict[str, object]:
    """A key as JSON."""
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    shown = {name: getattr(record, name) for name in times}
    return {
        "key_id": record.key_id,
        "tenant": record.tenant,
        "name": record.name,
        "scopes": list(record.scopes),
        "client": record.client,
        "limits": record.limits.as_json(),
        **{name: None if at is None else format_time(at) for name, at in shown.items()},
    }
