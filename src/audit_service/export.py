"""Export: everything a selection matches, as CSV, JSON or NDJSON, plain or as gzip, with bounded memory.

The size is fixed at the start; entries below it are read in short slices, each its own transaction, so no snapshot is
held and appends are never slowed. The steps:

1. *Read.* Slices of raw rows, the next while one is formatted and sent, and no further: whoever takes nothing stops the reading.
2. *Format.* In a child process (`formatter`), so that the worker goes on answering; an export of one slice is not worth its start.
3. *Hand on.* A piece at a time. A download that was cut shows: a broken stream never ends its chunked body, NDJSON and JSON end with
   the count, and gzip with its check.
"""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.writer import Format, Writer
from audit_service.errors import UnavailableError
from audit_service.formatter import LENGTH, message
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.query import fetch_sound_head
from audit_service.store.selection import Selection
from audit_service.store.slices import SIZE, stream_slices

MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
}
GZIP_MEDIA_TYPE = "application/gzip"
# What is formatted at once: views of JSON are many times its size.
PIECE_BYTES = 1024 * 1024
# Pieces a formatter has been given and has not handed back: one in work, and one for when it is done.
_PIECES_AHEAD = 2
_FORMATTER = (sys.executable, "-P", "-m", "audit_service.formatter")

Rows = Sequence[Sequence[Any]]


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
    start. Raises UnavailableError, also in the middle. Close it when it is not read to its end.

    `report` is told of entries as they go into the file: how many more.
    """
    arguments: dict[str, Any] = {"format_": format_, "link_templates": link_templates, "gzip": gzip}
    async with translated():
        async with bound(engine, log_id) as connection:
            size = (await fetch_sound_head(connection, log_id)).size
        async with aclosing(_ahead(stream_slices(engine, log_id, selection, size=size))) as read:
            beginning = [rows async for rows in _first(read, 2)]
            is_short = len(beginning) < 2
            slices = _reported(_chain(beginning, read), report)
            formatted = _format_here if is_short else _format_apart
            async with aclosing(formatted(arguments, slices, size)) as pieces:
                async for piece in pieces:
                    yield piece


async def _ahead(slices: AsyncGenerator[Rows]) -> AsyncGenerator[Rows]:
    """The same slices; while one is worked on, the next is read."""
    coming = asyncio.ensure_future(anext(slices, None))
    try:
        while (rows := await coming) is not None:
            coming = asyncio.ensure_future(anext(slices, None))
            yield rows
            del rows  # or it would live on while the next is waited for
    finally:
        coming.cancel()
        with suppress(asyncio.CancelledError, Exception):  # whatever it is, nobody waits for it any more
            await coming
        await slices.aclose()


async def _first(slices: AsyncGenerator[Rows], count: int) -> AsyncIterator[Rows]:
    for _ in range(count):
        rows = await anext(slices, None)
        if rows is None:
            return
        yield rows


async def _chain(beginning: list[Rows], slices: AsyncIterator[Rows]) -> AsyncIterator[Rows]:
    while beginning:
        yield beginning.pop(0)
    async for rows in slices:
        yield rows


async def _reported(slices: AsyncIterator[Rows], report: Callable[[int], None] | None) -> AsyncIterator[Rows]:
    async for rows in slices:
        yield rows
        if report is not None:
            report(len(rows))


def _groups(rows: Rows) -> Iterator[list[tuple[Any, ...]]]:
    """The rows in groups of about PIECE_BYTES: one when they are small, a row by itself when it is large."""
    group: list[tuple[Any, ...]] = []
    size_bytes = 0
    for row in rows:
        if group and size_bytes + row[SIZE] > PIECE_BYTES:
            yield group
            group, size_bytes = [], 0
        group.append(tuple(row))
        size_bytes += row[SIZE]
    yield group


async def _format_here(arguments: Any, slices: AsyncIterator[Rows], log_size: int) -> AsyncGenerator[bytes]:
    """The file of few entries."""
    writer = Writer(**arguments)
    yield writer.begin()
    async for rows in slices:
        for group in _groups(rows):
            yield writer.write(group)
    yield writer.end(log_size)


async def _format_apart(arguments: Any, slices: AsyncIterator[Rows], log_size: int) -> AsyncGenerator[bytes]:
    """The file, formatted by a child process that has work waiting whenever it hands back a piece."""
    async with _formatter(arguments) as formatter:
        waiting = 1  # it begins by itself
        async for rows in slices:
            for group in _groups(rows):
                formatter.send(group)
                waiting += 1
                if waiting > _PIECES_AHEAD:
                    yield await formatter.receive()
                    waiting -= 1
        formatter.send(log_size)
        for _ in range(waiting + 1):
            yield await formatter.receive()


class _Formatter:
    """A running formatter."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        self._stdin, self._stdout = process.stdin, process.stdout

    def send(self, value: Any) -> None:
        """Give it something to do. It waits in memory, so never much at a time."""
        self._stdin.write(message(value))

    async def receive(self) -> bytes:
        """What it made of the oldest thing it was given. Raises UnavailableError when it is gone."""
        try:
            (size,) = LENGTH.unpack(await self._stdout.readexactly(LENGTH.size))
            return await self._stdout.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            raise UnavailableError("the export was broken off: its formatter has ended") from None


@asynccontextmanager
async def _formatter(arguments: Any) -> AsyncIterator[_Formatter]:
    """Start a formatter, and end it, whatever it is doing. Raises OSError."""
    process = await asyncio.create_subprocess_exec(*_FORMATTER, stdin=PIPE, stdout=PIPE, limit=PIECE_BYTES)
    formatter = _Formatter(process)
    try:
        formatter.send(arguments)
        yield formatter
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()  # takes what was still in the pipes, and waits for the end
