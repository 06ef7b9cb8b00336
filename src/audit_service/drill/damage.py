"""Attacks on single rows: damage (A1), edits (A2), an entry of another tenant (A15); and on what lies beside the entries."""

import base64
import os
from collections.abc import Sequence

from audit_service.core.entry import SALT_BYTES
from audit_service.drill.case import Committed
from audit_service.drill.dba import Dba, flip, forge_value
from audit_service.drill.sample import SOURCE, sample_event
from audit_service.drill.scratch import Scratch

# -- A1: damage ----------------------------------------------------------------------------------------------


async def flip_bit(scratch: Scratch, column: str, *, fresh: bool = False) -> Committed:
    """One bit of one column."""
    dba = await Dba.take(scratch)
    seq = await dba.find_fresh(scratch) if fresh else await dba.find_old()
    await dba.edit(seq, f"{column} = $3", flip((await dba.row(seq))[column]))
    return Committed(seq)


async def edit_column(scratch: Scratch, assignment: str) -> Committed:
    """One column of one entry, set by an expression."""
    dba = await Dba.take(scratch)
    seq = await dba.find_old()
    await dba.edit(seq, assignment)
    return Committed(seq)


async def migrate_badly(scratch: Scratch) -> Committed:
    """A migration that tidies up what looks untidy."""
    dba = await Dba.take(scratch)
    await dba.change("UPDATE audit.entry SET actor_name = upper(actor_name) WHERE log_id = $1 AND d_actor IS NOT NULL")
    return Committed(await dba.find_full(0, scratch.size))


async def truncate_times(scratch: Scratch) -> Committed:
    """A copy through a tool whose times have milliseconds."""
    dba = await Dba.take(scratch)
    await dba.change("UPDATE audit.entry SET recorded_at = date_trunc('milliseconds', recorded_at) WHERE log_id = $1")
    return Committed()


# -- A2, A15: rows -------------------------------------------------------------------------------------------


async def edit_disclosure(scratch: Scratch) -> Committed:
    """Another value under the same salt, and the column for queries to match."""
    dba = await Dba.take(scratch)
    seq = await dba.find_old()
    salt = (await dba.row(seq))["d_actor_email"][:SALT_BYTES]
    await dba.edit(seq, "d_actor_email = $3, actor_email = 'nobody@example.com'", salt + b'"nobody@example.com"')
    return Committed(seq)


async def edit_body(scratch: Scratch) -> Committed:
    """Another value, its commitment, and nothing hashed again."""
    dba = await Dba.take(scratch)
    seq = await dba.find_old()
    await forge_value(dba, seq)
    return Committed(seq)


async def delete_row(scratch: Scratch) -> Committed:
    """One entry and its receipt."""
    dba = await Dba.take(scratch)
    seq = await dba.find_old()
    await dba.delete([seq])
    return Committed(seq)


async def insert_row(scratch: Scratch) -> Committed:
    """One entry more in the middle, those behind it moved up."""
    dba = await Dba.take(scratch)
    await dba.drop_constraints()
    seq = await dba.find_old()
    row = await dba.row(seq)
    for table in ("entry", "receipt"):
        await dba.change(f"UPDATE audit.{table} SET seq = seq + 1 WHERE log_id = $1 AND seq >= $2", seq)  # noqa: S608 - our own names
    await dba.copy_row(row, id="drill:inserted")
    await dba.edit_head("size = size + 1")
    return Committed(seq)


async def append_row(scratch: Scratch) -> Committed:
    """One entry behind the last, past the function that appends, and past the head."""
    dba = await Dba.take(scratch)
    await dba.copy_row(await dba.row(scratch.size - 1), seq=scratch.size, id="drill:appended")
    return Committed(scratch.size)


async def swap_rows(scratch: Scratch) -> Committed:
    """Two neighbours in each other's place."""
    dba = await Dba.take(scratch)
    await dba.drop_constraints()
    seq = await dba.find_old()
    for table in ("entry", "receipt"):
        swap = (
            f"UPDATE audit.{table} SET seq = 2 * $2::bigint + 1 - seq WHERE log_id = $1 AND seq - $2::bigint IN (0, 1)"  # noqa: S608 - as above
        )
        await dba.change(swap, seq)
    return Committed(seq)


async def duplicate_row(scratch: Scratch) -> Committed:
    """One entry twice."""
    dba = await Dba.take(scratch)
    await dba.drop_constraints()
    seq = await dba.find_old()
    await dba.copy_row(await dba.row(seq))
    return Committed(seq)


async def copy_other_tenants_row(scratch: Scratch) -> Committed:
    """An entry of another tenant, whole, in the place of one of ours."""
    dba, other = await Dba.take(scratch), await Dba.take(scratch, scratch.other)
    seq = await other.find_full(1, 32)
    row = await other.row(seq)
    await dba.delete([seq])
    await dba.copy_row(row, log_id=scratch.log.log_id)
    return Committed(seq)


async def edit_receipt(scratch: Scratch) -> Committed:
    """The receipt of an entry names another hash."""
    dba = await Dba.take(scratch)
    seq = await dba.find_old()
    await dba.change("UPDATE audit.receipt SET hash = sha256(hash) WHERE log_id = $1 AND seq = $2", seq)
    return Committed(seq)


async def edit_head(scratch: Scratch, assignment: str) -> Committed:
    """One column of the head row."""
    dba = await Dba.take(scratch)
    await dba.drop_constraints()
    await dba.edit_head(assignment)
    return Committed()


# -- A13: what was never sent --------------------------------------------------------------------------------


async def number_events(scratch: Scratch, numbers: Sequence[int]) -> Committed:
    """A producer numbers its events, and these are the ones that arrive."""
    events = [sample_event(number) | {"source": {"id": f"{SOURCE}-numbered", "seq": number}} for number in numbers]
    await scratch.send(events)
    return Committed()


# -- beside the log ------------------------------------------------------------------------------------------


async def damage_tile(scratch: Scratch) -> Committed:
    """One bit of the stored hash tree."""
    dba = await Dba.take(scratch)
    tile = await dba.admin.fetchval(
        "SELECT hashes FROM audit.tile WHERE log_id = $1 AND level = 0 AND number = 0", dba.log.log_id
    )
    await dba.change("UPDATE audit.tile SET hashes = $2 WHERE log_id = $1 AND level = 0 AND number = 0", flip(tile))
    return Committed()


async def delete_checkpoints(scratch: Scratch) -> Committed:
    """Every stored checkpoint."""
    dba = await Dba.take(scratch)
    await dba.change("DELETE FROM audit.checkpoint WHERE log_id = $1")
    return Committed()


async def edit_checkpoint(scratch: Scratch) -> Committed:
    """The stored checkpoints name another root; the signatures stay as they were."""
    dba = await Dba.take(scratch)
    root = base64.b64encode(os.urandom(32)).decode()
    await dba.change(
        "UPDATE audit.checkpoint SET note = regexp_replace(note, '^([^\\n]*\\n[0-9]+\\n)[^\\n]*', '\\1' || $2) WHERE log_id = $1",
        root,
    )
    return Committed()
