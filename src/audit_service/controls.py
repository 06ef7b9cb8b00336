"""Reading a log's control entries for verification: what they explain, and which keys they make trusted.

They are read before the entries they explain, and each is looked at by itself; that they stand in the chain, the verification of the
range they are in finds. Of those behind the range it never comes to, the ones that explain something in it have to be under the root of
the log's head: a chain of hashes says so only when it is followed, and the tree in a dozen of them.
"""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.checker import Head, genuine_body
from audit_service.core.explanation import Explanations
from audit_service.core.merkle import Frontier, check_inclusion, prove_inclusion
from audit_service.core.trust import Trust
from audit_service.errors import MalformedError, ProofError, TreeDamagedError, UnavailableError
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.query import list_controls
from audit_service.store.tiles import TileCache, read_tree

SLICE_CONTROLS = 100


class Controls:
    """What was read so far. `read_to`: control entries before it were; `faults`: seq → why one of them explains nothing."""

    def __init__(
        self, engine: AsyncEngine, log_id: int, trust: Trust, *, from_seq: int, to_seq: int | None = None
    ) -> None:
        """`from_seq`: what explains only entries before it is left out. `to_seq`: where the verification ends, None at the head."""
        self.explanations, self.trust = Explanations(), trust
        self.read_to = 0
        self.faults: dict[int, str] = {}
        self._engine, self._log_id, self._from_seq, self._to_seq = engine, log_id, from_seq, to_seq
        self._head: Head | None = None
        self._behind: dict[int, bytes] = {}

    async def read(self, head: Head) -> AsyncIterator[int]:
        """Read on to the size of `head`: yields where it is, slice by slice."""
        self._head = head
        while self.read_to < head.size:
            async with translated(), bound(self._engine, self._log_id) as connection:
                found = await list_controls(
                    connection,
                    self._log_id,
                    from_seq=self.read_to,
                    to_seq=head.size,
                    explaining_from=self._from_seq,
                    limit=SLICE_CONTROLS,
                )
            for row in found.rows:
                self._take(head, row)
            self.read_to = found.rows[-1].seq + 1 if found.more else head.size
            yield self.read_to

    def _take(self, head: Head, row: Any) -> None:
        """One that is not what its hashes say explains nothing; the verification names it where it meets it."""
        body = genuine_body(head, row)
        if body is None:
            return
        seq, kind, epoch = row.seq, row.kind, row.epoch
        try:
            if kind == "signer":
                self.trust.add(body, head.origin(epoch))
            else:
                self.explanations.add(kind, seq, body)
                if self._to_seq is not None and seq >= self._to_seq and self._touches(kind, body, self._to_seq):
                    self._behind[seq] = row.hash
            if kind == "prune":
                self.trust.add_kept(body, head.origin)
        except MalformedError as error:
            self.faults[seq] = str(error)

    def _touches(self, kind: str, body: Any, to_seq: int) -> bool:
        """Whether it explains anything within the range."""
        details = body["details"]
        if kind == "drop":
            return any(start < to_seq and end > self._from_seq for start, end in details["ranges"])
        return kind == "erase" and any(self._from_seq <= at < to_seq for at, _, _ in details["items"])

    async def list_unproven(self) -> list[int]:
        """Of the entries behind the range that explain something in it, those from which the stored hashes do not lead to the root of the
        head, or could not be read."""
        head, cache = self._head, TileCache()
        unproven: list[int] = []
        for seq, leaf in self._behind.items():
            assert head is not None  # noqa: S101 - whose control entries these are
            try:
                async with translated(), bound(self._engine, self._log_id) as connection:
                    prove = partial(prove_inclusion, seq, head.size)
                    proof = await read_tree(connection, self._log_id, head.size, cache, prove)
                check_inclusion(
                    leaf, seq, head.size, proof, Frontier.from_bytes(head.size, head.frontier or b"").root()
                )
            except (ProofError, TreeDamagedError, UnavailableError):
                unproven.append(seq)
        return unproven
