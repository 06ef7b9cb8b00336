"""RFC 6962 sections 2.1 to 2.1.2, transcribed as they are written: recursive, slow, and obviously right.

Nothing here comes from `audit_service.core.merkle`; its tests hold the two together.
"""

import hashlib
from collections.abc import Sequence


class NaiveTree:
    """The hashes and proofs of a list of leaves, given as their data. Remembers what it has hashed."""

    def __init__(self, data: Sequence[bytes]) -> None:
        self._data = data
        self._hashes: dict[tuple[int, int], bytes] = {}

    def root(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]) of section 2.1."""
        if (start, end) not in self._hashes:
            self._hashes[start, end] = self._hash(start, end)
        return self._hashes[start, end]

    def _hash(self, start: int, end: int) -> bytes:
        n = end - start
        if n == 0:
            return hashlib.sha256().digest()
        if n == 1:
            return hashlib.sha256(b"\x00" + self._data[start]).digest()
        k = largest_power_of_two_below(n)
        left, right = self.root(start, start + k), self.root(start + k, end)
        return hashlib.sha256(b"\x01" + left + right).digest()

    def path(self, m: int, start: int, end: int) -> list[bytes]:
        """PATH(m, D[start:end]) of section 2.1.1; m counts from `start`."""
        n = end - start
        if n == 1:
            return []
        k = largest_power_of_two_below(n)
        if m < k:
            return [*self.path(m, start, start + k), self.root(start + k, end)]
        return [*self.path(m - k, start + k, end), self.root(start, start + k)]

    def proof(self, m: int, size: int) -> list[bytes]:
        """PROOF(m, D[size]) of section 2.1.2, for 0 < m < size; m = size gives the empty proof."""
        return self._subproof(m, 0, size, whole=True)

    def _subproof(self, m: int, start: int, end: int, *, whole: bool) -> list[bytes]:
        n = end - start
        if m == n:
            return [] if whole else [self.root(start, end)]
        k = largest_power_of_two_below(n)
        if m <= k:
            return [*self._subproof(m, start, start + k, whole=whole), self.root(start + k, end)]
        return [*self._subproof(m - k, start + k, end, whole=False), self.root(start, start + k)]


def largest_power_of_two_below(n: int) -> int:
    """The k of the RFC: k < n <= 2k."""
    k = 1
    while 2 * k < n:
        k *= 2
    return k
