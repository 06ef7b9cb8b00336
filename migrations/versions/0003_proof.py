"""Checkpoints, tiles and the signer's lease; lawful forgetting: drop, erase, prune, holds, policies, requests.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

from audit_service.store.migrate import run_script

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op.get_bind(), "0003_proof.sql")


def downgrade() -> None:
    raise NotImplementedError("an audit log is never migrated backwards; restore a backup instead")
