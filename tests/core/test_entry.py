"""From an event to what is sealed: golden bytes, nothing personal in the body, projections that follow from the rest."""

import doctest
import json
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import entry
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import GROUPS, NONCE_BYTES, SALT_BYTES, JSONObject, prepare, project
from audit_service.core.folding import fold
from audit_service.errors import CanonicalError
from tests.support.vectors import Vector, load_vectors

VECTORS = load_vectors().entries
REDACTED: JSONObject = {"path": "/password", "op": "replace", "redacted": True}
DAYS: JSONObject = {"path": "/retention/days", "op": "replace", "old": 7, "new": 14}

# The vectors' events as they stand after redaction and defaults; (event, changes, fields).
EVENTS: list[tuple[JSONObject, list[JSONObject], list[str]]] = [
    (
        {
            "action": "schedule.updated",
            "verb": "UPDATE",
            "category": "schedules",
            "actor": {
                "type": "user",
                "id": "u12",
                "name": "Ana Gómez",
                "email": "ana@example.com",
                "role": "Super Admin",
            },
            "target": {"type": "schedule", "id": "77", "name": "nightly"},
            "server_id": "s9",
            "outcome": "success",
            "context": {"ip": "203.0.113.9"},
            "source": {"id": "panel-7", "seq": 1029},
        },
        [REDACTED, DAYS],
        ["password", "retention"],
    ),
    ({"action": "panel.started", "verb": "OTHER", "category": "panel"}, [], []),
    (
        {
            "action": "support.replied",
            "verb": "CREATE",
            "category": "support",
            "outcome": "unknown",
            "description": 'Zoë → \u202e"quoted" \\ \x07 line\nbreak 🙂',
            "metadata": {"amount": "12.50", "big": 2**63 - 1},
        },
        [],
        [],
    ),
    (
        {
            "action": "user.login",
            "verb": "LOGIN",
            "category": "user",
            "actor": {"type": "user"},
            "context": {"user_agent": "curl/8"},
            "on_behalf_of": {"id": "u1", "name": "Root"},
        },
        [],
        [],
    ),
    (
        {
            "action": "backup.restore",
            "verb": "RESTORE",
            "category": "backup",
            "target": {"type": "backup", "id": "9"},
            "related": [{"type": "backup_log", "id": "5512"}],
        },
        [],
        [],
    ),
]

FULL: JSONObject = {
    "id": "e-1",
    "action": "a.b",
    "verb": "UPDATE",
    "category": "a",
    "occurred_at": "2026-01-02T03:04:05.000006Z",
    "actor": {"type": "user", "id": "ID-actor", "name": "NAME-actor", "email": "MAIL-actor", "role": "ROLE-actor"},
    "on_behalf_of": {"id": "ID-behalf", "name": "NAME-behalf"},
    "target": {"type": "server", "id": "ID-target", "name": "NAME-target"},
    "related": [{"type": "node", "id": "ID-related", "name": "NAME-related"}],
    "server_id": "s1",
    "outcome": "success",
    "reason": "TEXT-reason",
    "description": "TEXT-description",
    "context": {
        "ip": "203.0.113.9",
        "user_agent": "AGENT",
        "session_id": "SESSION",
        "request_id": "REQUEST",
        "traceparent": "TRACE",
    },
    "metadata": {"key": "VALUE-metadata"},
    "source": {"id": "panel-1", "seq": 5},
}
FULL_CHANGES: list[JSONObject] = [{"path": "/a/DEEP-path", "op": "replace", "old": "VALUE-old", "new": "VALUE-new"}]


# Distinct bytes for the nonce and for each salt.
ENTROPY = bytes(range(NONCE_BYTES)) + b"".join(sha256(group.encode()).digest() for group in GROUPS)


def entropy_of(vector: Vector) -> bytes:
    """The randomness that gives a vector's nonce and salts."""
    nonce = bytes([vector.seq]) * NONCE_BYTES
    salts = (vector.disclosures[group].salt if group in vector.disclosures else bytes(SALT_BYTES) for group in GROUPS)
    return nonce + b"".join(salts)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"seq{vector.seq}")
def test_preparing_gives_the_golden_body_and_disclosures(vector: Vector) -> None:
    """The same event and the same randomness give the independent program's bytes."""
    event, changes, fields = EVENTS[vector.seq]
    at = f"2026-11-22T09:15:{vector.seq:02}.123456Z"
    event = {**event, "id": f"panel-7:evt-{vector.seq}", "occurred_at": at}
    prepared = prepare(event, changes, fields, entropy_of(vector))
    assert vector.body == prepared.body
    assert {group: one.stored for group, one in vector.disclosures.items()} == prepared.disclosures


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"seq{vector.seq}")
def test_commitments_are_the_golden_ones(vector: Vector) -> None:
    """From salt and value, and from the stored bytes."""
    for group, one in vector.disclosures.items():
        assert one.commitment == entry.commitment(group, one.salt, one.value)
        assert one.commitment == entry.disclosure_hash(group, one.stored)


