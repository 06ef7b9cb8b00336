"""Connections: one URL form in, SQLAlchemy engines out, and the checks a database must pass before we promise anything.

Two engines per worker, so that slow readers never take the connections appends need.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from audit_service.core.sight import Sight
from audit_service.store.limits import binding

SERVING_ROLE = "audit_serving"
SIGNING_ROLE = "audit_signing"
RETENTION_ROLE = "audit_retention"
# What must hold for "acknowledged means durable": `kill -9` cannot reveal a missing fsync, so the settings are read.
DURABLE_SETTINGS = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "remote_apply"),
    "data_sync_retry": ("off",),
}
# Said in every session, so that no default of a role or database and no reload of the server's configuration weakens it: what was
# acknowledged must be on the disk. Where the operator asks for more (applied on the standbys too), that stays.
COMMIT_DURABLY = """
    SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')
        WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)
"""
SUPPORTED_VERSIONS = range(15, 19)
# A database that is paused, or behind a dead link, never answers: who asks something short is told within five seconds.
ANSWER_TIMEOUT_SECONDS = 4.0
_PATIENT_TIMEOUT_SECONDS = 20.0
# Of an engine's execution options, which are there for whatever its user wants to keep.
_CONNECT_ARGS = "audit_connect_args"


def sqlalchemy_url(url: str) -> URL:
    """The asyncpg dialect's URL for `postgresql://…` (or `postgres://…`, or one already with a driver).

    libpq's `sslmode` becomes asyncpg's `ssl`; other query parameters pass through. Raises ValueError for another scheme.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError("the database URL must start with postgresql://")
    query = [("ssl" if key == "sslmode" else key, value) for key, value in parse_qsl(parts.query)]
    return make_url(urlunsplit(("postgresql+asyncpg", parts.netloc, parts.path, urlencode(query), parts.fragment)))


@dataclass(frozen=True, slots=True)
class Database:
    """The two pools of a worker: `writes` for appends and credentials, `reads` for everything a person may ask for."""

    writes: AsyncEngine
    reads: AsyncEngine

    async def dispose(self) -> None:
        """Close every connection."""
        await self.writes.dispose()
        await self.reads.dispose()


def open_database(
    url: str,
    *,
    pool_connections: int = 8,
    statement_timeout_seconds: int = 30,
    write_timeout_seconds: int = 10,
    connect_timeout_seconds: int = 4,
    lock_timeout_seconds: int = 5,
    role: str = SERVING_ROLE,
) -> Database:
    """Both pools, connecting lazily. Every connection acts as `role`, whoever logs in."""

    def pool(
        name: str, timeout_seconds: int, server_settings: Mapping[str, str] = MappingProxyType({}), **options: str
    ) -> AsyncEngine:
        connect_args = {
            "timeout": connect_timeout_seconds,
            # The server ends what takes too long; this is for a server that cannot.
            "command_timeout": timeout_seconds + 5,
            "server_settings": {
                "role": role,
                "application_name": f"audit-service {name}",
                "statement_timeout": f"{timeout_seconds}s",
                "idle_in_transaction_session_timeout": "60s",
                "lock_timeout": f"{lock_timeout_seconds}s",
                # Whatever defaults the role or the database got: an append that read its head before it waited for
                # the lock would fork the chain.
                "default_transaction_isolation": "read committed",
                "default_transaction_read_only": "off",
                "timezone": "UTC",
                # Left to the server, jit would compile plans that run for a millisecond.
                "jit": "off",
                **server_settings,
            },
        }
        engine = create_async_engine(
            sqlalchemy_url(url),
            **options,
            pool_size=pool_connections,
            max_overflow=0,
            pool_timeout=5,
            pool_use_lifo=True,
            connect_args=connect_args,
            execution_options={_CONNECT_ARGS: connect_args},
        )
        event.listen(engine.sync_engine, "connect", _commit_durably)
        event.listen(engine.sync_engine, "checkout", _refuse_closed)
        return engine

    return Database(
        writes=pool("writes", write_timeout_seconds),
        reads=pool(
            "reads",
            statement_timeout_seconds,
            # How many rows a value has decides the plan: one made for any value read all entries of a busy server for a page of fifty.
            server_settings={"plan_cache_mode": "force_custom_plan"},
            isolation_level="AUTOCOMMIT",
        ),
    )


def session_options(engine: AsyncEngine) -> dict[str, Any]:
    """What `asyncpg.connect` is given for a session like those of a pool of reads, but one that cannot write at all. The login is in it."""
    options = {**engine.dialect.create_connect_args(engine.url)[1], **engine.get_execution_options()[_CONNECT_ARGS]}
    for name in ("prepared_statement_cache_size", "prepared_statement_name_func"):  # meant for SQLAlchemy
        options.pop(name, None)
    alone = {"default_transaction_read_only": "on", "idle_session_timeout": "0"}
    # Who connects gives way to everybody, so may need long.
    return options | {"timeout": _PATIENT_TIMEOUT_SECONDS, "server_settings": {**options["server_settings"], **alone}}


def _commit_durably(connection: Any, *_: object) -> None:
    """Set COMMIT_DURABLY in a new session."""

    async def execute(raw: asyncpg.Connection) -> None:
        try:
            await raw.execute(COMMIT_DURABLY)
        except BaseException:
            raw.terminate()  # the pool never got it, and closes nothing
            raise

    connection.run_async(execute)


