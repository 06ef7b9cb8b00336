"""Who acts in the made-up log, and on what: 2,000 actors, 5,000 servers, 30,000 targets of eight types.

Everything follows from the seed number. A few do nearly everything (Zipf: the n-th is drawn in proportion to 1 / n^exponent), as in a
real panel; one automation account does 40 % of it alone.
"""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import TypeVar

from audit_service.core.entry import JSONObject

PEOPLE, SERVERS = 1_998, 5_000
# How many targets there are of each type. Those without a home belong to no server.
TARGETS = {
    "server": SERVERS, "backup": 8_000, "schedule": 3_000, "user": 4_000, "invoice": 5_000, "licence": 2_000, "database": 2_000,
    "allocation": 1_000,
}  # fmt: skip
HOMELESS = frozenset({"user", "invoice", "licence"})
PEOPLE_EXPONENT, SERVER_EXPONENT, TARGET_EXPONENT = 0.9, 0.8, 0.6

# Given and family names as people write them, each with its form in an e-mail address; a line for each script or language.
_NAMES = (
    ("Ana:ana Sofía:sofia José:jose Iñaki:inaki Núria:nuria", "Gómez:gomez Ruiz:ruiz Peña:pena Íñiguez:iniguez López:lopez"),
    ("Marek:marek Zuzana:zuzana Łukasz:lukasz Jiří:jiri Żaneta:zaneta", "Novák:novak Dvořák:dvorak Wiśniewski:wisniewski Šimková:simkova"),
    ("Jürgen:juergen Anke:anke Søren:soeren Åsa:asa", "Müller:mueller Groß:gross Ødegård:odegard Lindqvist:lindqvist"),
    ("Léa:lea François:francois Zoë:zoe Renée:renee", "Lefèvre:lefevre Garçon:garcon Bäcker:baecker Côté:cote"),
    ("Ирина:irina Сергей:sergey Олена:olena Фёдор:fyodor", "Соколова:sokolova Кузнецов:kuznetsov Шевченко:shevchenko Ёлкин:yolkin"),
    ("Ελένη:eleni Γιώργος:giorgos Μαρία:maria", "Παπαδόπουλος:papadopoulos Νικολάου:nikolaou Ιωάννου:ioannou"),
    ("裕子:yuko 健太:kenta 美咲:misaki", "田中:tanaka 佐藤:sato 鈴木:suzuki"),
    ("伟:wei 秀英:xiuying 娜:na", "王:wang 李:li 张:zhang"),
    ("서연:seoyeon 민준:minjun 지우:jiwoo", "김:kim 박:park 최:choi"),
    ("أحمد:ahmed ليلى:layla يوسف:yusuf", "الهاشمي:alhashimi حداد:haddad منصور:mansour"),
    ("נועה:noa אריאל:ariel", "לוי:levi כהן:cohen"),
    ("प्रिया:priya अर्जुन:arjun", "शर्मा:sharma पटेल:patel"),
    ("Nguyễn:nguyen Thị:thi Đức:duc", "Trần:tran Phạm:pham Lê:le"),
    ("Emma:emma Noah:noah Olivia:olivia James:james", "Taylor:taylor Wilson:wilson Clark:clark Walker:walker Young:young"),
    ("Jan:jan Sanne:sanne Daan:daan", "Visser:visser Jansen:jansen Bakker:bakker"),
    ("Marco:marco Giulia:giulia Luca:luca", "Rossi:rossi Bianchi:bianchi Conti:conti"),
    ("Ravi:ravi Meera:meera Arjun:arjun", "Kumar:kumar Iyer:iyer Singh:singh"),
    ("Tom:tom Grace:grace Aisha:aisha Kofi:kofi Liam:liam", "Becker:becker O'Neill:oneill Mensah:mensah Smith:smith Brown:brown"),
)  # fmt: skip
_DOMAINS = ("example.com", "example.com", "example.net", "example.org", "mail.example.com")
_STAFF_ROLES = ("Super Admin", "Backup Operator", "Support", "Billing Agent", "Network Engineer", "Reseller Staff")
_BROWSERS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:{0}.0) Gecko/20100101 Firefox/{0}.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{0}.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.{0} Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.{0} Mobile/15E148 Safari/604.1",
)
_PURPOSES = ("web", "shop-db", "mail", "lobby", "forum", "git", "wiki", "worker", "cache", "survival")
# Of each type: how its targets are called, and the words they begin with.
_TARGET_NAMES = {
    "backup": ("{word}-{home}-{number}", ("nightly", "weekly", "before-upgrade", "manual")),
    "schedule": ("{word} {home}", ("nightly backup", "weekly restart", "hourly sync", "log cleanup")),
    "invoice": ("{word}-{number:05d}", ("INV-2024", "INV-2025")),
    "licence": ("{word} licence {number}", ("Starter", "Team", "Enterprise")),
    "database": ("s{number}_{word}", ("wordpress", "shop", "forum", "metrics")),
    "allocation": ("198.19.{low}.{low}:{word}", ("25565", "27015", "30120", "8443")),
}

Item = TypeVar("Item")


def pick(draw: Random, items: Sequence[Item]) -> Item:
    """One of the items, each as likely.

    Of `Random` only `random` and `getrandbits` are used: their numbers do not change from one Python to the next.
    """
    return items[int(draw.random() * len(items))]


class Skew:
    """Positions of which a few come up again and again."""

    def __init__(self, count: int, exponent: float) -> None:
        self._bounds = list(accumulate(rank**-exponent for rank in range(1, count + 1)))

    def position(self, share: float) -> int:
        """The position at `share` (0 ≤ share < 1) of all draws; 0 is the most frequent one."""
        return min(bisect(self._bounds, share * self._bounds[-1]), len(self._bounds) - 1)


