"""The lawful acts that look like attacks: real forgetting, real rotation, a real restore. Nobody may find anything in what they leave."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from audit_service import evidence, prune, retention
from audit_service.core import control
from audit_service.core.forgetting import Events, Person
from audit_service.core.note import parse_note
from audit_service.drill.case import Committed
from audit_service.drill.dba import Dba
from audit_service.drill.sample import sample_event
from audit_service.drill.scratch import EARLY_SIZES, Scratch
from audit_service.errors import HeldError
from audit_service.evidence import Wanted
from audit_service.ingest import new_id
from audit_service.retention import Author
from audit_service.signing import resume as resuming
from audit_service.signing import rotation
from audit_service.signing.folder import SigningFolder
from audit_service.signing.lease import Signing
from audit_service.store import retention as holds
from audit_service.store.tiles import TileCache
from audit_service.stored_tree import StoredTree

AUTHOR = Author("cli", "a drill")


async def sign_now(scratch: Scratch) -> str:
    """A checkpoint of the log as it is; the note."""
    note = await scratch.sign()
    assert note is not None  # noqa: S101 - a signer that has just started signs, or raises
    return note


async def make_bundle(scratch: Scratch, wanted: Wanted | None = None) -> bytes:
    """Evidence, as the service makes it for whoever asks. Raises NotSignedError, TreeDamagedError."""
    tree = StoredTree(
        scratch.serving.reads, scratch.log.log_id, f"{scratch.log.service_name}/t/{scratch.log.log_key}", TileCache()
    )
    plan = await evidence.plan_evidence(tree, wanted or Wanted())
    return b"".join([piece async for piece in evidence.make_evidence(tree, plan)])


async def do_nothing(scratch: Scratch) -> Committed:
    """A log that nobody touched."""
    return Committed(note=await sign_now(scratch))


async def go_on(scratch: Scratch) -> Committed:
    """More events, also of the other tenant."""
    await scratch.append(20)
    await scratch.append(5, scratch.other)
    return Committed(note=await sign_now(scratch))


async def rewrite_pages(scratch: Scratch) -> Committed:
    """The database's maintenance: every row and every index is written anew."""
    for table in ("entry", "receipt", "log", "checkpoint", "tile"):
        await scratch.admin.execute(f"VACUUM (FULL, ANALYZE) audit.{table}")
    return Committed(note=await sign_now(scratch))


async def send_again(scratch: Scratch) -> Committed:
    """A panel does not get its answer, and sends the same event twice: nothing is inserted, and nothing stands twice."""
    event = sample_event()
    first, again = [await scratch.send([event]) for _ in range(2)]
    if first[0].hash != again[0].hash:
        raise AssertionError("the event was stored twice")
    return Committed(note=await sign_now(scratch))


async def roll_back(scratch: Scratch) -> Committed:
    """A transaction that appends fails at its end: the tail is what it was, and the next entry takes that seq."""
    transaction = scratch.admin.transaction()
    await transaction.start()
    hold = control.hold_range(AUTHOR.act(), new_id(), (0, 1))
    seq = await Dba(scratch.admin, scratch.log).append_control(hold)
    await transaction.rollback()
    [receipt] = await scratch.append(1)
    if receipt.seq != seq:
        raise AssertionError("a rolled back append left a gap")
    return Committed(note=await sign_now(scratch))


async def give_tenant_up(scratch: Scratch) -> Committed:
    """All that can go of a tenant goes; its log is still there."""
    await prune_head(scratch)
    return await clear(scratch)


async def move_signer(scratch: Scratch) -> Committed:
    """Key and state of the signer are moved to another folder, where it goes on."""
    await scratch.release_lease()
    moved = scratch.folder / "moved"
    shutil.copytree(scratch.folder, moved, ignore=shutil.ignore_patterns("moved", "holder"))
    elsewhere = replace(scratch, signing=Signing(scratch.signing.database, SigningFolder(moved), moved / "key.json"))
    await scratch.append(3)
    note = await sign_now(elsewhere)
    await elsewhere.release_lease()
    return Committed(note=note)


async def show_two_sizes(scratch: Scratch) -> Committed:
    """Two customers hold checkpoints of one log, as it was at two times."""
    first = await sign_now(scratch)
    await scratch.append(3)
    second = await sign_now(scratch)
    return Committed(note=second, copies=(first, second))


async def send_late(scratch: Scratch) -> Committed:
    """What happened long ago is sent now, the newest first."""
    now = datetime.now(UTC)
    await scratch.send(
        [sample_event() | {"occurred_at": (now - timedelta(days=days)).isoformat()} for days in (1, 400)]
    )
    return Committed(note=await sign_now(scratch))


