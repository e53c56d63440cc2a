"""From logits to raw and to calibrated probabilities, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worker.packages.card import Calibration, Card


def softmax_groups(card: Card) -> list[list[int]]:
    """Groups of labels that exclude each other (``architecture["softmax_groups"]``, by name or index); often none."""
    groups = card.architecture.get("softmax_groups", [])
    return [[card.labels.index(i) if isinstance(i, str) else int(i) for i in group] for group in groups]


def probabilities(logits: np.ndarray, card: Card) -> tuple[np.ndarray, np.ndarray]:
    """Raw and calibrated probabilities of logits (n, labels): two float32 arrays of that shape.

    A label on its own: ``sigmoid(logit)`` and ``sigmoid((logit - bias) / temperature)``. Labels of a softmax group:
    ``softmax(logits)`` and ``softmax((logits - bias) / temperature)`` with each label's own bias and temperature.
    """
    bias, temperature = calibration_vectors(card.calibration, card.labels)
    groups = softmax_groups(card)
    scaled = (logits - bias) / temperature
    return activate(logits, groups), activate(scaled, groups)


def calibration_vectors(calibration: Calibration, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Bias and temperature of each label, 0 and 1 where the card has none."""
    bias = np.asarray([calibration.bias.get(label, 0.0) for label in labels], dtype=np.float32)
    temperature = np.asarray([calibration.temperature.get(label, 1.0) for label in labels], dtype=np.float32)
    return bias, temperature


def activate(logits: np.ndarray, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Softmax over each group's columns, sigmoid elsewhere; NaN stays NaN."""
    out = sigmoid(logits)
    for group in groups:
        part = logits[:, list(group)]
        part = np.exp(part - part.max(axis=1, keepdims=True))
        out[:, list(group)] = part / part.sum(axis=1, keepdims=True)
    return out.astype(np.float32, copy=False)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function that does not overflow: float32."""
    half = np.tanh(0.5 * np.asarray(x, dtype=np.float32))
    return np.asarray(0.5 * (half + 1.0), dtype=np.float32)
