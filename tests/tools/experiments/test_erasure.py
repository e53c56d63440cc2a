"""Removing the age from features: exact where it is a line, harmless to the classes, and measured by a command."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.chest import chest_card, covid_folder, kermany_folder
from tools.experiments.erasure import erase, erasure_rows, fit_erasure, refitted
from training.chest.labels import CLASSES, labels_of
from training.datasets.base import DataSetError, Item
from training.evaluation import metrics
from training.package.writing import write_package
from worker.packages.networks import build

FINDINGS = ("normal", "bacterial", "viral", "COVID-19")


def _features(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Six features: one a class, then one of age, then noise; COVID films are of adults, few others are."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, n)
    adult = (truth == 3) | (rng.random(n) < 0.15)
    x = rng.normal(0, 0.5, (n, 6))
    x[np.arange(n), truth] += np.where(truth == 3, 1.0, 2.0)
    x[:, 4] += 3.0 * adult
    return x, truth, adult


def _items(truth: np.ndarray, adult: np.ndarray) -> list[Item]:
    return [
        Item(
            "d",
            str(i),
            Path("x"),
            f"p{i}",
            f"s{i}",
            labels=labels_of(FINDINGS[c]),
            attributes={"finding": FINDINGS[c], "age_group": "adult" if grown else "child"},
        )
        for i, (c, grown) in enumerate(zip(truth, adult, strict=True))
    ]


def test_no_line_predicts_the_age_any_more_and_the_classes_stay() -> None:
    x, truth, adult = _features(2000, 0)
    known = truth < 3
    x, truth, adult = x[known], truth[known], adult[known]
    erasure = fit_erasure(x, adult, truth)
    clean = erasure.apply(x)
    for group in range(3):
        rows = truth == group
        assert abs(np.corrcoef(x[rows, 4], adult[rows])[0, 1]) > 0.8
    inside = clean - np.stack([clean[truth == group].mean(axis=0) for group in range(3)])[truth]
    age = adult - np.asarray([adult[truth == group].mean() for group in range(3)])[truth]
    np.testing.assert_allclose(inside.T @ age / len(age), 0.0, atol=1e-9)
    for column in range(3):
        before, after = (metrics.auc((truth == column).astype(int), v[:, column]) for v in (x, clean))
        assert after > before - 0.02


def test_an_age_that_goes_with_the_class_alone_cannot_be_separated_from_it() -> None:
    x, truth, _ = _features(200, 1)
    with pytest.raises(DataSetError, match="adults and of children"):
        fit_erasure(x, truth == 3, truth)


def test_a_refitted_layer_reads_films_that_may_be_several_classes() -> None:
    x, truth, _ = _features(1500, 2)
    allowed = np.eye(4)[truth]
    allowed[(truth == 1) & (np.arange(1500) % 5 == 0)] = [0, 1, 1, 0]
    kernel, bias = refitted(x, allowed, np.zeros((6, 4)), np.zeros(4))
    assert ((x @ kernel + bias).argmax(axis=1) == truth).mean() > 0.9


def test_adults_without_covid_are_called_covid_less_once_the_age_is_gone() -> None:
    parts, features = {}, {}
    for seed, (part, n) in enumerate((("train", 3000), ("val", 600), ("test", 1500))):
        x, truth, adult = _features(n, seed)
        if part != "test":
            adult = adult & ((truth == 3) | (np.arange(n) % 4 == 0))
        features[part], parts[part] = x, _items(truth, adult)
    layer = np.zeros((6, 4)), np.zeros(4)
    layer[0][[0, 1, 2, 3], [0, 1, 2, 3]] = 1.0
    layer[0][4, 3] = 1.0
    rows = {row["features and layer"]: row for row in erasure_rows(parts, features, layer)}
    before, after = (rows[name] for name in ("last layer as it is", "age erased, last layer refitted"))
    assert before["age_auc_line"] > 0.95
    assert before["age_auc_neighbours"] > 0.9
    assert after["age_auc_line"] == pytest.approx(0.5, abs=0.1)
    assert after["age_auc_neighbours"] < 0.75
    called = [row["adults_called_covid"]["value"] for row in (before, after)]
    assert called[1] < 0.5 * called[0]
    assert after["covid_recall"]["value"] > 0.6


def test_the_command_measures_a_package(tmp_path: Path) -> None:
    kermany_folder(tmp_path / "data/kermany224", each=3)
    covid_folder(tmp_path / "data/covid_ieee8023", each=2)
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "data").rglob("*.png")):
        # drawn films are so alike that the reader takes them for the same patient's
        cv2.imwrite(str(path), cv2.resize(rng.integers(0, 256, (9, 9)).astype(np.uint8), (96, 96)))
    architecture = {
        "builder": "pneumonia_cnn",
        "classes": 4,
        "filters": [4, 8],
        "dense": [8],
        "dropout": [0.1],
        "softmax_groups": [[0, 1, 2, 3]],
    }
    card = chest_card("pneumonia4", list(CLASSES), architecture=architecture)
    write_package(tmp_path / "four", build.build(architecture, card.input), card, "x")
    arguments = [str(tmp_path / "four"), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(erase, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "17 training films, 17 test films" in result.output
    rows = json.loads((tmp_path / "out/erase.json").read_text())["rows"]
    assert [row["features and layer"] for row in rows] == [
        "last layer as it is",
        "last layer refitted",
        "age erased, last layer as it is",
        "age erased, last layer refitted",
    ]
    assert all(row["adults_called_covid"]["n"] == 6 for row in rows)
