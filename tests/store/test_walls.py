"""The second wall between tenants (decision 0002): what the serving role sees with, without and beside a binding.

Two tenants with the same servers, actors and targets, their appends interleaved, so that whatever crosses the wall has rows to find.
The tests read, or are refused: they share one database.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, NoResultFound
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core import terms
from audit_service.core.canonical import JSONValue
from audit_service.core.event import EventLimits
from audit_service.core.redaction import compile_ruleset
from audit_service.core.sight import EVERYTHING
from audit_service.errors import UnavailableError
from audit_service.indexer import count_all, index_all
from audit_service.ingest import Log, Receipt, Recipe, ingest
from audit_service.store import credentials, sources
from audit_service.store.engine import SIGNING_ROLE, Database, bound, connected, open_database
from audit_service.store.failures import translated
from audit_service.store.find import list_entries
from audit_service.store.group_commit import GroupCommit
from audit_service.store.query import fetch_head, find_entry
from audit_service.store.selection import Filter, Selection
from tests.support.intact import assert_log_intact
from tests.support.postgres import SERVICE_NAME, SERVING_PASSWORD, TEMPLATE, Server, TestDatabase

BATCH, FIRST_BATCHES, SECOND_BATCHES = 250, 8, 4
SEGMENT = 500
SIZES = {"first": BATCH * FIRST_BATCHES, "second": BATCH * SECOND_BATCHES}
TABLES = ("entry", "log", "receipt", "segment", "posting", "tally", "source_progress", "source", "source_range")
VIEWS = tuple(f"bound_{table}" for table in TABLES)
# Rows that a tenant has of each; of the others as many as it may be.
ROWS = {
    **dict.fromkeys(("entry", "receipt"), SIZES),
    "segment": {name: size // SEGMENT for name, size in SIZES.items()},
    **dict.fromkeys(("log", "source_progress", "source", "source_range"), dict.fromkeys(SIZES, 1)),
}
BIND = "SELECT set_config('audit.log_id', $1, true)"
START = datetime(2026, 1, 1, tzinfo=UTC)

# What the serving role reads of every tenant: it must know whose a credential is before it can bind anything.
SHARED_RELATIONS = {"tenant", "viewer_token", "api_key"}


@dataclass(frozen=True, slots=True)
class Walled:
    """The database of this module: its pools and the two logs."""

    database: TestDatabase
    pools: Database
    logs: dict[str, int]

    @property
    def first(self) -> int:
        """The larger log."""
        return self.logs["first"]

    @property
    def second(self) -> int:
        """The other tenant's."""
        return self.logs["second"]


@pytest.fixture(scope="module")
async def walled(server: Server) -> AsyncIterator[Walled]:
    """Two tenants with 3,000 entries, appended in turn and indexed; both logs must be intact when the tests are through."""
    database = await server.create()
    pools = database.open()
    logs = [await _create_log(database, name) for name in SIZES]
    await _append(pools, *logs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terms, "SEGMENT_EVENTS", SEGMENT)
        assert await index_all(pools) == sum(SIZES.values()) // SEGMENT
        patch.setattr(sources, "WAITING_ENTRIES", 1)
        assert await count_all(pools) == sum(SIZES.values())
    owner = await database.owner()
    await owner.execute(f"ANALYZE {', '.join(f'audit.{table}' for table in TABLES)}")
    yield Walled(database, pools, {name: log.log_id for name, log in zip(SIZES, logs, strict=True)})
    for size, log in zip(SIZES.values(), logs, strict=True):
        await assert_log_intact(owner, log.log_id, size)
    await owner.close()
    await pools.dispose()
    await server.drop(database)


@pytest.fixture
async def serving(walled: Walled) -> AsyncIterator[asyncpg.Connection]:
    """A new connection of the serving role, never bound before."""
    connection = await walled.database.serving()
    yield connection
    await connection.close()


