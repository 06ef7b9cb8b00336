"""Append-only, twice: by privilege for whoever logs in, by trigger for whoever owns the tables."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.support.appends import TestLog, append_statement, call_append, existing_log, make_log, owner, serving
from tests.support.postgres import Server, TestDatabase, default_log_id

EVENT = {
    "action": "user.updated",
    "actor": {"type": "user", "id": "u1", "name": "Zoë", "email": "zoe@example.com", "role": "admin"},
    "on_behalf_of": {"id": "u2", "name": "Root"},
    "target": {"type": "user", "id": "9", "name": "nine"},
    "server_id": "s1",
    "outcome": "success",
    "description": "text",
    "context": {"ip": "203.0.113.9", "session_id": "abc", "request_id": "r-1", "user_agent": "curl/8"},
    "metadata": {"a": "1"},
    "before": {"a": 1},
    "after": {"a": 2},
    "source": {"id": "panel-1", "seq": 1},
}
PRIVILEGE = "permission denied|must be owner|must be able to SET ROLE"
TRIGGER = "append-only|for ever|never changes|never shrinks|only remove"
ROLES = {"postgres": TRIGGER, "audit_owner": TRIGGER, "audit_serving": PRIVILEGE, "audit_eraser": PRIVILEGE}
TABLES = ("entry", "receipt", "log")
HEADER = ("log_id", "seq", "recorded_at", "epoch", "kind", "prev_hash", "body_hash", "hash")
REWRITTEN = ("actor_keys", "paths", "search")


@pytest.fixture(scope="module")
async def log(server: Server) -> AsyncIterator[TestLog]:
    """A log of three full entries and one receipt without an entry, which must be intact when the module is done."""
    database = await server.create()
    log = await existing_log(database, await default_log_id(database))
    pools = database.open()
    await log.accept(pools, *({**EVENT, "id": f"e-{number}"} for number in range(3)))
    await log.accept(pools, {"id": "noop", "action": "a", "before": {"a": 1}, "after": {"a": 1}})
    await pools.dispose()
    yield log
    await log.assert_intact(3)
    await server.drop(database)


@asynccontextmanager
async def acting_as(database: TestDatabase, role: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of the role in a transaction that is rolled back, so that what gets through changes nothing for others."""
    async with serving(database) if role == "audit_serving" else owner(database) as connection:
        if role != "audit_serving":
            await connection.execute(f"SET ROLE {role}")
        transaction = connection.transaction()
        await transaction.start()
        yield connection
        await transaction.rollback()


async def refused(connection: asyncpg.Connection, statement: str, reason: str, *args: Any) -> None:
    """The statement fails for this reason, and for lack of privilege as the code says."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=reason):
        await connection.execute(statement, *args)


async def columns_of(connection: asyncpg.Connection, table: str, *, nullable: bool | None = None) -> list[str]:
    """The table's columns as the catalogue has them."""
    rows = await connection.fetch(
        """
        SELECT attname, NOT attnotnull AS nullable FROM pg_attribute
        WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
        """,
        f"audit.{table}",
    )
    return [row["attname"] for row in rows if nullable in {None, row["nullable"]}]


# --- who may not change what


STATEMENTS = {
    "entry": {
        "update": "UPDATE audit.entry SET body = 'x'",
        "update to the same": "UPDATE audit.entry SET hash = hash",
        "delete": "DELETE FROM audit.entry",
        "truncate": "TRUNCATE audit.entry",
        "merge": "MERGE INTO audit.entry USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE",
        "upsert": "INSERT INTO audit.entry SELECT * FROM audit.entry ON CONFLICT (log_id, seq) DO UPDATE SET hash = '\\x'",
    },
    "receipt": {
        "update": "UPDATE audit.receipt SET hash = prev_hash",
        "update of what an erasure nulls": "UPDATE audit.receipt SET salt = '\\x00'",
        "delete": "DELETE FROM audit.receipt",
        "truncate": "TRUNCATE audit.receipt",
    },
    "log": {
        "shrink": "UPDATE audit.log SET size = 0, frontier = ''",
        "older epoch": "UPDATE audit.log SET epoch = 0",
        "newer epoch": "UPDATE audit.log SET epoch = epoch + 1",
        "other name": "UPDATE audit.log SET service_name = 'other'",
        "other key": "UPDATE audit.log SET log_key = repeat('0', 32)",
        "other id": "UPDATE audit.log SET log_id = 1",
        "delete": "DELETE FROM audit.log",
        "truncate": "TRUNCATE audit.log CASCADE",
    },
}
CASES = [(table, name) for table in TABLES for name in STATEMENTS[table]]
# The eraser has the right to update these, to null only, and to delete what was pruned: tested below.
ERASABLE = {
    ("entry", "update"),
    ("entry", "delete"),
    ("entry", "merge"),
    ("receipt", "update of what an erasure nulls"),
}
ACTS = [(role, *case) for role in ROLES for case in CASES if role != "audit_eraser" or case not in ERASABLE]


