"""Rows of running processes: all heartbeats are in this one table."""

from __future__ import annotations

import os
import socket
from datetime import datetime
from typing import Any

from sqlalchemy import delete
from sqlalchemy.orm import Mapped, mapped_column

from firstread import effects
from firstread.records.base import Base
from firstread.records.clock import now_of
from firstread.records.database import Database

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


def own_process(key: str, kind: str) -> Process:
    """The row of this process, for :func:`write_heartbeat`."""
    return Process(id=key, kind=kind, host=socket.gethostname(), pid=os.getpid())


def write_heartbeat(db: Database, process: Process) -> None:
    """Say that a process lives; makes its row where it is missing.

    Parameters
    ----------
    process : Process
        Belongs to no session. The database's clock gives ``heartbeat_at``, and ``started_at`` where it is not set.
    """
    with db.write(effects.HEARTBEAT_COMMIT) as session:
        process.heartbeat_at = now_of(session)
        process.started_at = process.started_at or process.heartbeat_at
        session.merge(process)


def remove_process(db: Database, key: str) -> None:
    """Remove the row of a process that ends, or is gone."""
    with db.write(effects.PROCESS_COMMIT) as session:
        session.execute(delete(Process).where(Process.id == key))
