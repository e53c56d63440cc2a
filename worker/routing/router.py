"""Routing a closed revision: its study is read, each pipeline is asked, and the jobs are written."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection

from sqlalchemy import update
from sqlalchemy.orm import Session

from firstread import effects
from firstread.clock import monotonic
from firstread.records import Database, Job, Revision
from firstread.records.studies import is_self_test
from firstread.settings import Settings
from firstread.storage.faults import machine_fault
from firstread.storage.spool import Spool
from worker.errors import describe, reason_of
from worker.metrics import ERRORS
from worker.pipelines.base import StudyImages
from worker.pipelines.reasons import Caution
from worker.pipelines.registry import Orders
from worker.reading import read_study
from worker.routing.earlier_results import decide
from worker.routing.jobs import Overtaken, commit_routing, give_up, orders_of, wanted_by
from worker.routing.rejections import rejected_in

RETRY_S = 5.0
"""Pause before a revision whose routing failed is tried again."""

LONGEST_S = 3600.0
"""No other thread of this process takes up a revision that is being routed, for so long."""

log = logging.getLogger(__name__)


class Router:
    """Routes revisions for one worker process. Thread-safe.

    Parameters
    ----------
    serving : callable
        Names of the pipelines that this process can serve at the moment.
    """

    def __init__(
        self, db: Database, settings: Settings, spool: Spool, owner: str, serving: Callable[[], Collection[str]]
    ) -> None:
        self._db = db
        self._settings = settings
        self._spool = spool
        self._owner = owner
        self._serving = serving
        self._lock = threading.Lock()
        self._blocked_until: dict[int, float] = {}
        self._failures: dict[int, int] = {}
        self._studies: OrderedDict[int, StudyImages] = OrderedDict()
        self.on_progress: Callable[[], None] = lambda: None
        """Called while images of two revisions are compared, which may take long."""

    def busy(self) -> list[int]:
        """Keys of the revisions that are being routed, or wait for their next try."""
        now = monotonic()
        with self._lock:
            return [key for key, until in self._blocked_until.items() if until > now]

    def route(self, revision_id: int, take: Callable[[Session, Job, Revision], None] | None = None) -> bool:
        """Make the jobs of a revision. Failures are bounded: at last the revision is routed with a reason.

        Those that the machine is to blame for do not count (:func:`firstread.storage.faults.machine_fault`).

        Parameters
        ----------
        take : callable, optional
            Claims the first of the jobs, in the transaction that writes them.

        Returns
        -------
        bool
            Whether the jobs were written here and now, and what ``take`` did with them.
        """
        with self._lock:
            if self._blocked_until.get(revision_id, 0.0) > monotonic():
                return False
            self._blocked_until[revision_id] = monotonic() + LONGEST_S
        pause_s = 0.0
        routed = False
        try:
            routed = self._route(revision_id, take)
        except (KeyboardInterrupt, SystemExit):
            raise
        except Overtaken:
            log.info("looked at again: the study got other work meanwhile", extra={"revision": revision_id})
        except BaseException as error:  # noqa: BLE001  # the task boundary of routing
            pause_s = RETRY_S
            self._record_failure(revision_id, error)
        finally:
            with self._lock:
                if pause_s:
                    self._blocked_until[revision_id] = monotonic() + pause_s
                else:
                    self._blocked_until.pop(revision_id, None)
                    self._failures.pop(revision_id, None)
        return routed

    def take_study(self, revision_id: int) -> StudyImages | None:
        """The study as it was read for routing a moment ago, or None."""
        with self._lock:
            return self._studies.pop(revision_id, None)

    def _route(self, revision_id: int, take: Callable[[Session, Job, Revision], None] | None) -> bool:
        with self._db.read() as session:
            revision = session.get_one(Revision, revision_id)
            orders, phantom = self._orders(session, revision), is_self_test(session, revision.study_id)
        study = read_study(self._db, self._spool, revision_id, whole=True)
        rejected = rejected_in(study)
        study = study.without(rejected.left_out)
        names, reason = wanted_by(study, orders)
        if not names and rejected.left_out:
            reason = str(Caution.IMAGES_REJECTED)
        decision = decide(self._db, self._spool, revision_id, study, names, self._orders, self.on_progress)
        routed = commit_routing(
            self._db,
            revision_id,
            names,
            reason,
            serving=self._serving(),
            actor=self._owner,
            settings=self._settings,
            decision=decision,
            rejected=rejected,
            take=take,
        )
        if routed and not phantom:  # the rows of a phantom go, and SQLite gives their numbers to the next study
            self._keep_study(revision_id, study)
        return routed

    def _orders(self, session: Session, revision: Revision) -> Orders:
        return orders_of(session, self._settings, revision)

    def _keep_study(self, revision_id: int, study: StudyImages) -> None:
        """Spare the thread that scores a freshly routed revision a second reading of its headers."""
        with self._lock:
            self._studies[revision_id] = study
            while len(self._studies) > self._settings.worker_threads:
                self._studies.popitem(last=False)

    def _record_failure(self, revision_id: int, error: BaseException) -> None:
        fault = machine_fault(error)
        reason = fault or reason_of(error)
        with self._lock:
            failures = self._failures[revision_id] = self._failures.get(revision_id, 0) + (fault is None)
        ERRORS.labels("", reason).inc()
        log.error("routing failed: %s", describe(error), extra={"reason": reason, "attempt": failures})
        if failures >= self._settings.max_attempts:
            give_up(self._db, revision_id, actor=self._owner, error=describe(error), settings=self._settings)
            return
        with self._db.write(effects.ROUTE_FAIL_COMMIT) as session:
            session.execute(update(Revision).where(Revision.id == revision_id).values(published_at=None))
