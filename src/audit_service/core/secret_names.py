"""Which field names bear secrets: words and word pairs, in the languages panels ship in.

A name is folded (NFKD without accents, invisible characters dropped, look-alike letters made Latin), split into
words at camelCase borders, digits and punctuation, and each run-together word (`dbpassword`) is cut into known
words. A name is secret when a secret word or phrase stands in it, unless the name says that it is *about* the
secret: its last word names a property (`token count`, `password policy`), its first asks (`has password`,
`max tokens`), or a harmless phrase covers the hit (`prompt tokens`, `primary key`). `key` is never secret alone,
only with what it opens. The words themselves are in `secret_words`.

>>> names = SecretNames()
>>> [name for name in ("dbPassword", "api-key", "key", "token_count", "contraseña") if names.is_secret(name)]
['dbPassword', 'api-key', 'contraseña']
"""

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import re2

from audit_service.core import secret_words as vocabulary

__all__ = ["ANCHOR_STEMS", "LEET_PATTERN", "SecretNames", "fold", "split_words"]

_SPECIAL: Final = str.maketrans("łŁøØđĐðı", "lLoOdDdi") | {
    ord(letter): latin for letter, latin in zip("ßæÆœþ", ("ss", "ae", "AE", "oe", "th"), strict=True)
}
# Letters of other scripts that look like Latin ones; only used beside the name as it is written.
_LOOK_ALIKES: Final = str.maketrans(
    "аеорсухіјѕԁһӏքкмтвнпгАВЕКМНОРСТХУІЈЅαβεικνορτυχωΑΒΕΖΗΙΚΜΝΟΡΤΥΧᴀᴄᴅᴇᴊᴋᴍᴏᴘꜱᴛᴜᴠᴡᴢʀɴɪʏɡɑⅼꓑɢʜʟƽʙꓢօոսցզտա",
    "aeopcyxijsdhlpkmtbhnrABEKMHOPCTXYIJSabeiknoptuxwABEZHIKMNOPTYXacdejkmopstuvwzrniygalPghlsbSonugqsw",
)
_LEET: Final = {"a": "[a4@]", "e": "[e3]", "i": "[i1!]", "o": "[o0]", "s": "[s5$]", "t": "[t7]"}
# `p4ssw0rd`: the words of LEET_WORDS with digits that stand for letters.
LEET_PATTERN: Final = "|".join("".join(_LEET.get(c, c) for c in word) for word in vocabulary.LEET_WORDS)
_LEETS: Final = re2.compile(LEET_PATTERN)
_LEET_DIGITS: Final = str.maketrans("430157@$!", "aeoistasi")
_BORDERS: Final = str.maketrans("", "", " _-.")
# German and Dutch put anything before them: `Zugriffstoken`.
_SUFFIXES: Final = ("token", "secret", "passwd")
_NAME_LIMIT: Final = 256
_MEMO_LIMIT: Final = 4096
_SEGMENT_LIMIT: Final = 48


def fold(text: str) -> str:
    """Without accents, invisible characters and compatibility forms; case is kept. ASCII comes back as it is."""
    if text.isascii():
        return text
    # A lone surrogate has no normal form; it becomes a question mark and so a word border.
    whole = unicodedata.normalize("NFKD", text.encode("utf-8", "replace").decode().translate(_SPECIAL))
    kept = "".join(c for c in whole if unicodedata.category(c) not in {"Mn", "Cf", "Cc"} and c != "\u3164")
    return unicodedata.normalize("NFC", kept)


def split_words(folded: str) -> list[str]:
    """Lower-case words: cut at camelCase borders, digits and whatever is not a letter; plurals made singular."""
    words: list[str] = []
    start = -1
    previous = ""
    for position, character in enumerate(folded):
        if not character.isalpha():
            if start >= 0:
                words.append(folded[start:position])
            start = -1
        elif start < 0:
            start = position
        elif character.isupper() and not previous.isupper():
            words.append(folded[start:position])
            start = position
        elif previous.isupper() and character.islower() and position - start > 1:
            # HTTPToken: the last capital begins the next word.
            words.append(folded[start : position - 1])
            start = position - 1
        previous = character
    if start >= 0:
        words.append(folded[start:])
    return [_singular(word.casefold()) for word in words]


