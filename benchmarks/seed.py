"""Seed a log to measure queries on, and keep it: `python -m benchmarks.seed --events 1000000 --folder F`.

Believable events (`seeding.history`), sealed by the service's own recipe and loaded by COPY (`seeding.load`), kept for the next run
(`seeding.cache`). A log that is there already is only named. `--verify` checks every entry and receipt of it, as `audit-service verify`
does. The last line is the data directory: `AUDIT_DATA_DIR=… audit-service serve` serves it, with the key in its `seeded.json`.
"""

import argparse
import asyncio
import signal
import sys
import time
from pathlib import Path

from audit_service.embedded import EmbeddedPostgres
from audit_service.errors import AuditError
from audit_service.store.credentials import DEFAULT_TENANT, find_tenant
from audit_service.store.engine import connected, open_database
from audit_service.verify import Report, verify
from benchmarks.options import SEEDED_FOLDER
from benchmarks.report import BenchmarkError
from benchmarks.seeding.cache import SEED, Seeded, seeded

# What the processes that seal spend their time on, together.
_SEALING = {"events": "making events up", "seal": "sealing", "copy": "COPY", "wait": "waiting for their turn"}
_STEPS = {
    "start": "starting PostgreSQL", "prepare": "migrating", "load": "sealing and loading", "indexes": "indexes", "vacuum": "VACUUM",
    "search": "search index", "stop": "stopping PostgreSQL",
}  # fmt: skip


def main() -> int:
    """Seed, or find what was seeded before: 0; 1 when that failed, or the log does not verify."""
    arguments = _arguments()
    # So that a stop unwinds: no server and nothing unfinished stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        began = time.monotonic()
        made = seeded(arguments.folder, arguments.events, seed=arguments.seed, report=_say)
        _say_rate(made, time.monotonic() - began)
        if arguments.verify and not _is_intact(made):
            return 1
    except (BenchmarkError, AuditError) as error:
        _say(f"benchmarks: {error}")
        return 1
    print(made.data_dir)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _say_rate(made: Seeded, taken_seconds: float) -> None:
    """Events per second, and where the time went, now or when it was made."""
    steps = {name: made.seconds[name] for name in _STEPS}
    total = sum(steps.values())
    when = "seeded" if taken_seconds >= total else "there already; it was seeded"
    _say(f"{made.events:,} events {when} in {total:.1f} s, {made.events / total:,.0f} events/s")
    _say("  " + ", ".join(f"{_STEPS[name]} {seconds:.1f} s" for name, seconds in steps.items()))
    each = {_SEALING[name]: made.seconds[name] / made.events * 1e6 for name in _SEALING}
    _say("  of the sealing processes, µs an event: " + ", ".join(f"{name} {us:.0f}" for name, us in each.items()))


def _is_intact(made: Seeded) -> bool:
    """Whether every entry and receipt verifies; says so, or what is wrong."""
    server = EmbeddedPostgres(made.data_dir)
    server.start()
    try:
        began = time.monotonic()
        report = asyncio.run(_verify(server.url("audit_serving")))
    finally:
        server.stop()
    _say(f"verified in {time.monotonic() - began:.1f} s: {report.status}, {report.count:,} entries")
    for found in report.breaks[:10]:
        _say(f"  seq {found.seq}: {found.kind}, expected {found.expected}, found {found.found}")
    return report.status == "ok" and report.count == made.events


async def _verify(url: str) -> Report:
    database = open_database(url)
    try:
        async with connected(database.writes) as connection:
            tenant = await find_tenant(connection, DEFAULT_TENANT)
        assert tenant is not None
        async for step in verify(database.reads, tenant.log_id):
            if isinstance(step, Report):
                return step
        raise BenchmarkError("the verification ended without a report")
    finally:
        await database.dispose()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seed", description="A large, believable log.")
    parser.add_argument("--events", type=int, required=True, help="how many, for instance 1000000")
    parser.add_argument(
        "--folder", type=Path, default=SEEDED_FOLDER, help="where it is kept (default: benchmarks/out/seeded)"
    )
    parser.add_argument(
        "--seed", type=int, default=SEED, help=f"seed number (default: {SEED}); another one makes other events"
    )
    parser.add_argument("--verify", action="store_true", help="check every entry and receipt")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
