"""A zip file that comes out as it is written: nothing is ever gone back to, so it may be of any length, and sent meanwhile.

Each member has its lengths and checksum behind it, and the directory stands at the end: a file that was cut cannot be opened.
"""

import io
import zipfile
from hashlib import sha256
from typing import Any

# Level 1 takes a third of the time of the usual 6.
_DEFLATE_LEVEL = 1


class ZipStream:
    """A zip file of deflated members, one open at a time. `at`: year, month, day, hour, minute, second of all of them."""

    def __init__(self, at: tuple[int, ...]) -> None:
        self._sink = _Sink()
        self._zip = zipfile.ZipFile(self._sink, "w", zipfile.ZIP_DEFLATED, compresslevel=_DEFLATE_LEVEL)
        self._at = at
        self._member: Any = None
        self._name, self._size_bytes, self._digest = "", 0, sha256()

    def open(self, name: str) -> None:
        """Begin a member. Its length is not known, so it may be of any."""
        info = zipfile.ZipInfo(name, self._at)  # type: ignore[arg-type]
        info.compress_type = zipfile.ZIP_DEFLATED
        self._member = self._zip.open(info, "w", force_zip64=True)
        self._name, self._size_bytes, self._digest = name, 0, sha256()

    def write(self, content: bytes) -> None:
        """Write to the member that is open."""
        self._member.write(content)
        self._size_bytes += len(content)
        self._digest.update(content)

    def close(self) -> tuple[str, int, str]:
        """End a member: its name, length and SHA-256."""
        self._member.close()
        return self._name, self._size_bytes, self._digest.hexdigest()

    def end(self) -> None:
        """Write the directory."""
        self._zip.close()

    def taken(self) -> bytes:
        """What was written since it was last asked."""
        return self._sink.taken()


class _Sink(io.RawIOBase):
    """Takes what is written, and can neither tell nor seek."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any, /) -> int:
        """Keep a copy until it is taken."""
        self._pieces.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """The pieces joined; they are let go."""
        joined = b"".join(self._pieces)
        self._pieces.clear()
        return joined
