"""Commands on the database, as an operator runs them: what they say, their exit codes, and that they never wait for ever."""

import asyncio
import gzip
import json
import os
import pty
import re
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from audit_service.console import EXIT_BAD, EXIT_GOOD, EXIT_UNKNOWN, as_owner
from audit_service.core.checkpoint import Checkpoint, sign_checkpoint
from audit_service.core.note import format_note
from audit_service.core.vkey import Signer, format_vkey
from tests.support.api import Api
from tests.support.commands import PATIENCE_SECONDS, tell
from tests.support.postgres import Server, TestDatabase


async def test_a_key_is_created_listed_and_revoked(database: TestDatabase) -> None:
    created = await tell(database, "keys", "create", "panel", "--scope", "ingest", "--json")
    assert (created.status, created.err) == (EXIT_GOOD, b"")
    key_id = json.loads(created.out)["key_id"]
    assert (await tell(database, "keys", "revoke", key_id)).status == EXIT_GOOD
    listed = json.loads((await tell(database, "keys", "list", "--json")).out)
    (found,) = [key for key in listed if key["key_id"] == key_id]
    assert (found["name"], found["scopes"], found["revoked_at"] is not None) == ("panel", ["ingest"], True)


async def test_a_failed_command_is_one_line_and_exit_2(database: TestDatabase) -> None:
    told = await tell(database, "keys", "revoke", "nobody")
    assert told == (EXIT_UNKNOWN, b"", b"audit-service: no such key\n")


async def test_commands_act_as_the_owner_role_and_not_as_whoever_logs_in(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_DATABASE_URL", database.owner_url)
    user = await asyncio.to_thread(as_owner, lambda connection: connection.scalar(text("SELECT current_user")))
    assert user == "audit_owner"


async def test_commands_give_up_on_a_paused_database(server: Server, database: TestDatabase) -> None:
    with server.paused():
        told = await asyncio.gather(tell(database, "keys", "list"), tell(database, "verify", "--json"))
    for one in told:
        assert one == (EXIT_UNKNOWN, b"", b"audit-service: the database is not reachable\n")


@pytest.fixture
async def stocked(api: Api) -> Api:
    """A log of 1,100 events, of which 100 are by Ana."""
    for start in (0, 550):
        many = [{"action": "x", "actor": {"name": "Ana" if n % 11 == 0 else "Bo"}} for n in range(start, start + 550)]
        assert (await api.client.post("/v1/events", json=many)).status_code == 201
    return api


async def test_an_export_is_the_file_that_http_gives(database: TestDatabase, stocked: Api, tmp_path: Path) -> None:
    downloads = {
        f: (await stocked.client.get("/v1/export", params={"format": f, "action": "x"})).content
        for f in ("csv", "json", "ndjson")
    }
    for format_, content in downloads.items():
        plain, packed = tmp_path / f"audit.{format_}", tmp_path / f"audit.{format_}.gz"
        for file in (plain, packed):
            told = await tell(database, "export", "-o", str(file), "--format", format_, "--action=x")
            assert told == (EXIT_GOOD, b"", b"")
        assert _settled(plain.read_bytes()) == _settled(content)
        assert _settled(gzip.decompress(packed.read_bytes())) == _settled(content)
    assert len(_names(tmp_path)) == 6  # no unfinished one is left


def _settled(content: bytes) -> bytes:
    """Without the size of the log, which every export makes larger by the note of it."""
    return re.sub(rb'"log_size":\d+', b"", content)


async def test_an_export_goes_to_standard_output_and_takes_the_filters_of_http(
    database: TestDatabase, stocked: Api
) -> None:
    told = await tell(database, "export", "--gzip", "--actor", "ana", "--action=x")
    assert (told.status, told.err) == (EXIT_GOOD, b"")
    over_http = await stocked.client.get("/v1/export", params={"actor": "ana"})
    assert _settled(gzip.decompress(told.out)) == _settled(over_http.content)
    assert json.loads(over_http.text.splitlines()[-1])["count"] == 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--format", "xml"], "--format must be csv, json or ndjson"), (["--colour", "red"], "colour"), (["--actor"], "needs a value")],
)  # fmt: skip
async def test_a_refused_export_writes_nothing(
    database: TestDatabase, tmp_path: Path, arguments: list[str], said: str
) -> None:
    told = await tell(database, "export", "-o", str(tmp_path / "audit"), *arguments)
    assert told.status == EXIT_UNKNOWN
    assert said in told.err.decode()
    assert _names(tmp_path) == []


async def test_a_terminal_sees_how_far_an_export_is(database: TestDatabase, stocked: Api, tmp_path: Path) -> None:
    assert stocked is not None
    ours, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "audit_service.cli", "export", "-o", str(tmp_path / "audit.ndjson")),
        env={
            **os.environ,
            "AUDIT_DATABASE_URL": database.owner_url,
            "TERM": "xterm",
            "COLUMNS": "100",
            "NO_COLOR": "1",
        },
        stderr=terminal,
    )
    os.close(terminal)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            shown = await asyncio.to_thread(_read_terminal, ours)
            assert await process.wait() == EXIT_GOOD
    finally:
        os.close(ours)
    assert "exporting" in shown
    assert "1100/1100 entries" in shown


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def _read_terminal(descriptor: int) -> str:
    """All that is written to a terminal until its last writer ends."""
    shown = b""
    while True:
        try:
            shown += os.read(descriptor, 4096)
        except OSError:  # EIO: nobody writes there any more
            return shown.decode()


@pytest.mark.usefixtures("stocked")
async def test_a_log_is_verified_against_files_of_checkpoints(database: TestDatabase, tmp_path: Path) -> None:
    """Several notes in a file; exit 0 when all agree, 1 when one does not, 2 when one says nothing."""
    report = json.loads((await tell(database, "verify", "--depth", "chain", "--json")).out)
    assert (report["status"], report["depth"], report["checked"]["count"]) == ("ok", "chain", 1100)
    signer = Signer.from_seed(report["origin"], b"k" * 32)
    key = format_vkey(signer.verifier())
    note, other = (
        format_note(sign_checkpoint(Checkpoint(report["origin"], size, bytes.fromhex(report["root"])), [signer]))
        for size in (1100, 1190)  # the log grows by a note with each verification
    )
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(f"{note}\n{note}")
    bad.write_text(other)
    told = await tell(database, "verify", "--checkpoint", str(good), "--key", key)
    assert (told.status, told.out.count(b"checkpoint of size 1100: consistent")) == (EXIT_GOOD, 2)
    told = await tell(database, "verify", "--checkpoint", str(good), "--checkpoint", str(bad), "--key", key)
    assert (told.status, b"checkpoint of size 1190: inconsistent: rollback" in told.out) == (EXIT_BAD, True)
    told = await tell(database, "verify", "--checkpoint", str(good))
    assert told.status == EXIT_UNKNOWN
    (tmp_path / "empty").write_bytes(b"\n")
    for arguments in (
        ("--key", "x"),
        ("--checkpoint", str(tmp_path / "none")),
        ("--checkpoint", str(tmp_path / "empty"), "--key", key),
        ("--depth", "x"),
    ):
        assert (await tell(database, "verify", *arguments)).status == EXIT_UNKNOWN
