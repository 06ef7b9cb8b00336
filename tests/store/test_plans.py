"""What a search costs: no statement of it reads the table through, or sorts more than a segment, however rare what is asked for is.

A log of 69,000 entries in segments of 4,096, analysed. Statements are taken from the driver as the search sends them, as the serving
role, inside `bound`; what they read is counted by PostgreSQL itself, also when it plans without looking at the values.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit_service.core import terms
from audit_service.core.sight import EVERYTHING, Sight
from audit_service.core.terms import Term
from audit_service.indexer import index_all
from audit_service.store import find, segments, selection, slices
from audit_service.store.engine import Database, bound, driver
from audit_service.store.selection import Filter, FilterValue, Selection, Sort, is_direct
from tests.support.appends import claim_size, owner
from tests.support.postgres import Server, TestDatabase, default_log_id

ENTRIES, SEGMENT, WALK, PAGE = 69_000, 4096, 500, 50
# A walk is looked for and then gone through, each among entries of which two of five have what an index was asked for; then comes the
# tail, and the rows that were found are brought.
READ_LIMIT = 5 * WALK + SEGMENT + 2 * (PAGE + 1)
START = datetime(2026, 1, 1, tzinfo=UTC)
SORTS: tuple[Sort, ...] = ("-occurred_at", "occurred_at", "-seq", "seq")

# Two of five entries have `common`, one in 20,000 has `rare`, the others one of many values. Late arrivals: every seventh came a day late.
# Nothing here is a chain, and nobody verifies it: rows made by the database in seconds, for the planner to look at.
_FILL = """
    INSERT INTO audit.entry (log_id, seq, recorded_at, occurred_at, epoch, kind, prev_hash, body_hash, hash, body, d_changes, id, action,
        verb, category, outcome, actor_type, actor_id, actor_role, actor_keys, target_type, target_id, server_id, ip, session, request_id,
        paths, search)
    SELECT $1, n, t, t - CASE WHEN n % 7 = 0 THEN interval '1 day' ELSE interval '0' END, 1, 'event', h, h, h,
        '{"v":1,"id":"e' || n || '","action":"x","verb":"UPDATE","category":"x","occurred_at":"2026-01-01T00:00:00.000000Z"}',
        substr(h || h, 1, 32) || convert_to('[{"path":"/' || v || '","op":"replace","old":"' || v || '-old","new":"' || v || '"}]', 'UTF8'),
        'e' || n, v, v, v, v, v, v, v, ARRAY[v, 'u' || n % 900], v, v, v, a, v, v, ARRAY['/' || v, '/updated'],
        'e' || n || chr(10) || v || chr(10) || v || '-old' || chr(10) || 'operator ' || n % 900
    FROM generate_series(0, $2::bigint - 1) AS n,
        LATERAL (SELECT $3::timestamptz + n * interval '7 seconds' AS t, sha256(int8send(n)) AS h,
            CASE WHEN n % 5 < 2 THEN 'common' WHEN n % 20000 = 1234 THEN 'rare' ELSE 'value-' || n % 300 END AS v,
            CASE WHEN n % 5 < 2 THEN inet '203.0.113.9' WHEN n % 20000 = 1234 THEN inet '198.51.100.1'
                ELSE inet '10.0.0.0' + n % 300 END AS a) AS x
"""
_RECEIPTS = """
    INSERT INTO audit.receipt (log_id, seq, recorded_at, epoch, kept, id, prev_hash, hash, ruleset)
    SELECT log_id, seq, recorded_at, epoch, true, id, prev_hash, hash, '' FROM audit.entry
