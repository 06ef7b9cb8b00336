"""What processes hold in memory while something runs."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import psutil


def resident_bytes(processes: Iterable[psutil.Process]) -> int:
    """The RSS of the processes together, without those of PostgreSQL, whose shared memory would count once for each."""
    total = 0
    for process in processes:
        try:
            if process.name() != "postgres" and not _is_being_started(process):
                total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _is_being_started(process: psutil.Process) -> bool:
    """Whether it still is its parent's copy, whose memory is the parent's own: between fork and exec."""
    parent = process.parent()
    return parent is not None and parent.cmdline() == process.cmdline()


@contextmanager
def sampled(look: Callable[[], int], seconds: float) -> Iterator[list[int]]:
    """What `look` answers now and then every `seconds`, until the end."""
    found, ended = [look()], threading.Event()

    def go_on_looking() -> None:
        while not ended.wait(seconds):
            found.append(look())

    looking = threading.Thread(target=go_on_looking)
    looking.start()
    try:
        yield found
    finally:
        ended.set()
        looking.join()
