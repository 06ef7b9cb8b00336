"""The event as it is sent (DESIGN 2.4): shape, limits, and what the sender is told when it is wrong.

An event stays a plain dict of JSON values from the parser to the seal; the TypedDicts below are its schema, checked by
pydantic. Faults name a place and a rule, never a value: a rejected request may hold a secret.
"""

import ipaddress
import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal, NotRequired, cast

import jiter
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, WithJsonSchema, with_config
from typing_extensions import TypedDict

from audit_service.core.canonical import DEPTH_LIMIT, JSONValue
from audit_service.core.control import SOURCE_ID
from audit_service.core.entry import JSONObject, format_time
from audit_service.core.verb import Verb
from audit_service.errors import Fault, InvalidEventError, MalformedError

ACTION_PATTERN = r"^[A-Za-z0-9._:/-]{1,128}$"
PRINTABLE_PATTERN = r"^[^\x00-\x1f\x7f]*$"  # ids are part of paths and headers
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST_AHEAD = timedelta(hours=24)
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**64 - 1
FAULTS_LIMIT = 20
NAME_CHARACTERS = 1024  # of a member's name in rows, metadata and changes
_INEXACT = "must be an integer of at most 64 bits or a finite double; send a string"

_UTC_OFFSETS = frozenset(("Z", "z", "+00:00", "-00:00"))
_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt]((?:[01]\d|2[0-3]):\d{2}:\d{2})(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class EventLimits:
    """How large one event may be; over any of them the event is refused with 422."""

    depth: int = 32
    string_characters: int = 65_536
    keys: int = 5_000
    changes: int = 2_000


def _occurred_at(value: str) -> str:
    match = _TIME.fullmatch(value)
    if match is None:
        raise ValueError("must be an RFC 3339 date-time with an offset")
    date, time, fraction, offset = match.groups()
    # Cut to microseconds, never rounded: what is hashed must be what PostgreSQL can hold.
    local = f"{date}T{time}.{(fraction or '')[:6]:0<6}"
    try:
        at = datetime.fromisoformat(f"{local}{offset.upper()}")
        settled = f"{local}Z" if offset in _UTC_OFFSETS else format_time(at)
    except (ValueError, OverflowError):
        raise ValueError("must be an RFC 3339 date-time with an offset") from None
    if at < EARLIEST:
        raise ValueError("must not be before the year 2000")
    return settled


@lru_cache(maxsize=4096)  # people and servers have few addresses, and send many events
def _address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address") from None
    return value


def refuse_own_source(value: str) -> str:
    """The value, if it is not what the service calls itself. Raises ValueError."""
    if value.lower() == SOURCE_ID:
        raise ValueError(f"{SOURCE_ID} is the service itself")
    return value


def _reserved(value: str) -> str:
    if value.lower().startswith("audit."):
        raise ValueError("the prefix audit. is reserved")
    return value


Id = Annotated[
    str,
    Field(min_length=1, max_length=255, pattern=PRINTABLE_PATTERN),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1, "maxLength": 255}, {"type": "integer"}]}),
]
Name = Annotated[str, Field(max_length=1024)]
Kind = Annotated[str, Field(min_length=1, max_length=128)]
Row = dict[str, Any]
Sentence = Annotated[str, Field(max_length=16_384)]
UnsignedInteger = Annotated[int, Field(ge=0, lt=2**63)]

_CLOSED = ConfigDict(extra="forbid", strict=True)


@with_config(_CLOSED)
class Actor(TypedDict):
    """Who did it, as they were then: a snapshot, never joined later."""

    type: NotRequired[Kind | None]
    id: NotRequired[Id | None]
    name: NotRequired[Name | None]
    email: NotRequired[Name | None]
    role: NotRequired[Name | None]


@with_config(_CLOSED)
class Target(TypedDict):
    """What it was done to."""

    type: NotRequired[Kind | None]
    id: NotRequired[Id | None]
    name: NotRequired[Name | None]


@with_config(_CLOSED)
class Context(TypedDict):
    """From where; the panel's claim."""

    ip: NotRequired[Annotated[str, Field(max_length=64), AfterValidator(_address)] | None]
    user_agent: NotRequired[Annotated[str, Field(max_length=4096)] | None]
    session_id: NotRequired[Annotated[str, Field(min_length=1, max_length=4096)] | None]
    request_id: NotRequired[Id | None]
    traceparent: NotRequired[Annotated[str, Field(max_length=512)] | None]


