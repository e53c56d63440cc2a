"""Every network that a shipped recipe names trains, packs, loads and scores.

Those that can be made small run here as toys. The whole published networks run on tiny pictures in ``make soak``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.recipe_networks import SMALLER, joined, packed, recipes_by_network, shrunk, trained
from training.fit.structure import layer_table
from training.recipe import Recipe, load_recipe
from worker.packages.runtimes.tensorflow import Package

NETWORKS = recipes_by_network()
TOYS = {network: name for network, name in NETWORKS.items() if network.split()[0] in SMALLER}
WHOLE = {
    network: name
    for network, name in NETWORKS.items()
    if network.split()[0] in ("keras_transfer", "inception_v3_classifier", "lesion_resnet50")
}

PARAMETERS = {"keras_transfer EfficientNetB7": 67_394_715}
"""64,097,687 of the base, and a head of 1024, 512, 256 and four outputs with batch normalization throughout."""


def require_scores(package: Package, recipe: Recipe, model: Any) -> None:
    """What comes out of the package is finite, of the right shape, and what the trained network gives."""
    spec = recipe.input
    x = np.random.default_rng(1).random((2, spec.height, spec.width, spec.channels), dtype=np.float32)
    out = package.predict(x)
    plain = model(x, training=False)  # no graph for two pictures
    if recipe.labels:
        assert out["p"].shape == (2, len(recipe.labels)) and np.isfinite(out["p"]).all()
        np.testing.assert_allclose(out["p_raw"], out["p"], atol=1e-6)
        logits = np.asarray(plain["logits"])
        groups = recipe.architecture.get("softmax_groups") or []
        if not groups:
            np.testing.assert_allclose(out["p"], 1 / (1 + np.exp(-logits)), atol=0.02)
        else:
            np.testing.assert_allclose(out["p"].argmax(axis=1), logits.argmax(axis=1))
    if "mask_logits" in recipe.losses:
        assert out["mask"].shape[0] == 2 and out["mask"].ndim == 3
        np.testing.assert_allclose(out["mask"], 1 / (1 + np.exp(-np.asarray(plain["mask_logits"]))), atol=0.02)


def test_no_network_of_a_recipe_is_left_out() -> None:
    assert {network.split()[0] for network in NETWORKS} == {
        *SMALLER,
        *("keras_transfer", "inception_v3_classifier", "joined"),
    }
    assert set(TOYS) | set(WHOLE) | {"joined"} == set(NETWORKS)
    assert {"keras_transfer ResNet50", "keras_transfer InceptionResNetV2", "keras_transfer EfficientNetB7"} < set(WHOLE)


@pytest.mark.parametrize("network", TOYS)
def test_a_toy_of_it_trains_packs_loads_and_scores(network: str, tmp_path: Path) -> None:
    recipe = shrunk(load_recipe(TOYS[network]), whole=False)
    model = trained(recipe, tmp_path / "run")
    require_scores(packed(recipe, model, tmp_path / "package"), recipe, model)
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert 0 <= row["accuracy" if recipe.labels else "iou"] <= 1, "of an epoch, whatever else the network gives"


@pytest.mark.parametrize(("name", "member"), [("lesion_pair", "lesion_lite"), ("pneumonia4_pair", "pneumonia4_short")])
def test_joined_networks_pack_load_and_score(name: str, member: str, tmp_path: Path) -> None:
    recipe, model = joined(load_recipe(name), shrunk(load_recipe(member), whole=False), tmp_path)
    require_scores(packed(recipe, model, tmp_path / "package"), recipe, model)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("network", WHOLE)
def test_the_whole_network_trains_packs_loads_and_scores(network: str, tmp_path: Path) -> None:
    recipe = shrunk(load_recipe(WHOLE[network]), whole=True)
    model = trained(recipe, tmp_path / "run")
    require_scores(packed(recipe, model, tmp_path / "package"), recipe, model)
    if network in PARAMETERS:
        assert f"\nparameters: {PARAMETERS[network]:,}\n" in layer_table(model)
