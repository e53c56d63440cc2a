"""``firstread evaluate`` of chest packages: the test part, the joint score as served, and the right partner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.builders.chest import chest_card, covid_folder, kermany_folder
from tests.builders.report_pages import sizes_below
from training.chest.evaluate import chosen_items
from training.datasets.base import DataSetError
from training.datasets.registry import open_dataset
from training.evaluate import evaluate_package
from training.evaluation.cases import DOUBT
from training.package.writing import write_package
from worker.packages.networks import build
from worker.packages.package import load

CLASSES = ["normal", "bacterial", "viral", "covid19"]
BLEND = {"own": 0.5, "four": 0.5, "bias": 0.0, "threshold": 0.61}


def _write(root: Path, task: str, version: str = "1.0.0", **parameters: Any) -> Path:
    labels = ["pneumonia"] if task == "pneumonia" else CLASSES
    architecture = {
        "builder": "pneumonia_cnn",
        "classes": len(labels),
        "filters": [4],
        "dense": [4],
        "dropout": [0.1],
        "softmax_groups": [[0, 1, 2, 3]] if len(labels) == 4 else [],
    }
    card = chest_card(task, labels, version=version, architecture=architecture, parameters=parameters)
    directory = root / task / version
    write_package(directory, build.build(card.architecture, card.input), card, "test")
    return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("films")
    kermany_folder(root / "kermany", each=2)
    covid_folder(root / "covid", each=1)
    return root


def _figures(package: Path, data: Path, out: Path, **options: Any) -> dict[str, Any]:
    evaluate_package(str(package), data, None, None, out, **options)
    evaluation: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    return evaluation


@pytest.mark.timeout(300)
def test_the_joint_score_is_measured_at_its_own_threshold_on_the_test_part(data: Path, tmp_path: Path) -> None:
    four = json.loads((_write(tmp_path, "pneumonia4") / "card.json").read_text())
    partner = {name: four[name] for name in ("name", "version", "sha256")}
    binary = _write(tmp_path, "pneumonia", blend=BLEND | {"partner": partner})
    figures = _figures(binary, data, tmp_path / "out")
    assert figures["joint_score"]["threshold"] == 0.61
    assert figures["binary_model_alone"]["threshold"] == 0.5
    assert figures["joint_score"]["all"]["n"] == 6 + 4
    page = (tmp_path / "out/evaluation.html").read_text()
    assert "<h2>Confusion matrices</h2>" in page
    assert "part test" in page
    height, width = 2 * (load(binary).card.input.height,)
    assert sizes_below(page, DOUBT) == {(height, 2 * width, 3)}, "each film beside its heat map"
    dataset = open_dataset("chest_films", data)
    assert [len(chosen_items(dataset, part)[0]) for part in (None, "val", "all")] == [10, 10, 30]
    other = _write(tmp_path, "pneumonia4", "2.0.0")
    with pytest.raises(DataSetError, match="was not fitted with"):
        evaluate_package(str(binary), data, None, None, tmp_path / "no", str(other))


@pytest.mark.timeout(300)
def test_a_partner_that_is_not_here_is_said_so_and_one_too_many_refused(data: Path, tmp_path: Path) -> None:
    partner = {"name": "pneumonia4", "version": "9.9.9", "sha256": "x"}
    lonely = _write(tmp_path, "pneumonia", blend=BLEND | {"partner": partner})
    figures = _figures(lonely, data, tmp_path / "out")
    assert "joint_score" not in figures
    assert "The joint score is not measured" in (tmp_path / "out/evaluation.html").read_text()
    four = _write(tmp_path, "pneumonia4")
    assert "four_classes" in _figures(four, data, tmp_path / "four")["four_class_model"]
    with pytest.raises(DataSetError, match="no other package"):
        evaluate_package(str(four), data, None, None, tmp_path / "no", str(four))
