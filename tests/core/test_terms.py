"""Terms: whatever matches a filter has the terms that the filter asks the index for; orders, grams, lines and buckets keep their laws."""

import ipaddress
import string
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from audit_service.core import terms
from audit_service.core.canonical import canonical_text
from audit_service.core.entry import project
from audit_service.core.folding import fold
from audit_service.core.sight import EVERYTHING
from audit_service.core.terms import (
    BUCKETS,
    VALUE_CHARACTERS,
    Indexed,
    Term,
    address_digits,
    after_prefix,
    bucket_terms,
    buckets,
    cut,
    entry_terms,
    fragment_terms,
    grams,
    line_terms,
    network_term,
    quarter_of,
    search_words,
    spelled_lines,
)
from audit_service.store.find import Clause, clauses_of
from audit_service.store.selection import CONDITIONS, Filter, Selection

# Surrogates and NUL never get into an entry.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
EDGES = st.sampled_from("\x01\n az~é\ud7ff\ue000\uffff\U00010000\U0010ffff")
TEXTS = st.text(st.one_of(EDGES, EDGES, CHARACTERS), max_size=8)
LONG = st.integers(VALUE_CHARACTERS - 2, VALUE_CHARACTERS + 2).flatmap(lambda n: TEXTS.map(lambda t: "x" * n + t))
VALUES = st.one_of(TEXTS, TEXTS, LONG)
Draw = Callable[[st.SearchStrategy[Any]], Any]


def names(term: Term, have: set[tuple[str, str]]) -> bool:
    """Whether the index would find the term among those."""
    return any(field == term.field and term.low <= value < term.high for field, value in have)


# --- what an entry has, and what a filter asks for ---

WORDS = [
    "Ana Gómez",
    "ana",
    "straße",
    "日本語",
    "7",
    "x",
    "",
    "é\u0301",
    "two\nlines",
    "\u0301",
    "İ",
    "a b",
    "v" * 300,
    'say "hi"',
]
short = st.sampled_from([word for word in WORDS if word])
scalars = st.one_of(short, st.integers(-9, 9), st.floats(-9, 9, width=16), st.booleans(), st.none(), st.just(""))
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(short, scalars, max_size=2))
paths = st.lists(st.sampled_from(["a", "b", "ab", "é", "", "p" * 300]), min_size=1, max_size=3).map(
    lambda p: "/" + "/".join(p)
)
changes = st.lists(
    st.fixed_dictionaries({"path": paths, "op": st.just("replace")}, optional={"old": values, "new": values}), max_size=3
)  # fmt: skip
optional = st.one_of(st.none(), short)
addresses = st.one_of(
    st.none(), st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), st.just("::ffff:203.0.113.9")
)


@st.composite
def projections(draw: st.DrawFn) -> tuple[Any, list[dict[str, Any]]]:
    """The columns of an entry, as `project` makes them, and the changes in it."""
    made = draw(changes)
    body = {
        "id": draw(short), "action": draw(st.sampled_from(["server.created", "server", "x"])), "verb": "UPDATE", "category": draw(short),
        "occurred_at": "2026-03-01T10:15:00.000000Z", "server_id": draw(optional), "outcome": draw(optional),
        "actor_type": draw(optional), "target_type": draw(optional),
    }  # fmt: skip
    groups = {
        "actor": {"id": draw(optional), "name": draw(optional), "role": draw(optional)},
        "actor_email": draw(optional),
        "ip": draw(addresses),
        "context": {"session_id": draw(optional), "request_id": draw(optional)},
        "target": {"id": draw(optional), "name": draw(optional)},
        "text": {"description": draw(optional)},
        "changes": made,
    }
    return project({k: v for k, v in body.items() if v is not None}, {k: v for k, v in groups.items() if v}), made  # type: ignore[misc]


def matching(entry: Any, made: list[dict[str, Any]], field: str, draw: Draw) -> str | None:
    """A value of a filter that the entry matches, or None when it has nothing to match."""
    if field == "server_id" and entry.server_id is None:
        return "none"
    if field == "q":
        return _fragment(draw(st.sampled_from((entry.search or "").split("\n"))), draw)
    known: list[str | None] = [getattr(entry, {"role": "actor_role"}.get(field, field), None)]
    if field == "actor":
        known = entry.actor_keys or [None]
    elif field == "changed":
        known = [part for path in entry.paths or () for part in (path, path.rsplit("/", 1)[0] or path)] or [None]
    elif field in ("old", "new"):
        known = [spelled(change[field]) for change in made if change.get(field, "") != ""] or [None]
    value: str | None = draw(st.sampled_from(known))
    if value is not None and field in ("actor", "action", "changed") and draw(st.booleans()):
        return value[: draw(st.integers(0, 9))] + "*"
    return value


def _fragment(line: str, draw: Draw) -> str | None:
    """A phrase in double quotes from a line, or None when it has none of three letters."""
    start = draw(st.integers(0, max(0, len(line) - 3)))
    fragment = line[start : start + draw(st.integers(3, 400))]
    return None if len(fragment) < 3 or '"' in fragment else f'"{fragment}"'


