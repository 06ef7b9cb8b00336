"""The demo's sample day: what five panels send between midnight and evening, always the same for the same date.

The panels differ as real ones do:

    backup    both rows whole, secrets and volatile columns included; schedules, storages, roles, mass edits
    game      a game server panel: `server:power.start`, ready-made changes, times with nanoseconds, a batch as a bare array
    hosting   the old row whole, the new one only with what changed; a class and an id as description; jobs without an actor
    licence   licence keys and balances, amounts as text in the metadata
    crm       only what changed on both sides, page visits, local time with its offset

The night hides a story: somebody guesses a password, cuts a backup schedule from 30 days to 7, and in the morning the
restore that a customer asks for fails.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from random import Random
from typing import Literal

import orjson

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject

SEED = 20_261_122
FAMILIES = (
    "server",
    "storage",
    "schedule",
    "user",
    "role",
    "licence",
    "billing",
    "ticket",
    "key",
    "balance",
    "module",
    "auth",
)
PANELS = ("backup", "game", "hosting", "licence", "crm")

Shape = Literal["single", "batch", "array", "ndjson"]
Fate = Literal["kept", "replayed", "not kept"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One POST /v1/events, and what is to become of its events."""

    shape: Shape
    events: tuple[JSONObject, ...]
    fate: Fate = "kept"

    @property
    def panel(self) -> str:
        """Who sends it."""
        return str(self.events[0]["id"]).partition(":")[0]

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers."""
        return {"Content-Type": "application/x-ndjson" if self.shape == "ndjson" else "application/json"}

    @property
    def body(self) -> bytes:
        """The request's body."""
        if self.shape == "ndjson":
            return b"".join(orjson.dumps(event) + b"\n" for event in self.events)
        if self.shape == "single":
            return orjson.dumps(self.events[0])
        return orjson.dumps(self.events if self.shape == "array" else {"events": self.events})


@dataclass(frozen=True, slots=True)
class Day:
    """Everything that is sent, in order. `secrets` are values in it that must never be stored."""

    deliveries: tuple[Delivery, ...]
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Person:
    """Who acts in a panel, and from where."""

    id: str
    name: str
    email: str
    role: str
    ip: str
    type: str = "user"

    def actor(self) -> JSONObject:
        """As an event names them."""
        return {"type": self.type, "id": self.id, "name": self.name, "email": self.email, "role": self.role}


ANA = Person("u12", "Ana Gómez", "ana@example.com", "Super Admin", "203.0.113.9")
MAREK = Person("u17", "Marek Novák", "marek@example.com", "Backup Operator", "203.0.113.24")
# The same account, used from elsewhere.
INTRUDER = Person("u17", "Marek Novák", "marek@example.com", "Backup Operator", "192.0.2.200")
PRIYA = Person("a4", "Priya Raman", "priya@example.com", "Support", "198.51.100.7")
TOM = Person("st-9", "Tom Becker", "tom@example.org", "Reseller Staff", "198.51.100.41")
NORA = Person("st-1", "Nora Lindqvist", "nora@example.org", "Owner", "198.51.100.40")
LENA = Person("c88", "Lena Fischer", "lena@example.net", "Client", "2001:db8:4c::1a", "client")
YUKI = Person("c91", "Yuki Tanaka", "yuki@example.net", "Subuser", "192.0.2.66")
DIEGO = Person("7", "Diego Ortiz", "diego@example.org", "Account Manager", "192.0.2.140")
SOFIA = Person("3", "Sofía Ruiz", "sofia@example.org", "Sales Lead", "192.0.2.141")

SHOP_DB, OLD_FORUM, LOBBY = "s12", "s14", "s21"
SCHEDULE_ID, SCHEDULE_NAME = "77", "nightly shop-db"
_SERVERS = {"s3": "web-03", "s9": "mail-01", SHOP_DB: "shop-db", OLD_FORUM: "old-forum", "s15": "wiki", "s17": "git"}
_BROWSERS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Mobile/15E148 Safari/604.1",
)
_Thing = tuple[str, str, str | None]


def sample_day(day: date) -> Day:
    """The deliveries of `day`; another date changes nothing but the dates."""
    desk = _Desk(day)
    parts = (
        _night,
        _break_in,
        _morning,
        _restore,
        _mass_edit,
        _game_servers,
        _keys_and_balances,
        _customers,
        _crm_pages,
        _evening,
    )
    deliveries = tuple(delivery for part in parts for delivery in part(desk))
    return Day(deliveries, tuple(desk.secrets))


