"""What is found, counted and folded for a sight is what a naive reader of the events finds, and each of the two walls holds alone (decision
0018).

Three states of the index, segments of eight entries and a walk of three, so that a log of ninety takes every way through the search.
SIGHT_EXAMPLES says how many random questions.
"""

import ast
import json
import os
import random
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import literal, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

import audit_service.store
from audit_service.core import mask
from audit_service.core.bursts import Act, fold
from audit_service.core.entry import ENTROPY_BYTES, format_time, prepare
from audit_service.core.sight import EVERYTHING, Sight
from audit_service.core.timeline import quarter_start
from audit_service.core.view import event_view, stored_from
from audit_service.errors import InvalidQueryError
from audit_service.indexer import index_all
from audit_service.ingest import stored_form
from audit_service.store import around, find, query, segments, selection, slices
from audit_service.store.append import Candidate, append_entries
from audit_service.store.around import list_nearby
from audit_service.store.bursts import list_bursts
from audit_service.store.counts import FACETS, count_facets, count_quarters
from audit_service.store.engine import Database, bound
from audit_service.store.history import stream_newest
from audit_service.store.limits import holds_address
from audit_service.store.rows import fetch_in_order
from audit_service.store.selection import Filter, Selection
from audit_service.store.veil import Veil
from tests.support.appends import RECIPE, RULESET, TestLog, existing_log, owner
from tests.support.forgotten import Forgetter
from tests.support.naive_sight import (
    admitted,
    at,
    facet_value,
    make_events_of_persons,
    questions,
    seen,
    sights,
    small_search,
)
from tests.support.oracle import SORTS, START, Event, ordered
from tests.support.postgres import SERVICE_NAME, Server, default_log_id

