"""Which cases a page shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.builders.toy_package import write_toy_package
from tests.builders.toy_sets import write_ct_ich
from training.datasets.base import label_matrix
from training.datasets.registry import open_dataset
from training.evaluation.cases import DOUBT, MISSES, SUREST, finding_cases, shown_cases
from training.evaluation.scoring import Scored, scored_cases
from worker.packages.package import load


def test_what_is_right_is_no_miss_and_what_is_wrong_no_right_call() -> None:
    p = np.asarray([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55], [0.2, 0.8], [0.5, 0.5]])
    truth = np.asarray([0, 0, 0, 1, 1, -1])
    shown = shown_cases(p, truth, np.arange(6), 4)
    assert shown[MISSES] == [2]
    assert shown[SUREST] == [0, 1, 4, 3], "the surest of each class first"
    assert shown[DOUBT] == [2, 1, 0, 3, 4], "nothing is said of a row whose truth is not known"
    assert MISSES not in shown_cases(p[:2], truth[:2], np.arange(2), 4), "nothing is missed, so nothing is shown"


def test_every_class_has_its_cases_and_a_patient_is_shown_once() -> None:
    p = np.asarray([[0.9, 0.1]] * 5 + [[0.4, 0.6]])
    shown = shown_cases(p, np.asarray([0] * 5 + [1]), np.asarray(list("aabbcd")), 2)
    assert shown[SUREST] == [0, 2, 5]


def test_a_finding_is_called_by_its_own_threshold() -> None:
    y, p = np.asarray([1.0, 1.0, 0.0, 0.0, -1.0]), np.asarray([0.3, 0.1, 0.05, 0.25, 0.9])
    shown = finding_cases(y, p, np.arange(5), 3, (p >= 0.2) == (y == 1))
    assert shown[SUREST] == [0, 2] and shown[MISSES] == [1, 3]
    assert shown[DOUBT] == [0, 1, 3, 2]


def test_of_a_scored_data_set_only_what_was_called_wrongly_is_a_miss(tmp_path: Path) -> None:
    package = load(tmp_path / write_toy_package(tmp_path))
    package.card = card = package.card.model_copy(update={"operating_points": {}})
    dataset = open_dataset("ct_ich", write_ct_ich(tmp_path / "ct_ich"))
    items = dataset.items()
    labels = label_matrix(items, card.labels)
    nothing = np.full(len(items), np.nan)
    p = np.where(labels == 1, 0.6, 0.4)
    right = Scored(items, labels, p, nothing, nothing, {})
    shown = scored_cases(package, dataset.pixels, right)
    assert shown[MISSES] == [], "every call is right"
    assert len(shown[SUREST]) == len(shown[DOUBT]) > 0
    bleed, clear = (int(np.flatnonzero(labels[:, 0] == value)[0]) for value in (1, 0))
    p[bleed, 0], p[clear, 0] = 0.0, 1.0
    misses = scored_cases(package, dataset.pixels, right)[MISSES]
    assert sorted(miss.caption for miss in misses) == ["any: negative, p 1.000", "any: positive, p 0.000"]
    height, width = dataset.pixels(items[bleed]).shape
    assert {miss.picture.shape for miss in misses} == {(height, 2 * width, 3)}, "each beside its heat map"
