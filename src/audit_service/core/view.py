"""An entry as it is shown: the event rebuilt from body and surviving disclosures, with its place in the chain and one
human sentence. Everything here is computed on read and never stored or hashed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, cast
from urllib.parse import quote

import orjson

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import GROUPS, SALT_BYTES, JSONObject, format_time
from audit_service.core.verb import VERBS

_PAST = {
    "CREATE": "created", "READ": "viewed", "UPDATE": "updated", "DELETE": "deleted", "LOGIN": "logged in", "LOGOUT": "logged out",
    "RESET": "reset", "EXECUTE": "ran", "RESTORE": "restored", "SUSPEND": "suspended", "RESUME": "resumed", "TRANSFER": "transferred",
}  # fmt: skip
SUMMARY_CHANGES = 3
SUMMARY_VALUE_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Stored:
    """What is read of an entry to show it. `disclosures`: group → `salt || value`, without those erased or never there. What is
    null here is null only in a damaged row, and so is a time without a zone (one beyond the calendar)."""

    seq: int
    recorded_at: datetime | None
    kind: str | None
    prev_hash: bytes | None
    hash: bytes | None
    body: str | None
    id: str | None = None
    disclosures: Mapping[str, bytes] = field(default_factory=dict)


def disclosed(salted_value: bytes) -> JSONValue:
    """The value of a disclosure as stored."""
    return cast("JSONValue", orjson.loads(memoryview(salted_value)[SALT_BYTES:]))


class _DamagedError(ValueError):
    """A stored row that no append wrote."""


def event_view(stored: Stored, link_templates: Mapping[str, str]) -> JSONObject:
    """The event as the API shows it: every member always there, null where nothing was said or it was erased.

    A damaged row is shown too, as a stub with `damaged`: true. Whether a row that can be read is also true, only `verify` says.
    """
    try:
        return _event(stored, link_templates)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        # Whatever the bytes are, one row must not take a page or an export down.
        return _stub(stored)


def _stub(stored: Stored) -> JSONObject:
    """All that can be said of a damaged row."""
    at, hashed, prev = stored.recorded_at, stored.hash, stored.prev_hash
    return {
        **dict.fromkeys(_MEMBERS),
        "id": stored.id,
        "seq": stored.seq,
        "kind": stored.kind,
        "recorded_at": None if at is None or at.tzinfo is None else format_time(at),
        "related": [],
        "changes": [],
        "erased": [],
        "proof": {"hash": None if hashed is None else hashed.hex(), "prev_hash": None if prev is None else prev.hex()},
        "damaged": True,
        "summary": "This entry is damaged and cannot be shown; verify the log",
    }


def _event(stored: Stored, link_templates: Mapping[str, str]) -> JSONObject:
    at, hashed, prev = stored.recorded_at, stored.hash, stored.prev_hash
    if at is None or at.tzinfo is None or stored.kind is None or hashed is None or prev is None or stored.body is None:
        raise _DamagedError
    body = cast("JSONObject", orjson.loads(stored.body))
    values = {group: disclosed(salted) for group, salted in stored.disclosures.items()}
    _check_shapes(stored.kind, body, values)
    commitments = cast("JSONObject", body.get("sd", {}))
    target = _target(body, values, link_templates)
    text = cast("JSONObject", values.get("text", {}))
    event: JSONObject = {
        "id": body.get("id"),
        "seq": stored.seq,
        "kind": stored.kind,
        "recorded_at": format_time(at),
        "occurred_at": body.get("occurred_at"),
        "action": body.get("action"),
        "verb": body.get("verb"),
        "category": body.get("category"),
        "actor": actor_view(body, values),
        "on_behalf_of": values.get("on_behalf_of"),
        "target": target,
        "related": cast("JSONObject", values.get("target", {})).get("related", []),
        "server_id": body.get("server_id"),
        "outcome": body.get("outcome"),
        "reason": text.get("reason"),
        "description": text.get("description"),
        "context": _context(values),
        "changes": values.get("changes", []),
        "metadata": values.get("metadata"),
        "source": body.get("source"),
        "details": body.get("details"),
        "erased": []
        if commitments.keys() == values.keys()
        else list[JSONValue](sorted(commitments.keys() - values.keys())),
        "proof": {"hash": hashed.hex(), "prev_hash": prev.hex()},
        "damaged": False,
    }
    event["summary"] = summary(event)
    return event


_NOTHING: JSONObject = {}
_MEMBERS = (
    "id", "seq", "kind", "recorded_at", "occurred_at", "action", "verb", "category", "actor", "on_behalf_of", "target", "related",
    "server_id", "outcome", "reason", "description", "context", "changes", "metadata", "source", "details", "erased", "proof",
    "damaged", "summary",
)  # fmt: skip
_EVENT_TEXTS = ("id", "occurred_at", "action", "verb", "category")  # what the body of an event always has
_CONTROL_TEXTS = ("action",)
_OPTIONAL_TEXTS = ("id", "occurred_at", "verb", "category", "server_id", "actor_type", "target_type", "outcome")
_OPTIONAL_OBJECTS = ("source", "details", "sd")
_GROUP_TYPES = {**dict.fromkeys(GROUPS, dict), "actor_email": str, "ip": str, "changes": list}
_GROUP_TEXTS = {
    "actor": ("id", "name", "role"),
    "on_behalf_of": ("type", "id", "name", "email"),
    "target": ("id", "name"),
    "context": ("user_agent", "session_id", "request_id", "traceparent"),
    "text": ("description", "reason"),
}
_OUTCOMES = (None, "success", "failure", "unknown")
_OPS = ("replace", "add", "remove")


def _check_shapes(kind: str, body: JSONObject, values: JSONObject) -> None:
    """That everything is of the type a reader is promised. Only a forger gets past the append function with another."""
    for name in _EVENT_TEXTS if kind == "event" else _CONTROL_TEXTS:
        _expect(type(body[name]) is str)
    for name in _OPTIONAL_TEXTS:
        _expect(name not in body or type(body[name]) is str)
    for name in _OPTIONAL_OBJECTS:
        _expect(name not in body or type(body[name]) is dict)
    _expect(body.get("verb", "OTHER") in VERBS and body.get("outcome") in _OUTCOMES)
    for group, value in values.items():
        _expect(type(value) is _GROUP_TYPES[group])
        for name in _GROUP_TEXTS.get(group, ()):
            _expect(type(cast("JSONObject", value).get(name, "")) is str)
    for thing in cast("list[JSONValue]", cast("JSONObject", values.get("target", {})).get("related", [])):
        _expect(type(thing) is dict)
    for change in cast("list[JSONObject]", values.get("changes", [])):
        _expect(type(change["path"]) is str and change["op"] in _OPS)


def _expect(holds: bool) -> None:
    if not holds:
        raise _DamagedError


def actor_view(body: JSONObject, values: JSONObject) -> JSONObject | None:
    """Who did it, from a body and the values of its surviving disclosures; None when nothing is said of them."""
    kind, email = body.get("actor_type"), values.get("actor_email")
    actor = cast("JSONObject", values.get("actor", _NOTHING))
    if kind is None and email is None and not actor:
        return None
    return {
        "type": kind, "id": actor.get("id"), "name": actor.get("name"), "email": email, "role": actor.get("role"),
    }  # fmt: skip


def _target(body: JSONObject, values: JSONObject, link_templates: Mapping[str, str]) -> JSONObject | None:
    kind = body.get("target_type")
    target = cast("JSONObject", values.get("target", _NOTHING))
    identifier, name = target.get("id"), target.get("name")
    if kind is None and identifier is None and name is None:
        return None
    return {"type": kind, "id": identifier, "name": name, "url": _link(kind, identifier, link_templates)}


def _link(kind: JSONValue, identifier: JSONValue, link_templates: Mapping[str, str]) -> str | None:
    template = link_templates.get(cast("str", kind or ""))
    if template is None or identifier is None:
        return None
    # Percent-encoded, so that an id can never change where the link leads.
    return template.replace("{id}", quote(cast("str", identifier), safe=""))


def _context(values: JSONObject) -> JSONObject | None:
    ip = values.get("ip")
    context = cast("JSONObject", values.get("context", _NOTHING))
    if ip is None and not context:
        return None
    return {
        "ip": ip, "user_agent": context.get("user_agent"), "session_id": context.get("session_id"),
        "request_id": context.get("request_id"), "traceparent": context.get("traceparent"),
    }  # fmt: skip


def summary(event: Mapping[str, JSONValue]) -> str:
    """One sentence: who did what to what, from which state to which. In English; frontends that translate have the members."""
    words = [_who(event), _did(event)]
    whom = _named(cast("JSONObject | None", event.get("target")))
    if whom:
        words.append(whom)
    changes = cast("list[JSONObject]", event.get("changes") or [])
    told = "; ".join(_change(change) for change in changes[:SUMMARY_CHANGES])
    more = len(changes) - SUMMARY_CHANGES
    sentence = " ".join(words)
    if told:
        sentence += f": {told}" + (f" and {more} more" if more > 0 else "")
    return sentence


def _who(event: Mapping[str, JSONValue]) -> str:
    actor = cast("JSONObject | None", event.get("actor")) or {}
    behalf = cast("JSONObject | None", event.get("on_behalf_of")) or {}
    name = _first(actor, ("name", "email", "id", "type")) or "Someone"
    other = _first(behalf, ("name", "email", "id", "type"))
    return f"{name} on behalf of {other}" if other else name


def _did(event: Mapping[str, JSONValue]) -> str:
    verb = cast("str", event.get("verb") or "OTHER")
    failed = event.get("outcome") == "failure"
    words = _PAST.get(verb, f"did {event.get('action')}")
    if verb == "EXECUTE":
        words = f"ran {event.get('action')}" + (" on" if event.get("target") else "")
    if verb == "OTHER" and event.get("target"):
        words += " on"
    return f"{words} (failed)" if failed else words


def _named(thing: JSONObject | None) -> str:
    if not thing:
        return ""
    kind, name, identifier = (cast("str | None", thing.get(member)) for member in ("type", "name", "id"))
    words = [word for word in (kind, name or identifier) if word]
    return " ".join(words) + (f" ({identifier})" if name and identifier else "")


def _change(change: JSONObject) -> str:
    path = cast("str", change["path"])
    if change.get("redacted"):
        return f"{path} changed (value withheld)"
    if change["op"] == "add":
        return f"{path} set to {_value(change.get('new'))}"
    if change["op"] == "remove":
        return f"{path} removed (was {_value(change.get('old'))})" if "old" in change else f"{path} removed"
    return f"{path} {_value(change.get('old'))} → {_value(change.get('new'))}"


def _value(value: JSONValue) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= SUMMARY_VALUE_CHARACTERS else text[: SUMMARY_VALUE_CHARACTERS - 1] + "…"


def _first(members: JSONObject, names: tuple[str, ...]) -> str | None:
    return next((cast("str", members[name]) for name in names if members.get(name)), None)


def stored_from(row: Any) -> Stored:
    """A `Stored` from a row with the columns of `store.query.EVENT_COLUMNS`."""
    seq, recorded_at, kind, prev_hash, hash_, body, id_, *columns = _stored_columns(row)
    disclosures = {group: value for group, value in zip(GROUPS, columns, strict=True) if value is not None}
    return Stored(seq, recorded_at, kind, prev_hash, hash_, body, id_, disclosures)


_stored_columns = attrgetter(
    "seq", "recorded_at", "kind", "prev_hash", "hash", "body", "id", *(f"d_{group}" for group in GROUPS)
)
