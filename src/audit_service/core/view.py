"""An entry as it is shown: the event rebuilt from body and surviving disclosures, with its place in the chain and one
human sentence. Everything here is computed on read and never stored or hashed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote

import orjson

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import GROUPS, SALT_BYTES, JSONObject, format_time

_PAST = {
    "CREATE": "created", "READ": "viewed", "UPDATE": "updated", "DELETE": "deleted", "LOGIN": "logged in", "LOGOUT": "logged out",
    "RESET": "reset", "EXECUTE": "ran", "RESTORE": "restored", "SUSPEND": "suspended", "RESUME": "resumed", "TRANSFER": "transferred",
}  # fmt: skip
SUMMARY_CHANGES = 3
SUMMARY_VALUE_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Stored:
    """What is read of an entry to show it. `disclosures`: group → `salt || value`, without those erased or never there."""

    seq: int
    recorded_at: datetime
    kind: str
    prev_hash: bytes
    hash: bytes
    body: str
    disclosures: Mapping[str, bytes] = field(default_factory=dict)


def disclosed(salted_value: bytes) -> JSONValue:
    """The value of a disclosure as stored."""
    return cast("JSONValue", orjson.loads(memoryview(salted_value)[SALT_BYTES:]))


def event_view(stored: Stored, link_templates: Mapping[str, str]) -> JSONObject:
    """The event as the API shows it: every member always there, null where nothing was said or it was erased."""
    body = cast("JSONObject", orjson.loads(stored.body))
    values = {group: disclosed(salted) for group, salted in stored.disclosures.items()}
    commitments = cast("JSONObject", body.get("sd", {}))
    target = _target(body, values, link_templates)
    text = cast("JSONObject", values.get("text", {}))
    event: JSONObject = {
        "id": body.get("id"),
        "seq": stored.seq,
        "kind": stored.kind,
        "recorded_at": format_time(stored.recorded_at),
        "occurred_at": body.get("occurred_at"),
        "action": body.get("action"),
        "verb": body.get("verb"),
        "category": body.get("category"),
        "actor": _actor(body, values),
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
        "erased": list[JSONValue](sorted(set(commitments) - set(values))),
        "proof": {"hash": stored.hash.hex(), "prev_hash": stored.prev_hash.hex()},
    }
    event["summary"] = summary(event)
    return event


def _actor(body: JSONObject, values: JSONObject) -> JSONObject | None:
    actor = dict(cast("JSONObject", values.get("actor", {})))
    members = {"type": body.get("actor_type"), **actor, "email": values.get("actor_email")}
    return _present(members, ("type", "id", "name", "email", "role"))


def _target(body: JSONObject, values: JSONObject, link_templates: Mapping[str, str]) -> JSONObject | None:
    target = cast("JSONObject", values.get("target", {}))
    members = {"type": body.get("target_type"), "id": target.get("id"), "name": target.get("name")}
    shown = _present(members, ("type", "id", "name"))
    if shown is not None:
        shown["url"] = _link(shown, link_templates)
    return shown


def _link(target: JSONObject, link_templates: Mapping[str, str]) -> str | None:
    template = link_templates.get(cast("str", target["type"] or ""))
    if template is None or target["id"] is None:
        return None
    # Percent-encoded, so that an id can never change where the link leads.
    return template.replace("{id}", quote(cast("str", target["id"]), safe=""))


def _context(values: JSONObject) -> JSONObject | None:
    context = cast("JSONObject", values.get("context", {}))
    members = {"ip": values.get("ip"), **context}
    return _present(members, ("ip", "user_agent", "session_id", "request_id", "traceparent"))


def _present(members: JSONObject, names: tuple[str, ...]) -> JSONObject | None:
    """The members with null for what is missing; None when all of them are."""
    shown = {name: members.get(name) for name in names}
    return shown if any(value is not None for value in shown.values()) else None


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
    columns = ((group, getattr(row, f"d_{group}")) for group in GROUPS)
    return Stored(
        seq=row.seq,
        recorded_at=row.recorded_at,
        kind=row.kind,
        prev_hash=row.prev_hash,
        hash=row.hash,
        body=row.body or "{}",
        disclosures={group: value for group, value in columns if value is not None},
    )
