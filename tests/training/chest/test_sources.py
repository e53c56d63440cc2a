"""Collections of adults, hospitals that are left out, shares by attribute, the shared network, figures by source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from firstread_cli.training import train
from tests.builders.chest import covid_folder, kermany_folder, nih_folder, radiography_folder
from training.chest.by_source import Said, by_source
from training.chest.readers import kind_of
from training.chest.shared import recipe_of, with_columns
from training.chest.sources import source_rows, sources
from training.datasets.arrays import load_arrays
from training.datasets.base import EXTERNAL, DataSetError, Item, gathered
from training.datasets.registry import open_dataset
from training.fit.adversary import source_targets, with_adversary, without_adversary
from training.fit.batches import groups_by
from training.fit.losses import LOSSES
from training.fit.model import build_model, predict_batch
from training.recipe import Adversary, Recipe, load_recipe
from worker.packages.card import InputSpec

SMALL = InputSpec(kind="grey", height=32, width=32, levels=(1.0, 99.0))


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("films")
    kermany_folder(root / "kermany224", each=3)
    covid_folder(root / "covid_ieee8023", each=2)
    nih_folder(root / "nih")
    radiography_folder(root / "radiography")
    return root


def test_what_radiologists_said_is_the_truth_and_text_mined_pneumonia_is_not_used(collections: Path) -> None:
    items = open_dataset("nih", collections / "nih").items()
    kinds = {kind: [item for item in items if item.attributes["kind"] == kind] for kind in ("opacity", "not_normal")}
    assert len(kinds["opacity"]) == len(kinds["not_normal"]) == 12
    assert kinds["opacity"][0].labels == {"normal": 0, "bacterial": 1, "viral": 1, "covid19": 1, "pneumonia": 1}
    assert kinds["not_normal"][0].labels == {"normal": 0, "pneumonia": 0}
    assert sum(item.attributes["kind"] == "normal" for item in items) == 24
    unused = [item for item in items if not item.usable]
    assert {item.attributes["finding"] for item in unused} == {"Pneumonia"} and len(unused) == 12
    assert {item.attributes["age_group"] for item in items} == {"adult", "child"}
    assert {item.split for item in items} == {"train", "val", "test"}


def test_normals_of_the_radiography_database_are_of_the_hospital_of_chestxray14(collections: Path) -> None:
    items = open_dataset("radiography", collections / "radiography").items()
    assert {(item.attributes["kind"], item.attributes["hospital"]) for item in items} == {
        ("normal", "nih"),
        ("covid19", "radiography"),
    }
    assert {item.attributes["hospital"] for item in open_dataset("nih", collections / "nih").items()} == {"nih"}


def test_a_film_of_a_child_under_the_name_of_an_adult_of_another_hospital_is_not_used(tmp_path: Path) -> None:
    kermany = kermany_folder(tmp_path / "kermany224", each=3)
    radiography = radiography_folder(tmp_path / "radiography")
    copied = radiography / "images/normal-3.png"
    shutil.copy(next((kermany / "images").glob("train_NORMAL*")), copied)
    datasets = [open_dataset("kermany", kermany), open_dataset("radiography", radiography)]
    items = gathered(datasets, ["nih"])
    (copy,) = (item for item in items if item.path == copied)
    assert not copy.usable and not copy.labels
    assert {item.attributes["hospital"] for item in items if item.split == EXTERNAL and item.labels} == {"nih"}


def test_a_folder_of_all_collections_knows_each_by_its_columns(collections: Path) -> None:
    assert {item.dataset for item in open_dataset("chest_films", collections).items()} == {
        "kermany",
        "covid_chestxray",
        "nih",
        "radiography",
    }


def test_a_hospital_that_is_left_out_lies_in_no_part_of_the_training(collections: Path) -> None:
    datasets = [open_dataset(name, collections / name) for name in ("nih", "radiography")]
    items = gathered(datasets, ["nih"])
    assert all((item.split == EXTERNAL) == (item.attributes["hospital"] == "nih") for item in items)
    with pytest.raises(DataSetError, match="no hospital elsewhere"):
        gathered(datasets, ["elsewhere"])


def test_shares_name_attributes_of_the_films(collections: Path) -> None:
    arrays = load_arrays([open_dataset("nih", collections / "nih")], SMALL, ["pneumonia"])
    rows = np.arange(len(arrays))
    shares = {"nih:kind=opacity,view=AP": 0.2, "*:hospital=nih,pneumonia=0": 0.6, "*:kind=covid19": 0.2}
    first, second = groups_by(arrays, rows, shares, patients_first=False)
    assert {(arrays.items[i].attributes["kind"], arrays.items[i].attributes["view"]) for i in first.rows} == {
        ("opacity", "AP")
    }
    assert len(second.rows) == 36
    assert first.share == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ({"normal": 0.0, "bacterial": 1.0, "viral": 1.0, "covid19": 0.0, "pneumonia": 1.0}, "pneumonia"),
        ({"normal": 1.0, "bacterial": 1.0, "viral": 1.0, "covid19": 0.0}, "not_covid"),
        ({}, ""),
    ],
)
def test_kinds_of_labels(labels: dict[str, float], kind: str) -> None:
    assert kind_of(labels) == kind


def test_a_loss_of_columns_is_the_sum_of_its_parts() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 3)).astype(np.float32)
    truth = np.asarray([[1, 0, 1], [0, 1, 0], [-1, 0, 0], [1, 1, 1], [0, 1, -1], [1, 0, 0]], dtype=np.float32)
    parts = [
        {"columns": [0, 1], "name": "softmax_allowed", "options": {"smoothing": 0.1}},
        {"columns": [2], "name": "masked_bce", "weight": 0.5},
    ]
    both = np.asarray(LOSSES["columns"](parts=parts)(truth, logits))
    four = np.asarray(LOSSES["softmax_allowed"](smoothing=0.1)(truth[:, :2], logits[:, :2]))
    binary = np.asarray(LOSSES["masked_bce"]()(truth[:, 2:], logits[:, 2:]))
    assert both == pytest.approx(four + 0.5 * binary)


def test_figures_by_source_speak_of_age_kind_view_and_of_adults_of_one_hospital() -> None:
    def film(number: int, kind: str, view: str) -> Item:
        attributes = {"hospital": "nih", "kind": kind, "view": view, "age_group": "adult"}
        return Item("nih", f"{number}", Path("x"), f"p{number}", "s", attributes=attributes)

    items = [film(i, "opacity" if i < 6 else "normal", "AP" if i % 2 else "PA") for i in range(18)]
    p = np.linspace(0.9, 0.1, 18)
    table = by_source(items, Said(p, p > 0.7, np.eye(4)[[3] * 6 + [0] * 12]), repeats=50)["nih"]
    assert table["kinds"] == ["normal", "opacity"]
    assert table["adults"]["opacity_against_no_finding"]["auc"]["value"] == 1.0
    assert "opacity_against_ill_without_opacity" not in table["adults"]
    assert table["films"]["adult opacity"]["called"]["covid19"]["value"] == 1.0
    assert table["films"]["adult normal"]["flagged"]["value"] == 0.0
    assert table["films"]["adult opacity AP"]["n"] == 3


def test_a_package_of_a_shared_network_gives_the_columns_of_its_labels() -> None:
    recipe = load_recipe("pneumonia_shared")
    recipe = recipe.model_copy(update={"input": SMALL})
    model = build_model(recipe, "none")
    x = np.random.default_rng(0).random((2, 32, 32, 1), dtype=np.float32)
    whole = predict_batch(model, x)
    for name, columns in (("pneumonia_cnn", [0]), ("pneumonia4", [1, 2, 3, 4])):
        own = recipe_of(recipe, name, recipe.packages[name])
        assert predict_batch(with_columns(model, own, columns), x) == pytest.approx(whole[:, columns], abs=1e-6)
    assert own.architecture["softmax_groups"] == [[0, 1, 2, 3]]
    assert own.card["licence"] == "CC-BY-NC-4.0"


def toy(recipe: Recipe, tmp_path: Path, **changes: object) -> Path:
    """The recipe for two steps on small films, as a file."""
    small = json.loads(recipe.model_dump_json())
    small["adversary"]["layer"] = "pool"
    small["input"] |= {"height": 32, "width": 32}
    small["architecture"] = {
        "builder": "pneumonia_cnn",
        "classes": 5,
        "filters": [4, 4],
        "dense": [4],
        "dropout": [0.1],
    }
    small["schedule"] |= {"steps": 2, "steps_per_epoch": 2, "batch_size": 16, "ema": 0.0}
    path = tmp_path / "toy.toml"
    path.write_text(_toml(small | changes), encoding="utf-8")
    return path


def _toml(values: dict[str, object]) -> str:
    """A recipe as TOML with inline tables alone; what is None is left out."""

    def one(value: object) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {one(v)}" for k, v in value.items() if v is not None) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(one(v) for v in value) + "]"
        return json.dumps(value)

    return "\n".join(f"{name} = {one(value)}" for name, value in values.items() if value is not None) + "\n"


def test_the_shared_network_becomes_two_packages_that_say_what_it_said(collections: Path, tmp_path: Path) -> None:
    recipe = toy(load_recipe("pneumonia_shared_adversary"), tmp_path)
    arguments = [str(recipe), "--data", str(collections), "--out", str(tmp_path / "run"), "--leave-out", "nih"]
    result = CliRunner().invoke(train, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    cards = {
        name: json.loads(next((tmp_path / "run" / name).rglob("card.json")).read_text())
        for name in ("pneumonia_cnn", "pneumonia4")
    }
    assert cards["pneumonia4"]["labels"] == ["normal", "bacterial", "viral", "covid19"]
    assert cards["pneumonia_cnn"]["labels"] == ["pneumonia"]
    for card in cards.values():
        assert next(iter(card["metrics"])) == "external_by_source"
        assert list(card["metrics"]["external_by_source"]) == ["nih"]
        assert card["training_data"]["nih_train"]["films"] == 0
    folders = [str(next((tmp_path / "run" / name / "package").glob("*/*"))) for name in cards]
    arguments = [*folders, "--data", str(collections), "--split", "all", "--hospital", "nih", "--out", str(tmp_path)]
    result = CliRunner().invoke(sources, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "sources.json").read_text())["rows"]
    assert {row["hospital"] for row in rows} == {"nih"}
    assert {row["package"] for row in rows} == {"pneumonia_cnn/1.0.0", "pneumonia4/1.0.0"}
    opacity = next(row for row in rows if row["films"] == "adult opacity AP")
    assert opacity["flagged"]["n"] + opacity.get("without_threshold", 0) == opacity["n"]


def test_figures_of_a_run_that_left_a_hospital_out_come_first_on_the_cards_of_what_ships(
    collections: Path, tmp_path: Path
) -> None:
    recipe = str(toy(load_recipe("pneumonia_shared_adversary"), tmp_path))
    common = [recipe, "--data", str(collections), "--out"]
    absent = CliRunner().invoke(train, [*common, str(tmp_path / "ships"), "--external", str(tmp_path)])
    assert isinstance(absent.exception, DataSetError) and "holds no package" in str(absent.exception)
    for arguments in (["elsewhere", "--leave-out", "nih"], ["ships", "--external", str(tmp_path / "elsewhere")]):
        result = CliRunner().invoke(
            train, [*common, str(tmp_path / arguments[0]), *arguments[1:]], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
    for name in ("pneumonia_cnn", "pneumonia4"):
        cards = {
            run: json.loads(next((tmp_path / run / name / "package").rglob("card.json")).read_text())
            for run in ("elsewhere", "ships")
        }
        assert next(iter(cards["ships"]["metrics"])) == "left_out"
        table = cards["ships"]["metrics"]["left_out"]["nih, 2 steps"]
        assert table == cards["elsewhere"]["metrics"]["external_by_source"]["nih"]
        assert cards["ships"]["training_data"]["nih_train"]["films"] > 0


def test_features_that_hold_the_hospital_tell_it_and_noise_does_not() -> None:
    rng = np.random.default_rng(0)
    items = [
        Item(
            "x",
            f"{i}",
            Path("x"),
            f"p{i // 2}",
            "s",
            attributes={"kind": "covid19", "age_group": "adult", "hospital": "papers" if i // 2 % 2 else "radiography"},
        )
        for i in range(80)
    ]
    noise = rng.normal(size=(80, 12))
    told = noise.copy()
    told[:, 3] += [4.0 * (item.attributes["hospital"] == "papers") for item in items]
    (row,) = source_rows(told, items)
    assert row["films"] == "adult covid19" and row["auc"]["value"] > 0.95
    assert source_rows(noise, items)[0]["auc"]["value"] < 0.75


def test_an_adversary_guesses_within_a_kind_and_an_age_group() -> None:
    def film(kind: str, hospital: str, age: str = "adult", split: str = "train") -> Item:
        attributes = {"kind": kind, "hospital": hospital, "age_group": age}
        return Item("x", "k", Path("x"), "p", "s", split=split, attributes=attributes)

    items = [
        film("covid19", "papers"),
        film("covid19", "radiography"),
        film("normal", "nih"),
        film("normal", "guangzhou", "child"),
        film("normal", "papers", split="val"),
    ]
    targets = source_targets(items, ["guangzhou", "nih", "papers", "radiography"])
    assert targets.tolist() == [[-1, -1, 1, 0], [-1, -1, 0, 1], [-1] * 4, [-1] * 4, [-1] * 4]
    logits = np.asarray([[9.0, 9.0, 2.0, 2.0]] * 5, dtype=np.float32)
    assert np.asarray(LOSSES["softmax_within"]()(targets, logits)) == pytest.approx(np.log(2), abs=1e-5)


def test_an_adversary_teaches_the_encoder_the_opposite_and_is_gone_afterwards() -> None:
    import keras
    import tensorflow as tf

    inputs = keras.Input((4,), name="image")
    seen = keras.layers.Dense(3, name="dropout")(inputs)
    model = keras.Model(inputs, {"logits": keras.layers.Dense(2, name="logits")(seen)})
    adversary = Adversary(hospitals=("a", "b"), strength=0.5, width=3)
    both = with_adversary(model, adversary)
    plain = keras.Model(
        inputs, both.get_layer("source")(both.get_layer("source_dense")(model.get_layer("dropout").output))
    )
    x, encoder = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32), model.get_layer("dropout").kernel
    with tf.GradientTape(persistent=True) as tape:
        turned, straight = tf.reduce_sum(both(x)["source"] ** 2), tf.reduce_sum(plain(x) ** 2)
    assert float(turned) == pytest.approx(float(straight), rel=1e-5)
    assert np.allclose(tape.gradient(turned, encoder), -0.5 * tape.gradient(straight, encoder), rtol=1e-4, atol=1e-5)
    assert set(without_adversary(both).output) == {"logits"}


def test_a_recipe_with_a_base_says_only_what_differs() -> None:
    base, other = load_recipe("pneumonia_shared"), load_recipe("pneumonia_shared_adversary")
    assert other.adversary is not None and set(other.losses) == {"logits", "source"}
    assert other.model_copy(update={"name": base.name, "adversary": None, "losses": base.losses}) == base