@with_config(_CLOSED)
class Source(TypedDict):
    """The producer and its own count, so that an event never sent can be noticed."""

    id: NotRequired[Annotated[Id, AfterValidator(refuse_own_source)] | None]
    seq: NotRequired[UnsignedInteger | None]


@with_config(_CLOSED)
class Event(TypedDict):
    """One event as sent. Only `action` is required; null means absent, save inside rows."""

    id: NotRequired[Id | None]
    occurred_at: NotRequired[Annotated[str, Field(max_length=64), AfterValidator(_occurred_at)] | None]
    action: Annotated[str, Field(pattern=ACTION_PATTERN), AfterValidator(_reserved)]
    verb: NotRequired[Verb | None]
    category: NotRequired[Kind | None]
    actor: NotRequired[Actor | None]
    on_behalf_of: NotRequired[Actor | None]
    target: NotRequired[Target | None]
    related: NotRequired[Annotated[list[Target], Field(max_length=100)] | None]
    server_id: NotRequired[Id | None]
    outcome: NotRequired[Literal["success", "failure", "unknown"] | None]
    reason: NotRequired[Sentence | None]
    description: NotRequired[Sentence | None]
    context: NotRequired[Context | None]
    before: NotRequired[Row | None]
    after: NotRequired[Row | None]
    changes: NotRequired[list[dict[str, Any]] | None]
    partial: NotRequired[Literal["none", "after", "before", "both"] | None]
    metadata: NotRequired[Row | None]
    source: NotRequired[Source | None]


_adapter: TypeAdapter[Event] = TypeAdapter(Event)
_check_schema = _adapter.validator.validate_python
MEMBERS = frozenset(Event.__annotations__)
_ROWS = frozenset({"before", "after", "changes", "metadata"})
_OWN_MAPS = frozenset({"actor", "on_behalf_of", "target", "context", "source"})
_SENDERS_MAPS = frozenset({"before", "after", "metadata"})
_IDS = frozenset({"id", "server_id", "request_id"})