@pytest.fixture
async def owner(walled: Walled) -> AsyncIterator[asyncpg.Connection]:
    """A connection that no wall stands before."""
    connection = await walled.database.owner()
    yield connection
    await connection.close()


async def _create_log(database: TestDatabase, name: str) -> Log:
    engine = database.owner_engine()
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL ROLE audit_owner"))
        log_id = (await credentials.create_tenant(connection, name)).log_id
        found = await credentials.find_tenant(connection, name)
    await engine.dispose()
    assert found is not None
    return Log(log_id, SERVICE_NAME, found.log_key)


async def _append(pools: Database, first: Log, second: Log) -> None:
    recipe = Recipe(compile_ruleset(), EventLimits(), b"s" * 32)
    for batch in range(FIRST_BATCHES):
        for name, log, batches in (("first", first, FIRST_BATCHES), ("second", second, SECOND_BATCHES)):
            if batch >= batches:
                continue
            events = [_event(name, number) for number in range(batch * BATCH, (batch + 1) * BATCH)]
            outcomes = await ingest(GroupCommit(pools.writes, recipe.rules.digest), recipe, log, events)
            assert all(isinstance(outcome, Receipt) and outcome.kept for outcome in outcomes)


def _event(tenant: str, number: int) -> JSONValue:
    """Strides that share no factor with one another, so that every value is spread over the whole log."""
    action = "licence.revoked" if number % 97 == 0 else f"{('server', 'backup', 'user')[number % 3]}.updated"
    return {
        "id": f"{tenant}-{number}",
        "occurred_at": (START + timedelta(seconds=number * 7919 % 100_003)).isoformat(),
        "action": action,
        "actor": {"type": "user", "id": f"u{number % 37}", "name": f"Operator of {tenant}"},
        "target": {"type": "server", "id": f"t{number % 41}"},
        "server_id": f"s{number % 23}",
        "context": {"ip": f"203.0.113.{number % 251}"},
        "changes": [{"path": "/memory", "op": "replace", "old": number, "new": number + 1}],
        "source": {"id": "panel", "seq": number},
    }


# -- failing closed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
async def test_without_a_binding_a_view_is_empty(serving: asyncpg.Connection, view: str) -> None:
    """Unset: the setting does not even exist in the session."""
    assert await serving.fetchval("SELECT current_setting('audit.log_id', true)") is None
    assert await serving.fetchval(f"SELECT count(*) FROM audit.{view}") == 0


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("binding", ["", "0", "-1", "9223372036854775807"])
async def test_with_an_empty_binding_or_an_unknown_log_a_view_is_empty(
    serving: asyncpg.Connection, view: str, binding: str
) -> None:
    """Empty is what a setting falls back to once it has been set in a session."""
    async with serving.transaction():
        await serving.execute(BIND, binding)
        assert await serving.fetchval(f"SELECT count(*) FROM audit.{view}") == 0


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("binding", ["default", "1 OR true", "99999999999999999999"])
async def test_a_binding_that_is_no_log_id_is_an_error(serving: asyncpg.Connection, view: str, binding: str) -> None:
    """It is data, never a condition."""
    await serving.execute(BIND.replace("true", "false"), binding)
    with pytest.raises(asyncpg.DataError):
        await serving.fetch(f"SELECT * FROM audit.{view}")


async def _leave(connection: AsyncConnection) -> None:
    del connection


async def _commit(connection: AsyncConnection) -> None:
    await connection.commit()


async def _fail(connection: AsyncConnection) -> None:
    await connection.execute(text("SELECT 1 / 0"))


async def _break_off(connection: AsyncConnection) -> None:
    del connection
    raise asyncio.CancelledError


