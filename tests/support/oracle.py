"""What a reader must find: events of two tenants, every filter read naively from DESIGN 2.5, and random questions.

Nothing here looks at terms, segments or SQL. `matches` is the law that lists, counts and exports are held to.
"""

import ipaddress
import itertools
import json
import random
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from tests.support.api import Api

Event = dict[str, Any]
Asked = list[tuple[str, str]]
START = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)
PEOPLE: list[Event | None] = [
    None,
    {"type": "user", "id": "u1", "name": "Ana Gómez", "email": "ana@example.com", "role": "Admin"},
    {"type": "user", "id": "u10", "name": "ANABEL", "email": "a.bel@example.com", "role": "Support"},
    {"type": "client", "id": "12", "name": "Straße & Söhne", "role": "Admin"},
    {"type": "system", "name": "none"},
    {"type": "api", "id": "u1*", "email": "ana@example.com"},
    {"type": "user", "name": "𝓐na \ufdfa"},
    {"type": "user", "id": "u77", "name": "\U0010ffff last", "role": "Мастер" * 170},
]
ACTIONS = [
    "server.created",
    "server.deleted",
    "server:power.start",
    "serverless.run",
    "server",
    "user.login",
    "backup_a.restored",
    "backupXa.x",
    "UPDATE",
]
ADDRESSES = [
    None,
    "203.0.113.9",
    "203.0.113.200",
    "::ffff:203.0.113.9",
    "2001:db8::9",
    "2001:0DB8:0::10",
    "fe80::1%eth0",
    "0.0.0.0",  # noqa: S104
]
SERVERS = [None, "s1", "s10", "s%", "S1", "a/b"]
TARGETS: list[Event | None] = [
    None,
    {"type": "server", "id": "s1"},
    {"type": "vm", "id": "s1", "name": "n"},
    {"type": "server", "id": "é"},
    {"type": "vm", "id": "日本語サーバー", "name": 'disk "C" of μ'},
]
TEXTS = [
    None,
    None,
    "raised by the billing run of March",
    "Сервер перезапущен",
    "two\nlines",
    "50% \\ off_",
    "ok",
    "wide  gap",
]
LONG = "a rather long text, more than eight times three letters, that begins like others"
# Long, and from a script whose letters take three bytes each: longer than any key of a database index.
DEEP = "/" + "/".join(["設定" * 60] * 8)
PATHS = [
    "/retention/days",
    "/retention",
    "/retention/days/soft",
    "/retentionist",
    "/a~1b",
    "/été/días",
    "/",
    "/tags",
    "/password",
    DEEP,
]
VALUES: list[Any] = [
    7, 30, 7.5, -1, 1e21, True, False, None, "7", "30", "true", "null", "x", "é", "E\u0301", "\u0301", "Gómez", "GOMEZ", "日本語",
    "日本語です",
    "two\nlines", "\nfirst", "last\n", 'say "hi"', "", "a,b", [1, 2], [], {"b": ["x", 7], "a": None}, "[1,2]", "[open",
    LONG, LONG.replace("like", "as"), "𝓐na", "a\tb", 2**53 + 1,
]  # fmt: skip


class Stock:
    """Two tenants' events as posted, in seq order, with what only the service knows filled in."""

    def __init__(self, api: Api, other: Api, events: list[Event], others: list[Event]) -> None:
        self.api = api
        self.other = other
        self.events = events
        self.others = others

    @property
    def tenants(self) -> list[tuple[Api, list[Event]]]:
        """Each tenant with its events."""
        return [(self.api, self.events), (self.other, self.others)]


def make_events(seed: int, count: int, prefix: str) -> list[Event]:
    """Events over two days with the values above. Times repeat, and come in no order."""
    chance = random.Random(seed)  # noqa: S311 - test data, the same each run
    events = []
    for number in range(count):
        event: Event = {
            "id": f"{prefix}{number}",
            "occurred_at": (START + timedelta(minutes=20 * chance.randrange(150))).isoformat(),
            "action": chance.choice(ACTIONS),
            "actor": chance.choice(PEOPLE),
            "server_id": chance.choice(SERVERS),
            "target": chance.choice(TARGETS),
            "outcome": chance.choice([None, "success", "failure", "unknown"]),
            "description": chance.choice(TEXTS),
            "context": {
                "ip": chance.choice(ADDRESSES),
                "session_id": chance.choice([None, "one", "two"]),
                "request_id": chance.choice([None, "r1", "r2"]),
            },
            "changes": make_changes(chance),
        }
        if chance.random() < 0.3:
            event |= {"verb": chance.choice(["LOGIN", "OTHER"]), "category": chance.choice(["server", "x"])}
        events.append(event)
    return events


