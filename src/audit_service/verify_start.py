"""Where a verification starts, and what is known there of everything before: nothing at seq 0; the cut of a pruned log, by its `prune`
entry; the point that was verified last; else the entry before, by itself."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.controls import Controls
from audit_service.core.checker import Break, Checker, Depth, Head, microseconds
from audit_service.core.explanation import Cut
from audit_service.core.merkle import (
    EMPTY_ROOT,
    Frontier,
    HashReader,
    check_consistency,
    cover,
    frontier_root,
    prove_consistency,
)
from audit_service.core.pinned import Pinned, pin
from audit_service.core.trust import Trust
from audit_service.core.verified import VerifiedPoint
from audit_service.core.vkey import VerifierKey
from audit_service.errors import (
    InvalidQueryError,
    MalformedNoteError,
    ProofError,
    SignatureError,
    TreeDamagedError,
    UnavailableError,
)
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.pruning import has_pruned_rows
from audit_service.store.query import list_slice
from audit_service.store.tiles import TileCache, read_tree


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a verification. `trusted`: the keys that checkpoints of the log may be signed with, and `own`: the installation's
    public ones. `verified`: the point up to which the log was found right, which it is held against; the place to start when
    `incremental`."""

    from_seq: int = 0
    to_seq: int | None = None
    depth: Depth = "all"
    pinned: Sequence[Pinned] = ()
    trusted: Sequence[VerifierKey] = ()
    own: Collection[bytes] = ()
    verified: VerifiedPoint | None = None
    incremental: bool = False

    def explained_from(self, head: Head) -> int:
        """What explains only entries before this one is not needed."""
        return self.verified.size if self.verified is not None and self.goes_on(head) else self.from_seq

    def goes_on(self, head: Head) -> bool:
        """Whether to start at the verified point: one beyond the log's end says that the log was cut, and is no place to start."""
        return self.incremental and self.verified is not None and self.verified.size <= head.size


def end_of(question: Question, head: Head) -> int:
    """Where the check ends. A cut tail leaves a head that says more than there is, so only the head's own size limits the range."""
    end = head.size if question.to_seq is None else question.to_seq
    if not 0 <= question.from_seq <= end or end > head.size:
        raise InvalidQueryError(f"the log has {head.size} entries; ask for 0 <= from_seq <= to_seq <= {head.size}")
    return end


async def start_of(engine: AsyncEngine, log_id: int, question: Question, head: Head, controls: Controls) -> Checker:
    """The checker at the first entry to check, with what is known of everything before it."""
    breaks, doubts = _cut_faults(head, controls)
    cut = controls.explanations.cut
    stated = head.pruned_before or 0
    first = max(stated if 0 <= stated <= head.size else 0, cut.cut if cut else 0)
    if question.to_seq is not None and question.to_seq < first:
        raise InvalidQueryError(f"the entries below {first} were pruned; ask for {first} <= to_seq <= {head.size}")
    from_seq = max(question.from_seq, first)
    sizes = [one.checkpoint.size for one in question.pinned]
    sizes += [] if question.verified is None else [question.verified.size]
    sizes += [resumption.size for resumption in controls.explanations.resumptions.values()]

    def checker(at: int, **known: Any) -> Checker:
        return Checker(head, at, depth=question.depth, explanations=controls.explanations, sizes=sizes, **known)

    if question.verified is not None and question.goes_on(head) and first <= question.verified.size:
        point = question.verified
        known = {"prev_hash": point.last_hash, "last_us": point.last_us, "last_epoch": point.epoch}
        made = checker(point.size, frontier=point.tree(), **known)
        if point.size > first:
            doubts.append(f"entries below seq {point.size}: found right before, and not read again")
    elif cut is not None and not breaks and from_seq == cut.cut:
        known = {"prev_hash": cut.prev_hash, "last_us": cut.last_us, "last_epoch": cut.epoch}
        made = checker(from_seq, frontier=Frontier(cut.cut, cut.frontier.hashes), **known)
        made.roots.update(await _roots_below(engine, log_id, cut, {size for size in sizes if 0 <= size < cut.cut}))
    else:
        made = checker(from_seq)
        if from_seq:
            await _start_within(engine, log_id, made)
    for item in breaks:
        made.broken(item)
    made.not_checked += doubts
    if first:
        left = "; rows of them that are still there are being deleted" if await has_pruned_rows(engine, log_id) else ""
        made.not_checked.append(f"entries below seq {first}: pruned{left}")
    return made


