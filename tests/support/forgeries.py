"""Forged tokens, after the known faults of JWT libraries, each with the mistake that lets it in; and a verifier that can make each mistake.

The verifier is the control: with its mistake it takes the forgery, so that a service that refuses it refuses an attack and not a typing
error; without any mistake it refuses them all.
"""

import hmac
import json
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.identity import Provider, b64, ec_key, encode, jwk, number, rsa_key, sign, signed

ATTACKER = rsa_key("attacker")
ELSEWHERE = "/attacker/keys"  # beside the provider's keys, so that a request for it is seen
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True)
class Forgery:
    """A forged token and the mistake it counts on."""

    name: str
    mistake: str
    make: Callable[[Provider], str]


def _unsigned(algorithm: Any, signature: str = "") -> Callable[[Provider], str]:
    header = {"alg": algorithm, "typ": "at+jwt", "kid": "rsa"}
    return lambda provider: f"{b64(encode(header))}.{b64(encode(provider.claims()))}.{signature}"


def _shared(secret: bytes, key_id: str = "rsa") -> Callable[[Provider], str]:
    return lambda provider: signed(provider.header(alg="HS256", kid=key_id), provider.claims(), secret)


def _own_key(**header: Any) -> Callable[[Provider], str]:
    """Signed by the attacker, with a header that leads to his key."""

    def make(provider: Provider) -> str:
        members = {name: value(provider) if callable(value) else value for name, value in header.items()}
        return signed(provider.header(**members), provider.claims(), ATTACKER)

    return make


def _respelled(respell: Callable[[str, str, str], str]) -> Callable[[Provider], str]:
    """A good token, in another spelling or with other parts."""
    return lambda provider: respell(*_split(provider.token()))


def _split(token: str) -> tuple[str, str, str]:
    header, claims, signature = token.split(".")
    return header, claims, signature


def _curve(signature: bytes, key_id: str = "ec") -> Callable[[Provider], str]:
    header = {"alg": "ES256", "kid": key_id, "typ": "at+jwt"}
    return lambda provider: f"{b64(encode(header))}.{b64(encode(provider.claims()))}.{b64(signature)}"


def _unencoded(provider: Provider) -> str:
    """RFC 7797: the payload stands as it is, and is signed as it is."""
    header = b64(encode(provider.header(b64=False, crit=["b64"])))
    payload = b64(encode(provider.claims()))  # has no dot, so that three parts remain
    return f"{header}.{payload}.{b64(sign('RS256', rsa_key(), f'{header}.{payload}'.encode()))}"


