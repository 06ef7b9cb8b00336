"""Timeline: hours, days and months of real zones, against what Python's own calendar says of each quarter of an hour."""

import doctest
from collections import Counter
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import timeline
from audit_service.core.event import EARLIEST
from audit_service.core.timeline import LATEST, QUARTER, Interval, edges, first_moment, quarter_start, sums

# Whole and broken offsets, changes by an hour and by half of one, at midnight and over the date line.
ZONES = [
    "UTC", "Europe/Berlin", "Pacific/Kiritimati", "America/St_Johns", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe",
    "America/Sao_Paulo", "America/Havana", "Asia/Beirut", "Pacific/Apia", "Pacific/Chatham", "Africa/Casablanca", "Asia/Pyongyang",
]  # fmt: skip
INTERVALS: list[Interval] = ["hour", "day", "month"]
zones = st.sampled_from(ZONES).map(ZoneInfo)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
STEPS = {"hour": timedelta(hours=9), "day": timedelta(days=9), "month": timedelta(days=100)}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def listed(first: str, end: str, interval: Interval, zone: str) -> list[str]:
    """The edges as the zone's clock shows them."""
    found = edges(utc(first), utc(end), interval, ZoneInfo(zone))
    return [edge.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes") for edge in found]


def test_the_module_s_example_is_right() -> None:
    result = doctest.testmod(timeline)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_the_spring_day_of_berlin_has_twenty_three_hours() -> None:
    assert listed("2025-03-30T12:00Z", "2025-03-31T12:00Z", "day", "Europe/Berlin") == [
        "2025-03-30T00:00+01:00", "2025-03-31T00:00+02:00", "2025-04-01T00:00+02:00",
    ]  # fmt: skip
    hours = listed("2025-03-30T00:00+01:00", "2025-03-31T00:00+02:00", "hour", "Europe/Berlin")
    assert len(hours) - 1 == 23
    assert hours[1:4] == ["2025-03-30T01:00+01:00", "2025-03-30T03:00+02:00", "2025-03-30T04:00+02:00"]


def test_the_autumn_day_of_berlin_has_the_same_hour_twice() -> None:
    hours = listed("2025-10-26T00:00+02:00", "2025-10-27T00:00+01:00", "hour", "Europe/Berlin")
    assert len(hours) - 1 == 25
    assert hours[2:4] == ["2025-10-26T02:00+02:00", "2025-10-26T02:00+01:00"]


def test_a_month_has_the_offset_of_its_own_ends() -> None:
    assert listed("2025-10-05T00:00Z", "2025-12-01T00:00+01:00", "month", "Europe/Berlin") == [
        "2025-10-01T00:00+02:00", "2025-11-01T00:00+01:00", "2025-12-01T00:00+01:00",
    ]  # fmt: skip


def test_days_begin_far_from_utc_and_at_half_hours() -> None:
    assert listed("2025-06-01T11:00Z", "2025-06-01T12:00Z", "day", "Pacific/Kiritimati")[0] == "2025-06-02T00:00+14:00"
    assert next(edges(utc("2025-06-01T11:00Z"), LATEST, "day", ZoneInfo("Asia/Kolkata"))) == utc("2025-05-31T18:30Z")
    assert next(edges(utc("2025-06-01T11:00Z"), LATEST, "hour", ZoneInfo("Asia/Kolkata"))) == utc("2025-06-01T10:30Z")
    assert next(edges(utc("2025-06-01T11:00Z"), LATEST, "hour", ZoneInfo("Asia/Kathmandu"))) == utc("2025-06-01T10:15Z")


def test_where_midnight_is_skipped_the_day_begins_at_one() -> None:
    assert first_moment(date(2018, 11, 4), ZoneInfo("America/Sao_Paulo")) == utc("2018-11-04T01:00-02:00")


def test_where_midnight_comes_twice_the_day_begins_with_the_first() -> None:
    assert first_moment(date(2025, 11, 2), ZoneInfo("America/Havana")) == utc("2025-11-02T00:00-04:00")


def test_a_date_that_was_left_out_has_no_bucket() -> None:
    """Samoa went from the 29th to the 31st of December 2011."""
    assert listed("2011-12-29T12:00-10:00", "2012-01-01T00:00+14:00", "day", "Pacific/Apia") == [
        "2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00",
    ]  # fmt: skip


@given(moments, st.sampled_from(INTERVALS), zones, st.floats(0, 1))
def test_edges_part_time_into_buckets_without_a_gap(
    first: datetime, interval: Interval, zone: tzinfo, share: float
) -> None:
    end = first + STEPS[interval] * share
    found = list(edges(first, end, interval, zone))
    assert found[0] <= first
    assert found[-1] >= end
    assert all(one < other for one, other in pairwise(found))
    assert len(found) == 1 or found[-2] < end


@given(moments, st.sampled_from(["hour", "day", "month"]), zones)
def test_every_quarter_of_a_bucket_shows_its_date_and_hour(first: datetime, interval: Interval, zone: tzinfo) -> None:
    """Only what a clock that is set back repeats belongs to the bucket that began: the day over midnight, or the half hour."""
    start, stop = islice(edges(first, LATEST, interval, zone), 2)
    length = {"hour": 13, "day": 10, "month": 7}[interval]
    shown = start.astimezone(zone).isoformat()[:length]
    set_back = timedelta(0)
    for number in range((stop - start) // QUARTER):
        local = (start + number * QUARTER).astimezone(zone)
        before = (start + (number - 1) * QUARTER).astimezone(zone)
        set_back = max(set_back, (before.utcoffset() or timedelta()) - (local.utcoffset() or timedelta()))
        assert local.isoformat()[:length] == shown or set_back
    assert stop.astimezone(zone).isoformat()[:length] != shown or set_back


@given(st.lists(st.integers(0, 4000)), moments, st.sampled_from(INTERVALS), zones)
def test_sums_are_what_lies_between_the_edges(
    offsets: list[int], first: datetime, interval: Interval, zone: tzinfo
) -> None:
    counts = Counter(quarter_start(first + offset * QUARTER) for offset in offsets)
    bounds = list(edges(first, first + STEPS[interval], interval, zone))
    expected = [sum(count for at, count in counts.items() if one <= at < other) for one, other in pairwise(bounds)]
    assert sums(counts, bounds) == expected


@given(moments)
def test_a_quarter_begins_at_a_whole_one(at: datetime) -> None:
    start = quarter_start(at)
    assert timedelta(0) <= at - start < QUARTER
    assert (start.minute % 15, start.second, start.microsecond, start.tzinfo) == (0, 0, 0, UTC)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("zone", ZONES)
def test_the_ends_of_time_have_buckets_too(zone: str, interval: Interval) -> None:
    assert list(edges(EARLIEST, EARLIEST + QUARTER, interval, ZoneInfo(zone)))[-1] > EARLIEST
    assert list(edges(LATEST - QUARTER, LATEST, interval, ZoneInfo(zone)))[-1] >= LATEST


def test_every_zone_is_whole_quarters_of_an_hour_from_utc_since_the_earliest_event() -> None:
    """What the whole index of quarters rests on. A year before, for the month and day that begin earlier elsewhere."""
    names = available_timezones()
    assert len(names) > 400
    for zone in map(ZoneInfo, names):
        for month in range(-12, 12 * 40):
            offset = (EARLIEST + timedelta(days=30.4) * month).astimezone(zone).utcoffset()
            assert offset is not None
            assert not offset % QUARTER, zone
