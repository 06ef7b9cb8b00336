"""What does each way of keeping tenants apart inside PostgreSQL cost a reader? The figures behind decision 0002.

    python -m benchmarks.walls [--rows 200000] [--runs 15]

One table with the columns people filter by, two tenants mixed row by row, an index that fits each filter. The same first page is asked for
through each wall, every statement naming its log as well, and every wall must answer with the same rows. Expected:

- the plain bound view costs nothing that can be seen: its condition is one more thing the planner may use;
- row-level security and a security_barrier view lose every index whose operator is not marked leakproof, because no such operator may
  run before the wall has been checked; what is left is to walk the log by time, or all of it;
- a set-returning function in SQL is a fence: it hands over the whole log before anything is filtered;
- a PL/pgSQL function with EXECUTE is as fast as no wall, at the price of moving the query builder into the database.

One connection for each wall, the walls in turn within each run, so that noise falls on all alike. Times are those of the client: execute
and fetch 51 rows, planning included. Not measured: more than two tenants, a cold cache, several clients at once.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from audit_service.embedded import EmbeddedPostgres

LOG_ID, OTHER_LOG_ID, NO_LOG_ID = 4_242_424_242, 1_717_171_717, 7
PAGE = 51
BOUND = "log_id = NULLIF(current_setting('walls.log_id', true), '')::bigint"
BIND = "SELECT set_config('walls.log_id', $1, true)"


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter as the service could phrase it; `$2` is `value`, always sent as text."""

    name: str
    condition: str
    value: str


@dataclass(frozen=True, slots=True)
class Wall:
    """A way to read the table: acting as `role`, FROM `source`; a `whole` one does the filtering itself."""

    name: str
    role: str
    source: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """One cell: the median in milliseconds and the scans of the plan."""

    milliseconds: float
    plan: str


FILTERS = (
    Filter("no filter", "$2 = ''", ""),
    Filter("server_id =", "server_id = $2", "s42"),
    Filter("action LIKE 'x%'", "action LIKE $2", "licence.rev%"),
    Filter("action >= x AND < y", "action >= $2 AND action < $2 || 'z'", "licence.rev"),
    Filter("search LIKE '%x%'", "search LIKE $2", "%host-00042%"),
    Filter("ip <<=", "ip <<= CAST($2 AS inet)", "203.0.113.0/24"),
    Filter(
        "ip BETWEEN (plain range)",
        "ip >= CAST($2 AS inet) AND ip <= set_masklen(broadcast(CAST($2 AS inet)), 32)",
        "203.0.113.0/24",
    ),
    Filter("actor_keys @>", "actor_keys @> string_to_array($2, ',')", "u4242"),
    Filter("actor_keys &&", "actor_keys && string_to_array($2, ',')", "u4242,u4243"),
    Filter("lower(actor_name) =", "lower(actor_name) = $2", "user 4242"),
    Filter("actor_folded = (plain column)", "actor_folded = $2", "user 4242"),
)

WALLS = (
    Wall("none", "walls_owner", "walls.entry"),
    Wall("row-level security", "walls_reader", "walls.entry"),
    Wall("security_barrier view", "walls_reader", "walls.barrier_entry"),
    Wall("bound view", "walls_reader", "walls.bound_entry"),
    Wall("definer, SQL, returns the log", "walls_reader", "walls.entries_of($1)"),
    Wall("definer, PL/pgSQL, EXECUTE", "walls_reader", "walls.first_page($1, {name}, $2)", whole=True),
)

OPERATORS = (
    ("text = text", "texteq(text,text)"),
    ("text < text", "text_lt(text,text)"),
    ("text LIKE text", "textlike(text,text)"),
    ("inet <<= inet", "network_subeq(inet,inet)"),
    ("inet <= inet", "network_le(inet,inet)"),
    ("array @> array", "arraycontains(anyarray,anyarray)"),
    ("array && array", "arrayoverlap(anyarray,anyarray)"),
    ("lower(text)", "lower(text)"),
    ("bigint = bigint", "int8eq(bigint,bigint)"),
)

