"""Append: one call of `audit.append_entries` for any number of events of one log.

The call is a statement outside any explicit transaction: what comes back from here is durable.
"""

import os
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.entry import GROUPS, Prepared, Projection
from audit_service.store.engine import bind, call, connected
from audit_service.store.failures import translated
from audit_service.store.literals import array_literal
from audit_service.store.rows import among
from audit_service.store.tables import bound_entry

# Ragged arrays travel as array literals; see the function's comment.
_LITERALS = frozenset({"actor_keys", "paths"})
_COLUMN_TYPES = {"occurred_at": "timestamptz[]", "source_seq": "bigint[]", "ip": "inet[]"}
# These travel as one text each, with a separator between the values and a sign for null ($1 and $2), random and new for each call. The
# driver looks at every element of an array whether it is an array again, and that takes longer than all else it does for a row.
_JOINED = frozenset({"text[]", "inet[]"})
_TOKEN_BYTES = 16


class Candidate(NamedTuple):
    """An event ready to be appended. `fingerprint` is SHA-256(salt || canonical redacted input)."""

    id: str
    keep: bool
    salt: bytes
    fingerprint: bytes
    prepared: Prepared


class Appended(NamedTuple):
    """What the log says of one candidate. `known`: the id was there before, and the rest is the first receipt."""

    known: bool
    kept: bool
    epoch: int
    seq: int | None
    recorded_at: datetime
    hash: bytes | None
    prev_hash: bytes | None
    salt: bytes | None
    fingerprint: bytes | None
    ruleset: str | None


# The function's last parameters are the fields of a projection in their order, without the id, which it takes apart.
_PROJECTED = Projection._fields[1:]
_TYPES = [
    "bigint", "text", "boolean[]", "text[]", "bytea[]", "bytea[]", "text[]",
    *["bytea[]"] * len(GROUPS),
    *[_COLUMN_TYPES.get(name, "text[]") for name in _PROJECTED],
]  # fmt: skip


def _parameter(place: int, type_: str) -> str:
    """The SQL of a parameter; PostgreSQL parts what is joined."""
    if type_ not in _JOINED:
        return f"${place}::{type_}"
    # No text at all would part into no value instead of one that is empty.
    return f"(CASE ${place}::text WHEN '' THEN ARRAY[''] ELSE string_to_array(${place}::text, $1, $2) END)::{type_}"


# Parts of this text are our own constants; values travel as parameters.
_CALL = "SELECT * FROM audit.append_entries({})".format(  # noqa: S608 - see above
    ", ".join(_parameter(place, type_) for place, type_ in enumerate(_TYPES, start=3))
)


async def append_entries(
    engine: AsyncEngine, log_id: int, ruleset: str, candidates: Sequence[Candidate]
) -> list[Appended]:
    """Append the candidates whose ids are new, in order, and say for each what became of it. Ids must be distinct.

    Durable when it returns. Raises UnavailableError (then nothing is known about the outcome: ask again with the same ids),
    ClockError, NotFoundError.
    """
    if not candidates:
        return []
    async with translated():
        rows = await call(engine, _CALL, *_arguments(log_id, ruleset, candidates))
    return [Appended._make(islice(row, 1, None)) for row in rows]


async def fetch_bodies(engine: AsyncEngine, log_id: int, seqs: Sequence[int]) -> dict[int, str]:
    """The bodies, by seq, of those entries whose body is still there. Raises UnavailableError."""
    query = select(bound_entry.c.seq, bound_entry.c.body).where(
        bound_entry.c.log_id == log_id, among(seqs, bound_entry), bound_entry.c.body.is_not(None)
    )
    async with translated(), connected(engine) as connection:
        await bind(connection, log_id)
        return {row.seq: row.body for row in await connection.execute(query)}


def _arguments(log_id: int, ruleset: str, candidates: Sequence[Candidate]) -> list[Any]:
    prepared = [candidate.prepared for candidate in candidates]
    projections = [part.projection for part in prepared]
    token = os.urandom(_TOKEN_BYTES).hex()
    # Begins with a character that it does not hold again: no value can end in a part of it and be parted there.
    separator, null = f"\x1e{token}\x1f", f"\x1d{token}"
    return [
        separator,
        null,
        log_id,
        ruleset,
        [candidate.keep for candidate in candidates],
        separator.join([candidate.id for candidate in candidates]),
        [candidate.salt for candidate in candidates],
        [candidate.fingerprint for candidate in candidates],
        separator.join([part.body for part in prepared]),
        *(_or_null([part.disclosures.get(group) for part in prepared]) for group in GROUPS),
        *(
            _column(name, values, separator, null)
            for name, values in zip(_PROJECTED, islice(zip(*projections, strict=True), 1, None), strict=True)
        ),
    ]


def _column(name: str, values: Sequence[Any], separator: str, null: str) -> Sequence[Any] | str | None:
    if values.count(None) == len(values):
        return None
    if _COLUMN_TYPES.get(name, "text[]") not in _JOINED:
        return values
    if name in _LITERALS:
        return separator.join([null if value is None else array_literal(value) for value in values])
    return separator.join([null if value is None else str(value) for value in values])


def _or_null(values: Sequence[Any]) -> Sequence[Any] | None:
    """The column, or a null for the whole of it when it holds nothing: `unnest` fills it up, and the driver has one array less
    to write."""
    return None if values.count(None) == len(values) else values
