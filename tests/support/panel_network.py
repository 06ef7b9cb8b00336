"""What stands between a panel and the service: a proxy that loses answers, and a stub that gives scripted ones."""

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

KEY = "test-key-of-visible-characters-only"
# A client's options: what takes seconds in a panel takes a moment in a test.
QUICK: dict[str, Any] = {"trust_env": False, "flush_seconds": 0.02, "retry_delay_maximum_seconds": 0.3}


class CuttingProxy:
    """A TCP proxy that, `cuts` times, drops the connection when the answer arrives: the service has acted, the client cannot know."""

    def __init__(self, upstream_url: str, cuts: int) -> None:
        host, _, port = upstream_url.removeprefix("http://").partition(":")
        self._upstream = (host, int(port))
        self._lock = threading.Lock()
        self.cuts_left = cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._ending, self._end = socket.socketpair()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.close()  # makes the other end readable in every thread
        for thread in self._threads:
            thread.join(10)
        self._ending.close()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._ending], [], [])
            if self._ending in ready:
                return
            connection, _ = self._listener.accept()
            thread = threading.Thread(target=self._carry, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._upstream) as upstream:
            other = {client: upstream, upstream: client}
            while True:
                ready, _, _ = select.select([client, upstream, self._ending], [], [])
                if self._ending in ready:
                    return
                for source in ready:
                    data = source.recv(65536)
                    if not data or (source is upstream and self._cut()):
                        return
                    other[source].sendall(data)

    def _cut(self) -> bool:
        with self._lock:
            if not self.cuts_left:
                return False
            self.cuts_left -= 1
            return True


@dataclass(frozen=True, slots=True)
class Answer:
    """A scripted answer. Without a body: receipts for all events of the request."""

    status: int = 201
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What the stub was asked."""

    at: float
    key: str
    path: str
    events: Sequence[Mapping[str, Any]]


class StubService:
    """Looks like POST /v1/events. Gives the scripted answers in turn, then good ones, and remembers what it was asked."""

    def __init__(self, *script: Answer, on_request: Callable[[], object] = lambda: None) -> None:
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._script = list(script)
        self._on_request = on_request
        self._lock = threading.Lock()
        self._at_once = 0
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                stub._answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.socket.close()

    @property
    def ids(self) -> list[str]:
        """The ids of all events asked about, in order."""
        return [str(event["id"]) for request in self.requests for event in request.events]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        events = json.loads(body)["events"]
        with self._lock:
            key = handler.headers["authorization"].removeprefix("Bearer ")
            self.requests.append(Request(time.monotonic(), key, handler.path, events))
            answer = self._script.pop(0) if self._script else Answer()
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        self._on_request()
        written = receipts(events) if answer.body is None else answer.body
        with self._lock:
            self._at_once -= 1
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(written)))
        handler.end_headers()
        handler.wfile.write(written)


def receipts(events: Sequence[Mapping[str, Any]]) -> bytes:
    """A batch answer that accepts all."""
    results = [
        {
            "status": 201,
            "replayed": False,
            "receipt": {
                "id": event["id"],
                "origin": "stub/t/0/1",
                "seq": seq,
                "recorded_at": "2026-11-22T05:37:31.714881Z",
                "hash": "00" * 32,
                "prev_hash": "11" * 32,
                "kept": True,
            },
        }
        for seq, event in enumerate(events)
    ]
    return json.dumps({"accepted": len(results), "rejected": 0, "results": results}).encode()


def problem(kind: str, status: int) -> bytes:
    """A problem document of the service."""
    return json.dumps(
        {"type": f"urn:audit-service:problem:{kind}", "status": status, "title": kind, "detail": "so"}
    ).encode()
