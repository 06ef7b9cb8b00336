"""A watch for processes that are no workers: the command line and the supervisor, each with a connection of its own as the serving role."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from audit_service.app import recipe_of
from audit_service.settings import Settings
from audit_service.store import credentials
from audit_service.store.credentials import SYSTEM_TENANT
from audit_service.store.engine import Database, connected, open_database
from audit_service.store.failures import translated
from audit_service.store.group_commit import GroupCommit
from audit_service.watch import Tools, Watch, find_place

_log = logging.getLogger(__name__)


@asynccontextmanager
async def watching(settings: Settings, database: Database) -> AsyncIterator[Watch]:
    """A watch on pools of the serving role. At the end it writes what waits, as far as it can."""
    found: Tools | None = None

    async def tools() -> Tools:
        nonlocal found
        if found is None:
            async with translated(), connected(database.reads) as connection:
                installed = await credentials.fetch_installation(connection)
                system = await find_place(connection, SYSTEM_TENANT)
            recipe = recipe_of(settings, installed)
            appender = GroupCommit(database.writes, recipe.rules.digest)
            found = Tools(recipe, appender, installed.service_name, system)
        return found

    watch = Watch(tools)
    try:
        yield watch
    finally:
        await watch.close()
        if found is not None:
            await found.appender.close()


@asynccontextmanager
async def open_watch(settings: Settings, url: str) -> AsyncIterator[tuple[Watch, Database]]:
    """The same with pools of its own; `url`: a login that may act as the serving role."""
    database = open_database(url, pool_connections=2)
    try:
        async with watching(settings, database) as watch:
            yield watch, database
    finally:
        await database.dispose()