@dataclass(frozen=True, slots=True)
class Target:
    """What is acted on, and the server it belongs to."""

    type: str
    id: str
    name: str
    server_id: str | None

    def members(self) -> JSONObject:
        """As an event names it."""
        return {"type": self.type, "id": self.id, "name": self.name}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, as an event names them, and from where."""

    members: JSONObject
    addresses: tuple[str, ...]
    agents: tuple[str, ...]

    @property
    def id(self) -> str:
        """The id by which they are found."""
        return str(self.members["id"])

    @property
    def account(self) -> Target:
        """Themselves, as what they act on."""
        return Target("user", self.id, str(self.members["name"]), None)

    @property
    def is_person(self) -> bool:
        """Whether they log in, and so have a session."""
        return self.members["type"] != "api"


AUTOMATION = Actor(
    {"type": "api", "id": "api-automation", "name": "Automation API", "role": "API"},
    ("198.18.0.10", "198.18.0.11", "2001:db8:a::10"),
    ("panel-automation/3.2 (+https://panel.example.com/bot)",),
)
# Was switched off in the middle of the log: frequent before, absent after.
BRIDGE = Actor(
    {"type": "api", "id": "legacy-bridge", "name": "Legacy Bridge", "role": "API"},
    ("198.18.0.77",),
    ("legacy-bridge/1.0",),
)


class Cast:
    """Everybody and everything in the log of one seed number."""

    def __init__(self, seed: int) -> None:
        draw = Random(seed)  # noqa: S311 - made-up data, the same each time
        self.people = [_person(number, draw) for number in range(1, PEOPLE + 1)]
        self._people_skew = Skew(PEOPLE, PEOPLE_EXPONENT)
        self._server_skew = Skew(SERVERS, SERVER_EXPONENT)
        # The most frequent is not the first of its number, as everywhere.
        self._servers = _shuffled([_server(number, draw) for number in range(1, SERVERS + 1)], draw)
        self.targets = {
            kind: self._servers if kind == "server" else [self._target(kind, number, draw) for number in range(count)]
            for kind, count in TARGETS.items()
        }
        self._target_skews = {
            kind: self._server_skew if kind == "server" else Skew(count, TARGET_EXPONENT)
            for kind, count in TARGETS.items()
        }

    def person(self, share: float) -> Actor:
        """Somebody who is not the automation, at `share` of what these do."""
        return self.people[self._people_skew.position(share)]

    def target(self, kind: str, share: float) -> Target:
        """A target of a type, at `share` of what happens to that type."""
        return self.targets[kind][self._target_skews[kind].position(share)]

    def _target(self, kind: str, number: int, draw: Random) -> Target:
        home = None if kind in HOMELESS else self._servers[self._server_skew.position(draw.random())]
        name = _target_name(kind, number, home, draw)
        return Target(kind, _target_id(kind, number), name, None if home is None else home.server_id)


def _person(number: int, draw: Random) -> Actor:
    """Staff first, because staff act most; then customers, and here and there a key for a customer's own programs."""
    (given, given_ascii), (family, family_ascii) = _full_name(draw)
    if number % 25 == 0:
        members: JSONObject = {"type": "api", "id": f"key-{number}", "name": f"{family} deploy key", "role": "API"}
        return Actor(members, (_address(draw),), ("python-httpx/0.28.1", "curl/8.14.1"))
    staff = number <= 150
    members = {
        "type": "user" if staff else "client",
        "id": f"u{number}",
        "name": f"{given} {family}",
        "email": f"{given_ascii}.{family_ascii}{number}@{pick(draw, _DOMAINS)}",
        "role": pick(draw, _STAFF_ROLES) if staff else "Client" if number % 7 else "Subuser",
    }
    addresses = tuple(_address(draw) for _ in range(1 + int(draw.random() * 3)))
    agents = tuple(pick(draw, _BROWSERS).format(120 + int(draw.random() * 25)) for _ in range(2))
    return Actor(members, addresses, agents)


def _full_name(draw: Random) -> tuple[list[str], list[str]]:
    """A given and a family name of one language, each as written and as in an e-mail address."""
    given, family = pick(draw, _NAMES)
    return pick(draw, given.split()).split(":"), pick(draw, family.split()).split(":")


def _address(draw: Random) -> str:
    """An address of the ranges kept for benchmarks (RFC 2544) and documentation (RFC 3849); one in five is IPv6."""
    if draw.random() < 0.2:
        return f"2001:db8:{draw.getrandbits(16):x}:{draw.getrandbits(8):x}::{draw.getrandbits(16):x}"
    return f"198.{18 + draw.getrandbits(1)}.{draw.getrandbits(8)}.{draw.getrandbits(8)}"


def _server(number: int, draw: Random) -> Target:
    return Target("server", f"s{number}", f"{pick(draw, _PURPOSES)}-{number:04d}", f"s{number}")


def _shuffled(items: list[Item], draw: Random) -> list[Item]:
    return sorted(items, key=lambda _: draw.random())


def _target_id(kind: str, number: int) -> str:
    return f"{kind[:3]}-{10_000 + number * 7}"


def _target_name(kind: str, number: int, home: Target | None, draw: Random) -> str:
    if kind == "user":
        (given, _), (family, _) = _full_name(draw)
        return f"{given} {family}"
    form, words = _TARGET_NAMES[kind]
    return form.format(word=pick(draw, words), home="" if home is None else home.name, number=number, low=number % 256)