@pytest.mark.parametrize("end", [_leave, _commit, _fail, _break_off])
async def test_a_binding_ends_with_its_transaction(
    walled: Walled, end: Callable[[AsyncConnection], Awaitable[None]]
) -> None:
    """The next user of the pool's one connection finds nothing bound: on the very same backend, or, when the block was
    broken off in the middle of who knows what, on a new one."""
    pools = open_database(walled.database.serving_url, pool_connections=1)
    state = text(
        "SELECT pg_backend_pid(), current_setting('audit.log_id', true), current_setting('transaction_read_only'), "
        "(SELECT count(*) FROM audit.bound_entry)"
    )
    with suppress(DBAPIError, asyncio.CancelledError):
        async with bound(pools.reads, walled.first, EVERYTHING) as connection:
            before = (await connection.execute(state)).one()
            await end(connection)
    async with pools.reads.connect() as connection:
        after = (await connection.execute(state)).one()
    await pools.dispose()
    assert tuple(before[1:]) == (str(walled.first), "on", SIZES["first"])
    assert (after[1] or "", *after[2:]) == ("", "off", 0)
    assert (before[0] == after[0]) == (end is not _break_off)


async def test_what_follows_a_commit_within_a_bound_block_sees_the_same_log(walled: Walled) -> None:
    """The transaction is the block's own: a stray commit neither ends it nor widens what is seen."""
    async with bound(walled.pools.reads, walled.first, EVERYTHING) as connection:
        await connection.commit()
        logs = (await connection.execute(text("SELECT DISTINCT log_id FROM audit.bound_entry"))).scalars()
        assert list(logs) == [walled.first]


async def test_bindings_side_by_side_do_not_mix(walled: Walled) -> None:
    """Four readers of two logs on the four connections of the pool, every one bound before any reads."""
    all_bound = asyncio.Barrier(4)

    async def logs_seen(log_id: int) -> list[int]:
        async with bound(walled.pools.reads, log_id, EVERYTHING) as connection:
            await all_bound.wait()
            return list((await connection.execute(text("SELECT DISTINCT log_id FROM audit.bound_entry"))).scalars())

    asked = [walled.first, walled.second, walled.second, walled.first]
    assert await asyncio.gather(*(logs_seen(log_id) for log_id in asked)) == [[log_id] for log_id in asked]


# -- mistakes in a statement ---------------------------------------------------------------------------------


async def test_without_the_wall_both_tenants_are_seen(walled: Walled, owner: asyncpg.Connection) -> None:
    """The control: the rows that the wall hides are there."""
    rows = await owner.fetch("SELECT log_id, count(*) AS size FROM audit.entry GROUP BY log_id")
    assert {row["log_id"]: row["size"] for row in rows} == {walled.logs[name]: size for name, size in SIZES.items()}
    for table in TABLES:
        seen = {row["log_id"] for row in await owner.fetch(f"SELECT DISTINCT log_id FROM audit.{table}")}
        assert seen >= {walled.first, walled.second}


@pytest.mark.parametrize("tenant", list(SIZES))
@pytest.mark.parametrize("view", VIEWS)
async def test_a_dropped_where_shows_only_the_bound_log(
    walled: Walled, owner: asyncpg.Connection, view: str, tenant: str
) -> None:
    """And all of it."""
    table = view.removeprefix("bound_")
    size = await owner.fetchval(f"SELECT count(*) FROM audit.{table} WHERE log_id = $1", walled.logs[tenant])
    assert size > 0
    assert table not in ROWS or size == ROWS[table][tenant]
    async with bound(walled.pools.reads, walled.logs[tenant], EVERYTHING) as connection:
        rows = await connection.execute(text(f"SELECT log_id, count(*) FROM audit.{view} GROUP BY log_id"))
        found = {row[0]: row[1] for row in rows}
    assert found == {walled.logs[tenant]: size}


async def test_a_wrong_join_stays_within_the_bound_log(walled: Walled) -> None:
    """Both logs have every seq from 0: a join that forgot log_id would pair them."""
    wrong = "SELECT e.id, r.id FROM audit.bound_entry AS e JOIN audit.bound_receipt AS r USING (seq)"
    async with bound(walled.pools.reads, walled.second, EVERYTHING) as connection:
        pairs = (await connection.execute(text(wrong))).all()
    assert len(pairs) == SIZES["second"]
    assert all(entry_id == receipt_id for entry_id, receipt_id in pairs)


