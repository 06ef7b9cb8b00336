"""The chain: its head, and its verification. And exports, which read the whole of it."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast, get_args

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from audit_service import export, verify
from audit_service.api import listing, parameters, schemas
from audit_service.api.dependencies import Exporter, Service, ServiceOf, Verifier, documented_security
from audit_service.api.download import Download, in_place
from audit_service.api.logs import VERIFIED
from audit_service.api.noting import ending, filters_in, noted
from audit_service.core.chain import format_origin
from audit_service.core.checker import Depth
from audit_service.core.entry import format_time
from audit_service.core.writer import Format
from audit_service.ending import Ending, found
from audit_service.errors import UnavailableError
from audit_service.signing.public_keys import published_keys
from audit_service.store.checkpoints import fetch_latest_checkpoint
from audit_service.store.credentials import Credential
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.query import fetch_size, fetch_sound_head
from audit_service.verified import VerifiedLog
from audit_service.verify import Progress, Report
from audit_service.verify_apart import ENTRIES_HERE, verify_apart

router = APIRouter(tags=["chain"], dependencies=documented_security)
VERIFY_PARAMETERS = ("from_seq", "to_seq", "depth", "incremental", "checkpoint", "key")


@router.get("/v1/chain", responses=schemas.CHAIN_RESPONSES, response_model=None)
async def get_chain(request: Request, service: ServiceOf, credential: Verifier) -> Response:
    """Origin, size and head hash of the log. Note the head somewhere else: it is what a later log is held against."""
    parameters.Query(request.query_params.multi_items(), ()).finish()
    async with translated(), bound(service.database.reads, credential.log_id) as connection:
        head = await fetch_sound_head(connection, credential.log_id)
        last = await fetch_latest_checkpoint(connection, credential.log_id)
    try:
        origin = format_origin(head.service_name, head.log_key, head.epoch)
    except ValueError:
        raise UnavailableError("the head row of the log is damaged: verify the log, and restore the row") from None
    verified = await service.verified_logs()
    state = verified.read(credential.log_key)
    body = {
        "origin": origin,
        "size": head.size,
        "head": head.last_hash.hex(),
        "last_recorded_at": format_time(head.last_recorded_at) if head.size else None,
        "last_checkpoint": None if last is None else {"size": last.size, "signed_at": format_time(last.signed_at)},
        "last_verified": None if state is None else _last_verified(state),
        "pruned_before": head.pruned_before or None,
    }
    return listing.answer(body)


def _last_verified(state: VerifiedLog) -> dict[str, object]:
    last = state.last
    full_at = None if state.full_at is None else format_time(state.full_at)
    return {"at": format_time(last.at), "size": last.size, "status": last.status, "full_at": full_at}


@router.get(
    "/v1/chain/verify",
    openapi_extra={"parameters": schemas.RANGE_PARAMETERS},
    responses=schemas.VERIFY_RESPONSES,
    response_model=None,
)
async def verify_chain(request: Request, service: ServiceOf, credential: Verifier) -> Response:
    """Read the log and check every hash, link, disclosure and query column, or as much of that as `depth` says; answers a report with
    every break. What is gone must be explained by a control entry. Only against a checkpoint that was kept elsewhere does it
    show that the whole log was rewritten, or cut and its head reset.

    While it reads, it sends line breaks, so that no proxy takes the silence for a hang.
    """
    asked = parameters.Query(request.query_params.multi_items(), VERIFY_PARAMETERS)
    from_seq = parameters.whole_number(asked, "from_seq", default=0)
    to_seq = parameters.whole_number(asked, "to_seq", default=-1)
    depth = asked.one("depth") or "all"
    if depth not in get_args(Depth):
        asked.fail("depth", "must be chain or all")
    incremental = asked.one("incremental") or "false"
    if incremental not in {"true", "false"}:
        asked.fail("incremental", "must be true or false")
    if incremental == "true" and (from_seq or to_seq >= 0):
        asked.fail("incremental", "is not for a range")
    checkpoints = parameters.checkpoints(asked)
    trusted = parameters.keys(asked)
    asked.finish()
    state = (await service.verified_logs()).read(credential.log_key) if incremental == "true" else None
    arguments = {
        "from_seq": from_seq,
        "to_seq": to_seq if to_seq >= 0 else None,
        "depth": depth,
        "checkpoints": checkpoints,
        "trusted": trusted,
        "verified": None if state is None else state.point,
        "incremental": state is not None and state.start is not None,
        "own": published_keys(service.settings.signing_dir),
    }
    end = ending(request, credential, "audit.verify.finished", depth=depth)
    steps = _verification(service, credential, arguments)
    stream = in_place(service.verifies, request, credential, _lines(steps, end))
    first = await anext(stream)  # a range outside the log, or a database that is away, gets a status of its own
    return Download(stream, first, media_type="application/json")


async def _verification(
    service: Service, credential: Credential, arguments: dict[str, Any]
) -> AsyncGenerator[Progress | Report]:
    """The verification, in this process if it is short."""
    settings, log_id = service.settings, credential.log_id
    assert settings.database_url is not None  # noqa: S101 - `create_app` has checked it
    async with translated(), bound(service.database.reads, log_id) as connection:
        size = await fetch_size(connection, log_id)
    end = size if arguments["to_seq"] is None else arguments["to_seq"]
    if min(end, size) - arguments["from_seq"] > ENTRIES_HERE:
        url = settings.database_url.get_secret_value()
        steps = verify_apart(url, settings.statement_timeout_seconds, log_id, arguments)
    else:
        steps = verify.verify(service.database.reads, log_id, **arguments)
    async with aclosing(steps):
        async for step in steps:
            yield step


async def _lines(steps: AsyncGenerator[Progress | Report], end: Ending) -> AsyncGenerator[bytes]:
    """A line break for each step, and the report. That the log was verified is noted in it after that: the report is of the log before."""
    with end.unless_complete():
        async with aclosing(steps):
            async for step in steps:
                if not isinstance(step, Report):
                    yield b"\n"
                    continue
                VERIFIED.set(step.breaks_total)
                end.metadata |= found(step)
                await end.complete()
                yield orjson.dumps(step.as_json()) + b"\n"


@router.get(
    "/v1/export",
    openapi_extra={"parameters": schemas.EXPORT_PARAMETERS},
    responses=schemas.EXPORT_RESPONSES,
    response_model=None,
)
async def export_events(request: Request, service: ServiceOf, credential: Exporter) -> Response:
    """Everything the filters select, in seq order, as a file. Exactly what existed when the export began."""
    asked = parameters.Query(request.query_params.multi_items(), (*parameters.FILTERS, "format", "gzip"))
    selection = parameters.selection(asked, sight=credential.sight, stored_form=await service.stored_form(credential))
    format_, gzip = asked.one("format") or "ndjson", asked.one("gzip") or "false"
    if format_ not in get_args(Format):
        asked.fail("format", "must be csv, json or ndjson")
    if gzip not in {"true", "false"}:
        asked.fail("gzip", "must be true or false")
    asked.finish()
    chosen, packed = cast("Format", format_), gzip == "true"
    links = service.settings.link_templates
    filters = filters_in(request, "format", "gzip")
    end = ending(request, credential, "audit.export.finished", format=chosen, filters=filters, entries=0)
    pieces = export.export(
        service.database.reads, credential.log_id, selection, chosen, links, gzip=packed, report=end.add_entries
    )
    stream = in_place(service.exports, request, credential, noted(end, pieces))
    first = await anext(stream)  # a database that is away gets a status of its own
    # A tenant's name may hold anything; a header and a file name may not.
    name = re.sub(r"[^A-Za-z0-9._-]", "_", credential.tenant)
    return Download(
        stream,
        first,
        media_type=export.GZIP_MEDIA_TYPE if packed else export.MEDIA_TYPES[chosen],
        filename=f"audit-{name}.{chosen}{'.gz' if packed else ''}",
    )
