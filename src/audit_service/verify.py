"""Verify a log: stream its entries through `core.checker`, in short slices, and answer a report (DESIGN 3.4).

No snapshot is held: each slice is a transaction of its own, so a verification of any length never slows appends.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.checker import Break, Checker, Head
from audit_service.errors import InvalidQueryError, UnavailableError
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.query import fetch_head, list_slice
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
    async with translated(), bound(engine, log_id) as connection:
        head = await _head(connection, log_id)
        end = head.size if to_seq is None else to_seq
        # A cut tail leaves a head that says more than there is, so only the head's own size limits the range.
        if not 0 <= from_seq <= end or end > head.size:
            raise InvalidQueryError(f"the log has {head.size} entries; ask for 0 <= from_seq <= to_seq <= {head.size}")
        before = await list_slice(connection, log_id, ("hash",), from_seq=from_seq - 1, to_seq=from_seq, limit=1)
    checker = Checker(head, from_seq, before[0].hash if before else None)
    if from_seq and not before:
        checker.not_checked.append(f"link of seq {from_seq}: the entry before it is not there")
    interrupted = False
    try:
        async for progress in _check_slices(engine, log_id, checker, end):
            yield progress
        stored_size = await _stored_size(engine, log_id, head.size)
    except UnavailableError:
        interrupted = True
        checker.not_checked.append(f"seq {checker.expected_seq} and after: the database went away")
    if not interrupted:
        checker.finish(end, stored_size)
    yield _report(checker, head, end, interrupted=interrupted)


async def _check_slices(engine: AsyncEngine, log_id: int, checker: Checker, end: int) -> AsyncIterator[Progress]:
    start = position = checker.from_seq
    while position < end:
        async with translated(), bound(engine, log_id) as connection:
            rows = await list_slice(connection, log_id, COLUMNS, from_seq=position, to_seq=end, limit=SLICE_ENTRIES)
        if not rows:
            break
        for row in rows:
            checker.check(row)
        position = rows[-1].seq + 1
        yield Progress(position - start, end - start)


async def _head(connection: object, log_id: int) -> Head:
    row = await fetch_head(connection, log_id)  # type: ignore[arg-type]
    return Head(row.service_name, row.log_key, row.epoch, row.size, row.last_hash, row.frontier)


async def _stored_size(engine: AsyncEngine, log_id: int, size_at_start: int) -> int:
    """One past the last stored seq, unless the head has moved on meanwhile: then what is beyond `size_at_start` is new."""
    async with translated(), bound(engine, log_id) as connection:
        last = select(func.max(bound_entry.c.seq)).where(bound_entry.c.log_id == log_id).scalar_subquery()
        head = await fetch_head(connection, log_id)
        stored = (await connection.execute(select(last))).scalar_one()
    stored_size = 0 if stored is None else int(stored) + 1
    return size_at_start if stored_size <= head.size else stored_size


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
