"""The installation's own keys: trusted beside those a caller pins, told apart from them, and followed through changes of keys."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from audit_service.api import schemas
from audit_service.core.vkey import Signer, format_vkey
from audit_service.signing.keyfile import Keys, SigningKey, make_key, write_keys
from audit_service.signing.public_keys import own_keys, publish_keys, published_keys, replace_keys
from audit_service.verify import OWN_KEYS
from tests.support.api import Api
from tests.support.appends import owner
from tests.support.apps import open_api
from tests.support.forgotten import SEED, Forgetter, succession
from tests.support.postgres import TestDatabase, default_log_id

NOW = datetime(2026, 11, 22, tzinfo=UTC)
SIZE = 9


@dataclass(frozen=True, slots=True)
class Signed:
    """An API whose log has entries, who signs and prunes it, and where the installation's keys stand."""

    api: Api
    forget: Forgetter
    folder: Path
    keys: Keys

    async def note(self, signer: Signer | None = None) -> str:
        """A checkpoint of the log as it is."""
        report = await self.api.verify()
        return await self.forget.checkpoint(report["checked"]["to_seq"], bytes.fromhex(report["root"]), signer)


@pytest.fixture
async def signed(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Signed]:
    folder = tmp_path / "signing"
    seed_key = SigningKey(Signer.from_seed("x", SEED).verifier().public, SEED, NOW)
    async with open_api(database, data_dir=tmp_path) as api, owner(database) as connection:
        await api.accept(*({"action": "user.login"} for _ in range(SIZE)))
        origin = (await api.client.get("/v1/chain")).json()["origin"]
        forget = Forgetter(connection, await default_log_id(database), origin)
        yield Signed(api, forget, folder, Keys((seed_key,)))


def told(report: dict[str, Any]) -> tuple[str, str, str | None, bool]:
    """Status, that of the one checkpoint, who signed it, and whether the report warns of it."""
    schemas.VerifyReport.model_validate(report)
    (one,) = report["checkpoint"]["checkpoints"]
    return report["status"], one["status"], one["signed_by"], OWN_KEYS in report["not_checked"]


async def test_own_keys_are_trusted_and_told_apart_from_pinned_ones(signed: Signed) -> None:
    note, pinned = await signed.note(), format_vkey(signed.forget.signer.verifier())
    assert told(await signed.api.verify(checkpoint=note)) == ("incomplete", "none", None, False)
    publish_keys(signed.folder, signed.keys)
    report = await signed.api.verify(checkpoint=note)
    assert told(report) == ("ok", "consistent", "own", True)
    assert report["trusted_keys"] == {"pinned": 0, "own": 1}
    report = await signed.api.verify(checkpoint=note, key=pinned)
    assert told(report) == ("ok", "consistent", "pinned", False)
    assert report["trusted_keys"] == {"pinned": 1, "own": 1}
    stranger = Signer.from_seed(signed.forget.origin, b"s" * 32)
    assert told(await signed.api.verify(checkpoint=await signed.note(stranger))) == ("incomplete", "none", None, False)


async def test_a_pruned_log_verifies_without_a_key_given(signed: Signed) -> None:
    await signed.forget.prune(4, delete=False)
    report = await signed.api.verify()
    assert report["status"] == "incomplete"
    assert "seq 4: the signature under its prune entry, because no key of the log was given" in report["not_checked"]
    publish_keys(signed.folder, signed.keys)
    report = await signed.api.verify()
    assert (report["status"], report["pruned_before"], report["breaks"]) == ("ok", 4, [])
    assert OWN_KEYS in report["not_checked"]
    other = Keys((make_key(NOW),))
    publish_keys(signed.folder, other)
    report = await signed.api.verify()
    assert [(item["seq"], item["kind"]) for item in report["breaks"]] == [(SIZE + 1, "unrecorded_prune")]


@pytest.mark.parametrize("event", ["succeeded", "revoked"])
async def test_a_change_of_keys_while_the_service_runs_needs_no_restart(signed: Signed, event: str) -> None:
    """A succession follows from the log itself; a revoked key appoints nobody, and the file that is read each time has the next."""
    publish_keys(signed.folder, signed.keys)
    new_key = make_key(NOW)
    new = new_key.signer(signed.forget.origin)
    await signed.forget.append(succession(signed.forget.origin, event, signed.forget.signer, new, SIZE))
    note = await signed.note(new)
    followed = told(await signed.api.verify(checkpoint=note))
    assert followed[:3] == (("ok", "consistent", "own") if event == "succeeded" else ("incomplete", "none", None))
    changed = signed.keys.added(new_key).without(NOW, signed.keys.signing[0].public)
    replace_keys(signed.folder, signed.folder / "key.json", changed)
    assert told(await signed.api.verify(checkpoint=note)) == ("ok", "consistent", "own", True)
    assert told(await signed.api.verify(checkpoint=await signed.note()))[1] == (
        "consistent" if event == "succeeded" else "none"
    )


def test_what_is_published_holds_no_seed(tmp_path: Path) -> None:
    """The public parts, retired ones too; private all the same, and unreadable ones are none."""
    keys = Keys((make_key(NOW), make_key(NOW)))
    gone = replace(keys, signing=keys.signing).without(NOW, keys.signing[0].public)
    publish_keys(tmp_path / "signing", gone)
    path = tmp_path / "signing" / "public.json"
    assert published_keys(path.parent) == {key.public for key in keys.signing}
    assert path.stat().st_mode & 0o777 == 0o600
    assert "seed" not in path.read_text()
    for text in ("", "[]", '{"keys": ["AAAA"]}', '{"keys": 1}'):
        path.write_text(text)
        assert published_keys(path.parent) == frozenset()


def test_a_command_reads_the_key_file_where_it_may(tmp_path: Path) -> None:
    keys, other = Keys((make_key(NOW),)), Keys((make_key(NOW),))
    publish_keys(tmp_path, other)
    assert own_keys(tmp_path, tmp_path / "key.json") == other.publics()
    write_keys(tmp_path / "key.json", keys)
    assert own_keys(tmp_path, tmp_path / "key.json") == keys.publics()
    (tmp_path / "key.json").chmod(0o640)
    assert own_keys(tmp_path, tmp_path / "key.json") == other.publics()
