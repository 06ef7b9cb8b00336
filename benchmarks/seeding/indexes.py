"""Indexes out of the way of a bulk load: dropped while the tables are empty, made again, by their own definitions, when they are full."""

from collections.abc import Sequence

import asyncpg

# Primary keys and the like are dropped and made as constraints, other indexes as such; each as the catalog has it, so that whatever a
# migration adds comes back the same.
_DEFINITIONS = """
SELECT format('%s.%s', i.indrelid::regclass, c.relname) AS name,
       CASE WHEN k.oid IS NULL THEN format('DROP INDEX %s', i.indexrelid::regclass)
            ELSE format('ALTER TABLE %s DROP CONSTRAINT %I', i.indrelid::regclass, k.conname) END AS drop,
       CASE WHEN k.oid IS NULL THEN pg_get_indexdef(i.indexrelid)
            ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', i.indrelid::regclass, k.conname, pg_get_constraintdef(k.oid)) END AS make
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint AS k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
WHERE i.indrelid = ANY ($1::regclass[])
ORDER BY i.indrelid, i.indexrelid
"""


async def drop_indexes(connection: asyncpg.Connection, tables: Sequence[str]) -> list[str]:
    """Drop every index of the tables, as their owner: the statements that make them again. Raises asyncpg's
    DependentObjectsStillExistError where a foreign key needs one."""
    found = await connection.fetch(_DEFINITIONS, list(tables))
    async with connection.transaction():
        for row in found:
            await connection.execute(row["drop"])
    return [row["make"] for row in found]
