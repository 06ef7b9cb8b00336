r"""Which keys may have signed a log's checkpoints: those the asker pinned, and those that follow from them by succession.

A `signer` entry (`succeeded`, `added`, `revoked`) carries two signatures, by the old and by the new key, over

    audit-service/succession/v1\n<origin>\n<old>\n<new>\n<from_size>\n

with keys written `<key id>+<base64(0x01 || public key)>`: a vkey without its name. Who trusts the old key then trusts the new one; and who
trusts the new one trusts the old one up to `from_size`, behind which every lawful checkpoint is signed by the new one. A revoked key,
which may be in anybody's hands, counts up to the size it was revoked at, and so does every key that is trusted only through
it: a thief could appoint one of theirs. The entry that revokes it appoints no successor.
A `prune` entry repeats what the `signer` entries before it said, because those below its cut go.
A key is named as the origin, which has the epoch in it; so what is trusted is the public key, under whatever name.

The installation's own keys may be trusted beside the pinned ones. They say less: whoever controls the installation controls them. So it is
noted whether anything was believed on their word alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit_service.core.checkpoint import OpenedCheckpoint, open_checkpoint, parse_checkpoint
from audit_service.core.entry import JSONObject
from audit_service.core.note import Note
from audit_service.core.strict_text import COUNT_LIMIT, decode_base64
from audit_service.core.vkey import KeyKind, VerifierKey
from audit_service.errors import MalformedError, MalformedNoteError, SignatureError


@dataclass(slots=True)
class Trust:
    """The public keys that are trusted to sign for one log, whatever its epoch: pinned `keys`, and the installation's `own`."""

    keys: frozenset[bytes]
    own: frozenset[bytes] = frozenset()
    # Whether something was opened that no pinned key had signed.
    leaned_on_own: bool = field(init=False, default=False)
    _revoked_at: dict[bytes, int] = field(init=False, default_factory=dict)
    # Whoever trusts the first trusts the second, up to a size.
    _follows: list[tuple[bytes, bytes, int]] = field(init=False, default_factory=list)
    # The size up to which each key counts that is trusted by the pinned ones, and by the own ones.
    _pinned: dict[bytes, int] = field(init=False, default_factory=dict)
    _own: dict[bytes, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._extend()

    @classmethod
    def in_keys(cls, keys: Iterable[VerifierKey], own: Iterable[bytes] = ()) -> "Trust":
        """Trust in pinned keys, and in the installation's `own` public keys, 32 bytes each. Witnesses' keys say nothing about the log's own
        signature."""
        return cls(frozenset(key.public for key in keys if key.kind is KeyKind.ED25519), frozenset(own))

    def __bool__(self) -> bool:
        """Whether any key is trusted."""
        return bool(self.keys or self.own)

    def add(self, body: JSONObject, origin: str) -> None:
        """A `signer` entry of the log. Raises MalformedError for one whose signatures are not by its two keys."""
        details: Any = body.get("details")
        try:
            old, new = _public_key(details["old"]), _public_key(details["new"])
            lines = ("audit-service/succession/v1", origin, details["old"], details["new"], details["from_size"])
            statement = "".join(f"{line}\n" for line in lines).encode()
            for key, signature in zip((old, new), details["succession"], strict=True):
                Ed25519PublicKey.from_public_bytes(key).verify(decode_base64(signature), statement)
            from_size = int(details["from_size"])
            if details["event"] == "revoked":
                self._revoked_at[old] = min(from_size, self._revoked_at.get(old, from_size))
            else:
                self._follows.append((old, new, COUNT_LIMIT))
        except (KeyError, TypeError, ValueError, AttributeError, MalformedNoteError, InvalidSignature):
            raise MalformedError("the signer entry is not signed by its two keys") from None
        self._follows.append((new, old, from_size))
        self._extend()

    def add_kept(self, body: JSONObject, origin: Callable[[int], str]) -> None:
        """What a `prune` entry keeps of the `signer` entries before it. `origin`: that of an epoch. Raises MalformedError."""
        details: Any = body.get("details")
        try:
            kept = [({"details": said}, origin(said["epoch"])) for said in details.get("successions", ())]
        except (KeyError, TypeError, AttributeError):
            raise MalformedError("the successions in the prune entry are none") from None
        for said, of in kept:
            self.add(said, of)

    def open(self, note: Note) -> OpenedCheckpoint:
        """A checkpoint that a trusted key has signed under its origin. Raises MalformedNoteError, UnknownSignerError,
        InvalidSignatureError. Whether the origin is this log's, the caller knows."""
        checkpoint = parse_checkpoint(note.text)
        keys = {
            key for limits in (self._pinned, self._own) for key, limit in limits.items() if checkpoint.size <= limit
        }
        opened = open_checkpoint(note, [VerifierKey(checkpoint.origin, KeyKind.ED25519, key) for key in sorted(keys)])
        self.leaned_on_own |= not self.is_pinned(opened)
        return opened

    def is_ended(self, note: Note) -> bool:
        """Whether a key has signed a checkpoint under its origin whose word ended before: revoked, trusted only through one that was, or
        only through its successor. For a note that `open` does not open."""
        checkpoint = parse_checkpoint(note.text)
        known = sorted(self._pinned.keys() | self._own.keys())
        try:
            open_checkpoint(note, [VerifierKey(checkpoint.origin, KeyKind.ED25519, key) for key in known])
        except SignatureError:
            return False
        return True

    def is_pinned(self, opened: OpenedCheckpoint) -> bool:
        """Whether a pinned key, or one that follows from it, has signed: not only an own one."""
        size = opened.checkpoint.size
        return any(size <= self._pinned.get(one.key.public, -1) for one in opened.signatures)

    def _extend(self) -> None:
        """Anew, because a revocation lowers limits."""
        self._pinned, self._own = self._limits(self.keys), self._limits(self.own)

    def _limits(self, keys: Iterable[bytes]) -> dict[bytes, int]:
        """What follows from some keys. A key that is reached in several ways counts as far as the best of them goes."""
        limits = {key: self._revoked_at.get(key, COUNT_LIMIT) for key in keys}
        known: dict[bytes, int] = {}
        while known != limits:
            known = dict(limits)
            for first, second, up_to in self._follows:
                if first in limits:
                    limit = min(limits[first], up_to, self._revoked_at.get(second, COUNT_LIMIT))
                    limits[second] = max(limit, limits.get(second, limit))
        return limits


def _public_key(text: str) -> bytes:
    key_id, _, encoded = text.partition("+")
    data = decode_base64(encoded)
    if len(key_id) != 8 or len(data) != 33 or data[0] != KeyKind.ED25519:
        raise ValueError
    return data[1:]
