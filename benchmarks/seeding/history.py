"""Two years of a panel's log, event by event: `History(seed, size).event(number)` is always the same event.

Events come in by calls of up to CALL_EVENTS, as a panel's courier delivers them; all of a call are recorded at one time. Within a day
and a week the rate follows people's hours. An event occurred before its call, one in a hundred up to three days before.

`NEEDLES` is what searches are measured with; how often each is in the log is part of the promise, and tested.
"""

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from random import Random
from uuid import UUID

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject
from benchmarks.seeding.actions import ACTIONS, RARE, REPLICATED, SECRET_MARK, SELF, Action
from benchmarks.seeding.cast import AUTOMATION, BRIDGE, Actor, Cast, Target, pick

# In the past of any machine, so that the log can be appended to: a head ahead of the clock refuses that.
START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 730
CALL_EVENTS = 8
# Between the last event of a call and its commit.
DELIVERY_SECONDS = 0.35
END = START + timedelta(days=DAYS, seconds=DELIVERY_SECONDS)

AUTOMATION_SHARE, BRIDGE_SHARE, WINDOW_SHARE = 0.40, 0.04, 0.2
FAILURE_SHARE, LATE_SHARE, REASON_SHARE = 0.02, 0.01, 0.08
LATE_SECONDS = 3 * 86_400.0

_HOUR_WEIGHTS = (3, 2, 2, 3, 3, 3, 4, 6, 9, 11, 12, 12, 10, 11, 12, 12, 11, 9, 8, 8, 8, 7, 5, 4)
_WEEKEND_FACTOR = 0.55
_PANELS = ("panel-eu", "panel-us", "billing", "licences")
_REASONS = (
    *("customer request", "customer request"),  # a needle: as likely as two others
    "planned maintenance",
    "abuse report",
    "kundens önskemål",
    "по заявке клиента",
    "定期保守",
)
_FAILURES = ("quota exceeded", "timed out", "permission denied", "node unreachable")
_NODES = ("fra1", "ams2", "nyc3", "sgp1")


@dataclass(frozen=True, slots=True)
class Needles:
    """What to look for, and what is known of it."""

    rare_fragment: str = "quetzal-7731"  # in RARE_FRAGMENT_EVENTS descriptions
    common_fragments: tuple[str, ...] = (
        "nightly",
        "@example.com",
        "customer request",
    )  # each in over 1 % of the entries
    never_meeting: tuple[str, str] = ("amber", "cobalt")  # each in over 10 %, in no entry both
    absent_fragment: str = "zephyr-0000"
    absent_actor: str = "u9999"
    busy_actor: str = AUTOMATION.id  # 40 % of the log
    retired_actor: str = BRIDGE.id  # 4 % of the older half, nothing after it; and so its action
    retired_action: str = REPLICATED.name
    rare_actions: tuple[tuple[str, int], ...] = tuple((action.name, count) for action, count in RARE)


NEEDLES = Needles()
RARE_FRAGMENT_EVENTS = 5


