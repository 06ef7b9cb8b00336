"""OpenTelemetry logs (OTLP/HTTP, `POST /v1/logs`): JSON and protobuf, from SDKs and collectors.

A record is an event in one of three ways: its body (text or a map) is a document with `action`; its attributes are one (a collector that
parsed a JSON line), with or without the prefix `audit.`; or it is a plain log record, whose attributes with a meaning in the semantic
conventions find their places. `resource` and what is left of the attributes are kept in metadata.

https://opentelemetry.io/docs/specs/otlp/#otlphttp, opentelemetry/proto/logs/v1/logs.proto
"""

from collections.abc import Sequence
from typing import Final

from audit_service.adapters.adapter import Adapter, Answer, Delivery, Refusal, Result, json_answer
from audit_service.adapters.document import event_in_text, is_event, put_document
from audit_service.adapters.draft import Draft
from audit_service.adapters.otlp_record import PROTOBUF, LogRecord, Record, decode, records
from audit_service.core.entry import JSONObject

_ACTIONS: Final = ("event.name", "event.action")
# Attributes of the semantic conventions (and their older names) → members of an event.
_ATTRIBUTES: Final = {
    "enduser.id": "actor.id",
    "user.id": "actor.id",
    "user.name": "actor.name",
    "user.full_name": "actor.name",
    "user.email": "actor.email",
    "enduser.role": "actor.role",
    "user_agent.original": "context.user_agent",
    "http.user_agent": "context.user_agent",
    "session.id": "context.session_id",
}
_ADDRESSES: Final = ("client.address", "http.client_ip", "source.address")


def event(record: Record, delivery: Delivery) -> Draft:
    """A log record as an event."""
    log = decode(record.encoded)
    draft = Draft("otlp", None, delivery.limits, delivery.received_at)
    attributes = dict(log.attributes)
    document = _document(log, attributes)
    if document is not None:
        put_document(draft, document)
    else:
        _put_plain(draft, log, attributes)
    if log.time_ns:
        if draft.dated:
            draft.keep("log_time", log.time_ns)
        else:
            draft.put_time(log.time_ns, "timeUnixNano")
    draft.keep("attributes", attributes or None)
    draft.keep("severity", log.severity)
    draft.keep("scope", record.scope)
    draft.keep("resource", record.resource or None)
    if len(log.trace_id) == 32 and len(log.span_id) == 16 and not draft.has_part("context", "traceparent"):
        draft.put("context.traceparent", f"00-{log.trace_id}-{log.span_id}-{log.flags & 255:02x}")
    service = record.resource.get("service.name")
    if isinstance(service, str) and not service.startswith("unknown_service") and not draft.has("source"):
        draft.put("source.id", service)
    return draft


def _document(log: LogRecord, attributes: JSONObject) -> JSONObject | None:
    """The event that the record carries. What it takes from the attributes, it takes away."""
    body = log.body if isinstance(log.body, dict) and is_event(log.body) else event_in_text(log.body)
    if body is not None:
        for name in [name for name, value in attributes.items() if body.get(name) == value]:
            del attributes[name]  # the collector's own parse of the same line
        return body
    prefixed = {name.removeprefix("audit."): name for name in attributes if name.startswith("audit.")}
    if isinstance(attributes.get("audit.action"), str):
        document = nested({bare: attributes.pop(name) for bare, name in prefixed.items()})
    elif is_event(attributes):
        document = {**attributes}
        attributes.clear()
    else:
        return None
    if log.body is not None:
        document.setdefault("description" if isinstance(log.body, str) else "body", log.body)
    return document


def nested(flat: JSONObject) -> JSONObject:
    """`{"actor.id": 7}` → `{"actor": {"id": 7}}`, where nothing stands in the way."""
    found: JSONObject = {}
    for name, value in flat.items():
        group, _, member = name.partition(".")
        below = found.setdefault(group, {}) if member and group not in flat else None
        if isinstance(below, dict):
            below[member] = value
        else:
            found[name] = value
    return found


def _put_plain(draft: Draft, log: LogRecord, attributes: JSONObject) -> None:
    names = [log.event_name, *(attributes.get(name) for name in _ACTIONS)]
    draft.put_action(next((name for name in names if isinstance(name, str) and name), "otlp.log"))
    for name in _ACTIONS:
        attributes.pop(name, None)
    if isinstance(log.body, str):
        draft.put("description", log.body)
    else:
        draft.keep("body", log.body)
    for name, place in _ATTRIBUTES.items():
        group, _, member = place.partition(".")
        if name in attributes and not draft.has_part(group, member):
            draft.put(place, attributes.pop(name))
    for name in _ADDRESSES:
        if name in attributes and not draft.has_part("context", "ip"):
            draft.put_ip(attributes.pop(name))


def answer(delivery: Delivery, _records: object, results: Sequence[Result]) -> Answer:
    """200 with `partialSuccess` when some were refused; 400, which no exporter repeats, when all were."""
    refused = [result for result in results if not result.accepted]
    if not refused:
        return _encoded(delivery, 200, b"", {})
    detail = f"{len(refused)} of {len(results)} records were refused; the first: {refused[0].detail}"
    if len(refused) == len(results):
        return refuse(delivery, Refusal(400, detail))
    count = len(refused)
    partial = b"\x08" + _varint_bytes(count) + b"\x12" + _length_prefixed(detail.encode())
    body: JSONObject = {"partialSuccess": {"rejectedLogRecords": str(count), "errorMessage": detail}}
    return _encoded(delivery, 200, b"\x0a" + _length_prefixed(partial), body)


def refuse(delivery: Delivery, refusal: Refusal) -> Answer:
    """A google.rpc.Status, in the request's encoding, as the specification asks for with every 4xx and 5xx."""
    status = 400 if refusal.status == 422 else refusal.status
    message = b"\x12" + _length_prefixed(refusal.detail.encode())
    return _encoded(delivery, status, message, {"message": refusal.detail})


def _encoded(delivery: Delivery, status: int, message: bytes, body: JSONObject) -> Answer:
    return Answer(status, message, PROTOBUF) if delivery.media_type == PROTOBUF else json_answer(status, body)


def _length_prefixed(data: bytes) -> bytes:
    return _varint_bytes(len(data)) + data


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


ADAPTER: Final = Adapter("otlp", ("/v1/logs",), records, event, answer, refuse)
