"""How long does an entry wait for a signed checkpoint that covers it, while writers go at full speed and the service signs as usual?"""

import asyncio
from collections.abc import Sequence

import asyncpg

from benchmarks.events import event_bytes
from benchmarks.options import Options
from benchmarks.report import BenchmarkError, Figure, Section
from benchmarks.service import Running, running
from benchmarks.single import P1_CONNECTIONS, POOL_EVENTS, post_load

GOAL_SECONDS = 5.0
BATCH_EVENTS, BATCH_CONNECTIONS = 500, 4
WARM_UP_EVENTS = 2_000
# After the last post: the signer's interval, and what it still has to read.
COVERING_SECONDS = 60
# Of every entry: from its recording to the publication of the first checkpoint that covers it, both by the database's clock.
_WAITED = """
    WITH signed AS (SELECT size, min(signed_at) AS signed_at FROM audit.checkpoint WHERE log_id = $1 GROUP BY size),
    covering AS (SELECT size, signed_at, lag(size, 1, 0::bigint) OVER (ORDER BY size) AS from_size FROM signed),
    waited AS (
        SELECT extract(epoch FROM c.signed_at - e.recorded_at)::float8 AS seconds
        FROM covering AS c JOIN audit.entry AS e ON e.log_id = $1 AND e.seq >= greatest(c.from_size, $2) AND e.seq < c.size
    )
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds), max(seconds), count(*),
        (SELECT count(*) FROM signed WHERE size > $2) FROM waited"""


def measure_lag(options: Options) -> Section:
    """Single posts, and batches, for `lag_seconds` each."""
    single = [event_bytes(number) for number in range(POOL_EVENTS)]
    batch = b"[%s]" % b",".join(single[number % POOL_EVENTS] for number in range(BATCH_EVENTS))
    figures = [
        *_lag(options, f"single posts, {P1_CONNECTIONS} connections", single, P1_CONNECTIONS),
        *_lag(options, f"batches of {BATCH_EVENTS}, {BATCH_CONNECTIONS} connections", [batch], BATCH_CONNECTIONS),
    ]
    return Section(
        "lag",
        "Age of an entry when the first signed checkpoint that covers it is published",
        figures,
        [f"Over all entries of {options.lag_seconds} s at full speed, 1 worker, the signer's default interval of 2 s."],
    )


def _lag(options: Options, name: str, bodies: Sequence[bytes], connections: int) -> list[Figure]:
    with running(options.folder) as service:
        service.fill(WARM_UP_EVENTS)
        before = service.size()
        post_load(options, service, [service.key], bodies, connections, options.lag_seconds)
        middle, longest, entries, checkpoints = _waited(service, before)
    return [
        Figure(f"{name}: longest", longest, "s", GOAL_SECONDS, at_most=True),
        Figure(f"{name}: p50", middle, "s"),
        Figure(f"{name}: entries", entries, "entries"),
        Figure(f"{name}: checkpoints that cover them", checkpoints, "checkpoints"),
    ]


def _waited(service: Running, from_seq: int) -> tuple[float, float, int, int]:
    """How long the entries from `from_seq` on waited, in seconds: median and longest; how many they are, and their checkpoints."""

    async def ask(connection: asyncpg.Connection) -> tuple[float, float, int, int]:
        log = await connection.fetchrow("SELECT log_id, size FROM audit.log ORDER BY size DESC LIMIT 1")
        assert log is not None
        log_id, size = log
        signed = "SELECT max(size) FROM audit.checkpoint WHERE log_id = $1"
        async with asyncio.timeout(COVERING_SECONDS):
            while (await connection.fetchval(signed, log_id) or 0) < size:  # noqa: ASYNC110 - another process signs
                await asyncio.sleep(0.1)
        row = await connection.fetchrow(_WAITED, log_id, from_seq)
        assert row is not None
        return row[0], row[1], row[2], row[3]

    try:
        return service.ask(ask)
    except TimeoutError:
        raise BenchmarkError(f"the log was not signed to its end within {COVERING_SECONDS} s") from None
