"""Sight: the view that every reader reads through, and tallies that keep the service's own entries apart.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

from audit_service.store.migrate import run_script

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0005_sight.sql")


def downgrade() -> None:
    raise NotImplementedError("an audit log is never migrated backwards; restore a backup instead")
