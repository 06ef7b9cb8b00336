"""Counts: the values that filter menus offer, and how events spread over time."""

from datetime import datetime, tzinfo
from itertools import islice, pairwise
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from audit_service.api import listing, parameters, schemas
from audit_service.api.dependencies import Reader, ServerId, Service, ServiceOf, documented_security
from audit_service.core import timeline
from audit_service.core.timeline import Interval
from audit_service.errors import Fault, InvalidQueryError
from audit_service.store.counts import Facets, FacetValue, Quarters, count_facets, count_quarters
from audit_service.store.credentials import Credential
from audit_service.store.engine import bound
from audit_service.store.failures import translated

router = APIRouter(tags=["events"], dependencies=documented_security)
BUCKETS_LIMIT = 2000


@router.get(
    "/v1/facets",
    openapi_extra={"parameters": schemas.FACETS_PARAMETERS},
    responses=schemas.FACETS_RESPONSES,
    response_model=None,
)
async def get_facets(request: Request, service: ServiceOf, credential: Reader) -> Response:
    """The most frequent values of each field, with how many events have them: exact without any filter, and for up to 10,000 matching
    events; else of the newest 10,000 (`capped`)."""
    return await _facets(request, service, credential, None)


@router.get(
    "/v1/servers/{server_id:path}/facets",
    openapi_extra={"parameters": schemas.of_a_server(schemas.FACETS_PARAMETERS)},
    responses=schemas.FACETS_RESPONSES,
    response_model=None,
)
async def get_server_facets(request: Request, service: ServiceOf, credential: Reader, server_id: ServerId) -> Response:
    """The values of one server's events."""
    return await _facets(request, service, credential, server_id)


@router.get(
    "/v1/timeline",
    openapi_extra={"parameters": schemas.TIMELINE_PARAMETERS},
    responses=schemas.TIMELINE_RESPONSES,
    response_model=None,
)
async def get_timeline(request: Request, service: ServiceOf, credential: Reader) -> Response:
    """How many events occurred in each hour, day or month of a time zone: from `since`, or the first event, to `until`, or the last.
    Exact without filters and with `server_id`, `action`, `category`, `verb`, `outcome`, `target_type`, `role` and `actor_type`, negated
    too. With other filters exact for up to 10,000 events; else of the newest 10,000 (`capped`), beginning with the oldest of them."""
    return await _timeline(request, service, credential, None)


@router.get(
    "/v1/servers/{server_id:path}/timeline",
    openapi_extra={"parameters": schemas.of_a_server(schemas.TIMELINE_PARAMETERS)},
    responses=schemas.TIMELINE_RESPONSES,
    response_model=None,
)
async def get_server_timeline(
    request: Request, service: ServiceOf, credential: Reader, server_id: ServerId
) -> Response:
    """How many of one server's events occurred in each hour, day or month."""
    return await _timeline(request, service, credential, server_id)


async def _facets(request: Request, service: Service, credential: Credential, server_id: str | None) -> Response:
    asked = parameters.Query(request.query_params.multi_items(), (*parameters.filters_of(server_id), "fields", "limit"))
    selection = parameters.selection(
        asked, sight=credential.sight, server_id=server_id, stored_form=await service.stored_form(credential)
    )
    names, limit = parameters.facet_names(asked), parameters.limit(asked)
    asked.finish()
    async with (
        translated(),
        bound(service.database.reads, credential.log_id, credential.sight, one_snapshot=True) as connection,
    ):
        counted = await count_facets(connection, credential.log_id, selection, names, limit)
    return listing.answer(_facets_view(counted))


def _facets_view(counted: Facets) -> dict[str, Any]:
    return {
        "facets": {
            name: {"values": [_value_view(name, value) for value in facet.values], "more": facet.more}
            for name, facet in counted.facets.items()
        },
        "counted": counted.counted,
        "capped": counted.capped,
    }


def _value_view(name: str, value: FacetValue) -> dict[str, Any]:
    named = {"name": value.name} if name == "actor" else {}
    return {"value": value.value, **named, "count": value.count}


async def _timeline(request: Request, service: Service, credential: Credential, server_id: str | None) -> Response:
    asked = parameters.Query(request.query_params.multi_items(), (*parameters.filters_of(server_id), "interval"))
    selection = parameters.selection(
        asked, sight=credential.sight, server_id=server_id, stored_form=await service.stored_form(credential)
    )
    zone, interval = parameters.zone(asked), parameters.interval(asked)
    asked.finish()
    async with (
        translated(),
        bound(service.database.reads, credential.log_id, credential.sight, one_snapshot=True) as connection,
    ):
        counted = await count_quarters(connection, credential.log_id, selection)
    used, buckets = _buckets(counted, interval, zone)
    return listing.answer(
        {
            "timeline": buckets,
            "interval": used,
            "tz": getattr(zone, "key", "UTC"),
            "capped": counted.capped,
        }
    )


def _buckets(counted: Quarters, asked: Interval | None, zone: tzinfo) -> tuple[Interval, list[dict[str, Any]]]:
    """The buckets of what was counted, empty ones too, cut where the time asked for begins and ends, and how long they are: days when
    that is not said, or months where those would be too many, so that one event with a wrong clock takes nothing away. Raises
    InvalidQueryError."""
    interval = asked or "day"
    edges = _edges(counted, interval, zone)
    if asked is None and len(edges) > BUCKETS_LIMIT + 1:
        interval = "month"
        edges = _edges(counted, interval, zone)
    if len(edges) > BUCKETS_LIMIT + 1:
        fault = Fault(
            f"would make more than {BUCKETS_LIMIT} buckets; ask for longer ones or for less time", parameter="interval"
        )
        raise InvalidQueryError("these parameters are not valid: interval", [fault])
    return interval, [
        {
            "from": _spelled(max(start, counted.since or start), zone),
            "to": _spelled(min(stop, counted.until or stop), zone),
            "count": count,
        }
        for (start, stop), count in zip(pairwise(edges), timeline.sums(counted.counts, edges), strict=True)
    ]


def _edges(counted: Quarters, interval: Interval, zone: tzinfo) -> list[datetime]:
    """Where buckets begin and end, as far as the limit shows; none when there is nothing to count."""
    first = counted.since or min(counted.counts, default=None)
    end = counted.until or max((at + timeline.QUARTER for at in counted.counts), default=None)
    if first is None or end is None or first >= end:
        return []
    return list(islice(timeline.edges(first, end, interval, zone), BUCKETS_LIMIT + 2))


def _spelled(at: datetime, zone: tzinfo) -> str:
    """RFC 3339, with the zone's offset at that time."""
    return at.astimezone(zone).isoformat().replace("+00:00", "Z")
