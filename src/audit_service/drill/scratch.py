"""The installations that the drill attacks: all on one throw-away PostgreSQL in a private temporary folder, gone when the drill is over.

    first entries · checkpoints of sizes 100 and 256 · [a copy is kept here: the older backup] · entries · a checkpoint · 16 more entries

That last copy is the base. Each attack gets a copy of its own (a database made from the base as its template, and a copy of the
signing folder, which lies outside the database). Nothing here ever connects to the database that is in use, but to read entries from it.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from audit_service.app import recipe_of
from audit_service.core.chain import body_hash
from audit_service.core.entry import GROUPS, SALT_BYTES, JSONObject, Prepared, disclosure_hash, project
from audit_service.core.view import stored_disclosures
from audit_service.drill.sample import sample_event
from audit_service.embedded import DATABASE, LOGIN_ROLES, EmbeddedPostgres
from audit_service.ingest import Log, Receipt, Recipe, ingest
from audit_service.provision import prepare
from audit_service.settings import Settings
from audit_service.signing.checkpointer import Checkpointer
from audit_service.signing.folder import SigningFolder
from audit_service.signing.keyfile import ensure_keys
from audit_service.signing.lease import Signing
from audit_service.store import credentials, migrate
from audit_service.store import signing as signing_store
from audit_service.store.append import Candidate, append_entries
from audit_service.store.credentials import DEFAULT_TENANT
from audit_service.store.engine import RETENTION_ROLE, SIGNING_ROLE, Database, bound, connected, open_database
from audit_service.store.engine import sqlalchemy_url as to_sqlalchemy
from audit_service.store.failures import translated
from audit_service.store.group_commit import GroupCommit
from audit_service.store.query import fetch_sound_head, list_slice
from audit_service.store.rows import EVENT_COLUMNS
from audit_service.store.signing import SignedLog

OTHER_TENANT = "other"
# What is signed on the way; 256 entries fill the first tile, below which a log can be pruned.
EARLY_SIZES = (100, 256)
# Entries after the last checkpoint: the window in which only copies of receipts and checkpoints elsewhere help.
WINDOW_ENTRIES = 16
ENTRIES_MINIMUM = EARLY_SIZES[-1] + 3 * WINDOW_ENTRIES
HEARTBEAT_SECONDS = 600.0
_RULESET = "drill"
_OLDER = "drill_older"
# One of so many entries is made up, so that every kind of disclosure and column is there to be attacked.
_SAMPLE_EVERY = 8
_SLICE_ENTRIES = 200


@dataclass(frozen=True, slots=True)
class Scratch:
    """One installation: its databases' roles, its signing folder, two tenants' logs. `notes`: the checkpoints that were signed for the
    first log, as others keep them. `size`: of that log; `signed`: of it as last signed; `receipt`: seq and hash of its last entry, as the
    panel that sent it keeps them."""

    ground: "Ground"
    name: str
    folder: Path
    admin: asyncpg.Connection
    serving: Database
    signing: Signing
    keeping: Database
    recipe: Recipe
    log: Log
    other: Log
    notes: tuple[str, ...]
    size: int
    receipt: tuple[int, bytes]

    @property
    def signed(self) -> int:
        """The size that was signed last, before anything was attacked."""
        return self.size - WINDOW_ENTRIES

    @property
    def signed_log(self) -> SignedLog:
        """The log as the signer knows it."""
        return SignedLog(DEFAULT_TENANT, self.log.log_id, self.log.log_key)

    async def append(self, count: int, log: Log | None = None) -> list[Receipt]:
        """Made-up events."""
        return await self.send([sample_event() for _ in range(count)], log)

    async def send(self, events: Sequence[JSONObject], log: Log | None = None) -> list[Receipt]:
        """Events as panels send them, through the service's own way in."""
        commit = GroupCommit(self.serving.writes, self.recipe.rules.digest)
        outcomes = await ingest(commit, self.recipe, log or self.log, events)
        return [outcome for outcome in outcomes if isinstance(outcome, Receipt)]

    async def sign(self) -> str | None:
        """One round of a signer that has just started: the note, or None. Raises what it refuses with."""
        await self.signing.require_lease()
        return await Checkpointer(self.signing, self.signed_log, HEARTBEAT_SECONDS).round()

    async def release_lease(self) -> None:
        """So that the next signer, in a copy of this folder, need not wait until it runs out."""
        await signing_store.release_lease(self.signing.database.writes, self.signing.holder)

    async def restore_older(self) -> None:
        """The database as it was when 256 entries were signed; what lies outside stays as it is. Connections end."""
        await self.disconnect()
        await self.ground.execute(f"DROP DATABASE {self.name} WITH (FORCE)")
        await self.ground.execute(f"CREATE DATABASE {self.name} TEMPLATE {_OLDER}")

    async def disconnect(self) -> None:
        """Close the pools' connections; they open again at their next use."""
        await self.admin.close()
        for database in (self.serving, self.signing.database, self.keeping):
            await database.dispose()


