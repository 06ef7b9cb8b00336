"""A key that was revoked signs a log of its thief's making."""

from pathlib import Path

from audit_service.core.vkey import format_vkey
from audit_service.offline.verify_file import EXIT_GOOD, verify
from tests.support.bundles import SEED, MadeLog, pack
from tests.support.evidence_keys import SECOND_SEED, change, named


def test_a_revocation_copied_into_a_forged_log_does_not_vouch_for_the_revoked_key(tmp_path: Path) -> None:
    """The two signatures under a revocation at size 1000 do not say where the entry stands. Copied to seq 1 of a forged log, below the size
    it speaks of, they would make whoever pinned the new key alone trust the stolen one."""
    forged = MadeLog(seed=1)
    forged.event()
    change(forged, "revoked", SEED, SECOND_SEED, 1000)
    forged.event()
    bundle = tmp_path / "bundle"
    bundle.write_bytes(pack(forged.bundle(signers=[named(forged, SEED)])))
    report = verify(bundle, (format_vkey(named(forged, SECOND_SEED).verifier()),))
    assert report.exit_code() != EXIT_GOOD
