"""`audit-service drill`."""

import asyncio
import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import orjson
import structlog
import typer
from rich.table import Table

from audit_service.console import EXIT_BAD, EXIT_GOOD, AsJson, Tenant, err, out, progress_bar, reading
from audit_service.core.entry import Prepared
from audit_service.drill.case import Kinds
from audit_service.drill.drilling import RED, Outcome, drill
from audit_service.drill.matrix import cases
from audit_service.drill.scratch import ENTRIES_MINIMUM, Ground, copied_entries, open_ground
from audit_service.settings import Settings
from audit_service.store.credentials import DEFAULT_TENANT

_COLOURS = {"as expected": "green", "more found": "yellow"}


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command("drill")(run)


def run(
    tenant: Tenant = DEFAULT_TENANT,
    entries: Annotated[
        int,
        typer.Option(
            min=ENTRIES_MINIMUM,
            max=100_000,
            help="Entries of the scratch log; the newest of the tenant's, and made-up ones",
        ),
    ] = 500,
    *,
    as_json: AsJson = False,
) -> None:
    """Commit every attack of the threat matrix on a scratch copy, and say what found it. The log itself is only read.

    The copy is a throw-away PostgreSQL in a temporary folder. Exit 1 when an attack slips through that should be found, or a lawful
    act is taken for one.
    """
    # What the signer refuses here is what the table says.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    copied = asyncio.run(_copied(tenant, entries))
    with open_ground(lambda line: err.print(line, markup=False, highlight=False)) as ground:
        outcomes = asyncio.run(_drill(ground, copied, entries, quiet=as_json))
    if as_json:
        document = {"copied": len(copied), "entries": entries, "outcomes": [outcome.as_json() for outcome in outcomes]}
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        _print(outcomes, len(copied), entries)
    raise typer.Exit(EXIT_BAD if any(outcome.verdict in RED for outcome in outcomes) else EXIT_GOOD)


async def _copied(tenant: str, entries: int) -> list[Prepared]:
    async with reading(Settings(), tenant) as (engine, log, _):
        return await copied_entries(engine, log.log_id, entries)


async def _drill(ground: Ground, copied: Sequence[Prepared], entries: int, *, quiet: bool) -> list[Outcome]:
    outcomes = []
    matrix = cases()
    with progress_bar("entries", hidden=quiet) as bar:
        task = bar.add_task("copying", total=entries)
        await ground.build(copied, entries, lambda done: bar.update(task, completed=done))
    with progress_bar("attacks", hidden=quiet) as bar:
        task = bar.add_task("attacking", total=len(matrix))
        async for outcome in drill(ground, matrix):
            outcomes.append(outcome)
            bar.advance(task)
    return outcomes


def _print(outcomes: Sequence[Outcome], copied: int, entries: int) -> None:
    table = Table("", "attack", "by the chain", "by the checkpoint", "by others", "verdict", title="The drill")
    for outcome in outcomes:
        colour = _COLOURS.get(outcome.verdict, "bold red")
        others = ", ".join(
            f"{who}: {_words(seen.found)}" for who, seen in outcome.seen.items() if who not in ("chain", "checkpoint")
        )
        cells = [_words(outcome.seen[who].found) if who in outcome.seen else "-" for who in ("chain", "checkpoint")]
        name = f"lawful: {outcome.case.name}" if outcome.case.lawful else outcome.case.name
        table.add_row(outcome.case.threat, name, *cells, others or "-", f"[{colour}]{outcome.verdict}[/]")
    out.print(table)
    red = sum(outcome.verdict in RED for outcome in outcomes)
    out.print(
        f"{len(outcomes)} attacks and lawful twins on a scratch log of {entries} entries, {copied} of them copied; {red} not as the "
        "threat matrix says. `not found` stands where nothing inside can show it: keep checkpoints elsewhere.",
        highlight=False,
    )


def _words(found: Kinds) -> str:
    return ", ".join(sorted(found)) or "not found"
