"""result objects that came back are marked"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instance", sa.Column("own", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(
        "UPDATE instance SET own = TRUE WHERE sop_instance_uid IN "
        "(SELECT sop_instance_uid FROM output_object WHERE sop_instance_uid IS NOT NULL)"
    )


def downgrade() -> None:
    op.drop_column("instance", "own")
