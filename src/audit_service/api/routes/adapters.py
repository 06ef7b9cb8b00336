"""The doors for other people's protocols: a route for each adapter, all through the one write path.

1. authenticate   the key from where the sender puts it; scope `ingest`
2. frame          the body → records
3. map            a record → an event; its faults are its own
4. ingest         slice by slice, so that a large request neither blocks the worker nor becomes one large transaction
5. answer         in the sender's own words

An event without an id of the sender's gets one that follows from its content, so that a delivery that is repeated is a replay. It
is made of the content *after* redaction, under the installation's key: an id is kept for ever, and must not be a hash that gives
away a password to whoever tries a million of them. What has no time of the sender's either gets a fresh id: the same words twice
without a time may well be two events.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from audit_service import ingest
from audit_service.adapters import ADAPTERS, Adapter, Answer, Delivery, Refusal, Result
from audit_service.api.body import read_body
from audit_service.api.dependencies import authenticate_key, authorization_of, require_scope, service_of
from audit_service.api.problems import problem, respond
from audit_service.api.routes.ingest import count, status_of
from audit_service.core.canonical import JSONValue
from audit_service.errors import AuditError, InputError, UnauthenticatedError
from audit_service.ingest import Log, Outcome, Receipt, Recipe, Sealed
from audit_service.settings import Settings
from audit_service.store.credentials import Credential
from audit_service.store.group_commit import GroupCommit

# Shippers send larger batches than panels do (a collector 8,192, rsyslog 1,024): so many times the limit of a batch of ours.
BATCHES_LIMIT = 10
SLICE_EVENTS = 200
CUT_PAUSE_SECONDS = 1.0
Endpoint = Callable[[Request], Awaitable[Response]]


def delivery_endpoint(adapter: Adapter[Any]) -> Endpoint:
    """The endpoint of an adapter."""

    async def deliver(request: Request) -> Response:
        service = service_of(request)
        delivery = Delivery(b"", dict(request.headers), datetime.now(UTC))
        try:
            # 1. authenticate
            credential = await _authenticate(adapter, request)
            log, recipe = await service.log_of(credential), await service.recipe()
            # 2. frame
            body = await read_body(request, service.settings.body_limit_bytes)
            delivery = _delivery(delivery, body, service.settings, recipe)
            records = _records(adapter, delivery, recipe)
            service.rates.admit_batch(request.scope, credential, len(records))
            # 3. and 4.
            outcomes = await _ingest(adapter, delivery, records, service.appender(recipe), recipe, log)
        except AuditError as error:
            return _refusal(adapter, delivery, error)
        count(request, outcomes)
        # 5. answer
        return _response(adapter.answer(delivery, records, [_result(outcome) for outcome in outcomes]))

    return deliver


def probe_endpoint(answer: Answer) -> Endpoint:
    """An endpoint with a fixed answer."""

    async def probe(request: Request) -> Response:
        del request
        return _response(answer)

    return probe


async def _authenticate(adapter: Adapter[Any], request: Request) -> Credential:
    """The credential of the first key that is live, with the scope `ingest`."""
    refused = UnauthenticatedError(
        f"send an API key in Authorization, as {adapter.name} does it; docs/adapters.md shows how"
    )
    for key in adapter.keys(authorization_of(request)):
        try:
            credential = await authenticate_key(request, key)
        except UnauthenticatedError as error:
            refused = error
        else:
            service_of(request).rates.admit(request.scope, credential, ingest=True)
            return require_scope(credential, "ingest")
    service_of(request).rates.note_failure(request.scope)
    raise refused


def _delivery(head: Delivery, body: bytes, settings: Settings, recipe: Recipe) -> Delivery:
    netbox = settings.netbox_secret
    return Delivery(
        body=body,
        headers=head.headers,
        received_at=head.received_at,
        limits=recipe.limits,
        limit_events=settings.batch_limit_events * BATCHES_LIMIT,
        secrets={} if netbox is None else {"netbox": netbox.get_secret_value().encode()},
    )


def _records(adapter: Adapter[Any], delivery: Delivery, recipe: Recipe) -> Sequence[Any]:
    try:
        return adapter.records(delivery)
    except InputError as error:
        raise ingest.without_secrets(error, recipe.rules) from None


async def _ingest(
    adapter: Adapter[Any],
    delivery: Delivery,
    records: Sequence[Any],
    appender: GroupCommit,
    recipe: Recipe,
    log: Log,
) -> list[Outcome]:
    """Steps 3 and 4. Raises UnavailableError and the like when a slice could not be appended; then the sender repeats the whole
    request, and what the slices before it stored are replays."""
    outcomes: list[Outcome] = []
    for start in range(0, len(records), SLICE_EVENTS):
        sealed: list[Sealed | AuditError] = []
        for record in records[start : start + SLICE_EVENTS]:
            # 3. map
            sealed.append(_seal(adapter, delivery, record, recipe, log))
            if len(sealed) % ingest.TURN_EVENTS == 0:
                await asyncio.sleep(0)
        # 4. ingest: its steps 2 to 5 are done, what is left is to append and to settle
        outcomes += await ingest.append_sealed(appender, recipe, log, sealed)
    return outcomes


def _seal(adapter: Adapter[Any], delivery: Delivery, record: object, recipe: Recipe, log: Log) -> Sealed | AuditError:
    """One record through mapping and the pure steps of the recipe, with its own faults as a value."""
    if isinstance(record, InputError):
        return ingest.without_secrets(record, recipe.rules)
    try:
        draft = adapter.event(record, delivery)
        event: JSONValue = draft.event()
    except InputError as error:
        return ingest.without_secrets(error, recipe.rules)

    def id_of(content: bytes) -> str:
        digest = hmac.new(recipe.secret, b"adapter-id\n%d\n%s" % (log.log_id, content), sha256).digest()
        return f"{adapter.name}:{digest[:16].hex()}"

    return ingest.seal_or_error(recipe, log, event, id_of if draft.dated else None, delivery.received_at)


def _result(outcome: Outcome) -> Result:
    status = status_of(outcome)
    return Result(status, outcome.id) if isinstance(outcome, Receipt) else Result(status, detail=_detail(outcome))


def _detail(error: AuditError) -> str:
    """The problem in one line: what is wrong, and where. Never a sent value."""
    body = problem(error)
    faults = body.get("errors", [])
    places = [f"{fault.get('pointer') or fault.get('parameter') or '/'} {fault['detail']}" for fault in faults]
    return "; ".join([str(body["detail"]), *places])


def _refusal(adapter: Adapter[Any], delivery: Delivery, error: AuditError) -> Response:
    """A refused request: the status and headers of its problem, in the sender's words where it has any."""
    plain = respond(error)
    if adapter.refuse is None:
        return plain
    answer = adapter.refuse(delivery, Refusal(plain.status_code, _detail(error)))
    headers = {name: value for name, value in plain.headers.items() if not name.startswith("content-")}
    kind = _CutResponse if answer.cut else Response
    return kind(answer.body, answer.status, headers, answer.media_type)


class _CutResponse(Response):
    """A response without an end, after a pause: whoever gets it comes back at once."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await asyncio.sleep(CUT_PAUSE_SECONDS)
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        # The server closes a connection whose response was not completed, and so the client sees that it is not whole.
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": True})


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, media_type=answer.media_type)


# Not in openapi.yaml: the schemas are their owners', and docs/adapters.md names them.
router = APIRouter(tags=["adapters"], include_in_schema=False)
for _adapter in ADAPTERS:
    for _path in _adapter.paths:
        router.add_api_route(_path, delivery_endpoint(_adapter), methods=["POST"], response_model=None)
    for _path, _answer in _adapter.probes.items():
        router.add_api_route(_path, probe_endpoint(_answer), methods=["GET"], response_model=None)
