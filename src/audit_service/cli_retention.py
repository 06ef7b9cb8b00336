"""The commands that forget, and those that keep from forgetting: `retention`, `clear`, `erase`, `prune`, `hold`, `requests`.

They act under the role audit_retention, and work beside a running service and without one. What removes anything first counts it, and asks
unless --yes is given.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import orjson
import typer
from rich.table import Table

from audit_service import keeper, retention
from audit_service import prune as pruning
from audit_service.console import AsJson, Tenant, err, out, progress_bar, retention_url
from audit_service.core import control
from audit_service.core.chain import format_origin
from audit_service.core.entry import GROUPS
from audit_service.core.forgetting import Events, Person, Subject, Target
from audit_service.core.vkey import VerifierKey
from audit_service.errors import InputError, IntegrityError
from audit_service.retention import Author, Forgotten
from audit_service.settings import Settings
from audit_service.signing.keyfile import read_keys
from audit_service.store import credentials, forgetting
from audit_service.store import retention as store
from audit_service.store.credentials import DEFAULT_TENANT
from audit_service.store.engine import Database, bound, connected
from audit_service.store.failures import translated
from audit_service.store.query import fetch_sound_head

BY = "cli"
Reason = Annotated[str, typer.Option(help="Why, without personal data; it is entered in the log and stays")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]
Category = Annotated[str | None, typer.Option(help="Category; without it, all that have no policy of their own")]
T = TypeVar("T")
Run = Callable[[bool, retention.Report], Awaitable[Forgotten]]

retention_app = typer.Typer(no_args_is_help=True, help="How long events keep their content.")
hold_app = typer.Typer(no_args_is_help=True, help="Legal holds: what must not be forgotten.")
requests_app = typer.Typer(no_args_is_help=True, help="Requests to forget that came over HTTP.")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(clear)
    app.command()(erase)
    app.command()(prune)
    app.add_typer(retention_app, name="retention")
    app.add_typer(hold_app, name="hold")
    app.add_typer(requests_app, name="requests")


# --- forgetting ---


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

    _with_log(tenant, work)


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
        async def run(dry: bool, report: retention.Report) -> Forgotten:
            return await retention.erase(
                database, log_id, author, subject, reference=request, groups=wanted, dry_run=dry, report=report
            )

        await _confirmed(database, log_id, run, f"Erase these values of tenant {tenant}?", dry_run, yes, as_json)

    _with_log(tenant, work)


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
        counted = await retention.clear(database, log_id, author, to_seq=planned.cut, dry_run=True)
        told = {"from_seq": planned.from_seq, "cut": planned.cut, "to_drop": counted.entries, "held": counted.held}
        if archive is not None:
            await asyncio.to_thread(pruning.check_archive, planned, archive, keys)
        if archive is None or dry_run:
            _tell({"dry_run": True, **told}, as_json=as_json)
            return
        if not yes:
            _ask(told, f"Remove the entries [{planned.from_seq}, {planned.cut}) of tenant {tenant} for ever?")
        async with translated(), forgetting.turn(database.writes, log_id):
            done = await pruning.prune(database, log_id, author, planned, archive, keys)
        _tell({"dry_run": False, **told, "seq": done.seq, "deleted": done.deleted}, as_json=as_json)

    _with_log(tenant, work)


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
    async with connected(database.reads) as connection:
        found = await credentials.find_tenant(connection, tenant)
        installed = await credentials.fetch_installation(connection)
    if found is None:
        raise InputError("no such tenant")
    async with bound(database.reads, found.log_id) as connection:
        epoch = (await fetch_sound_head(connection, found.log_id)).epoch
    keys = read_keys(settings.signing_key_path)
    origins = (format_origin(installed.service_name, found.log_key, number) for number in range(1, epoch + 1))
    return [verifier for origin in origins for verifier in keys.verifiers(origin)]


def _subject(actor: str | None, actor_type: str | None, target: str | None, events: list[str] | None) -> Subject:
    if sum((actor is not None, target is not None, bool(events))) != 1:
        raise InputError("name exactly one of --actor, --target and --event")
    if actor_type is not None and actor is None:
        raise InputError("--actor-type goes with --actor")
    if actor is not None:
        return Person(actor, actor_type)
    return Events(frozenset(events or ())) if target is None else Target(*_type_and_id(target))


def _type_and_id(target: str) -> tuple[str, str]:
    kind, colon, identifier = target.partition(":")
    if not (kind and colon and identifier):
        raise InputError("--target is TYPE:ID")
    return kind, identifier


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
        counted = await _run(run, dry=True, quiet=as_json)
        if dry_run:
            _tell({"dry_run": True, **counted.counts()}, as_json=as_json)
            return
        _ask(counted.counts(), question)
    async with translated(), forgetting.turn(database.writes, log_id):
        done = await _run(run, dry=False, quiet=as_json)
    _tell({"dry_run": False, **done.counts(), "control_entries": done.controls}, as_json=as_json)


def _ask(counts: Mapping[str, object], question: str) -> None:
    err.print(_counted(counts), highlight=False)
    if not sys.stdin.isatty():
        raise InputError("nobody is there to confirm; add --yes")
    typer.confirm(question, abort=True, err=True)


async def _run(run: Run, *, dry: bool, quiet: bool) -> Forgotten:
    with progress_bar("segments", hidden=quiet) as bar:
        task = bar.add_task("counting" if dry else "forgetting", total=None)
        return await run(dry, lambda segments: bar.advance(task, segments))


# --- retention ---


@retention_app.command("run")
def retention_run(
    tenant: Annotated[str | None, typer.Option(help="Tenant; default: all")] = None,
    *,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Drop now what is older than its policy allows, as the schedule does."""
    settings = Settings()
    author = Author(BY, keeper.SCHEDULE.reason)

    async def work(database: Database, log_id: int) -> dict[str, Forgotten]:
        policies = await keeper.policies_of(database, log_id, settings)
        if dry_run:
            return await retention.apply_policies(database, log_id, author, policies, dry_run=True)
        async with translated(), forgetting.turn(database.writes, log_id):
            return await retention.apply_policies(database, log_id, author, policies)

    done = _with_logs(tenant, work)
    told = [
        {"tenant": name, "category": category or None, "dry_run": dry_run, **part.counts()}
        for name, parts in done.items()
        for category, part in parts.items()
    ]
    _tell_rows(told, as_json=as_json, none="no policies; `retention set` makes one")


