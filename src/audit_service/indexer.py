"""The indexer: puts full segments of every log into the search index, behind the appends (decision 0007).

    python -m audit_service.indexer

A child of `serve`, which starts it again when it dies; settings come on stdin as for a worker. More than one may run: a segment is added
whole by whoever is first. While none runs nothing is lost: what is not in the index is compared one by one, and searches get slower.
"""

import asyncio
import os
import signal

import structlog

from audit_service.api.logs import configure as configure_logs
from audit_service.errors import AuditError
from audit_service.lifeline import read_settings
from audit_service.settings import Settings
from audit_service.store import segments
from audit_service.store.engine import Database, bound, connected, open_database
from audit_service.store.failures import translated

# Between two looks for full segments: a log of a thousand events a second fills one in sixteen.
LOOK_SECONDS = 2.0
# Answering comes before indexing.
NICENESS = 5
log = structlog.get_logger("audit_service.indexer")


async def index_all(database: Database) -> int:
    """Add every segment that is full and not in the index yet; how many. A log that cannot be indexed keeps no other from it: what is
    wrong with the first such is raised in the end. Raises UnavailableError."""
    async with translated(), connected(database.reads) as connection:
        logs = await segments.list_logs(connection)
    added = 0
    failures: list[Exception] = []
    for log_id in logs:
        try:
            added += await _index_log(database, log_id)
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
    if failures:
        raise failures[0]
    return added


async def _index_log(database: Database, log_id: int) -> int:
    added = 0
    while (number := await _next(database, log_id)) is not None:
        async with translated():
            added += await segments.add_segment(database.reads, database.writes, log_id, number)
    return added


async def _next(database: Database, log_id: int) -> int | None:
    async with translated(), bound(database.reads, log_id) as connection:
        return await segments.next_segment(connection, log_id)


async def run(settings: Settings, stopped: asyncio.Event) -> None:
    """Index until stopped. A database that is away is waited for; and whatever else fails is said and tried again, because a child that
    keeps dying ends the service, which answers well enough without an index."""
    assert settings.database_url is not None  # noqa: S101 - `serve` fills it in
    database = open_database(settings.database_url.get_secret_value(), pool_connections=1)
    try:
        while not stopped.is_set():
            try:
                await index_all(database)
            except AuditError as error:
                log.warning("indexing failed; trying again", detail=error.detail)
            except Exception as error:  # noqa: BLE001 - see above
                # Its name only: the text of an error of the database may hold a value.
                log.warning("indexing failed; trying again", error=type(error).__name__)
            try:
                await asyncio.wait_for(stopped.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue
    finally:
        await database.dispose()


async def _main(settings: Settings) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await run(settings, stopped)


def main() -> None:
    """Index until SIGTERM, or until the supervisor is gone."""
    settings = read_settings()
    configure_logs(settings.log_level)
    os.nice(NICENESS)
    asyncio.run(_main(settings))


if __name__ == "__main__":
    main()
