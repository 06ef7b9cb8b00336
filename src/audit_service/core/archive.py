r"""What follows from the headers of an archived range: the tree and the chain where the range ends.

>>> from datetime import UTC
>>> zeros = "0" * 64
>>> trace = ArchiveTrace(0, b"")
>>> trace.take(f"audit-service/entry/v1\naudit.example.com/t/{'7f' * 16}/1\n0\n1795338900000000\nevent\n{zeros}\n{zeros}\n")
>>> trace.size, trace.epoch, trace.first_at == trace.last_at == datetime(2026, 11, 22, 9, 15, tzinfo=UTC)
(1, 1, True)
"""

from datetime import UTC, datetime, timedelta

from audit_service.core.chain import entry_hash
from audit_service.core.merkle import Frontier

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ArchiveTrace:
    """Follows headers that a verifier has accepted, in order, behind a tree whose frontier is known. What the last one says is None before
    the first."""

    def __init__(self, size: int, frontier: bytes) -> None:
        """Go on behind `size` entries. Raises ValueError for a frontier of another size."""
        self._tree = Frontier.from_bytes(size, frontier)
        self.last_hash = b""
        self.epoch = 0
        self.last_recorded_at_us = 0
        self._first_recorded_at_us: int | None = None

    def take(self, header: str) -> None:
        """The next header, its exact text."""
        _, origin, _, recorded_at_us, *_ = header.split("\n")
        self.last_hash = entry_hash(header.encode())
        self.epoch = int(origin.rpartition("/")[2])
        self.last_recorded_at_us = int(recorded_at_us)
        if self._first_recorded_at_us is None:
            self._first_recorded_at_us = self.last_recorded_at_us
        self._tree.append(self.last_hash)

    @property
    def size(self) -> int:
        """How many entries the tree has."""
        return self._tree.size

    @property
    def first_at(self) -> datetime:
        """When the first header was recorded."""
        return _time(self._first_recorded_at_us or 0)

    @property
    def last_at(self) -> datetime:
        """When the last one was."""
        return _time(self.last_recorded_at_us)

    def root(self) -> bytes:
        """The root of the tree so far."""
        return self._tree.root()

    def frontier(self) -> bytes:
        """Its frontier, concatenated."""
        return self._tree.to_bytes()


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