class _Desk:
    """Writes events: knows the date, counts for each panel, and remembers every secret it made up."""

    def __init__(self, day: date) -> None:
        self._day = day
        self._random = Random(SEED)  # noqa: S311 - sample data, the same each time
        self._counts = Counter[str]()
        self._sessions: dict[tuple[str, str, str], str] = {}
        self.secrets: list[str] = []

    def secret(self, prefix: str = "", characters: int = 24) -> str:
        """A made-up secret; none stands in the source, where scanners would find it."""
        letters = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
        made = prefix + "".join(self._random.choices(letters, k=characters))
        self.secrets.append(made)
        return made

    def stamp(self, at: str) -> str:
        """A time as a database column shows it."""
        return f"{self._day} {at}"

    def event(
        self,
        panel: str,
        at: str,
        action: str,
        who: Person | None,
        target: _Thing | None = None,
        **members: JSONValue,
    ) -> JSONObject:
        """An event as `panel` sends it; `who` None is the panel itself, at work without anybody logged in."""
        self._counts[panel] += 1
        number = self._counts[panel]
        event: JSONObject = {
            "id": f"{panel}:{number}",
            "occurred_at": self._time(panel, at),
            "action": action,
            "actor": {"type": "system", "name": "scheduler"} if who is None else who.actor(),
            "source": {"id": panel, "seq": number},
        }
        if target is not None:
            event["target"] = {"type": target[0], "id": target[1], "name": target[2]}
        if who is not None:
            event["context"] = self._context(panel, who)
        return event | members

    def _time(self, panel: str, at: str) -> str:
        """The moment in UTC, spelled as the panel spells it."""
        moment = datetime.combine(self._day, time.fromisoformat(at), UTC)
        moment += timedelta(microseconds=self._random.randrange(1_000_000))
        if panel == "game":
            return f"{moment:%Y-%m-%dT%H:%M:%S.%f}{self._random.randrange(1000):03d}Z"
        if panel == "crm":
            return moment.astimezone(timezone(timedelta(hours=1))).isoformat(timespec="milliseconds")
        return moment.isoformat(timespec="seconds" if panel == "licence" else "microseconds")

    def _context(self, panel: str, who: Person) -> JSONObject:
        key = (panel, who.id, who.ip)
        if key not in self._sessions:
            self._sessions[key] = self.secret()  # a session id is as good as a password while it lives
        browser = _BROWSERS[sum(who.ip.encode()) % len(_BROWSERS)]
        request = f"req-{self._random.getrandbits(48):012x}"
        return {"ip": who.ip, "user_agent": browser, "session_id": self._sessions[key], "request_id": request}


def _singles(*events: JSONObject) -> list[Delivery]:
    return [Delivery("single", (event,)) for event in events]


def _steps(start: str, count: int, seconds: int) -> Iterable[str]:
    """`count` times of day, `seconds` apart."""
    first = datetime.combine(date.min, time.fromisoformat(start))
    return (f"{first + timedelta(seconds=seconds * index):%H:%M:%S}" for index in range(count))


def _night(desk: _Desk) -> list[Delivery]:
    """The schedules run; the agent reports them in one batch."""
    runs = []
    for index, (at, (server_id, name)) in enumerate(zip(_steps("01:00:04", 6, 540), _SERVERS.items(), strict=True)):
        full = server_id == "s9"
        runs.append(
            desk.event(
                "backup", at, "schedule.run", None, ("schedule", str(75 + index), f"nightly {name}"),
                server_id=server_id, outcome="failure" if full else "success", reason="storage nas-1 is 98 % full" if full else None,
                related=[{"type": "backup_log", "id": str(5507 + index)}],
                metadata={"size_bytes": 0 if full else 4_831_838_208 + index * 73_400_321, "duration_seconds": 41.5 + index},
            )
        )  # fmt: skip
    return [Delivery("batch", tuple(runs))]


def _schedule(updated_at: str, retention_days: int = 30) -> JSONObject:
    return {
        "id": int(SCHEDULE_ID), "name": SCHEDULE_NAME, "cron": "0 1 * * *", "retention_days": retention_days, "storage": "nas-1",
        "enabled": True, "options": {"compress": "zstd", "verify": True}, "updated_at": updated_at,
    }  # fmt: skip


