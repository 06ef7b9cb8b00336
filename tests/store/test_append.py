"""`audit.append_entries`: it agrees with `core.chain` and the golden bytes, and settles ids, replays, clocks and odd callers."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_service.core import chain
from audit_service.core.redaction import compile_ruleset
from audit_service.errors import ClockError, IdempotencyConflictError, InvalidEventError, NotFoundError
from audit_service.ingest import Receipt
from audit_service.store.append import Appended, append_entries
from audit_service.store.engine import Database
from tests.support.appends import (
    EPOCH,
    RECIPE,
    RULESET,
    TestLog,
    call_append,
    candidate,
    existing_log,
    function_text,
    make_log,
    microseconds,
    owner,
    serving,
    wait_until,
)
from tests.support.postgres import TestDatabase
from tests.support.vectors import load_vectors

VECTORS = load_vectors()
# Whatever PostgreSQL can hold: no NUL, no surrogates.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
BODIES = TEXTS | TEXTS.map(lambda text: json.dumps({"x": text}, ensure_ascii=False))
CALLS = st.lists(st.lists(st.tuples(BODIES, st.booleans()), min_size=1, max_size=40), min_size=1, max_size=4)
NAMES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="+"), min_size=1, max_size=12)
LOGIN = {"id": "e-1", "action": "user.login", "actor": {"id": "u1", "name": "Zoë"}, "description": "first"}
NOTHING_CHANGED = {"id": "e-1", "action": "user.updated", "before": {"a": 1}, "after": {"a": 1}}

SCRIPTED = function_text(
    [
        ("CREATE FUNCTION audit.append_entries(", "CREATE FUNCTION audit.append_scripted("),
        ("clock_timestamp()", "audit.scripted_clock()"),
    ]
)
CLOCK = """
    CREATE TABLE audit.script (at timestamptz NOT NULL);
    CREATE FUNCTION audit.scripted_clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT at FROM audit.script';
"""


@pytest.fixture
async def log(database: TestDatabase, log_id: int) -> TestLog:
    """The log of the tenant `default`."""
    return await existing_log(database, log_id)


async def head_of(connection: asyncpg.Connection, log: TestLog) -> chain.Head:
    """The stored head in Python's terms."""
    row = await connection.fetchrow("SELECT * FROM audit.log WHERE log_id = $1", log.log_id)
    assert row is not None
    origin = chain.format_origin(row["service_name"], row["log_key"], row["epoch"])
    return chain.Head(origin, row["size"], row["last_hash"], microseconds(row["last_recorded_at"]), row["frontier"])


# --- two implementations, one result


@settings(max_examples=40)
@given(calls=CALLS, service_name=NAMES)
async def test_postgres_and_python_link_alike(
    database: TestDatabase, pools: Database, calls: list[list[tuple[str, bool]]], service_name: str
) -> None:
    """Given the time the database chose, `chain.link` makes the very same links and head, call after call."""
    log = await make_log(database, service_name=service_name)
    async with owner(database) as connection:
        head = await head_of(connection, log)
        for number, items in enumerate(calls):
            candidates = [candidate(f"{number}/{index}", body, keep=keep) for index, (body, keep) in enumerate(items)]
            appended = await append_entries(pools.writes, log.log_id, RULESET, candidates)
            bodies = [chain.body_hash(body) for body, keep in items if keep]
            at_us = microseconds(appended[0].recorded_at)
            links, head = chain.link(head, bodies, recorded_at_us=at_us)
            assert links == [_link(one, item) for one, item in zip(appended, items, strict=True) if one.kept]
            assert head == await head_of(connection, log)
            assert links == await stored_links(connection, log, from_seq=head.size - len(links))


def _link(appended: Appended, item: tuple[str, bool]) -> chain.Link:
    assert appended.seq is not None
    assert appended.prev_hash is not None
    assert appended.hash is not None
    at_us = microseconds(appended.recorded_at)
    return chain.Link(appended.seq, at_us, appended.prev_hash, chain.body_hash(item[0]), appended.hash)


async def stored_links(connection: asyncpg.Connection, log: TestLog, from_seq: int) -> list[chain.Link]:
    """What the table holds from `from_seq` on."""
    rows = await connection.fetch(
        "SELECT * FROM audit.entry WHERE log_id = $1 AND seq >= $2 ORDER BY seq", log.log_id, from_seq
    )
    return [
        chain.Link(row["seq"], microseconds(row["recorded_at"]), row["prev_hash"], row["body_hash"], row["hash"])
        for row in rows
    ]


