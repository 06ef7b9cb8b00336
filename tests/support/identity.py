"""A real OpenID provider on this host, which can be told to misbehave, and the tokens that it and others make.

Signing is done here by hand: a library would refuse to make most of what the tests need.
"""

import asyncio
import hmac
import json
import socket
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeAlias

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

AUDIENCE = "https://audit.example.com"
CONFIGURATION, KEYS = "/.well-known/openid-configuration", "/keys"
MAPPING: dict[str, Any] = {
    "tenant": {"claim": "org", "default": "default"},
    "scopes": {"claim": "roles", "map": {"reader": ["read"], "auditor": ["read", "export", "verify"], "root": ["admin"]}},
}  # fmt: skip
PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
JSON: TypeAlias = dict[str, Any]


def b64(data: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(data).decode().rstrip("=")


def number(value: int, size: int = 0) -> str:
    """A number as a key set writes it; of `size` bytes, or as few as hold it."""
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@cache
def rsa_key(name: str = "provider", bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key; the same for the same name."""
    del name
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(name: str = "provider", curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    """An EC key; the same for the same name."""
    del name
    return ec.generate_private_key(curve())


@cache
def ed_key(name: str = "provider") -> ed25519.Ed25519PrivateKey:
    """An Ed25519 key; the same for the same name, in every process: tests are named after tokens that it signed."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())


def jwk(key: PrivateKey, kid: str | None = None, **more: Any) -> JSON:
    """The public half as a JSON Web Key; a member given as None is left out."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        members: JSON = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        point, size = key.public_key().public_numbers(), (key.curve.key_size + 7) // 8
        name = {256: "P-256", 384: "P-384", 521: "P-521"}[key.curve.key_size]
        members = {"kty": "EC", "crv": name, "x": number(point.x, size), "y": number(point.y, size)}
    else:
        members = {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}
    return {name: value for name, value in ({**members, "kid": kid} | more).items() if value is not None}


def sign(algorithm: str, key: PrivateKey | bytes, data: bytes) -> bytes:
    """The signature, or the MAC under a shared secret."""
    digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}.get(
        algorithm[2:], hashes.SHA256()
    )
    if isinstance(key, bytes):
        return hmac.new(key, data, sha256).digest()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = (key.curve.key_size + 7) // 8
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if algorithm.startswith("PS"):
        return key.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    return key.sign(data, padding.PKCS1v15(), digest)


def encode(value: Any) -> bytes:
    """JSON; bytes as they are."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def signed(header: Any, payload: Any, key: PrivateKey | bytes, algorithm: str = "RS256") -> str:
    """A token with this header and payload, JSON or bytes, signed with `algorithm` whatever the header says."""
    data = f"{b64(encode(header))}.{b64(encode(payload))}"
    return f"{data}.{b64(sign(algorithm, key, data.encode()))}"


@dataclass(slots=True)
class Provider:
    """The provider: what it serves and how often it was asked. Change `keys` to rotate, `answers` and `open` to misbehave."""

    issuer: str
    keys: list[JSON]
    asked: Counter[str] = field(default_factory=Counter)
    answers: dict[str, tuple[int, Mapping[str, str], bytes]] = field(default_factory=dict)
    open: asyncio.Event = field(default_factory=asyncio.Event)  # nothing is answered before it is set
    endless: bool = False

    def claims(self, **more: Any) -> JSON:
        """Good claims of a reader, with others instead; one given as `...` is left out."""
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": AUDIENCE, "sub": "user-7", "iat": now, "exp": now + 300, "roles": ["auditor"],
        } | more  # fmt: skip
        return {name: value for name, value in claims.items() if value is not ...}

    def header(self, **more: Any) -> JSON:
        """A good header for the RSA key, with other members instead; one given as `...` is left out."""
        header = {"alg": "RS256", "kid": "rsa", "typ": "at+jwt"} | more
        return {name: value for name, value in header.items() if value is not ...}

    def token(self, **claims: Any) -> str:
        """A good token, but for the claims given."""
        return signed(self.header(), self.claims(**claims), rsa_key())

    async def __call__(self, scope: JSON, receive: Any, send: Callable[[JSON], Any]) -> None:
        """The ASGI application."""
        del receive
        path = scope["path"]
        self.asked[path] += 1
        await self.open.wait()
        documents = {
            CONFIGURATION: {"issuer": self.issuer, "jwks_uri": f"{self.issuer}{KEYS}"},
            KEYS: {"keys": self.keys},
        }
        found: tuple[int, Mapping[str, str], bytes]
        found = (200, {}, encode(documents[path])) if path in documents else (404, {}, b"")
        status, headers, body = self.answers.get(path, found)
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        while self.endless:
            await send({"type": "http.response.body", "body": b" " * 65536, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": body})


def good_keys() -> list[JSON]:
    """The public keys of a well-behaved provider: one of each kind."""
    return [
        jwk(rsa_key(), "rsa", use="sig", alg="RS256"),
        jwk(ec_key(), "ec", use="sig"),
        jwk(ed_key(), "ed", key_ops=["verify"]),
    ]


@asynccontextmanager
async def running_provider(certificate: Path | None = None) -> AsyncIterator[Provider]:
    """A provider that listens on a port of this host; over TLS with `certificate`, made by `write_certificate`."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    scheme = "http" if certificate is None else "https"
    provider = Provider(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", good_keys())
    provider.open.set()
    config = uvicorn.Config(
        provider, ws="none", lifespan="off", log_config=None, access_log=False, ssl_certfile=certificate
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(20):
            while not server.started:  # noqa: ASYNC110 - uvicorn offers no event for it
                await asyncio.sleep(0.01)
        yield provider
    finally:
        provider.endless = False
        provider.open.set()
        server.should_exit = True
        await serving
        listener.close()


def settings_for(provider: Provider, **more: Any) -> dict[str, Any]:
    """The settings of a service that accepts the provider's tokens."""
    return {"oidc_issuer": provider.issuer, "oidc_audience": AUDIENCE, "oidc_claims": MAPPING} | more


def write_certificate(path: Path) -> None:
    """A key and a certificate of its own for 127.0.0.1, as one PEM file."""
    key, now = ec_key("tls"), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(hours=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
