"""Secrets at their place in a command line or an SQL statement, where no name stands before them: `docker login -p …`."""

from collections.abc import Iterator, Sequence
from typing import Final

from audit_service.core.byte_pattern import Span, byte_pattern
from audit_service.core.named_value import value_at

__all__ = ["COMMAND_PATTERNS", "COMMAND_WORDS", "argument_starts", "command_spans"]

_COMMAND: Final = (
    rb"(?i)\b(?:mysql[a-z_]*|mariadb[a-z_\-]*|sshpass|mongo[a-z]*)(?: [^\n|;\x00]*)? -p *|"
    rb"\b(?:redis-cli|htpasswd)[^\n|;\x00]* -[ab]+ +(?:\S+ +\S+ +)?|"
    rb"\b(?:curl|wget|http)\b[^\n|;\x00]* (?:-u|--user|--proxy-user) *[\"']?[^\s:\"'@/\x00]+:"
)
_OPTION: Final = (
    rb"\b(?:docker|podman|nerdctl|helm|az|oc)\b[^\n|;&\x00]*? login\b[^\n|;&\x00]*? -p[ =]*|"
    rb"\b(?:useradd|usermod|adduser|xfreerdp|rdesktop|7z)\b[^\n|;&\x00]*? [-/]p[ :=]*|"
    rb"\b(?:ipmitool|mosquitto_[ps]ub|unzip|zip)\b[^\n|;&\x00]*? -P *|"
    rb"\bldap[a-z]+\b[^\n|;&\x00]*? -w *|"
    rb"\b(?:smbclient|rpcclient|net rpc)\b[^\n|;&\x00]*?[ \"'][^\s%\"'\x00]+%"
)
_PIPED: Final = (
    rb"\becho +(?:-[a-zA-Z]+ +)?[\"']?[^\s:\"'|\x00]+:([^\n|\x00]+)\| *(?:sudo +)?chpasswd|"
    rb"chpasswd *<<< *[\"']?[^\s:\"'\x00]+:([^\s\"'\x00]+)"
)
_SQL: Final = (
    rb"(?i)\b(?:identified(?: with \S+)? (?:by|as)|(?:encrypted )?password) +[\"']|"
    rb"\bset password(?: for [^=\n\x00]*)? *= *(?:password *\( *)?[\"']|\b(?:old_)?password *\( *[\"']"
)
# For the digest of a ruleset.
COMMAND_PATTERNS: Final = (_COMMAND, _OPTION, _PIPED, _SQL)
# What every command line with a secret begins with.
COMMAND_WORDS: Final = (
    r"\b(?:mysql|mariadb|sshpass|mongo|redis-cli|htpasswd|curl|wget|http)[a-z_\-]* |"
    r"\b(?:docker|podman|nerdctl|helm|az|oc|useradd|usermod|adduser|xfreerdp|rdesktop|7z|ipmitool|mosquitto_[ps]ub|unzip|zip|"
    r"ldap[a-z]+|smbclient|rpcclient|net rpc) |chpasswd|\bset password\b|\b(?:old_)?password *\( *[\"']|"
    r"\b(?:identified(?: with \S+)? (?:by|as)|(?:encrypted )?password) +[\"']"
)

_COMMANDS = byte_pattern(_COMMAND)
_OPTIONS = byte_pattern(_OPTION)
_PIPES = byte_pattern(_PIPED)
_SQLS = byte_pattern(_SQL)


def command_spans(data: bytes) -> Iterator[Span]:
    """Where the secrets of command lines and statements stand."""
    for pattern in (_COMMANDS, _OPTIONS):
        for match in pattern.finditer(data):
            if (span := value_at(data, match.end())) is not None and data[span[0]] != 0x2D:
                yield span
    if b"chpasswd" in data:
        for match in _PIPES.finditer(data):
            start, end = match.span(1) if match.span(1)[0] >= 0 else match.span(2)
            kept = len(data[start:end].rstrip(b" \"'"))
            if kept:
                yield start, start + kept
    for match in _SQLS.finditer(data):
        if (span := value_at(data, match.end() - 1)) is not None:
            yield span


def argument_starts(words: Sequence[str]) -> dict[int, int]:
    """Of a command given as a list, which arguments hold a secret, and at which character of them it begins."""
    encoded = [word.encode("utf-8", "replace") for word in words]
    offsets, position = [], 0
    for word in encoded:
        offsets.append(position)
        position += len(word) + 1
    starts: dict[int, int] = {}
    for start, _ in command_spans(b" ".join(encoded)):
        index = max(i for i, offset in enumerate(offsets) if offset <= start)
        head = encoded[index][: start - offsets[index]]
        if encoded[index][len(head) :].strip(b"\"'"):
            starts[index] = len(head.decode("utf-8", "replace"))
    return starts
