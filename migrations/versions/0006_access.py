"""Limits of API keys, viewer tokens, and tenants made over HTTP.

Revision ID: 0006
Revises: 0005
"""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCRIPT = Path(__file__).parent.parent / "sql" / "0006_access.sql"


def upgrade() -> None:
    op.execute("SELECT 1")  # opens SQLAlchemy's transaction, so that the script runs inside it
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None  # noqa: S101 - a bound connection has one
    connection.run_async(lambda driver: driver.execute(SCRIPT.read_text("utf-8")))


def downgrade() -> None:
    raise NotImplementedError("an audit log is never migrated backwards; restore a backup instead")
