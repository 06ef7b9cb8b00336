"""The reader of OTLP's protobuf: against the official library where it is installed, and against anything at all."""

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.adapters import Delivery
from audit_service.adapters.otlp_record import LogRecord, Record, decode, plain_value, records
from audit_service.adapters.protobuf import Budget, fields
from audit_service.errors import InputError, MalformedError, TooLargeError
from tests.support.adapters import captures

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def delivery(body: bytes, media_type: str = "application/x-protobuf", **others: Any) -> Delivery:
    """A request to /v1/logs."""
    return Delivery(body, {"content-type": media_type}, NOW, **others)


def decoded(found: Any) -> list[tuple[dict[str, Any], str | None, LogRecord]]:
    """Records, decoded."""
    assert all(isinstance(record, Record) for record in found)
    return [(record.resource, record.scope, decode(record.encoded)) for record in found]


def varint(value: int) -> bytes:
    """A varint, written the slow way."""
    out = []
    while True:
        value, low = divmod(value, 128)
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def field(number: int, value: bytes | int) -> bytes:
    """A field as a varint or as bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def test_both_encodings_of_one_collector_say_the_same(shared: Path) -> None:
    file = shared / "data" / "client-captures" / "captures.ndjson"
    (in_protobuf,) = captures(file, "/otelcol-proto/v1/logs")
    (in_json,) = captures(file, "/otelcol-json/v1/logs")
    first = decoded(records(delivery(in_protobuf.body)))
    second = decoded(records(delivery(in_json.body, "application/json")))
    assert len(first) == 3
    # The collector was asked twice: only the times of observation differ.
    assert [(r.body, r.attributes, r.event_name) for _, _, r in first] == [
        (r.body, r.attributes, r.event_name) for _, _, r in second
    ]


def test_the_sdks_request_is_read(shared: Path) -> None:
    (capture,) = captures(shared / "data" / "client-captures" / "captures.ndjson", "/otel-py/v1/logs")
    ((resource, scope, record),) = decoded(records(delivery(capture.body)))
    assert (resource["telemetry.sdk.name"], scope, record.body, record.severity) == (
        "opentelemetry",
        "o",
        "server updated",
        "INFO",
    )
    assert (record.attributes["audit.action"], record.attributes["code.line.number"]) == ("UPDATE", 29)


_KEYS = st.text(max_size=8)
_NUMBERS = st.integers(-(2**63), 2**63 - 1)
_VALUES = st.recursive(
    st.booleans() | _NUMBERS | st.text(max_size=20) | st.floats(allow_nan=False) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(
    body=_VALUES,
    attributes=st.dictionaries(_KEYS, _VALUES, max_size=4),
    time=st.integers(1, 2**63),
    name=st.text(max_size=9),
)
def test_the_official_library_is_read_back(body: Any, attributes: dict[str, Any], time: int, name: str) -> None:
    logs = pytest.importorskip("opentelemetry.proto.logs.v1.logs_pb2")
    common = pytest.importorskip("opentelemetry.proto.common.v1.common_pb2")
    service = pytest.importorskip("opentelemetry.proto.collector.logs.v1.logs_service_pb2")

    def any_value(value: Any) -> Any:
        if isinstance(value, dict):
            pairs = [common.KeyValue(key=key, value=any_value(item)) for key, item in value.items()]
            return common.AnyValue(kvlist_value=common.KeyValueList(values=pairs))
        if isinstance(value, list):
            return common.AnyValue(array_value=common.ArrayValue(values=[any_value(item) for item in value]))
        kind = {bool: "bool", int: "int", str: "string", float: "double", bytes: "bytes"}[type(value)]
        return common.AnyValue(**{f"{kind}_value": value})

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value

    pairs = [common.KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]
    record = logs.LogRecord(
        time_unix_nano=time, body=any_value(body), attributes=pairs, trace_id=bytes(16), span_id=bytes(8), flags=1,
        event_name=name, severity_number=9, severity_text="INFO",
    )  # fmt: skip
    scope_logs = logs.ScopeLogs(scope=common.InstrumentationScope(name="s", version="1"), log_records=[record])
    request = service.ExportLogsServiceRequest(resource_logs=[logs.ResourceLogs(scope_logs=[scope_logs])])
    ((_, scope, found),) = decoded(records(delivery(request.SerializeToString())))
    assert (scope, found) == (
        "s",
        LogRecord(time, "INFO", plain(body), plain(attributes), "00" * 16, "00" * 8, 1, name or None),
    )


def test_fields_that_nobody_knows_are_skipped() -> None:
    value = field(99, b"new") + field(98, 7) + varint(97 << 3 | 5) + bytes(4) + varint(96 << 3 | 1) + bytes(8)
    record = field(6, field(1, b"k") + field(2, value + field(1, b"v"))) + value
    body = field(1, value + field(2, value + field(2, record)))
    ((_, _, found),) = decoded(records(delivery(body)))
    assert found.attributes == {"k": "v"}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for body in (data, field(1, field(2, field(2, data)))):
        with suppress(InputError):
            decoded(records(delivery(body)))


@pytest.mark.parametrize(
    "body",
    [b"\xff", b"\x0a", b"\x0a\x05ab", b"\x0b", b"\x00\x00", b"\x80" * 11, b"\x0d\x00", b"\x09\x00",
     field(1, field(2, field(1, field(1, b"\xff"))))],
)  # fmt: skip
def test_broken_messages_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError):
        records(delivery(body))


def test_a_flood_of_fields_and_a_tower_of_lists_are_refused() -> None:
    with pytest.raises(TooLargeError):
        list(fields(b"\x08\x00" * 11, Budget(10)))
    assert len(list(fields(b"\x08\x00" * 10, Budget(10)))) == 10
    with pytest.raises(TooLargeError):
        records(delivery(b"\x10\x00" * 100_000))
    tower = field(1, b"leaf")
    for _ in range(80):
        tower = field(5, field(1, tower))
    with pytest.raises(InputError, match="nested too deeply"):
        decode(field(5, tower))


@pytest.mark.parametrize("media_type", ["application/x-protobuf", "application/json"])
def test_a_request_may_hold_so_many_records_and_no_more(media_type: str) -> None:
    for count in (1, 2, 3):
        body = field(1, field(2, field(2, b"") * count))
        if media_type == "application/json":
            body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [{}] * count}]}]}).encode()
        if count <= 2:
            assert len(records(delivery(body, media_type, limit_events=2))) == count
        else:
            with pytest.raises(TooLargeError):
                records(delivery(body, media_type, limit_events=2))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"intValue": "-9007199254740993"}, -9007199254740993),
        ({"intValue": 7}, 7),
        ({"intValue": "seven"}, "seven"),
        ({"intValue": "--7"}, "--7"),
        ({"doubleValue": 0.5}, 0.5),
        ({"boolValue": False}, False),
        ({"arrayValue": {"values": [{"stringValue": "a"}, {}]}}, ["a", None]),
        ({"arrayValue": {}}, []),
        ({"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}, {"key": 7}, 8]}}, {"k": "v"}),
        ({}, None),
        ("bare", None),
    ],
)
def test_values_in_json(value: Any, expected: Any) -> None:
    assert plain_value(value) == expected


@pytest.mark.parametrize(
    "body",
    [b"[]", b"7", b'{"resourceLogs": 7}', b'{"resourceLogs": [7]}', b'{"resourceLogs":[{"scopeLogs":{}}]}', b"{"],
)
def test_json_of_another_shape_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError):
        records(delivery(body, "application/json"))
