"""The signer as a process: under `serve` and by itself, killed at random, tampered with, refused; and its seed nowhere."""

import asyncio
import base64
import json
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil

from audit_service.core.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from audit_service.core.note import parse_note
from audit_service.core.vkey import parse_vkey
from audit_service.embedded import EmbeddedPostgres
from tests.support.apps import dump
from tests.support.commands import command
from tests.support.intact import naive_root
from tests.support.processes import Service, is_alive, start_service, wait_until

LAG_SECONDS = 20.0  # five, on a machine that does nothing else
# The service's own log is signed as well.
OF_DEFAULT = "log_id = (SELECT log_id FROM audit.tenant WHERE name = 'default')"


def post(service: Service, count: int = 1) -> int:
    """Post events in one batch; the size of the log after it."""
    answer = httpx.post(
        f"{service.url}/v1/events",
        json={"events": [{"action": "a.b"}] * count},
        headers={"Authorization": f"Bearer {service.admin_key}"},
        timeout=30,
        trust_env=False,
    )
    assert answer.status_code == 201, answer.text
    return int(answer.json()["results"][-1]["receipt"]["seq"]) + 1


def note_of(service: Service) -> str | None:
    """The latest checkpoint over HTTP."""
    headers = {"Authorization": f"Bearer {service.admin_key}"}
    answer = httpx.get(f"{service.url}/v1/chain/checkpoint", headers=headers, timeout=10, trust_env=False)
    return answer.text if answer.status_code == 200 else None


def signed_size(service: Service) -> int:
    """How far the log is signed."""
    note = note_of(service)
    return -1 if note is None else parse_checkpoint(parse_note(note).text).size


def signer_of(service: Service) -> psutil.Process | None:
    """The signer's process, if it runs."""
    return next((one for one in service.children() if "audit_service.signer" in one.cmdline()), None)


def fetch(service: Service, sql: str, *arguments: object) -> list[asyncpg.Record]:
    """As the superuser."""

    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(EmbeddedPostgres.attach(service.data_dir).url("postgres"))
        try:
            return list(await connection.fetch(sql, *arguments))
        finally:
            await connection.close()

    return asyncio.run(run())


def assert_one_root_a_size(service: Service) -> dict[int, Checkpoint]:
    """Whatever was published, kept or is the state agrees with the entries. By size."""
    hashes = [row["hash"] for row in fetch(service, f"SELECT hash FROM audit.entry WHERE {OF_DEFAULT} ORDER BY seq")]
    notes = [row["note"] for row in fetch(service, f"SELECT note FROM audit.checkpoint WHERE {OF_DEFAULT}")]
    (log,) = fetch(service, "SELECT log_key FROM audit.tenant WHERE name = 'default'")
    for path in (service.data_dir / "signing" / "logs").rglob("*.n*"):
        text = path.read_text("utf-8")
        notes += [text] if path.suffix == ".note" else [json.loads(line)["note"] for line in text.splitlines()]
    found: dict[int, Checkpoint] = {}
    for note in notes:
        checkpoint = parse_checkpoint(parse_note(note).text)
        if log["log_key"] not in checkpoint.origin:
            continue  # of the service's own log
        assert found.setdefault(checkpoint.size, checkpoint) == checkpoint, "two roots for one size"
        assert checkpoint.root == naive_root(hashes[: checkpoint.size])
    return found


@contextmanager
def serving(tmp_path: Path, **environment: Any) -> Iterator[Service]:
    """`serve` with a signer that looks every second."""
    with start_service(tmp_path / "var", AUDIT_SIGNING_INTERVAL_SECONDS="1", **environment) as service:
        yield service


