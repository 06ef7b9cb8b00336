"""The patch that undoes an event, against a strict JSON Patch applier that shares nothing with it."""

import doctest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import revert as revert_module
from audit_service.core.diff import Change, check_changes, diff
from audit_service.core.revert import revert
from tests.support.json_patch import PatchError, apply_patch, equal

names = st.sampled_from(["a", "b", "k", "", "0", "10", "2", "a/b", "~", "~1", "é"])
scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 2), st.sampled_from([0.5, 2**53 + 1, "", "1", "true"])
)
# Without empty lists: PHP's empty map has a test of its own.
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
rows = st.dictionaries(names, values, max_size=4)


def event(changes: list[Change], **members: Any) -> dict[str, Any]:
    """An update of a schedule, as the API shows it."""
    shown: dict[str, Any] = {
        "action": "schedule.updated", "verb": "UPDATE", "outcome": None, "target": {"type": "schedule"},
        "changes": changes, "erased": [], "damaged": False,
    }  # fmt: skip
    return {**shown, **members}


def deletion(changes: list[Change]) -> dict[str, Any]:
    return event(changes, action="schedule.deleted", verb="DELETE")


def patch_of(shown: dict[str, Any]) -> list[dict[str, Any]]:
    patch: Any = revert(shown)["patch"]
    return list(patch)


def test_the_worked_example_of_the_module_holds() -> None:
    result = doctest.testmod(revert_module)
    assert (result.failed, result.attempted > 2) == (0, True)


# ---- laws


@given(rows, rows)
def test_the_patch_leads_from_the_new_row_back_to_the_old(before: Any, after: Any) -> None:
    answer = revert(event(diff(before, after)))
    assert equal(before, apply_patch(after, patch_of(event(diff(before, after)))))
    assert (answer["reverts"], answer["skipped"]) == (len(diff(before, after)), [])


@given(rows)
def test_the_patch_of_a_deletion_makes_the_row_again_from_an_empty_one_only(row: Any) -> None:
    patch = patch_of(deletion(diff(row, None)))
    assert equal(row, apply_patch({}, patch))
    if row:
        with pytest.raises(PatchError) as refused:
            apply_patch({"made": "anew"}, patch)
        assert (refused.value.op, refused.value.path) == ("test", "")
        assert revert(deletion(diff(row, None)))["unguarded"] == []


@given(rows)
def test_the_patch_of_a_creation_takes_every_member_away(row: Any) -> None:
    assert apply_patch(row, patch_of(event(diff(None, row), action="schedule.created", verb="CREATE"))) == {}


@given(rows, rows, rows)
def test_on_a_row_that_moved_on_it_fails_at_a_test_or_overwrites_what_it_said_it_might(
    before: Any, after: Any, drifted: Any
) -> None:
    """Whatever the row is meanwhile: either nothing is done, or every value the event left is still there."""
    changes = diff(before, after)
    answer = revert(event(changes))
    unguarded: Any = answer["unguarded"]
    assert unguarded == [] or set(unguarded) == {change["path"] for change in changes if change["op"] == "remove"}
    failed: PatchError | None = None
    try:
        apply_patch(drifted, patch_of(event(changes)))
    except PatchError as refused:
        failed = refused
    if failed is None:
        apply_patch(drifted, [op for op in patch_of(event(changes)) if op["op"] == "test"])
    else:  # or the parent of what was removed is gone
        assert failed.op == "test" or failed.path in unguarded


@given(rows, rows)
def test_one_changed_value_is_enough_to_refuse(before: Any, after: Any) -> None:
    for change in diff(before, after):
        if change["op"] == "remove":
            continue
        drifted = apply_patch(after, [{"op": "replace", "path": change["path"], "value": {"moved": "on"}}])
        with pytest.raises(PatchError) as refused:
            apply_patch(drifted, patch_of(event(diff(before, after))))
        assert (refused.value.op, refused.value.path) == ("test", change["path"])


# ---- rules, one by one


def test_list_elements_are_removed_from_the_back_and_added_from_the_front() -> None:
    """By number, not by text: /tags/10 is behind /tags/2."""
    left = [f"t{n}" for n in range(12)]
    added = check_changes([{"path": f"/tags/{n}", "new": f"t{n}"} for n in (2, 10, 11)])
    assert apply_patch({"tags": left}, patch_of(event(added))) == {
        "tags": [tag for tag in left if tag not in ("t2", "t10", "t11")]
    }
    removed = check_changes([{"path": f"/tags/{n}", "old": f"t{n}"} for n in (2, 10, 11)])
    short = [tag for n, tag in enumerate(left) if n not in (2, 10, 11)]
    assert apply_patch({"tags": short}, patch_of(event(removed))) == {"tags": left}


