"""Readers of lesion pictures, and the dermoscopy recipes run to the end on a toy set."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from dicom_listener.inbox.picture import wrap_picture
from firstread_cli.experiments import dermoscopy
from tests.builders.report_pages import sizes_below
from tests.builders.skin import lesion_card, write_lesions
from training.datasets.arrays import Arrays, load_arrays
from training.datasets.base import DataSetError
from training.datasets.registry import open_dataset
from training.dermoscopy import question
from training.dermoscopy.answers import BY_PICTURE, INPUTS, STATISTICS, Answer
from training.dermoscopy.answers import report as report_of
from training.dermoscopy.operating import choose_mask, operating_points, prior_bias
from training.dermoscopy.readers import Lesions, class_shares, diagnosis
from training.evaluation import scoring
from training.evaluation.cases import DOUBT, SUREST
from training.package.order import Order
from training.recipe import Recipe, load_recipe
from training.shards.prepare import prepare_dataset
from training.train import train_all
from worker.packages.operating_points import OperatingPoint, Prevalence
from worker.packages.package import load
from worker.packages.preprocessing.compose import compose
from worker.pipelines.dermoscopy.lesion import CLASSES, DIAGNOSES, DX


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ham")
    write_lesions(root / "ham10000_200x150", n=56)
    return root


def _distributed(toy: Path, root: Path) -> Path:
    """HAM10000 as it is distributed: two folders of pictures, a metadata CSV, masks named after the pictures."""
    folders = [root / "HAM10000_images_part_1", root / "HAM10000_images_part_2"]
    masks = root / "HAM10000_segmentations_lesion_tschandl"
    for folder in (*folders, masks):
        folder.mkdir(parents=True)
    with (toy / "ham10000_200x150" / "labels.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    with (root / "HAM10000_metadata.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"])
        writer.writeheader()
        for i, row in enumerate(rows):
            name = f"ISIC_{i:07d}"
            shutil.copy(toy / "ham10000_200x150" / row["file"], folders[i % 2] / f"{name}.jpg")
            shutil.copy(toy / "ham10000_200x150" / row["mask"], masks / f"{name}_segmentation.png")
            writer.writerow(
                {
                    "lesion_id": row["lesion_id"],
                    "image_id": name,
                    "dx": row["dx"],
                    "dx_type": "histo",
                    "age": row["age"],
                    "sex": row["sex"],
                    "localization": "back",
                }
            )
    return root


def test_labels_csv_gives_items_with_masks_and_the_split_as_given(toy: Path) -> None:
    items = open_dataset("ham10000", toy / "ham10000_200x150").items()
    assert len(items) == 56 and all(item.mask_path for item in items)
    assert {item.split for item in items} == {"train", "val", "test"}
    shares = class_shares(items)
    assert sum(shares["train"]["classes"].values()) == sum(shares["train"]["diagnoses"].values()) == 28
    assert shares["test"]["diagnoses"] == dict.fromkeys(("mel", "nv", "bkl", "bcc", "akiec", "vasc", "df"), 2)
    assert shares["test"]["classes"] == {"melanoma": 2, "nevus": 2, "other": 10}


def test_the_distributed_layout_gives_the_same_pictures_with_lesions_apart(toy: Path, tmp_path: Path) -> None:
    reader = Lesions(_distributed(toy, tmp_path))
    items = reader.items()
    assert len(items) == 56 and all(item.mask_path for item in items)
    by_lesion: dict[str, set[str]] = {}
    for item in items:
        by_lesion.setdefault(item.patient, set()).add(item.split)
    assert all(len(splits) == 1 for splits in by_lesion.values())
    assert reader.pixels(items[0]).shape == (48, 64, 3)
    mask = reader.mask(items[0])
    assert mask is not None and mask.dtype == bool and 0.02 < mask.mean() < 0.6


@pytest.mark.parametrize("name", ["lesion_lite", "lesion_unet"])
def test_prepare_shows_the_shares_before_and_after_folding(name: str, toy: Path, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    recipe = recipe.model_copy(update={"input": recipe.input.model_copy(update={"height": 48, "width": 64})})
    report = prepare_dataset("ham10000", _distributed(toy, tmp_path / "ham"), recipe, tmp_path / "out", jobs=1)
    assert sum(n for split in report["shares"].values() for n in split["diagnoses"].values()) == 56
    assert sum(split["classes"]["melanoma"] for split in report["shares"].values()) == 8
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "before and after folding" in page and "akiec" in page and "melanoma" in page
    assert (tmp_path / "out" / report["shards"][0]).stat().st_size > 56 * 48 * 64


def test_class_folders_and_a_plain_csv(toy: Path, tmp_path: Path) -> None:
    source = sorted((toy / "ham10000_200x150" / "images").iterdir())[:6]
    for part, name, path in zip(["train", "val", "test"] * 2, ["Melanoma", "nevus"] * 3, source, strict=True):
        (tmp_path / "folders" / part / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "folders" / part / name)
    items = Lesions(tmp_path / "folders").items()
    assert Counter(item.attributes["dx"] for item in items) == {"mel": 3, "nv": 3}
    assert {item.split for item in items} == {"train", "val", "test"}

    (tmp_path / "plain").mkdir()
    for path in source[:2]:
        shutil.copy(path, tmp_path / "plain")
    lines = ["file,diagnosis", f"{source[0].name},melanoma", f"{source[1].name},other"]
    (tmp_path / "plain" / "mine.csv").write_text("\n".join(lines), encoding="utf-8")
    plain = {item.key: item for item in Lesions(tmp_path / "plain").items()}
    assert plain[source[1].name].labels == {"melanoma": 0.0, "nevus": 0.0, "other": 1.0}
    assert set(plain[source[0].name].labels) == {*CLASSES, *DX}


def test_wrong_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,dx\na.jpg,unheard-of\n", encoding="utf-8")
    with pytest.raises(DataSetError, match="line 2"):
        Lesions(tmp_path).items()
    with pytest.raises(DataSetError):
        Lesions(tmp_path / "nothing").items()
    assert diagnosis("Melanocytic_Nevi") == "nv" and diagnosis("wart") is None


def test_the_prior_is_taken_back_and_points_hold_their_recall() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(7, size=4000, p=[0.1, 0.6, 0.12, 0.06, 0.04, 0.04, 0.04])
    trained = dict.fromkeys(DX, 1 / 7)
    bias = prior_bias(DX, trained, truth)
    evidence = np.eye(7)[truth] * 1.5 + rng.normal(size=(4000, 7))
    p = np.exp(evidence - bias)
    p /= p.sum(axis=1, keepdims=True)
    assert p[:, 1].mean() > np.exp(evidence)[:, 1].mean() / np.exp(evidence).sum(axis=1).mean()
    plain = (evidence.argmax(axis=1) == truth).mean()
    assert (p.argmax(axis=1) == truth).mean() > plain
    points = operating_points(DX, p, truth, 0.9, 0.8)
    for name, recall in {"flag_melanoma": 0.9, "warn_dx_bcc": 0.8, "warn_dx_akiec": 0.8}.items():
        sensitivity = points[name].sensitivity
        assert sensitivity is not None and recall <= sensitivity < recall + 0.02
        assert points[name].prevalence is None
    rare = Prevalence(value=0.001, source="a test")
    hint = operating_points(DX, p, truth, 0.9, 0.8, rare)
    assert hint["flag_melanoma"].is_hint and hint["flag_melanoma"].threshold == points["flag_melanoma"].threshold
    assert hint["warn_dx_bcc"] == points["warn_dx_bcc"]


def test_the_mask_threshold_is_the_one_with_the_best_overlap() -> None:
    truth = np.zeros((60, 80), bool)
    truth[20:40, 20:60] = True
    p = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 4) * 0.6
    p[50:55, 70:75] = 0.9
    chosen = choose_mask([p] * 3, [truth] * 3)
    assert chosen["mask_threshold"] == pytest.approx(0.30)
    assert chosen["mask_largest"] is True
    assert set(chosen["tried"]["cleaning"]) == {f"largest={a} fill={b}" for a in (False, True) for b in (False, True)}


def _toy_order(toy: Path, out: Path, name: str, **architecture: object) -> Order:
    """A shipped recipe, small: a 48 x 64 input, a few steps, no starting weights."""
    recipe = load_recipe(name)
    changes = {
        "input": recipe.input.model_copy(update={"height": 48, "width": 64}),
        "architecture": {**recipe.architecture, **architecture},
        "datasets": {"ham10000": "ham10000_200x150"},
        "schedule": recipe.schedule.model_copy(
            update={
                "steps": 4,
                "steps_per_epoch": 2,
                "batch_size": 4,
                "warmup_steps": min(2, recipe.schedule.warmup_steps),
            }
        ),
    }
    return Order(recipe.model_copy(update=changes), toy, out, weights="none")


RECIPES: dict[str, dict[str, object]] = {
    "lesion_unet": {"filters": [4, 8, 8]},
    "lesion_resnet50": {"blocks": [1, 1], "width": 8},
    "lesion_lite": {"depth": 6, "top": 32},  # as deep as the outline needs; the whole encoder takes a minute to compile
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_to_its_package(name: str, toy: Path, tmp_path: Path) -> None:
    order = _toy_order(toy, tmp_path, name, **RECIPES[name])
    directory = train_all(order)
    assert directory is not None
    package = load(directory)
    assert package.card.metrics["test"]["n"] == 14
    assert package.card.training_data["steps"] == order.recipe.schedule.steps > 0
    page = (tmp_path / "evaluation" / "evaluation.html").read_text()
    headings = ["Training batch", "Learning curves", "before training", "last epoch", "train"]
    if package.card.labels:
        headings += ["Findings", "Confusion matrices", "Worst misses", "Surest right calls", "In doubt"]
    if name != "lesion_resnet50":
        headings += ["Worst outlines", "Best outlines", "Outlines in the middle"]
        assert package.card.metrics["test"]["outline"]["mean_iou_at_0.4"]["value"] is not None
    for heading in headings:
        assert f"<h2>{heading}</h2>" in page, heading
    if package.card.labels:
        assert sizes_below(page, SUREST, DOUBT) == {(150, 400, 3)}, "each picture beside its heat map"
    x = np.random.default_rng(0).random((2, 48, 64, 3), dtype=np.float32)
    out = package.predict(x)
    if name == "lesion_resnet50":
        point = package.card.operating_points["flag_melanoma"]
        assert "mask" not in out and isinstance(point, OperatingPoint) and point.threshold is not None
    else:
        assert out["mask"].shape[0] == 2 and package.card.parameters["mask_threshold"] > 0
        assert package.card.metrics["test"]["outline"]["mean_iou"]["n"] > 0
    if name == "lesion_lite":
        assert package.card.threshold("dx_bcc", "warn") is not None
        heat = package.gradients(x, "dx_mel")
        assert heat.ndim == 3 and heat.min() >= 0 and heat.max() <= 1


def test_the_resnet_is_kerass_own() -> None:
    import keras

    from worker.packages.card import InputSpec
    from worker.packages.networks import build
    from worker.packages.networks.resnet import CAFFE_MEANS

    ours = build.build({"builder": "lesion_resnet50", "classes": 3}, InputSpec(kind="rgb", height=32, width=32))
    theirs = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
    for layer in theirs.layers:
        if layer.weights:
            ours.get_layer(layer.name).set_weights(layer.get_weights())
    x = np.random.default_rng(0).random((1, 32, 32, 3), dtype=np.float32)
    features = keras.Model(ours.inputs, ours.get_layer("pool").input)(x, training=False)
    expected = theirs(x[..., ::-1] * 255 - np.asarray(CAFFE_MEANS, np.float32), training=False)
    np.testing.assert_allclose(np.asarray(features), np.asarray(expected), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("bce", "dice"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_the_outline_learns_under_each_loss(bce: float, dice: float, toy: Path, tmp_path: Path) -> None:
    from training.datasets.arrays import open_arrays
    from training.fit.loop import train
    from training.fit.model import predict
    from training.fit.run import Run

    order = _toy_order(toy, tmp_path, "lesion_unet", filters=[8, 16], dropout=0.0)
    loss = {
        "mask_logits": order.recipe.losses["mask_logits"].model_copy(
            update={"options": {"bce_weight": bce, "dice_weight": dice}}
        )
    }
    schedule = order.recipe.schedule.model_copy(update={"steps": 60, "steps_per_epoch": 60, "learning_rate": 2e-2})
    recipe = order.recipe.model_copy(update={"losses": loss, "schedule": schedule})
    arrays = open_arrays(recipe, toy, None)
    rows = np.flatnonzero([item.split == "train" for item in arrays.items])
    model = train(Run(recipe, arrays, rows, tmp_path / "run", 60))
    assert arrays.masks is not None
    outlines = predict(model, arrays, rows)["mask_logits"] > 0
    truth = arrays.masks[rows] > 127
    assert (outlines & truth).sum() / (outlines | truth).sum() > 0.5


@pytest.mark.skipif(not os.environ.get("FIRSTREAD_TEST_DATA"), reason="FIRSTREAD_TEST_DATA names no folder of images")
def test_the_given_ham10000_reads_whole() -> None:
    root = Path(os.environ["FIRSTREAD_TEST_DATA"]) / "dermoscopy" / "ham10000_200x150"
    shares = class_shares(open_dataset("ham10000", root).items())
    assert shares["test"]["classes"] == {"melanoma": 112, "nevus": 531, "other": 223}
    lesions: dict[str, set[str]] = {}
    for item in Lesions(root).items():
        lesions.setdefault(item.patient, set()).add(item.split)
    assert all(len(splits) == 1 for splits in lesions.values())


def test_training_and_service_see_the_same_picture(toy: Path, tmp_path: Path) -> None:
    """The input that training composes of a file is the input that the pipeline composes of it as DICOM."""
    from tests.builders.study_images import part10, study_of
    from worker.packages.card import InputSpec
    from worker.packages.preprocessing.compose import compose
    from worker.pipelines.dermoscopy.gate import gate
    from worker.pipelines.dermoscopy.photographs import network_view
    from worker.pipelines.dermoscopy.selection import select

    spec = InputSpec(kind="rgb", height=48, width=64)
    skin = np.array([205.0, 150.0, 130.0]) * np.random.default_rng(1).uniform(0.4, 1.2, (12, 9, 1))
    rgb = skin.clip(0, 255).astype(np.uint8)[..., ::-1]
    picture = cv2.resize(rgb, (150, 200), interpolation=cv2.INTER_CUBIC)
    (tmp_path / "data").mkdir()
    for name, pixels in {
        "portrait.png": picture,
        "landscape.jpg": np.rot90(picture),
        "square.png": picture[:150],
    }.items():
        path = tmp_path / "data" / name
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 99])
        wrapped = wrap_picture(path, "dermoscopy")
        dicom = tmp_path / f"{name}.dcm"
        dicom.write_bytes(part10(wrapped))
        study = study_of([dicom], forced=True)
        (series,) = select(study).series
        photographs = gate(study, series).pixels
        assert photographs is not None
        served = compose(network_view(photographs[0]), spec)
        (tmp_path / "data" / "labels.csv").write_text(f"file,dx\n{name},nv\n", encoding="utf-8")
        reader = Lesions(tmp_path / "data")
        trained = compose(reader.pixels(reader.items()[0])[None], spec)
        assert np.abs(served - trained).mean() < 0.004, name


def _small_network(recipe: Recipe, channels: int, weights: Path | None) -> Any:
    import keras

    image = keras.Input((recipe.input.height, recipe.input.width, channels))
    x = keras.layers.Conv2D(8, 5, 4, activation="relu", name="conv_stem")(image)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, {"logits": keras.layers.Dense(len(recipe.labels), name="logits")(pooled)})


def test_the_question_is_asked_of_every_input(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "network", _small_network)
    recipe = question.smaller(load_recipe("lesion_lite"), steps=2, height=32, width=48)
    recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"batch_size": 4})})
    reader = Lesions(toy / "ham10000_200x150")
    arrays = load_arrays([reader], recipe.input, recipe.labels, (32, 48))
    assert arrays.masks is not None
    given, mixed = np.asarray([i.split for i in arrays.items]), question.splits_by_picture(arrays)
    assert Counter(given) == Counter(mixed) and (given != mixed).any()
    names = (*INPUTS, BY_PICTURE)
    found_masks = arrays.masks.astype(np.float32) / 254
    answers = question.answers_of_inputs(recipe, arrays, found_masks, None, names, tmp_path / "runs")
    assert [(a.name, a.masks) for a in answers] == [
        ("whole", "none"),
        ("cut", "segmenter's"),
        ("cut", "drawn"),
        ("mask_channel", "segmenter's"),
        ("mask_channel", "drawn"),
        (BY_PICTURE, "none"),
    ]
    monkeypatch.setattr(question, "train_one", None)
    again = question.answers_of_inputs(recipe, arrays, found_masks, None, names, tmp_path / "runs")
    for one, other in zip(answers, again, strict=True):
        assert (one.name, one.masks) == (other.name, other.masks)
        np.testing.assert_array_equal(one.p3, other.p3)
        np.testing.assert_array_equal(one.lesions, other.lesions)
    report = report_of(answers, tmp_path, "2 steps", {"package": "some 1.0.0", "seed": 1}, repeats=20)
    page = (tmp_path / "question.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "question.json").read_text(encoding="utf-8")) == report
    assert "Budget: 2 steps; package some 1.0.0; seed 1" in page and page.endswith(f"{report['shows']}\n")
    assert "# Minus the whole picture" in page and "# A split by picture" in page
    assert {row["n"] for row in report["rows"]} == {14}
    assert "than the whole picture with" in report["shows"]
    assert "A split by picture instead of by lesion differs by accuracy" in report["shows"]
    assert set(report["split_gap"]) == set(report["minus_whole"]["cut (drawn masks)"]) == set(STATISTICS)
    with pytest.raises(TypeError, match="not callable"):  # asked otherwise, nothing of it is kept
        question.answers_of_inputs(
            recipe.model_copy(update={"seed": 9}), arrays, found_masks, None, ("whole",), tmp_path / "runs"
        )


def test_an_evaluation_averages_over_the_views_of_the_card(toy: Path) -> None:
    def predict(x: np.ndarray) -> dict[str, np.ndarray]:
        p = np.zeros((len(x), 7), np.float32)
        p[:, 0] = x[:, : x.shape[1] // 2].mean(axis=(1, 2, 3))  # the upper half alone
        return {"p": p, "p_raw": p, "mask": (x.mean(axis=-1) < x.mean()).astype(np.float32)}

    reader = Lesions(toy / "ham10000_200x150")
    card = lesion_card(parameters={"views": ["plain", "upside_down"]})
    scored = scoring.score(cast(Any, SimpleNamespace(card=card, predict=predict)), reader, "test")
    x = np.concatenate([compose(reader.pixels(item)[None], card.input) for item in scored.items])
    np.testing.assert_allclose(scored.p[:, 0], x.mean(axis=(1, 2, 3)), atol=1e-5)
    plain = scoring.score(cast(Any, SimpleNamespace(card=lesion_card(), predict=predict)), reader, "test")
    assert np.abs(plain.p[:, 0] - scored.p[:, 0]).max() > 1e-3
    assert np.nanmean(scored.dice) == pytest.approx(np.nanmean(plain.dice), abs=0.02)


def test_fewer_pictures_keep_every_diagnosis_and_the_split(toy: Path) -> None:
    reader = Lesions(toy / "ham10000_200x150")
    fewer = question.Fewer(reader, 14)
    whole = {item.key: item for item in reader.items()}
    items = fewer.items()
    assert 0 < len(items) < len(whole)
    assert all(whole[item.key].split == item.split for item in items)
    for split in ("train", "val", "test"):
        part = [item for item in items if item.split == split]
        assert len(part) <= 14 and {item.attributes["dx"] for item in part} == set(DIAGNOSES)
    assert fewer.pixels(items[0]).shape == (48, 64, 3)


def test_the_question_from_the_command_line(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, str]] = []

    def fixed_answers(recipe: Recipe, arrays: Arrays, masks: np.ndarray, *rest: Any) -> list[Answer]:
        calls.append((recipe.schedule.steps, str(rest[2])))
        test = np.flatnonzero(np.asarray([item.split for item in arrays.items]) == "test")
        assert masks[test].any(axis=(1, 2)).all()
        y3 = np.arange(len(test)) % 3
        return [Answer("whole", "none", np.eye(3)[y3], y3, np.arange(len(test)).astype(str), np.eye(3)[y3], y3)]

    def predict(x: np.ndarray) -> dict[str, np.ndarray]:
        dark = (x.mean(axis=-1) < x.mean()).astype(np.float32)
        return {"p": np.zeros((len(x), 7), np.float32), "mask": dark}

    package = SimpleNamespace(card=lesion_card(parameters={"views": ["plain", "turned"]}), predict=predict)
    (tmp_path / "card.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(question, "answers_of_inputs", fixed_answers)
    monkeypatch.setattr(question, "load", lambda folder: package)
    given = [
        "question",
        "--data",
        str(toy / "ham10000_200x150"),
        "--package",
        str(tmp_path),
        "--steps",
        "7",
        "--pictures",
        "14",
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(dermoscopy, given)
    assert done.exit_code == 0, done.output
    assert calls == [(7, str(tmp_path / "out" / "runs"))]
    assert "7 steps of 32 for every input; package darkness 1; seed 1; first weights none" in done.output
    report = json.loads((tmp_path / "out" / "question.json").read_text(encoding="utf-8"))
    assert {"package_sha256", "first_weights_sha256"} <= set(report["made_with"])


def test_help_needs_no_tensorflow() -> None:
    program = (
        "import sys\n"
        "from firstread_cli.experiments import dermoscopy\n"
        "dermoscopy(['question', '--help'], standalone_mode=False)\n"
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--pictures" in done.stdout


def test_a_fourth_channel_starts_without_a_say() -> None:
    recipe = question.smaller(load_recipe("lesion_lite"), steps=1, height=32, width=32)
    kernel = question.network(recipe, 4, None).get_layer("conv_stem").get_weights()[0]
    assert kernel.shape[2] == 4 and not kernel[:, :, 3].any() and kernel[:, :, :3].any()
