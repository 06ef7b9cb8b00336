"""The write path, as a recipe. Every door (single, batch, NDJSON, adapters) leads through it.

1. parse      bytes → JSON values (`core.event.parse_json`; in the API layer, because framing is its business)
2. validate   shape, limits, spelling → an event
3. diff       old and new row → changes; or check the ready-made ones
4. redact     take secrets out of everything that can carry text; after this step nobody holds the original
5. seal       defaults, fingerprint, body, disclosures, projection: all that does not depend on the place in the chain
6. append     through group commit into PostgreSQL; durable when it returns
7. settle     receipt, replay or conflict for each event, in order

Steps 2 to 5 are pure and run before any lock; step 6 is the only one that waits. Nothing is acknowledged before step 6 returned.
"""

import asyncio
import hmac
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Literal, NamedTuple, TypeAlias, cast

import orjson

from audit_service.core import diff, entry, redaction, verb
from audit_service.core.canonical import JSONValue, canonical_bytes, plain_bytes
from audit_service.core.chain import format_origin
from audit_service.core.entry import JSONObject
from audit_service.core.event import EventLimits, check_limits, settle
from audit_service.core.posting import Posting
from audit_service.core.redaction import Ruleset
from audit_service.core.view import DAMAGES
from audit_service.errors import (
    AuditError,
    BeyondLimitsError,
    CanonicalError,
    Fault,
    IdempotencyConflictError,
    InputError,
    InvalidEventError,
)
from audit_service.store.append import Appended, Candidate
from audit_service.store.group_commit import GroupCommit

FINGERPRINT_SALT_BYTES = 16
POINTER_NAME_CHARACTERS = 64
# Events sealed before other requests get their turn.
TURN_EVENTS = 25
# Of a larger batch, so many are appended while the next are sealed.
PART_EVENTS = 125


@dataclass(frozen=True, slots=True)
class Log:
    """The log an event goes to, as the credential names it. `origin` parts without the epoch, which an append reports. `posting`: what
    the credential may add to it; None for everything."""

    log_id: int
    service_name: str
    log_key: str
    posting: Posting | None = None


class Receipt(NamedTuple):
    """The answer to an accepted event. seq, hash and prev_hash are None when it was not kept."""

    id: str
    origin: str
    seq: int | None
    recorded_at: datetime
    hash: bytes | None
    prev_hash: bytes | None
    kept: bool
    replayed: bool


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the steps need to know; the same for every event of a process."""

    rules: Ruleset
    limits: EventLimits
    secret: bytes
    keep_noop: bool = False
    ignored_fields: frozenset[str] = frozenset()


class Sealed(NamedTuple):
    """A candidate with what its fingerprint was made of, to tell a repeat within one call from a conflict."""

    candidate: Candidate
    content: bytes


# What comes in for one event: its JSON, or why it could not be parsed.
Item: TypeAlias = "JSONValue | AuditError"
DefaultId: TypeAlias = str | Callable[[bytes], str] | None
Outcome: TypeAlias = Receipt | AuditError


async def ingest(
    appender: GroupCommit,
    recipe: Recipe,
    log: Log,
    values: Sequence[Item],
    *,
    default_ids: Sequence[str | None] | None = None,
) -> list[Outcome]:
    """Steps 2 to 7 for parsed values of one log: an outcome for each, in order; a bad one does not sink the others.

    An item that is already an error (a line that could not be parsed) keeps it. Durable when it returns. Raises
    UnavailableError, ClockError or NotFoundError when nothing could be appended.
    """
    if len(values) > PART_EVENTS:
        with appender.room(len(values)):
            return await _ingest_parts(appender, recipe, log, values, default_ids)
    return await append_sealed(appender, recipe, log, await seal_all(recipe, log, values, default_ids))


async def _ingest_parts(
    appender: GroupCommit, recipe: Recipe, log: Log, values: Sequence[Item], default_ids: Sequence[str | None] | None
) -> list[Outcome]:
    """`ingest` for many values in room that is taken: while PostgreSQL commits one part, the next is sealed. When a part cannot be
    appended, those before it stay, and the sender, who is told that nothing is known, asks again with the same ids."""
    outcomes: list[Outcome] = []
    committing: asyncio.Task[list[Outcome]] | None = None
    try:
        for start in range(0, len(values), PART_EVENTS):
            part = slice(start, start + PART_EVENTS)
            sealed = await seal_all(recipe, log, values[part], default_ids[part] if default_ids else None)
            if committing is not None:
                outcomes += await committing
            committing = asyncio.create_task(append_sealed(appender, recipe, log, sealed, in_room=True))
        return outcomes + (await committing if committing else [])
    finally:
        if committing is not None:
            committing.cancel()


async def seal_all(
    recipe: Recipe,
    log: Log,
    values: Sequence[Item],
    default_ids: Sequence[str | None] | None = None,
) -> list[Sealed | AuditError]:
    """Steps 2 to 5 for each value. Lets other requests have their turn in between: sealing a large batch takes a while."""
    now = datetime.now(UTC)
    sealed: list[Sealed | AuditError] = []
    for position, value in enumerate(values):
        if position % TURN_EVENTS == TURN_EVENTS - 1:
            await asyncio.sleep(0)
        default_id = default_ids[position] if default_ids else None
        if isinstance(value, InputError):
            sealed.append(without_secrets(value, recipe.rules))
        elif isinstance(value, AuditError):
            sealed.append(value)
        else:
            sealed.append(seal_or_error(recipe, log, value, default_id, now))
    return sealed


def seal_or_error(
    recipe: Recipe, log: Log, value: JSONValue, default_id: DefaultId, now: datetime
) -> Sealed | InputError:
    """Steps 2 to 5, with the sender's faults as a value."""
    try:
        return seal(recipe, log, value, default_id, now)
    except InputError as error:
        return without_secrets(error, recipe.rules)
    except CanonicalError:
        return InvalidEventError("the event holds a value that JSON cannot carry exactly")


