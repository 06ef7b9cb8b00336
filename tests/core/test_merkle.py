"""The hash tree against a naive transcription of RFC 6962, known answers, golden trees, mutated proofs."""

import doctest
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_service.core import merkle
from audit_service.core.merkle import (
    EMPTY_ROOT,
    Frontier,
    HashReader,
    MalformedProofError,
    Node,
    ProofLengthError,
    ProofPositionError,
    RangeProof,
    RootMismatchError,
    append_leaf,
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
from audit_service.errors import ProofError
from tests.support.naive_merkle import NaiveTree
from tests.support.vectors import load_vectors

SMALL = 130
LARGE = 2500
DATA = [str(index).encode() for index in range(LARGE)]
LEAVES = [leaf_hash(data) for data in DATA]
NAIVE = NaiveTree(DATA)
READER = leaves_reader(LEAVES)

KNOWN_ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "db3426e878068d28d269b6c87172322ce5372b65756d0789001d34835f601c03",
    "cb00989d94a569c0a678ae042b63dcd4625db96440517f37a6eb7976ea24ed4b",
    "725d5230db68f557470dc35f1d8865813acd7ebb07ad152774141decbae71327",
    "9f4a3fc20d4162dc37d4e23d907848731a76043ffff6d69288bf1abfbcff478e",
    "b6748f6ed7a99de7da84fd97e1a3bac6fab8999f4a43695cab9528a2de431147",
)


