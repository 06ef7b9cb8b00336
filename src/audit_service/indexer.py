"""The indexer: puts full segments of every log into the search index, and counts its producers' events, behind the appends (decisions
0007 and 0015).

    python -m audit_service.indexer

A child of `serve`, which starts it again when it dies; settings come on stdin as for a worker. More than one may run: a segment is added
whole by whoever is first, and an entry counted once. While none runs nothing is lost: what is not in the index is compared one by one, and
searches get slower.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from audit_service.lifeline import pause, run_child, tried_again
from audit_service.settings import Settings
from audit_service.store import segments, sources
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
    return await _for_each_log(database, _index_log)


async def count_all(database: Database) -> int:
    """Count the producers of every log whose entries wait for it (decision 0015); how many entries. As `index_all` with what fails."""
    return await _for_each_log(database, _count_log)


async def _for_each_log(database: Database, work: Callable[[Database, int], Awaitable[int]]) -> int:
    async with translated(), connected(database.reads) as connection:
        logs = await segments.list_logs(connection)
    done = 0
    failures: list[Exception] = []
    for log_id in logs:
        try:
            done += await work(database, log_id)
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
    if failures:
        raise failures[0]
    return done


async def _index_log(database: Database, log_id: int) -> int:
    added = 0
    while (number := await _next(database, log_id)) is not None:
        async with translated():
            added += await segments.add_segment(database.reads, database.writes, log_id, number)
    return added


async def _next(database: Database, log_id: int) -> int | None:
    async with translated(), bound(database.reads, log_id) as connection:
        return await segments.next_segment(connection, log_id)


async def _count_log(database: Database, log_id: int) -> int:
    counted = 0
    while True:
        async with translated():
            taken = await sources.count_waiting(database.reads, database.writes, log_id)
        if not taken:
            return counted
        counted += taken


async def run(settings: Settings, stopped: asyncio.Event) -> None:
    """Index and count until stopped, side by side: neither waits for the other, nor fails with it."""
    assert settings.database_url is not None  # noqa: S101 - `serve` fills it in
    database = open_database(settings.database_url.get_secret_value(), pool_connections=2)
    try:
        await asyncio.gather(
            _repeat(lambda: index_all(database), "indexing failed; trying again", stopped),
            _repeat(lambda: count_all(database), "counting sources failed; trying again", stopped),
        )
    finally:
        await database.dispose()


async def _repeat(work: Callable[[], Awaitable[int]], failure: str, stopped: asyncio.Event) -> None:
    """Work until stopped; `failure` is what to say of one. A database that is away is waited for; and whatever else fails is said and
    tried again, because a child that keeps dying ends the service, which answers well enough without an index."""
    while not stopped.is_set():
        with tried_again(log, failure):
            await work()
        await pause(stopped, LOOK_SECONDS)


def main() -> None:
    """Index until SIGTERM, or until the supervisor is gone."""
    run_child(run, niceness=NICENESS)


if __name__ == "__main__":
    main()
