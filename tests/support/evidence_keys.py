"""Whose key follows whose: successions, revocations, and keys of another epoch of the log."""

import base64
import json
from collections.abc import Iterator
from typing import Any

from audit_service.core.vkey import Signer, format_vkey
from tests.support.bundles import SEED, MadeLog, pack, remade
from tests.support.evidence_base import OTHER_SEED, Case, public_text

SECOND_SEED, THIEF_SEED = OTHER_SEED, bytes([9]) * 32


def named(log: MadeLog, seed: bytes) -> Signer:
    """A key under the name of the log at its epoch."""
    return Signer.from_seed(log.origin, seed)


def change(
    log: MadeLog, event: str, old: bytes, new: bytes, from_size: int, instead: dict[str, Any] | None = None
) -> None:
    """A `signer` entry that both keys sign; what is given instead makes it wrong."""
    signers = [named(log, old), named(log, new)]
    first, second = map(public_text, signers)
    text = f"audit-service/succession/v1\n{log.origin}\n{first}\n{second}\n{from_size}\n".encode()
    signatures = [base64.b64encode(one.private_key.sign(text)).decode() for one in signers]
    details = {"event": event, "old": first, "new": second, "from_size": from_size, "succession": signatures}
    log.control("signer", details | (instead or {}))


def _log(*changes: tuple[str, bytes, bytes, int], signed_by: bytes, **instead: Any) -> tuple[bytes, MadeLog]:
    """A bundle of a log with these changes of keys, signed by one key, and the log."""
    log = MadeLog()
    for number, (event, old, new, from_size) in enumerate(changes):
        log.event()
        change(log, event, old, new, from_size, instead if number == len(changes) - 1 else None)
    log.event()
    return pack(log.bundle(signers=[named(log, signed_by)])), log


def _pinned(log: MadeLog, seed: bytes = SEED) -> tuple[str, ...]:
    return (format_vkey(named(log, seed).verifier()),)


def good_key_cases() -> Iterator[Case]:
    """Keys that follow from the pinned one."""
    succeeded = ("succeeded", SEED, SECOND_SEED, 1)
    data, log = _log(succeeded, signed_by=SECOND_SEED)
    yield Case("signed by a successor, its predecessor pinned", data, _pinned(log))
    yield Case("signed by a successor, both pinned", data, _pinned(log) + _pinned(log, SECOND_SEED))
    data, log = _log(succeeded, ("added", SECOND_SEED, THIEF_SEED, 3), signed_by=THIEF_SEED)
    yield Case("signed by a successor's successor", data, _pinned(log))
    data, log = _log(succeeded, ("revoked", SEED, SECOND_SEED, 3), signed_by=SECOND_SEED)
    yield Case("signed by the key that replaced a revoked one", data, _pinned(log, SECOND_SEED))
    data, log = _log(("revoked", SEED, SECOND_SEED, 9), signed_by=SEED)
    yield Case("signed below the size of a revocation", data, _pinned(log))
    resumed = MadeLog()
    resumed.event()
    change(resumed, "succeeded", SEED, SECOND_SEED, 1)
    resumed.control("resume", {"size": 2, "why": "restored"})
    data = pack(resumed.bundle(signers=[named(resumed, SECOND_SEED)]))
    yield Case("signed in a later epoch than the succession", data, _pinned(resumed))
    data, log = _pruned()
    yield Case("signed by a successor that a prune entry alone names", data, _pinned(log))


