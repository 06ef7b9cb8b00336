"""Exports: the same events in three formats, whole, filtered, harmless in a spreadsheet, and never all in memory."""

import gzip
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from audit_service import export
from audit_service.api import schemas
from audit_service.core.sight import EVERYTHING
from audit_service.core.table import CSV_COLUMNS
from audit_service.core.writer import Format
from audit_service.file_stream import STEPS_HERE
from audit_service.store.selection import Selection
from audit_service.store.slices import SLICE_ENTRIES
from tests.support.api import Api
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.exports import exported, rows_of
from tests.support.postgres import TestDatabase

PATTERN_ROWS = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\t=1",
    "\r=1", "\n=1", "＝1+1", "＋1", "－1", "＠x", '"=1+1', "'=1", "  =1", "\u00a0=1", "\u200b=1", "–1",
    "=cmd|' /C calc'!A0", ' "=1', "\ufeff=1", "\x0b=1", "\x0c@x",
]  # fmt: skip
HARMLESS = [
    "plain",
    "1-1",
    "a=b",
    "mail@example.com",
    "",
    "ünï, \"quoted\"; 'x'",
    "two\nlines",
    "two\r\nlines",
    "semi;colon,comma",
    "'",
    "|x",
]


EVENTS: list[dict[str, Any]] = [
    {
        "id": "full", "occurred_at": "2026-03-01T10:15:00.123456+01:00",
        "action": "schedule.updated", "server_id": "s9", "outcome": "success",
        "actor": {"type": "user", "id": "u1", "name": "Ana, \"G\"", "email": "ana@example.com", "role": "Admin"},
        "on_behalf_of": {"id": "u3", "name": "Client"}, "target": {"type": "schedule", "id": "77", "name": "nightly\nrun"},
        "context": {"ip": "203.0.113.9"}, "reason": "asked", "description": "raised", "metadata": {"amount": "12.50", "n": [1, 2]},
        "before": {"days": 7, "password": "a", "gone": None, "n": {"x": 1}},
        "after": {"days": 14, "password": "b", "new": [1], "n": {"x": 2.5}},
    },
    {"id": "bare", "action": "panel.booted"},
]  # fmt: skip


@pytest.fixture(scope="module")
async def stocked(module_database: TestDatabase) -> AsyncIterator[Api]:
    """A tenant with two events of the shapes above, and 1,200 more: over two slices."""
    key = await add_key(module_database, await add_tenant(module_database, "exported"))
    async with open_api(module_database, key=key, link_templates={"schedule": "https://panel.test/s/{id}"}) as opened:
        await opened.accept(*EVENTS)
        for start in (0, 600):
            many = [{"action": f"kind{n % 7}.touched", "server_id": f"s{n % 3}"} for n in range(start, start + 600)]
            assert (await opened.client.post("/v1/events", json=many)).status_code == 201
        yield opened
        await opened.assert_intact(1202)


async def listed(api: Api) -> list[dict[str, Any]]:
    """Every event by way of pages, in seq order."""
    events: list[dict[str, Any]] = []
    parameters: dict[str, Any] = {"sort": "seq", "limit": 500}
    while True:
        answer = (await api.client.get("/v1/events", params=parameters)).json()
        events += answer["events"]
        if answer["next_cursor"] is None:
            return events
        parameters["cursor"] = answer["next_cursor"]


# --- the three formats ---


async def test_ndjson_holds_every_event_and_ends_with_the_count(stocked: Api) -> None:
    before = await listed(stocked)  # the export itself is noted at its end
    response = await exported(stocked)
    assert response.headers["content-type"] == "application/x-ndjson"
    *events, trailer = [json.loads(line) for line in response.text.splitlines()]
    assert events == before
    assert trailer == {"trailer": True, "count": len(before), "log_size": len(before), "complete": True}
    schemas.EventView.model_validate(events[0])
    assert events[0]["target"]["url"] == "https://panel.test/s/77"


async def test_json_is_one_document_that_ends_with_the_count(stocked: Api) -> None:
    before = await listed(stocked)
    response = await exported(stocked, format="json")
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert document.pop("events") == before
    assert document == {"count": len(before), "log_size": len(before), "complete": True}


async def test_csv_parses_back_to_the_same_values(stocked: Api) -> None:
    events = await listed(stocked)
    response = await exported(stocked, format="csv")
    assert response.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    rows = rows_of(response.text)
    assert [row["id"] for row in rows] == [event["id"] for event in events]
    for row, event in zip(rows, events, strict=True):
        for name in ("occurred_at", "recorded_at", "action", "verb", "category", "summary"):
            assert row[name] == event[name]
        assert (int(row["seq"]), row["hash"], row["prev_hash"]) == (
            event["seq"],
            event["proof"]["hash"],
            event["proof"]["prev_hash"],
        )
        assert row["server_id"] == (event["server_id"] or "")