def test_the_examples_of_the_module_hold() -> None:
    """The worked example in the docstring is the format's."""
    assert doctest.testmod(entry).attempted > 0
    assert doctest.testmod(entry).failed == 0


def prepared_full() -> entry.Prepared:
    """The event that has everything."""
    return prepare(FULL, FULL_CHANGES, ["a"], ENTROPY)


def test_the_body_holds_nothing_personal() -> None:
    """No name, no id of a person, no free text, no value, no deeper path: those are in disclosures only."""
    body = prepared_full().body
    for word in (
        "ID-",
        "NAME-",
        "MAIL-",
        "ROLE-",
        "TEXT-",
        "VALUE-",
        "DEEP-",
        "203.0.113.9",
        "AGENT",
        "SESSION",
        "REQUEST",
        "TRACE",
    ):
        assert word not in body
    assert json.loads(body)["fields"] == ["a"]


def test_every_group_is_used_and_committed_to() -> None:
    """An event that has everything fills every disclosure, and the body commits to each."""
    prepared = prepared_full()
    assert set(GROUPS) == prepared.disclosures.keys() == json.loads(prepared.body)["sd"].keys()


def test_no_two_disclosures_share_a_salt() -> None:
    """A shared salt would let one disclosure help to guess another."""
    salts = [stored[:SALT_BYTES] for stored in prepared_full().disclosures.values()]
    assert len(GROUPS) == len({bytes(salt) for salt in salts})
    nonce = json.loads(prepared_full().body)["nonce"]
    assert nonce == "AAECAwQFBgcICQoLDA0ODw=="


def test_a_group_is_part_of_its_commitment() -> None:
    """The same bytes under another group's name do not hold."""
    hashes = {entry.disclosure_hash(group, bytes(40)) for group in GROUPS}
    assert len(GROUPS) == len(hashes)
    assert sha256(b"audit-service/disclosure/v1\nip\n" + bytes(40)).digest() == entry.disclosure_hash("ip", bytes(40))


@pytest.mark.parametrize(
    "empty",
    [
        {"actor": {}},
        {"actor": {"id": None}},
        {"actor": None},
        {"context": {}},
        {"context": {"ip": None}},
        {"target": None},
        {"related": []},
        {"metadata": {}},
        {"metadata": None},
        {"description": None, "reason": None},
        {"on_behalf_of": None},
        {"on_behalf_of": {}},
    ],
    ids=str,
)
def test_what_is_empty_is_not_disclosed(empty: JSONObject) -> None:
    """A group that has nothing has no commitment, and null members are left out of the body."""
    prepared = prepare({"action": "a", **empty}, [], [], bytes(entry.ENTROPY_BYTES))
    assert prepared.disclosures == {}
    assert json.loads(prepared.body) == {"v": 1, "nonce": "AAAAAAAAAAAAAAAAAAAAAA==", "action": "a"}


def test_a_type_without_a_name_is_in_the_body_alone() -> None:
    """`actor_type` and `target_type` are not personal, so they need no disclosure."""
    event: JSONObject = {"action": "a", "actor": {"type": "system"}, "target": {"type": "node"}}
    prepared = prepare(event, [], [], bytes(entry.ENTROPY_BYTES))
    assert prepared.disclosures == {}
    assert (prepared.projection.actor_type, prepared.projection.target_type) == ("system", "node")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**64, "\ud800"], ids=repr)
def test_a_value_json_cannot_carry_exactly_is_refused(value: JSONValue) -> None:
    """Before anything is sealed."""
    with pytest.raises(CanonicalError):
        prepare({"action": "a", "metadata": {"x": value}}, [], [], bytes(entry.ENTROPY_BYTES))


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
PATHS = st.text("/ab~01é", max_size=6).map(lambda path: "/" + path)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    max_leaves=6,
)
PEOPLE = st.fixed_dictionaries({"type": TEXTS, "id": TEXTS, "name": TEXTS})
CHANGES = st.lists(
    st.fixed_dictionaries({"path": PATHS, "op": st.just("replace"), "old": VALUES, "new": VALUES}), max_size=3
)
ADDRESSES = st.none() | st.ip_addresses().map(str) | st.ip_addresses(v=4).map(lambda ip: f"::ffff:{ip}")
EVENT = st.fixed_dictionaries(
    {
        "action": st.just("a.b"),
        "id": TEXTS,
        "server_id": TEXTS,
        "occurred_at": st.datetimes(datetime(2000, 1, 1), timezones=st.just(UTC)).map(entry.format_time),  # noqa: DTZ001
        "actor": st.none() | PEOPLE,
        "on_behalf_of": st.none() | PEOPLE,
        "target": st.none() | PEOPLE,
        "related": st.lists(PEOPLE, max_size=2),
        "description": TEXTS,
        "context": st.fixed_dictionaries({"ip": ADDRESSES, "session_id": TEXTS, "request_id": TEXTS}),
        "metadata": st.dictionaries(st.text("abc", max_size=2), VALUES, max_size=3),
        "source": st.fixed_dictionaries({"id": TEXTS, "seq": st.none() | st.integers(0, 2**63 - 1)}),
    }
)


