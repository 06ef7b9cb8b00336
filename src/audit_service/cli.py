"""The command line. Progress bars on anything long, `--json` on anything a script reads; exit 0 good, 1 the log is bad, 2 could not tell.

Commands reach the database directly: AUDIT_DATABASE_URL when set, else the embedded server under AUDIT_DATA_DIR, that of a running
`serve` when there is one, or started for the duration of the command.
"""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Annotated, cast, get_args

import orjson
import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.table import Table

from audit_service import cli_drill, cli_forgetting, cli_keys, cli_retention, cli_signing
from audit_service import evidence as bundling
from audit_service import export as exporting
from audit_service import verify as verifying
from audit_service.api import parameters
from audit_service.api.routes.evidence import evidence_wanted
from audit_service.app import recipe_of
from audit_service.console import (
    EXIT_BAD,
    EXIT_GOOD,
    EXIT_UNKNOWN,
    AsJson,
    Tenant,
    err,
    out,
    owner_url,
    progress_bar,
    reading,
)
from audit_service.core.checker import Depth
from audit_service.core.pinned import split_notes
from audit_service.core.sight import EVERYTHING
from audit_service.core.vkey import parse_vkey
from audit_service.core.writer import Format
from audit_service.errors import AuditError, InputError
from audit_service.ingest import stored_form
from audit_service.offline import verify_file
from audit_service.settings import Settings
from audit_service.signing.public_keys import own_keys
from audit_service.store import find
from audit_service.store.credentials import DEFAULT_TENANT
from audit_service.store.engine import bound
from audit_service.store.failures import translated
from audit_service.store.migrate import upgrade
from audit_service.store.tiles import TileRoots
from audit_service.stored_tree import StoredTree
from audit_service.verified import VerifiedLogs

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="An audit log that proves itself."
)
keys_app = typer.Typer(no_args_is_help=True, help="API keys, and the signing key.")
app.add_typer(keys_app, name="keys")
cli_keys.register(app, keys_app)
cli_signing.register(app, keys_app)
cli_forgetting.register(app)
cli_drill.register(app)
cli_retention.register(app)


def main() -> None:
    """Entry point: a known failure is one line and exit 2, never a traceback."""
    try:
        app()
    except SettingsError as error:
        # Its text holds the value; the cause names what is wrong with it.
        name = re.search(r'field "(\w+)"', str(error))
        what = f"AUDIT_{name.group(1).upper()}" if name else "a setting"
        err.print(
            f"{what}: must be JSON; the table in the README shows how", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(EXIT_UNKNOWN)
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            err.print(
                f"{'_'.join(['AUDIT', *map(str, item['loc'])]).upper() if item['loc'] else 'settings'}: {item['msg']}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        sys.exit(EXIT_UNKNOWN)
    except (AuditError, OSError) as error:
        err.print(f"audit-service: {error}", markup=False, highlight=False, soft_wrap=True)
        for fault in error.faults if isinstance(error, InputError) else ():
            err.print(
                f"  {fault.parameter or fault.pointer}: {fault.detail}", markup=False, highlight=False, soft_wrap=True
            )
        sys.exit(EXIT_UNKNOWN)


@app.command()
def serve() -> None:
    """Run the service: PostgreSQL (unless AUDIT_DATABASE_URL is set), migrations, workers."""
    from audit_service.supervisor import serve as supervise  # noqa: PLC0415 - the other commands start faster without it

    raise typer.Exit(supervise(Settings()))


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema."""
    with owner_url(Settings()) as url:
        upgrade(url)
    err.print("the schema is up to date")


@app.command()
def demo(*, keep: Annotated[bool, typer.Option(help="Keep the demo's data directory")] = False) -> None:
    """Post a day of panel activity to a throw-away instance, verify it, tamper with it, and show what verify finds."""
    from audit_service.demo import run  # noqa: PLC0415

    raise typer.Exit(run(keep=keep))


@app.command()
def openapi() -> None:
    """Print the OpenAPI document as YAML."""
    from audit_service.app import openapi_yaml  # noqa: PLC0415

    sys.stdout.write(openapi_yaml())


@app.command()
def verify(
    tenant: Tenant = DEFAULT_TENANT,
    from_seq: Annotated[int, typer.Option(min=0, help="First entry to check")] = 0,
    to_seq: Annotated[int | None, typer.Option(min=0, help="One past the last entry to check")] = None,
    depth: Annotated[str, typer.Option(help="chain: headers, bodies and links only; all: everything")] = "all",
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="File of signed checkpoints kept elsewhere, one or several; repeatable"),
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="Key that may have signed the log's checkpoints, as a vkey; repeatable")
    ] = None,
    *,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Start where the background verification found the log right")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check every hash, link, disclosure and query column of a log. Exit 0 ok, 1 broken, 2 could not tell."""
    if depth not in get_args(Depth):
        raise InputError("--depth must be chain or all")
    notes = [note for path in checkpoint or [] for note in _notes_in(path)]
    trusted = [parse_vkey(text) for text in key or []]
    settings = Settings()
    steps = partial(
        verifying.verify,
        from_seq=from_seq,
        to_seq=to_seq,
        depth=cast("Depth", depth),
        checkpoints=notes,
        trusted=trusted,
        own=own_keys(settings.signing_dir, settings.signing_key_path),
    )
    if incremental and (from_seq or to_seq is not None):
        raise InputError("--incremental is not for a range")
    report = asyncio.run(_verify(tenant, steps, incremental=incremental, quiet=as_json))
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2) + b"\n")
    else:
        print_report(report, out)
    raise typer.Exit({"ok": EXIT_GOOD, "broken": EXIT_BAD}.get(report.status, EXIT_UNKNOWN))


