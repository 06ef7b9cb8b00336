"""Folding: the form in which people's words are compared, without case and accents. Only for search and filters;
what is stored and hashed is never folded."""

import unicodedata


def fold(text: str) -> str:
    """`text` case-folded, compatibility forms and accents removed: `Ana GÓMEZ` and `ana gomez` fold alike.

    Letters that are letters of their own (ø, ł, ß → ss by case folding) follow Unicode, not a language. Idempotent.
    """
    if text.isascii():
        return text.lower()
    folded = _strip(text).casefold()
    return folded if folded.isascii() else _strip(folded).casefold()


def _strip(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
