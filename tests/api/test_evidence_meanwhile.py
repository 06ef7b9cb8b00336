"""Files on their way to a slow reader while the log goes on: its key is rotated or revoked, or some of what is sent is erased."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from audit_service import retention
from audit_service.core.forgetting import Events
from audit_service.core.vkey import format_vkey
from audit_service.offline import verify_file
from audit_service.signing import rotation
from audit_service.signing.lease import Signing
from tests.api.test_export_ends import becomes_quiet
from tests.support.forgetting import AUTHOR, REFERENCE, retention_pools
from tests.support.postgres import BOOTSTRAP_KEY, TestDatabase
from tests.support.serving import Served, Wire, served
from tests.support.signers import SignerLab, signer_lab

SIZE = 3000


async def _rotate(signing: Signing) -> None:
    """The old key stops at once."""
    await rotation.rotate(signing, overlap_days=0, reason="test")
    await rotation.destroy_expired(signing)


async def _revoke(signing: Signing) -> None:
    await rotation.revoke(signing, reason="test")


Change = Callable[[Signing], Awaitable[None]]
changes = pytest.mark.parametrize("change", [_rotate, _revoke])


@dataclass(frozen=True, slots=True)
class Bench:
    """A service with a log far larger than every buffer between it and a client, signed; one file at a time."""

    opened: Served
    signer: SignerLab
    database: TestDatabase
    path: Path

    def vkey(self) -> str:
        """The key that signs now."""
        log = self.signer.log.log
        origin = f"{log.service_name}/t/{log.log_key}/1"
        return format_vkey(self.signer.signing.keys().signing[-1].verifier(origin))

    async def begin(self, wire: Wire, path: str) -> None:
        """Ask for a file, and see that it is on its way and stays there."""
        await wire.send(
            f"GET {path} HTTP/1.1\r\nHost: audit.test\r\nAuthorization: Bearer {BOOTSTRAP_KEY}\r\n\r\n".encode()
        )
        assert (await wire.head())[0] == 200
        await self.require_under_way()

    async def require_under_way(self) -> None:
        """The only place is taken: the file has not ended."""
        assert (await self.opened.api.client.get("/v1/export?action=none")).status_code == 503

    async def later(self) -> bytes:
        """A bundle under the next checkpoint."""
        await becomes_quiet(self.opened.api.service)
        await self.signer.sign()
        response = await self.opened.api.client.get("/v1/evidence")
        assert response.status_code == 200, response.text
        return response.content

    def verdict(self, bundle: bytes, vkey: str) -> int:
        """What the offline verifier exits with."""
        self.path.write_bytes(bundle)
        return verify_file.verify(self.path, (vkey,), processes=1).exit_code()


@pytest.fixture
async def bench(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Bench]:
    async with served(database, exports_limit=1) as opened, signer_lab(database, tmp_path / "signing") as signer:
        for start in range(0, SIZE, 500):
            many = [
                {"id": f"e-{seq}", "action": "x", "description": sha256(str(seq).encode()).hexdigest() * 20}
                for seq in range(start, start + 500)
            ]
            assert (await opened.api.client.post("/v1/events", json=many)).status_code == 201
        await signer.sign()
        yield Bench(opened, signer, database, tmp_path / "evidence.zip")


async def take(wire: Wire, pieces: list[bytes]) -> None:
    """Read an answer to its end, keeping what came."""
    async for piece in wire.pieces():
        pieces.append(piece)  # noqa: PERF401 - it may break off


@changes
async def test_a_key_that_goes_while_evidence_is_sent_harms_it_not(bench: Bench, change: Change) -> None:
    """The bundle is under the checkpoint it began with: good to whoever pinned the key of that time, and not to whoever pinned only the
    next one (decision 0014). The next bundle brings a succession with it; a revoked key appoints nobody."""
    first = bench.vkey()
    async with bench.opened.wire(small=True) as wire:
        await bench.begin(wire, "/v1/evidence")
        await change(bench.signer.signing)
        await bench.signer.sign()
        await bench.require_under_way()
        bundle = b"".join([piece async for piece in wire.pieces()])
    second = bench.vkey()
    assert second != first
    assert bench.verdict(bundle, first) == verify_file.EXIT_GOOD
    assert bench.verdict(bundle, second) == verify_file.EXIT_BAD
    later = await bench.later()
    assert bench.verdict(later, second) == verify_file.EXIT_GOOD
    assert (bench.verdict(later, first) == verify_file.EXIT_GOOD) == (change is _rotate)


@changes
async def test_a_key_that_goes_while_an_export_is_sent_harms_it_not(bench: Bench, change: Change) -> None:
    async with bench.opened.wire(small=True) as wire:
        await bench.begin(wire, "/v1/export?format=ndjson&action=x")
        await change(bench.signer.signing)
        await bench.signer.sign()
        await bench.require_under_way()
        *events, trailer = [json.loads(line) async for line in wire.lines()]
    assert (trailer["count"], trailer["complete"]) == (SIZE, True)
    assert sorted(event["seq"] for event in events) == list(range(SIZE))


@pytest.mark.parametrize("seq", [0, SIZE - 1])
async def test_what_is_erased_while_evidence_is_sent_breaks_it_off(bench: Bench, seq: int) -> None:
    """Whether it was sent already or is still to come: the download ends without its last chunk, and what came is not called good. Under
    the next checkpoint there is a bundle again."""
    pieces: list[bytes] = []
    async with bench.opened.wire(small=True) as wire, retention_pools(bench.database) as keeping:
        await bench.begin(wire, "/v1/evidence")
        subject = Events(frozenset({f"e-{seq}"}))
        done = await retention.erase(keeping, bench.signer.log.log_id, AUTHOR, subject, reference=REFERENCE)
        assert done.values == 1
        await bench.require_under_way()
        with pytest.raises(asyncio.IncompleteReadError):
            await take(wire, pieces)
    assert bench.verdict(b"".join(pieces), bench.vkey()) == verify_file.EXIT_UNKNOWN
    assert bench.verdict(await bench.later(), bench.vkey()) == verify_file.EXIT_GOOD
