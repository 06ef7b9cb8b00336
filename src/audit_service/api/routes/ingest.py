"""POST /v1/events: every framing and media type that brings events, on one path.

The endpoint is a plain Starlette route: FastAPI's parameter machinery would cost as much as sealing the event, and its
body handling would parse with another parser. `documentation` declares the same path for the OpenAPI document.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import orjson
from fastapi import APIRouter, FastAPI
from fastapi.responses import Response, StreamingResponse
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from audit_service import ingest
from audit_service.api import schemas
from audit_service.api.body import line_slices, read_body, require_text
from audit_service.api.dependencies import (
    EVENTS_REFUSED,
    Service,
    authenticate,
    authorize,
    documented_security,
    require_scope,
    service_of,
)
from audit_service.api.logs import EVENTS
from audit_service.api.problems import problem, respond
from audit_service.api.result_spool import ResultSpool
from audit_service.core import cloudevent
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import format_time
from audit_service.core.event import parse_json, pointer
from audit_service.errors import (
    AuditError,
    BeyondLimitsError,
    Fault,
    ForbiddenError,
    IdempotencyConflictError,
    InputError,
    InvalidEventError,
    MalformedError,
    RateLimitedError,
    TooLargeError,
    UnauthenticatedError,
    UnsupportedMediaError,
)
from audit_service.ingest import Item, Log, Outcome, Receipt, Recipe
from audit_service.store.credentials import Credential

JSON_TYPES = frozenset({"application/json"})
# Senders that hand over a string label it so (fetch), or do not label it at all: taken when it is JSON.
LOOSE_TYPES = frozenset({"text/plain", ""})
NDJSON_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
CLOUDEVENT_TYPE = "application/cloudevents+json"
CLOUDEVENTS_TYPE = "application/cloudevents-batch+json"
TAKEN_TYPES = JSON_TYPES | LOOSE_TYPES | NDJSON_TYPES | {CLOUDEVENT_TYPE, CLOUDEVENTS_TYPE}
ADVICE = (
    "send JSON with the header Content-Type: application/json, lines of JSON with application/x-ndjson, "
    "or a CloudEvent with application/cloudevents+json"
)
KEY_CHARACTERS = 240
PATH = "/v1/events"


async def post_events(request: Request) -> Response:
    """Take one event, a batch, or a stream. Answers only when what it acknowledges is durable."""
    request.scope["route"] = _ROUTE  # for log and metrics; FastAPI does this for its own
    service = service_of(request)
    credential = await authorize(request, "ingest")
    log, recipe = await service.log_of(credential), await service.recipe()
    key = idempotency_key(request, recipe, log)
    media_type = _media_type(request)
    if media_type in NDJSON_TYPES and not cloudevent.is_binary(request.headers):
        return _Duplex(service, credential, recipe, log, request, key)
    data = await read_body(request, service.settings.body_limit_bytes)
    try:
        values, single = _values(data, media_type, request.headers)
    except InputError as error:
        raise ingest.without_secrets(error, recipe.rules) from None
    if single:
        (outcome,) = await ingest.ingest(service.appender(recipe), recipe, log, values, default_ids=[key])
        return _single(outcome)
    limit = service.settings.batch_limit_events
    if len(values) > limit:
        raise TooLargeError(
            f"a batch holds at most {limit} events", [Fault(f"holds more than {limit} events", "/events")]
        )
    service.rates.admit_batch(request.scope, credential, len(values))
    outcomes = await ingest.ingest(
        service.appender(recipe), recipe, log, values, default_ids=_keys(key, 0, len(values))
    )
    count(request, outcomes)
    return _batch_response(outcomes)


def _values(data: bytes, media_type: str, headers: Mapping[str, str]) -> tuple[list[Item], bool]:
    """The events of a body, and whether it was a single one."""
    # Its own media type says structured, whatever stands in the headers (HTTP binding, section 3).
    if cloudevent.is_binary(headers) and media_type not in {CLOUDEVENT_TYPE, CLOUDEVENTS_TYPE}:
        return [cloudevent.from_binary(headers, _ce_data(data, media_type))], True
    require_text(data)
    if media_type in LOOSE_TYPES and not data.lstrip().startswith((b"{", b"[")):
        raise UnsupportedMediaError(ADVICE)
    value = parse_json(data)
    if media_type == CLOUDEVENT_TYPE:
        return [cloudevent.from_structured(value)], True
    if media_type == CLOUDEVENTS_TYPE:
        if not isinstance(value, list):
            raise InvalidEventError("a batch of CloudEvents is an array", [Fault("must be an array", "")])
        return [_or_error(envelope) for envelope in value], False
    events = _batch(value)
    return ([value], True) if events is None else ([*events], False)


def _ce_data(data: bytes, media_type: str) -> JSONValue:
    if not data:
        return None
    if cloudevent.is_json(media_type):
        return parse_json(data)
    if media_type in LOOSE_TYPES:
        with suppress(MalformedError):
            return parse_json(data)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UnsupportedMediaError("the data of a CloudEvent must be JSON or UTF-8 text") from None


def _or_error(envelope: JSONValue) -> Item:
    try:
        return cloudevent.from_structured(envelope)
    except InputError as error:
        return error


def _media_type(request: Request) -> str:
    """The media type without options, if it is one we take."""
    sent = request.headers.get("content-type", "")
    if sent in JSON_TYPES:  # nearly every one
        return sent
    media_type, _, options = sent.partition(";")
    media_type = media_type.strip().lower()
    if "charset" in options.lower() and "utf-8" not in options.lower().replace('"', ""):
        raise UnsupportedMediaError("the body must be UTF-8: send Content-Type: application/json")
    if media_type not in TAKEN_TYPES and not cloudevent.is_binary(request.headers):
        raise UnsupportedMediaError(ADVICE)
    return media_type


def idempotency_key(request: Request, recipe: Recipe, log: Log) -> str | None:
    """The Idempotency-Key header, bare or as the quoted string of draft-ietf-httpapi-idempotency-key-header. Made
    safe like every id: it is stored."""
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    key = values[0].strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if len(values) > 1 or not 1 <= len(key) <= KEY_CHARACTERS or not key.isprintable() or not key.isascii():
        fault = Fault(
            f"must be one value of 1 to {KEY_CHARACTERS} visible ASCII characters", parameter="Idempotency-Key"
        )
        raise InvalidEventError("the Idempotency-Key is not valid", [fault])
    return ingest.safe_id(key, recipe, log)


def _keys(key: str | None, start: int, count: int) -> list[str | None]:
    return [None if key is None else f"{key}/{index}" for index in range(start, start + count)]


def _batch(value: JSONValue) -> list[JSONValue] | None:
    """The events of a batch, or None for a single event."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and "events" in value and "action" not in value:
        others = [Fault("is not a member of a batch", pointer((name,))) for name in value if name != "events"]
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


