"""Forgetting in tests: pools that act as the retention role, and a naive model of what readers must find afterwards."""

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from audit_service.core.control import KINDS
from audit_service.core.entry import GROUPS
from audit_service.core.forgetting import Events, Person, Subject, Target
from audit_service.retention import Author
from audit_service.store.engine import RETENTION_ROLE, Database, open_database
from tests.support.appends import owner
from tests.support.oracle import Event
from tests.support.postgres import TestDatabase

AUTHOR = Author("cli", "as the test asks")
REFERENCE = "case-of-the-test-2026-17"


@asynccontextmanager
async def retention_pools(database: TestDatabase) -> AsyncIterator[Database]:
    """The pools of the CLI and the schedule."""
    opened = open_database(database.owner_url, pool_connections=4, role=RETENTION_ROLE, write_timeout_seconds=120)
    yield opened
    await opened.dispose()


def forget_groups(event: Event, groups: Iterable[str]) -> Event:
    """The event without these groups."""
    left: Event = {**event, "actor": dict(event["actor"] or {}), "target": dict(event["target"] or {})}
    left["context"] = dict(event["context"])
    removed: dict[str, Callable[[], object]] = {
        "actor": lambda: [left["actor"].pop(name, None) for name in ("id", "name", "role")],
        "actor_email": lambda: left["actor"].pop("email", None),
        "on_behalf_of": lambda: left.update(on_behalf_of=None),
        "ip": lambda: left["context"].update(ip=None),
        "context": lambda: left["context"].update(session_id=None, request_id=None),
        "target": lambda: [left["target"].pop(name, None) for name in ("id", "name")],
        "text": lambda: left.update(description=None),
        "metadata": lambda: left.update(metadata=None),
        "changes": lambda: left.update(changes=[]),
    }
    for group in groups:
        removed[group]()
    return left


def groups_concerned(event: Event, subject: Subject, groups: frozenset[str] | None) -> set[str]:
    """What an erasure of the subject takes of an event, read naively from the table in `core.forgetting`."""
    actor, target = event["actor"] or {}, event["target"] or {}
    found: set[str] = set()
    match subject:
        case Events():
            found = set(groups or GROUPS) if event["id"] in subject.ids else set()
        case Person():
            if actor.get("id") == subject.id and subject.type in (None, actor.get("type")):
                found = set(groups or {"actor", "actor_email", "ip", "context"})
            behalf = event.get("on_behalf_of") or {}
            if behalf.get("id") == subject.id and subject.type in (None, behalf.get("type")):
                found |= {"on_behalf_of"} & set(groups or GROUPS)
        case Target():
            if (target.get("type"), target.get("id")) == (subject.type, subject.id):
                found = set(groups or {"target", "text", "metadata", "changes"})
    return found & present_groups(event)


def present_groups(event: Event) -> set[str]:
    """The groups that have anything."""
    actor, target, context = event["actor"] or {}, event["target"] or {}, event["context"]
    present = {
        "actor": any(actor.get(name) for name in ("id", "name", "role")),
        "actor_email": actor.get("email"),
        "on_behalf_of": event.get("on_behalf_of"),
        "ip": context["ip"],
        "context": context["session_id"] or context["request_id"],
        "target": any(target.get(name) for name in ("id", "name")),
        "text": event["description"],
        "metadata": event.get("metadata"),
        "changes": event["changes"],
    }
    return {group for group, value in present.items() if value}


async def control_events(database: TestDatabase, log_id: int) -> list[Event]:
    """The control entries of a log as events of the model, read from the rows themselves."""
    async with owner(database) as connection:
        rows = await connection.fetch(
            "SELECT seq, recorded_at, kind, body, convert_from(substr(d_target, 33), 'UTF8') AS target "
            "FROM audit.entry WHERE log_id = $1 AND kind <> 'event' ORDER BY seq",
            log_id,
        )
    assert all(row["kind"] in KINDS for row in rows)
    return [_control_event(row) for row in rows]


def _control_event(row: Any) -> Event:
    body = json.loads(row["body"])
    target = json.loads(row["target"] or "{}")
    return {
        **{name: body[name] for name in ("id", "occurred_at", "action", "verb", "category", "outcome", "details")},
        "seq": row["seq"],
        "kind": row["kind"],
        "recorded_at": row["recorded_at"].isoformat(),
        "actor": None,
        "server_id": None,
        "target": {"type": body.get("target_type"), **target},
        "description": None,
        "context": dict.fromkeys(("ip", "session_id", "request_id")),
        "changes": [],
    }
