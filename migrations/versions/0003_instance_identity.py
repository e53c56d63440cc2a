"""an instance is study, series and SOP Instance UID together"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BY_SOP = ("uq_instance_study_id_sop_instance_uid_sha256", ["study_id", "sop_instance_uid", "sha256"])
BY_SERIES = ("uq_instance_identity", ["study_id", "series_instance_uid", "sop_instance_uid", "sha256"])


def _replace(old: tuple[str, list[str]], new: tuple[str, list[str]]) -> None:
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.drop_constraint(old[0], type_="unique")
        batch_op.create_unique_constraint(new[0], new[1])


def upgrade() -> None:
    _replace(BY_SOP, BY_SERIES)


def downgrade() -> None:
    _replace(BY_SERIES, BY_SOP)