def _cut_faults(head: Head, controls: Controls) -> tuple[list[Break], list[str]]:
    """What does not hold, and what cannot be told, of a log's cut."""
    pruned, cut = head.pruned_before, controls.explanations.cut
    if pruned is None or not 0 <= pruned <= head.size:
        return [Break(0, "head_mismatch", "a head row that can be read", f"pruned_before {pruned}")], []
    recorded = cut.cut if cut else 0
    if pruned > recorded:
        return [Break(0, "unrecorded_prune", recorded, pruned)], []
    if cut is None:
        return [], []
    if pruned < recorded:
        return [Break(cut.seq, "head_mismatch", f"pruned_before {recorded}", f"pruned_before {pruned}")], []
    if cut.frontier.root() != cut.root:
        return [Break(cut.seq, "unrecorded_prune", cut.root.hex(), cut.frontier.root().hex())], []
    return _signed_faults(head, cut, controls.trust)


def _signed_faults(head: Head, cut: Cut, trust: Trust) -> tuple[list[Break], list[str]]:
    """The same of the checkpoint in the prune entry: it must be the log's, of the same size and root, and signed by a known key."""
    try:
        signed = pin(cut.note)
        same = head.is_origin(signed.checkpoint.origin)
        if not same or (signed.checkpoint.size, signed.checkpoint.root) != (cut.cut, cut.root):
            return [Break(cut.seq, "unrecorded_prune", cut.root.hex(), signed.checkpoint.root.hex())], []
        if not trust:
            return [], [f"seq {cut.cut}: the signature under its prune entry, because no key of the log was given"]
        trust.open(signed.note)
    except (MalformedNoteError, SignatureError):
        return [Break(cut.seq, "unrecorded_prune", "a checkpoint signed by a known key", None)], []
    return [], []


async def _roots_below(engine: AsyncEngine, log_id: int, cut: Cut, sizes: Iterable[int]) -> dict[int, bytes]:
    """The roots at sizes below the cut, by the stored tiles, which outlive the entries. Only those from which the tree is proven to have
    grown to the recorded one: tiles prove nothing by themselves."""
    remembered, roots = TileCache(), {}
    for size in sizes:
        if size == 0:
            roots[0] = EMPTY_ROOT
            continue

        def prove(reader: HashReader, size: int = size) -> tuple[bytes, list[bytes]]:
            return frontier_root(reader(cover(0, size))), prove_consistency(size, cut.cut, reader)

        try:
            async with translated(), bound(engine, log_id) as connection:
                root, proof = await read_tree(connection, log_id, cut.cut, remembered, prove)
            check_consistency(size, cut.cut, proof, root, cut.root)
        except (ProofError, TreeDamagedError, UnavailableError):
            continue  # unknown, so a checkpoint of that size cannot be told
        roots[size] = root
    return roots


async def _start_within(engine: AsyncEngine, log_id: int, checker: Checker) -> None:
    """What the first entry of a range is held against: the entry before it."""
    at = checker.from_seq - 1
    if at < 0:
        return
    async with translated(), bound(engine, log_id) as connection:
        columns = ("seq", "hash", "recorded_at", "epoch")
        rows = (await list_slice(connection, log_id, columns, from_seq=at, to_seq=at + 1, limit=1)).rows
    if not rows or None in (rows[0].hash, rows[0].recorded_at):
        checker.not_checked.append(f"seq {at + 1}: its link, because the entry before it is not there")
        return
    before = rows[0]
    checker.prev_hash, checker.last_us, checker.last_epoch = before.hash, microseconds(before.recorded_at), before.epoch
