"""Elasticsearch's bulk interface (`POST /_bulk`), as rsyslog's omelasticsearch and other shippers write it.

Lines in pairs: an action, `{"index": {"_index": "…", "_id": "…"}}` or `{"create": …}`, then a document. `_id` becomes the event's id;
a log only appends, so `index` under a used id with another document is a conflict, as `create` always was. A document with `action` is
an event; any other is a log line: `syslog.message` when it looks like one, else `elasticsearch.document`.

A document that stands twice in a request is one event, if it has a time: rsyslog repeats lines within a batch when it tries again.

The answer has an item for each pair, in order, with 201, or 400 or 409 and why; its HTTP status is 200 even when every item failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
from audit_service.adapters.authorization import elasticsearch_keys
from audit_service.adapters.document import put_document
from audit_service.adapters.draft import Draft
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from audit_service.core.event import parse_json
from audit_service.errors import InputError, InvalidEventError, MalformedError

_SYSLOG_MEMBERS: Final = frozenset(
    {"severity", "facility", "syslogtag", "programname", "syslog-tag", "pri", "syslogseverity", "host", "hostname"}
)
_ERROR_TYPES: Final = {
    401: "security_exception",
    403: "security_exception",
    409: "version_conflict_engine_exception",
    413: "content_too_long_exception",
    503: "unavailable_shards_exception",
}
# Once the database is back, or the key is set right.
_LATER: Final = frozenset({401, 403, 429, 503})


@dataclass(frozen=True, slots=True)
class Pair:
    """An action line and its document, not yet parsed; `fault` when the pair cannot be taken."""

    operation: str
    index: str
    id: JSONValue
    document: bytes
    fault: str | None = None


def records(delivery: Delivery) -> list["Pair | InputError"]:
    """The pairs of a body. Raises MalformedError for an action line that is none, since what follows it has no meaning then."""
    lines = [line for line in delivery.body.split(b"\n") if line.strip()]
    if not lines:
        raise MalformedError("the body is empty; send pairs of an action line and a document line")
    found: list[Pair | InputError] = []
    position = 0
    while position < len(lines):
        pair, used = _pair(lines, position)
        found.append(pair)
        position += used
        if len(found) > delivery.limit_events:
            raise too_many(delivery)
    return found


def _pair(lines: Sequence[bytes], position: int) -> tuple[Pair, int]:
    """The pair that begins at a line, and how many lines it took."""
    line = parse_json(lines[position])
    if not isinstance(line, dict) or len(line) != 1:
        raise MalformedError(f"line {position + 1} is not an action line such as " + '{"index":{}}')
    ((operation, target),) = line.items()
    target = target if isinstance(target, dict) else {}
    index = target.get("_index")
    index = index if isinstance(index, str) else ""
    if operation == "delete":
        return Pair(operation, index, None, b"", "a log only appends: nothing can be deleted here"), 1
    if operation not in {"index", "create", "update"}:
        raise MalformedError(f"line {position + 1} is not an action line such as " + '{"index":{}}')
    document = lines[position + 1] if position + 1 < len(lines) else b""
    fault = None
    if operation == "update":
        fault = "a log only appends: nothing can be updated here"
    elif not document:
        fault = "the action line has no document line"
    return Pair(operation, index, target.get("_id"), document, fault), 2


def event(pair: Pair, delivery: Delivery) -> Draft:
    """A pair as an event."""
    if pair.fault is not None:
        raise InvalidEventError(pair.fault)
    document = parse_json(pair.document)
    if not isinstance(document, dict):
        raise not_an_object("the document")
    draft = Draft("elasticsearch", plain_action(document), delivery.limits, delivery.received_at)
    put_document(draft, document)
    draft.keep("index", pair.index or None)
    if not draft.has("id"):
        draft.put("id", pair.id)
    return draft


def plain_action(document: JSONObject) -> str:
    """The action of a document that names none: the one of the Elastic Common Schema, or what kind of line it is."""
    ecs = document.get("event")
    named = ecs.get("action") if isinstance(ecs, dict) else document.get("event.action")
    if isinstance(named, str) and named:
        return named
    return "syslog.message" if not _SYSLOG_MEMBERS.isdisjoint(document) else "elasticsearch.document"


def answer(_delivery: Delivery, pairs: Sequence[Pair | InputError], results: Sequence[Result]) -> Answer:
    """One item for each pair. Senders look at `errors` and at each item's status, not at the HTTP status."""
    items = [
        {pair.operation if isinstance(pair, Pair) else "index": _item(pair, result)}
        for pair, result in zip(pairs, results, strict=True)
    ]
    return json_answer(200, {"took": 0, "errors": not all(result.accepted for result in results), "items": items})


def _item(pair: Pair | InputError, result: Result) -> JSONObject:
    index = pair.index if isinstance(pair, Pair) else ""
    if result.accepted:
        return {"_index": index, "_id": result.id, "status": 201, "result": "created"}
    status = 400 if result.status in {413, 415, 422} else result.status
    return {"_index": index, "_id": None, "status": status, "error": _error(status, result.detail or "")}


def refuse(delivery: Delivery, refusal: Refusal) -> Answer:
    """An error as Elasticsearch words it; to rsyslog, a broken answer when the same request may be taken later.

    rsyslog's omelasticsearch (8.2302) does not look at the HTTP status. After JSON without items it gives the batch up (into
    `errorfile`, if it has one), an empty answer is a success to it, and after any other it forgets lines; only a connection that
    breaks makes it keep the batch and try again. It is the one sender here that names no User-Agent.
    """
    if refusal.status in _LATER and "user-agent" not in delivery.headers:
        return Answer(refusal.status, refusal.detail.encode(), "text/plain; charset=utf-8", cut=True)
    status = 400 if refusal.status == 422 else refusal.status
    return json_answer(status, {"error": _error(status, refusal.detail), "status": status})


def _error(status: int, reason: str) -> JSONObject:
    return {"type": _ERROR_TYPES.get(status, "document_parsing_exception"), "reason": reason}


ADAPTER: Final = Adapter("elasticsearch", ("/_bulk",), records, event, answer, refuse, elasticsearch_keys)
