"""Pairs of a name and a value that stand apart: which member names what stands in which other one.

`{"meta_key": "DB_PASSWORD", "meta_value": "…"}` has two members of one stem, `meta`; a member without a stem (`label`,
`value`) goes with any. So `event_name` says nothing about `additional_data`.

>>> naming_stem("meta_key"), value_stem("meta_value"), naming_stem("fieldname"), value_stem("note")
('meta', 'meta', 'field', None)
>>> is_paired("meta_value", {"meta"}), is_paired("value", {"field"}), is_paired("new_value", {"meta"}), is_paired("a", {""})
(True, True, True, False)
"""

from collections.abc import Set as AbstractSet
from typing import Final

from audit_service.core import secret_words as vocabulary
from audit_service.core.secret_names import fold, split_words

__all__ = ["is_paired", "naming_stem", "value_stem"]

_NAMING_WORDS: Final = frozenset(vocabulary.NAMING_WORDS)
_NAMING_ENDS: Final = tuple(vocabulary.NAMING_ENDS)
_NAMING_OTHERS: Final = frozenset(vocabulary.NAMING_OTHERS)
_VALUE_WORDS: Final = frozenset(vocabulary.VALUE_WORDS)
_VALUE_ENDS: Final = tuple(vocabulary.VALUE_ENDS)
_VALUE_NAMES: Final = frozenset(vocabulary.VALUE_NAMES)


def naming_stem(name: str) -> str | None:
    """What stands before the word that makes this the name of something (`meta` of `meta_key`); None when none does."""
    stem = _stem(name, _NAMING_WORDS, _NAMING_ENDS)
    return None if stem in _NAMING_OTHERS else stem


def value_stem(name: str) -> str | None:
    """The same for the member that holds the value; empty when it goes with every name."""
    return "" if name.lower() in _VALUE_NAMES else _stem(name, _VALUE_WORDS, _VALUE_ENDS)


def is_paired(name: str, stems: AbstractSet[str]) -> bool:
    """Whether the member holds the value of one of the names with these stems."""
    stem = value_stem(name) if stems else None
    return stem is not None and (stem == "" or "" in stems or stem in stems)


def _stem(name: str, words: AbstractSet[str], ends: tuple[str, ...]) -> str | None:
    parts = split_words(fold(name))
    if not parts:
        return None
    if parts[-1] in words:
        return "".join(parts[:-1])
    for end in ends:
        if parts[-1].endswith(end):
            return "".join(parts)[: -len(end)]
    return None
