"""Redaction of one value or one text, and the compiled rules. `redaction` puts it to work on whole events.

The three rules stand in the docstring of `redaction`. Here they are `Ruleset.judge` (what a name means), `redact_text`
(values inside strings), and `redact_part` (a tree, whose object members bring names in).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import jiter
import re2

from audit_service.core import secret_words as vocabulary
from audit_service.core.canonical import JSONValue
from audit_service.core.card_number import is_card_number
from audit_service.core.named_pair import is_paired, naming_stem, value_stem
from audit_service.core.named_value import balanced_end
from audit_service.core.pointer_tree import Node, Nodes, is_final, segments_of, step
from audit_service.core.secret_names import SecretNames, fold, split_words
from audit_service.core.secret_patterns import (
    CONTEXT_PATTERNS,
    ValuePatterns,
    redact_spans,
)
from audit_service.core.secret_tokens import INFIX_PATTERNS, TOKEN_PATTERNS

__all__ = [
    "CARD",
    "DEPTH_LIMIT",
    "LISTING",
    "MEMO_NAME_LIMIT",
    "NAMING",
    "REDACTED",
    "RENAMED",
    "SCALAR",
    "SECRET",
    "VALUE",
    "Nodes",
    "Ruleset",
    "Suspects",
    "compile_ruleset",
    "holds_token",
    "is_final",
    "is_pair",
    "is_secret_flag",
    "is_secret_for",
    "is_suspect",
    "redact_part",
    "redact_text",
    "redact_value",
    "secret_arguments",
    "secret_columns",
    "secret_stems",
    "segments_of",
    "step",
]

REDACTED: Final = "[redacted]"
DEPTH_LIMIT: Final = 64

# Raise it when the code judges otherwise while the lists stay the same: a replay under another ruleset is told so.
_RULES_VERSION: Final = 3
_MEMO_LIMIT: Final = 8192
MEMO_NAME_LIMIT: Final = 128
_JSON_DEPTH_LIMIT: Final = 8
_PASSES_LIMIT: Final = 4
# Strings of one tree that are looked at closely; the ones after them are replaced. Bounds what a hostile row costs.
_SUSPECTS_LIMIT: Final = 750
_ESCAPED: Final = re2.compile(r"\\u00([2-7][0-9a-fA-F])")
_QUOTED_LETTER: Final = re2.compile(r"%(4[1-9a-fA-F]|5[0-9aA]|6[1-9a-fA-F]|7[0-9aA])")
_JSON_STARTS: Final = ("{", "[", '"')

# What a name means for what stands beside or under it.
SECRET, NAMING, VALUE, CARD, RENAMED, ID, SCALAR, LISTING = 1, 2, 4, 8, 16, 32, 64, 128
# A value in a path acts only beside a name: in the rows, or in another change.
_PATH_ACTING: Final = SECRET | CARD | RENAMED | SCALAR

_LISTING_WORDS: Final = frozenset(vocabulary.LISTING_WORDS)
# A label of more words is a sentence, and names nothing.
_LABEL_WORDS_LIMIT: Final = 5
_COLUMNS_LIMIT: Final = 1000
_CARD_WORDS: Final = frozenset(vocabulary.CARD_WORDS)
_ID_WORDS: Final = frozenset(vocabulary.ID_WORDS)

# The strings that a screen over all of them at once has picked out; None: every string is to be screened by itself.
Suspects: TypeAlias = frozenset[str] | None


class Ruleset:
    """Compiled rules. Made by `compile_ruleset`; immutable but for its bounded caches of judged names."""

    __slots__ = ("_exempt", "_names", "_paths", "_pointers", "digest", "memo", "patterns")

    def __init__(
        self,
        names: SecretNames,
        patterns: ValuePatterns,
        exempt: Node,
        pointers: Mapping[str, Node],
        digest: str,
    ) -> None:
        self._names = names
        self.patterns = patterns
        self._exempt: Nodes = (exempt,) if exempt.children else ()
        self._pointers = dict(pointers)
        self.memo: dict[str, tuple[int, str]] = {}
        self._paths: dict[str, tuple[int, str | None]] = {}
        self.digest = digest

    def exempt_nodes(self) -> "Nodes":
        """The root of the exempt paths; empty when there are none."""
        return self._exempt

    def pointer_nodes(self, target_type: str | None) -> "Nodes":
        """The roots of the pointers of this target type and of every type (`*`)."""
        if not self._pointers:
            return ()
        kinds = {"*"} if target_type is None else {"*", target_type}
        return tuple(self._pointers[kind] for kind in sorted(kinds) if kind in self._pointers)

    def judge(self, name: str) -> tuple[int, str]:
        """What the name means, and the name itself without secrets in it."""
        judged = self.memo.get(name)
        if judged is None:
            judged = self._judged(name)
            if len(name) <= MEMO_NAME_LIMIT:
                # Names come from senders: a bound, and a fresh start, keep them from filling the memory.
                if len(self.memo) >= _MEMO_LIMIT:
                    self.memo.clear()
                self.memo[name] = judged
        return judged

    def judge_path(self, path: str) -> tuple[int, str | None]:
        """What the segments of a change's path mean, taken together; and the path up to and with the first secret segment, as it may
        be shown, or None without one."""
        judged = self._paths.get(path)
        if judged is None:
            judged = self._judged_path(path)
            if len(path) <= 4 * MEMO_NAME_LIMIT:
                if len(self._paths) >= _MEMO_LIMIT:
                    self._paths.clear()
                self._paths[path] = judged
        return judged

    def _judged_path(self, path: str) -> tuple[int, str | None]:
        flags, shown = 0, ""
        for segment in segments_of(path):
            own, name = self.judge(segment)
            flags |= own
            shown += "/" + name.replace("~", "~0").replace("/", "~1")
            if own & SECRET:
                return flags, shown
        return flags, None

    def is_plain_path(self, path: str) -> bool:
        """Whether no segment of a change's path calls for anything by itself."""
        return not self.judge_path(path)[0] & _PATH_ACTING

    def _judged(self, name: str) -> tuple[int, str]:
        shown = redact_text(name, self)
        # What is longer than any field's name has no words worth looking at.
        parts = split_words(fold(shown)) if len(shown) <= MEMO_NAME_LIMIT else []
        words = set(parts)
        lowered = shown.lower()
        # Judged as it will be read next time too, so that redacting twice is like redacting once.
        flags = SECRET if self._names.is_secret(name) or self._names.is_secret(shown) else 0
        if flags and lowered in vocabulary.SCALAR_NAMES:
            flags = SCALAR
        if parts:
            flags |= NAMING if naming_stem(shown) is not None else 0
            flags |= VALUE if value_stem(shown) is not None else 0
            flags |= LISTING if parts[-1] in _LISTING_WORDS else 0
        flags |= CARD if not _CARD_WORDS.isdisjoint(words) else 0
        flags |= ID if not _ID_WORDS.isdisjoint(words) and not flags & CARD else 0
        return flags | (RENAMED if shown != name else 0), shown

    def is_secret_name(self, name: str) -> bool:
        """Whether what is called so is secret."""
        return bool(self.judge(name)[0] & (SECRET | SCALAR))

    def is_label(self, value: JSONValue) -> bool:
        """Whether this is the name of a secret, as a value: a name, a few words, or a path with a secret segment."""
        if not isinstance(value, str) or value[:1] in ("", "-") or "=" in value or len(value) > MEMO_NAME_LIMIT:
            return False
        return self._is_label(value) or self._is_label(self.judge(value)[1])

    def _is_label(self, text: str) -> bool:
        if "/" in text:
            return any(self.is_secret_name(segment) for segment in text.split("/") if segment)
        return len(text.split()) <= _LABEL_WORDS_LIMIT and self.is_secret_name(text)


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
    exempt = Node()
    for path in exempt_paths:
        exempt.add(path)
    roots: dict[str, Node] = {}
    for kind, kind_pointers in pointers.items():
        roots[kind] = Node()
        for pointer in kind_pointers:
            roots[kind].add(pointer)
    described = [
        _RULES_VERSION, vocabulary.VOCABULARY, TOKEN_PATTERNS, INFIX_PATTERNS, CONTEXT_PATTERNS, list(extra_words), list(harmless_words),
        list(extra_patterns), list(exempt_paths), {kind: list(paths) for kind, paths in pointers.items()},
    ]  # fmt: skip
    written = json.dumps(described, sort_keys=True).encode()
    return Ruleset(names, patterns, exempt, roots, hashlib.sha256(written).hexdigest()[:16])


