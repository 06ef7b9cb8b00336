"""What the OpenAPI document says of requests and answers. Output members have no defaults: clients always see all of them.

The answers are built as plain dicts (`core.view`, `receipt_view`), because validating what we made ourselves costs more than making
it; tests hold the dicts and these models together.
"""

from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from audit_service.api import parameters
from audit_service.core.checker import BreakKind, Depth
from audit_service.core.event import Event
from audit_service.core.revert import Reason
from audit_service.core.timeline import Interval
from audit_service.core.verb import Verb
from audit_service.store.counts import FACETS

JSON = Any


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProblemError(_Answer):
    """One place that is wrong: a JSON Pointer into the body, or the name of a parameter."""

    pointer: str | None = None
    parameter: str | None = None
    detail: str


class Problem(_Answer):
    """An error (RFC 9457). Never holds a value of the request."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemError] | None = None


class Receipt(_Answer):
    """The proof that an event was accepted: keep it. seq, hash and prev_hash are null when the event was not kept."""

    id: str
    origin: str
    seq: int | None
    recorded_at: datetime
    hash: str | None
    prev_hash: str | None
    kept: bool


class Result(_Answer):
    """What became of one event of a batch: `receipt` (200, 201) or `problem`."""

    status: int
    replayed: bool | None = None
    receipt: Receipt | None = None
    problem: Problem | None = None


class BatchResults(_Answer):
    """One result for each event, in order."""

    accepted: int
    rejected: int
    results: list[Result]


class ActorView(_Answer):
    """Who did it, as they were then."""

    type: str | None
    id: str | None
    name: str | None
    email: str | None
    role: str | None


class TargetView(_Answer):
    """What it was done to; `url` by AUDIT_LINK_TEMPLATES."""

    type: str | None
    id: str | None
    name: str | None
    url: str | None


class ContextView(_Answer):
    """From where; `session_id` is a keyed hash."""

    ip: str | None
    user_agent: str | None
    session_id: str | None
    request_id: str | None
    traceparent: str | None


class ChangeView(BaseModel):
    """One changed field. A redacted change carries no value."""

    model_config = ConfigDict(extra="forbid")
    path: str
    op: Literal["replace", "add", "remove"]
    old: JSON = None
    new: JSON = None
    redacted: Literal[True] | None = None


class Proof(_Answer):
    """The entry's hash and the one before it, lower-case hex. Null only in a damaged entry."""

    hash: str | None
    prev_hash: str | None


class EventView(_Answer):
    """An event as stored: redacted, with defaults filled in and its place in the chain. `damaged`: somebody has changed the row so that
    it cannot be read; only then may id, kind, the times, action, verb and category be null. `by` and `details`: of what the service enters
    about itself (`kind` is not `event`): which credential acted, and what it did. `erased`: groups of fields that are in the log no more;
    `hidden`: those of which the credential does not see something (`actor` is then shown under a name that stands for all staff)."""

    id: str | None
    seq: int
    kind: str | None
    recorded_at: datetime | None
    occurred_at: datetime | None
    action: str | None
    verb: Verb | None
    category: str | None
    actor: ActorView | None
    on_behalf_of: dict[str, JSON] | None
    target: TargetView | None
    related: list[dict[str, JSON]]
    server_id: str | None
    outcome: Literal["success", "failure", "unknown"] | None
    by: str | None
    reason: str | None
    description: str | None
    context: ContextView | None
    changes: list[ChangeView]
    metadata: dict[str, JSON] | None
    source: dict[str, JSON] | None
    details: dict[str, JSON] | None
    erased: list[str]
    hidden: list[str]
    proof: Proof
    damaged: bool
    summary: str


class BurstView(_Answer):
    """Neighbouring events by the same actor with the same action, not over a minute apart, told as one row. `targets`: how many different
    ones; `members`: the list of exactly these events; `more`: cut at 5,000 events, the next row may go on with it."""

    count: int
    from_: datetime = Field(alias="from")
    to: datetime
    targets: int
    members: str
    more: bool


class ListedEvent(EventView):
    """An event in a list. With fold=burst, `burst` says of which events it is the newest; null when it stands for itself."""

    burst: BurstView | None = None


