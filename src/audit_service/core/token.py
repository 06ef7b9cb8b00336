"""A bearer JWT (RFC 7519) in the compact form of a JWS (RFC 7515), read strictly, and its signature.

    token     = BASE64URL(header) "." BASE64URL(claims) "." BASE64URL(signature)
    header    = {"alg": …, "kid"?: …, "typ"?: …, …}

Three parts of canonical base64url, none of them empty, at most TOKEN_CHARACTERS in all: one token has one spelling. Of the header
three members count. `alg` has to be one of the algorithms pinned by configuration, by its exact name. `kid` only chooses among the
provider's keys, as a whole string: no path, query or file is made of it. `typ` tells an access token from an ID token. `crit` and
`b64` change what is signed or how it is read: whoever sends them is refused. Keys that a token brings along or points to (`jwk`, `jku`,
`x5u`, `x5c`) are never looked at.

The claims are read after the signature has been checked: nothing an unknown writes is interpreted, but the header.

>>> decode_base64url("MQ"), decode_base64url("MR"), decode_base64url("MQ==")
(b'1', None, None)
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from jwt import PyJWK, PyJWS
from jwt.exceptions import PyJWTError

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from audit_service.core.event import parse_json
from audit_service.errors import InputError, InvalidTokenError

__all__ = [
    "ALGORITHMS",
    "KEY_ID_CHARACTERS",
    "TOKEN_CHARACTERS",
    "Token",
    "check_signature",
    "decode_base64url",
    "looks_like_token",
    "parse_claims",
    "parse_time",
    "parse_token",
    "parse_type",
]

# Public-key signatures only. `none` signs nothing; under HS* whoever can check a token can make one, and a public key taken for
# the shared secret makes everybody such a one.
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
TOKEN_CHARACTERS = 8192  # half of what all headers of a request may have
KEY_ID_CHARACTERS = 256
TIME_LIMIT_SECONDS = 1 << 53  # exact as a double, and far beyond every calendar
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_UNSUPPORTED = ("crit", "b64")


@dataclass(frozen=True, slots=True)
class Token:
    """A token whose envelope is well-formed; nothing in it is to be believed yet."""

    text: str
    algorithm: str
    key_id: str | None
    type: str  # as `parse_type` writes it
    payload: bytes


def looks_like_token(credential: str) -> bool:
    """Whether it is written like a JWT: three parts, the first of them a JSON object. No API key is."""
    return credential.startswith("eyJ") and credential.count(".") == 2


def parse_type(name: str) -> str:
    """A token type in one spelling: RFC 7515 section 4.1.9 compares without case and without a leading `application/`."""
    return name.lower().removeprefix("application/")


def parse_token(text: str, algorithms: Collection[str]) -> Token:
    """The envelope of a token signed with one of `algorithms`. Raises InvalidTokenError."""
    if len(text) > TOKEN_CHARACTERS:
        raise InvalidTokenError(f"longer than {TOKEN_CHARACTERS} characters")
    parts = [decode_base64url(part) for part in text.split(".")]
    if len(parts) != 3 or None in parts:
        raise InvalidTokenError("not three parts of canonical base64url")
    header_bytes, payload, _ = parts
    assert header_bytes is not None  # noqa: S101 - for the type checker: looked at above
    assert payload is not None  # noqa: S101
    header = _parse_object(header_bytes, "header")
    if any(name in header for name in _UNSUPPORTED):
        raise InvalidTokenError("the header asks for an extension")
    algorithm, key_id, type_ = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise InvalidTokenError("signed with an algorithm that is not accepted")
    if not isinstance(type_, str):
        raise InvalidTokenError("the header's typ is not a string")
    if "kid" in header and not (isinstance(key_id, str) and 1 <= len(key_id) <= KEY_ID_CHARACTERS):
        raise InvalidTokenError(f"the header's kid is not a string of 1 to {KEY_ID_CHARACTERS} characters")
    return Token(text, algorithm, key_id if isinstance(key_id, str) else None, parse_type(type_), payload)


def check_signature(token: Token, key: PyJWK) -> None:
    """Raise InvalidTokenError unless the key, which is bound to one algorithm, made the token's signature."""
    try:
        _signatures(token.algorithm).decode_complete(token.text, key, [token.algorithm])
    except PyJWTError:
        raise InvalidTokenError("the signature does not fit") from None


def parse_claims(token: Token) -> JSONObject:
    """The claims of a token whose signature has been checked. Raises InvalidTokenError."""
    return _parse_object(token.payload, "claims")


def parse_time(value: JSONValue) -> float | None:
    """A NumericDate (RFC 7519 section 2) as seconds since the Unix epoch; None for strings, booleans, negative and immense numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= TIME_LIMIT_SECONDS:
        return None
    return float(value)


def decode_base64url(text: str) -> bytes | None:
    """RFC 4648 section 5 without padding; None for any other spelling, for nothing, and for what is no base64url at all."""
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        return None
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return data if urlsafe_b64encode(data).decode().rstrip("=") == text else None


@cache
def _signatures(algorithm: str) -> PyJWS:
    return PyJWS([algorithm], {"verify_signature": True, "enforce_minimum_key_length": True})


def _parse_object(data: bytes, what: str) -> JSONObject:
    try:
        value = parse_json(data)
    except InputError:
        raise InvalidTokenError(f"not well-formed JSON in the {what}") from None
    if not isinstance(value, dict):
        raise InvalidTokenError(f"not a JSON object in the {what}")
    return value
