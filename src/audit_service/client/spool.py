"""Where recorded events wait until the service has them: a SQLite file that outlives the process, or memory.

**The file.** `put` returns after COMMIT with WAL and `synchronous=FULL`, so the event is on the disk. `position` is the order of
commit, and the order of sending. A delivered event is deleted only after its receipt has come; a crash in between means that it
is sent again, which its id makes harmless. Rejected events move to a table of their own.

**One sender.** Processes that share a file elect the sender by an exclusive lock on a second, empty SQLite file beside it
(`<spool>-sender`). Unlike a row with an expiry time it needs no clock and no writes while it is held, and the operating system takes it
from a killed process at once. Were it ever lost, two would send the same events: replays, not duplicates.

**Secrets.** Events wait here as they were recorded, before the service has redacted them. Both files are made readable for their owner
only; deleted rows are overwritten (`secure_delete`), and the write-ahead log is emptied when nothing waits.

**Forks.** A SQLite connection must not cross a fork: the child leaves its parent's alone and opens its own.
"""

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from audit_service.client.event import ClientError, Prepared, Rejected, Result

BUSY_SECONDS = 10.0
REJECTED_LIMIT_EVENTS = 1000  # in memory, where they are ids and problems only
_APPLICATION_ID, _VERSION = 0x41554453, 1
_SCHEMA = (
    "CREATE TABLE event (position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, body BLOB NOT NULL)",
    """CREATE TABLE rejected (position INTEGER PRIMARY KEY, id TEXT NOT NULL, status INTEGER NOT NULL,
    problem TEXT NOT NULL, body BLOB NOT NULL, rejected_at TEXT NOT NULL)""",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)
_opening = threading.Lock()
_left_to_parent: list[sqlite3.Connection] = []  # even closing one in the child could harm the parent's file


class SpoolError(ClientError):
    """The spool file cannot be used; the event was not recorded."""


class SpoolFullError(SpoolError):
    """As many events wait as may (or, with a spool, wait and lie rejected); the event was not recorded."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A recorded event and its place in the order."""

    position: int
    event: Prepared


class Outbox(Protocol):
    """Recorded events on their way to the service."""

    durable: bool

    def put(self, event: Prepared) -> None:
        """Record an event. Raises SpoolFullError."""

    def take(self, limit_events: int, limit_bytes: int) -> list[Waiting]:
        """The oldest events, which stay until settled; none when there are none or another process is sending."""

    def settle(self, taken: Sequence[Waiting], results: Sequence[Result | None]) -> None:
        """Forget the delivered, set the rejected aside, leave those without a result."""

    def release(self) -> None:
        """Let another process send."""

    def count(self) -> int:
        """Events that wait."""

    def last_position(self) -> int:
        """The position of the newest event there ever was; 0 before the first."""

    def is_past(self, position: int) -> bool:
        """Whether nothing up to this position waits."""

    def rejected(self) -> list[Rejected]:
        """The events set aside, oldest first."""

    def drop_rejected(self, ids: Sequence[str]) -> int:
        """Forget these. Returns how many there were."""

    def close(self) -> None:
        """Let go of files."""

    def after_fork(self) -> None:
        """In a forked child: what waits is the parent's to send."""


class Memory:
    """An outbox that ends with the process."""

    durable = False

    def __init__(self, limit_events: int) -> None:
        self._limit_events = limit_events
        self.after_fork()

    def after_fork(self) -> None:
        """Begin empty: the parent still has what it recorded."""
        self._lock = threading.Lock()
        self._events: deque[Waiting] = deque()
        self._rejected: deque[Rejected] = deque(maxlen=REJECTED_LIMIT_EVENTS)
        self._last = 0

    def put(self, event: Prepared) -> None:
        """Queue an event."""
        with self._lock:
            if len(self._events) >= self._limit_events:
                raise SpoolFullError(f"{self._limit_events} events wait in memory; the event was not recorded")
            self._last += 1
            self._events.append(Waiting(self._last, event))

    def take(self, limit_events: int, limit_bytes: int) -> list[Waiting]:
        """The oldest events."""
        with self._lock:
            return _cut(self._events, limit_events, limit_bytes)

    def settle(self, taken: Sequence[Waiting], results: Sequence[Result | None]) -> None:
        """Forget those with a result. Of a rejected one no copy stays, only its id and problem."""
        settled = {item.position for item, result in zip(taken, results, strict=True) if result is not None}
        with self._lock:
            front = [self._events.popleft() for _ in taken]
            self._events.extendleft(item for item in reversed(front) if item.position not in settled)
            self._rejected.extend(result for result in results if isinstance(result, Rejected))

    def release(self) -> None:
        """Nobody else sends these."""

    def count(self) -> int:
        """Events that wait."""
        with self._lock:
            return len(self._events)

    def last_position(self) -> int:
        """The newest event's position."""
        with self._lock:
            return self._last

    def is_past(self, position: int) -> bool:
        """Whether nothing up to this position waits."""
        with self._lock:
            return not self._events or self._events[0].position > position

    def rejected(self) -> list[Rejected]:
        """The last REJECTED_LIMIT_EVENTS, without the events."""
        with self._lock:
            return list(self._rejected)

    def drop_rejected(self, ids: Sequence[str]) -> int:
        """Forget these."""
        with self._lock:
            left = [item for item in self._rejected if item.id not in ids]
            dropped = len(self._rejected) - len(left)
            self._rejected = deque(left, REJECTED_LIMIT_EVENTS)
            return dropped

    def close(self) -> None:
        """Nothing is open."""


