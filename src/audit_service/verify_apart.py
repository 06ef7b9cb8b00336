"""A long verification over HTTP, in a child process: it is all arithmetic, and would keep a worker from answering.

    python -m audit_service.verify_apart

The child gets what to verify on stdin, as a pickle, with the serving role's URL in it; never on the command line. It works in what
processor time the others leave, with connections of its own, and writes frames to stdout: an empty one for each step, and a pickle of the
report or of the error that ended it. It ends with its stdin, and so with whoever started it. A short verification is not worth a process.
"""

import asyncio
import gc
import os
import pickle
import signal
import sys
import threading
from collections.abc import AsyncGenerator
from typing import Any

from audit_service.errors import AuditError, UnavailableError
from audit_service.formatter import LENGTH, frame, message
from audit_service.idle_process import idle_process
from audit_service.store.engine import open_database
from audit_service.verify import Progress, Report, verify

# About a quarter of a second of checking, in parts of a millisecond; a process takes longer to begin.
ENTRIES_HERE = 2000
CHILD = (sys.executable, "-P", "-m", "audit_service.verify_apart")
# One batch is read while another is checked.
_CONNECTIONS = 2


async def verify_apart(
    url: str, statement_timeout_seconds: int, log_id: int, arguments: dict[str, Any]
) -> AsyncGenerator[Progress | Report]:
    """`verify(log_id, **arguments)` in a process of its own: progress without figures, and the report last. Close it when it is not
    read to its end. Raises what `verify` raises, and UnavailableError when the process ends before it has reported."""
    async with idle_process(CHILD) as process:
        process.stdin.write(message((url, statement_timeout_seconds, log_id, arguments)))
        while True:
            try:
                (size,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
                data = await process.stdout.readexactly(size)
            except (asyncio.IncompleteReadError, OSError):
                raise UnavailableError("the verification was broken off: its process has ended") from None
            if not data:
                yield Progress(0, 0)
                continue
            found = pickle.loads(data)  # noqa: S301 - from the process that this one started
            if isinstance(found, AuditError):
                raise found
            yield found
            return


def main() -> None:
    """Verify what stdin says."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for whoever started it
    source = sys.stdin.buffer
    header = source.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return
    (size,) = LENGTH.unpack(header)
    data = source.read(size)
    if len(data) < size:
        return
    threading.Thread(target=_end_with_stdin, name="lifeline", daemon=True).start()
    gc.freeze()
    asyncio.run(_verify(*pickle.loads(data)))  # noqa: S301 - from the process that started this one


async def _verify(url: str, statement_timeout_seconds: int, log_id: int, arguments: dict[str, Any]) -> None:
    database = open_database(url, pool_connections=_CONNECTIONS, statement_timeout_seconds=statement_timeout_seconds)
    try:
        async for step in verify(database.reads, log_id, **arguments):
            _write(b"" if isinstance(step, Progress) else pickle.dumps(step))
    except AuditError as error:
        _write(pickle.dumps(error))
    finally:
        await database.dispose()


def _write(data: bytes) -> None:
    """Blocks while nobody reads: whoever takes nothing stops the verification."""
    sys.stdout.buffer.write(frame(data))
    sys.stdout.buffer.flush()


def _end_with_stdin() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(0)


if __name__ == "__main__":
    main()
