"""Rows that the database's own triggers keep: what answers for a study and pipeline, and counts of what there is.

Nobody writes them but :mod:`firstread.records.triggers`, in the transaction that changes what they are made of.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint, delete, false, func, insert, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from firstread.records.base import Base
from firstread.records.database import Database

FOLD_ABOVE = 1_000
"""Rows of the tally that are left as they are."""


class Answer(Base):
    """What answers for a study and pipeline: one of its jobs; without a pipeline, the study while it has no job."""

    __tablename__ = "answer"
    __table_args__ = (
        UniqueConstraint("study_id", "pipeline"),
        Index(
            "uq_answer_without_pipeline",
            "study_id",
            unique=True,
            sqlite_where=text("pipeline IS NULL"),
            postgresql_where=text("pipeline IS NULL"),
        ),
        Index("ix_answer_pipeline_received", "pipeline", "received_at"),
        Index("ix_answer_state_received", "state", "received_at"),
        Index("ix_answer_pipeline_state_received", "pipeline", "state", "received_at"),
        Index("ix_answer_flagged_received", "flagged", "received_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"))
    pipeline: Mapped[str | None]
    revision_id: Mapped[int] = mapped_column(ForeignKey("revision.id", ondelete="CASCADE"), index=True)
    """The job's, or the study's newest."""
    job_id: Mapped[int | None] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    """The newest ``DONE``, else the newest that ended otherwise, else the newest."""
    run: Mapped[int | None]
    """The run whose results are shown: the last that has any."""
    state: Mapped[str]
    """The job's, or the study's."""
    flagged: Mapped[bool] = mapped_column(default=False, server_default=false())
    """A flag stands for the study and pipeline, or a shown result is flagged."""
    received_at: Mapped[datetime] = mapped_column(index=True)
    """When the last image of the revision came."""
    scored_at: Mapped[datetime | None] = mapped_column(index=True)


class Tally(Base):
    """So many more, or fewer, of something: the sum of ``n`` is how many there are. Rows are only added, and folded."""

    __tablename__ = "tally"

    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]
    """``state``: jobs, and revisions that no pipeline wants, by state. ``flag``: flags by pipeline."""
    key: Mapped[str]
    n: Mapped[int]


class CalledFinding(Base):
    """How a finding of a study is called at present, and what is known of it: what `verdict_performance` counts."""

    __tablename__ = "called_finding"
    __table_args__ = (Index("ix_called_finding_key", "study_id", "pipeline", "finding"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"))
    pipeline: Mapped[str]
    finding: Mapped[str]
    scanner: Mapped[str]
    month: Mapped[str | None]
    """When it was scored, as ``2026-11``."""
    positive: Mapped[int]
    truth: Mapped[int | None]
    """That of the newest verdict."""


class CallTally(Base):
    """So many more, or fewer, called findings that are alike."""

    __tablename__ = "call_tally"

    id: Mapped[int] = mapped_column(primary_key=True)
    pipeline: Mapped[str]
    finding: Mapped[str]
    scanner: Mapped[str]
    month: Mapped[str | None]
    positive: Mapped[int]
    truth: Mapped[int | None]
    n: Mapped[int]


def tallied(session: Session, what: str) -> dict[str, int]:
    """How many there are of each key; those with none may be left out."""
    query = select(Tally.key, func.sum(Tally.n)).where(Tally.what == what).group_by(Tally.key)
    return {key: int(n) for key, n in session.execute(query)}


def fold_tallies(db: Database, above: int = FOLD_ABOVE) -> int:
    """Replace the rows of each tally by one a key, where there are more than ``above``; returns how many went."""
    return sum(_fold(db, table, above) for table in (Tally, CallTally))


def _fold(db: Database, table: type[Tally | CallTally], above: int) -> int:
    with db.read() as session:
        if (session.scalar(select(func.count()).select_from(table)) or 0) <= above:
            return 0
    names = [column.key for column in table.__mapper__.columns if column.key not in {"id", "n"}]
    with db.write() as session:
        sums: Counter[tuple[Any, ...]] = Counter()
        gone = session.execute(delete(table).returning(*(getattr(table, name) for name in names), table.n)).all()
        for *key, n in gone:
            sums[tuple(key)] += n
        rows = [dict(zip(names, key, strict=True)) | {"n": n} for key, n in sums.items() if n]
        if rows:
            session.execute(insert(table), rows)
        return len(gone)
