"""What does not fit an event is kept beside it, whole, with a note; times and addresses in the spellings that are in use."""

import doctest
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from audit_service.adapters import draft as draft_module
from audit_service.adapters import protobuf
from audit_service.adapters.document import event_in_text, put_document
from audit_service.adapters.draft import TEXTS, Draft, moment
from audit_service.core.canonical import JSONValue
from audit_service.core.event import EventLimits, validate

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


def new(action: JSONValue = None, **limits: int) -> Draft:
    """An empty draft."""
    return Draft("test", action, EventLimits(**limits), NOW)


def checked(draft: Draft) -> dict[str, Any]:
    """The draft's event, which the service must accept."""
    event = draft.event()
    validate(event, now=NOW, limits=EventLimits())
    return dict(event)


def from_document(document: Any) -> dict[str, Any]:
    """A document's event, which the service must accept."""
    draft = new()
    put_document(draft, document)
    return checked(draft)


@pytest.mark.parametrize("module", [draft_module, protobuf])
def test_the_examples_in_the_docstrings_hold(module: Any) -> None:
    result = doctest.testmod(module)
    assert (result.failed, result.attempted > 0) == (0, True)


# --- times ---


@pytest.mark.parametrize(
    ("sent", "expected", "zoned"),
    [
        ("2026-11-22T03:00:00Z", "2026-11-22T03:00:00+00:00", True),
        ("2026-11-22T03:00:00.7270289Z", "2026-11-22T03:00:00.727028+00:00", True),
        ("2026-11-22t04:00:00,5+01:00", "2026-11-22T03:00:00.500000+00:00", True),
        ("2026-11-22 04:00:00 +0100", "2026-11-22T03:00:00+00:00", True),
        ("2026-11-22 03:00:00 UTC", "2026-11-22T03:00:00+00:00", True),
        ("2022-12-11 01:18:47.973", "2022-12-11T01:18:47.973000+00:00", False),
        (1795316179, "2026-11-22T02:56:19+00:00", True),
        (1795316179.2233226, "2026-11-22T02:56:19.223322+00:00", True),
        ("1795316179.2233226", "2026-11-22T02:56:19.223322+00:00", True),
        (1621305118553, "2021-05-18T02:31:58.553000+00:00", True),
        (1795316179286722, "2026-11-22T02:56:19.286722+00:00", True),
        ("1795316179286722560", "2026-11-22T02:56:19.286722+00:00", True),
    ],
)
def test_times_in_use_are_understood(sent: JSONValue, expected: str, zoned: bool) -> None:
    found, said_zone = moment(sent)
    assert found is not None
    assert (found.isoformat(), said_zone) == (expected, zoned)


@pytest.mark.parametrize(
    "sent", ["yesterday", "Nov 22 02:56:32", "2026-13-01T00:00:00Z", "2026-11-22T03:00:60Z", "2026-11-22", True, [], {}, -1, 1e300,
             "9" * 30, "0001-01-01T00:00:00+14:00"]
)  # fmt: skip
def test_what_is_no_time_is_none(sent: JSONValue) -> None:
    assert moment(sent)[0] is None


@pytest.mark.parametrize("sent", ["soon", "1999-12-31T23:59:59Z", "2026-11-23T03:00:01Z", 5])
def test_a_time_the_log_cannot_take_is_kept_beside_the_event(sent: JSONValue) -> None:
    draft = new("x")
    draft.put_time(sent)
    event = checked(draft)
    assert "occurred_at" not in event
    assert event["metadata"]["timestamp"] == sent
    assert event["metadata"]["mapping_notes"] == [
        "timestamp is not a time the log takes: kept in metadata, the time of arrival used"
    ]
    assert draft.dated


def test_a_time_without_a_zone_is_taken_for_utc_and_says_so() -> None:
    draft = new("x")
    draft.put_time("2026-11-22 02:00:00", "time")
    event = checked(draft)
    assert event["occurred_at"] == "2026-11-22T02:00:00.000000Z"
    assert event["metadata"]["mapping_notes"] == ["time had no zone: taken for UTC"]


