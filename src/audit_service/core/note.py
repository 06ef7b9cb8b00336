r"""Signed notes (C2SP signed-note) and cosignatures (C2SP tlog-cosignature, the Ed25519 kind).

    <text, ends in LF>
    <empty line>
    — <key name> <base64(key id || signature)>     one or more, each ended by LF

- The text is UTF-8 without control characters below U+0020 other than LF. It may hold empty lines: the last
  empty line of the note is where the signatures begin. The text is signed with its final LF.
- A line's name and key id say by which key it is (`core/vkey.py`).
- Kind 0x01, Ed25519 over the text. Kind 0x04, a witness's cosignature: 8 bytes of time (big-endian, seconds
  since the Unix epoch) and an Ed25519 signature over `cosignature/v1\ntime <seconds>\n` || text. It does not
  bind the cosigner's name, so one key must not serve two cosigners.

Base64 (RFC 4648 section 4, padded) is taken in its one canonical spelling only, so a note has no second
spelling: formatting what was parsed gives the same bytes. Lines by unknown keys are ignored, which is what
lets keys be rotated; a known key whose signature fails condemns the note.

>>> signer = Signer.from_seed("audit.example.com/t/7f3a9c/1", bytes([7]) * 32)
>>> text = "audit.example.com/t/7f3a9c/1\n5\ntnSPbtepnefahP2X4aO6xvq4mZ9KQ2lcq5Uoot5DEUc=\n"
>>> print(format_note(Note(text, (sign(text, signer),))), end="")
audit.example.com/t/7f3a9c/1
5
tnSPbtepnefahP2X4aO6xvq4mZ9KQ2lcq5Uoot5DEUc=
<BLANKLINE>
— audit.example.com/t/7f3a9c/1 TiIdclHDgOYaowyYKMEB9NSWrR3hHnhFaHZpxXIOPCqL83US45mHijIGsukrbuxNd3fxcj5FpQpLCobS81Us9DbpAg0=
>>> witness = Signer.from_seed("witness.example.net/w1", bytes([9]) * 32)
>>> note = Note(text, (sign(text, signer), cosign(text, witness, 1790000000)))
>>> opened = open_note(note, [signer.verifier(), witness.verifier(KeyKind.COSIGNATURE)])
>>> [(one.key.name, one.at_seconds) for one in opened]
[('audit.example.com/t/7f3a9c/1', None), ('witness.example.net/w1', 1790000000)]
"""

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit_service.core.strict_text import decode_base64, decode_text, encode_base64
from audit_service.core.vkey import KEY_ID_BYTES, KeyKind, Signer, VerifierKey, is_key_name
from audit_service.errors import InvalidSignatureError, MalformedNoteError, TrustInputError, UnknownSignerError

__all__ = [
    "NOTE_LIMIT_BYTES",
    "SIGNATURE_LIMIT_LINES",
    "Note",
    "Signature",
    "VerifiedSignature",
    "cosign",
    "format_note",
    "open_note",
    "parse_note",
    "sign",
]

NOTE_LIMIT_BYTES = 64 * 1024
SIGNATURE_LIMIT_LINES = 64  # the specification asks for 16 at least
_TIME_BYTES = 8
_TIME_END_SECONDS = 1 << 63
_SIGNATURE_START = "— "


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line. `value` is what follows the key id: 64 bytes, or 8 of time and 64."""

    name: str
    key_id: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signature lines, none of them verified."""

    text: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class VerifiedSignature:
    """A key that signed the text; for a cosignature also when it says it did (seconds since the Unix epoch)."""

    key: VerifierKey
    at_seconds: int | None


def parse_note(data: bytes | str) -> Note:
    """A note's text and signature lines, nothing verified. The inverse of `format_note`.

    Raises `MalformedNoteError`, also beyond `NOTE_LIMIT_BYTES` and `SIGNATURE_LIMIT_LINES`.
    """
    content = decode_text(data, NOTE_LIMIT_BYTES)
    body, separator, lines = content.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        raise MalformedNoteError("a note is a text, an empty line and signature lines, each ended by a newline")
    text = body + "\n"
    first_line = text.count("\n") + 2
    signature_lines = lines[:-1].split("\n")
    _require_few(len(signature_lines))
    signatures = (_parse_signature(line, first_line + at) for at, line in enumerate(signature_lines))
    return Note(text, tuple(signatures))


