"""One human sentence for an event: who did what to what, from which state to which. In English; frontends that translate have the members.

>>> body = {"action": "server.updated", "verb": "UPDATE", "target_type": "server"}
>>> changes = [{"path": "/ram", "op": "replace", "old": 4, "new": 8}]
>>> summary(body, {"actor": {"name": "Ana"}, "target": {"id": "77", "name": "web"}, "changes": changes})
'Ana updated server web (77): /ram 4 → 8'
"""

from collections.abc import Callable
from typing import Any, cast

import orjson

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject

_PAST = {
    "CREATE": "created", "READ": "viewed", "UPDATE": "updated", "DELETE": "deleted", "LOGIN": "logged in", "LOGOUT": "logged out",
    "RESET": "reset", "EXECUTE": "ran", "RESTORE": "restored", "SUSPEND": "suspended", "RESUME": "resumed", "TRANSFER": "transferred",
}  # fmt: skip
SUMMARY_CHANGES = 3
SUMMARY_VALUE_CHARACTERS = 40
_NOTHING: JSONObject = {}


def summary(body: JSONObject, values: JSONObject) -> str:
    """The sentence, from a body and the values of its surviving disclosures, both of the shapes that `view` checks."""
    if "by" in body:
        return _of_control(body, values)
    target = cast("JSONObject", values.get("target", _NOTHING))
    kind, identifier, name = body.get("target_type"), target.get("id"), target.get("name")
    has_target = not (kind is None and identifier is None and name is None)
    words = [_who(body, values), _did(body, has_target)]
    if kind:
        words.append(cast("str", kind))
    if name:
        words.append(f"{name} ({identifier})" if identifier else cast("str", name))
    elif identifier:
        words.append(cast("str", identifier))
    sentence = " ".join(words)
    changes = cast("list[JSONObject]", values.get("changes"))
    if not changes:
        return sentence
    more = len(changes) - SUMMARY_CHANGES
    told = "; ".join([_change(change) for change in changes[:SUMMARY_CHANGES]])
    return f"{sentence}: {told} and {more} more" if more > 0 else f"{sentence}: {told}"


def _of_control(body: JSONObject, values: JSONObject) -> str:
    """Of an entry of the service about itself, see `core.control`: what was done, by whom and why."""
    details = cast("dict[str, Any]", body.get("details", _NOTHING))
    done = _CONTROLS.get(cast("str", body["action"]), _no_such_control)(details, body, values)
    return f"{done} (by {body['by']}): {body.get('reason') or 'no reason given'}"


def _dropped(details: dict[str, Any], *_: JSONObject) -> str:
    what = f"Removed the content of {_counted(details['count'], 'event')}"
    if "category" in details:
        what += f" of category {details['category']}"
    return f"{what} recorded before {details['before']}" if "before" in details else what


def _erased(details: dict[str, Any], *_: JSONObject) -> str:
    items = details["items"]
    return f"Erased {_counted(len(items), 'value')} in {_counted(len({item[0] for item in items}), 'entry', 'entries')}"


def _held(details: dict[str, Any], body: JSONObject, values: JSONObject) -> str:
    if details["state"] == "lifted":
        return f"Lifted the legal hold {details['hold']}"
    if "range" in details:
        start, end = details["range"]
        return f"Set a legal hold on entries {start} to {end - 1}"
    target = cast("JSONObject", values.get("target", _NOTHING)).get("id") or "(erased)"
    return f"Set a legal hold on {body.get('target_type')} {target}"


def _pruned(details: dict[str, Any], *_: JSONObject) -> str:
    return f"Pruned the entries before {details['cut']}"


def _signer_changed(details: dict[str, Any], *_: JSONObject) -> str:
    return f"Signing key {details['event']}, from size {details['from_size']}"


def _resumed(details: dict[str, Any], *_: JSONObject) -> str:
    start, end = details["lost"]
    if start == end:
        return "Resumed after a restore that lost nothing that was signed in this epoch"
    return f"Resumed after a restore that lost entries {start} to {end - 1}"


def _no_such_control(_: dict[str, Any], body: JSONObject, __: JSONObject) -> str:
    return f"Did {body['action']}"


_CONTROLS: dict[str, Callable[[dict[str, Any], JSONObject, JSONObject], str]] = {
    "audit.drop": _dropped,
    "audit.erase": _erased,
    "audit.hold": _held,
    "audit.prune": _pruned,
    "audit.signer": _signer_changed,
    "audit.resume": _resumed,
}


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _who(body: JSONObject, values: JSONObject) -> str:
    actor = cast("JSONObject", values.get("actor", _NOTHING))
    name = actor.get("name") or values.get("actor_email") or actor.get("id") or body.get("actor_type") or "Someone"
    behalf = cast("JSONObject | None", values.get("on_behalf_of"))
    if not behalf:
        return cast("str", name)
    other = behalf.get("name") or behalf.get("email") or behalf.get("id") or behalf.get("type")
    return f"{name} on behalf of {other}" if other else cast("str", name)


def _did(body: JSONObject, has_target: bool) -> str:
    verb = cast("str", body.get("verb", "OTHER"))
    words = _PAST.get(verb) or f"did {body.get('action')}"
    if verb == "EXECUTE":
        words = f"ran {body.get('action')}" + (" on" if has_target else "")
    if verb == "OTHER" and has_target:
        words += " on"
    return f"{words} (failed)" if body.get("outcome") == "failure" else words


def _change(change: JSONObject) -> str:
    path, op = change["path"], change["op"]
    if change.get("redacted"):
        return f"{path} changed (value withheld)"
    if op == "add":
        return f"{path} set to {_value(change.get('new'))}"
    if op == "remove":
        return f"{path} removed (was {_value(change.get('old'))})" if "old" in change else f"{path} removed"
    return f"{path} {_value(change.get('old'))} → {_value(change.get('new'))}"


def _value(value: JSONValue) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= SUMMARY_VALUE_CHARACTERS else text[: SUMMARY_VALUE_CHARACTERS - 1] + "…"