def _cut(events: Sequence[Waiting] | deque[Waiting], limit_events: int, limit_bytes: int) -> list[Waiting]:
    """The front within both limits, and always the first."""
    front: list[Waiting] = []
    size = 0
    for item in events:
        size += len(item.event.body)
        if front and (len(front) >= limit_events or size > limit_bytes):
            break
        front.append(item)
    return front


class Spool:
    """An outbox in a SQLite file. Any number of threads, clients and processes may share the file."""

    durable = True

    def __init__(self, path: Path, limit_events: int) -> None:
        self._path = Path(path).absolute()  # a daemon may change its folder later
        self._limit_events = limit_events
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._sender: sqlite3.Connection | None = None
        self._sending = False
        with self._open():
            pass  # a file that cannot be used shows now, not at the first event

    def put(self, event: Prepared) -> None:
        """Record an event; on the disk when this returns."""
        with self._transaction() as database:
            if _span(database) >= self._limit_events and _exact(database) >= self._limit_events:
                raise SpoolFullError(f"{self._path} holds {self._limit_events} events; the event was not recorded")
            database.execute("INSERT INTO event (id, body) VALUES (?, ?)", (event.id, event.body))

    def take(self, limit_events: int, limit_bytes: int) -> list[Waiting]:
        """The oldest events; none while another process sends."""
        with self._open() as database:
            if database.execute("SELECT 1 FROM event LIMIT 1").fetchone() is None or not self._elect():
                return []
            rows = database.execute(
                "SELECT position, id, body FROM event ORDER BY position LIMIT ?", (limit_events,)
            ).fetchall()
        return _cut([Waiting(row[0], Prepared(row[1], row[2])) for row in rows], limit_events, limit_bytes)

    def settle(self, taken: Sequence[Waiting], results: Sequence[Result | None]) -> None:
        """Delete the delivered, move the rejected, in one transaction."""
        now = datetime.now(UTC).isoformat()
        settled = [(item, result) for item, result in zip(taken, results, strict=True) if result is not None]
        refused = [
            (item.position, item.event.id, result.status, json.dumps(result.problem), item.event.body, now)
            for item, result in settled
            if isinstance(result, Rejected)
        ]
        if settled:
            with self._transaction() as database:
                database.executemany("INSERT OR IGNORE INTO rejected VALUES (?, ?, ?, ?, ?, ?)", refused)
                database.executemany("DELETE FROM event WHERE position = ?", [(item.position,) for item, _ in settled])

    def release(self) -> None:
        """Let another process send. When nothing waits, empty the write-ahead log, which still holds what was delivered."""
        with self._lock:
            if not self._sending or self._sender is None:
                return
            try:
                with self._open() as database:
                    if database.execute("SELECT 1 FROM event LIMIT 1").fetchone() is None:
                        _empty_log(database)
            finally:
                self._sending = False
                self._sender.execute("ROLLBACK")

    def count(self) -> int:
        """Events that wait."""
        with self._open() as database:
            return int(database.execute("SELECT count(*) FROM event").fetchone()[0])

    def last_position(self) -> int:
        """The newest event's position."""
        with self._open() as database:
            row = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
            return 0 if row is None else int(row[0])

    def is_past(self, position: int) -> bool:
        """Whether nothing up to this position waits."""
        with self._open() as database:
            return database.execute("SELECT 1 FROM event WHERE position <= ? LIMIT 1", (position,)).fetchone() is None

    def rejected(self) -> list[Rejected]:
        """The events set aside, with what was sent."""
        with self._open() as database:
            rows = database.execute("SELECT id, status, problem, body FROM rejected ORDER BY position").fetchall()
        return [Rejected(row[0], row[1], json.loads(row[2]), json.loads(row[3])) for row in rows]

    def drop_rejected(self, ids: Sequence[str]) -> int:
        """Delete these."""
        with self._transaction() as database:
            return database.executemany("DELETE FROM rejected WHERE id = ?", [(item,) for item in ids]).rowcount

    def close(self) -> None:
        """Close the files; what waits stays."""
        with self._lock:
            for connection in (self._sender, self._database):
                if connection is not None:
                    connection.close()
            self._sender = self._database = None
            self._sending = False

    def after_fork(self) -> None:
        """Leave the parent's connections alone, without closing them."""
        _left_to_parent.extend(item for item in (self._database, self._sender) if item is not None)
        self._lock = threading.RLock()
        self._database = self._sender = None
        self._sending = False

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone. SQLite's errors leave as SpoolError."""
        with self._lock:
            try:
                if self._database is None:
                    self._database = _opened(self._path)
                yield self._database
            except (sqlite3.Error, OSError) as error:
                raise SpoolError(f"{self._path}: {error}") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            finally:
                if database.in_transaction:
                    database.execute("ROLLBACK")

    def _elect(self) -> bool:
        """Whether we are the sender now."""
        if self._sending:
            return True
        if self._sender is None:
            self._sender = _connect(self._path.with_name(self._path.name + "-sender"), 0.0)
            self._sender.execute("PRAGMA journal_mode = OFF")
        try:
            self._sender.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            return False
        self._sending = True
        return True


