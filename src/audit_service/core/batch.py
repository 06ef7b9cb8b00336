"""Check many stored entries in one go: what `core.checker` does row by row, for rows in which nothing breaks.

The common case made fast, and nothing but that. A `Run` says whether each of steps 1 to 7 holds for each row; it names no break.
Where it says no, the checker has not moved, and `Checker.check` takes the same rows one by one and says why. So one thing only may
go wrong here: to accept what `check` would name. What is rare (another epoch, a version nobody knows) is left to `check` as well.

A row is a sequence: the fixed-width columns of its header in one byte string (`HEADER`), its kind and its body in UTF-8; then, to be
checked in full, its disclosures in the order of GROUPS and its projections in that of `Projection`, the address as PostgreSQL
sends one. None where a column is null; the first is None too where a hash has not its 32 bytes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import Any, cast

import orjson

from audit_service.core.canonical import JSONValue
from audit_service.core.chain import BODY_PREFIX, HEADER_VERSION
from audit_service.core.checker import BODY_VERSION, Checker
from audit_service.core.entry import (
    GROUPS,
    SALT_BYTES,
    JSONObject,
    Projection,
    disclosure_prefix,
    index_address,
    project,
)

# seq, recorded_at (microseconds since 2000), epoch, prev_hash, body_hash, hash: as PostgreSQL sends them.
HEADER = Struct(">qqi32s32s32s")
POSTGRES_EPOCH_US = 946_684_800_000_000
_LAST_US = 253_402_300_799_999_999  # the last of the year 9999: a later time cannot be read, which is a break
_FIXED, _KIND, _BODY, _DISCLOSED = range(4)
_PROJECTED = _DISCLOSED + len(GROUPS)
_IP = Projection._fields.index("ip")
_PREFIXES = tuple((group, disclosure_prefix(group)) for group in GROUPS)

Row = Sequence[Any]


@dataclass(slots=True)
class Run:
    """The next rows of the log, given to `accept` some at a time; `finish` moves the checker behind them.

    `whole`: disclosures and projections too, not only headers, links and bodies.
    """

    checker: Checker
    whole: bool
    _hashes: list[bytes] = field(init=False, default_factory=list)
    _dropped: int = field(init=False, default=0)
    _erased: int = field(init=False, default=0)
    _last_us: int = field(init=False)

    def __post_init__(self) -> None:
        self._last_us = self.checker.last_us

    def accept(self, rows: Sequence[Row]) -> bool:
        """Whether nothing breaks in these rows. After a no, the run is of no more use."""
        first = self.checker.expected_seq + len(self._hashes)
        return self._link(rows) and (
            not self.whole or all(self._discloses(seq, row) for seq, row in enumerate(rows, first))
        )

    def finish(self) -> None:
        """All rows were accepted, and there was one."""
        self.checker.passed(self._hashes, last_us=self._last_us)
        self.checker.dropped += self._dropped
        self.checker.erased += self._erased

    def _link(self, rows: Sequence[Row]) -> bool:
        """Steps 1 to 5."""
        epoch, before = self.checker.last_epoch, self._hashes[-1] if self._hashes else self.checker.prev_hash
        if epoch is None or before is None:
            return False
        start = f"\0{HEADER_VERSION}\n{self.checker.head.origin(epoch)}\n"
        seq, last_us = self.checker.expected_seq + len(self._hashes), self._last_us
        for row in rows:
            fixed, kind, body = row[_FIXED], row[_KIND], row[_BODY]
            if fixed is None or kind is None:
                return False
            found_seq, at_us, found_epoch, prev_hash, body_hash, entry_hash = HEADER.unpack(fixed)
            at_us += POSTGRES_EPOCH_US
            if found_seq != seq or found_epoch != epoch or prev_hash != before or not last_us <= at_us <= _LAST_US:
                return False
            header = f"{start}{seq}\n{at_us}\n{kind}\n{prev_hash.hex()}\n{body_hash.hex()}\n"
            if sha256(header.encode()).digest() != entry_hash or not (
                self._is_dropped(seq, kind) if body is None else sha256(BODY_PREFIX + body).digest() == body_hash
            ):
                return False
            self._hashes.append(entry_hash)
            seq, before, last_us = seq + 1, entry_hash, at_us
        self._last_us = last_us
        return True

    def _is_dropped(self, seq: int, kind: str) -> bool:
        """Whether the body may be gone: only events are ever dropped."""
        self._dropped += 1
        return kind == "event" and self.checker.explanations.explains_body(seq)

    def _discloses(self, seq: int, row: Row) -> bool:
        """Steps 6 and 7 of one row."""
        if row[_BODY] is None:  # dropped: nothing else may be left
            return not any(column is not None for column in row[_DISCLOSED:])
        try:
            body = orjson.loads(row[_BODY])
            values = self._disclosed(seq, body, row)
            if values is None:
                return False
            projected = project(body, values)
        except (ValueError, KeyError, TypeError, AttributeError):  # orjson's error is a ValueError
            return False
        stored = row[_PROJECTED:]
        return (
            stored[:_IP] == projected[:_IP]
            and stored[_IP] == (None if projected.ip is None else _address_bytes(cast("str", values["ip"])))
            and stored[_IP + 1 :] == projected[_IP + 1 :]
        )

    def _disclosed(self, seq: int, body: Any, row: Row) -> JSONObject | None:
        """The values of the disclosures that are there; None when one is too many, another, or gone without an explanation."""
        if type(body) is not dict or body.get("v") != BODY_VERSION:
            return None
        commitments: Any = body.get("sd")
        left = len(commitments) if commitments else 0
        values: JSONObject = {}
        for (group, prefix), stored in zip(_PREFIXES, row[_DISCLOSED:_PROJECTED], strict=True):
            if stored is None:
                continue
            if sha256(prefix + stored).hexdigest() != commitments[group]:
                return None
            values[group] = cast("JSONValue", orjson.loads(stored[SALT_BYTES:]))
            left -= 1
        if left and not self._explained(seq, commitments.keys() - values.keys(), commitments):
            return None
        return values

    def _explained(self, seq: int, gone: Iterable[str], commitments: JSONObject) -> bool:
        for group in gone:
            if not self.checker.explanations.explains(seq, group, commitments[group]):
                return False
            self._erased += 1
        return True


@lru_cache(maxsize=4096)
def _address_bytes(text: str) -> bytes:
    """The `inet` of an address as PostgreSQL sends it: family, bits, whether it is a cidr, length, address."""
    address = index_address(text)
    return bytes((2 if address.version == 4 else 3, address.max_prefixlen, 0, len(address.packed))) + address.packed
