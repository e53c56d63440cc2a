"""The question asked again: does it help to cut the lesion out before it is named?

Three inputs with the same network, split, augmentation and number of steps: the whole picture; the picture with
everything outside the mask blackened; the picture with the mask as a fourth channel. Training takes the masks that
people drew. Testing takes the masks of a segmenter, as in service, and beside them the drawn ones. A fourth run trains
on the whole picture after a split by picture instead of by lesion, and so measures how much such a split flatters.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from training import metrics
from training.arrays import Arrays, load_arrays
from training.augment import augment_from
from training.batches import draw_rows, groups_by
from training.datasets import open_dataset
from training.datasets.base import DataSet
from training.dermoscopy.figures import balanced_accuracy, truth_of_three
from training.dermoscopy.operating import prior_bias, three, truth_columns
from training.dermoscopy.scores import softmax
from training.loop import learning_rate
from training.recipe import Recipe, load_recipe
from worker.packages import preprocessing

if TYPE_CHECKING:
    import keras

INPUTS = ("whole", "cut", "mask_channel")
BY_PICTURE = "whole_split_by_picture"
MASK_STEM = "conv_stem"


@dataclass(frozen=True)
class Answer:
    """Probabilities of the three classes for the test rows of one run, and the truth."""

    name: str
    masks: str
    p3: np.ndarray
    y3: np.ndarray
    lesions: np.ndarray

    def figures(self, repeats: int = 1000) -> dict[str, Any]:
        """Accuracy, balanced accuracy and melanoma AUC with 95 % intervals by lesion."""
        called, melanoma = self.p3.argmax(axis=1), (self.y3 == 0).astype(int)
        return {
            "input": self.name,
            "masks": self.masks,
            "n": len(self.y3),
            "accuracy": metrics.wilson(int((called == self.y3).sum()), len(self.y3)).as_dict(),
            "balanced_accuracy": metrics.bootstrap(
                balanced_accuracy, self.lesions, self.y3, called, repeats=repeats
            ).as_dict(),
            "melanoma_auc": metrics.bootstrap(
                metrics.auc, self.lesions, melanoma, self.p3[:, 0], repeats=repeats
            ).as_dict(),
        }


def prepared(name: str, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """What the network of an input sees: (n, H, W, 3 or 4) in [0, 1] out of pictures and masks (n, H, W) in [0, 1]."""
    if name == "cut":
        return np.asarray(images * masks[..., None])
    if name == "mask_channel":
        return np.concatenate([images, masks[..., None]], axis=-1)
    return images


def splits_by_picture(arrays: Arrays) -> np.ndarray:
    """A split of the same sizes that ignores which lesion a picture shows: pictures shuffled by a hash of their key."""
    given = np.asarray([item.split for item in arrays.items])
    digests = [hashlib.sha256(item.key.encode()).hexdigest() for item in arrays.items]
    out = np.empty_like(given)
    # Within each diagnosis, so that every part keeps its class shares.
    classes = arrays.labels.argmax(axis=1)
    for column in np.unique(classes):
        rows = np.flatnonzero(classes == column)
        out[rows[np.argsort([digests[i] for i in rows])]] = np.sort(given[rows])
    return out


def network(recipe: Recipe, channels: int, weights: Path | None) -> keras.Model:
    """EfficientNet-Lite0 with seven logits on three or four channels; a fourth starts with a kernel of zeros."""
    from keras import layers

    from worker.packages.networks_classifier import _head as head
    from worker.packages.networks_effnet_lite import encoder, load_imagenet

    def build(count: int) -> keras.Model:
        image = layers.Input((recipe.input.height, recipe.input.width, count), name="image")
        return head(image, encoder(image)["head"], len(recipe.labels), 0.3)

    plain = build(3)
    if weights is not None:
        load_imagenet(plain, weights)
    if channels == 3:
        return plain
    wide = build(channels)
    for layer in plain.layers:
        if layer.weights:
            values = layer.get_weights()
            if layer.name == MASK_STEM:
                values[0] = np.concatenate([values[0], np.zeros_like(values[0][:, :, : channels - 3])], axis=2)
            wide.get_layer(layer.name).set_weights(values)
    return wide


def train_one(name: str, recipe: Recipe, arrays: Arrays, rows: np.ndarray, weights: Path | None) -> keras.Model:
    """Train one input on rows with the recipe's schedule, shares and augmentation."""
    import keras

    keras.utils.set_random_seed(recipe.seed)
    model = network(recipe, 4 if name == "mask_channel" else 3, weights)
    schedule = recipe.schedule
    for layer in model.layers:
        if schedule.frozen and layer.name.startswith(schedule.frozen) and layer.name != MASK_STEM:
            layer.trainable = False
    model.compile(
        keras.optimizers.AdamW(schedule.learning_rate, weight_decay=schedule.weight_decay, global_clipnorm=1.0),
        loss={"logits": keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.05)},
    )
    groups = groups_by(arrays, rows, recipe.shares, patients_first=False)
    augment = augment_from(recipe.augment)
    for step in range(schedule.steps):
        rng = np.random.default_rng((recipe.seed, step))
        picked = draw_rows(groups, schedule.batch_size, rng)
        images, masks = _pictures(arrays, picked)
        for i in range(len(picked)):
            images[i], mask = augment.apply(images[i], masks[i], rng)
            masks[i] = masks[i] if mask is None else mask
        model.optimizer.learning_rate.assign(learning_rate(schedule, schedule.steps, step))
        x = preprocessing.scale(prepared(name, images, masks).astype(np.float32), recipe.input)
        model.train_on_batch(x, {"logits": arrays.labels[picked]})
    return model


