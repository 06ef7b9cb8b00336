"""Tiles against the definition over a naive tree, at a small height so that small trees have many levels."""

import doctest
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import tiles as tiles_module
from audit_service.core.merkle import (
    HashReader,
    MalformedProofError,
    Node,
    ProofPositionError,
    RootMismatchError,
    check_consistency,
    check_inclusion,
    check_range,
    cover,
    frontier_root,
    leaf_hash,
    leaves_reader,
    node_hash,
    prove_consistency,
    prove_inclusion,
    prove_range,
)
from audit_service.core.tiles import (
    TILE_WIDTH,
    Tile,
    TileBuilder,
    TileFetcher,
    TileRow,
    elements,
    has_tile,
    needed_tiles,
    partial_tiles,
    tile_end,
    tile_root,
    tile_rows,
    tiles_of,
    tiles_reader,
)
from tests.support.naive_merkle import NaiveTree

LARGE = 600
DATA = [str(index).encode() for index in range(LARGE)]
LEAVES = [leaf_hash(data) for data in DATA]
NAIVE = NaiveTree(DATA)
READER = leaves_reader(LEAVES)
HEIGHTS = (1, 2, 3)
FAR = 2**63
Prover = Callable[[HashReader], object]


def naive_tile(tile: Tile, height: int) -> bytes:
    """The definition: the tree hashes of runs of `span` leaves."""
    span = 2 ** (height * tile.level)
    first = tile.number * 2**height
    return b"".join(NAIVE.root(i * span, (i + 1) * span) for i in range(first, first + tile.width))


def naive_tiles(size: int, height: int) -> set[Tile]:
    """Every tile of a tree: cut the leaves, then the full pieces, then those, into pieces."""
    found, level, count = set(), 0, size
    while count:
        full, left = divmod(count, 2**height)
        found |= {Tile(level, number, 2**height) for number in range(full)}
        if left:
            found.add(Tile(level, full, left))
        level, count = level + 1, full
    return found


def naive_fetch(height: int) -> TileFetcher:
    """Tiles straight from the definition."""
    return lambda tiles: [naive_tile(tile, height) for tile in tiles]


def nodes_of(size: int) -> list[Node]:
    """Every perfect subtree of a tree."""
    return [(level, index) for level in range(size.bit_length()) for index in range(size >> level)]


def test_the_examples_of_the_module_hold() -> None:
    """The format page of the module runs."""
    result = doctest.testmod(tiles_module)
    assert (result.failed, result.attempted > 5) == (0, True)


def test_the_published_example_of_70_000() -> None:
    """273 full tiles and one of 112 at level 0, one full and one of 17 at level 1, one of 1 at level 2."""
    assert tile_rows(70_000) == [TileRow(0, 273, 112), TileRow(1, 1, 17), TileRow(2, 0, 1)]
    assert partial_tiles(70_000) == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]


@pytest.mark.parametrize(
    ("size", "rows"),
    [
        (0, []),
        (1, [TileRow(0, 0, 1)]),
        (255, [TileRow(0, 0, 255)]),
        (256, [TileRow(0, 1, 0), TileRow(1, 0, 1)]),
        (257, [TileRow(0, 1, 1), TileRow(1, 0, 1)]),
        (65536, [TileRow(0, 256, 0), TileRow(1, 1, 0), TileRow(2, 0, 1)]),
    ],
)
def test_rows_at_the_borders(size: int, rows: list[TileRow]) -> None:
    """One below, at and above a full tile."""
    assert tile_rows(size) == rows


def test_the_largest_log_has_eight_levels() -> None:
    """2^63 entries: the top tile holds 128 hashes."""
    rows = tile_rows(FAR)
    assert (len(rows), rows[-1], rows[0]) == (8, TileRow(7, 0, 128), TileRow(0, 2**55, 0))