class EventPage(_Answer):
    """A page. `next_cursor` null is the only end; `count` (of events, folded or not) only with count=capped."""

    events: list[ListedEvent]
    next_cursor: str | None
    count: int | None = None
    count_capped: bool | None = None


class Writer(_Answer):
    """Who wrote something, and by which event. Null members: nobody said, or it was erased since."""

    actor: ActorView | None
    on_behalf_of: dict[str, JSON] | None
    event_id: str | None
    seq: int
    occurred_at: datetime | None
    action: str | None


class FieldView(_Answer):
    """What is known of one place of a row: one of `value`, `absent` (it was removed), `redacted` (it has a value that is not in the
    log; beside `value`: parts of it are not) and `erased`. `set_by` null: known from the deletion alone."""

    value: JSON = None
    absent: Literal[True] | None = None
    redacted: Literal[True] | None = None
    erased: Literal[True] | None = None
    set_by: Writer | None


class DriftView(_Answer):
    """A change made outside the log: `logged` was written last, `found` is what the next event says it found."""

    path: str
    logged: FieldView
    found: FieldView


class DeletedView(_Answer):
    """The row as it was when it was deleted. `complete`: as the deletion itself brought it, or rebuilt since its creation."""

    at: datetime | None
    by: Writer
    complete: bool
    fields: dict[str, FieldView]


class TargetState(_Answer):
    """A row as of a time, by JSON Pointer. What is not in `fields` is unknown unless `complete`; `exists` null: the log cannot tell.
    `incomplete`: seqs of events whose changes cannot be read any more. `capped`: older events were not read. Whoever does not see every
    event of the log gets what the events say that they see: never `complete`, and without `drift`."""

    at: datetime
    exists: bool | None
    complete: bool
    fields: dict[str, FieldView]
    deleted: DeletedView | None
    drift: list[DriftView]
    drift_total: int
    incomplete: list[int]
    events_read: int
    capped: bool


class HistoryPage(EventPage):
    """A page of a target's events. `state` stands on the first page only."""

    state: TargetState | None


class PatchOperation(BaseModel):
    """One operation of a JSON Patch (RFC 6902). A `remove` has no value."""

    model_config = ConfigDict(extra="forbid")
    op: Literal["test", "add", "remove", "replace"]
    path: str
    value: JSON = None


class SkippedChange(_Answer):
    """A change that the patch does not undo."""

    path: str
    reason: Reason


class UndoneEvent(_Answer):
    """The event that a patch is the inverse of."""

    action: str | None
    verb: Verb | None
    occurred_at: datetime | None
    target: TargetView | None


class RevertView(_Answer):
    """A guarded patch that would undo an event. `unguarded`: paths it adds although it cannot test that they are absent."""

    id: str | None
    seq: int
    inverse_of: UndoneEvent
    patch: list[PatchOperation]
    reverts: int
    unguarded: list[str]
    skipped: list[SkippedChange]


class RankedEvent(EventView):
    """An event near a moment. `score`, 0 to 100: how likely it is the cause; `why`: the reasons, in English."""

    score: float
    why: list[str]


class RankedEvents(_Answer):
    """What changed near a moment, the likeliest causes first. `capped`: not all that happened near it was looked at or fitted in; a shorter
    `window` or more filters help."""

    events: list[RankedEvent]
    next_cursor: None
    capped: bool


class FacetValue(_Answer):
    """A value (the first 256 characters of it) and how many events have it; null stands for global events, those without a server. `name`,
    of actors only: as the newest of these events has it."""

    value: str | None
    name: str | None = None
    count: int


class Facet(_Answer):
    """The most frequent values; `more` when there are others."""

    values: list[FacetValue]
    more: bool


class Facets(_Answer):
    """Values for filter menus. `capped`: more events match, and the newest `counted` of them were counted."""

    facets: dict[str, Facet]
    counted: int
    capped: bool


class Bucket(_Answer):
    """Events with from <= occurred_at < to."""

    from_: datetime = Field(alias="from")
    to: datetime
    count: int


class Timeline(_Answer):
    """Buckets without a gap between them. `capped`: more events match, and the newest 10,000 were counted."""

    timeline: list[Bucket]
    interval: Interval
    tz: str
    capped: bool


