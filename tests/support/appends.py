"""Appending below the HTTP layer: candidates with any body, the function under a scripted clock, and what is in a log."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import asyncpg

from audit_service.core.chain import format_origin, genesis_hash
from audit_service.core.entry import Prepared, Projection
from audit_service.core.event import EventLimits
from audit_service.core.redaction import compile_ruleset
from audit_service.ingest import Log, Outcome, Receipt, Recipe, ingest
from audit_service.store.append import Candidate
from audit_service.store.engine import Database
from audit_service.store.group_commit import GroupCommit
from audit_service.store.migrate import scripts_dir
from tests.support.intact import assert_log_intact
from tests.support.postgres import SERVICE_NAME, TestDatabase

RECIPE = Recipe(compile_ruleset(), EventLimits(), b"s" * 32)
RULESET = "test-rules"
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_NOTHING: dict[str, Any] = dict.fromkeys(Projection._fields)


@dataclass(frozen=True, slots=True)
class TestLog:
    """A log in a test's database, with what the tests do to it."""

    __test__ = False

    database: TestDatabase
    log: Log

    @property
    def log_id(self) -> int:
        """Its id."""
        return self.log.log_id

    async def send(self, pools: Database, *events: Any, recipe: Recipe = RECIPE) -> list[Outcome]:
        """The outcomes of one `ingest` call."""
        return await ingest(GroupCommit(pools.writes, recipe.rules.digest), recipe, self.log, events)

    async def accept(self, pools: Database, *events: Any, recipe: Recipe = RECIPE) -> list[Receipt]:
        """The receipts of one `ingest` call that must take every event."""
        outcomes = await self.send(pools, *events, recipe=recipe)
        assert all(isinstance(outcome, Receipt) for outcome in outcomes), outcomes
        return [outcome for outcome in outcomes if isinstance(outcome, Receipt)]

    async def assert_intact(self, size: int) -> None:
        """`assert_log_intact`, as the owner."""
        async with owner(self.database) as connection:
            await assert_log_intact(connection, self.log_id, size)


@asynccontextmanager
async def owner(database: TestDatabase) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the superuser, closed at the end."""
    connection = await database.owner()
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def serving(database: TestDatabase) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the serving role, closed at the end."""
    connection = await database.serving()
    try:
        yield connection
    finally:
        await connection.close()


async def claim_size(connection: asyncpg.Connection, log_id: int, size: int) -> None:
    """Let the head say that a log has `size` entries, which were put there past the append function; its hashes are of nothing."""
    await connection.execute(
        "UPDATE audit.log SET size = $2::bigint, frontier = decode(repeat('00', 32 * bit_count($2::bigint::bit(64))::int), 'hex') "
        "WHERE log_id = $1",
        log_id,
        size,
    )


async def make_log(database: TestDatabase, *, service_name: str = SERVICE_NAME, log_key: str | None = None) -> TestLog:
    """A new empty log of no tenant."""
    log = Log(secrets.randbits(63), service_name, log_key or secrets.token_hex(16))
    genesis = genesis_hash(format_origin(service_name, log.log_key, 1))
    async with owner(database) as connection:
        await connection.execute(
            "INSERT INTO audit.log (log_id, service_name, log_key, last_hash) VALUES ($1, $2, $3, $4)",
            *(log.log_id, log.service_name, log.log_key, genesis),
        )
    return TestLog(database, log)


async def existing_log(database: TestDatabase, log_id: int) -> TestLog:
    """The log with this id."""
    async with owner(database) as connection:
        row = await connection.fetchrow("SELECT service_name, log_key FROM audit.log WHERE log_id = $1", log_id)
    assert row is not None
    return TestLog(database, Log(log_id, row["service_name"], row["log_key"]))


def candidate(
    event_id: str, body: str = '{"v":1}', *, keep: bool = True, disclosures: dict[str, bytes] | None = None
) -> Candidate:
    """A candidate with any body, of which nothing is projected but its id."""
    salt = sha256(event_id.encode()).digest()[:16]
    prepared = Prepared(body, disclosures or {}, Projection(**{**_NOTHING, "id": event_id}))
    return Candidate(event_id, keep, salt, sha256(salt + body.encode()).digest(), prepared)


# The function's call for events of which only id, keep and body are given; all its other arrays hold nulls.
_CALL = (
    "SELECT * FROM audit.{function}(p_log_id => $1, p_ruleset => 'r', p_keep => $2, p_id => $3, p_body => $4, {nulls})"
)
_ARRAYS = """
    SELECT a.name, 'pg_catalog.' || quote_ident(element.typname) AS type
    FROM pg_proc AS p
    CROSS JOIN LATERAL unnest(p.proargnames, p.proargmodes, p.proallargtypes) AS a(name, mode, type)
    JOIN pg_type AS t ON t.oid = a.type AND t.typcategory = 'A'
    JOIN pg_type AS element ON element.oid = t.typelem
    WHERE p.oid = 'audit.append_entries'::regproc AND a.mode = 'i'
"""


async def call_append(
    connection: asyncpg.Connection,
    log_id: int,
    bodies: Sequence[str | None],
    *,
    ids: Sequence[str | None] | None = None,
    keep: Sequence[bool | None] | None = None,
    function: str = "append_entries",
) -> list[asyncpg.Record]:
    """Call the function itself, in this session as it is. The ids are `e-0`, `e-1`, … and all is kept unless said."""
    nulls = await _nulls(connection, len(bodies))
    ids = [f"e-{index}" for index in range(len(bodies))] if ids is None else ids
    keep = [True] * len(bodies) if keep is None else keep
    return list(await connection.fetch(_CALL.format(function=function, nulls=nulls), log_id, keep, ids, bodies))


async def append_statement(connection: asyncpg.Connection, log_id: int) -> str:
    """A statement without parameters that appends one bare event, and names every type in full."""
    call = _CALL.format(function="append_entries", nulls=await _nulls(connection, 1))
    values = (str(log_id), "ARRAY[true]", "ARRAY['e-0'::pg_catalog.text]", "ARRAY['{}'::pg_catalog.text]")
    for place, value in enumerate(values, start=1):
        call = call.replace(f"${place}", value)
    return call


async def _nulls(connection: asyncpg.Connection, count: int) -> str:
    return ", ".join(
        f"{row['name']} => array_fill(NULL::{row['type']}, ARRAY[{count}])"
        for row in await connection.fetch(_ARRAYS)
        if row["name"] not in {"p_keep", "p_id", "p_body"}
    )


def microseconds(at: datetime) -> int:
    """Whole microseconds since the Unix epoch."""
    return (at - EPOCH) // timedelta(microseconds=1)


def function_text(replacements: Sequence[tuple[str, str]]) -> str:
    """The append function's own SQL with each text, found exactly once, replaced by another."""
    sql = (scripts_dir() / "sql" / "0001_append.sql").read_text("utf-8")
    for old, new in replacements:
        assert sql.count(old) == 1, f"{old!r} is {sql.count(old)} times in the function"
        sql = sql.replace(old, new)
    return sql


async def wait_until(condition: Callable[[], Coroutine[Any, Any, bool]], what: str, seconds: float = 20) -> None:
    """Poll an awaitable condition; fail by name when it does not come true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not happen in {seconds} seconds"
        await asyncio.sleep(0.01)


async def lock_waiters(connection: asyncpg.Connection) -> list[int]:
    """The server processes of this database that wait for a lock."""
    rows = await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return [row["pid"] for row in rows]
