"""`serve` as real processes: what it starts and restarts, what survives a kill, what is left behind."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest

from audit_service.core.terms import SEGMENT_EVENTS
from audit_service.embedded import EmbeddedPostgres
from audit_service.embedded_process import cluster_processes
from tests.support.processes import SERVE, Service, is_alive, start_service, wait_until
from tests.support.users import ORDINARY_USER, clone, interpreter_for, needs_root

# Instead of the workers a child that ends at once, and shorter delays.
BROKEN_WORKER = """
import audit_service.supervisor as supervisor
supervisor._CHILD_DELAYS_SECONDS = (0.0, 0.05, 0.1)
children = supervisor._children
def broken(settings, listener):
    return [supervisor.Child("broken", "this", child.settings_line) for child in children(settings, listener)]
supervisor._children = broken
"""

# Children called so are of a module that is not there: they end by themselves, with a failure.
MISSING_MODULE = """
import audit_service.supervisor as supervisor
from dataclasses import replace
supervisor._CHILD_DELAYS_SECONDS = (0.0, 0.05)
children = supervisor._children
supervisor._children = lambda settings, listener: [
    replace(child, module="audit_service.no_such_module") if child.name.startswith({name!r}) else child
    for child in children(settings, listener)
]
"""


def append(service: Service, identifier: str) -> str:
    """Append one event and return the hash of its entry."""
    headers = {"Authorization": f"Bearer {service.admin_key}"}
    body = {"id": identifier, "action": "server.created"}
    answer = httpx.post(f"{service.url}/v1/events", json=body, headers=headers, timeout=10, trust_env=False)
    assert answer.status_code in (200, 201), answer.text
    digest: str = answer.json()["hash"]
    return digest


def assert_all_gone(service: Service) -> None:
    """No process the service ever had is left, and no server works on its data."""
    wait_until(lambda: not any(map(is_alive, service.everybody_seen())), "the end of every process")
    assert list(cluster_processes(service.data_dir / "postgres")) == []


def test_serve_starts_appends_and_stops_without_leftovers(tmp_path: Path) -> None:
    with start_service(tmp_path / "var", AUDIT_WORKERS="2") as service:
        digest = append(service, "first")
        assert len(service.workers()) == 2
        assert service.stop() == 0
        assert_all_gone(service)
        assert not (service.data_dir / "run").exists()
        assert (service.data_dir.stat().st_mode & 0o777) == 0o700
        assert [line for line in service.lines if "admin API key" in line or "warning" in line] == []
    with start_service(tmp_path / "var", AUDIT_BOOTSTRAP_KEY=service.admin_key) as again:
        assert append(again, "first") == digest
        assert again.stop() == 0
    made_up = "changeme-" * 5
    with start_service(tmp_path / "var", AUDIT_BOOTSTRAP_KEY=made_up) as again:
        (warning,) = [line for line in again.lines if "warning" in line]
        assert "AUDIT_BOOTSTRAP_KEY" in warning
        assert made_up not in warning
        assert again.stop() == 0


def test_the_first_start_prints_an_admin_key_once(tmp_path: Path) -> None:
    unset = [sys.executable, "-P", "-c", f"import os; os.environ.pop('AUDIT_BOOTSTRAP_KEY', None)\n{SERVE}"]
    with start_service(tmp_path / "var", command=unset) as service:
        printed = [line for line in service.lines if "admin API key" in line]
        assert len(printed) == 1
        service.admin_key = printed[0].rpartition(" ")[2]
        append(service, "first")
        assert service.stop() == 0
    with start_service(tmp_path / "var", command=unset) as again:
        assert "admin API key" not in again.output
        assert again.stop() == 0


def test_a_killed_supervisor_takes_all_down_and_the_next_one_has_the_data(tmp_path: Path) -> None:
    with start_service(tmp_path / "var", AUDIT_WORKERS="2") as service:
        digest = append(service, "first")
        service.kill()
        assert_all_gone(service)
        port, key = service.url.rpartition(":")[2], service.admin_key
        with start_service(tmp_path / "var", AUDIT_PORT=port, AUDIT_BOOTSTRAP_KEY=key) as again:
            assert append(again, "first") == digest
            assert again.stop() == 0
            assert_all_gone(again)


def indexer_of(service: Service) -> psutil.Process | None:
    """The indexer's process, if it runs now."""
    running = (process for process in service.children() if "audit_service.indexer" in process.cmdline())
    return next(running, None)


