"""Tenants and credentials: small tables, read on (nearly) every request, written seldom. Viewer tokens are made in `viewer_tokens`."""

import hmac
import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal, NamedTuple, TypeAlias

from sqlalchemy import ColumnElement, Row, Select, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core import api_key, own_event
from audit_service.core.key_limits import Address, KeyLimits, Network, parse_limits
from audit_service.core.posting import Posting
from audit_service.core.sight import Sight
from audit_service.errors import ConflictError, InvalidQueryError, NotFoundError
from audit_service.store.tables import api_key as key_table
from audit_service.store.tables import installation, tenant
from audit_service.store.tables import viewer_token as token_table

BOOTSTRAP_KEY_ID = "bootstrap"
DEFAULT_TENANT = "default"
# Its log is the service's own: start and stop, settings, tenants, and failed authentication that is nobody's.
SYSTEM_TENANT = own_event.SYSTEM_TENANT
TENANT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
TENANT_NAME_RULE = "must be 1 to 63 lower-case letters, digits and . _ -, with a letter or digit at both ends"
CredentialKind: TypeAlias = Literal["api_key", "viewer_token", "jwt"]


@dataclass(frozen=True, slots=True)
class Installation:
    """What every worker shares: the first part of every origin, and the secret for session hashes and cursors."""

    service_name: str
    secret: bytes


@dataclass(frozen=True, slots=True)
class Credential:
    """Who asks: one tenant's log, what may be done with it, and what of it is seen. Comes from the key or the token alone, never from the
    request.

    `kind` says whose id `key_id` is; who asks pays for it under that id, a viewer token as well: its key does not. `posting`: what may be
    posted; None for everything. `networks`: the addresses it may be used from; None for all. A token keeps to its own limits:
    `source_id` and `networks` are its key's alone.
    """

    key_id: str
    tenant: str
    log_id: int
    log_key: str
    scopes: frozenset[str]
    sight: Sight
    kind: CredentialKind = "api_key"
    posting: Posting | None = None
    networks: tuple[Network, ...] | None = None

    def may_be_used_from(self, address: Address | None) -> bool:
        """Whether its networks hold the address; an unknown one is in none."""
        return self.networks is None or self.limits.allows_peer(address)

    @property
    def limits(self) -> KeyLimits:
        """What it may hand on to others, at most."""
        source_id = None if self.posting is None else self.posting.source_id
        return KeyLimits(self.sight, source_id, self.networks)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What may be shown of an API key."""

    key_id: str
    tenant: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    client: str | None
    limits: KeyLimits


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant. `log_key`: the part of its log's origin that no other log has."""

    name: str
    log_id: int
    log_key: str
    created_at: datetime


async def fetch_installation(connection: AsyncConnection) -> Installation:
    """The installation's row. Raises NotFoundError before the first `prepare`."""
    row = (await connection.execute(select(installation.c.service_name, installation.c.secret))).one_or_none()
    if row is None:
        raise NotFoundError("the database is not prepared")
    return Installation(row.service_name, row.secret)


async def ensure_installation(connection: AsyncConnection, service_name: str | None) -> Installation:
    """Create the installation's row at the first start; afterwards its name never changes.

    Raises InvalidQueryError when `service_name` is set to another name than the one in every origin so far.
    """
    wanted = service_name or f"audit-{secrets.token_hex(4)}"
    await connection.execute(
        upsert(installation)
        .values(service_name=wanted, secret=secrets.token_bytes(32))
        .on_conflict_do_nothing(index_elements=["one"])
    )
    found = await fetch_installation(connection)
    if service_name is not None and found.service_name != service_name:
        raise InvalidQueryError(
            f"AUDIT_SERVICE_NAME is {service_name}, but every origin of this database starts with {found.service_name}"
        )
    return found


def check_tenant_name(name: str) -> str:
    """The name, if it is one for a new tenant. Raises InvalidQueryError."""
    if not TENANT_NAME.fullmatch(name):
        raise InvalidQueryError(TENANT_NAME_RULE)
    return name


