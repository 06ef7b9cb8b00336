"""Reading a request's body: counted as it arrives, inflated under a cap, in one piece or as lines."""

import zlib
from collections.abc import AsyncIterator

from starlette.requests import Request

from audit_service.errors import Fault, InputError, MalformedError, TooLargeError, UnsupportedMediaError

ENCODINGS = ("identity", "gzip")
LINES_A_SLICE = 200
_INFLATE_BYTES = 256 * 1024


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body, inflated when it is gzip. The limit is on what is read and on what it inflates to, whatever Content-Length
    says. Raises TooLargeError, MalformedError for broken gzip, UnsupportedMediaError."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > limit_bytes:
        raise too_large(limit_bytes)
    return b"".join([piece async for piece in decoded(request, limit_bytes)])


def _encoding(request: Request) -> str:
    encoding = request.headers.get("content-encoding", "").strip().lower() or "identity"
    if encoding not in ENCODINGS:
        raise UnsupportedMediaError(f"the body's Content-Encoding must be one of {', '.join(ENCODINGS)}")
    return encoding


async def decoded(request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
    """The body's pieces with its Content-Encoding undone. A piece is never much larger than what arrived or 256 KiB."""
    pieces = request.stream() if _encoding(request) == "identity" else _inflated(request)
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > limit_bytes:
            raise too_large(limit_bytes)
        yield piece


async def _inflated(request: Request) -> AsyncIterator[bytes]:
    inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        async for chunk in request.stream():
            # Piece by piece, so that a bomb meets the caller's limit before it meets our memory.
            while chunk:
                yield inflater.decompress(chunk, _INFLATE_BYTES)
                chunk = inflater.unconsumed_tail  # noqa: PLW2901 - what is left of this chunk
                if inflater.eof:
                    if inflater.unused_data:
                        raise MalformedError("the gzip body has something after its end")
                    break
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
    """The non-blank lines of a body in slices, holding one slice and one line at a time. A line over its limit is an error in its
    place; the rest goes on."""
    pending, lines, skipping = bytearray(), list[bytes | InputError](), False
    async for piece in decoded(request, body_limit):
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
    if not skipping:
        _add(lines, bytes(pending), line_limit)
    if lines:
        yield lines


def _add(lines: list[bytes | InputError], line: bytes, limit: int) -> None:
    if len(line) > limit:
        lines.append(too_large(limit))
    elif line.strip():
        lines.append(line)