def make_changes(chance: random.Random) -> list[Event]:
    """None to four changes, some of them of a secret."""
    changes: list[Event] = []
    for path in chance.sample(PATHS, chance.randrange(5)):
        old, new = chance.sample(range(len(VALUES)), 2)
        shape = chance.choice(["replace", "replace", "replace", "add", "remove", "redacted"])
        change: Event = {"path": path, "op": "replace" if shape == "redacted" else shape}
        if shape in ("replace", "remove"):
            change["old"] = VALUES[old]
        if shape in ("replace", "add"):
            change["new"] = VALUES[new]
        if shape == "redacted":
            change["redacted"] = True
        changes.append(change)
    return changes


async def fill(api: Api, events: list[Event]) -> list[Event]:
    """Post the events, several a call, and note what came of them."""
    noted = []
    for start in range(0, len(events), 20):
        part = events[start : start + 20]
        response = await api.client.post("/v1/events", json=part)
        assert response.status_code == 201, response.text
        for event, result in zip(part, response.json()["results"], strict=True):
            shown = await api.event(event["id"])
            receipt = {name: result["receipt"][name] for name in ("seq", "recorded_at")}
            noted.append(event | receipt | {name: shown[name] for name in ("verb", "category", "changes")})
    return noted


# --- the naive filter ---


def plain(text: str) -> str:
    """Without case and accents."""
    stripped = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    stripped = stripped.casefold()
    return "".join(c for c in unicodedata.normalize("NFKD", stripped) if not unicodedata.combining(c)).casefold()


def same_actor(event: Event, value: str) -> bool:
    """By id, name or e-mail, whole or the beginning."""
    known = [plain(event["actor"][name]) for name in ("id", "name", "email") if (event["actor"] or {}).get(name)]
    asked = plain(value)
    return any(key.startswith(asked[:-1]) if asked.endswith("*") else key == asked for key in known)


def exact_or_prefix(event: Event, value: str) -> bool:
    """By its action."""
    action: str = event["action"]
    return action.startswith(value[:-1]) if value.endswith("*") else action == value


def same_ip(event: Event, value: str) -> bool:
    """By an address or a network, an IPv4 address by any of its spellings."""
    if event["context"]["ip"] is None:
        return False
    address: Any = ipaddress.ip_address(event["context"]["ip"].partition("%")[0])
    network: Any = ipaddress.ip_network(value, strict=False)
    if address.version == 6 and address.ipv4_mapped:
        address = address.ipv4_mapped
    if network.version == 6 and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        network = ipaddress.ip_network(f"{network.network_address.ipv4_mapped}/{network.prefixlen - 96}", strict=False)
    return address.version == network.version and address in network


def at_path(change: Event, value: str) -> bool:
    """The path, all below it, or what begins so."""
    path: str = change["path"]
    return path.startswith(value[:-1]) if value.endswith("*") else path == value or path.startswith(value + "/")


def spelled(value: Any) -> str:
    """As JSON writes it, texts without quotes."""
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    )


def is_spelled(side: str) -> Callable[[Event, str], bool]:
    """The old or the new value of a change."""
    return lambda change, value: side in change and spelled(change[side]) == value


def texts(value: Any) -> Iterator[str]:
    """Every text and number within a value."""
    if isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)
    elif value is not None and not isinstance(value, bool):
        yield spelled(value)


def words_of(value: str) -> list[str]:
    """Words, and phrases in double quotes; a quotation mark within a word is a letter."""
    words: list[str] = []
    rest = value.lstrip()
    while rest:
        phrase = rest[1:].partition('"') if rest.startswith('"') else ("", "", "")
        if phrase[1]:
            words.append(" ".join(phrase[0].split()))
            rest = phrase[2].lstrip()
        else:
            words.append(rest.split(maxsplit=1)[0])
            rest = rest[len(words[-1]) :].lstrip()
    return [plain(word) for word in words if word]