# --- members ---


@pytest.mark.parametrize("place", sorted(TEXTS))
def test_a_text_fits_up_to_its_limit_and_is_kept_whole_beyond_it(place: str) -> None:
    group, _, member = place.rpartition(".")
    for extra in (0, 1):
        text = "t" * (TEXTS[place] + extra)
        draft = new("x")
        draft.put(place, text)
        event = checked(draft)
        found = event.get(group, {}).get(member) if group else event.get(member)
        if not extra:
            assert found == text
        elif place == "context.session_id":
            assert text not in json.dumps(event)
        else:
            assert (found, event["metadata"][place.replace(".", "_")]) == (None, text)
            assert len(event["metadata"]["mapping_notes"]) == 1


@pytest.mark.parametrize("value", [None, ""])
def test_null_and_empty_text_are_absent(value: JSONValue) -> None:
    draft = new("x")
    draft.put("actor.name", value)
    draft.put_ip(value)
    draft.put_time(value)
    assert checked(draft) == {"action": "x"}
    assert not draft.dated


@pytest.mark.parametrize("address", ["unknown", "10.0.0.1, 10.0.0.2", "010.0.0.1", 7, ["::1"], "::1%" + "z" * 80])
def test_what_is_no_address_is_kept_beside_the_event(address: JSONValue) -> None:
    draft = new("x")
    draft.put_ip(address)
    event = checked(draft)
    assert "context" not in event
    assert event["metadata"]["ip"] == address


@pytest.mark.parametrize("action", ["two words", "", "a" * 129, 7, ["x"], "é", "token=hunter2hunter2"])
def test_what_is_no_action_is_kept_where_it_is_redacted(action: JSONValue) -> None:
    """An action is never redacted, so no free text may become one, in whatever spelling."""
    event = checked(new(action))
    assert (event["action"], event["metadata"]["action"]) == ("test.event", action)


@pytest.mark.parametrize("action", ["audit.erase", "AUDIT.drop"])
def test_nobody_speaks_for_the_service_itself(action: str) -> None:
    assert checked(new(action))["action"] == f"test.{action}"


# --- metadata ---


def test_metadata_holds_what_an_event_can_hold() -> None:
    draft = new("x", depth=6, string_characters=30)
    deep: JSONValue = "leaf"
    for _ in range(20):
        deep = {"down": deep}
    draft.keep("deep", deep)
    draft.keep("long", "x" * 31)
    draft.keep("nul", "a\0b")
    draft.keep("large", 2**70)
    draft.keep("infinite", float("inf"))
    draft.keep("n" * 1025, 1)
    draft.keep("inside", {"n\0": 1, "kept": 2})
    draft.keep("mapping_notes", "forged")
    draft.keep("nothing", None)
    metadata = draft.event()["metadata"]
    assert isinstance(metadata, dict)
    notes = metadata.pop("mapping_notes")
    assert metadata == {
        "deep": {"down": {"down": {"down": {"down": "[left out: 166 characters]"}}}},
        "long": "[left out: 31 characters]",
        "nul": "a\\u0000b",
        "large": "1180591620717411303424",
        "infinite": None,
        "inside": {"kept": 2},
    }
    assert isinstance(notes, list)
    assert len(notes) == 6
    validate(draft.event(), now=NOW, limits=EventLimits(depth=6, string_characters=128))


def test_a_name_that_is_taken_gets_both_values() -> None:
    draft = new("x")
    draft.keep("host", "a")
    draft.keep("host", "a")
    draft.keep("host", "b")
    assert draft.event()["metadata"] == {"host": ["a", "b"]}


# --- documents ---


