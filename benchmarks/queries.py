"""P5: how long does a page take, and how does that grow with the log?

Every filter alone over a seeded log, with values that are common, rare, gone for years and never seen; the 100th page; searches; counts.
One client, one request at a time, on the machine of the service. Page sizes are the default. Every kind is sent once to warm up (the
service has just been started, and reads from the disk), then `ROUNDS` times, in turn with the others.
"""

import http.client
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import asyncpg

from benchmarks.options import Options
from benchmarks.report import BenchmarkError, Figure, Section, counted
from benchmarks.seeding.cache import seeded
from benchmarks.seeding.history import NEEDLES
from benchmarks.service import Running, running

ROUNDS = 30
DEEP_PAGE = 100
LIST = "/v1/events"
GOAL_MS, GOAL_RATIO = 50.0, 2.0
RELATIONS = ("entry", "receipt", "posting", "segment", "tally")


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of request of the mix. `judged`: a first page with one filter, or a deep one, which the goal is about."""

    name: str
    parameters: tuple[tuple[str, str], ...] = ()
    path: str = LIST
    judged: bool = True


def _filter(name: str, value: str, what: str) -> Question:
    """One filter. Named by `what` the value is, which is the same at every size."""
    return Question(f"{name}: {what}", ((name, value),))


def _also(name: str, *parameters: tuple[str, str], path: str = LIST) -> Question:
    return Question(name, parameters, path, judged=False)


def questions(sample: Mapping[str, str]) -> list[Question]:
    """The mix. `sample` has values of an entry in the middle of the log."""
    rare_action, _ = NEEDLES.rare_actions[0]
    fragments = [*NEEDLES.common_fragments, NEEDLES.rare_fragment, NEEDLES.absent_fragment]
    action, category, at = sample["action"], sample["category"], sample["occurred_at"]
    people = {
        "40 % of the log": NEEDLES.busy_actor, "somebody": sample["actor_id"], "a prefix": f"{sample['actor_name'][:4]}*",
        "gone for half the log": NEEDLES.retired_actor, "never seen": NEEDLES.absent_actor,
    }  # fmt: skip
    actions = {
        "somebody's": action, "a category by prefix": f"{category}.*", "gone for half the log": NEEDLES.retired_action,
        "a few in the log": rare_action, "never seen": "no.such",
    }  # fmt: skip
    plain = ("actor_type", "verb", "category", "target_type", "target_id", "server_id", "ip", "request_id", "id")
    others = (
        ("role", "Support", "a role"), ("outcome", "failure", "2 % of the log"), ("server_id", "none", "global"),
        ("ip", "198.51.100.0/24", "a network"), ("session", "no such", "never seen"), ("changed", "/memory", "a path"),
        ("changed", "/no/such", "never seen"), ("new", "suspended", "a value"), ("old", "30", "a short value"),
        ("action.not", action, "all but one"), ("actor_type.not", "user", "all but one"),
        ("since", at, "half the log"), ("until", at, "half the log"), ("recorded_until", at, "half the log"),
    )  # fmt: skip
    one = [
        Question("no filter"),
        *(_filter("actor", value, what) for what, value in people.items()),
        *(_filter("action", value, what) for what, value in actions.items()),
        *(_filter(name, sample[name], "a sample's") for name in plain),
        *(_filter(*other) for other in others),
        *(_filter("q", f'"{fragment}"', fragment) for fragment in fragments),
    ]
    return [
        *one,
        _also("q of two fragments that never meet", ("q", " ".join(NEEDLES.never_meeting))),
        _also("actor and action", ("actor", sample["actor_id"]), ("action", sample["action"])),
        _also("server and q", ("server_id", sample["server_id"]), ("q", NEEDLES.common_fragments[0])),
        _also("category and failures", ("category", sample["category"]), ("outcome", "failure")),
        _also("count=capped of a common action", ("action", sample["action"]), ("count", "capped")),
        _also("one server's activity", path=f"/v1/servers/{sample['server_id']}/activity"),
        _also("history of a target", path=f"/v1/targets/{sample['target_type']}/{sample['target_id']}/history"),
        _also("facets", path="/v1/facets"),
        _also("facets of a common action", ("action", sample["action"]), path="/v1/facets"),
        _also("timeline by month", ("interval", "month"), path="/v1/timeline"),
        _also("timeline of a common action by month", ("action", sample["action"]), ("interval", "month"), path="/v1/timeline"),
    ]  # fmt: skip


def measure_p5(options: Options) -> Section:
    """Latencies at every size, and how they grow from the smallest to the largest."""
    found: dict[int, dict[str, list[float]]] = {}
    judged: set[str] = set()
    figures: list[Figure] = []
    for size in options.query_sizes:
        log = seeded(options.seeded_folder, size)
        with running(options.folder, on=log) as service:
            mix = questions(service.ask(_sample))
            judged |= {question.name for question in mix if question.judged} | {_deep_name()}
            found[size] = _measure(service, mix)
            sizes = service.ask(_relation_bytes)
        figures += [Figure(f"{size:,} events: {name}", value / size, "bytes/event") for name, value in sizes.items()]
    small, large = min(found), max(found)
    worst = max(percentile(found[large][name], 95) for name in judged)
    growth = {
        name: percentile(found[large][name], 95) / percentile(found[small][name], 95)
        for name in judged & found[small].keys()
    }
    slowest = max(growth, key=growth.__getitem__)
    latencies = [
        Figure(f"{size:,} events: {name}: {label}", percentile(times, part), "ms")
        for size, by_name in found.items()
        for name, times in by_name.items()
        for label, part in (("p50", 50), ("p95", 95), ("p99", 99))
    ]
    return Section(
        "P5",
        f"P5: a page at {large:,} events ÷ at {small:,}",
        [
            Figure("P5: the largest p95 of a page, in ms", worst, "ms", GOAL_MS, at_most=True),
            Figure(f"P5: the largest growth of a p95 ({slowest})", growth[slowest], "ratio", GOAL_RATIO, at_most=True),
            *figures,
            *latencies,
        ],
        [f"{counted(len(judged), 'kind')} of page judged, {ROUNDS} requests each, one after the other."],
    )


def _deep_name() -> str:
    return f"page {DEEP_PAGE}"


def _measure(service: Running, mix: list[Question]) -> dict[str, list[float]]:
    """Milliseconds of each request of each question."""
    connection = connect(service)
    asked = {question.name: _url(question.path, question.parameters) for question in mix}
    asked[_deep_name()] = _deep_page(connection, service.key)
    times: dict[str, list[float]] = {name: [] for name in asked}
    for round_ in range(ROUNDS + 1):
        for name, url in asked.items():
            began = time.perf_counter()
            get(connection, service.key, url)
            if round_:
                times[name].append((time.perf_counter() - began) * 1000)
    connection.close()
    return times


def _deep_page(connection: http.client.HTTPConnection, key: str) -> str:
    """The address of the 100th page of everything, by following the cursors."""
    url = LIST
    for _ in range(DEEP_PAGE - 1):
        url = _url(LIST, (("cursor", get(connection, key, url)["next_cursor"]),))
    return url


def connect(service: Running) -> http.client.HTTPConnection:
    """A connection for many requests."""
    place = urlsplit(service.url)
    return http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)


def get(connection: http.client.HTTPConnection, key: str, url: str) -> dict[str, Any]:
    """What a path is answered with. Raises BenchmarkError for another status than 200."""
    connection.request("GET", url, headers={"Authorization": f"Bearer {key}"})
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise BenchmarkError(f"GET {url} was answered with {response.status}: {body[:300]!r}")
    found: dict[str, Any] = json.loads(body)
    return found


def _url(path: str, parameters: tuple[tuple[str, str], ...]) -> str:
    return f"{path}?{urlencode(parameters)}" if parameters else path


def percentile(times: list[float], part: int) -> float:
    """By nearest rank."""
    return sorted(times)[math.ceil(len(times) * part / 100) - 1]


async def _sample(connection: asyncpg.Connection) -> dict[str, str]:
    """Values of an entry near the middle of the log that has all of them."""
    row = await connection.fetchrow(
        "SELECT * FROM audit.entry WHERE seq >= (SELECT max(size) / 2 FROM audit.log) AND session IS NOT NULL AND request_id IS NOT NULL "
        "AND server_id IS NOT NULL AND actor_name IS NOT NULL AND target_id IS NOT NULL AND ip IS NOT NULL ORDER BY log_id, seq LIMIT 1"
    )
    if row is None:
        raise BenchmarkError("the seeded log has no entry with every member")
    return {name: _shown(value) for name, value in _scalars(row)}


def _scalars(row: asyncpg.Record) -> Iterator[tuple[str, object]]:
    return ((name, value) for name, value in row.items() if value is not None and not isinstance(value, bytes | list))


def _shown(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


async def _relation_bytes(connection: asyncpg.Connection) -> dict[str, int]:
    """Bytes on disk of each table's rows, and of each index."""
    rows = await connection.fetch(
        "SELECT c.relname, CASE c.relkind WHEN 'r' THEN pg_table_size(c.oid) ELSE pg_relation_size(c.oid) END AS bytes FROM pg_class AS c "
        "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'audit' AND c.relkind IN ('r', 'i') ORDER BY 1"
    )
    return {row["relname"]: row["bytes"] for row in rows if row["relname"].split("_")[0] in RELATIONS}
