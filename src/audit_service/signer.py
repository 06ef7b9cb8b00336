"""The signer: signs a checkpoint of every log that grew, and of every log at a fixed interval when it did not (DESIGN 3.6).

    python -m audit_service.signer

A child of `serve`, which starts it again when it dies, with its settings on stdin; or alone as `audit-service sign`. One works at a time:
a lock on its folder, and a lease in the database. Ending with EXIT_REFUSED means that it must not sign here, and that starting it again
is of no use. Ingest goes on without it: what is not signed is later.
"""

import asyncio
from contextlib import suppress

import structlog

from audit_service.errors import AuditError, SigningRefusedError
from audit_service.lifeline import pause, run_child
from audit_service.settings import Settings
from audit_service.signing.checkpointer import Checkpointer, error_text
from audit_service.signing.delivery import Deliveries
from audit_service.signing.folder import LockedError, SigningFolder
from audit_service.signing.keyfile import KeyFileError, ensure_keys
from audit_service.signing.lease import OtherKeyError, Signing
from audit_service.signing.rotation import destroy_expired
from audit_service.signing.tree import SigningStoppedError
from audit_service.store import signing as store
from audit_service.store.engine import SIGNING_ROLE, open_database

EXIT_STOPPED, EXIT_REFUSED = 0, 2
# Answering comes before signing.
NICENESS = 5
_LOCK_SECONDS = 1.0
log = structlog.get_logger("audit_service.signer")


def open_signing(settings: Settings, url: str) -> Signing:
    """What the signer and its commands work with; the pools connect at their first use. Raises OSError."""
    database = open_database(
        url, pool_connections=2, statement_timeout_seconds=60, write_timeout_seconds=30, role=SIGNING_ROLE
    )
    return Signing(database, SigningFolder(settings.signing_dir), settings.signing_key_path)


async def run(settings: Settings, url: str, stopped: asyncio.Event) -> int:
    """Sign until stopped; the exit status. Whatever fails by itself is said and tried again."""
    signing = open_signing(settings, url)
    try:
        ensure_keys(signing.key_path)
        signing.publish_keys()
        async with Deliveries(settings.checkpoint_urls, settings.checkpoint_command) as deliveries:
            await _Rounds(settings, signing, deliveries, stopped).run()
    except (OtherKeyError, KeyFileError) as error:
        log.error("the signer refuses to sign", detail=error.detail)  # noqa: TRY400 - the detail says all
        return EXIT_REFUSED
    finally:
        await signing.database.dispose()
    return EXIT_STOPPED


class _Rounds:
    """Round after round over all logs."""

    def __init__(self, settings: Settings, signing: Signing, deliveries: Deliveries, stopped: asyncio.Event) -> None:
        self._settings, self._signing, self._deliveries, self._stopped = settings, signing, deliveries, stopped
        self._logs: dict[int, Checkpointer] = {}
        self._said: str | None = None

    async def run(self) -> None:
        """Wait for the folder and the lease, then sign. Raises OtherKeyError, KeyFileError."""
        while not self._stopped.is_set():
            try:
                async with self._signing.folder.signing():
                    self._say(None)
                    await self._sign_until_stopped()
            except LockedError as error:
                self._say(f"{error.detail}; waiting for it to end")
                await pause(self._stopped, _LOCK_SECONDS)

    async def _sign_until_stopped(self) -> None:
        try:
            async with self._signing.keeping_lease():
                while not self._stopped.is_set():
                    await self._guarded_round()
                    await pause(self._stopped, self._settings.signing_interval_seconds)
        finally:
            with suppress(AuditError):
                await store.release_lease(self._signing.database.writes, self._signing.holder)

    async def _guarded_round(self) -> None:
        try:
            await self._round()
        except (OtherKeyError, KeyFileError):
            raise
        except Exception as error:  # noqa: BLE001 - a signer that dies of one surprise signs nothing more
            self._say(f"signing failed, trying again: {error_text(error)}")

    async def _round(self) -> None:
        if not await self._signing.take_lease():
            self._say("a signer elsewhere holds the lease; waiting for it to end")
            return
        await destroy_expired(self._signing)
        _, logs = await store.list_signed_logs(self._signing.database.reads)
        self._say(None)
        for target in logs:
            if self._stopped.is_set():
                return
            checkpointer = self._logs.get(target.log_id)
            if checkpointer is None:
                heartbeat_seconds = self._settings.signing_heartbeat_seconds
                checkpointer = Checkpointer(self._signing, target, heartbeat_seconds, self._stopped)
                self._logs[target.log_id] = checkpointer
            await self._sign(checkpointer)

    async def _sign(self, checkpointer: Checkpointer) -> None:
        """One log; what is wrong with it keeps no other from being signed."""
        target = checkpointer.target
        try:
            note = await checkpointer.round()
        except SigningStoppedError:
            return
        except SigningRefusedError as error:
            log.error("this log is not signed", tenant=target.tenant, detail=error.detail)  # noqa: TRY400 - as above
            return
        except (OtherKeyError, KeyFileError):
            raise
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("signing failed; trying again", tenant=target.tenant, detail=error_text(error))
            return
        if note is not None:
            self._deliveries.offer(target.log_key, note)

    def _say(self, what: str | None) -> None:
        """Say it once; None: it is over."""
        if what is not None and what != self._said:
            log.warning(what)
        self._said = what


async def _run(settings: Settings, stopped: asyncio.Event) -> int:
    assert settings.signing_database_url is not None  # noqa: S101 - `serve` fills it in
    return await run(settings, settings.signing_database_url.get_secret_value(), stopped)


def main() -> None:
    """Sign until SIGTERM, or until the supervisor is gone."""
    run_child(_run, niceness=NICENESS)


if __name__ == "__main__":
    main()
