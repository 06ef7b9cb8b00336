"""A disk of its own for a service, small enough to be filled."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import asyncpg
import pytest

from tests.soak.harness import Stack
from tests.soak.scenarios import WRITERS

DISK_BYTES = 400 * 1024 * 1024
# With a full disk something must be refused within this time; until then pages that were there already are used up.
FULL_SECONDS = 30.0


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """An empty file system on `folder`; skips the test where there can be none."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a disk that can be filled needs root to mount it")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a disk that can be filled cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """No byte is free on the disk inside the block."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        while free := shutil.disk_usage(folder).free:
            with contextlib.suppress(OSError):  # the database took some of it in between
                os.posix_fallocate(file.fileno(), 0, ballast.stat().st_size + free)
    try:
        yield
    finally:
        ballast.unlink()


async def fill_disk(stack: Stack, folder: Path, seconds: float, random: Random, *, crash: bool) -> float:
    """Writers go on while the disk is full, for so long after the first 503; everything promised is there afterwards. Returns the
    seconds until it went on after space was freed.

    At first PostgreSQL refuses statements one by one, because tables cannot grow. With `crash` its write-ahead log cannot either: then it
    ends itself, and cannot start until there is space.
    """
    ledger = stack.ledger
    async with stack.fleet(WRITERS, random.randrange(10**6)).writing():
        await asyncio.sleep(0.3)
        with filled(folder):
            deadline = time.monotonic() + FULL_SECONDS
            while not ledger.refused_tries:
                assert time.monotonic() < deadline, "a full disk stopped nobody: this shows nothing"
                await asyncio.sleep(0.05)
            if crash:
                await _use_up_log(stack)
            await asyncio.sleep(seconds)
            assert (await stack.ask("GET", "/healthz")).status == 200
        recovery = await stack.recover(time.monotonic())
        await asyncio.sleep(0.2)
    await stack.assert_nothing_lost()
    return recovery


async def _use_up_log(stack: Stack) -> None:
    """Go from segment to segment of the write-ahead log, until there is no next one."""
    deadline = time.monotonic() + FULL_SECONDS
    with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        async with stack.owner() as connection:
            while time.monotonic() < deadline:
                await connection.execute("SELECT pg_switch_wal()")
                await asyncio.sleep(0.02)
    assert time.monotonic() < deadline, "the database never ran out of log: this shows nothing"
