"""A small network that sharpens films which were enlarged from few pixels.

``python -m tools.experiments.upscaler --data DIR --out DIR`` trains it on the training films and measures it in
decibels; with ``--package`` it also measures what it is worth to a model on the test films. It corrects a bicubic
enlargement, so it starts as one, and works on the picture folded to a quarter of its pixels (Shi et al. 2016, arXiv
1609.05158), in a quarter of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from training.chest.stress import SIZES, Change, stress_rows, unchanged
from training.datasets.base import DataSetError
from training.datasets.registry import open_dataset
from training.evaluation.report import write_table
from training.options import EXISTING_FOLDER, FOLDER
from worker.packages.card import InputSpec
from worker.packages.package import load
from worker.packages.preprocessing.compose import planes
from worker.packages.weights import load_by_layer, save_by_layer

if TYPE_CHECKING:
    import keras

Film = NDArray[np.float32]

SIDE = 224
PATCH = 96
WIDTH = 32
DEPTH = 3
SMALLEST, LARGEST = 56, 160
"""Sides in pixels that training films are reduced to."""
WEIGHTS = "upscaler.npz"
RATE = 2e-3
MEASURED = (64, 96, 128)
SPEC = InputSpec(kind="grey", height=SIDE, width=SIDE, levels=(1.0, 99.0))


def build(side: int) -> keras.Model:
    """The network for square films (n, side, side, 1) in [0, 1]; ``side`` is even and the weights fit every one."""
    import keras
    from keras import layers

    image = keras.Input((side, side, 1), name="bicubic")
    x = _folded(image, side)
    for index in range(DEPTH):
        x = layers.Conv2D(WIDTH, 3, padding="same", activation="relu", name=f"conv{index}")(x)
    x = layers.Conv2D(4, 3, padding="same", kernel_initializer="zeros", name="correction")(x)
    return keras.Model(image, layers.Add(name="film")([image, _unfolded(x, side)]), name="upscaler")


def _folded(x: Any, side: int) -> Any:
    """Four neighbouring pixels as four channels: (n, side, side, 1) to (n, side / 2, side / 2, 4)."""
    from keras import layers

    half = side // 2
    x = layers.Reshape((half, 2, half, 2), name="fold_split")(x)
    return layers.Reshape((half, half, 4), name="fold")(layers.Permute((1, 3, 2, 4), name="fold_turn")(x))


def _unfolded(x: Any, side: int) -> Any:
    from keras import layers

    half = side // 2
    x = layers.Reshape((half, half, 2, 2), name="unfold_split")(x)
    return layers.Reshape((side, side, 1), name="unfold")(layers.Permute((1, 3, 2, 4), name="unfold_turn")(x))


def reduced(film: np.ndarray, side_px: int) -> Film:
    """A film (h, w) at (side_px, side_px), each pixel the mean of what it covers."""
    small = cv2.resize(film.astype(np.float32, copy=False), (side_px, side_px), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32)


def bicubic(film: np.ndarray, side_px: int) -> Film:
    """A film (h, w) as it looks, enlarged with cubics, after a stay at ``side_px`` squared."""
    large = cv2.resize(reduced(film, side_px), film.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(large, dtype=np.float32)


class Upscaler:
    """The trained network, for single films.

    Raises
    ------
    worker.packages.weights.WeightsMismatchError
        If the file is another network's.
    """

    def __init__(self, path: Path) -> None:
        self._model = build(SIDE)
        load_by_layer(self._model, path)

    def enlarged(self, small: np.ndarray) -> np.ndarray:
        """A film (h, w) of any unit at (SIDE, SIDE), in its own unit; one that has as many pixels a side as it is."""
        from keras import ops

        if min(small.shape) >= SIDE:
            return small
        low, high = (float(v) for v in np.percentile(small, SPEC.levels or (0, 100)))
        span = max(high - low, 1e-6)
        unit = (small.astype(np.float32) - low) / span
        x = cv2.resize(unit, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)[None, :, :, None]
        sharp = np.asarray(ops.convert_to_numpy(self._model.predict_on_batch(x)))[0, :, :, 0]
        return np.asarray(sharp * span + low, dtype=np.float32)


def train_upscaler(films: np.ndarray, steps: int, batch_size: int = 16, seed: int = 1) -> keras.Model:
    """Train on patches of films (n, SIDE, SIDE) in [0, 1]: mean absolute error, Adam, cosine to zero.

    Returns
    -------
    keras.Model
        For patches; its weights are those of every side.
    """
    import keras

    keras.utils.set_random_seed(seed)
    model = build(PATCH)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    model.compile(keras.optimizers.Adam(rate), loss="mean_absolute_error")
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        sharp = np.empty((batch_size, PATCH, PATCH, 1), np.float32)
        blurred = np.empty_like(sharp)
        for i, row in enumerate(rng.integers(0, len(films), batch_size)):
            film = np.asarray(films[row], dtype=np.float32)
            few = bicubic(film, int(rng.integers(SMALLEST, LARGEST + 1)))
            top, left = (int(v) for v in rng.integers(0, SIDE - PATCH + 1, 2))
            cut = np.s_[top : top + PATCH, left : left + PATCH]
            sharp[i, :, :, 0], blurred[i, :, :, 0] = film[cut], few[cut]
        model.train_on_batch(blurred, sharp)
    return model


def decibels(films: np.ndarray, upscaler: Upscaler | None, side_px: int) -> float:
    """Mean peak signal-to-noise ratio in dB of films (n, SIDE, SIDE) after a stay at ``side_px``; None: bicubic."""
    ratios_db = []
    for film in np.asarray(films, dtype=np.float32):
        back = bicubic(film, side_px) if upscaler is None else upscaler.enlarged(reduced(film, side_px))
        ratios_db.append(-10 * np.log10(max(float(np.mean((np.clip(back, 0.0, 1.0) - film) ** 2)), 1e-12)))
    return float(np.mean(ratios_db))


def enlargements(upscaler: Upscaler) -> dict[str, Change]:
    """Films of few pixels, enlarged with cubics and by the network, for each of :data:`SIZES` below its own size."""

    def cubic(side_px: int) -> Change:
        return lambda film, rng: bicubic(film, side_px)

    def learned(side_px: int) -> Change:
        return lambda film, rng: upscaler.enlarged(reduced(film, side_px))

    ways = {"bicubic": cubic, "learned upscaler": learned}
    return {f"at {size} px, {name}": way(size) for size in SIZES if size < SIDE for name, way in ways.items()}


@click.command("upscaler")
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of chest film collections.")
@click.option("--out", type=FOLDER, required=True, help="Folder of weights and table.")
@click.option("--films", type=int, default=800, show_default=True, help="Training films, evenly spaced.")
@click.option("--test-films", type=int, default=60, show_default=True, help="Validation films of the table.")
@click.option("--steps", type=int, default=1500, show_default=True, help="Batches of 16 patches.")
@click.option(
    "--package",
    type=EXISTING_FOLDER,
    default=None,
    help="Also score the test films with this package, reduced and enlarged in both ways.",
)
def upscaler(data: Path, out: Path, films: int, test_films: int, steps: int, package: Path | None) -> None:
    """Train the learned upscaler on training films; measure it against bicubic enlargement on validation films."""
    dataset = open_dataset("chest_films", data)

    def read(split: str, count: int) -> np.ndarray:
        items = [item for item in dataset.items() if item.split == split]
        if not items:
            raise DataSetError(f"no films of the part {split}")
        picked = [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]
        return np.stack([planes(dataset.pixels(item)[None], SPEC)[0, :, :, 0].astype(np.float16) for item in picked])

    train = read("train", films)
    model = train_upscaler(train, steps)
    out.mkdir(parents=True, exist_ok=True)
    save_by_layer(model, out / WEIGHTS, "float32")
    budget = f"{len(train)} training films, {steps} steps of 16 patches of {PATCH} px, {model.count_params()} weights"
    path = write_table(
        out, "upscaler", "Films enlarged from few pixels", budget, rows_of(read("val", test_films), out / WEIGHTS)
    )
    click.echo(path.read_text(encoding="utf-8"))
    if package is not None:
        loaded = load(package)
        items = [item for item in dataset.items() if item.split == "test" and item.labels]
        changes = {"as they are": unchanged, **enlargements(Upscaler(out / WEIGHTS))}
        rows = stress_rows(loaded, items, [dataset.pixels(item) for item in items], changes)
        budget = f"{len(items)} test films, package {loaded.key}, no training"
        path = write_table(out, "upscaler_stress", "Films of few pixels, enlarged in two ways", budget, rows)
        click.echo(path.read_text(encoding="utf-8"))


def rows_of(films: np.ndarray, weights: Path, sides_px: Sequence[int] = MEASURED) -> list[dict[str, Any]]:
    """A row a size: decibels of bicubic enlargement and of the network."""
    network = Upscaler(weights)
    return [
        {"side_px": side, "bicubic_db": decibels(films, None, side), "learned_db": decibels(films, network, side)}
        for side in sides_px
    ]


if __name__ == "__main__":
    upscaler()
