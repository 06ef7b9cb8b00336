"""Secrets recognised by their value, and secrets named in running text.

Two kinds of finding, all on google-re2 (linear time) and on UTF-8 bytes:

- *tokens*: formats their providers document (GitHub, AWS, Stripe …), private keys, JWTs, password hashes. One
  alternation without groups finds them all.
- *context*: what stands around gives it away: `scheme://user:pass@host`, `Bearer …`, `--password=…`, `DB_PASS=…`,
  `?token=…`, `<password>…</password>`, `IDENTIFIED BY '…'`, card numbers (Luhn and an issuer's prefix).

`ValuePatterns.screen(bytes)` is the cheap check before all of it: if it says no, `spans` finds nothing. It may be asked
about several texts at once, joined by NUL with a NUL at both ends: no pattern looks across a NUL for its evidence.

>>> patterns = ValuePatterns(SecretNames())
>>> redact_spans(b"mysql://app:hunter2@db/x --token=abc", patterns.spans(b"mysql://app:hunter2@db/x --token=abc"))
b'mysql://[redacted]@db/x --token=[redacted]'
"""

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import re2

from audit_service.core.byte_pattern import Span, byte_pattern
from audit_service.core.card_number import CARD_PATTERN, card_spans
from audit_service.core.command_value import COMMAND_PATTERNS, COMMAND_WORDS, argument_starts, command_spans
from audit_service.core.named_value import NamedValue, is_urn, value_at
from audit_service.core.secret_names import LEET_PATTERN, SecretNames
from audit_service.core.structured_value import STRUCTURE_PATTERNS, structured_spans
from audit_service.core.token_finder import BARE_TOKEN, OPENINGS, WHOLES, is_random, token_spans

__all__ = [
    "CONTEXT_PATTERNS",
    "PLACEHOLDER",
    "ValuePatterns",
    "redact_spans",
]

PLACEHOLDER: Final = b"[redacted]"

_NAME: Final = r"[\w.\-\x80-\xff\[$@]"
_CLOSE: Final = r"""\\*(?:["'`\])]|%5[dD]|%2[27]){0,3}"""
_SEPARATOR: Final = (
    r"""[ \t]{0,8}(?:=>|:=|==?|:|\xef\xbc[\x9a\x9d]|;s:[0-9]+:|%3[dD]|[ \t]->|[ \t]?\xe2\x86\x92)[ \t]{0,8}"""
)
# Not with the scheme before it: a pattern that may begin at any letter keeps as many states as there are letters.
_USERINFO: Final = rb":/{2}[^\s/?#\"'<>\x00]*@|:/{2}[^\s/?#:@\"'<>\x00]*:[^\s@\"'<>\x00]*@"
_SCHEME: Final = (
    rb"(?i)\b(?:bearer|basic|digest|negotiate|splunk|token|apikey|api-key|bot|sso-key|genielogin|genietoken|key|hawk|"
    rb"oauth)[ \t]+[\w.~+/|:=%\-]{8,}"
)
_SIGNED: Final = (
    rb"(?i)[?&;](?:x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|x-ms-signature|signature|sig|"
    rb"hmac|se_sig|key|code|auth|sid|session|ticket|hash|st)=[^&#\s\"'<>\x00]+|\bSignature=[0-9a-f]{64}"
)
# For the digest of a ruleset: it changes whenever one of these does.
CONTEXT_PATTERNS: Final = (
    *(pattern.decode("latin-1") for pattern in (BARE_TOKEN, _USERINFO, _SCHEME, _SIGNED, CARD_PATTERN)),
    *(pattern.decode("latin-1") for pattern in (*COMMAND_PATTERNS, *STRUCTURE_PATTERNS)),
    _NAME, _CLOSE, _SEPARATOR,
)  # fmt: skip
_SIGNED_ALWAYS: Final = (b"x-amz", b"x-goog", b"x-ms", b"sig", b"hmac", b"se_sig")

# More findings, or more names with a value, than any text of people or programs has: the text goes whole.
_FINDINGS_LIMIT: Final = 2000
_NAMES_LIMIT: Final = 8000
_SHORTEST_TOKEN: Final = 11  # `$1$` and 8 characters of hash
_SHORTEST_CARD: Final = 13


_Pattern: TypeAlias = "re2._Regexp[bytes] | re2._Regexp[str]"


_DIGITS: Final = (
    r"[0-9](?:[ \-]*[0-9]){12}|[0-9]{4}\.[0-9]{4}\.[0-9]{4}\.[0-9]|[0-9]{4}\.[0-9]{6}\.[0-9]|"
    r"[0-9](?:\xc2\xa0|\xe2\x80[\x80-\xaf])[0-9]{3}|\xef\xbc[\x90-\x99]{1}|\x00\s*[\[{\"]"
)
# Letters and digits need no percent sign: whoever wrote one hides a name behind it.
_HIDDEN: Final = r"%(?:4[1-9a-fA-F]|5[0-9aA]|6[1-9a-fA-F]|7[0-9aA])"
_USERINFOS = byte_pattern(_USERINFO)
_SCHEMES = byte_pattern(_SCHEME)
_SIGNATURES = byte_pattern(_SIGNED)


