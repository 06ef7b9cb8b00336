"""Random mutations of a stored log: any column of any row of entry, receipt and log, any bit; and clean logs of random shape.

A mutation is one bit of a value, a value that is gone or comes from another row, or a null that becomes a value. Left out is only what no
hash covers, as `verification` says: salt, fingerprint and ruleset of a receipt. Chance comes from a seed that is printed, so that what
was found can be had again: MUTATION_SEED.
"""

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from random import Random
from typing import Any

import asyncpg
import orjson
import pytest

from audit_service.core.merkle import Frontier
from audit_service.store.batches import BatchReader
from audit_service.store.engine import Database
from audit_service.verify import Report
from tests.support.appends import TestLog, make_log
from tests.support.forgotten import Forgetter
from tests.support.postgres import TestDatabase
from tests.support.tampering import EVENTS, Lab, no_batch, report_of

_HASHED = {
    "entry": (),
    "receipt": ("salt", "fingerprint", "ruleset"),
    "log": (),
}
_NEVER = {"log": ("log_id",)}  # without its row the log is another question
_WEIGHTS = {"entry": 8, "receipt": 3, "log": 1}
_TRIES = 50
# What stands in place of a null.
_VALUES: dict[str, Any] = {
    "text": "x", "bytea": b"x" * 40, "bigint": 7, "integer": 7, "inet": "192.0.2.77", "text[]": ["x"], "boolean": True,
}  # fmt: skip


def seed() -> int:
    """The seed of this run, printed."""
    chosen = int(os.environ.get("MUTATION_SEED", "0")) or int.from_bytes(os.urandom(4), "big")
    print(f"\nMUTATION_SEED={chosen}")  # noqa: T201 - pytest shows it when a test fails
    return chosen


@dataclass(frozen=True, slots=True)
class Mutation:
    """A value of a row that becomes another one. `seq`: where the row belongs; `first_bad`: the first place that a verification has to
    name, None where any will do, because the row is the head."""

    table: str
    column: str
    seq: int | None
    before: Any
    after: Any
    first_bad: int | None

    def __str__(self) -> str:
        return f"{self.table}.{self.column} of seq {self.seq}: {self.before!r} becomes {self.after!r}"


