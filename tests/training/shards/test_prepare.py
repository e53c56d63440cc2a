"""Preparing shards: counts, what is left out, going on after an interruption, and reading back."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from firstread.errors import FirstreadError
from firstread_cli.training import prepare
from tests.builders.report_pages import sizes_below
from tests.builders.toy_sets import write_ct_ich, write_phe_sich, write_rsna
from training.augmentation.planes import Augment
from training.datasets.arrays import Arrays
from training.datasets.base import DataSetError, read_grey
from training.datasets.registry import READERS, open_dataset
from training.evaluation.cases import DOUBT
from training.files import NotWritten
from training.fit.feeds import train_feed, validation_feed
from training.fit.run import Run
from training.package.order import Order
from training.recipe import Folds, Recipe, RecipeError, load_recipe
from training.shards.prepare import prepare_dataset
from training.shards.prepared import open_prepared
from training.shards.records import RecordsError, read_records, training_pipeline, write_records
from training.train import train_all
from worker.packages.operating_points import OperatingPoint
from worker.packages.package import load
from worker.packages.preprocessing.compose import planes, scale, stack


def shards_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tfrecord"))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """The recipe of the head-CT model, at 32 x 32 and without what a stream of records cannot do."""
    loaded = load_recipe("head_ct_unet")
    small = loaded.input.model_copy(update={"height": 32, "width": 32})
    return loaded.model_copy(update={"input": small, "patients_first": False})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients; one slice is blank, one shows no brain, one cannot be read."""
    root = write_ct_ich(tmp_path_factory.mktemp("set") / "ct_ich")
    cv2.imwrite(str(root / "images" / "001_00.jpg"), np.zeros((64, 64), np.uint8))
    cv2.imwrite(str(root / "images" / "003_00.jpg"), np.pad(np.full((30, 30), 255, np.uint8), 17))
    (root / "images" / "005_00.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def shards(data: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    prepare_dataset("ct_ich", data, recipe, out, shard_size=12, jobs=1)
    return out


def test_report_says_what_became_of_every_item(shards: Path) -> None:
    report = json.loads((shards / "report.json").read_text())
    assert report["before"]["items"] == 32
    assert report["before"]["labels"]["any"] == {"positive": 8, "negative": 24, "unknown": 0}
    assert report["written"]["items"] == 29
    assert {why: row["count"] for why, row in report["left_out"].items()} == {
        "blank": 1,
        "no_brain": 1,
        "unreadable": 1,
    }
    page = (shards / "report.html").read_text()
    assert page.count("<img") == 2 + 6 * 4 + 3 + 16, "charts, channels and their composition, three gone, a batch"
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert captions[:2] == ["classes before and after selection and undersampling", "values of 31 items"]
    assert captions[2:5] == ["slice -1", "the slice", "slice +1"] and captions[5].startswith("together; any ")
    gone = [caption.partition(":")[0] for caption in captions[26:29]]
    assert sorted(gone) == ["blank", "no brain", "unreadable"]
    assert {caption.partition(",")[0] for caption in captions[29:]} == {"any 1", "any 0"}
    assert "no_brain" in page and "not DICOM" not in page


def test_records_hold_what_preprocessing_gives(shards: Path, data: Path, recipe: Recipe) -> None:
    rows = list(read_records(shards_in(shards), recipe.input, 6, (16, 16)).as_numpy_iterator())
    assert len(rows) == 29
    by_key = {row["key"].decode(): row for row in rows}
    dataset = open_dataset("ct_ich", data)
    study = [item for item in dataset.items() if item.patient == "000"]
    pixels = np.stack([dataset.pixels(item) for item in study])
    expected = stack(planes(pixels, recipe.input), recipe.input)
    for item, image in zip(study, expected, strict=True):
        row = by_key[item.key]
        np.testing.assert_allclose(row["image"], image, atol=0.5 / 255 + 1e-6)
        assert row["labels"][0] == item.labels["any"]
        assert (row["mask"].max() > 0.5) == (item.labels["any"] == 1)


def test_finished_shards_are_not_written_again(shards: Path, data: Path, recipe: Recipe) -> None:
    paths = shards_in(shards)
    assert len(paths) == 3
    paths[1].unlink()
    before = paths[0].stat().st_mtime_ns
    prepare_dataset("ct_ich", data, recipe, shards, shard_size=12, jobs=1)
    assert paths[1].is_file() and paths[0].stat().st_mtime_ns == before


def test_notes_beside_shards_keep_the_keys_of_earlier_versions(shards: Path) -> None:
    for note in shards.glob("*.tfrecord.json"):
        assert json.loads(note.read_text()).keys() == {"digest", "left_out", "told"}, "else all shards are made anew"


def test_pipeline_gives_the_same_batches_for_a_seed(shards: Path, recipe: Recipe) -> None:
    def batches(seed: int) -> list[np.ndarray]:
        stream = training_pipeline(shards_in(shards), recipe.input, 6, 4, seed, (16, 16), Augment(), shuffle=8)
        return [x for x, _ in stream.take(3).as_numpy_iterator()]

    first, again, other = batches(1), batches(1), batches(2)
    assert first[0].shape == (4, 32, 32, 3)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])
    low = scale(np.zeros(1, np.float32), recipe.input)[0]
    assert all(x.min() >= low - 1e-6 for x in first)