def segments_of(service: Service) -> int:
    """How many segments are in the search index."""

    async def count() -> int:
        connection = await asyncpg.connect(EmbeddedPostgres.attach(service.data_dir).url("postgres"))
        try:
            return int(await connection.fetchval("SELECT count(*) FROM audit.segment"))
        finally:
            await connection.close()

    return asyncio.run(count())


def test_a_killed_indexer_comes_back_and_catches_up(tmp_path: Path) -> None:
    """Killed before there was anything to index; meanwhile, and after, events are taken and found."""
    with start_service(tmp_path / "var", AUDIT_WORKERS="1") as service:
        wait_until(lambda: indexer_of(service) is not None, "the indexer")
        killed = indexer_of(service)
        assert killed is not None
        killed.kill()
        service.wait_for_line(r"^indexer ended with status -9; starting it again")
        headers = {"Authorization": f"Bearer {service.admin_key}"}
        with httpx.Client(base_url=service.url, headers=headers, timeout=30, trust_env=False) as client:
            assert segments_of(service) == 0
            for start in range(0, SEGMENT_EVENTS, 1000):
                size = min(1000, SEGMENT_EVENTS - start)
                events = [{"action": "needle.found" if start + n == 77 else "server.created"} for n in range(size)]
                assert client.post("/v1/events", json=events).status_code == 201
            wait_until(lambda: segments_of(service) == 1, "the segment", 60)
            again = indexer_of(service)
            assert again is not None
            assert again.pid != killed.pid
            found = client.get("/v1/events", params={"action": "needle.*", "count": "capped"}).json()
            assert ([event["seq"] for event in found["events"]], found["count"]) == ([77], 1)
        assert service.stop() == 0
        assert_all_gone(service)


def test_a_killed_postgres_comes_back_under_the_same_workers(tmp_path: Path) -> None:
    with start_service(tmp_path / ("long" * 30)) as service:
        digest = append(service, "first")
        workers = [process.pid for process in service.workers()]
        service.postmaster().kill()
        service.wait_for_line("embedded PostgreSQL ready")
        service.wait_until_answering()
        wait_until(lambda: _appends(service, "second"), "an append after the restart")
        assert append(service, "first") == digest
        assert [process.pid for process in service.workers()] == workers
        assert service.stop() == 0
        assert_all_gone(service)


def test_a_killed_worker_is_started_again(tmp_path: Path) -> None:
    with start_service(tmp_path / "var") as service:
        digest = append(service, "first")
        (worker,) = service.workers()
        worker.kill()
        service.wait_for_line("worker 1 ended with status -9; starting it again")
        service.wait_until_answering()
        assert append(service, "first") == digest
        assert worker.pid not in [process.pid for process in service.workers()]
        assert service.stop() == 0


def test_a_second_serve_on_the_same_data_is_refused_and_does_no_harm(tmp_path: Path) -> None:
    with start_service(tmp_path / "var") as service:
        with start_service(tmp_path / "var", wait=False) as second:
            assert second.process.wait(20) == 2
            second.wait_until_read()
            (line,) = second.lines
            assert "another `serve` already runs" in line
        append(service, "first")
        assert service.stop() == 0


def test_a_taken_port_is_named_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with start_service(tmp_path / "var", wait=False, AUDIT_PORT=port) as service:
            assert service.process.wait(20) == 1
            service.wait_until_read()
            (line,) = service.lines
            assert f"cannot listen on 127.0.0.1:{port}" in line
    assert not (tmp_path / "var" / "postgres").exists()