def spelled(value: Any) -> str:
    """As the canonical text writes it, texts without quotes."""

    return value if isinstance(value, str) else canonical_text(value)


@given(projections(), st.sampled_from(sorted(set(CONDITIONS) - {"id", "ip"})), st.data())
def test_an_entry_that_matches_a_filter_has_all_terms_of_an_alternative(
    entry: tuple[Any, list[dict[str, Any]]], field: str, data: st.DataObject
) -> None:
    value = matching(*entry, field, data.draw)
    assume(value is not None)
    have = set(entry_terms(entry[0]))
    for clause in clauses_of(Selection((Filter(field, ("nothing of the kind", str(value))),), sight=EVERYTHING)):
        assert any(all(names(term, have) for term in all_of) for all_of in clause.alternatives), (value, have)


@given(projections(), st.integers(0, 128))
def test_an_address_is_found_by_every_network_around_it(entry: tuple[Any, list[dict[str, Any]]], bits: int) -> None:
    address = entry[0].ip
    assume(address is not None)
    network = ipaddress.ip_network((address, min(bits, address.max_prefixlen)), strict=False)
    assert names(network_term(network), set(entry_terms(entry[0])))


@given(projections(), st.sampled_from(["action", "role", "server_id", "outcome", "category", "verb"]), VALUES)
def test_a_negated_clause_excludes_only_what_the_filter_excludes(
    entry: tuple[Any, list[dict[str, Any]]], field: str, value: str
) -> None:
    """The index must answer exactly here; what was cut it leaves to the comparison."""
    assume(value)
    column: str | None = getattr(entry[0], {"role": "actor_role"}.get(field, field))
    for clause in clauses_of(Selection((Filter(field, (value,), negated=True),), sight=EVERYTHING)):
        named = any(all(names(term, set(entry_terms(entry[0]))) for term in all_of) for all_of in clause.alternatives)
        is_prefix = field == "action" and value.endswith("*")
        is_none = field == "server_id" and value == "none"
        excluded = (
            column is None if is_none else (column or "").startswith(value[:-1]) if is_prefix else column == value
        )
        assert not named or excluded


def test_what_the_index_cannot_tell_gives_no_clause() -> None:
    asked = [
        Filter("id", ("x",)), Filter("old", ("true",)), Filter("new", ("null", "7")), Filter("old", ("[]",)), Filter("q", ("ab",)),
        Filter("actor", ("ana",), negated=True), Filter("session", ("x",), negated=True), Filter("role", ("x" * 256,), negated=True),
    ]  # fmt: skip
    assert [clauses_of(Selection((one,), sight=EVERYTHING)) for one in asked] == [[]] * len(asked)
    assert clauses_of(Selection((Filter("role", ("x" * 255,), negated=True),), sight=EVERYTHING)) == [
        Clause(((Term("role", "x" * 255, "x" * 255 + "\x01"),),), negated=True)
    ]


def test_an_entry_whose_body_was_dropped_has_no_terms() -> None:
    assert list(entry_terms(cast("Indexed", project({"id": "x"}, {})))) == []


@dataclass
class Damaged:
    """The columns as no service has ever written them."""

    occurred_at: Any = datetime.max  # noqa: DTZ901 - as the driver brings an infinity
    actor_id: Any = None
    actor_type: Any = None
    actor_role: Any = None
    actor_keys: Any = (None, ["x"], "ana")
    action: Any = None
    verb: Any = None
    category: Any = None
    outcome: Any = None
    target_type: Any = None
    target_id: Any = None
    server_id: Any = None
    ip: Any = "no address"
    session: Any = None
    request_id: Any = None
    paths: Any = (None, 7)
    search: Any = None


def test_a_damaged_entry_has_the_terms_that_can_be_read() -> None:
    assert {field.name for field in fields(Damaged)} == set(terms.Indexed.__annotations__)
    assert set(entry_terms(Damaged())) == {("server_id", ""), ("actor", "ana"), ("ip", "?")}


# --- ranges ---


@given(TEXTS, TEXTS, TEXTS)
def test_what_begins_so_lies_before_the_end_of_the_prefix_and_nothing_else_does(
    prefix: str, rest: str, other: str
) -> None:
    assert prefix <= prefix + rest < after_prefix(prefix)
    assert (prefix <= other < after_prefix(prefix)) == other.startswith(prefix)


@given(TEXTS, TEXTS)
def test_texts_sort_by_code_point_as_their_bytes_do(one: str, other: str) -> None:
    """Python compares code points, PostgreSQL's C collation bytes: one order, or ranges would be others there."""
    assert (one < other) == (one.encode() < other.encode())
    assert after_prefix(one).encode().decode() == after_prefix(one)


