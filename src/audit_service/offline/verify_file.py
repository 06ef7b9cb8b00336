r"""Check a bundle of evidence, or one event's `.tlog-proof` file, offline: no service, no database, no network.

    python verify_file.py BUNDLE --key VKEY [--key VKEY …] [--policy FILE] [--json]

One file on purpose, so that an auditor can read and carry it: the standard library, and `cryptography` for the
signature. It shares no code with the service. The keys to trust come from the command line, never from the bundle.
Exit 0: everything holds. 1: something does not. 2: could not tell (unreadable, no key pinned, something not checked).

A bundle is a zip file of the members below, stored or deflated, nothing before, between or after them.

- `manifest.json`: canonical or otherwise compact JSON; what the bundle claims. `members` has the length and SHA-256 of
  every other member, `digest` the SHA-256 of the manifest's own canonical text (RFC 8785) without `digest`. Nobody signs
  a manifest: it finds damage, and its claims are believed only where the entries and the tree bear them out.
- `entries.ndjson`: a line for each entry of [from_seq, to_seq), each ended by LF, without spaces, members in this order:
  `{"seq":0,"header":"audit-service/entry/v1\n…","body":"{…}","disclosures":{"ip":["<base64 salt>","<JSON text>"]}}`.
  `body` null: dropped. `"withheld":["actor",…]` behind the disclosures: values that are there and were kept from whoever
  asked for the bundle; never empty. In a filtered bundle only some entries, each with `"inclusion":["<base64>",…]` at its end.
- `controls.ndjson`: lines with inclusion; the control entries up to the checkpoint's size that touch the range.
- `proof.json`: `{"from_seq","to_seq","size","left","right"}`, the range proof; absent in a filtered bundle.
- `checkpoint`: a C2SP signed note over the tree of `size`.

Strings are spelled as in RFC 8785, so a line has one spelling; bodies and disclosed values are canonical JSON throughout.

Checks, each `pass`, `fail`, `not_checked` or `not_applicable`:

manifest      well-formed, its digest, and its counts agree with the entries
members       exactly the members there should be, each with the length and hash the manifest states
headers       lines as above, seq dense (filtered: ascending), times not backwards, epochs raised by `resume` only
links         each entry names the hash of the one before
bodies        each body is canonical and hashes to what its header says; a control entry has one
disclosures   each value hashes, with its salt, to the commitment in the body; with values withheld, not_checked
forgotten     each missing body is covered by a `drop`, each missing disclosure named by an `erase`, appended later
controls      the control entries are whole and lie in the tree
range         the entries are all of [from_seq, to_seq) in the tree the checkpoint signs: nothing left out
inclusion     filtered: each entry lies in that tree (that none is missing is not proven)
checkpoint    the checkpoint is for this log and size, and signed by a pinned key, or one that follows from it by successions
              that both keys signed, none of them revoked before it
policy        the witnesses' cosignatures reach the quorum of the policy file

Memory is constant: lines are read in slices, and what `drop` and `erase` explain is sorted in a temporary file.
"""

import argparse
import base64
import hashlib
import json
import math
import os
import re
import sqlite3
import stat
import struct
import sys
import zlib
from binascii import a2b_base64
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from json.encoder import encode_basestring
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

# What is refused for its size, before it is read or unpacked.
LINE_LIMIT_BYTES = 32 << 20  # a line of entries.ndjson or controls.ndjson
MANIFEST_LIMIT_BYTES = 1 << 20
PROOF_LIMIT_BYTES = 64 << 10  # at most 126 hashes
NOTE_LIMIT_BYTES = 64 << 10
NOTE_LIMIT_SIGNATURES = 64
POLICY_LIMIT_BYTES = 1 << 20
PROOF_FILE_LIMIT_BYTES = LINE_LIMIT_BYTES * 4 // 3 + NOTE_LIMIT_BYTES + (8 << 10)
DEPTH_LIMIT = 128  # containers within containers in a JSON text
DIRECTORY_LIMIT_BYTES = 64 << 10  # the zip's central directory
FAULTS_LIMIT = 1000  # then the rest of a member is not read

EXIT_GOOD, EXIT_BAD, EXIT_UNKNOWN = 0, 1, 2
CHECKS = (
    "manifest", "members", "headers", "links", "bodies", "disclosures", "forgotten", "controls", "range", "inclusion",
    "checkpoint", "policy",
)  # fmt: skip
KINDS = ("event", "drop", "prune", "erase", "hold", "signer", "resume")
BUNDLE_FORMAT = "audit-service/evidence/v1"
INTEGER_MAX = 2**63 - 1

_SLICE_BYTES = 1 << 20
_PARALLEL_FROM_BYTES = 48 << 20  # below, starting processes costs more than they save
sha256 = hashlib.sha256
JSONObject = dict[str, Any]


class UnreadableError(Exception):
    """What was given is no bundle, key or policy that this program can read: exit 2."""


class EvidenceError(Exception):
    """What was read is not what it should be: the check at hand fails."""


# --- the report ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Check:
    """One check: its verdict, why, the first seq where it does not hold, and at how many places it does not."""

    verdict: str
    reason: str | None = None
    first_bad_seq: int | None = None
    faults: int = 0


class Findings:
    """What was found wrong or could not be judged, per check: how often, and the first of it."""

    def __init__(self) -> None:
        self.failed: dict[str, Check] = {}
        self.unchecked: dict[str, Check] = {}

    def fail(self, check: str, reason: str, seq: int | None = None, times: int = 1) -> None:
        """A check does not hold, at `seq`."""
        self._note(self.failed, "fail", check, reason, seq, times)

    def leave(self, check: str, reason: str, seq: int | None = None, times: int = 1) -> None:
        """A check could not be made, at `seq`."""
        self._note(self.unchecked, "not_checked", check, reason, seq, times)

    def take(self, other: "Findings") -> None:
        """Add what another part found."""
        for one, add in ((other.failed, self.fail), (other.unchecked, self.leave)):
            for name, check in one.items():
                add(name, check.reason or "", check.first_bad_seq, check.faults)

    def count(self) -> int:
        """How many faults there are."""
        return sum(check.faults for check in self.failed.values())

    @staticmethod
    def _note(notes: dict[str, Check], verdict: str, name: str, reason: str, seq: int | None, times: int) -> None:
        check = notes.setdefault(name, Check(verdict, reason, seq))
        check.faults += times
        if seq is not None and (check.first_bad_seq is None or seq < check.first_bad_seq):
            check.reason, check.first_bad_seq = reason, seq


class Report(Findings):
    """The verdicts, and what the bundle says of itself. A check that nobody passed is `not_checked`."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: JSONObject = {}
        self.forgotten = {"bodies": 0, "disclosures": 0}
        self.unreadable: str | None = None
        self._settled: dict[str, Check] = {}

    def settle(self, check: str) -> None:
        """A check was made to its end: it passes, unless something failed or was left."""
        self._settled[check] = Check("pass")

    def inapplicable(self, check: str, reason: str) -> None:
        """There is nothing to check."""
        self._settled[check] = Check("not_applicable", reason)

    def checks(self) -> dict[str, Check]:
        """Check → verdict, in the order of CHECKS; what fails dominates, then what was not checked."""
        initial = Check("not_checked", self.unreadable or "an earlier check failed")
        return {
            name: self.failed.get(name) or self.unchecked.get(name) or self._settled.get(name) or initial
            for name in CHECKS
        }

    def exit_code(self) -> int:
        """0 everything holds, 1 something does not, 2 could not tell."""
        verdicts = {check.verdict for check in self.checks().values()}
        if "fail" in verdicts:
            return EXIT_BAD
        return EXIT_UNKNOWN if "not_checked" in verdicts else EXIT_GOOD

    def as_json(self) -> JSONObject:
        """The report for a program."""
        return {
            "status": ("ok", "bad", "unknown")[self.exit_code()],
            "unreadable": self.unreadable,
            **self.claims,
            "forgotten": self.forgotten,
            "checks": {name: asdict(check) for name, check in self.checks().items()},
        }


# --- the zip file ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the archive: where its data lies, how it is packed, what comes out."""

    name: str
    is_file: bool
    method: int
    crc: int
    packed_bytes: int
    size_bytes: int
    data_at: int


class _Header(NamedTuple):
    """What the directory and the header before the data must say alike of a member."""

    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed_bytes: int
    size_bytes: int
    name: bytes


