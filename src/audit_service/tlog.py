"""A log as C2SP tlog-tiles serves it: hash tiles and entry bundles, up to the size that was signed last and never beyond.

Whoever gets one keeps it: a tile never changes. So each is held against the checkpoint's root before it goes out; a damaged one would
stay in caches for a year after it was repaired.

A narrower tile than the signed tree has at a place is its beginning, and is served too: that of an earlier checkpoint may be asked for
after the log has grown. Pruned entries are gone, while all tiles stay. The *minimum index* of a pruned log is its cut, rounded up to a
whole bundle: the one the cut goes through could only be served in part.
"""

from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core.chain import entry_hash
from audit_service.core.merkle import HASH_BYTES, Frontier, RangeProof, cover, prove_range
from audit_service.core.tile_path import entry_bundle
from audit_service.core.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, elements, has_tile
from audit_service.errors import NotFoundError, ProofError, TreeDamagedError
from audit_service.store.query import fetch_sound_head, list_headers
from audit_service.stored_tree import Signed, StoredTree


async def fetch_tile(tree: StoredTree, tile: Tile) -> bytes:
    """The bytes of a tile. Raises NotFoundError for what the signed tree has not got, TreeDamagedError, UnavailableError."""
    async with tree.bound() as connection:
        signed = _covering(await tree.find_signed(connection), tile)
        return await _checked(tree, connection, signed, tile, None)


async def fetch_entries(tree: StoredTree, tile: Tile) -> bytes:
    """The entry bundle beside a tile of level 0. Raises as `fetch_tile`, and NotFoundError for what was pruned."""
    seqs = elements(tile)
    async with tree.bound() as connection:
        signed = _covering(await tree.find_signed(connection), tile)
        cut = (await fetch_sound_head(connection, tree.log_id)).pruned_before
        if seqs.start < cut:
            minimum = min(-(-cut // TILE_WIDTH) * TILE_WIDTH, signed.size)
            raise NotFoundError(f"these entries were pruned; the minimum index is {minimum}")
        rows = await list_headers(connection, tree.log_id, seqs.start, seqs.stop)
        if [row.seq for row in rows] != list(seqs):
            raise TreeDamagedError(f"from seq {seqs.start} on entries are missing, or there twice")
        headers = [tree.header_of(row) for row in rows]
        await _checked(tree, connection, signed, tile, b"".join(map(entry_hash, headers)))
    return entry_bundle(headers)


async def _checked(
    tree: StoredTree, connection: AsyncConnection, signed: Signed, tile: Tile, hashes: bytes | None
) -> bytes:
    """A tile's hashes, those given or those stored, once they are found to lead to the signed root."""
    for attempt in range(2):
        found = (await tree.fetch_tiles(connection, [tile]))[tile] if hashes is None else hashes
        around = await tree.read(connection, signed.size, lambda reader: prove_range(*_span(tile), signed.size, reader))
        if _is_of(signed, tile, found, around):
            return found
        tree.forget_cached()  # they may be those of another time
        if attempt:
            break
    raise TreeDamagedError(
        f"what is stored of tile {tile.number} at level {tile.level} does not lead to the signed root: verify the log"
    )


def _covering(signed: Signed | None, tile: Tile) -> Signed:
    if signed is None:
        raise NotFoundError("nothing was signed yet")
    if not has_tile(tile, signed.size):
        raise NotFoundError(f"the signed tree of {signed.size} entries has no such tile")
    return signed


def _span(tile: Tile) -> tuple[int, int]:
    """The entries that a tile is over: [start, end)."""
    hashes = elements(tile)
    return hashes.start << TILE_HEIGHT * tile.level, hashes.stop << TILE_HEIGHT * tile.level


def _is_of(signed: Signed, tile: Tile, hashes: bytes, around: RangeProof) -> bool:
    """Whether a tile's hashes, with what surrounds them, lead to the signed root."""
    start, end = _span(tile)
    try:
        frontier = Frontier(start, around.left)
        for at in range(0, len(hashes), HASH_BYTES):
            frontier.append_subtree(TILE_HEIGHT * tile.level, hashes[at : at + HASH_BYTES])
        for (level, _), subtree in zip(cover(end, signed.size), around.right, strict=True):
            frontier.append_subtree(level, subtree)
    except ProofError:
        return False
    return frontier.size == signed.size and frontier.root() == signed.checkpoint.root
