"""connections that were turned away"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import firstread.records.base

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "association_refusal_row",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("first_at", firstread.records.base.UtcDateTime(timezone=True), nullable=False),
        sa.Column("last_at", firstread.records.base.UtcDateTime(timezone=True), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("calling_ae", sa.Text(), nullable=True),
        sa.Column("called_ae", sa.Text(), nullable=True),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("contexts", firstread.records.base.JsonText(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_association_refusal_row")),
    )
    with op.batch_alter_table("association_refusal_row", schema=None) as batch_op:
        batch_op.create_index("ix_association_refusal_row_host_reason", ["host", "reason", "first_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_association_refusal_row_last_at"), ["last_at"], unique=False)


def downgrade() -> None:
    op.drop_table("association_refusal_row")
