"""The sequence stage: a small convolution along a study that corrects what each slice says by the slices around it.

A slice's features are its own logit and the mask's evidence in several ways. Two layers of width three add a correction
to the logistic score of the slice; their kernels are symmetric, so that a study read from the vertex down scores as it
does from the foot up. With sixty patients the correction is drawn to zero, and several seeds are averaged. Keras fits
it (any backend); the card keeps plain numbers, which :func:`worker.packages.probabilities.sequence_logits` reads.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation import fitting
from training.fit.losses import masked_bce
from training.package.postprocess import (
    Fit,
    Postprocess,
    Predictions,
    fit,
    nested,
    sequence_features,
    sequence_scores,
    with_studies,
)
from worker.packages.card import Calibration
from worker.packages.probabilities import SEQUENCE_REACH

if TYPE_CHECKING:
    import keras

MASK_WAYS: tuple[tuple[float, int], ...] = ((0.0, 4), (0.0, 28), (0.33, 4), (0.33, 28))
"""Ways of ``postprocess.EVIDENCE`` that the stage hears: alone and with neighbours, point and area."""
MEMBERS, HIDDEN, STEPS, RATE, DECAY = 5, 4, 150, 0.02, 0.002
LENGTH_STEP = 32
"""Studies are padded to a multiple of this, so that one traced network serves all sets of folds."""
SEEDS = {"middle": 1, "beside": 2, "bias": 3}


RULE = (
    "the sequence stage serves where, on the predictions of folds that its fit did not see, patient log loss is lower "
    "and patient AUC not lower than with the stacking alone"
)


class Stages:
    """Fits of the first label's slices: the stacking, the sequence stage on top of it, and the better one by rule.

    A sequence stage is fitted once for a set of folds, however often it is asked for.
    """

    def __init__(self, steps: int = STEPS) -> None:
        self.steps = steps
        self._fitted: dict[str, dict[str, Any]] = {}

    def stacking(self, predictions: Predictions) -> Postprocess:
        """:func:`training.package.postprocess.fit`."""
        return fit(predictions)

    def sequence(self, predictions: Predictions) -> Postprocess:
        """Fitted on all rows; what follows the stage is chosen on its predictions for folds that it left out."""
        slices = replace(fit(predictions), sequence=self._sequence(predictions))
        return with_studies(slices, predictions, self._crossed(predictions, self._scored))

    def best(self, predictions: Predictions) -> Postprocess:
        """The sequence stage where :data:`RULE` holds on these rows, else the stacking."""
        stacking = self.stacking(predictions)
        if not has_sequence(predictions):
            return stacking
        plain = with_studies(stacking, predictions, self._crossed(predictions, lambda part: self.stacking(part)))
        with_sequence = self.sequence(predictions)
        before, after = (min(fitted.tried, key=_rank) for fitted in (plain, with_sequence))
        wins = after["log_loss"] < before["log_loss"] and after["auc"] >= before["auc"]
        return with_sequence if wins else stacking

    def _scored(self, predictions: Predictions) -> Postprocess:
        return Postprocess(Calibration(), {}, sequence=self._sequence(predictions))

    def _crossed(self, predictions: Predictions, fitter: Fit) -> np.ndarray:
        """Probabilities (n,) of slices by fits that did not see their fold."""
        p = np.zeros(len(predictions.folds))
        for fold, part, fitted in nested(predictions, list(np.unique(predictions.folds)), fitter):
            p[predictions.folds == fold] = fitted.p_slices(part)[:, 0]
        return p

    def _sequence(self, predictions: Predictions) -> dict[str, Any]:
        parts = (predictions.logits, predictions.labels, predictions.evidence, predictions.studies)
        key = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()
        if key not in self._fitted:
            self._fitted[key] = fit_sequence(predictions, self.steps)
        return self._fitted[key]


def has_sequence(predictions: Predictions) -> bool:
    """Whether these rows can carry the stage: a mask, and folds to leave out in turn with both kinds of study left."""
    if predictions.evidence is None:
        return False
    folds = np.unique(predictions.folds)
    left = [predictions.rows(predictions.folds != fold).study_labels() for fold in folds]
    return len(folds) > 1 and all((y == 1).any() and (y == 0).any() for y in left)


def _rank(row: dict[str, Any]) -> tuple[float, float]:
    return -round(float(row["auc"]), 3), float(row["log_loss"])


def fit_sequence(predictions: Predictions, steps: int = STEPS) -> dict[str, Any]:
    """Fit on slices and studies with known labels of the first label; give back the card's ``sequence``."""
    raw, y = sequence_features(predictions, MASK_WAYS), predictions.labels[:, 0]
    known = y >= 0
    prior = np.full(raw.shape[1], 0.5 / raw.shape[1])
    weights, bias = fitting.fit_logistic(y[known], raw[known], prior, ridge=1e-2)
    mean, sd = raw.mean(axis=0), raw.std(axis=0) + 1e-6
    chosen: dict[str, Any] = {
        "label": predictions.label_names[0],
        "mask": [list(way) for way in MASK_WAYS],
        "mean": mean.tolist(),
        "sd": sd.tolist(),
        "weights": weights.tolist(),
        "bias": bias,
        "members": [],
    }
    base = sequence_scores(chosen, predictions)
    chosen["members"] = _fit_members(predictions, (raw - mean) / sd, base, steps)
    return chosen


