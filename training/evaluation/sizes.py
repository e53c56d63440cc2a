"""Who is found: by subtype, and by the size of the bleed, in slices and in studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.evaluation import metrics

SIZES = ("smallest third", "middle third", "largest third")


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


def _thirds(size: np.ndarray, found: np.ndarray, unit: str) -> dict[str, Any]:
    """Sensitivity in each third of what has a size; equal sizes may fall into either of two."""
    rows: dict[str, Any] = {}
    bleeding = np.flatnonzero(np.isfinite(size) & (size > 0))
    for name, part in zip(SIZES, np.array_split(bleeding[np.argsort(size[bleeding], kind="stable")], 3), strict=True):
        if len(part):
            text = f"{name}, {size[part[0]]:.0f} to {size[part[-1]]:.0f} {unit}"
            rows[text] = metrics.wilson(int(found[part].sum()), len(part)).as_dict()
    return rows
