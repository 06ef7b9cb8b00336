"""Splunk's HTTP Event Collector (`POST /services/collector/event`).

One or several objects `{"event": …, "time": …, "host": …, "source": …, "sourcetype": …, "index": …, "fields": {…}}`, one after the
other with or without anything between them, or in an array. `event` is a document (with `action`: an event of ours) or a text.

Answers carry HEC's codes. A request with a bad object is answered 400 with its number (`invalid-event-number`, from 0); the others are
stored all the same, and sending the request again stores nothing twice.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from audit_service.adapters.adapter import (
    Adapter,
    Answer,
    Delivery,
    Refusal,
    Result,
    json_answer,
    not_an_object,
    too_many,
)
from audit_service.adapters.authorization import splunk_keys
from audit_service.adapters.document import event_in_text, put_document
from audit_service.adapters.draft import Draft
from audit_service.core.canonical import JSONValue
from audit_service.core.event import parse_json
from audit_service.errors import Fault, InputError, InvalidEventError, MalformedError

_PATHS: Final = ("/services/collector/event", "/services/collector/event/1.0", "/services/collector")
_KEPT: Final = ("host", "source", "sourcetype", "index", "fields")
# Only finds where a document ends; what it says is read by the one parser that reads everything else.
_FRAMES: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_DATA_FAULT, _BUSY, _TOKEN_FAULT, _NO_TOKEN, _NO_DATA, _EVENT_MISSING, _EVENT_BLANK = 6, 9, 4, 2, 5, 12, 13
_TEXTS: Final = {
    _NO_TOKEN: "Token is required",
    _TOKEN_FAULT: "Invalid token",
    _NO_DATA: "No data",
    _DATA_FAULT: "Invalid data format",
    _BUSY: "Server is busy",
    _EVENT_MISSING: "Event field is required",
    _EVENT_BLANK: "Event field cannot be blank",
}


def records(delivery: Delivery) -> list["JSONValue | InputError"]:
    """The objects of a body. What cannot be read is an error in its place, and ends the body: its end is not known."""
    found: list[JSONValue | InputError] = []
    for document in documents(delivery.body):
        try:
            value = parse_json(document)
        except InputError as error:
            found.append(error)
        else:
            found += value if isinstance(value, list) else [value]
        if len(found) > delivery.limit_events:
            raise too_many(delivery)
    if not found:
        raise MalformedError("the body is empty; send one or more events")
    return found


def documents(body: bytes) -> Iterator[bytes]:
    """The JSON documents that stand one after the other; the last may be broken. Raises MalformedError when it is not UTF-8."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise MalformedError("the body must be UTF-8") from None
    position = _after_space(text, 0)
    while position < len(text):
        try:
            _, end = _FRAMES.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = len(text)
        yield text[position:end].encode()
        position = _after_space(text, end)


def _after_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return position if found is None else found.end()


def event(record: JSONValue, delivery: Delivery) -> Draft:
    """One object as an event."""
    if not isinstance(record, dict):
        raise not_an_object("an event for the collector")
    inner = record.get("event")
    if inner is None:
        raise InvalidEventError(_TEXTS[_EVENT_MISSING], [Fault("is required", "/event")])
    if isinstance(inner, str) and not inner.strip():
        raise InvalidEventError(_TEXTS[_EVENT_BLANK], [Fault("must not be blank", "/event")])
    draft = Draft("splunk", None, delivery.limits, delivery.received_at)
    document = inner if isinstance(inner, dict) else event_in_text(inner)
    if document is not None:
        put_document(draft, document)
    elif isinstance(inner, str):
        draft.put("description", inner)
    else:
        draft.keep("event", inner)
    if draft.dated:
        draft.keep("time", record.get("time"))
    else:
        draft.put_time(record.get("time"), "time")
    for name, value in record.items():
        if name not in {"event", "time"}:
            draft.keep(name, value if name not in _KEPT or value not in ({}, "") else None)
    return draft


def answer(_delivery: Delivery, records: object, results: Sequence[Result]) -> Answer:
    """Success, or the code and number of the first event that was refused."""
    del records
    for number, result in enumerate(results):
        if not result.accepted:
            code = next(
                (c for c in (_EVENT_MISSING, _EVENT_BLANK) if (result.detail or "").startswith(_TEXTS[c])), _DATA_FAULT
            )
            body = {"text": _TEXTS[code], "code": code, "invalid-event-number": number, "detail": result.detail}
            return json_answer(400, body)
    return json_answer(200, {"text": "Success", "code": 0})


def refuse(delivery: Delivery, refusal: Refusal) -> Answer:
    """The same for a whole request."""
    if refusal.status in {401, 403}:
        code = _TOKEN_FAULT if delivery.headers.get("authorization") else _NO_TOKEN
    elif refusal.status in {429, 503}:
        code = _BUSY
    else:
        code = _NO_DATA if not delivery.body.strip() and refusal.status == 400 else _DATA_FAULT
    status = 400 if refusal.status == 422 else refusal.status
    return json_answer(status, {"text": _TEXTS[code], "code": code, "detail": refusal.detail})


_HEALTHY: Final = json_answer(200, {"text": "HEC is healthy", "code": 17})
ADAPTER: Final = Adapter(
    "splunk",
    _PATHS,
    records,
    event,
    answer,
    refuse,
    splunk_keys,
    probes={"/services/collector/health": _HEALTHY, "/services/collector/health/1.0": _HEALTHY},
)
