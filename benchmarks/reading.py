"""P3: what does it cost to read the log back and check it, against PostgreSQL merely handing the same bytes over?"""

import statistics
import time
from collections.abc import Sequence
from hashlib import sha256

import asyncpg

from audit_service.api.dependencies import Service
from audit_service.core.checker import Depth
from audit_service.ingest import Log
from audit_service.store.credentials import DEFAULT_TENANT
from audit_service.verification import CHAIN_COLUMNS, COLUMNS, SLICE_ENTRIES
from audit_service.verify import Report, verify
from benchmarks.options import Options
from benchmarks.report import BenchmarkError, Figure, Section, counted, ratio
from benchmarks.service import running


def measure_p3(options: Options) -> Section:
    """Verify ÷ reading and hashing, one process each (this one), in turn."""
    times: dict[str, list[float]] = {"chain": [], "bodies": [], "verify": [], "all": [], "copy": []}
    with running(options.folder) as service:
        service.fill(options.stored_events)
        service.ask(vacuum)
        for _ in range(options.rounds + 1):
            times["chain"].append(service.work(lambda service, log: _verify(service, log, "chain")))
            times["bodies"].append(service.ask(lambda connection: _read_slices(connection, CHAIN_COLUMNS)))
            times["verify"].append(service.work(lambda service, log: _verify(service, log, "all")))
            times["all"].append(service.ask(lambda connection: _read_slices(connection, COLUMNS)))
            times["copy"].append(service.ask(_read_copy))
    rate = {name: options.stored_events / statistics.median(found[1:]) for name, found in times.items()}
    return Section(
        "P3",
        "P3: verify ÷ reading the same bytes from PostgreSQL and hashing them once",
        [
            ratio("P3: headers, bodies and links", rate["chain"], rate["bodies"], 0.5),
            ratio("P3: with disclosures and projections", rate["verify"], rate["all"], 0.3),
            ratio("with disclosures and projections ÷ one binary COPY, hashed", rate["verify"], rate["copy"]),
            Figure("verify, headers, bodies and links", rate["chain"], "entries/s"),
            Figure("verify, everything", rate["verify"], "entries/s"),
            Figure("read and hash headers and bodies", rate["bodies"], "entries/s"),
            Figure("read and hash everything", rate["all"], "entries/s"),
            Figure("binary COPY of everything, hashed", rate["copy"], "entries/s"),
        ],
        [
            (
                f"{options.stored_events} entries, medians over {counted(options.rounds, 'round')} in turn. "
                "Verify reads the next slice while it checks one; the other side reads, then hashes. Verify also reads every receipt."
            ),
            (
                f"The other side reads the same columns in the same slices of {SLICE_ENTRIES} with asyncpg and feeds every text and byte "
                "string to one SHA-256; numbers, times and arrays it only reads."
            ),
        ],
    )


async def vacuum(connection: asyncpg.Connection) -> None:
    """Vacuum the entries."""
    # So that whoever reads first does not pay for setting hint bits.
    await connection.execute("VACUUM ANALYZE audit.entry")


async def _verify(service: Service, log: Log, depth: Depth) -> float:
    began = time.perf_counter()
    report: object = None
    async for report in verify(service.database.reads, log.log_id, depth=depth):  # noqa: B007 - the last one is the report
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
