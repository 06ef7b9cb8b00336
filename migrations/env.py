"""Alembic environment: makes roles and schema, then migrates as `audit_owner`, one start at a time."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from audit_service.store.engine import sqlalchemy_url
from audit_service.store.migrate import run_script
from audit_service.store.tables import SCHEMA, metadata

# A migration waits this long for a lock before it gives way to the running service.
LOCK_TIMEOUT = "10s"
ADVISORY_KEY = 0x61756469745F7376  # "audit_sv": serialises concurrent starts


def _include_object(obj: object, name: str | None, type_: str, reflected: bool, compare_to: object) -> bool:  # noqa: ARG001
    return not (type_ == "table" and name == "alembic_version")


def _migrate(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_KEY})
    try:
        run_script(connection, "roles.sql")
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA} AUTHORIZATION audit_owner"))
        connection.execute(text("SET ROLE audit_owner"))
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=metadata,
            version_table_schema=SCHEMA,
            include_schemas=True,
            include_name=lambda name, type_, _parents: type_ != "schema" or name == SCHEMA,
            include_object=_include_object,
            compare_type=True,
            compare_server_default=False,
        )
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text("RESET ROLE"))
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_KEY})
        connection.commit()


async def _online() -> None:
    url = context.config.get_main_option("sqlalchemy.url") or os.environ["AUDIT_MIGRATION_DATABASE_URL"]
    engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_migrate)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    raise SystemExit("offline SQL is not offered: the migrations read the server's roles and version")
asyncio.run(_online())
