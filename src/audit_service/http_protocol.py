"""The HTTP side of a worker: uvicorn's httptools protocol with the limits it lacks (decision 0003).

httptools is the fast parser, but takes a header of any size and a request without Host, and waits for ever for a client that sends
nothing or a byte now and then. Here: request line and headers up to HEADER_LIMIT_BYTES (431), exactly one Host in HTTP/1.1 (400), and a
watch on each connection that cuts one which is expected to send and does not keep up (408). The watch looks once every WATCH_SECONDS,
so it costs a request nothing. Nobody is blamed for less than a whole watch, nor while we keep the sender waiting ourselves.
"""

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from audit_service.api.logs import REQUESTS
from audit_service.api.middleware import REFUSED_STATUS, AccessLog
from audit_service.api.rates import KEPT_WAITING
from audit_service.http_answer import Answer

HEADER_LIMIT_BYTES = 16 * 1024
# A client that should send must manage this many bytes between two looks.
WATCH_SECONDS = 10.0
MINIMUM_BYTES = 1024

_PROBLEM = b"".join([
    b"HTTP/1.1 %d %s\r\ncontent-type: application/problem+json\r\nconnection: close\r\n",
    *(b"%s: %s\r\n" % header for header in (*AccessLog.HEADERS, *AccessLog.DEFAULTS)),
    b"content-length: %d\r\n\r\n%s",
])  # fmt: skip


class GuardedProtocol(HttpToolsProtocol):
    """HttpToolsProtocol with limits on headers and on slowness."""

    watch_seconds = WATCH_SECONDS
    _received_bytes = 0
    # Bytes since the parser last made something of them: headers, trailers or chunk extensions that do not end.
    _pending_bytes = 0
    _header_bytes = 0
    _in_headers = False
    _messages = 0
    _refused = False
    # What the last look saw: how much had come, the message that the client owed then (before the first: 0) with how often we had kept it
    # waiting, and what we had yet to send.
    _seen_bytes = 0
    _owed: tuple[int, int] | None = (0, 0)
    _unsent_bytes = 0
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
        """Parse, and refuse what grows without becoming headers or a body."""
        if self._refused:
            return
        self._received_bytes += len(data)
        self._pending_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            if self._header_bytes > HEADER_LIMIT_BYTES:
                self._refuse_headers()
            else:
                self._refuse(400, b"Bad Request", b"this is not a well-formed HTTP request")
            return
        if self._pending_bytes > HEADER_LIMIT_BYTES:
            self._refuse_headers()

    def _feed(self, data: bytes) -> None:
        """The parser takes a request that offers an upgrade (Java's client offers h2c with each) for one without a body. We decline every
        offer: give a new parser the same request without it."""
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as stop:
                lines = [
                    b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
                ]
                lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
                self.parser.feed_data(b"\r\n".join(lines) + b"\r\n\r\n")
                rest = rest[stop.args[0] :]
            else:
                return

    def on_message_begin(self) -> None:
        """A request line arrives."""
        self._in_headers = True
        self._header_bytes = 0
        self._messages += 1
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; a trailer is none: it must not pass for a header that whoever stands before us has checked."""
        if self._in_headers:
            self._header_bytes += len(name) + len(value)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The headers are whole: check them before the application sees them."""
        self._pending_bytes = 0
        self._header_bytes += len(self.url)
        hosts = sum(name == b"host" for name, _ in self.headers)
        tunnel = self.parser.get_method() == b"CONNECT"
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1") or tunnel:
            # Ends in data_received, which answers 400 and closes.
            raise httptools.HttpParserError("a request has exactly one Host")
        if self._header_bytes > HEADER_LIMIT_BYTES:
            raise httptools.HttpParserError("the headers are too long")
        if any(name == b"transfer-encoding" and value.lower() != b"chunked" for name, value in self.headers):
            # The parser undoes chunked only, and would hand on what else was done to the body.
            raise httptools.HttpParserError("chunked is the only transfer coding")
        self._in_headers = False
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self.cycle.__class__ = Answer  # uvicorn makes it, and has begun nothing with it

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._pending_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole, unless it is about to be read again without its offer of an upgrade."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _look(self) -> None:
        """Cut the connection if the client owed us bytes at the last look, still owes them, and sent too few since."""
        if self._refused:
            self.transport.abort()
            return
        moved = self._received_bytes - self._seen_bytes
        waits = self.cycle.scope["state"].get(KEPT_WAITING, 0) if self.cycle is not None else 0
        owed = (self._messages, waits) if waits % 2 == 0 and self._owes() else None
        unsent = self.transport.get_write_buffer_size()
        if self.transport.is_closing():
            # It closes when all is sent; a client that takes nothing for a whole watch would keep it for ever.
            if unsent and unsent == self._unsent_bytes:
                self.transport.abort()
                return
        elif owed is not None and owed == self._owed and moved < MINIMUM_BYTES:
            self._refuse(408, b"Request Timeout", b"the request arrives too slowly")
        self._seen_bytes, self._owed, self._unsent_bytes = self._received_bytes, owed, unsent
        self._watch = self.loop.call_later(self.watch_seconds, self._look)

    def _owes(self) -> bool:
        """Whether it is the client's turn: in the middle of headers, or of a body that we are reading."""
        if self.flow.read_paused:
            return False
        if self.cycle is None:
            return True
        if self.cycle.response_complete:
            # The keep-alive timer has idle connections, but does not start again after a byte of a body nobody reads, or a line break.
            return self.timeout_keep_alive_task is None
        return bool(self.cycle.more_body) and not self.pipeline and not self.cycle.waiting_for_100_continue

    def _refuse_headers(self) -> None:
        self._refuse(431, b"Request Header Fields Too Large", b"the headers are too long")

    def _refuse(self, status: int, reason: bytes, detail: bytes) -> None:
        """A problem document unless an answer to this request has begun, and the end of the connection in any case."""
        before = self.cycle
        if before is not None and not before.response_complete and not before.more_body:
            before.keep_alive = False  # the request before was good: it gets its answer, and then the connection ends
            return
        # An answer that is complete while headers arrive was to the request before.
        answered = (
            before is not None and before.response_started and not (before.response_complete and self._in_headers)
        )
        if answered or self.transport.is_closing():
            self.transport.close()
            return
        body = b'{"type":"about:blank","title":"%s","status":%d,"detail":"%s"}' % (reason, status, detail)
        self.transport.write(_PROBLEM % (status, reason, len(body), body))
        # To close over unread bytes is a reset, which can overtake the answer: read into nothing until the client closes, or the next look.
        self._refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()  # TLS ends with a message of its own
        if before is not None and not before.response_complete:
            before.scope["state"][REFUSED_STATUS] = status  # the access log counts it, with its route
            before.disconnected = True
            before.message_event.set()
            self.flow.resume_reading()
        else:
            REQUESTS.labels("unparsed", "other", str(status)).inc()
