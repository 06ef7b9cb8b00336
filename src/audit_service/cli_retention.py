"""The commands around forgetting: `retention`, `hold`, `requests`. What forgets by itself is in `cli_forgetting`."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import uuid4

import typer

from audit_service import keeper, retention
from audit_service.console import AsJson, Tenant, note_command
from audit_service.core import control
from audit_service.core.own_event import Target
from audit_service.errors import InputError, IntegrityError
from audit_service.retention import Author, Forgotten
from audit_service.retention_console import BY, DryRun, Reason, tell, tell_rows, type_and_id, with_log, with_logs
from audit_service.settings import Settings
from audit_service.store import forgetting
from audit_service.store import retention as store
from audit_service.store.credentials import DEFAULT_TENANT
from audit_service.store.engine import Database, bound
from audit_service.store.failures import translated

Category = Annotated[str | None, typer.Option(help="Category; without it, all that have no policy of their own")]

retention_app = typer.Typer(no_args_is_help=True, help="How long events keep their content.")
hold_app = typer.Typer(no_args_is_help=True, help="Legal holds: what must not be forgotten.")
requests_app = typer.Typer(no_args_is_help=True, help="Requests to forget that came over HTTP.")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(retention_app, name="retention")
    app.add_typer(hold_app, name="hold")
    app.add_typer(requests_app, name="requests")


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

    done = with_logs(tenant, work)
    told = [
        {"tenant": name, "category": category or None, "dry_run": dry_run, **part.counts()}
        for name, parts in done.items()
        for category, part in parts.items()
    ]
    tell_rows(told, as_json=as_json, none="no policies; `retention set` makes one")


@retention_app.command("set")
def retention_set(
    days: Annotated[int, typer.Option(min=1, max=36_500, help="Days that events keep their content")],
    tenant: Tenant = DEFAULT_TENANT,
    category: Category = None,
) -> None:
    """Set the policy of a category, or of all categories that have none of their own."""
    with_log(tenant, lambda database, log_id: store.set_policy(database.writes, log_id, category or store.OTHERS, days))
    note_command(tenant, "audit.policy.set", metadata={"category": category, "days": days})


@retention_app.command("unset")
def retention_unset(tenant: Tenant = DEFAULT_TENANT, category: Category = None) -> None:
    """Remove a policy; then AUDIT_RETENTION_CATEGORIES and AUDIT_RETENTION_DAYS say how long."""
    if not with_log(
        tenant, lambda database, log_id: store.unset_policy(database.writes, log_id, category or store.OTHERS)
    ):
        raise InputError("no such policy is set")
    note_command(tenant, "audit.policy.unset", metadata={"category": category})


@retention_app.command("list")
def retention_list(
    tenant: Annotated[str | None, typer.Option(help="Tenant; default: all")] = None, *, as_json: AsJson = False
) -> None:
    """Show how long events keep their content, for each tenant."""
    settings = Settings()
    found = with_logs(tenant, lambda database, log_id: keeper.policies_of(database, log_id, settings))
    rows = [
        {"tenant": name, "category": category or None, "days": days}
        for name, policies in found.items()
        for category, days in sorted(policies.items())
    ]
    tell_rows(rows, as_json=as_json, none="no policies: events keep their content for ever")


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
        entry = control.hold_target(author.act(), hold_id, *type_and_id(target))
    else:
        start, end = from_seq or 0, to_seq or 0
        if not start < end <= 2**62:
            raise InputError("--from-seq must be below --to-seq")
        entry = control.hold_range(author.act(), hold_id, (start, end))
    entered = with_log(tenant, lambda database, log_id: store.set_hold(database.writes, log_id, entry))
    tell({"hold": hold_id, "seq": entered.seq}, as_json=as_json)


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
        entered = with_log(tenant, lambda database, log_id: store.lift_hold(database.writes, log_id, entry))
    except IntegrityError:
        raise InputError("no such hold is in force") from None
    tell({"hold": hold, "seq": entered.seq}, as_json=as_json)


@hold_app.command("list")
def hold_list(tenant: Tenant = DEFAULT_TENANT, *, as_json: AsJson = False) -> None:
    """Show the legal holds in force. Lifted ones are in the log: `audit-service export --action audit.hold`."""

    async def work(database: Database, log_id: int) -> list[store.Hold]:
        async with bound(database.reads, log_id) as connection:
            return await store.list_holds(connection, log_id)

    tell_rows([asdict(hold) for hold in with_log(tenant, work)], as_json=as_json, none="no holds are in force")


# --- requests ---


@requests_app.command("list")
def requests_list(tenant: Tenant = DEFAULT_TENANT, *, as_json: AsJson = False) -> None:
    """Show what was asked for, the latest first."""

    async def work(database: Database, log_id: int) -> list[store.Request]:
        async with bound(database.reads, log_id) as connection:
            return list(await store.list_requests(connection, log_id))

    tell_rows([asdict(request) for request in with_log(tenant, work)], as_json=as_json, none="nothing was asked for")


@requests_app.command("refuse")
def requests_refuse(
    request: Annotated[str, typer.Argument(help="The request's id")], tenant: Tenant = DEFAULT_TENANT
) -> None:
    """Refuse a pending request: it is not carried out, and what it asked for is forgotten."""
    if not with_log(
        tenant, lambda database, log_id: store.finish_request(database.writes, log_id, request, "refused", None)
    ):
        raise InputError("no such request is pending")
    note_command(tenant, "audit.request.refused", target=Target("request", request))


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

    tell(with_log(tenant, work), as_json=as_json)
