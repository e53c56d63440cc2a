"""A pipeline whose score is what its images hold: the scorer at the boundary of the engine is a fixed function.

Every pixel of an image is a thousand times its probability; a study is flagged by its most probable image.
"""

from __future__ import annotations

import numpy as np

from firstread.dicom.pixels.reading import UnreadablePixels, read_frame
from firstread.pipelines import Pipeline
from tests.builders.probe_pipeline import ProbeModel
from tests.simulation.world import World
from worker.engine.requests import Progress
from worker.engine.serving import Serving
from worker.packages.card import Card, InputSpec
from worker.pipelines import registry
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
    Served,
    ServedByTask,
    SliceScore,
    StoredInstance,
    StudyImages,
)
from worker.pipelines.ensemble import infer_each

NAME = "probe"
FINDING = "any"
THRESHOLD = 0.8
DESCRIPTION = Pipeline(
    name=NAME,
    priority=3,
    modalities=frozenset({"CT"}),
    alone=frozenset(),
    findings=(),
    leading="",
    tasks=frozenset({"probe"}),
    headline="",
    subject="probe",
    procedure="Probe",
)
ROW = registry.PipelineRow(DESCRIPTION, __name__)
Pixels = tuple[tuple[StoredInstance, float], ...]


def select(study: StudyImages) -> Selection[tuple[StoredInstance, ...]]:
    uid = study.instances[0].SeriesInstanceUID
    note = SeriesNote(uid, chosen=True, reasons=(), n_instances=len(study.instances))
    return Selection((Series(uid, study.instances, study.instances, {}),), (note,))


def gate(_study: StudyImages, series: Series[tuple[StoredInstance, ...]]) -> Gate[Pixels]:
    try:
        found = tuple((image, float(read_frame(image.path).max()) / 1000.0) for image in series.images)
    except UnreadablePixels:
        return Gate(reasons=("unreadable_pixel_data",))
    return Gate(pixels=found)


def preprocess(pixels: Pixels, _served: ServedByTask) -> NetworkInputs[None]:
    levels = np.asarray([p for _, p in pixels], dtype=np.float32)
    return NetworkInputs({"probe/1": np.broadcast_to(levels[:, None, None, None], (len(levels), 2, 2, 1))})


def interpret(scored: ScoredSeries[Pixels, None]) -> Outcome:
    p = scored.outputs["probe/1"]["p"][:, 0]
    top, flagged = float(p.max()), bool(p.max() >= THRESHOLD)
    images = [image for image, _ in scored.pixels]
    return Outcome(
        findings=[Finding(FINDING, "probe", "1", probability=top, threshold=THRESHOLD, flagged=flagged)],
        slice_scores=[SliceScore(i.key, 0, n + 1, FINDING, float(p[n]), "probe", "1") for n, i in enumerate(images)],
        warnings=(),
        evidence=Evidence(
            pictures={"key_slice": np.zeros((4, 4, 3), dtype=np.uint8)} if flagged else {},
            key_instance=images[int(p.argmax())].key,
        ),
        SeriesInstanceUID=scored.SeriesInstanceUID,
        statistics={},
    )


STEPS = PipelineSteps[tuple[StoredInstance, ...], Pixels, None](
    select=select, gate=gate, preprocess=preprocess, infer=infer_each, interpret=interpret
)


class Scoring:
    """The engine: takes its time, and gives each image's mean."""

    def __init__(self, world: World) -> None:
        self._world = world

    def handle(self, priority: int, lease: Progress) -> Scoring:
        """As :meth:`worker.engine.device.EngineThread.handle`."""
        self._lease = lease
        return self

    def __enter__(self) -> Scoring:
        return self

    def __exit__(self, *_error: object) -> None:
        return None

    def run(self, package: str, x: np.ndarray) -> dict[str, np.ndarray]:
        """The deterministic scorer."""
        self._world.sleep(self._world.rng.choice((0.2, 1.0, 5.0)))
        self._lease.touch()
        return {"p": x.mean(axis=(1, 2, 3))[:, None]}

    def gradients(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        """This pipeline asks for no map."""
        raise NotImplementedError

    def class_maps(self, package: str, x: np.ndarray, finding: str) -> np.ndarray:
        """This pipeline asks for no map."""
        raise NotImplementedError


def serving() -> Serving:
    """The one package."""
    card = Card(
        name="probe",
        version="1",
        pipeline=NAME,
        task="probe",
        labels=[FINDING],
        input=InputSpec(kind="grey", height=2, width=2),
        architecture={},
    )
    done = Serving()
    done.add(Served(card), ProbeModel())
    return done