class ValuePatterns:
    """The compiled patterns for one set of names and operator patterns."""

    __slots__ = ("_anchored", "_anchors", "_extra", "_flags", "_names", "_searched")

    def __init__(self, names: SecretNames, extra: Sequence[str] = ()) -> None:
        """`ValueError` naming an operator's pattern that RE2 refuses or that matches the empty text."""
        self._names = names
        self._extra = tuple(map(_compiled_extra, extra))
        self._anchored = tuple(e for e in self._extra if _is_anchored(e.pattern))
        literal = "|".join(re2.escape(stem) for stem in names.stems).encode().decode("latin-1")
        stems = f"{literal}|{LEET_PATTERN}"
        name_end = rf"(?:{stems}|[\x80-\xff]){_NAME}*"
        anchor = (
            rf"(?i){name_end}(?: {{1,2}}{_NAME}+){{0,3}}{_CLOSE}{_SEPARATOR}|(?i)<[\w:.\-]*{name_end}(?: [^<>\x00]*)?>"
        )
        flag = rf"(?i:(?:\A|[\s\"'\x00])--?[\w.\-]*(?:{stems})[\w.\-]*[ \t]+)"
        self._anchors = byte_pattern(anchor.encode("latin-1"))
        self._flags = byte_pattern(flag.encode("latin-1"))
        ends = r"(?:[=:>\t]|\s*</|[\"'][,;\r\n]|%3d|;s:|\xef\xbc[\x9a\x9d]|\xe2\x86\x92)"
        name = rf"(?:{stems}|[\x80-\xff])[\w.\-\x80-\xff\[$@% \\\"'`\])\t]*{ends}"
        words = [
            *OPENINGS,
            _HIDDEN,
            r"(?i:\bmachine\s|\bdefault\s+login\s)",
            f"(?i:{name})",
            flag,
            f"(?i:{COMMAND_WORDS})",
            _text(_USERINFO),
        ]
        counters = [*WHOLES, *map(_text, (BARE_TOKEN, _SCHEME, _SIGNED)), _DIGITS]
        self._searched: tuple[_Pattern, ...] = (
            byte_pattern("|".join(words).encode("latin-1")),
            byte_pattern("|".join(counters).encode("latin-1")),
            *(extra for extra in self._extra if not _is_anchored(extra.pattern)),
        )

    def screen(self, data: bytes) -> bool:
        """Whether a pattern, or JSON text, may stand in the texts. Anchored patterns of the operator are not asked."""
        return any(pattern.search(data) is not None for pattern in self._searched)

    def suspect_parts(self, data: bytes) -> list[int]:
        """Of texts joined by NUL, with a NUL at both ends, the places of those that `screen` would answer yes to.

        The text before the first NUL is number 0. One pass; linear in the length of the data.
        """
        places = set()
        for pattern in self._searched:
            place = position = 0
            while (match := pattern.search(data, position)) is not None:
                start = match.start() + (data[match.start()] == 0)
                place += data.count(0, position, start)
                places.add(place)
                position = data.find(0, start)
                if position < 0:
                    break
        return sorted(places)

    def screen_anchored(self, texts: Iterable[str]) -> bool:
        """Whether a pattern of the operator with `^` or `$` matches one of the texts: joined, it would not show."""
        if not self._anchored:
            return False
        encoded = [text.encode("utf-8", "replace") for text in texts]
        return any(extra.search(data) is not None for extra in self._anchored for data in encoded)

    def spans(self, data: bytes, *, cards: bool = True, named: bool = True) -> list[Span]:
        """The ranges of bytes to replace, sorted and apart; the whole text when there are over 2,000 findings.

        Without `named` only what is secret by its own form is found; in a URL still what its query names.
        """
        found: list[Span] = []
        for span in self._findings(data, cards=cards, named=named or b"://" in data):
            found.append(span)
            if len(found) > _FINDINGS_LIMIT:
                return [(0, len(data))]
        return _united(span for span in found if data[span[0] : span[1]] != PLACEHOLDER)

    def extra_spans(self, data: bytes) -> list[Span]:
        """The same for the operator's patterns alone."""
        return _united(span for span in self._extra_findings(data) if data[span[0] : span[1]] != PLACEHOLDER)

    def _findings(self, data: bytes, *, cards: bool, named: bool) -> Iterator[Span]:
        # The guards are what every match needs; short strings are many, and each search has its price.
        size = len(data)
        if size >= _SHORTEST_TOKEN:
            yield from token_spans(data)
        if b":/" in data:
            yield from _userinfo_spans(data)
        if named:
            yield from self._context_findings(data)
        yield from self._extra_findings(data)
        if cards and size >= _SHORTEST_CARD:
            yield from card_spans(data)

    def _context_findings(self, data: bytes) -> Iterator[Span]:
        if b"=" in data:
            yield from _signature_spans(data)
        if b" " in data or b"\t" in data:
            yield from _scheme_spans(data)
            yield from command_spans(data)
        yield from structured_spans(data, self._names.is_secret)
        yield from self._named_spans(data)

    def argument_starts(self, words: Sequence[str]) -> dict[int, int]:
        """Of a command given as a list, which arguments hold a secret, and at which character of them it begins."""
        return argument_starts(words)

    def _extra_findings(self, data: bytes) -> Iterator[Span]:
        for extra in self._extra:
            yield from (match.span() for match in extra.finditer(data) if match.end() > match.start())

    def _named_spans(self, data: bytes) -> Iterator[Span]:
        memo: dict[bytes, bool] = {}
        done = 0
        for count, match in enumerate(self._anchors.finditer(data)):
            if count > _NAMES_LIMIT:
                yield 0, len(data)
                return
            # What stands inside a value already found goes with it; looking again and again would be quadratic.
            start, end = match.span()
            if start < done or is_urn(data, start, end):
                continue
            named = NamedValue.at(data, start, end)
            secret = memo.get(named.key)
            if secret is None:
                secret = memo[named.key] = self._is_secret(named)
            if secret and (span := named.value_span(data)) is not None:
                done = span[1]
                yield span
        if b"-" in data:
            yield from self._flag_spans(data)

    def _flag_spans(self, data: bytes) -> Iterator[Span]:
        """`--password hunter2`: the value is the next word."""
        for match in self._flags.finditer(data):
            start, end = match.span()
            name = data[start:end].strip(b" \t\r\n\"'\0-").decode("utf-8", "replace")
            if self._names.is_secret(name) and data[end : end + 1] != b"-" and (span := value_at(data, end)):
                yield span

    def _is_secret(self, named: "NamedValue") -> bool:
        if self._names.is_secret(named.name.decode("utf-8", "replace")):
            return True
        # In prose the secret word has to stand right before the colon: "reset token for user: bob" names a user.
        words = named.phrase.decode("utf-8", "replace").split(" ")
        phrases = (" ".join(words[-count:]) for count in range(2, len(words) + 1))
        return any(self._names.is_secret(phrase) and self._names.ends_secret(phrase) for phrase in phrases)


