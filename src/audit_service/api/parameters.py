"""Query parameters of every endpoint that selects entries: strict, repeatable, negatable, the same everywhere (DESIGN 2.5).

Unknown, repeated single-value and malformed parameters are a 400 that names them, never a guess.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import cast, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from audit_service.core.pinned import pin
from audit_service.core.sight import Sight
from audit_service.core.terms import GRAM_CHARACTERS, search_words
from audit_service.core.timeline import Interval, first_moment
from audit_service.core.verb import VERBS
from audit_service.core.vkey import VerifierKey, parse_vkey
from audit_service.errors import (
    Fault,
    HiddenFieldError,
    InvalidQueryError,
    MalformedNoteError,
    NotFoundError,
    TrustInputError,
)
from audit_service.store.counts import FACETS
from audit_service.store.selection import CONDITIONS, Filter, FilterValue, Selection, Sort

NOT_SUFFIX = ".not"
TIMES = ("since", "until", "recorded_since", "recorded_until")
DATES = ("date_from", "date_to", "tz")
# The seq beside a time: where exactly, among events of the same moment, a range begins and ends. For lists, which have an order.
SEQS = ("since_seq", "until_seq")
PAGING = ("sort", "limit", "cursor", "count", "fold")
AROUND = ("around", "window")
WINDOW_HOURS_DEFAULT, WINDOW_HOURS_MAXIMUM = 24, 168
# What came shortly after a moment may be its cause: clocks differ.
AFTERMATH = timedelta(minutes=5)
VALUE_CHARACTERS = 1024
VALUES_LIMIT = 100
LIMIT_DEFAULT, LIMIT_MAXIMUM = 50, 500
SORTS: tuple[Sort, ...] = get_args(Sort)
INTERVALS: tuple[Interval, ...] = get_args(Interval)
_CHOICES: dict[str, Collection[str]] = {"verb": VERBS, "outcome": ("success", "failure", "unknown")}
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+ -]\d{2}:\d{2})", re.ASCII)
_NAME = re.compile(r"[A-Za-z_.\-\[\]]{1,24}")


_FIRST_TIME, _LAST_TIME = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

StoredForm = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Paging:
    """How a list is asked for."""

    sort: Sort
    limit: int
    cursor: str | None
    count: bool
    fold: bool


@dataclass(frozen=True, slots=True)
class Around:
    """The moment near which changes are looked for, and how far back."""

    at: datetime
    window: timedelta

    @property
    def since(self) -> datetime:
        """The beginning of the window, within the calendar."""
        return self.at - min(self.window, self.at - _FIRST_TIME)

    @property
    def until(self) -> datetime:
        """Its end, exclusive."""
        return self.at + min(AFTERMATH, _LAST_TIME - self.at)


class Query:
    """The parameters of a request, checked as a whole: `fail` collects faults, `finish` raises them."""

    def __init__(self, items: Sequence[tuple[str, str]], allowed: Collection[str]) -> None:
        self._values: dict[str, list[str]] = {}
        self._faults: list[Fault] = []
        for name, value in items:
            if name not in allowed and name.removesuffix(NOT_SUFFIX) not in CONDITIONS.keys() & set(allowed):
                # A name that cannot be a slip of a name of ours may be anything, also a secret: it is not repeated.
                self.fail(name if _NAME.fullmatch(name) else "", "is not a parameter of this endpoint")
            elif not is_askable(value):
                self.fail(name, f"must be text of at most {VALUE_CHARACTERS} characters without NUL")
            else:
                self._values.setdefault(name, []).append(value)

    def fail(self, name: str, detail: str) -> None:
        """Note a fault of a parameter, once, however many ask for it."""
        fault = Fault(detail, parameter=name)
        if fault not in self._faults:
            self._faults.append(fault)

    def has(self, name: str) -> bool:
        """Whether a parameter is given."""
        return name in self._values

    def many(self, name: str) -> list[str]:
        """The values of a repeatable parameter."""
        values = self._values.get(name, [])
        if len(values) > VALUES_LIMIT:
            self.fail(name, f"is given more than {VALUES_LIMIT} times")
        return values

    def one(self, name: str) -> str | None:
        """The value of a parameter that may stand once."""
        values = self._values.get(name, [])
        if len(values) > 1:
            self.fail(name, "is given more than once")
        return values[0] if values else None

    def finish(self) -> None:
        """Raise InvalidQueryError with every fault found."""
        if self._faults:
            names = ", ".join(sorted({fault.parameter or "" for fault in self._faults}))
            raise InvalidQueryError(f"these parameters are not valid: {names}", self._faults)


def is_askable(value: str) -> bool:
    """Whether a parameter may have this value."""
    # What was not UTF-8 after percent-decoding arrives as replacement characters or surrogates.
    is_text = "\ufffd" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
    return is_text and "\0" not in value and len(value) <= VALUE_CHARACTERS


def selection(query: Query, *, sight: Sight, stored_form: StoredForm, server_id: str | None = None) -> Selection:
    """The filters and time ranges of a query, within what may be seen. `server_id` comes from the path and stands beside those asked for.
    `stored_form(field, value)` is what a value asked for looks like in the log (hashed, where ingest hashes).

    Raises HiddenFieldError for a filter on a hidden field, NotFoundError for a server of a path that is not seen.
    """
    own_server = None if server_id is None else stored_form("server_id", server_id)
    _check_sight(query, sight, own_server)
    filters = []
    for field in CONDITIONS:
        for name, negated in ((field, False), (field + NOT_SUFFIX, True)):
            values = [_filter_value(query, name, field, value, stored_form) for value in query.many(name)]
            if values:
                filters.append(Filter(field, tuple(values), negated))
    since, until = instant(query, "since"), instant(query, "until")
    since_seq, until_seq = _seq(query, "since_seq", "since"), _seq(query, "until_seq", "until")
    first, after_last = _days(query)
    low, high = _later(since, first), _earlier(until, after_last)
    return Selection(
        filters=tuple(filters),
        sight=sight,
        server_id=own_server,
        since=low,
        until=high,
        # Beside another time than their own they would mean nothing.
        since_seq=since_seq if low == since else None,
        until_seq=until_seq if high == until else None,
        recorded_since=instant(query, "recorded_since"),
        recorded_until=instant(query, "recorded_until"),
    )


def _check_sight(query: Query, sight: Sight, server_id: str | None) -> None:
    if server_id is not None and not sight.admits_server(server_id):
        raise NotFoundError("no such server")
    # Who is behind a hidden name or e-mail is kept back where filters are matched: those fields also hold what is shown.
    hidden = () if sight.ips else ("ip", f"ip{NOT_SUFFIX}")
    asked = [name for name in hidden if query.has(name)]
    if asked:
        raise HiddenFieldError(asked)


def _filter_value(query: Query, name: str, field: str, value: str, stored_form: StoredForm) -> FilterValue:
    if not value:
        query.fail(name, "must not be empty")
    if field == "verb" and value == "INSERT":
        return "CREATE"
    if field in _CHOICES and value not in _CHOICES[field]:
        query.fail(name, f"must be one of {', '.join(_CHOICES[field])}")
    if field == "ip":
        return _network(query, name, value)
    if field == "q" and (not search_words(value) or min(map(len, search_words(value))) < GRAM_CHARACTERS):
        query.fail(name, f"each word must have at least {GRAM_CHARACTERS} characters; put a phrase in double quotes")
    return stored_form(field, value)


def _network(query: Query, name: str, value: str) -> IPv4Network | IPv6Network:
    """An address or CIDR; an IPv4-mapped one as IPv4, as it is indexed."""
    address, zone_sign, zone_id = value.partition("%")
    try:
        network = ip_network("" if zone_sign and "/" in zone_id else address, strict=False)
    except ValueError:
        query.fail(name, "must be an IP address or a network in CIDR notation")
        return IPv4Network("0.0.0.0/32")
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped is not None:
        return IPv4Network((int(network.network_address.ipv4_mapped), network.prefixlen - 96))
    return network


def instant(query: Query, name: str) -> datetime | None:
    """A parameter that is a moment, RFC 3339 with an offset."""
    text = query.one(name)
    if text is None:
        return None
    if _TIME.fullmatch(text):
        # A `+` that nobody percent-encoded arrives as a space; between time and offset it can mean nothing else.
        spelled = text.upper().replace(" ", "+")
        try:
            at = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", spelled)).astimezone(UTC)
        except (ValueError, OverflowError):
            at = None
        if at is not None:
            return at
    query.fail(name, "must be an RFC 3339 date-time with an offset, such as 2026-11-22T10:15:00Z")
    return None


def _seq(query: Query, name: str, time_name: str) -> int | None:
    if not query.has(name):
        return None
    if not query.has(time_name):
        query.fail(name, f"needs {time_name}")
    return whole_number(query, name, default=0)


def _days(query: Query) -> tuple[datetime | None, datetime | None]:
    """[first moment of date_from, first moment after date_to) in `tz`: whole days, the end inclusive."""
    in_zone = zone(query)
    first, last = _date(query, "date_from"), _date(query, "date_to")
    return (
        None if first is None else first_moment(first, in_zone),
        None if last is None else first_moment(last + timedelta(days=1), in_zone),
    )


# Files of the database's folder that are whatever the host is set to, or nothing.
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory"})


def zone(query: Query) -> tzinfo:
    """The time zone `tz`, UTC when not given."""
    name = query.one("tz")
    if name is not None:
        try:
            return ZoneInfo("" if name in _NO_ZONES else name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            query.fail("tz", "must be a time zone of the IANA database, such as Europe/Berlin")
    return UTC


def _date(query: Query, name: str) -> date | None:
    text = query.one(name)
    if text is None:
        return None
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            day = date.fromisoformat(text)
            if 1970 <= day.year <= 9000:
                return day
    except ValueError:
        pass
    query.fail(name, "must be a date such as 2026-11-22")
    return None


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((at for at in (one, other) if at is not None), default=None)


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((at for at in (one, other) if at is not None), default=None)


def paging(query: Query) -> Paging:
    """sort, limit, cursor and count. A limit over the maximum is the maximum; anything else malformed is a fault."""
    sort = query.one("sort")
    if sort is None:
        sort = SORTS[0]
    if sort not in SORTS:
        query.fail("sort", f"must be one of {', '.join(SORTS)}")
    at_most = limit(query)
    count = query.one("count")
    if count not in {None, "capped"}:
        query.fail("count", "must be capped")
    fold = query.one("fold")
    if fold not in {None, "burst"}:
        query.fail("fold", "must be burst")
    elif fold is not None and not sort.endswith("occurred_at"):
        query.fail("fold", "needs an order of time: sort=-occurred_at or sort=occurred_at")
    return Paging(cast("Sort", sort), at_most, query.one("cursor"), count is not None, fold is not None)


def limit(query: Query) -> int:
    """How many are asked for; more than the maximum is the maximum."""
    number = whole_number(query, "limit", default=LIMIT_DEFAULT)
    if number < 1:
        query.fail("limit", f"must be 1 to {LIMIT_MAXIMUM}")
    return min(number, LIMIT_MAXIMUM)


def facet_names(query: Query) -> list[str]:
    """The facets that `fields` names, each once: several to a parameter, several parameters, or both. All when not given."""
    names = [name for value in query.many("fields") for name in value.split(",")]
    if not FACETS.keys() >= set(names):
        query.fail("fields", f"must be among {', '.join(FACETS)}")
    return list(dict.fromkeys(names or FACETS))


def interval(query: Query) -> Interval | None:
    """How long a bucket of the timeline is, if it is said."""
    name = query.one("interval")
    if name is not None and name not in INTERVALS:
        query.fail("interval", f"must be one of {', '.join(INTERVALS)}")
    return cast("Interval | None", name)


def around(query: Query) -> Around | None:
    """The moment to rank changes around, if one is asked for. The answer is one ranked list, so nothing of a page but `limit` goes
    with it."""
    hours = whole_number(query, "window", default=WINDOW_HOURS_DEFAULT)
    if not 1 <= hours <= WINDOW_HOURS_MAXIMUM:
        query.fail("window", f"must be 1 to {WINDOW_HOURS_MAXIMUM} hours")
    if not query.has("around"):
        if query.has("window"):
            query.fail("window", "needs around")
        return None
    for name in ("sort", "cursor", "count", "fold"):
        if query.has(name):
            query.fail(name, "does not go with around")
    at = instant(query, "around")
    return None if at is None else Around(at, timedelta(hours=hours))


def whole_number(query: Query, name: str, *, default: int) -> int:
    """A parameter in plain decimal digits, below 2^63."""
    text = query.one(name)
    if text is None:
        return default
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    query.fail(name, "must be a whole number in decimal digits")
    return default


def source_number(query: Query, name: str) -> int | None:
    """A parameter that is a producer's number (source.seq), or one past the largest: 0 to 2^63. None when not given."""
    text = query.one(name)
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,19}", text) and int(text) <= 2**63:
        return int(text)
    query.fail(name, "must be a whole number in decimal digits, at most 2^63")
    return None


