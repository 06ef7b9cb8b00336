"""The diff against its laws, its written rules, and rows that real systems sent."""

import copy
import doctest
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import diff as diff_module
from audit_service.core.canonical import JSONValue, canonical_bytes
from audit_service.core.diff import Change, apply_changes, check_changes, diff, top_fields
from audit_service.errors import InvalidEventError
from tests.support.rows import normal

DATA = Path(__file__).parents[3] / "shared" / "data"
Row = dict[str, JSONValue]

# Few names and few values, so that two random rows meet often.
names = st.sampled_from(["a", "b", "k", "", "0", "a/b", "~", "~1", "é"])
scalars: st.SearchStrategy[JSONValue] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 2),
    st.sampled_from([0.0, 1.0, 0.5, 2**53 + 1, float(2**53)]),
    st.sampled_from(["", "1", "true"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
rows: st.SearchStrategy[Row] = st.dictionaries(names, values, max_size=4)
maybe_rows: st.SearchStrategy[JSONValue] = st.one_of(st.none(), st.just([]), rows)


def normal_row(value: JSONValue) -> object:
    """A row as `normal`, where a missing one is an empty one."""
    return normal({} if value is None else value)


def mirrored(changes: list[Change]) -> list[Change]:
    """The changes of the way back."""
    ops: dict[JSONValue, JSONValue] = {"add": "remove", "remove": "add", "replace": "replace"}
    sides = {"old": "new", "new": "old"}
    return [
        {sides.get(name, name): ops[value] if name == "op" else value for name, value in change.items()}
        for change in changes
    ]


def segments(change: Change) -> list[str]:
    """The unescaped segments of a change's path."""
    return [part.replace("~1", "/").replace("~0", "~") for part in str(change["path"]).split("/")[1:]]


def test_the_worked_example_of_the_module_holds() -> None:
    """The format page of the module runs."""
    result = doctest.testmod(diff_module)
    assert (result.failed, result.attempted > 4) == (0, True)


# ---- laws


@given(maybe_rows, maybe_rows)
def test_applying_the_diff_gives_the_other_row(before: JSONValue, after: JSONValue) -> None:
    """The law, for updates, creations and deletions; and neither row is touched."""
    kept = copy.deepcopy((before, after))
    changes = diff(before, after)
    assert normal_row(after) == normal(apply_changes(before, changes))
    assert kept == (before, after)


@given(rows, rows)
def test_applying_the_diff_of_a_patch_merges_it(before: Row, patch: Row) -> None:
    """With `after`, columns absent from the new row stay."""
    changes = diff(before, patch, partial="after")
    assert normal({**before, **patch}) == normal(apply_changes(before, changes))


@given(rows, rows)
def test_the_way_back_of_an_old_patch_restores_it(patch: Row, after: Row) -> None:
    """With `before`, columns absent from the old row were the same in the new one."""
    changes = diff(patch, after, partial="before")
    assert normal({**after, **patch}) == normal(apply_changes(after, mirrored(changes)))


@given(maybe_rows)
def test_a_row_does_not_differ_from_itself(row: JSONValue) -> None:
    """Nor from its copy."""
    assert [] == diff(row, row) == diff(row, copy.deepcopy(row))


@given(maybe_rows, maybe_rows)
def test_nothing_is_reported_exactly_when_the_rows_are_equal(before: JSONValue, after: JSONValue) -> None:
    """An empty diff means an event without effect."""
    assert (normal_row(before) == normal_row(after)) == (diff(before, after) == [])


@given(maybe_rows, maybe_rows)
def test_swapping_the_rows_mirrors_the_changes(before: JSONValue, after: JSONValue) -> None:
    """Adds become removes, old becomes new."""
    assert mirrored(diff(before, after)) == diff(after, before)


@given(maybe_rows, maybe_rows)
def test_swapping_the_rows_mirrors_the_patches(patch: JSONValue, row: JSONValue) -> None:
    """`before` is `after` seen from the other side."""
    assert mirrored(diff(patch, row, partial="before")) == diff(row, patch, partial="after")


@given(maybe_rows, maybe_rows)
def test_two_patches_are_compared_as_they_stand(before: JSONValue, after: JSONValue) -> None:
    """With `both`, a column on one side only was added or removed, as with `none`."""
    assert diff(before, after) == diff(before, after, partial="both")


@given(maybe_rows, maybe_rows)
def test_changes_are_sorted_unique_and_well_formed(before: JSONValue, after: JSONValue) -> None:
    """Paths ascend strictly by code points, and each op has exactly its members."""
    changes = diff(before, after)
    paths = [str(change["path"]) for change in changes]
    assert sorted(set(paths)) == paths
    members = {"add": {"new"}, "remove": {"old"}, "replace": {"old", "new"}}
    for change in changes:
        assert {"path", "op"} | members[str(change["op"])] == change.keys()
    assert changes == json.loads(canonical_bytes(list(changes)))
    assert sorted({segments(change)[0] for change in changes}) == top_fields(changes)


@given(maybe_rows, maybe_rows)
def test_ignored_names_leave_out_their_changes_and_nothing_else(before: JSONValue, after: JSONValue) -> None:
    """At every depth, with all that lies below them."""
    ignored = frozenset({"k", "a/b", "~"})
    kept = [change for change in diff(before, after) if not ignored & set(segments(change))]
    assert kept == diff(before, after, ignored=ignored)


@given(rows, rows)
def test_an_unchanged_secret_never_appears(before: Row, after: Row) -> None:
    """Not beside changed members of the same object, not deeper, not in lists of equal length."""
    secret: Row = {"password": "CANARY", "tokens": ["CANARY", {"t": "CANARY"}]}
    old: Row = {**before, **secret, "deep": {**before, **secret}, "list": [{**before, **secret}, 1]}
    new: Row = {**after, **secret, "deep": {**after, **secret}, "list": [{**after, **secret}, 2]}
    changes = diff(old, new)
    assert {"path": "/list/1", "op": "replace", "old": 1, "new": 2} in changes
    assert b"CANARY" not in canonical_bytes(list(changes))


@given(maybe_rows, maybe_rows, st.randoms(use_true_random=False))
def test_our_own_changes_pass_the_check(before: JSONValue, after: JSONValue, random: object) -> None:
    """In any order, and with or without their op, they come back the same."""
    changes = diff(before, after)
    shuffled: list[JSONValue] = list(changes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert changes == check_changes(shuffled)
    without_op: list[JSONValue] = [
        {name: value for name, value in change.items() if name != "op"} for change in changes
    ]
    assert changes == check_changes(without_op)


# ---- rules, one by one


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(1, 1.0, None, id="1 and 1.0 are equal"),
        pytest.param(2**53 + 1, float(2**53), "/x", id="a big integer is not the nearest double"),
        pytest.param(1, "1", "/x", id="1 and its text differ"),
        pytest.param(1, True, "/x", id="1 and true differ"),
        pytest.param(0.0, False, "/x", id="0.0 and false differ"),
        pytest.param(False, 0, "/x", id="false and 0 differ"),
        pytest.param([1, [0]], [True, [False]], ["/x/0", "/x/1/0"], id="also inside lists"),
        pytest.param({"y": 1}, {"y": True}, "/x/y", id="also inside objects"),
        pytest.param(None, False, "/x", id="null and false differ"),
        pytest.param(None, "", "/x", id="null and empty text differ"),
        pytest.param(None, [], "/x", id="null and an empty list differ"),
        pytest.param("", [], "/x", id="empty text and an empty list differ"),
        pytest.param([], {}, None, id="PHP's empty map"),
        pytest.param({}, [], None, id="PHP's empty map, mirrored"),
        pytest.param({"y": []}, {"y": {}}, None, id="PHP's empty map, nested"),
        pytest.param([[]], [{}], None, id="PHP's empty map, in a list"),
        pytest.param([], [1], "/x", id="a list that grows is one value"),
        pytest.param({}, [1], "/x", id="an empty map that becomes a list"),
        pytest.param([1, 2], [1], "/x", id="a list that shrinks is one value"),
        pytest.param([1, 2], [2, 1], ["/x/0", "/x/1"], id="lists of one length go by index"),
        pytest.param([{"y": 1}], {"y": 1}, "/x", id="a list is not an object"),
        pytest.param({"y": 1}, "y", "/x", id="an object is not a text"),
        pytest.param("é", "e\u0301", "/x", id="texts are not normalised"),
        pytest.param("48.8567", 48.8567, "/x", id="a number is not its text"),
    ],
)
def test_equality(before: JSONValue, after: JSONValue, expected: str | list[str] | None) -> None:
    """Which pairs of values differ, and where; in both directions."""
    paths = [expected] if isinstance(expected, str) else expected or []
    for old, new in ((before, after), (after, before)):
        changes = diff({"x": old}, {"x": new})
        assert paths == [change["path"] for change in changes]
        assert {"replace"} >= {change["op"] for change in changes}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(
            {"x": []}, {"x": {"k": 1}}, {"path": "/x/k", "op": "add", "new": 1}, id="PHP's map gains a member"
        ),
        pytest.param({"x": {"k": 1}}, {"x": []}, {"path": "/x/k", "op": "remove", "old": 1}, id="PHP's map loses one"),
        pytest.param({}, {"x": None}, {"path": "/x", "op": "add", "new": None}, id="absent is not null"),
        pytest.param({"x": None}, {}, {"path": "/x", "op": "remove", "old": None}, id="null is not absent"),
        pytest.param(
            {"x": None},
            {"x": {"k": 1}},
            {"path": "/x", "op": "replace", "old": None, "new": {"k": 1}},
            id="null to an object",
        ),
        pytest.param(
            {"x": {}},
            {"x": {"y": {"z": [1]}}},
            {"path": "/x/y", "op": "add", "new": {"z": [1]}},
            id="a nested value appears whole",
        ),
        pytest.param(
            {"x": [1]},
            {"x": [1, 2]},
            {"path": "/x", "op": "replace", "old": [1], "new": [1, 2]},
            id="a list that grows",
        ),
        pytest.param(
            {"a/b": {"m~n": 1}},
            {"a/b": {"m~n": 2}},
            {"path": "/a~1b/m~0n", "op": "replace", "old": 1, "new": 2},
            id="names are escaped",
        ),
        pytest.param(
            {"": {"": 1}},
            {"": {"": 2}},
            {"path": "//", "op": "replace", "old": 1, "new": 2},
            id="empty names",
        ),
        pytest.param({"~1": 1}, {"~1": 2}, {"path": "/~01", "op": "replace", "old": 1, "new": 2}, id="a name ~1"),
    ],
)
def test_one_change(before: JSONValue, after: JSONValue, expected: Change) -> None:
    """The exact change for each rule."""
    assert [expected] == diff(before, after)


