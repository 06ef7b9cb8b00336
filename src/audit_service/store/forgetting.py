"""Forgetting in the database, a segment of the search index at a time: what has something to forget, and the calls that remove it.

A call is prepared in this order, or what was forgotten meanwhile could come back: (1) `fetch_state`; (2) the entries are read, and what
will be left of them is worked out; (3) the segment's postings are built of that; (4) one call, a short transaction of its own, removes
it all, puts the postings in place and appends the control entry, the lock on the log's head last. The call is refused with MovedOnError
when anything was forgotten or indexed since (1): prepare again. A crash leaves a call done whole or not at all, and the next run finds
what is left to do.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, cast

from pyroaring import BitMap
from sqlalchemy import ColumnElement, LargeBinary, and_, exists, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from audit_service.core import terms
from audit_service.core.canonical import canonical_bytes
from audit_service.core.control import KINDS, Control
from audit_service.core.entry import GROUPS, Projection
from audit_service.core.forgetting import Erasure, Events, Subject
from audit_service.core.terms import Term
from audit_service.errors import UnavailableError
from audit_service.store.engine import bound, call, driver
from audit_service.store.failures import translated
from audit_service.store.literals import array_literal
from audit_service.store.rows import Slice, among, columns, fetch_within_budget, size_of
from audit_service.store.segments import TALLIED, build_segment, fetch_generation, fetch_postings, list_segments
from audit_service.store.tables import bound_entry, bound_hold, bound_log, bound_receipt

_c = bound_entry.c
_h = bound_hold.c
ERASABLE_COLUMNS = ("seq", "kind", "body", *(f"d_{group}" for group in GROUPS))
_SLICE_ENTRIES = 1000
_SEGMENTS_AT_ONCE = 256
# Control entries by their actions, which no sender may use: their category anybody may.
_CONTROLS = tuple(Term.of("action", f"audit.{kind}") for kind in KINDS)
_DROP = """
    SELECT * FROM audit.drop_entries($1, $2::jsonb,
        $3, $4, $5, $6, $7, $8, $9::text[], $10::text[], $11::int[], $12::bytea[], $13::text[])"""
_ERASE = """
    SELECT * FROM audit.erase_disclosures($1, $2::jsonb, $3::bigint[], $4::text[], $5::text[], $6::text[],
        $7, $8, $9, $10, $11, $12, $13::text[], $14::text[], $15::int[], $16::bytea[], $17::text[])"""
# The disclosures that hold ids of persons and targets.
_NAMING = ("d_actor", "d_on_behalf_of", "d_target")
_TRY_LOCK = "SELECT pg_try_advisory_lock($1::int, hashint8($2::bigint))"
_LOCK_CLASS = 0x61756466  # "audf"; of no other meaning


class Entered(NamedTuple):
    """A control entry's receipt."""

    seq: int
    epoch: int
    recorded_at: datetime
    hash: bytes
    prev_hash: bytes


@dataclass(frozen=True, slots=True)
class State:
    """What a call is prepared on: how often anything was forgotten so far, and how many segments the index has."""

    generation: int
    segments: int


@dataclass(frozen=True, slots=True)
class Scope:
    """Events to drop: those below `to_seq`; of one category, or of none of `without`."""

    to_seq: int
    category: str | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Droppable:
    """Events of a segment that still have their content: those that may be dropped, and how many a legal hold keeps."""

    seqs: Sequence[int]
    held: int


async def enter(writes: AsyncEngine, statement: str, log_id: int, entry: Control, *arguments: Any) -> Entered:
    """Call a function that appends a control entry together with what it records. Durable when it returns. Raises MovedOnError, HeldError,
    IntegrityError (the entry does not fit the log), UnavailableError."""
    async with translated():
        return Entered(*(await call(writes, statement, log_id, entry.argument(), *arguments))[0])


@asynccontextmanager
async def turn(engine: AsyncEngine, log_id: int) -> AsyncIterator[None]:
    """One run on a log at a time, so that none undoes another's preparations; that nothing goes wrong without it, the calls see to
    themselves. Raises UnavailableError when another is at work."""
    async with engine.connect() as connection:
        raw = driver(connection)
        if not await raw.fetchval(_TRY_LOCK, _LOCK_CLASS, log_id):
            raise UnavailableError("another run is forgetting in this log; try again when it is done", 30)
        try:
            yield
        finally:
            raw.terminate()  # the lock is the session's, and goes with it whatever state it is in
            await connection.invalidate()