def test_an_event_of_ours_passes_unchanged() -> None:
    event = {
        "id": "panel-7:1", "occurred_at": "2026-11-22T02:00:00.123456Z", "action": "schedule.updated", "verb": "UPDATE", "category": "s",
        "actor": {"type": "user", "id": "u12", "name": "Ana", "email": "ana@example.com", "role": "admin"},
        "on_behalf_of": {"id": "u13"}, "target": {"type": "schedule", "id": "77", "name": "nightly"},
        "related": [{"type": "backup_log", "id": "5512"}], "server_id": "s9", "outcome": "success", "reason": "r", "description": "d",
        "context": {"ip": "203.0.113.9", "user_agent": "u", "session_id": "s", "request_id": "q", "traceparent": "t"},
        "before": {"a": 1}, "after": [], "partial": "after", "metadata": {"amount": "12.50"}, "source": {"id": "panel-7", "seq": 1029},
    }  # fmt: skip
    assert from_document(event) == event


def test_the_spellings_of_panels_find_their_places() -> None:
    event = from_document({
        "action": "UPDATE", "actor": "admin", "ip": "203.0.113.9", "timestamp": "2026-11-22T02:55:00Z", "user_agent": "curl",
        "old": {"name": "a"}, "new": {"name": "b"}, "level": "info", "target": {"type": "servers", "id": 42, "cpu": 2}, "verb": "write",
        "outcome": "great", "related": [{"kind": "x"}], "source": "panel", "metadata": [], "time": "later", "request_id": 7,
    })  # fmt: skip
    assert event == {
        "action": "UPDATE",
        "actor": {"name": "admin"},
        "occurred_at": "2026-11-22T02:55:00.000000Z",
        "before": {"name": "a"},
        "after": {"name": "b"},
        "context": {"ip": "203.0.113.9", "user_agent": "curl", "request_id": "7"},
        "target": {"type": "servers", "id": "42"},
        "source": {"id": "panel"},
        "metadata": {
            "level": "info",
            "target": {"cpu": 2},
            "verb": "write",
            "outcome": "great",
            "related": [{"kind": "x"}],
            "time": "later",
        },
    }


@pytest.mark.parametrize(
    "document",
    [
        {
            "action": "x",
            "actor": [1],
            "target": 1.5,
            "on_behalf_of": True,
            "source": {"id": [], "seq": -1},
            "context": "c",
        },
        {
            "action": "x",
            "before": "text",
            "after": 7,
            "old": None,
            "changes": "none",
            "related": {},
            "metadata": "m",
            "id": {},
        },
        {
            "action": "x",
            "timestamp": {"$date": 1},
            "ip": {"v4": "1.1.1.1"},
            "server_id": ["s"],
            "partial": 1,
            "verb": None,
        },
        {"action": "x", "old": {"a": 1}, "before": {"a": 2}, "description": "d" * 20_000, "session_id": "s" * 5000},
        {"message": 7, "msg": ["x"], "timestamp": "Nov 22 02:56:32"},
        {"action": 7, "message": "{not json"},
        {},
    ],
)
def test_odd_members_never_lose_an_event(document: Any) -> None:
    event = from_document(document)
    kept = json.dumps(event)
    for name, value in document.items():
        if isinstance(value, str) and name not in {"action", "session_id"}:
            assert value in kept or json.dumps(value) in kept


def test_an_event_inside_a_message_is_opened_and_the_rest_kept() -> None:
    inner = {"action": "server.deleted", "actor": {"name": "Ana"}}
    for text in (json.dumps(inner), " @cee: " + json.dumps(inner)):
        event = from_document({"message": text, "host": "p1", "timereported": "2026-11-22T02:00:00Z", "msg": "again"})
        assert event == {
            "action": "server.deleted",
            "actor": {"name": "Ana"},
            "occurred_at": "2026-11-22T02:00:00.000000Z",
            "metadata": {"host": "p1"},
        }


@pytest.mark.parametrize(
    "text", ["", "{", '{"action": 1}', '["action"]', '{"action": "x", "action": "y"}', "x" * 50, None, 7]
)
def test_other_text_is_no_event(text: JSONValue) -> None:
    assert event_in_text(text) is None
