"""``firstread evaluate PACKAGE`` as one call: the package, a reader for the data, and the pipeline's evaluator."""

from __future__ import annotations

from pathlib import Path

from firstread.settings import Settings
from training.datasets.base import PICTURES, DataSetError, read_rows
from training.datasets.folders import RANGE
from training.datasets.registry import open_dataset
from training.evaluation.scoring import EvaluationOrder, evaluate_pictures
from training.pipelines import PIPELINES, training_of
from worker.packages.package import load
from worker.packages.store import find_package


def evaluate_package(
    package: str, data: Path, dataset_name: str | None, split: str | None, out: Path, partner: str | None = None
) -> Path:
    """Score and measure; write the page and its JSON, and give back the page's path.

    ``partner`` is the four-class package that joins the score of a binary chest package.

    Raises
    ------
    PackageError
        If there is no such package, or it does not pass its self-test.
    DataSetError
        If no reader is named or known, or nothing is left to score.
    """
    directory = find_package(package, Settings())
    loaded = load(directory)
    name = dataset_name or reader_for(loaded.card.task, data)
    if name is None:
        raise DataSetError(f"name a data set reader for task {loaded.card.task}")
    dataset = open_dataset(name, data, loaded.card.input.kind)
    order = EvaluationOrder(loaded, dataset, split, out, directory.resolve().parents[1], partner)
    pipeline = PIPELINES.get(loaded.card.pipeline)
    return evaluate_pictures(order) if pipeline is None else pipeline.evaluate(order)


def reader_for(task: str, data: Path) -> str | None:
    """The reader for data of a task where none is named: a hospital's own table is known by its columns.

    CT-ICH lists pictures whose Hounsfield units are known, with the columns ``mask`` and ``fold``; a hospital lists
    DICOM images, or says itself what black and white are in Hounsfield units.
    """
    table = data / "labels.csv"
    pipeline = training_of(task)
    if pipeline is None or pipeline.reader != "ct_ich" or not table.is_file():
        return None if pipeline is None else pipeline.reader
    rows = read_rows(table)
    first = rows[0] if rows else {}
    pictures = Path(first.get("file") or "").suffix.lower() in PICTURES and not first.get(RANGE[0])
    return "ct_ich" if pictures and {"mask", "fold"} <= first.keys() else "plain_csv"
