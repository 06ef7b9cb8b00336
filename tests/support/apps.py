"""More apps for tests: with other settings, for other tenants, with keys of fewer scopes; and a whole dump of a database."""

import secrets
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any

import httpx

from audit_service.app import create_app
from audit_service.core.api_key import SCOPES
from audit_service.embedded import program
from audit_service.settings import Settings
from audit_service.store import credentials
from tests.support.api import Api
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase


def open_api(database: TestDatabase, *, key: str = BOOTSTRAP_KEY, **settings: Any) -> AbstractAsyncContextManager[Api]:
    """The app on `database` with `settings`, called in process with `key`."""
    return open_app(Settings(database_url=database.serving_url, **settings), key)


@asynccontextmanager
async def open_app(settings: Settings, key: str = BOOTSTRAP_KEY) -> AsyncIterator[Api]:
    """The app, called in process as an ASGI application with `key`."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://audit.test", headers=headers) as client:
        yield Api(client, app.state.service)
    await app.state.service.close()


async def add_tenant(database: TestDatabase, name: str) -> int:
    """A new tenant; its log id."""
    engine = database.owner_engine()
    async with engine.begin() as connection:
        log_id = (await credentials.create_tenant(connection, name)).log_id
    await engine.dispose()
    return log_id


# What a panel's backend has: it does not see what the service notes about itself.
PANEL_SCOPES = ("ingest", "read", "export", "verify")


async def add_key(
    database: TestDatabase,
    log_id: int,
    scopes: Sequence[str] = SCOPES,
    *,
    expires_at: datetime | None = None,
) -> str:
    """A new API key of a log."""
    engine = database.owner_engine()
    async with engine.begin() as connection:
        _, key = await credentials.create_key(connection, log_id, secrets.token_hex(4), scopes, expires_at)
    await engine.dispose()
    return key


def dump(url: str) -> bytes:
    """The whole database as SQL, as its superuser sees it: every row of every table."""
    command = [str(program("pg_dump")), "--no-sync", url]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
