"""rejection notes, the images that they leave out, and deliveries with a topic of their own"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import firstread.records.base

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

KEY = ["job_id", "run", "destination", "kind", "escalation"]
BY_LEVEL = "uq_delivery_job_id_run_destination_kind_escalation"
BY_TOPIC = "uq_delivery_job_id_run_destination_kind_escalation_topic"


def upgrade() -> None:
    op.create_table(
        "rejection_note",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("instance_id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("at", firstread.records.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name=op.f("fk_rejection_note_study_id_study"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instance.id"], name=op.f("fk_rejection_note_instance_id_instance"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejection_note")),
        sa.UniqueConstraint(
            "study_id", "sop_instance_uid", "code", name=op.f("uq_rejection_note_study_id_sop_instance_uid_code")
        ),
    )
    with op.batch_alter_table("rejection_note", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rejection_note_instance_id"), ["instance_id"], unique=False)
    op.add_column("revision_instance", sa.Column("left_out", sa.Text(), nullable=True))
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.add_column(sa.Column("topic", sa.Text(), nullable=False, server_default=""))
        batch_op.drop_constraint(op.f(BY_LEVEL), type_="unique")
        batch_op.create_unique_constraint(op.f(BY_TOPIC), [*KEY, "topic"])


def downgrade() -> None:
    op.execute("DELETE FROM delivery WHERE topic <> ''")
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.drop_constraint(op.f(BY_TOPIC), type_="unique")
        batch_op.create_unique_constraint(op.f(BY_LEVEL), KEY)
        batch_op.drop_column("topic")
    op.drop_column("revision_instance", "left_out")
    op.drop_table("rejection_note")
