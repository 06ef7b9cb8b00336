"""The files of an export, piece by piece: whole, the same as gzip, and never stopped by one entry."""

import gzip
import json
import zlib
from typing import Any, get_args

import pytest

from audit_service.core.sight import EVERYTHING, Sight
from audit_service.core.table import HEADER_LINE
from audit_service.core.view import Stored, event_view
from audit_service.core.writer import Format, Writer
from tests.core.test_table import VALUES, stored

FORMATS: tuple[Format, ...] = get_args(Format)
DEEP = b'{"a":' * 300 + b"1" + b"}" * 300


def row_of(entry: Stored) -> tuple[Any, ...]:
    """An entry as it comes from the database: EVENT_COLUMNS, and something more behind them."""
    d = entry.disclosures.get
    groups = ("actor", "actor_email", "on_behalf_of", "ip", "context", "target", "text", "metadata", "changes")
    head = (entry.seq, 1, entry.recorded_at, entry.kind, entry.prev_hash, b"", entry.hash, entry.id, entry.body)
    return (*head, *map(d, groups), 4711)


def written(format_: Format, *pieces: list[Stored], packed: bool = False) -> bytes:
    """A whole file, of entries written in these pieces."""
    writer = Writer(format_, {}, EVERYTHING, gzip=packed)
    return b"".join([writer.begin(), *(writer.write(list(map(row_of, some))) for some in pieces), writer.end(9)])


def test_json_is_one_document_however_it_was_cut_into_pieces() -> None:
    whole = written("json", [stored()] * 3)
    assert whole == written("json", [stored()], [stored()] * 2)
    view = event_view(stored(), {}, EVERYTHING)
    assert json.loads(whole) == {"events": [view] * 3, "count": 3, "log_size": 9, "complete": True}


def test_ndjson_is_a_line_for_each_and_a_trailer() -> None:
    *lines, trailer = written("ndjson", [stored()] * 2, [stored()]).splitlines()
    assert [json.loads(line) for line in lines] == [event_view(stored(), {}, EVERYTHING)] * 3
    assert json.loads(trailer) == {"trailer": True, "count": 3, "log_size": 9, "complete": True}


def test_an_empty_file_is_whole() -> None:
    assert json.loads(written("json")) == {"events": [], "count": 0, "log_size": 9, "complete": True}
    assert json.loads(written("ndjson")) == {"trailer": True, "count": 0, "log_size": 9, "complete": True}
    assert written("csv").decode() == HEADER_LINE


@pytest.mark.parametrize("format_", FORMATS)
def test_gzip_holds_the_same_file_in_one_member(format_: Format) -> None:
    """One member: many readers take the end of the first for the end of the file."""
    packed = written(format_, [stored()] * 200, [stored()] * 100, packed=True)
    inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    assert written(format_, [stored()] * 300) == inflater.decompress(packed)
    assert inflater.eof
    assert inflater.unused_data == b""


@pytest.mark.parametrize("format_", FORMATS)
def test_a_gzip_file_that_was_cut_shows(format_: Format) -> None:
    packed = written(format_, [stored()] * 300, packed=True)
    for size in (len(packed) - 1, len(packed) // 2):
        with pytest.raises(EOFError):
            gzip.decompress(packed[:size])


@pytest.mark.parametrize("format_", FORMATS)
def test_what_cannot_be_written_is_a_stub_between_its_neighbours(format_: Format) -> None:
    """orjson reads deeper nesting than it writes."""
    deep = stored()._replace(disclosures={**stored(values=VALUES).disclosures, "metadata": bytes(32) + DEEP})
    text = written(format_, [stored(), deep, stored()]).decode()
    assert text.count("This entry is damaged") == 1
    assert text.count("Ana on behalf of c@example.com updated server web (77)") == 2


def test_who_sees_a_part_is_not_told_how_much_there_is() -> None:
    for format_ in ("json", "ndjson"):
        for sight, told in ((Sight(), True), (Sight(server_ids=frozenset({"s1"})), False), (Sight(ips=False), True)):
            assert (b"log_size" in Writer(format_, {}, sight).end(9)) is told