class LastCheckpoint(_Answer):
    """How far the log was signed, and when."""

    size: int
    signed_at: datetime


class NumberRanges(_Answer):
    """Half-open ranges [from, to) of numbers, the highest first: at most 100; `more` when there are others below them, which `below=`
    with the last one's `from` brings. `total` ranges with `numbers` numbers in all, whatever is listed."""

    ranges: list[tuple[int, int]]
    more: bool
    total: int
    numbers: int


class SourceView(_Answer):
    """A producer. `numbered`: its events that have a number (`source.seq`). `holes`: numbers between its first and its last that no event
    has; `duplicates`: numbers that several events have."""

    id: str
    events: int
    numbered: int
    first_seq: int | None
    last_seq: int | None
    last_recorded_at: datetime
    holes: NumberRanges
    duplicates: NumberRanges


class SourcePage(_Answer):
    """Producers by id. They take in the first `counted` entries: all `size` of them, unless counting is far behind."""

    sources: list[SourceView]
    counted: int
    size: int
    next_cursor: str | None


class LastVerified(_Answer):
    """How the last background verification ended, when, and how far it came; and when one last read the log from its beginning."""

    at: datetime
    size: int
    status: Literal["ok", "broken", "incomplete"]
    full_at: datetime | None


class Chain(_Answer):
    """The head of the log."""

    origin: str
    size: int
    head: str
    last_recorded_at: datetime | None
    last_checkpoint: LastCheckpoint | None
    last_verified: LastVerified | None
    pruned_before: int | None


class BreakView(_Answer):
    """One thing that does not hold."""

    seq: int
    kind: BreakKind
    expected: str | int | None
    found: str | int | None


class CheckedRange(_Answer):
    """Half-open: [from_seq, to_seq)."""

    from_seq: int
    to_seq: int
    count: int


class CheckpointStatus(_Answer):
    """How the log stands to a checkpoint kept elsewhere. `signed_by`: a key that the caller pinned, only one of the installation's own, or
    (null) none that is trusted. What a revoked key signed later is `none`, and `detail` says that it was revoked."""

    origin: str
    size: int
    root: str
    status: Literal["consistent", "inconsistent", "none"]
    detail: str
    signed_by: Literal["pinned", "own"] | None


class CheckpointsStatus(_Answer):
    """The same of all that were given: the worst. `none`: none was given, or one of them says nothing about this log."""

    status: Literal["consistent", "inconsistent", "none"]
    detail: str | None
    checkpoints: list[CheckpointStatus]


class TrustedKeysView(_Answer):
    """Where the trust in signatures came from: how many keys the caller pinned, and how many are the installation's own."""

    pinned: int
    own: int


class VerifyReport(_Answer):
    """What a verification found. What was not checked is listed and never reads as ok."""

    status: Literal["ok", "broken", "incomplete"]
    origin: str
    checked: CheckedRange
    depth: Depth
    pruned_before: int | None
    erased: int
    dropped: int
    head: str
    root: str | None
    checkpoint: CheckpointsStatus
    trusted_keys: TrustedKeysView
    breaks: list[BreakView]
    breaks_total: int
    not_checked: list[str]


class InclusionProof(_Answer):
    """That the entry at `seq` is in the tree of `size` (RFC 6962 section 2.1.1); hashes in lower-case hex, leaf to root. `checkpoint`: the
    signed note of that size, null when none was signed; without one whose signature you checked, a proof proves nothing."""

    seq: int
    size: int
    leaf: str
    hashes: list[str]
    root: str
    checkpoint: str | None


class ConsistencyProof(_Answer):
    """That the tree of `to_size` begins with the tree of `from_size` (RFC 6962 section 2.1.2). `checkpoint`: the note of `to_size`."""

    from_size: int
    to_size: int
    hashes: list[str]
    from_root: str
    to_root: str
    checkpoint: str | None


class LimitsView(_Answer):
    """What a key or a viewer token is limited to; null: not limited. `actor_id`, `actor_type`: only what this actor did, or one
    of this type."""

    server_ids: list[str] | None
    global_events: bool
    categories: list[str] | None
    actor_id: str | None
    actor_type: str | None
    audit_entries: bool
    ips: bool
    emails: bool
    staff_as: str | None
    staff_types: list[str] | None
    source_id: str | None
    networks: list[str] | None


