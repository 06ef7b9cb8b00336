"""Signed checkpoints of the log, as the notes they are (C2SP tlog-checkpoint), for whoever keeps them elsewhere."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from audit_service.api import listing, parameters, schemas
from audit_service.api.cursor import format_cursor, parse_cursor
from audit_service.api.dependencies import ServiceOf, Verifier, documented_security
from audit_service.errors import NotFoundError
from audit_service.store.checkpoints import fetch_latest_checkpoint, list_checkpoints
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.selection import Position

router = APIRouter(tags=["chain"], dependencies=documented_security)
MEDIA_TYPE = "text/plain; charset=utf-8"
_PATH = "/v1/chain/checkpoints"
# The signer's usual interval: nothing newer can be missed for longer. For who asked only: a shared cache would skip the credential.
_CACHED = {"Cache-Control": "private, max-age=2", "Vary": "Authorization"}


@router.get("/v1/chain/checkpoint", responses=schemas.CHECKPOINT_RESPONSES, response_model=None)
async def get_checkpoint(request: Request, service: ServiceOf, credential: Verifier) -> Response:
    """The latest checkpoint, a signed note. 404 before the first."""
    parameters.Query(request.query_params.multi_items(), ()).finish()
    async with translated(), bound(service.database.reads, credential.log_id) as connection:
        found = await fetch_latest_checkpoint(connection, credential.log_id)
    if found is None:
        raise NotFoundError("no checkpoint of this log was signed yet")
    return Response(found.note, headers=_CACHED, media_type=MEDIA_TYPE)


@router.get(
    _PATH,
    openapi_extra={"parameters": schemas.CHECKPOINTS_PARAMETERS},
    responses=schemas.CHECKPOINTS_RESPONSES,
    response_model=None,
)
async def get_checkpoints(request: Request, service: ServiceOf, credential: Verifier) -> Response:
    """One note for each size that was signed, smallest first, an empty line between them; the next page is in the Link header.

    Of a size that was signed more than once, the note signed last. After a `resume`, notes of the earlier epoch may be of entries that
    were lost: its origin ends in that epoch, and the `resume` entry says from which size on.
    """
    asked = parameters.Query(request.query_params.multi_items(), ("from_size", "to_size", "limit", "cursor"))
    from_size = parameters.whole_number(asked, "from_size", default=0)
    to_size = parameters.whole_number(asked, "to_size", default=-1)
    limit = parameters.limit(asked)
    cursor = asked.one("cursor")
    asked.finish()
    secret = (await service.installation()).secret
    binding = f"{_PATH}\n{credential.log_id}\n{from_size}\n{to_size}"
    start = from_size if cursor is None else parse_cursor(cursor, secret, binding).seq + 1
    async with translated(), bound(service.database.reads, credential.log_id) as connection:
        found = await list_checkpoints(
            connection,
            credential.log_id,
            from_size=start,
            to_size=None if to_size < 0 else to_size,
            limit=limit + 1,
        )
    page = found[:limit]
    headers = dict(_CACHED)
    if len(found) > limit:
        following = format_cursor(Position(page[-1].signed_at, page[-1].size), secret, binding)
        headers["Link"] = listing.next_link(request, following)
    return Response("\n".join(one.note for one in page), headers=headers, media_type=MEDIA_TYPE)