def _last_bit(text: str) -> str:
    """The same bytes to a decoder that does not mind what the last character holds beyond them."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(text) % 4, "every bit of the last character counts"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


def _der(provider: Provider) -> str:
    data = f"{b64(encode(provider.header(alg='ES256', kid='ec')))}.{b64(encode(provider.claims()))}"
    return f"{data}.{b64(ec_key().sign(data.encode(), ec.ECDSA(hashes.SHA256())))}"


def _other_claims(provider: Provider) -> str:
    header, _, signature = _split(provider.token())
    return f"{header}.{b64(encode(provider.claims(sub='somebody-else')))}.{signature}"


def _two_algorithms(provider: Provider) -> str:
    return signed(b'{"alg":"none","kid":"rsa","typ":"at+jwt","alg":"RS256"}', provider.claims(), rsa_key())


def _two_subjects(provider: Provider) -> str:
    twice = encode(provider.claims())[:-1] + b', "sub": "somebody-else"}'
    return signed(provider.header(), twice, rsa_key())


PUBLIC = rsa_key().public_key()
PEM = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
SECRETS = {
    "PEM": PEM,
    "PEM without its last line break": PEM.rstrip(),
    "PKCS#1 PEM": PUBLIC.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
    "DER": PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "JWK": json.dumps(jwk(rsa_key(), "rsa", use="sig", alg="RS256")).encode(),
    "modulus": PUBLIC.public_numbers().n.to_bytes(256, "big"),
}
_PATHS = ["/dev/null", "../../../../../../dev/null", "file:///dev/null"]
_QUERIES = ["' UNION SELECT 'c2VjcmV0' -- ", "x' OR '1'='1"]

FORGERIES = [
    *(Forgery(f"alg {name!r}", "none signs", _unsigned(name)) for name in ("none", "None", "NONE", "nOnE", "", None)),
    *(Forgery(f"alg {name!r} and a signature", "none signs", _unsigned(name, "AAAA")) for name in ("none", "NONE", None)),
    *(Forgery(f"HS256 under the public key as {name}", "one secret", _shared(key)) for name, key in SECRETS.items()),
    Forgery("jwk", "brought keys", _own_key(jwk=jwk(ATTACKER), kid=...)),
    Forgery("jwk under the provider's kid", "brought keys", _own_key(jwk=jwk(ATTACKER, "rsa"))),
    Forgery("jku", "linked keys", _own_key(jku=lambda provider: provider.issuer + ELSEWHERE)),
    Forgery("x5u", "linked keys", _own_key(x5u=lambda provider: provider.issuer + ELSEWHERE)),
    Forgery("a kid that is a URL", "linked keys", _own_key(kid=lambda provider: provider.issuer + ELSEWHERE)),
    Forgery("x5c", "brought keys", _own_key(x5c=[b64(encode(jwk(ATTACKER)))])),
    *(
        Forgery(f"kid {path}", "files by kid", _shared(b"", path))
        for path in _PATHS
    ),
    *(
        Forgery(f"kid {query}", "queries by kid", _shared(b"secret", query))
        for query in _QUERIES
    ),
    Forgery("an unknown extension is critical", "crit ignored", lambda p: signed(p.header(crit=["x"], x=1), p.claims(), rsa_key())),
    Forgery("nothing is critical", "crit ignored", lambda p: signed(p.header(crit=[]), p.claims(), rsa_key())),
    Forgery("a known member is critical", "crit ignored", lambda p: signed(p.header(crit=["alg"]), p.claims(), rsa_key())),
    Forgery("an unencoded payload", "crit ignored", _unencoded),
    Forgery("b64 without crit", "crit ignored", lambda p: signed(p.header(b64=False), p.claims(), rsa_key())),
    Forgery("alg twice", "last one wins", _two_algorithms),
    Forgery("sub twice", "last one wins", _two_subjects),
    Forgery("padding in the claims", "lenient base64", _respelled(lambda h, c, s: f"{h}.{c}==.{s}")),
    Forgery("padding in the signature", "lenient base64", _respelled(lambda h, c, s: f"{h}.{c}.{s}==")),
    Forgery("white space in the signature", "lenient base64", _respelled(lambda h, c, s: f"{h}.{c}.{s[:9]} {s[9:]}")),
    Forgery("a tab in the claims", "lenient base64", _respelled(lambda h, c, s: f"{h}.{c[:9]}\t{c[9:]}.{s}")),
    Forgery("an odd bit in the signature", "lenient base64", _respelled(lambda h, c, s: f"{h}.{c}.{_last_bit(s)}")),
    Forgery("other claims", "no signature", _other_claims),
    Forgery("another token's signature", "no signature", lambda p: ".".join((*_split(p.token())[:2], _split(p.token(sub="x"))[2]))),
    Forgery("a cut signature", "no signature", _respelled(lambda h, c, s: f"{h}.{c}.{s[:-2]}")),
    Forgery("no signature at all", "no signature", _respelled(lambda h, c, _: f"{h}.{c}.")),
    Forgery("signed by another", "no signature", _own_key()),
    Forgery("r = s = 0", "psychic", _curve(bytes(64))),
    Forgery("r = s = the order", "psychic", _curve(_P256_ORDER.to_bytes(32, "big") * 2)),
    Forgery("r = 0, s = 1", "psychic", _curve(bytes(63) + b"\1")),
    Forgery("r = 1, s = 0", "psychic", _curve(bytes(31) + b"\1" + bytes(32))),
    Forgery("ES256 in DER", "any form", _der),
    Forgery("PS256 under a key for RS256", "any algorithm", lambda p: signed(p.header(alg="PS256"), p.claims(), rsa_key(), "PS256")),
    Forgery("RS512 under a key for RS256", "any algorithm", lambda p: signed(p.header(alg="RS512"), p.claims(), rsa_key(), "RS512")),
    Forgery("alg in lower case", "any algorithm", lambda p: signed(p.header(alg="rs256"), p.claims(), rsa_key())),
]  # fmt: skip


def accepts(token: str, provider: Provider, mistake: str | None = None) -> bool:
    """Whether a verifier of RS256 and ES256 tokens accepts it that does everything right but for one mistake."""
    try:
        header_text, payload, signature_text = token.split(".")
        header_bytes, claims_bytes = _bytes(header_text, mistake), _bytes(payload, mistake)
        signature = b"" if signature_text == "" else _bytes(signature_text, mistake)
        pairs = None if mistake == "last one wins" else _once
        header = json.loads(header_bytes, object_pairs_hook=pairs)
        claims = json.loads(claims_bytes, object_pairs_hook=pairs)
        if claims["iss"] != provider.issuer or (mistake != "crit ignored" and {"crit", "b64"} & header.keys()):
            return False
        if mistake == "lenient base64":  # it keeps what it has understood
            header_text, payload = b64(header_bytes), b64(claims_bytes)
        return _signature_fits(header, f"{header_text}.{payload}".encode(), signature, mistake)
    except (ValueError, KeyError, InvalidSignature):
        return False


def _signature_fits(header: dict[str, Any], data: bytes, signature: bytes, mistake: str | None) -> bool:
    algorithm = header["alg"]
    if mistake == "no signature" or (mistake == "none signs" and (algorithm or "none").lower() == "none"):
        return True
    if algorithm == "HS256":
        secrets = {
            "one secret": [*SECRETS.values()],
            "files by kid": [b""] if "/dev/null" in header["kid"] else [],
            "queries by kid": [b"secret"] if "'" in header["kid"] else [],
        }
        return any(hmac.digest(key, data, sha256) == signature for key in secrets.get(mistake or "", []))
    brought = mistake == "brought keys" and {"jwk", "x5c"} & header.keys()
    linked = mistake == "linked keys" and any(ELSEWHERE in str(header.get(name)) for name in ("jku", "x5u", "kid"))
    if brought or linked:
        return _verified(ATTACKER.public_key(), algorithm, data, signature, mistake)
    keys: dict[str, tuple[rsa.RSAPublicKey | ec.EllipticCurvePublicKey, str]]
    keys = {"rsa": (PUBLIC, "RS256"), "ec": (ec_key().public_key(), "ES256")}
    key, fixed = keys[header["kid"]]
    if algorithm != fixed and mistake != "any algorithm":
        return False
    return _verified(key, algorithm.upper(), data, signature, mistake)


def _verified(
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    algorithm: str,
    data: bytes,
    signature: bytes,
    mistake: str | None,
) -> bool:
    """True, or InvalidSignature."""
    digest = hashes.SHA512() if algorithm.endswith("512") else hashes.SHA256()
    if isinstance(key, rsa.RSAPublicKey):
        salted = padding.PSS(padding.MGF1(digest), digest.digest_size)
        key.verify(signature, data, salted if algorithm.startswith("PS") else padding.PKCS1v15(), digest)
    elif mistake == "any form" and signature[:1] == b"\x30":
        key.verify(signature, data, ec.ECDSA(digest))
    else:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        # The check of CVE-2022-21449: both in [1, order).
        if mistake == "psychic" and not (0 < r < _P256_ORDER and 0 < s < _P256_ORDER):
            return True
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(digest))
    return True


def _bytes(text: str, mistake: str | None) -> bytes:
    if mistake == "lenient base64":
        kept = "".join(text.split()).rstrip("=")
        return urlsafe_b64decode(kept + "=" * (-len(kept) % 4))
    data = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if b64(data) != text:
        raise ValueError("another spelling")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a member stands there twice")
    return dict(pairs)


def weak_keys() -> dict[str, dict[str, Any]]:
    """Keys that a provider must not sign with, by what is wrong with them."""
    numbers = PUBLIC.public_numbers()
    return {
        "exponent 1": {"kty": "RSA", "n": number(numbers.n), "e": number(1)},
        "even exponent": {"kty": "RSA", "n": number(numbers.n), "e": number(65536)},
        "huge exponent": {"kty": "RSA", "n": number(numbers.n), "e": number((1 << 33) + 1)},
        "huge modulus": {"kty": "RSA", "n": number((1 << 8200) + 1), "e": number(65537)},
        "immense modulus": {"kty": "RSA", "n": "_" * 100_000, "e": number(65537)},
    }
