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

from audit_service.core.secret_names import LEET_PATTERN, SecretNames
from audit_service.core.secret_tokens import INFIX_PATTERNS, TOKEN_PATTERNS
from audit_service.core.secret_words import STATES

__all__ = [
    "CONTEXT_PATTERNS",
    "PLACEHOLDER",
    "ValuePatterns",
    "is_card_number",
    "redact_spans",
]

PLACEHOLDER: Final = b"[redacted]"
Span = tuple[int, int]

# Whole values without a prefix: Hetzner (64), AWS secret keys and older Cloudflare tokens (40). Checked by `_is_random`.
_BARE_TOKEN: Final = rb"(?:\A|[\x00\s\"'=])(?:[A-Za-z0-9]{64}|[A-Za-z0-9+/_-]{40})(?:\z|[\x00\s\"',;])"
_NAME: Final = r"[\w.\-\x80-\xff\[$@]"
_CLOSE: Final = r"""\\*["'`\])]{0,3}"""
_SEPARATOR: Final = r"""[ \t]{0,8}(?:=>|:=|==?|:|\xef\xbc[\x9a\x9d]|;s:[0-9]+:|%3[dD])[ \t]{0,8}"""
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
_COMMAND: Final = (
    rb"(?i)\b(?:mysql[a-z_]*|mariadb[a-z_\-]*|sshpass|mongo[a-z]*)(?: [^\n|;\x00]*)? -p *|"
    rb"\b(?:redis-cli|htpasswd)[^\n|;\x00]* -[ab]+ +(?:\S+ +\S+ +)?|"
    rb"\b(?:curl|wget|http)\b[^\n|;\x00]* (?:-u|--user|--proxy-user) *[\"']?[^\s:\"'@/\x00]+:"
)
_SQL: Final = rb"(?i)\b(?:identified(?: with \S+)? (?:by|as)|(?:encrypted )?password) +[\"']"
_CARD: Final = rb"[0-9](?:[0-9 \-]{11,})[0-9]"
# For the digest of a ruleset: it changes whenever one of these does.
CONTEXT_PATTERNS: Final = (
    *(pattern.decode("latin-1") for pattern in (_BARE_TOKEN, _USERINFO, _SCHEME, _SIGNED, _COMMAND, _SQL, _CARD)),
    _NAME, _CLOSE, _SEPARATOR,
)  # fmt: skip
_SIGNED_ALWAYS: Final = (b"x-amz", b"x-goog", b"x-ms", b"sig", b"hmac", b"se_sig")