EXAMPLES = int(os.environ.get("SIGHT_EXAMPLES", "30"))
SIZE, SEGMENT = 96, 8
STATES = {"no index": 0, "a part": 5, "all": SIZE // SEGMENT}
pytestmark = [pytest.mark.timeout(0 if EXAMPLES > 30 else 600)]


def stock_events() -> list[Event]:
    """Those that only sights ask about, and the service's own."""
    chance = random.Random(7)  # noqa: S311 - test data, the same each run
    events = make_events_of_persons(5, SIZE, "e")
    for number, event in enumerate(events):
        if number % 9 == 4:
            event |= {
                "action": f"audit.key.{chance.choice(['created', 'revoked'])}",
                "changes": [],
                "category": "audit",
                "verb": "CREATE",
            }
    return events


@dataclass(frozen=True, slots=True, repr=False)
class Stock:
    """A log in each state of the index, and its events as everybody sees them who sees all."""

    logs: dict[str, tuple[TestLog, Database]]
    events: list[Event]


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Every way through the search with few events."""
    with pytest.MonkeyPatch.context() as patch:
        small_search(patch, SEGMENT)
        yield


@pytest.fixture(scope="module")
async def stock(server: Server) -> AsyncIterator[Stock]:
    """The same events in three databases."""
    logs, noted = {}, []
    databases = [await server.create() for _ in STATES]
    for (state, count), database in zip(STATES.items(), databases, strict=True):
        log, pools = await existing_log(database, await default_log_id(database)), database.open()
        noted = await fill(log, pools, stock_events())
        for number in range(count):
            assert await segments.add_segment(pools.reads, pools.writes, log.log_id, number)
        logs[state] = (log, pools)
    yield Stock(logs, noted)
    for (log, pools), database in zip(logs.values(), databases, strict=True):
        await log.assert_intact(SIZE)
        await pools.dispose()
        await server.drop(database)


async def fill(log: TestLog, pools: Database, events: list[Event]) -> list[Event]:
    """Append the events, the service's own past ingest; with what only the service knows."""
    for event in events:
        if event["action"].startswith("audit."):
            await append_entries(pools.writes, log.log_id, RULESET, [own_candidate(event)])
        else:
            await log.accept(pools, event)
    noted = []
    async with bound(pools.reads, log.log_id, EVERYTHING) as connection:
        page = await find.list_entries(connection, log.log_id, Selection(sight=EVERYTHING), sort="seq", limit=500)
        for event, row in zip(events, page.rows, strict=True):
            shown = event_view(stored_from(row), {}, EVERYTHING)
            noted.append(event | {name: shown[name] for name in ("seq", "verb", "category", "changes", "recorded_at")})
    return noted


def own_candidate(event: Event) -> Candidate:
    """An entry of the service about itself."""
    said = event | {
        "occurred_at": format_time(datetime.fromisoformat(event["occurred_at"])),
        "source": {"id": "audit-service"},
    }
    said["context"] = {name: value for name, value in event["context"].items() if name != "session_id"}
    event["context"]["session_id"] = None
    prepared = prepare(json.loads(json.dumps(said)), [], [], secrets.token_bytes(ENTROPY_BYTES))
    return Candidate(event["id"], True, bytes(16), bytes(32), prepared)


def selected(log: TestLog, asked: list[tuple[str, str]], sight: Sight) -> Selection:
    """A question as the store takes it."""
    names = dict.fromkeys(name for name, _ in asked)
    return Selection(tuple(_filter(log, name, [v for n, v in asked if n == name]) for name in names), sight=sight)


def _filter(log: TestLog, name: str, values: list[str]) -> Filter:
    field = name.removesuffix(".not")
    if field == "ip":
        networks = [ip_network(value, strict=False) for value in values if "mapped" not in value]
        return Filter(field, tuple(networks), name.endswith(".not"))
    return Filter(field, tuple(stored_form(field, value, RECIPE, log.log) for value in values), name.endswith(".not"))


def without_mapped(asked: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Networks as the API hands them on: none that maps IPv4."""
    return [pair for pair in asked if not (pair[0].startswith("ip") and "::ffff" in pair[1])]


@settings(max_examples=EXAMPLES)
@given(questions, sights, st.sampled_from(SORTS), st.sampled_from([1, 3, 500]))
async def test_every_reader_finds_and_counts_what_they_may_see(
    stock: Stock, asked: list[tuple[str, str]], sight: Sight, sort: Any, limit: int
) -> None:
    asked = without_mapped(asked)
    wanted = seen(stock.events, sight, asked)
    seqs = [event["seq"] for event in ordered(wanted, sort)]
    for state, (log, pools) in stock.logs.items():
        chosen = selected(log, asked, sight)
        async with bound(pools.reads, log.log_id, sight, one_snapshot=True) as connection:
            page = await find.list_entries(connection, log.log_id, chosen, sort=sort, limit=limit)
            assert [row.seq for row in page.rows] == seqs[:limit], state
            assert (page.next is None) == (len(seqs) <= limit), state
            assert await find.count_entries(connection, log.log_id, chosen) == (len(seqs), False), state
            quarters = await count_quarters(connection, log.log_id, chosen)
            assert +Counter(quarters.counts) == Counter(quarter_start(at(event)) for event in wanted), state
            await check_facets(connection, log.log_id, chosen, wanted)
        exported = [
            row["seq"]
            async for rows in slices.stream_slices(pools.reads, log.log_id, chosen, to_seq=SIZE)
            for row in rows
        ]
        assert exported == sorted(seqs), state


async def check_facets(connection: AsyncConnection, log_id: int, chosen: Selection, wanted: list[Event]) -> None:
    """Every value that is seen, and how often."""
    counted = await count_facets(connection, log_id, chosen, list(FACETS), 500)
    assert (counted.counted, counted.capped) == (len(wanted), False)
    for name, facet in counted.facets.items():
        found = {value.value: value.count for value in facet.values}
        values = (facet_value(event, name) for event in wanted)
        assert found == dict(Counter(value for value in values if value is not None or name == "server_id")), name


@settings(max_examples=EXAMPLES // 2)
@given(questions, sights, st.integers(0, SIZE - 1), st.sampled_from(["s1", "s10", "S1"]))
async def test_bursts_and_what_happened_nearby_hold_what_is_seen(
    stock: Stock, asked: list[tuple[str, str]], sight: Sight, number: int, server_id: str
) -> None:
    asked = without_mapped(asked)
    wanted = seen(stock.events, sight, asked)
    near = at(stock.events[number])
    since, until = near - timedelta(hours=6), near + timedelta(hours=6)
    for log, pools in stock.logs.values():
        chosen = selected(log, asked, sight)
        async with bound(pools.reads, log.log_id, sight) as connection:
            page = await list_bursts(connection, log.log_id, chosen, sort="-occurred_at", after=None, limit=500)
            nearby = await list_nearby(
                connection, log.log_id, replace(chosen, server_id=server_id), since=since, until=until
            )
        bursts = list(fold(act_of(event, sight) for event in ordered(wanted, "-occurred_at")))
        assert [(burst.first.seq, burst.last.seq, burst.count) for _, burst in page.rows] == [
            (burst.first.seq, burst.last.seq, burst.count) for burst in bursts
        ]
        found = {candidate.seq for candidate in nearby.candidates}
        in_time = [event for event in wanted if since <= at(event) < until]
        assert found >= {event["seq"] for event in in_time if event["server_id"] == server_id}
        assert found <= {event["seq"] for event in in_time}


def act_of(event: Event, sight: Sight) -> Act:
    """What bursts are told by."""
    actor, target = event["actor"] or {}, event["target"] or {}
    hidden = (
        sight.staff_as if sight.staff_as is not None and actor.get("type") in sight.staff_types else actor.get("name")
    )
    return Act(
        event["seq"], at(event), event["action"], actor.get("type"), actor.get("id"), hidden, actor.get("email"),
        target.get("type"), target.get("id"),
    )  # fmt: skip


# --- the two walls ---

LIMITED = Sight(server_ids=frozenset({"s1", "it's \\'; --"}), global_events=False)
# The second: of an actor whose id is somebody's of another type.
LIMITS = {"servers": LIMITED, "own actions": Sight(actor_id="u1", actor_type="client")}


async def _rows_of(connection: AsyncConnection, log_id: int, sight: Sight) -> set[int]:
    found: set[int] = set()
    for asked in (
        (),
        (Filter("verb", ("CREATE", "OTHER")),),
        (Filter("q", ("ana",)),),
        (Filter("action", ("never",), negated=True),),
    ):
        for sort in SORTS:
            page = await find.list_entries(connection, log_id, Selection(asked, sight=sight), sort=sort, limit=500)  # type: ignore[arg-type]
            found |= {row.seq for row in page.rows}
    return found


# As many first seqs as were counted: the largest number tells.
async def _counted(connection: AsyncConnection, log_id: int, sight: Sight) -> set[int]:
    return {SIZE + (await find.count_entries(connection, log_id, Selection(sight=sight)))[0]}


async def _facets(connection: AsyncConnection, log_id: int, sight: Sight) -> set[int]:
    counted = await count_facets(connection, log_id, Selection(sight=sight), ["server_id"], 500)
    return {SIZE + counted.counted, SIZE + sum(value.count for value in counted.facets["server_id"].values)}


async def _timeline(connection: AsyncConnection, log_id: int, sight: Sight) -> set[int]:
    return {SIZE + sum((await count_quarters(connection, log_id, Selection(sight=sight))).counts.values())}


async def _single(connection: AsyncConnection, log_id: int, sight: Sight) -> set[int]:
    rows = [await query.find_entry(connection, log_id, f"e{number}", sight) for number in range(SIZE)]
    return {row.seq for row in rows if row is not None}


async def _brought(connection: AsyncConnection, log_id: int, sight: Sight) -> set[int]:
    """By seq: whoever asks has found them elsewhere."""
    del sight
    return {row.seq for row in (await fetch_in_order(connection, log_id, range(SIZE), ("seq",))).rows}


async def _nearby(connection: AsyncConnection, log_id: int, sight: Sight) -> set[int]:
    times = {"since": START - timedelta(days=3), "until": START + timedelta(days=9)}
    return {one.seq for server in ("s1", "s10") for one in
            (await list_nearby(connection, log_id, Selection(server_id=server, sight=sight), **times)).candidates}  # fmt: skip


async def _folded(connection: AsyncConnection, log_id: int, sight: Sight) -> set[int]:
    page = await list_bursts(connection, log_id, Selection(sight=sight), sort="occurred_at", after=None, limit=500)
    return {row.seq for row, _ in page.rows}


READS: dict[str, Callable[[AsyncConnection, int, Sight], Any]] = {
    "lists": _rows_of, "counts": _counted, "facets": _facets, "timeline": _timeline,
    "one by its id": _single, "by seq": _brought, "nearby": _nearby, "bursts": _folded,
}  # fmt: skip


@pytest.fixture
def no_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first wall is down: no statement says what its reader may see."""
    for module in (selection, around, query):
        monkeypatch.setattr(module, "row_conditions", lambda *_, **__: [])
    monkeypatch.setattr(selection, "sight_conditions", lambda _: [])
    monkeypatch.setattr(find, "_sight_clauses", lambda _: [])


def own_of(stock: Stock, name: str, limited: Sight = LIMITED) -> set[int]:
    """What the limited reader may see, as the reads above tell it."""
    mine = {event["seq"] for event in stock.events if admitted(event, limited)}
    return {SIZE + len(mine)} if name in {"counts", "facets", "timeline"} else mine


@pytest.mark.parametrize("limited", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("name", [name for name in READS if name != "by seq"])
async def test_the_conditions_alone_keep_everything_else_out(stock: Stock, name: str, limited: Sight) -> None:
    """The second wall is down: the transaction sees everything."""
    for log, pools in stock.logs.values():
        async with bound(pools.reads, log.log_id, EVERYTHING, one_snapshot=True) as connection:
            assert await READS[name](connection, log.log_id, limited) <= own_of(stock, name, limited)


@pytest.mark.usefixtures("no_conditions")
@pytest.mark.parametrize("limited", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("name", READS)
async def test_the_view_alone_keeps_everything_else_out(stock: Stock, name: str, limited: Sight) -> None:
    """A dropped WHERE."""
    for log, pools in stock.logs.values():
        async with bound(pools.reads, log.log_id, limited, one_snapshot=True) as connection:
            assert await READS[name](connection, log.log_id, limited) <= own_of(stock, name, limited)


@pytest.mark.usefixtures("no_conditions")
@pytest.mark.parametrize("limited", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("name", READS)
async def test_control_without_either_foreign_rows_are_seen(stock: Stock, name: str, limited: Sight) -> None:
    for log, pools in stock.logs.values():
        async with bound(pools.reads, log.log_id, EVERYTHING, one_snapshot=True) as connection:
            assert not await READS[name](connection, log.log_id, limited) <= own_of(stock, name, limited)


async def test_streams_bind_what_their_selection_may_see(stock: Stock, no_conditions: None) -> None:
    """Exports and histories open transactions of their own."""
    del no_conditions
    for log, pools in stock.logs.values():
        chosen = Selection(sight=LIMITED)
        exported = {
            row["seq"]
            async for rows in slices.stream_slices(pools.reads, log.log_id, chosen, to_seq=SIZE)
            for row in rows
        }
        newest = {row.seq async for rows in stream_newest(pools.reads, log.log_id, chosen) for row in rows}
        assert exported | newest <= own_of(stock, "lists")
        assert exported


COUNT = "SELECT count(*) FROM audit."
UNBOUND = {
    "nothing": "",
    "empty": "SET LOCAL audit.sight = ''",
    "unknown": "SET LOCAL audit.sight = 'all'",
    "listed without lists": "SET LOCAL audit.sight = 'listed'",
    "listed with empty lists": "SET LOCAL audit.sight = 'listed'; SET LOCAL audit.servers = ''; SET LOCAL audit.global_events = ''; "
    "SET LOCAL audit.categories = ''; SET LOCAL audit.actors = ''",
    "the types are missing": "SET LOCAL audit.sight = 'listed'; SET LOCAL audit.servers = '*'; SET LOCAL audit.global_events = 'on'; "
    "SET LOCAL audit.categories = '*'; SET LOCAL audit.actors = '*'",
    "one list is missing": "SET LOCAL audit.sight = 'listed'; SET LOCAL audit.servers = '*'; SET LOCAL audit.global_events = 'on'; "
    "SET LOCAL audit.categories = '*'",
}


@pytest.mark.parametrize("said", UNBOUND.values(), ids=UNBOUND)
async def test_without_a_whole_sight_nothing_is_seen(stock: Stock, said: str) -> None:
    """And no error that would tell of a row."""
    log, pools = stock.logs["all"]
    async with bound(pools.reads, log.log_id) as connection:
        for statement in filter(None, said.split("; ")):
            await connection.execute(text(statement))
        assert (await connection.execute(text(f"{COUNT}seen_entry"))).scalar_one() == 0
        assert (await connection.execute(text(f"{COUNT}bound_tally"))).scalar_one() == 0


@given(sights)
@settings(max_examples=EXAMPLES)
async def test_the_view_admits_what_the_sight_admits(stock: Stock, sight: Sight) -> None:
    log, pools = stock.logs["no index"]
    wanted = {
        event["seq"]
        for event in stock.events
        if sight.admits(
            action=event["action"],
            server_id=event["server_id"],
            category=event["category"],
            actor_id=(event["actor"] or {}).get("id"),
            actor_type=(event["actor"] or {}).get("type"),
        )
    }
    async with bound(pools.reads, log.log_id, sight) as connection:
        assert set((await connection.execute(text("SELECT seq FROM audit.seen_entry"))).scalars()) == wanted
        in_index = (
            await connection.execute(text(f"{COUNT}bound_tally WHERE events < 0 OR field = 'no such'"))
        ).scalar_one()
    assert in_index == 0
    assert wanted == {event["seq"] for event in stock.events if admitted(event, sight)}


HOSTILE = [
    "it's",
    "a\\",
    "\\'; SET LOCAL audit.sight = 'every'; --",
    '{"s1"}',
    "*",
    "",
    "é\u202e",
    "a,b",
    "NULL",
    '"',
    "\x00",
    "\ud800",
    "x" * 5000,
]


@given(st.frozensets(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=9)), min_size=1, max_size=4))
@settings(max_examples=EXAMPLES)
async def test_what_a_server_is_called_is_never_a_statement(stock: Stock, names: frozenset[str]) -> None:
    """It comes back as it went, or, where no column could hold it, not at all."""
    log, pools = stock.logs["no index"]
    sight = Sight(server_ids=names, global_events=False, actor_id=min(names))
    bindings = "SELECT current_setting('audit.sight'), current_setting('audit.servers')::text[], current_setting('audit.actors')::text[]"
    async with bound(pools.reads, log.log_id, sight) as connection:
        how, servers, actors = (await connection.execute(text(bindings))).one()
        assert (await connection.execute(text(f"{COUNT}seen_entry"))).scalar_one() == 0
    storable = {
        name
        for name in names
        if "\0" not in name and name.isprintable() | (not any("\ud800" <= c <= "\udfff" for c in name))
    }
    assert how == "listed"
    assert set(servers) == storable
    assert set(actors) == {min(names)} & storable


# --- what is hidden ---


@given(st.text(st.sampled_from("a@ \u00a0\u2003\n\té"), max_size=6))
async def test_an_address_is_one_in_sql_as_well(stock: Stock, value: str) -> None:
    log, pools = stock.logs["no index"]
    async with bound(pools.reads, log.log_id) as connection:
        assert (await connection.execute(select(holds_address(literal(value))))).scalar_one() is mask.holds_address(
            value
        )


async def test_a_word_of_hidden_text_costs_no_more_than_its_limit(
    stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search of which nearly everything would have to be compared here is refused, and says nothing of what it met."""
    monkeypatch.setattr(find, "veil_of", lambda asked: Veil(asked.filters, asked.sight, 3))
    log, pools = stock.logs["all"]
    chosen = Selection((Filter("q", ("example.com",)),), sight=replace(EVERYTHING, emails=False))
    async with bound(pools.reads, log.log_id, chosen.sight) as connection:
        with pytest.raises(InvalidQueryError) as raised:
            await find.list_entries(connection, log.log_id, chosen, limit=500)
    assert [fault.parameter for fault in raised.value.faults] == ["q"]
    assert "example" not in str(raised.value.detail)


# --- rules that keep it so ---

STORE = Path(audit_service.store.__file__).parent
# Where entries are read past a sight, and why.
UNSEEN = {
    # for the service itself
    "batches", "checkpoints", "forgetting", "pruning", "retention", "segments", "sources", "signing", "tiles", "verification",
    "proving",  # the header that a proof is of, where the entry was found within a sight
    "query",  # slices of the log as it stands, for verifying and proving; what a person asks for by id is seen_entry's
    "slices",  # evidence, which has every entry
    "append",  # whether a known entry is one that a key may have posted
    "find",  # where a walk ends, which is shown to nobody
    "history",  # whether retention or an erasure took anything since, which is no content
    "tables",
}  # fmt: skip
# Statements that are put together as text: numbers of ours and quoted constants (`literals.quoted`), never a value as it came.
AS_TEXT = {
    ("engine", "bound"),
    ("engine", "bind"),
    ("limits", "binding"),
    ("retention", "add_request"),
    ("slices", "session_of"),
}


def test_only_those_named_here_read_past_a_sight() -> None:
    found = {path.stem for path in STORE.glob("*.py") if re.search(r"\bbound_entry\b", path.read_text("utf-8"))}
    assert found <= UNSEEN


def test_no_statement_is_built_from_values() -> None:
    """Every f-string with SQL in it is named here; all other values are parameters."""
    found = set()
    for path in STORE.glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    said = ast.unparse(node) if isinstance(node, ast.JoinedStr) else ""
                    if re.search(r"\b(SELECT|SET|INSERT|UPDATE|DELETE|BEGIN|FROM)\b", said):
                        found.add((path.stem, function.name))
    assert found == AS_TEXT


async def test_the_index_counts_own_entries_apart(stock: Stock) -> None:
    """Who sees all has both, and who sees panels' events those without."""
    log, pools = stock.logs["all"]
    await index_all(pools)
    for sight in (EVERYTHING, Sight()):
        async with bound(pools.reads, log.log_id, sight, one_snapshot=True) as connection:
            await check_facets(connection, log.log_id, Selection(sight=sight), seen(stock.events, sight, []))


async def test_whose_a_forgotten_event_was_is_forgotten_too(server: Server) -> None:
    """Told as forgotten to who sees every entry, and to nobody else, though it was of their own server; by each wall alone."""
    database = await server.create()
    log, pools = await existing_log(database, await default_log_id(database)), database.open()
    await log.accept(pools, *({"id": f"e{number}", "action": "x.made", "server_id": "s1"} for number in range(3)))
    async with owner(database) as admin:
        await Forgetter(admin, log.log_id, f"{SERVICE_NAME}/t/{log.log.log_key}/1").drop((0, 1))
    limited = Sight(server_ids=frozenset({"s1"}))
    cases = [
        (EVERYTHING, EVERYTHING, True),
        (Sight(), Sight(), True),
        (limited, limited, False),
        (EVERYTHING, limited, False),
    ]
    for of_transaction, of_statement, told in [*cases, (limited, EVERYTHING, False)]:
        async with bound(pools.reads, log.log_id, of_transaction) as connection:
            assert await query.find_entry(connection, log.log_id, "e0", of_statement) is None
            assert await query.is_forgotten(connection, log.log_id, "e0", of_statement) is told
            assert await query.find_entry(connection, log.log_id, "e1", of_statement) is not None
    await pools.dispose()
    await server.drop(database)
