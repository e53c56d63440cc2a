"""Rows about what became of a result: objects, escalations, verdicts, audit, retention, drift."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, Date, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from firstread.records.base import Base


class OutputObject(Base):
    """One DICOM object made of one run of a job, or the reason why there is none."""

    __tablename__ = "output_object"
    __table_args__ = (UniqueConstraint("job_id", "run", "kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    run: Mapped[int]
    kind: Mapped[str]
    """``sr``, ``seg`` or ``sc``."""
    sop_instance_uid: Mapped[str | None] = mapped_column(index=True)
    sop_class_uid: Mapped[str | None]
    series_instance_uid: Mapped[str | None]
    path: Mapped[str | None]
    """Below ``objects`` in the home; NULL where nothing was written."""
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None]
    reason: Mapped[str | None]
    """Why nothing was written."""
    notes: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    """When retention removed the file; the row stays."""


class EscalationStep(Base):
    """One level of an escalation list that a flag has reached."""

    __tablename__ = "escalation_step"
    __table_args__ = (UniqueConstraint("flag_id", "escalation", "level"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    flag_id: Mapped[int] = mapped_column(ForeignKey("flag.id", ondelete="CASCADE"))
    escalation: Mapped[str]
    level: Mapped[int]
    """0 is the first notice; it is the delivery's ``escalation`` too."""
    delivery_id: Mapped[int] = mapped_column(ForeignKey("delivery.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime]


class Verdict(Base):
    """What a person, or a confirmed diagnosis, said about one finding of a study. The newest row is the valid one."""

    __tablename__ = "verdict"
    __table_args__ = (Index("ix_verdict_key", "study_id", "pipeline", "finding", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"))
    pipeline: Mapped[str]
    finding: Mapped[str]
    truth: Mapped[int]
    """1: the finding is there; 0: it is not."""
    agree: Mapped[bool | None]
    """What a reader clicked; NULL for an import."""
    source: Mapped[str]
    """``reader`` or ``import``."""
    by: Mapped[str | None]
    note: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(index=True)


class AuditEvent(Base):
    """Who did what, when. Append-only."""

    __tablename__ = "audit_event"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str]
    """User of the command line, AE title, or the name of one of our processes."""
    host: Mapped[str | None]
    action: Mapped[str] = mapped_column(index=True)
    subject: Mapped[str | None]
    """What it was done to, by our own keys: ``study/12``, ``delivery/7``."""
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Deletion(Base):
    """What retention removed."""

    __tablename__ = "deletion"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"), index=True)
    what: Mapped[str]
    """``images``, ``objects`` or ``evidence``."""
    reason: Mapped[str]
    """``age`` or ``disk``."""
    files: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(index=True)


class DriftRow(Base):
    """Population stability index of one quantity on one day, against the baseline on the model's card."""

    __tablename__ = "drift_row"
    __table_args__ = (
        UniqueConstraint(
            "day", "pipeline", "model_name", "model_version", "modality", "scanner", "quantity", name="uq_drift_row_key"
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(Date)
    pipeline: Mapped[str]
    model_name: Mapped[str]
    model_version: Mapped[str]
    modality: Mapped[str]
    """``*`` stands for all of them together; so it does in ``scanner``."""
    scanner: Mapped[str]
    quantity: Mapped[str]
    n: Mapped[int]
    psi: Mapped[float]
    computed_at: Mapped[datetime]