async def send_to_both(scratch: Scratch) -> Committed:
    """One event, with one id, is sent to two tenants."""
    event = sample_event()
    for log in (scratch.other, scratch.log):
        await scratch.send([event], log)
    return Committed(note=await sign_now(scratch))


async def clear(scratch: Scratch) -> Committed:
    """Every body is dropped."""
    await retention.clear(scratch.keeping, scratch.log.log_id, AUTHOR)
    return Committed(note=await sign_now(scratch))


async def clear_around_hold(scratch: Scratch) -> Committed:
    """Bodies are dropped, but for those under legal hold."""
    log_id, hold = scratch.log.log_id, new_id()
    await holds.set_hold(scratch.keeping.writes, log_id, control.hold_range(AUTHOR.act(), hold, (20, 40)))
    done = await retention.clear(scratch.keeping, log_id, AUTHOR, to_seq=EARLY_SIZES[1])
    if done.held != 20:
        raise HeldError(f"{done.held} of 20 entries were held")
    await holds.lift_hold(scratch.keeping.writes, log_id, control.lift_hold(AUTHOR.act(), hold))
    return Committed(note=await sign_now(scratch))


async def erase_events(scratch: Scratch) -> Committed:
    """Everything two events disclose is erased."""
    receipts = await scratch.append(2)
    subject = Events(frozenset(receipt.id for receipt in receipts))
    await retention.erase(scratch.keeping, scratch.log.log_id, AUTHOR, subject, reference=new_id())
    return Committed(note=await sign_now(scratch))


async def erase_person(scratch: Scratch) -> Committed:
    """A person is erased wherever they acted, after some of it was dropped."""
    await scratch.append(30)
    row = await scratch.admin.fetchrow(
        "SELECT actor_id FROM audit.entry WHERE log_id = $1 AND actor_id IS NOT NULL ORDER BY seq LIMIT 1",
        scratch.log.log_id,
    )
    assert row is not None  # noqa: S101 - there are made-up events
    await retention.clear(scratch.keeping, scratch.log.log_id, AUTHOR, to_seq=EARLY_SIZES[0])
    await retention.erase(scratch.keeping, scratch.log.log_id, AUTHOR, Person(row["actor_id"]), reference=new_id())
    return Committed(note=await sign_now(scratch))


async def prune_head(scratch: Scratch) -> Committed:
    """The oldest entries leave the log, behind an archive that was verified."""
    archive = scratch.folder / "archive.zip"
    archive.write_bytes(await make_bundle(scratch, Wanted(0, EARLY_SIZES[1])))
    keys = scratch.signing.keys().verifiers(f"{scratch.log.service_name}/t/{scratch.log.log_key}/1")
    planned = await prune.plan(scratch.keeping, scratch.log.log_id, EARLY_SIZES[1], keys)
    await prune.prune(scratch.keeping, scratch.log.log_id, AUTHOR, planned, archive, keys)
    return Committed(note=await sign_now(scratch))


async def rotate_key(scratch: Scratch) -> Committed:
    """A new key succeeds the old one, which stops at once; who pinned the old one goes on with it."""
    await rotation.rotate(scratch.signing, overlap_days=0, reason="drill")
    await rotation.destroy_expired(scratch.signing)
    note = await sign_now(scratch)
    if len(parse_note(note).signatures) != 1:
        raise AssertionError("the old key still signs")
    return Committed(note=note)


async def revoke_key(scratch: Scratch) -> Committed:
    """Every key is replaced at once; the last checkpoint before stays good."""
    await rotation.revoke(scratch.signing, reason="drill")
    await sign_now(scratch)
    return Committed(note=scratch.notes[-1])


async def restore_and_resume(scratch: Scratch) -> Committed:
    """An older backup is restored, and an operator says so: the log goes on in a new epoch."""
    await scratch.restore_older()
    await scratch.signing.require_lease()
    await resuming.resume(scratch.signing, scratch.signed_log, reason="drill")
    await scratch.append(3)
    return Committed(note=await sign_now(scratch))


async def resume_again(scratch: Scratch) -> Committed:
    """The same backup is restored once more, from before that resume: what was signed since is lost as well, and never signed over."""
    lost = await restore_and_resume(scratch)
    again = await restore_and_resume(scratch)
    assert lost.note is not None  # noqa: S101 - it was signed
    return Committed(note=again.note, copies=[*scratch.notes, lost.note])
