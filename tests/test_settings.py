"""Settings: a wrong one stops the start with one line that names it, before anything is made."""

from pathlib import Path
from secrets import token_hex

import pytest

from audit_service.settings import SecretFileError, Settings, secret_files
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
    ({"AUDIT_TRUSTED_PROXIES": "10.0.0.1/8"}, "AUDIT_TRUSTED_PROXIES: "),
    ({"AUDIT_FORWARDED_HEADER": "x-real-ip"}, "AUDIT_FORWARDED_HEADER: "),
    ({"AUDIT_METRICS_KEY": "short"}, "AUDIT_METRICS_KEY: "),
    ({"AUDIT_TLS_KEY_FILE": "key.pem"}, "settings: "),
    ({"AUDIT_BOOTSTRAP_KEY_FILE": "/nowhere/at/all"}, "AUDIT_BOOTSTRAP_KEY_FILE: "),
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


def secret_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    """A file with a secret."""
    path = folder / "secret"
    path.touch(mode)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("name", [name.removesuffix("_FILE") for name in secret_files()])
def test_every_secret_can_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    secret = "postgresql://u:" + "p" * 32 + "@h/d"
    if name == "AUDIT_MIGRATION_DATABASE_URL":
        monkeypatch.setenv("AUDIT_DATABASE_URL", secret)
    monkeypatch.setenv(f"{name}_FILE", str(secret_file(tmp_path, secret + "\n")))
    found = getattr(Settings(), name.removeprefix("AUDIT_").lower())
    assert found.get_secret_value() == secret
    assert secret not in repr(Settings())


def test_the_secrets_are_those_that_are_declared_as_such() -> None:
    assert {"AUDIT_DATABASE_URL_FILE", "AUDIT_BOOTSTRAP_KEY_FILE", "AUDIT_METRICS_KEY_FILE"} <= set(secret_files())
    assert "AUDIT_TLS_KEY_FILE_FILE" not in secret_files()


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("s" * 40, 0o644, "may be read by others"),
        ("s" * 40, 0o660, "may be read by others"),
        ("", 0o600, "must hold one line"),
        ("s" * 40 + "\nmore", 0o600, "must hold one line"),
    ],
)
def test_a_file_that_cannot_hold_a_secret_is_refused_without_quoting_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, mode: int, says: str
) -> None:
    monkeypatch.setenv("AUDIT_BOOTSTRAP_KEY_FILE", str(secret_file(tmp_path, text, mode)))
    with pytest.raises(SecretFileError, match=says) as refused:
        Settings()
    assert "ssss" not in str(refused.value)


def test_a_secret_in_both_places_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_BOOTSTRAP_KEY_FILE", str(secret_file(tmp_path, "s" * 40)))
    monkeypatch.setenv("AUDIT_BOOTSTRAP_KEY", "t" * 40)
    with pytest.raises(SecretFileError, match="both set"):
        Settings()


def test_a_file_that_only_its_group_may_read_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As orchestrators mount secrets for a user of their own."""
    monkeypatch.setenv("AUDIT_BOOTSTRAP_KEY_FILE", str(secret_file(tmp_path, token_hex(32), 0o440)))
    assert Settings().bootstrap_key is not None
