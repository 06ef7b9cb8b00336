"""Following a log: what follows is taken in as the naive definitions say, what does not is named at its seq."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core.chain import Head, body_hash, link
from audit_service.core.retrace import Place, Retrace, Row
from audit_service.core.tiles import TileBuilder
from audit_service.errors import ChainBrokenError
from tests.support.intact import naive_frontier, naive_root

SERVICE, KEY = "audit.example.com", "7f3a9c0d5e6b41728394a5b6c7d8e9f0"
START_US = 1795338900000000


@dataclass(frozen=True, slots=True)
class Log:
    """Rows of a log, sealed by the chain's own implementation."""

    rows: list[Row]
    head: Head


def sealed(count: int, *, resumed_at: int | None = None) -> Log:
    """A log of `count` entries, with another epoch from `resumed_at` on."""
    head, rows = Head.genesis(f"{SERVICE}/t/{KEY}/1"), []
    for seq in range(count):
        kind = "resume" if seq == resumed_at else "event"
        if kind == "resume":
            head = Head(f"{SERVICE}/t/{KEY}/2", head.size, head.last_hash, head.last_recorded_at_us, head.frontier)
        body = f'{{"n":{seq},"v":1}}'
        (one,), head = link(head, [body_hash(body)], recorded_at_us=START_US + seq // 2, kind=kind)
        epoch = int(head.origin.rpartition("/")[2])
        rows.append(Row(seq, one.recorded_at_us, epoch, kind, one.prev_hash, one.body_hash, one.hash, body.encode()))
    return Log(rows, head)


def begin() -> Retrace:
    """From the first entry on."""
    return Retrace.genesis(SERVICE, KEY)


@given(count=st.integers(0, 300), cuts=st.lists(st.integers(0, 300), max_size=5), resumed_at=st.integers(1, 400))
def test_a_sound_log_is_followed_in_any_slices(count: int, cuts: list[int], resumed_at: int) -> None:
    log = sealed(count, resumed_at=resumed_at)
    retrace = begin()
    bounds = sorted({0, count, *(min(cut, count) for cut in cuts)})
    for start, end in pairwise(bounds):
        retrace.follow(log.rows[start:end])
    hashes = [row.hash for row in log.rows]
    assert retrace.root() == naive_root(hashes)
    assert retrace.frontier() == b"".join(naive_frontier(hashes))
    assert retrace.place.size == count
    assert retrace.place.last_hash == log.head.last_hash


def test_full_tiles_come_out_and_are_the_hashes() -> None:
    log = sealed(600)
    tiles = begin().follow(log.rows)
    hashes = [row.hash for row in log.rows]
    assert [(tile.level, tile.number, tile.hashes) for tile in tiles] == [
        (0, 0, b"".join(hashes[:256])),
        (0, 1, b"".join(hashes[256:512])),
    ]


def test_a_body_that_is_gone_is_no_matter_of_the_tree() -> None:
    log = sealed(3)
    retrace = begin()
    retrace.follow([row._replace(body=None) for row in log.rows])
    assert retrace.frontier() == log.head.frontier


TAMPERED: list[tuple[str, dict[str, Any], str]] = [
    ("a body", {"body": b'{"v":2}'}, "the body has another hash"),
    ("a body and its hash", {"body": b"{}", "body_hash": body_hash("{}")}, "the header has another hash"),
    ("a time", {"recorded_at_us": START_US + 9}, "the header has another hash"),
    ("a kind", {"kind": "drop"}, "the header has another hash"),
    ("a stored hash", {"hash": bytes(32)}, "the header has another hash"),
    ("a link", {"prev_hash": bytes(32)}, "the header has another hash"),
    ("an epoch", {"epoch": 2}, "epoch 2 after epoch 1"),
    ("an epoch that jumps", {"epoch": 3, "kind": "resume"}, "epoch 3 after epoch 1"),
    ("a lost column", {"prev_hash": None}, "cannot be read"),
    ("a lost hash", {"hash": None}, "the header has another hash"),
]


@pytest.mark.parametrize(("change", "said"), [item[1:] for item in TAMPERED], ids=[item[0] for item in TAMPERED])
def test_a_tampered_row_is_named(change: dict[str, Any], said: str) -> None:
    rows = sealed(5).rows
    rows[3] = rows[3]._replace(**change)
    with pytest.raises(ChainBrokenError, match=f"seq 3: .*{said}"):
        begin().follow(rows)


def test_a_row_that_is_missing_doubled_or_out_of_time_is_named() -> None:
    rows = sealed(5).rows
    with pytest.raises(ChainBrokenError, match="seq 2: missing; the next one is seq 3"):
        begin().follow([*rows[:2], *rows[3:]])
    with pytest.raises(ChainBrokenError, match="seq 3: stored twice"):
        begin().follow([*rows[:3], rows[2]])
    _, head = link(Head.genesis(f"{SERVICE}/t/{KEY}/1"), [body_hash("{}")], recorded_at_us=START_US)
    late = begin()
    late.follow(sealed(1).rows)
    earlier = Head(head.origin, 1, sealed(1).rows[0].hash, 0, head.frontier)
    (one,), _ = link(earlier, [body_hash("{}")], recorded_at_us=START_US - 1)
    row = Row(1, one.recorded_at_us, 1, "event", one.prev_hash, one.body_hash, one.hash, b"{}")
    with pytest.raises(ChainBrokenError, match="seq 1: earlier than the entry before"):
        late.follow([row])


def test_a_rehashed_row_that_does_not_follow_is_named() -> None:
    log = sealed(3)
    other = Head(log.head.origin, 3, bytes(32), log.head.last_recorded_at_us, log.head.frontier)
    (one,), _ = link(other, [body_hash("{}")], recorded_at_us=START_US + 50)
    retrace = begin()
    retrace.follow(log.rows)
    with pytest.raises(ChainBrokenError, match="seq 3: does not follow from the entry before"):
        retrace.follow([Row(3, one.recorded_at_us, 1, "event", one.prev_hash, one.body_hash, one.hash, None)])


def test_the_place_and_the_tree_must_be_of_one_size() -> None:
    with pytest.raises(ValueError, match="another size"):
        Retrace(SERVICE, KEY, Place(1, bytes(32), 0, 1), TileBuilder())