_COUNTERS = {name: EVENTS.labels(name) for name in ("appended", "replayed", "not_kept", "conflict", "rejected")}


def _fate(outcome: Outcome) -> str:
    if isinstance(outcome, Receipt):
        return "replayed" if outcome.replayed else "appended" if outcome.kept else "not_kept"
    return "conflict" if isinstance(outcome, IdempotencyConflictError) else "rejected"


def count(request: Request, outcomes: Sequence[Outcome]) -> None:
    """Count what became of events in the metrics, once for all of a request's: a counter costs as much as a diff. And those that the
    credential may not post, for what is noted of the request."""
    beyond = sum(isinstance(outcome, BeyondLimitsError) for outcome in outcomes)
    if beyond:
        state = request.scope.setdefault("state", {})
        state[EVENTS_REFUSED] = state.get(EVENTS_REFUSED, 0) + beyond
    for fate, number in Counter(map(_fate, outcomes)).items():
        _COUNTERS[fate].inc(number)


def status_of(outcome: Outcome) -> int:
    """The status of one outcome."""
    if isinstance(outcome, Receipt):
        return 201 if outcome.kept and not outcome.replayed else 200
    return int(problem(outcome)["status"])


def _single(outcome: Outcome) -> Response:
    _COUNTERS[_fate(outcome)].inc()
    if isinstance(outcome, AuditError):
        return respond(outcome)
    return _ReceiptResponse(orjson.dumps(receipt_view(outcome)), status_of(outcome), replayed=outcome.replayed)


class _ReceiptResponse(Response):
    """One receipt. Its headers are written here: Starlette's way of making them takes as long as a diff."""

    def __init__(self, body: bytes, status: int, *, replayed: bool) -> None:
        self.body, self.status_code, self.background = body, status, None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        if replayed:
            self.raw_headers.append((b"idempotent-replayed", b"true"))


