"""The embedded PostgreSQL as real processes: who may connect, what survives a kill, what is left behind."""

import asyncio
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from audit_service.embedded import EmbeddedDatabaseError, EmbeddedPostgres, make_private_dir, program
from audit_service.embedded_process import cluster_processes, identities, start_server
from audit_service.embedded_tuning import memory_bytes
from tests.support.processes import is_alive, wait_until

STRANGER = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user, which only root can")

OWNER = """
import sys, time
from pathlib import Path
from audit_service.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print("ready", flush=True)
sys.stdin.read()
"""

# A user namespace with every user in it, so that root can still become others, but no further namespace.
WITHOUT_NAMESPACES = """
import ctypes, os, sys
mapped, unshared = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    os.write(unshared[1], b"x")
    os.read(mapped[0], 1)
    with open("/proc/sys/user/max_user_namespaces", "w") as limit:
        limit.write("0")
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
os.read(unshared[0], 1)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{child}/{name}", "w") as file:
        file.write("0 0 65536")
os.write(mapped[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

START_AND_REPORT = """
import subprocess, sys
from pathlib import Path
import psutil
from audit_service.embedded import EmbeddedDatabaseError, EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
try:
    for _ in range(2):
        server.start()
        print("uid", psutil.Process(server.process.pid).uids().real, flush=True)
        server.stop()
except EmbeddedDatabaseError as error:
    print("refused:", error.detail)