@given(VALUES, VALUES)
def test_a_cut_value_is_found_by_itself_and_exact_terms_by_nothing_else(value: str, other: str) -> None:
    term = Term.of("role", value)
    assert names(term, {("role", cut(value))})
    if term.exact:
        assert names(term, {("role", cut(other))}) == (value == other)


@given(VALUES, VALUES)
def test_a_prefix_finds_every_value_that_begins_so_also_cut(prefix: str, rest: str) -> None:
    assert names(Term.beginning("path", prefix), {("path", cut(prefix + rest))})


@given(VALUES, VALUES, VALUES)
def test_a_range_finds_what_is_in_it_also_cut(low: str, high: str, value: str) -> None:
    if low <= value < high:
        assert names(Term.between("path", low, high), {("path", cut(value))})


@given(st.lists(VALUES, min_size=2, max_size=2))
def test_a_key_of_the_index_is_short_and_cutting_keeps_the_order(pair: list[str]) -> None:
    low, high = sorted(pair)
    assert cut(low) <= cut(high)
    assert len(cut(high).encode()) <= 1024  # a key of a btree may have 2,704


# --- grams and lines ---


@given(TEXTS, TEXTS, st.text(st.one_of(st.sampled_from(string.ascii_lowercase), EDGES), max_size=60))
def test_a_text_that_holds_a_fragment_has_all_its_grams(before: str, after: str, fragment: str) -> None:
    have = {("gram", gram) for gram in grams(before + fragment + after)}
    found = fragment_terms(fragment)
    assert all(names(term, have) for term in found)
    assert (found == ()) == (len(fragment) < 3)
    assert len(found) <= 8


@given(st.lists(TEXTS.filter(lambda text: "\n" not in text), min_size=1, max_size=4), st.data())
def test_a_text_has_the_terms_of_each_of_its_lines(lines: list[str], data: st.DataObject) -> None:
    have = {("gram", gram) for gram in grams(fold("\n".join(lines)))}
    assert all(names(term, have) for term in line_terms(data.draw(st.sampled_from(lines))))


def test_one_letter_is_a_line_with_a_gram() -> None:
    assert line_terms("7") == (Term("gram", "\n7\n", "\n7\n\x01"),)
    assert grams("ana\n7") == {"\nan", "ana", "na\n", "a\n7", "\n7\n"}


def test_a_gram_asked_for_is_no_longer_one() -> None:
    """A term is one value of the index, not all that begin like it."""
    assert not names(Term.of("gram", "ana"), {("gram", "anab")})


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("x", [("x",)]),
        ("true", [()]),
        ("null", [()]),
        ("[1,2.5]", [("[1,2.5]",), ("1", "2.5")]),
        ('{"a":["x",null],"b":{"c":-7}}', [('{"a":["x",null],"b":{"c":-7}}',), ("x", "-7")]),
        ("[]", [("[]",), ()]),
        ("[true]", [("[true]",), ()]),
        ("[open", [("[open",)]),
        ("[" * 100_000, [("[" * 100_000,)]),
        ("1e+21", [("1e+21",)]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_lines_of_a_changed_value(value: str, lines: list[tuple[str, ...]]) -> None:
    assert spelled_lines(value) == lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ana  GÓMEZ", ["ana", "gomez"]),
        ('"Ana  Gómez" x', ["ana gomez", "x"]),
        ('disk"c" "" "open', ['disk"c"', '"open']),
        ("\u3000全角\u00a0x\n", ["全角", "x"]),
        ("\u0301", [""]),
        ("  ", []),
    ],
)
def test_the_words_of_a_search(text: str, words: list[str]) -> None:
    assert search_words(text) == words


# --- buckets, addresses, quarters ---


def test_buckets_are_always_the_same_and_spread() -> None:
    assert buckets("r1") == ("a1c6", "b38d")
    found = [buckets(f"request-{number}") for number in range(20_000)]
    for place, letter in enumerate("ab"):
        used = {pair[place] for pair in found}
        assert len(used) == BUCKETS
        assert all(bucket[0] == letter and int(bucket[1:], 16) < BUCKETS for bucket in used)
    assert len(set(found)) > 19_700
    assert bucket_terms("session", "r1") == (Term.of("session", "a1c6"), Term.of("session", "b38d"))


@given(st.ip_addresses(), st.ip_addresses())
def test_addresses_sort_as_their_digits_do(one: Any, other: Any) -> None:
    """IPv4 as the IPv6 addresses it maps to."""

    def number(address: Any) -> int:
        return int(address) if address.version == 6 else 0xFFFF00000000 | int(address)

    assert (number(one) < number(other)) == (address_digits(one) < address_digits(other))
    assert len(address_digits(one)) == 32


def test_a_quarter_is_in_utc() -> None:
    at = datetime(2026, 11, 22, 10, 29, 59, 999_999, timezone(timedelta(hours=5, minutes=45)))
    assert quarter_of(at) == "2026-11-22T04:30"
    assert quarter_of(datetime(2026, 11, 22, 10, 45, tzinfo=UTC)) == "2026-11-22T10:45"
