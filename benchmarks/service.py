"""The service under test: `audit-service serve` as a user starts it, on an embedded PostgreSQL of its own with its usual settings."""

import asyncio
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import asyncpg
import uvloop
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from audit_service.api.dependencies import Service
from audit_service.app import create_app
from audit_service.embedded import EmbeddedPostgres
from audit_service.ingest import Log, ingest
from audit_service.settings import Settings
from audit_service.store import credentials
from audit_service.store.engine import sqlalchemy_url
from benchmarks.events import event
from benchmarks.report import BenchmarkError
from benchmarks.seeding.cache import Seeded

CLI = "from audit_service.cli import main; main()"
START_SECONDS, STOP_SECONDS = 60.0, 60.0
FILL_BATCH_EVENTS = 500
# While one waits for the database, the other seals.
FILLERS = 2

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Running:
    """A started service."""

    url: str
    key: str
    data_dir: Path

    def database_url(self, role: str = "postgres") -> str:
        """The URL of its database: as `postgres`, who may do anything, or as `audit_serving`, as the workers do."""
        return EmbeddedPostgres.attach(self.data_dir).url(role)

    def size(self) -> int:
        """The entries of all logs together."""

        async def ask(connection: asyncpg.Connection) -> int:
            return int(
                await connection.fetchval(
                    "SELECT sum(size) FROM audit.log WHERE log_id NOT IN (SELECT log_id FROM audit.tenant WHERE name = 'system')"
                )
            )

        return self.ask(ask)

    def ask(self, question: Callable[[asyncpg.Connection], Awaitable[Result]]) -> Result:
        """What `question` answers, given a connection of the owner."""

        async def run() -> Result:
            connection = await asyncpg.connect(self.database_url())
            try:
                return await question(connection)
            finally:
                await connection.close()

        return uvloop.run(run())

    def run(self, task: Callable[[], Awaitable[Result]]) -> Result:
        """What `task` answers."""

        async def run() -> Result:
            return await task()

        return uvloop.run(run())

    def work(self, task: Callable[[Service, Log], Awaitable[Result]]) -> Result:
        """What `task` answers, given the parts a worker works with: pools of the serving role, recipe, and the default log."""

        async def run() -> Result:
            settings = Settings(database_url=self.database_url("audit_serving"))
            service: Service = create_app(settings).state.service
            try:
                credential = await service.credential(self.key)
                if credential is None:
                    raise BenchmarkError("the bootstrap key is not accepted")
                return await task(service, await service.log_of(credential))
            finally:
                await service.database.dispose()

        return uvloop.run(run())

    def command(self, *arguments: str) -> str:
        """What `audit-service` prints, run on its data directory. Raises BenchmarkError unless it ends well."""
        ended = subprocess.run(
            [sys.executable, "-P", "-c", CLI, *arguments],
            env=_environment(self.data_dir),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            raise BenchmarkError(f"audit-service {arguments[0]} failed:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
        return ended.stdout

    def fill(self, events: int) -> None:
        """Append events 0 … events - 1 to the default log, by the steps of an ingest without HTTP."""
        self.work(lambda service, log: _fill(service, log, events))

    def create_tenants(self, count: int) -> list[str]:
        """New tenants, each with a key that may ingest: the keys."""
        return asyncio.run(_create_tenants(self.database_url(), count))


@contextmanager
def running(
    folder: Path, workers: int = 1, *, on: Seeded | None = None, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Running]:
    """Start the service in a new folder under `folder`, wait until it is ready, stop it at the end.

    Given a seeded log it serves that one, in place: what is appended then stays in it, for whoever uses it next. `settings`: more
    variables of its environment. Raises BenchmarkError when the service does not start, or the seeded log has lost entries.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="serve-") as place:
        log_path = Path(place, "serve.log")
        data_dir = Path(place, "var") if on is None else on.data_dir
        key = "bench-" + secrets.token_urlsafe(32) if on is None else on.key
        environment = _environment(data_dir) | {
            "AUDIT_PORT": "0",
            "AUDIT_WORKERS": str(workers),
            "AUDIT_BOOTSTRAP_KEY": key,
            **settings,
        }
        # Its log goes to a file, as in real life: nobody has to read it while it is measured.
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", CLI, "serve"], env=environment, stdin=subprocess.DEVNULL, stderr=log
            )
        try:
            url = _wait_until_ready(process, log_path)
            service = Running(url, key, data_dir)
            if on is not None and service.size() < on.events:
                raise BenchmarkError(f"the seeded log does not hold its {on.events} events; remove {data_dir}")
            yield service
        finally:
            _stop(process)


def _environment(data_dir: Path) -> dict[str, str]:
    """No setting but this one, whatever the caller's are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_")}
    return kept | {"AUDIT_DATA_DIR": str(data_dir)}


def _wait_until_ready(process: subprocess.Popen[bytes], log_path: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        found = re.search(r"listening on (http://\S+)", log_path.read_text(errors="replace"))
        if found and is_answering(found[1] + "/readyz"):
            return found[1]
        time.sleep(0.05)
    raise BenchmarkError(f"the service did not start:\n{log_path.read_text(errors='replace')[-2000:]}")


def is_answering(url: str) -> bool:
    """Whether a GET succeeds now."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _fill(service: Service, log: Log, events: int) -> None:
    recipe = await service.recipe()
    starts = iter(range(0, events, FILL_BATCH_EVENTS))

    async def filler() -> None:
        for start in starts:
            values = [event(number, "fill") for number in range(start, min(start + FILL_BATCH_EVENTS, events))]
            for outcome in await ingest(service.appender(recipe), recipe, log, values):
                if isinstance(outcome, Exception):
                    raise BenchmarkError("an event was refused") from outcome

    await asyncio.gather(*(filler() for _ in range(FILLERS)))


async def _create_tenants(url: str, count: int) -> list[str]:
    engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            keys = []
            for number in range(count):
                log_id = (await credentials.create_tenant(connection, f"bench-{number}")).log_id
                _, key = await credentials.create_key(connection, log_id, "bench", ["ingest"])
                keys.append(key)
            return keys
    finally:
        await engine.dispose()