"""


@dataclass(frozen=True, slots=True)
class Filled:
    """The database of this module, and its log."""

    database: TestDatabase
    pools: Database
    log_id: int


@pytest.fixture(scope="module")
async def filled(server: Server) -> AsyncIterator[Filled]:
    """The log, indexed but for its tail, and analysed."""
    database = await server.create()
    pools = database.open()
    log_id = await default_log_id(database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terms, "SEGMENT_EVENTS", SEGMENT)
        patch.setattr(find, "WALK_ENTRIES", WALK)
        async with owner(database) as connection:
            await connection.execute(_FILL, log_id, ENTRIES, START)
            await claim_size(connection, log_id, ENTRIES)
            await connection.execute(_RECEIPTS)
            assert await index_all(pools) == ENTRIES // SEGMENT
            await connection.execute(
                "VACUUM (ANALYZE) audit.entry, audit.receipt, audit.segment, audit.posting, audit.tally, audit.log"
            )
        yield Filled(database, pools, log_id)
    await pools.dispose()
    await server.drop(database)


def asked(field: str, how: str) -> tuple[FilterValue, ...]:
    """A value of a filter that two of five entries have, or three entries, or none."""
    if field == "ip":
        return (ip_network({"common": "203.0.113.9", "rare": "198.51.100.0/24", "never": "192.0.2.1"}[how]),)
    before, after = {"changed": ("/", ""), "old": ("", "-old"), "q": ('"', '"')}.get(field, ("", ""))
    return (f"{before}{how}{after}",)


FIELDS = (
    "actor", "actor_type", "role", "action", "verb", "category", "target_type", "target_id", "server_id", "ip", "outcome", "session",
    "request_id", "changed", "old", "new", "q",
)  # fmt: skip
HOW = ("common", "rare", "never")
SINGLE = {f"{field}={how}": (Filter(field, asked(field, how)),) for field in FIELDS for how in HOW}
PREFIXES = {
    f"{field}={how}*": (Filter(field, (f"{asked(field, how)[0]}*",)),)
    for field in ("action", "actor", "changed")
    for how in HOW
}
PAIRS = {
    f"{one}={how} {other}={another}": (Filter(one, asked(one, how)), Filter(other, asked(other, another)))
    for one, other in (("server_id", "actor"), ("action", "actor"), ("target_type", "target_id"), ("server_id", "q"), ("changed", "new"),
                       ("category", "outcome"))
    for how, another in (("common", "common"), ("common", "rare"), ("rare", "never"), ("never", "common"))
}  # fmt: skip
# Each common, never together: candidates are few or none, and a walk would go through everything.
APART = {"q of words that never meet": (Filter("q", ("common value-17",)),)}
IDS = {
    "id=one": (Filter("id", ("e7",)),),
    "id=several": (Filter("id", ("e7", "e60000", "nothing")),),
    "id=several q=never": (Filter("id", ("e7", "e60000")), Filter("q", ("never",))),
    "id=several outcome=common": (Filter("id", ("e7", "e60000")), Filter("outcome", ("common",))),
}
SELECTIONS: dict[str, tuple[Filter, ...]] = {**SINGLE, **PREFIXES, **PAIRS, **APART, **IDS, "nothing": ()}


@contextmanager
def statements(connection: AsyncConnection, patch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """What is sent on the connection: through SQLAlchemy, and past it."""
    found: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        found.append((statement, parameters))

    class Kept:
        async def fetch(self, statement: str, *arguments: Any) -> Any:
            found.append((statement, arguments))
            return await driver(connection).fetch(statement, *arguments)

    event.listen(connection.sync_connection, "before_cursor_execute", keep)
    with patch.context() as inner:
        inner.setattr(segments, "driver", lambda _: Kept())
        yield found
    event.remove(connection.sync_connection, "before_cursor_execute", keep)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All of a plan."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def explained(connection: AsyncConnection, statement: str, parameters: Any) -> list[dict[str, Any]]:
    """The nodes of a plan with what each really brought."""
    rows = await driver(connection).fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *parameters)
    (plan,) = rows[0][0]
    return list(nodes(plan["Plan"]))


async def fetched(connection: AsyncConnection, table: str = "entry") -> int:
    """Rows of a table that this transaction has looked at so far: in an index, and by reading it through."""
    count = """SELECT sum(pg_stat_get_xact_tuples_returned(c.oid)) FROM pg_class AS c
        LEFT JOIN pg_index AS i ON i.indexrelid = c.oid WHERE to_regclass(:name) IN (c.oid, i.indrelid)"""
    return int((await connection.execute(text(count), {"name": f"audit.{table}"})).scalar_one())


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("name", SELECTIONS)
async def test_a_page_is_found_by_reading_little(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, name: str, sort: Sort
) -> None:
    async with bound(filled.pools.reads, filled.log_id, EVERYTHING) as connection:
        with statements(connection, monkeypatch) as sent:
            before = await fetched(connection)
            await find.list_entries(
                connection, filled.log_id, Selection(SELECTIONS[name], sight=EVERYTHING), sort=sort, limit=PAGE
            )
            assert await fetched(connection) - before <= READ_LIMIT
        asked = [one for one in sent if "pg_stat" not in one[0]]
        assert asked
        for statement, parameters in asked:
            for node in await explained(connection, statement, parameters):
                assert not (node["Node Type"] == "Seq Scan" and node.get("Relation Name") in TABLES), statement
                assert "Sort" not in node["Node Type"] or rows_of(node) <= SEGMENT, statement


# Readers of less than everything. The fill names a server in `value-N` for each of 300, `common`, `rare`, and none global.
LIMITED = {
    "an ordinary reader": Sight(),
    "one server": Sight(server_ids=frozenset({"value-17"})),
    "a rare server": Sight(server_ids=frozenset({"rare"}), global_events=False),
    "a server of another's": Sight(server_ids=frozenset({"never"})),
    "three servers": Sight(server_ids=frozenset({"value-17", "value-18", "rare"})),
    "200 servers": Sight(server_ids=frozenset(f"value-{number}" for number in range(200))),
    "a category and an actor": Sight(categories=frozenset({"rare", "value-3"}), actor_id="rare"),
}
OF_LIMITED = (
    "nothing",
    "server_id=common",
    "actor=rare",
    "q=never",
    "q of words that never meet",
    "id=several",
    "target_type=common target_id=common",
)


@pytest.mark.parametrize("sort", ["-occurred_at", "seq"])
@pytest.mark.parametrize("name", OF_LIMITED)
@pytest.mark.parametrize("sight", LIMITED.values(), ids=LIMITED)
async def test_a_page_of_a_limited_reader_is_found_by_reading_little(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, sight: Sight, name: str, sort: Sort
) -> None:
    """As much as everybody reads; and for what their sight leaves of a filter at most a segment and the tail."""
    chosen = Selection(SELECTIONS[name], sight=sight)
    async with bound(filled.pools.reads, filled.log_id, sight) as connection:
        with statements(connection, monkeypatch) as sent:
            before = await fetched(connection)
            await find.list_entries(connection, filled.log_id, chosen, sort=sort, limit=PAGE)
            assert await fetched(connection) - before <= READ_LIMIT
        for statement, parameters in [one for one in sent if "pg_stat" not in one[0]]:
            for node in await explained(connection, statement, parameters):
                assert not (node["Node Type"] == "Seq Scan" and node.get("Relation Name") in TABLES), statement
                assert "Sort" not in node["Node Type"] or rows_of(node) <= SEGMENT, statement


async def test_control_without_clauses_a_rare_actor_of_a_category_reads_the_whole_log(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "_sight_clauses", lambda _: [])
    sight = LIMITED["a category and an actor"]
    async with bound(filled.pools.reads, filled.log_id, sight) as connection:
        before = await fetched(connection)
        await find.list_entries(connection, filled.log_id, Selection(sight=sight), sort="-occurred_at", limit=PAGE)
        assert await fetched(connection) - before >= 0.9 * ENTRIES


TABLES = ("entry", "posting")


def rows_of(node: dict[str, Any]) -> float:
    """What a node has brought."""
    return float(node["Actual Rows"] * node["Actual Loops"])


@pytest.mark.parametrize("name", ["server_id=common", "target_type=common target_id=common", "server_id=common q=rare"])
async def test_a_page_asked_for_often_is_found_by_reading_little_every_time(filled: Filled, name: str) -> None:
    """A statement that a connection has seen five times PostgreSQL may plan once for all values."""
    for sort in SORTS:
        assert max(await often(filled, name, sort)) <= READ_LIMIT


async def test_control_a_plan_for_any_value_reads_all_of_a_busy_server(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the order of seq left to an index."""
    monkeypatch.setattr(find, "_is_direct", lambda selection, _: is_direct(selection))
    assert min(await often(filled, "server_id=common", "seq", "force_generic_plan")) >= 0.4 * ENTRIES


