"""Verification over HTTP: what it can be asked beside a range, and that what cannot be read is refused."""

from typing import Any

import pytest

from audit_service.api import schemas
from audit_service.core.checkpoint import Checkpoint, sign_checkpoint
from audit_service.core.note import format_note
from audit_service.core.vkey import Signer, format_vkey
from tests.support.api import Api


def signed(report: dict[str, Any], root: bytes | None = None) -> tuple[str, str]:
    """A checkpoint of the log as a report found it, and the vkey of who signed it."""
    signer = Signer.from_seed(report["origin"], b"k" * 32)
    size, found = report["checked"]["to_seq"], bytes.fromhex(report["root"])
    note = format_note(sign_checkpoint(Checkpoint(report["origin"], size, root or found), [signer]))
    return note, format_vkey(signer.verifier())


async def test_a_log_is_held_against_checkpoints(api: Api) -> None:
    await api.client.post("/v1/events", json={"events": [{"action": "user.login"}] * 3})
    before = await api.verify()
    note, key = signed(before)
    report = await api.verify(checkpoint=note, key=key)
    schemas.VerifyReport.model_validate(report)
    assert (report["status"], report["checkpoint"]["status"], report["not_checked"]) == ("ok", "consistent", [])
    size = (await api.client.get("/v1/chain")).json()["size"]  # each verification is noted, so the log has grown
    other, _ = signed({**before, "checked": {"to_seq": size}}, bytes(32))
    report = await api.verify(checkpoint=[note, other], key=key)
    schemas.VerifyReport.model_validate(report)
    assert (report["status"], report["breaks"][0]["kind"]) == ("broken", "root_mismatch")
    assert [one["status"] for one in report["checkpoint"]["checkpoints"]] == ["consistent", "inconsistent"]
    assert report["checkpoint"]["detail"].startswith("rewrite of equal length")
    report = await api.verify(checkpoint=note)
    assert (report["status"], report["checkpoint"]["status"]) == ("incomplete", "none")


@pytest.mark.parametrize(
    "asked", [{"checkpoint": "x"}, {"key": "x"}, {"key": "a+00000000+AAAA"}, {"depth": "x"}, {"depth": ["all", "all"]}]
)
async def test_what_cannot_be_read_is_refused(api: Api, asked: dict[str, Any]) -> None:
    response = await api.client.get("/v1/chain/verify", params=asked)
    assert response.status_code == 400
    assert response.json()["errors"][0]["parameter"] == next(iter(asked))
