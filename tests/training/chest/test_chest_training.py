"""Readers, augmentation, loss, calibration, figures, package and comparison of chest films, on drawn films."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from firstread.phantoms.chest import FilmSpec
from tests.builders.chest import covid_folder, film_ds, kermany_folder, received, write_film
from tests.builders.report_pages import sizes_below
from training.augmentation.films import FilmAugment, lower_resolution, trimmed
from training.augmentation.kinds import augment_from
from training.chest.calibration import binary_points, fit_softmax, softmax_p
from training.chest.figures import adults_without_covid, four_class_figures, four_class_truth, share_of
from training.chest.labels import CLASSES, labels_of
from training.chest.readers import class_of, kermany_patient
from training.chest.stress import CHANGES, stress_rows
from training.chest.suites import BIG, BUDGETS, SUITES, UNCHANGED, Budget, Variant, recipe_of, start_of, suite
from training.datasets.base import DataSetError, Item
from training.datasets.registry import open_dataset
from training.evaluation.cases import DOUBT, SUREST
from training.evaluation.pictures import logged
from training.evaluation.report import markdown
from training.fit.class_weights import with_class_weights
from training.fit.loop import train
from training.fit.measures import proportions
from training.fit.run import Run
from training.fit.structure import layer_table, parts
from training.fit.transfer import copy_layers
from training.package.order import Order
from training.recipe import load_recipe
from training.train import train_all
from worker.packages.card import InputSpec
from worker.packages.operating_points import OperatingPointByAge
from worker.packages.package import load
from worker.packages.runtimes.folding import fold
from worker.packages.weights import load_by_layer, save_by_layer, settle


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        ("No Finding", "normal"),
        ("Streptococcus", "bacterial"),
        ("SARS", "viral"),
        ("COVID-19, ARDS", "covid19"),
        ("Viral Pneumonia", "viral"),
        ("Mycoplasma Bacterial Pneumonia", "bacterial"),
        ("Pneumocystis", None),
        ("Pneumonia", None),
        ("Unknown", None),
    ],
)
def test_findings_as_collections_write_them(finding: str, expected: str | None) -> None:
    item = Item("x", "x", Path("x"), "p", "s", labels=labels_of(finding))
    assert class_of(item) == expected
    if finding == "Pneumocystis":
        assert item.labels == {"normal": 0.0, "bacterial": 1.0, "viral": 1.0, "covid19": 0.0, "pneumonia": 1.0}
    if finding == "Unknown":
        assert not item.labels


def test_kermany_as_distributed_has_kind_and_patient_in_the_name(tmp_path: Path) -> None:
    for name in (
        "train/PNEUMONIA/person23_bacteria_78.jpeg",
        "train/PNEUMONIA/person23_virus_79.jpeg",
        "test/PNEUMONIA/person23_virus_5.jpeg",
        "val/NORMAL/NORMAL2-IM-0927-0001.jpeg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_film(tmp_path / name, FilmSpec(size=64), 1)
    (tmp_path / "train/NORMAL").mkdir()
    (tmp_path / "train/NORMAL/.DS_Store").write_bytes(b"x")
    items = {item.key: item for item in open_dataset("kermany", tmp_path).items()}
    assert len(items) == 4
    assert class_of(items["train/PNEUMONIA/person23_bacteria_78.jpeg"]) == "bacterial"
    assert items["train/PNEUMONIA/person23_virus_79.jpeg"].patient == "person23"
    assert items["test/PNEUMONIA/person23_virus_5.jpeg"].patient == "test-person23"
    assert items["val/NORMAL/NORMAL2-IM-0927-0001.jpeg"].patient == kermany_patient("NORMAL2-IM-0927-0001.jpeg", "val")


def test_patients_are_kept_apart_across_collections(tmp_path: Path) -> None:
    kermany_folder(tmp_path / "kermany", each=2)
    for folder in ("normal", "COVID-19"):
        (tmp_path / "four" / folder).mkdir(parents=True)
    known = cv2.imread(str(tmp_path / "kermany/images/test_NORMAL_0.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(tmp_path / "four/normal/renamed.jpg"), cv2.resize(known, (80, 80), interpolation=cv2.INTER_AREA))
    write_film(tmp_path / "four/COVID-19/new.png", FilmSpec(size=96, opacity=True), 99)
    items = {item.path.name: item for item in open_dataset("chest_films", tmp_path).items()}
    assert len(items) == 18 + 2
    assert items["renamed.jpg"].split == items["test_NORMAL_0.png"].split == "test"
    assert class_of(items["new.png"]) == "covid19"


def test_a_csv_may_name_dicom_films_and_leaves_laterals_aside(tmp_path: Path) -> None:
    received(tmp_path, film_ds(), 1)
    rows = ["file,finding,patient,age,view", "1.dcm,Streptococcus,a,44,PA", "2.dcm,Normal,b,3,LL"]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    dataset = open_dataset("chest_csv", tmp_path)
    (item,) = dataset.items()
    assert item.attributes["age_group"] == "adult"
    assert dataset.pixels(item).shape == (256, 256)
    (tmp_path / "labels.csv").write_text("file,finding\n../secret.png,Normal\n")
    with pytest.raises(DataSetError):
        dataset.items()


def test_an_empty_folder_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataSetError):
        open_dataset("chest_films", tmp_path)


def test_augmentation_keeps_shape_and_range_and_none_changes_nothing() -> None:
    film = np.random.default_rng(0).random((64, 64, 1), dtype=np.float32)
    rng = np.random.default_rng(1)
    for _ in range(30):
        changed, _ = FilmAugment(border=1, objects=1, erase=1, noise=1, low_res=1, trim=1).apply(film, None, rng)
        assert changed.shape == film.shape
        assert changed.dtype == np.float32
        assert 0 <= changed.min() <= changed.max() <= 1
    spec = InputSpec(kind="grey", height=64, width=64)
    same, _ = augment_from({"kind": "film", **UNCHANGED}, spec).apply(film, None, rng)
    assert np.allclose(same, film, atol=1e-5)
    assert lower_resolution(film[..., 0], 16).std() < film.std()


def test_a_trimmed_film_is_larger_than_life_and_loses_at_most_a_tenth_of_a_side() -> None:
    film = np.tile(np.arange(80, dtype=np.float32), (80, 1))
    shrunk = [trimmed(film, np.random.default_rng(seed)) for seed in range(20)]
    for image in shrunk:
        assert image.shape == film.shape
        assert image[0, 0] < 8 and image[0, -1] > 71
        assert image[0, -1] - image[0, 0] < 79
    assert len({float(image[0, 0]) for image in shrunk}) > 3


def test_a_film_that_may_be_several_classes_costs_the_sum_of_them() -> None:
    from keras import ops

    from training.fit.losses import softmax_allowed

    logits = ops.convert_to_tensor(np.log(np.array([[0.1, 0.2, 0.3, 0.4]], dtype=np.float32)))
    one, two, unknown = ([[0, 0, 0, 1]], [[0, 1, 1, 0]], [[0, 1, -1, 0]])
    cost = [
        float(softmax_allowed()(ops.convert_to_tensor(np.array(y, np.float32)), logits)) for y in (one, two, unknown)
    ]
    assert cost == pytest.approx([-np.log(0.4), -np.log(0.5), 0.0], abs=1e-4)


def test_calibration_moves_a_shifted_class_back() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 600)
    logits = rng.normal(0, 1, (600, 4)).astype(np.float32)
    logits[np.arange(600), truth] += 2.0
    logits[:, 3] += 2.5
    calibration = fit_softmax(logits, np.eye(4)[truth], np.ones(600), CLASSES)
    assert calibration.bias["covid19"] - calibration.bias["normal"] == pytest.approx(2.5, abs=0.5)
    p = softmax_p(logits, calibration, CLASSES)
    assert np.mean(p.argmax(1) == truth) > np.mean(logits.argmax(1) == truth) + 0.05


def test_operating_points_keep_what_they_promise() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    p = np.clip(0.3 * y + rng.normal(0.35, 0.15, 400), 0, 1)
    points = binary_points(y, p)
    assert np.mean(p[y == 1] >= points["sensitive"].threshold) >= 0.97
    assert points["flag"].sensitivity is not None
    assert points["flag"].threshold > points["sensitive"].threshold


def _items() -> list[Item]:
    rows = [
        ("No Finding", "adult"),
        ("Streptococcus", "adult"),
        ("Pneumocystis", "adult"),
        ("COVID-19", "adult"),
        ("normal", "child"),
        ("viral", "child"),
    ]
    return [
        Item(
            "d",
            str(i),
            Path("x"),
            f"p{i}",
            f"s{i}",
            labels=labels_of(finding),
            attributes={"finding": finding, "age_group": group},
        )
        for i, (finding, group) in enumerate(rows)
    ]


def test_the_four_class_test_leaves_out_adults_without_finding_and_other_germs() -> None:
    items = _items()
    assert four_class_truth(items).tolist() == [-1, 1, -1, 3, 0, 2]
    called = np.array([3, 3, 1, 3, 0, 2])
    table = adults_without_covid(items, called)
    assert table["called_covid"]["value"] == pytest.approx(2 / 3)
    assert table["by_finding"]["No Finding"] == {"n": 1, "covid19": 1}
    pooled = table["pooled"]
    assert {name: row["n"] for name, row in pooled.items()} == {
        "all": 3,
        "without finding": 1,
        "bacterial": 1,
        "other germ": 1,
    }
    assert pooled["bacterial"]["called_covid"]["value"] == 1.0
    assert pooled["bacterial"]["called_what_it_is"]["value"] == 0.0
    assert pooled["bacterial"]["called_covid"]["low"] < 0.9
    assert "called_what_it_is" not in pooled["other germ"]
    p = np.eye(4)[called]
    figures = four_class_figures(items, p, repeats=20)
    assert figures["four_classes"]["n"] == 4
    assert figures["four_classes"]["accuracy"]["value"] == pytest.approx(3 / 4)
    assert figures["by_class"]["covid19"]["recall"]["value"] == 1.0


@pytest.mark.parametrize("name", ["pneumonia4", "pneumonia4_start", "pneumonia_cnn", *BIG])
def test_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.pipeline == "chest_xray"
    assert recipe.card["limits"]


def test_the_published_head_on_efficientnet_b7_has_the_published_parameters() -> None:
    from worker.packages.networks import build

    recipe = load_recipe("pneumonia4_efficientnetb7")
    model = build.build(recipe.architecture, recipe.input)
    assert model.count_params() == 67_394_715
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == 67_075_284
    assert "\nparameters: 67,394,715\ntrained: 67,075,284\n" in layer_table(model)
    blocks = list(parts(model)[0])
    assert blocks[:3] == ["image", "grey", "to"] and {"block1a", "block7d", "dense0", "logits"} <= set(blocks)
    assert model.input_shape == (None, 256, 256, 1)


def test_class_maps_average_to_the_logits() -> None:
    from keras import ops

    from worker.packages.networks import build

    spec = InputSpec(kind="grey", height=64, width=64)
    for stride in (16, 32):
        architecture: dict[str, Any] = {"builder": "effnet_lite_chest", "classes": 4, "stride": stride}
        out = build.build(architecture, spec)(np.random.default_rng(0).random((2, 64, 64, 1), dtype=np.float32))
        maps = ops.convert_to_numpy(out["maps"])
        assert maps.shape == (2, 64 // stride, 64 // stride, 4)
        assert np.allclose(maps.mean(axis=(1, 2)), ops.convert_to_numpy(out["logits"]), atol=1e-5)


def test_unknown_base_or_head_is_refused() -> None:
    from worker.packages.networks import build

    with pytest.raises(ValueError, match="no base"):
        build.build(
            {"builder": "keras_transfer", "classes": 4, "base": "VGG16"}, InputSpec(kind="grey", height=64, width=64)
        )


def test_intervals_of_shares_are_by_patient() -> None:
    hits = np.array([True] * 30 + [False] * 30)
    apart, together = (share_of(hits, np.arange(60) // per, 200) for per in (1, 15))
    assert apart["value"] == together["value"] == 0.5
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])
    assert (together["n"], together["patients"]) == (60, 4)
    sure = share_of(np.ones(60, dtype=bool), np.arange(60) // 15)
    assert sure["value"] == 1.0 and sure["low"] < 0.6
    assert share_of(np.zeros(0, dtype=bool), np.zeros(0))["value"] is None


def test_validation_figures_of_an_epoch() -> None:
    found = proportions([0, 0, 1, 1], [0, 1, 1, 1], 2)
    assert found == {"val_accuracy": 0.75, "val_precision": pytest.approx(2 / 3), "val_recall": 1.0}
    several = proportions([0, 1, 2, 2], [0, 1, 1, 2], 3)
    assert several["val_recall"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert proportions([0], [0], 2) == {"val_accuracy": 1.0}


def _toy(name: str) -> dict[str, Any]:
    recipe = load_recipe(name)
    schedule = recipe.schedule.model_copy(update={"steps": 4, "steps_per_epoch": 2, "batch_size": 8, "warmup_steps": 1})
    spec = recipe.input.model_copy(update={"height": 32, "width": 32})
    architecture = {
        "builder": "pneumonia_cnn",
        "classes": len(recipe.labels),
        "filters": [4, 8],
        "dense": [8],
        "dropout": [0.1],
        "softmax_groups": [[0, 1, 2, 3]] if len(recipe.labels) == 4 else [],
    }
    return {"recipe": recipe.model_copy(update={"schedule": schedule, "input": spec, "architecture": architecture})}


@pytest.mark.parametrize("name", ["pneumonia_cnn", "pneumonia4"])
def test_a_recipe_trains_calibrates_measures_and_packs(name: str, tmp_path: Path) -> None:
    kermany_folder(tmp_path / "kermany224")
    covid_folder(tmp_path / "covid_ieee8023")
    directory = train_all(Order(data=tmp_path, out=tmp_path / "run", **_toy(name)))
    assert directory is not None
    package = load(directory)
    assert package.card.parameters["flip"] is True
    assert package.card.population["age_ranges"][0] == [1, 5]
    assert len(package.card.population["age_ranges"]) == 2
    figures = package.card.metrics
    page = (tmp_path / "run/evaluation/evaluation.html").read_text()
    for heading in ("Training batch", "Learning curves", "Confusion matrices"):
        assert f"<h2>{heading}</h2>" in page
    assert sizes_below(page, SUREST, DOUBT) == {(32, 64, 3)}, "each film beside its heat map"
    epochs = [json.loads(line) for line in (tmp_path / "run/final/log.jsonl").read_text().splitlines()]
    assert all(0 <= row["val_accuracy"] <= 1 and "val_recall" in row for row in epochs)
    assert 0 <= figures["train"]["accuracy"]["low"] <= figures["train"]["accuracy"]["high"] <= 1
    if name == "pneumonia4":
        assert figures["test"]["four_classes"]["n"] == 12 + 6
        assert "<th>called covid19</th>" in page
        assert figures["test"]["adults_without_covid"]["called_covid"]["n"] == 9
        assert package.card.threshold("covid19") is None
    else:
        assert figures["test_at_flag"]["children"]["n"] == 12
        flag = package.card.operating_points["flag"]
        assert isinstance(flag, OperatingPointByAge)
        assert {flag.groups[group].no_flag for group in ("child", "adult")} <= {None, "no_threshold"}
        assert package.card.threshold("pneumonia") == flag.groups["unknown"].threshold
    dataset = open_dataset("chest_films", tmp_path)
    items = [item for item in dataset.items() if item.split == "test"]
    rows = stress_rows(package, items, [dataset.pixels(item) for item in items])
    assert [row["films"] for row in rows] == list(CHANGES)
    assert rows[0]["calls_changed"] == 0.0


def test_suites_cut_recipes_down_to_the_budget() -> None:
    variants = suite("networks", "none", "none")
    assert [v.name.split()[0] for v in variants] == [
        *("resnet50", "inceptionresnetv2", "efficientnetb7", "inceptionv3", "lite0", "plain", "ours"),
    ]
    assert not any(v.frozen for v in variants), "a base is frozen only where it has trained weights"
    assert {v.start for v in variants} == {"from scratch"}
    recipe = recipe_of(variants[0], Budget(steps=3, size=48))
    assert recipe.schedule.steps == 3
    assert (recipe.input.height, recipe.input.width) == (48, 48)
    for name in SUITES:
        for variant in suite(name, "none", "none"):
            assert recipe_of(variant, None).task == ("pneumonia" if name == "blocks" else "pneumonia4")


def test_suites_ask_what_the_authors_left_open() -> None:
    rows = {v.name: v for v in suite("networks", "imagenet", "lite.npz")}
    for network in ("resnet50", "inceptionresnetv2", "efficientnetb7", "inceptionv3", "lite0"):
        frozen = rows[f"{network} (frozen base)"]
        assert recipe_of(frozen, Budget(minutes=1)).frozen_base and not rows[f"{network} (whole)"].frozen
    assert rows["lite0 (frozen base)"].start == "lite.npz, base frozen"
    heads = suite("head", "imagenet", "lite.npz")
    assert [v.changes["architecture"]["head"] for v in heads] == ["authors", "plain", "norm_only", "dropout_only"]
    assert {(v.weights, v.frozen) for v in heads} == {("imagenet", True)}, "only the heads differ"
    assert {(v.weights, v.frozen) for v in suite("head", "none", "none")} == {("none", False)}
    rates = {recipe_of(v, None).schedule.decay: v.weights for v in suite("schedule", "imagenet", "lite.npz")}
    assert rates == {"cosine": "lite.npz", "none": "lite.npz"}
    few = [recipe_of(v, None).augment.get("low_res") for v in suite("resolution", "none", "none")]
    assert few == [None, 0.0]
    assert min(BUDGETS[name].size for name in ("networks", "head")) >= 75, "the Inceptions take no smaller film"
    blocks = [recipe_of(v, None).architecture for v in suite("blocks", "none", "lite.npz")]
    assert [(b.get("norms", True), b.get("drops", True)) for b in blocks] == [
        *((True, True), (True, False), (False, True), (False, False)),
    ]


def test_each_big_network_finds_its_own_weights(tmp_path: Path) -> None:
    for name in ("ResNet-50_notop.h5", "efficientnetb7_notop.h5"):
        (tmp_path / name).touch()
    starts = {recipe: start_of(recipe, str(tmp_path)) for recipe in BIG}
    assert [Path(start).name for start in starts.values()] == ["ResNet-50_notop.h5", "none", "efficientnetb7_notop.h5"]
    assert start_of(BIG[0], str(tmp_path / "efficientnetb7_notop.h5")) == "none"
    assert start_of(BIG[0], "mine.weights.h5") == "mine.weights.h5"
    names = [variant.name for variant in suite("networks", str(tmp_path), "none")]
    assert sum("frozen" in name for name in names) == 2


def test_weights_of_an_application_act_as_they_do_in_it(tmp_path: Path) -> None:
    import keras
    from keras import layers

    gain = np.array([2.0, 0.5, 3.0])

    def network(own_scale: bool) -> keras.Model:
        image = keras.Input((8, 8, 3), name="image")
        x = layers.Normalization(name="normalization")(layers.Rescaling(1 / 255)(image))
        x = layers.Rescaling(gain.tolist())(x) if own_scale else x
        x = layers.Conv2D(4, 3, use_bias=False, name="stem_conv")(x)
        x = layers.BatchNormalization(name="stem_bn")(x)
        return keras.Model(image, {"logits": layers.GlobalAveragePooling2D(name="pool")(x)})

    source, target, loaded = network(True), network(False), network(False)
    numbers = [np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.4]), np.array(1)]
    source.get_layer("normalization").set_weights(numbers)
    settle(source)
    x = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    copy_layers(target, source, gain)
    wanted = source.predict(x, verbose=0)["logits"]
    np.testing.assert_allclose(target.predict(x, verbose=0)["logits"], wanted, atol=1e-5)
    save_by_layer(target, tmp_path / "w.npz", "float32")
    load_by_layer(loaded, tmp_path / "w.npz")
    for model in (loaded, fold(loaded)):
        np.testing.assert_allclose(model.predict(x, verbose=0)["logits"], wanted, atol=1e-4)


def test_the_small_budget_trains_what_a_few_steps_can_train() -> None:
    scratch, started = (Variant("x", "pneumonia4", {}, weights) for weights in ("none", "lite.npz"))
    assert load_recipe("pneumonia4").schedule.frozen
    assert recipe_of(scratch, None).schedule.frozen == (), "fresh layers must learn"
    assert recipe_of(started, None).schedule.frozen
    assert recipe_of(started, Budget()).schedule.ema == 0.0
    assert "which is best" in str(Budget())
    assert "which is best" not in str(Budget(films=80, steps=12))


def test_the_comparison_trains_to_the_end_and_prints_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.chest import compare as module

    kermany_folder(tmp_path / "kermany224")
    covid_folder(tmp_path / "covid_ieee8023")
    small = {"builder": "pneumonia_cnn", "classes": 4, "filters": [4], "dense": [4], "dropout": [0.1]}
    rows = [
        Variant("a", "pneumonia4", {"architecture": small}),
        Variant("b", "pneumonia4", {"architecture": small}, sizes_px=(16, 64)),
        Variant("c", "pneumonia4", {"architecture": small}, "nowhere.npz"),
    ]
    monkeypatch.setattr(module, "suite", lambda *names: rows)
    arguments = ["schedule", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--steps", "2", "--size", "32"]
    result = CliRunner().invoke(module.compare, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    table = (tmp_path / "out/schedule.md").read_text()
    assert "| network | start | parameters | trainable | seconds |" in table
    assert "Budget: 240 training films, 2 steps" in table
    assert "no weights file nowhere.npz" in table, "the others are run all the same"
    assert "accuracy_at_16_px" in table
    assert "accuracy_at_64_px" not in table, "films of 32 pixels are not reduced to 64"
    assert not list((tmp_path / "out").rglob("checkpoint.npz"))


TINY_BLOCKS = {
    "architecture": {
        "builder": "pneumonia_blocks",
        "classes": 1,
        "filters": [4],
        "block_dropout": [0.1],
        "dense": [4],
        "dense_dropout": [0.1],
    }
}


def test_rows_on_a_wall_clock_budget_go_on_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.chest import compare as module
    from training.chest import variants
    from training.fit import budget

    kermany_folder(tmp_path / "kermany224")
    monkeypatch.setattr(
        module, "suite", lambda *names: [Variant(name, "pneumonia_blocks", TINY_BLOCKS) for name in "ab"]
    )
    monkeypatch.setattr(budget, "seconds_a_step", lambda run: 2.0)
    trained: list[Run] = []

    def noted(run: Run) -> Any:
        trained.append(run)
        return train(run)

    monkeypatch.setattr(variants, "train", noted)
    arguments = ["blocks", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--size", "32", "--batch", "4"]
    call = [*arguments, "--minutes", "0.5"]
    assert CliRunner().invoke(module.compare, [*call, "--only", "a"], catch_exceptions=False).exit_code == 0
    assert [run.out.name for run in trained] == ["a"]
    # half a minute at 2 s a step, less what six validations of a few films take
    assert trained[0].steps == int(15 - 0.35 * 6 * len(trained[0].val_rows) / 4)
    weighed = with_class_weights(trained[0]).losses["logits"].options["positive_weight"]
    labels = trained[0].arrays.labels[trained[0].train_rows, 0]
    assert weighed == [pytest.approx((labels == 0).sum() / (labels == 1).sum(), abs=1e-5)]
    assert CliRunner().invoke(module.compare, call, catch_exceptions=False).exit_code == 0
    assert [run.out.name for run in trained] == ["a", "b"], "a finished row is not trained again"
    document = json.loads((tmp_path / "out/blocks.json").read_text())
    assert document["budget"].startswith("0.5 minutes of training for each row")
    *own, published = document["rows"]
    assert published["network"].startswith("published") and published["accuracy"] == 0.928
    for row in own:
        assert {"start", "parameters", "seconds_a_step", "train_accuracy", "accuracy", "precision", "auc"} <= set(row)
        assert row["start"] == "from scratch" and 0 <= row["accuracy"]["low"] <= row["accuracy"]["high"] <= 1
        assert row["loss_before_training"] == pytest.approx(0.69, abs=0.3)


def test_rows_of_the_same_passes_are_compared_film_by_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.chest import compare as module
    from training.chest import variants

    kermany_folder(tmp_path / "kermany224")
    monkeypatch.setattr(
        module, "suite", lambda *names: [Variant(name, "pneumonia_blocks", TINY_BLOCKS) for name in "abc"]
    )
    trained: list[Run] = []

    def noted(run: Run) -> Any:
        trained.append(run)
        model = train(run)
        if run.out.name != "a":  # every film is called the other way
            weights = model.layers[-1].get_weights()
            model.layers[-1].set_weights([-w if run.out.name == "b" else w for w in weights])
        return model

    monkeypatch.setattr(variants, "train", noted)
    arguments = ["blocks", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--size", "32", "--batch", "4"]
    call = [*arguments, "--passes", "2"]
    assert CliRunner().invoke(module.compare, [*call, "--minutes", "1"]).exit_code == 2, "one budget at a time"
    assert CliRunner().invoke(module.compare, call, catch_exceptions=False).exit_code == 0
    run = trained[0]
    assert run.steps == 2 * run.recipe.schedule.steps_per_epoch == 2 * (len(run.train_rows) // 4)
    assert len(run.val_rows) == sum(item.split == "val" for item in run.arrays.items)
    first, other, same, _ = json.loads((tmp_path / "out/blocks.json").read_text())["rows"]
    seconds = [row["seconds"] for row in logged(run.out / "log.jsonl") if row["step"]]
    assert len(seconds) == 2 and first["seconds_a_pass"] == pytest.approx(sum(seconds) / 2, abs=0.06)
    assert "accuracy_minus_first_row" not in first
    gap = other["accuracy_minus_first_row"]
    assert gap["value"] == pytest.approx(other["accuracy"]["value"] - first["accuracy"]["value"])
    assert gap["low"] <= gap["value"] <= gap["high"] and abs(gap["value"]) > 0
    assert same["accuracy_minus_first_row"]["value"] == same["accuracy_minus_first_row"]["high"] == 0
    trained.clear()
    assert CliRunner().invoke(module.compare, call, catch_exceptions=False).exit_code == 0
    assert not trained, "a finished row is not trained again"
    assert json.loads((tmp_path / "out/blocks.json").read_text())["rows"][1]["accuracy_minus_first_row"] == gap


def test_a_comparison_forgets_what_is_of_other_films_or_another_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.chest import compare as module
    from training.chest import variants

    kermany_folder(tmp_path / "kermany224")
    monkeypatch.setattr(
        module, "suite", lambda *names: [Variant(name, "pneumonia_blocks", TINY_BLOCKS) for name in "ab"]
    )
    trained: list[str] = []

    def noted(run: Run) -> Any:
        trained.append(run.out.name)
        return train(run)

    monkeypatch.setattr(variants, "train", noted)
    out = tmp_path / "out"
    call = ["blocks", "--data", str(tmp_path), "--out", str(out), "--size", "32", "--films", "8", "--batch", "4"]

    def compared(*more: str) -> list[str]:
        trained.clear()
        assert CliRunner().invoke(module.compare, [*call, *more], catch_exceptions=False).exit_code == 0
        return trained

    assert compared("--steps", "2") == ["a", "b"]
    assert compared("--steps", "2", "--only", "b") == []
    assert [row["network"] for row in json.loads((out / "blocks.json").read_text())["rows"]] == ["a", "b"]
    assert compared("--steps", "3", "--only", "b") == ["b"]
    assert [row["network"] for row in json.loads((out / "blocks.json").read_text())["rows"]] == ["b"]
    assert [row["step"] for row in logged(out / "runs/b/log.jsonl") if row["step"]] == [3], "of this budget alone"
    film = next((tmp_path / "kermany224").rglob("*.png"))
    film.unlink()
    assert compared("--steps", "3") == ["a", "b"], "other films"
    refused = CliRunner().invoke(module.compare, [*call, "--only", "nothing"])
    assert refused.exit_code == 2 and "there are: a, b" in refused.output


def test_tables_show_intervals() -> None:
    text = markdown("t", "b", [{"name": "x", "auc": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}, "share": 0.25}])
    assert "| x | 0.500 (0.400 to 0.600) | 0.250 |" in text
