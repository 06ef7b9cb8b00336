"""The CSV export as other programs open it: the same values, and no formula."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from audit_service.core.table import CSV_COLUMNS
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.exports import exported, rows_of
from tests.support.postgres import TestDatabase

# Of the OpenDocument format.
TABLE = "urn:oasis:names:tc:opendocument:xmlns:table:1.0"
TEXT = "urn:oasis:names:tc:opendocument:xmlns:text:1.0"
FORMULA = f"{{{TABLE}}}formula"
# What a spreadsheet takes for a number, a date or a truth unless its columns are imported as text. It runs nothing.
NUMBER_LIKE = {"007", "1e5", "2026-01-01", "true"}
CELLS = [
    "plain", "=1+1", "@SUM(1)", "+1", "-1", "\t=1", "007", "1e5", "2026-01-01", "true", 'q"q', "a,b;c", "done; next", "x;=1+1;y", "a\t=1",
    "two\nlines", "two\r\nlines", "ünï 株", "'=1", "0x10", "NULL", "",
]  # fmt: skip


@pytest.fixture(scope="module")
async def programs_file(module_database: TestDatabase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV export of CELLS as descriptions and as actors' names, for other programs to read."""
    key = await add_key(module_database, await add_tenant(module_database, "programs"))
    async with open_api(module_database, key=key) as api:
        await api.accept(*({"action": "x", "description": cell, "actor": {"name": cell}} for cell in CELLS))
        file = tmp_path_factory.mktemp("programs") / "audit.csv"
        file.write_bytes((await exported(api, format="csv")).content)
    return file


def test_duckdb_reads_the_same_values(programs_file: Path) -> None:
    """All as text, and with types guessed, as one who only names the file has them."""
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed (a development dependency)")
    expected = rows_of(programs_file.read_bytes().decode())
    found = duckdb.sql(f"SELECT * FROM read_csv('{programs_file}', all_varchar = true) ORDER BY seq::bigint")
    assert tuple(found.columns) == CSV_COLUMNS
    rows = [
        dict(zip(CSV_COLUMNS, ("" if cell is None else cell for cell in row), strict=True)) for row in found.fetchall()
    ]
    assert rows == expected
    guessed = duckdb.sql(f"SELECT seq, epoch_us(occurred_at), hash FROM '{programs_file}' ORDER BY seq").fetchall()
    assert guessed == [(int(row["seq"]), _microseconds(row["occurred_at"]), row["hash"]) for row in expected]


def _microseconds(time: str) -> int:
    return (datetime.fromisoformat(time) - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def test_libreoffice_reads_the_same_values_and_runs_nothing(programs_file: Path, tmp_path: Path) -> None:
    """Opened as a table and saved as flat XML: every cell is there, and none is a formula. A file with one shows that they would be run."""
    office = shutil.which("soffice") or shutil.which("libreoffice")
    if office is None:
        pytest.skip("LibreOffice is not installed (Debian: libreoffice-calc-nogui)")
    control = tmp_path / "control.csv"
    control.write_bytes(b"a,b\r\n1,=1+1\r\n")
    # 44/59/9: comma, semicolon and tab, as its dialog offers;
    # 34: quote; 76: UTF-8; from line 1; every column as it stands; then: quoted fields are text, and formulas are evaluated.
    options = "44/59/9,34,76,1,,0,true,true,false,false,false,0,true"
    command = [
        office, f"-env:UserInstallation=file://{tmp_path}/profile", "--headless", f"--infilter=CSV:{options}",
        "--convert-to", "fods", "--outdir", str(tmp_path), str(programs_file), str(control),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert [cell.get(FORMULA) for cell in _cells(tmp_path / "control.fods") if cell.get(FORMULA)] == ["of:=1+1"]
    cells = _cells(tmp_path / "audit.fods")
    assert not [cell for cell in cells if cell.get(FORMULA)]
    texts = {"\n".join(map(_text, cell.iter(f"{{{TEXT}}}p"))) for cell in cells}
    for row in rows_of(programs_file.read_bytes().decode()):
        for name in ("hash", "id", "summary", "actor_name"):
            if row[name] not in NUMBER_LIKE:
                assert row[name].replace("\r\n", "\n") in texts, (name, row[name])


def _cells(sheet: Path) -> list[ET.Element]:
    return list(ET.parse(sheet).iter(f"{{{TABLE}}}table-cell"))  # noqa: S314 - written by LibreOffice just now


def _text(paragraph: ET.Element) -> str:
    """The text of a paragraph, in which tabs and runs of spaces are elements."""
    blanks = {f"{{{TEXT}}}tab": "\t", f"{{{TEXT}}}s": " " * int(paragraph.get(f"{{{TEXT}}}c", "1"))}
    own = blanks.get(paragraph.tag, "") + (paragraph.text or "")
    return own + "".join(_text(child) + (child.tail or "") for child in paragraph)