async def create_tenant(connection: AsyncConnection, name: str) -> TenantRecord:
    """A tenant with an empty log. Raises ConflictError when the name is taken; then only the caller's savepoint, or its transaction, can
    be ended."""
    try:
        row = (await connection.execute(text("SELECT * FROM audit.create_tenant(:name)"), {"name": name})).one()
    except IntegrityError:
        raise ConflictError("there is a tenant of that name") from None
    return TenantRecord(name, row.log_id, row.log_key, row.created_at)


async def find_tenant(connection: AsyncConnection, name: str) -> Row[Any, Any] | None:
    """(log id, log key) of a tenant, or None."""
    return (
        await connection.execute(select(tenant.c.log_id, tenant.c.log_key).where(tenant.c.name == name))
    ).one_or_none()


async def list_tenants(connection: AsyncConnection) -> list[TenantRecord]:
    """Every tenant, by name."""
    query = select(tenant.c.name, tenant.c.log_id, tenant.c.log_key, tenant.c.created_at).order_by(tenant.c.name)
    return [TenantRecord(*row) for row in await connection.execute(query)]


async def list_log_keys(connection: AsyncConnection) -> Sequence[Any]:
    """(name, log id, log key) of every tenant, by log id."""
    query = select(tenant.c.name, tenant.c.log_id, tenant.c.log_key).order_by(tenant.c.log_id)
    return (await connection.execute(query)).all()


async def find_log_id(connection: AsyncConnection, log_key: str) -> int | None:
    """The log with this key, or None."""
    return (await connection.execute(select(tenant.c.log_id).where(tenant.c.log_key == log_key))).scalar()


async def ensure_tenant(connection: AsyncConnection, name: str) -> int:
    """The log id of a tenant, created at the first start."""
    found = await find_tenant(connection, name)
    if found is not None:
        return int(found.log_id)
    try:
        async with connection.begin_nested():
            return (await create_tenant(connection, name)).log_id
    except ConflictError:  # another start was quicker
        found = await find_tenant(connection, name)
        assert found is not None  # noqa: S101 - the other start committed it
        return int(found.log_id)


def check_scopes(scopes: Sequence[str]) -> list[str]:
    """The scopes without repeats, in their usual order. Raises InvalidQueryError for an unknown one or none at all."""
    unknown = set(scopes) - set(api_key.SCOPES)
    if unknown or not scopes:
        raise InvalidQueryError(f"scopes are one or more of {', '.join(api_key.SCOPES)}")
    return [scope for scope in api_key.SCOPES if scope in scopes]


async def create_key(
    connection: AsyncConnection,
    log_id: int,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None = None,
    *,
    limits: KeyLimits | None = None,
    client: str | None = None,
) -> tuple[str, str]:
    """A new API key: (key id, key). The key is shown once; only its hash is stored. Raises ConflictError (as the block of `translated`
    says it) when `client` has two live keys."""
    key = api_key.format_key(secrets.token_bytes(api_key.ENTROPY_BYTES))
    key_id = api_key.public_id(key)
    await connection.execute(
        insert(key_table).values(
            key_id=key_id,
            log_id=log_id,
            name=name,
            scopes=check_scopes(scopes),
            secret_hash=api_key.key_hash(key),
            expires_at=expires_at,
            client=client,
            limits={} if limits is None else limits.as_json(),
        )
    )
    return key_id, key