def flip(value: bytes, bit: int = 0) -> bytes:
    """The same bytes with one bit turned."""
    return value[: bit // 8] + bytes([value[bit // 8] ^ 1 << bit % 8]) + value[bit // 8 + 1 :]


def wrong_hashes(proof: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Proofs of the right shape that say something else: each hash flipped, each two unequal ones swapped."""
    for at, one in enumerate(proof):
        yield [*proof[:at], flip(one, at % 256), *proof[at + 1 :]]
        for other in range(at):
            if proof[other] != one:
                swapped = list(proof)
                swapped[at], swapped[other] = swapped[other], swapped[at]
                yield swapped


def wrong_lengths(proof: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Proofs with one hash dropped, anywhere, or one added, anywhere."""
    for at in range(len(proof)):
        yield [*proof[:at], *proof[at + 1 :]]
    for at in range(len(proof) + 1):
        yield [*proof[:at], leaf_hash(b"added"), *proof[at:]]


def wrong_widths(proof: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Proofs with one hash cut or padded."""
    for at, one in enumerate(proof):
        for resized in (one[:-1], one + b"\x00", b""):
            yield [*proof[:at], resized, *proof[at + 1 :]]


def test_the_worked_example_of_the_module_holds() -> None:
    """The format page of the module runs."""
    result = doctest.testmod(merkle)
    assert (result.failed, result.attempted > 5) == (0, True)


@pytest.mark.parametrize(("size", "root"), list(enumerate(KNOWN_ROOTS)))
def test_roots_are_the_known_answers(size: int, root: str) -> None:
    """The published roots over the leaves `0`, `1`, `2`, …"""
    frontier = Frontier()
    frontier.extend(LEAVES[:size])
    assert root == frontier.root().hex()
    assert root == NAIVE.root(0, size).hex()


def test_proofs_are_the_known_answers() -> None:
    """The published first bytes of one inclusion and one consistency proof."""
    inclusion = [one.hex()[:8] for one in prove_inclusion(2, 5, READER)]
    assert inclusion == ["906c5d24", "cb00989d", "11e1f558"]
    consistency = [one.hex()[:8] for one in prove_consistency(3, 5, READER)]
    assert consistency == ["fa61e3de", "906c5d24", "cb00989d", "11e1f558"]


def test_golden_trees() -> None:
    """The trees an independent program made over real entry headers."""
    vectors = load_vectors()
    frontier = Frontier()
    for entry, tree in zip(vectors.entries, vectors.trees, strict=True):
        frontier.append(leaf_hash(entry.header))
        assert (frontier.size, frontier.root(), frontier.to_bytes()) == (tree.size, tree.root, tree.frontier)
    assert frontier.size > 0


def test_an_empty_tree_has_the_hash_of_nothing() -> None:
    """RFC 6962: MTH({}) = SHA-256()."""
    assert hashlib.sha256().digest() == EMPTY_ROOT
    assert Frontier().root() == EMPTY_ROOT
    assert (Frontier().size, Frontier().hashes, Frontier().to_bytes()) == (0, (), b"")


def test_frontier_equals_the_naive_tree_for_every_size() -> None:
    """Root, bytes and the pure append agree with the recursive definition for 0…130 leaves."""
    frontier = Frontier()
    pure: list[bytes] = []
    for size in range(SMALL + 1):
        assert NAIVE.root(0, size) == frontier.root() == frontier_root(pure)
        assert 32 * size.bit_count() == len(frontier.to_bytes())
        assert b"".join(pure) == frontier.to_bytes()
        assert [NAIVE.root(i << k, (i + 1) << k) for k, i in cover(0, size)] == pure
        again = Frontier.from_bytes(size, frontier.to_bytes())
        assert (size, frontier.hashes) == (again.size, again.hashes)
        pure = append_leaf(pure, size, LEAVES[size])
        frontier.append(LEAVES[size])


def test_append_leaf_leaves_its_argument_alone() -> None:
    """The pure form is pure."""
    before = (LEAVES[0],)
    assert [node_hash(LEAVES[0], LEAVES[1])] == append_leaf(before, 1, LEAVES[1])
    assert (LEAVES[0],) == before


def test_inclusion_equals_the_naive_tree_for_every_size_and_index() -> None:
    """What is proved is the RFC's PATH, and it checks."""
    for size in range(1, SMALL + 1):
        root = NAIVE.root(0, size)
        for index in range(size):
            proof = prove_inclusion(index, size, READER)
            assert NAIVE.path(index, 0, size) == proof
            check_inclusion(LEAVES[index], index, size, proof, root)


def test_consistency_equals_the_naive_tree_for_every_pair_of_sizes() -> None:
    """What is proved is the RFC's PROOF, and it checks."""
    for new_size in range(1, SMALL + 1):
        new_root = NAIVE.root(0, new_size)
        for old_size in range(1, new_size + 1):
            proof = prove_consistency(old_size, new_size, READER)
            assert NAIVE.proof(old_size, new_size) == proof
            check_consistency(old_size, new_size, proof, NAIVE.root(0, old_size), new_root)


def borders(size: int) -> list[int]:
    """Positions in 0…size: every one in a small tree, in a larger one those around powers of two and the end."""
    if size <= 32:
        return list(range(size + 1))
    near = {(1 << k) + off for k in (0, 4, 6, 7) for off in (-1, 0, 1)} | {size - 1, size}
    return sorted(position for position in near if position <= size)


def test_ranges_check_for_every_size() -> None:
    """Also the empty ones, and those that touch either side; both sides are the RFC's tree hashes."""
    for size in range(SMALL + 1):
        root = NAIVE.root(0, size)
        for start in borders(size):
            for end in (position for position in borders(size) if position >= start):
                proof = prove_range(start, end, size, READER)
                assert list(proof.left) == [NAIVE.root(i << k, (i + 1) << k) for k, i in cover(0, start)]
                assert list(proof.right) == [NAIVE.root(i << k, (i + 1) << k) for k, i in cover(end, size)]
                check_range(start, end, size, LEAVES[start:end], proof, root=root)


@given(st.data())
def test_larger_trees_equal_the_naive_one(data: st.DataObject) -> None:
    """Random sizes up to thousands of leaves: inclusion, consistency and ranges."""
    size = data.draw(st.integers(1, LARGE), "size")
    index = data.draw(st.integers(0, size - 1), "index")
    old_size = data.draw(st.integers(1, size), "old_size")
    end = data.draw(st.integers(index, size), "end")
    root = NAIVE.root(0, size)

    inclusion = prove_inclusion(index, size, READER)
    assert NAIVE.path(index, 0, size) == inclusion
    check_inclusion(LEAVES[index], index, size, inclusion, root)

    consistency = prove_consistency(old_size, size, READER)
    assert NAIVE.proof(old_size, size) == consistency
    check_consistency(old_size, size, consistency, NAIVE.root(0, old_size), root)

    check_range(index, end, size, iter(LEAVES[index:end]), prove_range(index, end, size, READER), root=root)


@given(st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_cover_tiles_its_range_with_aligned_subtrees(one: int, other: int) -> None:
    """Without gap or overlap, few of them, and no two that could be one."""
    start, end = sorted((one, other))
    nodes = cover(start, end)
    position = start
    for level, index in nodes:
        assert position == index << level
        position += 1 << level
    assert end == position
    assert len(nodes) <= 2 * 64
    assert not any(a[0] == b[0] and a[1] % 2 == 0 for a, b in pairwise(nodes))


def test_provers_ask_their_reader_at_most_once_and_only_inside_the_tree() -> None:
    """So that a prover costs one query; and a smaller tree is provable while a larger one is stored."""
    asked: list[Sequence[Node]] = []

    def recording(nodes: Sequence[Node]) -> Sequence[bytes]:
        asked.append(nodes)
        assert all((index + 1) << level <= 100 for level, index in nodes)
        return READER(nodes)

    for prove in (
        lambda: prove_inclusion(77, 100, recording),
        lambda: prove_consistency(77, 100, recording),
        lambda: prove_range(13, 77, 100, recording),
    ):
        asked.clear()
        prove()
        assert len(asked) == 1
        assert len(asked[0]) <= 2 * 7
    asked.clear()
    assert [] == prove_inclusion(0, 1, recording) == prove_consistency(64, 64, recording)
    assert RangeProof((), ()) == prove_range(0, 100, 100, recording)
    assert asked == []


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 31, 33, 70])
def test_mutated_inclusion_proofs_are_refused(size: int) -> None:
    """Each hash flipped, swapped, dropped, added, cut; another leaf, index or root."""
    root = NAIVE.root(0, size)
    for index in range(size):
        leaf, proof = LEAVES[index], prove_inclusion(index, size, READER)
        for wrong in wrong_hashes(proof):
            with pytest.raises(RootMismatchError):
                check_inclusion(leaf, index, size, wrong, root)
        for wrong in wrong_lengths(proof):
            with pytest.raises(ProofLengthError):
                check_inclusion(leaf, index, size, wrong, root)
        for wrong in wrong_widths(proof):
            with pytest.raises(MalformedProofError, match="32 bytes"):
                check_inclusion(leaf, index, size, wrong, root)
        with pytest.raises(RootMismatchError):
            check_inclusion(flip(leaf), index, size, proof, root)
        with pytest.raises(RootMismatchError):
            check_inclusion(leaf, index, size, proof, flip(root, 255))
        for other in set(range(size)) - {index}:
            with pytest.raises(ProofError):
                check_inclusion(leaf, other, size, proof, root)


@pytest.mark.parametrize("new_size", [2, 3, 4, 6, 8, 13, 33])
def test_mutated_consistency_proofs_are_refused(new_size: int) -> None:
    """Each hash flipped, swapped, dropped, added, cut; either root another; another old size."""
    new_root = NAIVE.root(0, new_size)
    for old_size in range(1, new_size + 1):
        old_root, proof = NAIVE.root(0, old_size), prove_consistency(old_size, new_size, READER)
        for wrong in wrong_hashes(proof):
            with pytest.raises(RootMismatchError):
                check_consistency(old_size, new_size, wrong, old_root, new_root)
        for wrong in wrong_lengths(proof):
            with pytest.raises(ProofLengthError):
                check_consistency(old_size, new_size, wrong, old_root, new_root)
        for wrong in wrong_widths(proof):
            with pytest.raises(MalformedProofError, match="32 bytes"):
                check_consistency(old_size, new_size, wrong, old_root, new_root)
        with pytest.raises(RootMismatchError):
            check_consistency(old_size, new_size, proof, flip(old_root), new_root)
        with pytest.raises(RootMismatchError):
            check_consistency(old_size, new_size, proof, old_root, flip(new_root))
        for other in set(range(1, new_size + 1)) - {old_size}:
            with pytest.raises(ProofError):
                check_consistency(other, new_size, proof, old_root, new_root)


def accepted_mutations(size: int, one: int, other: int) -> int:
    """How many mutated proofs pass, of an inclusion, a consistency and a range in one tree."""
    root, (low, high) = NAIVE.root(0, size), sorted((one, other))
    path = prove_inclusion(low, size, READER)
    steps, old_root = prove_consistency(high, size, READER), NAIVE.root(0, high)
    around, leaves = prove_range(low, high, size, READER), LEAVES[low:high]
    attempts: list[Callable[[], None]] = []
    for mutate in (wrong_hashes, wrong_lengths, wrong_widths):
        attempts += [partial(check_inclusion, LEAVES[low], low, size, wrong, root) for wrong in mutate(path)]
        attempts += [partial(check_consistency, high, size, wrong, old_root, root) for wrong in mutate(steps)]
        sides = [RangeProof(tuple(wrong), around.right) for wrong in mutate(around.left)]
        sides += [RangeProof(around.left, tuple(wrong)) for wrong in mutate(around.right)]
        attempts += [partial(check_range, low, high, size, leaves, side, root=root) for side in sides]
    return sum(map(passes, attempts))


def passes(check: Callable[[], None]) -> bool:
    """Whether a check is silent."""
    try:
        check()
    except ProofError:
        return False
    return True


@given(st.data())
@settings(max_examples=25)
def test_mutated_proofs_of_larger_trees_are_refused(data: st.DataObject) -> None:
    """Every mutation of proofs at random places in random trees of thousands of leaves."""
    size = data.draw(st.integers(2, LARGE), "size")
    one, other = data.draw(st.integers(1, size - 1), "one"), data.draw(st.integers(1, size - 1), "other")
    assert accepted_mutations(size, one, other) == 0


def test_the_mutations_show_when_roots_are_not_compared() -> None:
    """Control: the same harness without that comparison finds every mutation of the right shape."""
    assert accepted_mutations(1000, 77, 500) == 0
    with patch.object(merkle, "_require_root", lambda *_: None):
        assert accepted_mutations(1000, 77, 500) > 100


def test_a_rewritten_history_shows_only_when_both_roots_are_compared() -> None:
    """Control: a checker that looks at the new root alone takes a forged history's own proof."""
    forged = [*LEAVES[:3], leaf_hash(b"forged"), *LEAVES[4:20]]
    reader = leaves_reader(forged)
    old_root, new_root = NAIVE.root(0, 10), frontier_root(reader(cover(0, 20)))
    compare = merkle._require_root

    def compare_new_roots(expected: bytes, found: bytes) -> None:
        if expected != old_root:
            compare(expected, found)

    check = partial(check_consistency, 10, 20, prove_consistency(10, 20, reader), old_root, new_root)
    assert not passes(check)
    with patch.object(merkle, "_require_root", compare_new_roots):
        assert passes(check)


def test_a_rewritten_history_has_no_consistency_proof() -> None:
    """A log that changed one early entry can not show the old root, whatever honest proof it offers."""
    forged = [*LEAVES[:3], leaf_hash(b"forged"), *LEAVES[4:20]]
    forged_root = frontier_root([leaves_reader(forged)([node])[0] for node in cover(0, 20)])
    proof = prove_consistency(10, 20, leaves_reader(forged))
    with pytest.raises(RootMismatchError) as caught:
        check_consistency(10, 20, proof, NAIVE.root(0, 10), forged_root)
    assert NAIVE.root(0, 10) == caught.value.expected


@pytest.mark.parametrize(("start", "end", "size"), [(0, 5, 5), (2, 5, 9), (3, 8, 21), (16, 20, 33), (7, 7, 12)])
def test_mutated_ranges_are_refused(start: int, end: int, size: int) -> None:
    """A leaf left out, repeated, swapped or changed; either side of the proof touched."""
    root, leaves = NAIVE.root(0, size), LEAVES[start:end]
    proof = prove_range(start, end, size, READER)
    for wrong in wrong_hashes(leaves):
        with pytest.raises(RootMismatchError):
            check_range(start, end, size, wrong, proof, root=root)
    for wrong in wrong_lengths(leaves):
        with pytest.raises(ProofLengthError):
            check_range(start, end, size, wrong, proof, root=root)
    for wrong in wrong_widths(leaves):
        with pytest.raises(MalformedProofError, match="32 bytes"):
            check_range(start, end, size, wrong, proof, root=root)
    for mutate, error in (
        (wrong_hashes, RootMismatchError),
        (wrong_lengths, ProofLengthError),
        (wrong_widths, MalformedProofError),
    ):
        sides = [RangeProof(tuple(wrong), proof.right) for wrong in mutate(proof.left)]
        sides += [RangeProof(proof.left, tuple(wrong)) for wrong in mutate(proof.right)]
        for side in sides:
            with pytest.raises(error):
                check_range(start, end, size, leaves, side, root=root)
    with pytest.raises(RootMismatchError):
        check_range(start, end, size, leaves, proof, root=flip(root))


def test_a_range_that_skips_an_entry_is_refused_at_its_own_claim() -> None:
    """Completeness: with one entry silently missing no shape of the same proof leads to the root."""
    proof = prove_range(4, 9, 20, READER)
    without = [*LEAVES[4:6], *LEAVES[7:9]]
    for end in (8, 9):
        with pytest.raises(ProofError):
            check_range(4, end, 20, without, proof, root=NAIVE.root(0, 20))


def test_a_stream_of_leaves_is_left_at_the_first_too_many() -> None:
    """A stream that never ends is refused, not read."""

    def endless() -> Iterator[bytes]:
        yield from LEAVES[4:10]
        pytest.fail("read beyond the first leaf after the range")

    with pytest.raises(ProofLengthError) as caught:
        check_range(4, 9, 20, endless(), prove_range(4, 9, 20, READER), root=NAIVE.root(0, 20))
    assert (caught.value.expected, caught.value.found) == (5, 6)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (6, 5), (-1, 5), (0, -1)])
