"""What a search index costs a writer, and what it saves a reader: the choices that decision 0007 weighs.

COPY of the rows of P7 into the table with its indexes, and with one more: trigrams (pg_trgm) or words (tsvector) of the search text, kept
by PostgreSQL with every row; and ours, built afterwards by segments. Then the same fragments are looked for in each, newest first.
"""

import statistics
import time
from collections.abc import Sequence

import asyncpg

from audit_service.core.terms import SEGMENT_EVENTS
from audit_service.store.engine import open_database
from audit_service.store.segments import add_segment
from benchmarks.indexes import BASE_EVENTS, copy_source, make_source
from benchmarks.options import Options
from benchmarks.report import Figure, Section, ratio
from benchmarks.service import Running, running
from benchmarks.tables import ALL_INDEXES, entry_columns, make_table

LOOKS = 20
GINS = {
    "no search index": None,
    "trigrams (pg_trgm)": "gin (search gin_trgm_ops)",
    "words (tsvector)": "gin (to_tsvector('simple', search))",
}
# In half of the rows, in one, and in none.
FRAGMENTS = ("@example.com", "host-00011", "zephyr-0000")
_LIKE = (
    "SELECT seq FROM bench.target WHERE log_id = $1 AND strpos(search, $2) > 0 AND search LIKE '%' || $2 || '%' "
    "ORDER BY occurred_at DESC, seq DESC LIMIT 50"
)
_WORDS = (
    "SELECT seq FROM bench.target WHERE log_id = $1 AND to_tsvector('simple', search) @@ phraseto_tsquery('simple', $2) "
    "ORDER BY occurred_at DESC, seq DESC LIMIT 50"
)


def measure_search(options: Options) -> Section:
    """Each way's cost for a writer, bytes, and milliseconds of a search."""
    base = min(BASE_EVENTS, max(options.index_rows // 2, 1))
    rows = options.index_rows // base * base
    with running(options.folder) as service:
        service.fill(base)
        found = service.ask(lambda connection: _measure(connection, base, rows))
        ours = _build_microseconds(service, base)
    return Section(
        "search",
        f"Search indexes: cost of {rows} rows, and time of a search",
        [*found, *ours],
        [
            "A search brings the newest 50 matches. Words do not find fragments of words: their times are of another question."
        ],
    )


async def _measure(connection: asyncpg.Connection, base: int, rows: int) -> list[Figure]:
    columns = await entry_columns(connection)
    await make_source(connection, columns, base, rows)
    await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public")
    await connection.execute("SET search_path = public, pg_catalog")
    log_id = await connection.fetchval("SELECT log_id FROM bench.source LIMIT 1")
    rates: dict[str, float] = {}
    figures: list[Figure] = []
    for name, gin in GINS.items():
        await make_table(connection, "target", ALL_INDEXES)
        if gin is not None:
            await connection.execute(f"CREATE INDEX search_gin ON bench.target USING {gin}")
        rates[name] = (await copy_source(connection, columns, rows)).rate()
        await connection.execute("VACUUM ANALYZE bench.target")
        if gin is not None:
            size = await connection.fetchval("SELECT pg_relation_size('bench.search_gin')")
            figures.append(Figure(f"{name}: size", size / rows, "bytes/event"))
        statement = _WORDS if name.startswith("words") else _LIKE
        for fragment in FRAGMENTS:
            took = await _milliseconds(connection, statement, (log_id, fragment))
            figures.append(Figure(f"{name}: search for {fragment}", took, "ms"))
    plain = rates["no search index"]
    return [*(ratio(f"COPY with {name} ÷ without", rate, plain) for name, rate in rates.items()), *figures]


async def _milliseconds(connection: asyncpg.Connection, statement: str, arguments: Sequence[object]) -> float:
    took = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        await connection.fetch(statement, *arguments)
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def _build_microseconds(service: Running, events: int) -> list[Figure]:
    """Our own index over the log itself."""
    segments = events // SEGMENT_EVENTS

    async def drop(connection: asyncpg.Connection) -> int:
        await connection.execute("TRUNCATE audit.segment, audit.posting, audit.tally")
        return int(await connection.fetchval("SELECT log_id FROM audit.log ORDER BY size DESC LIMIT 1"))

    async def build() -> float:
        database = open_database(service.database_url("audit_serving"), pool_connections=1)
        try:
            began = time.perf_counter()
            for number in range(segments):
                await add_segment(database.reads, database.writes, log_id, number)
            return (time.perf_counter() - began) / (segments * SEGMENT_EVENTS) * 1e6
        finally:
            await database.dispose()

    async def size(connection: asyncpg.Connection) -> float:
        return float(await connection.fetchval("SELECT pg_total_relation_size('audit.posting')"))

    if not segments:
        return []
    log_id = service.ask(drop)
    return [
        Figure("ours: built afterwards, one process", service.run(build), "µs/event"),
        Figure("ours: size", service.ask(size) / (segments * SEGMENT_EVENTS), "bytes/event"),
    ]
