r"""Following a log from a place that is trusted, and re-deriving every hash on the way: what a signer does before it signs.

Rows go in as they are stored, in the order of seq; full tiles come out, and the tree's root can be asked for after any row. For each row,
in this order: that it is the next one; that its epoch is that of the row before, or one more where the log was resumed; that its header
hashes to the stored hash and names the hash before as its predecessor; that time does not run backwards; and that a body that is there has
the hash the header says. Bodies and disclosures that are gone are no matter of the tree: `core.checker` judges those.

Memory is constant: one hash, and at most 255 hashes for each level of tiles.

>>> from audit_service.core.chain import Head, body_hash, header_bytes, link
>>> head = Head.genesis("audit.example.com/t/7f3a9c0d5e6b41728394a5b6c7d8e9f0/1")
>>> (first,), head = link(head, [body_hash('{"v":1}')], recorded_at_us=1795338900000000)
>>> row = Row(0, first.recorded_at_us, 1, "event", first.prev_hash, first.body_hash, first.hash, b'{"v":1}')
>>> retrace = Retrace.genesis("audit.example.com", "7f3a9c0d5e6b41728394a5b6c7d8e9f0")
>>> retrace.follow([row])
[]
>>> retrace.place.size, retrace.root() == first.hash, retrace.frontier() == head.frontier
(1, True, True)
>>> Retrace.genesis("audit.example.com", "7f3a9c0d5e6b41728394a5b6c7d8e9f0").follow([row._replace(body=b'{"v":2}')])
Traceback (most recent call last):
    ...
audit_service.errors.ChainBrokenError: seq 0: the body has another hash than the header says
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple, NoReturn, TypeAlias

from audit_service.core.chain import BODY_PREFIX, HEADER_VERSION, format_origin, genesis_hash
from audit_service.core.merkle import EMPTY_ROOT, cover, frontier_root
from audit_service.core.tiles import BuiltTile, TileBuilder, tiles_reader
from audit_service.errors import ChainBrokenError

__all__ = ["Place", "Retrace", "Row", "StoredRow"]


class Row(NamedTuple):
    """An entry as it is stored, but for disclosures and projections. `body`: its exact bytes, None where it is gone."""

    seq: int
    recorded_at_us: int
    epoch: int
    kind: str
    prev_hash: bytes
    body_hash: bytes
    hash: bytes
    body: bytes | None


# Anything that unpacks as a Row does: the driver's own rows are not copied.
StoredRow: TypeAlias = Row | tuple[int, int, int, str, bytes, bytes, bytes, bytes | None]


class Place(NamedTuple):
    """Where a log stands after `size` entries: what the next one has to follow from."""

    size: int
    last_hash: bytes
    last_recorded_at_us: int
    epoch: int


class Retrace:
    """The state of following a log. Mutable; to be dropped after an error."""

    __slots__ = ("_builder", "_log_key", "_place", "_service_name")

    def __init__(self, service_name: str, log_key: str, place: Place, builder: TileBuilder) -> None:
        """Go on at `place`, with a builder of the same size. Raises ValueError for a name that no origin can have."""
        format_origin(service_name, log_key, place.epoch)
        if builder.size != place.size:
            raise ValueError("the tree has another size than the place")
        self._service_name, self._log_key = service_name, log_key
        self._place, self._builder = place, builder

    @classmethod
    def genesis(cls, service_name: str, log_key: str) -> "Retrace":
        """From the log's first entry on."""
        first = Place(0, genesis_hash(format_origin(service_name, log_key, 1)), 0, 1)
        return cls(service_name, log_key, first, TileBuilder())

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self._place

    def follow(self, rows: Iterable[StoredRow]) -> list[BuiltTile]:
        """Check the next rows and take them in; the tiles they made full. Raises ChainBrokenError naming the seq."""
        leaves: list[bytes] = []
        seq = self._place.size
        try:
            self._check(rows, leaves)
        except (TypeError, AttributeError):  # a column that is null though it may not be, or of another type
            _break(seq + len(leaves), "a column of the header cannot be read")
        return self._builder.add(leaves)

    def _check(self, rows: Iterable[StoredRow], leaves: list[bytes]) -> None:
        expected, last_hash, last_us, last_epoch = self._place
        prefix = self._prefix(last_epoch)
        for seq, at_us, epoch, kind, prev_hash, body_hash, stored, body in rows:
            if seq != expected:
                _break(expected, f"missing; the next one is seq {seq}" if seq > expected else "stored twice")
            if epoch != last_epoch:
                if kind != "resume" or epoch != last_epoch + 1 or not seq:
                    _break(seq, f"epoch {epoch} after epoch {last_epoch}")
                last_epoch, prefix = epoch, self._prefix(epoch)
            header = f"{prefix}{seq}\n{at_us}\n{kind}\n{prev_hash.hex()}\n{body_hash.hex()}\n"
            found = sha256(b"\x00" + header.encode()).digest()
            if found != stored:
                _break(seq, "the header has another hash than is stored")
            if prev_hash != last_hash:
                _break(seq, "does not follow from the entry before")
            if at_us < last_us:
                _break(seq, "earlier than the entry before")
            if body is not None and sha256(BODY_PREFIX + body).digest() != body_hash:
                _break(seq, "the body has another hash than the header says")
            leaves.append(found)
            expected, last_hash, last_us = seq + 1, found, at_us
        self._place = Place(expected, last_hash, last_us, last_epoch)

    def _prefix(self, epoch: int) -> str:
        return f"{HEADER_VERSION}\n{format_origin(self._service_name, self._log_key, epoch)}\n"

    def frontier(self) -> bytes:
        """As the head row holds it: 32 bytes for each set bit of the size, largest subtree first."""
        return b"".join(self._subtrees())

    def root(self) -> bytes:
        """The root of the tree so far."""
        return frontier_root(self._subtrees()) if self._place.size else EMPTY_ROOT

    def _subtrees(self) -> list[bytes]:
        size, held = self._builder.size, self._builder.partial()
        if not size:
            return []
        # One for each set bit of the size, and so each within the partial tile of its level.
        return list(tiles_reader(size, lambda tiles: [held[tile] for tile in tiles])(cover(0, size)))


def _break(seq: int, what: str) -> NoReturn:
    raise ChainBrokenError(f"seq {seq}: {what}")
