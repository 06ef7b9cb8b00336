"""CORS: pages of the origins in AUDIT_CORS_ORIGINS may read with a viewer token. Nothing else of the service is open to pages elsewhere.

Only what shows entries, only GET, only with the Authorization header, and never with cookies: there are none. An origin is compared as a
whole, so nothing that merely looks like a configured one is let in. Every answer on these paths says that it depends on the origin.
"""

from collections.abc import Collection
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

READ_PATHS = ("/v1/events", "/v1/facets", "/v1/timeline", "/v1/export", "/v1/servers/", "/v1/targets/")
PREFLIGHT_SECONDS = 600
_SHOWN = b"Link, Retry-After, Content-Disposition, RateLimit, RateLimit-Policy, WWW-Authenticate"
_VARY = (b"vary", b"Origin")


class Cors:
    """ASGI middleware around the application."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._origins or scope["type"] != "http" or not _is_read(scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        origin = headers.get(b"origin")
        allowed = [(b"access-control-allow-origin", origin)] if origin is not None and origin in self._origins else []
        if allowed and scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await _preflight([*allowed, _VARY], send)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                shown = [(b"access-control-expose-headers", _SHOWN)] if allowed else []
                message["headers"] = [*message.get("headers", ()), *allowed, *shown, _VARY]
            await send(message)

        await self._app(scope, receive, send_marked)


async def _preflight(headers: list[tuple[bytes, bytes]], send: Send) -> None:
    """What a page may ask; the browser compares it with what the page wants."""
    granted = [
        (b"access-control-allow-methods", b"GET"),
        (b"access-control-allow-headers", b"Authorization"),
        (b"access-control-max-age", str(PREFLIGHT_SECONDS).encode()),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": [*headers, *granted]})
    await send({"type": "http.response.body", "body": b""})


def _is_read(path: str) -> bool:
    return path.startswith(READ_PATHS)


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """Those that CORS asks for. One given twice is none: whoever stands before us may have chosen the other."""
    wanted: dict[bytes, Any] = {}
    for name, value in scope["headers"]:
        if name in {b"origin", b"access-control-request-method"}:
            wanted[name] = None if name in wanted else value
    return {name: value for name, value in wanted.items() if value is not None}
