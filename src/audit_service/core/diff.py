"""What changed between two rows: a list of field-level changes, and their inverse, applying them.

A change is a plain JSON object `{"path", "op", "old"?, "new"?, "redacted"?}`. `path` is a JSON Pointer
(RFC 6901) from the row: segments behind slashes, `~` written `~0` and `/` written `~1`. `op` is one of

- `add`: the member was absent; carries `new`;
- `remove`: the member is gone; carries `old`;
- `replace`: another value; carries `old` and `new`.

How rows are compared:

- Objects member by member, at every depth. A member that appears or vanishes is one change with its whole
  value, never one per leaf. Absent and null differ: absent → null is an `add`, null → value a `replace`.
- Lists index by index when equally long, else as one value: one `replace` of the whole list.
- PHP writes an empty map as `[]`. So `[]` and `{}` are equal, and `[]` → `{"k": 1}` adds `/k`; the mirror
  removes it.
- Numbers by value: 1 and 1.0 are equal. All else by JSON type: 1, "1" and true are three values.
- A missing row (None) is an empty one: a created row adds each of its members, a deleted one removes each.

`partial` names the row that is only a patch, holding just the changed columns. A column absent from it is
unchanged; a column with null *is* null. This goes for the columns of the row only: a nested object or list
in a patch is the column's whole value. A row that is missing altogether is no patch but a creation or
deletion. With `both`, each side gives what it had of the changed columns, so a column that only one side
has was added or removed.

Members whose name is in `ignored` are not looked at, wherever they stand, nor is anything below them. They
still ride along inside a value that is reported whole.

Law: `apply_changes(a, diff(a, b))` equals b, where [] and {}, 1 and 1.0, a missing and an empty row count
as equal.

>>> before = {"name": "web", "limits": {"cpu": 2, "ram": 512}, "tags": ["a"], "a/b": 1}
>>> after = {"name": "web", "limits": {"cpu": 4, "ram": 512.0}, "tags": ["a", "b"], "note": None}
>>> for change in diff(before, after):
...     print(change)
{'path': '/a~1b', 'op': 'remove', 'old': 1}
{'path': '/limits/cpu', 'op': 'replace', 'old': 2, 'new': 4}
{'path': '/note', 'op': 'add', 'new': None}
{'path': '/tags', 'op': 'replace', 'old': ['a'], 'new': ['a', 'b']}
>>> diff(before, {"name": "db"}, partial="after")
[{'path': '/name', 'op': 'replace', 'old': 'web', 'new': 'db'}]
>>> top_fields(diff(before, after))
['a/b', 'limits', 'note', 'tags']
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, cast

from audit_service.core.canonical import JSONValue
from audit_service.errors import Fault, InvalidEventError

__all__ = ["Change", "Partial", "apply_changes", "check_changes", "diff", "top_fields"]

# A plain dict, not a TypedDict: changes go straight into canonical_bytes, redaction and JSON columns.
Change: TypeAlias = dict[str, JSONValue]
Partial: TypeAlias = Literal["none", "after", "before", "both"]

PATH_LIMIT_CHARACTERS = 1024

_Row: TypeAlias = dict[str, JSONValue]
_Container: TypeAlias = dict[str, JSONValue] | list[JSONValue]
_Pair: TypeAlias = tuple[str, JSONValue, JSONValue]
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+", re.DOTALL)
_INDEX = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_OPS = ("add", "remove", "replace")
_MEMBERS = frozenset({"path", "op", "old", "new", "redacted"})


def diff(
    before: JSONValue,
    after: JSONValue,
    *,
    partial: Partial = "none",
    ignored: frozenset[str] = frozenset(),
) -> list[Change]:
    """The changes that lead from one row to the other, sorted by path (code points), paths unique.

    Linear in the size of the rows, plus the sort. Changes share their values with the rows: do not mutate
    them. Anything but an object, an empty list or None for a row is refused with `InvalidEventError`.
    """
    old, new = _row(before, "/before"), _row(after, "/after")
    if before is not None and after is not None:
        if partial == "after":
            old = {name: old[name] for name in new if name in old}
        elif partial == "before":
            new = {name: new[name] for name in old if name in new}
    changes = _compare("", old, new, ignored)
    if len(changes) > 1:
        changes.sort(key=_path)
    return changes


def apply_changes(before: JSONValue, changes: Iterable[Change]) -> _Row:
    """The row that `changes` make of `before`: the inverse of `diff`. Neither argument is mutated.

    The result shares what did not change with `before`, and new values with `changes`. A redacted change has
    no value to apply and leaves its member as it is. A path that leads nowhere raises `InvalidEventError`;
    whether its last member was there before, or had the value `old`, is not checked.
    """
    row = dict(_row(before, "/before"))
    copies: dict[int, _Container] = {id(row): row}  # held, so that no id is used twice
    for change in changes:
        if change["op"] != "remove" and "new" not in change:
            continue
        *parents, name = (_unescape(segment) for segment in _path(change).split("/")[1:])
        container: _Container = row
        for parent in parents:
            container = _own_child(container, parent, copies)
        if change["op"] != "remove":
            _put(container, name, change["new"])
        elif isinstance(container, dict):
            container.pop(name, None)
        else:
            raise _misfit()
    return row


def check_changes(changes: Sequence[JSONValue], *, pointer: str = "/changes") -> list[Change]:
    """Changes a sender made, checked and put into the form `diff` gives: sorted by path, paths unique.

    `op` may be left out: only `new` is an `add`, only `old` a `remove`, both (or neither, redacted) a
    `replace`. An `add` needs `new` and has no `old`; a `remove` has no `new`; a `replace` needs `new`; a
    change with `"redacted": true` has neither. A change whose `old` equals its `new` is left out. Anything
    else is an `InvalidEventError` that lists every fault at its place below `pointer` and quotes nothing
    that was sent.
    """
    faults: list[Fault] = []
    checked: dict[str, Change] = {}
    for index, item in enumerate(changes):
        here = f"{pointer}/{index}"
        change = _check_change(item, here, faults)
        if change is None:
            continue
        path = _path(change)
        if path in checked:
            faults.append(Fault("is the path of an earlier change", f"{here}/path"))
        checked[path] = change
    if faults:
        raise InvalidEventError("a change is not valid", faults)
    return [change for _, change in sorted(checked.items()) if not _is_noop(change)]


def top_fields(changes: Iterable[Change]) -> list[str]:
    """The columns that changed: the first path segments, unescaped, sorted by code points, each once."""
    return sorted({_unescape(_path(change).split("/", 2)[1]) for change in changes})


def _check_change(item: JSONValue, here: str, faults: list[Fault]) -> Change | None:
    """One change in its full form, or None and what is wrong with it added to `faults`."""
    if not isinstance(item, dict):
        faults.append(Fault("must be an object", here))
        return None
    found = [fault for fault in (_path_fault(item, here), _value_fault(item, here)) if fault]
    if found:
        faults.extend(found)
        return None
    change: Change = {"path": item["path"], "op": _op(item)}
    change.update((name, item[name]) for name in ("old", "new") if name in item)
    if item.get("redacted"):
        change["redacted"] = True
    return change


def _path_fault(item: Change, here: str) -> Fault | None:
    path = item.get("path")
    if not isinstance(path, str):
        return Fault("must be a string", f"{here}/path")
    if len(path) > PATH_LIMIT_CHARACTERS:
        return Fault(f"must be at most {PATH_LIMIT_CHARACTERS} characters", f"{here}/path")
    if not _POINTER.fullmatch(path):
        return Fault("must be a JSON Pointer (RFC 6901) to a member, such as /limits/cpu", f"{here}/path")
    return None


def _value_fault(item: Change, here: str) -> Fault | None:
    """The first thing that is wrong with anything but the path."""
    op, redacted = _op(item), item.get("redacted", False)
    rules = (
        (not item.keys() <= _MEMBERS, "has a member that is not path, op, old, new or redacted", ""),
        (op not in _OPS, "must be add, remove or replace", "/op"),
        (not isinstance(redacted, bool), "must be true or false", "/redacted"),
        (redacted and not item.keys().isdisjoint({"old", "new"}), "a redacted change carries no value", ""),
        (op == "add" and "old" in item, "an add has no old value", "/old"),
        (op == "remove" and "new" in item, "a remove has no new value", "/new"),
        (op != "remove" and "new" not in item and not redacted, "an add or replace needs new", ""),
    )
    return next((Fault(detail, here + place) for broken, detail, place in rules if broken), None)


def _op(item: Change) -> JSONValue:
    if "op" in item:
        return item["op"]
    if ("old" in item) == ("new" in item):
        return "replace"
    return "add" if "new" in item else "remove"


def _is_noop(change: Change) -> bool:
    if "old" not in change or "new" not in change:
        return False
    return not _compare("", change["old"], change["new"], frozenset())


def _own_child(container: _Container, name: str, copies: dict[int, _Container]) -> _Container:
    """A child that may be mutated: the first time it is met, a copy takes its place."""
    if isinstance(container, list):
        child = container[_index(container, name)]
    elif name in container:
        child = container[name]
    else:
        raise _misfit()
    if id(child) in copies:
        return copies[id(child)]
    if not isinstance(child, dict | list):
        raise _misfit()
    # Nothing lies below an empty list, so a change there says it was PHP's empty map.
    copy: _Container = child.copy() or {}
    copies[id(copy)] = copy
    _put(container, name, copy)
    return copy


def _put(container: _Container, name: str, value: JSONValue) -> None:
    if isinstance(container, list):
        container[_index(container, name)] = value
    else:
        container[name] = value


def _index(items: list[JSONValue], name: str) -> int:
    if not _INDEX.fullmatch(name) or len(name) > 18 or int(name) >= len(items):
        raise _misfit()
    return int(name)


def _misfit() -> InvalidEventError:
    return InvalidEventError("the changes do not fit the row")


def _path(change: Change) -> str:
    return cast("str", change["path"])


def _row(value: JSONValue, pointer: str) -> _Row:
    if isinstance(value, dict):
        return value
    if value is None or value == []:
        return {}
    raise InvalidEventError("a row is not an object", [Fault("must be an object or null", pointer)])


def _compare(path: str, before: JSONValue, after: JSONValue, ignored: frozenset[str]) -> list[Change]:
    """The changes between two values at one path, in no order; with a stack of its own, not recursion."""
    changes: list[Change] = []
    pending: list[_Pair] = [(path, before, after)]
    while pending:
        path, old, new = pending.pop()
        if isinstance(old, dict) and new == []:
            new = {}
        elif isinstance(new, dict) and old == []:
            old = {}
        if isinstance(old, dict) and isinstance(new, dict):
            _compare_members(path, old, new, ignored=ignored, changes=changes, pending=pending)
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            pending.extend(
                (f"{path}/{index}", one, other)
                for index, (one, other) in enumerate(zip(old, new, strict=True))
                if not _same_at_sight(one, other)
            )
        elif old != new or isinstance(old, bool) != isinstance(new, bool):
            changes.append({"path": path, "op": "replace", "old": old, "new": new})
    return changes


def _compare_members(
    path: str,
    old: _Row,
    new: _Row,
    *,
    ignored: frozenset[str],
    changes: list[Change],
    pending: list[_Pair],
) -> None:
    """Report members of one side only, and put those of both that may differ on the stack."""
    shared = 0
    for name, value in old.items():
        if name not in new:
            if name not in ignored:
                changes.append({"path": f"{path}/{_escape(name)}", "op": "remove", "old": value})
            continue
        shared += 1
        if not _same_at_sight(value, new[name]) and name not in ignored:
            pending.append((f"{path}/{_escape(name)}", value, new[name]))
    if shared < len(new):
        changes.extend(
            {"path": f"{path}/{_escape(name)}", "op": "add", "new": value}
            for name, value in new.items()
            if name not in old and name not in ignored
        )


def _same_at_sight(old: JSONValue, new: JSONValue) -> bool:
    """Whether two values are surely equal, without looking inside.

    Python's `==` will not do for containers: it finds [1] and [True] equal.
    """
    kind = type(old)
    return old is new or (kind is type(new) and kind is not dict and kind is not list and old == new)


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _unescape(segment: str) -> str:
    return segment.replace("~1", "/").replace("~0", "~")
