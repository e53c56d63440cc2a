"""A site to measure on: a home with its database, an embedded broker, a listener and a worker, each started by its
command, so that whatever is in the tree is measured."""

from __future__ import annotations

import importlib.util
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from sqlalchemy import func, select

from firstread.dicom.sender import echo
from firstread.processes.broker import EmbeddedBroker
from firstread.processes.spawning import firstread_command, settings_environ, spawn, stop
from firstread.records import WORKER, Database, Flag, Job, Process, Revision, Study
from firstread.records.migrate import upgrade
from firstread.settings import Settings
from firstread.states import JobState, RevisionState
from tests.bench.positive_films import every_film_positive
from tests.bench.sending import CALLED_AE
from tests.builders.timing import free_port

START_LIMIT_S = 300.0
LIMIT_S = 1200.0
STOP_LIMIT_S = 30.0
URGENT_AE = "URGENT"
TENSORFLOW, OPENVINO = "tensorflow", "openvino"
WORDS = {TENSORFLOW: "TensorFlow", OPENVINO: "OpenVINO"}
QUICK_PACKAGES = ("head_ct_bleed", "pneumonia_cnn")
ENDED = (JobState.DONE.value, JobState.REJECTED.value)


def engines() -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Engines that a worker can be started with here, each with its settings, and why others are left out, by name."""
    if "engine" not in Settings.model_fields:
        return {WORDS[TENSORFLOW]: {}}, {WORDS[OPENVINO]: "this worker has no setting for the engine"}
    able: dict[str, dict[str, Any]] = {WORDS[TENSORFLOW]: {"engine": TENSORFLOW}}
    if importlib.util.find_spec("openvino") is None:
        return able, {WORDS[OPENVINO]: "openvino is not installed"}
    return able | {WORDS[OPENVINO]: {"engine": OPENVINO}}, {}


@dataclass
class Site:
    """Processes and database of a site.

    Attributes
    ----------
    out : file
        Where the processes write.
    one_worker : bool
        Start a worker once and keep it, whatever is asked for: for a test, which cannot wait for several.
    """

    settings: Settings
    db: Database
    folder: Path
    out: IO[bytes]
    one_worker: bool = False
    listener: subprocess.Popen[bytes] | None = None
    worker: subprocess.Popen[bytes] | None = None
    changes: dict[str, Any] = field(default_factory=dict)

    def engines(self) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """:func:`engines`, or the first of them where the worker stays as it was started."""
        able, lacking = engines()
        first, *others = able
        if not self.one_worker:
            return able, lacking
        return {first: able[first]}, lacking | dict.fromkeys(others, "the worker of a quick run stays")

    def listen(self) -> None:
        """Start the listener."""
        command = firstread_command("listen")
        self.listener = spawn(command, environ=settings_environ(self.settings), stdout=self.out, stderr=self.out)
        port = self.settings.dicom_port
        self.wait(lambda: not echo(host="127.0.0.1", port=port, called_ae=CALLED_AE, timeout_s=2), "the listener")

    def work(self, **changes: Any) -> float:
        """Have a worker with these changed settings that is ready; seconds until it was."""
        if self.worker is not None and self.worker.poll() is None and (self.one_worker or changes == self.changes):
            return 0.0
        self.rest()
        started = time.monotonic()
        command = firstread_command("work")
        environ = settings_environ(self.settings, **changes)
        self.worker = spawn(command, environ=environ, stdout=self.out, stderr=self.out)
        self.changes = changes
        self.wait(self._is_ready, "the worker")
        return time.monotonic() - started

    def rest(self) -> None:
        """Have no worker."""
        if self.worker is not None and not self.one_worker:
            stop(self.worker, STOP_LIMIT_S)
            self.worker = None
            self.wait(lambda: not self._is_ready(), "the worker's end")

    def _is_ready(self) -> bool:
        with self.db.read() as session:
            rows = session.scalars(select(Process).where(Process.kind == WORKER)).all()
        return any(row.details.get("state") == "ready" for row in rows)

    def wait(self, ready: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
        """Wait until something is so. Raises where a process has ended, a job failed or the time is over."""
        end = time.monotonic() + limit_s
        while not ready():
            for name, process in (("listener", self.listener), ("worker", self.worker)):
                if process is not None and process.poll() is not None:
                    raise RuntimeError(f"the {name} ended with {process.poll()} while the bench waited for {what}")
            if time.monotonic() > end:
                raise RuntimeError(f"{what}: not within {limit_s:.0f} s")
            time.sleep(0.05)

    def closed(self) -> int:
        """Revisions that are complete."""
        with self.db.read() as session:
            query = select(func.count()).select_from(Revision).where(Revision.state == RevisionState.CLOSED.value)
            return session.scalar(query) or 0

    def ended(self) -> int:
        """Jobs with an outcome. Raises where one failed."""
        with self.db.read() as session:
            counts = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).tuples().all())
        if counts.get(JobState.FAILED.value):
            raise RuntimeError("a job failed")
        return sum(counts.get(state, 0) for state in ENDED)

    def wait_ended(self, count: int) -> None:
        """Wait until so many jobs have an outcome."""
        self.wait(lambda: self.ended() >= count, f"{count} outcomes")

    def flagged(self, uids: list[str]) -> int:
        """How many of these studies are flagged."""
        with self.db.read() as session:
            query = (
                select(func.count(Flag.study_id.distinct()))
                .join(Study, Study.id == Flag.study_id)
                .where(Study.study_instance_uid.in_(uids))
            )
            return session.scalar(query) or 0

    def timings(self, uids: list[str]) -> list[dict[str, float]]:
        """For each study: seconds of its parts, from the last image on, and of each stage."""
        with self.db.read() as session:
            rows = session.execute(
                select(Revision, Job)
                .join(Job, Job.revision_id == Revision.id)
                .join(Study, Study.id == Revision.study_id)
                .where(Study.study_instance_uid.in_(uids), Job.state.in_(ENDED))
                .order_by(Job.id)
            ).all()
            return [_timing(revision, job) for revision, job in rows]


def _timing(revision: Revision, job: Job) -> dict[str, float]:
    assert revision.closed_at is not None
    assert job.started_at is not None
    assert job.finished_at is not None
    return {
        "last image to row": (job.finished_at - revision.last_seen_at).total_seconds(),
        "last image to close": (revision.closed_at - revision.last_seen_at).total_seconds(),
        "close to claim": (job.started_at - revision.closed_at).total_seconds(),
        "claim to row": (job.finished_at - job.started_at).total_seconds(),
        "started": job.started_at.timestamp(),
        "finished": job.finished_at.timestamp(),
    } | {f"stage {name}": seconds for name, seconds in job.stage_seconds.items() if name != "wait"}


@contextmanager
def site(folder: Path, *, quick: bool = False) -> Iterator[Site]:
    """A site with a listener; the worker is started by whoever measures.

    A quick one has two of the shipped packages, every film is positive there, and its worker stays.
    """
    home = folder / "site"
    home.mkdir(parents=True)
    models: dict[str, Any] = {}
    if quick:
        models["models_dir"] = every_film_positive(folder / "quick_models", QUICK_PACKAGES)
    settings = Settings(
        home=home,
        dicom_port=free_port(),
        metrics_port=0,
        min_free_mb=0,
        priority_by_calling_ae={URGENT_AE: 0},
        database_url="",
        broker_url="",
        **models,
    )
    db = Database(settings.database_url)
    upgrade(db)
    broker = EmbeddedBroker(settings)
    broker.start()
    with (folder / "processes.log").open("ab") as out:
        place = Site(settings, db, folder, out, one_worker=quick)
        try:
            place.listen()
            yield place
        finally:
            for process in (place.worker, place.listener):
                if process is not None:
                    stop(process, STOP_LIMIT_S)
            broker.close()
            db.dispose()
