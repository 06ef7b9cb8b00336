"""`/tlog/…` against a client that knows only the specification (C2SP tlog-tiles), and what it may not be asked for."""

import base64
import gzip
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import asyncpg
import httpx
import pytest

from audit_service import tlog
from audit_service.core.control import Act, Cut, prune
from audit_service.core.merkle import Frontier
from audit_service.store.credentials import DEFAULT_TENANT
from tests.support.api import Api
from tests.support.appends import owner
from tests.support.apps import add_key, add_tenant, open_api
from tests.support.postgres import TestDatabase, default_log_id
from tests.support.signing import TestSigner, seed_headers, tree_root

SIZE = 256 * 3 + 100


class Client:
    """A client of tiled logs, written from the specification: it fetches static resources and believes only what it has hashed."""

    def __init__(self, http: httpx.AsyncClient, prefix: str) -> None:
        self._http, self._prefix = http, prefix
        self.asked: list[str] = []

    async def fetch(self, path: str) -> bytes:
        """A resource."""
        self.asked.append(path)
        response = await self._http.get(f"{self._prefix}/{path}", headers={"Accept-Encoding": "gzip, identity"})
        assert response.status_code == 200, (path, response.text)
        return response.content

    async def checkpoint(self) -> tuple[str, int, bytes]:
        """Origin, size and root of the signed tree head."""
        origin, size, root = (await self.fetch("checkpoint")).decode().split("\n\n")[0].split("\n")
        return origin, int(size), base64.b64decode(root)

    async def tile(self, level: int, number: int, width: int) -> list[bytes]:
        """The hashes of a tile."""
        data = await self.fetch(f"tile/{level}/{self.place(number, width)}")
        assert len(data) == 32 * width
        return [data[at : at + 32] for at in range(0, len(data), 32)]

    async def entries(self, number: int, width: int) -> list[bytes]:
        """The entries of a bundle."""
        data, found = await self.fetch(f"tile/entries/{self.place(number, width)}"), []
        while data:
            length = data[0] << 8 | data[1]
            found.append(data[2 : 2 + length])
            data = data[2 + length :]
        assert len(found) == width
        return found

    async def all_entries(self, size: int) -> list[bytes]:
        """Every entry of the log."""
        return [entry for number, width in self.row(size, 0) for entry in await self.entries(number, width)]

    @staticmethod
    def row(size: int, level: int) -> list[tuple[int, int]]:
        """(number, width) of the tiles of a level."""
        hashes = size // 256**level
        full = [(number, 256) for number in range(hashes // 256)]
        return [*full, (hashes // 256, hashes % 256)] if hashes % 256 else full

    @staticmethod
    def place(number: int, width: int) -> str:
        """A number in groups of three digits, and the width of a partial tile."""
        digits = str(number).zfill(-(-len(str(number)) // 3) * 3)
        groups = re.findall("...", digits)
        path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        return path if width == 256 else f"{path}.p/{width}"


def over(hashes: list[bytes]) -> bytes:
    """The hash over a full tile."""
    while len(hashes) > 1:
        hashes = [sha256(b"\x01" + hashes[at] + hashes[at + 1]).digest() for at in range(0, len(hashes), 2)]
    return hashes[0]


async def prefix_of(admin: asyncpg.Connection, tenant: str = DEFAULT_TENANT) -> str:
    """Where a tenant's log is served."""
    return f"/tlog/{await admin.fetchval('SELECT log_key FROM audit.tenant WHERE name = $1', tenant)}"


@pytest.fixture(scope="module")
async def database(module_database: TestDatabase) -> TestDatabase:
    """A log of SIZE entries, signed at SIZE - 300 and at SIZE - 10, its tiles stored."""
    async with owner(module_database) as admin:
        log_id = await default_log_id(module_database)
        await seed_headers(admin, log_id, SIZE)
        signer = TestSigner(admin, log_id)
        await signer.store_tiles()
        await signer.sign(SIZE - 300)
        await signer.sign(SIZE - 10)
    return module_database


@pytest.fixture(name="api", scope="module")
async def _api(database: TestDatabase) -> AsyncIterator[Api]:
    """The app on it."""
    async with open_api(database) as opened:
        yield opened


@pytest.fixture(name="prefix", scope="module")
async def _prefix(database: TestDatabase) -> str:
    """Where the log is."""
    async with owner(database) as admin:
        return await prefix_of(admin)


async def test_a_client_of_the_specification_recomputes_the_root_from_the_entries(api: Api, prefix: str) -> None:
    client = Client(api.client, prefix)
    _, size, root = await client.checkpoint()
    assert size == SIZE - 10
    entries = await client.all_entries(size)
    assert tree_root(tuple(sha256(b"\x00" + entry).digest() for entry in entries)) == root
    assert all(entry.startswith(b"audit-service/entry/v1\n") for entry in entries)


async def test_every_tile_of_the_signed_tree_is_what_the_entries_hash_to(api: Api, prefix: str) -> None:
    client = Client(api.client, prefix)
    _, size, _ = await client.checkpoint()
    leaves = [sha256(b"\x00" + entry).digest() for entry in await client.all_entries(size)]
    below: list[bytes] = leaves
    for level in (0, 1):
        tiles = [await client.tile(level, number, width) for number, width in client.row(size, level)]
        assert [one for tile in tiles for one in tile] == below
        below = [over(tile) for tile in tiles if len(tile) == 256]
    assert client.row(size, 2) == []


async def test_partial_tiles_of_an_earlier_checkpoint_stay(api: Api, prefix: str) -> None:
    """The log has grown over them: what is asked for is the beginning of what is there now."""
    client = Client(api.client, prefix)
    earlier = SIZE - 300
    for level in (0, 1):
        number, width = client.row(earlier, level)[-1]
        wider = dict(client.row(SIZE - 10, level))[number]
        assert await client.tile(level, number, width) == (await client.tile(level, number, wider))[:width]


@pytest.mark.parametrize(
    "path",
    [
        "0/003.p/91",  # signed are 90 of it
        "0/003",
        "0/004.p/1",
        "1/000.p/4",
        "1/000",
        "1/001.p/1",
        "2/000.p/1",
        "63/000",
        "64/000",
        "00/000",
        "-1/000",
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/01",
        "0/0",
        "0/0000",
        "0/x000/000",
        "0/000/",
        "0/000.p/",
        "0/x999/x999/x999/x999/x999/x999/999",
        "0//000",
        "entries/003.p/91",
        "entries/003",
        "entries/0",
        "entries/",
        "entries",
        "0/٠٠٠",
        "0/000%00",
        "",
    ],
)
async def test_what_the_signed_tree_has_not_got_is_not_found(api: Api, prefix: str, path: str) -> None:
    response = await api.client.get(f"{prefix}/tile/{path}")
    assert response.status_code == 404, response.text
    assert response.headers["cache-control"] == "no-store"


async def test_a_parameter_has_no_place_here(api: Api, prefix: str) -> None:
    for path in ("checkpoint", "tile/0/000", "tile/entries/000"):
        assert (await api.client.get(f"{prefix}/{path}?v=1")).status_code == 400


async def test_tiles_are_kept_for_good_and_checkpoints_for_seconds(api: Api, prefix: str) -> None:
    tile = await api.client.get(f"{prefix}/tile/0/000")
    assert tile.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert tile.headers["vary"] == "Authorization"
    assert tile.headers["content-type"] == "application/octet-stream"
    checkpoint = await api.client.get(f"{prefix}/checkpoint")
    assert checkpoint.headers["cache-control"] == "private, max-age=2"
    assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("x-gzip", False),
        ("", False),
    ],
)
async def test_packed_or_not_a_bundle_is_the_same_bytes(api: Api, prefix: str, accepted: str, packed: bool) -> None:
    request = api.client.build_request("GET", f"{prefix}/tile/entries/000", headers={"Accept-Encoding": accepted})
    response = await api.client.send(request, stream=True)
    raw = b"".join([piece async for piece in response.aiter_raw()])
    assert (response.headers.get("content-encoding") == "gzip") == packed
    assert response.headers["vary"] == "Authorization, Accept-Encoding"
    plain = gzip.decompress(raw) if packed else raw
    assert plain == await Client(api.client, prefix).fetch("tile/entries/000")


@pytest.fixture(scope="module")
async def other_key(database: TestDatabase) -> str:
    """A key of another tenant with every scope."""
    return await add_key(database, await add_tenant(database, "other"))


async def test_another_tenants_log_is_not_there(api: Api, prefix: str, other_key: str, database: TestDatabase) -> None:
    headers = {"Authorization": f"Bearer {other_key}"}
    for path in ("checkpoint", "tile/0/000", "tile/entries/000"):
        foreign = await api.client.get(f"{prefix}/{path}", headers=headers)
        missing = await api.client.get(f"/tlog/{'0' * 32}/{path}", headers=headers)
        assert foreign.status_code == missing.status_code == 404
        assert foreign.json() == missing.json()
        assert (await api.client.get(f"{prefix}/{path}", headers={"Authorization": ""})).status_code == 401
    async with owner(database) as admin:
        own = await prefix_of(admin, "other")
    answer = await api.client.get(f"{own}/checkpoint", headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (404, "nothing was signed yet")
    assert (await api.client.get(f"{own}/tile/0/000.p/1", headers=headers)).status_code == 404


async def test_a_key_without_the_scope_gets_nothing(api: Api, prefix: str, database: TestDatabase) -> None:
    key = await add_key(database, await default_log_id(database), ["read", "export", "ingest"])
    for path in ("checkpoint", "tile/0/000"):
        response = await api.client.get(f"{prefix}/{path}", headers={"Authorization": f"Bearer {key}"})
        assert response.status_code == 403


async def test_a_public_log_is_open_to_all_and_to_every_cache(database: TestDatabase, prefix: str) -> None:
    async with open_api(database, key="nobody", tlog_public=True) as public:
        client = Client(public.client, prefix)
        _, size, root = await client.checkpoint()
        leaves = tuple(sha256(b"\x00" + entry).digest() for entry in await client.all_entries(size))
        assert tree_root(leaves) == root
        tile = await public.client.get(f"{prefix}/tile/0/000")
        assert tile.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert "vary" not in tile.headers
        assert (await public.client.get(f"{prefix}/checkpoint")).headers["cache-control"] == "public, max-age=2"
        bundle = await public.client.get(f"{prefix}/tile/entries/000")
        assert bundle.headers["vary"] == "Accept-Encoding"
        assert (await public.client.get(f"/tlog/{'0' * 32}/checkpoint")).status_code == 404
        assert (await public.client.get("/tlog/%00/checkpoint")).status_code == 404
        assert (await public.client.get("/v1/chain/inclusion?seq=1")).status_code == 401


async def test_entry_headers_hold_nothing_that_was_sent(database: TestDatabase) -> None:
    """What may be public: nothing of an event but when it came and which number it has."""
    tenant = await add_tenant(database, "headers")
    async with open_api(database, key=await add_key(database, tenant)) as own, owner(database) as admin:
        await own.accept(
            {"id": "secret-id", "action": "secret.action", "actor": {"id": "secret"}, "server_id": "secret"}
        )
        await TestSigner(admin, tenant).sign()
        client = Client(own.client, await prefix_of(admin, "headers"))
        (entry,) = await client.entries(0, 1)
    assert b"secret" not in entry
    assert re.fullmatch(
        rb"audit-service/entry/v1\n\S+/t/[0-9a-f]{32}/1\n0\n[0-9]+\nevent\n[0-9a-f]{64}\n[0-9a-f]{64}\n", entry
    )


# --- logs that have changed: each of these makes its own ---


@pytest.fixture(name="own")
async def _own(server: Any) -> AsyncIterator[TestDatabase]:
    created = await server.create()
    yield created
    await server.drop(created)


@pytest.mark.parametrize(
    ("statement", "path"),
    [
        ("UPDATE audit.tile SET hashes = set_byte(hashes, 9, get_byte(hashes, 9) # 1) WHERE number = 0", "tile/0/000"),
        ("UPDATE audit.entry SET hash = sha256(hash) WHERE seq = 300", "tile/0/001.p/100"),
        ("DELETE FROM audit.entry WHERE seq = 300", "tile/0/001.p/100"),
        ("UPDATE audit.entry SET body_hash = sha256(hash) WHERE seq = 3", "tile/entries/000"),
        ("DELETE FROM audit.entry WHERE seq = 3", "tile/entries/000"),
        ("UPDATE audit.tile SET hashes = set_byte(hashes, 9, get_byte(hashes, 9) # 1)", "tile/1/000.p/1"),
    ],
)
async def test_a_damaged_tile_is_never_given_to_a_cache(
    own: TestDatabase, statement: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_api(own) as api, owner(own) as admin:
        log_id = await default_log_id(own)
        await seed_headers(admin, log_id, 356)
        signer = TestSigner(admin, log_id)
        await signer.store_tiles()
        await signer.sign()
        prefix = await prefix_of(admin)
        assert (await api.client.get(f"{prefix}/{path}")).status_code == 200
        await admin.execute("ALTER TABLE audit.entry DISABLE TRIGGER ALL")
        await admin.execute(statement)
        api.service.tile_cache.forget(log_id)
        response = await api.client.get(f"{prefix}/{path}")
        assert response.status_code == 500, response.text
        assert response.headers["cache-control"] == "no-store"
        # The control: unchecked it would go out (but where entries are missing, of which nothing can be made).
        monkeypatch.setattr(tlog, "_is_of", lambda *_: True)
        api.service.tile_cache.forget(log_id)
        unchecked = await api.client.get(f"{prefix}/{path}")
        assert unchecked.status_code == (500 if statement.startswith("DELETE") else 200)


async def test_a_log_that_grows_serves_what_was_signed_and_no_more(own: TestDatabase) -> None:
    async with open_api(own) as api, owner(own) as admin:
        signer = TestSigner(admin, await default_log_id(own))
        client = Client(api.client, await prefix_of(admin))
        for size in range(1, 8):
            await api.accept({"action": "x"})
            await signer.sign()
            await api.accept({"action": "x"})
            _, signed, root = await client.checkpoint()
            assert signed == 2 * size - 1
            leaves = tuple(sha256(b"\x00" + entry).digest() for entry in await client.all_entries(signed))
            assert tree_root(leaves) == root
            beyond = Client.place(0, signed + 1)
            assert (await api.client.get(f"{await prefix_of(admin)}/tile/0/{beyond}")).status_code == 404


async def test_of_a_pruned_log_entries_are_gone_and_tiles_stay(own: TestDatabase) -> None:
    async with open_api(own) as api, owner(own) as admin:
        log_id = await default_log_id(own)
        await seed_headers(admin, log_id, 700)
        signer = TestSigner(admin, log_id)
        await signer.store_tiles()
        leaves = await signer.leaves()
        await _prune(admin, log_id, 300, await signer.sign(300), leaves)
        await signer.sign(701, root=tree_root((*leaves, (await signer.leaves())[-1])))
        prefix = await prefix_of(admin)
        client = Client(api.client, prefix)
        assert [one for number in (0, 1) for one in await client.tile(0, number, 256)] == leaves[:512]
        assert len(await client.entries(2, 701 - 512)) == 701 - 512
        for number in (0, 1):
            response = await api.client.get(f"{prefix}/tile/entries/{Client.place(number, 256)}")
            assert response.status_code == 404
            assert "minimum index is 512" in response.json()["detail"]
        for seq in (0, 299, 300, 600):
            proof = (await api.client.get("/v1/chain/inclusion", params={"seq": seq})).json()
            assert proof["leaf"] == leaves[seq].hex()
        kept = (await api.client.get("/v1/chain/consistency?from_size=120")).json()
        assert kept["from_root"] == tree_root(tuple(leaves[:120])).hex()


async def _prune(admin: asyncpg.Connection, log_id: int, cut: int, note: str, leaves: list[bytes]) -> None:
    """Prune as the real functions do, of entries that have no bodies."""
    at = datetime(2026, 11, 22, tzinfo=UTC)
    frontier = Frontier()
    frontier.extend(leaves[:cut])
    act = Act(by="cli", reason="test", at=at, id="prune-1", entropy=bytes(48))
    entry = prune(
        act,
        Cut(
            cut, frontier.root(), frontier.to_bytes(), leaves[cut - 1], 1, 1, cut, at, at, note, bytes(32), []
        ),
    )  # fmt: skip
    await admin.execute("SELECT audit.prune_log($1, $2::jsonb)", log_id, entry.argument())
    while await admin.fetchval("SELECT audit.delete_pruned($1, 100)", log_id):
        pass
    assert await admin.fetchval("SELECT min(seq) FROM audit.entry WHERE log_id = $1", log_id) == cut