def holds_words(event: Event, value: str) -> bool:
    """Each word somewhere in the names, e-mails, ids, texts and changed values."""
    people = {name: (event["actor"] or {}).get(name) for name in ("id", "name", "email", "role")}
    target = {name: (event["target"] or {}).get(name) for name in ("id", "name")}
    sides = [change.get(side) for change in event["changes"] for side in ("old", "new")]
    searched = [
        plain(text)
        for text in texts(
            [people, event.get("on_behalf_of"), target, event["description"], event["id"], event["server_id"], sides]
        )
    ]
    return all(any(word in text for text in searched) for word in words_of(value))


def member(*path: str) -> Callable[[Event, str], bool]:
    """A member of the event, as it is."""

    def same(event: Event, value: str) -> bool:
        found: Any = event
        for name in path:
            found = (found or {}).get(name)
        return bool(found == value)

    return same


OF_A_CHANGE = {"changed": at_path, "old": is_spelled("old"), "new": is_spelled("new")}


def any_change(name: str) -> Callable[[Event, str], bool]:
    """Whether the filter of this name holds for one of the changes."""
    return lambda event, value: any(OF_A_CHANGE[name](change, value) for change in event["changes"])


NAIVE: dict[str, Callable[[Event, str], bool]] = {
    "actor": same_actor,
    "actor_type": member("actor", "type"),
    "role": member("actor", "role"),
    "action": exact_or_prefix,
    "verb": member("verb"),
    "category": member("category"),
    "target_type": member("target", "type"),
    "target_id": member("target", "id"),
    "server_id": lambda event, value: event["server_id"] is None if value == "none" else event["server_id"] == value,
    "ip": same_ip,
    "outcome": member("outcome"),
    "id": member("id"),
    "session": member("context", "session_id"),
    "request_id": member("context", "request_id"),
    **{name: any_change(name) for name in OF_A_CHANGE},
    "q": holds_words,
}
ASKED: dict[str, list[str]] = {
    "actor": ["u1", "ANA@example.com", "ana gomez", "ana*", "strasse & sohne", "𝓐NA*", "*", "nobody", "12", "u1*", "none", "\U0010ffff*"],
    "actor_type": ["user", "client", "system", "nothing"],
    "role": ["Admin", "admin", "Support", "Мастер" * 170, "Мастер" * 100, ("Мастер" * 170)[:256]],
    "action": ["server.*", "server*", "server", "server.created", "*", "backup_a*", "backup%", "%", "UPDATE", "update"],
    "verb": ["CREATE", "LOGIN", "OTHER", "EXECUTE"],
    "category": ["server", "x", "user", "SERVER"],
    "target_type": ["server", "vm"],
    "target_id": ["s1", "é", "e\u0301", "日本語サーバー"],
    "server_id": ["none", "s1", "s%", "S1", "a/b", "s"],
    "ip": ["203.0.113.9", "203.0.113.0/25", "203.0.113.9/24", "::ffff:203.0.113.9", "::ffff:203.0.113.0/120", "2001:db8::/32",
           "2001:db8::10", "fe80::1", "0.0.0.0/0", "::/0", "10.0.0.0/8"],
    "outcome": ["success", "failure", "unknown"],
    "id": ["e1", "e39", "e50", "nothing"],
    "session": ["one", "two", "three"],
    "request_id": ["r1", "r2", "R1"],
    "changed": ["/retention", "/retention/days", "/retention*", "/ret*", "/a~1b", "/a/b", "/été", "/ete", "/", "*", "/tags", "retention",
                DEEP, DEEP[:300] + "*", DEEP[:-3], "/設定*", "/password"],
    "old": [],
    "new": [],
    "q": ["gomez", "GÓM", "ana@", "日本語", "日本語です", "サーバ", "сервер", "перезапу", "billing march", '"billing run"', '"run billing"',
          "two", '"two lines"', "50%", "off_", '"say "', 'hi"', "lines first", "e10", "example.com ana", "strasse",
          "s%x", "rather text begins", f'"{LONG}"', f'"{LONG[3:60]}"', f'"{LONG[:40]} x"', "zzz", "1e+21", "[op", "wide gap",
          '"wide gap"', "мастер"],
}  # fmt: skip
ASKED["old"] = ASKED["new"] = [spelled(value) for value in VALUES if value != ""] + [
    "gómez",
    "8",
    "[2,1]",
    '{"a":null',
    "1",
]
ZONES = ["UTC", "Europe/Berlin", "Pacific/Kiritimati", "America/St_Johns"]
SORTS = ["-occurred_at", "occurred_at", "-seq", "seq"]


