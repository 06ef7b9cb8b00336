"""Seal a history and load it: what `ingest.seal` and `audit.append_entries` would have stored, by COPY.

Every process seals its own chunks by the service's recipe, and sends the body hashes to the one that chains. That one links them in
order and sends the links back when the rows of the chunk before are in; then the process that sealed the chunk copies it, entries and
receipts in one transaction. So chunk after chunk fills the table, as appends do, and only hashes travel between processes.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection

import asyncpg
import uvloop

from audit_service.app import recipe_of
from audit_service.core import chain
from audit_service.core.checker import microseconds
from audit_service.core.entry import GROUPS, Projection
from audit_service.core.merkle import HASH_BYTES
from audit_service.ingest import Log, Sealed, seal
from audit_service.settings import Settings
from audit_service.store.credentials import Installation
from benchmarks.report import BenchmarkError
from benchmarks.seeding.history import CALL_EVENTS, History

CHUNK_EVENTS = 250 * CALL_EVENTS
FIRST_EPOCH = 1
ENTRY_COLUMNS = (
    "log_id", "seq", "recorded_at", "epoch", "kind", "prev_hash", "body_hash", "hash", "body",
    *(f"d_{group}" for group in GROUPS),
    *Projection._fields,
)  # fmt: skip
RECEIPT_COLUMNS = (
    "log_id", "seq", "recorded_at", "epoch", "kept", "id", "prev_hash", "hash", "salt", "fingerprint", "ruleset",
)  # fmt: skip
_COPIED = b"copied"

Times = dict[str, float]


@dataclass(frozen=True, slots=True)
class Job:
    """What every process needs to know: whose log, on which database, and which history."""

    url: str = field(repr=False)
    log: Log
    secret: bytes = field(repr=False)
    seed: int
    events: int


def load(job: Job, processes: int, progress: Callable[[int], None]) -> tuple[chain.Head, Times]:
    """Fill the empty log of `job`, except its head row. Returns the head that row must get, and the seconds of all processes together
    by what they went into. `progress` is told how many events are in. Raises BenchmarkError when a process fails, which says why
    on stderr."""
    history = History(job.seed, job.events)
    head = chain.Head.genesis(chain.format_origin(job.log.service_name, job.log.log_key, FIRST_EPOCH))
    times: Times = {"link": 0.0}
    with _sealers(job, processes) as pipes:
        try:
            for chunk, start in enumerate(range(0, job.events, CHUNK_EVENTS)):
                pipe = pipes[chunk % processes]
                digests = pipe.recv_bytes()
                began = time.perf_counter()
                before, (hashes, head) = head.last_hash, _link(head, history, start, digests)
                times["link"] += time.perf_counter() - began
                if chunk:
                    _expect_copied(pipes[(chunk - 1) % processes])
                    progress(start)
                pipe.send_bytes(before + hashes)
            _expect_copied(pipes[chunk % processes])
            progress(job.events)
            for pipe in pipes:
                for name, seconds in pipe.recv().items():
                    times[name] = times.get(name, 0.0) + seconds
        except (EOFError, ConnectionError):
            raise BenchmarkError("a process that seals events has failed") from None
    return head, times


def _expect_copied(pipe: Connection) -> None:
    if pipe.recv_bytes() != _COPIED:
        raise BenchmarkError("a process that seals events is out of step")


def _link(head: chain.Head, history: History, start: int, digests: bytes) -> tuple[bytes, chain.Head]:
    """Chain a chunk, call by call: its hashes, one after another, and the new head."""
    hashes = []
    position = 0
    for count, at in history.calls(start, start + len(digests) // HASH_BYTES):
        call = [digests[HASH_BYTES * n : HASH_BYTES * (n + 1)] for n in range(position, position + count)]
        links, head = chain.link(head, call, recorded_at_us=microseconds(at))
        hashes += [link.hash for link in links]
        position += count
    return b"".join(hashes), head


@contextmanager
def _sealers(job: Job, processes: int) -> Iterator[list[Connection]]:
    """The processes, each at the other end of a pipe. A process whose pipe breaks ends by itself."""
    # Spawned, not forked: a fork would inherit the other pipes, and no break of them would ever show.
    context = get_context("spawn")
    pipes, started = [], []
    try:
        for place in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_seal_chunks, args=(job, place, processes, theirs), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            started.append(process)
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for process in started:
            process.join()


def _seal_chunks(job: Job, place: int, processes: int, pipe: Connection) -> None:
    """One process: seal every `processes`-th chunk, beginning with number `place`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the first process; its end ends this one
    sealer = _Sealer(job)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        connection = runner.run(connect(job.url))
        try:
            for start in range(place * CHUNK_EVENTS, job.events, processes * CHUNK_EVENTS):
                sealed = sealer.seal(start, min(start + CHUNK_EVENTS, job.events))
                body_hashes = [chain.body_hash(item.candidate.prepared.body) for item in sealed]
                pipe.send_bytes(b"".join(body_hashes))
                with sealer.timed("wait"):
                    linked = pipe.recv_bytes()
                with sealer.timed("copy"):
                    runner.run(_copy(connection, *sealer.rows(start, sealed, body_hashes, linked)))
                pipe.send_bytes(_COPIED)
            pipe.send(sealer.times)
        except (EOFError, ConnectionError):
            return  # whoever chains is gone
        finally:
            runner.run(connection.close())


