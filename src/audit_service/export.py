"""Export: everything a selection matches, as CSV, JSON or NDJSON, plain or as gzip, with bounded memory.

The size is fixed at the start; entries below it are read in short slices, each its own transaction, so no snapshot is
held and appends are never slowed. The steps:

1. *Read.* Slices of raw rows, the next while one is formatted and sent, and no further: whoever takes nothing stops the reading.
2. *Format.* Elsewhere, so that the worker goes on answering (`file_stream`).
3. *Hand on.* A piece at a time. A download that was cut shows: a broken stream never ends its chunked body, NDJSON and JSON end with
   the count, and gzip with its check.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.writer import Format
from audit_service.file_stream import STEPS_HERE, Step, grouped, read_ahead, stream_file
from audit_service.formatter import READ
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.query import fetch_sound_head
from audit_service.store.reading import Part, Rows
from audit_service.store.selection import Selection
from audit_service.store.slices import session_of, stream_selected

MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
}
GZIP_MEDIA_TYPE = "application/gzip"


async def export(
    engine: AsyncEngine,
    log_id: int,
    selection: Selection,
    format_: Format,
    link_templates: Mapping[str, str],
    *,
    gzip: bool = False,
    report: Callable[[int], None] | None = None,
) -> AsyncGenerator[bytes]:
    """The export as it goes over the wire, a piece at a time, in seq order: exactly the matching entries that existed at the
    start, as the selection's sight shows them. Raises UnavailableError, also in the middle. Close it when it is not read to its end.

    `report` is told of entries as they go into the file: how many more.
    """
    arguments: dict[str, Any] = {
        "format_": format_,
        "link_templates": link_templates,
        "sight": selection.sight,
        "gzip": gzip,
    }
    async with translated():
        async with bound(engine, log_id) as connection:
            size = (await fetch_sound_head(connection, log_id)).size
        selected = stream_selected(engine, log_id, selection, to_seq=size, slices_here=STEPS_HERE)
        session = partial(session_of, engine, log_id, selection)
        file = stream_file("export", arguments, _steps(selected, size), session=session, report=report)
        async with aclosing(file) as pieces:
            async for piece in pieces:
                yield piece


async def _steps(selected: AsyncGenerator[Rows | Part], log_size: int) -> AsyncGenerator[Step]:
    async with aclosing(read_ahead(selected)) as read:
        async for some in read:
            if isinstance(some, Part):
                yield READ, some
                continue
            for group in grouped(some):
                yield "write", group
    yield "end", log_size
