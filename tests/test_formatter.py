"""The formatter as a process: it answers each message with a piece, and goes when nobody is there any more."""

import json
import pickle
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from audit_service.core.sight import EVERYTHING
from audit_service.core.writer import Writer
from audit_service.errors import TreeDamagedError, UnavailableError
from audit_service.file_stream import FORMATTER
from audit_service.formatter import FRAME, READ, Kind, message
from audit_service.store.engine import open_database
from audit_service.store.reading import Part
from audit_service.store.selection import Filter, Selection
from audit_service.store.slices import session_of
from tests.core.test_table import stored
from tests.core.test_writer import row_of
from tests.support.api import Api
from tests.support.postgres import BOOTSTRAP_KEY

ARGUMENTS: Any = ("export", {"format_": "csv", "link_templates": {}, "sight": EVERYTHING, "gzip": False}, None)
ROWS = [row_of(stored())] * 3
PATIENCE_SECONDS = 20.0


@contextmanager
def started() -> Iterator["subprocess.Popen[bytes]"]:
    """A formatter. At the end it must have gone by itself, without a word."""
    pipe = subprocess.PIPE
    with subprocess.Popen(FORMATTER, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(PATIENCE_SECONDS) == 0
            assert process.stderr is not None
            assert process.stderr.read() == b""
        finally:
            process.kill()


def send(process: "subprocess.Popen[bytes]", *values: Any) -> None:
    """Send messages."""
    assert process.stdin is not None
    process.stdin.write(b"".join(map(message, values)))
    process.stdin.flush()


def receive(process: "subprocess.Popen[bytes]") -> tuple[int, int, bytes]:
    """The next frame."""
    assert process.stdout is not None
    kind, rows, size = FRAME.unpack(process.stdout.read(FRAME.size))
    return kind, rows, process.stdout.read(size)


def test_each_message_is_answered_with_the_next_piece_of_the_file() -> None:
    with started() as process:
        send(process, ARGUMENTS, ("write", ROWS), ("write", ROWS[:1]), ("end", 9))
        frames = [receive(process) for _ in range(8)]
    writer = Writer("csv", {}, EVERYTHING)
    pieces = [(0, writer.begin()), (3, writer.write(ROWS)), (1, writer.write(ROWS[:1])), (0, writer.end(9))]
    done = (Kind.DONE, 0, b"")
    assert frames == [frame for rows, piece in pieces for frame in ((Kind.PIECE, rows, piece), done)]


def test_what_the_log_does_not_bear_out_is_answered_with_the_reason() -> None:
    arguments = {"name": f"a/t/{'0' * 32}", "from_seq": 0, "to_seq": 1, "size": 1, "root": bytes(32), "note": "a\n"}
    more = {"pruned_before": 0, "created_at": datetime(2026, 11, 22, tzinfo=UTC)}
    with started() as process:
        send(process, ("evidence", {**arguments, **more}, None), ("end", ()))
        kind, _, error = [receive(process) for _ in range(3)][-1]
    raised = pickle.loads(error)  # noqa: S301 - ours
    assert (kind, type(raised), str(raised)) == (Kind.FAILED, TreeDamagedError, "the entries end at seq 0")


async def test_it_reads_a_part_by_itself_and_sees_one_log_only(api: Api) -> None:
    await api.accept(*({"action": f"x.{n}", "server_id": f"s{n % 2}"} for n in range(6)))
    log_id = (await api.service.credential(BOOTSTRAP_KEY)).log_id  # type: ignore[union-attr]
    sight = replace(EVERYTHING, server_ids=frozenset({"s1"}), global_events=False, own_entries=False)
    session = session_of(api.service.database.reads, log_id, Selection(sight=sight))
    everything = session_of(api.service.database.reads, log_id, Selection(sight=EVERYTHING))
    assert session is not None
    assert everything is not None
    unlimited = replace(everything, binding=session.binding)
    bound_elsewhere = replace(everything, binding=everything.binding.replace(f"'{log_id}'", f"'{log_id + 1}'"))
    arguments = {**ARGUMENTS[1], "format_": "ndjson"}
    found = {}
    for name, given in (("both", session), ("binding alone", unlimited), ("elsewhere", bound_elsewhere)):
        with started() as process:
            send(process, ("export", arguments, given), (READ, Part(0, 100)), (READ, Part(0, 100, [1, 4])))
            frames = [receive(process) for _ in range(2)]  # the beginning
            while sum(kind == Kind.DONE for kind, _, _ in frames) < 3:
                frames.append(receive(process))
        lines = b"".join(piece for _, _, piece in frames).splitlines()
        assert sum(rows for _, rows, _ in frames) == len(lines)
        found[name] = [json.loads(line)["action"] for line in lines]
    assert found["both"] == ["x.1", "x.3", "x.5", "x.1"]
    assert found["binding alone"] == ["x.1", "x.3", "x.5", "x.1"]
    assert found["elsewhere"] == []


async def test_its_session_cannot_write_and_takes_the_pools_url(api: Api) -> None:
    """Also one with parameters that are meant for SQLAlchemy."""
    log_id = (await api.service.credential(BOOTSTRAP_KEY)).log_id  # type: ignore[union-attr]
    url = api.service.settings.database_url.get_secret_value()  # type: ignore[union-attr]
    engine = open_database(f"{url}{'&' if '?' in url else '?'}prepared_statement_cache_size=0").reads
    session = session_of(engine, log_id, Selection(sight=EVERYTHING))
    assert session is not None
    assert url.rpartition("@")[0].rpartition(":")[2] not in repr(session)
    connection = await asyncpg.connect(**session.options)
    try:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("UPDATE audit.api_key SET last_used_at = now()")
    finally:
        await connection.close()


async def test_what_is_compared_here_is_read_nowhere_else(api: Api) -> None:
    """The statement alone would let through whatever may match."""
    asked = Selection(sight=replace(EVERYTHING, emails=False), filters=(Filter("q", ("ana",)),))
    assert session_of(api.service.database.reads, 1, asked) is None


async def test_a_database_that_goes_away_is_said(api: Api) -> None:
    log_id = (await api.service.credential(BOOTSTRAP_KEY)).log_id  # type: ignore[union-attr]
    session = session_of(api.service.database.reads, log_id, Selection(sight=EVERYTHING))
    assert session is not None
    away = replace(session, options={**session.options, "host": "/nowhere", "timeout": 5})
    with started() as process:
        send(process, ("export", ARGUMENTS[1], away), (READ, Part(0, 1)))
        kind, _, error = receive(process)  # before the file begins
    raised = pickle.loads(error)  # noqa: S301 - ours
    assert (kind, type(raised)) == (Kind.FAILED, UnavailableError)
    assert "/nowhere" not in str(raised)


@pytest.mark.parametrize(
    "sent", [b"", message(ARGUMENTS), message(ARGUMENTS) + message(ROWS)[:20], message(ARGUMENTS)[:4]]
)
def test_it_ends_with_its_input(sent: bytes) -> None:
    with started() as process:
        assert process.stdin is not None
        process.stdin.write(sent)


def test_it_ends_when_nobody_reads() -> None:
    with started() as process:
        assert process.stdout is not None
        process.stdout.close()
        send(process, ARGUMENTS, ("write", ROWS))
        assert process.wait(PATIENCE_SECONDS) == 0
