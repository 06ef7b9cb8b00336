"""Proofs over HTTP: how long does one take in a large log?

Random entries of a thin log that the service's own signer has followed, built the tiles of and signed, one request after the other on the
machine of the service. The service has just been started, so the first proofs work out the roots of the tiles at the border; those are
told by themselves. Background verification is off: a thin log has no receipts, so it would be called broken.
"""

import http.client
import random
import sys
import time
from collections.abc import Callable

from benchmarks.options import Options
from benchmarks.queries import connect, get, percentile
from benchmarks.report import BenchmarkError, Figure, Section
from benchmarks.seeding.cache import SEED, thin
from benchmarks.service import Running, running

WARMING = 50
GOAL_MS = 10.0
# The signer reads a log of 10 million entries from its beginning before it signs it.
SIGNING_SECONDS = 1_800.0


def measure_proofs(options: Options) -> Section:
    """Latencies of inclusion and consistency proofs in the largest log."""
    size = max(options.query_sizes)
    quiet = {"AUDIT_VERIFY_INTERVAL_SECONDS": "0"}
    with running(options.folder, on=thin(options.seeded_folder, size, report=_say), settings=quiet) as service:
        connection = connect(service)
        signed = wait_until_signed(connection, service)
        pick = random.Random(SEED)  # noqa: S311 - the same entries every time
        asked: dict[str, Callable[[], str]] = {
            "inclusion": lambda: f"/v1/chain/inclusion?seq={pick.randrange(signed)}",
            "inclusion in a size never signed": lambda: f"/v1/chain/inclusion?seq=0&size={pick.randrange(1, signed)}",
            "consistency": lambda: f"/v1/chain/consistency?from_size={pick.randrange(1, signed)}",
        }
        first = _milliseconds(connection, service.key, asked["inclusion"]())
        times: dict[str, list[float]] = {name: [] for name in asked}
        for number in range(options.proof_requests + WARMING):
            for name, path in asked.items():
                taken = _milliseconds(connection, service.key, path())
                if number >= WARMING:
                    times[name].append(taken)
        connection.close()
    goal = Figure("inclusion over HTTP, p99", percentile(times["inclusion"], 99), "ms", GOAL_MS, at_most=True)
    latencies = [
        Figure(f"{name}: p{part}", percentile(found, part), "ms")
        for name, found in times.items()
        for part in (50, 95, 99)
    ]
    return Section(
        "proofs",
        f"Proofs in a log of {signed:,} entries",
        [goal, *latencies, Figure("the very first inclusion after a start", first, "ms")],
        [
            f"{options.proof_requests} requests of each kind in turn, after {WARMING} to warm up, one after the other; nearest rank.",
            "A thin log: true headers, hashes and tiles; every body the same, no disclosures, receipts, projections or search index.",
        ],
    )


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def wait_until_signed(connection: http.client.HTTPConnection, service: Running) -> int:
    """The size of the first checkpoint that covers the whole log. Raises BenchmarkError when none comes."""
    size, deadline = service.size(), time.monotonic() + SIGNING_SECONDS
    while time.monotonic() < deadline:
        last = get(connection, service.key, "/v1/chain")["last_checkpoint"]
        if last is not None and last["size"] >= size:
            return int(last["size"])
        time.sleep(0.5)
    raise BenchmarkError(f"the signer has not signed the log of {size} entries in {SIGNING_SECONDS:.0f} s")


def _milliseconds(connection: http.client.HTTPConnection, key: str, path: str) -> float:
    began = time.perf_counter()
    get(connection, key, path)
    return (time.perf_counter() - began) * 1000
