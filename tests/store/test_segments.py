"""Segments of the search index: added whole, once, by whoever is first; whatever the entries hold; and never for another log."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from pyroaring import BitMap
from structlog.testing import capture_logs

from audit_service import indexer
from audit_service.core import terms
from audit_service.core.sight import EVERYTHING
from audit_service.core.terms import NAMED, NO_SERVER, Term
from audit_service.settings import Settings
from audit_service.store import segments
from audit_service.store.engine import Database, bound
from audit_service.store.find import count_entries, list_entries
from audit_service.store.selection import Filter, Selection
from tests.support.appends import TestLog, existing_log, make_log, owner, serving, wait_until
from tests.support.apps import add_tenant
from tests.support.postgres import Server, TestDatabase, default_log_id, running_server

SEGMENT = 16
START = datetime(2026, 5, 1, tzinfo=UTC)
CALL = "SELECT audit.add_segment($1, $2, $3, $4, $5, $6, $7::text[], $8::text[], $9::int[], $10::bytea[], $11::text[])"
BIND = "SELECT set_config('audit.log_id', $1, true)"
INDEX_TABLES = ("segment", "posting", "tally")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of sixteen entries, read five at a time."""
    monkeypatch.setattr(terms, "SEGMENT_EVENTS", SEGMENT)
    monkeypatch.setattr(segments, "_SLICE_ENTRIES", 5)


def event(number: int) -> dict[str, Any]:
    """An event whose named fields take every combination of a few values."""
    return {
        "action": f"server.{('created', 'deleted', 'moved')[number % 3]}",
        "occurred_at": (START + timedelta(minutes=number * 7 % 50)).isoformat(),
        "actor": {"type": "user", "id": f"u{number % 5}", "role": ("Admin", "Support")[number % 2]},
        "server_id": f"s{number % 4}" if number % 4 else None,
    }


@pytest.fixture
async def log(database: TestDatabase, pools: Database) -> TestLog:
    """Three full segments and a rest."""
    found = await existing_log(database, await default_log_id(database))
    await found.accept(pools, *(event(number) for number in range(3 * SEGMENT + 5)))
    return found


async def rows(database: TestDatabase, table: str) -> list[asyncpg.Record]:
    """All rows of a table of the index."""
    async with owner(database) as connection:
        return list(await connection.fetch(f"SELECT * FROM audit.{table}"))


async def counts(database: TestDatabase) -> dict[str, int]:
    """Table of the index → rows."""
    return {table: len(await rows(database, table)) for table in INDEX_TABLES}


async def recounted(database: TestDatabase, log_id: int, size: int) -> dict[tuple[str, str], int]:
    """(field, value) → entries below `size`, from the entries themselves."""
    async with owner(database) as connection:
        entries = await connection.fetch("SELECT * FROM audit.entry WHERE log_id = $1 AND seq < $2", log_id, size)
    found: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        named = {field: entry[column] for field, column in NAMED.items()} | {
            "server_id": entry["server_id"] or NO_SERVER
        }
        found.update((field, value) for field, value in named.items() if value is not None)
    return dict(found)


async def tallied(database: TestDatabase, log_id: int) -> dict[tuple[str, str], int]:
    """(field, value) → entries, as the tallies say."""
    return {(r["field"], r["value"]): r["events"] for r in await rows(database, "tally") if r["log_id"] == log_id}


# --- adding ---


async def test_full_segments_are_added_once_and_the_rest_waits(log: TestLog, pools: Database) -> None:
    assert await indexer.index_all(pools) == 3
    assert await indexer.index_all(pools) == 0
    found = await rows(log.database, "segment")
    assert sorted((row["number"], row["events"]) for row in found) == [(number, SEGMENT) for number in range(3)]
    await log.accept(pools, *(event(number) for number in range(SEGMENT - 6)))
    assert await indexer.index_all(pools) == 0  # one entry short
    await log.accept(pools, event(0))
    assert await indexer.index_all(pools) == 1
    await log.assert_intact(4 * SEGMENT)