@pytest.mark.parametrize("height", HEIGHTS)
def test_rows_and_presence_are_the_definition_for_every_size(height: int) -> None:
    """What there is, at which widths it may be served, and what a tile's hashes are of."""
    for size in range(0, LARGE + 1, 7):
        tiles = naive_tiles(size, height)
        rows = tile_rows(size, height=height)
        listed = {Tile(row.level, number, 2**height) for row in rows for number in range(row.full)}
        assert listed | set(partial_tiles(size, height=height)) == tiles
        widest = {(tile.level, tile.number): tile.width for tile in tiles}
        for level in range(len(rows) + 1):
            for number in range(2 + (size >> height * (level + 1))):
                for width in range(1, 2**height + 1):
                    served = width <= widest.get((level, number), 0)
                    assert has_tile(Tile(level, number, width), size, height=height) == served
        for tile in tiles:
            span = 2 ** (height * tile.level)
            assert tile_end(tile, height=height) == (tile.number + 1) * span * 2**height
            runs = [(number * span, (number + 1) * span) for number in elements(tile, height=height)]
            assert b"".join(NAIVE.root(start, end) for start, end in runs) == naive_tile(tile, height)


@pytest.mark.parametrize("height", HEIGHTS)
def test_a_builder_makes_the_tiles_of_every_size(height: int) -> None:
    """One leaf at a time, 0…600: full tiles when they become full, the partial ones always."""
    builder = TileBuilder(height=height)
    full: set[Tile] = set()
    for size in range(LARGE + 1):
        assert builder.size == size
        state = builder.partial()
        assert full | set(state) == naive_tiles(size, height)
        assert all(hashes == naive_tile(tile, height) for tile, hashes in state.items())
        for one in builder.add(LEAVES[size : size + 1]):
            tile = Tile(one.level, one.number, 2**height)
            assert tile not in full
            assert one.hashes == naive_tile(tile, height)
            end = tile_end(tile, height=height)
            assert one.root == NAIVE.root(end - 2 ** (height * (one.level + 1)), end)
            full.add(tile)


@given(st.sampled_from(HEIGHTS), st.lists(st.integers(0, LARGE), min_size=1, max_size=6))
def test_pieces_of_any_size_make_the_same_tiles(height: int, cuts: list[int]) -> None:
    """A builder that goes on, and a new one from the partial tiles at each cut, say what one call says."""
    whole = TileBuilder(height=height).add(LEAVES[: max(cuts)])
    going_on, found, found_anew = TileBuilder(height=height), [], []
    state: dict[Tile, bytes] = {}
    for start, end in pairwise([0, *sorted(cuts)]):
        found += going_on.add(iter(LEAVES[start:end]))
        anew = TileBuilder(start, state, height=height)
        found_anew += anew.add(LEAVES[start:end])
        state = anew.partial()
    assert found == found_anew == whole
    ends = [(tile_end(Tile(one.level, one.number, 1), height=height), one.level) for one in whole]
    assert ends == sorted(ends)


def test_full_tiles_have_the_format_s_width() -> None:
    """At the real height: 256 hashes of 32 bytes."""
    leaves = [leaf_hash(b"%d" % seq) for seq in range(2 * TILE_WIDTH + 1)]
    builder = TileBuilder()
    built = builder.add(leaves)
    assert [(one.level, one.number, len(one.hashes)) for one in built] == [(0, 0, 8192), (0, 1, 8192)]
    assert [one.hashes for one in built] == [b"".join(leaves[:256]), b"".join(leaves[256:512])]
    assert builder.partial() == {Tile(0, 2, 1): leaves[512], Tile(1, 0, 2): built[0].root + built[1].root}


@pytest.mark.parametrize("wrong", [b"", bytes(31), bytes(33)])
def test_leaves_of_another_width_are_refused(wrong: bytes) -> None:
    """Also behind good ones."""
    for leaves in ([wrong], [LEAVES[0], wrong]):
        with pytest.raises(MalformedProofError):
            TileBuilder().add(leaves)


