"""Proofs of inclusion and consistency, and one event's proof file, from a log as it is stored.

The order of each:

1. *Root.* What the proof has to lead to: the root in the signed checkpoint of that size; where that size was never signed, or in an earlier
   epoch, the root of the latest checkpoint, by way of a consistency proof; beyond it, the root of the log's head. What was signed before
   a `resume` may be of entries that were lost; it goes with the proof only where it has the same root.
2. *Read.* The few tiles that are needed and that the process does not remember. Steps 1 and 2 are two statements in one short transaction.
3. *Check.* A proof that does not lead to that root is never handed out. What the process remembers of the tree may be that of another time
   (a restore): it is forgotten and all is tried once more, then TreeDamagedError is raised.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core.chain import entry_hash
from audit_service.core.merkle import (
    Frontier,
    HashReader,
    check_consistency,
    check_inclusion,
    cover,
    frontier_root,
    prove_consistency,
    prove_inclusion,
)
from audit_service.core.note import parse_note
from audit_service.core.proof_file import ProofFile, format_proof_file
from audit_service.errors import (
    Fault,
    InvalidQueryError,
    NotSignedError,
    ProofError,
    TreeDamagedError,
    UnavailableError,
)
from audit_service.store.proving import ProofInputs, StoredHeader
from audit_service.store.query import fetch_sound_head
from audit_service.stored_tree import Signed, StoredTree

# How often somebody who waits for a checkpoint looks for it.
WAIT_STEP_SECONDS = 0.2

Proof = TypeVar("Proof")


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That the entry with this leaf hash is at `seq` in the tree of `size`. `header`: None when the entry was pruned; `signed`: the
    checkpoint of that size, None when none was signed."""

    seq: int
    size: int
    leaf: bytes
    hashes: list[bytes]
    root: bytes
    header: bytes | None
    signed: Signed | None


@dataclass(frozen=True, slots=True)
class Consistency:
    """That the tree of `to_size` begins with the tree of `from_size`. `signed`: the checkpoint of `to_size`."""

    from_size: int
    to_size: int
    hashes: list[bytes]
    from_root: bytes
    to_root: bytes
    signed: Signed | None


async def make_inclusion(tree: StoredTree, seq: int, size: int | None = None) -> Inclusion:
    """The proof of one entry: in the tree of the latest checkpoint when no size is given, of the whole log when nothing is signed.

    Raises InvalidQueryError naming a parameter, TreeDamagedError, UnavailableError.
    """
    async with tree.bound() as connection:
        inputs = await tree.fetch_inputs(connection, size=size, seq=seq)
        goal = await _goal(tree, connection, inputs, size, "size")
        if seq >= goal.size:
            raise _invalid("seq", f"must be below the size of the tree, {goal.size}")
        return await _inclusion(tree, connection, goal, seq, inputs.headers)


async def _inclusion(
    tree: StoredTree, connection: AsyncConnection, goal: "_Goal", seq: int, headers: Sequence[StoredHeader]
) -> Inclusion:
    header = await _header(tree, connection, seq, headers)
    leaf = await _pruned_leaf(tree, connection, goal.size, seq) if header is None else entry_hash(header)
    hashes, root = await _proven(
        tree,
        connection,
        goal,
        lambda reader: prove_inclusion(seq, goal.size, reader),
        lambda proof, root: check_inclusion(leaf, seq, goal.size, proof, root),
    )
    return Inclusion(seq, goal.size, leaf, hashes, root, header, goal.signed_as(root))


async def make_consistency(tree: StoredTree, from_size: int, to_size: int | None = None) -> Consistency:
    """That the log only grew from one size to the other, by default the latest checkpoint's. Raises as `make_inclusion`."""
    async with tree.bound() as connection:
        inputs = await tree.fetch_inputs(connection, size=to_size, from_size=from_size)
        goal = await _goal(tree, connection, inputs, to_size, "to_size")
        if not 0 < from_size <= goal.size:
            raise _invalid("from_size", f"must be 1 to {goal.size}; everything begins with the empty tree")
        earlier = tree.opened(inputs.earlier)
        if earlier is not None and goal.latest is not None and not earlier.is_of_epoch(goal.latest):
            earlier = None

        def prove(reader: HashReader) -> tuple[list[bytes], bytes]:
            return prove_consistency(from_size, goal.size, reader), _root(from_size, reader)

        def check(proof: tuple[list[bytes], bytes], root: bytes) -> None:
            # Where the earlier size was signed, that is the root the log has to stand by.
            from_root = proof[1] if earlier is None else earlier.checkpoint.root
            check_consistency(from_size, goal.size, proof[0], from_root, root)

        (hashes, from_root), root = await _proven(tree, connection, goal, prove, check)
    return Consistency(from_size, goal.size, hashes, from_root, root, goal.signed_as(root))


