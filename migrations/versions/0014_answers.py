"""what answers for a study and pipeline, counts that are kept, and indexes of what people ask for

`firstread migrate` fills the tables once they are there: whatever triggers keep is filled as they are made.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import firstread.records.base

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "answer",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=True),
        sa.Column("revision_id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("run", sa.Integer(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("flagged", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("received_at", firstread.records.base.UtcDateTime(timezone=True), nullable=False),
        sa.Column("scored_at", firstread.records.base.UtcDateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_answer_study_id_study"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revision.id"], name=op.f("fk_answer_revision_id_revision"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_answer_job_id_job"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_answer")),
        sa.UniqueConstraint("study_id", "pipeline", name=op.f("uq_answer_study_id_pipeline")),
    )
    op.create_table(
        "tally",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tally")),
    )
    op.create_table(
        "called_finding",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("finding", sa.Text(), nullable=False),
        sa.Column("scanner", sa.Text(), nullable=False),
        sa.Column("month", sa.Text(), nullable=True),
        sa.Column("positive", sa.Integer(), nullable=False),
        sa.Column("truth", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"], ["study.id"], name=op.f("fk_called_finding_study_id_study"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_called_finding")),
    )
    op.create_table(
        "call_tally",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("finding", sa.Text(), nullable=False),
        sa.Column("scanner", sa.Text(), nullable=False),
        sa.Column("month", sa.Text(), nullable=True),
        sa.Column("positive", sa.Integer(), nullable=False),
        sa.Column("truth", sa.Integer(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_call_tally")),
    )
    op.create_index("ix_called_finding_key", "called_finding", ["study_id", "pipeline", "finding"])
    alone = sa.text("pipeline IS NULL")
    op.create_index(
        "uq_answer_without_pipeline", "answer", ["study_id"], unique=True, sqlite_where=alone, postgresql_where=alone
    )
    for column in ("revision_id", "job_id", "received_at", "scored_at"):
        op.create_index(f"ix_answer_{column}", "answer", [column])
    op.create_index("ix_answer_pipeline_received", "answer", ["pipeline", "received_at"])
    op.create_index("ix_answer_state_received", "answer", ["state", "received_at"])
    op.create_index("ix_answer_pipeline_state_received", "answer", ["pipeline", "state", "received_at"])
    op.create_index("ix_answer_flagged_received", "answer", ["flagged", "received_at"])
    op.create_index("ix_revision_last_seen_at", "revision", ["last_seen_at"])
    op.create_index("ix_study_patient_id", "study", ["patient_id"])
    op.create_index("ix_flag_open", "flag", ["acknowledged_at", "pipeline", "flagged_at"])
    op.create_index("ix_flag_pipeline_time", "flag", ["pipeline", "flagged_at"])
    op.create_index("ix_delivery_state_id", "delivery", ["state", "id"])


def downgrade() -> None:
    op.drop_index("ix_delivery_state_id", "delivery")
    op.drop_index("ix_flag_pipeline_time", "flag")
    op.drop_index("ix_flag_open", "flag")
    op.drop_index("ix_study_patient_id", "study")
    op.drop_index("ix_revision_last_seen_at", "revision")
    op.drop_table("call_tally")
    op.drop_table("called_finding")
    op.drop_table("tally")
    op.drop_table("answer")