class History:
    """The events of a log of `size`: number 0 to size - 1, in the order in which they come in."""

    def __init__(self, seed: int, size: int) -> None:
        self.size = size
        self._seed = seed
        self._cast = Cast(seed)
        self._hours = list(accumulate(_hour_weights()))
        self._people_actions = list(accumulate(action.people for action in ACTIONS))
        self._automation_actions = list(accumulate(action.automation for action in ACTIONS))
        # Number → action of each event that is a rare one; spread evenly, each kind at an offset of its own, so that they do not meet.
        self.rare = {
            number: action for offset, (action, count) in enumerate(RARE) for number in _spread(count, size, offset)
        }
        self._marked = frozenset(_spread(RARE_FRAGMENT_EVENTS, size, len(RARE)))

    def event(self, number: int) -> JSONObject:
        """Event `number` as its panel sends it; the caller's own."""
        draw = Random(self._seed << 40 | number)  # noqa: S311 - made-up data, the same each time
        actor, action = self._actor_and_action(number, draw)
        target = actor.account if action.target_type == SELF else self._cast.target(action.target_type, draw.random())
        at_us = self._occurred_at_us(number, draw)
        event: JSONObject = {
            "id": _event_id(number, at_us, draw),
            "occurred_at": _time_text(at_us, number),
            "action": action.name,
            "actor": {**actor.members},
            "target": target.members(),
            "outcome": "success",
            "context": _context(actor, at_us, draw),
            **action.make(draw, target),
        }
        if target.server_id is not None:
            event["server_id"] = target.server_id
        self._add_text(event, number, actor, action, target, draw)
        self._add_rest(event, number, draw)
        return event

    def calls(self, start: int, end: int) -> Iterator[tuple[int, datetime]]:
        """(events, recorded_at) of each call of [start, end), which must begin with a call; the times never go backwards."""
        for first in range(start, end, CALL_EVENTS):
            after = min(first + CALL_EVENTS, end)
            at_us = self._moment_us(after / self.size) + round(DELIVERY_SECONDS * 1e6)
            yield after - first, START + timedelta(microseconds=at_us)

    def _moment_us(self, share: float) -> int:
        """Microseconds from START by which `share` (0 to 1) of the events have occurred."""
        wanted = share * self._hours[-1]
        hour = min(bisect(self._hours, wanted), len(self._hours) - 1)
        begins = self._hours[hour - 1] if hour else 0.0
        return int((hour + (wanted - begins) / (self._hours[hour] - begins)) * 3600e6)

    def _occurred_at_us(self, number: int, draw: Random) -> int:
        at_us = self._moment_us((number + draw.random()) / self.size)
        if draw.random() < LATE_SHARE:
            share = draw.random()
            at_us -= int(share * share * share * LATE_SECONDS * 1e6)
        return max(at_us, 0)

    def _actor_and_action(self, number: int, draw: Random) -> tuple[Actor, Action]:
        who, what = draw.random(), draw.random()
        if number in self.rare:
            return self._cast.person(what), self.rare[number]
        if who < AUTOMATION_SHARE:
            return AUTOMATION, _weighted(self._automation_actions, what)
        if who < AUTOMATION_SHARE + BRIDGE_SHARE and number < self.size // 2:
            return BRIDGE, REPLICATED
        return self._cast.person(draw.random()), _weighted(self._people_actions, what)

    def _add_text(
        self, event: JSONObject, number: int, actor: Actor, action: Action, target: Target, draw: Random
    ) -> None:
        if draw.random() < FAILURE_SHARE:
            event["outcome"], event["reason"] = "failure", pick(draw, _FAILURES)
        elif draw.random() < REASON_SHARE:
            event["reason"] = pick(draw, _REASONS)
        if not action.sentence and number not in self._marked:
            return
        days = 1 + int(draw.random() * 90)
        text = action.sentence.format(
            actor=actor.members["name"], target=target.name, days=days, node=pick(draw, _NODES)
        )
        window = draw.random()
        if window < WINDOW_SHARE:
            text += " in the amber window"
        elif window < 2 * WINDOW_SHARE:
            text += " in the cobalt window"
        elif window > 0.995:
            text += f", deployed from https://ci:{SECRET_MARK}-{number:x}@git.example.com/panel.git"
        if number in self._marked:
            text += f" (see {NEEDLES.rare_fragment})"
        event["description"] = text

    def _add_rest(self, event: JSONObject, number: int, draw: Random) -> None:
        chance = draw.random()
        if chance < 0.02:
            client = self._cast.person(draw.random())
            event["on_behalf_of"] = {"type": "client", "id": client.id, "name": client.members["name"]}
        elif chance < 0.07:
            related: list[JSONValue] = [self._cast.target("backup", draw.random()).members()]
            event["related"] = related
        if chance > 0.4:
            event["source"] = {"id": _PANELS[number % len(_PANELS)], "seq": number}


def _hour_weights() -> Iterator[float]:
    for day in range(DAYS):
        weekend = (START + timedelta(days=day)).weekday() >= 5
        for weight in _HOUR_WEIGHTS:
            yield weight * (_WEEKEND_FACTOR if weekend else 1.0)


def _spread(count: int, size: int, offset: int) -> Iterator[int]:
    return (min((2 * place + 1) * size // (2 * count) + offset, size - 1) for place in range(count))


def _weighted(bounds: list[float], share: float) -> Action:
    return ACTIONS[min(bisect(bounds, share * bounds[-1]), len(ACTIONS) - 1)]


def _event_id(number: int, at_us: int, draw: Random) -> str:
    """Some panels count, others make UUIDs of version 7."""
    if number % 5 < 3:
        return f"{_PANELS[number % len(_PANELS)]}:evt-{number}"
    milliseconds = (int(START.timestamp() * 1000) + at_us // 1000) << 80
    return str(UUID(int=milliseconds | 0x7 << 76 | draw.getrandbits(12) << 64 | 0x2 << 62 | draw.getrandbits(62)))


def _time_text(at_us: int, number: int) -> str:
    """As panels write times: most in UTC, some with an offset, some without a fraction."""
    at = START + timedelta(microseconds=at_us)
    if number % 10 == 0:
        return (at + timedelta(hours=2)).replace(tzinfo=None).isoformat() + "+02:00"
    return at.replace(tzinfo=None).isoformat(timespec="seconds" if number % 10 == 1 else "microseconds") + "Z"


def _context(actor: Actor, at_us: int, draw: Random) -> JSONObject:
    context: JSONObject = {
        "ip": pick(draw, actor.addresses),
        "user_agent": pick(draw, actor.agents),
        "request_id": f"req-{draw.getrandbits(64):016x}",
    }
    if actor.is_person:
        context["session_id"] = f"{actor.id}/{at_us // 86_400_000_000}"  # one a day; stored as a keyed hash
    if draw.random() < 0.1:
        context["traceparent"] = f"00-{draw.getrandbits(128):032x}-{draw.getrandbits(64):016x}-01"
    return context
