"""`audit-service drill`: green on the service as it is, red on one that was made blind, and the real log is only read."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audit_service import verify as verifying
from audit_service.console import EXIT_GOOD
from audit_service.core.checker import Checker
from audit_service.core.explanation import Explanations
from audit_service.core.pinned import Judged
from audit_service.drill.case import INCOMPLETE, NO_LOG, REFUSED, Case, Observer
from audit_service.drill.drilling import RED, Outcome, drill
from audit_service.drill.matrix import cases
from audit_service.drill.scratch import ENTRIES_MINIMUM, Ground, copied_entries, open_ground
from audit_service.embedded_process import cluster_processes
from audit_service.errors import AuditError
from audit_service.offline.verify_file import Findings
from audit_service.signing.checkpointer import Checkpointer
from audit_service.signing.lease import Signing
from audit_service.store.engine import Database
from tests.support.appends import existing_log, owner, wait_until
from tests.support.commands import tell
from tests.support.forgotten import Forgetter
from tests.support.postgres import TestDatabase, default_log_id
from tests.support.tampering import EVENTS, FULL_SEQ, SIZE

pytestmark = pytest.mark.timeout(900)
THREATS = {f"A{number}" for number in range(1, 16)}
PATIENCE_SECONDS = 600
CASES = {case.name: case for case in cases()}


@pytest.fixture(scope="module")
def empty_ground(server: object) -> Iterator[Ground]:
    """A drill's own server; that of the run comes first, because it clears the environment of settings."""
    del server
    with open_ground(print) as opened:
        yield opened


@pytest.fixture(scope="module")
async def ground(empty_ground: Ground) -> Ground:
    """With a log of which nothing was copied."""
    await empty_ground.build([], ENTRIES_MINIMUM, lambda _: None)
    return empty_ground


async def run(ground: Ground, *chosen: Case) -> list[Outcome]:
    return [outcome async for outcome in drill(ground, chosen)]


