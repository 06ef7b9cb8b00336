"""Appends that fail half-way: no receipt without a durable entry, no gap, and a retry finds what the first try left."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from audit_service.errors import UnavailableError
from audit_service.ingest import Receipt
from audit_service.store import group_commit
from audit_service.store.append import append_entries
from audit_service.store.engine import Database, open_database
from tests.support.api import Api
from tests.support.appends import RULESET, TestLog, candidate, existing_log, lock_waiters, owner, wait_until
from tests.support.postgres import TestDatabase

EVENT = {"id": "e-1", "action": "user.login", "actor": {"id": "u1", "name": "Zoë"}, "description": "x" * 50}
FAILING_COMMIT = """
    CREATE FUNCTION audit.fail_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the commit fails';
    END $$;
    CREATE CONSTRAINT TRIGGER fail_commit AFTER INSERT ON audit.entry
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit.fail_commit();
"""


@pytest.fixture
async def log(database: TestDatabase, log_id: int) -> TestLog:
    """The log of the tenant `default`."""
    return await existing_log(database, log_id)


def events(count: int) -> list[dict[str, Any]]:
    """Events with ids of their own."""
    return [{**EVENT, "id": f"e-{number}"} for number in range(count)]


async def assert_nothing_left(log: TestLog) -> None:
    """No row of a failed append is there, and no connection sits in a transaction."""
    async with owner(log.database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM audit.receipt") == 0
        await assert_no_open_transaction(connection)
    await log.assert_intact(0)


async def assert_no_open_transaction(connection: asyncpg.Connection) -> None:
    """Nobody else on this database holds a transaction open; a cancelled server process gets the time to end its own."""

    async def nobody() -> bool:
        count = await connection.fetchval("""
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
              AND backend_type = 'client backend'
        """)
        return bool(count == 0)

    await wait_until(nobody, "the end of every transaction")


# --- a commit that fails


@pytest.fixture
async def failing_commit(database: TestDatabase) -> AsyncIterator[Callable[[], Any]]:
    """Every commit of an entry fails, until the returned function is called."""
    async with owner(database) as connection:
        await connection.execute(FAILING_COMMIT)
        yield lambda: connection.execute("DROP TRIGGER fail_commit ON audit.entry")


# With 500 the rows of the answer fill the server's send buffer, so they reach the client before the commit fails.
@pytest.mark.parametrize("count", [1, 500])
async def test_a_failed_commit_gives_no_receipt(
    log: TestLog, pools: Database, failing_commit: Callable[[], Any], count: int
) -> None:
    """The rows came back, the commit did not: an error for the whole call; afterwards the same call is new."""
    with pytest.raises(asyncpg.RaiseError, match="the commit fails"):
        await log.send(pools, *events(count))
    await assert_nothing_left(log)
    await failing_commit()
    receipts = await log.accept(pools, *events(count))
    assert [receipt.seq for receipt in receipts] == list(range(count))
    assert not any(receipt.replayed for receipt in receipts)
    await log.assert_intact(count)


@pytest.mark.parametrize("count", [1, 500])
async def test_a_failed_commit_is_an_error_over_http(
    log: TestLog, api: Api, failing_commit: Callable[[], Any], count: int
) -> None:
    """Neither a single event nor a batch is acknowledged; the error tells nothing of the database."""
    sent: Any = events(count) if count > 1 else EVENT
    response = await api.post(sent)
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    for word in ('"seq"', '"hash"', "the commit fails"):
        assert word not in response.text
    await assert_nothing_left(log)
    await failing_commit()
    assert (await api.post(sent)).status_code == 201
    await log.assert_intact(count)


async def test_a_failed_commit_ends_a_stream_without_receipts(
    log: TestLog, api: Api, failing_commit: Callable[[], Any]
) -> None:
    """NDJSON: no line claims a seq for what is not there."""
    content = "".join(json.dumps(event) + "\n" for event in events(3))
    response = await api.client.post("/v1/events", content=content, headers={"content-type": "application/x-ndjson"})
    assert '"seq"' not in response.text
    assert '"hash"' not in response.text
    await assert_nothing_left(log)
    await failing_commit()


# --- a connection that dies, a caller that goes away


@asynccontextmanager
async def head_lock(log: TestLog) -> AsyncIterator[asyncpg.Connection]:
    """Another connection holds the head row; yields a second one to look around with."""
    async with owner(log.database) as holder, owner(log.database) as observer, holder.transaction():
        await holder.execute("SELECT 1 FROM audit.log WHERE log_id = $1 FOR UPDATE", log.log_id)
        yield observer


async def kill_waiter(observer: asyncpg.Connection, killed: set[int]) -> None:
    """Terminate the server process that waits on the head, once a new one does."""
    await wait_until(lambda: _waits(observer, killed), "an append waiting on the head")
    for pid in set(await lock_waiters(observer)) - killed:
        assert await observer.fetchval("SELECT pg_terminate_backend($1)", pid)
        killed.add(pid)


async def test_a_killed_connection_is_tried_again(log: TestLog, pools: Database) -> None:
    """The second try goes through a new connection and stores the event once."""
    async with head_lock(log) as observer:
        sending = asyncio.create_task(log.accept(pools, EVENT))
        killed: set[int] = set()
        await kill_waiter(observer, killed)
        await wait_until(lambda: _waits(observer, killed), "the second try")
    (receipt,) = await sending
    assert (receipt.seq, receipt.replayed) == (0, False)
    await assert_pool_healthy(log, pools, size=1)


async def _waits(observer: asyncpg.Connection, killed: set[int]) -> bool:
    return bool(set(await lock_waiters(observer)) - killed)


async def test_a_connection_killed_twice_is_unavailable(log: TestLog, pools: Database) -> None:
    """Both tries died before the commit: no receipt, no entry, a healthy pool."""
    async with head_lock(log) as observer:
        sending = asyncio.create_task(log.send(pools, EVENT))
        killed: set[int] = set()
        await kill_waiter(observer, killed)
        await kill_waiter(observer, killed)
        with pytest.raises(UnavailableError):
            await sending
    await assert_nothing_left(log)
    await assert_pool_healthy(log, pools, size=0)


async def test_cancelled_calls_leave_the_pool_usable(log: TestLog, pools: Database) -> None:
    """More calls than the pool has connections are given up while they wait; each leaves its place to the next. The server may
    still finish one of them, as the id is the same in all."""
    async with head_lock(log) as observer:
        for number in range(6):
            seen = set(await lock_waiters(observer))
            calling = asyncio.create_task(append_entries(pools.writes, log.log_id, RULESET, [candidate("e-1")]))
            await wait_until(lambda: _waits(observer, seen), f"append {number} waiting on the head")  # noqa: B023 - awaited here
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
    (appended,) = await append_entries(pools.writes, log.log_id, RULESET, [candidate("e-1")])
    assert appended.seq == 0
    await assert_pool_healthy(log, pools, size=1)


async def test_a_sender_who_goes_away_can_ask_again(log: TestLog, pools: Database) -> None:
    """The append may go on without him: whatever became of it, the same id gives one entry and its receipt."""
    async with head_lock(log) as observer:
        sending = asyncio.create_task(log.send(pools, EVENT))
        await wait_until(lambda: _waits(observer, set()), "an append waiting on the head")
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    (receipt,) = await log.accept(pools, EVENT)
    assert receipt.seq == 0
    await assert_pool_healthy(log, pools, size=1)


async def test_a_head_that_stays_locked_is_unavailable(
    log: TestLog, pools: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender is told in time; whatever became of the try, the same event can be sent again and is stored once."""
    monkeypatch.setattr(group_commit, "APPEND_TIMEOUT_SECONDS", 0.3)
    async with head_lock(log):
        with pytest.raises(UnavailableError):
            await log.send(pools, EVENT)
    (receipt,) = await log.accept(pools, EVENT)
    assert receipt.seq == 0
    await assert_pool_healthy(log, pools, size=1)