async def often(filled: Filled, name: str, sort: Sort, mode: str | None = None) -> list[int]:
    """Rows that each of seven searches on one connection reads."""
    found = []
    async with bound(filled.pools.reads, filled.log_id, EVERYTHING) as connection:
        if mode is not None:
            await connection.execute(text(f"SET LOCAL plan_cache_mode = {mode}"))
        for _ in range(7):
            before = await fetched(connection)
            await find.list_entries(
                connection, filled.log_id, Selection(SELECTIONS[name], sight=EVERYTHING), sort=sort, limit=PAGE
            )
            found.append(await fetched(connection) - before)
    return found


@pytest.mark.parametrize("name", [name for name in SELECTIONS if "common" not in name])
async def test_a_count_reads_little_where_there_is_little(filled: Filled, name: str) -> None:
    """Of what is common as many rows are read as are counted."""
    async with bound(filled.pools.reads, filled.log_id, EVERYTHING) as connection:
        before = await fetched(connection)
        await find.count_entries(connection, filled.log_id, Selection(SELECTIONS[name], sight=EVERYTHING))
        assert await fetched(connection) - before <= (COUNT_CAP if name == "nothing" else SEGMENT + PAGE)


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("name", IDS)
async def test_an_id_is_found_without_a_look_at_the_rest_of_the_log(filled: Filled, name: str, sort: Sort) -> None:
    async with bound(filled.pools.reads, filled.log_id, EVERYTHING) as connection:
        before = await fetched(connection)
        await find.list_entries(
            connection, filled.log_id, Selection(SELECTIONS[name], sight=EVERYTHING), sort=sort, limit=PAGE
        )
        await find.count_entries(connection, filled.log_id, Selection(SELECTIONS[name], sight=EVERYTHING))
        assert await fetched(connection) - before <= PAGE


