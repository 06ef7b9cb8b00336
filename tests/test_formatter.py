"""The formatter as a process: it answers each message with a piece, and goes when nobody is there any more."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from audit_service.core.sight import EVERYTHING
from audit_service.core.writer import Writer
from audit_service.file_stream import FORMATTER
from audit_service.formatter import FAILED, LENGTH, message
from tests.core.test_table import stored
from tests.core.test_writer import row_of

ARGUMENTS: Any = ("export", {"format_": "csv", "link_templates": {}, "sight": EVERYTHING, "gzip": False})
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


def receive(process: "subprocess.Popen[bytes]") -> bytes:
    """The next piece."""
    assert process.stdout is not None
    (size,) = LENGTH.unpack(process.stdout.read(LENGTH.size))
    return process.stdout.read(size)


def test_each_message_is_answered_with_the_next_piece_of_the_file() -> None:
    with started() as process:
        send(process, ARGUMENTS, ("write", ROWS), ("write", ROWS[:1]), ("end", 9))
        pieces = [receive(process) for _ in range(4)]
    writer = Writer("csv", {}, EVERYTHING)
    assert pieces == [writer.begin(), writer.write(ROWS), writer.write(ROWS[:1]), writer.end(9)]


def test_what_the_log_does_not_bear_out_is_answered_with_the_reason() -> None:
    arguments = {"name": f"a/t/{'0' * 32}", "from_seq": 0, "to_seq": 1, "size": 1, "root": bytes(32), "note": "a\n"}
    more = {"pruned_before": 0, "created_at": datetime(2026, 11, 22, tzinfo=UTC)}
    with started() as process:
        send(process, ("evidence", {**arguments, **more}), ("end", ()))
        receive(process)
        assert process.stdout is not None
        (size,) = LENGTH.unpack(process.stdout.read(LENGTH.size))
        assert size & FAILED
        assert process.stdout.read(size & ~FAILED) == b"the entries end at seq 0"


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