# One of these as the value says something about the secret and is none.
_STATES: Final = frozenset(STATES)
_NAME_BYTES: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-$@") | set(
    range(0x80, 0x100)
)
_INFIX_BYTES: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.~-+/")
_INFIX_LEAD_LIMIT: Final = 100
_HEADER_WORDS: Final = ("authoriz", "cookie", "authoris")
# More findings, or more names with a value, than any text of people or programs has: the text goes whole.
_FINDINGS_LIMIT: Final = 2000
_NAMES_LIMIT: Final = 8000
# What may be read in vain behind beginnings of tokens that lead to none, before a text is given up as hostile.
_WASTE_LIMIT_BYTES: Final = 4 << 20
_SHORTEST_TOKEN: Final = 11  # `$1$` and 8 characters of hash
_SHORTEST_BARE: Final = 40
_SHORTEST_CARD: Final = 13
_CARD_SHAPES: Final = frozenset({(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3)})
_DOUBLED: Final = {str(digit): digit * 2 // 10 + digit * 2 % 10 for digit in range(10)}
_PHRASE_LIMIT: Final = 160


_Pattern: TypeAlias = "re2._Regexp[bytes] | re2._Regexp[str]"


def _latin(pattern: bytes) -> "re2._Regexp[bytes]":
    # Byte by byte: UTF-8 letters are bytes over 0x7f, and no sequence is ever invalid.
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # type: ignore[attr-defined]  # the stubs miss it
    options.max_mem = 16 << 20
    options.log_errors = False
    return re2.compile(pattern, options)


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


_COMMAND_WORDS: Final = r"\b(?:mysql|mariadb|sshpass|mongo|redis-cli|htpasswd|curl|wget|http)[a-z_\-]* "
_DIGITS: Final = r"[0-9](?:[ \-]*[0-9]){12}|\x00\s*[\[{\"]"
_ALL_TOKENS: Final = [pattern for patterns in TOKEN_PATTERNS.values() for pattern in patterns]
_OPENINGS, _WHOLES = _screening([*_ALL_TOKENS, *INFIX_PATTERNS])
_OPENING = _latin("|".join(_OPENINGS).encode("latin-1"))
_TOKENS = _latin("|".join(f"(?:{pattern})" for pattern in _ALL_TOKENS).encode("latin-1"))
_COUNTERS = _latin("|".join(_WHOLES).encode("latin-1"))
_INFIXES = _latin("|".join(INFIX_PATTERNS).encode("latin-1"))
_BARE = _latin(_BARE_TOKEN)
_USERINFOS = _latin(_USERINFO)
_SCHEMES = _latin(_SCHEME)
_SIGNATURES = _latin(_SIGNED)
_COMMANDS = _latin(_COMMAND)
_SQLS = _latin(_SQL)
_CARDS = _latin(_CARD)
_QUOTED = _latin(rb"""(?s)\\+"[^"]*|\\+'[^']*|"(?:[^"\\]|\\.)*|'(?:[^'\\]|\\.)*|`[^`]*""")
_RUN = _latin(rb"[\w.\-+/=%]+")
_BRACED = _latin(rb"\{[^}]*\}?|\[[^\]]*\]?")
_BARE_VALUE = _latin(rb"""[^\s"'<>&;\x00][^\s"<>&;\x00]*""")
_TO_LINE_END = _latin(rb"[^\r\n\x00]+")
_TO_QUOTE = _latin(rb"""[^\r\n"'\\<>\x00]+""")
_XML_TEXT = _latin(rb"[^<\x00]+")


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
        self._anchors = _latin(anchor.encode("latin-1"))
        self._flags = _latin(flag.encode("latin-1"))
        name = rf"(?:{stems}|[\x80-\xff])[\w.\-\x80-\xff\[$@ \\\"'`\])\t]*(?:[=:>]|%3d|;s:|\xef\xbc[\x9a\x9d])"
        words = [*_OPENINGS, f"(?i:{name})", flag, f"(?i:{_COMMAND_WORDS})", _text(_USERINFO)]
        counters = [*_WHOLES, *map(_text, (_BARE_TOKEN, _SCHEME, _SIGNED, _SQL)), _DIGITS]
        self._searched: tuple[_Pattern, ...] = (
            _latin("|".join(words).encode("latin-1")),
            _latin("|".join(counters).encode("latin-1")),
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

    def spans(self, data: bytes, *, cards: bool = True) -> list[Span]:
        """The ranges of bytes to replace, sorted and apart; the whole text when there are over 2,000 findings."""
        found: list[Span] = []
        for span in self._findings(data, cards=cards):
            found.append(span)
            if len(found) > _FINDINGS_LIMIT:
                return [(0, len(data))]
        return _united(span for span in found if data[span[0] : span[1]] != PLACEHOLDER)

    def extra_spans(self, data: bytes) -> list[Span]:
        """The same for the operator's patterns alone."""
        return _united(span for span in self._extra_findings(data) if data[span[0] : span[1]] != PLACEHOLDER)

    def _findings(self, data: bytes, *, cards: bool) -> Iterator[Span]:
        # The guards are what every match needs; short strings are many, and each search has its price.
        size = len(data)
        if size >= _SHORTEST_TOKEN:
            yield from _token_spans(data)
            yield from (match.span() for match in _COUNTERS.finditer(data))
            yield from _infix_spans(data)
        if b":/" in data:
            yield from _userinfo_spans(data)
        if b"=" in data:
            yield from _signature_spans(data)
        if size >= _SHORTEST_BARE:
            yield from _bare_spans(data)
        if b" " in data or b"\t" in data:
            yield from _scheme_spans(data)
            yield from _command_spans(data)
        yield from self._named_spans(data)
        yield from self._extra_findings(data)
        if cards and size >= _SHORTEST_CARD:
            yield from _card_spans(data)

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
            if match.start() < done or _is_urn(data, *match.span()):
                continue
            named = _Named.at(data, match.start(), match.end())
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
            if self._names.is_secret(name) and data[end : end + 1] != b"-" and (span := _value_at(data, end)):
                yield span

    def _is_secret(self, named: "_Named") -> bool:
        if self._names.is_secret(named.name.decode("utf-8", "replace")):
            return True
        # In prose the secret word has to stand right before the colon: "reset token for user: bob" names a user.
        words = named.phrase.decode("utf-8", "replace").split(" ")
        phrases = (" ".join(words[-count:]) for count in range(2, len(words) + 1))
        return any(self._names.is_secret(phrase) and self._names.ends_secret(phrase) for phrase in phrases)


class _Named:
    """`name = value` in running text: the name, the up to four words that end in it, and where the value begins."""

    __slots__ = ("key", "name", "own_line", "phrase", "tag", "value_at")

    def __init__(self, data: bytes, start: int, end: int, *, tag: bool) -> None:
        head = data[start:end]
        self.tag, self.value_at = tag, end
        self.phrase = head[1:].split(b" ", 1)[0].rstrip(b">") if tag else _without_separator(head)
        self.name = self.phrase.rsplit(b" ", 1)[-1]
        self.own_line = self.name == self.phrase and data[start - 1 : start] in (b"\n", b"\r", b"")
        self.key = self.phrase + (b"\0" if tag else b"")

    @classmethod
    def at(cls, data: bytes, start: int, end: int) -> "_Named":
        """The match begins at the secret word; the name may begin before it (`DB_` of `DB_PASS`, `API` of `API key`)."""
        if data[start : start + 1] == b"<":
            return cls(data, start, end, tag=True)
        before = data[max(0, start - _PHRASE_LIMIT) : start]
        kept = len(before)
        for _ in range(4):
            while kept and (before[kept - 1] in _NAME_BYTES):
                kept -= 1
            if kept < 2 or before[kept - 1] != 0x20 or before[kept - 2] not in _NAME_BYTES:
                break
            kept -= 1
        else:
            kept += 1
        return cls(data, start - len(before) + kept, end, tag=False)

    def value_span(self, data: bytes) -> Span | None:
        """Where the value stands; None when there is none, or it only tells a state."""
        if self.tag:
            match = _XML_TEXT.match(data, self.value_at)
            return match.span() if match is not None and match.group().strip() else None
        lowered = self.name.lower()
        if any(word.encode() in lowered for word in _HEADER_WORDS) and data[self.value_at : self.value_at + 1] not in (
            b'"', b"'", b"\\", b"{", b"[",
        ):  # fmt: skip
            match = _TO_QUOTE.match(data, self.value_at)
            return match.span() if match is not None else None
        # A line of an .env or YAML file: its value ends with the line, whatever stands in it.
        return _value_at(data, self.value_at, whole_line=self.own_line and b"\n" in data)


def _is_urn(data: bytes, start: int, end: int) -> bool:
    """`arn:aws:secretsmanager:…:secret:name` names things; it assigns nothing."""
    if data[start - 1 : start] != b":" or data[end - 1 : end] != b":":
        return False
    words = data[max(0, start - _PHRASE_LIMIT) : start].split()
    return bool(words) and any(mark in words[-1] for mark in (b"arn:", b"urn:"))


def _without_separator(head: bytes) -> bytes:
    head = head.rstrip(b" \t")
    if head.endswith(b":") and b";s:" in head:
        head = head[: head.rindex(b";s:")]
    if head.endswith((b"\xef\xbc\x9a", b"\xef\xbc\x9d")):
        head = head[:-3]
    if head[-3:].lower() == b"%3d":
        head = head[:-3]
    return head.rstrip(b" \t=>:\\\"'`])").lstrip(b"- ")


def _value_at(data: bytes, start: int, *, whole_line: bool = False) -> Span | None:
    quoted = _QUOTED.match(data, start)
    if quoted is not None:
        text = quoted.group()
        head = len(text) - len(text.lstrip(b"\\")) + 1
        content = text[head:].rstrip(b"\\") if head > 1 else text[head:]
        return (start + head, start + head + len(content)) if content else None
    braced = _BRACED.match(data, start)
    if braced is not None:
        # `[redacted]` of an earlier pass is followed by nothing.
        return braced.span() if len(braced.group()) > 2 else None
    match = (_TO_LINE_END if whole_line else _BARE_VALUE).match(data, start)
    if match is None or match.group().strip(b" ,.)").decode("utf-8", "replace").lower() in _STATES:
        return None
    return match.span()


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
        if name[1:].lower().startswith(_SIGNED_ALWAYS) or name == b"Signature" or _is_random(value):
            yield match.end() - len(value), match.end()


def _command_spans(data: bytes) -> Iterator[Span]:
    for match in _COMMANDS.finditer(data):
        if (span := _value_at(data, match.end())) is not None and data[span[0]] != 0x2D:
            yield span
    for match in _SQLS.finditer(data):
        if (span := _value_at(data, match.end() - 1)) is not None:
            yield span


def _bare_spans(data: bytes) -> Iterator[Span]:
    for match in _BARE.finditer(data):
        text = match.group()
        token = text.strip(b"\0 \t\r\n\f\v\"'=,;")
        # A line of a certificate or of an image is no token: it has neighbours of its own length.
        if _is_random(token) and not (b"\n" in text or b"\r" in text):
            start = match.start() + text.index(token)
            yield start, start + len(token)


def _token_spans(data: bytes) -> Iterator[Span]:
    """The beginnings first, then the whole pattern right there: an automaton that follows one token stays small."""
    position = wasted = 0
    while (opening := _OPENING.search(data, position)) is not None:
        match = _TOKENS.match(data, opening.start())
        if match is not None and not _is_padding(match.group()):
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


def _is_padding(token: bytes) -> bool:
    """A run of zeros in base64 begins like a token of Meta or Square."""
    return token.startswith(b"EAA") and token.count(b"A") * 4 > len(token)


def _is_random(token: bytes) -> bool:
    """Upper, lower and at least three digits, and neither hex nor words joined by hyphens."""
    digits = sum(48 <= c <= 57 for c in token)
    return (
        len(token) >= 20 and digits >= 3 and token.upper() != token and token.lower() != token
        and sum(c in b"-_/" for c in token) <= 3
    )  # fmt: skip


def _card_spans(data: bytes) -> Iterator[Span]:
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
    try:
        compiled = re2.compile(pattern)
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
