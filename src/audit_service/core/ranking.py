"""What changed before it broke: events near a moment, the likeliest causes first.

The score of an event is 100 × closeness × kind × place × weight, three decimals kept, so between 0 and 100:

- *closeness*: halves with every half-life before the moment, a HALF_LIVES-th of the window (3 hours of 24). What came after the moment
  did not cause it, but clocks differ: it begins at a half and halves with every AFTER_HALF_LIFE.
- *kind*: what the verb does, from KINDS: a deletion whole, reads and logins next to nothing.
- *place*: 1 on the server itself, RELATED on something that the server's events name.
- *weight*: BASE, plus CHANGED when fields changed and up to FIELDS by how many (a half with the first, three quarters with three, …), plus
  FAILED when it failed, plus up to RARE by how rare the action is: divided by how often it happened on this server in the window.

Ties: the newest first. The same events, moment and window give the same order, whoever asks.

>>> from datetime import UTC, datetime
>>> around = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
>>> deletion = Candidate(7, around - timedelta(hours=3), "volume.deleted", "DELETE", None, 0, None)
>>> login = Candidate(8, around - timedelta(minutes=2), "user.login", "LOGIN", None, 0, None)
>>> ranked = rank([login, deletion], around, timedelta(hours=24), usual={"user.login": 40, "volume.deleted": 1})
>>> [(one.candidate.seq, one.score, one.why) for one in ranked]
[(7, 30.0, ('3 h before', 'a deletion', 'the only volume.deleted here in 24 h')), (8, 4.019, ('2 min before', 'a login'))]
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

HALF_LIVES = 8
AFTER_HALF_LIFE = timedelta(minutes=1)
AFTER = 0.5
RELATED = 0.6
BASE, CHANGED, FIELDS, FAILED, RARE = 0.4, 0.1, 0.15, 0.15, 0.2
# Verb → how much it tends to break, and what a person calls it.
KINDS: dict[str, tuple[float, str]] = {
    "DELETE": (1.0, "a deletion"),
    "RESTORE": (1.0, "a restore"),
    "UPDATE": (0.9, "an update"),
    "RESET": (0.9, "a reset"),
    "SUSPEND": (0.9, "a suspension"),
    "TRANSFER": (0.9, "a transfer"),
    "EXECUTE": (0.8, "a command"),
    "CREATE": (0.7, "a creation"),
    "RESUME": (0.7, "a resumption"),
    "OTHER": (0.5, ""),
    "LOGIN": (0.1, "a login"),
    "LOGOUT": (0.05, "a logout"),
    "READ": (0.05, "only a look"),
}
# How often an action may have happened to be called rare.
_RARE_COUNT = 3
# A kind below it is not worth a word about how rare it is.
_TELLING = 0.5


@dataclass(frozen=True, slots=True)
class Candidate:
    """What of an event is weighed. `changes`: how many fields changed. `related`: what it was done to when that is not the server itself,
    in words; else None."""

    seq: int
    occurred_at: datetime
    action: str | None
    verb: str | None
    outcome: str | None
    changes: int
    related: str | None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate with its score (0 to 100) and the reasons, for people."""

    candidate: Candidate
    score: float
    why: tuple[str, ...]


def rank(
    candidates: Iterable[Candidate], around: datetime, window: timedelta, *, usual: Mapping[str, int]
) -> list[Ranked]:
    """The candidates by score. `usual`: action → how often it happened on the server in the window."""
    ranked = [
        Ranked(candidate, _score(candidate, around, window, usual), _why(candidate, around, window, usual))
        for candidate in candidates
    ]
    return sorted(ranked, key=lambda one: (one.score, one.candidate.occurred_at, one.candidate.seq), reverse=True)


def _score(candidate: Candidate, around: datetime, window: timedelta, usual: Mapping[str, int]) -> float:
    place = 1.0 if candidate.related is None else RELATED
    weight = BASE + RARE / _times(candidate, usual)
    if candidate.changes:
        weight += CHANGED + FIELDS * (1 - 1 / (1 + candidate.changes))
    if candidate.outcome == "failure":
        weight += FAILED
    return round(100 * _closeness(around - candidate.occurred_at, window) * _kind(candidate)[0] * place * weight, 3)


def _closeness(before: timedelta, window: timedelta) -> float:
    """1 at the moment itself."""
    if before >= timedelta():
        return math.exp2(-HALF_LIVES * (before / window))
    return AFTER * math.exp2(before / AFTER_HALF_LIFE)


def _kind(candidate: Candidate) -> tuple[float, str]:
    return KINDS.get(candidate.verb or "OTHER", KINDS["OTHER"])


def _times(candidate: Candidate, usual: Mapping[str, int]) -> int:
    return max(1, usual.get(candidate.action or "", 0))


def _why(candidate: Candidate, around: datetime, window: timedelta, usual: Mapping[str, int]) -> tuple[str, ...]:
    kind, called = _kind(candidate)
    reasons = [_when(around - candidate.occurred_at), called]
    if candidate.outcome == "failure":
        reasons.append("failed")
    if candidate.changes:
        reasons.append(f"{candidate.changes} field{'s' if candidate.changes > 1 else ''} changed")
    if kind >= _TELLING:
        reasons.append(_rarity(candidate, window, usual))
    if candidate.related is not None:
        reasons.append(f"on {candidate.related}, which events of this server name")
    return tuple(reason for reason in reasons if reason)


def _rarity(candidate: Candidate, window: timedelta, usual: Mapping[str, int]) -> str:
    times, hours = usual.get(candidate.action or "", 0), window // timedelta(hours=1)
    if times == 1:
        return f"the only {candidate.action} here in {hours} h"
    return f"one of {times} {candidate.action} here in {hours} h" if 1 < times <= _RARE_COUNT else ""


def _when(before: timedelta) -> str:
    seconds = abs(before) // timedelta(seconds=1)
    if seconds < 1:
        return "at that moment"
    number, unit = next(
        (seconds // size, unit) for size, unit in ((3600, "h"), (60, "min"), (1, "s")) if seconds >= size
    )
    return f"{number} {unit} {'before' if before > timedelta() else 'after'}"