def of_one_change(event: Event, wanted: dict[str, list[str]]) -> bool:
    """Asked for together, path and values are those of one change."""
    return any(
        all(any(OF_A_CHANGE[name](change, value) for value in values) for name, values in wanted.items())
        for change in event["changes"]
    )


def matches(event: Event, parameters: Asked) -> bool:
    """Whether the event is what the parameters ask for, read naively from DESIGN 2.5."""
    given = {name: [value for n, value in parameters if n == name] for name, _ in parameters}
    zone = ZoneInfo(given.pop("tz", ["UTC"])[0])
    together = {name: given.pop(name) for name in OF_A_CHANGE if name in given}
    occurred, recorded = (datetime.fromisoformat(event[name]) for name in ("occurred_at", "recorded_at"))
    day = occurred.astimezone(zone).date().isoformat()
    for name, values in given.items():
        value = values[0]
        field = name.removesuffix(".not")
        if field in NAIVE:
            fits = any(NAIVE[field](event, one) for one in values) is not name.endswith(".not")
        elif name in ("date_from", "date_to"):
            fits = day >= value if name == "date_from" else day <= value
        else:
            at = recorded if name.startswith("recorded") else occurred
            limit = datetime.fromisoformat(value)
            fits = at >= limit if name.endswith("since") else at < limit
        if not fits:
            return False
    return not together or of_one_change(event, together)


def ordered(events: list[Event], sort: str) -> list[Event]:
    """The events in the order asked for, ties by seq."""
    by_time = sort.endswith("occurred_at")
    return sorted(
        events,
        key=lambda event: (datetime.fromisoformat(event["occurred_at"]) if by_time else START, event["seq"]),
        reverse=sort.startswith("-"),
    )


def expected(events: list[Event], asked: Asked, sort: str) -> list[int]:
    """The seqs a list must show, in order."""
    return [event["seq"] for event in ordered([event for event in events if matches(event, asked)], sort)]


# --- random questions ---

moments = st.integers(0, 150).map(lambda n: (START + timedelta(minutes=20 * n)).isoformat())
filters = st.sampled_from(sorted(NAIVE)).flatmap(
    lambda name: st.lists(st.sampled_from(ASKED[name]), min_size=1, max_size=3).flatmap(
        lambda values: st.sampled_from([name, name, name + ".not"]).map(lambda n: [(n, value) for value in values])
    )
)
ranges = st.one_of(
    moments.map(lambda at: [("since", at)]),
    moments.map(lambda at: [("until", at)]),
    st.integers(27, 31).map(lambda day: [("date_from", f"2026-03-{day}")]),
    st.integers(27, 31).map(lambda day: [("date_to", f"2026-03-{day}")]),
    # In place of a time the place of an event in the log: when it was recorded, only the log knows.
    st.integers(0, 39).map(lambda seq: [("recorded_since", str(seq))]),
    st.integers(0, 39).map(lambda seq: [("recorded_until", str(seq))]),
)


@st.composite
def changes_together(draw: st.DrawFn) -> list[list[tuple[str, str]]]:
    """Two or three of path, old and new value, often those of one change that was made."""
    made = [change for event in make_events(1, 40, "e") for change in event["changes"] if "old" in change]
    change = draw(st.sampled_from(made))
    known = {name: [("changed" if name == "path" else name, spelled(change[name]))] for name in change if name != "op"}
    other = draw(st.sampled_from(["path", "old", "new"]))
    if draw(st.booleans()):
        name = "changed" if other == "path" else other
        known[other] = [(name, draw(st.sampled_from(ASKED[name])))]
    return [group for group in known.values() if group[0][1]]


queries = st.one_of(
    st.lists(st.one_of(filters, filters, filters, ranges), max_size=4),
    st.tuples(changes_together(), st.lists(st.one_of(filters, ranges), max_size=1)).map(
        lambda parts: [*parts[0], *parts[1]]
    ),
)


def single(groups: list[Asked], zone: str) -> Asked:
    """One group of each name: time ranges may stand once only. Days get their zone."""
    asked = list(itertools.chain(*{group[0][0]: group for group in groups}.values()))
    return [*asked, ("tz", zone)] if any(name.startswith("date") for name, _ in asked) else asked


def with_times(asked: Asked, events: list[Event]) -> Asked:
    """The places of events, in place of times of recording, as those times."""
    return [
        (name, events[int(value)]["recorded_at"] if name.startswith("recorded") else value) for name, value in asked
    ]
