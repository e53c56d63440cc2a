"""The way past jobs in hand: a more urgent study is scored at once, and what is less urgent stands aside meanwhile.

Where every task thread has a job, nobody would take an urgent study before one of them is done. A thread of its own
looks for one, several times a second and only then, and scores it beside them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from firstread.clock import monotonic
from firstread.processes.lasting import lasting_thread
from firstread.records.studies import LARGEST_KEY
from worker.errors import describe, reason_of
from worker.scoring.claims import JobClaim, Rank
from worker.scoring.leases import Lease

LOOK_S: Final = 0.1
"""Between two looks, where every thread has a job."""

ASIDE_S: Final = 2.0
"""For so long at most a job stands aside between two of its steps: many urgent studies do not hold it up for ever."""

WAIT_S: Final = 0.05

log = logging.getLogger(__name__)


class UrgentLane:
    """Which jobs are in hand, how urgent they are, and the thread that takes what is more urgent than one of them.

    Parameters
    ----------
    take : callable
        Claims and scores a job that goes before a rank, if there is one; whether there was.
    threads : int
        Task threads; the lane takes nothing while one of them is free.
    """

    def __init__(self, take: Callable[[Rank], bool], threads: int) -> None:
        self._take = take
        self._threads = threads
        self._changed = threading.Condition()
        self._in_hand: dict[int, Rank] = {}
        """Jobs of the task threads."""
        self._beside: dict[int, Rank] = {}
        """The lane's own."""
        self._stop = threading.Event()
        self._thread = lasting_thread(self._run, "urgent", stopping=self._stop)

    def start(self) -> None:
        """Start to look."""
        self._thread.start()

    def close(self, limit_s: float = 10.0) -> None:
        """End after the job in hand."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=limit_s)

    @contextmanager
    def holding(self, claim: JobClaim, *, beside: bool = False) -> Iterator[None]:
        """During the block a task thread, or the lane ``beside`` them, has this job, and less urgent ones give way."""
        jobs = self._beside if beside else self._in_hand
        with self._changed:
            jobs[claim.job_id] = claim.rank_before
        try:
            yield
        finally:
            with self._changed:
                jobs.pop(claim.job_id, None)
                self._changed.notify_all()

    def stand_aside(self, claim: JobClaim, lease: Lease) -> None:
        """Between two steps of a job: wait while a more urgent one is in hand. Raises what ``lease`` raises."""
        end = monotonic() + ASIDE_S
        with self._changed:
            while self._most_urgent() < claim.rank_before and monotonic() < end:
                self._changed.wait(WAIT_S)
                lease.touch()

    def least_urgent(self) -> Rank | None:
        """Rank of the least urgent job in hand; None while a task thread is free."""
        with self._changed:
            return max(self._in_hand.values()) if len(self._in_hand) >= self._threads else None

    def _most_urgent(self) -> Rank:
        return min((*self._in_hand.values(), *self._beside.values()), default=(LARGEST_KEY, True))

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                while not self._stop.is_set() and (least := self.least_urgent()) is not None and self._take(least):
                    continue
            except SQLAlchemyError as error:
                log.error("no claim: %s", describe(error), extra={"reason": reason_of(error)})
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001  # the task boundary, as of a doorbell
                log.error("urgent lane failed: %s", describe(error), extra={"reason": reason_of(error)})
