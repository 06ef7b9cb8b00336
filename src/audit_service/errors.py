"""The error tree. It knows no HTTP and no SQL; `api/problems.py` gives each branch its status.

AuditError
├── InputError                     something the sender can mend; carries the places, never the values
│   ├── MalformedError             the bytes are not well-formed (broken JSON, bad UTF-8, duplicate keys)
│   ├── InvalidEventError          well-formed, but breaks a rule of the event
│   ├── BeyondLimitsError          asks for more than the credential has: an event elsewhere, a key or a token that may more
│   ├── InvalidQueryError          a query parameter is unknown, repeated, malformed or out of range
│   ├── TooLargeError              a limit on size or count is exceeded
│   └── UnsupportedMediaError      a media type or content encoding we do not take
├── IdempotencyConflictError       the id is already used by an event with other content
├── ConflictError                  what is there already forbids it: a name that is taken, two live keys, a token that has ended
├── CredentialError                the caller may not
│   ├── UnauthenticatedError       no usable credential
│   │   └── InvalidTokenError      a bearer JWT that proves nothing here; its reason is for the log alone
│   └── ForbiddenError             a good credential without the scope, or that sees too little
│       ├── HiddenFieldError       a parameter asks for what the credential is not shown; names it
│       └── UngrantedTokenError    a good JWT whose claims are mapped to nothing; its reason is for the log alone
├── NotFoundError                  no such thing, or not for this credential (never told apart)
│   └── GoneError                  its content was removed lawfully
├── UnavailableError               try again later: the database is away, or a queue is full
│   ├── MovedOnError               what was prepared does not fit the log any more; prepare it again
│   └── ProviderError              the identity provider's keys cannot be had; its reason is for the log alone
├── NotSignedError                 what is asked for is not covered by a signed checkpoint yet
├── HeldError                      a legal hold forbids it
├── CanonicalError                 a value outside the profile of RFC 8785 we use
└── IntegrityError                 stored bytes do not prove what they should
    ├── ClockError                 the log's last time is too far ahead of the database's clock
    ├── TreeDamagedError           the stored tree, entries or checkpoints do not agree; no proof is made of them
    ├── ProofError                 a proof is malformed or does not lead to the root
    │   ├── MalformedNoteError     a signed note, checkpoint or proof file is not well-formed; carries the line
    │   ├── TrustInputError        the verifier's own input, a key or a policy, is not well-formed; says nothing of the log
    │   └── SignatureError         the signatures do not show what they should
    │       ├── InvalidSignatureError  one by a known key does not fit the text
    │       ├── UnknownSignerError     none is by a key that would count
    │       └── QuorumError            too few of the policy's witnesses cosigned
    ├── ChainBrokenError           an entry does not follow from the one before it
    └── SigningRefusedError        a log is not what was signed before: nothing is signed
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One place that is wrong and why. `pointer` is a JSON Pointer (RFC 6901); neither holds a sent value.

    `parameter` is set instead of `pointer` when the place is a query parameter or a header.
    """

    detail: str
    pointer: str | None = None
    parameter: str | None = None