def required_number(query: Query, name: str) -> int:
    """A whole number that has to be given."""
    if not query.has(name):
        query.fail(name, "is required")
    return whole_number(query, name, default=0)


def checkpoints(query: Query) -> list[str]:
    """The signed notes of a verification."""
    notes = query.many("checkpoint")
    try:
        for text in notes:
            pin(text)
    except MalformedNoteError as error:
        query.fail("checkpoint", f"must be a signed checkpoint: {error}")
    return notes


def keys(query: Query) -> list[VerifierKey]:
    """The keys that may have signed them."""
    try:
        return [parse_vkey(text) for text in query.many("key")]
    except TrustInputError as error:
        query.fail("key", f"must be a vkey: {error}")
    return []


FILTERS = (*CONDITIONS, *TIMES, *DATES)


def filters_of(server_id: str | None) -> tuple[str, ...]:
    """The parameters that `selection` takes. Where the path names a server, none asks for another."""
    return FILTERS if server_id is None else tuple(name for name in FILTERS if name != "server_id")


def describe() -> list[dict[str, object]]:
    """The OpenAPI parameters that `selection` takes."""
    text: dict[str, object] = {"type": "string"}
    described: list[dict[str, object]] = []
    for name in CONDITIONS:
        schema: dict[str, object] = {
            "type": "array",
            "items": {**text, "enum": list(_CHOICES[name])} if name in _CHOICES else text,
        }
        for spelled, what in ((name, _WHAT[name]), (name + NOT_SUFFIX, f"None of these values of {name}")):
            described.append({"name": spelled, "in": "query", "required": False, "description": what, "schema": schema})
    described.extend(
        {"name": name, "in": "query", "required": False, "description": _WHAT[name], "schema": text}
        for name in (*TIMES, *DATES)
    )
    return described


