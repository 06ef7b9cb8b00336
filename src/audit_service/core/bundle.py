r"""Writes a bundle of evidence: a zip file that anybody with the log's public key can check offline (DESIGN 3.5).

Its members, in this order:

- `entries.ndjson`: a line for each entry of [from_seq, to_seq), each ended by LF, exactly what was hashed:
  `{"seq":0,"header":"audit-service/entry/v1\n…","body":"{…}","disclosures":{"ip":["<base64 of the salt>","<JSON text>"]}}`. `body` is null
  where it was dropped. Where whoever asked may not see what the service notes of itself, such an entry has no disclosures, and
  `"withheld":["actor",…]` names those that it has in the log. A filtered bundle has the selected entries only, each with
  `"inclusion":["<base64>",…]`, leaf to root.
- `controls.ndjson`: lines with inclusion, too: the control entries up to the checkpoint's size that touch the range. They say what was
  dropped and erased, and stand here because they come after what they explain.
- `proof.json`: `{"from_seq","to_seq","size","left","right"}`, the range proof in the tree of `size`. Not in a filtered bundle, which proves
  that each entry is in the log, and not that none is missing.
- `checkpoint`: the signed note, byte for byte.
- `manifest.json`: what the bundle claims, and length and SHA-256 of every other member. Nobody signs it.

What goes in is checked first: an entry whose header does not hash to what the tree holds, or a range that does not lead to the checkpoint's
root, raises ProofError, and there is no bundle. Memory is constant: the zip file comes out as it is written, with its lengths behind each
member and its directory at the end, so that one that was cut cannot be opened.
"""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import orjson

from audit_service.core.chain import entry_hash, format_origin, header_bytes
from audit_service.core.checker import microseconds
from audit_service.core.entry import GROUPS, SALT_BYTES, format_time
from audit_service.core.merkle import (
    Frontier,
    HashReader,
    Node,
    RangeProof,
    RootMismatchError,
    check_inclusion,
    cover,
    prove_inclusion,
)
from audit_service.core.sight import OWN_PREFIX
from audit_service.core.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, partial_tiles, tile_rows, tiles_reader
from audit_service.core.zip_stream import ZipStream
from audit_service.errors import ProofError

FORMAT = "audit-service/evidence/v1"
COMPLETE, FILTERED = "proven", "not proven: filtered"
# Of the tree above single tiles; what lies below is needed for a few entries in a row.
_KEPT_LEVEL = 8
_KEPT_NODES = 50_000

Row = Sequence[Any]


