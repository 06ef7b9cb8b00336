"""Writers as panels are: each event has an id, and is sent again with the same id until there is an answer.

What they were told stands in a `Ledger`, which the harness compares with what the database holds. They speak HTTP/1.1 by themselves, so
that an answer which breaks off counts for as far as it came: each result line of a stream acknowledges its event.
"""

import asyncio
import contextlib
import itertools
import json
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

Kind = Literal["single", "batch", "stream"]
Event = dict[str, Any]

KINDS: tuple[Kind, ...] = ("single", "batch", "stream")
KIND_WEIGHTS = (6, 3, 2)
# Most are small. Some are appended in parts (`ingest.PART_EVENTS`), of which a fault may come between two.
SMALL_BATCH_EVENTS, BATCH_LIMIT_EVENTS = 50, 300
LARGE_BATCH_SHARE = 0.1
ANSWER_SECONDS = 8.0
# How long writers may need, after the fault, for an answer to everything.
FINISH_SECONDS = 40.0
_MEDIA_TYPES = {"single": "application/json", "batch": "application/json", "stream": "application/x-ndjson"}


@dataclass(slots=True)
class Answer:
    """A response, as far as it came."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    seconds: float = 0.0

    def lines(self) -> list[Any]:
        """The whole lines of an NDJSON body."""
        return [json.loads(line) for line in bytes(self.body).split(b"\n")[:-1]]


class Connection:
    """A keep-alive HTTP/1.1 connection, opened at the first request and after each failure."""

    def __init__(self, port: Callable[[], int], key: str) -> None:
        self._port = port
        self._key = key
        self._streams: tuple[StreamReader, StreamWriter] | None = None

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        media_type: str = "application/json",
        *,
        into: Answer,
        seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """One request. `into` fills as the answer arrives, so it holds the part that came when this raises OSError, EOFError,
        TimeoutError."""
        began = time.monotonic()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: audit\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(seconds):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port())
                reader, writer = self._streams
                writer.write(head.encode() + body)
                await _read(reader, into)
        except BaseException:
            await self.close()
            raise
        finally:
            into.seconds = time.monotonic() - began
        if into.headers.get("connection") == "close":
            await self.close()
        return into

    async def close(self) -> None:
        """End the connection."""
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _read(reader: StreamReader, answer: Answer) -> None:
    first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
    answer.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    answer.status = int(first.split(" ")[1])
    if answer.headers.get("transfer-encoding") != "chunked":
        answer.body += await reader.readexactly(int(answer.headers.get("content-length", "0")))
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):
        answer.body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)


@dataclass(slots=True)
class Ledger:
    """What was sent, what the service has acknowledged, and what it may never say."""

    sent: set[str] = field(default_factory=set)
    receipts: dict[str, dict[str, Any]] = field(default_factory=dict)
    wrong_answers: list[str] = field(default_factory=list)
    broken_tries: int = 0
    refused_tries: int = 0
    replays: int = 0
    slowest_refusal_seconds: float = 0.0

    def acknowledge(self, event_id: str, receipt: dict[str, Any]) -> None:
        """A receipt arrived; a second one for the same id must be the same."""
        first = self.receipts.setdefault(event_id, receipt)
        if receipt["id"] != event_id or first != receipt:
            self.wrong_answers.append(f"two receipts for {event_id}: {first} and {receipt}")

    def refuse(self, answer: Answer) -> None:
        """A 503, which must say when to come back."""
        self.refused_tries += 1
        self.slowest_refusal_seconds = max(self.slowest_refusal_seconds, answer.seconds)
        if not answer.headers.get("retry-after", "").isdigit():
            self.wrong_answers.append("a 503 without Retry-After")


class Writer:
    """One client, with one connection and one request under way."""

    def __init__(self, name: str, connection: Connection, ledger: Ledger, random: Random) -> None:
        self._connection = connection
        self._ledger = ledger
        self._random = random
        self._ids = (f"{name}-{number}" for number in itertools.count())

    def _batch_events(self) -> int:
        is_large = self._random.random() < LARGE_BATCH_SHARE
        return self._random.randint(1, BATCH_LIMIT_EVENTS if is_large else SMALL_BATCH_EVENTS)

    async def deliver(self, limit_events: int = BATCH_LIMIT_EVENTS) -> int:
        """Send one event, batch or stream until all of it is acknowledged; how many events. A broken try is now and then given up, as
        by a panel that crashes: then nobody knows what became of it."""
        (kind,) = self._random.choices(KINDS, KIND_WEIGHTS)
        count = 1 if kind == "single" else min(limit_events, self._batch_events())
        events = {event["id"]: event for event in itertools.islice(self._events(), count)}
        self._ledger.sent |= events.keys()
        while waiting := [event for event_id, event in events.items() if event_id not in self._ledger.receipts]:
            if not await self._try(kind, waiting):
                if self._random.random() < 0.1:
                    break
                await asyncio.sleep(self._random.uniform(0.02, 0.2))
        if self._random.random() < 0.1:  # so that writers wander between workers
            await self.close()
        return count

    async def close(self) -> None:
        """Hang up."""
        await self._connection.close()

    def _events(self) -> Iterator[Event]:
        for event_id in self._ids:
            number = self._random.randrange(1000)
            event: Event = {"id": event_id, "action": "server.updated", "server_id": f"s{number % 7}"}
            if number % 3 == 0:
                event |= {"before": {"memory": number}, "after": {"memory": number + 1, "note": "é" * (number % 50)}}
            elif number % 31 == 0:
                event |= {"before": {"memory": 1}, "after": {"memory": 1}}  # nothing changed: answered, not kept
            else:
                event["metadata"] = {"text": "x" * number}
            yield event

    async def _try(self, kind: Kind, events: Sequence[Event]) -> bool:
        """One try; whether there was an answer worth going on at once."""
        answer = Answer()
        whole = True
        try:
            await self._connection.ask("POST", "/v1/events", _body(kind, events), _MEDIA_TYPES[kind], into=answer)
        except (OSError, EOFError, TimeoutError):
            self._ledger.broken_tries += 1
            whole = False
        if answer.status == 503:
            self._ledger.refuse(answer)
            return False
        if answer.status:
            self._settle(kind, events, answer, whole=whole)
        return whole

    def _settle(self, kind: Kind, events: Sequence[Event], answer: Answer, *, whole: bool) -> None:
        if answer.status not in {200, 201, 207}:
            self._ledger.wrong_answers.append(f"a {kind} was answered {answer.status}: {bytes(answer.body[:300])!r}")
            return
        if kind == "stream":
            results = [line for line in answer.lines() if "trailer" not in line]
        elif not whole:
            return
        elif kind == "batch":
            results = json.loads(answer.body)["results"]
        else:
            results = [{"status": answer.status, "receipt": json.loads(answer.body)}]
        for event, result in zip(events, results, strict=False):
            if result["status"] in {200, 201}:
                self._ledger.replays += result["status"] == 200
                self._ledger.acknowledge(event["id"], result["receipt"])
            elif result["status"] != 503:
                self._ledger.wrong_answers.append(f"{event['id']} was answered {result}")


def _body(kind: Kind, events: Sequence[Event]) -> bytes:
    if kind == "single":
        return json.dumps(events[0]).encode()
    if kind == "batch":
        return json.dumps({"events": events}).encode()
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


class Fleet:
    """Several writers at once, for any number of rounds of writing. The seed stands in their ids, so it is one of its own."""

    def __init__(self, port: Callable[[], int], key: str, ledger: Ledger, *, writers: int, seed: int) -> None:
        random = Random(seed)  # noqa: S311 - load, no secret
        self._writers = [
            Writer(f"w{seed}-{number}", Connection(port, key), ledger, Random(random.random()))  # noqa: S311
            for number in range(writers)
        ]

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Write inside the block without a pause; at its end wait until everything sent has its answer."""
        ended = asyncio.Event()

        async def go_on(writer: Writer) -> None:
            while not ended.is_set():
                await writer.deliver()

        async with self._running(go_on):
            yield
            ended.set()

    async def write(self, events: int) -> None:
        """Write at least so many events."""
        left = events

        async def share(writer: Writer) -> None:
            nonlocal left
            while left > 0:
                limit = min(left, BATCH_LIMIT_EVENTS)
                left -= limit
                written = await writer.deliver(limit)
                left += limit - written

        async with self._running(share, seconds=FINISH_SECONDS + events / 100):
            pass

    @contextlib.asynccontextmanager
    async def _running(self, work: Callable[[Writer], Any], *, seconds: float = FINISH_SECONDS) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work(writer)) for writer in self._writers]
        try:
            yield
            _, late = await asyncio.wait(tasks, timeout=seconds)
            assert not late, f"{len(late)} writers have no answer {seconds:g} s after the fault"
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in self._writers:
                await writer.close()
