"""Results that wait for a client which sends without reading: a queue of bytes, in memory at first and on disk when it grows.

The one who processes the body never waits for the one who sends the answer, so such a client cannot stop its own stream.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

MEMORY_BYTES = 1024 * 1024
PIECE_BYTES = 64 * 1024


class ResultSpool:
    """Written by one task, read by another. Memory is bounded; the disk holds the rest until `close`."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 - closed by __exit__
        self._written = 0
        self._read = 0
        self._ended = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Add to the end."""
        self._file.seek(self._written)
        self._file.write(data)
        self._written += len(data)
        self._changed.set()

    def end(self, error: BaseException | None = None) -> None:
        """Say that nothing more comes; `error` is raised to the reader after what was written."""
        self._ended, self._error = True, error
        self._changed.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """What was written, in pieces, until the end."""
        while True:
            if self._read < self._written:
                self._file.seek(self._read)
                piece = self._file.read(min(PIECE_BYTES, self._written - self._read))
                self._read += len(piece)
                self._rewind()
                yield piece
            elif self._ended:
                if self._error is not None:
                    raise self._error
                return
            else:
                self._changed.clear()
                await self._changed.wait()

    def _rewind(self) -> None:
        """Start over when everything was read, so that a client that keeps up never touches the disk."""
        if self._read == self._written:
            self._file.seek(0)
            self._file.truncate()
            self._read = self._written = 0
