"""`name = value` in running text: command lines, .env and YAML files, URLs, headers, XML, PHP arrays, broken JSON.

A pattern finds a secret word and a separator behind it; this module finds where the name begins and the value ends.
"""

from typing import Final

from audit_service.core.byte_pattern import Span, byte_pattern
from audit_service.core.secret_words import STATES

__all__ = ["NamedValue", "is_urn", "value_at"]

# One of these as the value says something about the secret and is none.
_STATES: Final = frozenset(STATES)
_NAME_BYTES: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-$@") | set(
    range(0x80, 0x100)
)
_HEADER_WORDS: Final = ("authoriz", "cookie", "authoris")
_PHRASE_LIMIT: Final = 160
_QUOTED = byte_pattern(rb"""(?s)\\+"[^"]*|\\+'[^']*|"(?:[^"\\]|\\.)*|'(?:[^'\\]|\\.)*|`[^`]*""")
_BRACED = byte_pattern(rb"\{[^}]*\}?|\[[^\]]*\]?")
_BARE_VALUE = byte_pattern(rb"""[^\s"'<>&;\x00][^\s"<>&;\x00]*""")
_TO_LINE_END = byte_pattern(rb"[^\r\n\x00]+")
_TO_QUOTE = byte_pattern(rb"""[^\r\n"'\\<>\x00]+""")
_XML_TEXT = byte_pattern(rb"[^<\x00]+")


class NamedValue:
    """`name = value` in running text: the name, the up to four words that end in it, and where the value begins."""

    __slots__ = ("key", "name", "own_line", "phrase", "tag", "value_at")

    def __init__(self, data: bytes, start: int, end: int, *, tag: bool) -> None:
        head = data[start:end]
        self.tag, self.value_at = tag, end
        self.phrase = head[1:].split(b" ", 1)[0].rstrip(b">") if tag else _without_separator(head)
        self.name = self.phrase.rsplit(b" ", 1)[-1]
        self.own_line = self.name == self.phrase and data[start - 1 : start] in (b"\n", b"\r", b"")
        self.key = self.phrase + (b"\0" if tag else b"")

    @classmethod
    def at(cls, data: bytes, start: int, end: int) -> "NamedValue":
        """The match begins at the secret word; the name may begin before it (`DB_` of `DB_PASS`, `API` of `API key`)."""
        if data[start : start + 1] == b"<":
            return cls(data, start, end, tag=True)
        before = data[max(0, start - _PHRASE_LIMIT) : start]
        kept = len(before)
        for _ in range(4):
            while kept and (before[kept - 1] in _NAME_BYTES):
                kept -= 1
            if kept < 2 or before[kept - 1] != 0x20 or before[kept - 2] not in _NAME_BYTES:
                break
            kept -= 1
        else:
            kept += 1
        return cls(data, start - len(before) + kept, end, tag=False)

    def value_span(self, data: bytes) -> Span | None:
        """Where the value stands; None when there is none, or it only tells a state."""
        if self.tag:
            match = _XML_TEXT.match(data, self.value_at)
            return match.span() if match is not None and match.group().strip() else None
        lowered = self.name.lower()
        if any(word.encode() in lowered for word in _HEADER_WORDS) and data[self.value_at : self.value_at + 1] not in (
            b'"', b"'", b"\\", b"{", b"[",
        ):  # fmt: skip
            match = _TO_QUOTE.match(data, self.value_at)
            return match.span() if match is not None else None
        # A line of an .env or YAML file: its value ends with the line, whatever stands in it.
        return value_at(data, self.value_at, whole_line=self.own_line and b"\n" in data)


def is_urn(data: bytes, start: int, end: int) -> bool:
    """`arn:aws:secretsmanager:…:secret:name` names things; it assigns nothing."""
    if data[start - 1 : start] != b":" or data[end - 1 : end] != b":":
        return False
    words = data[max(0, start - _PHRASE_LIMIT) : start].split()
    return bool(words) and any(mark in words[-1] for mark in (b"arn:", b"urn:"))


def _without_separator(head: bytes) -> bytes:
    head = head.rstrip(b" \t")
    if head.endswith(b":") and b";s:" in head:
        head = head[: head.rindex(b";s:")]
    if head.endswith((b"\xef\xbc\x9a", b"\xef\xbc\x9d")):
        head = head[:-3]
    if head[-3:].lower() == b"%3d":
        head = head[:-3]
    return head.rstrip(b" \t=>:\\\"'`])").lstrip(b"- ")


def value_at(data: bytes, start: int, *, whole_line: bool = False) -> Span | None:
    """The value that begins here, without its quotes; None when there is none, or it only tells a state."""
    quoted = _QUOTED.match(data, start)
    if quoted is not None:
        text = quoted.group()
        head = len(text) - len(text.lstrip(b"\\")) + 1
        content = text[head:].rstrip(b"\\") if head > 1 else text[head:]
        return (start + head, start + head + len(content)) if content else None
    braced = _BRACED.match(data, start)
    if braced is not None:
        # `[redacted]` of an earlier pass is followed by nothing.
        return braced.span() if len(braced.group()) > 2 else None
    match = (_TO_LINE_END if whole_line else _BARE_VALUE).match(data, start)
    if match is None or match.group().strip(b" ,.)").decode("utf-8", "replace").lower() in _STATES:
        return None
    return match.span()
