"""Events: send them, list them, look at one, see a server's activity."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from audit_service import ingest
from audit_service.api import parameters, schemas
from audit_service.api.cursor import format_cursor, parse_cursor
from audit_service.api.dependencies import (
    Service,
    ServiceOf,
    documented_security,
    read_body,
    require_text,
    scoped,
    too_large,
)
from audit_service.api.logs import EVENTS
from audit_service.api.problems import problem, respond
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import format_time
from audit_service.core.event import parse_json
from audit_service.core.view import event_view, stored_from
from audit_service.errors import (
    AuditError,
    Fault,
    IdempotencyConflictError,
    InputError,
    InvalidEventError,
    NotFoundError,
    TooLargeError,
    UnsupportedMediaError,
)
from audit_service.ingest import Receipt
from audit_service.store import query
from audit_service.store.credentials import Credential
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.query import Filter

router = APIRouter(tags=["events"], dependencies=documented_security)
JSON_TYPES = frozenset({"application/json"})
NDJSON_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
NDJSON_SLICE_EVENTS = 500

Ingester = Annotated[Credential, Depends(scoped("ingest"))]
Reader = Annotated[Credential, Depends(scoped("read"))]


@router.post("/v1/events", openapi_extra=schemas.INGEST_BODY, responses=schemas.INGEST_RESPONSES, response_model=None)
async def post_events(request: Request, service: ServiceOf, credential: Ingester) -> Response:
    """Send one event, a batch, or a stream of events.

    One object → 201 with its receipt (200 when replayed, or not kept). An array or `{"events": […]}` → one result for each item, in order.
    NDJSON → one result line for each line as they commit, then a trailer with the counts. Answered only when durable.
    """
    media_type = _media_type(request)
    if media_type in NDJSON_TYPES:
        log = await service.log_of(credential)
        lines = _results(service, log, request)
        first = await anext(lines)  # so that a failure before the first result still gets a status of its own
        return _WhileReceiving(_with(first, lines), media_type="application/x-ndjson")
    data = await read_body(request, service.settings.body_limit_bytes)
    require_text(data)
    value = parse_json(data)
    log, recipe = await service.log_of(credential), await service.recipe()
    key = _idempotency_key(request)
    events = _batch(value)
    if events is None:
        (outcome,) = await ingest.ingest(service.appender(recipe), recipe, log, [value], default_ids=[key])
        return _single(outcome)
    if len(events) > service.settings.batch_limit_events:
        limit = service.settings.batch_limit_events
        raise TooLargeError(
            f"a batch holds at most {limit} events", [Fault(f"holds more than {limit} events", "/events")]
        )
    keys = [None if key is None else f"{key}/{index}" for index in range(len(events))]
    outcomes = await ingest.ingest(service.appender(recipe), recipe, log, events, default_ids=keys)
    return _batch_response(outcomes)


class _WhileReceiving(StreamingResponse):
    """A response that begins while its request's body still arrives. Starlette's own would wait for a disconnect by reading
    from the same stream, and so eat the body's chunks; here the one who reads the body notices a disconnect."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await self.stream_response(send)


def _media_type(request: Request) -> str:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", ""}:
        raise UnsupportedMediaError("the body must not be compressed: send Content-Encoding: identity")
    full = request.headers.get("content-type", "")
    media_type, _, options = full.partition(";")
    media_type = media_type.strip().lower()
    if "charset" in options.lower() and "utf-8" not in options.lower().replace('"', ""):
        raise UnsupportedMediaError("the body must be UTF-8: send Content-Type: application/json")
    if media_type not in JSON_TYPES | NDJSON_TYPES:
        raise UnsupportedMediaError(
            "send JSON with the header Content-Type: application/json, or lines of JSON with application/x-ndjson"
        )
    return media_type


def _idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key header, bare or as the quoted string of the IETF draft."""
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    key = values[0].strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if len(values) > 1 or not 1 <= len(key) <= 240 or not key.isprintable() or not key.isascii():
        raise InvalidEventError(
            "the Idempotency-Key is not valid",
            [Fault("must be one value of 1 to 240 visible ASCII characters", parameter="Idempotency-Key")],
        )
    return key


def _batch(value: JSONValue) -> list[JSONValue] | None:
    """The events of a batch, or None for a single event."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and "events" in value and "action" not in value:
        others = [Fault("is not a member of a batch", f"/{name[:64]}") for name in value if name != "events"]
        if others or not isinstance(value["events"], list):
            raise InvalidEventError('a batch is {"events": […]}', others or [Fault("must be an array", "/events")])
        return value["events"]
    return None


