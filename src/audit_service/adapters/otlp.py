"""OpenTelemetry logs (OTLP/HTTP, `POST /v1/logs`): JSON and protobuf, from SDKs and collectors.

A record is an event in one of three ways: its body (text or a map) is a document with `action`; its attributes are one (a collector that
parsed a JSON line), with or without the prefix `audit.`; or it is a plain log record, whose attributes with a meaning in the semantic
conventions find their places. `resource` and what is left of the attributes are kept in metadata.

https://opentelemetry.io/docs/specs/otlp/#otlphttp, opentelemetry/proto/logs/v1/logs.proto
"""

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from audit_service.adapters import protobuf
from audit_service.adapters.adapter import Adapter, Answer, Delivery, Refusal, Result, json_answer, too_many
from audit_service.adapters.document import event_in_text, is_event, put_document
from audit_service.adapters.draft import Draft
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from audit_service.core.event import parse_json
from audit_service.errors import Fault, InputError, InvalidEventError, MalformedError, UnsupportedMediaError

PROTOBUF: Final = "application/x-protobuf"
VALUES_LIMIT: Final = 20_000  # values in one record; an event of ours holds fewer, and the reader is plain Python
VALUES_DEPTH: Final = 64
SKELETON_LIMIT: Final = 50_000  # resources and scopes in one request
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
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_SCALARS: Final = ("stringValue", "boolValue", "intValue", "doubleValue", "bytesValue")


@dataclass(frozen=True, slots=True)
class Record:
    """One log record with what stands above it; the record itself is still in its encoding."""

    resource: JSONObject
    scope: str | None
    encoded: JSONObject | bytes


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A decoded log record, whatever it was encoded in."""

    time_ns: int
    severity: str | None
    body: JSONValue
    attributes: JSONObject
    trace_id: str
    span_id: str
    flags: int
    event_name: str | None


# --- framing ---


def records(delivery: Delivery) -> "Sequence[Record | InputError]":
    """The records of a request, not yet decoded. Raises MalformedError, UnsupportedMediaError, TooLargeError."""
    if delivery.media_type == PROTOBUF:
        return _protobuf_records(delivery)
    if delivery.media_type == "application/json":
        return _json_records(delivery)
    raise UnsupportedMediaError("send OTLP logs with Content-Type: application/x-protobuf or application/json")


def _json_records(delivery: Delivery) -> "list[Record | InputError]":
    request = parse_json(delivery.body)
    if not isinstance(request, dict):
        raise MalformedError("an OTLP request is an object with resourceLogs")
    found: list[Record | InputError] = []
    for resource_logs in _objects(request, "resourceLogs"):
        resource = attributes_of(_object(resource_logs, "resource").get("attributes"))
        for scope_logs in _objects(resource_logs, "scopeLogs"):
            scope = _object(scope_logs, "scope").get("name")
            name = scope if isinstance(scope, str) and scope else None
            found += (Record(resource, name, record) for record in _objects(scope_logs, "logRecords"))
            if len(found) > delivery.limit_events:
                raise too_many(delivery)
    return found


def _objects(parent: JSONObject, member: str) -> list[JSONObject]:
    value = parent.get(member)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise MalformedError(f"{member} must be an array of objects")
    return cast("list[JSONObject]", value)


def _object(parent: JSONObject, member: str) -> JSONObject:
    value = parent.get(member)
    return value if isinstance(value, dict) else {}


def _protobuf_records(delivery: Delivery) -> "list[Record | InputError]":
    """The skeleton only: where each record begins and ends."""
    found: list[Record | InputError] = []
    steps = 0
    for resource_logs in _submessages(delivery.body, 1):
        (resource,) = _submessages(resource_logs, 1)[-1:] or [b""]
        attributes = _key_values(resource, 1, _Budget())
        for scope_logs in _submessages(resource_logs, 2):
            (scope,) = _submessages(scope_logs, 1)[-1:] or [b""]
            (name,) = _submessages(scope, 1)[-1:] or [b""]
            scope_name = protobuf.text(name) or None
            found += (Record(attributes, scope_name, encoded) for encoded in _submessages(scope_logs, 2))
            steps += 1
            if len(found) > delivery.limit_events or steps > SKELETON_LIMIT:
                raise too_many(delivery)
    return found


def _submessages(data: bytes, number: int) -> list[bytes]:
    return [value for found, _, value in protobuf.fields(data) if found == number and isinstance(value, bytes)]


# --- decoding a record ---


class _Budget:
    """How many values one record may still hold."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = VALUES_LIMIT

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise InvalidEventError("the record holds too many values", [Fault("holds too many values", "")])


def decode(encoded: JSONObject | bytes) -> LogRecord:
    """A record out of either encoding. Raises MalformedError, InvalidEventError."""
    return _from_protobuf(encoded) if isinstance(encoded, bytes) else _from_json(encoded)


