"""Tenants and API keys: small tables, read on (nearly) every request, written seldom."""

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, insert, not_, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core import api_key, chain
from audit_service.errors import InvalidQueryError, NotFoundError
from audit_service.store.tables import api_key as key_table
from audit_service.store.tables import installation, log, tenant

BOOTSTRAP_KEY_ID = "bootstrap"
DEFAULT_TENANT = "default"
# Its log is the service's own: start and stop, settings, tenants, and failed authentication that is nobody's.
SYSTEM_TENANT = "system"


@dataclass(frozen=True, slots=True)
class Installation:
    """What every worker shares: the first part of every origin, and the secret for session hashes and cursors."""

    service_name: str
    secret: bytes


@dataclass(frozen=True, slots=True)
class Credential:
    """Who asks: one tenant's log and what may be done with it. Comes from the key or the token alone, never from the request.

    `server_ids` are the servers it is limited to; None: all of them.
    """

    key_id: str
    tenant: str
    log_id: int
    log_key: str
    scopes: frozenset[str]
    server_ids: frozenset[str] | None = None


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


async def create_tenant(connection: AsyncConnection, name: str, service_name: str) -> int:
    """A tenant with an empty log; its log id. As the owner role only. Raises IntegrityError when the name is taken."""
    log_id, log_key = secrets.randbits(63), secrets.token_hex(16)
    origin = chain.format_origin(service_name, log_key, 1)
    await connection.execute(insert(tenant).values(name=name, log_id=log_id, log_key=log_key))
    await connection.execute(
        insert(log).values(
            log_id=log_id, service_name=service_name, log_key=log_key, last_hash=chain.genesis_hash(origin)
        )
    )
    return log_id


async def find_tenant(connection: AsyncConnection, name: str) -> Row[Any, Any] | None:
    """(log id, log key) of a tenant, or None."""
    return (
        await connection.execute(select(tenant.c.log_id, tenant.c.log_key).where(tenant.c.name == name))
    ).one_or_none()


async def list_tenants(connection: AsyncConnection) -> Sequence[Row[Any, Any]]:
    """(name, log id) of every tenant, by name."""
    return (await connection.execute(select(tenant.c.name, tenant.c.log_id).order_by(tenant.c.name))).all()


async def list_log_keys(connection: AsyncConnection) -> Sequence[Any]:
    """(name, log id, log key) of every tenant, by log id."""
    query = select(tenant.c.name, tenant.c.log_id, tenant.c.log_key).order_by(tenant.c.log_id)
    return (await connection.execute(query)).all()


async def find_log_id(connection: AsyncConnection, log_key: str) -> int | None:
    """The log with this key, or None."""
    return (await connection.execute(select(tenant.c.log_id).where(tenant.c.log_key == log_key))).scalar()


async def ensure_tenant(connection: AsyncConnection, name: str, service_name: str) -> int:
    """The log id of a tenant, created at the first start."""
    found = await find_tenant(connection, name)
    if found is not None:
        return int(found.log_id)
    try:
        async with connection.begin_nested():
            return await create_tenant(connection, name, service_name)
    except IntegrityError:  # another start was quicker
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
) -> tuple[str, str]:
    """A new API key: (key id, key). The key is shown once; only its hash is stored."""
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


async def find_credential(connection: AsyncConnection, key: str) -> Credential | None:
    """The credential of a key that is neither revoked nor expired, or None."""
    row = (
        await connection.execute(
            select(key_table.c.key_id, key_table.c.log_id, key_table.c.scopes, tenant.c.name, tenant.c.log_key)
            .join(tenant, tenant.c.log_id == key_table.c.log_id)
            .where(key_table.c.secret_hash == api_key.key_hash(key), *_live())
        )
    ).one_or_none()
    if row is None:
        return None
    return Credential(row.key_id, row.name, row.log_id, row.log_key, frozenset(row.scopes))


def _live() -> tuple[ColumnElement[bool], ...]:
    now = text("clock_timestamp()")
    return (
        key_table.c.revoked_at.is_(None),
        or_(key_table.c.expires_at.is_(None), key_table.c.expires_at > now),
    )


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
        )
        .join(tenant, tenant.c.log_id == key_table.c.log_id)
        .order_by(key_table.c.created_at, key_table.c.key_id)
    )
    if log_id is not None:
        query = query.where(key_table.c.log_id == log_id)
    rows = (await connection.execute(query)).mappings()
    return [KeyRecord(**{**row, "scopes": tuple(row["scopes"])}) for row in rows]


async def revoke_key(connection: AsyncConnection, key_id: str, log_id: int | None = None) -> None:
    """Revoke a key, of one log or of any; at once for new requests (workers cache a key for a second at most).

    Revoking twice is no error. Raises NotFoundError.
    """
    where = [key_table.c.key_id == key_id]
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


@dataclass(frozen=True, slots=True)
class DeadKey:
    """A key that was good once, and whose it was. `why`: `a revoked` or `an expired`."""

    key_id: str
    log_id: int
    log_key: str
    why: str


async def find_dead_key(connection: AsyncConnection, key: str) -> DeadKey | None:
    """The revoked or expired key that this is; None for one that never was a key, and for a live one."""
    columns = (key_table.c.key_id, key_table.c.log_id, tenant.c.log_key, key_table.c.revoked_at)
    query = select(*columns).join(tenant, tenant.c.log_id == key_table.c.log_id)
    where = key_table.c.secret_hash == api_key.key_hash(key), not_(and_(*_live()))
    row = (await connection.execute(query.where(*where))).one_or_none()
    if row is None:
        return None
    return DeadKey(row.key_id, row.log_id, row.log_key, "an expired" if row.revoked_at is None else "a revoked")


async def log_of_key(connection: AsyncConnection, key_id: str) -> tuple[int, str]:
    """(log id, log key) of the tenant of a key. Raises NotFoundError."""
    query = select(tenant.c.log_id, tenant.c.log_key).join(key_table, key_table.c.log_id == tenant.c.log_id)
    row = (await connection.execute(query.where(key_table.c.key_id == key_id))).one_or_none()
    if row is None:
        raise NotFoundError("no such key")
    return row.log_id, row.log_key
