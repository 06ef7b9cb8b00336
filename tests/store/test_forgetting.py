"""What forgetting must never do: bring a value back, take what is held, block appends, leave a half, or work for the wrong role."""

import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from audit_service import retention
from audit_service.core import control, terms
from audit_service.core.control import ErasedItem
from audit_service.core.forgetting import Events, Person, Target, plan_erasure
from audit_service.core.view import stored_disclosures
from audit_service.errors import HeldError, IntegrityError, MovedOnError, UnavailableError
from audit_service.indexer import index_all
from audit_service.store import forgetting, segments
from audit_service.store import retention as holds
from audit_service.store.engine import Database
from audit_service.store.forgetting import Scope, State
from audit_service.store.migrate import scripts_dir
from audit_service.verify import INDEX
from tests.support.appends import TestLog, existing_log, owner, serving, wait_until
from tests.support.canaries import Canaries
from tests.support.forgetting import AUTHOR, REFERENCE, retention_pools
from tests.support.intact import assert_log_intact
from tests.support.postgres import Server, TestDatabase, default_log_id, running_server
from tests.support.tampering import report_of

SEGMENT = 16
FORGETTING = (
    "append_control", "drop_entries", "erase_disclosures", "prune_log", "delete_pruned", "set_hold", "lift_hold", "put_segment",
    "replace_segment", "raise_generation", "forget_index", "require_no_hold", "resume_log",
)  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of sixteen entries."""
    monkeypatch.setattr(terms, "SEGMENT_EVENTS", SEGMENT)


@pytest.fixture
async def log(database: TestDatabase) -> TestLog:
    """The log of the tenant `default`."""
    return await existing_log(database, await default_log_id(database))


@pytest.fixture
async def keeping(database: TestDatabase) -> AsyncIterator[Database]:
    """The pools of whoever forgets."""
    async with retention_pools(database) as pools:
        yield pools


def event(number: int, **more: Any) -> dict[str, Any]:
    """An event by one of three people about one of four users."""
    return {
        "id": f"e-{number}",
        "action": f"user.{('created', 'updated', 'deleted')[number % 3]}",
        "actor": {"type": "admin", "id": f"a{number % 3}", "name": f"Admin {number % 3}", "email": f"a{number % 3}@x.example"},
        "target": {"type": "user", "id": f"u{number % 4}", "name": f"Person {number % 4}"},
        "context": {"ip": f"203.0.113.{number % 200}"},
        **more,
    }  # fmt: skip


async def forgotten_entries(database: TestDatabase, log: TestLog) -> list[int]:
    """The seqs of events without a body."""
    async with owner(database) as connection:
        rows = await connection.fetch(
            "SELECT seq FROM audit.entry WHERE log_id = $1 AND kind = 'event' AND body IS NULL ORDER BY seq", log.log_id
        )
    return [row["seq"] for row in rows]


async def postings_with(database: TestDatabase, value: str) -> list[str]:
    """The fields of postings and tallies that have a value."""
    async with owner(database) as connection:
        query = "SELECT field FROM audit.posting WHERE value = $1 UNION ALL SELECT field || '#' FROM audit.tally WHERE value = $1"
        return sorted({row["field"] for row in await connection.fetch(query, value)})


async def assert_verifies(log: TestLog, pools: Database) -> None:
    """What is gone is explained."""
    report = await report_of(pools, log.log_id)
    assert (report.status, report.breaks) == ("ok", [])


async def size_of(database: TestDatabase, log: TestLog) -> int:
    async with owner(database) as connection:
        return int(await connection.fetchval("SELECT size FROM audit.log WHERE log_id = $1", log.log_id))


# --- values stay gone ---


async def test_an_indexer_that_read_before_an_erasure_does_not_bring_the_value_back(
    log: TestLog, database: TestDatabase, pools: Database, keeping: Database
) -> None:
    await log.accept(pools, *map(event, range(SEGMENT)))
    built = await segments.build_segment(pools.reads, log.log_id, 0)
    done = await retention.erase(keeping, log.log_id, AUTHOR, Person("a1"), reference=REFERENCE)
    assert done.entries > 0
    assert await segments.add_built(pools.writes, log.log_id, built) is False
    assert await index_all(pools) == 1
    assert await postings_with(database, "a1") == []
    assert await postings_with(database, "a2") == ["actor", "actor_id", "actor_id#"]


async def test_control_without_the_check_of_the_generation_it_does(
    log: TestLog, database: TestDatabase, pools: Database, keeping: Database
) -> None:
    await _redefine(database, "add_segment", "IF v_generation <> p_generation THEN", "IF false THEN")
    await log.accept(pools, *map(event, range(SEGMENT)))
    built = await segments.build_segment(pools.reads, log.log_id, 0)
    await retention.erase(keeping, log.log_id, AUTHOR, Person("a1"), reference=REFERENCE)
    assert await segments.add_built(pools.writes, log.log_id, built) is True
    assert "actor" in await postings_with(database, "a1")


async def _redefine(database: TestDatabase, name: str, old: str, new: str) -> None:
    """A function of the migration with one text, found once, replaced."""
    sql = (scripts_dir() / "sql" / "0003_proof.sql").read_text("utf-8")
    found = re.search(rf"CREATE FUNCTION audit\.{name}\(.*?\n\$\w+\$;", sql, re.DOTALL)
    assert found is not None
    assert found.group().count(old) == 1
    text = found.group().replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION").replace(old, new)
    async with owner(database) as connection:
        await connection.execute(text)


async def test_what_was_prepared_before_another_erasure_is_refused(
    log: TestLog, database: TestDatabase, pools: Database, keeping: Database
) -> None:
    """Its search text would hold what the other has erased."""
    await log.accept(pools, *map(event, range(SEGMENT)))
    await index_all(pools)
    state = await forgetting.fetch_state(keeping.reads, log.log_id)
    prepared = await _erasure_of(keeping, log, Target("user", "u0"))
    await retention.erase(keeping, log.log_id, AUTHOR, Person("a0"), reference=REFERENCE)
    with pytest.raises(MovedOnError):
        await _erase(keeping, log, state, prepared)
    async with owner(database) as connection:
        searches = await connection.fetch("SELECT search FROM audit.entry WHERE log_id = $1", log.log_id)
    assert not any("admin 0" in row["search"] for row in searches)


async def test_what_was_prepared_before_a_segment_was_indexed_is_refused(
    log: TestLog, pools: Database, keeping: Database
) -> None:
    await log.accept(pools, *map(event, range(SEGMENT)))
    state = await forgetting.fetch_state(keeping.reads, log.log_id)
    prepared = await _erasure_of(keeping, log, Target("user", "u0"))
    assert await index_all(pools) == 1
    with pytest.raises(MovedOnError):
        await _erase(keeping, log, state, prepared)


async def _erasure_of(keeping: Database, log: TestLog, subject: Target) -> list[Any]:
    found = await forgetting.fetch_named(keeping.reads, log.log_id, subject, range(SEGMENT), 0)
    plans = [plan_erasure(row.seq, row.body, stored_disclosures(row), subject) for row in found.rows]
    return [plan for plan in plans if plan is not None]


async def _erase(keeping: Database, log: TestLog, state: State, prepared: list[Any]) -> None:
    items = [item for plan in prepared for item in plan.items]
    entry = control.erase(AUTHOR.act(), items, request_hash=b"h" * 32)
    await forgetting.erase_disclosures(keeping.reads, keeping.writes, log.log_id, state, 0, prepared, entry)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, whose every file can be searched."""
    with running_server(tmp_path / "data") as server:
        yield server