def _notes_in(path: Path) -> list[str]:
    """At least one: a file that nothing came into must not pass for a check against it."""
    notes = split_notes(_text_of(path))
    if not notes:
        raise InputError(f"{path} holds no checkpoint")
    return notes


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} cannot be read") from None


async def _verify(
    tenant: str,
    verify_log: Callable[..., AsyncIterator[verifying.Progress | verifying.Report]],
    *,
    incremental: bool,
    quiet: bool,
) -> verifying.Report:
    settings = Settings()
    async with reading(settings, tenant) as (engine, log, installed):
        state = VerifiedLogs(settings.data_dir, installed.secret).read(log.log_key) if incremental else None
        point, start = (None, None) if state is None else (state.point, state.start)
        with progress_bar("entries", hidden=quiet) as bar:
            task = bar.add_task("verifying", total=None)
            async for step in verify_log(engine, log.log_id, verified=point, incremental=start is not None):
                if isinstance(step, verifying.Report):
                    return step
                bar.update(task, completed=step.done, total=step.total)
    raise AssertionError("a verification ends with a report")


def print_report(report: verifying.Report, console: Console) -> None:
    """A report as a person reads it."""
    colour = {"ok": "green", "broken": "red"}.get(report.status, "yellow")
    console.print(
        f"[bold {colour}]{report.status}[/] {report.count} entries, seq [{report.from_seq}, {report.to_seq})",
        highlight=False,
    )
    console.print(
        f"origin {report.origin}\nhead   {report.head}\nroot   {report.root or 'not checked'}",
        markup=False,
        highlight=False,
    )
    if report.pruned_before is not None:
        console.print(f"pruned before seq {report.pruned_before}", highlight=False)
    if report.dropped or report.erased:
        console.print(f"forgotten on record: {report.dropped} bodies, {report.erased} disclosures", highlight=False)
    for one in report.checkpoints:
        console.print(
            f"checkpoint of size {one.checkpoint.size}: {one.status}: {one.detail}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if report.breaks:
        table = Table("seq", "kind", "expected", "found")
        for item in report.breaks:
            table.add_row(
                *(
                    str(value) if value is not None else "-"
                    for value in (item.seq, item.kind, item.expected, item.found)
                )
            )
        console.print(table)
        if report.breaks_total > len(report.breaks):
            console.print(f"… and {report.breaks_total - len(report.breaks)} more")
    for what in report.not_checked:
        console.print(f"not checked: {what}", markup=False, highlight=False, soft_wrap=True)


@app.command("verify-file")
def verify_bundle(
    bundle: Annotated[Path, typer.Argument(help="A bundle of evidence, or a .tlog-proof file")],
    key: Annotated[list[str] | None, typer.Option(metavar="VKEY", help="A key to trust; repeatable")] = None,
    policy: Annotated[Path | None, typer.Option(help="A C2SP policy file: log keys and witnesses to trust")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Check a bundle offline, without any database. Exit 0 good, 1 bad, 2 could not tell (no --key: never good)."""
    raise typer.Exit(verify_file.run(bundle, key or [], policy, as_json=as_json))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def export(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write; - for standard output")] = Path("-"),
    format_: Annotated[str, typer.Option("--format", help="csv, json or ndjson")] = "ndjson",
    tenant: Tenant = DEFAULT_TENANT,
    *,
    gzip: Annotated[
        bool | None, typer.Option("--gzip/--no-gzip", help="Write gzip (default: when the file's name ends in .gz)")
    ] = None,
) -> None:
    """Write everything the filters select. Filters are those of GET /v1/events, as options: `--actor ana* --server_id s9`."""
    if format_ not in get_args(Format):
        raise InputError("--format must be csv, json or ndjson")
    packed = output.suffix == ".gz" if gzip is None else gzip
    asyncio.run(_export(tenant, _pairs(context.args), cast("Format", format_), output, gzip=packed))


def _pairs(arguments: list[str]) -> list[tuple[str, str]]:
    """`--name value` and `--name=value` as parameters."""
    pairs, waiting = [], None
    for argument in arguments:
        if waiting is not None:
            pairs.append((waiting, argument))
            waiting = None
        elif argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            if equals:
                pairs.append((name, value))
            else:
                waiting = name
        else:
            raise InputError("filters are given as --name value")
    if waiting is not None:
        raise InputError(f"--{waiting} needs a value")
    return pairs


async def _export(tenant: str, pairs: list[tuple[str, str]], format_: Format, output: Path, *, gzip: bool) -> None:
    settings = Settings()
    async with reading(settings, tenant) as (engine, log, installed):
        log_id = log.log_id
        asked = parameters.Query(pairs, parameters.FILTERS)
        recipe = recipe_of(settings, installed)
        selection = parameters.selection(
            asked, sight=EVERYTHING, stored_form=lambda name, value: stored_form(name, value, recipe, log)
        )
        asked.finish()
        with progress_bar("entries", hidden=str(output) == "-") as bar:
            task = bar.add_task("exporting", total=None)
            if not bar.disable:  # counting reads, too
                async with translated(), bound(engine, log_id, EVERYTHING) as connection:
                    count, capped = await find.count_entries(connection, log_id, selection, cap=10_000_000)
                bar.update(task, total=None if capped else count)
            pieces = exporting.export(
                engine,
                log_id,
                selection,
                format_,
                settings.link_templates,
                gzip=gzip,
                report=lambda entries: bar.advance(task, entries),
            )
            async with aclosing(pieces):
                await _write(pieces, output)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def evidence(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--out", "-o", help="File to write; - for standard output")],
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Write a bundle of evidence that anybody can check offline with `verify-file`. Options are the parameters of GET /v1/evidence:
    `--from-seq`, `--to-seq`, `--checkpoint-size`, and filters, which leave out entries: `--actor ana*`."""
    asyncio.run(_evidence(tenant, [(_parameter_name(name), value) for name, value in _pairs(context.args)], output))


def _parameter_name(name: str) -> str:
    return name.replace("-", "_")


async def _evidence(tenant: str, pairs: list[tuple[str, str]], output: Path) -> None:
    settings = Settings()
    async with reading(settings, tenant) as (engine, log, installed):
        recipe = recipe_of(settings, installed)
        wanted = evidence_wanted(pairs, lambda name, value: stored_form(name, value, recipe, log))
        tree = StoredTree(engine, log.log_id, f"{log.service_name}/t/{log.log_key}", TileRoots())
        plan = await bundling.plan_evidence(tree, wanted)
        with progress_bar("entries", hidden=str(output) == "-") as bar:
            total = plan.to_seq - plan.from_seq if plan.selection is None else None
            task = bar.add_task("bundling", total=total)
            async with aclosing(
                bundling.make_evidence(tree, plan, lambda entries: bar.advance(task, entries))
            ) as pieces:
                await _write(pieces, output)
    err.print(
        f"seq [{plan.from_seq}, {plan.to_seq}) in the log of {plan.signed.size} entries as signed", highlight=False
    )


async def _write(pieces: AsyncIterator[bytes], output: Path) -> None:
    """Write a file, or to standard output. Only a complete file gets the name that was asked for."""
    if str(output) == "-":
        async for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    partial = output.with_name(output.name + ".part")
    with partial.open("wb") as target:
        async for piece in pieces:
            target.write(piece)
    partial.replace(output)


if __name__ == "__main__":
    main()
