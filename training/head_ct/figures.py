"""Head CT: out-of-fold predictions with everything chosen on the other folds, per slice, patient, subtype and mask."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from training.datasets.base import DataSet, Item, studies
from training.evaluation import figures, metrics
from training.evaluation.cases import MISSES, finding_cases
from training.evaluation.pictures import Miss
from training.head_ct.baselines import PUBLISHED, BaselineRun, compared
from training.head_ct.nested import Nested, measure
from training.head_ct.out_of_fold import OutOfFold
from training.head_ct.sequence import RULE, Stages, has_sequence
from training.package.postprocess import Predictions, fit_label_head, fit_mask
from worker.packages.card import InputSpec
from worker.packages.preprocessing import compose, crops
from worker.pipelines.heatmap import painted

MASK_THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
SLICE_THRESHOLD = 0.5
SIZES = ("smallest third", "middle third", "largest third")

METHOD = (
    "cross-validation by patient; calibration, aggregation and thresholds of each fold were fitted on the "
    "other folds' out-of-fold predictions."
)
LOOKED_AT = (
    " That the mask is heard in neighbouring slices too was decided after looking "
    "at folds 0 and 2, so these two flatter a little;"
)
"""Of CT-ICH, on whose folds that was decided."""


def out_of_fold_figures(
    out_of_fold: OutOfFold,
    folds: Sequence[str],
    repeats: int | None = None,
    stages: Stages | None = None,
    baseline: BaselineRun | None = None,
) -> tuple[dict[str, Any], Nested]:
    """Figures, and the scores that they are of.

    Everything of each fold is fitted on the other folds, the choice between stacking and sequence stage included.
    """
    table, stages = out_of_fold.predictions, stages or Stages()
    ours = measure(table, folds, stages.best)
    parts = [table.rows(table.folds != fold) for fold in folds]
    scores = {"ours": ours}
    if table.evidence is not None:
        scores["label head alone"] = measure(table, folds, fit_label_head)
        scores["mask alone"] = measure(table, folds, fit_mask)
    if all(has_sequence(part) for part in parts):
        scores["stacking"] = measure(table, folds, stages.stacking)
        scores["sequence"] = measure(table, folds, stages.sequence)
    p = ours.p
    slices = {
        label: figures.binary(
            table.labels[:, column], p[:, column], table.patients, p[:, column] >= SLICE_THRESHOLD, repeats
        )
        for column, label in enumerate(table.label_names)
    }
    result = {
        "method": method_of(folds, out_of_fold.items),
        "slices": slices,
        "slice_threshold": SLICE_THRESHOLD,
        "weighted_log_loss": metrics.bootstrap(
            weighted_log_loss, table.patients, table.labels, p, repeats=repeats
        ).as_dict(),
        "patients_at_flag": figures.binary(ours.y, ours.p_study, ours.patients, ours.flagged, repeats),
        "patients_at_balanced": figures.binary(ours.y, ours.p_study, ours.patients, ours.balanced, repeats),
        "patients_by_subtype": by_subtype(table.labels, table.label_names, ours.flagged, table.study_rows()),
        "fold_auc": fold_aucs(table, p[:, 0], repeats),
        "compared": compared(table, scores, baseline, repeats),
        "published": PUBLISHED,
        "stage_rule": RULE,
        "chosen_without_fold": ours.chosen,
    }
    return result, ours


def method_of(folds: Sequence[str], items: Sequence[Item]) -> str:
    """How the figures came about, of so many folds; with what flatters those of CT-ICH, which others do not share."""
    count = "four" if len(folds) == 4 else str(len(folds))
    looked_at = LOOKED_AT if any(item.dataset.startswith("ct_ich") for item in items) else ""
    return f"{count}-fold {METHOD}{looked_at} fold_auc lists the folds separately"


def fold_aucs(table: Predictions, p: np.ndarray, repeats: int | None) -> dict[str, Any]:
    """Slice AUC of ``any`` in each fold on its own."""
    rows = {}
    for fold in np.unique(table.folds):
        inside = (table.folds == fold) & (table.labels[:, 0] >= 0)
        estimate = metrics.bootstrap(
            metrics.auc, table.patients[inside], table.labels[inside, 0], p[inside], repeats=repeats
        )
        rows[str(fold)] = estimate.as_dict()
    return rows


def weighted_log_loss(labels: np.ndarray, p: np.ndarray) -> float:
    """RSNA 2019's score: mean log loss over the labels, ``any`` counted twice."""
    losses = [metrics.log_loss(labels[labels[:, c] >= 0, c], p[labels[:, c] >= 0, c]) for c in range(labels.shape[1])]
    weights = np.asarray([2.0] + [1.0] * (len(losses) - 1))
    return float(np.average(losses, weights=weights))