async def set_bootstrap_key(connection: AsyncConnection, log_id: int, key: str | None, secret: bytes) -> None:
    """Make AUDIT_BOOTSTRAP_KEY the one live bootstrap key; one from an earlier start that is no longer set is revoked."""
    live = key_table.c.key_id.startswith(BOOTSTRAP_KEY_ID) & key_table.c.revoked_at.is_(None)
    if key is None:
        await connection.execute(update(key_table).where(live).values(revoked_at=datetime.now(UTC)))
        return
    digest = api_key.key_hash(key)
    await connection.execute(
        update(key_table).where(live & (key_table.c.secret_hash != digest)).values(revoked_at=datetime.now(UTC))
    )
    await connection.execute(
        upsert(key_table)
        .values(
            # Keyed: a piece of the plain hash would help to guess a key that a person chose.
            key_id=f"{BOOTSTRAP_KEY_ID}-{hmac.new(secret, digest, sha256).hexdigest()[:8]}",
            log_id=log_id,
            name="AUDIT_BOOTSTRAP_KEY",
            scopes=list(api_key.SCOPES),
            secret_hash=digest,
        )
        .on_conflict_do_update(index_elements=["secret_hash"], set_={"revoked_at": None})
    )


def is_bootstrap(key_id: str) -> bool:
    """Whether it is the id of AUDIT_BOOTSTRAP_KEY: no other has a hyphen."""
    return key_id.startswith(f"{BOOTSTRAP_KEY_ID}-")


async def find_credential(connection: AsyncConnection, key: str) -> tuple[Credential, float] | None:
    """The credential of a key or viewer token that is neither revoked nor expired, and the seconds until it expires (infinity for
    never); or None. A token ends with the key that issued it."""
    is_token = api_key.kind_of(key) == "viewer_token"
    row = (await connection.execute((_find_token if is_token else _find_key)(key))).one_or_none()
    if row is None:
        return None
    limits, scopes = parse_limits(row.limits), frozenset(row.scopes)
    found = Credential(row.id, row.tenant, row.log_id, row.log_key, scopes, limits.sight, "viewer_token")
    if not is_token:
        sight = limits.sight.with_notes(scopes)
        found = replace(found, kind="api_key", sight=sight, posting=limits.posting, networks=limits.networks)
    return found, math.inf if row.seconds is None else float(row.seconds)


_TENANT = (tenant.c.name.label("tenant"), tenant.c.log_id, tenant.c.log_key)


