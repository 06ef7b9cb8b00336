"""The log: heads, entries, receipts, credentials, the append function, walls and privileges.

Revision ID: 0001
Revises:
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SQL_DIR = Path(__file__).parent.parent / "sql"


def _run_sql(name: str) -> None:
    # The driver's own execute takes a whole script; SQLAlchemy prepares, which allows one statement only.
    script = (SQL_DIR / name).read_text("utf-8")
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None  # noqa: S101 - a bound connection has one
    connection.run_async(lambda driver: driver.execute(script))


def upgrade() -> None:
    op.execute("SELECT 1")  # opens SQLAlchemy's transaction, so that the scripts below run inside it
    for name in ("0001_schema.sql", "0001_append.sql", "0001_privileges.sql"):
        _run_sql(name)


def downgrade() -> None:
    raise NotImplementedError("an audit log is never migrated backwards; restore a backup instead")
