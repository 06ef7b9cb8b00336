"""Requests to forget: asked for over HTTP, carried out by the schedule or the command line under another role (DESIGN 2.3).

What a request asks for, as its `details`:

- kind `retention`: `{"action": "apply"}`, the policies as they are when it is carried out; `{"action": "clear", "to_seq": 812}`, every
  event there was when it was asked.
- kind `erasure`: one of `{"actor": {"id": "u12", "type": "user"?}}`, `{"target": {"type": "user", "id": "u12"}}`, `{"events": ["e1"]}`;
  with `groups`, and `reference`, the case behind it. Gone from the request when it is finished.
"""

from collections.abc import Mapping
from typing import cast

from audit_service import retention
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from audit_service.core.forgetting import Events, Person, Subject, Target
from audit_service.retention import Author, Forgotten
from audit_service.store.engine import Database
from audit_service.store.retention import Request, RequestKind


def subject_of(details: Mapping[str, JSONValue]) -> Subject:
    """Whom or what an erasure is about."""
    if "actor" in details:
        actor = cast("dict[str, str | None]", details["actor"])
        return Person(cast("str", actor["id"]), actor.get("type"))
    if "target" in details:
        target = cast("dict[str, str]", details["target"])
        return Target(target["type"], target["id"])
    return Events(frozenset(cast("list[str]", details["events"])))


async def carry_out(
    database: Database,
    log_id: int,
    author: Author,
    kind: RequestKind,
    details: JSONObject,
    *,
    reference: str,
    policies: Mapping[str, int],
    dry_run: bool = False,
) -> Forgotten:
    """Do what is asked, or only count. `reference`: of an erasure whose details name none; `policies`: in force for the log."""
    if kind == "erasure":
        groups = cast("list[str] | None", details.get("groups"))
        return await retention.erase(
            database,
            log_id,
            author,
            subject_of(details),
            reference=cast("str | None", details.get("reference")) or reference,
            groups=None if groups is None else frozenset(groups),
            dry_run=dry_run,
        )
    if details["action"] == "clear":
        return await retention.clear(database, log_id, author, to_seq=cast("int", details["to_seq"]), dry_run=dry_run)
    done = Forgotten()
    for part in (await retention.apply_policies(database, log_id, author, policies, dry_run=dry_run)).values():
        done.add(part)
    return done


async def carry_out_request(
    database: Database, log_id: int, request: Request, policies: Mapping[str, int]
) -> Forgotten:
    """Carry out a pending request. Killed in the middle it is still pending, and the next time does what is left."""
    author = Author(request.asked_by, request.reason)
    details = request.details or {}
    return await carry_out(
        database, log_id, author, request.kind, details, reference=request.request_id, policies=policies
    )
