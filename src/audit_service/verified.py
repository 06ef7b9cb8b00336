"""What the background verification found of each log, kept outside the database: `<data dir>/verified/<log key>.json`, 0600.

    {"log": "<log key>", "point": {"size", "root", "frontier", "last_hash", "last_us", "epoch"} | null, "full_at": "<time>" | null,
     "last": {"at", "status", "size", "breaks", "kinds": {"<kind>": <first seq>}}, "mac": "<HMAC-SHA-256 of the rest>"}

`point`: up to where the log was last found right; `full_at`: when it was last read from its beginning; `last`: the last run. The key of the
MAC comes from the database's own secret: who can write only the file, or only the database, cannot make one that is believed. A file that
is missing, damaged, edited, or of another database is no state at all, and the next run reads everything.

One process writes, whole files or none; a broken log stays broken until a run from its beginning finds it right.
"""

import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from audit_service.core.entry import format_time, parse_time
from audit_service.core.report import Report
from audit_service.core.verified import VerifiedPoint
from audit_service.errors import ProofError
from audit_service.private_file import replace_private

_MAC_LABEL = b"audit-service/verified/v1"


@dataclass(frozen=True, slots=True)
class LastRun:
    """How the last run ended. `size`: where it did; `breaks`: how many; `kinds`: each kind of them with the first seq that has it."""

    at: datetime
    status: str
    size: int
    breaks: int
    kinds: dict[str, int]


@dataclass(frozen=True, slots=True)
class VerifiedLog:
    """What is known of one log."""

    point: VerifiedPoint | None
    full_at: datetime | None
    last: LastRun

    @property
    def broken(self) -> bool:
        """Whether breaks were found, and no run from the beginning since found none."""
        return self.last.status == "broken"

    @property
    def start(self) -> VerifiedPoint | None:
        """Where an incremental run may start; None: at the beginning."""
        return None if self.broken else self.point


def recorded(before: VerifiedLog | None, report: Report, at: datetime, *, full: bool) -> VerifiedLog:
    """What is known after a run. One that came to no end takes nothing back: neither a point nor a break."""
    if before is not None and before.broken and report.status == "incomplete":
        return before
    kinds: dict[str, int] = {}
    for item in report.breaks:
        kinds[item.kind] = min(item.seq, kinds.get(item.kind, item.seq))
    last = LastRun(at, report.status, report.to_seq, report.breaks_total, kinds)
    point, full_at = (before.point, before.full_at) if before is not None else (None, None)
    if full and report.status != "incomplete":
        full_at = at
    return VerifiedLog(report.point or point, full_at, last)


def vanished(before: VerifiedLog, at: datetime) -> VerifiedLog:
    """What is known of a log that the database does not list any more."""
    return replace(before, last=LastRun(at, "broken", 0, 1, {"head_mismatch": 0}))


class VerifiedLogs:
    """The files of one installation. `secret`: that of its database."""

    def __init__(self, data_dir: Path, secret: bytes) -> None:
        self._folder = data_dir / "verified"
        self._key = hmac.digest(secret, _MAC_LABEL, "sha256")

    def read(self, log_key: str) -> VerifiedLog | None:
        """The state of a log; None when there is none that can be believed."""
        try:
            document = json.loads(_path(self._folder, log_key).read_text("utf-8"))
            mac = document.pop("mac")
            if document["log"] != log_key or not hmac.compare_digest(mac, self._mac(document)):
                return None
            return _parse(document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ProofError, RecursionError):
            return None

    def is_kept(self, log_key: str) -> bool:
        """Whether there is a file at all, believed or not."""
        return _path(self._folder, log_key).exists()

    def write(self, log_key: str, state: VerifiedLog) -> None:
        """Replace the state of a log; durable when this returns. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = _format(log_key, state)
        document["mac"] = self._mac(document)
        replace_private(_path(self._folder, log_key), json.dumps(document, indent=1) + "\n")

    def read_all(self) -> Iterator[tuple[str, VerifiedLog]]:
        """Log keys, and their states where they can be believed."""
        for path in sorted(self._folder.glob("*.json")):
            state = self.read(path.stem)
            if state is not None:
                yield path.stem, state

    def _mac(self, document: dict[str, Any]) -> str:
        return hmac.new(self._key, json.dumps(document, sort_keys=True).encode(), sha256).hexdigest()


def forget_verified(data_dir: Path, log_key: str) -> None:
    """Forget what was found of a log: the next run reads it from its beginning, and holds it against nothing. Raises OSError."""
    _path(data_dir / "verified", log_key).unlink(missing_ok=True)


def _path(folder: Path, log_key: str) -> Path:
    return folder / f"{log_key}.json"


def _format(log_key: str, state: VerifiedLog) -> dict[str, Any]:
    point, last = state.point, state.last
    return {
        "log": log_key,
        "point": None
        if point is None
        else {
            "size": point.size,
            "root": point.root().hex(),
            "frontier": point.frontier.hex(),
            "last_hash": point.last_hash.hex(),
            "last_us": point.last_us,
            "epoch": point.epoch,
        },
        "full_at": None if state.full_at is None else format_time(state.full_at),
        "last": {
            "at": format_time(last.at),
            "status": last.status,
            "size": last.size,
            "breaks": last.breaks,
            "kinds": last.kinds,
        },
    }


def _parse(document: dict[str, Any]) -> VerifiedLog:
    found, last, full_at = document["point"], document["last"], document["full_at"]
    point = None
    if found is not None:
        frontier, last_hash = bytes.fromhex(found["frontier"]), bytes.fromhex(found["last_hash"])
        point = VerifiedPoint(found["size"], frontier, last_hash, found["last_us"], found["epoch"])
        if point.root().hex() != found["root"]:
            raise ValueError("the frontier does not lead to the root")
    run = LastRun(parse_time(last["at"]), last["status"], last["size"], last["breaks"], last["kinds"])
    return VerifiedLog(point, None if full_at is None else parse_time(full_at), run)