@given(EVENT, CHANGES, st.binary(min_size=entry.ENTROPY_BYTES, max_size=entry.ENTROPY_BYTES))
def test_a_verifier_projects_the_same_from_the_stored_bytes(
    event: dict[str, Any], changes: list[dict[str, Any]], entropy: bytes
) -> None:
    """The projection is a function of body and disclosures: parsing what is stored gives what was stored, or clean logs
    would look tampered."""
    prepared = prepare(event, changes, [], entropy)
    values = {group: orjson.loads(stored[SALT_BYTES:]) for group, stored in prepared.disclosures.items()}
    assert project(orjson.loads(prepared.body), values) == prepared.projection


@given(EVENT, CHANGES)
def test_the_body_commits_to_exactly_what_is_disclosed(event: dict[str, Any], changes: list[dict[str, Any]]) -> None:
    """No commitment without its disclosure and no disclosure without its commitment."""
    prepared = prepare(event, changes, [], ENTROPY)
    committed = json.loads(prepared.body).get("sd", {})
    hashed = {group: entry.disclosure_hash(group, stored).hex() for group, stored in prepared.disclosures.items()}
    assert committed == hashed


@given(EVENT, CHANGES, st.sampled_from(GROUPS))
def test_a_deleted_disclosure_takes_its_projections_along(
    event: dict[str, Any], changes: list[dict[str, Any]], group: str
) -> None:
    """What a group alone carried is in no column after the group is gone: an erasure needs no list of its own."""
    words = {"actor": "actor_id", "actor_email": "actor_email", "ip": "ip", "target": "target_id", "changes": "paths"}
    prepared = prepare(event, changes, [], ENTROPY)
    values = {name: orjson.loads(stored[SALT_BYTES:]) for name, stored in prepared.disclosures.items() if name != group}
    left = project(orjson.loads(prepared.body), values)
    if group in words:
        assert getattr(left, words[group]) is None
    assert left.action == "a.b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.9", IPv4Address("203.0.113.9")),
        ("::ffff:203.0.113.9", IPv4Address("203.0.113.9")),
        ("2001:DB8::1", IPv6Address("2001:db8::1")),
        ("fe80::1%eth0", IPv6Address("fe80::1")),
    ],
)
def test_an_address_is_indexed_under_one_spelling(text: str, expected: IPv4Address | IPv6Address) -> None:
    """A panel behind a dual-stack socket sends the mapped form; a search for the plain one must find it."""
    assert expected == entry.index_address(text)


def test_times_have_one_spelling() -> None:
    """UTC, six decimals, Z; and the way back."""
    at = datetime(2026, 11, 22, 10, 15, 0, 1, tzinfo=timezone(timedelta(hours=1)))
    assert entry.format_time(at) == "2026-11-22T09:15:00.000001Z"
    assert at == entry.parse_time(entry.format_time(at))


@given(st.text(), st.text())
def test_letters_fold_alone(first: str, second: str) -> None:
    """No letter folds differently beside another, so each is folded once and remembered."""
    assert fold(first + second) == fold(first) + fold(second)
    assert fold(fold(first)) == fold(first)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Ana GÓMEZ", "ana gomez"),
        ("Straße", "strasse"),
        ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
        ("e\u0301", "e"),
        ("ﬁle①", "file1"),
        ("\u1c89", "\u1c89"),
    ],
)
def test_case_and_accents_are_folded(text: str, folded: str) -> None:
    """By Unicode 14: U+1C89 is a capital only since 16."""
    assert fold(text) == folded


@given(words=st.lists(st.text(max_size=8), max_size=6))
def test_lines_fold_together_as_they_fold_alone(words: list[str]) -> None:
    """Search text is folded as a whole; a search folds its words alone."""
    assert fold("\n".join(words)) == "\n".join(map(fold, words))


def test_searched_text_is_folded_and_complete() -> None:
    """Names, e-mails, ids, texts and changed values can be found; metadata, agents and sessions cannot."""
    search = cast("str", prepared_full().projection.search).split("\n")
    expected = {
        "id-actor", "name-actor", "mail-actor", "role-actor", "id-behalf", "name-behalf", "id-target", "name-target", "id-related",
        "name-related", "node", "text-reason", "text-description", "value-old", "value-new", "e-1", "s1",
    }  # fmt: skip
    assert expected == set(search)
