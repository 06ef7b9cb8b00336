"""The service as real processes: start it, ask it, kill it, and leave nothing behind."""

import contextlib
import os
import queue
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import psutil

SERVE = """
from audit_service.settings import Settings
from audit_service.supervisor import serve
raise SystemExit(serve(Settings()))
"""
START_SECONDS = 60.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Poll until the condition holds; fails the test, naming `what`, when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds:g} s: {what}"
        time.sleep(0.02)


class Service:
    """A running `serve`. Leave its `with` block and every process it ever had is gone."""

    def __init__(self, command: list[str], data_dir: Path, environment: Mapping[str, str], uid: int | None) -> None:
        self.data_dir = data_dir
        self.url = f"http://127.0.0.1:{environment['AUDIT_PORT']}"
        self.admin_key = environment["AUDIT_BOOTSTRAP_KEY"]
        self.process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
        self.lines: list[str] = []
        self._news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._seen: dict[int, psutil.Process] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """What it has written to stderr so far."""
        return "\n".join(self.lines)

    def wait_for_line(self, pattern: str, seconds: float = START_SECONDS) -> str:
        """The next line that matches, from where the last wait ended; fails the test when there is none."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._news.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"no line like {pattern!r} in:\n{self.output}"
            if re.search(pattern, line):
                return line

    def wait_until_read(self) -> None:
        """Wait until all that the ended process has written is in `lines`."""
        self._reader.join(10)

    def wait_until_answering(self, seconds: float = START_SECONDS) -> None:
        """Wait until a worker answers."""
        wait_until(lambda: self.answers("/healthz"), f"an answer from {self.url}; it said:\n{self.output}", seconds)

    def answers(self, path: str) -> bool:
        """Whether a GET of `path` succeeds now."""
        try:
            return httpx.get(self.url + path, timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def children(self) -> list[psutil.Process]:
        """The living processes below the supervisor."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self._seen |= {process.pid: process for process in found}
        return [process for process in found if is_alive(process)]

    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        return [process for process in self.children() if "audit_service.worker" in _command(process)]

    def postmaster(self) -> psutil.Process:
        """The PostgreSQL that the supervisor started."""
        return next(
            process
            for process in self.children()
            if process.ppid() == self.process.pid and process.name() == "postgres"
        )

    def everybody_seen(self) -> list[psutil.Process]:
        """Every process that any look at the children has found, dead or alive."""
        self.children()
        return list(self._seen.values())

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM, and wait. Returns the exit code."""
        self.children()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL to the supervisor alone, and wait for it."""
        self.children()
        self.process.kill()
        self.process.wait(10)

    def reap(self) -> None:
        """End whatever is left."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.children()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        left = [process for process in self._seen.values() if is_alive(process)]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, 10)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.lines.append(line.rstrip("\n"))
                self._news.put(line)
        self._news.put(None)


@contextlib.contextmanager
def start_service(
    data_dir: Path,
    *,
    wait: bool = True,
    uid: int | None = None,
    command: list[str] | None = None,
    **environment: str,
) -> Iterator[Service]:
    """Run `serve` on `data_dir`, with more AUDIT_ settings if given, and wait until it answers.

    `command` runs something else than `serve` in this interpreter; `uid` runs it as that user (needs root).
    """
    settings = {
        "AUDIT_DATA_DIR": str(data_dir),
        "AUDIT_PORT": str(free_port()),
        "AUDIT_BOOTSTRAP_KEY": "test-" + secrets.token_urlsafe(32),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_")}
    service = Service(command or [sys.executable, "-P", "-c", SERVE], data_dir, kept | settings | environment, uid)
    try:
        if wait:
            service.wait_for_line("listening on")
            service.wait_until_answering()
        yield service
    finally:
        service.reap()


def is_alive(process: psutil.Process) -> bool:
    """Whether the process still runs; one that only waits to be reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
