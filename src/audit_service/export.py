"""Export: everything a selection matches, as CSV, JSON or NDJSON, with bounded memory.

The size is fixed at the start; entries below it are read in short slices, each its own transaction, so no snapshot is
held and appends are never slowed. A download that was cut shows: NDJSON and JSON end with the count, and a broken stream
never ends its chunked body.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, cast

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.entry import JSONObject
from audit_service.core.spreadsheet import csv_lines
from audit_service.core.view import event_view, stored_from
from audit_service.errors import AuditError
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.find import candidates
from audit_service.store.query import fetch_sound_head, list_slice
from audit_service.store.rows import EVENT_COLUMNS
from audit_service.store.selection import Selection

Format = Literal["csv", "json", "ndjson"]
MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
}
SLICE_ENTRIES = 500
# What is parsed and written at once: views of JSON are many times its size.
PIECE_BYTES = 1024 * 1024
# The columns the reference panels show, then what a reader needs to find the entry in the chain.
CSV_COLUMNS = (
    "occurred_at", "ip", "actor_id", "actor_name", "actor_email", "actor_role", "on_behalf_of", "action", "verb", "category",
    "target_type", "target_id", "target_name", "server_id", "outcome", "old_values", "new_values", "description", "reason",
    "metadata", "summary", "id", "seq", "recorded_at", "prev_hash", "hash",
)  # fmt: skip


async def export(
    engine: AsyncEngine, log_id: int, selection: Selection, format_: Format, link_templates: Mapping[str, str]
) -> AsyncIterator[bytes]:
    """The export as it goes over the wire, a piece at a time, in seq order: exactly the matching entries that existed at the
    start. Raises UnavailableError, also in the middle."""
    async with translated(), bound(engine, log_id) as connection:
        size = (await fetch_sound_head(connection, log_id)).size
    begin, write, end = _FORMATS[format_]
    count = 0
    yield begin()
    async for rows in _ahead(_slices(engine, log_id, selection, size)):
        for some in _pieces(rows):
            views = [event_view(stored_from(row), link_templates) for row in some]
            yield write(views, first=count == 0)
            count += len(views)
            del views  # or they would live on while the next slice is read
    yield end(count, size)


async def _ahead(slices: AsyncGenerator[Sequence[Any]]) -> AsyncIterator[Sequence[Any]]:
    """The same slices; while one is written, the next is read."""
    coming = asyncio.ensure_future(anext(slices, None))
    try:
        while (rows := await coming) is not None:
            coming = asyncio.ensure_future(anext(slices, None))
            yield rows
    finally:
        coming.cancel()
        with suppress(asyncio.CancelledError, AuditError):
            await coming
        await slices.aclose()


def _pieces(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The rows in groups of about PIECE_BYTES: one when they are small, a row by itself when it is large."""
    start = size_bytes = 0
    for place, row in enumerate(rows):
        if place > start and size_bytes + row.size_bytes > PIECE_BYTES:
            yield rows[start:place]
            start, size_bytes = place, 0
        size_bytes += row.size_bytes
    yield rows[start:]


async def _slices(engine: AsyncEngine, log_id: int, selection: Selection, size: int) -> AsyncGenerator[Sequence[Any]]:
    async with translated():
        async for some in candidates(engine, log_id, selection, from_seq=0, to_seq=size):
            if isinstance(some, range):
                async for rows in _rows(engine, log_id, selection, some, None):
                    yield rows
                continue
            for start in range(0, len(some), SLICE_ENTRIES):
                seqs = some[start : start + SLICE_ENTRIES]
                async for rows in _rows(engine, log_id, selection, range(seqs[0], seqs[-1] + 1), seqs):
                    yield rows


async def _rows(
    engine: AsyncEngine, log_id: int, selection: Selection, within: range, seqs: Sequence[int] | None
) -> AsyncIterator[Sequence[Any]]:
    """The matching entries of a range, of those `seqs` if given, slice by slice."""
    position = within.start
    while position < within.stop:
        async with bound(engine, log_id) as connection:
            found = await list_slice(
                connection,
                log_id,
                EVENT_COLUMNS,
                from_seq=position,
                to_seq=within.stop,
                limit=SLICE_ENTRIES,
                seqs=seqs,
                selection=selection,
            )
        if found.rows:
            yield found.rows
        if not found.more:
            return
        position = found.rows[-1].seq + 1


def csv_row(event: JSONObject) -> list[str | int | None]:
    """The cells of CSV_COLUMNS for an event as shown. Old and new values are JSON objects of path → value."""
    actor, target = _part(event, "actor"), _part(event, "target")
    behalf, context, proof = _part(event, "on_behalf_of"), _part(event, "context"), _part(event, "proof")
    changes = cast("list[JSONObject]", event["changes"])
    cells = {
        **{name: event.get(name) for name in CSV_COLUMNS},
        "ip": context.get("ip"),
        **{f"actor_{name}": actor.get(name) for name in ("id", "name", "email", "role")},
        "on_behalf_of": behalf.get("name") or behalf.get("email") or behalf.get("id"),
        **{f"target_{name}": target.get(name) for name in ("type", "id", "name")},
        "old_values": _values(changes, "old"),
        "new_values": _values(changes, "new"),
        "metadata": None if event["metadata"] is None else orjson.dumps(event["metadata"]).decode(),
        "prev_hash": proof["prev_hash"],
        "hash": proof["hash"],
    }
    return [cast("str | int | None", cells[name]) for name in CSV_COLUMNS]


def _part(event: JSONObject, name: str) -> JSONObject:
    return cast("JSONObject | None", event.get(name)) or {}


def _values(changes: Iterable[JSONObject], side: str) -> str | None:
    missing_op = "add" if side == "old" else "remove"
    shown = {
        cast("str", change["path"]): "[redacted]" if change.get("redacted") else change.get(side)
        for change in changes
        if change["op"] != missing_op
    }
    return orjson.dumps(shown).decode() if shown else None


def _write_csv(views: list[JSONObject], *, first: bool) -> bytes:
    del first
    return csv_lines(csv_row(view) for view in views)


def _write_json(views: list[JSONObject], *, first: bool) -> bytes:
    return (b"\n" if first else b",\n") + b",\n".join(orjson.dumps(view) for view in views)


def _write_ndjson(views: list[JSONObject], *, first: bool) -> bytes:
    del first
    return b"".join(orjson.dumps(view) + b"\n" for view in views)


_FORMATS: dict[Format, tuple[Callable[[], bytes], Callable[..., bytes], Callable[[int, int], bytes]]] = {
    "csv": (lambda: csv_lines([CSV_COLUMNS]), _write_csv, lambda _count, _size: b""),
    "json": (
        lambda: b'{"events":[',
        _write_json,
        lambda count, size: b'\n],"count":%d,"log_size":%d,"complete":true}\n' % (count, size),
    ),
    "ndjson": (
        lambda: b"",
        _write_ndjson,
        lambda count, size: b'{"trailer":true,"count":%d,"log_size":%d,"complete":true}\n' % (count, size),
    ),
}
