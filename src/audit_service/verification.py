"""One verification at work: the slices of a log and its receipts, read and given to the checker (`verify` says in which order).

Receipts: that of each entry must be there once and repeat its seq, hash, prev_hash, epoch and recorded_at, and say it was kept. Over
a whole log, no receipt may name a seq beyond the head or the seq of another entry. Receipts outlast what they are of: those of dropped
entries are held against the hash, those of pruned ones against nothing. What a receipt has beside that (salt, fingerprint, ruleset)
only decides what a resent event is answered, and a receipt of an event that was not kept says only that nothing was stored: the
chain commits to neither, so neither is checked, with or without a checkpoint. Nor can it be missed when the receipt of an event is
deleted together with the event's body and id.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.controls import Controls
from audit_service.core.batch import Run
from audit_service.core.checker import Checker, Head
from audit_service.store.batches import Batch, BatchReader
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.query import (
    count_at,
    count_receipts,
    fetch_head,
    list_receipt_faults,
    list_slice,
    list_stray_receipts,
)
from audit_service.store.rows import HEADER_COLUMNS
from audit_service.store.tables import bound_entry

SLICE_ENTRIES = 1000
PART_ENTRIES = 50  # about a millisecond, during which a worker answers nobody else
SLICE_RECEIPTS = 10_000
# A log in which entries are forgotten faster than they can be verified would be verified for ever.
EXTENSIONS_LIMIT = 1000
COLUMNS = tuple(column.name for column in bound_entry.columns if column.name != "log_id")
CHAIN_COLUMNS = (*HEADER_COLUMNS, "body")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a verification has come: entries read of those to read."""

    done: int
    total: int


class PrunedMeanwhileError(Exception):
    """Entries that were to be read are below the cut now."""


class OutrunError(Exception):
    """Entries are forgotten faster than they are verified."""