@pytest.mark.parametrize(("role", "table", "name"), ACTS, ids=["-".join(act) for act in ACTS])
async def test_a_change_is_refused(log: TestLog, role: str, table: str, name: str) -> None:
    """The serving role and the eraser have no right to; the owner and a superuser meet the trigger."""
    async with acting_as(log.database, role) as connection:
        await refused(connection, STATEMENTS[table][name], ROLES[role])


@pytest.mark.parametrize(("table", "name"), CASES, ids=["-".join(case) for case in CASES])
async def test_replica_mode_switches_no_trigger_off(log: TestLog, table: str, name: str) -> None:
    """Ordinary triggers do not fire for a superuser's `session_replication_role = replica`; ours do."""
    async with acting_as(log.database, "postgres") as connection:
        await connection.execute("SET session_replication_role = replica")
        await refused(connection, STATEMENTS[table][name], TRIGGER)


@pytest.mark.parametrize("table", TABLES)
async def test_the_triggers_are_what_refuses_the_owner(log: TestLog, table: str) -> None:
    """The control: with the triggers disabled the same statement succeeds, so it is they that were tested."""
    async with acting_as(log.database, "postgres") as connection:
        await connection.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER ALL")
        assert await connection.execute(STATEMENTS[table]["delete"]) != "DELETE 0"


@pytest.mark.parametrize("table", TABLES)
async def test_every_guard_is_enabled_always(log: TestLog, table: str) -> None:
    """UPDATE, DELETE and TRUNCATE each have a trigger of their own."""
    async with owner(log.database) as connection:
        rows = await connection.fetch(
            "SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = $1::text::regclass AND NOT tgisinternal",
            f"audit.{table}",
        )
    assert {row["tgenabled"] for row in rows} == {b"A"}
    rows = [row for row in rows if not row["tgname"].startswith("entry_keep_sources")]
    assert len(rows) == 3
    names = " ".join(row["tgname"] for row in rows)
    assert re.search("update|forward", names)
    assert "delete" in names
    assert "truncate" in names


@pytest.mark.parametrize(
    "forward",
    ["size = 4, frontier = last_hash, last_hash = sha256('')", "last_recorded_at = now()"],
)
async def test_a_head_may_move_forward(log: TestLog, forward: str) -> None:
    """What the append function does to the head row is what the trigger lets through."""
    async with acting_as(log.database, "audit_owner") as connection:
        assert await connection.execute(f"UPDATE audit.log SET {forward} WHERE log_id = $1", log.log_id) == "UPDATE 1"


# --- the serving role


