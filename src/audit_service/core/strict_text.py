"""The strict forms that signed notes, checkpoints and proof files share: text, base64 and counts with one spelling.

Everything here raises `MalformedNoteError`, which carries the line (from 1) and never what stood there.

>>> decode_base64("MQ=="), parse_decimal("70000")
(b'1', 70000)
>>> decode_base64("MR==")
Traceback (most recent call last):
    ...
audit_service.errors.MalformedNoteError: not base64 in its canonical spelling
"""

import re
from base64 import b64decode, b64encode

from audit_service.errors import MalformedNoteError

__all__ = ["COUNT_LIMIT", "decode_base64", "decode_text", "encode_base64", "parse_decimal"]

COUNT_LIMIT = 1 << 63  # a seq is a 64-bit signed integer, a size one more than the last
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


def decode_text(data: bytes | str, limit_bytes: int) -> str:
    """UTF-8 within the limit and without control characters but LF, or `MalformedNoteError`."""
    try:
        encoded = data.encode() if isinstance(data, str) else data
        if len(encoded) > limit_bytes:
            raise MalformedNoteError(f"longer than {limit_bytes} bytes")
        text = encoded.decode()
    except UnicodeError:
        raise MalformedNoteError("not UTF-8") from None
    found = _CONTROL.search(text)
    if found:
        raise MalformedNoteError("a control character", text.count("\n", 0, found.start()) + 1)
    return text


def encode_base64(data: bytes) -> str:
    """RFC 4648 section 4, with padding."""
    return b64encode(data).decode()


def decode_base64(text: str, line: int | None = None) -> bytes:
    """The inverse of `encode_base64`; any other spelling of the same bytes is a `MalformedNoteError` too."""
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        data = b""
    if not data or encode_base64(data) != text:
        raise MalformedNoteError("not base64 in its canonical spelling", line)
    return data


def parse_decimal(text: str, line: int | None = None) -> int:
    """A count in ASCII digits without leading zeros, at most `COUNT_LIMIT`."""
    if not _DECIMAL.fullmatch(text) or int(text) > COUNT_LIMIT:
        raise MalformedNoteError("not a decimal number without leading zeros, of at most 2^63", line)
    return int(text)