def _singular(word: str) -> str:
    # `hooks_url` is where an API lists its hooks; `hook_url` is a hook, and opens it.
    if word == "hooks":
        return word
    return word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word


def _phrase(text: str) -> tuple[str, ...]:
    return tuple(split_words(fold(text)))


class _Phrases:
    """Finds the phrases of a list in a list of words."""

    __slots__ = ("_by_first",)

    def __init__(self, phrases: Iterable[tuple[str, ...]]) -> None:
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for phrase in phrases:
            self._by_first.setdefault(phrase[0], []).append(phrase)

    def spans(self, words: Sequence[str]) -> list[tuple[int, int]]:
        """Half-open ranges of word positions."""
        return [
            (start, start + len(phrase))
            for start, word in enumerate(words)
            for phrase in self._by_first.get(word, ())
            if tuple(words[start : start + len(phrase)]) == phrase
        ]


def _set(words: Iterable[str]) -> frozenset[str]:
    return frozenset(_singular(fold(word).casefold()) for word in words)


_WORDS = _set(vocabulary.WORDS)
_LAST_WORDS = _set(vocabulary.LAST_WORDS)
_WHOLE = _set(vocabulary.WHOLE_NAMES)
_TRAILERS = _set(vocabulary.TRAILERS)
_NOT_LAST_AFTER = _set(vocabulary.NOT_LAST_AFTER)
_KEYS = _set(vocabulary.KEYS)
_QUALIFIERS = _set(vocabulary.KEY_QUALIFIERS)
_CODES = _set(vocabulary.CODES)
_CODE_QUALIFIERS = _set(vocabulary.CODE_QUALIFIERS)
# "Code" is English and French: "code de secours" but not "code access".
_FOREIGN_CODE_QUALIFIERS = _CODE_QUALIFIERS - _set(vocabulary.COMPANIONS + vocabulary.ENGLISH_CODE_QUALIFIERS)
_QUALIFIER_STEMS = tuple(vocabulary.QUALIFIER_STEMS)
_ENGLISH = _set(vocabulary.COMPANIONS + vocabulary.ENGLISH_CODE_QUALIFIERS)
_ABOUT_LAST = _set(vocabulary.ABOUT_LAST)
_ABOUT_FIRST = _set(vocabulary.ABOUT_FIRST)
_HARMLESS_WORDS = _set(vocabulary.HARMLESS_WORDS)
_HARMLESS_STEMS = tuple(fold(stem) for stem in vocabulary.HARMLESS_STEMS)
_PHRASES = _Phrases([_phrase(text) for text in vocabulary.PHRASES])
_HARMLESS = [_phrase(text) for text in vocabulary.HARMLESS_PHRASES]
_STRONG = re2.compile("|".join(sorted({re2.escape(fold(word)) for word in vocabulary.STRONG})))
_SUBSTRINGS = tuple(fold(text).casefold() for text in vocabulary.SUBSTRINGS)
_PHRASE_WORDS = frozenset(word for text in vocabulary.PHRASES for word in _phrase(text) if len(word) > 2)
_SKIPPED = frozenset(vocabulary.CONNECTORS + vocabulary.KEY_ENVIRONMENTS)
_PARTS = _set(vocabulary.COMPANIONS) | _WORDS | _LAST_WORDS | _PHRASE_WORDS | {"tokens", "keys", "codes"}
_PARTS |= frozenset(vocabulary.COMPANIONS) | {
    word for word in _KEYS | _QUALIFIERS | _CODES | _CODE_QUALIFIERS if len(word) > 3
}
_SECRET_PARTS = _WORDS | _LAST_WORDS | {"key", "sid", "session", "connection", "webhook", "database", "card"}
_SECRET_PARTS |= _KEYS | _CODES
_PART_LIMIT = max(map(len, _PARTS))