class AuditError(Exception):
    """The root of every error this service raises on purpose."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail


class InputError(AuditError):
    """Something the sender can mend."""

    def __init__(self, detail: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail)
        self.faults = tuple(faults)


class MalformedError(InputError):
    """The bytes are not well-formed."""


class InvalidEventError(InputError):
    """Well-formed JSON that breaks a rule of the event."""


class BeyondLimitsError(InputError):
    """What is asked for is more than the credential has: its pointers say what."""


class InvalidQueryError(InputError):
    """A query parameter is unknown, repeated, malformed or out of range."""


class TooLargeError(InputError):
    """A limit on size or count is exceeded."""


class UnsupportedMediaError(InputError):
    """A media type or content encoding we do not take."""


class IdempotencyConflictError(AuditError):
    """The id is already used by an event with other content."""


class ConflictError(AuditError):
    """What is there already forbids it. The text says what, and names nothing that was sent."""


class CredentialError(AuditError):
    """The caller may not."""


class UnauthenticatedError(CredentialError):
    """No usable credential."""


class InvalidTokenError(UnauthenticatedError):
    """A bearer JWT that proves nothing here. The sender gets one sentence for every `reason`, which never quotes the token."""

    def __init__(self, reason: str) -> None:
        super().__init__("the token is not valid")
        self.reason = reason


class ForbiddenError(CredentialError):
    """A good credential without the scope, or one that sees too little for what it asks."""


class HiddenFieldError(ForbiddenError):
    """Parameters ask for fields that are hidden from the credential. What matches them is not said: that would be showing them."""

    def __init__(self, parameters: Sequence[str]) -> None:
        super().__init__(f"these parameters ask for what is hidden from this credential: {', '.join(parameters)}")
        self.faults = tuple(Fault("is hidden from this credential", parameter=name) for name in parameters)


class UngrantedTokenError(ForbiddenError):
    """A good JWT whose claims are mapped to nothing. The sender gets one sentence for every `reason`, which never quotes the token."""

    def __init__(self, reason: str) -> None:
        super().__init__("the token grants nothing here")
        self.reason = reason


class NotFoundError(AuditError):
    """No such thing, or not for this credential."""


class GoneError(NotFoundError):
    """Its content was removed lawfully."""


class UnavailableError(AuditError):
    """Try again later; `retry_after_seconds` says when."""

    def __init__(self, detail: str, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class NotSignedError(AuditError):
    """No signed checkpoint covers what is asked for yet; `retry_after_seconds` says when to look again."""

    def __init__(self, detail: str, retry_after_seconds: int = 2) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class MovedOnError(UnavailableError):
    """What was prepared does not fit the log any more; prepare it again."""


class HeldError(AuditError):
    """A legal hold forbids it."""


class ProviderError(UnavailableError):
    """The identity provider's keys cannot be had: it does not answer, or what it answers is no key set. `reason` says which."""

    def __init__(self, reason: str, retry_after_seconds: int = 1) -> None:
        super().__init__("the identity provider's keys cannot be had", retry_after_seconds)
        self.reason = reason


class CanonicalError(AuditError, ValueError):
    """A value outside the profile of RFC 8785 we use (NaN, infinity, an integer over 64 bits, a lone surrogate)."""


class IntegrityError(AuditError):
    """Stored bytes do not prove what they should."""


class ClockError(IntegrityError):
    """The log's last time is over five minutes ahead of the database's clock."""


class TreeDamagedError(IntegrityError):
    """What is stored of the tree, the entries or the checkpoints does not agree, so no proof is made of it: verify the log."""


class ProofError(IntegrityError):
    """A proof is malformed or does not lead to the root."""


class MalformedNoteError(ProofError):
    """A signed note, a checkpoint or a proof file is not well-formed. `line` counts from 1; None when it is the whole."""

    def __init__(self, detail: str, line: int | None = None) -> None:
        super().__init__(_at_line(detail, line))
        self.line = line


class TrustInputError(ProofError):
    """A key or a policy, given by the verifier, is not well-formed: nothing was found out about the log."""

    def __init__(self, detail: str, line: int | None = None) -> None:
        super().__init__(_at_line(detail, line))
        self.line = line


class SignatureError(ProofError):
    """The signatures of a note do not show what they should."""


class InvalidSignatureError(SignatureError):
    """A signature by a known key does not fit the text. `line` counts the signature lines from 1."""

    def __init__(self, line: int) -> None:
        super().__init__(f"signature line {line} is by a known key and does not fit the text")
        self.line = line


class UnknownSignerError(SignatureError):
    """No signature is by a key that would count."""


class QuorumError(SignatureError):
    """Too few witnesses cosigned. `cosigned` of the policy's `witnesses` did."""

    def __init__(self, cosigned: int, witnesses: int) -> None:
        super().__init__(f"{cosigned} of {witnesses} witnesses cosigned, which is not the policy's quorum")
        self.cosigned = cosigned
        self.witnesses = witnesses


class ChainBrokenError(IntegrityError):
    """An entry does not follow from the one before it."""


class SigningRefusedError(IntegrityError):
    """A log is not what was signed before, or not what its head says: nothing is signed until it is. Names sizes and roots."""


def _at_line(detail: str, line: int | None) -> str:
    return detail if line is None else f"line {line}: {detail}"
