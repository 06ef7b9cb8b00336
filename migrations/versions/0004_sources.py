"""Producers and the numbers they gave their events: sources, ranges of numbers seen, and the functions that count them.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

from audit_service.store.migrate import run_script

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0004_sources.sql")


def downgrade() -> None:
    raise NotImplementedError("an audit log is never migrated backwards; restore a backup instead")
