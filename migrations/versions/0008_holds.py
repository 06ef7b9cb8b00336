"""A legal hold on a target holds what an erasure about it would take, and all of a server.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

from audit_service.store.migrate import run_script

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0008_holds.sql")


def downgrade() -> None:
    raise NotImplementedError("an audit log is never migrated backwards; restore a backup instead")
