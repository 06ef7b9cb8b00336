"""The client against the real service over real HTTP: nothing lost, nothing twice, in order, whoever dies."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from audit_service.client import (
    AsyncAuditClient,
    AuditClient,
    Event,
    Receipt,
    RefusedError,
    Rejected,
    RejectedError,
    UnavailableError,
)
from tests.support.panel_network import QUICK, CuttingProxy
from tests.support.processes import Service, free_port, start_service, wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One running service for the tests that do not kill it; its log must verify when they are done."""
    with start_service(tmp_path_factory.mktemp("client") / "var") as running:
        yield running
        assert_log_verifies(running)


@pytest.fixture
def server_id() -> str:
    """A server of the test's own, so that tests share the log but not each other's events."""
    return f"s-{uuid4().hex}"


def ask(service: Service, path: str, **parameters: str) -> dict[str, Any]:
    """GET as the admin."""
    headers = {"Authorization": f"Bearer {service.admin_key}"}
    response = httpx.get(service.url + path, params=parameters, headers=headers, timeout=20, trust_env=False)
    assert response.status_code == 200, response.text
    value: dict[str, Any] = response.json()
    return value


def stored(service: Service, server_id: str) -> list[dict[str, Any]]:
    """All events of the server, in the order of the chain."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = ask(service, f"/v1/servers/{server_id}/activity", sort="seq", limit="500", **cursor)
        found += page["events"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def numbers(events: Sequence[dict[str, Any]]) -> list[int]:
    """The `n` that `record_numbers` put into each."""
    return [event["metadata"]["n"] for event in events]


def record_numbers(client: AuditClient, server_id: str, start: int, end: int) -> None:
    """Record events numbered [start, end)."""
    for n in range(start, end):
        client.record("row.touched", server_id=server_id, metadata={"n": n})


def assert_log_verifies(service: Service) -> None:
    """The whole chain is as it was written."""
    report = ask(service, "/v1/chain/verify")
    assert (report["status"], report["breaks"]) == ("ok", [])


def client_of(service: Service, **options: Any) -> AuditClient:
    """A client of the service that does not dawdle."""
    return AuditClient(service.url, service.admin_key, **(QUICK | options))


def run_panel(script: str, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    """A panel process: `script` with AuditClient, Path, os and sys at hand."""
    head = "import os, sys\nfrom pathlib import Path\nfrom audit_service.client import AuditClient\n"
    command = [sys.executable, "-P", "-W", "error", "-c", head + script, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(panel: "subprocess.Popen[str]") -> str:
    """Wait for a panel that ends well; returns what it printed."""
    output, errors = panel.communicate(timeout=30)
    assert panel.returncode == 0, errors
    return output


def test_send_returns_the_receipt_of_the_stored_event(service: Service, server_id: str) -> None:
    asked_at = datetime.now(UTC)
    event: Event = {
        "action": "server.updated", "actor": {"id": 12, "name": "Ana"}, "server_id": server_id,
        "before": {"price": Decimal("12.50"), "password": "old one"},
        "after": {"price": Decimal("13.00"), "password": "new one"},
    }  # fmt: skip
    with client_of(service) as client:
        receipt = client.send(event)
    (found,) = stored(service, server_id)
    assert (receipt.id, receipt.seq, receipt.hash) == (found["id"], found["seq"], found["proof"]["hash"])
    assert (receipt.kept, receipt.replayed) == (True, False)
    assert asked_at <= datetime.fromisoformat(found["occurred_at"]) <= receipt.recorded_at
    assert found["changes"] == [
        {"op": "replace", "path": "/password", "redacted": True},
        {"op": "replace", "path": "/price", "old": "12.50", "new": "13.00"},
    ]
    assert "id" not in event, "the caller's event stays as it was"


def test_the_same_event_again_is_a_replay_and_other_content_is_rejected(service: Service, server_id: str) -> None:
    event: Event = {
        "id": server_id,
        "occurred_at": datetime.now(UTC),
        "action": "server.created",
        "server_id": server_id,
    }
    with client_of(service) as client:
        first, second = client.send(event), client.send(event)
        assert (second.seq, second.hash, second.replayed) == (first.seq, first.hash, True)
        with pytest.raises(RejectedError) as raised:
            client.send({**event, "action": "server.deleted"})
    assert raised.value.rejected.status == 409
    assert len(stored(service, server_id)) == 1


def test_rows_that_do_not_differ_are_answered_but_not_kept(service: Service, server_id: str) -> None:
    with client_of(service) as client:
        receipt = client.send({"action": "row.touched", "server_id": server_id, "before": {"a": 1}, "after": {"a": 1}})
    assert (receipt.kept, receipt.seq, receipt.hash) == (False, None, None)
    assert stored(service, server_id) == []


@pytest.mark.parametrize("spooled", [True, False], ids=["spool", "memory"])
def test_recorded_events_arrive_in_order_and_once(
    service: Service, server_id: str, tmp_path: Path, spooled: bool
) -> None:
    with client_of(service, spool=tmp_path / "spool" if spooled else None, batch_events=40) as client:
        record_numbers(client, server_id, 0, 250)
        assert client.flush(20)
        assert (client.pending(), client.rejected()) == (0, [])
        assert numbers(stored(service, server_id)) == list(range(250))


def test_close_sends_what_waits(service: Service, server_id: str) -> None:
    with client_of(service, flush_seconds=60) as client:
        record_numbers(client, server_id, 0, 5)
    assert numbers(stored(service, server_id)) == list(range(5))


def test_a_service_that_is_down_and_killed_loses_nothing(server_id: str, tmp_path: Path) -> None:
    """Not there yet; then there; then killed with all it runs while events are on their way; then there again."""
    port, key = free_port(), "test-" + uuid4().hex
    client = AuditClient(f"http://127.0.0.1:{port}", key, spool=tmp_path / "spool", batch_events=5, **QUICK)
    settings: dict[str, Any] = {"AUDIT_PORT": str(port), "AUDIT_BOOTSTRAP_KEY": key}
    with client:
        record_numbers(client, server_id, 0, 50)
        with pytest.raises(UnavailableError):
            AuditClient(f"http://127.0.0.1:{port}", key, retry_seconds=0.1, **QUICK).send({"action": "server.created"})
        assert client.pending() == 50
        with start_service(tmp_path / "var", **settings) as first:
            wait_until(lambda: client.pending() == 0, "the spool drains by itself")
            assert numbers(stored(first, server_id)) == list(range(50))
            record_numbers(client, server_id, 50, 400)
            wait_until(lambda: client.pending() < 300, "some of them are sent")
            first.kill()
            assert client.pending() > 0, "killed in the middle"
        record_numbers(client, server_id, 400, 450)
        with start_service(tmp_path / "var", **settings) as second:
            wait_until(lambda: client.pending() == 0, "the spool drains by itself again")
            assert numbers(stored(second, server_id)) == list(range(450))
            assert_log_verifies(second)


def test_lost_answers_become_replays_not_duplicates(service: Service, server_id: str, tmp_path: Path) -> None:
    with CuttingProxy(service.url, cuts=2) as proxy:
        with AuditClient(proxy.url, service.admin_key, **QUICK) as client:
            receipt = client.send({"action": "row.touched", "server_id": server_id, "metadata": {"n": 0}})
        assert (proxy.cuts_left, receipt.replayed) == (0, True)
        proxy.cuts_left = 3
        spooled = AuditClient(proxy.url, service.admin_key, spool=tmp_path / "spool", batch_events=20, **QUICK)
        with spooled as client:
            record_numbers(client, server_id, 1, 101)
            assert client.flush(20)
        assert proxy.cuts_left == 0
    found = stored(service, server_id)
    assert numbers(found) == list(range(101))
    assert found[0]["seq"] == receipt.seq


@pytest.mark.parametrize("spooled", [True, False], ids=["spool", "memory"])
def test_bad_events_are_set_aside_alone(service: Service, server_id: str, tmp_path: Path, spooled: bool) -> None:
    """One breaks the schema (its own result in the batch), one holds a lone surrogate (the whole body is refused)."""
    told: list[Rejected] = []
    options: dict[str, Any] = {"spool": tmp_path / "spool" if spooled else None, "on_rejected": told.append}
    with client_of(service, flush_seconds=5, **options) as client:
        for n in range(30):
            client.record("row.touched", server_id=server_id, metadata={"n": n})
            if n == 10:
                client.record("no spaces here", id=f"{server_id}-space", server_id=server_id)
            if n == 20:
                client.record("row.touched", id=f"{server_id}-half", server_id=server_id, description="\ud83d")
        assert client.flush(20)
        assert numbers(stored(service, server_id)) == list(range(30))
        rejected = client.rejected()
        assert [item.id for item in rejected] == [f"{server_id}-space", f"{server_id}-half"]
        assert [(item.id, item.status) for item in told] == [(item.id, item.status) for item in rejected]
        assert "/action must be 1 to 128 letters" in rejected[0].detail
        if spooled:
            assert [item.event and item.event["server_id"] for item in rejected] == [server_id, server_id]
        else:
            assert [item.event for item in rejected] == [None, None]
        assert client.drop_rejected([rejected[0].id, "unknown"]) == 1
        assert client.rejected() == rejected[1:]


def test_send_batch_gives_each_event_its_result(service: Service, server_id: str) -> None:
    events: list[Event] = [{"action": "row.touched", "server_id": server_id, "metadata": {"n": n}} for n in range(7)]
    events.insert(3, {"action": "audit.prune", "server_id": server_id})
    with client_of(service, batch_events=3) as client:
        results = client.send_batch(events)
        assert client.send_batch([]) == []
    assert [type(result) for result in results] == [Receipt] * 3 + [Rejected] + [Receipt] * 4
    found = stored(service, server_id)
    assert numbers(found) == list(range(7))
    assert [result.id for result in results if isinstance(result, Receipt)] == [event["id"] for event in found]


def test_a_wrong_key_rejects_no_event(service: Service, server_id: str, tmp_path: Path) -> None:
    """`send` raises at once; recorded events wait until a client with a good key comes, even while the other still tries."""
    wrong = AuditClient(service.url, "wrong-" + "x" * 40, spool=tmp_path / "spool", **QUICK)
    with wrong:
        with pytest.raises(RefusedError) as raised:
            wrong.send({"action": "server.created"})
        assert raised.value.status == 401
        record_numbers(wrong, server_id, 0, 5)
        assert not wrong.flush(0.2)
        assert (wrong.pending(), wrong.rejected()) == (5, [])
        with client_of(service, spool=tmp_path / "spool") as right:
            assert right.flush(20)
    assert numbers(stored(service, server_id)) == list(range(5))


def test_events_survive_the_kill_of_the_panel(service: Service, server_id: str, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    script = """
url, key, server_id, spool = sys.argv[1:]
audit = AuditClient(url, key, spool=Path(spool), trust_env=False)
for n in range(20):
    audit.record("row.touched", server_id=server_id, metadata={"n": n})
