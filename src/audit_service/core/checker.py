"""Check stored entries one after another and name every break (DESIGN 3.4).

Pure: rows go in in seq order, breaks come out. It re-derives everything from the stored bytes and shares nothing with the
append function but the format. Memory is constant: the chain's state is one hash and one frontier.

For each entry, numbered as in `Checker.check`:
1. position    `gap`, `duplicate`
2. header      `header_mismatch`: the hash is not the header's, or the epoch does not follow from the entry before
3. link        `link_broken`: prev is not the hash of the entry before
4. time        `time_backwards`
5. body        `body_mismatch`, `unrecorded_erasure` (a body that is gone, and no `drop` entry says so)
6. disclosures `disclosure_mismatch`, `unrecorded_erasure` (a disclosure that is gone, and no `erase` entry says so)
7. projections `projection_mismatch`: a query column differs from what body and disclosures say
Then, over the whole log, by `Checker.finish`: `truncated`, `head_mismatch`, `root_mismatch`.

Receipts are a projection too: each repeats the header of its entry. The store compares them (`verify` says how), and
`Checker.receipt_fault` records what it found, as `projection_mismatch` with found "receipt".
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast

import orjson

from audit_service.core import chain
from audit_service.core.canonical import JSONValue
from audit_service.core.entry import GROUPS, SALT_BYTES, JSONObject, Projection, disclosure_hash, project
from audit_service.core.explanation import Explanations
from audit_service.core.merkle import Frontier
from audit_service.errors import ProofError

BreakKind = Literal[
    "header_mismatch", "body_mismatch", "disclosure_mismatch", "projection_mismatch", "link_broken", "gap", "duplicate",
    "time_backwards", "head_mismatch", "truncated", "root_mismatch", "unrecorded_prune", "unrecorded_erasure",
]  # fmt: skip
# chain: headers, links and bodies (steps 1 to 5). all: disclosures and projections too.
Depth = Literal["chain", "all"]
BREAKS_LIMIT = 1000
BODY_VERSION = 1
PROJECTED = Projection._fields


@dataclass(frozen=True, slots=True)
class Break:
    """One thing that does not hold. expected and found are hashes, positions or column names, never values of an event."""

    seq: int
    kind: BreakKind
    expected: str | int | None
    found: str | int | None


@dataclass(frozen=True, slots=True)
class Head:
    """The head row as stored. `frontier` is 32 bytes for each set bit of `size`. None: the column cannot be read."""

    service_name: str
    log_key: str
    epoch: int | None
    size: int
    last_hash: bytes | None
    last_recorded_at: datetime | None
    frontier: bytes | None
    pruned_before: int | None = 0

    def is_origin(self, origin: str) -> bool:
        """Whether an origin is this log's, in any epoch."""
        start, _, epoch = origin.rpartition("/")
        return f"{start}/" == self.origin("") and epoch.isdecimal()

    def origin(self, epoch: int | str) -> str:
        """The origin of entries of an epoch; not validated, so that a tampered name shows as mismatching headers."""
        return f"{self.service_name}/t/{self.log_key}/{epoch}"