class NewKeyAnswer(_Answer):
    """A new key; `key` is shown here and never again."""

    key_id: str
    key: str
    name: str
    scopes: list[str]
    client: str | None
    limits: LimitsView
    expires_at: datetime | None


class KeyView(_Answer):
    """A key without its secret."""

    key_id: str
    tenant: str
    name: str
    scopes: list[str]
    client: str | None
    limits: LimitsView
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class KeyList(_Answer):
    """The keys of a tenant."""

    keys: list[KeyView]


class TokenView(_Answer):
    """A viewer token without its secret. `expires_at`: its own end, or its key's if that is sooner. `viewer`: keyed hash of who looks."""

    token_id: str
    key_id: str
    scopes: list[str]
    limits: LimitsView
    viewer: str | None
    created_at: datetime
    expires_at: datetime


class NewTokenAnswer(TokenView):
    """A new viewer token; `token` is shown here and never again."""

    token: str


class TokenList(_Answer):
    """Live viewer tokens, the oldest first."""

    tokens: list[TokenView]


class TenantView(_Answer):
    """A tenant. `log_key`: the part of its log's origin that no other log has."""

    name: str
    log_key: str
    created_at: datetime


class FirstKey(_Answer):
    """The first key of a tenant; `key` is shown here and never again."""

    key_id: str
    key: str
    scopes: list[str]


class NewTenantAnswer(TenantView):
    """A new tenant, the origin of its log, and its first key."""

    origin: str
    key: FirstKey


class TenantList(_Answer):
    """Every tenant, by name."""

    tenants: list[TenantView]


class ForgetCounts(_Answer):
    """What a dry run counted: entries that would lose something; values that would be erased one by one (a drop takes all of an entry and
    counts none); entries that a legal hold keeps; entries that are damaged and cannot be read."""

    dry_run: Literal[True]
    entries: int
    values: int
    held: int
    damaged: int
    control_entries: int


class ForgetRequest(_Answer):
    """A request to forget. `details`: what it asks for, null once it is finished; `result`: the counts of what was done."""

    id: str
    kind: Literal["retention", "erasure"]
    status: Literal["pending", "done", "refused"]
    asked_at: datetime
    asked_by: str
    reason: str
    details: dict[str, JSON] | None
    finished_at: datetime | None
    result: dict[str, int] | None


class ForgetRequests(_Answer):
    """Requests, the latest first."""

    requests: list[ForgetRequest]


_DESCRIPTIONS = {
    200: "Accepted before (replayed), not kept, or done", 201: "Accepted and durable", 202: "Asked for, not done yet", 204: "Done",
    207: "Some accepted, some not", 410: "Was here, and its content was removed lawfully",
    400: "Not well-formed", 401: "No usable credential", 403: "The key lacks the scope", 404: "Not found",
    409: "The id is used by an event with other content", 413: "Over a limit", 415: "Media type not taken",
    422: "Breaks a rule; errors[] says where",
    429: "Too much at a time; try again after Retry-After",
    500: "What is stored is damaged: verify the log", 503: "Try again after Retry-After",
}  # fmt: skip


def _responses(models: dict[int, Any], *problems: int) -> dict[int | str, dict[str, Any]]:
    described: dict[int | str, dict[str, Any]] = {}
    for status, model in models.items():
        described[status] = {"description": _DESCRIPTIONS[status]} | ({"model": model} if model is not None else {})
    # Whoever has to show a credential may do so too often.
    for status in sorted({*problems, 429} if 401 in problems else problems):
        schema = {"$ref": "#/components/schemas/Problem"}
        described[status] = {
            "description": _DESCRIPTIONS[status],
            "content": {"application/problem+json": {"schema": schema}},
        }
    return described


def _parameter(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _body(schema: dict[str, Any], **others: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}, **others}
    return {"requestBody": {"required": True, "content": content}}


_EVENT = {"$ref": "#/components/schemas/Event"}
_BATCH = {"type": "object", "required": ["events"], "additionalProperties": False,
          "properties": {"events": {"type": "array", "items": _EVENT}}}  # fmt: skip