# --- text ---


def redact_text(text: str, rules: Ruleset, *, is_id: bool = False) -> str:
    """The text without what the value patterns find; the same object when they find nothing.

    An id (`is_id=True`) loses only what is a secret by its own form: `token:41` names a token and holds none, and an
    order number can be a card number by chance.
    """
    if not is_suspect(text, rules, None):
        return text
    return _redact_suspect(text, rules, cards=not is_id, named=not is_id)


def holds_token(text: str, rules: Ruleset) -> bool:
    """Whether an id or an action holds a secret by its own form: a provider's token, the user of a URL."""
    return redact_text(text, rules, is_id=True) != text


def _redact_suspect(text: str, rules: Ruleset, *, cards: bool, named: bool = True) -> str:
    # Lone surrogates have no UTF-8: they are read as question marks, and stay when nothing is found.
    current = readable = text.encode("utf-8", "replace").decode()
    # A replacement can bring together what then reads as a finding. Repeat until nothing moves: twice is like once.
    for _ in range(_PASSES_LIMIT):
        redacted = _redact_once(current, rules, cards=cards, named=named, depth=0)
        if redacted == current:
            return text if current == readable else current
        current = redacted
    return REDACTED


def is_suspect(text: str, rules: Ruleset, suspects: Suspects) -> bool:
    """Whether the text has to be looked at closely."""
    if suspects is not None:
        return text in suspects
    data = b"\0" + text.encode("utf-8", "replace") + b"\0"
    return rules.patterns.screen(data) or rules.patterns.screen_anchored((text,))