print("recorded", flush=True)
sys.stdin.read()
"""
    nowhere = f"http://127.0.0.1:{free_port()}"
    panel = run_panel(script, nowhere, service.admin_key, server_id, str(spool), stdin=subprocess.PIPE)
    assert panel.stdout is not None
    assert panel.stdout.readline() == "recorded\n"
    recorded_before = datetime.now(UTC)
    panel.send_signal(signal.SIGKILL)
    panel.communicate(timeout=10)
    with client_of(service, spool=spool) as client:
        wait_until(lambda: client.pending() == 0, "the next process delivers without being told")
    found = stored(service, server_id)
    assert numbers(found) == list(range(20))
    assert all(datetime.fromisoformat(event["occurred_at"]) < recorded_before for event in found), "the time of the act"


@pytest.mark.parametrize("spooled", [True, False], ids=["spool", "memory"])
def test_the_exit_of_the_interpreter_flushes(service: Service, server_id: str, tmp_path: Path, spooled: bool) -> None:
    script = """
url, key, server_id, spool = sys.argv[1:]
audit = AuditClient(url, key, spool=Path(spool) if spool else None, flush_seconds=60, trust_env=False)
for n in range(10):
    audit.record("row.touched", server_id=server_id, metadata={"n": n})
"""
    finish(run_panel(script, service.url, service.admin_key, server_id, str(tmp_path / "spool") if spooled else ""))
    assert numbers(stored(service, server_id)) == list(range(10))


@pytest.mark.parametrize("spooled", [True, False], ids=["spool", "memory"])
def test_a_fork_neither_loses_nor_takes_over(service: Service, server_id: str, tmp_path: Path, spooled: bool) -> None:
    """A server that loads the application, has events waiting, and then forks its workers."""
    script = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads, which this is about
url, key, server_id, spool = sys.argv[1:]
audit = AuditClient(url, key, spool=Path(spool) if spool else None, flush_seconds=1, trust_env=False)
audit.send({"action": "row.touched", "server_id": server_id, "metadata": {"n": -1}})
audit.record("row.touched", server_id=server_id, metadata={"n": 0})
child = os.fork()
n = 1 if child else 2
assert child or spool or audit.pending() == 0, "what waits in memory is the parent's to send"
audit.record("row.touched", server_id=server_id, metadata={"n": n})
audit.send({"action": "row.touched", "server_id": server_id, "metadata": {"n": n + 10}})
audit.close()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    finish(run_panel(script, service.url, service.admin_key, server_id, str(tmp_path / "spool") if spooled else ""))
    with client_of(service, spool=tmp_path / "spool" if spooled else None) as client:
        assert client.flush(20)
    assert sorted(numbers(stored(service, server_id))) == [-1, 0, 1, 2, 11, 12]


def test_processes_share_a_spool(service: Service, server_id: str, tmp_path: Path) -> None:
    """Three open a new file at the same moment, and one of them is killed: all that was recorded arrives, once, in each one's order."""
    script = """
url, key, server_id, spool, name, last = sys.argv[1:]
sys.stdin.readline()
audit = AuditClient(url, key, spool=Path(spool), batch_events=7, flush_seconds=0.01, trust_env=False)
for n in range(60):
    audit.record("row.touched", server_id=server_id, metadata={"n": n}, actor={"id": name})
if last == "killed":
    os.kill(os.getpid(), 9)
"""
    common = (service.url, service.admin_key, server_id, str(tmp_path / "spool"))
    ends = {"a": "ends", "b": "killed", "c": "ends"}
    panels = [run_panel(script, *common, name, end, stdin=subprocess.PIPE) for name, end in ends.items()]
    for panel in panels:
        assert panel.stdin is not None
        panel.stdin.write("go\n")
        panel.stdin.flush()
    for panel in panels:
        panel.communicate(timeout=30)
    assert [panel.returncode for panel in panels] == [0, -signal.SIGKILL, 0]
    with client_of(service, spool=tmp_path / "spool") as client:
        assert client.flush(20)
    found = stored(service, server_id)
    assert len(found) == 180
    for name in ends:
        assert numbers([event for event in found if event["actor"]["id"] == name]) == list(range(60))


