r"""Tiles (C2SP tlog-tiles): the hash tree cut into immutable pieces, so that proofs need few reads.

Level l of the tiles is level 8·l of the tree. Tile (level l, number n) is a run of 256 subtree roots, 32 bytes each:
hash i is that of the entries [(256n + i)·256^l, (256n + i + 1)·256^l). So its hashes are leaf hashes at level 0, and
the roots of *full* tiles one level below elsewhere. In a tree of size s the last tile of a level may be partial:
`floor(s / 256^l) mod 256` hashes wide, never empty; a wider tile begins with the narrower one.

Every perfect subtree that a proof needs lies within one tile, 1 to 128 hashes wide. So a proof costs one tile for
each level that its path, or the border of the tree, runs through: about 2·log₂₅₆(size). What is read for an entry
reaches beyond it, therefore tiles that end before a cut are never needed for what lies behind the cut.

A reader fetches once, synchronously. Who can only fetch asynchronously asks `needed_tiles` first.

>>> tile_rows(70_000)
[TileRow(level=0, full=273, partial_width=112), TileRow(level=1, full=1, partial_width=17), TileRow(level=2, full=0, partial_width=1)]
>>> from functools import partial
>>> from audit_service.core.merkle import leaf_hash, prove_inclusion
>>> builder = TileBuilder()
>>> built = builder.add(leaf_hash(b"%d" % seq) for seq in range(1000))
>>> store = {Tile(one.level, one.number, 256): one.hashes for one in built} | builder.partial()
>>> prove = partial(prove_inclusion, 2, 1000)
>>> needed_tiles(prove, 1000)
[Tile(level=0, number=0, width=256), Tile(level=1, number=0, width=3), Tile(level=0, number=3, width=232)]
>>> len(prove(tiles_reader(1000, lambda tiles: [store[tile] for tile in tiles])))
10
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from audit_service.core.merkle import HASH_BYTES, HashReader, MalformedProofError, Node, ProofPositionError

__all__ = [
    "TILE_HEIGHT",
    "TILE_WIDTH",
    "BuiltTile",
    "Tile",
    "TileBuilder",
    "TileFetcher",
    "TileRow",
    "elements",
    "has_tile",
    "needed_tiles",
    "partial_tiles",
    "tile_end",
    "tile_root",
    "tile_rows",
    "tiles_of",
    "tiles_reader",
]

TILE_HEIGHT = 8  # the format's; a parameter only so that tests see many levels in small trees
TILE_WIDTH = 1 << TILE_HEIGHT


class Tile(NamedTuple):
    """A tile's place and how many hashes it has, 1 to 256."""

    level: int
    number: int
    width: int


class TileRow(NamedTuple):
    """The tiles of one level: numbers 0…full−1 are full; `partial_width`, if not 0, is that of number `full`."""

    level: int
    full: int
    partial_width: int


class BuiltTile(NamedTuple):
    """A tile that became full. `root` is the hash over it: its place in the tile one level above."""

    level: int
    number: int
    hashes: bytes
    root: bytes


TileFetcher: TypeAlias = Callable[[Sequence[Tile]], Sequence[bytes]]


def tile_rows(size: int, *, height: int = TILE_HEIGHT) -> list[TileRow]:
    """The tiles that a tree of `size` consists of, level by level; none for the empty tree."""
    rows: list[TileRow] = []
    width = size
    while width:
        rows.append(TileRow(len(rows), width >> height, width & ((1 << height) - 1)))
        width >>= height
    return rows


def partial_tiles(size: int, *, height: int = TILE_HEIGHT) -> list[Tile]:
    """The partial tiles of a tree of `size`, at most one a level: the state of a `TileBuilder`."""
    rows = tile_rows(size, height=height)
    return [Tile(row.level, row.full, row.partial_width) for row in rows if row.partial_width]


def has_tile(tile: Tile, size: int, *, height: int = TILE_HEIGHT) -> bool:
    """Whether a tree of `size` holds this tile, at this or a greater width: whether it may be served."""
    return (tile.number << height) + tile.width <= size >> height * tile.level


def tile_end(tile: Tile, *, height: int = TILE_HEIGHT) -> int:
    """The first seq after the full tile. Prunable once it is not above the cut."""
    return (tile.number + 1) << height * (tile.level + 1)


def elements(tile: Tile, *, height: int = TILE_HEIGHT) -> range:
    """What a tile's hashes are of: seqs at level 0, elsewhere the numbers of full tiles one level below."""
    start = tile.number << height
    return range(start, start + tile.width)


def tile_root(hashes: bytes) -> bytes:
    """The root over a power of two of joined hashes."""
    while len(hashes) > HASH_BYTES:
        pairs = range(0, len(hashes), 2 * HASH_BYTES)
        hashes = b"".join([sha256(b"\x01" + hashes[at : at + 2 * HASH_BYTES]).digest() for at in pairs])
    return hashes


