"""A file that is made while it is sent, from rows that are read meanwhile: what exports and evidence have in common.

A *writer* (`formatter.WRITERS`) makes the file, and a *step* is one call of it: the name of a method, and its arguments; or, as READ, a
part of the log that is still to be read. A file of few steps is made here; a longer one by a child process (`formatter`), which reads by
itself what is still to be read, so that the worker goes on answering. Either way no step is asked for before the pieces of an earlier one
were taken, and no more pieces wait than fit between the processes, so whoever takes nothing stops the reading.
"""

import asyncio
import pickle
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar

from audit_service.errors import ProofError, TreeDamagedError, UnavailableError
from audit_service.formatter import FRAME, PIECE_BYTES, WRITERS, Kind, groups_of, message, rows_in
from audit_service.idle_process import IdleProcess, idle_process
from audit_service.store.reading import Rows, Session
from audit_service.store.slices import SIZE

FORMATTER = (sys.executable, "-P", "-m", "audit_service.formatter")
# Steps a formatter has been given and has not done: one in work, and one for when it is done.
_STEPS_AHEAD = 2
# A file of so many steps is not worth a process: entries, control entries, the end.
STEPS_HERE = 3

Some = TypeVar("Some")
Step = tuple[Any, ...]  # the name of a writer's method, and its arguments


async def stream_file(
    kind: str,
    arguments: Mapping[str, Any],
    steps: AsyncGenerator[Step],
    *,
    session: Callable[[], Session | None] = lambda: None,
    report: Callable[[int], None] | None = None,
) -> AsyncGenerator[bytes]:
    """The pieces of the file that the writer of this kind makes of the steps. Close it when it is not read to its end. Steps that READ
    need the `session` that is made for them, and at least STEPS_HERE others before them. `report` is told of rows as they go into the
    file: how many more.

    Raises UnavailableError when the formatter has ended or cannot read, TreeDamagedError when the log does not bear out what should be
    written, and whatever the steps raise.
    """
    async with aclosing(steps):
        beginning = [step async for step in _first(steps, STEPS_HERE + 1)]
        if len(beginning) <= STEPS_HERE:
            pieces = _make_here(kind, arguments, beginning)
        else:
            pieces = _make_apart((kind, dict(arguments), session()), _chain(beginning, steps))
        async with aclosing(pieces):
            async for piece, rows in pieces:
                if report is not None and rows:
                    report(rows)
                yield piece


async def read_ahead(slices: AsyncGenerator[Some]) -> AsyncGenerator[Some]:
    """The same slices; while one is worked on, the next is read."""
    coming = asyncio.ensure_future(anext(slices, None))
    try:
        while (some := await coming) is not None:
            coming = asyncio.ensure_future(anext(slices, None))
            yield some
            del some  # or it would live on while the next is waited for
    finally:
        coming.cancel()
        with suppress(asyncio.CancelledError, Exception):  # whatever it is, nobody waits for it any more
            await coming
        await slices.aclose()


def grouped(rows: Rows) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of `store.slices` in groups for one step each."""
    return groups_of(rows, SIZE)


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


async def _make_here(
    kind: str, arguments: Mapping[str, Any], steps: Sequence[Step]
) -> AsyncGenerator[tuple[bytes, int]]:
    """A file of few steps, made whole before any of it goes out: what is wrong with it shows before the answer has begun."""
    writer = WRITERS[kind](**arguments)
    pieces = [(writer.begin(), 0)]
    try:
        for method, *values in steps:
            pieces.append((getattr(writer, method)(*values), rows_in(method, values)))
    except ProofError as error:
        raise TreeDamagedError(error.detail) from None
    for piece in pieces:
        yield piece


async def _make_apart(opening: tuple[Any, ...], steps: AsyncIterator[Step]) -> AsyncGenerator[tuple[bytes, int]]:
    """The file, made by a child process that has a step waiting whenever it has done one."""
    async with _formatter(opening) as formatter:
        waiting = 1  # it begins by itself
        async for step in steps:
            formatter.send(step)
            waiting += 1
            while waiting > _STEPS_AHEAD:
                async for piece in formatter.receive():
                    yield piece
                waiting -= 1
        for _ in range(waiting):
            async for piece in formatter.receive():
                yield piece


class _Formatter:
    """A running formatter."""

    def __init__(self, process: IdleProcess) -> None:
        self._process = process

    def send(self, value: Any) -> None:
        """Give it something to do. It waits in memory, so never much at a time."""
        self._process.stdin.write(message(value))

    async def receive(self) -> AsyncIterator[tuple[bytes, int]]:
        """What it made of the oldest step it was given: pieces of the file, each with the number of rows in it. Raises UnavailableError
        when it is gone, and what it raised."""
        while True:
            try:
                kind, rows, size = FRAME.unpack(await self._process.stdout.readexactly(FRAME.size))
                answer = await self._process.stdout.readexactly(size)
            except (asyncio.IncompleteReadError, OSError):
                raise UnavailableError("the file was broken off: its formatter has ended") from None
            if kind == Kind.FAILED:
                raise pickle.loads(answer)  # noqa: S301 - from the process that this one started
            if kind == Kind.DONE:
                return
            yield answer, rows


@asynccontextmanager
async def _formatter(opening: tuple[Any, ...]) -> AsyncIterator[_Formatter]:
    """Start a formatter, and end it, whatever it is doing. Raises OSError."""
    async with idle_process(FORMATTER, ahead_bytes=PIECE_BYTES) as process:
        formatter = _Formatter(process)
        formatter.send(opening)
        yield formatter
