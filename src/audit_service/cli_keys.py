"""Commands for tenants and API keys: `tenants create|list`, `keys create|list|revoke|check`."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, cast

import orjson
import typer
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.api.new_credentials import NewKey, limits_of_key, parse_body
from audit_service.api.routes import keys, tenants
from audit_service.app import recipe_of
from audit_service.console import EXIT_BAD, EXIT_GOOD, AsJson, Tenant, as_owner, err, operator, out, print_json
from audit_service.core.api_key import SCOPES, is_well_formed, kind_of, public_id
from audit_service.core.key_limits import KeyLimits
from audit_service.core.own_event import OwnEvent, Target
from audit_service.core.redaction import redact_text
from audit_service.core.sight import EVERYTHING
from audit_service.ingest import Log
from audit_service.settings import Settings
from audit_service.store import credentials
from audit_service.store.credentials import DEFAULT_TENANT
from audit_service.watch import Place, own_event

Many = list[str] | None
tenants_app = typer.Typer(no_args_is_help=True, help="Tenants: each has a log of its own.")


def register(app: typer.Typer, keys_app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(tenants_app, name="tenants")
    keys_app.command("create")(keys_create)
    keys_app.command("list")(keys_list)
    keys_app.command("revoke")(keys_revoke)
    keys_app.command("check")(keys_check)


@tenants_app.command("create")
def tenants_create(
    name: Annotated[str, typer.Argument(help="1 to 63 lower-case letters, digits and . _ -")],
    *,
    as_json: AsJson = False,
) -> None:
    """Create a tenant with an empty log, and print its first key, with every scope: the only time it is shown."""
    credentials.check_tenant_name(name)

    async def create(connection: AsyncConnection) -> dict[str, Any]:
        installed = await credentials.fetch_installation(connection)
        record = await credentials.create_tenant(connection, name)
        key = await credentials.create_key(connection, record.log_id, tenants.FIRST_KEY_NAME, SCOPES)
        return tenants.created_view(record, installed.service_name, *key)

    def noted(made: dict[str, Any]) -> tuple[None, OwnEvent]:
        about = tenants.about_created(made)
        return None, own_event("audit.tenant.created", operator(), target=Target("tenant", name), metadata=about)

    created = as_owner(create, noted)
    if as_json:
        print_json(created)
        return
    err.print(f"origin {created['origin']}", markup=False, highlight=False, soft_wrap=True)
    _show_key(created["key"]["key_id"], created["key"]["key"])


@tenants_app.command("list")
def tenants_list(*, as_json: AsJson = False) -> None:
    """List the tenants."""
    views = [tenants.tenant_view(record) for record in as_owner(credentials.list_tenants)]
    if as_json:
        print_json(views, indented=True)
        return
    table = Table("name", Column("log key", no_wrap=True), "created")
    for view in views:
        table.add_row(str(view["name"]), str(view["log_key"]), str(view["created_at"])[:19])
    out.print(table)


def keys_create(
    name: Annotated[str, typer.Argument(help="What the key is for")],
    scope: Annotated[list[str], typer.Option(help="ingest, read, export, verify, viewer or admin; repeatable")],
    tenant: Tenant = DEFAULT_TENANT,
    expires_days: Annotated[int | None, typer.Option(min=1, help="Days until it expires")] = None,
    client: Annotated[str | None, typer.Option(help="Whose key it is: two live keys each")] = None,
    server: Annotated[Many, typer.Option(help="Only this server's events, read and posted; repeatable")] = None,
    category: Annotated[Many, typer.Option(help="Only events of this category; repeatable")] = None,
    source_id: Annotated[str | None, typer.Option(help="The one source.id that it posts")] = None,
    network: Annotated[Many, typer.Option(help="Network that it may be used from, as CIDR; repeatable")] = None,
    staff_as: Annotated[str | None, typer.Option(help="What is shown for the names of staff")] = None,
    *,
    global_events: Annotated[
        bool | None, typer.Option("--global-events/--no-global-events", help="Events without a server; with --server")
    ] = None,
    ips: Annotated[bool, typer.Option("--ips/--no-ips", help="Whether addresses are shown")] = True,
    emails: Annotated[bool, typer.Option("--emails/--no-emails", help="Whether e-mail addresses are shown")] = True,
    audit_entries: Annotated[bool, typer.Option("--audit-entries", help="With the service's own entries")] = False,
    as_json: AsJson = False,
) -> None:
    """Create an API key and print it: the only time it is shown."""
    given = {
        "name": name, "scopes": scope, "client": client, "server_ids": server, "categories": category, "source_id": source_id,
        "networks": network, "staff_as": staff_as, "global_events": global_events, "ips": ips, "emails": emails,
        "audit_entries": audit_entries,
    }  # fmt: skip
    wanted = parse_body(orjson.dumps({n: v for n, v in given.items() if v is not None}), NewKey, "the key")
    expires_at = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)

    async def create(connection: AsyncConnection) -> tuple[Place, str, str, str, KeyLimits]:
        found = await credentials.fetch_tenant(connection, tenant)
        installed = await credentials.fetch_installation(connection)
        recipe = recipe_of(Settings(), installed)
        log = Log(found.log_id, installed.service_name, found.log_key)
        limits = limits_of_key(wanted, KeyLimits(EVERYTHING), recipe, log)
        shown = redact_text(wanted.name, recipe.rules)
        key_id, key = await credentials.create_key(
            connection, found.log_id, shown, wanted.scopes, expires_at, limits=limits, client=wanted.client
        )
        return Place(found.log_id, found.log_key), key_id, key, shown, limits

    def created(done: tuple[Place, str, str, str, KeyLimits]) -> tuple[Place, OwnEvent]:
        place, key_id, _, shown, limits = done
        about, target = keys.about_created(wanted, limits, expires_at), Target("api_key", key_id, shown)
        return place, own_event("audit.key.created", operator(), target=target, metadata=about)

    _, key_id, key, *_ = as_owner(create, created)
    if as_json:
        print_json({"key_id": key_id, "key": key})
    else:
        _show_key(key_id, key)


def _show_key(key_id: str, key: str) -> None:
    err.print(f"key {key_id}; it is shown only now:", highlight=False)
    sys.stdout.write(key + "\n")


def keys_list(*, as_json: AsJson = False) -> None:
    """List the keys of every tenant, live and revoked; never a secret."""
    views = [keys.key_view(record) for record in as_owner(credentials.list_keys)]
    if as_json:
        print_json(views, indented=True)
        return
    table = Table(
        *(Column("key id", no_wrap=True), "tenant", "name", "client", "scopes"),
        *("created", "expires", "revoked", "last used"),
    )
    for view in views:
        scopes = " ".join(cast("list[str]", view["scopes"]))
        times = (str(view[name] or "-")[:19] for name in ("created_at", "expires_at", "revoked_at", "last_used_at"))
        names = (str(view[name] or "-") for name in ("key_id", "tenant", "name", "client"))
        table.add_row(*names, scopes, *times)
    out.print(table)


def keys_revoke(key_id: Annotated[str, typer.Argument(help="Key id, as `keys list` shows it")]) -> None:
    """Revoke a key and the viewer tokens it issued; running workers refuse them within a second."""

    async def revoke(connection: AsyncConnection) -> Place:
        await credentials.revoke_key(connection, key_id)
        return Place(*await credentials.log_of_key(connection, key_id))

    target = Target("api_key", key_id)
    as_owner(revoke, lambda place: (place, own_event("audit.key.revoked", operator(), target=target)))
    err.print(f"revoked {key_id}", highlight=False)


def keys_check(*, as_json: AsJson = False) -> None:
    """Tell whether what is typed, or piped in, is a whole API key or viewer token, by its checksum alone: without a database, and without
    showing it. Exit 0 if it is, 1 if it is not. Whether it is live, only the service knows."""
    text = typer.prompt("key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline(10_000)
    key = text.strip()
    kind = kind_of(key)
    is_good = is_well_formed(key)
    if as_json:
        print_json({"well_formed": is_good, "kind": kind, "id": public_id(key) if is_good else None})
    elif is_good:
        out.print(f"{_KINDS[str(kind)]} {public_id(key)}, whole", highlight=False)
    else:
        out.print(
            "no key: nothing of ours has this shape"
            if kind is None
            else f"mistyped: shaped like {_KINDS[kind]}, but its checksum does not fit",
            highlight=False,
        )
    raise typer.Exit(EXIT_GOOD if is_good else EXIT_BAD)


_KINDS = {"api_key": "an API key", "viewer_token": "a viewer token"}
