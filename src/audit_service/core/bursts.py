"""Bursts: neighbouring events of a list, by the same actor and with the same action, told as one row (a mass edit).

Two neighbours in the order of time belong together when
- the same actor did both: of the same type, with the same id, or where there is none, the same name and e-mail; who is not known at all is
  not known to be the same;
- the action is the same;
- at most GAP lies between them.

So a burst is what stands together in the list that was asked for: no other event of that list lies between its first and its last.

>>> from datetime import UTC, datetime
>>> at = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
>>> acts = [Act(seq, at + timedelta(seconds=30 * seq), "label.added", "user", actor, None, None, "vm", str(seq))
...         for seq, actor in enumerate(["u1", "u1", "u2", "u1"])]
>>> [(burst.count, burst.first.seq, burst.last.seq) for burst in fold(acts)]
[(2, 0, 1), (1, 2, 2), (1, 3, 3)]
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

GAP = timedelta(seconds=60)


class Act(NamedTuple):
    """What of an event decides to which burst it belongs. None where the event says nothing."""

    seq: int
    occurred_at: datetime
    action: str | None
    actor_type: str | None
    actor_id: str | None
    actor_name: str | None
    actor_email: str | None
    target_type: str | None
    target_id: str | None


@dataclass(frozen=True, slots=True)
class Burst:
    """A row of a folded list: `first` and `last` in the list's order, whichever it is; a single event is both. `targets`: how many
    different ones (type and id) its events were done to. `more`: it was cut, and may go on behind `last`."""

    first: Act
    last: Act
    count: int
    targets: int
    more: bool = False

    @property
    def oldest(self) -> Act:
        """Its earliest event."""
        return min(self.first, self.last, key=_place)

    @property
    def newest(self) -> Act:
        """Its latest event."""
        return max(self.first, self.last, key=_place)


def _place(act: Act) -> tuple[datetime, int]:
    return act.occurred_at, act.seq


def belong_together(one: Act, other: Act) -> bool:
    """Whether two neighbours are of one burst."""
    actor = _identity(one)
    return (
        actor is not None
        and actor == _identity(other)
        and one.action is not None
        and one.action == other.action
        and abs(one.occurred_at - other.occurred_at) <= GAP
    )


def _identity(act: Act) -> tuple[str | None, ...] | None:
    if act.actor_id:
        return act.actor_type, act.actor_id
    if act.actor_name or act.actor_email:
        return act.actor_type, None, act.actor_name, act.actor_email
    return None


class Folder:
    """Folds a list that comes piece by piece, in the order of time or against it. Holds the burst that is still open, never its events."""

    def __init__(self) -> None:
        self._first: Act | None = None
        self._last: Act | None = None
        self._count = 0
        self._targets: set[tuple[str | None, str | None]] = set()

    def add(self, act: Act) -> Burst | None:
        """Take the next event. The burst before it, when the event does not belong to it."""
        ended = None
        if self._last is None or not belong_together(self._last, act):
            ended = self.end()
            self._first, self._count = act, 0
            self._targets.clear()
        self._last = act
        self._count += 1
        if act.target_type is not None or act.target_id is not None:
            self._targets.add((act.target_type, act.target_id))
        return ended

    def end(self, *, more: bool = False) -> Burst | None:
        """The burst that is open, as it stands; None before the first event. `more`: the list goes on, so the burst may as well."""
        if self._first is None or self._last is None:
            return None
        return Burst(self._first, self._last, self._count, len(self._targets), more)


def fold(acts: Iterable[Act]) -> Iterator[Burst]:
    """The bursts of a whole list, in its order. Every event is in exactly one."""
    folder = Folder()
    for act in acts:
        ended = folder.add(act)
        if ended is not None:
            yield ended
    last = folder.end()
    if last is not None:
        yield last
