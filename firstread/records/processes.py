"""Rows of running processes: every heartbeat of ours stands in this one table."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from firstread.records.base import Base

LISTENER = "listener"
WORKER = "worker"


class Process(Base):
    """A running process of ours and its last sign of life."""

    __tablename__ = "process"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    """``listener``, ``worker``, ``supervisor`` or ``deliver``."""
    host: Mapped[str]
    pid: Mapped[int]
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
