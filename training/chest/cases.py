"""Films that the page of a chest model shows beside its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from training.chest.figures import BINARY, four_class_truth, patients_of, thresholds_of
from training.chest.labels import CLASSES
from training.datasets.base import Item
from training.evaluation.cases import finding_cases, shown_cases
from training.evaluation.heat import Heat, with_heat, without_heat
from training.evaluation.pictures import Miss
from worker.packages.card import Card

SHOWN = 12
"""Films below a heading of the page."""


def package_cases(
    card: Card, items: Sequence[Item], films: np.ndarray, p: np.ndarray, heat: Heat = without_heat
) -> dict[str, list[Miss]]:
    """Films to show of a package's probabilities (n, labels), by heading."""
    if BINARY in card.labels:
        limits = thresholds_of(card.point(BINARY), items)
        return binary_cases(items, films, p[:, card.labels.index(BINARY)], limits, heat)
    return four_class_cases(items, films, p[:, [card.labels.index(name) for name in CLASSES]], heat)


def binary_cases(
    items: Sequence[Item], films: np.ndarray, p: np.ndarray, threshold: float | np.ndarray, heat: Heat = without_heat
) -> dict[str, list[Miss]]:
    """Films to show of the binary question, by heading, each beside what speaks for pneumonia on it.

    A film is called by its threshold, as in :func:`binary_figures`; one with NaN stands where its likelier answer
    belongs, and its caption says that nothing is called.

    Parameters
    ----------
    films : ndarray (n, H, W) in [0, 1]
    p : ndarray (n,)
    threshold : float or ndarray (n,)
    """
    y = np.asarray([item.labels.get(BINARY, -1.0) for item in items])
    limits = np.broadcast_to(np.asarray(threshold, dtype=np.float64), len(items))
    judged = ~np.isnan(limits)
    positive = p >= np.where(judged, limits, 0.5)
    rows = finding_cases(y, p, patients_of(items), SHOWN // 2, positive == (y == 1))
    said = np.where(judged, np.where(positive, "flagged", "not flagged"), "no threshold at this age")
    return _films_shown(items, films, rows, said, np.where(y == 1, p, 1 - p), lambda row: heat(row, BINARY))


def four_class_cases(
    items: Sequence[Item], films: np.ndarray, p: np.ndarray, heat: Heat = without_heat
) -> dict[str, list[Miss]]:
    """Films to show of the four classes, by heading, each beside what speaks for the class that it is called.

    ``p`` (n, 4) is in the order of the classes.
    """
    truth = four_class_truth(items)
    rows = shown_cases(p, truth, patients_of(items), SHOWN // len(CLASSES))
    called = p.argmax(axis=1)
    said, p_true = np.asarray([f"called {CLASSES[i]}" for i in called]), p[np.arange(len(p)), np.maximum(truth, 0)]
    return _films_shown(items, films, rows, said, p_true, lambda row: heat(row, CLASSES[called[row]]))


def _films_shown(
    items: Sequence[Item],
    films: np.ndarray,
    rows: dict[str, list[int]],
    said: np.ndarray,
    p_true: np.ndarray,
    heat: Callable[[int], np.ndarray | None],
) -> dict[str, list[Miss]]:
    def film(row: int) -> Miss:
        caption = f"{items[row].attributes.get('finding', '')}, {said[row]}: p of the truth {p_true[row]:.3f}"
        return Miss(with_heat(np.round(films[row] * 255).astype(np.uint8), heat(row)), caption)

    return {heading: [film(row) for row in of_heading] for heading, of_heading in rows.items()}
