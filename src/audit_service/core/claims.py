"""The claims of a bearer JWT: what has to be in them, and what they grant by the operator's mapping.

The mapping (AUDIT_OIDC_CLAIMS) names a claim for each thing; nothing is granted that it does not name:

    {"tenant":  {"claim": "org", "map": {"acme-gmbh": "acme"}, "default": "default"},
     "scopes":  {"claim": "/realm_access/roles", "map": {"audit-reader": ["read"], "auditor": ["read", "export", "verify"]}},
     "servers": {"claim": "servers", "all": "*"},
     "subject": "sub"}

A claim's name that starts with `/` is a JSON Pointer (RFC 6901) through objects; any other is a member as it is, dots and colons and all.

- `tenant`: a string. Through `map` where there is one; a value it lacks is no tenant. `default` is for tokens without the claim only.
  Only `map` leads to `system`, the service's own tenant: whoever names organisations at the provider could name one so.
- `scopes`: a list of strings, or one with spaces between (as `scope` is). Each is looked up in `map`; what is not in it grants nothing.
  What they grant together is cut to the operator's ceiling (AUDIT_OIDC_MAX_SCOPES).
- `servers`: a list of server ids, strings or integers; the marker `all` among them lifts the limit. Without this rule every token is
  for all servers; with it, a token without the claim is for nobody.
- `subject`: who it is, a string; `sub` when unset.

A claim that is there but of another form, null included, is never read as missing.

>>> mapping = compile_mapping({"tenant": {"default": "acme"}, "scopes": {"claim": "scope", "map": {"audit": ["read", "admin"]}}}, ["read"])
>>> grant = map_claims({"iss": "https://id.example", "sub": "u1", "scope": "openid audit", "exp": 9}, mapping)
>>> grant.tenant, sorted(grant.scopes), grant.server_ids, grant.key_id
('acme', ['read'], None, 'jwt:f8c413dbe80b')
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from audit_service.core.api_key import SCOPES
from audit_service.core.entry import JSONObject
from audit_service.core.own_event import SYSTEM_TENANT
from audit_service.core.token import parse_time
from audit_service.errors import InvalidTokenError, UngrantedTokenError

__all__ = ["LIFETIME_LIMIT_SECONDS", "ClaimMapping", "Grant", "check_claims", "compile_mapping", "map_claims"]

# A token cannot be revoked here: one that is good for longer than a working day is a key, and keys are ours to give.
LIFETIME_LIMIT_SECONDS = 24 * 3600
NAME_CHARACTERS = 255
SERVERS_LIMIT = 1000
KEY_ID_DIGITS = 12

# Of an ID token (OpenID Connect Core 2 and 3.3.2.11) and a logout token: signed by the same keys, shown to others than we are.
_OTHER_TOKENS_CLAIMS = frozenset({"nonce", "at_hash", "c_hash", "s_hash", "events"})
# As Keycloak says in the claims what it leaves out of the header. A tuple: whatever a claim holds can be looked for in it.
_OTHER_TOKENS_TYPES = ("ID", "Refresh", "Offline", "Logout")


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _TenantRule(_Rule):
    claim: str | None = Field(None, min_length=1)
    map: dict[str, str] | None = None
    default: str | None = Field(None, min_length=1)


class _ScopesRule(_Rule):
    claim: str = Field(min_length=1)
    map: dict[str, list[str]] = Field(min_length=1)


class _ServersRule(_Rule):
    claim: str = Field(min_length=1)
    all: str | None = Field(None, min_length=1)


class _Rules(_Rule):
    tenant: _TenantRule
    scopes: _ScopesRule
    servers: _ServersRule | None = None
    subject: str = Field("sub", min_length=1)


@dataclass(frozen=True, slots=True)
class ClaimMapping:
    """A mapping that makes sense, and the scopes that no claim goes beyond."""

    rules: _Rules
    ceiling: frozenset[str]


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token grants until `ends_at` (seconds since the Unix epoch). `server_ids` is None for all servers."""

    key_id: str
    tenant: str
    scopes: frozenset[str]
    server_ids: frozenset[str] | None
    ends_at: float


def compile_mapping(written: dict[str, Any], ceiling: Sequence[str]) -> ClaimMapping:
    """The mapping as configured. Raises ValueError naming the place that is wrong."""
    try:
        rules = _Rules.model_validate(written)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"AUDIT_OIDC_CLAIMS: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if rules.tenant.claim is None and rules.tenant.default is None:
        raise ValueError("AUDIT_OIDC_CLAIMS: tenant needs a claim or a default")
    if rules.tenant.default == SYSTEM_TENANT:
        raise ValueError(f"AUDIT_OIDC_CLAIMS: tenant.default: only tenant.map leads to {SYSTEM_TENANT}")
    granted = {scope for scopes in rules.scopes.map.values() for scope in scopes}
    for name, scopes in (("AUDIT_OIDC_CLAIMS: scopes.map", granted), ("AUDIT_OIDC_MAX_SCOPES", set(ceiling))):
        if not scopes or not scopes <= set(SCOPES):
            raise ValueError(f"{name}: scopes are one or more of {', '.join(SCOPES)}")
    return ClaimMapping(rules, frozenset(ceiling))


