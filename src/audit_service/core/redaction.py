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

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import jiter

from audit_service.core.canonical import JSONValue
from audit_service.core.secret_names import VOCABULARY, SecretNames, fold, split_words
from audit_service.core.secret_patterns import (
    CONTEXT_PATTERNS,
    TOKEN_PATTERNS,
    ValuePatterns,
    is_card_number,
    redact_spans,
)

__all__ = [
    "DEPTH_LIMIT",
    "REDACTED",
    "Change",
    "Ruleset",
    "compile_ruleset",
    "redact_changes",
    "redact_event",
    "redact_text",
    "redact_value",
]

Change: TypeAlias = dict[str, JSONValue]

REDACTED: Final = "[redacted]"
DEPTH_LIMIT: Final = 64

# Raise it when the code judges otherwise while the lists stay the same: a replay under another ruleset is told so.
_RULES_VERSION: Final = 1
_MEMO_LIMIT: Final = 8192
_MEMO_NAME_LIMIT: Final = 128
_JSON_DEPTH_LIMIT: Final = 8
_PASSES_LIMIT: Final = 4

# What a name means for what stands beside or under it.
_SECRET, _NAMING, _VALUE, _CARD, _RENAMED, _ID = 1, 2, 4, 8, 16, 32
_PATH_ACTING = _SECRET | _VALUE | _CARD | _RENAMED
_ACTING = _SECRET | _NAMING | _CARD | _RENAMED

_NAMING_NAMES: Final = frozenset(
    "name key variable env_variable field header setting option param parameter attribute property var env column".split()
)
_VALUE_NAMES: Final = frozenset(
    """value val values old new old_value new_value oldvalue newvalue from to content data default default_value defaultvalue
    server_value current previous was became text stringvalue string_value raw before after""".split()
)
_CARD_WORDS: Final = frozenset(
    "card cc pan creditcard ccnum cardnumber ccnumber kreditkarte carte tarjeta cartao carta kaart karta".split()
)
_ID_WORDS: Final = frozenset(
    """id uuid guid order invoice number no nr ref reference sku serial ean gtin upc barcode isbn imei iccid tracking transaction
    txn ticket sequence seq version phone iban account timestamp time offset size bytes count snowflake""".split()
)
_UNTOUCHED: Final = frozenset(
    "action verb category outcome partial occurred_at recorded_at seq erased proof".split()
)
_TREES: Final = ("before", "after", "metadata")
_OWN_IDS: Final = frozenset("id server_id request_id traceparent tracestate seq".split())

_Nodes: TypeAlias = "tuple[_Node, ...]"


class _Node:
    """One segment of the configured pointers, as a tree; `*` stands for any segment."""

    __slots__ = ("children", "final")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.final = False

    def add(self, pointer: str) -> None:
        """`ValueError` for what is no JSON Pointer, or points at the whole row."""
        if not pointer.startswith("/") or _has_bad_escape(pointer):
            raise ValueError(f"not a JSON Pointer to a member: {pointer!r}")
        node = self
        for segment in _segments(pointer):
            node = node.children.setdefault(segment, _Node())
        node.final = True


def _has_bad_escape(pointer: str) -> bool:
    return "~" in pointer.replace("~0", "").replace("~1", "")


def _step(nodes: _Nodes, segment: str) -> _Nodes:
    if not nodes:
        return nodes
    return tuple(
        child for node in nodes for name in (segment, "*") if (child := node.children.get(name)) is not None
    )


def _is_final(nodes: _Nodes) -> bool:
    return any(node.final for node in nodes)


class Ruleset:
    """Compiled rules. Made by `compile_ruleset`; immutable but for its bounded caches of judged names."""

    __slots__ = ("_exempt", "_names", "_paths", "_pointers", "digest", "memo", "patterns")

    def __init__(
        self,
        names: SecretNames,
        patterns: ValuePatterns,
        exempt: _Node,
        pointers: Mapping[str, _Node],
        digest: str,
    ) -> None:
        self._names = names
        self.patterns = patterns
        self._exempt: _Nodes = (exempt,) if exempt.children else ()
        self._pointers = dict(pointers)
        self.memo: dict[str, tuple[int, str]] = {}
        self._paths: dict[str, bool] = {}
        self.digest = digest

    def exempt_nodes(self) -> "_Nodes":
        """The root of the exempt paths; empty when there are none."""
        return self._exempt

    def pointer_nodes(self, target_type: str | None) -> "_Nodes":
        """The roots of the pointers of this target type and of every type (`*`)."""
        kinds = {"*"} if target_type is None else {"*", target_type}
        return tuple(self._pointers[kind] for kind in sorted(kinds) if kind in self._pointers)

    def judge(self, name: str) -> tuple[int, str]:
        """What the name means, and the name itself without secrets in it."""
        judged = self.memo.get(name)
        if judged is None:
            judged = self._judged(name)
            if len(name) <= _MEMO_NAME_LIMIT:
                # Names come from senders: a bound, and a fresh start, keep them from filling the memory.
                if len(self.memo) >= _MEMO_LIMIT:
                    self.memo.clear()
                self.memo[name] = judged
        return judged

    def is_plain_path(self, path: str) -> bool:
        """Whether no segment of a change's path calls for anything."""
        plain = self._paths.get(path)
        if plain is None:
            plain = not any(self.judge(segment)[0] & _PATH_ACTING for segment in _segments(path))
            if len(path) <= 4 * _MEMO_NAME_LIMIT:
                if len(self._paths) >= _MEMO_LIMIT:
                    self._paths.clear()
                self._paths[path] = plain
        return plain

    def _judged(self, name: str) -> tuple[int, str]:
        shown = redact_text(name, self)
        words = set(split_words(fold(name)))
        lowered = name.lower()
        # After a redaction the name is judged again as it will be read next time, so that twice is like once.
        flags = (
            _SECRET if self._names.is_secret(name) or (shown != name and self._names.is_secret(shown)) else 0
        )
        flags |= _NAMING if lowered in _NAMING_NAMES else 0
        flags |= _VALUE if lowered in _VALUE_NAMES else 0
        flags |= _CARD if not _CARD_WORDS.isdisjoint(words) else 0
        flags |= _ID if not _ID_WORDS.isdisjoint(words) and not flags & _CARD else 0
        return flags | (_RENAMED if shown != name else 0), shown

    def is_secret_name(self, name: str) -> bool:
        """Whether what stands under this name is secret."""
        return bool(self.judge(name)[0] & _SECRET)


def compile_ruleset(
    *,
    extra_words: Sequence[str] = (),
    harmless_words: Sequence[str] = (),
    extra_patterns: Sequence[str] = (),
    exempt_paths: Sequence[str] = (),
    pointers: Mapping[str, Sequence[str]] = {},
) -> Ruleset:
    """The built-in rules with an operator's. `ValueError` names the entry that can not be used; nothing is skipped."""
    names = SecretNames(extra_words, harmless_words)
    patterns = ValuePatterns(names, extra_patterns)
    exempt = _Node()
    for path in exempt_paths:
        exempt.add(path)
    roots: dict[str, _Node] = {}
    for kind, kind_pointers in pointers.items():
        roots[kind] = _Node()
        for pointer in kind_pointers:
            roots[kind].add(pointer)
    described = [
        _RULES_VERSION, VOCABULARY, TOKEN_PATTERNS, CONTEXT_PATTERNS, list(extra_words), list(harmless_words),
        list(extra_patterns), list(exempt_paths), {kind: list(paths) for kind, paths in pointers.items()},
    ]  # fmt: skip
    written = json.dumps(described, sort_keys=True).encode()
    return Ruleset(names, patterns, exempt, roots, hashlib.sha256(written).hexdigest()[:16])


# --- text ---


def redact_text(text: str, rules: Ruleset, *, cards: bool = True) -> str:
    """The text without what the value patterns find; the same object when they find nothing.

    With `cards=False` card numbers stay: an order number can be one by chance.
    """
    return _redact_text(text, rules, cards=cards)


def _redact_text(text: str, rules: Ruleset, *, cards: bool) -> str:
    if not _may_hold_secret(text, rules):
        return text
    # Lone surrogates have no UTF-8: they are read as question marks, and stay when nothing is found.
    current = readable = text.encode("utf-8", "replace").decode()
    # A replacement can bring together what then reads as a finding. Repeat until nothing moves: twice is like once.
    for _ in range(_PASSES_LIMIT):
        redacted = _redact_once(current, rules, cards=cards, depth=0)
        if redacted == current:
            return text if current == readable else current
        current = redacted
    return REDACTED


def _may_hold_secret(text: str, rules: Ruleset) -> bool:
    data = b"\0" + text.encode("utf-8", "replace") + b"\0"
    return rules.patterns.screen(data) or rules.patterns.screen_anchored((text,))


def _redact_once(text: str, rules: Ruleset, *, cards: bool, depth: int) -> str:
    if text.lstrip()[:1] in ("{", "[", '"'):
        text = _redact_json_text(text, rules, depth)
    data = text.encode()
    spans = rules.patterns.spans(data, cards=cards)
    return redact_spans(data, spans).decode() if spans else text


