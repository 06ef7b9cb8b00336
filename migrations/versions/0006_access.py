"""Limits of API keys, viewer tokens, and tenants made over HTTP.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

from audit_service.store.migrate import run_script

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0006_access.sql")


def downgrade() -> None:
    raise NotImplementedError("an audit log is never migrated backwards; restore a backup instead")