async def test_a_full_event_fills_its_csv_columns(stocked: Api) -> None:
    row = rows_of((await exported(stocked, format="csv", id="full")).text)[0]
    assert tuple(row) == CSV_COLUMNS
    expected = {
        "occurred_at": "2026-03-01T09:15:00.123456Z", "ip": "203.0.113.9", "actor_id": "u1", "actor_name": 'Ana, "G"',
        "actor_email": "ana@example.com", "actor_role": "Admin", "on_behalf_of": "Client", "action": "schedule.updated", "verb": "UPDATE",
        "category": "schedule", "target_type": "schedule", "target_id": "77", "target_name": "nightly\nrun", "server_id": "s9",
        "outcome": "success", "description": "raised", "reason": "asked", "id": "full", "seq": "0",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert json.loads(row["old_values"]) == {"/days": 7, "/gone": None, "/n/x": 1, "/password": "[redacted]"}
    assert json.loads(row["new_values"]) == {"/days": 14, "/n/x": 2.5, "/new": [1], "/password": "[redacted]"}
    assert json.loads(row["metadata"]) == {"amount": "12.50", "n": [1, 2]}


async def test_a_bare_event_leaves_its_csv_cells_empty(stocked: Api) -> None:
    row = rows_of((await exported(stocked, format="csv", id="bare")).text)[0]
    filled = {name for name, cell in row.items() if cell}
    assert filled == {
        "occurred_at",
        "action",
        "verb",
        "category",
        "summary",
        "id",
        "seq",
        "recorded_at",
        "hash",
        "prev_hash",
    }


async def test_csv_is_rfc_4180_without_a_byte_order_mark(stocked: Api) -> None:
    content = (await exported(stocked, format="csv", id=["full", "bare"])).content
    assert content.startswith(b"occurred_at,ip,")
    assert content.endswith(b"\r\n")
    assert b'"Ana, ""G"""' in content
    assert b'"nightly\nrun"' in content


@pytest.mark.parametrize("format_", ["csv", "json", "ndjson"])
async def test_an_export_is_a_file_that_nobody_caches(stocked: Api, format_: str) -> None:
    headers = (await exported(stocked, format=format_, id="bare")).headers
    assert headers["content-disposition"] == f'attachment; filename="audit-exported.{format_}"'
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"


async def test_a_tenant_with_any_name_can_export(module_database: TestDatabase) -> None:
    key = await add_key(module_database, await add_tenant(module_database, 'Größe "株式"\r\nX: y'))
    async with open_api(module_database, key=key) as api:
        response = await exported(api)
    assert "x" not in response.headers
    disposition = response.headers["content-disposition"]
    assert disposition.startswith("attachment; filename=")
    assert disposition.isascii()


@pytest.mark.parametrize(
    ("format_", "expected"),
    [("csv", None), ("json", '{"events":[\n],"count":0,"log_size":%d,"complete":true}\n'),
     ("ndjson", '{"trailer":true,"count":0,"log_size":%d,"complete":true}\n')],
)  # fmt: skip
async def test_an_export_of_nothing_is_whole(stocked: Api, format_: str, expected: str | None) -> None:
    size = len(await listed(stocked))
    text = (await exported(stocked, format=format_, action="nothing")).text
    assert text == (expected % size if expected else ",".join(CSV_COLUMNS) + "\r\n")


# --- what is in it ---


async def test_filters_are_honoured(stocked: Api) -> None:
    asked = {"action": ["kind1.*", "kind2.touched"], "server_id.not": "s0"}
    lines = (await exported(stocked, **asked)).text.splitlines()
    expected = [
        event["id"]
        for event in await listed(stocked)
        if event["action"] in {"kind1.touched", "kind2.touched"} and event["server_id"] != "s0"
    ]
    assert [json.loads(line)["id"] for line in lines[:-1]] == expected
    assert json.loads(lines[-1])["count"] == len(expected) > 0


@pytest.mark.parametrize(
    "query", ["limit=5", "sort=seq", "cursor=x", "format=xml", "format=csv&format=csv", "count=capped", "x=1"]
)
async def test_paging_and_unknown_parameters_are_refused(stocked: Api, query: str) -> None:
    response = await stocked.client.get(f"/v1/export?{query}")
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")


async def test_another_tenant_s_events_are_not_in_it(module_database: TestDatabase, stocked: Api) -> None:
    key = await add_key(module_database, await add_tenant(module_database, "nosy"))
    async with open_api(module_database, key=key) as nosy:
        assert json.loads((await exported(nosy)).text)["count"] == 0
    assert json.loads((await exported(stocked, id="full")).text.splitlines()[-1])["count"] == 1


async def test_entries_appended_after_the_start_are_not_in_it(api: Api) -> None:
    """Also those appended while it runs, between two slices."""
    engine, log_id = api.service.database.reads, await default_log(api)
    response = await api.client.post("/v1/events", json=[{"action": "x.before"}] * 700)
    assert response.status_code == 201
    pieces = []
    async for piece in export.export(engine, log_id, Selection(sight=EVERYTHING), "ndjson", {}):
        pieces.append(piece)
        await api.accept({"action": "x.after"})
    *events, trailer = [json.loads(line) for line in b"".join(pieces).splitlines()]
    assert len(pieces) >= 4
    assert [event["seq"] for event in events] == list(range(700))
    assert trailer == {"trailer": True, "count": 700, "log_size": 700, "complete": True}
    await api.assert_intact(700 + len(pieces))


@pytest.mark.parametrize("format_", ["csv", "json", "ndjson"])
async def test_memory_is_bounded_by_a_slice(stocked: Api, format_: Format) -> None:
    """What is handed on is never more than a slice, the first few read by the worker and the others where they are formatted, and nothing
    is read before the one before was taken."""
    engine, log_id = stocked.service.database.reads, await default_log(stocked)
    sizes = []
    async for piece in export.export(engine, log_id, Selection(sight=EVERYTHING), format_, {}):
        sizes.append(len(piece))
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    whole = (await exported(stocked, format=format_)).content
    assert abs(sum(sizes) - len(whole)) < 400
    assert len(sizes) == 2 + STEPS_HERE + math.ceil((await log_size(stocked) - STEPS_HERE * SLICE_ENTRIES) / 1000)
    assert max(sizes) < len(whole) * 0.6


async def log_size(api: Api) -> int:
    """Of the default tenant's log, as the chain tells."""
    size: int = (await api.client.get("/v1/chain")).json()["size"]
    return size


async def default_log(api: Api) -> int:
    """The log of the key the client uses."""
    key = api.client.headers["authorization"].removeprefix("Bearer ")
    credential = await api.service.credential(key)
    assert credential is not None
    return credential.log_id


# --- spreadsheets ---


async def test_cells_that_a_spreadsheet_would_run_are_text(api: Api, shared: Path) -> None:
    found = (shared / "data" / "csv-injection" / "patt.txt").read_text(encoding="utf-8").split("\n")
    cells = [cell for cell in found if cell] + PATTERN_ROWS
    events = [{"action": "x", "description": cell, "actor": {"name": cell}, "target": {"name": cell}} for cell in cells]
    assert (await api.client.post("/v1/events", json=events)).status_code == 201
    raw = json.loads((await exported(api, format="json")).content)["events"]
    rows = rows_of((await exported(api, format="csv", action="x")).text)
    assert [event["description"] for event in raw] == cells
    for row, cell in zip(rows, cells, strict=True):
        for name in ("description", "actor_name", "target_name"):
            if cell.startswith(("DDE", "– leading")) and row[name] == cell:
                continue  # no formula: the first is a function name alone, the second prose
            assert row[name] == "'" + cell, name
            assert not row[name].lstrip().startswith(tuple("=+-@＝＋－＠\t\r\n"))


async def test_harmless_cells_are_left_as_they_are(api: Api) -> None:
    events = [{"action": "x", "description": cell, "reason": cell} for cell in HARMLESS]
    assert (await api.client.post("/v1/events", json=events)).status_code == 201
    rows = rows_of((await exported(api, format="csv")).text)
    assert [(row["description"], row["reason"]) for row in rows] == [(cell, cell) for cell in HARMLESS]
    assert {event["description"] for event in await api.list(action="x")} == set(HARMLESS)


async def test_an_address_or_a_server_id_cannot_be_a_formula_either(api: Api) -> None:
    await api.accept({"id": "=1", "action": "-x", "category": "+c", "server_id": "@s", "metadata": {"=k": "=v"}})
    row = rows_of((await exported(api, format="csv")).text)[0]
    assert (row["id"], row["action"], row["category"], row["server_id"]) == ("'=1", "'-x", "'+c", "'@s")
    assert json.loads(row["metadata"]) == {"=k": "=v"}


# --- gzip ---


@pytest.mark.parametrize("format_", ["csv", "json", "ndjson"])
@pytest.mark.parametrize("filters", [{}, {"id": "full"}], ids=["formatted apart", "formatted here"])
async def test_a_gzip_export_is_the_same_file(stocked: Api, format_: str, filters: dict[str, str]) -> None:
    response = await exported(stocked, format=format_, gzip="true", **filters)
    assert response.headers["content-type"] == "application/gzip"
    assert "content-encoding" not in response.headers  # it is to stay packed on the reader's disk
    assert response.headers["content-disposition"] == f'attachment; filename="audit-exported.{format_}.gz"'
    plain = (await exported(stocked, format=format_, gzip="false", **filters)).content
    assert _exported_before(gzip.decompress(response.content)) == _exported_before(plain)


def _exported_before(content: bytes) -> list[bytes]:
    """The lines of a file without what the exports before it left in the log, and without the log's size and the counts."""
    return [
        line.rstrip(b",")
        for line in content.splitlines()
        if b"audit.export.finished" not in line and b"log_size" not in line
    ]


@pytest.mark.parametrize("query", ["gzip=1", "gzip=TRUE", "gzip=true&gzip=true"])
async def test_another_word_for_gzip_is_refused(stocked: Api, query: str) -> None:
    assert (await stocked.client.get(f"/v1/export?{query}")).status_code == 400
