"""Attacks that pose as lawful forgetting: a dropped head as retention (A10), an edit as erasure (A11)."""

import os
from collections.abc import Callable
from dataclasses import replace

import orjson

from audit_service.core import control
from audit_service.core.checkpoint import Checkpoint, sign_checkpoint
from audit_service.core.control import ENTROPY_BYTES, Act, ErasedItem
from audit_service.core.entry import SALT_BYTES
from audit_service.core.merkle import Frontier
from audit_service.core.note import format_note
from audit_service.core.vkey import Signer
from audit_service.drill.case import Committed
from audit_service.drill.dba import Dba, forge_value
from audit_service.drill.scratch import EARLY_SIZES, Scratch
from audit_service.drill.twins import sign_now
from audit_service.signing.rotation import act

# -- A10: a dropped head posing as retention -----------------------------------------------------------------


async def delete_head(scratch: Scratch) -> Committed:
    """The oldest entries, and nothing else."""
    dba = await Dba.take(scratch)
    await dba.delete(range(EARLY_SIZES[1]))
    return Committed(0)


async def cut_head(scratch: Scratch) -> Committed:
    """The oldest entries, and the head row says they were pruned."""
    dba = await Dba.take(scratch)
    await dba.delete(range(EARLY_SIZES[1]))
    await dba.edit_head("pruned_before = $2", EARLY_SIZES[1])
    return Committed(0)


async def cut_head_on_record(scratch: Scratch) -> Committed:
    """The same, with a `prune` entry that fits in everything, and carries a checkpoint signed by another key."""
    dba = await Dba.take(scratch)
    stranger = Signer.from_seed(_origin(scratch), os.urandom(32))
    await _prune_falsely(dba, lambda cut: _signed(cut, stranger))
    return Committed()


async def cut_changed_head(scratch: Scratch) -> Committed:
    """Entries are edited, hashed again and then pruned, with a `prune` entry that carries the genuine checkpoint of that size."""
    dba = await Dba.take(scratch)
    await forge_value(dba, await dba.find_old())
    await dba.rehash()
    await _prune_falsely(dba, lambda _: scratch.notes[1])
    return Committed()


async def cut_head_as_pruning(scratch: Scratch) -> Committed:
    """The oldest entries as they are, and a `prune` entry that carries the genuine checkpoint, which is public: what a lawful prune
    leaves, by somebody without any key. The log goes on, and the signer signs it."""
    await _prune_falsely(await Dba.take(scratch), lambda _: scratch.notes[1])
    return Committed(note=await sign_now(scratch))


async def cut_head_of_another(scratch: Scratch) -> Committed:
    """The oldest entries, and a `prune` entry with a checkpoint of another log."""
    dba = await Dba.take(scratch)
    other = f"{scratch.other.service_name}/t/{scratch.other.log_key}/1"
    key = scratch.signing.keys().signing[0].signer(other)
    await _prune_falsely(dba, lambda cut: _signed(replace(cut, origin=other), key))
    return Committed()


def _origin(scratch: Scratch) -> str:
    return f"{scratch.log.service_name}/t/{scratch.log.log_key}/1"


def _signed(checkpoint: Checkpoint, key: Signer) -> str:
    return format_note(sign_checkpoint(checkpoint, [key]))


async def _prune_falsely(dba: Dba, note_of: Callable[[Checkpoint], str]) -> None:
    """Record the cut as pruning would, then delete what is below it."""
    size = EARLY_SIZES[1]
    rows = (await dba.rows())[:size]
    tree = Frontier()
    tree.extend([row["hash"] for row in rows])
    origin = f"{dba.log.service_name}/t/{dba.log.log_key}/1"
    cut = control.Cut(
        cut=size,
        root=tree.root(),
        frontier=tree.to_bytes(),
        prev_hash=rows[-1]["hash"],
        last_recorded_at_us=rows[-1]["at_us"],
        epoch=1,
        count=size,
        first_at=rows[0]["recorded_at"],
        last_at=rows[-1]["recorded_at"],
        checkpoint=note_of(Checkpoint(origin, size, tree.root())),
        archive=os.urandom(32),
        signers=[],
    )
    await dba.append_control(control.prune(_act(), cut))
    await dba.edit_head("pruned_before = $2", size)
    await dba.delete(range(size))


# -- A11: an edit sold as forgetting -------------------------------------------------------------------------


async def null_disclosure(scratch: Scratch) -> Committed:
    """A disclosure is gone, and nothing says why."""
    dba = await Dba.take(scratch)
    seq = await dba.find_old()
    await dba.edit(seq, "d_changes = NULL, paths = NULL")
    return Committed(seq)


async def null_body(scratch: Scratch) -> Committed:
    """A body is gone with all that hung on it, and nothing says why."""
    dba = await Dba.take(scratch)
    seq = await dba.find_old()
    await _empty(dba, seq)
    return Committed(seq)


async def _empty(dba: Dba, seq: int) -> None:
    kept = ("log_id", "seq", "recorded_at", "epoch", "kind", "prev_hash", "body_hash", "hash")
    names = [name for name in (await dba.row(seq)).keys() if name not in kept]  # noqa: SIM118 - a Record iterates its values
    await dba.edit(seq, ", ".join(f"{name} = NULL" for name in names))


async def erase_for_others(scratch: Scratch) -> Committed:
    """A disclosure is gone, and an `erase` entry names a commitment that is not the body's."""
    dba = await Dba.take(scratch)
    seq = await dba.find_old()
    await dba.edit(seq, "d_changes = NULL, paths = NULL")
    await dba.append_control(_erase(ErasedItem(seq, "changes", os.urandom(32))))
    return Committed(seq)


async def edit_as_erasure(scratch: Scratch) -> Committed:
    """A value is replaced, and an `erase` entry names the right commitment."""
    dba = await Dba.take(scratch)
    seq = await dba.find_old()
    row = await dba.row(seq)
    committed = bytes.fromhex(orjson.loads(row["body"])["sd"]["actor_email"])
    salt = row["d_actor_email"][:SALT_BYTES]
    await dba.edit(seq, "d_actor_email = $3", salt + b'"nobody@example.com"')
    await dba.append_control(_erase(ErasedItem(seq, "actor_email", committed)))
    return Committed(seq)


async def drop_for_others(scratch: Scratch) -> Committed:
    """A body is gone, and a `drop` entry names its neighbour."""
    dba = await Dba.take(scratch)
    seq = await dba.find_old()
    await _empty(dba, seq)
    await dba.append_control(control.drop(_act(), [(seq + 1, seq + 2)], count=1, policy="age"))
    return Committed(seq)


async def drop_unasked(scratch: Scratch) -> Committed:
    """A body is gone, and a `drop` entry that nobody ordered names it: what a lawful one leaves. The signer signs it."""
    dba = await Dba.take(scratch)
    seq = await dba.find_old()
    await _empty(dba, seq)
    await dba.append_control(control.drop(_act(), [(seq, seq + 1)], count=1, policy="age"))
    return Committed(note=await sign_now(scratch))


def _erase(item: ErasedItem) -> control.Control:
    return control.erase(_act(), [item], request_hash=os.urandom(32))


def _act() -> Act:
    made = act("cli", "a drill")
    return Act(made.by, made.reason, made.at, made.id, os.urandom(ENTROPY_BYTES))