class TileBuilder:
    """Makes tiles from leaf hashes as they come, from any size on. Mutable; to be dropped after an error.

    It holds the partial tiles only: at most 255 hashes a level.
    """

    __slots__ = ("_height", "_rows", "_size")

    def __init__(
        self,
        size: int = 0,
        partial: Mapping[Tile, bytes] = MappingProxyType({}),
        *,
        height: int = TILE_HEIGHT,
    ) -> None:
        """Go on at `size`; `partial` holds the hashes of each of `partial_tiles(size)`, none at the very start."""
        self._height = height
        self._size = size
        self._rows = [bytearray() for _ in tile_rows(size, height=height)]
        for tile in partial_tiles(size, height=height):
            self._rows[tile.level] += _require_width(tile, partial.get(tile, b""))

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return self._size

    def add(self, leaves: Iterable[bytes]) -> list[BuiltTile]:
        """Take the next leaf hashes; every tile that they made full, on any level, a lower one before a higher one.

        About one node hash a leaf. The result is as long as what was added, so add a stream in pieces.
        """
        built: list[BuiltTile] = []
        rest = iter(leaves)
        while hashes := list(islice(rest, (1 << self._height) - self._size % (1 << self._height))):
            if any(len(one) != HASH_BYTES for one in hashes):
                raise MalformedProofError("a leaf is not a hash of 32 bytes")
            self._size += len(hashes)
            self._extend(0, b"".join(hashes), built)
        return built

    def partial(self) -> dict[Tile, bytes]:
        """The partial tiles and their hashes: what another builder needs to go on, and what is not in full tiles."""
        tiles = partial_tiles(self._size, height=self._height)
        return {tile: bytes(self._rows[tile.level]) for tile in tiles}

    def _extend(self, level: int, hashes: bytes, built: list[BuiltTile]) -> None:
        if level == len(self._rows):
            self._rows.append(bytearray())
        row = self._rows[level]
        row += hashes
        if len(row) == HASH_BYTES << self._height:
            number = (self._size >> self._height * (level + 1)) - 1
            full = BuiltTile(level, number, bytes(row), tile_root(bytes(row)))
            row.clear()
            built.append(full)
            self._extend(level + 1, full.root, built)


def tiles_of(nodes: Iterable[Node], size: int, *, height: int = TILE_HEIGHT) -> list[Tile]:
    """The tiles of the tree of `size` in which perfect subtrees lie, each once.

    Raises `ProofPositionError` for a subtree that reaches beyond the size.
    """
    return list(dict.fromkeys(_locate(node, size, height)[0] for node in nodes))


def tiles_reader(size: int, fetch: TileFetcher, *, height: int = TILE_HEIGHT) -> HashReader:
    """A reader over the tree of `size` that fetches the tiles it needs with one call, then computes.

    `fetch` answers each tile's hashes joined, 32 bytes times its width: of a full tile as it is stored; of a partial
    one at level 0 the leaf hashes, above it the roots of the full tiles below (`elements` tells which). Raises
    `MalformedProofError` for an answer of another width.
    """

    def read(nodes: Sequence[Node]) -> list[bytes]:
        tiles = tiles_of(nodes, size, height=height)
        answers = fetch(tiles)
        if len(answers) != len(tiles):
            raise MalformedProofError("not one answer for each tile")
        held = {tile: _require_width(tile, hashes) for tile, hashes in zip(tiles, answers, strict=True)}
        return [_subtree(held, *_locate(node, size, height)) for node in nodes]

    return read


def needed_tiles(prove: Callable[[HashReader], object], size: int, *, height: int = TILE_HEIGHT) -> list[Tile]:
    """The tiles that a prover will ask for, so that they can be fetched beforehand.

    `prove` is one of merkle's provers with its positions filled in. It is run once over zeros and its answer dropped.
    """
    asked: list[Node] = []

    def note_down(nodes: Sequence[Node]) -> list[bytes]:
        asked.extend(nodes)
        return [bytes(HASH_BYTES)] * len(nodes)

    prove(note_down)
    return tiles_of(asked, size, height=height)


def _locate(node: Node, size: int, height: int) -> tuple[Tile, int, int]:
    """The tile a perfect subtree lies in, and its hashes there: [start, end)."""
    level, index = node
    if level < 0 or index < 0 or (index + 1) << level > size:
        raise ProofPositionError("a subtree is outside the tree")
    tile_level, above = divmod(level, height)
    number, start = divmod(index << above, 1 << height)
    width = min(1 << height, (size >> height * tile_level) - (number << height))
    return Tile(tile_level, number, width), start, start + (1 << above)


def _subtree(held: Mapping[Tile, bytes], tile: Tile, start: int, end: int) -> bytes:
    return _root_of(held[tile][start * HASH_BYTES : end * HASH_BYTES])


@lru_cache(maxsize=2048)
def _root_of(hashes: bytes) -> bytes:
    """`tile_root`, remembered: proofs of a log have the subtrees at its border in common. At most 128 hashes a subtree, so 8 MiB in all."""
    return tile_root(hashes)


def _require_width(tile: Tile, hashes: bytes) -> bytes:
    if len(hashes) != tile.width * HASH_BYTES:
        raise MalformedProofError("a tile has another width than it has in the tree")
    return hashes