def _refuse_closed(connection: Any, *_: object) -> None:
    """Never lend a connection whose end the driver has seen while it lay in the pool. A database that went away closed them all: the
    pool drops every older one, so a restart costs nobody a refusal, and no request a question to the server."""
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError


def driver(connection: AsyncConnection) -> Any:
    """The asyncpg connection below, for the two places where speed asks for it (append and export)."""
    raw = connection.sync_connection
    assert raw is not None  # noqa: S101 - an AsyncConnection in use always has one
    return cast("Any", raw.connection.dbapi_connection).driver_connection


async def call(engine: AsyncEngine, statement: str, *arguments: Any) -> list[Any]:
    """The rows of one statement, which is a transaction of its own: the driver returns only when the server reports it committed, so what
    comes back is durable. For the pool of writes."""
    async with engine.connect() as connection:
        raw = driver(connection)
        try:
            rows: list[Any] = await raw.fetch(statement, *arguments)
        except asyncpg.PostgresError:
            raise  # the server has said no, and waits for the next call
        except BaseException:
            # A cancelled or broken call leaves the connection in an unknown state: never back into the pool. Cut it
            # first: a polite close would wait for a server that may be paused.
            raw.terminate()
            await connection.invalidate()
            raise
    return rows


@asynccontextmanager
async def connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection for a few short statements; commit them inside the block. It is cut, or TimeoutError raised, when the pool and the
    database together take longer than ANSWER_TIMEOUT_SECONDS."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ANSWER_TIMEOUT_SECONDS
    async with asyncio.timeout_at(deadline) as patience, engine.connect() as connection:
        patience.reschedule(None)
        # Cut, not cancelled: after a cancellation SQLAlchemy would wait two more seconds for a polite end.
        raw = driver(connection)
        cut = loop.call_at(deadline, raw.terminate)
        try:
            yield connection
        finally:
            cut.cancel()
            if raw.is_closed():  # what fails past SQLAlchemy, it would put back into the pool
                await connection.invalidate()


@asynccontextmanager
async def bound(
    engine: AsyncEngine, log_id: int, sight: Sight | None = None, *, one_snapshot: bool = False
) -> AsyncIterator[AsyncConnection]:
    """A read-only transaction that can see one log only (decision 0002), and of what is shown to people (`seen_entry`, `bound_tally`) what
    `sight` admits (decision 0018): without one, nothing. Everything a person reads goes through here; what reads for the service itself,
    to verify, prove, index or forget, needs no sight.

    With `one_snapshot` all its statements see the log as it was at the first: for short reads whose parts have to add up.

    `engine` is the pool for reads, which leaves transactions to us: begin and binding are one round trip. A connection whose
    transaction cannot be ended is cut, so that no binding ever reaches the next borrower. Raises TimeoutError when the beginning takes
    longer than ANSWER_TIMEOUT_SECONDS; what is read then may take as long as a statement may.
    """
    async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS) as patience, engine.connect() as connection:
        raw = driver(connection)
        ended = False
        try:
            # SET LOCAL as a statement, not set_config(): it is what a distributed PostgreSQL forwards to its shards.
            isolation = "REPEATABLE READ" if one_snapshot else "READ COMMITTED"
            begin = f"BEGIN ISOLATION LEVEL {isolation} READ ONLY; SET LOCAL audit.log_id = '{log_id:d}'"
            await raw.execute(begin if sight is None else f"{begin}; {binding(sight)}")
            patience.reschedule(None)
            try:
                yield connection
            except TimeoutError:  # nothing more can be asked of it
                raise
            except Exception:
                await raw.execute("ROLLBACK", timeout=ANSWER_TIMEOUT_SECONDS)
                ended = True
                raise
            await raw.execute("COMMIT", timeout=ANSWER_TIMEOUT_SECONDS)
            ended = True
        finally:
            if not ended:  # cancelled, or the connection broke
                raw.terminate()
                await connection.invalidate()


async def bind(connection: AsyncConnection, log_id: int) -> None:
    """Bind one log in a transaction that may write, and begins here: what is built behind a log is built through functions that ask
    for it. On the pool for writes."""
    await connection.exec_driver_sql(f"SET LOCAL audit.log_id = '{log_id:d}'")


async def check_durability(connection: asyncpg.Connection) -> list[str]:
    """Why this server must not be trusted with a promise; empty when it may. Read at start and by `/readyz`."""
    problems = []
    for name, wanted in DURABLE_SETTINGS.items():
        found = await connection.fetchval("SELECT current_setting($1, true)", name)
        if found not in wanted:
            problems.append(f"{name} is {found}, must be {' or '.join(wanted)}")
    version = connection.get_server_version().major
    if version not in SUPPORTED_VERSIONS:
        problems.append(
            f"PostgreSQL {version} is not supported, use {SUPPORTED_VERSIONS[0]} to {SUPPORTED_VERSIONS[-1]}"
        )
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        problems.append("the server is a standby, which takes no events")
    encoding = await connection.fetchval("SELECT current_setting('server_encoding')")
    if encoding != "UTF8":
        problems.append(f"server_encoding is {encoding}, must be UTF8")
    return problems
