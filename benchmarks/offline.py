"""How fast the offline verifier is: its whole run over a seeded bundle ÷ hashing the same bytes once.

Two bundles of the same number of entries: bare ones (header, body, link, range: what every bundle has) and ones with five
disclosures each. Stored members, so that unpacking is not measured. Made in memory, not by a service: what is measured is
the program alone. The goal is in entries a second; the ratio says what of it is hashing that nobody can save.
"""

import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from tests.support.bundles import MadeLog, pack

from audit_service.core.canonical import JSONValue
from audit_service.offline.verify_file import verify
from benchmarks.options import Options
from benchmarks.report import BenchmarkError, Figure, Section, ratio

GOAL_ENTRIES_PER_SECOND = 100_000


def measure_offline(options: Options) -> Section:
    """The section of the offline verifier."""
    figures: list[Figure] = []
    for name, event, goal in (
        ("header, body, link, range", _bare, GOAL_ENTRIES_PER_SECOND),
        ("with five disclosures each", _full, None),
    ):
        path, vkey = options.folder / "bundle.zip", _write_bundle(options.folder / "bundle.zip", options, event)
        entries = options.offline_entries
        hashing = entries / _best(options.rounds, lambda path=path: _hash(path))
        figures.append(Figure(f"{name}: hashing the file once", hashing, "entries/s"))
        for processes in (1, None):
            rate = entries / _best(options.rounds, lambda path=path, vkey=vkey, at=processes: _verify(path, vkey, at))
            where = "one process" if processes else "a process for each core"
            figures.append(Figure(f"{name}: verified, {where}", rate, "entries/s", None if processes else goal))
            figures.append(ratio(f"{name}: {where} ÷ hashing", rate, hashing))
    return Section("offline", "The offline verifier", figures, ["Stored members; signature and manifest included."])


def _write_bundle(path: Path, options: Options, event: Callable[[int], dict[str, JSONValue]]) -> str:
    log = MadeLog()
    for number in range(options.offline_entries):
        log.event(event(number))
    path.write_bytes(pack(log.bundle()))
    return log.vkey


def _bare(number: int) -> dict[str, JSONValue]:
    return {
        "id": f"panel-7:evt-{number}",
        "action": "schedule.updated",
        "verb": "UPDATE",
        "category": "schedules",
        "occurred_at": "2026-11-22T10:15:00.123456Z",
        "outcome": "success",
        "server_id": f"s{number % 9}",
        "source": {"id": "panel-7", "seq": number},
    }


def _full(number: int) -> dict[str, JSONValue]:
    user = number % 50
    return _bare(number) | {
        "actor": {
            "type": "user",
            "id": f"u{user}",
            "name": "Ana Gómez",
            "email": f"ana{user}@example.com",
            "role": "Admin",
        },
        "target": {"type": "schedule", "id": str(number % 1000), "name": "nightly"},
        "context": {"ip": f"203.0.113.{number % 200}"},
        "changes": [{"path": "/retention/days", "op": "replace", "old": 7, "new": number % 100}],
    }


def _best(rounds: int, work: Callable[[], None]) -> float:
    """Seconds of the quickest round."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _hash(path: Path) -> None:
    hasher = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    hasher.digest()


def _verify(path: Path, vkey: str, processes: int | None) -> None:
    report = verify(path, [vkey], processes=processes)
    if report.exit_code() != 0:
        raise BenchmarkError("the bundle did not verify")