TABLE = """
CREATE EXTENSION pg_trgm;
CREATE ROLE walls_owner;
CREATE ROLE walls_reader;
CREATE SCHEMA walls AUTHORIZATION walls_owner;
SET ROLE walls_owner;
CREATE TABLE walls.entry (
    log_id bigint NOT NULL, seq bigint NOT NULL, occurred_at timestamptz, action text COLLATE "C", server_id text COLLATE "C",
    actor_name text COLLATE "C", actor_folded text COLLATE "C", actor_keys text[] COLLATE "C", ip inet, search text COLLATE "C", body text,
    PRIMARY KEY (log_id, seq)
);
"""

# About 900 bytes a row, as a typical entry has; what the filters ask for matches 10 to 200 rows of a log.
ROWS = """
INSERT INTO walls.entry
SELECT CASE WHEN g % 2 = 0 THEN {log_id} ELSE {other} END, g / 2,
       'epoch'::timestamptz + (1750000000 + g * 20 + (random() * 600)::int) * interval '1 second',
       CASE WHEN random() < 0.0005 THEN 'licence.revoked'
            ELSE (ARRAY['server', 'backup', 'user', 'schedule'])[1 + (random() * 3)::int] || '.' ||
                 (ARRAY['created', 'updated', 'deleted'])[1 + (random() * 2)::int] END,
       's' || (random() * 500)::int, 'User ' || u, 'user ' || u, ARRAY['u' || u, 'user ' || u, 'user' || u || '@example.com'],
       CASE WHEN random() < 0.0005 THEN '203.0.113.0'::inet ELSE '10.0.0.0'::inet END + (random() * 255)::int,
       'user ' || u || ' host-' || lpad((random() * 5000)::int::text, 5, '0') || ' nightly retention ' || md5(g::text),
       repeat(md5(g::text), 20)
FROM (SELECT g, (random() * 5000)::int AS u FROM generate_series(0, {rows} - 1) AS g) AS s;
"""

INDEXES = """
CREATE INDEX entry_time ON walls.entry (log_id, occurred_at, seq);
CREATE INDEX entry_server ON walls.entry (log_id, server_id, occurred_at, seq);
CREATE INDEX entry_action ON walls.entry (log_id, action, occurred_at, seq);
CREATE INDEX entry_lower ON walls.entry (log_id, lower(actor_name), occurred_at, seq);
CREATE INDEX entry_folded ON walls.entry (log_id, actor_folded, occurred_at, seq);
CREATE INDEX entry_ip ON walls.entry USING gist (ip inet_ops);
CREATE INDEX entry_ip_range ON walls.entry (log_id, ip, occurred_at, seq);
CREATE INDEX entry_keys ON walls.entry USING gin (actor_keys);
CREATE INDEX entry_search ON walls.entry USING gin (search public.gin_trgm_ops);
"""

# The owner is not subject to the policy, so the view and the functions, which read as the owner, are measured without it.
DOORS = """
ALTER TABLE walls.entry ENABLE ROW LEVEL SECURITY;
CREATE POLICY one_log ON walls.entry FOR SELECT TO walls_reader USING ({bound});
CREATE VIEW walls.barrier_entry WITH (security_barrier) AS SELECT * FROM walls.entry WHERE {bound};
CREATE VIEW walls.bound_entry AS SELECT * FROM walls.entry WHERE {bound};
CREATE FUNCTION walls.entries_of(p_log_id bigint) RETURNS SETOF walls.entry
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT * FROM walls.entry WHERE log_id = p_log_id $$;
CREATE FUNCTION walls.first_page(p_log_id bigint, p_filter text, p_value text) RETURNS SETOF walls.entry
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- The text comes from this list, never from the caller: otherwise the caller would be the owner.
    v_condition text := CASE p_filter {cases} END;
BEGIN
    RETURN QUERY EXECUTE
        'SELECT * FROM walls.entry WHERE log_id = $1 AND occurred_at IS NOT NULL AND ' || v_condition ||
        ' ORDER BY occurred_at DESC, seq DESC LIMIT {page}' USING p_log_id, p_value;
END $$;
GRANT USAGE ON SCHEMA walls TO walls_reader;
GRANT SELECT ON walls.entry, walls.barrier_entry, walls.bound_entry TO walls_reader;
RESET ROLE;
VACUUM ANALYZE walls.entry;
"""


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def statement(wall: Wall, filter_: Filter) -> str:
    """The first page through a wall."""
    if wall.whole:
        return f"SELECT * FROM {wall.source.format(name=_literal(filter_.name))}"
    return (
        f"SELECT * FROM {wall.source} WHERE log_id = $1 AND occurred_at IS NOT NULL AND {filter_.condition} "
        f"ORDER BY occurred_at DESC, seq DESC LIMIT {PAGE}"
    )


