"""CloudEvents 1.0 as events: which attribute goes where, what data becomes, and what is refused by name."""

import base64
import json
from typing import Any, cast
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core.canonical import JSONValue
from audit_service.core.cloudevent import from_binary, from_structured, is_binary, is_json
from audit_service.core.event import MEMBERS
from audit_service.errors import InvalidEventError, MalformedError

REQUIRED: dict[str, JSONValue] = {"specversion": "1.0", "id": "1", "source": "/panel/1", "type": "server.updated"}
EVENT = {"id": "/panel/1#1", "action": "server.updated", "source": {"id": "/panel/1"}}


def envelope(**attributes: Any) -> JSONValue:
    """A CloudEvent with these attributes beside the required ones."""
    return {**REQUIRED, **attributes}


def in_base64(data: bytes) -> str:
    """As `data_base64` holds it."""
    return base64.b64encode(data).decode()


# --- attributes


def test_the_required_attributes_are_enough() -> None:
    assert from_structured(envelope()) == EVENT


def test_every_attribute_has_its_place() -> None:
    found = from_structured(
        envelope(
            subject="servers/42", time="2026-11-22T02:55:27.720Z", datacontenttype="application/json",
            dataschema="https://example.com/schema", data={"k": 1}, traceparent="00-1", sampled=True,
        )
    )  # fmt: skip
    assert found == {
        **EVENT,
        "occurred_at": "2026-11-22T02:55:27.720Z",
        "target": {"id": "servers/42"},
        "metadata": {"data": {"k": 1}, "cloudevents": {"traceparent": "00-1", "sampled": True}},
    }


def test_null_leaves_an_attribute_out() -> None:
    nulls = dict.fromkeys(("subject", "time", "datacontenttype", "dataschema", "data", "data_base64", "myextension"))
    assert from_structured(envelope(**nulls)) == EVENT


def test_the_id_is_unique_per_source() -> None:
    """CloudEvents promises that source and id together are unique, no more."""
    found = {str(from_structured(envelope(source=source))["id"]) for source in ("/a", "/b")}
    assert found == {"/a#1", "/b#1"}


@pytest.mark.parametrize(("length", "hashed"), [(254, False), (255, False), (256, True)])
def test_an_id_that_is_too_long_is_hashed_never_cut(length: int, hashed: bool) -> None:
    identifiers = ["x" * (length - len("/panel/1#") - 1) + last for last in "ab"]
    found = [str(from_structured(envelope(id=identifier))["id"]) for identifier in identifiers]
    assert len(set(found)) == 2
    assert [name.startswith("sha256:") for name in found] == [hashed] * 2
    assert max(map(len, found)) <= 255


def test_a_source_that_is_too_long_is_hashed() -> None:
    found = from_structured(envelope(source="/" + "s" * 300))
    assert str(cast("dict[str, JSONValue]", found["source"])["id"]).startswith("sha256:")


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, "", 5, ["1"]])
def test_a_required_attribute_that_is_missing_or_no_text_is_named(name: str, value: JSONValue) -> None:
    with pytest.raises(InvalidEventError) as raised:
        from_structured(envelope(**{name: value}))
    assert [fault.pointer for fault in raised.value.faults] == [f"/{name}"]


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(InvalidEventError) as raised:
        from_structured({"specversion": "1.0"})
    assert [fault.pointer for fault in raised.value.faults] == ["/id", "/source", "/type"]


@pytest.mark.parametrize("version", ["0.3", "1.1", "2.0"])
def test_another_version_is_refused(version: str) -> None:
    with pytest.raises(InvalidEventError) as raised:
        from_structured(envelope(specversion=version))
    assert [(fault.pointer, fault.detail) for fault in raised.value.faults] == [("/specversion", "must be 1.0")]


@pytest.mark.parametrize("value", [None, [], [REQUIRED], "text", 5, True])
def test_what_is_no_object_is_refused(value: JSONValue) -> None:
    with pytest.raises(InvalidEventError, match="a CloudEvent is a JSON object"):
        from_structured(value)


# --- data


def test_data_that_is_an_event_is_taken_as_that_event() -> None:
    rows = {"before": {"a": 1}, "after": {"a": 2}, "actor": {"id": "7"}, "metadata": {"k": 1}}
    assert from_structured(envelope(data=rows)) == {**EVENT, **rows}


def test_data_with_a_member_of_its_own_is_kept_as_a_whole() -> None:
    data = {"action": "UPDATE", "old": {"a": 1}, "new": {"a": 2}}
    assert from_structured(envelope(data=data)) == {**EVENT, "metadata": {"data": data}}


