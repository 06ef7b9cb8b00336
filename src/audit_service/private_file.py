"""Files nobody else may read, written so that a crash leaves either what was there or what was meant."""

import os
import stat
from pathlib import Path


def replace_private(path: Path, text: str) -> None:
    """Write a 0600 file whole or not at all; when this returns it is on the disk, name and all. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_dir(path.parent)


def is_open_to_others(path: Path) -> bool:
    """Whether anybody but the file's owner and readers of its group may use it. Raises OSError."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o037)


def sync_dir(path: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
