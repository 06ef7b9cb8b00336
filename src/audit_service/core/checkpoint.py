r"""Checkpoints (C2SP tlog-checkpoint): a log's signed statement of its size and root.

A checkpoint is a signed note (`core/note.py`) whose text has exactly three lines:

    <origin>
    <size, decimal without leading zeros>
    <base64 of the root, 32 bytes>

The origin is the log's and also the name of the key that signs. The format knows further lines; we write none
and refuse them, since nothing audits them.

>>> from audit_service.core.vkey import Signer
>>> signer = Signer.from_seed("audit.example.com/t/7f3a9c/1", bytes([7]) * 32)
>>> root = bytes.fromhex("b6748f6ed7a99de7da84fd97e1a3bac6fab8999f4a43695cab9528a2de431147")
>>> note = sign_checkpoint(Checkpoint("audit.example.com/t/7f3a9c/1", 5, root), [signer])
>>> note.text
'audit.example.com/t/7f3a9c/1\n5\ntnSPbtepnefahP2X4aO6xvq4mZ9KQ2lcq5Uoot5DEUc=\n'
>>> open_checkpoint(note, [signer.verifier()]).checkpoint.size
5
"""

from collections.abc import Iterable
from dataclasses import dataclass

from audit_service.core.merkle import EMPTY_ROOT, HASH_BYTES
from audit_service.core.note import Note, VerifiedSignature, open_note, sign
from audit_service.core.strict_text import COUNT_LIMIT, decode_base64, encode_base64, parse_decimal
from audit_service.core.vkey import KeyKind, Signer, VerifierKey, is_key_name
from audit_service.errors import MalformedNoteError, UnknownSignerError

__all__ = [
    "Checkpoint",
    "OpenedCheckpoint",
    "format_checkpoint",
    "open_checkpoint",
    "parse_checkpoint",
    "sign_checkpoint",
]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's root at a size. Raises `MalformedNoteError` for what could not be written down."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.origin):
            raise MalformedNoteError("an origin is empty or holds a space, a plus sign or a control character", 1)
        if not 0 <= self.size <= COUNT_LIMIT:
            raise MalformedNoteError("a size is below 0 or above 2^63", 2)
        if len(self.root) != HASH_BYTES:
            raise MalformedNoteError("a root is not 32 bytes long", 3)
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise MalformedNoteError("an empty tree with a root other than that of nothing", 3)


@dataclass(frozen=True, slots=True)
class OpenedCheckpoint:
    """A checkpoint, the note it came in, and whose signatures of it were verified: the log's and any witnesses'."""

    checkpoint: Checkpoint
    note: Note
    signatures: tuple[VerifiedSignature, ...]


def parse_checkpoint(text: str) -> Checkpoint:
    """The inverse of `format_checkpoint`, from a note's text. Raises `MalformedNoteError`. Proves nothing by itself."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise MalformedNoteError("a checkpoint is exactly three lines: origin, size, root")
    return Checkpoint(lines[0], parse_decimal(lines[1], 2), decode_base64(lines[2], 3))


def format_checkpoint(checkpoint: Checkpoint) -> str:
    """The three lines that are signed."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{encode_base64(checkpoint.root)}\n"


def sign_checkpoint(checkpoint: Checkpoint, signers: Iterable[Signer]) -> Note:
    """The note of a checkpoint: one line for each signer, all under the name of the origin.

    While a key is succeeded the old and the new one both sign. Whether the checkpoint is consistent with what was
    signed before is the caller's to know.
    """
    text = format_checkpoint(checkpoint)
    signatures = tuple(sign(text, signer) for signer in signers)
    if not signatures or any(one.name != checkpoint.origin for one in signatures):
        raise MalformedNoteError("a checkpoint is signed under the name of its origin")
    return Note(text, signatures)


def open_checkpoint(note: Note, keys: Iterable[VerifierKey]) -> OpenedCheckpoint:
    """The checkpoint in a note, once a key named as its origin is found to have signed it.

    `keys` are those of logs (kind Ed25519) and of witnesses (kind cosignature); a witness's line alone makes no
    checkpoint. Raises `InvalidSignatureError` or `UnknownSignerError` for the signatures, then `MalformedNoteError`
    for the text: nothing unsigned is looked into.
    """
    signatures = open_note(note, keys)
    checkpoint = parse_checkpoint(note.text)
    if not any(one.key.kind is KeyKind.ED25519 and one.key.name == checkpoint.origin for one in signatures):
        raise UnknownSignerError("no signature is by a known key of the checkpoint's log")
    return OpenedCheckpoint(checkpoint, note, signatures)
