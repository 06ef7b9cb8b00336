"""What control entries explain: which bodies and disclosures are gone on purpose, and what stood below the cut (DESIGN 3.2, 3.4).

The inverse of the builders in `core.control`. A body that is gone, with all disclosures, is explained by a `drop` range; a disclosure that
is gone by an `erase` item with the same seq, group and commitment; the entries below the cut by a `prune` entry. A control entry
explains only what came before it, and only when its own header and body hold: whoever could forge one could as well have re-hashed
the log, which is what checkpoints are for.

Compact, because a log may have forgotten millions of times: a bit for each dropped entry, eight bytes for each erased disclosure (its
place, its group, and 44 bits of its commitment, which is enough beside the other two).

>>> explanations = Explanations()
>>> explanations.add("drop", 9, {"details": {"ranges": [[2, 4]]}})
>>> [explanations.explains_body(seq) for seq in (1, 2, 3, 4)]
[False, True, True, False]
>>> explanations.add("erase", 10, {"details": {"items": [[7, "actor", "ab" * 32]]}})
>>> explanations.explains(7, "actor", "ab" * 32), explanations.explains(7, "actor", "ac" * 32), explanations.explains(6, "actor", "ab" * 32)
(True, False, False)
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from audit_service.core.entry import GROUPS, JSONObject
from audit_service.core.merkle import Frontier
from audit_service.errors import MalformedError, ProofError

_BLOCK_BITS, _GROUP_BITS, _COMMITMENT_BITS = 12, 8, 44
_BLOCK = 1 << _BLOCK_BITS
_HASH_HEX = 64


@dataclass(frozen=True, slots=True)
class Cut:
    """A `prune` entry at `seq`: how the log stood at the size `cut`, and the signed note that says so."""

    seq: int
    cut: int
    root: bytes
    frontier: Frontier
    prev_hash: bytes
    last_us: int
    epoch: int
    note: str


@dataclass(frozen=True, slots=True)
class Resumption:
    """A `resume` entry: the size and root that were found, and the range of entries that were lost."""

    size: int
    root: bytes
    lost: tuple[int, int]


class Explanations:
    """What the control entries given to `add` explain. `cut`: the latest prune entry; `resumptions`: by the seq of their entries."""

    def __init__(self) -> None:
        self.cut: Cut | None = None
        self.resumptions: dict[int, Resumption] = {}
        self._dropped = bytearray()
        self._erased: dict[int, array[int]] = {}
        self._groups = {group: number for number, group in enumerate(GROUPS)}
        self._block: tuple[int, frozenset[int]] = (-1, frozenset())

    def add(self, kind: str, seq: int, body: JSONObject) -> None:
        """A control entry whose header and body were found to hold. Raises MalformedError for details that are not of its kind; `hold` and
        `signer` explain no absence."""
        details: Any = body.get("details")
        try:
            match kind:
                case "drop":
                    self._drop(seq, details["ranges"])
                case "erase":
                    self._erase(seq, details["items"])
                case "prune":
                    self._prune(_cut(seq, details))
                case "resume":
                    self.resumptions[seq] = _resumption(details)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError, ProofError):
            raise MalformedError(f"the details are not those of a {kind} entry") from None

    def explains_body(self, seq: int) -> bool:
        """Whether a body may be gone."""
        return seq >> 3 < len(self._dropped) and bool(self._dropped[seq >> 3] >> (seq & 7) & 1)

    def explains(self, seq: int, group: str, commitment: object) -> bool:
        """Whether the disclosure that the body at `seq` commits to may be gone."""
        block = seq >> _BLOCK_BITS
        if self._block[0] != block:
            self._block = block, frozenset(self._erased.get(block, ()))
        number = self._groups.get(group)
        if number is None or not isinstance(commitment, str) or len(commitment) != _HASH_HEX:
            return False
        return _packed(seq, number, commitment) in self._block[1]

    def _drop(self, seq: int, ranges: Iterable[Any]) -> None:
        for start, end in ranges:
            _require(isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= seq)
            self._set_bits(start, end)

    def _set_bits(self, start: int, end: int) -> None:
        bits = self._dropped
        if len(bits) <= end >> 3:
            bits.extend(bytes((end >> 3) + 1 - len(bits)))
        first_whole, last_whole = -(-start >> 3), end >> 3
        if first_whole < last_whole:
            bits[first_whole:last_whole] = b"\xff" * (last_whole - first_whole)
            edges = (*range(start, first_whole << 3), *range(last_whole << 3, end))
        else:
            edges = tuple(range(start, end))
        for at in edges:
            bits[at >> 3] |= 1 << (at & 7)

    def _erase(self, seq: int, items: Iterable[Any]) -> None:
        self._block = (-1, frozenset())
        for at, group, commitment in items:
            _require(isinstance(at, int) and 0 <= at < seq and len(commitment) == _HASH_HEX)
            number = self._groups.setdefault(group, len(self._groups))
            _require(number < 1 << _GROUP_BITS)
            self._erased.setdefault(at >> _BLOCK_BITS, array("Q")).append(_packed(at, number, commitment))

    def _prune(self, cut: Cut) -> None:
        if self.cut is None or cut.seq > self.cut.seq:
            self.cut = cut


def _packed(seq: int, group: int, commitment: str) -> int:
    place = (seq & (_BLOCK - 1)) << _GROUP_BITS | group
    return place << _COMMITMENT_BITS | int(commitment[: _COMMITMENT_BITS // 4], 16)


def _cut(seq: int, details: Any) -> Cut:
    cut, root = details["cut"], bytes.fromhex(details["root"])
    frontier = Frontier.from_bytes(cut, bytes.fromhex(details["frontier"]))
    at_us, epoch, note = details["last_recorded_at_us"], details["epoch"], details["checkpoint"]
    _require(0 < cut <= seq and isinstance(at_us, int) and isinstance(epoch, int) and isinstance(note, str))
    return Cut(seq, cut, root, frontier, bytes.fromhex(details["prev_hash"]), at_us, epoch, note)


def _resumption(details: Any) -> Resumption:
    size, (lost_from, lost_to) = details["size"], details["lost"]
    _require(isinstance(size, int) and isinstance(lost_from, int) and isinstance(lost_to, int))
    return Resumption(size, bytes.fromhex(details["root"]), (lost_from, lost_to))


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError
