"""the self-test's StudyInstanceUIDs"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import firstread.records.base

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "self_test",
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.Column("started_at", firstread.records.base.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_self_test")),
    )


def downgrade() -> None:
    op.drop_table("self_test")
