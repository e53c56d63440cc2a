"""Where the processor time of a study goes: each step of a worker alone in this process, one study after the other.

Everything that a worker does between the doorbell and the commit is done here by its own functions, in one thread, so
that what the process takes of a processor meanwhile belongs to the step; the threads of the engine are in it, and of
compressed studies what the decoders take beside.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

from firstread.dicom.pixels.codecs import decode_here, decode_with
from firstread.processes.spawning import process_id
from firstread.storage.store import spool_of
from tests.bench.figures import Collected, Figure
from tests.bench.pictures import Draw, head, no_head, write
from tests.bench.sending import send_together
from tests.bench.site import Site, engines, site
from tests.bench.sizes import Sizes
from worker.decoder.limits import one_study
from worker.decoder.pool import DecoderPool
from worker.engine.device import EngineThread
from worker.engine.loading import load_serving
from worker.engine.requests import NoProgress
from worker.engine.serving import Serving
from worker.pipelines import registry
from worker.pipelines.runner import run
from worker.reading import read_study
from worker.scoring.claims import Claimer
from worker.scoring.evidence import EvidenceStore
from worker.scoring.results import Report, commit_outcome

DECODERS = "decoders, beside"
TOTAL = "together"
LOAD_LIMIT_S = 900.0
SYNTAXES: dict[str, UID] = {
    "uncompressed": ExplicitVRLittleEndian,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000, lossless": JPEG2000Lossless,
}


class Clock:
    """Processor time of this process by step, and of the decoders."""

    def __init__(self, decoders: DecoderPool) -> None:
        self._decoders = decoders
        self._at = time.process_time()
        self._before = _cpu_s(decoders)
        self.spent: dict[str, float] = {}

    def note(self, step: str, *_: object) -> None:
        """What was taken since the last note belongs to this step."""
        now = time.process_time()
        self.spent[step] = self.spent.get(step, 0.0) + now - self._at
        self._at = now

    def close(self) -> dict[str, float]:
        """All steps; the decoders' in one."""
        self.spent[DECODERS] = _cpu_s(self._decoders) - self._before
        return self.spent


def _cpu_s(decoders: DecoderPool) -> float:
    total = 0.0
    for pid in decoders.pids():
        times = psutil.Process(pid).cpu_times()
        total += times.user + times.system
    return total


class Bench:
    """A worker's parts, without its threads."""

    def __init__(self, place: Site, engine: EngineThread, serving: Serving, decoders: DecoderPool) -> None:
        settings = place.settings
        self._decoders = decoders
        self._place = place
        self._engine = engine
        self._serving = serving
        self._owner = process_id("bench")
        able = serving.pipelines(registry.REGISTRY)
        self._spool = spool_of(settings)
        self._claimer = Claimer(place.db, settings, self._spool, self._owner, lambda: able)
        self._evidence = EvidenceStore(settings.evidence_dir)

    def one(self) -> dict[str, float] | None:
        """Score one study that waits; processor seconds by step, None where none waits."""
        clock = Clock(self._decoders)
        claim = self._claimer.next()
        if claim is None:
            return None
        clock.note("route and claim")
        study = self._claimer.router.take_study(claim.revision_id)
        if study is None:
            study = read_study(self._place.db, self._spool, claim.revision_id)
        served = self._serving.of(claim.pipeline)
        row = registry.row(claim.pipeline)
        with self._engine.handle(claim.rank, NoProgress()) as engine, one_study(lambda: None):
            result = run(row, study.asked(claim.forced), served, engine, clock.note)
        report = Report(outcome=result.outcome, reasons=result.reasons, notes=result.notes, detail=result.detail)
        path = None if result.outcome is None else self._evidence.write(result.outcome.evidence)
        clock.note("evidence")
        settings, owner = self._place.settings, self._owner
        commit_outcome(self._place.db, settings, job_id=claim.job_id, owner=owner, report=report, evidence_path=path)
        clock.note("commit")
        return clock.close()


def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """Heads in several transfer syntaxes, and studies that are refused, with each engine that is installed."""
    studies, slices, size = sizes.pick((20, 30, 512), (2, 8, 128))
    kinds = {f"a head of {slices} slices, {name}": _saved_as(head(slices, size), uid) for name, uid in SYNTAXES.items()}
    kinds["16 slices without a head"] = no_head()
    found = Collected()
    able, lacking = engines()
    with site(folder, quick=sizes.quick) as place, _decoders() as decoders:
        for name, changes in able.items():
            with _engine(place, changes, decoders) as bench:
                for kind, drawn in kinds.items():
                    _kind(found, place, bench, f"{kind}, {name}", drawn, studies)
    for name, reason in lacking.items():
        found.lacks(f"a head of {slices} slices, {name}", TOTAL, "ms", reason)
    return found.figures()


def _kind(found: Collected, place: Site, bench: Bench, subject: str, drawn: Draw, studies: int) -> None:
    closed = place.closed()
    folders, _ = write(drawn, place.folder / "costs", studies + 1)
    send_together(place.settings.dicom_port, folders, 4)
    place.wait(lambda: place.closed() > closed + studies, "the studies to close")
    rows = list(iter(bench.one, None))[1:]  # the first one warms up
    for step in rows[0]:
        # Of other processes the system counts hundredths of a second: their mean is shown.
        values = [1000 * row.get(step, 0.0) for row in rows]
        found.add(subject, step, "ms", *([sum(values) / len(values)] if step == DECODERS else values))
    found.add(subject, TOTAL, "ms", *(1000 * sum(row.values()) for row in rows))


def _saved_as(draw: Draw, syntax: UID) -> Draw:
    """The same pictures, compressed."""
    done: dict[int, list[Dataset]] = {}

    def drawn(number: int) -> list[Dataset]:
        if number not in done:
            done[number] = draw(number)
            if syntax != ExplicitVRLittleEndian:
                for ds in done[number]:
                    ds.compress(syntax, generate_instance_uid=False)
        return done[number]

    return drawn


@contextmanager
def _engine(place: Site, changes: dict[str, object], decoders: DecoderPool) -> Iterator[Bench]:
    settings = place.settings.model_copy(update=changes)
    engine = EngineThread(batch_wait_s=0.0, limit_s=LOAD_LIMIT_S)
    engine.start()
    try:
        serving = engine.call(lambda: load_serving(settings), LOAD_LIMIT_S)
        engine.serve(serving.models)
        yield Bench(place, engine, serving, decoders)
    finally:
        engine.close()


@contextmanager
def _decoders() -> Iterator[DecoderPool]:
    pool = DecoderPool()
    pool.start()
    decode_with(pool.decode)
    try:
        yield pool
    finally:
        decode_with(decode_here)
        pool.close()