def _break_in(desk: _Desk) -> list[Delivery]:
    """A guessed password, one change at 3 a.m., and away. The panel sent the change twice: its first request timed out."""
    account: _Thing = ("user", "u17", "marek@example.com")
    schedule: _Thing = ("schedule", SCHEDULE_ID, SCHEDULE_NAME)
    guesses = [
        desk.event(
            "backup", at, "auth.login", INTRUDER, account,
            outcome="failure", reason="wrong password", metadata={"username": "marek", "password": desk.secret()},
        )
        for at in ("02:58:11", "02:58:40", "03:01:02")
    ]  # fmt: skip
    entered = desk.event("backup", "03:04:26", "auth.login", INTRUDER, account)
    change = desk.event(
        "backup", "03:07:41", "schedule.updated", INTRUDER, schedule, server_id=SHOP_DB,
        before=_schedule("2026-03-02 10:11:12"), after=_schedule(desk.stamp("03:07:41"), retention_days=7),
    )  # fmt: skip
    left = desk.event("backup", "03:09:03", "auth.logout", INTRUDER, account)
    purged = desk.event("backup", "03:30:00", "schedule.restore_points.purged", None, schedule, server_id=SHOP_DB,
                        metadata={"deleted": 23})  # fmt: skip
    return [
        *_singles(*guesses, entered, change),
        Delivery("single", (change,), "replayed"),
        *_singles(left, purged),
    ]


def _morning(desk: _Desk) -> list[Delivery]:
    """Everybody logs in; storages and roles are looked after."""
    logins = [
        desk.event(panel, at, "auth.login", who, ("user", who.id, who.email), metadata={"method": method})
        for at, panel, who, method in (
            ("07:52:10", "backup", ANA, "totp"), ("08:01:33", "licence", TOM, "password"), ("08:03:58", "crm", DIEGO, "sso"),
            ("08:04:12", "crm", SOFIA, "sso"), ("08:15:40", "hosting", PRIYA, "totp"), ("08:22:05", "hosting", LENA, "password"),
            ("08:40:19", "licence", NORA, "totp"),
        )
    ]  # fmt: skip
    nas_2: _Thing = ("storage", "6", "nas-2")
    row: JSONObject = {"id": 6, "name": "nas-2", "driver": "s3", "bucket": "panel-backups", "quota_gb": 2000}
    keys: JSONObject = {"access_key_id": "backup-writer", "secret_access_key": desk.secret(characters=40)}
    rotated = keys | {"secret_access_key": desk.secret(characters=40)}
    storages = [
        desk.event("backup", "08:10:02", "storage.created", ANA, nas_2, after=row | keys),
        desk.event("backup", "08:10:31", "storage.test", ANA, nas_2, metadata={"latency_ms": 12.4}),
        desk.event("backup", "08:12:47", "storage.updated", ANA, nas_2, before=row | keys, after=row | rotated | {"quota_gb": 4000}),
        desk.event("backup", "08:14:09", "storage.deleted", ANA, ("storage", "2", "tape"), before={"id": 2, "name": "tape"}),
    ]  # fmt: skip
    night_shift: _Thing = ("role", "8", "Night Shift")
    few: list[JSONValue] = ["backup.view"]
    roles = [
        desk.event("backup", "08:31:00", "role.created", ANA, night_shift, after={"name": "Night Shift", "permissions": few}),
        desk.event("backup", "08:31:48", "role.updated", ANA, night_shift, before={"name": "Night Shift", "permissions": few},
                   after={"name": "Night Shift", "permissions": [*few, "backup.run"]}),
        desk.event("backup", "08:32:20", "user.role.assigned", ANA, ("user", "u23", "Ivo Kral"),
                   before={"role": "Viewer"}, after={"role": "Night Shift"}),
        desk.event("backup", "08:35:02", "role.deleted", ANA, ("role", "5", "Trainee"), before={"name": "Trainee", "permissions": []}),
    ]  # fmt: skip
    return [*_singles(*logins, *storages), Delivery("batch", tuple(roles))]


