"""What the commands that forget share: the log of a tenant under the role audit_retention, and how they tell what was done."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from audit_service import keeper
from audit_service.console import err, out, print_json, retention_url
from audit_service.errors import InputError
from audit_service.settings import Settings
from audit_service.store import credentials
from audit_service.store.engine import Database, connected
from audit_service.store.failures import translated

BY = "cli"
Reason = Annotated[str, typer.Option(help="Why, without personal data; it is entered in the log and stays")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count")]
T = TypeVar("T")


def with_log(tenant: str, work: Callable[[Database, int], Awaitable[T]]) -> T:
    """What `work` answers for the log of a tenant."""
    return with_logs(tenant, work)[tenant]


def with_logs(tenant: str | None, work: Callable[[Database, int], Awaitable[T]]) -> dict[str, T]:
    """What `work` answers for the log of one tenant, or of each."""

    async def run(url: str) -> dict[str, T]:
        async with _opened(url) as database:
            return {name: await work(database, log_id) for name, log_id in await _logs(database, tenant)}

    with retention_url(Settings()) as url:
        return asyncio.run(run(url))


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = keeper.open_retention(url)
    try:
        async with translated():
            yield database
    finally:
        await database.dispose()


async def _logs(database: Database, tenant: str | None) -> list[tuple[str, int]]:
    async with connected(database.reads) as connection:
        if tenant is None:
            return [(found.name, found.log_id) for found in await credentials.list_tenants(connection)]
        found = await credentials.fetch_tenant(connection, tenant)
    return [(tenant, found.log_id)]


def tell(told: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(told)
    else:
        out.print(counted(told), highlight=False, markup=False)


def counted(told: Mapping[str, Any]) -> str:
    return "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in told.items())


def tell_rows(rows: list[dict[str, Any]], *, as_json: bool, none: str) -> None:
    if as_json:
        print_json(rows, indented=True)
    elif not rows:
        err.print(none)
    else:
        table = Table(*(name.replace("_", " ") for name in rows[0]))
        for row in rows:
            table.add_row(*("-" if value is None else str(value) for value in row.values()))
        out.print(table)


def type_and_id(target: str) -> tuple[str, str]:
    kind, colon, identifier = target.partition(":")
    if not (kind and colon and identifier):
        raise InputError("--target is TYPE:ID")
    return kind, identifier