def _connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    # Closing any descriptor of a file drops this process's locks on it, so only the one who makes the file opens it by hand.
    with _opening:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        return sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)


def _opened(path: Path) -> sqlite3.Connection:
    """A connection with its settings, and the schema in a new file. Another process may be doing the same."""
    database = _connect(path, BUSY_SECONDS)
    try:
        if not _is_spool(database):
            _switch_to_wal(database)
            database.execute("BEGIN IMMEDIATE")
            if not _is_spool(database):
                for statement in _SCHEMA:
                    database.execute(statement)
            database.execute("COMMIT")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA secure_delete = ON")
    except BaseException:
        database.close()
        raise
    return database


def _is_spool(database: sqlite3.Connection) -> bool:
    """Whether the file is a spool; False when it is empty. Raises for anything else, which stays as it is."""
    found = (_number(database, "PRAGMA application_id"), _number(database, "PRAGMA user_version"))
    if found == (_APPLICATION_ID, _VERSION):
        return True
    if found != (0, 0) or _number(database, "SELECT count(*) FROM sqlite_master"):
        raise sqlite3.DatabaseError("the file is not a spool of this version")
    return False


def _switch_to_wal(database: sqlite3.Connection) -> None:
    """The first switch of a new file needs it alone, and SQLite does not wait for that by itself."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            mode = database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if (
                error.sqlite_errorcode not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
                or time.monotonic() > deadline
            ):
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise sqlite3.OperationalError(f"no write-ahead log here (journal mode {mode}): is this a local disk?")
        return


def _empty_log(database: sqlite3.Connection) -> None:
    """Write the log's pages back and cut it to nothing; a reader in the way means another time."""
    database.execute("PRAGMA busy_timeout = 0")
    try:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        database.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")


def _number(database: sqlite3.Connection, query: str) -> int:
    row: tuple[Any, ...] = database.execute(query).fetchone()
    return int(row[0])


def _span(database: sqlite3.Connection) -> int:
    """At least as many events as there are, found without counting them: positions have few holes."""
    # Each bound is a query of its own: SQLite answers a lone min or max from the end of the tree, both together by a scan.
    spans = [
        _number(database, f"SELECT coalesce((SELECT max(position) FROM {table}) - (SELECT min(position) FROM {table}) + 1, 0)")  # noqa: S608 - our own names
        for table in ("event", "rejected")
    ]  # fmt: skip
    return sum(spans)


def _exact(database: sqlite3.Connection) -> int:
    return _number(database, "SELECT (SELECT count(*) FROM event) + (SELECT count(*) FROM rejected)")
