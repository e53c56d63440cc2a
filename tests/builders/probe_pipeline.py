"""A pipeline that does what a study's SeriesDescription says. Registered by tests alone.

``ok``, ``flag``, ``slow:SECONDS``, ``slow_flag:SECONDS``, ``hang``, ``die``, ``die_after:SECONDS``,
``die_once:FILE``, ``error``, ``panic``, ``nan``, ``reject``, ``gone`` (no package), ``pixels`` (reads them).
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from firstread.dicom.pixels.reading import UnreadablePixels, read_frame
from worker.errors import NoServingPackage
from worker.pipelines.base import (
    Evidence,
    Finding,
    Gate,
    NetworkInputs,
    Outcome,
    PipelineSteps,
    ScoredSeries,
    Selection,
    Series,
    SeriesNote,
    ServedByTask,
    SliceScore,
    StoredInstance,
    StudyImages,
)
from worker.pipelines.ensemble import infer_each


class Panic(BaseException):
    """What a library written in Rust raises: no ``Exception``."""


def behaviour(study: StudyImages) -> str:
    return str(study.instances[0].ds.get("SeriesDescription", "ok"))


def select(study: StudyImages) -> Selection[tuple[StoredInstance, ...]]:
    uid = study.instances[0].SeriesInstanceUID
    note = SeriesNote(uid, chosen=True, reasons=(), n_instances=len(study.instances))
    return Selection((Series(uid, study.instances, study.instances, {"what": behaviour(study)}),), (note,))


def gate(study: StudyImages, series: Series[tuple[StoredInstance, ...]]) -> Gate[tuple[StoredInstance, ...]]:
    what, _, value = behaviour(study).partition(":")
    if what == "reject":
        return Gate(reasons=("not_wanted",))
    if what in ("slow", "slow_flag", "die_after"):
        time.sleep(float(value))
    if what == "hang":
        while True:
            time.sleep(1.0)
    if what in ("die", "die_after") or (what == "die_once" and not _seen(Path(value))):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "error":
        raise ValueError("a value that must not be logged")
    if what == "panic":
        raise Panic("a value that must not be logged")
    if what == "pixels":
        try:
            for instance in series.images:
                read_frame(instance.path)
        except UnreadablePixels:
            return Gate(reasons=("unreadable_pixel_data",))
    if what == "gone":
        raise NoServingPackage("probe")
    return Gate(warnings=("probe_warning",), pixels=series.images)


def _seen(path: Path) -> bool:
    if path.exists():
        return True
    path.touch()
    return False


def preprocess(instances: tuple[StoredInstance, ...], served: ServedByTask) -> NetworkInputs[None]:
    return NetworkInputs({"probe/1": np.full((len(instances), 8, 8, 1), 0.5, dtype=np.float32)})


def interpret(scored: ScoredSeries[tuple[StoredInstance, ...], None]) -> Outcome:
    what = behaviour(scored.study).partition(":")[0]
    p = scored.outputs["probe/1"]["p"][:, 0]
    top = float("nan") if what == "nan" else float(p.max())
    flagged = what in ("flag", "slow_flag")
    return Outcome(
        findings=[
            Finding("any", "probe", "1", probability=0.9 if flagged else top, threshold=0.8, flagged=flagged),
            Finding("bleed_volume", "probe", "1", value=12.5, unit="mL"),
        ],
        slice_scores=[
            SliceScore(i.key, 0, n + 1, "any", float(p[n]), "probe", "1") for n, i in enumerate(scored.pixels)
        ],
        warnings=("low_evidence",),
        evidence=Evidence(
            pictures={"key_slice": np.zeros((8, 8, 3), dtype=np.uint8)},
            key_instance=scored.pixels[0].key,
        ),
        SeriesInstanceUID=scored.SeriesInstanceUID,
        statistics={"intensity_mean": 3.0},
    )


STEPS = PipelineSteps[tuple[StoredInstance, ...], tuple[StoredInstance, ...], None](
    select=select,
    gate=gate,
    preprocess=preprocess,
    infer=infer_each,
    interpret=interpret,
)


class ProbeModel:
    """Stands where a loaded package stands; half of the mean, so 0.25 for the probe's input."""

    batch_sizes = (1, 8)

    def predict(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {"p": x.mean(axis=(1, 2, 3), keepdims=False)[:, None] / 2}

    def gradients(self, x: np.ndarray, finding: str) -> np.ndarray:
        return np.zeros(x.shape[:3], dtype=np.float32)

    def class_maps(self, x: np.ndarray, finding: str) -> np.ndarray:
        return np.zeros((2, *x.shape[:3]), dtype=np.float32)
