"""A file that is made while it is sent, from rows that are read meanwhile: what exports and evidence have in common.

A *writer* (`formatter.WRITERS`) makes the file, and a *step* is one call of it: the name of a method, and its arguments. A file of few
steps is made here; a longer one by a child process (`formatter`), so that the worker goes on answering. Either way no step is asked for
before the piece of an earlier one was taken, so whoever takes nothing stops the reading.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from audit_service.errors import ProofError, TreeDamagedError, UnavailableError
from audit_service.formatter import FAILED, LENGTH, WRITERS, message
from audit_service.idle_process import IdleProcess, idle_process
from audit_service.store.slices import SIZE

# What is formatted at once: views of JSON are many times its size.
PIECE_BYTES = 1024 * 1024
FORMATTER = (sys.executable, "-P", "-m", "audit_service.formatter")
# Pieces a formatter has been given and has not handed back: one in work, and one for when it is done.
_PIECES_AHEAD = 2
# A file of so many steps is not worth a process: entries, control entries, the end.
_STEPS_HERE = 3

Rows = Sequence[Sequence[Any]]
Step = tuple[Any, ...]  # the name of a writer's method, and its arguments


async def stream_file(kind: str, arguments: Mapping[str, Any], steps: AsyncGenerator[Step]) -> AsyncGenerator[bytes]:
    """The pieces of the file that the writer of this kind makes of the steps. Close it when it is not read to its end.

    Raises UnavailableError when the formatter has ended, TreeDamagedError when the log does not bear out what should be written, and
    whatever the steps raise.
    """
    async with aclosing(steps):
        beginning = [step async for step in _first(steps, _STEPS_HERE + 1)]
        made = _make_here if len(beginning) <= _STEPS_HERE else _make_apart
        async with aclosing(made(kind, arguments, _chain(beginning, steps))) as pieces:
            async for piece in pieces:
                yield piece


async def read_ahead(slices: AsyncGenerator[Rows]) -> AsyncGenerator[Rows]:
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


def grouped(rows: Rows) -> Iterator[list[tuple[Any, ...]]]:
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


async def _first(steps: AsyncGenerator[Step], count: int) -> AsyncIterator[Step]:
    for _ in range(count):
        step = await anext(steps, None)
        if step is None:
            return
        yield step


async def _chain(beginning: list[Step], steps: AsyncIterator[Step]) -> AsyncIterator[Step]:
    while beginning:
        yield beginning.pop(0)
    async for step in steps:
        yield step


async def _make_here(kind: str, arguments: Mapping[str, Any], steps: AsyncIterator[Step]) -> AsyncGenerator[bytes]:
    """A file of few steps, made whole before any of it goes out: what is wrong with it shows before the answer has begun."""
    writer = WRITERS[kind](**arguments)
    pieces = [writer.begin()]
    try:
        async for method, *values in steps:
            pieces.append(getattr(writer, method)(*values))
    except ProofError as error:
        raise TreeDamagedError(error.detail) from None
    for piece in pieces:
        yield piece


async def _make_apart(kind: str, arguments: Mapping[str, Any], steps: AsyncIterator[Step]) -> AsyncGenerator[bytes]:
    """The file, made by a child process that has work waiting whenever it hands back a piece."""
    async with _formatter(kind, arguments) as formatter:
        waiting = 1  # it begins by itself
        async for step in steps:
            formatter.send(step)
            waiting += 1
            if waiting > _PIECES_AHEAD:
                yield await formatter.receive()
                waiting -= 1
        for _ in range(waiting):
            yield await formatter.receive()


class _Formatter:
    """A running formatter."""

    def __init__(self, process: IdleProcess) -> None:
        self._process = process

    def send(self, value: Any) -> None:
        """Give it something to do. It waits in memory, so never much at a time."""
        self._process.stdin.write(message(value))

    async def receive(self) -> bytes:
        """What it made of the oldest thing it was given. Raises UnavailableError when it is gone, TreeDamagedError when it refused."""
        try:
            (size,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
            answer = await self._process.stdout.readexactly(size & ~FAILED)
        except (asyncio.IncompleteReadError, OSError):
            raise UnavailableError("the file was broken off: its formatter has ended") from None
        if size & FAILED:
            raise TreeDamagedError(answer.decode())
        return answer


@asynccontextmanager
async def _formatter(kind: str, arguments: Mapping[str, Any]) -> AsyncIterator[_Formatter]:
    """Start a formatter, and end it, whatever it is doing. Raises OSError."""
    async with idle_process(FORMATTER, ahead_bytes=PIECE_BYTES) as process:
        formatter = _Formatter(process)
        formatter.send((kind, dict(arguments)))
        yield formatter
