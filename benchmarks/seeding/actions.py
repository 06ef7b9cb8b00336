"""What happens in the made-up log: 62 actions in ten categories, how often, how they read, and what they change.

The weights are relative; what people do and what the automation does are drawn apart. A change maker answers the members of the event
that say what changed: two whole rows, a row and a patch, ready-made changes, or one row only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from benchmarks.seeding.cast import Target, pick

Maker = Callable[[Random, Target], JSONObject]

# Begins every made-up secret: wherever it turns up in the stored log, redaction has failed.
SECRET_MARK = "Tr0ub4dor"  # noqa: S105 - made up
# Instead of a target type: who acts is also what is acted on.
SELF = "self"
_NODES = ("fra1", "ams2", "nyc3", "sgp1")
_STATES = ("running", "stopped", "starting", "suspended", "installing")
_CRONS = ("0 3 * * *", "30 2 * * 0", "*/15 * * * *", "0 */6 * * *")


@dataclass(frozen=True, slots=True)
class Action:
    """One action. `sentence` is the template of its description; empty: none."""

    name: str
    target_type: str
    people: float
    automation: float
    sentence: str
    make: Maker


def _secret(draw: Random) -> str:
    return f"{SECRET_MARK}-{draw.getrandbits(48):x}"


def _nothing(_draw: Random, _target: Target) -> JSONObject:
    return {}


def _status(draw: Random, _target: Target) -> JSONObject:
    """A ready-made change, as game panels send."""
    old = int(draw.random() * len(_STATES))
    new = (old + 1 + int(draw.random() * (len(_STATES) - 1))) % len(_STATES)
    change: JSONValue = {"path": "/status", "op": "replace", "old": _STATES[old], "new": _STATES[new]}
    return {"changes": [change]}


def _resources(draw: Random, target: Target) -> JSONObject:
    """Both rows whole; /memory, and sometimes /disk and /node."""
    step = int(draw.random() * 5)
    before: JSONObject = {
        "id": target.id,
        "name": target.name,
        "node": pick(draw, _NODES),
        "memory": 1024 << step,
        "disk": 20_480,
        "cpu": 200,
        "suspended": False,
        "updated_at": "2024-01-01 00:00:00",
    }
    after = before | {"memory": 1536 << step, "updated_at": "2024-01-02 00:00:00"}
    if draw.random() < 0.3:
        after |= {"disk": 40_960, "node": "par" + str(1 + step)}
    return {"before": before, "after": after}


def _retention(draw: Random, _target: Target) -> JSONObject:
    """Nested rows: /retention/days, and sometimes /retention/copies."""
    days = 7 + int(draw.random() * 20)
    storage: JSONValue = {"type": "s3", "bucket": f"backups-{pick(draw, _NODES)}"}
    before: JSONObject = {"enabled": True, "storage": storage, "retention": {"days": days, "copies": 3}}
    copies = 3 + int(draw.random() * 2)
    return {"before": before, "after": before | {"retention": {"days": days + 7, "copies": copies}}}


def _firewall(draw: Random, _target: Target) -> JSONObject:
    """Lists of equal length, compared element by element: /rules/1/port, and a list that grows: /allow."""
    port = 1024 + draw.getrandbits(14)
    rules: JSONValue = [{"port": 22, "allow": True}, {"port": port, "allow": True}]
    opened: JSONValue = [{"port": 22, "allow": True}, {"port": port + 1, "allow": draw.random() < 0.5}]
    allow: list[JSONValue] = [f"198.18.{draw.getrandbits(8)}.0/24"]
    return {
        "before": {"rules": rules, "allow": allow, "limits": {"network": {"egress_mbit": 100}}},
        "after": {"rules": opened, "allow": [*allow, "2001:db8::/48"], "limits": {"network": {"egress_mbit": 250}}},
    }


def _schedule(draw: Random, _target: Target) -> JSONObject:
    """The old row whole, of the new one only what changed."""
    cron = int(draw.random() * len(_CRONS))
    return {
        "before": {"cron": _CRONS[cron], "enabled": True, "only_when_online": False, "tasks": ["backup", "notify"]},
        "after": {"cron": _CRONS[cron - 1], "tasks": ["backup", pick(draw, ("restart", "prune", "notify team"))]},
        "partial": "after",
    }


def _profile(draw: Random, target: Target) -> JSONObject:
    """Only what changed on both sides; now and then with a telephone number beside it."""
    number = draw.getrandbits(20)
    before: JSONObject = {"email": f"old{number}@example.net", "language": "en"}
    after: JSONObject = {"email": f"new{number}@example.com", "language": pick(draw, ("de", "fr", "ja", "es"))}
    if draw.random() < 0.3:
        before["display_name"], after["display_name"] = target.name, f"{target.name} II"
    return {"before": before, "after": after, "partial": "both"}


def _role(draw: Random, _target: Target) -> JSONObject:
    change: JSONValue = {"path": "/role", "op": "replace", "old": "Client", "new": pick(draw, ("Subuser", "Reseller"))}
    return {"changes": [change]}


def _password(draw: Random, target: Target) -> JSONObject:
    """A secret changes: the fact stays, both values go."""
    row: JSONObject = {"username": target.id, "host": "%", "password": _secret(draw), "max_connections": 20}
    return {"before": row, "after": row | {"password": _secret(draw)}}


def _environment(draw: Random, _target: Target) -> JSONObject:
    """Secrets among harmless variables: /environment/DB_PASSWORD goes, /environment/WORKERS stays."""
    workers = 1 + int(draw.random() * 16)
    old: JSONObject = {"DB_PASSWORD": _secret(draw), "WORKERS": workers, "MOTD": "Welcome"}
    new: JSONObject = {"DB_PASSWORD": _secret(draw), "WORKERS": workers + 1, "MOTD": "Welcome"}
    return {"before": {"environment": old}, "after": {"environment": new}}


def _created(draw: Random, target: Target) -> JSONObject:
    size = 1 + draw.getrandbits(30)
    return {"after": {"id": target.id, "name": target.name, "status": "new", "size_bytes": size, "locked": False}}


def _deleted(draw: Random, target: Target) -> JSONObject:
    return {"before": {"id": target.id, "name": target.name, "status": pick(draw, _STATES)}}


def _money(draw: Random, _target: Target) -> JSONObject:
    amount = f"{1 + draw.getrandbits(9)}.{draw.getrandbits(6):02d}"
    changes: list[JSONValue] = [
        {"path": "/paid_at", "op": "add", "new": "2024-06-01"},
        {"path": "/status", "op": "replace", "old": "unpaid", "new": "paid"},
    ]
    return {"changes": changes, "metadata": {"amount": amount, "currency": pick(draw, ("EUR", "USD", "GBP", "JPY"))}}


def _job(draw: Random, _target: Target) -> JSONObject:
    return {"metadata": {"job": f"job-{draw.getrandbits(24):06x}", "attempt": 1 + draw.getrandbits(1)}}


ACTIONS = (
    Action("server.created", "server", 6, 4, "{actor} created server {target} on {node}", _created),
    Action("server.updated", "server", 40, 20, "{actor} changed the resources of {target}", _resources),
    Action("server.settings.updated", "server", 30, 5, "{actor} edited the start settings of {target}", _environment),
    Action("server.suspended", "server", 4, 12, "Server {target} suspended: overdue since {days} days", _status),
    Action("server.resumed", "server", 4, 10, "Server {target} resumed", _status),
    Action("server.reinstalled", "server", 3, 1, "{actor} reinstalled {target} from image debian-13", _status),
    Action("server.transferred", "server", 1, 1, "Server {target} moved to {node}", _resources),
    Action("server.deleted", "server", 1, 1, "{actor} deleted server {target}", _deleted),
    Action("console.command", "server", 90, 0, "{actor} ran a command on {target}", _nothing),
    Action("console.power.start", "server", 70, 60, "", _status),
    Action("console.power.stop", "server", 50, 40, "", _status),
    Action("console.power.restart", "server", 60, 50, "{actor} restarted {target}", _status),
    Action("console.file.written", "server", 35, 0, "{actor} wrote /config/server-{days}.properties on {target}", _nothing),
    Action("console.file.deleted", "server", 6, 0, "{actor} deleted /logs/{days}.log on {target}", _nothing),
    Action("backup.created", "backup", 25, 300, "Backup {target} finished after {days} minutes", _created),
    Action("backup.downloaded", "backup", 12, 0, "{actor} downloaded backup {target}", _nothing),
    Action("backup.restored", "backup", 4, 0, "{actor} restored {target}", _status),
    Action("backup.locked", "backup", 3, 0, "{actor} locked {target}", _nothing),
    Action("backup.retention.updated", "backup", 8, 2, "{actor} changed the retention of {target}", _retention),
    Action("backup.deleted", "backup", 5, 120, "Backup {target} removed: retention of {days} days is over", _deleted),
    Action("schedule.created", "schedule", 6, 0, "{actor} created the schedule {target}", _created),
    Action("schedule.updated", "schedule", 20, 2, "{actor} changed the schedule {target}", _schedule),
    Action("schedule.executed", "schedule", 1, 330, "Schedule {target} ran for {days} seconds", _job),
    Action("schedule.paused", "schedule", 3, 0, "{actor} paused {target}", _status),
    Action("schedule.resumed", "schedule", 3, 0, "{actor} resumed {target}", _status),
    Action("schedule.deleted", "schedule", 2, 0, "{actor} deleted {target}", _deleted),
    Action("user.created", "user", 6, 8, "Account {target} created", _created),
    Action("user.invited", "user", 8, 0, "{actor} invited {target}", _nothing),
    Action("user.updated", "user", 30, 4, "{actor} updated the profile of {target}", _profile),
    Action("user.role.changed", "user", 4, 0, "{actor} changed the role of {target}", _role),
    Action("user.suspended", "user", 2, 3, "Account {target} suspended", _status),
    Action("user.deleted", "user", 1, 0, "{actor} deleted the account {target}", _deleted),
    Action("auth.login", SELF, 180, 0, "", _nothing),
    Action("auth.logout", SELF, 80, 0, "", _nothing),
    Action("auth.password.reset", "user", 8, 0, "{actor} reset the password of {target}", _password),
    Action("auth.two_factor.enabled", SELF, 4, 0, "{actor} turned on a second factor", _nothing),
    Action("auth.token.created", SELF, 6, 0, "{actor} made an API token", _nothing),
    Action("auth.token.revoked", SELF, 3, 0, "{actor} revoked an API token", _nothing),
    Action("billing.invoice.created", "invoice", 4, 60, "Invoice {target} drawn up", _job),
    Action("billing.invoice.paid", "invoice", 25, 20, "Invoice {target} paid", _money),
    Action("billing.invoice.refunded", "invoice", 2, 0, "{actor} refunded {target}", _money),
    Action("billing.invoice.cancelled", "invoice", 1, 2, "Invoice {target} cancelled", _deleted),
    Action("billing.reminder.sent", "invoice", 1, 50, "Reminder for {target} after {days} days", _job),
    Action("billing.plan.upgraded", "invoice", 5, 0, "{actor} moved to a larger plan", _resources),
    Action("licence.issued", "licence", 5, 15, "Licence {target} issued", _created),
    Action("licence.renewed", "licence", 6, 40, "Licence {target} renewed for {days} days", _nothing),
    Action("licence.viewed", "licence", 25, 0, "", _nothing),
    Action("licence.seats.updated", "licence", 4, 0, "{actor} changed the seats of {target}", _resources),
    Action("licence.transferred", "licence", 1, 0, "{actor} handed {target} over", _nothing),
    Action("licence.revoked", "licence", 1, 2, "Licence {target} revoked", _status),
    Action("database.created", "database", 6, 3, "{actor} created the database {target}", _created),
    Action("database.password.rotated", "database", 5, 25, "Password of {target} rotated", _password),
    Action("database.exported", "database", 6, 10, "{actor} exported {target}", _nothing),
    Action("database.imported", "database", 3, 0, "{actor} imported a dump into {target}", _nothing),
    Action("database.updated", "database", 6, 0, "{actor} changed the limits of {target}", _resources),
    Action("database.deleted", "database", 2, 0, "{actor} deleted {target}", _deleted),
    Action("network.allocation.assigned", "allocation", 5, 20, "{target} assigned", _created),
    Action("network.allocation.unassigned", "allocation", 3, 10, "{target} given back", _deleted),
    Action("network.firewall.updated", "allocation", 10, 3, "{actor} changed the rules of {target}", _firewall),
    Action("network.dns.updated", "allocation", 6, 8, "{actor} changed the records of {target}", _profile),
    Action("network.attack.detected", "allocation", 0, 6, "Traffic to {target} filtered for {days} minutes", _job),
    Action("network.allocation.locked", "allocation", 1, 0, "{actor} locked {target}", _nothing),
)  # fmt: skip

# The bridge's only action, and actions of which the whole log holds so many, whatever its size.
REPLICATED = Action("backup.replicated", "backup", 0, 0, "Backup {target} copied to the old platform", _job)
RARE = (
    (Action("server.purged", "server", 0, 0, "{actor} purged {target} with all backups", _deleted), 3),
    (Action("auth.break_glass", "user", 0, 0, "{actor} used the emergency account", _nothing), 5),
    (Action("licence.pool.revoked", "licence", 0, 0, "{actor} revoked a whole pool", _status), 1),
    (Action("database.ownership.transferred", "database", 0, 0, "{actor} handed {target} over", _role), 4),
)
