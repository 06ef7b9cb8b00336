"""The harness's own parts: the comparison finds each kind of broken promise, and the proxy breaks connections as it says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from audit_service import ingest
from tests.soak import writers
from tests.soak.harness import Violations, compare
from tests.soak.proxy import BREAK_LIMIT_BYTES, PIECE_BYTES, Action, Proxy
from tests.soak.writers import Answer, Ledger


def test_some_batches_are_appended_in_parts() -> None:
    assert writers.BATCH_LIMIT_EVENTS > 2 * ingest.PART_EVENTS


def row(event_id: str, seq: int | None) -> dict[str, Any]:
    """An entry or receipt as the tables hold it."""
    digest = None if seq is None else bytes([seq])
    return {"id": event_id, "seq": seq, "hash": digest, "prev_hash": digest, "kept": seq is not None}


def ledger(*acknowledged: tuple[str, int | None], sent: tuple[str, ...] = ()) -> Ledger:
    """A ledger with receipts for some ids, and ids that were only sent."""
    noted = Ledger(sent={event_id for event_id, _ in acknowledged} | set(sent))
    for event_id, seq in acknowledged:
        digest = None if seq is None else bytes([seq]).hex()
        noted.acknowledge(
            event_id, {"id": event_id, "seq": seq, "hash": digest, "prev_hash": digest, "kept": seq is not None}
        )
    return noted


def test_what_was_acknowledged_and_is_there_is_no_violation() -> None:
    rows = [row("a", 0), row("b", 1)]
    assert compare(ledger(("a", 0), ("n", None), sent=("b", "c")), rows, [*rows, row("n", None)]) == Violations()


@pytest.mark.parametrize("left", [[], [row("b", 1)]])
def test_an_acknowledged_event_that_is_gone_is_lost(left: list[dict[str, Any]]) -> None:
    assert compare(ledger(("a", 0), sent=("b",)), left, left) == Violations(lost=["a"])


def test_an_acknowledged_event_without_its_entry_is_lost() -> None:
    assert compare(ledger(("a", 0)), [], [row("a", 0)]) == Violations(lost=["a"])


def test_an_event_that_was_not_kept_is_lost_without_its_receipt() -> None:
    assert compare(ledger(("n", None)), [], []) == Violations(lost=["n"])


def test_two_entries_of_one_id_are_a_duplicate_acknowledged_or_not() -> None:
    rows = [row("a", 0), row("a", 0), row("b", 1), row("b", 1)]
    assert compare(ledger(("a", 0), sent=("b",)), rows, rows) == Violations(duplicated=["a", "b"])


@pytest.mark.parametrize("member", ["seq", "hash", "prev_hash"])
def test_an_entry_or_a_receipt_that_is_not_as_acknowledged_is_altered(member: str) -> None:
    other = row("a", 0) | {member: 9 if member == "seq" else b"x"}
    expected = Violations(altered=["a"])
    assert compare(ledger(("a", 0)), [other], [row("a", 0)]) == expected
    assert compare(ledger(("a", 0)), [row("a", 0)], [other]) == expected


def test_an_entry_nobody_sent_is_unasked() -> None:
    assert compare(ledger(), [row("a", 0)], [row("a", 0)]) == Violations(unasked=["a"])


def test_a_second_receipt_that_differs_is_a_wrong_answer() -> None:
    noted = ledger(("a", 0))
    noted.acknowledge("a", {**noted.receipts["a"], "seq": 1})
    assert len(noted.wrong_answers) == 1


def test_a_503_without_retry_after_is_a_wrong_answer() -> None:
    noted = Ledger()
    noted.refuse(Answer(503, {"retry-after": "1"}))
    assert noted.wrong_answers == []
    noted.refuse(Answer(503))
    assert noted.wrong_answers == ["a 503 without Retry-After"]


@asynccontextmanager
async def echo() -> AsyncIterator[Proxy]:
    """A proxy before a server that sends back what it gets."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE_BYTES):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    async with server, Proxy(lambda: port) as proxy:
        yield proxy


@asynccontextmanager
async def client(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection through the proxy."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_an_untroubled_proxy_changes_nothing() -> None:
    data = Random(1).randbytes(300_000)  # noqa: S311 - no secret
    async with echo() as proxy, client(proxy) as (reader, writer):
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        assert proxy.broken_connections == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("action", ["cut", "reset"])
async def test_a_broken_connection_passes_a_part_unchanged_and_ends(action: Action, seed: int) -> None:
    random = Random(seed)  # noqa: S311 - no secret
    data = random.randbytes(2 * BREAK_LIMIT_BYTES)
    got, reset = b"", False
    async with echo() as proxy, client(proxy) as (reader, writer):
        proxy.break_connections(action, random)
        writer.write(data)
        try:
            while piece := await reader.read(PIECE_BYTES):
                got += piece
        except ConnectionResetError:
            reset = True
        assert len(got) < len(data)
        assert data.startswith(got)
        assert proxy.broken_connections == 1
    assert reset or action == "cut"


async def test_a_stalled_connection_is_silent_until_the_proxy_is_mended() -> None:
    async with echo() as proxy, client(proxy) as (reader, writer):
        proxy.break_connections("stall", Random(1))  # noqa: S311 - no secret
        writer.write(bytes(2 * BREAK_LIMIT_BYTES))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await reader.readexactly(2 * BREAK_LIMIT_BYTES)
        assert not reader.at_eof()
        proxy.mend()
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        assert proxy.broken_connections == 1


async def test_a_refusing_proxy_refuses_until_it_accepts_again_on_its_port() -> None:
    async with echo() as proxy:
        port = proxy.port
        async with client(proxy) as (reader, _):
            await proxy.refuse()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            async with client(proxy):
                pass
        await proxy.accept()
        assert proxy.port == port
        async with client(proxy) as (reader, writer):
            writer.write(b"again")
            assert await reader.readexactly(5) == b"again"


async def test_a_slow_proxy_holds_each_piece_back() -> None:
    loop = asyncio.get_running_loop()
    async with echo() as proxy, client(proxy) as (reader, writer):
        proxy.slow(0.1)
        began = loop.time()
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        assert loop.time() - began >= 0.2
