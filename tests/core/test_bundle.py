"""The writer of bundles by itself: which tiles it needs, what touches a range, constant memory, and refusing what is not so."""

import base64
import io
import json
import tracemalloc
import zipfile
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core.bundle import Bundle, path_tiles, touches
from audit_service.core.chain import Head, body_hash, link
from audit_service.core.entry import GROUPS
from audit_service.core.merkle import RootMismatchError, cover, leaves_reader, prove_inclusion
from audit_service.core.tiles import Tile, TileBuilder, needed_tiles
from audit_service.errors import ProofError
from tests.support.signing import tree_root

NAME = f"audit.example.com/t/{'0' * 32}"
AT = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
AT_US = 1_795_342_500_000_000
BODY = '{"v":1}'


def rows_of(count: int, *, body: str = BODY) -> list[tuple[Any, ...]]:
    """Entries of a log as rows of EVENT_COLUMNS."""
    links, _ = link(Head.genesis(f"{NAME}/1"), [body_hash(body)] * count, recorded_at_us=AT_US)
    nothing = (None,) * len(GROUPS)
    return [(one.seq, 1, AT, "event", one.prev_hash, one.body_hash, one.hash, "id", body, *nothing) for one in links]


def bundle(size: int, root: bytes, *, to_seq: int | None = None, **more: Any) -> Bundle:
    """A writer of a bundle from the log's beginning."""
    end = size if to_seq is None else to_seq
    given: dict[str, Any] = {
        "name": NAME,
        "from_seq": 0,
        "to_seq": end,
        "size": size,
        "root": root,
        "note": f"{NAME}/1\n",
    }
    return Bundle(**given, pruned_before=0, created_at=AT, **more)


def root_of(rows: list[tuple[Any, ...]]) -> bytes:
    """The root over the rows' hashes."""
    return tree_root(tuple(row[6] for row in rows))


def tiles_of_log(rows: list[tuple[Any, ...]]) -> dict[Tile, bytes]:
    """All tiles of a log."""
    builder = TileBuilder()
    built = builder.add(row[6] for row in rows)
    return {Tile(one.level, one.number, 256): one.hashes for one in built} | builder.partial()


@given(st.integers(1, 2**40), st.data())
def test_an_inclusion_proof_never_needs_a_tile_that_was_not_fetched(size: int, data: st.DataObject) -> None:
    seqs = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5))
    fetched = set(path_tiles(seqs, size))
    for seq in seqs:
        assert fetched >= set(needed_tiles(partial(prove_inclusion, seq, size), size))


def test_a_filtered_bundle_has_the_same_proofs_as_a_tree_in_memory() -> None:
    rows = rows_of(700)
    tiles, reader = tiles_of_log(rows), leaves_reader([row[6] for row in rows])
    writer = bundle(700, root_of(rows), filters="action=x")
    pieces = [writer.begin(), writer.entries(rows[3:5], tiles), writer.entries(rows[511:700:7], tiles), writer.end(())]
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        found = [json.loads(line) for line in archive.read("entries.ndjson").splitlines()]
    assert [line["seq"] for line in found] == [3, 4, *range(511, 700, 7)]
    for line in found:
        proof = prove_inclusion(line["seq"], 700, reader)
        assert [base64.b64decode(one) for one in line["inclusion"]] == proof


def test_pieces_of_any_size_make_the_same_members() -> None:
    rows = rows_of(20)
    found = []
    for cut in (1, 7, 20):
        writer = bundle(20, root_of(rows))
        pieces = [writer.begin(), *(writer.entries(rows[at : at + cut]) for at in range(0, 20, cut)), writer.end(())]
        with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
            found.append({name: archive.read(name) for name in archive.namelist()})
    assert found[0] == found[1] == found[2]


def _bad_rows() -> dict[str, list[tuple[Any, ...]]]:
    rows = rows_of(6)
    changed = [*rows]
    changed[2] = (*rows[2][:2], AT.replace(microsecond=1), *rows[2][3:])
    hashed = [*rows]
    hashed[2] = (*rows[2][:6], bytes(32), *rows[2][7:])
    timeless = [*rows]
    timeless[2] = (*rows[2][:2], None, *rows[2][3:])
    unreadable = [*rows]
    unreadable[2] = (*rows[2][:9], bytes(32) + b"\xff", *rows[2][10:])
    return {
        "a header": changed, "a hash": hashed, "no time": timeless, "a disclosure": unreadable,
        "one missing": rows[:2] + rows[3:], "one twice": [*rows[:3], *rows[2:]], "one too few": rows[:-1],
    }  # fmt: skip


@pytest.mark.parametrize("what", list(_bad_rows()))
def test_what_does_not_lead_to_the_root_is_no_bundle(what: str) -> None:
    writer = bundle(6, root_of(rows_of(6)))
    writer.begin()
    with pytest.raises(ProofError):
        _write(writer, _bad_rows()[what])
    _write(bundle(6, root_of(rows_of(6))), rows_of(6), begin=True)


def _write(writer: Bundle, rows: list[tuple[Any, ...]], *, begin: bool = False) -> None:
    if begin:
        writer.begin()
    writer.entries(rows)
    writer.end(())


def test_a_range_that_leads_to_another_root_is_no_bundle() -> None:
    rows = rows_of(6)
    writer = bundle(6, bytes(32), to_seq=4)
    writer.begin()
    writer.entries(rows[:4])
    right = leaves_reader([row[6] for row in rows])(cover(4, 6))
    with pytest.raises(RootMismatchError):
        writer.end(right)


def test_memory_does_not_grow_with_the_bundle() -> None:
    rows = rows_of(20_000, body=json.dumps({"v": 1, "text": "x" * 500}))
    writer = bundle(20_000, root_of(rows))
    writer.begin()
    peaks = []
    tracemalloc.start()
    try:
        for at in range(0, len(rows), 500):
            writer.entries(rows[at : at + 500])
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    assert max(peaks[5:]) < 1.5 * peaks[4]


@pytest.mark.parametrize(
    ("kind", "details", "expected"),
    [
        ("drop", {"ranges": [[0, 10], [20, 30]]}, False),
        ("drop", {"ranges": [[0, 11], [20, 30]]}, True),
        ("drop", {"ranges": [[19, 30]]}, True),
        ("drop", {"ranges": []}, False),
        ("erase", {"items": [[9, "ip", "00"], [20, "ip", "00"]]}, False),
        ("erase", {"items": [[10, "ip", "00"]]}, True),
        ("erase", {"items": [[19, "ip", "00"]]}, True),
        ("prune", {"cut": 10}, False),
        ("prune", {"cut": 11}, True),
        ("prune", {"cut": 10, "successions": []}, True),
        ("hold", {"hold": "h", "state": "set", "range": [0, 10]}, False),
        ("hold", {"hold": "h", "state": "set", "range": [0, 11]}, True),
        ("hold", {"hold": "h", "state": "set"}, True),
        ("hold", {"hold": "h", "state": "lifted"}, True),
        ("signer", {"event": "added"}, True),
        ("resume", {"size": 3}, True),
        ("drop", {"ranges": 7}, True),
        ("drop", None, True),
    ],
)
def test_a_control_entry_touches_what_it_says_something_of(kind: str, details: Any, expected: bool) -> None:
    assert touches(kind, json.dumps({"details": details}), 10, 20) is expected


def test_a_control_entry_that_cannot_be_read_touches_everything() -> None:
    assert touches("drop", None, 10, 20)
    assert touches("drop", "[", 10, 20)
    assert touches("drop", "[]", 10, 20)