@dataclass(slots=True)
class Checker:
    """The state of a verification. Start it at seq 0, or elsewhere with hash, time and epoch of the entry before.

    `prev_hash`, `last_epoch`: None where the entry before is not known, so that nothing can be asked of the next. `frontier`: of the
    tree at `from_seq`, where that is known. `sizes`: at which the root is noted in `roots` when they are reached.
    """

    head: Head
    from_seq: int = 0
    prev_hash: bytes | None = None
    last_us: int = 0
    last_epoch: int | None = None
    depth: Depth = "all"
    explanations: Explanations = field(default_factory=Explanations)
    frontier: InitVar[Frontier | None] = None
    sizes: InitVar[Iterable[int]] = ()
    roots: dict[int, bytes] = field(init=False, default_factory=dict)
    erased: int = field(init=False, default=0)
    dropped: int = field(init=False, default=0)
    expected_seq: int = field(init=False)
    count: int = field(init=False, default=0)
    breaks: list[Break] = field(init=False, default_factory=list)
    breaks_total: int = field(init=False, default=0)
    not_checked: list[str] = field(init=False, default_factory=list)
    receipts: int = field(init=False, default=0)  # of how many entries the receipt was found right
    # Seqs whose receipt is named already, so that the search for strays does not name it again.
    receipt_faults: set[int] = field(init=False, default_factory=set)
    _frontier: Frontier | None = field(init=False)
    _sizes: deque[int] = field(init=False)

    def __post_init__(self, frontier: Frontier | None, sizes: Iterable[int]) -> None:
        self.expected_seq = self.from_seq
        self._frontier = Frontier() if self.from_seq == 0 else frontier
        if self.from_seq == 0:
            self.prev_hash = chain.genesis_hash(self.head.origin(1))
            self.last_epoch = 1
        self._sizes = deque(sorted(size for size in {*sizes} if size >= self.from_seq))
        self._grow([])

    def check(self, row: Any) -> None:
        """Steps 1 to 7 for the next row in seq order."""
        seq: int = row.seq
        self.count += 1
        # 1. position
        if seq > self.expected_seq:
            self._gap(seq)
        elif seq < self.expected_seq:
            self._break(seq, "duplicate", self.expected_seq, seq)
            return
        self.expected_seq = seq + 1
        header_parts = (row.recorded_at, row.epoch, row.kind, row.prev_hash, row.body_hash, row.hash)
        if None in header_parts or row.recorded_at.tzinfo is None:  # a time beyond the calendar comes without a zone
            self._lost_header(seq)
            return
        # 2. header
        at_us = microseconds(row.recorded_at)
        header = chain.header_bytes(self.head.origin(row.epoch), seq, at_us, row.kind, row.prev_hash, row.body_hash)
        hashed = chain.entry_hash(header)
        if hashed != row.hash:
            self._break(seq, "header_mismatch", hashed.hex(), row.hash.hex())
        self._check_epoch(row)
        # 3. link
        if self.prev_hash is not None and row.prev_hash != self.prev_hash:
            self._break(seq, "link_broken", self.prev_hash.hex(), row.prev_hash.hex())
        self.prev_hash = row.hash
        self._grow([hashed])
        # 4. time
        if at_us < self.last_us:
            self._break(seq, "time_backwards", self.last_us, at_us)
        self.last_us = at_us
        # 5 to 7
        self._check_body(row)

    def passed(self, hashes: Sequence[bytes], *, last_us: int) -> None:
        """The next rows, checked in one go (`core.batch`): nothing breaks in them. Their hashes, and the time of the last one."""
        self.count += len(hashes)
        self.expected_seq += len(hashes)
        self.prev_hash, self.last_us = hashes[-1], last_us
        self._grow(hashes)

    def misses(self, row: Any) -> bool:
        """Whether something of a row is gone that no control entry explains; what cannot be read misses nothing."""
        if row.body is None:
            return not self.explanations.explains_body(row.seq)
        try:
            commitments = orjson.loads(row.body).get("sd") or {}
            return self.depth == "all" and any(
                getattr(row, f"d_{group}", None) is None and not self.explanations.explains(row.seq, group, committed)
                for group, committed in commitments.items()
            )
        except (orjson.JSONDecodeError, AttributeError):
            return False

    def broken(self, item: Break) -> None:
        """Something that was found beside the rows."""
        self._break(item.seq, item.kind, item.expected, item.found)

    def duplicates(self, seq: int, copies: int) -> None:
        """`copies` more rows have the seq of one that was checked."""
        for _ in range(copies):
            self.count += 1
            self._break(seq, "duplicate", self.expected_seq, seq)

    def head_fault(self, found: str) -> None:
        """A column of the head row that cannot be what it says."""
        self._break(self._last_seq(), "head_mismatch", "a head row that can be read", found)

    def receipt_fault(self, seq: int, expected: str) -> None:
        """The receipt of the entry at `seq` does not say what the entry does, or names a seq that is not its own."""
        if seq not in self.receipt_faults:
            self._break(seq, "projection_mismatch", expected, "receipt")
        if len(self.receipt_faults) < BREAKS_LIMIT:
            self.receipt_faults.add(seq)

    def _check_epoch(self, row: Any) -> None:
        """The epoch of the entry before (1 at seq 0), or one more with kind `resume`: else who can re-hash could jump to any."""
        before, self.last_epoch = self.last_epoch, row.epoch
        raised = row.seq > 0 and row.kind == "resume" and before is not None and row.epoch == before + 1
        if before is not None and row.epoch != before and not raised:
            self._break(row.seq, "header_mismatch", f"epoch {before}", f"epoch {row.epoch}")

    def _lost_header(self, seq: int) -> None:
        self._break(seq, "header_mismatch", "a whole header", None)
        self.prev_hash = self.last_epoch = None
        self._frontier = None

    def _gap(self, seq: int) -> None:
        self._break(self.expected_seq, "gap", self.expected_seq, seq)
        # What stood in the gap is unknown, so neither the next link and epoch nor the root can be checked.
        self.prev_hash = self.last_epoch = None
        self._frontier = None

    def _grow(self, hashes: Sequence[bytes]) -> None:
        """Add leaves to the tree, noting its root at the sizes asked for."""
        tree = self._frontier
        if tree is None:
            return
        while self._sizes and self._sizes[0] <= tree.size + len(hashes):
            size = self._sizes.popleft()
            before = size - tree.size
            tree.extend(hashes[:before])
            hashes = hashes[before:]
            self.roots[size] = tree.root()
        tree.extend(hashes)

    def _check_body(self, row: Any) -> None:
        body_text = row.body
        if body_text is None:
            self._check_dropped(row)
            return
        digest = chain.body_hash(body_text)
        if digest != row.body_hash:
            self._break(row.seq, "body_mismatch", row.body_hash.hex(), digest.hex())
        if self.depth == "all":
            self._check_contents(row, body_text, genuine=digest == row.body_hash)

    def _check_dropped(self, row: Any) -> None:
        """A body that is gone is explained, or is not; where it is, nothing else may be left. Only events are ever dropped."""
        if row.kind != "event" or not self.explanations.explains_body(row.seq):
            self._break(row.seq, "unrecorded_erasure", "body", None)
            return
        self.dropped += 1
        if self.depth == "chain":
            return
        for group in GROUPS:
            if getattr(row, f"d_{group}") is not None:
                self._break(row.seq, "disclosure_mismatch", f"{group}: dropped", f"{group}: a disclosure")
        for name in PROJECTED:
            if getattr(row, name) is not None:
                self._break(row.seq, "projection_mismatch", f"{name}: dropped", name)

    def _check_contents(self, row: Any, body_text: str, *, genuine: bool) -> None:
        try:
            body = orjson.loads(body_text)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            if genuine:
                self._not_checked(f"seq {row.seq}: the body is not a JSON object")
            return
        if body.get("v") != BODY_VERSION:
            self._not_checked(f"seq {row.seq}: unknown body version")
            return
        values = self._check_disclosures(row, body)
        self._check_projection(row, body, values)

    def _check_disclosures(self, row: Any, body: JSONObject) -> JSONObject:
        """The values that may be trusted: those whose commitment holds."""
        sd = body.get("sd")
        commitments = sd if isinstance(sd, dict) else {}
        values: JSONObject = {}
        for group in (*GROUPS, *(set(commitments) - set(GROUPS))):
            committed = commitments.get(group)
            stored: bytes | None = getattr(row, f"d_{group}", None)
            if stored is None:
                if committed is not None:
                    self._check_erased(row.seq, group, committed)
                continue
            found = disclosure_hash(group, stored).hex()
            if found != committed:
                expected = committed if isinstance(committed, str) else "no commitment"
                self._break(row.seq, "disclosure_mismatch", f"{group}: {expected}", f"{group}: {found}")
                continue
            try:
                values[group] = cast("JSONValue", orjson.loads(memoryview(stored)[SALT_BYTES:]))
            except orjson.JSONDecodeError:
                self._not_checked(f"seq {row.seq}: the disclosure {group} is not JSON")
        return values

    def _check_erased(self, seq: int, group: str, committed: JSONValue) -> None:
        if self.explanations.explains(seq, group, committed):
            self.erased += 1
        else:
            self._break(seq, "unrecorded_erasure", group, None)

    def _check_projection(self, row: Any, body: JSONObject, values: JSONObject) -> None:
        try:
            expected = project(body, values)
        except (ValueError, KeyError, TypeError, AttributeError):
            self._not_checked(f"seq {row.seq}: body or disclosures cannot be projected")
            return
        for name in PROJECTED:
            if not _same(name, getattr(expected, name), getattr(row, name)):
                self._break(row.seq, "projection_mismatch", f"{name} as in body and disclosures", name)

    def finish(self, to_seq: int, stored: range) -> None:
        """The checks over the whole log. `to_seq`: where the check was to end; `stored`: from the first seq in the table to
        the last, without what was appended since the head was read."""
        if self.expected_seq < to_seq:
            self._break(self.expected_seq, "truncated", to_seq, self.expected_seq)
            self.prev_hash = None
            self._frontier = None
        self._check_resumptions()
        if to_seq < self.head.size:
            self._not_checked("head and root: the range ends before the log does")
            return
        if stored.start < 0:
            self._break(stored.start, "head_mismatch", 0, stored.start)
        if stored.stop > self.head.size:
            self._break(self.head.size, "head_mismatch", self.head.size, stored.stop)
        self._check_head()
        if self._frontier is None:
            self._not_checked("root: not every entry from seq 0 on was read")
        elif self._frontier.to_bytes() != self.head.frontier:
            self._break(self._last_seq(), "root_mismatch", self._frontier.root().hex(), _root(self.head))

    def _check_resumptions(self) -> None:
        """A resume entry says with which size and root the log went on."""
        for seq, resumption in self.explanations.resumptions.items():
            root = self.roots.get(resumption.size)
            if root is not None and root != resumption.root:
                self._break(seq, "root_mismatch", resumption.root.hex(), root.hex())

    def _check_head(self) -> None:
        head = self.head
        last_us = None if head.last_recorded_at is None else microseconds(head.last_recorded_at)
        found: dict[str, bytes | int | None] = {
            "last_hash": head.last_hash, "epoch": head.epoch, "last_recorded_at": last_us,
        }  # fmt: skip
        expected: dict[str, bytes | int | None] = {
            "last_hash": self.prev_hash,
            "epoch": self.last_epoch,
            "last_recorded_at": self.last_us,
        }
        # Whoever starts behind the last entry knows its time, and its epoch with it.
        at_end = self.expected_seq == head.size and (self.count or not head.size or self.last_us)
        for name, stored in found.items():
            wanted = expected[name]
            # What came before the end decides the hash; epoch and time are those of the last entry itself.
            known = self.prev_hash is not None and wanted is not None and (at_end or name == "last_hash")
            if stored is None or (known and stored != wanted):
                self._break(
                    self._last_seq(), "head_mismatch", _told(name, wanted if known else "any"), _told(name, stored)
                )

    def _last_seq(self) -> int:
        return max(self.head.size - 1, 0)

    def root(self) -> bytes | None:
        """The Merkle root over what was read; None unless everything from seq 0 on was."""
        return None if self._frontier is None else self._frontier.root()

    def frontier_bytes(self) -> bytes | None:
        """The tree over what was read, as `Frontier.to_bytes` has it; None where `root` is."""
        return None if self._frontier is None else self._frontier.to_bytes()

    def _break(self, seq: int, kind: BreakKind, expected: str | int | None, found: str | int | None) -> None:
        self.breaks_total += 1
        if len(self.breaks) < BREAKS_LIMIT:
            self.breaks.append(Break(seq, kind, expected, found))

    def _not_checked(self, what: str) -> None:
        if len(self.not_checked) < BREAKS_LIMIT:
            self.not_checked.append(what)


