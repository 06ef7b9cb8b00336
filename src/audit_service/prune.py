"""Stage two of forgetting: entries below a cut leave the log whole, headers and all (DESIGN 2.1; decision 0013).

1. *Cut.* The greatest signed size at or below what is asked for whose last entry is in a stored tile: tiles stay, so later proofs and tiles
   need nothing of what goes. A log is never pruned whole.
2. *Archive.* An evidence bundle of exactly [the cut before, this cut), made beforehand, which the offline verifier accepts under a key that
   is given from outside; and whose entries, hash by hash, lead to the root that was signed at the cut.
3. *Drop.* What still has content below the cut loses it, as `clear` does. What a legal hold keeps stops the prune here, before anything
   is lost: only a hold that is set meanwhile can stop it halfway.
4. *Record.* The `prune` entry: all that a verifier needs to begin at the cut. From now on the log begins there.
5. *Delete* the rows, some at a time, then take them out of the search index.

A prune that was killed after step 4 is finished by the next one, or by the keeper.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import file_digest
from pathlib import Path
from typing import BinaryIO, cast
from zipfile import ZipFile

from audit_service import retention
from audit_service.core import control
from audit_service.core.archive import ArchiveTrace
from audit_service.core.checkpoint import open_checkpoint
from audit_service.core.control import Cut
from audit_service.core.entry import JSONObject
from audit_service.core.note import parse_note
from audit_service.core.vkey import VerifierKey, format_vkey, parse_vkey
from audit_service.errors import HeldError, InputError, MovedOnError, ProofError
from audit_service.offline import verify_file
from audit_service.retention import Author, Forgotten, Report
from audit_service.store import forgetting, pruning
from audit_service.store.checkpoints import StoredCheckpoint
from audit_service.store.engine import Database
from audit_service.store.failures import translated
from audit_service.store.pruning import Recorded

_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be pruned: [from_seq, cut), and the checkpoint it rests on. An archive has to hold exactly that."""

    from_seq: int
    cut: int
    root: bytes
    checkpoint: StoredCheckpoint
    recorded: Recorded


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune did. `dropped`: step 3; `seq`: of the `prune` entry; `deleted`: rows that went."""

    from_seq: int
    cut: int
    dropped: Forgotten
    seq: int
    deleted: int


async def plan(database: Database, log_id: int, before: int | datetime, keys: Sequence[VerifierKey]) -> Plan:
    """Step 1. `before`: a seq, or when entries were recorded; `keys`: trusted to have signed checkpoints of this log. Raises InputError
    when nothing was signed that could be pruned."""
    async with translated():
        await finish(database, log_id)
        from_seq = await pruning.fetch_pruned_before(database.reads, log_id)
        size = await forgetting.first_recorded(database.reads, log_id, None)
        end = before if isinstance(before, int) else await forgetting.first_recorded(database.reads, log_id, before)
        recorded = await pruning.fetch_recorded(database.reads, log_id)
        cuts = await pruning.list_cuts(database.reads, log_id, from_seq, min(end, size), recorded.lost)
    for stored in cuts:
        try:
            opened = open_checkpoint(parse_note(stored.note), keys)
        except ProofError:  # by a key that is not trusted: an older one may do
            continue
        if opened.checkpoint.size == stored.size:
            return Plan(from_seq, stored.size, opened.checkpoint.root, stored, recorded)
    raise InputError(
        f"nothing to prune: no checkpoint by a trusted key lies behind seq {from_seq}, at or below what is asked for, and in full tiles"
    )


async def prune(
    database: Database,
    log_id: int,
    author: Author,
    planned: Plan,
    archive: Path,
    keys: Sequence[VerifierKey],
    *,
    report: Report = lambda _: None,
) -> Pruned:
    """Steps 2 to 5. Raises InputError for an archive that is not what it must be, HeldError for entries under legal hold."""
    traced, digest = await asyncio.to_thread(check_archive, planned, archive, keys)
    async with translated():
        _require_free(await pruning.count_held(database.reads, log_id, planned.cut), planned.cut)
    dropped = await retention.clear(database, log_id, author, to_seq=planned.cut, policy="prune", report=report)
    _require_free(dropped.held, planned.cut)
    entry = control.prune(author.act(), _cut_of(planned, traced, digest, keys))
    async with translated():
        entered = await pruning.prune_log(database.writes, log_id, entry)
        deleted = await finish(database, log_id)
    return Pruned(planned.from_seq, planned.cut, dropped, entered.seq, deleted)


def _require_free(held: int, cut: int) -> None:
    if held:
        raise HeldError(f"{held} entries below {cut} are under legal hold; nothing was pruned")


async def finish(database: Database, log_id: int) -> int:
    """Step 5, also of a prune that was killed; how many rows went."""
    deleted = 0
    if await pruning.has_pruned_rows(database.reads, log_id):
        while some := await pruning.delete_some(database.writes, log_id):
            deleted += some
    for number in await pruning.list_stale_segments(database.reads, log_id):
        await _rebuild(database, log_id, number)
    return deleted


async def _rebuild(database: Database, log_id: int, number: int) -> None:
    for _ in range(_ATTEMPTS):
        try:
            async with translated():
                return await pruning.rebuild_segment(database.reads, database.writes, log_id, number)
        except MovedOnError:
            continue
    raise MovedOnError("the log keeps moving on; run it again", 30)


def check_archive(planned: Plan, archive: Path, keys: Sequence[VerifierKey]) -> tuple[ArchiveTrace, bytes]:
    """Step 2: what follows from the archive's entries, and its SHA-256. Raises InputError."""
    try:
        with archive.open("rb") as file:
            digest = file_digest(file, "sha256").digest()
        report = verify_file.verify(archive, [format_vkey(key) for key in keys])
        if report.exit_code() != verify_file.EXIT_GOOD:
            raise InputError(f"the archive does not verify; see `audit-service verify-file {archive.name}`")
        with archive.open("rb") as file:
            traced = _traced(planned, file)
            file.seek(0)
            if file_digest(file, "sha256").digest() != digest:
                raise InputError("the archive was changed while it was read")
    except OSError as error:
        raise InputError(f"the archive cannot be read: {error.strerror}") from None
    return traced, digest


