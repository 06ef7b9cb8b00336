"""The signer at work on a test's database: real role, real folder, real key file; each `Checkpointer` a life of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from audit_service.core.checkpoint import Checkpoint
from audit_service.errors import AuditError
from audit_service.signing.checkpointer import Checkpointer
from audit_service.signing.folder import SigningFolder, opened
from audit_service.signing.keyfile import ensure_keys
from audit_service.signing.lease import Signing
from audit_service.store.engine import SIGNING_ROLE, Database, open_database
from audit_service.store.signing import SignedLog
from tests.support.appends import TestLog, existing_log, owner, wait_until
from tests.support.intact import naive_root
from tests.support.postgres import TestDatabase, default_log_id

HEARTBEAT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class SignerLab:
    """A log, the pools that fill it, and what signs it."""

    log: TestLog
    pools: Database
    signing: Signing

    @property
    def target(self) -> SignedLog:
        """The log as the signer knows it."""
        return SignedLog("default", self.log.log_id, self.log.log.log_key)

    def life(self, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> Checkpointer:
        """A signer that has just started."""
        return Checkpointer(self.signing, self.target, heartbeat_seconds)

    async def append(self, count: int) -> None:
        """Append events without an id of their own."""
        for start in range(0, count, 500):
            await self.log.accept(self.pools, *({"action": "a.b"} for _ in range(min(500, count - start))))

    async def sign(self, life: Checkpointer | None = None) -> Checkpoint:
        """One round, which must sign; what it signed."""
        await self.signing.require_lease()
        note = await (life or self.life()).round()
        assert note is not None
        return opened(note, self.signing.keys()).checkpoint

    async def refusal(self, life: Checkpointer | None = None) -> str:
        """One round, which must refuse; what it says."""
        await self.signing.require_lease()
        try:
            note = await (life or self.life()).round()
        except AuditError as error:
            return error.detail
        raise AssertionError(f"this was signed: {note}")

    async def hashes(self) -> list[bytes]:
        """The stored hashes of all entries."""
        async with owner(self.log.database) as connection:
            rows = await connection.fetch(
                "SELECT hash FROM audit.entry WHERE log_id = $1 ORDER BY seq", self.log.log_id
            )
        return [row["hash"] for row in rows]

    async def notes(self) -> list[str]:
        """Every published note, in the order of publication."""
        async with owner(self.log.database) as connection:
            sql = "SELECT note FROM audit.checkpoint WHERE log_id = $1 ORDER BY signed_at"
            return [row["note"] for row in await connection.fetch(sql, self.log.log_id)]

    async def assert_signed(self, checkpoint: Checkpoint) -> None:
        """It is the naive root over the entries up to its size."""
        hashes = await self.hashes()
        assert checkpoint.root == naive_root(hashes[: checkpoint.size])


@asynccontextmanager
async def signing_on(database: TestDatabase, folder: Path) -> AsyncIterator[Signing]:
    """What signs `database` from `folder`, with a key of its own at the first use."""
    url = database.serving_url.replace("audit_serving", SIGNING_ROLE)
    opened_database = open_database(url, pool_connections=2, role=SIGNING_ROLE)
    signing = Signing(opened_database, SigningFolder(folder), folder / "key.json")
    ensure_keys(signing.key_path)
    try:
        yield signing
    finally:
        await opened_database.dispose()


@asynccontextmanager
async def signer_lab(database: TestDatabase, folder: Path) -> AsyncIterator[SignerLab]:
    """The default tenant's log of `database`, signed from `folder`."""
    pools = database.open()
    log = await existing_log(database, await default_log_id(database))
    async with signing_on(database, folder) as signing:
        yield SignerLab(log, pools, signing)
    await pools.dispose()


@asynccontextmanager
async def unguarded(database: TestDatabase) -> AsyncIterator[asyncpg.Connection]:
    """A superuser who has switched the triggers off for this session."""
    async with owner(database) as connection:
        await connection.execute("SET session_replication_role = replica")
        for table in ("entry", "log", "receipt", "checkpoint"):
            await connection.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER ALL")
        yield connection


async def cut_tail(lab: SignerLab, size: int) -> None:
    """Delete everything from `size` on and reset the head, so that the log by itself looks whole."""
    hashes = (await lab.hashes())[:size]
    frontier = b"".join(_frontier(hashes))
    async with unguarded(lab.log.database) as admin:
        await admin.execute("DELETE FROM audit.entry WHERE log_id = $1 AND seq >= $2", lab.log.log_id, size)
        await admin.execute("DELETE FROM audit.receipt WHERE log_id = $1 AND seq >= $2", lab.log.log_id, size)
        await admin.execute(
            "UPDATE audit.log SET size = $2, last_hash = $3, frontier = $4 WHERE log_id = $1",
            *(lab.log.log_id, size, hashes[-1], frontier),
        )


def _frontier(hashes: list[bytes]) -> list[bytes]:
    if not hashes:
        return []
    width = 1 << (len(hashes).bit_length() - 1)
    return [naive_root(hashes[:width]), *_frontier(hashes[width:])]


async def locked_out(connection: asyncpg.Connection) -> int:
    """Wait until somebody waits for a lock of this session; their server process."""
    found: list[int] = []

    async def somebody_waits() -> bool:
        sql = "SELECT pid FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        found[:] = [row["pid"] for row in await connection.fetch(sql)]
        return bool(found)

    await wait_until(somebody_waits, "somebody waiting for the lock")
    return found[0]
