"""Where a run stands: weights, optimizer and notes in one file that is replaced whole."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from firstread.errors import FirstreadError
from worker.packages.weights import settle

if TYPE_CHECKING:
    import keras


BEST: Final = "best.npz"
"""Name of the checkpoint of the best epoch, beside that of the last."""


class TrainingError(FirstreadError):
    """Training cannot start or go on: a wrong initial loss, a loss that is not finite, a foreign checkpoint."""


@dataclass
class Checkpoint:
    """Weights, optimizer and random state of one run in one file, replaced atomically."""

    path: Path
    identity: str

    def step(self) -> int:
        """Steps that the checkpoint has behind it; 0 where there is none.

        Raises
        ------
        TrainingError
            If the checkpoint is of a run with another recipe, other rows or another length.
        """
        if not self.path.is_file():
            return 0
        with np.load(self.path) as stored:
            if str(stored["identity"]) != self.identity:
                raise TrainingError(f"{self.path} belongs to another run; choose another folder or delete it")
            return int(stored["step"])

    def stopped(self) -> bool:
        """Whether early stopping ended the run."""
        if not self.path.is_file():
            return False
        with np.load(self.path) as stored:
            return bool(stored["stopped"])

    def notes(self) -> dict[str, Any]:
        """What callbacks keep over a restart (best loss, epochs without a better one)."""
        if not self.path.is_file():
            return {}
        with np.load(self.path) as stored:
            values: dict[str, Any] = json.loads(str(stored["notes"]))
        return values

    def save(self, model: keras.Model, step: int, notes: dict[str, Any], stopped: bool = False) -> None:
        """Write everything that the next step depends on."""
        arrays = {f"m{i}": np.asarray(v) for i, v in enumerate(_values(model.variables))}
        arrays |= {f"o{i}": np.asarray(v) for i, v in enumerate(_values(model.optimizer.variables))}
        partial = self.path.with_suffix(".part.npz")
        np.savez(partial, identity=self.identity, step=step, stopped=stopped, notes=json.dumps(notes), **arrays)  # type: ignore[arg-type]
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, self.path)

    def restore(self, model: keras.Model, with_optimizer: bool) -> None:
        """Put the stored values back into the model and, if asked, its optimizer."""
        with np.load(self.path) as stored:
            for i, variable in enumerate(model.variables):
                variable.assign(stored[f"m{i}"])
            settle(model)
            for i, variable in enumerate(model.optimizer.variables if with_optimizer else ()):
                variable.assign(stored[f"o{i}"])


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    from keras import ops

    # a variable that tf.distribute mirrors is no array until it is read
    read = [getattr(v.value, "read_value", lambda v=v: v.value) for v in variables]
    return [ops.convert_to_numpy(value()) for value in read]
