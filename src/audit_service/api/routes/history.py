"""A target's history: its events, its fields as of a time with who last set each; and the patch that would undo an event.

Ids may hold slashes, so both paths are read from the request as it was sent, where `%2F` is not `/`: a target's type ends at the first
slash (its own are `%2F`), and an event whose id ends in `/revert` is `…%2Frevert`.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

from fastapi import APIRouter, Request
from fastapi.responses import Response

from audit_service.api import listing, parameters, schemas
from audit_service.api.dependencies import Reader, Service, ServiceOf, raw_path, reads_in_turn
from audit_service.api.routes.events import find_view, get_event
from audit_service.core.entry import JSONObject, format_time
from audit_service.core.history import Walk, WalkLimits, past_event
from audit_service.core.revert import revert
from audit_service.errors import NotFoundError
from audit_service.store.credentials import Credential
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.history import STATE_GROUPS, is_dropped_after, is_target_erased_after, stream_newest
from audit_service.store.selection import Filter, Selection

router = APIRouter(tags=["history"], dependencies=reads_in_turn)
_INSTANT = timedelta(microseconds=1)


# Not two `:path`s: a path of sixteen thousand slashes would be split in every way there is.
@router.get(
    "/v1/targets/{target_type}/{target_id:path}/history",
    openapi_extra={"parameters": schemas.HISTORY_PARAMETERS},
    responses=schemas.HISTORY_RESPONSES,
    response_model=None,
)
async def list_history(
    target_type: str, target_id: str, request: Request, service: ServiceOf, credential: Reader
) -> Response:
    """One target's events, with the same filters; on the first page its fields as of `at`, whatever the filters, with who last set
    each. A target without events answers an empty list, and `exists` null."""
    target_type, target_id = _target(request)
    own = (Filter("target_type", (target_type,)), Filter("target_id", (target_id,)))
    allowed = {*listing.ALLOWED, "at"} - {"target_type", "target_id"}
    asked = parameters.Query(request.query_params.multi_items(), allowed)
    asked_filters = parameters.selection(
        asked, sight=credential.sight, stored_form=await service.stored_form(credential)
    )
    at = parameters.instant(asked, "at")
    selection = replace(asked_filters, filters=(*asked_filters.filters, *own))
    paging = parameters.paging(asked)
    asked.finish()
    state = await _state(service, credential, own, at) if paging.cursor is None else None
    return await listing.answer_page(request, service, credential, "/v1/targets", selection, paging, {"state": state})


def _target(request: Request) -> tuple[str, str]:
    """Type and id of the path as it was sent. Raises NotFoundError for what no event can have."""
    parts = raw_path(request).split(b"/")  # ['', 'v1', 'targets', type, id…, 'history']
    kind, identifier = unquote(b"/".join(parts[3:4])), unquote(b"/".join(parts[4:-1]))
    if not 1 <= len(kind) <= 128 or not 1 <= len(identifier) <= 255 or "\0" in kind + identifier:
        raise NotFoundError("no such target")
    return kind, identifier


async def _state(
    service: Service, credential: Credential, target: tuple[Filter, Filter], at: datetime | None
) -> JSONObject:
    """The target's state after every event that occurred at `at` or before; of all events when `at` is None. For a sight that does not see
    every row it is what the events say that are seen: never complete, and without drift."""
    # The end of a range is exclusive, and the calendar has an end.
    until = None if at is None or at > datetime.max.replace(tzinfo=UTC) - _INSTANT else at + _INSTANT
    selection = Selection(sight=credential.sight, filters=target, until=until)
    settings = service.settings
    walk = Walk(
        str(target[0].values[0]),
        ignored=frozenset(settings.ignored_fields),
        limits=WalkLimits(events=settings.history_limit_events),
    )
    newest: datetime | None = None
    done = False
    async for rows in stream_newest(service.database.reads, credential.log_id, selection):
        for row in rows:
            newest = newest or row.occurred_at
            stored = {group: value for group in STATE_GROUPS if (value := getattr(row, f"d_{group}")) is not None}
            done = walk.take(past_event(row.seq, row.id, row.body, stored, row.size_bytes, credential.sight))
            if done:
                break
        if done:
            break
    # What somebody else did to the target, where it is not seen, would read as a change made outside the log.
    sees_all = credential.sight.sees_every_row
    lost = not sees_all
    if sees_all and walk.anchor_seq is not None:
        async with translated(), bound(service.database.reads, credential.log_id, credential.sight) as connection:
            place = (connection, credential.log_id, walk.anchor_seq)
            lost = await is_dropped_after(*place) or await is_target_erased_after(*place, str(target[0].values[0]))
    # Without `at`, an event whose clock ran ahead counts too: nobody wants a state without the change they have just made.
    shown = at or max(datetime.now(UTC), newest or datetime.min.replace(tzinfo=UTC))
    state = walk.state(lost=lost)
    return {"at": format_time(shown), **state, **({} if sees_all else {"drift": [], "drift_total": 0})}


@router.get("/v1/events/{event_id:path}/revert", responses=schemas.REVERT_RESPONSES, response_model=None)
async def get_revert(event_id: str, request: Request, service: ServiceOf, credential: Reader) -> Response:
    """A JSON Patch (RFC 6902) with `test` operations that would undo one event, and what of it cannot be undone. Nothing is changed
    here: the log has no way to reach the panel's rows."""
    if not raw_path(request).endswith(b"/revert"):
        return await get_event(f"{event_id}/revert", request, service, credential)
    parameters.Query(request.query_params.multi_items(), ()).finish()
    event = await find_view(event_id, service, credential)
    members = ("action", "verb", "occurred_at", "target")
    inverse_of = {name: event[name] for name in members}
    body = {"id": event["id"], "seq": event["seq"], "inverse_of": inverse_of, **revert(event)}
    return listing.answer(body)
