"""Numbers of payment cards: digits in the groups cards print, the prefix of an issuer, and Luhn's checksum.

>>> is_card_number("4111111111111111"), is_card_number("4111111111111112")
(True, False)
"""

import unicodedata
from collections.abc import Iterator
from typing import Final

from audit_service.core.byte_pattern import Span, byte_pattern

__all__ = ["CARD_PATTERN", "card_spans", "is_card_number"]

_DIGIT: Final = rb"(?:[0-9]|\xef\xbc[\x90-\x99])"
_JOINT: Final = rb"(?:[ .\-]|\xc2\xa0|\xe2\x80[\x80-\xaf])"
# Digits and what stands between groups of them; full-width digits are three bytes of UTF-8, special spaces two or three.
CARD_PATTERN: Final = _DIGIT + rb"(?:" + _DIGIT + rb"|" + _JOINT + rb"){11,}" + _DIGIT
_CARD_SHAPES: Final = frozenset({(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3)})
# ASCII digits to their values, and to the sums of the digits of twice their values.
_VALUES: Final = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED: Final = bytes.maketrans(b"0123456789", bytes(digit * 2 // 10 + digit * 2 % 10 for digit in range(10)))
_CARDS = byte_pattern(CARD_PATTERN)
_GROUPS = byte_pattern(_DIGIT + rb"+")
# Right before a number these make it one of their own: `invoice no. 4111…`.
_OF_THINGS = byte_pattern(
    rb"(?i)\b(?:sku|invoice|order|ref|reference|serial|ean|gtin|upc|barcode|isbn|imei|iccid|tracking|transaction|txn|ticket|"
    rb"article|asset|batch|receipt|shipment|parcel|contract|id|uuid|product)[\s_\-]*(?:id|number|num|no|nr|code)?[\s.:#=\"']*\z"
)
_BEFORE_BYTES: Final = 40


def card_spans(data: bytes) -> Iterator[Span]:
    """Where card numbers stand in a text."""
    for match in _CARDS.finditer(data):
        start, end = match.span()
        attached = data[max(0, start - 1) : start] + data[end : end + 1]
        # Digits glued to a letter, a dot or an underscore belong to an identifier, an IBAN or a decimal; but a sentence
        # may end behind them.
        if any(c in b"_-+" or bytes((c,)).isalnum() for c in attached) or data[max(0, start - 1) : start] == b".":
            continue
        if attached[-1:] == b"." and data[end + 1 : end + 2].isdigit():
            continue
        if any(c >= 0x80 for c in attached) and not _is_wide(match.group()):
            continue
        for first, last in _card_windows(match.group()):
            if _OF_THINGS.search(data[max(0, start + first - _BEFORE_BYTES) : start + first]) is None:
                yield start + first, start + last


def _is_wide(run: bytes) -> bool:
    return b"\xef\xbc" in run


def _card_windows(run: bytes) -> Iterator[Span]:
    groups = [match.span() for match in _GROUPS.finditer(run)]
    digits = [_narrow(run[start:end]) for start, end in groups]
    sizes = [*map(len, digits)]
    for first, size in enumerate(sizes):
        for count in _counts(sizes, first, size):
            shape = tuple(sizes[first : first + count])
            if len(shape) != count or (count > 1 and shape not in _CARD_SHAPES):
                continue
            start, end = groups[first][0], groups[first + count - 1][1]
            if not is_card_number("".join(digits[first : first + count])):
                continue
            # Part of a decimal, or of a longer dotted number.
            if b"." not in run[max(0, start - 1) : start] + run[end : end + 1]:
                yield start, end


def _counts(sizes: list[int], first: int, size: int) -> tuple[int, ...]:
    """How many groups a card that begins here may have."""
    if size != 4:
        return (1,) if 13 <= size <= 19 else ()
    second = sizes[first + 1] if first + 1 < len(sizes) else 0
    return (
        (4, 5)
        if second == 4 and sizes[first + 4 : first + 5] == [3]
        else (4,)
        if second == 4
        else (3,)
        if second == 6
        else ()
    )


def _narrow(digits: bytes) -> str:
    if digits.isascii():
        return digits.decode()
    return unicodedata.normalize("NFKC", digits.decode("utf-8", "replace"))


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
    ascii_digits = digits.encode("ascii")
    return (sum(ascii_digits[-1::-2].translate(_VALUES)) + sum(ascii_digits[-2::-2].translate(_DOUBLED))) % 10 == 0
