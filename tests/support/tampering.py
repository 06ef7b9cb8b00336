"""A sealed log to tamper with as a superuser who has switched every guard off, and to put back as it was."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import asyncpg
import pytest

from audit_service import verification as verifying
from audit_service.core.chain import genesis_hash
from audit_service.core.checker import Break, Checker
from audit_service.store.batches import BatchReader
from audit_service.store.engine import Database
from audit_service.verify import Report, verify
from tests.support.appends import TestLog, make_log
from tests.support.intact import naive_frontier

FULL: dict[str, Any] = {
    "action": "user.updated",
    "actor": {"type": "user", "id": "u1", "name": "Zoë", "email": "zoe@example.com", "role": "admin"},
    "on_behalf_of": {"id": "u2", "name": "Root"},
    "target": {"type": "user", "id": "9", "name": "nine"},
    "related": [{"type": "node", "id": "3"}],
    "server_id": "s1",
    "outcome": "success",
    "description": "text",
    "reason": "because",
    "context": {"ip": "203.0.113.9", "session_id": "abc", "request_id": "r-1", "user_agent": "curl/8"},
    "metadata": {"amount": 12.5, "big": 2**64 - 1, "text": "12.50"},
    "before": {"a": {"b": 1}, "c": [1]},
    "after": {"a": {"b": 2}, "c": [2]},
    "source": {"id": "panel-1", "seq": 5},
}
SPARSE: dict[str, Any] = {"action": "panel.started"}
EVENTS: Sequence[dict[str, Any]] = (
    {"action": "user.login", "actor": {"id": "u1"}, "context": {"ip": "::ffff:192.0.2.1"}},
    {"action": "server:power.start", "server_id": "s1", "outcome": "failure"},
    {"action": "billing.paid", "metadata": {"amount": "12.50", "nested": {"deep": [1, {"x": None}]}}},
    SPARSE,
    {"action": "note.added", "description": 'Zoë → \u202e"quoted" \\ \x07 line\nbreak 🙂'},
    {"action": "user.created", "after": {"name": "x", "password": "hunter2"}},
    FULL,
    {"action": "user.deleted", "before": {"name": "x", "list": [1, 2.5, "3", None, True]}},
    {"action": "role.changed", "changes": [{"path": "/a~1b/0", "op": "replace", "old": 1, "new": "1"}]},
    {"action": "on.behalf", "on_behalf_of": {"id": "u1", "name": "Root"}},
    {"action": "target.only", "target": {"type": "backup", "id": "9"}, "related": [{"type": "backup_log", "id": "1"}]},
    {"action": "last.one", "context": {"ip": "fe80::1%eth0", "request_id": "r"}, "reason": "r"},
)
SIZE = len(EVENTS)
# What a verification without a checkpoint says it did not check.
CHECKPOINT = "checkpoint: none given; a cut tail with its head reset, or a full re-hash, shows only against one"
# And what a check of the chain alone left out.
CONTENTS = "disclosures, query columns and receipts: only the depth `all` checks them"
FULL_SEQ = EVENTS.index(FULL)
SPARSE_SEQ = EVENTS.index(SPARSE)
TABLES = ("entry", "log", "receipt")


@dataclass(frozen=True, slots=True)
class Lab:
    """The log, a second tenant's log beside it, a superuser's connection, and how everything was."""

    log: TestLog
    other: TestLog
    pools: Database
    admin: asyncpg.Connection
    constraints: dict[str, str]

    @classmethod
    async def build(cls, log: TestLog, pools: Database, admin: asyncpg.Connection) -> "Lab":
        """Seal the events into both logs, keep copies of the tables, and switch the guards off."""
        other = await make_log(log.database)
        for number, event in enumerate(EVENTS):
            for one in (log, other):
                await one.accept(pools, {**event, "id": f"e-{number}"})
        await log.assert_intact(SIZE)
        await admin.execute("CREATE SCHEMA kept")
        for table in TABLES:
            await admin.execute(f"CREATE TABLE kept.{table} AS TABLE audit.{table}")
            await admin.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER ALL")
        return cls(log, other, pools, admin, await _constraints(admin))

    @property
    def log_id(self) -> int:
        """The log that is tampered with."""
        return self.log.log_id

    async def execute(self, statement: str, *args: object) -> None:
        """Tamper; the statement must have changed at least one row, or be no statement about rows."""
        status = await self.admin.execute(statement, *args)
        assert not status.endswith(" 0"), f"nothing was tampered with: {statement}"

    async def edit(self, seq: int, assignment: str, *args: object) -> None:
        """UPDATE one entry of the log; $1 and $2 are taken, the arguments start at $3."""
        statement = f"UPDATE audit.entry SET {assignment} WHERE log_id = $1 AND seq = $2"
        await self.execute(statement, self.log_id, seq, *args)

    async def restore(self) -> None:
        """Rows and constraints as they were."""
        await self.admin.execute("TRUNCATE audit.entry, audit.log, audit.receipt")
        for table in TABLES:
            await self.admin.execute(f"INSERT INTO audit.{table} SELECT * FROM kept.{table}")
        there = await _constraints(self.admin)
        for statement in self.constraints.keys() - there.keys():
            await self.admin.execute(statement)

    async def report(self, **asked: Any) -> Report:
        """What verification says: the same whether it goes in batches, row by row, or now so and now so."""
        report = await report_of(self.pools, self.log_id, **asked)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verifying, "SLICE_ENTRIES", 3)
            patch.setattr(verifying, "PART_ENTRIES", 2)
            assert report == await report_of(self.pools, self.log_id, **asked)
            patch.setattr(BatchReader, "fetch", no_batch)
            assert report == await report_of(self.pools, self.log_id, **asked)
        return report

    async def rows(self) -> list[asyncpg.Record]:
        """The stored entries with their time in microseconds."""
        return list(
            await self.admin.fetch(
                "SELECT *, (extract(epoch FROM recorded_at) * 1000000)::bigint AS at_us"
                " FROM audit.entry WHERE log_id = $1 ORDER BY seq",
                self.log_id,
            )
        )

    async def rehash(self, from_seq: int) -> None:
        """What an owner can do: make every link from `from_seq` on, receipts and head, follow from what the rows hold now."""
        await self.rehash_entries(from_seq)
        await self.rewrite_receipts()

    async def rehash_entries(self, from_seq: int) -> None:
        """The same, but for the receipts."""
        rows = await self.rows()
        hashes = [row["hash"] for row in rows[:from_seq]]
        for row in rows[from_seq:]:
            body_hash = sha256(b"audit-service/body/v1\n" + row["body"].encode()).digest()
            origin = f"{self.origin.removesuffix('/1')}/{row['epoch']}"
            lines = (origin, row["seq"], row["at_us"], row["kind"], hashes[-1].hex(), body_hash.hex())
            header = "".join(f"{line}\n" for line in ("audit-service/entry/v1", *lines))
            hashes.append(sha256(b"\x00" + header.encode()).digest())
            await self.edit(row["seq"], "prev_hash = $3, body_hash = $4, hash = $5", hashes[-2], body_hash, hashes[-1])
        await self.set_head(hashes)

    async def rewrite_receipts(self) -> None:
        """Receipts that repeat what the entries of their seqs hold now."""
        await self.execute(
            "UPDATE audit.receipt AS r SET (id, recorded_at, epoch, prev_hash, hash) ="
            " (coalesce(e.id, r.id), e.recorded_at, e.epoch, e.prev_hash, e.hash)"
            " FROM audit.entry AS e WHERE e.log_id = r.log_id AND e.seq = r.seq AND r.log_id = $1",
            self.log_id,
        )

    async def set_head(self, hashes: Sequence[bytes]) -> None:
        """The head row that fits a log of these hashes."""
        await self.execute(
            "UPDATE audit.log SET size = $2::bigint, last_hash = $3, frontier = $4, last_recorded_at = coalesce("
            "(SELECT recorded_at FROM audit.entry WHERE log_id = $1 AND seq = $2::bigint - 1), 'epoch') WHERE log_id = $1",
            *(
                self.log_id,
                len(hashes),
                hashes[-1] if hashes else genesis_hash(self.origin),
                b"".join(naive_frontier(hashes)),
            ),
        )

    @property
    def origin(self) -> str:
        """The log's origin."""
        return f"{self.log.log.service_name}/t/{self.log.log.log_key}/1"


