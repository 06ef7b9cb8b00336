"""Lawful forgetting as its users know it: retention by age, clearing a log, erasing a person, legal holds (decision 0013).

Each run goes through the log segment by segment, and each segment is a short transaction with its own control entry: appends hardly wait,
a run that was killed is done as far as it came, and the same run again does the rest. What a legal hold covers is left and counted. A dry
run reads the same and removes nothing.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from audit_service.core import control, terms
from audit_service.core.checker import Head, genuine_body
from audit_service.core.control import Act, Control, ErasedItem, Range
from audit_service.core.entry import disclosure_hash
from audit_service.core.forgetting import Erasure, Subject, plan_erasure
from audit_service.core.view import DAMAGES, disclosed, stored_disclosures
from audit_service.errors import Fault, HeldError, InputError, IntegrityError, MovedOnError, UnavailableError
from audit_service.ingest import new_id
from audit_service.store import forgetting
from audit_service.store.engine import Database, bound
from audit_service.store.failures import translated
from audit_service.store.forgetting import Scope, State
from audit_service.store.query import fetch_sound_head
from audit_service.store.retention import OTHERS, list_hold_entries, list_holds

# How often a segment is prepared again when the log moved on meanwhile: an indexer adds one segment in seconds.
_ATTEMPTS = 10
# A hold may be set or lifted between the two statements that read the table and the entries: then they are looked at again.
_LOOKS = 3
# What one call may carry of search text that is left; beyond it, another call.
_LEFT_CHARACTERS = 32 * 1024 * 1024
Policy = Literal["age", "clear", "prune"]
Report = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Author:
    """Who forgets, and why: `by` is an API key's id, `cli` or `schedule`; `reason` is shown to every reader and can never be removed."""

    by: str
    reason: str

    def __post_init__(self) -> None:
        check_reason(self.reason)

    def act(self) -> Act:
        """One act of theirs, now."""
        return Act(self.by, self.reason, datetime.now(UTC), new_id(), os.urandom(control.ENTROPY_BYTES))


def check_reason(reason: str) -> None:
    """Raises InputError."""
    if not 1 <= len(reason) <= control.REASON_CHARACTERS or any(ord(character) < 32 for character in reason):
        fault = Fault("must be 1 to 500 characters without control characters", "/reason")
        raise InputError("a reason is needed, which names nobody: it stays in the log", [fault])


@dataclass(slots=True)
class Forgotten:
    """What a run did, or would do. `entries`: those that lost something; `values`: disclosures erased; `held`: entries left because of a
    legal hold; `damaged`: entries that cannot be read, see `verify`; `controls`: the seqs of the control entries."""

    entries: int = 0
    values: int = 0
    held: int = 0
    damaged: int = 0
    controls: list[int] = field(default_factory=list)

    def add(self, other: "Forgotten") -> None:
        """Sum up."""
        self.entries += other.entries
        self.values += other.values
        self.held += other.held
        self.damaged += other.damaged
        self.controls += other.controls

    def counts(self) -> dict[str, int]:
        """As it is told."""
        return {
            "entries": self.entries,
            "values": self.values,
            "held": self.held,
            "damaged": self.damaged,
            "control_entries": len(self.controls),
        }


def _silent(segments: int) -> None:
    del segments


async def check_holds(database: Database, log_id: int) -> None:
    """Hold the table of legal holds, by which everything here goes, against the log's own `hold` entries: a row may have been deleted, and
    no verification reads that table. Only what a prune took may be in the table alone. Raises IntegrityError where they differ."""
    for _ in range(_LOOKS):
        async with translated(), bound(database.reads, log_id) as connection:
            head = await fetch_sound_head(connection, log_id)
            entries = await list_hold_entries(connection, log_id)
            rows = await list_holds(connection, log_id)
        held = {row.hold_id: _Held(row.from_seq, row.to_seq, row.target_type, row.target_id) for row in rows}
        whole = Head(
            head.service_name,
            head.log_key,
            head.epoch,
            head.size,
            head.last_hash,
            None,
            head.frontier,
            head.pruned_before,
        )
        entered = _entered_holds(whole, entries)
        in_force = {hold: what for hold, what in entered.items() if what is not None}
        beside = held.keys() - in_force.keys()
        if in_force.items() <= held.items() and (not beside or (head.pruned_before and not beside & entered.keys())):
            return
    raise IntegrityError(
        "the legal holds in force are not those that the log has: nothing is forgotten; verify the log"
    )