async def build(connection: asyncpg.Connection, rows: int) -> None:
    """The table, its rows and indexes, and each wall."""
    cases = " ".join(f"WHEN {_literal(one.name)} THEN {_literal(one.condition)}" for one in FILTERS)
    await connection.execute(TABLE)
    await connection.execute("SELECT setseed(0.5)")
    await connection.execute(ROWS.format(log_id=LOG_ID, other=OTHER_LOG_ID, rows=rows))
    await connection.execute(INDEXES)
    for command in _commands(DOORS.format(bound=BOUND, cases=cases, page=PAGE)):
        await connection.execute(command)


def _commands(script: str) -> Iterator[str]:
    """The script whole, then its VACUUM: that one refuses to run among others."""
    head, vacuum, tail = script.partition("VACUUM")
    yield head
    yield vacuum + tail


def scans(plan: dict[str, Any]) -> Iterator[str]:
    """How a plan (the JSON of EXPLAIN) reaches the rows: scans with their index, filters over them, sorts."""
    kind = plan["Node Type"]
    if "Scan" in kind and kind != "Bitmap Heap Scan":
        yield f"{kind} {plan.get('Index Name', '')}".strip() + (" + filter" if "Filter" in plan else "")
    if kind in {"Sort", "Incremental Sort", "BitmapAnd"}:
        yield kind
    for below in plan.get("Plans", ()):
        yield from scans(below)


async def explain(connection: asyncpg.Connection, sql: str, value: str) -> str:
    """The scans of the statement's plan."""
    found = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", LOG_ID, value)
    return " < ".join(scans(json.loads(found)[0]["Plan"]))


async def timed(connection: asyncpg.Connection, sql: str, value: str) -> tuple[float, list[Any]]:
    """Milliseconds of one execution, and which entries came."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(BIND, str(LOG_ID))
        began = time.perf_counter()
        rows = await connection.fetch(sql, LOG_ID, value)
        milliseconds = (time.perf_counter() - began) * 1000
    finally:
        await transaction.rollback()
    return milliseconds, [(row["log_id"], row["seq"]) for row in rows]


async def measure(connections: dict[str, asyncpg.Connection], filter_: Filter, runs: int) -> dict[str, Measured]:
    """One filter through every wall, in turn; two runs to warm up. The answers must agree."""
    times: dict[str, list[float]] = {wall.name: [] for wall in WALLS}
    answers: dict[str, list[Any]] = {}
    for _ in range(runs + 2):
        for wall in WALLS:
            found, answers[wall.name] = await timed(connections[wall.name], statement(wall, filter_), filter_.value)
            times[wall.name].append(found)
    expected = answers["none"]
    assert expected, filter_.name
    assert all(log_id == LOG_ID for log_id, _ in expected)
    assert all(answer == expected for answer in answers.values()), filter_.name
    plans = {wall.name: await _plan(connections[wall.name], wall, filter_) for wall in WALLS}
    return {name: Measured(statistics.median(times[name][2:]), plans[name]) for name in plans}


async def _plan(connection: asyncpg.Connection, wall: Wall, filter_: Filter) -> str:
    async with connection.transaction():
        await connection.execute(BIND, str(LOG_ID))
        return await explain(connection, statement(wall, filter_), filter_.value)


async def binding_milliseconds(connection: asyncpg.Connection, runs: int) -> float:
    """What the binding itself adds to a transaction: one round trip."""
    times = []
    for _ in range(runs + 2):
        async with connection.transaction():
            began = time.perf_counter()
            await connection.execute(BIND, str(LOG_ID))
            times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times[2:])


async def another_logs_rows(connection: asyncpg.Connection, wall: Wall) -> str:
    """What somebody who may run any SQL as the wall's role sees of the other log, by naming it where the wall takes its log from."""
    async with connection.transaction():
        await connection.execute(BIND, str(OTHER_LOG_ID))
        rows = await connection.fetch(statement(wall, FILTERS[0]), OTHER_LOG_ID, FILTERS[0].value)
    return f"{len(rows)} rows"


