"""A network's outputs for the rows of a data set, view by view, and the probabilities that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.datasets.base import UNREADABLE, DataSetError, Item
from training.evaluation.scoring import Forward
from worker.packages.card import InputSpec
from worker.packages.preprocessing.compose import compose
from worker.packages.probabilities import sigmoid
from worker.pipelines.dermoscopy.pipeline import VIEWS


@dataclass(frozen=True)
class ViewLogits:
    """Outputs for rows, in the order of ``keys``.

    Attributes
    ----------
    logits : float32 (v, n, labels)
        One layer a view.
    p_mask : float32 (n, h, w) or None
        Mean over the views.
    left_out : tuple of str
        Keys of rows whose picture cannot be read.
    """

    keys: tuple[str, ...]
    logits: np.ndarray
    p_mask: np.ndarray | None
    left_out: tuple[str, ...] = ()

    def p(self, bias: np.ndarray, temperature: float) -> np.ndarray:
        """Calibrated probabilities (n, labels): softmax of each view, then the mean, as the pipeline does."""
        return np.asarray(softmax((self.logits - bias) / temperature).mean(axis=0))

    def save(self, path: Path) -> None:
        """As npz, masks as uint8."""
        mask = np.zeros(0) if self.p_mask is None else np.round(self.p_mask * 255).astype(np.uint8)
        np.savez_compressed(
            path, keys=np.asarray(self.keys), logits=self.logits, p_mask=mask, left_out=np.asarray(self.left_out, str)
        )

    @classmethod
    def read(cls, path: Path) -> ViewLogits:
        """What :meth:`save` wrote."""
        with np.load(path) as stored:
            mask = stored["p_mask"].astype(np.float32) / 255 if stored["p_mask"].ndim == 3 else None
            left_out = tuple(str(k) for k in stored["left_out"]) if "left_out" in stored else ()
            return cls(tuple(str(k) for k in stored["keys"]), stored["logits"].astype(np.float32), mask, left_out)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def forward_of(model: object) -> Forward:
    """Logits and mask probabilities of composed input from a Keras model."""

    def forward(x: np.ndarray) -> dict[str, np.ndarray]:
        from keras import ops

        out = model.predict_on_batch(x)  # type: ignore[attr-defined]
        outputs = {name: np.asarray(ops.convert_to_numpy(value), dtype=np.float32) for name, value in out.items()}
        if "mask_logits" in outputs:
            outputs["mask"] = sigmoid(outputs.pop("mask_logits"))
        return outputs

    return forward


def score(
    forward: Forward,
    items: Sequence[Item],
    pixels: Callable[[Item], np.ndarray],
    spec: InputSpec,
    views: Sequence[str] = ("plain",),
    batch: int = 32,
) -> ViewLogits:
    """Score items one batch at a time through :func:`worker.packages.preprocessing.compose.compose`.

    Parameters
    ----------
    pixels : callable
        ``DataSet.pixels``.
    views : sequence of str
        Names of :data:`worker.pipelines.dermoscopy.pipeline.VIEWS`.

    Raises
    ------
    DataSetError
        If no picture can be read.
    """
    logits: list[list[np.ndarray]] = [[] for _ in views]
    masks: list[np.ndarray] = []
    keys: list[str] = []
    left_out: list[str] = []
    for start in range(0, len(items), batch):
        rows = []
        for item in items[start : start + batch]:
            try:
                rows.append(compose(pixels(item)[None], spec))
                keys.append(item.key)
            except UNREADABLE:
                left_out.append(item.key)
        if not rows:
            continue
        x = np.concatenate(rows)
        count = len(x)
        x = np.concatenate([x, np.repeat(x[-1:], batch - count, axis=0)]) if count < batch else x
        total: np.ndarray | None = None
        for i, name in enumerate(views):
            down, right = VIEWS[name]
            out = forward(np.ascontiguousarray(x[:, ::down, ::right]))
            logits[i].append(out.get("logits", np.zeros((batch, 0), np.float32))[:count])
            if "mask" in out:
                part = out["mask"][:count, ::down, ::right] / len(views)
                total = part if total is None else total + part
        if total is not None:
            masks.append(total)
    if not keys:
        raise DataSetError("no picture of this part can be read")
    return ViewLogits(
        tuple(keys),
        np.stack([np.concatenate(parts) for parts in logits]),
        np.concatenate(masks) if masks else None,
        tuple(left_out),
    )
