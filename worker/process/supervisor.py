"""``firstread work``: the worker process under supervision, and the sweeper beside it.

Nothing inside a threads pool can end a thread that hangs, so limits of time are enforced from outside: a worker
process with a job that makes no progress, or that gives no sign of life, is killed and started again, and its jobs are
given back.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from firstread.errors import FirstreadError
from firstread.logs import setup_logging
from firstread.metrics.server import forget_process, serve_metrics, share_metrics
from firstread.processes.broker import EmbeddedBroker
from firstread.processes.spawning import is_running, process_id, settings_environ, spawn
from firstread.processes.supervision import Backoff, ChildProcess
from firstread.records import Database, Process, remove_process
from firstread.records.migrate import require_head
from firstread.settings import Settings
from worker.process.heartbeat import HEARTBEAT_FD_VARIABLE, HEARTBEAT_S, OWNER_VARIABLE, HeartbeatReader

if TYPE_CHECKING:
    from worker.process.sweeper import Sweeper

START_LIMIT_S = 900.0
SILENT_S = 30.0
"""A consumer that answers no doorbell for so long, though messages wait and it has nothing in hand, is restarted."""

EARLY_END_S = 30.0
MOST_EARLY_ENDS = 8
LONGEST_PAUSE_S = 60.0
MODELS_LOOK_S = 5.0
STOP_LIMIT_S = 20.0
"""A worker without a job in hand that does not end within so long after SIGTERM is killed."""

STOPS = frozenset({"stopped", "models_changed", "stop_too_slow"})
"""Ends of a worker that was asked to stop: no attempt of the jobs in hand. Every other end is one."""

log = logging.getLogger(__name__)


class WorkerKeepsDying(FirstreadError):
    """The worker process died again and again right after its start, and was never ready."""


RESTART_REASONS = ("worker_died", "worker_stalled", "consumer_silent", "start_too_slow", "stop_too_slow")


class WorkerProcess(ChildProcess):
    """One worker process and its signs of life."""

    def __init__(self, settings: Settings, command: Sequence[str]) -> None:
        self.owner = process_id("worker")
        read_fd, write_fd = os.pipe()
        environ = settings_environ(settings, metrics_port=0)
        environ[HEARTBEAT_FD_VARIABLE] = str(write_fd)
        environ[OWNER_VARIABLE] = self.owner
        try:
            super().__init__(spawn(command, environ=environ, pass_fds=(write_fd,)))
        except OSError:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        self.reader = HeartbeatReader(read_fd)
        self.was_ready = False
        self.silent_since: float | None = None

    def fault(self, settings: Settings, queue_depth: int | None) -> str | None:
        """Why this process must be killed; None while all is well.

        One that has not been ready yet may be silent: what it loads holds up its signs of life, and on a busy machine
        for long. For it the limit of the whole start counts.
        """
        now = time.monotonic()
        beat = self.reader.read()
        self.was_ready = self.was_ready or beat.state == "ready"
        if any(now - at > settings.stall_s for at in beat.jobs.values()):
            return "worker_stalled"
        if self.was_ready and now - beat.at > max(settings.stall_s, 10 * HEARTBEAT_S):
            return "worker_stalled"
        if self.stop_asked is not None:
            idle = not beat.jobs and now - self.stop_asked > STOP_LIMIT_S
            return "stop_too_slow" if idle else None
        if not self.was_ready:
            return "start_too_slow" if now - self.started > START_LIMIT_S else None
        if beat.jobs or not queue_depth or now - beat.doorbell_at < SILENT_S:
            self.silent_since = None
            return None
        self.silent_since = self.silent_since or now
        return "consumer_silent" if now - self.silent_since > SILENT_S else None


class ModelsWatch:
    """Notices new packages and other choices among them, so that both serve without a restart by hand."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._served: object = None
        self._last: object = None
        self._looked = 0.0

    def settle(self) -> None:
        """A worker process starts: it loads what is there now."""
        from worker.engine.loading import fingerprint

        self._served = self._last = fingerprint(self._settings)
        self._looked = time.monotonic()

    def changed(self) -> bool:
        """Whether two looks, five seconds apart, agree that the packages have changed."""
        from worker.engine.loading import fingerprint

        if time.monotonic() - self._looked < MODELS_LOOK_S:
            return False
        self._looked = time.monotonic()
        before, self._last = self._last, fingerprint(self._settings)
        return self._last == before and self._last != self._served


