"""Asking for something to be forgotten. Nothing is removed here: a stolen key can only ask, and what is asked for can be refused.

The keeper or the command line carries requests out, under a role that no web worker has (decision 0013).
"""

from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from audit_service.api import listing, parameters, schemas
from audit_service.api.body import read_body, require_text
from audit_service.api.dependencies import Service, ServiceOf, WholeAdmin, documented_security
from audit_service.api.noting import note
from audit_service.core.control import REASON_CHARACTERS
from audit_service.core.entry import GROUPS, JSONObject, format_time
from audit_service.core.event import EventLimits, check_limits, faults_of, parse_json
from audit_service.core.own_event import Target
from audit_service.core.redaction import redact_text
from audit_service.errors import InputError, InvalidEventError, NotFoundError
from audit_service.forgetting_request import carry_out
from audit_service.ingest import new_id, without_secrets
from audit_service.retention import Author, check_reason, effective_policies
from audit_service.store import forgetting
from audit_service.store import retention as store
from audit_service.store.credentials import Credential
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.retention import RequestKind

router = APIRouter(tags=["retention"], dependencies=documented_security)
BODY_LIMIT_BYTES = 512 * 1024
EVENTS_LIMIT = 1000
Id = Annotated[str, Field(min_length=1, max_length=255)]
Type = Annotated[str, Field(min_length=1, max_length=128)]


def _is_group(value: str) -> str:
    if value not in GROUPS:
        raise ValueError(f"must be one of {', '.join(GROUPS)}")
    return value


Group = Annotated[str, AfterValidator(_is_group), Field(json_schema_extra={"enum": list(GROUPS)})]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    reason: Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS)]
    dry_run: bool = False

    @field_validator("reason")
    @classmethod
    def _one_line(cls, value: str) -> str:
        try:
            check_reason(value)
        except InputError:
            raise ValueError("must have no control characters") from None
        return value


class AskedRetention(_Asked):
    """`apply` the policies now, or `clear` every event there is. `reason` names nobody: it stays in the log. With `dry_run` it is only
    counted."""

    action: Literal["apply", "clear"]


class AskedActor(BaseModel):
    """A person by the id under which they acted; with `type`, only actors of that type."""

    model_config = ConfigDict(extra="forbid", strict=True)
    id: Id
    type: Type | None = None


