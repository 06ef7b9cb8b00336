"""Viewer tokens: a panel's backend asks for one for the person who looks, and the person's browser reads with it.

A token reads, and exports if it was asked for; it never sees more than the key that issued it. It ends by itself within the hour, when
it is revoked, and when its key is revoked or expires.
"""

import hmac
from hashlib import sha256

from fastapi import APIRouter, Request
from fastapi.responses import Response

from audit_service.api import listing, parameters, schemas
from audit_service.api.body import read_body
from audit_service.api.dependencies import Issuer, ServiceOf, documented_security, require_scope
from audit_service.api.new_credentials import BODY_LIMIT_BYTES, NewToken, Renewal, limits_of_token, parse_body
from audit_service.api.noting import note
from audit_service.api.routes.keys import require_api_key, require_id
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import format_time
from audit_service.core.own_event import Target
from audit_service.errors import InputError
from audit_service.ingest import without_secrets
from audit_service.store import viewer_tokens
from audit_service.store.credentials import Credential
from audit_service.store.engine import connected
from audit_service.store.failures import translated
from audit_service.store.viewer_tokens import TokenRecord

router = APIRouter(tags=["viewer tokens"], dependencies=documented_security)


@router.post(
    "/v1/viewer-tokens",
    status_code=201,
    openapi_extra=schemas.TOKEN_BODY,
    responses=schemas.TOKEN_RESPONSES,
    response_model=None,
)
async def issue_token(request: Request, service: ServiceOf, credential: Issuer) -> Response:
    """Issue a viewer token. The answer is the only place that ever shows it; send it as `Authorization: Bearer auv_…`."""
    data = await read_body(request, BODY_LIMIT_BYTES)
    recipe, log = await service.recipe(), await service.log_of(credential)
    require_api_key(credential, "viewer tokens are issued by API keys only")
    try:
        wanted = parse_body(data, NewToken, "the token")
        scopes = ["read", "export"] if wanted.export else ["read"]
        for scope in scopes:  # nobody hands on what they do not have
            require_scope(credential, scope)
        limits = limits_of_token(wanted, credential.limits, recipe, log)
    except InputError as error:
        raise without_secrets(error, recipe.rules) from None
    viewer = _name_hash("viewer", wanted.viewer, recipe.secret, credential.log_id)
    async with translated(), connected(service.database.writes) as connection:
        record, token = await viewer_tokens.issue_token(
            connection,
            log_id=credential.log_id,
            key_id=credential.key_id,
            scopes=scopes,
            limits=limits,
            viewer=viewer,
            seconds=wanted.expires_in_seconds,
        )
        await connection.commit()
    # Before anybody is told the token: one that cannot be noted is nobody's.
    # The actor's id may be an e-mail address: the token needs it, the note does not.
    actor = _name_hash("actor", limits.sight.actor_id, recipe.secret, credential.log_id)
    noted_limits = {**limits.as_json(), "actor_id": actor}
    about: dict[str, JSONValue] = {"scopes": [*scopes], "limits": noted_limits, "viewer": viewer}
    await _noted(request, credential, "issued", record, about)
    return listing.answer({"token": token, **token_view(record)}, status=201)


@router.post(
    "/v1/viewer-tokens/{token_id}/renew",
    openapi_extra=schemas.RENEWAL_BODY,
    responses=schemas.RENEWAL_RESPONSES,
    response_model=None,
)
async def renew_token(request: Request, token_id: str, service: ServiceOf, credential: Issuer) -> Response:
    """Let a live token last longer: until `expires_in_seconds` from now, and never shorter than it would have. By the key that issued it,
    or by one with the scope `admin`."""
    data = await read_body(request, BODY_LIMIT_BYTES)
    wanted = parse_body(data if data.strip() else b"{}", Renewal, "the renewal")
    require_id(token_id, "no such token")
    async with translated(), connected(service.database.writes) as connection:
        record = await viewer_tokens.renew_token(
            connection, credential.log_id, token_id, wanted.expires_in_seconds, key_id=_whose(credential)
        )
        await connection.commit()
    await _noted(request, credential, "renewed", record, {})
    return listing.answer(token_view(record))


@router.delete("/v1/viewer-tokens/{token_id}", status_code=204, responses=schemas.REVOKE_RESPONSES, response_model=None)
async def revoke_token(request: Request, token_id: str, service: ServiceOf, credential: Issuer) -> Response:
    """Revoke a token. Every worker refuses it within a second. By the key that issued it, or by one with the scope `admin`."""
    require_id(token_id, "no such token")
    async with translated(), connected(service.database.writes) as connection:
        await viewer_tokens.revoke_token(connection, credential.log_id, token_id, key_id=_whose(credential))
        await connection.commit()
    # After it, as with a key: what leaked must go although the log cannot be written.
    await note(request, credential, "audit.viewer_token.revoked", target=Target("viewer_token", token_id))
    return Response(status_code=204)


@router.get("/v1/viewer-tokens", responses=schemas.TOKENS_RESPONSES, response_model=None)
async def list_tokens(request: Request, service: ServiceOf, credential: Issuer) -> Response:
    """The live tokens of the key, or of every key for one with the scope `admin`; never a secret."""
    parameters.Query(request.query_params.multi_items(), ()).finish()
    async with translated(), connected(service.database.reads) as connection:
        records = await viewer_tokens.list_tokens(connection, credential.log_id, key_id=_whose(credential))
    return listing.answer({"tokens": [token_view(record) for record in records]})


async def _noted(
    request: Request, credential: Credential, done: str, record: TokenRecord, about: dict[str, JSONValue]
) -> None:
    target = Target("viewer_token", record.token_id)
    about = {**about, "expires_at": format_time(record.expires_at)}
    await note(request, credential, f"audit.viewer_token.{done}", target=target, metadata=about)


def _whose(credential: Credential) -> str | None:
    """Whose tokens it manages: its own, or everybody's (None) as an admin who sees the whole log."""
    return None if "admin" in credential.scopes and credential.sight.is_whole else credential.key_id


def _name_hash(role: str, name: str | None, secret: bytes, log_id: int) -> str | None:
    """What is kept of the name of a `viewer` or an `actor`: it tells two apart, and nobody who they are. None for none."""
    if name is None:
        return None
    return hmac.new(secret, f"{role}\n{log_id}\n{name}".encode(), sha256).hexdigest()[:32]


def token_view(record: TokenRecord) -> dict[str, object]:
    """A token as JSON, without its secret."""
    return {
        "token_id": record.token_id,
        "key_id": record.key_id,
        "scopes": list(record.scopes),
        "limits": record.limits.as_json(),
        "viewer": record.viewer,
        "created_at": format_time(record.created_at),
        "expires_at": format_time(record.expires_at),
    }
