"""Fixtures: the run's PostgreSQL server, a database for each test, and the service on it."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, settings

from audit_service.app import create_app
from audit_service.settings import Settings
from audit_service.store.engine import Database
from tests.support.api import Api
from tests.support.postgres import BOOTSTRAP_KEY, Server, TestDatabase, default_log_id, running_server

SHARED = Path(__file__).resolve().parents[2] / "shared"

settings.register_profile(
    "audit",
    print_blob=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("audit")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real input data beside the checkout; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the folder shared/ with real input data is not beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One embedded PostgreSQL for the whole run."""
    for name in [name for name in os.environ if name.startswith("AUDIT_")]:
        del os.environ[name]
    with running_server(tmp_path_factory.mktemp("postgres") / "data") as running:
        yield running


@pytest.fixture
async def database(server: Server) -> AsyncIterator[TestDatabase]:
    """A database of the test's own, migrated, with the tenant `default`."""
    created = await server.create()
    yield created
    await server.drop(created)


@pytest.fixture(scope="module")
async def module_database(server: Server) -> AsyncIterator[TestDatabase]:
    """A database that the tests of a module share."""
    created = await server.create()
    yield created
    await server.drop(created)


@pytest.fixture
async def log_id(database: TestDatabase) -> int:
    """The log of the tenant `default`."""
    return await default_log_id(database)


@pytest.fixture
async def pools(database: TestDatabase) -> AsyncIterator[Database]:
    """The pools of a worker on the test's database."""
    opened = database.open()
    yield opened
    await opened.dispose()


@pytest.fixture
def app_settings(database: TestDatabase) -> Settings:
    """Settings for an app on the test's database."""
    return Settings(database_url=database.serving_url)


@pytest.fixture
async def api(app_settings: Settings) -> AsyncIterator[Api]:
    """The app, called in process as an ASGI application, with the bootstrap key."""
    app = create_app(app_settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {BOOTSTRAP_KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://audit.test", headers=headers) as client:
        yield Api(client, app.state.service)
    await app.state.service.close()
