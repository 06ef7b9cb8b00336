"""What the signer and its commands work with, and the right to: the database's lease, which one holder has at a time.

The lease names the installation's key as well. A host with another key is refused, whatever it holds; a host with the same key waits.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from audit_service.errors import AuditError, UnavailableError
from audit_service.signing.folder import SigningFolder
from audit_service.signing.keyfile import Keys, SigningKey, read_keys
from audit_service.signing.public_keys import publish_keys, replace_keys
from audit_service.store import signing as store
from audit_service.store.engine import Database

LEASE_SECONDS = 30
_RENEW_SECONDS = 8.0


class OtherKeyError(AuditError):
    """The database's checkpoints are signed by a key that is not in our key file."""


@dataclass(frozen=True, slots=True)
class Signing:
    """The database as the role audit_signing, the state folder, and the key file."""

    database: Database
    folder: SigningFolder
    key_path: Path

    @property
    def holder(self) -> str:
        """Who holds the lease, when it is us."""
        return self.folder.holder

    def keys(self) -> Keys:
        """The key file as it is now. Raises KeyFileError."""
        return read_keys(self.key_path)

    def replace_keys(self, keys: Keys) -> None:
        """Replace the key file, and before it what others know of it. Raises OSError."""
        replace_keys(self.folder.path, self.key_path, keys)

    def publish_keys(self) -> None:
        """Show the public keys, where none were or older ones are. Raises KeyFileError, OSError."""
        publish_keys(self.folder.path, self.keys())

    async def take_lease(self) -> bool:
        """Take or renew the lease; False while another holder has it. Raises OtherKeyError, KeyFileError, UnavailableError."""
        # The newest first: after a change of keys, that is the one the lease asks for.
        for key in reversed(self.keys().signing):
            answer = await store.take_lease(self.database.writes, key.public, self.holder, LEASE_SECONDS)
            if answer != "other key":
                return answer == "held"
        raise OtherKeyError(
            f"this database's checkpoints are signed by another key than those in {self.key_path}: "
            "put its key file there, or stop this signer"
        )

    async def require_lease(self) -> None:
        """Take or renew the lease. Raises UnavailableError while another holder has it, and what `take_lease` raises."""
        if not await self.take_lease():
            raise UnavailableError("a signer elsewhere holds the lease: stop it, and try again within a minute")

    async def asks_for(self, key: SigningKey) -> bool:
        """Whether the lease asks for this key, of those in the key file."""
        answer = await store.take_lease(self.database.writes, key.public, self.holder, LEASE_SECONDS)
        return answer != "other key"

    @asynccontextmanager
    async def keeping_lease(self) -> AsyncIterator[None]:
        """Renew the lease as long as the block runs, however long a part of it takes. What fails meanwhile fails at the next use."""
        keeper = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            with suppress(AuditError):
                await self.take_lease()
