"""The hash tree over a log's entries (RFC 6962 section 2.1, the same in RFC 9162), and its proofs.

Hashes are SHA-256, 32 bytes. `||` joins bytes.

- Empty tree: SHA-256 of nothing. Leaf: `SHA-256(0x00 || leaf bytes)`. Node: `SHA-256(0x01 || left || right)`.
- A tree of n > 1 leaves splits at the largest power of two below n. So it is made of *perfect subtrees*:
  the one at (level, index) holds the leaves [index · 2^level, (index + 1) · 2^level). The *cover* of a
  range [start, end) is the fewest of them that tile it, in order.
- *Frontier* of size n: the hashes of the cover of [0, n), largest first, one for each set bit of n. The root
  is the last of them, joined with each earlier one from right to left. To append a leaf: while the low bit
  of n is 1, join the last hash with it and halve n; then put it at the end.
- *Inclusion* of index i in size n: the sibling at each step from the leaf to the root.
- *Consistency* of sizes 0 < m ≤ n: that the first m leaves of both trees are the same. m = n has an empty
  proof. Anything extends the empty tree, so m = 0 proves nothing: refused here, handled by the caller.
- *Range* [start, end) in size n: left is the frontier of `start`, right the hashes of the cover of [end, n).
  The leaves between come from the entries themselves. It proves that nothing in the range is left out; an
  empty range proves only that the two sides are the tree.

A proof holds no sides and no lengths: they follow from the positions. A wrong count, a wrong width and a
wrong root are errors of their own. `prove_x` makes what `check_x` takes; `check_x` returns nothing or raises.
A prover works out which subtrees it needs, asks its reader for all of them once, then computes; so the reader
may be a table, a store of tiles, or `leaves_reader`.

>>> leaves = [leaf_hash(text) for text in (b"0", b"1", b"2", b"3", b"4")]
>>> frontier = Frontier()
>>> frontier.extend(leaves)
>>> frontier.size, frontier.root().hex()[:8]
(5, 'b6748f6e')
>>> proof = prove_inclusion(2, 5, leaves_reader(leaves))
>>> [one.hex()[:8] for one in proof]
['906c5d24', 'cb00989d', '11e1f558']
>>> check_inclusion(leaves[2], 2, 5, proof, frontier.root())
>>> old_root = frontier_root([node_hash(leaves[0], leaves[1]), leaves[2]])
>>> proof = prove_consistency(3, 5, leaves_reader(leaves))
>>> [one.hex()[:8] for one in proof]
['fa61e3de', '906c5d24', 'cb00989d', '11e1f558']
>>> check_consistency(3, 5, proof, old_root, frontier.root())
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import Self, TypeAlias

from audit_service.errors import ProofError

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "Frontier",
    "HashReader",
    "MalformedProofError",
    "Node",
    "ProofLengthError",
    "ProofPositionError",
    "RangeProof",
    "RootMismatchError",
    "append_leaf",
    "check_consistency",
    "check_inclusion",
    "check_range",
    "cover",
    "frontier_root",
    "leaf_hash",
    "leaves_reader",
    "node_hash",
    "prove_consistency",
    "prove_inclusion",
    "prove_range",
]

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

Node: TypeAlias = tuple[int, int]  # (level, index) of a perfect subtree
HashReader: TypeAlias = Callable[[Sequence[Node]], Sequence[bytes]]
_Span: TypeAlias = tuple[int, int]  # the leaves [start, end)


class ProofPositionError(ProofError):
    """An index, size or range that is nowhere in the tree."""


class MalformedProofError(ProofError):
    """Something in the proof is not a hash of 32 bytes."""


class ProofLengthError(MalformedProofError):
    """The proof has more or fewer hashes than its positions ask for."""

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(f"the proof needs {expected} hashes and has {found}")
        self.expected = expected
        self.found = found


class RootMismatchError(ProofError):
    """The proof is well-formed and leads to another root."""

    def __init__(self, expected: bytes, found: bytes) -> None:
        super().__init__(f"the proof leads to {found.hex()}, not to the root {expected.hex()}")
        self.expected = expected
        self.found = found


@dataclass(frozen=True, slots=True)
class RangeProof:
    """What surrounds a contiguous range: the frontier at its start, the cover from its end to the size."""

    left: tuple[bytes, ...]
    right: tuple[bytes, ...]


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf. For us `data` is an entry's header, and this is also the entry's chain link."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree of any size in at most 64 hashes: append leaves, read the root. Mutable; not for sharing.

    `hashes` are largest subtree first, one for each set bit of `size`.
    """

    __slots__ = ("_hashes", "_size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self._size = size
        self._hashes = list(hashes)
        _require_position(size >= 0)
        _require_hashes(self._hashes, size.bit_count())

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> Self:
        """The inverse of `to_bytes`; the bytes do not tell the size."""
        return cls(size, (data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)))

    def to_bytes(self) -> bytes:
        """The hashes joined: 32 bytes for each set bit of the size."""
        return b"".join(self._hashes)

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return self._size

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The hashes of the perfect subtrees, largest first."""
        return tuple(self._hashes)

    def append(self, leaf: bytes) -> None:
        """Add a leaf, given as its hash. One node hash on average."""
        if len(leaf) != HASH_BYTES:
            raise MalformedProofError("a leaf is not a hash of 32 bytes")
        self._push(leaf, 0)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaves, given as their hashes; all or, when one is no hash, none. Level by level: half the time of one by one."""
        nodes = list(leaves)
        _require_hashes(nodes, len(nodes))
        added, remaining, lone = len(nodes), self._size, list[bytes]()
        while nodes:
            if remaining & 1:
                nodes.insert(0, self._hashes.pop())
            if len(nodes) & 1:
                lone.append(nodes.pop())
            nodes = [
                sha256(b"\x01" + left + right).digest() for left, right in zip(nodes[::2], nodes[1::2], strict=True)
            ]
            remaining >>= 1
        self._hashes += reversed(lone)
        self._size += added

    def append_subtree(self, level: int, subtree: bytes) -> None:
        """Add a whole perfect subtree of 2^level leaves; the size must be a multiple of that."""
        _require_position(level >= 0 and self._size % (1 << level) == 0)
        _require_hashes([subtree], 1)
        self._push(subtree, level)

    def root(self) -> bytes:
        """The root of the tree; at most one hash per set bit of the size."""
        return frontier_root(self._hashes)

    def _push(self, subtree: bytes, level: int) -> None:
        hashes = self._hashes
        remaining = self._size >> level
        while remaining & 1:
            subtree = sha256(b"\x01" + hashes.pop() + subtree).digest()
            remaining >>= 1
        hashes.append(subtree)
        self._size += 1 << level