async def set_clock(connection: asyncpg.Connection, at: datetime) -> None:
    """What the scripted clock says from now on."""
    await connection.execute("DELETE FROM audit.script")
    await connection.execute("INSERT INTO audit.script VALUES ($1)", at)


async def test_postgres_reproduces_the_golden_entries(database: TestDatabase) -> None:
    """The function's own text, its clock alone replaced, gives the independent program's hashes and trees."""
    log = await make_log(database, service_name=VECTORS.service_name, log_key=VECTORS.log_key)
    async with owner(database) as connection:
        await connection.execute(CLOCK + SCRIPTED)
        assert VECTORS.genesis_prev == (await head_of(connection, log)).last_hash
        for vector, tree in zip(VECTORS.entries, VECTORS.trees, strict=True):
            await set_clock(connection, EPOCH + timedelta(microseconds=vector.recorded_at_us))
            (row,) = await call_append(
                connection, log.log_id, [vector.body], function="append_scripted", ids=[str(vector.seq)]
            )
            assert (vector.seq, vector.hash, vector.prev_hash) == (row["seq"], row["hash"], row["prev_hash"])
            expected = chain.Head(VECTORS.origin, tree.size, vector.hash, vector.recorded_at_us, tree.frontier)
            assert expected == await head_of(connection, log)
        links = await stored_links(connection, log, from_seq=0)
    assert [vector.body_hash for vector in VECTORS.entries] == [link.body_hash for link in links]


# --- the clock


AT = datetime.fromisoformat("2026-03-01T12:00:00.000001+00:00")
MICROSECOND = timedelta(microseconds=1)


async def test_recorded_at_never_runs_backwards(database: TestDatabase) -> None:
    """A clock set back by up to five minutes repeats the last time; to the microsecond."""
    log = await make_log(database)
    clock = [AT, AT - MICROSECOND, AT - timedelta(minutes=5), AT, AT + MICROSECOND]
    async with owner(database) as connection:
        await connection.execute(CLOCK + SCRIPTED)
        for number, at in enumerate(clock):
            await set_clock(connection, at)
            await call_append(connection, log.log_id, ["{}"], function="append_scripted", ids=[str(number)])
        links = await stored_links(connection, log, from_seq=0)
    assert [EPOCH + timedelta(microseconds=link.recorded_at_us) for link in links] == [AT] * 4 + [AT + MICROSECOND]
    await log.assert_intact(5)


async def test_a_last_time_over_five_minutes_ahead_is_refused_exactly(database: TestDatabase) -> None:
    """Five minutes pass, a microsecond more does not; nothing is written."""
    log = await make_log(database)
    async with owner(database) as connection:
        await connection.execute(CLOCK + SCRIPTED)
        await set_clock(connection, AT)
        await call_append(connection, log.log_id, ["{}"], function="append_scripted", ids=["0"])
        await set_clock(connection, AT - timedelta(minutes=5) - MICROSECOND)
        with pytest.raises(asyncpg.PostgresError) as caught:
            await call_append(connection, log.log_id, ["{}"], function="append_scripted", ids=["1"])
    assert caught.value.sqlstate == "AU001"
    await log.assert_intact(1)


async def test_a_clock_far_behind_the_log_is_an_error_of_its_own(log: TestLog, pools: Database) -> None:
    """The real clock, the whole way through `ingest`."""
    await log.accept(pools, LOGIN)
    async with owner(log.database) as connection:
        ahead = "UPDATE audit.log SET last_recorded_at = clock_timestamp() + interval '6 minutes' WHERE log_id = $1"
        await connection.execute(ahead, log.log_id)
        with pytest.raises(ClockError):
            await log.send(pools, {**LOGIN, "id": "e-2"})
        assert await connection.fetchval("SELECT count(*) FROM audit.receipt") == 1
        assert (await head_of(connection, log)).size == 1


async def test_one_call_has_one_time(log: TestLog, pools: Database) -> None:
    """The time is read once, after the lock."""
    receipts = await log.accept(pools, *({**LOGIN, "id": str(number)} for number in range(20)))
    assert len({receipt.recorded_at for receipt in receipts}) == 1
    await log.assert_intact(20)


# --- ids


async def test_a_retry_gets_the_first_receipt(log: TestLog, pools: Database) -> None:
    """Same id, same content: nothing new is stored, and only `replayed` differs."""
    (first,) = await log.accept(pools, LOGIN)
    (again,) = await log.accept(pools, LOGIN)
    assert first._replace(replayed=True) == again
    assert first.replayed is False
    await log.assert_intact(1)


