"""listeners stand in the table of processes; an index of the images that retention has not removed"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import firstread.records.base

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
    there = sa.text("deleted_at IS NULL")
    op.create_index("ix_instance_on_disk", "instance", ["study_id"], sqlite_where=there, postgresql_where=there)


def downgrade() -> None:
    op.drop_index("ix_instance_on_disk", "instance")
    op.create_table(
        "listener",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", firstread.records.base.UtcDateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", firstread.records.base.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_listener")),
    )
    op.execute(f"INSERT INTO listener ({COLUMNS}) SELECT {COLUMNS} FROM process WHERE kind = 'listener'")
    op.execute("DELETE FROM process WHERE kind = 'listener'")
