"""`checkpoint resume`: an operator says that a signed tail is lost and the log goes on without it.

1. Read the whole log as it is and hold it against every note in the history of its epoch and of later ones, which a backup from before
   an earlier resume knows nothing of: an epoch's last good checkpoint is the largest that the log still has; what was signed beyond it is
   lost.
2. In our turn, with the state unchanged: keep the old state beside, and sign the log as it is under a new epoch's origin. That is the
   new state: nobody is shown it before the log itself says that the epoch began.
3. Raise the epoch by one and append the `resume` entry, in one transaction of the database, until the new one is reached: an entry for
   each epoch of which something is lost. From here on the signer goes on.

The new epoch is the one behind everything that was ever signed, so that no epoch gets two trees. Only where the log begins with all that
was signed of an epoch it has not reached, as after this command was killed between the steps, is that one taken up. Until then the signer
refuses the log.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from itertools import chain, groupby

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
class Loss:
    """What is lost of what was signed in an epoch: as the `resume` entry at `seq` says, which ends the epoch."""

    epoch: int
    seq: int
    lost: tuple[int, int]
    last_good: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """What was resumed: the new epoch, the log as observed, and what is lost of each epoch before. `stale`: tiles that are still those of
    what was lost."""

    epoch: int
    size: int
    root: bytes
    losses: list[Loss]
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
    async with signing.keeping_lease():
        observed, stale = await _observe(signing, target, head, expected, report)
    has_all = expected.has_all(state)
    if has_all and state.epoch == head.epoch:
        raise InputError("the log has all that was signed: there is nothing to resume")
    epoch = state.epoch if has_all else state.epoch + 1
    async with signing.folder.turn():
        if folder.read_state(signing.keys()) != state:
            raise InputError("another checkpoint was signed meanwhile: the log may have come back; look again")
        await signing.require_lease()
        origin = format_origin(head.service_name, target.log_key, epoch)
        size, root = observed.place.size, observed.root()
        note = format_note(sign_checkpoint(Checkpoint(origin, size, root), keys.signers(origin)))
        if epoch != state.epoch:
            folder.keep_state(state)
        folder.write_state(note)
        losses = []
        for ended in range(head.epoch, epoch):
            good = expected.last_good(ended) or _empty(keys, signed[ended])
            lost = (good.checkpoint.size, signed[ended].checkpoint.size)
            entry = control.resume(act("cli", reason), checkpoint=good.note, size=size, root=root, lost=lost)
            seq = await store.resume_log(signing.database.writes, target.log_id, signing.holder, entry)
            losses.append(Loss(ended, seq, lost, good.note))
    return Resumed(epoch, size, root, losses, stale)


def _signed_of(folder: LogFolder, keys: Keys, state: Signed, head: StoredHead) -> dict[int, Signed]:
    """What was signed last in the log's epoch, and in each one since: the log was set back behind those, or never reached the last."""
    kept = [folder.read_kept(epoch, keys) for epoch in range(head.epoch, state.epoch)]
    signed = {one.epoch: one for one in (*kept, state) if one is not None}
    if head.epoch not in signed or len(signed) != len(kept) + 1:
        raise SigningRefusedError(f"signed was epoch {state.epoch}, and the log is in epoch {head.epoch}")
    return signed


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
    """The signed checkpoints of some epochs, in the order of their sizes, held against the roots that the log has."""

    def __init__(self, folder: LogFolder, signed: Mapping[int, Signed]) -> None:
        self._folder, self._signed = folder, signed
        self._current: list[Signed] = []
        self._best: Signed | None = None  # the largest that the log has, of any epoch
        self._good: dict[int, Signed | None] = {}
        self._below: dict[int, Signed | None] = {}  # the largest that the log has, up to each epoch's last

    def sizes(self) -> Iterator[int]:
        """Each size once; the checkpoints that belong to it are the current ones until the next is asked for."""
        epochs = [self._of(signed) for signed in self._signed.values()]
        for size, found in groupby(merge(*epochs, key=_size_of), key=_size_of):
            self._current = list(found)
            yield size

    def _of(self, signed: Signed) -> Iterator[Signed]:
        """Those of one epoch."""
        last = -1
        for note in chain(self._folder.history(), [signed.note]):
            try:
                found = Signed(parse_checkpoint(parse_note(note).text), note)
            except ProofError:
                continue
            if found.checkpoint.origin == signed.checkpoint.origin and found.checkpoint.size > last:
                last = found.checkpoint.size
                yield found

    def arrive(self, size: int, root: bytes) -> None:
        """The log has this root at the current checkpoints' size."""
        best = self._best
        for one in self._current:
            if one.checkpoint.root == root:
                self._good[one.epoch] = self._best = one
            else:
                self._good.setdefault(one.epoch, best)
        self._below |= {epoch: self._best for epoch, last in self._signed.items() if size <= last.checkpoint.size}

    def last_good(self, epoch: int) -> Signed | None:
        """The largest checkpoint of an epoch that the log has; where it has none, or all are below the cut of a pruned log, the largest of
        another below the epoch's own."""
        return self._good.get(epoch, self._below.get(epoch))

    def has_all(self, signed: Signed) -> bool:
        """Whether the log begins with this checkpoint, the last of its epoch."""
        good = self.last_good(signed.epoch)
        return good is not None and good.checkpoint == signed.checkpoint


def _size_of(signed: Signed) -> int:
    return signed.checkpoint.size


def _empty(keys: Keys, signed: Signed) -> Signed:
    """The checkpoint of the empty tree, which every log extends, for a log of which nothing that was signed is left."""
    checkpoint = Checkpoint(signed.checkpoint.origin, 0, EMPTY_ROOT)
    return Signed(checkpoint, format_note(sign_checkpoint(checkpoint, keys.signers(checkpoint.origin))))