async def test_known_and_new_ids_mix_in_one_call(log: TestLog, pools: Database) -> None:
    """Outcomes keep the order of the call; the new ones are dense."""
    await log.accept(pools, {**LOGIN, "id": "b"}, {**LOGIN, "id": "d"})
    receipts = await log.accept(pools, *({**LOGIN, "id": name} for name in "abcde"))
    assert list("abcde") == [receipt.id for receipt in receipts]
    assert [receipt.seq for receipt in receipts] == [2, 0, 3, 1, 4]
    assert [receipt.replayed for receipt in receipts] == [False, True, False, True, False]
    await log.assert_intact(5)


async def test_the_same_id_with_other_content_is_a_conflict(log: TestLog, pools: Database) -> None:
    """The first entry stands, the other items of the call are taken."""
    (first,) = await log.accept(pools, LOGIN)
    conflict, other = await log.send(pools, {**LOGIN, "description": "second"}, {**LOGIN, "id": "e-2"})
    assert isinstance(conflict, IdempotencyConflictError)
    assert isinstance(other, Receipt)
    assert other.prev_hash == first.hash
    await log.assert_intact(2)


async def test_repeats_within_one_call_become_one_entry(log: TestLog, pools: Database) -> None:
    """The first of equal ids is stored; equal content replays it, other content conflicts, a bad item sinks nobody."""
    first, same, other, bad, last = await log.send(
        pools, LOGIN, LOGIN, {**LOGIN, "description": "second"}, {"id": "e-1"}, {**LOGIN, "id": "e-2"}
    )
    assert isinstance(first, Receipt)
    assert same == first._replace(replayed=True)
    assert isinstance(other, IdempotencyConflictError)
    assert isinstance(bad, InvalidEventError)
    assert isinstance(last, Receipt)
    assert (first.replayed, first.seq, last.seq) == (False, 0, 1)
    await log.assert_intact(2)


async def test_an_event_that_is_not_kept_has_a_receipt_and_no_seq(log: TestLog, pools: Database) -> None:
    """Its id is taken all the same: replayed, and in conflict with other content."""
    (first,) = await log.accept(pools, NOTHING_CHANGED)
    (again,) = await log.accept(pools, NOTHING_CHANGED)
    (conflict,) = await log.send(pools, LOGIN)
    (kept,) = await log.accept(pools, {**LOGIN, "id": "e-2"})
    assert (first.kept, first.seq, first.hash, first.prev_hash) == (False, None, None, None)
    assert first._replace(replayed=True) == again
    assert isinstance(conflict, IdempotencyConflictError)
    assert (kept.kept, kept.seq) == (True, 0)
    await log.assert_intact(1)


async def test_the_same_id_in_another_tenant_is_another_event(log: TestLog, pools: Database) -> None:
    """Ids are unique per tenant, chains are apart."""
    other = await make_log(log.database)
    (mine,) = await log.accept(pools, LOGIN)
    (theirs,) = await other.accept(pools, {**LOGIN, "description": "second"})
    assert (mine.seq, mine.replayed) == (0, False)
    assert (theirs.seq, theirs.replayed) == (0, False)
    assert mine.prev_hash != theirs.prev_hash
    await log.assert_intact(1)
    await other.assert_intact(1)


async def test_an_erased_receipt_answers_every_retry(log: TestLog, pools: Database) -> None:
    """With salt and fingerprint gone nothing can be compared, so any content under the id is a replay."""
    first, other = await log.accept(pools, LOGIN, {**LOGIN, "id": "e-2"})
    async with owner(log.database) as connection:
        await connection.execute("SET ROLE audit_eraser")
        await connection.execute("UPDATE audit.receipt SET salt = NULL, fingerprint = NULL WHERE id = 'e-1'")
    (again,) = await log.accept(pools, {**LOGIN, "description": "second"})
    assert first._replace(replayed=True) == again
    (conflict,) = await log.send(pools, {**LOGIN, "id": "e-2", "description": "second"})
    assert isinstance(conflict, IdempotencyConflictError)
    assert other.seq == 1
    await log.assert_intact(2)


async def test_other_redaction_rules_replay(log: TestLog, pools: Database) -> None:
    """The stored content was redacted differently, so a difference proves nothing."""
    (first,) = await log.accept(pools, LOGIN)
    recipe = replace(RECIPE, rules=compile_ruleset(extra_words=["quux"]))
    assert recipe.rules.digest != RECIPE.rules.digest
    (again,) = await log.accept(pools, {**LOGIN, "description": "second"}, recipe=recipe)
    assert first._replace(replayed=True) == again
    await log.assert_intact(1)


