"""The question asked again: does it help to cut the lesion out before it is named?

Three inputs with the same network, split, augmentation and number of steps: the whole picture; the picture with
everything outside the mask blackened; the picture with the mask as a fourth channel. Training takes the masks that
people drew. Testing takes the masks of a segmenter, as in service, and beside them the drawn ones. A fourth run trains
on the whole picture after a split by picture instead of by lesion, and so measures how much such a split flatters.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from firstread.settings import Settings
from training.augmentation.kinds import augment_from
from training.datasets.arrays import Arrays, load_arrays
from training.datasets.base import DataSet, Item
from training.datasets.registry import open_dataset
from training.dermoscopy.answers import BY_PICTURE, INPUTS, Answer, read_answers, report, write_answers
from training.dermoscopy.figures import truth_of_three
from training.dermoscopy.operating import cut, fold_to_three, prior_bias, truth_columns
from training.dermoscopy.scores import softmax
from training.evaluation.scoring import over_views
from training.fit.batches import draw_rows, groups_by
from training.fit.model import learning_rate
from training.recipe import Recipe, load_recipe
from worker.packages.package import load
from worker.packages.preprocessing import compose
from worker.packages.runtimes.tensorflow import Package
from worker.packages.store import find_package
from worker.pipelines.dermoscopy.lesion import reduced

if TYPE_CHECKING:
    import keras

MASK_STEM = "conv_stem"

log = logging.getLogger(__name__)


def network_input(name: str, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
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

    from training.fit.transfer import load_torch_encoder
    from worker.packages.networks.classifier import classifier_head as head
    from worker.packages.networks.effnet_lite import encoder

    def build(count: int) -> keras.Model:
        image = layers.Input((recipe.input.height, recipe.input.width, count), name="image")
        return head(image, encoder(image)["head"], len(recipe.labels), 0.3)

    plain = build(3)
    if weights is not None:
        load_torch_encoder(plain, weights)
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
    augment = augment_from(recipe.augment, recipe.input)
    for step in range(schedule.steps):
        rng = np.random.default_rng((recipe.seed, step))
        picked = draw_rows(groups, schedule.batch_size, rng)
        images, masks = _pictures(arrays, picked)
        for i in range(len(picked)):
            images[i], mask = augment.apply(images[i], masks[i], rng)
            masks[i] = masks[i] if mask is None else mask
        model.optimizer.learning_rate.assign(learning_rate(schedule, schedule.steps, step))
        x = compose.scale(network_input(name, images, masks).astype(np.float32), recipe.input)
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
        x = compose.scale(
            network_input(name, images[start : start + 32], masks[start : start + 32]).astype(np.float32), recipe.input
        )
        both = [model.predict_on_batch(view)["logits"] for view in (x, np.ascontiguousarray(x[:, :, ::-1]))]
        out.append(np.mean([ops.convert_to_numpy(value) for value in both], axis=0))
    return np.concatenate(out)


def answers_of_inputs(
    recipe: Recipe,
    arrays: Arrays,
    segmenter_masks: np.ndarray,
    weights: Path | None,
    names: Sequence[str] = INPUTS,
    folder: Path | None = None,
) -> list[Answer]:
    """Train and test each input.

    Parameters
    ----------
    arrays : Arrays
        With masks of the input's own size (``mask_size`` of :func:`training.datasets.arrays.load_arrays`).
    segmenter_masks : float32 (n, H, W)
        Masks of a segmenter for every row, in [0, 1]; only those of validation and test rows are looked at.
    folder : Path, optional
        Folder in which the answers of each run are kept; a run that is there, asked the same, is not trained again.
    """
    answers = []
    for name in names:
        key = _key(recipe, arrays, segmenter_masks, weights, name)
        path = None if folder is None else folder / f"{name}.npz"
        run_answers = None if path is None else read_answers(path, key, name)
        if run_answers is None:
            log.info("%s: %d steps", name, recipe.schedule.steps)
            run_answers = _answers_of_input(name, recipe, arrays, segmenter_masks, weights)
            if path is not None:
                write_answers(path, key, run_answers)
        answers += run_answers
    return answers


def _answers_of_input(
    name: str, recipe: Recipe, arrays: Arrays, segmenter_masks: np.ndarray, weights: Path | None
) -> list[Answer]:
    base = "whole" if name == BY_PICTURE else name
    split = splits_by_picture(arrays) if name == BY_PICTURE else np.asarray([i.split for i in arrays.items])
    model = train_one(base, recipe, arrays, np.flatnonzero(split == "train"), weights)
    test, validation = np.flatnonzero(split == "test"), np.flatnonzero(split == "val")
    truth = truth_columns(recipe.labels, arrays.labels)
    shares = {key.partition(":")[2].partition("=")[0]: share for key, share in recipe.shares.items()}
    bias = prior_bias(recipe.labels, shares, truth[validation])
    lesions = np.asarray([arrays.items[i].patient for i in test])
    y3 = [truth_of_three([arrays.items[i] for i in rows]) for rows in (test, validation)]
    answers = []
    for kind in ("segmenter's", "drawn") if base != "whole" else ("none",):
        p3 = []
        for rows in (test, validation):
            images, drawn = _pictures(arrays, rows)
            masks = drawn if kind == "drawn" else segmenter_masks[rows]
            p3.append(fold_to_three(recipe.labels, softmax(logits_of(model, base, recipe, images, masks) - bias)))
        answers.append(Answer(name, kind, p3[0], y3[0], lesions, p3[1], y3[1]))
    return answers


def _key(recipe: Recipe, arrays: Arrays, segmenter_masks: np.ndarray, weights: Path | None, name: str) -> str:
    """A digest of everything that a run's answers depend on."""
    digest = hashlib.sha256(f"2 {name} {recipe.model_dump_json()} {weights and _digest(weights)}".encode())
    for item in arrays.items:
        digest.update(f"{item.key} {item.split} {item.patient}".encode())
    if name not in ("whole", BY_PICTURE):
        digest.update(np.packbits(segmenter_masks >= 0.5).tobytes())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def smaller(recipe: Recipe, steps: int, height: int = 96, width: int = 128) -> Recipe:
    """The shipped recipe with a smaller input and fewer steps, the same for every input."""
    schedule = recipe.schedule.model_copy(update={"steps": steps, "warmup_steps": min(30, steps // 4), "ema": 0.0})
    spec = recipe.input.model_copy(update={"height": height, "width": width})
    return recipe.model_copy(update={"schedule": schedule, "input": spec})


def masks_of(package: Package, dataset: DataSet, arrays: Arrays) -> np.ndarray:
    """Masks (n, H, W) in {0, 1} at the arrays' input size, as a package outlines in service: the mean over its views,
    cut by its threshold. Training rows are left empty."""
    chosen = package.card.parameters
    views = chosen.get("views", ["plain"])
    size = (arrays.spec.width, arrays.spec.height)
    out = np.zeros((len(arrays), arrays.spec.height, arrays.spec.width), dtype=np.float32)
    for row, item in enumerate(arrays.items):
        if item.split != "train":
            picture = reduced(dataset.pixels(item), chosen.get("picture_width_px"))
            x = compose.compose(picture[None], package.card.input)
            p = cv2.resize(over_views(package.predict, x, views)["mask"][0], size, interpolation=cv2.INTER_LINEAR)
            out[row] = cut(p, chosen)
    return out


class Fewer:
    """A data set without most of its lesions: about so many pictures of each split, lesion after lesion."""

    def __init__(self, dataset: DataSet, count: int) -> None:
        self._dataset, self._count = dataset, count
        self.name, self.kind = dataset.name, dataset.kind

    def items(self) -> list[Item]:
        """Items of the lesions that come first by the hash of their id, the same share of every diagnosis."""
        items = self._dataset.items()
        groups: dict[tuple[str, str], list[Item]] = {}
        for item in items:
            groups.setdefault((item.split, item.attributes["dx"]), []).append(item)
        totals = Counter(item.split for item in items)
        keys: set[str] = set()
        for (split, _), members in groups.items():
            wanted = max(1, self._count * len(members) // totals[split])
            by_hash = sorted(members, key=lambda i: (hashlib.sha256(i.patient.encode()).hexdigest(), i.key))
            keys.update(item.key for item in by_hash[:wanted])
        return [item for item in items if item.key in keys]

    def pixels(self, item: Item) -> np.ndarray:
        """As the whole data set gives them."""
        return self._dataset.pixels(item)

    def mask(self, item: Item) -> np.ndarray | None:
        """As the whole data set gives it."""
        return self._dataset.mask(item)


def answer_question(
    data: Path, weights: Path | None, package: str, steps: int, pictures: int | None, by_picture: bool, out: Path
) -> dict[str, Any]:
    """Ask the question on HAM10000 and write what came of it; see :func:`training.dermoscopy.answers.report`.

    Raises
    ------
    PackageError
        If there is no such package (a folder, NAME or NAME/VERSION), or it does not pass its self-test.
    """
    segmenter = load(find_package(package, Settings()))
    recipe = smaller(load_recipe("lesion_lite"), steps)
    whole_set = open_dataset("ham10000", data)
    dataset = whole_set if pictures is None else Fewer(whole_set, pictures)
    spec = recipe.input
    arrays = load_arrays([dataset], spec, recipe.labels, (spec.height, spec.width))
    names = (*INPUTS, BY_PICTURE) if by_picture else INPUTS
    answers = answers_of_inputs(recipe, arrays, masks_of(segmenter, dataset, arrays), weights, names, out / "runs")
    counts = Counter(item.split for item in arrays.items)
    budget = (
        f"{counts['train']} training, {counts['val']} validation and {counts['test']} test pictures at "
        f"{spec.width}x{spec.height}, {steps} steps of {recipe.schedule.batch_size} for every input"
    )
    made_with = {
        "package": f"{segmenter.card.name} {segmenter.card.version}",
        "package_sha256": segmenter.card.sha256,
        "seed": recipe.seed,
        "first_weights": "none" if weights is None else weights.name,
        "first_weights_sha256": None if weights is None else _digest(weights),
    }
    return report(answers, out, budget, made_with)
