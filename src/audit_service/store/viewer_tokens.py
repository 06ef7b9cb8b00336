"""Viewer tokens: issued for minutes, renewed or revoked by whoever issued them, and swept when they are over.

A token that ended stays for an hour, then goes: every issue removes up to SWEEP_ROWS that are older, which is more than it adds. So
there are never many more rows than tokens issued within the last two hours.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.core import api_key
from audit_service.core.key_limits import KeyLimits, parse_limits
from audit_service.errors import ConflictError, NotFoundError
from audit_service.store.credentials import live_token
from audit_service.store.tables import api_key as key_table
from audit_service.store.tables import viewer_token

SWEEP_ROWS = 20


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What may be shown of a viewer token. `expires_at` is the earlier of its own end and its key's."""

    token_id: str
    key_id: str
    scopes: tuple[str, ...]
    limits: KeyLimits
    viewer: str | None
    created_at: datetime
    expires_at: datetime


_expires_at = func.least(viewer_token.c.expires_at, key_table.c.expires_at).label("expires_at")


def _until(seconds: int) -> ColumnElement[Any]:
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


async def issue_token(
    connection: AsyncConnection,
    *,
    log_id: int,
    key_id: str,
    scopes: Sequence[str],
    limits: KeyLimits,
    viewer: str | None,
    seconds: int,
) -> tuple[TokenRecord, str]:
    """A new token of an API key for `seconds`, an hour at most: (record, token). The token is shown once; only its hash is stored."""
    await connection.execute(select(func.audit.sweep_viewer_tokens(SWEEP_ROWS)))
    token = api_key.format_key(secrets.token_bytes(api_key.ENTROPY_BYTES), "viewer_token")
    token_id = api_key.public_id(token)
    await connection.execute(
        insert(viewer_token).values(
            token_id=token_id,
            log_id=log_id,
            key_id=key_id,
            secret_hash=api_key.key_hash(token),
            scopes=list(scopes),
            limits=limits.as_json(),
            viewer=viewer,
            expires_at=_until(seconds),
        )
    )
    (record,) = await list_tokens(connection, log_id, token_id=token_id)
    return record, token


async def list_tokens(
    connection: AsyncConnection, log_id: int, *, key_id: str | None = None, token_id: str | None = None
) -> list[TokenRecord]:
    """The live tokens of a log, or of one of its keys, or one token, oldest first; never a secret. Tokens of a key that has ended have
    ended with it."""
    shown = viewer_token.c
    query = (
        select(*(shown.token_id, shown.key_id, shown.scopes, shown.limits, shown.viewer, shown.created_at), _expires_at)
        .join(key_table, key_table.c.key_id == shown.key_id)
        .where(shown.log_id == log_id, *live_token(), key_table.c.revoked_at.is_(None))
        .where(_expires_at > text("clock_timestamp()"))
        .order_by(shown.created_at, shown.token_id)
    )
    if key_id is not None:
        query = query.where(shown.key_id == key_id)
    if token_id is not None:
        query = query.where(shown.token_id == token_id)
    rows = (await connection.execute(query)).mappings()
    return [
        TokenRecord(**{**row, "scopes": tuple(row["scopes"]), "limits": parse_limits(row["limits"])}) for row in rows
    ]


async def renew_token(
    connection: AsyncConnection, log_id: int, token_id: str, seconds: int, *, key_id: str | None
) -> TokenRecord:
    """Let a live token last until `seconds` from now, an hour at most; never shorter than it would have. `key_id`: whose it must be;
    None for any key's. Raises NotFoundError, and ConflictError for one that has ended."""
    await _require_token(connection, log_id, token_id, key_id)
    await connection.execute(
        update(viewer_token)
        .where(viewer_token.c.token_id == token_id, viewer_token.c.log_id == log_id, *live_token())
        .values(expires_at=func.greatest(viewer_token.c.expires_at, _until(seconds)))
    )
    found = await list_tokens(connection, log_id, token_id=token_id)
    if not found:
        raise ConflictError("the token has ended: issue another")
    return found[0]


async def revoke_token(connection: AsyncConnection, log_id: int, token_id: str, *, key_id: str | None) -> None:
    """Revoke a token; at once for new requests (workers cache a token for a second at most). Revoking twice, or one that has expired, is
    no error. `key_id` as in `renew_token`. Raises NotFoundError."""
    await _require_token(connection, log_id, token_id, key_id)
    await connection.execute(
        update(viewer_token)
        .where(viewer_token.c.token_id == token_id, viewer_token.c.log_id == log_id)
        .values(revoked_at=text("COALESCE(revoked_at, clock_timestamp())"))
    )


async def _require_token(connection: AsyncConnection, log_id: int, token_id: str, key_id: str | None) -> None:
    """Raises NotFoundError for a token of another log or, where a key is named, of another key: never told apart."""
    owner = await connection.scalar(
        select(viewer_token.c.key_id).where(viewer_token.c.token_id == token_id, viewer_token.c.log_id == log_id)
    )
    if owner is None or key_id not in {None, owner}:
        raise NotFoundError("no such token")