async def test_naming_another_log_than_the_bound_one_shows_nothing(walled: Walled) -> None:
    """The service's own statements, given the wrong log."""
    async with bound(walled.pools.reads, walled.first, EVERYTHING) as connection:
        assert (await find_entry(connection, walled.first, "first-7", EVERYTHING)) is not None
        assert (await find_entry(connection, walled.second, "second-7", EVERYTHING)) is None
        assert (await find_entry(connection, walled.first, "second-7", EVERYTHING)) is None
        assert (await list_entries(connection, walled.second, Selection(sight=EVERYTHING))).rows == []
        with pytest.raises(NoResultFound):
            await fetch_head(connection, walled.second)


# -- what the serving role may not do ------------------------------------------------------------------------

REFUSED = (
    *(f"SELECT * FROM audit.{table}" for table in TABLES),
    *(f"SELECT log_id FROM audit.{table} LIMIT 0" for table in TABLES),
    *(f"COPY audit.{table} TO STDOUT" for table in TABLES),
    *(f"LOCK TABLE audit.{table} IN ACCESS EXCLUSIVE MODE" for table in TABLES),
    *(f"INSERT INTO audit.{name} (log_id) VALUES (1)" for name in (*TABLES, *VIEWS)),
    *(f"UPDATE audit.{name} SET log_id = log_id" for name in (*TABLES, *VIEWS)),
    *(f"DELETE FROM audit.{name}" for name in (*TABLES, *VIEWS)),
    *(f"TRUNCATE audit.{table} CASCADE" for table in TABLES),
    *(f"ALTER TABLE audit.{table} DISABLE TRIGGER ALL" for table in TABLES),
    *(f"GRANT SELECT ON audit.{table} TO audit_serving" for table in TABLES),
    *(f"DROP VIEW audit.{view}" for view in VIEWS),
    "CREATE OR REPLACE VIEW audit.bound_entry AS SELECT * FROM audit.api_key",
    "CREATE TABLE audit.mine (x integer)",
    "CREATE TABLE public.mine (x integer)",
    "CREATE VIEW public.mine AS SELECT * FROM audit.bound_entry",
    "CREATE FUNCTION audit.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    "CREATE EXTENSION pg_trgm",
    "CREATE ROLE mine",
    "ALTER ROLE audit_serving BYPASSRLS",
    "SET session_replication_role = replica",
    "SET ROLE audit_owner",
    "SET ROLE audit_eraser",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('PG_VERSION')",
)


@pytest.mark.parametrize("statement", REFUSED)
async def test_the_serving_role_is_refused(serving: asyncpg.Connection, statement: str) -> None:
    """By privilege, before any trigger is asked."""
    async with serving.transaction():
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with serving.transaction():  # a savepoint, for what is refused only within a transaction
                await serving.execute(statement)


async def test_the_serving_role_has_no_power_but_its_grants(serving: asyncpg.Connection) -> None:
    """No attribute, and no membership to inherit from or to change into."""
    role = await serving.fetchrow(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user"
    )
    assert role is not None
    assert not any(role.values())
    assert await serving.fetchval("SELECT pg_has_role(current_user, 'audit_owner', 'MEMBER')") is False
    assert await serving.fetchval("SELECT count(*) FROM pg_auth_members WHERE member = current_user::regrole") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMP TABLE entry (x integer)",
        "CREATE FUNCTION pg_temp.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    ],
)
async def test_the_serving_role_makes_nothing_temporary(server: Server, statement: str) -> None:
    """Asked of the migrated database itself: a copy made from a template has its tables, but not the database's own grants."""
    connection = await asyncpg.connect(server.url(TEMPLATE, "audit_serving", SERVING_PASSWORD))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_every_readable_relation_with_a_log_is_behind_the_wall(owner: asyncpg.Connection) -> None:
    """From the catalogue, so that a table or view added later is either walled or named here with a reason."""
    rows = await owner.fetch(
        """
        SELECT c.relname, CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END AS definition
        FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'log_id'
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_any_column_privilege('audit_serving', c.oid, 'SELECT')
        """
    )
    walled = {row["relname"] for row in rows if "current_setting('audit.log_id'" in (row["definition"] or "")}
    assert walled >= set(VIEWS)
    assert {row["relname"] for row in rows} - walled == SHARED_RELATIONS


