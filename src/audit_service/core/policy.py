r"""Trust policies (C2SP tlog-policy): which logs and witnesses a verifier trusts, and how many witnesses it wants.

A file of lines; items are separated by spaces and tabs; a line that begins with `#`, or an empty one, says nothing:

    log <vkey> [<url>]
    witness <name> <vkey> [<url>]
    group <name> all|any|<k> <member>…
    quorum <name>|none

A log's key is of kind Ed25519 and named as its origin, a witness's is of kind cosignature. Names are those of
witnesses and groups, for use in this file only; one is defined above its use, once, and is a member at most once,
so that a witness counts in one way only. The same public key twice is an error. There is one quorum line.

A checkpoint satisfies the policy when one of the logs has signed it and the quorum is reached: a witness has
cosigned; a group reaches at least k of its members (`any`: 1, `all`: every one); `none` asks for nothing.

>>> witness = "witness.example.net/w1+63fbd762+BP0XJDhaoMdbZPt4zWAvodmR/ev3axPFjtcC6sg16fYY"
>>> policy = parse_policy(f"witness W1 {witness}\ngroup G any W1\nquorum G\n".encode())
>>> check_quorum(policy, [])
Traceback (most recent call last):
    ...
audit_service.errors.QuorumError: 0 of 1 witnesses cosigned, which is not the policy's quorum
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from audit_service.core.note import VerifiedSignature
from audit_service.core.vkey import KeyKind, VerifierKey, parse_vkey
from audit_service.errors import QuorumError, TrustInputError

__all__ = ["POLICY_LIMIT_BYTES", "Group", "Policy", "check_quorum", "parse_policy", "policy_of_key"]

POLICY_LIMIT_BYTES = 256 * 1024
_NO_QUORUM = "none"
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_THRESHOLD = re.compile(r"[1-9][0-9]{0,5}")


@dataclass(frozen=True, slots=True)
class Group:
    """A group is reached when at least `threshold` of its members, witnesses or earlier groups, are."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a verifier trusts. `quorum` names a witness or a group; None asks for no cosignature.

    `witnesses` and `groups` are by name; a group's members stand before it.
    """

    logs: tuple[VerifierKey, ...]
    witnesses: Mapping[str, VerifierKey] = field(default_factory=lambda: MappingProxyType({}))
    groups: Mapping[str, Group] = field(default_factory=lambda: MappingProxyType({}))
    quorum: str | None = None

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """Every known key, for `open_checkpoint`."""
        return (*self.logs, *self.witnesses.values())


def policy_of_key(key: VerifierKey) -> Policy:
    """The policy of who pins one log's key and asks no witness. Raises `TrustInputError` for a witness's key."""
    _require(key.kind is KeyKind.ED25519, "a log's key is of kind Ed25519", None)
    return Policy((key,))


def parse_policy(data: bytes) -> Policy:
    """The policy in a file. Raises `TrustInputError` with the line, also beyond `POLICY_LIMIT_BYTES`."""
    _require(len(data) <= POLICY_LIMIT_BYTES, f"a policy longer than {POLICY_LIMIT_BYTES} bytes", None)
    builder = _Builder()
    for number, raw in enumerate(data.split(b"\n"), start=1):
        _require(not _CONTROL.search(raw), "a control character", number)
        # Names are octets: what is not UTF-8 stays apart from everything that is.
        items = raw.decode("utf-8", "surrogateescape").replace("\t", " ").strip(" ")
        if items and not items.startswith("#"):
            builder.take([item for item in items.split(" ") if item], number)
    return builder.policy()


def check_quorum(policy: Policy, signatures: Iterable[VerifiedSignature]) -> None:
    """Raise `QuorumError` unless the verified signatures of a checkpoint reach the policy's quorum."""
    if policy.quorum is None:
        return
    signed_by = {one.key for one in signatures}
    reached = {name: key in signed_by for name, key in policy.witnesses.items()}
    cosigned = sum(reached.values())
    for name, group in policy.groups.items():
        reached[name] = sum(reached[member] for member in group.members) >= group.threshold
    if not reached[policy.quorum]:
        raise QuorumError(cosigned, len(policy.witnesses))


class _Builder:
    """The policy as far as it is read."""

    def __init__(self) -> None:
        self._logs: list[VerifierKey] = []
        self._witnesses: dict[str, VerifierKey] = {}
        self._groups: dict[str, Group] = {}
        self._quorums: list[str] = []
        self._public_keys: set[bytes] = set()
        self._members: set[str] = set()

    def take(self, items: list[str], line: int) -> None:
        """Read one line, split into its items."""
        match items:
            case ["log", vkey] | ["log", vkey, _]:
                self._logs.append(self._key(vkey, KeyKind.ED25519, line))
            case ["witness", name, vkey] | ["witness", name, vkey, _]:
                self._require_new(name, line)
                self._witnesses[name] = self._key(vkey, KeyKind.COSIGNATURE, line)
            case ["group", name, threshold, *members] if members:
                self._require_new(name, line)
                self._groups[name] = self._group(threshold, members, line)
            case ["quorum", name]:
                _require(not self._quorums, "a second quorum", line)
                _require(name == _NO_QUORUM or self._is_defined(name), "a quorum that is not defined above", line)
                self._quorums.append(name)
            case _:
                raise TrustInputError("not a log, witness, group or quorum", line)

    def policy(self) -> Policy:
        """The policy, once every line is read."""
        _require(bool(self._quorums), "a policy without a quorum line", None)
        name = self._quorums[0]
        return Policy(
            tuple(self._logs),
            MappingProxyType(self._witnesses),
            MappingProxyType(self._groups),
            None if name == _NO_QUORUM else name,
        )

    def _key(self, vkey: str, kind: KeyKind, line: int) -> VerifierKey:
        try:
            key = parse_vkey(vkey)
        except TrustInputError as error:
            raise TrustInputError(error.detail, line) from None
        _require(key.kind is kind, "a key of the wrong kind: a log signs with Ed25519, a witness cosigns", line)
        # Across logs and witnesses: a log that is its own witness would witness nothing.
        _require(key.public not in self._public_keys, "a public key that stands above already", line)
        self._public_keys.add(key.public)
        return key

    def _group(self, threshold: str, members: list[str], line: int) -> Group:
        for member in members:
            _require(self._is_defined(member), "a member that is not defined above", line)
            _require(member not in self._members, "a name that is a member already", line)
            self._members.add(member)
        counts = {"any": 1, "all": len(members)}
        _require(threshold in counts or bool(_THRESHOLD.fullmatch(threshold)), "a threshold that is no number", line)
        count = counts.get(threshold) or int(threshold)
        _require(count <= len(members), "a threshold above the number of members", line)
        return Group(count, tuple(members))

    def _is_defined(self, name: str) -> bool:
        return name in self._witnesses or name in self._groups

    def _require_new(self, name: str, line: int) -> None:
        _require(name != _NO_QUORUM and not self._is_defined(name), "a name that is taken", line)


def _require(holds: bool, detail: str, line: int | None) -> None:
    if not holds:
        raise TrustInputError(detail, line)
