"""The real PostgreSQL of a test run: one embedded server, one migrated template, one database copied from it for each test."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from audit_service.embedded import LOGIN_ROLES, EmbeddedPostgres
from audit_service.embedded_process import cluster_processes
from audit_service.provision import prepare
from audit_service.settings import Settings
from audit_service.store import credentials, migrate
from audit_service.store.engine import Database, open_database, sqlalchemy_url

TEMPLATE = "template_migrated"
SERVING_PASSWORD = "serving-password-of-the-tests"
BOOTSTRAP_KEY = "test-bootstrap-key-" + "x" * 30
SERVICE_NAME = "audit.example.com"


@dataclass(frozen=True, slots=True)
class TestDatabase:
    """One test's own database: `owner_url` may do everything (a DBA), `serving_url` what a worker may."""

    __test__ = False

    name: str
    owner_url: str
    serving_url: str

    async def owner(self) -> asyncpg.Connection:
        """A connection of the superuser."""
        return await asyncpg.connect(self.owner_url)

    async def serving(self) -> asyncpg.Connection:
        """A connection of the serving role."""
        return await asyncpg.connect(self.serving_url)

    def open(self) -> Database:
        """The pools a worker has."""
        return open_database(self.serving_url, pool_connections=4)

    def owner_engine(self) -> AsyncEngine:
        """An engine of the superuser, without a pool."""
        return create_async_engine(sqlalchemy_url(self.owner_url), poolclass=NullPool)


class Server:
    """The server of the run."""

    def __init__(self, data_dir: Path) -> None:
        self.postgres = EmbeddedPostgres(data_dir, options={"max_connections": "300", "shared_buffers": "128MB"})

    def url(self, database: str, role: str = "postgres", password: str | None = None) -> str:
        """A URL of a database on this server."""
        url = self.postgres.url(role, database) if password is None else self.postgres.url("postgres", database)
        if password is not None:
            head, _, tail = url.partition("@")
            del head
            url = f"postgresql://{role}:{password}@{tail}"
        return url

    def prepare_template(self) -> None:
        """Create and migrate the template, with the tenant `default` and the bootstrap key."""
        asyncio.run(self._execute(f"CREATE DATABASE {TEMPLATE}"))
        url = self.url(TEMPLATE)
        migrate.upgrade(url)
        settings = Settings(service_name=SERVICE_NAME, bootstrap_key=BOOTSTRAP_KEY)
        prepare(settings, url, passwords=dict.fromkeys(LOGIN_ROLES, SERVING_PASSWORD))

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def create(self, template: str = TEMPLATE) -> TestDatabase:
        """A fresh copy of the template, or of another database that nobody is connected to."""
        name = f"test_{secrets.token_hex(6)}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return TestDatabase(name, self.url(name), self.url(name, "audit_serving", SERVING_PASSWORD))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Every process of the server is stopped, as with a paused machine: connections stay, and nothing answers."""
        processes = list(cluster_processes(self.postgres.cluster_dir))
        try:
            for process in processes:
                process.suspend()
            yield
        finally:
            for process in processes:
                process.resume()

    async def drop(self, database: TestDatabase) -> None:
        """Drop it with whatever is still connected."""
        await self._execute(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")


@contextmanager
def running_server(data_dir: Path) -> Iterator[Server]:
    """A started server with its template; stopped and reaped at the end."""
    server = Server(data_dir)
    server.postgres.start()
    try:
        server.prepare_template()
        yield server
    finally:
        server.postgres.stop(10)


async def default_log_id(database: TestDatabase) -> int:
    """The log id of the tenant `default`."""
    return await log_id_of(database, credentials.DEFAULT_TENANT)


async def log_id_of(database: TestDatabase, tenant: str) -> int:
    """The log id of a tenant."""
    engine = database.owner_engine()
    async with engine.connect() as connection:
        found = await credentials.find_tenant(connection, tenant)
    await engine.dispose()
    assert found is not None
    return int(found.log_id)
