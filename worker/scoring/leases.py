"""Leases: the database row that says whose a job is, and the thread that keeps saying so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import update

from firstread import effects
from firstread.clock import monotonic
from firstread.processes.lasting import lasting_thread
from firstread.records import Database, Job
from firstread.records.clock import now_of
from firstread.states import JobState
from worker.errors import LeaseLost
from worker.metrics import SCORING_JOBS

log = logging.getLogger(__name__)


class Lease:
    """A job in this process's hands. Thread-safe.

    Attributes
    ----------
    progress : float
        ``monotonic()`` of the last step forward; the supervisor watches its age.
    """

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        self.progress = monotonic()
        self._lost = threading.Event()

    def touch(self) -> None:
        """Note a step forward. Raises :class:`LeaseLost` if the job is no longer ours."""
        self.check()
        self.progress = monotonic()

    def check(self) -> None:
        """Raise :class:`LeaseLost` if the job is no longer ours."""
        if self._lost.is_set():
            raise LeaseLost(f"job {self.job_id}")

    def lose(self) -> None:
        """Note that somebody else has the job."""
        self._lost.set()


class LeaseKeeper:
    """Renews the leases of this process four times a lease.

    A renewal that the database refuses for a while is no loss as such: the lease still stands in the row until
    somebody takes it, and the commit of results checks again (the fence).
    """

    def __init__(self, db: Database, owner: str, lease_s: float) -> None:
        self._db = db
        self._owner = owner
        self._lease_s = lease_s
        self._leases: dict[int, Lease] = {}
        self.taken = 0
        """Jobs that have been held since the start."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = lasting_thread(self._run, "lease-keeper", stopping=self._stop)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def close(self) -> None:
        """Stop renewing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    @contextmanager
    def hold(self, job_id: int) -> Iterator[Lease]:
        """Keep the lease of a claimed job alive during the block."""
        lease = Lease(job_id)
        with self._lock:
            self._leases[job_id] = lease
            self.taken += 1
            SCORING_JOBS.set(len(self._leases))
        try:
            yield lease
        finally:
            with self._lock:
                self._leases.pop(job_id, None)
                SCORING_JOBS.set(len(self._leases))

    def progress(self) -> dict[int, float]:
        """``monotonic()`` of the last step of each job in hand."""
        with self._lock:
            return {job_id: lease.progress for job_id, lease in self._leases.items()}

    def renew(self) -> None:
        """Renew every lease; those that are no longer ours are marked lost."""
        with self._lock:
            leases = list(self._leases.values())
        if not leases:
            return
        with self._db.write(effects.LEASE_COMMIT) as session:
            now = now_of(session)
            until = now + timedelta(seconds=self._lease_s)
            for lease in leases:
                progress_at = now - timedelta(seconds=monotonic() - lease.progress)
                ours = (
                    update(Job)
                    .where(Job.id == lease.job_id, Job.lease_owner == self._owner, Job.state == JobState.SCORING.value)
                    .values(lease_until=until, progress_at=progress_at)
                    .execution_options(synchronize_session=False)
                    .returning(Job.id)
                )
                if session.scalar(ours) is None:
                    with self._lock:
                        still = self._leases.get(lease.job_id) is lease
                    if still:
                        lease.lose()

    def _run(self) -> None:
        while not self._stop.wait(self._lease_s / 4):
            try:
                self.renew()
            except Exception as error:  # noqa: BLE001  # whatever it is, the next renewal may do
                log.warning("leases not renewed", extra={"reason": type(error).__name__})
