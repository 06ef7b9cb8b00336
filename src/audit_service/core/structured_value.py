"""A name and its value apart from each other in known forms: HTML and XML attributes, plists, multipart bodies, PHP
constants, tables with tabs, netrc files.
"""

from collections.abc import Callable, Iterator
from typing import Final

from audit_service.core.byte_pattern import Span, byte_pattern
from audit_service.core.named_value import value_at

__all__ = ["STRUCTURE_PATTERNS", "structured_spans"]

_TAG: Final = rb"<([A-Za-z][\w:.\-]*)[ \t\r\n][^<>\x00]*>"
_ATTRIBUTE: Final = rb"""([\w:.\-]+)[ \t\r\n]*=[ \t\r\n]*(?:"([^"]*)"|'([^']*)'|([^\s"'<>=]+))"""
_SIBLING: Final = rb"(?i)<(?:key|name|field|param|option|setting)>([^<>\x00]{1,128})</[a-z]+>\s*<([a-z]+)>([^<\x00]+)"
_PART: Final = rb"(?i)\bname=\"([^\"\r\n\x00]{1,128})\"[^\r\n\x00]*\r?\n(?:[\w\-]+:[^\r\n\x00]*\r?\n)*\r?\n"
_CALL: Final = (
    rb"(?i)\b(?:define|setenv|putenv|ini_set|addheader|setheader|setrequestheader|add_header|set_env)[ \t]*\([ \t]*"
    rb"[\"']([^\"'\r\n\x00]{1,128})[\"'][ \t]*,[ \t]*"
)
_TABBED: Final = rb"(?m)^([^\t\r\n\x00]{1,128})\t+([^\t\r\n\x00]+)\r?$"
_NETRC: Final = rb"\b(?:machine\s+\S+|default)\s+(?:login\s+\S+\s+)?(?:account\s+\S+\s+)?password\s+"
# For the digest of a ruleset.
STRUCTURE_PATTERNS: Final = (_TAG, _ATTRIBUTE, _SIBLING, _PART, _CALL, _TABBED, _NETRC)

_TAGS = byte_pattern(_TAG)
_ATTRIBUTES = byte_pattern(_ATTRIBUTE)
_SIBLINGS = byte_pattern(_SIBLING)
_PARTS = byte_pattern(_PART)
_CALLS = byte_pattern(_CALL)
_TABS = byte_pattern(_TABBED)
_NETRCS = byte_pattern(_NETRC)
_XML_TEXT = byte_pattern(rb"[^<\x00]+")
_PART_END = byte_pattern(rb"\r?\n--|\x00")

_NAMING_ATTRIBUTES: Final = frozenset((b"name", b"id", b"key", b"field", b"property", b"type", b"autocomplete"))
_VALUE_ATTRIBUTES: Final = frozenset((b"value", b"content", b"data", b"default", b"data-value"))
# Text after these is no value: `<label name="password">Your password</label>`.
_FORM_TAGS: Final = frozenset(
    (b"input", b"label", b"a", b"div", b"span", b"p", b"form", b"button", b"meta", b"link", b"img", b"select", b"param")
)


def structured_spans(data: bytes, is_secret: Callable[[str], bool]) -> Iterator[Span]:
    """Where the values of secret names stand. Each form is looked for only where its mark stands."""

    def names(text: bytes) -> bool:
        return is_secret(text.decode("utf-8", "replace"))

    if b"<" in data:
        yield from _markup_spans(data, names)
    yield from _text_spans(data, names)


def _text_spans(data: bytes, names: Callable[[bytes], bool]) -> Iterator[Span]:
    if b'name="' in data and b"\n" in data:
        for match in _PARTS.finditer(data):
            if names(match.group(1)):
                end = _PART_END.search(data, match.end())
                yield match.end(), len(data) if end is None else end.start()
    if b"(" in data:
        for match in _CALLS.finditer(data):
            if names(match.group(1)) and (span := value_at(data, match.end())) is not None:
                yield span
    yield from _line_spans(data, names)


def _line_spans(data: bytes, names: Callable[[bytes], bool]) -> Iterator[Span]:
    if b"\t" in data:
        for match in _TABS.finditer(data):
            if names(match.group(1)):
                yield match.span(2)
    if b"password" in data:
        for match in _NETRCS.finditer(data):
            if (span := value_at(data, match.end())) is not None:
                yield span


def _markup_spans(data: bytes, names: Callable[[bytes], bool]) -> Iterator[Span]:
    for match in _TAGS.finditer(data):
        values: list[Span] = []
        named = naming = False
        for found in _ATTRIBUTES.finditer(data, match.start(), match.end()):
            attribute = found.group(1).lower()
            group = next(number for number in (2, 3, 4) if found.span(number)[0] >= 0)
            if attribute in _NAMING_ATTRIBUTES and names(found.group(group)):
                named = True
                naming = naming or attribute in (b"name", b"key")
            elif attribute in _VALUE_ATTRIBUTES and found.group(group):
                values.append(found.span(group))
        if named:
            yield from values
        if (
            naming
            and not values
            and match.group(1).lower() not in _FORM_TAGS
            and data[match.end() - 2 : match.end() - 1] != b"/"
        ):
            text = _XML_TEXT.match(data, match.end())
            if text is not None and text.group().strip():
                yield text.span()
    for match in _SIBLINGS.finditer(data):
        if names(match.group(1)) and match.group(3).strip():
            yield match.span(3)
