"""An entry as it is shown: the event rebuilt from body and surviving disclosures, with its place in the chain and one
human sentence. Everything here is computed on read and never stored or hashed."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast
from urllib.parse import quote

import orjson

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import GROUPS, SALT_BYTES, JSONObject, format_time
from audit_service.core.mask import mask_values
from audit_service.core.sight import Sight
from audit_service.core.summary import summary
from audit_service.core.verb import VERBS

# Whatever the bytes are, one row must not take a page or an export down: these are what reading and writing it may raise.
DAMAGES = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
DAMAGED_SUMMARY = "This entry is damaged and cannot be shown; verify the log"


class Stored(NamedTuple):
    """What is read of an entry to show it. `disclosures`: group → `salt || value`, without those erased or never there. What is
    null here is null only in a damaged row, and so is a time without a zone (one beyond the calendar)."""

    seq: int
    recorded_at: datetime | None
    kind: str | None
    prev_hash: bytes | None
    hash: bytes | None
    body: str | None
    id: str | None
    disclosures: Mapping[str, bytes]


class Parts(NamedTuple):
    """A stored entry that can be shown, taken apart: its body and the values of its surviving disclosures have the types that a reader
    is promised, and hold nothing that is hidden from them. Every form an event is shown in is made of this. `hidden`: the groups of which
    something was left out; `erased`: those that were sealed and are there no more."""

    seq: int
    recorded_at: str
    kind: str
    prev_hash: str
    hash: str
    body: JSONObject
    values: JSONObject
    hidden: list[str]
    erased: list[str]


def stored_from(row: Sequence[Any]) -> Stored:
    """A `Stored` from a row that begins with the columns of `store.rows.EVENT_COLUMNS`."""
    seq, _, recorded_at, kind, prev_hash, _, hash_, id_, body, *salted = row[:_COLUMNS]
    disclosures = {group: value for group, value in zip(GROUPS, salted, strict=True) if value is not None}
    return Stored(seq, recorded_at, kind, prev_hash, hash_, body, id_, disclosures)


_COLUMNS = 9 + len(GROUPS)


def stored_disclosures(row: Any) -> dict[str, bytes]:
    """Group → `salt || value` of a row that has the columns `d_<group>` by name."""
    return {group: salted for group in GROUPS if (salted := getattr(row, f"d_{group}")) is not None}


def disclosed(salted_value: bytes) -> JSONValue:
    """The value of a disclosure as stored."""
    return cast("JSONValue", orjson.loads(salted_value[SALT_BYTES:]))


class _DamagedError(ValueError):
    """A stored row that no append wrote."""


def parts_of(stored: Stored, sight: Sight) -> Parts:
    """The parts of an entry that a sight shows. Raises one of DAMAGES."""
    at, kind, hashed, prev = stored.recorded_at, stored.kind, stored.hash, stored.prev_hash
    if at is None or at.tzinfo is None or kind is None or hashed is None or prev is None or stored.body is None:
        raise _DamagedError
    body = cast("JSONObject", orjson.loads(stored.body))
    values = {group: disclosed(salted) for group, salted in stored.disclosures.items()}
    _check_body(kind, body)
    _check_values(values)
    erased = _erased(cast("JSONObject", body.get("sd", _NOTHING)), values)
    visible, hidden = mask_values(body, values, sight)
    return Parts(stored.seq, format_time(at), kind, prev.hex(), hashed.hex(), body, visible, hidden, erased)


_EVENT_TEXTS = frozenset(("id", "occurred_at", "action", "verb", "category"))  # what the body of an event always has
_CONTROL_TEXTS = frozenset(("action",))
_BODY_TYPES = {
    **dict.fromkeys(
        (
            "action",
            "id",
            "occurred_at",
            "verb",
            "category",
            "server_id",
            "actor_type",
            "target_type",
            "outcome",
            "by",
            "reason",
        ),
        str,
    ),
    **dict.fromkeys(("source", "details", "sd"), dict),
}
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


def _check_body(kind: str, body: JSONObject) -> None:
    """That every member is of the type a reader is promised. Only a forger gets past the append function with another."""
    if not body.keys() >= (_EVENT_TEXTS if kind == "event" else _CONTROL_TEXTS):
        raise _DamagedError
    for name, value in body.items():
        if name in _BODY_TYPES and type(value) is not _BODY_TYPES[name]:
            raise _DamagedError
    if body.get("verb", "OTHER") not in VERBS or body.get("outcome") not in _OUTCOMES:
        raise _DamagedError


def _check_values(values: JSONObject) -> None:
    """The same of the disclosures."""
    for group, value in values.items():
        if type(value) is not _GROUP_TYPES[group]:
            raise _DamagedError
        for name in _GROUP_TEXTS.get(group, ()):
            if type(cast("JSONObject", value).get(name, "")) is not str:
                raise _DamagedError
    for thing in cast("list[JSONValue]", cast("JSONObject", values.get("target", _NOTHING)).get("related", ())):
        if type(thing) is not dict:
            raise _DamagedError
    for change in cast("list[JSONObject]", values.get("changes", ())):
        if type(change["path"]) is not str or change["op"] not in _OPS:
            raise _DamagedError


def event_view(stored: Stored, link_templates: Mapping[str, str], sight: Sight) -> JSONObject:
    """The event as the API shows it to a sight: every member always there, null where nothing was said, or it was erased or is hidden.

    A damaged row is shown too, as a stub with `damaged`: true. Whether a row that can be read is also true, only `verify` says.
    """
    try:
        return _event(parts_of(stored, sight), link_templates)
    except DAMAGES:
        return _stub(stored)


def event_json(stored: Stored, link_templates: Mapping[str, str], sight: Sight) -> bytes:
    """The same as JSON text."""
    try:
        return orjson.dumps(_event(parts_of(stored, sight), link_templates))
    except DAMAGES:  # also what can be read and not be written: it is nested too deep
        return orjson.dumps(_stub(stored))


def _stub(stored: Stored) -> JSONObject:
    """All that can be said of a damaged row."""
    hashed, prev = stored.hash, stored.prev_hash
    return {
        **dict.fromkeys(_MEMBERS),
        "id": stored.id,
        "seq": stored.seq,
        "kind": stored.kind,
        "recorded_at": time_view(stored.recorded_at),
        "related": [],
        "changes": [],
        "erased": [],
        "hidden": [],
        "proof": {"hash": None if hashed is None else hashed.hex(), "prev_hash": None if prev is None else prev.hex()},
        "damaged": True,
        "summary": DAMAGED_SUMMARY,
    }


def time_view(at: datetime | None) -> str | None:
    """A time of a row that may be damaged."""
    return None if at is None or at.tzinfo is None else format_time(at)


def _event(parts: Parts, link_templates: Mapping[str, str]) -> JSONObject:
    body, values = parts.body, parts.values
    said, disclosed_ = body.get, values.get
    text = cast("JSONObject", disclosed_("text", _NOTHING))
    return {
        "id": said("id"),
        "seq": parts.seq,
        "kind": parts.kind,
        "recorded_at": parts.recorded_at,
        "occurred_at": said("occurred_at"),
        "action": said("action"),
        "verb": said("verb"),
        "category": said("category"),
        "actor": actor_view(body, values),
        "on_behalf_of": disclosed_("on_behalf_of"),
        "target": _target(body, values, link_templates),
        "related": cast("JSONObject", disclosed_("target", _NOTHING)).get("related", []),
        "server_id": said("server_id"),
        "outcome": said("outcome"),
        "by": said("by"),
        "reason": said("reason") or text.get("reason"),
        "description": text.get("description"),
        "context": _context(values),
        "changes": disclosed_("changes", []),
        "metadata": disclosed_("metadata"),
        "source": said("source"),
        "details": said("details"),
        "erased": cast("list[JSONValue]", parts.erased),
        "hidden": cast("list[JSONValue]", parts.hidden),
        "proof": {"hash": parts.hash, "prev_hash": parts.prev_hash},
        "damaged": False,
        "summary": summary(body, values),
    }


_NOTHING: JSONObject = {}
_MEMBERS = (
    "id", "seq", "kind", "recorded_at", "occurred_at", "action", "verb", "category", "actor", "on_behalf_of", "target", "related",
    "server_id", "outcome", "by", "reason", "description", "context", "changes", "metadata", "source", "details", "erased", "hidden",
    "proof", "damaged", "summary",
)  # fmt: skip


def _erased(commitments: JSONObject, values: JSONObject) -> list[str]:
    """The groups that were sealed and are there no more."""
    if commitments.keys() == values.keys():
        return []
    return sorted(commitments.keys() - values.keys())


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
