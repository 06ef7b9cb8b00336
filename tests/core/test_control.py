"""Control entries: bodies as agreed, projections that follow from them, and how they are shown."""

import doctest
import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest

from audit_service.core import control
from audit_service.core.canonical import canonical_text
from audit_service.core.control import Act, Control, Cut, ErasedItem
from audit_service.core.entry import disclosure_hash, project
from audit_service.core.sight import EVERYTHING
from audit_service.core.view import Stored, disclosed, event_view

AT = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
ACT = Act(by="cli", reason="as the law asks", at=AT, id="0193", entropy=bytes(range(control.ENTROPY_BYTES)))
CUT = Cut(
    cut=8, root=b"r" * 32, frontier=b"f" * 32, prev_hash=b"p" * 32, last_recorded_at_us=5, epoch=1, count=8, first_at=AT, last_at=AT,
    checkpoint="note\n", archive=b"a" * 32, signers=["key"],
)  # fmt: skip
EXAMPLES: list[tuple[Control, dict[str, Any], str]] = [
    (
        control.drop(ACT, [(0, 2), (5, 6)], count=3, policy="age", before=AT, category="schedules"),
        {"ranges": [[0, 2], [5, 6]], "count": 3, "policy": "age", "before": "2026-11-22T10:15:00.000000Z", "category": "schedules"},
        "Removed the content of 3 events of category schedules recorded before 2026-11-22T10:15:00.000000Z (by cli): as the law asks",
    ),
    (
        control.drop(ACT, [(0, 1)], count=1, policy="clear"),
        {"ranges": [[0, 1]], "count": 1, "policy": "clear"},
        "Removed the content of 1 event (by cli): as the law asks",
    ),
    (
        control.erase(ACT, [ErasedItem(7, "ip", b"\x02" * 32), ErasedItem(7, "actor", b"\x01" * 32)], request_hash=b"q" * 32),
        {"items": [[7, "actor", "01" * 32], [7, "ip", "02" * 32]], "request": (b"q" * 32).hex()},
        "Erased 2 values in 1 entry (by cli): as the law asks",
    ),
    (
        control.prune(ACT, CUT),
        {
            "cut": 8, "root": (b"r" * 32).hex(), "frontier": (b"f" * 32).hex(), "prev_hash": (b"p" * 32).hex(), "last_recorded_at_us": 5,
            "epoch": 1, "count": 8, "first_at": "2026-11-22T10:15:00.000000Z", "last_at": "2026-11-22T10:15:00.000000Z",
            "checkpoint": "note\n", "archive": (b"a" * 32).hex(), "signers": ["key"],
        },
        "Pruned the entries before 8 (by cli): as the law asks",
    ),
    (
        control.hold_range(ACT, "h-1", (0, 500)),
        {"hold": "h-1", "state": "set", "range": [0, 500]},
        "Set a legal hold on entries 0 to 499 (by cli): as the law asks",
    ),
    (
        control.hold_target(ACT, "h-2", "user", "u12"),
        {"hold": "h-2", "state": "set"},
        "Set a legal hold on user u12 (by cli): as the law asks",
    ),
    (
        control.lift_hold(ACT, "h-2"),
        {"hold": "h-2", "state": "lifted"},
        "Lifted the legal hold h-2 (by cli): as the law asks",
    ),
    (
        control.signer(ACT, "succeeded", old="a+b", new="c+d", from_size=9, succession=[b"s" * 3, b"t" * 3]),
        {"event": "succeeded", "old": "a+b", "new": "c+d", "from_size": 9, "succession": ["c3Nz", "dHR0"]},
        "Signing key succeeded, from size 9 (by cli): as the law asks",
    ),
    (
        control.resume(ACT, checkpoint="note\n", size=90, root=b"r" * 32, lost=(90, 100)),
        {"checkpoint": "note\n", "size": 90, "root": (b"r" * 32).hex(), "lost": [90, 100], "why": "as the law asks"},
        "Resumed after a restore that lost entries 90 to 99 (by cli): as the law asks",
    ),
]  # fmt: skip
NAMES = [f"{made.kind}-{place}" for place, (made, _, _) in enumerate(EXAMPLES)]


def test_docstrings_hold() -> None:
    assert doctest.testmod(control).failed == 0


@pytest.mark.parametrize(("made", "details", "sentence"), EXAMPLES, ids=NAMES)
def test_body_says_who_why_and_what(made: Control, details: dict[str, Any], sentence: str) -> None:
    body = json.loads(made.body)
    assert canonical_text(body) == made.body
    assert {name: body[name] for name in ("v", "action", "verb", "category", "outcome", "source")} == {
        "v": 1, "action": f"audit.{made.kind}", "verb": "OTHER", "category": "audit", "outcome": "success",
        "source": {"id": "audit-service"},
    }  # fmt: skip
    assert (body["by"], body["reason"], body["occurred_at"]) == (
        "cli",
        "as the law asks",
        "2026-11-22T10:15:00.000000Z",
    )
    assert body["details"] == details
    view = event_view(stored(made), {}, EVERYTHING)
    assert (view["kind"], view["by"], view["reason"], view["details"]) == (made.kind, "cli", "as the law asks", details)
    assert (view["summary"], view["damaged"], view["erased"]) == (sentence, False, [])


@pytest.mark.parametrize("made", [made for made, _, _ in EXAMPLES], ids=NAMES)
def test_columns_follow_from_body_and_disclosures(made: Control) -> None:
    values = {group: disclosed(salted) for group, salted in made.disclosures.items()}
    assert made.projection == project(json.loads(made.body), values)
    argument = json.loads(made.argument())
    assert argument.pop("body") == made.body
    assert argument.pop("occurred_at") == "2026-11-22T10:15:00.000000Z"
    entered = {name: value for name, value in made.projection._asdict().items() if value is not None}
    del entered["occurred_at"]
    disclosures = {f"d_{group}": salted.hex() for group, salted in made.disclosures.items()}
    assert argument == entered | disclosures  # nothing is projected that the function would not enter


def test_target_of_a_hold_is_disclosed_and_can_go() -> None:
    """Without its disclosure nothing of the entry names whom it was about."""
    made = control.hold_target(ACT, "h-2", "user", "u12")
    body = json.loads(made.body)
    assert "u12" not in made.body
    assert body["target_type"] == "user"
    assert body["sd"] == {"target": disclosure_hash("target", made.disclosures["target"]).hex()}
    view = event_view(stored(made)._replace(disclosures={}), {}, EVERYTHING)
    assert (view["erased"], view["summary"]) == (
        ["target"],
        "Set a legal hold on user (erased) (by cli): as the law asks",
    )


@pytest.mark.parametrize("made", [made for made, _, _ in EXAMPLES], ids=NAMES)
def test_details_that_no_builder_made_are_shown_as_damaged(made: Control) -> None:
    body = json.dumps(json.loads(made.body) | {"details": {}})
    assert event_view(stored(made)._replace(body=body), {}, EVERYTHING)["damaged"] is True


def stored(made: Control) -> Stored:
    """As it would be read."""
    hashed = sha256(made.body.encode()).digest()
    return Stored(7, AT, made.kind, hashed, hashed, made.body, made.projection.id, made.disclosures)