class Supervisor:
    """Keeps one worker process running until a signal says to stop."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        sweeper: Sweeper,
        command: Sequence[str],
        broker: EmbeddedBroker | None = None,
    ) -> None:
        self._settings = settings
        self._db = db
        self._sweeper = sweeper
        self._command = command
        self._broker = broker
        self._signals = 0
        self._woken = threading.Event()
        self._backoff = Backoff(early_s=EARLY_END_S, longest_s=LONGEST_PAUSE_S, most=MOST_EARLY_ENDS)
        self._models = ModelsWatch(settings)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """First SIGTERM or SIGINT: warm shutdown; a second one: at once."""
        self._signals += 1
        self._woken.set()

    def run(self) -> int:
        """Run until a signal comes. Returns the exit status; raises :class:`WorkerKeepsDying`."""
        while not self._signals:
            self._models.settle()
            try:
                child = WorkerProcess(self._settings, self._command)
            except OSError as error:  # no room on the disk, or too many open files: that too passes
                self._note_end(0.0, was_ready=False, what=error.strerror or type(error).__name__)
            else:
                self._after_death(child, self._watch(child))
            if not self._signals:
                self._woken.wait(self._backoff.pause_s)
        return 0

    def _watch(self, child: WorkerProcess) -> str:
        """Look at the process until it is gone; why it went."""
        while child.is_running:
            self._woken.wait(HEARTBEAT_S)
            if self._broker is not None:
                self._broker.keep_running()
            if self._models.changed():
                log.info("the models changed: the worker process is exchanged after the studies in hand")
                child.ask_to_stop()
            if self._signals:
                child.ask_to_stop()
                time.sleep(0.05)
            if self._signals > 1:
                child.kill()
                return "stopped"
            fault = child.fault(self._settings, self._sweeper.queue_depth)
            if fault is not None and child.is_running:
                log.error("worker process killed", extra={"reason": fault})
                child.kill()
                return fault
            if child.was_ready and self._backoff.is_failing:
                self._backoff.record_good()
                self.show_failing()
        child.reader.read()
        code = child.poll()
        if code != 0:
            return "worker_died"
        return "models_changed" if child.stop_asked else "stopped"

    def _after_death(self, child: WorkerProcess, reason: str) -> None:
        from worker.metrics import RESTARTS
        from worker.process.sweeper import EndedProcess

        child.reader.close()
        forget_process(child.pid)
        self._sweeper.give_back_of(EndedProcess(child.owner, reason, asked=reason in STOPS))
        _forget_row(self._db, child.owner)
        if self._signals:
            return
        if reason == "models_changed":
            return
        RESTARTS.labels(reason).inc()
        self._note_end(child.age_s, was_ready=child.was_ready, what=str(child.poll()), reason=reason)

    def _note_end(self, age_s: float, *, was_ready: bool, what: str, reason: str = "worker_died") -> None:
        """Raises :class:`WorkerKeepsDying` where it never was ready and is not to be tried again."""
        log.error("worker process ended", extra={"reason": reason, "outcome": what})
        self._backoff.record_end(age_s, was_ready=was_ready)
        self.show_failing()
        if self._backoff.is_exhausted:
            raise WorkerKeepsDying(
                f"the worker process died {MOST_EARLY_ENDS} times right after its start; "
                f"see {self._settings.log_dir / 'worker.log'}"
            )

    def show_failing(self) -> None:
        """Show whether the worker process is failing; at zero from the start, while the disk has room for it."""
        from firstread.processes.metrics import FAILING

        FAILING.labels("worker").set(int(self._backoff.is_failing))


def _forget_row(db: Database, owner: str) -> None:
    try:
        remove_process(db, owner)
    except SQLAlchemyError as error:
        log.warning("process row not removed", extra={"reason": type(error).__name__})


def give_back_of_predecessors(db: Database, sweeper: Sweeper) -> int:
    """Give back the jobs of workers of this machine that ended without notice (power loss, ``kill -9`` of all)."""
    from worker.process.sweeper import EndedProcess

    with db.read() as session:
        rows = session.scalars(
            select(Process).where(Process.host == socket.gethostname(), Process.kind.in_(["worker", "supervisor"]))
        ).all()
    dead = [row for row in rows if not is_running(row.pid)]
    for row in dead:
        if row.kind == "worker":
            asked = row.details.get("state") == "stopping"  # and was killed before it could finish
            sweeper.give_back_of(EndedProcess(row.id, "worker_died", asked=asked))
        _forget_row(db, row.id)
    return len(dead)


def run_supervisor(settings: Settings, command: Sequence[str] | None = None) -> int:
    """Run ``firstread work`` until SIGTERM or SIGINT.

    Parameters
    ----------
    command : sequence of str, optional
        Command line of the worker process.

    Returns
    -------
    int
        Exit status.

    Raises
    ------
    WorkerKeepsDying, SchemaMismatch, BrokerError, MetricsPortTaken
    """
    share_metrics(settings, "work")
    setup_logging(settings, "work")
    from worker.metrics import RESTARTS
    from worker.process.process_row import ProcessRow
    from worker.process.sweeper import Sweeper

    db = Database(settings.database_url)
    require_head(db)
    broker = EmbeddedBroker(settings) if settings.embedded_broker else None
    if broker is not None:
        broker.start()
    server = serve_metrics(settings, "work", db)
    sweeper = Sweeper(db, settings)
    row = ProcessRow(db, process_id("supervisor"), "supervisor")
    supervisor = Supervisor(settings, db, sweeper, command or [sys.executable, "-m", "worker.process.service"], broker)
    signal.signal(signal.SIGTERM, supervisor.on_signal)
    signal.signal(signal.SIGINT, supervisor.on_signal)
    try:
        for reason in RESTART_REASONS:
            RESTARTS.labels(reason)  # at zero from the start, for the alert that counts its increase
        supervisor.show_failing()
        row.start()
        give_back_of_predecessors(db, sweeper)
        sweeper.start()
        return supervisor.run()
    finally:
        sweeper.close()
        row.close()
        if server is not None:
            server.close()
        if broker is not None:
            broker.close()
        db.dispose()