def test_delivered_secrets_do_not_stay_on_the_disk(service: Service, server_id: str, tmp_path: Path) -> None:
    secret = f"secret-{uuid4().hex}"
    with client_of(service, spool=tmp_path / "spool", flush_seconds=60) as client:
        client.record("user.updated", server_id=server_id, after={"password": secret, "name": "Ana"})
        files = list(tmp_path.iterdir())
        assert any(secret.encode() in file.read_bytes() for file in files), "it waits here first"
        assert {file.stat().st_mode & 0o077 for file in files} == {0}
        assert client.flush(20)
        wait_until(
            lambda: not any(secret.encode() in file.read_bytes() for file in tmp_path.iterdir()),
            "no file of the spool holds the secret",
        )
        assert len(stored(service, server_id)) == 1


async def test_the_async_client_does_the_same(service: Service, server_id: str, tmp_path: Path) -> None:
    at = datetime.now(UTC) - timedelta(days=1)
    with CuttingProxy(service.url, cuts=1) as proxy:
        async with AsyncAuditClient(proxy.url, service.admin_key, spool=tmp_path / "spool", **QUICK) as client:
            receipt = await client.send({"action": "row.touched", "server_id": server_id, "metadata": {"n": 0}})
            assert receipt.replayed
            for n in range(1, 40):
                await client.record("row.touched", server_id=server_id, occurred_at=at, metadata={"n": n})
            await client.record("not good", id=f"{server_id}-bad")
            assert await client.flush(20)
            assert await client.pending() == 0
            assert [item.id for item in await client.rejected()] == [f"{server_id}-bad"]
            assert await client.drop_rejected([f"{server_id}-bad"]) == 1
            results = await client.send_batch(
                [{"action": "x y"}, {"action": "row.touched", "server_id": server_id, "metadata": {"n": 40}}]
            )
            assert [type(result) for result in results] == [Rejected, Receipt]
            with pytest.raises(RejectedError):
                await client.send({"action": "x y"})
    found = stored(service, server_id)
    assert numbers(found) == list(range(41))
    assert datetime.fromisoformat(found[1]["occurred_at"]) == at