async def test_every_function_that_runs_as_its_owner_pins_its_search_path(owner: asyncpg.Connection) -> None:
    """Whatever the serving role may call with more rights than its own."""
    rows = await owner.fetch(
        """
        SELECT proname, proconfig FROM pg_proc
        WHERE prosecdef AND pronamespace = 'audit'::regnamespace AND has_function_privilege('audit_serving', oid, 'EXECUTE')
        """
    )
    assert {row["proname"] for row in rows} == {
        *("append_entries", "add_segment", "add_request", "count_sources"),
        *("create_tenant", "sweep_viewer_tokens"),
    }
    for row in rows:
        assert "search_path=pg_catalog, pg_temp" in (row["proconfig"] or []), row["proname"]


async def test_the_statistics_of_the_tables_are_hidden(serving: asyncpg.Connection, owner: asyncpg.Connection) -> None:
    """They hold the most common values of all tenants."""
    sampled = "SELECT count(*) FROM pg_stats WHERE schemaname = 'audit' AND tablename = ANY ($1)"
    assert await owner.fetchval(sampled, TABLES) > 0
    assert await serving.fetchval(sampled, TABLES) == 0


WRITE = text(
    "INSERT INTO audit.api_key (key_id, log_id, name, scopes, secret_hash) VALUES ('k', 1, 'n', '{}', 'h') RETURNING 1"
)


async def test_a_bound_transaction_is_read_only(walled: Walled) -> None:
    """The serving role may insert keys, as the first block shows; not while it reads for somebody."""
    async with walled.pools.reads.connect() as connection:
        assert (await connection.execute(WRITE)).scalar_one() == 1
        await connection.rollback()
    with pytest.raises(DBAPIError, match="read-only transaction"):
        async with bound(walled.pools.reads, walled.first, EVERYTHING) as connection:
            await connection.execute(WRITE)


async def test_a_bound_transaction_stays_read_only(walled: Walled) -> None:
    """PostgreSQL itself refuses to lift it once something was read."""
    async with bound(walled.pools.reads, walled.first, EVERYTHING) as connection:
        await connection.execute(text("SELECT 1"))
        with pytest.raises(DBAPIError, match="must be set before any query"):
            await connection.execute(text("SET TRANSACTION READ WRITE"))


async def test_who_may_run_any_statement_may_bind_any_log(walled: Walled, serving: asyncpg.Connection) -> None:
    """The limit of this wall, as the decision states it: it is for mistakes, not for somebody who has the role's password."""
    async with serving.transaction():
        await serving.execute(BIND, str(walled.second))
        assert await serving.fetchval("SELECT count(*) FROM audit.bound_entry") == SIZES["second"]


# -- what the wall costs: nothing a plan would show ----------------------------------------------------------


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


async def _explained(connection: AsyncConnection, statement: str, parameters: Any) -> list[dict[str, Any]]:
    """The nodes of a plan, without those that compare the bound log with the named one, and read the bound sight, before any row.

    Of a table as small as this one a scan of everything costs about what a walk of an index does; the filters of a view, which every row
    read pays for, would decide between the two. So scans of everything are out, as they are in any table of size.
    """
    await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    found = (await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)).scalar_one()
    (explained,) = json.loads(found) if isinstance(found, str) else found
    return [node for node in _nodes(explained["Plan"]) if node["Node Type"] not in {"Result", "ProjectSet"}]