@pytest.mark.parametrize("width", [0, 9, 11])
def test_a_builder_does_not_go_on_from_another_state(width: int) -> None:
    """A partial tile that is missing, narrower or wider would shift everything after it."""
    assert TileBuilder(10, {Tile(0, 0, 10): bytes(320)}).size == 10
    with pytest.raises(MalformedProofError):
        TileBuilder(10, {Tile(0, 0, 10): bytes(32 * width)} if width else {})


@pytest.mark.parametrize("height", HEIGHTS)
def test_every_subtree_of_every_size_is_read(height: int) -> None:
    """0…600, all perfect subtrees in one call of the fetcher, each tile asked for once and at its width."""
    held: dict[Tile, bytes] = {}
    for size in range(LARGE + 1) if height == 2 else range(0, LARGE + 1, 13):
        tiles = naive_tiles(size, height)
        held = {tile: held.get(tile) or naive_tile(tile, height) for tile in tiles}
        calls: list[Sequence[Tile]] = []
        nodes = nodes_of(size)
        read = tiles_reader(size, recording(held, calls), height=height)(nodes)
        assert read == READER(nodes)
        assert [sorted(tiles)] == [sorted(asked) for asked in calls]


def recording(held: Mapping[Tile, bytes], calls: list[Sequence[Tile]]) -> TileFetcher:
    """A fetcher over tiles in memory that notes what it was asked for."""

    def fetch(tiles: Sequence[Tile]) -> list[bytes]:
        calls.append(tiles)
        return [held[tile] for tile in tiles]

    return fetch


@given(st.data())
def test_proofs_from_tiles_are_proofs_from_leaves(data: st.DataObject) -> None:
    """Inclusion, consistency and ranges; and what was to be fetched was known beforehand."""
    height = data.draw(st.integers(1, 9), "height")
    size = data.draw(st.integers(1, LARGE), "size")
    low, high = sorted((data.draw(st.integers(0, size), "one"), data.draw(st.integers(0, size), "other")))
    provers: list[Prover] = [partial(prove_range, low, high, size), partial(prove_inclusion, min(low, size - 1), size)]
    if low:
        provers.append(partial(prove_consistency, low, high))
    held = {tile: naive_tile(tile, height) for tile in naive_tiles(size, height)}
    for prove in provers:
        calls: list[Sequence[Tile]] = []
        proof = prove(tiles_reader(size, recording(held, calls), height=height))
        assert proof == prove(READER)
        needed = needed_tiles(prove, size, height=height)
        assert calls == ([needed] if needed else [])


@pytest.mark.parametrize("height", HEIGHTS)
def test_nothing_behind_a_cut_needs_tiles_before_it(height: int) -> None:
    """So tiles that end at or before the cut of a pruned log may go."""
    size, most = 97, 0
    for cut in range(size):
        provers: list[Prover] = [partial(prove_inclusion, index, size) for index in range(cut, size)]
        provers += [partial(prove_consistency, old, size) for old in range(max(cut, 1), size + 1)]
        provers += [partial(prove_range, start, size, size) for start in range(cut, size)]
        for prove in provers:
            ends = [tile_end(tile, height=height) for tile in needed_tiles(prove, size, height=height)]
            assert all(end > cut for end in ends)
            most = max(most, len(ends))
    assert most > 3


def constant_subtrees() -> list[bytes]:
    """The root over 2^level equal leaves, for each level: a tree of any size without holding one."""
    roots = [leaf_hash(b"same")]
    while len(roots) <= 63:
        roots.append(node_hash(roots[-1], roots[-1]))
    return roots


CONSTANT = constant_subtrees()


def constant_root(size: int) -> bytes:
    """The root of `size` equal leaves."""
    return frontier_root([CONSTANT[level] for level, _ in cover(0, size)])


def constant_fetch(tiles: Sequence[Tile]) -> list[bytes]:
    """Any tile over equal leaves."""
    return [CONSTANT[8 * tile.level] * tile.width for tile in tiles]


