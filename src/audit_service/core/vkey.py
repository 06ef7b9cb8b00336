"""Keys of signed notes (C2SP signed-note): names, kinds, key ids, and the text a verifier is given a key as.

- A key's name is not empty and holds no Unicode space, no `+`, no control character. A log's key is named as its origin.
- *Kind*, one byte: 0x01 signs texts with Ed25519, 0x04 cosigns checkpoints with Ed25519 (C2SP tlog-cosignature).
- *Key id*: the first 4 bytes of SHA-256(name || 0x0A || kind || public key). A hint, not a commitment: anybody can
  make a key with the same id, and gets no further than a signature that fails.
- *vkey*: `name+<key id, 8 lower-case hex digits>+<base64(kind || public key)>`.

>>> signer = Signer.from_seed("audit.example.com/t/7f3a9c/1", bytes([7]) * 32)
>>> format_vkey(signer.verifier())
'audit.example.com/t/7f3a9c/1+4e221d72+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs'
>>> witness = Signer.from_seed("witness.example.net/w1", bytes([9]) * 32)
>>> format_vkey(witness.verifier(KeyKind.COSIGNATURE))
'witness.example.net/w1+63fbd762+BP0XJDhaoMdbZPt4zWAvodmR/ev3axPFjtcC6sg16fYY'
"""

import re
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit_service.core.strict_text import decode_base64, encode_base64
from audit_service.errors import MalformedNoteError, TrustInputError

__all__ = ["KEY_ID_BYTES", "KeyKind", "Signer", "VerifierKey", "format_vkey", "is_key_name", "parse_vkey"]

KEY_ID_BYTES = 4
_PUBLIC_KEY_BYTES = 32
_KEY_ID = re.compile(r"[0-9a-f]{8}")


class KeyKind(IntEnum):
    """What a key signs, and how: the signature type byte of the specification."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key (32 bytes, Ed25519) with its name and kind. Raises `TrustInputError` for parts out of form."""

    name: str
    kind: KeyKind
    public: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise TrustInputError("a key's name is empty or holds a space, a plus sign or a control character")
        if len(self.public) != _PUBLIC_KEY_BYTES:
            raise TrustInputError("a public key is not 32 bytes long")

    @property
    def key_id(self) -> bytes:
        """4 bytes that say, with the name, which lines are this key's."""
        return sha256(b"%b\n%c%b" % (self.name.encode(), self.kind, self.public)).digest()[:KEY_ID_BYTES]


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key and the name it signs under. One key may sign under several names: a name for each log."""

    name: str
    private_key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def from_seed(cls, name: str, seed: bytes) -> "Signer":
        """The signer of a 32-byte seed (RFC 8032)."""
        return cls(name, Ed25519PrivateKey.from_private_bytes(seed))

    def verifier(self, kind: KeyKind = KeyKind.ED25519) -> VerifierKey:
        """What others need to verify what this one signs."""
        return VerifierKey(self.name, kind, self.private_key.public_key().public_bytes_raw())


def parse_vkey(text: str) -> VerifierKey:
    """The inverse of `format_vkey`. Raises `TrustInputError`, also when the key id is not the key's."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        kind_and_public = decode_base64(encoded)
        kind = KeyKind(kind_and_public[0])
    except (MalformedNoteError, ValueError):
        raise TrustInputError("a vkey is not base64 of a known kind of key") from None
    key = VerifierKey(name, kind, kind_and_public[1:])
    if not _KEY_ID.fullmatch(key_id) or key.key_id.hex() != key_id:
        raise TrustInputError("a vkey's key id is not that of its name and key")
    return key


def format_vkey(key: VerifierKey) -> str:
    """`name+key id+base64(kind || public key)`, on one line."""
    return f"{key.name}+{key.key_id.hex()}+{encode_base64(bytes([key.kind]) + key.public)}"


def is_key_name(name: str) -> bool:
    """Whether a key may have this name; our origins are such names too."""
    return bool(name) and not any(one.isspace() or one == "+" or one < " " or _is_surrogate(one) for one in name)


def _is_surrogate(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"  # what a decoder leaves of bytes that are not UTF-8
