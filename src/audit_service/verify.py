"""Verify a log: stream its entries through `core.checker`, in short slices, and answer a report (DESIGN 3.4).

1. The head fixes where the check ends.
2. Control entries are read: what they explain may be gone (`controls`).
3. The start: seq 0, the cut of a pruned log, a range's, or a checkpoint's size.
4. Slice by slice, in batches where nothing breaks. What is gone and not explained may have been forgotten since: then the check is
   extended to the head as it is now, with the control entries up to there. Were entries pruned meanwhile, it starts anew.
5. Receipts; head and root; the checkpoints given.

No snapshot is held: each slice is a transaction of its own, so a verification of any length never slows appends.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing

from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.controls import Controls
from audit_service.core import terms
from audit_service.core.checker import Break, Depth
from audit_service.core.pinned import Found, Judged, judge, pin
from audit_service.core.report import Report, TrustedKeys
from audit_service.core.tiles import TILE_WIDTH
from audit_service.core.trust import Trust
from audit_service.core.verified import VerifiedPoint, against_point, point_of
from audit_service.core.vkey import VerifierKey
from audit_service.errors import InvalidQueryError, MalformedNoteError, UnavailableError
from audit_service.verification import (
    OutrunError,
    Progress,
    PrunedMeanwhileError,
    Verification,
    find_head,
    stored_range,
)
from audit_service.verify_start import Question, end_of, start_of

__all__ = ["Progress", "Report", "final_report", "verify"]

ATTEMPTS_LIMIT = 3
OWN_KEYS = (
    "keys: some signatures are by the installation's own keys alone, and whoever controls it controls those; "
    "give a key that was kept elsewhere"
)
# They are no evidence: where the entries are there, they can be made anew.
TILES = (
    "hash tiles: not compared with the entries; a proof made of them is held against a signed root before it goes out, "
    "and `checkpoint rebuild-tiles` compares them all"
)

BEHIND = (
    "control entries after the range: those that explain something in it were held against the root of the log's head, "
    "and that root against nothing"
)
UNPROVEN = "seq {seq}: its place in the chain: it explains what is gone, and the stored hashes do not lead from it to the head's root"
INDEX = "search index: not compared with the entries; filters, searches and retention go by it, erasures do not"


async def verify(
    engine: AsyncEngine,
    log_id: int,
    *,
    from_seq: int = 0,
    to_seq: int | None = None,
    depth: Depth = "all",
    checkpoints: Sequence[str] = (),
    trusted: Sequence[VerifierKey] = (),
    own: Collection[bytes] = (),
    verified: VerifiedPoint | None = None,
    incremental: bool = False,
) -> AsyncGenerator[Progress | Report]:
    """Check the entries with from_seq <= seq < to_seq (default: all there are at the start, or from the cut on), at the depth `chain`
    their headers, bodies and links only; and hold the log against `checkpoints`, signed notes. Those count that one of the `trusted`
    keys has signed, one of the installation's `own` public ones, or one that succeeded such a key. The log is held against a `verified`
    point, too; `incremental` starts there, so that what is before it is not read.

    Yields progress after each slice and the report last; once anything was read, whatever happens ends in a report. Raises
    InvalidQueryError for a range outside the log or a note that is no checkpoint, UnavailableError before anything was read.
    """
    try:
        pinned = [pin(text) for text in checkpoints]
    except MalformedNoteError as error:
        raise InvalidQueryError(f"a checkpoint cannot be read: {error}") from None
    question = Question(from_seq, to_seq, depth, pinned, trusted, own, verified, incremental)
    for attempt in range(ATTEMPTS_LIMIT):
        try:
            async with aclosing(_attempt(engine, log_id, question, last=attempt == ATTEMPTS_LIMIT - 1)) as steps:
                async for step in steps:
                    yield step
        except PrunedMeanwhileError:
            continue
        return


async def final_report(
    steps: AsyncGenerator[Progress | Report], progressed: Callable[[Progress], None] = lambda _: None
) -> Report:
    """The report that a verification ends with; `progressed` is told what came before. Raises what `verify` does."""
    async with aclosing(steps):
        async for step in steps:
            if isinstance(step, Report):
                return step
            progressed(step)
    raise AssertionError("a verification ends with a report")


async def _attempt(
    engine: AsyncEngine, log_id: int, question: Question, *, last: bool
) -> AsyncGenerator[Progress | Report]:
    head, faults = await find_head(engine, log_id)  # 1
    if head is None:
        yield _headless(faults, question)
        return
    end = end_of(question, head)
    trust = Trust.in_keys(question.trusted, question.own)
    controls = Controls(engine, log_id, trust, from_seq=question.explained_from(head), to_seq=question.to_seq)
    async for read_to in controls.read(head):  # 2
        if read_to < head.size:
            yield Progress(0, end)
    checker = await start_of(engine, log_id, question, head, controls)  # 3
    for fault in faults:
        checker.head_fault(fault)
    verification = Verification(engine, log_id, checker, controls, end, open_end=question.to_seq is None)
    interrupted = False
    try:
        async with aclosing(verification.check_slices()) as steps:  # 4
            async for progress in steps:
                yield progress
        stored = await stored_range(engine, log_id, checker.head.size)
        await verification.check_receipts()  # 5
        checker.finish(verification.end, stored)
        if checker.erased or checker.dropped:
            checker.not_checked += [UNPROVEN.format(seq=seq) for seq in await controls.list_unproven()]
    except PrunedMeanwhileError:
        if not last:
            raise
        interrupted = True
        checker.not_checked.append(f"seq {checker.expected_seq} and after: entries are pruned while they are verified")
    except OutrunError:
        interrupted = True
        checker.not_checked.append(
            f"seq {checker.expected_seq} and after: entries are forgotten while they are verified"
        )
    except UnavailableError:
        interrupted = True
        checker.not_checked.append(f"seq {checker.expected_seq} and after: the database went away")
    except Exception as error:  # noqa: BLE001 - a stored value nobody thought of; the class says where to look, and no value
        interrupted = True
        checker.not_checked.append(
            f"seq {checker.expected_seq} and after: the verification itself failed ({type(error).__name__})"
        )
    yield _report(verification, question, interrupted=interrupted)


def _headless(faults: Sequence[str], question: Question) -> Report:
    return Report(
        status="broken",
        origin="",
        from_seq=0,
        to_seq=0,
        count=0,
        depth=question.depth,
        pruned_before=None,
        erased=0,
        dropped=0,
        head="",
        root=None,
        checkpoints=(),
        trusted_keys=_trusted_keys(question),
        breaks=[Break(0, "head_mismatch", "a head row that can be read", fault) for fault in faults],
        breaks_total=len(faults),
        not_checked=["every entry: without its head row the log has no origin"],
    )


def _trusted_keys(question: Question) -> TrustedKeys:
    return TrustedKeys(len({key.public for key in question.trusted}), len({*question.own}))


def _report(verification: Verification, question: Question, *, interrupted: bool) -> Report:
    checker, controls, end = verification.checker, verification.controls, verification.end
    head = checker.head
    judged, breaks = judge(
        question.pinned, controls.trust, Found(head, checker.roots, controls.explanations.resumptions)
    )
    if question.verified is not None:
        another = against_point(question.verified, head, checker.roots)
        breaks += [] if another is None else [another]
    for item in breaks:
        checker.broken(item)
    not_checked = [*checker.not_checked]
    not_checked += [f"seq {seq}: {fault}" for seq, fault in sorted(controls.faults.items())]
    incomplete = interrupted or any(item.startswith("seq ") for item in not_checked)
    incomplete |= any(one.status == "none" for one in judged)
    if controls.trust.leaned_on_own:
        not_checked.append(OWN_KEYS)
    not_checked += _beside(question, judged, head.size, end < head.size and bool(checker.erased or checker.dropped))
    root = checker.root() if end == head.size and not interrupted else None
    status = "broken" if checker.breaks_total else "incomplete" if incomplete else "ok"
    whole = end == head.size and checker.depth == "all"
    return Report(
        status=status,
        origin=head.origin(1 if head.epoch is None else head.epoch),
        from_seq=checker.from_seq,
        to_seq=end,
        count=checker.count,
        depth=checker.depth,
        pruned_before=head.pruned_before or None,
        erased=checker.erased,
        dropped=checker.dropped,
        head="" if head.last_hash is None else head.last_hash.hex(),
        root=None if root is None else root.hex(),
        checkpoints=judged,
        trusted_keys=_trusted_keys(question),
        breaks=checker.breaks,
        breaks_total=checker.breaks_total,
        not_checked=not_checked,
        point=point_of(checker) if status == "ok" and whole else None,
    )


def _beside(question: Question, judged: Sequence[Judged], size: int, explained_outside: bool) -> list[str]:
    """What was not asked, or cannot be told from the entries that were read."""
    beside = []
    if explained_outside:
        beside.append(BEHIND)
    if not question.pinned:
        beside.append(
            "checkpoint: none given; a cut tail with its head reset, or a full re-hash, shows only against one"
        )
    beside += [f"checkpoint of size {one.checkpoint.size}: {one.detail}" for one in judged if one.status == "none"]
    if size >= TILE_WIDTH:
        beside.append(TILES)
    if size >= terms.SEGMENT_EVENTS:
        beside.append(INDEX)
    return beside
