r"""Terms: what the search index knows of an event, and what a filter asks it for.

The index is an inverted one, kept by segments of SEGMENT_EVENTS consecutive entries: for each term the positions, within the segment, of
the entries that have it. A term is a field and a value. What an event has:

- *named* fields (`NAMED`): the value of a column as it is. The index answers exactly.
- `actor`: the folded id, name and e-mail; `path`: the path of each change; `ip`: the address as 32 hex digits, so that a network is a
  range.
- `session`, `request_id`, `target_id`: nearly every event has another, so a row for each would be many. Two hashes into BUCKETS each
  instead: about SEGMENT_EVENTS / BUCKETS² entries of a segment share both by chance.
- `gram`: every three letters in a row of the search text, which is closed by a line break at both ends; so a line of one or two letters
  has grams as well.
- `quarter`: when it occurred, for counts over time: every zone of the world is whole quarters of an hour from UTC.
- `own.` and a named field or `quarter`: the same once more of the service's entries about itself, so that whoever does not see those is
  told counts without them.

Values are cut to VALUE_CHARACTERS, because a key of the index has to fit into a third of a database page, while a path or a folded name
may have tens of thousands.

Whoever asks the index gets candidates: never too few, sometimes too many. What is exact says so; the rest has to be looked at.

>>> sorted(grams("ana"))
['\nan', 'ana', 'na\n']
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple, Protocol

from audit_service.core.folding import fold
from audit_service.core.sight import OWN_PREFIX

SEGMENT_EVENTS = 16_384
BUCKETS = 1024
GRAM_CHARACTERS = 3
VALUE_CHARACTERS = 256
# More grams of a word hardly narrow the choice, and each is a look into every segment.
_GRAMS_LIMIT = 8

# Fields with a value per entry that the index knows exactly → the column of the entry.
NAMED = {
    "actor_id": "actor_id", "actor_type": "actor_type", "role": "actor_role", "action": "action", "verb": "verb",
    "category": "category", "target_type": "target_type", "server_id": "server_id", "outcome": "outcome",
}  # fmt: skip
# A global event has no server: this value stands for none, which no server can have.
NO_SERVER = ""
# What stands before the name of a field whose values are counted of the service's own entries alone.
OWN = "own."
HASHED = ("session", "request_id", "target_id")
# Values of changes that are no lines of the search text: they have no letters to look for.
UNSEARCHED = frozenset({"true", "false", "null"})
_WORD = re.compile(r'"([^"]*)"|(\S+)')


class Indexed(Protocol):
    """The columns of an entry that terms are made of."""

    occurred_at: datetime | None
    actor_id: str | None
    actor_type: str | None
    actor_role: str | None
    actor_keys: list[str] | None
    action: str | None
    verb: str | None
    category: str | None
    outcome: str | None
    target_type: str | None
    target_id: str | None
    server_id: str | None
    ip: object
    session: str | None
    request_id: str | None
    paths: list[str] | None
    search: str | None


class Term(NamedTuple):
    """What to look for: the values of a field with low <= value < high, in the order of code points. Made by one of the class methods,
    so that it finds values that were cut as well."""

    field: str
    low: str
    high: str

    @classmethod
    def between(cls, field: str, low: str, high: str) -> "Term":
        """Every value with low <= value < high."""
        return cls(field, cut(low), high if len(high) <= VALUE_CHARACTERS else cut(high) + "\x01")

    @classmethod
    def of(cls, field: str, value: str) -> "Term":
        """This value alone: no text lies between it and itself with the smallest character behind it (NUL is never stored)."""
        return cls.between(field, value, value + "\x01")

    @classmethod
    def beginning(cls, field: str, prefix: str) -> "Term":
        """Every value that begins so."""
        return cls.between(field, prefix, after_prefix(prefix))

    @property
    def exact(self) -> bool:
        """Whether no value that was cut can be here by mistake."""
        return len(self.high) <= VALUE_CHARACTERS


def cut(value: str) -> str:
    """The part of a value that the index keeps. Order stays: a <= b gives cut(a) <= cut(b)."""
    return value[:VALUE_CHARACTERS]


def after_prefix(prefix: str) -> str:
    """The end of the range of texts that begin with `prefix`, in the order of code points: its last character raised by one. Behind
    the highest character there is none; no text is believed to begin with so many of it."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return "\U0010ffff" * (len(prefix) + VALUE_CHARACTERS)
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # no surrogates in UTF-8