def without_secrets(error: InputError, rules: Ruleset) -> InputError:
    """The error with its places as they may be shown: names in a pointer are the sender's, and may be or stand for secrets."""
    faults = [
        fault if not fault.pointer else Fault(fault.detail, _shown_pointer(fault.pointer, rules))
        for fault in error.faults
    ]
    return type(error)(error.detail, faults)


def _shown_pointer(pointer: str, rules: Ruleset) -> str:
    """A pointer cut after a secret name, without secrets in its names, and with each name cut (after that: half a secret is
    not recognised)."""
    (change,) = redaction.redact_changes([{"path": pointer, "op": "add", "new": None}], rules, target_type=None)
    return "/".join(name[:POINTER_NAME_CHARACTERS] for name in cast("str", change["path"]).split("/"))


def seal(recipe: Recipe, log: Log, value: JSONValue, default_id: DefaultId, now: datetime) -> Sealed:
    """Steps 2 to 5 for one event. `default_id` is for an event that brings none: an id, or what makes one of the redacted
    content. Raises InvalidEventError, BeyondLimitsError."""
    # 2. validate
    write = plain_bytes if check_limits(value, recipe.limits) else canonical_bytes
    event = settle(value, now=now, limits=recipe.limits)
    return seal_valid(recipe, log, event, default_id, now, write)


def seal_own(recipe: Recipe, log: Log, event: JSONObject, now: datetime) -> Sealed:
    """The same for what the service notes about itself: as `validate` would leave it, but for the reserved prefix of its action."""
    return seal_valid(recipe, log, event, None, now, canonical_bytes)


