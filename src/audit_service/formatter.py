"""The formatter of an export or of evidence: a child process that turns rows into the bytes of a file.

    python -m audit_service.formatter

Formatting is most of the work of an export, and would keep a worker from answering; here it gets a core of its own, and on a busy machine
whatever the others leave (`idle_process`). Rows come on stdin and pieces of the file go to stdout, as frames: eight bytes of length, and
so many bytes. The first frame that comes says what writes, one of WRITERS, and its arguments; each further one names a method of it, with
arguments. Each is answered with a piece, or, when the log does not bear out what should be written, with the reason: then FAILED is added
to the length. It ends with stdin: it does not outlive whoever started it.
"""

import gc
import os
import pickle
import signal
import struct
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

from audit_service.core.bundle import Bundle
from audit_service.core.writer import Writer
from audit_service.errors import ProofError

WRITERS: dict[str, type[Any]] = {"export": Writer, "evidence": Bundle}
LENGTH = struct.Struct(">Q")
FAILED = 1 << 63


def frame(data: bytes) -> bytes:
    """`data` with its length in front."""
    return LENGTH.pack(len(data)) + data


def message(value: Any) -> bytes:
    """A frame for the formatter. Pickled: times and bytes as they are, at a microsecond a row; both ends are the same program."""
    return frame(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


def main() -> None:
    """Format until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for whoever started it
    gc.disable()  # formatting leaves no cycles, and looking for them takes a tenth of its time
    source, target = sys.stdin.buffer, sys.stdout.buffer
    opening = _read(source)
    if opening is None:
        return
    kind, arguments = opening
    writer = WRITERS[kind](**arguments)
    step: Sequence[Any] | None = ("begin",)
    try:
        while step is not None:
            method, *values = step
            target.write(frame(getattr(writer, method)(*values)))
            target.flush()
            step = _read(source)
    except ProofError as error:
        reason = error.detail.encode()
        target.write(LENGTH.pack(FAILED | len(reason)) + reason)
        target.flush()
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), target.fileno()
        )  # nobody reads: nothing to complain about at the exit


def _read(source: BinaryIO) -> Any:
    """The next message; None at the end."""
    header = source.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(header)
    data = source.read(size)
    return pickle.loads(data) if len(data) == size else None  # noqa: S301 - from the process that started this one


if __name__ == "__main__":
    main()
