"""P4 and P6: how fast is an export over HTTP, how much memory does it take, and how much does it take from those who write?

P4 sets it against psql's \\copy of the same rows to a file. P6 is the growth of the service's own processes (not PostgreSQL's, whose shared
memory would be counted once for each) while everything is exported. Beside exports, batches come in as in P2.
"""

import re
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from audit_service.embedded import program
from audit_service.embedded_process import program_environment
from audit_service.store.rows import EVENT_COLUMNS
from benchmarks.events import batch_bytes
from benchmarks.load import send_batches
from benchmarks.memory import resident_bytes, sampled
from benchmarks.options import Options
from benchmarks.reading import vacuum
from benchmarks.report import BenchmarkError, Figure, Section, counted, ratio
from benchmarks.seeding.cache import seeded
from benchmarks.service import Running, running

RECEIVE_BYTES = 1 << 20
BATCH_EVENTS, BATCH_CONNECTIONS = 500, 2
EXPORTS = ("csv", "ndjson")
SAMPLE_SECONDS = 0.05


def measure_p4(options: Options) -> Section:
    """CSV and NDJSON over HTTP ÷ psql's \\copy to a file, in turn."""
    times: dict[str, list[float]] = {"csv": [], "ndjson": [], "psql": []}
    with running(options.folder) as service:
        service.fill(options.stored_events)
        service.ask(vacuum)
        target = options.folder / "copy.csv"
        for _ in range(options.rounds + 1):
            times["csv"].append(_timed(lambda: _export(service, "csv", options.stored_events)))
            times["ndjson"].append(_timed(lambda: _export(service, "ndjson", options.stored_events)))
            times["psql"].append(_timed(lambda: _psql_copy(service, target, options.stored_events)))
        target.unlink()
    rate = {name: options.stored_events / statistics.median(found[1:]) for name, found in times.items()}
    return Section(
        "P4",
        "P4: export over HTTP ÷ psql \\copy of the same rows",
        [
            ratio("P4: CSV", rate["csv"], rate["psql"], 0.6),
            ratio("P4: NDJSON", rate["ndjson"], rate["psql"], 0.6),
            Figure("CSV export", rate["csv"], "entries/s"),
            Figure("NDJSON export", rate["ndjson"], "entries/s"),
            Figure("psql \\copy", rate["psql"], "rows/s"),
        ],
        [
            (
                f"{options.stored_events} entries, 1 worker, medians over {counted(options.rounds, 'round')} in turn. "
                "Both sides read the same columns (header, body, disclosures); "
                "psql writes them to a CSV file as they are, the export parses, renders and sends them."
            ),
        ],
    )


def measure_p6(options: Options) -> Section:
    """Growth of the service while a large log is exported, once in each format."""
    size = max(options.query_sizes)
    log = seeded(options.seeded_folder, size)
    with running(options.folder, on=log) as service:
        expected = service.size()
        before = _resident_bytes()
        growth = {}
        for format_ in EXPORTS:
            with sampled(_resident_bytes, SAMPLE_SECONDS) as peak:
                _export(service, format_, expected)
            growth[format_] = (max(peak) - before) / 2**20
    return Section(
        "P6",
        f"P6: growth of the service's memory while exporting {expected:,} events",
        [
            Figure("P6: the larger growth", max(growth.values()), "MiB", 50.0, at_most=True),
            *(Figure(f"{format_} export", value, "MiB") for format_, value in growth.items()),
            Figure("before", before / 2**20, "MiB"),
        ],
        [
            "RSS of supervisor, worker, indexer and the export's formatter together, looked at every 50 ms; the formatter is all growth."
        ],
    )


