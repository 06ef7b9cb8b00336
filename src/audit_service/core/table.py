"""Entries as a table: the columns of the CSV export, and an entry's line.

A line has the bytes that the standard library's `csv` writes with QUOTE_MINIMAL and CRLF (RFC 4180), every cell neutralised, and quoted
as well where it holds a semicolon or a tab (`core.spreadsheet`), and costs a fifth of it: nearly all cells are plain, and a whole line
shows that at once.
"""

from collections.abc import Iterable
from typing import cast

import orjson

from audit_service.core.entry import JSONObject
from audit_service.core.sight import Sight
from audit_service.core.spreadsheet import neutral, quoted
from audit_service.core.summary import summary
from audit_service.core.view import DAMAGED_SUMMARY, DAMAGES, Parts, Stored, parts_of, time_view

# The columns the reference panels show, then what a reader needs to find the entry in the chain.
CSV_COLUMNS = (
    "occurred_at", "ip", "actor_id", "actor_name", "actor_email", "actor_role", "on_behalf_of", "action", "verb", "category",
    "target_type", "target_id", "target_name", "server_id", "outcome", "old_values", "new_values", "description", "reason",
    "metadata", "summary", "id", "seq", "recorded_at", "prev_hash", "hash",
)  # fmt: skip
HEADER_LINE = ",".join(CSV_COLUMNS) + "\r\n"
# Those that hold JSON: always quoted, never a formula.
_VALUES, _METADATA = CSV_COLUMNS.index("old_values"), CSV_COLUMNS.index("metadata")
_PLAIN_COMMAS = len(CSV_COLUMNS) - 3 - 1
_NOTHING: JSONObject = {}


def csv_line(stored: Stored, sight: Sight) -> str:
    """The line of an entry, line break included; cells of what is hidden are empty. Of a damaged one it holds what a stub holds: id, seq,
    time, hashes, and a summary that says so."""
    try:
        parts = parts_of(stored, sight)
        changes = cast("list[JSONObject]", parts.values.get("changes", ()))
        old, new = _values(changes, "old", "add"), _values(changes, "new", "remove")
        cells = _texts(parts)
        metadata = parts.values.get("metadata")
        shown = "" if metadata is None else _json_cell(metadata)
    except DAMAGES:
        cells, old, new, shown = _stub_texts(stored), "", "", ""
    if not _is_plain(cells):
        cells = [quoted(neutral(cell)) for cell in cells]
    cells[_VALUES:_VALUES] = (old, new)
    cells.insert(_METADATA, shown)
    return ",".join(cells) + "\r\n"


def _is_plain(cells: list[str]) -> bool:
    """Whether no cell needs a quote or an apostrophe: none holds what would, and what is not empty begins with a letter or digit."""
    line = ",".join(cells)
    return (
        line.count(",") == _PLAIN_COMMAS
        and '"' not in line
        and "\n" not in line
        and "\r" not in line
        and ";" not in line
        and "\t" not in line
        and "".join([cell[:1] for cell in cells]).isalnum()
    )


def _texts(parts: Parts) -> list[str]:
    """The cells of an entry, in the order of the columns, without those that hold JSON."""
    said, disclosed = parts.body.get, parts.values.get
    actor = cast("JSONObject", disclosed("actor", _NOTHING)).get
    behalf = cast("JSONObject", disclosed("on_behalf_of", _NOTHING)).get
    target = cast("JSONObject", disclosed("target", _NOTHING)).get
    text = cast("JSONObject", disclosed("text", _NOTHING)).get
    return cast("list[str]", [
        said("occurred_at", ""), disclosed("ip", ""),
        actor("id", ""), actor("name", ""), disclosed("actor_email", ""), actor("role", ""),
        behalf("name") or behalf("email") or behalf("id") or "",
        said("action", ""), said("verb", ""), said("category", ""),
        said("target_type", ""), target("id", ""), target("name", ""), said("server_id", ""), said("outcome", ""),
        text("description", ""), said("reason") or text("reason", ""), summary(parts.body, parts.values),
        said("id", ""), str(parts.seq), parts.recorded_at, parts.prev_hash, parts.hash,
    ])  # fmt: skip


def _stub_texts(stored: Stored) -> list[str]:
    """The same of a damaged entry."""
    hashes = ["" if hash_ is None else hash_.hex() for hash_ in (stored.prev_hash, stored.hash)]
    empty = [""] * (CSV_COLUMNS.index("summary") - 3)
    return [*empty, DAMAGED_SUMMARY, stored.id or "", str(stored.seq), time_view(stored.recorded_at) or "", *hashes]


def _values(changes: Iterable[JSONObject], side: str, missing_op: str) -> str:
    """What the changed fields held on one side, as a cell with a JSON object of path → value."""
    shown = {
        cast("str", change["path"]): "[redacted]" if change.get("redacted") else change.get(side)
        for change in changes
        if change["op"] != missing_op
    }
    return _json_cell(shown) if shown else ""


def _json_cell(value: object) -> str:
    return '"' + orjson.dumps(value).decode().replace('"', '""') + '"'
