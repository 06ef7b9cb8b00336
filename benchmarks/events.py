"""The events that are sent: made up, but shaped like a panel's.

An update of a server with both rows of ten columns, of which two differ and one of the two is a secret; who, from where, and some
metadata. Numbered, so that every run sends the same: 500 servers, 200 people, 5,000 targets, eleven actions.
"""

from datetime import UTC, datetime, timedelta

import orjson

from audit_service.core.canonical import JSONValue

START = datetime(2025, 1, 1, tzinfo=UTC)
ACTIONS = (
    "server.updated", "server.suspended", "server.resized", "backup.created", "schedule.updated", "user.updated", "licence.renewed",
    "licence.revoked", "invoice.paid", "allocation.updated", "database.updated",
)  # fmt: skip
PLANS, NODES = ("small", "medium", "large", "custom"), ("fra1", "ams2", "nyc3")


def event(number: int, prefix: str | None = None) -> dict[str, JSONValue]:
    """Event number `number`, with an id when there is a `prefix` for it."""
    person, server, target = number % 200, number * 7 % 500, number * 13 % 5000
    row: dict[str, JSONValue] = {
        "id": target,
        "name": f"host-{target:05d}",
        "plan": PLANS[number % 4],
        "node": NODES[number % 3],
        "memory": 1024 << (number % 4),
        "disk": 20480,
        "cpu": 200,
        "suspended": False,
        "note": f"order {number % 977}",
        "root_password": f"pw-{number:x}-before",
    }
    changed = row | {"memory": 1536 << (number % 4), "root_password": f"pw-{number:x}-after"}
    identity: dict[str, JSONValue] = {} if prefix is None else {"id": f"{prefix}:{number}"}
    return {
        **identity,
        "occurred_at": (START + timedelta(seconds=3 * number)).isoformat(),
        "action": ACTIONS[number % len(ACTIONS)],
        "actor": {
            "type": "user",
            "id": f"u{person}",
            "name": f"Ana Gomez {person}",
            "email": f"ana{person}@example.com",
        },
        "target": {"type": "server", "id": str(target), "name": f"host-{target:05d}"},
        "server_id": f"s{server}",
        "context": {"ip": f"203.0.113.{number % 256}", "request_id": f"r{number}"},
        "before": row,
        "after": changed,
        "metadata": {"amount": "12.50", "currency": "EUR", "ticket": number},
    }


def event_bytes(number: int, prefix: str | None = None) -> bytes:
    """The event as it is sent."""
    return orjson.dumps(event(number, prefix))


def batch_bytes(start: int, count: int, prefix: str) -> bytes:
    """Events [start, start + count) as one batch."""
    return orjson.dumps({"events": [event(number, prefix) for number in range(start, start + count)]})