def _redact_json_text(text: str, rules: Ruleset, depth: int) -> str:
    """The text written anew when it is JSON that holds secrets; the same when it holds none or is no JSON."""
    try:
        value: JSONValue = jiter.from_json(text.encode(), catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError as error:
        # Too deep for the parser is too deep to walk. What is no JSON, or has a name twice, is read as text.
        return REDACTED if "recursion" in str(error) else text
    if not isinstance(value, (dict, list, str)):
        return text
    if depth >= _JSON_DEPTH_LIMIT:
        return REDACTED
    redacted = _Walk(rules, (), (), texts=True, json_depth=depth + 1).value(value, 0)
    return text if redacted is value else json.dumps(redacted, ensure_ascii=False, separators=(",", ":"))


# --- trees ---


class _Walk:
    """Rebuilds a value without its secrets; parts without findings are returned as they are."""

    __slots__ = ("_exempt", "_json_depth", "_pointers", "_rules", "_texts")

    def __init__(
        self, rules: Ruleset, pointers: _Nodes, exempt: _Nodes, *, texts: bool, json_depth: int = 0
    ) -> None:
        self._rules = rules
        self._pointers = pointers
        self._exempt = exempt
        self._texts = texts
        self._json_depth = json_depth

    def value(self, value: JSONValue, flags: int) -> JSONValue:
        """The value without secrets; `flags` say what the name it stands under means."""
        return self._value(value, flags, 0, self._pointers, self._exempt)

    def _value(self, value: JSONValue, flags: int, depth: int, pointers: _Nodes, exempt: _Nodes) -> JSONValue:
        if isinstance(value, str):
            return self._string(value, flags) if self._texts else value
        if isinstance(value, (dict, list)):
            if depth >= DEPTH_LIMIT:
                return REDACTED
            if isinstance(value, dict):
                return self._object(value, flags, depth, pointers, exempt)
            return self._list(value, flags, depth, pointers, exempt)
        if flags & _CARD and _is_card_scalar(value):
            return REDACTED
        return value

    def _string(self, text: str, flags: int) -> str:
        if flags & _CARD and is_card_number("".join(c for c in text if c.isdigit() and c.isascii())):
            return REDACTED
        cards = not flags & _ID
        if not self._json_depth:
            return _redact_text(text, self._rules, cards=cards)
        # Inside JSON text the outermost text repeats: repeating on every level would cost a power of the levels.
        if not _may_hold_secret(text, self._rules):
            return text
        return _redact_once(text, self._rules, cards=cards, depth=self._json_depth)

    def _list(
        self, values: list[JSONValue], flags: int, depth: int, pointers: _Nodes, exempt: _Nodes
    ) -> list[JSONValue]:
        result = values
        for index, value in enumerate(values):
            below = _step(pointers, str(index)) if pointers else pointers
            if below and value is not None and _is_final(below):
                redacted: JSONValue = REDACTED
            else:
                redacted = self._value(
                    value, flags, depth + 1, below, _step(exempt, str(index)) if exempt else exempt
                )
            if redacted is not value:
                result = list(values) if result is values else result
                result[index] = redacted
        return result

    def _object(
        self, members: dict[str, JSONValue], flags: int, depth: int, pointers: _Nodes, exempt: _Nodes
    ) -> dict[str, JSONValue]:
        judge = self._rules.judge
        named = _names_a_secret(members, self._rules)
        result: dict[str, JSONValue] | None = None
        for position, (name, value) in enumerate(members.items()):
            own, shown = judge(name)
            below = _step(pointers, name) if pointers else pointers
            exempt_below = _step(exempt, name) if exempt else exempt
            if value is None:
                redacted: JSONValue = None
            elif (below and _is_final(below)) or (
                (own & _SECRET or (named and own & _VALUE)) and not (exempt_below and _is_final(exempt_below))
            ):
                redacted = REDACTED
            else:
                redacted = self._value(value, own | (flags & _CARD), depth + 1, below, exempt_below)
            if result is None and (redacted is not value or shown != name):
                result = dict(list(members.items())[:position])
            if result is not None:
                # Two names that read the same once redacted: one member stays, and says nothing.
                result[shown] = REDACTED if shown in result else redacted
        return members if result is None else result


def _names_a_secret(members: Mapping[str, JSONValue], rules: Ruleset) -> bool:
    """Whether a member such as `name` or `key` holds a secret name: `{"name": "DB_PASSWORD", "value": "…"}`."""
    for name, value in members.items():
        if isinstance(value, str) and len(value) <= _MEMO_NAME_LIMIT and rules.judge(name)[0] & _NAMING:
            if rules.is_secret_name(value):
                return True
    return False


def _is_card_scalar(value: JSONValue) -> bool:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e20:
        value = int(value)
    return isinstance(value, int) and 10**12 <= value < 10**19 and is_card_number(str(value))


def redact_value(
    value: JSONValue, rules: Ruleset, *, path: tuple[str, ...] = (), target_type: str | None = None
) -> JSONValue:
    """A row, metadata, or the part of one that stands at `path` (the segments from its root), without its secrets."""
    return _redact_part(value, rules, path, rules.pointer_nodes(target_type), texts=True)


def _redact_part(
    value: JSONValue, rules: Ruleset, path: Sequence[str], pointers: _Nodes, *, texts: bool
) -> JSONValue:
    exempt = rules.exempt_nodes()
    flags = 0
    for segment in path:
        pointers, exempt = _step(pointers, segment), _step(exempt, segment)
        own = rules.judge(segment)[0]
        if value is not None and (_is_final(pointers) or (own & _SECRET and not _is_final(exempt))):
            return REDACTED
        # A list element has no name of its own: it keeps that of the list.
        flags = own | (flags & _CARD) if not segment.isdigit() else flags
    return _Walk(rules, pointers, exempt, texts=texts).value(value, flags)


# --- changes ---


def redact_changes(changes: Sequence[Change], rules: Ruleset, *, target_type: str | None) -> list[Change]:
    """The changes without secrets, sorted by path, one for each path."""
    return _redact_changes(changes, rules, target_type, (), texts=True)


def _redact_changes(
    changes: Sequence[Change],
    rules: Ruleset,
    target_type: str | None,
    rows: Sequence[JSONValue],
    *,
    texts: bool,
) -> list[Change]:
    pointers = rules.pointer_nodes(target_type)
    by_path: dict[str, Change] = {}
    for change in changes:
        redacted = _redact_change(change, rules, pointers, rows, texts=texts)
        path = str(redacted["path"])
        other = by_path.get(path)
        if other is not None:
            op = redacted["op"] if redacted["op"] == other["op"] else "replace"
            redacted = {"path": path, "op": op, "redacted": True}
        by_path[path] = redacted
    return [by_path[path] for path in sorted(by_path)]


def _redact_change(
    change: Change, rules: Ruleset, pointers: _Nodes, rows: Sequence[JSONValue], *, texts: bool
) -> Change:
    path = str(change["path"])
    exempt = rules.exempt_nodes()
    segments = _segments(path)
    if pointers or exempt or not rules.is_plain_path(path):
        cut = _secret_depth(segments, rules, pointers, exempt, rows)
        shown = [rules.judge(segment)[1] for segment in segments[:cut]]
        path = "".join("/" + segment.replace("~", "~0").replace("/", "~1") for segment in shown)
        if cut is not None:
            return {"path": path, "op": change["op"] if cut == len(segments) else "replace", "redacted": True}
    redacted = dict(change)
    redacted["path"] = path
    for side in ("old", "new"):
        if side in change:
            redacted[side] = _redact_part(change[side], rules, segments, pointers, texts=texts)
    # What differed only in its secrets would now read as a change from one value to the same.
    if (
        "old" in change
        and "new" in change
        and redacted["old"] == redacted["new"]
        and change["old"] != change["new"]
    ):
        return {"path": path, "op": change["op"], "redacted": True}
    return redacted


def _secret_depth(
    segments: Sequence[str], rules: Ruleset, pointers: _Nodes, exempt: _Nodes, rows: Sequence[JSONValue]
) -> int | None:
    """How many segments up to and with the first secret one; None when there is none."""
    parents = list(rows)
    for position, segment in enumerate(segments):
        pointers, exempt = _step(pointers, segment), _step(exempt, segment)
        flags = rules.judge(segment)[0]
        named = flags & _VALUE and any(
            isinstance(row, dict) and _names_a_secret(row, rules) for row in parents
        )
        if _is_final(pointers) or ((flags & _SECRET or named) and not _is_final(exempt)):
            return position + 1
        parents = [_child(row, segment) for row in parents]
    return None


def _child(value: JSONValue, segment: str) -> JSONValue:
    if isinstance(value, dict):
        return value.get(segment)
    if isinstance(value, list) and segment.isdigit() and len(segment) < 10 and int(segment) < len(value):
        return value[int(segment)]
    return None


def _segments(pointer: str) -> list[str]:
    if not pointer:
        return []
    parts = pointer.split("/")[1:]
    return [part.replace("~1", "/").replace("~0", "~") for part in parts] if "~" in pointer else parts


# --- events ---


def redact_event(
    event: dict[str, JSONValue], changes: list[Change], rules: Ruleset
) -> tuple[dict[str, JSONValue], list[Change]]:
    """The event and its changes without secrets; untouched parts are shared with the input.

    One pass over everything judges the names and gathers the strings; these are screened together. Only what that
    pass points at is rebuilt: usually nothing.
    """
    target = event.get("target")
    kind = target.get("type") if isinstance(target, dict) else None
    target_type = kind if isinstance(kind, str) else None
    pointers = rules.pointer_nodes(target_type)
    survey = _Survey(rules)
    survey.event(event)
    survey.changes(changes)
    texts = survey.may_hold_secret(rules.patterns)
    named = survey.names or bool(pointers)
    redacted = _redact_members(event, rules, target_type, texts=texts) if named or texts else event
    paths = [str(change["path"]) for change in changes]
    if texts or named or survey.paths or paths != sorted(set(paths)):
        rows = [row for member in ("before", "after") if (row := event.get(member)) is not None]
        return redacted, _redact_changes(changes, rules, target_type, rows, texts=texts)
    return redacted, changes


def _redact_members(
    event: dict[str, JSONValue], rules: Ruleset, target_type: str | None, *, texts: bool
) -> dict[str, JSONValue]:
    redacted = dict(event)
    for name, value in event.items():
        if name in _TREES:
            redacted[name] = _redact_part(value, rules, (), rules.pointer_nodes(target_type), texts=texts)
        elif name == "changes" and isinstance(value, list):
            own = [change for change in value if isinstance(change, dict)]
            redacted[name] = list(_redact_changes(own, rules, target_type, (), texts=texts))
        elif texts and name not in _UNTOUCHED:
            redacted[name] = _redact_labels(name, value, rules)
    return redacted


def _redact_labels(name: str, value: JSONValue, rules: Ruleset) -> JSONValue:
    """A member of the event's own: its names are ours, so only its values are judged."""
    if isinstance(value, str):
        return redact_text(value, rules, cards=name not in _OWN_IDS)
    if isinstance(value, list):
        return [_redact_labels(name, member, rules) for member in value]
    if isinstance(value, dict):
        # The session id is hashed with a key by whoever stores it; here it has to stay what it is.
        return {n: v if n == "session_id" else _redact_labels(n, v, rules) for n, v in value.items()}
    return value


class _Survey:
    """Collects the strings of an event, and notes whether a name calls for anything."""

    __slots__ = ("_judge", "_memo", "_rules", "names", "paths", "strings")

    def __init__(self, rules: Ruleset) -> None:
        self._rules = rules
        self._judge = rules.judge
        self._memo = rules.memo
        self.names = False
        self.paths = False
        self.strings: list[str] = [""]

    def tree(self, value: JSONValue, depth: int = 0) -> None:
        """Everything below a row or metadata; what is too deep calls for the slow way by itself."""
        if depth >= DEPTH_LIMIT:
            self.names = True
            return
        add = self.strings.append
        if isinstance(value, dict):
            known = self._memo.get
            for name, member in value.items():
                flags = (known(name) or self._judge(name))[0]
                if flags & _ACTING:
                    self._note(flags, name, member)
                kind = type(member)
                if kind is str:
                    add(member)  # type: ignore[arg-type]
                elif kind is dict or kind is list:
                    self.tree(member, depth + 1)
        elif isinstance(value, list):
            for member in value:
                if isinstance(member, str):
                    add(member)
                elif isinstance(member, (dict, list)):
                    self.tree(member, depth + 1)
        elif isinstance(value, str):
            add(value)

    def _note(self, flags: int, name: str, member: JSONValue) -> None:
        if flags & _NAMING and not flags & (_SECRET | _RENAMED | _CARD):
            # `name` and `key` are everywhere; they only matter when they hold a secret name.
            if not (
                isinstance(member, str)
                and len(member) <= _MEMO_NAME_LIMIT
                and self._judge(member)[0] & _SECRET
            ):
                return
        self.names = True

    def event(self, event: Mapping[str, JSONValue]) -> None:
        """Every member: rows and metadata with their names, our own members for their strings."""
        add = self.strings.append
        for name, value in event.items():
            kind = type(value)
            if name in _TREES:
                self.tree(value)
            elif name in _UNTOUCHED or value is None:
                continue
            elif kind is str:
                add(value)  # type: ignore[arg-type]
            elif name == "changes":
                self.changes([change for change in _list(value) if isinstance(change, dict)])
            else:
                self._labels(value)

    def changes(self, changes: Iterable[Change]) -> None:
        """Paths by their segments, both sides as trees."""
        plain = self._rules.is_plain_path
        for change in changes:
            if not plain(str(change["path"])):
                self.paths = True
            for side in ("old", "new"):
                value = change.get(side)
                if type(value) is str:
                    self.strings.append(value)
                elif value is not None:
                    self.tree(value)

    def may_hold_secret(self, patterns: ValuePatterns) -> bool:
        """Whether any collected string may; the strings are parted by NUL, across which no pattern looks."""
        joined = "\0".join([*self.strings, ""]).encode("utf-8", "replace")
        return patterns.screen(joined) or patterns.screen_anchored(self.strings)

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
