"""P1: what does a durable, diffed, redacted and sealed event cost over HTTP, against a FastAPI endpoint that stores nothing?

And the same load over more connections, tenants and workers. Expected: a commit waits for the disk, so one connection is slow and
many are not; more tenants are more locks, more workers more Python.
"""

import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.events import batch_bytes, event_bytes
from benchmarks.load import Load, post_request, run_load, send_batches
from benchmarks.options import Options
from benchmarks.report import BenchmarkError, Figure, Section, counted, ratio
from benchmarks.service import Running, running

# So many different bodies, sent in turn. Without an id: the service makes one, and no two are the same event.
POOL_EVENTS = 64
P1_CONNECTIONS = 32
CONNECTIONS = (1, 32, 128)
BATCH_EVENTS = 500
WARM_UP_SECONDS = 1


def measure_p1(options: Options) -> Section:
    """Single-event POST ÷ the bare endpoint, in turn."""
    bodies = [event_bytes(number) for number in range(POOL_EVENTS)]
    ours: list[Load] = []
    bare: list[Load] = []
    with running(options.folder) as service, _bare() as bare_url:
        for round_ in range(options.rounds + 1):
            seconds = options.seconds if round_ else WARM_UP_SECONDS
            ours.append(post_load(options, service, [service.key], bodies, P1_CONNECTIONS, seconds))
            requests = [post_request(bare_url, service.key, body) for body in bodies]
            bare.append(run_load(options.generator, bare_url, requests, connections=P1_CONNECTIONS, seconds=seconds))
    ours, bare = ours[1:], bare[1:]  # the first was to warm up
    rate, bare_rate = _median(ours, "per_second"), _median(bare, "per_second")
    return Section(
        "P1",
        f"P1: single-event POST, durable, {P1_CONNECTIONS} connections, 1 worker ÷ bare FastAPI POST that stores nothing",
        [
            ratio("P1: audit-service ÷ bare FastAPI", rate, bare_rate, 0.8),
            Figure("audit-service", rate, "requests/s"),
            *_latencies("audit-service", ours),
            Figure("bare FastAPI", bare_rate, "requests/s"),
            *_latencies("bare FastAPI", bare),
        ],
        [
            (
                f"Bodies of {statistics.fmean(map(len, bodies)):.0f} bytes on average, the same on both sides; "
                f"medians over {counted(options.rounds, 'round')} of {options.seconds} s each, in turn."
            ),
        ],
    )


def measure_load(options: Options) -> Section:
    """Single posts over 1, 32 and 128 connections; single posts and batches to 1 and 64 tenants; 1 and 2 workers."""
    figures: list[Figure] = []
    for workers in options.workers:
        with running(options.folder, workers) as service:
            figures.extend(_load_figures(options, service, counted(workers, "worker")))
    return Section(
        "load",
        "Single posts and batches by connections, tenants and workers",
        figures,
        [
            (
                "Events per second are acknowledged, so durable. Clients, workers and PostgreSQL share the cores of one machine."
            ),
        ],
    )


def _load_figures(options: Options, service: Running, workers: str) -> Iterator[Figure]:
    bodies = [event_bytes(number) for number in range(POOL_EVENTS)]
    many = service.create_tenants(options.tenants)
    post_load(options, service, [service.key], bodies, P1_CONNECTIONS, WARM_UP_SECONDS)
    for connections in CONNECTIONS:
        found = post_load(options, service, [service.key], bodies, connections, options.seconds)
        name = f"single posts, {workers}, 1 tenant, {counted(connections, 'connection')}"
        yield Figure(name, found.per_second, "events/s")
        yield from _latencies(name, [found])
    found = post_load(options, service, many, bodies, CONNECTIONS[-1], options.seconds)
    yield Figure(
        f"single posts, {workers}, {len(many)} tenants, {CONNECTIONS[-1]} connections", found.per_second, "events/s"
    )
    count = max(options.batch_events // BATCH_EVENTS, 4)
    for keys in ([service.key], many):
        prefix = f"load-{workers}-{len(keys)}"
        batches = [
            (keys[number % len(keys)], batch_bytes(number * BATCH_EVENTS, BATCH_EVENTS, prefix))
            for number in range(count)
        ]
        seconds = send_batches(service.url, batches, events=BATCH_EVENTS, connections=4)
        yield Figure(
            f"batches of {BATCH_EVENTS}, {workers}, {counted(len(keys), 'tenant')}, 4 connections",
            count * BATCH_EVENTS / seconds,
            "events/s",
        )


def post_load(
    options: Options, service: Running, keys: Sequence[str], bodies: Sequence[bytes], connections: int, seconds: int
) -> Load:
    """Single posts to the service. Raises BenchmarkError unless at least as many entries were stored as were acknowledged."""
    before = service.size()
    # Every key with some body: the keys take turns faster than the bodies.
    count = max(len(keys), len(bodies))
    requests = [post_request(service.url, keys[i % len(keys)], bodies[i % len(bodies)]) for i in range(count)]
    found = run_load(options.generator, service.url, requests, connections=connections, seconds=seconds)
    stored = service.size() - before
    if stored < found.requests:
        raise BenchmarkError(f"{found.requests} events were acknowledged and {stored} stored")
    return found


def _latencies(name: str, loads: Sequence[Load]) -> list[Figure]:
    return [
        Figure(f"{name}: p50", _median(loads, "p50_ms"), "ms"),
        Figure(f"{name}: p99", _median(loads, "p99_ms"), "ms"),
    ]


def _median(loads: Sequence[Load], name: str) -> float:
    return statistics.median(float(getattr(load, name)) for load in loads)


@contextmanager
def _bare() -> Iterator[str]:
    """The bare application as a process of its own: its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare"], stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parent.parent
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().decode().strip()
        if not port:
            raise BenchmarkError("the bare application did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
