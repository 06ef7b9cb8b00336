"""A row rebuilt from its changes, against an oracle that kept the row itself."""

import doctest
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import history, known_row, lifecycle
from audit_service.core.diff import Change, check_changes, diff
from audit_service.core.history import Past, Walk, WalkLimits, past_event
from audit_service.core.lifecycle import speaks_of_target
from audit_service.core.sight import EVERYTHING
from tests.support.json_patch import tokens
from tests.support.rows import normal

State = dict[str, Any]
names = st.sampled_from(["a", "b", "k", "", "0", "a/b", "~1", "é"])
scalars: st.SearchStrategy[Any] = st.one_of(st.none(), st.booleans(), st.integers(-1, 2), st.sampled_from(["", "1"]))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
rows = st.dictionaries(names, values, max_size=4)


# ---- the oracle: a row, and who wrote each of its leaves


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of everything that has no members."""
    members = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(members, dict) or not members:
        return [path]
    return [leaf for name, member in members.items() for leaf in leaves(member, (*path, str(name)))]


MISSING = object()


def resolve(value: Any, path: Iterable[str]) -> Any:
    """What stands at a path, or MISSING."""
    for name in path:
        if isinstance(value, list):
            value = {str(index): item for index, item in enumerate(value)}
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value


def under(path: tuple[str, ...], above: Sequence[str]) -> bool:
    return path[: len(above)] == tuple(above)


@dataclass
class Life:
    """What really happened to a server, and the events that tell it, oldest first."""

    row: Any = None
    blame: dict[tuple[str, ...], int] = field(default_factory=dict)
    events: list[Past] = field(default_factory=list)

    def become(self, row: Any) -> None:
        """Create, update or delete, and log it."""
        changes = diff(self.row, row)
        verb = "UPDATE"
        if (self.row is None) != (row is None):
            verb = "CREATE" if self.row is None else "DELETE"
        self.log(verb, changes)
        self.row = row
        for change in changes:
            path = tokens(str(change["path"]))
            self.blame = {leaf: seq for leaf, seq in self.blame.items() if not under(leaf, path)}
            if change["op"] != "remove":
                self.blame |= {(*path, *leaf): len(self.events) - 1 for leaf in leaves(change["new"])}

    def log(self, verb: str, changes: list[Change] | None, **members: Any) -> None:
        """An event of the next seq, whatever became of the row."""
        seq = len(self.events)
        set_by: dict[str, Any] = {"seq": seq, "occurred_at": f"t{seq}"}
        word = {"UPDATE": "updated", "CREATE": "created", "DELETE": "deleted", "RESTORE": "restored"}.get(
            verb, "viewed"
        )
        self.events.append(Past(seq, verb, members.pop("action", f"server.{word}"), members.pop("outcome", None),
                                set_by, changes, **members))  # fmt: skip


def state_of(events: Sequence[Past], **settings: Any) -> State:
    """The state after some events, oldest first."""
    walk = Walk("server", **settings)
    for event in reversed(events):
        if walk.take(event):
            break
    return walk.state()


def assert_true(state: State, life: Life) -> None:
    """Everything the state says of the fields is so, and each writer is the last one."""
    for pointer, shown in state["fields"].items():
        path = tokens(pointer)
        if "absent" in shown:
            assert resolve(life.row, path) is MISSING, pointer
            continue
        assert normal(resolve(life.row, path)) == normal(shown["value"]), pointer
        writers = {seq for leaf, seq in life.blame.items() if under(leaf, path)}
        assert writers <= {shown["set_by"]["seq"]}, pointer


def assert_whole(fields: State, row: Any) -> None:
    """Every leaf of the row stands in exactly one field."""
    valued = [tokens(pointer) for pointer, shown in fields.items() if "value" in shown]
    for leaf in leaves(row):
        if leaf:
            assert len([path for path in valued if under(leaf, path)]) == 1, leaf


# ---- laws


steps = st.lists(st.one_of(st.none(), rows, rows, rows), min_size=1, max_size=7)


@given(steps)
def test_the_state_at_every_time_is_the_row_of_that_time(lived: list[Any]) -> None:
    """Created, changed, deleted and created again, in any order; the walk reads no further than the last birth or death."""
    life = Life()
    for row in lived:
        if row is None and life.row is None:
            continue
        life.become(row)
        state = state_of(life.events)
        assert_true(state, life)
        assert state["drift"] == []
        assert state["incomplete"] == []
        if row is None:
            assert_deleted(state, life)
        elif life.events[-1].changes or state["complete"]:
            assert state["exists"] is True
            if state["complete"]:
                assert_whole(state["fields"], life.row)


def assert_deleted(state: State, life: Life) -> None:
    """The deleted row is what was there: the new sides of what came before say the same."""
    assert (state["exists"], state["complete"], state["fields"]) == (False, True, {})
    removed = {f"{change['path']}": change["old"] for change in life.events[-1].changes or ()}
    if removed:
        assert {pointer: shown["value"] for pointer, shown in state["deleted"]["fields"].items()} == removed
        assert state["deleted"]["complete"] is True
        assert state["deleted"]["by"]["seq"] == len(life.events) - 1
        assert state["events_read"] == 1


@given(rows.filter(bool), st.lists(rows, max_size=6))
def test_a_created_row_is_known_whole_from_then_on(first: Any, later: list[Any]) -> None:
    life = Life()
    life.log("UPDATE", diff({}, {"before": "the row was"}))  # never read
    life.become(first)
    for row in later:
        life.become(row)
    state = state_of(life.events)
    assert (state["exists"], state["complete"], state["events_read"]) == (True, True, len(later) + 1)
    assert_true(state, life)
    assert_whole(state["fields"], life.row)


@given(st.lists(rows, min_size=2, max_size=7), st.data())
def test_what_is_known_without_the_creation_is_true_and_not_all(lived: list[Any], data: st.DataObject) -> None:
    """Only the newest events are there: fields that none of them touched are not shown at all."""
    life = Life({})
    for row in lived:
        life.become(row)
    newest = life.events[data.draw(st.integers(1, len(lived))) :]
    state = state_of(newest)
    assert_true(state, life)
    assert (state["complete"], state["drift"]) == (False, [])
    touched = {str(change["path"]) for event in newest for change in event.changes or ()}
    for pointer in state["fields"]:
        assert any(
            pointer == path or pointer.startswith(path + "/") or path.startswith(pointer + "/") for path in touched
        )
    assert state["exists"] is (True if touched else (True if newest else None))


@given(rows.filter(bool), rows, rows)
def test_what_failed_or_touched_nothing_changes_nothing(first: Any, second: Any, tried: Any) -> None:
    life = Life()
    life.become(first)
    life.become(second)
    plain = state_of(life.events)
    life.log("UPDATE", diff(second, tried), outcome="failure")
    life.log("DELETE", diff(second, None), outcome="failure")
    life.log("READ", [])
    state = state_of(life.events)
    assert state.pop("events_read") == plain.pop("events_read") + 3
    assert state == plain


@given(rows.filter(bool), st.lists(rows, min_size=1, max_size=4), rows)
def test_a_change_nobody_logged_is_shown_with_both_values(first: Any, later: list[Any], meddled: Any) -> None:
    """Each difference between what was written and what the next event found, at the place where it was found."""
    life = Life()
    life.become({**first, "watched": "logged"})
    for row in later:
        life.become({**row, "watched": "logged"})
    wrote = life.events[0].seq
    life.row = {**life.row, **meddled, "watched": {"found": 1}}
    life.become({**life.row, "watched": "after"})
    state = state_of(life.events)
    assert state["fields"]["/watched"] == {"value": "after", "set_by": life.events[-1].set_by}
    found = {"value": {"found": 1}, "set_by": life.events[-1].set_by}
    logged = {"value": "logged", "set_by": life.events[wrote].set_by}
    assert state["drift"] == [{"path": "/watched", "logged": logged, "found": found}]
    assert state["drift_total"] == 1


# ---- rules, one by one


def event(changes: Any, verb: str = "UPDATE", **members: Any) -> Life:
    life = Life()
    life.log(verb, changes, **members)
    return life


def test_the_worked_examples_of_the_modules_hold() -> None:
    for module in (history, known_row, lifecycle):
        result = doctest.testmod(module)
        assert (result.failed, result.attempted > 1) == (0, True), module


def test_no_events_say_nothing() -> None:
    state = state_of([])
    assert (state["exists"], state["complete"], state["fields"], state["deleted"]) == (None, False, {}, None)


def test_a_part_changed_since_has_its_own_writer_and_the_rest_keeps_its_own() -> None:
    life = Life()
    life.become({"limits": {"cpu": 2, "ram": {"max": 8, "min": 1}}, "tags": ["x", "y"]})
    life.become({"limits": {"cpu": 4, "ram": {"max": 8}}, "tags": ["x", "z"]})
    fields = state_of(life.events)["fields"]
    shown = {path: (each.get("value", "absent"), each["set_by"]["seq"]) for path, each in fields.items()}
    assert shown == {
        "/limits/cpu": (4, 1),
        "/limits/ram/max": (8, 0),
        "/limits/ram/min": ("absent", 1),
        "/tags/0": ("x", 0),
        "/tags/1": ("z", 1),
    }


def test_a_whole_value_hides_what_was_written_below_it_before() -> None:
    life = Life()
    life.become({"limits": {"cpu": 2}})
    life.become({"limits": {"cpu": 3}})
    life.become({"limits": 7})
    assert state_of(life.events)["fields"] == {"/limits": {"value": 7, "set_by": life.events[2].set_by}}


def test_null_is_a_value() -> None:
    life = Life()
    life.become({"note": "x"})
    life.become({"note": None})
    assert state_of(life.events)["fields"]["/note"]["value"] is None


def test_changes_of_one_event_below_each_other_are_folded_in_their_order() -> None:
    """Ready-made changes may say it twice: the whole value, then a part of it."""
    life = event(check_changes([{"path": "/a", "new": {"b": 1, "c": 1}}, {"path": "/a/b", "old": 1, "new": 2}]))
    fields = state_of(life.events)["fields"]
    assert {path: shown["value"] for path, shown in fields.items()} == {"/a/b": 2, "/a/c": 1}
    assert state_of(life.events)["drift"] == []


def test_a_redacted_field_has_a_writer_and_no_value() -> None:
    life = event([{"path": "/password", "op": "replace", "redacted": True}])
    assert state_of(life.events)["fields"] == {"/password": {"redacted": True, "set_by": life.events[0].set_by}}


def test_a_value_with_a_part_cut_out_is_marked() -> None:
    life = event([{"path": "/url", "op": "add", "new": {"to": ["x://[redacted]@h"]}}])
    shown = state_of(life.events)["fields"]["/url"]
    assert (shown["redacted"], shown["value"]) == (True, {"to": ["x://[redacted]@h"]})


def test_a_removed_secret_is_absent() -> None:
    life = event([{"path": "/password", "op": "remove", "redacted": True}])
    assert state_of(life.events)["fields"]["/password"]["absent"] is True


def test_withheld_values_prove_no_drift() -> None:
    life = event([{"path": "/url", "op": "add", "new": "x://[redacted]@h/1"}])
    life.log("UPDATE", [{"path": "/url", "op": "replace", "old": "x://[redacted]@h/2", "new": "y"}])
    life.log("UPDATE", [{"path": "/url", "op": "replace", "redacted": True}])
    life.log("UPDATE", [{"path": "/url", "op": "replace", "old": "z", "new": "y"}])
    assert state_of(life.events)["drift"] == []


def test_ignored_members_inside_a_value_prove_no_drift() -> None:
    life = event([{"path": "/m", "op": "add", "new": {"x": 1, "updated_at": 1}}])
    life.log("UPDATE", [{"path": "/m", "op": "remove", "old": {"x": 1, "updated_at": 9}}])
    assert state_of(life.events, ignored=frozenset({"updated_at"}))["drift"] == []
    assert state_of(life.events)["drift_total"] == 1


def test_erased_values_leave_the_column_and_its_writer_and_the_seq_is_named() -> None:
    life = Life()
    life.become({"a": {"x": 1, "y": 1}, "b": 1})
    life.log("UPDATE", None, fields=("a",))
    life.log("UPDATE", [{"path": "/a/x", "op": "replace", "old": 5, "new": 6}])
    state = state_of(life.events)
    shown = {path: (each.get("value", "erased"), each["set_by"]["seq"]) for path, each in state["fields"].items()}
    assert shown == {"/a": ("erased", 1), "/a/x": (6, 2), "/b": (1, 0)}
    assert (state["complete"], state["incomplete"], state["drift"]) == (False, [1], [])


def test_an_erased_creation_still_is_the_beginning() -> None:
    life = event([{"path": "/old", "op": "add", "new": "of another life"}])
    life.log("CREATE", None, fields=("a",))
    state = state_of(life.events)
    assert (list(state["fields"]), state["exists"], state["complete"], state["events_read"]) == (["/a"], True, False, 1)


# ---- births and deaths


def test_a_deletion_without_a_row_leaves_the_state_of_before_it() -> None:
    life = Life()
    life.become({"key": "AAAA", "seats": 3})
    life.become({"key": "AAAA", "seats": 5})
    life.log("DELETE", [])
    state = state_of(life.events)
    assert (state["exists"], state["complete"], state["fields"]) == (False, True, {})
    assert {path: shown["value"] for path, shown in state["deleted"]["fields"].items()} == {"/key": "AAAA", "/seats": 5}
    assert state["deleted"]["complete"] is True
    assert state["deleted"]["fields"]["/seats"]["set_by"]["seq"] == 1


def test_what_happens_to_a_deleted_row_without_changing_it_does_not_bring_it_back() -> None:
    life = Life()
    life.become({"key": "AAAA"})
    life.become(None)
    life.log("READ", [])
    life.log("EXECUTE", [])
    assert state_of(life.events)["exists"] is False


def test_a_restored_row_is_there_again_and_what_it_was_is_still_told() -> None:
    """The sender of a restoration that brings no row does not say what is in it."""
    life = Life()
    life.become({"key": "AAAA", "seats": 3})
    life.become(None)
    life.log("RESTORE", [])
    life.log("UPDATE", [{"path": "/seats", "op": "replace", "old": 8, "new": 9}])
    state = state_of(life.events)
    assert (state["exists"], state["complete"], list(state["fields"])) == (True, False, ["/seats"])
    assert state["deleted"]["fields"]["/key"]["value"] == "AAAA"
    assert state["drift"] == []


def test_what_was_found_after_a_deletion_proves_nothing_about_before_it() -> None:
    life = Life()
    life.become({"seats": 3})
    life.log("DELETE", [])
    life.log("RESTORE", [])
    life.log("UPDATE", [{"path": "/seats", "op": "replace", "old": 8, "new": 9}])
    state = state_of(life.events)
    assert (state["drift"], state["deleted"]["fields"]["/seats"]["value"]) == ([], 3)


def test_a_row_restored_whole_is_known_whole() -> None:
    life = Life()
    life.become({"key": "AAAA"})
    life.become(None)
    life.log("RESTORE", diff(None, {"key": "BBBB"}))
    state = state_of(life.events)
    assert (state["complete"], state["deleted"], state["fields"]["/key"]["value"]) == (True, None, "BBBB")


def test_a_row_restored_from_a_backup_was_there_before() -> None:
    """Only after a deletion is what a restoration adds the whole row."""
    life = Life()
    life.become({"name": "web"})
    life.log("RESTORE", [{"path": "/backup", "op": "add", "new": "b1"}])
    state = state_of(life.events)
    assert (set(state["fields"]), state["complete"], state["events_read"]) == ({"/backup", "/name"}, True, 2)


def test_a_row_deleted_twice_is_told_by_the_deletion_that_brought_it() -> None:
    life = Life()
    life.become({"key": "AAAA"})
    life.become(None)
    life.log("DELETE", [], action="server.purged")
    state = state_of(life.events)
    assert (state["exists"], state["deleted"]["fields"]["/key"]["value"]) == (False, "AAAA")
    assert (state["deleted"]["by"]["seq"], state["deleted"]["complete"], state["events_read"]) == (2, True, 2)


def test_a_deletion_of_the_life_before_is_not_this_one_s() -> None:
    life = Life()
    life.become({"key": "AAAA"})
    life.become(None)
    life.log("UPDATE", [{"path": "/seats", "op": "replace", "old": 1, "new": 2}])
    life.log("DELETE", [])
    state = state_of(life.events)
    assert (state["exists"], list(state["deleted"]["fields"]), state["deleted"]["complete"]) == (
        False,
        ["/seats"],
        False,
    )


def test_a_deleted_secret_is_known_to_have_been_there() -> None:
    life = event(
        [{"path": "/key", "op": "remove", "old": "AAAA"}, {"path": "/token", "op": "replace", "redacted": True}],
        "DELETE",
    )
    deleted = state_of(life.events)["deleted"]
    assert deleted["fields"] == {
        "/key": {"value": "AAAA", "set_by": None},
        "/token": {"redacted": True, "set_by": None},
    }
    assert deleted["complete"] is True


def test_a_deletion_without_old_values_does_not_tell_the_whole_row() -> None:
    life = event([{"path": "/a", "op": "remove", "old": 1}, {"path": "/b", "op": "remove"}], "DELETE")
    deleted = state_of(life.events)["deleted"]
    assert (list(deleted["fields"]), deleted["complete"]) == (["/a"], False)


def test_events_that_the_log_has_lost_make_it_incomplete() -> None:
    life = Life()
    life.become({"key": "AAAA"})
    for row in ({"key": "BBBB"}, None):
        life.become(row)
        walk = Walk("server")
        done = [walk.take(past) for past in reversed(life.events[-2:] if row else life.events[-1:])]
        assert (done[-1], walk.anchor_seq) == (True, 0 if row else 2)
        assert (walk.state()["complete"], walk.state(lost=True)["complete"]) == (True, False)
    assert Walk("server").anchor_seq is None


@pytest.mark.parametrize("action", ["server:backup.create", "server.backup.created"])
def test_something_made_on_a_target_is_not_its_creation(action: str) -> None:
    """Panels log what happens inside a server on the server: its own row is not what was brought."""
    life = Life()
    life.become({"name": "web"})
    life.log("CREATE", [{"path": "/backup", "op": "add", "new": "b1"}], action=action)
    state = state_of(life.events)
    assert (set(state["fields"]), state["complete"], state["events_read"]) == ({"/backup", "/name"}, True, 2)


@pytest.mark.parametrize("changes", [[], [{"path": "/file", "op": "remove", "old": "x"}]])
def test_something_deleted_on_a_target_is_not_its_deletion(changes: list[Change]) -> None:
    life = event(changes, "DELETE", action="server:file.delete")
    state = state_of(life.events)
    assert (state["exists"], state["deleted"]) == (True, None)


def test_a_delete_that_only_changes_a_column_is_an_update() -> None:
    """Soft deletion: the row is there, with a mark."""
    life = event([{"path": "/deleted_at", "op": "replace", "old": None, "new": "2026"}], "DELETE")
    state = state_of(life.events)
    assert (state["exists"], state["deleted"], list(state["fields"])) == (True, None, ["/deleted_at"])


@pytest.mark.parametrize(
    ("action", "target_type", "expected"),
    [
        ("server.deleted", "server", True),
        ("servers.deleted", "Server", True),
        ("companies.deleted", "company", True),
        ("DELETE", "anything", True),
        ("users", "user", True),
        ("delete_server", "server", True),
        ("license.wiped", "license", True),
        ("hosting_account.terminated", "account", True),
        ("deleted", "", True),
        ("user:api-key.delete", "api_key", True),
        ("user:api-key.delete", "user", False),
        ("server:file.delete", "server", False),
        ("server.deleted", "", False),
    ],
)
def test_what_an_action_speaks_of(action: str, target_type: str, *, expected: bool) -> None:
    assert speaks_of_target(action, target_type) is expected


# ---- limits


def many(count: int) -> Life:
    life = Life()
    life.become({f"f{n}": 0 for n in range(10)})
    for number in range(1, count):
        life.become({**life.row, f"f{number % 10}": number})
    return life


@pytest.mark.parametrize(("events", "capped"), [(4, True), (5, False), (6, False)])
def test_a_walk_stops_at_its_limit_of_events_and_says_so(events: int, *, capped: bool) -> None:
    life = many(5)
    state = state_of(life.events, limits=WalkLimits(events=events))
    assert (state["capped"], state["complete"], state["events_read"]) == (capped, not capped, min(events, 5))
    assert_true(state, life)


def test_bytes_read_bytes_shown_and_places_are_limits_too() -> None:
    big = [Past(n, "UPDATE", "server.updated", None, {"seq": n},
                [{"path": f"/f{n}/{m}", "op": "add", "new": 1} for m in range(10)], (), 1000) for n in range(9)]  # fmt: skip
    for limits, read in (
        (WalkLimits(read_bytes=3000), 3),
        (WalkLimits(shown_bytes=2500), 3),
        (WalkLimits(places=12), 2),
    ):
        state = state_of(big, limits=limits)
        assert (state["capped"], state["complete"], state["events_read"]) == (True, False, read), limits
    same = [Past(n, "UPDATE", "server.updated", None, {"seq": n}, [{"path": "/f", "op": "add", "new": n}], (), 1000)
            for n in range(9)]  # fmt: skip
    # Only the newest of them shows anything, so the others cost nothing to show.
    assert state_of(same, limits=WalkLimits(shown_bytes=2500))["capped"] is False


def test_a_creation_too_wide_to_hold_is_not_called_complete() -> None:
    life = event([{"path": f"/f{n}", "op": "add", "new": n} for n in range(20)], "CREATE")
    state = state_of(life.events, limits=WalkLimits(places=10))
    assert (state["capped"], state["complete"], len(state["fields"])) == (True, False, 10)


def test_a_path_of_a_thousand_segments_is_no_trouble() -> None:
    deep = "/" * 1024
    life = event([{"path": deep, "op": "add", "new": 1}])
    life.log("UPDATE", [{"path": deep, "op": "replace", "old": 2, "new": 3}])
    state = state_of(life.events)
    assert (state["fields"][deep]["value"], state["drift_total"]) == (3, 1)


def test_drift_and_unreadable_seqs_are_listed_up_to_a_hundred() -> None:
    life = Life()
    for _ in range(150):
        life.log("UPDATE", [{"path": "/a", "op": "replace", "old": 1, "new": 2}])
        life.log("UPDATE", None)
    state = state_of(life.events)
    assert (len(state["drift"]), state["drift_total"], len(state["incomplete"])) == (100, 149, 100)


# ---- from what is stored


BODY = {"id": "e1", "action": "server.updated", "verb": "UPDATE", "occurred_at": "2026-03-01T10:00:00.000000Z",
        "actor_type": "user", "fields": ["a"], "sd": {"changes": "00", "actor": "00"}}  # fmt: skip


def salted(value: Any) -> bytes:
    return bytes(32) + orjson.dumps(value)


def test_an_event_is_read_from_body_and_disclosures() -> None:
    stored = {"actor": salted({"name": "Ana"}), "changes": salted([{"path": "/a", "op": "add", "new": 1}])}
    past = past_event(7, "e1", orjson.dumps(BODY).decode(), stored, 99, EVERYTHING)
    actor = {"type": "user", "id": None, "name": "Ana", "email": None, "role": None}
    assert past.set_by == {
        "actor": actor, "on_behalf_of": None, "event_id": "e1", "seq": 7,
        "occurred_at": "2026-03-01T10:00:00.000000Z", "action": "server.updated",
    }  # fmt: skip
    assert (past.changes, past.fields, past.size_bytes) == ([{"path": "/a", "op": "add", "new": 1}], ["a"], 99)


def test_erased_changes_leave_the_names_of_columns() -> None:
    past = past_event(7, "e1", orjson.dumps(BODY).decode(), {}, 0, EVERYTHING)
    assert (past.changes, past.fields, past.set_by["actor"]) == (None, ["a"], {
        "type": "user", "id": None, "name": None, "email": None, "role": None,
    })  # fmt: skip


@pytest.mark.parametrize(
    "body", [None, "", "[]", "{", "{}", '{"action":1}', orjson.dumps({**BODY, "fields": 5}).decode(), '"x"']
)
def test_a_body_that_no_append_wrote_is_an_event_that_cannot_be_read(body: str | None) -> None:
    past = past_event(7, "e1", body, {"changes": salted([])}, 5, EVERYTHING)
    assert (past.changes, past.set_by["seq"], past.set_by["event_id"], past.size_bytes) == (None, 7, "e1", 5)
    assert state_of([past])["incomplete"] == [7]


@pytest.mark.parametrize(
    "changes", [5, [5], [{}], [{"path": 1, "op": "add", "new": 1}], [{"path": "a", "op": "add", "new": 1}],
                [{"path": "/a", "op": "move", "new": 1}], [{"path": "/a", "op": "add"}], None, "xx"]
)  # fmt: skip
def test_changes_that_no_append_wrote_cannot_be_read(changes: Any) -> None:
    assert past_event(7, "e1", orjson.dumps(BODY).decode(), {"changes": salted(changes)}, 0, EVERYTHING).changes is None


pointers = st.lists(names, min_size=1, max_size=3).map(
    lambda parts: "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)
)
claims = st.fixed_dictionaries(
    {"path": pointers, "op": st.sampled_from(["add", "remove", "replace"]), "new": values},
    optional={"old": values, "redacted": st.just(True)},
)


@given(st.lists(st.lists(claims, max_size=4), max_size=6), st.sampled_from(["CREATE", "UPDATE", "DELETE", "RESTORE"]))
def test_whatever_senders_claim_the_walk_takes_it(claimed: list[Any], verb: str) -> None:
    """Ready-made changes may contradict each other in every way: never an error, always an answer that JSON can hold."""
    life = Life()
    for changes in claimed:
        life.log(verb, changes)
        life.log("UPDATE", changes)
    state = state_of(life.events)
    assert orjson.dumps(state)
    assert state["drift_total"] >= len(state["drift"])
