"""the worklist page: accounts, sessions, links in messages, and samples of how the system was"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import firstread.records.base

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, firstread.records.base.UtcDateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "web_user",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_web_user")),
        sa.UniqueConstraint("name", name=op.f("uq_web_user_name")),
    )
    op.create_table(
        "web_session",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_sha256", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("csrf", sa.Text(), nullable=False),
        _time("opened_at"),
        _time("seen_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_web_session")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_web_session_token_sha256")),
    )
    op.create_index(op.f("ix_web_session_seen_at"), "web_session", ["seen_at"])
    op.create_table(
        "web_link",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_sha256", sa.Text(), nullable=False),
        sa.Column("flag_id", sa.Integer(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        _time("ends_at"),
        _time("used_at", nullable=True),
        sa.ForeignKeyConstraint(["flag_id"], ["flag.id"], name=op.f("fk_web_link_flag_id_flag"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_web_link")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_web_link_token_sha256")),
    )
    op.create_index(op.f("ix_web_link_flag_id"), "web_link", ["flag_id"])
    op.create_index(op.f("ix_web_link_ends_at"), "web_link", ["ends_at"])
    op.create_table(
        "health_sample",
        sa.Column("id", sa.Integer(), nullable=False),
        _time("at"),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("oldest_s", sa.Float(), nullable=False),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("disk_free_bytes", sa.BigInteger(), nullable=False),
        sa.Column("disk_total_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_health_sample")),
    )
    op.create_index(op.f("ix_health_sample_at"), "health_sample", ["at"])
    op.create_index("ix_health_sample_host_at", "health_sample", ["host", "at"])


def downgrade() -> None:
    for name in ("health_sample", "web_link", "web_session", "web_user"):
        op.drop_table(name)
