"""Succession and revocation: entered in every log, signed by both keys, and repeatable from wherever they were killed."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit_service.core.checkpoint import open_checkpoint
from audit_service.core.note import parse_note
from audit_service.errors import InputError
from audit_service.signing import rotation
from audit_service.signing.keyfile import write_keys
from audit_service.signing.lease import OtherKeyError
from tests.support.appends import owner
from tests.support.apps import add_tenant
from tests.support.signers import SignerLab


class KilledError(Exception):
    """The command ends here, as if it was killed."""


async def test_a_succession_is_entered_in_every_log_and_signed_by_both_keys(lab: SignerLab) -> None:
    await add_tenant(lab.log.database, "second")
    life = lab.life()
    await lab.append(3)
    await lab.sign(life)
    old = lab.signing.keys().signing[0]
    changed = await rotation.rotate(lab.signing, overlap_days=7, reason="rotation")
    assert changed.logs == 3  # of `default`, `system` and `second`
    origin = f"audit.example.com/t/{lab.target.log_key}/1"
    (details,) = await _signer_details(lab, lab.log.log_id)
    assert (details["event"], details["from_size"]) == ("succeeded", 3)
    text = rotation.succession_text(origin, details["old"], details["new"], 3)
    for key, signature in zip((old, changed.new), details["succession"], strict=True):
        Ed25519PublicKey.from_public_bytes(key.public).verify(base64.b64decode(signature), text)
    await lab.assert_signed(await lab.sign(life))
    note = parse_note((await lab.notes())[-1])
    for key in (old, changed.new):
        assert open_checkpoint(note, [key.verifier(origin)]).checkpoint.size == 4


async def test_after_the_overlap_the_new_key_signs_alone_and_the_old_seed_is_gone(lab: SignerLab) -> None:
    await lab.sign()
    old = lab.signing.keys().signing[0]
    await rotation.rotate(lab.signing, overlap_days=7, reason="rotation")
    with pytest.raises(InputError, match="still signs until"):
        await rotation.rotate(lab.signing, overlap_days=7, reason="again")
    await rotation.destroy_expired(lab.signing)
    assert len(lab.signing.keys().signing) == 2
    write_keys(lab.signing.key_path, lab.signing.keys().with_end(old.public, datetime.now(UTC)))
    await rotation.destroy_expired(lab.signing)
    keys = lab.signing.keys()
    assert [key.public for key in keys.retired] == [old.public]
    assert base64.b64encode(old.seed).decode() not in lab.signing.key_path.read_text()
    await lab.append(1)
    await lab.sign(lab.life())
    assert len(parse_note((await lab.notes())[-1]).signatures) == 1


async def test_a_revocation_ends_every_key_that_signs_at_once(lab: SignerLab) -> None:
    await lab.append(2)
    await lab.sign()
    await rotation.rotate(lab.signing, overlap_days=7, reason="rotation")
    before = lab.signing.keys()
    changed = await rotation.revoke(lab.signing, reason="the file leaked")
    keys = lab.signing.keys()
    assert [key.public for key in keys.signing] == [changed.new.public]
    assert [key.public for key in keys.retired] == [key.public for key in before.signing]
    events = [(item["event"], item["old"]) for item in await _signer_details(lab, lab.log.log_id)]
    assert [event for event, _ in events] == ["succeeded", "revoked", "revoked"]
    assert len(set(events)) == 3
    await lab.sign(lab.life())
    write_keys(lab.signing.key_path, before)
    with pytest.raises(OtherKeyError):  # the keys that leaked sign nothing more
        await lab.signing.require_lease()


@pytest.mark.parametrize("command", ["rotate", "revoke"])
@pytest.mark.parametrize("step", range(4))
async def test_killed_after_any_step_it_is_run_again_and_enters_nothing_twice(
    lab: SignerLab, command: str, step: int
) -> None:
    second = await add_tenant(lab.log.database, "second")
    await lab.append(2)
    await lab.sign()
    old = lab.signing.keys().signing[0]
    steps: list[str] = []  # the file, each of two logs, the database

    def kill(said: str) -> None:
        steps.append(said)
        if len(steps) > step:
            raise KilledError

    async def run(report: rotation.Report) -> rotation.Changed:
        if command == "rotate":
            return await rotation.rotate(lab.signing, overlap_days=7, reason="test", report=report)
        return await rotation.revoke(lab.signing, reason="test", report=report)

    with pytest.raises(KilledError):
        await run(kill)
    await lab.append(1)
    await lab.sign(lab.life())  # a signer that starts now can work
    if command == "revoke":
        with pytest.raises(InputError, match="revocation is not finished"):
            await rotation.rotate(lab.signing, overlap_days=7, reason="another")
    await run(lambda _step: None)
    for log_id in (lab.log.log_id, second):
        details = await _signer_details(lab, log_id)
        assert [item["event"] for item in details] == [{"rotate": "succeeded", "revoke": "revoked"}[command]]
    keys = lab.signing.keys()
    assert keys.pending is None
    live = {key.public for key in keys.signing}
    assert (old.public in live) == (command == "rotate")
    await lab.append(1)
    await lab.assert_signed(await lab.sign(lab.life()))


async def _signer_details(lab: SignerLab, log_id: int) -> list[dict[str, Any]]:
    async with owner(lab.log.database) as connection:
        sql = "SELECT body FROM audit.entry WHERE log_id = $1 AND kind = 'signer' ORDER BY seq"
        return [json.loads(row["body"])["details"] for row in await connection.fetch(sql, log_id)]
