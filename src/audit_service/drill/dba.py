"""What somebody who owns the database can do to a log: switch every guard off, edit, delete, and hash again what was edited.

The SQL here is the attacker's, not the store's. It is run as a superuser of the throw-away server of the drill.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from audit_service.core.canonical import canonical_text
from audit_service.core.chain import body_hash, entry_hash, genesis_hash, header_bytes
from audit_service.core.control import Control
from audit_service.core.entry import GROUPS, SALT_BYTES, disclosure_hash, project
from audit_service.core.merkle import Frontier
from audit_service.drill.scratch import EARLY_SIZES, Scratch
from audit_service.ingest import Log

_GUARDED = ("entry", "log", "receipt", "checkpoint")
_ROWS = """
    SELECT *, (extract(epoch FROM recorded_at) * 1000000)::bigint AS at_us FROM audit.entry WHERE log_id = $1 ORDER BY seq
"""


@dataclass(frozen=True, slots=True)
class Dba:
    """An administrator with one log of the installation in hand; make one with `take`."""

    admin: asyncpg.Connection
    log: Log

    @classmethod
    async def take(cls, scratch: Scratch, log: Log | None = None) -> "Dba":
        """Switch the guards off. Triggers that are ENABLE ALWAYS fire whatever the session's replication role is, so both are needed."""
        dba = cls(scratch.admin, log or scratch.log)
        await dba.admin.execute("SET session_replication_role = replica")
        for table in _GUARDED:
            await dba.admin.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER ALL")
        return dba

    async def drop_constraints(self) -> None:
        """So that rows may stand twice, and columns hold what they may not."""
        rows = await self.admin.fetch(
            "SELECT conrelid::regclass::text AS name, conname FROM pg_constraint"
            " WHERE conrelid = ANY (ARRAY['audit.entry', 'audit.log', 'audit.receipt']::regclass[]) AND contype IN ('c', 'p', 'u')"
        )
        for row in rows:
            await self.admin.execute(f"ALTER TABLE {row['name']} DROP CONSTRAINT {row['conname']}")

    # -- looking ---------------------------------------------------------------------------------------------

    async def rows(self) -> list[asyncpg.Record]:
        """Every entry, its time also in microseconds as `at_us`."""
        return list(await self.admin.fetch(_ROWS, self.log.log_id))

    async def row(self, seq: int) -> asyncpg.Record:
        """One entry."""
        found = await self.admin.fetchrow(
            "SELECT * FROM audit.entry WHERE log_id = $1 AND seq = $2", self.log.log_id, seq
        )
        assert found is not None  # noqa: S101 - the drill asks for entries it has made
        return found

    async def find_full(self, from_seq: int, to_seq: int) -> int:
        """The first entry of a range that has every disclosure and an address."""
        whole = " AND ".join(f"d_{group} IS NOT NULL" for group in GROUPS)
        seq: int = await self.admin.fetchval(
            f"SELECT min(seq) FROM audit.entry WHERE log_id = $1 AND seq >= $2 AND seq < $3 AND {whole}",  # noqa: S608 - our own names
            *(self.log.log_id, from_seq, to_seq),
        )
        return seq

    async def find_old(self) -> int:
        """The same below every checkpoint but the first."""
        return await self.find_full(EARLY_SIZES[0] + 10, EARLY_SIZES[1])

    async def find_fresh(self, scratch: Scratch) -> int:
        """The same behind the last checkpoint."""
        return await self.find_full(scratch.signed, scratch.size)

    async def find_later(self, from_seq: int, to_seq: int) -> int:
        """The first entry of a range that is later than the one before it."""
        seq: int = await self.admin.fetchval(
            "SELECT min(seq) FROM (SELECT seq, recorded_at > lag(recorded_at) OVER (ORDER BY seq) AS later FROM audit.entry"
            " WHERE log_id = $1 AND seq >= $2 AND seq < $3) AS e WHERE later",
            *(self.log.log_id, from_seq, to_seq),
        )
        return seq

    # -- changing --------------------------------------------------------------------------------------------

    async def edit(self, seq: int, assignments: str, *values: object) -> None:
        """UPDATE one entry; $1 and $2 are taken, the values start at $3."""
        statement = f"UPDATE audit.entry SET {assignments} WHERE log_id = $1 AND seq = $2"  # noqa: S608 - the drill's own
        await self.change(statement, seq, *values)

    async def edit_head(self, assignments: str, *values: object) -> None:
        """UPDATE the head row; $1 is taken, the values start at $2."""
        await self.change(f"UPDATE audit.log SET {assignments} WHERE log_id = $1", *values)  # noqa: S608 - the drill's own

    async def change(self, statement: str, *values: object) -> None:
        """A statement of which $1 is the log's id; it must hit something, or the attack would be none."""
        status = await self.admin.execute(statement, self.log.log_id, *values)
        if status.endswith(" 0"):
            raise RuntimeError(f"nothing was attacked by: {statement}")

    async def delete(self, seqs: Iterable[int]) -> None:
        """Delete entries and their receipts."""
        gone = list(seqs)
        for table in ("entry", "receipt"):
            await self.change(f"DELETE FROM audit.{table} WHERE log_id = $1 AND seq = ANY ($2)", gone)  # noqa: S608 - as above

    async def copy_row(self, row: asyncpg.Record, **changed: object) -> None:
        """INSERT a row as another one."""
        values = {name: value for name, value in row.items() if name != "at_us"} | changed
        names = ", ".join(values)
        places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
        await self.admin.execute(f"INSERT INTO audit.entry ({names}) VALUES ({places})", *values.values())  # noqa: S608 - column names

    async def append_control(self, entry: Control) -> int:
        """A control entry and nothing of what it says; its seq."""
        seq: int = await self.admin.fetchval(
            "SELECT seq FROM audit.append_control($1, $2, $3::text::jsonb)",
            self.log.log_id,
            entry.kind,
            entry.argument(),
        )
        return seq

    # -- hashing again ---------------------------------------------------------------------------------------

    async def rehash(self, from_seq: int = 0) -> None:
        """Make every link from `from_seq` on follow from what the rows hold now, and receipts and head with them."""
        rows = await self.rows()
        hashes = [row["hash"] for row in rows if row["seq"] < from_seq]
        changed = []
        for row in (row for row in rows if row["seq"] >= from_seq):
            origin = f"{self.log.service_name}/t/{self.log.log_key}/{row['epoch']}"
            prev = hashes[-1] if hashes else genesis_hash(origin)
            digest = row["body_hash"] if row["body"] is None else body_hash(row["body"])
            hashes.append(entry_hash(header_bytes(origin, row["seq"], row["at_us"], row["kind"], prev, digest)))
            changed.append((self.log.log_id, row["seq"], prev, digest, hashes[-1]))
        await self.admin.executemany(
            "UPDATE audit.entry SET prev_hash = $3, body_hash = $4, hash = $5 WHERE log_id = $1 AND seq = $2", changed
        )
        await self.change(
            "UPDATE audit.receipt AS r SET (recorded_at, epoch, prev_hash, hash) = (e.recorded_at, e.epoch, e.prev_hash, e.hash)"
            " FROM audit.entry AS e WHERE r.log_id = $1 AND e.log_id = r.log_id AND e.id = r.id AND e.seq = r.seq"
        )
        await self.set_head(hashes)

    async def cut(self, size: int) -> None:
        """Delete the tail from `size` on, its receipts too, and reset the head: the log looks as if it had never been longer."""
        rows = await self.rows()
        await self.delete(row["seq"] for row in rows[size:])
        await self.set_head([row["hash"] for row in rows[:size]])

    async def set_head(self, hashes: Sequence[bytes]) -> None:
        """The head row that fits a log of these hashes, whole from seq 0 on."""
        tree = Frontier()
        tree.extend(hashes)
        origin = f"{self.log.service_name}/t/{self.log.log_key}/1"
        last = hashes[-1] if hashes else genesis_hash(origin)
        await self.edit_head(
            "size = $2::bigint, last_hash = $3, frontier = $4, last_recorded_at = coalesce("
            "(SELECT e.recorded_at FROM audit.entry AS e WHERE e.log_id = $1 AND e.seq = $2::bigint - 1), 'epoch')",
            *(len(hashes), last, tree.to_bytes()),
        )


def flip(value: Any, bit: int = 0) -> Any:
    """Text or bytes with one bit changed in its middle; what comes out is as long."""
    raw = bytearray(value.encode() if isinstance(value, str) else value)
    raw[len(raw) // 2] ^= 1 << bit
    return raw.decode() if isinstance(value, str) else bytes(raw)


async def forge_value(dba: Dba, seq: int) -> None:
    """Another e-mail address, with its commitment in the body and all columns for queries to match; nothing is hashed again."""
    row = await dba.row(seq)
    stored = row["d_actor_email"][:SALT_BYTES] + b'"nobody@example.com"'
    body = orjson.loads(row["body"])
    body["sd"]["actor_email"] = disclosure_hash("actor_email", stored).hex()
    disclosures = {group: row[f"d_{group}"] for group in body["sd"]} | {"actor_email": stored}
    columns = project(body, {group: orjson.loads(salted[SALT_BYTES:]) for group, salted in disclosures.items()})
    await dba.edit(
        seq,
        "d_actor_email = $3, body = $4, actor_email = $5, actor_keys = $6, search = $7",
        *(stored, canonical_text(body), columns.actor_email, columns.actor_keys, columns.search),
    )
