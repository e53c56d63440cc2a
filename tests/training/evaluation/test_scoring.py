"""Evaluation of packages and runs: doubtful labels, sizes, what each part of the network says, and losses by class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.toy_package import write_toy_package
from tests.builders.toy_sets import write_ct_ich, write_phe_sich
from training.datasets.registry import open_dataset
from training.evaluate import evaluate_package
from training.evaluation import metrics
from training.evaluation.figures import binary
from training.evaluation.scoring import score
from training.fit.losses import masked_bce
from training.head_ct.evaluate import head_ct_figures
from training.head_ct.figures import by_size, by_subtype, fold_aucs, weighted_log_loss
from training.package.postprocess import EVIDENCE, Predictions, fit, fit_label_head, fit_mask
from worker.packages.card_page import brief, render
from worker.packages.package import load
from worker.packages.runtimes.tensorflow import Package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    root = tmp_path_factory.mktemp("models")
    return load(root / write_toy_package(root))


def test_doubtful_negatives_are_scored_and_do_not_count(package: Package, tmp_path: Path) -> None:
    dataset = open_dataset("phe_sich", write_phe_sich(tmp_path / "phe_sich"))
    scored = score(package, dataset)
    usable = np.asarray([item.usable for item in scored.items])
    assert len(scored.p) == 15 and np.isfinite(scored.p).all()
    assert (scored.labels[~usable] == -1).all() and (scored.labels[usable, 0] == 1).all()
    groups = [list(range(5)), list(range(5, 10)), list(range(10, 15))]
    assert head_ct_figures(package.card, scored, groups)["studies"]["any"]["positive"] == 3
    scored.labels[:5, 0] = [-1, 0, 0, 0, 0]
    scored.labels[5:10, 0] = 0
    studies = head_ct_figures(package.card, scored, groups)["studies"]["any"]
    assert (studies["n"], studies["positive"]) == (2, 1), "a study with a slice in doubt is not known to be free"


def test_a_package_stands_beside_calling_nothing(package: Package, tmp_path: Path) -> None:
    root = write_ct_ich(tmp_path / "ct_ich")
    write_toy_package(tmp_path / "models")
    evaluate_package(str(tmp_path / "models" / "toy" / "1.0.0"), root, "ct_ich", None, tmp_path / "out")
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert evaluation["compared"]["always_normal"]["studies"]["sensitivity"]["value"] == 0
    assert evaluation["compared"]["always_normal"]["slices"]["accuracy"]["value"] == 0.75
    assert evaluation["studies_by_subtype"]["epidural"] == {**metrics.wilson(2, 2).as_dict()}, "the toy flags everybody"
    assert [row["n"] for row in evaluation["by_size"]["slices"].values()] == [3, 3, 2]
    assert sum(row["n"] for row in evaluation["by_size"]["studies"].values()) == 4
    assert evaluation["published"]["authors of CT-ICH, positive slices"]["dice"] == 0.31
    assert "not to be compared" in (tmp_path / "out" / "evaluation.html").read_text()


def test_sensitivity_by_size_and_subtype() -> None:
    area = np.asarray([0.0, 5, 10, 40, 90, 500, 700, np.nan])
    called = np.asarray([True, False, False, True, True, True, True, True])
    rows = [np.asarray([0]), np.asarray([1, 2]), np.asarray([3, 4]), np.asarray([5, 6, 7])]
    sizes = by_size(area, called, np.asarray([True, False, True, True]), rows)
    slices, studies = sizes["slices"], sizes["studies"]
    assert list(slices) == [
        "smallest third, 5 to 10 pixels",
        "middle third, 40 to 90 pixels",
        "largest third, 500 to 700 pixels",
    ]
    assert [row["value"] for row in slices.values()] == [0.0, 1.0, 1.0]
    assert [(row["value"], row["n"]) for row in studies.values()] == [(0.0, 1), (1.0, 1), (1.0, 1)]
    labels = np.zeros((8, 2))
    labels[[1, 5], 1] = 1
    assert by_subtype(labels, ("any", "subdural"), np.asarray([1, 0, 1, 1], bool), rows)["subdural"]["value"] == 0.5


def test_each_part_of_the_network_alone() -> None:
    rng = np.random.default_rng(3)
    n = 400
    y = (rng.random(n) < 0.4).astype(float)
    own, mask = y + rng.normal(0, 2.0, n), y + rng.normal(0, 0.7, n)
    studies = np.repeat(np.arange(n // 4), 4).astype(str)
    evidence = np.repeat(mask[:, None], len(EVIDENCE), axis=1)
    table = Predictions(("any",), own[:, None], y[:, None], studies, studies, np.full(n, "0"), evidence)
    auc = {
        name: metrics.auc(y, fitter(table).p_slices(table)[:, 0])
        for name, fitter in (("both", fit), ("label", fit_label_head), ("mask", fit_mask))
    }
    assert auc["label"] == pytest.approx(metrics.auc(y, own)) and auc["mask"] == pytest.approx(metrics.auc(y, mask))
    assert auc["both"] > auc["mask"] > auc["label"]


def test_folds_and_log_loss_have_intervals_and_calibration_error_has_none() -> None:
    rng = np.random.default_rng(0)
    n = 200
    y = (rng.random(n) < 0.5).astype(float)
    p = np.clip(0.3 * y + 0.7 * rng.random(n), 0.01, 0.99)
    patients, folds = np.repeat(np.arange(n // 5), 5).astype(str), np.repeat(["0", "1"], n // 2)
    table = Predictions(("any",), y[:, None], y[:, None], patients, patients, folds)
    for row in fold_aucs(table, p, 100).values():
        assert row["low"] < row["value"] <= row["high"] and row["n"] == 20
    loss = metrics.bootstrap(weighted_log_loss, patients, y[:, None], p[:, None], repeats=100)
    assert loss.low is not None and loss.high is not None and loss.value is not None
    assert loss.low < loss.value < loss.high
    assert loss.value == pytest.approx(metrics.log_loss(y, p))
    error = binary(y, p, patients, p > 0.5, 50)["calibration_error"]
    assert error["value"] == metrics.calibration_error(y, p) and error["low"] is None


def test_positives_may_count_more() -> None:
    y, logits = np.asarray([[1.0, 0.0], [0.0, -1.0]], np.float32), np.asarray([[0.0, 1.0], [2.0, 5.0]], np.float32)
    terms = {True: [np.log(2)], False: [np.log1p(np.exp(1.0)), np.log1p(np.exp(2.0))]}

    def loss(**options: Any) -> float:
        return float(masked_bce(**options)(y, logits))

    assert loss() == pytest.approx(sum(terms[True] + terms[False]) / 3, abs=1e-5)
    assert loss(positive_weight=4.0) == pytest.approx((4 * terms[True][0] + sum(terms[False])) / 6, abs=1e-5)
    start = float(masked_bce(positive_weight=4.0)(y, np.zeros_like(logits)))
    assert start == pytest.approx(np.log(2)), "an untrained network shows the same loss"


def test_the_page_of_a_card_is_brief_about_comparisons(package: Package) -> None:
    row = {"auc": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 9}, "brier": {"value": 0.1, "low": 0.0, "high": 0.2}}
    figures = {
        "slices": row,
        "compared": {"always_normal": {"slices": row}},
        "calibration_error": {"value": 0.02, "low": None, "high": None, "n": 9},
    }
    kept = brief({"out_of_fold": figures})["out_of_fold"]
    assert kept["slices"] == row and kept["compared"] == {"always_normal": {"slices": {"auc": row["auc"]}}}
    page = render(package.card.model_copy(update={"metrics": figures}))
    assert "compared.always_normal.slices.auc" in page and "compared.always_normal.slices.brier" not in page
    assert "0.02 (N 9)" in page
