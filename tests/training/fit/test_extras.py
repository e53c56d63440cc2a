"""Training beside the plain way: Weights & Biases offline, two devices under tf.distribute, and JAX."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firstread.metrics.gpu import read_gpus
from tests.builders.toy_runs import TOY
from tests.builders.toy_sets import write_ct_ich, write_phe_sich
from training.datasets.arrays import open_arrays
from training.fit.run import Run
from training.fit.tracking import TrackingError, _run_id, machine_load
from training.package.order import Order
from training.recipe import load_recipe
from training.train import train_all
from worker.packages.package import load

SCRIPT = """
import sys
from pathlib import Path
import tensorflow as tf
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
if sys.argv[3] == "two":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from training.datasets.arrays import open_arrays
from training.evaluation import metrics
from training.fit.crossval import final_run
from training.fit.loop import train
from training.package.order import Order
from training.recipe import Folds, load_recipe
from training.train import train_all
metrics.REPEATS = 20
recipe = load_recipe(sys.argv[1])
recipe = recipe.model_copy(update={"task": "toy", "folds": Folds(validation={"ct_ich": 0.4, "phe_sich": 0.4})})
data, out = Path(sys.argv[1]).parent, Path(sys.argv[2])
if sys.argv[3] == "two":
    train(final_run(recipe, open_arrays(recipe, data, None), out, "none", distribute=True))
else:
    train_all(Order(recipe, data, out, wandb=True, version="3.1.0"))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("extras")
    write_ct_ich(root / "ct_ich")
    write_phe_sich(root / "phe_sich")
    text = TOY.format(steps=6).replace("steps_per_epoch = 5", "steps_per_epoch = 3\nema = 0.5")
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
    return [json.loads(line) for line in (out / "final" / "log.jsonl").read_text().splitlines()]


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
    assert np.load(tmp_path / "two" / "final" / "checkpoint.npz")["step"] == 6


def test_runs_in_two_folders_are_two_runs(data: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(data / "toy.toml"))
    arrays = open_arrays(recipe, data, None)

    def id_of(out: Path, seed: int = 1) -> str:
        return _run_id(Run(recipe.model_copy(update={"seed": seed}), arrays, np.arange(8), out, 6))

    first = id_of(tmp_path / "a" / "fold_0")
    assert first == id_of(tmp_path / "a" / "fold_0")
    assert len({first, id_of(tmp_path / "b" / "fold_0"), id_of(tmp_path / "a" / "fold_0", seed=2)}) == 3


def test_without_the_library_nothing_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    order = Order(load_recipe("hospital_head_ct"), tmp_path / "no data", tmp_path / "run", wandb=True)
    with pytest.raises(TrackingError, match="needs the extra: pip install"):
        train_all(order)


def test_the_load_of_the_machine_has_every_gpu_and_no_zero_in_place_of_one() -> None:
    load = machine_load()
    assert {name for name in load if "gpu" not in name} == {
        "machine/cpu_percent",
        "machine/process_mib",
        "machine/free_mib",
    }
    gpus = {name for name in load if "gpu" in name}
    assert gpus == {f"machine/gpu{n}_{unit}" for n in range(len(read_gpus())) for unit in ("percent", "mib")}


def records_of(folder: Path) -> Iterator[Any]:
    """Every record of the W&B runs below a folder, in the order of the runs' beginnings."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.rglob("offline-run-*/*.wandb")):
        for stored in entries(path.read_bytes()):
            record = Record()
            record.ParseFromString(stored)
            yield record


def entries(log: bytes, block: int = 1 << 15, head: int = 7) -> Iterator[bytes]:
    """Entries of a log as LevelDB writes it, behind W&B's own seven bytes: checksum, length, and which part it is."""
    place, entry = head, b""
    while place + head <= len(log):
        left = block - place % block
        if left < head:
            place += left
            continue
        size, part = int.from_bytes(log[place + 4 : place + 6], "little"), log[place + 6]
        entry += log[place + head : place + head + size]
        place += head + size
        if part in (1, 4):  # a whole one, or the last part of one
            yield entry
            entry = b""