def test_shards_of_another_request_are_made_anew(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    def prepared_shards(**options: Any) -> dict[str, int]:
        prepare_dataset("ct_ich", data, options.pop("recipe", recipe), tmp_path, jobs=1, **options)
        return {path.name: path.stat().st_mtime_ns for path in shards_in(tmp_path)}

    first = prepared_shards(shard_size=12)
    assert len(first) == 3 and prepared_shards(shard_size=12) == first
    two = prepared_shards(shard_size=16)
    assert len(two) == 2, "the third shard of the first call is gone"
    assert prepared_shards(shard_size=16, undersample=True)["ct_ich-00000.tfrecord"] != two["ct_ich-00000.tfrecord"]
    other = recipe.model_copy(update={"labels": ("any", "subdural")})
    prepared_shards(shard_size=16, recipe=other)
    assert open_prepared(tmp_path, other).index["labels"].shape == (29, 2)
    with pytest.raises(DataSetError, match="holds shards of ct_ich"):
        prepare_dataset("phe_sich", write_phe_sich(tmp_path / "phe"), recipe, tmp_path, jobs=1)


def test_shards_of_corrected_labels_and_masks_are_made_anew(recipe: Recipe, tmp_path: Path) -> None:
    root = write_hospital(tmp_path / "set")

    def written() -> tuple[list[bytes], list[np.ndarray]]:
        prepare_dataset("plain_csv", root, recipe, tmp_path / "shards", jobs=1)
        rows = list(read_records(shards_in(tmp_path / "shards"), recipe.input, 6, (16, 16)).as_numpy_iterator())
        return [row["image"].tobytes() for row in rows], [row["mask"] for row in rows]

    images, masks = written()
    table = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(table.replace(",-20,100", ",-20,140"))
    brighter, _ = written()
    assert brighter != images, "another range of Hounsfield units"
    for path in (root / "masks").iterdir():
        cv2.imwrite(str(path), 255 - read_grey(path))
    again, flipped = written()
    assert again == brighter and sum(float(mask.sum()) for mask in flipped) > sum(float(mask.sum()) for mask in masks)
    path, before = root / "images" / "001_01.jpg", shards_in(tmp_path / "shards")[0].stat().st_mtime_ns
    path.write_bytes(path.read_bytes())
    written()
    assert shards_in(tmp_path / "shards")[0].stat().st_mtime_ns != before, "a picture of the same size"


def test_a_shard_on_a_full_disk_is_told_and_takes_no_room(tmp_path: Path) -> None:
    (tmp_path / "a-00000.part").symlink_to("/dev/full")
    with pytest.raises(NotWritten, match=r"cannot write a-00000\.tfrecord: No space left on device$"):
        write_records(tmp_path / "a-00000.tfrecord", [bytes(2**20)])
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_ends_too_early_is_left_out_with_its_reason(recipe: Recipe, tmp_path: Path) -> None:
    root = write_ct_ich(tmp_path / "set")
    path = root / "images" / "001_01.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = prepare_dataset("ct_ich", root, recipe, tmp_path / "shards", jobs=1)
    assert report["left_out"] == {"unreadable": {"count": 1, "examples": ["images/001_01.jpg"]}}


def test_a_slice_whose_outline_is_broken_is_left_out_with_its_reason(recipe: Recipe, tmp_path: Path) -> None:
    root = write_ct_ich(tmp_path / "set")
    whole = prepare_dataset("ct_ich", root, recipe, tmp_path / "whole", jobs=1)["written"]["items"]
    broken = sorted((root / "masks").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:40])
    report = prepare_dataset("ct_ich", root, recipe, tmp_path / "shards", jobs=1)
    assert [(why, row["count"]) for why, row in report["left_out"].items()] == [("unreadable mask", 1)]
    assert report["written"]["items"] == whole - 1


