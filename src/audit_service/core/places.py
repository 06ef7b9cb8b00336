"""Places for what takes long, counted: so many in all, so many for one key or token, and never the last one of all for a single log, so
that neither a key nor a tenant takes them from the others."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from audit_service.errors import AuditError, RateLimitedError, UnavailableError

WAITING_PER_KEY = 16


class Places:
    """Places for one kind of work, named in the plural. One key or token never holds more than `per_key` of the `limit`, and all of one log
    leave one to the other logs; a limit of 1 is for whoever comes first."""

    def __init__(self, name: str, *, limit: int, per_key: int, retry_after_seconds: int) -> None:
        self.name, self.limit, self.per_key = name, limit, per_key
        self.per_log = max(limit - 1, 1)
        self.retry_after_seconds = retry_after_seconds
        self._taken: Counter[tuple[int, str]] = Counter()
        self._waiting: Counter[tuple[int, str]] = Counter()

    @property
    def taken(self) -> int:
        """How many are taken now."""
        return self._taken.total()

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return self._waiting.total()

    @contextmanager
    def take(self, log_id: int, holder: str) -> Iterator[None]:
        """Hold a place for a key or token of a log. Raises RateLimitedError when it or the log has its share already, UnavailableError when
        none is free."""
        key = log_id, holder
        if self._taken[key] >= self.per_key:
            raise self._refused("credential")
        if self.taken >= self.limit:
            raise UnavailableError(f"too many {self.name} are running", self.retry_after_seconds)
        if sum(count for (of_log, _), count in self._taken.items() if of_log == log_id) >= self.per_log:
            raise self._refused("tenant")
        self._taken[key] += 1
        try:
            yield
        finally:
            self._taken[key] -= 1
            self._taken += Counter()  # forgets who holds none

    @contextmanager
    def queue(self, log_id: int, holder: str, refused: AuditError) -> Iterator[None]:
        """Be one of the few of a key that wait for a place. Raises `refused` when so many do already."""
        key = log_id, holder
        if self._waiting[key] >= WAITING_PER_KEY:
            raise refused
        self._waiting[key] += 1
        try:
            yield
        finally:
            self._waiting[key] -= 1
            self._waiting += Counter()

    def _refused(self, whose: str) -> RateLimitedError:
        return RateLimitedError(
            f"this {whose} has as many {self.name} running as it may", self.name, self.retry_after_seconds
        )