def _restore(desk: _Desk) -> list[Delivery]:
    """The customer asks for a restore, it fails, and the reason is found and undone."""
    ticket: _Thing = ("ticket", "4711", "Orders of two weeks ago are gone")
    schedule: _Thing = ("schedule", SCHEDULE_ID, SCHEDULE_NAME)
    server: _Thing = ("server", SHOP_DB, "shop-db")
    old_hash, new_hash = desk.secret("$2y$10$", 53), desk.secret("$2y$10$", 53)
    asked = desk.event("hosting", "08:26:54", "ticket.opened", LENA, ticket, server_id=SHOP_DB,
                       after={"subject": ticket[2], "priority": "high", "status": "open"})  # fmt: skip
    failed = desk.event(
        "backup", "09:05:17", "server.restore", PRIYA, server, server_id=SHOP_DB, outcome="failure",
        reason="the schedule keeps only 7 days",
        description=f"tried postgres://restore:{desk.secret()}@db-2.example.net:5432/shop",
        related=[{"type": "schedule", "id": SCHEDULE_ID}, {"type": "ticket", "id": "4711"}],
    )  # fmt: skip
    account: _Thing = ("user", "u17", "Marek Novák")
    undone = [
        desk.event("backup", "09:18:30", "user.password.reset", ANA, account, reason="login from an unknown address at 3 a.m.",
                   before={"password_hash": old_hash, "must_change": False}, after={"password_hash": new_hash, "must_change": True}),
        desk.event("backup", "09:19:02", "user.sessions.revoked", ANA, account, metadata={"sessions": 2}),
        desk.event("backup", "09:24:45", "schedule.updated", ANA, schedule, server_id=SHOP_DB,
                   before=_schedule(desk.stamp("03:07:41"), retention_days=7), after=_schedule(desk.stamp("09:24:45"))),
    ]  # fmt: skip
    saved_again = desk.event("backup", "09:24:52", "schedule.updated", ANA, schedule, server_id=SHOP_DB,
                             before=_schedule(desk.stamp("09:24:45")), after=_schedule(desk.stamp("09:24:52")))  # fmt: skip
    restored = desk.event("backup", "09:41:08", "server.restore", ANA, server, server_id=SHOP_DB, outcome="success",
                          related=[{"type": "backup_log", "id": "5188"}],
                          metadata={"from": "offsite", "size_bytes": 4_790_000_128})  # fmt: skip
    answered = [
        desk.event("hosting", "09:58:12", "ticket.replied", PRIYA, ticket, server_id=SHOP_DB),
        desk.event("hosting", "10:02:40", "ticket.closed", LENA, ticket, server_id=SHOP_DB,
                   partial="after", before={"subject": ticket[2], "priority": "high", "status": "open"}, after={"status": "closed"}),
    ]  # fmt: skip
    return [
        *_singles(asked, failed, *undone),
        Delivery("single", (saved_again,), "not kept"),
        *_singles(restored, *answered),
    ]


def _mass_edit(desk: _Desk) -> list[Delivery]:
    """One click moves 36 schedules to the new storage: one stream."""
    moved = tuple(
        desk.event(
            "backup", f"10:15:{index:02d}", "schedule.updated", ANA, ("schedule", str(100 + index), f"weekly {100 + index}"),
            before={"id": 100 + index, "storage": "nas-1", "retention_days": 90},
            after={"id": 100 + index, "storage": "nas-2", "retention_days": 90},
            metadata={"bulk": "move schedules to nas-2"},
        )
        for index in range(36)
    )  # fmt: skip
    return [Delivery("ndjson", moved)]


