"""Append: one call of `audit.append_entries` for any number of events of one log.

The call is a statement outside any explicit transaction: what comes back from here is durable.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core.entry import GROUPS, Prepared, Projection
from audit_service.store.engine import call
from audit_service.store.failures import translated

# Ragged arrays travel as array literals; see the function's comment.
_LITERALS = frozenset({"actor_keys", "paths"})
# Addresses travel as text: the driver makes an object of each again before it writes it, and that takes longer than the rest of a row.
_ARRAY_TYPES = {"occurred_at": "timestamptz[]", "source_seq": "bigint[]", "ip": "text[]::inet[]"}


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
    *[_ARRAY_TYPES.get(name, "text[]") for name in _PROJECTED],
]  # fmt: skip
# Parts of this text are our own constants; values travel as parameters.
_CALL = "SELECT * FROM audit.append_entries({})".format(  # noqa: S608 - see above
    ", ".join(f"${place}::{type_}" for place, type_ in enumerate(_TYPES, start=1))
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


def _arguments(log_id: int, ruleset: str, candidates: Sequence[Candidate]) -> list[Any]:
    prepared = [candidate.prepared for candidate in candidates]
    projections = [part.projection for part in prepared]
    return [
        log_id,
        ruleset,
        [candidate.keep for candidate in candidates],
        [candidate.id for candidate in candidates],
        [candidate.salt for candidate in candidates],
        [candidate.fingerprint for candidate in candidates],
        [part.body for part in prepared],
        *(_or_null([part.disclosures.get(group) for part in prepared]) for group in GROUPS),
        *map(_column, _PROJECTED, islice(zip(*projections, strict=True), 1, None)),
    ]


def _column(name: str, values: Sequence[Any]) -> Sequence[Any] | None:
    if name in _LITERALS:
        values = [None if value is None else array_literal(value) for value in values]
    elif name == "ip":
        values = [None if value is None else str(value) for value in values]
    return _or_null(values)


def _or_null(values: Sequence[Any]) -> Sequence[Any] | None:
    """The column, or a null for the whole of it when it holds nothing: `unnest` fills it up, and the driver has one array less
    to write."""
    return None if values.count(None) == len(values) else values


def array_literal(items: list[str]) -> str:
    """A PostgreSQL array literal with every element quoted."""
    quoted = ('"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items)
    return "{" + ",".join(quoted) + "}"
