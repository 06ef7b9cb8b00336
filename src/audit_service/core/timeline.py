"""Timeline: the hours, days and months of a time zone, and counts per quarter of an hour put together to them.

Since EARLIEST every zone of the world has been whole quarters of an hour from UTC, so counts per quarter in UTC serve all of them. Buckets
follow each other without a gap, and are as long as clock and calendar there make them:

- an *hour* begins whenever the clock shows a full one. The hour that autumn repeats is two buckets.
- a *day* and a *month* begin with the first moment of their date. A date that a zone left out has no bucket.

>>> from datetime import datetime
>>> from zoneinfo import ZoneInfo
>>> berlin = ZoneInfo("Europe/Berlin")
>>> first, end = (datetime(2026, 10, day, 12, tzinfo=berlin) for day in (24, 25))
>>> [edge.isoformat() for edge in edges(first, end, "day", berlin)]
['2026-10-23T22:00:00+00:00', '2026-10-24T22:00:00+00:00', '2026-10-25T23:00:00+00:00']
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal

from audit_service.core.event import EARLIEST

Interval = Literal["hour", "day", "month"]
QUARTER = timedelta(minutes=15)
# No event can be older than EARLIEST (decades with odd offsets lie before), and no calendar ends before LATEST.
LATEST = datetime(9000, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)


def quarter_start(at: datetime) -> datetime:
    """The beginning of the quarter of an hour, in UTC."""
    return at.astimezone(UTC) - (at - EARLIEST) % QUARTER


def first_moment(day: date, zone: tzinfo) -> datetime:
    """When a date begins in a zone, in UTC. Where midnight is skipped, what comes next; where it comes twice, the first."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def edges(first: datetime, end: datetime, interval: Interval, zone: tzinfo) -> Iterator[datetime]:
    """Where buckets begin, in UTC: from the one that `first` is in, to the first edge at or behind `end`. Both lie within
    [EARLIEST, LATEST]."""
    last = None
    for edge in _hours(first, zone) if interval == "hour" else _dates(first, interval, zone):
        if edge == last:  # a date that was left out
            continue
        yield edge
        if edge >= end:
            return
        last = edge


def sums(counts: Mapping[datetime, int], bounds: Sequence[datetime]) -> list[int]:
    """The sum of the counts in each bucket between neighbouring `bounds`. `counts` is by the beginning of the quarter."""
    found = [0] * (len(bounds) - 1)
    for at, count in counts.items():
        place = bisect_right(bounds, at) - 1
        if 0 <= place < len(found):
            found[place] += count
    return found


def _hours(first: datetime, zone: tzinfo) -> Iterator[datetime]:
    at = quarter_start(first)
    while at.astimezone(zone).minute:
        at -= QUARTER
    while True:
        yield at
        at += QUARTER
        while at.astimezone(zone).minute:
            at += QUARTER


def _dates(first: datetime, interval: Literal["day", "month"], zone: tzinfo) -> Iterator[datetime]:
    day = first.astimezone(zone).date()
    if interval == "month":
        day = day.replace(day=1)
    while True:
        yield first_moment(day, zone)
        day = day + _DAY if interval == "day" else (day + 31 * _DAY).replace(day=1)