def test_a_change_below_another_is_undone_with_it() -> None:
    changes = check_changes(
        [
            {"path": "/a", "new": {"b": 1, "c": 2}, "old": 0},
            {"path": "/a/b", "old": 1, "new": 5},
            {"path": "/z", "new": 1},
        ]
    )
    answer = revert(event(changes))
    assert apply_patch({"a": {"b": 5, "c": 2}, "z": 1}, patch_of(event(changes))) == {"a": 0}
    assert (answer["reverts"], answer["skipped"]) == (3, [])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"path": "/p", "op": "replace", "redacted": True}, "redacted"),
        ({"path": "/p", "op": "remove", "redacted": True}, "redacted"),
        ({"path": "/u", "op": "replace", "old": "x://[redacted]@h", "new": "x://h"}, "redacted"),
        ({"path": "/u", "op": "add", "new": {"deep": ["a [redacted]"]}}, "redacted"),
        ({"path": "/u", "op": "remove", "old": {"[redacted]": 1}}, "redacted"),
        ({"path": "/[redacted]", "op": "add", "new": 1}, "redacted"),
        ({"path": "/a", "op": "replace", "new": 1}, "old_unknown"),
        ({"path": "/a", "op": "remove"}, "old_unknown"),
        ({"path": "a", "op": "add", "new": 1}, "damaged"),
        ({"path": "/a", "op": "replace", "old": 1}, "damaged"),
    ],
)
def test_what_cannot_be_undone_is_skipped_with_its_reason(change: Change, reason: str) -> None:
    """And the rest of the event still is undone: one bad field is no reason to leave the others."""
    other: Change = {"path": "/zz", "op": "replace", "old": 1, "new": 2}
    answer = revert(event([change, other]))
    assert answer["skipped"] == [{"path": change["path"], "reason": reason}]
    assert answer["reverts"] == 1
    assert apply_patch({"zz": 2}, patch_of(event([change, other]))) == {"zz": 1}


@pytest.mark.parametrize(
    ("below", "reason"),
    [
        ({"path": "/a/b", "op": "replace", "redacted": True}, "redacted"),
        ({"path": "/a/b/c", "op": "add", "new": 1}, "contradictory"),
    ],
)
def test_a_change_with_something_unknown_below_it_is_left_alone(below: Change, reason: str) -> None:
    above: Change = {"path": "/a", "op": "add", "new": {"b": 1}}
    answer = revert(event([above, below]))
    assert answer["patch"] == []
    assert answer["skipped"] == [{"path": path, "reason": reason} for path in ("/a", below["path"])]


@pytest.mark.parametrize(
    ("members", "reason"),
    [({"outcome": "failure"}, "failed"), ({"damaged": True}, "damaged"), ({"erased": ["changes"]}, "erased")],
)
def test_nothing_is_undone_of_an_event_that_changed_nothing_or_cannot_be_read(members: Any, reason: str) -> None:
    changes: list[Change] = [{"path": "/a", "op": "add", "new": 1}] if reason == "failed" else []
    answer = revert(event(changes, **members))
    skipped = [{"path": "/a" if changes else "", "reason": reason}]
    assert (answer["patch"], answer["reverts"], answer["skipped"]) == ([], 0, skipped)


def test_an_event_without_changes_has_nothing_to_undo() -> None:
    assert revert(event([])) == {"patch": [], "reverts": 0, "unguarded": [], "skipped": []}
    assert patch_of(deletion([])) == []


def test_a_deleted_row_with_a_secret_comes_back_without_it_and_says_so() -> None:
    changes: list[Change] = [
        {"path": "/key", "op": "remove", "old": "AAAA-BBBB"},
        {"path": "/password", "op": "remove", "redacted": True},
    ]
    answer = revert(deletion(changes))
    assert apply_patch({}, patch_of(deletion(changes))) == {"key": "AAAA-BBBB"}
    assert answer["skipped"] == [{"path": "/password", "reason": "redacted"}]


def test_php_s_empty_map_must_be_made_an_object_first() -> None:
    """A limit of JSON Patch, which the module states: `[]` is a list to it."""
    patch = patch_of(event(diff({"env": {"A": 1}}, {"env": []})))
    assert apply_patch({"env": {}}, patch) == {"env": {"A": 1}}
    with pytest.raises(PatchError):
        apply_patch({"env": []}, patch)
