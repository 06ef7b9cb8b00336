"""Verify a log: stream its entries through `core.checker`, in short slices, and answer a report (DESIGN 3.4).

No snapshot is held: each slice is a transaction of its own, so a verification of any length never slows appends.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.checker import Break, Checker, Head, microseconds
from audit_service.errors import InvalidQueryError, UnavailableError
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.query import Slice, fetch_head, list_slice
from audit_service.store.tables import bound_entry

SLICE_ENTRIES = 1000
COLUMNS = tuple(column.name for column in bound_entry.columns if column.name != "log_id")


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found. `status`: ok, broken, or incomplete (something asked for could not be checked)."""

    status: str
    origin: str
    from_seq: int
    to_seq: int
    count: int
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
    engine: AsyncEngine, log_id: int, *, from_seq: int = 0, to_seq: int | None = None
) -> AsyncIterator[Progress | Report]:
    """Check the entries with from_seq <= seq < to_seq (default: all there are at the start). Yields progress after each slice
    and the report last. Raises InvalidQueryError for a range outside the log, UnavailableError before anything was read.
    """
    head = await _head(engine, log_id)
    if head is None:
        yield _HEADLESS
        return
    end = head.size if to_seq is None else to_seq
    # A cut tail leaves a head that says more than there is, so only the head's own size limits the range.
    if not 0 <= from_seq <= end or end > head.size:
        raise InvalidQueryError(f"the log has {head.size} entries; ask for 0 <= from_seq <= to_seq <= {head.size}")
    async with translated(), bound(engine, log_id) as connection:
        columns = ("seq", "hash", "recorded_at")
        before = (await list_slice(connection, log_id, columns, from_seq=from_seq - 1, to_seq=from_seq, limit=1)).rows
    checker = Checker(head, from_seq)
    if before and from_seq:
        checker.prev_hash, checker.last_us = before[0].hash, microseconds(before[0].recorded_at)
    elif from_seq:
        checker.not_checked.append(f"seq {from_seq}: its link, because the entry before it is not there")
    interrupted = False
    try:
        async for progress in _check_slices(engine, log_id, checker, end):
            yield progress
        stored = await _stored_range(engine, log_id, head.size)
    except UnavailableError:
        interrupted = True
        checker.not_checked.append(f"seq {checker.expected_seq} and after: the database went away")
    if not interrupted:
        checker.finish(end, stored)
    yield _report(checker, head, end, interrupted=interrupted)


async def _check_slices(engine: AsyncEngine, log_id: int, checker: Checker, end: int) -> AsyncIterator[Progress]:
    start = position = checker.from_seq
    while position < end:
        try:
            found = await _read(engine, log_id, COLUMNS, position, end)
        except OverflowError:  # somewhere in the slice is a time that PostgreSQL can hold and Python cannot
            position = await _check_one(engine, log_id, checker, position, end)
        else:
            rows, position = _whole_seqs(found, end)
            for row in rows:
                checker.check(row)
        yield Progress(position - start, end - start)


async def _read(engine: AsyncEngine, log_id: int, columns: Sequence[str], from_seq: int, to_seq: int) -> Slice:
    async with translated(), bound(engine, log_id) as connection:
        return await list_slice(connection, log_id, columns, from_seq=from_seq, to_seq=to_seq, limit=SLICE_ENTRIES + 1)


async def _check_one(engine: AsyncEngine, log_id: int, checker: Checker, from_seq: int, to_seq: int) -> int:
    """Check the next seq by itself, or note that it cannot be read. Where to go on."""
    seq: int = (await _read(engine, log_id, ("seq",), from_seq, to_seq)).rows[0].seq
    try:
        for row in (await _read(engine, log_id, COLUMNS, seq, seq + 1)).rows:
            checker.check(row)
    except OverflowError:
        checker.skip(seq)
    return seq + 1


def _whole_seqs(found: Slice, end: int) -> tuple[Sequence[Any], int]:
    """What to check now of a slice, and where the next one starts. Rows of one seq stay together, or a duplicate could hide
    behind the end of a slice."""
    rows = found.rows
    if not found.more:
        return rows, end
    cut = len(rows) - 1
    while cut and rows[cut - 1].seq == rows[-1].seq:
        cut -= 1
    return (rows[:cut], rows[-1].seq) if cut else (rows, rows[-1].seq + 1)


async def _head(engine: AsyncEngine, log_id: int) -> Head | None:
    """The head row; None where it is gone or holds a time beyond Python's calendar."""
    async with translated(), bound(engine, log_id) as connection:
        try:
            row = await fetch_head(connection, log_id)
        except (NoResultFound, OverflowError):
            return None
    return Head(row.service_name, row.log_key, row.epoch, row.size, row.last_hash, row.last_recorded_at, row.frontier)


async def _stored_range(engine: AsyncEngine, log_id: int, size_at_start: int) -> range:
    """From the first stored seq to the last. What the head has moved over since `size_at_start` is new, and left out.

    The table is read before the head: an append between the two statements then moves the head only.
    """
    async with translated(), bound(engine, log_id) as connection:
        seq = bound_entry.c.seq
        query = select(func.min(seq), func.max(seq)).where(bound_entry.c.log_id == log_id)
        first, last = (await connection.execute(query)).one()
        size_now = (await fetch_head(connection, log_id)).size
    if first is None:
        return range(0)
    return range(first, size_at_start if last < size_now else last + 1)


_HEADLESS = Report(
    status="broken",
    origin="",
    from_seq=0,
    to_seq=0,
    count=0,
    head="",
    root=None,
    breaks=[Break(0, "head_mismatch", "a head row that can be read", None)],
    breaks_total=1,
    not_checked=["every entry: without the head row the log has no origin"],
)


def _report(checker: Checker, head: Head, end: int, *, interrupted: bool) -> Report:
    not_checked = [*checker.not_checked]
    incomplete = interrupted or any(item.startswith("seq ") for item in not_checked)
    root = checker.root() if end == head.size else None
    not_checked.append(
        "checkpoint: none given; a cut tail with its head reset, or a full re-hash, shows only against one"
    )
    return Report(
        status="broken" if checker.breaks_total else "incomplete" if incomplete else "ok",
        origin=head.origin(head.epoch),
        from_seq=checker.from_seq,
        to_seq=end,
        count=checker.count,
        head=head.last_hash.hex(),
        root=None if root is None else root.hex(),
        breaks=checker.breaks,
        breaks_total=checker.breaks_total,
        not_checked=not_checked,
    )
