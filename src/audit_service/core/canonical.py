r"""Canonical JSON: one value, one sequence of bytes, so that what was hashed can be hashed again.

The format is RFC 8785 with one extension. A document is UTF-8 without whitespace:

- `null`, `true`, `false` as they are;
- objects with their members sorted by the UTF-16 code units of the key (section 3.2.3), so U+1F600 comes
  before U+FB33;
- strings with the shortest escapes only (section 3.2.2.2): `\"`, `\\`, `\b`, `\t`, `\n`, `\f`, `\r`, any
  other character below U+0020 as `\u00` and two lower-case digits; everything else as itself, never
  normalised;
- doubles as ECMAScript prints them (section 3.2.2.3): the shortest digits that read back as the same
  double, `1` for 1.0, `0` for -0.0, `1e+21`, `1e-7`;
- the extension: integers from -2^63 to 2^64-1 are printed exactly. RFC 8785 knows only doubles and stops
  at 2^53.

Refused with `CanonicalError`: NaN, infinities, integers over 64 bits, lone surrogates, keys that are not
strings, more than 128 levels, and whatever is not JSON (tuples, bytes, dates).

>>> canonical_text({"b": [1.0, -0.0, 1e21, 2**53 + 1, None], "a": "é\t", "\uffe5": 1, "\U0001f600": 2})
'{"a":"é\\t","b":[1,0,1e+21,9007199254740993,null],"😀":2,"￥":1}'
"""

import math
from collections.abc import Callable, Iterable
from json.encoder import encode_basestring
from typing import TypeAlias

import orjson

from audit_service.errors import CanonicalError

__all__ = ["DEPTH_LIMIT", "JSONValue", "canonical_bytes", "canonical_text", "plain_bytes"]

JSONValue: TypeAlias = "bool | int | float | str | list[JSONValue] | dict[str, JSONValue] | None"

DEPTH_LIMIT = 128
INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**64 - 1

_SCALARS = frozenset({type(None), bool, int, str})
_all_scalars = _SCALARS.issuperset
# In UTF-8 exactly the characters beyond U+FFFF begin with one of these bytes.
_ASTRAL_LEADS = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")


def canonical_bytes(value: JSONValue) -> bytes:
    """The canonical form as UTF-8; `CanonicalError` for what has none.

    orjson with sorted keys writes the same bytes, except for floats (it prints 1.0 as `1.0` and NaN as
    `null`) and keys beyond U+FFFF (it sorts by code point). So let orjson write, look for those signs, and
    only if there are any write it again. The slow way alone decides what is refused.
    """
    try:
        written: bytes | None = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        written = None  # falls through, so that orjson's error does not ride along with ours
    if written and (written.isascii() or not any(lead in written for lead in _ASTRAL_LEADS)) and _in_profile(value):
        return written
    return _slow_bytes(value)


def plain_bytes(value: JSONValue) -> bytes:
    """The same for a value that is known to be plain: null, bool, integers of 64 bits, str, list and dict only, in fewer than
    DEPTH_LIMIT levels, as `event.check_limits` says of what it has walked through. Whatever else it holds, the answer is undefined."""
    try:
        written = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return _slow_bytes(value)
    if written.isascii() or not any(lead in written for lead in _ASTRAL_LEADS):
        return written
    return _slow_bytes(value)


def canonical_text(value: JSONValue) -> str:
    """The canonical form as text: `canonical_bytes(value)` decoded."""
    return canonical_bytes(value).decode()


def _in_profile(value: JSONValue, levels_left: int = DEPTH_LIMIT) -> bool:
    """Whether the value holds plain null, bool, int, str, list and dict only, in few enough levels.

    orjson has taken the value before: it has an end, its keys are strings, its integers fit into 64 bits.
    """
    items: Iterable[JSONValue]
    if type(value) is dict:
        items = value.values()
    elif type(value) is list:
        items = value
    else:
        return type(value) in _SCALARS
    if levels_left == 0:
        return False
    if _all_scalars(map(type, items)):  # most containers are leaves, and this loop runs in C
        return True
    for item in items:  # noqa: SIM110 - all() over a generator made the whole check a quarter slower
        if type(item) not in _SCALARS and not _in_profile(item, levels_left - 1):
            return False
    return True


def _slow_bytes(value: JSONValue) -> bytes:
    """RFC 8785 in plain Python, for every value."""
    parts: list[str] = []
    _write(value, parts.append, 0)
    try:
        return "".join(parts).encode()
    except UnicodeEncodeError:
        raise CanonicalError("a string holds a lone surrogate") from None


def _write(value: JSONValue, write: Callable[[str], None], depth: int) -> None:
    """Write one value; `depth` is the number of containers around it."""
    if isinstance(value, str):
        write(encode_basestring(value))
    elif value is None:
        write("null")
    elif isinstance(value, bool):
        write("true" if value else "false")
    elif isinstance(value, int):
        write(_integer_text(value))
    elif isinstance(value, float):
        write(_float_text(value))
    elif not isinstance(value, dict | list):
        raise CanonicalError(f"{type(value).__name__} is not a JSON type")
    elif depth >= DEPTH_LIMIT:
        raise CanonicalError(f"nested deeper than {DEPTH_LIMIT} levels")
    elif isinstance(value, dict):
        separator = "{"
        for key in sorted(value, key=_utf16_units):
            write(f"{separator}{encode_basestring(key)}:")
            _write(value[key], write, depth + 1)
            separator = ","
        write("}" if value else "{}")
    else:
        separator = "["
        for item in value:
            write(separator)
            _write(item, write, depth + 1)
            separator = ","
        write("]" if value else "[]")


def _utf16_units(key: object) -> bytes:
    """What members are sorted by; big-endian, so that comparing bytes compares code units."""
    if not isinstance(key, str):
        raise CanonicalError("an object has a key that is not a string")
    return key.encode("utf-16-be", "surrogatepass")


def _integer_text(value: int) -> str:
    if not INTEGER_MIN <= value <= INTEGER_MAX:
        raise CanonicalError("an integer is outside -2^63 to 2^64-1; send it as a string")
    return int.__repr__(value)  # not str(): an IntEnum would print its name


def _float_text(value: float) -> str:
    """Number::toString of ECMA-262, from Python's repr, which finds the same shortest digits.

    Only the layout differs: repr turns to exponents from 1e16 and below 1e-4, ECMAScript from 1e21 and below
    1e-6.
    """
    if not math.isfinite(value):
        raise CanonicalError("a number is not finite")
    if value == 0:
        return "0"
    text = float.__repr__(value)
    mantissa, _, exponent_text = text.partition("e")
    if not exponent_text:
        return text.removesuffix(".0")
    sign = "-" if value < 0 else ""
    exponent = int(exponent_text)
    digits = mantissa.removeprefix("-").replace(".", "")
    if 0 < exponent < 21:
        return sign + digits.ljust(exponent + 1, "0")
    if -7 < exponent < 0:
        return f"{sign}0.{digits.rjust(len(digits) - exponent - 1, '0')}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{exponent:+d}"
