"""Canonical JSON against the published pairs, the rfc8785 package, and our own slow serializer."""

import doctest
import enum
import json
import math
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import orjson
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from audit_service.core import canonical
from audit_service.core.canonical import DEPTH_LIMIT, JSONValue, canonical_bytes, canonical_text
from audit_service.errors import CanonicalError

PAIRS = Path(__file__).parents[3] / "shared" / "data" / "jcs"

# Random texts rarely hold what matters here: escapes, and keys where UTF-16 and code point order differ.
texts = st.text() | st.text(st.sampled_from('\x00\x08\t\n\x0b\x0c\r\x1f "\\/\x7f\u2028é\uffe5\ufb33\U0001f600'))
safe_integers = st.integers(-(2**53) + 1, 2**53 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)


def values(scalars: st.SearchStrategy[JSONValue]) -> st.SearchStrategy[JSONValue]:
    """JSON values over these scalars."""
    return st.recursive(scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5))


plain_values = values(st.none() | st.booleans() | safe_integers | texts)
all_values = values(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts | floats)
rfc_values = values(st.none() | st.booleans() | safe_integers | texts | floats)


def written_slowly(value: JSONValue) -> bytes:
    """The canonical form by way of our own serializer: a float beside the value rules the fast way out."""
    return canonical_bytes([value, 0.5])[1:-5]


def nested(depth: int, leaf: JSONValue) -> JSONValue:
    """A leaf inside `depth` containers, lists and objects in turn."""
    value = leaf
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


def test_the_worked_example_of_the_module_holds() -> None:
    """The format page of the module runs."""
    result = doctest.testmod(canonical)
    assert (result.failed, result.attempted > 0) == (0, True)


@pytest.mark.parametrize("name", ["arrays", "french", "structures", "unicode", "values", "weird"])
def test_published_pairs(name: str) -> None:
    """The RFC author's inputs give the RFC author's outputs."""
    if not PAIRS.exists():
        pytest.skip("the RFC 8785 pairs are not beside this repository")
    value = json.loads((PAIRS / "input" / f"{name}.json").read_bytes())
    assert (PAIRS / "output" / f"{name}.json").read_bytes() == canonical_bytes(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (100000.0, "100000"),
        (0.1, "0.1"),
        (1e-4, "0.0001"),
        (1e-5, "0.00001"),
        (-1.25e-5, "-0.0000125"),
        (1e-6, "0.000001"),
        (1.5e-6, "0.0000015"),
        (1e-7, "1e-7"),
        (-1.5e-7, "-1.5e-7"),
        (5e-324, "5e-324"),
        (1e16, "10000000000000000"),
        (1.2e17, "120000000000000000"),
        (-1.2345678901234567e20, "-123456789012345670000"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (-1e22, "-1e+22"),
        (1.5e22, "1.5e+22"),
        (333333333.33333329, "333333333.3333333"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740992.0, "9007199254740992"),
    ],
)
def test_doubles_are_printed_as_ecmascript_does(value: float, text: str) -> None:
    """The cases of ECMA-262 Number::toString, and either side of each switch of layout."""
    assert text == canonical_text(value)


@pytest.mark.parametrize("value", [-(2**63), -(2**53) - 1, -1, 0, 2**53 + 1, 2**63, 2**64 - 1])
def test_integers_of_64_bits_are_printed_exactly(value: int) -> None:
    """Our extension of RFC 8785, in both serializers."""
    assert str(value) == canonical_text(value)
    assert str(value).encode() == written_slowly(value)


@pytest.mark.parametrize("code", range(0x80))
def test_escapes_are_the_shortest(code: int) -> None:
    """Section 3.2.2.2, for each ASCII character as value and as key, in both serializers."""
    short = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
    escaped = short.get(code) or (f"\\u{code:04x}" if code < 0x20 else chr(code))
    expected = f'{{"{escaped}":"{escaped}"}}'.encode()
    assert expected == canonical_bytes({chr(code): chr(code)})
    assert expected == written_slowly({chr(code): chr(code)})


def test_text_is_not_escaped_or_normalised_beyond_ascii() -> None:
    """Neither line separators nor composed characters change."""
    text = "\u2028\u2029e\u0301é\ufeff\U0001f600"
    assert f'"{text}"'.encode() == canonical_bytes(text)
    assert f'"{text}"'.encode() == written_slowly(text)


def test_members_are_sorted_by_utf16_code_units() -> None:
    """A surrogate pair sorts before the end of the basic plane; orjson's order is the other one."""
    value: JSONValue = {"\ufb33": 1, "\U0001f600": 2, "a": {"\uffff": 3, "\U0010ffff": 4}}
    assert canonical_text(value) == '{"a":{"\U0010ffff":4,"\uffff":3},"\U0001f600":2,"\ufb33":1}'
    assert canonical_bytes(value) != orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