def _pictures(arrays: Arrays, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    assert arrays.masks is not None
    return arrays.stacked(rows), arrays.masks[rows].astype(np.float32) / 254


def logits_of(model: keras.Model, name: str, recipe: Recipe, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Logits (n, labels) of pictures with masks, plain and mirrored averaged."""
    from keras import ops

    out = []
    for start in range(0, len(images), 32):
        x = preprocessing.scale(
            prepared(name, images[start : start + 32], masks[start : start + 32]).astype(np.float32), recipe.input
        )
        both = [model.predict_on_batch(view)["logits"] for view in (x, np.ascontiguousarray(x[:, :, ::-1]))]
        out.append(np.mean([ops.convert_to_numpy(value) for value in both], axis=0))
    return np.concatenate(out)


def ask(
    recipe: Recipe, arrays: Arrays, found_masks: np.ndarray, weights: Path | None, names: Sequence[str] = INPUTS
) -> list[Answer]:
    """Train and test each input.

    Parameters
    ----------
    arrays : Arrays
        With masks of the input's own size (``mask_size`` of :func:`training.arrays.load_arrays`).
    found_masks : float32 (n, H, W)
        Masks of a segmenter for every row, in [0, 1]; only those of validation and test rows are looked at.
    """
    answers = []
    for name in names:
        base = "whole" if name == BY_PICTURE else name
        split = splits_by_picture(arrays) if name == BY_PICTURE else np.asarray([i.split for i in arrays.items])
        model = train_one(base, recipe, arrays, np.flatnonzero(split == "train"), weights)
        test, validation = np.flatnonzero(split == "test"), np.flatnonzero(split == "val")
        truth = truth_columns(recipe.labels, arrays.labels)
        shares = {key.partition(":")[2].partition("=")[0]: share for key, share in recipe.shares.items()}
        bias = prior_bias(recipe.labels, shares, truth[validation])
        kinds = ("segmenter's", "drawn") if base != "whole" else ("none",)
        for kind in kinds:
            images, drawn = _pictures(arrays, test)
            masks = drawn if kind == "drawn" else found_masks[test]
            p = softmax(logits_of(model, base, recipe, images, masks) - bias)
            lesions = np.asarray([arrays.items[i].patient for i in test])
            answers.append(
                Answer(name, kind, three(recipe.labels, p), truth_of_three(recipe.labels, truth[test]), lesions)
            )
    return answers


def difference(a: Answer, b: Answer, repeats: int = 1000) -> dict[str, Any]:
    """Melanoma AUC and accuracy of ``a`` minus those of ``b`` on the same rows, with intervals by lesion."""

    def by_auc(y: np.ndarray, p: np.ndarray, q: np.ndarray) -> float:
        return metrics.auc(y, p) - metrics.auc(y, q)

    def by_hits(p: np.ndarray, q: np.ndarray) -> float:
        return float(p.mean() - q.mean())

    y = (a.y3 == 0).astype(int)
    hits = [(x.p3.argmax(axis=1) == x.y3).astype(float) for x in (a, b)]
    return {
        "melanoma_auc": metrics.bootstrap(by_auc, a.lesions, y, a.p3[:, 0], b.p3[:, 0], repeats=repeats).as_dict(),
        "accuracy": metrics.bootstrap(by_hits, a.lesions, *hits, repeats=repeats).as_dict(),
    }


def report(answers: Sequence[Answer], out: Path, repeats: int = 1000) -> dict[str, Any]:
    """Table of all runs, differences to the whole picture, and what they show; written as ``question.json``."""
    whole = next(a for a in answers if a.name == "whole")
    rows = [a.figures(repeats) for a in answers]
    gaps = {f"{a.name} ({a.masks} masks)": difference(a, whole, repeats)
            for a in answers if a.name in INPUTS and a is not whole}  # fmt: skip
    better = [name for name, gap in gaps.items() if (gap["melanoma_auc"]["low"] or 0.0) > 0]
    sentence = (
        f"Better than the whole picture, with an interval above zero: {', '.join(better)}."
        if better
        else "No input was better than the whole picture with an interval above zero: the pipeline scores the whole."
    )
    found = {"rows": rows, "minus_whole": gaps, "shows": sentence}
    out.mkdir(parents=True, exist_ok=True)
    (out / "question.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def smaller(recipe: Recipe, steps: int, height: int = 96, width: int = 128) -> Recipe:
    """The shipped recipe with a smaller input and fewer steps, the same for every input."""
    schedule = recipe.schedule.model_copy(update={"steps": steps, "warmup_steps": min(30, steps // 4), "ema": 0.0})
    spec = recipe.input.model_copy(update={"height": height, "width": width})
    return recipe.model_copy(update={"schedule": schedule, "input": spec})


def masks_of(package_folder: Path, dataset: DataSet, arrays: Arrays) -> np.ndarray:
    """Masks (n, H, W) in {0, 1} that a package finds, at the arrays' input size; training rows are left empty."""
    from worker.packages.package import load

    package = load(package_folder)
    threshold = float(package.card.parameters.get("mask_threshold", 0.5))
    size = (arrays.spec.width, arrays.spec.height)
    out = np.zeros((len(arrays), arrays.spec.height, arrays.spec.width), dtype=np.float32)
    for row, item in enumerate(arrays.items):
        if item.split != "train":
            p = package.predict(preprocessing.compose(dataset.pixels(item)[None], package.card.input))["mask"][0]
            out[row] = cv2.resize(p, size, interpolation=cv2.INTER_LINEAR) >= threshold
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask the question on HAM10000: ``python -m training.dermoscopy.question --help``."""
    parser = argparse.ArgumentParser(description="Whole picture, cut picture, or mask as a fourth channel?")
    parser.add_argument("--data", type=Path, required=True, help="Folder of HAM10000, as the reader ham10000 takes it.")
    parser.add_argument("--weights", type=Path, required=True, help="EfficientNet-Lite0's ImageNet weights (npz).")
    parser.add_argument("--package", type=Path, required=True, help="Package whose outlines cut the test pictures.")
    parser.add_argument("--steps", type=int, default=300, help="Steps of each run.")
    parser.add_argument("--by-picture", action="store_true", help="Also train after a split by picture.")
    parser.add_argument("--out", type=Path, default=Path("runs/lesion_question"), help="Folder of question.json.")
    given = parser.parse_args(arguments)
    recipe = smaller(load_recipe("lesion_lite"), given.steps)
    dataset = open_dataset("ham10000", given.data)
    arrays = load_arrays([dataset], recipe.input, recipe.labels, (recipe.input.height, recipe.input.width))
    names = (*INPUTS, BY_PICTURE) if given.by_picture else INPUTS
    found = report(ask(recipe, arrays, masks_of(given.package, dataset, arrays), given.weights, names), given.out)
    print(json.dumps(found, indent=2))


__all__ = ["BY_PICTURE", "INPUTS", "Answer", "ask", "report", "smaller"]


if __name__ == "__main__":
    main()
