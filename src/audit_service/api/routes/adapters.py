"""The doors for other people's protocols: a route for each adapter, all through the one write path.

1. authenticate   the key from where the sender puts it; scope `ingest`
2. frame          the body → records
3. map            a record → an event; its faults are its own
4. ingest         slice by slice, so that a large request neither blocks the worker nor becomes one large transaction
5. answer         in the sender's own words

An event without an id of the sender's gets one that follows from its content, so that a delivery that is repeated is a replay. It is
made of the content *after* redaction, under the installation's key: an id is kept for ever, and must not be a hash that gives away a
password to whoever tries a million of them. What has no time of the sender's either gets a fresh id: twice the same words without a time may
well be two events.
"""

import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import SecretStr

from audit_service import ingest
from audit_service.adapters import ADAPTERS, Adapter, Answer, Delivery, Refusal, Result
from audit_service.api.dependencies import Service, authenticate_any, read_body, service_of
from audit_service.api.logs import EVENTS
from audit_service.api.problems import problem, respond
from audit_service.core.canonical import JSONValue
from audit_service.errors import AuditError, ForbiddenError, IdempotencyConflictError, InputError
from audit_service.ingest import Outcome, Receipt, Sealed
from audit_service.store.credentials import Credential

# Not in openapi.yaml: the schemas are their owners', and docs/adapters.md names them.
router = APIRouter(tags=["adapters"], include_in_schema=False)
# Shippers send larger batches than a panel does (a collector 8,192, rsyslog 1,024): so many times the limit of a batch of ours.
BATCHES_LIMIT = 10
SLICE_EVENTS = 200
Endpoint = Callable[[Request], Awaitable[Response]]


def delivery_endpoint(adapter: Adapter[Any]) -> Endpoint:
    """The endpoint of an adapter."""

    async def deliver(request: Request) -> Response:
        service = service_of(request)
        delivery = _delivery(request, service, b"")
        try:
            # 1. authenticate
            credential = await authenticate_any(request, adapter.keys(request.headers.get("authorization", "")))
            if "ingest" not in credential.scopes:
                raise ForbiddenError("the API key lacks the scope ingest")
            # 2. frame
            delivery = _delivery(request, service, await read_body(request, service.settings.body_limit_bytes))
            records = adapter.records(delivery)
            # 3. and 4.
            outcomes = await _ingest(adapter, delivery, records, service, credential)
        except AuditError as error:
            return _refusal(adapter, delivery, error)
        # 5. answer
        return _response(adapter.answer(delivery, records, [_result(outcome) for outcome in outcomes]))

    return deliver


def probe_endpoint(answer: Answer) -> Endpoint:
    """An endpoint with a fixed answer."""

    async def probe(request: Request) -> Response:
        del request
        return _response(answer)

    return probe


def _delivery(request: Request, service: Service, body: bytes) -> Delivery:
    secret: SecretStr | None = getattr(service.settings, "netbox_secret", None)
    limits = service.limits
    return Delivery(
        body=body,
        headers=dict(request.headers),
        received_at=datetime.now(UTC),
        limits=limits,
        limit_events=service.settings.batch_limit_events * BATCHES_LIMIT,
        secrets={} if secret is None else {"netbox": secret.get_secret_value().encode()},
    )


async def _ingest(
    adapter: Adapter[Any], delivery: Delivery, records: Sequence[Any], service: Service, credential: Credential
) -> list[Outcome]:
    log, recipe = await service.log_of(credential), await service.recipe()
    appender = service.appender(recipe)
    outcomes: list[Outcome] = []
    seen: Counter[bytes] = Counter()
    for start in range(0, len(records), SLICE_EVENTS):
        # 3. map
        sealed = [
            _seal(adapter, delivery, record, recipe, log, seen) for record in records[start : start + SLICE_EVENTS]
        ]
        # 4. ingest: steps 2 to 5 of the recipe are done, what is left is to append and to settle
        outcomes += await ingest.append_sealed(appender, recipe, log, sealed)
    return outcomes


def _seal(
    adapter: Adapter[Any],
    delivery: Delivery,
    record: object,
    recipe: ingest.Recipe,
    log: ingest.Log,
    seen: Counter[bytes],
) -> Sealed | AuditError:
    """One record through mapping and the pure steps of the recipe, with its own faults as a value."""
    if isinstance(record, InputError):
        return record
    try:
        draft = adapter.event(record, delivery)
        event: JSONValue = draft.event()
    except InputError as error:
        return error
    sealed = ingest.seal_or_error(recipe, log, event, None, delivery.received_at)
    if isinstance(sealed, InputError) or draft.has("id") or not draft.dated:
        return sealed
    digest = hmac.new(recipe.secret, b"adapter-id\n%d\n%s" % (log.log_id, sealed.content), sha256).digest()
    seen[digest] += 1
    # Equal lines within one request are so many events: a sender that repeats itself does so with the same request.
    count = "" if seen[digest] == 1 else f"/{seen[digest]}"
    event_id = f"{adapter.name}:{digest[:16].hex()}{count}"
    return ingest.seal_or_error(recipe, log, event, event_id, delivery.received_at)


def _result(outcome: Outcome) -> Result:
    if isinstance(outcome, Receipt):
        fresh = outcome.kept and not outcome.replayed
        EVENTS.labels("appended" if fresh else "replayed" if outcome.replayed else "not_kept").inc()
        return Result(201 if fresh else 200, outcome.id)
    EVENTS.labels("conflict" if isinstance(outcome, IdempotencyConflictError) else "rejected").inc()
    return Result(int(problem(outcome)["status"]), detail=_detail(outcome))


def _detail(error: AuditError) -> str:
    """The problem in one line: what is wrong, and where. Never a sent value."""
    body = problem(error)
    places = [f"{fault.get('pointer') or fault.get('parameter') or '/'} {fault['detail']}" for fault in body.get("errors", [])]
    return "; ".join([str(body["detail"]), *places])


def _refusal(adapter: Adapter[Any], delivery: Delivery, error: AuditError) -> Response:
    """A refused request: the status and headers of its problem, in the sender's words where it has any."""
    plain = respond(error)
    if adapter.refuse is None:
        return plain
    answer = adapter.refuse(delivery, Refusal(plain.status_code, _detail(error)))
    headers = {name: value for name, value in plain.headers.items() if not name.startswith("content-")}
    return Response(answer.body, answer.status, headers, answer.media_type)


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, media_type=answer.media_type)


for _adapter in ADAPTERS:
    for _path in _adapter.paths:
        router.add_api_route(_path, delivery_endpoint(_adapter), methods=["POST"], name=_adapter.name, response_model=None)
    for _path, _answer in _adapter.probes.items():
        router.add_api_route(_path, probe_endpoint(_answer), methods=["GET"], name=_adapter.name, response_model=None)
