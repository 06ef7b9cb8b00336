"""How a child of `serve` begins: its settings come on stdin, and it does not outlive the supervisor.

The settings come as one JSON line, never on the command line or in the environment: they hold the serving role's password. Nothing more is
ever sent there; its end means that the supervisor is gone, and the child goes too.
"""

import ctypes
import json
import os
import signal
import sys
import threading
from typing import Any

from audit_service.settings import Settings

_PR_SET_PDEATHSIG = 1


def read_settings() -> Settings:
    """The settings sent by the supervisor, with whom this process ends from here on."""
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        sys.exit("the supervisor is gone")
    sent: dict[str, Any] = json.loads(line)
    _die_with(sent["parent"])
    return Settings(**sent["settings"])


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
