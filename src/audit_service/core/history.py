"""A target's fields as of a time, and who last set each: rebuilt from the changes of its events, newest first.

The log holds differences, not rows. Walking back from the newest event, the first write met of a place is its last one, so most of a
long history need not be read at all; the walk ends at the event that created the row, at the one that deleted it, or at a limit.
Rules (decision 0008):

- Events are ordered by (occurred_at, seq): one that arrived late is folded in where it belongs.
- An event whose outcome is `failure` changed nothing.
- A field that no event read so far has touched is *unknown*: it is not in `fields`, and never shown as null. `complete` says that nothing
  is unknown: a whole created row was met (`core.lifecycle`), or the row is deleted.
- A field is shown with its value, as `absent` (removed, by whom), as `redacted` (it has a value nobody may see; beside a value:
  parts of that were cut out) or as `erased` (the values of that event were erased later, only the column's name is left).
- A deletion ends the row. What its own changes removed is what was in the row then; a deletion that brought no row leaves the state
  of before it.
- *Drift*: a later event found another value than the log's last write. Something changed it without telling the log.

`ignored` names members that ingest does not compare, so their values inside others prove no drift.

>>> walk = Walk("server")
>>> ana, bo = ({"actor": {"name": name}} for name in ("Ana", "Bo"))
>>> walk.take(Past(7, "UPDATE", "server.updated", "success", bo, [{"path": "/ram", "op": "replace", "old": 6, "new": 8}]))
False
>>> row = [{"path": "/cpu", "op": "add", "new": 2}, {"path": "/ram", "op": "add", "new": 4}]
>>> walk.take(Past(3, "CREATE", "server.created", "success", ana, row))
True
>>> state = walk.state()
>>> state["exists"], state["complete"], state["fields"]["/ram"]["value"], state["fields"]["/cpu"]["set_by"]["actor"]["name"]
(True, True, 8, 'Ana')
>>> [(drift["path"], drift["logged"]["value"], drift["found"]["value"]) for drift in state["drift"]]
[('/ram', 4, 6)]
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import orjson

from audit_service.core.canonical import JSONValue
from audit_service.core.diff import Change, diff
from audit_service.core.entry import JSONObject
from audit_service.core.known_row import Claim, KnownRow
from audit_service.core.lifecycle import begins_row, brings_whole_row, ends_row
from audit_service.core.mask import mask_values
from audit_service.core.pointer_tree import segments_of
from audit_service.core.redaction import REDACTED
from audit_service.core.sight import Sight
from audit_service.core.view import actor_view, disclosed

__all__ = ["Past", "Walk", "WalkLimits", "holds_redacted", "past_event"]

DRIFT_LIMIT = 100
INCOMPLETE_LIMIT = 100


@dataclass(frozen=True, slots=True)
class WalkLimits:
    """Where a walk stops and says that it did: events read, their stored bytes, the bytes of events that had something to show, and
    places in the row (a path of a thousand segments is a thousand places)."""

    events: int = 50_000
    read_bytes: int = 64 * 1024 * 1024
    shown_bytes: int = 8 * 1024 * 1024
    places: int = 50_000


@dataclass(frozen=True, slots=True)
class Past:
    """An event as the walk needs it. `set_by` is how it is named as a writer. `changes` None: they cannot be read any more; `fields`
    are then the columns that are known to have changed. `size_bytes`: as stored."""

    seq: int
    verb: str
    action: str
    outcome: str | None
    set_by: JSONObject
    changes: list[Change] | None
    fields: Sequence[str] = ()
    size_bytes: int = 0


def past_event(
    seq: int, event_id: str | None, body: str | None, disclosures: Mapping[str, bytes], size_bytes: int, sight: Sight
) -> Past:
    """An event from what is stored of it, its writer as the sight shows them. Never raises: a row that no append wrote is one whose
    changes cannot be read."""
    try:
        return _past_event(seq, event_id, body, disclosures, size_bytes, sight)
    except (ValueError, LookupError, TypeError, AttributeError):
        writer: JSONObject = dict.fromkeys(("actor", "on_behalf_of", "occurred_at", "action"))
        return Past(seq, "OTHER", "", None, {**writer, "event_id": event_id, "seq": seq}, None, (), size_bytes)


def _past_event(
    seq: int,
    event_id: str | None,
    stored_body: str | None,
    disclosures: Mapping[str, bytes],
    size_bytes: int,
    sight: Sight,
) -> Past:
    body = cast("JSONObject", orjson.loads(cast("str", stored_body)))
    values = {group: disclosed(salted) for group, salted in disclosures.items()}
    visible, _ = mask_values(body, values, sight)
    set_by: JSONObject = {
        "actor": actor_view(body, visible),
        "on_behalf_of": visible.get("on_behalf_of"),
        "event_id": event_id,
        "seq": seq,
        "occurred_at": body["occurred_at"],
        "action": body["action"],
    }
    erased = "changes" in cast("JSONObject", body.get("sd", {})) and "changes" not in values
    changes = None if erased else _checked(cast("list[Change]", values.get("changes", [])))
    fields = [str(name) for name in cast("list[JSONValue]", body.get("fields", []))]
    outcome = cast("str | None", body.get("outcome"))
    return Past(seq, str(body["verb"]), str(body["action"]), outcome, set_by, changes, fields, size_bytes)


def _checked(changes: list[Change]) -> list[Change] | None:
    """The changes, if they are what an append writes."""
    for change in changes:
        path, op = change["path"], change["op"]
        if not isinstance(path, str) or not path.startswith("/") or op not in {"add", "remove", "replace"}:
            return None
        if op != "remove" and "new" not in change and "redacted" not in change:
            return None
    return changes


class Walk:
    """`take` the events of one target from the newest on, until it answers True; then `state` says what they tell."""

    def __init__(
        self, target_type: str, *, ignored: frozenset[str] = frozenset(), limits: WalkLimits | None = None
    ) -> None:
        self._type = target_type
        self._ignored = ignored
        self._limits = limits or WalkLimits()
        self._fields = KnownRow()
        self._found = KnownRow()  # what the events met so far say was there before them
        self._exists: bool | None = None
        self._acted = False  # something was done to it that proves little: it may have been deleted since
        self._deletion: Past | None = None
        self._deleted = KnownRow()
        self._deleted_whole = False
        self._base: Past | None = None
        self._restoration: Past | None = None
        self._drift: list[JSONObject] = []
        self._drift_total = 0
        self._incomplete: list[int] = []
        self._events = self._read_bytes = self._shown_bytes = 0
        self._capped = False

    @property
    def anchor_seq(self) -> int | None:
        """The seq of the event that everything shown rests on, the row's creation or deletion; None when the walk met neither. An
        event after it that the log has lost makes the state less than `complete`."""
        anchor = self._base or self._deletion
        return None if anchor is None else anchor.seq

    def take(self, event: Past) -> bool:
        """Fold the next older event. True when no earlier one can matter, or a limit is reached."""
        self._events += 1
        self._read_bytes += event.size_bytes
        done = event.outcome != "failure" and self._fold(event)
        limits = self._limits
        if not done and (
            self._events >= limits.events
            or self._read_bytes >= limits.read_bytes
            or self._shown_bytes >= limits.shown_bytes
            or self._is_full()
        ):
            self._capped = True
        return done or self._capped

    def _is_full(self) -> bool:
        return max(self._fields.places, self._deleted.places, self._found.places) >= self._limits.places

    def _fold(self, event: Past) -> bool:
        if event.changes is None and len(self._incomplete) < INCOMPLETE_LIMIT:
            self._incomplete.append(event.seq)
        if ends_row(event.verb, event.action, self._type, event.changes):
            return self._fold_deletion(event)
        begins = begins_row(event.verb, event.action, self._type)
        if begins or event.fields or event.changes:
            self._exists = True if self._exists is None else self._exists
        else:
            self._acted = True
        shows = self._write(event)
        if shows:
            self._shown_bytes += event.size_bytes
        if begins and (event.changes is None or brings_whole_row(event.changes)):
            if event.verb == "CREATE":
                self._base = event
                return True
            # A whole row only if it was gone before: restoring a server from a backup may bring no more than the backup's name.
            self._restoration = event
        return False

    def _fold_deletion(self, event: Past) -> bool:
        if self._deletion is None and self._restoration is not None:
            self._base = self._restoration
            return True
        if self._deleted.places:
            return True  # of the life before
        self._exists = False if self._exists is None else self._exists
        # The same row may be deleted twice, by who hides it and by who purges it, and only one of them brings it.
        self._deletion = self._deletion or event
        # Whatever came after it found another row.
        self._found = KnownRow()
        self._deleted_whole = bool(event.changes)
        for change in event.changes or ():
            path = segments_of(str(change["path"]))
            if "redacted" in change:
                self._deleted.cover(path, Claim("redacted"))
            elif "old" in change:
                self._deleted.cover(path, Claim("value", change["old"]))
            else:
                self._deleted_whole = False
        self._shown_bytes += event.size_bytes
        return bool(event.changes)

    def _write(self, event: Past) -> bool:
        """Put what the event wrote below what is known already. Whether anything of it shows."""
        row = self._fields if self._deletion is None else self._deleted
        if event.changes is None:
            shows = [row.cover((name,), Claim("erased", None, event.set_by)) for name in event.fields]
            for name in event.fields:
                self._found.overwrite((name,), Claim("unknown"))
            return any(shows)
        shows = []
        for change in reversed(event.changes):  # they were made in the order of their paths
            path = segments_of(str(change["path"]))
            wrote = _wrote(change, event.set_by)
            self._compare(str(change["path"]), path, wrote)
            shows.append(row.cover(path, wrote))
            self._found.overwrite(path, _found(change, event.set_by))
            if self._is_full():
                self._capped = True
                break
        return any(shows)

    def _compare(self, pointer: str, path: Sequence[str], wrote: Claim) -> None:
        """Note where later events found another value than this one wrote."""
        for below, found in self._found.pieces_at(path):
            logged: Claim | None = wrote
            for segment in segments_of(below):
                logged = None if logged is None else logged.member(segment)
            if logged is None or self._agree(logged, found):
                continue
            self._drift_total += 1
            if len(self._drift) < DRIFT_LIMIT:
                drift: JSONObject = {"path": pointer + below, "logged": _shown(logged), "found": _shown(found)}
                self._drift.append(drift)

    def _agree(self, logged: Claim, found: Claim) -> bool:
        """Whether two claims can both be true. Withheld values can always."""
        if not {logged.kind, found.kind} <= {"value", "absent"}:
            return True
        if logged.kind != found.kind:
            return False
        if logged.kind == "absent" or not diff({"v": logged.value}, {"v": found.value}, ignored=self._ignored):
            return True
        return holds_redacted(logged.value) or holds_redacted(found.value)

    def state(self, *, lost: bool = False) -> JSONObject:
        """The members of the answer that follow from the events taken. `lost`: the log has lost events after `anchor_seq`, and cannot
        tell whose they were."""
        exists = True if self._exists is None and self._acted else self._exists
        sound = not self._capped and not self._incomplete and not lost
        created = self._base is not None and self._deletion is None
        return {
            "exists": exists,
            "complete": sound and (exists is False or created),
            "fields": _fields(self._fields),
            "deleted": self._deleted_view(sound),
            "drift": list[JSONValue](self._drift),
            "drift_total": self._drift_total,
            "incomplete": list[JSONValue](self._incomplete),
            "events_read": self._events,
            "capped": self._capped,
        }

    def _deleted_view(self, sound: bool) -> JSONObject | None:
        if self._deletion is None:
            return None
        return {
            "at": self._deletion.set_by["occurred_at"],
            "by": self._deletion.set_by,
            "complete": self._deleted_whole or (sound and self._base is not None),
            "fields": _fields(self._deleted),
        }


def _wrote(change: Change, by: JSONObject) -> Claim:
    """What stood at the path after the change."""
    if change["op"] == "remove":
        return Claim("absent", None, by)
    return Claim("redacted", None, by) if "redacted" in change else Claim("value", change["new"], by)


def _found(change: Change, by: JSONObject) -> Claim:
    """What stood at the path before the change."""
    if change["op"] == "add":
        return Claim("absent", None, by)
    return Claim("value", change["old"], by) if "old" in change else Claim("unknown")


def _fields(row: KnownRow) -> JSONObject:
    return {pointer: _shown(claim) for pointer, claim in sorted(row.pieces(), key=lambda piece: piece[0])}


def _shown(claim: Claim) -> JSONObject:
    shown: JSONObject = {"value": claim.value} if claim.kind == "value" else {claim.kind: True}
    if claim.kind == "value" and holds_redacted(claim.value):
        shown["redacted"] = True
    return {**shown, "set_by": claim.by}


def holds_redacted(value: JSONValue) -> bool:
    """Whether anything was cut out of the value on its way in (or somebody sent the placeholder: the two look the same)."""
    pending: list[Iterable[JSONValue]] = [(value,)]
    while pending:
        for item in pending.pop():
            if isinstance(item, str):
                if REDACTED in item:
                    return True
            elif isinstance(item, list):
                pending.append(item)
            elif isinstance(item, dict):
                pending.extend((item.keys(), item.values()))
    return False
