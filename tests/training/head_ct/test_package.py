"""A head package with wide windows, from its folds to what it says of a scan: one toy training for all of it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from firstread.phantoms.head import HeadSpec, head_volume
from tests.builders.toy_runs import TOY
from training.package.order import Order
from training.recipe import Recipe, RecipeError
from training.train import train_all
from worker.packages.package import load
from worker.packages.patient_score import mask_areas
from worker.packages.preprocessing.compose import compose
from worker.packages.probabilities import slice_probabilities, study_probability


def recipe_of_wide() -> Recipe:
    """The toy recipe on CT-ICH in two windows and in one, with everything that is done for other scanners."""
    tables = tomllib.loads(TOY.format(steps=6))
    tables["datasets"]["ct_ich_two_windows"] = "ct_ich_two_windows"
    tables["folds"] |= {"dataset": "ct_ich_two_windows", "also": ["ct_ich"]}
    tables["input"]["wide_windows"] = [[-20.0, 180.0], [-100.0, 900.0]]
    tables["augment"] = {"kind": "head", "dense": 0.5, "scanner": 0.5, "drop_wide": 0.3}
    tables |= {"restacked": 0.3, "carve": 0.2, "drawn": 0.2}
    tables["card"] = tables.get("card", {}) | {"prevalence": {"value": 0.04, "source": "a hospital"}}
    return Recipe.model_validate(tables)


@pytest.fixture(scope="module")
def package(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wide")
    made = train_all(Order(recipe=recipe_of_wide(), data=toy_data, out=out / "run"))
    assert made is not None
    return made


def test_the_card_says_how_the_same_patients_score_when_they_are_clipped(package: Path) -> None:
    metrics = json.loads((package / "card.json").read_text())["metrics"]
    assert list(metrics)[-1] == "out_of_fold", "what is from elsewhere comes first"
    for row in (metrics["without_wide_windows"], metrics["same_patients"]["ct_ich"]):
        assert 0 <= row["slices"]["value"] <= 1 and row["patients"]["bleeding"] == 4


def test_the_flag_has_the_prevalence_that_the_recipe_names(package: Path) -> None:
    points = json.loads((package / "card.json").read_text())["operating_points"]
    assert points["flag"]["prevalence"] == {"value": 0.04, "source": "a hospital"}
    assert "prevalence" not in points["balanced"]
    assert "The prevalence: a hospital." in (package / "card.md").read_text(encoding="utf-8")


def test_a_scan_is_scored_with_its_bone_and_without(package: Path) -> None:
    served = load(package)
    card = served.card
    assert card.input.channels == 5
    hu = head_volume(HeadSpec(slices=6, size=128, step_mm=20.0, bleed="intraparenchymal"))[0].astype(np.float32)
    logits: list[np.ndarray] = []
    for volume in (hu, np.clip(hu, -20, 100)):
        outputs = served.predict(compose(volume, card.input))
        p = slice_probabilities(outputs, card.parameters, card.labels)[:, 0]
        p_study = study_probability(p, card.parameters, "any", mask_areas(outputs["mask"]))
        assert np.isfinite(p).all() and 0 <= p_study <= 1
        logits.append(outputs["p_raw"])
    assert not np.allclose(logits[0], logits[1], atol=1e-6), "bone is heard"


def test_a_recipe_whose_card_takes_no_figures_of_another_run_refuses_them(toy_data: Path, tmp_path: Path) -> None:
    recipe = recipe_of_wide().model_copy(update={"task": "lesion"})
    with pytest.raises(RecipeError, match="leave --external out"):
        train_all(Order(recipe=recipe, data=toy_data, out=tmp_path / "run", external=(tmp_path,)))
