"""Reading the hash tree of a log: tiles as they are stored, and what is not in them from the entries' own hashes.

The signer stores every tile once it is full, so a proof reads about a dozen rows. What is missing is made up for:

1. *A tile that is stored* answers for itself, and for every narrower tile of the same place: that one is its beginning.
2. *A tile of level 0 that is not* is the hashes of its entries: the last one of a log always, more of them while the signer is behind.
3. *A tile above it that is not* is the roots of the full tiles one level below.

None of these ever changes; the last tile of a level only grows. So a worker keeps what it has read and worked out lately (`TileCache`):
a proof in a log of any size reads the tile of its entry, unless that is remembered too, and what is new at the end of the log.

Tiles outlive the entries they are made of: of a pruned log they are all there is below the cut. Every read is bounded; whoever would need
more is told to come back when the signer has caught up. Nothing is checked here: `proofs` holds what comes of it against a root.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core.merkle import HASH_BYTES, HashReader
from audit_service.core.tiles import TILE_WIDTH, Tile, elements, needed_tiles, tile_root, tiles_reader
from audit_service.errors import TreeDamagedError, UnavailableError
from audit_service.store.engine import driver

# Entries whose hashes are read in place of missing tiles, for one proof: about a tenth of a second.
LEAVES_LIMIT = 72_000
# Tiles held at once, for one proof: 16 MiB.
TILES_LIMIT = 2_048
RETRY_SECONDS = 30
_ROOTS_LIMIT, _TILES_LIMIT = 16_384, 1_024  # entries of a cache

Proof = TypeVar("Proof")
Place = tuple[int, int]  # (level, number)

_STORED = """
    SELECT t.level, t.number, t.hashes FROM unnest($2::smallint[], $3::bigint[]) AS asked(level, number)
    JOIN audit.bound_tile AS t ON t.log_id = $1 AND t.level = asked.level AND t.number = asked.number
"""
# Hashes joined in the database: a row for each tile instead of one for each entry.
_LEAVES = """
    SELECT asked.from_seq, (
        SELECT string_agg(e.hash, ''::bytea ORDER BY e.seq) FROM audit.bound_entry AS e
        WHERE e.log_id = $1 AND e.seq >= asked.from_seq AND e.seq < asked.to_seq
    ) AS hashes FROM unnest($2::bigint[], $3::bigint[]) AS asked(from_seq, to_seq)
"""


class TileCache:
    """What was read and worked out lately of hash trees, of any log: tiles, and roots of full ones. For one process; bounded, to
    about 10 MiB. It may be of another time than the database, after a restore: who finds that it does not fit has to `forget`."""

    __slots__ = ("_roots", "_tiles")

    def __init__(self) -> None:
        self._roots: OrderedDict[tuple[int, Place], bytes] = OrderedDict()
        self._tiles: OrderedDict[tuple[int, Place], bytes] = OrderedDict()

    def find_roots(self, log_id: int, places: Iterable[Place]) -> dict[Place, bytes]:
        """Roots of full tiles, those that are known."""
        found = {}
        for place in places:
            root = self._roots.get((log_id, place))
            if root is not None:
                self._roots.move_to_end((log_id, place))
                found[place] = root
        return found

    def add_roots(self, log_id: int, roots: Mapping[Place, bytes]) -> None:
        """Remember; the least recently used ones are forgotten."""
        _remember(self._roots, log_id, roots, _ROOTS_LIMIT)

    def find_tile(self, log_id: int, place: Place) -> bytes:
        """The beginning of a tile, joined hashes, as far as it is known."""
        found = self._tiles.get((log_id, place), b"")
        if found:
            self._tiles.move_to_end((log_id, place))
        return found

    def add_tiles(self, log_id: int, tiles: Mapping[Place, bytes]) -> None:
        """As `add_roots`; what is known of a place already is not made shorter."""
        wider = {place: hashes for place, hashes in tiles.items() if len(hashes) > len(self.find_tile(log_id, place))}
        _remember(self._tiles, log_id, wider, _TILES_LIMIT)

    def forget(self, log_id: int) -> None:
        """Whatever was read of a log is no longer believed: it was damaged, or restored from an older copy."""
        for known in (self._roots, self._tiles):
            for key in [key for key in known if key[0] == log_id]:
                del known[key]


def _remember(
    known: OrderedDict[tuple[int, Place], bytes], log_id: int, fresh: Mapping[Place, bytes], limit: int
) -> None:
    for place, hashes in fresh.items():
        known[log_id, place] = hashes
        known.move_to_end((log_id, place))
    while len(known) > limit:
        known.popitem(last=False)


async def read_tree(
    connection: AsyncConnection, log_id: int, size: int, cache: TileCache, prove: Callable[[HashReader], Proof]
) -> Proof:
    """What `prove` makes of the tree of `size`: one of merkle's provers with its positions filled in, or several of them at once.

    `connection` is bound to the log. Raises UnavailableError when too much of the tree is not in tiles yet, TreeDamagedError when
    something is neither in tiles nor in entries, ProofPositionError for a position outside the tree.
    """
    tiles = needed_tiles(prove, size)
    held = await fetch_tiles(connection, log_id, tiles, cache)
    return prove(tiles_reader(size, lambda asked: [held[tile] for tile in asked]))


async def fetch_tiles(
    connection: AsyncConnection, log_id: int, tiles: Collection[Tile], cache: TileCache
) -> dict[Tile, bytes]:
    """Each tile's hashes joined, 32 bytes times its width. Raises UnavailableError, TreeDamagedError, as `read_tree`."""
    return await _Reading(connection, log_id, cache).fetch(tiles)