def microseconds(at: datetime) -> int:
    """Whole microseconds since the Unix epoch, exactly (a float would miss some)."""
    # The driver brings infinity as the calendar's end, without a zone.
    delta = (at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _same(name: str, expected: object, found: object) -> bool:
    # An address compares by its text: one that was given a netmask comes back as another type.
    return expected == found or (name == "ip" and str(expected) == str(found))


def _root(head: Head) -> str | None:
    try:
        return None if head.frontier is None else Frontier.from_bytes(head.size, head.frontier).root().hex()
    except ProofError:
        return None


def _told(name: str, value: bytes | int | str | None) -> str:
    """A column of the head in a break: hashes as they are, the others with their name."""
    return value.hex() if isinstance(value, bytes) else f"{name} {'unreadable' if value is None else value}"


def genuine_body(head: Head, row: Any) -> JSONObject | None:
    """The body of an entry that is looked at by itself; None unless header and body are what their hashes say."""
    parts = (row.recorded_at, row.epoch, row.kind, row.prev_hash, row.body_hash, row.hash, row.body)
    if None in parts or row.recorded_at.tzinfo is None:
        return None
    at_us = microseconds(row.recorded_at)
    header = chain.header_bytes(head.origin(row.epoch), row.seq, at_us, row.kind, row.prev_hash, row.body_hash)
    if chain.entry_hash(header) != row.hash or chain.body_hash(row.body) != row.body_hash:
        return None
    try:
        body = orjson.loads(row.body)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None
