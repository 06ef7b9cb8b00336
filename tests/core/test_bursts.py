"""Folding neighbours: a partition of the list, the same from both ends, with every rule's boundary."""

import doctest
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import bursts
from audit_service.core.bursts import GAP, Act, Folder, belong_together, fold

AT = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
ONE = Act(5, AT, "label.added", "user", "u1", "Ana", "ana@example.com", "vm", "7")
MICROSECOND = timedelta(microseconds=1)


def test_the_example_holds() -> None:
    assert doctest.testmod(bursts).attempted > 0
    assert doctest.testmod(bursts).failed == 0


@pytest.mark.parametrize(
    ("other", "together"),
    [
        (ONE, True),
        (ONE._replace(target_type="vm", target_id="8"), True),
        (ONE._replace(actor_name="Ana G.", actor_email=None), True),
        (ONE._replace(occurred_at=AT + GAP), True),
        (ONE._replace(occurred_at=AT - GAP), True),
        (ONE._replace(occurred_at=AT + GAP + MICROSECOND), False),
        (ONE._replace(occurred_at=AT - GAP - MICROSECOND), False),
        (ONE._replace(action="label.removed"), False),
        (ONE._replace(actor_id="U1"), False),
        (ONE._replace(actor_id="u2"), False),
        (ONE._replace(actor_type="client"), False),
        (ONE._replace(actor_id=None), False),
    ],
)
def test_what_belongs_together(other: Act, together: bool) -> None:
    assert (belong_together(ONE, other), belong_together(other, ONE)) == (together, together)


def test_without_an_id_name_and_e_mail_say_who_it_was() -> None:
    named = ONE._replace(actor_id=None)
    assert belong_together(named, named)
    assert not belong_together(named, named._replace(actor_name="Bo"))
    assert not belong_together(named, named._replace(actor_email=None))
    assert belong_together(named._replace(actor_email=None), named._replace(actor_email=None))


def test_nobody_and_nothing_are_never_the_same() -> None:
    nobody = ONE._replace(actor_id=None, actor_name=None, actor_email=None)
    nothing = ONE._replace(action=None)
    assert not belong_together(nobody, nobody)
    assert not belong_together(nothing, nothing)


def test_an_id_is_not_taken_for_a_name() -> None:
    assert not belong_together(ONE, ONE._replace(actor_id=None, actor_name="u1", actor_email=None))


def test_targets_are_counted_once_each() -> None:
    acts = [ONE._replace(seq=n, target_type=kind, target_id=name) for n, (kind, name) in enumerate(
        [("vm", "1"), ("vm", "2"), ("vm", "1"), ("node", "1"), (None, None), ("vm", None)]
    )]  # fmt: skip
    (burst,) = fold(acts)
    assert (burst.count, burst.targets) == (6, 4)


def test_a_burst_that_is_cut_says_so() -> None:
    folder = Folder()
    assert folder.end() is None
    assert folder.add(ONE) is None
    cut = folder.end(more=True)
    assert cut is not None
    assert (cut.count, cut.more) == (1, True)
    assert replace(cut, more=False) == folder.end()


acts = st.lists(
    st.builds(
        lambda second, actor, action, target: Act(
            0, AT + timedelta(seconds=second), action, None, actor, None, None, None, target
        ),
        st.integers(0, 300),
        st.sampled_from(["u1", "u2", None]),
        st.sampled_from(["a", "b", None]),
        st.sampled_from(["t1", "t2", None]),
    ),
    max_size=30,
).map(
    lambda found: [
        act._replace(seq=seq) for seq, act in enumerate(sorted(found, key=lambda act: act.occurred_at))
    ]
)  # fmt: skip


@given(acts)
def test_folding_parts_the_list_and_joins_only_what_belongs_together(listed: list[Act]) -> None:
    found = list(fold(listed))
    assert [n for burst in found for n in range(burst.first.seq, burst.last.seq + 1)] == [act.seq for act in listed]
    assert [burst.count for burst in found] == [burst.last.seq - burst.first.seq + 1 for burst in found]
    ends = {burst.last.seq for burst in found}
    for one, other in pairwise(listed):
        assert belong_together(one, other) is (one.seq not in ends)


@given(acts)
def test_the_other_order_has_the_same_bursts_the_other_way_round(listed: list[Act]) -> None:
    forward, backward = list(fold(listed)), list(fold(reversed(listed)))
    assert [replace(burst, first=burst.last, last=burst.first) for burst in reversed(backward)] == forward
    assert [burst.oldest.seq for burst in forward] == [burst.first.seq for burst in forward]
    assert [burst.newest.seq for burst in backward] == [burst.first.seq for burst in backward]
