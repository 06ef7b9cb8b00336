"""What real panels and services send, mapped to events: the small script that a panel's operator would write."""

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Event = dict[str, Any]


def lines(path: Path) -> Iterator[Any]:
    """The JSON values of a file with one a line."""
    with path.open(encoding="utf-8") as opened:
        for line in opened:
            if line.strip():
                yield json.loads(line)


def digest_id(prefix: str, *parts: Any) -> str:
    """An id for a sender that has none: the same content gets the same one."""
    written = json.dumps(parts, sort_keys=True).encode()
    return f"{prefix}:{hashlib.sha256(written).hexdigest()[:32]}"


def present(**members: Any) -> dict[str, Any]:
    """The members without those that are null or empty text."""
    return {name: value for name, value in members.items() if value not in (None, "")}


# --- NetBox: whole rows on both sides ---


def from_netbox(body: dict[str, Any]) -> Event:
    """A NetBox webhook. Its Idempotency-Key cannot be trusted, and one request can touch several objects."""
    data, request, rows = body["data"], body["request"], body["snapshots"]
    return {
        "id": digest_id("netbox", request["id"], body["object_type"], data["id"], body["event"]),
        "occurred_at": body["timestamp"],
        "action": f"{body['object_type']}.{body['event']}",
        "actor": {"type": "user", "name": request["user"]},
        "target": present(type=body["object_type"], id=data["id"], name=data["display"]),
        "context": {"request_id": request["id"]},
        "before": rows["prechange"],
        "after": rows["postchange"],
    }


# --- GitHub: the old values of what changed, and the whole new object ---

_NOT_FIELDS = ("old_issue", "old_repository", "new_issue", "new_repository", "new_discussion")


def github_sides(event: str, payload: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(old values of the changed fields, the new object with the documented new values in it).

    `changes.<field>.from` is the old value, sometimes beside `to`, sometimes one level deeper. What is no field change stands in `changes`
    as whole objects and is left to `metadata`.
    """
    subject = payload.get({"discussion_comment": "comment", "issue_comment": "comment", "issues": "issue", "branch_protection_rule": "rule",
                           "pull_request_review_comment": "comment"}.get(event, event)) or {}  # fmt: skip
    old: dict[str, Any] = {}
    new = dict(subject)
    for field, change in payload["changes"].items():
        if field in _NOT_FIELDS or not isinstance(change, dict):
            continue
        if "from" in change:
            old[field] = change["from"]
            if "to" in change:
                new[field] = change["to"]
        elif all(isinstance(inner, dict) and "from" in inner for inner in change.values()) and change:
            old[field] = {name: inner["from"] for name, inner in change.items()}
            inside = payload.get(field) or {}
            new[field] = {name: inside.get(name) for name in change}
    return old, new


def from_github(event: str, payload: dict[str, Any]) -> Event:
    """A GitHub webhook with `changes`."""
    old, new = github_sides(event, payload)
    others = {name: change for name, change in payload["changes"].items() if name not in old}
    sender = payload.get("sender") or {}
    mapped: Event = {
        "id": digest_id("github", event, payload),
        "action": f"{event}.{payload['action']}",
        "actor": present(type=sender.get("type"), id=sender.get("id"), name=sender.get("login")),
        "target": present(type=event, id=new.get("id") or new.get("node_id"), name=new.get("name")),
        "metadata": present(repository=(payload.get("repository") or {}).get("full_name")) | {"changes": others},
    }
    if old:
        mapped |= {"before": old, "after": new, "partial": "before"}
    return mapped


# --- logs of other services: no rows, all in metadata ---


def from_cloudtrail(record: dict[str, Any]) -> Event:
    """An AWS CloudTrail record. The source address is the name of a service where no person called."""
    who = record["userIdentity"]
    address = record.get("sourceIPAddress", "")
    service = record["eventSource"].partition(".")[0]
    return {
        "id": record["eventID"],
        "occurred_at": record["eventTime"],
        "action": f"{service}.{record['eventName']}",
        "actor": present(type=who.get("type"), id=who.get("principalId"), name=who.get("userName") or who.get("arn")),
        "outcome": "failure" if "errorCode" in record else "success",
        "context": present(
            ip=address if re.fullmatch(r"[0-9a-fA-F.:]+", address) else None,
            user_agent=record.get("userAgent"),
            request_id=record.get("requestID"),
        ),
        "metadata": present(
            region=record["awsRegion"],
            request=record.get("requestParameters"),
            response=record.get("responseElements"),
            read_only=record.get("readOnly"),
        ),
    }


def moment(value: Any) -> str | None:
    """A vendor's time as RFC 3339: milliseconds since the epoch, or a date-time that is taken for UTC without a zone."""
    if isinstance(value, int):
        return datetime.fromtimestamp(value / 1000, UTC).isoformat()
    if not isinstance(value, str) or not re.match(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}", value):
        return None
    spelled = value.strip().replace(" ", "T", 1)
    return spelled if re.search(r"(Z|[+-]\d{2}:\d{2})$", spelled) else spelled + "Z"


def from_panther(record: dict[str, Any]) -> Event:
    """An audit record in the shape of Okta, Auth0, GitHub, Google Workspace or Zendesk, told apart by its members."""
    data = record.get("data") if isinstance(record.get("data"), dict) else {}
    identity = record.get("id") if isinstance(record.get("id"), dict) else {}
    actor = record.get("actor")
    parts = actor if isinstance(actor, dict) else {"name": actor or record.get("actor_name")}
    name = record.get("eventType") or (data or {}).get("type") or record.get("action") or record.get("name") or "record"
    times = (record.get("published"), record.get("created_at"), (data or {}).get("date"), (identity or {}).get("time"))
    return {
        "id": digest_id("panther", record),
        "occurred_at": next((at for at in map(moment, times) if at), None),
        "action": re.sub(r"[^A-Za-z0-9._:/-]", "_", str(name))[:128],
        "actor": present(
            id=parts.get("id") or parts.get("profileId") or record.get("actor_id"),
            name=parts.get("displayName") or parts.get("name"),
            email=parts.get("alternateId") or parts.get("email"),
        ),
        "metadata": record,
    }
