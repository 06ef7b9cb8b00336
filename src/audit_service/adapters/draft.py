"""An event in the making, out of a record whose shape is somebody else's.

What fits a member of our event goes there. What does not (a name that is too long, an address that is none, a time without a
meaning) is kept in `metadata` with a line in `metadata.mapping_notes` saying so: an oddity must not lose the event. Nothing is ever
cut: half a secret would not be recognised any more. What is too large to keep at all is left out whole, and the note says so.

>>> from datetime import UTC, datetime
>>> draft = Draft("wings", "server:power.start", EventLimits(), datetime(2026, 11, 22, tzinfo=UTC))
>>> draft.put("actor.name", "Ana")
>>> draft.put_ip("unknown")
>>> draft.put_time(1795317179.25)
>>> draft.event()["occurred_at"], draft.event()["metadata"]["ip"]
('2026-11-22T03:12:59.250000Z', 'unknown')
"""

import ipaddress
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Final, cast

from audit_service.core.canonical import JSONValue
from audit_service.core.entry import JSONObject, format_time
from audit_service.core.event import (
    ACTION_PATTERN,
    EARLIEST,
    INTEGER_MAX,
    INTEGER_MIN,
    LATEST_AHEAD,
    NAME_CHARACTERS,
    EventLimits,
)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NOTES: Final = "mapping_notes"
# The members that are one text, and how many characters they hold (core/event.py).
TEXTS: Final[dict[str, int]] = {
    "id": 255,
    "server_id": 255,
    "category": 128,
    "reason": 16_384,
    "description": 16_384,
    "actor.type": 128,
    "actor.id": 255,
    "actor.name": 1024,
    "actor.email": 1024,
    "actor.role": 1024,
    "on_behalf_of.type": 128,
    "on_behalf_of.id": 255,
    "on_behalf_of.name": 1024,
    "on_behalf_of.email": 1024,
    "on_behalf_of.role": 1024,
    "target.type": 128,
    "target.id": 255,
    "target.name": 1024,
    "context.user_agent": 4096,
    "context.session_id": 4096,
    "context.request_id": 255,
    "context.traceparent": 512,
    "source.id": 255,
}
_ACTION = re.compile(ACTION_PATTERN)
_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:[.,](\d{1,9})\d*)?\s?([Zz]|UTC|[+-]\d{2}:?\d{2})?", re.ASCII
)
_NUMBER = re.compile(r"\d{1,20}(\.\d{1,20})?", re.ASCII)
# Below which an epoch number counts seconds, milliseconds, microseconds; from the last on, nanoseconds. Each is the year 5138.
_UNITS: Final = ((10**11, 10**6), (10**14, 10**3), (10**17, 1))
# A value in metadata stands this many levels below the event.
_LEVELS_ABOVE: Final = 2
PARSER_LEVELS: Final = 200  # the parser gives up there


