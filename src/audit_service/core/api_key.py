"""API keys, `aud_…`, and viewer tokens, `auv_…`: a prefix + 12 characters public id + 43 characters secret + 6 characters checksum, all
base62. Both are 65 characters, and match SCANNER_PATTERN.

The checksum is the CRC-32 of what stands before it, so that a typo or a scanner's guess is told apart from a revoked key without
asking anybody. Only SHA-256(key) is stored: the secret has 256 bits, so a slow hash would add nothing.

>>> kind_of("aud_" + "0" * 61), is_well_formed("aud_" + "0" * 61)
('api_key', False)
"""

import zlib
from hashlib import sha256
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["api_key", "viewer_token"]
PREFIXES: dict[Kind, str] = {"api_key": "aud_", "viewer_token": "auv_"}
PREFIX_CHARACTERS = 4
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_CHARACTERS, SECRET_CHARACTERS, CHECKSUM_CHARACTERS = 12, 43, 6
ENTROPY_BYTES = 48
SCOPES = ("ingest", "read", "export", "verify", "viewer", "admin")
# For secret scanners, in the subset of regular expressions that all of them have. `is_well_formed` then tells a key from a likeness.
SCANNER_PATTERN = r"\bau[dv]_[0-9A-Za-z]{61}\b"


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), CHECKSUM_CHARACTERS)


def format_key(entropy: bytes, kind: Kind = "api_key") -> str:
    """A new key or token from ENTROPY_BYTES of fresh randomness."""
    public_id = _base62(int.from_bytes(entropy[:12], "big"), ID_CHARACTERS)
    secret = _base62(int.from_bytes(entropy[12:], "big"), SECRET_CHARACTERS)
    text = PREFIXES[kind] + public_id + secret
    return text + _checksum(text)


def public_id(key: str) -> str:
    """The part of a key or token that may be shown, stored and logged."""
    return key[PREFIX_CHARACTERS : PREFIX_CHARACTERS + ID_CHARACTERS]


def kind_of(key: str) -> Kind | None:
    """What it is shaped like, whether its checksum fits or not; None for neither."""
    length = PREFIX_CHARACTERS + ID_CHARACTERS + SECRET_CHARACTERS + CHECKSUM_CHARACTERS
    if len(key) != length or not key.isascii() or not key[PREFIX_CHARACTERS:].isalnum():
        return None
    return next((kind for kind, prefix in PREFIXES.items() if key.startswith(prefix)), None)


def is_well_formed(key: str) -> bool:
    """Whether it is a key or token with a checksum that fits; False for a typo, a cut one or anything that only looks like one."""
    return kind_of(key) is not None and _checksum(key[:-CHECKSUM_CHARACTERS]) == key[-CHECKSUM_CHARACTERS:]


def is_mistyped(key: str) -> bool:
    """Whether it is shaped like one, but its checksum does not fit: no need to ask the database."""
    return kind_of(key) is not None and not is_well_formed(key)


def key_hash(key: str) -> bytes:
    """What the database holds of a key or token, and finds it by.

    The hash is compared, by an index, and not the key: how long that takes tells at most how much of a SHA-256 was right, which nobody
    can choose without knowing the key. So a lookup takes no comparison in constant time.
    """
    return sha256(key.encode()).digest()
