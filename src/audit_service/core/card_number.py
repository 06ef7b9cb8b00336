"""Numbers of payment cards: digits in the groups cards print, the prefix of an issuer, and Luhn's checksum.

>>> is_card_number("4111111111111111"), is_card_number("4111111111111112")
(True, False)
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from typing import Final

from audit_service.core.byte_pattern import Span, byte_pattern

__all__ = ["CARD_PATTERN", "card_spans", "is_card_number"]

_DIGIT: Final = rb"(?:[0-9]|\xef\xbc[\x90-\x99])"
_JOINT: Final = rb"(?:[ .\-]|\xc2\xa0|\xe2\x80[\x80-\xaf])"
# Digits and what stands between groups of them; full-width digits are three bytes of UTF-8, special spaces two or three.
CARD_PATTERN: Final = _DIGIT + rb"(?:" + _DIGIT + rb"|" + _JOINT + rb"){11,}" + _DIGIT
_AMEX_AND_DINERS: Final = ([6, 5], [6, 4])
_LONGEST: Final = 19
_NOT_FOUR: Final = 1000  # more than any sum of digits
_FOUR_MORE: Final = [_NOT_FOUR] * 4
_GLUE: Final = frozenset(b"_-+0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
# ASCII digits to their values, and to the sums of the digits of twice their values.
_VALUES: Final = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED: Final = bytes.maketrans(b"0123456789", bytes(digit * 2 // 10 + digit * 2 % 10 for digit in range(10)))
_CARDS = byte_pattern(CARD_PATTERN)
# Not RE2: a hostile text is one run of a hundred thousand groups, and this pattern has nothing to go back for.
_GROUPS = re.compile(rb"[0-9]+")
_SIGN_OR_BYTE = re.compile(rb"\xef\xbc.|.", re.DOTALL)
# Right before a number these make it one of their own: `invoice no. 4111…`.
_OF_THINGS = byte_pattern(
    rb"(?i)\b(?:sku|invoice|order|ref|reference|serial|ean|gtin|upc|barcode|isbn|imei|iccid|tracking|transaction|txn|ticket|"
    rb"article|asset|batch|receipt|shipment|parcel|contract|id|uuid|product)[\s_\-]*(?:id|number|num|no|nr|code)?[\s.:#=\"']*\z"
)
_SIGNS: Final = b" \t\n\v\f\r_-.:#=\"'"
_BEFORE_BYTES: Final = 40


def card_spans(data: bytes) -> Iterator[Span]:
    """Where card numbers stand in a text."""
    for match in _CARDS.finditer(data):
        start, end = match.span()
        attached = data[max(0, start - 1) : start] + data[end : end + 1]
        # Digits glued to a letter, a dot or an underscore belong to an identifier, an IBAN or a decimal; but a sentence
        # may end behind them.
        if not _GLUE.isdisjoint(attached) or data[max(0, start - 1) : start] == b".":
            continue
        if attached[-1:] == b"." and data[end + 1 : end + 2].isdigit():
            continue
        run = data[start:end]
        if not attached.isascii() and not _is_wide(run):
            continue
        for first, last in _card_windows(run):
            if not _is_of_things(data[max(0, start + first - _BEFORE_BYTES) : start + first]):
                yield start + first, start + last


def _is_of_things(before: bytes) -> bool:
    # The pattern needs a letter before its signs; among numbers there is none, and a search has its price.
    return before.rstrip(_SIGNS)[-1:].isalpha() and _OF_THINGS.search(before) is not None


def _is_wide(run: bytes) -> bool:
    return b"\xef\xbc" in run


def _card_windows(run: bytes) -> Iterator[Span]:
    if run.isdigit():
        if len(run) <= _LONGEST and is_card_number(run.decode()):
            yield 0, len(run)
        return
    narrow = _narrow(run)
    gaps: list[bytes] = []
    spans: list[Span] = []
    for first, count in _card_groups(_GROUPS.findall(narrow)):
        gaps = gaps or _GROUPS.split(narrow)
        # Part of a decimal, or of a longer dotted number.
        if gaps[first][-1:] != b"." and gaps[first + count][:1] != b".":
            spans = spans or _group_spans(run, narrow)
            yield spans[first][0], spans[first + count - 1][1]


def _card_groups(groups: list[bytes]) -> Iterator[tuple[int, int]]:
    """The first group and the number of groups of each card."""
    sizes = [*map(len, groups), 0, 0, 0, 0]
    # Of four groups of four there may be as many as groups: Luhn's sums are made of those of the groups.
    sums = [_sum_of_four(group) if size == 4 else _NOT_FOUR for group, size in zip(groups, sizes, strict=False)]
    totals = [*accumulate([*sums, *_FOUR_MORE], initial=0)]
    for first, size in enumerate(sizes):
        if size == 4:
            total = totals[first + 4] - totals[first]
            if total < _NOT_FOUR:
                if total % 10 == 0 and _issues_16(groups[first]):
                    yield first, 4
                count = 5 if sizes[first + 4] == 3 else 0
            else:
                count = 3 if sizes[first + 1 : first + 3] in _AMEX_AND_DINERS else 0
        else:
            count = 1 if 13 <= size <= _LONGEST else 0
        if count and is_card_number(b"".join(groups[first : first + count]).decode()):
            yield first, count


# Bounded by what four digits can be.
@cache
def _sum_of_four(digits: bytes) -> int:
    """What four digits add to Luhn's sum when an even number of digits follows them."""
    return _luhn_sum(digits)


@cache
def _issues_16(digits: bytes) -> bool:
    """Whether a card of 16 digits may begin with these four."""
    return _has_issuer(digits.decode() + "0" * 12)


def _narrow(run: bytes) -> bytes:
    """With full-width digits as plain ones."""
    if _is_wide(run):
        for digit in range(10):
            run = run.replace(b"\xef\xbc" + bytes((0x90 + digit,)), b"%d" % digit)
    return run


def _group_spans(run: bytes, narrow: bytes) -> list[Span]:
    """Where the groups of digits stand in the run as it was."""
    spans = [match.span() for match in _GROUPS.finditer(narrow)]
    if len(run) == len(narrow):
        return spans
    places = [*(match.start() for match in _SIGN_OR_BYTE.finditer(run)), len(run)]
    return [(places[start], places[end]) for start, end in spans]


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
    return _luhn_sum(digits.encode("ascii")) % 10 == 0


def _luhn_sum(digits: bytes) -> int:
    return sum(digits[-1::-2].translate(_VALUES)) + sum(digits[-2::-2].translate(_DOUBLED))
