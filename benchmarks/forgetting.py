"""Does forgetting block whoever posts? Single posts at a steady rate while a person whom 40 % of the log concern is erased, while all of it
is cleared, and while it is pruned: each by the command, as an operator runs it beside the service, and each against the same posts just
before. Expected: they wait for processor and disk, never for a lock that is held long.

On a copy of a seeded log, which is signed before anything begins. Background verification is off, so that it falls into neither side;
after each command the log is verified.
"""

import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.options import Options
from benchmarks.proving import wait_until_signed
from benchmarks.queries import connect, percentile
from benchmarks.report import BenchmarkError, Figure, Section
from benchmarks.seeding.cache import seeded
from benchmarks.seeding.history import NEEDLES
from benchmarks.service import Running, running
from benchmarks.steady import POSTERS, POSTS_PER_SECOND, post_beside, post_for

POST_LIMIT_SECONDS = 5.0
QUIET = {"AUDIT_VERIFY_INTERVAL_SECONDS": "0"}
ERASED_SHARE = 0.3  # of the log, at least
_REASON = ("--reason", "benchmark")
_DO = (*_REASON, "--yes", "--json")


@dataclass(frozen=True, slots=True)
class _Command:
    """What is run, and how it tells of how many entries it forgot something, at least so many; `verified`: where a report counts it."""

    arguments: tuple[str, ...]
    counted: str
    at_least: float
    verified: str


def measure_forgetting(options: Options) -> Section:
    """Post times beside `erase`, `clear` and `prune` ÷ without, and how fast each is, in the smallest log."""
    size, seconds = min(options.query_sizes), options.seconds * 2
    kept = seeded(options.seeded_folder, size, report=_say)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="forgetting-") as folder:
        log = replace(kept, data_dir=shutil.copytree(kept.data_dir, Path(folder, "var")))
        with running(options.folder, on=log, settings=QUIET) as service:
            _wait_until_signed(service)
            post_for(service, "warm", 2)
            person = ("--actor", NEEDLES.busy_actor, "--request", "R-1")
            erase = _Command(("erase", *person, *_DO), "entries", size * ERASED_SHARE, "erased")
            figures = _measure(service, erase, seconds)
            figures += _measure(service, _Command(("clear", *_DO), "entries", size, "dropped"), seconds)
            figures += _measure(service, _prepare_prune(service, Path(folder, "archive.zip")), seconds)
    return Section(
        "forgetting",
        f"Single posts beside forgetting in a log of {size:,} events",
        figures,
        [
            (
                f"{POSTS_PER_SECOND} posts a second on {POSTERS} connections, 1 worker; {seconds} s of them before each command, "
                f"then as long as it runs. One that is refused, or has no answer after {POST_LIMIT_SECONDS:g} s, ends the run. "
                "Rates are those of whole commands: start included, and with `prune` the check of its archive."
            ),
            "What was pruned had been cleared before, so it had no content left. The log verified after each command.",
        ],
    )


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _wait_until_signed(service: Running) -> None:
    connection = connect(service)
    wait_until_signed(connection, service)
    connection.close()


def _prepare_prune(service: Running, archive: Path) -> _Command:
    """Of all that is signed by now: the command that prunes it, its archive made."""
    _wait_until_signed(service)
    asked = ("prune", "--before", str(service.size()), *_REASON, "--dry-run", "--json")
    cut: int = json.loads(service.command(*asked))["cut"]
    service.command("evidence", "--to-seq", str(cut), "--out", str(archive))
    return _Command(("prune", "--before", str(cut), "--archive", str(archive), *_DO), "deleted", cut, "pruned_before")


def _measure(service: Running, command: _Command, seconds: float) -> list[Figure]:
    """Posts alone, then beside the command. Raises BenchmarkError for a post that was late or not stored, too little forgotten, or a log
    that does not verify."""
    name = command.arguments[0]
    _say(name)

    def timed() -> tuple[dict[str, Any], float]:
        began = time.perf_counter()
        told = json.loads(service.command(*command.arguments))
        return told, time.perf_counter() - began

    alone = post_for(service, f"before-{name}", seconds)
    beside, (told, taken) = post_beside(service, f"beside-{name}", timed, limit_seconds=POST_LIMIT_SECONDS)
    entries = told[command.counted]
    if entries < command.at_least:
        raise BenchmarkError(f"{name} forgot too little: {told}")
    report = json.loads(service.command("verify", "--json"))
    if report["status"] != "ok" or not report[command.verified]:
        raise BenchmarkError(f"after {name} the log does not verify as it should: {report}")
    return [
        Figure(
            f"{name}: p99 of posts beside it ÷ just before", percentile(beside, 99) / percentile(alone, 99), "ratio"
        ),
        *_latencies(f"{name}: posts just before", alone),
        *_latencies(f"{name}: posts beside it", beside),
        Figure(f"{name}: entries", entries, "entries"),
        Figure(f"{name}: entries a second", entries / taken, "entries/s"),
    ]


def _latencies(name: str, seconds: list[float]) -> list[Figure]:
    parts = [Figure(f"{name}, p{part}", percentile(seconds, part) * 1000, "ms") for part in (50, 99)]
    return [*parts, Figure(f"{name}, longest", max(seconds) * 1000, "ms")]
