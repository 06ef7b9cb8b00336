"""The commands around the signer: `sign`, `checkpoint …`, and those of `keys` that are about the signing key.

What changes keys or states takes its turn with a running signer, and works without one.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from audit_service.api.logs import configure as configure_logs
from audit_service.console import (
    EXIT_BAD,
    EXIT_GOOD,
    AsJson,
    Tenant,
    err,
    out,
    print_json,
    progress_bar,
    reading,
    signing_url,
)
from audit_service.core.chain import format_origin
from audit_service.core.entry import format_time
from audit_service.core.tiles import BuiltTile
from audit_service.core.vkey import format_vkey
from audit_service.errors import NotFoundError
from audit_service.lifeline import until_signal
from audit_service.settings import Settings
from audit_service.signer import open_signing
from audit_service.signer import run as run_signer
from audit_service.signing import resume as resuming
from audit_service.signing import rotation
from audit_service.signing.keyfile import Keys, read_keys
from audit_service.signing.lease import Signing
from audit_service.signing.tree import rebuild_tiles
from audit_service.store import signing as store
from audit_service.store.checkpoints import fetch_latest_checkpoint
from audit_service.store.credentials import DEFAULT_TENANT, fetch_tenant
from audit_service.store.engine import bound, connected
from audit_service.store.failures import translated
from audit_service.store.signing import SignedLog
from audit_service.verified import forget_verified

Reason = Annotated[str, typer.Option(help="Why, without personal data; it is entered in the log")]
T = TypeVar("T")

checkpoint_app = typer.Typer(help="Signed checkpoints. Without a command: print the latest one.")


def sign() -> None:
    """Sign checkpoints until stopped: the signer by itself, for where AUDIT_SIGN=false keeps `serve` from running it."""
    settings = Settings()
    configure_logs(settings.log_level)
    with signing_url(settings) as url:
        code = asyncio.run(until_signal(lambda stopped: run_signer(settings, url, stopped)))
    raise typer.Exit(code)


@checkpoint_app.callback(invoke_without_command=True)
def checkpoint(
    context: typer.Context,
    tenant: Tenant = DEFAULT_TENANT,
    output: Annotated[Path, typer.Option("--out", help="File to write; - for standard output")] = Path("-"),
) -> None:
    """Print the latest checkpoint of a log: a signed note, to be kept where the operator of this service cannot change it."""
    if context.invoked_subcommand is not None:
        return
    note = asyncio.run(_latest(tenant))
    if str(output) == "-":
        sys.stdout.buffer.write(note.encode())
    else:
        output.write_text(note, "utf-8")


async def _latest(tenant: str) -> str:
    async with reading(Settings(), tenant) as (engine, log, _), translated(), bound(engine, log.log_id) as connection:
        found = await fetch_latest_checkpoint(connection, log.log_id)
    if found is None:
        raise NotFoundError("no checkpoint of this log was signed yet")
    return found.note


@checkpoint_app.command("resume")
def resume(reason: Reason, tenant: Tenant = DEFAULT_TENANT, *, as_json: AsJson = False) -> None:
    """Go on signing after a restore that lost what was signed: begins a new epoch of the log, and enters what is lost in the log."""
    done = _with_signing(lambda signing: _resume(signing, tenant, reason, quiet=as_json))
    _say_stale(done.stale)
    losses = [{"epoch": one.epoch, "seq": one.seq, "lost": one.lost, "last_good": one.last_good} for one in done.losses]
    if as_json:
        told = {"size": done.size, "root": done.root.hex(), **losses[-1], "losses": losses, "epoch": done.epoch}
        print_json(told)
        return
    out.print(
        f"resumed as epoch {done.epoch} at size {done.size}", *map(_told_loss, done.losses),
        sep="\n", markup=False, highlight=False,
        soft_wrap=True,  # a note with a broken line is none
    )  # fmt: skip


def _told_loss(loss: resuming.Loss) -> str:
    first, end = loss.lost
    told = f"not shown to be there any more: seq [{first}, {end})" if first < end else "nothing that was signed is lost"
    return f"epoch {loss.epoch}: {told}; the `resume` entry is seq {loss.seq}\nlast good checkpoint:\n{loss.last_good}"


async def _resume(signing: Signing, tenant: str, reason: str, *, quiet: bool) -> resuming.Resumed:
    target = await _log_of(signing, tenant)
    with progress_bar("entries", hidden=quiet) as bar:
        task = bar.add_task("reading the log", total=None)
        done = await resuming.resume(
            signing, target, reason=reason, report=lambda size: bar.update(task, completed=size)
        )
    # The operator has said what is lost: the background verification is not to miss it for ever.
    forget_verified(Settings().data_dir, target.log_key)
    return done


@checkpoint_app.command("rebuild-tiles")
def rebuild(tenant: Tenant = DEFAULT_TENANT, *, as_json: AsJson = False) -> None:
    """Make the tiles of the hash tree anew from the entries: stores missing ones, names differing ones. Exit 1 when any differs."""
    size, differing = _with_signing(lambda signing: _rebuild(signing, tenant, quiet=as_json))
    if as_json:
        named = [{"level": tile.level, "number": tile.number} for tile in differing]
        print_json({"size": size, "differing": named})
    else:
        _say_stale(differing)
        out.print(f"the tiles of {size} entries are there; {len(differing)} differ", highlight=False)
    raise typer.Exit(EXIT_BAD if differing else EXIT_GOOD)


async def _rebuild(signing: Signing, tenant: str, *, quiet: bool) -> tuple[int, list[BuiltTile]]:
    target = await _log_of(signing, tenant)
    with progress_bar("entries", hidden=quiet) as bar:
        task = bar.add_task("rebuilding tiles", total=None)
        return await rebuild_tiles(signing, target.log_id, lambda size: bar.update(task, completed=size))


def _say_stale(tiles: list[BuiltTile]) -> None:
    for tile in tiles:
        err.print(
            f"tile level {tile.level} number {tile.number} is stored with other hashes than the entries have: "
            "delete it as the database's administrator, then run `checkpoint rebuild-tiles`",
            highlight=False,
            soft_wrap=True,
        )


def rotate_signing(reason: Reason = "rotation", *, as_json: AsJson = False) -> None:
    """Let a new key succeed the signing key. Both sign for AUDIT_SIGNING_OVERLAP_DAYS; then the old seed is destroyed."""
    days = Settings().signing_overlap_days
    changed = _with_signing(
        lambda signing: rotation.rotate(signing, overlap_days=days, reason=reason, report=_report(quiet=as_json))
    )
    _say_changed(changed, as_json=as_json)


def revoke_signing(reason: Reason, *, as_json: AsJson = False) -> None:
    """Replace every key that signs by a new one, at once: for when the key file may have been read by others."""
    changed = _with_signing(lambda signing: rotation.revoke(signing, reason=reason, report=_report(quiet=as_json)))
    _say_changed(changed, as_json=as_json)


def list_signing(*, as_json: AsJson = False) -> None:
    """List the signing keys as vkeys, for each log: what verifiers are given. Never a seed."""
    keys = read_keys(Settings().signing_key_path)
    listed = _with_signing(lambda signing: _vkeys(signing, keys))
    if as_json:
        print_json(listed, indented=True)
        return
    for item in listed:
        out.print(
            f"{item['vkey']}  {item['state']}, tenant {item['tenant']}", markup=False, highlight=False, soft_wrap=True
        )


async def _vkeys(signing: Signing, keys: Keys) -> list[dict[str, str]]:
    service_name, logs = await store.list_signed_logs(signing.database.reads)
    states = ["retired"] * len(keys.retired) + [
        "signs" if key.retired_at is None else f"signs until {format_time(key.retired_at)}" for key in keys.signing
    ]
    listed = []
    for target in logs:
        head = await store.fetch_stored_head(signing.database.reads, target.log_id)
        origin = format_origin(service_name, target.log_key, head.epoch)
        for verifier, state in zip(keys.verifiers(origin), states, strict=True):
            listed.append({"tenant": target.tenant, "vkey": format_vkey(verifier), "state": state})
    return listed


def _report(*, quiet: bool) -> rotation.Report:
    return (lambda _step: None) if quiet else (lambda step: err.print(step, markup=False, highlight=False))


def _say_changed(changed: rotation.Changed, *, as_json: bool) -> None:
    until = None if changed.until is None else format_time(changed.until)
    if as_json:
        told = {"public": changed.new.public.hex(), "logs": changed.logs, "old_signs_until": until}
        print_json(told)
        return
    ending = (
        "the keys before are revoked, their seeds destroyed" if until is None else f"the old key signs until {until}"
    )
    out.print(
        f"a new key signs; {ending}\ntell verifiers its vkeys: `audit-service keys list-signing`", highlight=False
    )


async def _log_of(signing: Signing, tenant: str) -> SignedLog:
    async with translated(), connected(signing.database.reads) as connection:
        found = await fetch_tenant(connection, tenant)
    return SignedLog(tenant, found.log_id, found.log_key)


def _with_signing(work: Callable[[Signing], Awaitable[T]]) -> T:
    """Run `work` with the database as the signing role, the state folder and the key file."""

    async def run(settings: Settings, url: str) -> T:
        signing = open_signing(settings, url)
        try:
            return await work(signing)
        finally:
            await signing.database.dispose()

    settings = Settings()
    with signing_url(settings) as url:
        return asyncio.run(run(settings, url))


def register(app: typer.Typer, keys_app: typer.Typer) -> None:
    """Put these commands where they belong."""
    app.command("sign")(sign)
    app.add_typer(checkpoint_app, name="checkpoint")
    keys_app.command("rotate-signing")(rotate_signing)
    keys_app.command("revoke-signing")(revoke_signing)
    keys_app.command("list-signing")(list_signing)