class Draft:
    """One event in the making. `name` is the adapter's; `dated` says whether the sender gave a time of its own."""

    __slots__ = ("_event", "_limits", "_metadata", "_notes", "_received_at", "dated", "name")

    def __init__(self, name: str, action: JSONValue, limits: EventLimits, received_at: datetime) -> None:
        self.name = name
        self.dated = False
        self._event: JSONObject = {"action": f"{name}.event"}
        self._metadata: JSONObject = {}
        self._notes: list[JSONValue] = []
        self._limits = limits
        self._received_at = received_at
        if action is not None:
            self.put_action(action)

    def put_action(self, action: JSONValue) -> None:
        """The action. One that is not spelled like one becomes metadata: its text may hold anything, and an action is never redacted."""
        if not isinstance(action, str) or not _ACTION.fullmatch(action):
            self.keep("action", action)
            self.note(f"action is not 1 to 128 letters, digits and . _ - : /: kept in metadata, {self.name}.event used")
        elif not action.lower().startswith("audit."):
            self._event["action"] = action
        elif len(action) + len(self.name) < 128:
            self._event["action"] = f"{self.name}.{action}"  # what the service says about itself stays its own
        else:
            self.keep("action", action)

    def put(self, place: str, value: JSONValue) -> None:
        """A text of `TEXTS`; a whole number becomes its digits; null and empty text are absent. Else it is kept in metadata."""
        if value is None or value == "":
            return
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and len(value) <= TEXTS[place] and "\0" not in value:
            group, _, member = place.rpartition(".")
            if group:
                self.put_part(group, member, value)
            else:
                self._event[member] = value
        elif place == "context.session_id":
            self.note("context.session_id did not fit: left out")  # only its keyed hash may be stored
        else:
            self.keep(place.replace(".", "_"), value)
            self.note(f"{place} is not text of at most {TEXTS[place]} characters: kept in metadata")

    def put_ip(self, value: JSONValue) -> None:
        """context.ip; what is not an address is kept in metadata. Empty is absent."""
        if value is None or value == "":
            return
        try:
            address = ipaddress.ip_address(value) if isinstance(value, str) else None
        except ValueError:
            address = None
        if address is None or len(cast("str", value)) > 64:
            self.keep("ip", value)
            self.note("ip is not an address: kept in metadata")
        else:
            self.put_part("context", "ip", value)

    def put_time(self, value: JSONValue, name: str = "timestamp") -> None:
        """occurred_at from any of the spellings in use. Without a zone it is taken for UTC, and a note says so."""
        if value is None or value == "":
            return
        self.dated = True
        found, zoned = moment(value)
        if found is None or not EARLIEST <= found <= self._received_at + LATEST_AHEAD:
            self.keep(name, value)
            self.note(f"{name} is not a time the log takes: kept in metadata, the time of arrival used")
            return
        self._event["occurred_at"] = format_time(found)
        if not zoned:
            self.note(f"{name} had no zone: taken for UTC")

    def put_raw(self, member: str, value: JSONValue) -> None:
        """A member that is already as an event has it: rows, changes, a checked word."""
        self._event[member] = value

    def put_part(self, group: str, member: str, value: JSONValue) -> None:
        """A member of one of the event's objects, already as an event has it."""
        cast("JSONObject", self._event.setdefault(group, {}))[member] = value

    def has(self, member: str) -> bool:
        """Whether a member of the event is set."""
        return member in self._event

    def has_part(self, group: str, member: str) -> bool:
        """Whether a member of one of the event's objects is set."""
        parts = self._event.get(group)
        return isinstance(parts, dict) and member in parts

    def keep(self, name: str, value: JSONValue) -> None:
        """Into metadata; null is absent. A name that is taken gets its value in a list beside the first."""
        if value is None:
            return
        if len(name) > NAME_CHARACTERS or "\0" in name or name == NOTES:
            self.note("a member with an impossible name was left out")
            return
        kept = self._kept(value, self._limits.depth - _LEVELS_ABOVE)
        if name not in self._metadata:
            self._metadata[name] = kept
        elif self._metadata[name] != kept:
            self._metadata[name] = [self._metadata[name], kept]

    def note(self, text: str) -> None:
        """A line about the mapping, without any value of the sender's."""
        if text not in self._notes:
            self._notes.append(text)

    def event(self) -> JSONObject:
        """The event."""
        metadata = {**self._metadata, **({NOTES: list(self._notes)} if self._notes else {})}
        return {**self._event, **({"metadata": metadata} if metadata else {})}

    def _kept(self, value: JSONValue, levels: int) -> JSONValue:
        """The value as metadata can hold it: within the limits of an event, exactly or not at all."""
        if isinstance(value, str):
            return self._kept_text(value)
        if isinstance(value, dict | list):
            return self._kept_container(value, levels)
        if isinstance(value, float) and not isfinite(value):
            self.note("a number beyond a finite double was left out")
            return None
        if isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX:
            self.note("an integer of more than 64 bits became text")
            return self._kept_text(str(value))
        return value

    def _kept_container(self, value: "dict[str, JSONValue] | list[JSONValue]", levels: int) -> JSONValue:
        if levels <= 0:
            self.note("what was nested too deeply became JSON text")
            return self._kept_text(json.dumps(self._kept(value, PARSER_LEVELS), ensure_ascii=False))
        if isinstance(value, list):
            return [self._kept(item, levels - 1) for item in value]
        return {name: self._kept(item, levels - 1) for name, item in value.items() if self._is_possible_name(name)}

    def _kept_text(self, text: str) -> str:
        if len(text) > self._limits.string_characters:
            self.note("a text over the limit was left out")
            return f"[left out: {len(text)} characters]"
        if "\0" in text:
            self.note("the character NUL became \\u0000")
            return text.replace("\0", "\\u0000")
        return text

    def _is_possible_name(self, name: str) -> bool:
        if len(name) <= NAME_CHARACTERS and "\0" not in name:
            return True
        self.note("a member with an impossible name was left out")
        return False


def moment(value: JSONValue) -> tuple[datetime | None, bool]:
    """A time as senders spell it, and whether it named its zone; None for what is no time.

    RFC 3339, also with a space, a comma, `+0000`, or no zone at all (read as UTC); the Unix epoch in seconds, milli-, micro- or
    nanoseconds, as a number or as digits. What is finer than a microsecond is cut, as everywhere.
    """
    if isinstance(value, str) and (match := _TIME.fullmatch(value.strip())):
        date, time, fraction, zone = match.groups()
        offset = "+00:00" if zone in {None, "UTC"} else zone
        try:
            found = datetime.fromisoformat(f"{date}T{time}.{(fraction or '')[:6]:0<6}{offset.upper()}")
            return found.astimezone(UTC), zone is not None
        except (ValueError, OverflowError):
            return None, True
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None, True
    text = value if isinstance(value, str) else str(value)
    if not _NUMBER.fullmatch(text):
        return None, True
    try:
        number = Decimal(text)  # exact: a float of seconds has no microseconds to spare
        factor = next((Decimal(factor) for limit, factor in _UNITS if number < limit), Decimal("0.001"))
        return EPOCH + timedelta(microseconds=int(number * factor)), True
    except (InvalidOperation, OverflowError):
        return None, True
