"""Folding: the form in which people's words are compared, without case and accents. Only for search and filters;
what is stored and hashed is never folded."""

import re
import unicodedata
from functools import lru_cache

# Code points that got a folding after Unicode 14, the version of the oldest Python we run on. They stay as they are, or an entry
# written under one Python would fold otherwise, and look tampered with, under the next.
_YOUNGER = frozenset(
    chr(point)
    for first, last in (
        (0x0897, 0x0897), (0x1C89, 0x1C8A), (0xA7CB, 0xA7DC), (0x105C0, 0x105F3), (0x10D40, 0x10D8F), (0x10EC2, 0x10EC7),
        (0x10EFA, 0x10EFF), (0x11380, 0x113E2), (0x11B60, 0x11B67), (0x11F41, 0x11F42), (0x16100, 0x16139),
        (0x16D40, 0x16D79), (0x16EA0, 0x16ED3), (0x1CCD6, 0x1CCF9), (0x1E030, 0x1E06D), (0x1E08F, 0x1E08F),
        (0x1E4EC, 0x1E4EF), (0x1E5EE, 0x1E5EF), (0x1E6E3, 0x1E6F5),
    )
    for point in range(first, last + 1)
    if point not in (0xA7D0, 0xA7D1, 0xA7D3, *range(0xA7D5, 0xA7DA))  # these are of Unicode 14
)  # fmt: skip


def fold(text: str) -> str:
    """`text` case-folded, compatibility forms and accents removed: `Ana GÓMEZ` and `ana gomez` fold alike.

    Letters that are letters of their own (ø, ł, ß → ss by case folding) follow Unicode, not a language. Idempotent.
    """
    if text.isascii():
        return text.lower()
    # No letter folds differently beside another one, so what most of a text is need not be looked up.
    return "".join([run.lower() if run.isascii() else "".join(map(_fold_letter, run)) for run in _RUNS.findall(text)])


_RUNS = re.compile(r"[\x00-\x7f]+|[^\x00-\x7f]+")


@lru_cache(maxsize=8192)
def _fold_letter(letter: str) -> str:
    if letter in _YOUNGER:
        return letter
    folded = _strip(letter).casefold()
    return folded if folded.isascii() else _strip(folded).casefold()


def _strip(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