async def assert_pool_healthy(log: TestLog, pools: Database, size: int) -> None:
    """As many appends at once as the pool has connections, and some more, all succeed; then nothing is left open."""
    batches = await asyncio.gather(*(log.accept(pools, {**EVENT, "id": f"after-{number}"}) for number in range(8)))
    assert sorted(receipt.seq or 0 for (receipt,) in batches) == list(range(size, size + 8))
    async with owner(log.database) as connection:
        await assert_no_open_transaction(connection)
    await log.assert_intact(size + 8)


# --- a connection cut before or after the commit


READY = b"Z\x00\x00\x00\x05I"  # ReadyForQuery, idle: the server has committed what was asked


@dataclass(slots=True)
class Cutter:
    """Stands between client and server; when armed, cuts the next call's connection at a chosen moment, once.

    `before`: the call never reaches the server. `after`: it commits, and the client never hears of it.
    """

    socket: str
    moment: str | None = None
    cuts: int = field(default=0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes both ways until either side ends or the cut comes."""
        server_reader, server_writer = await asyncio.open_unix_connection(self.socket)
        try:
            async with asyncio.TaskGroup() as group:
                up = group.create_task(self._pass(reader, server_writer, "before", b""))
                down = group.create_task(self._pass(server_reader, writer, "after", READY))
                await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
                up.cancel()
                down.cancel()
        finally:
            server_writer.close()
            writer.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, moment: str, ending: bytes
    ) -> None:
        while data := await reader.read(1 << 20):
            if self.moment == moment:
                while not data.endswith(ending):
                    data += await reader.read(1 << 20)
                self.moment = None
                self.cuts += 1
                return
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def cut_pools(database: TestDatabase) -> AsyncIterator[tuple[Cutter, Database]]:
    """A worker's pools with a cutter on their way to the server."""
    url = urlsplit(database.serving_url)
    (folder,) = parse_qs(url.query)["host"]
    cutter = Cutter(f"{folder}/.s.PGSQL.5432")
    listener = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    login = url.netloc.rpartition("@")[0]
    pools = open_database(f"postgresql://{login}@127.0.0.1:{port}{url.path}?sslmode=disable", pool_connections=2)
    try:
        yield cutter, pools
    finally:
        await pools.dispose()
        listener.close()
        await listener.wait_closed()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("count", [1, 300])
async def test_a_lost_answer_is_asked_for_again(log: TestLog, moment: str, count: int) -> None:
    """Whether the commit happened or not, the receipts tell the truth and every event is stored once."""
    async with cut_pools(log.database) as (cutter, pools):
        await log.accept(pools, {**EVENT, "id": "warm-up"})  # so that the cut hits the append, not the login
        cutter.moment = moment
        receipts = await log.accept(pools, *events(count))
        assert cutter.cuts == 1
        await assert_receipts_stored(log, receipts)
        again = await log.accept(pools, *events(count))
        assert all(receipt.replayed for receipt in again)
        assert [receipt.seq for receipt in again] == [receipt.seq for receipt in receipts]
    await log.assert_intact(count + 1)


async def assert_receipts_stored(log: TestLog, receipts: list[Receipt]) -> None:
    """Each receipt names an entry with this hash."""
    async with owner(log.database) as connection:
        rows = await connection.fetch("SELECT seq, hash FROM audit.entry WHERE log_id = $1", log.log_id)
    hashes = {row["seq"]: row["hash"] for row in rows}
    for receipt in receipts:
        assert receipt.seq is not None
        assert hashes[receipt.seq] == receipt.hash
