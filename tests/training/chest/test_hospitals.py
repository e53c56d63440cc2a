"""Variants against knowing a hospital: what differs, and a row of the table from a run to the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.builders.chest import covid_folder, kermany_folder, nih_folder, radiography_folder
from training.chest import hospitals as subject
from training.recipe import Recipe, load_recipe


@pytest.mark.parametrize("name", list(subject.VARIANTS))
def test_a_variant_differs_from_what_ships_in_what_it_says_alone(name: str) -> None:
    base, recipe = load_recipe("pneumonia_shared"), subject.recipe_of(subject.VARIANTS[name], "papers", 9)
    changed = {field for field in Recipe.model_fields if getattr(base, field) != getattr(recipe, field)}
    own = {"adversary", "losses", "name", "description"} if "recipe" in subject.VARIANTS[name] else set()
    assert changed - own == {"leave_out", "schedule"} | set(subject.VARIANTS[name]) - {"recipe"}
    assert recipe.schedule.steps == 9 and recipe.leave_out == ("papers",)


def test_a_row_speaks_of_the_hospital_that_no_variant_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "films"
    kermany_folder(data / "kermany224", each=3)
    covid_folder(data / "covid_ieee8023", each=6)
    nih_folder(data / "nih")
    radiography_folder(data / "radiography")
    toy = load_recipe("pneumonia_shared")
    network = {"builder": "pneumonia_cnn", "classes": 5, "filters": [4, 4], "dense": [4], "dropout": [0.1]}
    small = {
        "architecture": network,
        "input": toy.input.model_copy(update={"height": 32, "width": 32}),
        "schedule": toy.schedule.model_copy(update={"steps_per_epoch": 2, "batch_size": 8, "ema": 0.0}),
    }
    monkeypatch.setattr(subject, "load_recipe", lambda name: load_recipe(name).model_copy(update=small))
    arguments = ["--data", str(data), "--steps", "2", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(subject.hospitals, [*arguments, "--variant", "as it ships"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "out/hospitals.json").read_text())["rows"]
    assert 0 <= row["left_out_covid_found"]["value"] <= 1 and row["left_out_covid_found"]["n"] == 18
    assert {"left_out_covid_auc", "nih_normals_flagged", "nih_opacity_auc", "children_four_classes"} <= set(row)
    monkeypatch.setattr(subject, "run_variant", None)
    again = CliRunner().invoke(subject.hospitals, [*arguments, "--variant", "as it ships"], catch_exceptions=False)
    assert again.exit_code == 0 and again.output == result.output, "a run that is there is not repeated"
