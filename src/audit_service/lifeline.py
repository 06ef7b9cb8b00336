"""How a child of `serve` begins and ends: its settings come on stdin, it stops on a signal, and it does not outlive the supervisor.

The settings come as one JSON line, never on the command line or in the environment: they hold the serving role's password. Nothing more is
ever sent there; its end means that the supervisor is gone, and the child goes too.
"""

import asyncio
import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from structlog.typing import FilteringBoundLogger

from audit_service.api.logs import configure as configure_logs
from audit_service.errors import AuditError
from audit_service.settings import Settings

_PR_SET_PDEATHSIG = 1


def run_child(
    run: Callable[[Settings, asyncio.Event], Coroutine[Any, Any, int | None]], *, niceness: int, at_once: bool = False
) -> NoReturn:
    """The life of a child: `run` with the supervisor's settings until a signal, as `until_signal`, then the end of the process."""
    settings = read_settings()
    configure_logs(settings.log_level)
    os.nice(niceness)
    sys.exit(asyncio.run(until_signal(lambda stopped: run(settings, stopped), at_once=at_once)))


async def until_signal(
    run: Callable[[asyncio.Event], Coroutine[Any, Any, int | None]], *, at_once: bool = False
) -> int:
    """The exit status that `run` answers, 0 for None. SIGTERM and SIGINT set the event that it is given, for it to end its step first; with
    `at_once` they cancel it, for steps of hours that are done as far as they came."""
    stopped = asyncio.Event()
    running = asyncio.create_task(run(stopped))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel if at_once else stopped.set)
    try:
        return await running or 0
    except asyncio.CancelledError:
        if at_once:
            return 0
        raise


async def pause(stopped: asyncio.Event, seconds: float) -> None:
    """Wait, but no longer than until the stop."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stopped.wait(), seconds)


@contextmanager
def tried_again(
    log: FilteringBoundLogger, failure: str, /, *, passing: tuple[type[Exception], ...] = (), **about: str
) -> Iterator[None]:
    """A step whose failure is logged as `failure`, with what it was `about`, and stops no other; the next round tries it again.

    An error of a kind in `passing` is raised.
    """
    try:
        yield
    except passing:
        raise
    except AuditError as error:
        log.warning(failure, detail=error.detail, **about)
    except Exception as error:  # noqa: BLE001 - a child that dies of one surprise does nothing more
        # Its name only: the text of an error of the database may hold a value.
        log.warning(failure, error=type(error).__name__, **about)


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