def _fit_members(predictions: Predictions, x: np.ndarray, base: np.ndarray, steps: int) -> list[dict[str, Any]]:
    rows = predictions.study_rows()
    length = -(-max(len(r) for r in rows) // LENGTH_STEP) * LENGTH_STEP
    inputs = np.zeros((len(rows), length + 2 * SEQUENCE_REACH, x.shape[1]), np.float32)
    offsets = np.zeros((len(rows), length), np.float32)
    slices = np.full((len(rows), length), -1.0, np.float32)
    for i, r in enumerate(rows):
        inputs[i] = np.pad(x[r], ((SEQUENCE_REACH, length - len(r) + SEQUENCE_REACH), (0, 0)), mode="edge")
        offsets[i, : len(r)] = base[r]
        offsets[i, len(r) :] = -1e4  # what is padded never speaks for the study
        slices[i, : len(r)] = predictions.labels[r, 0]
    model = _network(length, x.shape[1])
    _start(model)
    # the study's logit is the mean of two slices
    study = np.asarray([y if len(r) > 1 else -1 for y, r in zip(predictions.study_labels(), rows, strict=True)])
    targets = {
        "slices": np.repeat(slices[..., None], MEMBERS, axis=-1),
        "study": np.repeat(study[:, None].astype(np.float32), MEMBERS, axis=-1),
    }
    for _ in range(steps):
        model.train_on_batch([inputs, offsets], targets)
    return _members(model)


@cache
def _network(length: int, features: int) -> keras.Model:
    """The members side by side: inputs (length + 2 reach, features) and offsets (length,), logits of both kinds."""
    import keras
    from keras import ops

    class Along(keras.layers.Layer):  # type: ignore[misc]
        """A symmetric kernel of width three for each member: (b, l + 2, members, in) -> (b, l, members, out)."""

        def __init__(self, units: int, **options: Any) -> None:
            super().__init__(**options)
            self.units = units

        def build(self, shape: Any) -> None:
            ridge = keras.regularizers.L2(DECAY)
            for part in ("middle", "beside"):
                weight = self.add_weight(name=part, shape=(MEMBERS, shape[-1], self.units), regularizer=ridge)
                setattr(self, part, weight)
            self.bias = self.add_weight(name="bias", shape=(MEMBERS, self.units), initializer="zeros")

        def call(self, x: Any) -> Any:
            beside = x[:, :-2] + x[:, 2:]
            return (
                ops.einsum("blmf,mfh->blmh", x[:, 1:-1], self.middle)
                + ops.einsum("blmf,mfh->blmh", beside, self.beside)
                + self.bias
            )

    inputs = keras.Input((length + 2 * SEQUENCE_REACH, features), name="features")
    offsets = keras.Input((length,), name="offsets")
    x = ops.repeat(ops.expand_dims(inputs, 2), MEMBERS, axis=2)
    x = ops.tanh(Along(HIDDEN, name="hidden", dtype="float32")(x))
    x = Along(1, name="correction", dtype="float32")(x)[..., 0]
    slices = keras.layers.Identity(name="slices", dtype="float32")(x + ops.expand_dims(offsets, 2))
    highest = ops.top_k(ops.transpose(slices, (0, 2, 1)), 2)[0]
    study = keras.layers.Identity(name="study", dtype="float32")(ops.mean(highest, axis=-1))
    model = keras.Model([inputs, offsets], {"slices": slices, "study": study})
    loss = masked_bce()
    model.compile(keras.optimizers.Adam(RATE), loss={"slices": loss, "study": loss})
    return model


def _start(model: keras.Model) -> None:
    """Members begin with weights of their own seed and a correction of zero; the optimizer forgets what it learned."""
    for layer in ("hidden", "correction"):
        parts = []
        for variable in model.get_layer(layer).weights:
            rng = np.random.default_rng(SEEDS[variable.path.rsplit("/", 1)[-1]])
            zero = layer == "correction" or variable.path.endswith("/bias")
            scale = 0.0 if zero else 0.5 / np.sqrt(variable.shape[1])
            parts.append(rng.normal(0.0, 1.0, variable.shape) * scale)
        model.get_layer(layer).set_weights(parts)
    for variable in model.optimizer.variables if model.optimizer.built else ():
        if variable.path.endswith("learning_rate"):
            continue
        variable.assign(np.zeros(variable.shape))


def _members(model: keras.Model) -> list[dict[str, Any]]:
    hidden, last = model.get_layer("hidden").get_weights(), model.get_layer("correction").get_weights()
    return [
        {
            "hidden": {"middle": hidden[0][m].tolist(), "beside": hidden[1][m].tolist(), "bias": hidden[2][m].tolist()},
            "correction": {
                "middle": last[0][m, :, 0].tolist(),
                "beside": last[1][m, :, 0].tolist(),
                "bias": float(last[2][m, 0]),
            },
        }
        for m in range(MEMBERS)
    ]
