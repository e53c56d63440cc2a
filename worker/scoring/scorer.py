"""The task boundary: what a doorbell sets off, and the one place that catches everything, records and counts it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from firstread.clock import monotonic
from firstread.pipelines import flags_by_itself
from firstread.records import Database
from firstread.settings import Settings
from firstread.states import JobState
from firstread.storage.faults import machine_fault
from firstread.storage.store import spool_of, store_of
from worker import metrics
from worker.decoder.limits import one_study
from worker.engine.requests import Progress
from worker.engine.serving import Serving
from worker.errors import LeaseLost, NoServingPackage, describe, reason_of
from worker.pipelines import registry
from worker.pipelines.base import Engine, Outcome
from worker.pipelines.runner import run
from worker.reading import read_study
from worker.scoring.claims import Claimer, JobClaim, Rank
from worker.scoring.evidence import EvidenceStore
from worker.scoring.leases import Lease, LeaseKeeper
from worker.scoring.pauses import Pause
from worker.scoring.results import Report, commit_failure, commit_outcome
from worker.scoring.shared_lock import SharedLock
from worker.scoring.urgent import UrgentLane

log = logging.getLogger(__name__)


class Engines(Protocol):
    """The engine as each job gets it; :class:`worker.engine.device.EngineThread` is one."""

    def handle(self, priority: int, lease: Progress) -> AbstractContextManager[Engine]:
        """The engine for one job, whose ``lease`` is touched with each step forward; priority 0 is served first."""
        ...


class Scorer:
    """Takes the next job and scores it, from the claim to the commit; called by every task thread."""

    def __init__(
        self,
        *,
        db: Database,
        settings: Settings,
        owner: str,
        claimer: Claimer,
        keeper: LeaseKeeper,
        engine: Engines,
        serving: Serving,
    ) -> None:
        self._db = db
        self._settings = settings
        self._owner = owner
        self._claimer = claimer
        self._keeper = keeper
        self._engine = engine
        self._serving = serving
        self._spool = spool_of(settings)
        self._evidence = EvidenceStore(settings.evidence_dir, store_of(settings))
        self._lock = SharedLock()
        self._pause = Pause()
        self.urgent = UrgentLane(self._take_urgent, settings.worker_threads)
        """Whoever runs a service starts and closes it."""
        self.stopping = threading.Event()
        self.doorbell_at = monotonic()
        """When a doorbell was answered last."""

    def answer(self) -> int:
        """Answer a doorbell: score the most urgent job, then the next, until none waits or the process shall stop.

        Returns the number of jobs that were taken. Never raises: a database that is away leaves the work to the next
        doorbell.
        """
        taken = 0
        outcome = "nothing"
        try:
            while not self.stopping.wait(self._pause.left_s()) and self._take_one():
                taken += 1
            outcome = "work" if taken else "nothing"
        except SQLAlchemyError as error:
            outcome = "error"
            log.error("no claim: %s", describe(error), extra={"reason": reason_of(error)})
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # the task boundary: a library's panic ends no thread
            outcome = "error"
            log.error("doorbell failed: %s", describe(error), extra={"reason": reason_of(error)})
        metrics.DOORBELLS.labels(outcome).inc()
        self.doorbell_at = monotonic()
        return taken

    def _take_one(self) -> bool:
        with self._lock.shared():
            if self.stopping.is_set():
                return False
            claim = self._claimer.next()
            if claim is None:
                return False
            if not claim.alone:
                with self.urgent.holding(claim):
                    self._score_claim(claim, lambda lease: nullcontext())
                return True
        self._score_claim(claim, lambda lease: self._lock.alone(still=lease.touch, limit_s=self._settings.stall_s))
        return True

    def _take_urgent(self, least: Rank) -> bool:
        """Score a job that is more urgent than one in hand, beside those; whether there was one."""
        with self._lock.shared():
            idle = self.stopping.is_set() or self._pause.left_s() > 0
            claim = None if idle else self._claimer.next(before=least)
            if claim is None:
                return False
            with self.urgent.holding(claim, beside=True):
                self._score_claim(claim, lambda lease: nullcontext())
        return True

    def _score_claim(self, claim: JobClaim, room: Callable[[Lease], AbstractContextManager[object]]) -> None:
        """Score a claimed job, or record why not. Whatever happens, the job ends in a state."""
        fields = {**claim.log_fields, "attempt": claim.attempt}
        try:
            with self._keeper.hold(claim.job_id) as lease, room(lease):
                state, report = self._score(claim, lease)
        except LeaseLost:
            metrics.JOBS.labels(claim.pipeline, "LOST").inc()
            log.warning("lease lost, nothing written", extra=fields)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # the task boundary: recorded and counted, a panic too
            self._failed(claim, error)
        else:
            self._pause.forget()
            if not claim.self_test:
                self._count(claim, state, report)
            log.info("committed", extra={**fields, "outcome": state.value, "seconds": _since(claim)})

    def _score(self, claim: JobClaim, lease: Lease) -> tuple[JobState, Report]:
        report = Report(stage_seconds={"wait": claim.seconds_since(claim.closed_at)})
        started = time.perf_counter()

        def observe(stage: str, seconds: float) -> None:
            report.stage_seconds[stage] = report.stage_seconds.get(stage, 0.0) + seconds
            metrics.STAGE_SECONDS.labels(claim.pipeline, stage).observe(seconds)
            lease.touch()
            self.urgent.stand_aside(claim, lease)

        study = self._claimer.router.take_study(claim.revision_id) or read_study(
            self._db, self._spool, claim.revision_id
        )
        study = study.asked(claim.forced)
        observe("read", time.perf_counter() - started)
        served = self._serving.of(claim.pipeline)
        with self._engine.handle(claim.rank, lease) as engine, one_study(lease.touch):
            result = run(
                registry.row(claim.pipeline), study, served, engine, observe, next_steps=self._settings.next_steps
            )
        report.outcome = result.outcome
        report.reasons = result.reasons
        report.notes = result.notes
        report.detail = result.detail
        report.warnings = study.warnings
        report.models = tuple(package.key for group in served.values() for package in group)
        report.engines = {key: self._serving.engines[key] for key in report.models}
        report.statistics = {k: float(v) for k, v in result.details.items() if isinstance(v, int | float)}
        if result.outcome is None:
            return self._commit(claim, report, None), report
        before = time.perf_counter()
        path = self._evidence.write(result.outcome.evidence)
        observe("evidence", time.perf_counter() - before)
        try:
            before = time.perf_counter()
            state = self._commit(claim, report, path)
        except BaseException:
            self._evidence.discard(path)
            raise
        metrics.STAGE_SECONDS.labels(claim.pipeline, "commit").observe(time.perf_counter() - before)
        return state, report

    def _commit(self, claim: JobClaim, report: Report, evidence_path: str | None) -> JobState:
        return commit_outcome(
            self._db,
            self._settings,
            job_id=claim.job_id,
            owner=self._owner,
            report=report,
            evidence_path=evidence_path,
        )

    def _failed(self, claim: JobClaim, error: BaseException) -> None:
        """Record why a job ended; one that the machine failed waits for better times, and its attempt does not count.

        Then this process takes no job for a while: the next one would fail alike.
        """
        fault = machine_fault(error)
        reason = fault or reason_of(error)
        metrics.ERRORS.labels(claim.pipeline, reason).inc()
        log.error(
            "attempt failed: %s",
            describe(error),
            extra={**claim.log_fields, "reason": reason, "attempt": claim.attempt},
        )
        if fault is not None:
            log.warning("no job is taken for %.0f s", self._pause.begin(), extra={"reason": fault})
        try:
            state = commit_failure(
                self._db,
                job_id=claim.job_id,
                owner=self._owner,
                reason=reason,
                error=describe(error),
                settings=self._settings,
                refund=fault is not None or isinstance(error, NoServingPackage),
            )
        except (LeaseLost, SQLAlchemyError) as second:
            # The lease runs out and the sweeper gives the job back.
            metrics.JOBS.labels(claim.pipeline, "LOST").inc()
            log.error("failure not recorded", extra={**claim.log_fields, "reason": reason_of(second)})
            return
        metrics.JOBS.labels(claim.pipeline, state.value if state is JobState.FAILED else "RETRY").inc()

    def _count(self, claim: JobClaim, state: JobState, report: Report) -> None:
        metrics.JOBS.labels(claim.pipeline, state.value).inc()
        metrics.RESULT_SECONDS.labels(claim.pipeline).observe(_since(claim))
        for reason in report.reasons[:1]:
            metrics.REJECTIONS.labels(claim.pipeline, reason).inc()
        if report.outcome is not None:
            _count_outcome(claim.pipeline, report.outcome)


def _count_outcome(pipeline: str, outcome: Outcome) -> None:
    for code in outcome.warnings:
        metrics.WARNINGS.labels(pipeline, code).inc()
    for finding in outcome.findings:
        model = f"{finding.model_name}/{finding.model_version}"
        if finding.flagged and finding.role == "active":
            metrics.FLAGS.labels(pipeline, model).inc()
        if flags_by_itself(pipeline, finding.name) and finding.probability is not None:
            metrics.SCORE.labels(pipeline, model).observe(finding.probability)
            if finding.role == "active" and (finding.flagged or finding.threshold is not None):
                call = metrics.POSITIVE if finding.flagged else metrics.NEGATIVE
                metrics.CALLS.labels(pipeline, model, call).inc()


def _since(claim: JobClaim) -> float:
    return claim.seconds_since(claim.last_seen_at)
