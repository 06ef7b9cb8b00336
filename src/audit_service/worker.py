"""One worker: the web application on the socket the supervisor listens on.

    python -m audit_service.worker <descriptor of the listening socket>

The settings come as one JSON line on stdin, never on the command line or in the environment: they hold the
serving role's password. Nothing more is ever sent there; its end means that the supervisor is gone, and the
worker goes too.
"""

import ctypes
import gc
import json
import os
import signal
import socket
import sys
import threading
from typing import Any

import uvicorn

from audit_service.api.logs import configure as configure_logs
from audit_service.app import create_app
from audit_service.http_protocol import GuardedProtocol
from audit_service.settings import Settings

GC_THRESHOLD_OBJECTS = 50_000
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until SIGTERM, or until the supervisor is gone."""
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        sys.exit("the supervisor is gone")
    sent: dict[str, Any] = json.loads(line)
    _die_with(sent["parent"])
    settings = Settings(**sent["settings"])
    configure_logs(settings.log_level)
    listener = socket.socket(fileno=int(sys.argv[1]))
    configuration = _configuration(settings)
    _tune_collector()
    uvicorn.Server(configuration).run(sockets=[listener])


def _configuration(settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(settings),
        http=GuardedProtocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=settings.shutdown_timeout_seconds,
    )


def _tune_collector() -> None:
    """What was loaded until now stays: never look through it again. Requests leave few cycles, and many objects at once: the default of
    700 would look for cycles several times in every batch."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD_OBJECTS, 10, 10)


def _die_with(parent: int) -> None:
    """End at once when the supervisor dies, however it dies: nothing is acknowledged that is not committed.

    The kernel's signal works even while Python is busy; the end of stdin works where the kernel sends none.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the supervisor is gone")
    threading.Thread(target=_await_end_of_stdin, name="lifeline", daemon=True).start()


def _await_end_of_stdin() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through the buffer: its lock would hold up the end of the interpreter
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