class _Held(NamedTuple):
    from_seq: int | None
    to_seq: int | None
    target_type: str | None
    target_id: str | None


def _entered_holds(head: Head, entries: Sequence[Any]) -> dict[str, _Held | None]:
    """Hold → what it holds by the log's entries, None when it was lifted."""
    found: dict[str, _Held | None] = {}
    for row in entries:
        body: Any = genuine_body(head, row)
        if body is None:
            raise IntegrityError(f"the `hold` entry at seq {row.seq} is damaged: nothing is forgotten; verify the log")
        details = body["details"]
        if details["state"] == "lifted":
            found[details["hold"]] = None
            continue
        from_seq, to_seq = details.get("range", (None, None))
        disclosed_target = row.d_target  # gone once the hold was lifted and its target erased
        sealed = (
            disclosed_target is not None and disclosure_hash("target", disclosed_target).hex() == body["sd"]["target"]
        )
        target: Any = disclosed(disclosed_target) if sealed else {}
        found[details["hold"]] = _Held(from_seq, to_seq, body.get("target_type"), target.get("id"))
    return found


async def clear(
    database: Database,
    log_id: int,
    author: Author,
    *,
    to_seq: int | None = None,
    policy: Policy = "clear",
    dry_run: bool = False,
    report: Report = _silent,
) -> Forgotten:
    """Drop all events below `to_seq`; by default all that there are when it begins."""
    await check_holds(database, log_id)
    async with translated():
        end = await forgetting.first_recorded(database.reads, log_id, None)
    scope = Scope(end if to_seq is None else min(to_seq, end))
    return await _drop(database, log_id, scope, _Record(author, policy), dry_run=dry_run, report=report)


async def apply_policies(
    database: Database,
    log_id: int,
    author: Author,
    policies: Mapping[str, int],
    *,
    dry_run: bool = False,
    report: Report = _silent,
) -> dict[str, Forgotten]:
    """Drop what is older than its category's days, by recorded_at and the database's clock. `policies`: category → days, OTHERS for all
    that have none; what has none at all is kept. The results by category."""
    await check_holds(database, log_id)
    named = tuple(sorted(category for category in policies if category != OTHERS))
    done = {}
    for category, days in sorted(policies.items()):
        async with translated():
            before = await forgetting.fetch_clock(database.reads, log_id) - timedelta(days=days)
            end = await forgetting.first_recorded(database.reads, log_id, before)
        scope = Scope(end, without=named) if category == OTHERS else Scope(end, category)
        record = _Record(author, "age", before, category or None)
        done[category] = await _drop(database, log_id, scope, record, dry_run=dry_run, report=report)
    return done


def effective_policies(default_days: int | None, defaults: Mapping[str, int], own: Mapping[str, int]) -> dict[str, int]:
    """Category → days in force for a log: its own before the installation's. `default_days`: of every category without a policy."""
    others = {} if default_days is None else {OTHERS: default_days}
    return {**others, **defaults, **own}


@dataclass(frozen=True, slots=True)
class _Record:
    """Makes the `drop` entries of a run."""

    author: Author
    policy: Policy
    before: datetime | None = None
    category: str | None = None

    def entry(self, ranges: Sequence[Range], count: int) -> Control:
        return control.drop(
            self.author.act(), ranges, count=count, policy=self.policy, before=self.before, category=self.category
        )


async def _drop(
    database: Database, log_id: int, scope: Scope, record: _Record, *, dry_run: bool, report: Report
) -> Forgotten:
    async with translated():
        numbers = await forgetting.list_numbers(database.reads, log_id, scope)
    done = Forgotten()
    for number in numbers:
        async with translated():
            done.add(await _drop_segment(database, log_id, scope, number, record, dry_run=dry_run))
        report(1)
    return done


