"""The commands that forget: `clear`, `erase`, `prune`.

They act under the role audit_retention, beside a running service and without one. Each first counts, and asks unless --yes is given.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from audit_service import prune as pruning
from audit_service import retention
from audit_service.app import recipe_of
from audit_service.console import AsJson, Tenant, err, progress_bar
from audit_service.core.chain import format_origin
from audit_service.core.entry import GROUPS
from audit_service.core.forgetting import Events, Person, Subject, Target
from audit_service.core.vkey import VerifierKey
from audit_service.errors import InputError
from audit_service.ingest import Log, stored_form
from audit_service.retention import Author, Forgotten
from audit_service.retention_console import BY, DryRun, Reason, counted, tell, type_and_id, with_log
from audit_service.settings import Settings
from audit_service.signing.keyfile import read_keys
from audit_service.store import credentials, forgetting
from audit_service.store.credentials import DEFAULT_TENANT, Installation
from audit_service.store.engine import Database, bound, connected
from audit_service.store.failures import translated
from audit_service.store.query import fetch_sound_head

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]
Run = Callable[[bool, retention.Report], Awaitable[Forgotten]]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(clear)
    app.command()(erase)
    app.command()(prune)


def clear(
    reason: Reason,
    tenant: Tenant = DEFAULT_TENANT,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Drop the content of every event of a log but those under legal hold. What remains proves that nothing else was touched."""
    author = Author(BY, reason)

    async def work(database: Database, log_id: int) -> None:
        async with translated():
            end = await forgetting.first_recorded(database.reads, log_id, None)

        async def run(dry: bool, report: retention.Report) -> Forgotten:
            return await retention.clear(database, log_id, author, to_seq=end, dry_run=dry, report=report)

        await _confirmed(database, log_id, run, f"Drop these events of tenant {tenant}?", dry_run, yes, as_json)

    with_log(tenant, work)


