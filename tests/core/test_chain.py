"""The chain in Python: the golden bytes, and what must hold for any entries."""

import doctest
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import chain
from audit_service.core.merkle import Frontier
from tests.support.intact import naive_frontier, naive_root
from tests.support.vectors import Tree, Vector, load_vectors

VECTORS = load_vectors()
ORIGIN = VECTORS.origin
HASHES = st.binary(min_size=32, max_size=32)
BATCHES = st.lists(st.lists(HASHES, max_size=9), max_size=6)


def ids(vector: Vector) -> str:
    """A vector's name in the report."""
    return f"seq{vector.seq}"


def test_the_examples_of_the_module_hold() -> None:
    """The worked example in the docstring is the format's."""
    assert doctest.testmod(chain).attempted > 0
    assert doctest.testmod(chain).failed == 0


def test_genesis_is_the_golden_one() -> None:
    """What entry 0 names as its predecessor."""
    assert VECTORS.genesis_prev == chain.genesis_hash(ORIGIN)
    assert chain.Head(ORIGIN, 0, VECTORS.genesis_prev, 0, b"") == chain.Head.genesis(ORIGIN)


def test_the_origin_is_the_golden_one() -> None:
    """Service name, log key and epoch make the origin."""
    assert chain.format_origin(VECTORS.service_name, VECTORS.log_key, 1) == ORIGIN


@pytest.mark.parametrize("vector", VECTORS.entries, ids=ids)
def test_header_and_hashes_are_the_golden_ones(vector: Vector) -> None:
    """Body hash, header and entry hash, byte for byte."""
    header = chain.header_bytes(
        ORIGIN, vector.seq, vector.recorded_at_us, vector.kind, vector.prev_hash, vector.body_hash
    )
    assert vector.body_hash == chain.body_hash(vector.body)
    assert vector.header == header
    assert vector.hash == chain.entry_hash(header)


def test_linking_gives_the_golden_chain_and_trees() -> None:
    """One call for each vector: link and head after each are the golden ones."""
    head = chain.Head.genesis(ORIGIN)
    for vector, tree in zip(VECTORS.entries, VECTORS.trees, strict=True):
        (link,), head = chain.link(
            head, [chain.body_hash(vector.body)], recorded_at_us=vector.recorded_at_us, kind=vector.kind
        )
        expected = chain.Link(vector.seq, vector.recorded_at_us, vector.prev_hash, vector.body_hash, vector.hash)
        assert expected == link
        assert chain.Head(ORIGIN, tree.size, vector.hash, vector.recorded_at_us, tree.frontier) == head
        assert tree.root == Frontier.from_bytes(head.size, head.frontier).root()


@pytest.mark.parametrize("tree", VECTORS.trees, ids=lambda tree: f"size{tree.size}")
def test_the_naive_tree_of_the_tests_is_golden_too(tree: Tree) -> None:
    """`assert_log_intact` stands on these two functions."""
    leaves = [vector.hash for vector in VECTORS.entries[: tree.size]]
    assert tree.root == naive_root(leaves)
    assert tree.frontier == b"".join(naive_frontier(leaves))


@given(BATCHES, st.integers(0, 2**53))
def test_linking_in_parts_equals_linking_at_once(batches: list[list[bytes]], at_us: int) -> None:
    """Batch borders leave no trace."""
    in_parts, links = chain.Head.genesis(ORIGIN), []
    for batch in batches:
        more, in_parts = chain.link(in_parts, batch, recorded_at_us=at_us)
        links += more
    every_body = [body for batch in batches for body in batch]
    assert chain.link(chain.Head.genesis(ORIGIN), every_body, recorded_at_us=at_us) == (links, in_parts)


@given(st.lists(HASHES, min_size=1, max_size=40))
def test_links_are_dense_joined_and_in_the_tree(bodies: list[bytes]) -> None:
    """seq counts from 0, prev is the hash before, and the frontier is the naive one."""
    links, head = chain.link(chain.Head.genesis(ORIGIN), bodies, recorded_at_us=7)
    hashes = [link.hash for link in links]
    assert list(range(len(bodies))) == [link.seq for link in links]
    assert [VECTORS.genesis_prev, *hashes[:-1]] == [link.prev_hash for link in links]
    assert bodies == [link.body_hash for link in links]
    assert b"".join(naive_frontier(hashes)) == head.frontier
    assert (len(bodies), hashes[-1]) == (head.size, head.last_hash)


