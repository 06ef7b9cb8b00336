"""What the signing role does in the database: the lease, heads and rows as they are stored, tiles, checkpoints and its control entries.

Raw asyncpg throughout: a log of millions of rows is read before its first checkpoint, and the functions take arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal, cast

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.control import Control, Kind
from audit_service.core.retrace import Place, StoredRow
from audit_service.core.tiles import BuiltTile
from audit_service.store.engine import bound, call, connected, driver
from audit_service.store.failures import translated
from audit_service.store.query import fetch_sound_head
from audit_service.store.tables import installation, tenant

Lease = Literal["held", "leased", "other key"]
# Rows of one slice. Larger bodies than this are brought one by one, so that a slice has a bound however long they are.
SLICE_ENTRIES = 2000
BODY_LIMIT_BYTES = 8192

_ROW = """seq, (extract(epoch FROM recorded_at) * 1000000)::bigint AS recorded_at_us, epoch, kind, prev_hash, body_hash, hash"""
_ROWS = f"""
    SELECT {_ROW}, CASE WHEN octet_length(body) <= {BODY_LIMIT_BYTES} THEN convert_to(body, 'UTF8') END AS body,
        octet_length(body) > {BODY_LIMIT_BYTES} AS large
    FROM audit.bound_entry WHERE log_id = $1 AND seq >= $2 AND seq < $3 ORDER BY seq LIMIT $4"""  # noqa: S608 - constants
_BODY = "SELECT convert_to(body, 'UTF8') FROM audit.bound_entry WHERE log_id = $1 AND seq = $2"
_PLACE = f"SELECT {_ROW} FROM audit.bound_entry WHERE log_id = $1 AND seq = $2"  # noqa: S608
_TILE_DIGESTS = """
    SELECT t.level, t.number, sha256(t.hashes) AS digest FROM unnest($2::smallint[], $3::bigint[]) AS w(level, number)
    JOIN audit.bound_tile AS t ON t.log_id = $1 AND t.level = w.level AND t.number = w.number"""
_STORE_TILES = "SELECT audit.store_tiles($1, $2, $3::smallint[], $4::bigint[], $5::bytea[])"
_CONTROL_BODIES = """
    SELECT body FROM audit.bound_entry WHERE log_id = $1 AND kind = $2 AND body IS NOT NULL ORDER BY seq"""


@dataclass(frozen=True, slots=True)
class SignedLog:
    """A tenant's log."""

    tenant: str
    log_id: int
    log_key: str


@dataclass(frozen=True, slots=True)
class StoredHead:
    """The head row of a log. `frontier`: 32 bytes for each set bit of `size`."""

    service_name: str
    log_key: str
    epoch: int
    size: int
    last_hash: bytes
    frontier: bytes
    pruned_before: int


async def list_signed_logs(engine: AsyncEngine) -> tuple[str, list[SignedLog]]:
    """The service's name, and every tenant's log. Raises UnavailableError, NotFoundError before the first `prepare`."""
    async with translated(), connected(engine) as connection:
        name = (await connection.execute(select(installation.c.service_name))).scalar_one()
        rows = await connection.execute(
            select(tenant.c.name, tenant.c.log_id, tenant.c.log_key).order_by(tenant.c.name)
        )
        return name, [SignedLog(*row) for row in rows]


async def take_lease(engine: AsyncEngine, public_key: bytes, holder: str, seconds: int) -> Lease:
    """Take or renew the one signer's lease, as the holder of this public key."""
    return cast("Lease", await _call(engine, "SELECT audit.take_signer_lease($1, $2, $3)", public_key, holder, seconds))


async def release_lease(engine: AsyncEngine, holder: str) -> None:
    """Give the lease back, if it is the holder's."""
    await _call(engine, "SELECT audit.release_signer_lease($1)", holder)


async def fetch_stored_head(engine: AsyncEngine, log_id: int) -> StoredHead:
    """The head row as it is now. Raises UnavailableError when it is damaged."""
    async with translated(), bound(engine, log_id) as connection:
        row = await fetch_sound_head(connection, log_id)
    return StoredHead(
        row.service_name, row.log_key, row.epoch, row.size, row.last_hash, row.frontier, row.pruned_before
    )


