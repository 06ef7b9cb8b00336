"""Attacks that leave a log whole in itself: hashed again (A3), cut (A4), restored (A5), gone (A6), back-dated (A9)."""

import base64
import os
from collections.abc import Callable
from datetime import timedelta

import orjson

from audit_service.core.canonical import canonical_text
from audit_service.drill.case import Committed
from audit_service.drill.dba import Dba, forge_value
from audit_service.drill.scratch import EARLY_SIZES, Scratch
from audit_service.store.engine import bound
from audit_service.store.query import fetch_sound_head

# -- A3: everything hashed again -----------------------------------------------------------------------------


async def rehash_suffix(scratch: Scratch) -> Committed:
    """An edit of something signed, and every hash after it made to fit."""
    dba = await Dba.take(scratch)
    seq = await dba.find_old()
    await forge_value(dba, seq)
    await dba.rehash(seq)
    return Committed()


async def rehash_window(scratch: Scratch) -> Committed:
    """The same behind the last checkpoint."""
    dba = await Dba.take(scratch)
    seq = await dba.find_fresh(scratch)
    await forge_value(dba, seq)
    await dba.rehash(seq)
    return Committed()


async def rehash_all(scratch: Scratch) -> Committed:
    """Every entry's nonce replaced, and the whole log hashed anew."""
    dba = await Dba.take(scratch)
    for row in await dba.rows():
        body = orjson.loads(row["body"]) | {"nonce": base64.b64encode(os.urandom(16)).decode()}
        await dba.edit(row["seq"], "body = $3", canonical_text(body))
    await dba.rehash()
    return Committed()


async def unknown_version(scratch: Scratch) -> Committed:
    """A body of a version nobody knows, hashed again: whatever is in it would be looked at by nobody."""
    dba = await Dba.take(scratch)
    seq = await dba.find_old()
    body = orjson.loads((await dba.row(seq))["body"])
    await dba.edit(seq, "body = $3", canonical_text(body | {"v": 2}))
    await dba.rehash(seq)
    return Committed()


# -- A4, A5, A6: what is there no more -----------------------------------------------------------------------


async def cut_tail(scratch: Scratch, size_of: Callable[[Scratch], int]) -> Committed:
    """The tail from a size on, the head reset."""
    dba = await Dba.take(scratch)
    await dba.cut(size_of(scratch))
    return Committed()


async def cut_tail_only(scratch: Scratch) -> Committed:
    """The tail, and the head row forgotten."""
    dba = await Dba.take(scratch)
    await dba.delete(range(scratch.size - 5, scratch.size))
    return Committed(scratch.size - 5)


async def cut_tail_keep_receipts(scratch: Scratch) -> Committed:
    """The tail and the head, and the receipts forgotten."""
    dba = await Dba.take(scratch)
    size = scratch.size - 5
    hashes = [row["hash"] for row in await dba.rows()]
    await dba.change("DELETE FROM audit.entry WHERE log_id = $1 AND seq >= $2", size)
    await dba.set_head(hashes[:size])
    return Committed(size)


async def restore_backup(scratch: Scratch) -> Committed:
    """The whole database of an earlier time."""
    await scratch.restore_older()
    return Committed()


async def restore_and_go_on(scratch: Scratch) -> Committed:
    """The same, and as many events appended as were lost, and some more."""
    await scratch.restore_older()
    while (missing := scratch.size + 10 - await _size(scratch)) > 0:
        await scratch.append(min(missing, 200))
    return Committed()


async def _size(scratch: Scratch) -> int:
    async with bound(scratch.serving.reads, scratch.log.log_id) as connection:
        return int((await fetch_sound_head(connection, scratch.log.log_id)).size)


async def delete_tenant(scratch: Scratch) -> Committed:
    """Everything that has to do with a tenant."""
    dba = await Dba.take(scratch)
    for table in ("entry", "receipt", "checkpoint", "log", "tenant"):
        await dba.change(f"DELETE FROM audit.{table} WHERE log_id = $1")  # noqa: S608 - our own names
    return Committed()


# -- A9: time ------------------------------------------------------------------------------------------------


async def back_date(scratch: Scratch, *, fresh: bool, to_before: bool) -> Committed:
    """An entry that claims to be older, hashed again: a day older than it is, or only just as old as the one before it."""
    dba = await Dba.take(scratch)
    seq = await dba.find_later(*((scratch.signed, scratch.size) if fresh else EARLY_SIZES))
    before = (await dba.row(seq - 1))["recorded_at"]
    await dba.edit(seq, "recorded_at = $3", before if to_before else before - timedelta(days=1))
    await dba.rehash(seq)
    return Committed(None if to_before else seq)