def _seconds_until(moment: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.extract("epoch", moment - func.clock_timestamp()).label("seconds")


def _find_key(key: str) -> Select[Any]:
    found = key_table.c
    return (
        select(
            found.key_id.label("id"),
            found.scopes,
            found.limits,
            _seconds_until(found.expires_at),
            *_TENANT,
        )
        .join(tenant, tenant.c.log_id == found.log_id)
        .where(found.secret_hash == api_key.key_hash(key), *_live())
    )


def _find_token(token: str) -> Select[Any]:
    found = token_table.c
    ends = func.least(found.expires_at, key_table.c.expires_at)
    return (
        select(
            found.token_id.label("id"),
            found.scopes,
            found.limits,
            _seconds_until(ends),
            *_TENANT,
        )
        .join(tenant, tenant.c.log_id == found.log_id)
        .join(key_table, key_table.c.key_id == found.key_id)
        .where(found.secret_hash == api_key.key_hash(token), *live_token(), *_live())
    )


def _live() -> tuple[ColumnElement[bool], ...]:
    now = text("clock_timestamp()")
    return (
        key_table.c.revoked_at.is_(None),
        or_(key_table.c.expires_at.is_(None), key_table.c.expires_at > now),
    )


def live_token() -> tuple[ColumnElement[bool], ...]:
    """What holds of a viewer token that was not revoked and has not expired."""
    return token_table.c.revoked_at.is_(None), token_table.c.expires_at > text("clock_timestamp()")


async def touch_key(connection: AsyncConnection, key_id: str) -> None:
    """Note that a key was used; at most once a minute, so that reading does not become writing."""
    await connection.execute(
        update(key_table)
        .where(
            key_table.c.key_id == key_id,
            or_(
                key_table.c.last_used_at.is_(None),
                key_table.c.last_used_at < text("clock_timestamp() - interval '1 minute'"),
            ),
        )
        .values(last_used_at=text("clock_timestamp()"))
    )


async def list_keys(connection: AsyncConnection, log_id: int | None = None) -> list[KeyRecord]:
    """Every key, of one log or of all, oldest first; never a secret."""
    query = (
        select(
            key_table.c.key_id,
            tenant.c.name.label("tenant"),
            key_table.c.name,
            key_table.c.scopes,
            key_table.c.created_at,
            key_table.c.expires_at,
            key_table.c.revoked_at,
            key_table.c.last_used_at,
            key_table.c.client,
            key_table.c.limits,
        )
        .join(tenant, tenant.c.log_id == key_table.c.log_id)
        .order_by(key_table.c.created_at, key_table.c.key_id)
    )
    if log_id is not None:
        query = query.where(key_table.c.log_id == log_id)
    rows = (await connection.execute(query)).mappings()
    return [KeyRecord(**{**row, "scopes": tuple(row["scopes"]), "limits": parse_limits(row["limits"])}) for row in rows]


async def revoke_key(
    connection: AsyncConnection, key_id: str, log_id: int | None = None, *, within: KeyLimits | None = None
) -> None:
    """Revoke a key, of one log or of any; at once for new requests (workers cache a key for a second at most).

    `within`: only a key with no more than these limits. Revoking twice is no error. Raises NotFoundError.
    """
    where = [key_table.c.key_id == key_id]
    if within is not None:
        limits = await connection.scalar(select(key_table.c.limits).where(*where))  # they never change
        if limits is None or parse_limits(limits).beyond(within):
            raise NotFoundError("no such key")
    if log_id is not None:
        where.append(key_table.c.log_id == log_id)
    found = await connection.execute(
        update(key_table)
        .where(*where)
        .values(revoked_at=text("COALESCE(revoked_at, clock_timestamp())"))
        .returning(key_table.c.key_id)
    )
    if found.one_or_none() is None:
        raise NotFoundError("no such key")


async def fetch_tenant(connection: AsyncConnection, name: str) -> Row[Any, Any]:
    """(log id, log key) of a tenant, as `find_tenant`. Raises NotFoundError."""
    found = await find_tenant(connection, name)
    if found is None:
        raise NotFoundError("no such tenant")
    return found


class Dead(NamedTuple):
    """A credential that was good once, whose it was, and why it is good no more, in our words."""

    kind: CredentialKind
    credential_id: str
    log_id: int
    log_key: str
    why: str


async def find_dead(connection: AsyncConnection, key: str) -> Dead | None:
    """The API key or viewer token that this was, when it was one; None for what never was any. To be asked of what is not live."""
    is_token = api_key.kind_of(key) == "viewer_token"
    table, what = (token_table, "viewer token") if is_token else (key_table, "key")
    columns = (table.c.log_id, tenant.c.log_key, table.c.revoked_at, _seconds_until(table.c.expires_at))
    query = (
        select((table.c.token_id if is_token else table.c.key_id).label("id"), *columns)
        .join(tenant, tenant.c.log_id == table.c.log_id)
        .where(table.c.secret_hash == api_key.key_hash(key))
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    if row.revoked_at is not None:
        why = f"a revoked {what}"
    elif row.seconds is not None and row.seconds <= 0:
        why = f"an expired {what}"
    else:
        why = f"a {what} that ended with its key" if is_token else f"a {what} that was not live"
    return Dead("viewer_token" if is_token else "api_key", row.id, row.log_id, row.log_key, why)


async def log_of_key(connection: AsyncConnection, key_id: str) -> tuple[int, str]:
    """(log id, log key) of the tenant of a key. Raises NotFoundError."""
    query = select(tenant.c.log_id, tenant.c.log_key).join(key_table, key_table.c.log_id == tenant.c.log_id)
    row = (await connection.execute(query.where(key_table.c.key_id == key_id))).one_or_none()
    if row is None:
        raise NotFoundError("no such key")
    return row.log_id, row.log_key
