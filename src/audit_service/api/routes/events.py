"""Events: list them, look at one, see a server's activity. Sending them is in `ingest`."""

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from audit_service.api import parameters, schemas
from audit_service.api.cursor import format_cursor, parse_cursor
from audit_service.api.dependencies import (
    Service,
    ServiceOf,
    documented_security,
    scoped,
    server_of,
)
from audit_service.core.view import event_view, stored_from
from audit_service.errors import (
    NotFoundError,
)
from audit_service.store import find, query
from audit_service.store.credentials import Credential
from audit_service.store.engine import bound
from audit_service.store.failures import translated

router = APIRouter(tags=["events"], dependencies=documented_security)
Reader = Annotated[Credential, Depends(scoped("read"))]


@router.get(
    "/v1/events",
    openapi_extra={"parameters": schemas.LIST_PARAMETERS},
    responses=schemas.LIST_RESPONSES,
    response_model=None,
)
async def list_events(request: Request, service: ServiceOf, credential: Reader) -> Response:
    """Events that match every filter, newest first. A filter given twice means any of its values."""
    return await _page(request, service, credential, "/v1/events", None)


@router.get(
    "/v1/servers/{server_id:path}/activity",
    openapi_extra={"parameters": schemas.ACTIVITY_PARAMETERS},
    responses=schemas.LIST_RESPONSES,
    response_model=None,
)
async def list_activity(server_id: str, request: Request, service: ServiceOf, credential: Reader) -> Response:
    """One server's events, with the same filters. A server without events answers an empty list."""
    return await _page(request, service, credential, f"/v1/servers/{server_id}/activity", server_of(server_id))


async def _page(
    request: Request, service: Service, credential: Credential, endpoint: str, server_id: str | None
) -> Response:
    asked = parameters.Query(
        request.query_params.multi_items(),
        (*parameters.filters_of(server_id), *parameters.PAGING),
    )
    secret = (await service.installation()).secret
    selection = parameters.selection(asked, server_id=server_id, stored_form=await service.stored_form(credential))
    paging = parameters.paging(asked)
    asked.finish()
    binding = f"{endpoint}\n{credential.log_id}\n{paging.sort}\n{selection!r}"
    after = None if paging.cursor is None else parse_cursor(paging.cursor, secret, binding)
    async with translated(), bound(service.database.reads, credential.log_id) as connection:
        page = await find.list_entries(
            connection, credential.log_id, selection, sort=paging.sort, after=after, limit=paging.limit
        )
        counted = await find.count_entries(connection, credential.log_id, selection) if paging.count else None
    links = service.settings.link_templates
    body: dict[str, Any] = {
        "events": [event_view(stored_from(row), links) for row in page.rows],
        "next_cursor": None,
    }
    headers = {"Cache-Control": "no-store"}
    if page.next is not None:
        body["next_cursor"] = format_cursor(page.next, secret, binding)
        asked_again = [(n, v) for n, v in request.query_params.multi_items() if n != "cursor"]
        # As it was asked for, percent-encoding and all, and relative: nothing of the sender's is decoded into a header.
        path = request.scope["raw_path"].decode("ascii").partition("?")[0]
        query_string = urlencode([*asked_again, ("cursor", body["next_cursor"])])
        headers["Link"] = f'<{quote(path, safe="/%")}?{query_string}>; rel="next"'
    if counted is not None:
        body["count"], body["count_capped"] = counted
    return Response(orjson.dumps(body), headers=headers, media_type="application/json")


@router.get("/v1/events/{event_id:path}", responses=schemas.EVENT_RESPONSES, response_model=None)
async def get_event(event_id: str, request: Request, service: ServiceOf, credential: Reader) -> Response:
    """One event with its place in the chain."""
    parameters.Query(request.query_params.multi_items(), ()).finish()
    row = None
    event_id = (await service.stored_form(credential))("id", event_id)
    if 1 <= len(event_id) <= 255 and "\0" not in event_id:
        async with translated(), bound(service.database.reads, credential.log_id) as connection:
            row = await query.find_entry(connection, credential.log_id, event_id)
    if row is None or row.body is None:
        raise NotFoundError("no such event")
    view = event_view(stored_from(row), service.settings.link_templates)
    return Response(orjson.dumps(view), headers={"Cache-Control": "no-store"}, media_type="application/json")
