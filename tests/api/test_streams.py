"""NDJSON over real connections: results as lines arrive, in order and bounded memory, whoever does not read, breaks off or goes away."""

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from audit_service import ingest
from audit_service.api import body
from audit_service.api.dependencies import CREDENTIAL_CACHE_SECONDS
from audit_service.api.result_spool import MEMORY_BYTES, ResultSpool
from audit_service.errors import AuditError, TooLargeError, UnavailableError
from audit_service.http_protocol import GuardedProtocol
from audit_service.ingest import Outcome, Sealed
from audit_service.store import group_commit
from tests.support.api import Api
from tests.support.appends import owner, wait_until
from tests.support.apps import open_api
from tests.support.credentials import ask, create_key
from tests.support.postgres import TestDatabase
from tests.support.posting import with_trailer
from tests.support.serving import NDJSON, PATIENCE_SECONDS, Served, Wire, served

MEBIBYTE = 1024 * 1024
GZIP = "Content-Encoding: gzip"


@pytest.fixture(scope="module")
async def service(module_database: TestDatabase) -> AsyncIterator[Served]:
    """The service with small limits on a line and on a stream. Whatever the tests did to it, its log verifies in the end."""
    async with served(module_database, body_limit_bytes=64 * 1024, stream_limit_bytes=8 * MEBIBYTE) as running:
        yield running
        report = await running.api.verify()
        assert (report["status"], report["breaks"]) == ("ok", [])


def line(name: str, number: int, **members: Any) -> bytes:
    """A line with an id of its own."""
    event = {"id": f"{name}:{number}", "action": "row.touched", **members}
    return json.dumps(event).encode() + b"\n"


def lines(name: str, count: int, **members: Any) -> bytes:
    """That many."""
    return b"".join(line(name, number, **members) for number in range(count))


def ids(results: Sequence[dict[str, Any]]) -> list[str]:
    """The ids of accepted results."""
    return [result["receipt"]["id"] for result in results]


