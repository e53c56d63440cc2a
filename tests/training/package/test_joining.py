"""Networks joined into one: the mean of their outputs, from folds or from packages, with class maps and a package."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.builders.toy_runs import ToyRun, recipe_of
from training.fit.teacher import checkpoint_of
from training.fit.transfer import WeightsError, load_start
from training.package.joining import JoiningError, join, join_packages, with_members
from training.package.order import Order
from training.package.writing import write_package
from training.recipe import RecipeError, load_recipe
from training.train import train_all, write_recipe
from worker.packages.card import Card, ColourConstancy, InputSpec
from worker.packages.networks import build
from worker.packages.networks.joined import prefix
from worker.packages.package import load
from worker.packages.runtimes.folding import fold
from worker.packages.runtimes.tensorflow import Package
from worker.packages.weights import save_by_layer

TINY = {"builder": "tiny_classifier", "width": 4}


def test_joined_outputs_are_the_mean_and_class_maps_come_from_all_members() -> None:
    spec = InputSpec(kind="grey", height=32, width=32)
    members = [build.build({**TINY, "classes": 2}, spec) for _ in range(2)]
    architecture = {"builder": "joined", "classes": 2, "members": [TINY, TINY]}
    card = Card(
        name="toy",
        version="1",
        pipeline="chest_xray",
        task="toy",
        labels=["a", "b"],
        input=spec,
        architecture=architecture,
    )
    model = build.build(architecture, spec)
    for index, member in enumerate(members):
        for layer in model.layers:
            if layer.name.startswith(f"m{index}_") and layer.weights:
                layer.set_weights(member.get_layer(layer.name[3:]).get_weights())
    x = np.random.default_rng(0).random((3, 32, 32, 1), dtype=np.float32)
    singly = np.mean([member.predict_on_batch(x)["logits"] for member in members], axis=0)
    package = Package(card, fold(model))
    np.testing.assert_allclose(fold(model).predict_on_batch(x)["logits"], singly, atol=1e-5)
    maps, slopes = package.slopes(x, "a")
    assert maps.shape == slopes.shape == (3, 4, 4, 2 * members[0].get_layer("pool").input.shape[-1])
    assert package.gradients(x, "a").shape == (3, 4, 4)


def test_the_folds_networks_ship_together(toy_run: ToyRun, toy_data: Path, tmp_path: Path) -> None:
    package = load(toy_run.package)
    assert [member["builder"] for member in package.card.architecture["members"]] == ["tiny_unet", "tiny_unet"]
    assert not (toy_run.out / "final" / "checkpoint.npz").exists(), "no further network is trained"
    assert "folds" in package.card.training_data["split"]

    with pytest.raises(RecipeError, match="leave --join out"):
        train_all(Order(toy_run.recipe, toy_data, tmp_path, join=(toy_run.package, toy_run.package)))


def test_foreign_members_are_refused(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, 5)
    other = build.build({"builder": "tiny_classifier", "classes": 6}, recipe.input)
    with pytest.raises(JoiningError, match="does not fit"):
        join(with_members(recipe, [{"builder": "tiny_unet"}]), [other])


def test_a_start_without_folds_serves_every_fold_unless_it_saw_their_patients(toy_data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, 5)
    plain = recipe.folds.model_copy(update={"names": ()})
    shares = {"phe_sich:any=1": 1.0}
    apart = recipe.model_copy(update={"folds": plain, "datasets": {"phe_sich": "phe_sich"}, "shares": shares})
    assert train_all(Order(apart, toy_data, tmp_path / "apart")) is None, "without folds there is no package"
    assert checkpoint_of(tmp_path / "apart", "fold_0", "ct_ich") == tmp_path / "apart" / "final" / "checkpoint.npz"
    shutil.copytree(tmp_path / "apart", tmp_path / "seen")
    write_recipe(recipe.model_copy(update={"folds": plain}), tmp_path / "seen")
    with pytest.raises(WeightsError, match="fold_0"):
        checkpoint_of(tmp_path / "seen", "fold_0", "ct_ich")


def test_packages_join_under_a_recipe_without_a_network_of_its_own(tmp_path: Path) -> None:
    spec = load_recipe("lesion_pair").input.model_copy(update={"height": 16, "width": 16})
    recipe = load_recipe("lesion_pair").model_copy(update={"input": spec})
    singles = []
    for version in ("1.0.0", "1.1.0"):
        own = {**TINY, "classes": 7, "softmax_groups": [[0, 1, 2, 3, 4, 5, 6]]}
        card = Card(
            name="tiny",
            version=version,
            pipeline="dermoscopy",
            task="lesion",
            labels=list(recipe.labels),
            input=spec,
            architecture=own,
        )
        singles.append(write_package(tmp_path / "tiny" / version, build.build(own, spec), card, "none"))
    with pytest.raises(RecipeError, match="give --join"):
        train_all(Order(recipe, tmp_path, tmp_path / "run"))
    paths = tuple(tmp_path / "tiny" / version for version in ("1.0.0", "1.1.0"))
    order, model = join_packages(Order(recipe, tmp_path, tmp_path / "run", join=paths))
    assert [member["trained"] for member in order.recipe.architecture["members"]] == ["as tiny/1.0.0", "as tiny/1.1.0"]
    x = np.random.default_rng(0).random((2, 16, 16, 3), dtype=np.float32)
    singly = np.mean([single.model.predict_on_batch(x)["logits"] for single in singles], axis=0)
    np.testing.assert_allclose(model.predict_on_batch(x)["logits"], singly, atol=1e-4)
    other = recipe.model_copy(update={"labels": ("dx_mel",)})
    light = ColourConstancy(norm=6, reference=(0.7, 0.6, 0.6))
    levelled = recipe.model_copy(update={"input": spec.model_copy(update={"colours": light})})
    for foreign in (other, levelled):
        with pytest.raises(JoiningError, match="other labels or another input"):
            join_packages(Order(foreign, tmp_path, tmp_path / "run", join=paths))


def test_a_member_of_a_joined_package_starts_a_network_of_its_own(tmp_path: Path) -> None:
    spec = InputSpec(kind="grey", height=32, width=32)
    wide, narrow = ({**TINY, "classes": 2, "width": width} for width in (6, 4))
    members = [build.build(architecture, spec) for architecture in (wide, narrow)]
    joined = build.build({"builder": "joined", "classes": 2, "members": [{**TINY, "width": 6}, TINY]}, spec)
    for index, member in enumerate(members):
        for layer in joined.layers:
            if layer.name.startswith(prefix(index)) and layer.weights:
                layer.set_weights(member.get_layer(layer.name.removeprefix(prefix(index))).get_weights())
    save_by_layer(joined, tmp_path / "weights.npz", dtype="float32")
    fresh = build.build(narrow, spec)
    load_start(fresh, str(tmp_path / "weights.npz"), "tiny_classifier")
    x = np.random.default_rng(0).random((2, 32, 32, 1), dtype=np.float32)
    np.testing.assert_allclose(fresh.predict_on_batch(x)["logits"], members[1].predict_on_batch(x)["logits"], atol=1e-6)
    again = build.build({"builder": "joined", "classes": 2, "members": [{**TINY, "width": 6}, TINY]}, spec)
    load_start(again, str(tmp_path / "weights.npz"), "joined")
    np.testing.assert_allclose(again.predict_on_batch(x)["logits"], joined.predict_on_batch(x)["logits"], atol=1e-6)
    with pytest.raises(WeightsError, match="does not fit"):
        load_start(build.build({**narrow, "width": 5}, spec), str(tmp_path / "weights.npz"), "tiny_classifier")
