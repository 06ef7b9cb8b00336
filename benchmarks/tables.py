"""Copies of the entry table, to COPY finished rows into."""

from collections.abc import Sequence

import asyncpg

ALL_INDEXES, KEY_ONLY = "INCLUDING ALL", "INCLUDING ALL EXCLUDING INDEXES"


async def entry_columns(connection: asyncpg.Connection) -> list[str]:
    """The columns of an entry that are stored as given, in the table's order."""
    rows = await connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'audit.entry'::regclass "
        "AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
    )
    return [row["attname"] for row in rows]


async def make_table(connection: asyncpg.Connection, name: str, like: str) -> None:
    """A new, empty `bench.<name>` like audit.entry, with all its indexes or only its primary key; without its triggers."""
    await connection.execute("CREATE SCHEMA IF NOT EXISTS bench")
    await connection.execute(f"DROP TABLE IF EXISTS bench.{name}")
    await connection.execute(f"CREATE TABLE bench.{name} (LIKE audit.entry {like})")
    if like == KEY_ONLY:
        await connection.execute(f"ALTER TABLE bench.{name} ADD PRIMARY KEY (log_id, seq)")


async def copy_rows(
    connection: asyncpg.Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]], batch: int
) -> None:
    """COPY the rows by asyncpg, `batch` of them in each transaction."""
    for start in range(0, len(rows), batch):
        await connection.copy_records_to_table(
            table, schema_name="bench", columns=columns, records=rows[start : start + batch]
        )