async def read(wire: Wire) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The result lines and the trailer of a whole answer."""
    status, headers = await wire.head()
    assert (status, headers["content-type"]) == (200, NDJSON)
    return with_trailer([json.loads(one) async for one in wire.lines()])


async def size_of(api: Api) -> int:
    """Entries in the log."""
    return int((await api.client.get("/v1/chain")).json()["size"])


async def is_stored(api: Api, event_id: str) -> bool:
    """Whether the event is in the log."""
    return (await api.client.get(f"/v1/events/{event_id}")).status_code == 200


# --- as they arrive


@pytest.mark.parametrize("zipped", [False, True])
async def test_a_sender_that_waits_for_each_result_gets_it(service: Served, zipped: bool) -> None:
    """The first result comes before the last line is sent, even when no slice is ever full."""
    name = f"lockstep-{zipped}"
    compress = zlib.compressobj(wbits=31)
    async with service.wire() as wire:
        await wire.begin_lines(*[GZIP] * zipped)
        answers: AsyncIterator[bytes] | None = None
        for number in range(5):
            data = line(name, number)
            await wire.chunk(compress.compress(data) + compress.flush(zlib.Z_SYNC_FLUSH) if zipped else data)
            if answers is None:
                assert (await wire.head())[0] == 200
                answers = wire.lines()
            result = json.loads(await anext(answers))
            assert (result["status"], result["receipt"]["id"]) == (201, f"{name}:{number}")
            assert await is_stored(service.api, f"{name}:{number}")
        if zipped:
            await wire.chunk(compress.flush())
        await wire.chunk(b"")
        assert answers is not None
        trailer = json.loads(await anext(answers))
        assert trailer == {"trailer": True, "accepted": 5, "rejected": 0, "complete": True}


async def test_half_a_line_waits_for_its_other_half(service: Served) -> None:
    async with service.wire() as wire:
        await wire.begin_lines()
        whole = line("halves", 0) + line("halves", 1)
        await wire.chunk(whole[:-20])
        assert (await wire.head())[0] == 200
        answers = wire.lines()
        assert json.loads(await anext(answers))["receipt"]["id"] == "halves:0"
        assert not await is_stored(service.api, "halves:1")
        await wire.chunk(whole[-20:])
        assert json.loads(await anext(answers))["receipt"]["id"] == "halves:1"
        await wire.chunk(b"")
        assert json.loads(await anext(answers))["complete"] is True


async def test_results_stand_in_the_order_of_their_lines(service: Served) -> None:
    """Over many slices, good, known, conflicting and bad ones mixed."""
    sent = []
    for number in range(1500):
        bad = {3: b"{broken\n", 5: b'{"action":"a b"}\n', 7: line("order", number - 7)}
        sent.append(bad.get(number % 11, line("order", number)))
    async with service.wire() as wire:
        await wire.begin_lines()
        whole = b"".join(sent)
        for start in range(0, len(whole), 5000):
            await wire.chunk(whole[start : start + 5000])
        await wire.chunk(b"")
        results, trailer = await read(wire)
    assert [result["status"] for result in results] == [
        {3: 400, 5: 422, 7: 200}.get(number % 11, 201) for number in range(1500)
    ]
    expected = [f"order:{n - 7 if n % 11 == 7 else n}" for n in range(1500) if n % 11 not in {3, 5}]
    assert ids([result for result in results if "receipt" in result]) == expected
    fresh = [result["receipt"]["seq"] for result in results if result["status"] == 201]
    assert fresh == list(range(fresh[0], fresh[0] + len(fresh)))
    assert trailer["complete"] is True


# --- overlap: one slice is sealed while another commits, and no more


async def test_the_next_slice_is_sealed_while_the_last_one_commits(
    module_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed: list[int] = []
    second_sealed, released = asyncio.Event(), asyncio.Event()
    pulled = 0
    seal_all, append_sealed = ingest.seal_all, ingest.append_sealed

    async def noted_seal(*arguments: Any) -> list[Sealed | AuditError]:
        done = await seal_all(*arguments)
        sealed.append(len(done))
        if len(sealed) == 2:
            second_sealed.set()
        return done

    async def slow_append(*arguments: Any) -> list[Outcome]:
        await released.wait()
        return await append_sealed(*arguments)

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal pulled
        for number in range(10):
            pulled += 1
            yield b"".join(line("overlap", number * 200 + place) for place in range(200))

    monkeypatch.setattr(ingest, "seal_all", noted_seal)
    monkeypatch.setattr(ingest, "append_sealed", slow_append)
    async with open_api(module_database) as api:
        headers = {"Content-Type": NDJSON}
        posting = asyncio.create_task(api.client.post("/v1/events", content=chunks(), headers=headers))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await second_sealed.wait()  # although nothing is committed yet
        for _ in range(500):
            await asyncio.sleep(0)
        # The third waits outside: what is in memory does not grow with the body.
        assert (sealed, pulled) == ([200, 200], 2)
        released.set()
        response = await posting
    *results, trailer = [json.loads(one) for one in response.text.splitlines()]
    assert ids(results) == [f"overlap:{number}" for number in range(2000)]
    assert (sealed, trailer["complete"]) == ([200] * 10, True)


async def test_after_a_slice_that_was_not_appended_no_later_one_is(
    module_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender resumes after the last result: what follows the gap must not be there already."""
    calls = 0
    append_sealed = ingest.append_sealed

    async def second_fails(*arguments: Any) -> list[Outcome]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise UnavailableError("the database is away")
        return await append_sealed(*arguments)

    monkeypatch.setattr(ingest, "append_sealed", second_fails)
    async with open_api(module_database) as api:
        content = lines("gap", 1000)
        response = await api.client.post("/v1/events", content=content, headers={"Content-Type": NDJSON})
        *results, trailer = [json.loads(one) for one in response.text.splitlines()]
        assert ids(results) == [f"gap:{number}" for number in range(200)]
        assert (trailer["accepted"], trailer["complete"], trailer["problem"]["status"]) == (200, False, 503)
        assert calls == 2
        assert [await is_stored(api, f"gap:{number}") for number in (199, 200, 400, 999)] == [True, False, False, False]


