"""what answers for a study and pipeline, counts that are kept, and indexes of what people ask for"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import firstread.records.base

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

FILL_JOBS = """
INSERT INTO answer (study_id, pipeline, revision_id, job_id, run, state, flagged, received_at, scored_at)
SELECT study_id, pipeline, revision_id, job_id, (SELECT MAX(x.run) FROM result x WHERE x.job_id = ranked.job_id), state,
    EXISTS (SELECT 1 FROM flag g WHERE g.study_id = ranked.study_id AND g.pipeline = ranked.pipeline)
        OR EXISTS (SELECT 1 FROM result x WHERE x.job_id = ranked.job_id AND x.role = 'active' AND x.flagged),
    last_seen_at, finished_at
FROM (
    SELECT r.study_id, j.pipeline, r.id AS revision_id, j.id AS job_id, j.state, r.last_seen_at, j.finished_at,
        ROW_NUMBER() OVER (
            PARTITION BY r.study_id, j.pipeline
            ORDER BY CASE j.state WHEN 'DONE' THEN 0 WHEN 'REJECTED' THEN 1 WHEN 'FAILED' THEN 1 ELSE 2 END,
                     r.number DESC
        ) AS place
    FROM job j JOIN revision r ON r.id = j.revision_id
) ranked
WHERE place = 1
"""

FILL_STUDIES = """
INSERT INTO answer (study_id, pipeline, revision_id, job_id, run, state, flagged, received_at, scored_at)
SELECT r.study_id, NULL, r.id, NULL, NULL,
    CASE WHEN r.state = 'RECEIVING' THEN 'RECEIVING' WHEN r.routed_at IS NULL THEN 'WAITING' ELSE 'REJECTED' END,
    FALSE, r.last_seen_at, NULL
FROM revision r
WHERE NOT EXISTS (SELECT 1 FROM job j JOIN revision x ON x.id = j.revision_id WHERE x.study_id = r.study_id)
    AND NOT EXISTS (SELECT 1 FROM revision x WHERE x.study_id = r.study_id AND x.number > r.number)
"""

FILL_TALLY = (
    "INSERT INTO tally (what, key, n) SELECT 'state', state, COUNT(*) FROM job GROUP BY state",
    "INSERT INTO tally (what, key, n) SELECT 'flag', pipeline, COUNT(*) FROM flag GROUP BY pipeline",
    """INSERT INTO tally (what, key, n)
SELECT 'state', 'REJECTED', COUNT(*) FROM revision r
WHERE r.routed_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM job j WHERE j.revision_id = r.id)
    AND NOT EXISTS (SELECT 1 FROM standing t WHERE t.revision_id = r.id)""",
)


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
    for statement in (FILL_JOBS, FILL_STUDIES, *FILL_TALLY):
        op.execute(statement)
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
    op.create_index("ix_study_patient_id", "study", ["patient_id"])
    unseen = sa.text("acknowledged_at IS NULL")
    op.create_index("ix_flag_open", "flag", ["pipeline", "flagged_at"], sqlite_where=unseen, postgresql_where=unseen)
    op.create_index("ix_flag_pipeline_time", "flag", ["pipeline", "flagged_at"])
    op.create_index("ix_delivery_state_id", "delivery", ["state", "id"])


def downgrade() -> None:
    op.drop_index("ix_delivery_state_id", "delivery")
    op.drop_index("ix_flag_pipeline_time", "flag")
    op.drop_index("ix_flag_open", "flag")
    op.drop_index("ix_study_patient_id", "study")
    op.drop_table("tally")
    op.drop_table("answer")