class Mutator:
    """Picks mutations of the log of a Lab, commits them, and takes them back. The constraints are gone as long as it is at work."""

    def __init__(self, lab: Lab, random: Random) -> None:
        self.lab, self._random = lab, random
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._types: dict[tuple[str, str], str] = {}

    async def begin(self) -> None:
        """Read everything, and drop what would refuse a mutation."""
        admin = self.lab.admin
        for row in await admin.fetch(
            "SELECT conrelid::regclass::text AS name, conname FROM pg_constraint WHERE contype IN ('c', 'p', 'u', 'n')"
            " AND conrelid = ANY (ARRAY['audit.entry', 'audit.log', 'audit.receipt']::regclass[]) ORDER BY contype = 'n'"
        ):
            await admin.execute(f"ALTER TABLE {row['name']} DROP CONSTRAINT {row['conname']}")
        for table in _WEIGHTS:
            rows = await admin.fetch(
                f"SELECT ctid::text AS place, * FROM audit.{table} WHERE log_id = $1", self.lab.log_id
            )
            self._rows[table] = [dict(row) for row in rows]
            for row in await admin.fetch(
                "SELECT attname, format_type(atttypid, NULL) AS type FROM pg_attribute"
                " WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped",
                f"audit.{table}",
            ):
                self._types[table, row["attname"]] = row["type"]

    def pick(self) -> Mutation:
        """Any one."""
        for _ in range(_TRIES):
            table = self._random.choices([*_WEIGHTS], [*_WEIGHTS.values()])[0]
            row = self._random.choice(self._rows[table])
            left_out = (*_HASHED[table], *_NEVER.get(table, ()), "place")
            column = self._random.choice([name for name in row if name not in left_out])
            after = self._other(table, column, row[column])
            if after != row[column] or type(after) is not type(row[column]):
                seq = row.get("seq")
                return Mutation(table, column, seq, row[column], after, self._first_bad(table, column, seq, after))
        raise AssertionError("nothing can be mutated")

    def _first_bad(self, table: str, column: str, seq: int | None, after: Any) -> int | None:
        """A row that moves is missed where it was, and one too many where it is; so is a receipt under another one's id."""
        places = [seq]
        if column == "seq":
            places.append(after)
        if (table, column) == ("receipt", "id"):
            places += [row["seq"] for row in self._rows[table] if row["id"] == after]
        return min((place for place in places if place is not None), default=None)

    async def found(self, mutation: Mutation) -> Report:
        """What a verification says of it, in batches or row by row; afterwards all is as it was."""
        place = "seq = $3" if mutation.seq is not None else "$3::bigint IS NULL"
        [moved] = await self._set(mutation, place, mutation.after, mutation.seq)
        try:
            with pytest.MonkeyPatch.context() as patch:
                if self._random.random() < 0.5:
                    patch.setattr(BatchReader, "fetch", no_batch)
                return await report_of(self.lab.pools, self.lab.log_id)
        finally:
            # By its place on the disk, because its key may be what was mutated.
            await self._set(mutation, "ctid = $3::text::tid", mutation.before, moved["place"], any_log=True)

    async def _set(
        self, mutation: Mutation, where: str, value: Any, place: Any, *, any_log: bool = False
    ) -> list[asyncpg.Record]:
        type_ = self._types[mutation.table, mutation.column]
        return list(
            await self.lab.admin.fetch(
                f"UPDATE audit.{mutation.table} SET {mutation.column} = $2::{type_}"
                f" WHERE ($4 OR log_id = $1) AND {where} RETURNING ctid::text AS place",
                *(self.lab.log_id, value, place, any_log),
            )
        )

    def _other(self, table: str, column: str, value: Any) -> Any:
        way = self._random.random()
        if way < 0.12 and value is not None:
            return None
        if way < 0.25:
            return self._random.choice(self._rows[table])[column]
        return self._new(self._types[table, column]) if value is None else self._flipped(value)

    def _new(self, type_: str) -> Any:
        if type_ == "timestamp with time zone":
            return self._rows["log"][0]["last_recorded_at"]
        return _VALUES[type_]

    def _flipped(self, value: Any) -> Any:
        random = self._random
        if isinstance(value, bytes | str | list):
            return self._flipped_in(value)
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return value ^ (1 << random.randrange(30))
        if isinstance(value, datetime):
            return value + timedelta(microseconds=random.choice((-1, 1)) << random.randrange(40))
        return ip_address(int(ip_address(str(value).partition("/")[0])) ^ 1 << random.randrange(32))

    def _flipped_in(self, value: bytes | str | list[str]) -> Any:
        if not value:
            return self._new("bytea" if isinstance(value, bytes) else "text" if isinstance(value, str) else "text[]")
        if isinstance(value, bytes):
            return _flip(value, self._random)
        if isinstance(value, str):
            return _flip_text(value, self._random)
        at = self._random.randrange(len(value))
        return [*value[:at], _flip_text(value[at], self._random) if value[at] else "x", *value[at + 1 :]]


def _flip(value: bytes, random: Random) -> bytes:
    flipped = bytearray(value)
    bit = random.randrange(len(flipped) * 8)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def _flip_text(value: str, random: Random) -> str:
    """One bit that leaves a text that PostgreSQL can hold."""
    for _ in range(_TRIES):
        try:
            flipped = _flip(value.encode(), random).decode()
        except UnicodeDecodeError:
            continue
        if "\x00" not in flipped:
            return flipped
    return value + "x"


async def mutate(lab: Lab, count: int, random: Random) -> tuple[list[str], list[str]]:
    """Commit `count` mutations one after the other: those that were not found, and those whose first bad seq is not named first."""
    mutator = Mutator(lab, random)
    await mutator.begin()
    missed, misnamed = [], []
    for _ in range(count):
        mutation = mutator.pick()
        report = await mutator.found(mutation)
        first = min((item.seq for item in report.breaks), default=None)
        if report.status != "broken":
            missed.append(f"{mutation} → {report.status} {report.not_checked}")
        elif mutation.first_bad is not None and first != mutation.first_bad:
            misnamed.append(f"{mutation} → {first}")
    return missed, misnamed