async def shown_by_an_error(connection: asyncpg.Connection, wall: Wall) -> str:
    """Whether a condition that fails on a row's text meets rows of a log that is not bound: its message would show them.

    The planner puts the condition before the wall's own when it is cheaper and nothing but a scan of the table is left.
    """
    source = wall.source.replace("$1", str(NO_LOG_ID))
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(BIND, str(NO_LOG_ID))
        await connection.execute("SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off")
        await connection.fetch(f"SELECT seq FROM {source} WHERE search::int = 2")
    except asyncpg.InvalidTextRepresentationError:
        return "a value"
    finally:
        await transaction.rollback()
    return "nothing"


def print_table(title: str, header: list[str], lines: list[list[str]]) -> None:
    """A table in Markdown, to be taken over as it is."""
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for line in lines:
        print(f"| {' | '.join(line)} |")


async def reading_as(url: str, wall: Wall) -> asyncpg.Connection:
    """A connection for one wall. Custom plans, so that the plan printed is the plan timed."""
    connection = await asyncpg.connect(url)
    await connection.execute(f"SET ROLE {wall.role}; SET plan_cache_mode = force_custom_plan")
    return connection


def print_measured(table: dict[str, dict[str, Measured]]) -> None:
    """Times and plans, a line for each filter."""
    header = ["filter", *(wall.name for wall in WALLS)]
    times = [[f"`{name}`", *(f"{cell.milliseconds:.2f}" for cell in cells.values())] for name, cells in table.items()]
    plans = [[f"`{name}`", *(cell.plan for cell in cells.values())] for name, cells in table.items()]
    print_table("Milliseconds for the first page, median", header, times)
    print_table("Scans of the plan, outermost first", header, plans)


async def print_leakproof(connection: asyncpg.Connection) -> None:
    """Which operations the server lets run below a wall of the leakproof kind."""
    find = "SELECT proleakproof FROM pg_proc WHERE oid = CAST($1::text AS regprocedure)"
    lines = [[f"`{name}`", str(await connection.fetchval(find, f"pg_catalog.{proc}"))] for name, proc in OPERATORS]
    print_table("Marked leakproof", ["operation", "leakproof"], lines)


async def print_limits(connections: dict[str, asyncpg.Connection]) -> None:
    """What each wall shows to somebody who may run any SQL."""
    lines = [
        [
            wall.name,
            await another_logs_rows(connections[wall.name], wall),
            "-" if wall.whole else await shown_by_an_error(connections[wall.name], wall),
        ]
        for wall in WALLS
        if wall.name != "none"
    ]
    print_table(
        "What a wall shows to somebody who may run any SQL as its role",
        ["wall", "binds or names another log", "with no log bound, by an error message"],
        lines,
    )


async def report(url: str, rows: int, runs: int) -> None:
    """Build, measure and print."""
    owner = await asyncpg.connect(url)
    await build(owner, rows)
    connections = {wall.name: await reading_as(url, wall) for wall in WALLS}
    version = await owner.fetchval("SELECT current_setting('server_version')")
    print(f"PostgreSQL {version}, {os.cpu_count()} cores ({platform.machine()}), {rows} rows of 2 tenants, {runs} runs")
    print_measured({filter_.name: await measure(connections, filter_, runs) for filter_ in FILTERS})
    await print_leakproof(owner)
    await print_limits(connections)
    binding = await binding_milliseconds(connections["bound view"], runs)
    print(f"\nBinding the log: {binding:.2f} ms a transaction")
    for connection in (owner, *connections.values()):
        await connection.close()


def main() -> None:
    """Run on a server of its own, in a temporary folder."""
    parser = argparse.ArgumentParser(description="What each wall between tenants costs a reader (decision 0002).")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder) / "data")
        server.start()
        try:
            asyncio.run(report(server.url(), arguments.rows, arguments.runs))
        finally:
            server.stop(10)


if __name__ == "__main__":
    main()
