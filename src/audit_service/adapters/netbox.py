"""NetBox's webhooks (`POST /adapters/netbox`).

`{"event", "timestamp", "object_type", "data": {"id", "display", …}, "request": {"id", "user", "method", "path"},
"snapshots": {"prechange", "postchange"}}`;
before 4.3 `model` for `object_type`, and `username` and `request_id` beside them. Both snapshots are whole rows.

With a shared secret set, `X-Hook-Signature` must be the hex HMAC-SHA-512 of the body under it; anything else is 401. The header
`Idempotency-Key` is not read: NetBox fills it from a template that renders the same for every request.
"""

import hashlib
import hmac
from typing import Final

from audit_service.adapters.adapter import Adapter, Delivery, counting_answer, not_an_object
from audit_service.adapters.draft import Draft
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from audit_service.core.event import parse_json
from audit_service.errors import Fault, InputError, InvalidEventError, UnauthenticatedError

_MEMBERS: Final = frozenset(
    {"event", "timestamp", "object_type", "model", "data", "request", "request_id", "username", "snapshots"}
)


def records(delivery: Delivery) -> list["JSONValue | InputError"]:
    """The one event of a body, after its signature is checked. Raises UnauthenticatedError."""
    secret = delivery.secrets.get("netbox")
    if secret is not None:
        expected = hmac.new(secret, delivery.body, hashlib.sha512).hexdigest()
        found = delivery.headers.get("x-hook-signature", "").strip().lower()
        if not hmac.compare_digest(expected.encode(), found.encode()):
            raise UnauthenticatedError("X-Hook-Signature is missing or does not fit the body and the shared secret")
    return [parse_json(delivery.body)]


def event(body: JSONValue, delivery: Delivery) -> Draft:
    """A webhook as an event."""
    if not isinstance(body, dict):
        raise not_an_object("a webhook")
    kind, happened, row = body.get("object_type") or body.get("model"), body.get("event"), _object(body, "data")
    if not isinstance(kind, str) or not isinstance(happened, str) or not kind or not happened:
        raise InvalidEventError(
            "a NetBox webhook has event and object_type; leave its body template empty",
            [Fault("is required", "/object_type"), Fault("is required", "/event")],
        )
    request = _object(body, "request")
    draft = Draft("netbox", f"{kind}.{happened}", delivery.limits, delivery.received_at)
    draft.put_time(body.get("timestamp"))
    user = request.get("user") or body.get("username")
    draft.put_part("actor", "type", "user" if user else "system")
    draft.put("actor.name", user)
    draft.put("target.type", kind)
    draft.put("target.id", row.get("id"))
    draft.put("target.name", row.get("display") or row.get("name"))
    draft.put("context.request_id", request.get("id") or body.get("request_id"))
    draft.keep("method", request.get("method"))
    draft.keep("path", request.get("path"))
    _put_rows(draft, body, row)
    for name in body.keys() - _MEMBERS:
        draft.keep(name, body[name])
    return draft


def _put_rows(draft: Draft, body: JSONObject, row: JSONObject) -> None:
    """The snapshots; without them, the object as it was sent, which says nothing of what changed."""
    snapshots = _object(body, "snapshots")
    sides = {side: snapshots.get(name) for side, name in (("before", "prechange"), ("after", "postchange"))}
    if not any(isinstance(value, dict) for value in sides.values()):
        draft.keep("data", row or None)
        return
    for side, value in sides.items():
        if isinstance(value, dict):
            draft.put_raw(side, value)


def _object(parent: JSONObject, member: str) -> JSONObject:
    value = parent.get(member)
    return value if isinstance(value, dict) else {}


ADAPTER: Final = Adapter("netbox", ("/adapters/netbox",), records, event, counting_answer)