INGEST_BODY = _body(
    {"anyOf": [_EVENT, _BATCH, {"type": "array", "items": _EVENT}]},
    **{"application/x-ndjson": {"schema": {"type": "string", "description": "One event a line"}}},
) | {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "The event's id when it has none of its own; in a batch `<key>/<index>`",
            "schema": {"type": "string", "minLength": 1, "maxLength": 240},
        }
    ]
}
INGEST_RESPONSES = _responses(
    {200: Receipt, 201: Receipt | BatchResults, 207: BatchResults}, 400, 401, 403, 409, 413, 415, 422, 503
)
_SORT = {"type": "string", "enum": list(parameters.SORTS), "default": "-occurred_at"}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": parameters.LIMIT_MAXIMUM, "default": parameters.LIMIT_DEFAULT}
PAGING_PARAMETERS = [
    _parameter("sort", "Order; ties are broken by seq", _SORT),
    _parameter("limit", "Events a page", _LIMIT),
    _parameter("cursor", "next_cursor of the page before", {"type": "string"}),
    _parameter("count", "Also count the matches, exactly up to 10,000", {"type": "string", "enum": ["capped"]}),
    _parameter(
        "fold",
        "Neighbours by the same actor with the same action, not over a minute apart, as one row; in orders of time",
        {"type": "string", "enum": ["burst"]},
    ),
]
_SEQ = {"type": "integer", "minimum": 0}
_SEQ_PARAMETERS = [
    _parameter("since_seq", "Of the events at exactly `since`, those from this seq on", _SEQ),
    _parameter("until_seq", "Also the events at exactly `until` with a seq below this one", _SEQ),
]
LIST_PARAMETERS = [*parameters.describe(), *_SEQ_PARAMETERS, *PAGING_PARAMETERS]
_WINDOW = {
    "type": "integer",
    "minimum": 1,
    "maximum": parameters.WINDOW_HOURS_MAXIMUM,
    "default": parameters.WINDOW_HOURS_DEFAULT,
}
ACTIVITY_PARAMETERS = [
    *(item for item in LIST_PARAMETERS if item["name"] not in {"server_id", "server_id.not"}),
    _parameter(
        "around",
        "A moment (RFC 3339): rank what changed before it (and 5 minutes after), on this server and on what its events name. Not "
        "with sort, cursor, count or fold",
        {"type": "string"},
    ),
    _parameter("window", "With `around`: how many hours before it", _WINDOW),
]
HISTORY_PARAMETERS = [
    *(item for item in LIST_PARAMETERS if str(item["name"]).removesuffix(".not") not in {"target_type", "target_id"}),
    _parameter("at", "The moment of `state` (RFC 3339); default: after the newest event", {"type": "string"}),
]
FACETS_PARAMETERS = [
    *parameters.describe(),
    _parameter(
        "fields",
        "Facets, also several with commas between them; all when not given",
        {"type": "array", "items": {"type": "string", "enum": list(FACETS)}},
    )
    | {"explode": False},
    _parameter("limit", "Values of each field", _LIMIT),
]
TIMELINE_PARAMETERS = [
    *parameters.describe(),
    _parameter(
        "interval",
        "Length of a bucket; days when not said, months where those would be too many",
        {"type": "string", "enum": list(parameters.INTERVALS)},
    ),
]

SOURCES_PARAMETERS = [
    _parameter("source", "Only these producers", {"type": "array", "items": {"type": "string"}}),
    _parameter(
        "below",
        "List only ranges that end at or below this number",
        {"type": "integer", "minimum": 0, "maximum": 2**63},
    ),
    _parameter("limit", "Producers a page", _LIMIT),
    _parameter("cursor", "next_cursor of the page before", {"type": "string"}),
]


