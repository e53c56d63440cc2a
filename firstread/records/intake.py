"""Rows that the intake writes: studies, instances, receipts, refusals, associations, revisions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from firstread.records.base import Base

OWN = "own"
"""Outcome of a receipt: a result object of this or of another Firstread."""


class Study(Base):
    """One StudyInstanceUID. Patient and accession number are those of the first instance, or as corrected later."""

    __tablename__ = "study"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(unique=True)
    patient_id: Mapped[str | None] = mapped_column(index=True)
    accession_number: Mapped[str | None] = mapped_column(index=True)
    modality: Mapped[str | None]
    station_name: Mapped[str | None]
    manufacturer: Mapped[str | None]
    source: Mapped[str]
    source_name: Mapped[str | None]
    calling_ae: Mapped[str | None]
    priority: Mapped[int | None]
    """Set by hand; overrides every rule."""
    received_at: Mapped[datetime] = mapped_column(index=True)

    revisions: Mapped[list[Revision]] = relationship(back_populates="study", order_by="Revision.number")
    instances: Mapped[list[Instance]] = relationship(back_populates="study")


class Instance(Base):
    """One object as stored: what study, series and SOPInstanceUID name together, with certain bytes."""

    __tablename__ = "instance"
    __table_args__ = (
        UniqueConstraint("study_id", "series_instance_uid", "sop_instance_uid", "sha256", name="uq_instance_identity"),
        Index(
            "ix_instance_on_disk",
            "study_id",
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"), index=True)
    series_instance_uid: Mapped[str]
    sop_instance_uid: Mapped[str] = mapped_column(index=True)
    sop_class_uid: Mapped[str]
    transfer_syntax_uid: Mapped[str]
    modality: Mapped[str | None]
    patient_key: Mapped[str | None]
    """Digest of PatientID and PatientName: tells patients apart without naming them."""
    instance_number: Mapped[int | None]
    sha256: Mapped[str]
    """Of the encoded data set, the file meta group apart."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    spool_key: Mapped[str] = mapped_column(unique=True)
    pipeline_hint: Mapped[str | None]
    """The pipeline whose inbox folder the file was dropped into."""
    dicom_priority: Mapped[int | None]
    """Priority field of the C-STORE: 0 medium, 1 high, 2 low (PS3.7 9.1.1.1)."""
    made_kind: Mapped[str | None]
    """Whose date ``made_dt`` is: ``acquisition``, ``content``, ``series`` or ``study``."""
    made_dt: Mapped[str | None]
    """When the image was made, according to its header, a DT of PS3.5 section 6.2 with what is known of it."""
    warnings: Mapped[list[str]] = mapped_column(default=list)
    received_at: Mapped[datetime]
    own: Mapped[bool] = mapped_column(default=False, server_default=false())
    """A result object that a Firstread made and that came back: kept, and never part of a revision."""
    deleted_at: Mapped[datetime | None]
    """When retention removed the file; the row stays."""

    study: Mapped[Study] = relationship(back_populates="instances")

    @property
    def identity(self) -> tuple[str, str]:
        """Series and SOP Instance UID: within a study they name an instance only together."""
        return self.series_instance_uid, self.sop_instance_uid


def newest_of_each(rows: Iterable[Instance]) -> list[Instance]:
    """The row received last of each instance, in the order given: where bytes changed, the newest are scored."""
    instances = list(rows)
    newest: dict[tuple[str, str], Instance] = {}
    for row in instances:
        known = newest.get(row.identity)
        if known is None or (row.received_at, row.id) > (known.received_at, known.id):
            newest[row.identity] = row
    return [row for row in instances if newest[row.identity] is row]


