"""how the studies of each sender came, and what of the grace the close of a revision did not wait for"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import firstread.records.base

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sender_habit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("calling_ae", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("whole_studies", sa.Integer(), nullable=False),
        sa.Column("went_on_at", firstread.records.base.UtcDateTime(timezone=True), nullable=True),
        sa.Column("noted_at", firstread.records.base.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sender_habit")),
        sa.UniqueConstraint("calling_ae", "host", name=op.f("uq_sender_habit_calling_ae_host")),
    )
    op.add_column("revision", sa.Column("spared_s", sa.Float(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("revision", "spared_s")
    op.drop_table("sender_habit")