class Bundle:
    """One bundle, written piece by piece: `begin`, any number of `entries`, then of `controls`, `end`. What each returns is the next piece
    of the file and may be empty. Raises ProofError when the log does not bear out what is written."""

    def __init__(
        self,
        *,
        name: str,
        from_seq: int,
        to_seq: int,
        size: int,
        root: bytes,
        note: str,
        pruned_before: int,
        created_at: Any,
        filters: str | None = None,
        left: Sequence[bytes] = (),
        own_entries: bool = True,
    ) -> None:
        """`name`: the log's origin without the epoch. `size`, `root`, `note`: the checkpoint's. `left`: the frontier at `from_seq`, in a
        bundle of a whole range. `created_at`: an aware datetime. `own_entries`: whether what the service notes of itself is disclosed."""
        self._service_name, _, self._log_key = name.rpartition("/t/")
        self._from_seq, self._to_seq, self._size, self._root = from_seq, to_seq, size, root
        self._note, self._pruned_before, self._created_at, self._filters = note, pruned_before, created_at, filters
        self._left, self._own_entries = tuple(left), own_entries
        self._frontier = Frontier(from_seq, left) if filters is None else None
        self._paths = _Paths(size)
        self._kinds: Counter[str] = Counter()
        self._members: dict[str, dict[str, Any]] = {}
        self._zip = ZipStream(created_at.timetuple()[:6])

    def begin(self) -> bytes:
        """What stands before the first entry."""
        self._zip.open("entries.ndjson")
        return self._zip.taken()

    def entries(self, rows: Sequence[Row], tiles: Mapping[Tile, bytes] | None = None) -> bytes:
        """The next entries, as rows that begin with the columns of `store.rows.EVENT_COLUMNS`; for a filtered bundle with the tiles their
        inclusion proofs need."""
        for row in rows:
            self._kinds[row[_KIND]] += 1
        self._zip.write(self._lines(rows, tiles))
        return self._zip.taken()

    def controls(self, rows: Sequence[Row], tiles: Mapping[Tile, bytes]) -> bytes:
        """The next control entries."""
        self._begin_controls()
        reader = self._paths.reader(tiles)
        self._zip.write(b"".join([self._line(row, reader) for row in rows]))
        return self._zip.taken()

    def end(self, right: Sequence[bytes]) -> bytes:
        """The rest of the file. `right`: the hashes of the cover of [to_seq, size)."""
        self._begin_controls()
        self._close()
        if self._frontier is not None:
            self._check_range(right)
            self._add("proof.json", orjson.dumps(self._proof(RangeProof(self._left, tuple(right)))))
        self._add("checkpoint", self._note.encode())
        manifest = self._manifest()
        digest = sha256(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)).hexdigest()
        self._zip.open("manifest.json")
        self._zip.write(orjson.dumps({**manifest, "digest": digest}))
        self._zip.close()
        self._zip.end()
        return self._zip.taken()

    def _lines(self, rows: Sequence[Row], tiles: Mapping[Tile, bytes] | None) -> bytes:
        reader = None if self._frontier is not None else self._paths.reader(tiles or {})
        return b"".join([self._line(row, reader) for row in rows])

    def _line(self, row: Row, reader: HashReader | None) -> bytes:
        seq, header = row[_SEQ], self._header(row)
        leaf = entry_hash(header)
        if leaf != row[_HASH]:
            raise ProofError(f"the header of seq {seq} does not hash to what is stored")
        disclosures = _disclosures(row)
        line = {"seq": seq, "header": header.decode(), "body": row[_BODY], "disclosures": disclosures}
        if disclosures and not self._own_entries and _is_own_event(row[_KIND], row[_BODY]):
            line |= {"disclosures": {}, "withheld": [*disclosures]}
        if reader is None:
            assert self._frontier is not None  # noqa: S101 - a bundle has one or the other
            if self._frontier.size != seq:
                raise ProofError(f"the entry of seq {self._frontier.size} is missing")
            self._frontier.append(leaf)
        else:
            path = prove_inclusion(seq, self._size, reader)
            check_inclusion(leaf, seq, self._size, path, self._root)
            line["inclusion"] = [_base64(one) for one in path]
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)

    def _header(self, row: Row) -> bytes:
        try:
            origin = format_origin(self._service_name, self._log_key, row[_EPOCH])
            at_us = microseconds(row[_RECORDED_AT])
            return header_bytes(origin, row[_SEQ], at_us, row[_KIND], row[_PREV_HASH], row[_BODY_HASH])
        except (TypeError, ValueError, AttributeError, OverflowError):
            raise ProofError(f"the header of seq {row[_SEQ]} is damaged") from None

    def _begin_controls(self) -> None:
        if "entries.ndjson" not in self._members:
            self._close()
            self._zip.open("controls.ndjson")

    def _check_range(self, right: Sequence[bytes]) -> None:
        frontier = self._frontier
        assert frontier is not None  # noqa: S101 - the caller's condition
        if frontier.size != self._to_seq:
            raise ProofError(f"the entries end at seq {frontier.size}")
        for (level, _), subtree in zip(cover(self._to_seq, self._size), right, strict=True):
            frontier.append_subtree(level, subtree)
        if frontier.root() != self._root:
            raise RootMismatchError(self._root, frontier.root())

    def _proof(self, proof: RangeProof) -> dict[str, Any]:
        positions = {"from_seq": self._from_seq, "to_seq": self._to_seq, "size": self._size}
        return {**positions, "left": [*map(_base64, proof.left)], "right": [*map(_base64, proof.right)]}

    def _manifest(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "origin": self._note.partition("\n")[0],
            "from_seq": self._from_seq,
            "to_seq": self._to_seq,
            "size": self._size,
            "count": self._kinds.total(),
            "kinds": dict(sorted(self._kinds.items())),
            "filters": self._filters,
            "completeness": COMPLETE if self._filters is None else FILTERED,
            "pruned_before": self._pruned_before or None,
            "created_at": format_time(self._created_at),
            "members": self._members,
        }

    def _add(self, name: str, content: bytes) -> None:
        self._zip.open(name)
        self._zip.write(content)
        self._close()

    def _close(self) -> None:
        name, size_bytes, digest = self._zip.close()
        self._members[name] = {"bytes": size_bytes, "sha256": digest}


