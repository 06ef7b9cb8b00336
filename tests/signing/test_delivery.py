"""Checkpoints reach their destinations, and a destination that is away never stops signing."""

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from audit_service.signing import delivery
from audit_service.signing.delivery import Deliveries


@dataclass(slots=True)
class Sink:
    """An HTTP endpoint: what it was sent, and which statuses it answers first."""

    statuses: list[int] = field(default_factory=list)
    taken: list[tuple[str, str]] = field(default_factory=list)  # content type, body
    asked: int = 0
    port: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where to POST."""
        return f"http://127.0.0.1:{self.port}/in?token=secret-of-the-url"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:-2])
                body = (await reader.readexactly(int(headers["content-length"]))).decode()
                status = self.statuses.pop(0) if self.statuses else 204
                self.asked += 1
                if status < 300:
                    self.taken.append((headers["content-type"], body))
                self.news.set()
                writer.write(f"HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def until_taken(self, count: int) -> None:
        """Wait until so many notes were taken."""
        async with asyncio.timeout(20):
            while len(self.taken) < count:
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def sink(*statuses: int) -> AsyncIterator[Sink]:
    """A listening endpoint."""
    made = Sink(list(statuses))
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(delivery, "_DELAYS_SECONDS", (0.01, 0.02))


async def test_every_destination_gets_the_note_as_it_is(tmp_path: Path) -> None:
    received = tmp_path / "received"
    program = shlex.join(
        [sys.executable, "-c", f"import sys; open({str(received)!r}, 'wb').write(sys.stdin.buffer.read())"]
    )
    async with sink() as one, sink() as other, Deliveries([one.url, other.url], program) as deliveries:
        deliveries.offer("log", "origin\n1\nroot\n\n— line\n")
        await one.until_taken(1)
        await other.until_taken(1)
        async with asyncio.timeout(20):
            while not received.exists() or not received.read_text():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
    assert one.taken == other.taken == [("text/plain; charset=utf-8", "origin\n1\nroot\n\n— line\n")]
    assert received.read_text("utf-8") == "origin\n1\nroot\n\n— line\n"


async def test_what_is_not_taken_is_sent_again_and_newer_notes_of_a_log_replace_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with sink(500, 503, 404) as one, Deliveries([one.url], None) as deliveries:
        for number in range(50):
            deliveries.offer("busy", f"note {number}\n")
        deliveries.offer("quiet", "a note\n")
        await one.until_taken(2)
        assert sorted(body for _, body in one.taken) == ["a note\n", "note 49\n"]
        assert one.asked == 5
    printed = capsys.readouterr()
    assert "secret-of-the-url" not in printed.out + printed.err


async def test_a_destination_that_is_away_holds_up_no_other(unused_port: int) -> None:
    async with sink() as one, Deliveries([f"http://127.0.0.1:{unused_port}/", one.url], "false") as deliveries:
        deliveries.offer("log", "a note\n")
        await one.until_taken(1)


@pytest.fixture
def unused_port() -> int:
    """A port nobody listens on."""
    from tests.support.processes import free_port

    return free_port()