@pytest.mark.timeout(300)
def test_weights_and_biases_offline_hold_figures_confusion_and_the_network(
    tracked: tuple[Path, list[dict[str, float]]],
) -> None:
    kept = list(records_of(tracked[0]))
    logged = {item.key or item.nested_key[0] for record in kept for item in record.history.item}
    assert {"loss", "val_loss", "val_accuracy", "machine/cpu_percent", "confusion_matrix_table", "network"} <= logged
    (graph,) = tracked[0].rglob("*.graph.json")
    network = json.loads(graph.read_text())
    nodes = {node["name"]: node for node in network["nodes"]}
    assert nodes["logits"]["class_name"] == "Dense" and nodes["logits"]["num_parameters"] > 6
    assert [edge[0] for edge in network["edges"] if edge[1] == "logits"] != []


def test_weights_and_biases_get_the_package_that_ships(tracked: tuple[Path, list[dict[str, float]]]) -> None:
    (package,) = tracked[0].rglob("3.1.0")
    artifacts = [record.artifact for record in records_of(tracked[0]) if record.WhichOneof("record_type") == "artifact"]
    (model,) = [artifact for artifact in artifacts if artifact.type == "model"]
    assert model.name == "toy" and set(model.aliases) == {"latest", "3.1.0"}
    digests = {entry.path: entry.digest for entry in model.manifest.contents}
    for path in package.iterdir():
        assert digests[f"package/{path.name}"] == b64encode(md5(path.read_bytes()).digest()).decode(), path.name
    assert {"package/card.json", "package/weights.npz", "package/golden.npz"} < set(digests)
    assert {"report/evaluation.html", "structure/structure.txt", "structure/structure.svg"} < set(digests)
    last = np.load(tracked[0] / "final" / "checkpoint.npz")["m0"]
    with np.load(package / "weights.npz") as weights:
        like = [weights[name] for name in weights.files if weights[name].shape == last.shape]
    assert like and not any(np.allclose(value, last, atol=1e-3) for value in like), "averages, and not the last step"


def test_the_offline_runs_can_be_sent(tracked: tuple[Path, list[dict[str, float]]]) -> None:
    runs = sorted(path.parent for path in tracked[0].rglob("offline-run-*/*.wandb"))
    assert len(runs) == 2 and len({path.name.partition("-toy-")[2] for path in runs}) == 1, "of one id: one run"
    done = subprocess.run(
        [str(Path(sys.executable).with_name("wandb")), "sync", "--dry-run", *map(str, runs)],
        env={**os.environ, "HOME": str(tracked[0] / "home")},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0 and "Would sync" in done.stdout + done.stderr
    assert all(path.name in done.stdout + done.stderr for path in runs)


JAX = Path(__file__).parents[3] / ".tools" / "jax" / "bin" / "python"
"""Of an environment without TensorFlow: `make soak` makes it from the lock `jax`."""
SCORE = """
import sys
from pathlib import Path
import numpy as np
from worker.packages.package import load
out = load(Path(sys.argv[1])).predict(np.load(sys.argv[2]))
np.savez(sys.argv[3], **out)
"""


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_what_jax_trains_is_served_by_tensorflow_with_the_same_numbers(data: Path, tmp_path: Path) -> None:
    if not JAX.is_file():
        pytest.skip("no environment with JAX")
    text = (data / "toy.toml").read_text().replace('task = "bleed"', 'task = "toy"')
    head, tail = text.split("[folds]")
    folds = "[folds]\nvalidation = { ct_ich = 0.4, phe_sich = 0.4 }\n[card]"
    (tmp_path / "toy.toml").write_text(head + folds + tail.split("[card]")[1])
    environment = {**os.environ, "PYTHONPATH": ".", "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}

    def with_jax(*arguments: str) -> str:
        done = subprocess.run(
            [str(JAX), *arguments], env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    told = with_jax(
        "-c", "import keras, importlib.util as u; print(keras.backend.backend(), u.find_spec('tensorflow'))"
    )
    assert told.split() == ["jax", "None"]
    out = tmp_path / "run"
    with_jax("-m", "firstread_cli.main", "train", str(tmp_path / "toy.toml"), "--data", str(data), "--out", str(out))
    (directory,) = out.glob("package/toy/*")
    package = load(directory)
    spec = package.card.input
    x = np.random.default_rng(0).random((3, spec.height, spec.width, spec.channels), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    with_jax("-c", SCORE, str(directory), str(tmp_path / "x.npy"), str(tmp_path / "theirs.npz"))
    ours = package.predict(x)
    with np.load(tmp_path / "theirs.npz") as theirs:
        assert set(theirs.files) == set(ours) and {"p", "mask"} <= set(ours)
        for name, value in ours.items():
            np.testing.assert_allclose(value, theirs[name], atol=1e-5, err_msg=name)