def seal_valid(
    recipe: Recipe,
    log: Log,
    event: JSONObject,
    default_id: DefaultId,
    now: datetime,
    write: Callable[[JSONValue], bytes],
) -> Sealed:
    """Steps 3 to 5 for a valid event. `write` makes its canonical JSON. Raises InvalidEventError."""
    if _holds_token(cast("str", event["action"]), recipe.rules):
        # It stays for ever, even after an erasure, and cannot be redacted and still be an action.
        raise InvalidEventError("the event breaks its schema", [Fault("must not hold a secret", "/action")])
    # 3. diff
    changes, brought_rows = find_changes(event, recipe)
    if "changes" in event:
        # In their full form from here on: redaction and the fingerprint must not depend on how they were spelled.
        event["changes"] = cast("JSONValue", changes)
    # 4. redact
    _hash_session(event, recipe.secret, log.log_id)
    server_id = cast("str | None", event.get("server_id"))
    if server_id is not None and _holds_token(server_id, recipe.rules):
        # Two servers must never share a feed, whatever they are called.
        event["server_id"] = safe_id(server_id, recipe, log)
    if log.posting is not None:
        _require_posting(event, log.posting)
    sent_id = event.get("id")
    event, changes = redaction.redact_event(event, changes, recipe.rules)
    # An id is redacted as `holds_token` judges it: one that comes back as it was holds nothing.
    clean_id = event.pop("id", None)
    # 5. seal
    salt = os.urandom(FINGERPRINT_SALT_BYTES)
    content = write(event)
    if sent_id is not None:
        event_id = cast("str", sent_id) if clean_id == sent_id else hashed_id(cast("str", sent_id), recipe, log)
    else:
        event_id = (default_id(content) if callable(default_id) else default_id) or new_id()
    sealed_event = with_defaults(event, event_id, now)
    if log.posting is not None and log.posting.source_id is not None:
        # A default like the others, and no part of the content: a retry by another key is the same event, one that names it is another.
        sealed_event["source"] = {**cast("JSONObject", sealed_event.get("source", {})), "id": log.posting.source_id}
    prepared = entry.prepare(sealed_event, changes, diff.top_fields(changes), os.urandom(entry.ENTROPY_BYTES), write)
    keep = bool(changes) or not brought_rows or recipe.keep_noop
    return Sealed(Candidate(event_id, keep, salt, sha256(salt + content).digest(), prepared), content)


def _require_posting(event: JSONObject, posting: Posting) -> None:
    """Raises BeyondLimitsError for an event that the credential may not post."""
    category = event["category"] if "category" in event else verb.derive_category(cast("str", event["action"]))
    faults = posting.faults(event, cast("str", category))
    if faults:
        raise BeyondLimitsError("the credential may not post this event", faults)


# Actions and servers recur; ids of events do not.
_holds_token = lru_cache(maxsize=8192)(redaction.holds_token)


def safe_id(sent: str, recipe: Recipe, log: Log) -> str:
    """The id as it is stored: itself, or a keyed hash of it when it holds a secret, so that such ids stay apart and retries safe."""
    return hashed_id(sent, recipe, log) if redaction.holds_token(sent, recipe.rules) else sent


def hashed_id(sent: str, recipe: Recipe, log: Log) -> str:
    """The keyed hash that stands for an id which holds a secret."""
    return "redacted:" + hmac.new(recipe.secret, f"id\n{log.log_id}\n{sent}".encode(), sha256).hexdigest()[:32]


def stored_form(field: str, value: str, recipe: Recipe, log: Log) -> str:
    """What a value that somebody asks for by `field` looks like in the log."""
    if field == "session":
        return hash_session(value, recipe.secret, log.log_id)
    return safe_id(value, recipe, log) if field in {"id", "server_id"} else value


def find_changes(event: JSONObject, recipe: Recipe) -> tuple[list[JSONObject], bool]:
    """The changes of an event, and whether it brought anything to compare. Raises InvalidEventError."""
    ready_made = event.get("changes")
    if ready_made:
        found = diff.check_changes(cast("list[JSONValue]", ready_made))
        kept = [change for change in found if _last_segment(cast("str", change["path"])) not in recipe.ignored_fields]
        return kept, True
    if "before" not in event and "after" not in event:
        return [], False
    partial = cast('Literal["none", "after", "before", "both"]', event.get("partial", "none"))
    found = diff.diff(
        cast("JSONObject | None", event.get("before")),
        cast("JSONObject | None", event.get("after")),
        partial=partial,
        ignored=recipe.ignored_fields,
    )
    if len(found) > recipe.limits.changes:
        raise InvalidEventError(
            "the event changes too much at once",
            [Fault(f"brings more than {recipe.limits.changes} changes", "")],
        )
    return found, True


def _last_segment(path: str) -> str:
    return path.rpartition("/")[2].replace("~1", "/").replace("~0", "~")


