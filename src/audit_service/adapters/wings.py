"""Pterodactyl's Wings: the node daemon's activity (`POST /api/remote/activity`), sent here instead of, or by, the panel.

`{"data": [{"user": "<uuid>"|null, "server": "<uuid>", "event": "server:power.start", "metadata": {…}|null,
"ip": ""|"…", "timestamp": "…"}]}`

Wings deletes its rows after any 2xx and otherwise sends them again, for ever. So a row is refused only when it is no object, and one
refused row does not hold up the others. Rows that come again are replays.
"""

from collections.abc import Sequence
from typing import Final

from audit_service.adapters.adapter import Adapter, Delivery, check_count, counting_answer, not_an_object
from audit_service.adapters.authorization import wings_keys
from audit_service.adapters.draft import Draft
from audit_service.core.canonical import JSONValue
from audit_service.core.event import parse_json
from audit_service.errors import Fault, InputError, InvalidEventError

_MEMBERS: Final = frozenset({"user", "server", "event", "metadata", "ip", "timestamp"})


def records(delivery: Delivery) -> "Sequence[JSONValue | InputError]":
    """The rows of a body."""
    body = parse_json(delivery.body)
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list):
        raise InvalidEventError('send {"data": [rows]}', [Fault("must be an array", "/data")])
    return check_count(rows, delivery)


def event(row: JSONValue, delivery: Delivery) -> Draft:
    """One row as an event."""
    if not isinstance(row, dict):
        raise not_an_object("a row")
    draft = Draft("wings", row.get("event"), delivery.limits, delivery.received_at)
    user, server = row.get("user"), row.get("server")
    draft.put_part("actor", "type", "user" if user else "system")
    draft.put("actor.id", user)
    if server:
        draft.put("target.type", "server")
        draft.put("target.id", server)
        draft.put("server_id", server)
    draft.put_ip(row.get("ip"))
    draft.put_time(row.get("timestamp"))
    metadata = row.get("metadata")
    if isinstance(metadata, dict):
        for name, value in metadata.items():
            draft.keep(name, value)
    elif metadata != []:
        draft.keep("metadata", metadata)
    for name in row.keys() - _MEMBERS:
        draft.keep(name, row[name])
    return draft


ADAPTER: Final = Adapter("wings", ("/api/remote/activity",), records, event, counting_answer, None, wings_keys)