_WHAT = {
    "actor": "Id, name or e-mail of who did it, case- and accent-insensitive; a prefix with `*` at the end",
    "actor_type": "Type of actor",
    "role": "Role of the actor at the time",
    "action": "Exact action, or a prefix with `*` at the end (`server.*`)",
    "verb": "Kind of action",
    "category": "Category",
    "target_type": "Type of what it was done to",
    "target_id": "Id of what it was done to",
    "server_id": "Server; `none` for global events",
    "ip": "Address or network (CIDR)",
    "outcome": "Outcome",
    "id": "Event id",
    "session": "Session id as the panel knows it; compared by its keyed hash",
    "request_id": "Request id",
    "changed": "Path of a changed field (JSON Pointer), with all below it; a prefix with `*` at the end",
    "old": "Value that a changed field had before, as JSON writes it, strings without quotes; with `changed`, that field's",
    "new": "Value that a changed field got",
    "q": "Search in names, e-mails, ids, description, reason and changed values: every word, or phrase in double quotes, of three or more "
    "characters has to occur, case- and accent-insensitive",
    "since": "occurred_at at or after (RFC 3339)",
    "until": "occurred_at before (RFC 3339)",
    "recorded_since": "recorded_at at or after (RFC 3339)",
    "recorded_until": "recorded_at before (RFC 3339)",
    "date_from": "First day, whole, in `tz`",
    "date_to": "Last day, whole (inclusive), in `tz`",
    "tz": "IANA time zone of days, and of the hours and months of a timeline; default UTC",
}
