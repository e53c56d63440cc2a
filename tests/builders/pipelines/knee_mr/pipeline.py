"""The five functions of a toy pipeline: bright pixels are a tear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from firstread.dicom.pixels.reading import read_frame
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
    StoredInstance,
    StudyImages,
)
from worker.pipelines.ensemble import (
    ModelScores,
    ScoredFrame,
    active_scores,
    findings_of,
    infer_each,
    mean_scores,
    packages_of,
    slice_scores_of,
    with_roles,
)

FLAG = "tear"
BRIGHT = 500


@dataclass(frozen=True)
class Knee:
    """Images (n, H, W) of stored values."""

    instances: tuple[StoredInstance, ...]
    values: np.ndarray


def select(study: StudyImages) -> Selection[tuple[StoredInstance, ...]]:
    """All images as one series."""
    uid = study.instances[0].SeriesInstanceUID
    note = SeriesNote(uid, chosen=True, reasons=(), n_instances=len(study.instances))
    return Selection((Series(uid, study.instances, study.instances),), (note,))


def gate(study: StudyImages, series: Series[tuple[StoredInstance, ...]]) -> Gate[Knee]:
    """Everything is suitable."""
    return Gate(pixels=Knee(series.images, np.stack([read_frame(instance.path) for instance in series.images])))


def preprocess(knee: Knee, served: ServedByTask) -> NetworkInputs[None]:
    """Stored values below 1,000 as network input, for each package."""
    x = (knee.values / 1000.0).astype(np.float32)[..., None]
    return NetworkInputs({package.key: x for package in packages_of(served)})


def interpret(scored: ScoredSeries[Knee, None]) -> Outcome:
    """The image with the highest score gives the result of the study; its bright pixels are the outline."""
    knee = scored.pixels
    scores = []
    for package in packages_of(scored.served):
        card, p = package.card, scored.outputs[package.key]["p"]
        known = {label: t for label in card.labels if (t := card.threshold(label)) is not None}
        scores.append((package, ModelScores(card.name, card.version, tuple(card.labels), p, known)))
    mean = mean_scores(active_scores("knee_mr", scores))
    key = int(np.argmax(mean.of(FLAG)))
    main = mean.at(key)
    stored = with_roles(main, [(package, own.at(key)) for package, own in scores])
    outline = knee.values > BRIGHT
    volume = Finding("tear_volume", main.name, main.version, value=float(outline.sum()) / 1000.0, unit="mL")
    return Outcome(
        findings=[*findings_of(stored, FLAG), volume],
        slice_scores=slice_scores_of(stored, [ScoredFrame(i, 0, row) for row, i in enumerate(knee.instances)]),
        evidence=Evidence(
            pictures={"key_slice": np.zeros((64, 64, 3), dtype=np.uint8)},
            mask=outline,
            mask_keys=tuple((instance.key, 0) for instance in knee.instances),
            mask_label="tear",
            key_instance=knee.instances[key].key,
        ),
        SeriesInstanceUID=scored.SeriesInstanceUID,
    )


STEPS = PipelineSteps[tuple[StoredInstance, ...], Knee, None](
    select=select,
    gate=gate,
    preprocess=preprocess,
    infer=infer_each,
    interpret=interpret,
)
