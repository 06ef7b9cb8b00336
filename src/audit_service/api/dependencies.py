"""What every route needs: the service behind the app, who is asking, and whether they may.

A route names its scope by the type of its credential: `Reader`, `Exporter`, `Admin`. What speaks of the whole log takes `Verifier`,
`WholeReader`, `WholeExporter` or `WholeAdmin`, who see every event with every field: a size, a hash or a count over all of it would
tell others of what they do not see.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from audit_service.api.logs import APPEND_SECONDS, PENDING, UNNOTED, Scope, log
from audit_service.api.peer import Proxies, address_of, peer_address
from audit_service.api.rates import CREDENTIAL, Rates, Turns
from audit_service.core.api_key import is_mistyped, key_hash
from audit_service.core.key_limits import KeyLimits
from audit_service.core.own_event import Actor
from audit_service.core.places import Places
from audit_service.core.sight import Sight
from audit_service.core.token import looks_like_token
from audit_service.errors import (
    AuditError,
    ForbiddenError,
    InvalidTokenError,
    NotFoundError,
    UnauthenticatedError,
    UngrantedTokenError,
)
from audit_service.ingest import Log, Recipe, stored_form
from audit_service.oidc import IdentityProvider
from audit_service.settings import Settings
from audit_service.store import credentials
from audit_service.store.checkpoints import Lag
from audit_service.store.credentials import SYSTEM_TENANT, Credential, Installation
from audit_service.store.engine import Database, connected
from audit_service.store.failures import translated
from audit_service.store.group_commit import GroupCommit
from audit_service.store.tiles import TileCache
from audit_service.stored_tree import StoredTree
from audit_service.verified import VerifiedLogs
from audit_service.watch import Place, Tools, Watch, find_place

# A revoked key is refused within this time by every worker.
CREDENTIAL_CACHE_SECONDS = 1.0
CREDENTIAL_CACHE_ENTRIES = 10_000
TOUCH_SECONDS = 60.0
KEY_CHARACTERS = 256
EXPORT_RETRY_SECONDS = VERIFY_RETRY_SECONDS = 5
# Where, in a request's state, stands why it was refused (and in CREDENTIAL who is asking): for what is noted when the answer is out.
REFUSED = "refused"
# And how many of its events were refused although the request was not.
EVENTS_REFUSED = "events_refused"


class Refused(NamedTuple):
    """Why a request was refused, in our words. `place`, `actor`: whose the credential was, where that is known."""

    reason: str
    place: Place | None = None
    actor: Actor | None = None


@dataclass(slots=True)
class KnownLags:
    """How far signing was behind when `/metrics` last looked (`time.monotonic`), and the lock of whoever looks."""

    found: Sequence[Lag] = ()
    read_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class Service:
    """The composed service: what `app.py` wires and the routes use."""

    settings: Settings
    database: Database
    make_recipe: Callable[[Installation], Recipe]
    provider: IdentityProvider | None = None  # whose bearer JWTs are accepted
    # Whose address a request comes from, and how much is granted to whom.
    proxies: Proxies = field(init=False)
    rates: Rates = field(init=False)
    turns: Turns = field(init=False)
    exports: Places = field(init=False)
    verifies: Places = field(init=False)
    tile_cache: TileCache = field(default_factory=TileCache)
    lags: KnownLags = field(default_factory=KnownLags)
    watch: Watch = field(init=False)
    _installation: Installation | None = None
    _recipe: Recipe | None = None
    _appender: GroupCommit | None = None
    _credentials: OrderedDict[bytes, tuple[float, Credential]] = field(default_factory=OrderedDict)
    # What the database is being asked about keys, and since when.
    _asked: dict[bytes, tuple[float, asyncio.Task[Credential | None]]] = field(default_factory=dict)
    _logs: dict[int, Log] = field(default_factory=dict)  # a tenant's never changes
    _touched: dict[str, float] = field(default_factory=dict)
    _tools: Tools | None = None

    async def watch_tools(self) -> Tools:
        """What the watch writes with."""
        if self._tools is None:
            recipe, installation = await self.recipe(), await self.installation()
            async with translated(), connected(self.database.reads) as connection:
                system = await find_place(connection, SYSTEM_TENANT)
            self._tools = Tools(recipe, self.appender(recipe), installation.service_name, system)
        return self._tools

    def __post_init__(self) -> None:
        settings = self.settings
        self.proxies = Proxies.of(settings.trusted_proxies, settings.forwarded_header)
        self.rates, self.turns = Rates(settings), Turns(settings.reads_limit_per_key)
        self.exports = Places(
            "exports",
            limit=settings.exports_limit,
            per_key=settings.exports_limit_per_key,
            retry_after_seconds=EXPORT_RETRY_SECONDS,
        )
        self.verifies = Places(
            "verifications",
            limit=settings.verifies_limit,
            per_key=settings.verifies_limit_per_key,
            retry_after_seconds=VERIFY_RETRY_SECONDS,
        )
        self.watch = Watch(self.watch_tools, dropped=UNNOTED.inc)

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

    async def close(self) -> None:
        """Let what is on its way be committed, then close every connection."""
        await self.watch.close()
        if self._appender is not None:
            await self._appender.close()
        if self.provider is not None:
            await self.provider.close()
        await self.database.dispose()

    async def log_of(self, credential: Credential) -> Log:
        """The log of a credential's tenant, with what the credential may post there."""
        log = self._logs.get(credential.log_id)
        if log is None:
            log = Log(credential.log_id, (await self.installation()).service_name, credential.log_key)
            self._logs[credential.log_id] = log
        return log if credential.posting is None else replace(log, posting=credential.posting)

    async def tree_of(self, log_id: int, log_key: str) -> StoredTree:
        """The hash tree of a log, for proofs."""
        name = f"{(await self.installation()).service_name}/t/{log_key}"
        return StoredTree(self.database.reads, log_id, name, self.tile_cache)

    async def verified_logs(self) -> VerifiedLogs:
        """What the background verification found. Raises UnavailableError before the first look at the database."""
        return VerifiedLogs(self.settings.data_dir, (await self.installation()).secret)

    async def stored_form(self, credential: Credential) -> Callable[[str, str], str]:
        """(field, value asked for) → what it looks like in the credential's log."""
        recipe, log = await self.recipe(), await self.log_of(credential)
        return lambda field_, value: stored_form(field_, value, recipe, log)

    async def credential(self, key: str, scope: Scope | None = None) -> Credential | None:
        """The live credential of a key or viewer token, from a cache that forgets after a second. Raises RateLimitedError, for a
        request's scope."""
        digest = key_hash(key)
        cached = self._cached(digest, scope)
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
        if self._asked.get(digest, (0.0, None))[1] is question:
            del self._asked[digest]
        if not question.cancelled():
            question.exception()  # whoever asked may be gone: then it is nobody's

    async def _find(self, key: str, digest: bytes, began: float) -> Credential | None:
        """The live credential of a key or viewer token, from the database into the cache."""
        async with translated(), connected(self.database.reads) as connection:
            found = await credentials.find_credential(connection, key)
        if found is None:
            self._credentials.pop(digest, None)
            return None
        credential, seconds_left = found
        # Counted from the question: what is revoked after it is not in the answer.
        self._cache(digest, credential, began + min(CREDENTIAL_CACHE_SECONDS, seconds_left))
        return credential

    async def why_dead(self, key: str) -> Refused:
        """Why there is no live credential of a key or token, and whose it was: for the log alone. Never fails."""
        try:
            async with translated(), connected(self.database.reads) as connection:
                dead = await credentials.find_dead(connection, key)
        except AuditError:
            return Refused("a credential that could not be looked up")
        if dead is None:
            return Refused("an unknown key")
        return Refused(dead.why, Place(dead.log_id, dead.log_key), Actor(dead.kind, dead.credential_id))

    async def token_credential(self, token: str, provider: IdentityProvider, scope: Scope) -> Credential:
        """The credential of a bearer JWT, from the same cache, which never outlasts the token.

        Raises InvalidTokenError, UngrantedTokenError, ProviderError, RateLimitedError.
        """
        digest = key_hash(token)
        cached = self._cached(digest, scope)
        if cached is not None:
            return cached
        grant = await provider.check_token(token)
        async with translated(), connected(self.database.reads) as connection:
            tenant = await credentials.find_tenant(connection, grant.tenant)
        if tenant is None:
            raise UngrantedTokenError("no such tenant")
        sight = Sight(server_ids=grant.server_ids).with_notes(grant.scopes)
        of_tenant = (grant.key_id, grant.tenant, tenant.log_id, tenant.log_key)
        found = Credential(*of_tenant, grant.scopes, sight, "jwt", posting=KeyLimits(sight).posting)
        seconds = min(CREDENTIAL_CACHE_SECONDS, provider.seconds_left(grant))
        self._cache(digest, found, time.monotonic() + seconds)
        return found

    def _cached(self, digest: bytes, scope: Scope | None) -> Credential | None:
        until, credential = self._credentials.get(digest, (0.0, None))
        if credential is not None and scope is not None and not credential.may_be_used_from(address_of(scope)):
            credential = None  # who found a key of other networks is not told by the time, either, that it is one
        if credential is None and scope is not None:
            # Never seen, or no good any more: where many were no good, the database is not asked about another one.
            self.rates.check_address(scope)
        return credential if until > time.monotonic() else None

    def _cache(self, digest: bytes, credential: Credential, until: float) -> None:
        self._credentials[digest] = (until, credential)
        self._credentials.move_to_end(digest)
        while len(self._credentials) > CREDENTIAL_CACHE_ENTRIES:
            self._credentials.popitem(last=False)

    async def touch(self, key_id: str) -> None:
        """Note that a key was used, once a minute."""
        now = time.monotonic()
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
    auto_error=False,
    description="An API key, `aud_…`, a viewer token, `auv_…`, or a JWT of the identity provider, where one is configured",
)


