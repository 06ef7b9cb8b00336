"""Stage two of forgetting in the database: recording a cut, deleting what is below it, and taking that out of the search index."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson
from sqlalchemy import exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core import terms
from audit_service.core.control import Control
from audit_service.core.entry import JSONObject
from audit_service.core.tiles import TILE_WIDTH
from audit_service.store.checkpoints import STORED, StoredCheckpoint
from audit_service.store.engine import bound, call
from audit_service.store.forgetting import Entered, enter, is_held
from audit_service.store.segments import build_segment, list_segments
from audit_service.store.tables import bound_checkpoint, bound_entry, bound_log, bound_tile

_c = bound_entry.c
_k = bound_checkpoint.c
_t = bound_tile.c
_PRUNE = "SELECT * FROM audit.prune_log($1, $2::jsonb)"
_DELETE = "SELECT audit.delete_pruned($1, $2)"
_REPLACE = """
    SELECT audit.replace_segment($1, $2, $3, $4, $5, $6, $7::text[], $8::text[], $9::int[], $10::bytea[], $11::text[])"""
_DELETED_AT_ONCE = 5000
_CHECKPOINTS_LOOKED_AT = 100


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the control entries that are still there say of earlier cuts and keys: the details of the latest `prune` entry, None before
    the first, and those of every `signer` entry with its `epoch`, oldest first. `lost`: (epoch, size): what was signed in an earlier epoch
    for more than that size is of entries that were lost."""

    prune: JSONObject | None
    signers: list[JSONObject]
    lost: list[tuple[int, int]]


async def fetch_pruned_before(engine: AsyncEngine, log_id: int) -> int:
    """The cut: entries below it were pruned."""
    query = select(bound_log.c.pruned_before).where(bound_log.c.log_id == log_id)
    async with bound(engine, log_id) as connection:
        return cast("int", (await connection.execute(query)).scalar_one())


async def list_cuts(
    engine: AsyncEngine, log_id: int, above: int, to_size: int, lost: Sequence[tuple[int, int]]
) -> list[StoredCheckpoint]:
    """The signed checkpoints with above < size <= to_size whose last entry is in a stored tile, the greatest first; some of them. Behind
    such a cut no proof and no later tile needs the hash of an entry that is gone. `lost`: as recorded, and left out."""
    in_tile = exists().where(_t.log_id == log_id, _t.level == 0, _t.number == func.div(_k.size - 1, TILE_WIDTH))
    query = select(*STORED).where(_k.log_id == log_id, _k.size > above, _k.size <= to_size, in_tile)
    query = query.where(*(or_(_k.epoch >= epoch, _k.size <= size) for epoch, size in lost))
    query = query.order_by(_k.size.desc(), _k.signed_at.desc()).limit(_CHECKPOINTS_LOOKED_AT)
    async with bound(engine, log_id) as connection:
        return [StoredCheckpoint(*row) for row in await connection.execute(query)]


async def fetch_recorded(engine: AsyncEngine, log_id: int) -> Recorded:
    """What is recorded of earlier cuts and of keys."""
    kinds = ("prune", "signer", "resume")
    query = select(_c.kind, _c.epoch, _c.body).where(_c.log_id == log_id, _c.kind.in_(kinds), _c.kind != "event")
    async with bound(engine, log_id) as connection:
        rows = (await connection.execute(query.order_by(_c.seq))).all()
    details = [(row.kind, row.epoch, cast("dict[str, Any]", orjson.loads(row.body)["details"])) for row in rows]
    prunes = [said for kind, _, said in details if kind == "prune"]
    lost = [(epoch, said["lost"][0]) for kind, epoch, said in details if kind == "resume"]
    if prunes:  # which may have taken `resume` entries: an epoch that had ended at the cut signed nothing behind it that is still there
        lost.append((prunes[-1]["epoch"], prunes[-1]["cut"]))
    signers = [{**said, "epoch": epoch} for kind, epoch, said in details if kind == "signer"]
    return Recorded(prunes[-1] if prunes else None, signers, lost)


async def count_held(engine: AsyncEngine, log_id: int, cut: int) -> int:
    """Entries below a cut that are under legal hold, with and without content, as `forgetting.is_held` says."""
    query = select(func.count()).where(_c.log_id == log_id, _c.seq < cut, is_held(log_id))
    async with bound(engine, log_id) as connection:
        return (await connection.execute(query)).scalar_one()


async def prune_log(writes: AsyncEngine, log_id: int, entry: Control) -> Entered:
    """Record a cut; from now on what is below it may be deleted. Raises HeldError while events below it have content or are held, and
    IntegrityError for a cut that no checkpoint was signed at."""
    return await enter(writes, _PRUNE, log_id, entry)


async def delete_some(writes: AsyncEngine, log_id: int) -> int:
    """Delete some entries below the cut, the oldest first; how many, 0 at the end."""
    return cast("int", (await call(writes, _DELETE, log_id, _DELETED_AT_ONCE))[0][0])


async def has_pruned_rows(engine: AsyncEngine, log_id: int) -> bool:
    """Whether entries below the cut are still there."""
    cut = select(bound_log.c.pruned_before).where(bound_log.c.log_id == log_id).scalar_subquery()
    query = select(func.min(_c.seq) < cut).where(_c.log_id == log_id)
    async with bound(engine, log_id) as connection:
        return bool((await connection.execute(query)).scalar())


async def list_stale_segments(engine: AsyncEngine, log_id: int) -> list[int]:
    """The segments that begin below the cut and list more entries than are there any more."""
    async with bound(engine, log_id) as connection:
        segments = await list_segments(connection, log_id)
        query = select(bound_log.c.pruned_before).where(bound_log.c.log_id == log_id)
        cut = (await connection.execute(query)).scalar_one()
        below = {s.number: s.events for s in segments if s.number * terms.SEGMENT_EVENTS < cut and s.events}
        if not below:
            return []
        end = (max(below) + 1) * terms.SEGMENT_EVENTS
        number = func.div(_c.seq, terms.SEGMENT_EVENTS)
        listed = select(number, func.count()).where(_c.log_id == log_id, _c.seq < end, _c.occurred_at.is_not(None))
        found = {int(row[0]): row[1] for row in await connection.execute(listed.group_by(number))}
    return [number for number, events in below.items() if events != found.get(number, 0)]


async def rebuild_segment(reads: AsyncEngine, writes: AsyncEngine, log_id: int, number: int) -> None:
    """Index a segment anew, as its entries are now. Raises MovedOnError."""
    built = await build_segment(reads, log_id, number)
    arguments: tuple[Any, ...] = built.arguments
    await call(writes, _REPLACE, log_id, built.generation, *arguments)
