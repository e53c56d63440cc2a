"""Rows of the worklist page: who may open it, who has it open, links in messages, and how the system was."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from firstread.records.base import Base


class WebUser(Base):
    """A person who may open the worklist page."""

    __tablename__ = "web_user"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    """``viewer`` or ``reader``, who may acknowledge and judge too."""
    password_hash: Mapped[str | None]
    """Argon2id in its own notation; NULL for one whom a proxy lets in."""
    created_at: Mapped[datetime]


class WebSession(Base):
    """A browser that has the worklist page open."""

    __tablename__ = "web_session"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(unique=True)
    """Of the cookie: whoever reads this row cannot take its place."""
    user_name: Mapped[str]
    via: Mapped[str]
    """``password``, ``proxy``, or ``key`` for the address that ``firstread up`` prints."""
    csrf: Mapped[str]
    """What every form of the session carries."""
    opened_at: Mapped[datetime]
    seen_at: Mapped[datetime] = mapped_column(index=True)
    """When a person last did something; a page that refreshes itself does not count."""


class WebLink(Base):
    """A link to one flag for one recipient, in a mail or a webhook."""

    __tablename__ = "web_link"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(unique=True)
    flag_id: Mapped[int] = mapped_column(ForeignKey("flag.id", ondelete="CASCADE"), index=True)
    recipient: Mapped[str]
    """Mail address, or name of the webhook's destination."""
    kind: Mapped[str]
    """``email`` or ``webhook``."""
    ends_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]
    """When somebody acknowledged by it."""


class HealthSample(Base):
    """How one machine and the queue were at one moment, every few minutes of the last two days."""

    __tablename__ = "health_sample"
    __table_args__ = (Index("ix_health_sample_host_at", "host", "at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    host: Mapped[str]
    waiting: Mapped[int]
    """Closed revisions that are not finished."""
    oldest_s: Mapped[float]
    """How long the first of them has waited."""
    workers: Mapped[int]
    """With a fresh sign of life."""
    disk_free_bytes: Mapped[int] = mapped_column(BigInteger)
    disk_total_bytes: Mapped[int] = mapped_column(BigInteger)


def has_accounts(session: Session) -> bool:
    """Whether anybody has an account of the worklist page."""
    return session.scalar(select(WebUser.id).limit(1)) is not None
