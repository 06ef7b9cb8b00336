"""The verifier: verifies every log again and again, and says so when one is broken.

    python -m audit_service.verifier

A child of `serve`, which starts it again when it dies; settings come on stdin as for a worker. Each round reads what was added to each log
since it was found right, and everything when AUDIT_VERIFY_FULL_HOURS have passed, when nothing is known of the log, and as long as it is
broken: so a broken log is named in every round. What it knows stands in files (`verified`), which the workers show in `/v1/chain` and
`/metrics`. Killed at any time, it knows what it knew before the run.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from audit_service.core.report import Report
from audit_service.errors import AuditError, UnavailableError
from audit_service.lifeline import pause, run_child, tried_again
from audit_service.settings import Settings
from audit_service.signing.public_keys import published_keys
from audit_service.store.credentials import fetch_installation, list_log_keys
from audit_service.store.engine import Database, connected, open_database
from audit_service.store.failures import translated
from audit_service.verified import VerifiedLog, VerifiedLogs, recorded, vanished
from audit_service.verify import final_report, verify

# Answering comes before verifying, and so does all that is written.
NICENESS = 10
# A database that is away is asked again so often.
RETRY_SECONDS = 10.0
# Of what could not be checked, so much goes into a log line.
_DOUBTS_LIMIT = 3
log = structlog.get_logger("audit_service.verifier")


class Verifier:
    """Looks at every log, again and again. What fails for one log keeps no other from its turn."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings

    async def look(self) -> None:
        """One round over all logs. Raises UnavailableError when the database went away: what was done until then is kept."""
        async with translated(), connected(self._database.reads) as connection:
            installation = await fetch_installation(connection)
            logs: Sequence[Any] = await list_log_keys(connection)
        states = VerifiedLogs(self._settings.data_dir, installation.secret)
        for target in logs:
            with tried_again(log, "verification failed; trying again", passing=(UnavailableError,), log=target.log_key):
                await self._look_at(states, target)
        listed = {target.log_key for target in logs}
        for log_key, state in states.read_all():
            if log_key not in listed:
                states.write(log_key, gone := vanished(state, datetime.now(UTC)))
                _name(gone, log_key, tenant=None)

    async def _look_at(self, states: VerifiedLogs, target: Any) -> None:
        before = states.read(target.log_key)
        if before is None and states.is_kept(target.log_key):
            log.error("what was known of a log was edited or is damaged; reading everything", log=target.log_key)
        full = before is None or before.start is None or self._is_due(before)
        report = await self._report(target.log_id, before, full=full)
        found = recorded(before, report, datetime.now(UTC), full=full)
        states.write(target.log_key, found)
        if found.broken:
            _name(found, target.log_key, tenant=target.name)
        elif found.last.status != "ok":
            doubts = [item for item in report.not_checked if item.startswith("seq ")][:_DOUBTS_LIMIT]
            log.warning(
                "not all of a log could be verified", tenant=target.name, log=target.log_key, not_checked=doubts
            )
        else:
            log.info("verified", tenant=target.name, log=target.log_key, from_seq=report.from_seq, size=report.to_seq)

    def _is_due(self, known: VerifiedLog) -> bool:
        """Whether everything is to be read again; also when the clock says that it was in the future."""
        if known.full_at is None:
            return True
        age = datetime.now(UTC) - known.full_at
        return not timedelta(0) <= age < timedelta(hours=self._settings.verify_full_hours)

    async def _report(self, log_id: int, before: VerifiedLog | None, *, full: bool) -> Report:
        steps = verify(
            self._database.reads,
            log_id,
            own=published_keys(self._settings.signing_dir),
            verified=None if before is None else before.point,
            incremental=not full,
        )
        return await final_report(steps)


def _name(found: VerifiedLog, log_key: str, *, tenant: str | None) -> None:
    """Say that a log is broken: where and how, and none of its values."""
    last = found.last
    log.error("a log does not verify", tenant=tenant, log=log_key, breaks=last.breaks, first_seqs=last.kinds)


async def run(settings: Settings, stopped: asyncio.Event) -> None:
    """Verify until stopped. A database that is away is waited for."""
    assert settings.database_url is not None  # noqa: S101 - `serve` fills it in
    # A slice is of a thousand entries: a minute is for a machine that is busy with all else.
    database = open_database(settings.database_url.get_secret_value(), pool_connections=2, statement_timeout_seconds=60)
    verifier = Verifier(database, settings)
    try:
        while not stopped.is_set():
            wait_seconds = float(settings.verify_interval_seconds)
            try:
                await verifier.look()
            except (AuditError, OSError) as error:
                detail = error.detail if isinstance(error, AuditError) else error.strerror
                log.warning("verification waits; trying again", detail=detail)
                wait_seconds = min(wait_seconds, RETRY_SECONDS)
            await pause(stopped, wait_seconds)
    finally:
        await database.dispose()


def main() -> None:
    """Verify until SIGTERM, or until the supervisor is gone."""
    # A run of hours is not waited for: it leaves what was known before it.
    run_child(run, niceness=NICENESS, at_once=True)


if __name__ == "__main__":
    main()
