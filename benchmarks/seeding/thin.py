"""A thin log: as many entries as one likes, quickly, for measuring what only reads headers and the hash tree.

Headers, links, hashes and head are true, so the signer follows the log and builds its tiles as it does for any other. But every body is the
same empty object, and there are no disclosures, projections, receipts or postings: a thin log can be signed and proven, not searched, and
a verification of it would miss its receipts.
"""

import struct
import time
from collections.abc import AsyncIterator, Callable

import asyncpg
import uvloop

from audit_service.core import chain
from benchmarks.seeding.load import FIRST_EPOCH, Job, Times, connect

BODY = "{}"
# Entries that share a time of recording, as those of one call do.
CALL_ENTRIES = 500
START_US, CALL_US = 1_700_000_000_000_000, 500_000
SEGMENT_ROWS = """
    INSERT INTO audit.segment (log_id, number, events) SELECT $1, n, 0 FROM generate_series(0, $2::integer / 16384 - 1) AS n
"""
PROGRESS_ROW = "INSERT INTO audit.source_progress (log_id, size) VALUES ($1, $2)"
COLUMNS = ("log_id", "seq", "recorded_at", "epoch", "kind", "prev_hash", "body_hash", "hash", "body")
_CHUNK_ENTRIES = 20_000
# PostgreSQL counts microseconds from 2000-01-01.
_POSTGRES_EPOCH_US = 946_684_800_000_000
# One row of COPY's binary form: the number of columns, then each one's length and bytes.
_ROW = struct.Struct(f">h iq iq iq ii i5s i32s i32s i32s i{len(BODY)}s".replace(" ", ""))
_SIGNATURE, _END = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"


def load_thin(job: Job, _processes: int, progress: Callable[[int], None]) -> tuple[chain.Head, Times]:
    """As `load`: fill the empty log of `job`, except its head row, from one process. The indexer finds nothing to do in it."""
    began = time.perf_counter()
    head = uvloop.run(_load(job, progress))
    return head, {"thin": time.perf_counter() - began}


async def _load(job: Job, progress: Callable[[int], None]) -> chain.Head:
    chained = _Chained(job, progress)
    connection = await connect(job.url)
    try:
        await connection.copy_to_table(
            "entry", schema_name="audit", columns=COLUMNS, source=chained.copied(), format="binary"
        )
        await _mark_done(connection, job)
    finally:
        await connection.close()
    return chained.head


async def _mark_done(connection: asyncpg.Connection, job: Job) -> None:
    """There are no values to search for and no producers, so whoever indexes and counts behind the log has nothing to do."""
    await connection.execute(SEGMENT_ROWS, job.log.log_id, job.events)
    await connection.execute(PROGRESS_ROW, job.log.log_id, job.events)


class _Chained:
    """Links entry after entry, and makes a COPY stream of them."""

    def __init__(self, job: Job, progress: Callable[[int], None]) -> None:
        self._job, self._progress = job, progress
        self.head = chain.Head.genesis(chain.format_origin(job.log.service_name, job.log.log_key, FIRST_EPOCH))

    async def copied(self) -> AsyncIterator[bytes]:
        """The stream, in pieces."""
        yield _SIGNATURE
        for start in range(0, self._job.events, _CHUNK_ENTRIES):
            yield b"".join([self._call(seq) for seq in range(start, self._end(start, _CHUNK_ENTRIES), CALL_ENTRIES)])
            self._progress(self.head.size)
        yield _END

    def _end(self, start: int, entries: int) -> int:
        return min(start + entries, self._job.events)

    def _call(self, start: int) -> bytes:
        """The rows of one call, whose entries share a time."""
        digests = [chain.body_hash(BODY)] * (self._end(start, CALL_ENTRIES) - start)
        at_us = START_US + start // CALL_ENTRIES * CALL_US
        links, self.head = chain.link(self.head, digests, recorded_at_us=at_us)
        log_id, at, body = self._job.log.log_id, at_us - _POSTGRES_EPOCH_US, BODY.encode()
        return b"".join(
            [
                _ROW.pack(
                    *(len(COLUMNS), 8, log_id, 8, link.seq, 8, at, 4, FIRST_EPOCH, 5, b"event"),
                    *(32, link.prev_hash, 32, link.body_hash, 32, link.hash, len(body), body),
                )
                for link in links
            ]
        )
