"""Pelican's webhooks (`POST /adapters/pelican`), of the two kinds its panel sends.

- Activity: `{"event", "description", "ip", "timestamp", "actor": {"id", "type", "username"},
  "properties": {…}, "subjects": [{"id", "type"}]}`.
- A model's event: the whole row, with the event's name in the header `X-Webhook-Event` (`eloquent.created: App\\Models\\Server`).

The panel has neither ids nor retries. Properties `old` and `new` are one field's change; `EDITED` says which field where the event's
name does not.
"""

import re
from typing import Final

from audit_service.adapters.adapter import Adapter, Delivery, counting_answer, not_an_object
from audit_service.adapters.document import RELATED_LIMIT
from audit_service.adapters.draft import Draft
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from audit_service.core.event import parse_json
from audit_service.errors import InputError

# Event → the path of what changed; {…} is a property.
EDITED: Final = {
    "user:account.email-changed": "/email",
    "server:settings.rename": "/name",
    "server:settings.description": "/description",
    "server:startup.edit": "/startup/{variable}",
    "server:startup.image": "/image",
    "server:allocation.notes": "/allocations/{allocation}/notes",
}
_MEMBERS: Final = frozenset({"event", "description", "ip", "timestamp", "actor", "properties", "subjects"})
_PLURAL: Final = re.compile(r"_(one|other)$")
_MODEL_EVENT: Final = re.compile(r"(?:eloquent\.)?([a-z]+): (?:[A-Za-z0-9_]+\\)*([A-Za-z0-9]+)", re.ASCII)


def records(delivery: Delivery) -> list["JSONValue | InputError"]:
    """The one event of a body."""
    return [parse_json(delivery.body)]


def event(body: JSONValue, delivery: Delivery) -> Draft:
    """A webhook as an event."""
    if not isinstance(body, dict):
        raise not_an_object("a webhook")
    name = body.get("event") or delivery.headers.get("x-webhook-event")
    model = _MODEL_EVENT.fullmatch(name) if isinstance(name, str) else None
    if model is not None:
        return _model_event(body, model.group(1), model.group(2), delivery)
    draft = Draft(
        "pelican", _PLURAL.sub("", name) if isinstance(name, str) else name, delivery.limits, delivery.received_at
    )
    draft.put("description", body.get("description"))
    draft.put_ip(body.get("ip"))
    draft.put_time(body.get("timestamp"))
    _put_actor(draft, body.get("actor"))
    _put_subjects(draft, body.get("subjects"))
    _put_properties(draft, _PLURAL.sub("", str(name)), body.get("properties"))
    for member in body.keys() - _MEMBERS:
        draft.keep(member, body[member])
    return draft


def _model_event(body: JSONObject, verb: str, model: str, delivery: Delivery) -> Draft:
    """A whole row. Only of a new or a deleted one is it known what the other side was: nothing."""
    kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", model).lower()
    draft = Draft("pelican", f"{kind}.{verb}", delivery.limits, delivery.received_at)
    row = {name: value for name, value in body.items() if name != "event"}
    draft.put("target.type", kind)
    for member, name in (("id", "id"), ("name", "name"), ("name", "username")):
        if not draft.has_part("target", member):
            draft.put(f"target.{member}", row.get(name))
    if verb in {"created", "deleted"}:
        draft.put_raw("after" if verb == "created" else "before", row)
    else:
        draft.keep("row", row)
    draft.put_time(row.get("deleted_at") or row.get("updated_at") or row.get("created_at"), "updated_at")
    return draft


def _put_actor(draft: Draft, actor: JSONValue) -> None:
    if not isinstance(actor, dict):
        draft.put_part("actor", "type", "system")
        draft.keep("actor", actor)
        return
    draft.put("actor.type", actor.get("type"))
    draft.put("actor.id", actor.get("id"))
    draft.put("actor.name", actor.get("username"))
    draft.put("actor.email", actor.get("email"))
    others = {name: value for name, value in actor.items() if name not in {"id", "type", "username", "email"}}
    draft.keep("actor", others or None)


def _put_subjects(draft: Draft, subjects: JSONValue) -> None:
    """The first subject is the target, the others are related; a server among them is the event's server."""
    items = subjects if isinstance(subjects, list) else []
    found: list[JSONObject] = []
    for item in items:
        kind, number = (item.get("type"), item.get("id")) if isinstance(item, dict) else (None, None)
        if isinstance(kind, str) and 1 <= len(kind) <= 128 and isinstance(number, int | str) and number != "":
            found.append({"type": kind, "id": str(number)})
    if len(found) != len(items) or len(found) > RELATED_LIMIT or any(len(str(item["id"])) > 255 for item in found):
        draft.keep("subjects", subjects)
        return
    for server in (item for item in found if item["type"] == "server"):
        draft.put("server_id", server["id"])
        break
    if found:
        draft.put_raw("target", found[0])
    if found[1:]:
        draft.put_raw("related", [*found[1:]])


def _put_properties(draft: Draft, name: str, properties: JSONValue) -> None:
    if not isinstance(properties, dict):
        draft.keep("properties", properties if properties != [] else None)
        return
    path = _edited_path(name, properties) if {"old", "new"} <= properties.keys() else None
    if path is not None:
        draft.put_raw("changes", [{"path": path, "op": "replace", "old": properties["old"], "new": properties["new"]}])
    for member, value in properties.items():
        # Under the names `old` and `new` nobody would know a secret: the path of the change is what names it.
        if path is None or member not in {"old", "new"}:
            draft.keep(member, value)


def _edited_path(name: str, properties: JSONObject) -> str | None:
    """The JSON Pointer of the field that an event changed: from the table, else the last word of the event's name."""
    pattern = EDITED.get(name) or "/" + (re.split(r"[.:]", name)[-1] or "value")
    segments = []
    for segment in pattern.split("/")[1:]:
        value: JSONValue = properties.get(segment[1:-1]) if segment.startswith("{") else segment
        if not isinstance(value, str | int) or value == "" or len(str(value)) > 255:
            return None
        segments.append(str(value).replace("~", "~0").replace("/", "~1"))
    return "/" + "/".join(segments)


ADAPTER: Final = Adapter("pelican", ("/adapters/pelican",), records, event, counting_answer)
