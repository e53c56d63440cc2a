"""``firstread models optimize`` as one call: convert, measure beside the reference, and let serve what holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from firstread.settings import Settings
from training.datasets.base import DataSet, DataSetError, gathered
from training.datasets.registry import open_dataset
from training.evaluate import reader_for
from training.evaluation.scoring import EvaluationOrder, Measured, measured_pictures
from training.optimize.calibration import SPREAD, Part, Recorder, of_patients, parts_of
from training.optimize.conversion import convert
from training.optimize.paired import Tolerance, compared, too_much
from training.optimize.writing import adopt, require_open
from training.pipelines import PIPELINES
from worker.packages.converted import Measurement, Precision, file_of
from worker.packages.openvino_file import runtime_of
from worker.packages.package import load
from worker.packages.runtimes.base import Runtime
from worker.packages.runtimes.openvino import MASK_LOGITS
from worker.packages.runtimes.startup import ensure_tensorflow
from worker.packages.runtimes.tensorflow import Package
from worker.packages.store import find_package

REPORT = "optimization.json"


@dataclass(frozen=True)
class OptimizeOrder:
    """What ``firstread models optimize`` was asked for; parts as of :func:`training.optimize.calibration.parts_of`."""

    package: str
    data: Path
    out: Path
    precision: Precision = "int8"
    dataset: str | None = None
    split: str | None = None
    quantise_on: str | None = None
    pictures: int = 300
    limit: int | None = None
    """Patients, at most, that both are measured on."""
    resamples: int = 200
    tolerance: Tolerance = field(default_factory=Tolerance)


@dataclass(frozen=True)
class Outcome:
    """How a conversion went. ``refused`` holds why the file did not become part of the package."""

    key: str
    precision: Precision
    size_bytes: int
    measurement: Measurement
    refused: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "package": self.key,
            "precision": self.precision,
            "size_bytes": self.size_bytes,
            "refused": self.refused,
            "measurement": self.measurement.model_dump(mode="json"),
        }


def optimize(order: OptimizeOrder) -> Outcome:
    """Convert a package and measure it; it becomes part of the package where it stays within the tolerance.

    ``order.out`` holds the file, and every figure in ``optimization.json``, whether it was refused or not.

    Raises
    ------
    PackageError
        If there is no such package, it does not pass its self-test, or its folder cannot be written.
    DataSetError
        If no reader is named or known, or a part of the data is empty.
    """
    directory = find_package(order.package, Settings())
    require_open(directory)
    ensure_tensorflow()
    package = load(directory)
    name = order.dataset or reader_for(package.card.task, order.data)
    if name is None:
        raise DataSetError(f"name a data set reader for task {package.card.task}")
    dataset = open_dataset(name, order.data, package.card.input.kind)
    measured, others = parts_of(gathered([dataset]), order.split, order.quantise_on)
    quantised_on: dict[str, Any] = {}
    pictures = []
    if order.precision == "int8":
        enough = SPREAD * order.pictures
        source = Part(dataset, of_patients(others, lambda _, count: count >= enough))
        pictures = pictures_of(package, source, order)
        parts = sorted({item.split for item in source.items()} - {""})
        quantised_on = {"data": dataset.name, "parts": parts, "pictures": len(pictures)}
    content = convert(directory, package, order.precision, pictures)
    if order.limit is not None:
        limit = order.limit
        measured = of_patients(measured, lambda patients, _: patients >= limit)
    part = Part(dataset, measured)
    whole = measured_by(package, part, order, directory)
    converted = measured_by(runtime_of(directory, package.card, content, order.precision), part, order, directory)
    words = f"{dataset.name}, {', '.join(sorted({item.split for item in measured} - {''})) or 'all'}"
    measurement, figures = compared(whole, converted, words, order.resamples)
    refused = too_much(measurement, figures, whole.flags, order.tolerance)
    order.out.mkdir(parents=True, exist_ok=True)
    file = order.out / file_of(order.precision)
    content.write(file)
    outcome = Outcome(package.key, order.precision, file.stat().st_size, measurement, refused)
    (order.out / REPORT).write_text(json.dumps(outcome.as_dict(), indent=2) + "\n", encoding="utf-8")
    if not refused:
        adopt(directory, content, order.precision, measurement, asdict(order.tolerance), quantised_on)
    return outcome


def measured_by(runtime: Runtime, part: DataSet, order: OptimizeOrder, directory: Path) -> Measured:
    """The data scored with a runtime as the package's pipeline does it."""
    pipeline = PIPELINES.get(runtime.card.pipeline)
    ask = EvaluationOrder(runtime, part, None, order.out, directory.resolve().parents[1])
    return measured_pictures(ask) if pipeline is None else pipeline.measured(ask)


def pictures_of(package: Package, part: DataSet, order: OptimizeOrder) -> list[Any]:
    """Composed pictures as the pipeline would have the package score them: float32 (1, H, W, C) each."""
    mask = package.model.output.get(MASK_LOGITS)
    size = None if mask is None else (int(mask.shape[1]), int(mask.shape[2]))
    recorder = Recorder(package.card, size, order.pictures)
    measured_by(recorder, part, order, order.out)
    return recorder.pictures
