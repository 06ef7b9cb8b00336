"""Whatever a sender sends: a record is mapped to an event that the service takes, or refused as the sender's fault."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.adapters import ADAPTERS, Adapter, Delivery
from audit_service.adapters.splunk import documents
from audit_service.core.event import EventLimits, validate
from audit_service.errors import InputError

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
# The names that mean something to any adapter, so that most of what is generated is nearly right.
_MEANINGFUL = """
    action actor after attributes before body changes context data display event event_type fields flags host id index ip metadata
    model name new object_type occurred_at old outcome partial postchange prechange properties reason related request request_id resource
    scope server server_id session_id seq severityText snapshots source spanId subjects target time timestamp timeUnixNano traceId type user
    user_agent username variable verb message msg stringValue kvlistValue arrayValue values key value intValue mapping_notes
"""
NAMES = _MEANINGFUL.split()
TEXTS = [
    "",
    "x",
    "audit.erase",
    "server:startup.edit",
    "2026-11-22T02:00:00Z",
    "203.0.113.9",
    "{",
    '{"action":"x"}',
    "a\0b",
    "é" * 300,
    "CREATE",
    "server",
]
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.sampled_from(TEXTS)
    | st.text(max_size=12)
)
_NAMES = st.sampled_from(NAMES) | st.text(max_size=6)
VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=6), max_leaves=25
)
DOCUMENTS = st.dictionaries(_NAMES, VALUES, max_size=9)


def bodies(name: str, document: Any) -> bytes:
    """A body that brings the document to an adapter's mapping."""
    written = json.dumps(document).encode()
    match name:
        case "otlp":
            record = b'{"body":{"stringValue":%s},"attributes":[{"key":"a","value":%s}]}' % (
                json.dumps(written.decode()).encode(),
                written,
            )
            return b'{"resourceLogs":[{"resource":%s,"scopeLogs":[{"logRecords":[%s,%s]}]}]}' % (
                written,
                record,
                written,
            )
        case "elasticsearch":
            return b'{"index":%s}\n%s\n' % (written, written)
        case "splunk":
            return b'{"event":%s,"time":1}%s' % (written, written)
        case "wings":
            return b'{"data":[%s]}' % written
        case _:
            return written


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
@given(document=DOCUMENTS)
def test_a_record_becomes_an_event_or_is_refused(adapter: Adapter[Any], document: Any) -> None:
    headers = {"content-type": "application/json", "x-webhook-event": "eloquent.created: App\\Models\\Server"}
    delivery = Delivery(bodies(adapter.name, document), headers, NOW)
    try:
        records = adapter.records(delivery)
    except InputError:
        return
    for record in records:
        if isinstance(record, InputError):
            continue
        try:
            event = adapter.event(record, delivery).event()
        except InputError:
            continue
        assert faults_of(event) <= {"before", "after", "changes", "related"}


def faults_of(event: Any) -> set[str]:
    """The members of an event that the service refuses. Rows, ready-made changes and related things are the sender's to get right;
    everything else was made to fit."""
    try:
        validate(event, now=NOW, limits=EventLimits())
    except InputError as error:
        return {(fault.pointer or "/").split("/")[1] for fault in error.faults}
    return set()


@given(
    st.lists(DOCUMENTS | st.lists(DOCUMENTS, max_size=2), max_size=5),
    st.sampled_from(["", " ", "\n", "\r\n\t "]),
    st.sampled_from(["", "{", '{"a', "]", "\\"]),
)
def test_documents_are_told_apart_wherever_one_ends(values: list[Any], between: str, broken: str) -> None:
    written = [json.dumps(value).encode() for value in values]
    body = between.encode().join([*written, broken.encode()])
    assert [document.strip() for document in documents(body)] == [*written, *([broken.encode()] if broken else [])]
