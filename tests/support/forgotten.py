"""Forgetting in a log of the tests, through the functions that do it, as the superuser: what is gone afterwards is gone on record."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import orjson

from audit_service.core import control
from audit_service.core.checkpoint import Checkpoint, sign_checkpoint
from audit_service.core.control import ENTROPY_BYTES, Act, Control, ErasedItem
from audit_service.core.entry import GROUPS, SALT_BYTES, project
from audit_service.core.merkle import Frontier
from audit_service.core.note import format_note
from audit_service.core.vkey import Signer, format_vkey

SEED = bytes(range(32))
# No segment is indexed, so none is replaced.
_NO_SEGMENT = "NULL, 0" + ", NULL" * 9


def act() -> Act:
    """Something the command line does now."""
    return Act("cli", "a test", datetime.now(UTC), str(uuid4()), os.urandom(ENTROPY_BYTES))


@dataclass(frozen=True, slots=True)
class Forgetter:
    """Forgets in one log. `origin`: of its epoch."""

    admin: asyncpg.Connection
    log_id: int
    origin: str

    @property
    def signer(self) -> Signer:
        """The log's signing key."""
        return Signer.from_seed(self.origin, SEED)

    async def drop(self, *ranges: tuple[int, int]) -> None:
        """Bodies and disclosures of all events in these ranges."""
        seqs = [seq for start, end in ranges for seq in range(start, end)]
        count = await self.admin.fetchval(
            "SELECT count(*) FROM audit.entry WHERE log_id = $1 AND seq = ANY ($2) AND kind = 'event' AND body IS NOT NULL",
            *(self.log_id, seqs),
        )
        await self._record("drop_entries", control.drop(act(), ranges, count=count, policy="clear"), _NO_SEGMENT)

    async def erase(self, seq: int, *groups: str) -> None:
        """Disclosures of one entry."""
        row = await self._row(seq)
        body = orjson.loads(row["body"])
        left = {group: row[f"d_{group}"] for group in GROUPS if group not in groups}
        columns = project(
            body, {group: orjson.loads(value[SALT_BYTES:]) for group, value in left.items() if value is not None}
        )
        arrays = [
            await self.admin.fetchval("SELECT $1::text[]::text", value) for value in (columns.actor_keys, columns.paths)
        ]
        items = [ErasedItem(seq, group, bytes.fromhex(body["sd"][group])) for group in groups]
        entry = control.erase(act(), items, request_hash=bytes(32))
        given = ([seq], [arrays[0]], [arrays[1]], [columns.search])
        await self._record("erase_disclosures", entry, f"$3, $4, $5, $6, {_NO_SEGMENT}", *given)

    async def prune(self, cut: int, *, signer: Signer | None = None, delete: bool = True, **wrong: Any) -> None:
        """Everything below a cut. `wrong`: what the prune entry says in place of the truth."""
        rows = await self.admin.fetch(
            "SELECT * FROM audit.entry WHERE log_id = $1 AND seq < $2 ORDER BY seq", self.log_id, cut
        )
        frontier = Frontier()
        frontier.extend([row["hash"] for row in rows])
        note = await self.checkpoint(cut, frontier.root(), signer)
        await self.drop((0, cut))
        parts: dict[str, Any] = {
            "cut": cut, "root": frontier.root(), "frontier": frontier.to_bytes(), "prev_hash": rows[-1]["hash"], "epoch": rows[-1]["epoch"],
            "last_recorded_at_us": round(rows[-1]["recorded_at"].timestamp() * 1_000_000), "count": cut,
            "first_at": rows[0]["recorded_at"], "last_at": rows[-1]["recorded_at"], "checkpoint": note, "archive": bytes(32), "signers": [],
        }  # fmt: skip
        await self._record("prune_log", control.prune(act(), control.Cut(**(parts | wrong))), "")
        if delete:
            await self.admin.execute("DELETE FROM audit.entry WHERE log_id = $1 AND seq < $2", self.log_id, cut)

    async def checkpoint(self, size: int, root: bytes, signer: Signer | None = None) -> str:
        """A signed and stored checkpoint."""
        note = format_note(sign_checkpoint(Checkpoint(self.origin, size, root), [signer or self.signer]))
        await self.admin.execute(
            "INSERT INTO audit.checkpoint (log_id, size, epoch, note) VALUES ($1, $2, 1, $3)", self.log_id, size, note
        )
        return note

    async def append(self, entry: Control) -> int:
        """A control entry and nothing else; its seq."""
        query = "SELECT seq FROM audit.append_control($1, $2, $3::text::jsonb)"
        seq: int = await self.admin.fetchval(query, self.log_id, entry.kind, entry.argument())
        return seq

    async def _record(self, function: str, entry: Control, more: str, *given: Sequence[Any]) -> None:
        arguments = ", ".join(part for part in ("$1", "$2::text::jsonb", more) if part)
        await self.admin.fetch(f"SELECT * FROM audit.{function}({arguments})", self.log_id, entry.argument(), *given)

    async def _row(self, seq: int) -> asyncpg.Record:
        row = await self.admin.fetchrow("SELECT * FROM audit.entry WHERE log_id = $1 AND seq = $2", self.log_id, seq)
        assert row is not None
        return row


def succession(
    origin: str, event: Any, old: Signer, new: Signer, from_size: int, *, signed_by: Sequence[Signer] = ()
) -> Control:
    """A signer entry, signed by its two keys unless by others."""
    names = [format_vkey(signer.verifier()).partition("+")[2] for signer in (old, new)]
    lines = ("audit-service/succession/v1", origin, *names, from_size)
    statement = "".join(f"{line}\n" for line in lines).encode()
    signatures = [signer.private_key.sign(statement) for signer in signed_by or (old, new)]
    return control.signer(act(), event, old=names[0], new=names[1], from_size=from_size, succession=signatures)