def _recipe() -> list[str]:
    """The statements by which the README has the last bytes go at once."""
    found = re.search(r"```sql\n(ALTER SYSTEM SET wal_recycle.*?)```", Path("README.md").read_text("utf-8"), re.DOTALL)
    assert found is not None
    statements = [part.strip() for part in re.sub(r"--.*", "", found[1]).split(";")]
    return [statement for statement in statements if statement]


@pytest.mark.parametrize("whole", [True, False], ids=["erasure", "control: the postings are left"])
async def test_no_byte_of_an_erased_value_is_on_the_disk(
    own_server: Server, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the database's own housekeeping: tables rewritten, statistics taken anew, a checkpoint, and write-ahead log that is removed
    instead of reused. The control leaves the postings as they were, and the same search finds them."""
    canaries = Canaries()
    secret = {name: canaries.plain(name) for name in ("id", "name", "email", "role", "agent", "behalf")}
    about = {
        name: canaries.plain(name) for name in ("target id", "target name", "description", "metadata", "old", "new")
    }
    person = {
        "type": "user",
        **{name: secret[name] for name in ("id", "name", "role")},
        "email": f"{secret['email']}@x.example",
    }
    database = await own_server.create()
    log = await existing_log(database, await default_log_id(database))
    pools = database.open()
    await log.accept(
        pools,
        *(event(number) for number in range(SEGMENT // 2)),
        *(
            event(
                100 + number,
                actor=person,
                on_behalf_of={"type": "user", "id": secret["id"], "name": secret["behalf"]},
                context={"user_agent": secret["agent"], "ip": "198.51.100.7"},
                target={"type": "thing", "id": about["target id"], "name": about["target name"]},
                description=about["description"],
                metadata={"note": about["metadata"]},
                changes=[{"path": "/a", "old": about["old"], "new": about["new"]}],
            )
            for number in range(SEGMENT)
        ),
    )
    assert await index_all(pools) == 1
    if not whole:
        build = segments.build_segment
        monkeypatch.setattr(forgetting, "build_segment", lambda reads, log_id, number, _: build(reads, log_id, number))
    async with retention_pools(database) as keeping:
        for subject in (Target("thing", about["target id"]), Person(secret["id"])):
            done = await retention.erase(keeping, log.log_id, AUTHOR, subject, reference=REFERENCE)
            assert done.entries == SEGMENT
    await pools.dispose()
    connection = await database.owner()
    assert canaries.found_under(own_server.postgres.cluster_dir)  # not before the housekeeping
    for statement in _recipe():
        await connection.execute(statement)
    found = canaries.found_under(own_server.postgres.cluster_dir)
    await connection.close()
    if whole:
        assert found == {}
    else:
        assert {place for places in found.values() for place in places} >= {"id", "name", "email"}
        assert any(name.startswith("base") for name in found)


# --- holds ---


async def test_a_hold_that_is_set_while_a_drop_is_prepared_holds(
    log: TestLog, database: TestDatabase, pools: Database, keeping: Database
) -> None:
    await log.accept(pools, *map(event, range(SEGMENT)))
    state = await forgetting.fetch_state(keeping.reads, log.log_id)
    found = await forgetting.fetch_droppable(keeping.reads, log.log_id, Scope(SEGMENT), 0)
    await holds.set_hold(keeping.writes, log.log_id, control.hold_range(AUTHOR.act(), "h", (3, 5)))
    entry = control.drop(AUTHOR.act(), forgetting.ranges_of(found.seqs), count=len(found.seqs), policy="clear")
    with pytest.raises((HeldError, MovedOnError)):
        await forgetting.drop_entries(keeping.reads, keeping.writes, log.log_id, state, 0, found.seqs, entry)
    fresh = await forgetting.fetch_state(keeping.reads, log.log_id)
    with pytest.raises(HeldError):
        await forgetting.drop_entries(keeping.reads, keeping.writes, log.log_id, fresh, 0, found.seqs, entry)
    assert await forgotten_entries(database, log) == []
    done = await retention.clear(keeping, log.log_id, AUTHOR)
    assert (done.entries, done.held) == (SEGMENT - 2, 2)
    assert await forgotten_entries(database, log) == [seq for seq in range(SEGMENT) if seq not in (3, 4)]


async def test_a_hold_waits_for_a_drop_that_has_looked_for_holds(
    log: TestLog, database: TestDatabase, pools: Database, keeping: Database
) -> None:
    """Else it would be entered before a drop of what it holds."""
    await log.accept(pools, *map(event, range(4)))
    async with owner(database) as dropping, owner(database) as watching:
        transaction = dropping.transaction()
        await transaction.start()
        entry = control.drop(AUTHOR.act(), [(0, 4)], count=4, policy="clear")
        await dropping.execute(
            "SELECT audit.drop_entries($1, $2::jsonb, 0, 0, NULL, NULL, NULL, NULL, '{}', '{}', '{}', '{}', '{}')",
            log.log_id, entry.argument(),
        )  # fmt: skip
        setting = asyncio.create_task(
            holds.set_hold(keeping.writes, log.log_id, control.hold_range(AUTHOR.act(), "h", (0, 2)))
        )

        async def waits() -> bool:
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(await watching.fetchval(waiting))

        await wait_until(waits, "the hold waits")
        await transaction.commit()
        entered = await setting
    assert entered.seq == 5
    assert await forgotten_entries(database, log) == [0, 1, 2, 3]


async def test_holds_retention_clear_and_erasure_leave_a_log_that_is_whole(
    log: TestLog, database: TestDatabase, pools: Database, keeping: Database
) -> None:
    await log.accept(pools, *map(event, range(60)))
    await index_all(pools)
    await holds.set_hold(keeping.writes, log.log_id, control.hold_target(AUTHOR.act(), "h1", "user", "u2"))
    await holds.set_hold(keeping.writes, log.log_id, control.hold_range(AUTHOR.act(), "h2", (8, 10)))
    erased = await retention.erase(keeping, log.log_id, AUTHOR, Target("user", "u2"), reference=REFERENCE)
    assert (erased.entries, erased.held) == (0, 15 + 1)  # the entry that set the hold is about u2, too
    dropped = await retention.clear(keeping, log.log_id, AUTHOR)
    held = {number for number in range(60) if number % 4 == 2} | {8, 9}
    assert (dropped.entries, dropped.held) == (60 - len(held), len(held))
    await holds.lift_hold(keeping.writes, log.log_id, control.lift_hold(AUTHOR.act(), "h1"))
    erased = await retention.erase(keeping, log.log_id, AUTHOR, Target("user", "u2"), reference=REFERENCE)
    assert (erased.entries, erased.held) == (15 + 1, 0)
    assert (await retention.clear(keeping, log.log_id, AUTHOR)).entries == 15
    async with owner(database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM audit.hold") == 1
        assert "u2" not in str(await connection.fetch("SELECT * FROM audit.hold"))
    with pytest.raises(IntegrityError):
        await holds.lift_hold(keeping.writes, log.log_id, control.lift_hold(AUTHOR.act(), "h1"))
    size = await size_of(database, log)
    async with owner(database) as connection:
        await assert_log_intact(connection, log.log_id, size, forgotten=range(size))
    await assert_verifies(log, pools)


async def test_a_hold_is_of_the_target_that_its_sealed_entry_names(
    log: TestLog, database: TestDatabase, keeping: Database
) -> None:
    """Not of what the query columns beside it say; and a target that the body does not commit to is refused."""
    entry = control.hold_target(AUTHOR.act(), "h1", "user", "u2")
    astray = replace(entry, projection=entry.projection._replace(target_id="u3", target_type="server"))
    await holds.set_hold(keeping.writes, log.log_id, astray)
    async with owner(database) as connection:
        row = await connection.fetchrow("SELECT target_type, target_id FROM audit.hold")
    assert row is not None
    assert tuple(row) == ("user", "u2")
    entry = control.hold_target(AUTHOR.act(), "h2", "user", "u2")
    disclosed = {"target": entry.disclosures["target"].replace(b"u2", b"u3")}
    with pytest.raises(IntegrityError):
        await holds.set_hold(keeping.writes, log.log_id, replace(entry, disclosures=disclosed))


@pytest.mark.parametrize("of", ["target", "related", "server"])
async def test_a_hold_on_a_target_holds_what_an_erasure_about_it_takes(
    log: TestLog, pools: Database, keeping: Database, of: str
) -> None:
    """And on a server all of its entries; both where it is looked at beforehand and where it is carried out."""
    kind = "server" if of == "server" else "user"
    held: dict[str, Any] = {"type": kind, "id": 'u"1'}
    ticket = {"type": "ticket", "id": "7", "name": "u1"}
    named: dict[str, dict[str, Any]] = {
        "target": {"target": held},
        "related": {"target": ticket, "related": [ticket, {**held, "name": "n"}]},
        "server": {"server_id": held["id"]},
    }
    others: list[dict[str, Any]] = [
        {"target": {"type": kind, "id": "u2"}},
        {"related": [{"type": "x", "id": held["id"]}, {"type": kind, "id": "u2"}]},
    ]
    await log.accept(pools, *({"action": "a.b", **one} for one in (named[of], *others)))
    await holds.set_hold(keeping.writes, log.log_id, control.hold_target(AUTHOR.act(), "h", kind, held["id"]))
    fresh = await forgetting.fetch_state(keeping.reads, log.log_id)
    for seqs in ([0], [0, 1]):
        entry = control.drop(AUTHOR.act(), forgetting.ranges_of(seqs), count=len(seqs), policy="clear")
        with pytest.raises(HeldError):
            await forgetting.drop_entries(keeping.reads, keeping.writes, log.log_id, fresh, 0, seqs, entry)
    done = await retention.clear(keeping, log.log_id, AUTHOR, to_seq=3)
    assert (done.entries, done.held) == (2, 1)


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM audit.hold WHERE from_seq = 0", "UPDATE audit.hold SET to_seq = 1 WHERE from_seq = 0",
     "UPDATE audit.hold SET target_id = 'u3' WHERE from_seq IS NULL",
     "INSERT INTO audit.hold (log_id, hold_id, from_seq, to_seq, reason) SELECT log_id, 'more', 0, 4, '' FROM audit.log"],
)  # fmt: skip
async def test_nothing_is_forgotten_by_holds_that_are_not_those_of_the_log(
    log: TestLog, database: TestDatabase, pools: Database, keeping: Database, change: str
) -> None:
    """The table is a copy of what the `hold` entries say: a row less, or another one, and what was held would go."""
    await log.accept(pools, *map(event, range(8)))
    await holds.set_hold(keeping.writes, log.log_id, control.hold_range(AUTHOR.act(), "range", (0, 2)))
    await holds.set_hold(keeping.writes, log.log_id, control.hold_range(AUTHOR.act(), "lifted", (2, 4)))
    await holds.lift_hold(keeping.writes, log.log_id, control.lift_hold(AUTHOR.act(), "lifted"))
    await holds.set_hold(keeping.writes, log.log_id, control.hold_target(AUTHOR.act(), "target", "user", "u2"))
    assert (await retention.clear(keeping, log.log_id, AUTHOR, to_seq=4, dry_run=True)).held == 3
    async with owner(database) as connection:
        await connection.execute(change)
    for forget in (
        retention.clear(keeping, log.log_id, AUTHOR),
        retention.apply_policies(keeping, log.log_id, AUTHOR, {"user": 0}),
        retention.erase(keeping, log.log_id, AUTHOR, Person("a1"), reference=REFERENCE),
    ):
        with pytest.raises(IntegrityError):
            await forget
    assert await forgotten_entries(database, log) == []


# --- appends go on ---


async def test_appends_go_on_while_a_log_is_cleared(
    log: TestLog, database: TestDatabase, pools: Database, keeping: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clear of many entries keeps no append waiting for the time of a segment, which is what a lock taken early would cost."""
    monkeypatch.setattr(terms, "SEGMENT_EVENTS", 2048)
    for start in range(0, 3 * 2048, 512):
        await log.accept(pools, *(event(number) for number in range(start, start + 512)))
    await index_all(pools)
    clearing = asyncio.create_task(retention.clear(keeping, log.log_id, AUTHOR, to_seq=3 * 2048))
    waits: list[float] = []
    number = 10_000
    while not clearing.done():
        began = time.monotonic()
        await log.accept(pools, event(number))
        waits.append(time.monotonic() - began)
        number += 1
    done = await clearing
    assert done.entries == 3 * 2048
    async with owner(database) as connection:
        held_seconds = await connection.fetchval(
            "SELECT extract(epoch FROM max(later.recorded_at - earlier.recorded_at))::float8 FROM audit.entry AS earlier "
            "JOIN audit.entry AS later ON later.log_id = earlier.log_id AND later.seq = earlier.seq + 1 "
            "WHERE earlier.log_id = $1 AND earlier.seq >= $2",
            log.log_id, 3 * 2048,
        )  # fmt: skip
    print(f"appends beside a clear: {len(waits)}, longest wait {max(waits):.3f} s, longest gap {held_seconds:.3f} s")  # noqa: T201 - the figure
    assert len(waits) > 10
    assert max(waits) < 2.0


# --- killed ---

_CLEAR = """
import asyncio, sys
from audit_service import retention
from audit_service.core import terms
from audit_service.retention import Author
from audit_service.store.engine import RETENTION_ROLE, open_database

terms.SEGMENT_EVENTS = 16

def report(segments):
    print("segment", flush=True)

async def main():
    database = open_database(sys.argv[1], role=RETENTION_ROLE)
    await retention.clear(database, int(sys.argv[2]), Author("cli", "test"), report=report)

asyncio.run(main())
"""


@pytest.mark.parametrize("after_segments", [1, 3])
async def test_a_clear_that_is_killed_is_done_as_far_as_it_came_and_the_next_does_the_rest(
    log: TestLog, database: TestDatabase, pools: Database, keeping: Database, after_segments: int
) -> None:
    count = 10 * SEGMENT
    await log.accept(pools, *map(event, range(count)))
    await index_all(pools)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CLEAR, database.owner_url, str(log.log_id), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    for _ in range(after_segments):
        assert await process.stdout.readline() == b"segment\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()

    async def ended() -> bool:
        async with owner(database) as connection:
            others = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' "
                "AND application_name = 'audit-service writes'"
            )
            return not await connection.fetchval(others)

    await wait_until(ended, "the server notices")
    gone = await forgotten_entries(database, log)
    assert len(gone) >= after_segments * SEGMENT
    assert len(gone) % SEGMENT == 0
    async with owner(database) as connection:
        rows = await connection.fetch(
            "SELECT body FROM audit.entry WHERE log_id = $1 AND kind = 'drop' ORDER BY seq", log.log_id
        )
    named = [
        seq for row in rows for start, end in json.loads(row["body"])["details"]["ranges"] for seq in range(start, end)
    ]
    assert named == gone
    rest = await retention.clear(keeping, log.log_id, AUTHOR)
    assert rest.entries == count - len(gone)
    await assert_verifies(log, pools)
    assert await forgotten_entries(database, log) == list(range(count))


