"""On what the figures were measured: without it a figure says nothing."""

import os
import platform
import statistics
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from audit_service.embedded import program

PACKAGES = (
    "audit-service",
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "pydantic",
    "sqlalchemy",
    "asyncpg",
    "orjson",
    "jiter",
)
FLUSHES = 100
# Above this share of the cores in use at the start, somebody else's work is in the figures.
BUSY_SHARE = 0.25


def describe_machine(folder: Path) -> dict[str, Any]:
    """Processor, memory, and the disk under `folder`: a durable commit costs one flush of it."""
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "file_system": _file_system(folder),
        "flush_microseconds": round(_flush_microseconds(folder)),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def describe_versions() -> dict[str, str]:
    """Python, PostgreSQL, and the packages that do the work."""
    found = subprocess.run([program("postgres"), "--version"], capture_output=True, text=True, check=True)
    postgres = found.stdout.strip().rpartition(" ")[2]
    return {
        "python": platform.python_version(),
        "postgresql": postgres,
        **{name: version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def is_busy(machine: dict[str, Any]) -> bool:
    """Whether something else was running when the benchmark began."""
    return float(machine["load_at_start"]) > BUSY_SHARE * int(machine["cores"])


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _file_system(folder: Path) -> str:
    place = folder.resolve()
    mounts = [one for one in psutil.disk_partitions(all=True) if place.is_relative_to(one.mountpoint)]
    return max(mounts, key=lambda one: len(one.mountpoint)).fstype if mounts else "unknown"


def _flush_microseconds(folder: Path) -> float:
    """The median time to append 8 KiB and have it on the disk, as a commit does with the write-ahead log."""
    times = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(FLUSHES):
            began = time.perf_counter()
            file.write(b"\0" * 8192)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def _commit() -> str:
    """The commit of the checkout, with a mark when it has changes; `unknown` outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