def test_an_acknowledged_event_is_soon_under_a_checkpoint_that_verifies(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        vkeys = [line for line in service.lines if line.startswith("vkey of the log of tenant 'default': ")]
        assert len(vkeys) == 1
        assert len([line for line in service.lines if str(service.data_dir / "signing" / "key.json") in line]) == 1
        key = parse_vkey(vkeys[0].rpartition(" ")[2])
        lags = []
        for _ in range(5):
            size = post(service, 200)
            began = time.monotonic()
            wait_until(lambda size=size: signed_size(service) >= size, "a checkpoint over the event", LAG_SECONDS)  # type: ignore[misc]
            lags.append(time.monotonic() - began)
        print(f"lag of checkpoints: {max(lags):.1f} s at most")  # noqa: T201 - the figure this test is for
        note = note_of(service)
        assert note is not None
        assert open_checkpoint(parse_note(note), [key]).checkpoint.size == 1000
        printed = command(service.data_dir, "checkpoint")
        assert (printed.returncode, printed.stdout) == (0, note_of(service))
        listed = command(service.data_dir, "keys", "list-signing", "--json")
        assert vkeys[0].rpartition(" ")[2] in [item["vkey"] for item in json.loads(listed.stdout)]
        assert service.stop() == 0
    with serving(tmp_path, AUDIT_BOOTSTRAP_KEY=service.admin_key) as again:
        assert "vkey" not in again.output
        size = post(again)
        wait_until(lambda: signed_size(again) >= size, "signing goes on", LAG_SECONDS)
        assert again.stop() == 0


def test_killed_at_random_it_goes_on_and_never_gives_a_size_two_roots(tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # noqa: T201 - for running it again
    chance = random.Random(seed)  # noqa: S311 - no secret
    with serving(tmp_path) as service:
        for _ in range(8):
            post(service, chance.randrange(1, 40))
            wait_until(lambda: signer_of(service) is not None, "a signer")
            found = signer_of(service)
            assert found is not None
            time.sleep(chance.uniform(0.5, 2.5))  # what is random here is where it is killed
            found.kill()
        size = post(service)
        wait_until(lambda: signed_size(service) >= size, "a checkpoint after the kills", 40)
        assert size in assert_one_root_a_size(service)
        assert service.stop() == 0


def test_a_tampered_tail_is_refused_and_resumed_by_command_only(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        size = post(service, 20)
        wait_until(lambda: signed_size(service) >= size, "a checkpoint", LAG_SECONDS)
        (before,) = fetch(service, f"SELECT last_hash, frontier, size FROM audit.log WHERE {OF_DEFAULT}")
        size = post(service, 7)
        wait_until(lambda: signed_size(service) >= size, "a checkpoint", LAG_SECONDS)
        for statement in (
            *(f"ALTER TABLE audit.{table} DISABLE TRIGGER ALL" for table in ("entry", "log", "receipt")),
            "DELETE FROM audit.entry WHERE seq >= 20",
            "DELETE FROM audit.receipt WHERE seq >= 20",
        ):
            fetch(service, statement)
        fetch(
            service,
            f"UPDATE audit.log SET size = $1, last_hash = $2, frontier = $3 WHERE {OF_DEFAULT}",
            20,
            before["last_hash"],
            before["frontier"],
        )
        line = service.wait_for_line("this log is not signed")
        assert "shrunk to size 20" in json.loads(line)["detail"]
        assert httpx.get(f"{service.url}/readyz", trust_env=False).status_code == 200
        assert signed_size(service) == 27
        resumed = command(service.data_dir, "checkpoint", "resume", "--reason", "restored", "--json")
        assert resumed.returncode == 0, resumed.stderr
        assert (json.loads(resumed.stdout)["epoch"], json.loads(resumed.stdout)["lost"]) == (2, [20, 27])
        size = post(service, 10)
        wait_until(lambda: f"/2\n{size}\n" in (note_of(service) or ""), "a checkpoint of the next epoch", LAG_SECONDS)
        assert service.stop() == 0


def test_rotation_under_load_with_and_without_a_signer_running(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        post(service, 5)
        wait_until(lambda: signed_size(service) >= 5, "a checkpoint", LAG_SECONDS)
        rotated = command(service.data_dir, "keys", "rotate-signing", "--json")
        assert rotated.returncode == 0, rotated.stderr
        size = post(service, 5)
        wait_until(lambda: signed_size(service) >= size, "a checkpoint after the rotation", LAG_SECONDS)
        note = note_of(service)
        assert note is not None
        assert len(parse_note(note).signatures) == 2
        again = command(service.data_dir, "keys", "rotate-signing")
        assert (again.returncode, "still signs until" in again.stderr) == (2, True)
        assert service.stop() == 0
    revoked = command(service.data_dir, "keys", "revoke-signing", "--reason", "it leaked", "--json")
    assert revoked.returncode == 0, revoked.stderr
    with serving(tmp_path, AUDIT_BOOTSTRAP_KEY=service.admin_key) as later:
        size = post(later)
        wait_until(lambda: signed_size(later) >= size, "a checkpoint by the newest key", LAG_SECONDS)
        note = note_of(later)
        assert note is not None
        assert len(parse_note(note).signatures) == 1
        assert_one_root_a_size(later)
        assert later.stop() == 0


def test_a_signer_with_another_key_is_refused_and_the_service_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        size = post(service)
        wait_until(lambda: signed_size(service) >= size, "a checkpoint", LAG_SECONDS)
        assert service.stop() == 0
    (service.data_dir / "signing" / "key.json").unlink()
    with serving(tmp_path, AUDIT_BOOTSTRAP_KEY=service.admin_key) as stranger:
        assert "another key" in stranger.wait_for_line("the signer refuses to sign")
        stranger.wait_for_line("signer refuses to run.*the service goes on without it")
        assert post(stranger) == size + 1
        assert signer_of(stranger) is None
        assert stranger.stop() == 0


def test_a_signer_by_itself_and_no_second_beside_it(tmp_path: Path) -> None:
    with serving(tmp_path, AUDIT_SIGN="false") as service:
        assert signer_of(service) is None
        size = post(service)
        with start_signer(service.data_dir) as one:
            wait_until(lambda: signed_size(service) >= size, "a checkpoint", LAG_SECONDS)
            with start_signer(service.data_dir) as second:
                assert second.stderr is not None
                assert "another signer runs on" in second.stderr.readline()
                one.terminate()
                assert one.wait(20) == 0
                size = post(service)
                wait_until(lambda: signed_size(service) >= size, "the second taking over", LAG_SECONDS)
        assert service.stop() == 0


@contextmanager
def start_signer(data_dir: Path) -> "Iterator[subprocess.Popen[str]]":
    """`audit-service sign`, ended at the end."""
    environment = {"AUDIT_DATA_DIR": str(data_dir), "AUDIT_SIGNING_INTERVAL_SECONDS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "audit_service.cli", "sign"],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
        assert process.stderr is not None
        process.stderr.close()


def test_the_seed_is_in_its_file_only(tmp_path: Path) -> None:
    with serving(tmp_path, AUDIT_LOG_LEVEL="debug") as service:
        size = post(service, 3)
        wait_until(lambda: signed_size(service) >= size, "a checkpoint", LAG_SECONDS)
        command(service.data_dir, "keys", "list-signing")
        document: dict[str, Any] = json.loads((service.data_dir / "signing" / "key.json").read_text())
        seed = base64.b64decode(document["keys"][0]["seed"])
        database = dump(EmbeddedPostgres.attach(service.data_dir).url("postgres"))
        assert service.stop() == 0
        service.wait_until_read()
    spellings = (seed, base64.b64encode(seed), base64.urlsafe_b64encode(seed), seed.hex().encode())
    said = service.output.encode()
    assert not [one for one in spellings if one in database or one in said]
    holding = [
        path
        for path in service.data_dir.rglob("*")
        if path.is_file() and any(one in path.read_bytes() for one in spellings)
    ]
    assert holding == [service.data_dir / "signing" / "key.json"]


def test_everything_of_the_signer_is_private(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        size = post(service)
        wait_until(lambda: signed_size(service) >= size, "a checkpoint", LAG_SECONDS)
        signing = service.data_dir / "signing"
        for path in (signing, *signing.rglob("*")):
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
        (signing / "key.json").chmod(0o644)
        assert "may be read by others" in service.wait_for_line("the signer refuses to sign")
        assert post(service) == size + 1
        assert service.stop() == 0


def test_checkpoints_are_delivered_to_a_program(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    program = f"{sys.executable} -c \"import sys; open('{kept}', 'ab').write(sys.stdin.buffer.read())\""
    with serving(tmp_path, AUDIT_CHECKPOINT_COMMAND=program) as service:
        size = post(service)
        wait_until(lambda: kept.exists() and f"\n{size}\n" in kept.read_text(), "the delivered note", LAG_SECONDS)
        assert service.stop() == 0
        assert not any(map(is_alive, service.everybody_seen()))
