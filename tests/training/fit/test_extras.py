"""Training beside the plain way: Weights & Biases offline, and two devices under tf.distribute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.builders.toy_runs import TOY
from tests.builders.toy_sets import write_ct_ich, write_phe_sich
from training.datasets.arrays import open_arrays
from training.fit.run import Run
from training.fit.tracking import _run_id, gpu_load, machine_load
from training.recipe import load_recipe

SCRIPT = """
import json, sys
from pathlib import Path
import tensorflow as tf
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
if sys.argv[3] == "two":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import numpy as np
from training.fit.loop import train
from training.fit.run import Run
from training.datasets.arrays import open_arrays
from training.recipe import load_recipe
recipe = load_recipe(sys.argv[1])
arrays = open_arrays(recipe, Path(sys.argv[1]).parent, None)
out = Path(sys.argv[2])
run = Run(recipe, arrays, np.arange(len(arrays)), out, recipe.schedule.steps, val_rows=np.arange(12),
          distribute=sys.argv[3] == "two", wandb=sys.argv[3] == "wandb")
train(run)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("extras")
    write_ct_ich(root / "ct_ich")
    write_phe_sich(root / "phe_sich")
    text = TOY.format(steps=6).replace("steps_per_epoch = 5", "steps_per_epoch = 3\nearly_stopping = 9")
    (root / "toy.toml").write_text(text)
    return root


def train_in_child(data: Path, out: Path, kind: str, **env: str) -> list[dict[str, float]]:
    """Train the toy recipe in a process of its own; the lines of its log."""
    # the devices of TensorFlow are settled once a process, and W&B starts a service of its own
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(data / "toy.toml"), str(out), kind],
        env={**os.environ, "PYTHONPATH": ".", "TF_CPP_MIN_LOG_LEVEL": "3", **env},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def tracked(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, float]]]:
    """Folder and log of a run on one device, which Weights & Biases followed offline."""
    out = tmp_path_factory.mktemp("tracked")
    return out, train_in_child(data, out, "wandb", WANDB_MODE="offline", WANDB_SILENT="true", HOME=str(out / "home"))


@pytest.mark.timeout(600)
def test_two_devices_learn_from_the_same_loss_as_one(
    data: Path, tracked: tuple[Path, list[dict[str, float]]], tmp_path: Path
) -> None:
    one, two = tracked[1], train_in_child(data, tmp_path / "two", "two")
    assert [line["step"] for line in one] == [line["step"] for line in two] == [3, 6]
    # batch normalization sees half a batch on each device, so that the two are alike and not the same
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=0.15)
    assert two[1]["loss"] < two[0]["loss"]
    assert np.load(tmp_path / "two" / "checkpoint.npz")["step"] == 6


def test_runs_in_two_folders_are_two_runs(data: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(data / "toy.toml"))
    arrays = open_arrays(recipe, data, None)

    def id_of(out: Path, seed: int = 1) -> str:
        return _run_id(Run(recipe.model_copy(update={"seed": seed}), arrays, np.arange(8), out, 6))

    first = id_of(tmp_path / "a" / "fold_0")
    assert first == id_of(tmp_path / "a" / "fold_0")
    assert len({first, id_of(tmp_path / "b" / "fold_0"), id_of(tmp_path / "a" / "fold_0", seed=2)}) == 3


def test_load_of_every_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_load() == {}
    tool.write_text("#!/bin/sh\necho '0, 93, 20480'\necho '1, 0, 12'\n")
    tool.chmod(0o755)
    assert gpu_load() == {
        "machine/gpu0_percent": 93.0,
        "machine/gpu0_mib": 20480.0,
        "machine/gpu1_percent": 0.0,
        "machine/gpu1_mib": 12.0,
    }
    assert machine_load()["machine/gpu0_percent"] == 93.0
    tool.write_text("#!/bin/sh\necho no driver; exit 9\n")
    assert gpu_load() == {}


@pytest.mark.timeout(300)
def test_weights_and_biases_offline_hold_figures_confusion_and_model(
    tracked: tuple[Path, list[dict[str, float]]],
) -> None:
    (file,) = tracked[0].rglob("*.wandb")
    stored = file.read_bytes()
    for name in (b"val_loss", b"confusion_matrix", b"machine/cpu_percent", b"model.keras", b"checkpoint.npz"):
        assert name in stored, name
