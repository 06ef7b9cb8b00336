"""Places for what takes long, counted: so many in all, and so many for one key, so that no key takes them all."""

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from audit_service.errors import RateLimitedError, UnavailableError


class Places:
    """Places for one kind of work, named in the plural. One key never holds more than `per_key` of the `limit`."""

    def __init__(self, name: str, *, limit: int, per_key: int, retry_after_seconds: int) -> None:
        self.name, self.limit, self.per_key = name, limit, per_key
        self.retry_after_seconds = retry_after_seconds
        self._taken: Counter[Hashable] = Counter()

    @property
    def taken(self) -> int:
        """How many are taken now."""
        return self._taken.total()

    @contextmanager
    def take(self, key: Hashable) -> Iterator[None]:
        """Hold a place. Raises RateLimitedError when the key has its share already, UnavailableError when none is free."""
        if self._taken[key] >= self.per_key:
            detail = f"this key has as many {self.name} running as it may"
            raise RateLimitedError(detail, self.name, self.retry_after_seconds)
        if self.taken >= self.limit:
            raise UnavailableError(f"too many {self.name} are running", self.retry_after_seconds)
        self._taken[key] += 1
        try:
            yield
        finally:
            self._taken[key] -= 1
            self._taken += Counter()  # forgets who holds none
