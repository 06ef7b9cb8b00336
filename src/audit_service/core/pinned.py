"""Checkpoints kept outside the database, held against the log: the only thing that shows a log rewritten as a whole, or cut and reset.

Each is judged by itself:
- another log's, not signed by a trusted key, signed by one that had ended before, or of a size whose root was not found: `none`, and
  the verification is incomplete;
- larger than the log: `inconsistent`, break `truncated`;
- another root at its size: `inconsistent`, break `root_mismatch`;
- else `consistent`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from audit_service.core.checker import Break, Head
from audit_service.core.checkpoint import Checkpoint, parse_checkpoint
from audit_service.core.explanation import Resumption
from audit_service.core.note import Note, parse_note
from audit_service.core.trust import Trust
from audit_service.errors import InvalidSignatureError, UnknownSignerError

_SIGNATURE = "— "
Verdict = Literal["consistent", "inconsistent", "none"]
Signed = Literal["pinned", "own"]


@dataclass(frozen=True, slots=True)
class Pinned:
    """A checkpoint as it was given, nothing verified."""

    checkpoint: Checkpoint
    note: Note


@dataclass(frozen=True, slots=True)
class Judged:
    """A checkpoint and how the log stands to it; `detail`: why, for a person. `signed_by`: the trusted key under it was pinned, or is only
    the installation's own; None: no trusted key."""

    checkpoint: Checkpoint
    status: Verdict
    detail: str
    signed_by: Signed | None


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of the log: its head, roots at sizes that were reached, and the resume entries by their seqs."""

    head: Head
    roots: Mapping[int, bytes]
    resumptions: Mapping[int, Resumption]


def pin(text: str) -> Pinned:
    """The checkpoint in a signed note. Raises MalformedNoteError."""
    note = parse_note(text)
    return Pinned(parse_checkpoint(note.text), note)


def split_notes(text: str) -> list[str]:
    """The notes in a file that holds one after the other: each ends with its last signature line."""
    notes: list[list[str]] = [[]]
    for line in text.splitlines(keepends=True):
        if notes[-1] and notes[-1][-1].startswith(_SIGNATURE) and not line.startswith(_SIGNATURE):
            notes.append([])
        if line.strip() or notes[-1]:
            notes[-1].append(line)
    return ["".join(lines) for lines in notes if lines]


def judge(pinned: Sequence[Pinned], trust: Trust, found: Found) -> tuple[list[Judged], list[Break]]:
    """Every checkpoint, smallest first, and the breaks they show."""
    judged: list[Judged] = []
    breaks: list[Break] = []
    held = 0  # the largest size at which the log is as it was signed
    for one in sorted(pinned, key=lambda one: one.checkpoint.size):
        checkpoint = one.checkpoint
        signed_by, fault = _trusted(one, trust, found.head)
        if fault is None and checkpoint.size <= found.head.size and checkpoint.size not in found.roots:
            fault = "the root at its size was not found: not every entry before it was read"
        if fault is not None:
            judged.append(Judged(checkpoint, "none", fault, signed_by))
        elif found.roots.get(checkpoint.size) == checkpoint.root:
            judged.append(Judged(checkpoint, "consistent", "the log begins with what was signed", signed_by))
            held = checkpoint.size
        else:
            breaks.append(_break(checkpoint, found))
            told = _told(checkpoint, found.head.size, held) + _lost(found, held, checkpoint.size)
            judged.append(Judged(checkpoint, "inconsistent", told, signed_by))
    return judged, breaks


def overall(judged: Sequence[Judged]) -> Verdict:
    """One word for all of them: the worst."""
    verdicts = {one.status for one in judged} or {"none"}
    return "inconsistent" if "inconsistent" in verdicts else "none" if "none" in verdicts else "consistent"


def _trusted(one: Pinned, trust: Trust, head: Head) -> tuple[Signed | None, str | None]:
    """Whose trusted key has signed it; or why this checkpoint says nothing about this log."""
    if not head.is_origin(one.checkpoint.origin):
        return None, "it is another log's"
    try:
        opened = trust.open(one.note)
    except UnknownSignerError:
        if trust.is_ended(one.note):
            return None, "the key that signed it was revoked or succeeded before it: look for who has that key"
        return None, "no key that is known to be the log's has signed it"
    except InvalidSignatureError:
        return None, "its signature is false"
    return "pinned" if trust.is_pinned(opened) else "own", None


def _break(checkpoint: Checkpoint, found: Found) -> Break:
    root = found.roots.get(checkpoint.size)
    if root is None:
        return Break(found.head.size, "truncated", checkpoint.size, found.head.size)
    return Break(max(checkpoint.size - 1, 0), "root_mismatch", checkpoint.root.hex(), root.hex())


def _told(checkpoint: Checkpoint, log_size: int, held: int) -> str:
    """What must have happened to the log."""
    if checkpoint.size > log_size:
        return f"rollback: the log has {log_size} entries; its tail was cut off, or an older backup restored"
    since = f"from seq {held} on" if held else f"below seq {checkpoint.size}"
    if checkpoint.size == log_size:
        return f"rewrite of equal length: as many entries as were signed, and others {since}"
    return f"rewrite: {since} the log has other entries than were signed; replaced, or an older backup restored and gone on with"


def _lost(found: Found, start: int, end: int) -> str:
    """What the log itself says about entries lost in [start, end)."""
    said = [(seq, *one.lost) for seq, one in sorted(found.resumptions.items())]
    overlapping = [one for one in said if one[1] < end and start < one[2]]
    # An entry for each epoch that something is lost of: rather the one that reaches just as far as the checkpoint does.
    for seq, lost_from, lost_to in sorted(overlapping, key=lambda one: (one[2] < end, one[2]))[:1]:
        return f" (the resume entry at seq {seq} says that [{lost_from}, {lost_to}) was lost)"
    return ""
