"""API keys: `aud_` + 12 characters public id + 43 characters secret + 6 characters checksum, all base62.

The checksum is the CRC-32 of what stands before it, so that a typo or a scanner's guess is told apart from a revoked key without
asking anybody. Only SHA-256(key) is stored: the secret has 256 bits, so a slow hash would add nothing.
"""

import zlib
from hashlib import sha256

PREFIX = "aud_"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_CHARACTERS, SECRET_CHARACTERS, CHECKSUM_CHARACTERS = 12, 43, 6
ENTROPY_BYTES = 48
SCOPES = ("ingest", "read", "export", "verify", "viewer", "admin")


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), CHECKSUM_CHARACTERS)


def format_key(entropy: bytes) -> str:
    """A new key from ENTROPY_BYTES of fresh randomness."""
    public_id = _base62(int.from_bytes(entropy[:12], "big"), ID_CHARACTERS)
    secret = _base62(int.from_bytes(entropy[12:], "big"), SECRET_CHARACTERS)
    text = PREFIX + public_id + secret
    return text + _checksum(text)


def public_id(key: str) -> str:
    """The part of a key that may be shown, stored and logged."""
    return key[len(PREFIX) : len(PREFIX) + ID_CHARACTERS]


def is_well_formed(key: str) -> bool:
    """Whether it is a key with a checksum that fits; False for a typo, a cut key or anything that only looks like one."""
    return _is_shaped(key) and _checksum(key[:-CHECKSUM_CHARACTERS]) == key[-CHECKSUM_CHARACTERS:]


def is_mistyped(key: str) -> bool:
    """Whether it is shaped like a key, but its checksum does not fit: no need to ask the database."""
    return _is_shaped(key) and not is_well_formed(key)


def _is_shaped(key: str) -> bool:
    length = len(PREFIX) + ID_CHARACTERS + SECRET_CHARACTERS + CHECKSUM_CHARACTERS
    return len(key) == length and key.startswith(PREFIX) and key.isascii() and key[len(PREFIX) :].isalnum()


def key_hash(key: str) -> bytes:
    """What the database holds of a key. Looked up as a whole, so no comparison leaks how much of it was right."""
    return sha256(key.encode()).digest()