def _userinfo_spans(data: bytes) -> Iterator[Span]:
    for match in _USERINFOS.finditer(data):
        start = match.start() + len(b"://")
        userinfo = data[start : match.end() - 1]
        name, colon, password = userinfo.partition(b":")
        port, slash, _ = password.partition(b"/")
        if colon and password and not (slash and port.isdigit()):
            yield start, match.end() - 1
        elif b"%3a" in name.lower() or (not colon and len(name) >= 20 and any(48 <= c <= 57 for c in name)):
            # A long name alone is a token (`https://<token>@host`), a short one a login (`git@`).
            yield start, match.end() - 1


def _scheme_spans(data: bytes) -> Iterator[Span]:
    for match in _SCHEMES.finditer(data):
        scheme, token = match.group().split(None, 1)
        if _is_scheme_token(scheme.lower(), token.rstrip(b".:")):
            yield match.end() - len(token), match.end()


def _is_scheme_token(scheme: bytes, token: bytes) -> bool:
    if scheme == b"basic":
        try:
            return b":" in base64.b64decode(token + b"=" * (-len(token) % 4), validate=True)
        except binascii.Error:
            return False
    digits = sum(48 <= c <= 57 for c in token)
    if scheme in (b"bearer", b"negotiate"):
        return len(token) >= 20 or digits > 0
    # "key 2026-11-22" and "token 12345678" are prose; a credential is long and mixed.
    return len(token) >= 20 and digits > 1 and not token.isdigit() and b":/" not in token


def _signature_spans(data: bytes) -> Iterator[Span]:
    for match in _SIGNATURES.finditer(data):
        name, _, value = match.group().partition(b"=")
        # `key=`, `code=`, `hash=` of an ordinary link are short; a credential is not.
        if name[1:].lower().startswith(_SIGNED_ALWAYS) or name == b"Signature" or is_random(value):
            yield match.end() - len(value), match.end()


def _united(spans: Iterable[Span]) -> list[Span]:
    united: list[Span] = []
    for start, end in sorted(spans):
        if united and start < united[-1][1]:
            united[-1] = united[-1][0], max(united[-1][1], end)
        else:
            united.append((start, end))
    return united


def redact_spans(data: bytes, spans: Sequence[Span]) -> bytes:
    """The text with each range replaced by the placeholder; the ranges sorted and apart."""
    pieces = []
    position = 0
    for start, end in spans:
        pieces += [data[position:start], PLACEHOLDER]
        position = end
    return b"".join([*pieces, data[position:]])


def _compiled_extra(pattern: str) -> "re2._Regexp[str]":
    options = re2.Options()
    options.log_errors = False  # the error is ours to report
    try:
        compiled = re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        raise ValueError(f"not an RE2 pattern: {pattern!r}: {error}") from error
    if compiled.search("") is not None:
        raise ValueError(f"matches the empty text: {pattern!r}")
    return compiled


def _is_anchored(pattern: str) -> bool:
    rest = pattern.replace("[^", "[")
    return any(mark in rest for mark in ("^", "$", "\\A", "\\z"))


def _text(pattern: bytes) -> str:
    return pattern.decode("latin-1")