async def digest_of(database: TestDatabase) -> list[str]:
    """Everything that is stored of logs."""
    async with owner(database) as admin:
        tables = ("log", "entry", "receipt", "checkpoint", "tenant", "signer")
        return [
            await admin.fetchval(f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM audit.{table} AS t")
            for table in tables
        ]


async def test_the_drill_is_green_and_only_reads_the_log(database: TestDatabase, pools: Database) -> None:
    """On a log with entries that were forgotten, which cannot be copied; nothing is left behind."""
    log = await existing_log(database, await default_log_id(database))
    await log.accept(pools, *({**event, "id": f"own-{number}"} for number, event in enumerate(EVENTS)))
    async with owner(database) as admin:
        forgetter = Forgetter(admin, log.log_id, f"{log.log.service_name}/t/{log.log.log_key}/1")
        await forgetter.drop((0, 2))
        await forgetter.erase(FULL_SEQ, "actor")
    before, folders = await digest_of(database), set(drill_folders())
    status, told = await drill_command(database)
    outcomes = told["outcomes"]
    assert [one for one in outcomes if one["verdict"] != "as expected"] == []
    assert (status, told["copied"], len(outcomes)) == (EXIT_GOOD, SIZE - 3, len(CASES))
    assert {one["threat"] for one in outcomes if not one["lawful"]} >= THREATS
    assert {one["threat"] for one in outcomes if one["lawful"]} >= THREATS, "an attack without a lawful twin"
    assert (await digest_of(database), set(drill_folders())) == (before, folders)


async def drill_command(database: TestDatabase) -> tuple[int, dict[str, Any]]:
    told = await tell(database, "drill", "--json", "--entries", str(ENTRIES_MINIMUM), seconds=PATIENCE_SECONDS)
    assert told.out, told.err
    return told.status, json.loads(told.out)


def drill_folders() -> list[Path]:
    return found(Path(tempfile.gettempdir()), "audit-drill-*")


def found(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


async def test_a_drill_that_is_ended_leaves_nothing_behind(database: TestDatabase, tmp_path: Path) -> None:
    """In the middle of it, with its server at work."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "audit_service.cli", "drill", "--json", "--entries", str(ENTRIES_MINIMUM)),
        env={**os.environ, "AUDIT_DATABASE_URL": database.owner_url, "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def is_attacking() -> bool:
        return process.returncode is not None or bool(found(tmp_path, "audit-drill-*/drill_1"))

    await wait_until(is_attacking, "the first attack")
    servers = [one for folder in found(tmp_path, "audit-drill-*") for one in cluster_processes(folder / "postgres")]
    process.terminate()
    assert await process.wait() == 128 + signal.SIGTERM
    assert servers
    assert not any(one.is_running() for one in servers)
    assert found(tmp_path, "*") == []


async def test_what_was_forgotten_or_damaged_is_not_copied(database: TestDatabase, pools: Database) -> None:
    log = await existing_log(database, await default_log_id(database))
    await log.accept(pools, *({**event, "id": f"own-{number}"} for number, event in enumerate(EVENTS)))
    whole = await copied_entries(pools.reads, log.log_id, 100)
    async with owner(database) as admin:
        await admin.execute("ALTER TABLE audit.entry DISABLE TRIGGER ALL")
        await admin.execute("UPDATE audit.entry SET body = body || ' ' WHERE seq = 1")
        await admin.execute("UPDATE audit.entry SET d_changes = d_changes || ' ' WHERE seq = $1", FULL_SEQ)
        await admin.execute("UPDATE audit.entry SET action = 'projections.are_made_anew' WHERE seq = 0")
    left = await copied_entries(pools.reads, log.log_id, 100)
    assert left == [one for number, one in enumerate(whole) if number not in (1, FULL_SEQ)]
    assert [one.body for one in await copied_entries(pools.reads, log.log_id, 2)] == [one.body for one in whole[-2:]]


def judged_well(pinned: Any, _trust: Any, _found: Any) -> tuple[list[Judged], list[Any]]:
    return [Judged(one.checkpoint, "consistent", "not looked at", "pinned") for one in pinned], []


def without_refusals(genuine: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """What the signer does, but that it refuses nothing."""

    async def silent(*arguments: Any) -> Any:
        try:
            return await genuine(*arguments)
        except AuditError:
            return None

    return silent


async def test_every_attack_slips_through_where_its_finder_is_blind(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the drill: with verifier, offline verifier and signer silenced, whatever they should have found is red."""
    silenced = [case for case in CASES.values() if not case.lawful and not found_otherwise(case)]
    monkeypatch.setattr(Checker, "_break", lambda *_: None)
    monkeypatch.setattr(Checker, "_not_checked", lambda *_: None)
    monkeypatch.setattr(verifying, "judge", judged_well)
    monkeypatch.setattr(Findings, "fail", lambda *_, **__: None)
    monkeypatch.setattr(Findings, "leave", lambda *_, **__: None)
    monkeypatch.setattr(Signing, "require_lease", without_refusals(Signing.require_lease))
    monkeypatch.setattr(Checkpointer, "round", without_refusals(Checkpointer.round))
    caught = [outcome.case.name for outcome in await run(ground, *silenced) if outcome.verdict not in RED]
    assert caught == []
    assert len(silenced) > len(CASES) / 2


def found_otherwise(case: Case) -> bool:
    """Not found at all; or by what is not there: no tenant, no bundle, a format that cannot be read, a hole in numbers. Without a key
    the chain is incomplete after a lawful prune, too."""
    nothing: frozenset[str] = frozenset()
    verified = [case.expected.get(who, nothing) - {NO_LOG, INCOMPLETE if who == "chain" else ""} for who in VERIFIERS]
    return not any(verified) and not case.expected.get("bundle", nothing) - {REFUSED, INCOMPLETE}


VERIFIERS: tuple[Observer, ...] = ("chain", "checkpoint", "elsewhere", "signer")
KINDS = (
    "header_mismatch", "body_mismatch", "disclosure_mismatch", "projection_mismatch", "gap", "duplicate", "time_backwards",
    "head_mismatch", "truncated", "root_mismatch", "unrecorded_prune", "unrecorded_erasure",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
async def test_a_drill_is_red_when_one_kind_of_break_is_kept_silent(
    ground: Ground, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = next(case for case in CASES.values() if kind in case.expected.get("checkpoint", ()))
    [sound] = await run(ground, case)
    genuine = Checker._break

    def silent(self: Checker, seq: int, found: Any, *told: Any) -> None:
        if found != kind:
            genuine(self, seq, found, *told)

    monkeypatch.setattr(Checker, "_break", silent)
    [blind] = await run(ground, case)
    assert (sound.verdict, blind.verdict) == ("as expected", "slipped through")


async def test_a_drill_is_red_when_lawful_forgetting_is_taken_for_an_attack(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Explanations, "add", lambda *_: None)
    outcomes = await run(ground, *(CASES[name] for name in ("a log cleared", "events erased", "a log pruned")))
    assert {outcome.verdict for outcome in outcomes} <= RED


async def test_a_signer_that_is_away_is_not_taken_for_one_that_refuses(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(_: Checkpointer) -> None:
        raise AuditError("away")

    monkeypatch.setattr(Checkpointer, "round", unavailable)
    with pytest.raises(AuditError):
        await run(ground, CASES["an older backup restored"])
