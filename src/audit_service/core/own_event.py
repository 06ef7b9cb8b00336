"""What the service notes about itself: entries of kind `event` with `source.id` `audit-service`, whose actions begin with `audit.`, a
prefix that no sender may use. OWN_ACTIONS is the whole list; docs/watching.md shows it.

What the service forgets, holds, resumes, or does with its signing key is not here: those are control entries (`core.control`), appended
together with what they record.

The body of such an entry stays for ever, so it says what was done and nothing of whom: actor, target, address, reason and metadata are
disclosures as with every event. No key, token, e-mail address or search text is in any of them.

>>> from datetime import UTC
>>> event = OwnEvent("audit.key.revoked", OPERATOR, id="0193", at=datetime(2026, 11, 22, tzinfo=UTC), target=Target("api_key", "4Fj2"))
>>> event.as_json()["verb"], event.as_json()["category"], event.as_json()["target"]
('DELETE', 'audit', {'type': 'api_key', 'id': '4Fj2'})
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from audit_service.core.canonical import JSONValue
from audit_service.core.control import SOURCE_ID
from audit_service.core.entry import JSONObject, format_time
from audit_service.core.verb import Verb

CATEGORY: Final = "audit"
# The tenant whose log is the service's own.
SYSTEM_TENANT: Final = "system"
# Of its own, so that a retention policy can let the notes of reading go sooner than the rest.
READ_CATEGORY: Final = "audit-read"


class OwnAction(NamedTuple):
    """One thing that is noted: its verb, when it is written, and metadata as an example."""

    verb: Verb
    meaning: str
    example: Mapping[str, JSONValue]
    category: str = CATEGORY


_COUNTED: Mapping[str, JSONValue] = {
    "count": 412,
    "first": "2026-11-22T10:15:00.000000Z",
    "last": "2026-11-22T10:15:59.120000Z",
    "routes": ["POST /v1/events"],
}

OWN_ACTIONS: Mapping[str, OwnAction] = MappingProxyType(
    {
        "audit.service.started": OwnAction(
            "EXECUTE",
            "`serve` has brought up the database and begins to listen; how the time before ended",
            {"version": "1.0.0", "schema": "0004_sources", "workers": 2, "last_stop": "unclean"},
        ),
        "audit.service.stopped": OwnAction(
            "EXECUTE", "`serve` stops: its children have ended, or were ended", {"uptime_seconds": 86400}
        ),
        "audit.config.changed": OwnAction(
            "UPDATE",
            "settings differ from those of the start before; their names, never their values",
            {"changed": ["AUDIT_RETENTION_DAYS"]},
        ),
        "audit.schema.migrated": OwnAction(
            "UPDATE", "the schema was brought to another revision", {"from": "0003_proof", "to": "0004_sources"}
        ),
        "audit.tenant.created": OwnAction("CREATE", "a tenant and its log were made", {"origin": "audit/t/7f3a/1"}),
        "audit.key.created": OwnAction(
            "CREATE", "an API key was made", {"scopes": ["read"], "expires_at": "2027-01-01T00:00:00.000000Z"}
        ),
        "audit.key.revoked": OwnAction("DELETE", "an API key was revoked; noted again when asked for again", {}),
        "audit.viewer_token.issued": OwnAction(
            "CREATE", "a viewer token was issued", {"expires_at": "2026-11-22T10:20:00.000000Z", "scopes": ["read"], "viewer": None}
        ),
        "audit.viewer_token.renewed": OwnAction(
            "UPDATE", "a viewer token lasts longer", {"expires_at": "2026-11-22T10:25:00.000000Z"}
        ),
        "audit.viewer_token.revoked": OwnAction("DELETE", "a viewer token was revoked", {}),
        "audit.auth.failed": OwnAction(
            "LOGIN", "requests with no credential, or one that is no good, from one address within a minute", _COUNTED
        ),
        "audit.access.denied": OwnAction(
            "OTHER", "requests that a good credential may not make (403), from one address within a minute", _COUNTED
        ),
        "audit.export.finished": OwnAction(
            "READ",
            "an export has ended; filters by name, never by what was searched for",
            {"format": "csv", "filters": ["actor", "since"], "entries": 1200, "bytes": 480000, "ended": "complete"},
        ),
        "audit.evidence.finished": OwnAction(
            "READ",
            "a bundle of evidence was made",
            {"from_seq": 0, "to_seq": 1200, "filters": [], "bytes": 960000, "ended": "complete"},
        ),
        "audit.verify.finished": OwnAction(
            "READ",
            "somebody verified the log; the outcome says whether the run came to its end, `status` what it found",
            {"from_seq": 0, "to_seq": 1200, "entries": 1200, "status": "ok", "breaks": 0, "ended": "complete"},
        ),
        "audit.request.created": OwnAction("CREATE", "somebody asked for something to be forgotten", {"kind": "erasure"}),
        "audit.request.refused": OwnAction("DELETE", "an operator refused what was asked for", {}),
        "audit.policy.set": OwnAction(
            "UPDATE", "a retention policy was set", {"category": "schedules", "days": 90}
        ),
        "audit.policy.unset": OwnAction("DELETE", "a retention policy was removed", {"category": "schedules"}),
        "audit.read": OwnAction(
            "READ",
            "somebody read (only with AUDIT_LOG_READS)",
            {"route": "/v1/events", "filters": ["actor", "since"]},
            READ_CATEGORY,
        ),
    }
)  # fmt: skip


class Actor(NamedTuple):
    """Who acted: `api_key`, `viewer_token` or `jwt` with its public id, `operator` at the command line, or the `service` itself."""

    type: str
    id: str
    name: str | None = None


class Target(NamedTuple):
    """What was acted upon."""

    type: str
    id: str
    name: str | None = None


OPERATOR = Actor("operator", "cli")
SERVICE = Actor("service", SOURCE_ID)


@dataclass(frozen=True, slots=True)
class OwnEvent:
    """One thing to note. `id`: a new UUIDv7, which makes writing it again safe; `ip`: the peer's address, None for none; `reason`: in our
    words. Raises ValueError for an action that is not in OWN_ACTIONS."""

    action: str
    actor: Actor | None
    id: str
    at: datetime
    target: Target | None = None
    outcome: Literal["success", "failure"] = "success"
    ip: str | None = None
    reason: str | None = None
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.action not in OWN_ACTIONS:
            raise ValueError(f"{self.action} is not in the list of what the service notes")

    def as_json(self) -> JSONObject:
        """The event as the write path takes it, after validation."""
        known = OWN_ACTIONS[self.action]
        event: JSONObject = {
            "id": self.id,
            "action": self.action,
            "verb": known.verb,
            "category": known.category,
            "occurred_at": format_time(self.at),
            "outcome": self.outcome,
            "source": {"id": SOURCE_ID},
        }
        for member, given in (("actor", self.actor), ("target", self.target)):
            if given is not None:
                event[member] = {name: value for name, value in given._asdict().items() if value is not None}
        if self.ip is not None:
            event["context"] = {"ip": self.ip}
        if self.reason is not None:
            event["reason"] = self.reason
        metadata: JSONObject = {name: value for name, value in self.metadata.items() if value is not None}
        if metadata:
            event["metadata"] = metadata
        return event