def test_no_secret_stands_on_a_command_line_or_in_a_workers_environment(tmp_path: Path) -> None:
    with start_service(tmp_path / "var") as service:
        passwords = json.loads((tmp_path / "var" / "postgres.json").read_text())["passwords"].values()
        everybody = service.children()
        shown = "".join(" ".join(process.cmdline()) for process in everybody)
        known = "".join(str(process.environ()) for process in (*service.workers(), service.postmaster()))
        assert "audit_service.worker" in shown
        for secret in (*passwords, service.admin_key):
            assert secret not in shown
            assert secret not in known
        assert service.stop() == 0


def test_a_given_database_is_used_and_left_alone(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "elsewhere")
    server.start()
    try:
        with start_service(tmp_path / "var", AUDIT_DATABASE_URL=server.url()) as service:
            append(service, "first")
            assert "postgres" not in [process.name() for process in service.children()]
            assert service.stop() == 0
        assert server.is_running()
        assert not (tmp_path / "var" / "postgres").exists()
    finally:
        server.stop()


def test_an_unreachable_database_is_named_without_its_password(tmp_path: Path) -> None:
    url = "postgresql://someone:hunter2@127.0.0.1:1/audit"
    with start_service(tmp_path / "var", wait=False, AUDIT_DATABASE_URL=url) as service:
        assert service.process.wait(20) == 1
        service.wait_until_read()
        assert "the database cannot be prepared" in service.output
        assert "Traceback" not in service.output
        assert "hunter2" not in service.output


def test_a_stop_signal_during_the_start_stops_cleanly(tmp_path: Path) -> None:
    with start_service(tmp_path / "var", wait=False) as service:
        service.wait_for_line("making the database cluster")
        assert service.stop() == 0
        assert_all_gone(service)
    with start_service(tmp_path / "var") as again:
        assert again.stop() == 0


def test_an_open_request_is_finished_before_the_stop(tmp_path: Path) -> None:
    with start_service(tmp_path / "var") as service:
        connection = _half_a_request(service)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for_line("stopping")
        assert all(map(is_alive, service.workers()))
        connection.sendall(b"}")
        assert connection.recv(65536).startswith(b"HTTP/1.1 201")
        connection.close()
        assert service.process.wait(20) == 0


def test_a_second_signal_hurries_the_workers_but_not_the_database(tmp_path: Path) -> None:
    with start_service(tmp_path / "var", AUDIT_SHUTDOWN_TIMEOUT_SECONDS="60") as service:
        with contextlib.closing(_half_a_request(service)):
            service.children()
            service.process.send_signal(signal.SIGINT)
            service.wait_for_line("stopping")
            service.process.send_signal(signal.SIGINT)
            assert service.process.wait(20) == 0
        assert_all_gone(service)
        assert "database system is shut down" in (tmp_path / "var" / "postgres.log").read_text()