async def test_a_segment_holds_every_term_of_its_entries_and_no_other_s(log: TestLog, pools: Database) -> None:
    await indexer.index_all(pools)
    async with owner(log.database) as connection:
        entries = await connection.fetch("SELECT * FROM audit.entry WHERE log_id = $1 ORDER BY seq", log.log_id)
    wanted: dict[tuple[int, str, str], set[int]] = {}
    for entry in entries[: 3 * SEGMENT]:
        for field, value in terms.entry_terms(_Row(entry)):
            wanted.setdefault((entry["seq"] // SEGMENT, field, value), set()).add(entry["seq"] % SEGMENT)
    found = await rows(log.database, "posting")
    assert {(r["number"], r["field"], r["value"]): set(BitMap.deserialize(r["positions"])) for r in found} == wanted
    assert all(r["events"] == len(BitMap.deserialize(r["positions"])) for r in found)
    times = [entry["occurred_at"] for entry in entries]
    for r in await rows(log.database, "segment"):
        own = times[r["number"] * SEGMENT : (r["number"] + 1) * SEGMENT]
        assert (r["first_at"], r["last_at"]) == (min(own), max(own))


class _Row:
    """A record's values as attributes."""

    def __init__(self, record: asyncpg.Record) -> None:
        self._record = record

    def __getattr__(self, name: str) -> Any:
        return self._record[name]


async def test_tallies_are_what_the_indexed_entries_add_up_to(log: TestLog, pools: Database) -> None:
    await indexer.index_all(pools)
    assert await tallied(log.database, log.log_id) == await recounted(log.database, log.log_id, 3 * SEGMENT)


async def test_two_indexers_at_once_add_each_segment_once(log: TestLog, pools: Database) -> None:
    """On pools of their own, over two logs: whoever is second adds nothing, tallies neither."""
    other = await existing_log(log.database, await add_tenant(log.database, "other"))
    await other.accept(pools, *(event(number) for number in range(4 * SEGMENT)))
    rivals = [log.database.open() for _ in range(3)]
    added = await asyncio.gather(*(indexer.index_all(rival) for rival in rivals))
    for rival in rivals:
        await rival.dispose()
    assert sum(added) == 7
    assert await tallied(log.database, log.log_id) == await recounted(log.database, log.log_id, 3 * SEGMENT)
    assert await tallied(log.database, other.log_id) == await recounted(log.database, other.log_id, 4 * SEGMENT)
    assert await indexer.index_all(pools) == 0


async def test_the_same_segment_added_by_two_at_once_is_there_once(log: TestLog, pools: Database) -> None:
    """Both have read the entries, neither knows of the other."""
    added = await asyncio.gather(*(segments.add_segment(pools.reads, pools.writes, log.log_id, 0) for _ in range(4)))
    assert sorted(added) == [False, False, False, True]
    assert await tallied(log.database, log.log_id) == await recounted(log.database, log.log_id, SEGMENT)


async def test_a_segment_that_fails_leaves_nothing(database: TestDatabase, log_id: int) -> None:
    """The second posting is there twice; and what was not added can be added."""
    good: list[Any] = [log_id, 0, 0, START, START, 1, ["verb", "role"], ["CREATE", "a"], [1, 1], [b"a", b"b"], ["verb"]]
    bad = [*good[:6], ["verb", "role", "role"], ["CREATE", "a", "a"], [1, 1, 1], [b"a", b"b", b"c"], ["verb"]]
    async with serving(database) as connection:
        await connection.execute(BIND.replace("true", "false"), str(log_id))
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.fetchval(CALL, *bad)
        assert await counts(database) == dict.fromkeys(INDEX_TABLES, 0)
        assert await connection.fetchval(CALL, *good) is True
        assert await connection.fetchval(CALL, *good) is False
    assert await counts(database) == {"segment": 1, "posting": 2, "tally": 1}
    assert await tallied(database, log_id) == {("verb", "CREATE"): 1}


@pytest.mark.parametrize("binding", [None, "", "other"])
async def test_only_the_bound_log_is_indexed(database: TestDatabase, log_id: int, binding: str | None) -> None:
    other = (await make_log(database)).log_id
    async with serving(database) as connection, connection.transaction():
        if binding is not None:
            await connection.execute(BIND, str(other) if binding else "")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="only the bound log is indexed"):
            await connection.fetchval(CALL, log_id, 0, 0, START, START, 0, [], [], [], [], [])
    assert await counts(database) == dict.fromkeys(INDEX_TABLES, 0)


async def test_nobody_else_may_call_the_function(database: TestDatabase) -> None:
    async with owner(database) as connection:
        allowed = await connection.fetch(
            "SELECT r.rolname FROM pg_roles AS r, pg_proc AS p WHERE p.proname = 'add_segment' AND NOT r.rolsuper "
            "AND has_function_privilege(r.oid, p.oid, 'EXECUTE') AND r.rolname NOT LIKE 'pg\\_%'"
        )
    assert {row["rolname"] for row in allowed} == {"audit_owner", "audit_serving"}


# --- whatever the entries hold ---


def unrepeated(characters: int) -> str:
    """Letters that take three bytes each, and that no compression makes fewer."""
    chance = random.Random(characters)  # noqa: S311 - test data
    return "".join(chr(chance.randrange(0x4E00, 0x9FA5)) for _ in range(characters))


ROLE, NAME = unrepeated(1024), unrepeated(1023)
HOSTILE = {
    "a role of 1,024 letters": ({"actor": {"role": ROLE}}, ("role", ROLE)),
    "a name of 1,023 letters": ({"actor": {"name": NAME}}, ("actor", NAME)),
    "the beginning of that name": ({"actor": {"name": NAME}}, ("actor", NAME[:600] + "*")),
    "a name that folds to eighteen times its length": ({"actor": {"name": "\ufdfa" * 1024}}, ("actor", "\ufdfa" * 1024)),
    "a path of 1,024 letters": ({"before": {NAME: 1}, "after": {NAME: 2}}, ("changed", f"/{NAME}")),
    "below a path of 1,024 letters": ({"before": {NAME: {"a": 1}}, "after": {NAME: {"a": 2}}}, ("changed", f"/{NAME}")),
    "a changed value of 60,000 letters": ({"before": {"a": 1}, "after": {"a": NAME * 60}}, ("q", NAME[40:90])),
}  # fmt: skip


@pytest.mark.parametrize(("extra", "asked"), HOSTILE.values(), ids=HOSTILE.keys())
async def test_no_event_is_too_long_for_the_index(
    log: TestLog, pools: Database, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], asked: tuple[str, str]
) -> None:
    """A key of a btree holds 2,704 bytes: what is longer is cut, and found none the less."""
    monkeypatch.setattr("audit_service.store.find.WALK_ENTRIES", 1)
    (receipt,) = await log.accept(pools, event(1) | extra)
    await log.accept(pools, *(event(number) for number in range(SEGMENT)))
    assert await indexer.index_all(pools) == 4
    selection = Selection((Filter(asked[0], (asked[1],)),), sight=EVERYTHING)
    async with bound(pools.reads, log.log_id, EVERYTHING) as connection:
        page = await list_entries(connection, log.log_id, selection)
        assert await count_entries(connection, log.log_id, selection) == (1, False)
    assert [row.seq for row in page.rows] == [receipt.seq]


