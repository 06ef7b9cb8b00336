"""What a proof starts from, in one statement: the checkpoints it may be held against, and the header of the entry it is of.

Proofs are asked for one by one, and each exchange with the database costs more than all hashing does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.store.engine import driver

# Each LATERAL is a probe of a key. A time beyond the calendar is brought as null: it cannot be part of a header.
_INPUTS = """
    SELECT latest.size AS latest_size, latest.note AS latest_note, same.note AS same_note, earlier.note AS earlier_note,
        entry.seq, entry.epoch, entry.recorded_at_us, entry.kind, entry.prev_hash, entry.body_hash
    FROM (VALUES (1)) AS one
    LEFT JOIN LATERAL (
        SELECT c.size, c.note FROM audit.bound_checkpoint AS c WHERE c.log_id = $1 ORDER BY c.signed_at DESC LIMIT 1
    ) AS latest ON true
    LEFT JOIN LATERAL (
        SELECT c.note FROM audit.bound_checkpoint AS c WHERE c.log_id = $1 AND c.size = $2 ORDER BY c.signed_at DESC LIMIT 1
    ) AS same ON true
    LEFT JOIN LATERAL (
        SELECT c.note FROM audit.bound_checkpoint AS c WHERE c.log_id = $1 AND c.size = $3 ORDER BY c.signed_at DESC LIMIT 1
    ) AS earlier ON true
    LEFT JOIN LATERAL (
        SELECT e.seq, e.epoch, e.kind, e.prev_hash, e.body_hash,
            CASE WHEN isfinite(e.recorded_at) THEN (extract(epoch FROM e.recorded_at) * 1000000)::bigint END AS recorded_at_us
        FROM audit.bound_entry AS e WHERE e.log_id = $1 AND e.seq = $4
    ) AS entry ON true
"""


class StoredNote(NamedTuple):
    """A checkpoint's note, and the size it is stored for."""

    size: int
    note: str


class StoredHeader(NamedTuple):
    """The columns that a header is made of, as they are: of a damaged row any of them may be None."""

    seq: int
    epoch: int
    recorded_at_us: int
    kind: str
    prev_hash: bytes
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class ProofInputs:
    """`latest`: the checkpoint signed last. `same` and `earlier`: that of the size of the tree, and of the size it is compared with.
    `headers`: of the entry asked for, one unless it is gone or the key that keeps rows unique was dropped."""

    latest: StoredNote | None
    same: StoredNote | None
    earlier: StoredNote | None
    headers: Sequence[StoredHeader]


async def fetch_proof_inputs(
    connection: AsyncConnection, log_id: int, *, size: int | None, from_size: int | None = None, seq: int | None = None
) -> ProofInputs:
    """What a proof of `seq`, or from `from_size`, in the tree of `size` starts from. `connection` is bound to the log."""
    rows = await driver(connection).fetch(_INPUTS, log_id, size, from_size, seq)
    first = rows[0]
    return ProofInputs(
        _note(first["latest_size"], first["latest_note"]),
        _note(size, first["same_note"]),
        _note(from_size, first["earlier_note"]),
        [StoredHeader(*tuple(row)[4:]) for row in rows if row["seq"] is not None],
    )


def _note(size: int | None, note: str | None) -> StoredNote | None:
    return None if size is None or note is None else StoredNote(size, note)
