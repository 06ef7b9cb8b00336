"""Bringing checkpoints to where the operator of this service cannot change them: HTTP endpoints, and a program.

Each destination is served by itself. While one does not take a note, the next note of the same log replaces it, for it says all that the
older one did; so a destination that is away costs one note a log, and signing never waits. Only the host of a URL is ever logged: the rest
may be a secret.
"""

import asyncio
import shlex
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Self
from urllib.parse import urlsplit

import httpx
import structlog

TIMEOUT_SECONDS = 10.0
COMMAND_TIMEOUT_SECONDS = 30.0
_DELAYS_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)
_MEDIA_TYPE = "text/plain; charset=utf-8"
log = structlog.get_logger("audit_service.signer")

# Takes a note; raises _NotTakenError, OSError or httpx.HTTPError.
_Send = Callable[[str], Awaitable[None]]


class _NotTakenError(Exception):
    """The destination answered, and did not take the note; the text says how."""


class Deliveries:
    """Every destination. `async with` it; leaving the block drops what is not delivered: the notes are kept elsewhere."""

    def __init__(self, urls: Sequence[str], command: str | None) -> None:
        self._urls, self._command = urls, command
        self._destinations: list[_Destination] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        client = await self._stack.enter_async_context(httpx.AsyncClient(timeout=TIMEOUT_SECONDS))
        sends = [(urlsplit(url).hostname or "", _poster(client, url)) for url in self._urls]
        if self._command is not None:
            arguments = shlex.split(self._command)
            sends.append((arguments[0].rpartition("/")[2], _runner(arguments)))
        for name, send in sends:
            self._destinations.append(await self._stack.enter_async_context(_Destination(name, send)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def offer(self, log_key: str, note: str) -> None:
        """Deliver a note of a log, everywhere, as soon as may be."""
        for destination in self._destinations:
            destination.offer(log_key, note)


class _Destination:
    def __init__(self, name: str, send: _Send) -> None:
        self._name, self._send = name, send
        self._waiting: dict[str, str] = {}  # log key → its newest note
        self._news = asyncio.Event()
        self._failures = 0

    def offer(self, log_key: str, note: str) -> None:
        self._waiting[log_key] = note
        self._news.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                log_key = next(iter(self._waiting))
                note = self._waiting.pop(log_key)
                if not await self._deliver(note):
                    self._waiting.setdefault(log_key, note)
                    await asyncio.sleep(_DELAYS_SECONDS[min(self._failures, len(_DELAYS_SECONDS)) - 1])

    async def _deliver(self, note: str) -> bool:
        try:
            await self._send(note)
        except (_NotTakenError, OSError, TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
            self._failures += 1
            if self._failures == 1:  # its end is said, too; what lies between is silence
                why = str(error) if isinstance(error, _NotTakenError) else type(error).__name__
                log.warning("a checkpoint was not taken; trying again", destination=self._name, why=why)
            return False
        if self._failures:
            log.warning("checkpoints are taken again", destination=self._name, failures=self._failures)
        self._failures = 0
        return True


def _poster(client: httpx.AsyncClient, url: str) -> _Send:
    async def post(note: str) -> None:
        answer = await client.post(url, content=note.encode(), headers={"Content-Type": _MEDIA_TYPE})
        if not answer.is_success:
            raise _NotTakenError(f"status {answer.status_code}")

    return post


def _runner(arguments: Sequence[str]) -> _Send:
    async def run(note: str) -> None:
        process = await asyncio.create_subprocess_exec(*arguments, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL)
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_SECONDS):
                await process.communicate(note.encode())
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            raise _NotTakenError(f"exit status {process.returncode}")

    return run
