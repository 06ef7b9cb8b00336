"""The type of an actor whose own actions are seen.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

from audit_service.store.migrate import run_script

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0009_actor_types.sql")


def downgrade() -> None:
    raise NotImplementedError("an audit log is never migrated backwards; restore a backup instead")
