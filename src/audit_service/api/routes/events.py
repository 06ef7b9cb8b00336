"""Events: list them, look at one. Sending them is in `ingest`, one server's in `activity`."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from audit_service.api import listing, parameters, schemas
from audit_service.api.dependencies import Reader, Service, ServiceOf, documented_security
from audit_service.core.entry import JSONObject
from audit_service.core.view import Stored, event_json, event_view, stored_from
from audit_service.errors import GoneError, NotFoundError
from audit_service.store import query
from audit_service.store.credentials import Credential
from audit_service.store.engine import bound
from audit_service.store.failures import translated

router = APIRouter(tags=["events"], dependencies=documented_security)


@router.get(
    "/v1/events",
    openapi_extra={"parameters": schemas.LIST_PARAMETERS},
    responses=schemas.LIST_RESPONSES,
    response_model=None,
)
async def list_events(request: Request, service: ServiceOf, credential: Reader) -> Response:
    """Events that match every filter, newest first. A filter given twice means any of its values."""
    asked = parameters.Query(request.query_params.multi_items(), listing.ALLOWED)
    selection = parameters.selection(asked, sight=credential.sight, stored_form=await service.stored_form(credential))
    paging = parameters.paging(asked)
    asked.finish()
    return await listing.answer_page(request, service, credential, "/v1/events", selection, paging)


@router.get("/v1/events/{event_id:path}", responses=schemas.EVENT_RESPONSES, response_model=None)
async def get_event(event_id: str, request: Request, service: ServiceOf, credential: Reader) -> Response:
    """One event with its place in the chain."""
    parameters.Query(request.query_params.multi_items(), ()).finish()
    stored = await _find_stored(event_id, service, credential)
    shown = event_json(stored, service.settings.link_templates, credential.sight)
    return Response(shown, headers={"Cache-Control": "no-store"}, media_type="application/json")


async def find_view(event_id: str, service: Service, credential: Credential) -> JSONObject:
    """The event of an id, as it is shown. Raises NotFoundError, GoneError for one whose body was dropped or that was pruned."""
    stored = await _find_stored(event_id, service, credential)
    return event_view(stored, service.settings.link_templates, credential.sight)


async def find_seq(event_id: str, service: Service, credential: Credential) -> int:
    """Where the event of an id stands in the log. Raises NotFoundError, GoneError."""
    return (await _find_stored(event_id, service, credential)).seq


async def _find_stored(event_id: str, service: Service, credential: Credential) -> Stored:
    row, forgotten = None, False
    event_id = (await service.stored_form(credential))("id", event_id)
    if 1 <= len(event_id) <= 255 and "\0" not in event_id:
        async with translated(), bound(service.database.reads, credential.log_id, credential.sight) as connection:
            row = await query.find_entry(connection, credential.log_id, event_id, credential.sight)
            if row is None:
                forgotten = await query.is_forgotten(connection, credential.log_id, event_id, credential.sight)
    if forgotten:
        raise GoneError("the content of this event was removed by retention; what is left of it still verifies")
    if row is None or row.body is None:
        raise NotFoundError("no such event")
    return stored_from(row)
