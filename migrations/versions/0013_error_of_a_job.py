"""the error of a job's last attempt apart from the detail of its result"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("error", sa.Text(), nullable=True))
    op.execute("UPDATE job SET error = detail, detail = NULL WHERE state IN ('FAILED', 'WAITING')")


def downgrade() -> None:
    op.execute("UPDATE job SET detail = error WHERE detail IS NULL AND error IS NOT NULL")
    op.drop_column("job", "error")
