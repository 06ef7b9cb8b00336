"""`python -m benchmarks.seed`: the log it makes verifies, is what the service itself would have stored, and is as skewed as promised."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from statistics import correlation
from typing import Any

import asyncpg
import httpx
import pytest
from benchmarks.report import BenchmarkError
from benchmarks.seeding import cache
from benchmarks.seeding.actions import SECRET_MARK
from benchmarks.seeding.cache import SEED, Seeded, fingerprint, seeded
from benchmarks.seeding.history import CALL_EVENTS, NEEDLES, RARE_FRAGMENT_EVENTS, History
from benchmarks.seeding.load import Job, load
from benchmarks.service import Running, running

from audit_service.core.canonical import canonical_bytes
from audit_service.core.entry import GROUPS, SALT_BYTES
from audit_service.ingest import Log
from audit_service.store.migrate import scripts_dir
from tests.support.api import Api
from tests.support.intact import assert_log_intact
from tests.support.postgres import TestDatabase

REPOSITORY = Path(__file__).resolve().parents[2]
EVENTS = 5_000
COMPARED_EVENTS = 400
CLI = "from audit_service.cli import main; main()"
# What is random, a time, or follows from them; it differs between two logs of the same events.
OWN_TO_A_LOG = {"log_id", "recorded_at", "prev_hash", "body_hash", "hash", "session"}

Rows = list[dict[str, Any]]
# The service's own log has entries as well.
OF_DEFAULT = "log_id = (SELECT log_id FROM audit.tenant WHERE name = 'default')"


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A Python program of the repository as a user runs it."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def start_seeding(folder: Path, events: int) -> "subprocess.Popen[str]":
    """`python -m benchmarks.seed`, its progress to be read from stderr."""
    command = [sys.executable, "-m", "benchmarks.seed", "--events", str(events), "--folder", str(folder)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Seeded, str]:
    """A log of EVENTS, seeded by the command, and what it said."""
    folder = tmp_path_factory.mktemp("seeded")
    ended = run("-m", "benchmarks.seed", "--events", str(EVENTS), "--folder", str(folder), "--verify")
    assert ended.returncode == 0, ended.stderr
    found = seeded(folder, EVENTS, report=pytest.fail)
    assert str(found.data_dir) == ended.stdout.strip()
    return found, ended.stderr


@pytest.fixture(scope="module")
def service(made: tuple[Seeded, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The service on the seeded log."""
    with running(tmp_path_factory.mktemp("serve"), on=made[0]) as started:
        yield started


@pytest.fixture
async def owner(service: Running) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the seeded database's superuser."""
    connection = await asyncpg.connect(service.database_url())
    yield connection
    await connection.close()


@pytest.fixture
async def entries(owner: asyncpg.Connection) -> Rows:
    """The seeded entries, in order; without what a test has appended."""
    return await entry_rows(owner, EVENTS)


async def entry_rows(connection: asyncpg.Connection, size: int) -> Rows:
    """The first `size` entries of the only log."""
    return [
        dict(row)
        for row in await connection.fetch(
            f"SELECT * FROM audit.entry WHERE {OF_DEFAULT} AND seq < $1 ORDER BY seq", size
        )
    ]


# -- it is a log like any other ------------------------------------------------------------------------------


def test_the_command_says_how_fast_it_was_and_that_the_log_verifies(made: tuple[Seeded, str]) -> None:
    said = made[1]
    assert f"{EVENTS:,} of {EVENTS:,} events" in said
    assert "events/s" in said
    assert f"ok, {EVENTS:,} entries" in said


def test_audit_service_verify_says_ok(service: Running) -> None:
    ended = run("-c", CLI, "verify", "--json", AUDIT_DATA_DIR=str(service.data_dir))
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert (report["status"], report["breaks"]) == ("ok", [])
    assert report["checked"]["count"] >= EVENTS


