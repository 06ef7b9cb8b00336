"""The point up to which a log was found right: what a later verification needs to go on there, and to tell that the log is still the same.

Kept outside the database it is a checkpoint of a kind: a log that is shorter than it was, or has another root at that size, was cut,
replaced or restored from an older copy.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from audit_service.core.checker import Break, Checker, Head
from audit_service.core.merkle import Frontier


@dataclass(frozen=True, slots=True)
class VerifiedPoint:
    """A log of `size` entries: 32 bytes of `frontier` for each set bit of the size, and hash, time and epoch of the last entry (of an empty
    log: what its first is linked to, 0 and 1). Times are microseconds since the Unix epoch."""

    size: int
    frontier: bytes
    last_hash: bytes
    last_us: int
    epoch: int

    def tree(self) -> Frontier:
        """The tree, to grow from here. Raises ProofError where the frontier is not one of this size."""
        return Frontier.from_bytes(self.size, self.frontier)

    def root(self) -> bytes:
        """The root of the tree. Raises ProofError."""
        return self.tree().root()


def point_of(checker: Checker) -> VerifiedPoint | None:
    """Where a checker stands that found nothing wrong; None when it does not know the whole tree."""
    frontier, last_hash, epoch = checker.frontier_bytes(), checker.prev_hash, checker.last_epoch
    if frontier is None or last_hash is None or epoch is None or checker.breaks_total:
        return None
    return VerifiedPoint(checker.expected_seq, frontier, last_hash, checker.last_us, epoch)


def against_point(point: VerifiedPoint, head: Head, roots: Mapping[int, bytes]) -> Break | None:
    """How the log is another than it was; None when it is not, or when the root at that size was not found, which has a break of its own
    unless it lies below the cut."""
    if head.size < point.size:
        return Break(head.size, "truncated", point.size, head.size)
    root = roots.get(point.size)
    if root is None or root == point.root():
        return None
    return Break(max(point.size - 1, 0), "root_mismatch", point.root().hex(), root.hex())
