"""What `make soak` runs long and the acceptance tests run short: a fault under load, and the whole comparison after it."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.soak.faults import FAULTS, Fault
from tests.soak.harness import REFUSAL_LIMIT_SECONDS, Stack
from tests.soak.writers import Answer, Fleet, Ledger

WRITERS = 8
# A worker asks the database anew for a credential after a second: later probes meet another code path than the first.
PROBE_AGAIN_SECONDS = 1.2
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
    known, ledger = len(fleet.ledger.receipts), fleet.ledger
    async with fleet.writing():
        await asyncio.sleep(random.uniform(0.1, 0.7))
        began = time.monotonic()
        async with fault.inject(stack, random):
            if fault.kind == "away":
                await assert_refused(stack, ledger)
                began = 0.0
        mended = began or time.monotonic()
        recovery = await stack.recover(ledger, mended if fault.kind == "kill" else time.monotonic())
        await asyncio.sleep(0.2)
    if fault.kind == "away":
        assert ledger.slowest_refusal_seconds <= REFUSAL_LIMIT_SECONDS, ledger.slowest_refusal_seconds
    size = await stack.assert_nothing_lost(ledger)
    return Cycle(name, recovery, len(ledger.receipts) - known, size)
