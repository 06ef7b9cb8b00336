"""The durability harness: a real service with a proxy before it, its database, and the comparison of what was promised with what is there.

Two forms. `embedded_stack`: `serve` parents its own PostgreSQL and must bring everything back by itself. `external_stack`: the database is
the harness's, with a second proxy before it, so that it can be away in every way.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil

from audit_service.embedded import EmbeddedPostgres
from audit_service.embedded_process import cluster_processes
from tests.soak.proxy import Proxy
from tests.soak.writers import ANSWER_SECONDS, Answer, Connection, Fleet, Ledger
from tests.support.intact import assert_log_intact
from tests.support.postgres import BOOTSTRAP_KEY, SERVING_PASSWORD, Server, TestDatabase
from tests.support.processes import Service, free_port, start_service, wait_until

RECOVERY_LIMIT_SECONDS = 10.0
# The promise; a 503 while the database is away comes no later.
REFUSAL_LIMIT_SECONDS = 5.0
SOCKET_NAME = ".s.PGSQL.5432"
# The service's own notes in a log; nobody else may post such an action.
OWN = "SELECT id FROM audit.entry WHERE log_id = $1 AND kind = 'event' AND body::jsonb ->> 'action' LIKE 'audit.%'"
ENTRIES = f"""
SELECT id, seq, hash, prev_hash FROM audit.entry WHERE log_id = $1 AND kind = 'event' AND id <> ALL (ARRAY ({OWN}))
"""
RECEIPTS = f"SELECT id, seq, hash, prev_hash, kept FROM audit.receipt WHERE log_id = $1 AND id <> ALL (ARRAY ({OWN}))"

Row = asyncpg.Record | dict[str, Any]


@dataclass(slots=True)
class Stack:
    """A service with a proxy before it, and perhaps one before its database. `server` is the harness's own database, if it has one."""

    data_dir: Path
    front: Proxy
    owner_url: str
    environment: Mapping[str, str]
    command: list[str] | None = None
    server: Server | None = None
    back: Proxy | None = None
    service_port: int = field(default_factory=free_port)
    ledger: Ledger = field(default_factory=Ledger)
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _service: Service | None = None
    _probes: int = 0

    @property
    def service(self) -> Service:
        """The running `serve`."""
        assert self._service is not None, "not started"
        return self._service

    @property
    def cluster_dir(self) -> Path:
        """Where its database works."""
        return self.data_dir / "postgres" if self.server is None else self.server.postgres.cluster_dir

    def start(self, *, wait: bool = True) -> None:
        """Start `serve`; blocks until it answers, unless told not to."""
        settings = {"AUDIT_PORT": str(self.service_port), "AUDIT_BOOTSTRAP_KEY": BOOTSTRAP_KEY} | dict(self.environment)
        self._service = self._running.enter_context(
            start_service(self.data_dir, wait=wait, command=self.command, **settings)  # type: ignore[arg-type]  # all AUDIT_…
        )
        if self.server is None and wait:
            self.owner_url = EmbeddedPostgres.attach(self.data_dir).url("postgres")

    def stop(self) -> None:
        """End whatever is left of it."""
        self._running.close()

    def database_processes(self) -> list[psutil.Process]:
        """Every process of the database, the parent first."""
        found = list(cluster_processes(self.cluster_dir))
        return sorted(found, key=lambda process: process.pid)

    def fleet(self, writers: int, seed: int) -> Fleet:
        """Writers that go through the front proxy."""
        return Fleet(lambda: self.front.port, BOOTSTRAP_KEY, self.ledger, writers=writers, seed=seed)

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        media_type: str = "application/json",
        *,
        seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """One request on a connection of its own, past the front proxy."""
        connection = Connection(lambda: self.service_port, BOOTSTRAP_KEY)
        try:
            return await connection.ask(method, path, body, media_type, into=Answer(), seconds=seconds)
        finally:
            await connection.close()

    async def recover(self, since: float) -> float:
        """Wait until an event is acknowledged and the service says that it is ready: seconds since then, at most the limit."""
        while True:
            self._probes += 1
            event_id = f"probe-{since}-{self._probes}"
            self.ledger.sent.add(event_id)
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                answer = await self.ask("POST", "/v1/events", json.dumps({"id": event_id, "action": "probe"}).encode())
                if answer.status == 201:
                    self.ledger.acknowledge(event_id, json.loads(answer.body))
                    if (await self.ask("GET", "/readyz")).status == 200:
                        return time.monotonic() - since
            waited = time.monotonic() - since
            assert waited < RECOVERY_LIMIT_SECONDS, f"no recovery in {waited:.1f} s; it said:\n{self._said()}"
            await asyncio.sleep(0.05)

    def _said(self) -> str:
        return "\n".join(self.service.lines[-30:])

    @contextlib.asynccontextmanager
    async def owner(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the superuser, past the back proxy."""
        connection = await asyncpg.connect(self.owner_url, timeout=10)
        try:
            yield connection
        finally:
            await connection.close()

    async def find_violations(self) -> "Violations":
        """Compare the ledger with the tables."""
        async with self.owner() as connection:
            log_id = await self._log_id(connection)
            entries = await connection.fetch(ENTRIES, log_id)
            receipts = await connection.fetch(RECEIPTS, log_id)
        return compare(self.ledger, entries, receipts)

    async def assert_nothing_lost(self) -> int:
        """Every acknowledged event is there once, as its receipt says; the log is intact, and verify agrees. Returns its size."""
        assert self.ledger.wrong_answers == [], self.ledger.wrong_answers[:5]
        violations = await self.find_violations()
        assert violations == Violations(), str(violations)[:2000]
        async with self.owner() as connection:
            log_id = await self._log_id(connection)
            size = await connection.fetchval("SELECT size FROM audit.log WHERE log_id = $1", log_id)
            await assert_log_intact(connection, log_id, size)
        report = await self.verify()
        assert (report["status"], report["breaks"]) == ("ok", []), report
        # The service may have noted something since the size was read.
        assert report["checked"]["count"] >= size, report
        return int(size)

    async def verify(self) -> dict[str, Any]:
        """The service's own report about its log."""
        answer = await self.ask("GET", "/v1/chain/verify", seconds=600)
        assert answer.status == 200, answer
        report: dict[str, Any] = json.loads(answer.body)
        return report

    async def _log_id(self, connection: asyncpg.Connection) -> int:
        log_id: int = await connection.fetchval("SELECT log_id FROM audit.tenant WHERE name = 'default'")
        return log_id


@dataclass(slots=True)
class Violations:
    """Ids for which a promise was broken."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)


def compare(ledger: Ledger, entries: Sequence[Row], receipts: Sequence[Row]) -> Violations:
    """Acknowledged: there exactly once, as acknowledged. Sent only: there at most once. Never sent: not there."""
    counted = Counter(row["id"] for row in entries)
    found = {row["id"]: _place(row) for row in entries}
    noted = {row["id"]: (row["kept"], _place(row)) for row in receipts}
    violations = Violations(
        duplicated=sorted(event_id for event_id, times in counted.items() if times > 1),
        unasked=sorted((counted.keys() | noted.keys()) - ledger.sent),
    )
    for event_id, receipt in ledger.receipts.items():
        promised = (receipt["seq"], receipt["hash"], receipt["prev_hash"])
        if event_id not in noted or (receipt["kept"] and event_id not in found):
            violations.lost.append(event_id)
        elif noted[event_id] != (receipt["kept"], promised) or found.get(event_id, promised) != promised:
            violations.altered.append(event_id)
    return violations


def _place(row: Row) -> tuple[Any, Any, Any]:
    digests = [None if row[name] is None else row[name].hex() for name in ("hash", "prev_hash")]
    return row["seq"], digests[0], digests[1]


@contextlib.asynccontextmanager
async def embedded_stack(
    data_dir: Path, *, command: list[str] | None = None, workers: int = 2, **environment: str
) -> AsyncIterator[Stack]:
    """`serve` with its own PostgreSQL."""
    port = free_port()
    async with Proxy(lambda: port) as front:
        settings = {"AUDIT_WORKERS": str(workers)} | environment
        stack = Stack(data_dir, front, "", settings, command, service_port=port)
        async with _started(stack):
            yield stack


@contextlib.asynccontextmanager
async def external_stack(
    data_dir: Path, server: Server, database: TestDatabase, *, workers: int = 2, **environment: str
) -> AsyncIterator[Stack]:
    """`serve` on a database of `server`, with a proxy in between."""
    folder = Path(parse_qs(urlsplit(database.owner_url).query)["host"][0])
    port = free_port()
    async with Proxy(lambda: port) as front, Proxy(lambda: folder / SOCKET_NAME) as back:
        settings = {
            "AUDIT_WORKERS": str(workers),
            "AUDIT_DATABASE_URL": (
                f"postgresql://audit_serving:{SERVING_PASSWORD}@127.0.0.1:{back.port}/{database.name}?sslmode=disable"
            ),
            "AUDIT_MIGRATION_DATABASE_URL": database.owner_url,
        }
        stack = Stack(
            data_dir, front, database.owner_url, settings | environment, server=server, back=back, service_port=port
        )
        async with _started(stack):
            yield stack


@contextlib.asynccontextmanager
async def _started(stack: Stack) -> AsyncIterator[None]:
    # Whatever blocks goes into a thread: the proxies live on this loop.
    try:
        await asyncio.to_thread(stack.start)
        yield
    finally:
        await asyncio.to_thread(stack.stop)
        left = list(cluster_processes(stack.cluster_dir)) if stack.server is None else []
        await asyncio.to_thread(_end, left)


def _end(processes: Sequence[psutil.Process]) -> None:
    """The database of a killed supervisor ends by itself, but not one that is stopped or recovering."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes),
               "the end of the database")  # fmt: skip