async def authenticate(request: Request) -> Credential:
    """Who is asking, by `Authorization: Bearer`. Raises UnauthenticatedError, the same for every reason a key or a token is no good,
    ForbiddenError for a token that grants nothing, RateLimitedError when too many from the same address were no good."""
    try:
        return await _authenticate(request)
    except UnauthenticatedError:
        service_of(request).rates.note_failure(request.scope)
        raise


async def _authenticate(request: Request) -> Credential:
    key, provider = _bearer_key(request), service_of(request).provider
    if provider is not None and looks_like_token(key):
        return await authenticate_token(request, key, provider)
    return await authenticate_key(request, key)


def authorization_of(request: Request) -> str:
    """The header Authorization; empty where there are several: whoever stands before us may have looked at another one."""
    values = request.headers.getlist("authorization")
    return values[0] if len(values) == 1 else ""


def _bearer_key(request: Request) -> str:
    """What `Authorization: Bearer` brings, however it is spelled; empty for anything else."""
    scheme, _, key = authorization_of(request).partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


async def authenticate_token(request: Request, token: str, provider: IdentityProvider) -> Credential:
    """Whose JWT it is. Raises InvalidTokenError, ForbiddenError, ProviderError."""
    try:
        credential = await service_of(request).token_credential(token, provider, request.scope)
    except (InvalidTokenError, UngrantedTokenError) as error:
        log.info("token refused", reason=error.reason)
        _refuse(request, Refused(f"a token of the identity provider: {error.reason}"))
        raise
    _note(request, credential)
    return credential