async def _plans(
    walled: Walled, run: Callable[[AsyncConnection, int], Awaitable[object]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """How the serving role's statements in `run` are planned through the views, and how the owner's on the bare tables are."""
    statements: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        statements.append((statement, parameters))

    async with bound(walled.pools.reads, walled.first, EVERYTHING) as connection:
        event.listen(connection.sync_connection, "before_cursor_execute", keep)
        await run(connection, walled.first)
        event.remove(connection.sync_connection, "before_cursor_execute", keep)
        through_the_view = [node for asked in statements for node in await _explained(connection, *asked)]
    assert all("audit.bound_" in statement or "audit.seen_entry" in statement for statement, _ in statements)
    engine = walled.database.owner_engine()
    async with engine.connect() as connection:
        uncovered = [(re.sub(r"audit\.(bound|seen)_", "audit.", asked), parameters) for asked, parameters in statements]
        bare = [node for asked in uncovered for node in await _explained(connection, *asked)]
    await engine.dispose()
    return through_the_view, bare


def _listing(*filters: Filter) -> Callable[[AsyncConnection, int], Awaitable[object]]:
    return lambda connection, log_id: list_entries(connection, log_id, Selection(filters, sight=EVERYTHING))


LISTINGS = {
    "by time": _listing(),
    "by server": _listing(Filter("server_id", ("s7",))),
    "by target": _listing(Filter("target_type", ("server",)), Filter("target_id", ("t7",))),
}


@pytest.mark.parametrize("listing", list(LISTINGS))
async def test_a_first_page_through_the_wall_walks_an_index_in_order(walled: Walled, listing: str) -> None:
    """No scan of the table, no sort, and every scan of an index stays within the log."""
    plan, _ = await _plans(walled, LISTINGS[listing])
    kinds = {node["Node Type"] for node in plan}
    assert not kinds & {"Seq Scan", "Sort", "Incremental Sort", "Bitmap Heap Scan"}, plan
    scans = [node for node in plan if "Index Name" in node]
    assert scans
    assert all("log_id = " in node["Index Cond"] for node in scans), plan


SEARCHES = {
    "by action": _listing(Filter("action", ("server.updated",))),
    "by a common action prefix": _listing(Filter("action", ("server.*",))),
    "by a rare action prefix": _listing(Filter("action", ("licence.*",))),
    "by address": _listing(Filter("ip", (ip_network("203.0.113.7"),))),
    "by a key of the actor": _listing(Filter("actor", ("u7",))),
}


@pytest.mark.parametrize("listing", [*LISTINGS, *SEARCHES])
async def test_the_wall_changes_no_plan(walled: Walled, listing: str) -> None:
    """Also where an operator is not leakproof, which row-level security or a security_barrier view would not let near an index."""
    plan, bare = await _plans(walled, (LISTINGS | SEARCHES)[listing])
    shape = ("Node Type", "Relation Name", "Index Name", "Index Cond")
    assert [[node.get(key) for key in shape] for node in plan] == [[node.get(key) for key in shape] for node in bare]
    assert [node["Plan Rows"] for node in plan] == [pytest.approx(node["Plan Rows"], 0.02, 1) for node in bare]


@pytest.mark.parametrize("role", [SIGNING_ROLE, "audit_nobody"])
async def test_a_login_that_may_not_act_as_its_role_is_told_which(database: TestDatabase, role: str) -> None:
    pools = open_database(database.serving_url, pool_connections=1, role=role)
    try:
        with pytest.raises(UnavailableError) as refused:
            async with translated(), connected(pools.reads):
                pass
    finally:
        await pools.dispose()
    assert f"may not act as {role}" in refused.value.detail
    assert f"GRANT {role}" in refused.value.detail
