r"""Tiles as C2SP tlog-tiles serves them: their paths, and bundles of entries.

- A tile's path is `<level>/<position>`; a bundle of the entries under a tile of level 0 has the position alone.
- A position is the tile's number in groups of three digits, all but the last led by `x`; a partial tile adds
  `.p/<width>`, 1 to 255.
- A bundle is its entries, each behind its length in two bytes, big-endian.

There is one spelling of each: no leading zeros, no width of 0 or 256.

>>> format_tile(Tile(0, 1234067, 256)), parse_tile("1/001.p/17")
('0/x001/x234/067', Tile(level=1, number=1, width=17))
>>> entry_bundle([b"0", b"12"])
b'\x00\x010\x00\x0212'
"""

import re
from collections.abc import Iterable

from audit_service.core.tiles import TILE_WIDTH, Tile
from audit_service.errors import MalformedError, TooLargeError

__all__ = ["entry_bundle", "format_position", "format_tile", "parse_position", "parse_tile"]

_LEVEL_MAX = 63
_NUMBER_MAX = (1 << 63) - 1
_ENTRY_LIMIT_BYTES = 0xFFFF
_POSITION = re.compile(r"((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")
_TILE = re.compile(r"(0|[1-9][0-9]?)/(.+)", re.DOTALL)


def format_tile(tile: Tile) -> str:
    """The path of a tile below `tile/`."""
    return f"{tile.level}/{format_position(tile.number, tile.width)}"


def parse_tile(path: str) -> Tile:
    """The inverse of `format_tile`. Raises `MalformedError` for every other spelling."""
    found = _TILE.fullmatch(path)
    if found is None or int(found[1]) > _LEVEL_MAX:
        raise MalformedError("a tile's path is <level>/<number>[.p/<width>]")
    return Tile(int(found[1]), *parse_position(found[2]))


def format_position(number: int, width: int) -> str:
    """A number and a width as paths have them, of tiles and of entry bundles: `x001/x234/067`, `000.p/7`."""
    path = f"{number % 1000:03}"
    while number := number // 1000:
        path = f"x{number % 1000:03}/{path}"
    return path if width == TILE_WIDTH else f"{path}.p/{width}"


def parse_position(path: str) -> tuple[int, int]:
    """The inverse of `format_position`: number and width. Raises `MalformedError` for every other spelling."""
    found = _POSITION.fullmatch(path)
    if found is not None:
        number = int(found[1].replace("/", "").replace("x", ""))
        width = TILE_WIDTH if found[2] is None else int(found[2])
        if number <= _NUMBER_MAX and format_position(number, width) == path:
            return number, width
    raise MalformedError("a position is groups of three digits, all but the last led by x, and .p/<1…255> if partial")


def entry_bundle(entries: Iterable[bytes]) -> bytes:
    """Entries as `tile/entries/…` serves them: each behind its length in two bytes, big-endian."""
    parts = []
    for entry in entries:
        if len(entry) > _ENTRY_LIMIT_BYTES:
            raise TooLargeError(f"an entry of a bundle is at most {_ENTRY_LIMIT_BYTES} bytes")
        parts += [len(entry).to_bytes(2), entry]
    return b"".join(parts)
