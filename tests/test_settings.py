"""Settings: a wrong one stops the start with one line that names it, before anything is made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def run_serve(data_dir: Path, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`audit-service serve`, which must end by itself."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_")}
    command = [sys.executable, "-m", "audit_service.cli", "serve"]
    return subprocess.run(
        command, env=environment | {"AUDIT_DATA_DIR": str(data_dir), "AUDIT_PORT": "0"} | settings,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("settings", "line"), WRONG, ids=str)
def test_a_wrong_setting_stops_the_start_with_one_line(tmp_path: Path, settings: dict[str, str], line: str) -> None:
    ran = run_serve(tmp_path / "data", settings)
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.startswith(line), ran.stderr
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert "secret@" not in ran.stderr
    assert not (tmp_path / "data").exists()
