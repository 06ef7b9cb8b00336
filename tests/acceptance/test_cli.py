"""Commands on the database, as an operator runs them: what they say, their exit codes, and that they never wait for ever."""

import asyncio
import json
import os
import sys
from typing import NamedTuple

import pytest
from sqlalchemy import text

from audit_service.cli import EXIT_GOOD, EXIT_UNKNOWN, as_owner
from tests.support.postgres import Server, TestDatabase

# The interpreter needs its time to start, too; a command that waits for a paused database needs minutes.
PATIENCE_SECONDS = 20.0


class Told(NamedTuple):
    """How a command ended."""

    status: int
    out: bytes
    err: bytes


async def tell(database: TestDatabase, *arguments: str) -> Told:
    """Run `audit-service` with these arguments on the database, as its superuser. Raises TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "audit_service.cli", *arguments),
        env={**os.environ, "AUDIT_DATABASE_URL": database.owner_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode is not None
    return Told(process.returncode, out, err)


async def test_a_key_is_created_listed_and_revoked(database: TestDatabase) -> None:
    created = await tell(database, "keys", "create", "panel", "--scope", "ingest", "--json")
    assert (created.status, created.err) == (EXIT_GOOD, b"")
    key_id = json.loads(created.out)["key_id"]
    assert (await tell(database, "keys", "revoke", key_id)).status == EXIT_GOOD
    listed = json.loads((await tell(database, "keys", "list", "--json")).out)
    (found,) = [key for key in listed if key["key_id"] == key_id]
    assert (found["name"], found["scopes"], found["revoked_at"] is not None) == ("panel", ["ingest"], True)


async def test_a_failed_command_is_one_line_and_exit_2(database: TestDatabase) -> None:
    told = await tell(database, "keys", "revoke", "nobody")
    assert told == (EXIT_UNKNOWN, b"", b"audit-service: no such key\n")


async def test_commands_act_as_the_owner_role_and_not_as_whoever_logs_in(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_DATABASE_URL", database.owner_url)
    user = await asyncio.to_thread(as_owner, lambda connection: connection.scalar(text("SELECT current_user")))
    assert user == "audit_owner"


async def test_commands_give_up_on_a_paused_database(server: Server, database: TestDatabase) -> None:
    with server.paused():
        told = await asyncio.gather(tell(database, "keys", "list"), tell(database, "verify", "--json"))
    for one in told:
        assert one == (EXIT_UNKNOWN, b"", b"audit-service: the database is not reachable\n")
