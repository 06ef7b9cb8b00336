"""The container: members that should not be there, and zip files that two programs could read in two ways."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO

from tests.support.bundles import (
    Members,
    pack,
    remade,
)
from tests.support.evidence_base import Case, full_log


def zip_cases() -> Iterator[Case]:
    """The container."""
    log = full_log()
    whole, keys = log.bundle(), (log.vkey,)
    members = frozenset({"members"})
    yield Case("an unknown member", pack(whole | {"x": b""}), keys, members, 1)
    yield Case("an absolute name", pack(whole | {"/etc/passwd": b""}), keys, members, 1)
    yield Case("a name that climbs", pack(whole | {"../x": b""}), keys, members, 1)
    renamed = {("entries.ndjson/" if name == "entries.ndjson" else name): data for name, data in whole.items()}
    yield Case("a member as a folder", pack(renamed), keys, members, 1)
    for name, attributes in (
        ("a symbolic link", 0o120777 << 16),
        ("a folder", 0o040755 << 16 | 0x10),
        ("a device", 0o020600 << 16),
    ):
        yield Case(name, _attributed(whole, attributes), keys, members, 1)
    data = pack(whole)
    yield Case("a member twice", _doubled(whole, "proof.json"), keys, members, 1)
    yield Case("two manifests", _doubled(whole, "manifest.json"), keys, frozenset({"manifest"}), 1)
    deflated = pack(whole, deflated=True)
    for name, wrong in {
        "nothing": b"",
        "a text": b"x" * 100,
        "cut short": data[:-1],
        "cut in half": data[: len(data) // 2],
        "something before": b"#!/bin/sh\n" + data,
        "something after": data + b"x",
        "a comment": data[:-2] + b"\x01\x00x",
        "another local name": data.replace(b"proof.json", b"prooF.json", 1),
        "another central name": data[::-1].replace(b"proof.json"[::-1], b"prooF.json"[::-1], 1)[::-1],
        "encrypted": _patched(data, 8, 6, 1),
        "a way of packing nobody knows": _patched(data, 10, 8, 12),
        "strong encryption": _patched(data, 8, 6, 1 << 6),
    }.items():
        yield Case(f"zip: {name}", wrong, keys, exit=2)
    yield Case("zip: a gap between members", _gap(whole), keys, exit=2)
    at = deflated.index(b"entries.ndjson") + len("entries.ndjson")
    broken = deflated[: at + 200] + bytes([deflated[at + 200] ^ 0xFF]) + deflated[at + 201 :]
    yield Case("zip: data that cannot be unpacked", broken, keys, members, 1)
    yield Case("zip: bytes after the packed ones", _padded(whole), keys, frozenset({"manifest"}), 1)
    unlike = pack(whole, streamed=True).replace(b"PK\7\x08", b"PK\7\x09", 1)
    yield Case("zip: lengths after the data without their mark", unlike, keys, exit=2)
    yield Case("zip: longer than it says", _lying(whole, len(whole["entries.ndjson"]) - 1), keys, members, 1)
    yield Case("zip: shorter than it says", _lying(whole, len(whole["entries.ndjson"]) + 1), keys, members, 1)
    bomb = remade(whole, entries_ndjson=b"\n" * 3_000_000)
    yield Case("lines without end", pack(bomb, deflated=True), keys, frozenset({"headers"}), 1)
    long = remade(whole, entries_ndjson=b"a" * ((32 << 20) + 2) + b"\n")
    yield Case("a line without end", pack(long, deflated=True), keys, members, 1)


def _attributed(members: Members, attributes: int) -> bytes:
    """The zip file with these attributes on its first member."""
    data = bytearray(pack(members))
    at = data.index(b"PK\1\2")
    data[at + 38 : at + 42] = struct.pack("<L", attributes & 0xFFFFFFFF)
    return bytes(data)


def _doubled(members: Members, name: str) -> bytes:
    """A member twice: a name of the same length is put in and then changed."""
    stand_in = "~" * len(name)
    return pack(members | {stand_in: members[name]}).replace(stand_in.encode(), name.encode())


def _patched(data: bytes, central: int, local: int, value: int) -> bytes:
    """A field of two bytes of the first member, in both headers."""
    changed = bytearray(data)
    changed[local : local + 2] = struct.pack("<H", value)
    at = data.index(b"PK\1\2") + central
    changed[at : at + 2] = struct.pack("<H", value)
    return bytes(changed)


def _gap(members: Members) -> bytes:
    """Bytes between the last member and the directory, which the directory's place skips."""
    data = pack(members)
    at = data.index(b"PK\1\2")
    end = bytearray(data[-22:])
    end[16:20] = struct.pack("<L", at + 4)
    return data[:at] + b"gap!" + data[at:-22] + bytes(end)


def _padded(members: Members) -> bytes:
    """A deflated bundle whose last member has a byte more after its packed data."""
    data = pack(members, deflated=True)
    directory, last = data.index(b"PK\1\2"), data.rindex(b"PK\1\2")
    local = data.rindex(b"PK\3\4")
    packed = struct.pack("<L", struct.unpack_from("<L", data, local + 18)[0] + 1)
    parts = bytearray(data[:directory] + b"x" + data[directory:])
    parts[local + 18 : local + 22] = parts[last + 21 : last + 25] = packed
    parts[-6:-2] = struct.pack("<L", directory + 1)
    return bytes(parts)


def _lying(members: Members, size_bytes: int) -> bytes:
    """A deflated bundle whose headers state another length of its first member, in both places."""
    data = bytearray(pack(members, deflated=True))
    for at in (22, data.index(b"PK\1\2") + 24):
        data[at : at + 4] = struct.pack("<L", size_bytes)
    return bytes(data)


def unpacked(data: bytes) -> dict[str, bytes] | None:
    """The members as an ordinary unzip program gets them; None when it cannot."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        EOFError,
        zlib.error,
        RuntimeError,
        ValueError,
        UnicodeDecodeError,
    ):
        return None
