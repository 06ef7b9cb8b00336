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
)
from audit_service.core.entry import JSONObject
from audit_service.core.view import Stored, event_json, event_view, stored_from
from audit_service.errors import (
    NotFoundError,
)
from audit_service.store import find, query
from audit_service.store.credentials import Credential
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.selection import Selection

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
    asked = parameters.Query(request.query_params.multi_items(), {*parameters.FILTERS, *parameters.PAGING})
    selection = parameters.selection(asked, stored_form=await service.stored_form(credential))
    body, headers = await list_page(request, service, credential, "/v1/events", asked, selection)
    return Response(orjson.dumps(body), headers=headers, media_type="application/json")


@router.get(
    "/v1/servers/{server_id:path}/activity",
    openapi_extra={"parameters": schemas.ACTIVITY_PARAMETERS},
    responses=schemas.LIST_RESPONSES,
    response_model=None,
)
async def list_activity(server_id: str, request: Request, service: ServiceOf, credential: Reader) -> Response:
    """One server's events, with the same filters. A server without events answers an empty list."""
    if not 1 <= len(server_id) <= 255 or "\0" in server_id:
        raise NotFoundError("no such server")
    allowed = {*parameters.FILTERS, *parameters.PAGING} - {"server_id"}
    asked = parameters.Query(request.query_params.multi_items(), allowed)
    stored_form = await service.stored_form(credential)
    selection = parameters.selection(asked, server_id=server_id, stored_form=stored_form)
    endpoint = f"/v1/servers/{server_id}/activity"
    body, headers = await list_page(request, service, credential, endpoint, asked, selection)
    return Response(orjson.dumps(body), headers=headers, media_type="application/json")


async def list_page(
    request: Request,
    service: Service,
    credential: Credential,
    endpoint: str,
    asked: parameters.Query,
    selection: Selection,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The members and headers of one page of a selection; `endpoint` is what its cursors are bound to. Finishes `asked`.

    Raises InvalidQueryError, UnavailableError.
    """
    secret = (await service.installation()).secret
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
        "events": [orjson.Fragment(event_json(stored_from(row), links)) for row in page.rows],
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
    return body, headers


@router.get("/v1/events/{event_id:path}", responses=schemas.EVENT_RESPONSES, response_model=None)
async def get_event(event_id: str, request: Request, service: ServiceOf, credential: Reader) -> Response:
    """One event with its place in the chain."""
    parameters.Query(request.query_params.multi_items(), ()).finish()
    shown = event_json(await _find_stored(event_id, service, credential), service.settings.link_templates)
    return Response(shown, headers={"Cache-Control": "no-store"}, media_type="application/json")


async def find_view(event_id: str, service: Service, credential: Credential) -> JSONObject:
    """The event of an id, as it is shown. Raises NotFoundError, also for one whose body was dropped."""
    return event_view(await _find_stored(event_id, service, credential), service.settings.link_templates)


async def _find_stored(event_id: str, service: Service, credential: Credential) -> Stored:
    row = None
    event_id = (await service.stored_form(credential))("id", event_id)
    if 1 <= len(event_id) <= 255 and "\0" not in event_id:
        async with translated(), bound(service.database.reads, credential.log_id) as connection:
            row = await query.find_entry(connection, credential.log_id, event_id)
    if row is None or row.body is None:
        raise NotFoundError("no such event")
    return stored_from(row)