async def authenticate_key(request: Request, key: str) -> Credential:
    """Whose API key or viewer token it is. Raises UnauthenticatedError."""
    if not key:
        _refuse(request, Refused("no credential"))
        raise UnauthenticatedError("send an API key: Authorization: Bearer aud_…")
    possible = len(key) <= KEY_CHARACTERS and not is_mistyped(key)
    service = service_of(request)
    credential = await service.credential(key, request.scope) if possible else None
    if credential is None:
        _refuse(request, await service.why_dead(key) if possible else Refused("a mistyped key"))
        raise UnauthenticatedError("the API key is not valid")
    if not credential.may_be_used_from(peer_address(request)):
        # Whoever found the key is not told that it is one: the database is asked as often as about one that is none.
        await service.why_dead(key)
        log.info("key refused", reason="its networks do not hold the peer's address", key=credential.key_id)
        place = Place(credential.log_id, credential.log_key)
        _refuse(request, Refused("a key from another network", place, Actor(credential.kind, credential.key_id)))
        raise UnauthenticatedError("the API key is not valid")
    if credential.kind == "api_key":
        await service.touch(credential.key_id)
    _note(request, credential)
    return credential


def _note(request: Request, credential: Credential) -> None:
    """For the access log, and for what is noted of the request."""
    state = request.scope.setdefault("state", {})
    state["key_id"], state[CREDENTIAL] = credential.key_id, credential


