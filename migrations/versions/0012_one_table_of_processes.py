"""listeners stand in the table of processes"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import firstread.records.types

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COLUMNS = "id, host, pid, started_at, heartbeat_at"


def upgrade() -> None:
    op.execute(
        f"INSERT INTO process (kind, details, {COLUMNS}) SELECT 'listener', '{{}}', {COLUMNS} FROM listener "
        "WHERE id NOT IN (SELECT id FROM process)"
    )
    op.drop_table("listener")


def downgrade() -> None:
    op.create_table(
        "listener",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", firstread.records.types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", firstread.records.types.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_listener")),
    )
    op.execute(f"INSERT INTO listener ({COLUMNS}) SELECT {COLUMNS} FROM process WHERE kind = 'listener'")
    op.execute("DELETE FROM process WHERE kind = 'listener'")
