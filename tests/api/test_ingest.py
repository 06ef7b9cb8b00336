"""One event sent: every member, default, derivation and spelling; and every way an event is refused."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from audit_service.api import schemas
from tests.support.api import Api
from tests.support.apps import open_api
from tests.support.postgres import TestDatabase
from tests.support.posting import refused, send, stored

FULL: dict[str, Any] = {
    "id": "full:1",
    "occurred_at": "2026-03-01T10:15:00.123456+01:00",
    "action": "schedule.updated",
    "verb": "UPDATE",
    "category": "schedules",
    "actor": {"type": "user", "id": "u12", "name": "Ana Gómez", "email": "ana@example.com", "role": "Super Admin"},
    "on_behalf_of": {"type": "user", "id": "u3", "name": "Client Three"},
    "target": {"type": "schedule", "id": "77", "name": "nightly"},
    "related": [{"type": "backup_log", "id": "5512"}],
    "server_id": "s9",
    "outcome": "success",
    "reason": "asked for by the client",
    "description": "retention raised",
    "context": {
        "ip": "203.0.113.9",
        "user_agent": "curl/8",
        "session_id": "session-1",
        "request_id": "r-1",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    },
    "before": {"retention": {"days": 7}, "password": "a"},
    "after": {"retention": {"days": 14}, "password": "b"},
    "partial": "none",
    "metadata": {"amount": "12.50", "currency": "EUR"},
    "source": {"id": "panel-7", "seq": 1029},
}


# --- members ---


async def test_every_member_comes_back_in_its_place(shared_api: Api) -> None:
    event = await stored(shared_api, FULL)
    schemas.EventView.model_validate(event)
    assert event["occurred_at"] == "2026-03-01T09:15:00.123456Z"
    for member in ("action", "verb", "category", "actor", "server_id", "outcome", "reason", "description", "metadata"):
        assert event[member] == FULL[member]
    for member in ("on_behalf_of", "related", "source"):
        assert event[member] == FULL[member]
    assert event["target"] == FULL["target"] | {"url": None}
    context = event["context"]
    assert context.pop("session_id") not in (None, FULL["context"]["session_id"])
    assert context == {name: value for name, value in FULL["context"].items() if name != "session_id"}
    assert event["changes"] == [
        {"path": "/password", "op": "replace", "redacted": True},
        {"path": "/retention/days", "op": "replace", "old": 7, "new": 14},
    ]
    assert (event["kind"], event["erased"], event["details"]) == ("event", [], None)


async def test_only_an_action_is_needed(shared_api: Api) -> None:
    before = datetime.now(UTC)
    response = await shared_api.post({"action": "panel.booted"})
    assert response.status_code == 201
    receipt = response.json()
    schemas.Receipt.model_validate(receipt)
    assert uuid.UUID(receipt["id"]).version == 7
    event = await shared_api.event(receipt["id"])
    assert before <= datetime.fromisoformat(event["occurred_at"]) <= datetime.now(UTC)
    assert (event["verb"], event["category"]) == ("OTHER", "panel")
    absent = ("actor", "on_behalf_of", "target", "server_id", "outcome", "reason", "description", "context", "metadata")
    assert {event[member] for member in absent} == {None}
    assert (event["related"], event["changes"], event["source"]) == ([], [], None)


DERIVED = [
    ("server.created", "CREATE", "server"), ("schedule.updated", "UPDATE", "schedule"), ("user.deleted", "DELETE", "user"),
    ("server:power.start", "EXECUTE", "server"), ("server:startup.edit", "UPDATE", "server"), ("UPDATE", "UPDATE", "UPDATE"),
    ("INSERT", "CREATE", "INSERT"), ("users", "OTHER", "users"), ("auth:login", "LOGIN", "auth"), ("auth.logout", "LOGOUT", "auth"),
    ("password-reset", "RESET", "password-reset"), ("api_key/rotated", "RESET", "api_key/rotated"), ("file.view", "READ", "file"),
    ("backup:restore", "RESTORE", "backup"), ("client.suspended", "SUSPEND", "client"), ("client.unsuspended", "RESUME", "client"),
    ("licence.transfer", "TRANSFER", "licence"), ("licence.TRANSFERRED", "TRANSFER", "licence"), ("server.rebuilt", "OTHER", "server"),
    ("a.b:c", "OTHER", "a"), ("...", "OTHER", "..."), (".update", "UPDATE", ".update"), ("updated.", "UPDATE", "updated"),
]  # fmt: skip


async def test_verb_and_category_are_derived_from_the_action(shared_api: Api) -> None:
    events = [{"action": action, "metadata": {"n": place}} for place, (action, _, _) in enumerate(DERIVED)]
    response = await shared_api.client.post("/v1/events", json=events)
    assert response.status_code == 201, response.text
    seqs = [result["receipt"]["seq"] for result in response.json()["results"]]
    found = {event["seq"]: event for event in await shared_api.list(sort="-seq", limit=500)}
    assert [(found[seq]["action"], found[seq]["verb"], found[seq]["category"]) for seq in seqs] == DERIVED


async def test_a_verb_and_a_category_that_are_sent_win(shared_api: Api) -> None:
    event = await stored(shared_api, {"action": "server.deleted", "verb": "SUSPEND", "category": "vps"})
    assert (event["verb"], event["category"]) == ("SUSPEND", "vps")
    assert (await stored(shared_api, {"action": "row", "verb": "INSERT"}))["verb"] == "CREATE"


PARTIAL = [
    ("none", {"a": 1, "b": 2}, {"a": 1, "c": 3}, ["remove /b 2", "add /c 3"]),
    ("after", {"a": 1, "b": 2, "c": None}, {"a": 5, "c": 7}, ["replace /a 1 5", "replace /c null 7"]),
    ("after", {"a": 1, "b": 2}, {"b": None}, ["replace /b 2 null"]),
    ("after", {"a": 1}, {"z": 9}, ["add /z 9"]),
    ("before", {"a": 1}, {"a": 2, "b": 3, "c": 4}, ["replace /a 1 2"]),
    ("before", {"gone": 1}, {"a": 2}, ["remove /gone 1"]),
    ("both", {"a": 1, "x": 1}, {"a": 2, "y": 2}, ["replace /a 1 2", "remove /x 1", "add /y 2"]),
    ("after", None, {"a": 1, "b": 2}, ["add /a 1", "add /b 2"]),
    ("before", {"a": 1}, None, ["remove /a 1"]),
    ("none", [], {"a": 1}, ["add /a 1"]),
    ("none", {"m": []}, {"m": {"k": 1}}, ["add /m/k 1"]),
    ("none", {"m": {"k": 1}}, {"m": []}, ["remove /m/k 1"]),
    ("none", {"a/b": 1, "c~d": 1}, {"a/b": 2, "c~d": 2}, ["replace /a~1b 1 2", "replace /c~0d 1 2"]),
    ("none", {"n": 1, "t": True}, {"n": "1", "t": 1}, ['replace /n 1 "1"', "replace /t true 1"]),
]


@pytest.mark.parametrize(("partial", "before", "after", "expected"), PARTIAL)
async def test_rows_are_compared_as_partial_says(
    shared_api: Api, partial: str, before: Any, after: Any, expected: list[str]
) -> None:
    event = await stored(shared_api, {"action": "row", "before": before, "after": after, "partial": partial})
    assert [_told(change) for change in event["changes"]] == expected


def _told(change: dict[str, Any]) -> str:
    sides = [json.dumps(change[side]) for side in ("old", "new") if side in change]
    return " ".join([change["op"], change["path"], *sides])


async def test_ready_made_changes_are_taken_instead_of_rows(shared_api: Api) -> None:
    sent = [
        {"path": "/z", "old": 1, "new": 2},
        {"path": "/b", "new": {"k": [1]}},
        {"path": "/a", "old": "x"},
        {"path": "/same", "old": 1, "new": 1.0},
        {"path": "/hidden", "op": "replace", "redacted": True},
    ]
    event = await stored(shared_api, {"action": "row.edit", "changes": sent})
    assert event["changes"] == [
        {"path": "/a", "op": "remove", "old": "x"},
        {"path": "/b", "op": "add", "new": {"k": [1]}},
        {"path": "/hidden", "op": "replace", "redacted": True},
        {"path": "/z", "op": "replace", "old": 1, "new": 2},
    ]


async def test_ready_made_changes_of_secrets_need_no_op_either(shared_api: Api) -> None:
    sent = [
        {"path": "/password", "new": "a"}, {"path": "/token/0", "old": "a"}, {"path": "/token/1", "old": "a", "new": "b"},
        {"path": "/dsn", "old": "a"}, {"path": "/n", "new": 1},
    ]  # fmt: skip
    event = await stored(shared_api, {"action": "row.edit", "changes": sent})
    assert event["changes"] == [
        {"path": "/dsn", "op": "remove", "redacted": True},
        {"path": "/n", "op": "add", "new": 1},
        {"path": "/password", "op": "add", "redacted": True},
        {"path": "/token", "op": "replace", "redacted": True},
    ]


# --- events that change nothing ---

NOOPS: list[dict[str, Any]] = [
    {"before": {"a": 1}, "after": {"a": 1}},
    {"before": {"a": 1, "updated_at": "x"}, "after": {"a": 1.0, "updated_at": "y"}},
    {"before": {"n": {"last_updated": 1}}, "after": {"n": {"last_updated": 2}}},
    {"before": {"a": 1, "b": 2}, "after": {"b": 2}, "partial": "after"},
    {"before": {"m": []}, "after": {"m": {}}},
    {"changes": [{"path": "/a", "old": 1, "new": 1}]},
    {"changes": [{"path": "/modified_at", "old": 1, "new": 2}]},
]


@pytest.mark.parametrize("rows", NOOPS)
async def test_rows_that_do_not_differ_are_answered_and_not_kept(shared_api: Api, rows: dict[str, Any]) -> None:
    size = (await shared_api.client.get("/v1/chain")).json()["size"]
    event = {"id": str(uuid.uuid4()), "action": "row.update", **rows}
    response = await shared_api.post(event)
    receipt = response.json()
    schemas.Receipt.model_validate(receipt)
    assert response.status_code == 200
    assert "idempotent-replayed" not in response.headers
    assert (receipt["kept"], receipt["seq"], receipt["hash"], receipt["prev_hash"]) == (False, None, None, None)
    assert (await shared_api.client.get("/v1/chain")).json()["size"] == size
    assert (await shared_api.client.get(f"/v1/events/{event['id']}")).status_code == 404


async def test_keep_noop_keeps_them(module_database: TestDatabase, shared_api: Api) -> None:
    async with open_api(module_database, keep_noop=True) as keeping:
        (receipt,) = await keeping.accept({"action": "row.update", "before": {"a": 1}, "after": {"a": 1}})
    assert receipt["kept"] is True
    assert (await shared_api.event(receipt["id"]))["changes"] == []


async def test_which_fields_do_not_count_is_a_setting(module_database: TestDatabase) -> None:
    async with open_api(module_database, ignored_fields="hits, seen_at") as api:
        rows = {"before": {"hits": 1, "updated_at": 1}, "after": {"hits": 2, "updated_at": 1}}
        assert (await api.post({"action": "row", **rows})).json()["kept"] is False
        rows = {"before": {"hits": 1, "updated_at": 1}, "after": {"hits": 2, "updated_at": 2}}
        (receipt,) = await api.accept({"action": "row", **rows})
        assert [change["path"] for change in (await api.event(receipt["id"]))["changes"]] == ["/updated_at"]


async def test_an_event_without_rows_is_always_kept(shared_api: Api) -> None:
    event = await stored(shared_api, {"action": "row", "before": None, "after": None, "changes": None})
    assert event["changes"] == []


# --- spellings ---


async def test_ids_may_be_numbers_and_are_text_from_then_on(shared_api: Api) -> None:
    sent = {
        "id": 9007199254740993, "action": "x", "actor": {"id": 12}, "target": {"id": 77}, "server_id": 0,
        "related": [{"id": 5}], "context": {"request_id": 3}, "source": {"id": 1, "seq": 0},
    }  # fmt: skip
    await shared_api.accept(sent)
    event = await shared_api.event("9007199254740993")
    assert (event["actor"]["id"], event["target"]["id"], event["server_id"]) == ("12", "77", "0")
    assert (event["related"], event["context"]["request_id"]) == ([{"id": "5"}], "3")
    assert event["source"] == {"id": "1", "seq": 0}
    assert (await shared_api.post(sent | {"id": "9007199254740993", "server_id": "0"})).status_code == 200


async def test_null_means_absent_save_inside_rows(shared_api: Api) -> None:
    nulls: dict[str, Any] = dict.fromkeys(set(FULL) - {"id", "action", "before", "after", "metadata"})
    event = await stored(
        shared_api,
        {**nulls, "action": "x", "actor": {"id": None, "name": "A"}, "metadata": {"k": None}, "after": {"c": None}},
    )
    assert event["actor"] == {"type": None, "id": None, "name": "A", "email": None, "role": None}
    assert event["metadata"] == {"k": None}
    assert event["changes"] == [{"path": "/c", "op": "add", "new": None}]


async def test_an_empty_list_is_phps_empty_map(shared_api: Api) -> None:
    event = await stored(shared_api, {"action": "x", "metadata": [], "before": [], "after": {"k": []}})
    assert event["metadata"] is None
    assert event["changes"] == [{"path": "/k", "op": "add", "new": []}]


TIMES = [
    ("2026-03-01T10:15:00Z", "2026-03-01T10:15:00.000000Z"),
    ("2026-03-01t10:15:00z", "2026-03-01T10:15:00.000000Z"),
    ("2026-03-01T10:15:00+05:30", "2026-03-01T04:45:00.000000Z"),
    ("2026-03-01T10:15:00-00:00", "2026-03-01T10:15:00.000000Z"),
    ("2026-03-01T10:15:00.5Z", "2026-03-01T10:15:00.500000Z"),
    ("2026-03-01T10:15:00.123456999Z", "2026-03-01T10:15:00.123456Z"),
    ("2026-03-01T23:59:59.999999999999Z", "2026-03-01T23:59:59.999999Z"),
    ("2000-01-01T00:00:00Z", "2000-01-01T00:00:00.000000Z"),
    ("2000-01-01T01:00:00+01:00", "2000-01-01T00:00:00.000000Z"),
]


@pytest.mark.parametrize(("sent", "kept"), TIMES)
async def test_a_time_with_an_offset_is_kept_in_utc_cut_to_microseconds(shared_api: Api, sent: str, kept: str) -> None:
    assert (await stored(shared_api, {"action": "x", "occurred_at": sent}))["occurred_at"] == kept


BAD_TIMES = [
    "2026-03-01T10:15:00", "2026-03-01", "2026-03-01 10:15:00Z", 1700000000, 1700000000.5, "1700000000", "1700000000000", "", "now",
    "infinity", "2026-03-01T10:15Z", "2026-03-01T24:00:00Z", "2026-03-01T10:15:60Z", "2026-02-30T10:15:00Z", "2026-3-1T10:15:00Z",
    "2026-03-01T10:15:00+25:00", "2026-03-01T10:15:00+0100", "20260301T101500Z", "-2026-03-01T10:15:00Z", "10000-01-01T00:00:00Z",
    "1999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2026-03-01T10:15:00Z\n", "２026-03-01T10:15:00Z",
    " 2026-03-01T10:15:00Z", True, ["2026-03-01T10:15:00Z"], {},
]  # fmt: skip


@pytest.mark.parametrize("sent", BAD_TIMES)
async def test_any_other_time_is_refused_never_guessed(shared_api: Api, sent: Any) -> None:
    await refused(shared_api, {"action": "x", "occurred_at": sent}, 422, "/occurred_at")


async def test_a_time_may_be_a_day_ahead_and_no_more(shared_api: Api) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=24)
    await stored(shared_api, {"action": "x", "occurred_at": (ahead - timedelta(minutes=1)).isoformat()})
    event = {"action": "x", "occurred_at": (ahead + timedelta(minutes=1)).isoformat()}
    await refused(shared_api, event, 422, "/occurred_at")


# --- numbers ---

EXACT = ["18446744073709551615", "-9223372036854775808", "9007199254740993", "0", "-1", "0.1", "-2.5e-3", "1e22"]


@pytest.mark.parametrize("number", EXACT)
async def test_integers_of_64_bits_and_doubles_are_kept_exactly(shared_api: Api, number: str) -> None:
    body = f'{{"action":"x","metadata":{{"n":{number}}},"before":{{"n":5}},"after":{{"n":{number}}}}}'
    response = await send(shared_api, body.encode())
    assert response.status_code == 201, response.text
    text = (await shared_api.client.get(f"/v1/events/{response.json()['id']}")).text
    event = json.loads(text)
    assert event["metadata"]["n"] == json.loads(number)
    assert event["changes"][0]["new"] == json.loads(number)
    assert isinstance(event["metadata"]["n"], int) == number.lstrip("-").isdigit() or number == "1e22"


TOO_LARGE = ["18446744073709551616", "-9223372036854775809", "1" + "0" * 30, "9" * 4000, "1e400", "-1e400", "1e131071"]


@pytest.mark.parametrize("number", TOO_LARGE, ids=lambda number: f"{number[:6]}…{len(number)}")
async def test_larger_numbers_are_refused_never_rounded(shared_api: Api, number: str) -> None:
    for member in ("metadata", "before", "after"):
        body = f'{{"action":"x","{member}":{{"deep":[0,{number}]}}}}'
        await refused(shared_api, body.encode(), 422, f"/{member}/deep/1")


async def test_a_number_too_long_to_parse_is_refused_as_too_large_and_not_as_broken_json(shared_api: Api) -> None:
    for sign in ("", "-"):
        body = f'{{"action":"x","metadata":{{"n":{sign}{"9" * 5000}}}}}'
        await refused(shared_api, body.encode(), 422, "")


# --- not JSON, or not ours ---

MALFORMED = [
    b"{", b"nonsense", b"{'action':'x'}", b'{"action":"x",}', b'{"action":"x"}{}', b"\xef\xbb\xbf" + b'{"action":"x"}',
    '{"action":"x"}'.encode("utf-16"), '{"action":"x"}'.encode("utf-16-le"), b'{"action":"x","reason":"\xff"}',
    b'{"action":"x","reason":"\xed\xa0\x80"}', b'{"action":"x","reason":"\xc0\xaf"}', b'{"action":"x","metadata":{"n":NaN}}',
    b'{"action":"x","metadata":{"n":Infinity}}', b'{"action":"x","metadata":{"n":-Infinity}}', b'{"action":"x","action":"y"}',
    b'{"action":"x","metadata":{"a":{"k":1,"k":1}}}', b'{"action":"x","reason":"a\nb"}', b'{"action":"x","metadata":{"n":01}}',
    b"", b" \n\t ", b"\0", b'{"action":"x","reason":"\\x"}', b'{"action":"x"} // comment',
]  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED)
async def test_what_is_not_json_to_the_letter_is_malformed(shared_api: Api, body: bytes) -> None:
    await refused(shared_api, body, 400)


@pytest.mark.parametrize("body", [b'"text"', b"1", b"null", b"true"])
async def test_json_that_is_no_event_is_refused(shared_api: Api, body: bytes) -> None:
    await refused(shared_api, body, 422, "")


NUL_AND_SURROGATES = [
    ('{"action":"x","reason":"a\\u0000b"}', "/reason"),
    ('{"action":"x","metadata":{"k":["\\u0000"]}}', "/metadata/k/0"),
    ('{"action":"x","metadata":{"k\\u0000":1}}', "/metadata"),
    ('{"id":"\\u0000","action":"x"}', "/id"),
    ('{"action":"x","reason":"\\ud83d"}', "/reason"),
    ('{"action":"x","metadata":{"a":{"\\udc00":1}}}', "/metadata/a"),
    ('{"action":"x","after":{"k":"\\ude00\\ud83d"}}', "/after/k"),
]


@pytest.mark.parametrize(("body", "pointer"), NUL_AND_SURROGATES)
async def test_nul_and_lone_surrogates_are_refused_with_their_place(shared_api: Api, body: str, pointer: str) -> None:
    await refused(shared_api, body.encode(), 422, pointer)


async def test_a_pair_of_surrogates_is_one_character(shared_api: Api) -> None:
    response = await send(shared_api, b'{"action":"x","reason":"\\ud83d\\ude00"}')
    assert (await shared_api.event(response.json()["id"]))["reason"] == "😀"


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["/action"]),
    ({"action": None}, ["/action"]),
    ({"action": ""}, ["/action"]),
    ({"action": "a b"}, ["/action"]),
    ({"action": "é"}, ["/action"]),
    ({"action": "x\n"}, ["/action"]),
    ({"action": "x" * 129}, ["/action"]),
    ({"action": "audit.prune"}, ["/action"]),
    ({"action": "AUDIT.x"}, ["/action"]),
    ({"action": 1}, ["/action"]),
    ({"action": "x", "seq": 1, "tenant": "t"}, ["/seq", "/tenant"]),
    ({"action": "x", "hash": "00", "prev_hash": "00", "recorded_at": "x"}, ["/hash", "/prev_hash", "/recorded_at"]),
    ({"action": "x", "actor": {"nick": 1}}, ["/actor/nick"]),
    ({"action": "x", "target": {"url": "u"}, "context": {"port": 1}}, ["/context/port", "/target/url"]),
    ({"action": "x", "a~/b": 1}, ["/a~0~1b"]),
    ({"action": "x", "verb": "update"}, ["/verb"]),
    ({"action": "x", "outcome": "ok"}, ["/outcome"]),
    ({"action": "x", "partial": "some"}, ["/partial"]),
    ({"action": "x", "id": ""}, ["/id"]),
    ({"action": "x", "id": "i" * 256}, ["/id"]),
    ({"action": "x", "id": 1.5}, ["/id"]),
    ({"action": "x", "id": True}, ["/id"]),
    ({"action": "x", "server_id": ""}, ["/server_id"]),
    ({"action": "x", "actor": "ana"}, ["/actor"]),
    ({"action": "x", "actor": []}, ["/actor"]),
    ({"action": "x", "actor": {"name": 1}}, ["/actor/name"]),
    ({"action": "x", "related": {}}, ["/related"]),
    ({"action": "x", "related": [{"id": "1"}, 5]}, ["/related/1"]),
    ({"action": "x", "related": [{}] * 101}, ["/related"]),
    ({"action": "x", "before": "row"}, ["/before"]),
    ({"action": "x", "after": [1]}, ["/after"]),
    ({"action": "x", "metadata": "m"}, ["/metadata"]),
    ({"action": "x", "changes": {}}, ["/changes"]),
    ({"action": "x", "changes": [5]}, ["/changes/0"]),
    ({"action": "x", "changes": [{"path": "a", "new": 1}]}, ["/changes/0/path"]),
    ({"action": "x", "changes": [{"path": "/a", "new": 1}, {"path": "/a", "new": 2}]}, ["/changes/1/path"]),
    ({"action": "x", "changes": [{"path": "/a", "redacted": True, "new": 1}]}, ["/changes/0"]),
    ({"action": "x", "changes": [{"path": "/a", "new": 1}], "before": {"a": 1}}, ["/changes"]),
    ({"action": "x", "context": {"ip": "999.1.1.1"}}, ["/context/ip"]),
    ({"action": "x", "context": {"ip": "010.0.0.1"}}, ["/context/ip"]),
    ({"action": "x", "context": {"ip": ""}}, ["/context/ip"]),
    ({"action": "x", "context": {"ip": "203.0.113.0/24"}}, ["/context/ip"]),
    ({"action": "x", "source": {"seq": -1}}, ["/source/seq"]),
    ({"action": "x", "source": {"seq": 2**63}}, ["/source/seq"]),
    ({"action": "x", "source": {"seq": "5"}}, ["/source/seq"]),
    ({"action": "x", "reason": "r" * 16_385}, ["/reason"]),
    ({"action": "x", "reason": 5}, ["/reason"]),
]


@pytest.mark.parametrize(("event", "pointers"), REFUSED)
async def test_what_breaks_the_schema_is_refused_with_every_place(
    shared_api: Api, event: dict[str, Any], pointers: list[str]
) -> None:
    await refused(shared_api, event, 422, *pointers)


async def test_a_server_called_none_has_a_feed_of_its_own(shared_api: Api) -> None:
    """`none` means "global" as a filter, and is a name like any other in the path."""
    stored = await shared_api.post({"action": "server.created", "server_id": "none", "description": "of none"})
    other = await shared_api.post({"action": "role.updated"})
    assert {stored.status_code, other.status_code} == {201}
    feed = (await shared_api.client.get("/v1/servers/none/activity")).json()["events"]
    assert [event["id"] for event in feed] == [stored.json()["id"]]


async def test_a_category_is_free_text_and_loses_its_secrets(shared_api: Api) -> None:
    token = "ghp_" + "b" * 36
    stored = await shared_api.post({"action": "server.created", "category": f"of {token}"})
    shown = (await shared_api.client.get(f"/v1/events/{stored.json()['id']}")).json()
    assert shown["category"] == "of [redacted]"


async def test_an_action_that_holds_a_token_is_refused_and_ordinary_words_are_not(shared_api: Api) -> None:
    """An action is never erased and cannot be redacted; `password:reset` names an act, not a password."""
    token = "ghp_" + "c" * 36
    refused_one = await shared_api.post({"action": f"x.{token}"})
    assert (refused_one.status_code, refused_one.json()["errors"][0]["pointer"]) == (422, "/action")
    assert token not in refused_one.text
    for action in ("password:reset", "api-token:revoked", "token.created", "auth:login"):
        assert (await shared_api.post({"action": action})).status_code == 201


async def test_ids_that_read_like_a_secret_by_name_are_kept_and_found(shared_api: Api) -> None:
    """`token:41` and `token:42` are two targets; two servers never share a feed; the id sent is the id asked for."""
    for number in (41, 42):
        event = {"id": f"password:reset:{number}", "action": "x", "server_id": f"api-token:{number}",
                 "target": {"id": f"token:{number}"}}  # fmt: skip
        assert (await shared_api.post(event)).status_code == 201
        assert (await shared_api.client.get(f"/v1/events/password:reset:{number}")).status_code == 200
        for query in (f"/v1/servers/api-token:{number}/activity", f"/v1/events?target_id=token:{number}",
                      f"/v1/events?id=password:reset:{number}"):  # fmt: skip
            found = (await shared_api.client.get(query)).json()["events"]
            assert [item["target"]["id"] for item in found] == [f"token:{number}"]


@pytest.mark.parametrize("name", ["Content-Type", "content-encoding", "Authorization", "CE-Id"])
async def test_a_header_that_says_how_to_read_the_event_stands_once(shared_api: Api, name: str) -> None:
    """Whoever stands before us may have read the other one."""
    headers = [*shared_api.client.headers.items(), ("Content-Type", "application/json"), (name, "x"), (name, "y")]
    response = await shared_api.client.post("/v1/events", content=b'{"action":"x"}', headers=headers)
    assert response.status_code == 400
    shown = "ce-…" if name == "CE-Id" else name.lower()
    assert response.json()["detail"] == f"the header {shown} is given more than once"


async def test_the_name_of_a_header_that_stands_twice_is_not_repeated(shared_api: Api) -> None:
    """An extension attribute's name is the sender's, and no pointer that secrets are taken out of."""
    token = "ghp_" + "a1b2" * 9
    headers = [
        *shared_api.client.headers.items(),
        ("ce-specversion", "1.0"),
        (f"ce-{token}", "1"),
        (f"ce-{token}", "2"),
    ]
    response = await shared_api.client.post("/v1/events", content=b"{}", headers=headers)
    assert response.status_code == 400
    assert token not in response.text
