"""What went wrong with the database, in the words of our error tree. Statements and values never leave this file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy import exc

from audit_service.errors import (
    AuditError,
    ClockError,
    ConflictError,
    HeldError,
    IntegrityError,
    MovedOnError,
    NotFoundError,
    UnavailableError,
)

_CODES: dict[str, AuditError] = {
    "AU001": ClockError("the log's last time is over five minutes ahead of the database's clock"),
    "AU002": NotFoundError("no such log"),
    "AU003": UnavailableError("the database's transactions are not READ COMMITTED"),
    "AU010": MovedOnError("the log moved on while this was prepared"),
    "AU011": HeldError("under legal hold"),
    "AU012": IntegrityError("what was to be recorded does not fit the log"),
    "AU013": UnavailableError("the signer's lease is not held"),
    "AU020": ConflictError("the client has two live keys already: revoke one first"),
    "AU021": ConflictError("the token has ended: issue another"),
}
# SQLSTATE classes and codes that pass by themselves or with an operator's help: connection, resources, operator
# intervention (shutdown, crash), system error, lock not available, serialisation, read-only standby.
_TEMPORARY = ("08", "53", "57", "58", "55P03", "40", "25006", "F0", "XX")


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn failures of the database inside the block into errors of our tree."""
    try:
        yield
    except (asyncpg.PostgresError, exc.DBAPIError) as error:
        raise _translate(error) from None
    except asyncpg.InterfaceError as error:
        # Either the connection was closed under us, or we called the driver wrongly: only the first passes by itself.
        if "closed" not in str(error):
            raise
        raise UnavailableError("the database is not reachable") from None
    except (OSError, TimeoutError, asyncpg.InternalClientError, exc.TimeoutError):
        raise UnavailableError("the database is not reachable") from None


def _translate(error: BaseException) -> BaseException:
    cause = _driver_error(error)
    code = getattr(cause, "sqlstate", None)
    if code in _CODES:
        return _CODES[code]
    if code is None:  # a connection that went away has no SQLSTATE
        temporary = isinstance(cause, OSError | TimeoutError | asyncpg.InterfaceError) or (
            isinstance(error, exc.DBAPIError) and error.connection_invalidated
        )
        return UnavailableError("the database is not reachable") if temporary else error
    if code == "57014":
        return UnavailableError("the query took too long; narrow it")
    return UnavailableError("the database cannot answer now") if code.startswith(_TEMPORARY) else error


def _driver_error(error: BaseException) -> BaseException:
    """asyncpg's own error below SQLAlchemy's wrapping of its wrapping."""
    while isinstance(error, exc.DBAPIError) and error.orig is not None:
        error = error.orig
    cause = error.__cause__
    return cause if isinstance(cause, asyncpg.PostgresError | asyncpg.InterfaceError | OSError) else error