def format_note(note: Note) -> str:
    """The note as it is stored and sent. Raises `MalformedNoteError` for what `parse_note` would not take back."""
    _signable(note.text)
    if not note.signatures:
        raise MalformedNoteError("a note needs a signature")
    _require_few(len(note.signatures))
    written = f"{note.text}\n{''.join(map(_format_signature, note.signatures))}"
    decode_text(written, NOTE_LIMIT_BYTES)
    return written


def sign(text: str, signer: Signer) -> Signature:
    """An Ed25519 signature line (kind 0x01) over the text."""
    return Signature(signer.name, signer.verifier().key_id, signer.private_key.sign(_signable(text)))


def cosign(text: str, signer: Signer, at_seconds: int) -> Signature:
    """A witness's line (kind 0x04): as of `at_seconds` this was the largest consistent tree it had seen."""
    if not 0 <= at_seconds < _TIME_END_SECONDS:
        raise MalformedNoteError("the time of a cosignature does not fit into 63 bits")
    signature = signer.private_key.sign(_cosigned_bytes(_signable(text), at_seconds))
    key_id = signer.verifier(KeyKind.COSIGNATURE).key_id
    return Signature(signer.name, key_id, at_seconds.to_bytes(_TIME_BYTES) + signature)


def open_note(note: Note, keys: Iterable[VerifierKey]) -> tuple[VerifiedSignature, ...]:
    """The signatures of a note by the known keys, verified, in the note's order.

    Lines by other keys are ignored. Raises `InvalidSignatureError` if one by a known key fails, whatever the others
    say, and `UnknownSignerError` if there is none. `TrustInputError`: two known keys share their name and key id.
    """
    known = _by_line(keys)
    verified = []
    for line, signature in enumerate(note.signatures, start=1):
        key = known.get((signature.name, signature.key_id))
        if key is not None:
            verified.append(_verify(note.text, signature, key, line))
    if not verified:
        raise UnknownSignerError("no signature is by a known key")
    return tuple(verified)


def _parse_signature(line: str, number: int) -> Signature:
    name, separator, encoded = line.removeprefix(_SIGNATURE_START).partition(" ")
    if not line.startswith(_SIGNATURE_START) or not separator or not is_key_name(name):
        raise MalformedNoteError("not a signature line", number)
    payload = decode_base64(encoded, number)
    if len(payload) <= KEY_ID_BYTES:
        raise MalformedNoteError("a signature line without a signature", number)
    return Signature(name, payload[:KEY_ID_BYTES], payload[KEY_ID_BYTES:])


def _format_signature(signature: Signature) -> str:
    if not is_key_name(signature.name) or len(signature.key_id) != KEY_ID_BYTES or not signature.value:
        raise MalformedNoteError("a signature line needs a key name, a key id of 4 bytes and a signature")
    return f"{_SIGNATURE_START}{signature.name} {encode_base64(signature.key_id + signature.value)}\n"


def _require_few(signatures: int) -> None:
    if signatures > SIGNATURE_LIMIT_LINES:
        raise MalformedNoteError(f"more than {SIGNATURE_LIMIT_LINES} signature lines")


def _by_line(keys: Iterable[VerifierKey]) -> dict[tuple[str, bytes], VerifierKey]:
    """Keys by what a signature line says of them."""
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.key_id), key) != key:
            raise TrustInputError("two known keys share a name and a key id")
    return known


def _verify(text: str, signature: Signature, key: VerifierKey, line: int) -> VerifiedSignature:
    signed, value = text.encode(), signature.value
    at_seconds: int | None = None
    if key.kind is KeyKind.COSIGNATURE:
        at_seconds, value = int.from_bytes(value[:_TIME_BYTES]), value[_TIME_BYTES:]
        signed = _cosigned_bytes(signed, at_seconds)
        if at_seconds >= _TIME_END_SECONDS:
            raise InvalidSignatureError(line)
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(value, signed)
    except InvalidSignature:
        raise InvalidSignatureError(line) from None
    return VerifiedSignature(key, at_seconds)


def _cosigned_bytes(text: bytes, at_seconds: int) -> bytes:
    return b"cosignature/v1\ntime %d\n%b" % (at_seconds, text)


def _signable(text: str) -> bytes:
    """The bytes of a text that may be signed."""
    decode_text(text, NOTE_LIMIT_BYTES)
    if not text.endswith("\n"):
        raise MalformedNoteError("the text of a note ends in a newline")
    return text.encode()