@pytest.mark.parametrize("partial", ["none", "after", "before", "both"])
def test_a_created_row_adds_and_a_deleted_one_removes_each_member(partial: str) -> None:
    """Whatever `partial` says: a sender that patches updates still sends whole rows for these."""
    row: Row = {"b": {"c": 1}, "a": None}
    missing: list[JSONValue] = [None, []] if partial in {"none", "both"} else [None]
    for none in missing:
        added = diff(none, row, partial=partial)  # type: ignore[arg-type]
        removed = diff(row, none, partial=partial)  # type: ignore[arg-type]
        assert added == [
            {"path": "/a", "op": "add", "new": None},
            {"path": "/b", "op": "add", "new": {"c": 1}},
        ]
        assert mirrored(added) == removed
    assert diff(None, None, partial=partial) == []  # type: ignore[arg-type]


def test_patches_of_columns() -> None:
    """Absent is unchanged, null is a value, nested values are whole, an empty patch changes nothing."""
    whole: Row = {"id": 1, "name": "web", "limits": {"cpu": 2, "ram": 4}, "note": "x"}
    assert diff(whole, {"note": None, "limits": {"cpu": 2}, "extra": 1}, partial="after") == [
        {"path": "/extra", "op": "add", "new": 1},
        {"path": "/limits/ram", "op": "remove", "old": 4},
        {"path": "/note", "op": "replace", "old": "x", "new": None},
    ]
    assert diff({"note": None, "gone": 1}, whole, partial="before") == [
        {"path": "/gone", "op": "remove", "old": 1},
        {"path": "/note", "op": "replace", "old": None, "new": "x"},
    ]
    empties: list[JSONValue] = [{}, []]
    for empty in empties:
        assert [] == diff(whole, empty, partial="after") == diff(empty, whole, partial="before")
    assert diff({"a": 1, "b": 2}, {"b": 3, "c": 4}, partial="both") == [
        {"path": "/a", "op": "remove", "old": 1},
        {"path": "/b", "op": "replace", "old": 2, "new": 3},
        {"path": "/c", "op": "add", "new": 4},
    ]


