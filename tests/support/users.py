"""Another user of the machine: what a clone needs to run as one, wherever it lies."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2]
ORDINARY_USER = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root can")


def clone(folder: Path) -> None:
    """Put into `folder` what of the checkout runs."""
    for name in ("src", "migrations"):
        shutil.copytree(SOURCE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def interpreter_for(uid: int, libraries: str) -> str:
    """A Python of this version that the user may run, and that finds the libraries; skips where there is none."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        with contextlib.suppress(OSError):
            tried = subprocess.run(
                [python, "-c", "import asyncpg, httptools, uvloop"],
                env={"PYTHONPATH": libraries},
                user=uid,
                group=uid,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                check=False,
            )
            if tried.returncode == 0:
                return python
    pytest.skip(f"user {uid} may run no {name} that finds {libraries}")