COUNT_CAP = 10_001

# Grams that no entry has. A search may be a pasted page.
MANY_GRAMS = [
    Term.of("gram", f"{number:03}".translate(str.maketrans("0123456789", "ghijkmnwyz"))) for number in range(300)
]


async def test_a_search_of_many_words_looks_for_each_and_reads_no_other_terms(filled: Filled) -> None:
    """A join of all terms of the log with all words would take terms times words."""
    async with bound(filled.pools.reads, filled.log_id, EVERYTHING) as connection:
        before = await fetched(connection, "posting")
        assert await segments.fetch_postings(connection, filled.log_id, range(ENTRIES // SEGMENT), MANY_GRAMS) == {}
        assert await fetched(connection, "posting") == before


# What lies at one end of the log: PostgreSQL takes it for spread evenly, and would look for it from the other end.
_END = START + timedelta(seconds=7 * ENTRIES)
LATE = _END - timedelta(seconds=7 * ENTRIES // 20)
TIMES = {
    "the last twentieth": Selection(since=LATE, sight=EVERYTHING),
    "the last twentieth, by recording": Selection(recorded_since=LATE, sight=EVERYTHING),
    "the last half": Selection(since=START + (_END - START) / 2, sight=EVERYTHING),
    "the first twentieth": Selection(until=START + (_END - LATE), sight=EVERYTHING),
    "the last twentieth of a server": Selection((Filter("server_id", ("common",)),), since=LATE, sight=EVERYTHING),
    "the last twentieth, but not an actor": Selection(
        (Filter("actor", ("rare",), negated=True),), since=LATE, sight=EVERYTHING
    ),
    "nobody, without the help of the index": Selection((Filter("actor", ("*",), negated=True),), sight=EVERYTHING),
    "several ids": Selection(IDS["id=several"], sight=EVERYTHING),
    "several ids, but not an actor": Selection(
        (*IDS["id=several"], Filter("actor", ("rare",), negated=True)), sight=EVERYTHING
    ),
    "nothing yet": Selection(since=_END + timedelta(days=1), sight=EVERYTHING),
}


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("name", [name for name in TIMES if "recording" not in name and "nobody" not in name])
async def test_a_page_of_one_end_of_the_log_is_found_from_either(filled: Filled, name: str, sort: Sort) -> None:
    assert await read_for_a_page(filled, name, sort) <= READ_LIMIT


async def test_control_in_the_order_of_seq_an_index_reads_to_the_other_end(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "_is_direct", lambda selection, _: is_direct(selection))
    assert await read_for_a_page(filled, "the last twentieth", "seq") >= 0.9 * ENTRIES


# Pages that scans of the index by time may read for a page of a list: those of a walk. The index has over 300.
PAGES_LIMIT = 100
NEVER = ["session=never", "request_id=never", "ip=never", "role=never"]


@pytest.mark.parametrize("name", NEVER)
async def test_a_walk_ends_where_it_should_and_not_at_the_far_end_of_the_index(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert await index_pages_of(filled, monkeypatch, name) <= PAGES_LIMIT


async def test_control_a_comparison_of_rows_beside_another_bound_reads_the_whole_index(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "and_", lambda *conditions: conditions[-1])
    assert await index_pages_of(filled, monkeypatch, "session=never") > 2 * PAGES_LIMIT


async def index_pages_of(filled: Filled, patch: pytest.MonkeyPatch, name: str) -> int:
    """Pages that the scans of the index by time read for one page of a list, the newest first, in the index and of the table."""
    pages = 0
    async with bound(filled.pools.reads, filled.log_id, EVERYTHING) as connection:
        with statements(connection, patch) as sent:
            await find.list_entries(
                connection,
                filled.log_id,
                Selection(SELECTIONS[name], sight=EVERYTHING),
                sort="-occurred_at",
                limit=PAGE,
            )
        for statement, parameters in sent:
            for node in await explained(connection, statement, parameters):
                if node.get("Index Name") == "entry_time":
                    pages += node["Shared Hit Blocks"] + node["Shared Read Blocks"]
    return pages


async def read_for_a_page(filled: Filled, name: str, sort: Sort) -> int:
    """Rows that a page of one of TIMES reads."""
    async with bound(filled.pools.reads, filled.log_id, EVERYTHING) as connection:
        before = await fetched(connection)
        await find.list_entries(connection, filled.log_id, TIMES[name], sort=sort, limit=PAGE)
        return await fetched(connection) - before


@pytest.mark.parametrize("name", TIMES)
async def test_an_export_never_reads_much_in_one_transaction(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Each slice holds a snapshot, and has to come in the time that a statement may take, however large the log is."""
    assert await read_for_a_slice(filled, monkeypatch, name) <= SEGMENT + slices.SLICE_ENTRIES


async def test_control_an_export_that_is_given_the_whole_log_reads_it_in_one_transaction(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def everywhere(*_: object, from_seq: int, to_seq: int) -> AsyncIterator[range]:
        yield range(from_seq, to_seq)

    monkeypatch.setattr(slices, "candidates", everywhere)
    assert await read_for_a_slice(filled, monkeypatch, "the last half") >= 0.4 * ENTRIES  # by either index


async def read_for_a_slice(filled: Filled, patch: pytest.MonkeyPatch, name: str) -> int:
    """The most rows that a slice of an export of one of TIMES reads."""
    counts = []

    @asynccontextmanager
    async def measured(engine: AsyncEngine, log_id: int, sight: Sight) -> AsyncIterator[AsyncConnection]:
        async with bound(engine, log_id, sight) as connection:
            before = await fetched(connection)
            yield connection
            counts.append(await fetched(connection) - before)

    patch.setattr(slices, "bound", measured)
    async for _ in slices.stream_slices(filled.pools.reads, filled.log_id, TIMES[name], to_seq=ENTRIES):
        pass
    return max(counts, default=0)