def overlaps(items: Sequence[Item], masks: np.ndarray, dataset: DataSet, spec: InputSpec) -> dict[str, np.ndarray]:
    """Overlap of predicted and true masks at the source's own size, for every slice whose mask is known.

    Returns
    -------
    dict
        ``rows`` (m,), ``truth`` (m,) pixels, and for each of :data:`MASK_THRESHOLDS` ``both`` and ``found``
        (m, thresholds).
    """
    rows, truth, both, found = [], [], [], []
    for members in studies(list(items)).values():
        pixels = np.stack([dataset.pixels(items[i]) for i in members])
        boxes = compose.locate(compose.to_unit(pixels, spec), spec)
        for image, box, i in zip(pixels, boxes, members, strict=True):
            mask = dataset.mask(items[i])
            if mask is None:
                continue
            p = crops.restore(masks[i].astype(np.float32) / 255.0, box, image.shape)
            called = [p > threshold for threshold in MASK_THRESHOLDS]
            rows.append(i)
            truth.append(int(mask.sum()))
            both.append([int((c & mask).sum()) for c in called])
            found.append([int(c.sum()) for c in called])
    return {"rows": np.asarray(rows), "truth": np.asarray(truth), "both": np.asarray(both), "found": np.asarray(found)}


def segmentation_figures(
    out_of_fold: OutOfFold, overlap: dict[str, np.ndarray], folds: Sequence[str]
) -> dict[str, Any]:
    """Dice on positive slices with each fold's mask threshold chosen on the others; pooled Dice; by size of bleed."""
    fold = out_of_fold.predictions.folds[overlap["rows"]]
    patients = out_of_fold.predictions.patients[overlap["rows"]]
    positive = overlap["truth"] > 0
    table = _dice_table(overlap)
    dice, both, called = np.full(len(fold), np.nan), np.zeros(len(fold)), np.zeros(len(fold))
    chosen = {}
    for name in folds:
        elsewhere = table[(fold != name) & positive]
        best = int(np.nanargmax(elsewhere.mean(axis=0))) if len(elsewhere) else MASK_THRESHOLDS.index(0.5)
        inside = fold == name
        dice[inside], both[inside] = table[inside, best], overlap["both"][inside, best]
        called[inside] = overlap["found"][inside, best]
        chosen[name] = MASK_THRESHOLDS[best]
    truth = overlap["truth"].astype(float)
    mean = metrics.mean(dice[positive], patients[positive])
    pooled = metrics.bootstrap(
        lambda b, c, t: float(2 * b.sum() / max(1.0, c.sum() + t.sum())), patients, both, called, truth
    )
    return {
        "dice_positive_slices": {**mean.as_dict(), "slices": int(positive.sum())},
        "dice_all_pixels": pooled.as_dict(),
        "dice_by_size": _by_size(dice[positive], overlap["truth"][positive], patients[positive]),
        "negative_slices_with_any_blood_pixel": metrics.wilson(
            int((called[~positive] > 0).sum()), int((~positive).sum())
        ).as_dict(),
        "mask_threshold_without_fold": chosen,
    }


def size_figures(out_of_fold: OutOfFold, overlap: dict[str, np.ndarray], ours: Nested) -> dict[str, Any]:
    """Share of the bleeding slices that are called and of the bleeding patients that are flagged, by size of bleed."""
    area = np.full(len(out_of_fold.items), np.nan)
    area[overlap["rows"]] = overlap["truth"]
    return by_size(area, ours.p[:, 0] >= SLICE_THRESHOLD, ours.flagged, out_of_fold.predictions.study_rows())