async def fetch_stored_tiles(connection: AsyncConnection, log_id: int, places: Collection[Place]) -> dict[Place, bytes]:
    """The joined hashes of those full tiles that are stored."""
    levels, numbers = [level for level, _ in places], [number for _, number in places]
    rows = await driver(connection).fetch(_STORED, log_id, levels, numbers)
    return {(row["level"], row["number"]): row["hashes"] for row in rows}


class _Reading:
    """One read, and what it may still cost."""

    def __init__(self, connection: AsyncConnection, log_id: int, cache: TileCache) -> None:
        self._connection, self._raw = connection, driver(connection)
        self._log_id = log_id
        self._cache = cache
        self._leaves_left, self._tiles_left = LEAVES_LIMIT, TILES_LIMIT

    async def fetch(self, tiles: Collection[Tile]) -> dict[Tile, bytes]:
        """As `fetch_tiles`."""
        if not tiles:
            return {}
        held = self._find(tiles)
        missing = [tile for tile in tiles if tile not in held]
        if not missing:
            return held
        self._tiles_left = _spent(self._tiles_left, len(missing))
        stored = await fetch_stored_tiles(self._connection, self._log_id, {_place(tile) for tile in missing})
        self._cache.add_tiles(self._log_id, stored)
        held |= {tile: _beginning(tile, stored[_place(tile)]) for tile in missing if _place(tile) in stored}
        missing = [tile for tile in missing if tile not in held]
        made = await self._fetch_leaves([tile for tile in missing if tile.level == 0])
        made |= await self._make([tile for tile in missing if tile.level > 0])
        self._cache.add_tiles(self._log_id, {_place(tile): hashes for tile, hashes in made.items()})
        return held | made

    def _find(self, tiles: Iterable[Tile]) -> dict[Tile, bytes]:
        """The tiles that are remembered as wide as they are asked for."""
        known = {tile: self._cache.find_tile(self._log_id, _place(tile)) for tile in tiles}
        return {tile: _beginning(tile, hashes) for tile, hashes in known.items() if len(hashes) >= _length(tile)}

    async def _fetch_leaves(self, tiles: Sequence[Tile]) -> dict[Tile, bytes]:
        if not tiles:
            return {}
        self._leaves_left = _spent(self._leaves_left, sum(tile.width for tile in tiles))
        ranges = [elements(tile) for tile in tiles]
        arguments = [one.start for one in ranges], [one.stop for one in ranges]
        rows = await driver(self._connection).fetch(_LEAVES, self._log_id, *arguments)
        read = {row["from_seq"]: row["hashes"] or b"" for row in rows}
        held = {tile: read[one.start] for tile, one in zip(tiles, ranges, strict=True)}
        for tile, hashes in held.items():
            if len(hashes) != _length(tile):
                first = tile.number * TILE_WIDTH
                raise TreeDamagedError(
                    f"between seq {first} and {first + tile.width} entries are missing, and so is their tile"
                )
        return held

    async def _make(self, tiles: Sequence[Tile]) -> dict[Tile, bytes]:
        """Tiles above level 0 that are not stored, from those below."""
        below = [(tile.level - 1, number) for tile in tiles for number in elements(tile)]
        roots = self._cache.find_roots(self._log_id, below)
        unknown = await self.fetch([Tile(*place, TILE_WIDTH) for place in below if place not in roots])
        if unknown:
            # Up to a tenth of a second for a worker that has just started: not in the loop that answers everybody.
            fresh = await asyncio.to_thread(_roots_of, unknown)
            self._cache.add_roots(self._log_id, fresh)
            roots |= fresh
        return {tile: b"".join([roots[tile.level - 1, number] for number in elements(tile)]) for tile in tiles}


def _place(tile: Tile) -> Place:
    return tile.level, tile.number


def _length(tile: Tile) -> int:
    return tile.width * HASH_BYTES


def _beginning(tile: Tile, hashes: bytes) -> bytes:
    return hashes[: _length(tile)]


def _roots_of(tiles: Mapping[Tile, bytes]) -> dict[Place, bytes]:
    return {_place(tile): tile_root(hashes) for tile, hashes in tiles.items()}


def _spent(left: int, wanted: int) -> int:
    if wanted > left:
        raise UnavailableError(
            "the tiles of the hash tree are behind: without them this proof would read too much; is the signer running?",
            retry_after_seconds=RETRY_SECONDS,
        )
    return left - wanted
