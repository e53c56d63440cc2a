"""Rows that scoring writes: jobs, results, slice scores, flags, transitions, deliveries."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from firstread.records.base import Base
from firstread.records.intake import Revision


class Job(Base):
    """One pipeline's work on one revision."""

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("revision_id", "pipeline"),
        Index("ix_job_state_lease", "state", "lease_until"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("revision.id", ondelete="CASCADE"), index=True)
    pipeline: Mapped[str]
    state: Mapped[str]
    run: Mapped[int] = mapped_column(default=0)
    """Number of the last committed run; goes up with each commit of results, so a retry hides nothing until then."""
    attempts: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    progress_at: Mapped[datetime | None]
    reason: Mapped[str | None]
    """Why it is REJECTED or FAILED, or what keeps it WAITING."""
    detail: Mapped[str | None]
    """What the last run left out: how many images could not be read, and why. In words."""
    error: Mapped[str | None]
    """Class and place of the error that ended the last attempt."""
    next_step: Mapped[str | None]
    """The site's sentence on the next step."""
    warnings: Mapped[list[str]] = mapped_column(default=list)
    series_notes: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    series_instance_uid: Mapped[str | None]
    stage_seconds: Mapped[dict[str, float]] = mapped_column(default=dict)
    statistics: Mapped[dict[str, float]] = mapped_column(default=dict)
    models: Mapped[list[str]] = mapped_column(default=list)
    """``name/version`` of each package that served."""
    evidence_path: Mapped[str | None]
    """Below ``evidence`` in the home."""
    carried_from: Mapped[int | None] = mapped_column(ForeignKey("job.id", ondelete="SET NULL"))
    """The earlier job whose result this is, under a corrected identity."""
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None] = mapped_column(index=True)

    revision: Mapped[Revision] = relationship()
    results: Mapped[list[Result]] = relationship(back_populates="job")


class Standing(Base):
    """A pipeline that got no job of its own in a revision, since what an earlier job says still stands."""

    __tablename__ = "standing"
    __table_args__ = (UniqueConstraint("revision_id", "pipeline"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("revision.id", ondelete="CASCADE"))
    pipeline: Mapped[str]
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    """The job whose result stands."""
    reason: Mapped[str]
    """``unchanged``."""
    at: Mapped[datetime]


class Result(Base):
    """One finding of one model for one run of a job."""

    __tablename__ = "result"
    __table_args__ = (UniqueConstraint("job_id", "run", "model_name", "model_version", "role", "finding"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    run: Mapped[int]
    model_name: Mapped[str]
    model_version: Mapped[str]
    role: Mapped[str]
    """``active``, ``member`` or ``shadow``."""
    finding: Mapped[str]
    probability: Mapped[float | None]
    value: Mapped[float | None]
    unit: Mapped[str | None]
    threshold: Mapped[float | None]
    flagged: Mapped[bool] = mapped_column(default=False)
    engine: Mapped[str | None]
    """What ran the network: ``tensorflow``, or ``openvino_`` and a precision; NULL for runs before revision 0017."""
    created_at: Mapped[datetime]

    job: Mapped[Job] = relationship(back_populates="results")


class SliceScoreRow(Base):
    """Probability of one finding on one frame."""

    __tablename__ = "slice_score_row"
    __table_args__ = (
        UniqueConstraint("job_id", "run", "model_name", "model_version", "role", "instance_id", "frame", "finding"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    run: Mapped[int]
    instance_id: Mapped[int] = mapped_column(ForeignKey("instance.id", ondelete="CASCADE"), index=True)
    frame: Mapped[int]
    instance_number: Mapped[int | None]
    model_name: Mapped[str]
    model_version: Mapped[str]
    role: Mapped[str]
    finding: Mapped[str]
    probability: Mapped[float]


class Flag(Base):
    """A finding that stands flagged for a study. Never deleted, never reset by a later revision."""

    __tablename__ = "flag"
    __table_args__ = (
        UniqueConstraint("study_id", "pipeline", "finding"),
        Index("ix_flag_pipeline_time", "pipeline", "flagged_at"),
        Index("ix_flag_open", "acknowledged_at", "pipeline", "flagged_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"))
    pipeline: Mapped[str]
    finding: Mapped[str]
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    """The last job that raised it; the evidence columns are that job's."""
    probability: Mapped[float]
    threshold: Mapped[float]
    model_name: Mapped[str]
    model_version: Mapped[str]
    series_instance_uid: Mapped[str | None]
    key_sop_instance_uid: Mapped[str | None]
    volume_ml: Mapped[float | None]
    evidence_path: Mapped[str | None]
    warnings: Mapped[list[str]] = mapped_column(default=list)
    old: Mapped[bool] = mapped_column(default=False)
    """Every run that raised it was of an old study: reported in summaries, and not escalated."""
    flagged_at: Mapped[datetime] = mapped_column(index=True)
    """When it was raised first."""
    notified_at: Mapped[datetime | None]
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]


class Transition(Base):
    """One change of state of a revision or a job."""

    __tablename__ = "transition"
    __table_args__ = (Index("ix_transition_subject", "subject", "subject_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    subject: Mapped[str]
    """``revision`` or ``job``."""
    subject_id: Mapped[int]
    from_state: Mapped[str | None]
    to_state: Mapped[str]
    reason: Mapped[str | None]
    actor: Mapped[str]
    at: Mapped[datetime] = mapped_column(index=True)


class Delivery(Base):
    """One message to one destination about one job, with bounded retries."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("job_id", "run", "destination", "kind", "escalation", "topic"),
        Index("ix_delivery_state_next", "state", "next_at"),
        Index("ix_delivery_state_id", "state", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    run: Mapped[int]
    kind: Mapped[str]
    """``webhook``, ``dicom``, ``stow``, ``email``, ``hl7`` or ``fhir``."""
    destination: Mapped[str]
    escalation: Mapped[int] = mapped_column(default=0)
    """0 is the first notice; each level is the next address of the list."""
    topic: Mapped[str] = mapped_column(default="", server_default="")
    """Empty for the result itself; ``identity_in_doubt`` for the correction sent to its recipients."""
    summary: Mapped[bool] = mapped_column(default=False)
    """Sent together with others to its destination, at most one message an hour."""
    state: Mapped[str]
    """A :class:`firstread.states.DeliveryState`."""
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime | None]
    last_status: Mapped[str | None]
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
