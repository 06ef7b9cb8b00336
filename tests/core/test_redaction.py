"""Trees, changes and events: what is replaced, what stays, and every known miss of other redactors."""

import copy
import doctest
from collections.abc import Callable

import orjson
import pytest

from audit_service.core import card_number, redaction, redaction_tree, secret_names, secret_patterns, secret_words
from audit_service.core.canonical import JSONValue
from audit_service.core.diff import apply_changes, diff
from audit_service.core.redaction import (
    DEPTH_LIMIT,
    REDACTED,
    Ruleset,
    compile_ruleset,
    redact_changes,
    redact_event,
    redact_text,
    redact_value,
)

RULES = compile_ruleset()
CANARY = "hun" + "ter2canary"
TOKEN = "gh" + "p_" + "a1B2c3D4e5F6" * 3


def row(value: JSONValue, rules: Ruleset = RULES) -> JSONValue:
    return redact_value(value, rules)


@pytest.mark.parametrize("module", [card_number, redaction, redaction_tree, secret_names, secret_patterns])
def test_the_examples_in_the_docstrings_run(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


class TestKnownMisses:
    """Each row of the table of known misses of other redactors."""

    def test_nested_deeper(self) -> None:
        assert row({"a": {"b": [{"c": {"password": CANARY}}]}}) == {"a": {"b": [{"c": {"password": REDACTED}}]}}

    def test_a_list_under_a_secret_key(self) -> None:
        assert row({"tokens": [CANARY, CANARY]}) == {"tokens": REDACTED}
        assert redact_value(CANARY, RULES, path=("tokens", "0")) == REDACTED

    @pytest.mark.parametrize("value", [{"a": CANARY}, [CANARY], 123456, 1.5, True, False, "", [], {}])
    def test_any_type_under_a_secret_key(self, value: JSONValue) -> None:
        assert row({"token": value}) == {"token": REDACTED}

    def test_null_under_a_secret_key_says_nothing_and_stays(self) -> None:
        assert row({"token": None}) == {"token": None}

    @pytest.mark.parametrize("depth", [DEPTH_LIMIT - 1, DEPTH_LIMIT, DEPTH_LIMIT + 1, 5 * DEPTH_LIMIT])
    def test_beyond_the_maximum_depth(self, depth: int) -> None:
        value: JSONValue = {"note": "x" * 3 + "deep"}
        for level in range(depth):
            value = {"a": value} if level % 2 else [value]
        kept = "xxxdeep" in orjson.dumps(redact_value(value, RULES)).decode()
        assert kept == (depth < DEPTH_LIMIT)

    def test_longer_names_with_a_secret_word(self) -> None:
        assert row({"user_secret_details": CANARY}) == {"user_secret_details": REDACTED}

    def test_harmless_names_that_contain_secret_words(self) -> None:
        kept: JSONValue = {"postcode": "1010", "author_name": "Ana", "token_count": 3, "keyboard": "de", "key": "ABC-1"}
        assert row(kept) is kept

    def test_bare_key_is_the_choice_of_the_operator_and_passphrase_is_none(self) -> None:
        rules = compile_ruleset(extra_words=["key"])
        assert redact_value({"key": CANARY, "primary_key": 1}, rules) == {"key": REDACTED, "primary_key": 1}
        assert row({"passphrase": CANARY}) == {"passphrase": REDACTED}

    def test_json_inside_a_string(self) -> None:
        inner = orjson.dumps({"a": {"password": CANARY, "b": orjson.dumps({"secret": CANARY}).decode()}}).decode()
        shown = row({"oldValue": inner})
        assert CANARY not in str(shown)
        assert orjson.loads(shown["oldValue"])["a"]["password"] == REDACTED  # type: ignore[index, arg-type, call-overload]

    def test_paths_and_query_strings(self) -> None:
        assert redact_text(f"GET /v1/x?token={CANARY}&page=2", RULES) == "GET /v1/x?token=[redacted]&page=2"
        assert TOKEN not in redact_text(f"/hooks/{TOKEN}/run", RULES)

    def test_nothing_of_the_value_is_left_to_guess(self) -> None:
        """No plain hash, no length: two different secrets leave the same bytes."""
        short: dict[str, JSONValue] = {"path": "/pin", "op": "replace", "old": "1", "new": "2"}
        redacted = redact_changes([short], RULES, target_type=None)
        assert redacted == redact_changes([{**short, "new": CANARY}], RULES, target_type=None)
        assert redacted == [{"path": "/pin", "op": "replace", "redacted": True}]

    def test_create_update_and_delete_alike_whatever_the_type_of_the_column(self) -> None:
        sides: list[tuple[JSONValue, JSONValue]] = [
            (None, {"pin": 4711}), ({"pin": 4711}, {"pin": 4712}), ({"pin": 4711}, None),
        ]  # fmt: skip
        for before, after in sides:
            changes = redact_changes(diff(before, after), RULES, target_type=None)
            assert [change["path"] for change in changes] == ["/pin"]
            assert changes[0].keys() == {"path", "op", "redacted"}

    def test_configured_rules_do_something_or_stop_the_start(self) -> None:
        for arguments in (
            {"extra_patterns": ["("]}, {"exempt_paths": ["a/b"]}, {"pointers": {"x": [""]}}, {"extra_words": ["-"]},
            {"pointers": {"x": ["/a~2"]}}, {"exempt_paths": ["/~"]}, {"extra_words": ["k"], "harmless_words": ["k"]},
        ):  # fmt: skip
            with pytest.raises(ValueError, match=r"pattern|Pointer|word|both"):
                compile_ruleset(**arguments)

    def test_old_rows_carry_what_new_rows_hide(self) -> None:
        before: JSONValue = {"name": "a", "password_hash": CANARY}
        assert redact_changes(diff(before, {"name": "b"}, partial="after"), RULES, target_type=None) == [
            {"path": "/name", "op": "replace", "old": "a", "new": "b"}
        ]
        assert CANARY not in str(redact_changes(diff(before, None), RULES, target_type=None))

    def test_a_renamed_secret_is_a_removal_and_an_addition_both_redacted(self) -> None:
        changes = redact_changes(diff({"password": "a"}, {"pwd": "a"}), RULES, target_type=None)
        assert changes == [
            {"path": "/password", "op": "remove", "redacted": True},
            {"path": "/pwd", "op": "add", "redacted": True},
        ]

    def test_an_unchanged_secret_does_not_appear(self) -> None:
        assert redact_changes(diff({"pin": 1, "a": 1}, {"pin": 1, "a": 2}), RULES, target_type=None) == [
            {"path": "/a", "op": "replace", "old": 1, "new": 2}
        ]

    def test_a_whole_json_column_that_changed_hides_its_token_three_levels_down(self) -> None:
        change: dict[str, JSONValue] = {
            "path": "/local_context_data", "op": "replace", "old": None, "new": {"a": [{"token": CANARY}], "b": 1},
        }  # fmt: skip
        assert redact_changes([change], RULES, target_type=None)[0]["new"] == {"a": [{"token": REDACTED}], "b": 1}

    def test_variables_of_plesk_events(self) -> None:
        shown = row({"OLD_SYSTEM_USER_PASSWORD": CANARY, "NEW_PASSWORD": CANARY, "NEW_DOMAIN_NAME": "x.org"})
        assert shown == {
            "OLD_SYSTEM_USER_PASSWORD": REDACTED, "NEW_PASSWORD": REDACTED, "NEW_DOMAIN_NAME": "x.org",
        }  # fmt: skip


class TestTrees:
    def test_parts_without_findings_are_the_same_objects(self) -> None:
        value: dict[str, JSONValue] = {"a": [{"b": "c"}], "d": {"password": CANARY}, "e": {"f": 1}}
        before = copy.deepcopy(value)
        redacted = redact_value(value, RULES)
        assert value == before
        assert isinstance(redacted, dict)
        assert redacted["a"] is value["a"]
        assert redacted["e"] is value["e"]

    def test_secrets_in_object_keys_go_and_collisions_say_nothing(self) -> None:
        other = TOKEN[:-3] + "zzz"
        assert row({TOKEN: 1}) == {REDACTED: 1}
        assert row({TOKEN: 1, other: 2, "a": 3}) == {REDACTED: REDACTED, "a": 3}
        assert row({f"x?token={CANARY}": 1}) == {"x?token=[redacted]": REDACTED}

    @pytest.mark.parametrize(
        ("pair", "hidden"),
        [
            ({"name": "DB_PASSWORD", "value": CANARY}, "value"),
            ({"key": "api_key", "value": [CANARY]}, "value"),
            ({"variable": "RCON_PASS", "old": CANARY, "new": None}, "old"),
            ({"header": "Authorization", "content": CANARY}, "content"),
            ({"env_variable": "TOKEN", "default_value": CANARY, "user_viewable": True}, "default_value"),
        ],
    )
    def test_a_value_beside_a_secret_name_is_named_by_it(self, pair: dict[str, JSONValue], hidden: str) -> None:
        assert row([pair]) == [{**pair, hidden: REDACTED}]
        harmless: JSONValue = {"name": "PORT", "value": "8080", "key": "a", "content": "b"}
        assert row(harmless) is harmless

    def test_the_value_after_a_secret_option_goes(self) -> None:
        assert row(["--user", "ana", "--password", CANARY, "-v"]) == ["--user", "ana", "--password", REDACTED, "-v"]
        assert row(["--password", "-v"]) == ["--password", "-v"]

    def test_auth_hides_a_scalar_but_not_the_object_of_that_name(self) -> None:
        assert row({"auth": CANARY}) == {"auth": REDACTED}
        assert row({"auth": {"user": "ana", "password": CANARY}}) == {"auth": {"user": "ana", "password": REDACTED}}
        changes: list[dict[str, JSONValue]] = [
            {"path": "/auth", "op": "add", "new": CANARY}, {"path": "/auth/user", "op": "add", "new": "ana"},
        ]  # fmt: skip
        assert redact_changes(changes, RULES, target_type=None) == [
            {"path": "/auth", "op": "add", "redacted": True}, {"path": "/auth/user", "op": "add", "new": "ana"},
        ]  # fmt: skip

    def test_pointers_hide_what_they_point_at_for_their_target_type_only(self) -> None:
        rules = compile_ruleset(pointers={"server": ["/env/*/value", "/list/1"], "*": ["/note"]})
        value: JSONValue = {"env": {"A": {"value": [1], "n": 1}}, "note": "x", "list": [1, 2, 3]}
        assert redact_value(value, rules, target_type="server") == {
            "env": {"A": {"value": REDACTED, "n": 1}}, "note": REDACTED, "list": [1, REDACTED, 3],
        }  # fmt: skip
        assert redact_value(value, rules, target_type="user") == {**value, "note": REDACTED}  # type: ignore[dict-item]
        assert redact_value("x", rules, path=("env", "A", "value", "0"), target_type="server") == REDACTED

    def test_exempt_paths_spare_from_names_but_not_from_patterns(self) -> None:
        rules = compile_ruleset(exempt_paths=["/token", "/items/*/secret", "/list/*/pin"])
        value: JSONValue = {
            "token": "board game piece", "items": [{"secret": 1}], "a": {"token": 2}, "list": [{"pin": {"pin": 3}}],
        }  # fmt: skip
        assert redact_value(value, rules) == {
            "token": "board game piece", "items": [{"secret": 1}], "a": {"token": REDACTED},
            "list": [{"pin": {"pin": REDACTED}}],
        }  # fmt: skip
        assert redact_value({"token": TOKEN}, rules) == {"token": REDACTED}
        event: dict[str, JSONValue] = {"after": value, "metadata": {"token": f"see https://u:{CANARY}@h/"}}
        redacted, changes = redact_event(event, diff(None, value), rules)
        assert redacted["after"] == redact_value(value, rules)
        assert redacted["metadata"] == {"token": "see https://[redacted]@h/"}
        assert {"path": "/token", "op": "add", "new": "board game piece"} in changes

    def test_lone_surrogates_do_not_raise(self) -> None:
        assert row({"\ud800": "\udfff x"}) == {"\ud800": "\udfff x"}
        assert CANARY not in ascii(row({"\ud800": f"\udfff password={CANARY}"}))
        rules = compile_ruleset(extra_patterns=["^x.*$"])
        assert redact_value("x\ud800", rules) == REDACTED


class TestChanges:
    def test_a_path_is_cut_after_its_first_secret_segment_and_what_collapses_becomes_one(self) -> None:
        changes: list[dict[str, JSONValue]] = [
            {"path": "/b/secrets/1/x", "op": "add", "new": CANARY}, {"path": "/b/secrets/0", "op": "remove", "old": CANARY},
            {"path": "/a", "op": "replace", "old": 1, "new": 2}, {"path": "/c/token", "op": "remove", "old": CANARY},
        ]  # fmt: skip
        assert redact_changes(changes, RULES, target_type=None) == [
            {"path": "/a", "op": "replace", "old": 1, "new": 2},
            {"path": "/b/secrets", "op": "replace", "redacted": True},
            {"path": "/c/token", "op": "remove", "redacted": True},
        ]

    def test_values_that_differ_only_in_their_secret_become_a_redacted_change(self) -> None:
        changes: list[dict[str, JSONValue]] = [
            {"path": "/cfg", "op": "replace", "old": {"pin": 1, "a": 2}, "new": {"pin": 2, "a": 2}},
            {"path": "/url", "op": "replace", "old": f"https://u:{CANARY}@h/", "new": f"https://u:{CANARY}2@h/"},
            {"path": "/same", "op": "replace", "old": 1, "new": 1},
        ]
        assert redact_changes(changes, RULES, target_type=None) == [
            {"path": "/cfg", "op": "replace", "redacted": True},
            {"path": "/same", "op": "replace", "old": 1, "new": 1},
            {"path": "/url", "op": "replace", "redacted": True},
        ]

    def test_a_secret_in_a_path_goes_and_the_path_stays_a_pointer(self) -> None:
        changes: list[dict[str, JSONValue]] = [
            {"path": f"/a~1b/{TOKEN}/n~0", "op": "add", "new": 1}, {"path": f"/x/{TOKEN}", "op": "add", "new": 1},
            {"path": f"/x/{TOKEN[:-1]}z", "op": "add", "new": 2},
            {"path": f"/https:~1~1u:{CANARY}@h~1~0", "op": "add", "new": 1},
        ]  # fmt: skip
        assert redact_changes(changes, RULES, target_type=None) == [
            {"path": "/a~1b/[redacted]/n~0", "op": "add", "new": 1},
            {"path": "/https:~1~1[redacted]@h~1~0", "op": "add", "new": 1},
            {"path": "/x/[redacted]", "op": "add", "redacted": True},
        ]

    def test_pointers_cut_paths_and_reach_into_values(self) -> None:
        rules = compile_ruleset(pointers={"server": ["/env/*/v"]})
        changes: list[dict[str, JSONValue]] = [
            {"path": "/env/A/v/deep", "op": "add", "new": CANARY},
            {"path": "/env/B", "op": "add", "new": {"v": CANARY, "n": 1}},
        ]
        assert redact_changes(changes, rules, target_type="server") == [
            {"path": "/env/A/v", "op": "replace", "redacted": True},
            {"path": "/env/B", "op": "add", "new": {"v": REDACTED, "n": 1}},
        ]
        assert redact_changes(changes, rules, target_type="user") == changes

    def test_a_list_element_keeps_the_name_of_its_list(self) -> None:
        number = int("4111" + "1111" * 3)
        changes: list[dict[str, JSONValue]] = [{"path": "/cards/0", "op": "add", "new": number}]
        assert redact_changes(changes, RULES, target_type=None) == [{"path": "/cards/0", "op": "add", "new": REDACTED}]

    def test_redacted_changes_pass_and_the_law_of_diff_holds_over_the_redacted_pair(self) -> None:
        before: JSONValue = {"a": 1, "pin": 1, "b": {"token": "x", "c": 1}}
        after: JSONValue = {"a": 2, "pin": 2, "b": {"token": "y", "c": 2}}
        changes = redact_changes(diff(before, after), RULES, target_type=None)
        assert redact_changes(changes, RULES, target_type=None) == changes
        assert apply_changes(redact_value(before, RULES), changes) == redact_value(after, RULES)


def full_event(secret: str) -> dict[str, JSONValue]:
    """An event with `secret` in every member that carries text."""
    return {
        "id": secret, "action": "user.login", "verb": "LOGIN", "occurred_at": "2026-01-01T00:00:00Z",
        "actor": {"type": "user", "id": secret, "name": secret, "email": secret, "role": secret},
        "on_behalf_of": {"type": "user", "id": secret, "name": secret},
        "target": {"type": "server", "id": secret, "name": secret},
        "related": [{"type": "backup", "id": secret, "name": secret}],
        "server_id": secret, "outcome": "failure", "reason": secret, "description": secret,
        "context": {"ip": "203.0.113.9", "user_agent": secret, "request_id": secret, "traceparent": secret},
        "before": {"a": secret, "l": [{"x": secret}]}, "after": {"a": "x", secret: 1, "n": {"password": secret}},
        "metadata": {"note": secret, "j": orjson.dumps([secret]).decode()}, "source": {"id": secret, "seq": 1},
    }  # fmt: skip


class TestEvents:
    def test_no_member_keeps_the_secret_and_the_input_keeps_them_all(self) -> None:
        event = full_event(TOKEN)
        before = copy.deepcopy(event)
        changes = diff(event["before"], event["after"])
        redacted, shown = redact_event(event, changes, RULES)
        assert TOKEN not in orjson.dumps([redacted, shown]).decode()
        assert event == before
        assert redact_event(redacted, shown, RULES) == (redacted, shown)

    def test_a_switched_off_ruleset_fails_the_check_above(self) -> None:
        """Control: the checker finds the canary when nothing is redacted."""
        event = full_event(TOKEN)
        found = orjson.dumps([event, diff(event["before"], event["after"])]).decode().count(TOKEN)
        assert found >= 20

    def test_the_session_id_and_closed_members_stay_as_they_are(self) -> None:
        event: dict[str, JSONValue] = {
            "action": "users:token=abc", "verb": "OTHER", "context": {"session_id": TOKEN, "user_agent": TOKEN},
        }  # fmt: skip
        redacted, _ = redact_event(event, [], RULES)
        assert redacted == {**event, "context": {"session_id": TOKEN, "user_agent": REDACTED}}

    def test_an_event_without_findings_comes_back_as_the_same_object(self) -> None:
        event = full_event("plain")
        event["after"], event["metadata"] = {"a": "x"}, {"note": "plain"}
        changes = diff(event["before"], event["after"])
        redacted, shown = redact_event(event, changes, RULES)
        assert redacted is event
        assert shown is changes

    @pytest.mark.parametrize("path", ["/card_gateway", "/auth", "/cc_note", f"/{TOKEN}"])
    def test_values_under_names_that_ask_for_more_are_looked_at(self, path: str) -> None:
        changes: list[dict[str, JSONValue]] = [{"path": path, "op": "add", "new": "https://ana:hunter2@host/"}]
        _, (change,) = redact_event({"action": "x", "changes": list(changes)}, changes, RULES)
        assert "hunter2" not in str(change)

    @pytest.mark.parametrize("columns", ["columns", "access_keys", "api_key"])
    def test_columns_with_secret_names_hide_the_rows_beside_them(self, columns: str) -> None:
        metadata: dict[str, JSONValue] = {columns: ["user", "password"], "rows": [["ana", "hunter2"]]}
        redacted, _ = redact_event({"action": "x", "metadata": metadata}, [], RULES)
        assert redacted["metadata"]["rows"] == [["ana", REDACTED]]  # type: ignore[index,call-overload]

    def test_rows_that_change_as_a_whole_lose_their_secret_columns(self) -> None:
        before: JSONValue = {"columns": ["id", "password"], "rows": [], "t": {"fields": ["id", "pin"], "values": []}}
        after: JSONValue = {
            "columns": ["id", "password"], "rows": [[1, "hunter2"]], "t": {"fields": ["id", "pin"], "values": [7, "hunter2"]},
        }  # fmt: skip
        for old in (None, before):
            _, changes = redact_event({"action": "x", "before": old, "after": after}, diff(old, after), RULES)
            by_path = {str(change["path"]): change for change in changes}
            assert by_path["/rows"]["new"] == [[1, REDACTED]]
            assert "hunter2" not in str(changes)
        ready_made: list[dict[str, JSONValue]] = [
            {"path": "/columns", "op": "add", "new": ["id", "password"]}, {"path": "/rows", "op": "add", "new": [[1, "hunter2"]]},
        ]  # fmt: skip
        _, changes = redact_event({"action": "x", "changes": list(ready_made)}, ready_made, RULES)
        assert changes[1]["new"] == [[1, REDACTED]]

    def test_ready_made_changes_inside_the_event_are_redacted_too(self) -> None:
        change: dict[str, JSONValue] = {"path": "/pin", "op": "replace", "old": 1, "new": 2}
        redacted, shown = redact_event({"action": "a", "changes": [change]}, [change], RULES)
        assert redacted["changes"] == shown == [{"path": "/pin", "op": "replace", "redacted": True}]

    def test_a_changed_value_is_judged_by_the_name_beside_it_in_the_rows(self) -> None:
        before: JSONValue = {"env": [{"key": "PORT", "value": "1"}, {"key": "DB_PASSWORD", "value": "a"}]}
        after: JSONValue = {"env": [{"key": "PORT", "value": "2"}, {"key": "DB_PASSWORD", "value": CANARY}]}
        _, changes = redact_event({"before": before, "after": after}, diff(before, after), RULES)
        assert changes == [
            {"path": "/env/0/value", "op": "replace", "old": "1", "new": "2"},
            {"path": "/env/1/value", "op": "replace", "redacted": True},
        ]
        before, after = {"argv": ["run", "--token", "a"]}, {"argv": ["run", "--token", CANARY]}
        _, changes = redact_event({"before": before, "after": after}, diff(before, after), RULES)
        assert changes == [{"path": "/argv/2", "op": "replace", "redacted": True}]

    def test_paths_that_lead_nowhere_in_the_rows_do_no_harm(self) -> None:
        rows: JSONValue = {"a": 1, "l": ["x", "--token"]}
        changes: list[dict[str, JSONValue]] = [
            {"path": path, "op": "add", "new": 1}
            for path in ("/a/b/value", "/l/-/value", "/l/0", "/l/9", "/l/99999999999", "/l/\u00b2", "/pin", "/value")
        ]
        _, shown = redact_event({"before": rows, "after": rows}, changes, RULES)
        assert len(shown) == len(changes)
        assert [change["path"] for change in shown if "redacted" in change] == ["/pin"]

    def test_unsorted_and_doubled_changes_come_out_sorted_and_single(self) -> None:
        changes: list[dict[str, JSONValue]] = [
            {"path": "/b", "op": "add", "new": 1}, {"path": "/a", "op": "add", "new": 1}, {"path": "/b", "op": "add", "new": 2},
        ]  # fmt: skip
        _, shown = redact_event({"action": "a"}, changes, RULES)
        assert shown == [
            {"path": "/a", "op": "add", "new": 1}, {"path": "/b", "op": "add", "redacted": True},
        ]  # fmt: skip

    def test_pointers_follow_the_target_type_of_the_event(self) -> None:
        rules = compile_ruleset(pointers={"server": ["/note"]})
        event: dict[str, JSONValue] = {"target": {"type": "server"}, "after": {"note": "x"}, "metadata": {"note": "y"}}
        redacted, changes = redact_event(event, diff(None, event["after"]), rules)
        assert redacted == {**event, "after": {"note": REDACTED}, "metadata": {"note": REDACTED}}
        assert changes == [{"path": "/note", "op": "add", "redacted": True}]
        assert redact_event({**event, "target": {"type": "user"}}, [], rules)[0]["after"] == {"note": "x"}

    def test_rows_that_are_too_deep_or_no_objects_are_dealt_with(self) -> None:
        deep: JSONValue = "password=" + CANARY
        for _ in range(DEPTH_LIMIT + 3):
            deep = [deep]
        redacted, _ = redact_event({"after": {"a": deep}, "metadata": f"token={CANARY}"}, [], RULES)
        assert CANARY not in str(redacted)
        assert redacted["metadata"] == "token=[redacted]"
        root: dict[str, JSONValue] = {"path": "", "op": "replace", "old": 1, "new": {"pin": 2}}
        assert redact_changes([root], RULES, target_type=None)[0]["new"] == {"pin": REDACTED}
        event: dict[str, JSONValue] = {
            "actor": {"id": None},
            "source": [f"token={CANARY}", None, 1],
            "changes": None,
            "reason": 5,
        }
        assert redact_event(event, [], RULES)[0] == {**event, "source": ["token=[redacted]", None, 1]}

    def test_strings_with_nul_bytes_do_not_shift_the_screen(self) -> None:
        event: dict[str, JSONValue] = {"reason": "a\0b\0", "description": f"token={CANARY}", "metadata": {"x": "\0"}}
        assert redact_event(event, [], RULES)[0] == {**event, "description": "token=[redacted]"}


class TestDigest:
    def test_equal_rules_have_equal_digests_of_16_hex_characters(self) -> None:
        assert compile_ruleset().digest == RULES.digest
        assert len(RULES.digest) == 16
        assert int(RULES.digest, 16) >= 0

    @pytest.mark.parametrize(
        "make",
        [
            lambda: compile_ruleset(extra_words=["x"]),
            lambda: compile_ruleset(harmless_words=["x"]),
            lambda: compile_ruleset(extra_patterns=["x"]),
            lambda: compile_ruleset(exempt_paths=["/x"]),
            lambda: compile_ruleset(pointers={"x": ["/x"]}),
            lambda: compile_ruleset(pointers={"*": ["/x"]}),
        ],
    )
    def test_every_setting_changes_it(self, make: Callable[[], Ruleset]) -> None:
        assert make().digest != RULES.digest

    def test_every_built_in_list_changes_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(secret_words.VOCABULARY, "words", ["other"])
        assert compile_ruleset().digest != RULES.digest


def test_the_memory_of_judged_names_is_bounded() -> None:
    rules = compile_ruleset()
    for start in range(0, 30_000, 1000):
        redact_value({f"n{number}": 1 for number in range(start, start + 1000)}, rules)
    assert len(rules.memo) <= 8192
    for number in range(9000):
        rules.is_plain_path(f"/a/b{number}")
    assert not rules.is_plain_path("/" + "x" * 1000 + "password")
    rules.judge("x" * 1000)
    assert "x" * 1000 not in rules.memo
