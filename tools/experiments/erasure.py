"""What a four-class model still knows when adult and child look alike to it.

``python -m tools.experiments.erasure PACKAGE --data DIR --out DIR``. COVID films are of adults and nearly all others of
children, so a model may take age, or the source of a film, for COVID. An adversary that learns the age from the pooled
features while these learn to hide it would remove that. Here everything that a linear adversary could find is removed
in closed form (LEACE: Belrose et al. 2023, arXiv 2306.03819), without training the network again. The table shows the
price: the age that probes still find, the four-class figures, and how many adults without COVID are called COVID.

Age is looked for among films without COVID and within their classes, so that neither COVID nor pneumonia goes with it.
What the features hold of age in a non-linear way stays; the probe by nearest neighbours measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from training.chest.calibration import fit_softmax, softmax_p
from training.chest.figures import four_class_figures, is_adult
from training.chest.labels import CLASSES
from training.chest.readers import class_of
from training.datasets.base import DataSet, DataSetError, Item, label_matrix
from training.datasets.registry import open_dataset
from training.evaluation import metrics
from training.evaluation.report import write_table
from training.options import EXISTING_FOLDER, FOLDER
from worker.packages.package import load
from worker.packages.preprocessing.compose import compose
from worker.packages.runtimes.tensorflow import CLASS_LAYER, Package

BATCH = 32
RIDGE = 1e-2
"""Of the covariance, as a share of its mean variance."""
NEIGHBOURS = 15
DECAY = 1e-3
"""Ridge that draws a refitted last layer to where it starts."""


@dataclass(frozen=True)
class Erasure:
    """``x - direction * (probe @ (x - mean))``: features without what a line can tell of the age."""

    direction: np.ndarray
    probe: np.ndarray
    mean: np.ndarray

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Features (n, d) without it."""
        return np.asarray(x - ((x - self.mean) @ self.probe)[:, None] * self.direction)


def fit_erasure(x: np.ndarray, adult: np.ndarray, groups: np.ndarray) -> Erasure:
    """LEACE of one yes-or-no concept, within groups.

    Parameters
    ----------
    x : ndarray (n, d)
    adult : ndarray of bool (n,)
    groups : ndarray (n,)
        Classes; what tells them apart is left alone.

    Raises
    ------
    DataSetError
        If no group holds both adults and children.
    """
    inside, z = _centred(x, groups), _centred(adult[:, None], groups)[:, 0]
    if not z.any():
        raise DataSetError("no class has films of adults and of children")
    shared, probe = _line(inside, z)
    return Erasure(shared, probe / float(shared @ probe), np.asarray(x.mean(axis=0)))


