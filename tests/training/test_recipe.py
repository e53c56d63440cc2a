"""Recipes: those that are shipped, and those that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.toy_runs import TOY, recipe_of
from training.recipe import RecipeError, load_recipe, shipped, sized


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_are_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert set(recipe.losses) <= {"logits", "mask_logits", "peak", "source"}


def test_strange_recipes_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe"):
        load_recipe("nonsense")
    (tmp_path / "r.toml").write_text("surprise = 1\n" + TOY.format(steps=3))
    with pytest.raises(RecipeError, match="surprise"):
        load_recipe(str(tmp_path / "r.toml"))


def test_epochs_become_steps(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, 5)
    epochs = recipe.schedule.model_copy(update={"steps": 0, "epochs": 2})
    fitted = sized(recipe.model_copy(update={"schedule": epochs}), 45)
    assert (fitted.schedule.steps, fitted.schedule.steps_per_epoch) == (10, 5)
    assert sized(recipe, 45) == recipe
    toml = tmp_path / "both.toml"
    toml.write_text(TOY.format(steps=3).replace("steps_per_epoch = 5", "epochs = 5"))
    with pytest.raises(RecipeError, match="either steps or epochs"):
        load_recipe(str(toml))


@pytest.mark.parametrize("name", ["lesion_lite_varied", "lesion_short_varied", "lesion_pair", "lesion_resnet50"])
def test_recipes_that_flag_melanoma_name_a_prevalence_with_its_source(name: str) -> None:
    prevalence = load_recipe(name).prevalence
    assert prevalence is not None and "584 melanomas among 33,126" in prevalence.source
    assert prevalence.value == pytest.approx(584 / 33126, abs=5e-5)
    assert load_recipe("lesion_unet").prevalence is None


def test_a_table_takes_the_place_of_the_whole_table_below_where_it_says_so() -> None:
    base, varied = load_recipe("lesion_lite"), load_recipe("lesion_lite_varied")
    assert "rotate_deg" in base.augment and varied.augment == {"kind": "dermoscope"}
    assert varied.schedule.frozen == base.schedule.frozen and varied.schedule.steps != base.schedule.steps
    assert varied.input == base.input and varied.card == base.card
    merged = load_recipe("head_ct_wide_start").augment
    assert merged["kind"] == "head" and merged["rotate_deg"] == load_recipe("head_ct_start").augment["rotate_deg"]