def _result(outcome: Outcome) -> dict[str, Any]:
    status = status_of(outcome)
    if isinstance(outcome, AuditError):
        return {"status": status, "problem": problem(outcome)}
    return {"status": status, "replayed": outcome.replayed, "receipt": receipt_view(outcome)}


def _batch_response(outcomes: Sequence[Outcome]) -> Response:
    results = [_result(outcome) for outcome in outcomes]
    accepted = sum(isinstance(outcome, Receipt) for outcome in outcomes)
    status = 200 if not results else 201 if accepted == len(results) else 207 if accepted else 422
    body = {"accepted": accepted, "rejected": len(results) - accepted, "results": results}
    return Response(orjson.dumps(body), status, media_type="application/json")


class _Duplex(StreamingResponse):
    """The answer to an NDJSON body, sent while the body still arrives: a result line for each line, in order, then a trailer.

    Two tasks: one reads the body and appends, the other sends. Starlette's own streaming would wait for a disconnect by
    reading from the same stream, and so eat the body; here the reader notices a disconnect.
    """

    def __init__(
        self, service: Service, credential: Credential, recipe: Recipe, log: Log, request: Request, key: str | None
    ) -> None:
        super().__init__(iter(()), media_type="application/x-ndjson")
        self._service, self._credential, self._recipe, self._log = service, credential, recipe, log
        self._request, self._key = request, key
        self._accepted = self._rejected = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        with ResultSpool() as spool:
            reader = asyncio.create_task(self._process(spool))
            pieces = spool.pieces()
            try:
                first = await anext(pieces)  # a failure before the first result still gets a status of its own
                self.body_iterator = _with(first, pieces)
                await self.stream_response(send)
            finally:
                reader.cancel()
                with suppress(asyncio.CancelledError):
                    await reader

    async def _process(self, spool: ResultSpool) -> None:
        """Append the body and end the spool in every case: with the trailer, or with the error when there is no result before it."""
        try:
            spool.write(self._trailer(await self._append_lines(spool)))
        except BaseException as error:
            spool.end(error)
            raise
        spool.end()

    async def _append_lines(self, spool: ResultSpool) -> dict[str, Any] | None:
        """Read, seal and append slice by slice. While one slice commits, the next is read and sealed, and no more. The problem that
        ended it early, after lines that have their results: the sender goes on after them, with the same ids."""
        settings = self._service.settings
        slices = line_slices(self._request, settings.body_limit_bytes, settings.stream_limit_bytes)
        committing: asyncio.Task[None] | None = None
        start = 0
        try:
            while lines := await _next_slice(slices, committing):
                await self._service.rates.slow_down(self._request.scope, self._credential, len(lines))
                await self._authorize_again(len(lines))
                values = [_parse_line(line) for line in lines]
                sealed = await ingest.seal_all(self._recipe, self._log, values, _keys(self._key, start, len(values)))
                start += len(values)
                if committing is not None:
                    await committing
                committing = asyncio.create_task(self._commit(sealed, spool))
            if committing is not None:
                await committing
        except AuditError as error:
            if committing is not None and not committing.done():
                with suppress(AuditError):
                    await committing
            if not self._accepted + self._rejected:
                raise
            return problem(error)
        except BaseException:
            if committing is not None:
                committing.cancel()
            raise
        return None

    async def _authorize_again(self, events: int) -> None:
        """A stream may be open for hours, and its credential end meanwhile: asked for each slice, of the cache that forgets after a second.
        Raises as `authenticate` does, ForbiddenError."""
        try:
            require_scope(await authenticate(self._request), "ingest")
        except (UnauthenticatedError, ForbiddenError):
            state = self._request.scope["state"]  # what is noted of it, although the answer has begun as a good one
            state[EVENTS_REFUSED] = state.get(EVENTS_REFUSED, 0) + events
            raise

    async def _commit(self, sealed: Sequence[ingest.Sealed | AuditError], spool: ResultSpool) -> None:
        appender = self._service.appender(self._recipe)
        outcomes = await ingest.append_sealed(appender, self._recipe, self._log, sealed)
        count(self._request, outcomes)
        accepted = sum(isinstance(outcome, Receipt) for outcome in outcomes)
        self._accepted += accepted
        self._rejected += len(outcomes) - accepted
        spool.write(b"".join(orjson.dumps(_result(outcome)) + b"\n" for outcome in outcomes))

    def _trailer(self, problem_at_end: dict[str, Any] | None) -> bytes:
        trailer: dict[str, Any] = {
            "trailer": True,
            "accepted": self._accepted,
            "rejected": self._rejected,
            "complete": problem_at_end is None,
        }
        if problem_at_end is not None:
            trailer["problem"] = problem_at_end
        return orjson.dumps(trailer) + b"\n"