async def test_a_large_call_is_one_dense_run(log: TestLog, pools: Database) -> None:
    """A thousand in one call, and an empty call that changes nothing."""
    assert await log.send(pools) == []
    receipts = await log.accept(pools, *({**LOGIN, "id": str(number)} for number in range(1000)))
    assert list(range(1000)) == [receipt.seq for receipt in receipts]
    assert await append_entries(pools.writes, log.log_id, RULESET, []) == []
    await log.assert_intact(1000)


async def test_a_call_probes_its_ids_only(log: TestLog, pools: Database) -> None:
    """On a log that no ANALYZE has seen, the cost of a call must not grow with what is in the log."""
    calls = 200
    for number in range(calls):
        await append_entries(pools.writes, log.log_id, RULESET, [candidate(f"e-{number}")])
    await append_entries(pools.writes, log.log_id, RULESET, [candidate(f"e-{number}") for number in range(calls)])
    await pools.dispose()  # a server process reports what it read at the latest when it ends
    async with owner(log.database) as connection:

        async def reported() -> bool:
            return await receipts_probed(connection) >= 2 * calls

        await wait_until(reported, "the report of the index's use")
        read = await connection.fetchval(
            "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'receipt_pkey'"
        )
    # Nothing for a new id; one to know and one to answer for a known one.
    assert read <= 2 * calls
    await log.assert_intact(calls)


async def receipts_probed(connection: asyncpg.Connection) -> int:
    """How many scans of the receipts' key the server has counted."""
    found = await connection.fetchval("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'receipt_pkey'")
    return int(found)


# --- callers who do what they should not


async def test_an_unknown_log_is_not_found(database: TestDatabase, pools: Database) -> None:
    """There is no log to lock, so there is no way in."""
    with pytest.raises(NotFoundError):
        await append_entries(pools.writes, -1, RULESET, [candidate("e-1")])
    async with owner(database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM audit.entry") == 0
        assert await connection.fetchval("SELECT count(*) FROM audit.receipt") == 0


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_snapshot_older_than_the_lock_is_refused(log: TestLog, isolation: Any) -> None:
    """Under these levels the head read after the lock wait would be stale, and the chain would fork."""
    async with serving(log.database) as connection:
        with pytest.raises(asyncpg.PostgresError) as caught:
            async with connection.transaction(isolation=isolation):
                await call_append(connection, log.log_id, ["{}"])
    assert caught.value.sqlstate == "AU003"
    await log.assert_intact(0)


async def test_a_rolled_back_append_leaves_no_gap(log: TestLog) -> None:
    """The counter is in the head row, so it rolls back with the entries."""
    async with serving(log.database) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await call_append(connection, log.log_id, ["{}", "{}"])
        await transaction.rollback()
        rows = await call_append(connection, log.log_id, ["{}"])
    assert [row["seq"] for row in rows] == [0]
    await log.assert_intact(1)


async def test_two_calls_in_one_transaction_link(log: TestLog) -> None:
    """The second sees what the first did."""
    async with serving(log.database) as connection, connection.transaction():
        await call_append(connection, log.log_id, ["{}", "{}"], ids=["a", "b"])
        known, new = await call_append(connection, log.log_id, ["{}", "{}"], ids=["b", "c"])
    assert (known["known"], known["seq"]) == (True, 1)
    assert (new["known"], new["seq"]) == (False, 2)
    await log.assert_intact(3)


ODD_CALLS: dict[str, dict[str, Any]] = {
    "an id twice": {"bodies": ["{}", "{}"], "ids": ["a", "a"]},
    "no id": {"bodies": ["{}", "{}"], "ids": ["a", None]},
    "no body": {"bodies": ["{}", None]},
    "no decision whether to keep": {"bodies": ["{}", "{}"], "keep": [True, None]},
    "fewer decisions than ids": {"bodies": ["{}", "{}"], "keep": [True]},
    "more ids than bodies": {"bodies": ["{}"], "ids": ["a", "b"]},
}


@pytest.mark.parametrize("odd", ODD_CALLS.values(), ids=ODD_CALLS.keys())
async def test_an_odd_call_is_refused_whole(log: TestLog, odd: dict[str, Any]) -> None:
    """Whoever holds the serving role can append nonsense, but cannot hurt the chain with it."""
    async with serving(log.database) as connection:
        await call_append(connection, log.log_id, ["{}"], ids=["first"])
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await call_append(connection, log.log_id, **odd)
        await call_append(connection, log.log_id, ["{}"], ids=["last"])
    await log.assert_intact(2)