def test_an_index_outside_the_tree_is_refused(index: int, size: int) -> None:
    """On both sides."""
    with pytest.raises(ProofPositionError):
        prove_inclusion(index, size, READER)
    with pytest.raises(ProofPositionError):
        check_inclusion(LEAVES[0], index, size, [], LEAVES[0])


@pytest.mark.parametrize(("old_size", "new_size"), [(0, 0), (0, 5), (6, 5), (-1, 5)])
def test_consistency_from_nothing_or_backwards_is_refused(old_size: int, new_size: int) -> None:
    """Anything extends the empty tree, so a proof from it would prove nothing, whatever is in it."""
    with pytest.raises(ProofPositionError):
        prove_consistency(old_size, new_size, READER)
    new_root = NAIVE.root(0, 5)
    for proof in ([], [new_root], prove_consistency(1, 5, READER), prove_inclusion(0, 5, READER)):
        for old_root in (EMPTY_ROOT, new_root):
            with pytest.raises(ProofPositionError):
                check_consistency(old_size, new_size, proof, old_root, new_root)


@pytest.mark.parametrize(("start", "end", "size"), [(-1, 2, 5), (3, 2, 5), (2, 6, 5)])
def test_a_range_outside_the_tree_is_refused(start: int, end: int, size: int) -> None:
    """On both sides."""
    with pytest.raises(ProofPositionError):
        prove_range(start, end, size, READER)
    with pytest.raises(ProofPositionError):
        check_range(start, end, size, [], RangeProof((), ()), root=EMPTY_ROOT)


