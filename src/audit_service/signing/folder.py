"""What the signer keeps outside the database: what it signed last, every note it signed, and the locks that make it one.

Under `<data_dir>/signing`, 0700:

    holder                            a random token: with the machine's name and the folder's inode, who holds the database's lease
    signer.lock                       held for the life of a signer: one a folder
    turn.lock                         held while the key file or a log's state is read and changed: the signer's turn, or a command's
    logs/<log key>/state.note         the last signed checkpoint; written, and on the disk, before anybody is shown it
    logs/<log key>/state-epoch-<n>.note   the last one of an epoch that ended with a `resume`
    logs/<log key>/checkpoints.ndjson     {"signed_at", "size", "note"} for every signed note, oldest first

A copy of the folder elsewhere is another holder. So is a restored one: it waits until the lease of the old one runs out.
"""

import asyncio
import fcntl
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from audit_service.core.checkpoint import Checkpoint, open_checkpoint
from audit_service.core.entry import format_time
from audit_service.core.note import NOTE_LIMIT_BYTES, parse_note
from audit_service.errors import AuditError, ProofError
from audit_service.private_file import replace_private
from audit_service.signing.keyfile import Keys

_POLL_SECONDS = 0.05


class SigningStateError(AuditError):
    """What was signed last cannot be read: nothing may be signed before it is restored."""


class LockedError(AuditError):
    """Another signer has the folder."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint of ours, its epoch and the exact note."""

    checkpoint: Checkpoint
    note: str

    @property
    def epoch(self) -> int:
        """The last part of the origin."""
        return int(self.checkpoint.origin.rpartition("/")[2])

    @property
    def place(self) -> tuple[int, int]:
        """Epoch and size: what is signed later has a greater one, or the same."""
        return self.epoch, self.checkpoint.size


class SigningFolder:
    """The folder. Making one makes the folder where it is missing; raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        (path / "logs").mkdir(mode=0o700, exist_ok=True)
        token_path = path / "holder"
        if not token_path.exists():
            replace_private(token_path, secrets.token_hex(8))
        there = path.stat()
        token = token_path.read_text("utf-8").strip()
        self.holder = f"{socket.gethostname()}/{there.st_dev:x}:{there.st_ino:x}/{token}"

    def log(self, log_key: str) -> "LogFolder":
        """The part of one log."""
        return LogFolder(self.path / "logs" / log_key)

    @asynccontextmanager
    async def signing(self) -> AsyncIterator[None]:
        """For the life of a signer. Raises LockedError when another one has the folder."""
        with _lock_file(self.path / "signer.lock") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockedError(f"another signer runs on {self.path}") from None
            yield

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """While keys or states are read and changed; waits for whoever has the turn."""
        with _lock_file(self.path / "turn.lock") as handle:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_POLL_SECONDS)
            yield


class LogFolder:
    """What is kept of one log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.state_path = path / "state.note"
        self._history_path = path / "checkpoints.ndjson"

    def read_state(self, keys: Keys) -> Signed | None:
        """The last signed checkpoint: the state's, or the history's where that says more, because the state was lost or is an older copy;
        None before the first. Raises SigningStateError."""
        state = _read(self.state_path, keys)
        last = self._last_in_history(state, keys)
        return state if last is None or (state is not None and state.place >= last.place) else last

    def read_kept(self, epoch: int, keys: Keys) -> Signed | None:
        """The last checkpoint of an epoch that ended; None when there is none. Raises SigningStateError."""
        return _read(self._kept_path(epoch), keys)

    def write_state(self, note: str) -> None:
        """Replace the state; on the disk when this returns. Raises OSError."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        replace_private(self.state_path, note)

    def keep_state(self, signed: Signed) -> None:
        """Put the last state of an epoch beside, before the next epoch's replaces it. Raises OSError."""
        replace_private(self._kept_path(signed.epoch), signed.note)

    def _kept_path(self, epoch: int) -> Path:
        return self._path / f"state-epoch-{epoch}.note"

    def append(self, signed_at: datetime, size: int, note: str) -> None:
        """Add a note to the history. Not synced: the database has it as well, and the state is what counts. Raises OSError."""
        line = json.dumps({"signed_at": format_time(signed_at), "size": size, "note": note}).encode() + b"\n"
        with os.fdopen(os.open(self._history_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":  # a crash cut the last line
                    line = b"\n" + line
            file.write(line)

    def last_note(self) -> str | None:
        """The newest note of the history; None when there is none, or its line was cut."""
        return next(self._newest(), None)

    def _newest(self) -> Iterator[str | None]:
        """The notes at the end of the history, the newest first; None for a line that was cut."""
        try:
            with self._history_path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 2 * NOTE_LIMIT_BYTES))
                lines = file.read().splitlines()
        except FileNotFoundError:
            return
        yield from map(_note_of, reversed(lines))

    def _last_in_history(self, state: Signed | None, keys: Keys) -> Signed | None:
        """The newest whole line of the history that is by our keys; None when there is none behind the state's."""
        for note in self._newest():
            if note is not None:
                if state is not None and note == state.note:
                    return None
                with suppress(ProofError):
                    return opened(note, keys)
        return None

    def history(self) -> Iterator[str]:
        """Every note of the history, oldest first. Lines that a crash cut are left out."""
        try:
            with self._history_path.open("rb") as lines:
                yield from filter(None, map(_note_of, lines))
        except FileNotFoundError:
            return


def opened(note: str, keys: Keys) -> Signed:
    """A checkpoint that one of our keys signed, under whatever origin the note names. Raises ProofError."""
    parsed = parse_note(note)
    return Signed(open_checkpoint(parsed, keys.verifiers(parsed.text.partition("\n")[0])).checkpoint, note)


def _read(path: Path, keys: Keys) -> Signed | None:
    try:
        return opened(path.read_text("utf-8"), keys)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SigningStateError(f"{path} cannot be read ({error.strerror})") from None
    except (ProofError, ValueError):
        raise SigningStateError(
            f"{path} is not a checkpoint signed by the key file's keys: restore it from a backup"
        ) from None


def _note_of(line: bytes) -> str | None:
    try:
        return str(json.loads(line)["note"])
    except (ValueError, KeyError, TypeError):
        return None


@contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    """A lock file, open for as long as the block runs; closing it gives the lock back."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)
