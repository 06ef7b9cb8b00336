"""The type of an actor whose own actions are seen.

Revision ID: 0015
Revises: 0007
"""

from alembic import op

from audit_service.store.migrate import run_script

revision = "0015"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0015_actor_types.sql")


def downgrade() -> None:
    raise NotImplementedError("an audit log is never migrated backwards; restore a backup instead")