async def test_two_runs_take_turns(log: TestLog, keeping: Database) -> None:
    async with forgetting.turn(keeping.writes, log.log_id):
        with pytest.raises(UnavailableError):
            async with forgetting.turn(keeping.writes, log.log_id):
                raise AssertionError("two runs at once")
    async with forgetting.turn(keeping.writes, log.log_id):
        pass


# --- who may ---


@pytest.mark.parametrize("role", ["audit_serving", "audit_signing"])
async def test_only_the_retention_role_may_forget(database: TestDatabase, role: str) -> None:
    async with owner(database) as connection:
        rows = await connection.fetch(
            "SELECT p.proname FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace "
            "WHERE n.nspname = 'audit' AND p.proname = ANY ($2) AND has_function_privilege($1, p.oid, 'EXECUTE')",
            role, list(FORGETTING),
        )  # fmt: skip
    assert {row["proname"] for row in rows} == ({"resume_log"} if role == "audit_signing" else set())


async def test_the_retention_role_forgets_through_functions_alone(
    log: TestLog, database: TestDatabase, pools: Database
) -> None:
    """It has no way to remove anything that is not entered in the log."""
    await log.accept(pools, *map(event, range(4)))
    statements = [
        "UPDATE audit.entry SET body = NULL", "DELETE FROM audit.entry", "TRUNCATE audit.entry", "UPDATE audit.log SET pruned_before = 2",
        "DELETE FROM audit.receipt", "UPDATE audit.receipt SET salt = NULL", "DELETE FROM audit.hold", "DELETE FROM audit.posting",
        "INSERT INTO audit.hold (log_id, hold_id, from_seq, to_seq, reason) VALUES (1, 'h', 0, 1, '')", "DELETE FROM audit.checkpoint",
        "DELETE FROM audit.request", "UPDATE audit.request SET reason = ''", "SELECT audit.append_control(1, 'drop', '{}')",
        "SELECT audit.put_segment(1, 0, NULL, NULL, 0, '{}', '{}', '{}', '{}', '{}')", "SELECT audit.raise_generation(1, NULL)",
        "SET ROLE audit_eraser", "SET ROLE audit_owner",
    ]  # fmt: skip
    async with owner(database) as connection:
        await connection.execute("SET SESSION AUTHORIZATION audit_retention")
        for statement in statements:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        # Nothing can be deleted as pruned before a `prune` entry says so.
        assert await connection.fetchval("SELECT audit.delete_pruned($1, 100)", log.log_id) == 0
    await log.assert_intact(4)


