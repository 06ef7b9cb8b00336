"""Structured logs, one JSON object a line, and the metrics. Neither ever holds a query string, a body, a header or a value.

Exceptions are logged by their place in the code, without their text: the text of a driver's or parser's error quotes its input.
"""

import logging
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram

from audit_service.errors import AuditError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

EVENTS = Counter("audit_events_total", "Events by what became of them", ["outcome"])
REQUESTS = Counter("audit_http_requests_total", "Requests by route, method and status", ["route", "method", "status"])
SECONDS = Histogram(
    "audit_http_request_seconds", "Time until the response was sent", ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
APPEND_SECONDS = Histogram(
    "audit_append_seconds", "Time of one append call, until durable",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)  # fmt: skip
PENDING = Gauge("audit_pending_events", "Events of this worker waiting for the database", multiprocess_mode="livesum")
UNNOTED = Counter("audit_unnoted_total", "Notes of the service about itself that were dropped")
VERIFIED = Gauge(
    "audit_verify_breaks",
    "Breaks found by the last verification of this process",
    multiprocess_mode="mostrecent",
)

# Any other word in its place is the caller's.
METHODS = frozenset({"GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"})

log = structlog.get_logger("audit_service")


def configure(level: str) -> None:
    """JSON lines on standard error, control characters escaped by JSON, for our log and the libraries' alike."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _exception_place,
                structlog.processors.JSONRenderer(ensure_ascii=True),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "sqlalchemy", "alembic", "asyncio", "httpx", "httpcore"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(max(logging.WARNING, root.level))


def _exception_place(_logger: object, _name: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    info = record.pop("exc_info", None)
    record.pop("stack_info", None)
    if info:
        error = info if isinstance(info, BaseException) else sys.exc_info()[1] if info is True else info[1]
        if error is not None:
            record.update(_place(error))
    return record


def _place(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return {
        "error": type(error).__name__,
        "trace": [f"{frame.filename.rsplit('/', 2)[-2:]}:{frame.lineno} {frame.name}" for frame in frames],
    }


def unexpected(scope: Scope, error: BaseException) -> None:
    """Log an error nobody planned for, or that came when the answer had begun. Our own say what is wrong, and never a value."""
    detail = {"detail": error.detail} if isinstance(error, AuditError) else {}
    log.error("unexpected error", route=route_of(scope), **_place(error), **detail)


def route_of(scope: Scope) -> str:
    """The route's template, which has few values and none of the caller's; `unmatched` for none."""
    route = scope.get("route")
    return getattr(route, "path", None) or "unmatched"