def _game_servers(desk: _Desk) -> list[Delivery]:
    """A game server's owner and her subuser; the node sends what it has noticed as an array."""
    lobby: _Thing = ("server", LOBBY, "mc-lobby")

    def at_lobby(at: str, action: str, who: Person, **members: JSONValue) -> JSONObject:
        return desk.event("game", at, action, who, lobby, server_id=LOBBY, **members)

    startup: list[JSONValue] = [{"path": "/startup/SERVER_MEMORY", "op": "replace", "old": "4096", "new": "6144"}]
    noticed = (
        at_lobby("11:02:07", "server:power.stop", YUKI),
        at_lobby("11:03:31", "server:file.write", YUKI, metadata={"file": "/server.properties"}),
        at_lobby("11:04:02", "server:file.rename", YUKI, metadata={"directory": "/plugins", "files": [{"from": "a.jar", "to": "b.jar"}]}),
        at_lobby("11:04:40", "server:startup.edit", YUKI, verb="UPDATE", changes=startup),
        at_lobby("11:05:12", "server:power.start", YUKI),
        at_lobby("11:20:55", "server:console.command", YUKI, metadata={"command": "whitelist add otter"}),
        at_lobby("11:34:17", "server:power.restart", LENA),
        at_lobby("11:51:26", "server:backup.start", LENA, metadata={"name": "before the update"}),
        at_lobby("12:09:48", "server:reinstall", LENA),
        at_lobby("12:30:01", "server:subuser.create", LENA, metadata={"email": "kai@example.net", "permissions": ["control.start"]}),
    )  # fmt: skip
    api_key = desk.secret("ptlc_", 43)
    singles = (
        desk.event("game", "11:00:49", "auth:fail", YUKI, verb="LOGIN", outcome="failure", metadata={"password": desk.secret()}),
        desk.event("game", "11:01:13", "auth:login", YUKI),
        at_lobby("12:41:33", "server:database.rotate-password", LENA, verb="RESET",
                 before={"database": "s21_lobby", "password": desk.secret()}, after={"database": "s21_lobby", "password": desk.secret()}),
        desk.event("game", "12:44:10", "user:api-key.create", LENA, ("api_key", "k-5", "status page"),
                   after={"identifier": "k-5", "memo": "status page", "token": api_key}),
    )  # fmt: skip
    return [*_singles(*singles[:2]), Delivery("array", noticed), *_singles(*singles[2:])]


def _keys_and_balances(desk: _Desk) -> list[Delivery]:
    """A reseller's staff member sells keys, and money moves."""

    def money(at: str, action: str, who: Person, amount: str, old: str, new: str, name: str = "PixelShop") -> JSONObject:  # fmt: skip
        return desk.event("licence", at, action, who, ("balance", name.lower(), name), before={"balance": old}, after={"balance": new},
                          metadata={"amount": amount, "currency": "EUR"})  # fmt: skip

    def key(at: str, action: str, number: int, who: Person = TOM, **members: JSONValue) -> JSONObject:
        return desk.event("licence", at, action, who, ("key", f"K-{number}", f"DEMO-4F2A-{number}"), **members)

    sold = tuple(
        key(at, "key.generated", number, after={"plan": "30 days", "status": "unused"})
        for at, number in zip(_steps("13:05:00", 8, 4), range(1041, 1049), strict=True)
    )
    licence: _Thing = ("licence", "L-310", "Studio, 5 seats")
    return [
        *_singles(money("13:01:20", "balance.credited", NORA, "200.00", "35.00", "235.00")),
        Delivery("batch", sold),
        *_singles(
            money("13:06:02", "balance.debited", TOM, "-96.00", "235.00", "139.00"),
            key("13:20:44", "key.hwid.reset", 982, before={"hwid": "9f-41-c0"}, after={"hwid": None}, reason="new computer"),
            key("13:31:15", "key.banned", 977, before={"status": "active"}, after={"status": "banned"}, reason="chargeback"),
            key("13:48:02", "key.unbanned", 977, before={"status": "banned"}, after={"status": "active"}, reason="chargeback withdrawn"),
            key("13:52:37", "key.deleted", 1048, before={"plan": "30 days", "status": "unused"}),
            money("13:53:01", "balance.refunded", TOM, "12.00", "139.00", "151.00"),
            desk.event("licence", "14:05:00", "licence.created", NORA, licence, after={"seats": 5, "expires": "2027-11-21"}),
            desk.event("licence", "14:06:30", "licence.renewed", NORA, ("licence", "L-288", "Solo"),
                       before={"expires": "2026-12-01"}, after={"expires": "2027-12-01"}, metadata={"amount": "49.00", "currency": "EUR"}),
            desk.event("licence", "14:09:12", "licence.transferred", NORA, ("licence", "L-291", "Duo"),
                       before={"owner": "PixelShop"}, after={"owner": "NorthByte"}),
            money("17:55:40", "balance.credited", TOM, "500.00", "20.00", "520.00", "NorthByte"),
        ),
    ]  # fmt: skip