@pytest.mark.parametrize("answered", [0, 2])
async def test_a_sender_that_holds_its_next_line_back_learns_at_once_that_the_last_failed(
    service: Served, module_database: TestDatabase, monkeypatch: pytest.MonkeyPatch, answered: int
) -> None:
    """Long before the connection would be cut for slowness: a 503 of its own, or a trailer when results have been sent."""
    monkeypatch.setattr(group_commit, "APPEND_TIMEOUT_SECONDS", 0.3)
    name = f"held-{answered}"
    async with service.wire() as wire, owner(module_database) as holder:
        await wire.begin_lines()
        answers = wire.lines()
        for number in range(answered):
            await wire.chunk(line(name, number))
            if number == 0:
                assert (await wire.head())[0] == 200
            assert json.loads(await anext(answers))["receipt"]["id"] == f"{name}:{number}"
        async with holder.transaction():
            await holder.execute("SELECT 1 FROM audit.log FOR UPDATE")
            await wire.chunk(line(name, answered))
            if answered:
                trailer = json.loads(await anext(answers))
                problem = trailer.pop("problem")
                assert trailer == {"trailer": True, "accepted": answered, "rejected": 0, "complete": False}
            else:
                answer = await wire.answer()
                problem = answer.json()
                assert (answer.status, int(answer.headers["retry-after"]) >= 1) == (503, True)
    assert (problem["status"], problem["detail"]) == (503, "the database does not answer")
    # The server may yet finish what it was asked: whatever became of it, sent again the line is there once.
    assert (await service.api.post(json.loads(line(name, answered)))).status_code in {200, 201}
    assert await is_stored(service.api, f"{name}:{answered}")


async def test_an_unforeseen_error_of_a_commit_ends_the_stream_at_once(
    service: Served, module_database: TestDatabase
) -> None:
    """With a 500, although the sender still holds its next line back."""
    async with service.wire() as wire, owner(module_database) as admin:
        await wire.begin_lines()
        await admin.execute("REVOKE EXECUTE ON FUNCTION audit.append_entries FROM audit_serving")
        try:
            await wire.chunk(line("unforeseen", 0))
            answer = await wire.answer()
        finally:
            await admin.execute("GRANT EXECUTE ON FUNCTION audit.append_entries TO audit_serving")
    assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
    assert not await is_stored(service.api, "unforeseen:0")