NOT_FOR_SERVING = {
    "insert": "INSERT INTO audit.entry SELECT * FROM audit.bound_entry",
    "forged seq": "INSERT INTO audit.entry (log_id, seq) OVERRIDING SYSTEM VALUE VALUES (1, 0)",
    "through the view": "INSERT INTO audit.bound_entry (log_id, seq) VALUES (1, 0)",
    "update through the view": "UPDATE audit.bound_entry SET body = NULL",
    "delete through the view": "DELETE FROM audit.bound_entry",
    "receipt": "INSERT INTO audit.receipt (log_id, id) VALUES (1, 'x')",
    "receipt through the view": "UPDATE audit.bound_receipt SET hash = NULL",
    "log": "INSERT INTO audit.log (log_id) VALUES (1)",
    "head through the view": "UPDATE audit.bound_log SET size = 0",
    "copy": "COPY audit.entry (log_id, seq) FROM STDIN",
    "row lock": "SELECT 1 FROM audit.log FOR UPDATE",
    "row lock through the view": "SELECT 1 FROM audit.bound_log FOR UPDATE",
    "table lock": "LOCK TABLE audit.log IN ROW EXCLUSIVE MODE",
    "disable": "ALTER TABLE audit.entry DISABLE TRIGGER ALL",
    "replica mode": "SET session_replication_role = replica",
    "become the owner": "SET ROLE audit_owner",
    "become the eraser": "SET ROLE audit_eraser",
    "replace the function": "CREATE OR REPLACE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE sql AS ''",
    "drop the trigger": "DROP TRIGGER entry_no_delete ON audit.entry",
    "drop the table": "DROP TABLE audit.entry",
    "own table": "CREATE TABLE audit.mine (x int)",
    "own trigger": "CREATE TRIGGER mine BEFORE INSERT ON audit.entry FOR EACH ROW EXECUTE FUNCTION audit.refuse_change()",
    "own rule": "CREATE RULE mine AS ON INSERT TO audit.entry DO INSTEAD NOTHING",
}


@pytest.mark.parametrize("statement", NOT_FOR_SERVING.values(), ids=NOT_FOR_SERVING.keys())
async def test_the_serving_role_has_no_other_way_in(log: TestLog, statement: str) -> None:
    """EXECUTE on the append function and SELECT on the bound views is all it has."""
    async with acting_as(log.database, "audit_serving") as connection:
        await connection.execute("SELECT set_config('audit.log_id', $1, true)", str(log.log_id))
        await refused(connection, statement, PRIVILEGE)


async def test_only_the_serving_role_may_append(log: TestLog) -> None:
    """Nobody else is granted EXECUTE, and PUBLIC has nothing at all in the schema."""
    async with owner(log.database) as connection:
        may = await connection.fetch("""
            SELECT r.rolname FROM pg_roles AS r
            WHERE NOT r.rolsuper AND has_function_privilege(r.oid, 'audit.append_entries'::regproc, 'EXECUTE')
            AND r.rolname NOT IN ('pg_database_owner')
        """)
        public = await connection.fetch("""
            SELECT p.proname FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
            WHERE p.pronamespace = 'audit'::regnamespace AND a.grantee = 0
        """)
    assert {row["rolname"] for row in may} == {"audit_serving", "audit_owner"}
    assert public == []


# --- the eraser


async def test_the_header_is_every_column_that_cannot_be_null(log: TestLog) -> None:
    """So no column is neither: what is not header may be dropped, what is header never is."""
    async with owner(log.database) as connection:
        assert set(HEADER) == set(await columns_of(connection, "entry", nullable=False))


@pytest.mark.parametrize("column", HEADER)
async def test_the_eraser_cannot_touch_a_header_column(log: TestLog, column: str) -> None:
    """Not by privilege; and when a careless grant gives it the right, the trigger refuses."""
    other = {"recorded_at": "now()", "kind": "'drop'"}.get(
        column, "substr(sha256(''), 1, 32)" if "hash" in column else "7"
    )
    statement = f"UPDATE audit.entry SET {column} = {other}"
    await assert_refused_to_the_eraser(log, "entry", statement, "the header of an entry never changes")


async def assert_refused_to_the_eraser(log: TestLog, table: str, statement: str, told: str) -> None:
    """For want of the privilege; and with it, by the trigger."""
    async with acting_as(log.database, "audit_eraser") as connection:
        await refused(connection, statement, PRIVILEGE)
    async with acting_as(log.database, "postgres") as connection:
        await connection.execute(f"GRANT UPDATE ON audit.{table} TO audit_eraser")
        await connection.execute("SET ROLE audit_eraser")
        await refused(connection, statement, told)


async def test_the_eraser_deletes_below_the_cut_only(log: TestLog) -> None:
    """And moves the cut forward only, never to the head."""
    async with acting_as(log.database, "audit_eraser") as connection:
        await refused(connection, "DELETE FROM audit.entry WHERE seq = 0", "the log is append-only")
    for cut in ("3", "0", "-1"):
        async with acting_as(log.database, "audit_eraser") as connection:
            await connection.execute("UPDATE audit.log SET pruned_before = 1 WHERE size = 3")
            await refused(connection, f"UPDATE audit.log SET pruned_before = {cut} WHERE size = 3", "only forward")
    async with acting_as(log.database, "audit_eraser") as connection:
        await connection.execute("UPDATE audit.log SET pruned_before = 2 WHERE size = 3")
        assert await connection.execute("DELETE FROM audit.entry WHERE seq < 2") == "DELETE 2"
        await refused(connection, "DELETE FROM audit.entry", "the log is append-only")


async def test_the_eraser_may_null_everything_else(log: TestLog) -> None:
    """Each column by itself and all at once, without any function of ours in between."""
    async with acting_as(log.database, "audit_eraser") as connection:
        columns = await columns_of(connection, "entry", nullable=True)
        for column in columns:
            before = await connection.fetchval(f"SELECT count({column}) FROM audit.entry")
            assert before == 3, f"the test's events leave {column} empty, so nulling it shows nothing"
            assert await connection.execute(f"UPDATE audit.entry SET {column} = NULL WHERE seq = 1") == "UPDATE 1"
            assert await connection.fetchval(f"SELECT count({column}) FROM audit.entry") == 2
        nothing = ", ".join(f"{column} = NULL" for column in columns)
        assert await connection.execute(f"UPDATE audit.entry SET {nothing}") == "UPDATE 3"


async def test_the_eraser_may_not_put_anything_in_its_place(log: TestLog) -> None:
    """A value may go, but not become another; save the three columns that hold parts of several groups."""
    values = {"bytea": "'\\x00'::bytea", "timestamp with time zone": "'epoch'", "bigint": "7", "inet": "'192.0.2.1'"}
    async with owner(log.database) as connection:
        types = await connection.fetch("""
            SELECT attname, format_type(atttypid, NULL) AS type FROM pg_attribute
            WHERE attrelid = 'audit.entry'::regclass AND attnum > 0 AND NOT attisdropped AND NOT attnotnull
        """)
    for row in types:
        column, value = row["attname"], values.get(row["type"], "'{other}'")
        async with acting_as(log.database, "audit_eraser") as connection:
            if column in REWRITTEN:
                assert await connection.execute(f"UPDATE audit.entry SET {column} = {value}") == "UPDATE 3"
            else:
                await refused(connection, f"UPDATE audit.entry SET {column} = {value}", "only remove values")


@pytest.mark.parametrize("role", ["postgres", "audit_owner"])
async def test_only_the_eraser_may_null(log: TestLog, role: str) -> None:
    """Not even the owner of the tables erases directly; a session setting cannot imitate the eraser."""
    async with acting_as(log.database, role) as connection:
        await connection.execute("SET LOCAL audit.role = 'audit_eraser'")
        await refused(connection, "UPDATE audit.entry SET d_actor = NULL", TRIGGER)


async def test_the_eraser_may_null_salt_and_fingerprint_of_a_receipt(log: TestLog) -> None:
    """Both together; anything else of a receipt stays for ever."""
    nothing = "UPDATE audit.receipt SET salt = NULL, fingerprint = NULL"
    async with acting_as(log.database, "audit_eraser") as connection:
        assert await connection.execute(nothing) == "UPDATE 4"
        assert await connection.execute(nothing) == "UPDATE 4"
    for statement in (
        "UPDATE audit.receipt SET salt = NULL",
        "UPDATE audit.receipt SET salt = '\\x00', fingerprint = NULL",
        "UPDATE audit.receipt SET fingerprint = salt, salt = NULL",
    ):
        async with acting_as(log.database, "audit_eraser") as connection:
            await refused(connection, statement, "receipts are for ever")


RECEIPT_FIXED = ("log_id", "seq", "recorded_at", "epoch", "kept", "id", "prev_hash", "hash", "ruleset")