@retention_app.command("set")
def retention_set(
    days: Annotated[int, typer.Option(min=1, max=36_500, help="Days that events keep their content")],
    tenant: Tenant = DEFAULT_TENANT,
    category: Category = None,
) -> None:
    """Set the policy of a category, or of all categories that have none of their own."""
    _with_log(
        tenant, lambda database, log_id: store.set_policy(database.writes, log_id, category or store.OTHERS, days)
    )


@retention_app.command("unset")
def retention_unset(tenant: Tenant = DEFAULT_TENANT, category: Category = None) -> None:
    """Remove a policy; then AUDIT_RETENTION_CATEGORIES and AUDIT_RETENTION_DAYS say how long."""
    if not _with_log(
        tenant, lambda database, log_id: store.unset_policy(database.writes, log_id, category or store.OTHERS)
    ):
        raise InputError("no such policy is set")


@retention_app.command("list")
def retention_list(
    tenant: Annotated[str | None, typer.Option(help="Tenant; default: all")] = None, *, as_json: AsJson = False
) -> None:
    """Show how long events keep their content, for each tenant."""
    settings = Settings()
    found = _with_logs(tenant, lambda database, log_id: keeper.policies_of(database, log_id, settings))
    rows = [
        {"tenant": name, "category": category or None, "days": days}
        for name, policies in found.items()
        for category, days in sorted(policies.items())
    ]
    _tell_rows(rows, as_json=as_json, none="no policies: events keep their content for ever")


# --- holds ---


