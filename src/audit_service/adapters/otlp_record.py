"""OTLP's log records out of a request, in JSON or protobuf: framing first, decoding when a record is looked at.

opentelemetry/proto/logs/v1/logs.proto and common/v1/common.proto, whose field numbers stand at each function; in JSON the names are
theirs in camel case, 64-bit integers are strings, and ids are hex (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
"""

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from audit_service.adapters import protobuf
from audit_service.adapters.adapter import Delivery, too_many
from audit_service.adapters.protobuf import Budget
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from audit_service.core.event import parse_json
from audit_service.errors import Fault, InputError, InvalidEventError, MalformedError, UnsupportedMediaError

PROTOBUF: Final = "application/x-protobuf"
RECORD_FIELDS: Final = 20_000  # of protobuf in one record; an event of ours holds fewer
ENVELOPE_FIELDS: Final = 50_000  # of protobuf around the records of one request
VALUES_DEPTH: Final = 64
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
    """ExportLogsServiceRequest: 1 ResourceLogs (1 Resource (1 attributes), 2 ScopeLogs (1 Scope (1 name), 2 LogRecord))."""
    found: list[Record | InputError] = []
    budget = Budget(ENVELOPE_FIELDS + 4 * delivery.limit_events)
    for resource_logs in _submessages(delivery.body, 1, budget):
        resource = _last(_submessages(resource_logs, 1, budget))
        attributes = _key_values(resource, 1, budget, 0)
        for scope_logs in _submessages(resource_logs, 2, budget):
            name = _last(_submessages(_last(_submessages(scope_logs, 1, budget)), 1, budget))
            scope = protobuf.text(name) or None
            found += (Record(attributes, scope, encoded) for encoded in _submessages(scope_logs, 2, budget))
            if len(found) > delivery.limit_events:
                raise too_many(delivery)
    return found


def _submessages(data: bytes, number: int, budget: Budget) -> list[bytes]:
    return [value for found, _, value in protobuf.fields(data, budget) if found == number and isinstance(value, bytes)]


def _last(messages: list[bytes]) -> bytes:
    return messages[-1] if messages else b""


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
        key: plain_value(pair.get("value"))
        for pair in pairs
        if isinstance(pair, dict) and isinstance(key := pair.get("key"), str)
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
    budget = Budget(RECORD_FIELDS)
    numbers: dict[int, int] = {}
    parts: dict[int, bytes] = {}
    attributes: JSONObject = {}
    for number, _, value in protobuf.fields(data, budget):
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


def _key_values(data: bytes, number: int, budget: Budget, depth: int) -> JSONObject:
    found: JSONObject = {}
    for pair in _submessages(data, number, budget):
        found |= _pair(pair, budget, depth)
    return found


def _pair(data: bytes, budget: Budget, depth: int) -> JSONObject:
    """KeyValue: 1 key, 2 value."""
    key, value = b"", None
    for number, _, part in protobuf.fields(data, budget):
        if isinstance(part, bytes) and number == 1:
            key = part
        elif isinstance(part, bytes) and number == 2:
            value = _any_value(part, budget, depth)
    return {protobuf.text(key): value}


def _any_value(data: bytes, budget: Budget, depth: int) -> JSONValue:
    """AnyValue: 1 string, 2 bool, 3 int64, 4 double, 5 array (1 values), 6 map (1 pairs), 7 bytes; the last one set counts."""
    if depth > VALUES_DEPTH:
        raise InvalidEventError("the record is nested too deeply", [Fault("is nested too deeply", "")])
    value: JSONValue = None
    for number, wire_type, part in protobuf.fields(data, budget):
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
                value = [_any_value(item, budget, depth + 1) for item in _submessages(part, 1, budget)]
            case 6, _, bytes():
                value = _key_values(part, 1, budget, depth + 1)
            case 7, _, bytes():
                value = base64.b64encode(part).decode()
    return value