def test_ignored_names_at_every_depth() -> None:
    """A volatile column counts nowhere, not even when it appears; list indexes are not names."""
    before: Row = {"updated_at": 1, "x": {"updated_at": 1, "y": [{"updated_at": 1}, 1]}}
    after: Row = {"updated_at": {"z": 2}, "x": {"updated_at": 2, "y": [{"updated_at": 2, "m": 0}, 2]}}
    assert [change["path"] for change in diff(before, after, ignored=frozenset({"updated_at", "0", "1"}))] == [
        "/x/y/0/m",
        "/x/y/1",
    ]
    assert diff({}, {"updated_at": 1}, ignored=frozenset({"updated_at"})) == []
    assert diff({"updated_at": 1}, None, ignored=frozenset({"updated_at"})) == []


def test_paths_are_sorted_by_code_points() -> None:
    """Not by locale, not by UTF-16, not by number."""
    row: Row = dict.fromkeys(["é", "Z", "a", "\U0001f600", "\uffe5", "10", "9"], 1)
    paths = [change["path"] for change in diff(None, row)]
    assert paths == ["/10", "/9", "/Z", "/a", "/é", "/\uffe5", "/\U0001f600"]


@pytest.mark.parametrize("row", [1, "row", True, [1], [{}]])
def test_a_row_that_is_no_object_is_refused(row: JSONValue) -> None:
    """With the place, on either side."""
    for before, after, pointer in ((row, {}, "/before"), ({}, row, "/after")):
        with pytest.raises(InvalidEventError) as caught:
            diff(before, after)
        assert [pointer] == [fault.pointer for fault in caught.value.faults]