def with_defaults(event: JSONObject, event_id: str, now: datetime) -> JSONObject:
    """The event with id, time, verb and category filled in."""
    action = cast("str", event["action"])
    completed = event | {"id": event_id}
    if "occurred_at" not in completed:
        completed["occurred_at"] = entry.format_time(now)
    if "verb" not in completed:
        completed["verb"] = verb.derive_verb(action)
    if "category" not in completed:
        completed["category"] = verb.derive_category(action)
    return completed


def new_id() -> str:
    """A UUIDv7 (RFC 9562 section 5.7): ordered by time, so that the index of ids grows at its end."""
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | (0x7 << 76)
    digits = f"{number & ~(0x3 << 62) | (0x2 << 62):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def hash_session(session_id: str, secret: bytes, log_id: int) -> str:
    """The keyed hash under which a session is stored and found: it correlates, but cannot be used to take the session over."""
    return hmac.new(secret, f"session\n{log_id}\n{session_id}".encode(), sha256).hexdigest()[:32]


def _hash_session(event: JSONObject, secret: bytes, log_id: int) -> None:
    context = event.get("context")
    if isinstance(context, dict) and isinstance(context.get("session_id"), str):
        context["session_id"] = hash_session(cast("str", context["session_id"]), secret, log_id)


async def append_sealed(
    appender: GroupCommit,
    recipe: Recipe,
    log: Log,
    sealed: Sequence[Sealed | AuditError],
    *,
    in_room: bool = False,
) -> list[Outcome]:
    """Steps 6 and 7. `in_room`: the caller has taken room for them."""
    # 6. append
    append = appender.append_in_room if in_room else appender.append
    answered = await append(log.log_id, [item.candidate for item in sealed if isinstance(item, Sealed)])
    # 7. settle
    own_seqs = await _find_own(appender, recipe, log, answered)
    answers = iter(answered)
    outcomes: list[Outcome] = []
    for item in sealed:
        if isinstance(item, AuditError):
            outcomes.append(item)
            continue
        answer = next(answers)
        outcomes.append(answer if isinstance(answer, AuditError) else _settle(item, answer, recipe, log, own_seqs))
    return outcomes


async def _find_own(
    appender: GroupCommit, recipe: Recipe, log: Log, answered: Sequence[Appended | InvalidEventError]
) -> set[int]:
    """For a limited credential: which of the known entries that cannot be compared it may have posted. Others' receipts are not its."""
    seqs = [
        answer.seq
        for answer in answered
        if isinstance(answer, Appended) and answer.known and answer.seq is not None and not _compares(answer, recipe)
    ]
    if log.posting is None or not seqs:
        return set()
    bodies = await appender.fetch_bodies(log.log_id, seqs)
    return {seq for seq, body in bodies.items() if _admits(log.posting, body)}


def _admits(posting: Posting, body: str) -> bool:
    try:
        return posting.admits(orjson.loads(body))
    except DAMAGES:
        return False


def _settle(item: Sealed, appended: Appended, recipe: Recipe, log: Log, own_seqs: set[int]) -> Outcome:
    if not appended.known:
        is_same = True
    elif _compares(appended, recipe):
        is_same = _same_as_stored(item, appended)
    else:  # erased, or redacted by other rules: a replay, for who may have posted it
        is_same = log.posting is None or appended.seq in own_seqs
    if not is_same:
        return IdempotencyConflictError("the id is already used by an event with other content")
    return Receipt(
        id=item.candidate.id,
        origin=format_origin(log.service_name, log.log_key, appended.epoch),
        seq=appended.seq,
        recorded_at=appended.recorded_at,
        hash=appended.hash,
        prev_hash=appended.prev_hash,
        kept=appended.kept,
        replayed=appended.known,
    )


def _compares(appended: Appended, recipe: Recipe) -> bool:
    """Whether a known event can be compared: neither erased nor redacted by other rules."""
    return None not in (appended.salt, appended.fingerprint) and appended.ruleset == recipe.rules.digest


def _same_as_stored(item: Sealed, appended: Appended) -> bool:
    """Whether the content is the first one's, of an event that can be compared."""
    if appended.salt is None or appended.fingerprint is None:
        return False
    if appended.fingerprint == item.candidate.fingerprint:  # our own first try, committed although its answer was lost
        return True
    return hmac.compare_digest(sha256(appended.salt + item.content).digest(), appended.fingerprint)
