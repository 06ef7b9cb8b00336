"""The hash tree of one log as it is stored, with what it is held against: signed checkpoints and the head.

Proofs, tiles and evidence are made from here. What is read may be damaged, so nothing of it is believed before it was found to lead to a
root that stands somewhere else than the tree. The signature of a checkpoint is not checked: no worker knows the key. Who gets one has the
key from elsewhere, and checks.
"""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit_service.core.chain import format_origin, header_bytes
from audit_service.core.checker import microseconds
from audit_service.core.checkpoint import Checkpoint, parse_checkpoint
from audit_service.core.merkle import HashReader
from audit_service.core.note import parse_note
from audit_service.core.tiles import Tile
from audit_service.errors import ProofError, TreeDamagedError, UnavailableError
from audit_service.store.checkpoints import fetch_latest_checkpoint
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.proving import ProofInputs, StoredHeader, StoredNote, fetch_proof_inputs
from audit_service.store.query import fetch_sound_head
from audit_service.store.tiles import TileCache, fetch_tiles, read_tree

Proof = TypeVar("Proof")
# The signer's usual interval, and time to read what it signs.
RESUMED_RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint, and the note it stands in exactly as stored."""

    checkpoint: Checkpoint
    note: str

    @property
    def size(self) -> int:
        """How many entries it covers."""
        return self.checkpoint.size

    def is_of_epoch(self, other: "Signed") -> bool:
        """Whether both were signed in the same epoch. One of an earlier epoch than the latest may be of entries that were lost: nobody
        says that the log still leads to its root."""
        return self.checkpoint.origin == other.checkpoint.origin


@dataclass(frozen=True, slots=True)
class StoredTree:
    """One log. `name` is its origin without the epoch; `cache` is what the process remembers of trees, of any log."""

    engine: AsyncEngine
    log_id: int
    name: str
    cache: TileCache

    @asynccontextmanager
    async def bound(self) -> AsyncIterator[AsyncConnection]:
        """A short transaction that sees this log only. What is found damaged inside between a `resume` and the first checkpoint of the new
        epoch is no damage yet: the last checkpoint may be of what was lost. Raises UnavailableError, then as well."""
        async with translated(), bound(self.engine, self.log_id) as connection:
            try:
                yield connection
            except TreeDamagedError:
                await self._require_signed_epoch(connection)
                raise

    async def _require_signed_epoch(self, connection: AsyncConnection) -> None:
        latest = await fetch_latest_checkpoint(connection, self.log_id)
        head = await fetch_sound_head(connection, self.log_id)
        if latest is not None and latest.epoch < head.epoch:
            raise UnavailableError(
                f"the log was resumed as epoch {head.epoch}, and no checkpoint of it is signed yet: ask again",
                retry_after_seconds=RESUMED_RETRY_SECONDS,
            ) from None

    async def find_signed(self, connection: AsyncConnection, size: int | None = None) -> Signed | None:
        """The checkpoint signed last, of a size or of all; None when there is none. Raises TreeDamagedError."""
        row = await fetch_latest_checkpoint(connection, self.log_id, size)
        return None if row is None else self.opened(StoredNote(row.size, row.note))

    async def fetch_latest(self) -> Signed | None:
        """The checkpoint signed last, in a transaction of its own."""
        async with self.bound() as connection:
            return await self.find_signed(connection)

    async def fetch_inputs(
        self, connection: AsyncConnection, *, size: int | None, from_size: int | None = None, seq: int | None = None
    ) -> ProofInputs:
        """What a proof of `seq`, or from `from_size`, in the tree of `size` starts from, unchecked."""
        return await fetch_proof_inputs(connection, self.log_id, size=size, from_size=from_size, seq=seq)

    def opened(self, stored: StoredNote | None) -> Signed | None:
        """The checkpoint of a stored note. Raises TreeDamagedError."""
        if stored is None:
            return None
        try:
            checkpoint = _parsed(stored.note)
        except ProofError:
            raise TreeDamagedError(f"the stored checkpoint of size {stored.size} is damaged") from None
        if checkpoint.size != stored.size or checkpoint.origin.rpartition("/")[0] != self.name:
            raise TreeDamagedError(f"the checkpoint stored for size {stored.size} is of another size or log")
        return Signed(checkpoint, stored.note)

    async def read(self, connection: AsyncConnection, size: int, prove: Callable[[HashReader], Proof]) -> Proof:
        """What `prove` makes of the tree of `size`, unchecked. Raises TreeDamagedError, UnavailableError."""
        try:
            return await read_tree(connection, self.log_id, size, self.cache, prove)
        except ProofError:
            raise TreeDamagedError("a tile is damaged: verify the log, and rebuild its tiles") from None

    async def fetch_tiles(self, connection: AsyncConnection, tiles: Collection[Tile]) -> dict[Tile, bytes]:
        """Each tile's hashes joined, unchecked. Raises TreeDamagedError, UnavailableError."""
        return await fetch_tiles(connection, self.log_id, tiles, self.cache)

    def forget_cached(self) -> None:
        """What was remembered did not fit: the log was damaged, or restored from an older copy. The next read is of what is stored."""
        self.cache.forget(self.log_id)

    def header_of(self, row: Any) -> bytes:
        """The header of an entry from its columns, so that its hash is worked out and never taken from the row. Raises
        TreeDamagedError."""
        try:
            header = StoredHeader(
                row.seq, row.epoch, microseconds(row.recorded_at), row.kind, row.prev_hash, row.body_hash
            )
        except (TypeError, OverflowError):  # no time, or one beyond the calendar
            raise TreeDamagedError(f"the header of seq {row.seq} is damaged") from None
        return self.header_from(header)

    def header_from(self, stored: StoredHeader) -> bytes:
        """As `header_of`."""
        if None in stored:
            raise TreeDamagedError(f"the header of seq {stored.seq} is damaged")
        service_name, _, log_key = self.name.rpartition("/t/")
        try:
            origin = format_origin(service_name, log_key, stored.epoch)
        except ValueError:
            raise TreeDamagedError(f"the header of seq {stored.seq} is damaged") from None
        return header_bytes(origin, stored.seq, stored.recorded_at_us, stored.kind, stored.prev_hash, stored.body_hash)


@lru_cache(maxsize=256)
def _parsed(note: str) -> Checkpoint:
    """The checkpoint of a note. Every proof is held against one of the last few. Raises ProofError."""
    return parse_checkpoint(parse_note(note).text)