async def _drop_segment(
    database: Database, log_id: int, scope: Scope, number: int, record: _Record, *, dry_run: bool
) -> Forgotten:
    for _ in range(_ATTEMPTS):
        state = await forgetting.fetch_state(database.reads, log_id)
        found = await forgetting.fetch_droppable(database.reads, log_id, scope, number)
        done = Forgotten(len(found.seqs), held=found.held)
        if dry_run or not found.seqs:
            return done
        entry = record.entry(forgetting.ranges_of(found.seqs), len(found.seqs))
        try:
            entered = await forgetting.drop_entries(
                database.reads, database.writes, log_id, state, number, found.seqs, entry
            )
        except (MovedOnError, HeldError):  # a hold may have been set since we looked
            continue
        done.controls.append(entered.seq)
        return done
    raise _restless()


def _restless() -> UnavailableError:
    return UnavailableError("the log keeps moving on; what is done stays done, run it again", 30)


async def erase(
    database: Database,
    log_id: int,
    author: Author,
    subject: Subject,
    *,
    reference: str,
    groups: frozenset[str] | None = None,
    dry_run: bool = False,
    report: Report = _silent,
) -> Forgotten:
    """Erase what entries say of a subject (see `core.forgetting`), with the search text, postings and fingerprints made of it. Again, it
    finds nothing more. `reference`: of the request behind it; only its hash is entered."""
    await check_holds(database, log_id)
    erasing = _Erasing(database, log_id, author, subject, groups, sha256(reference.encode()).digest(), dry_run)
    done = Forgotten()
    async with translated():
        async for seqs in forgetting.stream_named(database.reads, log_id, subject):
            done.add(await erasing.erase_in(seqs))
            report(1)
    return done


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one call erases, and where the next begins, None at the end."""

    erasures: list[Erasure]
    next_seq: int | None
    held: int
    damaged: int


@dataclass(frozen=True, slots=True)
class _Erasing:
    """One erasure, at work."""

    database: Database
    log_id: int
    author: Author
    subject: Subject
    groups: frozenset[str] | None
    request_hash: bytes
    dry_run: bool

    async def erase_in(self, seqs: Sequence[int]) -> Forgotten:
        """Erase in some entries of one segment."""
        done = Forgotten()
        from_seq: int | None = seqs[0]
        attempts = 0
        while from_seq is not None:
            state = await forgetting.fetch_state(self.database.reads, self.log_id)
            batch = await self._plan(seqs, from_seq)
            try:
                entered = await self._enter(state, batch.erasures)
            except (MovedOnError, HeldError):
                attempts += 1
                if attempts == _ATTEMPTS:
                    raise _restless() from None
                continue
            values = sum(len(erasure.items) for erasure in batch.erasures)
            done.add(Forgotten(len(batch.erasures), values, batch.held, batch.damaged, entered))
            from_seq, attempts = batch.next_seq, 0
        return done

    async def _plan(self, seqs: Sequence[int], from_seq: int) -> _Batch:
        erasures: list[Erasure] = []
        held = damaged = items = characters = 0
        while True:
            found = await forgetting.fetch_named(self.database.reads, self.log_id, self.subject, seqs, from_seq)
            for row in found.rows:
                try:
                    erasure = plan_erasure(row.seq, row.body, stored_disclosures(row), self.subject, self.groups)
                except DAMAGES:
                    damaged += 1
                    continue
                if erasure is None:
                    continue
                if row.held:
                    held += 1
                    continue
                items += len(erasure.items)
                characters += len(erasure.left.search or "")
                if erasures and (items > control.ITEMS_LIMIT or characters > _LEFT_CHARACTERS):
                    return _Batch(erasures, row.seq, held, damaged)
                erasures.append(erasure)
            if not found.more:
                return _Batch(erasures, None, held, damaged)
            from_seq = found.rows[-1].seq + 1

    async def _enter(self, state: State, erasures: Sequence[Erasure]) -> list[int]:
        """The seqs of the control entries: one, or none when nothing is to be done."""
        if self.dry_run or not erasures:
            return []
        items: list[ErasedItem] = [item for erasure in erasures for item in erasure.items]
        entry = control.erase(self.author.act(), items, request_hash=self.request_hash)
        number = erasures[0].seq // terms.SEGMENT_EVENTS
        entered = await forgetting.erase_disclosures(
            self.database.reads, self.database.writes, self.log_id, state, number, erasures, entry
        )
        return [entered.seq]
