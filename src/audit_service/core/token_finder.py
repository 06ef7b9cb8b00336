"""Finds the formats of `secret_tokens` in a text, in time linear in its length whatever the text.

One automaton for all formats would meet ever new states in ever new text, because each counts its own letters. So the
beginnings are searched first, all at once; then a format is matched at each of them, and followed alone.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import re2

from audit_service.core.byte_pattern import Span, byte_pattern
from audit_service.core.secret_tokens import INFIX_PATTERNS, TOKEN_PATTERNS

__all__ = ["BARE_TOKEN", "OPENINGS", "WHOLES", "is_random", "token_spans"]

# Whole values without a prefix: Hetzner (64), AWS secret keys and older Cloudflare tokens (40). Checked by `is_random`.
BARE_TOKEN: Final = rb"(?:\A|[\x00\s\"'=])(?:[A-Za-z0-9]{64}|[A-Za-z0-9+/_-]{40})(?:\z|[\x00\s\"',;])"
_INFIX_BYTES: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.~-+/")
_INFIX_LEAD_LIMIT: Final = 100
# What may be read in vain behind beginnings of tokens that lead to none, before a text is given up as hostile.
_WASTE_LIMIT_BYTES: Final = 4 << 20
_SHORTEST_BARE: Final = 40
# Beginnings that say little: what follows has to look generated.
_WEAK_MARKS: Final = (b"live_", b"test_", b"s.")

# An item of a pattern that repeats often or without end, and what of a pattern is no literal text.
_REPEAT: Final = re2.compile(r"(\[(?:[^\]\\]|\\.)+\]|\\?.)(\{(?:[6-9]|[1-9][0-9]+)(?:,[0-9]*)?\}|[*+])")
_NOT_LITERAL: Final = re2.compile(r"\[(?:[^\]\\]|\\.)+\]|\{[0-9,]+\}|\\[a-zA-Z]|\(\?:")


def _screening(patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """What every match begins with, for patterns that begin with three literal characters; and the others, whole.

    The automaton of a screen meets ever new text. Counting `[a-z]{40}` while it also follows hundreds of words would
    multiply its states; so the words and the counters are searched apart, and a word's counter is cut off.
    """
    openings: list[str] = []
    wholes: list[str] = []
    for pattern in patterns:
        opening = _opening(pattern)
        literals = sum(c.isalnum() or c in "_-$" for c in _NOT_LITERAL.sub("", opening))
        # An alternative of nothing (`\b|bot`) is no beginning.
        target, kept = (openings, opening) if literals >= 3 and r"\b|" not in opening else (wholes, pattern)
        target.append(f"(?:{kept})")
    return openings, wholes


def _opening(pattern: str) -> str:
    """The pattern up to its first long repetition; that one six times at most."""
    match = next(_REPEAT.finditer(pattern))  # each of them repeats something
    item, times = match.groups()
    lead = pattern[: match.start()]
    open_groups: list[int] = []
    for position, character in enumerate(lead):
        if character == "(":
            open_groups.append(position)
        elif character == ")":
            open_groups.pop()
    if open_groups:
        return lead[: open_groups[0]]
    return lead + item + "{6}" if times.startswith("{") else lead


_ALL_TOKENS: Final = [pattern for patterns in TOKEN_PATTERNS.values() for pattern in patterns]
OPENINGS, WHOLES = _screening([*_ALL_TOKENS, *INFIX_PATTERNS])
_OPENING = byte_pattern("|".join(OPENINGS).encode("latin-1"))
_TOKENS = byte_pattern("|".join(f"(?:{pattern})" for pattern in _ALL_TOKENS).encode("latin-1"))
_COUNTERS = byte_pattern("|".join(WHOLES).encode("latin-1"))
_INFIXES = byte_pattern("|".join(INFIX_PATTERNS).encode("latin-1"))
_BARE = byte_pattern(BARE_TOKEN)
_RUN = byte_pattern(rb"[\w.\-+/=%]+")


def token_spans(data: bytes) -> Iterator[Span]:
    """Where tokens stand, in no order; they may overlap."""
    yield from _begun_spans(data)
    yield from (match.span() for match in _COUNTERS.finditer(data) if not _is_chance(match.group()))
    yield from _infix_spans(data)
    if len(data) >= _SHORTEST_BARE:
        yield from _bare_spans(data)


def _bare_spans(data: bytes) -> Iterator[Span]:
    for match in _BARE.finditer(data):
        text = match.group()
        token = text.strip(b"\0 \t\r\n\f\v\"'=,;")
        # A line of a certificate or of an image is no token: it has neighbours of its own length.
        if is_random(token) and not (b"\n" in text or b"\r" in text):
            start = match.start() + text.index(token)
            yield start, start + len(token)


def _begun_spans(data: bytes) -> Iterator[Span]:
    """The beginnings first, then the whole pattern right there: an automaton that follows one token stays small."""
    position = wasted = 0
    while (opening := _OPENING.search(data, position)) is not None:
        match = _TOKENS.match(data, opening.start())
        if match is not None and not _is_chance(match.group()):
            position = match.end()
            yield match.span()
            continue
        position = opening.start() + 1
        run = _RUN.match(data, opening.start())
        wasted += 0 if run is None else run.end() - run.start()
        if wasted > _WASTE_LIMIT_BYTES:
            yield 0, len(data)
            return


def _infix_spans(data: bytes) -> Iterator[Span]:
    for match in _INFIXES.finditer(data):
        start = match.start()
        floor = max(0, start - _INFIX_LEAD_LIMIT)
        while start > floor and data[start - 1] in _INFIX_BYTES:
            start -= 1
        if match.start() - start >= 3:
            yield start, match.end()


def _is_chance(token: bytes) -> bool:
    """What has the form of a token, and of other things: zeros in base64, names, an id beside a digest."""
    if token.startswith(b"EAA"):
        return token.count(b"A") * 4 > len(token)
    mark = next((mark for mark in _WEAK_MARKS if token.startswith(mark)), None)
    body = token[len(mark) :] if mark is not None else token.partition(b"|")[2] if token[:1].isdigit() else b""
    # A generator mixes its letters; names and digests do not.
    return bool(body) and (body.upper() == body or body.lower() == body or _is_camel(body))


def _is_camel(text: bytes) -> bool:
    """Words joined by capitals: no digit, and few capitals."""
    return not any(48 <= c <= 57 for c in text) and sum(65 <= c <= 90 for c in text) * 4 < len(text)


def is_random(token: bytes) -> bool:
    """Upper, lower and at least three digits, and neither hex nor words joined by hyphens."""
    digits = sum(48 <= c <= 57 for c in token)
    return (
        len(token) >= 20 and digits >= 3 and token.upper() != token and token.lower() != token
        and sum(c in b"-_/" for c in token) <= 3
    )  # fmt: skip
