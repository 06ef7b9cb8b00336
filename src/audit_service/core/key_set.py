"""The signing keys of an identity provider: a JSON Web Key Set (RFC 7517), of which only what is beyond doubt is used.

    {"keys": [{"kty": "RSA", "kid": "2026-11", "use": "sig", "alg": "RS256", "n": …, "e": "AQAB"}, …]}

A key is left out, and the others stay, when it
- is not of a kind in `_FITTING` (`oct` would be a shared secret), or lacks a member of it in canonical base64url;
- holds a private part: whoever reads the key set could sign;
- is meant for something else: `use` is not `sig`, `key_ops` lacks `verify`, `alg` is no algorithm that fits it and is accepted;
- is weak or a burden: RSA outside of RSA_BITS, an exponent over RSA_EXPONENT_LIMIT, a point that is not on its curve;
- was revoked (`revoked`), or has a time (`nbf`, `exp`) that is no number. These three are OpenID Federation's.

A key is found by `kid` and algorithm. Two different keys under one name decide nothing: neither is used. A token without `kid` is
good only while the provider has a single key for its algorithm.
"""

from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from math import inf

import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from audit_service.core.event import parse_json
from audit_service.core.token import KEY_ID_CHARACTERS, decode_base64url, parse_time
from audit_service.errors import InputError, InvalidTokenError, ProviderError

__all__ = ["KEYS_LIMIT", "RSA_BITS", "RSA_EXPONENT_LIMIT", "KeySet", "SigningKey", "parse_key_set"]

KEYS_LIMIT = 100
RSA_BITS = (2048, 8192)  # at least, as NIST SP 800-131A has it; at most, because checking takes time
RSA_EXPONENT_LIMIT = 1 << 32
MEMBER_CHARACTERS = 1400  # a modulus of 8192 bits has 1366

# (kty, crv) → the members that make the public key, and what it can sign.
_FITTING: dict[tuple[str, str | None], tuple[tuple[str, ...], frozenset[str]]] = {
    ("RSA", None): (("n", "e"), frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})),
    ("EC", "P-256"): (("x", "y"), frozenset({"ES256"})),
    ("EC", "P-384"): (("x", "y"), frozenset({"ES384"})),
    ("EC", "P-521"): (("x", "y"), frozenset({"ES512"})),
    ("OKP", "Ed25519"): (("x",), frozenset({"EdDSA"})),
}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key for one algorithm, good in [starts_at, ends_at), seconds since the Unix epoch."""

    key_id: str | None
    algorithm: str
    thumbprint: bytes  # SHA-256 of the public members: the same key listed twice is one key
    key: PyJWK
    starts_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys, and how many listed ones are not."""

    keys: tuple[SigningKey, ...]
    left_out: int = 0

    def find(self, key_id: str | None, algorithm: str, now: float) -> PyJWK | None:
        """The one key that may have signed, or None when there is none now. Raises InvalidTokenError when there are several."""
        fitting = {
            key.thumbprint: key
            for key in self.keys
            if key.algorithm == algorithm and key_id in (None, key.key_id) and key.starts_at <= now < key.ends_at
        }
        if len(fitting) > 1:
            raise InvalidTokenError("several keys of the provider go by this name")
        return next((key.key for key in fitting.values()), None)


def parse_key_set(data: bytes, algorithms: Collection[str]) -> KeySet:
    """The keys for `algorithms`. An empty list is a statement too: the provider has withdrawn them all.

    Raises ProviderError for what is no key set, or lists more than KEYS_LIMIT keys.
    """
    try:
        document = parse_json(data)
    except InputError:
        raise ProviderError("the key set is not well-formed JSON") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ProviderError("the key set is not an object with a list of keys")
    if len(listed) > KEYS_LIMIT:
        raise ProviderError(f"the key set lists more than {KEYS_LIMIT} keys")
    parsed = [_signing_keys(key, algorithms) for key in listed]
    return KeySet(tuple(key for keys in parsed for key in keys), parsed.count([]))


def _signing_keys(jwk: JSONValue, algorithms: Collection[str]) -> list[SigningKey]:
    """The key for each algorithm it may be used with; none for a key to be left out."""
    if not isinstance(jwk, dict):
        return []
    kty, crv = jwk.get("kty"), jwk.get("crv")
    if not isinstance(kty, str) or not (crv is None or isinstance(crv, str)):
        return []
    members, fitting = _FITTING.get((kty, crv), ((), frozenset()))
    window = _window(jwk)
    if not fitting or window is None or not _is_for_checking(jwk):
        return []
    wanted = fitting & set(algorithms)
    if "alg" in jwk:
        wanted = frozenset(name for name in wanted if name == jwk["alg"])
    public: dict[str, str] = {"kty": kty} if crv is None else {"kty": kty, "crv": crv}
    for name in members:
        value = jwk.get(name)
        if not isinstance(value, str) or len(value) > MEMBER_CHARACTERS or decode_base64url(value) is None:
            return []
        public[name] = value
    return _imported(public, jwk.get("kid"), wanted, window)


def _imported(
    public: dict[str, str], key_id: JSONValue, algorithms: Collection[str], window: tuple[float, float]
) -> list[SigningKey]:
    if not (key_id is None or (isinstance(key_id, str) and 1 <= len(key_id) <= KEY_ID_CHARACTERS)):
        return []
    thumbprint = sha256(orjson.dumps(public, option=orjson.OPT_SORT_KEYS)).digest()
    keys = []
    for algorithm in sorted(algorithms):
        try:
            key = PyJWK(public, algorithm)
        except PyJWTError:  # a point off its curve, an even exponent
            return []
        if isinstance(key.key, RSAPublicKey) and not _is_fair_rsa(key.key):
            return []
        keys.append(SigningKey(key_id, algorithm, thumbprint, key, *window))
    return keys


def _is_fair_rsa(key: RSAPublicKey) -> bool:
    return RSA_BITS[0] <= key.key_size <= RSA_BITS[1] and key.public_numbers().e <= RSA_EXPONENT_LIMIT


def _is_for_checking(jwk: JSONObject) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return (
        not _PRIVATE & jwk.keys()
        and "revoked" not in jwk
        and jwk.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


def _window(jwk: JSONObject) -> tuple[float, float] | None:
    starts_at = parse_time(jwk.get("nbf", 0))
    ends_at = parse_time(jwk["exp"]) if "exp" in jwk else inf
    return None if starts_at is None or ends_at is None else (starts_at, ends_at)