def _traced(planned: Plan, file: BinaryIO) -> ArchiveTrace:
    wanted = f"[{planned.from_seq}, {planned.cut})"
    with ZipFile(file) as bundle:
        manifest = json.loads(bundle.read("manifest.json"))
        if (manifest["from_seq"], manifest["to_seq"], manifest["filters"]) != (planned.from_seq, planned.cut, None):
            raise InputError(
                f"the archive must hold exactly {wanted}: `audit-service evidence --from-seq … --to-seq …`"
            )
        traced = ArchiveTrace(planned.from_seq, _frontier_before(planned))
        with bundle.open("entries.ndjson") as lines:
            for line in lines:
                traced.take(json.loads(line)["header"])
    if traced.size != planned.cut or traced.root() != planned.root:
        raise InputError(f"the entries of the archive do not lead to the root that was signed at {planned.cut}")
    return traced


def _frontier_before(planned: Plan) -> bytes:
    """The hashes of the entries that earlier cuts took, as the last of them recorded."""
    if planned.from_seq == 0:
        return b""
    if planned.recorded.prune is None or planned.recorded.prune["cut"] != planned.from_seq:
        raise InputError(f"the log is cut at {planned.from_seq}, and no `prune` entry says so: verify it")
    return bytes.fromhex(cast("str", planned.recorded.prune["frontier"]))


def _cut_of(planned: Plan, traced: ArchiveTrace, archive_hash: bytes, keys: Sequence[VerifierKey]) -> Cut:
    return Cut(
        cut=planned.cut,
        root=traced.root(),
        frontier=traced.frontier(),
        prev_hash=traced.last_hash,
        last_recorded_at_us=traced.last_recorded_at_us,
        epoch=traced.epoch,
        count=planned.cut - planned.from_seq,
        first_at=traced.first_at,
        last_at=traced.last_at,
        checkpoint=planned.checkpoint.note,
        archive=archive_hash,
        signers=_signers(planned, keys),
        successions=_successions(planned),
    )


def _successions(planned: Plan) -> list[JSONObject]:
    """Those of the cut before, and what `signer` entries say that are still there: without them the first key would lead nowhere."""
    before = planned.recorded.prune or {}
    known = cast("list[JSONObject]", before.get("successions", []))
    return [*known, *(said for said in planned.recorded.signers if said not in known)]


def _signers(planned: Plan, keys: Sequence[VerifierKey]) -> list[str]:
    """The keys that signed so far, in order, each as `<key id>+<base64>`: those of the cut before, those that `signer` entries below this
    one name, and whoever signed at the cut."""
    known = [] if planned.recorded.prune is None else cast("list[str]", planned.recorded.prune["signers"])
    for said in planned.recorded.signers:
        if cast("int", said["from_size"]) <= planned.cut:
            known = [*known, *(cast("str", said[side]) for side in ("old", "new") if side in said)]
    opened = open_checkpoint(parse_note(planned.checkpoint.note), keys)
    signed = [format_vkey(one.key).partition("+")[2] for one in opened.signatures]
    return list(dict.fromkeys([*known, *signed]))


def parse_keys(texts: Sequence[str]) -> list[VerifierKey]:
    """vkeys. Raises TrustInputError."""
    return [parse_vkey(text) for text in texts]
