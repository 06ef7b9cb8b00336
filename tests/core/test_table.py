"""A line of the CSV export: what a CSV reader makes of it, and that the short way of writing it is no other than the long one."""

import csv
import doctest
import io
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import spreadsheet, summary
from audit_service.core.sight import EVERYTHING, Sight
from audit_service.core.spreadsheet import neutral
from audit_service.core.table import CSV_COLUMNS, HEADER_LINE, csv_line
from audit_service.core.view import DAMAGED_SUMMARY, Stored, event_view

BODY = {
    "v": 1, "id": "e1", "action": "server.updated", "verb": "UPDATE", "category": "server", "occurred_at": "2026-03-01T09:15:00.123456Z",
    "server_id": "s9", "outcome": "success", "actor_type": "user", "target_type": "server",
}  # fmt: skip
VALUES: dict[str, Any] = {
    "actor": {"id": "u1", "name": "Ana", "role": "Admin"}, "actor_email": "ana@example.com", "on_behalf_of": {"email": "c@example.com"},
    "ip": "203.0.113.9", "target": {"id": "77", "name": "web"}, "text": {"description": "d", "reason": "r"}, "metadata": {"n": 1},
    "changes": [
        {"path": "/ram", "op": "replace", "old": 4, "new": 8}, {"path": "/key", "op": "add", "redacted": True},
        {"path": "/x", "op": "remove", "old": [1]},
    ],
}  # fmt: skip
TRICKY = st.text(alphabet=st.sampled_from("a1 =+-@\"',;\r\n\t\ufeff＝é→"), max_size=6)


@pytest.mark.parametrize("module", [spreadsheet, summary])
def test_the_worked_examples_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def stored(body: dict[str, Any] = BODY, values: dict[str, Any] = VALUES) -> Stored:
    """An entry with this body and these disclosures."""
    at = datetime(2026, 3, 1, 9, 16, tzinfo=UTC)
    disclosures = {group: bytes(32) + orjson.dumps(value) for group, value in values.items()}
    text = orjson.dumps(body).decode()
    return Stored(7, at, "event", b"\x01" * 32, b"\x02" * 32, text, "e1", disclosures)


def read(line: str) -> dict[str, str]:
    """The cells by name, as a CSV reader finds them."""
    (cells,) = csv.reader(io.StringIO(line, newline=""))
    return dict(zip(CSV_COLUMNS, cells, strict=True))


def test_every_column_has_its_value() -> None:
    expected = {
        "occurred_at": "2026-03-01T09:15:00.123456Z", "ip": "203.0.113.9", "actor_id": "u1", "actor_name": "Ana",
        "actor_email": "ana@example.com", "actor_role": "Admin", "on_behalf_of": "c@example.com", "action": "server.updated",
        "verb": "UPDATE", "category": "server", "target_type": "server", "target_id": "77", "target_name": "web", "server_id": "s9",
        "outcome": "success", "old_values": '{"/ram":4,"/x":[1]}', "new_values": '{"/ram":8,"/key":"[redacted]"}', "description": "d",
        "reason": "r", "metadata": '{"n":1}', "id": "e1", "seq": "7", "recorded_at": "2026-03-01T09:16:00.000000Z",
        "prev_hash": "01" * 32, "hash": "02" * 32, "summary": event_view(stored(), {}, EVERYTHING)["summary"],
    }  # fmt: skip
    assert expected == read(csv_line(stored(), EVERYTHING))


def test_the_header_names_the_columns() -> None:
    assert list(CSV_COLUMNS) == next(csv.reader([HEADER_LINE]))
    assert HEADER_LINE.endswith("\r\n")


def test_an_event_that_says_nothing_more_has_empty_cells() -> None:
    required = {name: BODY[name] for name in ("id", "action", "verb", "category", "occurred_at")}
    row = read(csv_line(stored(required, {}), EVERYTHING))
    assert {name for name, cell in row.items() if not cell} == {
        "ip", "actor_id", "actor_name", "actor_email", "actor_role", "on_behalf_of", "target_type", "target_id", "target_name", "server_id",
        "outcome", "old_values", "new_values", "description", "reason", "metadata",
    }  # fmt: skip


@given(name=TRICKY, description=TRICKY, identifier=TRICKY, metadata=TRICKY)
def test_a_line_is_what_the_csv_module_writes_of_neutral_cells(
    name: str, description: str, identifier: str, metadata: str
) -> None:
    values = VALUES | {
        "actor": {"name": name}, "text": {"description": description}, "target": {"id": identifier}, "metadata": {"m": metadata},
    }  # fmt: skip
    line = csv_line(stored(values=values), EVERYTHING)
    row = read(line)
    assert line == ",".join(map(written, row.values())) + "\r\n"
    assert (row["actor_name"], row["description"], row["target_id"]) == tuple(
        map(neutral, (name, description, identifier))
    )
    assert {"m": metadata} == orjson.loads(row["metadata"])


def written(cell: str) -> str:
    """A cell as the csv module writes it beside one that needs no quotes, whichever of its separators the reader may split at."""
    spelled = set()
    for delimiter in ",;\t":
        line = io.StringIO(newline="")
        csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow(("-", cell))
        spelled.add(line.getvalue()[2:-2])
    return max(spelled, key=len)


@pytest.mark.parametrize("text", ["done; next", "x;=1+1;y", "a\tb", "a\t=1+1"])
def test_a_reader_that_splits_at_semicolons_and_tabs_too_finds_the_same_cells(text: str) -> None:
    values = {name: value for name, value in VALUES.items() if name not in ("changes", "metadata")}
    line = csv_line(stored(values=values | {"text": {"description": text}}), EVERYTHING)
    outside = line.split('"')[::2]
    assert not [part for part in outside if ";" in part or "\t" in part]
    assert text == read(line)["description"]


def test_a_damaged_entry_is_told_by_its_seq_id_time_and_hashes() -> None:
    row = read(csv_line(stored()._replace(body="{"), EVERYTHING))
    assert {name: cell for name, cell in row.items() if cell} == {
        "summary": DAMAGED_SUMMARY, "id": "e1", "seq": "7", "recorded_at": "2026-03-01T09:16:00.000000Z",
        "prev_hash": "01" * 32, "hash": "02" * 32,
    }  # fmt: skip


def test_cells_of_what_is_hidden_are_empty() -> None:
    hiding = Sight(ips=False, emails=False)
    shown, seen = read(csv_line(stored(), EVERYTHING)), read(csv_line(stored(), hiding))
    empty = {"ip", "actor_email", "on_behalf_of"}
    assert {name for name in CSV_COLUMNS if seen[name] != shown[name]} == empty | {"summary"}
    assert {seen[name] for name in empty} == {""}
    assert "example.com" not in seen["summary"]
    of_staff = read(csv_line(stored(BODY | {"actor_type": "admin"}), Sight(staff_as="Support")))
    assert [of_staff[name] for name in ("actor_id", "actor_name", "actor_role", "ip")] == ["", "Support", "", ""]


def test_what_is_erased_is_not_called_hidden_nor_the_other_way_round() -> None:
    sealed = BODY | {"sd": dict.fromkeys(VALUES, "00")}
    left = {group: value for group, value in VALUES.items() if group not in {"ip", "text"}}
    view = event_view(stored(sealed, left), {}, Sight(ips=False, emails=False))
    assert (view["erased"], view["hidden"]) == (["ip", "text"], ["actor_email", "on_behalf_of"])