class Archive:
    """A zip file read strictly: local headers and directory say the same, members follow each other without gaps.

    So every unzip program sees what was checked here. Raises UnreadableError.
    """

    _STORED, _DEFLATED = 0, 8
    _END, _END64, _LOCATOR64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
    _ENTRY, _LOCAL = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
    _DESCRIPTOR, _DESCRIPTOR64 = struct.Struct("<4s3L"), struct.Struct("<4sL2Q")
    _VERSION_NEEDED = 45  # of the zip format: lengths of 64 bits
    _FLAG_DESCRIPTOR = 0x0008
    _FLAGS_KNOWN = 0x080E  # deflate's level, a descriptor after the data, names in UTF-8

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        count, at, end = self._directory()
        directory = self._read(at, end - at)
        self.members: list[Member] = []
        position = offset = 0
        for _ in range(count):
            member, position, offset = self._member(directory, position, offset, at)
            self.members.append(member)
        self._require(position == len(directory) and offset == at, "bytes that belong to no member")

    def stream(self, member: Member) -> Iterator[bytes]:
        """What a member holds, in pieces of at most 1 MiB. Raises EvidenceError when it is not what the zip states."""
        crc = length = 0
        for piece in self._unpacked(member):
            crc = zlib.crc32(piece, crc)
            length += len(piece)
            if length > member.size_bytes:
                raise EvidenceError(f"{member.name} is longer than the zip file states")
            yield piece
        if length != member.size_bytes or crc != member.crc:
            raise EvidenceError(f"{member.name} is not what the zip file's checksum states")

    def _unpacked(self, member: Member) -> Iterator[bytes]:
        packed = self._packed(member)
        if member.method == self._STORED:
            yield from packed
            return
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for piece in packed:
                waiting = piece
                while waiting and not inflater.eof:
                    yield inflater.decompress(waiting, _SLICE_BYTES)
                    waiting = inflater.unconsumed_tail
            while not inflater.eof and (more := inflater.decompress(b"", _SLICE_BYTES)):
                yield more
        except zlib.error:
            raise EvidenceError(f"{member.name} cannot be unpacked") from None
        if not inflater.eof or inflater.unused_data:
            raise EvidenceError(f"{member.name} cannot be unpacked")

    def _packed(self, member: Member) -> Iterator[bytes]:
        self._file.seek(member.data_at)
        left = member.packed_bytes
        while left:
            piece = self._file.read(min(left, _SLICE_BYTES))
            if not piece:
                raise EvidenceError(f"{member.name} is cut short")
            left -= len(piece)
            yield piece

    def _directory(self) -> tuple[int, int, int]:
        """How many members there are, and where the directory begins and ends."""
        end_at = self._size - self._END.size
        mark, disk, first_disk, here, count, size, at, comment = self._unpack(self._END, end_at)
        self._require(mark == b"PK\5\6" and comment == 0, "not a zip file that ends with its directory")
        self._require(disk == first_disk == 0 and here == count, "one of several zip files")
        locator_at = end_at - self._LOCATOR64.size
        if locator_at >= 0 and self._read(locator_at, 4) == b"PK\6\7":
            short = (count, size, at)
            _, _, end64_at, disks = self._unpack(self._LOCATOR64, locator_at)
            self._require(disks == 1 and end64_at == locator_at - self._END64.size, "a directory out of place")
            mark, length, _, _, disk, first_disk, here, count, size, at = self._unpack(self._END64, end64_at)
            self._require(mark == b"PK\6\6" and length == self._END64.size - 12, "a directory out of place")
            self._require(disk == first_disk == 0 and here == count, "one of several zip files")
            limits = (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
            agree = all(a in {b, limit} for a, b, limit in zip(short, (count, size, at), limits, strict=True))
            self._require(agree, "two directories that disagree")
            end_at = end64_at
        self._require(at + size == end_at and size <= DIRECTORY_LIMIT_BYTES, "a directory out of place")
        return count, at, end_at

    def _member(self, directory: bytes, position: int, offset: int, end: int) -> tuple[Member, int, int]:
        """The member at `position` of the directory, whose local header is at `offset`; where the next ones are."""
        stated, is_file, at, after = self._stated(directory, position)
        self._require(at == offset, "members with a gap or an overlap")
        found, data_at = self._local(at)
        has_descriptor = stated.flags & self._FLAG_DESCRIPTOR != 0
        expected = stated._replace(crc=0, packed_bytes=0, size_bytes=0) if has_descriptor else stated
        self._require(found == expected, "a member that its header calls something else")
        next_at = data_at + stated.packed_bytes
        if has_descriptor:
            next_at = self._after_descriptor(next_at, (stated.crc, stated.packed_bytes, stated.size_bytes))
        self._require(next_at <= end, "members with a gap or an overlap")
        name = stated.name.decode("latin-1")
        member = Member(name, is_file, stated.method, stated.crc, stated.packed_bytes, stated.size_bytes, data_at)
        return member, after, next_at

    def _stated(self, directory: bytes, position: int) -> tuple[_Header, bool, int, int]:
        """What the directory says of a member: its header, whether it is a file, where it lies; the next position."""
        self._require(position + self._ENTRY.size <= len(directory), "a directory cut short")
        (mark, made_by, version, flags, method, time, date, crc, packed, size, name_size, extra_size, comment_size, _, _,
         attributes, at) = self._ENTRY.unpack_from(directory, position)  # fmt: skip
        name_at = position + self._ENTRY.size
        after = name_at + name_size + extra_size
        self._require(mark == b"PK\1\2" and after <= len(directory) and comment_size == 0, "a directory out of shape")
        self._require(flags & ~self._FLAGS_KNOWN == 0, "an encrypted or patched member")
        self._require(method in {self._STORED, self._DEFLATED}, "a way of packing other than stored or deflated")
        self._require(version <= self._VERSION_NEEDED, "a member for newer programs")
        extra = directory[name_at + name_size : after]
        size, packed, at = self._widened(extra, (size, packed, at))
        self._require(method == self._DEFLATED or packed == size, "a stored member of two lengths")
        # Upper half: the mode under Unix (3), where a link or a folder shows. Zero: made elsewhere.
        is_regular = made_by >> 8 != 3 or stat.S_IFMT(attributes >> 16) in {0, stat.S_IFREG}
        name = directory[name_at : name_at + name_size]
        header = _Header(flags, method, time, date, crc, packed, size, name)
        return header, is_regular and not attributes & 0x10, at, after

    def _local(self, at: int) -> tuple[_Header, int]:
        """The header before a member's data, and where the data begins."""
        fields = self._unpack(self._LOCAL, at)
        mark, version, flags, method, time, date, crc, packed, size, name_size, extra_size = fields
        self._require(mark == b"PK\3\4" and version <= self._VERSION_NEEDED, "a member without its header")
        rest = self._read(at + self._LOCAL.size, name_size + extra_size)
        size, packed = self._widened(rest[name_size:], (size, packed))
        header = _Header(flags, method, time, date, crc, packed, size, rest[:name_size])
        return header, at + self._LOCAL.size + name_size + extra_size

    def _after_descriptor(self, at: int, stated: tuple[int, int, int]) -> int:
        """Where the member ends whose descriptor is at `at`: 16 bytes, or 24 with lengths of 64 bits."""
        for layout in (self._DESCRIPTOR, self._DESCRIPTOR64):
            if at + layout.size + 4 > self._size:
                continue
            values = layout.unpack(self._read(at, layout.size))
            if values == (b"PK\7\x08", *stated) and self._read(at + layout.size, 3)[:2] == b"PK":
                return at + layout.size
        raise UnreadableError("the bundle cannot be read: a member without its lengths")

    def _widened(self, extra: bytes, values: tuple[int, ...]) -> list[int]:
        """Lengths of 32 bits, with those that are all ones taken from the extra field, which may hold nothing else."""
        kind, size = struct.unpack_from("<2H", extra) if len(extra) >= 4 else (1, 0)
        fits = kind == 1 and size % 8 == 0 and len(extra) in {0, size + 4}
        self._require(fits, "an unknown extra field")
        wide = list(struct.unpack(f"<{size // 8}Q", extra[4:]))
        self._require(len(wide) == values.count(0xFFFFFFFF), "lengths that are missing, or too many")
        return [wide.pop(0) if value == 0xFFFFFFFF else value for value in values]

    def _unpack(self, layout: struct.Struct, at: int) -> tuple[Any, ...]:
        return layout.unpack(self._read(at, layout.size))

    def _read(self, at: int, size: int) -> bytes:
        self._require(at >= 0 and at + size <= self._size, "not a zip file, or cut short")
        self._file.seek(at)
        data = self._file.read(size)
        self._require(len(data) == size, "not a zip file, or cut short")
        return data

    @staticmethod
    def _require(holds: bool, found: str) -> None:
        if not holds:
            raise UnreadableError(f"the bundle cannot be read: {found}")


# --- JSON: one value, one spelling -----------------------------------------------------------------------------------


def _double_text(value: float) -> str:
    """A double as ECMAScript prints it (RFC 8785, section 3.2.2.3), from the same shortest digits that repr finds."""
    if not math.isfinite(value):
        raise ValueError("not finite")
    if value == 0:
        return "0"
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    point = int(exponent or 0) + len(whole) if whole != "0" else len(digits) - len(fraction)  # 0.DIGITS × 10^point
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        text = digits.ljust(point, "0")
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        text = f"{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{point - 1:+d}"
    return text if value > 0 else "-" + text


def _parse_double(text: str) -> float:
    value = float(text)
    if _double_text(value) != text:
        raise ValueError("a number that is not canonical")
    return value


def _parse_integer(text: str) -> int | float:
    """Integers of up to 64 bits are exact; a longer one can only be a double without a fraction."""
    if len(text) > 22 or text == "-0":
        raise ValueError("a number that is not canonical")
    value = int(text)
    return value if -(2**63) <= value < 2**64 else _parse_double(text)


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


_decode = json.JSONDecoder(
    parse_float=_parse_double, parse_int=_parse_integer, parse_constant=_refuse_constant
).raw_decode
_encode_sorted = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), sort_keys=True, check_circular=False
).encode
_encode_as_is = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def _write(value: Any, *, in_order: bool) -> str:
    """Canonical JSON in plain Python, for what the standard encoder spells or sorts otherwise."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass")) if in_order else value
        return "{" + ",".join(f"{encode_basestring(key)}:{_write(value[key], in_order=in_order)}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_write(item, in_order=in_order) for item in value) + "]"
    if isinstance(value, float):
        return _double_text(value)
    return _encode_as_is(value)


def parse_json(text: str, *, in_order: bool = True) -> Any:
    """The value of a JSON text spelled as RFC 8785 does; ValueError for every other. `in_order`: members sorted, too.

    Written again it must be the same text: so no member can stand twice, and nothing can be spelled two ways.
    """
    if text.count("{") + text.count("[") > DEPTH_LIMIT and _depth(text) > DEPTH_LIMIT:
        raise ValueError("nested too deeply")
    value, end = _decode(text)
    if end != len(text):
        raise ValueError("more than one value")
    encode = _encode_sorted if in_order else _encode_as_is
    # Beyond U+FFFF the standard encoder sorts otherwise (by code points), so there only the slow one decides.
    is_plain = not in_order or text.isascii() or max(text) < "\U00010000"
    if not (is_plain and encode(value) == text) and _write(value, in_order=in_order) != text:
        raise ValueError("not canonical")
    return value


def _depth(text: str) -> int:
    """How deep containers nest in a text, if it is JSON."""
    deepest = depth = 0
    for mark in re.findall(r'"(?:[^"\\]|\\.)*"|([][{}])', text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(mark, 0)
        deepest = max(deepest, depth)
    return deepest


@lru_cache(maxsize=1 << 14)
def _is_canonical_short(text: str) -> bool:
    return _is_canonical_long(text)


def _is_canonical_long(text: str) -> bool:
    try:
        parse_json(text)
    except (ValueError, RecursionError):
        return False
    return True


def is_canonical(text: str) -> bool:
    """Whether a text is canonical JSON. Logs repeat themselves, so short texts are remembered."""
    return _is_canonical_short(text) if len(text) <= 256 else _is_canonical_long(text)


def parse_base64(text: str) -> bytes:
    """Base64 with padding, in its one spelling; ValueError for any other."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not canonical base64")
    return data


