"""The registry of faults: each an async context manager that breaks something of a stack and, at the end of its block, mends it.

`kill` faults are for the embedded form, where `serve` mends them by itself (a killed `serve` is started again, as an init system would).
`away` faults take the database from the service: nothing may be acknowledged inside the block. `rough` ones hurt connections on the
way; writers go on inside the block.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from random import Random
from typing import Literal

import psutil

from audit_service.embedded import EmbeddedPostgres
from tests.soak.harness import Stack
from tests.soak.proxy import Action, Proxy
from tests.support.processes import is_alive, wait_until

FaultKind = Literal["kill", "away", "rough"]
Inject = Callable[[Stack, Random], AbstractAsyncContextManager[None]]
# How long connections are hurt.
ROUGH_SECONDS = 1.2


@dataclass(frozen=True, slots=True)
class Fault:
    """One way things go wrong."""

    name: str
    kind: FaultKind
    inject: Inject


FAULTS: dict[str, Fault] = {}


def names(*kinds: FaultKind) -> list[str]:
    """The names of the faults of some kinds."""
    return [fault.name for fault in FAULTS.values() if fault.kind in kinds]


def _fault(kind: FaultKind, name: str) -> Callable[[Callable[[Stack, Random], AsyncIterator[None]]], Inject]:
    def register(function: Callable[[Stack, Random], AsyncIterator[None]]) -> Inject:
        inject = contextlib.asynccontextmanager(function)
        FAULTS[name] = Fault(name, kind, inject)
        return inject

    return register


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # also when its id is another's by now
            process.send_signal(number)


# -- kill ------------------------------------------------------------------------------------------------------------------------------


@_fault("kill", "every process of the database")
async def _kill_database(stack: Stack, _random: Random) -> AsyncIterator[None]:
    _signal(stack.database_processes(), signal.SIGKILL)
    yield


@_fault("kill", "the parent of the database")
async def _kill_postmaster(stack: Stack, _random: Random) -> AsyncIterator[None]:
    stack.service.postmaster().kill()
    yield


@_fault("kill", "one process of the database")
async def _kill_backend(stack: Stack, random: Random) -> AsyncIterator[None]:
    parent = stack.service.postmaster()
    _signal([random.choice([one for one in stack.database_processes() if one.pid != parent.pid])], signal.SIGKILL)
    yield


@_fault("kill", "a worker")
async def _kill_worker(stack: Stack, random: Random) -> AsyncIterator[None]:
    _signal([random.choice(stack.service.workers())], signal.SIGKILL)
    yield


@_fault("kill", "every worker")
async def _kill_workers(stack: Stack, _random: Random) -> AsyncIterator[None]:
    _signal(stack.service.workers(), signal.SIGKILL)
    yield


@_fault("kill", "the supervisor")
async def _kill_supervisor(stack: Stack, _random: Random) -> AsyncIterator[None]:
    await asyncio.to_thread(stack.service.kill)
    await asyncio.to_thread(stack.start, wait=False)
    yield


@_fault("kill", "the whole service with its database")
async def _kill_all(stack: Stack, _random: Random) -> AsyncIterator[None]:
    everybody = [psutil.Process(stack.service.process.pid), *stack.service.children()]
    _signal(everybody, signal.SIGKILL)
    await asyncio.to_thread(stack.service.process.wait, 10)
    await asyncio.to_thread(wait_until, lambda: not any(map(is_alive, everybody)), "the end of what was killed")
    await asyncio.to_thread(stack.start, wait=False)
    yield


# -- away ------------------------------------------------------------------------------------------------------------------------------


@_fault("away", "the database killed")
async def _database_killed(stack: Stack, _random: Random) -> AsyncIterator[None]:
    server = _server(stack)
    _signal(stack.database_processes(), signal.SIGKILL)
    yield
    await asyncio.to_thread(server.start)


@_fault("away", "the database stopped")
async def _database_stopped(stack: Stack, _random: Random) -> AsyncIterator[None]:
    server = _server(stack)
    await asyncio.to_thread(server.stop)
    yield
    await asyncio.to_thread(server.start)


@_fault("away", "the database paused")
async def _database_paused(stack: Stack, _random: Random) -> AsyncIterator[None]:
    paused = stack.database_processes()
    _signal(paused, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(paused, signal.SIGCONT)


@_fault("away", "the database refusing connections")
async def _database_refusing(stack: Stack, _random: Random) -> AsyncIterator[None]:
    back = _back(stack)
    await back.refuse()
    try:
        yield
    finally:
        await back.accept()


@_fault("away", "the database slower than the service waits")
async def _database_crawling(stack: Stack, _random: Random) -> AsyncIterator[None]:
    back = _back(stack)
    back.slow(6.0)
    try:
        yield
    finally:
        back.mend()


# -- rough -----------------------------------------------------------------------------------------------------------------------------


@_fault("rough", "the database slow")
async def _database_slow(stack: Stack, random: Random) -> AsyncIterator[None]:
    back = _back(stack)
    back.slow(random.uniform(0.05, 0.4))
    try:
        yield
        await asyncio.sleep(ROUGH_SECONDS)
    finally:
        back.mend()


def _back(stack: Stack) -> Proxy:
    assert stack.back is not None, "this fault needs a proxy before the database"
    return stack.back


def _server(stack: Stack) -> EmbeddedPostgres:
    assert stack.server is not None, "this fault needs a database of the harness"
    return stack.server.postgres


def _rough(place: str, action: Action) -> None:
    @_fault("rough", f"connections {action} before the {place}")
    async def _hurt(stack: Stack, random: Random) -> AsyncIterator[None]:
        proxy = _back(stack) if place == "database" else stack.front
        before = proxy.broken_connections
        proxy.break_connections(action, random)
        try:
            yield
            await asyncio.sleep(ROUGH_SECONDS)
            assert proxy.broken_connections > before, "no connection was hurt: this shows nothing"
        finally:
            proxy.mend()


for _place in ("database", "service"):
    for _action in ("cut", "reset", "stall"):
        _rough(_place, _action)
