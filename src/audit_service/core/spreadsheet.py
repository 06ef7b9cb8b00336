"""CSV cells that a spreadsheet shows as text and never runs as a formula (RFC 4180; OWASP ASVS 1.2.10).

A cell is dangerous when, after blanks and quotes, it starts with one of = + - @ (also full-width and the en dash) or with a control
character that starts a new cell or line. Such a cell gets an apostrophe in front. JSON exports keep the raw value.
"""

import re

# Also what a spreadsheet may take for them after normalising: full-width and small forms, the minus sign, the en dash.
_SIGNS = "=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212\u2013"
_INVISIBLE = "\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
# RFC 4180 asks for quotes around the first four. Spreadsheets may take the others for separators too, LibreOffice does when nobody tells
# it otherwise: then every cell behind stood in the wrong column, and what follows might be run.
_QUOTING = re.compile('[",\\r\\n;\\t]')
_FORMULA = re.compile(rf"[\s\"'{_INVISIBLE}]*[{_SIGNS}\t\r\n]")


def neutral(cell: str) -> str:
    """`cell`, with an apostrophe in front when a spreadsheet might run it.

    >>> neutral('=1+1'), neutral(' @SUM(A1)'), neutral('plain -1')
    ("'=1+1", "' @SUM(A1)", 'plain -1')
    """
    # Nearly every cell begins with a letter or digit, and is settled by that.
    return cell if cell[:1].isalnum() or not _FORMULA.match(cell) else "'" + cell


def quoted(cell: str) -> str:
    """`cell` as it stands between commas: in quotes when it holds a quote, a line break, or what may be taken for a separator.

    >>> quoted('plain'), quoted('a "b", c'), quoted('done; next')
    ('plain', '"a ""b"", c"', '"done; next"')
    """
    return '"' + cell.replace('"', '""') + '"' if _QUOTING.search(cell) else cell
