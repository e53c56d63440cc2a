"""The page of a dermoscopy network: its table of findings counts by lesion, and its cases are of every class."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from training.datasets.base import Item
from training.dermoscopy.figures import MeasuredRows, share
from training.dermoscopy.report import _by_diagnosis, finding_figures
from training.evaluation.cases import DOUBT, MISSES, SUREST
from worker.pipelines.dermoscopy.lesion import CLASSES


class _Grey:
    """A data set whose pictures are all alike."""

    def pixels(self, item: Item) -> np.ndarray:
        return np.full((30, 40, 3), 90, dtype=np.uint8)


def _rows(called: list[int], truth: list[int], pictures: int) -> MeasuredRows:
    """So many pictures of each lesion."""
    p = np.repeat(np.eye(3)[called] * 0.7 + 0.1, pictures, axis=0)
    column = np.repeat(truth, pictures)
    lesions = np.repeat([f"lesion {i}" for i in range(len(truth))], pictures)
    return MeasuredRows(CLASSES, p, column, lesions, column)


def test_four_pictures_of_a_lesion_count_as_one_in_the_table_of_findings() -> None:
    one, four = (finding_figures(_rows([0, 0, 1, 1, 2, 2], [0, 0, 1, 2, 2, 2], n), {})["findings"] for n in (1, 4))
    for name, row in one.items():
        for figure in ("accuracy", "sensitivity", "specificity", "precision", "auc"):
            assert {k: row[figure][k] for k in ("value", "low", "high")} == pytest.approx(
                {k: four[name][figure][k] for k in ("value", "low", "high")}
            ), (name, figure)
    melanoma = four["melanoma, where it is likeliest"]
    assert melanoma["n"] == 24 and melanoma["confusion"]["true_positive"] == 8
    assert melanoma["sensitivity"] == share(np.ones(8, dtype=bool), np.repeat(["a", "b"], 4))


def test_each_class_has_its_cases() -> None:
    rows = _rows([0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 2, 0], 2)
    items = cast(list[Item], [None] * 12)
    shown = _by_diagnosis(rows, cast(Any, _Grey()), items)
    said = {heading: [film.caption for film in of_heading] for heading, of_heading in shown.items()}
    assert said[MISSES] == [
        "melanoma, called other: p of the truth 0.100",
        "nevus, called melanoma: p of the truth 0.100",
    ]
    assert said[SUREST] == [
        *["melanoma, called melanoma: p of the truth 0.800"] * 2,
        "nevus, called nevus: p of the truth 0.800",
        "other, called other: p of the truth 0.800",
    ]
    assert len(said[DOUBT]) == 2 + 2 + 1
