"""Those who look at an installation after an attack, and what each finds (`case` says what each of them knows)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import orjson

from audit_service.core.vkey import VerifierKey, format_vkey
from audit_service.drill.case import (
    HOLE,
    INCOMPLETE,
    NO_ARCHIVE,
    NO_LOG,
    NOT_THERE,
    REFUSED,
    Committed,
    Kinds,
    Observer,
    kinds,
)
from audit_service.drill.sample import SOURCE
from audit_service.drill.scratch import Scratch
from audit_service.drill.twins import make_bundle
from audit_service.errors import NotSignedError, SigningRefusedError, TreeDamagedError
from audit_service.offline import verify_file
from audit_service.signing.folder import SigningStateError
from audit_service.signing.keyfile import KeyFileError
from audit_service.signing.lease import OtherKeyError
from audit_service.store import credentials
from audit_service.store.engine import bound, connected
from audit_service.store.failures import translated
from audit_service.store.sources import list_sources
from audit_service.verify import Report, final_report, verify


@dataclass(frozen=True, slots=True)
class Seen:
    """What one of them found. `seq`: the first place named, where there is one; `said`: why, for a person."""

    found: Kinds
    seq: int | None = None
    said: str | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """An installation after an attack, and what came of it. `pinned`: the drill's key under every epoch's name, from before."""

    scratch: Scratch
    committed: Committed
    pinned: Sequence[VerifierKey]

    @property
    def keys(self) -> Sequence[VerifierKey]:
        """The keys that are trusted."""
        return self.committed.keys or self.pinned

    @property
    def published(self) -> Sequence[VerifierKey]:
        """Every key that ever signed, as `keys list-signing` tells whoever asks: a revoked key appoints no successor."""
        origins = {key.name for key in self.pinned}
        return [key for origin in sorted(origins) for key in self.scratch.signing.keys().verifiers(origin)]

    async def by_chain(self) -> Seen:
        """The stored log by itself. Of a log that is not there any more, nobody asks."""
        if not await self._has_log():
            return Seen(kinds())
        return _seen(await self._verify([]))

    async def by_checkpoint(self) -> Seen:
        """With the last checkpoint from outside the database."""
        return await self._against([self.committed.note or self.scratch.notes[-1]])

    async def by_copies(self) -> Seen:
        """With the checkpoints that others keep."""
        return await self._against(self.committed.copies or self.scratch.notes)

    async def by_signer(self) -> Seen:
        """The signer's next round."""
        try:
            await self.scratch.sign()
        except (SigningRefusedError, SigningStateError, KeyFileError, OtherKeyError) as error:
            return Seen(kinds(REFUSED), said=error.detail)
        return Seen(kinds())

    async def by_bundle(self) -> Seen:
        """The offline verifier, with a bundle of the whole log or the one that came of the attack."""
        path = self.scratch.folder / "bundle.zip"
        try:
            path.write_bytes(self.committed.bundle or await make_bundle(self.scratch))
        except (NotSignedError, TreeDamagedError) as error:
            return Seen(kinds(REFUSED), said=error.detail)
        return await asyncio.to_thread(
            _offline, path, [format_vkey(key) for key in self.committed.keys or self.published]
        )

    async def by_sources(self) -> Seen:
        """Numbers of producers that are missing."""
        log_id = self.scratch.log.log_id
        async with translated(), bound(self.scratch.serving.reads, log_id, one_snapshot=True) as connection:
            page = await list_sources(connection, log_id, [f"{SOURCE}-numbered"], limit=1)
        holes = [hole for source in page.sources for hole in source.holes.listed]
        return Seen(kinds(HOLE) if holes else kinds(), said=f"numbers {holes}" if holes else None)

    async def by_receipt(self) -> Seen:
        """The entry that a receipt names."""
        seq, digest = self.scratch.receipt
        found = await self.scratch.admin.fetchval(
            "SELECT hash FROM audit.entry WHERE log_id = $1 AND seq = $2", self.scratch.log.log_id, seq
        )
        if found == digest:
            return Seen(kinds())
        return Seen(kinds(NOT_THERE), seq, "another entry, or none, stands where one was acknowledged")

    async def by_archive(self) -> Seen:
        """The files the operator kept, held against the digest in the log."""
        body = await self.scratch.admin.fetchval(
            "SELECT body FROM audit.entry WHERE log_id = $1 AND kind = 'prune' ORDER BY seq DESC LIMIT 1",
            self.scratch.log.log_id,
        )
        wanted = orjson.loads(body)["details"]["archive"]
        kept = {sha256(path.read_bytes()).hexdigest() for path in self.scratch.folder.glob("archive*")}
        return Seen(kinds()) if wanted in kept else Seen(kinds(NO_ARCHIVE), said=f"no file has the SHA-256 {wanted}")

    async def _against(self, notes: Sequence[str]) -> Seen:
        if not await self._has_log():
            return Seen(kinds(NO_LOG), said="no tenant has the log of this checkpoint")
        return _seen(await self._verify(notes))

    async def _has_log(self) -> bool:
        async with translated(), connected(self.scratch.serving.reads) as connection:
            return await credentials.find_log_id(connection, self.scratch.log.log_key) is not None

    async def _verify(self, notes: Sequence[str]) -> Report:
        trusted = self.keys if notes else ()
        return await final_report(
            verify(self.scratch.serving.reads, self.scratch.log.log_id, checkpoints=notes, trusted=trusted)
        )


OBSERVERS: Mapping[Observer, Callable[[Scene], Awaitable[Seen]]] = {
    "chain": Scene.by_chain,
    "checkpoint": Scene.by_checkpoint,
    "elsewhere": Scene.by_copies,
    "bundle": Scene.by_bundle,
    "sources": Scene.by_sources,
    "receipt": Scene.by_receipt,
    "archive": Scene.by_archive,
    "signer": Scene.by_signer,  # the last: it changes what is there
}


def _seen(report: Report) -> Seen:
    found = {item.kind for item in report.breaks}
    seq = min((item.seq for item in report.breaks), default=None)
    said = next((one.detail for one in report.checkpoints if one.status != "consistent"), None)
    if report.status == "incomplete":
        return Seen(kinds(*found, INCOMPLETE), seq, said or "; ".join(report.not_checked))
    return Seen(kinds(*found), seq, said)


def _offline(path: Path, vkeys: Sequence[str]) -> Seen:
    report = verify_file.verify(path, vkeys, processes=1)
    failed = {name: check for name, check in report.checks().items() if check.verdict == "fail"}
    said = report.unreadable or next((check.reason for check in failed.values()), None)
    if report.exit_code() == verify_file.EXIT_UNKNOWN:
        return Seen(kinds(INCOMPLETE), said=said)
    return Seen(kinds(*failed), said=said)