def _redact_once(text: str, rules: Ruleset, *, cards: bool, depth: int, named: bool = True) -> str:
    opened = None
    if text.lstrip()[:1] in _JSON_STARTS:
        opened = _redact_json_text(text, rules, depth)
        text = _unescaped(_redact_head(text, rules, depth), rules) if opened is None else opened
    if opened is None and named and "%" in text:
        text = _unquoted(text, rules)
    data = text.encode()
    # All strings of JSON text were judged one by one; only what the operator wrote may mean the text as a whole.
    spans = rules.patterns.spans(data, cards=cards, named=named) if opened is None else rules.patterns.extra_spans(data)
    return redact_spans(data, spans).decode() if spans else text


def _redact_head(text: str, rules: Ruleset, depth: int) -> str:
    """JSON with something behind it: the JSON is opened, the rest stays."""
    data = text.encode()
    start = len(data) - len(data.lstrip())
    end = balanced_end(data, start) if data[start : start + 1] in (b"{", b"[") else len(data)
    if end >= len(data):
        return text
    opened = _redact_json_text(data[:end].decode(), rules, depth)
    return text if opened is None else opened + data[end:].decode()


def _unquoted(text: str, rules: Ruleset) -> str:
    """With needlessly escaped letters of URLs written plainly (`pass%77ord=`), when these spell a secret."""
    plain = _QUOTED_LETTER.sub(lambda match: chr(int(str(match.group(1)), 16)), text)
    if plain == text:
        return text
    return plain if rules.patterns.spans(plain.encode()) != rules.patterns.spans(text.encode()) else text


def _unescaped(text: str, rules: Ruleset) -> str:
    """Broken JSON: with its escaped ASCII letters written plainly, when these spell a secret."""
    if "\\u00" not in text:
        return text
    plain = _ESCAPED.sub(lambda match: chr(int(str(match.group(1)), 16)), text)
    return plain if rules.patterns.spans(plain.encode()) != [] else text


