"""What an attack is, and what the threat matrix says of it.

Those who look, each with what it knows:

    chain        a verification of the stored log, and nothing from outside
    checkpoint   the same, with the last checkpoint of the signer's folder, which lies outside the database, and its public key
    elsewhere    the same, with every checkpoint as others keep it: a customer, a ticket, a witness
    signer       the signer, when it comes to sign the next time
    bundle       a stranger with a bundle of evidence, the offline verifier and the public key
    sources      who asks which numbers of a producer are missing
    receipt      a panel that kept the receipt of its last event, and looks whether the log has that entry
    archive      who asks the operator for the file that the last `prune` entry names by its SHA-256

What they find are kinds of breaks of the report, checks of the offline verifier, or one of the words below.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

from audit_service.core.vkey import VerifierKey
from audit_service.drill.scratch import Scratch

Observer: TypeAlias = Literal["chain", "checkpoint", "elsewhere", "signer", "bundle", "sources", "receipt", "archive"]
# The signer does not sign, or no evidence is given out.
REFUSED = "refused"
# A verification, online or offline, that does not end with good: it says what it could not check.
INCOMPLETE = "incomplete"
# The tenant a checkpoint is of is not there any more.
NO_LOG = "no such log"
# Numbers of a producer that no event has.
HOLE = "hole"
# The log has another entry, or none, where a receipt says that there is one.
NOT_THERE = "not there"
# Nobody has the archive that a `prune` entry names.
NO_ARCHIVE = "no archive"

Kinds: TypeAlias = frozenset[str]


def kinds(*names: str) -> Kinds:
    """What is to be found; nothing at all when no name is given."""
    return frozenset(names)


@dataclass(frozen=True, slots=True)
class Committed:
    """What came of an attack. `seq`: the first place a verification of the chain has to name, None where that is not asked;
    `note`, `keys`: what the observer `checkpoint` is given in place of the signer's last note and the drill's key; `copies`: what
    `elsewhere` has; `bundle`: a file in place of one made from the log."""

    seq: int | None = None
    note: str | None = None
    keys: Sequence[VerifierKey] | None = None
    copies: Sequence[str] | None = None
    bundle: bytes | None = None


Commit: TypeAlias = Callable[[Scratch], Awaitable[Committed]]


@dataclass(frozen=True, slots=True)
class Case:
    """An attack, or its lawful twin. `threat`: the row of the matrix; `expected`: who looks → what it must find at least, and for an
    empty set, that it finds nothing."""

    name: str
    threat: str
    commit: Commit
    expected: Mapping[Observer, Kinds] = field(default_factory=dict)
    lawful: bool = False


def found_by_chain(name: str, threat: str, commit: Commit, *found: str, **others: Kinds) -> Case:
    """An attack that the chain by itself shows, and so does a verification with a checkpoint."""
    return _case(name, threat, commit, {"chain": kinds(*found), "checkpoint": kinds(*found)}, others)


def found_outside(name: str, threat: str, commit: Commit, *found: str, **others: Kinds) -> Case:
    """An attack that only a checkpoint outside the database shows; and then the signer refuses, too."""
    expected: dict[Observer, Kinds] = {"chain": kinds(), "checkpoint": kinds(*found), "signer": kinds(REFUSED)}
    return _case(name, threat, commit, expected, others)


def not_found(name: str, threat: str, commit: Commit, **others: Kinds) -> Case:
    """What the matrix says stays: nobody named here finds it."""
    return _case(name, threat, commit, {"chain": kinds(), "checkpoint": kinds()}, others)


def lawful(name: str, threat: str, commit: Commit, **others: Kinds) -> Case:
    """A twin: nobody may find anything, the signer goes on, and the evidence is good."""
    nothing = kinds()
    expected: dict[Observer, Kinds] = {"chain": nothing, "checkpoint": nothing, "signer": nothing, "bundle": nothing}
    return _case(name, threat, commit, expected, others, lawful=True)


def _case(
    name: str,
    threat: str,
    commit: Commit,
    expected: dict[Observer, Kinds],
    others: Mapping[str, Kinds],
    *,
    lawful: bool = False,
) -> Case:
    asked = cast("Mapping[Observer, Kinds]", others)
    return Case(name, threat, commit, {**expected, **asked}, lawful)
