"""Bring a migrated database to a state in which the service can start: installation, tenants `default` and `system`, first key."""

import asyncio
from collections.abc import Mapping

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from audit_service.core.api_key import SCOPES, is_mistyped
from audit_service.core.chain import format_origin
from audit_service.errors import AuditError
from audit_service.settings import Settings
from audit_service.store import credentials
from audit_service.store.engine import check_durability, driver, sqlalchemy_url
from audit_service.store.tables import api_key, log, tenant


class NotDurableError(AuditError):
    """The database's settings would let an acknowledged event be lost. The text says which ones."""


def prepare(settings: Settings, url: str, *, passwords: Mapping[str, str]) -> str | None:
    """As the migrating login at `url`: make sure of installation, tenant and keys; let our roles log in.

    `passwords` (role → password) is empty but for the embedded server. Returns an admin key to print, at the first start without
    AUDIT_BOOTSTRAP_KEY; else None. Raises NotDurableError.
    """
    return asyncio.run(_prepare(settings, url, passwords))


async def _prepare(settings: Settings, url: str, passwords: Mapping[str, str]) -> str | None:
    engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            problems = await check_durability(driver(connection))
            if problems:
                raise NotDurableError("refusing to start: " + "; ".join(problems))
            for role, password in passwords.items():
                await connection.execute(text(f"ALTER ROLE {role} LOGIN PASSWORD '{_plain(password)}'"))
            await connection.execute(text("SET LOCAL ROLE audit_owner"))
            installed = await credentials.ensure_installation(connection, settings.service_name)
            log_id = await credentials.ensure_tenant(connection, credentials.DEFAULT_TENANT)
            await credentials.ensure_tenant(connection, credentials.SYSTEM_TENANT)
            bootstrap = None if settings.bootstrap_key is None else settings.bootstrap_key.get_secret_value()
            if bootstrap is not None and is_mistyped(bootstrap):
                raise AuditError(
                    "AUDIT_BOOTSTRAP_KEY looks like an API key that was mistyped: its checksum does not fit"
                )
            await credentials.set_bootstrap_key(connection, log_id, bootstrap, installed.secret)
            if bootstrap is None and not await connection.scalar(select(func.count()).select_from(api_key)):
                _, key = await credentials.create_key(connection, log_id, "first admin", SCOPES)
                return key
            return None
    finally:
        await engine.dispose()


async def origins(url: str) -> list[tuple[str, str]]:
    """As the migrating login at `url`: (tenant, origin) of every log."""
    engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SET LOCAL ROLE audit_owner"))
            query = select(tenant.c.name, log.c.service_name, log.c.log_key, log.c.epoch)
            rows = await connection.execute(query.join(log, log.c.log_id == tenant.c.log_id).order_by(tenant.c.name))
            return [(name, format_origin(*parts)) for name, *parts in rows]
    finally:
        await engine.dispose()


def _plain(password: str) -> str:
    """A generated password, which cannot end the SQL literal it is put in (utility statements take no parameters)."""
    if not password.isascii() or not password.replace("-", "").replace("_", "").isalnum():
        raise ValueError("a generated password is letters, digits, - and _")
    return password
