"""A signer for tests: stores tiles and signs checkpoints through the functions of the real one, with a key everybody knows.

The root that it signs is worked out from the entries by the naive definitions, not by the code under test.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import asyncpg

from audit_service.core.chain import Head, body_hash, link
from audit_service.core.checkpoint import Checkpoint, sign_checkpoint
from audit_service.core.note import format_note
from audit_service.core.tiles import TileBuilder
from audit_service.core.vkey import Signer, format_vkey
from tests.support.intact import naive_root

SEED = bytes([7]) * 32
LEASE_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class TestSigner:
    """The signer of one log. `connection` is the owner's."""

    __test__ = False

    connection: asyncpg.Connection
    log_id: int
    holder: str = "tests"

    async def leaves(self) -> list[bytes]:
        """The leaf hashes that are stored, from seq 0 on."""
        rows = await self.connection.fetch("SELECT hash FROM audit.entry WHERE log_id = $1 ORDER BY seq", self.log_id)
        return [row["hash"] for row in rows]

    async def origin(self) -> str:
        """The log's origin now."""
        row = await self.connection.fetchrow(
            "SELECT service_name, log_key, epoch FROM audit.log WHERE log_id = $1", self.log_id
        )
        assert row is not None
        return f"{row['service_name']}/t/{row['log_key']}/{row['epoch']}"

    async def vkey(self) -> str:
        """The verifier key of the log."""
        return format_vkey(Signer.from_seed(await self.origin(), SEED).verifier())

    async def store_tiles(self, leaves: list[bytes] | None = None) -> int:
        """Store every full tile; how many there are."""
        built = TileBuilder().add(await self.leaves() if leaves is None else leaves)
        await self._lease()
        await self.connection.execute(
            "SELECT audit.store_tiles($1, $2, $3, $4, $5)",
            *(self.log_id, self.holder, [one.level for one in built], [one.number for one in built]),
            [one.hashes for one in built],
        )
        return len(built)

    async def sign(self, size: int | None = None, *, root: bytes | None = None) -> str:
        """Publish a checkpoint of a size, by default of all there is: the note."""
        if root is None:
            leaves = (await self.leaves())[:size]
            size, root = len(leaves), tree_root(tuple(leaves))
        assert size is not None
        origin = await self.origin()
        note = format_note(sign_checkpoint(Checkpoint(origin, size, root), [Signer.from_seed(origin, SEED)]))
        await self._lease()
        await self.connection.execute(
            "SELECT audit.publish_checkpoint($1, $2, $3, $4, $5)",
            *(self.log_id, self.holder, size, int(origin.rpartition("/")[2]), note),
        )
        return note

    async def _lease(self) -> None:
        public = Signer.from_seed("any", SEED).verifier().public
        held = await self.connection.fetchval(
            "SELECT audit.take_signer_lease($1, $2, $3)", public, self.holder, LEASE_SECONDS
        )
        assert held == "held"


async def seed_headers(connection: asyncpg.Connection, log_id: int, count: int) -> None:
    """Fill an empty log with the headers of `count` events without bodies, in about ten microseconds each."""
    row = await connection.fetchrow("SELECT * FROM audit.log WHERE log_id = $1 AND size = 0", log_id)
    assert row is not None
    digest = body_hash("{}")
    start = Head.genesis(f"{row['service_name']}/t/{row['log_key']}/1")
    links, head = link(start, [digest] * count, recorded_at_us=1_795_338_900_000_000)
    at = datetime.fromtimestamp(head.last_recorded_at_us // 1_000_000, UTC)
    await connection.copy_records_to_table(
        "entry",
        schema_name="audit",
        columns=("log_id", "seq", "recorded_at", "epoch", "kind", "prev_hash", "body_hash", "hash"),
        records=[(log_id, one.seq, at, 1, "event", one.prev_hash, one.body_hash, one.hash) for one in links],
    )
    await connection.execute(
        "UPDATE audit.log SET size = $2, last_hash = $3, last_recorded_at = $4, frontier = $5 WHERE log_id = $1",
        *(log_id, head.size, head.last_hash, at, head.frontier),
    )


@lru_cache(maxsize=64)
def tree_root(leaves: tuple[bytes, ...]) -> bytes:
    """As `naive_root`, which is slow: of the same leaves it is worked out once."""
    return naive_root(leaves)
