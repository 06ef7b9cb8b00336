"""The search index: segments, postings and tallies, and the functions that fill and use it.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

from audit_service.store.migrate import run_script

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0002_search_index.sql")


def downgrade() -> None:
    raise NotImplementedError("an audit log is never migrated backwards; restore a backup instead")
