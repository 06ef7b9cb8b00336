"""docs/security.md goes through every requirement of its chapters, and each test it names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
# How many requirements each section of OWASP ASVS 5.0.0 has.
SECTIONS = {
    "2.1": 3, "2.2": 3, "2.3": 5, "2.4": 2,
    "4.1": 5, "4.2": 5, "4.3": 2, "4.4": 4,
    "8.1": 4, "8.2": 4, "8.3": 3, "8.4": 2,
    "9.1": 3, "9.2": 4,
    "16.1": 1, "16.2": 5, "16.3": 4, "16.4": 3, "16.5": 4,
}  # fmt: skip
# How much of an answer is worked out, and how long an end may take: nobody is refused for them.
NO_LIMITS_OF_CALLERS = {"AUDIT_HISTORY_LIMIT_EVENTS", "AUDIT_SHUTDOWN_TIMEOUT_SECONDS"}
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)


def missing(path: str, name: str) -> str | None:
    """What of a named test is not there."""
    file = ROOT / path
    if not file.is_file():
        return path
    if name and not re.search(rf"^(?:async )?def {name}\(", file.read_text("utf-8"), re.MULTILINE):
        return f"{path}::{name}"
    return None


def test_every_requirement_has_its_line_in_order() -> None:
    wanted = [f"{section}.{number}" for section, count in SECTIONS.items() for number in range(1, count + 1)]
    rows = re.findall(r"^\| (\d+\.\d+\.\d+) \| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)
    assert [number for number, _, _ in rows] == wanted
    for number, _, held in rows:
        assert "`tests/" in held or "not applicable" in held or "above" in held or "section" in held, number


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 60
    assert [found for path, name in NAMED if (found := missing(path, name))] == []


def test_a_test_that_is_not_there_is_noticed() -> None:
    assert missing("tests/test_nothing.py", "") == "tests/test_nothing.py"
    assert missing("tests/test_security_page.py", "test_nothing") == "tests/test_security_page.py::test_nothing"


def test_the_page_says_every_limit_by_a_setting_that_exists() -> None:
    from audit_service.settings import Settings

    known = {f"AUDIT_{name.upper()}" for name in Settings.model_fields}
    named = {name for name in re.findall(r"AUDIT_[A-Z_]+[A-Z]", PAGE) if "*" not in name}
    assert named <= known | {"AUDIT"}, named - known


def test_every_limit_that_can_be_set_is_written_down() -> None:
    """In the README's table, and by name in this page's."""
    from audit_service.settings import Settings

    readme = (ROOT / "README.md").read_text("utf-8")
    limits = {f"AUDIT_{name.upper()}" for name in Settings.model_fields if "limit" in name or "timeout" in name}
    assert len(limits) > 15
    assert {name for name in limits if f"| `{name}` |" not in readme} == set()
    assert {name for name in limits if f"`{name}`" not in PAGE} == NO_LIMITS_OF_CALLERS