async def test_a_call_whose_entry_says_another_thing_is_refused(
    log: TestLog, database: TestDatabase, pools: Database, keeping: Database
) -> None:
    await log.accept(pools, *map(event, range(4)))
    state = await forgetting.fetch_state(keeping.reads, log.log_id)
    wrong = [
        control.drop(AUTHOR.act(), [(0, 2)], count=3, policy="clear"),
        control.drop(AUTHOR.act(), [(1, 2), (0, 1)], count=2, policy="clear"),
        control.drop(AUTHOR.act(), [(0, 2), (1, 3)], count=3, policy="clear"),
        control.drop(AUTHOR.act(), [], count=0, policy="clear"),
        control.hold_range(AUTHOR.act(), "h", (0, 1)),
    ]
    for entry in wrong:
        with pytest.raises(IntegrityError):
            await forgetting.drop_entries(keeping.reads, keeping.writes, log.log_id, state, 0, [0, 1], entry)
    found = await forgetting.fetch_named(keeping.reads, log.log_id, Events(frozenset(("e-0",))), [0], 0)
    plan = plan_erasure(0, found.rows[0].body, stored_disclosures(found.rows[0]), Events(frozenset(("e-0",))))
    assert plan is not None
    false = [ErasedItem(item.seq, item.group, b"f" * 32) for item in plan.items]
    entry = control.erase(AUTHOR.act(), false, request_hash=b"h" * 32)
    with pytest.raises(IntegrityError):
        await forgetting.erase_disclosures(keeping.reads, keeping.writes, log.log_id, state, 0, [plan], entry)
    await log.assert_intact(4)
    assert await forgotten_entries(database, log) == []


