"""One damaged row never takes down a list, a page walk or an export: it is shown as a stub between its neighbours."""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from audit_service.api import schemas
from audit_service.core.canonical import canonical_text
from audit_service.core.table import CSV_COLUMNS
from tests.support.api import Api
from tests.support.apps import PANEL_SCOPES, add_key, open_api
from tests.support.tampering import FULL_SEQ, SIZE, Lab

MEMBERS = set(schemas.EventView.model_fields)
BODY = {
    "v": 1,
    "id": "e-6",
    "action": "x",
    "verb": "UPDATE",
    "category": "x",
    "occurred_at": "2026-01-01T00:00:00.000000Z",
}
BODIES: dict[str, Any] = {
    "not JSON": "{",
    "no object": "[]",
    "a text": '"x"',
    "empty": "{}",
    "an id that is no text": {**BODY, "id": 7},
    "an unknown verb": {**BODY, "verb": "EAT"},
    "an unknown outcome": {**BODY, "outcome": "eaten"},
    "no category": {name: value for name, value in BODY.items() if name != "category"},
    "commitments that are no object": {**BODY, "sd": ["actor"]},
    "a source that is no object": {**BODY, "source": "x"},
    "a server that is no text": {**BODY, "server_id": {"=": 1}},
}
DISCLOSURES: dict[str, tuple[str, Any]] = {
    "not JSON": ("actor", b"{"),
    "nothing but a salt": ("actor", b""),
    "an actor that is a list": ("actor", []),
    "an actor's name that is a number": ("actor", {"name": 7}),
    "an e-mail that is an object": ("actor_email", {}),
    "on behalf of a text": ("on_behalf_of", "=1+1"),
    "an address that is a number": ("ip", 7),
    "a context that is a text": ("context", "x"),
    "a target's id that is a list": ("target", {"id": ["x"]}),
    "related that is a number": ("target", {"related": 7}),
    "related of texts": ("target", {"related": ["x"]}),
    "a text that is a list": ("text", ["x"]),
    "metadata that is a list": ("metadata", [1]),
    "metadata nested deeper than can be written": ("metadata", b'{"a":' * 300 + b"1" + b"}" * 300),
    "changes that are an object": ("changes", {"path": "/a"}),
    "a change that is a number": ("changes", [1]),
    "a change without a path": ("changes", [{"op": "add"}]),
    "a fourth change of an unknown kind": (
        "changes",
        [{"path": f"/{n}", "op": "add", "new": 1} for n in range(3)] + [{"path": "/x", "op": "eat"}],
    ),
}
HEADERS = {
    "no hash": ("hash", "hash = NULL"),
    "no prev_hash": ("prev_hash", "prev_hash = NULL"),
    "no kind": ("kind", "kind = NULL"),
    "no time": ("recorded_at", "recorded_at = NULL"),
    "a time at infinity": ("", "recorded_at = 'infinity'"),
    "a time before all": ("", "recorded_at = '-infinity'"),
    "a time BC": ("", "recorded_at = '4000-01-01 BC'"),
    "a time far away": ("", "recorded_at = '200000-01-01'"),
    "no body": ("", "body = NULL"),
    "no body and no id": ("", "body = NULL, id = NULL"),
}


@pytest.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    """The service on the log's database."""
    key = await add_key(lab.log.database, lab.log_id, PANEL_SCOPES)
    async with open_api(lab.log.database, key=key, link_templates={"user": "https://panel.test/{id}"}) as opened:
        yield opened


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_body_that_cannot_be_shown_is_a_stub(lab: Lab, api: Api, body: Any) -> None:
    await lab.edit(FULL_SEQ, "body = $3", body if isinstance(body, str) else json.dumps(body))
    await assert_stub(api)


@pytest.mark.parametrize(("group", "value"), DISCLOSURES.values(), ids=DISCLOSURES.keys())
async def test_a_disclosure_that_cannot_be_shown_is_a_stub(lab: Lab, api: Api, group: str, value: Any) -> None:
    stored = bytes(32) + (value if isinstance(value, bytes) else canonical_text(value).encode())
    await lab.edit(FULL_SEQ, f"d_{group} = $3", stored)
    await assert_stub(api)


