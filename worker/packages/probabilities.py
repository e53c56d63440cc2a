"""From a network's logits to the probabilities of labels, slices and studies, in training and in service.

``card.parameters`` holds what was chosen on out-of-fold predictions::

    "evidence": {"neighbour": 0.25, "top": 4, "weights": {"any": {"own": 0.1, "mask": 0.7, "bias": -1.2}}}
    "sequence": {"label": "any", "mask": [[0.0, 4], [0.33, 4]], "mean": [...], "sd": [...], "weights": [...],
                 "bias": 0.2, "members": [{"hidden": {...}, "correction": {...}}, ...]}    (or null)
    "aggregation": {"smooth": [0.25, 0.5, 0.25], "top_k": 2, "temperature": {"any": 1.3}, "bias": {"any": 0.4}}
                   (with ``weights`` also as in :mod:`worker.packages.patient_score`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worker.packages.card import Calibration, Card
from worker.packages.patient_score import study_features, weighted_logit

EDGE = 1e-6
MASK_EDGE = 1e-3
SEQUENCE_REACH = 2
"""Slices on either side that the sequence stage sees; the first and last stand in for missing ones."""


def softmax_groups(card: Card) -> list[list[int]]:
    """Groups of labels that exclude each other (``architecture["softmax_groups"]``, by name or index); often none."""
    groups = card.architecture.get("softmax_groups", [])
    return [[card.labels.index(i) if isinstance(i, str) else int(i) for i in group] for group in groups]


def label_probabilities(logits: np.ndarray, card: Card) -> tuple[np.ndarray, np.ndarray]:
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


def slice_probabilities(
    outputs: Mapping[str, np.ndarray], parameters: Mapping[str, Any], labels: Sequence[str]
) -> np.ndarray:
    """Probabilities of the slices of one series, with what the mask says on a slice and beside it.

    Parameters
    ----------
    outputs : mapping
        Of :meth:`worker.packages.runtimes.tensorflow.Package.predict` for the slices in spatial order: ``p``, ``p_raw``
        (n, labels) and, from a segmenter, ``mask`` (n, h, w).
    parameters : mapping
        ``card.parameters``; without ``evidence`` and ``sequence`` the network's own calibrated ``p`` stands.

    Returns
    -------
    ndarray of float64, shape (n, labels)
        ``sigmoid(own * logit(p_raw) + mask * evidence + bias)`` for each label that has weights; for the label of
        ``sequence`` the sigmoid of :func:`sequence_logits`.
    """
    p = np.array(outputs["p"], dtype=np.float64)
    chosen, stage = parameters.get("evidence"), parameters.get("sequence")
    if "mask" not in outputs or not (chosen or stage):
        return p
    own = logit(np.asarray(outputs["p_raw"], dtype=np.float64))
    if chosen:
        evidence = mask_evidence(outputs["mask"], float(chosen["neighbour"]), int(chosen["top"]))
        for column, label in enumerate(labels):
            weights = chosen["weights"].get(label)
            if weights is not None:
                z = weights["own"] * own[:, column] + weights["mask"] * evidence + weights["bias"]
                p[:, column] = _precise_sigmoid(z)
    if stage:
        column = list(labels).index(stage["label"])
        ways = [mask_evidence(outputs["mask"], float(neighbour), int(top)) for neighbour, top in stage["mask"]]
        p[:, column] = _precise_sigmoid(sequence_logits(np.column_stack([own[:, column], *ways]), stage))
    return p


def _precise_sigmoid(z: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (np.tanh(0.5 * z) + 1.0))


def sequence_logits(features: np.ndarray, chosen: Mapping[str, Any]) -> np.ndarray:
    """Logits of a study's slices by the sequence stage (:mod:`training.head_ct.sequence`).

    Parameters
    ----------
    features : ndarray, shape (n, features)
        Of the slices in spatial order: the network's own logit, then the mask's evidence in the ways of the card.
    chosen : mapping
        ``card.parameters["sequence"]``: a logistic score (``weights``, ``bias``) and the ``members`` whose mean
        corrects it, each two symmetric kernels of width three with tanh between.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    raw = np.asarray(features, dtype=np.float64)
    z = raw @ np.asarray(chosen["weights"]) + float(chosen["bias"])
    if not chosen["members"]:
        return np.asarray(z)
    x = (raw - np.asarray(chosen["mean"])) / np.asarray(chosen["sd"])
    x = np.pad(x, ((SEQUENCE_REACH, SEQUENCE_REACH), (0, 0)), mode="edge")
    corrections = []
    for member in chosen["members"]:
        hidden = np.tanh(_along(x, member["hidden"]))
        corrections.append(_along(hidden, member["correction"]))
    return np.asarray(z + np.mean(corrections, axis=0))


