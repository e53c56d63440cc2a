"""``python -m tools.experiments.looks``: which called films have low evidence, by which map, on a folder of films."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.chest import chest_card, covid_folder, kermany_folder
from tools.experiments.looks import SERVED, Called, look_rows, looks, variants_of
from training.chest.labels import labels_of
from training.chest.readers import class_of
from training.datasets.base import Item
from training.datasets.registry import open_dataset
from training.package.writing import write_package
from worker.packages.networks import build
from worker.packages.operating_points import OperatingPoint
from worker.packages.preprocessing.lungs import SIDE
from worker.pipelines.chest_xray.evidence import FilmMaps

CLASSES = ["normal", "bacterial", "viral", "covid19"]
BLEND = {"own": 0.5, "four": 0.5, "bias": 0.0, "threshold": 0.0}


def _package(root: Path, task: str, labels: list[str], parameters: dict[str, Any]) -> Path:
    import keras

    keras.utils.set_random_seed(1)
    architecture = {
        "builder": "pneumonia_cnn",
        "classes": len(labels),
        "filters": [4, 8],
        "dense": [8],
        "dropout": [0.1],
        "softmax_groups": [[0, 1, 2, 3]] if len(labels) == 4 else [],
    }
    changes: dict[str, Any] = {"architecture": architecture, "parameters": parameters}
    if task == "pneumonia":
        always = OperatingPoint(finding="pneumonia", threshold=0.0, chosen_for="a test")
        changes["operating_points"] = {"flag": always}
    card = chest_card(task, labels, **changes)
    write_package(root / task, build.build(architecture, card.input), card, "x")
    return root / task


def test_the_table_measures_every_map_on_every_called_film(tmp_path: Path) -> None:
    kermany_folder(tmp_path / "data/kermany224", each=2)
    covid_folder(tmp_path / "data/covid_ieee8023", each=1)
    binary = _package(tmp_path, "pneumonia", ["pneumonia"], {"blend": BLEND})
    four = _package(tmp_path, "pneumonia4", CLASSES, {})
    arguments = [str(binary), str(four), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(looks, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    films = [item for item in open_dataset("chest_films", tmp_path / "data").items() if item.split == "test"]
    assert f"{len(films)} test films, {len(films)} of them called" in result.output
    rows = {row["map"]: row for row in json.loads((tmp_path / "out/looks.json").read_text())["rows"]}
    assert len(rows) == 5
    expected = Counter(class_of(item) or "other germ" for item in films)
    counts = {name: rows[SERVED][f"low_evidence_{name}"]["n"] for name in expected}
    assert counts == expected
    assert rows[SERVED]["low_evidence_pneumonia"]["n"] == len(films) - expected["normal"]
    assert rows[SERVED]["agreement_with_served"] > 0.99


def test_shares_are_of_true_positives_and_by_class() -> None:
    def film(finding: str, doubted: bool) -> Called:
        item = Item("d", "k", Path("x"), "p", "s", labels=labels_of(finding))
        return Called(item, {"m": 0.2 if doubted else 0.8}, {"m": doubted}, {"m": 1.0})

    films = [film("viral", True), film("viral", False), film("COVID-19", False), film("normal", True)]
    (row,) = look_rows(films)
    assert row["low_evidence_pneumonia"]["value"] == pytest.approx(1 / 3)
    assert row["low_evidence_viral"]["value"] == 0.5
    assert row["low_evidence_normal"] == row["low_evidence_normal"] | {"value": 1.0, "n": 1}
    assert row["median_lung_share_pneumonia"] == pytest.approx(0.8)
    assert look_rows([]) == []


def test_one_model_alone_has_fewer_maps_to_compare() -> None:
    heat = np.zeros((SIDE, SIDE), np.float32)
    assert set(variants_of(FilmMaps((heat,), heat, heat))) == {SERVED, "the same as Grad-CAM++", "binary model alone"}
