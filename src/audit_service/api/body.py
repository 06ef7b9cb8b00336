"""Reading a request's body: counted as it arrives, inflated under a cap, in one piece or as lines."""

import asyncio
import zlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from audit_service.errors import Fault, InputError, MalformedError, TooLargeError, UnsupportedMediaError

ENCODINGS = ("identity", "gzip")
LINES_A_SLICE = 200
# A slice ends with the line that reaches this, so that a few long lines do not wait in memory for many more.
SLICE_BYTES = 1024 * 1024
# Lines that have come go on when no more come for this long: their sender may be waiting for their results.
PAUSE_SECONDS = 0.01
# A gzip body may be several files one after another (RFC 1952 section 2.2). Each costs far more than its 20 bytes.
GZIP_MEMBERS_LIMIT = 1000
_INFLATE_BYTES = 256 * 1024
_GZIP = 16 + zlib.MAX_WBITS


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body, inflated when it is gzip. The limit is on what is read and on what it inflates to, whatever Content-Length
    says. Raises TooLargeError, MalformedError for broken gzip, UnsupportedMediaError."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > limit_bytes:
        raise too_large(limit_bytes)
    if _encoding(request) != "identity":
        return b"".join([piece async for piece in decoded(request, limit_bytes)])
    # As `decoded` does it, without its chain of generators: nearly every body comes plain and in one piece.
    pieces, size, more = [], 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit_bytes:
            raise too_large(limit_bytes)
        pieces.append(piece)
        more = message.get("more_body", False)
    return b"".join(pieces)


def _encoding(request: Request) -> str:
    encoding = request.headers.get("content-encoding", "").strip().lower() or "identity"
    if encoding not in ENCODINGS:
        raise UnsupportedMediaError(f"the body's Content-Encoding must be one of {', '.join(ENCODINGS)}")
    return encoding


def decoded(request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
    """The body's pieces with its Content-Encoding undone. A piece is never much larger than what arrived or 256 KiB."""
    arriving = _limited(request.stream(), limit_bytes)
    if _encoding(request) == "identity":
        return arriving
    # Both sides are counted: a bomb is small on the wire, and empty blocks without end inflate to nothing.
    return _limited(_inflated(arriving), limit_bytes)


async def _limited(pieces: AsyncIterator[bytes], limit_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > limit_bytes:
            raise too_large(limit_bytes)
        yield piece


async def _inflated(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    inflater, members = zlib.decompressobj(wbits=_GZIP), 1
    try:
        async for chunk in chunks:
            # Piece by piece, so that a bomb meets the caller's limit before it meets our memory.
            while chunk:
                if inflater.eof:
                    members += 1
                    if members > GZIP_MEMBERS_LIMIT:
                        raise MalformedError(f"the gzip body has more than {GZIP_MEMBERS_LIMIT} members")
                    inflater = zlib.decompressobj(wbits=_GZIP)
                yield inflater.decompress(chunk, _INFLATE_BYTES)
                chunk = inflater.unused_data or inflater.unconsumed_tail  # noqa: PLW2901 - what is left of this chunk
        yield inflater.flush()
    except zlib.error:
        raise MalformedError("the body is not well-formed gzip") from None
    if not inflater.eof:
        raise MalformedError("the gzip body is cut")


def too_large(limit_bytes: int) -> TooLargeError:
    """The error for a body over its limit."""
    return TooLargeError(f"the body is larger than {limit_bytes} bytes", [Fault("the whole body", pointer="")])


def require_text(data: bytes) -> None:
    """Refuse an empty body with a sentence a beginner understands."""
    if not data.strip():
        raise MalformedError("the body is empty; send one JSON event")


async def line_slices(request: Request, line_limit: int, body_limit: int) -> AsyncIterator[list[bytes | InputError]]:
    """The non-blank lines of a body in slices, as they arrive, holding one slice and one line at a time. A line over its limit is
    an error in its place; the rest goes on."""
    pending, lines, skipping = bytearray(), list[bytes | InputError](), False
    async for piece in _with_pauses(decoded(request, body_limit)):
        *whole, rest = piece.split(b"\n")
        for line in whole:
            pending += line
            if not skipping:
                _add(lines, bytes(pending), line_limit)
            pending.clear()
            skipping = False
        pending += rest
        if len(pending) > line_limit:
            if not skipping:
                lines.append(too_large(line_limit))
            pending.clear()
            skipping = True
        while len(lines) >= LINES_A_SLICE:
            yield lines[:LINES_A_SLICE]
            del lines[:LINES_A_SLICE]
        if lines and (not piece or _size_bytes(lines) >= SLICE_BYTES):
            yield lines
            lines = []
    if not skipping:
        _add(lines, bytes(pending), line_limit)
    if lines:
        yield lines


async def _with_pauses(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces that are not empty, and an empty one where the sender pauses."""
    while True:
        coming = asyncio.ensure_future(anext(pieces, None))
        try:
            done, _ = await asyncio.wait({coming}, timeout=PAUSE_SECONDS)
            if not done:
                yield b""
            piece = await coming
        finally:
            coming.cancel()
        if piece is None:
            return
        if piece:
            yield piece


def _size_bytes(lines: list[bytes | InputError]) -> int:
    return sum(len(line) for line in lines if isinstance(line, bytes))


def _add(lines: list[bytes | InputError], line: bytes, limit: int) -> None:
    if len(line) > limit:
        lines.append(too_large(limit))
    elif line.strip():
        lines.append(line)