async def connect(url: str) -> asyncpg.Connection:
    """A connection to load by. A commit need not be on the disk: what was not finished when the machine went down is never used."""
    return await asyncpg.connect(url, server_settings={"synchronous_commit": "off"})


class _Sealer:
    """Seals by the recipe of a service with every default, and makes rows of it."""

    def __init__(self, job: Job) -> None:
        self._log = job.log
        # Not `Settings()`: that would read AUDIT_ variables, which the service under test does not get either.
        self._recipe = recipe_of(Settings.model_construct(), Installation(job.log.service_name, job.secret))
        self._history = History(job.seed, job.events)
        self.times: Times = {"events": 0.0, "seal": 0.0, "wait": 0.0, "copy": 0.0}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to those of `name`."""
        began = time.perf_counter()
        yield
        self.times[name] += time.perf_counter() - began

    def seal(self, start: int, end: int) -> list[Sealed]:
        """The events [start, end), sealed. Raises BenchmarkError for one that would not be kept."""
        with self.timed("events"):
            events = [self._history.event(number) for number in range(start, end)]
        with self.timed("seal"):
            sealed = [
                seal(self._recipe, self._log, event, None, at)
                for event, at in zip(events, self._times(start, end), strict=True)
            ]
        if not all(item.candidate.keep for item in sealed):
            raise BenchmarkError("an event would not be kept: its rows do not differ")
        return sealed

    def rows(
        self, start: int, sealed: Sequence[Sealed], body_hashes: Sequence[bytes], linked: bytes
    ) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
        """Entries and receipts. `linked`: the hash before the chunk, then that of each entry."""
        hashes = [linked[at : at + HASH_BYTES] for at in range(0, len(linked), HASH_BYTES)]
        log_id, ruleset = self._log.log_id, self._recipe.rules.digest
        entries: list[tuple[object, ...]] = []
        receipts: list[tuple[object, ...]] = []
        times = self._times(start, start + len(sealed))
        for place, (item, at) in enumerate(zip(sealed, times, strict=True)):
            candidate, seq, prev_hash, hash_ = item.candidate, start + place, hashes[place], hashes[place + 1]
            prepared = candidate.prepared
            entries.append(
                (
                    *(log_id, seq, at, FIRST_EPOCH, "event", prev_hash, body_hashes[place], hash_, prepared.body),
                    *map(prepared.disclosures.get, GROUPS),
                    *prepared.projection,
                )
            )
            receipts.append(
                (log_id, seq, at, FIRST_EPOCH, True, candidate.id, prev_hash, hash_, candidate.salt, candidate.fingerprint, ruleset)
            )  # fmt: skip
        return entries, receipts

    def _times(self, start: int, end: int) -> Iterator[datetime]:
        """When each of the events [start, end) is recorded."""
        for count, at in self._history.calls(start, end):
            yield from (at for _ in range(count))


async def _copy(
    connection: asyncpg.Connection, entries: Sequence[tuple[object, ...]], receipts: Sequence[tuple[object, ...]]
) -> None:
    async with connection.transaction():
        for table, columns, records in (
            ("entry", ENTRY_COLUMNS, entries),
            ("receipt", RECEIPT_COLUMNS, receipts),
        ):
            await connection.copy_records_to_table(table, schema_name="audit", columns=columns, records=records)
