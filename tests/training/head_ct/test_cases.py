"""Slices on the page of a head CT network, and what it says of how its figures came about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.builders.toy_sets import write_ct_ich
from training.datasets.base import DataSet, Item, label_matrix
from training.datasets.registry import open_dataset
from training.evaluation.cases import DOUBT, SUREST
from training.head_ct.figures import method_of, shown_slices, worst_misses
from training.head_ct.out_of_fold import OutOfFold
from training.package.postprocess import Predictions
from worker.packages.card import InputSpec
from worker.packages.package import read_card

SPEC = InputSpec(kind="grey", height=32, width=32)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataSet, OutOfFold]:
    dataset = open_dataset("ct_ich", write_ct_ich(tmp_path_factory.mktemp("heads") / "ct_ich"))
    items = dataset.items()
    studies, patients = (np.asarray([getattr(item, name) for item in items]) for name in ("study", "patient"))
    labels = label_matrix(items, ["any"])
    return dataset, OutOfFold(items, Predictions(("any",), labels, labels, studies, patients, patients), None)


def _numbers(captions: list[str], word: str) -> list[float]:
    return [float(caption.split("p ")[1]) for caption in captions if caption.startswith(f"{word}, ")]


def test_a_slice_that_was_called_rightly_is_no_miss(heads: tuple[DataSet, OutOfFold]) -> None:
    dataset, out_of_fold = heads
    bleeds = out_of_fold.predictions.labels[:, 0] == 1
    p = np.where(bleeds, 0.9, 0.1)
    assert worst_misses(out_of_fold, SPEC, dataset, p) == [], "nothing was missed"
    p[np.flatnonzero(bleeds)[0]], p[np.flatnonzero(~bleeds)[0]] = 0.2, 0.7
    assert [miss.caption for miss in worst_misses(out_of_fold, SPEC, dataset, p)] == [
        "missed, p 0.200",
        "false alarm, p 0.700",
    ]
    shown = {k: [film.caption for film in of] for k, of in shown_slices(out_of_fold, SPEC, dataset, p).items()}
    assert set(shown) == {SUREST, DOUBT}
    assert _numbers(shown[SUREST], "bleed") == [0.9] * 4 and _numbers(shown[SUREST], "no bleed") == [0.1] * 4
    assert _numbers(shown[DOUBT], "bleed")[0] == 0.2 and _numbers(shown[DOUBT], "no bleed")[0] == 0.7


def test_what_was_decided_on_ct_ich_is_said_of_its_folds_alone() -> None:
    def items(dataset: str) -> list[Item]:
        return [Item(dataset, "1", Path("x"), "p", "s")]

    theirs = method_of(["north", "south", "east"], items("plain_csv"))
    assert theirs.startswith("3-fold cross-validation") and "folds 0 and 2" not in theirs
    shipped = read_card(Path(__file__).parents[3] / "models/head_ct_bleed/2.0.0").metrics
    assert method_of(["0", "2", "3", "4"], items("ct_ich_two_windows")) in {
        shipped.get("method"),
        *(value.get("method") for value in shipped.values() if isinstance(value, dict)),
    }, "the shipped card's words stay"
