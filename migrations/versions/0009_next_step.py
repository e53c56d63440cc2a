"""the sentence on the next step apart from the detail of a result"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("next_step", sa.Text(), nullable=True))
    op.execute("UPDATE job SET next_step = detail, detail = NULL WHERE state = 'DONE'")


def downgrade() -> None:
    op.execute("UPDATE job SET detail = next_step WHERE next_step IS NOT NULL")
    op.drop_column("job", "next_step")