async def test_the_log_can_be_appended_to_and_every_byte_of_it_follows_from_the_format(
    service: Running, owner: asyncpg.Connection
) -> None:
    before = await owner.fetchrow(f"SELECT log_id, size FROM audit.log WHERE {OF_DEFAULT}")
    assert before is not None
    headers = {"Authorization": f"Bearer {service.key}"}
    async with httpx.AsyncClient(base_url=service.url, headers=headers, trust_env=False) as client:
        answer = await client.post("/v1/events", json={"action": "server.updated"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["seq"] == before["size"]
    await assert_log_intact(owner, before["log_id"], before["size"] + 1)


async def test_the_table_is_filled_in_the_order_of_the_chain(owner: asyncpg.Connection) -> None:
    """As appends do it: on how many pages a range of time lies is part of what is measured. Not row by row, because PostgreSQL puts
    short rows into the gaps of earlier pages, for appends as for COPY."""
    stored = [
        row["seq"]
        for row in await owner.fetch(
            f"SELECT seq FROM audit.entry WHERE {OF_DEFAULT} AND seq < $1 ORDER BY ctid", EVENTS
        )
    ]
    assert correlation(range(EVENTS), stored) > 0.98


async def test_the_entries_are_what_the_service_stores_for_the_same_events(
    entries: Rows, api: Api, database: TestDatabase
) -> None:
    history = History(SEED, EVENTS)
    answer = await api.post({"events": [history.event(number) for number in range(COMPARED_EVENTS)]})
    assert answer.status_code == 201, answer.text
    connection = await database.owner()
    sent = await entry_rows(connection, COMPARED_EVENTS)
    await connection.close()
    assert len(sent) == COMPARED_EVENTS
    for ours, theirs in zip(entries, sent, strict=False):
        assert comparable(ours) == comparable(theirs)


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """An entry without what is own to its log: nonce, salts, commitments, hashes, sessions, and when it was recorded."""
    shown = {name: value for name, value in row.items() if name not in OWN_TO_A_LOG}
    shown["session"] = row["session"] is not None
    shown["body"] = json.loads(row["body"])
    shown["body"]["nonce"] = len(shown["body"]["nonce"])
    shown["body"]["sd"] = sorted(shown["body"]["sd"])
    for group in GROUPS:
        salted = row[f"d_{group}"]
        shown[f"d_{group}"] = None if salted is None else json.loads(salted[SALT_BYTES:])
    (shown["d_context"] or {}).pop("session_id", None)
    return shown


async def test_receipts_schema_and_filled_tables_are_those_of_a_log_that_was_appended_to(
    owner: asyncpg.Connection, api: Api, database: TestDatabase
) -> None:
    """Whatever an append comes to fill, and whatever index a migration adds, must be there in a seeded log too."""
    await api.accept(History(SEED, EVENTS).event(0))
    appended = await database.owner()
    for describe in (filled_tables, definitions, first_receipt):
        assert await describe(owner) == await describe(appended)
    await appended.close()


FILLED_BEHIND = frozenset({"checkpoint", "signer", "tile", "source", "source_progress", "source_range", "forgetting"})


async def filled_tables(connection: asyncpg.Connection) -> list[str]:
    """The tables that hold a row, but those that the children of `serve` fill behind the log."""
    names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'audit' ORDER BY tablename")
    return [
        row["tablename"]
        for row in names
        if row["tablename"] not in FILLED_BEHIND
        and await connection.fetchval(f'SELECT true FROM audit."{row["tablename"]}"')
    ]


async def definitions(connection: asyncpg.Connection) -> list[tuple[Any, ...]]:
    """Every index and constraint."""
    rows = await connection.fetch(
        "SELECT indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'audit' UNION ALL "
        "SELECT conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = 'audit'::regnamespace ORDER BY 1"
    )
    return [tuple(row) for row in rows]


async def first_receipt(connection: asyncpg.Connection) -> dict[str, Any]:
    """The receipt of the first entry, without what is own to its log; of random bytes, how many."""
    row = await connection.fetchrow(f"SELECT * FROM audit.receipt WHERE {OF_DEFAULT} AND seq = 0")
    assert row is not None
    shown = {name: len(value) if isinstance(value, bytes) else value for name, value in row.items()}
    return {name: value for name, value in shown.items() if name not in {"log_id", "recorded_at"}}


# -- it is believable ----------------------------------------------------------------------------------------


def share(entries: Rows, column: str, value: Any) -> float:
    """How much of the log has `value` there."""
    return [row[column] for row in entries].count(value) / len(entries)


def test_one_account_does_two_fifths_and_a_few_people_most_of_the_rest(entries: Rows) -> None:
    assert share(entries, "actor_id", NEEDLES.busy_actor) == pytest.approx(0.4, abs=0.03)
    others = Counter(row["actor_id"] for row in entries if row["actor_id"] != NEEDLES.busy_actor)
    assert len(others) > 500
    ten = sum(count for _, count in others.most_common(10))
    assert ten / others.total() > 0.2
    assert NEEDLES.absent_actor not in others


def test_servers_targets_and_actions_are_many_and_skewed(entries: Rows) -> None:
    servers = Counter(row["server_id"] for row in entries if row["server_id"] is not None)
    assert len(servers) > 800
    assert servers.most_common(1)[0][1] > 10 * servers.total() / len(servers)
    assert len({row["category"] for row in entries}) == 10
    assert len({row["action"] for row in entries}) >= 55
    assert len({row["target_type"] for row in entries}) == 8
    assert len({(row["target_type"], row["target_id"]) for row in entries}) > 2_000


def test_paths_addresses_outcomes_and_scripts_vary(entries: Rows) -> None:
    paths = {path for row in entries for path in row["paths"] or ()}
    assert {"/retention/days", "/memory", "/status", "/rules/1/port", "/allow", "/environment/DB_PASSWORD"} <= paths
    assert share(entries, "outcome", "failure") == pytest.approx(0.02, abs=0.008)
    assert {4, 6} == {row["ip"].version for row in entries}
    scripts = {unicodedata.name(row["actor_name"][0]).split()[0] for row in entries}
    assert {"LATIN", "CYRILLIC", "GREEK", "CJK", "HANGUL", "ARABIC", "HEBREW", "DEVANAGARI"} <= scripts


def test_times_grow_over_two_years_by_day_and_night_with_a_few_late_arrivals(entries: Rows) -> None:
    recorded = [row["recorded_at"] for row in entries]
    assert recorded == sorted(recorded)
    assert recorded[-1] - recorded[0] > timedelta(days=720)
    assert all(row["occurred_at"] <= row["recorded_at"] for row in entries)
    hours = Counter(row["occurred_at"].hour for row in entries)
    assert sum(hours[hour] for hour in range(9, 17)) > 3 * sum(hours[hour] for hour in range(6))
    # What comes in by one call occurred after the call before it, unless it is late.
    late = sum(
        row["occurred_at"] < before["recorded_at"] - timedelta(seconds=1)
        for before, row in zip(entries, entries[CALL_EVENTS:], strict=False)
    )
    assert 0 < late / len(entries) < 0.015


def test_secrets_are_sent_and_none_is_stored(entries: Rows) -> None:
    history = History(SEED, EVENTS)
    sent = sum(SECRET_MARK.encode() in canonical_bytes(history.event(number)) for number in range(EVENTS))
    redacted = sum(b'"redacted":true' in (row["d_changes"] or b"") for row in entries)
    assert sent > redacted > 0.01 * EVENTS
    for row in entries:
        stored = b"\n".join(
            value if isinstance(value, bytes) else str(value).encode() for value in row.values() if value is not None
        )
        assert SECRET_MARK.encode() not in stored


# -- the needles are where they are said to be ---------------------------------------------------------------


def holding(entries: Rows, fragment: str) -> set[int]:
    """The entries that a search for the fragment finds."""
    return {row["seq"] for row in entries if fragment in (row["search"] or "")}


def test_rare_common_and_absent_fragments_are_as_rare_and_common_as_said(entries: Rows) -> None:
    assert len(holding(entries, NEEDLES.rare_fragment)) == RARE_FRAGMENT_EVENTS
    assert not holding(entries, NEEDLES.absent_fragment)
    for fragment in NEEDLES.common_fragments:
        assert len(holding(entries, fragment)) > 0.01 * EVENTS, fragment
    one, other = (holding(entries, fragment) for fragment in NEEDLES.never_meeting)
    assert min(len(one), len(other)) > 0.1 * EVENTS
    assert not one & other


def test_the_retired_account_is_common_in_the_older_half_and_absent_in_the_newer_one(entries: Rows) -> None:
    older, newer = entries[: EVENTS // 2], entries[EVENTS // 2 :]
    for column, value in (("actor_id", NEEDLES.retired_actor), ("action", NEEDLES.retired_action)):
        assert share(older, column, value) == pytest.approx(0.04, abs=0.012)
        assert share(newer, column, value) == 0


@pytest.mark.parametrize("size", [EVENTS, 123_457])
def test_rare_actions_are_in_the_log_as_often_as_said_whatever_its_size(size: int) -> None:
    history = History(SEED, size)
    found = Counter(action.name for action in history.rare.values())
    assert dict(NEEDLES.rare_actions) == found
    assert all(0 <= number < size for number in history.rare)


async def test_rare_actions_are_stored_as_often_as_said(entries: Rows) -> None:
    found = Counter(row["action"] for row in entries)
    assert dict(NEEDLES.rare_actions) == {name: found[name] for name, _ in NEEDLES.rare_actions}


# -- the same again ------------------------------------------------------------------------------------------

DIGEST = """
from hashlib import sha256
from audit_service.core.canonical import canonical_bytes
from benchmarks.seeding.history import History
history = History({seed}, {size})
print(sha256(b"".join(canonical_bytes(history.event(number)) for number in range({size}))).hexdigest())
"""


def test_the_same_seed_makes_the_same_events_in_any_order_and_process() -> None:
    size = 600
    ended = run("-c", DIGEST.format(seed=SEED, size=size), PYTHONHASHSEED="1")
    assert ended.returncode == 0, ended.stderr
    history = History(SEED, size)
    backwards = [canonical_bytes(history.event(number)) for number in reversed(range(size))]
    assert sha256(b"".join(backwards[::-1])).hexdigest() == ended.stdout.strip()
    other = History(SEED + 1, size)
    assert all(canonical_bytes(other.event(number)) not in backwards for number in range(0, size, 50))


def test_the_stored_events_are_those_of_the_seed_in_their_order(entries: Rows) -> None:
    history = History(SEED, EVENTS)
    assert [row["id"] for row in entries] == [history.event(number)["id"] for number in range(EVENTS)]


def test_an_event_is_the_callers_own() -> None:
    history = History(SEED, EVENTS)
    event = history.event(7)
    before = canonical_bytes(event)
    for member in event.values():
        if isinstance(member, dict):
            member.clear()
    assert before == canonical_bytes(history.event(7))


# -- it is kept ----------------------------------------------------------------------------------------------


def test_a_killed_run_leaves_nothing_that_is_taken_for_a_seeded_log(tmp_path: Path) -> None:
    with start_seeding(tmp_path, 2_000) as process:
        assert process.stderr is not None
        assert any("sealing and loading" in line for line in process.stderr)
        with pytest.raises(BenchmarkError, match="another process"):
            seeded(tmp_path, 2_000, report=pytest.fail)
        process.kill()
    (left,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert left.name.endswith(".unfinished")
    again = start_seeding(tmp_path, 2_000)
    printed, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    (kept,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert str(kept) == printed.strip()


def test_a_stopped_run_leaves_no_directory(tmp_path: Path) -> None:
    with start_seeding(tmp_path, 200_000) as process:
        assert process.stderr is not None
        assert any("sealing and loading" in line for line in process.stderr)
        process.terminate()
        process.stderr.read()
    assert process.returncode == 143
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_another_size_seed_migration_or_generator_has_a_directory_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint()
    assert before == fingerprint()
    migrations = tmp_path / "migrations"
    shutil.copytree(scripts_dir(), migrations, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "scripts_dir", lambda: migrations)
    assert before == fingerprint()
    (migrations / "sql" / "9999_index.sql").write_text("CREATE INDEX")
    assert before != fingerprint()


def test_a_size_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="at least one"):
        seeded(tmp_path, 0)


def test_a_sealing_process_that_fails_ends_the_load(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = Job(f"postgresql://nobody@/nowhere?host={tmp_path}", Log(1, "x", "0" * 32), b"s" * 32, SEED, 10_000)
    with pytest.raises(BenchmarkError, match="has failed"):
        load(job, 2, lambda _: None)
    assert "FileNotFoundError" in capfd.readouterr().err


def test_a_log_with_fewer_entries_than_were_seeded_is_not_served(tmp_path: Path) -> None:
    small = seeded(tmp_path, 100, report=lambda _: None)
    too_many = replace(small, events=101)
    with pytest.raises(BenchmarkError, match="does not hold its 101 events"), running(tmp_path, on=too_many):
        pytest.fail("it was served")
