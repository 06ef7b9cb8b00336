"""The composition root: the only module that wires settings, database, recipe and routes into an app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import yaml
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from audit_service.api import openapi, problems
from audit_service.api.cors import Cors
from audit_service.api.dependencies import Service
from audit_service.api.middleware import AccessLog
from audit_service.api.rates import AddressLimit
from audit_service.api.routes import (
    activity,
    adapters,
    chain,
    checkpoints,
    counts,
    docs,
    events,
    evidence,
    history,
    ingest,
    keys,
    operations,
    proofs,
    retention,
    sources,
    tenants,
    tlog,
    viewer_tokens,
)
from audit_service.core.event import EventLimits
from audit_service.core.redaction import Ruleset, compile_ruleset
from audit_service.ingest import Recipe
from audit_service.oidc import IdentityProvider, TokenRules, make_rules
from audit_service.provider_keys import ProviderKeys
from audit_service.settings import Settings
from audit_service.store.credentials import Installation
from audit_service.store.engine import open_database

DESCRIPTION = "Who did what, to what, from where: sealed in a hash chain that anybody can check."


class AuditApp(FastAPI):
    """FastAPI with our own outermost layers: the access log around everything, ingest past its machinery, and which pages elsewhere
    may read."""

    def build_middleware_stack(self) -> ASGIApp:
        """Starlette's stack, inside ours."""
        service: Service = self.state.service
        rest = Cors(AddressLimit(super().build_middleware_stack()), service.settings.cors_origins)
        return AccessLog(ingest.IngestFirst(self, rest))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As FastAPI does it; but what `IngestFirst` takes goes there at once. FastAPI would first look through the environment for
        settings of OpenTelemetry, at every request."""
        if self.middleware_stack is not None and ingest.is_post(scope):
            await self.middleware_stack(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings) -> FastAPI:
    """The web application of one worker. `settings.database_url` must be set; `serve` fills it in for the embedded server.

    Raises ValueError for settings of redaction or of the identity provider that do not compile: nothing runs half-configured.
    """
    if settings.database_url is None:
        raise ValueError("create_app needs AUDIT_DATABASE_URL; `audit-service serve` starts an embedded PostgreSQL")
    service = _service(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = AuditApp(
        title="audit-service",
        version=version("audit-service"),
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        docs_url=None,  # a page of our own, with a policy that lets it work
        redoc_url=None,
        # A request whose path only lacks or has a final slash is a mistake to show, not to redirect with its body.
        redirect_slashes=False,
    )
    app.state.service = service
    problems.install(app)
    app.router.routes.extend(ingest.routes)
    # `history` and `proofs` before `events`, whose path for one event takes whatever follows.
    for module in (
        history, proofs, events, activity, counts, sources, adapters, chain, checkpoints, evidence, tlog, keys,
        viewer_tokens, tenants, retention, operations,
    ):  # fmt: skip
        app.include_router(module.router)
    if settings.docs_enabled:
        app.include_router(docs.router)
    openapi.install(app)
    return app


def rules_of(settings: Settings) -> Ruleset:
    """The redaction rules. Raises ValueError naming the setting's bad entry."""
    return compile_ruleset(
        extra_words=settings.redact_words,
        harmless_words=settings.redact_harmless_words,
        extra_patterns=settings.redact_patterns,
        exempt_paths=settings.redact_exempt_paths,
        pointers=settings.redact_pointers,
    )


def token_rules_of(settings: Settings) -> TokenRules | None:
    """Whose bearer JWTs are accepted; None: nobody's. Raises ValueError naming the setting."""
    if settings.oidc_issuer is None:
        return None
    return make_rules(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        algorithms=settings.oidc_algorithms,
        types=settings.oidc_token_types,
        jwks_url=settings.oidc_jwks_url,
        claims=settings.oidc_claims,
        ceiling=settings.oidc_max_scopes,
        leeway_seconds=settings.oidc_leeway_seconds,
    )


def recipe_of(settings: Settings, installation: Installation, rules: Ruleset | None = None) -> Recipe:
    """What the ingest path needs to know."""
    limits = EventLimits(
        depth=settings.depth_limit,
        string_characters=settings.string_limit_characters,
        keys=settings.keys_limit,
        changes=settings.changes_limit,
    )
    ignored = frozenset(settings.ignored_fields)
    return Recipe(rules or rules_of(settings), limits, installation.secret, settings.keep_noop, ignored)


def _service(settings: Settings) -> Service:
    rules, provider = rules_of(settings), _provider(settings)
    assert settings.database_url is not None  # noqa: S101 - checked by the caller
    database = open_database(
        settings.database_url.get_secret_value(),
        pool_connections=settings.database_pool_connections,
        statement_timeout_seconds=settings.statement_timeout_seconds,
    )
    return Service(settings, database, lambda installation: recipe_of(settings, installation, rules), provider)


def _provider(settings: Settings) -> IdentityProvider | None:
    rules = token_rules_of(settings)
    if rules is None:
        return None
    keys = ProviderKeys(
        rules.issuer,
        settings.oidc_jwks_url,
        rules.algorithms,
        lifetime_seconds=settings.oidc_keys_seconds,
        grace_seconds=settings.oidc_keys_grace_seconds,
    )
    return IdentityProvider(rules, keys)


def openapi_yaml() -> str:
    """The OpenAPI document of a service with every default, as it stands in `openapi.yaml`. Touches no database."""
    app = create_app(Settings(database_url=SecretStr("postgresql://unused")))
    return yaml.safe_dump(app.openapi(), sort_keys=False, allow_unicode=True, width=120)
