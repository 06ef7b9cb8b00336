"""What is left of an entry under a sight, and what is not."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core.bursts import Act, fold
from audit_service.core.entry import GROUPS
from audit_service.core.mask import holds_address, mask_act, mask_values
from audit_service.core.sight import EVERYTHING, STAFF_TYPES, Sight

NO_IPS, NO_EMAILS, NO_STAFF = Sight(ips=False), Sight(emails=False), Sight(staff_as="Support")
VALUES: dict[str, Any] = {
    "actor": {"id": "u1", "name": "Ana", "role": "owner"},
    "actor_email": "ana@panel.test",
    "on_behalf_of": {"type": "user", "id": "u2", "name": "Bo", "email": "bo@panel.test"},
    "ip": "203.0.113.9",
    "context": {"user_agent": "curl", "session_id": "5f", "request_id": "r1"},
    "target": {"id": "9", "name": "web", "related": [{"type": "backup", "id": "3"}]},
    "text": {"description": "rebooted for ana@panel.test"},
    "metadata": {"amount": 3},
    "changes": [{"path": "/ram", "op": "replace", "old": 4, "new": 8}],
}
OF_USER: dict[str, Any] = {"actor_type": "user"}
OF_STAFF: dict[str, Any] = {"actor_type": "admin"}


def without(*groups: str) -> dict[str, Any]:
    return {group: value for group, value in VALUES.items() if group not in groups}


@pytest.mark.parametrize("body", [OF_USER, OF_STAFF, {}])
def test_what_hides_nothing_leaves_everything(body: dict[str, Any]) -> None:
    assert mask_values(body, VALUES, EVERYTHING) == (VALUES, [])
    assert mask_values(body, VALUES, Sight(server_ids=frozenset(), categories=frozenset())) == (VALUES, [])


def test_addresses_are_left_out() -> None:
    assert mask_values(OF_USER, VALUES, NO_IPS) == (without("ip"), ["ip"])
    assert mask_values(OF_USER, without("ip"), NO_IPS) == (without("ip"), [])


def test_emails_are_left_out_of_both_people() -> None:
    behalf = {"type": "user", "id": "u2", "name": "Bo"}
    expected = {**without("actor_email"), "on_behalf_of": behalf}
    assert mask_values(OF_USER, VALUES, NO_EMAILS) == (expected, ["actor_email", "on_behalf_of"])


def test_an_email_in_place_of_a_name_or_an_id_is_one_all_the_same() -> None:
    values: dict[str, Any] = {
        "actor": {"id": "ana@panel.test", "name": "Ana <ana@panel.test>", "role": "owner"},
        "on_behalf_of": {"id": "bo@panel.test", "name": "Bo"},
    }
    expected = {"actor": {"role": "owner"}, "on_behalf_of": {"name": "Bo"}}
    assert mask_values(OF_USER, values, NO_EMAILS) == (expected, ["actor", "on_behalf_of"])
    only: dict[str, Any] = {"actor": {"id": "ana@panel.test"}, "on_behalf_of": {"email": "x"}}
    assert mask_values(OF_USER, only, NO_EMAILS) == ({}, ["actor", "on_behalf_of"])


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("a@b", True),
        ("ana@panel.test", True),
        ("@ana:matrix.test", False),
        ("ana", False),
        ("at @ home", False),
        ("@", False),
        ("a@ b@c", True),
    ],
)
def test_what_counts_as_an_address(text: str, is_one: bool) -> None:
    assert holds_address(text) is is_one


@pytest.mark.parametrize("kind", sorted(STAFF_TYPES))
def test_of_staff_only_the_common_name_is_left(kind: str) -> None:
    visible, hidden = mask_values({"actor_type": kind}, VALUES, NO_STAFF)
    groups = ("actor", "actor_email", "on_behalf_of", "ip", "context")
    assert visible == {**without(*groups), "actor": {"name": "Support"}}
    assert hidden == sorted(groups)


def test_others_keep_their_names_where_staff_is_hidden() -> None:
    assert mask_values(OF_USER, VALUES, NO_STAFF) == (VALUES, [])
    assert mask_values({}, VALUES, NO_STAFF) == (VALUES, [])
    own_types = replace(NO_STAFF, staff_types=frozenset({"operator"}))
    assert mask_values(OF_STAFF, VALUES, own_types) == (VALUES, [])
    assert mask_values({"actor_type": "operator"}, VALUES, own_types)[0]["actor"] == {"name": "Support"}


def test_staff_for_whom_somebody_acted_is_hidden_too() -> None:
    values = {**VALUES, "on_behalf_of": {"type": "admin", "id": "a1", "name": "Root", "email": "root@panel.test"}}
    expected = {**values, "on_behalf_of": {"type": "admin", "name": "Support"}}
    assert mask_values(OF_USER, values, NO_STAFF) == (expected, ["on_behalf_of"])


def test_staff_of_whom_nothing_is_left_in_the_log_has_the_common_name_too() -> None:
    assert mask_values(OF_STAFF, {}, NO_STAFF) == ({"actor": {"name": "Support"}}, [])


def test_the_values_given_stay_as_they_are() -> None:
    before = json.dumps(VALUES)
    mask_values(OF_STAFF, VALUES, Sight(ips=False, emails=False, staff_as="Support"))
    mask_values(OF_USER, VALUES, Sight(ips=False, emails=False))
    assert json.dumps(VALUES) == before


sights = st.builds(Sight, ips=st.booleans(), emails=st.booleans(), staff_as=st.sampled_from((None, "Staff")))
some_values = st.sets(st.sampled_from(GROUPS)).map(lambda groups: {group: VALUES[group] for group in groups})


@given(sights, st.sampled_from((OF_USER, OF_STAFF, {})), some_values)
def test_hidden_names_exactly_the_groups_of_which_something_is_missing(
    sight: Sight, body: dict[str, Any], values: dict[str, Any]
) -> None:
    visible, hidden = mask_values(body, values, sight)
    assert hidden == sorted(group for group in values if visible.get(group) != values[group])
    assert mask_values(body, visible, sight)[0] == visible  # what is hidden once has nothing more to hide
    assert {"target", "text", "metadata", "changes"}.isdisjoint(hidden)


def act(seq: int, kind: str | None, **of_actor: str | None) -> Act:
    who = {"actor_id": None, "actor_name": None, "actor_email": None, **of_actor}
    at = datetime(2026, 11, 22, 10, 15, seq, tzinfo=UTC)
    return Act(seq, at, "label.added", kind, target_type="vm", target_id="1", **who)


def test_no_fold_tells_members_of_staff_apart() -> None:
    acts = [act(0, "admin", actor_id="a1"), act(1, "admin", actor_id="a2"), act(2, "user", actor_id="u1")]
    assert [burst.count for burst in fold(acts)] == [1, 1, 1]
    assert [burst.count for burst in fold(mask_act(one, NO_STAFF) for one in acts)] == [2, 1]


def test_no_fold_tells_emails_apart() -> None:
    acts = [
        act(0, "user", actor_name="Ana", actor_email="one@panel.test"),
        act(1, "user", actor_name="Ana", actor_email="two@panel.test"),
    ]
    assert [burst.count for burst in fold(acts)] == [1, 1]
    assert [burst.count for burst in fold(mask_act(one, NO_EMAILS) for one in acts)] == [2]
    hidden = mask_act(act(0, "user", actor_id="ana@panel.test"), NO_EMAILS)
    assert (hidden.actor_id, hidden.actor_email) == (None, None)


def test_an_act_of_somebody_seen_stays_as_it_is() -> None:
    one = act(0, "user", actor_id="u1", actor_name="Ana", actor_email="ana@panel.test")
    assert mask_act(one, EVERYTHING) is one
    assert mask_act(one, NO_STAFF) is one
    assert mask_act(one, NO_EMAILS) == one._replace(actor_email=None)
