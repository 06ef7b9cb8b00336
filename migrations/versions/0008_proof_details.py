"""Checkpoints whose times always rise, and holds of what their entry says.

Revision ID: 0008
Revises: 0004
"""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0004"
branch_labels = None
depends_on = None

SCRIPT = Path(__file__).parent.parent / "sql" / "0008_proof_details.sql"


def upgrade() -> None:
    op.execute("SELECT 1")  # opens SQLAlchemy's transaction, so that the script runs inside it
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None  # noqa: S101 - a bound connection has one
    connection.run_async(lambda driver: driver.execute(SCRIPT.read_text("utf-8")))


def downgrade() -> None:
    raise NotImplementedError("an audit log is never migrated backwards; restore a backup instead")
