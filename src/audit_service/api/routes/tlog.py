"""The log as static resources (C2SP tlog-tiles) under `/tlog/<log key>`: checkpoint, hash tiles, entry bundles.

Nothing personal is in them: an entry here is its header, seven lines of hashes, numbers and times. With AUDIT_TLOG_PUBLIC they are
for everybody; otherwise for credentials of that tenant with the scope `verify` that see the whole log, and only a private cache may
keep them.
"""

import gzip

from fastapi import APIRouter, Request
from fastapi.responses import Response

from audit_service.api import parameters, schemas
from audit_service.api.dependencies import Service, ServiceOf, authorize, documented_security, open_to_all
from audit_service.core.tile_path import parse_position, parse_tile
from audit_service.core.tiles import Tile
from audit_service.errors import MalformedError, NotFoundError
from audit_service.store import credentials
from audit_service.store.engine import connected
from audit_service.store.failures import translated
from audit_service.stored_tree import StoredTree
from audit_service.tlog import fetch_entries, fetch_tile

router = APIRouter(tags=["tlog"], dependencies=documented_security)
CHECKPOINT_SECONDS = 2
TILE_SECONDS = 365 * 24 * 3600
_ENTRIES = "entries/"
# Level 1 takes a third of the time of the usual 6.
_GZIP_LEVEL = 1
_OCTETS = "application/octet-stream"


@router.get("/tlog/{log_key}/checkpoint", responses=schemas.TLOG_CHECKPOINT_RESPONSES, response_model=None)
async def get_checkpoint(log_key: str, request: Request, service: ServiceOf) -> Response:
    """The latest signed checkpoint (C2SP tlog-checkpoint)."""
    tree = await _tree(log_key, request, service)
    signed = await tree.fetch_latest()
    if signed is None:
        raise NotFoundError("nothing was signed yet")
    headers = _cached(service, f"max-age={CHECKPOINT_SECONDS}")
    return Response(signed.note, headers=headers, media_type="text/plain; charset=utf-8")


@router.get("/tlog/{log_key}/tile/{path:path}", responses=schemas.TLOG_TILE_RESPONSES, response_model=None)
async def get_tile(log_key: str, path: str, request: Request, service: ServiceOf) -> Response:
    """A hash tile, `<level>/<number>[.p/<width>]`, or an entry bundle, `entries/<number>[.p/<width>]`, up to the size of the latest
    checkpoint. Neither ever changes."""
    tree = await _tree(log_key, request, service)
    tile = _tile(path)
    headers = _cached(service, f"max-age={TILE_SECONDS}, immutable")
    if not path.startswith(_ENTRIES):
        return Response(await fetch_tile(tree, tile), headers=headers, media_type=_OCTETS)
    content = await fetch_entries(tree, tile)
    headers["Vary"] = ", ".join(filter(None, (headers.get("Vary"), "Accept-Encoding")))
    if _takes_gzip(request):  # the specification asks for it; hashes do not compress, headers do by half
        content = gzip.compress(content, _GZIP_LEVEL, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(content, headers=headers, media_type=_OCTETS)


async def _tree(log_key: str, request: Request, service: Service) -> StoredTree:
    """The log of a path, if the caller may see it. Raises NotFoundError for every other, UnauthenticatedError, ForbiddenError."""
    asked = parameters.Query(request.query_params.multi_items(), ())
    if service.settings.tlog_public:
        await open_to_all(request)
        asked.finish()
        async with translated(), connected(service.database.reads) as connection:
            log_id = await credentials.find_log_id(connection, log_key) if "\0" not in log_key else None
    else:
        credential = await authorize(request, "verify", whole=True)
        asked.finish()
        log_id = credential.log_id if credential.log_key == log_key else None
    if log_id is None:
        raise NotFoundError("no such log")
    return await service.tree_of(log_id, log_key)


def _tile(path: str) -> Tile:
    """The tile of a path; there is none at any other spelling. Raises NotFoundError."""
    try:
        if path.startswith(_ENTRIES):
            return Tile(0, *parse_position(path.removeprefix(_ENTRIES)))
        return parse_tile(path)
    except MalformedError as error:
        raise NotFoundError(f"no such tile: {error.detail}") from None


def _cached(service: Service, directives: str) -> dict[str, str]:
    if service.settings.tlog_public:
        return {"Cache-Control": f"public, {directives}"}
    return {"Cache-Control": f"private, {directives}", "Vary": "Authorization"}


def _takes_gzip(request: Request) -> bool:
    """Whether the client takes gzip by name (RFC 9110 section 12.5.3); a weight of 0 is a no."""
    for part in request.headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "").rstrip("0.") != "q="
    return False