def receipt_view(receipt: Receipt) -> dict[str, Any]:
    """A receipt as JSON."""
    return {
        "id": receipt.id,
        "origin": receipt.origin,
        "seq": receipt.seq,
        "recorded_at": format_time(receipt.recorded_at),
        "hash": None if receipt.hash is None else receipt.hash.hex(),
        "prev_hash": None if receipt.prev_hash is None else receipt.prev_hash.hex(),
        "kept": receipt.kept,
    }


def _status(outcome: Receipt | AuditError) -> int:
    if isinstance(outcome, Receipt):
        fresh = outcome.kept and not outcome.replayed
        EVENTS.labels("appended" if fresh else "replayed" if outcome.replayed else "not_kept").inc()
        return 201 if fresh else 200
    EVENTS.labels("conflict" if isinstance(outcome, IdempotencyConflictError) else "rejected").inc()
    return int(problem(outcome)["status"])


def _single(outcome: Receipt | AuditError) -> Response:
    status = _status(outcome)
    if isinstance(outcome, AuditError):
        return respond(outcome)
    headers = {"Idempotent-Replayed": "true"} if outcome.replayed else {}
    return Response(orjson.dumps(receipt_view(outcome)), status, headers, "application/json")


def _result(outcome: Receipt | AuditError) -> dict[str, Any]:
    status = _status(outcome)
    if isinstance(outcome, AuditError):
        return {"status": status, "problem": problem(outcome)}
    return {"status": status, "replayed": outcome.replayed, "receipt": receipt_view(outcome)}


def _batch_response(outcomes: Sequence[Receipt | AuditError]) -> Response:
    results = [_result(outcome) for outcome in outcomes]
    accepted = sum(isinstance(outcome, Receipt) for outcome in outcomes)
    status = 201 if accepted == len(results) else 207 if accepted else 422
    body = {"accepted": accepted, "rejected": len(results) - accepted, "results": results}
    return Response(orjson.dumps(body), status, media_type="application/json")


async def _results(service: Service, log: ingest.Log, request: Request) -> AsyncIterator[bytes]:
    """Result lines of an NDJSON body, a slice at a time, then the trailer."""
    recipe, key = await service.recipe(), _idempotency_key(request)
    accepted = rejected = 0
    problem_at_end: dict[str, Any] | None = None
    slices = _slices(request, service.settings.body_limit_bytes, service.settings.stream_limit_bytes)
    try:
        async for lines in slices:
            values = [_parse_line(line) for line in lines]
            start = accepted + rejected
            keys = [None if key is None else f"{key}/{start + index}" for index in range(len(values))]
            outcomes = await ingest.ingest(service.appender(recipe), recipe, log, values, default_ids=keys)
            accepted += sum(isinstance(outcome, Receipt) for outcome in outcomes)
            rejected += sum(not isinstance(outcome, Receipt) for outcome in outcomes)
            yield b"".join(orjson.dumps(_result(outcome)) + b"\n" for outcome in outcomes)
    except AuditError as error:
        if not accepted + rejected:
            raise
        # Lines before this point have their results; the sender resumes after them, with the same ids.
        problem_at_end = problem(error)
    trailer: dict[str, Any] = {
        "trailer": True,
        "accepted": accepted,
        "rejected": rejected,
        "complete": problem_at_end is None,
    }
    if problem_at_end is not None:
        trailer["problem"] = problem_at_end
    yield orjson.dumps(trailer) + b"\n"


def _parse_line(line: bytes | InputError) -> "JSONValue | AuditError":
    if isinstance(line, InputError):
        return line
    try:
        return parse_json(line)
    except InputError as error:
        return error


