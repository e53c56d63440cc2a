"""What people have said of the flags of a model: how many were judged, and how many of those were right."""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from firstread.records.outcomes import Verdict
from firstread.records.scoring import Flag

NEWEST: Final = 2_000
"""Flags of a pipeline that are looked at, the newest: a look-up stays one, however many there are."""


class Judged(NamedTuple):
    """Flags of which somebody has said whether the finding is there, and those where it is."""

    judged: int
    right: int


def judged_flags(session: Session, pipeline: str, finding: str, model_name: str, model_version: str) -> Judged:
    """Counts over the newest flags of a pipeline: those of one finding and model. The newest verdict is the valid one.

    Flags of other models do not count, so a new model begins without any.
    """
    newest = (
        select(Flag.study_id, Flag.pipeline, Flag.finding, Flag.model_name, Flag.model_version)
        .where(Flag.pipeline == pipeline)
        .order_by(Flag.flagged_at.desc())
        .limit(NEWEST)
        .subquery()
    )
    truth = (
        select(Verdict.truth)
        .where(
            Verdict.study_id == newest.c.study_id,
            Verdict.pipeline == newest.c.pipeline,
            Verdict.finding == newest.c.finding,
        )
        .order_by(Verdict.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    said = (
        select(truth.label("truth"))
        .where(newest.c.finding == finding, newest.c.model_name == model_name, newest.c.model_version == model_version)
        .subquery()
    )
    query = select(func.count(said.c.truth), func.coalesce(func.sum(said.c.truth), 0))
    judged, right = session.execute(query).one()
    return Judged(int(judged), int(right))
