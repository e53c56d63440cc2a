"""Weights & Biases beside TensorBoard: an extra, offline unless the environment says otherwise."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firstread.errors import FirstreadError
from firstread.metrics.gpu import read_gpus
from training.fit.run import Run, identity
from training.fit.structure import output_shape, read_by

if TYPE_CHECKING:
    import keras

RUN_ID = "wandb.json"
"""Id and name of the W&B run that followed a training, in its folder."""
REPORTED = {
    "report": ("evaluation.html", "evaluation.json"),
    "structure": ("structure.txt", "structure.svg"),
}
"""Files of an artifact beside the package's own."""


class TrackingError(FirstreadError):
    """Weights & Biases was asked for and is not installed."""


class Tracker:
    """One W&B run: the network as a graph, metrics and load of the machine each epoch, confusion of the validation.

    ``WANDB_MODE`` decides where it goes; unset, it stays in files below the run's folder (``wandb sync`` sends them).
    What ships is no part of it: :func:`store_package` adds that when it is written.

    Raises
    ------
    TrackingError
        If the extra ``wandb`` is not installed.
    """

    def __init__(self, run: Run) -> None:
        self._wandb = require_tracking()
        config = {
            "recipe": run.recipe.model_dump(mode="json"),
            "steps": run.steps,
            "weights": Path(run.weights).name,
        }
        told = {"id": _run_id(run), "name": f"{run.recipe.name}-{run.out.name}"}
        (run.out / RUN_ID).write_text(json.dumps(told) + "\n", encoding="utf-8")
        self._run = _begin(self._wandb, run.out, told, config)

    def graph(self, model: keras.Model) -> None:
        """Log the network's layers and what each reads, before the first step."""
        graph = self._wandb.Graph()
        for layer in model.layers:
            graph.add_node(
                id=layer.name,
                name=layer.name,
                class_name=type(layer).__name__,
                output_shape=output_shape(layer),
                num_parameters=layer.count_params(),
            )
        for layer in model.layers:
            for name in dict.fromkeys(read_by(layer)):
                if name in graph.nodes_by_id:  # what is no layer, such as an adversary's turned gradient, has no node
                    graph.add_edge(graph.nodes_by_id[name], graph.nodes_by_id[layer.name])
        self._run.log({"network": graph}, step=0)

    def epoch(self, step: int, values: dict[str, float]) -> None:
        """Log an epoch's metrics, the load of the machine among them."""
        self._run.log(values, step=step)

    def confusion(self, step: int, truth: list[int], guess: list[int], names: list[str]) -> None:
        """Log the confusion matrix of the validation rows after an epoch."""
        plot = self._wandb.plot.confusion_matrix(y_true=truth, preds=guess, class_names=names)
        self._run.log({"confusion_matrix": plot}, step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def store_package(out: Path, directory: Path, version: str) -> list[str]:
    """Store the packages of a training, each as a version of an artifact, with its report and the network's structure.

    The weights are those that ship: of the best epoch, averaged, or joined, as the recipe says.

    Parameters
    ----------
    out : Path
        The training's folder; where W&B followed its last network (``final``), the artifacts are that run's.
    directory : Path
        The package, or a folder with several of them.

    Returns
    -------
    list of str
        Names of the artifacts.
    """
    wandb = require_tracking()
    path = out / "final" / RUN_ID
    told = {"id": _id_of(str(out.resolve()), out.name), "name": out.name}
    if path.is_file():
        told = json.loads(path.read_text(encoding="utf-8"))
    run, names = _begin(wandb, path.parent, told, {}), []
    for card in sorted(directory.rglob("card.json")):
        package = card.parent
        if package.name != version:
            continue
        artifact: Any = wandb.Artifact(name=package.parent.name, type="model", metadata={"version": version})
        artifact.add_dir(str(package), name="package")
        for part, folder in (("report", package.parents[2] / "evaluation"), ("structure", out / "final")):
            for name in REPORTED[part]:
                if (folder / name).is_file():
                    artifact.add_file(str(folder / name), name=f"{part}/{name}")
        run.log_artifact(artifact, aliases=["latest", version])
        names.append(package.parent.name)
    run.finish()
    return names


def require_tracking() -> Any:
    """The library of Weights & Biases; :class:`TrackingError` where it is not installed."""
    try:
        import wandb
    except ImportError as error:
        raise TrackingError("--wandb needs the extra: pip install 'firstread[wandb]'") from error
    return wandb


def _begin(wandb: Any, folder: Path, told: dict[str, str], config: dict[str, Any]) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    return wandb.init(
        project="firstread",
        name=told["name"],
        id=told["id"],
        resume="allow",
        dir=str(folder),
        mode=None if "WANDB_MODE" in os.environ else "offline",
        config=config,
    )


def _run_id(run: Run) -> str:
    """The same for a run that goes on, another for every folder and everything that training depends on."""
    return _id_of(f"{run.out.resolve()} {identity(run)}", f"{run.recipe.name}-{run.out.name}")


def _id_of(text: str, name: str) -> str:
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}".replace("/", "-")


def machine_load() -> dict[str, float]:
    """CPU share, resident memory of this process and free memory of the machine, in percent and MiB; NVIDIA's GPUs.

    ``machine/gpu0_percent`` and ``machine/gpu0_mib`` and so on, where ``nvidia-ml-py`` is installed and finds a GPU.
    """
    import psutil

    process = psutil.Process()
    load = {
        "machine/cpu_percent": float(psutil.cpu_percent()),
        "machine/process_mib": process.memory_info().rss / 2**20,
        "machine/free_mib": psutil.virtual_memory().available / 2**20,
    }
    for number, gpu in enumerate(read_gpus()):
        load |= {f"machine/gpu{number}_percent": 100 * gpu.busy, f"machine/gpu{number}_mib": gpu.used_bytes / 2**20}
    return load
