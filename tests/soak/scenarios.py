"""What `make soak` runs long and the acceptance tests run short: a fault under load, and the whole comparison after it."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.soak.faults import FAULTS
from tests.soak.harness import REFUSAL_LIMIT_SECONDS, Stack
from tests.soak.writers import Fleet

WRITERS = 8
# A worker asks the database anew for a credential after a second: later probes meet another code path than the first.
PROBE_AGAIN_SECONDS = 1.2
ALIVE_LIMIT_SECONDS = 2.0
# Every call that needs the database: method, path, body, media type.
EVENT = json.dumps({"id": "away", "action": "never.acknowledged"}).encode()
CALLS: Sequence[tuple[str, str, bytes, str]] = (
    ("POST", "/v1/events", EVENT, "application/json"),
    ("POST", "/v1/events", b'{"events":[' + EVENT + b"]}", "application/json"),
    ("POST", "/v1/events", EVENT + b"\n", "application/x-ndjson"),
    ("GET", "/v1/events", b"", "application/json"),
    ("GET", "/v1/chain", b"", "application/json"),
    ("GET", "/v1/chain/verify", b"", "application/json"),
    ("GET", "/readyz", b"", "application/json"),
)


@dataclass(frozen=True, slots=True)
class Cycle:
    """What was seen in one cycle."""

    fault: str
    recovery_seconds: float
    acknowledged: int
    size: int

    def __str__(self) -> str:
        return f"{self.fault}: back in {self.recovery_seconds:.2f} s, {self.acknowledged} acknowledged, {self.size} entries"


async def cycle(stack: Stack, fleet: Fleet, name: str, random: Random) -> Cycle:
    """Load, a fault at a random moment, recovery alone, a little more load, and the comparison."""
    fault = FAULTS[name]
    ledger, known = stack.ledger, len(stack.ledger.receipts)
    async with fleet.writing():
        await asyncio.sleep(random.uniform(0.1, 0.7))
        since = time.monotonic()
        async with fault.inject(stack, random):
            if fault.kind == "away":
                await assert_refused(stack)
        if fault.kind != "kill":  # what a kill breaks, nobody mends but the service
            since = time.monotonic()
        recovery = await stack.recover(since)
        await asyncio.sleep(0.2)
    if fault.kind == "away":
        assert ledger.slowest_refusal_seconds <= REFUSAL_LIMIT_SECONDS, ledger.slowest_refusal_seconds
    size = await stack.assert_nothing_lost()
    return Cycle(name, recovery, len(ledger.receipts) - known, size)


async def assert_refused(stack: Stack) -> None:
    """While the database is away every call says 503 with Retry-After in time, at once and once more when nothing is cached; the process
    is alive, and does not call itself ready."""
    # A refused event may have been committed all the same: its id is one that may, but need not, be there.
    stack.ledger.sent.add("away")
    await asyncio.gather(*(_assert_refused_after(stack, seconds) for seconds in (0, PROBE_AGAIN_SECONDS)))


async def _assert_refused_after(stack: Stack, seconds: float) -> None:
    await asyncio.sleep(seconds)
    alive, *answers = await asyncio.gather(stack.ask("GET", "/healthz"), *(stack.ask(*call) for call in CALLS))
    assert (alive.status, alive.seconds < ALIVE_LIMIT_SECONDS) == (200, True), alive
    for call, answer in zip(CALLS, answers, strict=True):
        assert answer.status == 503, (call, answer)
        assert answer.headers.get("retry-after", "").isdigit(), (call, answer)
        assert answer.seconds <= REFUSAL_LIMIT_SECONDS, (call, answer)


async def race(stack: Stack, *, writers: int, events: int, seed: int) -> int:
    """Many writers on one log through every worker: nobody is refused, no deadlock, no fork, no gap. Returns the size of the log."""
    workers = stack.service.workers()
    before = [sum(worker.cpu_times()[:2]) for worker in workers]
    await stack.fleet(writers, seed).write(events)
    spent = [sum(worker.cpu_times()[:2]) - seconds for worker, seconds in zip(workers, before, strict=True)]
    assert min(spent) > max(spent) / 20, f"one worker did nearly all, so nothing was raced: {spent}"
    ledger = stack.ledger
    assert (ledger.refused_tries, ledger.broken_tries) == (0, 0)
    assert len(ledger.receipts) == len(ledger.sent) >= events
    async with stack.owner() as connection:
        deadlocks = await connection.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
    assert deadlocks == 0
    return await stack.assert_nothing_lost()