@hold_app.command("set")
def hold_set(
    reason: Reason,
    tenant: Tenant = DEFAULT_TENANT,
    target: Annotated[str | None, typer.Option(help="TYPE:ID: all entries about this target, also later ones")] = None,
    from_seq: Annotated[int | None, typer.Option(min=0, help="First entry held")] = None,
    to_seq: Annotated[int | None, typer.Option(min=1, help="One past the last entry held")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Put entries under legal hold: neither retention nor clear nor erasure takes them until it is lifted."""
    author, hold_id = Author(BY, reason), str(uuid4())
    if (target is None) == (from_seq is None or to_seq is None):
        raise InputError("name either --target, or --from-seq and --to-seq")
    if target is not None:
        entry = control.hold_target(author.act(), hold_id, *_type_and_id(target))
    else:
        start, end = from_seq or 0, to_seq or 0
        if not start < end <= 2**62:
            raise InputError("--from-seq must be below --to-seq")
        entry = control.hold_range(author.act(), hold_id, (start, end))
    entered = _with_log(tenant, lambda database, log_id: store.set_hold(database.writes, log_id, entry))
    _tell({"hold": hold_id, "seq": entered.seq}, as_json=as_json)


@hold_app.command("lift")
def hold_lift(
    hold: Annotated[str, typer.Option(help="The hold's id, as `hold list` shows it")],
    reason: Reason,
    tenant: Tenant = DEFAULT_TENANT,
    *,
    as_json: AsJson = False,
) -> None:
    """Lift a legal hold."""
    entry = control.lift_hold(Author(BY, reason).act(), hold)
    try:
        entered = _with_log(tenant, lambda database, log_id: store.lift_hold(database.writes, log_id, entry))
    except IntegrityError:
        raise InputError("no such hold is in force") from None
    _tell({"hold": hold, "seq": entered.seq}, as_json=as_json)


@hold_app.command("list")
def hold_list(tenant: Tenant = DEFAULT_TENANT, *, as_json: AsJson = False) -> None:
    """Show the legal holds in force. Lifted ones are in the log: `audit-service export --action audit.hold`."""

    async def work(database: Database, log_id: int) -> list[store.Hold]:
        async with bound(database.reads, log_id) as connection:
            return await store.list_holds(connection, log_id)

    _tell_rows([asdict(hold) for hold in _with_log(tenant, work)], as_json=as_json, none="no holds are in force")


# --- requests ---


@requests_app.command("list")
def requests_list(tenant: Tenant = DEFAULT_TENANT, *, as_json: AsJson = False) -> None:
    """Show what was asked for, the latest first."""

    async def work(database: Database, log_id: int) -> list[store.Request]:
        async with bound(database.reads, log_id) as connection:
            return list(await store.list_requests(connection, log_id))

    _tell_rows([asdict(request) for request in _with_log(tenant, work)], as_json=as_json, none="nothing was asked for")


@requests_app.command("refuse")
def requests_refuse(
    request: Annotated[str, typer.Argument(help="The request's id")], tenant: Tenant = DEFAULT_TENANT
) -> None:
    """Refuse a pending request: it is not carried out, and what it asked for is forgotten."""
    if not _with_log(
        tenant, lambda database, log_id: store.finish_request(database.writes, log_id, request, "refused", None)
    ):
        raise InputError("no such request is pending")


@requests_app.command("run")
def requests_run(
    request: Annotated[str, typer.Argument(help="The request's id")],
    tenant: Tenant = DEFAULT_TENANT,
    *,
    as_json: AsJson = False,
) -> None:
    """Carry out a pending request now, without waiting for AUDIT_REQUEST_DELAY_SECONDS."""
    settings = Settings()

    async def work(database: Database, log_id: int) -> dict[str, Any]:
        async with bound(database.reads, log_id) as connection:
            found = await store.fetch_request(connection, log_id, request)
        if found is None or found.status != "pending":
            raise InputError("no such request is pending")
        await keeper.run_request(database, log_id, found, settings)
        async with bound(database.reads, log_id) as connection:
            done = await store.fetch_request(connection, log_id, request)
        return {} if done is None else asdict(done)

    _tell(_with_log(tenant, work), as_json=as_json)


# --- small things ---


def _with_log(tenant: str, work: Callable[[Database, int], Awaitable[T]]) -> T:
    """What `work` answers for the log of a tenant."""
    return _with_logs(tenant, work)[tenant]


def _with_logs(tenant: str | None, work: Callable[[Database, int], Awaitable[T]]) -> dict[str, T]:
    """What `work` answers for the log of one tenant, or of each."""

    async def run(url: str) -> dict[str, T]:
        async with _opened(url) as database:
            return {name: await work(database, log_id) for name, log_id in await _logs(database, tenant)}

    with retention_url(Settings()) as url:
        return asyncio.run(run(url))


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = keeper.open_retention(url)
    try:
        async with translated():
            yield database
    finally:
        await database.dispose()


async def _logs(database: Database, tenant: str | None) -> list[tuple[str, int]]:
    async with connected(database.reads) as connection:
        if tenant is None:
            return [(found.name, found.log_id) for found in await credentials.list_tenants(connection)]
        found = await credentials.find_tenant(connection, tenant)
    if found is None:
        raise InputError("no such tenant")
    return [(tenant, found.log_id)]


def _tell(told: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(told) + b"\n")
    else:
        out.print(_counted(told), highlight=False, markup=False)


def _counted(told: Mapping[str, Any]) -> str:
    return "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in told.items())


def _tell_rows(rows: list[dict[str, Any]], *, as_json: bool, none: str) -> None:
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")
    elif not rows:
        err.print(none)
    else:
        table = Table(*(name.replace("_", " ") for name in rows[0]))
        for row in rows:
            table.add_row(*("-" if value is None else str(value) for value in row.values()))
        out.print(table)