def of_a_server(described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same parameters where the path names the server."""
    return [item for item in described if item["name"] not in {"server_id", "server_id.not"}]


EXPORT_PARAMETERS = [
    *parameters.describe(),
    _parameter("format", "Format", {"type": "string", "enum": ["csv", "json", "ndjson"], "default": "ndjson"}),
    _parameter("gzip", "The file as gzip", {"type": "boolean", "default": False}),
]
RANGE_PARAMETERS = [
    _parameter("from_seq", "First entry to check; default 0", {"type": "integer", "minimum": 0}),
    _parameter(
        "to_seq",
        "One past the last entry to check; default: the size of the log",
        {"type": "integer", "minimum": 0},
    ),
    _parameter(
        "depth",
        "`chain`: headers, bodies and links only; `all`: disclosures, query columns and receipts too",
        {"type": "string", "enum": list(get_args(Depth)), "default": "all"},
    ),
    _parameter(
        "incremental",
        "Start where the background verification found the log right; at the beginning where it did not, or has not been. Not together "
        "with a range",
        {"type": "boolean", "default": False},
    ),
    _parameter(
        "checkpoint",
        "A signed checkpoint kept elsewhere (the whole note, line breaks and all), to hold the log against; repeatable",
        {"type": "array", "items": {"type": "string"}},
    ),
    _parameter(
        "key",
        "A key that may have signed the log's checkpoints, as a vkey; repeatable. A checkpoint counts when one of them, one of the "
        "installation's own, or one that succeeded such a key, has signed it; `signed_by` says which",
        {"type": "array", "items": {"type": "string"}},
    ),
]
CHECKPOINTS_PARAMETERS = [
    _parameter("from_size", "Checkpoints of this size and larger; default 0", {"type": "integer", "minimum": 0}),
    _parameter("to_size", "Checkpoints smaller than this; default: all", {"type": "integer", "minimum": 0}),
    _parameter("limit", "Checkpoints a page", _LIMIT),
    _parameter("cursor", "From the Link header of the page before", {"type": "string"}),
]
_NOTE = {"text/plain": {"schema": {"type": "string"}}}
CHECKPOINT_RESPONSES = _responses({}, 400, 401, 403, 404, 503) | {
    200: {"description": "A signed note (C2SP tlog-checkpoint): origin, size, root, signatures", "content": _NOTE}
}
CHECKPOINTS_RESPONSES = _responses({}, 400, 401, 403, 503) | {
    200: {"description": "Signed notes with an empty line between them", "content": _NOTE}
}
LIST_RESPONSES = _responses({200: EventPage}, 400, 401, 403, 404, 503)
ACTIVITY_RESPONSES = _responses({200: EventPage | RankedEvents}, 400, 401, 403, 404, 503)
FACETS_RESPONSES = _responses({200: Facets}, 400, 401, 403, 404, 503)
TIMELINE_RESPONSES = _responses({200: Timeline}, 400, 401, 403, 404, 503)
SOURCES_RESPONSES = _responses({200: SourcePage}, 400, 401, 403, 503)
EVENT_RESPONSES = _responses({200: EventView}, 400, 401, 403, 404, 410, 503)
HISTORY_RESPONSES = _responses({200: HistoryPage}, 400, 401, 403, 404, 503)
REVERT_RESPONSES = _responses({200: RevertView}, 400, 401, 403, 404, 410, 503)
CHAIN_RESPONSES = _responses({200: Chain}, 400, 401, 403, 503)
VERIFY_RESPONSES = _responses({200: VerifyReport}, 400, 401, 403, 503)
EXPORT_RESPONSES = _responses({}, 400, 401, 403, 503) | {
    200: {
        "description": "The export, as a file to save. JSON and NDJSON end with the count, and gzip with a check: a cut download shows",
        "content": {
            kind: {"schema": {"type": "string"}} for kind in ("application/x-ndjson", "application/json", "text/csv")
        },
    }
}
RETENTION_BODY = _body({"$ref": "#/components/schemas/AskedRetention"})
ERASURE_BODY = _body({"$ref": "#/components/schemas/AskedErasure"})
FORGET_RESPONSES = _responses({200: ForgetCounts, 202: ForgetRequest}, 400, 401, 403, 413, 422, 503)
FORGET_LIST_RESPONSES = _responses({200: ForgetRequests}, 400, 401, 403, 503)
FORGET_ONE_RESPONSES = _responses({200: ForgetRequest}, 401, 403, 404, 503)
_COUNT = {"type": "integer", "minimum": 0}
_SIZE = "Size of the tree; default: that of the latest checkpoint, and of the log as long as nothing is signed"
INCLUSION_PARAMETERS = [
    _parameter("seq", "Which entry", _COUNT) | {"required": True},
    _parameter("size", _SIZE, _COUNT),
]
CONSISTENCY_PARAMETERS = [
    _parameter(
        "from_size", "The earlier size, such as that of a checkpoint you kept", {"type": "integer", "minimum": 1}
    )
    | {"required": True},
    _parameter("to_size", _SIZE, _COUNT),
]
PROOF_PARAMETERS = [
    _parameter(
        "wait",
        "Seconds to wait for a checkpoint that covers the event",
        {"type": "integer", "minimum": 0, "maximum": 10, "default": 0},
    )
]
INCLUSION_RESPONSES = _responses({200: InclusionProof}, 400, 401, 403, 500, 503)
CONSISTENCY_RESPONSES = _responses({200: ConsistencyProof}, 400, 401, 403, 500, 503)


def _file(description: str, media_type: str) -> dict[int | str, dict[str, Any]]:
    binary = {"type": "string"} if media_type.startswith("text/") else {"type": "string", "format": "binary"}
    return {200: {"description": description, "content": {media_type: {"schema": binary}}}}


_NOT_SIGNED = {**_responses({}, 409)[409], "description": "No checkpoint covers it yet; try again after Retry-After"}
PROOF_RESPONSES = (
    _responses({}, 400, 401, 403, 404, 410, 500, 503)
    | _file("The proof file (C2SP tlog-proof)", "text/plain")
    | {409: _NOT_SIGNED}
)
_EVIDENCE_RANGE = [
    _parameter("from_seq", "First entry; default: the first that was not pruned", _COUNT),
    _parameter("to_seq", "One past the last entry; default: the size of the checkpoint", _COUNT),
    _parameter("checkpoint_size", "Size of the signed checkpoint to prove it against; default: the latest", _COUNT),
]
EVIDENCE_PARAMETERS = [*_EVIDENCE_RANGE, *parameters.describe()]
EVIDENCE_RESPONSES = (
    _responses({}, 400, 401, 403, 500, 503)
    | _file("The bundle: a zip file to save, and to check with `verify-file`", "application/zip")
    | {409: _NOT_SIGNED}
)
TLOG_CHECKPOINT_RESPONSES = _responses({}, 400, 401, 403, 404, 500, 503) | _file("The signed note", "text/plain")
TLOG_TILE_RESPONSES = _responses({}, 400, 401, 403, 404, 500, 503) | _file(
    "Hashes of 32 bytes each, or entries, each behind its length in two bytes", "application/octet-stream"
)
KEY_BODY = _body({"$ref": "#/components/schemas/NewKey"})
_TWO_LIVE = {**_responses({}, 409)[409], "description": "The client has two live keys"}
KEY_RESPONSES = _responses({201: NewKeyAnswer}, 400, 401, 403, 413, 422, 503) | {409: _TWO_LIVE}
KEYS_RESPONSES = _responses({200: KeyList}, 400, 401, 403, 503)
REVOKE_RESPONSES = _responses({204: None}, 401, 403, 404, 503)
TOKEN_BODY = _body({"$ref": "#/components/schemas/NewToken"})
TOKEN_RESPONSES = _responses({201: NewTokenAnswer}, 400, 401, 403, 413, 422, 503)
TOKENS_RESPONSES = _responses({200: TokenList}, 400, 401, 403, 503)
RENEWAL_BODY = _body({"$ref": "#/components/schemas/Renewal"})
RENEWAL_BODY["requestBody"]["required"] = False
_ENDED = {**_responses({}, 409)[409], "description": "The token has ended"}
RENEWAL_RESPONSES = _responses({200: TokenView}, 400, 401, 403, 404, 413, 422, 503) | {409: _ENDED}
TENANT_BODY = _body({"$ref": "#/components/schemas/NewTenant"})
_TAKEN = {**_responses({}, 409)[409], "description": "There is a tenant of that name"}
TENANT_RESPONSES = _responses({201: NewTenantAnswer}, 400, 401, 403, 413, 422, 503) | {409: _TAKEN}
TENANTS_RESPONSES = _responses({200: TenantList}, 400, 401, 403, 503)
# Schemas that only `openapi_extra` and the problem answers name, so FastAPI does not find them by itself.
EXTRA_SCHEMAS: tuple[Any, ...] = (Event, Problem)