def _centred(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Columns less their mean in each group."""
    out = np.asarray(x, dtype=np.float64).copy()
    for group in np.unique(groups):
        out[groups == group] -= out[groups == group].mean(axis=0)
    return out


def _line(inside: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Covariance of centred features with the concept, and the line that tells it best (Fisher's discriminant)."""
    shared = inside.T @ z / len(z)
    spread = inside.T @ inside / len(z)
    spread += RIDGE * float(np.trace(spread)) / len(spread) * np.eye(len(spread))
    return shared, np.linalg.solve(spread, shared)


def refitted(x: np.ndarray, allowed: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last layer fitted anew to features (n, d), every class with the same weight, near where it starts.

    ``allowed`` (n, classes) is 1 for each class that a film may be (:func:`training.fit.losses.softmax_allowed`).
    """
    from scipy.optimize import minimize

    start = np.vstack([kernel, bias]).astype(np.float64)
    table = np.column_stack([x, np.ones(len(x))])
    share = allowed / allowed.sum(axis=1, keepdims=True)
    weight = (share / np.maximum(share.sum(axis=0), 1.0)).sum(axis=1)
    weight /= weight.sum()

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = flat.reshape(start.shape)
        p = _softmax(table @ theta)
        right = np.maximum((p * allowed).sum(axis=1, keepdims=True), 1e-12)
        slope = table.T @ (weight[:, None] * (p - p * allowed / right))
        away = theta - start
        return (
            float(-(weight * np.log(right[:, 0])).sum() + 0.5 * DECAY * (away**2).sum()),
            (slope + DECAY * away).ravel(),
        )

    theta = minimize(cost, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x.reshape(start.shape)
    return theta[:-1], theta[-1]


def _softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def pooled_features(package: Package, dataset: DataSet, items: Sequence[Item]) -> np.ndarray:
    """What the last layer reads of each film, averaged over the film: (n, d)."""
    import keras
    from keras import ops

    network = keras.Model(package.model.inputs, last_layer(package).input)
    batches = []
    for begin in range(0, len(items), BATCH):
        part = items[begin : begin + BATCH]
        x = np.concatenate([compose(dataset.pixels(item)[None], package.card.input) for item in part])
        padded = np.concatenate([x, np.repeat(x[-1:], BATCH - len(x), axis=0)])
        maps = np.asarray(ops.convert_to_numpy(network.predict_on_batch(padded)))[: len(x)]
        batches.append(maps.mean(axis=(1, 2)) if maps.ndim == 4 else maps)
    return np.concatenate(batches).astype(np.float64)


def last_layer(package: Package) -> Any:
    """The layer that gives the class logits, linear in what it reads."""
    names = [layer.name for layer in package.model.layers]
    return package.model.get_layer(CLASS_LAYER if CLASS_LAYER in names else "logits")


@click.command("erase")
@click.argument("package", type=EXISTING_FOLDER)
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder of chest film collections.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the table.")
@click.option(
    "--films",
    type=int,
    default=2000,
    show_default=True,
    help="Children's training films, evenly spaced; 0 for all. Adults' are all taken.",
)
def erase(package: Path, data: Path, out: Path, films: int) -> None:
    """Remove what a line can tell of adult and child from a four-class PACKAGE's features, and measure the price."""
    loaded = load(package)
    dataset = open_dataset("chest_films", data)
    items = [item for item in dataset.items() if set(CLASSES) <= set(item.labels)]
    train = [item for item in items if item.split == "train"]
    children = [item for item in train if item.attributes.get("age_group") == "child"]
    if films:
        children = children[:: max(1, len(children) // films)][:films]
    train = [*children, *(item for item in train if item.attributes.get("age_group") == "adult")]
    parts = {"train": train} | {part: [i for i in items if i.split == part] for part in ("val", "test")}
    features = {part: pooled_features(loaded, dataset, part_items) for part, part_items in parts.items()}
    kernel, bias = (np.asarray(v, dtype=np.float64) for v in last_layer(loaded).get_weights())
    order = [loaded.card.labels.index(name) for name in CLASSES]
    layer = kernel.reshape(-1, len(loaded.card.labels))[:, order], bias[order]
    budget = f"{len(train)} training films, {len(parts['test'])} test films, package {loaded.key}, not mirrored"
    path = write_table(out, "erase", "Four classes without the age", budget, erasure_rows(parts, features, layer))
    click.echo(path.read_text(encoding="utf-8"))


def erasure_rows(
    parts: dict[str, list[Item]], features: dict[str, np.ndarray], layer: tuple[np.ndarray, np.ndarray]
) -> list[dict[str, Any]]:
    """Four rows: the last layer as it is and refitted, on features as they are and with the age erased.

    Every row is calibrated on the validation films, so that only the features and the layer differ.
    """
    rows = []
    known = without_covid(parts["train"])
    groups = np.asarray([class_of(item) or "open" for item in parts["train"]])
    erasure = fit_erasure(features["train"][known], is_adult(parts["train"])[known], groups[known])
    for prefix, x in (("", features), ("age erased, ", {part: erasure.apply(x) for part, x in features.items()})):
        probes = age_aucs(parts, x, groups)
        fitted = refitted(x["train"], label_matrix(parts["train"], CLASSES), *layer)
        for name, (kernel, bias) in (("last layer as it is", layer), ("last layer refitted", fitted)):
            logits = {part: (x[part] @ kernel + bias).astype(np.float32) for part in ("val", "test")}
            allowed = label_matrix(parts["val"], CLASSES)
            calibration = fit_softmax(logits["val"], allowed, np.ones(len(allowed)), CLASSES)
            p = softmax_p(logits["test"], calibration, CLASSES).astype(np.float64)
            figures = four_class_figures(parts["test"], p, repeats=200)
            rows.append(
                {
                    "features and layer": prefix + name,
                    **probes,
                    "accuracy": figures["four_classes"]["accuracy"],
                    "macro_f1": figures["four_classes"]["macro_f1"],
                    "covid_recall": figures["by_class"]["covid19"]["recall"],
                    "adults_called_covid": figures["adults_without_covid"]["called_covid"],
                }
            )
    return rows


def without_covid(items: Sequence[Item]) -> np.ndarray:
    """Which films are known to be of no COVID patient."""
    return np.asarray([item.labels.get("covid19") == 0.0 for item in items])


def age_aucs(parts: dict[str, list[Item]], x: dict[str, np.ndarray], groups: np.ndarray) -> dict[str, float]:
    """How well adults are told from children among test films without COVID, by fresh probes on such training films.

    ``age_auc_line`` is Fisher's discriminant within the classes, ``age_auc_neighbours`` the share of adults among the
    nearest films.
    """
    known, other = without_covid(parts["train"]), without_covid(parts["test"])
    adult, truth = is_adult(parts["train"])[known], is_adult(parts["test"])[other].astype(int)
    taught, asked = x["train"][known], x["test"][other]
    _, line = _line(_centred(taught, groups[known]), _centred(adult[:, None], groups[known])[:, 0])
    distance = (taught**2).sum(axis=1) - 2 * asked @ taught.T
    nearest = np.argpartition(distance, min(NEIGHBOURS, len(taught)) - 1, axis=1)[:, :NEIGHBOURS]
    # rounded, so that what is left of a line that was erased does not rank films by the last bit
    scores = {"age_auc_line": np.round(asked @ line, 9), "age_auc_neighbours": adult[nearest].mean(axis=1)}
    return {name: metrics.auc(truth, score) for name, score in scores.items()}


if __name__ == "__main__":
    erase()
