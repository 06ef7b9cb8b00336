"""Slices of entries by the driver alone, without SQLAlchemy: for a process that has to be small and to begin soon.

What is read is worked out elsewhere (`store.slices`) and comes here as statements, values and *parts*: which seqs to look at. A session is
bound to one log and one sight for as long as it lasts (decision 0002), and only reads; each slice is one statement, so a transaction of
its own, and brought whole before anything is done with it: no snapshot is held while somebody takes their time.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, NamedTuple

import asyncpg

from audit_service.errors import UnavailableError

Rows = Sequence[Any]
Fetch = Callable[..., Awaitable[Rows]]  # a statement and its arguments


class Part(NamedTuple):
    """Entries to look at: those with from_seq <= seq < to_seq, or of them only `seqs`, ascending."""

    from_seq: int
    to_seq: int
    seqs: Sequence[int] | None = None

    def after(self, seq: int) -> "Part":
        """What is left of it behind an entry."""
        return Part(seq + 1, self.to_seq, None if self.seqs is None else [one for one in self.seqs if one > seq])


@dataclass(frozen=True, slots=True)
class SliceQuery:
    """The statement of a slice, with PostgreSQL's numbered parameters: of a range, and, as `named`, of some seqs within one. `names` are
    those of the parameters in turn, and `values` what they always are. Of a row, `size_at` is the place of its size in bytes and
    `before_at` that of the bytes before it; its seq is the first. A slice is cut at so many `budget_bytes`."""

    statement: str
    names: Sequence[str]
    values: Mapping[str, Any]
    budget_bytes: int
    size_at: int
    before_at: int

    async def stream(self, fetch: Fetch, part: Part, entries: int) -> AsyncGenerator[Rows]:
        """The slices of a part, of up to so many entries each. None is empty."""
        if part.seqs is None:
            async for rows in self._stream(fetch, part.from_seq, part.to_seq, (), entries):
                yield rows
            return
        for start in range(0, len(part.seqs), entries):
            seqs = part.seqs[start : start + entries]
            async for rows in self._stream(fetch, seqs[0], seqs[-1] + 1, seqs, entries):
                yield rows

    def is_full(self, rows: Rows, entries: int) -> bool:
        """Whether there may be more behind a slice."""
        over_budget = bool(rows) and rows[-1][self.before_at] + rows[-1][self.size_at] >= self.budget_bytes
        return len(rows) >= entries or over_budget

    async def _stream(
        self, fetch: Fetch, from_seq: int, to_seq: int, seqs: Sequence[int], entries: int
    ) -> AsyncGenerator[Rows]:
        while from_seq < to_seq:
            given = {"from_seq": from_seq, "to_seq": to_seq, "seqs": list(seqs), "entries": entries}
            values = {**self.values, **given}
            rows = await fetch(self.statement, *(values[name] for name in self.names))
            if rows:
                yield rows
            if not self.is_full(rows, entries):
                return
            from_seq = rows[-1][0] + 1


@dataclass(frozen=True, slots=True)
class Session:
    """How to read a log from another process: what `asyncpg.connect` is given, the login in it; the statements that bind the session; and
    what it reads, a range and some seqs of one."""

    options: Mapping[str, Any] = field(repr=False)  # the password is in it
    binding: str
    ranges: SliceQuery
    named: SliceQuery


class Reader:
    """A session that is open, for a thread that does other work meanwhile: the next slice is read while that works on one."""

    def __init__(self, session: Session, loop: asyncio.AbstractEventLoop, connection: asyncpg.Connection) -> None:
        self._session, self._loop, self._connection = session, loop, connection

    def read(self, part: Part, entries: int) -> Iterator[Rows]:
        """The slices of a part. Raises UnavailableError."""
        query = self._session.ranges if part.seqs is None else self._session.named
        slices = query.stream(self._connection.fetch, part, entries)
        coming = asyncio.run_coroutine_threadsafe(_next(slices), self._loop)
        while (rows := _result(coming.result)) is not None:
            coming = asyncio.run_coroutine_threadsafe(_next(slices), self._loop)
            yield rows


def open_reader(session: Session) -> Reader:
    """Open a session, for the rest of the process's life. Raises UnavailableError."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="reader", daemon=True).start()
    connecting = asyncio.run_coroutine_threadsafe(_connect(session), loop)
    return Reader(session, loop, _result(connecting.result))


async def _connect(session: Session) -> asyncpg.Connection:
    connection: asyncpg.Connection = await asyncpg.connect(**session.options)
    await connection.execute(session.binding)
    return connection


async def _next(slices: AsyncGenerator[Rows]) -> Rows | None:
    return await anext(slices, None)


def _result(wait: Callable[[], Any]) -> Any:
    """What is waited for, with the driver's failures in our words and their class: their texts would hold the statement."""
    try:
        return wait()
    except asyncpg.QueryCanceledError:
        raise UnavailableError("the query took too long; narrow it") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        raise UnavailableError(f"the database cannot be read ({type(error).__name__})") from None
