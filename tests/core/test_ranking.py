"""Ranking near a moment: each part of the score moves it the right way, by itself."""

import doctest
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import ranking
from audit_service.core.ranking import KINDS, Candidate, Ranked, rank
from audit_service.core.verb import VERBS

AROUND = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
DAY = timedelta(hours=24)
USUAL = {"server.updated": 10}
PLAIN = Candidate(1, AROUND - timedelta(hours=1), "server.updated", "UPDATE", "success", 2, None)


def ranked(candidate: Candidate, usual: dict[str, int] = USUAL, window: timedelta = DAY) -> Ranked:
    """One candidate alone."""
    (found,) = rank([candidate], AROUND, window, usual=usual)
    return found


def score(candidate: Candidate, usual: dict[str, int] = USUAL, window: timedelta = DAY) -> float:
    return ranked(candidate, usual, window).score


def test_the_example_holds() -> None:
    assert doctest.testmod(ranking).attempted > 0
    assert doctest.testmod(ranking).failed == 0


def test_every_verb_has_a_kind() -> None:
    assert set(KINDS) == set(VERBS)


def test_the_score_halves_with_each_half_life_and_the_window_sets_it() -> None:
    now = replace(PLAIN, occurred_at=AROUND)
    for window in (DAY, timedelta(hours=168)):
        for lives in range(1, 9):
            then = replace(now, occurred_at=AROUND - lives * window / 8)
            assert score(then, window=window) == pytest.approx(score(now, window=window) / 2**lives, abs=0.001)


def test_what_came_after_counts_less_and_less() -> None:
    before, at, after, later = (
        score(replace(PLAIN, occurred_at=AROUND + timedelta(seconds=seconds))) for seconds in (-1, 0, 1, 120)
    )
    assert at > before > after > later > 0
    assert after <= at / 2
    assert later == pytest.approx(at / 2 / 4, abs=0.001)


def test_deletions_weigh_more_than_updates_and_reads_and_logins_little() -> None:
    scores = {verb: score(replace(PLAIN, verb=verb)) for verb in VERBS}
    assert scores["DELETE"] > scores["UPDATE"] > scores["CREATE"] > scores["OTHER"] > scores["LOGIN"] > scores["READ"]
    assert max(scores["LOGIN"], scores["LOGOUT"], scores["READ"]) < 0.15 * scores["UPDATE"]
    assert score(replace(PLAIN, verb=None)) == scores["OTHER"]


def test_more_changed_fields_weigh_more_and_none_least() -> None:
    scores = [score(replace(PLAIN, changes=changes)) for changes in (0, 1, 2, 10, 2000)]
    assert all(less < more for less, more in pairwise(scores))


def test_failures_rare_actions_and_the_server_itself_weigh_more() -> None:
    assert score(replace(PLAIN, outcome="failure")) > score(PLAIN) > score(replace(PLAIN, related="node n1"))
    assert score(PLAIN, {"server.updated": 1}) > score(PLAIN, {"server.updated": 2}) > score(PLAIN)
    assert score(PLAIN, {}) == score(PLAIN, {"server.updated": 1})  # on something related, never here


def test_the_most_that_can_be_is_a_hundred() -> None:
    worst = Candidate(1, AROUND, "volume.deleted", "DELETE", "failure", 10**9, None)
    assert score(worst, {}) == 100


@pytest.mark.parametrize(
    ("candidate", "usual", "why"),
    [
        (PLAIN, USUAL, ("1 h before", "an update", "2 fields changed")),
        (replace(PLAIN, changes=1), {"server.updated": 1},
         ("1 h before", "an update", "1 field changed", "the only server.updated here in 24 h")),
        (replace(PLAIN, changes=0, outcome="failure"), {"server.updated": 3},
         ("1 h before", "an update", "failed", "one of 3 server.updated here in 24 h")),
        (replace(PLAIN, occurred_at=AROUND + timedelta(seconds=61), verb="READ", changes=0), {"server.updated": 1},
         ("1 min after", "only a look")),
        (replace(PLAIN, occurred_at=AROUND - timedelta(seconds=59), verb="OTHER", changes=0, related="node n1"), {},
         ("59 s before", "on node n1, which events of this server name")),
        (replace(PLAIN, occurred_at=AROUND, verb="nonsense", changes=0), USUAL, ("at that moment",)),
        (replace(PLAIN, occurred_at=AROUND - timedelta(microseconds=1), action=None, verb=None, changes=0), {}, ("at that moment",)),
    ],
)  # fmt: skip
def test_the_reasons_are_told(candidate: Candidate, usual: dict[str, int], why: tuple[str, ...]) -> None:
    assert ranked(candidate, usual).why == why


candidates = st.builds(
    Candidate,
    st.integers(0, 10**9),
    st.integers(-24 * 3600, 300).map(lambda seconds: AROUND + timedelta(seconds=seconds)),
    st.sampled_from(["server.updated", "server.deleted", None]),
    st.sampled_from([*VERBS, None]),
    st.sampled_from(["success", "failure", "unknown", None]),
    st.integers(0, 2000),
    st.sampled_from([None, "node n1"]),
)


@given(st.lists(candidates, max_size=20, unique_by=lambda one: one.seq), st.randoms())
def test_the_order_is_by_score_then_newest_whatever_came_first(found: list[Candidate], chance: random.Random) -> None:
    listed = rank(found, AROUND, DAY, usual=USUAL)
    assert sorted(one.candidate.seq for one in listed) == sorted(one.seq for one in found)
    for one, other in pairwise(listed):
        assert one.score >= other.score
        if one.score == other.score:
            assert (one.candidate.occurred_at, one.candidate.seq) > (other.candidate.occurred_at, other.candidate.seq)
    assert all(0 <= one.score <= 100 for one in listed)
    shuffled = chance.sample(found, len(found))
    assert rank(shuffled, AROUND, DAY, usual=USUAL) == listed
