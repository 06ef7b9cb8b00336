"""RE2 patterns over bytes, and what they find."""

from typing import TypeAlias

import re2

__all__ = ["Span", "byte_pattern"]

# A half-open range of bytes.
Span: TypeAlias = tuple[int, int]


def byte_pattern(pattern: bytes) -> "re2._Regexp[bytes]":
    """The pattern compiled for UTF-8 read byte by byte; linear time whatever the text."""
    # Byte by byte: UTF-8 letters are bytes over 0x7f, and no sequence is ever invalid.
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # type: ignore[attr-defined]  # the stubs miss it
    options.max_mem = 16 << 20
    options.log_errors = False
    return re2.compile(pattern, options)