class Verification:
    """Slices and receipts of one log. `end`: where the check ends; it moves when `open_end` and the head has moved on."""

    def __init__(
        self, engine: AsyncEngine, log_id: int, checker: Checker, controls: Controls, end: int, *, open_end: bool
    ) -> None:
        self.checker, self.controls, self.end = checker, controls, end
        self.first = checker.from_seq
        self._engine, self._log_id, self._open_end = engine, log_id, open_end
        self._pruned_before = checker.head.pruned_before or 0
        self._extensions = 0

    async def check_slices(self) -> AsyncGenerator[Progress]:
        """Batch after batch, each read while the one before is checked; where something breaks in one, or one would be too large, a slice
        row by row."""
        reader = BatchReader(self._engine, self._log_id, whole=self.checker.depth == "all")
        start = position = self.checker.from_seq
        entries = SLICE_ENTRIES
        ahead: asyncio.Task[tuple[Batch | None, int]] | None = None
        try:
            while position < self.end:
                batch, to_seq = await (ahead or _fetch(reader, position, self.end, entries))
                going_on = batch is not None and to_seq < self.end
                ahead = asyncio.create_task(_fetch(reader, to_seq, self.end, entries)) if going_on else None
                if batch and await self._accept(batch):
                    position, entries = to_seq, min(entries + entries // 8 + 1, SLICE_ENTRIES)
                else:
                    position, entries = await self._check_rows(position), max(entries // 2, 1)
                    await _drop(ahead)
                    ahead = None
                if ahead:  # no transaction is open while the caller has its turn, however long that takes
                    await asyncio.wait((ahead,))
                yield Progress(position - start, self.end - start)
        finally:
            await _drop(ahead)

    async def _accept(self, batch: Batch) -> bool:
        """Check a batch in one go: whether nothing breaks in it. Between its parts the next one is read, and others have their turn."""
        run = Run(self.checker, whole=self.checker.depth == "all")
        for start in range(0, len(batch.rows), PART_ENTRIES):
            if not run.accept(batch.rows[start : start + PART_ENTRIES]):
                return False
            await asyncio.sleep(0)
        run.finish()
        self.checker.receipts += batch.receipts
        return True

    async def _check_rows(self, from_seq: int) -> int:
        """Check a slice row by row, so that every break in it is named. Where the next one starts."""
        checker = self.checker
        rows, copies, faults, following = await self._read(from_seq)
        # Counted first: where the head row claims more entries than there are, the slice ends wherever it says.
        whole = len(rows) == following - from_seq and [row.seq for row in rows] == [*range(from_seq, following)]
        if not whole or any(map(checker.misses, rows)):
            await self._extend()
        for row in rows:
            checker.check(row)
            if row.seq in faults:
                checker.receipt_fault(row.seq, faults[row.seq])
        if checker.depth == "all":
            checker.receipts += len({row.seq for row in rows if row.id is not None} - faults.keys())
        if copies:
            checker.duplicates(rows[-1].seq, copies)
        return following

    async def _extend(self) -> None:
        """Something is gone that nothing explains. What forgot it was recorded at the same time: so look at the head, and at the control
        entries up to it; and check up to there, so that those are checked too."""
        head, _ = await find_head(self._engine, self._log_id)
        if head is None or head.size <= self.controls.read_to:
            return
        if (head.pruned_before or 0) > max(self._pruned_before, self.checker.from_seq):
            raise PrunedMeanwhileError
        if self._extensions == EXTENSIONS_LIMIT:
            raise OutrunError
        self._extensions += 1
        async for _ in self.controls.read(head):
            pass
        if self._open_end:
            self.checker.head, self.end = head, head.size

    async def _read(self, from_seq: int) -> tuple[Sequence[Any], int, dict[int, str], int]:
        """A slice: its rows, how many copies of the last one the slice's end cut off, the faults of its receipts, and where the next
        one starts."""
        log_id, whole = self._log_id, self.checker.depth == "all"
        columns = COLUMNS if whole else CHAIN_COLUMNS
        async with translated(), bound(self._engine, log_id) as connection:
            found = await list_slice(
                connection, log_id, columns, from_seq=from_seq, to_seq=self.end, limit=SLICE_ENTRIES
            )
            if not found.rows:
                return (), 0, {}, self.end
            last = found.rows[-1].seq
            faults = await list_receipt_faults(connection, log_id, from_seq, last + 1) if whole else {}
            # However few rows fit into a slice, a duplicate must not hide behind its end.
            there = await count_at(connection, log_id, last) if found.more else 0
        copies = max(there - sum(row.seq == last for row in found.rows), 0)
        return found.rows, copies, faults, last + 1 if found.more else self.end

    async def check_receipts(self) -> None:
        """Whether any receipt names a seq that is not its own. Every entry with an id was held against its receipt, so when as many
        receipts name a seq as did, those are all there are; only when not are they joined with the entries again."""
        checker, size = self.checker, self.checker.head.size
        if checker.depth == "chain":
            checker.not_checked.append("disclosures, query columns and receipts: only the depth `all` checks them")
            return
        first = max(self._pruned_before, 0)
        if checker.from_seq > first or self.end < size:
            checker.not_checked.append("receipts without an event: only a check of the whole log looks for them")
            return
        claims = 0
        after_id: str | None = None
        starts: list[str | None] = []
        while True:
            async with translated(), bound(self._engine, self._log_id) as connection:
                some = await count_receipts(
                    connection, self._log_id, after_id=after_id, from_seq=first, size=size, limit=SLICE_RECEIPTS
                )
            if some.last_id is None:
                break
            starts.append(after_id)
            claims, after_id = claims + some.claims, some.last_id
            for seq in sorted(some.outside):
                checker.receipt_fault(seq, "a receipt of an entry that is there")
        if claims == checker.receipts:
            return
        for start in starts:
            async with translated(), bound(self._engine, self._log_id) as connection:
                strays = await list_stray_receipts(
                    connection, self._log_id, after_id=start, size=size, limit=SLICE_RECEIPTS
                )
            for seq in strays:
                checker.receipt_fault(seq, "a receipt of this entry's id")


async def _fetch(reader: BatchReader, from_seq: int, end: int, entries: int) -> tuple[Batch | None, int]:
    """The next batch, if it is one, and where it ends."""
    to_seq = min(from_seq + entries, end)
    async with translated():
        return await reader.fetch(from_seq, to_seq), to_seq


async def _drop(ahead: asyncio.Task[Any] | None) -> None:
    """End a reading that nobody waits for any more, and whatever became of it."""
    if ahead is not None:
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)


async def find_head(engine: AsyncEngine, log_id: int) -> tuple[Head | None, list[str]]:
    """The head row, and what of it cannot be. None where it gives no origin. A size that is none is taken from the entries."""
    async with translated(), bound(engine, log_id) as connection:
        try:
            row = await fetch_head(connection, log_id)
        except NoResultFound:
            return None, ["no head row"]
        except MultipleResultsFound:
            return None, ["more than one head row"]
    missing = [name for name in ("service_name", "log_key") if getattr(row, name) is None]
    if missing:
        return None, [f"no {name}" for name in missing]
    last_at = row.last_recorded_at
    head = Head(
        row.service_name,
        row.log_key,
        row.epoch,
        row.size,
        row.last_hash,
        None if last_at is None or last_at.tzinfo is None else last_at,
        row.frontier,
        row.pruned_before,
    )
    if row.size is not None and row.size >= 0:
        return head, []
    stored = await stored_range(engine, log_id, 0)
    return replace(head, size=max(stored.stop, 0)), [f"size {row.size}"]


async def stored_range(engine: AsyncEngine, log_id: int, size_at_start: int) -> range:
    """From the first stored seq to the last. What the head has moved over since `size_at_start` is new, and left out.

    The table is read before the head: an append between the two statements then moves the head only.
    """
    async with translated(), bound(engine, log_id) as connection:
        seq = bound_entry.c.seq
        query = select(func.min(seq), func.max(seq)).where(bound_entry.c.log_id == log_id)
        first, last = (await connection.execute(query)).one()
        try:
            size_now = (await fetch_head(connection, log_id)).size
        except (NoResultFound, MultipleResultsFound):
            size_now = None
    if first is None:
        return range(0)
    appended = size_now is not None and last < size_now
    return range(first, size_at_start if appended else last + 1)