@given(st.integers(1, FAR), st.integers(0, FAR - 1), st.integers(1, FAR))
def test_the_largest_logs_are_proved_from_tiles(size: int, index: int, old_size: int) -> None:
    """Up to 2^63 entries, with two tiles a level."""
    index, old_size = index % size, old_size % size or size
    reader = tiles_reader(size, constant_fetch)
    check_inclusion(CONSTANT[0], index, size, prove_inclusion(index, size, reader), constant_root(size))
    proof = prove_consistency(old_size, size, reader)
    check_consistency(old_size, size, proof, constant_root(old_size), constant_root(size))
    end = min(size, index + 3)
    leaves = [CONSTANT[0]] * (end - index)
    check_range(index, end, size, leaves, prove_range(index, end, size, reader), root=constant_root(size))


@given(st.integers(1, 10_000_000), st.integers(0, 9_999_999))
def test_a_proof_in_ten_million_entries_needs_few_tiles(old_size: int, index: int) -> None:
    """Three levels: at most six for an inclusion or a consistency."""
    size = 10_000_000
    assert len(needed_tiles(partial(prove_inclusion, index, size), size)) <= 6
    assert len(needed_tiles(partial(prove_consistency, old_size, size), size)) <= 6


def test_a_wrong_tile_spoils_the_proof() -> None:
    """Control: every single tile that is fetched matters; one changed bit leads to another root."""
    size, index = 500, 123
    tiles = needed_tiles(partial(prove_inclusion, index, size), size, height=2)
    root = NAIVE.root(0, size)
    assert len(tiles) > 3
    for wrong in (None, *tiles):

        def fetch(asked: Sequence[Tile], wrong: Tile | None = wrong) -> list[bytes]:
            honest = [naive_tile(tile, 2) for tile in asked]
            flipped = [bytes(byte ^ 1 for byte in one) for one in honest]
            return [bad if tile == wrong else good for tile, good, bad in zip(asked, honest, flipped, strict=True)]

        proof = prove_inclusion(index, size, tiles_reader(size, fetch, height=2))
        if wrong is None:
            check_inclusion(LEAVES[index], index, size, proof, root)
        else:
            with pytest.raises(RootMismatchError):
                check_inclusion(LEAVES[index], index, size, proof, root)


@pytest.mark.parametrize(
    "answer", [lambda _: [], lambda tiles: [bytes(32)] * (len(tiles) + 1), lambda tiles: [b""] * len(tiles)]
)
def test_a_store_that_answers_something_else_is_refused(answer: TileFetcher) -> None:
    """A damaged store must not become a damaged proof."""
    with pytest.raises(MalformedProofError):
        prove_inclusion(2, 700, tiles_reader(700, answer))


@pytest.mark.parametrize("node", [(0, 5), (1, 2), (3, 0), (-1, 0), (0, -1), (64, 0)])
def test_subtrees_outside_the_tree_are_refused(node: Node) -> None:
    """A tree of 5 has no sixth leaf and no pair from the fifth on."""
    with pytest.raises(ProofPositionError):
        tiles_of([node], 5)
    with pytest.raises(ProofPositionError):
        tiles_reader(5, constant_fetch)([node])


def test_a_root_over_hashes_is_that_of_the_tree() -> None:
    """For every power of two up to a tile's width."""
    for level in range(9):
        assert tile_root(b"".join(LEAVES[: 1 << level])) == NAIVE.root(0, 1 << level)


def test_the_reader_shows_when_it_looks_at_the_wrong_place() -> None:
    """Control: with positions one off the same comparison fails."""

    def shifted(node: Node, size: int, height: int) -> tuple[Tile, int, int]:
        tile, start, end = located(node, size, height)
        return tile, start + 1, end + 1

    located = tiles_module._locate
    reader: HashReader = tiles_reader(65, naive_fetch(3), height=3)
    with patch.object(tiles_module, "_locate", shifted):
        assert reader([(1, 3)]) != READER([(1, 3)])
    assert reader([(1, 3)]) == READER([(1, 3)])
