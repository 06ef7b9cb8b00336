"""What the service notes about itself: one list, and every example of it passes the rules that hold for every event."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from audit_service.core import redaction
from audit_service.core.control import KINDS
from audit_service.core.entry import JSONObject
from audit_service.core.event import EventLimits, validate
from audit_service.core.own_event import OPERATOR, OWN_ACTIONS, Actor, OwnEvent, Target
from audit_service.core.redaction import compile_ruleset
from audit_service.core.sight import OWN_PREFIX, Sight
from audit_service.errors import InvalidEventError

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "watching.md"


def example(action: str) -> OwnEvent:
    return OwnEvent(
        action,
        Actor("api_key", "4Fj2kQ9xZ0aB", "backend"),
        "0193-id",
        NOW,
        Target("api_key", "9Fj2kQ9xZ0aC", "frontend"),
        "success",
        "203.0.113.9",
        "without the scope export",
        OWN_ACTIONS[action].example,
    )


@pytest.mark.parametrize("action", OWN_ACTIONS)
def test_an_example_is_an_event_but_for_its_reserved_names(action: str) -> None:
    """Nobody else may post an event of its action, or in the name of its source."""
    event = example(action).as_json()
    with pytest.raises(InvalidEventError) as refused:
        validate(event, now=NOW, limits=EventLimits())
    assert [fault.pointer for fault in refused.value.faults] == ["/action", "/source/id"]
    others: JSONObject = {**event, "action": "x", "source": {"id": "panel"}}
    assert validate(others, now=NOW, limits=EventLimits()) == others


@pytest.mark.parametrize("action", OWN_ACTIONS)
def test_redaction_finds_nothing_in_an_example(action: str) -> None:
    """Names of members that redaction takes for those of secrets would hide what is to be seen."""
    event = example(action).as_json()
    assert redaction.redact_event(event, [], compile_ruleset())[0] == event


@pytest.mark.parametrize("action", OWN_ACTIONS)
def test_only_who_sees_the_services_own_sees_it(action: str) -> None:
    assert action.startswith(OWN_PREFIX)
    assert not Sight().admits(action=action, server_id=None)
    assert Sight(own_entries=True).admits(action=action, server_id=None)


def test_no_action_is_that_of_a_control_entry() -> None:
    assert OWN_ACTIONS.keys().isdisjoint(f"audit.{kind}" for kind in KINDS)


def test_an_action_outside_the_list_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match=r"audit\.other"):
        OwnEvent("audit.other", OPERATOR, "1", NOW)


def test_the_page_names_every_action_and_no_other() -> None:
    lines = PAGE.read_text("utf-8").splitlines()
    named = [line.split("`")[1] for line in lines if line.startswith("| `audit.")]
    assert sorted(named) == sorted([*OWN_ACTIONS, *(f"audit.{kind}" for kind in KINDS)])