def test_depth_costs_no_recursion() -> None:
    """Rows far deeper than the limit on input are compared and applied."""
    depth = 3000
    old: JSONValue = 1
    new: JSONValue = 2
    for _ in range(depth):
        old, new = {"d": [old]}, {"d": [new]}
    changes = diff(old, new)
    assert [{"path": "/d/0" * depth, "op": "replace", "old": 1, "new": 2}] == changes
    result: JSONValue = apply_changes(old, changes)
    for _ in range(depth):
        assert isinstance(result, dict)
        inner = result["d"]
        assert isinstance(inner, list)
        result = inner[0]
    assert result == 2


def test_rows_of_ten_thousand_fields() -> None:
    """Every second of 10,000 nested fields changes, and the way back is exact."""
    before: Row = {f"f{i}": {"v": i, "w": [i]} for i in range(10_000)}
    after: Row = {f"f{i}": {"v": i, "w": [i + i % 2]} for i in range(10_000)}
    changes = diff(before, after)
    assert {f"/f{i}/w/0" for i in range(1, 10_000, 2)} == {change["path"] for change in changes}
    assert after == apply_changes(before, changes)


# ---- apply_changes


def test_applying_does_not_touch_row_or_changes() -> None:
    """A later change below a value that an earlier one brought in mutates a copy of it."""
    before: Row = {"a": {"b": [1, {"c": 2}]}}
    changes: list[Change] = [
        {"path": "/a/b/1/c", "op": "replace", "new": 3},
        {"path": "/n", "op": "add", "new": {"m": 1}},
        {"path": "/n/m", "op": "replace", "new": 2},
        {"path": "/n", "op": "replace", "new": {"m": 5}},
        {"path": "/n/m", "op": "replace", "new": 6},
        {"path": "/secret", "op": "replace", "redacted": True},
    ]
    kept = copy.deepcopy((before, changes))
    assert apply_changes(before, changes) == {"a": {"b": [1, {"c": 3}]}, "n": {"m": 6}}
    assert kept == (before, changes)


def test_applying_a_removal_of_what_is_not_there_is_nothing() -> None:
    """A redacted member may never have been applied."""
    assert apply_changes({}, [{"path": "/x", "op": "remove", "old": 1}]) == {}


@pytest.mark.parametrize(
    "path",
    ["/gone/x", "/text/x", "/list/2", "/list/-", "/list/01", "/list/-1", "/list/9" + "9" * 5000, "/list/1/x"],
)
def test_changes_that_do_not_fit_the_row_are_refused(path: str) -> None:
    """A parent that is missing or no container, an index that is none."""
    row: Row = {"text": "t", "list": [1, 2]}
    misfits: list[Change] = [{"path": path, "op": "add", "new": 1}, {"path": f"{path}/y", "op": "remove"}]
    for change in misfits:
        with pytest.raises(InvalidEventError, match="do not fit"):
            apply_changes(row, [change])
    with pytest.raises(InvalidEventError, match="do not fit"):
        apply_changes(row, [{"path": "/list/0", "op": "remove"}])


