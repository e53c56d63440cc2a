"""Weights & Biases beside TensorBoard: an extra, offline unless the environment says otherwise."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from firstread.errors import FirstreadError
from training.fit.run import Run, identity


class TrackingError(FirstreadError):
    """Weights & Biases was asked for and is not installed."""


class Tracker:
    """One W&B run: metrics and load of the machine each epoch, the last checkpoint as an artifact at the end.

    ``WANDB_MODE`` decides where it goes; unset, it stays in files below the run's folder (``wandb sync`` sends them).

    Raises
    ------
    TrackingError
        If the extra ``wandb`` is not installed.
    """

    def __init__(self, run: Run) -> None:
        try:
            import wandb
        except ImportError as error:
            raise TrackingError("--wandb needs the extra: pip install 'firstread[wandb]'") from error
        self._wandb = wandb
        self._out = run.out
        self._run = wandb.init(
            project="firstread",
            name=f"{run.recipe.name}-{run.out.name}",
            id=_run_id(run),
            resume="allow",
            dir=str(run.out),
            mode=None if "WANDB_MODE" in os.environ else "offline",
            config={
                "recipe": run.recipe.model_dump(mode="json"),
                "steps": run.steps,
                "weights": Path(run.weights).name,
            },
        )

    def epoch(self, step: int, values: dict[str, float]) -> None:
        """Log an epoch's metrics, the load of the machine among them."""
        self._run.log(values, step=step)

    def confusion(self, step: int, truth: list[int], guess: list[int], names: list[str]) -> None:
        """Log the confusion matrix of the validation rows after an epoch."""
        plot = self._wandb.plot.confusion_matrix(y_true=truth, preds=guess, class_names=names)
        self._run.log({"confusion_matrix": plot}, step=step)

    def close(self, files: list[Path]) -> None:
        """Store files as a version of the model's artifact, and end the run."""
        artifact: Any = self._wandb.Artifact(name=self._run.name.replace("/", "-"), type="model")
        for path in files:
            if path.is_file():
                artifact.add_file(str(path))
        self._run.log_artifact(artifact)
        self._run.finish()


def _run_id(run: Run) -> str:
    """The same for a run that goes on, another for every folder and everything that training depends on."""
    text = f"{run.out.resolve()} {identity(run)}"
    return f"{run.recipe.name}-{run.out.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}".replace("/", "-")


def machine_load() -> dict[str, float]:
    """CPU share, resident memory of this process and free memory of the machine, in percent and MiB; NVIDIA's GPUs.

    ``machine/gpu0_percent`` and ``machine/gpu0_mib`` and so on, where ``nvidia-smi`` is there and answers in time.
    """
    import psutil

    process = psutil.Process()
    return {
        "machine/cpu_percent": float(psutil.cpu_percent()),
        "machine/process_mib": process.memory_info().rss / 2**20,
        "machine/free_mib": psutil.virtual_memory().available / 2**20,
        **gpu_load(),
    }


def gpu_load() -> dict[str, float]:
    """Use and memory of every GPU that ``nvidia-smi`` names; empty without it."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    load: dict[str, float] = {}
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.splitlines()
        for line in lines:
            index, percent, used_mib = (cell.strip() for cell in line.split(","))
            load |= {f"machine/gpu{index}_percent": float(percent), f"machine/gpu{index}_mib": float(used_mib)}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return load