def _along(x: np.ndarray, layer: Mapping[str, Any]) -> np.ndarray:
    """One symmetric kernel of width three along the first axis, which it shortens by two."""
    beside = (x[:-2] + x[2:]) @ np.asarray(layer["beside"])
    return np.asarray(x[1:-1] @ np.asarray(layer["middle"]) + beside + np.asarray(layer["bias"]))


def mask_evidence(mask: np.ndarray, neighbour: float, top: int) -> np.ndarray:
    """Logit of the mean of a slice's ``top`` highest mask probabilities, after mixing in the slices beside it.

    Parameters
    ----------
    mask : ndarray, shape (n, h, w)
        Probabilities in [0, 1], slices in spatial order; the first and last stand in for their missing neighbours.
    neighbour : float
        Share of either neighbour in the mix.
    """
    p = np.asarray(mask, dtype=np.float32)
    if neighbour:
        beside = np.concatenate([p[:1], p[:-1]]) + np.concatenate([p[1:], p[-1:]])
        p = (1.0 - 2.0 * neighbour) * p + neighbour * beside
    flat = _rows_of_the_highest(p, top)
    k = min(top, flat.shape[1])
    mean = np.partition(flat, flat.shape[1] - k, axis=1)[:, -k:].mean(axis=1, dtype=np.float64)
    return logit(mean, MASK_EDGE)


def _rows_of_the_highest(p: np.ndarray, count: int) -> np.ndarray:
    """Of pictures (n, h, w) the rows that hold their ``count`` highest values, flat: no more than so many do."""
    if count >= p.shape[1]:
        return p.reshape(len(p), -1)
    rows = np.argpartition(p.max(axis=2), p.shape[1] - count, axis=1)[:, -count:]
    return np.take_along_axis(p, rows[:, :, None], axis=1).reshape(len(p), -1)


def logit(p: np.ndarray, edge: float = EDGE) -> np.ndarray:
    """Log odds, with probabilities kept ``edge`` from the ends; NaN stays NaN."""
    edged = np.clip(p, edge, 1.0 - edge)
    return np.asarray(np.log(edged) - np.log1p(-edged))


def study_probability(
    p_slices: np.ndarray, parameters: Mapping[str, Any], finding: str = "any", areas: np.ndarray | None = None
) -> float:
    """Probability that the study has the finding.

    The slices' probabilities are smoothed along the study, the mean of the ``top_k`` highest is taken, and that score
    is calibrated; for the finding of an aggregation with weights, it is one of the features that make the score
    (:mod:`worker.packages.patient_score`).

    Parameters
    ----------
    p_slices : ndarray, shape (n,)
        Calibrated probabilities of the slices in spatial order.
    parameters : mapping
        ``card.parameters``; without ``aggregation`` the highest slice speaks for the study.
    areas : ndarray, shape (n, 2 * heights), optional
        Of :func:`worker.packages.patient_score.mask_areas`, where the network has a mask.

    Returns
    -------
    float
        In [0, 1]; NaN where a slice's probability is NaN.

    Raises
    ------
    ValueError
        Without slices, or without areas where the aggregation has weights.
    """
    chosen = parameters.get("aggregation", {})
    score = study_score(p_slices, tuple(chosen.get("smooth", (1.0,))), int(chosen.get("top_k", 1)))
    if "weights" in chosen and finding == chosen["finding"]:
        if areas is None:
            raise ValueError("the card's score of a study needs the mask, and there is none")
        features = study_features(p_slices, areas, score, float(chosen["height"]))
        return float(_precise_sigmoid(np.asarray(weighted_logit(features, chosen))))
    temperature = float(chosen.get("temperature", {}).get(finding, 1.0))
    bias = float(chosen.get("bias", {}).get(finding, 0.0))
    odds = float(logit(np.asarray(score)))
    return float(1.0 / (1.0 + np.exp(-(odds - bias) / temperature)))


def study_score(p_slices: np.ndarray, smooth: tuple[float, ...], top_k: int) -> float:
    """The score before calibration: smoothing (edges repeated), then the mean of the highest ``top_k``."""
    p = np.asarray(p_slices, dtype=np.float64).ravel()
    if not p.size:
        raise ValueError("a study without slices has no probability")
    if len(smooth) > 1:
        half = len(smooth) // 2
        kernel = np.asarray(smooth, dtype=np.float64)
        p = np.convolve(np.pad(p, half, mode="edge"), kernel[::-1] / kernel.sum(), mode="valid")
    k = min(max(1, top_k), p.size)
    return float(np.mean(np.sort(p)[-k:]))