# ---- check_changes


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"path": "/a", "new": 1}, {"path": "/a", "op": "add", "new": 1}),
        ({"path": "/a", "old": None}, {"path": "/a", "op": "remove", "old": None}),
        ({"path": "/a", "op": "remove"}, {"path": "/a", "op": "remove"}),
        ({"path": "/a", "old": 1, "new": None}, {"path": "/a", "op": "replace", "old": 1, "new": None}),
        ({"path": "/a", "op": "replace", "new": 1}, {"path": "/a", "op": "replace", "new": 1}),
        ({"path": "/a", "redacted": True}, {"path": "/a", "op": "replace", "redacted": True}),
        ({"path": "/a", "op": "add", "redacted": True}, {"path": "/a", "op": "add", "redacted": True}),
        ({"path": "/a", "new": 1, "redacted": False}, {"path": "/a", "op": "add", "new": 1}),
        ({"path": "/", "new": 1}, {"path": "/", "op": "add", "new": 1}),
        ({"path": "/a~0b~1c\n/é", "new": 1}, {"path": "/a~0b~1c\n/é", "op": "add", "new": 1}),
        ({"path": "/" + "x" * 1023, "new": 1}, {"path": "/" + "x" * 1023, "op": "add", "new": 1}),
        ({"path": "/a", "old": 1, "new": 1.0}, None),
        ({"path": "/a", "op": "replace", "old": {"x": []}, "new": {"x": {}}}, None),
        ({"path": "/a", "old": 1, "new": True}, {"path": "/a", "op": "replace", "old": 1, "new": True}),
    ],
)
def test_changes_of_a_sender_are_completed(sent: Change, expected: Change | None) -> None:
    """The op is inferred, what changes nothing is left out."""
    assert ([expected] if expected else []) == check_changes([sent])


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        ("CANARY", ""),
        (None, ""),
        (["CANARY"], ""),
        ({"new": "CANARY"}, "/path"),
        ({"path": 7, "new": "CANARY"}, "/path"),
        ({"path": "", "new": "CANARY"}, "/path"),
        ({"path": "CANARY", "new": 1}, "/path"),
        ({"path": "CANARY/b", "new": 1}, "/path"),
        ({"path": "/CANARY~", "new": 1}, "/path"),
        ({"path": "/CANARY~2", "new": 1}, "/path"),
        ({"path": "/CANARY" + "x" * 1018, "new": 1}, "/path"),
        ({"path": "/a", "op": "CANARY", "new": 1}, "/op"),
        ({"path": "/a", "op": None, "new": 1}, "/op"),
        ({"path": "/a", "op": ["add"], "new": 1}, "/op"),
        ({"path": "/a", "op": {"CANARY": 1}, "new": 1}, "/op"),
        ({"path": "/a"}, ""),
        ({"path": "/a", "op": "add", "redacted": False}, ""),
        ({"path": "/a", "op": "replace", "old": "CANARY"}, ""),
        ({"path": "/a", "op": "add", "old": "CANARY", "new": "CANARY"}, "/old"),
        ({"path": "/a", "op": "remove", "old": "CANARY", "new": "CANARY"}, "/new"),
        ({"path": "/a", "redacted": True, "new": "CANARY"}, ""),
        ({"path": "/a", "redacted": True, "old": "CANARY"}, ""),
        ({"path": "/a", "redacted": "CANARY", "new": 1}, "/redacted"),
        ({"path": "/a", "redacted": 1}, "/redacted"),
        ({"path": "/a", "new": 1, "CANARY": 1}, ""),
    ],
)
def test_wrong_changes_are_refused_with_their_place(sent: JSONValue, place: str) -> None:
    """The pointer says where, the text says why, and neither says what was sent."""
    with pytest.raises(InvalidEventError) as caught:
        check_changes([{"path": "/first", "new": 1}, sent])
    assert [f"/changes/1{place}"] == [fault.pointer for fault in caught.value.faults]
    assert "CANARY" not in f"{caught.value} {caught.value.faults}"
    assert caught.value.faults[0].detail


