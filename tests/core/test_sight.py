"""A sight within another admits what both admit, and hides what either hides."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from audit_service.core.sight import EVERYTHING, NOTHING, Sight

few = st.sampled_from(["", "a", "b", "c"])
sights = st.builds(
    Sight,
    server_ids=st.none() | st.frozensets(few),
    global_events=st.booleans(),
    categories=st.none() | st.frozensets(few),
    actor_id=st.none() | few,
    actor_type=st.none() | few,
    own_entries=st.booleans(),
    ips=st.booleans(),
    emails=st.booleans(),
    staff_as=st.none() | st.sampled_from(["Support", "Staff"]),
    staff_types=st.frozensets(few, min_size=1),
)
entries = st.fixed_dictionaries(
    {
        "action": st.sampled_from(["audit.key.created", "audit", "server.created"]),
        "server_id": st.none() | few,
        "category": st.none() | few,
        "actor_id": st.none() | few,
        "actor_type": st.none() | few,
    }
)


@given(sights, sights, entries)
def test_within_admits_what_both_admit(one: Sight, other: Sight, entry: dict[str, Any]) -> None:
    assert one.within(other).admits(**entry) == (one.admits(**entry) and other.admits(**entry))


@given(sights, sights)
def test_within_hides_what_either_hides(one: Sight, other: Sight) -> None:
    both = one.within(other)
    assert (both.ips, both.emails) == (one.ips and other.ips, one.emails and other.emails)
    hiding = [sight for sight in (one, other) if sight.staff_as is not None]
    assert (both.staff_as is None) == (not hiding)
    assert all(both.staff_types >= sight.staff_types for sight in hiding)


@given(sights)
def test_everything_takes_nothing_away(sight: Sight) -> None:
    assert sight.within(EVERYTHING) == sight
    assert sight.within(sight) == sight


@given(entries, sights)
def test_everything_admits_all_and_nothing_admits_none(entry: dict[str, Any], sight: Sight) -> None:
    assert EVERYTHING.admits(**entry)
    assert not NOTHING.admits(**entry)
    assert not sight.within(NOTHING).admits(**entry)
    assert sight.within(NOTHING).sees_every_row is False


@given(sights, entries)
def test_who_sees_every_row_sees_every_entry_that_a_panel_sent(sight: Sight, entry: dict[str, Any]) -> None:
    if sight.sees_every_row:
        assert sight.admits(**entry | {"action": "server.created"})