async def test_the_serving_role_cannot_carry_out_what_it_asks_for(
    log: TestLog, database: TestDatabase, pools: Database
) -> None:
    await log.accept(pools, event(1))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await retention.clear(pools, log.log_id, AUTHOR)
    async with serving(database) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE audit.request SET status = 'done'")
    await log.assert_intact(1)


def _rewritten(entry: control.Control, old: str, new: str) -> control.Control:
    """A control entry whose body says it otherwise."""
    assert entry.body.count(old) == 1
    return replace(entry, body=entry.body.replace(old, new))


@pytest.mark.parametrize(
    "ranges",
    ["[null,2]", "[0,2,7]", '["0","2"]', "[0,2e0]", "[0,2.0]", "[0,2],[4,9]", '{"0":2}', "[0,2],null", "[-1,2]"],
)
async def test_a_drop_that_no_verifier_could_read_is_refused(
    log: TestLog, database: TestDatabase, pools: Database, keeping: Database, ranges: str
) -> None:
    """Its deed would stay, and the log be broken for ever."""
    await log.accept(pools, *map(event, range(4)))
    state = await forgetting.fetch_state(keeping.reads, log.log_id)
    entry = _rewritten(control.drop(AUTHOR.act(), [(0, 2)], count=2, policy="clear"), "[[0,2]]", f"[{ranges}]")
    with pytest.raises(IntegrityError):
        await forgetting.drop_entries(keeping.reads, keeping.writes, log.log_id, state, 0, [0, 1], entry)
    assert await forgotten_entries(database, log) == []
    await log.assert_intact(4)