def test_undersampling_keeps_one_to_one_of_what_can_be_used(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    report = prepare_dataset("ct_ich", data, recipe, tmp_path, jobs=1, undersample=True)
    counts = report["after_selection_and_undersampling"]["labels"]["any"]
    assert counts["positive"] == counts["negative"] == 8
    assert {why: row["count"] for why, row in report["left_out"].items()} == {
        "blank": 1,
        "no_brain": 1,
        "unreadable": 1,
    }
    prepared = open_prepared(tmp_path, recipe)
    assert prepared.index["balanced"].sum() == 16
    held = prepared.index["place"] < 2**32 * 0.1
    assert prepared.index["balanced"][~held].all(), "only of patients held back there is more"
    assert report["not_selected"]["undersampled"] == 29 - len(held)


def test_what_does_not_fit_is_refused_before_training(shards: Path, recipe: Recipe, tmp_path: Path) -> None:
    def refused(text: str, **changes: Any) -> None:
        with pytest.raises(FirstreadError, match=text):
            train_all(Order(recipe=recipe.model_copy(update=changes), data=Path(), shards=shards, out=tmp_path / "run"))
        assert not (tmp_path / "run").exists()

    refused("another input", input=recipe.input.model_copy(update={"neighbours": 0}))
    refused("other labels", labels=("any",))
    refused("another size", parameters={"mask_stride": 4})
    refused("patients_first, carve", patients_first=True, carve=0.5)
    refused("holds nothing .* back", folds=Folds())
    softmax = {"logits": recipe.losses["logits"].model_copy(update={"name": "softmax_groups"})}
    refused("give --data beside --shards", losses=softmax)
    with pytest.raises(RecordsError, match="no finished preparation"):
        open_prepared(tmp_path, recipe)


def write_hospital(root: Path) -> Path:
    """A hospital's table: 18 patients in train, val and test, a bleed in every second."""
    write_ct_ich(root, patients=18)
    with (root / "labels.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        row |= {"split": ("train", "val", "test")[int(row["patient"]) % 6 // 2], "hu_low": "-20", "hu_high": "100"}
        del row["fold"]
    with (root / "labels.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def test_training_keeps_to_the_splits_of_the_data(recipe: Recipe, tmp_path: Path) -> None:
    prepare_dataset("plain_csv", write_hospital(tmp_path / "set"), recipe, tmp_path / "shards", jobs=1)
    prepared = open_prepared(tmp_path / "shards", small_of(recipe, Folds()))
    for part in (prepared.taught(), prepared.validated(), prepared.tested()):
        assert prepared.count(part) == 24
    shares = prepared.recipe.model_copy(
        update={"shares": {"plain_csv:any=1": 0.75, "*:any=0": 0.25, "rsna:any=1": 9.0}}
    )
    prepared = open_prepared(tmp_path / "shards", shares)
    run = Run(shares, Arrays.empty(shares.input, shares.labels), np.zeros(0, int), tmp_path, 6, shards=prepared)
    feed = train_feed(run)
    batches = [feed(step) for step in range(150)]
    assert np.mean([y["logits"][:, 0] for _, y in batches]) == pytest.approx(0.75, abs=0.08)
    x, y = train_feed(run)(7)
    np.testing.assert_array_equal(x, batches[7][0])
    np.testing.assert_array_equal(y["logits"], batches[7][1]["logits"])
    assert len(np.concatenate([x for x, _ in validation_feed(run)])) == 24

    directory = train_all(
        Order(
            recipe=small_of(recipe, Folds()),
            data=Path(),
            shards=tmp_path / "shards",
            out=tmp_path / "run",
            cache=tmp_path / "cache",
        )
    )
    assert directory is not None
    card = load(directory).card
    assert card.training_data["trained"] == 24
    assert card.metrics["test"]["pictures"]["any"]["n"] == 24
    assert card.metrics["test"]["studies_at_flag"]["n"] == 6
    assert set(card.operating_points) == {"flag", "balanced"}
    point = card.operating_points["flag"]
    assert isinstance(point, OperatingPoint) and point.n == 6
    assert "aggregation" in card.parameters
    assert len(list((tmp_path / "cache").rglob("*.tfrecord"))) == 1


def small_of(recipe: Recipe, folds: Folds) -> Recipe:
    """The recipe with a toy network for six steps."""
    schedule = recipe.schedule.model_copy(
        update={"steps": 6, "steps_per_epoch": 3, "batch_size": 4, "frozen": (), "best": True}
    )
    return recipe.model_copy(
        update={
            "architecture": {"builder": "tiny_unet", "classes": 6},
            "schedule": schedule,
            "final_steps": 6,
            "shares": {},
            "folds": folds,
        }
    )


def test_command_and_its_refusals(data: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(prepare, ["ct_ich", "--data", str(data), "--out", str(tmp_path), "--jobs", "1", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["written"]["items"] == 29
    with pytest.raises(RecipeError, match="--recipe"):
        CliRunner().invoke(prepare, ["plain_csv", "--data", str(data), "--out", str(tmp_path)], catch_exceptions=False)
    with pytest.raises(DataSetError, match="wants rgb"):
        prepare_dataset("ct_ich", data, load_recipe("lesion_lite"), tmp_path / "x", jobs=1)
    with pytest.raises(DataSetError, match="no data set reader called 'nonsense'; there are chest_csv"):
        CliRunner().invoke(prepare, ["nonsense", "--data", str(data), "--out", str(tmp_path)], catch_exceptions=False)
    for option in ("--jobs=-1", "--shard-size=0", "--shard-size=-3"):
        refused = CliRunner().invoke(prepare, ["ct_ich", "--data", str(data), "--out", str(tmp_path), option])
        assert refused.exit_code == 2 and "is not in the range" in refused.output


def test_the_commands_help_names_every_reader() -> None:
    words = set(re.findall(r"\w+", CliRunner().invoke(prepare, ["--help"]).output))
    assert set(READERS) <= words


def test_training_on_shards_gives_a_package(shards: Path, recipe: Recipe, tmp_path: Path) -> None:
    small = small_of(recipe, recipe.folds.model_copy(update={"validation": {"ct_ich": 0.5}}))
    directory = train_all(Order(recipe=small, data=Path(), shards=shards, out=tmp_path))
    assert directory is not None
    card = load(directory).card
    held, trained = card.training_data["held_back"], card.training_data["trained"]
    assert 0 < held < 29 and trained + held == 29
    log = [json.loads(line) for line in (tmp_path / "final" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [3, 6] and all("val_loss" in row for row in log)


def test_published_recipe_from_the_long_table_to_a_package(tmp_path: Path) -> None:
    root = tmp_path / "rsna"
    write_rsna(root, patients=10, slices=6, step_mm=20.0)
    shipped = load_recipe("rsna_inceptionv3")
    recipe = shipped.model_copy(
        update={
            "input": shipped.input.model_copy(update={"height": 32, "width": 32}),
            "architecture": {"builder": "tiny_classifier", "classes": 1},
            "schedule": shipped.schedule.model_copy(update={"epochs": 2, "batch_size": 4, "checkpoint_steps": 2}),
            "folds": shipped.folds.model_copy(update={"validation": {"rsna": 0.45}}),
        }
    )
    report = prepare_dataset("rsna", root, recipe, tmp_path / "shards", shard_size=20, jobs=1)
    counts = report["after_selection_and_undersampling"]["labels"]["any"]
    assert report["before"]["items"] == 60 and counts["positive"] == counts["negative"] > 0
    assert report["unreadable_headers"] == {"NotDicom": {"count": 1, "examples": ["stage_2_train/broken.dcm"]}}
    prepared = open_prepared(tmp_path / "shards", recipe)
    taught = prepared.taught()(prepared.index)
    assert set(prepared.index["patient"][taught]).isdisjoint(
        prepared.index["patient"][prepared.validated()(prepared.index)]
    )
    directory = train_all(Order(recipe=recipe, data=Path(), shards=tmp_path / "shards", out=tmp_path / "run"))
    assert directory is not None
    package = load(directory)
    assert package.card.task == "bleed_slice" and package.card.labels == ["any"]
    assert package.card.training_data["trained"] == taught.sum()
    log = [json.loads(line) for line in (tmp_path / "run" / "final" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [taught.sum() // 4, 2 * (taught.sum() // 4)], "two passes"
    assert {"studies_at_flag", "pictures", "pictures_undersampled"} <= set(package.card.metrics["held_back"])
    page = (tmp_path / "run" / "evaluation" / "evaluation.html").read_text()
    assert sizes_below(page, "Training batch") == {(32, 32, 3)}
    assert sizes_below(page, DOUBT) == {(32, 64, 3)}, "each slice beside its heat map"