class Ground:
    """The throw-away server, the base and the older copy on it."""

    def __init__(self, postgres: EmbeddedPostgres, folder: Path) -> None:
        self.folder = folder
        self._postgres = postgres
        self._made = 0
        self._settings = Settings(database_url=None, service_name="drill.invalid")
        self._notes: tuple[str, ...] = ()
        self._size = 0

    def url(self, role: str = "postgres", database: str = DATABASE) -> str:
        """Where a role connects to."""
        return self._postgres.url(role, database)

    def migrate(self) -> None:
        """An empty installation, as the first start of the service makes it."""
        migrate.upgrade(self.url())
        prepare(self._settings, self.url(), passwords={role: self._postgres.password(role) for role in LOGIN_ROLES})

    async def execute(self, statement: str) -> None:
        """A statement about databases."""
        connection = await asyncpg.connect(self.url(database="postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def build(self, copied: Sequence[Prepared], entries: int, report: Callable[[int], None]) -> None:
        """Make the base: `entries` entries, the copied ones among them."""
        await self._make_other_tenant()
        signing_folder = self.folder / "signing"
        SigningFolder(signing_folder)
        ensure_keys(signing_folder / "key.json")
        async with self._opened(DATABASE, signing_folder) as base:
            await base.append(2 * WINDOW_ENTRIES, base.other)
            filler, done = _Filler(base, copied), 0
            notes = []
            for size in (*EARLY_SIZES, entries - WINDOW_ENTRIES, entries):
                while done < size:
                    done += await filler.append(min(size - done, _SLICE_ENTRIES))
                    report(done)
                if size < entries:
                    notes.append(await base.sign())
                if size == EARLY_SIZES[-1]:
                    await base.release_lease()
                    await base.disconnect()
                    await self.execute(f"CREATE DATABASE {_OLDER} TEMPLATE {DATABASE}")
            await base.release_lease()
        self._notes, self._size = tuple(note for note in notes if note is not None), entries

    async def _make_other_tenant(self) -> None:
        engine = create_async_engine(to_sqlalchemy(self.url()), poolclass=NullPool)
        try:
            async with engine.begin() as connection:
                await connection.execute(text("SET LOCAL ROLE audit_owner"))
                await credentials.create_tenant(connection, OTHER_TENANT)
        finally:
            await engine.dispose()

    @asynccontextmanager
    async def copy(self) -> AsyncIterator[Scratch]:
        """An installation of one attack's own; dropped afterwards."""
        self._made += 1
        name = f"drill_{self._made}"
        folder = self.folder / name
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {DATABASE}")
        try:
            shutil.copytree(self.folder / "signing", folder)
            async with self._opened(name, folder) as scratch:
                yield scratch
        finally:
            await self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            shutil.rmtree(folder, ignore_errors=True)

    @asynccontextmanager
    async def _opened(self, name: str, folder: Path) -> AsyncIterator[Scratch]:
        serving = open_database(self.url("audit_serving", name), pool_connections=2)
        signing = Signing(
            open_database(self.url(SIGNING_ROLE, name), pool_connections=2, role=SIGNING_ROLE),
            SigningFolder(folder),
            folder / "key.json",
        )
        keeping = open_database(self.url(RETENTION_ROLE, name), pool_connections=2, role=RETENTION_ROLE)
        admin = await asyncpg.connect(self.url(database=name))
        try:
            async with connected(serving.reads) as connection:
                installed = await credentials.fetch_installation(connection)
                own = await credentials.find_tenant(connection, DEFAULT_TENANT)
                others = await credentials.find_tenant(connection, OTHER_TENANT)
            assert own is not None and others is not None  # noqa: S101, PT018 - both were made
            # The head row names the entry whose receipt went out last.
            last = await admin.fetchrow("SELECT size - 1, last_hash FROM audit.log WHERE log_id = $1", own.log_id)
            assert last is not None  # noqa: S101 - every log has a head row
            yield Scratch(
                ground=self,
                name=name,
                folder=folder,
                admin=admin,
                serving=serving,
                signing=signing,
                keeping=keeping,
                recipe=recipe_of(self._settings, installed),
                log=Log(own.log_id, installed.service_name, own.log_key),
                other=Log(others.log_id, installed.service_name, others.log_key),
                notes=self._notes,
                size=self._size,
                receipt=(last[0], last[1]),
            )
        finally:
            await admin.close()
            for database in (serving, signing.database, keeping):
                await database.dispose()


class _Filler:
    """Fills the base: copied entries as long as there are any, made-up ones between and after them."""

    def __init__(self, base: Scratch, copied: Sequence[Prepared]) -> None:
        self._base = base
        self._waiting = list(reversed(copied))

    async def append(self, count: int) -> int:
        """Append `count` entries."""
        left = count
        while left:
            some = [self._waiting.pop() for _ in range(min(_SAMPLE_EVERY - 1, left - 1, len(self._waiting)))]
            await append_entries(
                self._base.serving.writes, self._base.log.log_id, _RULESET, [_candidate(one) for one in some]
            )
            left -= len(some)
            made_up = 1 if self._waiting else min(left, _SAMPLE_EVERY)
            left -= len(await self._base.append(made_up))
        return count


def _candidate(prepared: Prepared) -> Candidate:
    assert prepared.projection.id is not None  # noqa: S101 - `copied_entries` brings no others
    return Candidate(prepared.projection.id, True, os.urandom(16), os.urandom(32), prepared)


@contextmanager
def open_ground(report: Callable[[str], None]) -> Iterator[Ground]:
    """The server, with an empty installation. Needs no database of anybody's; everything is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="audit-drill-"))
    postgres = EmbeddedPostgres(folder, report=report)
    try:
        postgres.start()
        ground = Ground(postgres, folder)
        ground.migrate()
        yield ground
    finally:
        postgres.stop(10)
        shutil.rmtree(folder, ignore_errors=True)


async def copied_entries(engine: AsyncEngine, log_id: int, limit: int) -> list[Prepared]:
    """The newest events of a log, ascending, without their places in the chain: at most `limit`. Left out is what cannot be sealed again
    as it was: what was forgotten in part or whole, and what is damaged. Read-only, in short slices."""
    async with translated(), bound(engine, log_id) as connection:
        head = await fetch_sound_head(connection, log_id)
    found: list[Prepared] = []
    position = max(head.pruned_before, head.size - limit)
    while position < head.size:
        async with translated(), bound(engine, log_id) as connection:
            some = await list_slice(
                connection, log_id, EVENT_COLUMNS, from_seq=position, to_seq=head.size, limit=_SLICE_ENTRIES
            )
        found += [prepared for row in some.rows if (prepared := _prepared(row)) is not None]
        position = some.rows[-1].seq + 1 if some.more else head.size
    return found


def _prepared(row: Any) -> Prepared | None:
    """An event ready to be sealed again, if body and disclosures are whole."""
    if row.kind != "event" or row.body is None or body_hash(row.body) != row.body_hash:
        return None
    try:
        body = orjson.loads(row.body)
        disclosures = stored_disclosures(row)
        found = {group: disclosure_hash(group, salted).hex() for group, salted in disclosures.items()}
        if body.get("sd", {}) != found or not found.keys() <= {*GROUPS}:
            return None
        values = {group: orjson.loads(salted[SALT_BYTES:]) for group, salted in disclosures.items()}
        projection = project(body, values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return None if projection.id is None else Prepared(row.body, disclosures, projection)