"""


def ask(url: str, statement: str, *arguments: object) -> object:
    """The first value that a statement returns, over a connection of its own."""

    async def run() -> object:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    return asyncio.run(run())


def psql(url: str, statement: str, uid: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run one statement with the wheel's psql, as another user when `uid` is given."""
    return subprocess.run(
        [program("psql"), "-XAtw", "-c", statement, url],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=30,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A running server in a folder that others may reach, so that only its own walls keep them out."""
    folder = Path(tempfile.mkdtemp(prefix="embedded-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "var")
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_sync_retry", "off"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("listen_addresses", ""),
        ("password_encryption", "scram-sha-256"),
        ("log_min_error_statement", "panic"),
        ("log_parameter_max_length_on_error", "0"),
        ("TimeZone", "UTC"),
        ("jit", "off"),
        ("max_connections", "200"),
    ],
)
def test_the_server_is_durable_private_and_tuned(server: EmbeddedPostgres, setting: str, expected: str) -> None:
    assert expected == ask(server.url(), f"SHOW {setting}")


def test_durability_settings_are_set_by_nobody(server: EmbeddedPostgres) -> None:
    names = ["fsync", "full_page_writes", "synchronous_commit", "data_sync_retry"]
    query = "SELECT array_agg(DISTINCT source) FROM pg_settings WHERE name = ANY($1)"
    assert ask(server.url(), query, names) == ["default"]


def test_the_database_sorts_by_code_point_with_the_builtin_provider(server: EmbeddedPostgres) -> None:
    query = "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'audit'"
    assert ask(server.url(), query) == "bC.UTF-8"


def test_the_kernel_guards_the_socket_and_its_folder(server: EmbeddedPostgres) -> None:
    assert server.process is not None
    sockets = psutil.Process(server.process.pid).net_connections("all")
    paths = [Path(str(one.laddr)) for one in sockets if one.laddr]
    assert [path.name for path in paths] == [".s.PGSQL.5432"]
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o700
    assert stat.S_IMODE(paths[0].parent.stat().st_mode) == 0o700
    assert all(one.family.name == "AF_UNIX" for one in sockets)


def test_a_wrong_password_is_refused(server: EmbeddedPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(server.url().replace(server.password("postgres"), "wrong"), "SELECT 1")


@needs_root
def test_another_user_cannot_connect_even_with_the_password(server: EmbeddedPostgres) -> None:
    refused = psql(server.url(), "SELECT 1", STRANGER)
    if "libpq" in refused.stderr or refused.returncode in (126, 127):
        pytest.skip(f"another user cannot run psql from here: {refused.stderr}")
    assert "Permission denied" in refused.stderr
    assert psql(server.url(), "SELECT 1").stdout == "1\n"


@needs_root
@pytest.mark.parametrize("name", ["postgres.json", "postgres.log", "postgres/PG_VERSION"])
def test_another_user_reads_no_file(server: EmbeddedPostgres, name: str) -> None:
    command = ["cat", str(server.data_dir / name)]
    read = subprocess.run(command, user=STRANGER, group=STRANGER, capture_output=True, check=False)
    assert b"Permission denied" in read.stderr
    assert read.stdout == b""


def test_no_value_reaches_the_log(server: EmbeddedPostgres) -> None:
    async def offend() -> None:
        connection = await asyncpg.connect(server.url())
        try:
            await connection.execute("CREATE TEMP TABLE seen (name text PRIMARY KEY)")
            for _ in range(2):
                await connection.execute("INSERT INTO seen VALUES ($1)", "hunter2-value")
        finally:
            await connection.close()

    with pytest.raises(asyncpg.UniqueViolationError):
        asyncio.run(offend())
    with pytest.raises(asyncpg.UndefinedColumnError):
        ask(server.url(), "SELECT nowhere WHERE 'hunter3-value' <> ''")
    log = server.log_path.read_text()
    assert "duplicate key" in log
    assert "hunter" not in log


def test_attach_finds_a_running_server(server: EmbeddedPostgres) -> None:
    attached = EmbeddedPostgres.attach(server.data_dir)
    assert server.url("postgres", "postgres") == attached.url("postgres", "postgres")
    attached.stop()
    assert server.is_running()


def test_attach_refuses_where_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedDatabaseError, match="audit-service serve"):
        EmbeddedPostgres.attach(tmp_path)


def test_a_second_owner_is_refused_and_does_no_harm(server: EmbeddedPostgres) -> None:
    with pytest.raises(EmbeddedDatabaseError, match="Another process already runs"):
        EmbeddedPostgres(server.data_dir).start()
    assert ask(server.url(), "SELECT 1") == 1


def test_the_database_is_there_after_stop_and_start_and_nothing_is_left_between(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "var")
    server.start()
    ask(server.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()
    assert not server.is_running()
    assert list(cluster_processes(server.cluster_dir)) == []
    names = {path.name for path in server.data_dir.iterdir()}
    assert names == {"postgres", "postgres.json", "postgres.lock", "postgres.log"}
    server.start()
    assert ask(server.url(), "SELECT answer FROM kept") == 42
    server.stop()


def test_a_killed_server_starts_again_under_the_same_url_with_its_data(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / ("deep" * 30) / "var")
    server.start()
    url = server.url()
    ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    server.start()
    assert url == server.url()
    assert ask(url, "SELECT answer FROM kept") == 42
    server.stop()


def test_a_long_path_puts_the_socket_into_a_private_folder_that_goes_with_the_server(tmp_path: Path) -> None:
    data_dir = tmp_path / ("d" * 120) / "with space, and comma"
    server = EmbeddedPostgres(data_dir)
    server.start()
    assert server.process is not None
    sockets = psutil.Process(server.process.pid).net_connections("unix")
    folder = next(Path(str(one.laddr)).parent for one in sockets if one.laddr)
    assert not folder.is_relative_to(data_dir)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert ask(server.url(), "SELECT 1") == 1
    server.stop()
    assert not folder.exists()


def test_a_name_somebody_else_took_in_the_temporary_folder_is_given_up(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / ("d" * 120))
    server.start()
    before = server.url()
    folder = Path(before.rpartition("host=")[2])
    server.stop()
    folder.mkdir(mode=0o755)
    try:
        server.start()
        assert before != server.url()
        assert ask(server.url(), "SELECT 1") == 1
        server.stop()
    finally:
        folder.rmdir()


def test_the_server_ends_with_its_killed_owner_and_the_data_stays(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "var")
    owner = _own(tmp_path / "var")
    attached = EmbeddedPostgres.attach(tmp_path / "var")
    ask(attached.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    processes = list(cluster_processes(server.cluster_dir))
    assert processes
    owner.kill()
    owner.communicate(timeout=10)
    wait_until(lambda: not any(map(is_alive, processes)), "the end of every server process")
    server.start()
    assert ask(server.url(), "SELECT answer FROM kept") == 42
    server.stop()


def test_a_server_without_an_owner_is_stopped_first(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "var")
    server.start()
    ask(server.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()
    identity = next(identities(server.cluster_dir))
    arguments = [
        "-D",
        str(server.cluster_dir),
        "-c",
        "listen_addresses=",
        "-c",
        f"unix_socket_directories={tmp_path}",
    ]
    leftover = start_server(identity, arguments, tmp_path / "leftover.log")
    wait_until((server.cluster_dir / "postmaster.pid").exists, "the leftover server")
    server.start()
    assert leftover.wait(10) == 0
    assert ask(server.url(), "SELECT answer FROM kept") == 42
    server.stop()


def test_a_stale_pid_file_that_names_a_stranger_does_not_stop_the_start(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "var")
    server.start()
    server.stop()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            (server.cluster_dir / "postmaster.pid").write_text(f"{stranger.pid}\n{server.cluster_dir}\n")
            server.start()
            assert stranger.poll() is None
            server.stop()
        finally:
            stranger.kill()


def test_a_killed_initdb_leaves_a_startable_folder(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "var")
    new_dir = server.data_dir / "postgres.new"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(server.data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    wait_until((new_dir / "base").exists, "the beginning of initdb")
    makers = psutil.Process(owner.pid).children(recursive=True)
    owner.kill()
    owner.communicate(timeout=10)
    wait_until(lambda: not any(map(is_alive, makers)), "the end of initdb")
    assert new_dir.exists()
    assert not server.cluster_dir.exists()
    server.start()
    assert not new_dir.exists()
    assert not (server.data_dir / "postgres.new.password").exists()
    server.stop()


def test_a_start_that_fails_says_why_and_leaves_nothing_running(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "var", options={"shared_buffers": "plenty"})
    with pytest.raises(EmbeddedDatabaseError, match='invalid value for parameter "shared_buffers"'):
        server.start()
    assert list(cluster_processes(server.cluster_dir)) == []
    again = EmbeddedPostgres(tmp_path / "var")
    again.start()
    again.stop()


def test_a_cancelled_start_gives_up(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "var")
    server.cancel()
    with pytest.raises(EmbeddedDatabaseError, match="cancelled"):
        server.start()
    assert list(cluster_processes(server.cluster_dir)) == []


def test_lost_passwords_and_another_version_are_named(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "var")
    server.start()
    server.stop()
    state = server.data_dir / "postgres.json"
    kept = state.read_text()
    state.unlink()
    with pytest.raises(EmbeddedDatabaseError, match=r"postgres\.json is missing"):
        EmbeddedPostgres(tmp_path / "var").start()
    state.write_text("{")
    with pytest.raises(EmbeddedDatabaseError, match=r"postgres\.json cannot be read"):
        EmbeddedPostgres(tmp_path / "var").start()
    state.write_text(kept)
    (server.cluster_dir / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedDatabaseError, match="made by PostgreSQL 17 and this is 18"):
        EmbeddedPostgres(tmp_path / "var").start()


def test_a_folder_shared_by_all_users_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(EmbeddedDatabaseError, match="shared by all users"):
        make_private_dir(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777


def test_the_log_is_bounded(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "var")
    make_private_dir(server.data_dir)
    server.log_path.write_bytes(b"x" * (8 * 1024 * 1024 + 1))
    server.start()
    server.stop()
    assert server.log_path.stat().st_size < 100_000
    assert server.log_path.with_name("postgres.log.1").stat().st_size == 8 * 1024 * 1024 + 1


@needs_root
def test_without_namespaces_root_runs_it_under_a_user_id_of_its_own() -> None:
    folder = Path(tempfile.mkdtemp(prefix="embedded-"))
    folder.chmod(0o755)
    try:
        output = _without_namespaces(folder / "var")
        assert output == "uid 54329\nuid 54329\n"
        assert (folder / "var" / "postgres").stat().st_uid == 54329
        # The cluster keeps its user when namespaces are to be had again.
        server = EmbeddedPostgres(folder / "var")
        server.start()
        assert server.process is not None
        assert psutil.Process(server.process.pid).uids().real == 54329
        server.stop()
    finally:
        shutil.rmtree(folder)


@needs_root
def test_root_in_the_private_home_of_somebody_else_runs_it_as_that_user() -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    folder = Path(tempfile.mkdtemp(prefix="embedded-"))
    try:
        os.chown(folder, nobody, -1)
        server = EmbeddedPostgres(folder / "var")
        server.start()
        assert server.process is not None
        assert psutil.Process(server.process.pid).uids().real == nobody
        assert ask(server.url(), "SELECT 1") == 1
        server.stop()
    finally:
        shutil.rmtree(folder)


@needs_root
def test_without_namespaces_in_a_closed_folder_root_is_told_what_to_do() -> None:
    folder = Path(tempfile.mkdtemp(prefix="embedded-"))
    try:
        output = _without_namespaces(folder / "var")
        assert output.startswith("refused: PostgreSQL cannot run here as this user (user namespaces are refused")
        assert f"user id 54329 cannot reach {folder / 'var'}" in output
        assert "set AUDIT_DATABASE_URL" in output
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/app.slice\n", {"app.slice/memory.max": "1048576\n"}, 1048576),
        ("0::/a/b\n", {"a/memory.max": "4096\n", "a/b/memory.max": "max\n"}, 4096),
        (
            "5:cpu:/x\n3:memory:/x\n",
            {"memory/x/memory.limit_in_bytes": "2048\n", "cpu/x/memory.max": "1\n"},
            2048,
        ),
        ("0::/\n", {}, psutil.virtual_memory().total),
        ("0::/\n", {"memory.max": "max\n"}, psutil.virtual_memory().total),
    ],
)
def test_the_memory_is_what_the_control_group_leaves(
    tmp_path: Path, membership: str, files: dict[str, str], expected: int
) -> None:
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert expected == memory_bytes(tmp_path / "cgroup", tmp_path)


def _own(data_dir: Path) -> subprocess.Popen[bytes]:
    """Another process that owns the server on `data_dir`."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"ready\n"
    return owner


def _without_namespaces(data_dir: Path) -> str:
    command = [sys.executable, "-c", WITHOUT_NAMESPACES, START_AND_REPORT, str(data_dir)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout
