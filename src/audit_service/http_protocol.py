"""The HTTP side of a worker: uvicorn's httptools protocol with the limits it lacks (decision 0003).

httptools is the fast parser, but takes a header of any size and a request without Host, and waits for ever for a client that sends
nothing or a byte now and then. Here: headers up to HEADER_LIMIT_BYTES (431), exactly one Host in HTTP/1.1 (400), and a watch on each
connection that cuts one which is expected to send and does not keep up (408). The watch looks once every WATCH_SECONDS, so it costs
a request nothing; a sender that we keep waiting ourselves is never blamed.
"""

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_LIMIT_BYTES = 16 * 1024
# A client that should send must manage this many bytes between two looks.
WATCH_SECONDS = 10.0
MINIMUM_BYTES = 1024

_PROBLEM = (
    b'HTTP/1.1 %d %s\r\ncontent-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n'
    b'%s'
)  # fmt: skip


class GuardedProtocol(HttpToolsProtocol):
    """HttpToolsProtocol with limits on headers and on slowness."""

    watch_seconds = WATCH_SECONDS
    _received_bytes = 0
    _seen_bytes = 0
    _header_bytes = 0
    _in_headers = False
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the watch; a connection that never sends anything is cut as well."""
        super().connection_made(transport)
        self._in_headers = True
        self._watch = self.loop.call_later(self.watch_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the watch."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count, and refuse headers that grow too long, before they are parsed."""
        self._received_bytes += len(data)
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > HEADER_LIMIT_BYTES and b"\r\n\r\n" not in data[:HEADER_LIMIT_BYTES]:
                self._refuse(431, b"Request Header Fields Too Large", b"the headers are too long")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request line arrives."""
        self._in_headers = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The headers are whole: check them before the application sees them."""
        self._in_headers = False
        self._header_bytes = 0
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            # Ends in data_received, which answers 400 and closes.
            raise httptools.HttpParserError("a request has exactly one Host")
        if sum(len(name) + len(value) for name, value in self.headers) > HEADER_LIMIT_BYTES:
            raise httptools.HttpParserError("the headers are too long")
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """As a problem document, like every other error."""
        del msg
        self._refuse(400, b"Bad Request", b"this is not a well-formed HTTP request")

    def _look(self) -> None:
        """Cut the connection if the client owes us bytes and sent too few since the last look."""
        if self.transport.is_closing():
            return
        moved = self._received_bytes - self._seen_bytes
        self._seen_bytes = self._received_bytes
        if self._owes() and moved < MINIMUM_BYTES:
            self._refuse(408, b"Request Timeout", b"the request arrives too slowly")
            return
        self._watch = self.loop.call_later(self.watch_seconds, self._look)

    def _owes(self) -> bool:
        """Whether it is the client's turn: in the middle of headers, or of a body that we are reading."""
        if self.flow.read_paused:
            return False
        if self.cycle is None:
            return True
        if self.cycle.response_complete:
            return self._in_headers  # idle between requests is the keep-alive timer's business
        return bool(self.cycle.more_body) and not self.pipeline

    def _refuse(self, status: int, reason: bytes, detail: bytes) -> None:
        """A problem document when no answer has begun, and the end of the connection in any case."""
        begun = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not begun and not self.transport.is_closing():
            body = b'{"type":"about:blank","title":"%s","status":%d,"detail":"%s"}' % (reason, status, detail)
            self.transport.write(_PROBLEM % (status, reason, len(body), body))
        self.transport.close()
