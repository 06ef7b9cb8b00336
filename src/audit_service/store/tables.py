"""The schema as SQLAlchemy sees it: for building queries and for `alembic check`. The SQL itself is in `migrations/sql`.

`entry`, `log` and `receipt` are for the owner; the serving role reads `bound_entry`, `bound_log` and `bound_receipt`, views that show
the one log bound in the transaction (decision 0002).
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    column,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INET, JSONB, TIMESTAMP

SCHEMA = "audit"
metadata = MetaData(schema=SCHEMA)

_time = TIMESTAMP(timezone=True)
_c = Text(collation="C")
_now = text("clock_timestamp()")

# Disclosure groups in the order of their columns `d_<group>`; DESIGN 3.2.
GROUPS = ("actor", "actor_email", "on_behalf_of", "ip", "context", "target", "text", "metadata", "changes")

installation = Table(
    "installation",
    metadata,
    Column("one", Boolean, nullable=False, server_default=text("true")),
    Column("service_name", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    PrimaryKeyConstraint("one", name="installation_pkey"),
    CheckConstraint("one", name="installation_one"),
    CheckConstraint("octet_length(secret) = 32", name="installation_secret"),
)

tenant = Table(
    "tenant",
    metadata,
    Column("name", Text, nullable=False),
    Column("log_id", BigInteger, nullable=False),
    Column("log_key", Text, nullable=False),
    Column("created_at", _time, nullable=False, server_default=_now),
    PrimaryKeyConstraint("name", name="tenant_pkey"),
    UniqueConstraint("log_id", name="tenant_log"),
)

log = Table(
    "log",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("service_name", Text, nullable=False),
    Column("log_key", Text, nullable=False),
    Column("epoch", Integer, nullable=False, server_default=text("1")),
    Column("size", BigInteger, nullable=False, server_default=text("0")),
    Column("last_hash", LargeBinary, nullable=False),
    Column("last_recorded_at", _time, nullable=False, server_default=text("'epoch'")),
    Column("frontier", LargeBinary, nullable=False, server_default=text("''")),
    Column("pruned_before", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("log_id", name="log_pkey"),
)

entry = Table(
    "entry",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("seq", BigInteger, nullable=False, autoincrement=False),
    Column("recorded_at", _time, nullable=False),
    Column("occurred_at", _time),
    Column("source_seq", BigInteger),
    Column("epoch", Integer, nullable=False),
    Column("kind", _c, nullable=False),
    Column("prev_hash", LargeBinary, nullable=False),
    Column("body_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("body", _c),
    *(Column(f"d_{group}", LargeBinary) for group in GROUPS),
    Column("id", _c),
    Column("action", _c),
    Column("verb", _c),
    Column("category", _c),
    Column("outcome", _c),
    Column("actor_type", _c),
    Column("actor_id", _c),
    Column("actor_name", _c),
    Column("actor_email", _c),
    Column("actor_role", _c),
    Column("actor_keys", ARRAY(_c)),
    Column("target_type", _c),
    Column("target_id", _c),
    Column("target_name", _c),
    Column("server_id", _c),
    Column("ip", INET),
    Column("session", _c),
    Column("request_id", _c),
    Column("source_id", _c),
    Column("paths", ARRAY(_c)),
    Column("search", _c),
    PrimaryKeyConstraint("log_id", "seq", name="entry_pkey"),
    Index("entry_time", "log_id", "occurred_at", "seq"),
    Index("entry_server", "log_id", "server_id", "occurred_at", "seq"),
    Index("entry_target", "log_id", "target_id", "target_type", "occurred_at", "seq"),
    Index("entry_control", "log_id", "seq", postgresql_where=text("kind <> 'event'")),
)

receipt = Table(
    "receipt",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("seq", BigInteger),
    Column("recorded_at", _time, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("kept", Boolean, nullable=False),
    Column("id", _c, nullable=False),
    Column("prev_hash", LargeBinary),
    Column("hash", LargeBinary),
    Column("salt", LargeBinary),
    Column("fingerprint", LargeBinary),
    Column("ruleset", _c, nullable=False),
    PrimaryKeyConstraint("log_id", "id", name="receipt_pkey"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("key_id", _c, nullable=False),
    Column("log_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("created_at", _time, nullable=False, server_default=_now),
    Column("expires_at", _time),
    Column("revoked_at", _time),
    Column("last_used_at", _time),
    Column("client", _c),
    Column("limits", JSONB, nullable=False, server_default=text("'{}'")),
    PrimaryKeyConstraint("key_id", name="api_key_pkey"),
    UniqueConstraint("secret_hash", name="api_key_hash"),
    Index(
        "api_key_client",
        "log_id",
        "client",
        postgresql_where=text("client IS NOT NULL AND revoked_at IS NULL"),
    ),
)

viewer_token = Table(
    "viewer_token",
    metadata,
    Column("token_id", _c, nullable=False),
    Column("log_id", BigInteger, nullable=False),
    Column("key_id", _c, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("limits", JSONB, nullable=False),
    Column("viewer", Text),
    Column("created_at", _time, nullable=False, server_default=_now),
    Column("expires_at", _time, nullable=False),
    Column("revoked_at", _time),
    PrimaryKeyConstraint("token_id", name="viewer_token_pkey"),
    UniqueConstraint("secret_hash", name="viewer_token_hash"),
    ForeignKeyConstraint(["key_id"], [api_key.c.key_id], name="viewer_token_key"),
    CheckConstraint("isfinite(expires_at)", name="viewer_token_time"),
    Index("viewer_token_expiry", "expires_at"),
    Index("viewer_token_log", "log_id", "expires_at"),
)


segment = Table(
    "segment",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("first_at", _time),
    Column("last_at", _time),
    Column("number", Integer, nullable=False, autoincrement=False),
    Column("events", Integer, nullable=False),
    PrimaryKeyConstraint("log_id", "number", name="segment_pkey"),
)

posting = Table(
    "posting",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("number", Integer, nullable=False, autoincrement=False),
    Column("events", Integer, nullable=False),
    Column("field", _c, nullable=False),
    Column("value", _c, nullable=False),
    Column("positions", LargeBinary, nullable=False),
    PrimaryKeyConstraint("log_id", "number", "field", "value", name="posting_pkey"),
)

tally = Table(
    "tally",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("events", BigInteger, nullable=False),
    Column("field", _c, nullable=False),
    Column("value", _c, nullable=False),
    PrimaryKeyConstraint("log_id", "field", "value", name="tally_pkey"),
)

forgetting = Table(
    "forgetting",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("generation", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("log_id", name="forgetting_pkey"),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("size", BigInteger, nullable=False, autoincrement=False),
    Column("signed_at", _time, nullable=False, server_default=_now),
    Column("epoch", Integer, nullable=False),
    Column("note", _c, nullable=False),
    PrimaryKeyConstraint("log_id", "size", "signed_at", name="checkpoint_pkey"),
    Index("checkpoint_time", "log_id", "signed_at"),
)

tile = Table(
    "tile",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("number", BigInteger, nullable=False, autoincrement=False),
    Column("level", SmallInteger, nullable=False, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
    PrimaryKeyConstraint("log_id", "level", "number", name="tile_pkey"),
)

signer = Table(
    "signer",
    metadata,
    Column("one", Boolean, nullable=False, server_default=text("true")),
    Column("public_key", LargeBinary, nullable=False),
    Column("holder", Text, nullable=False),
    Column("leased_until", _time, nullable=False),
    PrimaryKeyConstraint("one", name="signer_pkey"),
    CheckConstraint("one", name="signer_one"),
)

hold = Table(
    "hold",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("from_seq", BigInteger),
    Column("to_seq", BigInteger),
    Column("set_at", _time, nullable=False, server_default=_now),
    Column("hold_id", _c, nullable=False),
    Column("target_type", _c),
    Column("target_id", _c),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("log_id", "hold_id", name="hold_pkey"),
)

retention_policy = Table(
    "retention_policy",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("days", Integer, nullable=False),
    Column("category", _c, nullable=False, server_default=text("''")),
    PrimaryKeyConstraint("log_id", "category", name="retention_policy_pkey"),
)

request = Table(
    "request",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("asked_at", _time, nullable=False, server_default=_now),
    Column("finished_at", _time),
    Column("request_id", _c, nullable=False),
    Column("kind", _c, nullable=False),
    Column("status", _c, nullable=False, server_default=text("'pending'")),
    Column("asked_by", _c, nullable=False),
    Column("reason", Text, nullable=False),
    Column("details", JSONB),
    Column("result", JSONB),
    PrimaryKeyConstraint("log_id", "request_id", name="request_pkey"),
)

source_progress = Table(
    "source_progress",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    PrimaryKeyConstraint("log_id", name="source_progress_pkey"),
)

source = Table(
    "source",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("events", BigInteger, nullable=False),
    Column("numbered", BigInteger, nullable=False),
    Column("first_seq", BigInteger),
    Column("last_seq", BigInteger),
    Column("seen_ranges", BigInteger, nullable=False),
    Column("seen_numbers", BigInteger, nullable=False),
    Column("repeated_ranges", BigInteger, nullable=False),
    Column("repeated_numbers", BigInteger, nullable=False),
    Column("last_recorded_at", _time, nullable=False),
    Column("source_id", _c, nullable=False),
    PrimaryKeyConstraint("log_id", "source_id", name="source_pkey"),
)

source_range = Table(
    "source_range",
    metadata,
    Column("log_id", BigInteger, nullable=False, autoincrement=False),
    Column("first_seq", BigInteger, nullable=False, autoincrement=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("repeated", Boolean, nullable=False),
    Column("source_id", _c, nullable=False),
    PrimaryKeyConstraint("log_id", "source_id", "repeated", "first_seq", name="source_range_pkey"),
    CheckConstraint("first_seq <= last_seq", name="source_range_order"),
)


def _view(name: str, source: Table, leave_out: frozenset[str] = frozenset()) -> Any:
    columns: list[Any] = [column(c.name, c.type) for c in source.columns if c.name not in leave_out]
    return table(name, *columns, schema=SCHEMA)


bound_entry = _view("bound_entry", entry)
seen_entry = _view("seen_entry", entry)
bound_log = _view("bound_log", log)
bound_receipt = _view("bound_receipt", receipt, frozenset({"salt", "fingerprint", "ruleset"}))
bound_segment = _view("bound_segment", segment)
bound_posting = _view("bound_posting", posting)
bound_tally = _view("bound_tally", tally)
bound_forgetting = _view("bound_forgetting", forgetting)
bound_checkpoint = _view("bound_checkpoint", checkpoint)
bound_tile = _view("bound_tile", tile)
bound_hold = _view("bound_hold", hold)
bound_retention_policy = _view("bound_retention_policy", retention_policy)
bound_request = _view("bound_request", request)
bound_source_progress = _view("bound_source_progress", source_progress)
