"""The formatter of an export or of evidence: a child process that turns rows into the bytes of a file.

    python -m audit_service.formatter

Formatting is most of the work of an export, and would keep a worker from answering; here it gets a core of its own, and on a busy machine
whatever the others leave (`idle_process`). Reading is most of the rest: rows come on stdin, or it reads them by itself, with a session it
was given there; never on the command line, for the login is in it.

What comes are messages, pickles with their length in front: first what writes, one of WRITERS, its arguments, and the session or None; then
steps. A step is the name of a method of the writer, and its arguments; or READ, and a part of the log, of which rows are written. What
goes to stdout are frames: pieces of the file, each with the number of rows in it, and for each step at last an empty one, DONE. FAILED
instead holds a pickle of the error that ended it all. It ends with stdin, at the latest when what it reads has come: it does not
outlive whoever started it.
"""

import gc
import os
import pickle
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, BinaryIO

from audit_service.core.bundle import Bundle
from audit_service.core.writer import Writer
from audit_service.errors import ProofError, TreeDamagedError, UnavailableError

WRITERS: dict[str, type[Any]] = {"export": Writer, "evidence": Bundle}
READ = "read"
# What is formatted at once: views of JSON are many times its size.
PIECE_BYTES = 1024 * 1024
LENGTH = struct.Struct(">Q")
FRAME = struct.Struct(">BIQ")  # its kind, how many rows are in it, its length in bytes
# Of the writers' methods, those whose first argument are entries that were asked for.
_COUNTED = ("write", "entries")
# Nobody else waits for this process, so its slices are larger than a worker's: fewer statements to plan.
_SLICE_ENTRIES = 1000


class Kind(IntEnum):
    """What a frame is."""

    PIECE = 0
    DONE = 1
    FAILED = 2


def frame(data: bytes) -> bytes:
    """`data` with its length in front."""
    return LENGTH.pack(len(data)) + data


def message(value: Any) -> bytes:
    """A frame for a child process. Pickled: times and bytes as they are, at a microsecond a row; both ends are the same program."""
    return frame(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


def rows_in(method: str, arguments: Sequence[Any]) -> int:
    """How many entries that were asked for a step brings."""
    return len(arguments[0]) if method in _COUNTED else 0


def groups_of(rows: Sequence[Sequence[Any]], size_at: int) -> Iterator[list[tuple[Any, ...]]]:
    """The rows in groups of about PIECE_BYTES: one when they are small, a row by itself when it is large. Their sizes are at `size_at`."""
    group: list[tuple[Any, ...]] = []
    size_bytes = 0
    for row in rows:
        if group and size_bytes + row[size_at] > PIECE_BYTES:
            yield group
            group, size_bytes = [], 0
        group.append(tuple(row))
        size_bytes += row[size_at]
    yield group


def main() -> None:
    """Format until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for whoever started it
    gc.disable()  # formatting leaves no cycles, and looking for them takes a tenth of its time
    source, target = sys.stdin.buffer, sys.stdout.buffer
    opening = _receive(source)
    if opening is None:
        return
    try:
        for kind, rows, data in _made(source, *opening):
            target.write(FRAME.pack(kind, rows, len(data)) + data)
            target.flush()
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), target.fileno()
        )  # nobody reads: nothing to complain about at the exit


def _made(source: BinaryIO, kind: str, arguments: dict[str, Any], session: Any) -> Iterator[tuple[Kind, int, bytes]]:
    """The frames, as long as there are steps. The session is opened first: that it cannot be shows before the file begins."""
    writer = WRITERS[kind](**arguments)
    step: Sequence[Any] | None = ("begin",)
    try:
        reader = None if session is None else _open_reader(session)
        while step is not None:
            method, *values = step
            if reader is not None and method == READ:
                for rows in reader.read(*values, _SLICE_ENTRIES):
                    for group in groups_of(rows, session.ranges.size_at):
                        yield Kind.PIECE, len(group), writer.write(group)
            else:
                yield Kind.PIECE, rows_in(method, values), getattr(writer, method)(*values)
            yield Kind.DONE, 0, b""
            step = _receive(source)
    except ProofError as error:
        yield Kind.FAILED, 0, pickle.dumps(TreeDamagedError(error.detail))
    except UnavailableError as error:
        yield Kind.FAILED, 0, pickle.dumps(error)


def _open_reader(session: Any) -> Any:
    from audit_service.store.reading import open_reader  # noqa: PLC0415 - the driver is 6 MB that only some files need

    return open_reader(session)


def _receive(source: BinaryIO) -> Any:
    """The next message; None at the end."""
    header = source.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(header)
    data = source.read(size)
    return pickle.loads(data) if len(data) == size else None  # noqa: S301 - from the process that started this one


if __name__ == "__main__":
    main()
