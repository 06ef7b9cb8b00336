"""Verify a log: stream its entries through `core.checker`, in short slices, and answer a report (DESIGN 3.4).

No snapshot is held: each slice is a transaction of its own, so a verification of any length never slows appends.

Receipts: that of each event must be there once and repeat its seq, hash, prev_hash, epoch and recorded_at, and say it was kept. Over
a whole log, no receipt may name a seq beyond the head or the seq of another event. What a receipt has beside that (salt,
fingerprint, ruleset) only decides what a resent event is answered, and a receipt of an event that was not kept says
only that nothing was stored: the chain commits to neither, so neither is checked, with or without a checkpoint. Nor can it be
missed when the receipt of an event is deleted together with the event's body and id.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.batch import Run
from audit_service.core.checker import Break, Checker, Depth, Head, microseconds
from audit_service.errors import InvalidQueryError, UnavailableError
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
COLUMNS = tuple(column.name for column in bound_entry.columns if column.name != "log_id")
CHAIN_COLUMNS = (*HEADER_COLUMNS, "body")


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found. `status`: ok, broken, or incomplete (something asked for could not be checked)."""

    status: str
    origin: str
    from_seq: int
    to_seq: int
    count: int
    depth: Depth
    head: str
    root: str | None
    breaks: list[Break]
    breaks_total: int
    not_checked: list[str]

    def as_json(self) -> dict[str, object]:
        """The report of DESIGN 3.4."""
        return {
            "status": self.status,
            "origin": self.origin,
            "checked": {"from_seq": self.from_seq, "to_seq": self.to_seq, "count": self.count},
            "depth": self.depth,
            "pruned_before": None,
            "erased": 0,
            "head": self.head,
            "root": self.root,
            "checkpoint": {"status": "none"},
            "breaks": [
                {"seq": item.seq, "kind": item.kind, "expected": item.expected, "found": item.found}
                for item in self.breaks
            ],
            "breaks_total": self.breaks_total,
            "not_checked": self.not_checked,
        }


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a verification has come: entries read of those to read."""

    done: int
    total: int


async def verify(
    engine: AsyncEngine, log_id: int, *, from_seq: int = 0, to_seq: int | None = None, depth: Depth = "all"
) -> AsyncGenerator[Progress | Report]:
    """Check the entries with from_seq <= seq < to_seq (default: all there are at the start), at the depth `chain` their headers, bodies
    and links only. Yields progress after each slice and the report last; once anything was read, whatever happens ends in a
    report. Raises InvalidQueryError for a range outside the log, UnavailableError before anything was read.
    """
    head, faults = await _head(engine, log_id)
    if head is None:
        yield _headless(faults, depth)
        return
    end = head.size if to_seq is None else to_seq
    # A cut tail leaves a head that says more than there is, so only the head's own size limits the range.
    if not 0 <= from_seq <= end or end > head.size:
        raise InvalidQueryError(f"the log has {head.size} entries; ask for 0 <= from_seq <= to_seq <= {head.size}")
    checker = Checker(head, from_seq, depth=depth)
    for fault in faults:
        checker.head_fault(fault)
    if from_seq:
        await _start_within(engine, log_id, checker)
    interrupted = False
    try:
        async for progress in _check_slices(engine, log_id, checker, end):
            yield progress
        stored = await _stored_range(engine, log_id, head.size)
        if depth == "all":
            await _check_receipts(engine, log_id, checker, end)
        else:
            checker.not_checked.append("disclosures, query columns and receipts: only the depth `all` checks them")
        checker.finish(end, stored)
    except UnavailableError:
        interrupted = True
        checker.not_checked.append(f"seq {checker.expected_seq} and after: the database went away")
    except Exception as error:  # noqa: BLE001 - a stored value nobody thought of; the class says where to look, and no value
        interrupted = True
        checker.not_checked.append(
            f"seq {checker.expected_seq} and after: the verification itself failed ({type(error).__name__})"
        )
    yield _report(checker, head, end, interrupted=interrupted)


async def _start_within(engine: AsyncEngine, log_id: int, checker: Checker) -> None:
    """What the first entry of a range is held against: the entry before it."""
    at = checker.from_seq - 1
    async with translated(), bound(engine, log_id) as connection:
        columns = ("seq", "hash", "recorded_at", "epoch")
        rows = (await list_slice(connection, log_id, columns, from_seq=at, to_seq=at + 1, limit=1)).rows
    if not rows or None in (rows[0].hash, rows[0].recorded_at):
        checker.not_checked.append(f"seq {at + 1}: its link, because the entry before it is not there")
        return
    before = rows[0]
    checker.prev_hash, checker.last_us, checker.last_epoch = before.hash, microseconds(before.recorded_at), before.epoch


async def _check_slices(engine: AsyncEngine, log_id: int, checker: Checker, end: int) -> AsyncIterator[Progress]:
    """Batch after batch, each read while the one before is checked; where something breaks in one, or one would be too large, a slice
    row by row."""
    reader = BatchReader(engine, log_id, whole=checker.depth == "all")
    start = position = checker.from_seq
    entries = SLICE_ENTRIES
    ahead: asyncio.Task[tuple[Batch | None, int]] | None = None
    try:
        while position < end:
            batch, to_seq = await (ahead or _fetch(reader, position, end, entries))
            ahead = asyncio.create_task(_fetch(reader, to_seq, end, entries)) if batch and to_seq < end else None
            if batch and await _accept(checker, batch):
                position, entries = to_seq, min(entries + entries // 8 + 1, SLICE_ENTRIES)
            else:
                position, entries = await _check_rows(engine, log_id, checker, position, end), max(entries // 2, 1)
                await _drop(ahead)
                ahead = None
            if ahead:  # no transaction is open while the caller has its turn, however long that takes
                await asyncio.wait((ahead,))
            yield Progress(position - start, end - start)
    finally:
        await _drop(ahead)


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


async def _accept(checker: Checker, batch: Batch) -> bool:
    """Check a batch in one go: whether nothing breaks in it. Between its parts the next one is read, and others have their turn."""
    run = Run(checker, whole=checker.depth == "all")
    for start in range(0, len(batch.rows), PART_ENTRIES):
        if not run.accept(batch.rows[start : start + PART_ENTRIES]):
            return False
        await asyncio.sleep(0)
    run.finish()
    checker.receipts += batch.receipts
    return True


async def _check_rows(engine: AsyncEngine, log_id: int, checker: Checker, from_seq: int, to_seq: int) -> int:
    """Check a slice row by row, so that every break in it is named. Where the next one starts."""
    rows, copies, faults, following = await _read(engine, log_id, from_seq, to_seq, checker.depth)
    for row in rows:
        checker.check(row)
        if row.seq in faults:
            checker.receipt_fault(row.seq, faults[row.seq])
    if checker.depth == "all":
        checker.receipts += len({row.seq for row in rows if row.kind == "event" and row.id is not None} - faults.keys())
    if copies:
        checker.duplicates(rows[-1].seq, copies)
    return following


async def _read(
    engine: AsyncEngine, log_id: int, from_seq: int, to_seq: int, depth: Depth
) -> tuple[Sequence[Any], int, dict[int, str], int]:
    """A slice: its rows, how many copies of the last one the slice's end cut off, the faults of its receipts, and where the next
    one starts."""
    columns = COLUMNS if depth == "all" else CHAIN_COLUMNS
    async with translated(), bound(engine, log_id) as connection:
        found = await list_slice(connection, log_id, columns, from_seq=from_seq, to_seq=to_seq, limit=SLICE_ENTRIES)
        if not found.rows:
            return (), 0, {}, to_seq
        last = found.rows[-1].seq
        faults = {} if depth == "chain" else await list_receipt_faults(connection, log_id, from_seq, last + 1)
        # However few rows fit into a slice, a duplicate must not hide behind its end.
        there = await count_at(connection, log_id, last) if found.more else 0
    copies = max(there - sum(row.seq == last for row in found.rows), 0)
    return found.rows, copies, faults, last + 1 if found.more else to_seq


async def _head(engine: AsyncEngine, log_id: int) -> tuple[Head | None, list[str]]:
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
    head = Head(row.service_name, row.log_key, row.epoch, row.size, row.last_hash, row.last_recorded_at, row.frontier)
    if row.last_recorded_at is not None and row.last_recorded_at.tzinfo is None:
        head = replace(head, last_recorded_at=None)
    if row.size is not None and row.size >= 0:
        return head, []
    stored = await _stored_range(engine, log_id, 0)
    return replace(head, size=max(stored.stop, 0)), [f"size {row.size}"]


async def _stored_range(engine: AsyncEngine, log_id: int, size_at_start: int) -> range:
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


async def _check_receipts(engine: AsyncEngine, log_id: int, checker: Checker, end: int) -> None:
    """Whether any receipt names a seq that is not its own. Every event with an id was held against its receipt, so when as many
    receipts name a seq as did, those are all there are; only when not are they joined with the entries again."""
    size = checker.head.size
    if checker.from_seq or end < size:
        checker.not_checked.append("receipts without an event: only a check of the whole log looks for them")
        return
    claims = 0
    after_id: str | None = None
    starts: list[str | None] = []
    while True:
        async with translated(), bound(engine, log_id) as connection:
            some = await count_receipts(connection, log_id, after_id=after_id, size=size, limit=SLICE_RECEIPTS)
        if some.last_id is None:
            break
        starts.append(after_id)
        claims, after_id = claims + some.claims, some.last_id
        for seq in sorted(some.outside):
            checker.receipt_fault(seq, "a receipt of an entry that is there")
    if claims == checker.receipts:
        return
    for start in starts:
        async with translated(), bound(engine, log_id) as connection:
            strays = await list_stray_receipts(connection, log_id, after_id=start, size=size, limit=SLICE_RECEIPTS)
        for seq in strays:
            checker.receipt_fault(seq, "a receipt of this entry's id")


def _headless(faults: Sequence[str], depth: Depth) -> Report:
    return Report(
        depth=depth,
        status="broken",
        origin="",
        from_seq=0,
        to_seq=0,
        count=0,
        head="",
        root=None,
        breaks=[Break(0, "head_mismatch", "a head row that can be read", fault) for fault in faults],
        breaks_total=len(faults),
        not_checked=["every entry: without its head row the log has no origin"],
    )


def _report(checker: Checker, head: Head, end: int, *, interrupted: bool) -> Report:
    not_checked = [*checker.not_checked]
    incomplete = interrupted or any(item.startswith("seq ") for item in not_checked)
    root = checker.root() if end == head.size and not interrupted else None
    not_checked.append(
        "checkpoint: none given; a cut tail with its head reset, or a full re-hash, shows only against one"
    )
    return Report(
        status="broken" if checker.breaks_total else "incomplete" if incomplete else "ok",
        origin=head.origin(1 if head.epoch is None else head.epoch),
        from_seq=checker.from_seq,
        to_seq=end,
        count=checker.count,
        depth=checker.depth,
        head="" if head.last_hash is None else head.last_hash.hex(),
        root=None if root is None else root.hex(),
        breaks=checker.breaks,
        breaks_total=checker.breaks_total,
        not_checked=not_checked,
    )