@given(st.lists(st.integers(0, 2**53), min_size=1, max_size=20))
def test_time_never_runs_backwards(clock_us: list[int]) -> None:
    """A clock that was set back repeats the last time."""
    head, latest = chain.Head.genesis(ORIGIN), 0
    for at_us in clock_us:
        latest = max(latest, at_us)
        (link,), head = chain.link(head, [bytes(32)], recorded_at_us=at_us)
        assert latest == link.recorded_at_us == head.last_recorded_at_us


def test_nothing_to_link_leaves_the_head_alone() -> None:
    """An empty call moves neither size nor time."""
    head = chain.Head.genesis(ORIGIN)
    assert chain.link(head, [], recorded_at_us=99) == ([], head)


@given(HASHES, HASHES, st.integers(0, 2**63 - 1), st.integers(0, 2**53), st.data())
def test_flipping_any_bit_of_a_header_changes_the_hash(
    prev: bytes, body: bytes, seq: int, at_us: int, data: st.DataObject
) -> None:
    """There is no bit in the header that does not count."""
    header = chain.header_bytes(ORIGIN, seq, at_us, "event", prev, body)
    bit = data.draw(st.integers(0, len(header) * 8 - 1))
    flipped = bytearray(header)
    flipped[bit // 8] ^= 1 << bit % 8
    assert chain.entry_hash(bytes(flipped)) != chain.entry_hash(header)


PARTS = st.tuples(st.integers(0, 99), st.integers(0, 99), st.sampled_from(["event", "drop", "prune"]), HASHES, HASHES)


@given(PARTS, PARTS)
def test_different_parts_make_different_headers(
    one: tuple[int, int, str, bytes, bytes], other: tuple[int, int, str, bytes, bytes]
) -> None:
    """No two entries share a header: seq 1 at time 23 is not seq 12 at time 3."""
    same = chain.header_bytes(ORIGIN, *one) == chain.header_bytes(ORIGIN, *other)
    assert (one == other) is same


@pytest.mark.parametrize(
    "service_name",
    [
        "",
        "a b",
        "a+b",
        "a\nb",
        "a\tb",
        "a\x00b",
        "a\x7fb",
        "a\u2028b",
        "a\u00a0b",
        "x/t/7f3a9c0d5e6b41728394a5b6c7d8e9f0/1\n",
    ],
)
def test_a_name_that_could_break_a_header_line_is_refused(service_name: str) -> None:
    """No space, plus sign or control character gets into an origin."""
    with pytest.raises(ValueError, match="origin"):
        chain.format_origin(service_name, VECTORS.log_key, 1)


@pytest.mark.parametrize("log_key", ["", "7f", VECTORS.log_key.upper(), VECTORS.log_key + "0", VECTORS.log_key + "\n"])
def test_a_log_key_is_128_bits_of_lower_case_hex(log_key: str) -> None:
    """One spelling only."""
    with pytest.raises(ValueError, match="origin"):
        chain.format_origin(VECTORS.service_name, log_key, 1)


@pytest.mark.parametrize("epoch", [0, -1])
def test_epochs_count_from_one(epoch: int) -> None:
    """There is no epoch 0."""
    with pytest.raises(ValueError, match="origin"):
        chain.format_origin(VECTORS.service_name, VECTORS.log_key, epoch)


@pytest.mark.parametrize(
    "change",
    [
        {"origin": ORIGIN[:-1] + "2"},
        {"size": 2},
        {"last_hash": bytes(32)},
        {"last_recorded_at_us": 2**52},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_of_the_head_counts(change: dict[str, object]) -> None:
    """Another origin, position, predecessor or time gives another hash for the same body."""
    head = chain.link(chain.Head.genesis(ORIGIN), [bytes(32)], recorded_at_us=5)[1]
    other = replace(head, **change)  # type: ignore[arg-type]
    (link,), _ = chain.link(head, [bytes(32)], recorded_at_us=5)
    (elsewhere,), _ = chain.link(other, [bytes(32)], recorded_at_us=5)
    assert link.hash != elsewhere.hash


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_body_hash_is_over_its_utf8_bytes(body: str) -> None:
    """With a prefix of its own, so that no body can pass for something else that is hashed."""
    assert sha256(b"audit-service/body/v1\n" + body.encode()).digest() == chain.body_hash(body)
