"""`checkpoint resume`: an operator says that a signed tail is lost and the log goes on without it.

1. Read the whole log as it is and hold it against every note in the history of its epoch: the last good checkpoint is the largest that
   the log still has; what was signed beyond it is lost.
2. In our turn, with the state unchanged: keep the old state beside, and sign the log as it is under the next epoch's origin. That is the
   new state: nobody is shown it before the log itself says that the epoch began.
3. Raise the epoch and append the `resume` entry, in one transaction of the database. From here on the signer goes on.

Killed after step 2, the signer refuses the log until the command is run again; it then takes the state it finds for what it is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from audit_service.core import control
from audit_service.core.chain import format_origin
from audit_service.core.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from audit_service.core.merkle import EMPTY_ROOT
from audit_service.core.note import format_note, parse_note
from audit_service.core.retrace import Retrace
from audit_service.core.tiles import BuiltTile
from audit_service.errors import InputError, ProofError, SigningRefusedError
from audit_service.signing.folder import LogFolder, Signed
from audit_service.signing.keyfile import Keys
from audit_service.signing.lease import Signing
from audit_service.signing.rotation import act
from audit_service.signing.tree import Pass, begun, grow, require_head
from audit_service.store import signing as store
from audit_service.store.signing import SignedLog, StoredHead


@dataclass(frozen=True, slots=True)
class Resumed:
    """What was resumed: the log as observed, what is lost of what was signed, and where the `resume` entry stands. `stale`: tiles that are
    still those of what was lost."""

    epoch: int
    seq: int
    size: int
    root: bytes
    lost: tuple[int, int]
    last_good: str
    stale: list[BuiltTile]


async def resume(
    signing: Signing, target: SignedLog, *, reason: str, report: Callable[[int], None] = lambda _size: None
) -> Resumed:
    """Go on after the loss of a signed tail. Raises InputError when the log has all that was signed, SigningRefusedError when its
    entries do not lead to its head: those are mended, not resumed."""
    await signing.require_lease()
    folder, keys = signing.folder.log(target.log_key), signing.keys()
    state = folder.read_state(keys)
    head = await store.fetch_stored_head(signing.database.reads, target.log_id)
    if state is None:
        raise InputError("nothing of this log was signed here")
    signed = _signed_of(folder, keys, state, head)
    expected = _Expected(folder, signed)
    observed, stale = await _observe(signing, target, head, expected, report)
    last_good = expected.last_good
    if last_good is not None and last_good[0] >= signed.checkpoint.size:
        raise InputError("the log has all that was signed: there is nothing to resume")
    good_size, good_note = last_good or (0, _empty_note(keys, signed))
    async with signing.folder.turn():
        if folder.read_state(signing.keys()) != state:
            raise InputError("another checkpoint was signed meanwhile: the log may have come back; look again")
        await signing.require_lease()
        origin = format_origin(head.service_name, target.log_key, head.epoch + 1)
        size, root = observed.place.size, observed.root()
        note = format_note(sign_checkpoint(Checkpoint(origin, size, root), keys.signers(origin)))
        folder.keep_state(signed)
        folder.write_state(note)
        lost = (good_size, signed.checkpoint.size)
        entry = control.resume(act("cli", reason), checkpoint=good_note, size=size, root=root, lost=lost)
        seq = await store.resume_log(signing.database.writes, target.log_id, signing.holder, entry)
    return Resumed(head.epoch + 1, seq, size, root, lost, good_note, stale)


def _signed_of(folder: LogFolder, keys: Keys, state: Signed, head: StoredHead) -> Signed:
    """What was signed last in the log's present epoch; behind a state of the next, an earlier run of this command was killed."""
    if state.epoch == head.epoch:
        return state
    kept = folder.read_kept(head.epoch, keys) if state.epoch == head.epoch + 1 else None
    if kept is None:
        raise SigningRefusedError(f"signed was epoch {state.epoch}, and the log is in epoch {head.epoch}")
    return kept


async def _observe(
    signing: Signing, target: SignedLog, head: StoredHead, expected: "_Expected", report: Callable[[int], None]
) -> tuple[Retrace, list[BuiltTile]]:
    """The log as it is, followed to its head past what is expected of it; and the stored tiles that are not its."""
    found = await begun(signing, target.log_id, head)
    how = Pass(marks=expected.sizes(), arrive=expected.arrive, report=report)
    stale = await grow(signing, target.log_id, found, head.size, how)
    require_head(found, head)
    return found, stale


class _Expected:
    """The signed checkpoints of an epoch, in the order of their sizes, held against the roots that the log has."""

    def __init__(self, folder: LogFolder, signed: Signed) -> None:
        self._folder, self._signed = folder, signed
        self._current: tuple[Checkpoint, str] | None = None
        self.last_good: tuple[int, str] | None = None

    def sizes(self) -> Iterator[int]:
        """Each size once; the note that belongs to it is the current one until the next is asked for."""
        last = -1
        for checkpoint, note in self._notes():
            if checkpoint.size > last:
                last = checkpoint.size
                self._current = checkpoint, note
                yield checkpoint.size

    def _notes(self) -> Iterator[tuple[Checkpoint, str]]:
        for note in chain(self._folder.history(), [self._signed.note]):
            try:
                checkpoint = parse_checkpoint(parse_note(note).text)
            except ProofError:
                continue
            if checkpoint.origin == self._signed.checkpoint.origin:
                yield checkpoint, note

    def arrive(self, size: int, root: bytes) -> None:
        """The log has this root at the current checkpoint's size."""
        if self._current is not None and self._current[0].root == root:
            self.last_good = size, self._current[1]


def _empty_note(keys: Keys, signed: Signed) -> str:
    """The checkpoint of the empty tree, which every log extends, for a log of which nothing that was signed is left."""
    origin = signed.checkpoint.origin
    return format_note(sign_checkpoint(Checkpoint(origin, 0, EMPTY_ROOT), keys.signers(origin)))
