"""Errors as problem documents (RFC 9457, `application/problem+json`). The only place that knows an error's HTTP status.

Never a value of the request in any of them: a rejected request may hold a secret.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from audit_service import errors
from audit_service.api.logs import log, route_of

MEDIA_TYPE = "application/problem+json"
# First match wins, so a branch of the error tree stands above its root.
_STATUS: tuple[tuple[type[errors.AuditError], int, str], ...] = (
    (errors.MalformedError, 400, "Malformed request"),
    (errors.InvalidQueryError, 400, "Invalid parameter"),
    (errors.InvalidEventError, 422, "Invalid event"),
    (errors.BeyondLimitsError, 403, "Not allowed"),
    (errors.TooLargeError, 413, "Too large"),
    (errors.UnsupportedMediaError, 415, "Unsupported media type"),
    (errors.IdempotencyConflictError, 409, "Idempotency conflict"),
    (errors.ConflictError, 409, "Conflict"),
    (errors.UnauthenticatedError, 401, "Not authenticated"),
    (errors.ForbiddenError, 403, "Not allowed"),
    (errors.GoneError, 410, "Gone"),
    (errors.NotFoundError, 404, "Not found"),
    (errors.NotSignedError, 409, "Not signed yet"),
    (errors.UnavailableError, 503, "Unavailable"),
    (errors.ClockError, 503, "The clock is wrong"),
    (errors.TreeDamagedError, 500, "The stored log is damaged"),
)


def problem(error: errors.AuditError) -> dict[str, Any]:
    """The problem document of an error: type, title, status, detail and, for a sender's fault, `errors`."""
    status, title = next(((s, t) for kind, s, t in _STATUS if isinstance(error, kind)), (500, "Internal error"))
    name = type(error).__name__.removesuffix("Error")
    body: dict[str, Any] = {
        "type": f"urn:audit-service:problem:{_dashed(name)}",
        "title": title,
        "status": status,
        "detail": error.detail or title,
    }
    if isinstance(error, errors.InputError | errors.HiddenFieldError) and error.faults:
        body["errors"] = [_fault(fault) for fault in error.faults]
    return body


def _fault(fault: errors.Fault) -> dict[str, str]:
    place = {"parameter": fault.parameter} if fault.parameter is not None else {"pointer": fault.pointer or ""}
    return {**place, "detail": fault.detail}


def _dashed(name: str) -> str:
    return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")


def problem_response(body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A problem document as a response. Never cached: what is not there now may be in a moment."""
    given = {"Cache-Control": "no-store", **(headers or {})}
    return Response(orjson.dumps(body), body["status"], given, MEDIA_TYPE)


def respond(error: errors.AuditError) -> Response:
    """The response to an error, with the headers its status asks for."""
    headers: dict[str, str] = {}
    if isinstance(error, errors.UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.UnavailableError | errors.NotSignedError):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, errors.ClockError):
        headers["Retry-After"] = "60"
    if isinstance(error, errors.UnsupportedMediaError):
        headers["Accept-Encoding"] = "gzip, identity"
    return problem_response(problem(error), headers)


_TITLES = {404: "Not found", 405: "Method not allowed"}


def install(app: FastAPI) -> None:
    """Every way a request can fail answers with a problem document."""

    @app.exception_handler(errors.AuditError)
    async def _audit(request: Request, error: errors.AuditError) -> Response:
        if isinstance(error, errors.TreeDamagedError):  # somebody has to look after it, whoever asked
            log.error("the stored log is damaged", detail=error.detail, route=route_of(request.scope))
        return respond(error)

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> Response:
        title = _TITLES.get(error.status_code, "Request refused")
        body = {"type": "about:blank", "title": title, "status": error.status_code, "detail": title}
        return problem_response(body, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _validation(_request: Request, error: RequestValidationError) -> Response:
        # Only path parameters are FastAPI's to check here; its own answer would echo the value.
        faults = [errors.Fault("is not valid", parameter=str(item["loc"][-1])) for item in error.errors()]
        return respond(errors.InvalidQueryError("a parameter is not valid", faults))

    @app.exception_handler(Exception)
    async def _unexpected(_request: Request, _error: Exception) -> Response:
        return unexpected_response()  # the access log, outside, logs it


def unexpected_response() -> Response:
    """The answer to an error nobody planned for: nothing about it, the log has the place."""
    return problem_response(
        {"type": "about:blank", "title": "Internal error", "status": 500, "detail": "an unexpected error; see the log"}
    )
