"""P2: how much of PostgreSQL's own speed is left when events come in by batches, are diffed, redacted and sealed on the way?

The other side is COPY of the very rows that came out of it, through asyncpg, into a table with the same indexes on the same server: in
transactions of 500 rows, as durable as ours, and once as a single COPY. Both tables grow alike, round by round.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg

from benchmarks.events import batch_bytes
from benchmarks.load import send_batches
from benchmarks.options import Options
from benchmarks.report import BenchmarkError, Figure, Section, counted, ratio
from benchmarks.service import Running, running
from benchmarks.tables import ALL_INDEXES, copy_rows, entry_columns, make_table

BATCH_EVENTS = 500
# The numbers of connections for each number of workers.
PLAN = {1: (1, 2), 2: (4,)}

Rates = dict[str, float]


def measure_p2(options: Options) -> Section:
    """Batch ingest over HTTP ÷ COPY of the same finished rows."""
    found = {workers: _medians(options, workers, PLAN[workers]) for workers in options.workers}
    ways = [
        (workers, counted(connections, "connection")) for workers in options.workers for connections in PLAN[workers]
    ]
    ratios = [
        ratio(f"{counted(workers, 'worker')}, {way} ÷ {name}", found[workers][way], found[workers][other])
        for other, name in (("batched", f"COPY in transactions of {BATCH_EVENTS}"), ("whole", "one COPY of everything"))
        for workers, way in ways
    ]
    first = Figure(f"P2: {ratios[0].name}", ratios[0].value, "ratio", 0.6)
    return Section(
        "P2",
        f"P2: batch ingest over HTTP, {BATCH_EVENTS} a call ÷ asyncpg COPY of the same finished rows into the same indexes",
        [
            first,
            *ratios[1:],
            *(
                Figure(f"batch ingest, {counted(workers, 'worker')}, {way}", found[workers][way], "events/s")
                for workers, way in ways
            ),
            Figure(f"COPY in transactions of {BATCH_EVENTS}", found[1]["batched"], "rows/s"),
            Figure("one COPY of everything", found[1]["whole"], "rows/s"),
        ],
        [
            (
                f"One tenant; medians over {counted(options.rounds, 'round')} of {options.batch_events} events each way; "
                "each number of workers against the COPY of its own run. COPY writes the entries only; "
                "ingest writes a receipt for each event as well, and moves the head."
            )
        ],
    )


def _medians(options: Options, workers: int, connections: Sequence[int]) -> Rates:
    """Events per second of each way, with so many workers."""
    rates: defaultdict[str, list[float]] = defaultdict(list)
    with running(options.folder, workers) as service:
        service.ask(_make_tables)
        # The first round warms up: connections, plans, and the files the table grows into.
        for number in range(options.rounds + 1):
            for way, rate in _round(options, service, connections, f"p2-{number}").items():
                rates[way].append(rate)
    return {way: statistics.median(found[1:]) for way, found in rates.items()}


def _round(options: Options, service: Running, connections: Sequence[int], prefix: str) -> Rates:
    """Each way once."""
    count = options.batch_events // BATCH_EVENTS
    before = service.size()
    rates = {}
    for number in connections:
        batches = [
            (service.key, batch_bytes(batch * BATCH_EVENTS, BATCH_EVENTS, f"{prefix}-{number}"))
            for batch in range(count)
        ]
        seconds = send_batches(service.url, batches, events=BATCH_EVENTS, connections=number)
        rates[counted(number, "connection")] = count * BATCH_EVENTS / seconds
    expected = count * BATCH_EVENTS * len(connections)
    return rates | service.ask(lambda connection: _copy_both(connection, before, expected))


async def _make_tables(connection: asyncpg.Connection) -> None:
    for name in ("batched", "whole"):
        await make_table(connection, name, ALL_INDEXES)


async def _copy_both(connection: asyncpg.Connection, from_seq: int, expected: int) -> Rates:
    """COPY what the round has appended, in both ways: rows per second of each."""
    columns = await entry_columns(connection)
    found = await connection.fetch(
        f"SELECT {', '.join(columns)} FROM audit.entry WHERE seq >= $1 "
        "AND log_id NOT IN (SELECT log_id FROM audit.tenant WHERE name = 'system') ORDER BY seq",
        from_seq,
    )
    rows = [tuple(row) for row in found]
    if len(rows) != expected:
        raise BenchmarkError(f"{expected} events were accepted and {len(rows)} stored")
    batched = await _seconds(lambda: copy_rows(connection, "batched", columns, rows, BATCH_EVENTS))
    whole = await _seconds(lambda: copy_rows(connection, "whole", columns, rows, len(rows)))
    return {"batched": len(rows) / batched, "whole": len(rows) / whole}


async def _seconds(work: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began