def append_leaf(frontier: Sequence[bytes], size: int, leaf: bytes) -> list[bytes]:
    """The frontier of size + 1, from that of `size` and the hash of the next leaf."""
    grown = Frontier(size, frontier)
    grown.append(leaf)
    return list(grown.hashes)


def frontier_root(frontier: Sequence[bytes]) -> bytes:
    """The root over a frontier, or over any cover within one subtree."""
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for subtree in reversed(frontier[:-1]):
        root = node_hash(subtree, root)
    return root


def cover(start: int, end: int) -> list[Node]:
    """The fewest perfect subtrees that tile the leaves [start, end), in order; at most 2 log₂(end)."""
    _require_position(0 <= start <= end)
    nodes: list[Node] = []
    while start < end:
        level = (end - start).bit_length() - 1  # the largest that fits
        if start:
            level = min(level, (start & -start).bit_length() - 1)  # and that may begin here
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def leaves_reader(leaves: Sequence[bytes]) -> HashReader:
    """A reader over leaf hashes in memory. Hashes every perfect subtree once, at once."""
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node_hash(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)])
    return lambda nodes: [levels[level][index] for level, index in nodes]


def prove_inclusion(index: int, size: int, reader: HashReader) -> list[bytes]:
    """That the leaf at `index` is in the tree of `size`; leaf to root, about log₂(size) hashes."""
    _require_position(0 <= index < size)
    siblings: list[_Span] = []
    start, end = 0, size
    while end - start > 1:
        split = _split(start, end)
        if index < split:
            siblings.append((split, end))
            end = split
        else:
            siblings.append((start, split))
            start = split
    return _read_spans(siblings[::-1], reader)


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise `ProofError` unless `leaf` (a leaf hash) is at `index` in the tree of `size` with this root."""
    _require_position(0 <= index < size)
    _require_hashes((leaf, root), 2)
    inner = (index ^ (size - 1)).bit_length()
    _require_hashes(proof, inner + (index >> inner).bit_count())
    found = leaf
    for level, sibling in enumerate(proof):
        # Above `inner` the path runs along the right border, where every sibling is to the left.
        is_left = level < inner and not index >> level & 1
        found = node_hash(found, sibling) if is_left else node_hash(sibling, found)
    _require_root(root, found)


def prove_consistency(old_size: int, new_size: int, reader: HashReader) -> list[bytes]:
    """That the tree of `new_size` begins with the tree of `old_size`; about log₂(new_size) hashes."""
    _require_position(0 < old_size <= new_size)
    spans: list[_Span] = []
    start, end = 0, new_size
    while old_size != end:
        split = _split(start, end)
        if old_size <= split:
            spans.append((split, end))
            end = split
        else:
            spans.append((start, split))
            start = split
    if start:  # else [start, end) is the whole old tree, whose root the checker has
        spans.append((start, end))
    return _read_spans(spans[::-1], reader)


def check_consistency(old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Raise `ProofError` unless the tree with the new root begins with the tree with the old root."""
    _require_position(0 < old_size <= new_size)
    _require_hashes((old_root, new_root), 2)
    if old_size == new_size:
        _require_hashes(proof, 0)
        _require_root(new_root, old_root)
        return
    last = old_size - 1
    shift = (old_size & -old_size).bit_length() - 1
    inner = (last ^ (new_size - 1)).bit_length()
    border = (last >> inner).bit_count()
    inner -= shift
    # An old tree of a power of two is a node of the new one: its root is the start and not in the proof.
    whole = old_size == 1 << shift
    _require_hashes(proof, inner + border + (not whole))
    start, path = (old_root, proof) if whole else (proof[0], proof[1:])
    old_found = new_found = start
    for level, sibling in enumerate(path):
        if level >= inner or (last >> shift) >> level & 1:
            old_found = node_hash(sibling, old_found)
            new_found = node_hash(sibling, new_found)
        else:
            new_found = node_hash(new_found, sibling)
    _require_root(old_root, old_found)
    _require_root(new_root, new_found)


