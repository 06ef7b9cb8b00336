"""Token buckets against a plain model; places that one key cannot take all."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core.bucket import Buckets
from audit_service.core.places import Places
from audit_service.errors import RateLimitedError, UnavailableError

# (seconds since the one before, tokens asked for)
STEPS = st.lists(st.tuples(st.integers(0, 40).map(lambda quarter: quarter / 4), st.integers(1, 30)), max_size=60)


class PlainBucket:
    """The textbook: a level that rises with time."""

    def __init__(self, capacity: int, per_second: float) -> None:
        self.capacity, self.per_second = capacity, per_second
        self.level = float(capacity)

    def pass_time(self, seconds: float) -> None:
        """Fill up."""
        self.level = min(self.level + seconds * self.per_second, self.capacity)

    def take(self, tokens: int) -> bool:
        """Whether they were there."""
        if self.level + 1e-6 < min(tokens, self.capacity):
            return False
        self.level -= tokens
        return True


@given(STEPS, st.integers(1, 20), st.sampled_from([0.5, 1.0, 2.0, 4.0]))
def test_a_bucket_grants_what_the_textbook_grants(
    steps: list[tuple[float, int]], capacity: int, per_second: float
) -> None:
    buckets, plain, now = Buckets("x", per_second, capacity), PlainBucket(capacity, per_second), 1000.0
    for seconds, tokens in steps:
        now += seconds
        plain.pass_time(seconds)
        granted = plain.take(tokens)
        wait = buckets.take("key", tokens, now)
        assert (wait == 0.0) is granted
        assert buckets.left("key", now)[0] == max(int(plain.level + 1e-6), 0)


@given(STEPS, st.integers(1, 20))
def test_after_the_wait_that_was_named_the_tokens_are_there_and_not_before(
    steps: list[tuple[float, int]], capacity: int
) -> None:
    buckets, now = Buckets("x", 2.0, capacity), 0.0
    for seconds, tokens in steps:
        now += seconds
        wait = buckets.take("key", tokens, now)
        if wait:
            assert buckets.take("key", tokens, now + wait - 0.001) > 0
            now += wait
            assert buckets.take("key", tokens, now + 1e-6) == 0.0


def test_no_key_pays_for_another() -> None:
    buckets = Buckets("x", 1.0, 2)
    assert [buckets.take("a", 1, 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert buckets.take("b", 2, 0.0) == 0.0


def test_a_stream_is_slowed_to_the_rate_and_never_refused() -> None:
    buckets, now = Buckets("x", 10.0, 100), 0.0
    for _ in range(100):
        now += buckets.charge("key", 20, now)
    assert now == pytest.approx((100 * 20 - 100) / 10.0)


def test_memory_is_bounded_and_the_last_used_are_kept() -> None:
    buckets = Buckets("x", 1.0, 1, keys_limit=100)
    for number in range(10_000):
        buckets.take(number, 1, 0.0)
    assert len(buckets) == 100
    assert buckets.take(9_999, 1, 0.0) > 0
    assert buckets.take(0, 1, 0.0) == 0.0


def test_one_key_gets_its_share_of_the_places_and_all_together_the_limit() -> None:
    places = Places("exports", limit=3, per_key=2, retry_after_seconds=5)
    with ExitStack() as held:
        held.enter_context(places.take(1, "a"))
        held.enter_context(places.take(1, "a"))
        with pytest.raises(RateLimitedError) as refused, places.take(1, "a"):
            pass
        assert (refused.value.policy, refused.value.retry_after_seconds) == ("exports", 5)
        held.enter_context(places.take(2, "a"))
        with pytest.raises(UnavailableError), places.take(3, "a"):
            pass
        assert places.taken == 3
    assert places.taken == 0
    with places.take(1, "a"):
        assert places.taken == 1


def test_the_keys_of_one_log_leave_a_place_to_the_other_logs() -> None:
    places = Places("exports", limit=3, per_key=2, retry_after_seconds=5)
    with places.take(1, "a"), places.take(1, "b"):
        with pytest.raises(RateLimitedError) as refused, places.take(1, "c"):
            pass
        assert (refused.value.detail, refused.value.policy) == (
            "this tenant has as many exports running as it may",
            "exports",
        )
        with places.take(2, "a"):
            assert places.taken == 3
    single = Places("exports", limit=1, per_key=2, retry_after_seconds=5)
    with single.take(1, "a"):
        assert single.taken == 1