def _resident_bytes() -> int:
    """Of the Python processes below this one: the service under test."""
    return resident_bytes(child for child in psutil.Process().children(recursive=True) if "python" in _name(child))


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def measure_beside(options: Options) -> Section:
    """Batch ingest while two exports run ÷ batch ingest alone, in turn."""
    rates: dict[str, list[float]] = {"alone": [], "beside": []}
    with running(options.folder) as service:
        service.fill(options.stored_events)
        service.ask(vacuum)
        for number in range(options.rounds + 1):
            rates["alone"].append(_ingest(options, service, f"alone-{number}"))
            with _exporting(service) as exported:
                rates["beside"].append(_ingest(options, service, f"beside-{number}"))
            if len(exported) < len(EXPORTS):
                raise BenchmarkError("the exports did not run beside the batches")
    rate = {name: statistics.median(found[1:]) for name, found in rates.items()}
    return Section(
        "beside",
        "Batch ingest while two exports run",
        [
            ratio("ingest while two exports run ÷ ingest alone", rate["beside"], rate["alone"], 0.8),
            Figure("ingest alone", rate["alone"], "events/s"),
            Figure("ingest while two exports run", rate["beside"], "events/s"),
        ],
        [
            (
                f"1 worker, {BATCH_CONNECTIONS} connections, batches of {BATCH_EVENTS}, {options.batch_events} events each way, "
                f"medians over {counted(options.rounds, 'round')} in turn. One CSV and one NDJSON export, each begun again when it ends."
            )
        ],
    )


def _ingest(options: Options, service: Running, prefix: str) -> float:
    """Events a second."""
    starts = range(0, options.batch_events, BATCH_EVENTS)
    batches = [(service.key, batch_bytes(start, BATCH_EVENTS, prefix)) for start in starts]
    return options.batch_events / send_batches(service.url, batches, events=BATCH_EVENTS, connections=BATCH_CONNECTIONS)


@contextmanager
def _exporting(service: Running) -> Iterator[set[str]]:
    """Export in every format of EXPORTS, again and again. The set has those that were sending when looked at in the end."""
    ended, exported = threading.Event(), set[str]()
    began = [threading.Event() for _ in EXPORTS]

    def export(format_: str, begun: threading.Event) -> None:
        while not ended.is_set():
            for _ in _received(service, format_):
                begun.set()
                exported.add(format_)
                if ended.is_set():
                    return

    threads = [threading.Thread(target=export, args=pair) for pair in zip(EXPORTS, began, strict=True)]
    for thread in threads:
        thread.start()
    for begun in began:
        begun.wait(60)
    try:
        yield exported
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _received(service: Running, format_: str) -> Iterator[memoryview]:
    """An export's answer as it comes, headers and chunks; what is handed out is valid until the next is asked for."""
    place = urlsplit(service.url)
    assert place.hostname is not None
    assert place.port is not None
    request = (
        f"GET /v1/export?format={format_} HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {service.key}\r\n"
        "Connection: close\r\n\r\n"
    )
    buffer = bytearray(RECEIVE_BYTES)
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        connection.sendall(request.encode("ascii"))
        while received := connection.recv_into(buffer):
            yield memoryview(buffer)[:received]


def _export(service: Running, format_: str, expected: int) -> None:
    """Download an export and throw it away. Raises BenchmarkError unless it came whole."""
    lines, head, tail = 0, b"", b""
    for part in _received(service, format_):
        data = part.tobytes()
        head = head or data[:15]
        lines += data.count(b"\n")
        tail = (tail + data[-256:])[-256:]
    if not head.startswith(b"HTTP/1.1 200") or not tail.endswith(b"\r\n0\r\n\r\n") or lines < expected:
        raise BenchmarkError(f"the {format_} export did not come whole: {head!r} … {tail!r}")


def _psql_copy(service: Running, target: Path, expected: int) -> None:
    columns = ", ".join(EVENT_COLUMNS)
    # What was filled in, and neither the service's own log nor its notes of the exports.
    rows = (
        f"SELECT {columns} FROM audit.entry WHERE log_id = (SELECT log_id FROM audit.tenant WHERE name = 'default') "
        f"AND seq < {expected} ORDER BY seq"
    )
    copy = f"\\copy ({rows}) TO '{target}' WITH (FORMAT csv)"
    ended = subprocess.run(
        [program("psql"), "-X", "--set=ON_ERROR_STOP=1", service.database_url(), "-c", copy],
        env=program_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    copied = re.fullmatch(r"COPY (\d+)", ended.stdout.strip())
    if ended.returncode != 0 or copied is None or int(copied[1]) != expected:
        raise BenchmarkError(f"psql failed: {ended.stdout}{ended.stderr}")
