"""The page of a dermoscopy network: findings with their curves, confusion of classes, outlines beside drawn masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.datasets.base import DataSet, Item
from training.dermoscopy import figures as fig
from training.dermoscopy import operating
from training.evaluation import metrics
from training.evaluation.cases import shown_cases
from training.evaluation.figures import binary, decisions
from training.evaluation.heat import HEAT, Heat, with_heat, without_heat
from training.evaluation.pictures import Miss
from training.evaluation.report import write_report
from worker.packages.operating_points import OperatingPoint
from worker.pipelines.dermoscopy.lesion import CLASSES

SHOWN = 6
HEIGHT_PX = 150
NOTES = (
    "Pictures of the test part were not trained on; thresholds and calibration were chosen on the validation part.",
    "Intervals are 95 %, by a bootstrap over lesions (Wilson by lesion where all or none hit). "
    "What the table of findings counts as patients are lesions.",
    "Of outlines, each row is the picture, the mask that was drawn, and the mask that the network gives.",
)


def finding_figures(rows: fig.MeasuredRows, points: Mapping[str, OperatingPoint]) -> dict[str, Any]:
    """Melanoma at its flag, every class against the others, and the confusion of classes and of diagnoses.

    All intervals are by lesion.
    """
    if not rows.labels:
        return {}
    p3 = operating.fold_to_three(rows.labels, rows.p)
    flag = next((p for n, p in points.items() if p.finding == "melanoma" and n.startswith("flag")), None)
    findings = {}
    for index, name in enumerate(CLASSES):
        called = p3[:, 0] >= flag.threshold if flag is not None and index == 0 else p3.argmax(axis=1) == index
        words = "melanoma, at the flag" if flag is not None and index == 0 else f"{name}, where it is likeliest"
        true = rows.truth == index
        findings[words] = binary(true.astype(float), p3[:, index], rows.lesions, called) | {
            name: fig.share(hits[of], rows.lesions[of]) for name, (hits, of) in decisions(true, called).items()
        }
    confusion = {"classes": _confused(rows.truth, p3, CLASSES)}
    known = rows.diagnoses >= 0
    if tuple(rows.labels) != CLASSES and known.any():
        confusion["diagnoses"] = _confused(rows.diagnoses[known], rows.p[known], rows.labels)
    return {"findings": findings, "confusion of the likeliest": confusion}


def _confused(truth: np.ndarray, p: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    matrix = metrics.confusion_matrix(truth.astype(int), p.argmax(axis=1), len(names))
    return {"labels": list(names), "confusion_matrix": matrix.tolist()}


def write_page(
    out: Path,
    title: str,
    figures: Mapping[str, Any],
    rows: fig.MeasuredRows,
    points: Mapping[str, OperatingPoint],
    dataset: DataSet,
    items: Sequence[Item],
    p_masks: np.ndarray | None,
    chosen: Mapping[str, Any],
    more: Mapping[str, Sequence[Miss]] | None = None,
    run: Path | None = None,
    heat: Heat = without_heat,
) -> Path:
    """Write ``evaluation.html`` and ``evaluation.json``; give back the page's path.

    Parameters
    ----------
    p_masks : ndarray (n, h, w), optional
        Mask probabilities of the items.
    chosen : mapping
        The card's ``mask_threshold``, ``mask_largest``, ``mask_fill``.
    more : mapping, optional
        Further pictures by heading.
    """
    pictures: dict[str, Sequence[Miss]] = dict(more or {})
    if rows.labels:
        pictures |= _by_diagnosis(rows, dataset, items, heat)
    if p_masks is not None and rows.iou is not None:
        pictures |= _outlines(rows.iou, dataset, items, p_masks, chosen)
    notes = [*NOTES, HEAT] if rows.labels else NOTES
    return write_report(out, title, notes, {**figures, **finding_figures(rows, points)}, pictures, run)


def _by_diagnosis(
    rows: fig.MeasuredRows, dataset: DataSet, items: Sequence[Item], heat: Heat = without_heat
) -> dict[str, list[Miss]]:
    """Pictures whose class got the least, the most, and about as much probability as another, of every class.

    Each stands beside what speaks for its likeliest label.
    """
    p3 = operating.fold_to_three(rows.labels, rows.p)

    def picture(row: int) -> Miss:
        truth, called = CLASSES[rows.truth[row]], CLASSES[int(p3[row].argmax())]
        caption = f"{truth}, called {called}: p of the truth {p3[row, rows.truth[row]]:.3f}"
        likeliest = rows.labels[rows.p[row].argmax()]
        return Miss(with_heat(_small(dataset.pixels(items[row])), heat(row, likeliest)), caption)

    shown = shown_cases(p3, rows.truth, rows.lesions, SHOWN // len(CLASSES))
    return {heading: [picture(row) for row in of_heading] for heading, of_heading in shown.items()}


def _outlines(
    iou: np.ndarray, dataset: DataSet, items: Sequence[Item], p_masks: np.ndarray, chosen: Mapping[str, Any]
) -> dict[str, list[Miss]]:
    """Outlines with the highest, the lowest and a middling overlap, each beside picture and drawn mask."""
    known = np.flatnonzero(np.isfinite(iou))
    order = known[np.argsort(iou[known])]
    middle = order[max(0, len(order) // 2 - SHOWN // 2) :]
    parts = {"Worst outlines": order, "Best outlines": order[::-1], "Outlines in the middle": middle}
    shown: dict[str, list[Miss]] = {}
    for heading, part in parts.items():
        for row in part[:SHOWN]:
            drawn = dataset.mask(items[row])
            if drawn is None:
                continue
            found = operating.cut(operating.at_source(p_masks[row], drawn), chosen)
            picture = dataset.pixels(items[row])
            masks = [np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=-1) for mask in (drawn, found)]
            strip = np.hstack([_small(image) for image in (picture, *masks)])
            shown.setdefault(heading, []).append(Miss(strip, f"IoU {iou[row]:.3f}"))
    return shown


def _small(picture: np.ndarray) -> np.ndarray:
    """At :data:`HEIGHT_PX`, uint8."""
    height, width = picture.shape[:2]
    size = (max(1, round(width * HEIGHT_PX / height)), HEIGHT_PX)
    return np.asarray(cv2.resize(np.clip(picture, 0, 255).astype(np.uint8), size, interpolation=cv2.INTER_AREA))
