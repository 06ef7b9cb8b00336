"""The log: heads, entries, receipts, credentials, the append function, walls and privileges.

Revision ID: 0001
Revises:
"""

from alembic import op

from audit_service.store.migrate import run_script

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("0001_schema.sql", "0001_append.sql", "0001_privileges.sql"):
        run_script(op.get_bind(), name)


def downgrade() -> None:
    raise NotImplementedError("an audit log is never migrated backwards; restore a backup instead")
