"""How the embedded PostgreSQL is set up: what is fixed, and what is sized after the machine.

Neither part names `fsync`, `full_page_writes`, `synchronous_commit` or `data_sync_retry`: durability is
PostgreSQL's own, untouched.
"""

import contextlib
import shutil
from pathlib import Path

import psutil

_MEBIBYTE = 1024 * 1024

# On the command line, where `ALTER SYSTEM` cannot reach: what keeps others out and secrets out of the log.
FIXED_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": "5432",
    "password_encryption": "scram-sha-256",
    # Secrets reach the log through statements, parameters and DETAIL lines ("Key (id)=(…) already exists").
    "log_statement": "none",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_min_error_statement": "panic",
    "log_min_duration_statement": "-1",
    "log_error_verbosity": "terse",
    "logging_collector": "off",
    "log_destination": "stderr",
}


def tuning(*, lz4: bool) -> str:
    """Settings for a small server of its own that mostly appends; `ALTER SYSTEM` overrides each."""
    memory = memory_bytes()
    settings = {
        "shared_buffers": _kibibytes(memory // 8, 32, 2048),
        "effective_cache_size": _kibibytes(memory // 2, 64, 1024 * 1024),
        "maintenance_work_mem": _kibibytes(memory // 32, 16, 512),
        "work_mem": _kibibytes(memory // 512, 4, 32),
        "max_connections": "200",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "random_page_cost": "1.1",
        "jit": "off",  # compiling costs more than our short statements
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] ",
    }
    if lz4:
        settings["wal_compression"] = "lz4"
    shared = Path("/dev/shm")  # noqa: S108  # only its size is read
    if shared.is_dir() and shutil.disk_usage(shared).total < 256 * _MEBIBYTE:
        settings["dynamic_shared_memory_type"] = "mmap"  # containers give 64 MiB, parallel queries want more
    head = "# Written at every start; your own settings go into ALTER SYSTEM.\ninclude 'postgresql.conf'\n"
    return head + "".join(f"{name} = '{value}'\n" for name, value in settings.items())


def _kibibytes(wanted_bytes: int, at_least_mebibytes: int, at_most_mebibytes: int) -> str:
    return f"{min(max(wanted_bytes // 1024, at_least_mebibytes * 1024), at_most_mebibytes * 1024)}kB"


def memory_bytes(cgroup_path: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """The memory this process may use: the machine's, or less where a control group (v1 or v2) says so."""
    limits = [psutil.virtual_memory().total]
    with contextlib.suppress(OSError):
        for line in cgroup_path.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            names = controllers.split(",")
            if controllers and "memory" not in names:
                continue
            top, file_name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
            place = top / group.lstrip("/")
            for folder in (place, *place.parents):
                with contextlib.suppress(OSError, ValueError):  # `max`, or not mounted here
                    limits.append(int((folder / file_name).read_text()))
    return min(limits)