@pytest.mark.parametrize("column", RECEIPT_FIXED)
async def test_the_eraser_cannot_touch_the_rest_of_a_receipt(log: TestLog, column: str) -> None:
    """Not by privilege; and when a careless grant gives it the right, the trigger refuses."""
    values = {"recorded_at": "now()", "kept": "NOT kept", "id": "id || 'x'", "ruleset": "'x'"}
    other = values.get(column, "sha256('')" if "hash" in column else "7")
    statement = f"UPDATE audit.receipt SET salt = NULL, fingerprint = NULL, {column} = {other} WHERE id = 'e-0'"
    await assert_refused_to_the_eraser(log, "receipt", statement, "receipts are for ever")


async def test_every_column_of_a_receipt_is_decided(log: TestLog) -> None:
    """A new column must be put on one side."""
    async with owner(log.database) as connection:
        assert {*RECEIPT_FIXED, "salt", "fingerprint"} == set(await columns_of(connection, "receipt"))


# --- sessions that try to lead the function astray


# Real schemas can hold functions that shadow those of pg_catalog, the temporary one tables and types.
SHADOWS = """
    CREATE TEMP TABLE entry (LIKE audit.entry);
    CREATE TEMP TABLE receipt (LIKE audit.receipt);
    CREATE TEMP TABLE log AS TABLE audit.log;
    CREATE SCHEMA shadow;
    CREATE FUNCTION shadow.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT decode(repeat('00', 32), 'hex') $$;
    CREATE FUNCTION shadow.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT '2001-01-01'::timestamptz $$;
    CREATE FUNCTION shadow.encode(bytea, text) RETURNS text LANGUAGE sql AS $$ SELECT 'forged' $$;
    CREATE FUNCTION shadow.convert_to(text, name) RETURNS bytea LANGUAGE sql AS $$ SELECT '\\x00'::bytea $$;
    CREATE FUNCTION shadow.chr(int) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$;
    CREATE DOMAIN pg_temp.bytea AS pg_catalog.bytea CHECK (VALUE IS NULL AND VALUE IS NOT NULL);
    CREATE DOMAIN shadow.text AS pg_catalog.text CHECK (VALUE IS NULL AND VALUE IS NOT NULL);
    SET search_path = shadow, pg_temp, pg_catalog;
"""
SETTINGS: Sequence[str] = (
    "SET timezone = 'Asia/Kolkata'",
    "SET datestyle = 'German, DMY'",
    "SET intervalstyle = 'iso_8601'",
    "SET bytea_output = 'escape'",
    "SET extra_float_digits = -15",
    "SET array_nulls = off",
    "SET client_encoding = 'LATIN1'",
    "SET check_function_bodies = off",
    "SET transform_null_equals = on",
)


async def test_nothing_in_the_session_shadows_what_the_function_uses(database: TestDatabase) -> None:
    """Tables, types and functions of the same names, found first: the entry goes to the real table, with the real hash."""
    log = await make_log(database)
    async with owner(database) as connection:
        statement = await append_statement(connection, log.log_id)
        await connection.execute(SHADOWS)
        assert await connection.fetchval("SELECT pg_catalog.ascii(chr(65))") == ord("x")  # the shadows do shadow
        await connection.execute(statement)
        for table in ("entry", "receipt"):
            assert await connection.fetchval(f"SELECT pg_catalog.count(*) FROM pg_temp.{table}") == 0
        age = await connection.fetchval(
            "SELECT pg_catalog.now() - recorded_at FROM audit.entry WHERE log_id = $1", log.log_id
        )
        assert age < timedelta(hours=1)
    await log.assert_intact(1)


async def test_session_settings_change_no_byte(database: TestDatabase) -> None:
    """How the caller's session spells times, bytes and arrays has no part in what is hashed."""
    log = await make_log(database)
    for number, setting in enumerate(SETTINGS):
        async with owner(database) as connection:
            await connection.execute(setting)
            (row,) = await call_append(connection, log.log_id, ['{"x":"Zoë"}'], ids=[f"e-{number}"])
            assert row["seq"] == number
    await log.assert_intact(len(SETTINGS))
