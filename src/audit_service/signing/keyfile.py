"""The signing key's file: which keys sign, since when and until when. The only place where a seed is ever written.

    {"keys": [{"seed": "<base64>", "public": "<base64>", "created_at": "<time>", "retired_at": null}],
     "retired": [{"public": "<base64>", "created_at": "<time>", "retired_at": "<time>"}],
     "pending": null}

- `keys` sign, the oldest first: one, or two while the older is being succeeded. A `retired_at` in the future is when it stops.
- `pending`: `succeeded` or `revoked` while a change to the newest key is under way (`signing.rotation`).
- `retired` no longer do. Their seeds are destroyed; their public parts stay, because what they signed does.

The file is 0600 and refused when anybody else may read it. One key serves every log; its name, and so its key id, is the log's origin.
Neither `repr` nor an error holds a seed.
"""

import base64
import binascii
import json
import secrets
import stat
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from audit_service.core.entry import format_time, parse_time
from audit_service.core.vkey import KeyKind, Signer, VerifierKey
from audit_service.errors import AuditError
from audit_service.private_file import replace_private

SEED_BYTES = 32
Change: TypeAlias = Literal["succeeded", "revoked"]


class KeyFileError(AuditError):
    """The key file is missing, cannot be used as it is, or lies open to others."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs. `retired_at`: from then on it does not; None: no end is set."""

    public: bytes
    seed: bytes = field(repr=False)
    created_at: datetime
    retired_at: datetime | None = None

    def signer(self, origin: str) -> Signer:
        """The key under the name of a log."""
        return Signer.from_seed(origin, self.seed)

    def verifier(self, origin: str) -> VerifierKey:
        """Its public part under the name of a log."""
        return VerifierKey(origin, KeyKind.ED25519, self.public)


@dataclass(frozen=True, slots=True)
class RetiredKey:
    """A key that signed once: its public part, and when it began and stopped."""

    public: bytes
    created_at: datetime
    retired_at: datetime


@dataclass(frozen=True, slots=True)
class Keys:
    """What a key file holds. `signing` is never empty; oldest first."""

    signing: tuple[SigningKey, ...]
    retired: tuple[RetiredKey, ...] = ()
    pending: Change | None = None

    def signers(self, origin: str) -> list[Signer]:
        """Every key that signs, under the name of a log."""
        return [key.signer(origin) for key in self.signing]

    def verifiers(self, origin: str) -> list[VerifierKey]:
        """Every key that ever signed here, under the name of a log."""
        publics = (*(key.public for key in self.retired), *(key.public for key in self.signing))
        return [VerifierKey(origin, KeyKind.ED25519, public) for public in publics]

    def publics(self) -> frozenset[bytes]:
        """The public parts of every key that ever signed here, 32 bytes each."""
        return frozenset((*(key.public for key in self.retired), *(key.public for key in self.signing)))

    def without(self, ended: datetime, *publics: bytes) -> "Keys":
        """These keys retired as of `ended`, their seeds gone."""
        left = tuple(key for key in self.signing if key.public not in publics)
        gone = (RetiredKey(key.public, key.created_at, ended) for key in self.signing if key.public in publics)
        return replace(self, signing=left, retired=(*self.retired, *gone))

    def expired(self, now: datetime) -> list[bytes]:
        """The public parts of those whose time to sign is over."""
        return [key.public for key in self.signing if key.retired_at is not None and key.retired_at <= now]

    def with_end(self, public: bytes, end: datetime) -> "Keys":
        """One key with the time at which it stops."""
        signing = (replace(key, retired_at=end) if key.public == public else key for key in self.signing)
        return replace(self, signing=tuple(signing))

    def added(self, key: SigningKey) -> "Keys":
        """One key more that signs."""
        return replace(self, signing=(*self.signing, key))


def make_key(now: datetime) -> SigningKey:
    """A new key of fresh randomness."""
    seed = secrets.token_bytes(SEED_BYTES)
    public = Signer.from_seed("new", seed).verifier().public
    return SigningKey(public, seed, now)


def ensure_keys(path: Path) -> bool:
    """Make the file with a first key unless it is there; whether it was made. Raises KeyFileError."""
    if path.exists():
        return False
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_keys(path, Keys((make_key(datetime.now(UTC)),)))
    except OSError as error:
        raise KeyFileError(f"the key file {path} cannot be written ({error.strerror})") from None
    return True


def write_keys(path: Path, keys: Keys) -> None:
    """Replace the file; durable when this returns. Raises OSError."""
    document = {
        "keys": [
            {
                "seed": base64.b64encode(key.seed).decode(),
                "public": base64.b64encode(key.public).decode(),
                "created_at": format_time(key.created_at),
                "retired_at": None if key.retired_at is None else format_time(key.retired_at),
            }
            for key in keys.signing
        ],
        "retired": [
            {
                "public": base64.b64encode(key.public).decode(),
                "created_at": format_time(key.created_at),
                "retired_at": format_time(key.retired_at),
            }
            for key in keys.retired
        ],
        "pending": keys.pending,
    }
    replace_private(path, json.dumps(document, indent=1) + "\n")


def read_keys(path: Path) -> Keys:
    """The keys of the file. Raises KeyFileError, which says what is wrong and never what stands there."""
    try:
        found = path.stat()
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise KeyFileError(f"{path} may be read by others: chmod 600 it, and think about who may have read it")
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise KeyFileError(f"there is no key file {path}; it is made by the first start of the signer") from None
    except (OSError, UnicodeError) as error:
        raise KeyFileError(f"the key file {path} cannot be read ({type(error).__name__})") from None
    try:
        document = json.loads(text)
        keys = Keys(
            tuple(_signing_key(item) for item in document["keys"]),
            tuple(_retired_key(item) for item in document.get("retired", [])),
            _change(document.get("pending")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        # Not `from error`: a parser's error quotes its input.
        raise KeyFileError(f"the key file {path} is damaged: restore it from its copy") from None
    if not keys.signing:
        raise KeyFileError(f"the key file {path} holds no key that signs")
    return keys


def overlap_end(now: datetime, days: int) -> datetime:
    """When a succeeded key stops signing."""
    return now + timedelta(days=days)


def _change(value: object) -> Change | None:
    if value is not None and value not in get_args(Change):
        raise ValueError("no such change")
    return cast("Change | None", value)


def _signing_key(item: dict[str, Any]) -> SigningKey:
    seed, public = base64.b64decode(item["seed"], validate=True), base64.b64decode(item["public"], validate=True)
    if len(seed) != SEED_BYTES or Signer.from_seed("read", seed).verifier().public != public:
        raise ValueError("the seed is not that of the public key")
    retired_at = item["retired_at"]
    return SigningKey(
        public, seed, parse_time(item["created_at"]), None if retired_at is None else parse_time(retired_at)
    )


def _retired_key(item: dict[str, Any]) -> RetiredKey:
    public = base64.b64decode(item["public"], validate=True)
    if len(public) != SEED_BYTES:
        raise ValueError("a public key is 32 bytes")
    return RetiredKey(public, parse_time(item["created_at"]), parse_time(item["retired_at"]))