def by_subtype(
    labels: np.ndarray, names: Sequence[str], flagged: np.ndarray, study_rows: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Share of the studies with each subtype that were flagged (m,); pooled over folds, some are very few.

    Parameters
    ----------
    labels : ndarray (n, labels)
        Of slices; the first label is any bleed.
    study_rows : sequence of ndarray
        Rows of each study.
    """
    rows = {}
    for column, label in enumerate(names[1:], start=1):
        having = np.asarray([bool((labels[r, column] == 1).any()) for r in study_rows])
        rows[label] = metrics.wilson(int(flagged[having].sum()), int(having.sum())).as_dict()
    return rows


def by_size(
    area: np.ndarray, called: np.ndarray, flagged: np.ndarray, study_rows: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Share of the bleeding slices that were called and of the bleeding studies that were flagged, by thirds of size.

    Parameters
    ----------
    area : ndarray (n,)
        Pixels of the true mask in the source picture; NaN where it is not known.
    called : ndarray of bool (n,)
        The decision on slices.
    flagged : ndarray of bool (m,)
        The decision on studies, whose size is the sum of their slices' areas.
    """
    total = np.asarray([float(np.nansum(area[rows])) for rows in study_rows])
    return {
        "slices": _thirds(area, called, "pixels"),
        "studies": _thirds(total, flagged, "pixels over all slices"),
    }


def _thirds(size: np.ndarray, detected: np.ndarray, unit: str) -> dict[str, Any]:
    """Sensitivity in each third of what has a size; equal sizes may fall into either of two."""
    rows: dict[str, Any] = {}
    bleeding = np.flatnonzero(np.isfinite(size) & (size > 0))
    for name, part in zip(SIZES, np.array_split(bleeding[np.argsort(size[bleeding], kind="stable")], 3), strict=True):
        if len(part):
            text = f"{name}, {size[part[0]]:.0f} to {size[part[-1]]:.0f} {unit}"
            rows[text] = metrics.wilson(int(detected[part].sum()), len(part)).as_dict()
    return rows


def best_mask_threshold(overlap: dict[str, np.ndarray]) -> float:
    """The threshold with the highest mean Dice on positive slices, for the card."""
    positive = overlap["truth"] > 0
    return MASK_THRESHOLDS[int(np.argmax(_dice_table(overlap)[positive].mean(axis=0)))]


def _dice_table(overlap: dict[str, np.ndarray]) -> np.ndarray:
    total = overlap["found"] + overlap["truth"][:, None]
    return np.asarray(np.divide(2.0 * overlap["both"], total, out=np.full(total.shape, np.nan), where=total > 0))


def _by_size(dice: np.ndarray, pixels: np.ndarray, patients: np.ndarray) -> dict[str, Any]:
    """Thirds by true area in pixels of the source picture (no spacing, so no mL)."""
    edges = np.quantile(pixels, [0, 1 / 3, 2 / 3, 1])
    rows = {}
    for low, high in pairwise(edges):
        inside = (pixels >= low) & ((pixels < high) | (high == edges[-1]))
        estimate = metrics.mean(dice[inside], patients[inside])
        rows[f"{low:.0f} to {high:.0f} pixels"] = {**estimate.as_dict(), "slices": int(inside.sum())}
    return rows


def worst_misses(
    out_of_fold: OutOfFold, spec: InputSpec, dataset: DataSet, p: np.ndarray, count: int = 8
) -> list[Miss]:
    """The missed slices with the lowest and the false alarms with the highest probability, one a patient."""
    rows = _cases(out_of_fold, p, count).get(MISSES, [])
    return [_captioned(out_of_fold, row, dataset, spec, p, ("missed", "false alarm")) for row in rows]


def shown_slices(
    out_of_fold: OutOfFold, spec: InputSpec, dataset: DataSet, p: np.ndarray, count: int = 4
) -> dict[str, list[Miss]]:
    """Slices that were found, that were rightly passed over, and in doubt, one a patient; with both outlines.

    The drawn outline is red, the network's at a probability of a half is green.
    """
    return {
        heading: [_captioned(out_of_fold, row, dataset, spec, p, ("bleed", "no bleed")) for row in rows]
        for heading, rows in _cases(out_of_fold, p, count).items()
        if heading != MISSES
    }


def _cases(out_of_fold: OutOfFold, p: np.ndarray, count: int) -> dict[str, list[int]]:
    """Slices to show by heading, so many with a bleed and without one."""
    y = out_of_fold.predictions.labels[:, 0]
    patients = np.asarray([item.patient for item in out_of_fold.items])
    return finding_cases(y, p, patients, count, (p >= SLICE_THRESHOLD) == (y == 1))


def _captioned(
    out_of_fold: OutOfFold, row: int, dataset: DataSet, spec: InputSpec, p: np.ndarray, words: tuple[str, str]
) -> Miss:
    """A slice with its probability, and the first word where it has a bleed."""
    word = words[0] if out_of_fold.predictions.labels[row, 0] == 1 else words[1]
    return Miss(_outlined(out_of_fold, row, dataset, spec), f"{word}, p {p[row]:.3f}")


def _outlined(out_of_fold: OutOfFold, row: int, dataset: DataSet, spec: InputSpec) -> np.ndarray:
    """A slice in the network's window, outlined in red what was drawn, in green what the network gives.

    Beside it stands the same below the network's probabilities of bleeding, which are what its heat maps show.
    """
    item = out_of_fold.items[row]
    unit = compose.to_unit(dataset.pixels(item)[None], spec)[0, ..., 0]
    picture = np.repeat((unit * 255).astype(np.uint8)[..., None], 3, axis=-1)
    plain, p = picture.copy(), None
    if out_of_fold.masks is not None:
        study = studies(list(out_of_fold.items))[item.dataset, item.study]
        pixels = np.stack([dataset.pixels(out_of_fold.items[i]) for i in study])
        box = compose.locate(compose.to_unit(pixels, spec), spec)[study.index(row)]  # one for the whole scan
        p = crops.restore(out_of_fold.masks[row].astype(np.float32) / 255.0, box, picture.shape[:2])
        picture[_rim(p > SLICE_THRESHOLD)] = (60, 220, 90)
    mask = dataset.mask(item)
    if mask is not None and mask.any():
        picture[_rim(mask)] = (255, 60, 60)
    return picture if p is None else np.hstack([picture, painted(plain, np.clip(p, 0.0, 1.0))])


def _rim(mask: np.ndarray) -> np.ndarray:
    """Pixels at the edge of a mask, inside."""
    return np.asarray(mask & ~(cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0))
