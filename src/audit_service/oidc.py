"""Bearer JWTs of the panel's identity provider (OpenID Connect), as a numbered recipe.

1. parse      the envelope: one spelling, a pinned algorithm, a type that is accepted        (`core.token`)
2. find       the provider's key of that name and algorithm, fetched when need be             (`provider_keys`)
3. check      the signature                                                                   (`core.token`)
4. check      the claims: issuer, audience, times, and that it is meant for an API            (`core.claims`)
5. map        the claims to tenant, scopes and servers, never beyond the operator's ceiling   (`core.claims`)

Only step 2 waits. Until step 3 has succeeded nothing of the token is used but the name of a key. Every refusal looks the same from outside.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from audit_service.core.claims import ClaimMapping, Grant, check_claims, compile_mapping, map_claims
from audit_service.core.token import ALGORITHMS, check_signature, parse_claims, parse_token, parse_type
from audit_service.errors import InvalidTokenError
from audit_service.provider_keys import ProviderKeys, is_provider_url

__all__ = ["IdentityProvider", "TokenRules", "make_rules"]


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Whose tokens are accepted, and how they must be. Made by `make_rules`."""

    issuer: str
    audience: str
    algorithms: frozenset[str]
    types: frozenset[str]
    mapping: ClaimMapping
    leeway_seconds: float


class IdentityProvider:
    """The provider as one worker knows it. `clock` tells the time, in seconds since the Unix epoch."""

    def __init__(self, rules: TokenRules, keys: ProviderKeys, clock: Callable[[], float] = time.time) -> None:
        self._rules, self._keys, self._clock = rules, keys, clock

    async def check_token(self, text: str) -> Grant:
        """What a token grants now. Raises InvalidTokenError, UngrantedTokenError, ProviderError."""
        rules = self._rules
        # 1. parse
        token = parse_token(text, rules.algorithms)
        if token.type not in rules.types:
            raise InvalidTokenError("a token of another type")
        # 2. find
        key = await self._keys.find(token.key_id, token.algorithm, self._clock())
        # 3. check the signature
        check_signature(token, key)
        # 4. check the claims
        claims = parse_claims(token)
        check_claims(
            claims,
            issuer=rules.issuer,
            audience=rules.audience,
            leeway_seconds=rules.leeway_seconds,
            now=self._clock(),
        )
        # 5. map
        return map_claims(claims, rules.mapping)

    def seconds_left(self, grant: Grant) -> float:
        """How long a grant still lasts; negative when it is over."""
        return grant.ends_at + self._rules.leeway_seconds - self._clock()

    async def close(self) -> None:
        """End what is under way."""
        await self._keys.close()


def make_rules(
    *,
    issuer: str,
    audience: str | None,
    algorithms: Sequence[str],
    types: Sequence[str],
    jwks_url: str | None,
    claims: dict[str, Any],
    ceiling: Sequence[str],
    leeway_seconds: float,
) -> TokenRules:
    """The rules as configured. Raises ValueError naming the setting: what is half-configured lets in either nobody or everybody."""
    if not is_provider_url(issuer) or urlsplit(issuer).query:
        raise ValueError(
            "AUDIT_OIDC_ISSUER: must be an https:// URL (http:// of localhost for trying out) without a query"
        )
    if jwks_url is not None and not is_provider_url(jwks_url):
        raise ValueError("AUDIT_OIDC_JWKS_URL: must be an https:// URL (http:// of localhost for trying out)")
    if not audience:
        raise ValueError("AUDIT_OIDC_AUDIENCE: is required with AUDIT_OIDC_ISSUER")
    if not algorithms or not ALGORITHMS.issuperset(algorithms):
        raise ValueError(f"AUDIT_OIDC_ALGORITHMS: one or more of {', '.join(sorted(ALGORITHMS))}")
    if not types:
        raise ValueError("AUDIT_OIDC_TOKEN_TYPES: names no type")
    return TokenRules(
        issuer=issuer,
        audience=audience,
        algorithms=frozenset(algorithms),
        types=frozenset(map(parse_type, types)),
        mapping=compile_mapping(claims, ceiling),
        leeway_seconds=leeway_seconds,
    )
