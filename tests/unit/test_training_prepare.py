"""Preparing shards: counts, what is left out, going on after an interruption, and reading back."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from tests.builders.toy_sets import write_ct_ich
from training.augment import Augment
from training.commands import prepare
from training.datasets import DataSetError, open_dataset
from training.prepare import prepare_dataset
from training.recipe import Recipe, load_recipe
from training.records import read_records, shards_in, training_pipeline
from worker.packages.preprocessing import planes, scale, stack


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    loaded = load_recipe("head_ct_unet")
    return loaded.model_copy(update={"input": loaded.input.model_copy(update={"height": 32, "width": 32})})


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
    assert page.count("<img") >= 8 and "no_brain" in page


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


def test_undersampling_keeps_one_to_one(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    report = prepare_dataset("ct_ich", data, recipe, tmp_path, jobs=1, undersample=True)
    counts = report["after_selection_and_undersampling"]["labels"]["any"]
    assert counts["positive"] == counts["negative"] == 8


def test_command_and_its_refusals(data: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(prepare, ["ct_ich", "--data", str(data), "--out", str(tmp_path), "--jobs", "1", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["written"]["items"] == 29
    with pytest.raises(DataSetError, match="wants hu"):
        (tmp_path / "classes" / "cat").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "classes" / "cat" / "a.png"), np.zeros((4, 4, 3), np.uint8))
        prepare_dataset("class_folders", tmp_path / "classes", load_recipe("head_ct_unet"), tmp_path / "x", jobs=1)


def test_training_on_shards_gives_a_package(shards: Path, recipe: Recipe, tmp_path: Path) -> None:
    from training.order import Order, train_all
    from worker.packages.package import load

    schedule = recipe.schedule.model_copy(
        update={"steps": 6, "steps_per_epoch": 3, "batch_size": 4, "frozen": (), "best": True}
    )
    small = recipe.model_copy(
        update={
            "architecture": {"builder": "tiny_unet", "classes": 6},
            "schedule": schedule,
            "final_steps": 6,
            "folds": recipe.folds.model_copy(update={"validation": {"ct_ich": 0.5}}),
        }
    )
    directory = train_all(Order(recipe=small, data=Path(), shards=shards, out=tmp_path))
    assert directory is not None
    card = load(directory).card
    assert 0 < card.training_data["held_back"] < 29
    log = [json.loads(line) for line in (tmp_path / "final" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [3, 6] and all("val_loss" in row for row in log)