def _member_of(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _base64_or_none(text: str | None) -> bytes | None:
    try:
        return None if text is None else parse_base64(text)
    except ValueError:
        return None


def parse_hashes(value: object) -> list[bytes]:
    """A list of hashes of 32 bytes in base64; ValueError for anything else."""
    if not isinstance(value, list) or not all(type(one) is str and _HASH64.fullmatch(one) for one in value):
        raise ValueError("not a list of hashes")
    return [a2b_base64(one) for one in value]


_BASE64_32 = "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="  # 32 bytes have one spelling
_HASH64 = re.compile(_BASE64_32)


# --- the hash tree (RFC 6962) ----------------------------------------------------------------------------------------


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees."""
    return sha256(b"\x01" + left + right).digest()


def cover_levels(start: int, end: int) -> list[int]:
    """The levels of the largest aligned perfect subtrees that tile the leaves [start, end), in order."""
    levels = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        levels.append(level)
        start += 1 << level
    return levels


def perfect_subtrees(start: int, leaves: list[bytes]) -> list[tuple[int, bytes]]:
    """(level, hash) of the aligned perfect subtrees over leaves that begin at `start`, in order."""
    first, last, level = [], [], 0
    while leaves:
        if start & 1:
            first.append((level, leaves[0]))
            leaves = leaves[1:]
            start += 1
        if len(leaves) & 1:
            last.append((level, leaves[-1]))
            leaves = leaves[:-1]
        pairs = iter(leaves)
        leaves = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
        start >>= 1
        level += 1
    return first + last[::-1]


class Fold:
    """A tree that grows to the right: perfect subtrees go in, the root comes out."""

    def __init__(self, size: int, frontier: Sequence[bytes]) -> None:
        self.size = size
        self._hashes = list(frontier)

    def add(self, level: int, subtree: bytes) -> None:
        """Add a perfect subtree of 2^level leaves; its start must be aligned to that."""
        remaining = self.size >> level
        while remaining & 1:
            subtree = node_hash(self._hashes.pop(), subtree)
            remaining >>= 1
        self._hashes.append(subtree)
        self.size += 1 << level

    def last(self) -> bytes:
        """The rightmost subtree."""
        return self._hashes[-1]

    def root(self) -> bytes:
        """The root of what was added."""
        if not self._hashes:
            return sha256(b"").digest()
        root = self._hashes[-1]
        for subtree in reversed(self._hashes[:-1]):
            root = node_hash(subtree, root)
        return root


def included_root(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """The root that an inclusion proof leads to; None when it has too many or too few hashes, or no such index is."""
    if not 0 <= index < size:
        return None
    inner = (index ^ (size - 1)).bit_length()
    if len(proof) != inner + (index >> inner).bit_count():
        return None
    root = leaf
    for level, sibling in enumerate(proof):
        is_left = level < inner and not index >> level & 1
        root = node_hash(root, sibling) if is_left else node_hash(sibling, root)
    return root


# --- signed notes, keys, policies (C2SP) -----------------------------------------------------------------------------

ED25519, COSIGNATURE = 0x01, 0x04
_SPACES = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # what Unicode calls White_Space
_KEY_NAME = re.compile(rf"[^{_SPACES}+\x00-\x1f]+")
_ORIGIN = re.compile(rf"([^{_SPACES}+\x00-\x1f\x7f]+/t/[0-9a-f]{{32}})/([1-9][0-9]{{0,8}})")
_SIGNATURE_LINE = re.compile(r"— ([^ \n]+) ([A-Za-z0-9+/]+={0,2})")


class Key(NamedTuple):
    """A verifier key: `name+<keyid>+<base64 of type and public key>`."""

    name: str
    key_id: bytes
    kind: int
    public: bytes


class Note(NamedTuple):
    """A signed note: its text, and (name, keyid, signature) of each signature line."""

    text: str
    signatures: list[tuple[str, bytes, bytes]]


class Checkpoint(NamedTuple):
    """What a log's note says: this many entries, this root."""

    origin: str
    size: int
    root: bytes


def parse_key(text: str, kind: int) -> Key:
    """A vkey of Ed25519 (kind 1) or of a cosigner (kind 4). Raises UnreadableError."""
    name, _, rest = text.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        data = parse_base64(encoded)
    except ValueError:
        data = b""
    if not _KEY_NAME.fullmatch(name) or len(data) != 33:
        raise UnreadableError("a key is not a vkey: <name>+<8 hex digits>+<base64>")
    if sha256(name.encode() + b"\n" + data).hexdigest()[:8] != key_id:
        raise UnreadableError("a key's id does not fit its name and public key: it was mistyped")
    if data[0] != kind:
        raise UnreadableError(f"a key of type {data[0]} stands where only type {kind} can be checked")
    return Key(name, bytes.fromhex(key_id), kind, data[1:])


def parse_note(data: bytes) -> Note:
    """Raises EvidenceError for what is not a signed note."""
    if len(data) > NOTE_LIMIT_BYTES:
        raise EvidenceError("the checkpoint is too long")
    try:
        text, _, lines = data.decode().rpartition("\n\n")
    except UnicodeDecodeError:
        raise EvidenceError("the checkpoint is not UTF-8") from None
    signatures = []
    for line in lines.removesuffix("\n").split("\n"):
        match = _SIGNATURE_LINE.fullmatch(line)
        if not match or not _KEY_NAME.fullmatch(match[1]):
            raise EvidenceError("the checkpoint has a line that is no signature")
        try:
            payload = parse_base64(match[2])
        except ValueError:
            payload = b""
        if len(payload) < 5:
            raise EvidenceError("the checkpoint has a signature that is no base64")
        signatures.append((match[1], payload[:4], payload[4:]))
    if not text or not lines.endswith("\n") or re.search(r"[\x00-\x09\x0b-\x1f]", text):
        raise EvidenceError("the checkpoint is not a signed note")
    if len(signatures) > NOTE_LIMIT_SIGNATURES:
        raise EvidenceError("the checkpoint has too many signatures")
    return Note(text + "\n", signatures)


def parse_checkpoint(text: str) -> Checkpoint:
    """A note's text as a checkpoint of this service: exactly origin, size and root. Raises EvidenceError."""
    lines = text.split("\n")
    if len(lines) != 4 or not _ORIGIN.fullmatch(lines[0]) or not _HASH64.fullmatch(lines[2]):
        raise EvidenceError("the checkpoint is not origin, size and root")
    if not re.fullmatch("0|[1-9][0-9]{0,18}", lines[1]) or int(lines[1]) > INTEGER_MAX:
        raise EvidenceError("the checkpoint's size is not a number")
    return Checkpoint(lines[0], int(lines[1]), a2b_base64(lines[2]))


def has_cryptography() -> bool:
    """Whether signatures can be checked here."""
    try:
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401, PLC0415 - all else works without it
    except ImportError:
        return False
    return True


def is_signed(key: Key, text: str, signature: bytes) -> bool:
    """Whether a signature line's payload after the keyid is this key's over a note's text."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    message = text.encode()
    if key.kind == COSIGNATURE:
        if len(signature) != 72:
            return False
        message = b"cosignature/v1\ntime %d\n%b" % (int.from_bytes(signature[:8], "big"), message)
        signature = signature[8:]
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def signers_of(note: Note, keys: Iterable[Key]) -> list[Key]:
    """Which of the keys signed the note. One that is named but whose signature fails condemns it: EvidenceError."""
    known = {(key.name, key.key_id): key for key in keys}
    found = []
    for name, key_id, signature in note.signatures:
        key = known.get((name, key_id))
        if key is None:
            continue
        if not is_signed(key, note.text, signature):
            raise EvidenceError("a signature by a known key does not hold")
        found.append(key)
    return found


@dataclass(slots=True)
class Policy:
    """Who must have signed: log keys, witnesses by name, and what each name asks of others: (how many, of whom)."""

    logs: list[Key] = field(default_factory=list)
    witnesses: dict[str, Key] = field(default_factory=dict)
    groups: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    quorum: str | None = None

    def is_met(self, cosigners: Iterable[Key]) -> bool:
        """Whether these witnesses reach the quorum."""
        signed = set(cosigners)
        met = {"none": True} | {name: key in signed for name, key in self.witnesses.items()}
        for name, (needed, members) in self.groups.items():  # defined above their use, so this order is right
            met[name] = sum(met[member] for member in members) >= needed
        return met[self.quorum or "none"]


def parse_policy(data: bytes) -> Policy:
    """A C2SP tlog-policy. Raises UnreadableError naming the line."""
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        raise UnreadableError("the policy file is not UTF-8") from None
    policy = Policy()
    for number, line in enumerate(lines, 1):
        words = re.split(r"[ \t]+", line.strip(" \t"))
        if words == [""] or words[0].startswith("#"):
            continue
        if not _policy_line(policy, words[0], words[1:]):
            raise UnreadableError(f"the policy file cannot be read: line {number}")
    publics = [key.public for key in (*policy.logs, *policy.witnesses.values())]
    if policy.quorum is None or len(set(publics)) != len(publics):
        raise UnreadableError("the policy file names no quorum, or a key twice")
    return policy


def _policy_line(policy: Policy, word: str, rest: list[str]) -> bool:
    """Take in one line; whether it was understood."""
    known = {"none", *policy.witnesses, *policy.groups}
    match word, rest:
        case "log", [vkey] | [vkey, _]:
            policy.logs.append(parse_key(vkey, ED25519))
        case "witness", [name, vkey] | [name, vkey, _] if name not in known:
            policy.witnesses[name] = parse_key(vkey, COSIGNATURE)
        case "group", [name, count, *members] if name not in known and members:
            needed = {"all": len(members), "any": 1}.get(count) or (
                int(count) if re.fullmatch("[1-9][0-9]?", count) else 0
            )
            if (
                not 1 <= needed <= len(members)
                or len(set(members)) != len(members)
                or not known - {"none"} >= set(members)
            ):
                return False
            policy.groups[name] = (needed, members)
        case "quorum", [name] if policy.quorum is None and name in known:
            policy.quorum = name
        case _:
            return False
    return True


# --- entries ---------------------------------------------------------------------------------------------------------

_HEADER_V1 = "audit-service/entry/v1"
_NUMBER = "(?:0|[1-9][0-9]{0,18})"
_HEX32 = "[0-9a-f]{64}"
_INCLUSION = re.compile(rf',"inclusion":\[((?:"{_BASE64_32}"(?:,"{_BASE64_32}")*)?)\]\}}')


def _usual_body() -> str:
    r"""A pattern for the canonical body of an ordinary event, as a line holds it (each quote as `\"`).

    Whatever it matches is canonical: members in order, strings without any escape. It stands in for parsing, which
    takes most of the time; what it does not match is parsed.
    """
    quote, plain = r"\\" + '"', r'[^"\\\x00-\x1f]*'
    text = quote + plain + quote

    def member(name: str, value: str) -> str:
        return f"{quote}{name}{quote}:{value}"

    def optional(name: str, value: str) -> str:
        return f"(?:,{member(name, value)})?"

    number = "(?:0|-?[1-9][0-9]{0,17})"
    commitment = member("[a-z_]+", quote + _HEX32 + quote)
    source = rf"\{{(?:{member('id', text)}(?:,{member('seq', number)})?|{member('seq', number)})\}}"
    return "".join((
        r"\{", member("action", text), optional("actor_type", text), optional("category", text),
        optional("fields", rf"\[{text}(?:,{text})*\]"), optional("id", text),
        ",", member("nonce", f"{quote}[A-Za-z0-9+/]{{21}}[AQgw]=={quote}"),
        optional("occurred_at", text), optional("outcome", text),
        optional("sd", rf"\{{({commitment}(?:,{commitment})*)\}}"),
        optional("server_id", text), optional("source", source), optional("target_type", text),
        ",", member("v", "1"), optional("verb", text), r"\}",
    ))  # fmt: skip


_COMMITMENTS = re.compile(rb'\\"([a-z_]+)\\":\\"([0-9a-f]{64})\\"')


class Body(NamedTuple):
    """What the checks need of a body: its commitments, by group; of a control entry, its details, too."""

    commitments: dict[str, str]
    members: JSONObject | None


_BODY_WITHOUT_COMMITMENTS = Body({}, None)


class BodyProblem(NamedTuple):
    """Why a body says nothing: it is not what the format says, or of a version that is not known here."""

    reason: str
    is_unknown: bool = False


class Entry(NamedTuple):
    """A line, taken apart. `body` None: it is gone. `content` is what it says, or what is wrong with it; None: gone."""

    seq: int
    epoch: int
    recorded_at_us: int
    kind: str
    prev_hash: str
    body_hash: str
    hash: bytes
    body: bytes | None
    content: "Body | BodyProblem | None"
    disclosures: dict[str, tuple[bytes, str]]
    withheld: list[str]
    inclusion: list[bytes] | None


@dataclass(frozen=True, slots=True)
class Rules:
    """What lines are checked against. `base`: origin without its epoch. `root`: lines carry inclusion proofs into it."""

    base: str
    last_epoch: int
    size: int
    from_seq: int
    to_seq: int
    is_filtered: bool
    root: bytes | None


@lru_cache(maxsize=4)
def _line_pattern(base: str) -> "re.Pattern[bytes]":
    origin = re.escape(encode_basestring(base)[1:-1])
    head = (
        rf'\{{"seq":({_NUMBER}),"header":"{_HEADER_V1}\\n{origin}/([1-9][0-9]{{0,8}})\\n({_NUMBER})\\n({_NUMBER})\\n'
        rf'({"|".join(KINDS)})\\n({_HEX32})\\n({_HEX32})\\n","body":'
    )
    return re.compile(f'{head}(?:(null)|"({_usual_body()})"|(?="))'.encode())


def read_line(line: bytes, rules: Rules, *, has_inclusion: bool) -> Entry:
    """Take a line apart. Raises EvidenceError unless it is spelled exactly as the format says."""
    match = _line_pattern(rules.base).match(line)
    if match is None:
        raise EvidenceError("the line or its header is not what the format says")
    seq, epoch, header_seq, at, kind, prev, digest, null, usual, sd = match.groups()
    if seq != header_seq:
        raise EvidenceError("the line's seq is not its header's")
    header = b"\x00%b\n%b/%b\n%b\n%b\n%b\n%b\n%b\n" % (
        _HEADER_V1.encode(), rules.base.encode(), epoch, seq, at, kind, prev, digest,
    )  # fmt: skip
    body: bytes | None = None
    content: Body | BodyProblem | None = None
    try:
        if not line.isascii():
            line.decode()  # what the pattern passed over must be UTF-8, too
        rest = line[match.end() :].decode()
        if usual is not None:
            body = usual.translate(None, b"\\")  # the pattern allows no backslash but those before quotes
            content = _usual_content(sd) if kind == b"event" else parse_body(body, kind.decode())
        elif null is None:
            body, rest = _read_string(rest)
            content = parse_body(body, kind.decode())
        disclosures, rest = _read_disclosures(rest)
        withheld, rest = _read_withheld(rest)
        inclusion = _read_inclusion(rest) if has_inclusion else None
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"the line is not what the format says: {type(error).__name__}") from None
    if not has_inclusion and rest != "}":
        raise EvidenceError("the line has a member that it should not have")
    return Entry(
        int(seq), int(epoch), int(at), kind.decode(), prev.decode(), digest.decode(), sha256(header).digest(),
        body, content, disclosures, withheld, inclusion,
    )  # fmt: skip


def _read_string(text: str) -> tuple[bytes, str]:
    """The string a text begins with, in UTF-8, and what follows it."""
    value, end = _decode(text)
    if not isinstance(value, str) or encode_basestring(value) != text[:end]:
        raise ValueError("a string with two spellings")
    return value.encode(), text[end:]


def _read_disclosures(text: str) -> tuple[dict[str, tuple[bytes, str]], str]:
    """Group → (salt, value) from the member `disclosures` that a text begins with, and what follows it."""
    if text.startswith(',"disclosures":{}'):
        return {}, text[17:]
    if not text.startswith(',"disclosures":{'):
        raise ValueError("no disclosures")
    given, end = _decode(text, 15)
    spelled = ",".join(
        f'{encode_basestring(group)}:["{salt}",{encode_basestring(value)}]' for group, (salt, value) in given.items()
    )
    # Written again it is the same text: no group stands twice, and there is nothing but salts and values.
    if f"{{{spelled}}}" != text[15:end] or not all(_HASH64.fullmatch(salt) for salt, _ in given.values()):
        raise ValueError("disclosures that are not what the format says")
    return {group: (a2b_base64(salt), value) for group, (salt, value) in given.items()}, text[end:]


def _read_withheld(text: str) -> tuple[list[str], str]:
    """The groups of the member `withheld` that a text may begin with, and what follows it."""
    if not text.startswith(',"withheld":'):
        return [], text
    given, end = _decode(text, 12)
    if not isinstance(given, list) or not given or not all(type(group) is str for group in given):
        raise ValueError("groups withheld that are not what the format says")
    # Written again it is the same text.
    if f"[{','.join(map(encode_basestring, given))}]" != text[12:end] or len({*given}) < len(given):
        raise ValueError("groups withheld that are not what the format says")
    return given, text[end:]


def _read_inclusion(text: str) -> list[bytes]:
    match = _INCLUSION.fullmatch(text)
    if match is None:
        raise ValueError("no inclusion proof")
    return [a2b_base64(one) for one in re.findall(_HASH64, match[1])]


def _usual_content(commitments: bytes | None) -> Body | BodyProblem:
    if commitments is None:
        return _BODY_WITHOUT_COMMITMENTS
    pairs = [(group.decode(), digest.decode()) for group, digest in _COMMITMENTS.findall(commitments)]
    groups = [group for group, _ in pairs]
    if sorted(set(groups)) != groups:
        return BodyProblem("the body is not canonical JSON")
    return Body(dict(pairs), None)


def parse_body(body: bytes, kind: str) -> Body | BodyProblem:
    """What a body says, if it is canonical and of version 1."""
    try:
        members = parse_json(body.decode())
    except (ValueError, RecursionError):
        return BodyProblem("the body is not canonical JSON")
    if not isinstance(members, dict):
        return BodyProblem("the body is not an object")
    if type(members.get("v")) is not int or members["v"] != 1:
        return BodyProblem("the body is of a version not known here", is_unknown=True)
    fault = _body_fault(members, kind)
    return BodyProblem(fault) if fault else Body(members.get("sd", {}), None if kind == "event" else members)


def _body_fault(members: JSONObject, kind: str) -> str | None:
    """What is wrong with a body of version 1."""
    nonce, commitments = members.get("nonce"), members.get("sd", {})
    if type(nonce) is not str or not _NONCE.fullmatch(nonce) or type(members.get("action")) is not str:
        return "the body lacks its nonce or action"
    if not isinstance(commitments, dict) or not all(map(_is_hex32, commitments.values())):
        return "the body's commitments are not hashes"
    if kind != "event" and (members["action"] != f"audit.{kind}" or not isinstance(members.get("details"), dict)):
        return "the body is not that of a control entry of its kind"
    return None


def _is_hex32(value: object) -> bool:
    return type(value) is str and re.fullmatch(_HEX32, value) is not None


_NONCE = re.compile("[A-Za-z0-9+/]{21}[AQgw]==")


class Missing(NamedTuple):
    """A disclosure that is gone, or a whole body (group and commitment empty)."""

    seq: int
    group: str
    commitment: str


def check_content(entry: Entry, findings: Findings) -> list[Missing]:
    """`bodies` and `disclosures` of one entry; what is gone."""
    seq, content = entry.seq, entry.content
    if entry.body is None:
        if entry.kind != "event":
            findings.fail("bodies", "a control entry has lost its body", seq)
        if entry.disclosures or entry.withheld:
            findings.fail("disclosures", "a disclosure outlived its body", seq)
        return [Missing(seq, "", "")]
    if sha256(b"audit-service/body/v1\n" + entry.body).hexdigest() != entry.body_hash:
        findings.fail("bodies", "the body is not the one its header names", seq)
    if isinstance(content, Body):
        return _check_disclosures(entry, content.commitments, findings)
    if content is not None and content.is_unknown:
        findings.leave("bodies", content.reason, seq)
        findings.leave("disclosures", content.reason, seq)
    elif content is not None:
        findings.fail("bodies", content.reason, seq)
    return []


def _check_disclosures(entry: Entry, commitments: Mapping[str, str], findings: Findings) -> list[Missing]:
    disclosures = entry.disclosures
    for group, (salt, value) in disclosures.items():
        salted = b"audit-service/disclosure/v1\n%b\n%b%b" % (group.encode(), salt, value.encode())
        if sha256(salted).hexdigest() != commitments.get(group):
            findings.fail("disclosures", "a disclosure is not the one the body commits to", entry.seq)
        elif not is_canonical(value):
            findings.fail("disclosures", "a disclosed value is not canonical JSON", entry.seq)
    if disclosures.keys() == commitments.keys() and not entry.withheld:
        return []
    _check_withheld(entry, commitments, findings)
    shown_or_kept = {*disclosures, *entry.withheld}
    return [Missing(entry.seq, group, digest) for group, digest in commitments.items() if group not in shown_or_kept]


def _check_withheld(entry: Entry, commitments: Mapping[str, str], findings: Findings) -> None:
    """What was kept back is not called erased, and never good: whoever made the bundle says so, and nothing shows that it is there."""
    if any(group not in commitments or group in entry.disclosures for group in entry.withheld):
        findings.fail(
            "disclosures", "what is said to be withheld is shown, or is nothing the body commits to", entry.seq
        )
    if entry.withheld:
        findings.leave("disclosures", "withheld, not checked", entry.seq, len(entry.withheld))


def check_follows(before: Entry, entry: Entry, findings: Findings) -> bool:
    """`headers` and `links` of an entry after another; whether they are neighbours, so that the link was compared."""
    is_next = entry.seq == before.seq + 1
    if entry.seq <= before.seq:
        findings.fail("headers", "the seq does not ascend", entry.seq)
    if entry.recorded_at_us < before.recorded_at_us:
        findings.fail("headers", "the time goes backwards", entry.seq)
    if is_next and entry.epoch != before.epoch + (entry.kind == "resume"):
        findings.fail("headers", "the epoch does not follow from the entry before", entry.seq)
    elif entry.epoch < before.epoch:
        findings.fail("headers", "the epoch goes backwards", entry.seq)
    if is_next and entry.prev_hash != before.hash.hex():
        findings.fail("links", "the entry does not name the hash of the one before", entry.seq)
    return is_next


@dataclass(slots=True)
class Slice:
    """What came of some lines that follow each other."""

    findings: Findings = field(default_factory=Findings)
    lines: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    first: Entry | None = None
    last: Entry | None = None  # None where the last line could not be taken apart
    links: int = 0
    missing: list[Missing] = field(default_factory=list)
    unread: int = 0  # lines that could not be taken apart
    subtrees: list[tuple[int, bytes]] = field(default_factory=list)


def check_slice(rules: Rules, first_seq: int, data: bytes) -> Slice:
    """Check whole lines, of which the first should be `first_seq` (in a filtered bundle: any)."""
    result, leaves = Slice(), []
    findings = result.findings
    for line in data.removesuffix(b"\n").split(b"\n"):
        expected = None if rules.is_filtered else first_seq + result.lines
        result.lines += 1
        try:
            entry = read_line(line, rules, has_inclusion=rules.is_filtered)
        except EvidenceError as error:
            findings.fail("headers", str(error), expected)
            result.last = None
            result.unread += 1
            continue
        if result.last is not None:
            result.links += check_follows(result.last, entry, findings)
        elif result.lines == 1:
            result.first = entry
        result.last = entry
        _check_position(entry, expected, rules, findings)
        result.kinds[entry.kind] += 1
        result.missing += check_content(entry, findings)
        leaves.append(entry.hash)
    if not rules.is_filtered and not result.unread:
        result.subtrees = perfect_subtrees(first_seq, leaves)
    return result


def _check_position(entry: Entry, expected: int | None, rules: Rules, findings: Findings) -> None:
    if not rules.from_seq <= entry.seq < rules.to_seq:
        findings.fail("headers", "the seq is outside the range", entry.seq)
    elif expected is not None and entry.seq != expected:
        findings.fail("headers", "the seq is not the next one", expected)
    if entry.epoch > rules.last_epoch:
        findings.fail("headers", "the epoch is beyond the checkpoint's", entry.seq)
    if entry.inclusion is None or rules.root is None:
        return
    if included_root(entry.hash, entry.seq, rules.size, entry.inclusion) != rules.root:
        findings.fail("inclusion", "the entry does not lie in the checkpoint's tree", entry.seq)


# --- control entries -------------------------------------------------------------------------------------------------

ITEMS_LIMIT = 10_000


class Explanations:
    """What `drop` and `erase` entries say is gone, asked in seq order; sorted on disk, so memory does not grow."""

    def __init__(self, from_seq: int, to_seq: int) -> None:
        self._from_seq, self._to_seq = from_seq, to_seq
        self._database = sqlite3.connect("", isolation_level=None)  # a temporary file that nobody else sees
        self._database.execute("CREATE TABLE dropped (start INTEGER, stop INTEGER)")
        self._database.execute("CREATE TABLE erased (seq INTEGER, item BLOB)")
        self._ranges: Iterator[tuple[int, int]] = iter(())
        self._items: Iterator[tuple[int, bytes]] = iter(())
        self._next_range: tuple[int, int] | None = None
        self._next_item: tuple[int, bytes] | None = None
        self._dropped_to = -1
        self._at: tuple[int, set[bytes]] = (-1, set())

    def add_dropped(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Bodies of these ranges were dropped."""
        inside = ((start, stop) for start, stop in ranges if start < self._to_seq and stop > self._from_seq)
        self._database.executemany("INSERT INTO dropped VALUES (?, ?)", inside)

    def add_erased(self, items: Iterable[Missing]) -> None:
        """These disclosures were erased."""
        inside = ((item.seq, self._key(item)) for item in items if self._from_seq <= item.seq < self._to_seq)
        self._database.executemany("INSERT INTO erased VALUES (?, ?)", inside)

    def sort(self) -> None:
        """All are added; from now on it may be asked."""
        self._ranges = self._database.execute("SELECT start, stop FROM dropped ORDER BY start")
        self._items = self._database.execute("SELECT seq, item FROM erased ORDER BY seq")
        self._next_range, self._next_item = next(self._ranges, None), next(self._items, None)

    def explains(self, missing: Missing) -> bool:
        """Whether a control entry accounts for this. Seqs must be asked in ascending order."""
        if not missing.group and not missing.commitment:
            while self._next_range is not None and self._next_range[0] <= missing.seq:
                self._dropped_to = max(self._dropped_to, self._next_range[1])
                self._next_range = next(self._ranges, None)
            return missing.seq < self._dropped_to
        if self._at[0] < missing.seq:
            self._at = (missing.seq, set())
        while self._next_item is not None and self._next_item[0] <= missing.seq:
            if self._next_item[0] == missing.seq:
                self._at[1].add(self._next_item[1])
            self._next_item = next(self._items, None)
        return self._key(missing) in self._at[1]

    def close(self) -> None:
        """Remove the temporary file."""
        self._database.close()

    @staticmethod
    def _key(item: Missing) -> bytes:
        return bytes.fromhex(item.commitment) + item.group.encode()


_NAMED_KEY = re.compile(r"[0-9a-f]{8}\+([A-Za-z0-9+/]{44})")  # a vkey without its name


@dataclass(slots=True)
class KeyChanges:
    """What `signer` entries say of keys, each the base64 of its type and public key. `revoked`: up to which size it counts;
    `follows`: (old, new) where whoever trusts the old one trusts the new."""

    revoked: dict[str, int] = field(default_factory=dict)
    follows: list[tuple[str, str]] = field(default_factory=list)

    def limits(self, keys: Iterable[str]) -> dict[str, int]:
        """The keys that follow from some, with the size up to which each counts: a key that is trusted only through a revoked one counts
        no further than that, since a thief could have appointed it."""
        found = {key: self.revoked.get(key, INTEGER_MAX) for key in keys}
        known: dict[str, int] = {}
        while known != found:
            known = dict(found)
            for old, new in self.follows:
                if old in found:
                    limit = min(found[old], self.revoked.get(new, INTEGER_MAX))
                    found[new] = max(limit, found.get(new, limit))
        return found


class Controls:
    """Takes in control entries that were found to lie in the tree."""

    def __init__(self, explanations: Explanations, keys: Sequence[Key], base: str) -> None:
        self._explanations, self._keys, self._base = explanations, keys, base
        self.changes = KeyChanges()
        self.kinds: Counter[str] = Counter()

    def take(self, entry: Entry, details: JSONObject) -> None:
        """Raises EvidenceError for details that are not what the format says."""
        self.kinds[entry.kind] += 1
        match entry.kind:
            case "drop":
                self._explanations.add_dropped(_dropped_ranges(details, entry.seq))
            case "erase":
                self._explanations.add_erased(_erased_items(details, entry.seq))
            case "prune":
                _check_prune(details, entry.seq, self._keys)
                self._take_kept(details)
            case "signer":
                self._take_signer(details, f"{self._base}/{entry.epoch}")

    def _take_kept(self, details: JSONObject) -> None:
        """What a `prune` entry repeats of the `signer` entries before it. It needs no trust in who pruned: each has its two signatures."""
        kept = details.get("successions", [])
        if not isinstance(kept, list) or len(kept) > ITEMS_LIMIT:
            raise EvidenceError("a prune entry's successions are not what the format says")
        for one in kept:
            if not isinstance(one, dict) or not _is_count(one.get("epoch")):
                raise EvidenceError("a prune entry's succession is not what the format says")
            self._take_signer(one, f"{self._base}/{one['epoch']}")

    def _take_signer(self, details: JSONObject, origin: str) -> None:
        values: list[Any] = [details.get(name) for name in ("event", "old", "new", "from_size", "succession")]
        event, old, new, size, signatures = values
        if event not in {"added", "succeeded", "revoked"} or not _is_count(size):
            raise EvidenceError("a signer entry is not what the format says")
        first, second = (_NAMED_KEY.fullmatch(one) if type(one) is str else None for one in (old, new))
        if event == "revoked":
            if first is None:
                raise EvidenceError("a signer entry is not what the format says")
            self.changes.revoked[first[1]] = min(size, self.changes.revoked.get(first[1], size))
        if signatures is None:  # nobody signed for another: a change that appoints no key
            return
        if first is None or second is None or not isinstance(signatures, list) or len(signatures) != 2:
            raise EvidenceError("a signer entry is not what the format says")
        text = f"audit-service/succession/v1\n{origin}\n{old}\n{new}\n{size}\n"
        pairs = list(zip((first[1], second[1]), signatures, strict=True))
        if has_cryptography() and not all(_is_signed_by(key, text, signature) for key, signature in pairs):
            raise EvidenceError("a signer entry is not signed by its two keys")
        # A revoked key appoints nobody. And no successor speaks for the key before it, which may have leaked since: whatever covers this
        # entry lawfully is signed by the new key, too.
        if event != "revoked":
            self.changes.follows.append((first[1], second[1]))


def _is_signed_by(public: str, text: str, signature: object) -> bool:
    data = a2b_base64(public)
    try:
        value = parse_base64(signature) if type(signature) is str else b""
    except ValueError:
        return False
    return data[0] == ED25519 and is_signed(Key("", b"", ED25519, data[1:]), text, value)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= INTEGER_MAX


def _dropped_ranges(details: JSONObject, before: int) -> list[tuple[int, int]]:
    ranges = details.get("ranges")
    if not isinstance(ranges, list) or len(ranges) > ITEMS_LIMIT:
        raise EvidenceError("a drop entry is not what the format says")
    end, found = 0, []
    for one in ranges:
        if not isinstance(one, list) or len(one) != 2 or not all(map(_is_count, one)) or not end <= one[0] < one[1]:
            raise EvidenceError("a drop entry's ranges are not sorted, half-open and apart")
        end = one[1]
        found.append((one[0], one[1]))
    if end > before:
        raise EvidenceError("a drop entry speaks of entries after it")
    return found


def _erased_items(details: JSONObject, before: int) -> list[Missing]:
    items = details.get("items")
    if not isinstance(items, list) or len(items) > ITEMS_LIMIT:
        raise EvidenceError("an erase entry is not what the format says")
    found = []
    for item in items:
        if not isinstance(item, list) or len(item) != 3 or not _is_count(item[0]) or type(item[1]) is not str:
            raise EvidenceError("an erase entry is not what the format says")
        if not _is_hex32(item[2]) or item[0] >= before:
            raise EvidenceError("an erase entry speaks of entries after it, or of no commitment")
        found.append(Missing(item[0], item[1], item[2]))
    return found


def _check_prune(details: JSONObject, before: int, keys: Sequence[Key]) -> None:
    """That the frontier folds to the root, and the checkpoint named is of that size and root."""
    values: list[Any] = [details.get(name) for name in ("cut", "root", "frontier", "checkpoint")]
    cut, root, frontier, note_text = values
    if not _is_count(cut) or not all(type(one) is str for one in (root, frontier, note_text)) or not 0 < cut <= before:
        raise EvidenceError("a prune entry is not what the format says")
    if not re.fullmatch(f"(?:{_HEX32}){{{cut.bit_count()}}}", frontier) or not re.fullmatch(_HEX32, root):
        raise EvidenceError("a prune entry's frontier does not fit its cut")
    hashes = [bytes.fromhex(frontier[at : at + 64]) for at in range(0, len(frontier), 64)]
    note = parse_note(note_text.encode())
    checkpoint = parse_checkpoint(note.text)
    if has_cryptography():
        signers_of(note, keys)
    if not Fold(cut, hashes).root() == checkpoint.root == bytes.fromhex(root) or checkpoint.size != cut:
        raise EvidenceError("a prune entry's frontier, root and checkpoint do not agree")


# --- the bundle ------------------------------------------------------------------------------------------------------

_ENTRIES, _CONTROLS, _PROOF, _CHECKPOINT, _MANIFEST = (
    "entries.ndjson", "controls.ndjson", "proof.json", "checkpoint", "manifest.json",
)  # fmt: skip
PROVEN, NOT_PROVEN = "proven", "not proven: filtered"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest's members, of the right types."""

    origin: str
    base: str
    epoch: int
    from_seq: int
    to_seq: int
    size: int
    count: int
    kinds: dict[str, int]
    is_filtered: bool
    members: dict[str, tuple[int, str]]  # name → bytes, SHA-256

    @property
    def names(self) -> set[str]:
        """The members such a bundle has."""
        return {_ENTRIES, _CONTROLS, _CHECKPOINT} | (set() if self.is_filtered else {_PROOF})


_MANIFEST_MEMBERS = {
    "format", "origin", "from_seq", "to_seq", "size", "count", "kinds", "filters", "completeness", "pruned_before",
    "created_at", "members", "digest",
}  # fmt: skip
_TIME = re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?Z")


def parse_manifest(text: str, report: Report) -> Manifest:
    """Raises EvidenceError for a manifest that cannot be used, UnreadableError for one of another format version."""
    try:
        given = parse_json(text, in_order=False)
    except (ValueError, RecursionError):
        raise EvidenceError("the manifest is not compact JSON without duplicate members") from None
    if not isinstance(given, dict) or type(given.get("format")) is not str:
        raise EvidenceError("the manifest names no format")
    if given["format"] != BUNDLE_FORMAT:
        raise UnreadableError("the bundle is of a format version not known here")
    manifest = _typed_manifest(given)
    report.claims = {name: given[name] for name in sorted(_MANIFEST_MEMBERS - {"members", "digest"})}
    stated = given.pop("digest")
    if sha256(_encode_sorted(given).encode()).hexdigest() != stated:
        report.fail("manifest", "the manifest is not the one its digest was made of")
    return manifest


def _typed_manifest(given: JSONObject) -> Manifest:
    """Every member is there, of its type, and they do not contradict each other."""
    numbers: list[Any] = [given.get(name) for name in ("from_seq", "to_seq", "size", "count")]
    others: list[Any] = [given.get(name) for name in ("pruned_before", "filters", "kinds", "members")]
    pruned, filters, kinds, members = others
    origin: Any = _ORIGIN.fullmatch(given["origin"]) if type(given.get("origin")) is str else None
    faults = (
        (set(given) == _MANIFEST_MEMBERS, "the manifest has a member too many or too few"),
        (origin is not None, "the manifest's origin is not what the format says"),
        (all(map(_is_count, numbers)) and (pruned is None or _is_count(pruned)), "the manifest's numbers are none"),
        (filters is None or type(filters) is str, "the manifest's filters are no text"),
        (type(given.get("created_at")) is str and _TIME.fullmatch(given["created_at"]), "the manifest has no time"),
        (_is_kinds(kinds), "the manifest's kinds are not counts"),
        (_is_members(members), "the manifest's members are not lengths and hashes"),
        (type(given.get("digest")) is str, "the manifest has no digest"),
    )
    for holds, reason in faults:
        if not holds:
            raise EvidenceError(reason)
    from_seq, to_seq, size, count = numbers
    is_filtered = filters is not None
    if not from_seq <= to_seq <= size or (pruned or 0) > from_seq:
        raise EvidenceError("the manifest's range is not within the log")
    if given["completeness"] != (NOT_PROVEN if is_filtered else PROVEN):
        raise EvidenceError("the manifest's completeness is not what its filters allow")
    if sum(kinds.values()) != count or count > to_seq - from_seq or (not is_filtered and count < to_seq - from_seq):
        raise EvidenceError("the manifest's counts do not fit its range")
    sizes = {name: (stated["bytes"], stated["sha256"]) for name, stated in members.items()}
    return Manifest(
        origin[0], origin[1], int(origin[2]), from_seq, to_seq, size, count, kinds, is_filtered, sizes
    )  # fmt: skip


def _is_kinds(value: object) -> bool:
    return isinstance(value, dict) and set(value) <= set(KINDS) and all(map(_is_count, value.values()))


def _is_members(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(one, dict)
        and set(one) == {"bytes", "sha256"}
        and _is_count(one["bytes"])
        and _is_hex32(one["sha256"])
        for one in value.values()
    )


class Bundle:
    """One run over a bundle. The steps are numbered in `check`."""

    def __init__(self, archive: Archive, keys: Sequence[Key], policy: Policy | None, processes: int) -> None:
        self.report = Report()
        self._archive, self._processes = archive, processes
        self._keys, self._policy = [*keys, *(policy.logs if policy else ())], policy
        self._by_name = {member.name: member for member in archive.members}

    def check(self) -> Report:
        """Every check that can be made. Raises UnreadableError for what is no bundle of this version."""
        report = self.report
        # 1. the members' names, the manifest
        try:
            manifest = self._read_manifest()
        except EvidenceError as error:
            report.fail("manifest", str(error))
            return report
        self._check_names(manifest)
        # 2. the checkpoint: which tree everything else must lie in
        note, checkpoint = self._read_checkpoint(manifest)
        rules = Rules(
            manifest.base, manifest.epoch, manifest.size, manifest.from_seq, manifest.to_seq, manifest.is_filtered,
            checkpoint.root if checkpoint else None,
        )  # fmt: skip
        with closing(Explanations(manifest.from_seq, manifest.to_seq)) as explanations:
            # 3. the control entries: what may be missing, which keys were revoked
            controls = Controls(explanations, self._keys, manifest.base)
            self._check_controls(manifest, rules, controls)
            if note is not None and checkpoint is not None:
                self._check_signatures(note, checkpoint, controls.changes)
            # 4. the entries, and the range proof around them
            explanations.sort()
            fold = None if manifest.is_filtered else self._read_proof(manifest)
            self._check_entries(manifest, rules, explanations, fold, controls)
        report.settle("members")
        return report

    # 1

    def _read_manifest(self) -> Manifest:
        if [member.name for member in self._archive.members].count(_MANIFEST) != 1:
            raise EvidenceError("the bundle has no manifest, or several")
        data = self._whole(_MANIFEST, MANIFEST_LIMIT_BYTES)
        try:
            return parse_manifest(data.decode(), self.report)
        except UnicodeDecodeError:
            raise EvidenceError("the manifest is not UTF-8") from None

    def _check_names(self, manifest: Manifest) -> None:
        names = sorted(member.name for member in self._archive.members)
        if names != sorted({_MANIFEST, *manifest.names}):
            self.report.fail("members", "a member is missing, unknown or there twice")
        if not all(member.is_file for member in self._archive.members):
            self.report.fail("members", "a member is a link or a folder")
        if set(manifest.members) != manifest.names:
            self.report.fail("members", "the manifest does not list the members there should be")

    def _whole(self, name: str, limit_bytes: int) -> bytes:
        """A short member, whole. Raises EvidenceError."""
        member = self._by_name.get(name)
        if member is None:
            raise EvidenceError(f"{name} is missing")
        if member.size_bytes > limit_bytes:
            raise EvidenceError(f"{name} is longer than {limit_bytes} bytes")
        return b"".join(self._archive.stream(member))

    def _stated(self, name: str, manifest: Manifest, limit_bytes: int) -> bytes | None:
        """A short member as the manifest states it; None, and `members` fails, where it is not to be had."""
        try:
            data = self._whole(name, limit_bytes)
        except EvidenceError as error:
            self.report.fail("members", str(error))
            return None
        if (len(data), sha256(data).hexdigest()) != manifest.members.get(name):
            self.report.fail("members", f"{name} is not the one the manifest states")
        return data

    # 2

    def _read_checkpoint(self, manifest: Manifest) -> tuple[Note | None, Checkpoint | None]:
        data = self._stated(_CHECKPOINT, manifest, NOTE_LIMIT_BYTES)
        if data is None:
            return None, None
        try:
            note = parse_note(data)
            checkpoint = parse_checkpoint(note.text)
        except EvidenceError as error:
            self.report.fail("checkpoint", str(error))
            return None, None
        if checkpoint.origin != manifest.origin:
            self.report.fail("checkpoint", "the checkpoint is of another log or epoch")
        if checkpoint.size != manifest.size:
            self.report.fail("checkpoint", "the checkpoint is of another size")
        return note, checkpoint

    def _check_signatures(self, note: Note, checkpoint: Checkpoint, changes: KeyChanges) -> None:
        check_signatures(self.report, note, checkpoint, self._keys, self._policy, changes)

    # 3

    def _check_controls(self, manifest: Manifest, rules: Rules, controls: Controls) -> None:
        report, found, last_seq = self.report, Findings(), -1
        try:
            for data in self._slices(_CONTROLS, manifest):
                for line in data.removesuffix(b"\n").split(b"\n"):
                    last_seq = self._check_control(line, rules, controls, found, last_seq)
                if found.count() >= FAULTS_LIMIT:
                    break
        except EvidenceError as error:
            report.fail("members", str(error))
            return
        # Whatever is wrong with a control entry, it is the check `controls` that fails.
        for one, add in ((found.failed, report.fail), (found.unchecked, report.leave)):
            for check in one.values():
                add("controls", check.reason or "", check.first_bad_seq, check.faults)
        if rules.root is None:
            report.leave("controls", "there is no checkpoint to compare with")
        elif last_seq < 0 and not found.failed:
            report.inapplicable("controls", "no control entry touches the range")
        report.settle("controls") if last_seq >= 0 else None

    def _check_control(self, line: bytes, rules: Rules, controls: Controls, found: Findings, last_seq: int) -> int:
        """One line of controls.ndjson; its seq."""
        wrong = Findings()
        try:
            entry = read_line(line, rules, has_inclusion=True)
        except EvidenceError as error:
            found.fail("headers", str(error))
            return last_seq
        seq = entry.seq
        if entry.kind == "event" or seq <= last_seq or entry.epoch > rules.last_epoch:
            wrong.fail("headers", "no control entry, out of order, or of an epoch beyond the checkpoint's", seq)
        check_content(entry, wrong)
        root = rules.root
        if root is not None and included_root(entry.hash, seq, rules.size, entry.inclusion or ()) != root:
            wrong.fail("inclusion", "the control entry does not lie in the checkpoint's tree", seq)
        content = entry.content
        # What does not hold explains nothing.
        if isinstance(content, Body) and content.members is not None and not wrong.failed:
            try:
                controls.take(entry, content.members["details"])
            except EvidenceError as error:
                wrong.fail("bodies", str(error), seq)
        found.take(wrong)
        return max(seq, last_seq)

    # 4

    def _read_proof(self, manifest: Manifest) -> tuple[Fold, list[bytes]] | None:
        """The fold to put the entries on, and the hashes right of them; None, and `range` fails, for a wrong proof."""
        data = self._stated(_PROOF, manifest, PROOF_LIMIT_BYTES)
        if data is None:
            return None
        try:
            given = parse_json(data.decode(), in_order=False)
            left, right = parse_hashes(_member_of(given, "left")), parse_hashes(_member_of(given, "right"))
        except (ValueError, RecursionError):
            self.report.fail("range", "the range proof is not what the format says")
            return None
        numbers = (manifest.from_seq, manifest.to_seq, manifest.size)
        stated = tuple(given.get(name) for name in ("from_seq", "to_seq", "size"))
        if len(given) != 5 or not all(map(_is_count, stated)) or stated != numbers:
            self.report.fail("range", "the range proof is for another range or size")
            return None
        expected = (manifest.from_seq.bit_count(), len(cover_levels(manifest.to_seq, manifest.size)))
        if (len(left), len(right)) != expected:
            self.report.fail("range", "the range proof has too many or too few hashes")
            return None
        return Fold(manifest.from_seq, left), right

    def _check_entries(
        self,
        manifest: Manifest,
        rules: Rules,
        explanations: Explanations,
        proof: tuple[Fold, list[bytes]] | None,
        controls: Controls,
    ) -> None:
        walk = Walk(self.report, rules, explanations, proof[0] if proof else None)
        try:
            with self._checked_slices(manifest, rules) as slices:
                for one in slices:
                    walk.take(one)
                    if walk.report.count() >= FAULTS_LIMIT:
                        self.report.leave("members", "too much is wrong; the rest was not read")
                        return
        except EvidenceError as error:
            self.report.fail("members", str(error))
            return
        walk.finish(manifest, proof[1] if proof else [], controls)

    @contextmanager
    def _checked_slices(self, manifest: Manifest, rules: Rules) -> Iterator[Iterator[Slice]]:
        """The slices of entries.ndjson, checked, in order: in other processes where that pays."""
        slices = self._numbered(manifest)
        check = partial(check_slice, rules)
        member = self._by_name.get(_ENTRIES)
        if self._processes < 2 or member is None or member.size_bytes < _PARALLEL_FROM_BYTES:
            yield (check(first_seq, data) for first_seq, data in slices)
            return
        with ProcessPoolExecutor(self._processes, mp_context=get_context("spawn")) as pool:
            yield _ahead(pool, check, slices, self._processes * 2)

    def _numbered(self, manifest: Manifest) -> Iterator[tuple[int, bytes]]:
        """Slices with the seq that their first line should have."""
        seq = manifest.from_seq
        for data in self._slices(_ENTRIES, manifest):
            yield seq, data
            seq += data.count(b"\n")

    def _slices(self, name: str, manifest: Manifest) -> Iterator[bytes]:
        """A member of lines in whole lines of about 1 MiB. Raises EvidenceError when it is not as stated."""
        member = self._by_name.get(name)
        if member is None:
            raise EvidenceError(f"{name} is missing")
        hasher, length, waiting = sha256(), 0, b""
        for piece in self._archive.stream(member):
            hasher.update(piece)
            length += len(piece)
            if len(waiting) + (piece.find(b"\n") if b"\n" in piece else len(piece)) > LINE_LIMIT_BYTES:
                raise EvidenceError(f"{name} has a line longer than {LINE_LIMIT_BYTES} bytes")
            whole, newline, rest = piece.rpartition(b"\n")
            if newline:
                yield b"".join((waiting, whole, newline))
                waiting = rest
            else:
                waiting += piece
        if waiting:
            raise EvidenceError(f"{name} does not end with a line feed")
        if (length, hasher.hexdigest()) != manifest.members.get(name):
            self.report.fail("members", f"{name} is not the one the manifest states")


def _ahead(
    pool: ProcessPoolExecutor,
    check: Callable[[int, bytes], Slice],
    slices: Iterator[tuple[int, bytes]],
    limit: int,
) -> Iterator[Slice]:
    """The results in order, with at most `limit` slices under way: memory stays as it is."""
    waiting: deque[Future[Slice]] = deque()
    for first_seq, data in slices:
        waiting.append(pool.submit(check, first_seq, data))
        if len(waiting) >= limit:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class Walk:
    """Joins slices: the links and positions between them, what is gone, the fold over all."""

    def __init__(self, report: Report, rules: Rules, explanations: Explanations, fold: Fold | None) -> None:
        self.report = report
        self._rules, self._explanations, self._fold = rules, explanations, fold
        self._before: Entry | None = None
        self._lines = self._links = 0
        self._kinds: Counter[str] = Counter()
        self._unread = 0

    def take(self, one: Slice) -> None:
        """The next slice."""
        report = self.report
        if one.first is not None and self._lines == 0:
            self._links += self._check_first(one.first)
        elif one.first is not None and self._before is not None:
            self._links += check_follows(self._before, one.first, report)
        self._before = one.last
        self._lines += one.lines
        self._links += one.links
        self._kinds += one.kinds
        report.take(one.findings)
        for missing in one.missing:
            report.forgotten["disclosures" if missing.group else "bodies"] += 1
            if not self._explanations.explains(missing):
                what = "disclosure is gone without an erase" if missing.group else "body is gone without a drop"
                report.fail("forgotten", f"a {what} entry", missing.seq)
        self._unread += one.unread
        if self._fold is not None and not self._unread:
            for level, subtree in one.subtrees:
                self._fold.add(level, subtree)

    def finish(self, manifest: Manifest, right: list[bytes], controls: Controls) -> None:
        """The checks over all of the entries."""
        report = self.report
        if self._lines != manifest.count or +self._kinds != +Counter(manifest.kinds):
            report.fail("manifest", "the manifest's counts are not those of the entries")
        if any(self._kinds[kind] > controls.kinds[kind] for kind in ("signer", "resume")):
            report.fail("controls", "a signer or resume entry of the range is missing among the control entries")
        for check in ("manifest", "headers", "bodies", "disclosures"):
            report.settle(check)
        report.settle("links")
        if not self._links:
            report.inapplicable("links", "no entry stands beside the one before it")
        report.settle("forgotten")
        if not any(report.forgotten.values()):
            report.inapplicable("forgotten", "nothing is gone")
        elif self._rules.root is None:
            report.leave("forgotten", "without a checkpoint nothing shows that the control entries were sealed")
        if self._rules.is_filtered:
            report.inapplicable("range", "a filtered bundle: that nothing was left out is not proven")
            self._finish_inclusion()
        else:
            report.inapplicable("inclusion", "the range proof covers every entry")
            self._finish_range(manifest, right)

    def _finish_inclusion(self) -> None:
        if self._lines == 0:
            self.report.inapplicable("inclusion", "the filters select no entry")
        elif self._rules.root is not None and not self._unread:
            self.report.settle("inclusion")

    def _finish_range(self, manifest: Manifest, right: list[bytes]) -> None:
        fold, root = self._fold, self._rules.root
        if fold is None or root is None or self._unread:
            return
        if fold.size != manifest.to_seq:
            self.report.fail("range", "the entries are more or fewer than the range")
            return
        for level, subtree in zip(cover_levels(manifest.to_seq, manifest.size), right, strict=True):
            fold.add(level, subtree)
        if fold.root() != root:
            self.report.fail("range", "the entries and the range proof do not lead to the checkpoint's root")
        self.report.settle("range")

    def _check_first(self, entry: Entry) -> bool:
        """What the first entry names as the one before it, where that is known; whether it was."""
        prev = None
        if entry.seq == 0:
            prev = sha256(f"audit-service/genesis/v1\n{self._rules.base}/1\n".encode()).hexdigest()
            if entry.epoch != 1:
                self.report.fail("headers", "the log does not begin with epoch 1", 0)
        elif entry.seq == self._rules.from_seq and entry.seq & 1 and self._fold is not None:
            prev = self._fold.last().hex()  # at an odd seq the frontier ends with the entry before
        if prev is not None and entry.prev_hash != prev:
            self.report.fail("links", "the entry does not name the hash of the one before", entry.seq)
        return prev is not None


def check_signatures(
    report: Report,
    note: Note,
    checkpoint: Checkpoint,
    keys: Sequence[Key],
    policy: Policy | None,
    changes: KeyChanges,
) -> None:
    """The checks `checkpoint` and `policy`. A log's key is named as its origin, so another log's never counts; one that is named as another
    epoch of the log tells nothing by itself, because an epoch begins where something was lost."""
    if policy is None:
        report.inapplicable("policy", "no policy file was given")
    if not has_cryptography():
        report.leave("checkpoint", "the package `cryptography` is not installed")
        return
    origin, base = checkpoint.origin, checkpoint.origin.rpartition("/")[0]
    by_log = [key for key in keys if key.kind == ED25519 and key.name.rpartition("/")[0] == base]
    here = changes.limits(_public_text(key) for key in by_log if key.name == origin)
    anywhere = changes.limits(map(_public_text, by_log))
    try:
        named = [_key_named(origin, public) for public in anywhere]
        signers = signers_of(note, [*keys, *named, *(policy.witnesses.values() if policy else ())])
    except EvidenceError as error:
        report.fail("checkpoint", str(error))
        return
    signed = {_public_text(key) for key in signers if key.kind == ED25519 and key.name == origin}
    if not keys:
        report.leave("checkpoint", "no key was pinned, so nobody vouches for this checkpoint")
    elif not signed & anywhere.keys():
        report.fail("checkpoint", "none of the pinned keys signed the checkpoint")
    elif not any(checkpoint.size <= anywhere[public] for public in signed & anywhere.keys()):
        report.fail("checkpoint", "the key that signed the checkpoint was revoked before it")
    elif not any(checkpoint.size <= here[public] for public in signed & here.keys()):
        report.leave(
            "checkpoint", f"the pinned key is that of another epoch than {origin}: pin the one that is named so"
        )
    report.settle("checkpoint")
    if policy is not None:
        if not policy.is_met(signers):
            report.fail("policy", "the witnesses that signed are fewer than the policy asks for")
        report.settle("policy")


def _key_named(name: str, public: str) -> Key:
    data = a2b_base64(public)
    return Key(name, sha256(name.encode() + b"\n" + data).digest()[:4], data[0], data[1:])


def _public_text(key: Key) -> str:
    return base64.b64encode(bytes([key.kind]) + key.public).decode()


# --- a proof of one entry --------------------------------------------------------------------------------------------

_PROOF_MARK = b"c2sp.org/tlog-proof@v1\n"
_PROOF_HEAD = re.compile(
    rf"c2sp\.org/tlog-proof@v1\n(?:extra ([A-Za-z0-9+/]*={{0,2}})\n)?index ({_NUMBER})\n((?:{_BASE64_32}\n)*)"
)


def check_proof_file(data: bytes, keys: Sequence[Key], policy: Policy | None) -> Report:
    """A C2SP tlog-proof file whose `extra` holds the entry: a line as in a bundle, or its header alone."""
    report = Report()
    for check in ("manifest", "members", "links", "controls", "range"):
        report.inapplicable(check, "a proof of one entry")
    try:
        text, _, checkpoint_text = data.decode().partition("\n\n")
    except UnicodeDecodeError:
        text = checkpoint_text = ""
    match = _PROOF_HEAD.fullmatch(text + "\n")
    extra = _base64_or_none(match[1]) if match else None
    if match is None or (extra is None and match[1] is not None):
        report.fail("inclusion", "the proof is not what the format says")
        return report
    try:
        note = parse_note(checkpoint_text.encode())
        checkpoint = parse_checkpoint(note.text)
    except EvidenceError as error:
        report.fail("checkpoint", str(error))
        return report
    index = int(match[2])
    report.claims = {"origin": checkpoint.origin, "size": checkpoint.size, "seq": index}
    keys = [*keys, *(policy.logs if policy else ())]
    check_signatures(report, note, checkpoint, keys, policy, KeyChanges())
    if extra is None:
        report.leave("headers", "the proof holds no entry")
        return report
    hashes = [a2b_base64(one) for one in match[3].split()]
    _check_proven(report, extra, index, checkpoint, hashes)
    return report


def _check_proven(report: Report, extra: bytes, index: int, checkpoint: Checkpoint, proof: list[bytes]) -> None:
    """The entry in `extra`: its own checks, and that it is the leaf the proof is for."""
    base, _, epoch = checkpoint.origin.rpartition("/")
    rules = Rules(base, int(epoch), checkpoint.size, index, index + 1, is_filtered=False, root=checkpoint.root)
    has_only_header = extra.startswith(_HEADER_V1.encode() + b"\n")
    try:
        line = _line_of_header(extra) if has_only_header else extra.removesuffix(b"\n")
        entry = read_line(line, rules, has_inclusion=False)
    except EvidenceError as error:
        report.fail("headers", str(error), index)
        return
    _check_position(entry, index, rules, report)
    if included_root(entry.hash, index, checkpoint.size, proof) != checkpoint.root:
        report.fail("inclusion", "the entry does not lie in the checkpoint's tree", index)
    report.settle("headers")
    report.settle("inclusion")
    if has_only_header:
        for check in ("bodies", "disclosures", "forgotten"):
            report.inapplicable(check, "the proof holds the header only")
        return
    missing = check_content(entry, report)
    report.settle("bodies")
    report.settle("disclosures")
    if missing:
        report.leave("forgotten", "something is gone, and a proof of one entry brings no control entries", index)
    else:
        report.inapplicable("forgotten", "nothing is gone")


def _line_of_header(header: bytes) -> bytes:
    try:
        text = header.decode()
        seq = text.split("\n")[2]
    except (UnicodeDecodeError, IndexError):
        raise EvidenceError("the header is not what the format says") from None
    return f'{{"seq":{seq},"header":{encode_basestring(text)},"body":null,"disclosures":{{}}}}'.encode()


# --- the command -----------------------------------------------------------------------------------------------------


def verify(path: Path, keys: Sequence[str], policy_path: Path | None = None, processes: int | None = None) -> Report:
    """The report on a bundle or proof file. Never raises for what it reads; keys are vkeys."""
    try:
        policy = None if policy_path is None else parse_policy(_read_file(policy_path, POLICY_LIMIT_BYTES))
        pinned = [parse_key(key, ED25519) for key in keys]
        if not path.is_file():
            return _unreadable("there is no such file")
        with path.open("rb") as file:
            if file.read(len(_PROOF_MARK)) == _PROOF_MARK:
                return check_proof_file(_read_file(path, PROOF_FILE_LIMIT_BYTES), pinned, policy)
            return Bundle(Archive(file), pinned, policy, processes or os.cpu_count() or 1).check()
    except UnreadableError as error:
        return _unreadable(str(error))
    except OSError as error:
        return _unreadable(f"cannot be read: {error.strerror}")


def _unreadable(reason: str) -> Report:
    report = Report()
    report.unreadable = reason
    return report


def _read_file(path: Path, limit_bytes: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise UnreadableError(f"{path.name} is longer than {limit_bytes} bytes")
    return data


def format_report(report: Report) -> str:
    """The report for a person."""
    lines = []
    for name, check in report.checks().items():
        where = "" if check.first_bad_seq is None else f" (first at seq {check.first_bad_seq})"
        times = f", {check.faults} times" if check.faults > 1 else ""
        reason = f"  {check.reason}{where}{times}" if check.reason else ""
        lines.append(f"{name:<12} {check.verdict:<15}{reason}".rstrip())
    claims = report.claims
    if "count" in claims:
        lines += [
            "",
            f"log          {claims['origin']}, {claims['size']} entries at the checkpoint",
            f"entries      {claims['count']} of seq [{claims['from_seq']}, {claims['to_seq']})",
            # As JSON in ASCII: what a stranger wrote must not steer the terminal.
            f"filters      {json.dumps(claims['filters'])} (completeness {claims['completeness']})",
            f"pruned       before seq {claims['pruned_before'] or 0}",
            f"forgotten    {report.forgotten['bodies']} bodies, {report.forgotten['disclosures']} disclosures",
            f"made at      {claims['created_at']} (filters, pruned and made at are claims that nobody signed)",
        ]
    is_partial = claims.get("completeness") == NOT_PROVEN
    summary = {
        EXIT_GOOD: "What is shown holds: inclusion only, completeness not proven."
        if is_partial
        else "Everything holds.",
        EXIT_BAD: "BAD: this is not what the log sealed.",
        EXIT_UNKNOWN: "Could not tell: what was not checked is not good.",
    }
    return "\n".join([*lines, "", summary[report.exit_code()], ""])


def run(
    bundle: Path,
    keys: Sequence[str],
    policy: Path | None = None,
    *,
    as_json: bool = False,
    processes: int | None = None,
) -> int:
    """Verify, print the report, answer the exit code."""
    report = verify(bundle, keys, policy, processes)
    text = json.dumps(report.as_json(), indent=2) + "\n" if as_json else format_report(report)
    sys.stdout.write(text.encode("ascii", "backslashreplace").decode())
    return report.exit_code()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Check a bundle of evidence offline. Exit 0 good, 1 bad, 2 could not tell."
    )
    parser.add_argument("bundle", type=Path, help="the bundle, or a .tlog-proof file")
    parser.add_argument("--key", action="append", default=[], metavar="VKEY", help="a key to trust; repeatable")
    parser.add_argument("--policy", type=Path, help="a C2SP policy file: log keys and witnesses to trust")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument("--processes", type=int, help="how many at most (default: one for each core)")
    given = parser.parse_args(arguments)
    return run(given.bundle, given.key, given.policy, as_json=given.json, processes=given.processes)


if __name__ == "__main__":
    sys.exit(main())
