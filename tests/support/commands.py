"""Running `audit-service` as an operator does: on a database, and on the data directory of a service."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.support.postgres import TestDatabase

# The interpreter needs its time to start, too; a command that waits for a paused database needs minutes.
PATIENCE_SECONDS = 60.0


class Told(NamedTuple):
    """How a command ended."""

    status: int
    out: bytes
    err: bytes


async def tell(database: TestDatabase, *arguments: str, seconds: float = PATIENCE_SECONDS) -> Told:
    """Run `audit-service` with these arguments on the database, as its superuser. Raises TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "audit_service.cli", *arguments),
        env={**os.environ, "AUDIT_DATABASE_URL": database.owner_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode is not None
    return Told(process.returncode, out, err)


def command(
    data_dir: Path, *arguments: str, piped: str | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run `audit-service` on a data directory, with something piped in; `environment`: its only settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "audit_service.cli", *arguments],
        env=kept | {"AUDIT_DATA_DIR": str(data_dir)} | environment,
        input=piped,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/",
    )
