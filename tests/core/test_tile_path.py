"""Paths of tiles and bundles of entries: known answers, one spelling each."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_service.core import tile_path
from audit_service.core.tile_path import entry_bundle, format_position, format_tile, parse_position, parse_tile
from audit_service.core.tiles import Tile
from audit_service.errors import MalformedError, TooLargeError

TILES = st.builds(Tile, st.integers(0, 63), st.integers(0, 2**63 - 1), st.integers(1, 256))


def test_the_examples_of_the_module_hold() -> None:
    """The format page of the module runs."""
    result = doctest.testmod(tile_path)
    assert (result.failed, result.attempted > 1) == (0, True)


@pytest.mark.parametrize(
    ("number", "width", "path"),
    [
        (0, 256, "000"),
        (7, 1, "007.p/1"),
        (999, 255, "999.p/255"),
        (1000, 256, "x001/000"),
        (1234067, 256, "x001/x234/067"),
        (1234067, 112, "x001/x234/067.p/112"),
        (1000000, 256, "x001/x000/000"),
        (2**63 - 1, 256, "x009/x223/x372/x036/x854/x775/807"),
    ],
)
def test_positions_are_the_known_ones(number: int, width: int, path: str) -> None:
    """Both ways."""
    assert format_position(number, width) == path
    assert parse_position(path) == (number, width)


@given(TILES)
def test_a_tile_survives_its_path(tile: Tile) -> None:
    """parse is the inverse of format."""
    assert parse_tile(format_tile(tile)) == tile


@given(TILES, st.integers(0, 40), st.integers(0, 2), st.sampled_from(["", *"0159x/.p-\n", "x000/", "00", ".p/"]))
def test_a_tile_has_one_path(tile: Tile, at: int, dropped: int, put: str) -> None:
    """Whatever still parses once a path was meddled with is written the same again."""
    path = format_tile(tile)
    path = path[:at] + put + path[at + dropped :]
    try:
        found = parse_tile(path)
    except MalformedError:
        return
    assert format_tile(found) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0",
        "0/",
        "/000",
        "0/0",
        "0/00",
        "0/0000",
        "00/000",
        "01/000",
        "64/000",
        "100/000",
        "-1/000",
        "0/x000",
        "0/x000/000",
        "0/x000/x001/000",
        "0/001/000",
        "0/x001/x000",
        "0/X001/000",
        "0/x001//000",
        "0/x001/000/",
        "0/000.p",
        "0/000.p/",
        "0/000.p/0",
        "0/000.p/01",
        "0/000.p/256",
        "0/000.p/1000",
        "0/000.p/-1",
        "0/000.p/1/",
        "0/000p/1",
        "0/000.p/1\n",
        "0/000\n",
        "0/٠٠٠",
        "٠/000",
        "0/000.p/١",
        "0/x009/x223/x372/x036/x854/x775/808",
        "0/x001/x000/x000/x000/x000/x000/x000/000",
        "0/000 ",
        " 0/000",
        "0/../000",
    ],
)
def test_other_paths_name_no_tile(path: str) -> None:
    """Refused before anything is looked up, and not quoted."""
    with pytest.raises(MalformedError) as caught:
        parse_tile(path)
    assert not path or path not in str(caught.value)


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_a_bundle_can_be_taken_apart(entries: list[bytes]) -> None:
    """Length, entry, length, entry."""
    rest, found = entry_bundle(entries), []
    while rest:
        length = int.from_bytes(rest[:2], "big")
        found.append(rest[2 : 2 + length])
        rest = rest[2 + length :]
    assert found == entries


def test_an_entry_of_a_bundle_has_a_limit() -> None:
    """Two bytes of length."""
    assert len(entry_bundle([bytes(65535)])) == 65537
    with pytest.raises(TooLargeError):
        entry_bundle([bytes(65536)])
