"""What the commands share: where they print, how they reach the database, and their exit codes."""

import asyncio
import getpass
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
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

from audit_service.core.canonical import JSONValue
from audit_service.core.own_event import OPERATOR, Actor, OwnEvent, Target
from audit_service.embedded import EmbeddedPostgres
from audit_service.ending import Ending
from audit_service.errors import InputError
from audit_service.ingest import Log
from audit_service.own_watch import open_watch, watching
from audit_service.settings import Settings
from audit_service.store import credentials
from audit_service.store.credentials import Installation
from audit_service.store.engine import Database, connected, open_database, sqlalchemy_url
from audit_service.store.failures import translated
from audit_service.watch import Place, find_place, own_event

EXIT_GOOD, EXIT_BAD, EXIT_UNKNOWN = 0, 1, 2

Tenant = Annotated[str, typer.Option(help="Tenant")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
out = Console()
err = Console(stderr=True)


def as_owner(
    work: Any, note: Callable[[Any], tuple[Place | None, OwnEvent]] | None = None
) -> Any:  # work: a coroutine function
    """Run `work`, over a connection, in one transaction as the owner role and answer what it does. `note` makes of that what is noted of
    it, and where: when that cannot be written, nothing is answered, and UnavailableError raised."""
    settings = Settings()

    async def run(url: str) -> Any:
        engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
        try:
            async with translated(), connected(engine) as connection, connection.begin():
                # Through SQLAlchemy, which only then begins the transaction that LOCAL speaks of.
                await connection.execute(text("SET LOCAL ROLE audit_owner"))
                done = await work(connection)
        finally:
            await engine.dispose()
        if note is not None:
            async with open_watch(settings, _serving_url(settings, url)) as (watch, _):
                await watch.note(*note(done))
        return done

    with owner_url(settings) as url:
        return asyncio.run(run(url))


def operator() -> Actor:
    """Whoever runs the command, by the name of their account on this machine."""
    try:
        return OPERATOR._replace(name=getpass.getuser())
    except (OSError, KeyError):  # an account without a name
        return OPERATOR


def note_command(
    tenant: str | None, action: str, *, target: Target | None = None, metadata: Mapping[str, JSONValue] | None = None
) -> None:
    """Note what a command has done, in the log of a tenant (None: the service's own). Raises UnavailableError when it cannot be written."""
    settings = Settings()

    async def run(url: str) -> None:
        async with open_watch(settings, url) as (watch, database):
            place = None
            if tenant is not None:
                async with translated(), connected(database.reads) as connection:
                    place = await find_place(connection, tenant)
                if place is None:
                    raise InputError("no such tenant")
            await watch.note(place, own_event(action, operator(), target=target, metadata=metadata))

    with owner_url(settings) as url:
        asyncio.run(run(_serving_url(settings, url)))


def _serving_url(settings: Settings, owner: str) -> str:
    return owner if settings.database_url is None else settings.database_url.get_secret_value()


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
    async with _opened(settings, tenant) as (database, log, installed):
        yield database.reads, log, installed


@asynccontextmanager
async def reading_noted(
    settings: Settings, tenant: str, action: str, **metadata: JSONValue
) -> AsyncIterator[tuple[AsyncEngine, Log, Installation, Ending]]:
    """The same for what is noted at its end; call the ending's `complete` when it has come to it."""
    async with _opened(settings, tenant) as (database, log, installed), watching(settings, database) as watch:
        end = Ending(watch, Place(log.log_id, log.log_key), action, operator(), None, metadata)
        with end.unless_complete():
            yield database.reads, log, installed, end


@asynccontextmanager
async def _opened(settings: Settings, tenant: str) -> AsyncIterator[tuple[Database, Log, Installation]]:
    with owner_url(settings) as owner:
        url = _serving_url(settings, owner)
        database = open_database(url, pool_connections=2, statement_timeout_seconds=600)
        try:
            async with translated(), connected(database.reads) as connection:
                found = await credentials.fetch_tenant(connection, tenant)
                installed = await credentials.fetch_installation(connection)
            yield database, Log(found.log_id, installed.service_name, found.log_key), installed
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
