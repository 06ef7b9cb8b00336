"""What does a greedy reader cost whoever posts? Ten exports and ten verifications at once, by one key, while single events are posted."""

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.options import Options
from benchmarks.queries import percentile
from benchmarks.report import BenchmarkError, Figure, Section, counted
from benchmarks.service import Running, running
from benchmarks.steady import POSTERS, POSTS_PER_SECOND, post_for

READERS = 10  # of each kind
GREEDY_SCOPES = ["export", "verify"]
SETTLE_SECONDS = 5


def measure_greedy(options: Options) -> Section:
    """p99 of single posts with a greedy reader ÷ without one, in turn."""
    alone: list[float] = []
    beside: list[float] = []
    tallies: list[dict[str, int]] = []
    ratios: list[float] = []
    seconds = options.seconds * 2
    with running(options.folder) as service:
        service.fill(options.stored_events)
        greedy = _new_key(service)
        post_for(service, "warm", 2)
        for number in range(options.rounds):
            without = post_for(service, f"alone-{number}", seconds)
            with _reading(service, greedy, tallies):
                time.sleep(min(options.seconds, 2))  # until they are at work
                with_them = post_for(service, f"beside-{number}", seconds)
            alone += without
            beside += with_them
            ratios.append(percentile(with_them, 99) / percentile(without, 99))
    _check(tallies)
    return Section(
        "greedy",
        f"Single posts while one key asks for {READERS} exports and {READERS} verifications at once",
        [
            Figure("p99 with the greedy reader ÷ without", statistics.median(ratios), "ratio", 2.0, at_most=True),
            *(Figure(f"p{p} without", percentile(alone, p) * 1000, "ms") for p in (50, 99)),
            *(Figure(f"p{p} with", percentile(beside, p) * 1000, "ms") for p in (50, 99)),
            *(Figure(name, value, "answers") for name, value in _answers(tallies)),
        ],
        [
            (
                f"{options.stored_events} entries, 1 worker with its default limits, {POSTS_PER_SECOND} posts a second "
                f"on {POSTERS} connections by another key, {seconds} s each way; the ratio is the "
                f"median over {counted(options.rounds, 'round')} in turn. "
                "Whoever is refused comes again after a quarter of a second."
            )
        ],
    )


def _new_key(service: Running) -> str:
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)
    headers = {"Authorization": f"Bearer {service.key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/keys", json.dumps({"name": "greedy", "scopes": GREEDY_SCOPES}), headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    key: str = answer["key"]
    return key


@contextmanager
def _reading(service: Running, key: str, tallies: list[dict[str, int]]) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.readers", service.url, str(READERS), str(READERS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(key + "\n")
        process.stdin.flush()
        yield
    finally:
        output, _ = process.communicate()
    if process.returncode != 0:
        raise BenchmarkError("the greedy readers failed")
    tallies.append(json.loads(output))
    time.sleep(SETTLE_SECONDS)  # what still waits for a place is not told at once that nobody is there any more


def _answers(tallies: list[dict[str, int]]) -> list[tuple[str, float]]:
    names = sorted({name for tally in tallies for name in tally if "begun" in name})
    return [(name, float(sum(tally.get(name, 0) for tally in tallies))) for name in names]


def _check(tallies: list[dict[str, int]]) -> None:
    found = dict(_answers(tallies))
    for kind in ("export", "verify"):
        if not found.get(f"{kind} begun 200"):
            raise BenchmarkError(f"no {kind} ran beside the posts: {found}")
    if set(found) - {f"{kind} begun {status}" for kind in ("export", "verify") for status in (200, 429, 503)}:
        raise BenchmarkError(f"the readers were answered with something else: {found}")