def entry_terms(entry: Indexed) -> Iterator[tuple[str, str]]:
    """The terms of an entry, (field, value), some of them more than once. None for one whose body was dropped. A damaged row has the terms
    of what can be read in it."""
    if entry.occurred_at is None:
        return
    for field, text in _counted_terms(entry, entry.occurred_at):
        yield field, text
        if entry.action is not None and entry.action.startswith(OWN_PREFIX):
            yield OWN + field, text
    for field in HASHED:
        value = getattr(entry, field)
        if value is not None:
            yield from ((field, bucket) for bucket in buckets(value))
    for field, values in (("actor", entry.actor_keys), ("path", entry.paths)):
        # In a damaged row there may be nulls and arrays among them.
        yield from ((field, cut(text)) for text in values or () if isinstance(text, str))
    if entry.ip is not None:
        yield "ip", address_digits(entry.ip)
    for gram in grams(entry.search) if entry.search else ():
        yield "gram", gram


def _counted_terms(entry: Indexed, occurred_at: datetime) -> Iterator[tuple[str, str]]:
    """The terms that counts over the whole log are made of."""
    if occurred_at.tzinfo is not None:  # a damaged time beyond the calendar comes without
        yield "quarter", quarter_of(occurred_at)
    for field, column in NAMED.items():
        value: str | None = getattr(entry, column)
        if value is not None:
            yield field, cut(value)
    if entry.server_id is None:
        yield "server_id", NO_SERVER


def quarter_of(at: datetime) -> str:
    """The quarter of an hour, in UTC: `2026-11-22T10:15`."""
    utc = at.astimezone(UTC)
    return utc.replace(minute=utc.minute - utc.minute % 15).isoformat()[:16]


def buckets(value: str) -> tuple[str, str]:
    """The two buckets of a value, as they stand in the index."""
    digest = sha256(value.encode()).digest()
    first, second = (int.from_bytes(digest[at : at + 4], "big") % BUCKETS for at in (0, 4))
    return f"a{first:03x}", f"b{second:03x}"


def grams(text: str) -> set[str]:
    """Every three characters in a row, line breaks at both ends included."""
    closed = f"\n{text}\n"
    return {closed[at : at + GRAM_CHARACTERS] for at in range(len(closed) - GRAM_CHARACTERS + 1)}


def fragment_terms(fragment: str) -> tuple[Term, ...]:
    """The terms of every text that holds this folded fragment; none for fragments shorter than a gram. Grams side by side cover it
    with the fewest; of a long one, some."""
    last = len(fragment) - GRAM_CHARACTERS
    if last < 0:
        return ()
    places = [*range(0, last, GRAM_CHARACTERS), last]
    step = max(1, -(-len(places) // _GRAMS_LIMIT))
    return tuple(Term.of("gram", fragment[at : at + GRAM_CHARACTERS]) for at in places[::step])


def search_words(text: str) -> list[str]:
    """The folded words of a search: what is in double quotes is one, white space in it a single space."""
    words = (" ".join((quoted or plain).split()) for quoted, plain in _WORD.findall(text))
    return [fold(word) for word in words if word]


def line_terms(line: str) -> tuple[Term, ...]:
    """The terms of every text that has this as one of its lines, whatever its case."""
    return fragment_terms(f"\n{fold(line)}\n")


def spelled_lines(value: str) -> list[tuple[str, ...]]:
    """The lines of the search text when a changed value is one that JSON writes so, a text without its quotes: all lines of one of these
    alternatives. No lines: nothing can be said."""
    if value in UNSEARCHED:
        return [()]
    if value[:1] not in ("[", "{"):
        return [(value,)]
    try:
        parts = tuple(_scalar_lines(json.loads(value, parse_int=str, parse_float=str)))
    except (ValueError, RecursionError):
        return [(value,)]
    return [(value,), parts]


def _scalar_lines(value: object) -> Iterator[str]:
    """The texts, and the numbers as they are spelled, within a list or object."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _scalar_lines(part)


def bucket_terms(field: str, value: str) -> tuple[Term, ...]:
    """The terms of entries whose field has this value."""
    return tuple(Term.of(field, bucket) for bucket in buckets(value))


def address_digits(address: object) -> str:
    """An address as 32 hex digits; an IPv4 address as the IPv6 address it maps to, so that one order holds both."""
    if isinstance(address, IPv4Address):
        return f"{0xFFFF00000000 | int(address):032x}"
    if isinstance(address, IPv6Address):
        return f"{int(address):032x}"
    # As a driver brings what is no plain address (a damaged row): beside all others.
    return "?"


def network_term(network: IPv4Network | IPv6Network) -> Term:
    """The addresses of a network."""
    first, last = address_digits(network.network_address), address_digits(network.broadcast_address)
    return Term("ip", first, last + "\x01")
