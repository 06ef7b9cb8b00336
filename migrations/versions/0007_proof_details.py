"""Checkpoints whose times always rise, and holds of what their entry says.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

from audit_service.store.migrate import run_script

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0007_proof_details.sql")


def downgrade() -> None:
    raise NotImplementedError("an audit log is never migrated backwards; restore a backup instead")