async def _constraints(admin: asyncpg.Connection) -> dict[str, str]:
    """Statement that makes a constraint of the tables → its name."""
    rows = await admin.fetch("""
        SELECT conname, format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) AS make
        FROM pg_constraint WHERE connamespace = 'audit'::regnamespace
    """)
    return {row["make"]: row["conname"] for row in rows}


async def report_of(pools: Database, log_id: int, **asked: Any) -> Report:
    """The report of one verification."""
    async for step in verify(pools.reads, log_id, **asked):
        last = step
    assert isinstance(last, Report)
    return last


async def no_batch(*_: Any) -> None:
    """In place of `BatchReader.fetch`: so that every row is checked by itself."""


@contextmanager
def in_batches_only() -> Iterator[None]:
    """Nothing is checked row by row: what does not pass in batches ends in an incomplete report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(Checker, "check")
        yield


async def is_clean(lab: Lab) -> bool:
    """The log verifies with nothing to say but that there was no checkpoint."""
    report = await lab.report()
    return (report.status, report.breaks, report.count, report.not_checked) == ("ok", [], SIZE, [CHECKPOINT])


def kinds_at(report: Report, seq: int) -> set[str]:
    """The kinds of breaks at a seq."""
    return {item.kind for item in report.breaks if item.seq == seq}


def seqs(breaks: Iterable[Break]) -> list[int]:
    """Where the breaks are, each place once, in order."""
    return sorted({item.seq for item in breaks})
