"""Losses on logits whose targets may be unknown (-1), in Keras ops for every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Loss = Callable[[Any, Any], Any]


def masked_bce(
    weights: Sequence[float] | None = None, smoothing: float = 0.0, positive_weight: float | Sequence[float] = 1.0
) -> Loss:
    """Binary cross-entropy over the known entries of (n, labels), as a weighted mean.

    ``weights`` has one number a label; ``positive_weight`` says how much more a positive counts than a negative, for
    all labels or for each, where classes are balanced by the loss and not by what is drawn.
    """

    def loss(y_true: Any, logits: Any) -> Any:
        from keras import ops

        known = ops.cast(y_true >= 0, logits.dtype)
        target = ops.clip(y_true, 0, 1) * (1 - smoothing) + smoothing / 2
        terms = _bce(target, logits) * known
        if weights is not None:
            scale = ops.reshape(ops.convert_to_tensor(list(weights), dtype=logits.dtype), (1, -1))
            terms, known = terms * scale, known * scale
        if positive_weight != 1.0:
            more = ops.reshape(ops.convert_to_tensor(positive_weight, dtype=logits.dtype), (1, -1))
            scale = 1 + ops.clip(y_true, 0, 1) * (more - 1)
            terms, known = terms * scale, known * scale
        return ops.sum(terms) / ops.maximum(ops.sum(known), 1.0)

    return loss


def mask_loss(bce_weight: float = 5.0, dice_weight: float = 1.0) -> Loss:
    """Cross-entropy and soft Dice (Milletari et al. 2016) over pictures whose mask is known, Dice over the batch."""

    def loss(y_true: Any, logits: Any) -> Any:
        from keras import ops

        known = ops.cast(y_true >= 0, logits.dtype)
        target = ops.clip(y_true, 0, 1)
        pixel = ops.sum(_bce(target, logits) * known) / ops.maximum(ops.sum(known), 1.0)
        p = ops.sigmoid(logits) * known
        overlap = ops.sum(p * target)
        dice = 1.0 - (2.0 * overlap + 1.0) / (ops.sum(p) + ops.sum(target * known) + 1.0)
        return bce_weight * pixel + dice_weight * dice

    return loss


def softmax_groups(
    groups: Sequence[Sequence[int]], class_weights: Sequence[float] | None = None, smoothing: float = 0.0
) -> Loss:
    """Cross-entropy of one softmax a group of labels; a group with any unknown target is left out for that row.

    A row's own weight in a group is the class weight of its true label.
    """

    def loss(y_true: Any, logits: Any) -> Any:
        from keras import ops

        total = 0.0
        for group in groups:
            index = list(group)
            part, target = ops.take(logits, index, axis=1), ops.take(y_true, index, axis=1)
            known = ops.cast(ops.min(target, axis=1) >= 0, logits.dtype)
            target = ops.clip(target, 0, 1)
            weight = known
            if class_weights is not None:
                scale = ops.convert_to_tensor([class_weights[i] for i in index], dtype=logits.dtype)
                weight = known * ops.sum(target * scale, axis=1)
            soft = target * (1 - smoothing) + smoothing / len(index)
            rows = -ops.sum(soft * ops.log_softmax(part, axis=1), axis=1)
            total = total + ops.sum(rows * weight) / ops.maximum(ops.sum(weight), 1e-6)
        return total

    return loss


def softmax_allowed(smoothing: float = 0.0) -> Loss:
    """Minus the logarithm of the probability of all classes that a row allows (target 1); 0 excludes a class.

    One allowed class gives plain cross-entropy, several say that it is one of these; a row with any unknown target is
    left out. Smoothing is for rows with one class.
    """

    def loss(y_true: Any, logits: Any) -> Any:
        from keras import ops

        known = ops.cast(ops.min(y_true, axis=1) >= 0, logits.dtype)
        target = ops.clip(y_true, 0, 1)
        log_p = ops.log_softmax(logits, axis=1)
        allowed = -ops.logsumexp(log_p + (target - 1.0) * 1e4, axis=1)
        single = ops.cast(ops.sum(target, axis=1) < 1.5, logits.dtype) * smoothing
        rows = (1 - single) * allowed - single * ops.mean(log_p, axis=1)
        return ops.sum(rows * known) / ops.maximum(ops.sum(known), 1.0)

    return loss


def softmax_within() -> Loss:
    """Cross-entropy of a softmax over a row's known entries (1 for the true one, 0 for what else it could be).

    Entries that are unknown do not count for the row; a row without a true entry is left out.
    """

    def loss(y_true: Any, logits: Any) -> Any:
        from keras import ops

        possible = ops.cast(y_true >= 0, logits.dtype)
        target = ops.clip(y_true, 0, 1)
        log_p = ops.log_softmax(logits + (possible - 1.0) * 1e4, axis=1)
        known = ops.max(target, axis=1)
        return -ops.sum(target * log_p) / ops.maximum(ops.sum(known), 1.0)

    return loss


def columns(parts: Sequence[Mapping[str, Any]]) -> Loss:
    """A weighted sum of losses, each on some columns of the labels.

    A part has ``columns`` (indices), ``name`` (of :data:`LOSSES`), and ``weight`` and ``options`` if need be.
    """
    made = [
        (list(part["columns"]), LOSSES[part["name"]](**part.get("options", {})), float(part.get("weight", 1.0)))
        for part in parts
    ]

    def loss(y_true: Any, logits: Any) -> Any:
        from keras import ops

        return sum(
            weight * ops.sum(inner(ops.take(y_true, index, axis=1), ops.take(logits, index, axis=1)))
            for index, inner, weight in made
        )

    return loss


def _bce(target: Any, logits: Any) -> Any:
    from keras import ops

    return ops.relu(logits) - logits * target + ops.log1p(ops.exp(-ops.abs(logits)))


def averaged(make: Callable[..., Loss]) -> Callable[..., Loss]:
    """The same loss as one value a batch, shape (1,).

    Keras divides a loss among the replicas of tf.distribute when it averages over the batch; a scalar it takes as it
    is, and the replicas' sum would teach as many times too much.
    """

    def make_averaged(**options: Any) -> Loss:
        inner = make(**options)

        def loss(y_true: Any, logits: Any) -> Any:
            from keras import ops

            return ops.reshape(inner(y_true, logits), (1,))

        return loss

    return make_averaged


LOSSES: dict[str, Callable[..., Loss]] = {
    "masked_bce": averaged(masked_bce),
    "mask_loss": averaged(mask_loss),
    "softmax_groups": averaged(softmax_groups),
    "softmax_allowed": averaged(softmax_allowed),
    "softmax_within": averaged(softmax_within),
    "columns": averaged(columns),
}
