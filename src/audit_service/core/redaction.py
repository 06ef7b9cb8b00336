"""Takes secrets out of an event and keeps the fact that they changed.

Three rules, in this order of strength:

1. *Names and pointers.* What stands under a secret name (`secret_names`) or at a configured pointer is replaced whole,
   whatever its type; only null stays. In `{"name": "DB_PASSWORD", "value": "…"}` the value is what is named.
2. *Values.* In every other string, and in object keys, whatever `secret_patterns` recognises is replaced and the rest
   is kept. JSON text inside a string is opened and treated by both rules.
3. *Depth.* What lies more than 64 levels down is replaced.

The placeholder is `"[redacted]"`. A change of something secret becomes `{"path", "op", "redacted": true}`, its path cut
after the secret segment. Redacting twice changes nothing more; the input is never changed, and parts without findings
come back as the same objects.

>>> rules = compile_ruleset()
>>> redact_value({"user": "ana", "dbPassword": ["a"], "note": "see https://ana:pw@host/"}, rules)
{'user': 'ana', 'dbPassword': '[redacted]', 'note': 'see https://[redacted]@host/'}
>>> redact_changes([{"path": "/token/0", "op": "add", "new": "x"}], rules, target_type=None)
[{'path': '/token', 'op': 'replace', 'redacted': True}]
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias, cast

from audit_service.core.canonical import JSONValue
from audit_service.core.diff import Change
from audit_service.core.named_pair import is_paired, naming_stem
from audit_service.core.redaction_tree import (
    CARD,
    DEPTH_LIMIT,
    LISTING,
    MEMO_NAME_LIMIT,
    NAMING,
    REDACTED,
    RENAMED,
    SCALAR,
    SECRET,
    VALUE,
    Nodes,
    Ruleset,
    Suspects,
    compile_ruleset,
    hide_columns,
    holds_token,
    is_final,
    is_pair,
    is_secret_flag,
    is_secret_for,
    is_suspect,
    redact_part,
    redact_text,
    redact_value,
    secret_arguments,
    secret_columns,
    secret_stems,
    segments_of,
    step,
)
from audit_service.core.secret_patterns import ValuePatterns

__all__ = [
    "DEPTH_LIMIT",
    "REDACTED",
    "Change",
    "Ruleset",
    "compile_ruleset",
    "holds_token",
    "redact_changes",
    "redact_event",
    "redact_text",
    "redact_value",
]

_ACTING: Final = SECRET | NAMING | VALUE | CARD | RENAMED | SCALAR
# The mark of a change to the first of two elements, `["DB_PASSWORD", "…"]`.
_FIRST_OF_TWO: Final = "\0"
_UNTOUCHED: Final = frozenset(
    (
        "action",
        "verb",
        "outcome",
        "partial",
        "occurred_at",
        "recorded_at",
        "seq",
        "erased",
        "proof",
    )
)
_TREES: Final = ("before", "after", "metadata")
# Ids may pass for a card number by chance, and `token:41` names a token.
_OWN_IDS: Final = frozenset(("id", "server_id", "request_id", "traceparent", "tracestate"))
Named: TypeAlias = Mapping[str, AbstractSet[str]]


# --- changes ---


def redact_changes(changes: Sequence[Change], rules: Ruleset, *, target_type: str | None) -> list[Change]:
    """The changes without secrets, sorted by path, one for each path."""
    return _redact_changes(changes, rules, target_type, (), suspects=None)


def _redact_changes(
    changes: Sequence[Change],
    rules: Ruleset,
    target_type: str | None,
    rows: Sequence[JSONValue],
    *,
    suspects: Suspects,
) -> list[Change]:
    pointers = rules.pointer_nodes(target_type)
    beside = _Beside(rows or _rows_of(changes), _named_beside(changes, rules), rules)
    return _united(_redact_change(change, rules, pointers, beside, suspects=suspects) for change in changes)


def _united(changes: Iterable[Change]) -> list[Change]:
    """Sorted by path, one for each: of several whose paths were cut to the same, only the fact stays."""
    by_path: dict[str, Change] = {}
    for change in changes:
        path = str(change["path"])
        other = by_path.get(path)
        if other is None:
            by_path[path] = change
        else:
            op = change["op"] if change["op"] == other["op"] else "replace"
            by_path[path] = {"path": path, "op": op, "redacted": True}
    return [by_path[path] for path in sorted(by_path)]


def _rows_of(changes: Sequence[Change]) -> list[JSONValue]:
    """What ready-made changes say of the old and the new row: enough to see what stands beside what."""
    rows: list[JSONValue] = []
    for side in ("old", "new"):
        row: dict[str, JSONValue] = {}
        for change in changes:
            if change.get(side) is not None:
                _place(row, segments_of(str(change["path"])), change[side])
        rows.append(row)
    return rows


def _place(row: dict[str, JSONValue], segments: Sequence[str], value: JSONValue) -> None:
    for segment in segments[:-1]:
        below = row.setdefault(segment, {})
        if not isinstance(below, dict):
            return
        row = below
    if segments:
        row.setdefault(segments[-1], value)


def _named_beside(changes: Sequence[Change], rules: Ruleset) -> dict[str, set[str]]:
    """Where another change tells the name of a value: parent path to the stems of the members that hold secret names."""
    named: dict[str, set[str]] = {}
    for change in changes:
        parent, _, last = str(change["path"]).rpartition("/")
        if not any(rules.is_label(change.get(side)) for side in ("old", "new")):
            continue
        flags, shown = rules.judge(last)
        if flags & NAMING:
            named.setdefault(parent, set()).add(naming_stem(shown) or "")
        elif last == "0" and parent.rpartition("/")[2].isdigit():
            named.setdefault(parent, set()).add(_FIRST_OF_TWO)
    return named


class _Beside:
    """What stands beside a change: in the rows it was made from, and in the other changes.

    They know what its path does not: which name stands beside `/env/3/value`.
    """

    __slots__ = ("_columns", "_named", "_rows", "_rules", "_stems")

    def __init__(self, rows: Sequence[JSONValue], named: Named, rules: Ruleset) -> None:
        self._rows = rows
        self._named = named
        self._rules = rules
        # Rows may be wide, and looked at for each of their changes; they live as long as this does.
        self._stems: dict[int, frozenset[str]] = {}
        self._columns: dict[int, frozenset[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._rows) or bool(self._named)

    def secret_places(self, segments: Sequence[str]) -> set[int]:
        """The positions of the segments under which, by what stands beside them, a secret stands."""
        places = {position for row in self._rows for position in self._places_in(row, segments)}
        path = ""
        for position, segment in enumerate(segments):
            stems = self._named.get(path, frozenset())
            if stems and (is_paired(segment, stems) or (segment == "1" and _FIRST_OF_TWO in stems)):
                places.add(position)
            path += "/" + segment.replace("~", "~0").replace("/", "~1")
        return places

    def _places_in(self, row: JSONValue, segments: Sequence[str]) -> Iterable[int]:
        columns: frozenset[int] = frozenset()
        since = above = 0
        for position, segment in enumerate(segments):
            flags = self._rules.judge(segment)[0]
            if isinstance(row, dict):
                if flags & VALUE and is_paired(segment, self._stems_of(row)):
                    yield position
                columns, since = (frozenset() if flags & NAMING else self._columns_of(row)), position
            elif isinstance(row, list) and segment.isascii() and segment.isdigit():
                if (
                    position - since in (1, 2)
                    and int(segment[:9]) in columns
                    and (position - since == 2 or above & VALUE)
                ):
                    yield position
                if self._is_secret_element(row, segment, above):
                    yield position
            row = _child(row, segment)
            above = 0 if segment.isdigit() else flags

    def columns_over(self, segments: Sequence[str]) -> frozenset[int]:
        """The places of secret columns for a change of rows as a whole, or of one whole row: named beside the rows."""
        over = len(segments) - (2 if _is_row(segments) else 1)
        if over < 0 or self._rules.judge(segments[over])[0] & NAMING:
            return frozenset()
        parents = (_descend(row, segments[:over]) for row in self._rows)
        columns = (self._columns_of(parent) for parent in parents if isinstance(parent, dict))
        return frozenset().union(*columns)

    def _is_secret_element(self, row: list[JSONValue], segment: str, above: int) -> bool:
        index = int(segment[:9])
        value = _child(row, segment)
        if index and isinstance(value, str) and is_secret_flag(row[index - 1], value, self._rules):
            return True
        if segment == "1" and is_pair(row, above & (NAMING | LISTING), self._rules):
            return True
        return index in secret_arguments(row, self._rules)

    def _stems_of(self, row: dict[str, JSONValue]) -> frozenset[str]:
        stems = self._stems.get(id(row))
        if stems is None:
            stems = self._stems[id(row)] = secret_stems(row, self._rules)
        return stems

    def _columns_of(self, row: dict[str, JSONValue]) -> frozenset[int]:
        columns = self._columns.get(id(row))
        if columns is None:
            columns = self._columns[id(row)] = secret_columns(row, self._rules)
        return columns


def _redact_change(change: Change, rules: Ruleset, pointers: Nodes, beside: _Beside, *, suspects: Suspects) -> Change:
    path = str(change["path"])
    exempt = rules.exempt_nodes()
    segments = segments_of(path)
    if pointers or exempt or beside or not rules.is_plain_path(path):
        cut = _secret_depth(change, segments, rules, pointers, beside)
        shown = [rules.judge(segment)[1] for segment in segments[:cut]]
        path = "".join("/" + segment.replace("~", "~0").replace("/", "~1") for segment in shown)
        if cut is not None:
            return {"path": path, "op": change["op"] if cut == len(segments) else "replace", "redacted": True}
    redacted = dict(change)
    redacted["path"] = path
    columns = beside.columns_over(segments)
    for side in ("old", "new"):
        if side in change:
            value = redact_part(change[side], rules, segments, pointers, suspects=suspects)
            flat = bool(rules.judge(segments[-1])[0] & VALUE) if segments else False
            redacted[side] = (
                hide_columns(value, columns, flat=flat or _is_row(segments)) if isinstance(value, list) else value
            )
    # What differed only in its secrets would now read as a change from one value to the same.
    if "old" in change and "new" in change and redacted["old"] == redacted["new"] and change["old"] != change["new"]:
        return {"path": path, "op": change["op"], "redacted": True}
    return redacted


def _secret_depth(
    change: Change, segments: Sequence[str], rules: Ruleset, pointers: Nodes, beside: _Beside
) -> int | None:
    """How many segments up to and with the first secret one; None when there is none."""
    exempt = rules.exempt_nodes()
    places = beside.secret_places(segments)
    for position, segment in enumerate(segments):
        pointers, exempt = step(pointers, segment), step(exempt, segment)
        flags = rules.judge(segment)[0]
        secret = bool(flags & SECRET) or position in places
        if flags & SCALAR and position == len(segments) - 1 and not secret:
            secret = any(is_secret_for(flags, change[side]) for side in ("old", "new") if change.get(side) is not None)
        if is_final(pointers) or (secret and not is_final(exempt)):
            return position + 1
    return None


def _is_row(segments: Sequence[str]) -> bool:
    """Whether a path leads to an element of a list that stands under a name."""
    return len(segments) > 1 and segments[-1].isdigit() and not segments[-2].isdigit()


def _descend(value: JSONValue, segments: Sequence[str]) -> JSONValue:
    for segment in segments:
        value = _child(value, segment)
    return value


def _child(value: JSONValue, segment: str) -> JSONValue:
    if isinstance(value, dict):
        return value.get(segment)
    if isinstance(value, list) and segment.isascii() and segment.isdigit() and len(segment) < 10:
        return value[int(segment)] if int(segment) < len(value) else None
    return None


# --- events ---


def redact_event(
    event: dict[str, JSONValue], changes: list[Change], rules: Ruleset
) -> tuple[dict[str, JSONValue], list[Change]]:
    """The event and its changes without secrets; untouched parts are shared with the input.

    One pass over everything judges the names, hides what stands under plainly secret ones, and gathers the strings; these are
    screened together. Only what calls for more (a suspicious string, names and values in pairs, an operator's pointers) is
    rebuilt with every rule.
    """
    target = event.get("target")
    kind = target.get("type") if isinstance(target, dict) else None
    target_type = kind if isinstance(kind, str) else None
    survey = _Survey(rules)
    hidden_changes = survey.changes(changes)
    hidden = survey.event(event, changes, hidden_changes)
    survey.settle()
    suspects = survey.suspects(rules.patterns)
    if not survey.names and not suspects and suspects is not None and not rules.pointer_nodes(target_type):
        return hidden, hidden_changes
    rows = [row for member in ("before", "after") if (row := event.get(member)) is not None]
    redacted = _redact_members(event, rules, target_type, suspects=suspects)
    return redacted, _redact_changes(changes, rules, target_type, rows, suspects=suspects)


def _redact_members(
    event: dict[str, JSONValue], rules: Ruleset, target_type: str | None, *, suspects: Suspects
) -> dict[str, JSONValue]:
    redacted = dict(event)
    for name, value in event.items():
        if name in _TREES:
            redacted[name] = redact_part(value, rules, (), rules.pointer_nodes(target_type), suspects=suspects)
        elif name == "changes" and isinstance(value, list):
            own = [change for change in value if isinstance(change, dict)]
            redacted[name] = list(_redact_changes(own, rules, target_type, (), suspects=suspects))
        elif suspects != frozenset() and name not in _UNTOUCHED:
            redacted[name] = _redact_labels(name, value, rules, suspects)
    return redacted


def _redact_labels(name: str, value: JSONValue, rules: Ruleset, suspects: Suspects) -> JSONValue:
    """A member of the event's own: its names are ours, so only its values are judged."""
    if isinstance(value, str):
        suspect = is_suspect(value, rules, suspects)
        return redact_text(value, rules, is_id=name in _OWN_IDS) if suspect else value
    if isinstance(value, list):
        return [_redact_labels(name, member, rules, suspects) for member in value]
    if isinstance(value, dict):
        # The session id is hashed with a key by whoever stores it; here it has to stay what it is.
        return {
            own: member if own == "session_id" else _redact_labels(own, member, rules, suspects)
            for own, member in value.items()
        }
    return value


class _Survey:
    """Collects the strings of an event, hides what stands under plainly secret names, and notes whether a name calls for more."""

    __slots__ = ("_hides", "_judge", "_labels_seen", "_memo", "_rules", "_values_seen", "names", "strings")

    def __init__(self, rules: Ruleset) -> None:
        self._rules = rules
        self._judge = rules.judge
        self._memo = rules.memo
        self._labels_seen: list[str] = []
        self._values_seen = False
        # Exempt paths need every step of the way to a name: only the full rules take it.
        self._hides = not rules.exempt_nodes()
        self.names = not self._hides
        self.strings: list[str] = [""]

    def tree(self, value: JSONValue, depth: int = 0) -> JSONValue:
        """A row or metadata with what stands under plainly secret names hidden. What is too deep calls for the full rules."""
        if depth >= DEPTH_LIMIT:
            self.names = True
        elif isinstance(value, dict):
            return self._object(value, depth)
        elif isinstance(value, list):
            return self._list(value, depth)
        elif isinstance(value, str):
            self.strings.append(value)
        return value

    def _object(self, members: dict[str, JSONValue], depth: int) -> dict[str, JSONValue]:
        add, known, hides = self.strings.append, self._memo.get, self._hides
        result = members
        naming_list = False
        for name, member in members.items():
            flags = (known(name) or self._judge(name))[0]
            if flags & _ACTING:
                self._note(flags, member)
            kind = type(member)
            naming_list = naming_list or (kind is list and bool(flags & NAMING))
            if flags & SECRET and hides:
                part: JSONValue = None if member is None else REDACTED
            elif kind is str:
                add(member)  # type: ignore[arg-type]
                continue
            elif kind is dict or kind is list:
                part = self.tree(member, depth + 1)
            else:
                continue
            if part is not member:
                result = dict(members) if result is members else result
                result[name] = part
        if naming_list and secret_columns(members, self._rules):
            self.names = True
        return result

    def _list(self, values: list[JSONValue], depth: int) -> list[JSONValue]:
        last = ""
        if (len(values) == 2 and is_pair(values, 0, self._rules)) or (
            len(values) > 1 and type(values[0]) is str and secret_arguments(values, self._rules)
        ):
            self.names = True
        result = values
        for index, value in enumerate(values):
            if isinstance(value, str):
                self.strings.append(value)
                if last[:1] == "-" and is_secret_flag(last, value, self._rules):
                    self.names = True
                last = value
            elif isinstance(value, (dict, list)):
                part = self.tree(value, depth + 1)
                if part is not value:
                    result = list(values) if result is values else result
                    result[index] = part
        return result

    def _note(self, flags: int, member: JSONValue) -> None:
        if flags & (RENAMED | CARD | SCALAR):
            self.names = True
        # `name` and `value` are everywhere; they only matter together, when the one holds a secret name.
        if flags & VALUE:
            self._values_seen = True
        if flags & NAMING and isinstance(member, str) and len(member) <= MEMO_NAME_LIMIT:
            self._labels_seen.append(member)

    def settle(self) -> None:
        """To be called after everything was seen: whether a name and a value of different members belong together."""
        if self._values_seen and not self.names:
            self.names = any(map(self._rules.is_label, self._labels_seen))

    def event(
        self, event: dict[str, JSONValue], changes: list[Change], hidden_changes: list[Change]
    ) -> dict[str, JSONValue]:
        """Every member: rows and metadata with their names, our own members for their strings. `hidden_changes` are what has become
        of `changes`, which the event may hold too. The same event when there is nothing to hide."""
        add = self.strings.append
        hidden: dict[str, JSONValue] = {}
        for name, value in event.items():
            if name in _TREES:
                part = self.tree(value)
                if part is not value:
                    hidden[name] = part
            elif name in _UNTOUCHED or value is None:
                continue
            elif name == "changes":
                own = [change for change in _list(value) if isinstance(change, dict)]
                found = hidden_changes if value is changes else self.changes(own)
                if found is not changes and found is not own:
                    hidden[name] = cast("JSONValue", found)
            elif type(value) is str:
                add(value)
            else:
                self._labels(value)
        return event | hidden if hidden else event

    def changes(self, changes: list[Change]) -> list[Change]:
        """Paths by their segments, both sides as trees. The same list when there is nothing to hide and the paths are in order."""
        seen = 0
        columns = False
        found: list[Change] = []
        in_order, last = True, ""
        for change in changes:
            path = str(change["path"])
            flags, shown = self._rules.judge_path(path)
            columns = columns or bool(
                flags & NAMING and (type(change.get("old")) is list or type(change.get("new")) is list)
            )
            seen |= flags | (NAMING | VALUE if path.endswith("/0") else 0)
            if flags & (CARD | RENAMED | SCALAR):
                self.names = True
                self._sides(change)
            elif shown is not None and self._hides:
                op = change["op"] if shown == path else "replace"
                change = {"path": shown, "op": op, "redacted": True}  # noqa: PLW2901 - what is to be kept of it
                in_order = False
            else:
                self._sides(change)
            in_order = in_order and last < path
            last = path
            found.append(change)
        if columns or (seen & NAMING and seen & VALUE and _named_beside(changes, self._rules)):
            self.names = True
        return changes if in_order else _united(found)

    def _sides(self, change: Change) -> None:
        for side in ("old", "new"):
            value = change.get(side)
            if type(value) is str:
                self.strings.append(value)
            elif value is not None and self.tree(value) is not value:
                self.names = True  # both sides may read the same once their secrets are hidden

    def suspects(self, patterns: ValuePatterns) -> Suspects:
        """The strings to look at closely: one search over all of them, parted by NUL, across which no pattern looks."""
        if patterns.screen_anchored(self.strings):
            return None
        data = "\0".join([*self.strings, ""]).encode("utf-8", "replace")
        places = patterns.suspect_parts(data)
        if not places:
            return frozenset()
        # A string with a NUL of its own shifts the count.
        return frozenset(map(self.strings.__getitem__, places)) if data.count(0) == len(self.strings) else None

    def _labels(self, value: JSONValue) -> None:
        if isinstance(value, dict):
            for name, member in value.items():
                if isinstance(member, str):
                    if name != "session_id":
                        self.strings.append(member)
                elif member is not None:
                    self._labels(member)
        elif isinstance(value, list):
            for member in value:
                self._labels(member)
        elif isinstance(value, str):
            self.strings.append(value)


def _list(value: JSONValue) -> list[JSONValue]:
    return value if isinstance(value, list) else []
