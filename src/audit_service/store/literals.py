"""PostgreSQL literals, for the few places where a value cannot be a parameter: arrays of different lengths within one argument, and
what is said in the same round trip as BEGIN."""

from collections.abc import Iterable


def array_literal(items: Iterable[str]) -> str:
    """An array of texts, every element quoted."""
    quoted = ('"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items)
    return "{" + ",".join(quoted) + "}"


def quoted(text: str) -> str:
    """A text as a constant of a statement, whatever characters it holds and however `standard_conforming_strings` stands. Raises ValueError
    for what PostgreSQL has no text for: NUL and lone surrogates."""
    if not is_storable(text):
        raise ValueError("PostgreSQL stores no such text")
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def is_storable(text: str) -> bool:
    """Whether a column can hold this text at all."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
