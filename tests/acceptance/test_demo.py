"""`demo` as a real process: the story goes as told, fails when it should, and leaves nothing behind. And its sample day."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from audit_service import demo
from audit_service.core.verb import VERBS
from audit_service.demo_events import FAMILIES, PANELS, sample_day
from audit_service.embedded import EmbeddedPostgres
from audit_service.embedded_process import cluster_processes
from tests.support.api import Api
from tests.support.commands import command
from tests.support.intact import assert_log_intact
from tests.support.postgres import TestDatabase
from tests.support.processes import is_alive, wait_until
from tests.support.users import ORDINARY_USER, clone, interpreter_for, needs_root

DAY = date(2026, 11, 21)
COMMAND = [sys.executable, "-P", "-m", "audit_service.cli", "demo"]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for the demo's temporary files that any user may enter; pytest's own is closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="demo-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def environment(temporary: Path) -> dict[str, str]:
    """The demo's: no terminal's width, and settings of a service around it, which must not reach its own."""
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "FORCE_COLOR"}}
    return kept | {
        "TMPDIR": str(temporary),
        "AUDIT_DATABASE_URL": "postgresql://nowhere.invalid/other",
        "PYTHONUTF8": "1",
    }


def tell(
    temporary: Path, *arguments: str, python: str = sys.executable, uid: int | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [python, *COMMAND[1:], *arguments],
        env=environment(temporary) | variables,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )


def test_the_story_goes_as_told_and_leaves_nothing(temporary: Path) -> None:
    told = tell(temporary)
    assert told.returncode == 0, told.stdout + told.stderr
    lines = told.stdout.splitlines()
    assert max(map(len, lines)) <= demo.WIDTH
    assert len(lines) <= 61
    assert "\x1b" not in told.stdout + told.stderr
    assert re.search(r"1  A day of five panels: 149 events .*, 148 entries", told.stdout)
    for asked in (
        "GET /v1/events?ip=192.0.2.200",
        "GET /v1/servers/s12/activity?verb=RESTORE",
        "failure: the schedule keeps only",
    ):
        assert asked in told.stdout
    assert re.search(r"03:07:41  Marek Novák .* from 192\.0\.2\.200: /retention_days 30 → 7\n", told.stdout)
    assert "Priya Raman (Support) on behalf of Lena Fischer from 198.51.100.7: server.deleted" in told.stdout
    assert re.search(r"Found in \d+ tables: 0\. In \d+ MB of files, .*: 0\.\n", told.stdout)
    ok, broken = (told.stdout.index(text) for text in ("   ok: 148 entries, 0 breaks", "   broken: "))
    assert ok < told.stdout.index("an UPDATE as the role of the service: permission denied") < broken
    (seq,) = re.findall(r"covers up the 3 a\.m\. change, seq (\d+)\n", told.stdout)
    named = rf"seq {seq}  disclosure_mismatch: d_changes\n +seq {seq}  projection_mismatch: .*actor_name"
    assert re.search(named, told.stdout)
    assert lines[-1] == f"The story went as told: ok before, broken at seq {seq} after."
    assert list(temporary.iterdir()) == []


@needs_root
def test_an_ordinary_user_hears_the_same_story(temporary: Path) -> None:
    libraries = sysconfig.get_path("purelib")
    python = interpreter_for(ORDINARY_USER, libraries)
    with tempfile.TemporaryDirectory(prefix="clone-") as folder:
        Path(folder).chmod(0o755)
        clone(Path(folder))
        path = f"{folder}/src:{libraries}"
        told = tell(temporary, python=python, uid=ORDINARY_USER, PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "The story went as told: ok before, broken at seq" in told.stdout
    assert list(temporary.iterdir()) == []


def test_keep_leaves_an_instance_whose_verification_names_the_row(temporary: Path) -> None:
    told = tell(temporary, "--keep", PYTHONUTF8="0", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")
    assert told.returncode == 0, told.stdout + told.stderr
    (data_dir,) = temporary.iterdir()
    assert f"AUDIT_DATA_DIR={data_dir} " in told.stdout
    assert not EmbeddedPostgres(data_dir).is_running()
    verify = command(data_dir, "verify", "--json")
    assert verify.returncode == 1, verify.stderr
    broken_at = {item["seq"] for item in json.loads(verify.stdout)["breaks"]}
    assert [f"broken at seq {seq} after" in told.stdout for seq in broken_at] == [True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing(temporary: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        COMMAND, env=environment(temporary), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"A throw-away audit-service")
        children = psutil.Process(process.pid).children(recursive=True)
        (data_dir,) = temporary.iterdir()
        assert list(cluster_processes(data_dir / "postgres")) != []
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(30) not in {0, -signal.SIGKILL}
    wait_until(lambda: not any(map(is_alive, children)), "the end of every process")
    assert list(temporary.iterdir()) == []


def test_a_service_that_cannot_start_ends_the_story(
    temporary: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert demo.run(keep=False) == 1
    assert "The story did not go as told: the service did not start" in capfd.readouterr().out
    assert list(temporary.iterdir()) == []


async def test_every_event_of_the_day_is_taken_and_the_log_is_intact(
    api: Api, database: TestDatabase, log_id: int
) -> None:
    kept: dict[str, bool] = {}
    for delivery in sample_day(DAY).deliveries:
        response = await api.client.post("/v1/events", content=delivery.body, headers=delivery.headers)
        assert response.status_code in {200, 201}, response.text
        receipts = demo.receipts_of(delivery, response)
        kept |= {str(receipt["id"]): bool(receipt["kept"]) for receipt in receipts}
    assert list(kept.values()).count(False) == 1
    stored = []
    path: str | None = "/v1/events?limit=100"
    while path:
        page = (await api.client.get(path)).json()
        stored += page["events"]
        path = page["next_cursor"] and f"/v1/events?limit=100&cursor={page['next_cursor']}"
    assert {event["id"] for event in stored} == {event_id for event_id, was_kept in kept.items() if was_kept}
    assert {event["verb"] for event in stored} == set(VERBS) - {"OTHER"}
    assert {event["category"] for event in stored} == set(FAMILIES)
    assert {event["source"]["id"] for event in stored} == set(PANELS)
    owner = await database.owner()
    try:
        await assert_log_intact(owner, log_id, len(stored))
    finally:
        await owner.close()
    await api.assert_intact(len(stored))


def test_a_delivery_that_misses_its_fate_ends_the_story() -> None:
    delivery = next(delivery for delivery in sample_day(DAY).deliveries if delivery.fate == "not kept")
    receipt = {"id": delivery.events[0]["id"], "kept": True}
    for response in (httpx.Response(200, json=receipt), httpx.Response(422, json={"status": 422})):
        with pytest.raises(demo.StoryError):
            demo.receipts_of(delivery, response)


def test_the_day_is_the_same_each_time_and_moves_with_its_date() -> None:
    assert sample_day(DAY) == sample_day(DAY)
    other = sample_day(DAY - timedelta(days=200))
    assert other.secrets == sample_day(DAY).secrets
    for one, moved in zip(sample_day(DAY).deliveries, other.deliveries, strict=True):
        assert [event["id"] for event in moved.events] == [event["id"] for event in one.events]
        assert str(DAY).encode() not in moved.body
    assert {delivery.shape for delivery in other.deliveries} == {"single", "batch", "array", "ndjson"}


def test_every_secret_of_the_day_is_really_sent() -> None:
    day = sample_day(DAY)
    bodies = b"\n".join(delivery.body for delivery in day.deliveries)
    assert [secret for secret in day.secrets if secret.encode() not in bodies] == []
    assert len(set(day.secrets)) == len(day.secrets) == 26
