"""Evidence: a range of the log, or what filters select of it, as a bundle that can be checked offline (DESIGN 3.5; `core.bundle`).

The steps:

1. *Checkpoint.* The signed tree the bundle is about; the range lies in it, and behind the pruned part.
2. *Nothing forgotten since.* What was dropped or erased after that checkpoint is explained by no entry it covers, nor changes of the key
   that were pruned, so a bundle would look tampered with: NotSignedError, until the next checkpoint. Looked at again at the end,
   because forgetting goes on meanwhile.
3. *Entries.* In short slices, each a transaction of its own; with filters each with its inclusion proof.
4. *Control entries* that touch the range, up to the checkpoint's size.
5. *The end.* Range proof, note, manifest. The writer has followed every hash, and refuses a bundle that does not lead to the signed root:
   then the stream breaks off (TreeDamagedError), before the directory without which a zip file cannot be opened.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core.bundle import path_tiles, touches
from audit_service.core.merkle import HashReader, RangeProof, cover, frontier_root, prove_range
from audit_service.core.tiles import Tile
from audit_service.errors import Fault, InvalidQueryError, NotSignedError, TreeDamagedError
from audit_service.file_stream import Step, grouped, read_ahead, stream_file
from audit_service.store.failures import translated
from audit_service.store.query import fetch_sound_head
from audit_service.store.reading import Rows
from audit_service.store.rows import EVENT_COLUMNS
from audit_service.store.selection import Selection
from audit_service.store.slices import stream_range, stream_slices
from audit_service.stored_tree import Signed, StoredTree

MEDIA_TYPE = "application/zip"
_SEQ, _KIND, _BODY = (EVENT_COLUMNS.index(name) for name in ("seq", "kind", "body"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for. `from_seq` None: from the first entry that is not pruned; `to_seq` None: up to the checkpoint's size;
    `checkpoint_size` None: the latest. `selection`: filters, and `filters` how they were asked for, which the manifest repeats.
    `own_entries`: whether the disclosures of what the service notes of itself are in it."""

    from_seq: int | None = None
    to_seq: int | None = None
    checkpoint_size: int | None = None
    selection: Selection | None = None
    filters: str | None = None
    own_entries: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What the bundle will be: the range [from_seq, to_seq), the checkpoint, what surrounds the range in its tree."""

    from_seq: int
    to_seq: int
    signed: Signed
    around: RangeProof
    pruned_before: int
    selection: Selection | None
    filters: str | None
    own_entries: bool


async def plan_evidence(tree: StoredTree, wanted: Wanted) -> Plan:
    """Steps 1 and 2. Raises InvalidQueryError naming parameters, NotSignedError, TreeDamagedError, UnavailableError."""
    async with tree.bound() as connection:
        head = await fetch_sound_head(connection, tree.log_id)
        signed = await _checkpoint(tree, connection, wanted)
        from_seq = head.pruned_before if wanted.from_seq is None else wanted.from_seq
        to_seq = signed.size if wanted.to_seq is None else wanted.to_seq
        if from_seq < head.pruned_before:
            raise _invalid("from_seq", f"must be at least {head.pruned_before}: what is before it was pruned")
        if to_seq > head.size:
            raise _invalid("to_seq", f"must be at most the size of the log, {head.size}")
        if from_seq > to_seq:
            raise _invalid("from_seq", f"must be at most to_seq, {to_seq}")
        if to_seq > signed.size:
            raise NotSignedError(f"the checkpoint covers {signed.size} entries; the range ends behind it")
        try:
            around = await _around(tree, connection, signed, from_seq, to_seq)
        except TreeDamagedError:
            latest = await tree.find_signed(connection)
            if latest is None or signed.is_of_epoch(latest):
                raise
            raise _invalid(
                "checkpoint_size", "is of an earlier epoch, and the log does not lead to it: see its `resume` entries"
            ) from None
    asked = (wanted.selection, wanted.filters, wanted.own_entries)
    plan = Plan(from_seq, to_seq, signed, around, head.pruned_before, *asked)
    await _require_explained(tree, plan)
    return plan


async def make_evidence(
    tree: StoredTree, plan: Plan, report: Callable[[int], None] | None = None
) -> AsyncGenerator[bytes]:
    """Steps 3 to 5: the bundle as it goes over the wire, a piece at a time. Close it when it is not read to its end.

    Raises TreeDamagedError, NotSignedError and UnavailableError, also in the middle. `report` is told how many more entries went in.
    """
    signed = plan.signed
    arguments: dict[str, Any] = {
        "name": tree.name,
        "from_seq": plan.from_seq,
        "to_seq": plan.to_seq,
        "size": signed.size,
        "root": signed.checkpoint.root,
        "note": signed.note,
        "pruned_before": plan.pruned_before,
        "created_at": datetime.now(UTC),
        "filters": plan.filters,
        "left": plan.around.left,
        "own_entries": plan.own_entries,
    }
    async with translated(), aclosing(stream_file("evidence", arguments, _steps(tree, plan), report=report)) as pieces:
        async for piece in pieces:
            yield piece


def filename(tree: StoredTree, plan: Plan) -> str:
    """What the file is called."""
    return f"evidence-{tree.name.rpartition('/')[2][:8]}-{plan.from_seq}-{plan.to_seq}.zip"


async def _steps(tree: StoredTree, plan: Plan) -> AsyncGenerator[Step]:
    async with aclosing(read_ahead(_slices(tree, plan))) as read:
        async for rows in read:
            for group in grouped(rows):
                if plan.selection is None:
                    yield "entries", group
                else:
                    yield "entries", group, await _tiles(tree, plan, group)
    async with aclosing(_controls(tree, plan, 0, plan.signed.size)) as controls:
        async for rows in controls:
            for group in grouped(rows):
                yield "controls", group, await _tiles(tree, plan, group)
    await _require_explained(tree, plan)
    yield "end", plan.around.right


def _slices(tree: StoredTree, plan: Plan) -> AsyncGenerator[Rows]:
    if plan.selection is None:
        return stream_range(tree.engine, tree.log_id, plan.from_seq, plan.to_seq)
    return stream_slices(tree.engine, tree.log_id, plan.selection, from_seq=plan.from_seq, to_seq=plan.to_seq)


async def _controls(tree: StoredTree, plan: Plan, from_seq: int, to_seq: int) -> AsyncGenerator[Rows]:
    """The control entries within these seqs that touch the range of the bundle."""
    async with aclosing(stream_range(tree.engine, tree.log_id, from_seq, to_seq, only_controls=True)) as slices:
        async for rows in slices:
            touching = [row for row in rows if touches(row[_KIND], row[_BODY], plan.from_seq, plan.to_seq)]
            if touching:
                yield touching


async def _require_explained(tree: StoredTree, plan: Plan) -> None:
    """Step 2. Raises NotSignedError."""
    async with tree.bound() as connection:
        size = (await fetch_sound_head(connection, tree.log_id)).size
    async with aclosing(_controls(tree, plan, plan.signed.size, size)) as controls:
        async for rows in controls:
            if any(row[_KIND] in {"drop", "erase", "prune"} for row in rows):
                raise NotSignedError(
                    "entries of the range were dropped or erased, or the log was pruned, after the checkpoint; use a later one"
                )


async def _checkpoint(tree: StoredTree, connection: AsyncConnection, wanted: Wanted) -> Signed:
    signed = await tree.find_signed(connection, wanted.checkpoint_size)
    if signed is not None:
        return signed
    if wanted.checkpoint_size is not None:
        raise _invalid("checkpoint_size", "must be the size of a signed checkpoint")
    raise NotSignedError("nothing was signed yet")


async def _around(
    tree: StoredTree, connection: AsyncConnection, signed: Signed, from_seq: int, to_seq: int
) -> RangeProof:
    """What surrounds the range in the signed tree; the stored tree's own root has to be the signed one."""

    def prove(reader: HashReader) -> tuple[RangeProof, bytes]:
        return prove_range(from_seq, to_seq, signed.size, reader), frontier_root(reader(cover(0, signed.size)))

    for _ in range(2):
        around, root = await tree.read(connection, signed.size, prove)
        if root == signed.checkpoint.root:
            return around
        tree.forget_cached()  # they may be those of another time
    raise TreeDamagedError(f"what is stored does not lead to the root at size {signed.size}: verify the log")


async def _tiles(tree: StoredTree, plan: Plan, rows: Rows) -> dict[Tile, bytes]:
    """The tiles that the inclusion proofs of these entries need."""
    tiles = path_tiles((row[_SEQ] for row in rows), plan.signed.size)
    async with tree.bound() as connection:
        return await tree.fetch_tiles(connection, tiles)


def _invalid(name: str, detail: str) -> InvalidQueryError:
    return InvalidQueryError(f"these parameters are not valid: {name}", [Fault(detail, parameter=name)])
