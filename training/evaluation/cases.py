"""Which cases a page shows beside its figures: the worst misses, the surest right calls, and the doubtful ones."""

from __future__ import annotations

import numpy as np

MISSES, SUREST, DOUBT = "Worst misses", "Surest right calls", "In doubt"
"""Headings of the cases."""


def shown_cases(
    p: np.ndarray, truth: np.ndarray, patients: np.ndarray, count: int, right: np.ndarray | None = None
) -> dict[str, list[int]]:
    """Rows of the cases to show by heading; a heading without any is left out.

    Every class has its own, so that the commonest does not fill the page, and within it a patient is shown once.

    Parameters
    ----------
    p : ndarray (n, classes)
        Probabilities of classes that exclude each other.
    truth : ndarray of int (n,)
        Column of the true class; rows with -1 are left out.
    patients : ndarray (n,)
        Patient of each row, or lesion.
    count : int
        The most rows of a class below each heading.
    right : ndarray of bool (n,), optional
        Whether the call was right; without it, whether the true class is the likeliest.
    """
    p_true = p[np.arange(len(p)), np.maximum(truth, 0)]
    second, first = np.sort(p, axis=1)[:, -2:].T
    right = p.argmax(axis=1) == truth if right is None else right
    keys = {MISSES: (p_true, ~right), SUREST: (-p_true, right), DOUBT: (first - second, np.ones(len(p), dtype=bool))}
    shown: dict[str, list[int]] = {}
    for heading, (key, among) in keys.items():
        order = np.argsort(key, kind="stable")
        for of_class in range(p.shape[1]):
            rows = order[(among & (truth == of_class))[order]]
            shown.setdefault(heading, []).extend(_one_a_patient(rows, patients, count))
    return {heading: rows for heading, rows in shown.items() if rows}


def finding_cases(
    y: np.ndarray, p: np.ndarray, patients: np.ndarray, count: int, right: np.ndarray
) -> dict[str, list[int]]:
    """:func:`shown_cases` of one finding, those that have it first.

    ``y`` (n,) is 1, 0, or anything else where it is not known, and ``p`` (n,) the probability of the finding.
    """
    truth = np.select([y == 1, y == 0], [0, 1], -1)
    return shown_cases(np.stack([p, 1.0 - p], axis=1), truth, patients, count, right)


def _one_a_patient(rows: np.ndarray, patients: np.ndarray, count: int) -> list[int]:
    """The first rows, the first of each patient alone."""
    first = np.sort(np.unique(patients[rows], return_index=True)[1])
    return [int(row) for row in rows[first][:count]]
