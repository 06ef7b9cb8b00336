r"""Control entries: what the service enters about itself when it forgets, holds, changes its key or resumes (DESIGN 3.2).

The body is canonical JSON as an event's is: `v`, `nonce`, `id`, `action` (`audit.<kind>`), `verb` (`OTHER`), `category` (`audit`),
`occurred_at`, `outcome` (`success`), `source` (`{"id":"audit-service"}`), and besides

- `by`: who acted: an API key's id, `cli`, `schedule` or `signer`;
- `reason`: why, without personal data;
- `details`: what was done, by kind, as the builder of each kind shows. Seqs are integers; ranges are half-open, sorted and disjoint; hashes
  lower-case hex. Never more than ITEMS_LIMIT items.

A hold on a target has one disclosure, `target` (`{"id": …}`), its commitment under `sd` and its type as `target_type`: ids may be those of
people, and so must be able to go. A control entry is appended together with what it records, and never before.

>>> from datetime import UTC
>>> act = Act(by="cli", reason="retention", at=datetime(2026, 11, 22, tzinfo=UTC), id="0193", entropy=bytes(48))
>>> drop(act, [(0, 2), (5, 6)], count=3, policy="clear").body
'{"action":"audit.drop","by":"cli","category":"audit","details":{"count":3,"policy":"clear","ranges":[[0,2],[5,6]]},"id":"0193","nonce":"AAAAAAAAAAAAAAAAAAAAAA==","occurred_at":"2026-11-22T00:00:00.000000Z","outcome":"success","reason":"retention","source":{"id":"audit-service"},"v":1,"verb":"OTHER"}'
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, cast

from audit_service.core.canonical import JSONValue, canonical_bytes, canonical_text
from audit_service.core.entry import (
    NONCE_BYTES,
    SALT_BYTES,
    JSONObject,
    Projection,
    disclosure_hash,
    format_time,
    project,
)

Kind: TypeAlias = Literal["drop", "erase", "prune", "hold", "signer", "resume"]
KINDS: tuple[Kind, ...] = ("drop", "erase", "prune", "hold", "signer", "resume")
# The producer of what the service enters about itself.
SOURCE_ID = "audit-service"
ITEMS_LIMIT = 10_000
ENTROPY_BYTES = NONCE_BYTES + SALT_BYTES
REASON_CHARACTERS = 500
Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Act:
    """Who acts, why and when. `id`: a new UUIDv7; `entropy`: ENTROPY_BYTES of fresh randomness, the nonce and one salt."""

    by: str
    reason: str
    at: datetime
    id: str
    entropy: bytes


@dataclass(frozen=True, slots=True)
class Control:
    """A control entry before it has its place: exact body, disclosures (group → `salt || value`) and the columns that follow from them."""

    kind: Kind
    body: str
    disclosures: dict[str, bytes]
    projection: Projection

    def argument(self) -> str:
        """The `p_entry` of the functions that append it (migrations/sql/0003_proof.sql), as JSON text."""
        columns = {
            name: value for name, value in self.projection._asdict().items() if name in _ENTERED and value is not None
        }
        disclosed = {f"d_{group}": salted.hex() for group, salted in self.disclosures.items()}
        occurred_at = format_time(cast("datetime", self.projection.occurred_at))
        return canonical_text({**columns, **disclosed, "occurred_at": occurred_at, "body": self.body})


# The projections that the append function takes over; a control entry has no others.
_ENTERED = frozenset(
    ("id", "action", "verb", "category", "outcome", "target_type", "target_id", "target_name", "source_id", "search")
)


@dataclass(frozen=True, slots=True)
class ErasedItem:
    """One erased disclosure: where it stood, and its commitment, which stays in the body."""

    seq: int
    group: str
    commitment: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """What a `prune` entry says of the entries below `cut`, all of them that were ever in the log. `count`: those since the cut before.

    `frontier`: the hashes of the full subtrees of [0, cut), concatenated; `prev_hash`, `last_recorded_at_us` (microseconds since the
    Unix epoch) and `epoch`: of entry cut − 1; `checkpoint`: a signed note whose size is `cut`; `archive`: SHA-256 of the evidence
    bundle that was verified before; `signers`: the vkeys that were trusted so far, in order; `successions`: the details of every `signer`
    entry so far, each with the `epoch` of its entry: they prove themselves, and the entries may be below the cut.
    """

    cut: int
    root: bytes
    frontier: bytes
    prev_hash: bytes
    last_recorded_at_us: int
    epoch: int
    count: int
    first_at: datetime
    last_at: datetime
    checkpoint: str
    archive: bytes
    signers: Sequence[str]
    successions: Sequence[JSONObject] = ()


def drop(
    act: Act,
    ranges: Sequence[Range],
    *,
    count: int,
    policy: Literal["age", "clear", "prune"],
    before: datetime | None = None,
    category: str | None = None,
) -> Control:
    """Bodies and disclosures of all events in `ranges` removed: `{"ranges": [[0, 2], [5, 6]], "count": 3, "policy": "age", "before":
    "2026-01-01T00:00:00.000000Z", "category": "schedules"}`. `count`: events that lost their body; control entries in the ranges stay."""
    details: JSONObject = {
        "ranges": [[start, end] for start, end in ranges],
        "count": count,
        "policy": policy,
        "before": None if before is None else format_time(before),
        "category": category,
    }
    return _control("drop", act, details)


def erase(act: Act, items: Sequence[ErasedItem], *, request_hash: bytes) -> Control:
    """Disclosures erased: `{"items": [[17, "actor", "<commitment>"], …], "request": "<SHA-256 of the request's reference>"}`."""
    ordered = sorted(items, key=lambda item: (item.seq, item.group))
    listed: list[JSONValue] = [[item.seq, item.group, item.commitment.hex()] for item in ordered]
    return _control("erase", act, {"items": listed, "request": request_hash.hex()})


def prune(act: Act, cut: Cut) -> Control:
    """The entries below a cut removed whole. Cumulative: the latest one says all. `{"cut": 4096, "root": …, "frontier": …, "prev_hash": …,
    "last_recorded_at_us": 1795316100500000, "epoch": 1, "count": 4096, "first_at": …, "last_at": …, "checkpoint": "<note>", "archive": …,
    "signers": ["<vkey>"], "successions": [{"epoch": 1, "event": "succeeded", …}]}`; without `successions` where there were none."""
    details: JSONObject = {
        "cut": cut.cut,
        "root": cut.root.hex(),
        "frontier": cut.frontier.hex(),
        "prev_hash": cut.prev_hash.hex(),
        "last_recorded_at_us": cut.last_recorded_at_us,
        "epoch": cut.epoch,
        "count": cut.count,
        "first_at": format_time(cut.first_at),
        "last_at": format_time(cut.last_at),
        "checkpoint": cut.checkpoint,
        "archive": cut.archive.hex(),
        "signers": list(cut.signers),
        "successions": list(cut.successions) or None,
    }
    return _control("prune", act, details)


def hold_range(act: Act, hold_id: str, held: Range) -> Control:
    """A legal hold on entries: `{"hold": "<uuid>", "state": "set", "range": [0, 500]}`."""
    return _control("hold", act, {"hold": hold_id, "state": "set", "range": list(held)})


def hold_target(act: Act, hold_id: str, target_type: str, target_id: str) -> Control:
    """A legal hold on all entries about a target: `{"hold": "<uuid>", "state": "set"}`, `target_type` in the body, the id disclosed."""
    return _control("hold", act, {"hold": hold_id, "state": "set"}, (target_type, target_id))


def lift_hold(act: Act, hold_id: str) -> Control:
    """A legal hold lifted: `{"hold": "<uuid>", "state": "lifted"}`. What was held, its `set` entry says."""
    return _control("hold", act, {"hold": hold_id, "state": "lifted"})


def signer(
    act: Act,
    event: Literal["added", "succeeded", "revoked"],
    *,
    old: str,
    new: str | None,
    from_size: int,
    succession: Sequence[bytes] = (),
) -> Control:
    r"""The signing key changed: `{"event": "succeeded", "old": "<keyid>+<base64>", "new": …, "from_size": 4096, "succession": [<base64>,
    <base64>]}`: the signatures by the old and by the new key over
    `audit-service/succession/v1\n<origin>\n<old>\n<new>\n<from_size>\n`."""
    signed: list[JSONValue] = [base64.b64encode(signature).decode() for signature in succession]
    details: JSONObject = {"event": event, "old": old, "new": new, "from_size": from_size, "succession": signed or None}
    return _control("signer", act, details)


def resume(act: Act, *, checkpoint: str, size: int, root: bytes, lost: Range) -> Control:
    """Going on after a restore that lost a signed tail: `{"checkpoint": "<last good note>", "size": 90, "root": …, "lost": [90, 100],
    "why": "<the reason>"}`. Its header is the first of the next epoch; what is lost is of the epoch before."""
    details: JSONObject = {
        "checkpoint": checkpoint,
        "size": size,
        "root": root.hex(),
        "lost": list(lost),
        "why": act.reason,
    }
    return _control("resume", act, details)


def _control(kind: Kind, act: Act, details: JSONObject, target: tuple[str, str] | None = None) -> Control:
    body: JSONObject = {
        "v": 1,
        "nonce": base64.b64encode(act.entropy[:NONCE_BYTES]).decode(),
        "id": act.id,
        "action": f"audit.{kind}",
        "verb": "OTHER",
        "category": "audit",
        "occurred_at": format_time(act.at),
        "outcome": "success",
        "source": {"id": SOURCE_ID},
        "by": act.by,
        "reason": act.reason,
        "details": {name: value for name, value in details.items() if value is not None},
    }
    values: JSONObject = {}
    disclosures: dict[str, bytes] = {}
    if target is not None:
        body["target_type"], values["target"] = target[0], {"id": target[1]}
        disclosures["target"] = act.entropy[NONCE_BYTES:ENTROPY_BYTES] + canonical_bytes(values["target"])
        body["sd"] = {"target": disclosure_hash("target", disclosures["target"]).hex()}
    return Control(kind, canonical_text(body), disclosures, project(body, values))
