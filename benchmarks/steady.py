"""Single posts at a steady rate, as from a panel, so that their times are those of the service and not of a queue the generator made."""

import asyncio
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar
from urllib.parse import urlsplit

from benchmarks.events import event_bytes
from benchmarks.load import REQUEST_TIMEOUT_SECONDS, post_request
from benchmarks.report import BenchmarkError
from benchmarks.service import Running

POSTERS = 4
POSTS_PER_SECOND = 80

Done = TypeVar("Done")


def post_for(service: Running, prefix: str, seconds: float) -> list[float]:
    """The seconds each post took. Raises BenchmarkError when one was not stored."""
    count = int(POSTS_PER_SECOND * seconds)
    return asyncio.run(_post_all(service, prefix, lambda number: number >= count, REQUEST_TIMEOUT_SECONDS))


def post_beside(
    service: Running, prefix: str, work: Callable[[], Done], *, limit_seconds: float
) -> tuple[list[float], Done]:
    """The seconds each post took while `work` was done, in a thread, and what that answered. `work` leaves the processor to others, or
    the times are its own. Raises BenchmarkError when a post was not stored, or not within `limit_seconds`."""
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(work)
        times = asyncio.run(_post_all(service, prefix, lambda _: doing.done(), limit_seconds))
        return times, doing.result()


async def _post_all(service: Running, prefix: str, is_over: Callable[[int], bool], limit_seconds: float) -> list[float]:
    place = urlsplit(service.url)
    clock = asyncio.get_running_loop().time
    began = clock()

    async def post(first: int) -> list[float]:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        times = []
        with closing(writer):
            for number in itertools.count(first, POSTERS):
                if is_over(number):
                    break
                request = post_request(service.url, service.key, event_bytes(number, prefix))
                due = began + number / POSTS_PER_SECOND
                if clock() < due:
                    await asyncio.sleep(due - clock())
                    due = clock()
                # What had to wait for the post before it is timed from when it was due, or one long wait would count as one.
                try:
                    async with asyncio.timeout_at(due + limit_seconds):
                        await _post_one(reader, writer, request)
                except TimeoutError:
                    raise BenchmarkError(f"a post took longer than {limit_seconds:g} s") from None
                except (asyncio.IncompleteReadError, ConnectionError) as error:
                    raise BenchmarkError("a post got no answer") from error
                times.append(clock() - due)
        return times

    return [one for times in await asyncio.gather(*map(post, range(POSTERS))) for one in times]


async def _post_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    if head[9:12] != b"201":
        raise BenchmarkError(f"a post was answered with {head[9:12].decode()}")