@pytest.mark.parametrize("data", [{}, [], "text", 0, False, 1.5, [{"action": "x"}]])
def test_any_data_is_kept(data: JSONValue) -> None:
    assert from_structured(envelope(data=data)) == {**EVENT, "metadata": {"data": data}}


@pytest.mark.parametrize(
    "data", [{"id": "42"}, {"reason": "r", "category": "c"}, {"metadata": {"k": 1}}, {"action": "a", "source": "s"}]
)
def test_business_data_that_is_called_like_an_event_s_members_is_none(data: JSONValue) -> None:
    """`{"id": "42"}` is what a sender calls a deleted row: its id must not get lost behind the attribute's."""
    assert from_structured(envelope(data=data)) == {**EVENT, "metadata": {"data": data}}


@pytest.mark.parametrize(
    "member", ["actor", "on_behalf_of", "target", "before", "after", "changes", "server_id", "context"]
)
def test_one_telling_member_makes_data_an_event(member: str) -> None:
    data = {member: {"id": "1"}, "reason": "r"}
    assert from_structured(envelope(data=data)) == {**EVENT, **data}


def test_what_the_attributes_replace_in_an_event_is_not_lost() -> None:
    own = {"id": "e-1", "action": "a", "occurred_at": "2026-01-01T00:00:00Z"}
    data = {**own, "actor": {"id": "7"}, "metadata": {"k": 1}}
    found = from_structured(envelope(data=data, time="2026-02-02T00:00:00Z"))
    assert found["occurred_at"] == "2026-02-02T00:00:00Z"
    assert found["metadata"] == {"k": 1, "data": own}
    odd = {"id": {"a": 1}, "action": ["b"]}
    found = from_structured(envelope(data={**odd, "actor": {}}))
    assert found["metadata"] == {"data": odd}


def test_an_event_s_own_time_source_and_target_stay_where_no_attribute_says_otherwise() -> None:
    data = {"occurred_at": "2026-01-01T00:00:00Z", "target": {"type": "server"}, "source": {"id": "p", "seq": 3}}
    assert from_structured(envelope(data=data, subject="servers/42")) == {**EVENT, **data}


def test_what_an_event_leaves_null_is_taken_from_the_attributes() -> None:
    """Null leaves a member out, and is no source or target of its own."""
    found = from_structured(envelope(subject="srv-1", data={"actor": {"id": "7"}, "source": None, "target": None}))
    assert found == {**EVENT, "actor": {"id": "7"}, "target": {"id": "srv-1"}}


def test_the_same_value_twice_is_not_kept_twice() -> None:
    assert from_structured(envelope(data={"action": "server.updated", "server_id": "s"})) == {**EVENT, "server_id": "s"}


@pytest.mark.parametrize("metadata", ["text", 5, [1], False, ""])
def test_metadata_that_is_no_object_is_left_to_be_refused(metadata: JSONValue) -> None:
    found = from_structured(envelope(data={"actor": {}, "metadata": metadata}, myextension="e"))
    assert found["metadata"] == metadata


@pytest.mark.parametrize("metadata", [None, []])
def test_empty_metadata_makes_room_for_extensions(metadata: JSONValue) -> None:
    found = from_structured(envelope(data={"actor": {}, "metadata": metadata}, myextension="e"))
    assert found["metadata"] == {"cloudevents": {"myextension": "e"}}


# --- data_base64: never left encoded when it can be read, or a secret would pass the redaction


@pytest.mark.parametrize(
    "media_type", [None, "application/json", "application/json; charset=utf-8", "application/a+JSON"]
)
def test_encoded_json_is_read(media_type: str | None) -> None:
    data = {"password": "x", "n": 9007199254740993}
    found = from_structured(envelope(datacontenttype=media_type, data_base64=in_base64(json.dumps(data).encode())))
    assert found["metadata"] == {"data": data}


def test_an_encoded_event_is_taken_as_that_event() -> None:
    rows = {"before": {"a": 1}, "after": {"a": 2}}
    assert from_structured(envelope(data_base64=in_base64(json.dumps(rows).encode()))) == {**EVENT, **rows}


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/xml", "application/octet-stream"])
def test_encoded_text_is_read(media_type: str | None) -> None:
    found = from_structured(envelope(datacontenttype=media_type, data_base64=in_base64("<ü/>".encode())))
    assert found["metadata"] == {"data": "<ü/>"}


def test_encoded_bytes_that_are_no_text_stay_encoded() -> None:
    encoded = in_base64(b"\xff\x00")
    found = from_structured(envelope(datacontenttype="image/png", data_base64=encoded))
    assert found["metadata"] == {"data": {"base64": encoded}}


