"""The key file: private, whole or not at all, and its seeds nowhere else."""

import base64
import json
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from audit_service.core.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from audit_service.core.merkle import EMPTY_ROOT
from audit_service.signing.keyfile import KeyFileError, Keys, ensure_keys, make_key, read_keys, write_keys

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a key file that was just made."""
    made = tmp_path / "signing" / "key.json"
    assert ensure_keys(made)
    return made


def test_the_first_start_makes_a_private_file_and_later_ones_leave_it(path: Path) -> None:
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    before = path.read_text()
    assert not ensure_keys(path)
    assert path.read_text() == before
    (key,) = read_keys(path).signing
    assert (len(key.seed), key.retired_at) == (32, None)


def test_what_is_written_is_read_and_signs(path: Path) -> None:
    keys = Keys((make_key(NOW), make_key(NOW)), pending="succeeded")
    keys = keys.with_end(keys.signing[0].public, NOW + timedelta(days=7))
    gone = keys.without(NOW, keys.signing[0].public)
    write_keys(path, gone)
    found = read_keys(path)
    assert found == gone
    assert [key.public for key in found.retired] == [keys.signing[0].public]
    assert (path.stat().st_mode & 0o777) == 0o600
    origin = "audit.example.com/t/7f3a9c/1"
    note = sign_checkpoint(Checkpoint(origin, 0, EMPTY_ROOT), found.signers(origin))
    assert open_checkpoint(note, found.verifiers(origin)[1:]).checkpoint.size == 0


def test_a_retired_key_leaves_no_seed(path: Path) -> None:
    old = read_keys(path).signing[0]
    write_keys(path, read_keys(path).added(make_key(NOW)).without(NOW, old.public))
    assert base64.b64encode(old.seed).decode() not in path.read_text()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o644])
def test_a_file_that_others_may_read_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_keys(path)


def test_neither_repr_nor_an_error_holds_a_seed(path: Path) -> None:
    seed = json.loads(path.read_text())["keys"][0]["seed"]
    keys = read_keys(path)
    assert seed not in repr(keys)
    assert keys.signing[0].seed.hex() not in repr(keys)
    for damage in (
        lambda text: text[:-5],
        lambda text: text.replace(seed, seed[:-8]),
        lambda text: text.replace(seed, base64.b64encode(bytes(32)).decode()),
        lambda text: text.replace('"seed"', '"sead"'),
        lambda text: text.replace('"pending": null', '"pending": "so"'),
        lambda _: "[]",
        lambda _: '{"keys": []}',
    ):
        damaged = path.with_name("damaged.json")
        damaged.touch(mode=0o600)
        damaged.write_text(damage(path.read_text()))
        with pytest.raises(KeyFileError) as caught:
            read_keys(damaged)
        told = "".join(traceback.format_exception(caught.value))
        assert seed[:12] not in told


def test_a_missing_file_is_said() -> None:
    with pytest.raises(KeyFileError, match="there is no key file"):
        read_keys(Path("/nowhere/key.json"))