async def fetch_state(engine: AsyncEngine, log_id: int) -> State:
    """Step 1."""
    async with bound(engine, log_id) as connection:
        generation = await fetch_generation(connection, log_id)
        return State(generation, len(await list_segments(connection, log_id)))


async def first_recorded(engine: AsyncEngine, log_id: int, at: datetime | None) -> int:
    """The first seq recorded at `at` or later; the size of the log when there is none, or no `at`."""
    size = select(bound_log.c.size).where(bound_log.c.log_id == log_id)
    async with bound(engine, log_id) as connection:
        found = await connection.execute(size if at is None else select(func.audit.first_recorded(log_id, at)))
        return cast("int", found.scalar_one())


async def fetch_clock(engine: AsyncEngine, log_id: int) -> datetime:
    """The database's clock, by which entries are recorded."""
    async with bound(engine, log_id) as connection:
        return cast("datetime", (await connection.execute(select(func.clock_timestamp()))).scalar_one())


# --- dropping ---


async def list_numbers(engine: AsyncEngine, log_id: int, scope: Scope) -> list[int]:
    """The segments that may have something to drop: those of which the index lists something, and all that are not in it yet."""
    async with bound(engine, log_id) as connection:
        segments = await list_segments(connection, log_id)
        listed = {
            segment.number: segment.events
            for segment in segments
            if segment.number * terms.SEGMENT_EVENTS < scope.to_seq
        }
        numbers = [number for number, events in listed.items() if events]
        names = scope.without if scope.category is None else (scope.category,)
        asked = [Term.of("category", name) for name in names] + list(_CONTROLS if scope.category is None else ())
        found = []
        for start in range(0, len(numbers), _SEGMENTS_AT_ONCE):
            some = numbers[start : start + _SEGMENTS_AT_ONCE]
            postings = await fetch_postings(connection, log_id, some, asked)
            for number in some:
                named = len(BitMap.union(*postings[number].values())) if number in postings else 0
                if named if scope.category is not None else listed[number] > named:
                    found.append(number)
    return [*found, *range(len(segments), -(-scope.to_seq // terms.SEGMENT_EVENTS))]


async def fetch_droppable(engine: AsyncEngine, log_id: int, scope: Scope, number: int) -> Droppable:
    """Step 2 of a drop. Times play no part: `scope.to_seq` says how old."""
    start = number * terms.SEGMENT_EVENTS
    where = [_c.log_id == log_id, _c.seq >= start, _c.seq < min(start + terms.SEGMENT_EVENTS, scope.to_seq)]
    where += [_c.kind == "event", _c.body.is_not(None)]
    if scope.category is not None:
        where.append(_c.category == scope.category)
    elif scope.without:
        where.append(_c.category.is_(None) | _c.category.not_in(scope.without))
    async with bound(engine, log_id) as connection:
        rows = (await connection.execute(select(_c.seq, is_held(log_id)).where(*where).order_by(_c.seq))).all()
    seqs = [seq for seq, held in rows if not held]
    return Droppable(seqs, len(rows) - len(seqs))


def is_held(log_id: int) -> ColumnElement[bool]:
    """Whether an entry is under legal hold: what an erasure about a held target would take, and all of a held server. So is the entry
    that set a hold on a target: whom it is about must be known as long."""
    in_range = and_(_h.from_seq <= _c.seq, _h.to_seq > _c.seq)
    entry = (_c.target_type, _c.target_id, _c.server_id, _c.action, _c.d_target)
    of_target = and_(_h.target_id.is_not(None), func.audit.is_about(_h.target_type, _h.target_id, *entry))
    return exists().where(_h.log_id == log_id, or_(in_range, of_target)).label("held")


def ranges_of(seqs: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending seqs as half-open ranges. A segment has at most half as many as entries, fewer than a control entry may name."""
    starts = [seq for place, seq in enumerate(seqs) if not place or seqs[place - 1] != seq - 1]
    ends = [seq + 1 for place, seq in enumerate(seqs) if place + 1 == len(seqs) or seqs[place + 1] != seq + 1]
    return list(zip(starts, ends, strict=True))


async def drop_entries(
    reads: AsyncEngine, writes: AsyncEngine, log_id: int, state: State, number: int, seqs: Sequence[int], entry: Control
) -> Entered:
    """Steps 3 and 4 of a drop: `entry` names exactly these seqs. Raises MovedOnError, HeldError, UnavailableError."""
    index = await _index_arguments(reads, log_id, state, number, dict.fromkeys(seqs))
    return await enter(writes, _DROP, log_id, entry, *index)


# --- erasing ---


async def stream_named(engine: AsyncEngine, log_id: int, subject: Subject) -> AsyncIterator[Sequence[int]]:
    """Where in the log entries that name the subject may be: ascending seqs of one segment each, as a range or a list. For a person or a
    target that is all of it: the search index is no evidence, and whoever took something out of it would hide it from an erasure."""
    if isinstance(subject, Events):
        found = await _events_named(engine, log_id, subject)
    else:
        found = _by_segment(range(await first_recorded(engine, log_id, None)))
    for some in found:
        yield some


async def _events_named(engine: AsyncEngine, log_id: int, subject: Events) -> list[Sequence[int]]:
    r = bound_receipt.c
    query = select(r.seq).where(r.log_id == log_id, r.id.in_(sorted(subject.ids)), r.kept).order_by(r.seq)
    async with bound(engine, log_id) as connection:
        return _by_segment(list((await connection.execute(query)).scalars()))


def _by_segment(seqs: Sequence[int]) -> list[Sequence[int]]:
    if isinstance(seqs, range):
        edges = range(seqs.start // terms.SEGMENT_EVENTS, -(-seqs.stop // terms.SEGMENT_EVENTS))
        return [
            range(max(seqs.start, n * terms.SEGMENT_EVENTS), min(seqs.stop, (n + 1) * terms.SEGMENT_EVENTS))
            for n in edges
        ]
    found: dict[int, list[int]] = {}
    for seq in seqs:
        found.setdefault(seq // terms.SEGMENT_EVENTS, []).append(seq)
    return list(found.values())


async def fetch_named(engine: AsyncEngine, log_id: int, subject: Subject, seqs: Sequence[int], from_seq: int) -> Slice:
    """Step 2 of an erasure: of some seqs, the entries from `from_seq` on that name the subject and still have a body, with whether they are
    under legal hold; as many as the budget allows. An entry may name a person or a target where one of its disclosures spells the id."""
    within = [_c.seq >= seqs[0], _c.seq <= seqs[-1]] if isinstance(seqs, range) else [among(seqs, bound_entry)]
    where = [_c.log_id == log_id, _c.seq >= from_seq, _c.body.is_not(None), *within]
    if not isinstance(subject, Events):
        where.append(or_(*(_spells_id(_c[column], subject.id) for column in _NAMING)))
    query = select(*columns(ERASABLE_COLUMNS, bound_entry), is_held(log_id), size_of(of=bound_entry))
    query = query.where(*where).order_by(_c.seq)
    async with bound(engine, log_id) as connection:
        return await fetch_within_budget(connection, query, "seq", _SLICE_ENTRIES)


def _spells_id(disclosure: ColumnElement[Any], id_: str) -> ColumnElement[bool]:
    """Whether something in a disclosure has this id, as canonical JSON spells it. `position` is written with its schema, because it is a
    keyword without."""
    spelled = b'"id":' + canonical_bytes(id_)
    return func.coalesce(func.pg_catalog.position(disclosure, literal(spelled, LargeBinary)) > 0, False)


async def erase_disclosures(
    reads: AsyncEngine,
    writes: AsyncEngine,
    log_id: int,
    state: State,
    number: int,
    erasures: Sequence[Erasure],
    entry: Control,
) -> Entered:
    """Steps 3 and 4 of an erasure: `entry` names exactly the items of `erasures`, all in the segment `number`. Raises MovedOnError,
    HeldError, UnavailableError."""
    index = await _index_arguments(reads, log_id, state, number, {erasure.seq: erasure.left for erasure in erasures})
    arguments = [
        [erasure.seq for erasure in erasures],
        [_literal(erasure.left.actor_keys) for erasure in erasures],
        [_literal(erasure.left.paths) for erasure in erasures],
        [erasure.left.search for erasure in erasures],
    ]
    return await enter(writes, _ERASE, log_id, entry, *arguments, *index)


def _literal(items: list[str] | None) -> str | None:
    return None if items is None else array_literal(items)


async def _index_arguments(
    reads: AsyncEngine, log_id: int, state: State, number: int, left: Mapping[int, Projection | None]
) -> tuple[Any, ...]:
    """What the index will hold of a segment; nothing to say of one that is not in it."""
    if number >= state.segments:
        return (state.generation, state.segments, None, None, None, None, [], [], [], [], TALLIED)
    built = await build_segment(reads, log_id, number, left)
    return (state.generation, state.segments, *built.arguments)