async def _slices(request: Request, line_limit: int, body_limit: int) -> AsyncIterator[list[bytes | InputError]]:
    """The non-blank lines of a body in slices of NDJSON_SLICE_EVENTS, holding one slice and one line at a time."""
    pending, lines, total, skipping = b"", list[bytes | InputError](), 0, False
    async for chunk in request.stream():
        total += len(chunk)
        if total > body_limit:
            raise too_large(body_limit)
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            if skipping:
                skipping = False
            elif len(line) > line_limit:
                lines.append(too_large(line_limit))
            elif line.strip():
                lines.append(line)
        if len(pending) > line_limit:
            if not skipping:
                lines.append(too_large(line_limit))
            pending, skipping = b"", True
        while len(lines) >= NDJSON_SLICE_EVENTS:
            yield lines[:NDJSON_SLICE_EVENTS]
            lines = lines[NDJSON_SLICE_EVENTS:]
    if pending.strip() and not skipping:
        lines.append(pending)
    if lines:
        yield lines


async def _with(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for item in rest:
        yield item


@router.get(
    "/v1/events",
    openapi_extra={"parameters": schemas.LIST_PARAMETERS},
    responses=schemas.LIST_RESPONSES,
    response_model=None,
)
async def list_events(request: Request, service: ServiceOf, credential: Reader) -> Response:
    """Events that match every filter, newest first. A filter given twice means any of its values."""
    return await _page(request, service, credential, "/v1/events", ())


@router.get(
    "/v1/servers/{server_id}/activity",
    openapi_extra={"parameters": schemas.ACTIVITY_PARAMETERS},
    responses=schemas.LIST_RESPONSES,
    response_model=None,
)
async def list_activity(server_id: str, request: Request, service: ServiceOf, credential: Reader) -> Response:
    """One server's events, with the same filters. A server without events answers an empty list."""
    if not 1 <= len(server_id) <= 255 or "\0" in server_id:
        raise NotFoundError("no such server")
    fixed = (Filter("server_id", (server_id,)),)
    return await _page(request, service, credential, f"/v1/servers/{server_id}/activity", fixed)


async def _page(
    request: Request, service: Service, credential: Credential, endpoint: str, fixed: tuple[Filter, ...]
) -> Response:
    asked = parameters.Query(
        request.query_params.multi_items(),
        (set(parameters.FILTERS) - {item.field for item in fixed}) | set(parameters.PAGING),
    )
    secret = (await service.installation()).secret
    selection = parameters.selection(
        asked, fixed=fixed, hash_session=lambda value: ingest.hash_session(value, secret, credential.log_id)
    )
    paging = parameters.paging(asked)
    asked.finish()
    binding = f"{endpoint}\n{credential.log_id}\n{paging.sort}\n{selection!r}"
    after = None if paging.cursor is None else parse_cursor(paging.cursor, secret, binding)
    async with translated(), bound(service.database.reads, credential.log_id) as connection:
        page = await query.list_entries(
            connection, credential.log_id, selection, sort=paging.sort, after=after, limit=paging.limit
        )
        counted = await query.count_entries(connection, credential.log_id, selection) if paging.count else None
    links = service.settings.link_templates
    body: dict[str, Any] = {
        "events": [event_view(stored_from(row), links) for row in page.rows],
        "next_cursor": None,
    }
    headers = {"Cache-Control": "no-store"}
    if page.next is not None:
        body["next_cursor"] = format_cursor(page.next, secret, binding)
        asked_again = [(n, v) for n, v in request.query_params.multi_items() if n != "cursor"]
        next_url = request.url.replace(query=urlencode([*asked_again, ("cursor", body["next_cursor"])]))
        headers["Link"] = f'<{next_url}>; rel="next"'
    if counted is not None:
        body["count"], body["count_capped"] = counted
    return Response(orjson.dumps(body), headers=headers, media_type="application/json")


@router.get("/v1/events/{event_id:path}", responses=schemas.EVENT_RESPONSES, response_model=None)
async def get_event(event_id: str, request: Request, service: ServiceOf, credential: Reader) -> Response:
    """One event with its place in the chain."""
    parameters.Query(request.query_params.multi_items(), ()).finish()
    row = None
    if 1 <= len(event_id) <= 255 and "\0" not in event_id:
        async with translated(), bound(service.database.reads, credential.log_id) as connection:
            row = await query.find_entry(connection, credential.log_id, event_id)
    if row is None or row.body is None:
        raise NotFoundError("no such event")
    view = event_view(stored_from(row), service.settings.link_templates)
    return Response(orjson.dumps(view), headers={"Cache-Control": "no-store"}, media_type="application/json")