def _anchor_stems() -> tuple[str, ...]:
    """Short ASCII strings of which every secret ASCII name contains one, once it is lower-cased."""
    stems = {word for word in _WORDS | _LAST_WORDS | _WHOLE if word.isascii()}
    stems |= {word for word in _KEYS | _CODES if word.isascii()} | set(filter(str.isascii, vocabulary.STRONG))
    for phrase in map(_phrase, filter(str.isascii, vocabulary.PHRASES)):
        if not any(stem in word for word in phrase for stem in stems):
            # The longest word is the rarest: `session id` is looked for as `session`.
            stems.add(max(phrase, key=len))
    # A stem inside which another one lies adds nothing.
    return tuple(sorted(stem for stem in stems if not any(other != stem and other in stem for other in stems)))


ANCHOR_STEMS: Final = _anchor_stems()


def _segments(word: str) -> list[str] | None:
    """The word cut into the fewest known parts, at least one of them secret; None if it can not be."""
    best: list[list[str] | None] = [[]] + [None] * len(word)
    for end in range(1, len(word) + 1):
        for start in range(max(0, end - _PART_LIMIT), end):
            head = best[start]
            if head is not None and word[start:end] in _PARTS:
                tail = best[end]
                if tail is None or len(head) + 1 < len(tail):
                    best[end] = [*head, word[start:end]]
    parts = best[-1]
    if parts is None or _SECRET_PARTS.isdisjoint(map(_singular, parts)):
        return None
    return [_singular(part) for part in parts]


class SecretNames:
    """The rules with an operator's own words added. Answers are kept in a bounded memory."""

    __slots__ = ("_extra", "_extra_stems", "_harmless", "_memo", "_stems")

    def __init__(self, extra: Sequence[str] = (), harmless: Sequence[str] = ()) -> None:
        """`ValueError` for an entry without a letter, and for one that is both secret and harmless."""
        extra_phrases, harmless_phrases = ([_checked(text) for text in texts] for texts in (extra, harmless))
        for phrase in extra_phrases:
            if phrase in harmless_phrases:
                raise ValueError(f"both secret and harmless: {' '.join(phrase)!r}")
        self._memo: dict[str, bool] = {}
        self._extra = _Phrases(extra_phrases)
        self._harmless = _Phrases([*_HARMLESS, *harmless_phrases])
        self._extra_stems = tuple(sorted({max(phrase, key=len) for phrase in extra_phrases}))
        self._stems = re2.compile("|".join(map(re2.escape, (*ANCHOR_STEMS, *filter(str.isascii, self._extra_stems)))))

    @property
    def stems(self) -> tuple[str, ...]:
        """`ANCHOR_STEMS` and the longest words of the operator's own entries."""
        return (*ANCHOR_STEMS, *self._extra_stems)

    def is_secret(self, name: str) -> bool:
        """Whether what stands under this name is secret. Linear in the length of the name."""
        known = self._memo.get(name)
        if known is None:
            if len(name) > _NAME_LIMIT:
                # No field has such a name: not worth more than a look for the stems.
                return self._stems.search(fold(name).lower()) is not None
            # Names come from senders: a bound, and a fresh start, keep them from filling the memory.
            if len(self._memo) >= _MEMO_LIMIT:
                self._memo.clear()
            known = self._memo[name] = self._decide(name)
        return known

    def _decide(self, name: str) -> bool:
        if name.isascii():
            if self._stems.search(name.lower()) is not None:
                return self._judge(name)
            return not name.isalpha() and self._is_leet(name)
        folded = fold(name)
        lowered = folded.casefold().translate(_BORDERS)
        return (
            any(text in lowered for text in _SUBSTRINGS)
            or self._judge(folded)
            or self._judge(folded.translate(_LOOK_ALIKES))
            or self._is_leet(folded)
        )

    def ends_secret(self, words: str) -> bool:
        """Whether a phrase of prose ("the reset token") ends in a secret word: what follows is then its value."""
        parts = self._cut(split_words(fold(words)))
        return any(end == len(parts) for _, end in self._hits(parts)) if parts else False

    def _is_leet(self, folded: str) -> bool:
        lowered = folded.lower()
        found = _LEETS.search(lowered)
        # Only the word itself is read so: the digits of `s3_token_count` are digits.
        if found is None or found.group().isalpha():
            return False
        return self._judge(lowered[: found.start()] + found.group().translate(_LEET_DIGITS) + lowered[found.end() :])

    def _judge(self, folded: str) -> bool:
        words = self._cut(split_words(folded))
        hits = self._hits(words)
        if not hits:
            return False
        inside = {position for start, end in hits for position in range(start, end)}
        last = len(words) - 1
        if last not in inside and words[last] in _ABOUT_LAST:
            return False
        # `enable password` and `enable secret` are the privileged passwords of network gear.
        if words[0] == "enable" and len(words) == 2:
            return True
        return 0 in inside or words[0] not in _ABOUT_FIRST

    def _cut(self, words: list[str]) -> list[str]:
        cut: list[str] = []
        for word in words:
            if word in _PARTS or word in _HARMLESS_WORDS or not 4 <= len(word) <= _SEGMENT_LIMIT:
                cut.append(word)
            else:
                cut.extend(_segments(word) or [word])
        return cut

    def _hits(self, words: Sequence[str]) -> list[tuple[int, int]]:
        found = _PHRASES.spans(words) + _key_spans(words) + self._extra.spans(words)
        for position, word in enumerate(words):
            if word in _HARMLESS_WORDS or word.startswith(_HARMLESS_STEMS):
                continue
            if position and _is_torn(words[position - 1], word):
                found.append((position - 1, position + 1))
            if word in _WORDS or _is_last_secret(words, position) or _is_strong(word):
                found.append((position, position + 1))
        if len(words) == 1 and words[0] in _WHOLE:
            found.append((0, 1))
        if not found:
            return found
        covers = self._harmless.spans(words)
        return [(a, b) for a, b in found if not any(c < b and a < d and d - c >= b - a for c, d in covers)]