def check_claims(claims: JSONObject, *, issuer: str, audience: str, leeway_seconds: float, now: float) -> None:
    """Whether the token is from `issuer` for `audience`, meant for an API, and in force at `now` (seconds since the Unix epoch).

    Issuer and audience are compared character by character. Raises InvalidTokenError.
    """
    if claims.get("iss") != issuer:
        raise InvalidTokenError("from another issuer")
    audiences = claims.get("aud")
    if audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise InvalidTokenError("for another audience")
    if _OTHER_TOKENS_CLAIMS & claims.keys() or claims.get("typ") in _OTHER_TOKENS_TYPES:
        raise InvalidTokenError("an ID, refresh or logout token")
    if "cnf" in claims:  # RFC 7800: good only with a proof of possession, and a bearer brings none
        raise InvalidTokenError("bound to a key of its client")
    _check_times(claims, leeway_seconds, now)


def map_claims(claims: JSONObject, mapping: ClaimMapping) -> Grant:
    """What checked claims grant. Raises InvalidTokenError without a subject, UngrantedTokenError when they grant nothing."""
    rules = mapping.rules
    subject, ends_at = _claim(claims, rules.subject), parse_time(claims.get("exp"))
    if not _is_name(subject) or ends_at is None:
        raise InvalidTokenError("without a subject")
    identity = sha256(orjson.dumps([claims.get("iss"), subject])).hexdigest()
    return Grant(
        key_id=f"jwt:{identity[:KEY_ID_DIGITS]}",
        tenant=_tenant(claims, rules.tenant),
        scopes=_scopes(claims, rules.scopes, mapping.ceiling),
        server_ids=None if rules.servers is None else _server_ids(claims, rules.servers),
        ends_at=ends_at,
    )


def _check_times(claims: JSONObject, leeway_seconds: float, now: float) -> None:
    """`exp` is required (RFC 7519 leaves it open); `nbf` and `iat` may be missing, but not be anything else than times."""
    ends_at = parse_time(claims.get("exp"))
    if ends_at is None:
        raise InvalidTokenError("without a time at which it expires")
    if now >= ends_at + leeway_seconds:
        raise InvalidTokenError("expired")
    if ends_at > now + LIFETIME_LIMIT_SECONDS + leeway_seconds:
        raise InvalidTokenError(f"good for more than {LIFETIME_LIMIT_SECONDS} seconds")
    for name in ("nbf", "iat"):
        starts_at = parse_time(claims.get(name, 0))
        if starts_at is None or now < starts_at - leeway_seconds:
            raise InvalidTokenError(f"{name} is not a time that has come")


def _tenant(claims: JSONObject, rule: _TenantRule) -> str:
    value = _MISSING if rule.claim is None else _claim(claims, rule.claim)
    if value is _MISSING and rule.default is not None:
        return rule.default
    if isinstance(value, str) and rule.map is not None:
        value = rule.map.get(value)
    elif value == SYSTEM_TENANT:
        raise UngrantedTokenError("the service's own tenant, which no map leads to")
    if not isinstance(value, str) or not _is_name(value):
        raise UngrantedTokenError("no tenant")
    return value


def _scopes(claims: JSONObject, rule: _ScopesRule, ceiling: frozenset[str]) -> frozenset[str]:
    value = _claim(claims, rule.claim)
    values = value.split(" ") if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise UngrantedTokenError("no list of scopes")
    granted = {scope for one in values if isinstance(one, str) for scope in rule.map.get(one, ())}
    if not granted & ceiling:
        raise UngrantedTokenError("no scope")
    return ceiling & granted


def _server_ids(claims: JSONObject, rule: _ServersRule) -> frozenset[str] | None:
    values = _claim(claims, rule.claim)
    if not isinstance(values, list) or len(values) > SERVERS_LIMIT:
        raise UngrantedTokenError("no list of servers")
    if rule.all is not None and rule.all in values:
        return None
    server_ids = [str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in values]
    if not all(_is_name(one) for one in server_ids):
        raise UngrantedTokenError("no list of servers")
    return frozenset(one for one in server_ids if isinstance(one, str))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= NAME_CHARACTERS and "\0" not in value


_MISSING = object()


def _claim(claims: JSONObject, name: str) -> Any:
    """The value of a claim, or _MISSING."""
    if not name.startswith("/"):
        return claims.get(name, _MISSING)
    value: Any = claims
    for part in name[1:].split("/"):
        if not isinstance(value, dict):
            return _MISSING
        value = value.get(part.replace("~1", "/").replace("~0", "~"), _MISSING)
    return value