def test_equal_sizes_need_equal_roots_and_no_hash() -> None:
    """The one consistency proof without a tree to climb."""
    check_consistency(5, 5, [], NAIVE.root(0, 5), NAIVE.root(0, 5))
    with pytest.raises(RootMismatchError):
        check_consistency(5, 5, [], NAIVE.root(0, 4), NAIVE.root(0, 5))
    with pytest.raises(ProofLengthError):
        check_consistency(5, 5, [LEAVES[0]], NAIVE.root(0, 5), NAIVE.root(0, 5))


@pytest.mark.parametrize("width", [0, 31, 33])
def test_roots_and_leaves_of_another_width_are_refused(width: int) -> None:
    """Wherever one is handed in."""
    wrong, right = bytes(width), NAIVE.root(0, 1)
    calls = (
        lambda: check_inclusion(wrong, 0, 1, [], right),
        lambda: check_inclusion(right, 0, 1, [], wrong),
        lambda: check_consistency(1, 1, [], wrong, right),
        lambda: check_consistency(1, 1, [], right, wrong),
        lambda: check_range(0, 1, 1, [right], RangeProof((), ()), root=wrong),
        lambda: Frontier().append(wrong),
        lambda: Frontier().append_subtree(3, wrong),
        lambda: Frontier(1, [wrong]),
    )
    for call in calls:
        with pytest.raises(MalformedProofError):
            call()


