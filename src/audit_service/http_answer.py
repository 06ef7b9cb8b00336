"""The HTTP side of an answer: uvicorn's, but with head and body in one write, and each header's line made once.

uvicorn writes the head when it is given, and the body after it: two calls of the system for an answer of a few hundred bytes, and two
searches in every header of it. ASGI lets a server hold the head back until the first piece of the body. What is not the common case (a
stream, HEAD, a connection that ends, a client that does not take what we send) is left to uvicorn.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uvicorn._types import ASGISendEvent, HTTPResponseBodyEvent, HTTPResponseStartEvent

# Their meaning is uvicorn's business.
_FRAMING = frozenset({b"connection", b"transfer-encoding"})
_BODILESS = frozenset({204, 304})


class Answer(RequestResponseCycle):
    """A RequestResponseCycle that writes a whole answer at once."""

    _head: "HTTPResponseStartEvent | None" = None

    async def send(self, message: "ASGISendEvent") -> None:
        """As uvicorn's; but the head waits for the first piece of the body."""
        if message["type"] == "http.response.start" and not self.response_started:
            self._head = message
            return
        head, self._head = self._head, None
        if head is not None:
            if message["type"] == "http.response.body" and self._is_plain(head, message):
                self._write(head, message.get("body", b""))
                return
            await super().send(head)
        await super().send(message)

    def _is_plain(self, head: "HTTPResponseStartEvent", message: "HTTPResponseBodyEvent") -> bool:
        """Whether this is a whole answer on a connection that goes on, of the length that its head says."""
        return (
            not message.get("more_body", False)
            and self.keep_alive
            and not self.disconnected
            and not self.flow.write_paused
            and not self.access_log
            and self.scope["method"] != "HEAD"
            and head["status"] not in _BODILESS
            and _says(head.get("headers", ()), len(message.get("body", b"")))
        )

    def _write(self, head: "HTTPResponseStartEvent", body: bytes) -> None:
        lines = [STATUS_LINE[head["status"]]]
        lines += [_line(name, value) for name, value in (*self.default_headers, *head.get("headers", ()))]
        lines += b"\r\n", body
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(b"".join(lines))
        self.message_event.set()
        self.on_response()


def _says(headers: "Iterable[tuple[bytes, bytes]]", length: int) -> bool:
    """Whether the headers give this length, once, and leave the framing alone."""
    found = 0
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"content-length":
            if value != b"%d" % length:
                return False
            found += 1
        elif lowered in _FRAMING:
            return False
    return found == 1


@lru_cache(maxsize=4096)  # most headers of most answers are the same
def _line(name: bytes, value: bytes) -> bytes:
    """A header as it is sent. Raises RuntimeError, as uvicorn does, for what would be more than one header."""
    if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        raise RuntimeError("Invalid HTTP header.")
    return name.lower() + b": " + value + b"\r\n"
