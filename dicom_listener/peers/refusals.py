"""Who is turned away at the DICOM door, and why: noted in groups, so that a port scanner fills no table."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dicom_listener import metrics
from dicom_listener.peers.limits import TOO_LARGE
from dicom_listener.peers.names import clean
from firstread import effects
from firstread.clock import utcnow
from firstread.processes.lasting import lasting_thread
from firstread.records import AssociationRefusal, Database

LOGGER = logging.getLogger(__name__)

TOGETHER_S: Final = 60.0
"""Refusals of one host for one reason within this time are one row."""
WRITE_S: Final = 1.0
NEW_ROWS_LIMIT: Final = 50
"""Most rows that are begun within :data:`TOGETHER_S`; what is beyond counts in one row without a host."""
KEPT_DAYS: Final = 90
KEPT_ROWS: Final = 10_000
CONTEXTS_LIMIT: Final = 20

CALLING_AE, CALLED_AE, LIMIT, REFUSED = "calling_ae_not_allowed", "called_ae_wrong", "too_many_associations", "refused"
NO_CONTEXTS, NOT_DICOM, BAD_REQUEST, SILENT = "no_presentation_contexts", "not_dicom", "bad_request", "silent"
TLS, NOT_TLS, TOO_MANY_CONNECTIONS = "tls", "not_tls", "too_many_connections"
TLS_VERSIONS, TLS_DISTRUSTED, TLS_FAILED = "tls_versions", "tls_distrusted", "tls_failed"
NO_CLIENT_CERTIFICATE, CLIENT_CERTIFICATE = "client_certificate_missing", "client_certificate_invalid"
CLIENT_CERTIFICATE_EXPIRED, CLIENT_NAME = "client_certificate_expired", "client_name_not_allowed"
_DIAGNOSTICS: Final = {(1, 3): CALLING_AE, (1, 7): CALLED_AE, (3, 1): LIMIT, (3, 2): LIMIT}
"""By source and diagnostic of the A-ASSOCIATE-RJ (PS3.8 table 9-21)."""


@dataclass
class TurnedAway:
    """Refusals of one host for one reason, on their way into a row; ``detail`` goes into the log alone."""

    reason: str
    host: str | None
    calling_ae: str | None = None
    called_ae: str | None = None
    contexts: list[dict[str, Any]] | None = None
    first_at: datetime = field(default_factory=utcnow)
    last_at: datetime = field(default_factory=utcnow)
    count: int = 1
    detail: str = ""

    def add(self, later: TurnedAway) -> None:
        """Count another one."""
        self.count += later.count
        self.last_at = later.last_at
        self.calling_ae, self.called_ae, self.contexts = later.calling_ae, later.called_ae, later.contexts
        self.detail = later.detail

    def row(self) -> AssociationRefusal:
        """A row that begins with these."""
        return AssociationRefusal(**{name: value for name, value in vars(self).items() if name != "detail"})


def turned_away(assoc: Any) -> TurnedAway | None:
    """Why an association that has ended served nobody, or was ended by us; None for every other one."""
    host, request = clean(assoc.requestor.address), assoc.requestor.primitive
    calling_ae = clean(request.calling_ae_title if request else None)
    called_ae = clean(request.called_ae_title if request else None)
    if assoc.fault is not None:
        return TurnedAway(assoc.fault, host, calling_ae, called_ae) if assoc.fault != TOO_LARGE else None
    if assoc.is_rejected:
        answer = assoc.acceptor.primitive
        reason = _DIAGNOSTICS.get((answer.result_source, answer.diagnostic), REFUSED)
        return TurnedAway(reason, host, calling_ae, called_ae)
    if not assoc._accepted_cx and assoc._rejected_cx:
        return TurnedAway(NO_CONTEXTS, host, calling_ae, called_ae, _proposed(request))
    return None


def _proposed(request: Any) -> list[dict[str, Any]]:
    return [
        {
            "abstract_syntax": clean(str(cx.abstract_syntax)[:64]),
            "transfer_syntaxes": [clean(str(uid)[:64]) for uid in cx.transfer_syntax[:CONTEXTS_LIMIT]],
        }
        for cx in request.presentation_context_definition_list[:CONTEXTS_LIMIT]
    ]


class DoorBook:
    """A thread that writes down who was turned away.

    Parameters
    ----------
    db : Database
        At head.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._noted: dict[tuple[str | None, str], TurnedAway] = {}
        self._begun: dict[tuple[str | None, str], float] = {}
        self._stopping = threading.Event()
        self._thread = lasting_thread(self._run, "door-book")

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, then end."""
        self._stopping.set()
        self._thread.join(timeout=10.0)

    def note(self, away: TurnedAway) -> None:
        """Note one refusal; costs nothing but memory for a few dozen of them."""
        metrics.ASSOCIATION_REFUSALS.labels(reason=away.reason).inc()
        with self._lock:
            key = self._key_of(away)
            known = self._noted.get(key)
            if known is None:
                away.host = key[0]
                self._noted[key] = away
            else:
                known.add(away)

    def _key_of(self, away: TurnedAway) -> tuple[str | None, str]:
        now, key = time.monotonic(), (away.host, away.reason)
        self._begun = {known: at for known, at in self._begun.items() if now - at < TOGETHER_S}
        if key in self._begun or len(self._begun) < NEW_ROWS_LIMIT:
            self._begun.setdefault(key, now)
            return key
        return None, away.reason

    def _run(self) -> None:
        failed = False
        while True:
            ending = self._stopping.wait(WRITE_S)
            try:
                self.write()
                failed = False
            except SQLAlchemyError as error:
                if not failed:
                    LOGGER.error("refused associations are not recorded (%s); trying on", type(error).__name__)
                failed = True
            if ending:
                return

    def write(self) -> None:
        """Commit what was noted. Raises SQLAlchemyError, with all of it noted as before."""
        with self._lock:
            noted, self._noted = self._noted, {}
        if not noted:
            return
        try:
            with self._db.write(effects.DOOR_COMMIT) as session:
                begun = [away for away in noted.values() if _record(session, away)]
                if begun:
                    _forget_old(session)
        except SQLAlchemyError:
            with self._lock:
                for key, away in self._noted.items():
                    if key in noted:
                        noted[key].add(away)
                    else:
                        noted[key] = away
                self._noted = noted
            raise
        for away in begun:
            LOGGER.warning(
                "an association was refused (%s): host %s, from %s to %s%s",
                away.reason,
                away.host or "of many",
                away.calling_ae or "-",
                away.called_ae or "-",
                f"; {away.detail}" if away.detail else "",
            )


def _record(session: Session, away: TurnedAway) -> bool:
    """Add to the row of the last minute, or begin one; returns whether it began one."""
    row = session.scalar(
        select(AssociationRefusal)
        .where(
            AssociationRefusal.host.is_not_distinct_from(away.host),
            AssociationRefusal.reason == away.reason,
            AssociationRefusal.first_at > away.last_at - timedelta(seconds=TOGETHER_S),
        )
        .order_by(AssociationRefusal.id.desc())
        .limit(1)
        .with_for_update()
    )
    if row is None:
        session.add(away.row())
        return True
    row.count += away.count
    row.last_at = max(row.last_at, away.last_at)
    row.calling_ae, row.called_ae, row.contexts = away.calling_ae, away.called_ae, away.contexts
    return False


def _forget_old(session: Session) -> None:
    newest = session.scalar(select(func.max(AssociationRefusal.id))) or 0
    before = utcnow() - timedelta(days=KEPT_DAYS)
    session.execute(
        delete(AssociationRefusal).where(
            (AssociationRefusal.id <= newest - KEPT_ROWS) | (AssociationRefusal.last_at < before)
        )
    )
