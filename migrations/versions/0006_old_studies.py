"""when a study was made, and flags of old ones"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from firstread.records.base import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

MARKS = (("revision", "old"), ("flag", "old"), ("delivery", "summary"))


def upgrade() -> None:
    op.add_column("instance", sa.Column("made_kind", sa.Text(), nullable=True))
    op.add_column("instance", sa.Column("made_dt", sa.Text(), nullable=True))
    op.add_column("revision", sa.Column("made_at", UtcDateTime(timezone=True), nullable=True))
    for table, name in MARKS:
        op.add_column(table, sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    for table, name in MARKS:
        op.drop_column(table, name)
    op.drop_column("revision", "made_at")
    op.drop_column("instance", "made_dt")
    op.drop_column("instance", "made_kind")