@pytest.mark.parametrize(("column", "assignment"), HEADERS.values(), ids=HEADERS.keys())
async def test_a_header_that_cannot_be_shown_is_a_stub(lab: Lab, api: Api, column: str, assignment: str) -> None:
    await lab.execute("ALTER TABLE audit.entry DROP CONSTRAINT entry_times")
    if column:
        await lab.execute(f"ALTER TABLE audit.entry ALTER COLUMN {column} DROP NOT NULL")
    await lab.edit(FULL_SEQ, assignment)
    stub = await assert_stub(api, event_id=None if "id = NULL" in assignment else "e-6")
    if column in stub["proof"]:
        assert stub["proof"][column] is None


async def test_a_row_that_can_be_read_is_shown_as_it_is(lab: Lab, api: Api) -> None:
    """A stub is for what cannot be read. Whether the rest is true, only a verification says."""
    events = await walk(api, "seq", limit=500)
    assert [event["damaged"] for event in events] == [False] * SIZE
    assert all(schemas.EventView.model_validate(event) for event in events)
    await lab.edit(FULL_SEQ, "body = replace(body, 'user.updated', 'user.ignored')")
    assert (await api.event("e-6"))["action"] == "user.ignored"


@pytest.mark.parametrize("time", ["infinity", "-infinity", "200000-01-01", "4000-01-01 BC"])
async def test_a_damaged_time_of_the_event_is_shown_in_seq_order_only(lab: Lab, api: Api, time: str) -> None:
    """Its place among the times would be anybody's guess; and the pages end."""
    await lab.execute("ALTER TABLE audit.entry DROP CONSTRAINT entry_times")
    await lab.edit(FULL_SEQ, f"occurred_at = '{time}'")
    for sort in ("seq", "-seq"):
        assert sorted(event["seq"] for event in await walk(api, sort, limit=1)) == list(range(SIZE))
    for sort in ("occurred_at", "-occurred_at"):
        found = [event["seq"] for event in await walk(api, sort, limit=2)]
        assert sorted(found) == [seq for seq in range(SIZE) if seq != FULL_SEQ]
    assert (await api.event("e-6"))["seq"] == FULL_SEQ
    exported = await api.client.get("/v1/export")
    assert json.loads(exported.text.splitlines()[-1])["count"] == SIZE


async def walk(api: Api, sort: str, *, limit: int) -> list[dict[str, Any]]:
    """The events of all pages."""
    found: list[dict[str, Any]] = []
    parameters = {"sort": sort, "limit": str(limit)}
    while len(found) <= SIZE:
        response = await api.client.get("/v1/events", params=parameters)
        assert response.status_code == 200, response.text
        found += response.json()["events"]
        if response.json()["next_cursor"] is None:
            return found
        parameters["cursor"] = response.json()["next_cursor"]
    raise AssertionError("the pages do not end")


async def assert_stub(api: Api, event_id: str | None = "e-6") -> dict[str, Any]:
    """The row is a stub in lists, pages of any order and the three formats of an export; its neighbours are themselves."""
    for sort in ("seq", "-occurred_at"):
        events = sorted(await walk(api, sort, limit=5), key=lambda event: event["seq"])
        assert [event["seq"] for event in events] == list(range(SIZE))
        assert [event["seq"] for event in events if event["damaged"]] == [FULL_SEQ]
    stub = events[FULL_SEQ]
    assert set(stub) == MEMBERS
    schemas.EventView.model_validate(stub)
    assert (stub["id"], stub["action"], stub["actor"], stub["changes"]) == (event_id, None, None, [])
    for format_ in ("ndjson", "json", "csv"):
        response = await api.client.get("/v1/export", params={"format": format_})
        assert response.status_code == 200
        assert read(format_, response.text) == [(str(event["seq"]), event["summary"]) for event in events]
    return stub


def read(format_: str, text: str) -> list[tuple[str, str]]:
    """Seq and summary of what was exported; the file must be whole."""
    if format_ == "csv":
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert tuple(rows[0]) == CSV_COLUMNS
        return [(row["seq"], row["summary"]) for row in rows]
    if format_ == "json":
        document = json.loads(text)
    else:
        *lines, trailer = [json.loads(line) for line in text.splitlines()]
        document = {"events": lines, **trailer}
    assert (document["complete"], document["count"]) == (True, SIZE)
    return [(str(event["seq"]), event["summary"]) for event in document["events"]]
