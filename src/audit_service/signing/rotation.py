r"""Changing the signing key: succession, with an overlap in which both keys sign, and revocation, at once.

Every log gets a `signer` entry for each key that goes. In it the key that goes and the key that comes both sign

    audit-service/succession/v1\n<origin>\n<old>\n<new>\n<from_size>\n

where a key is `<key id>+<base64(0x01 || public key)>` under the log's origin, and `from_size` is the size signed last: a succeeding key
counts from there on, a revoked one up to there.

Steps, each durable before the next, and none harmful to repeat: a command that was killed is run again and goes on where it was.
1. The new key and what is under way (`pending`) go into the key file; from here on both keys sign.
2. Each log that has no such entry yet gets it.
3. The database's lease asks for the new key.
4. The key file: a succeeded key gets its end, a revoked one loses its seed at once; nothing is pending any more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from os import urandom
from typing import Any, cast

import orjson
import structlog

from audit_service.core import control
from audit_service.core.chain import format_origin
from audit_service.core.control import ENTROPY_BYTES, Act
from audit_service.core.vkey import format_vkey
from audit_service.errors import InputError
from audit_service.ingest import new_id
from audit_service.signing.keyfile import Change, Keys, SigningKey, make_key, overlap_end
from audit_service.signing.lease import Signing
from audit_service.store import signing as store
from audit_service.store.signing import SignedLog

log = structlog.get_logger("audit_service.signer")
# What a command says of each of its steps; tests stop it there.
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change of keys came to: how many logs got entries now, and until when the old key signs (None: it no longer does)."""

    new: SigningKey
    logs: int
    until: datetime | None


def succession_text(origin: str, old: str, new: str, from_size: int) -> bytes:
    """What both keys sign."""
    return f"audit-service/succession/v1\n{origin}\n{old}\n{new}\n{from_size}\n".encode()


async def rotate(signing: Signing, *, overlap_days: int, reason: str, report: Report = lambda _step: None) -> Changed:
    """A new key succeeds the present one, which signs for `overlap_days` more. Raises InputError while an earlier change is not over."""
    async with signing.folder.turn():
        await signing.require_lease()
        keys = signing.keys()
        if keys.pending == "revoked":
            raise InputError("a revocation is not finished: run `keys revoke-signing` again")
        if keys.pending is None:
            ending = next((key for key in keys.signing if key.retired_at is not None), None)
            if ending is not None:
                raise InputError(f"the key before still signs until {ending.retired_at:%Y-%m-%d %H:%M} UTC")
            keys = _begin(signing, keys, "succeeded", report)
        old, new = keys.signing[-2:]
        logs = await _enter(signing, keys, [old], new, reason, report)
        await _lease_to(signing, keys, new)
        report("the database asks for the new key")
        until = overlap_end(datetime.now(UTC), overlap_days)
        signing.replace_keys(replace(keys.with_end(old.public, until), pending=None))
        return Changed(new, logs, until)


async def revoke(signing: Signing, *, reason: str, report: Report = lambda _step: None) -> Changed:
    """A new key replaces every key that signs: what leaked with the key file leaked as a whole. Their seeds are destroyed."""
    async with signing.folder.turn():
        await signing.require_lease()
        keys = signing.keys()
        if keys.pending != "revoked":
            keys = _begin(signing, keys, "revoked", report)
        *revoked, new = keys.signing
        logs = await _enter(signing, keys, revoked, new, reason, report)
        await _lease_to(signing, keys, new)
        report("the database asks for the new key")
        gone = keys.without(datetime.now(UTC), *(key.public for key in revoked))
        signing.replace_keys(replace(gone, pending=None))
        return Changed(new, logs, None)


async def destroy_expired(signing: Signing) -> None:
    """Destroy the seeds of succeeded keys whose overlap is over."""
    if not signing.keys().expired(datetime.now(UTC)):
        return
    async with signing.folder.turn():
        keys = signing.keys()
        now = datetime.now(UTC)
        gone = keys.expired(now)
        try:
            signing.replace_keys(keys.without(now, *gone))
        except OSError as error:
            log.warning("the key file cannot be rewritten: a key that is over still signs", why=error.strerror)
            return
    log.info("a succeeded key has stopped signing; its seed is destroyed", keys=[public.hex()[:16] for public in gone])


def _begin(signing: Signing, keys: Keys, change: Change, report: Report) -> Keys:
    """Step 1."""
    begun = replace(keys.added(make_key(datetime.now(UTC))), pending=change)
    signing.replace_keys(begun)
    report("the new key is in the key file")
    return begun


async def _enter(
    signing: Signing, keys: Keys, old: Sequence[SigningKey], new: SigningKey, reason: str, report: Report
) -> int:
    """Step 2; how many logs got an entry now."""
    assert keys.pending is not None  # noqa: S101 - step 1 said what is under way
    service_name, logs = await store.list_signed_logs(signing.database.reads)
    entered = 0
    for target in logs:
        bodies = await store.list_control_bodies(signing.database.reads, target.log_id, "signer")
        known = [cast("dict[str, Any]", orjson.loads(body)["details"]) for body in bodies]
        missing = [key for key in old if not any(_says(item, keys.pending, key, new) for item in known)]
        for key in missing:
            await _append(signing, keys, target, service_name, key, new, reason)
        entered += bool(missing)
        report(f"{target.tenant} has its entry")
    return entered


async def _append(
    signing: Signing, keys: Keys, target: SignedLog, service_name: str, old: SigningKey, new: SigningKey, reason: str
) -> None:
    head = await store.fetch_stored_head(signing.database.reads, target.log_id)
    origin = format_origin(service_name, target.log_key, head.epoch)
    state = signing.folder.log(target.log_key).read_state(keys)
    from_size = 0 if state is None else state.checkpoint.size
    old_named, new_named = [format_vkey(key.verifier(origin)).partition("+")[2] for key in (old, new)]
    text = succession_text(origin, old_named, new_named, from_size)
    signatures = [key.signer(origin).private_key.sign(text) for key in (old, new)]
    assert keys.pending is not None  # noqa: S101 - as above
    entry = control.signer(
        act("cli", reason), keys.pending, old=old_named, new=new_named, from_size=from_size, succession=signatures
    )
    await signing.require_lease()  # many logs take long
    await store.record_signer(signing.database.writes, target.log_id, signing.holder, entry)


def act(by: str, reason: str) -> Act:
    """Who acts now, and why."""
    return Act(by, reason, datetime.now(UTC), new_id(), urandom(ENTROPY_BYTES))


def _says(details: dict[str, Any], change: Change, old: SigningKey, new: SigningKey) -> bool:
    """Whether a `signer` entry records this change. Key ids differ between epochs, keys do not."""
    publics = [format_vkey(key.verifier("any")).rpartition("+")[2] for key in (old, new)]
    told = [str(details.get(name, "")).rpartition("+")[2] for name in ("old", "new")]
    return details["event"] == change and told == publics


async def _lease_to(signing: Signing, keys: Keys, new: SigningKey) -> None:
    """Step 3."""
    await signing.require_lease()
    for key in keys.signing[:-1]:
        if await signing.asks_for(key):
            await store.change_key(signing.database.writes, signing.holder, key.public, new.public)
