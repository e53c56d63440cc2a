"""What has to be done from time to time: the dead-man's heartbeat, retention, drift, remains of self-tests, counts."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import httpx
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from firstread.clock import utcnow
from firstread.records import LISTENER, WORKER, Database, Process, Revision, fold_tallies
from firstread.records.clock import now_of
from firstread.records.migrate import head_revision
from firstread.settings import Settings
from firstread.states import RevisionState
from firstread.upkeep.drift import compute_drift
from firstread.upkeep.retention import Removed, clean, kept_back, make_room
from firstread.upkeep.self_tests import remove_leftovers

SILENT_S = 60.0
STUCK_S = 900.0
RETENTION_S = 60.0
ROOM_S = 2.0
DRIFT_S = 3600.0
TALLY_S = 10.0
HEARTBEAT_TIMEOUT_S = 10.0
TICK_S = 1.0

log = logging.getLogger(__name__)


def problems(db: Database, settings: Settings) -> list[str]:
    """What is wrong with the system as a whole, as codes; empty while all is well.

    ``database``, ``disk`` (under the watermark), ``listener_silent``, ``worker_silent``, and ``stuck``: a closed study
    has waited for fifteen minutes to be looked at.
    """
    codes = []
    try:
        with db.read() as session:
            now = now_of(session)
            latest = select(Process.kind, func.max(Process.heartbeat_at)).group_by(Process.kind)
            heartbeats: dict[str, datetime] = {kind: newest for kind, newest in session.execute(latest) if newest}
            waiting = session.scalar(
                select(func.min(Revision.closed_at)).where(
                    Revision.state == RevisionState.CLOSED.value, Revision.routed_at.is_(None)
                )
            )
    except SQLAlchemyError:
        return ["database"]
    for kind in (LISTENER, WORKER):
        heartbeat = heartbeats.get(kind)
        if heartbeat is None or now - heartbeat > timedelta(seconds=SILENT_S):
            codes.append(f"{kind}_silent")
    if waiting is not None and now - waiting > timedelta(seconds=STUCK_S):
        codes.append("stuck")
    try:
        if shutil.disk_usage(settings.spool_dir).free < settings.min_free_mb * 2**20:
            codes.append("disk")
    except OSError:
        codes.append("disk")
    return codes


def beat(db: Database, settings: Settings) -> bool:
    """POST to the heartbeat URL unless something is wrong; returns whether the other side took it.

    Silence is the alarm: a machine that is down, or this process, sends none either.
    """
    if settings.heartbeat_url is None:
        return False
    codes = problems(db, settings)
    if codes:
        log.error("no heartbeat is sent: %s", ", ".join(codes))
        return False
    try:
        with httpx.Client(timeout=HEARTBEAT_TIMEOUT_S, trust_env=False) as client:
            response = client.post(settings.heartbeat_url.get_secret_value(), json={"status": "ok"})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        log.warning("heartbeat not delivered (%s)", type(error).__name__)
        return False
    if not response.is_success:
        log.warning("heartbeat not taken (HTTP %d)", response.status_code)
    return response.is_success


def run_upkeep(settings: Settings, stop_event: threading.Event) -> None:
    """Do all of it at its time until ``stop_event`` is set. Blocks; a duty that fails does not stop the others."""
    db = Database(settings.database_url)
    db.hold_to(head_revision())
    room = RoomKeeper(db, settings)
    duties: list[tuple[str, float, Callable[[], object]]] = [
        ("heartbeat", settings.heartbeat_s, lambda: beat(db, settings)),
        ("retention", RETENTION_S, lambda: _clean(db, settings)),
        ("room", ROOM_S, room.look),
        ("drift", DRIFT_S, lambda: _drift(db, settings)),
        ("self-test", RETENTION_S, lambda: remove_leftovers(db, settings)),
        ("tally", TALLY_S, lambda: fold_tallies(db)),
    ]
    due = dict.fromkeys((name for name, _, _ in duties), 0.0)
    try:
        while not stop_event.is_set():
            for name, every_s, duty in duties:
                if time.monotonic() < due[name] or stop_event.is_set():
                    continue
                due[name] = time.monotonic() + every_s
                try:
                    duty()
                except (SQLAlchemyError, OSError) as error:
                    log.error("%s: %s", name, type(error).__name__)
            stop_event.wait(TICK_S)
    finally:
        db.dispose()


def _clean(db: Database, settings: Settings) -> None:
    if settings.retention_days:
        _log_removed(clean(db, settings))


def _log_removed(removed: Removed) -> None:
    if removed.studies or removed.evidence or removed.refused:
        log.info(
            "retention: %d studies, %d files, %d refused files, %d bytes",
            removed.studies,
            removed.files,
            removed.refused,
            removed.size_bytes,
        )


class RoomKeeper:
    """Keeps room on the disk: looks every few seconds, since a fast sender fills gigabytes a minute."""

    def __init__(self, db: Database, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._settings = settings
        self._clock = clock
        self._next = 0.0

    def look(self) -> None:
        """Make room if there is too little; where nothing may go, say what keeps it and look again in a minute."""
        if self._clock() < self._next or not self._settings.retention_free_mb:
            return
        removed = Removed()
        short = make_room(self._db, self._settings, removed)
        _log_removed(removed)
        if short and not removed.files:
            self._next = self._clock() + RETENTION_S
            reasons = ", ".join(f"{name} {count}" for name, count in kept_back(self._db).items())
            log.error("the disk is short of space, and no images may go; studies kept by %s", reasons)


def _drift(db: Database, settings: Settings) -> None:
    today = utcnow().date()
    for day in (today - timedelta(days=1), today):
        compute_drift(db, settings, day)