async def make_proof_file(tree: StoredTree, seq: int, *, wait_seconds: float = 0) -> str:
    """The `.tlog-proof` of an entry in the tree of the latest checkpoint, with its header in `extra`.

    Waits up to `wait_seconds` for a checkpoint that covers it, and holds no connection meanwhile; then raises NotSignedError.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds
    while (proof := await _covered(tree, seq)) is None:
        left = deadline - loop.time()
        if left <= 0:
            raise NotSignedError("no signed checkpoint covers the event yet")
        await asyncio.sleep(min(WAIT_STEP_SECONDS, left))
    if proof.signed is None:  # the log was resumed this moment: the proof is not of the tree in that note
        raise NotSignedError("the checkpoint that covered the event was superseded; ask again")
    return format_proof_file(ProofFile(seq, tuple(proof.hashes), parse_note(proof.signed.note), proof.header))


async def _covered(tree: StoredTree, seq: int) -> Inclusion | None:
    """The proof of an entry in the tree of the latest checkpoint; None when that does not cover it."""
    async with tree.bound() as connection:
        inputs = await tree.fetch_inputs(connection, size=None, seq=seq)
        if inputs.latest is None or inputs.latest.size <= seq:
            return None
        goal = await _goal(tree, connection, inputs, None, "size")
        return await _inclusion(tree, connection, goal, seq, inputs.headers)


@dataclass(frozen=True, slots=True)
class _Goal:
    """The tree of `size`, and what it is held against: its own root, or that of the larger tree of `anchor_size`. `signed`: the checkpoint
    of that size; `latest`: the one signed last."""

    size: int
    anchor_size: int
    anchor_root: bytes
    signed: Signed | None
    latest: Signed | None

    def signed_as(self, root: bytes) -> Signed | None:
        """The checkpoint of the size, if it is of the tree with this root."""
        return self.signed if self.signed is not None and self.signed.checkpoint.root == root else None


async def _goal(
    tree: StoredTree, connection: AsyncConnection, inputs: ProofInputs, size: int | None, name: str
) -> _Goal:
    """Step 1. `name`: the parameter to blame for a size the log has not got."""
    latest = tree.opened(inputs.latest)
    if latest is not None and (size is None or size <= latest.size):
        signed = latest if size in {None, latest.size} else tree.opened(inputs.same)
        anchor = signed if signed is not None and signed.is_of_epoch(latest) else latest
        return _Goal(latest.size if size is None else size, anchor.size, anchor.checkpoint.root, signed, latest)
    head = await fetch_sound_head(connection, tree.log_id)
    if size is not None and size > head.size:
        raise _invalid(name, f"must be at most the size of the log, {head.size}")
    try:
        root = Frontier.from_bytes(head.size, head.frontier).root()
    except ProofError:
        raise UnavailableError("the head row of the log is damaged: verify the log, and restore the row") from None
    return _Goal(head.size if size is None else size, head.size, root, None, latest)


async def _header(
    tree: StoredTree, connection: AsyncConnection, seq: int, headers: Sequence[StoredHeader]
) -> bytes | None:
    """The header of an entry; None when it was pruned."""
    if len(headers) == 1:
        return tree.header_from(headers[0])
    head = await fetch_sound_head(connection, tree.log_id)
    if not headers and seq < head.pruned_before:
        return None
    raise TreeDamagedError(f"the entry of seq {seq} is missing, or there twice")


async def _pruned_leaf(tree: StoredTree, connection: AsyncConnection, size: int, seq: int) -> bytes:
    """The leaf hash that only a tile still holds."""
    (leaf,) = await tree.read(connection, size, lambda reader: reader([(0, seq)]))
    return leaf


async def _proven(
    tree: StoredTree,
    connection: AsyncConnection,
    goal: _Goal,
    prove: Callable[[HashReader], Proof],
    check: Callable[[Proof, bytes], None],
) -> tuple[Proof, bytes]:
    """Steps 2 and 3: a proof that holds, and the root of the tree it is in."""

    def prove_all(reader: HashReader) -> tuple[Proof, bytes, list[bytes]]:
        if goal.size == goal.anchor_size:
            return prove(reader), goal.anchor_root, []
        return prove(reader), _root(goal.size, reader), prove_consistency(goal.size, goal.anchor_size, reader)

    for attempt in range(2):
        proof, root, path = await tree.read(connection, goal.anchor_size, prove_all)
        try:
            check_consistency(goal.size, goal.anchor_size, path, root, goal.anchor_root)
            check(proof, root)
        except ProofError:
            tree.forget_cached()
            if attempt:
                break
        else:
            return proof, root
    raise TreeDamagedError(
        f"what is stored does not lead to the root at size {goal.anchor_size}, so there is no proof: verify the log"
    )


def _root(size: int, reader: HashReader) -> bytes:
    return frontier_root(reader(cover(0, size)))


def _invalid(name: str, detail: str) -> InvalidQueryError:
    return InvalidQueryError(f"these parameters are not valid: {name}", [Fault(detail, parameter=name)])
