"""Signing one log, step by step. What is signed was read again and hashed again; what was signed last is on our disk before it is shown.

1. Read the last signed checkpoint (from the folder; where that is lost, from the database) and the log's head.
2. Refuse a log that shrank, that goes by another name, or whose epoch nobody here raised.
3. Take the tree of the last signed size: the one in memory, or restored from tiles and rows; where these do not lead to the signed root,
   follow the log from its beginning, and refuse it unless it passes through that root.
4. Follow the rows since then up to the head, storing full tiles; refuse what does not lead to the head.
5. In our turn, with the state unchanged: sign, write the state (synced), and only then publish, and add to the history.

A crash after the state is written leaves a note nobody has seen; the next life publishes it before anything else. A crash before leaves
nothing. Either way no size ever gets two roots.
"""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from audit_service.core.chain import format_origin
from audit_service.core.checkpoint import Checkpoint, sign_checkpoint
from audit_service.core.note import format_note
from audit_service.core.retrace import Retrace
from audit_service.core.tiles import BuiltTile
from audit_service.errors import AuditError, ChainBrokenError, ProofError, SigningRefusedError
from audit_service.signing.folder import LogFolder, Signed, SigningStateError, opened
from audit_service.signing.keyfile import Keys
from audit_service.signing.lease import Signing
from audit_service.signing.tree import Pass, begun, grow, require_head, restored
from audit_service.store import signing as store
from audit_service.store.checkpoints import fetch_latest_checkpoint
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.signing import SignedLog, StoredHead

# A pass that takes longer than this says how far it has come.
_PROGRESS_SECONDS = 5.0
# A log that was refused after much reading is not read again for so long, then for twice as long, …
_PATIENCE_SECONDS = 2.0
log = structlog.get_logger("audit_service.signer")


