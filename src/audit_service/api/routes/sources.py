"""The producers of a log, with the numbers that are missing between their events: an event that was never sent shows here."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from audit_service.api import listing, parameters, schemas
from audit_service.api.cursor import format_name_cursor, parse_name_cursor
from audit_service.api.dependencies import ServiceOf, WholeReader, documented_security
from audit_service.core.control import SOURCE_ID
from audit_service.core.entry import format_time
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.sources import Ranges, Source, list_sources

router = APIRouter(tags=["events"], dependencies=documented_security)
_PATH = "/v1/sources"


@router.get(
    _PATH,
    openapi_extra={"parameters": schemas.SOURCES_PARAMETERS},
    responses=schemas.SOURCES_RESPONSES,
    response_model=None,
)
async def get_sources(request: Request, service: ServiceOf, credential: WholeReader) -> Response:
    """The producers (`source.id`) of the log, by id: their events, and which numbers (`source.seq`) between the first and the last no event
    has, and which several have. What retention has taken stays counted. A number is missing also when its event was sent but not kept,
    because nothing had changed in it."""
    asked = parameters.Query(request.query_params.multi_items(), ("source", "below", "limit", "cursor"))
    ids, below = sorted(set(asked.many("source"))), parameters.source_number(asked, "below")
    limit, cursor = parameters.limit(asked), asked.one("cursor")
    asked.finish()
    secret = (await service.installation()).secret
    binding = f"{_PATH}\n{credential.log_id}\n{ids!r}\n{below}"
    after = "" if cursor is None else parse_name_cursor(cursor, secret, binding)
    async with translated(), bound(service.database.reads, credential.log_id, one_snapshot=True) as connection:
        page = await list_sources(connection, credential.log_id, ids, after=after, below=below, limit=limit)
    following = format_name_cursor(page.sources[-1].id, secret, binding) if page.more else None
    shown = [source for source in page.sources if credential.sight.own_entries or source.id != SOURCE_ID]
    body = {
        "sources": [_source_view(source) for source in shown],
        "counted": page.counted,
        "size": page.size,
        "next_cursor": following,
    }
    return listing.answer(body, {} if following is None else {"Link": listing.next_link(request, following)})


def _source_view(source: Source) -> dict[str, Any]:
    return {
        "id": source.id,
        "events": source.events,
        "numbered": source.numbered,
        "first_seq": source.first_seq,
        "last_seq": source.last_seq,
        "last_recorded_at": format_time(source.last_recorded_at),
        "holes": _ranges_view(source.holes),
        "duplicates": _ranges_view(source.duplicates),
    }


def _ranges_view(ranges: Ranges) -> dict[str, Any]:
    return {"ranges": ranges.listed, "more": ranges.more, "total": ranges.total, "numbers": ranges.numbers}
