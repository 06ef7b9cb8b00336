"""Numbers of payment cards: digits in the groups cards print, the prefix of an issuer, and Luhn's checksum.

>>> is_card_number("4111111111111111"), is_card_number("4111111111111112")
(True, False)
"""

from collections.abc import Iterator
from typing import Final

from audit_service.core.byte_pattern import Span, byte_pattern

__all__ = ["CARD_PATTERN", "card_spans", "is_card_number"]

CARD_PATTERN: Final = rb"[0-9](?:[0-9 \-]{11,})[0-9]"
_CARD_SHAPES: Final = frozenset({(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3)})
_DOUBLED: Final = {str(digit): digit * 2 // 10 + digit * 2 % 10 for digit in range(10)}
_CARDS = byte_pattern(CARD_PATTERN)


def card_spans(data: bytes) -> Iterator[Span]:
    """Where card numbers stand in a text."""
    for match in _CARDS.finditer(data):
        start, end = match.span()
        attached = data[max(0, start - 1) : start] + data[end : end + 1]
        # Digits glued to a letter, a dot or an underscore belong to an identifier, an IBAN or a decimal.
        if any(c >= 0x80 or c in b"_.-+" or bytes((c,)).isalnum() for c in attached):
            continue
        yield from ((start + a, start + b) for a, b in _card_windows(match.group()))


def _card_windows(run: bytes) -> Iterator[Span]:
    groups: list[Span] = []
    position = 0
    for group in run.replace(b"-", b" ").split(b" "):
        if group:
            groups.append((position, position + len(group)))
        position += len(group) + 1
    shapes = [end - start for start, end in groups]
    for first, size in enumerate(shapes):
        for count in (3, 4, 5) if size == 4 else (1,) if 13 <= size <= 19 else ():
            shape = tuple(shapes[first : first + count])
            if len(shape) != count or (count > 1 and shape not in _CARD_SHAPES):
                continue
            start, end = groups[first][0], groups[first + count - 1][1]
            if is_card_number(run[start:end].translate(None, b" -").decode()):
                yield start, end


def is_card_number(digits: str) -> bool:
    """Luhn, and the length and first digits of an issuer."""
    return _has_issuer(digits) and _passes_luhn(digits)


def _has_issuer(digits: str) -> bool:
    length, four = len(digits), int(digits[:4] or 0)
    two = four // 100
    if length == 16:
        mastercard = 51 <= two <= 55 or 2221 <= four <= 2720
        return (
            digits[0] == "4"
            or mastercard
            or two in (62, 65)
            or four == 6011
            or 644 <= four // 10 <= 649
            or 3528 <= four <= 3589
        )
    if length == 15:
        return two in (34, 37)
    if length == 14:
        return 300 <= four // 10 <= 305 or two in (36, 38)
    return 17 <= length <= 19 and (two == 62 or (length == 19 and two in (50, 58, 63, 67) and four != 5000))


def _passes_luhn(digits: str) -> bool:
    every_other = sum(map(_DOUBLED.__getitem__, digits[-2::-2]))
    return (every_other + sum(map(int, digits[-1::-2]))) % 10 == 0