@pytest.mark.parametrize("spelled", ['["0"', "[0e0", "[null", "[0.0", "twice", "upper"])
async def test_an_erasure_that_no_verifier_could_read_is_refused(
    log: TestLog, pools: Database, keeping: Database, spelled: str
) -> None:
    await log.accept(pools, event(0))
    state = await forgetting.fetch_state(keeping.reads, log.log_id)
    subject = Events(frozenset(("e-0",)))
    found = await forgetting.fetch_named(keeping.reads, log.log_id, subject, [0], 0)
    plan = plan_erasure(0, found.rows[0].body, stored_disclosures(found.rows[0]), subject, frozenset(("ip",)))
    assert plan is not None
    entry = control.erase(AUTHOR.act(), plan.items, request_hash=b"h" * 32)
    commitment = plan.items[0].commitment.hex()
    item = f'[0,"ip","{commitment}"]'
    forged = {"twice": f'[0,"ip","{"0" * 64}"],{item}', "upper": item.replace(commitment, commitment.upper())}
    entry = _rewritten(entry, item, forged.get(spelled, item.replace("[0", spelled)))
    with pytest.raises(IntegrityError):
        await forgetting.erase_disclosures(keeping.reads, keeping.writes, log.log_id, state, 0, [plan], entry)
    await log.assert_intact(1)


