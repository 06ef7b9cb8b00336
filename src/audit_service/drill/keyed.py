"""Attacks with a signing key: the operator's own (A7, A8), a stolen one (A14), and a wrong one in its place."""

import secrets
import shutil
from dataclasses import replace

from audit_service.core.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from audit_service.core.merkle import Frontier
from audit_service.core.note import format_note, parse_note
from audit_service.core.vkey import Signer, VerifierKey
from audit_service.drill.case import Committed
from audit_service.drill.dba import Dba, forge_value
from audit_service.drill.rewriting import rehash_suffix
from audit_service.drill.scratch import Scratch
from audit_service.drill.twins import make_bundle, rotate_key, sign_now
from audit_service.signing import rotation
from audit_service.signing.keyfile import Keys, ensure_keys
from audit_service.store.signing import fetch_stored_head


async def rewrite_and_sign(scratch: Scratch) -> Committed:
    """Who has the database and the signing folder rewrites the log, forgets what was signed, and signs anew."""
    await rehash_suffix(scratch)
    await _forget_signed(scratch)
    return Committed(note=await sign_now(scratch))


async def show_two_views(scratch: Scratch) -> Committed:
    """Two customers are shown two logs of the same size, each signed: the second one is stored now, the first customer has a checkpoint."""
    first = await sign_now(scratch)
    dba = await Dba.take(scratch)
    seq = await dba.find_fresh(scratch)
    await forge_value(dba, seq)
    await dba.rehash(seq)
    await _forget_signed(scratch)
    return Committed(note=await sign_now(scratch), copies=(first,))


async def _forget_signed(scratch: Scratch) -> None:
    """Everything the signer remembers of the log, and what it has published."""
    shutil.rmtree(scratch.folder / "logs" / scratch.log.log_key)
    dba = await Dba.take(scratch)
    for table in ("checkpoint", "tile"):
        await dba.admin.execute(f"DELETE FROM audit.{table} WHERE log_id = $1", scratch.log.log_id)  # noqa: S608 - our own names


async def forge_with_stolen_key(scratch: Scratch) -> Committed:
    """A thief of key and database rewrites the log and signs a checkpoint of it; the signer's folder is out of reach."""
    key = scratch.signing.keys()
    await rehash_suffix(scratch)
    return Committed(note=await _forged(scratch, key))


async def forge_with_revoked_key(scratch: Scratch) -> Committed:
    """The same after the key was revoked: nobody who verifies the log's entries takes what it signs from then on."""
    stolen = scratch.signing.keys()
    await rotation.revoke(scratch.signing, reason="drill")
    await sign_now(scratch)
    await scratch.append(1)
    return Committed(note=await _forged(scratch, stolen), keys=_trusted(scratch, scratch.signing.keys()))


async def forge_with_retired_key(scratch: Scratch) -> Committed:
    """A key that was succeeded, and whose overlap is over, signs alone what comes later; its thief owns the database as well, and gives
    out a bundle under that checkpoint. Whoever pinned the key that is in force does not take it."""
    stolen = scratch.signing.keys()
    await rotate_key(scratch)
    await scratch.append(1)
    note, dba = await _forged(scratch, stolen), await Dba.take(scratch)
    await dba.change(
        "INSERT INTO audit.checkpoint (log_id, size, epoch, note) VALUES ($1, $2, 1, $3)",
        *(parse_checkpoint(parse_note(note).text).size, note),
    )
    keys = _trusted(scratch, scratch.signing.keys())
    return Committed(note=note, keys=keys, bundle=await make_bundle(scratch))


async def swap_key(scratch: Scratch) -> Committed:
    """The key file is replaced by one with a key of the attacker's."""
    path = scratch.signing.key_path
    path.unlink()
    ensure_keys(path)
    return Committed()


async def sign_with_strange_key(scratch: Scratch) -> Committed:
    """A checkpoint of a rewritten log, signed with a key of the attacker's under the log's name."""
    await rehash_suffix(scratch)
    checkpoint = await _checkpoint(scratch)
    stranger = Signer.from_seed(checkpoint.origin, secrets.token_bytes(32))
    return Committed(note=format_note(sign_checkpoint(checkpoint, [stranger])))


async def show_note_of_another_log(scratch: Scratch) -> Committed:
    """A cut log, and a genuine checkpoint of the other tenant's log that would fit its size."""
    dba = await Dba.take(scratch)
    await dba.cut(scratch.signed - 1)
    origin = f"{scratch.other.service_name}/t/{scratch.other.log_key}/1"
    checkpoint = replace(await _checkpoint(scratch), origin=origin)
    return Committed(note=format_note(sign_checkpoint(checkpoint, scratch.signing.keys().signers(origin))))


async def edit_note(scratch: Scratch) -> Committed:
    """A rewritten log, and the last checkpoint edited to fit; its signature is what it was."""
    await rehash_suffix(scratch)
    checkpoint = await _checkpoint(scratch)
    fitting = sign_checkpoint(checkpoint, scratch.signing.keys().signers(checkpoint.origin)).text
    return Committed(note=format_note(replace(parse_note(scratch.notes[-1]), text=fitting)))


async def _checkpoint(scratch: Scratch) -> Checkpoint:
    """What an honest signer would say of the log as it is now, by its head row alone."""
    head = await fetch_stored_head(scratch.signing.database.reads, scratch.log.log_id)
    root = Frontier.from_bytes(head.size, head.frontier).root()
    return Checkpoint(f"{head.service_name}/t/{head.log_key}/{head.epoch}", head.size, root)


async def _forged(scratch: Scratch, keys: Keys) -> str:
    checkpoint = await _checkpoint(scratch)
    return format_note(sign_checkpoint(checkpoint, keys.signers(checkpoint.origin)[:1]))


def _trusted(scratch: Scratch, keys: Keys) -> list[VerifierKey]:
    """The key that signs now, under the log's name."""
    origin = f"{scratch.log.service_name}/t/{scratch.log.log_key}/1"
    return [keys.signing[-1].verifier(origin)]
