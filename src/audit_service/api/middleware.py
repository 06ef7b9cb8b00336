"""ASGI middleware around everything: metrics, log line, response headers, and the answer to an error nobody planned for."""

import logging
import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeAlias

from starlette.requests import ClientDisconnect

from audit_service.api.logs import METHODS, REQUESTS, SECONDS, App, Message, Scope, log, route_of, unexpected
from audit_service.api.noting import look_back
from audit_service.api.peer import address_of
from audit_service.api.problems import unexpected_response
from audit_service.api.rates import RATE_STATE, rate_headers

Header: TypeAlias = tuple[bytes, bytes]

SLOW_SECONDS = 1.0
# Where, in a request's state, the HTTP protocol leaves the status with which it refused the rest of the request.
REFUSED_STATUS = "refused_status"


class AccessLog:
    """ASGI middleware: the metrics of each request, a log line for those refused, failed or slow (for all of them at level
    debug), and the headers every response carries."""

    HEADERS = (
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-frame-options", b"DENY"),
    )
    # Unless the answer says otherwise: nothing in it may be run or embedded, and nobody keeps it.
    DEFAULTS = (
        (
            b"content-security-policy",
            b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
        (b"cache-control", b"no-store"),
    )
    # Over TLS only: said over plain HTTP it means nothing, and in front of a proxy the proxy says it.
    TLS_HEADERS = ((b"strict-transport-security", b"max-age=31536000; includeSubDomains"),)

    _USUAL = HEADERS + DEFAULTS
    _DEFAULT_NAMES = frozenset(name for name, _ in DEFAULTS)

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status, begun, ended = 500, False, False

        async def send_noted(message: Message) -> None:
            nonlocal status, begun, ended
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = self._headers(scope, message.get("headers", ()))
            ended = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        try:
            await self.app(scope, receive, send_noted)
        except ClientDisconnect:
            # 499 as proxies write it: nobody is there to be answered.
            status = scope.get("state", {}).get(REFUSED_STATUS, 499)
        except Exception as error:
            unexpected(scope, error)
            if begun and not ended:
                raise  # the server cuts the connection, so that the client sees a broken answer
            if not begun:
                await unexpected_response()(scope, receive, send_noted)
        finally:
            seconds = time.perf_counter() - started
            route = route_of(scope)
            _counters(route, scope["method"] if scope["method"] in METHODS else "other", status)(seconds)
            look_back(scope, status)
            # A line for each of thousands of good requests a second would cost more than sealing their events.
            notable = status >= 400 or seconds >= SLOW_SECONDS
            if notable or _debugging():
                write = log.info if notable else log.debug
                key_id = scope.get("state", {}).get("key_id")
                milliseconds = round(seconds * 1000, 2)
                peer = address_of(scope)
                write(
                    "request",
                    method=scope["method"],
                    route=route,
                    status=status,
                    ms=milliseconds,
                    key=key_id,
                    peer=None if peer is None else str(peer),
                )

    def _headers(self, scope: Scope, own: Iterable[Header]) -> list[Header]:
        headers = [*own]
        given = {name for name, _ in headers} & self._DEFAULT_NAMES
        # Nearly every answer leaves the defaults as they are.
        headers += self._USUAL if not given else [h for h in self._USUAL if h[0] not in given]
        if scope["scheme"] == "https":
            headers += self.TLS_HEADERS
        counted = scope.get("state", {}).get(RATE_STATE)
        if counted is not None:
            headers += rate_headers(*counted)
        return headers


def _debugging() -> bool:
    return logging.getLogger().isEnabledFor(logging.DEBUG)


@cache
def _counters(route: str, method: str, status: int) -> Callable[[float], None]:
    """Counts one request. Cached: routes, methods and statuses are few, and looking the metrics up by label is slow."""
    requests, observed = REQUESTS.labels(route, method, str(status)), SECONDS.labels(route)

    def count(seconds: float) -> None:
        requests.inc()
        observed.observe(seconds)

    return count
