"""Limits of keys as values: stored and read back, handed on, and what they say of events and addresses."""

import doctest
import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import key_limits, posting
from audit_service.core.key_limits import KeyLimits, Network, parse_limits
from audit_service.core.sight import EVERYTHING, NOTHING, STAFF_TYPES, Sight

names = st.sampled_from(["a", "b", "c"])
sets = st.none() | st.frozensets(names)
networks: st.SearchStrategy[Network] = st.sampled_from(
    [
        ip_network(text)
        for text in ("192.0.2.0/24", "192.0.2.7/32", "198.51.100.0/24", "2001:db8::/32", "2001:db8:1::/48")
    ]
)


@st.composite
def limits(draw: st.DrawFn) -> KeyLimits:
    """Any limits."""
    staff_as = draw(st.none() | st.sampled_from(["Staff", "Support"]))
    sight = Sight(
        *(draw(sets), draw(st.booleans()), draw(sets), draw(st.none() | names)),
        *(draw(st.booleans()), draw(st.booleans()), draw(st.booleans()), staff_as),
        staff_types=STAFF_TYPES if staff_as is None else draw(st.frozensets(names, min_size=1)),
    )
    nets = draw(st.none() | st.lists(networks, min_size=1, max_size=3))
    return KeyLimits(sight, draw(st.none() | names), None if nets is None else tuple(nets))


@pytest.mark.parametrize("module", [key_limits, posting])
def test_the_examples_of_the_modules_hold(module: Any) -> None:
    """The format pages run."""
    assert doctest.testmod(module).failed == 0


@given(limits())
def test_what_is_stored_is_read_back(some: KeyLimits) -> None:
    """Through JSON, as PostgreSQL keeps it."""
    assert parse_limits(json.loads(json.dumps(some.as_json()))) == some


def test_a_key_from_before_limits_has_none() -> None:
    """The migration gives every key `{}`."""
    assert parse_limits({}) == KeyLimits(Sight())
    assert parse_limits({}).posting is None


@given(limits(), limits())
def test_nothing_that_is_not_beyond_reaches_further(asked: KeyLimits, own: KeyLimits) -> None:
    """Where `beyond` finds nothing, whatever the new key admits, its maker admits too; and where it finds something, there is more."""
    if asked.beyond(own):
        assert asked != own
        return
    for action in ("x", "audit.x"):
        for server_id in (None, "a", "b"):
            for category in ("a", "b"):
                for actor_id in ("a", "b"):
                    event: dict[str, Any] = {
                        "action": action, "server_id": server_id, "category": category, "actor_id": actor_id
                    }  # fmt: skip
                    assert own.sight.admits(**event) or not asked.sight.admits(**event)
    assert own.sight.ips or not asked.sight.ips
    assert own.sight.emails or not asked.sight.emails
    assert asked.within(own).sight.server_ids == asked.sight.server_ids
    for text in ("192.0.2.7", "192.0.2.9", "198.51.100.1", "2001:db8:1::1", "2001:db8:2::1", "203.0.113.1"):
        assert own.allows_peer(ip_address(text)) or not asked.allows_peer(ip_address(text))
    assert own.allows_peer(None) or not asked.allows_peer(None)


WHOLE = KeyLimits(EVERYTHING)
NARROW = KeyLimits(
    Sight(
        frozenset({"a"}), False, frozenset({"c"}), "u1", False, False, False, "Support", frozenset({"admin"}), "user"
    ),
    "src",
    (ip_network("192.0.2.0/24"),),
)
MORE: dict[str, KeyLimits] = {
    "/server_ids": replace(NARROW, sight=replace(NARROW.sight, server_ids=frozenset({"a", "b"}))),
    "/global_events": replace(NARROW, sight=replace(NARROW.sight, global_events=True)),
    "/categories": replace(NARROW, sight=replace(NARROW.sight, categories=None)),
    "/actor_id": replace(NARROW, sight=replace(NARROW.sight, actor_id="u2")),
    "/actor_type": replace(NARROW, sight=replace(NARROW.sight, actor_type=None)),
    "/audit_entries": replace(NARROW, sight=replace(NARROW.sight, own_entries=True)),
    "/ips": replace(NARROW, sight=replace(NARROW.sight, ips=True)),
    "/emails": replace(NARROW, sight=replace(NARROW.sight, emails=True)),
    "/staff_as": replace(NARROW, sight=replace(NARROW.sight, staff_as=None)),
    "/staff_types": replace(NARROW, sight=replace(NARROW.sight, staff_types=frozenset({"staff"}))),
    "/source_id": replace(NARROW, source_id=None),
    "/networks": replace(NARROW, networks=(ip_network("192.0.0.0/16"),)),
}


@pytest.mark.parametrize("pointer", MORE)
def test_each_limit_that_is_left_open_is_named(pointer: str) -> None:
    """One fault, with its place."""
    assert [fault.pointer for fault in MORE[pointer].beyond(NARROW)] == [pointer]
    assert NARROW.beyond(NARROW) == []
    assert MORE[pointer].beyond(WHOLE) == []


def test_the_other_label_of_staff_is_not_more() -> None:
    """But the maker's stays."""
    asked = replace(NARROW, sight=replace(NARROW.sight, staff_as="Team"))
    assert asked.beyond(NARROW) == []
    assert asked.within(NARROW).sight.staff_as == "Support"


def test_an_address_that_cannot_be_told_is_only_for_keys_without_networks() -> None:
    """As over a Unix socket."""
    assert WHOLE.allows_peer(None)
    assert not NARROW.allows_peer(None)
    assert NARROW.allows_peer(ip_address("192.0.2.1"))
    assert not NARROW.allows_peer(ip_address("::1"))


EVENTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"server_id": "a", "source": {"id": "src"}}, []),
    ({"server_id": "a", "source": {"seq": 7}}, []),
    ({"server_id": "a"}, []),
    ({}, ["/server_id"]),
    ({"server_id": "b"}, ["/server_id"]),
    ({"server_id": "a", "source": {"id": "other"}}, ["/source/id"]),
    ({"server_id": "b", "source": {"id": "other"}}, ["/server_id", "/source/id"]),
]


@pytest.mark.parametrize(("event", "pointers"), EVENTS)
def test_what_may_be_posted(event: dict[str, Any], pointers: list[str]) -> None:
    """The rows that are seen are those that may be posted."""
    assert NARROW.posting is not None
    assert [fault.pointer for fault in NARROW.posting.faults(event, "c")] == pointers
    assert {fault.pointer for fault in NARROW.posting.faults(event, "d")} == {*pointers, "/category"}


def test_a_limit_that_is_not_known_keeps_everything_out() -> None:
    """One that a newer version has stored."""
    for stored in ({"server_idz": ["s1"]}, KeyLimits(EVERYTHING).as_json() | {"rooms": ["r1"]}):
        found = parse_limits(stored)
        assert found.sight == NOTHING
        assert found.posting is not None
        assert found.posting.faults({"action": "x"}, "x")
