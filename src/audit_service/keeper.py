"""The keeper: applies retention policies on a schedule, carries out what was asked for over HTTP, and ends what a killed prune began
(decision 0013).

    python -m audit_service.keeper

A child of `serve`, under the role audit_retention, which no web worker has; settings come on stdin as for a worker. While none runs,
nothing is forgotten but by the command line. More than one may run: they take turns, log by log.
"""

import asyncio
import time
from collections.abc import Sequence

import structlog

from audit_service import prune
from audit_service.forgetting_request import carry_out_request
from audit_service.lifeline import pause, run_child, tried_again
from audit_service.retention import Author, Forgotten, apply_policies, effective_policies
from audit_service.settings import Settings
from audit_service.store import forgetting, segments
from audit_service.store import retention as store
from audit_service.store.engine import RETENTION_ROLE, Database, bound, connected, open_database
from audit_service.store.failures import translated

# Between two looks for requests.
LOOK_SECONDS = 3.0
# Answering comes before forgetting.
NICENESS = 5
# One call may rewrite a whole segment of large events, and wait while an indexer adds one.
WRITE_TIMEOUT_SECONDS = 300
LOCK_TIMEOUT_SECONDS = 60
SCHEDULE = Author("schedule", "retention policy")
_FAILURE = "forgetting failed; trying again"
log = structlog.get_logger("audit_service.keeper")


def open_retention(url: str) -> Database:
    """The pools of whoever forgets."""
    return open_database(
        url,
        pool_connections=3,
        statement_timeout_seconds=WRITE_TIMEOUT_SECONDS,
        write_timeout_seconds=WRITE_TIMEOUT_SECONDS,
        lock_timeout_seconds=LOCK_TIMEOUT_SECONDS,
        role=RETENTION_ROLE,
    )


async def run_policies(database: Database, log_id: int, settings: Settings) -> None:
    """Apply the policies of one log. Raises UnavailableError, also when another run is at work on it."""
    policies = await policies_of(database, log_id, settings)
    if not policies:
        return
    async with translated(), forgetting.turn(database.writes, log_id):
        done = await apply_policies(database, log_id, SCHEDULE, policies)
    for category, part in done.items():
        if part.entries:
            log.info("retention", category=category or "(others)", **part.counts())


async def run_requests(database: Database, log_id: int, settings: Settings) -> None:
    """Carry out the due requests of one log, oldest first. One that fails keeps no other waiting, and stays pending."""
    async with translated(), bound(database.reads, log_id) as connection:
        due = await store.list_due_requests(connection, log_id, settings.request_delay_seconds)
    for request in due:
        with tried_again(log, _FAILURE, request=request.request_id):
            done = await run_request(database, log_id, request, settings)
            log.info("request carried out", request=request.request_id, kind=request.kind, **done.counts())


async def run_request(database: Database, log_id: int, request: store.Request, settings: Settings) -> Forgotten:
    """Carry out one pending request, and say so in it."""
    policies = await policies_of(database, log_id, settings)
    async with translated(), forgetting.turn(database.writes, log_id):
        done = await carry_out_request(database, log_id, request, policies)
        await store.finish_request(database.writes, log_id, request.request_id, "done", done.counts())
    return done


async def policies_of(database: Database, log_id: int, settings: Settings) -> dict[str, int]:
    """Category → days, in force for a log."""
    async with translated(), bound(database.reads, log_id) as connection:
        own = await store.list_policies(connection, log_id)
    return effective_policies(settings.retention_days, settings.retention_categories, own)


class Keeper:
    """Looks after every log, again and again. What fails for one log or request keeps no other from its turn, and is tried again."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._due: dict[int, float] = {}

    async def look(self) -> None:
        """One round: what is asked for, and every log whose time for its policies has come."""
        async with translated(), connected(self._database.reads) as connection:
            logs: Sequence[int] = await segments.list_logs(connection)
            asked = await store.list_asked_logs(connection)
        for log_id in logs:
            await self._look_after(log_id, asked=log_id in asked)

    async def _look_after(self, log_id: int, *, asked: bool) -> None:
        """What fails of one thing keeps nothing else from being done."""
        if asked:
            with tried_again(log, _FAILURE):
                await run_requests(self._database, log_id, self._settings)
        if time.monotonic() < self._due.get(log_id, 0.0):
            return
        with tried_again(log, _FAILURE):
            async with translated():
                await prune.finish(self._database, log_id)
        with tried_again(log, _FAILURE):
            await run_policies(self._database, log_id, self._settings)
            self._due[log_id] = time.monotonic() + self._settings.retention_interval_seconds


async def run(settings: Settings, stopped: asyncio.Event) -> None:
    """Keep until stopped. A database that is away is waited for."""
    assert settings.retention_database_url is not None  # noqa: S101 - `serve` fills it in
    database = open_retention(settings.retention_database_url.get_secret_value())
    keeper = Keeper(database, settings)
    try:
        while not stopped.is_set():
            with tried_again(log, _FAILURE):
                await keeper.look()
            await pause(stopped, LOOK_SECONDS)
    finally:
        await database.dispose()


def main() -> None:
    """Keep until SIGTERM, or until the supervisor is gone."""
    # A run of hours is not waited for: it is done as far as it came.
    run_child(run, niceness=NICENESS, at_once=True)


if __name__ == "__main__":
    main()
