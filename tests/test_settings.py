"""Settings: a wrong one stops the start with one line that names it, before anything is made."""

from pathlib import Path

import pytest

from tests.support.commands import command

WRONG = [
    ({"AUDIT_PORT": "77777"}, "AUDIT_PORT: "),
    ({"AUDIT_BOOTSTRAP_KEY": "short"}, "AUDIT_BOOTSTRAP_KEY: "),
    ({"AUDIT_SERVICE_NAME": "a b"}, "AUDIT_SERVICE_NAME: "),
    ({"AUDIT_DATABASE_URL": "mysql://secret@x/y"}, "AUDIT_DATABASE_URL: "),
    ({"AUDIT_MIGRATION_DATABASE_URL": "postgresql://x/y"}, "settings: "),
    ({"AUDIT_LINK_TEMPLATES": "{bad"}, "AUDIT_LINK_TEMPLATES: "),
    ({"AUDIT_LINK_TEMPLATES": '{"server":"javascript:alert(1)//{id}"}'}, "AUDIT_LINK_TEMPLATES: "),
    ({"AUDIT_LINK_TEMPLATES": '{"server":"https://p/{nope}"}'}, "AUDIT_LINK_TEMPLATES: "),
    ({"AUDIT_REDACT_PATTERNS": "abc"}, "AUDIT_REDACT_PATTERNS: "),
    ({"AUDIT_REDACT_PATTERNS": '["("]'}, "audit-service: AUDIT_REDACT_"),
    ({"AUDIT_REDACT_EXEMPT_PATHS": "noslash"}, "audit-service: AUDIT_REDACT_"),
    ({"AUDIT_REDACT_POINTERS": '{"server":["env"]}'}, "audit-service: AUDIT_REDACT_"),
    ({"AUDIT_REDACT_WORDS": "foo", "AUDIT_REDACT_HARMLESS_WORDS": "foo"}, "audit-service: AUDIT_REDACT_"),
]


@pytest.mark.parametrize(("settings", "line"), WRONG, ids=str)
def test_a_wrong_setting_stops_the_start_with_one_line(tmp_path: Path, settings: dict[str, str], line: str) -> None:
    ran = command(tmp_path / "data", "serve", **{"AUDIT_PORT": "0", **settings})
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.startswith(line), ran.stderr
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert "secret@" not in ran.stderr
    assert not (tmp_path / "data").exists()
