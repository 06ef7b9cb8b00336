"""A page of events as an answer, the same for every list: events, next_cursor, the Link to the next page, and a count when asked for."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from fastapi import Request
from fastapi.responses import Response

from audit_service.api import parameters
from audit_service.api.cursor import format_cursor, parse_cursor
from audit_service.api.dependencies import Service
from audit_service.api.parameters import Paging
from audit_service.core.bursts import Burst
from audit_service.core.entry import JSONObject, format_time
from audit_service.core.mask import is_staff, mask_act
from audit_service.core.sight import Sight
from audit_service.core.view import event_json, event_view, stored_from
from audit_service.store import find
from audit_service.store.bursts import BurstPage, list_bursts
from audit_service.store.credentials import Credential
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.selection import Selection

ALLOWED = frozenset({*parameters.FILTERS, *parameters.SEQS, *parameters.PAGING})
# What the link to a burst's events says by itself, or has no use for.
_REPLACED = {"since", "until", *parameters.SEQS, *parameters.DATES, "limit", "cursor", "count", "fold"}


async def answer_page(
    request: Request,
    service: Service,
    credential: Credential,
    endpoint: str,
    selection: Selection,
    paging: Paging,
    beside: Mapping[str, Any] = MappingProxyType({}),
) -> Response:
    """One page of a selection, with members of its own `beside` the events. A cursor is bound to the sight too, as a part of the
    selection: whoever sees something else gets no page after it. Raises InvalidQueryError for a cursor of another list;
    `endpoint` is part of what it is bound to."""
    secret = (await service.installation()).secret
    folded = "\nfold=burst" if paging.fold else ""
    binding = f"{endpoint}\n{credential.log_id}\n{paging.sort}\n{selection!r}{folded}"
    after = None if paging.cursor is None else parse_cursor(paging.cursor, secret, binding)
    log_id, links, sight = credential.log_id, service.settings.link_templates, credential.sight
    page: find.Page | BurstPage
    async with translated(), bound(service.database.reads, log_id, sight) as connection:
        list_rows = list_bursts if paging.fold else find.list_entries
        page = await list_rows(connection, log_id, selection, sort=paging.sort, after=after, limit=paging.limit)
        counted = await find.count_entries(connection, log_id, selection) if paging.count else None
    events: list[Any]
    if isinstance(page, BurstPage):
        events = [_burst_view(request, row, burst, links, sight) for row, burst in page.rows]
    else:
        events = [orjson.Fragment(event_json(stored_from(row), links, sight)) for row in page.rows]
    cursor = None if page.next is None else format_cursor(page.next, secret, binding)
    body: dict[str, Any] = {"events": events, "next_cursor": cursor}
    if counted is not None:
        body["count"], body["count_capped"] = counted
    return answer({**body, **beside}, {} if cursor is None else {"Link": next_link(request, cursor)})


def answer(body: Mapping[str, Any], headers: Mapping[str, str] = MappingProxyType({}), status: int = 200) -> Response:
    """A body as JSON. Never cached: it is for who asked."""
    return Response(orjson.dumps(body), status, {"Cache-Control": "no-store", **headers}, "application/json")


def _own_path(request: Request) -> str:
    """The path as it was asked for, percent-encoding and all: nothing of the sender's is decoded into a link."""
    return quote(request.scope["raw_path"].decode("ascii").partition("?")[0], safe="/%")


def next_link(request: Request, cursor: str) -> str:
    """The `Link` to the page after `cursor`, with the same parameters."""
    asked_again = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    return f'<{_own_path(request)}?{urlencode([*asked_again, ("cursor", cursor)])}>; rel="next"'


def _burst_view(request: Request, row: Any, burst: Burst, links: Mapping[str, str], sight: Sight) -> JSONObject:
    """The burst's newest event, with what there is to say of them all; null of a single event."""
    told: JSONObject = {
        "count": burst.count,
        "from": format_time(burst.oldest.occurred_at),
        "to": format_time(burst.newest.occurred_at),
        "targets": burst.targets,
        "members": _members_link(request, burst, sight),
        "more": burst.more,
    }
    return {**event_view(stored_from(row), links, sight), "burst": told if burst.count > 1 else None}


def _members_link(request: Request, burst: Burst, sight: Sight) -> str:
    """The list of exactly the burst's events: in this list they stand together, so their first and last place bound them, to the
    seq within a moment. Actor and action say the same again, and keep out what of others arrives there later."""
    asked = [(name, value) for name, value in request.query_params.multi_items() if name not in _REPLACED]
    newest, oldest = mask_act(burst.newest, sight), burst.oldest
    own = {"action": newest.action, "actor_type": newest.actor_type}
    # Several values of a filter mean any of them, and an actor goes by many names: where one was asked for, that stays.
    # Nor can a member of staff be asked for whose name is hidden.
    if not is_staff(newest.actor_type, sight) and all(name != "actor" for name, _ in asked):
        own["actor"] = newest.actor_id or newest.actor_name or newest.actor_email
    said = {name: value for name, value in own.items() if value and parameters.is_askable(value)}
    places = {
        "since": format_time(oldest.occurred_at),
        "since_seq": oldest.seq,
        "until": format_time(newest.occurred_at),
        "until_seq": newest.seq + 1,
    }
    kept = [(name, value) for name, value in asked if name not in said]
    return f"{_own_path(request)}?{urlencode([*kept, *said.items(), *places.items()])}"