# Places in a row of EVENT_COLUMNS.
_SEQ, _EPOCH, _RECORDED_AT, _KIND, _PREV_HASH, _BODY_HASH, _HASH, _, _BODY = range(9)
_DISCLOSURES = slice(9, 9 + len(GROUPS))


class _Paths:
    """Readers for many inclusion proofs in one tree. Neighbours share most of their path, so nodes are remembered: those above single tiles
    for the whole bundle, the others for as long as one reader is used."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._above: dict[Node, bytes] = {}

    def reader(self, tiles: Mapping[Tile, bytes]) -> HashReader:
        """A reader over these tiles."""
        read = tiles_reader(self._size, lambda asked: [tiles[tile] for tile in asked])
        within: dict[Node, bytes] = {}

        def remembered(nodes: Sequence[Node]) -> list[bytes]:
            unknown = [node for node in nodes if node not in within and node not in self._above]
            for node, found in zip(unknown, read(unknown), strict=True):
                (self._above if node[0] >= _KEPT_LEVEL else within)[node] = found
            answers = [within[node] if node in within else self._above[node] for node in nodes]
            if len(self._above) > _KEPT_NODES:
                self._above.clear()
            return answers

        return remembered


def _is_own_event(kind: str, body: str | None) -> bool:
    """Whether the service noted it of itself, and not as a control entry. What cannot be told counts."""
    if kind != "event":
        return False
    try:
        return bool(orjson.loads(body or "")["action"].startswith(OWN_PREFIX))
    except (ValueError, LookupError, TypeError, AttributeError):
        return True


def _disclosures(row: Row) -> dict[str, tuple[str, str]]:
    try:
        return {
            group: (_base64(salted[:SALT_BYTES]), salted[SALT_BYTES:].decode())
            for group, salted in zip(GROUPS, row[_DISCLOSURES], strict=True)
            if salted is not None
        }
    except UnicodeDecodeError:
        raise ProofError(f"a disclosure of seq {row[_SEQ]} is damaged") from None


def touches(kind: str, body: str | None, from_seq: int, to_seq: int) -> bool:
    """Whether a control entry says something of the entries [from_seq, to_seq): drops, erasures, holds and prunes that overlap them,
    every change of the key, every prune that tells of some, and every resumption. What cannot be told (a hold on a target, a
    damaged body) counts."""
    try:
        details = orjson.loads(body or "")["details"]
        if kind == "drop":
            return any(low < to_seq and high > from_seq for low, high in details["ranges"])
        if kind == "erase":
            return any(from_seq <= item[0] < to_seq for item in details["items"])
        if kind == "prune":
            return bool(details["cut"] > from_seq) or "successions" in details
        if kind == "hold" and "range" in details:
            low, high = details["range"]
            return bool(low < to_seq and high > from_seq)
    except (ValueError, LookupError, TypeError):
        pass
    return True


def path_tiles(seqs: Iterable[int], size: int) -> list[Tile]:
    """The tiles that inclusion proofs of these entries need, and a few more: those on their paths and those on the tree's border."""
    rows = tile_rows(size)
    found = dict.fromkeys(partial_tiles(size))
    for seq in seqs:
        for row in rows:
            number = seq >> TILE_HEIGHT * (row.level + 1)
            width = TILE_WIDTH if number < row.full else row.partial_width
            if width:
                found[Tile(row.level, number, width)] = None
    return list(found)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