class Receipt(Base):
    """One arrival of an object, repeats included. A file of the spool has its row here, or gets it at start."""

    __tablename__ = "receipt"
    __table_args__ = (Index("ix_receipt_study_time", "study_instance_uid", "received_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    spool_key: Mapped[str] = mapped_column(unique=True)
    """Key under which this arrival was spooled; the file of a repeat is gone."""
    instance_id: Mapped[int] = mapped_column(ForeignKey("instance.id", ondelete="CASCADE"), index=True)
    study_instance_uid: Mapped[str]
    series_instance_uid: Mapped[str]
    sop_instance_uid: Mapped[str]
    sop_class_uid: Mapped[str]
    transfer_syntax_uid: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    outcome: Mapped[str]
    """``stored``, ``repeat``, ``changed`` or ``own``."""
    source: Mapped[str]
    source_name: Mapped[str | None]
    calling_ae: Mapped[str | None]
    received_at: Mapped[datetime] = mapped_column(index=True)


class IntakeRefusal(Base):
    """Something that came through a door and could not become an instance."""

    __tablename__ = "intake_refusal_row"

    id: Mapped[int] = mapped_column(primary_key=True)
    received_at: Mapped[datetime] = mapped_column(index=True)
    source: Mapped[str]
    source_name: Mapped[str | None]
    calling_ae: Mapped[str | None]
    reason: Mapped[str] = mapped_column(index=True)
    detail: Mapped[str | None]
    kept_path: Mapped[str | None] = mapped_column(unique=True)


class SelfTest(Base):
    """A StudyInstanceUID that ``firstread doctor`` drew for its phantom, from before it is sent until it is removed."""

    __tablename__ = "self_test"

    study_instance_uid: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]


class AssociationRefusal(Base):
    """Connections of one host that were turned away for one reason within a minute."""

    __tablename__ = "association_refusal_row"
    __table_args__ = (Index("ix_association_refusal_row_host_reason", "host", "reason", "first_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    first_at: Mapped[datetime]
    last_at: Mapped[datetime] = mapped_column(index=True)
    count: Mapped[int]
    calling_ae: Mapped[str | None]
    """Of the last of them, as all that follows."""
    called_ae: Mapped[str | None]
    host: Mapped[str | None]
    """None for those of many hosts, whose rows would be too many."""
    reason: Mapped[str]
    contexts: Mapped[list[dict[str, Any]] | None]
    """What was proposed, where nothing of it was accepted."""


class Association(Base):
    """One association (or one drain of the inbox) that delivered, for the assembler's timers."""

    __tablename__ = "association"

    id: Mapped[int] = mapped_column(primary_key=True)
    listener_id: Mapped[str] = mapped_column(index=True)
    source: Mapped[str]
    calling_ae: Mapped[str | None]
    called_ae: Mapped[str | None]
    peer_host: Mapped[str | None]
    opened_at: Mapped[datetime]
    ended_at: Mapped[datetime | None] = mapped_column(index=True)
    ending: Mapped[str | None]
    """``released``, ``aborted`` or ``lost``."""


class AssociationStudy(Base):
    """Which studies an association delivered to, and when last."""

    __tablename__ = "association_study"

    association_id: Mapped[int] = mapped_column(ForeignKey("association.id", ondelete="CASCADE"), primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"), primary_key=True, index=True)
    last_at: Mapped[datetime]


class Revision(Base):
    """A set of instances of a study. Immutable from ``CLOSED`` on."""

    __tablename__ = "revision"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        Index(
            "uq_revision_one_open",
            "study_id",
            unique=True,
            sqlite_where=text("state = 'RECEIVING'"),
            postgresql_where=text("state = 'RECEIVING'"),
        ),
        Index("ix_revision_state_published", "state", "routed_at", "published_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"), index=True)
    number: Mapped[int]
    state: Mapped[str]
    opened_at: Mapped[datetime]
    last_seen_at: Mapped[datetime] = mapped_column(index=True)
    """When the last image of this revision came; repeats move it too while it is open."""
    closed_at: Mapped[datetime | None]
    close_reason: Mapped[str | None]
    """``released``, ``quiet`` or ``max_wait``."""
    spared_s: Mapped[float] = mapped_column(default=0.0, server_default="0")
    """Seconds of the grace that its close did not wait for; more than 0 where it was closed at once."""
    priority: Mapped[int] = mapped_column(default=5)
    """0 is served first, 9 last."""
    made_at: Mapped[datetime | None]
    """When the newest of its images was made, the last moment that its header may mean; None: not known."""
    old: Mapped[bool] = mapped_column(default=False)
    """Made longer ago than ``fresh_h`` when it came, and nobody asked for it to be urgent."""
    forced_pipeline: Mapped[str | None]
    warnings: Mapped[list[str]] = mapped_column(default=list)
    published_at: Mapped[datetime | None]
    publish_count: Mapped[int] = mapped_column(default=0)
    routed_at: Mapped[datetime | None]
    """When a worker made its jobs (perhaps none)."""
    reason: Mapped[str | None]
    """Why no pipeline wants it."""

    study: Mapped[Study] = relationship(back_populates="revisions")
    members: Mapped[list[RevisionInstance]] = relationship(back_populates="revision")

    def describe(self) -> dict[str, Any]:
        """Identity for logs, free of patient data."""
        return {"study": self.study_id, "revision": self.number}


class RevisionInstance(Base):
    """Membership of an instance in a revision."""

    __tablename__ = "revision_instance"

    revision_id: Mapped[int] = mapped_column(ForeignKey("revision.id", ondelete="CASCADE"), primary_key=True)
    instance_id: Mapped[int] = mapped_column(
        ForeignKey("instance.id", ondelete="CASCADE"), primary_key=True, index=True
    )

    left_out: Mapped[str | None]
    """Code of the rejection note for which the image was not looked at."""

    revision: Mapped[Revision] = relationship(back_populates="members")
    instance: Mapped[Instance] = relationship()


class RejectionRow(Base):
    """A rejection note of a study: images that the department took back, and why."""

    __tablename__ = "rejection_note"
    __table_args__ = (UniqueConstraint("study_id", "sop_instance_uid", "code"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"))
    instance_id: Mapped[int] = mapped_column(ForeignKey("instance.id", ondelete="CASCADE"), index=True)
    sop_instance_uid: Mapped[str]
    code: Mapped[str]
    """113001, 113037, 113038 or 113039 (DCM)."""
    images: Mapped[int]
    """How many it names."""
    at: Mapped[datetime]
    """When it was read."""
