"""When the service starts and stops, and whether its settings are those of the start before: noted in its own log.

A file in the data directory remembers the last start: whether it ended in good order, and of each setting a hash, keyed with the
installation's secret. No value of a setting is in it, nor in any note. Neither a start nor a stop waits for its note for long, or fails
without it: a log that cannot be written must not keep the service from running.
"""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr

from audit_service.core.canonical import JSONValue
from audit_service.core.own_event import SERVICE
from audit_service.errors import AuditError
from audit_service.own_watch import open_watch
from audit_service.private_file import replace_private
from audit_service.settings import Settings
from audit_service.store import credentials
from audit_service.store.engine import connected
from audit_service.store.failures import translated
from audit_service.store.migrate import newest_revision
from audit_service.watch import own_event

START_SECONDS = 10.0
STOP_SECONDS = 3.0
FILE_NAME = "last_start.json"


@dataclass(slots=True)
class ServiceLife:
    """One life of the service, from its start to its stop. `url`: a login that may act as the serving role."""

    settings: Settings
    url: str = field(repr=False)
    _began: float = field(default_factory=time.monotonic)
    _hashes: dict[str, str] = field(default_factory=dict)

    async def started(self) -> bool:
        """Note the start, and settings that are not those of the start before. Whether it could be noted."""
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._note_start()
        except (AuditError, OSError, TimeoutError):
            return False
        return True

    async def stopped(self, *, in_order: bool) -> bool:
        """Note the stop. `in_order`: somebody asked for it. Whether it could be noted."""
        if self._hashes:  # else the start was not remembered, and what stands there is of another one
            self._remember(stopped=True)
        seconds = int(time.monotonic() - self._began)
        event = own_event(
            "audit.service.stopped",
            SERVICE,
            outcome="success" if in_order else "failure",
            metadata={"uptime_seconds": seconds},
        )
        try:
            async with asyncio.timeout(STOP_SECONDS), open_watch(self.settings, self.url) as (watch, _):
                await watch.note(None, event)
        except (AuditError, OSError, TimeoutError):
            return False
        return True

    async def _note_start(self) -> None:
        before = _read(self.settings.data_dir / FILE_NAME)
        async with open_watch(self.settings, self.url) as (watch, database):
            async with translated(), connected(database.reads) as connection:
                installed = await credentials.fetch_installation(connection)
            self._hashes = setting_hashes(self.settings, installed.secret)
            metadata: dict[str, JSONValue] = {
                "version": version("audit-service"),
                "schema": newest_revision(),
                "workers": self.settings.workers,
                "last_stop": _last_stop(before),
            }
            await watch.note(None, own_event("audit.service.started", SERVICE, metadata=metadata))
            changed = changed_settings(before, self._hashes)
            if changed:
                await watch.note(None, own_event("audit.config.changed", SERVICE, metadata={"changed": [*changed]}))
        self._remember(stopped=False)

    def _remember(self, *, stopped: bool) -> None:
        try:
            text = json.dumps({"stopped": stopped, "settings": self._hashes})
            replace_private(self.settings.data_dir / FILE_NAME, text)
        except OSError as error:
            logging.getLogger(__name__).warning("the start is not remembered: %s", error.strerror)


def setting_hashes(settings: Settings, secret: bytes) -> dict[str, str]:
    """AUDIT_… → a keyed hash of its value: equal values are known as such, and none can be guessed from its hash."""
    return {
        f"AUDIT_{name.upper()}": hmac.new(secret, f"setting\n{name}\n{_text(value)}".encode(), sha256).hexdigest()
        for name, value in dict(settings).items()
    }


def changed_settings(before: Mapping[str, Any] | None, hashes: Mapping[str, str]) -> list[str]:
    """The settings whose value is another than at the start before; of settings that one did not know, nothing can be said."""
    known = {} if before is None else before["settings"]
    return sorted(name for name, found in hashes.items() if name in known and known[name] != found)


def _last_stop(before: Mapping[str, Any] | None) -> Literal["clean", "unclean", "unknown"]:
    if before is None:
        return "unknown"
    return "clean" if before["stopped"] else "unclean"


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
        return found if isinstance(found["stopped"], bool) and isinstance(found["settings"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
