"""The harness itself under test: a service with one guard taken out must make the comparison find what the guard prevents."""

import asyncio
import sys
import time
from pathlib import Path
from random import Random

from tests.soak.faults import FAULTS
from tests.soak.harness import Stack, Violations, embedded_stack, external_stack
from tests.soak.scenarios import WRITERS
from tests.store.test_append_concurrency import BROKEN, UNLOCKED, count_forked
from tests.support.appends import function_text
from tests.support.postgres import Server, TestDatabase

ROUNDS = 12
RACE_EVENTS = 600

# `serve` whose check of the durability settings finds nothing wrong, and whose workers do not wait for the disk at commit.
_CARELESS_WORKER = """
import audit_service.store.engine as engine
engine.DURABLE_SETTINGS = {}
engine.COMMIT_DURABLY = "SET synchronous_commit = off"
from audit_service.worker import main
main()
"""
_CARELESS_SERVE = f"""
import sys
import audit_service.store.engine as engine
import audit_service.supervisor as supervisor
from audit_service.settings import Settings
engine.DURABLE_SETTINGS = {{}}
def command(child):
    return (sys.executable, "-P", "-c", {_CARELESS_WORKER!r}, *map(str, child.descriptors), child.module)
supervisor.Child.command = property(command)
raise SystemExit(supervisor.serve(Settings()))
"""
_CARELESS_COMMAND = [sys.executable, "-P", "-c", _CARELESS_SERVE]

_FORGETFUL = function_text(
    [("SELECT array_agg(r.id IS NOT NULL ORDER BY i.ord)", "SELECT array_agg(false ORDER BY i.ord)")]
)
_REPLACE = "DROP FUNCTION audit.append_entries; {} ; GRANT EXECUTE ON FUNCTION audit.append_entries TO audit_serving;"


async def lose_events(data_dir: Path, random: Random) -> Violations:
    """A service that does not wait for the disk at commit, and every process of its database killed under load."""
    async with embedded_stack(data_dir, command=_CARELESS_COMMAND, workers=1) as stack:
        for _ in range(ROUNDS):
            async with stack.fleet(WRITERS, random.randrange(10**6)).writing():
                await asyncio.sleep(random.uniform(0.3, 0.6))
                since = time.monotonic()
                async with FAULTS["every process of the database"].inject(stack, random):
                    await stack.recover(since)
            if (violations := await stack.find_violations()).lost:
                return violations
    return Violations()


async def duplicate_events(server: Server, database: TestDatabase, data_dir: Path, random: Random) -> Violations:
    """A service without the look at known ids, and connections reset under load, so that writers ask again."""
    async with external_stack(data_dir, server, database, workers=1) as stack:
        async with stack.owner() as connection:
            await connection.execute("ALTER TABLE audit.receipt DROP CONSTRAINT receipt_pkey")
            await connection.execute(_REPLACE.format(_FORGETFUL))
        for _ in range(ROUNDS):
            async with (
                stack.fleet(WRITERS, random.randrange(10**6)).writing(),
                FAULTS["connections reset before the service"].inject(stack, random),
            ):
                pass
            if (violations := await stack.find_violations()).duplicated:
                return violations
    return Violations()


async def fork_log(stack: Stack, random: Random) -> int:
    """Without the lock on the head, two workers: how many entries share their predecessor with an earlier one."""
    async with stack.owner() as connection:
        await connection.execute(BROKEN + UNLOCKED)
        await connection.execute("GRANT EXECUTE ON FUNCTION audit.append_entries TO audit_serving")
        log_id = await connection.fetchval("SELECT log_id FROM audit.tenant WHERE name = 'default'")
        for _ in range(ROUNDS):
            await stack.fleet(2 * WRITERS, random.randrange(10**6)).write(RACE_EVENTS)
            if forked := await count_forked(connection, log_id):
                return forked
    return 0