def test_all_faults_are_listed() -> None:
    """Both of one change, and of every change; duplicates too, even of what changes nothing."""
    sent: list[JSONValue] = [
        {"path": "/a", "old": 1, "new": 1},
        {"path": "b", "op": "set"},
        {"path": "/a", "new": 1},
        {"path": "/a", "old": 1},
    ]
    with pytest.raises(InvalidEventError) as caught:
        check_changes(sent, pointer="/events/3/changes")
    assert [fault.pointer for fault in caught.value.faults] == [
        "/events/3/changes/1/path",
        "/events/3/changes/1/op",
        "/events/3/changes/2/path",
        "/events/3/changes/3/path",
    ]


def test_checked_changes_are_sorted() -> None:
    """By code points of the path."""
    sent: list[JSONValue] = [{"path": path, "new": 1} for path in ("/b", "/a/b", "/é", "/a", "/a~1", "/Z")]
    assert [change["path"] for change in check_changes(sent)] == ["/Z", "/a", "/a/b", "/a~1", "/b", "/é"]


def test_top_fields_are_columns() -> None:
    """First segments, unescaped, once each, sorted."""
    paths = ["/b/x", "/b/y", "/a~1b/c", "/~01", "/", "/Z"]
    assert top_fields([{"path": path, "op": "remove"} for path in paths]) == ["", "Z", "a/b", "b", "~1"]


# ---- what real systems sent


def netbox_rows() -> Iterator[tuple[str, JSONValue, JSONValue]]:
    """Event name, old and new row of each captured NetBox request."""
    path = DATA / "netbox-webhooks" / "requests.ndjson"
    if not path.exists():
        pytest.skip("the captured NetBox requests are not beside this repository")
    for line in path.read_text().splitlines():
        body = json.loads(json.loads(line)["body"])
        yield body["event"], body["snapshots"]["prechange"], body["snapshots"]["postchange"]


def test_rows_of_netbox() -> None:
    """Whole rows: creations add all, deletions remove all, updates obey the law, one changes nothing."""
    seen: dict[str, int] = {}
    unchanged = 0
    for event, before, after in netbox_rows():
        seen[event] = seen.get(event, 0) + 1
        changes = diff(before, after)
        assert normal_row(after) == normal(apply_changes(before, changes))
        if event == "updated":
            assert isinstance(before, dict)
            assert len(top_fields(changes)) < len(before)
            unchanged += diff(before, after, ignored=frozenset({"last_updated"})) == []
        else:
            row = after if event == "created" else before
            assert isinstance(row, dict)
            assert {"created": "add", "deleted": "remove"}[event] == changes[0]["op"]
            assert sorted(row) == top_fields(changes)
    assert seen == {"created": 11, "updated": 6, "deleted": 3}
    assert unchanged == 1


def test_a_json_column_of_netbox_is_compared_inside() -> None:
    """`local_context_data` is a tree: the change names the leaf, not the column."""
    paths = [
        str(change["path"])
        for event, before, after in netbox_rows()
        if event == "updated"
        for change in diff(before, after)
    ]
    inside = [path for path in paths if path.startswith("/local_context_data/")]
    assert inside
    assert "/local_context_data" not in paths


def github_patches() -> Iterator[tuple[Row, Row]]:
    """Old patch (`changes.<field>.from`) and whole new object of each GitHub payload that has both."""
    path = DATA / "github-webhooks-changes" / "with_changes.ndjson"
    if not path.exists():
        pytest.skip("the GitHub payloads are not beside this repository")
    for line in path.read_text().splitlines():
        payload = json.loads(line)["payload"]
        patch = {
            name: change["from"]
            for name, change in payload.pop("changes").items()
            if isinstance(change, dict) and "from" in change
        }
        for value in payload.values():
            if isinstance(value, dict) and patch.keys() <= value.keys():
                yield patch, value
                break


def test_patches_of_github() -> None:
    """Only named fields are reported, with the old value GitHub gave; empty `changes` are no change."""
    counts = {"changed": 0, "unchanged": 0}
    for patch, row in github_patches():
        changes = diff(patch, row, partial="before")
        counts["changed" if changes else "unchanged"] += 1
        assert set(top_fields(changes)) <= patch.keys()
        assert normal({**row, **patch}) == normal(apply_changes(row, mirrored(changes)))
        for change in changes:
            if len(segments(change)) == 1:
                assert patch[segments(change)[0]] == change["old"]
    assert counts["changed"] >= 15
    assert counts["unchanged"] >= 4
