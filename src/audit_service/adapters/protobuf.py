"""Reads the protobuf wire format (https://protobuf.dev/programming-guides/encoding/) by a table of fields.

A message is a sequence of fields: a varint key `number << 3 | wire type`, then the value: 0 a varint, 1 eight bytes, 2 a length and
that many bytes, 5 four bytes (3 and 4, groups, are long gone and refused). What a table does not name is skipped.

The few messages of OTLP need no more than this; the library for all of protobuf is over 4 MB with generated code that is bound to its
version. `tests/api/test_adapters.py` holds this reader against that library where it is installed.

>>> list(fields(bytes.fromhex("0a036162631001"), Budget(10)))
[(1, 2, b'abc'), (2, 0, 1)]
"""

from collections.abc import Iterator

from audit_service.errors import Fault, MalformedError, TooLargeError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10


class Budget:
    """How many fields may still be read: two bytes can be a field, and each costs a turn of a Python loop."""

    __slots__ = ("left",)

    def __init__(self, fields: int) -> None:
        self.left = fields

    def spend(self) -> None:
        """One field. Raises TooLargeError when there is none left."""
        self.left -= 1
        if self.left < 0:
            raise TooLargeError("the protobuf message has too many fields", [Fault("has too many fields", "")])


def fields(data: bytes, budget: Budget) -> Iterator[tuple[int, int, int | bytes]]:
    """(number, wire type, value) for each field. Fixed-width values are little-endian unsigned.

    Raises MalformedError, TooLargeError.
    """
    position, end = 0, len(data)
    while position < end:
        budget.spend()
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if not 1 <= number < 2**29:
            raise malformed(position)
        if wire_type == VARINT:
            value, position = _varint(data, position)
            yield number, wire_type, value
            continue
        if wire_type == BYTES:
            width, position = _varint(data, position)
        elif wire_type in {FIXED64, FIXED32}:
            width = 8 if wire_type == FIXED64 else 4
        else:
            raise malformed(position)
        if position + width > end:
            raise malformed(position)
        part = data[position : position + width]
        position += width
        yield number, wire_type, part if wire_type == BYTES else int.from_bytes(part, "little")


def signed(value: int) -> int:
    """A varint as an int64: two's complement."""
    return value - 2**64 if value >= 2**63 else value


def text(value: bytes, position: int = 0) -> str:
    """A string field. Raises MalformedError when it is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise malformed(position) from None


def malformed(position: int) -> MalformedError:
    """The error for bytes that are no message."""
    return MalformedError(f"the protobuf message is not well-formed near byte {position} of a field")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Seven bits a byte, lowest first, the top bit says that more follow; cut to 64 bits as every reader does."""
    value = shift = 0
    for offset in range(_VARINT_BYTES):
        if position + offset >= len(data):
            break
        byte = data[position + offset]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + offset + 1
        shift += 7
    raise malformed(position)
