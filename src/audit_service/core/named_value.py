"""`name = value` in running text: command lines, .env and YAML files, URLs, headers, XML, PHP arrays, broken JSON.

A pattern finds a secret word and a separator behind it; this module finds where the name begins and the value ends.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from audit_service.core.byte_pattern import Span, byte_pattern
from audit_service.core.secret_words import STATES

__all__ = ["NamedValue", "balanced_end", "is_urn", "value_at"]

# One of these as the value says something about the secret and is none.
_STATES: Final = frozenset(STATES)
_NAME_BYTES: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-$@" + bytes(range(0x80, 0x100))
_BEFORE_NAMES: Final = frozenset(bytes((byte,)) for byte in _NAME_BYTES + b" ")
_PHRASE_LIMIT: Final = 160
_QUOTED = byte_pattern(
    rb"""(?s)\\+"[^"]*|\\+'[^']*|""[^\s"',;:&)}\]>\\][^"]*""|"(?:[^"\\]|\\.|"")*|'(?:[^'\\]|\\.|'')*|`[^`]*"""
)
# What opens and closes, and strings inside which nothing does; an open string ends with its line.
# Not RE2, here and for bare values: a match of it costs ten times as much, and these have nothing to go back for.
_BRACKETS = re.compile(
    rb"""(?:[^{}\[\]"']++|"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"?|'[^'\n]*+'|')*+(?:([{\[]+)|([}\]]+)|\Z)"""
)
# Names the value instead of holding it.
_TEMPLATE = byte_pattern(rb"""\$\{[\w.\-]+\}|\{\{[^{}"'\x00]*\}\}""")
_TEMPLATE_ENDS: Final = frozenset(b" \t\r\n\"'&,;)<>`]}\\\0")
_BLOCK_HEAD = byte_pattern(rb"(?:[|>][+\-0-9]{0,2})?[ \t]*(?:#[^\r\n]*)?\r?\n")
_NEXT_NAME = byte_pattern(rb"[ \t]*[\w\"'][\w.\-\"']*[ \t]*(?::(?:[ \t\r\n]|\z)|=[^=\s])")
_NEXT_PAIR = byte_pattern(rb"[ ;&,][ \t]*[A-Za-z_][\w.\-]*=")
_MARGIN_BYTES: Final = 64
_BARE_VALUE = re.compile(rb"""[^ \t\n\f\r"'<>&;\x00][^ \t\n\f\r"<>&;\x00]*+""")
_TO_LINE_END = re.compile(rb"[^\r\n\x00]+")
_TO_QUOTE = byte_pattern(rb"""[^\r\n"'\\<>\x00]+""")
_XML_TEXT = byte_pattern(rb"[^<\x00]+")


class NamedValue:
    """`name = value` in running text: the name, the up to four words that end in it, and where the value begins."""

    __slots__ = ("key", "name", "own_line", "phrase", "start", "tag", "value_at")

    def __init__(self, data: bytes, start: int, end: int, *, tag: bool) -> None:
        head = data[start:end]
        self.tag, self.start, self.value_at = tag, start, end
        self.phrase = head[1:].split(b" ", 1)[0].rstrip(b">") if tag else _without_separator(head)
        self.name = self.phrase.rsplit(b" ", 1)[-1]
        self.own_line = _begins_line(data, start) and self.name == self.phrase and not head.startswith(b"-")
        self.key = self.phrase + (b"\0" if tag else b"")

    @classmethod
    def at(cls, data: bytes, start: int, end: int) -> "NamedValue":
        """The match begins at the secret word; the name may begin before it (`DB_` of `DB_PASS`, `API` of `API key`)."""
        if data[start : start + 1] == b"<":
            return cls(data, start, end, tag=True)
        if data[start - 1 : start] not in _BEFORE_NAMES:
            return cls(data, start, end, tag=False)
        before = data[max(0, start - _PHRASE_LIMIT) : start]
        lead = before.rstrip(_NAME_BYTES)
        for _ in range(3):
            if lead[-1:] != b" " or lead[-2:-1] not in _NAME_BYTES or len(lead) < 2:
                break
            lead = lead[:-1].rstrip(_NAME_BYTES)
        return cls(data, start - len(before) + len(lead), end, tag=False)

    def value_span(self, data: bytes) -> Span | None:
        """Where the value stands; None when there is none, or it only tells a state."""
        if self.tag:
            return _element_text(data, self.value_at)
        lowered = self.name.lower()
        if (b"authoriz" in lowered or b"cookie" in lowered or b"authoris" in lowered) and data[
            self.value_at : self.value_at + 1
        ] not in (b'"', b"'", b"\\", b"{", b"["):
            match = _TO_QUOTE.match(data, self.value_at)
            if match is not None:
                return None if _is_state(match.group()) else match.span()
        # A line of an .env or YAML file: its value ends with the line, whatever stands in it.
        if self.own_line and data[self.value_at : self.value_at + 1] in (b"|", b">", b"#", b"\r", b"\n"):
            block = _block_at(data, self.start, self.value_at)
            if block is not None:
                return block
        if not self.own_line or b"\n" in data:
            return value_at(data, self.value_at, whole_line=self.own_line)
        span = value_at(data, self.value_at, whole_line=data[self.start : self.value_at].rstrip().endswith(b"="))
        # One line may hold more than one pair: `Password=x;Timeout=3`.
        after = None if span is None else _NEXT_PAIR.search(data, span[0], span[1])
        return span if span is None or after is None else (span[0], max(span[0] + 1, after.start()))


def _element_text(data: bytes, at: int) -> Span | None:
    if data.startswith(b"<![CDATA[", at):
        start, end = at + 9, data.find(b"]]>", at)
        end = len(data) if end < 0 else end
        return (start, end) if data[start:end].strip() else None
    match = _XML_TEXT.match(data, at)
    return match.span() if match is not None and match.group().strip() else None


def _begins_line(data: bytes, start: int) -> bool:
    """Whether only space, or the dash of a list item, stands before it in its line."""
    before = data[max(0, start - _MARGIN_BYTES) : start]
    if before[-1:] not in b"\r\n \t-":
        return False
    line = max(before.rfind(b"\n"), before.rfind(b"\r"))
    return (line >= 0 or start <= _MARGIN_BYTES) and not before[line + 1 :].strip(b" \t-")


def _is_state(value: bytes) -> bool:
    return value.strip(b" ,.)").decode("utf-8", "replace").lower() in _STATES


def _block_at(data: bytes, start: int, at: int) -> Span | None:
    """What stands on the lines below a name: deeper than it, as items of a list, or one word in a line of its own."""
    head = _BLOCK_HEAD.match(data, at)
    if head is None:
        return None
    margin = data[max(0, start - _MARGIN_BYTES) : start]
    margin = margin[margin.rfind(b"\n") + 1 :]
    indent = len(margin) - len(margin.lstrip(b" \t"))
    position, first, last = head.end(), -1, -1
    while position < len(data):
        end = data.find(b"\n", position)
        end = len(data) if end < 0 else end
        line = data[position:end].rstrip()
        content = line.lstrip(b" \t")
        depth = len(line) - len(content)
        if content:
            if depth <= indent and not (depth == indent and content.startswith(b"- ")):
                break
            depth += 2 if first < 0 and content.startswith(b"- ") else 0
            first, last = (position + depth if first < 0 else first), position + len(line)
        position = end + 1
    if first >= 0:
        return first, last
    return None if head.group()[:1] in b"|>" else _word_below(data, head.end())


def _word_below(data: bytes, at: int) -> Span | None:
    end = data.find(b"\n", at)
    line = data[at : len(data) if end < 0 else end].rstrip()
    if not line or b" " in line or b"\t" in line or b"\0" in line or line[:1] in b"#<[{" or _is_state(line):
        return None
    return None if _NEXT_NAME.match(data, at) is not None else (at, at + len(line))


def is_urn(data: bytes, start: int, end: int) -> bool:
    """`arn:aws:secretsmanager:…:secret:name` names things; it assigns nothing."""
    if data[end - 1 : end] != b":" or data[start - 1 : start] != b":":
        return False
    words = data[max(0, start - _PHRASE_LIMIT) : start].split()
    return bool(words) and any(mark in words[-1] for mark in (b"arn:", b"urn:"))


def _without_separator(head: bytes) -> bytes:
    head = head.rstrip(b" \t")
    plain = head.endswith(b"=")
    if not plain:
        if head.endswith(b":") and b";s:" in head:
            head = head[: head.rindex(b";s:")]
        if head.endswith((b"\xef\xbc\x9a", b"\xef\xbc\x9d")):
            head = head[:-3]
        if head[-3:].lower() == b"%3d":
            head = head[:-3]
    if b"%" in head:
        head = unquote_to_bytes(head)
    if not plain and head.endswith((b"->", b"\xe2\x86\x92")):
        head = head[:-3] if head.endswith(b"\x92") else head[:-2]
    return head.rstrip(b" \t=>:\\\"'`])").lstrip(b"- ")


def value_at(data: bytes, start: int, *, whole_line: bool = False) -> Span | None:
    """The value that begins here, without its quotes; None when there is none, or it only tells a state."""
    first = data[start : start + 1]
    # Most values begin with neither: a search has its price.
    quoted = _QUOTED.match(data, start) if first in (b'"', b"'", b"`", b"\\") else None
    if quoted is not None:
        text = quoted.group()
        head = len(text) - len(text.lstrip(b"\\")) + 1
        content = text[head:].rstrip(b"\\") if head > 1 else text[head:]
        if text.startswith(b'""') and len(text) > 4 and text.endswith(b'""') and text[2:3] != b'"':
            head, content = 2, text[2:-2]
        template = _TEMPLATE.match(content)
        if template is not None and template.end() == len(content):
            return None
        return (start + head, start + head + len(content)) if content else None
    template = _TEMPLATE.match(data, start) if first in (b"$", b"{") else None
    if template is not None:
        rest = data[template.end() : template.end() + 1]
        if whole_line:
            line = _TO_LINE_END.match(data, template.end())
            rest = b"" if line is None or not line.group().strip() else b"x"
        if not rest or rest[0] in _TEMPLATE_ENDS:
            return None
    if first in (b"{", b"["):
        # `[redacted]` of an earlier pass is followed by nothing.
        end = balanced_end(data, start)
        return (start, end) if end > start + 2 else None
    match = (_TO_LINE_END if whole_line else _BARE_VALUE).match(data, start)
    if match is None or _is_state(match.group()):
        return None
    return match.span()


def balanced_end(data: bytes, start: int) -> int:
    """Where what opens here with a bracket is closed; the end of the text when it never is."""
    depth = 0
    for match in _BRACKETS.finditer(data, start):
        kind = match.lastindex
        if kind == 1:
            depth += len(match[1])
        elif kind == 2:
            depth -= len(match[2])
            if depth <= 0:
                return match.end() + depth
    return len(data)
