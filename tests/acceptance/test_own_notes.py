"""Start, stop, changed settings and commands are in the log, as real processes leave them there."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from audit_service.console import EXIT_BAD, EXIT_GOOD, EXIT_UNKNOWN, as_owner
from audit_service.core.own_event import OPERATOR, OWN_ACTIONS
from audit_service.errors import UnavailableError
from audit_service.service_life import FILE_NAME
from audit_service.store import credentials
from audit_service.store.credentials import SYSTEM_TENANT
from audit_service.watch import Watch, own_event
from tests.support.api import Api
from tests.support.commands import tell
from tests.support.postgres import TestDatabase
from tests.support.processes import Service, start_service

LIMIT_SECONDS = 60
CANARY_WORD = "a-secret-redaction-word"


def system_notes(service: Service) -> list[dict[str, Any]]:
    """What stands in the service's own log, in its order."""
    command = [
        sys.executable,
        "-m",
        "audit_service.cli",
        "keys",
        "create",
        "reader",
        "--json",
        "--tenant",
        SYSTEM_TENANT,
    ]
    environment = {**os.environ, "AUDIT_DATA_DIR": str(service.data_dir)}
    made = subprocess.run(
        [*command, "--scope", "read", "--scope", "admin"],
        env=environment,
        capture_output=True,
        check=True,
        timeout=LIMIT_SECONDS,
    )
    headers = {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"}
    asked = {"sort": "seq", "limit": "100"}
    answer = httpx.get(
        f"{service.url}/v1/events", params=asked, headers=headers, timeout=LIMIT_SECONDS, trust_env=False
    )
    events: list[dict[str, Any]] = answer.raise_for_status().json()["events"]
    return events


def test_starts_and_stops_are_told_and_an_unclean_end_too(tmp_path: Path) -> None:
    data_dir = tmp_path / "var"
    with start_service(data_dir) as service:
        assert service.stop() == 0

    def start_changed() -> AbstractContextManager[Service]:
        return start_service(data_dir, AUDIT_RETENTION_DAYS="365", AUDIT_REDACT_WORDS=CANARY_WORD)

    with start_changed() as service:
        notes = system_notes(service)
        service.kill()
    with start_changed() as service:
        after = system_notes(service)
    assert after[: len(notes)] == notes
    told = [(note["action"], note["metadata"].get("last_stop")) for note in after if note["actor"]["type"] == "service"]
    assert [one for one in told if one[0] != "audit.config.changed"] == [
        ("audit.service.started", "unknown"), ("audit.service.stopped", None),
        ("audit.service.started", "clean"), ("audit.service.started", "unclean"),
    ]  # fmt: skip
    changed = next(note["metadata"]["changed"] for note in notes if note["action"] == "audit.config.changed")
    assert {"AUDIT_RETENTION_DAYS", "AUDIT_REDACT_WORDS"} <= set(changed)
    assert "AUDIT_DATA_DIR" not in changed
    # Names, never values: neither in the log nor in what is remembered.
    assert CANARY_WORD not in json.dumps(after)
    assert CANARY_WORD not in (data_dir / FILE_NAME).read_text()
    assert (data_dir / FILE_NAME).stat().st_mode & 0o077 == 0


async def test_commands_are_noted_as_an_operator_s(database: TestDatabase, api: Api) -> None:
    await api.accept({"id": "e1", "action": "x", "actor": {"name": "Ana Canary"}})
    created = await tell(database, "keys", "create", "panel", "--scope", "ingest", "--json")
    key_id = json.loads(created.out)["key_id"]
    for command in (
        ("keys", "revoke", key_id),
        ("verify", "--json"),
        ("export", "--actor", "ana*"),
        ("retention", "set", "--days", "30", "--category", "x"),
        ("retention", "unset", "--category", "x"),
    ):
        told = await tell(database, *command)
        assert told.status == EXIT_GOOD, (command, told.err)
    assert (await tell(database, "evidence", "--out", "-")).status == EXIT_UNKNOWN  # nothing is signed
    notes = list(reversed(await api.notes()))
    assert [note["action"] for note in notes] == [
        "audit.key.created", "audit.key.revoked", "audit.verify.finished", "audit.export.finished", "audit.policy.set",
        "audit.policy.unset", "audit.evidence.finished",
    ]  # fmt: skip
    assert {(note["actor"]["type"], note["actor"]["id"]) for note in notes} == {(OPERATOR.type, OPERATOR.id)}
    assert [note["target"]["id"] for note in notes[:2]] == [key_id, key_id]
    assert notes[2]["metadata"]["status"] == "ok"
    assert (notes[3]["metadata"]["filters"], notes[3]["metadata"]["entries"]) == (["actor"], 1)
    assert notes[4]["metadata"] == {"category": "x", "days": 30}
    assert (notes[6]["outcome"], notes[6]["metadata"]["ended"]) == ("failure", "failed")
    assert "ana" not in json.dumps(notes).lower()
    assert {note["action"] for note in notes} <= OWN_ACTIONS.keys()
    await api.assert_intact(1)


async def test_a_broken_log_is_still_verified_and_the_finding_noted(database: TestDatabase, api: Api) -> None:
    await api.accept({"action": "x"}, {"action": "y"})
    admin = await database.owner()
    await admin.execute("ALTER TABLE audit.entry DISABLE TRIGGER ALL")
    await admin.execute("UPDATE audit.entry SET actor_name = 'forged' WHERE seq = 0")
    await admin.close()
    assert (await tell(database, "verify", "--json")).status == EXIT_BAD
    (note,) = await api.notes()
    assert (note["outcome"], note["metadata"]["status"], note["metadata"]["breaks"]) == ("success", "broken", 1)


async def test_a_key_that_cannot_be_noted_is_not_printed(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a command answers, it answers only with its note written."""

    async def unavailable(*_: object) -> None:
        raise UnavailableError("the database is not reachable")

    monkeypatch.setenv("AUDIT_DATABASE_URL", database.owner_url)
    monkeypatch.setattr(Watch, "note", unavailable)
    note = (None, own_event("audit.key.created", OPERATOR))
    with pytest.raises(UnavailableError):
        await asyncio.to_thread(as_owner, credentials.list_keys, lambda _: note)
    assert await asyncio.to_thread(as_owner, credentials.list_keys)
