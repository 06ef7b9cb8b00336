"""What happened near a moment that may have broken a server: candidates for `core.ranking`, found with bounded reads.

1. *What the server's events name*: the newest of the window, unfiltered. They tell which targets are related (named as target or as
   related) and how usual each action is.
2. *The server's own events* that match the filters, through the search of `find`.
3. *Events on the related targets, and on the server as a target*, whichever server they carry or none: the newest of each target, of which
   those that match the filters stay.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, cast

from sqlalchemy import any_, false, func, select, true
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, TEXT
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core.ranking import Candidate
from audit_service.core.view import disclosed
from audit_service.store.find import list_positions
from audit_service.store.limits import row_conditions
from audit_service.store.rows import fetch_in_order, readable
from audit_service.store.selection import Selection, conditions
from audit_service.store.tables import seen_entry
from audit_service.store.veil import veil_of

_c = seen_entry.c
SERVER_EVENTS = 1000
RELATED_EVENTS = 1000
RELATED_TARGETS = 50
# A target that everything is done to (the panel itself, a user who works all day) leaves room for the others.
TARGET_EVENTS = 100


class Target(NamedTuple):
    """What events are done to, as the index of the table knows it: both parts are needed."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class Nearby:
    """Candidates in no order. `usual`: action → how often it happened on the server in the window. `capped`: there was more near the
    moment than was looked at, and the newest was."""

    candidates: Sequence[Candidate]
    usual: Mapping[str, int]
    capped: bool


async def list_nearby(
    connection: AsyncConnection, log_id: int, selection: Selection, *, since: datetime, until: datetime
) -> Nearby:
    """Candidates that occurred in [since, until) on the selection's one server and what is related to it. The filters and times of the
    selection choose among them."""
    assert selection.server_id is not None  # noqa: S101 - the route has one
    whole = Selection(server_id=selection.server_id, since=since, until=until, sight=selection.sight)
    asked = _within(selection, since, until)
    positions = await list_positions(connection, log_id, whole, limit=SERVER_EVENTS + 1)
    capped = len(positions) > SERVER_EVENTS
    seqs = [position.seq for position in positions[:SERVER_EVENTS]]
    brought = await fetch_in_order(connection, log_id, seqs, ("action", "target_type", "target_id", "d_target"))
    targets, left_out = _related_targets(brought.rows, Target("server", selection.server_id))
    related, more = await _list_related(connection, log_id, targets, whole)
    if asked != whole:
        positions = await list_positions(connection, log_id, asked, limit=SERVER_EVENTS + 1)
        capped = capped or len(positions) > SERVER_EVENTS
        seqs = [position.seq for position in positions[:SERVER_EVENTS]]
    candidates = await _fetch_candidates(connection, log_id, asked, {*seqs, *related})
    usual = Counter(row.action for row in brought.rows if row.action is not None)
    return Nearby(candidates, usual, capped or brought.more or left_out or more)


def _within(selection: Selection, since: datetime, until: datetime) -> Selection:
    """The selection, in these times at most."""
    if selection.since is None or selection.since < since:
        selection = replace(selection, since=since, since_seq=None)
    if selection.until is None or selection.until > until:
        selection = replace(selection, until=until, until_seq=None)
    return selection


def _related_targets(rows: Sequence[Any], server: Target) -> tuple[list[Target], bool]:
    """The server and the first RELATED_TARGETS others that the rows name, and whether there were more."""
    distinct = iter(dict.fromkeys(target for row in rows for target in _named(row) if target != server))
    targets = [server, *islice(distinct, RELATED_TARGETS)]
    return targets, next(distinct, None) is not None


def _named(row: Any) -> Iterator[Target]:
    """What an event names as its target and as related."""
    if row.target_type is not None and row.target_id is not None:
        yield Target(row.target_type, row.target_id)
    if row.d_target is None:
        return
    try:
        found = [(thing["type"], thing["id"]) for thing in _related_things(row.d_target)]
    except (ValueError, LookupError, TypeError, AttributeError):
        return  # a damaged row names nothing
    yield from (Target(*pair) for pair in found if all(type(part) is str for part in pair))


def _related_things(salted_value: bytes) -> list[Mapping[str, Any]]:
    value = cast("Mapping[str, Any]", disclosed(salted_value))
    return [thing for thing in value.get("related", []) if "type" in thing and "id" in thing]


async def _list_related(
    connection: AsyncConnection, log_id: int, targets: Sequence[Target], within: Selection
) -> tuple[list[int], bool]:
    """The seqs of the newest events on these targets, and whether there were more."""
    asked = (
        func.unnest(*(sql_cast([target[part] for target in targets], ARRAY(TEXT)) for part in (0, 1)))
        .table_valued("type", "id")
        .render_derived("asked")
    )
    newest = (
        select(_c.seq, _c.occurred_at)
        .where(_c.log_id == log_id, _c.target_id == asked.c.id, _c.target_type == asked.c.type)
        .where(_c.occurred_at >= within.since, _c.occurred_at < within.until, *row_conditions(within.sight))
        .order_by(_c.occurred_at.desc(), _c.seq.desc())
        .limit(TARGET_EVENTS + 1)
        .lateral("newest")
    )
    place = func.row_number().over(
        partition_by=(asked.c.type, asked.c.id), order_by=(newest.c.occurred_at.desc(), newest.c.seq.desc())
    )
    found = select(newest.c.seq, newest.c.occurred_at, place.label("place")).select_from(asked).join(newest, true())
    query = found.order_by(newest.c.occurred_at.desc(), newest.c.seq.desc()).limit(RELATED_EVENTS + TARGET_EVENTS)
    rows = (await connection.execute(query)).all()
    kept = [row.seq for row in rows if row.place <= TARGET_EVENTS]
    return kept[:RELATED_EVENTS], len(kept) < len(rows) or len(kept) > RELATED_EVENTS


async def _fetch_candidates(
    connection: AsyncConnection, log_id: int, asked: Selection, seqs: set[int]
) -> list[Candidate]:
    """Those of the entries that match the filters, on whichever server they were."""
    asked_of_all, veil = replace(asked, server_id=None), veil_of(asked)
    query = select(
        _c.seq,
        readable(_c.occurred_at),
        _c.action,
        _c.verb,
        _c.outcome,
        func.coalesce(func.cardinality(_c.paths), 0).label("changes"),
        _c.server_id,
        _c.target_type,
        _c.target_id,
        _c.target_name,
        (false() if veil is None else veil.unsure).label("unsure"),
    ).where(*conditions(log_id, asked_of_all), _c.seq == any_(sql_cast(sorted(seqs), ARRAY(BIGINT))))
    server_id = cast("str", asked.server_id)
    rows = (await connection.execute(query)).all()
    doubtful = [row.seq for row in rows if row.unsure]
    passing = set() if veil is None else await veil.passing(connection, log_id, doubtful)
    return [
        Candidate(row.seq, row.occurred_at, row.action, row.verb, row.outcome, row.changes, _related_to(row, server_id))
        for row in rows
        if not row.unsure or row.seq in passing
    ]


def _related_to(row: Any, server_id: str) -> str | None:
    if row.server_id == server_id or (row.target_type, row.target_id) == Target("server", server_id):
        return None
    name = row.target_name or row.target_id
    return f"{row.target_type} {name}"
