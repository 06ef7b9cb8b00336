"""`audit-service drill`."""

import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Annotated

import structlog
import typer
from rich.table import Table

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
    unwind,
)
from audit_service.core.entry import Prepared
from audit_service.drill.case import Observer
from audit_service.drill.drilling import RED, Outcome, drill
from audit_service.drill.matrix import cases
from audit_service.drill.scratch import ENTRIES_MINIMUM, Ground, copied_entries, open_ground
from audit_service.settings import Settings
from audit_service.store.credentials import DEFAULT_TENANT

_COLOURS = {"as expected": "green", "more found": "yellow"}
_COLUMNS: tuple[Observer, ...] = ("chain", "checkpoint")
_ENDING = (signal.SIGTERM, signal.SIGHUP)
# What it means that one of these found nothing.
_NOTHING: dict[Observer, str] = {
    "signer": "signs",
    "bundle": "good",
    "sources": "no hole",
    "receipt": "there",
    "archive": "kept",
}


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
    for number in _ENDING:
        signal.signal(number, unwind)
    copied = asyncio.run(_copied(tenant, entries))
    with open_ground(lambda line: err.print(line, markup=False, highlight=False)) as ground:
        try:
            outcomes = asyncio.run(_drill(ground, copied, entries, quiet=as_json))
        except asyncio.CancelledError:
            raise typer.Exit(128 + signal.SIGTERM) from None
    if as_json:
        document = {"copied": len(copied), "entries": entries, "outcomes": [outcome.as_json() for outcome in outcomes]}
        print_json(document, indented=True)
    else:
        _print(outcomes, len(copied), entries)
    raise typer.Exit(EXIT_BAD if any(outcome.verdict in RED for outcome in outcomes) else EXIT_GOOD)


async def _copied(tenant: str, entries: int) -> list[Prepared]:
    async with reading(Settings(), tenant) as (engine, log, _):
        return await copied_entries(engine, log.log_id, entries)


async def _drill(ground: Ground, copied: Sequence[Prepared], entries: int, *, quiet: bool) -> list[Outcome]:
    outcomes: list[Outcome] = []
    matrix, task = cases(), asyncio.current_task()
    assert task is not None  # noqa: S101 - we are in one
    # Between two steps of the loop: an exception out of a handler could be raised where it is swallowed.
    for number in _ENDING:
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with progress_bar("entries", hidden=quiet) as bar:
        copying = bar.add_task("copying", total=entries)
        await ground.build(copied, entries, lambda done: bar.update(copying, completed=done))
    with progress_bar("attacks", hidden=quiet) as bar:
        attacking = bar.add_task("attacking", total=len(matrix))
        async for outcome in drill(ground, matrix):
            outcomes.append(outcome)
            bar.advance(attacking)
    return outcomes


def _print(outcomes: Sequence[Outcome], copied: int, entries: int) -> None:
    table = Table("", "attack", "by the chain", "by the checkpoint", "by others", "verdict")
    for outcome in outcomes:
        colour = _COLOURS.get(outcome.verdict, "bold red")
        told = {who: _told(outcome, who) for who in outcome.seen}
        others = ", ".join(f"{who}: {what}" for who, what in told.items() if who not in _COLUMNS)
        name = f"lawful: {outcome.case.name}" if outcome.case.lawful else outcome.case.name
        cells = (told.get(who, "-") for who in _COLUMNS)
        table.add_row(outcome.case.threat or "-", name, *cells, others or "-", f"[{colour}]{outcome.verdict}[/]")
    out.print(table)
    for outcome in outcomes:
        if outcome.verdict in RED:
            expected = {who: sorted(found) for who, found in outcome.case.expected.items()}
            out.print(f"{outcome.verdict}: {outcome.case.name}: expected {expected}", markup=False, soft_wrap=True)
    attacks = sum(not outcome.case.lawful for outcome in outcomes)
    out.print(
        f"{attacks} attacks and {len(outcomes) - attacks} lawful twins on a scratch log of {entries} entries, {copied} of them copied; "
        f"{sum(outcome.verdict in RED for outcome in outcomes)} not as the threat matrix says. Where it says `not found`, nothing inside "
        "can show it: keep checkpoints and receipts elsewhere.",
        highlight=False,
        soft_wrap=True,
    )


def _told(outcome: Outcome, who: Observer) -> str:
    found = outcome.seen[who].found
    if found:
        return ", ".join(sorted(found))
    return _NOTHING.get(who, "nothing" if outcome.case.lawful else "not found")
