"""What every route needs: the service behind the app, and who is asking."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from audit_service.api.logs import APPEND_SECONDS, PENDING, log
from audit_service.core.api_key import is_mistyped, key_hash
from audit_service.core.token import looks_like_token
from audit_service.errors import (
    ForbiddenError,
    InvalidTokenError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
    UngrantedTokenError,
)
from audit_service.ingest import Log, Recipe, stored_form
from audit_service.oidc import IdentityProvider
from audit_service.settings import Settings
from audit_service.store import credentials
from audit_service.store.credentials import Credential, Installation
from audit_service.store.engine import Database, connected
from audit_service.store.failures import translated
from audit_service.store.group_commit import GroupCommit
from audit_service.store.tiles import TileRoots
from audit_service.stored_tree import StoredTree
from audit_service.verified import VerifiedLogs

# A revoked key is refused within this time by every worker.
CREDENTIAL_CACHE_SECONDS = 1.0
CREDENTIAL_CACHE_ENTRIES = 10_000
TOUCH_SECONDS = 60.0
KEY_CHARACTERS = 256
EXPORT_RETRY_SECONDS = 5


@dataclass(slots=True)
class Service:
    """The composed service: what `app.py` wires and the routes use."""

    settings: Settings
    database: Database
    make_recipe: Callable[[Installation], Recipe]
    provider: IdentityProvider | None = None  # whose bearer JWTs are accepted
    exports: int = 0  # running now
    tile_roots: TileRoots = field(default_factory=TileRoots)
    _installation: Installation | None = None
    _recipe: Recipe | None = None
    _appender: GroupCommit | None = None
    _credentials: OrderedDict[bytes, tuple[float, Credential]] = field(default_factory=OrderedDict)
    # What the database is being asked about keys, and since when.
    _asked: dict[bytes, tuple[float, asyncio.Task[Credential | None]]] = field(default_factory=dict)
    _logs: dict[int, Log] = field(default_factory=dict)  # a tenant's never changes
    _touched: dict[str, float] = field(default_factory=dict)

    async def installation(self) -> Installation:
        """The installation's constants, read at the first use, so that workers start while the database is away."""
        if self._installation is None:
            async with translated(), connected(self.database.reads) as connection:
                self._installation = await credentials.fetch_installation(connection)
        return self._installation

    async def recipe(self) -> Recipe:
        """The ingest recipe."""
        if self._recipe is None:
            self._recipe = self.make_recipe(await self.installation())
        return self._recipe

    def appender(self, recipe: Recipe) -> GroupCommit:
        """The worker's one way into the log, so that what arrives together is committed together."""
        if self._appender is None:
            self._appender = GroupCommit(
                self.database.writes,
                recipe.rules.digest,
                pending_limit_events=self.settings.pending_limit_events,
                observe_seconds=APPEND_SECONDS.observe,
            )
            PENDING.set_function(lambda: self._appender.pending_events if self._appender else 0)
        return self._appender

    @contextmanager
    def export_slot(self) -> Iterator[None]:
        """One of the exports that may run at a time: each has a process of its own. Raises UnavailableError."""
        if self.exports >= self.settings.exports_limit:
            raise UnavailableError("too many exports are running", retry_after_seconds=EXPORT_RETRY_SECONDS)
        self.exports += 1
        try:
            yield
        finally:
            self.exports -= 1

    async def close(self) -> None:
        """Let what is on its way be committed, then close every connection."""
        if self._appender is not None:
            await self._appender.close()
        if self.provider is not None:
            await self.provider.close()
        await self.database.dispose()

    async def log_of(self, credential: Credential) -> Log:
        """The log of a credential's tenant."""
        log = self._logs.get(credential.log_id)
        if log is None:
            log = Log(credential.log_id, (await self.installation()).service_name, credential.log_key)
            self._logs[credential.log_id] = log
        return log

    async def tree_of(self, log_id: int, log_key: str) -> StoredTree:
        """The hash tree of a log, for proofs."""
        name = f"{(await self.installation()).service_name}/t/{log_key}"
        return StoredTree(self.database.reads, log_id, name, self.tile_roots)

    async def verified_logs(self) -> VerifiedLogs:
        """What the background verification found. Raises UnavailableError before the first look at the database."""
        return VerifiedLogs(self.settings.data_dir, (await self.installation()).secret)

    async def stored_form(self, credential: Credential) -> Callable[[str, str], str]:
        """(field, value asked for) → what it looks like in the credential's log."""
        recipe, log = await self.recipe(), await self.log_of(credential)
        return lambda field_, value: stored_form(field_, value, recipe, log)

    async def credential(self, key: str) -> Credential | None:
        """The live credential of a key, from a cache that forgets after a second."""
        digest = key_hash(key)
        cached = self._cached(digest)
        if cached is not None:
            return cached
        # All clients of a busy key miss the cache at the same moment, every second: one question for all of them, as old as the cache
        # may be at most.
        now = time.monotonic()
        began, question = self._asked.get(digest, (0.0, None))
        if question is None or question.done() or began + CREDENTIAL_CACHE_SECONDS <= now:
            question = asyncio.create_task(self._find(key, digest, now))
            self._asked[digest] = now, question
            question.add_done_callback(lambda done: self._answered(digest, done))
        return await asyncio.shield(question)  # who asked first may go away

    def _answered(self, digest: bytes, question: asyncio.Task[Credential | None]) -> None:
        if self._asked[digest][1] is question:
            del self._asked[digest]
        if not question.cancelled():
            question.exception()  # whoever asked may be gone: then it is nobody's

    async def _find(self, key: str, digest: bytes, began: float) -> Credential | None:
        """The live credential of a key, from the database into the cache."""
        async with translated(), connected(self.database.reads) as connection:
            found = await credentials.find_credential(connection, key)
        if found is None:
            self._credentials.pop(digest, None)
            return None
        # Counted from the question: what is revoked after it is not in the answer.
        self._cache(digest, found, began + CREDENTIAL_CACHE_SECONDS)
        await self._touch(found.key_id, began)
        return found

    async def token_credential(self, token: str, provider: IdentityProvider) -> Credential:
        """The credential of a bearer JWT, from the same cache, which never outlasts the token.

        Raises InvalidTokenError, UngrantedTokenError, ProviderError.
        """
        digest = key_hash(token)
        cached = self._cached(digest)
        if cached is not None:
            return cached
        grant = await provider.check_token(token)
        async with translated(), connected(self.database.reads) as connection:
            tenant = await credentials.find_tenant(connection, grant.tenant)
        if tenant is None:
            raise UngrantedTokenError("no such tenant")
        found = Credential(
            grant.key_id, grant.tenant, tenant.log_id, tenant.log_key, grant.scopes, server_ids=grant.server_ids
        )
        self._cache(digest, found, time.monotonic() + min(CREDENTIAL_CACHE_SECONDS, provider.seconds_left(grant)))
        return found

    def _cached(self, digest: bytes) -> Credential | None:
        until, credential = self._credentials.get(digest, (0.0, None))
        return credential if until > time.monotonic() else None

    def _cache(self, digest: bytes, credential: Credential, until: float) -> None:
        self._credentials[digest] = (until, credential)
        self._credentials.move_to_end(digest)
        while len(self._credentials) > CREDENTIAL_CACHE_ENTRIES:
            self._credentials.popitem(last=False)

    async def _touch(self, key_id: str, now: float) -> None:
        if now - self._touched.get(key_id, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._touched[key_id] = now
            async with translated(), connected(self.database.writes) as connection:
                await credentials.touch_key(connection, key_id)
                await connection.commit()


def service_of(request: Request) -> Service:
    """The service behind a request's app."""
    service: Service = request.app.state.service
    return service


_bearer = HTTPBearer(
    auto_error=False, description="An API key, `aud_…`, or a JWT of the identity provider, where one is configured"
)


async def authenticate(request: Request) -> Credential:
    """Who is asking, by `Authorization: Bearer`. Raises UnauthenticatedError, the same for every reason a key or a token is no good,
    and ForbiddenError for a token that grants nothing."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthenticatedError("send an API key: Authorization: Bearer aud_…")
    key, provider = key.strip(), service_of(request).provider
    if provider is not None and looks_like_token(key):
        return await authenticate_token(request, key, provider)
    return await authenticate_key(request, key)


async def authenticate_token(request: Request, token: str, provider: IdentityProvider) -> Credential:
    """Whose JWT it is. Raises InvalidTokenError, ForbiddenError, ProviderError."""
    try:
        credential = await service_of(request).token_credential(token, provider)
    except (InvalidTokenError, UngrantedTokenError) as error:
        log.info("token refused", reason=error.reason)
        raise
    if credential.server_ids is not None:
        # Reads do not heed the limit yet: whoever may see some servers would see all of them.
        raise ForbiddenError("tokens limited to servers are not accepted yet")
    _note(request, credential)
    return credential


async def authenticate_key(request: Request, key: str) -> Credential:
    """Whose key it is. Raises UnauthenticatedError."""
    if not key:
        raise UnauthenticatedError("send an API key: Authorization: Bearer aud_…")
    possible = len(key) <= KEY_CHARACTERS and not is_mistyped(key)
    credential = await service_of(request).credential(key) if possible else None
    if credential is None:
        raise UnauthenticatedError("the API key is not valid")
    _note(request, credential)
    return credential


def _note(request: Request, credential: Credential) -> None:
    """For the access log."""
    request.scope.setdefault("state", {})["key_id"] = credential.key_id


def require_scope(credential: Credential, scope: str) -> Credential:
    """The credential, if it has the scope; no scope implies another. Raises ForbiddenError."""
    if scope not in credential.scopes:
        raise ForbiddenError(f"the credential lacks the scope {scope}")
    return credential


async def authorize(request: Request, scope: str) -> Credential:
    """Who is asking, with the scope. Raises UnauthenticatedError, ForbiddenError."""
    return require_scope(await authenticate(request), scope)


def scoped(scope: str) -> Callable[[Request], Coroutine[Any, Any, Credential]]:
    """`authorize` as a dependency."""

    async def dependency(request: Request) -> Credential:
        return await authorize(request, scope)

    return dependency


def raw_path(request: Request) -> bytes:
    """The path as it was sent, where `%2F` is not `/`."""
    raw: bytes = request.scope["raw_path"]
    return raw.partition(b"?")[0]


def server_of(server_id: str) -> str:
    """The server that a path names. Raises NotFoundError for what no server can be called."""
    if not 1 <= len(server_id) <= 255 or "\0" in server_id:
        raise NotFoundError("no such server")
    return server_id


ServiceOf = Annotated[Service, Depends(service_of)]
# In a route it stands behind the credential: who is nobody is told so first.
ServerId = Annotated[str, Depends(server_of)]
_documented = Depends(_bearer)  # adds the scheme to openapi.yaml; the check itself is `authenticate`
documented_security = [_documented]
