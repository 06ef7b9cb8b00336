"""A file that is made while it is sent: the response of an export."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from audit_service.api.logs import Receive, Scope, Send
from audit_service.core.places import Places
from audit_service.errors import RateLimitedError, UnavailableError
from audit_service.store.credentials import Credential

# A client that takes nothing for this long is cut. The pieces are up to a few MB, and each has this long.
STALL_SECONDS = 120.0
# How long a request waits for a place, at least and at most; in between it is chance, so that what came together and is refused does not
# come together again. Refusing at once would cost more: who does not heed Retry-After would be back at once.
PATIENCE_SECONDS = (1.0, 3.0)
_LOOK_SECONDS = 0.2


async def in_place(
    places: Places, request: Request, credential: Credential, pieces: AsyncGenerator[bytes]
) -> AsyncGenerator[bytes]:
    """The same pieces, while one of the places is taken. Raises RateLimitedError, UnavailableError when none became free within
    PATIENCE_SECONDS, or nobody waits for it any more."""
    with ExitStack() as taken:
        try:
            taken.enter_context(places.take(credential.log_id, credential.key_id))
        except (RateLimitedError, UnavailableError) as refused:
            with places.queue(credential.log_id, credential.key_id, refused):
                await _wait(taken, places, request, credential)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece


async def _wait(taken: ExitStack, places: Places, request: Request, credential: Credential) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + random.uniform(*PATIENCE_SECONDS)  # noqa: S311 - to spread them, not to hide anything
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            taken.enter_context(places.take(credential.log_id, credential.key_id))
        except (RateLimitedError, UnavailableError):
            if clock() >= deadline or await request.is_disconnected():
                raise
        else:
            if await request.is_disconnected():
                raise UnavailableError(f"nobody waits for these {places.name} any more", places.retry_after_seconds)
            return


class Download(Response):
    """A response with a stream of pieces as its body; with a `filename`, for a file.

    Whoever stops reading stops the stream: it is asked for a piece only when the one before is on its way, and closed as soon as the
    client has gone, has taken nothing for STALL_SECONDS, or anything failed. Then the body never gets its end, which is how a client
    knows. (Starlette's StreamingResponse would leave the stream to the garbage collector.)
    """

    def __init__(
        self, stream: AsyncGenerator[bytes], first: bytes, *, media_type: str, filename: str | None = None
    ) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        if filename is not None:
            self.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
        self.headers["Cache-Control"] = "no-store"
        self._stream, self._first = stream, first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file. Raises ClientDisconnect, and what the stream raises."""
        del scope
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise ClientDisconnect
            sending.result()
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.wait((sending, gone))
            await self._stream.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await _send_piece(send, self._first)
        async for piece in self._stream:
            await _send_piece(send, piece)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_piece(send: Send, piece: bytes) -> None:
    try:
        async with asyncio.timeout(STALL_SECONDS):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except TimeoutError:
        raise ClientDisconnect from None


async def _disconnected(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
