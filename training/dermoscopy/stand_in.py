"""Packages on the test pictures as other dermoscopes would have made them (:mod:`training.dermoscopy.shifts`).

``firstread dermoscopy shifts PACKAGE... --data DIR --out DIR``. Nothing is trained: each shift is made to every test
picture and to its drawn outline, and the package scores them as it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from firstread.settings import Settings
from training.datasets.base import DataSet, DataSetError
from training.datasets.registry import open_dataset
from training.dermoscopy.operating import fold_to_three
from training.dermoscopy.shifted import Pictures, ShiftedScores, kept_scores, read_pictures
from training.dermoscopy.shifts import SHIFTS, Shift
from training.evaluation import metrics
from training.evaluation.report import write_table
from training.evaluation.scoring import threshold_of
from training.progress import progress
from worker.packages.card import ColourConstancy, InputSpec
from worker.packages.package import load
from worker.packages.preprocessing.colours import light_of
from worker.packages.runtimes.tensorflow import Package
from worker.packages.store import find_package

TITLE: Final = "Pictures as other dermoscopes would have made them"
REPEATS: Final = 300
MEAN: Final = "mean of all shifts"
CONSTANCIES: Final[Mapping[str, float]] = {"grey_world": 1.0, "shades_of_grey": 6.0}
"""Colour constancies that are tried in front of a package, and their norms."""


def figures_of(package: Package, pictures: Pictures, answer: ShiftedScores) -> dict[str, Any]:
    """Figures of one shift with 95 % intervals by lesion; ``area_off`` is the median."""
    y, lesions, known = pictures.truth, pictures.lesions, np.isfinite(answer.iou)

    def interval(statistic: Callable[..., float], rows: np.ndarray, *columns: np.ndarray) -> dict[str, Any]:
        parts = (column[rows] for column in columns)
        return metrics.bootstrap(statistic, lesions[rows], *parts, repeats=REPEATS).as_dict()

    figures: dict[str, Any] = {}
    if package.card.labels:
        p3 = fold_to_three(package.card.labels, answer.p)
        called, melanoma = p3.argmax(axis=1), (y == 0).astype(int)
        flagged = p3[:, 0] >= threshold_of(package.card, "melanoma")
        everything = np.ones(len(y), dtype=bool)
        figures |= {
            "melanoma_auc": interval(metrics.auc, everything, melanoma, p3[:, 0]),
            "melanoma_or_nevus_auc": interval(metrics.auc, y < 2, melanoma, p3[:, 0]),
            "histology_auc": interval(metrics.auc, pictures.histology, melanoma, p3[:, 0]),
            "accuracy": interval(_share, everything, called == y),
            "balanced_accuracy": interval(metrics.balanced_accuracy, everything, y, called),
            "flag_recall": interval(_share, y == 0, flagged),
            "flag_specificity": interval(_share, y != 0, ~flagged),
        }
    if known.any():
        figures |= {
            "outline_iou": interval(_share, known, answer.iou),
            "area_off": interval(_median, known, answer.area_off),
        }
    return figures


def mean_figures(package: Package, pictures: Pictures, answers: Sequence[ShiftedScores]) -> dict[str, Any]:
    """The mean over shifts of melanoma's AUC, of the accuracy and of the outlines' IoU, by lesion."""
    return {
        name: metrics.bootstrap(statistic, pictures.lesions, *columns, repeats=REPEATS).as_dict()
        for name, (statistic, columns) in _means(package, pictures, answers).items()
    }


def difference(
    pictures: Pictures, one: tuple[Package, Sequence[ShiftedScores]], other: tuple[Package, Sequence[ShiftedScores]]
) -> dict[str, Any]:
    """:func:`mean_figures` of ``one`` minus those of ``other``, on the same lesions."""
    gaps = {}
    second = _means(other[0], pictures, other[1])
    for name, (statistic, columns) in _means(one[0], pictures, one[1]).items():
        if name not in second:
            continue

        def gap(*values: np.ndarray, of: Callable[..., float] = statistic) -> float:
            half = len(values) // 2
            return of(*values[:half]) - of(*values[half:])

        gaps[name] = metrics.bootstrap(gap, pictures.lesions, *columns, *second[name][1], repeats=REPEATS).as_dict()
    return gaps


def _means(
    package: Package, pictures: Pictures, answers: Sequence[ShiftedScores]
) -> dict[str, tuple[Callable[..., float], list[np.ndarray]]]:
    """Statistic and columns of each mean: the truth first, then one column a shift."""
    y = pictures.truth
    means: dict[str, tuple[Callable[..., float], list[np.ndarray]]] = {}
    if package.card.labels:
        p3 = [fold_to_three(package.card.labels, answer.p) for answer in answers]
        means["melanoma_auc"] = (_mean_auc, [(y == 0).astype(int), *(p[:, 0] for p in p3)])
        means["histology_auc"] = (_mean_auc_known, [np.where(pictures.histology, y == 0, -1), *(p[:, 0] for p in p3)])
        means["accuracy"] = (_mean_right, [y, *(p.argmax(axis=1) for p in p3)])
    if all(np.isfinite(answer.iou).any() for answer in answers):
        means["outline_iou"] = (_mean_iou, [y, *(answer.iou for answer in answers)])
    return means


def _mean_auc(y: np.ndarray, *p: np.ndarray) -> float:
    return float(np.mean([metrics.auc(y, column) for column in p]))


def _mean_auc_known(y: np.ndarray, *p: np.ndarray) -> float:
    """:func:`_mean_auc` of the rows whose ``y`` is 0 or 1."""
    return _mean_auc(y[y >= 0], *(column[y >= 0] for column in p))


def _mean_right(y: np.ndarray, *called: np.ndarray) -> float:
    return float(np.mean([column == y for column in called]))


def _mean_iou(y: np.ndarray, *overlaps: np.ndarray) -> float:
    return float(np.mean([np.nanmean(column) for column in overlaps]))


def _share(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _median(values: np.ndarray) -> float:
    return float(np.median(values))


def table(
    packages: Mapping[str, tuple[Package, InputSpec]],
    pictures: Pictures,
    folder: Path,
    plain_view: bool,
    shifts: Mapping[str, Shift],
) -> list[dict[str, Any]]:
    """Rows of all packages: one a shift, the mean of all shifts, and that mean minus the first package's.

    Parameters
    ----------
    packages : mapping
        Name in the table -> package and the input that it is given.
    folder : Path
        Where predictions are kept, so that a call that was ended goes on.
    plain_view : bool
        The plain view alone, where the card asks for several.
    """
    rows: list[dict[str, Any]] = []
    first: tuple[str, Package, list[ShiftedScores]] | None = None
    with progress("shifts", len(packages) * len(shifts)) as advance:
        for name, (package, spec) in packages.items():
            views = ["plain"] if plain_view else package.card.parameters.get("views", ["plain"])
            answers = []
            for shift_name, shift in shifts.items():
                answers.append(kept_scores(folder, package, spec, pictures, shift, views))
                rows.append({"package": name, "pictures": shift_name} | figures_of(package, pictures, answers[-1]))
                advance(1)
            rows.append({"package": name, "pictures": MEAN} | mean_figures(package, pictures, answers))
            if first is None:
                first = name, package, answers
                continue
            gap = difference(pictures, (package, answers), first[1:])
            rows.append({"package": f"{name} minus {first[0]}", "pictures": MEAN} | gap)
    return rows


def mean_light(dataset: DataSet, norm: float, count: int = 400) -> tuple[float, float, float]:
    """Mean colour of the light of about so many training pictures: the reference of a colour constancy.

    Raises
    ------
    DataSetError
        If there is no training picture.
    """
    items = [item for item in dataset.items() if item.usable and item.split == "train"]
    chosen = items[:: max(1, len(items) // count)]
    lights = [light_of(np.clip(dataset.pixels(item) / np.float32(255), 0.0, 1.0), norm) for item in chosen]
    known = [light for light in lights if light is not None]
    if not known:
        raise DataSetError("no training picture to take the reference of colours from")
    red, green, blue = (round(float(v), 4) for v in np.mean(known, axis=0))
    return red, green, blue


def write_shifts(
    packages: Sequence[str],
    data: Path,
    out: Path,
    split: str = "test",
    count: int = 0,
    plain_view: bool = False,
    colours: Sequence[str] = (),
    only: Sequence[str] = (),
) -> Path:
    """``shifts.json`` and ``shifts.md`` of packages (a folder, NAME or NAME/VERSION each); give back the latter's path.

    Parameters
    ----------
    count : int
        About so many pictures of the part; 0 for all.
    colours : sequence of str
        Names of :data:`CONSTANCIES`, each put in front of every package as one more.
    only : sequence of str
        Names of the shifts; none for all.

    Raises
    ------
    PackageError
        If there is no such package, or it does not pass its self-test.
    DataSetError
        If there is no picture, or no shift of a name.
    """
    unknown = [name for name in only if name not in SHIFTS]
    if unknown:
        raise DataSetError(f"no shift {', '.join(unknown)}; there are {', '.join(SHIFTS)}")
    shifts = {name: shift for name, shift in SHIFTS.items() if not only or name in only}
    dataset = open_dataset("ham10000", data)
    pictures = read_pictures(dataset, split, count)
    served: dict[str, tuple[Package, InputSpec]] = {}
    references = {name: mean_light(dataset, CONSTANCIES[name]) for name in colours}
    for package in (load(find_package(name, Settings())) for name in packages):
        served[package.key] = package, package.card.input
        for name, reference in references.items():
            constancy = ColourConstancy(norm=CONSTANCIES[name], reference=reference)
            spec = package.card.input.model_copy(update={"colours": constancy})
            served[f"{package.key} behind {name.replace('_', ' ')}"] = package, spec
    title = f"{TITLE}, with and without colour constancy" if colours else TITLE
    rows = table(served, pictures, out / "predictions", plain_view, shifts)
    views = "the plain view alone" if plain_view else "the views on the cards"
    budget = f"{len(pictures.items)} pictures of the part {split}, {len(shifts)} shifts, {views}, no training"
    return write_table(out, "shifts", title, budget, rows)
