"""What does a greedy reader cost whoever posts? Ten exports and ten verifications at once, by one key, while single events are posted.

The posts come at a steady rate, as from a panel, so that their times are those of the service and not of a queue the generator made.
"""

import asyncio
import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.events import event_bytes
from benchmarks.load import post_request
from benchmarks.options import Options
from benchmarks.report import BenchmarkError, Figure, Section, counted
from benchmarks.service import Running, running

READERS = 10  # of each kind
POSTERS = 4
POSTS_PER_SECOND = 80
GREEDY_SCOPES = ["export", "verify"]


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
        _post(service, "warm", 2)
        for number in range(options.rounds):
            without = _post(service, f"alone-{number}", seconds)
            with _reading(service, greedy, tallies):
                time.sleep(min(options.seconds, 2))  # until they are at work
                with_them = _post(service, f"beside-{number}", seconds)
            alone += without
            beside += with_them
            ratios.append(_percentile(with_them, 99) / _percentile(without, 99))
    _check(tallies)
    return Section(
        "greedy",
        f"Single posts while one key asks for {READERS} exports and {READERS} verifications at once",
        [
            Figure("p99 with the greedy reader ÷ without", statistics.median(ratios), "ratio", 2.0, at_most=True),
            *(Figure(f"p{p} without", _percentile(alone, p) * 1000, "ms") for p in (50, 99)),
            *(Figure(f"p{p} with", _percentile(beside, p) * 1000, "ms") for p in (50, 99)),
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


def _percentile(seconds: list[float], percent: int) -> float:
    return sorted(seconds)[min(len(seconds) * percent // 100, len(seconds) - 1)]


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


def _post(service: Running, prefix: str, seconds: float) -> list[float]:
    """The seconds each post took. Raises BenchmarkError when one was not stored."""
    count = int(POSTS_PER_SECOND * seconds)
    requests = [post_request(service.url, service.key, event_bytes(number, prefix)) for number in range(count)]
    return asyncio.run(_post_all(service.url, requests))


async def _post_all(url: str, requests: list[bytes]) -> list[float]:
    place = urlsplit(url)
    began = time.perf_counter()

    async def post(first: int) -> list[float]:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        times = []
        for number in range(first, len(requests), POSTERS):
            await asyncio.sleep(began + number / POSTS_PER_SECOND - time.perf_counter())
            times.append(await _post_one(reader, writer, requests[number]))
        writer.close()
        return times

    return [one for times in await asyncio.gather(*map(post, range(POSTERS))) for one in times]


async def _post_one(reader: asyncio.StreamReader, writer: Any, request: bytes) -> float:
    sent = time.perf_counter()
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    taken = time.perf_counter() - sent
    if head[9:12] != b"201":
        raise BenchmarkError(f"a post was answered with {head[9:12].decode()}")
    return taken
