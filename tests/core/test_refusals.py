"""Refused requests are counted by kind, and any number of them makes a bounded number of counts."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from audit_service.core.own_event import Actor
from audit_service.core.refusals import KINDS_LIMIT, ROUTES_LIMIT, Refusal, Refusals

AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
UNKNOWN = Refusal(None, "audit.auth.failed", "an unknown key", "203.0.113.9")


def test_alike_ones_are_one_count_until_its_window_is_over() -> None:
    refusals = Refusals(window_seconds=60)
    for second in range(50):
        refusals.add(UNKNOWN, "GET /v1/events", now=float(second), at=AT + timedelta(seconds=second))
    assert refusals.next_due == 60.0
    assert refusals.take(59.9) == []
    (counted,) = refusals.take(60.0)
    assert (counted.count, counted.first, counted.last) == (50, AT, AT + timedelta(seconds=49))
    assert counted.routes == {"GET /v1/events"}
    assert refusals.take(1000.0) == []
    assert refusals.next_due is None


def test_log_reason_address_and_credential_tell_them_apart() -> None:
    refusals = Refusals()
    others = [
        Refusal(7, UNKNOWN.action, UNKNOWN.reason, UNKNOWN.ip),
        Refusal(None, "audit.access.denied", UNKNOWN.reason, UNKNOWN.ip),
        Refusal(None, UNKNOWN.action, "a mistyped key", UNKNOWN.ip),
        Refusal(None, UNKNOWN.action, UNKNOWN.reason, "203.0.113.10"),
        Refusal(None, UNKNOWN.action, UNKNOWN.reason, None),
        Refusal(None, UNKNOWN.action, UNKNOWN.reason, UNKNOWN.ip, Actor("api_key", "k1")),
    ]
    for refusal in (UNKNOWN, *others):
        refusals.add(refusal, "GET /", now=0.0, at=AT)
    assert [one.refusal for one in refusals.take(None)] == [UNKNOWN, *others]


def test_an_ipv6_host_has_a_whole_network_to_come_from() -> None:
    refusals = Refusals()
    for host in ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"):
        refusals.add(Refusal(None, "audit.auth.failed", "an unknown key", host), "GET /", now=0.0, at=AT)
    assert [(one.refusal.ip, one.count) for one in refusals.take(None)] == [("2001:db8::1", 2), ("2001:db8:0:1::1", 1)]
    # An IPv4 address written as IPv6 is that one address: all of IPv4 shares a /64 there.
    for host in ("::ffff:203.0.113.1", "::ffff:203.0.113.2"):
        refusals.add(Refusal(None, "audit.auth.failed", "an unknown key", host), "GET /", now=0.0, at=AT)
    assert len(refusals.take(None)) == 2


def test_beyond_the_limit_only_log_and_reason_are_told() -> None:
    refusals = Refusals()
    addresses = [f"10.0.{number // 256}.{number % 256}" for number in range(5000)]
    for address in addresses:
        refusals.add(Refusal(None, "audit.auth.failed", "an unknown key", address), "GET /", now=0.0, at=AT)
    counted = refusals.take(None)
    assert len(counted) == KINDS_LIMIT + 1
    assert sum(one.count for one in counted) == len(addresses)
    assert [one.count for one in counted if one.refusal.ip is None] == [len(addresses) - KINDS_LIMIT]


def test_twice_beyond_it_nothing_is_kept_and_the_caller_knows() -> None:
    refusals = Refusals(kinds_limit=4)
    kept = [
        refusals.add(Refusal(log_id, "audit.auth.failed", "a revoked key", "10.0.0.1"), "GET /", now=0.0, at=AT)
        for log_id in range(20)
    ]
    assert kept == [True] * 8 + [False] * 12
    assert len(refusals.take(None)) == 8


def test_few_routes_are_named() -> None:
    refusals = Refusals()
    for number in range(100):
        refusals.add(UNKNOWN, f"GET /{number}", now=0.0, at=AT)
    (counted,) = refusals.take(None)
    assert (counted.count, len(counted.routes)) == (100, ROUTES_LIMIT)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from("abcdefgh"), st.integers(0, 40), st.floats(0, 30, allow_nan=False)
        ),
        max_size=200,
    )
)
def test_every_refusal_is_in_exactly_one_count_or_told_to_be_dropped(
    asked: list[tuple[int, str, int, float]],
) -> None:
    refusals = Refusals(window_seconds=10, kinds_limit=5)
    now, told, dropped = 0.0, 0, 0
    for log_id, reason, host, later in asked:
        now += later
        refusal = Refusal(log_id or None, "audit.auth.failed", reason, f"10.0.0.{host}")
        dropped += not refusals.add(refusal, "GET /", now=now, at=AT)
        over = refusals.take(now)
        assert all(one.due <= now for one in over)
        told += sum(one.count for one in over)
        due = refusals.next_due
        assert due is None or due > now
    told += sum(one.count for one in refusals.take(None))
    assert told + dropped == len(asked)