async def _next_slice(
    slices: AsyncIterator[list[bytes | InputError]], committing: asyncio.Task[None] | None
) -> list[bytes | InputError] | None:
    """The next slice, None at the end. Raises the commit's error as soon as it fails: a sender may hold its next line back until it
    knows what became of the last one."""
    coming = asyncio.ensure_future(anext(slices, None))
    try:
        if committing is not None:
            await asyncio.wait({coming, committing}, return_when=asyncio.FIRST_COMPLETED)
            if committing.done():
                committing.result()
        return await coming
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)  # nobody else hears how it ended


def _parse_line(line: bytes | InputError) -> Item:
    if isinstance(line, InputError):
        return line
    try:
        return parse_json(line)
    except InputError as error:
        return error


async def _with(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for item in rest:
        yield item


_SINGLE_HEADERS = frozenset({b"authorization", b"content-type", b"content-encoding", b"content-length"})


class _Headers(dict[str, str]):
    """The headers of a request, each decoded once: Starlette's look through all of them for every name that is asked for."""

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        """Raises MalformedError for a header given twice that says how to read the request: whoever stands before us may have
        chosen the other one."""
        super().__init__((name.decode("latin-1"), value.decode("latin-1")) for name, value in raw)
        self._raw = raw
        if len(self) < len(raw):
            for name, count in Counter(name for name, _ in raw).items():
                if count > 1 and (name in _SINGLE_HEADERS or name.startswith(b"ce-")):
                    shown = name.decode("latin-1") if name in _SINGLE_HEADERS else "ce-…"  # the rest is the sender's
                    raise MalformedError(f"the header {shown} is given more than once")

    def getlist(self, name: str) -> list[str]:
        """Every value of a name."""
        if name not in self:
            return []
        wanted = name.encode("latin-1")
        return [value.decode("latin-1") for found, value in self._raw if found == wanted]


class _Request(Request):
    """A request whose headers are looked up often."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises MalformedError, as `_Headers` does."""
        super().__init__(scope, receive, send)
        # Where Starlette keeps its own once they are asked for; what is asked of them here, ours answer alike.
        self._headers = cast("Headers", _Headers(scope["headers"]))


def is_post(scope: Scope) -> bool:
    """Whether this is what `IngestFirst` takes."""
    return bool(scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST")


class IngestFirst:
    """ASGI: POST /v1/events goes straight to `post_events`, everything else to the application. The application's stack of
    middlewares and its router cost as much as sealing an event, and have nothing to do for this path."""

    def __init__(self, application: FastAPI, rest: ASGIApp) -> None:
        self._application, self._rest = application, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_post(scope):
            await self._rest(scope, receive, send)
            return
        scope["app"] = self._application
        try:
            response = await post_events(_Request(scope, receive, send))
            await response(scope, receive, send)
        except AuditError as error:  # raised before an answer began, always
            answer = respond(error)
            try:  # it may have come before anybody looked at the credential
                self._application.state.service.rates.note_answer(scope, answer.status_code)
            except RateLimitedError as limited:
                answer = respond(limited)
            await answer(scope, receive, send)


_ROUTE = Route(PATH, post_events, methods=["POST"])
routes = [_ROUTE]
documentation = APIRouter(tags=["events"], dependencies=documented_security)


@documentation.post(PATH, openapi_extra=schemas.INGEST_BODY, responses=schemas.INGEST_RESPONSES, response_model=None)
async def _documented() -> None:
    """Send one event, a batch, or a stream of events.

    One object → 201 with its receipt (200 when replayed, or not kept). An array or `{"events": […]}` → one result for each item, in
    order. NDJSON → one result line for each line as they commit, then a trailer with the counts. CloudEvents 1.0 structured,
    batched and binary. Answered only when durable.
    """
