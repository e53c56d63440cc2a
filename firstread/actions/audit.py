"""The audit trail: who did what, when. The database itself refuses to change or delete its rows."""

from __future__ import annotations

import getpass
import os
import socket
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from firstread.clock import utcnow
from firstread.records import AuditEvent


def current_user() -> str:
    """Who runs this process; the numeric id where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def record(
    session: Session,
    action: str,
    *,
    subject: str | None = None,
    detail: dict[str, Any] | None = None,
    actor: str | None = None,
    host: str | None = None,
    at: datetime | None = None,
) -> AuditEvent:
    """Add an event to the caller's transaction: it is committed with what it records, or not at all.

    Parameters
    ----------
    action : str
        ``flag.acknowledge``, ``verdict``, ``delivery.retry`` and so on.
    subject : str, optional
        By our own keys, ``study/12``; never a patient's name or number.
    actor, host : str, optional
        Default: the user of this process and this machine; the AE title and the peer for what came by DICOM.
    at : datetime, optional
        By the database's clock, where other rows are compared with it; default: this machine's time.
    """
    event = AuditEvent(
        at=at or utcnow(),
        actor=actor or current_user(),
        host=host or socket.gethostname(),
        action=action,
        subject=subject,
        detail=detail or {},
    )
    session.add(event)
    return event