@pytest.mark.parametrize("answer", [[], [LEAVES[0]], [LEAVES[0]] * 9, [b"short", *LEAVES[:2]]])
def test_a_reader_that_answers_something_else_is_refused(answer: list[bytes]) -> None:
    """A damaged store must not become a damaged proof."""
    reader: HashReader = lambda _nodes: answer  # noqa: E731 - a one-line fake
    with pytest.raises(MalformedProofError):
        prove_inclusion(2, 7, reader)
    with pytest.raises(MalformedProofError):
        prove_range(1, 5, 7, reader)


@pytest.mark.parametrize(("size", "width"), [(0, 32), (1, 0), (3, 32), (3, 63), (3, 65), (3, 96)])
def test_frontier_bytes_of_another_size_are_refused(size: int, width: int) -> None:
    """32 bytes for each set bit of the size, no more and no less."""
    with pytest.raises(MalformedProofError):
        Frontier.from_bytes(size, bytes(width))


def test_a_frontier_takes_whole_subtrees_only_where_they_fit() -> None:
    """Aligned ones give the same tree as their leaves; others are refused."""
    frontier = Frontier()
    frontier.append_subtree(2, NAIVE.root(0, 4))
    frontier.append_subtree(1, NAIVE.root(4, 6))
    frontier.append_subtree(1, NAIVE.root(6, 8))
    frontier.append_subtree(0, LEAVES[8])
    assert (9, NAIVE.root(0, 9)) == (frontier.size, frontier.root())
    for level in (1, 3, -1):
        with pytest.raises(ProofPositionError):
            frontier.append_subtree(level, LEAVES[0])
    with pytest.raises(ProofPositionError):
        Frontier(-1)