# --- nothing is left out ---


@pytest.mark.parametrize(
    "taken", ["DELETE FROM audit.posting WHERE value LIKE '%a1%'", "TRUNCATE audit.segment, audit.posting"]
)
@pytest.mark.parametrize("subject", [Person("a1"), Target("user", "u1")])
async def test_an_erasure_finds_what_somebody_took_out_of_the_search_index(
    log: TestLog, database: TestDatabase, pools: Database, keeping: Database, taken: str, subject: Person | Target
) -> None:
    """It is no evidence, and a verification says that it did not compare it."""
    await log.accept(pools, *map(event, range(2 * SEGMENT)))
    await index_all(pools)
    async with owner(database) as connection:
        await connection.execute(taken.replace("a1", subject.id))
        named = "target_id" if isinstance(subject, Target) else "actor_id"
        left = f"SELECT count(*) FROM audit.entry WHERE {named} = $1"
        before = await connection.fetchval(left, subject.id)
        report = await report_of(pools, log.log_id)
        counted = await retention.erase(keeping, log.log_id, AUTHOR, subject, reference=REFERENCE, dry_run=True)
        done = await retention.erase(keeping, log.log_id, AUTHOR, subject, reference=REFERENCE)
        assert before == counted.entries == done.entries > 0
        assert await connection.fetchval(left, subject.id) == 0
    assert (report.status, INDEX in report.not_checked) == ("ok", True)


