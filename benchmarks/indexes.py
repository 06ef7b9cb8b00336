"""P7: what do the indexes of the entry table cost a writer, and how large are they?

Finished rows are COPYed in binary, so that the client costs nothing, into a table like audit.entry with all its indexes and into one with
its primary key only, 10,000 rows in each transaction. The order is key, all, all, key, so that a drift of the machine falls on both alike.

The rows are entries of the service's own, repeated with other places in the chain, times, ids and hashes until there are enough of them;
people, servers, actions and targets recur as they do in a log.
"""

import io
import statistics
import time
from dataclasses import dataclass

import asyncpg

from benchmarks.options import Options
from benchmarks.report import BenchmarkError, Figure, Section, ratio
from benchmarks.service import running
from benchmarks.tables import ALL_INDEXES, KEY_ONLY, entry_columns, make_table

BASE_EVENTS = 20_000
CHUNK_ROWS = 10_000
GOAL_ROWS = 1_000_000
SHARE_OF_LAST = 5

# What must differ from copy to copy, so that the indexes grow as they would; r is the copy's number, e the entry. All else is as it was.
VARIED = {
    "seq": "e.seq + r * {base}",
    "recorded_at": "e.recorded_at + r * interval '1 day'",
    "occurred_at": "e.occurred_at + r * {base} * interval '3 seconds'",
    "prev_hash": "sha256(e.prev_hash || int8send(r))",
    "hash": "sha256(e.hash || int8send(r))",
    "body_hash": "sha256(e.body_hash || int8send(r))",
    "id": "e.id || '-' || r",
    "request_id": "e.request_id || '-' || r",
    "search": "e.search || chr(10) || substr(md5(e.seq::text || '-' || r), 1, 12)",
}


@dataclass(frozen=True, slots=True)
class Copied:
    """(rows, seconds) of each chunk of one COPY of everything."""

    chunks: list[tuple[int, float]]

    def rate(self) -> float:
        """Rows per second, all in all."""
        return _rate(self.chunks)

    def last_rate(self) -> float:
        """Rows per second of the last fifth: what it comes down to as the table grows."""
        return _rate(self.chunks[-max(len(self.chunks) // SHARE_OF_LAST, 1) :])


def _rate(chunks: list[tuple[int, float]]) -> float:
    return sum(rows for rows, _ in chunks) / sum(seconds for _, seconds in chunks)


def measure_p7(options: Options) -> Section:
    """COPY into the indexed table ÷ COPY into one with its primary key only, and the size of each index."""
    base = min(BASE_EVENTS, max(options.index_rows // 2, 1))
    rows = options.index_rows // base * base
    with running(options.folder) as service:
        service.fill(base)
        return service.ask(lambda connection: _measure(connection, base, rows))


async def _measure(connection: asyncpg.Connection, base: int, rows: int) -> Section:
    columns = await entry_columns(connection)
    await make_source(connection, columns, base, rows)
    found: dict[str, list[Copied]] = {KEY_ONLY: [], ALL_INDEXES: []}
    sizes: list[Figure] = []
    for like in (KEY_ONLY, ALL_INDEXES, ALL_INDEXES, KEY_ONLY):
        await make_table(connection, "target", like)
        found[like].append(await copy_source(connection, columns, rows))
        if like == ALL_INDEXES:
            sizes = await _sizes(connection, rows)
    indexed, key_only = (statistics.fmean(one.rate() for one in found[like]) for like in (ALL_INDEXES, KEY_ONLY))
    last, last_key_only = (statistics.fmean(one.last_rate() for one in found[like]) for like in (ALL_INDEXES, KEY_ONLY))
    return Section(
        "P7",
        f"P7: COPY of {rows} rows into the indexed table ÷ COPY into it with its primary key only",
        [
            ratio("P7: all indexes ÷ primary key only", indexed, key_only, 0.35),
            ratio("the last fifth of it", last, last_key_only),
            Figure("COPY, all indexes", indexed, "rows/s"),
            Figure("COPY, primary key only", key_only, "rows/s"),
            *sizes,
        ],
        [
            f"Binary COPY, {CHUNK_ROWS} rows in each transaction, each side twice. Table and index sizes are those right after the COPY.",
            *([] if rows >= GOAL_ROWS else [f"The goal is meant for {GOAL_ROWS} rows: --rows {GOAL_ROWS}."]),
        ],
    )


# The service keeps a log of its own beside it.
_ENTRIES = (
    "SELECT * FROM audit.entry WHERE log_id = (SELECT log_id FROM audit.tenant WHERE name = 'default') ORDER BY seq"
)


async def make_source(connection: asyncpg.Connection, columns: list[str], base: int, rows: int) -> None:
    """`bench.source`: `rows` rows made of the `base` entries of the default tenant's log, without any index."""
    values = ", ".join(VARIED.get(column, f"e.{column}").format(base=base) for column in columns)
    await connection.execute("CREATE SCHEMA bench")
    await connection.execute("CREATE UNLOGGED TABLE bench.source (LIKE audit.entry)")
    await connection.execute(
        f"INSERT INTO bench.source ({', '.join(columns)}) SELECT {values} "
        f"FROM generate_series(0, {rows // base - 1}) AS r CROSS JOIN ({_ENTRIES}) AS e"
    )
    await connection.execute("CREATE INDEX ON bench.source (seq)")
    await connection.execute("VACUUM ANALYZE bench.source")
    found = await connection.fetchval("SELECT count(*) FROM bench.source")
    if found != rows:
        raise BenchmarkError(f"{rows} rows were to be made, and {found} were")


async def copy_source(connection: asyncpg.Connection, columns: list[str], rows: int) -> Copied:
    """COPY the source into bench.target. Reading it is not timed."""
    chunks = []
    for start in range(0, rows, CHUNK_ROWS):
        data = io.BytesIO()
        await connection.copy_from_query(
            f"SELECT {', '.join(columns)} FROM bench.source WHERE seq >= $1 AND seq < $2 ORDER BY seq",
            start,
            start + CHUNK_ROWS,
            output=data,
            format="binary",
        )
        data.seek(0)
        began = time.perf_counter()
        await connection.copy_to_table("target", schema_name="bench", columns=columns, source=data, format="binary")
        chunks.append((min(CHUNK_ROWS, rows - start), time.perf_counter() - began))
    return Copied(chunks)


async def _sizes(connection: asyncpg.Connection, rows: int) -> list[Figure]:
    """Bytes for each event: of the table, and of each index."""
    table = await connection.fetchval("SELECT pg_table_size('bench.target')")
    indexes = await connection.fetch(
        "SELECT pg_get_indexdef(indexrelid) AS definition, pg_relation_size(indexrelid) AS bytes "
        "FROM pg_index WHERE indrelid = 'bench.target'::regclass ORDER BY indexrelid"
    )
    return [
        Figure("table", table / rows, "bytes/event"),
        *(
            Figure(f"index {row['definition'].partition(' USING ')[2]}", row["bytes"] / rows, "bytes/event")
            for row in indexes
        ),
        Figure("all indexes", sum(row["bytes"] for row in indexes) / rows, "bytes/event"),
    ]