def test_a_child_that_never_starts_well_is_tried_again_and_again(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", BROKEN_WORKER + SERVE]
    with start_service(tmp_path / "var", wait=False, command=command) as service:
        service.wait_for_line("broken ended with status 0; starting it again in 0 s")
        service.wait_for_line("broken ended with status 0; starting it again in 0.05 s")
        service.wait_for_line("broken ended with status 0; starting it again in 0.1 s")
        service.wait_for_line("broken ended with status 0; starting it again in 0.1 s")
        assert service.stop() == 0


def test_without_workers_that_can_work_there_is_no_service(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", MISSING_MODULE.format(name="worker") + SERVE]
    with start_service(tmp_path / "var", wait=False, command=command) as service:
        service.wait_for_line("worker 1 ended with status 1 5 times in a row; giving up")
        assert service.process.wait(20) == 1
        assert_all_gone(service)


def test_an_indexer_that_cannot_work_takes_nothing_down(tmp_path: Path) -> None:
    """Searches get slower without it; nothing else does."""
    command = [sys.executable, "-P", "-c", MISSING_MODULE.format(name="indexer") + SERVE]
    with start_service(tmp_path / "var", command=command) as service:
        for _ in range(7):  # a worker would be given up after five
            service.wait_for_line("indexer ended with status 1; starting it again")
        append(service, "still there")
        assert service.stop() == 0
        assert_all_gone(service)


def test_a_database_that_cannot_start_is_tried_until_it_can(tmp_path: Path) -> None:
    """A full disk, for instance, may stay full for hours: the workers stay, and come back with the database."""
    impatient = "import audit_service.supervisor as s\ns._DATABASE_DELAYS_SECONDS = (0.0, 0.05)\n"
    command = [sys.executable, "-P", "-c", impatient + SERVE]
    with start_service(tmp_path / "var", command=command) as service:
        version = tmp_path / "var" / "postgres" / "PG_VERSION"
        made_by = version.read_text()
        version.write_text("17\n")
        service.postmaster().kill()
        for _ in range(3):
            service.wait_for_line("was made by PostgreSQL 17")
        assert service.answers("/healthz")
        version.write_text(made_by)
        service.wait_for_line("embedded PostgreSQL ready")
        append(service, "after")
        assert service.stop() == 0
        assert_all_gone(service)


@needs_root
def test_a_clone_under_a_private_home_serves_as_root(home: Path) -> None:
    _serve_from_clone(home, uid=None)


@needs_root
def test_a_clone_under_a_private_home_serves_as_an_ordinary_user(home: Path) -> None:
    for path in (home, *home.rglob("*")):
        os.chown(path, ORDINARY_USER, ORDINARY_USER)
    _serve_from_clone(home, uid=ORDINARY_USER)


@pytest.fixture
def home() -> Iterator[Path]:
    """A 0700 home with a clone in it, outside pytest's folder, which only its own user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="home-"))
    try:
        clone(folder / "clone")
        yield folder
    finally:
        shutil.rmtree(folder)


def _serve_from_clone(home: Path, uid: int | None) -> None:
    """Start from the clone with a data path of 120 characters, kill, start again, and find the event."""
    folder = home / "clone"
    data_dir = folder / ("v" * (120 - len(str(folder)) - 1))
    assert len(str(data_dir)) == 120
    libraries = sysconfig.get_path("purelib")
    path = f"{folder / 'src'}:{libraries}"
    python = sys.executable if uid is None else interpreter_for(uid, libraries)
    command = [python, "-B", "-P", "-c", SERVE]
    with start_service(data_dir, uid=uid, command=command, PYTHONPATH=path, HOME=str(home)) as service:
        owners = {process.uids().real for process in service.children()}
        assert owners == {uid or 0}
        digest = append(service, "first")
        service.kill()
        assert_all_gone(service)
    kept = service.admin_key
    with start_service(
        data_dir, uid=uid, command=command, PYTHONPATH=path, HOME=str(home), AUDIT_BOOTSTRAP_KEY=kept
    ) as again:
        assert append(again, "first") == digest
        assert again.stop() == 0
        assert_all_gone(again)
    assert (data_dir.stat().st_mode & 0o777) == 0o700


def _appends(service: Service, identifier: str) -> bool:
    try:
        append(service, identifier)
    except (AssertionError, httpx.HTTPError):
        return False
    return True


def _half_a_request(service: Service) -> socket.socket:
    """A POST whose last byte is missing, once the worker has it."""
    port = int(service.url.rpartition(":")[2])
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    body = b'{"action": "server.created"'
    head = (
        "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Expect: 100-continue\r\n"
        f"Authorization: Bearer {service.admin_key}\r\nContent-Length: {len(body) + 1}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    # The interim answer says that the application has begun to read the body.
    assert connection.recv(65536).startswith(b"HTTP/1.1 100")
    return connection


def test_the_workers_hold_no_descriptor_of_the_supervisor_but_the_listener(tmp_path: Path) -> None:
    with start_service(tmp_path / "var") as service:
        (worker,) = service.workers()
        opened = [file.path for file in psutil.Process(worker.pid).open_files()]
        assert not [path for path in opened if path.endswith(".lock")]
        assert service.stop() == 0
