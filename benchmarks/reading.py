"""P3 and P4: what does it cost to read the log back, checked or exported, against PostgreSQL merely handing the same bytes over?"""

import re
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from audit_service.api.dependencies import Service
from audit_service.embedded import program
from audit_service.embedded_process import program_environment
from audit_service.ingest import Log
from audit_service.store.credentials import DEFAULT_TENANT
from audit_service.store.rows import EVENT_COLUMNS, HEADER_COLUMNS
from audit_service.verify import COLUMNS, SLICE_ENTRIES, Report, verify
from benchmarks.options import Options
from benchmarks.report import BenchmarkError, Figure, Section, counted, ratio
from benchmarks.service import Running, running

RECEIVE_BYTES = 1 << 20
BODY_COLUMNS = (*HEADER_COLUMNS, "body")


def measure_p3(options: Options) -> Section:
    """Verify ÷ reading and hashing, one process each (this one), in turn."""
    times: dict[str, list[float]] = {"verify": [], "all": [], "bodies": [], "copy": []}
    with running(options.folder) as service:
        service.fill(options.stored_events)
        service.ask(_vacuum)
        for _ in range(options.rounds + 1):
            times["verify"].append(service.work(_verify))
            times["all"].append(service.ask(lambda connection: _read_slices(connection, COLUMNS)))
            times["bodies"].append(service.ask(lambda connection: _read_slices(connection, BODY_COLUMNS)))
            times["copy"].append(service.ask(_read_copy))
    rate = {name: options.stored_events / statistics.median(found[1:]) for name, found in times.items()}
    return Section(
        "P3",
        "P3: verify ÷ reading the same bytes from PostgreSQL and hashing them once",
        [
            ratio("P3: headers, bodies and links", rate["verify"], rate["bodies"], 0.5),
            ratio("P3: with disclosures and projections", rate["verify"], rate["all"], 0.3),
            ratio("with disclosures and projections ÷ one binary COPY, hashed", rate["verify"], rate["copy"]),
            Figure("verify, everything", rate["verify"], "entries/s"),
            Figure("read and hash headers and bodies", rate["bodies"], "entries/s"),
            Figure("read and hash everything", rate["all"], "entries/s"),
            Figure("binary COPY of everything, hashed", rate["copy"], "entries/s"),
        ],
        [
            (
                f"{options.stored_events} entries, medians over {counted(options.rounds, 'round')} in turn. "
                "Verify always checks everything: the first ratio sets the whole of it "
                "against reading headers and bodies alone, so it understates a check of only those."
            ),
            (
                f"The other side reads the same columns in the same slices of {SLICE_ENTRIES} with asyncpg and feeds every text and byte "
                "string to one SHA-256; numbers, times and arrays it only reads."
            ),
        ],
    )


async def _vacuum(connection: asyncpg.Connection) -> None:
    # So that whoever reads first does not pay for setting hint bits.
    await connection.execute("VACUUM ANALYZE audit.entry")


async def _verify(service: Service, log: Log) -> float:
    began = time.perf_counter()
    report: object = None
    async for report in verify(service.database.reads, log.log_id):  # noqa: B007 - the last one is the report
        pass
    seconds = time.perf_counter() - began
    if not isinstance(report, Report) or report.status != "ok" or report.count == 0:
        raise BenchmarkError(f"the log does not verify: {report}")
    return seconds


async def _read_slices(connection: asyncpg.Connection, columns: Sequence[str]) -> float:
    """Seconds to read `columns` of the whole log in slices and to hash them."""
    began = time.perf_counter()
    log_id = await connection.fetchval("SELECT log_id FROM audit.tenant WHERE name = $1", DEFAULT_TENANT)
    size = await connection.fetchval("SELECT size FROM audit.log WHERE log_id = $1", log_id)
    query = await connection.prepare(
        f"SELECT {', '.join(columns)} FROM audit.entry WHERE log_id = $1 AND seq >= $2 AND seq < $3 ORDER BY seq"
    )
    digest = sha256()
    for start in range(0, size, SLICE_ENTRIES):
        for row in await query.fetch(log_id, start, start + SLICE_ENTRIES):
            digest.update(
                b"".join([part if type(part) is bytes else part.encode() for part in row if type(part) in {bytes, str}])
            )
    return time.perf_counter() - began


async def _read_copy(connection: asyncpg.Connection) -> float:
    """Seconds to have PostgreSQL stream the same columns, and to hash the stream as it comes."""
    digest = sha256()

    async def take(data: bytes) -> None:
        digest.update(data)

    began = time.perf_counter()
    await connection.copy_from_query(
        f"SELECT {', '.join(COLUMNS)} FROM audit.entry ORDER BY log_id, seq", output=take, format="binary"
    )
    return time.perf_counter() - began


def measure_p4(options: Options) -> Section:
    """CSV and NDJSON over HTTP ÷ psql's \\copy to a file, in turn."""
    times: dict[str, list[float]] = {"csv": [], "ndjson": [], "psql": []}
    with running(options.folder) as service:
        service.fill(options.stored_events)
        service.ask(_vacuum)
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


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _export(service: Running, format_: str, expected: int) -> None:
    """Download an export and throw it away. Raises BenchmarkError unless it came whole."""
    place = urlsplit(service.url)
    assert place.hostname is not None
    assert place.port is not None
    request = (
        f"GET /v1/export?format={format_} HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {service.key}\r\n"
        "Connection: close\r\n\r\n"
    )
    lines, head, tail = 0, b"", b""
    buffer = bytearray(RECEIVE_BYTES)
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        connection.sendall(request.encode("ascii"))
        while received := connection.recv_into(buffer):
            head = head or bytes(buffer[:15])
            lines += buffer.count(b"\n", 0, received)
            tail = (tail + bytes(buffer[max(received - 256, 0) : received]))[-256:]
    if not head.startswith(b"HTTP/1.1 200") or not tail.endswith(b"\r\n0\r\n\r\n") or lines < expected:
        raise BenchmarkError(f"the {format_} export did not come whole: {head!r} … {tail!r}")


def _psql_copy(service: Running, target: Path, expected: int) -> None:
    columns = ", ".join(EVENT_COLUMNS)
    copy = f"\\copy (SELECT {columns} FROM audit.entry ORDER BY log_id, seq) TO '{target}' WITH (FORMAT csv)"
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
