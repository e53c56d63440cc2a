"""What ``prepare`` writes, ``train`` takes: classes and outlines from shards, and many small files in flat memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.chest import covid_folder, kermany_folder
from tests.builders.rsna_tree import SLICES, write_tree
from tests.builders.skin import write_lesions
from training.package.order import Order
from training.package.plain import PackagerError
from training.recipe import Recipe, load_recipe
from training.shards.prepare import prepare_dataset
from training.shards.prepared import open_prepared
from training.train import train_all
from worker.packages.package import load


def _toy(name: str, **changes: Any) -> Recipe:
    recipe = load_recipe(name)
    schedule = recipe.schedule.model_copy(
        update={"steps": 4, "steps_per_epoch": 2, "epochs": 0, "batch_size": 4, "warmup_steps": 0, "frozen": ()}
    )
    return recipe.model_copy(update={"schedule": schedule, **changes})


def test_four_classes_are_trained_on_shards_and_measured_on_the_films(tmp_path: Path) -> None:
    kermany_folder(tmp_path / "films" / "kermany224")
    covid_folder(tmp_path / "films" / "covid_ieee8023")
    shipped = load_recipe("pneumonia4")
    architecture = {"builder": "pneumonia_cnn", "classes": 4, "filters": [4], "dense": [4], "dropout": [0.1]}
    recipe = _toy(
        "pneumonia4",
        input=shipped.input.model_copy(update={"height": 32, "width": 32}),
        architecture={**architecture, "softmax_groups": [[0, 1, 2, 3]]},
        shares={"kermany:kind=bacterial": 0.3, "kermany:normal=1": 0.3, "*:kind=covid19,age_group=adult": 0.4},
    )
    report = prepare_dataset("chest_films", tmp_path / "films", recipe, tmp_path / "shards", shard_size=16, jobs=1)
    prepared = open_prepared(tmp_path / "shards", recipe)
    bacterial, normal, covid = (keep(prepared.index) for _, keep in prepared.groups())
    assert bacterial.sum() == normal.sum() == 4 and covid.sum() == 3
    assert (prepared.index["labels"][bacterial] == [0, 1, 0, 0]).all()
    order = Order(recipe, tmp_path / "films", tmp_path / "run", shards=tmp_path / "shards")
    with pytest.raises(PackagerError, match="give --data beside --shards"):
        train_all(order)
    directory = train_all(Order(**{**vars(order), "measured": True}))
    assert directory is not None
    card = load(directory).card
    assert card.metrics["test"]["four_classes"]["n"] == 12 + 6, "as from --data"
    assert card.training_data["kermany_train"]["films"] == 12, "films that were not decoded are counted"
    assert report["written"]["items"] == 36 + 36


def test_outlines_are_trained_on_shards_and_measured_on_the_pictures(tmp_path: Path) -> None:
    write_lesions(tmp_path / "ham", n=56)
    shipped = load_recipe("lesion_unet")
    recipe = _toy(
        "lesion_unet",
        input=shipped.input.model_copy(update={"height": 48, "width": 64}),
        architecture={**shipped.architecture, "filters": [4, 8]},
    )
    prepare_dataset("ham10000", tmp_path / "ham", recipe, tmp_path / "shards", jobs=1)
    order = Order(recipe, tmp_path / "ham", tmp_path / "run", shards=tmp_path / "shards", measured=True)
    directory = train_all(order)
    assert directory is not None
    assert load(directory).card.metrics["test"]["outline"]["mean_iou"]["n"] > 0
    log = [json.loads(line) for line in (tmp_path / "run/final/log.jsonl").read_text().splitlines()]
    assert {"iou", "val_iou", "val_loss"} <= set(log[-1])


PREPARE = """
import resource, sys
from pathlib import Path
from training.recipe import load_recipe
from training.shards import prepare, writing
recipe = load_recipe("rsna_inceptionv3")
recipe = recipe.model_copy(update={"input": recipe.input.model_copy(update={"height": 32, "width": 32})})
peaks = []
noted = writing._note
def note(path, written):
    noted(path, written)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print("note", path.name, flush=True)
writing._note = note
root, out = map(Path, sys.argv[1:])
report = prepare.prepare_dataset("rsna", root, recipe, out, shard_size=100, jobs=1)
print("peaks", peaks[0], peaks[-1], flush=True)
"""


def _child(root: Path, out: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": ".", "TF_CPP_MIN_LOG_LEVEL": "3", "XDG_CACHE_HOME": str(out / "cache")}
    command = [sys.executable, "-c", PREPARE, str(root), str(out / "shards")]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.timeout(600)
def test_many_small_files_in_flat_memory_and_on_after_a_kill(tmp_path: Path) -> None:
    files = 40 * SLICES
    write_tree(tmp_path / "tree", files)
    first = _child(tmp_path / "tree", tmp_path / "out")
    assert first.stdout is not None
    seen = []
    for line in first.stdout:
        seen.append(line.split()[1])
        if ".tfrecord" in line:
            break
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait(30) == -signal.SIGKILL
    shard = tmp_path / "out" / "shards" / seen[-1]
    written_at, started = shard.stat().st_mtime_ns, time.monotonic()
    second = _child(tmp_path / "tree", tmp_path / "out")
    output, _ = second.communicate(timeout=500)
    assert second.returncode == 0, output
    assert shard.stat().st_mtime_ns == written_at, "a finished shard is not made again"
    again = {line.split()[1] for line in output.splitlines() if line.startswith("note")}
    assert again.isdisjoint(seen), "nor is anything that was looked over"
    begin_mib, end_mib = (float(value) for value in output.splitlines()[-1].split()[1:])
    assert end_mib - begin_mib < 60, "memory does not grow with the shards"
    index = np.load(tmp_path / "out" / "shards" / "index.npz")
    report = json.loads((tmp_path / "out" / "shards" / "report.json").read_text())
    assert report["before"]["items"] == files and len(index["key"]) == report["written"]["items"]
    assert time.monotonic() - started < 500