def _customers(desk: _Desk) -> list[Delivery]:
    """Invoices, a job that suspends, a client edited by patch, and a server deleted by support in a client's name."""
    invoice: _Thing = ("invoice", "2026-1180", "Invoice 2026-1180")
    client: JSONObject = {"uuid": "c88", "name": "Lena Fischer", "city": "Graz", "password": desk.secret("$2y$10$", 53)}
    forum: JSONObject = {"name": "old-forum", "plan": "VPS S", "ipv4": "192.0.2.14", "root_password": desk.secret()}
    wiki: _Thing = ("server", "s15", "wiki")
    lena: JSONObject = LENA.actor()

    def model(name: str, uuid: str) -> dict[str, JSONValue]:
        return {"description": rf"App\Models\{name}:{uuid}", "metadata": {"level": "info"}}

    billed = (
        desk.event("hosting", "12:00:05", "billing.invoice.created", None, invoice,
                   after={"total": "59.80", "currency": "EUR", "status": "unpaid"}),
        desk.event("hosting", "12:00:09", "server.suspended", None, wiki, server_id="s15", reason="invoice 2026-1102 is 14 days overdue"),
        desk.event("hosting", "12:18:31", "billing.invoice.paid", LENA, invoice, partial="after",
                   before={"total": "59.80", "currency": "EUR", "status": "unpaid"}, after={"status": "paid"}),
        desk.event("hosting", "12:19:00", "server.unsuspended", None, wiki, server_id="s15"),
        desk.event("hosting", "13:11:46", "billing.payment.refunded", PRIYA, ("payment", "p-870", None),
                   metadata={"amount": "29.90", "currency": "EUR"}),
    )  # fmt: skip
    handled = (
        desk.event("hosting", "13:40:00", "user.updated", LENA, ("user", "c88", "Lena Fischer"),
                   partial="after", before=client, after={"city": "Wien"}, **model("Client", "c88")),
        desk.event("hosting", "14:12:08", "server.created", PRIYA, ("server", "s30", "new-forum"), server_id="s30",
                   after={"name": "new-forum", "plan": "VPS M", "root_password": desk.secret()}, **model("Service", "s30")),
        desk.event("hosting", "14:18:50", "server.migrated", PRIYA, ("server", "s17", "git"), server_id="s17",
                   partial="after", before={"node": "node-2", "status": "active"}, after={"node": "node-4"}),
        desk.event("hosting", "14:20:33", "auth.login", PRIYA, ("user", "c88", "Lena Fischer"), on_behalf_of=lena,
                   metadata={"method": "login as client"}),
        desk.event("hosting", "14:22:16", "server.deleted", PRIYA, ("server", OLD_FORUM, "old-forum"), server_id=OLD_FORUM,
                   on_behalf_of=lena, before=forum, related=[{"type": "ticket", "id": "4716"}], **model("Service", OLD_FORUM)),
        desk.event("hosting", "14:23:59", "auth.logout", PRIYA, ("user", "c88", "Lena Fischer"), on_behalf_of=lena),
    )  # fmt: skip
    return [Delivery("batch", billed), *_singles(*handled)]


def _crm_pages(desk: _Desk) -> list[Delivery]:
    """Pages opened, items read, two records changed."""
    pages = ("Dashboard", "Leads", "Contacts", "Deals", "Invoices", "Calendar", "Reports", "Settings")
    visits = tuple(
        desk.event("crm", at, "module.visited", who, ("module", page.lower(), page))
        for who, start in ((DIEGO, "15:00:10"), (SOFIA, "15:01:02"), (DIEGO, "16:10:30"))
        for at, page in zip(_steps(start, len(pages), 95), pages, strict=True)
    )
    lead: _Thing = ("lead", "2203", "Hotel Adria")
    return [
        Delivery("ndjson", visits),
        *_singles(
            desk.event("crm", "15:09:41", "module.item.viewed", DIEGO, lead),
            desk.event("crm", "15:12:20", "module.item.updated", DIEGO, lead, partial="both",
                       before={"status": "new", "value": None}, after={"status": "qualified", "value": "1800.00"}),
            desk.event("crm", "16:22:08", "module.items.exported", SOFIA, ("module", "leads", "Leads"),
                       metadata={"rows": 412, "format": "csv"}),
            desk.event("crm", "16:40:55", "module.item.deleted", SOFIA, ("lead", "1990", None), reason="duplicate"),
        ),
    ]  # fmt: skip


def _evening(desk: _Desk) -> list[Delivery]:
    """Everybody goes home."""
    out = (("17:30:11", "crm", DIEGO), ("17:31:40", "crm", SOFIA), ("17:58:22", "licence", TOM), ("18:05:09", "backup", ANA))  # fmt: skip
    return _singles(*(desk.event(panel, at, "auth.logout", who, ("user", who.id, who.email)) for at, panel, who in out))