# -- clean logs ----------------------------------------------------------------------------------------------


async def make_clean(
    database: TestDatabase, pools: Database, admin: asyncpg.Connection, random: Random
) -> tuple[TestLog, list[str], Forgetter]:
    """A log of random shape, lawfully forgotten in here and there; and what was done."""
    log = await make_log(database)
    forgetter = Forgetter(admin, log.log_id, f"{log.log.service_name}/t/{log.log.log_key}/1")
    done: list[str] = []
    for _ in range(random.randrange(1, 5)):
        await _append(log, pools, random, done)
        for step in (_erase, _drop, _prune):
            if random.random() < 0.4:
                await step(forgetter, random, done)
    return log, done, forgetter


async def _append(log: TestLog, pools: Database, random: Random, done: list[str]) -> None:
    events = [{**random.choice(EVENTS), "id": f"{random.getrandbits(64)}"} for _ in range(random.randrange(1, 9))]
    await log.accept(pools, *events)
    done.append(f"append {len(events)}")


async def _erase(forgetter: Forgetter, random: Random, done: list[str]) -> None:
    rows = await forgetter.admin.fetch(
        "SELECT * FROM audit.entry WHERE log_id = $1 AND kind = 'event' AND body IS NOT NULL", forgetter.log_id
    )
    if not rows:
        return
    row = random.choice(rows)
    left = sorted(group for group in orjson.loads(row["body"]).get("sd", {}) if row[f"d_{group}"] is not None)
    if left:
        groups = random.sample(left, random.randrange(1, len(left) + 1))
        await forgetter.erase(row["seq"], *groups)
        done.append(f"erase {row['seq']} {groups}")


async def _drop(forgetter: Forgetter, random: Random, done: list[str]) -> None:
    rows = await forgetter.admin.fetch(
        "SELECT seq FROM audit.entry WHERE log_id = $1 AND kind = 'event' AND body IS NOT NULL ORDER BY seq",
        forgetter.log_id,
    )
    if rows:
        seqs = sorted(random.sample([row["seq"] for row in rows], random.randrange(1, len(rows) + 1)))
        await forgetter.drop(*((seq, seq + 1) for seq in seqs))
        done.append(f"drop {seqs}")


async def _prune(forgetter: Forgetter, random: Random, done: list[str]) -> None:
    if any(step.startswith("prune") for step in done):
        return  # the helper prunes from the beginning
    size = await forgetter.admin.fetchval("SELECT size FROM audit.log WHERE log_id = $1", forgetter.log_id)
    cut = random.randrange(1, size + 1)
    await forgetter.prune(cut, delete=False)
    delete = random.random() < 0.7
    while delete and await forgetter.admin.fetchval("SELECT audit.delete_pruned($1, 5)", forgetter.log_id):
        pass
    done.append(f"prune {cut}, rows {'deleted' if delete else 'left'}")


async def clean_alarms(
    database: TestDatabase, pools: Database, admin: asyncpg.Connection, count: int, random: Random
) -> list[str]:
    """What verification has against `count` clean logs: nothing, if it is right. Each is also held against a checkpoint of its head."""
    alarms = []
    for _ in range(count):
        log, done, forgetter = await make_clean(database, pools, admin, random)
        row = await admin.fetchrow("SELECT size, frontier FROM audit.log WHERE log_id = $1", log.log_id)
        assert row is not None
        root = Frontier.from_bytes(row["size"], row["frontier"]).root()
        note = await forgetter.checkpoint(row["size"], root)
        report = await report_of(pools, log.log_id, checkpoints=[note], trusted=[forgetter.signer.verifier()])
        if report.status != "ok":
            alarms.append(f"{done}: {report.status} {report.breaks} {report.not_checked}")
    return alarms