def bad_key_cases() -> Iterator[Case]:
    """Keys that do not, or of which it cannot be told."""
    checkpoint, controls = frozenset({"checkpoint"}), frozenset({"checkpoint", "controls"})
    succeeded = ("succeeded", SEED, SECOND_SEED, 1)
    data, log = _log(signed_by=SECOND_SEED)
    yield Case("signed by a successor that no entry names", data, _pinned(log), checkpoint, 1)
    data, log = _log(("succeeded", THIEF_SEED, SECOND_SEED, 1), signed_by=SECOND_SEED)
    yield Case("signed by a stranger's successor", data, _pinned(log), checkpoint, 1)
    data, log = _log(("revoked", SEED, SECOND_SEED, 1), signed_by=SECOND_SEED)
    yield Case("signed by the successor that a revoked key appointed last", data, _pinned(log), checkpoint, 1)
    data, log = _log(("revoked", SEED, SECOND_SEED, 1), ("succeeded", SEED, THIEF_SEED, 2), signed_by=THIEF_SEED)
    yield Case("signed by whom a revoked key appointed later", data, _pinned(log), checkpoint, 1)
    data, log = _log(succeeded, signed_by=SEED)
    yield Case("signed by a predecessor alone, its successor pinned", data, _pinned(log, SECOND_SEED), checkpoint, 1)
    data, log = _log(("revoked", SEED, SECOND_SEED, 1000), signed_by=SEED)
    yield Case("a revocation copied to where its key still counts", data, _pinned(log, SECOND_SEED), checkpoint, 1)
    data, log = _log(succeeded, ("revoked", SECOND_SEED, THIEF_SEED, 2), signed_by=SECOND_SEED)
    yield Case("signed by a successor that was revoked", data, _pinned(log), checkpoint, 1)
    good = _good_signatures()
    wrong: dict[str, dict[str, Any]] = {
        "signed by the old key alone": {"succession": [good[0], base64.b64encode(bytes(64)).decode()]},
        "signed by the new key alone": {"succession": [base64.b64encode(bytes(64)).decode(), good[1]]},
        "for another size": {"from_size": 2},
        "with one signature": {"succession": good[:1]},
        "with a number for a signature": {"succession": [good[0], 1]},
        "with a signature that is no base64": {"succession": [good[0], "*"]},
        "with signatures that are a text": {"succession": "x"},
        "of keys that are none": {"old": "x", "new": "y"},
        "of a key of another type": {"new": "00000000+" + base64.b64encode(b"\4" + bytes(32)).decode()},
    }
    for name, instead in wrong.items():
        data, log = _log(succeeded, signed_by=SECOND_SEED, **instead)
        yield Case(f"a succession {name}", data, _pinned(log), controls, 1)
    data, log = _log(succeeded, signed_by=SECOND_SEED, succession=None)
    yield Case("a succession that nobody signed", data, _pinned(log), checkpoint, 1)
    kept_wrong: dict[str, dict[str, Any]] = {
        "of another epoch": {"epoch": 2},
        "of an epoch that is a text": {"epoch": "1"},
        "signed by the new key alone": {"succession": [base64.b64encode(bytes(64)).decode(), good[1]]},
    }
    for name, instead in kept_wrong.items():
        data, log = _pruned(**instead)
        yield Case(f"a prune entry with a succession {name}", data, _pinned(log), controls, 1)
    for name, kept in {"a text": "x", "null": None, "numbers": [1]}.items():
        data, log = _pruned(kept)
        yield Case(f"a prune entry whose successions are {name}", data, _pinned(log), controls, 1)
    yield from _other_epochs()


def _pruned(*kept: Any, **instead: Any) -> tuple[bytes, MadeLog]:
    """A bundle, signed by the successor, of a log whose rotation lies below the cut: only the prune entry tells of it, in what is given or
    as it was but for what is given instead."""
    log = MadeLog()
    log.event()
    change(log, "succeeded", SEED, SECOND_SEED, 1)
    log.event()
    body = log.entries[1].body
    assert body is not None
    told = json.loads(body)["details"] | {"epoch": 1} | instead
    log.control("prune", log.prune_details(2, successions=kept[0] if kept else [told]))
    members = log.bundle(2, signers=[named(log, SECOND_SEED)], pruned_before=2)
    left = members["controls.ndjson"].splitlines(keepends=True)[1:]
    return pack(remade(members, controls_ndjson=b"".join(left))), log


def _good_signatures() -> list[str]:
    log = MadeLog()
    log.event()
    change(log, "succeeded", SEED, SECOND_SEED, 1)
    body = log.entries[-1].body
    assert body is not None
    signatures: list[str] = json.loads(body)["details"]["succession"]
    return signatures


def _other_epochs() -> Iterator[Case]:
    """A key of another epoch: the same pair signed, but the name says that the log began anew in between."""
    log = MadeLog()
    log.event()
    early = _pinned(log)
    change(log, "succeeded", SEED, SECOND_SEED, 1)
    log.control("resume", {"size": 2, "why": "restored"})
    for signer, name in ((SEED, "the key"), (SECOND_SEED, "a successor of the key")):
        data = pack(log.bundle(signers=[named(log, signer)]))
        yield Case(f"signed in epoch 2 by {name} that was pinned in epoch 1", data, early, exit=2)
    data = pack(log.bundle(signers=[named(log, THIEF_SEED)]))
    yield Case("signed in epoch 2 by a stranger", data, early, frozenset({"checkpoint"}), 1)