class AskedTarget(BaseModel):
    """What was acted upon."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Type
    id: Id


class AskedErasure(_Asked):
    """What to erase: exactly one of `actor`, `target` and `events`; of those entries the usual groups, or `groups`. `reference`: the case
    behind it, of which only a hash is entered. `reason` names nobody: it stays in the log. With `dry_run` it is only counted."""

    actor: AskedActor | None = None
    target: AskedTarget | None = None
    events: Annotated[list[Id], Field(min_length=1, max_length=EVENTS_LIMIT)] | None = None
    groups: Annotated[list[Group], Field(min_length=1, max_length=len(GROUPS))] | None = None
    reference: Annotated[str, Field(min_length=1, max_length=255)] | None = None

    @model_validator(mode="after")
    def _one_subject(self) -> "AskedErasure":
        if sum(subject is not None for subject in (self.actor, self.target, self.events)) != 1:
            raise ValueError("needs exactly one of actor, target and events")
        return self


A = TypeVar("A", bound=_Asked)


@router.post(
    "/v1/retention/requests",
    status_code=202,
    openapi_extra=schemas.RETENTION_BODY,
    responses=schemas.FORGET_RESPONSES,
    response_model=None,
)
async def ask_for_retention(request: Request, service: ServiceOf, credential: WholeAdmin) -> Response:
    """Ask for retention or a clear, or count what it would take. A clear takes what is there now, also when carried out later."""
    asked = await _read(request, service, AskedRetention)
    details: JSONObject = {"action": asked.action}
    if asked.action == "clear":
        async with translated():
            details["to_seq"] = await forgetting.first_recorded(service.database.reads, credential.log_id, None)
    return await _answer(request, service, credential, "retention", asked, details)


@router.post(
    "/v1/erasures/requests",
    status_code=202,
    openapi_extra=schemas.ERASURE_BODY,
    responses=schemas.FORGET_RESPONSES,
    response_model=None,
)
async def ask_for_erasure(request: Request, service: ServiceOf, credential: WholeAdmin) -> Response:
    """Ask for the erasure of a person, a target or single events, or count what it would take."""
    asked = await _read(request, service, AskedErasure)
    details: JSONObject = asked.model_dump(exclude_none=True, exclude={"reason", "dry_run"})
    if asked.events is not None:
        stored_form = await service.stored_form(credential)
        details["events"] = [stored_form("id", event) for event in asked.events]
    return await _answer(request, service, credential, "erasure", asked, details)


async def _read(request: Request, service: Service, model: type[A]) -> A:
    data = await read_body(request, BODY_LIMIT_BYTES)
    require_text(data)
    rules = (await service.recipe()).rules
    try:
        value = parse_json(data)
        check_limits(value, EventLimits())
        try:
            asked = model.model_validate(value)
        except ValidationError as error:
            raise InvalidEventError("the request breaks its schema", faults_of(error)) from None
    except InputError as error:
        raise without_secrets(error, rules) from None
    return asked.model_copy(update={"reason": redact_text(asked.reason, rules)})


async def _answer(
    request: Request, service: Service, credential: Credential, kind: RequestKind, asked: _Asked, details: JSONObject
) -> Response:
    """The counts of a dry run, or the request that was put down."""
    request_id = new_id()
    if asked.dry_run:
        settings = service.settings
        async with translated(), bound(service.database.reads, credential.log_id) as connection:
            own = await store.list_policies(connection, credential.log_id)
        policies = effective_policies(settings.retention_days, settings.retention_categories, own)
        author = Author(credential.key_id, asked.reason)
        counted = await carry_out(
            service.database, credential.log_id, author, kind, details, reference=request_id, policies=policies, dry_run=True
        )  # fmt: skip
        return listing.answer({"dry_run": True, **counted.counts()})
    async with translated():
        await store.add_request(
            service.database.writes, credential.log_id, request_id, kind, credential.key_id, asked.reason, details
        )
    await note(
        request, credential, "audit.request.created", target=Target("request", request_id), metadata={"kind": kind}
    )
    view = request_view(await _fetch(service, credential, kind, request_id))
    return listing.answer(view, {"Location": f"{_PATHS[kind]}/{request_id}"}, 202)


_PATHS: dict[RequestKind, str] = {"retention": "/v1/retention/requests", "erasure": "/v1/erasures/requests"}


@router.get("/v1/retention/requests", responses=schemas.FORGET_LIST_RESPONSES, response_model=None)
async def list_retention_requests(request: Request, service: ServiceOf, credential: WholeAdmin) -> Response:
    """The latest requests for retention, the latest first."""
    return await _list(request, service, credential, "retention")


@router.get("/v1/erasures/requests", responses=schemas.FORGET_LIST_RESPONSES, response_model=None)
async def list_erasure_requests(request: Request, service: ServiceOf, credential: WholeAdmin) -> Response:
    """The latest requests for erasure, the latest first."""
    return await _list(request, service, credential, "erasure")


@router.get("/v1/retention/requests/{request_id}", responses=schemas.FORGET_ONE_RESPONSES, response_model=None)
async def get_retention_request(request_id: str, service: ServiceOf, credential: WholeAdmin) -> Response:
    """What became of a request for retention."""
    return listing.answer(request_view(await _fetch(service, credential, "retention", request_id)))


@router.get("/v1/erasures/requests/{request_id}", responses=schemas.FORGET_ONE_RESPONSES, response_model=None)
async def get_erasure_request(request_id: str, service: ServiceOf, credential: WholeAdmin) -> Response:
    """What became of a request for erasure."""
    return listing.answer(request_view(await _fetch(service, credential, "erasure", request_id)))


async def _list(request: Request, service: Service, credential: Credential, kind: RequestKind) -> Response:
    asked = parameters.Query(request.query_params.multi_items(), ("limit",))
    limit = parameters.limit(asked)
    asked.finish()
    async with translated(), bound(service.database.reads, credential.log_id) as connection:
        found = await store.list_requests(connection, credential.log_id, kind=kind, limit=limit)
    return listing.answer({"requests": [request_view(one) for one in found]})


async def _fetch(service: Service, credential: Credential, kind: RequestKind, request_id: str) -> store.Request:
    found = None
    if request_id.isascii() and request_id.isprintable():
        async with translated(), bound(service.database.reads, credential.log_id) as connection:
            found = await store.fetch_request(connection, credential.log_id, request_id)
    if found is None or found.kind != kind:
        raise NotFoundError("no such request")
    return found


def request_view(request: store.Request) -> JSONObject:
    """A request as JSON."""
    return {
        "id": request.request_id,
        "kind": request.kind,
        "status": request.status,
        "asked_at": format_time(request.asked_at),
        "asked_by": request.asked_by,
        "reason": request.reason,
        "details": request.details,
        "finished_at": None if request.finished_at is None else format_time(request.finished_at),
        "result": request.result,
    }
