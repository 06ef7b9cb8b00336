"""Reading a log's control entries for verification: what they explain, and which keys they make trusted.

They are read before the entries they explain, and each is looked at by itself; that they stand in the chain, the verification of the
range they are in finds.
"""

from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.checker import Head, genuine_body
from audit_service.core.explanation import Explanations
from audit_service.core.trust import Trust
from audit_service.errors import MalformedError
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.query import list_controls

SLICE_CONTROLS = 100


class Controls:
    """What was read so far. `read_to`: control entries before it were; `faults`: seq → why one of them explains nothing."""

    def __init__(self, engine: AsyncEngine, log_id: int, trust: Trust, *, from_seq: int) -> None:
        """`from_seq`: what explains only entries before it is left out."""
        self.explanations, self.trust = Explanations(), trust
        self.read_to = 0
        self.faults: dict[int, str] = {}
        self._engine, self._log_id, self._from_seq = engine, log_id, from_seq

    async def read(self, head: Head) -> AsyncIterator[int]:
        """Read on to the size of `head`: yields where it is, slice by slice."""
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
            if kind == "prune":
                self.trust.add_kept(body, head.origin)
        except MalformedError as error:
            self.faults[seq] = str(error)