async def test_a_commit_that_fails_after_the_body_has_broken_still_ends_the_stream(
    module_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, broken = asyncio.Event(), asyncio.Event()

    async def fails(*_: Any) -> list[Outcome]:
        begun.set()
        await broken.wait()
        for _turn in range(50):
            await asyncio.sleep(0)
        raise RuntimeError("nobody foresaw this")

    async def content() -> AsyncIterator[bytes]:
        yield gzip.compress(line("late", 0))
        await begun.wait()
        broken.set()
        yield b"garbage"

    monkeypatch.setattr(ingest, "append_sealed", fails)
    async with open_api(module_database) as api:
        headers = {"Content-Type": NDJSON, "Content-Encoding": "gzip"}
        posting = asyncio.create_task(api.client.post("/v1/events", content=content(), headers=headers))
        answered, _ = await asyncio.wait({posting}, timeout=PATIENCE_SECONDS)
        posting.cancel()  # of no effect once it has ended
        assert answered, "no answer"
        response = posting.result()
    assert (response.status_code, response.headers["content-type"]) == (500, "application/problem+json")


# --- a client that does not read


async def test_a_client_that_sends_all_before_it_reads_is_served(service: Served) -> None:
    """Every buffer between is full of results long before the last line: the body is taken nevertheless."""
    count, before = 3000, await size_of(service.api)
    async with service.wire(small=True) as wire:
        await wire.begin_lines()
        whole = lines("deaf", count)
        for start in range(0, len(whole), 16_000):
            await wire.chunk(whole[start : start + 16_000])
        await wire.chunk(b"")

        async def all_stored() -> bool:
            return await size_of(service.api) == before + count

        await wait_until(all_stored, "all lines committed, none of their results read")
        results, trailer = await read(wire)
    assert ids(results) == [f"deaf:{number}" for number in range(count)]
    assert trailer == {"trailer": True, "accepted": count, "rejected": 0, "complete": True}


async def test_unread_results_wait_on_disk_and_not_in_memory() -> None:
    """Ten times what may be in memory is written and then read whole; a reader who keeps up never makes it grow."""
    block = bytes(range(256)) * 256
    tracemalloc.start()
    try:
        with ResultSpool() as spool:
            for _ in range(10 * MEMORY_BYTES // len(block)):
                spool.write(block)
            spool.end()
            assert tracemalloc.get_traced_memory()[0] < 2 * MEMORY_BYTES
            pieces = [piece async for piece in spool.pieces()]
    finally:
        tracemalloc.stop()
    assert b"".join(pieces) == block * (10 * MEMORY_BYTES // len(block))


async def test_a_reader_gets_what_was_written_and_then_the_error() -> None:
    read_: list[bytes] = []
    with ResultSpool() as spool:
        pieces = spool.pieces()
        spool.write(b"one")
        read_.append(await anext(pieces))
        waiting = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        assert not waiting.done()
        spool.write(b"two")
        read_.append(await waiting)
        spool.end(TooLargeError("no more"))
        with pytest.raises(TooLargeError):
            await anext(pieces)
    assert read_ == [b"one", b"two"]


# --- bounded memory


class Chunked:
    """A request whose body comes in these pieces; `headers` as Starlette gives them."""

    def __init__(self, pieces: Sequence[bytes], **headers: str) -> None:
        self.pieces, self.headers = pieces, headers

    async def stream(self) -> AsyncIterator[bytes]:
        """The body."""
        for piece in self.pieces:
            yield piece


async def slices_of(request: Any, line_limit: int, body_limit: int) -> list[list[int]]:
    """The lengths of the lines in each slice; 0 for an error."""
    return [
        [len(one) if isinstance(one, bytes) else 0 for one in part]
        async for part in body.line_slices(request, line_limit, body_limit)
    ]


async def test_a_slice_is_bounded_in_lines_and_in_bytes() -> None:
    long = b"x" * 300_000 + b"\n"
    found = await slices_of(Chunked([long] * 10), MEBIBYTE, 10 * MEBIBYTE)
    assert found == [[300_000] * 4, [300_000] * 4, [300_000] * 2]
    found = await slices_of(Chunked([b"xy\n" * 950]), MEBIBYTE, MEBIBYTE)
    assert found == [[2] * 200] * 4 + [[2] * 150]


async def test_a_line_without_an_end_does_not_stay_in_memory() -> None:
    """One error in its place, however long it is; the lines around it are whole."""
    pieces = [b"a\nb", *[b"x" * 65_536] * 200, b"x\nc\n"]
    tracemalloc.start()
    try:
        found = await slices_of(Chunked(pieces), 100_000, 100 * MEBIBYTE)
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTE
    finally:
        tracemalloc.stop()
    assert found == [[1, 0, 1]]


# --- gzip


async def test_zipped_lines_are_taken_as_they_are_inflated(service: Served) -> None:
    whole = gzip.compress(lines("zipped", 700))
    async with service.wire() as wire:
        await wire.begin_lines(GZIP)
        for start in range(0, len(whole), 999):
            await wire.chunk(whole[start : start + 999])
        await wire.chunk(b"")
        results, trailer = await read(wire)
    assert ids(results) == [f"zipped:{number}" for number in range(700)]
    assert trailer["complete"] is True


@pytest.mark.parametrize("damage", ["cut", "garbage after its end", "a flipped bit"])
async def test_a_zipped_stream_that_breaks_keeps_the_results_it_has(service: Served, damage: str) -> None:
    """Only a sender whose trailer says complete may forget its lines."""
    name = f"broken {damage}"
    whole = bytearray(gzip.compress(lines(name, 5000)))
    if damage == "cut":
        del whole[-100:]
    elif damage == "a flipped bit":
        whole[-6] ^= 1  # in the checksum: everything inflates, and was not what was sent
    else:
        whole += b"garbage"
    async with service.wire() as wire:
        await wire.begin_lines(GZIP)
        for start in range(0, len(whole), 2000):
            await wire.chunk(bytes(whole[start : start + 2000]))
        await wire.chunk(b"")
        results, trailer = await read(wire)
    assert len(results) >= 2000
    assert ids(results) == [f"{name}:{number}" for number in range(len(results))]
    assert (trailer["complete"], trailer["problem"]["status"]) == (False, 400)
    assert "gzip" in trailer["problem"]["detail"]


async def test_the_stream_s_limit_counts_inflated_bytes(service: Served) -> None:
    """40 MB of blanks after 300 lines, 40 kB on the wire: cut off at 8 MiB, with the results before."""
    whole = gzip.compress(lines("bomb", 300) + b" " * 40_000_000)
    assert len(whole) < 100_000
    async with service.wire() as wire:
        await wire.begin_lines(GZIP)
        await wire.chunk(whole)
        await wire.chunk(b"")
        results, trailer = await read(wire)
    # The blanks are one line longer than a line may be, which has a result of its own when the slice was still taken.
    accepted = [result for result in results if "receipt" in result]
    assert ids(accepted) == [f"bomb:{number}" for number in range(len(accepted))]
    assert len(accepted) >= 200
    assert (trailer["complete"], trailer["problem"]["status"]) == (False, 413)


# --- limits, cuts, clients that go away


async def test_a_stream_over_its_limit_keeps_the_results_before_it(service: Served) -> None:
    """And the sender can go on after them: sent again, the taken ones are replays, the rest is new."""
    members = {"metadata": {"k": "v" * 9000}}
    async with service.wire() as wire:
        await wire.begin_lines()
        for number in range(1000):
            await wire.chunk(line("limit", number, **members))
        await wire.chunk(b"")
        results, trailer = await read(wire)
    taken = len(results)
    assert 600 <= taken < 1000
    assert ids(results) == [f"limit:{number}" for number in range(taken)]
    assert (trailer["complete"], trailer["problem"]["status"]) == (False, 413)
    async with service.wire() as wire:
        await wire.begin_lines()
        for number in range(taken - 5, taken + 5):
            await wire.chunk(line("limit", number, **members))
        await wire.chunk(b"")
        again, trailer = await read(wire)
    assert [result["status"] for result in again] == [200] * 5 + [201] * 5
    assert trailer["complete"] is True


@pytest.mark.parametrize("read_first", [False, True])
async def test_what_was_committed_before_a_client_went_away_stays(
    service: Served, module_database: TestDatabase, read_first: bool
) -> None:
    """Cut in the middle of a line: the whole lines before it may be there, the half one never; nothing is left open."""
    name = f"gone-{read_first}"
    async with service.wire() as wire:
        await wire.begin_lines()
        await wire.chunk(lines(name, 450) + line(name, 450)[:-10])
        await wait_until(lambda: is_stored(service.api, f"{name}:399"), "the first slices")
        if read_first:
            assert (await wire.head())[0] == 200
        wire.abort()
    await assert_all_closed(service, module_database)
    assert not await is_stored(service.api, f"{name}:450")
    # All of it again is one entry each.
    async with service.wire() as wire:
        await wire.begin_lines()
        await wire.chunk(lines(name, 451))
        await wire.chunk(b"")
        results, _ = await read(wire)
    assert ids(results) == [f"{name}:{number}" for number in range(451)]
    assert {result["status"] for result in results[:400]} == {200}
    assert results[450]["status"] == 201


async def test_clients_that_go_away_at_any_point_leave_the_pool_whole(
    service: Served, module_database: TestDatabase
) -> None:
    """More of them than the pool has connections, at every stage of a request."""
    whole = lines("crowd", 300)
    stages = [b"", whole[:50], whole[: len(whole) // 2], whole, whole + b"{"] * 6

    async def leave(sent: bytes) -> None:
        async with service.wire(small=True) as wire:
            await wire.begin_lines()
            if sent:
                await wire.chunk(sent)
            wire.abort()

    await asyncio.gather(*(leave(sent) for sent in stages))
    await assert_all_closed(service, module_database)
    responses = await asyncio.gather(*(service.api.post({"action": "x"}) for _ in range(20)))
    assert [response.status_code for response in responses] == [201] * 20


async def assert_all_closed(service: Served, database: TestDatabase) -> None:
    """No connection of the pool is in use, none sits in a transaction, and nothing waits."""
    engine = service.api.service.database.writes

    async def idle() -> bool:
        appender = service.api.service.appender(await service.api.service.recipe())
        return appender.pending_events == 0 and engine.pool.checkedout() == 0  # type: ignore[attr-defined]

    await wait_until(idle, "the end of all appends")
    async with owner(database) as connection:

        async def nobody() -> bool:
            return not await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL AND backend_type = 'client backend'"
            )

        await wait_until(nobody, "the end of all transactions")


async def test_a_stream_without_a_key_is_refused_before_its_body(service: Served) -> None:
    async with service.wire() as wire:
        await wire.send(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n")
        await wire.send(b"Transfer-Encoding: chunked\r\n\r\n")
        answer = await wire.answer()
    assert (answer.status, answer.json()["status"]) == (401, 401)


# --- who is waited for


async def test_a_sender_that_we_slow_down_is_not_blamed_for_waiting(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over its rate it waits for longer than several looks of the watch, and has its results; who then stalls by itself is cut."""
    monkeypatch.setattr(GuardedProtocol, "watch_seconds", 0.5)
    async with served(database, rate_limit_events_per_second=10) as slow, slow.wire() as wire:
        await wire.begin_lines()
        await wire.chunk(lines("slowed", 120))  # two seconds' worth too many
        assert (await wire.head())[0] == 200
        results = wire.lines()
        assert [json.loads(await anext(results))["status"] for _ in range(120)] == [201] * 120
        assert b"trailer" not in await wire.ended()


async def test_a_revoked_key_does_not_go_on_in_a_stream_it_has_open(service: Served) -> None:
    """What it appended before stays and has its result; then the stream ends early, with the problem of any other request, and noted."""
    made = await create_key(service.api, ["ingest"])
    async with service.wire() as wire:
        await wire.begin_lines(key=made["key"])
        await wire.chunk(line("revoked", 0))
        assert (await wire.head())[0] == 200
        answers = wire.lines()
        assert json.loads(await anext(answers))["status"] == 201
        assert (await service.api.client.delete(f"/v1/keys/{made['key_id']}")).status_code == 204

        async def is_refused() -> bool:
            return (await ask(service.api, "POST", "/v1/events", made["key"], {"action": "x"})).status_code == 401

        await wait_until(is_refused, "the key being refused", 5 * CREDENTIAL_CACHE_SECONDS)
        await wire.chunk(line("revoked", 1) + line("revoked", 2))
        trailer = json.loads(await anext(answers))
        assert (trailer["accepted"], trailer["complete"], trailer["problem"]["status"]) == (1, False, 401)
    assert [await is_stored(service.api, f"revoked:{number}") for number in range(3)] == [True, False, False]
    watch = service.api.service.watch

    async def is_noted() -> bool:
        await watch.settle()
        denied = [note for note in await service.api.notes() if note["action"] == "audit.access.denied"]
        return [(note["reason"], note["actor"]["id"], note["metadata"]["count"]) for note in denied] == [
            ("a revoked key", made["key_id"], 2)
        ]

    await wait_until(is_noted, "the note of the two events")
