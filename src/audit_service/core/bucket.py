"""Token buckets, one for each key: how much may pass, how much is left, and when there is more.

A bucket is one number, the time at which it will be full again (the generic cell rate algorithm): what was taken moves it on. A key that
was never seen has a full bucket, and a full bucket needs no memory; of the others only the last used are kept, so that somebody with
many addresses cannot fill the memory. Whoever is forgotten this way begins with a full bucket.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

KEYS_LIMIT = 10_000


@dataclass(slots=True)
class Buckets:
    """Buckets of `capacity` tokens that fill at `per_second`. Times are seconds of one clock that never goes back."""

    name: str
    per_second: float
    capacity: int
    keys_limit: int = KEYS_LIMIT
    _full_at: OrderedDict[Hashable, float] = field(default_factory=OrderedDict)

    def take(self, key: Hashable, tokens: int, now: float) -> float:
        """Take tokens: 0.0 when they were there, else nothing was taken and it is worth another try after so many seconds. More tokens
        than a bucket holds are there when it is full: they leave a debt."""
        full_at = self._full_at.get(key, now)
        full_at = max(full_at, now)
        wait = full_at - now + (min(tokens, self.capacity) - self.capacity) / self.per_second
        if wait > 1e-9:
            return wait
        self._put(key, full_at + tokens / self.per_second)
        return 0.0

    def charge(self, key: Hashable, tokens: int, now: float) -> float:
        """Take tokens, there or not: the seconds until there would have been as many. For who is slowed, not refused."""
        full_at = max(self._full_at.get(key, now), now) + tokens / self.per_second
        self._put(key, full_at)
        return max(full_at - now - self.capacity / self.per_second, 0.0)

    def give_back(self, key: Hashable, tokens: int) -> None:
        """Undo a `take`."""
        if key in self._full_at:
            self._full_at[key] -= tokens / self.per_second

    def left(self, key: Hashable, now: float) -> tuple[int, int]:
        """Whole tokens left, and whole seconds until the bucket is full."""
        seconds = max(self._full_at.get(key, now) - now, 0.0)
        return max(int(self.capacity - seconds * self.per_second + 1e-6), 0), math.ceil(seconds)

    def _put(self, key: Hashable, full_at: float) -> None:
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > self.keys_limit:
            self._full_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._full_at)