@pytest.mark.parametrize("odd", ['a"b\\c', "Ünï\u2028/\U0001f600", "7"])
async def test_an_id_is_found_however_it_is_spelled(log: TestLog, pools: Database, keeping: Database, odd: str) -> None:
    """By the bytes of canonical JSON."""
    person = {"type": "user", "id": odd}
    events: list[dict[str, Any]] = [
        {"actor": person},
        {"on_behalf_of": person},
        {"target": person},
        {"related": [person]},
        {"actor": {"id": odd + "x"}},
    ]
    await log.accept(pools, *({"action": "a.b", **one} for one in events))
    for subject, count in ((Person(odd), 2), (Target("user", odd), 2)):
        done = await retention.erase(keeping, log.log_id, AUTHOR, subject, reference=REFERENCE)
        assert done.entries == count


async def test_events_whose_sender_calls_their_category_audit_are_dropped_too(
    log: TestLog, database: TestDatabase, pools: Database, keeping: Database
) -> None:
    """Control entries have this category as well, and a segment of nothing but them is passed over."""
    await log.accept(pools, *(event(number, category="audit") for number in range(SEGMENT)))
    await index_all(pools)
    counted = await retention.clear(keeping, log.log_id, AUTHOR, dry_run=True)
    done = await retention.clear(keeping, log.log_id, AUTHOR)
    assert counted.entries == done.entries == SEGMENT
    assert await forgotten_entries(database, log) == list(range(SEGMENT))


async def test_a_segment_of_control_entries_and_kept_categories_is_passed_over(
    log: TestLog, pools: Database, keeping: Database
) -> None:
    """Also when `audit` is such a category, which control entries have besides their actions."""
    await log.accept(pools, *(event(number, category="audit") for number in range(SEGMENT - 2)))
    for number in range(2):
        entry = control.hold_range(AUTHOR.act(), f"h{number}", (90, 91))
        await holds.set_hold(keeping.writes, log.log_id, entry)
    await log.accept(pools, *(event(number) for number in range(SEGMENT, 2 * SEGMENT)))
    await index_all(pools)
    assert await forgetting.list_numbers(keeping.reads, log.log_id, Scope(2 * SEGMENT, without=("audit",))) == [1]
    assert await forgetting.list_numbers(keeping.reads, log.log_id, Scope(2 * SEGMENT)) == [0, 1]