def test_the_example_runs_as_it_stands(service: Service, tmp_path: Path) -> None:
    lines = (ROOT / "examples" / "panel.py").read_text("utf-8").splitlines()
    environment = os.environ | {"AUDIT_URL": service.url, "AUDIT_KEY": service.admin_key, "NO_PROXY": "127.0.0.1"}
    subprocess.run(
        [sys.executable, "-P", str(ROOT / "examples" / "panel.py")], cwd=tmp_path, env=environment, check=True
    )
    found = stored(service, "s9")[-1]
    assert [change["path"] for change in found["changes"]] == ["/memory", "/root_password"]
    assert len(lines) <= 13
    with sqlite3.connect(tmp_path / "audit.spool") as spool:
        assert spool.execute("SELECT count(*) FROM event").fetchone() == (0,)
    spool.close()


def test_no_line_of_the_log_holds_a_key_or_a_value(
    service: Service, server_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), client_of(service) as client:
        client.record("not good", server_id=server_id, metadata={"token": "hush-hush"}, description="hush-hush")
        client.record("row.touched", server_id=server_id, metadata={"token": "hush-hush"})
        assert client.flush(20)
    written = caplog.text
    assert "is rejected with 422" in written
    assert "hush-hush" not in written
    assert service.admin_key not in written
    assert service.admin_key not in repr(client)
