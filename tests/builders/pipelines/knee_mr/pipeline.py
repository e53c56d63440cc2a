"""The five functions of a toy pipeline: bright pixels are a tear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from firstread.dicom.pixels.reading import read_frame
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

BRIGHT = 500


def select(study: Study) -> Selection:
    """All images as one series."""
    uid = study.instances[0].SeriesInstanceUID
    note = SeriesNote(uid, chosen=True, reasons=(), n_instances=len(study.instances))
    return Selection((Series(uid, list(study.instances)),), (note,))


def gate(study: Study, series: Series) -> Gate:
    """Everything is suitable."""
    return Gate()


def preprocess(series: Series, served: Mapping[str, Sequence[Served]]) -> dict[str, np.ndarray]:
    """Stored values below 1,000 as network input, for each package."""
    series.pixels = np.stack([read_frame(instance.path) for instance in series.instances])
    x = (series.pixels / 1000.0).astype(np.float32)[..., None]
    return {package.key: x for group in served.values() for package in group}


def infer(
    inputs: dict[str, np.ndarray], served: Mapping[str, Sequence[Served]], engine: Engine
) -> dict[str, dict[str, np.ndarray]]:
    """Outputs of each package."""
    return {key: engine.run(key, x) for key, x in inputs.items()}


def interpret(
    study: Study,
    series: Series,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, dict[str, np.ndarray]],
    served: Mapping[str, Sequence[Served]],
    engine: Engine,
) -> Outcome:
    """The highest image speaks for the study; its bright pixels are the outline."""
    package = next(package for group in served.values() for package in group)
    name, version = package.card.name, package.card.version
    p = outputs[package.key]["p"][:, 0]
    key = int(np.argmax(p))
    threshold = package.card.threshold("tear")
    outline = series.pixels > BRIGHT
    return Outcome(
        findings=[
            Finding("tear", name, version, float(p[key]), threshold=threshold, flagged=p[key] >= (threshold or 1.0)),
            Finding("tear_volume", name, version, value=float(outline.sum()) / 1000.0, unit="mL"),
        ],
        slice_scores=[
            SliceScore(instance.key, 0, None, "tear", float(value), name, version)
            for instance, value in zip(series.instances, p, strict=True)
        ],
        evidence=Evidence(
            pictures={"key_slice": np.zeros((64, 64, 3), dtype=np.uint8)},
            mask=outline,
            mask_keys=tuple((instance.key, 0) for instance in series.instances),
            mask_label="tear",
            key_instance=series.instances[key].key,
        ),
        SeriesInstanceUID=series.SeriesInstanceUID,
    )