def _from_json(record: JSONObject) -> LogRecord:
    return LogRecord(
        time_ns=_integer(record.get("timeUnixNano")) or _integer(record.get("observedTimeUnixNano")),
        severity=_text_or_none(record.get("severityText")),
        body=plain_value(record.get("body")),
        attributes=attributes_of(record.get("attributes")),
        trace_id=_text_or_none(record.get("traceId")) or "",
        span_id=_text_or_none(record.get("spanId")) or "",
        flags=_integer(record.get("flags")),
        event_name=_text_or_none(record.get("eventName")),
    )


def _text_or_none(value: JSONValue) -> str | None:
    return value if isinstance(value, str) and value else None


def _integer(value: JSONValue) -> int:
    """A 64-bit integer, which protobuf's JSON writes as a string."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def attributes_of(pairs: JSONValue) -> JSONObject:
    """KeyValue pairs as an object; the last of a name counts."""
    if not isinstance(pairs, list):
        return {}
    return {
        pair["key"]: plain_value(pair.get("value"))
        for pair in pairs
        if isinstance(pair, dict) and isinstance(pair.get("key"), str)
    }


def plain_value(value: JSONValue) -> JSONValue:
    """An AnyValue of OTLP's JSON as the JSON value it stands for. Its depth is the parser's to bound."""
    if not isinstance(value, dict):
        return None
    for kind in _SCALARS:
        if kind in value:
            found = value[kind]
            return int(found) if kind == "intValue" and isinstance(found, str) and _INTEGER.fullmatch(found) else found
    array, pairs = value.get("arrayValue"), value.get("kvlistValue")
    if isinstance(array, dict):
        items = array.get("values")
        return [plain_value(item) for item in items] if isinstance(items, list) else []
    return attributes_of(pairs.get("values")) if isinstance(pairs, dict) else None


def _from_protobuf(data: bytes) -> LogRecord:
    """LogRecord: 1 time, 11 observed time, 3 severity text, 5 body, 6 attributes, 8 flags, 9 trace, 10 span, 12 event name."""
    budget = _Budget()
    numbers: dict[int, int] = {}
    parts: dict[int, bytes] = {}
    attributes: JSONObject = {}
    for number, _, value in protobuf.fields(data):
        budget.spend()
        if isinstance(value, int):
            numbers[number] = value
        elif number == 6:
            attributes |= _pair(value, budget, 0)
        else:
            parts[number] = value
    return LogRecord(
        time_ns=numbers.get(1) or numbers.get(11, 0),
        severity=protobuf.text(parts.get(3, b"")) or None,
        body=_any_value(parts[5], budget, 0) if 5 in parts else None,
        attributes=attributes,
        trace_id=parts.get(9, b"").hex(),
        span_id=parts.get(10, b"").hex(),
        flags=numbers.get(8, 0),
        event_name=protobuf.text(parts.get(12, b"")) or None,
    )


def _key_values(data: bytes, number: int, budget: _Budget, depth: int = 0) -> JSONObject:
    found: JSONObject = {}
    for pair in _submessages(data, number):
        found |= _pair(pair, budget, depth)
    return found


def _pair(data: bytes, budget: _Budget, depth: int) -> JSONObject:
    """KeyValue: 1 key, 2 value."""
    budget.spend()
    key, value = b"", None
    for number, _, part in protobuf.fields(data):
        if isinstance(part, bytes) and number == 1:
            key = part
        elif isinstance(part, bytes) and number == 2:
            value = _any_value(part, budget, depth)
    return {protobuf.text(key): value}


def _any_value(data: bytes, budget: _Budget, depth: int) -> JSONValue:
    """AnyValue: 1 string, 2 bool, 3 int64, 4 double, 5 array, 6 map, 7 bytes; the last one set counts."""
    budget.spend()
    if depth > VALUES_DEPTH:
        raise InvalidEventError("the record is nested too deeply", [Fault("is nested too deeply", "")])
    value: JSONValue = None
    for number, wire_type, part in protobuf.fields(data):
        match number, wire_type, part:
            case 1, _, bytes():
                value = protobuf.text(part)
            case 2, protobuf.VARINT, int():
                value = bool(part)
            case 3, protobuf.VARINT, int():
                value = protobuf.signed(part)
            case 4, protobuf.FIXED64, int():
                (value,) = struct.unpack("<d", part.to_bytes(8, "little"))
            case 5, _, bytes():
                value = [_any_value(item, budget, depth + 1) for item in _submessages(part, 1)]
            case 6, _, bytes():
                value = _key_values(part, 1, budget, depth + 1)
            case 7, _, bytes():
                value = base64.b64encode(part).decode()
    return value


# --- mapping ---


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
        return cast("JSONObject", body)
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


# --- answering ---


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
    body = {"partialSuccess": {"rejectedLogRecords": str(count), "errorMessage": detail}}
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