@pytest.mark.parametrize("lead", [0x10000, 0x40000, 0x80000, 0xC0000, 0x10FFFF])
def test_keys_of_every_plane_take_the_slow_way(lead: int) -> None:
    """Each of the five first bytes a character beyond U+FFFF can have in UTF-8."""
    assert [chr(lead), "\ufb33"] == list(json.loads(canonical_bytes({"\ufb33": 1, chr(lead): 2})))


class Colour(enum.StrEnum):
    """A string that is an enum member."""

    RED = "red"


class Count(int):
    """An integer of a class of its own, as an enum with integers mixed in is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "wrong"


class Name(str):
    """A string of a class of its own."""

    __slots__ = ()

    def __str__(self) -> str:
        return "wrong"


def test_subclasses_are_printed_as_what_they_are() -> None:
    """An enum of strings or integers is its value, also as a key."""
    assert canonical_text([Colour.RED, Count(3), Name("n")]) == '["red",3,"n"]'
    assert canonical_text({Colour.RED: Count(3), Name("n"): None}) == '{"n":null,"red":3}'


REFUSED: dict[str, object] = {
    "nan": math.nan,
    "infinity": math.inf,
    "negative infinity": -math.inf,
    "65-bit integer": 2**64,
    "64-bit negative integer below the range": -(2**63) - 1,
    "5,000-digit integer": 10**5000,
    "lone high surrogate": "CANARY\ud83d",
    "lone low surrogate": "\udc00CANARY",
    "surrogates as two characters": "CANARY\ud83d\ude00",
    "lone surrogate in a key": {"CANARY\ud800": 1},
    "integer key": {1: "CANARY"},
    "null key": {None: "CANARY"},
    "bytes key": {b"CANARY": 1},
    "tuple": ("CANARY",),
    "set": {"CANARY"},
    "bytes": b"CANARY",
    "object": object(),
    "decimal": Decimal(1),
    "time": datetime(2026, 1, 1, tzinfo=UTC),
    "uuid": uuid.UUID(int=5),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_what_has_no_canonical_form_is_refused(name: str, depth: int) -> None:
    """Always the one error, at every depth, alone or beside a float; and never with the value in its text."""
    value = nested(depth, REFUSED[name])  # type: ignore[arg-type]
    for wrong in (value, [value, 0.5, "\U0001f600"]):
        with pytest.raises(CanonicalError) as caught:
            canonical_bytes(wrong)
        assert "CANARY" not in caught.value.detail
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_depth_is_limited_in_both_serializers() -> None:
    """128 levels pass, 129 do not, whatever is inside."""
    leaves: list[JSONValue] = [1, 1.5, "\U0001f600", [], {}]
    for leaf in leaves:
        room = DEPTH_LIMIT - isinstance(leaf, list | dict)
        assert nested(room, leaf) == json.loads(canonical_bytes(nested(room, leaf)))
        for depth in (room + 1, room + 100, room + 1000):
            with pytest.raises(CanonicalError, match="128 levels"):
                canonical_bytes(nested(depth, leaf))


def test_a_value_that_holds_itself_is_refused() -> None:
    """Two cycles in one list would be 2^128 walks for a serializer that looks level by level."""
    value: list[JSONValue] = []
    value += [value, value]
    with pytest.raises(CanonicalError, match="128 levels"):
        canonical_bytes(value)


@given(plain_values)
def test_the_fast_way_equals_the_slow_way_and_the_oracle(value: JSONValue) -> None:
    """Without floats: orjson's bytes, ours, and those of rfc8785."""
    expected = rfc8785.dumps(value)
    assert expected == canonical_bytes(value)
    assert expected == written_slowly(value)


@given(rfc_values)
def test_values_with_floats_equal_the_oracle(value: JSONValue) -> None:
    """All that RFC 8785 can carry."""
    assert rfc8785.dumps(value) == canonical_bytes(value)


@given(floats | st.floats(1e-8, 1e-3) | st.floats(1e14, 1e23) | st.integers(-(2**60), 2**60).map(float))
def test_doubles_equal_the_oracle(value: float) -> None:
    """Where the layout changes is where mistakes are, so draw more from there."""
    assert rfc8785.dumps(value) == canonical_bytes(value)


@given(all_values)
@example([1e20, -1e20, 2.0**64, -(2.0**63), 2**64 - 1])
def test_canonical_is_idempotent(value: JSONValue) -> None:
    """canonical(parse(canonical(x))) = canonical(x).

    orjson reads an integer over 64 bits as a double. That is how a double such as 1e20, printed with all its
    zeros, comes back as itself.
    """
    once = canonical_bytes(value)
    assert once == canonical_bytes(orjson.loads(once))
    assert once.decode() == canonical_text(value)


@given(all_values)
def test_the_order_of_members_does_not_matter(value: JSONValue) -> None:
    """Two equal objects written in another order have the same bytes."""

    def reverse(item: JSONValue) -> JSONValue:
        if isinstance(item, dict):
            return {key: reverse(item[key]) for key in reversed(item)}
        return [reverse(one) for one in item] if isinstance(item, list) else item

    assert canonical_bytes(value) == canonical_bytes(reverse(value))
