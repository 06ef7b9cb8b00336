"""The identity provider's keys: fetched over HTTPS, kept for a while, fetched anew when they are old or one is unknown.

| age of the keys | what happens |
|---|---|
| none yet | the request waits for them; without them: ProviderError |
| up to `lifetime_seconds` | they are used; one that is not among them makes us look again |
| over it | the request waits for new ones; while the provider does not answer, the old ones are used and it is asked in the background |
| over `lifetime_seconds` + `grace_seconds` | ProviderError until the provider answers |

Whatever the reason, the provider is asked at most once in RETRY_SECONDS, by one request at a time, for at most FETCH_SECONDS: nobody's
made-up `kid` makes this service a load on another. Redirects are not followed; answers have a limit, and come uncompressed so that it
holds.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from math import inf
from urllib.parse import urlsplit

import httpx
import structlog
from jwt import PyJWK

from audit_service.core.event import parse_json
from audit_service.core.key_set import KeySet, parse_key_set
from audit_service.errors import InputError, InvalidTokenError, ProviderError

__all__ = ["ProviderKeys", "is_provider_url"]

FETCH_SECONDS = 5.0
RETRY_SECONDS = 10
ANSWER_LIMIT_BYTES = 256 * 1024
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})

log = structlog.get_logger("audit_service")


class ProviderKeys:
    """The keys of one worker. `clock` counts seconds and never goes back."""

    def __init__(
        self,
        issuer: str,
        jwks_url: str | None,
        algorithms: Collection[str],
        *,
        lifetime_seconds: float,
        grace_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer, self._jwks_url, self._algorithms = issuer, jwks_url, algorithms
        self._lifetime_seconds, self._bound_seconds = lifetime_seconds, lifetime_seconds + grace_seconds
        self._clock = clock
        self._keys = KeySet(())
        self._fetched_at = self._tried_at = -inf
        self._failed = False  # the last try
        self._fetching: asyncio.Task[None] | None = None
        # A connection kept open for minutes gains nothing, and closes under our hands.
        self._client = httpx.AsyncClient(timeout=FETCH_SECONDS, limits=httpx.Limits(max_keepalive_connections=0))

    async def find(self, key_id: str | None, algorithm: str, now: float) -> PyJWK:
        """The key of that name for that algorithm, in force at `now` (seconds since the Unix epoch).

        Raises InvalidTokenError when the provider has none, ProviderError when it cannot be asked.
        """
        await self._keep_current()
        key = self._keys.find(key_id, algorithm, now)
        if key is None:
            await self._fetch()
            key = self._keys.find(key_id, algorithm, now)
        if key is None and self._failed:
            raise ProviderError("a key is unknown, and the provider does not answer", RETRY_SECONDS)
        if key is None:
            raise InvalidTokenError("no key of the provider goes by this name")
        return key

    async def close(self) -> None:
        """End what is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._fetching
        await self._client.aclose()

    async def _keep_current(self) -> None:
        age_seconds = self._clock() - self._fetched_at
        if age_seconds < self._lifetime_seconds:
            return
        if self._failed and age_seconds < self._bound_seconds:
            self._begin_fetch()
            return
        await self._fetch()
        if self._clock() - self._fetched_at >= self._bound_seconds:
            raise ProviderError("the provider has not answered for too long", RETRY_SECONDS)

    async def _fetch(self) -> None:
        """Wait for the fetch under way, or for a new one when it is time for one. That it failed, only `_failed` tells."""
        self._begin_fetch()
        if self._fetching is not None:
            # A client that goes away must not take the fetch from the others who wait for it.
            await asyncio.shield(self._fetching)

    def _begin_fetch(self) -> None:
        under_way = self._fetching is not None and not self._fetching.done()
        if not under_way and self._clock() - self._tried_at >= RETRY_SECONDS:
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._try_fetch())

    async def _try_fetch(self) -> None:
        began_at = self._clock()
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                url = self._jwks_url or await self._discover()
                keys = parse_key_set(await self._get(url), self._algorithms)
        except (ProviderError, httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            self._failed = True
            reason = error.reason if isinstance(error, ProviderError) else type(error).__name__
            log.warning("identity provider's keys not fetched", reason=reason)
        else:
            # Counted from the question: what the provider withdrew while it answered is not new.
            self._keys, self._fetched_at, self._failed = keys, began_at, False
            log.info("identity provider's keys fetched", usable=len(keys.keys), left_out=keys.left_out)

    async def _discover(self) -> str:
        """`jwks_uri` as OpenID Connect Discovery 1.0 has it (sections 4.1 to 4.3); the document must be the issuer's own."""
        try:
            document = parse_json(await self._get(self._issuer.rstrip("/") + "/.well-known/openid-configuration"))
        except InputError:
            raise ProviderError("the provider's configuration is not well-formed JSON") from None
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise ProviderError("the provider's configuration is another issuer's")
        url = document.get("jwks_uri")
        # Plain HTTP, which is this host's, only for a provider on this host: a document from elsewhere must not send us to our neighbours.
        if not isinstance(url, str) or not is_provider_url(url) or (_is_plain(url) and not _is_plain(self._issuer)):
            raise ProviderError("the provider's configuration has no usable jwks_uri")
        return url

    async def _get(self, url: str) -> bytes:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with self._client.stream("GET", url, headers=headers, follow_redirects=False) as response:
            if response.status_code != 200:
                raise ProviderError(f"the provider answered {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ProviderError("the provider compressed its answer without being asked to")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > ANSWER_LIMIT_BYTES:
                    raise ProviderError(f"the provider answered more than {ANSWER_LIMIT_BYTES} bytes")
            return bytes(body)


def _is_plain(url: str) -> bool:
    return urlsplit(url).scheme == "http"


def is_provider_url(url: str) -> bool:
    """Whether it is an absolute HTTPS URL, or an HTTP one of this host, without user, password, fragment or white space."""
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)
        whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and not set(url) & set(' "<>\\^`{|}#')
    return secure and whole and plain and "@" not in parts.netloc