async def test_values_that_begin_alike_and_are_cut_are_told_apart(
    log: TestLog, pools: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a negated filter, for which the index may exclude only what it surely knows."""
    monkeypatch.setattr("audit_service.store.find.WALK_ENTRIES", 1)
    roles = [ROLE, ROLE[:256], ROLE[:256] + "x", ROLE[:255]]
    await log.accept(pools, *({"id": f"r{n}", "action": "x", "actor": {"role": role}} for n, role in enumerate(roles)))
    await log.accept(pools, *(event(number) for number in range(SEGMENT)))
    await indexer.index_all(pools)
    size = 3 * SEGMENT + 5 + len(roles) + SEGMENT
    async with bound(pools.reads, log.log_id, EVERYTHING) as connection:
        for number, role in enumerate(roles):
            found = await list_entries(connection, log.log_id, Selection((Filter("role", (role,)),), sight=EVERYTHING))
            assert [row.id for row in found.rows] == [f"r{number}"]
            rest = Selection((Filter("role", (role,), negated=True),), sight=EVERYTHING)
            assert await count_entries(connection, log.log_id, rest) == (size - 1, False)
            listed = await list_entries(connection, log.log_id, rest, limit=500)
            assert len(listed.rows) == size - 1


DAMAGE = {
    "a time beyond the calendar": "occurred_at = '200000-01-01'",
    "a time before the calendar": "occurred_at = '4000-01-01 BC'",
    "a time at infinity": "occurred_at = 'infinity'",
    "a null among the keys": "actor_keys = ARRAY[NULL, 'x']",
    "arrays among the keys": "actor_keys = ARRAY[ARRAY['x'], ARRAY['y']]",
    "a null among the paths": "paths = ARRAY[NULL, '/x']",
    "an address that is a network": "ip = '10.0.0.0/8'",
    "no body": "body = NULL, occurred_at = NULL, action = NULL",
}


@pytest.mark.parametrize("assignment", DAMAGE.values(), ids=DAMAGE.keys())
async def test_a_damaged_row_stops_no_indexer(log: TestLog, pools: Database, assignment: str) -> None:
    """Its segment is indexed, and so are the logs behind."""
    async with owner(log.database) as connection:
        await connection.execute("ALTER TABLE audit.entry DROP CONSTRAINT entry_times")
        await connection.execute("ALTER TABLE audit.entry DISABLE TRIGGER ALL")
        await connection.execute(f"UPDATE audit.entry SET {assignment} WHERE log_id = $1 AND seq = 3", log.log_id)
    assert await indexer.index_all(pools) == 3
    async with bound(pools.reads, log.log_id, EVERYTHING) as connection:
        found = await segments.fetch_postings(connection, log.log_id, [0], [Term.of("action", "server.created")])
        page = await list_entries(
            connection, log.log_id, Selection(since=START, sight=EVERYTHING), sort="seq", limit=500
        )
    assert found[0][0]
    assert len(page.rows) >= 3 * SEGMENT


async def test_a_log_that_cannot_be_indexed_keeps_no_other_from_it(
    log: TestLog, pools: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await existing_log(log.database, await add_tenant(log.database, "other"))
    await other.accept(pools, *(event(number) for number in range(SEGMENT)))
    first, last = sorted((log.log_id, other.log_id))
    add = segments.add_segment

    async def fail_for_first(reads: Any, writes: Any, log_id: int, number: int) -> bool:
        if log_id == first:
            raise TypeError("something nobody has thought of")
        return await add(reads, writes, log_id, number)

    monkeypatch.setattr(segments, "add_segment", fail_for_first)
    with pytest.raises(TypeError):
        await indexer.index_all(pools)
    assert {row["log_id"] for row in await rows(log.database, "segment")} == {last}


# --- the process's own loop ---


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that a test stops."""
    with running_server(tmp_path_factory.mktemp("indexed") / "data") as running:
        yield running


@pytest.fixture
async def running(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Starts the indexer's loop on a database; it is stopped at the end."""
    monkeypatch.setattr(indexer, "LOOK_SECONDS", 0.05)
    stopped = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    yield lambda database: tasks.append(
        asyncio.create_task(indexer.run(Settings(database_url=database.serving_url), stopped))
    )
    stopped.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 20)


async def test_the_indexer_waits_for_a_database_that_went_away(own_server: Server, running: Any) -> None:
    database = await own_server.create()
    log = await existing_log(database, await default_log_id(database))
    pools = database.open()

    async def indexed(count: int) -> bool:
        return len(await rows(database, "segment")) == count

    with capture_logs() as said:
        await log.accept(pools, *(event(number) for number in range(SEGMENT)))
        running(database)
        await wait_until(lambda: indexed(1), "the first segment")
        await asyncio.to_thread(own_server.postgres.stop, 10)

        async def warned() -> bool:
            return any("trying again" in line["event"] for line in said)

        await wait_until(warned, "a warning")
        await asyncio.to_thread(own_server.postgres.start)
        await log.accept(pools, *(event(number) for number in range(SEGMENT)))
        await wait_until(lambda: indexed(2), "the second segment")
    await pools.dispose()


async def test_the_indexer_outlives_a_failure_that_nobody_thought_of(
    log: TestLog, pools: Database, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that keeps dying would end the service; and what an error says may hold a value, so only its name is logged."""
    add = segments.add_segment
    failures = iter([ValueError("hunter2-canary"), TypeError("hunter2-canary")])

    async def fail_twice(*arguments: Any) -> bool:
        for error in failures:
            raise error
        return await add(*arguments)

    monkeypatch.setattr(segments, "add_segment", fail_twice)
    with capture_logs() as said:
        running(log.database)

        async def indexed() -> bool:
            return len(await rows(log.database, "segment")) == 3

        await wait_until(indexed, "every segment")
    assert [line.get("error") for line in said] == ["ValueError", "TypeError"]
    assert "hunter2-canary" not in str(said)
    del pools
