"""A JSON Patch (RFC 6902) that would undo one event on the row it was made of.

Each change becomes a `test` of what the event left there and then the operation that puts back what was there before; a patch applies
as a whole or not at all (RFC 6902 section 5), so on a row that has moved on it fails at a `test` and does no harm.

| change | operations |
|---|---|
| `add` | `test` new, `remove` |
| `replace` | `test` new, `replace` with old |
| `remove` | `add` old |

RFC 6902 can not ask that a member is absent, and its `add` replaces what is there: paths of undone removals are listed as `unguarded`.
The exception is a deleted row (`core.lifecycle`): the patch is for an empty object, `test`s that it is one, and adds each
member, so it can not run over a row that was made anew. An `add` of the whole row at `""` could.

Order: what an event added is removed from the back (a list's later elements first), then values are replaced, then what it removed is
added from the front. A change below another of the same event is undone with that one.

What can not be undone is in `skipped` with its reason, never silently left out: `redacted` (the value is not in the log, or parts of
it are not), `old_unknown` (the sender gave no old value), `contradictory` (changes below it do not fit), `failed` (the event says
that it changed nothing), `erased`, `damaged`.

An empty PHP map comes as `[]`, which JSON Patch takes for a list: turn it into `{}` before applying a patch below it.

>>> change = {"path": "/days", "op": "replace", "old": 7, "new": 14}
>>> event = {"action": "schedule.updated", "verb": "UPDATE", "outcome": None, "target": None, "changes": [change]}
>>> for operation in revert(event)["patch"]:
...     print(operation)
{'op': 'test', 'path': '/days', 'value': 14}
{'op': 'replace', 'path': '/days', 'value': 7}
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from audit_service.core.canonical import JSONValue
from audit_service.core.diff import Change, apply_changes
from audit_service.core.entry import JSONObject
from audit_service.core.history import holds_redacted
from audit_service.core.lifecycle import ends_row
from audit_service.errors import InvalidEventError

__all__ = ["Reason", "revert"]

Reason = Literal["redacted", "old_unknown", "contradictory", "failed", "erased", "damaged"]
_Op = Literal["remove", "replace", "add"]
_INVERSE: dict[_Op, _Op] = {"add": "remove", "replace": "replace", "remove": "add"}
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Undo:
    """How one change is undone: `expected` is tested first, unless the member is to be absent."""

    path: str
    op: _Op
    expected: JSONValue = None
    value: JSONValue = None

    def operations(self) -> list[JSONObject]:
        if self.op == "add":
            return [{"op": "add", "path": self.path, "value": self.value}]
        test: JSONObject = {"op": "test", "path": self.path, "value": self.expected}
        if self.op == "remove":
            return [test, {"op": "remove", "path": self.path}]
        return [test, {"op": "replace", "path": self.path, "value": self.value}]


def revert(event: Mapping[str, JSONValue]) -> JSONObject:
    """`patch`, `reverts` (how many changes it undoes), `unguarded` and `skipped` for an event as `core.view` shows it."""
    changes = cast("list[Change]", event["changes"])
    whole = _whole_reason(event)
    undone: list[_Undo] = []
    skipped: list[JSONObject] = []
    if whole is not None:
        skipped = [{"path": change["path"], "reason": whole} for change in changes] or [{"path": "", "reason": whole}]
    reverts = 0
    for change, below in [] if whole else _grouped(changes):
        found = _undo(change, below)
        if isinstance(found, _Undo):
            undone.append(found)
            reverts += 1 + len(below)
        else:
            skipped.extend({"path": each["path"], "reason": found} for each in (change, *below))
    deleted = _is_deletion(event, changes)
    guard: list[JSONObject] = [{"op": "test", "path": "", "value": {}}] if deleted and undone else []
    ordered = _ordered(undone)
    return {
        "patch": [*guard, *(operation for each in ordered for operation in each.operations())],
        "reverts": reverts,
        "unguarded": [] if deleted else [each.path for each in ordered if each.op == "add"],
        "skipped": list[JSONValue](skipped),
    }


def _whole_reason(event: Mapping[str, JSONValue]) -> Reason | None:
    """Why nothing of the event can be undone."""
    if event.get("damaged"):
        return "damaged"
    if "changes" in cast("list[JSONValue]", event.get("erased") or []):
        return "erased"
    return "failed" if event.get("outcome") == "failure" and event["changes"] else None


def _is_deletion(event: Mapping[str, JSONValue], changes: Sequence[Change]) -> bool:
    target = cast("JSONObject | None", event.get("target")) or {}
    verb, action, kind = (
        cast("str | None", value) or "" for value in (event["verb"], event["action"], target.get("type"))
    )
    return bool(changes) and ends_row(verb, action, kind, changes)


def _grouped(changes: Sequence[Change]) -> list[tuple[Change, list[Change]]]:
    """Each change that lies below no other, with those below it."""
    groups: dict[str, tuple[Change, list[Change]]] = {}
    for change in sorted(changes, key=lambda change: str(change["path"]).count("/")):
        path = str(change["path"])
        places = [place for place, character in enumerate(path) if character == "/" and place]
        above = next((groups[path[:place]] for place in places if path[:place] in groups), None)
        if above is None:
            groups[path] = (change, [])
        else:
            above[1].append(change)
    return list(groups.values())


def _undo(change: Change, below: Sequence[Change]) -> _Undo | Reason:
    reason = _refusal(change, below)
    if reason is not None:
        return reason
    old, op = change.get("old"), cast("_Op", change["op"])
    try:
        left = None if op == "remove" else _left_by(change, below)
    except InvalidEventError:
        return "contradictory"
    if holds_redacted([old, left]):
        return "redacted"
    return _Undo(str(change["path"]), _INVERSE[op], left, old)


def _refusal(change: Change, below: Sequence[Change]) -> Reason | None:
    """Why a change cannot be undone, as far as its members tell."""
    path, op = str(change["path"]), change["op"]
    is_redacted = any("redacted" in each for each in (change, *below)) or holds_redacted(path)
    # No append writes a change without a pointer, or without the value it set.
    is_damaged = not path.startswith("/") or (op != "remove" and "new" not in change and not is_redacted)
    rules: tuple[tuple[bool, Reason], ...] = (
        (is_damaged, "damaged"),
        (is_redacted, "redacted"),
        (op != "add" and "old" not in change, "old_unknown"),
    )
    return next((reason for holds, reason in rules if holds), None)


def _left_by(change: Change, below: Sequence[Change]) -> JSONValue:
    """What stood at the path after the event: the new value, with the changes below it made."""
    if not below:
        return change["new"]
    start = len(str(change["path"]))
    moved = [
        {**each, "path": "/new" + str(each["path"])[start:]} for each in sorted(below, key=lambda c: str(c["path"]))
    ]
    return apply_changes({"new": change["new"]}, moved)["new"]


def _ordered(undone: Sequence[_Undo]) -> list[_Undo]:
    forward = sorted(undone, key=lambda each: _natural(each.path))
    backward = forward[::-1]
    return [
        *(each for each in backward if each.op == "remove"),
        *(each for each in forward if each.op == "replace"),
        *(each for each in forward if each.op == "add"),
    ]


def _natural(path: str) -> list[tuple[int, int, str]]:
    """A sort key by which /tags/2 stands before /tags/10."""
    return [(0, int(segment), "") if _INDEX.fullmatch(segment) else (1, 0, segment) for segment in path.split("/")[1:]]