@dataclass(slots=True)
class Checkpointer:
    """The signer of one log. Its tree stays in memory from round to round."""

    signing: Signing
    target: SignedLog
    heartbeat_seconds: float
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _retrace: Retrace | None = None
    _published: str | None = None  # the note that is known to be in the database and in the history
    _signed_at: float | None = None  # by the monotonic clock
    _retry_at: float = 0.0
    _patience_seconds: float = _PATIENCE_SECONDS
    _refused: Signed | None = None  # what was signed when the log was refused

    @property
    def folder(self) -> LogFolder:
        """Where this log's state is kept."""
        return self.signing.folder.log(self.target.log_key)

    async def round(self) -> str | None:
        """Sign the log if it grew, or if it was silent for long enough; the note, or None.

        Raises SigningRefusedError, and then looks again ever more seldom, unless a command changes what was signed last;
        SigningStateError, KeyFileError, UnavailableError.
        """
        keys = self.signing.keys()
        state = await self._state(keys)
        if state == self._refused and time.monotonic() < self._retry_at:
            return None
        try:
            note = await self._round(keys, state)
        except (SigningRefusedError, ChainBrokenError) as error:
            self._retrace = None
            self._refused, self._retry_at = state, time.monotonic() + self._patience_seconds
            self._patience_seconds = min(2 * self._patience_seconds, max(self.heartbeat_seconds, _PATIENCE_SECONDS))
            if isinstance(error, ChainBrokenError):
                raise SigningRefusedError(f"{_told(state)}; then {error.detail}") from None
            raise
        except BaseException:
            self._retrace = None
            raise
        self._retry_at, self._patience_seconds = 0.0, _PATIENCE_SECONDS
        return note

    # -- steps 1 and 2 ---------------------------------------------------------------------------------------

    async def _state(self, keys: Keys) -> Signed | None:
        """The last signed checkpoint."""
        state = self.folder.read_state(keys)
        if state is not None:
            return state
        async with translated(), bound(self.signing.database.reads, self.target.log_id) as connection:
            published = await fetch_latest_checkpoint(connection, self.target.log_id)
        if published is None:
            return None
        try:
            return opened(published.note, keys)
        except ProofError:
            raise SigningStateError(
                f"{self.folder.state_path} is missing, and the database's last checkpoint is not by the key file's keys"
            ) from None

    async def _round(self, keys: Keys, state: Signed | None) -> str | None:
        head = await store.fetch_stored_head(self.signing.database.reads, self.target.log_id)
        origin = self._origin(head)
        if state is not None:
            _judge(state, head, origin)
            if self._is_silent(state, head):
                return None
        before = await self._tree(head, state)
        await self._settle(state)
        grown = await self._grown(before, head)
        return await self._sign(keys, state, head, Checkpoint(origin, head.size, grown.root()))

    def _origin(self, head: StoredHead) -> str:
        try:
            origin = format_origin(head.service_name, head.log_key, head.epoch)
        except ValueError:
            raise SigningRefusedError("the head row names no origin") from None
        if head.log_key != self.target.log_key:
            raise SigningRefusedError(f"the head row is that of another log: {origin}")
        return origin

    def _is_silent(self, state: Signed, head: StoredHead) -> bool:
        """Whether nothing is to be signed: the head is the one that was signed, that is published, and the last heartbeat is young."""
        if self._retrace is None or self._published != state.note or self._signed_at is None:
            return False
        unchanged = (self._retrace.place.size, self._retrace.frontier()) == (head.size, head.frontier)
        return unchanged and time.monotonic() - self._signed_at < self.heartbeat_seconds

    # -- steps 3 and 4 ---------------------------------------------------------------------------------------

    async def _tree(self, head: StoredHead, state: Signed | None) -> Retrace:
        """The tree at the signed size; before the first checkpoint, where the log begins."""
        log_id = self.target.log_id
        if state is None:
            return await begun(self.signing, log_id, head)
        size, root = state.checkpoint.size, state.checkpoint.root
        kept = self._retrace
        if kept is not None and (kept.place.size, kept.root()) == (size, root):
            return kept
        found = await restored(self.signing, log_id, head, size, root)
        if found is not None:
            return found
        log.warning(
            "stored tiles or rows do not lead to the signed root; following the log from its beginning", **self._named()
        )
        return await self._followed(head, state)

    async def _followed(self, head: StoredHead, state: Signed) -> Retrace:
        """The tree at the signed size, from the log's own rows alone."""
        found = await begun(self.signing, self.target.log_id, head)
        size, root = state.checkpoint.size, state.checkpoint.root
        if found.place.size <= size:
            self._warn(await grow(self.signing, self.target.log_id, found, size, self._pass(size)))
            if found.root() == root:
                return found
        raise SigningRefusedError(f"{_told(state)}; the log has root {found.root().hex()} at size {found.place.size}")

    async def _grown(self, retrace: Retrace, head: StoredHead) -> Retrace:
        self._retrace = None  # while it grows it is of no size that was signed
        self._warn(await grow(self.signing, self.target.log_id, retrace, head.size, self._pass(head.size)))
        require_head(retrace, head)
        self._retrace = retrace
        return retrace

    def _pass(self, to_size: int) -> Pass:
        """A pass that can be stopped, and says how far it is when it takes long."""
        said_at = time.monotonic()

        def report(size: int) -> None:
            nonlocal said_at
            if time.monotonic() - said_at > _PROGRESS_SECONDS:
                said_at = time.monotonic()
                log.info("following a log before signing it", size=size, of=to_size, **self._named())

        return Pass(report=report, stopped=self.stopped)

    def _warn(self, differing: list[BuiltTile]) -> None:
        for tile in differing:
            log.error(
                "a stored tile is not that of the entries: delete it, then run `checkpoint rebuild-tiles`",
                level_number=f"{tile.level}/{tile.number}",
                **self._named(),
            )

    # -- step 5 ----------------------------------------------------------------------------------------------

    async def _settle(self, state: Signed | None) -> None:
        """Publish what an earlier life signed and may not have shown."""
        if state is None or self._published == state.note:
            return
        async with self.signing.folder.turn():
            if self.folder.read_state(self.signing.keys()) == state:
                await self._publish(state, again=False)

    async def _sign(self, keys: Keys, state: Signed | None, head: StoredHead, checkpoint: Checkpoint) -> str | None:
        async with self.signing.folder.turn():
            # A command may have had its turn since the round began: then what we know is old.
            on_disk = self.folder.read_state(keys)
            if on_disk is not None and on_disk != state:
                return None
            note = format_note(sign_checkpoint(checkpoint, self.signing.keys().signers(checkpoint.origin)))
            self.folder.write_state(note)
            self._signed_at = time.monotonic()
            await self._publish(Signed(checkpoint, note), again=True)
        log.debug("signed", size=head.size, **self._named())
        return note

    async def _publish(self, signed: Signed, *, again: bool) -> None:
        """Show a note that is on our disk. Not `again` when the database has it already."""
        log_id, database = self.target.log_id, self.signing.database
        signed_at: datetime | None = None
        if not again:
            async with translated(), bound(database.reads, log_id) as connection:
                latest = await fetch_latest_checkpoint(connection, log_id)
            signed_at = latest.signed_at if latest is not None and latest.note == signed.note else None
        if signed_at is None:
            size = signed.checkpoint.size
            signed_at = await store.publish_checkpoint(
                database.writes, log_id, self.signing.holder, size, signed.epoch, signed.note
            )
        if again or self.folder.last_note() != signed.note:
            self.folder.append(signed_at.astimezone(UTC), signed.checkpoint.size, signed.note)
        self._published = signed.note

    def _named(self) -> dict[str, str]:
        return {"tenant": self.target.tenant}


def _judge(state: Signed, head: StoredHead, origin: str) -> None:
    """Step 2. Raises SigningRefusedError."""
    if origin.rpartition("/")[0] != state.checkpoint.origin.rpartition("/")[0]:
        raise SigningRefusedError(f"{_told(state)}; the log now goes by {origin}")
    if state.epoch > head.epoch:
        raise SigningRefusedError(f"{_told(state)}, for an epoch that has not begun: run `checkpoint resume` again")
    if state.epoch < head.epoch:
        raise SigningRefusedError(f"{_told(state)}; epoch {head.epoch} was begun without `checkpoint resume` here")
    if head.size < state.checkpoint.size:
        raise SigningRefusedError(f"{_told(state)}; the log has shrunk to size {head.size}")


def _told(state: Signed | None) -> str:
    if state is None:
        return "nothing was signed yet"
    return f"signed was root {state.checkpoint.root.hex()} at size {state.checkpoint.size} of {state.checkpoint.origin}"


def error_text(error: Exception) -> str:
    """What may be said of an error in the log: the detail of ours, of any other only its kind, for its text may hold a value."""
    return error.detail if isinstance(error, AuditError) else type(error).__name__
