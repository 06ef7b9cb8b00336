"""The tree of a log as the signer follows it: begun at a place that is trusted, grown row by row, its full tiles stored on the way.

Rows are read in short slices, each a transaction of its own, so that a first pass over millions of rows slows nobody down; the next
slice is on its way while one is hashed.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.merkle import EMPTY_ROOT, Frontier
from audit_service.core.retrace import Place, Retrace, StoredRow
from audit_service.core.tiles import BuiltTile, Tile, TileBuilder, elements, partial_tiles, tile_root
from audit_service.errors import ChainBrokenError, ProofError, SigningRefusedError, TreeDamagedError
from audit_service.signing.lease import Signing
from audit_service.store import signing as store
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.signing import StoredHead
from audit_service.store.tiles import TileCache, fetch_stored_tiles, fetch_tiles

# Fewer rows than these are hashed sooner than a thread is asked.
_THREAD_ENTRIES = 200
# Stored in one transaction, half a megabyte: each costs a flush to the disk.
_TILES_AT_ONCE = 64


class SigningStoppedError(Exception):
    """The signer was told to stop in the middle of a pass."""


async def restored(signing: Signing, log_id: int, head: StoredHead, size: int, root: bytes) -> Retrace | None:
    """The tree of `size`, from the stored tiles and the last rows; None unless they lead to `root`."""
    if size == 0:
        return Retrace.genesis(head.service_name, head.log_key) if root == EMPTY_ROOT else None
    found = await _at(signing, log_id, head, size)
    return found if found is not None and found.root() == root else None


async def begun(signing: Signing, log_id: int, head: StoredHead) -> Retrace:
    """The tree at the log's first stored entry: empty, or what was pruned. Raises SigningRefusedError when that cannot be known."""
    if head.pruned_before == 0:
        return Retrace.genesis(head.service_name, head.log_key)
    found = await _at(signing, log_id, head, head.pruned_before)
    if found is None:
        raise SigningRefusedError(f"the tiles of what was pruned before seq {head.pruned_before} are not all there")
    return found


async def _at(signing: Signing, log_id: int, head: StoredHead, size: int) -> Retrace | None:
    reads = signing.database.reads
    place = await store.fetch_place(reads, log_id, size) or await _pruned_place(signing, log_id, size)
    partial = await _partial_tiles(reads, log_id, size)
    if place is None or partial is None:
        return None
    return Retrace(head.service_name, head.log_key, place, TileBuilder(size, partial))


async def _partial_tiles(reads: AsyncEngine, log_id: int, size: int) -> dict[Tile, bytes] | None:
    """The state of a `TileBuilder` of `size`; None unless all that it is made of is there.

    Above level 0 that is the full tiles below as they are stored: a wider tile of the same place may have other hashes than the entries,
    and missing ones are not made up for, so that the log is read from its beginning, which finds the one and stores the others.
    """
    tiles = partial_tiles(size)
    below = {tile: [(tile.level - 1, number) for number in elements(tile)] for tile in tiles if tile.level > 0}
    async with translated(), bound(reads, log_id) as connection:
        stored = await fetch_stored_tiles(connection, log_id, [place for places in below.values() for place in places])
        try:
            held = await fetch_tiles(connection, log_id, [tile for tile in tiles if tile.level == 0], TileCache())
        except TreeDamagedError:
            return None
    if any(place not in stored for places in below.values() for place in places):
        return None
    return held | {tile: b"".join(tile_root(stored[place]) for place in places) for tile, places in below.items()}


async def _pruned_place(signing: Signing, log_id: int, size: int) -> Place | None:
    """The place at a cut, as the `prune` entry of that cut says."""
    for body in reversed(await store.list_control_bodies(signing.database.reads, log_id, "prune")):
        details = orjson.loads(body)["details"]
        if details["cut"] == size:
            return Place(size, bytes.fromhex(details["prev_hash"]), details["last_recorded_at_us"], details["epoch"])
    return None


