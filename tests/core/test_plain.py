"""Plain values (no fraction, checked by `check_limits`) take shorter ways. The shorter ways give the same bytes, and what is not plain
never takes them."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core.canonical import DEPTH_LIMIT, JSONValue, canonical_bytes, plain_bytes
from audit_service.core.entry import ENTROPY_BYTES, SALT_BYTES, prepare
from audit_service.core.event import EventLimits, check_limits, parse_json
from audit_service.core.redaction import compile_ruleset, holds_token
from audit_service.errors import InvalidEventError
from audit_service.ingest import Log, Recipe, safe_id, seal
from tests.core.test_canonical import all_values, nested, rfc_values, texts

ROOMY = EventLimits(keys=10**6, string_characters=10**6)
RULES = compile_ruleset()
RECIPE = Recipe(RULES, ROOMY, b"s" * 32)
LOG = Log(1, "audit.test", "0" * 32)
NOW = datetime(2026, 11, 22, tzinfo=UTC)
TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"


def is_plain(value: JSONValue) -> bool:
    """What `check_limits` says; False too for what it refuses."""
    try:
        return check_limits(value, ROOMY)
    except InvalidEventError:
        return False


def holds_fraction(value: JSONValue) -> bool:
    """Whether there is a float anywhere."""
    if isinstance(value, dict):
        return any(map(holds_fraction, value.values()))
    if isinstance(value, list):
        return any(map(holds_fraction, value))
    return isinstance(value, float)


@given(all_values)
def test_plain_values_are_written_like_all_others(value: JSONValue) -> None:
    if is_plain(value):
        assert plain_bytes(value) == canonical_bytes(value)


@given(rfc_values)
def test_plain_values_equal_the_oracle(value: JSONValue) -> None:
    if is_plain(value):
        assert plain_bytes(value) == rfc8785.dumps(cast("Any", value))


@given(all_values)
def test_what_holds_a_fraction_is_never_plain(value: JSONValue) -> None:
    if holds_fraction(value):
        assert not is_plain(value)


@pytest.mark.parametrize("value", [1.0, -0.0, [1e16], {"a": {"b": [2.0]}}])
def test_the_shorter_way_would_show(value: JSONValue) -> None:
    """The control: taken for plain, these would be written otherwise."""
    assert plain_bytes(value) != canonical_bytes(value)
    assert not is_plain(value)


@pytest.mark.parametrize("value", [(1, 2), datetime(2026, 1, 1, tzinfo=UTC), b"x", {1}, {"a": (1,)}])
def test_what_no_parser_gives_is_never_plain(value: Any) -> None:
    assert not is_plain(value)


@pytest.mark.parametrize("value", [None, True, -(2**63), 2**64 - 1, "ü", [], {}, {"a": [None, {"b": "c"}]}])
def test_what_parsers_give_is(value: JSONValue) -> None:
    assert is_plain(value)


def test_nothing_deep_is_plain() -> None:
    """What is made of an event may be deeper than the event, and still has to be written by the rules."""
    limits = EventLimits(depth=DEPTH_LIMIT)
    assert not check_limits(nested(DEPTH_LIMIT // 2 + 1, 1), limits)
    assert check_limits(nested(3, 1), EventLimits())


@given(
    st.fixed_dictionaries(
        {"action": st.just("a.b")},
        optional={
            "metadata": st.dictionaries(texts, all_values, max_size=4),
            "before": st.dictionaries(texts, all_values, max_size=4),
            "after": st.dictionaries(texts, all_values, max_size=4),
            "actor": st.fixed_dictionaries({"id": st.just("u1"), "name": st.text(max_size=8)}),
        },
    )
)
def test_what_is_sealed_is_canonical(event: dict[str, JSONValue]) -> None:
    """Whichever way wrote it: read back and written by the rules, it is the same."""
    try:
        candidate, content = seal(RECIPE, LOG, event, "id", NOW)
    except InvalidEventError:
        return
    written = [content, candidate.prepared.body.encode()]
    written += [stored[SALT_BYTES:] for stored in candidate.prepared.disclosures.values()]
    assert [canonical_bytes(parse_json(data)) for data in written] == written


def test_both_ways_of_preparing_agree() -> None:
    event: dict[str, JSONValue] = {
        "id": "e", "action": "a", "actor": {"id": "u", "email": "e@x"}, "metadata": {"é": [1, {"\U0001f600": None, "\uffe5": 2}]},
    }  # fmt: skip
    changes: list[dict[str, JSONValue]] = [{"path": "/a", "op": "add", "new": {"b": 2**63}}]
    entropy = bytes(range(256)) + bytes(ENTROPY_BYTES - 256)
    assert prepare(event, changes, ["a"], entropy, plain_bytes) == prepare(event, changes, ["a"], entropy)


@given(texts | st.sampled_from([TOKEN, f"x {TOKEN}", "token:41", "4111 1111 1111 1111", "https://u:p@h/"]))
def test_an_id_is_stored_as_safe_id_says(sent: str) -> None:
    """It is screened together with the rest of the event; the judgement is that of an id alone."""
    try:
        sealed = seal(RECIPE, LOG, {"id": sent, "action": "a"}, None, NOW)
    except InvalidEventError:
        return
    assert sealed.candidate.id == safe_id(sent, RECIPE, LOG)
    assert b'"id"' not in sealed.content


def test_ids_that_hold_tokens_are_among_them() -> None:
    """The control: both branches of the law above are taken."""
    assert holds_token(TOKEN, RULES)
    assert not holds_token("token:41", RULES)
    assert seal(RECIPE, LOG, {"id": TOKEN, "action": "a"}, None, NOW).candidate.id.startswith("redacted:")
