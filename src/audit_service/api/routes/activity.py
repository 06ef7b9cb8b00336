"""One server's activity: its feed, and what changed near a moment."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from audit_service.api import listing, parameters, schemas
from audit_service.api.dependencies import Reader, ServerId, Service, ServiceOf, reads_in_turn
from audit_service.api.parameters import Around
from audit_service.core.ranking import rank
from audit_service.core.view import event_view, stored_from
from audit_service.store.around import list_nearby
from audit_service.store.credentials import Credential
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.rows import EVENT_COLUMNS, fetch_in_order
from audit_service.store.selection import Selection

router = APIRouter(tags=["events"], dependencies=reads_in_turn)
_ALLOWED = (listing.ALLOWED | set(parameters.AROUND)) - {"server_id"}


@router.get(
    "/v1/servers/{server_id:path}/activity",
    openapi_extra={"parameters": schemas.ACTIVITY_PARAMETERS},
    responses=schemas.ACTIVITY_RESPONSES,
    response_model=None,
)
async def list_activity(request: Request, service: ServiceOf, credential: Reader, server_id: ServerId) -> Response:
    """One server's events, with the same filters. A server without events answers an empty list. With `around`: what changed near that
    moment on the server and on what its events name, the likeliest causes first, in one answer without a cursor."""
    asked = parameters.Query(request.query_params.multi_items(), _ALLOWED)
    selection = parameters.selection(
        asked, sight=credential.sight, server_id=server_id, stored_form=await service.stored_form(credential)
    )
    paging = parameters.paging(asked)
    around = parameters.around(asked)
    asked.finish()
    if around is not None:
        return await _answer_around(service, credential, selection, around, paging.limit)
    endpoint = f"/v1/servers/{server_id}/activity"
    return await listing.answer_page(request, service, credential, endpoint, selection, paging)


async def _answer_around(
    service: Service, credential: Credential, selection: Selection, around: Around, limit: int
) -> Response:
    log_id, links, sight = credential.log_id, service.settings.link_templates, credential.sight
    async with translated(), bound(service.database.reads, log_id, sight) as connection:
        nearby = await list_nearby(connection, log_id, selection, since=around.since, until=around.until)
        ranked = rank(nearby.candidates, around.at, around.window, usual=nearby.usual)[:limit]
        seqs = [one.candidate.seq for one in ranked]
        brought = await fetch_in_order(connection, log_id, seqs, EVENT_COLUMNS)
    said = {one.candidate.seq: {"score": one.score, "why": list(one.why)} for one in ranked}
    events = [{**event_view(stored_from(row), links, sight), **said[row.seq]} for row in brought.rows]
    return listing.answer({"events": events, "next_cursor": None, "capped": nearby.capped or brought.more})