def erase(
    reason: Reason,
    request: Annotated[str, typer.Option(help="Reference of the person's request; only its hash is entered")],
    tenant: Tenant = DEFAULT_TENANT,
    actor: Annotated[str | None, typer.Option(help="Id of a person, as actor and where others acted for them")] = None,
    actor_type: Annotated[str | None, typer.Option(help="With --actor: only actors of this type")] = None,
    target: Annotated[str | None, typer.Option(help="TYPE:ID of a person, or thing, that was acted upon")] = None,
    event: Annotated[list[str] | None, typer.Option(help="Id of an event; repeatable")] = None,
    groups: Annotated[
        list[str] | None, typer.Option(help=f"Instead of the usual: {', '.join(GROUPS)}; repeatable")
    ] = None,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Erase what the log says of a person, a target, or in single events. Run again, it finds nothing more."""
    author, subject = Author(BY, reason), _subject(actor, actor_type, target, event)
    wanted = _groups(groups)

    async def work(database: Database, log_id: int) -> None:
        stored = await _stored(database, tenant, subject)

        async def run(dry: bool, report: retention.Report) -> Forgotten:
            return await retention.erase(
                database, log_id, author, stored, reference=request, groups=wanted, dry_run=dry, report=report
            )

        await _confirmed(database, log_id, run, f"Erase these values of tenant {tenant}?", dry_run, yes, as_json)

    with_log(tenant, work)


def prune(
    before: Annotated[str, typer.Option(help="A seq, or a date or time: entries recorded before it")],
    reason: Reason,
    tenant: Tenant = DEFAULT_TENANT,
    archive: Annotated[
        Path | None, typer.Option(help="Evidence of exactly what is pruned, as `audit-service evidence` made it")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="vkey to trust; repeatable; default: those of the signing key file")
    ] = None,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove the oldest entries whole, up to a signed checkpoint. Needs an archive of exactly that range, which is verified first."""
    author, limit = Author(BY, reason), _seq_or_time(before)
    settings = Settings()
    if archive is None and not dry_run:
        raise InputError("--archive is needed; --dry-run says which range it has to hold")

    async def work(database: Database, log_id: int) -> None:
        keys = pruning.parse_keys(key) if key else await _own_keys(database, tenant, settings)
        planned = await pruning.plan(database, log_id, limit, keys)
        dry = await retention.clear(database, log_id, author, to_seq=planned.cut, dry_run=True)
        told = {"from_seq": planned.from_seq, "cut": planned.cut, "to_drop": dry.entries, "held": dry.held}
        # `prune` checks it again: here, so that nobody is asked for what it would refuse.
        if archive is not None and (dry_run or not yes):
            await asyncio.to_thread(pruning.check_archive, planned, archive, keys)
        if archive is None or dry_run:
            tell({"dry_run": True, **told}, as_json=as_json)
            return
        if not yes:
            _ask(told, f"Remove the entries [{planned.from_seq}, {planned.cut}) of tenant {tenant} for ever?")
        async with translated(), forgetting.turn(database.writes, log_id):
            done = await pruning.prune(database, log_id, author, planned, archive, keys)
        tell({"dry_run": False, **told, "seq": done.seq, "deleted": done.deleted}, as_json=as_json)

    with_log(tenant, work)


def _seq_or_time(text: str) -> int | datetime:
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InputError("--before is a seq, a date or a time (RFC 3339)") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


async def _own_keys(database: Database, tenant: str, settings: Settings) -> list[VerifierKey]:
    """The keys of the signing key file, under the name of each epoch of the log."""
    log, _ = await _installed(database, tenant)
    async with bound(database.reads, log.log_id) as connection:
        epoch = (await fetch_sound_head(connection, log.log_id)).epoch
    keys = read_keys(settings.signing_key_path)
    origins = (format_origin(log.service_name, log.log_key, number) for number in range(1, epoch + 1))
    return [verifier for origin in origins for verifier in keys.verifiers(origin)]


def _subject(actor: str | None, actor_type: str | None, target: str | None, events: list[str] | None) -> Subject:
    if sum((actor is not None, target is not None, bool(events))) != 1:
        raise InputError("name exactly one of --actor, --target and --event")
    if actor_type is not None and actor is None:
        raise InputError("--actor-type goes with --actor")
    if actor is not None:
        return Person(actor, actor_type)
    return Events(frozenset(events or ())) if target is None else Target(*type_and_id(target))


async def _stored(database: Database, tenant: str, subject: Subject) -> Subject:
    """What is meant by it in the log: an id with a secret in it is stored in another form than it was sent."""
    if not isinstance(subject, Events):
        return subject
    log, installed = await _installed(database, tenant)
    recipe = recipe_of(Settings(), installed)
    return Events(frozenset(stored_form("id", event, recipe, log) for event in subject.ids))


async def _installed(database: Database, tenant: str) -> tuple[Log, Installation]:
    async with connected(database.reads) as connection:
        found = await credentials.fetch_tenant(connection, tenant)
        installed = await credentials.fetch_installation(connection)
    return Log(found.log_id, installed.service_name, found.log_key), installed


def _groups(groups: list[str] | None) -> frozenset[str] | None:
    wanted = {name for group in groups or () for name in group.split(",")}
    if not wanted <= set(GROUPS):
        raise InputError(f"--groups must be of {', '.join(GROUPS)}")
    return frozenset(wanted) or None


async def _confirmed(
    database: Database, log_id: int, run: Run, question: str, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Count, ask, do, tell."""
    if not yes or dry_run:
        found = await _run(run, dry=True, quiet=as_json)
        if dry_run:
            tell({"dry_run": True, **found.counts()}, as_json=as_json)
            return
        _ask(found.counts(), question)
    async with translated(), forgetting.turn(database.writes, log_id):
        done = await _run(run, dry=False, quiet=as_json)
    tell({"dry_run": False, **done.counts(), "control_entries": done.controls}, as_json=as_json)


def _ask(counts: Mapping[str, object], question: str) -> None:
    err.print(counted(counts), highlight=False)
    if not sys.stdin.isatty():
        raise InputError("nobody is there to confirm; add --yes")
    typer.confirm(question, abort=True, err=True)


async def _run(run: Run, *, dry: bool, quiet: bool) -> Forgotten:
    with progress_bar("segments", hidden=quiet) as bar:
        task = bar.add_task("counting" if dry else "forgetting", total=None)
        return await run(dry, lambda segments: bar.advance(task, segments))