@pytest.mark.parametrize("encoded", ["***", "YQ", 5, ["YQ=="], {}, "ü"])
def test_broken_base64_is_refused(encoded: JSONValue) -> None:
    with pytest.raises(InvalidEventError) as raised:
        from_structured(envelope(data_base64=encoded))
    assert [fault.pointer for fault in raised.value.faults] == ["/data_base64"]


def test_encoded_data_that_is_not_the_json_it_says_is_refused() -> None:
    with pytest.raises(MalformedError):
        from_structured(envelope(datacontenttype="application/json", data_base64=in_base64(b"{broken")))


def test_data_in_both_forms_is_refused() -> None:
    with pytest.raises(InvalidEventError) as raised:
        from_structured(envelope(data=1, data_base64="YQ=="))
    assert [fault.pointer for fault in raised.value.faults] == ["/data_base64"]


# --- binary mode


HEADERS = {f"ce-{name}": str(value) for name, value in REQUIRED.items()}


def test_binary_attributes_come_from_headers() -> None:
    headers = HEADERS | {
        "ce-subject": "s",
        "ce-myext": "e",
        "content-type": "application/json",
        "ce-": "x",
        "x-ce-y": "z",
    }
    assert from_binary(headers, {"k": 1}) == {
        **EVENT,
        "target": {"id": "s"},
        "metadata": {"data": {"k": 1}, "cloudevents": {"myext": "e"}},
    }


def test_both_modes_make_the_same_event() -> None:
    """So a retry in the other mode is a replay."""
    data: JSONValue = {"before": {"a": 1}, "after": {"a": 2}}
    structured = from_structured(envelope(data=data, time="2026-01-01T00:00:00Z"))
    assert from_binary(HEADERS | {"ce-time": "2026-01-01T00:00:00Z"}, data) == structured


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("plain", "plain"), ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"), ('"quoted text"', "quoted text"),
        ('"a \\"b\\" \\\\ c"', 'a "b" \\ c'), ("50% off", "50% off"), ("%2541", "%41"), ('"', '"'), ('"%41"', "A"), ('""', ""),
    ],
)  # fmt: skip
def test_headers_are_unquoted_then_decoded_once(written: str, meant: str) -> None:
    found = from_binary(HEADERS | {"ce-myext": written}, None)
    assert found["metadata"] == {"cloudevents": {"myext": meant}}


@given(st.text(max_size=50))
def test_what_an_sdk_encodes_comes_back(text: str) -> None:
    """As the HTTP binding says: everything but printable ASCII, and space, quote and percent, is percent-encoded UTF-8."""
    safe = "".join(set(map(chr, range(0x21, 0x7F))) - set('"%'))
    found = from_binary(HEADERS | {"ce-myext": quote(text, safe=safe)}, None)
    assert found["metadata"] == {"cloudevents": {"myext": text}}


@pytest.mark.parametrize(("headers", "expected"), [(HEADERS, True), ({}, False), ({"ce-id": "1"}, False)])
def test_binary_mode_is_told_by_its_version(headers: dict[str, str], expected: bool) -> None:
    assert is_binary(headers) is expected


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [("application/json", True), ("application/a+json", True), ("text/json", False), ("", False)],
)
def test_json_is_told_by_the_media_type(media_type: str, expected: bool) -> None:
    assert is_json(media_type) is expected


# --- any envelope


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*REQUIRED, "subject", "time", "data", "data_base64", "datacontenttype", "myext", "metadata"])


@given(st.dictionaries(NAMES, JSON | st.sampled_from(["1.0", "application/json", "YQ=="]), max_size=8))
def test_any_envelope_makes_an_event_or_is_refused(attributes: dict[str, JSONValue]) -> None:
    """With the required four or without: nothing but an event of known members, or an error the sender can mend."""
    for given_ in (attributes, {**attributes, **REQUIRED}):
        try:
            event = from_structured(given_)
        except (InvalidEventError, MalformedError):
            continue
        assert event.keys() <= MEMBERS
        assert event["action"] == given_["type"]


@given(JSON, st.dictionaries(st.sampled_from(sorted(MEMBERS)), JSON, max_size=4))
def test_no_data_is_lost(data: JSONValue, members: dict[str, JSONValue]) -> None:
    """Whatever is sent as data stands in the event: in its place, or as a whole."""
    if data is not None:
        assert from_structured(envelope(data=data))["metadata"] == {"data": data}
    if not isinstance(members.get("metadata", {}), dict):
        members["metadata"] = {"k": 1}  # any other is refused with the whole event
    event = from_structured(envelope(data=members))
    kept = cast("dict[str, JSONValue]", event.get("metadata") or {})
    for name, value in members.items():
        replaced = cast("dict[str, JSONValue]", kept.get("data") or {})
        assert event.get(name) == value or replaced.get(name) == value or name == "metadata", name