def _refuse(request: Request, refused: Refused) -> None:
    request.scope.setdefault("state", {})[REFUSED] = refused


def require_scope(credential: Credential, scope: str) -> Credential:
    """The credential, if it has the scope; no scope implies another. Raises ForbiddenError."""
    if scope not in credential.scopes:
        raise ForbiddenError(f"the credential lacks the scope {scope}")
    return credential


def require_whole(credential: Credential) -> Credential:
    """The credential, if it sees every event with every field. One that does not see the service's entries about itself is let through:
    a proof over the log with holes in it would be none. Raises ForbiddenError."""
    if not credential.sight.is_whole:
        raise ForbiddenError("this speaks of the whole log, and the credential sees a part of it")
    return credential


async def authorize(request: Request, scope: str, *, whole: bool = False) -> Credential:
    """Who is asking, with the scope, not too often, and, if asked for, with the sight of the whole log. Raises UnauthenticatedError,
    ForbiddenError, RateLimitedError."""
    credential = await authenticate(request)
    service_of(request).rates.admit(request.scope, credential, ingest=scope == "ingest")
    try:
        require_scope(credential, scope)
        return require_whole(credential) if whole else credential
    except ForbiddenError:
        lacking = "with sight of a part of the log" if scope in credential.scopes else f"without the scope {scope}"
        _refuse(request, Refused(lacking))
        raise


def scoped(scope: str, *, whole: bool = False) -> Callable[[Request], Coroutine[Any, Any, Credential]]:
    """`authorize` as a dependency."""

    async def dependency(request: Request) -> Credential:
        return await authorize(request, scope, whole=whole)

    return dependency


Reader = Annotated[Credential, Depends(scoped("read"))]
WholeReader = Annotated[Credential, Depends(scoped("read", whole=True))]
Exporter = Annotated[Credential, Depends(scoped("export"))]
WholeExporter = Annotated[Credential, Depends(scoped("export", whole=True))]
Verifier = Annotated[Credential, Depends(scoped("verify", whole=True))]
Admin = Annotated[Credential, Depends(scoped("admin"))]
Issuer = Annotated[Credential, Depends(scoped("viewer"))]
WholeAdmin = Annotated[Credential, Depends(scoped("admin", whole=True))]


async def _turn(request: Request) -> AsyncIterator[None]:
    """A turn among the long reads of whoever asks. Who that is, nobody knows yet: what is no credential waits with its like."""
    holder = key_hash(_bearer_key(request))
    async with service_of(request).turns.take(holder):
        yield


async def open_to_all(request: Request) -> None:
    """For routes that ask for no credential: counts the request by its address, whatever it brings. Raises RateLimitedError."""
    service_of(request).rates.note_failure(request.scope)


def raw_path(request: Request) -> bytes:
    """The path as it was sent, where `%2F` is not `/`."""
    raw: bytes = request.scope["raw_path"]
    return raw.partition(b"?")[0]


async def provide_service(request: Request) -> Service:
    """`service_of` as a dependency."""
    return service_of(request)


async def server_of(server_id: str) -> str:
    """The server that a path names. Raises NotFoundError for what no server can be called."""
    if not 1 <= len(server_id) <= 255 or "\0" in server_id:
        raise NotFoundError("no such server")
    return server_id


# Dependencies are coroutines throughout: FastAPI calls a plain function in a thread, which costs a request more than it does itself.
ServiceOf = Annotated[Service, Depends(provide_service)]
# In a route it stands behind the credential: who is nobody is told so first.
ServerId = Annotated[str, Depends(server_of)]
_documented = Depends(_bearer)  # adds the scheme to openapi.yaml; the check itself is `authenticate`
documented_security = [_documented]
# For routers of reads that may take long: ends when the response was made.
reads_in_turn = [_documented, Depends(_turn)]