def prove_range(start: int, end: int, size: int, reader: HashReader) -> RangeProof:
    """That certain leaves are all of [start, end) in the tree of `size`; at most 2 log₂(size) hashes."""
    _require_position(0 <= start <= end <= size)
    left, right = cover(0, start), cover(end, size)
    hashes = _read(left + right, reader)
    return RangeProof(tuple(hashes[: len(left)]), tuple(hashes[len(left) :]))


def check_range(start: int, end: int, size: int, leaves: Iterable[bytes], proof: RangeProof, *, root: bytes) -> None:
    """Raise `ProofError` unless `leaves` (their hashes) are exactly [start, end) of the tree with this root.

    Reads the leaves once, one at a time, so they may come from a stream.
    """
    _require_position(0 <= start <= end <= size)
    _require_hashes((root,), 1)
    right = cover(end, size)
    _require_hashes(proof.right, len(right))
    frontier = Frontier(start, proof.left)
    for leaf in leaves:
        if frontier.size == end:
            raise ProofLengthError(end - start, end - start + 1)
        frontier.append(leaf)
    if frontier.size != end:
        raise ProofLengthError(end - start, frontier.size - start)
    for (level, _), subtree in zip(right, proof.right, strict=True):
        frontier.append_subtree(level, subtree)
    _require_root(root, frontier.root())


def _split(start: int, end: int) -> int:
    """Where the subtree over [start, end) splits: after the largest power of two below its size."""
    return start + (1 << ((end - start - 1).bit_length() - 1))


def _read_spans(spans: Sequence[_Span], reader: HashReader) -> list[bytes]:
    """The hash of each subtree over a span, perfect or not, with one call of the reader."""
    covers = [cover(start, end) for start, end in spans]
    hashes = _read([node for nodes in covers for node in nodes], reader)
    cuts = pairwise(accumulate((len(nodes) for nodes in covers), initial=0))
    return [frontier_root(hashes[first:last]) for first, last in cuts]


def _read(nodes: Sequence[Node], reader: HashReader) -> Sequence[bytes]:
    hashes = reader(nodes) if nodes else []
    _require_hashes(hashes, len(nodes))
    return hashes


def _require_position(holds: bool) -> None:
    if not holds:
        raise ProofPositionError("an index, size or range is outside the tree")


def _require_hashes(hashes: Sequence[bytes], count: int) -> None:
    if len(hashes) != count:
        raise ProofLengthError(count, len(hashes))
    if any(len(one) != HASH_BYTES for one in hashes):
        raise MalformedProofError("not a hash of 32 bytes")


def _require_root(expected: bytes, found: bytes) -> None:
    if expected != found:
        raise RootMismatchError(expected, found)
