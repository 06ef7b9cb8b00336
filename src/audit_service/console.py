"""What the commands share: where they print, how they reach the database, and their exit codes."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Annotated, Any, NoReturn

import orjson
import typer
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from audit_service.embedded import EmbeddedPostgres
from audit_service.errors import InputError
from audit_service.ingest import Log
from audit_service.settings import Settings
from audit_service.store import credentials
from audit_service.store.credentials import Installation
from audit_service.store.engine import connected, open_database, sqlalchemy_url
from audit_service.store.failures import translated

EXIT_GOOD, EXIT_BAD, EXIT_UNKNOWN = 0, 1, 2

Tenant = Annotated[str, typer.Option(help="Tenant")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
out = Console()
err = Console(stderr=True)


def as_owner(work: Any) -> Any:  # a coroutine function over a connection
    """Run `work` in one transaction as the owner role and answer what it does."""

    async def run(url: str) -> Any:
        engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
        try:
            async with translated(), connected(engine) as connection, connection.begin():
                # Through SQLAlchemy, which only then begins the transaction that LOCAL speaks of.
                await connection.execute(text("SET LOCAL ROLE audit_owner"))
                return await work(connection)
        finally:
            await engine.dispose()

    with owner_url(Settings()) as url:
        return asyncio.run(run(url))


def owner_url(settings: Settings) -> AbstractContextManager[str]:
    """The URL of the migrating login; starts the embedded server when no `serve` runs it."""
    return _login_url(settings, settings.migration_database_url or settings.database_url, "postgres")


def signing_url(settings: Settings) -> AbstractContextManager[str]:
    """The URL of the signing login, the same way."""
    return _login_url(settings, settings.own_signing_url, "audit_signing")


def retention_url(settings: Settings) -> AbstractContextManager[str]:
    """The URL of the retention login, the same way."""
    return _login_url(settings, settings.own_retention_url, "audit_retention")


@contextmanager
def _login_url(settings: Settings, given: SecretStr | None, role: str) -> Iterator[str]:
    if given is not None:
        yield given.get_secret_value()
        return
    with embedded(settings) as postgres:
        yield postgres.url(role)


@contextmanager
def embedded(settings: Settings) -> Iterator[EmbeddedPostgres]:
    """The embedded server: that of a running `serve`, else started for as long as the block runs."""
    postgres = EmbeddedPostgres(settings.data_dir)
    if postgres.is_running():
        yield EmbeddedPostgres.attach(settings.data_dir)
        return
    if not postgres.cluster_dir.exists():
        raise InputError(
            f"no database under {settings.data_dir}; run `audit-service serve` first, or set AUDIT_DATABASE_URL"
        )
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()


@asynccontextmanager
async def reading(settings: Settings, tenant: str) -> AsyncIterator[tuple[AsyncEngine, Log, Installation]]:
    """A read pool as the serving role, the tenant's log, and the installation."""
    with owner_url(settings) as owner:
        url = owner if settings.database_url is None else settings.database_url.get_secret_value()
        database = open_database(url, pool_connections=2, statement_timeout_seconds=600)
        try:
            async with translated(), connected(database.reads) as connection:
                found = await credentials.fetch_tenant(connection, tenant)
                installed = await credentials.fetch_installation(connection)
            yield database.reads, Log(found.log_id, installed.service_name, found.log_key), installed
        finally:
            await database.dispose()


def unwind(number: int, _: object) -> NoReturn:
    """A handler of the signals that end a command: it unwinds, so that no server and no file that it made stays behind. For SIGINT too:
    `asyncio.run` loses one that comes when its task is already done."""
    raise SystemExit(128 + number)


def print_json(told: object, *, indented: bool = False) -> None:
    """One JSON value on standard output, for scripts: on one line, or indented for people who look at it, too."""
    sys.stdout.buffer.write(orjson.dumps(told, option=orjson.OPT_INDENT_2 if indented else None) + b"\n")


def progress_bar(unit: str, *, hidden: bool) -> Progress:
    """A progress bar on standard error; none when that is no terminal or the output is for a script."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=err, transient=True, disable=hidden or not err.is_terminal)
