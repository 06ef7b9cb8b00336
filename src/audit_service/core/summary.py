"""One human sentence for an event: who did what to what, from which state to which. In English; frontends that translate have the members.

>>> body = {"action": "server.updated", "verb": "UPDATE", "target_type": "server"}
>>> changes = [{"path": "/ram", "op": "replace", "old": 4, "new": 8}]
>>> summary(body, {"actor": {"name": "Ana"}, "target": {"id": "77", "name": "web"}, "changes": changes})
'Ana updated server web (77): /ram 4 → 8'
"""

from typing import cast

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
