"""Whose values an erasure takes of an entry: the table in `core.forgetting`, line by line, and what is left of the query columns."""

import json
from typing import Any

import pytest

from audit_service.core.entry import ENTROPY_BYTES, GROUPS, JSONObject, prepare, project
from audit_service.core.forgetting import Erasure, Events, Person, Subject, Target, plan_erasure
from audit_service.core.view import DAMAGES, disclosed

EVENT: JSONObject = {
    "id": "e-1",
    "action": "user.updated",
    "verb": "UPDATE",
    "category": "user",
    "occurred_at": "2026-11-22T10:15:00.000000Z",
    "actor": {"type": "admin", "id": "a7", "name": "Bo", "email": "bo@example.com", "role": "Support"},
    "on_behalf_of": {"type": "user", "id": "u12", "name": "Ana"},
    "target": {"type": "user", "id": "u5", "name": "Cy"},
    "related": [{"type": "user", "id": "u9"}, {"type": "invoice", "id": "u12"}],
    "description": "as Ana asked",
    "context": {"ip": "203.0.113.9", "user_agent": "curl/8"},
    "metadata": {"note": "x"},
}
PREPARED = prepare(
    EVENT, [{"path": "/name", "op": "replace", "old": "Ci", "new": "Cy"}], ["name"], bytes(ENTROPY_BYTES)
)
USUAL_OF_ACTOR = {"actor", "actor_email", "ip", "context"}
USUAL_OF_TARGET = {"target", "text", "metadata", "changes"}


def plan(subject: Subject, groups: set[str] | None = None, **more: Any) -> Erasure | None:
    """What is erased of the event above."""
    kept = {**PREPARED.disclosures, **more.get("disclosures", {})}
    wanted = None if groups is None else frozenset(groups)
    return plan_erasure(3, more.get("body", PREPARED.body), kept, subject, wanted)


@pytest.mark.parametrize(
    ("subject", "groups", "taken"),
    [
        (Person("a7"), None, USUAL_OF_ACTOR),
        (Person("a7", "admin"), None, USUAL_OF_ACTOR),
        (Person("a7", "user"), None, set()),
        (Person("A7"), None, set()),
        (Person("a7"), {"text", "metadata"}, {"text", "metadata"}),
        (Person("u12"), None, {"on_behalf_of"}),
        (Person("u12", "user"), None, {"on_behalf_of"}),
        (Person("u12", "admin"), None, set()),
        (Person("u12"), {"ip", "context"}, set()),
        (Person("u12"), {"on_behalf_of", "ip"}, {"on_behalf_of"}),
        (Person("u5"), None, set()),  # a person who was acted upon is a target
        (Target("user", "u5"), None, USUAL_OF_TARGET),
        (Target("User", "u5"), None, set()),
        (Target("user", "u5"), {"actor"}, {"actor"}),
        (Target("user", "u9"), None, {"target"}),
        (Target("invoice", "u12"), None, {"target"}),
        (Target("user", "u12"), None, set()),  # the related one of this id is an invoice
        (Target("user", "u9"), {"text"}, set()),
        (Events(frozenset(("e-1", "e-2"))), None, set(GROUPS)),
        (Events(frozenset(("e-1",))), {"text"}, {"text"}),
        (Events(frozenset(("e-2",))), None, set()),
    ],
)
def test_an_erasure_takes_what_the_table_says(subject: Subject, groups: set[str] | None, taken: set[str]) -> None:
    found = plan(subject, groups)
    assert ({item.group for item in found.items} if found else set()) == taken
    if found is None:
        return
    body = json.loads(PREPARED.body)
    assert [item.commitment.hex() for item in found.items] == [body["sd"][item.group] for item in found.items]
    values = {group: disclosed(salted) for group, salted in PREPARED.disclosures.items() if group not in taken}
    assert found.left == project(body, values)


def test_what_is_gone_is_not_erased_again() -> None:
    found = plan_erasure(3, PREPARED.body, {"text": PREPARED.disclosures["text"]}, Events(frozenset(("e-1",))))
    assert found is not None
    assert [item.group for item in found.items] == ["text"]
    assert plan_erasure(3, PREPARED.body, {}, Events(frozenset(("e-1",)))) is None


@pytest.mark.parametrize(
    ("body", "disclosures"),
    [("no json", {}), ("[]", {}), (json.dumps({"id": "e-1"}), {}), (PREPARED.body, {"text": b"s" * 32 + b"{"})],
    ids=["no JSON", "no object", "commits to nothing", "a value that is no JSON"],
)
def test_a_row_that_no_append_wrote_is_damaged(body: str, disclosures: dict[str, bytes]) -> None:
    with pytest.raises(DAMAGES):
        plan(Events(frozenset(("e-1",))), body=body, disclosures=disclosures)


def test_an_erased_value_leaves_no_trace_in_the_columns() -> None:
    found = plan(Person("a7"))
    assert found is not None
    assert not any(word in str(found.left) for word in ("a7", "Bo", "bo@", "Support", "203.0.113.9"))