def _checked(text: str) -> tuple[str, ...]:
    phrase = _phrase(text)
    if not phrase:
        raise ValueError(f"no word in {text!r}")
    return phrase


def _is_strong(word: str) -> bool:
    # No word of a language ends in `pw`: `dbpw`, `ftpw`.
    return word.endswith(_SUFFIXES) or (len(word) > 3 and word.endswith("pw")) or _STRONG.search(word) is not None


def _is_last_secret(words: Sequence[str], position: int) -> bool:
    if words[position] not in _LAST_WORDS:
        return False
    if position and words[position - 1] in _NOT_LAST_AFTER:
        return False
    return all(word in _TRAILERS for word in words[position + 1 :])


def _is_torn(first: str, second: str) -> bool:
    """`passWd`, `Pass_Phrase`: one secret word, cut in two by whoever wrote the name."""
    return len(first) > 1 and len(second) > 1 and len(first) + len(second) > 5 and first + second in _WORDS


def _key_spans(words: Sequence[str]) -> list[tuple[int, int]]:
    """`api key`, `clé d'accès`, `recovery code`: a key or code beside what it opens, small words between them skipped."""
    if _KEYS.isdisjoint(words) and _CODES.isdisjoint(words):
        return []
    places = [i for i, word in enumerate(words) if word not in _SKIPPED and len(word) > 1]
    return [(left, right + 1) for left, right in pairwise(places) if _opens(words[left], words[right])]


def _opens(first: str, second: str) -> bool:
    if (second in _KEYS and _qualifies(first, _QUALIFIERS)) or (
        second in _CODES and _qualifies(first, _CODE_QUALIFIERS)
    ):
        return True
    # The other way round is no English ("key ssh", "code access"), but French ("clé ssh", "code de secours").
    if first == "code":
        return _qualifies(second, _FOREIGN_CODE_QUALIFIERS)
    if first == "key":
        return False
    return (first in _KEYS and _qualifies(second, _QUALIFIERS)) or (
        first in _CODES and _qualifies(second, _CODE_QUALIFIERS)
    )


def _qualifies(word: str, qualifiers: frozenset[str]) -> bool:
    return word in qualifiers or (word.startswith(_QUALIFIER_STEMS) and word not in _ENGLISH)