def _redact_json_text(text: str, rules: Ruleset, depth: int) -> str | None:
    """The text, written anew when it is JSON that holds secrets; None when it is no JSON."""
    try:
        value: JSONValue = jiter.from_json(text.encode(), catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError as error:
        # Too deep for the parser is too deep to walk. What is no JSON, or has a name twice, is read as text.
        return REDACTED if "recursion" in str(error) else None
    if depth >= _JSON_DEPTH_LIMIT:
        return REDACTED
    redacted = _Walk(rules, (), (), json_depth=depth + 1).value(value, 0)
    return text if redacted is value else json.dumps(redacted, ensure_ascii=False, separators=(",", ":"))


# --- trees ---


class _Walk:
    """Rebuilds a value without its secrets; parts without findings are returned as they are."""

    __slots__ = ("_examined", "_exempt", "_json_depth", "_pointers", "_rules", "_suspected")

    def __init__(
        self, rules: Ruleset, pointers: Nodes, exempt: Nodes, *, suspects: Suspects = None, json_depth: int = 0
    ) -> None:
        self._rules = rules
        self._pointers = pointers
        self._exempt = exempt
        self._suspected = suspects
        self._json_depth = json_depth
        self._examined = 0

    def value(self, value: JSONValue, flags: int) -> JSONValue:
        """The value without secrets; `flags` say what the name it stands under means."""
        return self._value(value, flags, 0, self._pointers, self._exempt)

    def _value(self, value: JSONValue, flags: int, depth: int, pointers: Nodes, exempt: Nodes) -> JSONValue:
        if isinstance(value, str):
            return self._string(value, flags)
        if isinstance(value, (dict, list)):
            if depth >= DEPTH_LIMIT:
                return REDACTED
            if isinstance(value, dict):
                return self._object(value, flags, depth, pointers, exempt)
            return self._list(value, flags, depth, pointers, exempt)
        if flags & CARD and _is_card_scalar(value):
            return REDACTED
        return value

    def _string(self, text: str, flags: int) -> str:
        if flags & CARD and is_card_number("".join(c for c in text if c.isdigit() and c.isascii())):
            return REDACTED
        if not is_suspect(text, self._rules, self._suspected):
            return text
        self._examined += 1
        if self._examined > _SUSPECTS_LIMIT:
            return REDACTED
        cards = not flags & ID
        if not self._json_depth:
            return _redact_suspect(text, self._rules, cards=cards)
        # Inside JSON text the outermost text repeats: repeating on every level would cost a power of the levels.
        return _redact_once(text, self._rules, cards=cards, depth=self._json_depth)

    def _list(self, values: list[JSONValue], flags: int, depth: int, pointers: Nodes, exempt: Nodes) -> list[JSONValue]:
        result = values
        argument_starts = secret_arguments(values, self._rules)
        paired = is_pair(values, flags, self._rules)
        # Lists of names stand directly under their name; what stands in a list of lists are pairs or rows.
        flags &= ~(NAMING | LISTING)
        for index, value in enumerate(values):
            below = step(pointers, str(index)) if pointers else pointers
            named = isinstance(value, str) and index > 0 and is_secret_flag(values[index - 1], value, self._rules)
            if index in argument_starts:
                redacted: JSONValue = f"{str(value)[: argument_starts[index]]}{REDACTED}"
            elif named or (paired and index == 1) or (below and value is not None and is_final(below)):
                redacted = REDACTED
            else:
                redacted = self._value(value, flags, depth + 1, below, step(exempt, str(index)) if exempt else exempt)
            if redacted is not value:
                result = list(values) if result is values else result
                result[index] = redacted
        return result

    def _object(
        self, members: dict[str, JSONValue], flags: int, depth: int, pointers: Nodes, exempt: Nodes
    ) -> dict[str, JSONValue]:
        judge, known = self._rules.judge, self._rules.memo.get
        result: dict[str, JSONValue] | None = None
        stems: frozenset[str] | None = None
        columns = secret_columns(members, self._rules)
        for position, (name, value) in enumerate(members.items()):
            own, shown = known(name) or judge(name)
            below = step(pointers, name) if pointers else pointers
            exempt_below = step(exempt, name) if exempt else exempt
            if stems is None and own & VALUE:
                stems = secret_stems(members, self._rules)
            if value is None:
                redacted: JSONValue = None
            elif (below and is_final(below)) or (
                (is_secret_for(own, value) or (own & VALUE and is_paired(shown, stems or frozenset())))
                and not (exempt_below and is_final(exempt_below))
            ):
                redacted = REDACTED
            else:
                redacted = self._value(value, own | (flags & CARD), depth + 1, below, exempt_below)
            if columns and isinstance(redacted, list) and not own & NAMING:
                redacted = hide_columns(redacted, columns, flat=bool(own & VALUE))
            if result is None and (redacted is not value or shown != name):
                result = dict(list(members.items())[:position])
            if result is not None:
                # Two names that read the same once redacted: one member stays, and says nothing.
                result[shown] = REDACTED if shown in result else redacted
        return members if result is None else result


def secret_stems(members: Mapping[str, JSONValue], rules: Ruleset) -> frozenset[str]:
    """The stems of members such as `name` or `meta_key` that hold a secret name."""
    found = set()
    for name, value in members.items():
        if isinstance(value, str):
            flags, shown = rules.judge(name)
            if flags & NAMING and rules.is_label(value):
                found.add(naming_stem(shown) or "")
    return frozenset(found)


def secret_columns(members: Mapping[str, JSONValue], rules: Ruleset) -> frozenset[int]:
    """Of `{"columns": ["id", "password"], "rows": [[1, "…"]]}`, the places of the secret columns; none without rows."""
    lists = [(name, value) for name, value in members.items() if isinstance(value, list) and value]
    if len(lists) < 2:
        return frozenset()
    found: set[int] = set()
    for name, values in lists:
        if rules.judge(name)[0] & NAMING:
            if len(values) > _COLUMNS_LIMIT:
                return frozenset(range(len(values)))
            found.update(index for index, value in enumerate(values) if _is_column(value, rules))
    return frozenset(found)


def _is_column(value: JSONValue, rules: Ruleset) -> bool:
    return bool(secret_stems(value, rules)) if isinstance(value, dict) else rules.is_label(value)


def hide_columns(rows: list[JSONValue], columns: frozenset[int], *, flat: bool) -> list[JSONValue]:
    """The rows without what stands in these columns; a list of values without rows is one row itself."""
    if not any(isinstance(row, list) for row in rows):
        return _hide(rows, columns) if flat else rows
    hidden = [_hide(row, columns) if isinstance(row, list) else row for row in rows]
    return rows if all(new is old for new, old in zip(hidden, rows, strict=True)) else hidden


def _hide(row: list[JSONValue], columns: frozenset[int]) -> list[JSONValue]:
    if all(value is None or value == REDACTED for index, value in enumerate(row) if index in columns):
        return row
    return [REDACTED if index in columns and value is not None else value for index, value in enumerate(row)]


def is_pair(values: Sequence[JSONValue], flags: int, rules: Ruleset) -> bool:
    """Whether a list is a name and its value, `["DB_PASSWORD", "…"]`, and not two names under a name of lists."""
    return len(values) == 2 and values[1] is not None and not flags & (NAMING | LISTING) and rules.is_label(values[0])


def secret_arguments(values: Sequence[JSONValue], rules: Ruleset) -> dict[int, int]:
    """Of a command's arguments, the ones that hold a secret by their place, and where in them it begins."""
    if not any(isinstance(value, str) and value[:1] in "-/" and value for value in values[1:]):
        return {}
    words = [value if isinstance(value, str) else "" for value in values]
    return rules.patterns.argument_starts(words)


def is_secret_for(flags: int, value: JSONValue) -> bool:
    """Whether a name with these flags makes this value secret."""
    return bool(flags & SECRET) or (bool(flags & SCALAR) and not isinstance(value, (dict, list)))


def is_secret_flag(flag: JSONValue, value: str, rules: Ruleset) -> bool:
    """Whether a list of arguments goes on with the value of a secret option: `["--password", "…"]`."""
    if not isinstance(flag, str) or flag[:1] != "-" or value[:1] == "-" or len(flag) > MEMO_NAME_LIMIT:
        return False
    return "=" not in flag and rules.is_secret_name(flag.lstrip("-"))


def _is_card_scalar(value: JSONValue) -> bool:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e20:
        value = int(value)
    return isinstance(value, int) and 10**12 <= value < 10**19 and is_card_number(str(value))


def redact_value(
    value: JSONValue, rules: Ruleset, *, path: tuple[str, ...] = (), target_type: str | None = None
) -> JSONValue:
    """A row, metadata, or the part of one that stands at `path` (the segments from its root), without its secrets."""
    return redact_part(value, rules, path, rules.pointer_nodes(target_type), suspects=None)


def redact_part(
    value: JSONValue, rules: Ruleset, path: Sequence[str], pointers: Nodes, *, suspects: Suspects
) -> JSONValue:
    exempt = rules.exempt_nodes()
    flags = 0
    for position, segment in enumerate(path):
        pointers, exempt = step(pointers, segment), step(exempt, segment)
        own = rules.judge(segment)[0]
        secret = is_secret_for(own, value) if position == len(path) - 1 else own & SECRET
        if value is not None and (is_final(pointers) or (secret and not is_final(exempt))):
            return REDACTED
        # A list element has no name of its own: it keeps that of the list.
        flags = flags if segment.isdigit() else own | (flags & CARD)
    return _Walk(rules, pointers, exempt, suspects=suspects).value(value, flags)
