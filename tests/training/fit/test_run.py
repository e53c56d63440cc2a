"""The identity of a run: one that was begun by an earlier version must go on, so its identity must stay as it was."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.datasets.arrays import Arrays
from training.datasets.base import Item
from training.fit.run import Run, identity
from training.recipe import Recipe, load_recipe
from training.shards.prepared import Prepared

RECIPE = """
name = "stored"
task = "bleed"
pipeline = "head_ct"
description = "is not part of the identity"
labels = ["any", "subdural"]
final_steps = 30
mixup = 0.2
carve = 0.1
[datasets]
ct_ich = "."
[input]
kind = "hu"
height = 32
width = 32
windows = [[0.0, 80.0]]
neighbours = 1
crop = "head"
[architecture]
builder = "tiny_unet"
classes = 2
[losses.logits]
name = "masked_bce"
options = { smoothing = 0.05 }
[shares]
"ct_ich:any=1" = 0.5
[teacher]
low = 0.2
[schedule]
epochs = 3
batch_size = 8
frozen = ["conv_stem"]
[folds]
dataset = "ct_ich"
names = ["*"]
[folds.validation]
ct_ich = 0.25
[parameters]
mask_stride = 2
[card]
name = "is not part of the identity either"
"""

STORED = {
    "arrays": "aaab1df6ac457ed3c05a76bacf1351c517a18a9026330346dbdac7005d1e6de9",
    "weights": "41209fa09152f9ea4d3d8f848aa9442d3348accd4b5b708b98860ecb106de51d",
    "shards": "ca92adff644ed015440b1f37dcbf9a46d6d8fabb1216c408dd42035a85015655",
}
"""SHA-256 of the identities that version 0.1.0 wrote into the checkpoints of these runs."""


def stored_runs(weights: Path) -> dict[str, Run]:
    recipe = Recipe.model_validate(tomllib.loads(RECIPE))
    items = [
        Item(
            dataset="ct_ich",
            key=f"images/{i}.png",
            path=Path(f"/nowhere/{i}.png"),
            patient=f"p{i // 2}",
            study=f"s{i // 2}",
            order=float(i % 2),
            labels={"any": float(i % 2)},
            split=str(i % 2),
            usable=i != 3,
        )
        for i in range(6)
    ]
    arrays = Arrays(
        items=items,
        label_names=recipe.labels,
        spec=recipe.input,
        planes=np.zeros((6, 32, 32, 1), np.float16),
        labels=np.asarray([[i % 2, -1] for i in range(6)], np.float32),
        masks=None,
        neighbours=np.zeros((6, 3), np.int64),
        mask_shares=np.zeros(6, np.float32),
    )
    index = {
        "key": np.asarray([b"a", b"b"]),
        "split": np.asarray([b"train", b"val"]),
        "place": np.asarray([1, 2], np.int64),
        "balanced": np.asarray([1, 0], np.int64),
        "labels": np.asarray([[1, -1], [0, 0]], np.float32),
    }
    rows, out = np.arange(4), Path("out")
    none = Arrays.empty(recipe.input, recipe.labels)
    return {
        "arrays": Run(recipe, arrays, rows, out, 30),
        "weights": Run(recipe, arrays, rows, out, 30, np.asarray([4, 5]), str(weights), mixed_precision=True),
        "shards": Run(recipe, none, np.zeros(0, np.int64), out, 30, shards=Prepared(recipe, [], {}, index)),
    }


@pytest.mark.parametrize("name", STORED)
def test_a_run_that_an_earlier_version_began_goes_on(name: str, tmp_path: Path) -> None:
    (tmp_path / "first.npz").write_bytes(b"first weights")
    run = stored_runs(tmp_path / "first.npz")[name]
    assert hashlib.sha256(identity(run).encode()).hexdigest() == STORED[name]


@pytest.mark.parametrize(
    "changed",
    [{"steps": 31}, {"train_rows": np.arange(3)}, {"weights": "imagenet"}, {"mixed_precision": True}],
    ids=lambda changed: next(iter(changed)),
)
def test_another_training_has_another_identity(changed: dict[str, Any], tmp_path: Path) -> None:
    run = stored_runs(tmp_path)["arrays"]
    assert identity(Run(**{**vars(run), **changed})) != identity(run)
    assert identity(Run(**{**vars(run), "out": tmp_path})) == identity(run), "a folder may be moved"


def test_what_a_card_says_may_change_while_a_run_goes_on(tmp_path: Path) -> None:
    run = stored_runs(tmp_path)["arrays"]
    shared = load_recipe("pneumonia_shared")
    assert shared.packages, "a recipe of several packages"
    reworded = shared.model_copy(update={"packages": {}, "description": "other words"})
    with_packages, without = (Run(**{**vars(run), "recipe": recipe}) for recipe in (shared, reworded))
    assert identity(with_packages) == identity(without)
