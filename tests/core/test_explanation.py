"""What control entries explain, against sets that hold every seq and every item."""

import doctest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import explanation
from audit_service.core.entry import GROUPS
from audit_service.core.explanation import Explanations
from audit_service.errors import MalformedError

SEQS = st.integers(0, 9000)
RANGES = st.lists(st.tuples(SEQS, st.integers(1, 300)).map(lambda pair: [pair[0], pair[0] + pair[1]]), max_size=6)
ITEMS = st.lists(
    st.tuples(SEQS, st.sampled_from((*GROUPS, "unheard")), st.binary(min_size=32, max_size=32)), max_size=20
)


def test_the_worked_example_of_the_module_holds() -> None:
    """The examples run."""
    assert doctest.testmod(explanation).attempted > 0
    assert doctest.testmod(explanation).failed == 0


@given(st.lists(RANGES, max_size=3))
def test_exactly_the_dropped_seqs_are_explained(entries: list[list[list[int]]]) -> None:
    """However ranges meet, and wherever they begin and end in a byte."""
    explanations = Explanations()
    for ranges in entries:
        explanations.add("drop", 10_000, {"details": {"ranges": ranges}})  # type: ignore[dict-item] # JSON
    dropped = {seq for ranges in entries for start, end in ranges for seq in range(start, end)}
    assert {seq for seq in range(9500) if explanations.explains_body(seq)} == dropped


@given(ITEMS, ITEMS)
def test_exactly_the_erased_items_are_explained(first: list[Any], second: list[Any]) -> None:
    """Also across the borders of blocks, and when asked in any order."""
    explanations = Explanations()
    for items in (first, second):
        listed: Any = [[seq, group, commitment.hex()] for seq, group, commitment in items]
        explanations.add("erase", 10_000, {"details": {"items": listed}})
        assert all(explanations.explains(seq, group, commitment.hex()) for seq, group, commitment in items)
    known = {*first, *second}
    for seq, group, commitment in known:
        for other in (
            (seq + 1, group, commitment),
            (seq + 4096, group, commitment),
            (seq, "ip", commitment),
            (seq, group, bytes(32)),
        ):
            assert explanations.explains(other[0], other[1], other[2].hex()) == (other in known)


@pytest.mark.parametrize(("kind", "details"), [
    ("drop", None), ("drop", {}), ("drop", {"ranges": [[3, 2]]}), ("drop", {"ranges": [[0, 11]]}), ("drop", {"ranges": [[-1, 2]]}),
    ("drop", {"ranges": [["0", 2]]}), ("drop", {"ranges": 7}), ("erase", {"items": [[10, "ip", "00" * 32]]}),
    ("erase", {"items": [[1, "ip", "00"]]}), ("erase", {"items": [[1, "ip", "zz" * 32]]}), ("erase", {"items": [[1, [], "00" * 32]]}),
    ("erase", {"items": [[1, f"g{n}", "00" * 32] for n in range(256)]}), ("prune", {"cut": 1}), ("resume", {"size": 3, "lost": [1]}),
    ("prune", {"cut": 11, "root": "00" * 32, "frontier": "00" * 96, "last_recorded_at_us": 1, "epoch": 1, "checkpoint": "",
               "prev_hash": ""}),
])  # fmt: skip
def test_what_is_not_of_its_kind_is_refused(kind: str, details: Any) -> None:
    """A range or item that is not before the entry itself, widths, types, and what is missing."""
    with pytest.raises(MalformedError):
        Explanations().add(kind, 10, {"details": details})


def test_a_body_or_disclosure_nobody_forgot_is_not_explained() -> None:
    """Nothing is known at first; a commitment that is no text explains nothing."""
    explanations = Explanations()
    assert not explanations.explains_body(0)
    explanations.add("erase", 9, {"details": {"items": [[1, "ip", "ab" * 32]]}})
    odd: tuple[Any, ...] = (None, 7, "ab", {})
    for commitment in odd:
        assert not explanations.explains(1, "ip", commitment)