def parse_json(data: bytes) -> JSONValue:
    """One JSON document, RFC 8259 to the letter. Raises MalformedError: broken JSON, not UTF-8, a byte order mark,
    NaN or Infinity literals, duplicate keys. What JSON allows and we do not is found by `check_limits`."""
    try:
        # catch_duplicate_keys: every other parser keeps the last one silently, so two readers could see two events.
        return cast(
            "JSONValue",
            jiter.from_json(data, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys"),
        )
    except ValueError as error:
        message = str(error)
    if "recursion limit" in message:
        raise InvalidEventError("the event is nested too deeply", [Fault("is nested too deeply", "")])
    if "number out of range" in message:  # over 4,300 digits
        raise InvalidEventError("the event holds a number that cannot be kept exactly", [Fault(_INEXACT, "")])
    if "hex escape" in message or "surrogate" in message:
        _refuse_surrogates(data)
    raise MalformedError(_parse_detail(message, data))


def _refuse_surrogates(data: bytes) -> None:
    """An escaped lone surrogate is well-formed JSON that no UTF-8 can hold: say where, with the lenient standard parser."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    check_limits(value, EventLimits(depth=200, string_characters=sys.maxsize, keys=sys.maxsize))


def _parse_detail(message: str, data: bytes) -> str:
    """A sentence about broken JSON with its place; jiter's text names keys, which are the sender's."""
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return "the body must be UTF-8 without a byte order mark"
    place = re.search(r" at line \d+ column \d+$", message)
    where = place.group() if place else ""
    if "duplicate" in message.lower():
        return f"the JSON names a member twice{where}"
    return f"the body is not well-formed JSON{where}"


def check_limits(value: JSONValue, limits: EventLimits) -> bool:
    """Refuse what is JSON but cannot be kept exactly: NUL, lone surrogates, integers over 64 bits, numbers beyond a finite
    double, and whatever exceeds `limits`. Raises InvalidEventError with pointers.

    Whether the value is plain, which `canonical.plain_bytes` asks for: it holds no fraction.
    """
    plain = _fits(value, limits)
    if plain is None:
        _raise_faults(value, limits)
    return bool(plain)


def _fits(value: JSONValue, limits: EventLimits) -> bool | None:
    """None unless there is nothing to refuse, else whether it is plain. Level by level, without paths, and with all text judged at
    once: nearly every event passes, on the hot path."""
    level: list[JSONValue] = [value]
    texts: list[str] = []
    names: list[str] = []
    members = 0
    plain = limits.depth <= DEPTH_LIMIT // 2  # what is made of an event has a few more
    for depth in range(limits.depth + 1):
        below: list[JSONValue] = []
        for node in level:
            kind = type(node)
            if kind is str:
                texts.append(node)  # type: ignore[arg-type]
            elif kind is dict:
                names += node  # type: ignore[arg-type]
                below += node.values()  # type: ignore[union-attr]
            elif kind is list:
                below += node  # type: ignore[arg-type]
            elif kind is not bool and node is not None:
                if not _is_exact(node):
                    return None
                plain = plain and kind is int
                continue
            else:
                continue
            if depth == limits.depth and kind is not str:
                return None
        if not below:
            break
        members += len(below)
        level = below
    fits = (
        members <= limits.keys
        and _are_storable(texts, limits.string_characters)
        and _are_storable(names, NAME_CHARACTERS)
    )
    return plain if fits else None


def _are_storable(texts: list[str], characters: int) -> bool:
    """Whether each is of so many characters at most, and can be stored."""
    joined = "".join(texts)
    return (len(joined) <= characters or max(map(len, texts)) <= characters) and _is_storable(joined)


def _is_storable(text: str) -> bool:
    if "\0" in text:
        return False
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True


def _raise_faults(value: JSONValue, limits: EventLimits) -> None:
    """Look again, with paths, and say what is wrong where."""
    faults: list[Fault] = []
    keys = 0
    stack: list[tuple[JSONValue, tuple[str | int, ...]]] = [(value, ())]
    while stack and len(faults) < FAULTS_LIMIT:
        node, path = stack.pop()
        if type(node) is str:
            detail = _text_fault(node, limits.string_characters)
            if detail:
                faults.append(Fault(detail, pointer(path)))
        elif isinstance(node, dict | list):
            if len(path) >= limits.depth:
                faults.append(Fault(f"is nested deeper than {limits.depth} levels", pointer(path)))
                continue
            if isinstance(node, list):
                stack.extend((child, (*path, index)) for index, child in enumerate(node))
                keys += len(node)
                continue
            keys += len(node)
            for key, child in node.items():
                detail = _text_fault(key, NAME_CHARACTERS)
                if detail:
                    faults.append(Fault(f"a member's name {detail}", pointer(path)))
                else:
                    stack.append((child, (*path, key)))
        elif not _is_exact(node):
            faults.append(Fault(_INEXACT, pointer(path)))
    if keys > limits.keys:
        faults.append(Fault(f"holds more than {limits.keys} members and elements", ""))
    if faults:
        raise InvalidEventError("the event is over a limit, or holds a value that cannot be kept exactly", faults)


def _text_fault(text: str, characters: int) -> str | None:
    if "\0" in text:
        return "must not hold the character NUL"
    if len(text) > characters:
        return f"is longer than {characters} characters"
    return None if _is_storable(text) else "holds a lone surrogate"


def _is_exact(number: JSONValue) -> bool:
    if isinstance(number, float):
        return math.isfinite(number)
    return not isinstance(number, int) or INTEGER_MIN <= number <= INTEGER_MAX


def validate(value: JSONValue, *, now: datetime, limits: EventLimits) -> JSONObject:
    """The event with null members left out and its spellings settled (time in UTC, ids as text, INSERT → CREATE).

    `now` bounds `occurred_at`. Raises InvalidEventError with a pointer for each fault.
    """
    check_limits(value, limits)
    return settle(value, now=now, limits=limits)


def settle(value: JSONValue, *, now: datetime, limits: EventLimits) -> JSONObject:
    """`validate` for a value that `check_limits` has let through."""
    if not isinstance(value, dict):
        raise InvalidEventError("an event is a JSON object", [Fault("must be an object", "")])
    try:
        event = cast("JSONObject", _check_schema(value))
    except ValidationError:
        event = _check_respelled(value)
    event = {
        member: _without_nulls(part) if member not in _ROWS else part
        for member, part in event.items()
        if part is not None
    }
    _check_together(event, now, limits)
    return event


def _check_respelled(value: JSONObject) -> JSONObject:
    """An event that breaks the schema as it is, in the spelling we keep: senders write some things in two ways. Only here, so that
    events in our spelling do not pay for it. Raises InvalidEventError."""
    respelled = _respelled(value)
    if respelled.get("verb") == "INSERT":
        respelled["verb"] = "CREATE"
    try:
        return cast("JSONObject", _check_schema(respelled))
    except ValidationError as error:
        raise InvalidEventError("the event breaks its schema", faults_of(error)) from None


def _respelled(members: JSONObject) -> JSONObject:
    """A copy with ids as text and rows as objects. Panels send the same id as a number from one call and as text from the next; PHP
    writes an empty map as `[]`."""
    respelled = dict(members)
    for name, value in members.items():
        if name in _IDS and type(value) is int:
            respelled[name] = str(value)
        elif name in _SENDERS_MAPS and value == []:
            respelled[name] = {}
        elif name in _OWN_MAPS and isinstance(value, dict):
            respelled[name] = _respelled(value)
        elif name == "related" and isinstance(value, list):
            respelled[name] = [_respelled(item) if isinstance(item, dict) else item for item in value]
    return respelled


def _without_nulls(part: JSONValue) -> JSONValue:
    if isinstance(part, dict):
        return {key: value for key, value in part.items() if value is not None} if None in part.values() else part
    if isinstance(part, list):
        return [_without_nulls(item) for item in part]
    return part


def _check_together(event: JSONObject, now: datetime, limits: EventLimits) -> None:
    faults = []
    occurred_at = event.get("occurred_at")
    if isinstance(occurred_at, str) and datetime.fromisoformat(occurred_at) > now + LATEST_AHEAD:
        faults.append(Fault("must not be more than 24 hours ahead", "/occurred_at"))
    if "changes" in event and ("before" in event or "after" in event):
        faults.append(Fault("must not stand beside before or after", "/changes"))
    changes = event.get("changes")
    if isinstance(changes, list) and len(changes) > limits.changes:
        faults.append(Fault(f"holds more than {limits.changes} changes", "/changes"))
    if faults:
        raise InvalidEventError("the event breaks its schema", faults)


def faults_of(error: ValidationError) -> list[Fault]:
    """pydantic's findings without the values they were found in."""
    found = error.errors(include_url=False, include_context=True, include_input=False)
    return [Fault(_rule(item), pointer(item["loc"])) for item in found[:FAULTS_LIMIT]]


_PATTERN_RULES = {
    ACTION_PATTERN: "must be 1 to 128 letters, digits and . _ - : /",
    PRINTABLE_PATTERN: "must not hold control characters",
}
_RULES: dict[str, str | Callable[[dict[str, Any]], str]] = {
    "missing": "is required",
    "string_type": "must be a string",
    "dict_type": "must be an object",
    "list_type": "must be an array",
    "int_type": "must be an integer",
    "bool_type": "must be true or false",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": lambda context: _PATTERN_RULES[context["pattern"]],
    "string_too_long": lambda context: f"is longer than {context['max_length']} characters",
    "too_long": lambda context: f"holds more than {context['max_length']} items",
    "literal_error": lambda context: f"must be {context['expected']}",
    "greater_than_equal": "must not be negative",
    "less_than": "is too large",
    "value_error": lambda context: str(context["error"]),
}


# What first requests call a member, and where it belongs.
_BELONGS: dict[str, str] = {
    **dict.fromkeys(("old", "old_values", "previous"), "before"),
    **dict.fromkeys(("new", "new_values", "current"), "after"),
    **dict.fromkeys(("timestamp", "time", "created_at", "date"), "occurred_at"),
    **dict.fromkeys(("ip", "ip_address", "source_ip"), "context.ip"),
    **dict.fromkeys(("user", "user_id", "username"), "actor"),
    **dict.fromkeys(("message", "msg"), "description"),
    **dict.fromkeys(("event", "type"), "action"),
    **dict.fromkeys(("data", "properties", "extra", "details", "level", "fields"), "metadata"),
    "user_agent": "context.user_agent",
}


def _unknown_member(path: tuple[str | int, ...]) -> str:
    belongs = _BELONGS.get(str(path[0])) if len(path) == 1 else None
    return "is not a member of the event" + (f"; send it as {belongs}" if belongs else "")


def _rule(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return _unknown_member(item["loc"])
    rule = _RULES.get(item["type"], "is not what the schema asks for")
    return rule if isinstance(rule, str) else rule(item["ctx"])


def pointer(path: Iterable[str | int]) -> str:
    """A JSON Pointer (RFC 6901) for a path of names and indexes. Names are the sender's: redact them before they are shown."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