@dataclass(frozen=True, slots=True)
class Pass:
    """How a log is followed. `marks`: sizes, ascending; at each, `arrive` is told the root. `report`: told the size after each slice."""

    marks: Iterable[int] = ()
    arrive: Callable[[int, bytes], None] = lambda _size, _root: None
    report: Callable[[int], None] = lambda _size: None
    stopped: asyncio.Event | None = None


async def grow(signing: Signing, log_id: int, retrace: Retrace, to_size: int, how: Pass) -> list[BuiltTile]:
    """Follow the rows up to `to_size` and store the tiles they make full; those that are stored already with other hashes.

    Raises ChainBrokenError for a row that does not follow, SigningStoppedError, UnavailableError; the tree is to be dropped then.
    """
    marks = iter(how.marks)
    mark = _reach(retrace, next(marks, None), marks)
    differing: list[BuiltTile] = []
    tiles: list[BuiltTile] = []
    async for rows in _slices(signing, log_id, retrace.place.size, to_size):
        if how.stopped is not None and how.stopped.is_set():
            raise SigningStoppedError
        first, taken = retrace.place.size, 0
        while mark is not None and mark <= first + len(rows):
            tiles += await _follow(retrace, rows[taken : mark - first])
            taken = mark - first
            how.arrive(mark, retrace.root())
            mark = next(marks, None)
        tiles += await _follow(retrace, rows[taken:])
        if len(tiles) >= _TILES_AT_ONCE or retrace.place.size >= to_size:
            differing += await store.store_tiles(signing.database.writes, log_id, signing.holder, tiles)
            tiles = []
        how.report(retrace.place.size)
    return differing


def require_head(retrace: Retrace, head: StoredHead) -> None:
    """Raise SigningRefusedError unless the entries lead to the head row."""
    if retrace.frontier() != head.frontier:
        raise SigningRefusedError(
            f"at size {head.size} the entries have root {retrace.root().hex()}, and the head row has {_root_of(head)}"
        )
    if retrace.place.last_hash != head.last_hash:
        raise SigningRefusedError(f"at size {head.size} the head row names another last entry")


def _root_of(head: StoredHead) -> str:
    try:
        return Frontier.from_bytes(head.size, head.frontier).root().hex()
    except ProofError:
        return "none"


async def rebuild_tiles(
    signing: Signing, log_id: int, report: Callable[[int], None] = lambda _size: None
) -> tuple[int, list[BuiltTile]]:
    """Make every tile anew from the entries that are there, and store those that are missing: the log's size, and the tiles that are stored
    with other hashes, which stay as they are. Raises SigningRefusedError, ChainBrokenError when the entries do not lead to the head."""
    await signing.require_lease()
    head = await store.fetch_stored_head(signing.database.reads, log_id)
    found = await begun(signing, log_id, head)
    async with signing.keeping_lease():
        differing = await grow(signing, log_id, found, head.size, Pass(report=report))
    require_head(found, head)
    return head.size, differing


def _reach(retrace: Retrace, mark: int | None, marks: Iterator[int]) -> int | None:
    """The first mark that is not behind the tree."""
    while mark is not None and mark < retrace.place.size:
        mark = next(marks, None)
    return mark


async def _follow(retrace: Retrace, rows: Sequence[StoredRow]) -> list[BuiltTile]:
    # In a thread: meanwhile the loop takes in the next slice.
    return await asyncio.to_thread(retrace.follow, rows) if len(rows) > _THREAD_ENTRIES else retrace.follow(rows)


async def _slices(signing: Signing, log_id: int, from_seq: int, to_seq: int) -> AsyncIterator[list[StoredRow]]:
    """The rows in slices that are never empty. Raises ChainBrokenError when there are too few."""
    if from_seq >= to_seq:
        return
    reads = signing.database.reads
    ahead = asyncio.create_task(store.read_rows(reads, log_id, from_seq, to_seq))
    try:
        while from_seq < to_seq:
            rows = await ahead
            if not rows:
                raise ChainBrokenError(f"seq {from_seq}: missing")
            from_seq += len(rows)  # where they are not dense, following them says so
            if from_seq < to_seq:
                ahead = asyncio.create_task(store.read_rows(reads, log_id, from_seq, to_seq))
            yield rows
    finally:
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)
