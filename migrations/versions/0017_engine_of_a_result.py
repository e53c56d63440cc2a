"""what ran the network behind a result"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("result", sa.Column("engine", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("result", "engine")
