"""A pipeline that does what a study's SeriesDescription says. Registered by tests alone.

``ok``, ``flag``, ``slow:SECONDS``, ``hang``, ``die``, ``die_after:SECONDS``, ``die_once:FILE``, ``error``,
``panic``, ``nan``, ``reject``, ``gone`` (no package), ``pixels`` (reads them).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from firstread.dicom.pixels.reading import UnreadablePixels, read_frame
from worker.errors import NoServingPackage
from worker.pipelines.base import (
    Engine,
    Evidence,
    Finding,
    Gate,
    Outcome,
    Selection,
    Series,
    SeriesNote,
    Served,
    SliceScore,
    Study,
)


class Panic(BaseException):
    """What a library written in Rust raises: no ``Exception``."""


def behaviour(study: Study) -> str:
    return str(study.instances[0].ds.get("SeriesDescription", "ok"))


def select(study: Study) -> Selection:
    uid = study.instances[0].SeriesInstanceUID
    note = SeriesNote(uid, chosen=True, reasons=(), n_instances=len(study.instances))
    return Selection((Series(uid, list(study.instances), details={"what": behaviour(study)}),), (note,))


def gate(study: Study, series: Series) -> Gate:
    what, _, value = behaviour(study).partition(":")
    if what == "reject":
        return Gate(reasons=("not_wanted",))
    if what in ("slow", "die_after"):
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
            for instance in series.instances:
                read_frame(instance.path)
        except UnreadablePixels:
            return Gate(reasons=("unreadable_pixel_data",))
    if what == "gone":
        raise NoServingPackage("probe")
    return Gate(warnings=("probe_warning",))


def _seen(path: Path) -> bool:
    if path.exists():
        return True
    path.touch()
    return False


def preprocess(series: Series, served: Mapping[str, Sequence[Served]]) -> dict[str, np.ndarray]:
    return {"probe/1": np.full((len(series.instances), 8, 8, 1), 0.5, dtype=np.float32)}


def infer(
    inputs: dict[str, np.ndarray], served: Mapping[str, Sequence[Served]], engine: Engine
) -> dict[str, dict[str, np.ndarray]]:
    return {key: engine.run(key, x) for key, x in inputs.items()}


def interpret(
    study: Study,
    series: Series,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, dict[str, np.ndarray]],
    served: Mapping[str, Sequence[Served]],
    engine: Engine,
) -> Outcome:
    what = behaviour(study)
    p = outputs["probe/1"]["p"][:, 0]
    top = float("nan") if what == "nan" else float(p.max())
    flagged = what == "flag"
    return Outcome(
        findings=[
            Finding("any", "probe", "1", probability=0.9 if flagged else top, threshold=0.8, flagged=flagged),
            Finding("bleed_volume", "probe", "1", value=12.5, unit="mL"),
        ],
        slice_scores=[
            SliceScore(i.key, 0, n + 1, "any", float(p[n]), "probe", "1") for n, i in enumerate(series.instances)
        ],
        warnings=("low_evidence",),
        evidence=Evidence(
            pictures={"key_slice": np.zeros((8, 8, 3), dtype=np.uint8)},
            key_instance=series.instances[0].key,
        ),
        SeriesInstanceUID=series.SeriesInstanceUID,
        statistics={"intensity_mean": 3.0},
    )


class ProbeModel:
    """Stands where a loaded package stands; half of the mean, so 0.25 for the probe's input."""

    def predict(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {"p": x.mean(axis=(1, 2, 3), keepdims=False)[:, None] / 2}

    def gradients(self, x: np.ndarray, finding: str) -> np.ndarray:
        return np.zeros(x.shape[:3], dtype=np.float32)