async def read_rows(engine: AsyncEngine, log_id: int, from_seq: int, to_seq: int) -> list[StoredRow]:
    """The next rows with from_seq <= seq < to_seq, in order: a slice in a short transaction of its own. Empty where there are none."""
    async with translated(), bound(engine, log_id) as connection:
        raw = driver(connection)
        rows = await raw.fetch(_ROWS, log_id, from_seq, to_seq, SLICE_ENTRIES)
        if not any(row["large"] for row in rows):
            return [cast("StoredRow", tuple(row)[:-1]) for row in rows]
        return [await _with_body(raw, log_id, row) for row in rows]


async def _with_body(raw: Any, log_id: int, row: Any) -> StoredRow:
    *header, body, large = row
    return cast("StoredRow", (*header, await raw.fetchval(_BODY, log_id, row["seq"]) if large else body))


async def fetch_place(engine: AsyncEngine, log_id: int, size: int) -> Place | None:
    """Where the log stood after `size` > 0 entries, as its last of them says; None when that one is gone."""
    async with translated(), bound(engine, log_id) as connection:
        row = await driver(connection).fetchrow(_PLACE, log_id, size - 1)
    return None if row is None else Place(size, row["hash"], row["recorded_at_us"], row["epoch"])


async def store_tiles(engine: AsyncEngine, log_id: int, holder: str, tiles: Sequence[BuiltTile]) -> list[BuiltTile]:
    """Store full tiles; those that are stored already with other hashes, which stay as they are. Raises UnavailableError when the lease
    is not held."""
    if not tiles:
        return []
    levels, numbers = [tile.level for tile in tiles], [tile.number for tile in tiles]
    await _call(engine, _STORE_TILES, log_id, holder, levels, numbers, [tile.hashes for tile in tiles])
    async with translated(), bound(engine, log_id) as connection:
        rows = await driver(connection).fetch(_TILE_DIGESTS, log_id, levels, numbers)
    stored = {(row["level"], row["number"]): row["digest"] for row in rows}
    return [tile for tile in tiles if stored.get((tile.level, tile.number)) != sha256(tile.hashes).digest()]


async def publish_checkpoint(
    engine: AsyncEngine, log_id: int, holder: str, size: int, epoch: int, note: str
) -> datetime:
    """Store a signed note; when. Raises UnavailableError when the lease is not held."""
    sql = "SELECT audit.publish_checkpoint($1, $2, $3, $4, $5)"
    return cast("datetime", await _call(engine, sql, log_id, holder, size, epoch, note))


async def record_signer(engine: AsyncEngine, log_id: int, holder: str, control: Control) -> int:
    """Append a `signer` entry; its seq. Raises UnavailableError when the lease is not held."""
    return cast(
        "int",
        await _call(
            engine, "SELECT seq FROM audit.record_signer($1, $2, $3::jsonb)", log_id, holder, control.argument()
        ),
    )


async def resume_log(engine: AsyncEngine, log_id: int, holder: str, control: Control) -> int:
    """Raise the epoch and append the `resume` entry; its seq. Raises UnavailableError when the lease is not held."""
    return cast(
        "int",
        await _call(engine, "SELECT seq FROM audit.resume_log($1, $2, $3::jsonb)", log_id, holder, control.argument()),
    )


async def change_key(engine: AsyncEngine, holder: str, old: bytes, new: bytes) -> None:
    """The key that the lease asks for from now on. Raises UnavailableError when it is not `old`, or the lease is not held."""
    await _call(engine, "SELECT audit.change_signing_key($1, $2, $3)", holder, old, new)


async def list_control_bodies(engine: AsyncEngine, log_id: int, kind: Kind) -> list[str]:
    """The bodies of a log's control entries of a kind, oldest first."""
    async with translated(), bound(engine, log_id) as connection:
        return [row["body"] for row in await driver(connection).fetch(_CONTROL_BODIES, log_id, kind)]


async def _call(engine: AsyncEngine, sql: str, *arguments: object) -> Any:
    """What a function answers, as `call` brings it. Raises UnavailableError."""
    async with translated():
        return (await call(engine, sql, *arguments))[0][0]
