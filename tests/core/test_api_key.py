"""Keys and tokens as text: what is whole, what is mistyped, and what a scanner finds."""

import doctest
import re
import zlib

from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import api_key
from audit_service.core.api_key import (
    ALPHABET,
    ENTROPY_BYTES,
    PREFIXES,
    SCANNER_PATTERN,
    format_key,
    is_mistyped,
    is_well_formed,
    kind_of,
    public_id,
)
from audit_service.core.redaction import compile_ruleset, holds_token

entropies = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)
kinds = st.sampled_from(sorted(PREFIXES))


def test_the_examples_of_the_module_hold() -> None:
    """The format page of the module runs."""
    assert doctest.testmod(api_key).failed == 0


@given(entropies, kinds)
def test_a_key_is_whole_and_of_its_kind(entropy: bytes, kind: api_key.Kind) -> None:
    """65 characters; the checksum as anybody can compute it; the public id is the part behind the prefix."""
    key = format_key(entropy, kind)
    assert (len(key), kind_of(key), is_well_formed(key), is_mistyped(key)) == (65, kind, True, False)
    number = 0
    for character in key[-6:]:
        number = number * 62 + ALPHABET.index(character)
    assert number == zlib.crc32(key[:-6].encode())
    assert key[4:16] == public_id(key)
    assert re.fullmatch(SCANNER_PATTERN, key)


@given(entropies, kinds, st.integers(4, 64), st.sampled_from(ALPHABET))
def test_one_wrong_character_is_a_typo(entropy: bytes, kind: api_key.Kind, place: int, character: str) -> None:
    """CRC-32 finds every change of one character."""
    key = format_key(entropy, kind)
    other = key[:place] + character + key[place + 1 :]
    assert is_mistyped(other) == (other != key)


@given(entropies, kinds, st.integers(4, 63))
def test_two_characters_that_changed_places_are_a_typo(entropy: bytes, kind: api_key.Kind, place: int) -> None:
    """The other common slip."""
    key = format_key(entropy, kind)
    other = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    assert is_mistyped(other) == (other != key)


@given(entropies)
def test_a_token_with_the_prefix_of_a_key_is_a_typo(entropy: bytes) -> None:
    """The prefix is part of what the checksum is of."""
    assert is_mistyped("aud_" + format_key(entropy, "viewer_token")[4:])


@given(st.text(max_size=80))
def test_other_text_is_neither_whole_nor_mistyped(text: str) -> None:
    """Whatever is not shaped like ours is left to the database, for a key that somebody chose."""
    if kind_of(text) is None:
        assert not is_well_formed(text)
        assert not is_mistyped(text)


def test_shapes_that_are_not_ours() -> None:
    """Length, alphabet and prefix."""
    key = format_key(bytes(ENTROPY_BYTES))
    for other in (
        "",
        key[:-1],
        key + "0",
        " " + key,
        "AUD_" + key[4:],
        key[:-1] + "é",
        key[:-1] + "-",
        "aux_" + key[4:],
    ):
        assert kind_of(other) is None


@given(entropies, kinds, st.sampled_from(["{}", "x {} y", '"{}"', "token={}", "({})"]))
def test_both_are_redacted_from_events(entropy: bytes, kind: api_key.Kind, around: str) -> None:
    """One that is pasted into a panel's note must not come to stand in the log."""
    assert holds_token(around.format(format_key(entropy, kind)), RULES)


RULES = compile_ruleset()
